//! The sequential store of one key, and operations compiled to what they ask of it.

use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use super::{HashMap, Kind, Operation, Outcome, Reply};

/// A value by number, or absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct State(pub(super) u32);

/// The key does not exist.
pub(super) const NIL: State = State(0);

/// All values one key takes in a search, each once.
pub(super) struct Values {
    numbers: HashMap<Vec<u8>, State>,
    values: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
}

impl Values {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { numbers: HashMap::default(), values: vec![Vec::new()], bytes: 0, bytes_max }
    }

    /// The number of a value, the same for equal values.
    pub(super) fn intern(&mut self, value: &[u8]) -> State {
        if let Some(&state) = self.numbers.get(value) {
            return state;
        }
        let state =
            State(u32::try_from(self.values.len()).expect("four thousand million values do not fit memory"));
        self.bytes += value.len();
        self.values.push(value.to_vec());
        self.numbers.insert(value.to_vec(), state);
        state
    }

    pub(super) fn bytes(&self, state: State) -> &[u8] {
        &self.values[state.0 as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn is_over_limit(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// The integer an `INCR` would see: absence counts as 0.
    pub(super) fn integer(&self, state: State) -> Option<i64> {
        if state == NIL { Some(0) } else { parse_integer(self.bytes(state)) }
    }
}

/// Redis's strict form: what the integer would print as, and nothing else (no `+1`, `01`, `-0`, space).
fn parse_integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let canonical = match digits {
        [b'0'] => digits.len() == bytes.len(),
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if canonical { core::str::from_utf8(bytes).ok()?.parse().ok() } else { None }
}

/// What an operation, together with its reply, asks of the state before it and makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Effect {
    /// Needs exactly this state, changes nothing.
    Read(State),
    /// Needs any value, changes nothing.
    Exists,
    /// Needs nothing, leaves this.
    Write(State),
    /// Needs the first, leaves the second, which differs.
    Swap(State, State),
    /// Needs any value, leaves absence.
    Remove,
    /// Leaves this value if there was none.
    WriteIfAbsent(State),
    /// Adds; the sum is known if the reply is.
    Add(i64, Option<i64>),
    /// Needs a value to which this cannot be added, changes nothing.
    AddRefused(i64),
    /// Appends; the new length is known if the reply is.
    Append(State, Option<i64>),
    /// No state allows this reply.
    Impossible,
}

impl Effect {
    /// The state after, or `None` if the state before does not allow this operation.
    pub(super) fn apply(&self, before: State, values: &mut Values) -> Option<State> {
        match *self {
            Effect::Read(state) => (before == state).then_some(before),
            Effect::Exists => (before != NIL).then_some(before),
            Effect::Write(after) => Some(after),
            Effect::Swap(from, to) => (before == from).then_some(to),
            Effect::Remove => (before != NIL).then_some(NIL),
            Effect::WriteIfAbsent(value) => Some(if before == NIL { value } else { before }),
            Effect::Add(delta, sum) => match values.integer(before).and_then(|n| n.checked_add(delta)) {
                Some(n) if sum.is_none_or(|sum| sum == n) => Some(values.intern(n.to_string().as_bytes())),
                // Of unknown fate and impossible here: the error it would have met changes nothing.
                None if sum.is_none() => Some(before),
                _ => None,
            },
            Effect::AddRefused(delta) => {
                values.integer(before).and_then(|n| n.checked_add(delta)).is_none().then_some(before)
            }
            Effect::Append(suffix, length) => {
                let mut joined = values.bytes(before).to_vec();
                joined.extend_from_slice(values.bytes(suffix));
                let fits = length.is_none_or(|length| usize::try_from(length) == Ok(joined.len()));
                // Redis creates the key even for an empty suffix.
                fits.then(|| values.intern(&joined))
            }
            Effect::Impossible => None,
        }
    }

    /// True if this effect never changes the state (K1).
    pub(super) fn is_pure(&self) -> bool {
        matches!(self, Effect::Read(_) | Effect::Exists | Effect::AddRefused(_))
    }

    /// True if the state before does not matter (K4).
    pub(super) fn is_blind(&self) -> bool {
        matches!(self, Effect::Write(_))
    }

    /// The only state this can start from, if there is just one.
    pub(super) fn need(&self) -> Option<State> {
        match *self {
            Effect::Read(state) | Effect::Swap(state, _) => Some(state),
            _ => None,
        }
    }

    /// True if this asks something of the state before it that [`Effect::need`] does not say.
    pub(super) fn is_vague(&self) -> bool {
        self.need().is_none() && !self.is_blind()
    }

    /// What states this can leave that were not there before.
    pub(super) fn product(&self) -> Product {
        match *self {
            Effect::Write(after) | Effect::Swap(_, after) | Effect::WriteIfAbsent(after) => {
                Product::One(after)
            }
            Effect::Remove => Product::One(NIL),
            Effect::Add(..) => Product::Integers,
            Effect::Append(_, length) => {
                Product::Strings(length.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
            }
            Effect::Read(_) | Effect::Exists | Effect::AddRefused(_) | Effect::Impossible => Product::Nothing,
        }
    }
}

/// The states an operation can bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Nothing,
    One(State),
    /// Any value that is an integer.
    Integers,
    /// Any value, or any of this length in bytes.
    Strings(Option<usize>),
}

/// One compiled operation.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) effect: Effect,
    /// It happened, and before its return; otherwise it is of unknown fate.
    pub(super) known: bool,
}

/// Compiles an operation, as of unknown fate unless `known`; `None` if it says nothing about the history.
pub(super) fn compile(operation: &Operation, known: bool, values: &mut Values) -> Option<Step> {
    match &operation.outcome {
        Outcome::Failed => None,
        Outcome::Ok(reply) if known && operation.returned.is_some() => {
            Some(Step { effect: known_effect(&operation.kind, reply, values), known: true })
        }
        Outcome::Ok(_) | Outcome::Unknown => {
            let effect = match &operation.kind {
                Kind::Get => return None,
                Kind::Set(value) | Kind::GetSet(value) => Effect::Write(values.intern(value)),
                Kind::SetNx(value) => Effect::WriteIfAbsent(values.intern(value)),
                Kind::Del | Kind::GetDel => Effect::Write(NIL),
                Kind::IncrBy(delta) => Effect::Add(*delta, None),
                Kind::Append(suffix) => Effect::Append(values.intern(suffix), None),
            };
            Some(Step { effect, known: false })
        }
    }
}

fn known_effect(kind: &Kind, reply: &Reply, values: &mut Values) -> Effect {
    match (kind, reply) {
        (Kind::Get | Kind::GetDel, Reply::Nil) | (Kind::Del, Reply::Integer(0)) => Effect::Read(NIL),
        (Kind::Get, Reply::Value(value)) => Effect::Read(values.intern(value)),
        (Kind::Set(value), Reply::Ok) => Effect::Write(values.intern(value)),
        (Kind::SetNx(value), Reply::Ok | Reply::Integer(1)) => Effect::Swap(NIL, values.intern(value)),
        (Kind::SetNx(_), Reply::Nil | Reply::Integer(0)) => Effect::Exists,
        (Kind::Del, Reply::Integer(1)) => Effect::Remove,
        (Kind::GetDel, Reply::Value(value)) => Effect::Swap(values.intern(value), NIL),
        (Kind::GetSet(value), Reply::Nil) => Effect::Swap(NIL, values.intern(value)),
        (Kind::GetSet(value), Reply::Value(old)) if value == old => Effect::Read(values.intern(value)),
        (Kind::GetSet(value), Reply::Value(old)) => Effect::Swap(values.intern(old), values.intern(value)),
        (Kind::IncrBy(delta), Reply::Integer(sum)) => match sum.checked_sub(*delta) {
            None => Effect::Impossible,
            // Absence counts as 0 too, so the state before is not certain.
            Some(0) => Effect::Add(*delta, Some(*sum)),
            Some(_) if *delta == 0 => Effect::Read(values.intern(sum.to_string().as_bytes())),
            Some(before) => {
                let from = values.intern(before.to_string().as_bytes());
                Effect::Swap(from, values.intern(sum.to_string().as_bytes()))
            }
        },
        (Kind::IncrBy(delta), Reply::Refused) => Effect::AddRefused(*delta),
        (Kind::Append(suffix), Reply::Integer(length)) => {
            Effect::Append(values.intern(suffix), Some(*length))
        }
        _ => Effect::Impossible,
    }
}
