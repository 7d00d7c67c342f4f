//! The end of replicas that are in no set any more: the state goes, and the log's records need not be kept.

use tholos_paxos::Index;
use tholos_ring::ShardId;

use crate::event::{Effects, Notice, SnapshotJob};
use crate::node::Node;
use crate::snapshot::Discarded;

/// Above every index.
const ALL: Index = Index(u64::MAX);

/// Replicas whose ids are retired.
impl Node {
    fn is_retired(&self, id: ShardId) -> bool {
        self.shard(id).is_some_and(|shard| self.meta.state().is_retired(id, shard.group.me()))
    }

    /// After the records are taken back: what was dropped, or was to be, before the node stopped. Of what was dropped the
    /// last records may still be in the log, and make no state.
    pub(crate) fn drop_recovered_retired(&mut self) {
        for id in (0..self.shards.len()).map(|at| ShardId(at as u16)) {
            if self.is_retired(id) {
                self.shards[usize::from(id.0)] = None;
                self.transfers.forget_records(id);
            }
        }
    }

    /// Snapshots that replicas have left which were dropped.
    pub(crate) fn remove_left_files(&self, out: &mut Effects) {
        let gone = |id: &ShardId| {
            self.shard(*id).is_none() && self.meta.state().config(*id).is_some_and(|config| config.number > 0)
        };
        let ids = (0..self.shards.len()).map(|at| ShardId(at as u16)).filter(gone);
        out.snapshots.extend(ids.map(|shard| SnapshotJob::RemoveBelow { shard, index: ALL }));
    }

    /// Drops what the durable map says is retired (N2). One that still leads is not through: it has to tell the new
    /// voters so (decision 0013), and lets go by itself.
    pub(crate) fn drop_retired(&mut self, id: ShardId, out: &mut Effects) {
        if self.meta.kept < self.meta.state.epoch() || !self.is_retired(id) {
            return;
        }
        let place = &mut self.shards[usize::from(id.0)];
        let Some(shard) = place.take_if(|shard| shard.group.leading().is_none()) else { return };
        let replica = shard.group.me();
        self.transfers.begin_anew(id, out);
        self.transfers.forget_records(id);
        out.snapshots.push(SnapshotJob::RemoveBelow { shard: id, index: ALL });
        out.snapshots.push(SnapshotJob::Drop(Discarded::state(shard.keyspace, shard.sessions)));
        out.notices.push(Notice::ReplicaDropped { shard: id, replica });
    }
}
