//! raft 0.7 in the harness: its `Ready` carried out as its documentation says, with every record durable at once.

use std::time::Instant;

use raft::eraftpb::{Entry, Message};
use raft::storage::MemStorage;
use raft::{Config, RawNode};
use slog::{Discard, Logger, o};

use crate::TRIM_EVERY;
use crate::ours::Case;

struct Member {
    core: RawNode<MemStorage>,
    inbox: Vec<Message>,
    /// The last entry applied.
    read: u64,
    woken: bool,
}

impl Member {
    /// Carries out what the core asks for. Whether that was anything.
    fn settle(&mut self, case: &Case, sends: &mut Vec<Message>) -> bool {
        if !self.core.has_ready() {
            return false;
        }
        let mut ready = self.core.ready();
        sends.append(&mut ready.take_messages());
        self.apply(case, ready.take_committed_entries());
        let store = self.core.store().clone();
        store.wl().append(ready.entries()).expect("entries that follow");
        if let Some(state) = ready.hs() {
            store.wl().set_hardstate(state.clone());
        }
        // What was held until the records are durable.
        sends.append(&mut ready.take_persisted_messages());
        let mut light = self.core.advance(ready);
        if let Some(commit) = light.commit_index() {
            store.wl().mut_hard_state().set_commit(commit);
        }
        sends.append(&mut light.take_messages());
        self.apply(case, light.take_committed_entries());
        self.core.advance_apply();
        true
    }

    fn apply(&mut self, case: &Case, entries: Vec<Entry>) {
        for entry in &entries {
            if !entry.data.is_empty() {
                case.apply(&entry.data);
            }
            self.read = entry.index;
        }
    }
}

pub(crate) struct Trio {
    members: Vec<Member>,
    sends: Vec<Message>,
    trimmed: u64,
}

impl Trio {
    pub(crate) fn new() -> Trio {
        let member = |id| {
            let config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 3,
                max_inflight_msgs: 256,
                max_size_per_msg: 1 << 20,
                batch_append: true,
                check_quorum: true,
                pre_vote: true,
                ..Default::default()
            };
            let store = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
            let core =
                RawNode::new(&config, store, &Logger::root(Discard, o!())).expect("a valid configuration");
            Member { core, inbox: Vec::new(), read: 0, woken: false }
        };
        let mut trio = Trio { members: (1..=3).map(member).collect(), sends: Vec::new(), trimmed: 0 };
        trio.members[0].core.campaign().expect("nobody leads");
        trio.members[0].woken = true;
        trio.settle(&Case::all()[0]);
        assert_eq!(trio.members[2].core.raft.leader_id, 1);
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
                member.core.step(message).expect("a message of a member");
            }
            member.inbox = inbox;
            while member.settle(case, &mut self.sends) {}
            for message in self.sends.drain(..) {
                let receiver = &mut self.members[message.to as usize - 1];
                receiver.inbox.push(message);
                receiver.woken = true;
            }
        }
        busy
    }

    /// Decides `count` commands. Returns nanoseconds for each.
    pub(crate) fn decide(&mut self, case: &Case, count: u64) -> f64 {
        let rounds = count / case.commands();
        let from = self.members[0].read;
        let start = Instant::now();
        for _ in 0..rounds {
            for _ in 0..case.under_way {
                // It wants a Vec.
                self.members[0].core.propose(Vec::new(), case.proposal().into()).expect("n1 leads");
            }
            self.members[0].woken = true;
            self.settle(case);
            let read = self.members.iter().map(|member| member.read).min().unwrap_or(0);
            if read >= self.trimmed + TRIM_EVERY as u64 {
                self.trimmed = read;
                for member in &self.members {
                    member.core.store().wl().compact(read).expect("all have applied it");
                }
            }
        }
        let nanos = start.elapsed().as_nanos() as f64;
        assert_eq!(self.members[0].read - from, rounds * case.under_way);
        nanos / (rounds * case.commands()) as f64
    }
}
