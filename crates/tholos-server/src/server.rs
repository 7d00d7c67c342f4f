//! One running node: start, stop, and the wiring between its tasks. Everything that runs is spawned here.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tholos_cluster::{ClusterMap, MetaCommand, MetaState, NodeId};
use tholos_node::{Event, MetaFailure, Node, NodeConfig, Port, node_of};
use tholos_paxos::{AppendSeq, Millis};
use tholos_ring::ShardId;
use tholos_rpc::{LocalHello, Rpc, Secret};
use tholos_wal::{Disk, FileDisk, NumberedLog};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::client_task::{self, COMMAND_BYTES_MAX, ClientLimits, Clients};
use crate::clock;
use crate::counted_file::{self, CountedLsns};
use crate::genesis;
use crate::map_file;
use crate::metrics::Counters;
use crate::node_dir::{DirectoryError, NodeDir};
use crate::peers::{self, Peers};
use crate::plan::Plans;
use crate::ports::{self, PortError};
use crate::recover::{self, Maps, RecoverError, Recovered};
use crate::room::{self, Room};
use crate::snapshot_task::SnapshotTask;
use crate::status::NodeReport;
use crate::upgrade;
use crate::wal_task::{Stop, WalQueue, WalState, WalTask};
use crate::worker_task::{INPUTS_MAX, Input, Inputs, Outputs, PEER_EVENTS_MAX, Worker};

/// How often a stopping node looks whether its leaderships have been taken over.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);

/// How long a node waits for a map that it is behind.
const MAP_WAIT: Duration = Duration::from_secs(2);

/// How long a node that leads nothing any more waits for the new leaders to show.
const HEIRS_WAIT: Duration = Duration::from_millis(500);

/// Why a node did not start. What was begun is undone, and its directory is whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// One of its client or admin ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Its peer port, or what it says there.
    #[error(transparent)]
    Rpc(#[from] tholos_rpc::StartError),
    /// Its data.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The system.
    #[error("cannot {what}: {source}; the machine is short of something, see the limits of this user")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The settings contradict what the directory holds or the cluster is.
    #[error("{0}")]
    Settings(String),
}

/// The peer port of a node.
pub enum PeerPort {
    /// To be opened here.
    Listen(SocketAddr),
    /// Opened already, to found the cluster.
    Open(Rpc, mpsc::Receiver<tholos_rpc::Event>),
}

/// Everything [`start_node`] needs.
pub struct NodeSettings {
    /// The node's directory. Its map says who this node is.
    pub directory: NodeDir,
    /// The newest map that the directory has ([`NodeDir::map`]), with the addresses in force.
    pub map: ClusterMap,
    /// Where the gateway listens; `None` if somebody else listens for it ([`NodeHandle::serve_client`]).
    pub gateway: Option<SocketAddr>,
    /// Where cluster-aware clients are served.
    pub cluster: SocketAddr,
    /// Where other nodes are.
    pub peer: PeerPort,
    /// What all nodes of the cluster share.
    pub secret: Option<Secret>,
    /// What can be tuned.
    pub tuning: Tuning,
}

/// What can be tuned about a node; the defaults serve.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The password that clients must show.
    pub requirepass: Option<Bytes>,
    /// Bytes in keyspaces above which writes are refused; 0 for no limit.
    pub maxmemory_bytes: u64,
    /// What clients may do.
    pub clients: ClientLimits,
    /// How long keys and values may be.
    pub limits: tholos_engine::Limits,
    /// How long a command waits for a quorum.
    pub request_timeout: Duration,
    /// How often nodes tell each other that they live.
    pub heartbeat_interval: Duration,
    /// Silence after which a leader is replaced.
    pub election_timeout: Duration,
    /// Whether leaders read by leases.
    pub leases: bool,
    /// Whether the gateway sends reads to replicas when their leader has much to do.
    pub reads_at_replicas: bool,
    /// How old answers may be to clients that say READONLY and name no age; zero: not at all.
    pub replica_read_staleness: Duration,
    /// Whether leaderships go away from nodes that measure themselves slow.
    pub steers: bool,
    /// Zones in which leaders should sit; any if there are none.
    pub leader_zones: Vec<String>,
    /// How long a stopping node waits for its leaderships to be taken over.
    pub drain_timeout: Duration,
    /// How long a node may be down until others take over what it holds; `None` for never.
    pub replace_after: Option<Duration>,
    /// Whether nodes that have come get their share by themselves.
    pub auto_placement: bool,
    /// The log. Its salt is drawn at random here.
    pub wal: tholos_wal::Options,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            requirepass: None,
            maxmemory_bytes: 0,
            clients: ClientLimits::default(),
            limits: tholos_engine::Limits::default(),
            request_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            leases: true,
            reads_at_replicas: true,
            replica_read_staleness: Duration::ZERO,
            steers: true,
            leader_zones: Vec::new(),
            drain_timeout: Duration::from_secs(5),
            replace_after: Some(Duration::from_secs(600)),
            auto_placement: false,
            wal: tholos_wal::Options::default(),
        }
    }
}

/// A way to a running node for others: the gateway of `dev`, the admin interface. Does not keep it alive.
#[derive(Clone)]
pub struct NodeHandle {
    name: Arc<str>,
    id: NodeId,
    control: mpsc::Sender<Input>,
    map: watch::Receiver<Arc<MetaState>>,
    password: watch::Receiver<Option<Bytes>>,
    clients: Arc<Clients>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) wal: Arc<WalQueue>,
    /// What was planned here lately.
    pub(crate) plans: Plans,
    /// Set once another node has told that the cluster goes on without this one.
    pub(crate) gone: Arc<AtomicBool>,
    rpc: Rpc,
}

/// A node that runs. Dropping it kills the node, but without waiting: use [`kill`](Self::kill) or [`stop`](Self::stop).
pub struct RunningNode {
    handle: NodeHandle,
    worker: AbortHandle,
    /// Accept loops and the clock; they end with it.
    tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
    abandoned: Arc<AtomicBool>,
    ended: watch::Receiver<Option<Arc<str>>>,
    drain_timeout: Duration,
    /// Its accept loops.
    accepting: Vec<AbortHandle>,
    restart: watch::Receiver<bool>,
    /// Locked until the node has ended.
    directory: NodeDir,
}

/// Starts a node. Returns when its ports are open and its past is read; it then takes part in elections.
///
/// # Errors
/// See [`StartError`].
pub async fn start_node(settings: NodeSettings) -> Result<RunningNode, StartError> {
    start_node_on(settings, |path| FileDisk::new(path)).await
}

/// Starts a node whose log and snapshots are on what `open_disk` makes of their directories: something else than the
/// real file system, to find out what a power cut or a bad disk does to it. Everything else is as in [`start_node`].
///
/// # Errors
/// See [`StartError`].
pub async fn start_node_on<D: Disk + 'static>(
    settings: NodeSettings,
    open_disk: impl Fn(&Path) -> io::Result<D> + Send + 'static,
) -> Result<RunningNode, StartError> {
    let NodeSettings { directory, map, gateway, cluster, peer, secret, tuning } = settings;
    upgrade::check(&directory)?;
    let me = member(&directory, &map)?;
    // Ports first: the commonest mistake is told before a long recovery.
    let name: Arc<str> = directory.identity().name.as_str().into();
    let gateway =
        gateway.map(|address| open(format!("gateway of {name}"), address, "--gateway")).transpose()?;
    let cluster = open(format!("cluster port of {name}"), cluster, "--cluster")?;
    let random = || getrandom::u64().map_err(DirectoryError::Random);
    let boot = random()?;
    let config = node_config(me, boot, random()?, &tuning);
    let wal_options = tholos_wal::Options { salt: random()?, ..tuning.wal.clone() };
    let maps = maps(&directory, &map);
    let counted = counted_file::read(directory.path(), &map);
    let counted_before = counted.clone();
    let recovering = tokio::task::spawn_blocking(move || {
        recover::recover(&directory, open_disk, config, maps, wal_options, counted_before)
            .map(|recovered| (directory, recovered))
    });
    let (directory, recovered) = recovering.await.map_err(|error| StartError::System {
        what: "read the node's data",
        source: std::io::Error::other(error),
    })??;
    let hello = LocalHello {
        cluster_id: Some(map.cluster_id.0),
        node: me.0,
        name: name.to_string(),
        incarnation: directory.identity().incarnation.0,
        boot,
        recovered_lsn: recovered.recovery.recovered_lsn.0,
        advertised: Bytes::new(),
    };
    let (rpc, peer_events) = open_rpc(peer, hello, secret)?;
    rpc.set_peers(peers::addresses(&map, me));
    let wired = Wired { name, me, map, rpc, peer_events, gateway, cluster, tuning, directory, counted };
    wired.spawn(recovered)
}

/// What the core starts with: the maps of the directory, with the addresses of `map`.
fn maps(directory: &NodeDir, map: &ClusterMap) -> Maps {
    let with_addresses = |mut own: ClusterMap| {
        for row in &mut own.nodes {
            if let Some(given) = map.node(row.id) {
                row.gateway.clone_from(&given.gateway);
                row.cluster.clone_from(&given.cluster);
                row.peer.clone_from(&given.peer);
                row.http.clone_from(&given.http);
            }
        }
        own
    };
    let begun = directory.identity().map.clone().unwrap_or_else(|| map.clone());
    let newest = directory.state().cloned();
    Maps {
        begun: with_addresses(begun),
        newest: newest.map(|state| MetaState { map: with_addresses(state.map), ..state }),
    }
}

/// Which node of the map has this directory.
fn member(directory: &NodeDir, map: &ClusterMap) -> Result<NodeId, StartError> {
    let identity = directory.identity();
    let refuse = |why: String| Err(StartError::Settings(format!("{}: {why}", directory.path().display())));
    let Some(row) = map.by_name(&identity.name) else {
        return refuse(format!("the cluster has no node {}; let it join first", identity.name));
    };
    if row.incarnation != identity.incarnation {
        return refuse(format!(
            "the cluster knows node {} by another directory (incarnation {}, this one is {}); start it with that \
             directory, or let it join anew",
            identity.name, row.incarnation, identity.incarnation
        ));
    }
    Ok(row.id)
}

fn node_config(me: NodeId, boot: u64, seed: u64, tuning: &Tuning) -> NodeConfig {
    let millis = |duration: Duration| Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let mut config = NodeConfig::new(me, boot, seed);
    config.requirepass = tuning.requirepass.clone();
    config.maxmemory = tuning.maxmemory_bytes;
    config.limits = tuning.limits;
    config.relayed_reply_bytes_max = COMMAND_BYTES_MAX;
    config.maxclients = tuning.clients.clients_max as u64;
    config.process_id = std::process::id();
    config.request_timeout = millis(tuning.request_timeout);
    config.heartbeat_interval = millis(tuning.heartbeat_interval);
    config.election_timeout = millis(tuning.election_timeout);
    Arc::make_mut(&mut config.group).leases = tuning.leases;
    config.replace_after = tuning.replace_after.map(millis);
    config.auto_placement = tuning.auto_placement;
    config.reads_at_replicas = tuning.reads_at_replicas;
    config.replica_read_staleness = millis(tuning.replica_read_staleness);
    config.steers = tuning.steers;
    config.leader_zones = tuning.leader_zones.clone();
    config.log_bytes_max = config.log_bytes_max.min(tuning.wal.snapshot_from_bytes());
    config.log_room_bytes = tuning.wal.writers_kept_bytes_max();
    config
}

fn open(what: String, address: SocketAddr, option: &'static str) -> Result<TcpListener, StartError> {
    let listener = ports::listen(what.clone(), address, option)?;
    Ok(TcpListener::from_std(listener).map_err(|source| PortError::new(what, address, source, option))?)
}

/// A peer port that carries the largest command: an entry that cannot be sent would stop its shard for good.
pub(crate) fn rpc_config(
    address: SocketAddr,
    hello: LocalHello,
    secret: Option<Secret>,
) -> tholos_rpc::Config {
    let mut config = tholos_rpc::Config::new(address, hello, secret);
    let message = COMMAND_BYTES_MAX + (8 << 20);
    config.limits.log_message_bytes_max = message;
    config.limits.bulk_message_bytes_max = message;
    // Room for it beside what else waits, for it would be refused as long as anything did.
    config.limits.log_queue_bytes_max = message + (16 << 20);
    config.limits.bulk_queue_bytes_max = message;
    config
}

fn open_rpc(
    peer: PeerPort,
    hello: LocalHello,
    secret: Option<Secret>,
) -> Result<(Rpc, mpsc::Receiver<tholos_rpc::Event>), StartError> {
    match peer {
        PeerPort::Open(rpc, events) => {
            rpc.set_me(hello)?;
            Ok((rpc, events))
        }
        PeerPort::Listen(address) => {
            let (sender, events) = mpsc::channel(PEER_EVENTS_MAX);
            let what = format!("peer port of {}", hello.name);
            match Rpc::start(rpc_config(address, hello, secret), sender) {
                Ok(rpc) => Ok((rpc, events)),
                Err(tholos_rpc::StartError::Bind { listen, source }) => {
                    Err(PortError::new(what, listen, source, "--peer").into())
                }
                Err(error) => Err(error.into()),
            }
        }
    }
}

/// A node whose ports are open, before anything of it runs.
struct Wired {
    name: Arc<str>,
    me: NodeId,
    map: ClusterMap,
    rpc: Rpc,
    peer_events: mpsc::Receiver<tholos_rpc::Event>,
    gateway: Option<TcpListener>,
    cluster: TcpListener,
    tuning: Tuning,
    directory: NodeDir,
    /// What had been counted of the other nodes' logs.
    counted: CountedLsns,
}

impl Wired {
    fn spawn<D: Disk + 'static>(self, recovered: Recovered<D>) -> Result<RunningNode, StartError> {
        let Recovered { node, log, snapshots, .. } = recovered;
        let (control, control_inputs) = mpsc::channel(INPUTS_MAX);
        let (client_sender, client_inputs) = mpsc::channel(INPUTS_MAX);
        let (wal_sender, wal_state) = watch::channel(WalState::Durable(AppendSeq(0)));
        let (snapshot_sender, snapshot_jobs) = std_mpsc::channel();
        let (restart_sender, restart) = watch::channel(false);
        let (password_sender, password) = watch::channel(self.tuning.requirepass.clone());
        let (map_sender, map) = watch::channel(Arc::new(node.meta_state().clone()));
        let counters = Arc::new(Counters::default());
        let abandoned = Arc::new(AtomicBool::new(false));
        let wal = Arc::new(WalQueue::new());
        let plans = Plans::of_directory(self.directory.path());

        let log = NumberedLog::new(log);
        let wal_task = WalTask { log, queue: Arc::clone(&wal), state: wal_sender, control: control.clone() };
        let snapshot_task = SnapshotTask::new(
            snapshots,
            snapshot_jobs,
            control.clone(),
            Arc::clone(&counters),
            Arc::clone(&abandoned),
        );
        let threads = vec![
            spawn_thread(format!("{}-wal", self.name), self.directory.lock(), move || wal_task.run())?,
            spawn_thread(format!("{}-snap", self.name), self.directory.lock(), move || snapshot_task.run())?,
        ];

        let outputs = Outputs {
            peers: Peers::new(self.rpc.clone(), &self.map, self.me),
            wal: Arc::clone(&wal),
            snapshots: snapshot_sender,
            // Of the map that the node began with: who asks is a seed that is to begin with it, too.
            membership: genesis::member_answer(self.directory.identity().map.as_ref().unwrap_or(&self.map)),
            password: password_sender,
            map: map_sender,
            restart: restart_sender,
            directory: self.directory.path().to_owned(),
            plans: plans.clone(),
            control: control.downgrade(),
        };
        let inputs = Inputs {
            control: control_inputs,
            clients: client_inputs,
            peers: self.peer_events,
            wal: wal_state,
        };
        let worker = Worker::new(node, Arc::clone(&self.name), self.me, outputs, Arc::clone(&counters));
        let running = tokio::spawn(worker.run(inputs));
        let abort = running.abort_handle();
        let (ended_sender, ended) = watch::channel(None);

        let clients = Arc::new(Clients::new(
            client_sender,
            self.tuning.clients.clone(),
            password.clone(),
            Arc::clone(&counters),
        ));
        let mut tasks = JoinSet::new();
        let mut accepting = Vec::new();
        // Not among the tasks: it outlives them to tell how the worker ended.
        tokio::spawn(supervise(running, ended_sender));
        tasks.spawn(clock::run(control.clone()));
        for (listener, port) in self
            .gateway
            .map(|listener| (listener, Port::Gateway))
            .into_iter()
            .chain([(self.cluster, Port::Cluster)])
        {
            let clients = Arc::clone(&clients);
            accepting.push(tasks.spawn(client_task::accept(listener, move |stream, remote| {
                clients.serve(stream, remote, port)
            })));
        }
        let handle = NodeHandle {
            name: self.name,
            id: self.me,
            control: control.clone(),
            map: map.clone(),
            password,
            clients,
            counters,
            wal,
            rpc: self.rpc,
            plans,
            gone: Arc::default(),
        };
        let directory = self.directory.path().to_owned();
        tasks.spawn(map_file::keep(directory.clone(), map, control.clone()));
        tasks.spawn(counted_file::keep(handle.clone(), directory.clone(), self.counted));
        let reserve = self.tuning.wal.disk_reserve_bytes;
        room::look(&handle.counters, &directory, reserve);
        tasks.spawn(room::keep(Arc::clone(&handle.counters), directory, reserve, control));
        Ok(RunningNode {
            handle,
            worker: abort,
            tasks,
            threads,
            abandoned,
            ended,
            drain_timeout: self.tuning.drain_timeout,
            accepting,
            restart,
            directory: self.directory,
        })
    }
}

/// Whoever writes to the directory holds its lock, so that a node that was merely dropped is not followed too soon.
fn spawn_thread(
    name: String,
    lock: Arc<File>,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        run();
        drop(lock);
    });
    spawned.map_err(|source| StartError::System { what: "start a thread", source })
}

/// Tells why the worker ended.
async fn supervise(
    worker: tokio::task::JoinHandle<Result<(), Arc<str>>>,
    ended: watch::Sender<Option<Arc<str>>>,
) {
    let why = match worker.await {
        Ok(Ok(())) => "it was stopped".into(),
        Ok(Err(why)) => why,
        Err(error) if error.is_cancelled() => "it was killed".into(),
        Err(_) => {
            "its core found itself in an impossible state and stopped; please report what it printed".into()
        }
    };
    ended.send_replace(Some(why));
}

impl NodeHandle {
    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in the cluster.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Serves a connection that was accepted elsewhere.
    pub fn serve_client(&self, stream: TcpStream, remote: SocketAddr, port: Port) {
        self.clients.serve(stream, remote, port);
    }

    /// Clients connected, accepted since start, and turned away since start.
    pub(crate) fn client_counts(&self) -> [u64; 3] {
        let clients = &self.clients;
        [
            clients.count() as u64,
            clients.accepted.load(Ordering::Relaxed),
            clients.rejected.load(Ordering::Relaxed),
        ]
    }

    /// The password that its clients must show at present.
    pub(crate) fn password(&self) -> Option<Bytes> {
        self.password.borrow().clone()
    }

    /// The newest map that the node has.
    pub(crate) fn map(&self) -> Arc<MetaState> {
        Arc::clone(&self.map.borrow())
    }

    /// The same, and each newer one.
    pub(crate) fn maps(&self) -> watch::Receiver<Arc<MetaState>> {
        self.map.clone()
    }

    /// Waits a while for a map of which something is true; what the meta group has decided comes a moment later.
    pub(crate) async fn knows(&self, wanted: impl Fn(&MetaState) -> bool) {
        let mut map = self.map.clone();
        let _who_asks_sees_for_itself =
            tokio::time::timeout(MAP_WAIT, map.wait_for(|state| wanted(state))).await;
    }

    /// Has the meta group decide a command; its answer, or why nothing was done or is known.
    pub(crate) async fn ask_meta(&self, command: MetaCommand) -> Result<u64, MetaFailure> {
        let (sender, answer) = oneshot::channel();
        let ended = || MetaFailure { text: "the node has ended: ask another".to_owned(), retry: true };
        let asked = Input::AskMeta(
            Box::new(command),
            Box::new(move |answer| {
                // Whoever asked may be gone.
                let _ = sender.send(answer);
            }),
        );
        self.control.send(asked).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// What the node says of itself; `None` if it has ended.
    pub(crate) async fn report(&self) -> Option<NodeReport> {
        let (name, room) = (Arc::clone(&self.name), Room::of(&self.counters));
        let plans = self.plans.clone();
        self.inspect(move |node| NodeReport::of(node, &name, room, &plans)).await
    }

    /// Asks the core something, between two of its rounds; `None` if the node has ended.
    pub(crate) async fn inspect<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let inspection = Box::new(move |node: &Node| {
            // Whoever asked may be gone.
            let _ = sender.send(question(node));
        });
        self.control.send(Input::Inspect(inspection)).await.ok()?;
        answer.await.ok()
    }
}

impl RunningNode {
    /// A way to the node for others.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// The node's directory.
    #[must_use]
    pub fn directory(&self) -> &NodeDir {
        &self.directory
    }

    /// Told why the node ended by itself, when it does: a failed disk (R23), a bug.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.ended.clone()
    }

    /// Told when the running job wants this node to restart.
    #[must_use]
    pub fn restart(&self) -> watch::Receiver<bool> {
        self.restart.clone()
    }

    /// Stops in order: if `hand_over`, gives its leaderships away and waits until others have them, takes no new clients, and
    /// answers what the others have sent; closes the clients, seals the log. Returns whether it led nothing at the end that
    /// another could lead.
    pub async fn stop(mut self, hand_over: bool) -> bool {
        let deadline = Instant::now() + self.drain_timeout;
        let handed_over = hand_over && self.hand_over(deadline).await;
        self.accepting.iter().for_each(AbortHandle::abort);
        if hand_over {
            self.handle.clients.drain(deadline).await;
        }
        self.tasks.abort_all();
        self.handle.clients.close().await;
        // Full only while the worker is busy; it ends either way.
        let _ = self.handle.control.send(Input::Stop).await;
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(Option::is_some).await;
        self.handle.wal.stop(Stop::Clean);
        self.end().await;
        handed_over
    }

    /// Ends as `kill -9` would, as far as one process can: nothing is flushed, no one is told.
    pub async fn kill(mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.handle.wal.stop(Stop::Abandon);
        self.worker.abort();
        self.tasks.abort_all();
        self.handle.clients.close().await;
        self.end().await;
    }

    async fn hand_over(&self, deadline: Instant) -> bool {
        if self.handle.control.send(Input::Event(Event::Resign)).await.is_err() {
            return false;
        }
        let mut silent_since = None;
        while Instant::now() < deadline {
            let me = self.handle.id;
            let Some(look) = self.handle.inspect(move |node| HandOver::look(node, me)).await else {
                return false;
            };
            match look {
                HandOver::Done => return true,
                HandOver::Nobody => return false,
                // What was said to the heirs may still wait to be sent, so their answer is awaited, but not for ever.
                HandOver::Silent if silent_since.get_or_insert_with(Instant::now).elapsed() > HEIRS_WAIT => {
                    return true;
                }
                HandOver::Silent | HandOver::Leads => tokio::time::sleep(HAND_OVER_LOOK).await,
            }
        }
        tracing::warn!(node = %self.handle.name, "stops without having handed over every leadership in time");
        false
    }

    /// Waits for everything to end.
    async fn end(&mut self) {
        self.handle.rpc.shutdown().await;
        while self.tasks.join_next().await.is_some() {}
        let threads = std::mem::take(&mut self.threads);
        // The snapshots' thread ends when the worker, and with it the sender, is gone.
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().map(JoinHandle::join).all(|ended| ended.is_ok())
        });
        if !matches!(joined.await, Ok(true)) {
            tracing::error!(node = %self.handle.name, "a thread of the node had panicked");
        }
    }
}

/// Waits until a node is to restart; false if it has ended before.
pub(crate) async fn restart_wanted(mut restart: watch::Receiver<bool>) -> bool {
    restart.wait_for(|wanted| *wanted).await.is_ok()
}

/// How far a stopping node has come.
enum HandOver {
    /// It leads what another could lead.
    Leads,
    /// It leads and hears nobody who could take over.
    Nobody,
    /// It leads nothing that another could lead, and does not know another leader of every shard yet.
    Silent,
    /// Another node leads each of its shards.
    Done,
}

impl HandOver {
    fn look(node: &Node, me: NodeId) -> HandOver {
        let (state, meta_group) = (node.meta_state(), node.map().meta_group());
        // What has no other replica goes on with this node or not at all: there is nobody to hand it over to.
        let is_shared = |group: &ShardId| state.voters(*group).any(|voter| voter != me);
        let shared = || (0..=meta_group.0).map(ShardId).filter(is_shared);
        if shared().filter_map(|group| node.shard(group)).any(|shard| shard.group.leading().is_some()) {
            return if node.detector().heard_nodes().len() > 1 { HandOver::Leads } else { HandOver::Nobody };
        }
        let mut held = shared().filter(|group| *group != meta_group).filter_map(|group| node.shard(group));
        let led = held.all(|shard| shard.group.leader().is_some_and(|ballot| node_of(ballot.replica) != me));
        if led { HandOver::Done } else { HandOver::Silent }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.handle.wal.stop(Stop::Abandon);
        self.worker.abort();
    }
}
