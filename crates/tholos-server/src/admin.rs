//! The admin interface over HTTP: health, metrics, status, jobs; in `dev` also killing and restarting nodes.
//!
//! Without a password it serves loopback only (R28), with one whoever shows it: see [`guard`].

mod connections;
mod dev;
mod extract;
mod guard;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tholos_cluster::{ClusterMap, MetaState, NodeRow};
use tholos_rpc::Secret;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::connections::Bounds;
pub(crate) use self::connections::CONNECTIONS_MAX;
pub(crate) use self::extract::{Body, Field, Fields, Query};
use crate::dev::Shared;
use crate::genesis;
use crate::jobs;
use crate::load::cluster_load;
use crate::plan::{self, Plans};
use crate::recovery;
use crate::server::NodeHandle;
use crate::status::{Answers, NO_ADDRESS, NodeReport, cluster_status, locate};
use crate::upgrade;

/// How long another node is waited for.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the interface shows.
#[derive(Clone)]
pub(crate) struct Admin {
    source: Source,
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
        Admin { source: Source::Dev(shared), plans }
    }

    /// For one node.
    pub(crate) fn node(handle: NodeHandle, secret: Option<Secret>) -> Admin {
        let plans = handle.plans.clone();
        Admin { source: Source::Node(Arc::new(NodeSource { handle, secret })), plans }
    }

    /// Those that open it at present: whatever clients of a node of this process must show.
    fn passwords(&self) -> Vec<Bytes> {
        match &self.source {
            Source::Dev(shared) => shared.passwords(),
            Source::Node(node) => node.handle.password().into_iter().collect(),
        }
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
            let row = row.clone();
            asking.spawn(async move {
                let is_own = row.id == handle.id();
                let answer = if is_own { report(&handle).await } else { ask(&row, secret.as_ref()).await };
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

async fn ask(row: &NodeRow, secret: Option<&Secret>) -> Result<NodeReport, String> {
    if row.peer.is_empty() {
        return Err(NO_ADDRESS.to_owned());
    }
    let answer = genesis::ask_status(&row.peer, secret, NODE_TIMEOUT).await;
    let report: NodeReport = serde_json::from_slice(&answer.map_err(|error| error.to_string())?)
        .map_err(|_| "its answer cannot be read; compare the versions of both".to_owned())?;
    report.of_row(row)
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    let mut router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics::show))
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
        router = dev::with_routes(router);
    }
    let router = router
        .fallback(nothing_there)
        .method_not_allowed_fallback(not_so)
        .layer(middleware::from_fn_with_state(admin.clone(), guard::guard))
        .with_state(admin);
    connections::serve(listener, router, Bounds::default()).await;
}

async fn nothing_there(uri: Uri) -> Response {
    if uri.path().starts_with("/v1/dev/") {
        return only_dev();
    }
    let error = format!("there is nothing at {}", uri.path().escape_default());
    (StatusCode::NOT_FOUND, Json(Failure { error })).into_response()
}

fn only_dev() -> Response {
    let error = "only a cluster started by tholos dev can do this".to_owned();
    (StatusCode::NOT_FOUND, Json(Failure { error })).into_response()
}

async fn not_so(method: Method, uri: Uri) -> Response {
    let error = format!("{} does not take {method}", uri.path());
    (StatusCode::METHOD_NOT_ALLOWED, Json(Failure { error })).into_response()
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
    if let Source::Node(node) = &admin.source
        && node.handle.gone.load(Ordering::Relaxed)
    {
        // What it has seen last is long past.
        let name = node.handle.name();
        let error = format!(
            "the cluster goes on without {name}: ask another node, and destroy the directory of this one"
        );
        return (StatusCode::GONE, Json(Failure { error })).into_response();
    }
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

impl Fields for KeyQuery {
    const FIELDS: &'static [Field] = &[("key", "a key, as a client would send it")];
    const REQUIRED: &'static [&'static str] = &["key"];
}

async fn location(State(admin): State<Admin>, Query(query): Query<KeyQuery>) -> Response {
    Json(locate(&admin.map(), &admin.ask_all().await, query.key.as_bytes())).into_response()
}
