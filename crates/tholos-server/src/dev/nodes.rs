//! The nodes of a development cluster: started, stopped, reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tholos_cluster::{ClusterMap, MetaState, NodeId, NodeRow, Standing};
use tholos_node::Port;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::DevError;
use super::ground::{self, FirstPorts, Listeners, NodePorts};
use crate::node_dir::{self, NodeDir};
use crate::server::{self, NodeHandle, NodeSettings, PeerPort, RunningNode, StartError, Tuning, start_node};
use crate::status::{Answers, ClusterStatus, NO_ADDRESS, cluster_status};

/// What the gateway, the admin interface and the owner share.
pub(crate) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) gateway: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) first: FirstPorts,
    pub(super) tuning: Tuning,
    /// Those that run, by name. Held while one comes or goes, so these never overlap.
    pub(super) running: tokio::sync::Mutex<BTreeMap<String, RunningNode>>,
    /// Every node of this process, by name; for those who only want to reach them.
    places: Mutex<BTreeMap<String, Place>>,
    /// The newest map that was seen here: it outlives the nodes.
    newest: Mutex<Arc<MetaState>>,
}

/// Where a node is, and whether it runs.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) ports: NodePorts,
    pub(super) reach: Reach,
}

#[derive(Clone)]
pub(super) enum Reach {
    Up(NodeHandle),
    Down(String),
}

impl Shared {
    /// Where the nodes' directories are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// With a place for every node of the map that can be reached.
    pub(super) fn new(
        dir: PathBuf,
        listeners: &Listeners,
        first: FirstPorts,
        tuning: Tuning,
        state: MetaState,
    ) -> Result<Shared, StartError> {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        let is_lost = |row: &&NodeRow| state.standing(row.id) == Some(Standing::Lost);
        let rows = || state.map.nodes.iter().filter(|row| !is_lost(row));
        first.check(rows().map(|row| row.name.as_str()))?;
        for row in rows() {
            let taken: Vec<NodePorts> = places.values().map(|place| place.ports).collect();
            let place = Place {
                ports: first.of(&row.name, &taken)?,
                reach: Reach::Down("it is starting".to_owned()),
            };
            places.insert(row.name.clone(), place);
        }
        Ok(Shared {
            dir,
            gateway: listeners.gateway_address,
            http: listeners.http_address,
            first,
            tuning,
            running: tokio::sync::Mutex::new(BTreeMap::new()),
            places: Mutex::new(places),
            newest: Mutex::new(Arc::new(state)),
        })
    }

    /// Starts all nodes at the same time, for each has its own past to read.
    pub(super) async fn start_all(
        self: &Arc<Shared>,
        mut directories: BTreeMap<String, NodeDir>,
    ) -> Result<(), StartError> {
        let mut running = self.running.lock().await;
        let mut starting = JoinSet::new();
        let names: Vec<String> = self.places().keys().cloned().collect();
        for name in names {
            let Some(directory) = directories.remove(&name) else {
                self.set_down(&name, "its directory is missing".to_owned());
                continue;
            };
            let shared = Arc::clone(self);
            starting.spawn(async move { (name, shared.start_node(directory).await) });
        }
        let mut failed = None;
        for (name, node) in starting.join_all().await {
            match node {
                Ok(node) => _ = running.insert(name, node),
                Err(error) => failed = Some(error),
            }
        }
        let Some(error) = failed else { return Ok(()) };
        for (_, node) in std::mem::take(&mut *running) {
            node.stop(false).await;
        }
        Err(error)
    }

    /// Stops all nodes. Nobody is left to take the leaderships over.
    pub(super) async fn stop_all(&self) {
        let mut stopping = JoinSet::new();
        for (_, node) in std::mem::take(&mut *self.running.lock().await) {
            stopping.spawn(node.stop(false));
        }
        while stopping.join_next().await.is_some() {}
    }

    /// The newest map, and all that is decided with it.
    pub(crate) fn state(&self) -> Arc<MetaState> {
        let seen = self.handles().iter().map(NodeHandle::map).max_by_key(|state| state.epoch());
        // No code under this lock can leave anything half changed.
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.filter(|seen| seen.epoch() > newest.epoch()) {
            *newest = seen;
        }
        Arc::clone(&newest)
    }

    /// There is this one as well.
    pub(super) fn note_state(&self, state: &MetaState) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if state.epoch() > newest.epoch() {
            *newest = Arc::new(state.clone());
        }
    }

    /// The newest map, with the addresses that are in force here.
    pub(crate) fn map(&self) -> ClusterMap {
        let mut map = self.state().map.clone();
        let places = self.places();
        for row in &mut map.nodes {
            if let Some(place) = places.get(&row.name) {
                self.set_addresses(row, place.ports);
            }
        }
        map
    }

    /// A node of this process is reached here.
    pub(super) fn set_addresses(&self, row: &mut NodeRow, ports: NodePorts) {
        row.gateway = self.gateway.to_string();
        row.http = self.http.to_string();
        row.cluster = ports.cluster.to_string();
        row.peer = ports.peer.to_string();
    }

    /// Starts a node that has a place.
    pub(super) async fn start_node(
        self: &Arc<Shared>,
        directory: NodeDir,
    ) -> Result<RunningNode, StartError> {
        let name = directory.identity().name.clone();
        if let Some(state) = directory.state() {
            self.note_state(state);
        }
        let ports = self.places()[&name].ports;
        let settings = NodeSettings {
            directory,
            map: self.map(),
            gateway: None,
            cluster: ports.cluster,
            peer: PeerPort::Listen(ports.peer),
            secret: None,
            tuning: self.tuning.clone(),
        };
        let node = start_node(settings).await.map_err(ground::dev_options)?;
        self.set_reach(&name, Reach::Up(node.handle()));
        self.watch(&name, &node);
        Ok(node)
    }

    /// Sees to it when a node ends by itself, and when one has left the cluster.
    fn watch(self: &Arc<Shared>, name: &str, node: &RunningNode) {
        let (shared, mut ended, id) = (Arc::clone(self), node.ended(), node.handle().id());
        let name = name.to_owned();
        let of_name = name.clone();
        tokio::spawn(async move {
            // An error means that the node was dropped, which whoever did it knows.
            if let Ok(why) = ended.wait_for(Option::is_some).await.map(|why| why.clone()) {
                shared.note_end(&of_name, id, why.as_deref().unwrap_or_default()).await;
            }
        });
        let (shared, restart, of_name) = (Arc::clone(self), node.restart(), name.clone());
        tokio::spawn(async move {
            if server::restart_wanted(restart).await {
                shared.restart_in_order(of_name).await;
            }
        });
        let (shared, mut maps) = (Arc::clone(self), node.handle().maps());
        tokio::spawn(async move {
            // Ends with the node.
            while maps.changed().await.is_ok() {
                maps.borrow_and_update();
                shared.let_go().await;
            }
        });
    }

    /// A node ended by itself, or was killed: only that node, never the process (R23).
    async fn note_end(&self, name: &str, id: NodeId, why: &str) {
        let mut running = self.running.lock().await;
        // Killed, restarted or wiped meanwhile: then this is old news.
        let ended_by_itself =
            running.get(name).is_some_and(|node| node.handle().id() == id && node.ended().borrow().is_some());
        if ended_by_itself && let Some(node) = running.remove(name) {
            tracing::error!(node = name, why, "the node has stopped; the others go on");
            self.set_down(name, why.to_owned());
            node.kill().await;
        }
    }

    /// Does in this process what a process of its own does that is to restart. A future with a name for its type, since the
    /// node that it starts will wait for the next of these.
    fn restart_in_order(self: Arc<Shared>, name: String) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut running = self.running.lock().await;
            // Killed meanwhile, or started again: then the order was for another boot.
            if !running.get(&name).is_some_and(|node| *node.restart().borrow()) {
                return;
            }
            // First, so that the gateway's next client goes to another.
            self.set_down(&name, "it restarts".to_owned());
            if let Some(node) = running.remove(&name) {
                node.stop(true).await;
            }
            let started = match NodeDir::open(&self.dir, &name).map_err(StartError::from) {
                Ok(directory) => self.start_node(directory).await,
                Err(error) => Err(error),
            };
            match started {
                Ok(node) => _ = running.insert(name, node),
                Err(error) => {
                    tracing::error!(node = name, %error, "the node does not start again; the others go on");
                    self.set_down(&name, error.to_string());
                }
            }
        })
    }

    /// Stops the nodes that the cluster does not know any more, and puts their directories aside.
    pub(super) async fn let_go(&self) {
        let gone = |shared: &Shared| -> Vec<String> {
            let state = shared.state();
            let places = shared.places();
            places.keys().filter(|name| state.map.by_name(name).is_none()).cloned().collect()
        };
        if gone(self).is_empty() {
            return;
        }
        let mut running = self.running.lock().await;
        for name in gone(self) {
            self.places().remove(&name);
            if let Some(node) = running.remove(&name) {
                node.stop(false).await;
            }
            let directory = match node_dir::has_marker(&self.dir.join(&name)) {
                true => NodeDir::open(&self.dir, &name),
                false => continue,
            };
            match directory.and_then(|directory| ground::put_aside(&self.dir, directory)) {
                Ok(aside) => {
                    tracing::info!(node = %name, "has left; its directory is in {}", aside.display())
                }
                Err(error) => tracing::warn!(node = %name, %error, "has left; its directory stays"),
            }
        }
    }

    /// Whether there is such a node; its place.
    pub(super) fn place_of(&self, name: &str) -> Result<Place, DevError> {
        let places = self.places();
        let place = places.get(name).cloned();
        drop(places);
        place.ok_or_else(|| self.no_such(name))
    }

    pub(super) fn no_such(&self, name: &str) -> DevError {
        let names: Vec<String> = self.places().keys().cloned().collect();
        DevError::NoSuchNode { name: name.to_owned(), names: names.join(", ") }
    }

    pub(crate) async fn kill(&self, name: &str) -> Result<(), DevError> {
        self.place_of(name)?;
        let mut running = self.running.lock().await;
        let node = running.remove(name).ok_or_else(|| DevError::NotRunning(name.to_owned()))?;
        // First, so that the gateway's next client goes to another.
        self.set_down(name, "it was killed".to_owned());
        node.kill().await;
        tracing::info!(node = name, "killed");
        Ok(())
    }

    pub(crate) async fn restart(self: &Arc<Shared>, name: &str) -> Result<(), DevError> {
        self.place_of(name)?;
        let mut running = self.running.lock().await;
        if running.contains_key(name) {
            return Err(DevError::Running(name.to_owned()));
        }
        if !node_dir::has_marker(&self.dir.join(name)) {
            return Err(DevError::NoDirectory(name.to_owned()));
        }
        let directory = NodeDir::open(&self.dir, name).map_err(StartError::from)?;
        running.insert(name.to_owned(), self.start_node(directory).await?);
        tracing::info!(node = name, "restarted");
        Ok(())
    }

    /// A way to each node that runs.
    pub(crate) fn handles(&self) -> Vec<NodeHandle> {
        let handle = |place: &Place| match &place.reach {
            Reach::Up(handle) => Some(handle.clone()),
            Reach::Down(_) => None,
        };
        self.places().values().filter_map(handle).collect()
    }

    /// The passwords of the nodes: of one that does not run, what it will start with.
    pub(crate) fn passwords(&self) -> Vec<Bytes> {
        let password = |place: &Place| match &place.reach {
            Reach::Up(handle) => handle.password(),
            Reach::Down(_) => self.tuning.requirepass.clone(),
        };
        self.places().values().filter_map(password).collect()
    }

    /// What each node says of itself.
    pub(crate) async fn ask_all(&self) -> Answers {
        let places = self.places().clone();
        let mut answers = Vec::with_capacity(places.len());
        for row in &self.state().map.nodes {
            answers.push(match places.get(&row.name).map(|place| &place.reach) {
                None if row.peer.is_empty() => Err(NO_ADDRESS.to_owned()),
                None => Err("it is not in this process".to_owned()),
                Some(Reach::Down(why)) => Err(why.clone()),
                // Another with this name, until the map tells of it.
                Some(Reach::Up(handle)) if handle.id() != row.id => Err("it was wiped".to_owned()),
                Some(Reach::Up(handle)) => {
                    let report = handle.report().await;
                    report.ok_or_else(|| "it has just stopped".to_owned())
                }
            });
        }
        answers
    }

    pub(crate) async fn status(&self) -> ClusterStatus {
        cluster_status(&self.state(), &self.ask_all().await)
    }

    /// Gives a client of the gateway to the first node that runs.
    pub(super) fn serve(&self, stream: TcpStream, remote: SocketAddr) {
        match self.handles().first() {
            Some(node) => node.serve_client(stream, remote, Port::Gateway),
            None => {
                // A new connection's buffer has room for one line.
                let _ = stream.try_write(
                    b"-CLUSTERDOWN every node is stopped: restart one with tholos dev restart n1\r\n",
                );
            }
        }
    }

    pub(super) fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        // No code under this lock can leave the list half changed.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_down(&self, name: &str, why: String) {
        self.set_reach(name, Reach::Down(why));
    }

    fn set_reach(&self, name: &str, reach: Reach) {
        if let Some(place) = self.places().get_mut(name) {
            place.reach = reach;
        }
    }
}
