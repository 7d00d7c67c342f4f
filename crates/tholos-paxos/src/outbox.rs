//! Where a group puts what it wants done.

use alloc::vec::Vec;

use crate::ballot::{AppendSeq, Ballot, ReplicaId};
use crate::message::{Message, Record};

/// Effects of one or more calls, to be carried out by the driver: appends in the order given,
/// all else at once and in any order. Nothing here waits for anything else here.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    /// Messages to other replicas.
    pub sends: Vec<(ReplicaId, Message)>,
    /// Records for the log, in order; the last one has the number [`Outbox::last_seq`].
    pub appends: Vec<Record>,
    /// Reads that may be answered now from the applied state.
    pub reads_ready: Vec<u64>,
    /// Reads that were not confirmed: leadership is gone.
    pub reads_failed: Vec<u64>,
    /// Replicas that need a snapshot, for the log no longer holds what they lack. They are to be given one if
    /// [`Group::snapshots_in`](crate::Group::snapshots_in) says so.
    pub snapshots_wanted: Vec<ReplicaId>,
    /// Replicas that have lost records and need another id, each with its question's nonce: to be given to
    /// [`Group::renew`](crate::Group::renew).
    pub renewals_wanted: Vec<(ReplicaId, u64)>,
    /// Changes of leadership on this replica.
    pub changes: Vec<RoleChange>,
    last_seq: AppendSeq,
}

/// A change of this replica's role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleChange {
    /// Leads in this ballot; serves once its no-op is decided.
    Elected(Ballot),
    /// The no-op of its own ballot is decided: reads and writes are served.
    Serving(Ballot),
    /// Leads no more. Proposals of that ballot that were not decided have an unknown fate.
    Stopped(Ballot),
}

impl Outbox {
    /// The number of the last append asked for; one counter serves all groups of a worker.
    pub fn last_seq(&self) -> AppendSeq {
        self.last_seq
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
            && self.appends.is_empty()
            && self.reads_ready.is_empty()
            && self.reads_failed.is_empty()
            && self.snapshots_wanted.is_empty()
            && self.renewals_wanted.is_empty()
            && self.changes.is_empty()
    }

    pub(crate) fn send(&mut self, to: ReplicaId, message: Message) {
        self.sends.push((to, message));
    }

    /// Asks for an append and returns its number.
    pub fn append(&mut self, record: Record) -> AppendSeq {
        self.last_seq = AppendSeq(self.last_seq.0 + 1);
        self.appends.push(record);
        self.last_seq
    }
}
