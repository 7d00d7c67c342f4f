//! What an operator asks for, and what the nodes are to be like then.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use tholos_ring::PlaceError;

use crate::id::NodeId;
use crate::map::{ClusterMap, MapError, REPLICAS_MAX, WEIGHT_MAX, check_name};
use crate::meta::Standing;
use crate::plan::undo::UNDO;

/// Nodes that one request may name.
pub const REQUEST_NODES_MAX: usize = 256;

/// A change that a plan is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Spares are to hold their shares.
    Add(Vec<NodeId>),
    /// Nodes are to hold nothing, and to leave the cluster then.
    Remove(Vec<NodeId>),
    /// Nodes are to hold nothing and stay as spares.
    Drain(Vec<NodeId>),
    /// A spare is to hold a share, and a node none.
    Replace {
        /// Who gives up what it holds.
        old: NodeId,
        /// The spare.
        new: NodeId,
    },
    /// A node is to have another weight.
    Reweight {
        /// Which one.
        node: NodeId,
        /// 1 to [`WEIGHT_MAX`].
        weight: u16,
    },
    /// A node stands in another zone.
    Rezone {
        /// Which one.
        node: NodeId,
        /// Spelled like a name; empty for one of its own.
        zone: String,
    },
    /// Shards are to have another number of replicas.
    Replicas {
        /// 1 to [`REPLICAS_MAX`].
        count: u8,
        /// Spares that are to hold their shares of them.
        with: Vec<NodeId>,
    },
    /// Others are to hold what these nodes hold, which are lost for now: spares, or the members that are left. A lost node
    /// becomes a spare.
    Lost {
        /// Nodes that are down.
        nodes: Vec<NodeId>,
        /// Spares that are to hold shares.
        with: Vec<NodeId>,
    },
    /// Members are to hold their shares, whatever kept them from it.
    Even,
    /// Nodes are to be restarted, one after the other. Nothing moves.
    Roll(Vec<NodeId>),
    /// Everything is to be as it was before a job: weights, zones, standings, and who holds what. Nodes that have come
    /// since become spares.
    Undo {
        /// The job's number.
        job: u64,
        /// What the cluster was like before it ([`MetaState::before_job`](crate::MetaState::before_job)).
        former: Box<Former>,
    },
}

/// What a cluster was like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its map.
    pub map: ClusterMap,
    /// Of each node of that map, in its order.
    pub standings: Vec<Standing>,
}

/// Why there can be no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// The words are no request.
    NotUnderstood(String),
    /// There is no node of this name.
    UnknownNode(String),
    /// A request names a node twice, or more than [`REQUEST_NODES_MAX`].
    TooManyNames,
    /// This node holds its share already.
    HoldsAlready(String),
    /// This node is a spare and has nothing to give up.
    HoldsNothing(String),
    /// The number of replicas is not within 1..=[`REPLICAS_MAX`].
    BadReplicas(u8),
    /// A weight or a zone is out of bounds.
    BadRow(MapError),
    /// There is no such job, or it is forgotten.
    UnknownJob(u64),
    /// This job is not finished, so nothing before it can be gone back to.
    JobUnderWay(u64),
    /// Nobody has kept what was before this job: it was started by an earlier version.
    BeforeUnknown(u64),
    /// The map to be restored is of another cluster or has other shards.
    OtherCluster,
    /// This node held something in the map to be restored and has left the cluster since.
    NodeLeft(NodeId),
    /// No replica sets can be made of such nodes.
    Place(PlaceError),
}

impl fmt::Display for PlanError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlanError::NotUnderstood(words) => write!(
                out,
                "\"{}\" is no request: it takes add NODE…, remove NODE…, drain NODE…, replace OLD NEW, reweight NODE \
                 WEIGHT, rezone NODE ZONE, replicas COUNT [NODE…], lost NODE… [with NODE…], even, roll [NODE…] or undo JOB",
                words.escape_default()
            ),
            PlanError::UnknownNode(name) => {
                write!(out, "the cluster has no node {}", name.escape_default())
            }
            PlanError::TooManyNames => {
                write!(out, "a request names each node once, and {REQUEST_NODES_MAX} at most")
            }
            PlanError::HoldsAlready(name) => {
                write!(out, "{name} holds its share already; to change that share, reweight it")
            }
            PlanError::HoldsNothing(name) => {
                write!(out, "{name} is a spare and holds nothing; to make it leave the cluster, remove it")
            }
            PlanError::BadReplicas(count) => {
                write!(out, "{count} replicas: it takes 1 to {REPLICAS_MAX}, and 3 or 5 to survive a loss")
            }
            PlanError::BadRow(error) => write!(out, "{error}"),
            PlanError::UnknownJob(job) => {
                write!(
                    out,
                    "there is no job {job}; finished ones are forgotten after a while: see tholos job list"
                )
            }
            PlanError::JobUnderWay(job) => write!(
                out,
                "job {job} is not finished, and nothing is undone before it is: wait for it, or cancel it first"
            ),
            PlanError::BeforeUnknown(job) => {
                write!(out, "what was before job {job} was not kept, since an earlier version started it")
            }
            PlanError::OtherCluster => {
                out.write_str("the map to go back to is of another cluster, or has other shards")
            }
            PlanError::NodeLeft(node) => {
                write!(out, "node {node} has left the cluster since, so what it held cannot go back to it")
            }
            PlanError::Place(error @ PlaceError::TooFewNodes { .. }) => {
                write!(out, "{error}: add a spare first, replace a node by one, or have fewer replicas")
            }
            PlanError::Place(error) => write!(out, "{error}"),
        }
    }
}

impl core::error::Error for PlanError {}

impl From<PlaceError> for PlanError {
    fn from(error: PlaceError) -> PlanError {
        PlanError::Place(error)
    }
}

impl Request {
    /// The request written as words, as people type them: `add n4`, `reweight n2 4`.
    ///
    /// # Errors
    ///
    /// [`PlanError::NotUnderstood`], [`PlanError::UnknownNode`], [`PlanError::TooManyNames`].
    pub fn parse(map: &ClusterMap, text: &str) -> Result<Request, PlanError> {
        let misread = || PlanError::NotUnderstood(String::from(text));
        let node = |name: &str| {
            map.by_name(name).map(|row| row.id).ok_or_else(|| PlanError::UnknownNode(String::from(name)))
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (what, rest) = words.split_first().ok_or_else(misread)?;
        let nodes = |names: &[&str]| {
            let twice = names.iter().enumerate().any(|(at, name)| names[..at].contains(name));
            match names.len() {
                0 => Err(misread()),
                1..=REQUEST_NODES_MAX if !twice => names.iter().map(|name| node(name)).collect(),
                _ => Err(PlanError::TooManyNames),
            }
        };
        match (*what, rest) {
            ("add", names) => nodes(names).map(Request::Add),
            ("remove", names) => nodes(names).map(Request::Remove),
            ("drain", names) => nodes(names).map(Request::Drain),
            ("replace", [old, new]) => Ok(Request::Replace { old: node(old)?, new: node(new)? }),
            ("reweight", [name, weight]) => {
                let weight = weight.parse().map_err(|_| misread())?;
                Ok(Request::Reweight { node: node(name)?, weight })
            }
            ("lost", names) => {
                let at = names.iter().position(|name| *name == "with").unwrap_or(names.len());
                let with = names.get(at + 1..).unwrap_or_default();
                let with = if with.is_empty() { Vec::new() } else { nodes(with)? };
                Ok(Request::Lost { nodes: nodes(&names[..at])?, with })
            }
            ("even", []) => Ok(Request::Even),
            ("roll", []) => Ok(Request::Roll(map.nodes.iter().map(|row| row.id).collect())),
            ("roll", names) => nodes(names).map(Request::Roll),
            ("rezone", [name]) => Ok(Request::Rezone { node: node(name)?, zone: String::new() }),
            ("rezone", [name, zone]) => Ok(Request::Rezone { node: node(name)?, zone: String::from(*zone) }),
            ("replicas", [count, with @ ..]) => {
                let count = count.parse().map_err(|_| misread())?;
                Ok(Request::Replicas { count, with: if with.is_empty() { Vec::new() } else { nodes(with)? } })
            }
            _ => Err(misread()),
        }
    }

    /// The request as people type it, with the names of `map`.
    #[must_use]
    pub fn to_words(&self, map: &ClusterMap) -> String {
        let name = |node: &NodeId| map.node(*node).map_or_else(|| format!("{node}"), |row| row.name.clone());
        let names = |nodes: &[NodeId]| nodes.iter().map(name).collect::<Vec<_>>().join(" ");
        match self {
            Request::Add(nodes) => format!("add {}", names(nodes)),
            Request::Remove(nodes) => format!("remove {}", names(nodes)),
            Request::Drain(nodes) => format!("drain {}", names(nodes)),
            Request::Replace { old, new } => format!("replace {} {}", name(old), name(new)),
            Request::Reweight { node, weight } => format!("reweight {} {weight}", name(node)),
            Request::Rezone { node, zone } => {
                String::from(format!("rezone {} {zone}", name(node)).trim_end())
            }
            Request::Replicas { count, with } => {
                String::from(format!("replicas {count} {}", names(with)).trim_end())
            }
            Request::Lost { nodes, with } if with.is_empty() => format!("lost {}", names(nodes)),
            Request::Lost { nodes, with } => format!("lost {} with {}", names(nodes), names(with)),
            Request::Even => String::from("even"),
            Request::Roll(nodes) => format!("roll {}", names(nodes)),
            Request::Undo { job, .. } => format!("{UNDO} {job}"),
        }
    }
}

/// What the nodes are to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In the map's order; so are the next two.
    pub(crate) zones: Vec<String>,
    pub(crate) weights: Vec<u16>,
    pub(crate) standings: Vec<Standing>,
    /// Of each shard.
    pub(crate) replicas: u8,
}

impl Layout {
    /// As the cluster is.
    pub(crate) fn of(map: &ClusterMap, standings: &[Standing]) -> Layout {
        assert_eq!(standings.len(), map.nodes.len(), "every node has a standing");
        Layout {
            zones: map.nodes.iter().map(|row| row.zone.clone()).collect(),
            weights: map.nodes.iter().map(|row| row.weight).collect(),
            standings: standings.into(),
            replicas: map.replicas,
        }
    }

    /// What the ring is told: 0 for a node that is to hold nothing.
    pub(crate) fn share(&self, at: usize) -> u16 {
        if self.standings[at] == Standing::Member { self.weights[at] } else { 0 }
    }

    /// As the request wants it.
    pub(crate) fn after(&self, map: &ClusterMap, request: &Request) -> Result<Layout, PlanError> {
        let mut layout = self.clone();
        let place = |node: &NodeId| {
            let at = map.nodes.binary_search_by_key(node, |row| row.id);
            at.map_err(|_| PlanError::UnknownNode(format!("{node}")))
        };
        let name = |at: usize| map.nodes[at].name.clone();
        match request {
            Request::Add(nodes) => layout.join(map, nodes)?,
            Request::Remove(nodes) => {
                for node in nodes {
                    layout.drain(place(node)?);
                }
            }
            Request::Drain(nodes) => layout.leave(map, nodes)?,
            Request::Replace { old, new } if old == new => return Err(PlanError::TooManyNames),
            Request::Replace { old, new } => {
                layout.leave(map, &[*old])?;
                layout.join(map, &[*new])?;
            }
            Request::Reweight { node, weight } => {
                let at = place(node)?;
                if !(1..=WEIGHT_MAX).contains(weight) {
                    return Err(PlanError::BadRow(MapError::BadWeight(name(at))));
                }
                layout.weights[at] = *weight;
            }
            Request::Rezone { node, zone } => {
                if !zone.is_empty() {
                    check_name(zone).map_err(PlanError::BadRow)?;
                }
                layout.zones[place(node)?].clone_from(zone);
            }
            Request::Replicas { count, with } => {
                if !(1..=REPLICAS_MAX).contains(count) {
                    return Err(PlanError::BadReplicas(*count));
                }
                layout.replicas = *count;
                layout.join(map, with)?;
            }
            Request::Lost { nodes, with } => {
                for node in nodes {
                    // One that drains is not to come back by itself.
                    let standing = &mut layout.standings[place(node)?];
                    *standing = if *standing == Standing::Member { Standing::Spare } else { *standing };
                }
                layout.join(map, with)?;
            }
            Request::Even => {}
            Request::Roll(nodes) => {
                for node in nodes {
                    place(node)?;
                }
            }
            Request::Undo { former, .. } => layout.restore(map, former)?,
        }
        Ok(layout)
    }

    /// Nodes that do not hold a share are to hold one.
    fn join(&mut self, map: &ClusterMap, nodes: &[NodeId]) -> Result<(), PlanError> {
        self.stand(map, nodes, |was, _| was != Standing::Member, Standing::Member, PlanError::HoldsAlready)
    }

    /// Nodes that hold a share are to hold none.
    fn leave(&mut self, map: &ClusterMap, nodes: &[NodeId]) -> Result<(), PlanError> {
        // A spare may hold something that it was to give up by a job that ended early.
        let holds = |node| map.shards_of(node).next().is_some();
        let may = |was, node| was != Standing::Spare || holds(node);
        self.stand(map, nodes, may, Standing::Draining, PlanError::HoldsNothing)
    }

    fn stand(
        &mut self,
        map: &ClusterMap,
        nodes: &[NodeId],
        may: impl Fn(Standing, NodeId) -> bool,
        standing: Standing,
        error: fn(String) -> PlanError,
    ) -> Result<(), PlanError> {
        for node in nodes {
            let at = map.nodes.binary_search_by_key(node, |row| row.id);
            let at = at.map_err(|_| PlanError::UnknownNode(format!("{node}")))?;
            if !may(self.standings[at], *node) {
                return Err(error(map.nodes[at].name.clone()));
            }
            match standing {
                Standing::Draining => self.drain(at),
                _ if self.standings[at] == Standing::Lost => return Err(PlanError::NodeLeft(*node)),
                _ => self.standings[at] = standing,
            }
        }
        Ok(())
    }

    /// A node is to hold nothing. One that was given up for ever (R29) is nothing else before it leaves.
    fn drain(&mut self, at: usize) {
        if self.standings[at] != Standing::Lost {
            self.standings[at] = Standing::Draining;
        }
    }

    fn restore(&mut self, map: &ClusterMap, former: &Former) -> Result<(), PlanError> {
        let Former { map: was, standings } = former;
        if was.cluster_id != map.cluster_id || was.shard_count != map.shard_count {
            return Err(PlanError::OtherCluster);
        }
        if let Some(gone) = was.shards.iter().flatten().find(|node| map.node(**node).is_none()) {
            return Err(PlanError::NodeLeft(*gone));
        }
        let before = self.standings.clone();
        for standing in self.standings.iter_mut().filter(|standing| **standing != Standing::Lost) {
            *standing = Standing::Spare;
        }
        for (row, standing) in was.nodes.iter().zip(standings) {
            if let Ok(at) = map.nodes.binary_search_by_key(&row.id, |row| row.id) {
                self.zones[at].clone_from(&row.zone);
                self.weights[at] = row.weight;
                // What was lost since does not come back.
                if before[at] != Standing::Lost {
                    self.standings[at] = *standing;
                }
            }
        }
        self.replicas = was.replicas;
        Ok(())
    }
}
