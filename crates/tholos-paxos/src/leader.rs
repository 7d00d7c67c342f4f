//! What only a leader has: how far each replica has come, its own disk's vote, and the
//! read-index rounds.
//!
//! Rules kept here: R3 (a vote counts only when durable, the leader's own included),
//! R15 (a round confirms only reads that arrived before it was sent, and none before the
//! no-op of the leader's own ballot is applied).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::log::Log;
use crate::message::Message;
use crate::outbox::Outbox;

#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) ballot: Ballot,
    /// The no-op that opens this ballot.
    pub(crate) first: Index,
    /// Whether [`Leader::first`] is decided and that was announced.
    pub(crate) serving: bool,
    pub(crate) followers: Vec<Follower>,
    /// Own appends under way, and the last index each makes durable.
    own_pending: VecDeque<(AppendSeq, Index)>,
    own_durable: Index,
    pub(crate) reads: Reads,
    /// Who leadership is being handed to, and until when the drain may last (R10).
    pub(crate) heir: Option<(ReplicaId, Millis)>,
    /// When followers that made no progress are next asked.
    pub(crate) next_probe: Millis,
}

/// What the leader knows of one other replica.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) replica: ReplicaId,
    pub(crate) stage: Stage,
    /// Durable in the leader's ballot up to here.
    pub(crate) accepted: Index,
    /// The decided index last told.
    pub(crate) told: Index,
    /// `accepted` at the last probe: no progress since then means something was lost.
    pub(crate) probed: Index,
    /// Where the last rewind went, so that a burst of refusals causes one.
    pub(crate) rewound: Option<Index>,
}

/// How a replica is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Nothing is known of its log: ask.
    Unknown,
    /// Its log is (or, if messages arrive, will be) accepted in this ballot; next to send.
    Streaming(Index),
    /// It lacks what the log no longer holds.
    Snapshot,
}

impl Leader {
    pub(crate) fn new(ballot: Ballot, first: Index, followers: impl Iterator<Item = ReplicaId>) -> Leader {
        Leader {
            ballot,
            first,
            serving: false,
            followers: followers.map(Follower::new).collect(),
            own_pending: VecDeque::new(),
            own_durable: Index::ZERO,
            reads: Reads::default(),
            heir: None,
            next_probe: Millis(0),
        }
    }

    pub(crate) fn note_append(&mut self, seq: AppendSeq, last: Index) {
        self.own_pending.push_back((seq, last));
    }

    pub(crate) fn handle_durable(&mut self, seq: AppendSeq) {
        while let Some((at, index)) = self.own_pending.front() {
            if *at > seq {
                break;
            }
            self.own_durable = *index;
            self.own_pending.pop_front();
        }
    }

    pub(crate) fn follower(&mut self, replica: ReplicaId) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.replica == replica)
    }

    /// How far `replica`'s vote reaches: durable and in this ballot.
    pub(crate) fn mark(&self, me: ReplicaId, replica: ReplicaId) -> Index {
        if replica == me {
            return self.own_durable;
        }
        let found = self.followers.iter().find(|follower| follower.replica == replica);
        found.map_or(Index::ZERO, |follower| follower.accepted)
    }

    /// Tells a follower where it should stand, and asks where it does.
    pub(crate) fn probe(&self, log: &Log) -> Message {
        Message::Decide { ballot: self.ballot, decided: log.decided(), length: log.last() }
    }

    /// For planted faults only: counts the own vote before it is durable.
    pub(crate) fn count_own(&mut self, last: Index) {
        self.own_durable = last;
    }
}

impl Follower {
    fn new(replica: ReplicaId) -> Follower {
        Follower {
            replica,
            stage: Stage::Unknown,
            accepted: Index::ZERO,
            told: Index::ZERO,
            probed: Index::ZERO,
            rewound: None,
        }
    }
}

/// Reads on their way through a read-index round.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Arrived since the last round was sent.
    arrived: Vec<(u64, Index)>,
    /// Rounds sent, oldest first.
    rounds: VecDeque<Round>,
    /// Confirmed, but the state has not come as far yet.
    confirmed: Vec<(u64, Index)>,
    last_round: u64,
}

#[derive(Debug)]
struct Round {
    round: u64,
    reads: Vec<(u64, Index)>,
    confirmed_by: Vec<ReplicaId>,
}

impl Reads {
    /// A read that must see everything decided up to `index`.
    pub(crate) fn arrive(&mut self, token: u64, index: Index) {
        self.arrived.push((token, index));
    }

    /// Starts a round for what has arrived, if anything has and fewer than `rounds_max` are
    /// under way. Returns its number.
    pub(crate) fn start_round(&mut self, rounds_max: usize) -> Option<u64> {
        if self.arrived.is_empty() || self.rounds.len() >= rounds_max {
            return None;
        }
        self.last_round += 1;
        let reads = core::mem::take(&mut self.arrived);
        self.rounds.push_back(Round { round: self.last_round, reads, confirmed_by: Vec::new() });
        Some(self.last_round)
    }

    /// The number of the last round under way, to be asked again if an answer was lost.
    pub(crate) fn open_round(&self) -> Option<u64> {
        self.rounds.back().map(|round| round.round)
    }

    /// `replica` held to the leader's ballot after `round` was sent, and so after every
    /// earlier one was.
    pub(crate) fn confirm(&mut self, replica: ReplicaId, round: u64, quorum: impl Fn(&[ReplicaId]) -> bool) {
        for open in self.rounds.iter_mut().filter(|open| open.round <= round) {
            if !open.confirmed_by.contains(&replica) {
                open.confirmed_by.push(replica);
            }
        }
        while self.rounds.front().is_some_and(|open| quorum(&open.confirmed_by)) {
            if let Some(done) = self.rounds.pop_front() {
                self.confirmed.extend(done.reads);
            }
        }
    }

    /// For planted faults only: whatever has arrived counts as confirmed.
    pub(crate) fn confirm_arrived(&mut self) {
        self.confirmed.append(&mut self.arrived);
    }

    /// Hands out the confirmed reads whose index is decided; the driver applies before it answers.
    pub(crate) fn take_ready(&mut self, decided: Index, out: &mut Outbox) {
        self.confirmed.retain(|(token, index)| {
            let ready = *index <= decided;
            if ready {
                out.reads_ready.push(*token);
            }
            !ready
        });
    }

    /// Leadership is gone: nothing here can be confirmed.
    pub(crate) fn fail(self, out: &mut Outbox) {
        let rounds = self.rounds.into_iter().flat_map(|round| round.reads);
        let all = self.arrived.into_iter().chain(rounds).chain(self.confirmed);
        out.reads_failed.extend(all.map(|(token, _)| token));
    }
}
