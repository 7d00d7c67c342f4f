//! A whole cluster in one process, for development: each node with its own log, its own ports and its own peers over
//! loopback; one gateway and one admin interface for all. Any node can be killed and restarted.

mod ground;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tholos_cluster::{ClusterMap, MetaState, NodeRow};
use tholos_node::Port;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::client_task;
use crate::node_dir::NodeDir;
use crate::server::{self, NodeHandle, NodeSettings, PeerPort, RunningNode, StartError, Tuning, start_node};
use crate::status::{Answers, Verdict, cluster_status};
use ground::{Listeners, TempDir};

/// Nodes of a development cluster, at most.
pub const NODES_MAX: u16 = 16;
/// How often it is looked whether every shard has a leader.
const READY_LOOK: Duration = Duration::from_millis(5);

/// What `tholos dev` is told.
#[derive(Clone, Debug)]
pub struct DevSettings {
    /// How many nodes, 1 to [`NODES_MAX`].
    pub nodes: u16,
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
            nodes: 3,
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
        Addresses { gateway, http, nodes: map.nodes.iter().map(node).collect() }
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

/// A ready file of an earlier start would send whoever waits for it to addresses that are not served yet.
pub(crate) fn remove_ready_file(file: &Path) {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %file.display(), %error, "the ready file of an earlier start stays");
        }
        _ => {}
    }
}

/// Why a node of the cluster could not be killed or restarted.
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
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
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

/// What the gateway, the admin interface and the owner share.
pub(crate) struct Shared {
    map: ClusterMap,
    dir: PathBuf,
    gateway: SocketAddr,
    http: SocketAddr,
    tuning: Tuning,
    /// In the map's order. Held while a node is killed or started, so these never overlap.
    nodes: tokio::sync::Mutex<Vec<Option<RunningNode>>>,
    /// The same, for those who only want to reach them.
    reachable: Mutex<Vec<Reachable>>,
}

#[derive(Clone)]
enum Reachable {
    Up(NodeHandle),
    Down(String),
}

impl DevCluster {
    /// Opens or makes the nodes' directories, founds the cluster if it is new, and starts every node.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub async fn start(settings: DevSettings) -> Result<DevCluster, StartError> {
        let started = Instant::now();
        client_task::raise_open_files();
        if let Some(file) = &settings.ready_file {
            remove_ready_file(file);
        }
        if !(1..=NODES_MAX).contains(&settings.nodes) {
            return Err(StartError::Settings(format!(
                "--nodes is {}; it takes 1 to {NODES_MAX}",
                settings.nodes
            )));
        }
        let (dir, temp) = ground::place(&settings)?;
        let listeners = Listeners::open(&settings)?;
        let directories = ground::open_directories(&dir, &settings, temp.is_some())?;
        let (map, directories) = ground::found_or_read(directories, &settings, &listeners)?;
        let shared = Arc::new(Shared {
            dir,
            gateway: listeners.gateway_address,
            http: listeners.http_address,
            tuning: settings.tuning.clone(),
            nodes: tokio::sync::Mutex::new(map.nodes.iter().map(|_| None).collect()),
            reachable: Mutex::new(
                map.nodes.iter().map(|_| Reachable::Down("it is starting".into())).collect(),
            ),
            map,
        });
        let cluster =
            DevCluster { shared, tasks: JoinSet::new(), started, ready_file: settings.ready_file, temp };
        cluster.run(listeners, directories).await
    }

    async fn run(
        mut self,
        listeners: Listeners,
        directories: Vec<NodeDir>,
    ) -> Result<DevCluster, StartError> {
        self.start_all(directories).await?;
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(client_task::accept(listeners.gateway, move |stream, remote| {
            shared.serve(stream, remote)
        }));
        let admin = Admin::dev(Arc::clone(&self.shared));
        self.tasks.spawn(admin::serve(listeners.http, admin));
        Ok(self)
    }

    /// Starts all nodes at the same time, for each has its own past to read.
    async fn start_all(&self, directories: Vec<NodeDir>) -> Result<(), StartError> {
        let mut nodes = self.shared.nodes.lock().await;
        let mut starting = JoinSet::new();
        for (at, directory) in directories.into_iter().enumerate() {
            let shared = Arc::clone(&self.shared);
            starting.spawn(async move { (at, shared.start_node(at, directory).await) });
        }
        let mut failed = None;
        for (at, node) in starting.join_all().await {
            match node {
                Ok(node) => nodes[at] = Some(node),
                Err(error) => failed = Some(error),
            }
        }
        let Some(error) = failed else { return Ok(()) };
        for node in nodes.iter_mut().filter_map(Option::take) {
            node.stop(false).await;
        }
        Err(error)
    }

    /// Where everything is reached.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses::of(&self.shared.map, self.shared.gateway.to_string(), self.shared.http.to_string())
    }

    /// The cluster's map.
    #[must_use]
    pub fn map(&self) -> &ClusterMap {
        &self.shared.map
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

    /// Stops every node in order, and removes the directory if it was a temporary one.
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        let mut stopping = JoinSet::new();
        for node in self.shared.nodes.lock().await.iter_mut().filter_map(Option::take) {
            // Nobody is left to take the leaderships over.
            stopping.spawn(node.stop(false));
        }
        while stopping.join_next().await.is_some() {}
        while self.tasks.join_next().await.is_some() {}
        // Only now that nobody writes to it.
        drop(self.temp.take());
    }
}

impl Shared {
    /// The newest map that a node has which runs.
    pub(crate) fn map(&self) -> ClusterMap {
        let newest = self.handles().iter().map(NodeHandle::map).max_by_key(|state| state.epoch());
        newest.map_or_else(|| self.map.clone(), |state| state.map.clone())
    }

    /// The same with all that is decided with it.
    pub(crate) fn state(&self) -> Arc<MetaState> {
        let newest = self.handles().iter().map(NodeHandle::map).max_by_key(|state| state.epoch());
        newest.unwrap_or_else(|| Arc::new(MetaState::founded(self.map.clone())))
    }

    /// Starts the node at a place of the map.
    async fn start_node(
        self: &Arc<Shared>,
        at: usize,
        directory: NodeDir,
    ) -> Result<RunningNode, StartError> {
        let row = &self.map.nodes[at];
        let address = |text: &str| text.parse::<SocketAddr>().expect("this process wrote its own addresses");
        let settings = NodeSettings {
            directory,
            map: self.map.clone(),
            gateway: None,
            cluster: address(&row.cluster),
            peer: PeerPort::Listen(address(&row.peer)),
            secret: None,
            tuning: self.tuning.clone(),
        };
        let node = start_node(settings).await.map_err(ground::dev_options)?;
        self.reachable()[at] = Reachable::Up(node.handle());
        let (shared, mut ended) = (Arc::clone(self), node.ended());
        let name = row.name.clone();
        let restart = node.restart();
        let (waiting, of_name) = (Arc::clone(self), row.name.clone());
        tokio::spawn(async move {
            if server::restart_wanted(restart).await {
                waiting.restart_in_order(at, of_name).await;
            }
        });
        tokio::spawn(async move {
            // An error means that the node was dropped, which whoever did it knows.
            if let Ok(why) = ended.wait_for(Option::is_some).await.map(|why| why.clone()) {
                shared.note_end(at, &name, why.as_deref().unwrap_or_default()).await;
            }
        });
        Ok(node)
    }

    /// A node ended by itself, or was killed: only that node, never the process (R23).
    async fn note_end(&self, at: usize, name: &str, why: &str) {
        let mut nodes = self.nodes.lock().await;
        // Killed or restarted meanwhile: then this is old news.
        let ended_by_itself = nodes[at].as_ref().is_some_and(|node| node.ended().borrow().is_some());
        if ended_by_itself && let Some(node) = nodes[at].take() {
            tracing::error!(node = name, why, "the node has stopped; the others go on");
            self.reachable()[at] = Reachable::Down(why.to_owned());
            node.kill().await;
        }
    }

    /// Does in this process what a process of its own does that is to restart. A future with a name for its type, since the
    /// node that it starts will wait for the next of these.
    fn restart_in_order(
        self: Arc<Shared>,
        at: usize,
        name: String,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut nodes = self.nodes.lock().await;
            // Killed meanwhile, or started again: then the order was for another boot.
            let wanted = nodes[at].as_ref().is_some_and(|node| *node.restart().borrow());
            let Some(node) = nodes[at].take_if(|_| wanted) else { return };
            // First, so that the gateway's next client goes to another.
            self.reachable()[at] = Reachable::Down("it restarts".to_owned());
            node.stop(true).await;
            let started = match NodeDir::open(&self.dir, &name).map_err(StartError::from) {
                Ok(directory) => self.start_node(at, directory).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(node) => nodes[at] = Some(node),
                Err(error) => {
                    tracing::error!(node = name, %error, "the node does not start again; the others go on");
                    self.reachable()[at] = Reachable::Down(error.to_string());
                }
            }
        })
    }

    fn place_of(&self, name: &str) -> Result<usize, DevError> {
        self.map.nodes.iter().position(|row| row.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.map.nodes.iter().map(|row| row.name.as_str()).collect();
            DevError::NoSuchNode { name: name.to_owned(), names: names.join(", ") }
        })
    }

    pub(crate) async fn kill(&self, name: &str) -> Result<(), DevError> {
        let at = self.place_of(name)?;
        let mut nodes = self.nodes.lock().await;
        let node = nodes[at].take().ok_or_else(|| DevError::NotRunning(name.to_owned()))?;
        // First, so that the gateway's next client goes to another.
        self.reachable()[at] = Reachable::Down("it was killed".to_owned());
        node.kill().await;
        tracing::info!(node = name, "killed");
        Ok(())
    }

    pub(crate) async fn restart(self: &Arc<Shared>, name: &str) -> Result<(), DevError> {
        let at = self.place_of(name)?;
        let mut nodes = self.nodes.lock().await;
        if nodes[at].is_some() {
            return Err(DevError::Running(name.to_owned()));
        }
        let directory = NodeDir::open(&self.dir, name).map_err(StartError::from)?;
        nodes[at] = Some(self.start_node(at, directory).await?);
        tracing::info!(node = name, "restarted");
        Ok(())
    }

    /// A way to each node that runs.
    pub(crate) fn handles(&self) -> Vec<NodeHandle> {
        let handle = |reachable: &Reachable| match reachable {
            Reachable::Up(handle) => Some(handle.clone()),
            Reachable::Down(_) => None,
        };
        self.reachable().iter().filter_map(handle).collect()
    }

    /// What each node says of itself.
    pub(crate) async fn ask_all(&self) -> Answers {
        let reachable = self.reachable().clone();
        let mut answers = Vec::with_capacity(reachable.len());
        for row in self.map().nodes {
            let place = self.place_of(&row.name).ok().and_then(|at| reachable.get(at).cloned());
            answers.push(
                match place.unwrap_or_else(|| Reachable::Down("it is not in this process".into())) {
                    Reachable::Down(why) => Err(why),
                    Reachable::Up(handle) => {
                        let report = handle.report().await;
                        report.ok_or_else(|| "it has just stopped".to_owned())
                    }
                },
            );
        }
        answers
    }

    pub(crate) async fn status(&self) -> crate::status::ClusterStatus {
        cluster_status(&self.state(), &self.ask_all().await)
    }

    /// Gives a client of the gateway to the first node that runs.
    fn serve(&self, stream: TcpStream, remote: SocketAddr) {
        let first = self.reachable().iter().find_map(|node| match node {
            Reachable::Up(handle) => Some(handle.clone()),
            Reachable::Down(_) => None,
        });
        match first {
            Some(node) => node.serve_client(stream, remote, Port::Gateway),
            None => {
                // A new connection's buffer has room for one line.
                let _ = stream.try_write(
                    b"-CLUSTERDOWN every node is stopped: restart one with tholos dev restart n1\r\n",
                );
            }
        }
    }

    fn reachable(&self) -> MutexGuard<'_, Vec<Reachable>> {
        // No code under this lock can leave the list half changed.
        self.reachable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
