//! Which nodes hold which shard.

use alloc::vec::Vec;

use crate::place::PlaceError;
use crate::ring::NodeIndex;
use crate::slot::{SLOT_COUNT, ShardId, shard_of, slot};

/// The replica set of every shard, as [`place`](crate::place()) and [`rebalance`](crate::rebalance()) make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    sets: Vec<Vec<NodeIndex>>,
}

impl ShardMap {
    pub(crate) const fn new(sets: Vec<Vec<NodeIndex>>) -> ShardMap {
        ShardMap { sets }
    }

    /// The map that a cluster has, from the replica set of each shard, preferred leader first.
    ///
    /// # Errors
    ///
    /// [`PlaceError::BadShardCount`] and [`PlaceError::NodeTwice`].
    pub fn from_sets(sets: Vec<Vec<NodeIndex>>) -> Result<ShardMap, PlaceError> {
        let shard_count = u16::try_from(sets.len()).unwrap_or(u16::MAX);
        if !(1..=SLOT_COUNT).contains(&shard_count) {
            return Err(PlaceError::BadShardCount(shard_count));
        }
        for (shard, set) in (0..).map(ShardId).zip(&sets) {
            if set.iter().enumerate().any(|(at, node)| set[..at].contains(node)) {
                return Err(PlaceError::NodeTwice(shard));
            }
        }
        Ok(ShardMap { sets })
    }

    /// Shards the slots are cut into.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.sets.len()).expect("place() makes at most SLOT_COUNT sets")
    }

    /// The shard that holds a key.
    #[must_use]
    pub fn shard_of_key(&self, key: &[u8]) -> ShardId {
        shard_of(slot(key), self.shard_count())
    }

    /// The nodes that hold a shard: the preferred leader, then the others as they are met clockwise.
    ///
    /// # Panics
    ///
    /// If there is no such shard.
    #[must_use]
    pub fn replica_set(&self, shard: ShardId) -> &[NodeIndex] {
        &self.sets[usize::from(shard.0)]
    }

    /// Every shard with its replica set.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, &[NodeIndex])> {
        (0..).map(ShardId).zip(self.sets.iter().map(Vec::as_slice))
    }

    /// The replica sets alone, in the order of shards.
    #[must_use]
    pub fn into_sets(self) -> Vec<Vec<NodeIndex>> {
        self.sets
    }
}
