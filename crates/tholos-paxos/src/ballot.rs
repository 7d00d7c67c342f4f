//! Identities and positions: replicas, ballots, indexes, times.

use core::fmt;

/// One replica of one group. Unique within its group for ever: a replica that was wiped
/// or removed comes back under a new id (R7).
///
/// The lower 16 bits say where the replica lives, the upper ones are its [`Serial`]. To the protocol
/// only this matters: ids of replicas that join later are higher, and one that was once proposed means the
/// same replica for ever, also if nothing came of the proposal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplicaId(pub u32);

/// Higher for replicas that joined a group later, and never given twice; zero for a founder. `tholos-node` counts the changes
/// of the group by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Serial(pub u16);

impl ReplicaId {
    /// The replica at `node` that joined with `serial`.
    pub const fn new(node: u16, serial: Serial) -> ReplicaId {
        ReplicaId((serial.0 as u32) << 16 | node as u32)
    }

    /// Where it lives: a number that the driver gave, which the protocol does not look at.
    pub const fn node(self) -> u16 {
        self.0 as u16
    }

    /// Which of the replicas that have lived there it is.
    pub const fn serial(self) -> Serial {
        Serial((self.0 >> 16) as u16)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serial() {
            Serial(0) => write!(f, "n{}", self.node()),
            Serial(serial) => write!(f, "n{}+{serial}", self.node()),
        }
    }
}

/// The order that a change of the replica set carries out (R7): a number that whoever gave the order chose, zero for the
/// founding. The protocol keeps it and does not look at it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MoveId(pub u64);

/// A leadership round. Ordered by round, then by replica, so that no two replicas ever
/// own the same ballot (Paxos Made Simple §2.2: distinct proposal numbers).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ballot {
    /// Counts up; a candidate takes one more than the highest it has seen.
    pub round: u64,
    /// The replica that leads in this ballot.
    pub replica: ReplicaId,
}

impl Ballot {
    /// Lower than every ballot that a replica can lead in.
    pub const ZERO: Ballot = Ballot { round: 0, replica: ReplicaId(0) };

    /// The lowest ballot of `replica` that is higher than `self`.
    #[must_use]
    pub fn next_for(self, replica: ReplicaId) -> Ballot {
        Ballot { round: self.round + 1, replica }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.replica)
    }
}

/// A position in the log of one group. The first entry has index 1; 0 means "nothing yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Index(pub u64);

impl Index {
    /// Before the first entry.
    pub const ZERO: Index = Index(0);

    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// A time or a span in milliseconds. What it counts from is said where it is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This time `span` later, without overflow.
    #[must_use]
    pub fn plus(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// Numbers the appends that one worker asks for, over all its groups, from 1.
/// The driver maps it to a position in the node's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AppendSeq(pub u64);
