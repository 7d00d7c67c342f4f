//! What only a leader has: how far each replica has come, its own disk's vote, and the
//! reads that wait.
//!
//! Rules kept here: R3 (a vote counts only when durable, the leader's own included),
//! R15 (no read before the no-op of the leader's own ballot is applied).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::candidate::PromiseFrom;
use crate::log::Log;
use crate::message::{Entry, Message};
use crate::options::Options;
use crate::outbox::Outbox;
use crate::reads::Reads;

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

    /// How far a quorum of every configuration that counts has come.
    pub(crate) fn reached(&self, me: ReplicaId, log: &Log) -> Index {
        let marks = log.configs().map(|config| config.reached(|replica| self.mark(me, replica)));
        marks.fold(log.last(), Index::min)
    }

    /// Sends followers what they may have.
    pub(crate) fn stream(&mut self, log: &Log, options: &Options, out: &mut Outbox) {
        let (ballot, decided) = (self.ballot, log.decided());
        for follower in &mut self.followers {
            while let Some(entries) = follower.take_next(log, options) {
                follower.told = follower.told.max(decided);
                out.send(follower.replica, Message::Accept { ballot, entries, decided });
            }
        }
    }

    /// Starts to bring a replica up to date whose state is known.
    pub(crate) fn start_follower(
        &mut self,
        state: PromiseFrom,
        log: &Log,
        options: &Options,
        out: &mut Outbox,
    ) {
        let ballot = self.ballot;
        let Some(follower) = self.follower(state.replica) else { return };
        if state.accepted == ballot {
            follower.stage = match log.get(state.length.next()) {
                Some(_) => Stage::Streaming(state.length.next()),
                None if state.length >= log.last() => Stage::Streaming(state.length.next()),
                None => Stage::Snapshot,
            };
        } else if !log.resends_after(state.decided, options.resent_bytes_max) {
            follower.stage = Stage::Snapshot;
        } else {
            let (from, whole_to) = (state.decided.next(), log.last());
            // P6: what it knows to be decided was decided in this ballot or a lower one.
            assert!(state.decided <= whole_to, "{} has decided beyond {whole_to} in {ballot}", state.replica);
            let mut next = from;
            loop {
                // Nothing to re-send is a Sync without entries: the log's ballot must rise (R1).
                let entries = log.slice(next, whole_to, options.message_bytes_max);
                next = entries.last().map_or(next, |entry| entry.index.next());
                out.send(state.replica, Message::Sync { ballot, from, entries, whole_to });
                if next > whole_to {
                    break;
                }
            }
            follower.stage = Stage::Streaming(next);
        }
        if follower.stage == Stage::Snapshot {
            out.snapshots_wanted.push(state.replica);
        }
    }

    /// A follower's vote reaches to `index`. Returns whether that is news.
    pub(crate) fn note_accepted(&mut self, from: ReplicaId, index: Index, last: Index) -> bool {
        let ballot = self.ballot;
        let Some(follower) = self.follower(from) else { return false };
        assert!(index <= last, "{from} accepted {index} beyond the log's end {last} in {ballot}");
        if index <= follower.accepted {
            // Said again: it may have missed what was decided.
            follower.told = Index::ZERO;
            return false;
        }
        follower.accepted = index;
        follower.rewound = None;
        match follower.stage {
            Stage::Streaming(next) if next > index => {}
            _ => follower.stage = Stage::Streaming(index.next()),
        }
        true
    }

    /// Something did not fit: goes back to where the follower stands.
    pub(crate) fn rewind(&mut self, state: PromiseFrom, log: &Log, options: &Options, out: &mut Outbox) {
        let standing = if state.accepted == self.ballot { state.length } else { state.decided };
        let Some(follower) = self.follower(state.replica) else { return };
        if follower.rewound == Some(standing) {
            // One of a burst; the probe repeats the rewind if it was lost.
            return;
        }
        follower.rewound = Some(standing);
        // Marks told meanwhile may not have fitted.
        follower.told = Index::ZERO;
        self.start_follower(state, log, options, out);
    }

    /// Marks that no Accept has carried, and, if it is time to `probe`, questions to those who
    /// are heard and have not answered.
    pub(crate) fn tell_followers(
        &mut self,
        log: &Log,
        heard: impl Fn(ReplicaId) -> bool,
        probe: bool,
        out: &mut Outbox,
    ) {
        let ballot = self.ballot;
        let (decided, last) = (log.decided(), log.last());
        if probe && let Some(round) = self.reads.open_round() {
            for follower in &self.followers {
                out.send(follower.replica, Message::Confirm { ballot, round });
            }
        }
        for follower in &mut self.followers {
            let idle = follower.accepted < last && follower.probed == follower.accepted;
            let stuck = probe && idle && heard(follower.replica);
            if probe {
                follower.probed = follower.accepted;
            }
            if stuck {
                follower.rewound = None;
                if follower.stage == Stage::Snapshot {
                    out.snapshots_wanted.push(follower.replica);
                }
                // It may not fit, so it does not count as told.
                out.send(follower.replica, Message::Decide { ballot, decided, length: last });
            } else if follower.told < decided && follower.accepted >= decided {
                out.send(follower.replica, Message::Decide { ballot, decided, length: Index::ZERO });
                follower.told = decided;
            }
        }
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
    /// The next entries to send, if there are any and the follower may have them.
    fn take_next(&mut self, log: &Log, options: &Options) -> Option<Vec<Entry>> {
        let Stage::Streaming(next) = self.stage else { return None };
        if next > log.last() || next.0 > self.accepted.0 + options.follower_entries_max {
            return None;
        }
        let entries = log.slice(next, log.last(), options.message_bytes_max);
        // None if they are forgotten: the follower will say that it is behind.
        self.stage = Stage::Streaming(entries.last()?.index.next());
        Some(entries)
    }

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
