//! The command table: every command's name, number of arguments, flags and key positions, as data.
//!
//! It feeds parsing, the replies to COMMAND, key extraction, and the book. The entries are in `specs`.

use bytes::Bytes;
use tholos_resp::Value;

use crate::command::Command;
use crate::error;
use crate::specs;

/// Checks the options of one command and makes it; the arity has been checked before.
pub(crate) type Parser = fn(&'static Spec, &[Bytes]) -> Result<Command, Value>;

/// One command, or one subcommand of a container such as CLIENT.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Lower case; a subcommand as `client|id`.
    pub name: &'static str,
    /// Number of arguments with the name (and the subcommand); at least as many if negative.
    pub arity: i16,
    /// What it does and where it may run.
    pub flags: Flags,
    /// Which arguments are keys.
    pub keys: KeyPositions,
    /// What it does to its keys; one for each group of keys that it treats alike.
    pub key_specs: &'static [KeySpec],
    /// Groups of ACL rules it belongs to, beside those that follow from its flags.
    pub categories: Categories,
    /// Advice for clients that route or cache.
    pub tips: &'static [&'static str],
    /// The family in the documents: `string`, `generic`, `connection`, ….
    pub group: &'static str,
    /// The Redis version that introduced it.
    pub since: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Time it takes, N being the number of keys unless the sentence says otherwise.
    pub complexity: &'static str,
    /// Its arguments, as one writes them in a manual: `key value [NX|XX]`.
    pub syntax: &'static str,
    /// Subcommands; empty for all but containers.
    pub subcommands: &'static [Spec],
    /// Makes the data command; `None` if it is for the connection or the whole keyspace.
    pub(crate) parser: Option<Parser>,
}

/// Where the keys are among the arguments; all zero for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPositions {
    /// Index of the first key, the command's name being 0.
    pub first: i16,
    /// Index of the last; −1 means the last argument.
    pub last: i16,
    /// Distance from key to key.
    pub step: i16,
}

/// What a command does to a group of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Redis's words: `RO`, `RW`, `OW`, `RM`, then `access`, `update`, `insert`, `delete`.
    pub flags: &'static [&'static str],
    /// Index of the first key.
    pub begin: i16,
    /// Last key, counted from the first; −1 means the last argument.
    pub last: i16,
    /// Distance from key to key.
    pub step: i16,
}

/// A set of command flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

/// A set of ACL categories that flags do not imply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Categories(pub u32);

impl Flags {
    /// May change keys.
    pub const WRITE: Flags = Flags(1);
    /// Reads keys and changes none.
    pub const READONLY: Flags = Flags(1 << 1);
    /// Refused when memory is full.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Not in scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    /// Answered while data are being loaded.
    pub const LOADING: Flags = Flags(1 << 5);
    /// Answered by a replica without its leader.
    pub const STALE: Flags = Flags(1 << 6);
    /// Takes constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 7);
    /// Answered before AUTH.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Answered while a script runs too long.
    pub const ALLOW_BUSY: Flags = Flags(1 << 9);
    /// Left out of the slow log.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 10);

    const NAMES: [&'static str; 11] = [
        "write",
        "readonly",
        "denyoom",
        "admin",
        "noscript",
        "loading",
        "stale",
        "fast",
        "no_auth",
        "allow_busy",
        "skip_slowlog",
    ];

    /// Both sets together.
    #[must_use]
    pub const fn or(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, as COMMAND INFO gives them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES
            .into_iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, name)| name)
    }
}

impl Categories {
    /// Nothing beyond what the flags say.
    pub const NONE: Categories = Categories(0);
    /// Keys whatever their type.
    pub const KEYSPACE: Categories = Categories(1);
    /// Strings.
    pub const STRING: Categories = Categories(1 << 1);
    /// The connection or its neighbours.
    pub const CONNECTION: Categories = Categories(1 << 2);
    /// MULTI and its kin.
    pub const TRANSACTION: Categories = Categories(1 << 3);
    /// Can do harm, or cost much.
    pub const DANGEROUS: Categories = Categories(1 << 4);
    /// For administrators, without the flag.
    pub const ADMIN: Categories = Categories(1 << 5);

    /// Both sets together.
    #[must_use]
    pub const fn or(self, other: Categories) -> Categories {
        Categories(self.0 | other.0)
    }

    const fn has(self, other: Categories) -> bool {
        self.0 & other.0 == other.0
    }
}

impl Spec {
    /// Whether `count` arguments, the name included, are a number it takes.
    #[must_use]
    pub const fn takes(&self, count: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { count >= arity } else { count == arity }
    }

    /// Whether [`Command::parse`] makes a command of it, so that a keyspace can carry it out.
    #[must_use]
    pub const fn is_data(&self) -> bool {
        self.parser.is_some()
    }

    /// All ACL categories, those that follow from flags included, in Redis's order and with the `@`.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        let (flags, own) = (self.flags, self.categories);
        let admin = flags.has(Flags::ADMIN) || own.has(Categories::ADMIN);
        [
            ("@keyspace", own.has(Categories::KEYSPACE)),
            ("@read", flags.has(Flags::READONLY)),
            ("@write", flags.has(Flags::WRITE)),
            ("@string", own.has(Categories::STRING)),
            ("@admin", admin),
            ("@fast", flags.has(Flags::FAST)),
            ("@slow", !flags.has(Flags::FAST)),
            ("@dangerous", admin || own.has(Categories::DANGEROUS)),
            ("@connection", own.has(Categories::CONNECTION)),
            ("@transaction", own.has(Categories::TRANSACTION)),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
    }
}

/// The command of this name in any case; containers only by their own name.
#[must_use]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    let letter = usize::from(name.first()?.to_ascii_lowercase().checked_sub(b'a')?);
    let (from, to) = (*STARTS.get(letter)?, *STARTS.get(letter + 1)?);
    specs::ALL[from..to].iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
}

/// Where the names of each letter begin in the table, and its end: every command is looked up on every replica, and a
/// handful of names that share a letter is found sooner in a row than by halving the whole.
static STARTS: [usize; 27] = starts();

const fn starts() -> [usize; 27] {
    let mut starts = [0; 27];
    let mut letter = 0;
    while letter < 27 {
        let mut before = 0;
        while before < specs::ALL.len()
            && (specs::ALL[before].name.as_bytes()[0] as usize) < b'a' as usize + letter
        {
            before += 1;
        }
        starts[letter] = before;
        letter += 1;
    }
    starts
}

/// Every command, sorted by name.
#[must_use]
pub fn all() -> &'static [Spec] {
    specs::ALL
}

/// The command that a line of arguments means, a subcommand if there is one, with its number of arguments checked.
pub fn resolve(args: &[Bytes]) -> Result<&'static Spec, Value> {
    let Some(spec) = args.first().and_then(|name| lookup(name)) else {
        return Err(error::unknown_command(args));
    };
    let spec = match args.get(1) {
        Some(sub) if !spec.subcommands.is_empty() => {
            subcommand(spec, sub).ok_or_else(|| error::unknown_subcommand(args))?
        }
        _ => spec,
    };
    if spec.takes(args.len()) { Ok(spec) } else { Err(error::wrong_arity(spec.name)) }
}

/// The subcommand of a container by its own name, in any case.
#[must_use]
pub fn subcommand(container: &'static Spec, name: &[u8]) -> Option<&'static Spec> {
    container.subcommands.iter().find(|spec| {
        let own = spec.name.split_once('|').map_or(spec.name, |(_, own)| own);
        name.eq_ignore_ascii_case(own.as_bytes())
    })
}

/// The keys among `args`, which start with the command's name.
pub fn keys<'a>(spec: &'static Spec, args: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
    let KeyPositions { first, last, step } = spec.keys;
    let first = usize::try_from(first).unwrap_or(0);
    let end = match usize::try_from(last) {
        Ok(last) => last + 1,
        Err(_) => (args.len() + 1).saturating_sub(last.unsigned_abs().into()),
    };
    let range = if first == 0 { &[][..] } else { args.get(first..end.min(args.len())).unwrap_or_default() };
    range.iter().step_by(usize::try_from(step).unwrap_or(1).max(1))
}
