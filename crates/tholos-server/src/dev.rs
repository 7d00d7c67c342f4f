//! A whole cluster in one process, for development: each node with its own log, its own ports and its own peers over
//! loopback; one gateway and one admin interface for all. Any node can be killed and restarted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tholos_cluster::{ClusterId, ClusterMap, NodeId, NodeRow};
use tholos_node::Port;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::client_task;
use crate::node_dir::{self, DirectoryError, NodeDir};
use crate::ports::{self, PortError};
use crate::server::{NodeHandle, NodeSettings, PeerPort, RunningNode, StartError, Tuning, start_node};
use crate::status::{Answers, NodeReport, Verdict, cluster_status};

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

/// A directory that is removed with this.
struct TempDir(PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the temporary directory stays");
        }
    }
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
        if !(1..=NODES_MAX).contains(&settings.nodes) {
            return Err(StartError::Settings(format!(
                "--nodes is {}; it takes 1 to {NODES_MAX}",
                settings.nodes
            )));
        }
        let (dir, temp) = place(&settings)?;
        let listeners = Listeners::open(&settings)?;
        let directories = open_directories(&dir, &settings, temp.is_some())?;
        let (map, directories) = found_or_read(directories, &settings, &listeners)?;
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
        {
            let mut nodes = self.shared.nodes.lock().await;
            for (at, directory) in directories.into_iter().enumerate() {
                match self.shared.start_node(at, directory).await {
                    Ok(node) => nodes[at] = Some(node),
                    Err(error) => {
                        for node in nodes.iter_mut().filter_map(Option::take) {
                            node.stop(false).await;
                        }
                        return Err(error);
                    }
                }
            }
        }
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(client_task::accept(listeners.gateway, move |stream, remote| {
            shared.serve(stream, remote)
        }));
        let admin = Admin::dev(Arc::clone(&self.shared));
        self.tasks.spawn(admin::serve(listeners.http, admin));
        Ok(self)
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
    /// The map, with the addresses in force.
    pub(crate) fn map(&self) -> &ClusterMap {
        &self.map
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
        let node = start_node(settings).await.map_err(dev_options)?;
        self.reachable()[at] = Reachable::Up(node.handle());
        let (shared, mut ended) = (Arc::clone(self), node.ended());
        let name = row.name.clone();
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
        for node in reachable {
            answers.push(match node {
                Reachable::Down(why) => Err(why),
                Reachable::Up(handle) => {
                    let name = handle.name().to_owned();
                    let report = handle.inspect(move |node| NodeReport::of(node, &name)).await;
                    report.ok_or_else(|| "it has just stopped".to_owned())
                }
            });
        }
        answers
    }

    pub(crate) async fn status(&self) -> crate::status::ClusterStatus {
        cluster_status(&self.map, &self.ask_all().await)
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

/// The listeners of the process itself, and the nodes' addresses.
struct Listeners {
    gateway: TcpListener,
    gateway_address: SocketAddr,
    http: TcpListener,
    http_address: SocketAddr,
    cluster: Vec<SocketAddr>,
    peer: Vec<SocketAddr>,
}

impl Listeners {
    fn open(settings: &DevSettings) -> Result<Listeners, StartError> {
        let (gateway, gateway_address) = listen("gateway", settings.port, "--port")?;
        let (http, http_address) = listen("admin interface", settings.http_port, "--http-port")?;
        let count = settings.nodes;
        let cluster = node_addresses("cluster port", settings.cluster_port, count, "--cluster-port")?;
        let peer = node_addresses("peer port", settings.peer_port, count, "--peer-port")?;
        Ok(Listeners { gateway, gateway_address, http, http_address, cluster, peer })
    }
}

fn listen(what: &str, port: u16, option: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let wanted = ports::loopback(port);
    let listener = ports::listen(what, wanted, option)?;
    let error = |source| PortError::new(what, wanted, source, option);
    let address = listener.local_addr().map_err(error)?;
    Ok((TcpListener::from_std(listener).map_err(error)?, address))
}

/// The addresses of one listener of all nodes. They are opened here for a moment, so that a taken one is told before
/// anything has started.
fn node_addresses(
    what: &str,
    first: u16,
    count: u16,
    option: &'static str,
) -> Result<Vec<SocketAddr>, StartError> {
    if first == 0 {
        let free = ports::pick_free(usize::from(count));
        let free = free.map_err(|source| PortError::new(what, ports::loopback(0), source, option))?;
        return Ok(free.into_iter().map(ports::loopback).collect());
    }
    if first.checked_add(count - 1).is_none() {
        return Err(StartError::Settings(format!(
            "{option} is {first}, and {count} nodes need as many ports from there on: use a lower one"
        )));
    }
    let addresses: Vec<SocketAddr> = (first..=first + (count - 1)).map(ports::loopback).collect();
    for (address, number) in addresses.iter().zip(1..) {
        ports::listen(format!("{what} of n{number}"), *address, option)?;
    }
    Ok(addresses)
}

/// Names the options of `dev` instead of those of `serve`.
fn dev_options(error: StartError) -> StartError {
    match error {
        StartError::Port(mut port) => {
            port.option = match port.option {
                "--cluster" => "--cluster-port",
                "--peer" => "--peer-port",
                other => other,
            };
            StartError::Port(port)
        }
        other => other,
    }
}

/// Where the directories are; and what is to be removed at the end.
fn place(settings: &DevSettings) -> Result<(PathBuf, Option<TempDir>), StartError> {
    if !settings.temp {
        return Ok((settings.dir.clone(), None));
    }
    let random = getrandom::u64().map_err(DirectoryError::Random)?;
    let path = std::env::temp_dir().join(format!("tholos-dev-{random:016x}"));
    std::fs::create_dir(&path).map_err(|source| DirectoryError::Io {
        operation: "create",
        path: path.clone(),
        source,
    })?;
    Ok((path.clone(), Some(TempDir(path))))
}

/// Names of the nodes whose directories are in `dir`.
fn nodes_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
    let ours = entries.flatten().filter(|entry| node_dir::has_marker(&entry.path()));
    ours.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn open_directories(dir: &Path, settings: &DevSettings, temp: bool) -> Result<Vec<NodeDir>, StartError> {
    let names: Vec<String> = (1..=settings.nodes).map(|number| format!("n{number}")).collect();
    if settings.fresh && !temp {
        for name in nodes_in(dir) {
            node_dir::remove(&dir.join(name))?;
        }
    }
    let found = nodes_in(dir);
    // A node too many is one that an earlier cluster had; one too few may be a first start that was cut off.
    if let Some(other) = found.iter().find(|name| !names.contains(name)) {
        return Err(other_cluster(dir, &found, settings, &format!("it has {other}")));
    }
    names.iter().map(|name| Ok(NodeDir::open(dir, name)?)).collect()
}

fn other_cluster(dir: &Path, found: &BTreeSet<String>, settings: &DevSettings, why: &str) -> StartError {
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    StartError::Settings(format!(
        "{} holds another cluster than --nodes {} ({why}; in all: {}): start it with --nodes {}, wipe it with --fresh, \
         or choose another directory with --dir",
        dir.display(),
        settings.nodes,
        names.join(" "),
        names.len()
    ))
}

/// The map that the directories hold, or a new one, with the addresses of this start.
fn found_or_read(
    mut directories: Vec<NodeDir>,
    settings: &DevSettings,
    listeners: &Listeners,
) -> Result<(ClusterMap, Vec<NodeDir>), StartError> {
    let known = directories.iter().find_map(|directory| directory.identity().map.clone());
    let mut map = match known {
        Some(map) => map,
        None => new_map(&directories, settings)?,
    };
    let path = directories[0].path().parent().unwrap_or(Path::new(".")).to_owned();
    if map.nodes.len() != directories.len() {
        let names = map.nodes.iter().map(|row| row.name.clone()).collect();
        return Err(other_cluster(
            &path,
            &names,
            settings,
            "its cluster was founded with more or fewer nodes",
        ));
    }
    let addresses = listeners.cluster.iter().zip(&listeners.peer);
    for (row, (cluster, peer)) in map.nodes.iter_mut().zip(addresses) {
        row.gateway = listeners.gateway_address.to_string();
        row.http = listeners.http_address.to_string();
        row.cluster = cluster.to_string();
        row.peer = peer.to_string();
    }
    for directory in &mut directories {
        let identity = directory.identity();
        let same = |other: &ClusterMap| other.cluster_id == map.cluster_id;
        let known_to_map =
            map.by_name(&identity.name).is_some_and(|row| row.incarnation == identity.incarnation);
        if !known_to_map || !identity.map.as_ref().is_none_or(same) {
            return Err(StartError::Settings(format!(
                "{} and the other nodes' directories beside it are not of one cluster: put the right one back, wipe all with \
                 --fresh, or choose another directory with --dir",
                directory.path().display()
            )));
        }
        if identity.map.as_ref() != Some(&map) {
            directory.write_map(map.clone())?;
        }
    }
    Ok((map, directories))
}

fn new_map(directories: &[NodeDir], settings: &DevSettings) -> Result<ClusterMap, StartError> {
    let mut cluster_id = [0; 20];
    getrandom::fill(&mut cluster_id).map_err(DirectoryError::Random)?;
    let row = |(directory, zone): (&NodeDir, char)| NodeRow {
        id: NodeId(0),
        name: directory.identity().name.clone(),
        zone: zone.to_string(),
        weight: 1,
        incarnation: directory.identity().incarnation,
        gateway: String::new(),
        cluster: String::new(),
        peer: String::new(),
        http: String::new(),
    };
    let rows: Vec<NodeRow> = directories.iter().zip('a'..='z').map(row).collect();
    let replicas = settings.replicas.min(u8::try_from(rows.len()).unwrap_or(u8::MAX));
    // An even number of replicas survives no more losses than one less (R8).
    let replicas = if replicas.is_multiple_of(2) { replicas - 1 } else { replicas };
    ClusterMap::genesis(ClusterId(cluster_id), rows, settings.shards, replicas)
        .map_err(|error| StartError::Settings(error.to_string()))
}
