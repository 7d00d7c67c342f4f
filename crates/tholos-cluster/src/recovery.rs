//! Plans of recoveries: groups have lost their majority for good, and the operator says who is gone (R29).
//!
//! A plan is a pure function of the newest map and of what every node that is left says of its replicas. It changes
//! nothing; [`RecoveryPlan::to_order`] makes of it what the meta group takes.
//!
//! - Y1: every node of the map is named lost or has answered: what one that is only away knows is not given up.
//! - Y2: no node that is named lost is alive, as far as anybody hears: it would go on beside the survivors.
//! - Y3: groups that have a majority are left alone.
//! - Y4: the meta group is among those that are helped, if it needs help: it holds the map, which refuses the lost. If nobody
//!   has a replica of it any more, it begins anew with the newest map that a node has: Y1 says that no other is newer.
//! - Y5: where the meta group goes on without a majority by an order that the map does not know, the plan records who is lost,
//!   also if nothing else is left to do: whoever was to have that decided has died in between.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use tholos_paxos::{Assessment, Config, Index, Prospect, Rescue, Survivor};
use tholos_ring::{ShardId, hash64};

use crate::id::{Epoch, NodeId};
use crate::map::ClusterMap;
use crate::meta::{Departed, MetaState, RecoverOrder, RescueOrder, Standing};
use crate::plan::PlanId;

/// What a node that is left says of itself and of its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The epoch of its map.
    pub epoch: Epoch,
    /// The nodes that it hears, itself included.
    pub hears: Vec<NodeId>,
    /// Of each group that it has a replica of, that replica.
    pub replicas: Vec<(ShardId, Survivor)>,
    /// The first group that is not in this answer; `None` if all are.
    pub next: Option<ShardId>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryRequest {
    /// Who is gone for ever. May be empty: then only groups are helped whose replicas have lost their data.
    pub lost: Vec<NodeId>,
    /// Groups to be helped; all that need it if empty.
    pub groups: Vec<ShardId>,
}

/// Why there can be no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The cluster has no node of this name.
    UnknownNode(String),
    /// It is no shard of this cluster, written `s12`, nor `meta`.
    UnknownGroup(String),
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::UnknownNode(name) => write!(
                out,
                "the cluster has no node {}: tholos cluster status lists them; who has left need not be named",
                name.escape_default()
            ),
            RecoveryError::UnknownGroup(name) => write!(
                out,
                "{} is no shard of this cluster: shards are written s0, s1 and so on, the meta group meta",
                name.escape_default()
            ),
        }
    }
}

impl core::error::Error for RecoveryError {}

/// Why a plan may not be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryBlock {
    /// A node that is named lost is alive, for it answers or this one hears it (Y2).
    Alive {
        /// The node.
        node: NodeId,
        /// Who hears it; itself if it answers.
        heard_by: NodeId,
    },
    /// A node that is not named lost does not answer (Y1).
    Silent {
        /// The node.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// A node has a newer map than the one that was planned with.
    NewerMap {
        /// The node.
        node: NodeId,
        /// The epoch of its map.
        epoch: Epoch,
    },
    /// Nobody that is left could keep the map any more: no node answers, or the numbers of its replicas are used up (Y4).
    MetaIsGone,
    /// Every group has a majority.
    NothingToDo,
}

impl RecoveryBlock {
    /// The reason, with the names of a map.
    #[must_use]
    pub fn to_words(&self, map: &ClusterMap) -> String {
        let name = |node: &NodeId| name_of(map, *node);
        match self {
            RecoveryBlock::Alive { node, heard_by } if node == heard_by => {
                format!("{} is named lost and answers: stop it and destroy its data first", name(node))
            }
            RecoveryBlock::Alive { node, heard_by } => format!(
                "{} is named lost, and {} hears it: stop it and destroy its data first",
                name(node),
                name(heard_by)
            ),
            RecoveryBlock::Silent { node, why } => format!(
                "{} does not answer and is not named lost ({why}): it may know what the others do not. Start it, or name it",
                name(node)
            ),
            RecoveryBlock::NewerMap { node, epoch } => {
                format!("{} has a newer map, {epoch}: try again in a moment", name(node))
            }
            RecoveryBlock::MetaIsGone => {
                "no node that is left could keep the map, in which what is done has to be recorded: ask a node that is left"
                    .to_string()
            }
            RecoveryBlock::NothingToDo => {
                "every group that was looked at has a majority, or nothing left to go on with: there is nothing to recover"
                    .to_string()
            }
        }
    }
}

/// What is to be done for a group, and who is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRescue {
    /// The group.
    pub group: ShardId,
    /// The log to keep, and the order.
    pub prospect: Prospect,
    /// All that is left of it.
    pub survivors: Vec<Survivor>,
}

impl GroupRescue {
    /// What may be lost, in a sentence or two.
    #[must_use]
    pub fn to_words(&self, map: &ClusterMap) -> String {
        let Prospect { replica, decided, loses_nothing, ref rescue } = self.prospect;
        if rescue.is_anew() {
            return format!(
                "nobody is left of it: begins anew at {} with the newest map that is left, {}. Whatever the lost nodes changed in \
                 it since IS LOST: nodes that joined by them alone, and jobs.",
                name_of(map, NodeId(replica.node())),
                map.epoch
            );
        }
        let (keeps, last) = (name_of(map, NodeId(replica.node())), rescue.length);
        let unknown = if last > decided {
            let first =
                if last == decided.next() { String::new() } else { format!("{} to ", decided.next()) };
            format!(" {first}{last}, of which nobody left knows whether it was decided, is kept.")
        } else {
            String::new()
        };
        let lost = if loses_nothing {
            "Nothing is lost: nothing can have been decided without a survivor.".to_string()
        } else {
            format!(
                "Whatever was decided after {last} without the survivors IS LOST, though clients were told that it was \
                 written; how much that is, nobody left can tell."
            )
        };
        format!("goes on from {keeps}, decided to {decided} in {}.{unknown} {lost}", rescue.accepted)
    }

    /// The last index that is known to be decided, and the last that is kept.
    #[must_use]
    pub const fn marks(&self) -> (Index, Index) {
        (self.prospect.decided, self.prospect.rescue.length)
    }
}

/// What a recovery takes, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPlan {
    /// Its name: depends on all that applying it would change, the survivors' marks included.
    pub id: PlanId,
    /// The map that it was made for.
    pub epoch: Epoch,
    /// Who is refused for ever from then on; who was so before is among them.
    pub lost: Vec<Departed>,
    /// Groups that go on with less, the meta group first if it is among them.
    pub rescues: Vec<GroupRescue>,
    /// Groups that have a majority and are left alone (Y3).
    pub whole: Vec<ShardId>,
    /// Groups of which nothing is left to go on with.
    pub hopeless: Vec<ShardId>,
    /// The meta group was helped before, and the map does not know by which order, nor who was lost then (Y5).
    pub unrecorded: bool,
    /// Why it may not be applied; empty if it may.
    pub blocks: Vec<RecoveryBlock>,
}

fn name_of(map: &ClusterMap, node: NodeId) -> String {
    map.node(node).map_or_else(|| node.to_string(), |row| row.name.clone())
}

impl ClusterMap {
    /// The name of a group: `s12`, or `meta`.
    #[must_use]
    pub fn group_name(&self, group: ShardId) -> String {
        if group == self.meta_group() { "meta".to_string() } else { group.to_string() }
    }
}

impl RecoveryRequest {
    /// The request of names of nodes and of groups, as people type them.
    ///
    /// # Errors
    ///
    /// The first name that is none.
    pub fn parse<'a>(
        map: &ClusterMap,
        lost: impl Iterator<Item = &'a str>,
        groups: impl Iterator<Item = &'a str>,
    ) -> Result<RecoveryRequest, RecoveryError> {
        let node = |name: &str| {
            map.by_name(name).map(|row| row.id).ok_or_else(|| RecoveryError::UnknownNode(name.to_string()))
        };
        let group = |name: &str| {
            let number = name.strip_prefix('s').and_then(|digits| digits.parse().ok());
            let shard = number.filter(|number| *number < map.shard_count).map(ShardId);
            let meta = (name == "meta").then(|| map.meta_group());
            shard.or(meta).ok_or_else(|| RecoveryError::UnknownGroup(name.to_string()))
        };
        let mut request =
            RecoveryRequest { lost: lost.map(node).collect::<Result<_, _>>()?, groups: Vec::new() };
        request.groups = groups.map(group).collect::<Result<_, _>>()?;
        request.lost.sort_unstable();
        request.lost.dedup();
        Ok(request)
    }
}

impl RecoveryPlan {
    /// Whether it may not be applied.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// How many groups lose nothing for certain.
    #[must_use]
    pub fn lose_nothing(&self) -> usize {
        self.rescues.iter().filter(|rescue| rescue.prospect.loses_nothing).count()
    }

    /// The plan as the meta group takes it. `by`: the name of the node that was asked.
    #[must_use]
    pub fn to_order(&self, by: &str) -> RecoverOrder {
        let group = |rescue: &GroupRescue| RescueOrder {
            group: rescue.group,
            replica: rescue.prospect.replica,
            decided: rescue.prospect.decided,
            loses_nothing: rescue.prospect.loses_nothing,
            rescue: rescue.prospect.rescue.clone(),
        };
        RecoverOrder {
            plan: self.number(),
            by: String::from(by),
            lost: self.lost.clone(),
            groups: self.rescues.iter().map(group).collect(),
        }
    }

    /// The number that tells the plan's recovery from others.
    #[must_use]
    pub fn number(&self) -> u64 {
        recovery_number(self.id, self.epoch)
    }
}

/// The number of the recovery that a plan of this id and epoch becomes.
#[must_use]
pub fn recovery_number(id: PlanId, epoch: Epoch) -> u64 {
    // Below 2^63, for the numbers of rescues are above.
    id.job_number(epoch) & (u64::MAX >> 1)
}

/// Plans a recovery. `said`: what each node of the map answered, in the map's order, or why it did not.
///
/// # Panics
///
/// If there is not an answer, or a reason for none, for each node of the map.
#[must_use]
pub fn plan_recovery(
    state: &MetaState,
    said: &[Result<Inventory, String>],
    request: &RecoveryRequest,
) -> RecoveryPlan {
    let map = &state.map;
    assert_eq!(said.len(), map.nodes.len(), "every node has answered or not");
    let is_lost = |node: NodeId| request.lost.contains(&node) || state.standing(node) == Some(Standing::Lost);
    let answers = || map.nodes.iter().zip(said);
    let mut blocks = Vec::new();
    for (row, answer) in answers() {
        let node = row.id;
        match answer {
            Ok(_) if is_lost(node) => blocks.push(RecoveryBlock::Alive { node, heard_by: node }),
            Ok(own) => {
                let heard = own.hears.iter().filter(|other| is_lost(**other));
                blocks.extend(heard.map(|lost| RecoveryBlock::Alive { node: *lost, heard_by: node }));
                if own.epoch > state.epoch() {
                    blocks.push(RecoveryBlock::NewerMap { node, epoch: own.epoch });
                }
            }
            Err(_) if is_lost(node) => {}
            Err(why) => blocks.push(RecoveryBlock::Silent { node, why: why.clone() }),
        }
    }
    let left: Vec<&Inventory> = answers()
        .filter(|(row, _)| !is_lost(row.id))
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .collect();
    let lost: Vec<Departed> = map
        .nodes
        .iter()
        .filter(|row| is_lost(row.id))
        .map(|row| Departed { id: row.id, name: row.name.clone(), incarnation: row.incarnation })
        .collect();
    let (mut rescues, mut whole, mut hopeless) = (Vec::new(), Vec::new(), Vec::new());
    // Y4: it comes first.
    let meta = map.meta_group();
    let wanted =
        |group: &ShardId| *group == meta || request.groups.is_empty() || request.groups.contains(group);
    let groups = core::iter::once(meta).chain((0..map.shard_count).map(ShardId)).filter(wanted);
    for group in groups {
        let survivors: Vec<Survivor> = left
            .iter()
            .flat_map(|own| own.replicas.iter().filter(|(of, _)| *of == group))
            .map(|(_, survivor)| survivor.clone())
            .collect();
        let recorded = state.config(group).cloned().unwrap_or_default();
        // The number of the plan is in what it hashes, so it comes last.
        match Assessment::of(&survivors, &recorded, RecoverOrder::move_id(0)) {
            Assessment::HasMajority => whole.push(group),
            Assessment::NothingLeft if group == meta => match meta_anew(state, said, &is_lost) {
                Some(prospect) => rescues.push(GroupRescue { group, prospect, survivors }),
                None => blocks.push(RecoveryBlock::MetaIsGone),
            },
            Assessment::NothingLeft => hopeless.push(group),
            Assessment::Rescue(prospect) => rescues.push(GroupRescue { group, prospect, survivors }),
        }
    }
    let unrecorded = lost.iter().any(|lost| !state.is_gone(lost.id)) && was_helped_unrecorded(state, &left);
    if rescues.is_empty() && !unrecorded && !blocks.contains(&RecoveryBlock::MetaIsGone) {
        blocks.push(RecoveryBlock::NothingToDo);
    }
    let epoch = map.epoch;
    let mut plan = RecoveryPlan { id: PlanId(0), epoch, lost, rescues, whole, hopeless, unrecorded, blocks };
    let mut bytes = map.cluster_id.0.to_vec();
    bytes.extend_from_slice(&map.epoch.0.to_le_bytes());
    bytes.extend(crate::MetaCommand::Recover(plan.to_order("")).encode());
    plan.id = PlanId((hash64(&bytes, 0) >> 32) as u32);
    let move_id = RecoverOrder::move_id(plan.number());
    for rescue in &mut plan.rescues {
        rescue.prospect.rescue.config.move_id = move_id;
    }
    plan
}

/// Y5
fn was_helped_unrecorded(state: &MetaState, left: &[&Inventory]) -> bool {
    let meta = state.map.meta_group();
    let held = left.iter().flat_map(|own| own.replicas.iter().filter(|(of, _)| *of == meta));
    let configs = held.flat_map(|(_, survivor)| survivor.configs.iter().map(|(_, config)| config));
    let latest = configs.max_by_key(|config| config.number);
    latest.is_some_and(|config| RecoverOrder::made(config) && !state.knows_recovery_of(config))
}

/// The meta group begins anew at the first node that is left and has the newest map.
fn meta_anew(
    state: &MetaState,
    said: &[Result<Inventory, String>],
    is_lost: &impl Fn(NodeId) -> bool,
) -> Option<Prospect> {
    let has_newest =
        |answer: &Result<Inventory, String>| answer.as_ref().is_ok_and(|own| own.epoch == state.epoch());
    let mut left =
        state.map.nodes.iter().zip(said).filter(|(row, answer)| !is_lost(row.id) && has_newest(answer));
    let recorded = state.config(state.map.meta_group())?;
    let replica = recorded.next_replica_at(left.next()?.0.id.0)?;
    let config = Config {
        number: recorded.number + 1,
        voters: Vec::from([replica]),
        last_replica: replica.max(recorded.last_replica),
        ..Config::default()
    };
    Some(Prospect { replica, decided: Index::ZERO, loses_nothing: false, rescue: Rescue::anew(config) })
}
