//! Jobs over the admin interface: what they are, and what is asked of the meta group about them.

mod view;

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tholos_cluster::{
    Cause, ClusterMap, Epoch, JobOrder, MOVE_BYTES_PER_S_DEFAULT, MetaCommand, MetaState, Move, MoveStage,
    NodeChange, Standing,
};
use tholos_ring::ShardId;

use crate::admin::{Admin, Body, Failure, Field, Fields, Json, Query};

/// Moves under way at a time, if nothing else is asked for.
pub(crate) const IN_FLIGHT: u16 = 4;

/// `GET /v1/jobs`.
pub(crate) async fn list(State(admin): State<Admin>) -> Response {
    let Some(state) = admin.state() else { return stopped() };
    Json(view::view(&state, &admin.ask_all().await, unix_ms())).into_response()
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn stopped() -> Response {
    let error = "every node is stopped".to_owned();
    (StatusCode::SERVICE_UNAVAILABLE, Json(Failure { error })).into_response()
}

#[derive(Deserialize)]
pub(crate) struct JobQuery {
    id: u64,
}

impl Fields for JobQuery {
    const FIELDS: &'static [Field] = &[("id", "the number of a job")];
    const REQUIRED: &'static [&'static str] = &["id"];
}

/// `POST /v1/jobs/pause?id=`.
pub(crate) async fn pause(State(admin): State<Admin>, Query(query): Query<JobQuery>) -> Response {
    steer(&admin, query.id, MetaCommand::Pause(query.id)).await
}

/// `POST /v1/jobs/resume?id=`.
pub(crate) async fn resume(State(admin): State<Admin>, Query(query): Query<JobQuery>) -> Response {
    steer(&admin, query.id, MetaCommand::Resume(query.id)).await
}

/// `POST /v1/jobs/cancel?id=`.
pub(crate) async fn cancel(State(admin): State<Admin>, Query(query): Query<JobQuery>) -> Response {
    steer(&admin, query.id, MetaCommand::Cancel(query.id)).await
}

/// What an operator reads of the jobs in the status.
pub(crate) fn notes(state: &MetaState) -> Vec<String> {
    let job = state.active_job().map(|job| {
        let (replicas, moved) = job.copies(state.map.meta_group());
        let (done, all, what) = match (replicas, job.restarts.len()) {
            (0, 0) => (job.count(MoveStage::Recorded), job.moves.len(), "moves"),
            (0, all) => (job.restarts.iter().filter(|one| one.is_finished()).count(), all, "restarts"),
            (all, _) => (moved, all, "replicas"),
        };
        format!("job {} is {}: {}: {done}/{all} {what}", job.id, view::state_word(job.state), job.title)
    });
    let held = "no job begins by itself: tholos cluster release lets them again";
    job.into_iter().chain(state.held.then(|| held.to_owned())).collect()
}

#[derive(Deserialize)]
pub(crate) struct HoldQuery {
    held: bool,
}

impl Fields for HoldQuery {
    const FIELDS: &'static [Field] = &[("held", "true or false")];
    const REQUIRED: &'static [&'static str] = &["held"];
}

/// `POST /v1/hold?held=true`: jobs begin by themselves no more, or with `false` again.
pub(crate) async fn hold(State(admin): State<Admin>, Query(query): Query<HoldQuery>) -> Response {
    match ask_meta(&admin, MetaCommand::Hold(query.held)).await {
        Ok(epoch) => Json(Held { held: query.held, epoch }).into_response(),
        Err(response) => response,
    }
}

/// Whether jobs begin by themselves.
#[derive(Serialize)]
struct Held {
    held: bool,
    /// That of the map from which on it is so.
    epoch: u64,
}

#[derive(Deserialize)]
pub(crate) struct ThrottleQuery {
    id: u64,
    /// 0 if nothing is to hold it back.
    bytes_per_s: u64,
}

impl Fields for ThrottleQuery {
    const FIELDS: &'static [Field] =
        &[("id", "the number of a job"), ("bytes_per_s", "a number of bytes, 0 for no limit")];
    const REQUIRED: &'static [&'static str] = &["id", "bytes_per_s"];
}

/// `POST /v1/jobs/throttle?id=&bytes_per_s=`.
pub(crate) async fn throttle(State(admin): State<Admin>, Query(query): Query<ThrottleQuery>) -> Response {
    let command = MetaCommand::Throttle { job: query.id, bytes_per_s: query.bytes_per_s };
    steer(&admin, query.id, command).await
}

/// What became of a job that was paused and the like.
#[derive(Serialize)]
struct Steered {
    job: u64,
    /// That of the map from which on it is so.
    epoch: u64,
}

async fn steer(admin: &Admin, job: u64, command: MetaCommand) -> Response {
    match ask_meta(admin, command).await {
        Ok(epoch) => Json(Steered { job, epoch }).into_response(),
        Err(response) => response,
    }
}

/// What the meta group answered.
#[derive(Serialize)]
struct Answered {
    /// The job's number where one was started, else the epoch.
    answer: u64,
}

/// Has the meta group decide a command; in its name by any node that runs.
pub(crate) async fn ask(admin: &Admin, command: MetaCommand) -> Response {
    match ask_meta(admin, command).await {
        Ok(answer) => Json(Answered { answer }).into_response(),
        Err(response) => response,
    }
}

/// The same; the answer, or the response that says why there is none.
pub(crate) async fn ask_meta(admin: &Admin, command: MetaCommand) -> Result<u64, Response> {
    let Some(node) = admin.handles().into_iter().next() else { return Err(stopped()) };
    let (job, recovery) =
        (matches!(command, MetaCommand::StartJob(_)), matches!(command, MetaCommand::Recover(_)));
    let answer = node.ask_meta(command).await.map_err(|failure| {
        let code = if failure.retry { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::CONFLICT };
        (code, Json(Failure { error: failure.text })).into_response()
    })?;
    // Who is told of a job or a recovery looks for it next, and here.
    if job {
        node.knows(|state| state.job(answer).is_some()).await;
    }
    if recovery {
        node.knows(|state| state.recoveries.iter().any(|known| known.id == answer)).await;
    }
    Ok(answer)
}

/// A job to start, with nodes by their names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderBody {
    /// Whatever tells it from other jobs: the same number is the same job.
    plan: u64,
    /// The epoch that it was made for.
    epoch: u64,
    title: String,
    in_flight_max: Option<u16>,
    /// Bytes of snapshots a second, 0 for no limit; 50,000,000 if not given.
    bytes_per_s: Option<u64>,
    /// Replicas that each shard is meant to have; as before if not given.
    replicas: Option<u8>,
    /// `member`, `spare` or `draining`.
    #[serde(default)]
    standings: BTreeMap<String, String>,
    #[serde(default)]
    weights: BTreeMap<String, u16>,
    #[serde(default)]
    zones: BTreeMap<String, String>,
    #[serde(default)]
    moves: Vec<MoveBody>,
    #[serde(default)]
    removes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoveBody {
    shard: u16,
    from: Option<String>,
    to: Option<String>,
}

impl Fields for OrderBody {
    const FIELDS: &'static [Field] = &[
        ("plan", "a number that tells it from other jobs"),
        ("epoch", "that of the map that it was made for"),
        ("title", "a text"),
        ("in_flight_max", "a number of moves"),
        ("bytes_per_s", "a number of bytes, 0 for no limit"),
        ("replicas", "a number"),
        ("standings", "member, spare or draining for each node by name"),
        ("weights", "a number for each node by name"),
        ("zones", "a name for each node by name"),
        ("moves", "a list, each with a number shard and the names of nodes from, to or both"),
        ("removes", "a list of names of nodes"),
    ];
    const REQUIRED: &'static [&'static str] = &["plan", "epoch", "title"];
}

impl OrderBody {
    fn order(self, map: &ClusterMap) -> Result<JobOrder, String> {
        let id = |name: &String| {
            map.by_name(name).map(|row| row.id).ok_or_else(|| format!("the cluster has no node {name}"))
        };
        let standing = |word: &str| match word {
            "member" => Ok(Standing::Member),
            "spare" => Ok(Standing::Spare),
            "draining" => Ok(Standing::Draining),
            other => Err(format!("{other} is none of member, spare and draining")),
        };
        let mut changes = Vec::new();
        for (name, word) in &self.standings {
            changes.push(NodeChange::Standing(id(name)?, standing(word)?));
        }
        for (name, weight) in &self.weights {
            changes.push(NodeChange::Weight(id(name)?, *weight));
        }
        for (name, zone) in &self.zones {
            changes.push(NodeChange::Zone(id(name)?, zone.clone()));
        }
        let step = |body: &MoveBody| {
            let (from, to) = (body.from.as_ref().map(id).transpose()?, body.to.as_ref().map(id).transpose()?);
            Ok(Move { shard: ShardId(body.shard), from, to })
        };
        Ok(JobOrder {
            plan: self.plan,
            epoch: Epoch(self.epoch),
            title: self.title,
            in_flight_max: self.in_flight_max.unwrap_or(IN_FLIGHT),
            bytes_per_s: self.bytes_per_s.unwrap_or(MOVE_BYTES_PER_S_DEFAULT),
            replicas: self.replicas.unwrap_or(map.replicas),
            changes,
            moves: self.moves.iter().map(step).collect::<Result<_, String>>()?,
            removes: self.removes.iter().map(id).collect::<Result<_, String>>()?,
            cause: Cause::Operator,
            restarts: Vec::new(),
        })
    }
}

/// `POST /v1/jobs`.
pub(crate) async fn start(State(admin): State<Admin>, Body(body): Body<OrderBody>) -> Response {
    match body.order(&admin.map()) {
        Ok(order) => ask(&admin, MetaCommand::StartJob(order)).await,
        Err(error) => (StatusCode::BAD_REQUEST, Json(Failure { error })).into_response(),
    }
}
