//! What only a candidate has.
//!
//! Rules kept here: R2 (no Prepare before the own promise is durable), R9 (a quorum must call
//! the leader lost before anything is prepared).

use alloc::vec::Vec;

use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::log::Log;
use crate::message::Entry;
use crate::options::Options;

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) ballot: Ballot,
    pub(crate) step: Step,
    /// When this attempt is given up.
    pub(crate) gives_up: Millis,
    /// When the last messages are sent again.
    pub(crate) repeats: Millis,
}

#[derive(Debug)]
pub(crate) enum Step {
    /// Asking whether the others, too, have lost the leader. Binds nobody.
    Canvass { endorsed: Vec<ReplicaId> },
    /// Own promise on its way to disk; nothing has been said yet (R2).
    Promise { seq: AppendSeq },
    /// Phase 1: collecting promises, the own one first.
    Prepare { promises: Vec<PromiseFrom> },
    /// A quorum has promised; fetching the log that must be adopted.
    Fetch { promises: Vec<PromiseFrom>, source: ReplicaId, entries: Vec<Entry>, whole_to: Index },
}

/// What pieces of a fetched log have come to.
pub(crate) enum Fetched {
    /// They are not of the log being fetched.
    Stray,
    /// More is missing.
    Part,
    /// It is whole.
    Whole(Vec<PromiseFrom>, Vec<Entry>),
}

impl Candidate {
    pub(crate) fn new(ballot: Ballot, step: Step, now: Millis, options: &Options) -> Candidate {
        Candidate {
            ballot,
            step,
            gives_up: now.plus(options.election_timeout),
            repeats: now.plus(options.stagger),
        }
    }

    /// Notes a promise. Returns all of them if they are still being counted.
    pub(crate) fn note_promise(&mut self, promise: PromiseFrom) -> Option<&[PromiseFrom]> {
        let (promises, counting) = match &mut self.step {
            Step::Prepare { promises } => (promises, true),
            // Too late to be counted, but not to be brought up to date.
            Step::Fetch { promises, .. } => (promises, false),
            Step::Canvass { .. } | Step::Promise { .. } => return None,
        };
        if promises.iter().all(|known| known.replica != promise.replica) {
            promises.push(promise);
        }
        counting.then_some(promises.as_slice())
    }

    /// Adds pieces of the log of `from`, which ends at `length`, to what comes after `decided`.
    pub(crate) fn take_pieces(
        &mut self,
        from: ReplicaId,
        pieces: Vec<Entry>,
        length: Index,
        decided: Index,
        gives_up: Millis,
    ) -> Fetched {
        let Step::Fetch { promises, source, entries, whole_to } = &mut self.step else {
            return Fetched::Stray;
        };
        if *source != from || *whole_to != length {
            return Fetched::Stray;
        }
        for entry in pieces {
            let next = entries.last().map_or(decided.next(), |last| last.index.next());
            if entry.index == next {
                entries.push(entry);
                // A long log takes longer than one time-out; what counts is that it moves.
                self.gives_up = gives_up;
            }
        }
        if entries.last().map_or(decided, |last| last.index) < *whole_to {
            return Fetched::Part;
        }
        Fetched::Whole(core::mem::take(promises), core::mem::take(entries))
    }
}

/// One promise: who, and what their log is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PromiseFrom {
    pub(crate) replica: ReplicaId,
    pub(crate) accepted: Ballot,
    pub(crate) length: Index,
    pub(crate) decided: Index,
}

impl PromiseFrom {
    /// What `replica` would promise now.
    pub(crate) fn of(replica: ReplicaId, log: &Log) -> PromiseFrom {
        PromiseFrom { replica, accepted: log.accepted(), length: log.last(), decided: log.decided() }
    }

    /// The log to adopt is the one with the highest (accepted ballot, length).
    pub(crate) fn rank(&self) -> (Ballot, Index) {
        (self.accepted, self.length)
    }
}
