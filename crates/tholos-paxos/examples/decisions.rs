//! What a decision costs in the protocol alone: three replicas, one thread, no network and no disk.
//!
//! `cargo run --release -p tholos-paxos --example decisions`
//!
//! Every message is handed over as a value and every record is durable when the turn of its replica has come,
//! so that Accepted is held until then as in a node; applied entries are trimmed. One line for each case, or only
//! for those whose name holds the first argument. `bench/paxos` runs the same cases beside other cores.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use tholos_paxos::{
    Config, Connectivity, Group, Message, Millis, Options, Outbox, Payload, Record, ReplicaId,
};

/// Everybody hears everybody.
struct All;

impl Connectivity for All {
    fn hears(&self, _: ReplicaId, _: ReplicaId) -> bool {
        true
    }
}

/// What is proposed, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// One command.
    pub(crate) command: Bytes,
    /// Proposals in each round.
    pub(crate) under_way: u64,
    /// Commands framed in each proposal; zero if a proposal is one bare command.
    pub(crate) framed: u64,
}

impl Case {
    pub(crate) fn all() -> Vec<Case> {
        let case = |name, bytes, under_way, framed| {
            let command = Bytes::from(vec![7; bytes]);
            Case { name, command, under_way, framed }
        };
        vec![
            case("one at a time, 16 B", 16, 1, 0),
            case("one at a time, 256 B", 256, 1, 0),
            case("64 in one entry, 16 B each", 16, 1, 64),
            case("64 in one entry, 256 B each", 256, 1, 64),
            case("64 entries, 16 B each", 16, 64, 0),
            case("64 entries, 256 B each", 256, 64, 0),
        ]
    }

    /// Commands decided in each round.
    pub(crate) fn commands(&self) -> u64 {
        self.under_way * self.framed.max(1)
    }

    /// The next value to propose: framing is part of what a batch costs.
    pub(crate) fn proposal(&self) -> Bytes {
        if self.framed == 0 {
            return self.command.clone();
        }
        let mut batch = Vec::with_capacity(self.framed as usize * (4 + self.command.len()));
        for _ in 0..self.framed {
            batch.extend_from_slice(&(self.command.len() as u32).to_le_bytes());
            batch.extend_from_slice(&self.command);
        }
        batch.into()
    }

    /// What each replica does with a decided value: looks at every command in it.
    pub(crate) fn apply(&self, value: &[u8]) {
        if self.framed == 0 {
            black_box(value);
            return;
        }
        let mut rest = value;
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (command, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            black_box(command);
            rest = behind;
        }
    }
}

struct Member {
    group: Group,
    out: Outbox,
    inbox: Vec<(ReplicaId, Message)>,
    records: u64,
    /// Something has happened that it did not look at yet.
    woken: bool,
}

/// One command that nobody looks at: what is decided while a leader is elected.
const NOTHING: Case = Case { name: "", command: Bytes::new(), under_way: 1, framed: 0 };

pub(crate) struct Trio {
    members: [Member; 3],
    now: Millis,
    /// A buffer that goes round, as a driver's would.
    sends: Vec<(ReplicaId, Message)>,
}

impl Trio {
    pub(crate) fn new(options: Options) -> Trio {
        let config = Config::founding((1..=3).map(ReplicaId).collect());
        let member = |number| Member {
            group: Group::new(ReplicaId(number), config.clone(), options),
            out: Outbox::default(),
            inbox: Vec::new(),
            records: 0,
            woken: false,
        };
        let mut trio = Trio { members: [1, 2, 3].map(member), now: Millis(0), sends: Vec::new() };
        while !trio.members[0].group.serving() {
            trio.now = trio.now.plus(Millis(10));
            let member = &mut trio.members[0];
            member.group.handle_tick(trio.now, &All, &mut member.out);
            member.woken = true;
            trio.settle(&NOTHING);
        }
        trio
    }

    /// Each for whom there is something takes it, flushes and syncs, in turn, until nobody has anything.
    fn settle(&mut self, case: &Case) {
        while self.turn(case) {}
    }

    fn turn(&mut self, case: &Case) -> bool {
        let mut busy = false;
        for at in 0..3 {
            let member = &mut self.members[at];
            if !std::mem::take(&mut member.woken) {
                continue;
            }
            busy = true;
            let mut inbox = std::mem::take(&mut member.inbox);
            for (from, message) in inbox.drain(..) {
                member.group.handle_message(from, message, self.now, &mut member.out);
            }
            member.inbox = inbox;
            member.group.flush(self.now, &mut member.out);
            if !member.out.appends.is_empty() {
                member.records += member.out.appends.len() as u64;
                for record in member.out.appends.drain(..) {
                    black_box::<Record>(record);
                }
                let seq = member.out.last_seq();
                member.group.handle_durable(seq, self.now, &mut member.out);
            }
            while let Some(entry) = member.group.take_decided() {
                if let Payload::Batch(value) = &entry.payload {
                    case.apply(value);
                }
            }
            let applied = member.group.applied_index();
            member.group.trim(applied);
            std::mem::swap(&mut self.sends, &mut member.out.sends);
            let from = member.group.me();
            for (to, message) in self.sends.drain(..) {
                let receiver = &mut self.members[to.0 as usize - 1];
                receiver.inbox.push((from, message));
                receiver.woken = true;
            }
        }
        busy
    }

    /// Decides `count` commands. Returns nanoseconds for each.
    pub(crate) fn decide(&mut self, case: &Case, count: u64) -> f64 {
        let rounds = count / case.commands();
        let start = Instant::now();
        for _ in 0..rounds {
            for seed in 0..case.under_way {
                let leader = &mut self.members[0];
                let payload = Payload::Batch(case.proposal());
                let result = leader.group.propose(payload, self.now, seed, &mut leader.out);
                result.expect("the window is wide enough");
            }
            self.members[0].woken = true;
            self.settle(case);
        }
        let nanos = start.elapsed().as_nanos() as f64;
        let least = self.members.iter().map(|member| member.records).min().unwrap_or(0);
        assert!(least >= rounds, "every replica has made a record of what it accepted");
        nanos / (rounds * case.commands()) as f64
    }
}

/// The middle of several runs.
pub(crate) fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

#[allow(dead_code, reason = "the comparison in bench/paxos takes the rest alone")]
fn main() {
    const COMMANDS: u64 = 128_000;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("three replicas, one thread, {COMMANDS} commands, the middle of 5 runs");
    for case in Case::all() {
        if !case.name.contains(&wanted) {
            continue;
        }
        let mut trio = Trio::new(Options::default());
        trio.decide(&case, COMMANDS / 10);
        let nanos = median((0..5).map(|_| trio.decide(&case, COMMANDS)).collect());
        println!("{:34} {nanos:7.1} ns a command", case.name);
    }
}
