//! What only a candidate has.
//!
//! Rules kept here: R2 (no Prepare before the own promise is durable), R9 (a quorum must call
//! the leader lost before anything is prepared).

use alloc::vec::Vec;

use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::message::Entry;

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

/// One promise: who, and what their log is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PromiseFrom {
    pub(crate) replica: ReplicaId,
    pub(crate) accepted: Ballot,
    pub(crate) length: Index,
    pub(crate) decided: Index,
}

impl PromiseFrom {
    /// The log to adopt is the one with the highest (accepted ballot, length).
    pub(crate) fn rank(&self) -> (Ballot, Index) {
        (self.accepted, self.length)
    }
}
