//! Simulated clients: real sessions over the gateway, and the history they record.

use bytes::{Bytes, BytesMut};
use tholos_node::{ClientId, Port};
use tholos_resp::{Value, ValueDecoder, ValueLimits};

use crate::coverage::{Coverage, Reached};
use crate::mortals::Mortals;
use crate::random::Random;
use tholos_check::{Kind, Operation, Outcome, Reply};

/// Keys that clients fight over.
const KEYS: u64 = 6;
/// One connection in so many only reads, at replicas.
const READERS_ONE_IN: u64 = 4;
/// How old answers may be to some of them, in microseconds.
const BOUNDS_US: [u64; 3] = [60_000, 300_000, 1_500_000];

/// What all clients together have seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// What can be checked for linearizability.
    pub history: Vec<Operation>,
    /// Keys with a TTL.
    pub mortals: Mortals,
    /// Whether keys must now be gone soon after their TTL.
    pub prompt: bool,
    /// Branches that show in replies.
    pub coverage: Coverage,
}

/// A client with at most a few commands under way.
pub struct Client {
    /// Its number, for the history.
    pub number: u64,
    /// The connection, if it has one: its id and the node.
    pub connection: Option<(ClientId, usize)>,
    /// When the oldest command under way was sent.
    pub sent_at: u64,
    /// When the last bytes on their way arrive.
    pub last_delivery: u64,
    under_way: Vec<UnderWay>,
    /// What is watched, once the watch is known to hold, and how it looked then.
    watched: Option<(Watched, Value)>,
    /// A shard has lost something for good since (R29): what was watched may be what is lost.
    watch_is_void: bool,
    /// Whether this connection only reads, at a replica.
    reads_only: bool,
    /// How old its answers may be, in microseconds; `None`: not at all.
    bound_us: Option<u64>,
    /// It has said READONLY.
    has_said_so: bool,
    /// The node had no replica that could answer: another one is to be asked.
    pub moved: bool,
    buffer: BytesMut,
    decoder: ValueDecoder,
    random: Random,
    next_value: u64,
    /// Commands that got a reply.
    pub answered: u64,
    /// Replies that said that the fate is unknown or that nothing was done.
    pub refused: u64,
}

/// A key under WATCH.
#[derive(Clone, Copy, Debug)]
enum Watched {
    /// One that clients fight over, by number.
    Key(u64),
    /// One that dies.
    Mortal(usize),
}

/// A command that was sent and not answered.
#[derive(Debug)]
enum UnderWay {
    /// For the history.
    Checked(Operation),
    /// On a key that dies: which, and when it was asked for.
    Mortal(usize, u64),
    /// OK or QUEUED.
    Ignored,
    /// WATCH: if it fails, the read after it does not count.
    Watch,
    /// The read after WATCH.
    WatchedRead(Watched, Box<UnderWay>),
    /// EXEC of the watched key's read, or of a GETSET, which goes to the history; and how the key looked under WATCH.
    Exec(Option<Operation>, Value),
}

impl Client {
    /// A client without a connection.
    pub fn new(number: u64, random: Random) -> Client {
        Client {
            number,
            connection: None,
            sent_at: 0,
            last_delivery: 0,
            under_way: Vec::new(),
            watched: None,
            watch_is_void: false,
            reads_only: false,
            bound_us: None,
            has_said_so: false,
            moved: false,
            buffer: BytesMut::new(),
            decoder: ValueDecoder::new(ValueLimits::default()),
            random,
            next_value: 0,
            answered: 0,
            refused: 0,
        }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Chooses what the next connection is for, and so by which port it comes: clients that only read, at a replica, by that
    /// of the cluster, or by either if they take answers of some age.
    pub fn connect(&mut self, connection: ClientId, host: usize) -> Port {
        self.connection = Some((connection, host));
        self.reads_only = self.random.below(READERS_ONE_IN) == 0;
        let bound = self.random.below(2 * BOUNDS_US.len() as u64) as usize;
        self.bound_us = BOUNDS_US.get(bound).copied().filter(|_| self.reads_only);
        (self.has_said_so, self.moved) = (false, false);
        let by_gateway = self.bound_us.is_some() && self.random.below(2) == 0;
        if self.reads_only && !by_gateway { Port::Cluster } else { Port::Gateway }
    }

    /// Makes the next commands and notes their call. Mostly one; sometimes a pipeline or a part of a transaction.
    pub fn next_commands(&mut self, now: u64, seen: &mut Seen) -> Vec<Vec<Bytes>> {
        self.sent_at = now;
        if self.reads_only && !std::mem::replace(&mut self.has_said_so, true) {
            self.under_way.push(UnderWay::Ignored);
            let bound = self.bound_us.map(|bound| (bound / 1000).to_string());
            return vec![words(&["READONLY"].into_iter().chain(bound.as_deref()).collect::<Vec<_>>())];
        }
        if let Some((watched, looked)) = self.watched.take() {
            return self.transaction(watched, looked, now, &seen.mortals);
        }
        if !self.reads_only && self.random.below(40) == 0 {
            return self.watch(now, seen);
        }
        let count = if self.random.below(8) == 0 { self.random.between(2, 4) } else { 1 };
        (0..count)
            .map(|_| {
                if self.random.below(10) == 0 && self.bound_us.is_none() {
                    self.next_mortal(now, &mut seen.mortals)
                } else {
                    self.next_command(now)
                }
            })
            .collect()
    }

    /// WATCH, and a read of the same key.
    fn watch(&mut self, now: u64, seen: &mut Seen) -> Vec<Vec<Bytes>> {
        self.under_way.push(UnderWay::Watch);
        self.watch_is_void = false;
        let mortal = seen.mortals.pick(&mut self.random).filter(|_| self.random.below(2) == 0);
        let (watched, key, read) = match mortal {
            Some(at) => (Watched::Mortal(at), seen.mortals.key(at), UnderWay::Mortal(at, now)),
            None => {
                let number = self.random.below(KEYS);
                let key = format!("key:{number}");
                let read = UnderWay::Checked(self.operation(&key, Kind::Get, now));
                (Watched::Key(number), key, read)
            }
        };
        self.under_way.push(UnderWay::WatchedRead(watched, Box::new(read)));
        vec![words(&["WATCH", &key]), words(&["GET", &key])]
    }

    fn transaction(
        &mut self,
        watched: Watched,
        looked: Value,
        now: u64,
        mortals: &Mortals,
    ) -> Vec<Vec<Bytes>> {
        let (command, operation) = match watched {
            Watched::Mortal(at) => (words(&["GET", &mortals.key(at)]), None),
            Watched::Key(number) => {
                let key = format!("key:{number}");
                self.next_value += 1;
                let value = format!("{}-{}", self.number, self.next_value);
                let operation = self.operation(&key, Kind::GetSet(value.clone().into_bytes()), now);
                (words(&["GETSET", &key, &value]), Some(operation))
            }
        };
        self.under_way.extend([UnderWay::Ignored, UnderWay::Ignored, UnderWay::Exec(operation, looked)]);
        vec![words(&["MULTI"]), command, words(&["EXEC"])]
    }

    fn next_mortal(&mut self, now: u64, mortals: &mut Mortals) -> Vec<Bytes> {
        let known = mortals.pick(&mut self.random);
        let known = known.filter(|_| self.reads_only || self.random.below(4) > 0);
        let (at, words) = match known {
            Some(at) => (at, vec![String::from("GET"), mortals.key(at)]),
            None if self.reads_only => return self.next_command(now),
            None => mortals.create(self.number, &mut self.random),
        };
        self.under_way.push(UnderWay::Mortal(at, now));
        words.into_iter().map(Bytes::from).collect()
    }

    fn operation(&self, key: &str, kind: Kind, now: u64) -> Operation {
        Operation {
            client: self.number,
            key: key.as_bytes().to_vec(),
            kind,
            // An answer that may be old is one that was right at some time since then.
            invoked: now.saturating_sub(self.bound_us.unwrap_or(0)),
            returned: None,
            outcome: Outcome::Unknown,
        }
    }

    fn next_command(&mut self, now: u64) -> Vec<Bytes> {
        let number = self.random.below(KEYS);
        // Counters have keys of their own, so that INCR mostly finds an integer.
        let counter = self.random.below(3) == 0;
        let key = if counter { format!("counter:{number}") } else { format!("key:{number}") };
        self.next_value += 1;
        let value = format!("{}-{}", self.number, self.next_value);
        // Sometimes of several sectors, so that a write can be torn; what APPEND makes stays small enough to be kept as a
        // session's reply.
        let long = self.random.below(8) == 0;
        let rest = if long { self.random.between(500, 2_500) as usize } else { 0 };
        let whole = format!("{value}{}", ".".repeat(rest));
        let stored = whole.clone().into_bytes();
        let (kind, args) = if self.reads_only {
            (Kind::Get, words(&["GET", &key]))
        } else if counter {
            match self.random.below(10) {
                0..=5 => {
                    let by = self.random.between(1, 9) as i64;
                    (Kind::IncrBy(by), words(&["INCRBY", &key, &by.to_string()]))
                }
                6 => (Kind::Del, words(&["DEL", &key])),
                _ => (Kind::Get, words(&["GET", &key])),
            }
        } else {
            match self.random.below(20) {
                0..=6 => (Kind::Get, words(&["GET", &key])),
                7..=13 => (Kind::Set(stored), words(&["SET", &key, &whole])),
                14 => (Kind::SetNx(stored), words(&["SETNX", &key, &whole])),
                15 => (Kind::Del, words(&["DEL", &key])),
                16 => (Kind::GetDel, words(&["GETDEL", &key])),
                17 | 18 => (Kind::Append(value.clone().into_bytes()), words(&["APPEND", &key, &value])),
                _ => (Kind::GetSet(stored), words(&["GETSET", &key, &whole])),
            }
        };
        let operation = self.operation(&key, kind, now);
        self.under_way.push(UnderWay::Checked(operation));
        args
    }

    /// Bytes from the node. Completed operations go to the history. An error is a violation.
    pub fn receive(&mut self, bytes: &[u8], now: u64, seen: &mut Seen) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        while let Some(value) = self.decoder.decode(&mut self.buffer).expect("replies are well formed") {
            assert!(!self.under_way.is_empty(), "a reply to nothing: {value:?}");
            let command = self.under_way.remove(0);
            self.take(command, &value, now, seen)?;
        }
        Ok(())
    }

    fn take(&mut self, command: UnderWay, value: &Value, now: u64, seen: &mut Seen) -> Result<(), String> {
        note_error(value, &mut seen.coverage)?;
        self.moved |= matches!(value, Value::Error(text) if text.starts_with(b"MOVED"));
        match command {
            UnderWay::Checked(mut operation) => {
                operation.outcome = outcome(value);
                self.complete(operation, now, seen);
            }
            UnderWay::Mortal(at, asked) => {
                seen.mortals.note(at, (asked, now), value, seen.prompt, &mut seen.coverage)?;
            }
            UnderWay::Ignored => {}
            UnderWay::Watch => {
                if matches!(value, Value::Error(_))
                    && let Some(UnderWay::WatchedRead(_, read)) =
                        self.under_way.pop_if(|next| matches!(next, UnderWay::WatchedRead(..)))
                {
                    self.under_way.push(*read);
                }
            }
            UnderWay::WatchedRead(watched, read) => {
                if matches!(value, Value::Bulk(_) | Value::Null) {
                    self.watched = Some((watched, value.clone()));
                }
                self.take(*read, value, now, seen)?;
            }
            UnderWay::Exec(operation, looked) => self.take_exec(operation, &looked, value, now, seen)?,
        }
        Ok(())
    }

    /// R19: what went through found the watched key as it was under WATCH.
    fn take_exec(
        &mut self,
        operation: Option<Operation>,
        looked: &Value,
        value: &Value,
        now: u64,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let found = match value {
            Value::Array(replies) => replies.first(),
            _ => None,
        };
        if let Some(mut operation) = operation {
            operation.outcome = match (value, found) {
                (_, Some(reply)) => outcome(reply),
                (Value::Error(text), _) if text.starts_with(b"INDOUBT") => Outcome::Unknown,
                _ => Outcome::Failed,
            };
            self.complete(operation, now, seen);
        }
        match (value, found) {
            (_, Some(found)) if found != looked && !self.watch_is_void => {
                return Err(format!("EXEC went through, and what was watched as {looked:?} is {found:?}"));
            }
            (_, Some(_)) => seen.coverage.count(Reached::TransactionDone),
            (Value::NullArray, _) => seen.coverage.count(Reached::TransactionAborted),
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self, mut operation: Operation, now: u64, seen: &mut Seen) {
        operation.returned = Some(now);
        match operation.outcome {
            Outcome::Ok(_) => self.answered += 1,
            _ => self.refused += 1,
        }
        seen.history.push(operation);
    }

    /// A shard has lost something for good (R29): what this client watches may be part of it.
    pub fn forget_watch(&mut self) {
        self.watch_is_void = true;
    }

    /// The connection is gone: whatever is under way has an unknown fate.
    pub fn disconnect(&mut self, seen: &mut Seen) {
        self.connection = None;
        self.watched = None;
        self.buffer.clear();
        self.decoder = ValueDecoder::new(ValueLimits::default());
        seen.history.extend(self.under_way.drain(..).filter_map(|command| match command {
            UnderWay::Checked(operation) | UnderWay::Exec(Some(operation), _) => Some(operation),
            UnderWay::WatchedRead(..)
            | UnderWay::Exec(None, _)
            | UnderWay::Mortal(..)
            | UnderWay::Ignored
            | UnderWay::Watch => None,
        }));
    }
}

fn words(all: &[&str]) -> Vec<Bytes> {
    all.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// Errors that are worth counting, and one that must not be.
fn note_error(value: &Value, coverage: &mut Coverage) -> Result<(), String> {
    let Value::Error(text) = value else { return Ok(()) };
    if text.starts_with(b"DISKFULL") {
        coverage.count(Reached::Full);
    }
    if text.starts_with(b"BUSY too many connections") {
        coverage.count(Reached::SessionRefused);
    }
    // No reply here is too large to be kept, so none is ever lost (R18).
    match text.starts_with(b"INDOUBT the write was applied") {
        true => Err(String::from("a small reply was not kept with its session")),
        false => Ok(()),
    }
}

fn outcome(value: &Value) -> Outcome {
    match value {
        Value::Simple(text) if &text[..] == b"OK" => Outcome::Ok(Reply::Ok),
        Value::Integer(number) => Outcome::Ok(Reply::Integer(*number)),
        Value::Bulk(bytes) => Outcome::Ok(Reply::Value(bytes.to_vec())),
        Value::Null => Outcome::Ok(Reply::Nil),
        Value::Error(text) if text.starts_with(b"INDOUBT") => Outcome::Unknown,
        Value::Error(text) if text.starts_with(b"CLUSTERDOWN") => Outcome::Failed,
        Value::Error(text) if text.starts_with(b"MOVED") => Outcome::Failed,
        Value::Error(text) if text.starts_with(b"DISKFULL") => Outcome::Failed,
        Value::Error(text) if text.starts_with(b"BUSY") => Outcome::Failed,
        Value::Error(text) if text.starts_with(b"ERR value is not an integer") => Outcome::Ok(Reply::Refused),
        Value::Error(text) if text.starts_with(b"ERR increment") => Outcome::Ok(Reply::Refused),
        other => panic!("an unexpected reply: {other:?}"),
    }
}
