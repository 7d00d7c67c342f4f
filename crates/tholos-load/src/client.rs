//! One client: picks an operation, asks for it, writes down what came of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tholos_check::{Kind, Operation, Outcome};

use crate::connection::{Answer, Connection, OpenFailure, moved_to};
use crate::load::{Class, Key, Shared};
use crate::mix::Action;
use crate::random::Random;

/// Pause of a client that cannot connect or was refused.
const PAUSE: Duration = Duration::from_millis(10);
/// Redirections followed for one operation.
const REDIRECTIONS_MAX: usize = 8;
/// What one client did.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) operations: Vec<Operation>,
    /// For each operation, the number of the address it was sent to.
    pub(crate) targets: Vec<u16>,
}

pub(crate) struct Client {
    number: u64,
    /// The address a pinned client stays with.
    pinned: Option<usize>,
    target: usize,
    connection: Option<Connection>,
    random: Random,
    sequence: u64,
    shared: Arc<Shared>,
    record: Record,
}

impl Client {
    pub(crate) fn new(number: usize, pinned: Option<usize>, shared: Arc<Shared>) -> Self {
        let mut random = Random::new(shared.plan.seed, number as u64);
        let target = pinned.unwrap_or_else(|| random.below(shared.plan.targets.len() as u64) as usize);
        let number = number as u64;
        Self {
            number,
            pinned,
            target,
            connection: None,
            random,
            sequence: 0,
            shared,
            record: Record::default(),
        }
    }

    pub(crate) fn run(mut self) -> Record {
        while !self.shared.is_over() {
            if !self.connect() {
                std::thread::sleep(PAUSE);
                continue;
            }
            let (key, kind) = self.pick();
            match self.operate(key.bytes, kind, Some(key.place)) {
                Outcome::Failed => std::thread::sleep(PAUSE),
                _ if !self.shared.plan.think.is_zero() => std::thread::sleep(self.shared.plan.think),
                _ => {}
            }
        }
        self.record
    }

    /// Reads every key that was written, once, until somebody answers or `deadline` (in nanoseconds of the run) is
    /// over; how many were not read.
    pub(crate) fn read_all(mut self, deadline: u64) -> (Record, usize) {
        let mut unread = 0;
        for key in self.shared.keys() {
            loop {
                if self.connect() && matches!(self.operate(key.clone(), Kind::Get, None), Outcome::Ok(_)) {
                    break;
                }
                if self.shared.now() > deadline {
                    unread += 1;
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
        (self.record, unread)
    }

    /// Deletes every key that was written, as far as somebody answers; how many stay.
    pub(crate) fn remove_all(mut self) -> usize {
        let (shared, mut keys) = (Arc::clone(&self.shared), self.shared.keys());
        // Each address is tried twice: enough for a cluster that works, and soon over with one that does not.
        let mut tries = shared.plan.targets.iter().chain(&shared.plan.targets);
        while let Some(key) = keys.last() {
            if self.connection.is_none() {
                let Some(target) = tries.next() else { break };
                self.connection = shared.plan.open(target).ok();
            } else if matches!(self.operate(key.clone(), Kind::Del, None), Outcome::Ok(_)) {
                keys.pop();
            }
        }
        keys.len()
    }

    fn connect(&mut self) -> bool {
        if self.connection.is_some() {
            return true;
        }
        let plan = &self.shared.plan;
        // At random: in turn, all clients would gather at one node and be stuck with it together.
        self.target = self.pinned.unwrap_or_else(|| self.random.below(plan.targets.len() as u64) as usize);
        match plan.open(&plan.targets[self.target]) {
            Ok(connection) => self.connection = Some(connection),
            Err(OpenFailure::Unreachable(_)) => {}
            Err(OpenFailure::NotAllowed(why)) => self.shared.note(&why),
        }
        self.connection.is_some()
    }

    fn pick(&mut self) -> (Key, Kind) {
        self.sequence += 1;
        let shared = &self.shared;
        let slot = self.random.below(shared.plan.keys);
        // No two writes write the same (H4).
        let value = format!("c{}.{}", self.number, self.sequence).into_bytes();
        match shared.plan.mix.pick(self.random.next()) {
            Action::Set => (shared.key(Class::Register, slot), Kind::Set(value)),
            Action::SetNx => (shared.key(Class::Register, slot), Kind::SetNx(value)),
            Action::GetSet => (shared.key(Class::Register, slot), Kind::GetSet(value)),
            Action::Del => (shared.key(Class::Register, slot), Kind::Del),
            Action::GetDel => (shared.key(Class::Register, slot), Kind::GetDel),
            Action::Incr => (shared.key(Class::Counter, slot), Kind::IncrBy(1)),
            Action::Append => (shared.next_log(slot), Kind::Append([&value[..], b";"].concat())),
            Action::Get => {
                let classes = shared.classes();
                let class = classes[self.random.below(classes.len() as u64) as usize];
                (shared.key(class, slot), Kind::Get)
            }
        }
    }

    /// One operation (H1), also if it is sent on to where MOVED points: what is redirected was not done.
    fn operate(&mut self, key: Vec<u8>, kind: Kind, place: Option<usize>) -> Outcome {
        let invoked = self.shared.now();
        let connection = self.connection.as_mut().expect("connected before");
        let mut answer = connection.ask(&key, &kind);
        let mut detours = 0;
        while let Answer::Refused(line) = &answer
            && let Some(address) = moved_to(line)
            && detours < REDIRECTIONS_MAX
        {
            detours += 1;
            answer = match self.shared.plan.open(address) {
                Ok(mut detour) => {
                    let answer = detour.ask(&key, &kind);
                    self.connection = Some(detour);
                    answer
                }
                // Nothing was sent there.
                Err(_) => Answer::Refused("MOVED to a node that is down".to_owned()),
            };
        }
        let outcome = match answer {
            Answer::Reply(reply) => Outcome::Ok(reply),
            Answer::Refused(line) => {
                self.shared.note(&line);
                Outcome::Failed
            }
            Answer::Open(why) => {
                self.shared.note(&why);
                Outcome::Unknown
            }
        };
        let now = self.shared.now();
        // A late reply must not be taken for that of the next operation (H2); a client that was redirected goes home.
        if outcome == Outcome::Unknown || outcome == Outcome::Failed || (detours > 0 && self.pinned.is_some())
        {
            self.connection = None;
        }
        if matches!(outcome, Outcome::Ok(_)) {
            self.shared.served(self.target, place.filter(|_| kind != Kind::Get), now);
        }
        self.shared.recorded.fetch_add(1, Ordering::Relaxed);
        self.record.targets.push(u16::try_from(self.target).unwrap_or(u16::MAX));
        self.record.operations.push(Operation {
            client: self.number,
            key,
            kind,
            invoked,
            returned: (outcome != Outcome::Unknown).then_some(now),
            outcome: outcome.clone(),
        });
        outcome
    }
}
