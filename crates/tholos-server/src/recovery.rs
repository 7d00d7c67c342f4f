//! Recoveries from the loss of a majority (R29) over the admin interface: planned, applied, and what became of them.
//!
//! Every decision is [`tholos_cluster`]'s and the core's; here the nodes are asked what they have.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tholos_cluster::{
    ClusterMap, GroupRescue, Inventory, MetaCommand, MetaState, NodeId, PlanId, Recovery, RecoveryPlan,
    RecoveryRequest, RescueStage, plan_recovery,
};
use tholos_ring::ShardId;
use tholos_rpc::Secret;
use tokio::task::JoinSet;

use crate::admin::{Admin, Failure, Field, Fields, Json, Query};
use crate::genesis;
use crate::jobs::{ask_meta, stopped};
use crate::server::NodeHandle;
use crate::status::OTHER_DIRECTORY;
use crate::{join, plan};

/// Before the first group wanted, in two bytes, little-endian; the answer is an [`Inventory`].
const QUESTION: &[u8] = b"tholos survivors 1\n";
/// How long a node is waited for, for each part of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// What must come with an order to apply.
const WORD: &str = "loss";

/// The first group wanted, if a query is for what a node has.
pub(crate) fn wanted(query: &[u8]) -> Option<ShardId> {
    let first = query.strip_prefix(QUESTION)?.try_into().ok()?;
    Some(ShardId(u16::from_le_bytes(first)))
}

/// The first word of what a recovery was made of, among the plans that are remembered.
const RECOVER: &str = "recover";

/// Whether a plan was made of these words as a recovery.
pub(crate) fn is_recovery(words: &str) -> bool {
    words.split_whitespace().next() == Some(RECOVER)
}

/// A request in words, and back: `recover n2 n3 groups s4 meta`.
fn to_words(map: &ClusterMap, request: &RecoveryRequest) -> String {
    let lost = request.lost.iter().map(|node| name(map, node.0));
    let groups = request.groups.iter().map(|group| map.group_name(*group));
    let words = std::iter::once(RECOVER.to_owned()).chain(lost).chain(["groups".to_owned()]).chain(groups);
    words.collect::<Vec<_>>().join(" ")
}

fn from_words(map: &ClusterMap, words: &str) -> Option<RecoveryRequest> {
    let words: Vec<&str> = words.split_whitespace().collect();
    let (_, rest) = words.split_first().filter(|(first, _)| **first == RECOVER)?;
    // The last one: a node may be called so.
    let at = rest.iter().rposition(|word| *word == "groups")?;
    RecoveryRequest::parse(map, rest[..at].iter().copied(), rest[at + 1..].iter().copied()).ok()
}

/// A plan as `tholos cluster recover --json` prints it.
#[derive(Serialize)]
struct PlanView {
    id: String,
    epoch: u64,
    blocked: bool,
    /// Why it may not be applied.
    blocks: Vec<String>,
    /// Who is refused for ever from then on.
    lost: Vec<LostView>,
    /// Groups that go on with less.
    rescues: Vec<RescueView>,
    /// How many of them lose nothing for certain.
    lose_nothing: usize,
    /// Groups that have a majority and are left alone.
    whole: Vec<String>,
    /// Groups of which nothing is left.
    hopeless: Vec<String>,
    /// The meta group goes on already, by an order that the map does not know: who is lost is recorded.
    unrecorded: bool,
    /// What must be done before.
    warning: String,
}

#[derive(Serialize)]
struct LostView {
    name: String,
    node: u16,
    incarnation: String,
}

#[derive(Serialize)]
struct RescueView {
    /// `s12`, or `meta`.
    group: String,
    /// Whose log is kept.
    from: String,
    /// The ballot that it is accepted in.
    accepted_in: String,
    /// How far a survivor knows it to be decided.
    decided: u64,
    /// Its end: what is between is kept, and whether it was decided before is not known.
    kept_to: u64,
    /// Nothing can have been decided that is not kept.
    loses_nothing: bool,
    /// Who votes from then on.
    voters: Vec<String>,
    /// All that is left, with their marks.
    survivors: Vec<SurvivorView>,
    /// The same, for people.
    words: String,
}

#[derive(Serialize)]
struct SurvivorView {
    name: String,
    accepted_in: String,
    accepted: u64,
    decided: u64,
    promised: String,
    /// It has lost its data itself (R20).
    mute: bool,
}

fn name(map: &ClusterMap, node: u16) -> String {
    map.node(NodeId(node)).map_or_else(|| NodeId(node).to_string(), |row| row.name.clone())
}

fn rescue_view(map: &ClusterMap, rescue: &GroupRescue) -> RescueView {
    let (decided, kept_to) = rescue.marks();
    let order = &rescue.prospect.rescue;
    let survivors = rescue.survivors.iter().map(|survivor| SurvivorView {
        name: name(map, survivor.replica.node()),
        accepted_in: survivor.accepted.to_string(),
        accepted: survivor.length.0,
        decided: survivor.decided.0,
        promised: survivor.promised.to_string(),
        mute: survivor.mute,
    });
    RescueView {
        group: map.group_name(rescue.group),
        from: name(map, rescue.prospect.replica.node()),
        accepted_in: order.accepted.to_string(),
        decided: decided.0,
        kept_to: kept_to.0,
        loses_nothing: rescue.prospect.loses_nothing,
        voters: order.config.voters.iter().map(|voter| name(map, voter.node())).collect(),
        survivors: survivors.collect(),
        words: rescue.to_words(map),
    }
}

fn view(map: &ClusterMap, plan: &RecoveryPlan) -> PlanView {
    let lost: Vec<LostView> = plan
        .lost
        .iter()
        .map(|lost| LostView {
            name: lost.name.clone(),
            node: lost.id.0,
            incarnation: lost.incarnation.to_string(),
        })
        .collect();
    let names: Vec<&str> = lost.iter().map(|lost| lost.name.as_str()).collect();
    let warning = match names.as_slice() {
        [] => String::new(),
        [name] => format!(
            "{name} would still serve, and tell clients that their writes are safe. It must be destroyed first: no \
             process of it may ever run again, from no copy of its directory."
        ),
        _ => format!(
            "{} would still serve, alone with each other, and tell clients that their writes are safe. They must be \
             destroyed first: no process of theirs may ever run again, from no copy of their directories.",
            names.join(" and ")
        ),
    };
    let groups = |groups: &[ShardId]| groups.iter().map(|group| map.group_name(*group)).collect();
    PlanView {
        id: plan.id.to_string(),
        epoch: plan.epoch.0,
        blocked: plan.is_blocked(),
        blocks: plan.blocks.iter().map(|block| block.to_words(map)).collect(),
        rescues: plan.rescues.iter().map(|rescue| rescue_view(map, rescue)).collect(),
        lose_nothing: plan.lose_nothing(),
        whole: groups(&plan.whole),
        hopeless: groups(&plan.hopeless),
        unrecorded: plan.unrecorded,
        warning,
        lost,
    }
}

fn failure(code: StatusCode, error: impl Into<String>) -> Response {
    (code, Json(Failure { error: error.into() })).into_response()
}

/// A node, and how it is asked.
enum Asked {
    /// One of this process.
    Own(NodeHandle),
    /// Another, at its peer port.
    Other(String, Option<Secret>),
}

impl Asked {
    /// All that it has.
    async fn whole(&self) -> Result<Inventory, String> {
        let mut whole = self.part(ShardId(0)).await?;
        while let Some(first) = whole.next {
            append(&mut whole, self.part(first).await?)?;
        }
        Ok(whole)
    }

    /// What it has of groups from `first` on, as many as fit into an answer.
    async fn part(&self, first: ShardId) -> Result<Inventory, String> {
        match self {
            Asked::Own(handle) => {
                let asked = handle.inspect(move |node| node.inventory(first));
                match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
                    Ok(Some(part)) => Ok(part),
                    Ok(None) => Err("it has just stopped".to_owned()),
                    Err(_) => Err(format!("no answer within {ANSWER_TIMEOUT:?}")),
                }
            }
            Asked::Other(peer, secret) => {
                let question = Bytes::from([QUESTION, &first.0.to_le_bytes()].concat());
                let answer = genesis::ask(peer, secret.as_ref(), question, ANSWER_TIMEOUT).await;
                let answer = answer.map_err(|error| error.to_string())?;
                Inventory::decode(&answer)
                    .map_err(|_| "its answer cannot be read; compare the versions of both".to_owned())
            }
        }
    }
}

/// Adds a further part of what a node has.
fn append(whole: &mut Inventory, mut part: Inventory) -> Result<(), String> {
    if part.next.is_some() && part.next <= whole.next {
        return Err("its answer has no end; compare the versions of both".to_owned());
    }
    whole.replicas.append(&mut part.replicas);
    whole.next = part.next;
    Ok(())
}

/// What each node of the map says that it has, in the map's order.
async fn ask_all(admin: &Admin, map: &ClusterMap) -> Vec<Result<Inventory, String>> {
    let (handles, secret) = (admin.handles(), admin.secret());
    let mut asking = JoinSet::new();
    for (at, row) in map.nodes.iter().enumerate() {
        let id = row.id;
        let own = handles.iter().find(|handle| handle.id() == id).cloned().map(Asked::Own);
        let others = admin.asks_others() && !row.peer.is_empty();
        let asked = own.or_else(|| others.then(|| Asked::Other(row.peer.clone(), secret.clone())));
        asking.spawn(async move {
            let answer = match asked {
                // A node hears itself: else what answers is another directory, given up long ago.
                Some(asked) => asked.whole().await.and_then(|whole| match whole.hears.contains(&id) {
                    true => Ok(whole),
                    false => Err(OTHER_DIRECTORY.to_owned()),
                }),
                None => Err("it does not run".to_owned()),
            };
            (at, answer)
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[derive(Deserialize)]
pub(crate) struct PlanQuery {
    /// Names of nodes, with commas between them.
    #[serde(default)]
    lost: String,
    /// Groups, likewise; all if there are none.
    #[serde(default)]
    groups: String,
}

impl Fields for PlanQuery {
    const FIELDS: &'static [Field] = &[
        ("lost", "names of nodes, with commas between them"),
        ("groups", "groups such as s3 or meta, likewise; all if there are none"),
    ];
    const REQUIRED: &'static [&'static str] = &[];
}

/// `GET /v1/recover?lost=&groups=`. Changes nothing.
pub(crate) async fn show(State(admin): State<Admin>, Query(query): Query<PlanQuery>) -> Response {
    let Some(state) = admin.state() else { return stopped() };
    let words = |list: &str| -> Vec<String> {
        list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (lost, groups) = (words(&query.lost), words(&query.groups));
    let parsed = RecoveryRequest::parse(
        &state.map,
        lost.iter().map(String::as_str),
        groups.iter().map(String::as_str),
    );
    match parsed {
        Ok(request) => {
            let plan = plan_recovery(&state, &ask_all(&admin, &state.map).await, &request);
            admin.plans.remember(plan.id, plan.epoch, to_words(&state.map, &request));
            Json(view(&state.map, &plan)).into_response()
        }
        Err(error) => failure(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

#[derive(Deserialize)]
pub(crate) struct ApplyQuery {
    id: String,
    /// [`WORD`], or nothing happens.
    #[serde(default)]
    accept: String,
}

impl Fields for ApplyQuery {
    const FIELDS: &'static [Field] = &[
        ("id", "the name of a plan, 8 hex digits"),
        ("accept", "loss, since what was decided by the lost alone is lost"),
    ];
    const REQUIRED: &'static [&'static str] = &["id"];
}

#[derive(Serialize)]
struct Applied {
    recovery: u64,
}

/// `POST /v1/recover/apply?id=&accept=loss`. Begins the recovery of a plan that any node made, if all is still as it was
/// then; one that was begun before is told again.
pub(crate) async fn apply(State(admin): State<Admin>, Query(query): Query<ApplyQuery>) -> Response {
    let Some(state) = admin.state() else { return stopped() };
    if query.accept != WORD {
        let why = "nothing was done: what was decided by the lost nodes alone is lost for good, and that must be accepted \
                   with accept=loss";
        return failure(StatusCode::BAD_REQUEST, why);
    }
    let id = PlanId::from_hex(&query.id);
    // The lower half of the number is the plan's name.
    let begun = |id: PlanId| state.recoveries.iter().find(|known| known.order.plan as u32 == id.0);
    if let Some(known) = id.and_then(begun) {
        return Json(Applied { recovery: known.id }).into_response();
    }
    let answers = admin.ask_all().await;
    let request = |id| from_words(&state.map, &plan::made(&admin, &state, &answers, id)?.request);
    let Some((id, request)) = id.and_then(|id| Some((id, request(id)?))) else {
        let why = format!(
            "no node that answers remembers a recovery {} for the map {}: plan it again",
            query.id.escape_default(),
            state.epoch()
        );
        return failure(StatusCode::NOT_FOUND, why);
    };
    let plan = plan_recovery(&state, &ask_all(&admin, &state.map).await, &request);
    if let Some(block) = plan.blocks.first() {
        let why = format!("nothing was done: {}", block.to_words(&state.map));
        return failure(StatusCode::CONFLICT, why);
    }
    if plan.id != id {
        let why = "nothing was done: the map or the survivors' logs have changed since, and the plan is another one now: \
                   plan again";
        return failure(StatusCode::CONFLICT, why);
    }
    let by = admin.handles().first().map(|handle| handle.name().to_owned()).unwrap_or_default();
    match ask_meta(&admin, MetaCommand::Recover(plan.to_order(&by))).await {
        Ok(recovery) => Json(Applied { recovery }).into_response(),
        Err(response) => response,
    }
}

/// All recoveries that are remembered.
#[derive(Serialize)]
struct History {
    epoch: u64,
    /// Oldest first.
    recoveries: Vec<RecoveryView>,
}

/// What became of a recovery.
#[derive(Serialize)]
struct RecoveryView {
    id: u64,
    /// Unix milliseconds.
    at: u64,
    /// The node that was asked.
    by: String,
    /// The epoch of the map that it was begun with.
    epoch: u64,
    lost: Vec<LostView>,
    /// Whether nothing is still to be done.
    finished: bool,
    groups: Vec<GroupView>,
}

#[derive(Serialize)]
struct GroupView {
    group: String,
    from: String,
    decided: u64,
    kept_to: u64,
    loses_nothing: bool,
    /// `ordered`, `done` or `refused`.
    state: &'static str,
}

fn recovery_view(map: &ClusterMap, recovery: &Recovery) -> RecoveryView {
    let order = &recovery.order;
    let groups = order.groups.iter().zip(&recovery.stages).map(|(rescue, stage)| GroupView {
        group: map.group_name(rescue.group),
        from: name(map, rescue.replica.node()),
        decided: rescue.decided.0,
        kept_to: rescue.rescue.length.0,
        loses_nothing: rescue.loses_nothing,
        state: match stage {
            RescueStage::Ordered => "ordered",
            RescueStage::Done => "done",
            RescueStage::Refused => "refused",
        },
    });
    RecoveryView {
        id: recovery.id,
        at: recovery.at.0,
        by: order.by.clone(),
        epoch: recovery.epoch.0,
        lost: order
            .lost
            .iter()
            .map(|lost| LostView {
                name: lost.name.clone(),
                node: lost.id.0,
                incarnation: lost.incarnation.to_string(),
            })
            .collect(),
        finished: recovery.open().next().is_none(),
        groups: groups.collect(),
    }
}

/// `GET /v1/recoveries`.
pub(crate) async fn history(State(admin): State<Admin>) -> Response {
    let Some(state) = admin.state() else { return stopped() };
    let recoveries = state.recoveries.iter().map(|recovery| recovery_view(&state.map, recovery)).collect();
    Json(History { epoch: state.epoch().0, recoveries }).into_response()
}

/// What the status says of the last recovery, if there was one.
pub(crate) fn note(state: &MetaState) -> Option<String> {
    let last = state.recoveries.last()?;
    let names: Vec<&str> = last.order.lost.iter().map(|lost| lost.name.as_str()).collect();
    let lost = if names.is_empty() { "nobody".to_owned() } else { names.join(" and ") };
    let (open, done, refused) =
        (last.count(RescueStage::Ordered), last.count(RescueStage::Done), last.count(RescueStage::Refused));
    let how = match (open, refused) {
        (0, 0) if done == 0 => "it recorded no more than that".to_owned(),
        (0, 0) => format!("{done} groups go on without them"),
        (0, _) => format!("{done} groups go on without them, {refused} could not: plan it again"),
        (open, _) => format!("{open} of {} groups are still to go on", last.stages.len()),
    };
    Some(format!(
        "recovery {} at map epoch {} gave up {lost} for ever; {how} (tholos cluster recover --history)",
        last.id, last.epoch.0
    ))
}

/// How often a node that hears half of the others or fewer asks whether the cluster goes on without it.
const LOOK: Duration = Duration::from_secs(2);

/// A node that was given up, or removed, while it was away hears nobody but others to whom that happened, and nobody tells it
/// why: whoever leads its peers' map may not even dial it. So it asks, and says what it is told; then, or when the node ends,
/// this ends.
pub(crate) async fn tell_if_gone(handle: NodeHandle, secret: Option<Secret>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(heard) = handle.inspect(|node| node.detector().heard_nodes().len()).await else {
            return;
        };
        let own = handle.map();
        let may_be_gone = hears_few(heard, own.map.nodes.len());
        let others = own.map.nodes.iter().filter(|row| row.id != handle.id() && !row.peer.is_empty());
        for row in others.filter(|_| may_be_gone) {
            let Some(theirs) = join::ask_map(&row.peer, secret.as_ref(), ANSWER_TIMEOUT).await else {
                continue;
            };
            if theirs.map.cluster_id == own.map.cluster_id
                && theirs.epoch() > own.epoch()
                && theirs.is_gone(handle.id())
            {
                handle.gone.store(true, Ordering::Relaxed);
                tracing::error!(
                    node = handle.name(), of = %row.name, epoch = %theirs.epoch(),
                    "the cluster goes on without this node: it was given up for ever, or removed, while it was away, and is \
                     refused. What it holds is void: stop it and destroy its directory; to come back, let it join with an \
                     empty one"
                );
                return;
            }
        }
    }
}

/// Whether a node that hears `heard`, itself included, of `nodes` may be one that all others have given up: several that were
/// removed together hear each other.
const fn hears_few(heard: usize, nodes: usize) -> bool {
    heard <= 1 || heard * 2 <= nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_is_remembered_in_words() {
        let map = crate::status::tests::map();
        let check = |lost: &[&str], groups: &[&str], expected: &str| {
            let request = RecoveryRequest::parse(&map, lost.iter().copied(), groups.iter().copied()).unwrap();
            let words = to_words(&map, &request);
            assert_eq!(words, expected);
            assert!(is_recovery(&words));
            assert_eq!(from_words(&map, &words), Some(request));
        };
        check(&["n2", "n3"], &["s1", "meta"], "recover n2 n3 groups s1 meta");
        check(&[], &[], "recover groups");
        assert_eq!(from_words(&map, "recover n9 groups"), None, "a node that has left meanwhile");
        assert!(!is_recovery("remove n2") && from_words(&map, "remove n2").is_none());
    }

    #[test]
    fn nodes_that_were_removed_together_ask_as_well() {
        for (heard, nodes, few) in
            [(1, 1, true), (1, 6, true), (2, 6, true), (3, 6, true), (4, 6, false), (2, 3, false)]
        {
            assert_eq!(hears_few(heard, nodes), few, "{heard} of {nodes}");
        }
    }

    #[test]
    fn the_question_names_the_first_group() {
        assert_eq!(wanted(b"tholos survivors 1\n\x07\x01"), Some(ShardId(0x0107)));
        for other in [&b"tholos survivors 1\n"[..], b"tholos survivors 1\nabc", b"tholos status 1"] {
            assert_eq!(wanted(other), None);
        }
    }

    #[test]
    fn parts_are_put_together_and_have_an_end() {
        let part = |next: Option<u16>| Inventory {
            epoch: tholos_cluster::Epoch(1),
            hears: Vec::new(),
            replicas: Vec::new(),
            next: next.map(ShardId),
        };
        let mut whole = part(Some(2));
        assert_eq!(append(&mut whole, part(Some(4))), Ok(()));
        assert!(append(&mut whole, part(Some(4))).is_err_and(|why| why.contains("no end")));
        assert_eq!(append(&mut whole, part(None)), Ok(()));
        assert_eq!(whole, part(None));
    }
}
