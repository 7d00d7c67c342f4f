//! `tholos dev`: a cluster in this process; `dev kill`, `restart`, `add`, `remove` and `wipe` from anywhere.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::Value;
use tholos_server::config::{LogLevel, Origin, Resolved};
use tholos_server::{Addresses, DevCluster, DevSettings, NewNode, Tuning};
use tokio::sync::mpsc;

use crate::cmd::cluster::{now_ms, number, status_text, word};
use crate::cmd::config::{DevConfigFlags, wrong};
use crate::failure::{Exit, Failure};
use crate::http::{At, query_escape};
use crate::out::{out, outln};
use crate::style::count;

/// How long a node may take to stop, start or join.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `kill` and `restart` watch the cluster recover.
const WATCH: Duration = Duration::from_secs(10);
/// How often they look.
const LOOK: Duration = Duration::from_millis(10);

/// Run a whole cluster in this process, for development: each node with its own log on disk.
#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
A port of 0 takes any free one. Ports of further nodes follow: n2 has --cluster-port + 1. Without --nodes all nodes are
started that --dir has, also those that were added. Keys of `tholos config example` that are about every node alike are
flags, variables (THOLOS_LIMITS_CLIENTS) and keys of the file here too, also those not listed.

Examples:
  tholos dev
  tholos dev --nodes 1                  one node, one copy; tholos dev add makes it grow
  tholos dev --temp --port 0 --cluster-port 0 --peer-port 0 --http-port 0 --ready-file ready.json
  tholos dev kill n2
  tholos dev add n4 --zone a"
)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Nodes of a new cluster, n1 to nN [default: 3]; on an old one, those it must have.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: Option<u16>,
    /// Port of the gateway, for any Redis client.
    #[arg(long, value_name = "PORT", default_value_t = 6379)]
    port: u16,
    /// Port of n1 for cluster-aware clients.
    #[arg(long, value_name = "PORT", default_value_t = 7001)]
    cluster_port: u16,
    /// Port of n1 for the other nodes.
    #[arg(long, value_name = "PORT", default_value_t = 7101)]
    peer_port: u16,
    /// Port of the admin HTTP interface.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Where data is kept. By this flag only, so that no cluster is met here that another node's file tells of.
    #[arg(long, value_name = "PATH", default_value = "./tholos-data")]
    dir: PathBuf,
    /// Start anew: delete what an earlier cluster left in --dir (only a directory with our marker).
    #[arg(long, conflicts_with = "temp")]
    fresh: bool,
    /// Keep data in a temporary directory that is deleted at the end.
    #[arg(long)]
    temp: bool,
    /// Write all addresses to this file, as JSON, once every shard takes writes.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Shards of a new cluster, a power of two [default: 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16384))]
    shards: Option<u16>,
    /// Copies of each shard of a new cluster, if it has so many nodes: 1, 3 or 5 [default: 3].
    #[arg(long, value_name = "N", value_parser = copies)]
    replicas: Option<u8>,
    /// Print the addresses as JSON instead of the banner.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: DevConfigFlags,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// End a node of a running dev cluster as kill -9 would.
    #[command(after_help = "Example:\n  tholos dev kill n2")]
    Kill(NodeArgs),
    /// Start a node again that was killed.
    #[command(after_help = "Example:\n  tholos dev restart n2")]
    Restart(NodeArgs),
    /// Start a new node, which joins as a spare: nothing moves to it before a plan says so.
    #[command(after_help = "\
Its ports follow its name: n4 has --cluster-port + 3. It is started again with the others from then on.

Examples:
  tholos dev add
  tholos dev add n4 --zone a
  tholos cluster plan add n4")]
    Add(AddArgs),
    /// Have a node that holds nothing leave for ever; its directory is kept aside.
    #[command(after_help = "\
Refused as long as it holds replicas: tholos cluster plan remove moves them away, and then it leaves by itself.

Example:
  tholos dev remove n4")]
    Remove(NodeArgs),
    /// Delete a node's directory and start it empty, as a disk that was lost: it comes back as a new node, a spare.
    #[command(after_help = "\
It remembers nothing and votes nowhere. What it held is missing until it is added again.

Examples:
  tholos dev wipe n2
  tholos cluster plan add n2")]
    Wipe(NodeArgs),
}

#[derive(Args, Debug)]
struct AddArgs {
    /// Its name; the next of n1, n2, ... if not given.
    node: Option<String>,
    /// What fails together with it; by its number if not given: n4 stands in zone d.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// How much of the data it should take, relative to the others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    weight: Option<u16>,
    #[command(flatten)]
    at: At,
    /// Print what happened as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct NodeArgs {
    /// The node: n1, n2, ...
    node: String,
    #[command(flatten)]
    at: At,
    /// Print what happened as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DevArgs) -> Result<Exit, Failure> {
    match &args.action {
        Some(Action::Kill(node)) => kill(node),
        Some(Action::Restart(node)) => restart(node),
        Some(Action::Add(node)) => add(node),
        Some(Action::Remove(node)) => remove(node),
        Some(Action::Wipe(node)) => wipe(node),
        None => super::serve::runtime(None)?.block_on(cluster(args)),
    }
}

fn kill(args: &NodeArgs) -> Result<Exit, Failure> {
    let before = args.at.get("/v1/status", ANSWER_TIMEOUT)?;
    let led = row(&before, &args.node).map_or(0, |node| number(&node["leads"]));
    let begin = Instant::now();
    args.at.post(&format!("/v1/dev/kill?node={}", query_escape(args.node.as_bytes())), ANSWER_TIMEOUT)?;
    // The first look after the kill can still see the old leaders counted as leading nowhere: none is missing then.
    let recovered =
        watch(&args.at, begin, |status| status["leaderless"].as_array().is_some_and(Vec::is_empty));
    if args.json {
        let ms = recovered.map(|time| time.as_millis() as u64);
        outln!(
            "{}",
            serde_json::json!({"node": args.node, "done": "killed", "led": led, "new_leaders_ms": ms})
        );
    } else {
        let shards = count(led, "shard");
        match recovered {
            Some(_) if led == 0 => outln!("{} stopped. It led no shard.", args.node),
            Some(time) => outln!(
                "{} stopped. {shards} lost their leader; new leaders in {} ms.",
                args.node,
                time.as_millis()
            ),
            None => outln!(
                "{} stopped. Some shards have no leader: a majority of their nodes is down.",
                args.node
            ),
        }
    }
    Ok(Exit::Ok)
}

fn restart(args: &NodeArgs) -> Result<Exit, Failure> {
    let before = args.at.get("/v1/status", ANSWER_TIMEOUT)?;
    let behind = row(&before, &args.node).and_then(|node| node["lag"].as_u64());
    let begin = Instant::now();
    args.at.post(&format!("/v1/dev/restart?node={}", query_escape(args.node.as_bytes())), ANSWER_TIMEOUT)?;
    let caught_up = watch(&args.at, begin, |status| {
        row(status, &args.node).is_some_and(|node| node["state"] == "up" && node["lag"] == 0)
    });
    if args.json {
        let ms = caught_up.map(|time| time.as_millis() as u64);
        outln!(
            "{}",
            serde_json::json!({"node": args.node, "done": "restarted", "behind": behind, "caught_up_ms": ms})
        );
    } else {
        let entries = behind.map_or_else(String::new, |behind| format!(" {behind} entries"));
        match caught_up {
            Some(time) => outln!("{} is up, caught up{entries} in {:.1} s", args.node, time.as_secs_f64()),
            None => outln!("{} is up and still catching up: look with tholos cluster status", args.node),
        }
    }
    Ok(Exit::Ok)
}

fn add(args: &AddArgs) -> Result<Exit, Failure> {
    let given = [
        ("node", &args.node),
        ("zone", &args.zone),
        ("weight", &args.weight.map(|weight| weight.to_string())),
    ];
    let words: Vec<String> = given
        .iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", query_escape(value.as_ref()?.as_bytes()))))
        .collect();
    let done = args.at.post(&format!("/v1/dev/add?{}", words.join("&")), ANSWER_TIMEOUT)?;
    let text = added_text(word(&done["node"]));
    out!("{}", if args.json { format!("{done}\n") } else { text });
    Ok(Exit::Ok)
}

fn remove(args: &NodeArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/dev/remove?node={}", query_escape(args.node.as_bytes()));
    let done = args.at.post(&path, ANSWER_TIMEOUT)?;
    let text = removed_text(&args.node, done["done"] == "left before");
    out!("{}", if args.json { format!("{done}\n") } else { text });
    Ok(Exit::Ok)
}

fn wipe(args: &NodeArgs) -> Result<Exit, Failure> {
    let path = format!("/v1/dev/wipe?node={}", query_escape(args.node.as_bytes()));
    let done = args.at.post(&path, ANSWER_TIMEOUT)?;
    let text = wiped_text(&args.node, number(&done["held"]));
    out!("{}", if args.json { format!("{done}\n") } else { text });
    Ok(Exit::Ok)
}

fn added_text(node: &str) -> String {
    format!("{node} joined as a spare. Nothing has moved. Next: tholos cluster plan add {node}\n")
}

fn removed_text(node: &str, before: bool) -> String {
    let when = if before { "had left the cluster before" } else { "has left the cluster, for ever" };
    format!("{node} {when}. Its directory is kept aside, under left/.\n")
}

fn wiped_text(node: &str, held: usize) -> String {
    let missing = match held {
        0 => "It held nothing".to_owned(),
        1 => "1 replica is missing until it is added".to_owned(),
        held => format!("{held} replicas are missing until it is added"),
    };
    format!("{node} was wiped and joined anew, as a spare. {missing}. Next: tholos cluster plan add {node}\n")
}

fn row<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["nodes"].as_array()?.iter().find(|node| node["name"] == name)
}

/// How long it took from `begin` until the status is as wanted; `None` if it does not become so.
fn watch(at: &At, begin: Instant, wanted: impl Fn(&Value) -> bool) -> Option<Duration> {
    while begin.elapsed() < WATCH {
        if at.get("/v1/status", ANSWER_TIMEOUT).is_ok_and(|status| wanted(&status)) {
            return Some(begin.elapsed());
        }
        std::thread::sleep(LOOK);
    }
    None
}

async fn cluster(args: &DevArgs) -> Result<Exit, Failure> {
    let resolved = args.config.0.resolve()?;
    resolved.config.validate_every_node().map_err(wrong)?;
    let settings = settings(args, &resolved);
    // In the foreground only what a human must know, unless more is asked for.
    let level = match resolved.origin("log_level") {
        Origin::Default => LogLevel::Warn,
        _ => resolved.config.log_level,
    };
    super::serve::log_to_stderr(level, resolved.config.log_format);
    let mut signals = super::serve::Signals::new()?;
    let cluster = tokio::select! {
        started = DevCluster::start(settings) => {
            started.map_err(|error| super::serve::does_not_start("the cluster", &error))?
        }
        exit = signals.next() => return Ok(exit),
    };
    let ready = tokio::select! {
        ready = cluster.ready() => ready,
        _ = signals.next() => {
            cluster.stop().await;
            return Ok(Exit::Ok);
        }
    };
    if args.json {
        outln!("{}", serde_json::json!(cluster.addresses()));
    } else {
        out!("{}", banner(args, &cluster, ready));
    }
    let _unwritable_stdout_is_no_reason_to_stop = std::io::stdout().flush();
    let mut keys = keys();
    loop {
        tokio::select! {
            _ = signals.next() => break,
            Some(line) = keys.recv() => {
                if line.trim() == "q" {
                    break;
                }
                obey(&cluster, line.trim()).await;
            }
        }
    }
    cluster.stop().await;
    Ok(Exit::Ok)
}

/// What the cluster is told: by flags of `dev` alone, and by what a node of its own can be told as well.
fn settings(args: &DevArgs, resolved: &Resolved) -> DevSettings {
    let config = &resolved.config;
    DevSettings {
        nodes: args.nodes,
        port: args.port,
        cluster_port: args.cluster_port,
        peer_port: args.peer_port,
        http_port: args.http_port,
        dir: args.dir.clone(),
        fresh: args.fresh,
        temp: args.temp,
        ready_file: args.ready_file.clone(),
        shards: args.shards.unwrap_or_else(|| u16::try_from(config.shards).expect("the key has bounds")),
        replicas: args.replicas.unwrap_or_else(|| u8::try_from(config.replicas).expect("the key has bounds")),
        tuning: Tuning::from(config),
    }
}

/// Lines typed at a terminal; nothing elsewhere.
fn keys() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    } else {
        // Kept open, or the receiver would end at once, again and again.
        std::mem::forget(sender);
    }
    receiver
}

/// What the keys do.
const KEYS: &str =
    "k2 kills node 2 · r2 restarts it · w2 wipes it · a adds a node · x4 removes node 4 · s status · q quits";

async fn obey(cluster: &DevCluster, line: &str) {
    let node = |digits: &str| format!("n{}", digits.trim());
    let said = match line.split_at_checked(1) {
        None => return,
        Some(("k", digits)) => {
            let node = node(digits);
            cluster.kill(&node).await.map(|()| format!("{node} is killed\n"))
        }
        Some(("r", digits)) => {
            let node = node(digits);
            cluster.restart(&node).await.map(|()| format!("{node} runs again\n"))
        }
        Some(("w", digits)) => {
            let node = node(digits);
            cluster.wipe(&node).await.map(|wiped| wiped_text(&node, wiped.held))
        }
        Some(("x", digits)) => {
            let node = node(digits);
            cluster.remove(&node).await.map(|left| removed_text(&node, left.before))
        }
        Some(("a", digits)) => {
            let name = (!digits.trim().is_empty()).then(|| node(digits));
            let added = cluster.add(NewNode { name, ..NewNode::default() }).await;
            added.map(|added| added_text(&added.name))
        }
        Some(("s", "")) => Ok(status_text(&serde_json::json!(cluster.status().await), now_ms())),
        Some(_) => Ok(format!("{KEYS} (each with Enter)\n")),
    };
    match said {
        Ok(text) => out!("{text}"),
        Err(error) => outln!("{error}"),
    }
}

/// What a newcomer needs to know; only what is true.
fn banner(args: &DevArgs, cluster: &DevCluster, ready: Duration) -> String {
    let Addresses { gateway, http, nodes } = cluster.addresses();
    let port = |address: &str| {
        address.rsplit_once(':').map_or_else(|| address.to_owned(), |(_, port)| port.to_owned())
    };
    let kept = if args.temp {
        "Data is thrown away at the end.".to_owned()
    } else {
        format!("Data is kept in {}.   (--fresh wipes it, --temp throws it away)", args.dir.display())
    };
    let cluster_ports: Vec<String> = nodes.iter().map(|node| port(&node.cluster)).collect();
    let mut text = format!(
        "tholos {} dev — {} in this process. {kept}\n\n",
        env!("CARGO_PKG_VERSION"),
        count(nodes.len(), "node")
    );
    let clients = format!("redis-cli -p {}", port(&gateway));
    text += &format!("  Redis     {clients:<28}  any node, any key: the gateway forwards\n");
    let clients = format!("redis-cli -c -p {}", cluster_ports[0]);
    text += &format!("  Cluster   {clients:<28}  cluster-aware clients ({})\n", cluster_ports.join(" "));
    text += &format!("  Health    {:<28}  /v1/status tells more\n", format!("http://{http}/healthz"));
    text += &format!("  Metrics   http://{http}/metrics\n\n");
    let map = cluster.map();
    let zone = |name: &str| {
        let zone = map.by_name(name).map(|row| row.zone.as_str()).filter(|zone| !zone.is_empty());
        zone.map_or_else(String::new, |zone| format!(" zone {zone}"))
    };
    let addresses: Vec<String> =
        nodes.iter().map(|node| format!("{} {}{}", node.name, node.cluster, zone(&node.name))).collect();
    text += &format!("  {}", addresses.join("   "));
    let replicas = map.replica_set(tholos_ring::ShardId(0)).len();
    text += &format!(
        "\n  {} x {replicas} replica{} · every shard has a leader · ready in {:.1} s\n\n",
        count(usize::from(map.shard_count), "shard"),
        if replicas == 1 { "" } else { "s" },
        ready.as_secs_f64()
    );
    text += &if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        format!("  Try:  SET from redis-cli (each key with Enter)\n  {KEYS}\n")
    } else {
        let next = "tholos dev kill n2 · restart n2 · wipe n2 · add · tholos cluster status";
        format!("  Try:  SET from redis-cli · {next}\n")
    };
    text
}

/// How many copies of each shard: an odd number, as `replicas` of a node's configuration.
fn copies(text: &str) -> Result<u8, String> {
    match text.parse::<u8>() {
        Ok(copies @ (1 | 3 | 5)) => Ok(copies),
        Ok(copies @ (2 | 4)) => {
            Err(format!("{copies} copies survive no more than {} do; use 1, 3 or 5", copies - 1))
        }
        _ => Err("it must be 1, 3 or 5".to_owned()),
    }
}
