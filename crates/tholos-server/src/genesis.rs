//! Asks the seeds who they are until a [`Genesis`] has come to its end (R26), and answers the same question meanwhile.
//!
//! Every decision is [`tholos_cluster`]'s; here are the clock, the sockets and the directory.

use std::time::Duration;

use bytes::Bytes;
use tholos_cluster::{Answer, ClusterId, ClusterMap, Genesis, NodeRow, Question, Seed, Settings, Step};
use tholos_rpc::{LocalHello, QueryError, Secret};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::node_dir::{DirectoryError, NodeDir};
use crate::server::StartError;

/// The question for a running node's status; the answer is JSON.
const STATUS_QUESTION: &[u8] = b"tholos status 1";
/// Questions of the admin interface to other nodes at a time: each is a connection, however many ask here.
pub(crate) const ASKED_MAX: usize = 32;
static ASKING: Semaphore = Semaphore::const_new(ASKED_MAX);
/// Pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one node is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a start that needs nobody's answer waits for one.
const COMPARE_TIMEOUT: Duration = Duration::from_millis(500);
/// After how many rounds without success it is told what is missing, and then how often.
const ROUNDS_BETWEEN_TELLING: u32 = 50;

/// What a running node says to whoever asks who it is.
pub(crate) fn member_answer(map: &ClusterMap) -> Bytes {
    Bytes::from(Answer::Belongs { cluster_id: map.cluster_id, map: map.encode() }.encode())
}

/// Whether a query asks for the status rather than for who the node is.
pub(crate) fn asks_status(question: &[u8]) -> bool {
    question == STATUS_QUESTION
}

/// Asks a node for its status.
pub(crate) async fn ask_status(
    address: &str,
    secret: Option<&Secret>,
    timeout: Duration,
) -> Result<Bytes, QueryError> {
    ask(address, secret, Bytes::from_static(STATUS_QUESTION), timeout).await
}

/// Asks a node something for the admin interface, when it is its turn.
pub(crate) async fn ask(
    address: &str,
    secret: Option<&Secret>,
    question: Bytes,
    timeout: Duration,
) -> Result<Bytes, QueryError> {
    let _turn = ASKING.acquire().await.expect("it is never closed");
    tholos_rpc::query(address, secret, question, timeout).await
}

/// What a node says in handshakes before it belongs to a cluster.
pub(crate) fn hello(directory: &NodeDir, boot: u64) -> LocalHello {
    LocalHello {
        cluster_id: None,
        node: 0,
        name: directory.identity().name.clone(),
        incarnation: directory.identity().incarnation.0,
        boot,
        recovered_lsn: 0,
        advertised: Bytes::new(),
    }
}

/// How a genesis ended for a node.
pub(crate) enum Ended {
    /// It is in the cluster of this map, which its directory has now.
    Belongs(ClusterMap),
    /// The cluster of the seed at `address` knows it with another directory.
    Known {
        /// The peer port of that seed.
        address: String,
        /// For the operator.
        reason: String,
    },
}

/// Founds or joins the cluster that `settings` tell of, and writes its map into the directory.
///
/// # Errors
/// `Settings` if the seeds can never be one cluster with this node; `Directory`.
pub(crate) async fn run(
    directory: &mut NodeDir,
    row: NodeRow,
    settings: Settings,
    events: &mut mpsc::Receiver<tholos_rpc::Event>,
    secret: Option<&Secret>,
) -> Result<Ended, StartError> {
    let mut cluster_id = [0; 20];
    getrandom::fill(&mut cluster_id).map_err(DirectoryError::Random)?;
    let name = row.name.clone();
    let mut genesis = Genesis::new(row, settings, ClusterId(cluster_id))
        .map_err(|error| StartError::Settings(error.to_string()))?;
    let answer = Bytes::from(genesis.answer().encode());
    let question = Bytes::from(Question { asker: name.clone() }.encode());
    let mut rounds = 0_u32;
    loop {
        let others: Vec<Seed> = genesis.others().cloned().collect();
        let answers = with_answers(events, &answer, ask_all(others, &question, secret, ANSWER_TIMEOUT)).await;
        let mut silent = Vec::new();
        for (seed, heard) in answers {
            match heard {
                Ok(answer) => genesis.handle_answer(&seed, answer),
                Err(why) => {
                    silent.push(format!("{seed} ({why})"));
                    genesis.handle_silence(&seed)
                }
            };
        }
        match genesis.step() {
            // From this write on the cluster exists: this node answers that it belongs to it.
            Step::Found(map) => {
                directory.write_map(map.clone())?;
                tracing::info!(node = %name, cluster = %map.cluster_id, nodes = map.nodes.len(), "founded the cluster");
                return Ok(Ended::Belongs(map));
            }
            Step::Join(map) => {
                directory.write_map(map.clone())?;
                tracing::info!(node = %name, cluster = %map.cluster_id, "belongs to the cluster from now on");
                return Ok(Ended::Belongs(map));
            }
            Step::Known { seed, reason } => {
                let address =
                    genesis.others().find(|other| other.name == seed).map(|seed| seed.address.clone());
                return Ok(Ended::Known { address: address.unwrap_or_default(), reason });
            }
            Step::Refuse { reason } => return Err(StartError::Settings(reason)),
            Step::Wait { missing, conflicts } => {
                rounds += 1;
                if rounds % ROUNDS_BETWEEN_TELLING == 1 && rounds > 1 {
                    tell(&name, &missing, &silent, &conflicts);
                }
            }
            Step::AwaitFounder(_) => {}
        }
        with_answers(events, &answer, tokio::time::sleep(PAUSE)).await;
    }
}

/// Compares the cluster of a directory with the one that the seeds belong to. Who does not answer has no say: a node starts
/// though it is the first.
///
/// # Errors
/// `Settings` if one of them belongs to another cluster.
pub(crate) async fn compare(
    directory: &NodeDir,
    map: &ClusterMap,
    seeds: Vec<Seed>,
    secret: Option<&Secret>,
) -> Result<(), StartError> {
    let name = &directory.identity().name;
    let addresses: Vec<(String, String)> =
        seeds.iter().map(|seed| (seed.name.clone(), seed.address.clone())).collect();
    let question = Bytes::from(Question { asker: name.clone() }.encode());
    for (seed, answer) in ask_all(seeds, &question, secret, COMPARE_TIMEOUT).await {
        if let Ok(Answer::Belongs { cluster_id, .. }) = answer
            && cluster_id != map.cluster_id
        {
            let address = addresses.iter().find(|(of, _)| *of == seed).map_or("", |(_, address)| address);
            let seed = if seed == address { seed } else { format!("{seed} at {address}") };
            return Err(StartError::Settings(format!(
                "the directory of {name}, {}, belongs to cluster {}, and {seed} to cluster {cluster_id}: \
                 give the directory that {name} has there, or the seeds of its own cluster; nothing was touched",
                directory.path().display(),
                map.cluster_id,
            )));
        }
    }
    Ok(())
}

fn tell(name: &str, missing: &[String], silent: &[String], conflicts: &[String]) {
    if !missing.is_empty() {
        // The reasons where there are any: a seed may also be missing because its answer was of no use.
        let who = if silent.is_empty() { missing.join(", ") } else { silent.join(", ") };
        tracing::warn!(node = name, "the cluster is not founded yet: it waits for {who}");
    }
    for conflict in conflicts {
        tracing::warn!(node = name, "the cluster is not founded yet: {conflict}");
    }
}

/// Runs `future` and answers other seeds meanwhile.
async fn with_answers<T>(
    events: &mut mpsc::Receiver<tholos_rpc::Event>,
    answer: &Bytes,
    future: impl Future<Output = T>,
) -> T {
    tokio::pin!(future);
    loop {
        tokio::select! {
            done = &mut future => return done,
            Some(event) = events.recv() => match event {
                tholos_rpc::Event::Query { payload, reply, .. } if !asks_status(&payload) => {
                    let _ = reply.send(answer.clone());
                }
                tholos_rpc::Event::Refused { address, reason, .. } => {
                    tracing::debug!(%address, %reason, "no connection on the peer port");
                }
                _ => {}
            }
        }
    }
}

/// What each seed answers, or why it does not.
async fn ask_all(
    seeds: Vec<Seed>,
    question: &Bytes,
    secret: Option<&Secret>,
    timeout: Duration,
) -> Vec<(String, Result<Answer, String>)> {
    let mut asking = JoinSet::new();
    for seed in seeds {
        let (question, secret) = (question.clone(), secret.cloned());
        asking.spawn(async move {
            let asked = tholos_rpc::query(&seed.address, secret.as_ref(), question, timeout).await;
            let answer = asked
                .map_err(|error| error.to_string())
                .and_then(|bytes| Answer::decode(&bytes).map_err(|error| error.to_string()));
            (seed.name, answer)
        });
    }
    asking.join_all().await
}
