//! The cluster's feature level over the admin interface: which node's program knows what, and the last step of an upgrade.
//!
//! Every decision is [`tholos_cluster`]'s and the meta group's; here it is told with names and versions.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tholos_cluster::{Level, MetaCommand, MetaState, NodeRow, Standing};

use crate::admin::{Admin, Failure, Json};
use crate::jobs::{ask_meta, stopped};
use crate::node_dir::NodeDir;
use crate::server::StartError;
use crate::status::{Answers, NodeReport};

/// Why a node of a program that knows levels up to `known` cannot be one of a cluster at `level`; `None` if it can.
pub(crate) fn refusal(level: Level, known: Level) -> Option<String> {
    (level > known).then(|| {
        format!(
            "the cluster is at feature level {level}, and this program ({}) knows level {known} at most: start a later release",
            env!("CARGO_PKG_VERSION")
        )
    })
}

/// A node does not start if its cluster is past what this program knows, as far as its directory tells.
///
/// # Errors
/// `Settings`; nothing was changed.
pub(crate) fn check(directory: &NodeDir) -> Result<(), StartError> {
    let level = directory.state().map(|state| state.level);
    match level.and_then(|level| refusal(level, Level::KNOWN)) {
        Some(why) => Err(StartError::Settings(format!("{}: {why}", directory.path().display()))),
        None => Ok(()),
    }
}

/// As `tholos cluster upgrade --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UpgradeReport {
    /// The cluster's feature level.
    level: u16,
    /// The highest that a node's program knows.
    newest: u16,
    /// Every node of the map.
    nodes: Vec<UpgradeRow>,
    /// Names of nodes whose programs do not know `newest`.
    behind: Vec<String>,
}

/// A node's programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct UpgradeRow {
    /// Its name.
    name: String,
    /// The version of its program; `None` if it does not answer.
    version: Option<String>,
    /// The highest feature level that it knows, as it has said itself.
    level: u16,
}

fn report(state: &MetaState, answers: &Answers) -> UpgradeReport {
    let lost = |row: &NodeRow| state.standing(row.id) == Some(Standing::Lost);
    let rows = state.map.nodes.iter().zip(answers).filter(|(row, _)| !lost(row));
    let version =
        |answer: &Result<NodeReport, String>| answer.as_ref().ok().map(|report| report.version.clone());
    let row = |(row, answer): (&NodeRow, &Result<NodeReport, String>)| UpgradeRow {
        name: row.name.clone(),
        version: version(answer),
        level: state.level_of(row.id).0,
    };
    let nodes: Vec<UpgradeRow> = rows.map(row).collect();
    let newest = nodes.iter().map(|node| node.level).max().unwrap_or(state.level.0);
    let behind = state.behind(Level(newest)).map(|row| row.name.clone()).collect();
    UpgradeReport { level: state.level.0, newest, nodes, behind }
}

/// What the status says of an upgrade that is not finished; `None` of one that is.
pub(crate) fn note(state: &MetaState) -> Option<String> {
    let newest = state.map.nodes.iter().map(|row| state.level_of(row.id)).max()?;
    if newest <= state.level {
        return None;
    }
    let behind: Vec<&str> = state.behind(newest).map(|row| row.name.as_str()).collect();
    let level = state.level;
    Some(match behind.is_empty() {
        true => format!(
            "every node knows feature level {newest}, and the cluster is at {level}: tholos cluster upgrade finish"
        ),
        false => format!(
            "an upgrade is under way: {} do not know feature level {newest} yet, and the cluster is at {level}",
            behind.join(" ")
        ),
    })
}

/// `GET /v1/upgrade`.
pub(crate) async fn show(State(admin): State<Admin>) -> Response {
    let Some(state) = admin.state() else { return stopped() };
    Json(report(&state, &admin.ask_all().await)).into_response()
}

/// What `upgrade finish` has done.
#[derive(Serialize)]
struct Finished {
    /// The cluster's feature level now.
    level: u16,
    /// Whether it has risen.
    raised: bool,
}

/// `POST /v1/upgrade/finish`. Raises the feature level to the highest that a node's program knows, if all know it.
pub(crate) async fn finish(State(admin): State<Admin>) -> Response {
    let Some(state) = admin.state() else { return stopped() };
    let report = report(&state, &admin.ask_all().await);
    if report.newest <= report.level {
        return Json(Finished { level: report.level, raised: false }).into_response();
    }
    if !report.behind.is_empty() {
        return (StatusCode::CONFLICT, Json(Failure { error: behind_words(&report) })).into_response();
    }
    match ask_meta(&admin, MetaCommand::Raise(Level(report.newest))).await {
        Ok(_) => Json(Finished { level: report.newest, raised: true }).into_response(),
        Err(response) => response,
    }
}

fn behind_words(report: &UpgradeReport) -> String {
    let behind = report.nodes.iter().filter(|node| report.behind.contains(&node.name));
    let told: Vec<String> = behind
        .map(|node| format!("{} ({})", node.name, node.version.as_deref().unwrap_or("does not answer")))
        .collect();
    format!(
        "feature level {} is not known to {}: give them the release that the others have (tholos cluster roll), or remove them",
        report.newest,
        told.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use tholos_cluster::NodeId;
    use tholos_paxos::Millis;

    use super::*;
    use crate::status::tests::map;

    fn state(levels: &[(u16, u16)]) -> MetaState {
        let mut state = Some(MetaState::founded(map()));
        for (node, level) in levels {
            let incarnation = state.as_ref().unwrap().map.node(NodeId(*node)).unwrap().incarnation;
            let know = MetaCommand::Know { node: NodeId(*node), incarnation, level: Level(*level) };
            MetaState::apply(&mut state, &know, Millis(0)).unwrap();
        }
        state.unwrap()
    }

    fn answers() -> Answers {
        let answer = |version: &str| Ok(NodeReport { version: version.to_owned(), ..NodeReport::default() });
        vec![answer("0.2.0"), answer("0.1.0"), Err("no answer".to_owned())]
    }

    #[test]
    fn who_does_not_know_the_newest_level_is_named_with_its_version() {
        let report = report(&state(&[(1, 2)]), &answers());
        assert_eq!(
            (report.level, report.newest, report.behind.as_slice()),
            (1, 2, &["n2".to_owned(), "n3".to_owned()][..])
        );
        assert!(
            behind_words(&report)
                .starts_with("feature level 2 is not known to n2 (0.1.0), n3 (does not answer): ")
        );
        assert_eq!(report.nodes.iter().map(|node| node.level).collect::<Vec<_>>(), [2, 1, 1]);
    }

    #[test]
    fn the_status_tells_how_far_an_upgrade_is() {
        assert_eq!(note(&state(&[])), None);
        let told = note(&state(&[(1, 2), (3, 2)])).unwrap();
        assert_eq!(
            told,
            "an upgrade is under way: n2 do not know feature level 2 yet, and the cluster is at 1"
        );
        let mut all = state(&[(1, 2), (2, 2), (3, 2)]);
        assert!(note(&all).unwrap().ends_with("tholos cluster upgrade finish"));
        all.level = Level(2);
        assert_eq!(note(&all), None);
    }

    #[test]
    fn a_directory_of_a_later_level_is_left_alone() {
        let dir = std::env::temp_dir().join(format!("tholos-level-{:016x}", getrandom::u64().unwrap()));
        let begun = |level| {
            let mut directory = NodeDir::open(&dir, &format!("n{}", level)).unwrap();
            directory.begin(MetaState { level: Level(level), ..state(&[]) }).unwrap();
            drop(directory);
            NodeDir::open(&dir, &format!("n{}", level)).unwrap()
        };
        assert!(check(&begun(Level::KNOWN.0)).is_ok());
        let why = check(&begun(Level::KNOWN.0 + 1)).unwrap_err().to_string();
        assert!(why.contains("start a later release"), "{why}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_program_that_does_not_know_the_level_is_refused() {
        assert_eq!(refusal(Level(2), Level(2)), None);
        let why = refusal(Level(3), Level(2)).unwrap();
        assert!(why.starts_with("the cluster is at feature level 3, and this program ("), "{why}");
        assert!(why.ends_with("knows level 2 at most: start a later release"), "{why}");
    }
}
