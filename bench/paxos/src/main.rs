//! What a decision costs in the protocol alone, beside omnipaxos: three replicas, one thread, messages handed over
//! as values, no disk, logs trimmed, decided entries read on every replica.
//!
//! `cd bench && cargo run --release -p bench-paxos`
//!
//! Not alike: ours holds each answer until the driver says that its record is durable, and makes the record;
//! omnipaxos writes to its in-memory storage before it answers. Both are asked in turn, so that the machine is as
//! busy for one as for the other.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use omnipaxos::macros::Entry;
use omnipaxos::messages::Message;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;

#[path = "../../../crates/tholos-paxos/examples/decisions.rs"]
mod ours;

#[derive(Clone, Debug, Entry)]
#[allow(dead_code, reason = "nobody looks into a value here")]
struct Value(Bytes);

struct Member {
    core: OmniPaxos<Value, MemoryStorage<Value>>,
    inbox: Vec<Message<Value>>,
    read: usize,
}

struct Trio {
    members: Vec<Member>,
    sends: Vec<Message<Value>>,
    leader: usize,
}

impl Trio {
    fn new() -> Trio {
        let member = |pid| {
            let cluster_config =
                ClusterConfig { configuration_id: 1, nodes: vec![1, 2, 3], ..Default::default() };
            let server_config = ServerConfig {
                pid,
                election_tick_timeout: 5,
                resend_message_tick_timeout: 20,
                ..Default::default()
            };
            let config = OmniPaxosConfig { cluster_config, server_config };
            let core = config.build(MemoryStorage::default()).expect("a valid configuration");
            Member { core, inbox: Vec::new(), read: 0 }
        };
        let mut trio = Trio { members: (1..=3).map(member).collect(), sends: Vec::new(), leader: 0 };
        for _ in 0..100 {
            for member in &mut trio.members {
                member.core.tick();
            }
            trio.settle();
        }
        let (pid, _) = trio.members[0].core.get_current_leader().expect("a leader after 100 ticks");
        trio.leader = pid as usize - 1;
        trio
    }

    fn settle(&mut self) {
        while self.turn() {}
    }

    fn turn(&mut self) -> bool {
        let mut busy = false;
        for at in 0..3 {
            let member = &mut self.members[at];
            let mut inbox = std::mem::take(&mut member.inbox);
            for message in inbox.drain(..) {
                busy = true;
                member.core.handle_incoming(message);
            }
            member.inbox = inbox;
            let decided = member.core.get_decided_idx();
            if decided > member.read {
                black_box(member.core.read_decided_suffix(member.read));
                member.read = decided;
            }
            member.core.take_outgoing_messages(&mut self.sends);
            for message in self.sends.drain(..) {
                busy = true;
                self.members[message.get_receiver() as usize - 1].inbox.push(message);
            }
        }
        busy
    }

    fn decide(&mut self, payload: &Bytes, count: u64, under_way: u64) -> f64 {
        let start = Instant::now();
        let from = self.members[self.leader].read;
        for round in 1..=count / under_way {
            for _ in 0..under_way {
                self.members[self.leader].core.append(Value(payload.clone())).expect("no stop sign");
            }
            self.settle();
            if (round * under_way).is_multiple_of(4_096) {
                let index = self.members.iter().map(|member| member.read).min().unwrap_or(0);
                self.members[self.leader].core.trim(Some(index)).expect("all have read it");
                self.settle();
            }
        }
        let nanos = start.elapsed().as_nanos() as f64 / count as f64;
        assert!(self.members[self.leader].read - from >= (count / under_way * under_way) as usize);
        nanos
    }
}

fn main() {
    const DECISIONS: u64 = 128_000;
    println!("three replicas, one thread, {DECISIONS} decisions, the middle of 7 runs, ns a decision");
    println!("{:30} {:>8} {:>16}", "", "tholos", "omnipaxos 0.2.4");
    for (name, bytes, under_way) in [
        ("one at a time, 16 B", 16, 1),
        ("one at a time, 256 B", 256, 1),
        ("64 under way, 16 B each", 16, 64),
        ("64 under way, 256 B each", 256, 64),
        ("one batch of 64 × 16 B", 64 * 16, 1),
    ] {
        let payload = Bytes::from(vec![7; bytes]);
        let (mut mine, mut theirs) = (ours::Trio::new(Default::default()), Trio::new());
        let mut runs = (Vec::new(), Vec::new());
        for _ in 0..8 {
            runs.0.push(mine.decide(&payload, DECISIONS, under_way));
            runs.1.push(theirs.decide(&payload, DECISIONS, under_way));
        }
        // The first run warms up.
        let (mine, theirs) = (ours::median(runs.0.split_off(1)), ours::median(runs.1.split_off(1)));
        println!("{name:30} {mine:8.0} {theirs:16.0}");
    }
}
