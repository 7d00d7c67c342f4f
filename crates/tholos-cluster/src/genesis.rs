//! How a cluster begins, and how it never begins twice (R26).
//!
//! A node with an empty directory knows its *seeds*, the nodes that are to make up the cluster, itself among them. It
//! asks each of them who it is, again and again, and hands the answers to a [`Genesis`]:
//!
//! ```text
//!                 an answer is missing, or settings differ
//!                       +------+
//!                       v      |
//!      new -----------> Wait --+---- all empty and alike ----> Found     I am the first by name
//!                       |  ^                            '----> AwaitFounder      I am not
//!                       |  |________ somebody was wiped again ____|    |
//!                       |                                              |
//!                       +---- a seed belongs to a cluster -------------+
//!                                 |                        |
//!                                 v                        v
//!                    Join  its map names me         Known  it names another directory of my name
//!                                                   Refuse  its map does not
//! ```
//!
//! - G1: nothing is founded before *all* seeds have said that they are empty. Two wiped nodes of three are a majority,
//!   and would else found a new, empty cluster beside the data on the third.
//! - G2: one answer *I belong to C* ends it, for good: the node joins C if C's map names this very incarnation of it. Else
//!   it founds nothing; under its old name it may come back to C as a new node, and a stranger is refused.
//! - G3: only the first by name founds, so that two nodes cannot found two clusters. What it founds names the
//!   incarnations that said they were empty; a node wiped since then does not get in by its old name.
//!
//! The founder must have its map on disk before it answers *I belong to C* with it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::founding::{FoundingError, natural_order};
use crate::id::{ClusterId, Incarnation};
use crate::map::{ClusterMap, MapError, NodeRow, check_name};

/// Seeds of a cluster, at most.
pub const SEEDS_MAX: usize = 1024;

/// One of the nodes a cluster is to begin with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seed {
    /// Its name.
    pub name: String,
    /// Where its peer port is, `host:port`.
    pub address: String,
}

/// What all seeds must have been told alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The nodes the cluster begins with.
    pub seeds: Vec<Seed>,
    /// Shards to cut the slots into.
    pub shard_count: u16,
    /// Replicas of each shard.
    pub replicas: u8,
}

/// What a node says when asked who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// My directory is empty, and this is what I was told.
    Empty {
        /// The node as it would stand in the map; its id counts for nothing.
        row: NodeRow,
        /// The cluster it was told to begin.
        settings: Settings,
    },
    /// I belong to a cluster.
    Belongs {
        /// Which one.
        cluster_id: ClusterId,
        /// The bytes of its map, which a newer release may have written.
        map: Vec<u8>,
    },
}

/// Where genesis stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask again soon.
    Wait {
        /// Seeds that have not answered, in the order of names.
        missing: Vec<String>,
        /// What stands in the way of those that have, one sentence each, for the operator.
        conflicts: Vec<String>,
    },
    /// All seeds are empty, and this node, the first by name, makes the cluster: write this map, sync, serve.
    Found(ClusterMap),
    /// All seeds are empty; the named one makes the cluster. Ask it again soon.
    AwaitFounder(String),
    /// A cluster names this node: write its map, sync, serve.
    Join(ClusterMap),
    /// A cluster knows this node's name with another directory (R21): it may only come back as a new node, and only if the
    /// operator says that the other directory is lost for good.
    Known {
        /// The seed that said so.
        seed: String,
        /// For the operator.
        reason: String,
    },
    /// This node must not go on; the text says why and what to do.
    Refuse {
        /// For the operator.
        reason: String,
    },
}

/// Why a node cannot even begin to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenesisError {
    /// This node's own row is not valid.
    BadRow(MapError),
    /// A seed's name is not valid.
    BadSeed(MapError),
    /// No seed has this node's name.
    NotAmongSeeds(String),
    /// Two seeds have this name.
    DuplicateSeed(String),
    /// More than [`SEEDS_MAX`] seeds.
    TooManySeeds(usize),
    /// Seeds and settings make no cluster.
    Founding(FoundingError),
}

impl fmt::Display for GenesisError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GenesisError::BadRow(error) => error.fmt(out),
            GenesisError::BadSeed(error) => write!(out, "seeds: {error}"),
            GenesisError::NotAmongSeeds(name) => {
                write!(out, "node {name} is not among its own seeds: name every node of the cluster there")
            }
            GenesisError::DuplicateSeed(name) => write!(out, "seeds: {name} is named twice"),
            GenesisError::TooManySeeds(count) => write!(out, "{count} seeds are more than {SEEDS_MAX}"),
            GenesisError::Founding(error) => error.fmt(out),
        }
    }
}

impl core::error::Error for GenesisError {}

/// The beginning of a cluster, as one node with an empty directory sees it.
#[derive(Clone, Debug)]
pub struct Genesis {
    me: String,
    settings: Settings,
    /// The id the cluster gets if this node founds it.
    cluster_id: ClusterId,
    /// The last answer of each seed that said it is empty, this node's own included.
    empty: BTreeMap<String, (NodeRow, Settings)>,
    /// Found, Join or Refuse, once it is one of these.
    end: Option<Step>,
}

impl Genesis {
    /// The beginning at the node `row`. `cluster_id` is drawn at random for this call, and used only if this node founds.
    ///
    /// # Errors
    ///
    /// See [`GenesisError`]: what no answer could mend.
    pub fn new(row: NodeRow, settings: Settings, cluster_id: ClusterId) -> Result<Genesis, GenesisError> {
        row.check().map_err(GenesisError::BadRow)?;
        let mut settings = settings;
        settings.seeds.sort_by(|a, b| natural_order(&a.name, &b.name));
        let seeds = &settings.seeds;
        if seeds.len() > SEEDS_MAX {
            return Err(GenesisError::TooManySeeds(seeds.len()));
        }
        seeds.iter().try_for_each(|seed| check_name(&seed.name)).map_err(GenesisError::BadSeed)?;
        if let Some(pair) = seeds.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(GenesisError::DuplicateSeed(pair[0].name.clone()));
        }
        if !seeds.iter().any(|seed| seed.name == row.name) {
            return Err(GenesisError::NotAmongSeeds(row.name));
        }
        // Rows like this node's stand for the others: what fails with them fails with any.
        let rows = seeds.iter().map(|seed| NodeRow { name: seed.name.clone(), ..row.clone() }).collect();
        ClusterMap::genesis(cluster_id, rows, settings.shard_count, settings.replicas)
            .map_err(GenesisError::Founding)?;
        let me = row.name.clone();
        let empty = BTreeMap::from([(me.clone(), (row, settings.clone()))]);
        Ok(Genesis { me, settings, cluster_id, empty, end: None })
    }

    /// What this node answers as long as genesis has not ended.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let (row, settings) = self.empty[&self.me].clone();
        Answer::Empty { row, settings }
    }

    /// The seeds to ask: all but this node, in the order of names.
    pub fn others(&self) -> impl Iterator<Item = &Seed> {
        self.settings.seeds.iter().filter(|seed| seed.name != self.me)
    }

    /// Takes the answer of the seed that was asked as `seed`, and says where genesis stands now.
    ///
    /// Answers of strangers and of this node itself change nothing.
    pub fn handle_answer(&mut self, seed: &str, answer: Answer) -> Step {
        if self.end.is_none() && self.others().any(|other| other.name == seed) {
            match answer {
                Answer::Empty { row, settings } => {
                    // The last answer counts: a seed that was wiped or corrected since then is what it says now.
                    self.empty.insert(String::from(seed), (row, settings));
                }
                Answer::Belongs { cluster_id, map } => self.end = Some(self.belongs(seed, cluster_id, &map)),
            }
        }
        self.step()
    }

    /// A seed is no longer reachable. What it said counts no more, for it may come back with another directory.
    pub fn handle_silence(&mut self, seed: &str) -> Step {
        if self.end.is_none() && seed != self.me {
            self.empty.remove(seed);
        }
        self.step()
    }

    /// Where genesis stands. Found, Join, Known and Refuse are for ever.
    pub fn step(&mut self) -> Step {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let missing: Vec<String> = self
            .settings
            .seeds
            .iter()
            .filter(|seed| !self.empty.contains_key(&seed.name))
            .map(|seed| seed.name.clone())
            .collect();
        let conflicts = self.conflicts();
        // G1
        if !missing.is_empty() || !conflicts.is_empty() {
            return Step::Wait { missing, conflicts };
        }
        let founder = &self.settings.seeds[0].name;
        if *founder != self.me {
            return Step::AwaitFounder(founder.clone());
        }
        let rows = self.empty.values().map(|(row, _)| row.clone()).collect();
        let Settings { shard_count, replicas, .. } = self.settings;
        let end = match ClusterMap::genesis(self.cluster_id, rows, shard_count, replicas) {
            Ok(map) => Step::Found(map),
            Err(error) => return Step::Wait { missing, conflicts: Vec::from([format!("{error}")]) },
        };
        self.end = Some(end.clone());
        end
    }

    /// What keeps the seeds that have answered from being one cluster.
    fn conflicts(&self) -> Vec<String> {
        let mut conflicts = Vec::new();
        let mut incarnations: BTreeMap<Incarnation, &str> = BTreeMap::new();
        for (name, (row, settings)) in &self.empty {
            if row.name != *name {
                conflicts.push(format!("the address given for {name} is answered by {}", row.name));
            } else if let Err(error) = row.check() {
                conflicts.push(format!("{name} says something that is not valid: {error}"));
            } else if *settings != self.settings {
                conflicts.push(difference(name, settings, &self.settings));
            } else if let Some(other) = incarnations.insert(row.incarnation, name) {
                conflicts.push(format!(
                    "{other} and {name} have copies of one directory: give {name} an empty one"
                ));
            }
        }
        conflicts
    }

    /// G2: what an answer *I belong to C* means for this node.
    fn belongs(&self, seed: &str, cluster_id: ClusterId, map: &[u8]) -> Step {
        let me = &self.me;
        let refuse = |reason: String| Step::Refuse { reason };
        let map = match ClusterMap::decode(map) {
            Ok(map) if map.cluster_id == cluster_id => map,
            Ok(map) => {
                let other = map.cluster_id;
                return refuse(format!(
                    "{seed} says it belongs to cluster {cluster_id}, but shows the map of {other}"
                ));
            }
            Err(error) => {
                return refuse(format!(
                    "{seed} belongs to cluster {cluster_id}, whose map cannot be read: {error}"
                ));
            }
        };
        let mine = self.empty[me].0.incarnation;
        match map.by_name(me).map(|row| row.incarnation) {
            Some(incarnation) if incarnation == mine => Step::Join(map),
            Some(incarnation) => Step::Known {
                seed: String::from(seed),
                reason: format!(
                    "{seed} belongs to cluster {cluster_id}, which knows {me} with the directory {incarnation}, and this one \
                     is {mine} and empty: put the old directory back; if it is lost for good, start {me} once with --rejoin \
                     yes, and it comes back as a new node"
                ),
            },
            None => refuse(format!(
                "{seed} belongs to cluster {cluster_id}, which does not know {me}: let this node join that cluster \
                 (--join instead of --seeds), or correct its seeds"
            )),
        }
    }
}

/// How the settings of a seed differ from this node's, in a sentence.
fn difference(name: &str, theirs: &Settings, ours: &Settings) -> String {
    if theirs.shard_count != ours.shard_count {
        format!("{name} was told {} shards, this node {}", theirs.shard_count, ours.shard_count)
    } else if theirs.replicas != ours.replicas {
        format!("{name} was told {} replicas, this node {}", theirs.replicas, ours.replicas)
    } else {
        let list = |settings: &Settings| {
            let words: Vec<String> =
                settings.seeds.iter().map(|seed| format!("{}={}", seed.name, seed.address)).collect();
            words.join(",")
        };
        format!("{name} was told the seeds {}, this node {}", list(theirs), list(ours))
    }
}

#[cfg(test)]
mod tests;
