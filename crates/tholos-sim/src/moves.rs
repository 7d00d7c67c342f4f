//! Changes of replica sets (R6, R7): what a planned change makes of the set that a shard has when its time comes.

use std::fmt;

use tholos_cluster::NodeId;
use tholos_node::{Node, ReplicaOrder};
use tholos_paxos::{MoveId, ReplicaId};
use tholos_ring::ShardId;

/// One change of a replica set. Sets keep their number of voters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A node that has no part in the shard learns.
    Learn,
    /// A learner votes instead of a voter that does not lead; where nobody learns, a node that lacks everything.
    Vote,
    /// The same instead of the leader.
    VoteForLeader,
    /// A learner goes.
    Leave,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Learn => "a node is to learn",
            Step::Vote => "a learner is to vote for another",
            Step::VoteForLeader => "a learner is to vote for the leader",
            Step::Leave => "a learner is to go",
        })
    }
}

/// The order that `step` makes of the set of a shard that `leader` leads, in a cluster of so many nodes; none if the set
/// allows no such step. `pick` chooses among the nodes that it may be about.
pub fn order(leader: &Node, id: ShardId, nodes: usize, step: Step, pick: u64) -> Option<ReplicaOrder> {
    let group = &leader.shard(id)?.group;
    let config = group.config();
    let homes = |replicas: &[ReplicaId]| replicas.iter().map(|replica| NodeId(replica.node())).collect();
    let (mut voters, mut learners): (Vec<NodeId>, Vec<NodeId>) =
        (homes(&config.voters), homes(&config.learners));
    let one_of = |some: Vec<usize>| (!some.is_empty()).then(|| some[(pick % some.len() as u64) as usize]);
    let spare = || {
        let free = |at: &usize| config.replica_at(*at as u16).is_none();
        one_of((1..=nodes).filter(free).collect()).map(|at| NodeId(at as u16))
    };
    let learner = one_of((0..learners.len()).collect());
    match step {
        Step::Learn => learners.push(spare()?),
        Step::Leave => drop(learners.remove(learner?)),
        Step::Vote | Step::VoteForLeader => {
            let me = NodeId(group.me().node());
            let goes = one_of(
                (0..voters.len()).filter(|at| (voters[*at] == me) == (step == Step::VoteForLeader)).collect(),
            )?;
            voters[goes] = match learner {
                Some(learner) => learners.remove(learner),
                None => spare()?,
            };
        }
    }
    Some(ReplicaOrder { shard: id, number: config.number, move_id: MoveId(pick), voters, learners })
}
