//! What is looked at before a plan may be applied: every step is walked, and nothing is taken for granted.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use tholos_ring::{Move, NodeIndex, ShardId};

use crate::id::NodeId;
use crate::map::ClusterMap;
use crate::plan::board::{Board, majority};
use crate::plan::facts::{Ailment, Facts};

/// Reasons kept of one check; more are counted.
pub const REASONS_MAX: usize = 16;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// At every step most replicas of the old set and of the new one can be counted on, those who get replicas are up,
    /// and the shard's own log knows the set that the plan is made for.
    Quorum,
    /// Those who get replicas have the room on disk.
    Disk,
    /// And in memory.
    Memory,
    /// No zone holds more of a shard than it must, nor on the way more than before.
    Zones,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nothing to say.
    Ok,
    /// The plan may be applied, and there is something to know.
    Warns,
    /// The plan may not be applied.
    Blocks,
}

/// A check and what came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub kind: CheckKind,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for the first [`REASONS_MAX`] shards or nodes.
    pub reasons: Vec<Reason>,
    /// How many reasons there are in all.
    pub reasons_total: usize,
}

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Too few replicas of a shard can be counted on for a move.
    NoQuorum {
        /// The shard.
        shard: ShardId,
        /// Replicas of the smaller of the two sets that can be counted on.
        live: usize,
        /// How many it takes.
        needed: usize,
        /// Those that cannot, and why; nothing if their nodes are down.
        missing: Vec<(NodeId, Option<Ailment>)>,
    },
    /// A node is down that is to get replicas.
    TargetDown {
        /// The node.
        node: NodeId,
        /// Why it does not take part.
        why: String,
        /// Replicas it is to get.
        replicas: usize,
    },
    /// A shard's own log knows other voters than the map (R7): another change is under way or not recorded yet.
    SetDiffers {
        /// The shard.
        shard: ShardId,
        /// Its voters by its own log.
        voters: Vec<NodeId>,
    },
    /// What a node is to get does not fit. What it gives up is not counted, since it is dropped late.
    NoRoom {
        /// The node.
        node: NodeId,
        /// Bytes it is to get.
        needs: u64,
        /// Bytes it has room for.
        free: u64,
    },
    /// Nobody knows how much room a node has that is to get something.
    RoomUnknown {
        /// The node.
        node: NodeId,
    },
    /// There are fewer zones than replicas, so that each zone with two of a shard takes both with it.
    ZonesShort {
        /// Zones that hold anything afterwards.
        zones: usize,
        /// Replicas of a shard.
        replicas: u8,
        /// Shards with two replicas or more in one zone, before and after.
        shards: (usize, usize),
    },
    /// Too few replicas of a shard can be counted on while a node restarts.
    NoQuorumWithout {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// Replicas of it on other nodes that can be counted on.
        live: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A node is down, so no other may be stopped on purpose.
    NodeDown {
        /// The node.
        node: NodeId,
        /// Why it does not take part.
        why: String,
    },
    /// A zone would hold more of a shard on the way than before and after.
    ZoneCrowded {
        /// The shard.
        shard: ShardId,
        /// Replicas in one zone.
        replicas: usize,
    },
}

impl Reason {
    const fn outcome(&self) -> Outcome {
        match self {
            Reason::RoomUnknown { .. } | Reason::ZonesShort { .. } => Outcome::Warns,
            _ => Outcome::Blocks,
        }
    }

    /// In words, with the names of the map.
    #[must_use]
    pub fn to_words(&self, map: &ClusterMap) -> String {
        let name = |node: &NodeId| map.node(*node).map_or_else(|| node.to_string(), |row| row.name.clone());
        match self {
            Reason::NoQuorum { shard, live, needed, missing } => {
                let why = |(node, ailment): &(NodeId, Option<Ailment>)| match ailment {
                    None => format!("{} is down", name(node)),
                    Some(Ailment::Absent) => format!("{} has no replica yet", name(node)),
                    Some(Ailment::Mute) => format!("the replica on {} has lost data", name(node)),
                    Some(Ailment::Behind(entries)) => format!("{} is {entries} entries behind", name(node)),
                };
                let missing = missing.iter().map(why).collect::<Vec<_>>().join(", ");
                format!("{shard} has {live} of the {needed} replicas that a change needs: {missing}")
            }
            Reason::TargetDown { node, why, replicas } => {
                format!("{} is to get {replicas} replicas and is down: {why}", name(node))
            }
            Reason::SetDiffers { shard, voters } => {
                let voters = voters.iter().map(name).collect::<Vec<_>>().join(" ");
                format!(
                    "{shard} is on {voters} by its own log, which is not what the map says: another change is under way"
                )
            }
            Reason::NoRoom { node, needs, free } => {
                format!("{} is to get {needs} bytes and has room for {free}", name(node))
            }
            Reason::RoomUnknown { node } => format!("{} does not say how much room it has", name(node)),
            Reason::ZonesShort { zones, replicas, shards: (before, after) } => format!(
                "{zones} zones for {replicas} replicas: {after} shards have more than one in a zone, {before} had"
            ),
            Reason::NoQuorumWithout { node, shard, live, needed } => format!(
                "{shard} would have {live} of the {needed} replicas that it needs while {} restarts",
                name(node)
            ),
            Reason::NodeDown { node, why } => {
                format!(
                    "{} is down: {why}: start it first, or let others take over what it holds",
                    name(node)
                )
            }
            Reason::ZoneCrowded { shard, replicas } => {
                format!("{shard} would have {replicas} replicas in one zone on the way")
            }
        }
    }
}

/// The reasons found for one check.
struct Found {
    kind: CheckKind,
    outcome: Outcome,
    reasons: Vec<Reason>,
    total: usize,
}

impl Found {
    const fn new(kind: CheckKind) -> Found {
        Found { kind, outcome: Outcome::Ok, reasons: Vec::new(), total: 0 }
    }

    fn push(&mut self, reason: Reason) {
        self.outcome = self.outcome.max(reason.outcome());
        self.total += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }

    fn into_check(self) -> Check {
        let Found { kind, outcome, reasons, total } = self;
        Check { kind, outcome, reasons, reasons_total: total }
    }
}

/// What the checks see.
pub(crate) struct Walk<'a> {
    pub(crate) map: &'a ClusterMap,
    pub(crate) facts: &'a Facts,
    /// As the cluster is.
    pub(crate) before: &'a Board<'a>,
    /// As it is after all moves.
    pub(crate) after: &'a Board<'a>,
    /// In the order in which they are made.
    pub(crate) moves: &'a [Move],
    pub(crate) replicas: u8,
    /// Nodes that are restarted, one after the other.
    pub(crate) restarts: &'a [NodeIndex],
}

impl Walk<'_> {
    /// Walks the moves.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let mut quorum = Found::new(CheckKind::Quorum);
        let mut zones = Found::new(CheckKind::Zones);
        self.look_at_targets(&mut quorum);
        self.look_at_restarts(&mut quorum);
        let mut blocked = vec![false; usize::from(self.map.shard_count)];
        let mut board = self.before.clone();
        for step in self.moves {
            let at = usize::from(step.shard.0);
            let bound = self.before.crowding(step.shard).max(self.after.crowding(step.shard));
            if !blocked[at] {
                let lacks = self.lacks(step.shard, &board);
                board.make(step);
                let reason = self.differs(step.shard).or(lacks).or_else(|| self.lacks(step.shard, &board));
                blocked[at] = reason.is_some();
                reason.into_iter().for_each(|reason| quorum.push(reason));
            } else {
                board.make(step);
            }
            let replicas = board.crowding(step.shard);
            if replicas > bound {
                zones.push(Reason::ZoneCrowded { shard: step.shard, replicas });
            }
        }
        self.look_at_zones(&mut zones);
        let disk = self.room(CheckKind::Disk, |facts| facts.disk_free);
        let memory = self.room(CheckKind::Memory, |facts| facts.memory_free);
        [quorum, disk, memory, zones].map(Found::into_check).into()
    }

    fn id(&self, node: NodeIndex) -> NodeId {
        self.map.nodes[usize::from(node.0)].id
    }

    /// Why a shard has no quorum that can be counted on, if so.
    fn lacks(&self, shard: ShardId, board: &Board<'_>) -> Option<Reason> {
        let needed = majority(board.set(shard).len());
        let live = board.live(shard);
        if live >= needed {
            return None;
        }
        let facts = self.facts.shards.get(usize::from(shard.0));
        let ailment = |node: NodeId| {
            let ailing = facts?.ailing.iter().find(|(ailing, _)| *ailing == node)?;
            Some(ailing.1)
        };
        let silent = board.set(shard).iter().filter(|node| !board.carries(shard, **node));
        let missing = silent.map(|node| {
            let id = self.id(*node);
            (id, if board.is_up(*node) { ailment(id) } else { None })
        });
        Some(Reason::NoQuorum { shard, live, needed, missing: missing.collect() })
    }

    fn differs(&self, shard: ShardId) -> Option<Reason> {
        let voters = &self.facts.shards.get(usize::from(shard.0))?.voters;
        let set = self.map.replica_set(shard);
        let same = voters.len() == set.len() && voters.iter().all(|voter| set.contains(voter));
        (!voters.is_empty() && !same).then(|| Reason::SetDiffers { shard, voters: voters.clone() })
    }

    /// Replicas that each node gets, and the bytes of them that `bytes_of` a shard tells.
    fn gets(&self, bytes_of: impl Fn(&Facts, ShardId) -> u64) -> BTreeMap<NodeIndex, (usize, u64)> {
        let mut gets: BTreeMap<NodeIndex, (usize, u64)> = BTreeMap::new();
        for step in self.moves {
            if let Some(to) = step.to.filter(|to| step.from != Some(*to)) {
                let (replicas, bytes) = gets.entry(to).or_default();
                *replicas += 1;
                *bytes += bytes_of(self.facts, step.shard);
            }
        }
        gets
    }

    fn look_at_targets(&self, found: &mut Found) {
        for (node, (replicas, _)) in self.gets(|_, _| 0) {
            if !self.before.is_up(node) {
                let facts = self.facts.nodes.get(usize::from(node.0));
                let why = facts.and_then(|facts| facts.down.clone());
                let why = why.unwrap_or_else(|| String::from("it was not asked"));
                found.push(Reason::TargetDown { node: self.id(node), why, replicas });
            }
        }
    }

    /// Whoever restarts must be missed nowhere, and nobody else be missing.
    fn look_at_restarts(&self, found: &mut Found) {
        if self.restarts.is_empty() {
            return;
        }
        for (row, facts) in self.map.nodes.iter().zip(&self.facts.nodes) {
            if let Some(why) = &facts.down {
                found.push(Reason::NodeDown { node: row.id, why: why.clone() });
            }
        }
        let sets = (0..self.map.shard_count).map(ShardId);
        for shard in sets {
            let set = self.before.set(shard);
            let needed = majority(set.len());
            for node in self.restarts.iter().filter(|node| set.contains(node)) {
                let others = set.iter().filter(|other| *other != node && self.before.carries(shard, **other));
                let live = others.count();
                if live < needed {
                    found.push(Reason::NoQuorumWithout { node: self.id(*node), shard, live, needed });
                    break;
                }
            }
        }
    }

    fn room(&self, kind: CheckKind, free: impl Fn(&crate::plan::facts::NodeFacts) -> Option<u64>) -> Found {
        let mut found = Found::new(kind);
        let bytes_of = if kind == CheckKind::Disk { Facts::data_of } else { Facts::bytes_of };
        for (node, (_, needs)) in self.gets(bytes_of) {
            let facts = self.facts.nodes.get(usize::from(node.0));
            let id = self.id(node);
            match facts.and_then(&free) {
                Some(free) if free < needs => found.push(Reason::NoRoom { node: id, needs, free }),
                None => found.push(Reason::RoomUnknown { node: id }),
                Some(_) => {}
            }
        }
        found
    }

    fn look_at_zones(&self, found: &mut Found) {
        let shards = || (0..self.map.shard_count).map(ShardId);
        let crowded = |board: &Board<'_>| shards().filter(|shard| board.crowding(*shard) > 1).count();
        let counts = (crowded(self.before), crowded(self.after));
        if counts.1 == 0 {
            return;
        }
        let mut zones: Vec<usize> =
            shards().flat_map(|shard| self.after.set(shard)).map(|node| self.after.zone(*node)).collect();
        zones.sort_unstable();
        zones.dedup();
        let (zones, replicas) = (zones.len(), self.replicas);
        found.push(Reason::ZonesShort { zones, replicas, shards: counts });
    }
}
