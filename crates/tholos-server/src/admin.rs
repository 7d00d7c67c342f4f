//! The admin interface over HTTP: health, metrics, status, jobs; in `dev` also killing and restarting nodes.
//!
//! Without a password it serves loopback only (R28), and a write must come from a page of its
//! own or from no page at all: Host and Origin are checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tholos_cluster::{ClusterMap, MetaState};
use tholos_rpc::Secret;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::dev::{DevError, NewNode, Shared};
use crate::genesis;
use crate::jobs;
use crate::load::{LoadReport, cluster_load};
use crate::metrics::{Exposition, Kind, get as count};
use crate::plan::{self, Plans};
use crate::recovery;
use crate::server::NodeHandle;
use crate::status::{Answers, JobReport, NodeReport, cluster_status, locate};
use crate::upgrade;

/// How long another node is waited for.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the interface shows.
#[derive(Clone)]
pub(crate) struct Admin {
    source: Source,
    /// Whether addresses beyond loopback are served.
    open: bool,
    /// What was planned here lately.
    pub(crate) plans: Plans,
}

#[derive(Clone)]
enum Source {
    Dev(Arc<Shared>),
    Node(Arc<NodeSource>),
}

/// A node of its own, which asks the others.
struct NodeSource {
    handle: NodeHandle,
    secret: Option<Secret>,
}

impl Admin {
    /// For all nodes of this process.
    pub(crate) fn dev(shared: Arc<Shared>) -> Admin {
        let plans = Plans::of_directory(shared.dir());
        Admin { source: Source::Dev(shared), open: false, plans }
    }

    /// For one node. Served beyond loopback only if clients need a password.
    pub(crate) fn node(handle: NodeHandle, secret: Option<Secret>, open: bool) -> Admin {
        let plans = handle.plans.clone();
        Admin { source: Source::Node(Arc::new(NodeSource { handle, secret })), open, plans }
    }

    /// The newest map that a node of this process has.
    pub(crate) fn map(&self) -> ClusterMap {
        match &self.source {
            Source::Dev(shared) => shared.map(),
            Source::Node(node) => node.handle.map().map.clone(),
        }
    }

    /// The same with all that is decided with it.
    pub(crate) fn newest(&self) -> Arc<MetaState> {
        match &self.source {
            Source::Dev(shared) => shared.state(),
            Source::Node(node) => node.handle.map(),
        }
    }

    /// That of a node that runs; `None` if there is none.
    pub(crate) fn state(&self) -> Option<Arc<MetaState>> {
        self.handles().iter().map(NodeHandle::map).max_by_key(|state| state.epoch())
    }

    /// The nodes of this process that run.
    pub(crate) fn handles(&self) -> Vec<NodeHandle> {
        match &self.source {
            Source::Dev(shared) => shared.handles(),
            Source::Node(node) => vec![node.handle.clone()],
        }
    }

    /// Whether nodes of other processes are asked.
    pub(crate) fn asks_others(&self) -> bool {
        matches!(self.source, Source::Node(_))
    }

    /// What they are asked with.
    pub(crate) fn secret(&self) -> Option<Secret> {
        match &self.source {
            Source::Dev(_) => None,
            Source::Node(node) => node.secret.clone(),
        }
    }

    /// What every node of the cluster says of itself.
    pub(crate) async fn ask_all(&self) -> Answers {
        match &self.source {
            Source::Dev(shared) => shared.ask_all().await,
            Source::Node(node) => node.ask_all().await,
        }
    }
}

impl NodeSource {
    async fn ask_all(&self) -> Answers {
        let mut asking = JoinSet::new();
        for (at, row) in self.handle.map().map.nodes.iter().enumerate() {
            let (handle, secret) = (self.handle.clone(), self.secret.clone());
            let (id, peer) = (row.id, row.peer.clone());
            asking.spawn(async move {
                let answer =
                    if id == handle.id() { report(&handle).await } else { ask(&peer, secret.as_ref()).await };
                (at, answer)
            });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

async fn report(handle: &NodeHandle) -> Result<NodeReport, String> {
    match tokio::time::timeout(NODE_TIMEOUT, handle.report()).await {
        Ok(Some(report)) => Ok(report),
        Ok(None) => Err("it has just stopped".to_owned()),
        Err(_) => Err(format!("no answer within {NODE_TIMEOUT:?}")),
    }
}

async fn ask(peer: &str, secret: Option<&Secret>) -> Result<NodeReport, String> {
    let answer = genesis::ask_status(peer, secret, NODE_TIMEOUT).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&answer)
        .map_err(|_| "its answer cannot be read; compare the versions of both".to_owned())
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let mut router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/node", get(own))
        .route("/v1/status", get(status))
        .route("/v1/load", get(load))
        .route("/v1/locate", get(location))
        .route("/v1/hot", get(hot))
        .route("/v1/plan", get(plan::show))
        .route("/v1/apply", post(plan::apply))
        .route("/v1/recover", get(recovery::show))
        .route("/v1/recover/apply", post(recovery::apply))
        .route("/v1/recoveries", get(recovery::history))
        .route("/v1/upgrade", get(upgrade::show))
        .route("/v1/upgrade/finish", post(upgrade::finish))
        .route("/v1/jobs", get(jobs::list).post(jobs::start))
        .route("/v1/jobs/pause", post(jobs::pause))
        .route("/v1/jobs/resume", post(jobs::resume))
        .route("/v1/jobs/cancel", post(jobs::cancel))
        .route("/v1/hold", post(jobs::hold))
        .route("/v1/jobs/throttle", post(jobs::throttle));
    if matches!(admin.source, Source::Dev(_)) {
        router = router
            .route("/v1/dev/kill", post(kill))
            .route("/v1/dev/restart", post(restart))
            .route("/v1/dev/add", post(add))
            .route("/v1/dev/remove", post(remove))
            .route("/v1/dev/wipe", post(wipe));
    }
    let router = router
        .layer(middleware::from_fn_with_state(admin.clone(), guard))
        .with_state(admin)
        .into_make_service_with_connect_info::<SocketAddr>();
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the admin interface has ended");
    }
}

/// Protected mode, and the checks of writes.
async fn guard(
    State(admin): State<Admin>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let refuse =
        |why: &'static str| (StatusCode::FORBIDDEN, Json(Failure { error: why.to_owned() })).into_response();
    if !admin.open && !remote.ip().to_canonical().is_loopback() {
        return refuse("this node is in protected mode: without requirepass it serves loopback only");
    }
    // A page that a name was rebound to this address for would otherwise be let in by the browser.
    if !admin.open && !names_loopback(request.headers()) {
        return refuse("the Host header names no loopback address");
    }
    if !request.method().is_safe() && !is_same_origin(request.headers()) {
        return refuse("this comes from a page of another origin");
    }
    next.run(request).await
}

/// Whether the Host header names this machine's loopback.
fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name =
        host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a write comes from no page, or from one that this interface served.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), headers.get(header::HOST).map(|host| host.to_str()))
    else {
        return false;
    };
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
}

/// A JSON answer, with a line end for terminals.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut text = serde_json::to_string(&self.0).expect("plain fields can be written as JSON");
        text.push('\n');
        ([(header::CONTENT_TYPE, "application/json")], text).into_response()
    }
}

/// What was not done, and why.
#[derive(Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
}

/// This process lives and its nodes answer; what of their data is lost is told and no reason to stop them.
async fn health(State(admin): State<Admin>) -> Response {
    let handles = admin.handles();
    let mut text = "ok\n".to_owned();
    for handle in &handles {
        match report(handle).await {
            Err(why) => {
                let error = format!("{}: {why}", handle.name());
                return (StatusCode::SERVICE_UNAVAILABLE, Json(Failure { error })).into_response();
            }
            Ok(report) => text.extend(report.trouble().map(|why| format!("{}: {why}\n", handle.name()))),
        }
    }
    if handles.is_empty() {
        let error = "every node is stopped".to_owned();
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Failure { error })).into_response();
    }
    text.into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    let mut status = cluster_status(&admin.newest(), &admin.ask_all().await);
    let jobs = admin.state().map(|state| jobs::notes(&state)).unwrap_or_default();
    status.notes.splice(0..0, jobs);
    Json(status).into_response()
}

async fn hot(State(admin): State<Admin>) -> Response {
    Json(crate::hot::hot(&admin.map(), &admin.ask_all().await)).into_response()
}

async fn load(State(admin): State<Admin>) -> Response {
    Json(cluster_load(&admin.map(), &admin.ask_all().await)).into_response()
}

/// What the nodes of this process say of themselves.
async fn own(State(admin): State<Admin>) -> Response {
    let mut reports = Vec::new();
    for handle in admin.handles() {
        reports.extend(report(&handle).await);
    }
    Json(reports).into_response()
}

#[derive(Deserialize)]
struct KeyQuery {
    key: String,
}

async fn location(State(admin): State<Admin>, Query(query): Query<KeyQuery>) -> Response {
    Json(locate(&admin.map(), &admin.ask_all().await, query.key.as_bytes())).into_response()
}

#[derive(Deserialize)]
struct NodeQuery {
    node: String,
}

/// What was done to a node of `dev`.
#[derive(Serialize)]
struct Done {
    node: String,
    done: &'static str,
    /// Replicas that are missing until the node is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<usize>,
    /// The command that makes more of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Done {
    fn plain(node: String, done: &'static str) -> Done {
        Done { node, done, held: None, next: None }
    }

    /// It is a spare now.
    fn spare(node: String, done: &'static str, held: Option<usize>) -> Done {
        let next = Some(format!("tholos cluster plan add {node}"));
        Done { node, done, held, next }
    }
}

async fn kill(State(admin): State<Admin>, Query(query): Query<NodeQuery>) -> Response {
    dev(&admin, |dev| async move { dev.kill(&query.node).await.map(|()| Done::plain(query.node, "killed")) })
        .await
}

async fn restart(State(admin): State<Admin>, Query(query): Query<NodeQuery>) -> Response {
    dev(
        &admin,
        |dev| async move { dev.restart(&query.node).await.map(|()| Done::plain(query.node, "restarted")) },
    )
    .await
}

#[derive(Deserialize)]
struct NewNodeQuery {
    node: Option<String>,
    zone: Option<String>,
    weight: Option<u16>,
}

async fn add(State(admin): State<Admin>, Query(query): Query<NewNodeQuery>) -> Response {
    let node = NewNode { name: query.node, zone: query.zone, weight: query.weight };
    dev(&admin, |dev| async move { Ok(Done::spare(dev.add(node).await?.name, "added", None)) }).await
}

async fn remove(State(admin): State<Admin>, Query(query): Query<NodeQuery>) -> Response {
    dev(&admin, |dev| async move {
        let left = dev.remove(&query.node).await?;
        Ok(Done::plain(query.node, if left.before { "left before" } else { "removed" }))
    })
    .await
}

async fn wipe(State(admin): State<Admin>, Query(query): Query<NodeQuery>) -> Response {
    dev(&admin, |dev| async move {
        let held = dev.wipe(&query.node).await?.held;
        Ok(Done::spare(query.node, "wiped", Some(held)))
    })
    .await
}

/// Has something done in `dev`, to its end, whether or not whoever asked for it waits so long.
async fn dev<Doing>(admin: &Admin, what: impl FnOnce(Arc<Shared>) -> Doing) -> Response
where
    Doing: Future<Output = Result<Done, DevError>> + Send + 'static,
{
    let Source::Dev(shared) = &admin.source else { return StatusCode::NOT_FOUND.into_response() };
    let error = match tokio::spawn(what(Arc::clone(shared))).await {
        Ok(Ok(done)) => return Json(done).into_response(),
        Ok(Err(error)) => error,
        Err(error) => {
            let error = format!("it was cut off: {error}");
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(Failure { error })).into_response();
        }
    };
    let code = match error {
        DevError::NoSuchNode { .. } => StatusCode::NOT_FOUND,
        DevError::Undecided(_) => StatusCode::GATEWAY_TIMEOUT,
        DevError::Start(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::CONFLICT,
    };
    (code, Json(Failure { error: error.to_string() })).into_response()
}

/// A metric: name, kind, meaning, and how to read it off a node.
type Metric = (&'static str, Kind, &'static str, fn(&Sample) -> u64);

/// What one node's metrics are read from.
struct Sample {
    handle: NodeHandle,
    report: NodeReport,
    clients: [u64; 3],
}

fn load_of(node: &Sample) -> Option<&LoadReport> {
    node.report.load.as_ref()
}

/// Every metric of a node.
const METRICS: &[Metric] = &[
    ("tholos_server_clients_connected", Kind::Gauge, "Clients connected.", |node| node.clients[0]),
    ("tholos_server_clients_accepted_total", Kind::Counter, "Connections of clients accepted.", |node| {
        node.clients[1]
    }),
    (
        "tholos_server_clients_rejected_total",
        Kind::Counter,
        "Clients turned away, there being too many.",
        |node| node.clients[2],
    ),
    (
        "tholos_server_clients_overflowed_total",
        Kind::Counter,
        "Clients closed because they did not read their replies.",
        |node| count(&node.handle.counters.clients_overflowed),
    ),
    ("tholos_server_commands_total", Kind::Counter, "Commands received from clients.", |node| {
        count(&node.handle.counters.commands)
    }),
    ("tholos_server_replies_bytes_total", Kind::Counter, "Bytes of replies to clients.", |node| {
        count(&node.handle.counters.reply_bytes)
    }),
    (
        "tholos_server_rounds_total",
        Kind::Counter,
        "Rounds of the worker: commands divided by rounds is the batch size.",
        |node| count(&node.handle.counters.rounds),
    ),
    ("tholos_node_error_replies_total", Kind::Counter, "Error replies to clients.", |node| {
        node.report.errors
    }),
    (
        "tholos_node_repeated_writes_total",
        Kind::Counter,
        "Retried writes that replicas of this node found applied, and answered again.",
        |node| node.report.repeated,
    ),
    (
        "tholos_node_lease_reads_total",
        Kind::Counter,
        "Reads that leaders on this node answered by a lease.",
        |node| node.report.reads_by_lease,
    ),
    (
        "tholos_node_late_lease_reads_total",
        Kind::Counter,
        "Reads by a lease that had run out when they were answered: they were asked again by a round.",
        |node| node.report.reads_late,
    ),
    (
        "tholos_node_shed_commands_total",
        Kind::Counter,
        "Commands refused with -BUSY because too many requests of this node's clients were open.",
        |node| node.report.shed,
    ),
    (
        "tholos_node_reads_per_second",
        Kind::Gauge,
        "Reads a second that this node was asked for, in the last five seconds that were counted.",
        |node| node.report.shards.iter().map(|shard| shard.reads_per_s).sum(),
    ),
    (
        "tholos_node_writes_per_second",
        Kind::Gauge,
        "Writes a second that this node was asked for, likewise.",
        |node| node.report.shards.iter().map(|shard| shard.writes_per_s).sum(),
    ),
    (
        "tholos_node_hottest_shard_per_second",
        Kind::Gauge,
        "Reads and writes a second of the shard that this node is asked for most.",
        |node| {
            node.report.shards.iter().map(|shard| shard.reads_per_s + shard.writes_per_s).max().unwrap_or(0)
        },
    ),
    (
        "tholos_node_hottest_key_per_second",
        Kind::Gauge,
        "Reads and writes a second of the key that this node is asked for most, about; which it is, tholos cluster hot says.",
        |node| node.report.hot_keys.iter().map(|key| key.reads_per_s + key.writes_per_s).max().unwrap_or(0),
    ),
    (
        "tholos_node_replica_reads_total",
        Kind::Counter,
        "Reads that replicas of this node answered while another node led.",
        |node| node.report.reads_as_replica,
    ),
    (
        "tholos_node_stale_reads_total",
        Kind::Counter,
        "Of these, reads answered at once, because their clients allow answers of some age.",
        |node| node.report.reads_stale,
    ),
    (
        "tholos_node_reads_to_leaders_total",
        Kind::Counter,
        "Reads of gateway clients that were sent to the leader on another node, when there was a choice.",
        |node| node.report.reads_to_leaders,
    ),
    (
        "tholos_node_reads_to_replicas_total",
        Kind::Counter,
        "Reads of gateway clients that a replica answered because the leader had more to do.",
        |node| node.report.reads_to_replicas,
    ),
    (
        "tholos_node_forwarded_requests_total",
        Kind::Counter,
        "Requests sent to the leader on another node.",
        |node| node.report.forwarded,
    ),
    ("tholos_node_timed_out_requests_total", Kind::Counter, "Requests that ran out of time.", |node| {
        node.report.timed_out
    }),
    (
        "tholos_node_capacity_percent",
        Kind::Gauge,
        "What this node could lead of what it should, by how slow it is beside the others.",
        |node| load_of(node).map_or(100, |load| load.capacity.into()),
    ),
    (
        "tholos_node_share_percent",
        Kind::Gauge,
        "Its part of all leaderships by weight and capacity.",
        |node| (load_of(node).and_then(|load| load.share).unwrap_or(0.0) * 100.0).round() as u64,
    ),
    ("tholos_node_weight", Kind::Gauge, "Its weight, as the operator gave it.", |node| {
        load_of(node).map_or(0, |load| load.weight.into())
    }),
    (
        "tholos_node_load_percent",
        Kind::Gauge,
        "The part of the time that its worker has work, waits for its processor included.",
        |node| load_of(node).map_or(0, |load| load.busy.into()),
    ),
    (
        "tholos_node_spare_percent",
        Kind::Gauge,
        "What it has left of what it could do, by its load and its capacity.",
        |node| load_of(node).map_or(0, |load| load.spare.into()),
    ),
    (
        "tholos_node_queue_length",
        Kind::Gauge,
        "Commands and messages that wait for its worker or are being handled, on average.",
        |node| load_of(node).map_or(0, |load| load.queue.into()),
    ),
    (
        "tholos_node_clients_admitted",
        Kind::Gauge,
        "Clients that it takes at a time: limits.clients, or less if other nodes have more to spare.",
        |node| load_of(node).map_or(0, |load| load.clients_max),
    ),
    ("tholos_node_leads_target", Kind::Gauge, "Shards that this node should lead.", |node| {
        load_of(node).map_or(0, |load| load.target.into())
    }),
    (
        "tholos_node_stretch_percent",
        Kind::Gauge,
        "Time that the worker takes over time that a processor runs it, in percent; 0 if it has little to do.",
        |node| (load_of(node).and_then(|load| load.stretch).unwrap_or(0.0) * 100.0).round() as u64,
    ),
    (
        "tholos_wal_sync_mean_microseconds",
        Kind::Gauge,
        "What writing and syncing a batch of the log took lately; 0 if there was none.",
        |node| load_of(node).and_then(|load| load.sync_us).unwrap_or(0).into(),
    ),
    (
        "tholos_node_leaders_given_total",
        Kind::Counter,
        "Leaderships that this node gave to another; tholos cluster load tells why.",
        |node| load_of(node).map_or(0, |load| load.given),
    ),
    ("tholos_node_lost_nodes_total", Kind::Counter, "Times another node was not heard any more.", |node| {
        count(&node.handle.counters.nodes_lost)
    }),
    (
        "tholos_engine_keys",
        Kind::Gauge,
        "Keys in the keyspaces of this node, dead ones not removed yet left out.",
        |node| node.report.keys,
    ),
    ("tholos_engine_used_bytes", Kind::Gauge, "Memory of the keyspaces of this node, about.", |node| {
        node.report.used_bytes
    }),
    (
        "tholos_node_stalled_moves",
        Kind::Gauge,
        "Moves of the running job from which nothing has come for 10 s; told by the leader of the meta group.",
        |node| node.report.job.as_ref().map_or(0, JobReport::stalled),
    ),
    (
        "tholos_node_moves_bytes_per_second",
        Kind::Gauge,
        "Bytes a second that the running job sends, over the last few; told by the leader of the meta group.",
        |node| node.report.job.as_ref().map_or(0, |job| job.bytes_per_s),
    ),
    ("tholos_paxos_replicas", Kind::Gauge, "Shards that this node holds a replica of.", |node| {
        node.report.shards.len() as u64
    }),
    ("tholos_paxos_leads", Kind::Gauge, "Shards that this node leads.", |node| {
        node.report.shards.iter().filter(|shard| shard.leads).count() as u64
    }),
    (
        "tholos_paxos_mute_replicas",
        Kind::Gauge,
        "Replicas that have lost data and vote nowhere until the others have repaired them.",
        |node| node.report.shards.iter().filter(|shard| shard.mute.is_some()).count() as u64,
    ),
    (
        "tholos_paxos_muted_replicas_total",
        Kind::Counter,
        "Times a replica of this node was found to have lost data.",
        |node| count(&node.handle.counters.replicas_muted),
    ),
    (
        "tholos_node_clock_off_milliseconds",
        Kind::Gauge,
        "How far this node's wall clock is off the median of the nodes' clocks, whichever way.",
        |node| node.report.clock_ahead_ms.map_or(0, i64::unsigned_abs),
    ),
    (
        "tholos_node_went_back_total",
        Kind::Counter,
        "Times the others had counted more of this node's log than it has: an old copy of a directory, a lost file.",
        |node| count(&node.handle.counters.went_back),
    ),
    (
        "tholos_node_diverged_replicas_total",
        Kind::Counter,
        "Replicas found to have another state than a majority, by this node as their leader.",
        |node| count(&node.handle.counters.replicas_diverged),
    ),
    (
        "tholos_node_undecided_differences_total",
        Kind::Counter,
        "Times the states of replicas differed and no majority agreed, as this node as their leader saw.",
        |node| count(&node.handle.counters.states_differed),
    ),
    (
        "tholos_paxos_repaired_replicas_total",
        Kind::Counter,
        "Times a replica of this node that had lost data was repaired.",
        |node| count(&node.handle.counters.replicas_repaired),
    ),
    (
        "tholos_paxos_leaders_elected_total",
        Kind::Counter,
        "Times this node became leader of a shard.",
        |node| count(&node.handle.counters.leaders_elected),
    ),
    (
        "tholos_paxos_leaders_stopped_total",
        Kind::Counter,
        "Times this node stopped leading a shard.",
        |node| count(&node.handle.counters.leaders_stopped),
    ),
    ("tholos_node_snapshots_installed_total", Kind::Counter, "Snapshots received and installed.", |node| {
        count(&node.handle.counters.snapshots_installed)
    }),
    ("tholos_wal_snapshots_saved_total", Kind::Counter, "Snapshot files written.", |node| {
        count(&node.handle.counters.snapshots_saved)
    }),
    (
        "tholos_node_snapshots_resumed_total",
        Kind::Counter,
        "Transfers of snapshots to other nodes that went on after a break.",
        |node| count(&node.handle.counters.snapshots_resumed),
    ),
    (
        "tholos_node_snapshot_slice_longest_nanoseconds",
        Kind::Gauge,
        "The longest that commands waited for one piece of work on a snapshot, since start.",
        |node| count(&node.handle.counters.snapshot_slice_longest_nanos),
    ),
    ("tholos_wal_appends_total", Kind::Counter, "Records appended to the log.", |node| {
        count(&node.handle.wal.counters.appends)
    }),
    ("tholos_wal_written_bytes_total", Kind::Counter, "Bytes written to the log.", |node| {
        count(&node.handle.wal.counters.written_bytes)
    }),
    (
        "tholos_wal_syncs_total",
        Kind::Counter,
        "Syncs of the log: appends divided by syncs is what one sync serves.",
        |node| count(&node.handle.wal.counters.syncs),
    ),
    ("tholos_wal_live_bytes", Kind::Gauge, "Bytes of the log that are not released.", |node| {
        count(&node.handle.wal.counters.live_bytes)
    }),
    (
        "tholos_server_disk_free_bytes",
        Kind::Gauge,
        "Bytes that may be written to the disk of this node, its reserve left out.",
        |node| node.report.disk_free_bytes.unwrap_or(0),
    ),
    ("tholos_wal_file_bytes", Kind::Gauge, "Bytes of all files of the log.", |node| {
        count(&node.handle.wal.counters.file_bytes)
    }),
    ("tholos_rpc_messages_sent_total", Kind::Counter, "Messages sent to other nodes.", |node| {
        count(&node.handle.counters.peer_messages_sent)
    }),
    ("tholos_rpc_messages_received_total", Kind::Counter, "Messages received from other nodes.", |node| {
        count(&node.handle.counters.peer_messages_received)
    }),
    (
        "tholos_rpc_messages_undecodable_total",
        Kind::Counter,
        "Messages from other nodes that could not be read.",
        |node| count(&node.handle.counters.peer_messages_undecodable),
    ),
    (
        "tholos_rpc_messages_senseless_total",
        Kind::Counter,
        "Messages from other nodes that made no sense.",
        |node| count(&node.handle.counters.peer_messages_senseless),
    ),
    (
        "tholos_rpc_payloads_dropped_total",
        Kind::Counter,
        "Payloads that could not be sent: the peer is not connected or does not keep up.",
        |node| count(&node.handle.counters.peer_payloads_dropped),
    ),
    (
        "tholos_rpc_connections_refused_total",
        Kind::Counter,
        "Connections with other nodes that did not come about.",
        |node| count(&node.handle.counters.peer_connections_refused),
    ),
];

async fn metrics(State(admin): State<Admin>) -> Response {
    let mut samples = Vec::new();
    for handle in admin.handles() {
        if let Ok(report) = report(&handle).await {
            let clients = handle.client_counts();
            samples.push(Sample { handle, report, clients });
        }
    }
    let mut exposition = Exposition::new();
    for (name, kind, help, read) in METRICS {
        let values = samples.iter().map(|sample| (sample.report.name.clone(), read(sample)));
        exposition.metric(name, *kind, help, values);
    }
    let reasons = samples.iter().flat_map(|sample| {
        let of = load_of(sample).into_iter().flat_map(|load| &load.reasons);
        of.map(|(reason, count)| (sample.report.name.clone(), reason.clone(), *count))
    });
    let help = "Leaderships that this node gave to another, by reason.";
    exposition.counter_by("tholos_node_leader_moves_total", help, "reason", reasons);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], exposition.finish()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<HeaderMap>()
    }

    #[test]
    fn only_loopback_names_are_a_host() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "[::1]", "127.9.9.9"] {
            assert!(names_loopback(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example:8080", "10.0.0.1:8080", "localhost.evil.example", ""] {
            assert!(!names_loopback(&headers(&[("host", host)])), "{host}");
        }
        assert!(!names_loopback(&headers(&[])));
    }

    #[test]
    fn write_from_another_page_is_refused() {
        let same = headers(&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")]);
        assert!(is_same_origin(&same));
        assert!(
            is_same_origin(&headers(&[("host", "127.0.0.1:8080")])),
            "curl and the command line send none"
        );
        for origin in ["http://evil.example", "http://127.0.0.1:9090", "null"] {
            assert!(!is_same_origin(&headers(&[("host", "127.0.0.1:8080"), ("origin", origin)])), "{origin}");
        }
    }

    #[test]
    fn metric_names_follow_the_rule_and_are_used_once() {
        let mut names: Vec<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
        for (name, kind, ..) in METRICS {
            assert!(name.starts_with("tholos_"), "{name}");
            assert_eq!(name.ends_with("_total"), matches!(kind, Kind::Counter), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
