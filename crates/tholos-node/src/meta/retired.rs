//! The end of replicas that are in no set any more: the state goes, and the log's records need not be kept.

use tholos_paxos::{Index, Millis};
use tholos_ring::ShardId;

use crate::event::{Effects, Notice, SnapshotJob};
use crate::node::Node;
use crate::snapshot::Discarded;

/// A removed leader that has not let go after so long does not know that another has led since: whoever it tells ignores it,
/// for its id is retired (R7).
const LETS_GO_WITHIN: Millis = Millis(1000);

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
            let unfit = self.shard(id).is_none_or(|shard| shard.unfit().is_some());
            // L2: a mute one is dropped later.
            if self.is_retired(id) && (unfit || !self.is_mute(id)) {
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

    /// Drops what the durable map says is retired (N2). One that leads hands over first (decision 0013), if it can; that most of
    /// the new voters know of their set is known by then (V3).
    pub(crate) fn drop_retired(&mut self, id: ShardId, out: &mut Effects) {
        if self.meta.kept < self.meta.state.epoch() || !self.is_retired(id) {
            return;
        }
        if self.stays_mute(id, out) {
            return;
        }
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        if shard.group.leading().is_some() {
            if now.since(shard.retired_since(now)) < LETS_GO_WITHIN {
                return;
            }
            shard.group.stop_leading(now, &mut self.outbox);
            self.collect(id, out);
        }
        let Some(shard) = self.shards[usize::from(id.0)].take() else { return };
        let replica = shard.group.me();
        self.transfers.begin_anew(id, out);
        self.transfers.forget_records(id);
        out.snapshots.push(SnapshotJob::RemoveBelow { shard: id, index: ALL });
        out.snapshots.push(SnapshotJob::Drop(Discarded::state(shard.keyspace, shard.sessions)));
        out.notices.push(Notice::ReplicaDropped { shard: id, replica });
    }
}
