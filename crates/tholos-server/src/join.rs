//! A node joins a cluster that runs: it asks a member, the meta group decides, and it begins with the map that has it.
//!
//! Asked again, a node gets the number that it was given: so a node that is killed meanwhile just starts again.

use std::time::Duration;

use bytes::Bytes;
use tholos_cluster::{Incarnation, Level, MetaCommand, MetaState, NodeRow};
use tholos_node::MetaFailure;
use tholos_rpc::Secret;

use crate::node_dir::NodeDir;
use crate::server::StartError;

/// Before a [`MetaCommand::Join`] of a program that knows [`Level::FIRST`].
const JOIN_QUESTION: &[u8] = b"tholos join 1\n";
/// The same of one that knows more: then comes the highest level that it knows, in two bytes, little-endian, before the command.
const JOIN_QUESTION_WITH_LEVEL: &[u8] = b"tholos join 2\n";
/// The question for a running node's newest map; the answer is a [`MetaState`].
const MAP_QUESTION: &[u8] = b"tholos map 1";
/// How long the member is waited for: longer than it waits for the meta group.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// After how many questions without success it is told why.
const QUESTIONS_BETWEEN_TELLING: u32 = 25;

/// What a node that would join asks.
pub(crate) enum Question {
    /// To be let in, with a program that knows feature levels up to this one.
    Join(MetaCommand, Level),
    /// For the map.
    Map,
}

impl Question {
    /// The question in a query, if it is one of these.
    pub(crate) fn read(query: &[u8]) -> Option<Question> {
        if query == MAP_QUESTION {
            return Some(Question::Map);
        }
        let (known, command) = match query.strip_prefix(JOIN_QUESTION) {
            Some(command) => (Level::FIRST, command),
            None => {
                let (known, command) = query.strip_prefix(JOIN_QUESTION_WITH_LEVEL)?.split_first_chunk()?;
                (Level(u16::from_le_bytes(*known)), command)
            }
        };
        match MetaCommand::decode(command) {
            Ok(command @ (MetaCommand::Join(_) | MetaCommand::Rejoin(_))) => {
                Some(Question::Join(command, known))
            }
            _ => None,
        }
    }
}

/// The question of a program that knows levels up to `known`, in the oldest form that says it.
fn join_question(command: &MetaCommand, known: Level) -> Vec<u8> {
    match known {
        Level::FIRST => [JOIN_QUESTION, &command.encode()].concat(),
        known => [JOIN_QUESTION_WITH_LEVEL, &known.0.to_le_bytes(), &command.encode()].concat(),
    }
}

/// What the member says to a node whose program does not know the cluster's feature level.
pub(crate) fn too_old(level: Level, known: Level) -> Bytes {
    let why = "the cluster is at feature level";
    format!("refused {why} {level}, and its program knows level {known} at most: start a later release")
        .into()
}

/// What the member says when the meta group has answered, or has not.
pub(crate) fn answer(outcome: &Result<u64, MetaFailure>) -> Bytes {
    match outcome {
        Ok(_) => Bytes::from_static(b"joined"),
        Err(failure) if failure.retry => format!("wait {}", failure.text).into(),
        Err(failure) => format!("refused {}", failure.text).into(),
    }
}

/// Joins the cluster of the member whose peer port is at `member`, and writes that into the directory. `again`: whoever
/// bears the name of this node there has lost its directory for good.
///
/// # Errors
/// `Settings` if the cluster refuses; `Directory`.
pub(crate) async fn run(
    directory: &mut NodeDir,
    row: NodeRow,
    again: bool,
    member: &str,
    secret: Option<&Secret>,
) -> Result<(), StartError> {
    let (name, incarnation) = (row.name.clone(), row.incarnation);
    let command = if again { MetaCommand::Rejoin(row) } else { MetaCommand::Join(row) };
    let question = join_question(&command, Level::KNOWN);
    let mut questions = 0_u32;
    loop {
        match ask(member, secret, &question, incarnation).await {
            Ok(state) => {
                let id = state.map.by_name(&name).map(|row| row.id);
                directory.begin(state)?;
                tracing::info!(node = %name, id = id.map(tracing::field::display), "has joined the cluster as a spare");
                return Ok(());
            }
            Err(Refused::ForGood(why)) => {
                return Err(StartError::Settings(format!("{name} cannot join by {member}: {why}")));
            }
            Err(Refused::ForNow(why)) => {
                questions += 1;
                if questions % QUESTIONS_BETWEEN_TELLING == 1 && questions > 1 {
                    tracing::warn!(node = %name, %member, why, "has not joined yet, and asks again");
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The newest map that a node has; nothing if it does not answer in time.
pub(crate) async fn ask_map(address: &str, secret: Option<&Secret>, timeout: Duration) -> Option<MetaState> {
    let answer = tholos_rpc::query(address, secret, Bytes::from_static(MAP_QUESTION), timeout).await;
    MetaState::decode(&answer.ok()?).ok()
}

/// Why there is no map yet that has this node.
enum Refused {
    ForGood(String),
    ForNow(String),
}

/// Asks to be let in, then for the map; the map as soon as it has a node of this incarnation.
async fn ask(
    member: &str,
    secret: Option<&Secret>,
    question: &[u8],
    incarnation: Incarnation,
) -> Result<MetaState, Refused> {
    let query = async |payload: &[u8]| {
        tholos_rpc::query(member, secret, Bytes::copy_from_slice(payload), ANSWER_TIMEOUT)
            .await
            .map_err(|error| Refused::ForNow(error.to_string()))
    };
    let answer = query(question).await?;
    if answer != b"joined"[..] {
        let text = String::from_utf8_lossy(&answer).into_owned();
        return Err(match text.split_once(' ') {
            Some(("refused", why)) => Refused::ForGood(why.to_owned()),
            Some(("wait", why)) => Refused::ForNow(why.to_owned()),
            _ => Refused::ForGood(
                "that node does not let others join; compare the versions of both".to_owned(),
            ),
        });
    }
    let map = query(MAP_QUESTION).await?;
    let state = MetaState::decode(&map)
        .map_err(|error| Refused::ForGood(format!("the cluster's map cannot be read: {error}")))?;
    if !state.map.nodes.iter().any(|row| row.incarnation == incarnation) {
        return Err(Refused::ForNow("that node has not heard of the decision".to_owned()));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_join_is_taken_from_strangers() {
        let question = |command: &MetaCommand| [JOIN_QUESTION, &command.encode()].concat();
        assert!(Question::read(&question(&MetaCommand::Cancel(1))).is_none());
        assert!(Question::read(&question(&MetaCommand::Remove(tholos_cluster::NodeId(1)))).is_none());
        assert!(Question::read(JOIN_QUESTION).is_none());
        assert!(matches!(Question::read(MAP_QUESTION), Some(Question::Map)));
    }

    #[test]
    fn a_question_says_what_the_program_knows() {
        let command = MetaCommand::Join(crate::status::tests::map().nodes[0].clone());
        for known in [1, 2, 0x0107].map(Level) {
            let question = join_question(&command, known);
            assert_eq!(question.starts_with(JOIN_QUESTION), known == Level::FIRST);
            let read = Question::read(&question);
            assert!(matches!(read, Some(Question::Join(same, level)) if same == command && level == known));
        }
        assert!(Question::read(JOIN_QUESTION_WITH_LEVEL).is_none());
        let refused = too_old(Level(2), Level(1));
        assert!(
            refused.starts_with(b"refused the cluster is at feature level 2, and its program knows level 1")
        );
    }
}
