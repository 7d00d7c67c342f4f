//! All clients of a run and what they share: the clock, the keys, how far they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tholos_check::Operation;
use tholos_resp::Value;

use crate::client::{Client, Record};
use crate::connection::{Connection, OpenFailure};
use crate::mix::{Action, Mix};
use crate::summary::Summary;

/// Keys of each class, at most.
pub const KEYS_MAX: u64 = 1 << 20;
/// Parts of a log before the next log is begun, so that its value stays short.
const LOG_PARTS_MAX: u64 = 64;
/// Different things that servers said, kept for the report.
const NOTES_MAX: usize = 64;
/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port` of each server, at least one.
    pub targets: Vec<String>,
    /// Shown at each connection.
    pub password: Option<String>,
    /// Clients that stay with one address each, so many for each address; their waits tell how that address was served.
    pub pinned: usize,
    /// Clients that use any address, and choose anew when one fails.
    pub roaming: usize,
    /// Keys of each class (registers, counters, logs); 1 to [`KEYS_MAX`].
    pub keys: u64,
    /// What all keys begin with. No key of it may exist at the start: the history begins with absence.
    pub prefix: String,
    /// The commands.
    pub mix: Mix,
    /// Pause of a client between two operations.
    pub think: Duration,
    /// A reply that takes longer leaves its operation open. Longer than the servers' own limit lets them speak first.
    pub reply_timeout: Duration,
    /// Chooses keys, commands and addresses.
    pub seed: u64,
    /// Operations recorded, at most: the clients stop there. One takes about 250 bytes.
    pub operations_max: u64,
}

impl Plan {
    pub(crate) fn open(&self, address: &str) -> Result<Connection, OpenFailure> {
        Connection::open(address, self.password.as_deref(), CONNECT_TIMEOUT, self.reply_timeout)
    }
}

/// Why no client was started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// None of the addresses answers.
    Unreachable(String),
    /// One answers, and refuses the password or the lack of one.
    NotAllowed(String),
    /// A key of this prefix exists: the history would not begin with absence.
    NotEmpty(String),
}

/// What kind of value a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Register,
    Counter,
    Log,
}

/// A key, and the number of its place among those whose last write is remembered.
pub(crate) struct Key {
    pub(crate) bytes: Vec<u8>,
    pub(crate) place: usize,
}

/// What the clients of a run share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    begin: Instant,
    stop: AtomicBool,
    pub(crate) recorded: AtomicU64,
    served: AtomicU64,
    /// For each log, how many parts were asked to be appended.
    log_parts: Vec<AtomicU64>,
    /// For each place, when it was last written, in nanoseconds of the run.
    written: Vec<AtomicU64>,
    /// For each address, when it last answered.
    answered: Vec<AtomicU64>,
    notes: Mutex<BTreeMap<String, u64>>,
}

impl Shared {
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("no run lasts for centuries")
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.recorded.load(Ordering::Relaxed) >= self.plan.operations_max
    }

    /// The classes that the mix uses; a mix of reads alone reads registers.
    pub(crate) fn classes(&self) -> &'static [Class] {
        use Class::{Counter, Log, Register};
        let mix = &self.plan.mix;
        let register = [Action::Set, Action::SetNx, Action::GetSet, Action::Del, Action::GetDel];
        match (register.iter().any(|&action| mix.has(action)), mix.has(Action::Incr), mix.has(Action::Append))
        {
            (true, true, true) => &[Register, Counter, Log],
            (true, true, false) => &[Register, Counter],
            (true, false, true) => &[Register, Log],
            (false, true, true) => &[Counter, Log],
            (false, true, false) => &[Counter],
            (false, false, true) => &[Log],
            (_, false, false) => &[Register],
        }
    }

    pub(crate) fn key(&self, class: Class, slot: u64) -> Key {
        let parts = self.log_parts[slot as usize].load(Ordering::Relaxed);
        Key { bytes: self.name(class, slot, parts / LOG_PARTS_MAX), place: self.place(class, slot) }
    }

    /// The log to which the next part goes.
    pub(crate) fn next_log(&self, slot: u64) -> Key {
        let parts = self.log_parts[slot as usize].fetch_add(1, Ordering::Relaxed);
        Key { bytes: self.name(Class::Log, slot, parts / LOG_PARTS_MAX), place: self.place(Class::Log, slot) }
    }

    fn name(&self, class: Class, slot: u64, volume: u64) -> Vec<u8> {
        let prefix = &self.plan.prefix;
        let name = match class {
            Class::Register => format!("{prefix}r{slot}"),
            Class::Counter => format!("{prefix}c{slot}"),
            Class::Log => format!("{prefix}l{slot}.{volume}"),
        };
        name.into_bytes()
    }

    fn place(&self, class: Class, slot: u64) -> usize {
        let nth = self.classes().iter().position(|&other| other == class).unwrap_or(0);
        nth * self.plan.keys as usize + slot as usize
    }

    /// Every key that may have been written.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        for (&class, slot) in
            self.classes().iter().flat_map(|class| (0..self.plan.keys).map(move |slot| (class, slot)))
        {
            let parts =
                if class == Class::Log { self.log_parts[slot as usize].load(Ordering::Relaxed) } else { 1 };
            keys.extend((0..parts.div_ceil(LOG_PARTS_MAX)).map(|volume| self.name(class, slot, volume)));
        }
        keys
    }

    pub(crate) fn served(&self, target: usize, written: Option<usize>, now: u64) {
        self.served.fetch_add(1, Ordering::Relaxed);
        self.answered[target].fetch_max(now, Ordering::Relaxed);
        if let Some(place) = written {
            self.written[place].fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Remembers what a server said other than a reply.
    pub(crate) fn note(&self, said: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // Where it points differs by key; that it points away is what matters.
        let said = if said.starts_with("MOVED ") { "MOVED" } else { said };
        let room = notes.len() < NOTES_MAX;
        if let Some(count) = notes.get_mut(said) {
            *count += 1;
        } else if room {
            notes.insert(said.to_owned(), 1);
        }
    }
}

/// Clients that run.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Record>>,
}

impl Load {
    /// Sees that one address answers and has none of the keys, then starts the clients: those pinned to the first
    /// address, to the second and so on, then those that roam. They are numbered in this order.
    ///
    /// # Errors
    /// See [`StartError`]; no client runs then.
    ///
    /// # Panics
    /// If the plan has no address, no client, or keys out of bounds.
    pub fn start(plan: Plan) -> Result<Self, StartError> {
        let clients = plan.pinned * plan.targets.len() + plan.roaming;
        assert!(
            clients > 0 && (1..=KEYS_MAX).contains(&plan.keys),
            "a plan without clients or keys: {plan:?}"
        );
        let keys = usize::try_from(plan.keys).expect("bounded above");
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            recorded: AtomicU64::new(0),
            served: AtomicU64::new(0),
            log_parts: zeros(keys),
            written: Vec::new(),
            answered: zeros(plan.targets.len()),
            notes: Mutex::default(),
            plan,
        });
        greet(&shared)?;
        let places = shared.classes().len() * keys;
        let mut shared = Arc::into_inner(shared).expect("no client runs yet");
        shared.written = zeros(places);
        let shared = Arc::new(shared);
        let pinned = shared.plan.pinned * shared.plan.targets.len();
        let start = |number: usize| {
            let target = (number < pinned).then(|| number / shared.plan.pinned);
            let client = Client::new(number, target, Arc::clone(&shared));
            std::thread::spawn(move || client.run())
        };
        Ok(Self { clients: (0..clients).map(start).collect(), shared: Arc::clone(&shared) })
    }

    /// Nanoseconds of the run, by the clock of its history.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Operations recorded so far, and those among them that succeeded.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.recorded.load(Ordering::Relaxed), self.shared.served.load(Ordering::Relaxed))
    }

    /// Whether the most operations are recorded.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.recorded.load(Ordering::Relaxed) >= self.shared.plan.operations_max
    }

    /// When an address last answered, in nanoseconds of the run.
    #[must_use]
    pub fn answered(&self, target: usize) -> u64 {
        self.shared.answered[target].load(Ordering::Relaxed)
    }

    /// When the last of all keys (of a log, its newest volume) was written anew after `from`; `None` while one was not.
    #[must_use]
    pub fn all_written_since(&self, from: u64) -> Option<u64> {
        let times = || self.shared.written.iter().map(|time| time.load(Ordering::Relaxed));
        times().all(|time| time > from).then(|| times().max().unwrap_or(from))
    }

    /// Stops the clients, reads every key once more (for `read_for` at most), and returns all that was done.
    #[must_use]
    pub fn stop(self, read_for: Duration) -> History {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut history = History {
            operations: Vec::new(),
            targets: Vec::new(),
            clients: self.clients.len(),
            stopped: 0,
            unread: 0,
            notes: Vec::new(),
            shared: Arc::clone(&self.shared),
        };
        for client in self.clients {
            history.add(client.join().expect("a client does not panic"));
        }
        history.stopped = self.shared.now();
        if !read_for.is_zero() {
            let until =
                history.stopped.saturating_add(u64::try_from(read_for.as_nanos()).unwrap_or(u64::MAX));
            let reader = Client::new(history.clients, None, Arc::clone(&self.shared));
            let (record, unread) = reader.read_all(until);
            history.add(record);
            history.unread = unread;
        }
        let notes = self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        history.notes = notes.into_iter().collect();
        // The commonest first.
        history.notes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        history
    }
}

/// Connects to the first address that answers, and looks at one key of each class.
fn greet(shared: &Shared) -> Result<(), StartError> {
    let mut why = String::new();
    for target in &shared.plan.targets {
        let mut connection = match shared.plan.open(target) {
            Ok(connection) => connection,
            Err(OpenFailure::Unreachable(said)) => {
                why = said;
                continue;
            }
            Err(OpenFailure::NotAllowed(said)) => return Err(StartError::NotAllowed(said)),
        };
        match see_nothing(shared, target, &mut connection) {
            Err(StartError::Unreachable(said)) => why = said,
            other => return other,
        }
    }
    Err(StartError::Unreachable(why))
}

fn see_nothing(shared: &Shared, target: &str, connection: &mut Connection) -> Result<(), StartError> {
    for class in [Class::Register, Class::Counter, Class::Log] {
        match connection.exchange(&[b"EXISTS", &shared.name(class, 0, 0)]) {
            Ok(Value::Integer(1)) => {
                let said = format!("keys that begin with {} exist", shared.plan.prefix);
                return Err(StartError::NotEmpty(said));
            }
            Ok(Value::Error(line)) if line.starts_with(b"NOAUTH") => {
                return Err(StartError::NotAllowed(format!("{target}: {}", String::from_utf8_lossy(&line))));
            }
            // MOVED and the like: it is a server, which is all that is asked here.
            Ok(_) => {}
            Err(said) => return Err(StartError::Unreachable(format!("{target}: {said}"))),
        }
    }
    Ok(())
}

/// What all clients of a run did.
pub struct History {
    /// Every operation, client by client, each client's in its order. The last client is the one that read all keys at
    /// the end.
    pub operations: Vec<Operation>,
    /// For each operation, the number of the address it was sent to.
    pub targets: Vec<u16>,
    /// Clients, without the one that read at the end.
    pub clients: usize,
    /// When the clients had stopped, in nanoseconds of the run.
    pub stopped: u64,
    /// Keys that could not be read at the end.
    pub unread: usize,
    /// What servers said other than a reply, and how often, the commonest first.
    pub notes: Vec<(String, u64)>,
    shared: Arc<Shared>,
}

impl History {
    fn add(&mut self, record: Record) {
        self.operations.extend(record.operations);
        self.targets.extend(record.targets);
    }

    /// Its figures.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::new(&self.operations, self.clients, self.stopped)
    }

    /// Deletes the keys of the run, as far as somebody answers; how many stay.
    #[must_use]
    pub fn remove_keys(&self) -> usize {
        Client::new(self.clients + 1, None, Arc::clone(&self.shared)).remove_all()
    }
}
