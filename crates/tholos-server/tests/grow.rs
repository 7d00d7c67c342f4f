//! Clusters that change their size while they serve: nodes of `dev` are added, removed and wiped, and a cluster of one
//! grows to five and shrinks back.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, beside, get, in_time, plan_and_apply, rand};
use serde_json::Value as Json;
use tholos_resp::Value;
use tholos_server::config::{Config, Seeds};
use tholos_server::{DevCluster, DevError, DevSettings, NewNode, Server, Verdict};

/// A directory of the system's, removed with this.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        Temp(std::env::temp_dir().join(format!("tholos-grow-{:016x}", rand())))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(temp: &Temp, nodes: Option<u16>) -> DevSettings {
    DevSettings {
        nodes,
        port: 0,
        cluster_port: 0,
        peer_port: 0,
        http_port: 0,
        dir: temp.0.clone(),
        shards: 8,
        ..DevSettings::default()
    }
}

async fn start(settings: DevSettings) -> DevCluster {
    let cluster = DevCluster::start(settings).await.unwrap_or_else(|error| panic!("{error}"));
    in_time("getting ready", cluster.ready()).await;
    cluster
}

async fn add(cluster: &DevCluster, name: &str) {
    let node = NewNode { name: Some(name.to_owned()), ..NewNode::default() };
    cluster.add(node).await.unwrap_or_else(|error| panic!("{error}"));
}

async fn change(http: &str, words: &'static str) {
    let http = http.to_owned();
    beside(move || plan_and_apply(&http, words)).await;
}

/// Each node's name, state and replicas.
async fn nodes(http: &str) -> Vec<(String, String, u64)> {
    let http = http.to_owned();
    let status = beside(move || get(&http, "/v1/status")).await;
    let text = |node: &Json, key: &str| node[key].as_str().unwrap().to_owned();
    let node = |node: &Json| (text(node, "name"), text(node, "state"), node["replicas"].as_u64().unwrap());
    status["nodes"].as_array().unwrap().iter().map(node).collect()
}

/// Waits for voters of the meta group.
async fn meta_voters(http: &str, count: usize) {
    let http = http.to_owned();
    beside(move || {
        let meta = get(&http, "/v1/status")["meta"].as_array().unwrap().len();
        assert_eq!(meta, count);
    })
    .await;
}

/// Clients that write until they are told to stop; each says how many of its writes were acknowledged.
struct Writers {
    gateway: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Writers {
    fn start(gateway: &str, count: usize) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |name: usize| {
            let (gateway, stop) = (gateway.to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || write(&gateway, name, &stop))
        };
        Writers { gateway: gateway.to_owned(), threads: (0..count).map(writer).collect(), stop }
    }

    /// Stops them, and reads all that was acknowledged.
    async fn finish(self) {
        beside(move || {
            self.stop.store(true, Ordering::Relaxed);
            let written: Vec<usize> = self.threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            eprintln!("written: {written:?}");
            let mut client = Client::connect(&self.gateway);
            for (name, count) in written.into_iter().enumerate() {
                assert!(count > 20, "writer {name} stood still");
                for number in 0..count {
                    let reply = client.ask(&["GET", &format!("{name}:{number}")]);
                    assert_eq!(reply, Value::bulk(number.to_string()), "{name}:{number} of {count}");
                }
            }
        })
        .await;
    }
}

fn write(gateway: &str, name: usize, stop: &AtomicBool) -> usize {
    let mut client = Client::connect(gateway);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("{name}:{written}"), written.to_string());
        let began = Instant::now();
        // What may have been written is written again, to the same effect.
        while client.ask(&["SET", &key, &value]) != Value::ok() {
            assert!(began.elapsed() < DEADLINE, "{key} cannot be written");
        }
        written += 1;
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_of_one_grows_to_five_and_shrinks_back_while_clients_write() {
    let temp = Temp::new();
    let cluster = start(settings(&temp, Some(1))).await;
    let (gateway, http) = (cluster.addresses().gateway, cluster.addresses().http);
    let writers = Writers::start(&gateway, 3);
    meta_voters(&http, 1).await;
    for name in ["n2", "n3"] {
        add(&cluster, name).await;
    }
    let spares = nodes(&http).await;
    assert!(spares[1..].iter().all(|(_, state, replicas)| state == "spare" && *replicas == 0), "{spares:?}");
    // Spread first, then copied; both at once below.
    change(&http, "add n2 n3").await;
    meta_voters(&http, 3).await;
    change(&http, "replicas 3").await;
    assert!(nodes(&http).await.iter().all(|(_, state, replicas)| state == "up" && *replicas == 8));
    for name in ["n4", "n5"] {
        add(&cluster, name).await;
    }
    change(&http, "replicas 5 n4 n5").await;
    meta_voters(&http, 5).await;
    assert!(nodes(&http).await.iter().all(|(_, state, replicas)| state == "up" && *replicas == 8));
    change(&http, "replicas 3").await;
    change(&http, "remove n5 n4").await;
    meta_voters(&http, 3).await;
    change(&http, "replicas 1").await;
    change(&http, "remove n3 n2").await;
    meta_voters(&http, 1).await;
    assert_eq!(nodes(&http).await, [("n1".to_owned(), "up".to_owned(), 8)]);
    in_time("letting go", async {
        while cluster.addresses().nodes.len() > 1 || temp.0.join("n5").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    writers.finish().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn added_nodes_are_started_with_the_others_and_removed_ones_are_not() {
    let temp = Temp::new();
    let cluster = start(settings(&temp, None)).await;
    let http = cluster.addresses().http;
    add(&cluster, "n4").await;
    let twice = cluster.add(NewNode { name: Some("n4".into()), ..NewNode::default() }).await;
    assert!(matches!(&twice, Err(DevError::Exists(name)) if name == "n4"), "{twice:?}");
    let named = NewNode { name: None, zone: Some("q".into()), weight: Some(2) };
    assert_eq!(cluster.add(named).await.unwrap().name, "n5");
    change(&http, "add n4").await;
    let refused = cluster.remove("n4").await.unwrap_err().to_string();
    assert!(refused.contains("still holds 6 replicas: tholos cluster plan remove n4"), "{refused}");
    assert!(cluster.remove("n9").await.is_err());
    cluster.stop().await;

    // All that are there, whatever their number; another number is told.
    let other = DevCluster::start(settings(&temp, Some(3))).await.err().unwrap().to_string();
    for part in ["--nodes 5", "without --nodes", "n4"] {
        assert!(other.contains(part), "{part:?} is not in: {other}");
    }
    let cluster = start(settings(&temp, None)).await;
    let http = cluster.addresses().http;
    let all = nodes(&http).await;
    assert_eq!(all.len(), 5, "{all:?}");
    assert_eq!((all[3].1.as_str(), all[3].2, all[4].1.as_str()), ("up", 6, "spare"));
    let row = cluster.map().by_name("n5").cloned().unwrap();
    assert_eq!((row.zone.as_str(), row.weight), ("q", 2));
    assert!(!cluster.remove("n5").await.unwrap().before);
    change(&http, "remove n4").await;
    in_time("letting go", async {
        while cluster.addresses().nodes.len() > 3 || temp.0.join("n4").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(cluster.remove("n5").await.unwrap().before, "it has left");
    let left = std::fs::read_dir(temp.0.join("left")).unwrap().count();
    assert_eq!(left, 2, "their directories are kept aside");
    // The next one is none of those that were.
    assert_eq!(cluster.add(NewNode::default()).await.unwrap().name, "n6");
    add(&cluster, "n4").await;
    cluster.stop().await;
    let cluster = start(settings(&temp, Some(5))).await;
    assert_eq!(cluster.status().await.verdict, Verdict::Healthy);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wiped_node_comes_back_as_a_spare_and_takes_over_what_it_held() {
    let temp = Temp::new();
    let cluster = start(settings(&temp, None)).await;
    let (gateway, http) = (cluster.addresses().gateway, cluster.addresses().http);
    let writers = Writers::start(&gateway, 2);
    // Together with one that is down it would take the majority with it.
    cluster.kill("n3").await.unwrap();
    let refused = cluster.wipe("n2").await.unwrap_err().to_string();
    assert!(refused.contains("n2 cannot be wiped: s0 would have 1 of the 2 replicas"), "{refused}");
    cluster.restart("n3").await.unwrap();
    in_time("catching up", async {
        while cluster.status().await.verdict != Verdict::Healthy {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(cluster.wipe("n2").await.unwrap().held, 8);
    let all = nodes(&http).await;
    let told: Vec<(&str, &str, u64)> =
        all.iter().map(|(name, state, replicas)| (name.as_str(), state.as_str(), *replicas)).collect();
    assert_eq!(told, [("n1", "up", 8), ("n2.lost.2", "down", 8), ("n3", "up", 8), ("n2", "spare", 0)]);
    // Again, before it was added: it held nothing.
    assert_eq!(cluster.wipe("n2").await.unwrap().held, 0);
    assert_eq!(nodes(&http).await.len(), 4);
    // A restart on the way changes nothing.
    cluster.kill("n2").await.unwrap();
    cluster.restart("n2").await.unwrap();
    change(&http, "add n2").await;
    let all = nodes(&http).await;
    assert_eq!(all.len(), 3, "what was lost has left: {all:?}");
    assert!(all.iter().all(|(_, state, replicas)| state == "up" && *replicas == 8), "{all:?}");
    writers.finish().await;
    meta_voters(&http, 3).await;
    // Now it and one other are a majority.
    cluster.kill("n3").await.unwrap();
    let at = gateway.clone();
    beside(move || assert_eq!(Client::connect(&at).ask(&["SET", "k", "v"]), Value::ok())).await;
    cluster.stop().await;
    let cluster = start(settings(&temp, None)).await;
    let gateway = cluster.addresses().gateway;
    beside(move || assert_eq!(Client::connect(&gateway).ask(&["GET", "k"]), Value::bulk("v"))).await;
    cluster.stop().await;
}

/// What a wipe or an addition leaves that was cut off is finished at the next start; a directory that somebody took away is
/// told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_cut_off_while_it_joined_goes_on() {
    let temp = Temp::new();
    let cluster = start(settings(&temp, None)).await;
    cluster.kill("n2").await.unwrap();
    std::fs::remove_dir_all(temp.0.join("n2")).unwrap();
    let missing = cluster.restart("n2").await.unwrap_err().to_string();
    assert!(missing.contains("tholos dev wipe n2"), "{missing}");
    cluster.stop().await;
    // Made, and nothing more: as a wipe leaves it that was cut off; and one that was to be added.
    for name in ["n2", "n4"] {
        drop(tholos_server::NodeDir::open(&temp.0, name).unwrap());
    }
    let cluster = start(settings(&temp, None)).await;
    let http = cluster.addresses().http;
    let began = Instant::now();
    loop {
        let all = nodes(&http).await;
        if all.iter().filter(|(_, state, _)| state == "spare").count() == 2 {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "not joined: {all:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    change(&http, "add n2 n4").await;
    let all = nodes(&http).await;
    assert!(
        all.len() == 4 && all.iter().all(|(_, state, replicas)| state == "up" && *replicas == 6),
        "{all:?}"
    );
    cluster.stop().await;
}

/// The same with processes of their own: one alone, to which two join.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_server_becomes_three_and_one_again() {
    let temp = Temp::new();
    let free = || "127.0.0.1:0".parse().unwrap();
    let config = |name: &str| Config {
        name: name.to_owned(),
        dir: temp.0.clone(),
        peer: free(),
        gateway: free(),
        cluster: free(),
        http: free(),
        shards: 8,
        ..Config::default()
    };
    let first = Config { seeds: Seeds::default(), ..config("n1") };
    let n1 = in_time("founding", Server::start(&first)).await.unwrap_or_else(|error| panic!("{error}"));
    in_time("getting ready", n1.ready()).await;
    let own = |server: &Server| {
        server.addresses().nodes.iter().find(|node| node.name == server.name()).unwrap().clone()
    };
    let (gateway, http, peer) = (own(&n1).gateway, own(&n1).http, own(&n1).peer);
    let writers = Writers::start(&gateway, 2);
    let mut joined = Vec::new();
    for name in ["n2", "n3"] {
        let config = Config { join: Some(peer.parse().unwrap()), ..config(name) };
        let server = in_time("joining", Server::start(&config)).await;
        joined.push(server.unwrap_or_else(|error| panic!("{error}")));
    }
    change(&http, "replicas 3 n2 n3").await;
    meta_voters(&http, 3).await;
    let all = nodes(&http).await;
    assert!(
        all.len() == 3 && all.iter().all(|(_, state, replicas)| state == "up" && *replicas == 8),
        "{all:?}"
    );
    change(&http, "replicas 1").await;
    change(&http, "remove n2 n3").await;
    meta_voters(&http, 1).await;
    for server in joined {
        in_time("stopping what holds nothing", server.stop()).await;
    }
    writers.finish().await;
    in_time("stopping", n1.stop()).await;
}
