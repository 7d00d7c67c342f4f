//! `tholos cluster`: how the cluster is, where a key lives, what a change would move; and changes it.

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::cmd::plan::PlanArgs;
use crate::cmd::rate::parse_rate;
use crate::cmd::recover::{self, RecoverArgs};
use crate::cmd::{hot, load, plan, watch};
use crate::failure::{Exit, Failure};
use crate::http::{At, query_escape};
use crate::out::{out, outln};
use crate::style::{Colour, coloured, count, table};

/// A node waits a second for each other node that does not answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Moves of leaders are told for so long.
const MOVED_LATELY_MS: u64 = 600_000;
/// Reasons of moves that are told, the latest first; `tholos cluster load` has all.
const REASONS_MAX: usize = 3;
/// The meta group is waited for as well.
const APPLY_TIMEOUT: Duration = Duration::from_secs(12);

/// Look at a running cluster, plan what a change of it takes, and change it.
#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    at: At,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// How every node is, and whether every shard can be written.
    #[command(after_help = "\
Exits with 0 only if the cluster is healthy, 1 if it is not, 3 if no node answers.

Examples:
  tholos cluster status
  tholos cluster status --at 10.0.0.1:8080 --at 10.0.0.2:8080 --json")]
    Status,
    /// Where a key lives: its slot, its shard, the nodes that hold it, and which of them leads.
    #[command(after_help = "\
Examples:
  tholos cluster locate user:7
  tholos cluster locate '{user:7}:cart' --json")]
    Locate {
        /// The key, as a client would send it.
        key: String,
    },
    /// Which keys and shards are asked for most.
    #[command(after_help = "\
Each node counts what it is asked for in spans of five seconds. Of keys one request in 16 is looked at, so rates of keys are
estimates; those of shards are exact. Commands inside MULTI count for their shard and for no key.

Examples:
  tholos cluster hot
  tholos cluster hot --json")]
    Hot,
    /// How loaded every node is, how much it should lead, and why leaderships moved lately.
    #[command(after_help = "\
CAPACITY is what a node could do of what it should, judged beside the others: less with a slow disk or processor.
SHARE is its part by weight and capacity, TARGET the shards it should lead. STRETCH is the time its work takes over the
time a processor runs it. Exits with 0 if a node answers, 3 if none does.

Examples:
  tholos cluster load
  tholos cluster load --at 10.0.0.1:8080 --json")]
    Load,
    Plan(PlanArgs),
    /// Restart nodes, one after the other, as an upgrade does: tells the order and what blocks it. Changes nothing yet.
    #[command(after_help = "\
Each node hands its leaders over, ends, and begins anew with the program that is on its disk then; the next one waits until it
is there and lacks nothing. Whoever does not come back within two minutes stops it: the job is paused, and told why.
Exits with 1 if a shard would miss a node.

Examples:
  tholos cluster roll                   all nodes; then: tholos cluster apply ID
  tholos cluster roll n3 n1 --json")]
    Roll {
        /// Nodes, in the order in which they are to restart. None: all.
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Which node's program knows which feature level; `finish` raises the cluster's when all know a higher one.
    #[command(after_help = "\
Until then every node may be put back to the release before. Afterwards older programs do not start here any more.
Exits with 1 if a node's program is older than others' and an upgrade cannot be finished.

Examples:
  tholos cluster upgrade                what each node's program knows
  tholos cluster upgrade finish")]
    Upgrade {
        #[command(subcommand)]
        what: Option<UpgradeWhat>,
    },
    Recover(RecoverArgs),
    /// Let no job begin by itself: neither for nodes that are down nor for nodes that have come.
    #[command(after_help = "\
For maintenance. A job that runs goes on; an automatic one that is cancelled holds the others as well.

Examples:
  tholos cluster hold")]
    Hold,
    /// Let jobs begin by themselves again.
    #[command(after_help = "\
Examples:
  tholos cluster release")]
    Release,
    /// Carry out a plan: starts its job, and follows that to its end. ^C detaches: the job goes on.
    #[command(after_help = "\
At any node. Refused if the cluster has changed since the plan was made. Given again, it follows the job that was started.
Exits with 0 if the job is done, 1 if it was refused or cancelled, 130 after ^C.

Examples:
  tholos cluster apply 7c1e09ab
  tholos cluster apply 7c1e09ab --throttle 20MB/s
  tholos cluster apply 7c1e09ab --detach")]
    Apply {
        /// The plan's name, as tholos cluster plan printed it.
        id: String,
        /// Do not follow the job.
        #[arg(long)]
        detach: bool,
        /// How much the job may send in a second, such as 20MB/s, or none. Default: 50MB/s.
        #[arg(long, value_name = "RATE", value_parser = parse_rate)]
        throttle: Option<u64>,
    },
}

#[derive(Subcommand, Debug)]
enum UpgradeWhat {
    /// Raise the cluster's feature level to the highest that every node's program knows: the last step of an upgrade.
    #[command(after_help = "\
Refused with the names of nodes whose programs are older. There is no way back to the release before.

Examples:
  tholos cluster upgrade finish")]
    Finish,
}

pub(crate) fn run(args: &ClusterArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::Status => {
            let status = args.at.get("/v1/status", ANSWER_TIMEOUT)?;
            out!("{}", if args.json { format!("{status}\n") } else { status_text(&status, now_ms()) });
            Ok(if status["verdict"] == "healthy" { Exit::Ok } else { Exit::NotSo })
        }
        What::Hot => {
            let hot = args.at.get("/v1/hot", ANSWER_TIMEOUT)?;
            out!("{}", if args.json { format!("{hot}\n") } else { hot::text(&hot) });
            Ok(Exit::Ok)
        }
        What::Plan(change) => plan::show(&args.at, args.json, &change.words()),
        What::Roll { nodes } => {
            let words = format!("roll {}", nodes.join(" "));
            plan::show(&args.at, args.json, words.trim_end())
        }
        What::Upgrade { what: None } => {
            let upgrade = args.at.get("/v1/upgrade", ANSWER_TIMEOUT)?;
            print!("{}", if args.json { format!("{upgrade}\n") } else { upgrade_text(&upgrade) });
            Ok(Exit::Ok)
        }
        What::Upgrade { what: Some(UpgradeWhat::Finish) } => {
            let finished = args.at.post("/v1/upgrade/finish", APPLY_TIMEOUT)?;
            let level = number(&finished["level"]);
            let text = match finished["raised"] == true {
                true => format!("the cluster is at feature level {level} now"),
                false => format!(
                    "the cluster is at feature level {level}, the highest that a node's program knows"
                ),
            };
            println!("{}", if args.json { finished.to_string() } else { text });
            Ok(Exit::Ok)
        }
        What::Recover(recover) => recover::run(&args.at, args.json, recover),
        What::Hold => hold(args, true, "no job begins by itself now; tholos cluster release lets them again"),
        What::Release => hold(args, false, "jobs begin by themselves again"),
        What::Apply { id, detach, throttle } => {
            let throttle = throttle.map_or(String::new(), |rate| format!("&bytes_per_s={rate}"));
            let path = format!("/v1/apply?id={}{throttle}", query_escape(id.as_bytes()));
            let started = args.at.post(&path, APPLY_TIMEOUT)?;
            let job = started["job"].as_u64().unwrap_or(0);
            if args.json {
                outln!("{started}");
            } else {
                outln!(
                    "job {job}: {}. It goes on whoever watches: tholos job watch {job}",
                    word(&started["title"])
                );
            }
            if *detach { Ok(Exit::Ok) } else { watch::watch(&args.at, args.json, job) }
        }
        What::Load => {
            let load = args.at.get("/v1/load", ANSWER_TIMEOUT)?;
            out!("{}", if args.json { format!("{load}\n") } else { load::load_text(&load) });
            Ok(Exit::Ok)
        }
        What::Locate { key } => {
            let path = format!("/v1/locate?key={}", query_escape(key.as_bytes()));
            let location = args.at.get(&path, ANSWER_TIMEOUT)?;
            out!("{}", if args.json { format!("{location}\n") } else { location_text(&location) });
            Ok(Exit::Ok)
        }
    }
}

fn hold(args: &ClusterArgs, held: bool, done: &str) -> Result<Exit, Failure> {
    let answer = args.at.post(&format!("/v1/hold?held={held}"), APPLY_TIMEOUT)?;
    outln!("{}", if args.json { answer.to_string() } else { done.to_owned() });
    Ok(Exit::Ok)
}

fn upgrade_text(upgrade: &Value) -> String {
    let (level, newest) = (number(&upgrade["level"]), number(&upgrade["newest"]));
    let behind: Vec<&str> = list(&upgrade["behind"]).iter().map(word).collect();
    let how = match (newest > level, behind.is_empty()) {
        (false, _) => "no node's program knows a higher one".to_owned(),
        (true, true) => format!("every node's program knows {newest}: tholos cluster upgrade finish"),
        (true, false) => format!("the programs of {} do not know {newest} yet", behind.join(" ")),
    };
    let row = |node: &Value| {
        vec![
            word(&node["name"]).to_owned(),
            word(&node["version"]).to_owned(),
            number(&node["level"]).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = list(&upgrade["nodes"]).iter().map(row).collect();
    format!("feature level {level}: {how}\n\n") + &table(&["NODE", "VERSION", "KNOWS>"], &rows)
}

/// A whole number of an answer.
pub(crate) fn number(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

pub(crate) fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The table that people read: one sentence, what to do next, why leaders moved, a row for every node. `now_ms` is the time,
/// since 1970.
pub(crate) fn status_text(status: &Value, now_ms: u64) -> String {
    let verdict = word(&status["verdict"]);
    let colour = match verdict {
        "healthy" => Colour::Good,
        "degraded" => Colour::Warning,
        _ => Colour::Bad,
    };
    let nodes = list(&status["nodes"]);
    let down: Vec<&Value> = nodes.iter().filter(|node| node["state"] == "down").collect();
    let (leaderless, full) = (list(&status["leaderless"]).len(), list(&status["full"]).len());
    let shards = match (leaderless, full, number(&status["shards"])) {
        (0, 0, _) => "every shard writable".to_owned(),
        (0, full, all) => format!("{full} of {all} shards only read, for want of room on disk"),
        (some, _, all) => format!("{some} of {all} shards without a leader"),
    };
    let mut text = format!(
        "{}  {} of {} up · {shards}{}\n",
        coloured(&verdict.to_uppercase(), colour),
        nodes.len() - down.len(),
        count(nodes.len(), "node"),
        spare_text(status, nodes),
    );
    // Of who is down for good the cluster knows the remedy.
    let to_restart: Vec<&&Value> = down.iter().filter(|node| node["next"].is_null()).collect();
    if !to_restart.is_empty() {
        let names = |nodes: &[&&Value]| -> String {
            nodes.iter().map(|node| word(&node["name"])).collect::<Vec<_>>().join(" ")
        };
        text += &format!("  next: restart {}", names(&to_restart));
        let idle: Vec<&&Value> =
            to_restart.iter().copied().filter(|node| number(&node["replicas"]) == 0).collect();
        if !idle.is_empty() {
            let holds = if idle.len() == 1 { "holds" } else { "hold" };
            let idle = names(&idle);
            text += &format!(", or remove {idle}, which {holds} nothing: tholos cluster plan remove {idle}");
        }
        text.push('\n');
    }
    let spares: Vec<&str> =
        nodes.iter().filter(|node| node["state"] == "spare").map(|node| word(&node["name"])).collect();
    if !spares.is_empty() {
        let holds = if spares.len() == 1 { "is a spare and holds" } else { "are spares and hold" };
        let spares = spares.join(" ");
        text += &format!("  next: {spares} {holds} nothing: tholos cluster plan add {spares}\n");
    }
    // Their job has ended early, or, of those that are lost, was never begun. Where another one took the name, it is among
    // the spares.
    let has_more = |node: &&Value| {
        let next = node["next"].as_str().unwrap_or_default();
        !next.is_empty() && node["state"] != "spare" && !next.starts_with("tholos cluster plan add")
    };
    for node in nodes.iter().filter(has_more) {
        let (name, next) = (word(&node["name"]), word(&node["next"]));
        text += &format!("  next: {name} keeps what it is to give up: {next}\n");
    }
    for note in list(&status["notes"]) {
        text += &format!("  {}\n", word(note));
    }
    text += &moves_note(status, now_ms);
    text.push('\n');
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    text + &table(
        &[
            "NODE",
            "STATE",
            "ZONE",
            "LEADS>",
            "REPLICAS>",
            "LAG",
            "WEIGHT>",
            "LOAD>",
            "SPARE>",
            "SHARE>",
            "VERSION",
            "",
        ],
        &rows,
    )
}

/// For what reasons leaders moved lately, each with the last of its moves; empty if none did.
fn moves_note(status: &Value, now_ms: u64) -> String {
    let is_late = |given: &&Value| {
        given["at_ms"].as_u64().is_some_and(|at_ms| now_ms.saturating_sub(at_ms) < MOVED_LATELY_MS)
    };
    let mut reasons: Vec<(&str, String)> = Vec::new();
    for given in list(&status["leader_moves"]).iter().filter(is_late) {
        let reason = word(&given["reason"]);
        if reasons.iter().all(|(known, _)| *known != reason) {
            let shard = load::shard_name(given, number(&status["shards"]));
            let (from, to) = (word(&given["from"]), word(&given["to"]));
            reasons.push((reason, format!("{reason} (last {shard} {from}→{to})")));
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let more = if reasons.len() > REASONS_MAX { ", …" } else { "" };
    let named: Vec<String> = reasons.into_iter().take(REASONS_MAX).map(|(_, text)| text).collect();
    format!("  leaders moved lately: {}{more}\n", named.join(", "))
}

/// The time, since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How many more nodes may fail. Whatever the placement, a shard loses no more replicas than nodes are down that hold any.
fn spare_text(status: &Value, nodes: &[Value]) -> String {
    let down = nodes.iter().filter(|node| node["state"] == "down" && number(&node["replicas"]) > 0).count();
    let replicas: usize = nodes.iter().map(|node| number(&node["replicas"])).sum();
    let shards = number(&status["shards"]);
    if shards == 0 || !list(&status["leaderless"]).is_empty() {
        return String::new();
    }
    let spare = ((replicas / shards).saturating_sub(1) / 2).saturating_sub(down);
    format!(" · can lose {spare} more node{}", if spare == 1 { "" } else { "s" })
}

fn row(node: &Value) -> Vec<String> {
    let state = word(&node["state"]);
    let zone = word(&node["zone"]);
    let lag = match node["lag"].as_u64() {
        Some(0) => "-".to_owned(),
        Some(lag) => format!("{lag} behind"),
        None => "?".to_owned(),
    };
    vec![
        word(&node["name"]).to_owned(),
        // Capitals, so that it is seen without colour too.
        if state == "down" { "DOWN".to_owned() } else { state.to_owned() },
        if zone.is_empty() { "-".to_owned() } else { zone.to_owned() },
        number(&node["leads"]).to_string(),
        number(&node["replicas"]).to_string(),
        lag,
        number(&node["weight"]).to_string(),
        part(&node["load"]),
        part(&node["spare"]),
        part(&node["share"]),
        word(&node["version"]).to_owned(),
        node["reason"].as_str().unwrap_or_default().to_owned(),
    ]
}

/// A percentage as a part of one.
fn part(percent: &Value) -> String {
    percent.as_f64().map_or_else(|| "-".to_owned(), |percent| format!("{:.2}", percent / 100.0))
}

fn location_text(location: &Value) -> String {
    let replicas: Vec<&str> = list(&location["replicas"]).iter().map(word).collect();
    let with = |others: &str, text: &dyn Fn(&str, &Value) -> String| -> Vec<String> {
        replicas.iter().enumerate().map(|(at, name)| text(name, &location[others][at])).collect()
    };
    let walk = with("zones", &|name, zone| match zone.as_str() {
        None | Some("") => name.to_owned(),
        Some(zone) => format!("{name} (zone {zone})"),
    });
    let mut text = format!(
        "key {} → slot {} → s{} → ring walk {}\n",
        word(&location["key"]),
        location["slot"],
        location["shard"],
        walk.join(" · ")
    );
    let applied = with("applied", &|name, index| match index.as_u64() {
        Some(index) => format!("{name}={index}"),
        None => format!("{name}=?"),
    });
    text += &match location["leader"].as_str() {
        Some(leader) => {
            format!(
                "leader {leader}, ballot {}, decided @{}, applied {}\n",
                word(&location["ballot"]),
                location["decided"],
                applied.join(" ")
            )
        }
        None => {
            "no leader just now: an election is under way, or a majority of these nodes is down\n".to_owned()
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, state: &str, leads: u64, lag: Value, reason: Value) -> Value {
        serde_json::json!({
            "name": name, "state": state, "zone": "", "weight": 1, "leads": leads, "replicas": 64, "lag": lag,
            "load": if state == "up" { 7.into() } else { Value::Null }, "spare": if state == "up" { 93.into() } else { Value::Null },
            "share": if state == "up" { 50.into() } else { Value::Null },
            "reason": reason, "version": if state == "up" { "0.1.0".into() } else { Value::Null },
        })
    }

    #[test]
    fn an_upgrade_tells_who_is_behind() {
        let node = |name: &str, version: &str, level: u64| serde_json::json!({"name": name, "version": version, "level": level});
        let mut upgrade = serde_json::json!({
            "level": 1, "newest": 2, "behind": ["n2"], "nodes": [node("n1", "0.2.0", 2), node("n2", "0.1.0", 1)],
        });
        assert_eq!(
            upgrade_text(&upgrade),
            "feature level 1: the programs of n2 do not know 2 yet\n\n\
             NODE  VERSION  KNOWS\n\
             n1    0.2.0        2\n\
             n2    0.1.0        1\n"
        );
        upgrade["behind"] = serde_json::json!([]);
        assert!(
            upgrade_text(&upgrade)
                .starts_with("feature level 1: every node's program knows 2: tholos cluster upgrade finish")
        );
        upgrade["newest"] = 1.into();
        assert!(upgrade_text(&upgrade).starts_with("feature level 1: no node's program knows a higher one"));
    }

    #[test]
    fn a_dead_node_stays_a_row_with_its_reason() {
        let nodes = [
            node("n1", "up", 32, 0.into(), Value::Null),
            node("n2", "down", 0, 9.into(), "connection refused".into()),
            node("n3", "up", 32, Value::Null, Value::Null),
        ];
        let status = serde_json::json!({"verdict": "degraded", "epoch": 1, "nodes": nodes, "shards": 64, "leaderless": [], "notes": ["job 4 is running"]});
        assert_eq!(
            status_text(&status, 0),
            "DEGRADED  2 of 3 nodes up · every shard writable · can lose 0 more nodes\n  next: restart n2\n  job 4 is running\n\n\
             NODE  STATE  ZONE  LEADS  REPLICAS  LAG       WEIGHT  LOAD  SPARE  SHARE  VERSION\n\
             n1    up     -        32        64  -              1  0.07   0.93   0.50  0.1.0\n\
             n2    DOWN   -         0        64  9 behind       1     -      -      -  -        connection refused\n\
             n3    up     -        32        64  ?              1  0.07   0.93   0.50  0.1.0\n"
        );
    }

    #[test]
    fn why_leaders_moved_lately_is_told() {
        let given = |at_ms: u64, shard: u64, from: &str, reason: &str| serde_json::json!({"at_ms": at_ms, "shard": shard, "from": from, "to": "n2", "reason": reason});
        let told = |moves: &[Value], now_ms: u64| {
            let nodes = [node("n1", "up", 64, 0.into(), Value::Null)];
            let status = serde_json::json!({
                "verdict": "healthy", "nodes": nodes, "shards": 64, "leaderless": [], "notes": [], "leader_moves": moves,
            });
            status_text(&status, now_ms).lines().nth(1).unwrap().to_owned()
        };
        let moves = [
            given(9_000, 12, "n1", "slow disk"),
            given(8_000, 64, "n1", "slow disk"),
            given(7_000, 3, "n3", "preference"),
        ];
        let slow = "  leaders moved lately: slow disk (last s12 n1→n2)";
        assert_eq!(told(&moves, 10_000), format!("{slow}, preference (last s3 n3→n2)"));
        assert_eq!(told(&moves, 608_000), slow, "ten minutes are over");
        assert_eq!(told(&moves, 609_000), "");
        assert_eq!(
            told(&moves[1..2], 1_000),
            "  leaders moved lately: slow disk (last meta n1→n2)",
            "another clock"
        );
        let more = ["share", "hot shard", "leaving"].map(|reason| given(5_000, 1, "n1", reason));
        assert!(told(&[&moves[..1], &more].concat(), 10_000).ends_with("hot shard (last s1 n1→n2), …"));
    }

    #[test]
    fn shards_without_room_are_not_writable() {
        let nodes = [node("n1", "up", 64, 0.into(), "its log has no room".into())];
        let status = serde_json::json!({"verdict": "degraded", "nodes": nodes, "shards": 64, "leaderless": [], "full": [0, 3]});
        let text = status_text(&status, 0);
        assert!(text.contains("2 of 64 shards only read, for want of room on disk"), "{text}");
    }

    #[test]
    fn a_spare_is_told_with_what_to_do() {
        let add = serde_json::json!("tholos cluster plan add n2");
        let mut lost = node("n2.lost.2", "down", 0, 9.into(), "its directory is lost".into());
        lost["next"] = add.clone();
        let mut spare = node("n2", "spare", 0, 0.into(), Value::Null);
        (spare["next"], spare["replicas"]) = (add, 0.into());
        let mut nodes = vec![
            node("n1", "up", 64, 0.into(), Value::Null),
            lost,
            node("n3", "up", 0, 0.into(), Value::Null),
            spare,
        ];
        let mut status =
            serde_json::json!({"verdict": "degraded", "nodes": nodes, "shards": 64, "leaderless": []});
        let text = status_text(&status, 0);
        let next = "  next: n2 is a spare and holds nothing: tholos cluster plan add n2\n\n";
        assert!(text.contains(next) && !text.contains("restart"), "{text}");
        assert!(text.contains("\nn2         spare  "), "{text}");
        nodes[2]["state"] = "spare".into();
        status["nodes"] = nodes.into();
        let text = status_text(&status, 0);
        assert!(
            text.contains("next: n3 n2 are spares and hold nothing: tholos cluster plan add n3 n2\n"),
            "{text}"
        );
    }

    #[test]
    fn a_spare_that_is_down_costs_nothing_and_is_to_be_restarted() {
        let mut spare = node("n4", "down", 0, 0.into(), "connection refused".into());
        spare["replicas"] = 0.into();
        let mut nodes = ["n1", "n2", "n3"].map(|name| node(name, "up", 21, 0.into(), Value::Null)).to_vec();
        nodes.push(spare);
        let status =
            serde_json::json!({"verdict": "degraded", "nodes": nodes, "shards": 64, "leaderless": []});
        let text = status_text(&status, 0);
        let remove = ", or remove n4, which holds nothing: tholos cluster plan remove n4\n\n";
        assert!(text.contains(&format!(" · can lose 1 more node\n  next: restart n4{remove}")), "{text}");
        let mut status = status;
        status["nodes"][2]["state"] = "down".into();
        assert!(
            status_text(&status, 0).contains(&format!("\n  next: restart n3 n4{remove}")),
            "{}",
            status_text(&status, 0)
        );
    }

    #[test]
    fn what_a_job_that_ended_early_has_left_is_told() {
        let mut leaves = node("n2", "leaving", 0, 0.into(), Value::Null);
        let told = |leaves: &Value| {
            let nodes = [node("n1", "up", 64, 0.into(), Value::Null), leaves.clone()];
            let status =
                serde_json::json!({"verdict": "healthy", "nodes": nodes, "shards": 64, "leaderless": []});
            status_text(&status, 0)
        };
        assert!(!told(&leaves).contains("next"), "its job is under way");
        leaves["next"] = "tholos cluster plan even".into();
        let next = "\n  next: n2 keeps what it is to give up: tholos cluster plan even\n\n";
        assert!(told(&leaves).contains(next), "{}", told(&leaves));
        (leaves["name"], leaves["state"]) = ("n2.lost.2".into(), "down".into());
        leaves["next"] = "tholos cluster plan remove n2.lost.2".into();
        let next =
            "\n  next: n2.lost.2 keeps what it is to give up: tholos cluster plan remove n2.lost.2\n\n";
        assert!(told(&leaves).contains(next), "{}", told(&leaves));
    }

    #[test]
    fn a_shard_without_leader_is_told() {
        let status = serde_json::json!({
            "verdict": "unavailable", "nodes": [node("n1", "up", 0, Value::Null, Value::Null)], "shards": 64,
            "leaderless": [1, 2],
        });
        let text = status_text(&status, 0);
        assert!(
            text.starts_with("UNAVAILABLE  1 of 1 node up · 2 of 64 shards without a leader\n\n"),
            "{text}"
        );
    }

    #[test]
    fn a_location_is_told_in_one_notation() {
        let location = serde_json::json!({
            "key": "hello", "slot": 866, "shard": 3, "replicas": ["n2", "n3", "n1"], "leader": "n2", "ballot": "1.n2",
            "decided": 7, "zones": ["b", "", "a"], "applied": [7, null, 6],
        });
        let expected = "key hello → slot 866 → s3 → ring walk n2 (zone b) · n3 · n1 (zone a)\n\
                        leader n2, ballot 1.n2, decided @7, applied n2=7 n3=? n1=6\n";
        assert_eq!(location_text(&location), expected);
    }
}
