//! How fast replicas are sent that the running job moves.
//!
//! The job has so many bytes a second for all its moves, and each copy that is under way an equal share of them. The leader
//! of the meta group says with each order how much that is; a leader of a shard that has no order yet finds it in its own
//! copy of the map.

use alloc::collections::BTreeSet;

use tholos_cluster::{MetaState, NodeId};
use tholos_ring::ShardId;

/// The least share: below it, a replica would wait for a chunk for longer than it keeps what has come.
const SHARE_BYTES_MIN: u64 = 64_000;

/// What the running job allows.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// Bytes a second for each copy; `None` if nothing holds them back.
    share: Option<u64>,
    /// The copies under way.
    copies: BTreeSet<(ShardId, NodeId)>,
}

impl Throttle {
    pub(crate) fn of(state: &MetaState) -> Throttle {
        let Some(job) = state.active_job().filter(|job| job.bytes_per_s > 0) else {
            return Throttle::default();
        };
        let copies = job.moves.iter().filter(|step| step.is_under_way() && step.what.is_copy());
        let copies: BTreeSet<(ShardId, NodeId)> =
            copies.filter_map(|step| Some((step.what.shard, step.what.to?))).collect();
        let share = job.bytes_per_s / (copies.len() as u64).max(1);
        Throttle { share: Some(share.max(SHARE_BYTES_MIN)), copies }
    }

    /// Bytes a second that a replica is sent; `None` if nothing holds it back, since no job moves it.
    pub(crate) fn rate(&self, shard: ShardId, to: NodeId) -> Option<u64> {
        self.share.filter(|_| self.copies.contains(&(shard, to)))
    }
}
