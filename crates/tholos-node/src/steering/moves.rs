//! Which leaderships this node gave away, to whom and why.

use alloc::collections::{BTreeMap, VecDeque};

use tholos_cluster::NodeId;
use tholos_paxos::Millis;
use tholos_ring::ShardId;

/// So many are remembered.
const MOVES_MAX: usize = 32;

/// Why a leadership is given away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum MoveReason {
    /// The heir is the first of the shard's replica set, as the map wants it.
    Preference,
    /// This node leads more than its part, and the heir less.
    Share,
    /// This node is asked for far more than its part, and the heir for less.
    HotShard,
    /// This node's disk is slow.
    SlowDisk,
    /// This node waits for its processor.
    SlowProcessor,
    /// This node's disk has not answered for an election time-out.
    StandingDisk,
    /// This node is told to stop.
    Resigning,
    /// This node, or its replica of the shard, is to go.
    Leaving,
    /// This node's replica differs from a majority's (R24).
    Differs,
}

impl core::fmt::Display for MoveReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            MoveReason::Preference => "preference",
            MoveReason::Share => "share",
            MoveReason::HotShard => "hot shard",
            MoveReason::SlowDisk => "slow disk",
            MoveReason::SlowProcessor => "slow processor",
            MoveReason::StandingDisk => "standing disk",
            MoveReason::Resigning => "resigning",
            MoveReason::Leaving => "leaving",
            MoveReason::Differs => "differs",
        })
    }
}

/// A leadership that was given away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderMove {
    /// When, in Unix milliseconds by this node's wall clock.
    pub at: Millis,
    /// Of which shard.
    pub shard: ShardId,
    /// To whom.
    pub to: NodeId,
    /// Why.
    pub reason: MoveReason,
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    last: VecDeque<LeaderMove>,
    count: u64,
    by_reason: BTreeMap<MoveReason, u64>,
}

impl Moves {
    pub(crate) fn note(&mut self, given: LeaderMove) {
        if self.last.len() == MOVES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(given);
        self.count += 1;
        *self.by_reason.entry(given.reason).or_default() += 1;
    }

    /// The oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &LeaderMove> {
        self.last.iter()
    }

    /// How many there were for each reason.
    pub(crate) fn by_reason(&self) -> impl Iterator<Item = (MoveReason, u64)> {
        self.by_reason.iter().map(|(reason, count)| (*reason, *count))
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered_and_all_are_counted() {
        let mut moves = Moves::default();
        for shard in 0..100 {
            let (at, to) = (Millis(u64::from(shard)), NodeId(2));
            moves.note(LeaderMove { at, shard: ShardId(shard), to, reason: MoveReason::Share });
        }
        let shards: alloc::vec::Vec<u16> = moves.iter().map(|given| given.shard.0).collect();
        assert!(shards.iter().copied().eq(68..100), "{shards:?}");
        assert_eq!(moves.count(), 100);
        assert!(moves.by_reason().eq([(MoveReason::Share, 100)]));
    }
}
