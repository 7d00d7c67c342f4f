//! What a group is told of failures (R9).

use crate::ballot::{Ballot, ReplicaId};
use crate::log::Log;

/// What failure detection says (R9). It is per node pair and shared by all groups, so it
/// stands outside of this crate.
pub trait Connectivity {
    /// Whether `a` has heard `b` within an election time-out, as far as this node knows.
    /// A replica hears itself.
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool;

    /// The same, whatever `b`'s disk and worker do. A leader whose disk stands still is lost, and so is one that hears too
    /// few whose disks move: [`hears`](Self::hears) says so, and others take over if there are enough of them. But who
    /// leads or stands goes on with a slow disk in its quorum: to give up would only begin the same wait again.
    fn reaches(&self, a: ReplicaId, b: ReplicaId) -> bool {
        self.hears(a, b)
    }
}

/// R9: unheard, or without a quorum of its own.
pub(crate) fn leader_lost(log: &Log, me: ReplicaId, ballot: Ballot, net: &impl Connectivity) -> bool {
    let leader = ballot.replica;
    !net.hears(me, leader) || !log.quorum(|replica| net.hears(leader, replica))
}
