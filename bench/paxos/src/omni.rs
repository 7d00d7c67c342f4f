//! omnipaxos 0.2.4 in the harness.

use std::time::Instant;

use bytes::Bytes;
use omnipaxos::macros::Entry;
use omnipaxos::messages::Message;
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;

use crate::TRIM_EVERY;
use crate::ours::Case;

#[derive(Clone, Debug, Entry)]
pub(crate) struct Value(Bytes);

struct Member {
    core: OmniPaxos<Value, MemoryStorage<Value>>,
    inbox: Vec<Message<Value>>,
    read: usize,
    woken: bool,
}

pub(crate) struct Trio {
    members: Vec<Member>,
    sends: Vec<Message<Value>>,
    leader: usize,
    decided: usize,
}

impl Trio {
    pub(crate) fn new(batch_size: usize) -> Trio {
        let member = |pid| {
            let cluster_config =
                ClusterConfig { configuration_id: 1, nodes: vec![1, 2, 3], ..Default::default() };
            let server_config = ServerConfig {
                pid,
                election_tick_timeout: 5,
                resend_message_tick_timeout: 20,
                batch_size,
                ..Default::default()
            };
            let config = OmniPaxosConfig { cluster_config, server_config };
            let core = config.build(MemoryStorage::default()).expect("a valid configuration");
            Member { core, inbox: Vec::new(), read: 0, woken: false }
        };
        let members = (1..=3).map(member).collect();
        let mut trio = Trio { members, sends: Vec::new(), leader: 0, decided: 0 };
        let nothing = &Case::all()[0];
        for _ in 0..100 {
            for member in &mut trio.members {
                member.core.tick();
                member.woken = true;
            }
            trio.settle(nothing);
        }
        let (pid, _) = trio.members[0].core.get_current_leader().expect("a leader after 100 ticks");
        trio.leader = pid as usize - 1;
        trio
    }

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
            for message in inbox.drain(..) {
                member.core.handle_incoming(message);
            }
            member.inbox = inbox;
            let decided = member.core.get_decided_idx();
            if decided > member.read {
                for entry in member.core.read_decided_suffix(member.read).into_iter().flatten() {
                    if let LogEntry::Decided(value) = entry {
                        case.apply(&value.0);
                    }
                }
                member.read = decided;
            }
            member.core.take_outgoing_messages(&mut self.sends);
            for message in self.sends.drain(..) {
                let receiver = &mut self.members[message.get_receiver() as usize - 1];
                receiver.inbox.push(message);
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
            for _ in 0..case.under_way {
                self.members[self.leader].core.append(Value(case.proposal())).expect("no stop sign");
            }
            self.members[self.leader].woken = true;
            self.settle(case);
            let read = self.members[self.leader].read;
            if read >= self.decided + TRIM_EVERY {
                self.decided = read;
                let index = self.members.iter().map(|member| member.read).min().unwrap_or(0);
                self.members[self.leader].core.trim(Some(index)).expect("all have read it");
                self.members[self.leader].woken = true;
                self.settle(case);
            }
        }
        let nanos = start.elapsed().as_nanos() as f64;
        assert!(self.members.iter().all(|member| member.read > 0));
        nanos / (rounds * case.commands()) as f64
    }
}
