//! Snapshots that are being written to their files: one for each shard at most.

use alloc::collections::BTreeMap;

use tholos_engine::Keyspace;
use tholos_paxos::{Ballot, Base, Config, Index, Millis};
use tholos_ring::ShardId;

use crate::sessions::Sessions;

/// After a snapshot could not be written, the next is begun this much later.
const RETRY_AFTER: Millis = Millis(1000);

#[derive(Debug, Default)]
pub(super) struct Saves {
    under_way: BTreeMap<ShardId, Saving>,
    /// No checkpoint is begun before this.
    not_before: Millis,
}

/// A snapshot that is being written to its file.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) base: Base,
    pub(super) config: Config,
    /// The state to install and the leader's ballot, for a snapshot that came from it.
    pub(super) install: Option<(Ballot, Keyspace, Sessions)>,
}

impl Saves {
    /// Whether a checkpoint may begin: they are made one at a time, and not while a snapshot from a leader is written.
    pub(super) fn may_begin(&self, now: Millis) -> bool {
        now >= self.not_before && self.under_way.is_empty()
    }

    pub(super) fn begin(&mut self, shard: ShardId, saving: Saving) {
        self.under_way.insert(shard, saving);
    }

    /// The index that the snapshot being written of `shard` covers.
    pub(super) fn index(&self, shard: ShardId) -> Option<Index> {
        self.under_way.get(&shard).map(|saving| saving.base.index)
    }

    /// It is written.
    pub(super) fn take(&mut self, shard: ShardId, index: Index) -> Option<Saving> {
        if self.index(shard) != Some(index) {
            return None;
        }
        self.under_way.remove(&shard)
    }

    /// It could not be written: as if it had never been asked for. The log still has everything, and a leader that
    /// sent one sends another.
    pub(super) fn fail(&mut self, shard: ShardId, index: Index, now: Millis) {
        if self.take(shard, index).is_some() {
            self.not_before = now.plus(RETRY_AFTER);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_begins_when_the_last_is_done_and_later_after_a_failure() {
        let mut saves = Saves::default();
        let begin = |saves: &mut Saves| {
            let base = Base { index: Index(7), ..Base::default() };
            saves.begin(ShardId(1), Saving { base, config: Config::default(), install: None });
        };
        begin(&mut saves);
        assert!(!saves.may_begin(Millis(0)));
        assert!(saves.take(ShardId(1), Index(6)).is_none(), "news of another");
        assert!(saves.take(ShardId(1), Index(7)).is_some());
        assert!(saves.may_begin(Millis(0)));
        begin(&mut saves);
        saves.fail(ShardId(1), Index(6), Millis(100));
        assert!(saves.index(ShardId(1)).is_some());
        saves.fail(ShardId(1), Index(7), Millis(100));
        assert_eq!((saves.may_begin(Millis(1099)), saves.may_begin(Millis(1100))), (false, true));
    }
}
