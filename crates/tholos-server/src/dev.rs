//! A whole cluster in one process, for development: each node with its own log, its own ports and its own peers over
//! loopback; one gateway and one admin interface for all. Any node can be killed, restarted and wiped; nodes are added and
//! removed while it runs.

mod change;
mod ground;
mod nodes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tholos_cluster::{ClusterMap, NodeRow};
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::client_task;
use crate::open_files::{self, Nodes};
use crate::server::{StartError, Tuning};
use crate::status::Verdict;
pub use change::{Added, DevError, Left, NewNode, Wiped};
use ground::{FirstPorts, Ground, Listeners, TempDir};
pub(crate) use nodes::Shared;

/// Nodes of a development cluster, at most.
pub const NODES_MAX: u16 = 16;
/// How often it is looked whether every shard has a leader.
const READY_LOOK: Duration = Duration::from_millis(5);

/// What `tholos dev` is told.
#[derive(Clone, Debug)]
pub struct DevSettings {
    /// How many nodes, 1 to [`NODES_MAX`]; `None` for those that are there, or three.
    pub nodes: Option<u16>,
    /// The gateway's port; 0 for any free one.
    pub port: u16,
    /// The cluster port of n1, the others' follow it; 0 for any free ones.
    pub cluster_port: u16,
    /// The peer port of n1, the others' follow it; 0 for any free ones.
    pub peer_port: u16,
    /// The admin interface's port; 0 for any free one.
    pub http_port: u16,
    /// Where the nodes' directories are.
    pub dir: PathBuf,
    /// Remove what an earlier cluster left there.
    pub fresh: bool,
    /// Keep everything in a directory that is removed at the end, instead of `dir`.
    pub temp: bool,
    /// A file to write all addresses to once every shard has decided a write.
    pub ready_file: Option<PathBuf>,
    /// Shards of a new cluster.
    pub shards: u16,
    /// Replicas of a new cluster; as many as there are nodes if these are fewer.
    pub replicas: u8,
    /// What can be tuned about each node.
    pub tuning: Tuning,
}

impl Default for DevSettings {
    fn default() -> DevSettings {
        DevSettings {
            nodes: None,
            port: 6379,
            cluster_port: 7001,
            peer_port: 7101,
            http_port: 8080,
            dir: PathBuf::from("./tholos-data"),
            fresh: false,
            temp: false,
            ready_file: None,
            shards: 64,
            replicas: 3,
            tuning: Tuning::default(),
        }
    }
}

/// Where everything of a cluster is reached: what the ready file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The gateway.
    pub gateway: String,
    /// The admin interface.
    pub http: String,
    /// Each node.
    pub nodes: Vec<NodeAddresses>,
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeAddresses {
    /// Its name.
    pub name: String,
    /// Its gateway.
    pub gateway: String,
    /// Its cluster port.
    pub cluster: String,
    /// Its peer port.
    pub peer: String,
    /// Its admin interface.
    pub http: String,
}

impl Addresses {
    pub(crate) fn of(map: &ClusterMap, gateway: String, http: String) -> Addresses {
        let node = |row: &NodeRow| NodeAddresses {
            name: row.name.clone(),
            gateway: row.gateway.clone(),
            cluster: row.cluster.clone(),
            peer: row.peer.clone(),
            http: row.http.clone(),
        };
        // Of who is lost nobody knows where it is.
        let reached = map.nodes.iter().filter(|row| !row.cluster.is_empty());
        Addresses { gateway, http, nodes: reached.map(node).collect() }
    }

    /// Writes the ready file: beside, then renamed into place, so that whoever sees it sees all of it. That it cannot be
    /// written is told and stops nothing: the cluster serves.
    pub(crate) fn write(&self, file: &Path) {
        let mut text = serde_json::to_string_pretty(self).expect("plain fields can be written as JSON");
        text.push('\n');
        let mut beside = file.as_os_str().to_owned();
        beside.push(".tmp");
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, file));
        if let Err(error) = written {
            tracing::error!(path = %file.display(), %error, "the ready file cannot be written");
        }
    }
}

/// Sees that there is a directory for the ready file, which whoever waits for it would wait for in vain, and removes that of
/// an earlier start, which would send him to addresses that are not served yet.
pub(crate) fn prepare_ready_file(file: &Path) -> Result<(), StartError> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(StartError::Settings(format!(
            "--ready-file is {}, and there is no directory {}: make it, or name a file elsewhere",
            file.display(),
            parent.display()
        )));
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %file.display(), %error, "the ready file of an earlier start stays");
        }
        _ => {}
    }
    Ok(())
}

/// A cluster that runs in this process.
pub struct DevCluster {
    shared: Arc<Shared>,
    /// The gateway's accept loop and the admin interface.
    tasks: JoinSet<()>,
    started: Instant,
    ready_file: Option<PathBuf>,
    /// Removed at the end.
    temp: Option<TempDir>,
}

impl DevCluster {
    /// Opens or makes the nodes' directories, founds the cluster if it is new, and starts every node.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(settings: DevSettings) -> Result<DevCluster, StartError> {
        let started = Instant::now();
        if let Some(count) = settings.nodes.filter(|count| !(1..=NODES_MAX).contains(count)) {
            return Err(StartError::Settings(format!("--nodes is {count}; it takes 1 to {NODES_MAX}")));
        }
        let (dir, temp) = ground::place(&settings)?;
        let listeners = Listeners::open(&settings)?;
        let Ground { state, directories, unfinished } = Ground::open(&dir, &settings)?;
        // Not before: it may be among the nodes' directories.
        if let Some(file) = &settings.ready_file {
            prepare_ready_file(file)?;
        }
        let first = FirstPorts { cluster: settings.cluster_port, peer: settings.peer_port };
        let mut tuning = settings.tuning;
        let nodes = Nodes::all(state.map.nodes.len() + unfinished.len());
        let clients = &mut tuning.clients;
        clients.process = open_files::set_aside(nodes, &mut clients.clients_max)?;
        let shared = Shared::new(dir, &listeners, first, tuning, state)?;
        let shared = Arc::new(shared);
        shared.start_all(directories).await?;
        shared.finish_joining(unfinished);
        let mut tasks = JoinSet::new();
        let gateway = Arc::clone(&shared);
        tasks.spawn(client_task::accept(listeners.gateway, move |stream, remote| {
            gateway.serve(stream, remote)
        }));
        tasks.spawn(admin::serve(listeners.http, Admin::dev(Arc::clone(&shared))));
        Ok(DevCluster { shared, tasks, started, ready_file: settings.ready_file, temp })
    }

    /// Where everything is reached.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses::of(&self.map(), self.shared.gateway.to_string(), self.shared.http.to_string())
    }

    /// The cluster's map.
    #[must_use]
    pub fn map(&self) -> ClusterMap {
        self.shared.map()
    }

    /// The directory of all nodes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Waits until every shard has a leader that has decided an entry of its own, then writes the ready file if one was
    /// asked for; how long that took from the start on. Waits for ever if too few nodes run.
    pub async fn ready(&self) -> Duration {
        while self.shared.status().await.verdict == Verdict::Unavailable {
            tokio::time::sleep(READY_LOOK).await;
        }
        let took = self.started.elapsed();
        if let Some(file) = &self.ready_file {
            self.addresses().write(file);
        }
        took
    }

    /// The cluster's state.
    pub async fn status(&self) -> crate::status::ClusterStatus {
        self.shared.status().await
    }

    /// Ends a node as `kill -9` would, as far as one process can.
    ///
    /// # Errors
    /// If there is no such node or it does not run.
    pub async fn kill(&self, name: &str) -> Result<(), DevError> {
        self.shared.kill(name).await
    }

    /// Starts a node that was killed or had stopped.
    ///
    /// # Errors
    /// If there is no such node, it runs, or it cannot start.
    pub async fn restart(&self, name: &str) -> Result<(), DevError> {
        self.shared.restart(name).await
    }

    /// Starts a new node, which joins the cluster as a spare: nothing moves to it before a plan says so.
    ///
    /// # Errors
    /// If there is such a node, or the cluster does not let it in.
    pub async fn add(&self, node: NewNode) -> Result<Added, DevError> {
        self.shared.add(node).await
    }

    /// Has a node that holds nothing leave the cluster for ever, and puts its directory aside.
    ///
    /// # Errors
    /// If there is no such node, or it holds replicas.
    pub async fn remove(&self, name: &str) -> Result<Left, DevError> {
        self.shared.remove(name).await
    }

    /// Deletes the directory of a node, and starts it under its old name, as a new one: a spare that remembers nothing and
    /// votes nowhere (R21).
    ///
    /// # Errors
    /// If there is no such node, a shard would lose its majority, or the cluster does not let it in again.
    pub async fn wipe(&self, name: &str) -> Result<Wiped, DevError> {
        self.shared.wipe(name).await
    }

    /// Stops every node in order, and removes the directory if it was a temporary one.
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        self.shared.stop_all().await;
        while self.tasks.join_next().await.is_some() {}
        // Only now that nobody writes to it.
        drop(self.temp.take());
    }
}
