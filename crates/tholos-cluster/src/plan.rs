//! Plans: which replicas move when nodes come, go or change, told before anything is changed.
//!
//! A plan is a pure function of the cluster map, of the nodes' standings, of what is known of the running cluster ([`Facts`]) and of a
//! [`Request`]: the same in, the same out, under the same [id](Plan::id).
//!
//! Rules kept here:
//! - N1: the moves, made in their order, lead from the map's replica sets to [`Plan::sets`].
//! - N2: no other placement with the same shares copies fewer replicas ([`tholos_ring::rebalance`]).
//! - N3: at every step most replicas of the set before and of the set after can be counted on, or the plan is blocked.
//! - N4: no zone holds more of a shard on the way than before or after.
//!
//! ```
//! use tholos_cluster::{ClusterId, ClusterMap, Epoch, Facts, Incarnation, NodeFacts, NodeId, NodeRow, Request, Standing, plan};
//!
//! let row = |id| NodeRow {
//!     id: NodeId(id),
//!     name: format!("n{id}"),
//!     zone: String::new(),
//!     weight: 1,
//!     incarnation: Incarnation(u64::from(id)),
//!     gateway: String::new(),
//!     cluster: String::new(),
//!     peer: String::new(),
//!     http: String::new(),
//! };
//! // Four shards on three nodes, and a spare.
//! let map = ClusterMap {
//!     cluster_id: ClusterId([7; 20]),
//!     epoch: Epoch(12),
//!     shard_count: 4,
//!     replicas: 3,
//!     nodes: (1..=4).map(row).collect(),
//!     shards: vec![vec![NodeId(1), NodeId(2), NodeId(3)]; 4],
//! };
//! let standings = [Standing::Member, Standing::Member, Standing::Member, Standing::Spare];
//! let facts = Facts { nodes: vec![NodeFacts::default(); 4], shards: Vec::new() };
//! let plan = plan(&map, &standings, &facts, &Request::parse(&map, "add n4").unwrap()).unwrap();
//! assert_eq!((plan.copies(), plan.least_possible), (3, 3));
//! assert!(!plan.is_blocked());
//! ```

mod board;
mod checks;
mod facts;
mod order;
mod request;
mod undo;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use tholos_ring::{Node, NodeIndex, ShardId, ShardMap, hash64, moves_between, rebalance};

use crate::id::{Epoch, NodeId};
use crate::map::ClusterMap;
use crate::meta::{Cause, JobOrder, NodeChange, Standing, TITLE_BYTES_MAX};
use crate::moves::Move;
use board::{Board, place};
pub use checks::{Check, CheckKind, Outcome, REASONS_MAX, Reason};
pub use facts::{Ailment, Facts, LAG_ENTRIES_MAX, NodeFacts, NodeSaid, ShardFacts, ShardSaid};
use request::Layout;
pub use request::{Former, PlanError, REQUEST_NODES_MAX, Request};

/// Bytes of snapshots that a job sends a second, if nobody says otherwise.
pub const MOVE_BYTES_PER_S_DEFAULT: u64 = 50_000_000;

/// A short name of a plan: a hash of what it changes and of the epoch it is for. Written as 8 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(pub u32);

impl PlanId {
    /// The id written as hex digits, or nothing if the text is not that.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<PlanId> {
        let hex = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        if hex { u32::from_str_radix(text, 16).ok().map(PlanId) } else { None }
    }

    /// The number that tells the plan's job from others ([`JobOrder::plan`]). Two plans of one epoch cannot both be
    /// started, so plans with equal hashes are told apart by their epochs.
    #[must_use]
    pub fn job_number(self, epoch: Epoch) -> u64 {
        epoch.0 << 32 | u64::from(self.0)
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}", self.0)
    }
}

/// What a request takes, and what comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name. Depends on [`Plan::epoch`], [`Plan::request`], [`Plan::moves`] and [`Plan::sets`], not on bytes.
    pub id: PlanId,
    /// The map that it was made for.
    pub epoch: Epoch,
    /// What it was made for.
    pub request: Request,
    /// Replicas of a shard from then on.
    pub replicas: u8,
    /// What becomes of nodes before anything moves.
    pub changes: Vec<NodeChange>,
    /// In the order in which they are to be made, each safe by itself. Several may be under way at once, but never two of
    /// one shard.
    pub moves: Vec<Move>,
    /// The replica set of each shard after all moves, the preferred leader first.
    pub sets: Vec<Vec<NodeId>>,
    /// Shards that are to be led by another node than the map prefers today, and by whom.
    pub leaders: Vec<(ShardId, NodeId)>,
    /// Copies that no placement with these shares could save.
    pub least_possible: usize,
    /// Bytes to be copied, about.
    pub bytes: u64,
    /// What becomes of each node, in the order of the map.
    pub nodes: Vec<NodeEffect>,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// What a plan makes of a node. Pairs are before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEffect {
    /// The node.
    pub node: NodeId,
    /// Its zone after; empty if it is one of its own.
    pub zone: String,
    /// Replicas it holds.
    pub replicas: (usize, usize),
    /// Shards it leads: in fact before, by preference after.
    pub leads: (usize, usize),
    /// Bytes of the shards it holds, about.
    pub bytes: (u64, u64),
    /// Whether it is the only node of its zone that holds a share, so that it holds one replica of every shard.
    pub alone_in_zone: bool,
}

impl Plan {
    /// Replicas that are copied to another node.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.moves.iter().filter(|step| step.is_copy()).count()
    }

    /// Whether it may not be applied: see its checks.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.checks.iter().any(|check| check.outcome == Outcome::Blocks)
    }

    /// The plan as the meta group takes it, with so many moves under way at a time, and so many bytes a second sent for all
    /// of them; 0 if nothing is to hold them back.
    #[must_use]
    pub fn to_order(&self, map: &ClusterMap, in_flight_max: u16, bytes_per_s: u64) -> JobOrder {
        let mut title = self.request.to_words(map);
        while title.len() > TITLE_BYTES_MAX {
            title.pop();
        }
        JobOrder {
            plan: self.id.job_number(self.epoch),
            epoch: self.epoch,
            title,
            in_flight_max,
            bytes_per_s,
            replicas: self.replicas,
            changes: self.changes.clone(),
            moves: self.moves.clone(),
            removes: if let Request::Remove(nodes) = &self.request { nodes.clone() } else { Vec::new() },
            cause: Cause::Operator,
            restarts: self.restarts().to_vec(),
        }
    }

    /// Nodes that are restarted, one after the other.
    #[must_use]
    pub fn restarts(&self) -> &[NodeId] {
        if let Request::Roll(nodes) = &self.request { nodes } else { &[] }
    }

    /// Seconds that copying takes at a rate in bytes a second, 1 or more.
    #[must_use]
    pub const fn estimate_s(&self, bytes_per_s: u64) -> u64 {
        self.bytes.div_ceil(if bytes_per_s == 0 { 1 } else { bytes_per_s })
    }
}

/// Plans what a request takes.
///
/// # Errors
///
/// See [`PlanError`]: no such change can be made. One that can be made but not now is a plan that
/// [is blocked](Plan::is_blocked).
///
/// # Panics
///
/// If there is not a standing for each node of the map.
pub fn plan(
    map: &ClusterMap,
    standings: &[Standing],
    facts: &Facts,
    request: &Request,
) -> Result<Plan, PlanError> {
    let was = Layout::of(map, standings);
    let layout = was.after(map, request)?;
    let nodes: Vec<Node<'_>> = map
        .nodes
        .iter()
        .enumerate()
        .map(|(at, row)| Node { name: &row.name, zone: &layout.zones[at], weight: layout.share(at) })
        .collect();
    let before = ShardMap::from_sets(placed(map, &map.shards))?;
    let (after, moves, least_possible) = if let Request::Undo { former, .. } = request {
        let after = ShardMap::from_sets(placed(map, &former.map.shards))?;
        let moves = moves_between(&before, &after, &nodes)?;
        let copies = moves.iter().filter(|step| step.to.is_some()).count();
        (after, moves, copies)
    } else if matches!(request, Request::Roll(_)) {
        (before.clone(), Vec::new(), 0)
    } else {
        let plan = rebalance(&before, &nodes, layout.replicas)?;
        (plan.map, plan.moves, plan.least_possible)
    };
    let board = Board::new(map, facts, &layout, before.into_sets());
    let end = Board::new(map, facts, &layout, after.into_sets());
    let mut moves = order::order(&moves, &board, &end.held);
    moves.extend(leaders(map, &moves, &end));
    let restarts = if let Request::Roll(nodes) = request { nodes.as_slice() } else { &[] };
    let restarts: Vec<NodeIndex> = restarts.iter().filter_map(|node| place(map, *node)).collect();
    let walk = checks::Walk {
        map,
        facts,
        before: &board,
        after: &end,
        moves: &moves,
        replicas: layout.replicas,
        restarts: &restarts,
    };
    let checks = walk.checks();

    let moves = by_id(map, &moves);
    let sets = sets_after(map, &moves);
    let changed = (0..).map(ShardId).zip(map.shards.iter().zip(&sets));
    let led_by_others = changed
        .filter_map(|(shard, (before, after))| {
            let leader = after.first()?;
            (before.first() != Some(leader)).then_some((shard, *leader))
        })
        .collect();
    let copied = moves.iter().filter(|step| step.is_copy());
    Ok(Plan {
        replicas: layout.replicas,
        changes: changes(map, &was, &layout),
        id: plan_id(map, request, &moves, &sets),
        epoch: map.epoch,
        request: request.clone(),
        leaders: led_by_others,
        least_possible,
        bytes: copied.map(|step| facts.data_of(step.shard)).sum(),
        nodes: effects(map, facts, &layout, &sets),
        moves,
        sets,
        checks,
    })
}

/// Moves with nodes by their ids.
fn by_id(map: &ClusterMap, moves: &[tholos_ring::Move]) -> Vec<Move> {
    let id = |node: NodeIndex| map.nodes[usize::from(node.0)].id;
    let step =
        |step: &tholos_ring::Move| Move { shard: step.shard, from: step.from.map(id), to: step.to.map(id) };
    moves.iter().map(step).collect()
}

/// What is left to do after the moves so that each shard is led as at the end.
fn leaders(map: &ClusterMap, moves: &[tholos_ring::Move], end: &Board<'_>) -> Vec<tholos_ring::Move> {
    let sets = sets_after(map, &by_id(map, moves));
    let step = |(shard, set): (ShardId, &Vec<NodeId>)| {
        let leads = *end.set(shard).first()?;
        let first = set.first().and_then(|node| place(map, *node));
        let step = tholos_ring::Move { shard, from: Some(leads), to: Some(leads) };
        (first != Some(leads)).then_some(step)
    };
    (0..).map(ShardId).zip(&sets).filter_map(step).collect()
}

fn changes(map: &ClusterMap, was: &Layout, layout: &Layout) -> Vec<NodeChange> {
    let change = |at: usize| {
        let id = map.nodes[at].id;
        let standing = layout.standings[at];
        let (weight, zone) = (layout.weights[at], &layout.zones[at]);
        [
            (was.standings[at] != standing).then_some(NodeChange::Standing(id, standing)),
            (was.weights[at] != weight).then_some(NodeChange::Weight(id, weight)),
            (was.zones[at] != *zone).then(|| NodeChange::Zone(id, zone.clone())),
        ]
    };
    (0..map.nodes.len()).flat_map(change).flatten().collect()
}

/// The replica sets once the moves are made (N1).
fn sets_after(map: &ClusterMap, moves: &[Move]) -> Vec<Vec<NodeId>> {
    let mut sets = map.shards.clone();
    for step in moves {
        let set = &mut sets[usize::from(step.shard.0)];
        *set = step.set_after(set).expect("N1: moves between sets fit these, one after the other");
    }
    sets
}

/// Replica sets with nodes by their place in the map. A node that is not in the map would be a broken map (M2).
fn placed(map: &ClusterMap, sets: &[Vec<NodeId>]) -> Vec<Vec<NodeIndex>> {
    let set = |set: &Vec<NodeId>| set.iter().filter_map(|node| place(map, *node)).collect();
    sets.iter().map(set).collect()
}

fn effects(map: &ClusterMap, facts: &Facts, layout: &Layout, sets: &[Vec<NodeId>]) -> Vec<NodeEffect> {
    let alone = |at: usize| {
        let mates = (0..map.nodes.len()).filter(|other| layout.zones[*other] == layout.zones[at]);
        !layout.zones[at].is_empty()
            && layout.share(at) > 0
            && mates.filter(|other| layout.share(*other) > 0).count() == 1
    };
    let mut effects: Vec<NodeEffect> = map
        .nodes
        .iter()
        .enumerate()
        .map(|(at, row)| NodeEffect {
            node: row.id,
            zone: layout.zones[at].clone(),
            replicas: (0, 0),
            leads: (0, 0),
            bytes: (0, 0),
            alone_in_zone: alone(at),
        })
        .collect();
    let mut tally = |node: &NodeId, add: &mut dyn FnMut(&mut NodeEffect)| {
        if let Some(at) = place(map, *node) {
            add(&mut effects[usize::from(at.0)]);
        }
    };
    for (shard, (before, after)) in (0..).map(ShardId).zip(map.shards.iter().zip(sets)) {
        let bytes = facts.data_of(shard);
        for node in before {
            tally(node, &mut |effect| {
                effect.replicas.0 += 1;
                effect.bytes.0 += bytes;
            });
        }
        for node in after {
            tally(node, &mut |effect| {
                effect.replicas.1 += 1;
                effect.bytes.1 += bytes;
            });
        }
        if let Some(leader) = facts.shards.get(usize::from(shard.0)).and_then(|facts| facts.leader) {
            tally(&leader, &mut |effect| effect.leads.0 += 1);
        }
        if let Some(leader) = after.first() {
            tally(leader, &mut |effect| effect.leads.1 += 1);
        }
    }
    // Where there are more zones than replicas it holds a part, as others do.
    for effect in &mut effects {
        effect.alone_in_zone &= effect.replicas.1 == sets.len();
    }
    effects
}

/// The hash of all that applying the plan would change.
fn plan_id(map: &ClusterMap, request: &Request, moves: &[Move], sets: &[Vec<NodeId>]) -> PlanId {
    let mut bytes = vec![];
    bytes.extend_from_slice(&map.cluster_id.0);
    bytes.extend_from_slice(&map.epoch.0.to_le_bytes());
    bytes.extend_from_slice(request.to_words(map).as_bytes());
    for step in moves {
        let number = |node: Option<NodeId>| node.map_or(0, |node| node.0).to_le_bytes();
        bytes.extend_from_slice(&step.shard.0.to_le_bytes());
        bytes.extend_from_slice(&number(step.from));
        bytes.extend_from_slice(&number(step.to));
    }
    for node in sets.iter().flatten() {
        bytes.extend_from_slice(&node.0.to_le_bytes());
    }
    let hash = hash64(&bytes, 0);
    PlanId((hash >> 32) as u32)
}

#[cfg(test)]
mod tests;
