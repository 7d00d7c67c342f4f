//! Nodes that come and go while clients write: a fourth joins three, takes over all that one of them has, and that one
//! leaves for good.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, beside, get, hold_port, http_post, in_time, rand};
use serde_json::{Value as Json, json};
use tholos_resp::Value;
use tholos_server::Server;
use tholos_server::config::{Config, Seed, Seeds};

/// A directory of the system's, removed with this.
struct Temp(PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SHARDS: u64 = 8;

/// Configurations of the seeds n1 to n3, and of n4, which joins by n2.
fn configs(dir: &Path) -> Vec<Config> {
    let ports: Vec<u16> = {
        // Held together, so that they differ.
        let held: Vec<_> = (0..4).map(|_| hold_port()).collect();
        held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
    };
    let peer = |at: usize| format!("127.0.0.1:{}", ports[at]).parse().unwrap();
    let seeds = (0..3).map(|at| Seed { name: format!("n{}", at + 1), address: peer(at) }).collect();
    let seeds = Seeds(seeds);
    let config = |at: usize| Config {
        name: format!("n{}", at + 1),
        dir: dir.to_owned(),
        peer: peer(at),
        gateway: "127.0.0.1:0".parse().unwrap(),
        cluster: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        seeds: if at < 3 { seeds.clone() } else { Seeds::default() },
        join: (at == 3).then(|| peer(1)),
        shards: SHARDS,
        drain_timeout_ms: 20_000,
        ..Config::default()
    };
    (0..4).map(config).collect()
}

async fn start_all(configs: &[Config]) -> Vec<Server> {
    let starting: Vec<_> = configs
        .iter()
        .cloned()
        .map(|config| tokio::spawn(async move { Server::start(&config).await }))
        .collect();
    let mut servers = Vec::new();
    for server in starting {
        servers.push(in_time("starting", server).await.unwrap().unwrap_or_else(|error| panic!("{error}")));
    }
    for server in &servers {
        in_time("getting ready", server.ready()).await;
    }
    servers
}

/// Gateway and admin addresses of a server.
fn own(server: &Server) -> (String, String) {
    let node = server.addresses().nodes.iter().find(|node| node.name == server.name()).unwrap();
    (node.gateway.clone(), node.http.clone())
}

/// A client that writes until it is told to stop; how many writes were acknowledged, how many needed a second try, and
/// how long the longest took.
fn write(gateway: &str, name: usize, stop: &AtomicBool) -> (usize, usize, Duration) {
    let mut client = Client::connect(gateway);
    let (mut written, mut again, mut longest) = (0, 0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("{name}:{written}"), written.to_string());
        let began = Instant::now();
        let mut reply = client.ask(&["SET", &key, &value]);
        if reply != Value::ok() {
            again += 1;
            reply = client.ask(&["SET", &key, &value]);
        }
        assert_eq!(reply, Value::ok(), "{key}");
        longest = longest.max(began.elapsed());
        written += 1;
    }
    (written, again, longest)
}

fn read_all(gateway: &str, written: &[usize]) {
    let mut client = Client::connect(gateway);
    for (name, count) in written.iter().enumerate() {
        for number in 0..*count {
            let reply = client.ask(&["GET", &format!("{name}:{number}")]);
            assert_eq!(reply, Value::bulk(number.to_string()), "{name}:{number} of {count}");
        }
    }
}

fn wait_until_done(http: &str, job: u64) {
    let began = Instant::now();
    loop {
        let jobs = get(http, "/v1/jobs");
        let state =
            jobs["jobs"].as_array().unwrap().iter().find(|one| one["id"] == job).map(|one| &one["state"]);
        if state == Some(&json!("done")) {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "{jobs}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_joins_takes_over_and_another_leaves_while_clients_write() {
    let temp = Temp(std::env::temp_dir().join(format!("tholos-elastic-{:016x}", rand())));
    let configs = configs(&temp.0);
    let mut servers = start_all(&configs[..3]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|name| {
            // Not at the one that leaves.
            let (gateway, stop) = (own(&servers[1 + name % 2]).0, Arc::clone(&stop));
            std::thread::spawn(move || write(&gateway, name, &stop))
        })
        .collect();
    let n4 = in_time("joining", Server::start(&configs[3])).await.unwrap_or_else(|error| panic!("{error}"));
    let http = own(&n4).1;
    servers.push(n4);
    beside(move || {
        let status = get(&http, "/v1/status");
        let node = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == "n4").cloned();
        assert_eq!(node.map(|node| node["replicas"].clone()), Some(json!(0)), "nothing has moved: {status}");
        let stale = json!({"plan": 1, "epoch": 1, "title": "too late"}).to_string();
        let (code, why) = http_post(&http, "/v1/jobs", &stale);
        assert!(code == 409 && why.contains("plan again"), "{code} {why}");
        let moves: Vec<Json> =
            (0..SHARDS).map(|shard| json!({"shard": shard, "from": "n1", "to": "n4"})).collect();
        let order = json!({
            "plan": 2, "epoch": status["epoch"], "title": "n4 for n1", "moves": moves, "removes": ["n1"],
            "standings": {"n4": "member", "n1": "draining"},
        });
        let (code, answer) = http_post(&http, "/v1/jobs", &order.to_string());
        assert!(code == 200 && answer.contains("\"answer\":1"), "{code} {answer}");
        wait_until_done(&http, 1);
        let job = get(&http, "/v1/jobs")["jobs"][0].clone();
        let says = |field: &str| job[field].as_u64().unwrap_or_else(|| panic!("{field}: {job}"));
        assert!(says("write_errors") <= 4 && says("longest_write_ms") > 0, "{job}");
        let status = get(&http, "/v1/status");
        let names: Vec<&Json> =
            status["nodes"].as_array().unwrap().iter().map(|node| &node["name"]).collect();
        assert_eq!(names, ["n2", "n3", "n4"], "n1 has left");
    })
    .await;
    let n1 = servers.remove(0);
    in_time("stopping what holds nothing", n1.stop()).await;
    stop.store(true, Ordering::Relaxed);
    let written = beside(move || {
        let ends: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        eprintln!("written, tried again, longest: {ends:?}");
        ends.iter().map(|(written, ..)| *written).collect::<Vec<_>>()
    })
    .await;
    assert!(written.iter().all(|count| *count > 20), "{written:?}");
    let gateway = own(&servers[2]).0;
    let all = written.clone();
    beside(move || read_all(&gateway, &all)).await;

    // What the three know of each other outlives them.
    for server in servers {
        in_time("stopping", server.stop()).await;
    }
    let servers = start_all(&configs[1..]).await;
    let gateway = own(&servers[0]).0;
    beside(move || read_all(&gateway, &written)).await;
    for server in servers {
        in_time("stopping", server.stop()).await;
    }
}

/// The name of a plan that a node makes.
fn plan(http: &str, request: &str) -> String {
    let plan = get(http, &format!("/v1/plan?request={}", request.replace(' ', "%20")));
    assert_eq!(plan["blocked"], false, "{plan}");
    plan["id"].as_str().unwrap().to_owned()
}

fn apply(http: &str, id: &str) -> (u16, String) {
    http_post(http, &format!("/v1/apply?id={id}&bytes_per_s=40000000"), "")
}

fn replicas(http: &str, name: &str) -> Json {
    let status = get(http, "/v1/status");
    let node = status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).cloned();
    node.map_or(Json::Null, |node| node["replicas"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plan_of_one_node_is_applied_at_another_and_undone_at_a_third() {
    let temp = Temp(std::env::temp_dir().join(format!("tholos-elastic-{:016x}", rand())));
    let configs = configs(&temp.0);
    let mut servers = start_all(&configs[..3]).await;
    let n4 = in_time("joining", Server::start(&configs[3])).await.unwrap_or_else(|error| panic!("{error}"));
    servers.push(n4);
    let https: Vec<String> = servers.iter().map(|server| own(server).1).collect();
    let gateway = own(&servers[0]).0;
    beside(move || {
        let mut client = Client::connect(&gateway);
        let value = "v".repeat(10_000);
        for key in 0..200 {
            assert_eq!(client.ask(&["SET", &key.to_string(), &value]), Value::ok());
        }
        // It has heard that n4 is there, if not at once.
        let began = Instant::now();
        while https.iter().any(|http| replicas(http, "n4") != json!(0)) {
            assert!(began.elapsed() < DEADLINE, "n4 is not known everywhere");
            std::thread::sleep(Duration::from_millis(20));
        }
        let id = plan(&https[0], "add n4");
        let (code, answer) = apply(&https[2], &id);
        assert!(code == 200 && answer.contains("\"job\":1"), "{code} {answer}");
        // Given again anywhere, it is the same job.
        assert_eq!(apply(&https[1], &id), (code, answer));
        wait_until_done(&https[1], 1);
        let job = get(&https[1], "/v1/jobs")["jobs"][0].clone();
        assert_eq!((&job["replicas_moved"], &job["replicas_total"]), (&json!(6), &json!(6)), "{job}");
        assert_eq!(job["throttle_bytes_per_s"], 40_000_000, "{job}");
        let moved = job["bytes_moved"].as_u64().unwrap();
        // If another leads the meta group meanwhile, it is told less.
        assert!((1..4_000_000).contains(&moved), "a quarter of 6 MB was copied: {job}");
        assert_eq!(replicas(&https[1], "n4"), json!(6));
        let (code, why) = apply(&https[1], "00000000");
        assert!(code == 404 && why.contains("plan again"), "{code} {why}");

        // Each has its own copy of the map, and these may have an older one.
        wait_until_done(&https[3], 1);
        wait_until_done(&https[0], 1);
        let id = plan(&https[3], "undo 1");
        let (code, answer) = apply(&https[0], &id);
        assert!(code == 200 && answer.contains("\"job\":2"), "{code} {answer}");
        wait_until_done(&https[0], 2);
        assert_eq!(replicas(&https[0], "n4"), json!(0));
    })
    .await;
    for server in servers {
        in_time("stopping", server.stop()).await;
    }
}
