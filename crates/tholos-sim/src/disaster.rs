//! A majority of some group is lost for good, and an operator recovers what is left (R29): runs of their own.
//!
//! Here is who is lost, and what must be true of what is kept. The recovery is planned, ordered and carried out by the
//! code that ships; the runs have all other faults but rot, which would hurt a minority more.
//!
//! - What the plan says is kept is kept: the log of the group goes on right behind it.
//! - Nothing is lost that some survivor had applied; and nothing at all where the plan has said so.
//! - What was answered before the first entry that is lost is there. What was answered between that and the
//!   recovery, of a shard that has lost something, may be gone; it is judged as if nobody had been told of it.

use std::collections::BTreeMap;

use tholos_check::{Kind, Operation, Outcome};
use tholos_cluster::{NodeId, RecoverOrder};
use tholos_node::Node;
use tholos_paxos::{Config, ReplicaId};
use tholos_ring::{ShardId, shard_of, slot};

use crate::random::Random;
use crate::sim::SHARDS;

/// When it happens, in microseconds, from and to.
const STRIKES_US: (u64, u64) = (6_000_000, 26_000_000);
/// Sets of machines that are tried, at most.
const TRIES_MAX: usize = 40;

/// What became of a group that was helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When its first survivor went on.
    pub at: u64,
    /// When something was first applied that is lost; `None` if nothing is.
    pub lost_since: Option<u64>,
}

/// Who is lost in a run, and what the operator has ordered.
#[derive(Debug, Default)]
pub struct Disaster {
    /// When they are lost.
    pub at_us: u64,
    /// The machines; none before.
    pub lost: Vec<usize>,
    /// What was ordered, by the number of the plan.
    pub orders: BTreeMap<u64, RecoverOrder>,
    /// What became of the groups that were helped.
    pub kept: BTreeMap<ShardId, Kept>,
    /// Whether one of the lost machines has come back once.
    pub has_returned: bool,
}

/// Of one group: the configurations that count, and the replicas that could go on without the others.
struct Standing {
    configs: Vec<Config>,
    voters: Vec<ReplicaId>,
}

impl Disaster {
    /// Of the run of a seed.
    pub fn of(seed: u64) -> Disaster {
        let (low, high) = STRIKES_US;
        let at_us = Random::new(seed ^ 0x0d15_a57e).between(low, high);
        Disaster { at_us, ..Disaster::default() }
    }

    /// Whether it has happened.
    pub fn has_struck(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The history as it may be judged: without what was answered of what is lost.
    pub fn judge(&self, history: &[Operation]) -> Vec<Operation> {
        let judged = |operation: &Operation| {
            let shard = shard_of(slot(&operation.key), SHARDS);
            let kept = self.kept.get(&shard);
            let lost = kept.and_then(|kept| Some((kept.at, kept.lost_since?)));
            let Some((at, since)) = lost else { return Some(operation.clone()) };
            let known = matches!(operation.outcome, Outcome::Ok(_));
            let answered = operation.returned.is_some_and(|returned| returned >= since);
            match known && answered && operation.invoked <= at {
                true if operation.kind == Kind::Get => None,
                true => Some(Operation { outcome: Outcome::Unknown, returned: None, ..operation.clone() }),
                false => Some(operation.clone()),
            }
        };
        history.iter().filter_map(judged).collect()
    }
}

/// Machines that are lost, by chance: of some group a majority, and of each shard somebody is left who can go on. None if
/// there are no such machines. `nodes`: every machine with its node, all of them up.
pub fn choose(nodes: &[(usize, NodeId, &Node)], random: &mut Random) -> Option<Vec<usize>> {
    let meta = nodes.first()?.2.map().meta_group();
    let groups: Vec<Standing> = (0..=meta.0).filter_map(|group| standing(nodes, ShardId(group))).collect();
    for _ in 0..TRIES_MAX {
        let mut left: Vec<(usize, NodeId)> = nodes.iter().map(|(at, id, _)| (*at, *id)).collect();
        let mut lost = Vec::new();
        let mut enough = None;
        while left.len() > 1 {
            let (at, _) = left.swap_remove(random.below(left.len() as u64) as usize);
            lost.push(at);
            let is_left = |replica: ReplicaId| left.iter().any(|(_, id)| id.0 == replica.node());
            // The meta group begins anew where nobody is left of it.
            let mut shards = groups.iter().take(usize::from(meta.0));
            if !shards.all(|group| group.voters.iter().any(|voter| is_left(*voter))) {
                break;
            }
            if groups.iter().any(|group| !group.configs.iter().all(|config| config.majority(is_left))) {
                enough = Some(lost.clone());
                // Seldom more go than it takes.
                if random.below(3) > 0 {
                    break;
                }
            }
        }
        if enough.is_some() {
            return enough;
        }
    }
    None
}

fn standing(nodes: &[(usize, NodeId, &Node)], id: ShardId) -> Option<Standing> {
    let groups = || nodes.iter().filter_map(|(_, _, node)| Some(&node.shard(id)?.group));
    let newest = groups().max_by_key(|group| group.config().number)?;
    let configs: Vec<Config> = newest.configs().cloned().collect();
    let votes = |replica: ReplicaId| configs.iter().all(|config| config.is_voter(replica));
    let voters = groups().filter(|group| group.repair().is_none() && votes(group.me()));
    let voters = voters.filter(|group| group.configs().all(|config| config.is_voter(group.me())));
    Some(Standing { voters: voters.map(|group| group.me()).collect(), configs })
}
