//! Plans of changes, made from what the nodes of the running cluster say of themselves: shown as JSON, and applied.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tholos_cluster::{
    Check, CheckKind, ClusterMap, Epoch, Facts, Job, LAG_ENTRIES_MAX, MOVE_BYTES_PER_S_DEFAULT, MetaCommand,
    MetaState, NodeEffect, NodeId, NodeRow, NodeSaid, Outcome, Plan, PlanError, PlanId, Refusal, Request,
    ShardSaid, plan,
};
use tholos_ring::ShardId;

use crate::admin::{Admin, Failure, Field, Fields, Json, Query};
use crate::jobs::{IN_FLIGHT, ask_meta, stopped};
use crate::recovery;
use crate::status::{Answers, NodeReport, ShardReport};

/// Plans that are remembered, to be applied by their names.
const PLANS_MAX: usize = 64;
/// Where a directory keeps them: a list of [`Made`] as JSON.
const PLANS_FILE: &str = "plans.json";

/// A plan as `tholos cluster plan --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// Its short name.
    pub id: String,
    /// The epoch of the map that it was made for.
    pub epoch: u64,
    /// What was asked for.
    pub request: String,
    /// Whether it may not be applied: see `checks`.
    pub blocked: bool,
    /// In the order in which they are made.
    pub moves: Vec<MoveReport>,
    /// Replicas that are copied to another node.
    pub moves_total: usize,
    /// Copies that no placement with these shares could save.
    pub least_possible: usize,
    /// Replicas of all shards afterwards.
    pub replicas: usize,
    /// Bytes to be copied, about.
    pub bytes: u64,
    /// The rate in bytes a second that the estimate is made for.
    pub bytes_per_s: u64,
    /// Seconds that copying takes at that rate.
    pub estimate_s: u64,
    /// Shards that are to be led by another node than the map prefers today.
    pub leaders: Vec<LeaderReport>,
    /// Nodes that restart, one after the other.
    pub restarts: Vec<String>,
    /// What becomes of each node.
    pub nodes: Vec<EffectReport>,
    /// What was looked at.
    pub checks: Vec<CheckReport>,
}

/// One replica's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MoveReport {
    /// The shard.
    pub shard: u16,
    /// Who gives its replica up; null if the shard gets one more.
    pub from: Option<String>,
    /// Who gets it; null if the shard keeps one less.
    pub to: Option<String>,
}

/// A shard's preferred leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaderReport {
    /// The shard.
    pub shard: u16,
    /// Who is to lead it.
    pub to: String,
}

/// What becomes of a node; pairs are before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EffectReport {
    /// Its name.
    pub name: String,
    /// Its zone afterwards; empty if it is one of its own.
    pub zone: String,
    /// Replicas it holds.
    pub replicas: [usize; 2],
    /// Shards it leads.
    pub leads: [usize; 2],
    /// Bytes of what it holds, about.
    pub bytes: [u64; 2],
    /// What to know of it.
    pub note: Option<String>,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// `quorum`, `disk`, `memory` or `zones`.
    pub check: &'static str,
    /// What it finds out.
    pub what: &'static str,
    /// Whether nothing was found.
    pub ok: bool,
    /// Whether what was found blocks the plan.
    pub blocks: bool,
    /// What was found, the first of it.
    pub reasons: Vec<String>,
    /// How much was found.
    pub reasons_total: usize,
}

/// What the nodes' answers say about the cluster.
pub(crate) fn facts(map: &ClusterMap, answers: &Answers) -> Facts {
    let said = |answer: &Result<NodeReport, String>| answer.as_ref().map(said).map_err(Clone::clone);
    let said: Vec<Result<NodeSaid, String>> = answers.iter().map(said).collect();
    Facts::gather(map, &said, LAG_ENTRIES_MAX)
}

fn said(report: &NodeReport) -> NodeSaid {
    let shard = |own: &ShardReport| ShardSaid {
        shard: ShardId(own.shard),
        leads: own.leads.then_some(own.round),
        decided: own.decided,
        bytes: own.bytes,
        data_bytes: own.data_bytes,
        config: own.config,
        voters: own.voters.iter().copied().map(NodeId).collect(),
        mute: own.mute.is_some(),
    };
    NodeSaid {
        disk_free: report.disk_free_bytes,
        memory_free: report.memory_free_bytes,
        shards: report.shards.iter().map(shard).collect(),
    }
}

/// Plans that a node has made, recoveries among them, so that one can be applied by its name, at any node. What a plan was
/// made of is all that is kept: it is made again when it is to be applied. So a file that is lost costs another look, and
/// nothing is synced.
#[derive(Clone, Default)]
pub(crate) struct Plans {
    made: Arc<Mutex<VecDeque<Made>>>,
    /// Where they outlive the process.
    file: Option<Arc<Path>>,
}

/// What a plan was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its short name.
    pub id: String,
    /// The epoch of the map that it was made for.
    pub epoch: u64,
    /// What was asked for.
    pub request: String,
}

impl Plans {
    /// Those that a directory has kept, and keeps from now on.
    pub(crate) fn of_directory(directory: &Path) -> Plans {
        let file = directory.join(PLANS_FILE);
        let kept = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut made: VecDeque<Made> = kept.unwrap_or_default();
        made.truncate(PLANS_MAX);
        Plans { made: Arc::new(Mutex::new(made)), file: Some(file.into()) }
    }

    /// Remembers what a plan of this name was made of.
    pub(crate) fn remember(&self, id: PlanId, epoch: Epoch, request: String) {
        let made = Made { id: id.to_string(), epoch: epoch.0, request };
        let mut plans = self.lock();
        if plans.contains(&made) {
            return;
        }
        plans.retain(|other| other.id != made.id);
        if plans.len() == PLANS_MAX {
            plans.pop_front();
        }
        plans.push_back(made);
        if let Some(file) = &self.file
            && let Err(error) = keep(file, &plans)
        {
            tracing::warn!(%error, file = %file.display(), "a plan cannot be kept: it is forgotten when the process ends");
        }
    }

    fn find(&self, id: PlanId) -> Option<Made> {
        let id = id.to_string();
        self.lock().iter().find(|made| made.id == id).cloned()
    }

    /// Those for the map of an epoch: others cannot be applied.
    pub(crate) fn of(&self, epoch: Epoch) -> Vec<Made> {
        self.lock().iter().filter(|made| made.epoch == epoch.0).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Made>> {
        // No code under this lock can leave the list half changed.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Written beside and renamed, so that a process that is killed leaves the old list or the new one.
fn keep(file: &Path, plans: &VecDeque<Made>) -> io::Result<()> {
    let new = file.with_extension("tmp");
    fs::write(&new, serde_json::to_vec(plans)?)?;
    fs::rename(&new, file)
}

/// What the plan of a name was made of, as this node or another that has answered remembers it.
pub(crate) fn made(admin: &Admin, state: &MetaState, answers: &Answers, id: PlanId) -> Option<Made> {
    admin.plans.find(id).or_else(|| made_elsewhere(state, answers, id))
}

/// Makes the plan that a request in words takes ([`MetaState::request`]).
fn planned(state: &MetaState, answers: &Answers, words: &str) -> Result<Plan, PlanError> {
    let map = &state.map;
    plan(map, &state.standings, &facts(map, answers), &state.request(words)?)
}

fn failure(code: StatusCode, error: impl Into<String>) -> Response {
    (code, Json(Failure { error: error.into() })).into_response()
}

fn refused(error: &PlanError) -> Response {
    let code = match error {
        PlanError::NotUnderstood(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    failure(code, error.to_string())
}

/// The state, and what the nodes of its map say.
async fn look(admin: &Admin) -> Result<(Arc<MetaState>, Answers), Response> {
    let state = admin.state().ok_or_else(stopped)?;
    let answers = admin.ask_all().await;
    // The answers are in the order of the map that they were asked by.
    if admin.state().is_none_or(|now| now.map.nodes.len() != state.map.nodes.len())
        || answers.len() != state.map.nodes.len()
    {
        return Err(failure(StatusCode::CONFLICT, "nodes have come or gone meanwhile: try again"));
    }
    Ok((state, answers))
}

#[derive(Deserialize)]
pub(crate) struct PlanQuery {
    request: String,
}

impl Fields for PlanQuery {
    const FIELDS: &'static [Field] = &[("request", "the words of tholos cluster plan, such as \"add n4\"")];
    const REQUIRED: &'static [&'static str] = &["request"];
}

/// `GET /v1/plan?request=`. Changes nothing.
pub(crate) async fn show(State(admin): State<Admin>, Query(query): Query<PlanQuery>) -> Response {
    let (state, answers) = match look(&admin).await {
        Ok(seen) => seen,
        Err(response) => return response,
    };
    match planned(&state, &answers, &query.request) {
        Ok(plan) => {
            admin.plans.remember(plan.id, plan.epoch, plan.request.to_words(&state.map));
            Json(report(&state.map, &answers, &plan)).into_response()
        }
        Err(error) => refused(&error),
    }
}

#[derive(Deserialize)]
pub(crate) struct ApplyQuery {
    id: String,
    /// Bytes of snapshots a second, 0 for no limit; 50,000,000 if not given.
    bytes_per_s: Option<u64>,
}

impl Fields for ApplyQuery {
    const FIELDS: &'static [Field] =
        &[("id", "the name of a plan, 8 hex digits"), ("bytes_per_s", "a number of bytes, 0 for no limit")];
    const REQUIRED: &'static [&'static str] = &["id"];
}

/// The job that a plan became.
#[derive(Serialize)]
struct Applied {
    job: u64,
    title: String,
}

/// `POST /v1/apply?id=&bytes_per_s=`. Starts the job of a plan that any node made, if all is still as it was then; that of a
/// plan which was applied before is told again.
pub(crate) async fn apply(State(admin): State<Admin>, Query(query): Query<ApplyQuery>) -> Response {
    let (state, answers) = match look(&admin).await {
        Ok(seen) => seen,
        Err(response) => return response,
    };
    let Some(id) = PlanId::from_hex(&query.id) else {
        let why = format!("{} is no name of a plan: it has 8 hex digits", query.id.escape_default());
        return failure(StatusCode::BAD_REQUEST, why);
    };
    if let Some(job) = job_of(&state, id) {
        return Json(Applied { job: job.id, title: job.title.clone() }).into_response();
    }
    let Some(made) = made(&admin, &state, &answers, id) else {
        let epoch = state.epoch();
        let why = format!(
            "no node that answers remembers a plan {id} for the map as it is now, {epoch}: plan again"
        );
        return failure(StatusCode::NOT_FOUND, why);
    };
    if state.epoch().0 != made.epoch {
        let refusal = Refusal::MapMoved { planned: Epoch(made.epoch), now: state.epoch() };
        return failure(StatusCode::CONFLICT, refusal.to_string());
    }
    if recovery::is_recovery(&made.request) {
        let why = format!("{id} is a recovery: tholos cluster recover apply {id} --i-accept-loss");
        return failure(StatusCode::CONFLICT, why);
    }
    let plan = match planned(&state, &answers, &made.request) {
        Ok(plan) => plan,
        Err(error) => return refused(&error),
    };
    let blocks = plan.checks.iter().filter(|check| check.outcome == Outcome::Blocks);
    if let Some(reason) = blocks.flat_map(|check| &check.reasons).next() {
        let why = format!("the plan is blocked: {}", reason.to_words(&state.map));
        return failure(StatusCode::CONFLICT, why);
    }
    if plan.id != id {
        let why = "replicas were lost or have come back since, and the plan is another one now: plan again";
        return failure(StatusCode::CONFLICT, why);
    }
    let order = plan.to_order(&state.map, IN_FLIGHT, query.bytes_per_s.unwrap_or(MOVE_BYTES_PER_S_DEFAULT));
    let title = order.title.clone();
    match ask_meta(&admin, MetaCommand::StartJob(order)).await {
        Ok(job) => Json(Applied { job, title }).into_response(),
        Err(response) => response,
    }
}

/// The job that a plan has become. A plan's name is half of its job's number; the other half is the epoch.
fn job_of(state: &MetaState, id: PlanId) -> Option<&Job> {
    state.jobs.iter().rev().find(|job| job.plan as u32 == id.0 && job.plan >> 32 > 0)
}

/// A plan that another node made for the map as it is.
fn made_elsewhere(state: &MetaState, answers: &Answers, id: PlanId) -> Option<Made> {
    let (id, epoch) = (id.to_string(), state.epoch().0);
    let mut made = answers.iter().flatten().flat_map(|report| &report.plans);
    made.find(|made| made.id == id && made.epoch == epoch).cloned()
}

fn report(map: &ClusterMap, answers: &Answers, plan: &Plan) -> PlanReport {
    let name = |node: NodeId| map.node(node).map_or_else(|| node.to_string(), |row| row.name.clone());
    let replicas = plan.moves.iter().filter(|step| step.leads().is_none());
    let moves = replicas.map(|step| MoveReport {
        shard: step.shard.0,
        from: step.from.map(name),
        to: step.to.map(name),
    });
    PlanReport {
        id: plan.id.to_string(),
        epoch: plan.epoch.0,
        request: plan.request.to_words(map),
        blocked: plan.is_blocked(),
        moves: moves.collect(),
        moves_total: plan.copies(),
        least_possible: plan.least_possible,
        replicas: plan.sets.iter().map(Vec::len).sum(),
        bytes: plan.bytes,
        bytes_per_s: MOVE_BYTES_PER_S_DEFAULT,
        estimate_s: plan.estimate_s(MOVE_BYTES_PER_S_DEFAULT),
        leaders: plan
            .leaders
            .iter()
            .map(|(shard, to)| LeaderReport { shard: shard.0, to: name(*to) })
            .collect(),
        restarts: plan.restarts().iter().map(|node| name(*node)).collect(),
        nodes: effects(map, answers, plan),
        checks: plan.checks.iter().map(|check| check_report(map, check)).collect(),
    }
}

fn effects(map: &ClusterMap, answers: &Answers, plan: &Plan) -> Vec<EffectReport> {
    let effect = |(row, answer, effect): (&NodeRow, &Result<NodeReport, String>, &NodeEffect)| {
        let (before, after) = effect.replicas;
        let drains = matches!(&plan.request, Request::Drain(nodes) if nodes.contains(&row.id))
            || matches!(&plan.request, Request::Replace { old, .. } if *old == row.id);
        let leaves = matches!(&plan.request, Request::Remove(nodes) if nodes.contains(&row.id));
        let note = match answer {
            Err(why) => Some(format!("down: {why}")),
            Ok(_) if leaves => {
                Some("hands its leaders over, then its replicas; leaves the cluster".to_owned())
            }
            Ok(_) if drains => Some("hands its leaders over, then its replicas; stays as a spare".to_owned()),
            Ok(_) if before == after && effect.alone_in_zone => {
                let zone = &effect.zone;
                Some(format!("unchanged: only node in zone {zone}, one copy per zone"))
            }
            Ok(_) => None,
        };
        EffectReport {
            name: row.name.clone(),
            zone: effect.zone.clone(),
            replicas: [before, after],
            leads: [effect.leads.0, effect.leads.1],
            bytes: [effect.bytes.0, effect.bytes.1],
            note,
        }
    };
    let rows = map.nodes.iter().zip(answers).zip(&plan.nodes);
    rows.map(|((row, answer), of_node)| effect((row, answer, of_node))).collect()
}

fn check_report(map: &ClusterMap, check: &Check) -> CheckReport {
    let (name, what) = match check.kind {
        CheckKind::Quorum => ("quorum", "quorum kept at every step"),
        CheckKind::Disk => ("disk", "disk fits"),
        CheckKind::Memory => ("memory", "memory fits"),
        CheckKind::Zones => ("zones", "no shard loses a zone"),
    };
    CheckReport {
        check: name,
        what,
        ok: check.outcome == Outcome::Ok,
        blocks: check.outcome == Outcome::Blocks,
        reasons: check.reasons.iter().map(|reason| reason.to_words(map)).collect(),
        reasons_total: check.reasons_total,
    }
}

#[cfg(test)]
mod tests;
