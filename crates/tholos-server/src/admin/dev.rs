//! What is done to nodes of `dev`: killing, restarting, adding, removing and wiping.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};

use super::{Admin, Failure, Field, Fields, Json, Query, Source};
use crate::dev::{DevError, NewNode, Shared};

/// The same router with the paths of `dev`.
pub(super) fn with_routes(router: Router<Admin>) -> Router<Admin> {
    router
        .route("/v1/dev/kill", post(kill))
        .route("/v1/dev/restart", post(restart))
        .route("/v1/dev/add", post(add))
        .route("/v1/dev/remove", post(remove))
        .route("/v1/dev/wipe", post(wipe))
}

#[derive(Deserialize)]
struct NodeQuery {
    node: String,
}

impl Fields for NodeQuery {
    const FIELDS: &'static [Field] = &[("node", "the name of a node")];
    const REQUIRED: &'static [&'static str] = &["node"];
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

impl Fields for NewNodeQuery {
    const FIELDS: &'static [Field] =
        &[("node", "the name of a new node"), ("zone", "a name"), ("weight", "a number from 1 to 100")];
    const REQUIRED: &'static [&'static str] = &[];
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
    let Source::Dev(shared) = &admin.source else { return super::only_dev() };
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
