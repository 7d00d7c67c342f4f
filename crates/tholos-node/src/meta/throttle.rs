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

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;
    use alloc::vec::Vec;

    use tholos_cluster::{
        Cause, ClusterId, ClusterMap, Incarnation, JobOrder, MetaCommand, Move, NodeRow, THROTTLE_BYTES_MIN,
    };
    use tholos_paxos::Millis;

    use super::*;

    fn row(number: u16) -> NodeRow {
        NodeRow {
            id: NodeId(number),
            name: format!("n{number}"),
            zone: String::new(),
            weight: 1,
            incarnation: Incarnation(u64::from(number)),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        }
    }

    /// Three nodes and a spare; of each shard of the list, n4 takes the replica of n1, all at once.
    fn throttle(bytes_per_s: u64, shards: &[u16]) -> Throttle {
        let mut state = None;
        let mut apply = |command: MetaCommand| MetaState::apply(&mut state, &command, Millis(1));
        let map = ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), 64, 3);
        apply(MetaCommand::Found(map.expect("a valid map"))).expect("the first");
        apply(MetaCommand::Join(row(4))).expect("the name is free");
        let step = |shard: &u16| Move { shard: ShardId(*shard), from: Some(NodeId(1)), to: Some(NodeId(4)) };
        let order = JobOrder {
            plan: 1,
            epoch: tholos_cluster::Epoch(2),
            title: String::new(),
            in_flight_max: 100,
            bytes_per_s,
            replicas: 3,
            changes: vec![],
            moves: shards.iter().map(step).collect(),
            removes: vec![],
            cause: Cause::Operator,
            restarts: vec![],
        };
        apply(MetaCommand::StartJob(order)).expect("it fits");
        for at in 0..shards.len() as u32 {
            apply(MetaCommand::Order { job: 1, at }).expect("it is due");
        }
        Throttle::of(&state.expect("it was founded"))
    }

    #[test]
    fn copies_under_way_share_what_the_job_may_send() {
        let n4 = NodeId(4);
        let two = throttle(50_000_000, &[3, 9]);
        assert_eq!(two.rate(ShardId(3), n4), Some(25_000_000));
        assert_eq!(two.rate(ShardId(9), n4), Some(25_000_000));
        assert_eq!(two.rate(ShardId(10), n4), None, "no job moves it");
        assert_eq!(two.rate(ShardId(3), NodeId(2)), None, "nor there");
        assert_eq!(throttle(0, &[3]).rate(ShardId(3), n4), None);
        let many: Vec<u16> = (0..40).collect();
        assert_eq!(throttle(THROTTLE_BYTES_MIN, &many).rate(ShardId(3), n4), Some(SHARE_BYTES_MIN));
    }
}
