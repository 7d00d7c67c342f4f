//! Nodes of a development cluster that come, go, and begin anew.

use std::sync::Arc;
use std::time::Duration;

use tholos_cluster::{MetaCommand, MetaState, NodeId, NodeRow};
use tholos_ring::ShardId;

use super::NODES_MAX;
use super::ground::{self, NodePorts};
use super::nodes::{Place, Reach, Shared};
use crate::join;
use crate::node_dir::{self, DirectoryError, NodeDir};
use crate::open_files::{self, Nodes};
use crate::server::StartError;

/// How long the cluster may take to let a node in: an election, and then some.
const JOIN_WAIT: Duration = Duration::from_secs(15);
/// How long a node that was told of a decision may take to show it.
const DECISION_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// Why a node could not be killed, restarted, added, removed or wiped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// There is no such node.
    #[error("there is no node {name}; there are {names}")]
    NoSuchNode {
        /// The name asked for.
        name: String,
        /// All names.
        names: String,
    },
    /// It does not run.
    #[error("{0} does not run; restart it first")]
    NotRunning(String),
    /// It runs.
    #[error("{0} runs already")]
    Running(String),
    /// There is one of this name.
    #[error("there is a node {0} already; to begin it anew, tholos dev wipe {0}")]
    Exists(String),
    /// This process holds as many as it can.
    #[error("a dev cluster has at most {NODES_MAX} nodes; remove one first")]
    TooMany,
    /// Its directory is not there.
    #[error(
        "the directory of {0} is missing: put it back, or let the node begin anew with tholos dev wipe {0}"
    )]
    NoDirectory(String),
    /// It cannot leave as long as it holds something.
    #[error(
        "{name} still holds {}: tholos cluster plan remove {name}, then tholos cluster apply with the id that it prints; then \
         {name} leaves by itself", held(*replicas, *meta)
    )]
    StillHolds {
        /// The node.
        name: String,
        /// Replicas of shards.
        replicas: usize,
        /// Whether it holds one of the meta group as well.
        meta: bool,
    },
    /// Without it a shard, or the meta group, would have no majority any more, for good.
    #[error(
        "{name} cannot be wiped: {group} would have {live} of the {needed} replicas that it needs, for good. Start the nodes \
         that are down, wait until all have caught up, or begin anew with tholos dev --fresh"
    )]
    Needed {
        /// The node.
        name: String,
        /// `s3`, or `the meta group`.
        group: String,
        /// Others that can be counted on.
        live: usize,
        /// How many it takes.
        needed: usize,
    },
    /// The meta group has not decided it.
    #[error("the cluster has not decided it: {0}; look with tholos cluster status, then do it again")]
    Undecided(String),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A node to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewNode {
    /// Its name; the next of n1, n2, … if not given.
    pub name: Option<String>,
    /// Its zone; by its number if not given, as at the founding.
    pub zone: Option<String>,
    /// Its weight; 1 if not given.
    pub weight: Option<u16>,
}

/// A node that was added: a spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub name: String,
}

/// A node that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// It had left before.
    pub before: bool,
}

/// A node that was wiped: a spare from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiped {
    /// Replicas of shards that it held, and that are missing until it is added.
    pub held: usize,
}

impl Shared {
    pub(crate) async fn add(self: &Arc<Shared>, node: NewNode) -> Result<Added, DevError> {
        let mut running = self.running.lock().await;
        let state = self.state();
        let name = node.name.unwrap_or_else(|| next_name(&state));
        tholos_cluster::check_name(&name).map_err(|error| StartError::Settings(error.to_string()))?;
        if state.map.by_name(&name).is_some() {
            return Err(DevError::Exists(name));
        }
        if self.places().len() >= usize::from(NODES_MAX) {
            return Err(DevError::TooMany);
        }
        open_files::set_more_aside(Nodes::all(self.places().len() + 1), &self.tuning.clients.process)?;
        let zone = node.zone.unwrap_or_else(|| ground::zone_of(&name));
        let row = new_row(&name, zone, node.weight.unwrap_or(1));
        row.check().map_err(|error| StartError::Settings(error.to_string()))?;
        let started = self.bring_in(row, false).await?;
        running.insert(name.clone(), started);
        tracing::info!(node = %name, "added");
        Ok(Added { name })
    }

    pub(crate) async fn remove(self: &Arc<Shared>, name: &str) -> Result<Left, DevError> {
        let state = self.state();
        let Some(row) = state.map.by_name(name) else {
            if state.departed.iter().any(|gone| gone.name == name) {
                self.let_go().await;
                return Ok(Left { before: true });
            }
            return Err(self.no_such(name));
        };
        let meta =
            state.config(state.map.meta_group()).is_some_and(|config| config.replica_at(row.id.0).is_some());
        let replicas = state.holds(row.id) - usize::from(meta);
        if replicas > 0 || meta {
            return Err(DevError::StillHolds { name: name.to_owned(), replicas, meta });
        }
        // Not the one that leaves: it is let go as soon as that is decided, and might not come to answer.
        let handle = self.handles().into_iter().find(|handle| handle.id() != row.id);
        let handle = handle.ok_or_else(|| DevError::Undecided("every other node is stopped".to_owned()))?;
        let decided = handle.ask_meta(MetaCommand::Remove(row.id)).await;
        decided.map_err(|failure| DevError::Undecided(failure.text))?;
        let shown = async {
            while self.state().map.node(row.id).is_some() {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Whoever does not hear of it in time does so later, and then lets it go.
        let _ = tokio::time::timeout(DECISION_WAIT, shown).await;
        self.let_go().await;
        Ok(Left { before: false })
    }

    pub(crate) async fn wipe(self: &Arc<Shared>, name: &str) -> Result<Wiped, DevError> {
        self.place_of(name)?;
        let mut running = self.running.lock().await;
        let state = self.state();
        let Some(row) = state.map.by_name(name) else { return Err(self.no_such(name)) };
        self.check_not_needed(&state, row).await?;
        let held = state.map.shards_of(row.id).count();
        self.set_down(name, "it is wiped".to_owned());
        if let Some(node) = running.remove(name) {
            node.kill().await;
        }
        let path = self.dir.join(name);
        if node_dir::has_marker(&path) {
            node_dir::remove(&path).map_err(StartError::from)?;
        }
        let row = new_row(name, row.zone.clone(), row.weight);
        let started = self.bring_in(row, true).await?;
        running.insert(name.to_owned(), started);
        tracing::info!(node = %name, "wiped");
        Ok(Wiped { held })
    }

    /// Nodes that were stopped while they joined go on with it, in the background: the cluster has to run for that.
    pub(super) fn finish_joining(self: &Arc<Shared>, names: Vec<String>) {
        for name in names {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    let finished = shared.finish_one(&name).await;
                    match finished {
                        Err(DevError::Undecided(why)) => {
                            tracing::warn!(node = %name, why, "has not joined yet, and tries again");
                        }
                        Err(error) => return tracing::error!(node = %name, %error, "has not joined"),
                        Ok(()) => return,
                    }
                }
            });
        }
    }

    async fn finish_one(self: &Arc<Shared>, name: &str) -> Result<(), DevError> {
        let mut running = self.running.lock().await;
        if running.contains_key(name) {
            return Ok(());
        }
        let state = self.state();
        let (zone, weight) = match state.map.by_name(name) {
            Some(row) => (row.zone.clone(), row.weight),
            None => (ground::zone_of(name), 1),
        };
        // Under a name that is known it was wiped.
        let started = self.bring_in(new_row(name, zone, weight), true).await?;
        running.insert(name.to_owned(), started);
        Ok(())
    }

    /// A node with an empty directory joins and is started; `again`: in place of whoever bears its name.
    async fn bring_in(
        self: &Arc<Shared>,
        mut row: NodeRow,
        again: bool,
    ) -> Result<crate::server::RunningNode, DevError> {
        let name = row.name.clone();
        let member = self
            .handles()
            .into_iter()
            .find_map(|handle| self.map().node(handle.id()).map(|row| row.peer.clone()));
        let member = member.ok_or_else(|| DevError::Undecided("every other node is stopped".to_owned()))?;
        // Of any free ports, those that were free when this process began may have been taken since.
        let ports = match self.place_of(&name) {
            Ok(place) if !self.first.are_any() => place.ports,
            _ => {
                self.first.check([name.as_str()].into_iter())?;
                let taken: Vec<NodePorts> = self.places().values().map(|place| place.ports).collect();
                self.first.of(&name, &taken)?
            }
        };
        let mut directory = self.empty_directory(&name)?;
        row.incarnation = directory.identity().incarnation;
        self.set_addresses(&mut row, ports);
        let joining = join::run(&mut directory, row, again, &member, None);
        match tokio::time::timeout(JOIN_WAIT, joining).await {
            Ok(joined) => joined?,
            Err(_) => {
                return Err(DevError::Undecided(format!(
                    "{name} was not let in within {} s; has the meta group a majority?",
                    JOIN_WAIT.as_secs()
                )));
            }
        }
        if let Some(state) = directory.state() {
            self.note_state(state);
        }
        let reach = Reach::Down("it is starting".to_owned());
        self.places().insert(name.clone(), Place { ports, reach });
        let started = self.start_node(directory).await;
        if let Err(error) = &started {
            self.set_down(&name, error.to_string());
        }
        Ok(started?)
    }

    /// A directory of a node that belongs to no cluster. What one has left that is none of this cluster any more is put
    /// aside first.
    fn empty_directory(&self, name: &str) -> Result<NodeDir, DevError> {
        let directory = NodeDir::open(&self.dir, name).map_err(StartError::from)?;
        let identity = directory.identity();
        let Some(map) = &identity.map else { return Ok(directory) };
        let state = self.state();
        let left = state.departed.iter().any(|gone| gone.incarnation == identity.incarnation);
        if map.cluster_id != state.map.cluster_id || !left {
            let path = directory.path().to_owned();
            let reason = format!("it is that of a node {name} of some cluster");
            return Err(StartError::from(DirectoryError::NotOurs { path, reason }).into());
        }
        ground::put_aside(&self.dir, directory).map_err(StartError::from)?;
        Ok(NodeDir::open(&self.dir, name).map_err(StartError::from)?)
    }

    /// Refuses what could never be mended: of each group that the node votes in, the others that run and are whole must be a
    /// majority.
    async fn check_not_needed(&self, state: &MetaState, row: &NodeRow) -> Result<(), DevError> {
        let answers = self.ask_all().await;
        let live = |group: ShardId, node: NodeId| {
            let at = state.map.nodes.iter().position(|row| row.id == node);
            let Some(Ok(report)) = at.and_then(|at| answers.get(at)) else { return false };
            // Nobody says more of the meta group than whether its nodes run.
            group == state.map.meta_group()
                || report.shards.iter().any(|shard| shard.shard == group.0 && shard.mute.is_none())
        };
        for group in (0..state.configs.len()).map(|at| ShardId(at as u16)) {
            let voters: Vec<NodeId> = state.voters(group).collect();
            if !voters.contains(&row.id) {
                continue;
            }
            let needed = voters.len() / 2 + 1;
            let live = voters.iter().filter(|node| **node != row.id && live(group, **node)).count();
            if live < needed {
                let group = match group == state.map.meta_group() {
                    true => "the meta group".to_owned(),
                    false => group.to_string(),
                };
                return Err(DevError::Needed { name: row.name.clone(), group, live, needed });
            }
        }
        Ok(())
    }
}

/// What a node holds, in words.
fn held(replicas: usize, meta: bool) -> String {
    let shards = match replicas {
        1 => "1 replica".to_owned(),
        some => format!("{some} replicas"),
    };
    match (replicas, meta) {
        (0, _) => "a replica of the meta group".to_owned(),
        (_, true) => format!("{shards} and one of the meta group"),
        (_, false) => shards,
    }
}

fn new_row(name: &str, zone: String, weight: u16) -> NodeRow {
    NodeRow {
        id: NodeId(0),
        name: name.to_owned(),
        zone,
        weight,
        incarnation: tholos_cluster::Incarnation(0),
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    }
}

/// The name after all that there are, or ever were.
fn next_name(state: &MetaState) -> String {
    let names =
        state.map.nodes.iter().map(|row| &row.name).chain(state.departed.iter().map(|gone| &gone.name));
    let last = names.filter_map(|name| ground::number_of(name)).max().unwrap_or(0);
    format!("n{}", last.saturating_add(1))
}
