//! What a decision costs in the protocol alone: three replicas, one thread, no network and no disk.
//!
//! `cargo run --release -p tholos-paxos --example decisions`
//!
//! Every message is handed over as a value and every record is durable when the turn of its replica has come,
//! so that Accepted is held until then as in a node; applied entries are trimmed. One line for each case, or only
//! for those whose name holds the first argument.

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

struct Member {
    group: Group,
    out: Outbox,
    inbox: Vec<(ReplicaId, Message)>,
    records: u64,
}

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
        };
        let mut trio = Trio { members: [1, 2, 3].map(member), now: Millis(0), sends: Vec::new() };
        while !trio.members[0].group.serving() {
            trio.now = trio.now.plus(Millis(10));
            let member = &mut trio.members[0];
            member.group.handle_tick(trio.now, &All, &mut member.out);
            trio.settle();
        }
        trio
    }

    /// Each in turn takes what has arrived, flushes and syncs, until nobody has anything.
    fn settle(&mut self) {
        while self.turn() {}
    }

    fn turn(&mut self) -> bool {
        let mut busy = false;
        for at in 0..3 {
            let member = &mut self.members[at];
            let mut inbox = std::mem::take(&mut member.inbox);
            for (from, message) in inbox.drain(..) {
                busy = true;
                member.group.handle_message(from, message, self.now, &mut member.out);
            }
            member.inbox = inbox;
            member.group.flush(self.now, &mut member.out);
            if !member.out.appends.is_empty() {
                busy = true;
                member.records += member.out.appends.len() as u64;
                for record in member.out.appends.drain(..) {
                    black_box::<Record>(record);
                }
                let seq = member.out.last_seq();
                member.group.handle_durable(seq, self.now, &mut member.out);
            }
            while let Some(entry) = member.group.take_decided() {
                black_box(entry);
            }
            let applied = member.group.applied_index();
            member.group.trim(applied);
            std::mem::swap(&mut self.sends, &mut member.out.sends);
            let from = member.group.me();
            for (to, message) in self.sends.drain(..) {
                self.members[to.0 as usize - 1].inbox.push((from, message));
            }
        }
        busy
    }

    /// Decides `count` payloads, `under_way` at a time. Returns nanoseconds for each.
    pub(crate) fn decide(&mut self, payload: &Bytes, count: u64, under_way: u64) -> f64 {
        let start = Instant::now();
        for _ in 0..count / under_way {
            for seed in 0..under_way {
                let leader = &mut self.members[0];
                let result =
                    leader.group.propose(Payload::Batch(payload.clone()), self.now, seed, &mut leader.out);
                result.expect("the window is wide enough");
            }
            self.settle();
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }
}

/// The middle of several runs.
pub(crate) fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

#[allow(dead_code, reason = "the comparison in bench/paxos takes the rest alone")]
fn main() {
    const DECISIONS: u64 = 128_000;
    let wanted = std::env::args().nth(1).unwrap_or_default();
    println!("three replicas, one thread, {DECISIONS} decisions, the middle of 5 runs");
    for (name, bytes, under_way) in [
        ("one at a time, 16 B", 16, 1),
        ("one at a time, 256 B", 256, 1),
        ("64 under way, 16 B each", 16, 64),
        ("64 under way, 256 B each", 256, 64),
        ("one batch of 64 × 16 B at a time", 64 * 16, 1),
    ] {
        if !name.contains(&wanted) {
            continue;
        }
        let payload = Bytes::from(vec![7; bytes]);
        let mut trio = Trio::new(Options::default());
        trio.decide(&payload, DECISIONS / 10, under_way);
        let nanos = median((0..5).map(|_| trio.decide(&payload, DECISIONS, under_way)).collect());
        let decided = trio.members[2].group.accepted_index().0;
        assert!(
            decided > DECISIONS && trio.members.iter().all(|member| member.records * under_way > DECISIONS)
        );
        println!("{name:34} {nanos:7.0} ns a decision");
    }
}
