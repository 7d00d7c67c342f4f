//! Nodes as `tholos serve` runs them, three in this process: founded over the peer ports, stopped, started again.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Client, beside, get, hold_port, http_request, in_time, plan_and_apply, rand};
use serde_json::Value as Json;
use tholos_resp::Value;
use tholos_server::config::{ByteSize, Config, Seed, Seeds, YesNo};
use tholos_server::{NodeAddresses, NodeState, Server, Verdict};

/// A directory of the system's, removed with this.
struct Temp(PathBuf);

impl Temp {
    fn new() -> Temp {
        Temp(std::env::temp_dir().join(format!("tholos-serve-{:016x}", rand())))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Configurations of n1 to n3, all seeds of each other.
fn configs(dir: &Path) -> Vec<Config> {
    let ports: Vec<u16> = {
        // Held together, so that they differ.
        let held: Vec<_> = (0..3).map(|_| hold_port()).collect();
        held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
    };
    let seed = |(number, port): (usize, &u16)| Seed {
        name: format!("n{}", number + 1),
        address: format!("127.0.0.1:{port}").parse().unwrap(),
    };
    let seeds: Vec<Seed> = ports.iter().enumerate().map(seed).collect();
    let config = |seed: &Seed| Config {
        name: seed.name.clone(),
        dir: dir.to_owned(),
        peer: seed.address.clone(),
        gateway: "127.0.0.1:0".parse().unwrap(),
        cluster: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        seeds: Seeds(seeds.clone()),
        shards: 8,
        drain_timeout_ms: 20_000,
        ..Config::default()
    };
    seeds.iter().map(config).collect()
}

/// Where a server is reached.
fn own(server: &Server) -> NodeAddresses {
    let addresses = server.addresses();
    addresses.nodes.iter().find(|node| node.name == server.name()).unwrap().clone()
}

async fn start_all(configs: &[Config]) -> Vec<Server> {
    let starting: Vec<_> = configs
        .iter()
        .cloned()
        .map(|config| tokio::spawn(async move { Server::start(&config).await }))
        .collect();
    let mut servers = Vec::new();
    for server in starting {
        servers.push(in_time("founding", server).await.unwrap().unwrap_or_else(|error| panic!("{error}")));
    }
    servers
}

/// Each start begins a segment of the log, however little the one before it holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_without_number_do_not_fill_the_log() {
    let temp = Temp::new();
    let mut config = configs(&temp.0).swap_remove(0);
    config.seeds.0.truncate(1);
    // Sixteen segments are all the room there is, and four of them are kept free for what is not a client's.
    (config.wal_bytes_max, config.wal_segment_bytes) = (ByteSize(256 << 20), ByteSize(16 << 20));
    for start in 0..16 {
        let server =
            in_time("starting", Server::start(&config)).await.unwrap_or_else(|error| panic!("{error}"));
        in_time("getting ready", server.ready()).await;
        let NodeAddresses { gateway, http, .. } = own(&server);
        beside(move || {
            let mut client = Client::connect(&gateway);
            assert_eq!(client.ask(&["SET", "key", &start.to_string()]), Value::ok(), "start {start}");
            let status = get(&http, "/v1/status");
            assert_eq!(status["verdict"], "healthy", "start {start}: {status}");
        })
        .await;
        in_time("stopping", server.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_seeds_found_a_cluster_that_outlives_them() {
    let temp = Temp::new();
    let configs = configs(&temp.0);
    let servers = start_all(&configs).await;
    for server in &servers {
        in_time("getting ready", server.ready()).await;
    }
    let (first, second) = (own(&servers[0]), own(&servers[1]));
    let (gateway, http) = (first.gateway.clone(), second.http.clone());
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..50 {
            assert_eq!(client.ask(&["SET", &format!("key:{number}"), "value"]), Value::ok());
        }
        let (code, status) = http_request(&http, &format!("GET /v1/status HTTP/1.1\r\nHost: {http}\r\n"));
        assert!(code == 200 && status.contains("\"verdict\":\"healthy\""), "{status}");
    })
    .await;

    // One stops in order: its leaderships go first, so nobody waits for an election.
    let mut servers = servers.into_iter();
    let (n1, n2, n3) = (servers.next().unwrap(), servers.next().unwrap(), servers.next().unwrap());
    assert!(in_time("handing over", n1.stop()).await, "every leadership was handed over");
    in_time("the heirs' first decision", n2.ready()).await;
    let status = n2.status().await;
    assert_eq!((status.verdict, status.nodes[0].state), (Verdict::Degraded, NodeState::Down));
    assert!(status.nodes[0].reason.as_ref().is_some_and(|why| why.contains("refused")), "{status:?}");
    let gateway = own(&n2).gateway;
    beside(move || assert_eq!(Client::connect(&gateway).ask(&["GET", "key:7"]), Value::bulk("value"))).await;
    in_time("stopping", n2.stop()).await;
    // Alone it has nobody to hand over to, and does not wait for anybody: the test's deadline is beyond drain_timeout_ms.
    let begin = std::time::Instant::now();
    in_time("stopping alone", n3.stop()).await;
    assert!(begin.elapsed() < Duration::from_millis(configs[2].drain_timeout_ms));

    let servers = start_all(&configs).await;
    for server in &servers {
        in_time("getting ready again", server.ready()).await;
    }
    let gateway = own(&servers[2]).gateway;
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..50 {
            assert_eq!(client.ask(&["GET", &format!("key:{number}")]), Value::bulk("value"));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_seeds_found_nothing() {
    let temp = Temp::new();
    let configs = configs(&temp.0);
    let two = start_all(&configs[..2]);
    assert!(
        tokio::time::timeout(Duration::from_millis(700), two).await.is_err(),
        "the third has not said that it is empty"
    );
}

/// A wiped node would vote against what it has forgotten (R21): it is refused, and comes back as a new one if the operator
/// says that what it had is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_node_is_refused_by_its_cluster_and_rejoins_as_a_new_one() {
    let temp = Temp::new();
    let configs = configs(&temp.0);
    let mut servers = start_all(&configs).await;
    let gateway = own(&servers[1]).gateway;
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..50 {
            assert_eq!(client.ask(&["SET", &format!("key:{number}"), "value"]), Value::ok());
        }
    })
    .await;
    let n1 = servers.remove(0);
    in_time("stopping", n1.stop()).await;
    std::fs::remove_dir_all(temp.0.join("n1")).unwrap();
    let refused =
        |server: Result<Server, _>| server.err().map(|error: tholos_server::StartError| error.to_string());
    let again = in_time("refusing", Server::start(&configs[0])).await;
    let again = refused(again).expect("a new directory is a new node");
    assert!(
        again.contains("belongs to cluster") && again.contains("start n1 once with --rejoin yes"),
        "{again}"
    );
    // The same by --join.
    let by_n2 = Config { seeds: Seeds::default(), join: Some(configs[1].peer.clone()), ..configs[0].clone() };
    let again = refused(in_time("refusing", Server::start(&by_n2)).await).expect("that is no other way in");
    assert!(again.contains("put that directory back") && again.contains("--rejoin yes"), "{again}");

    let consent = Config { rejoin: YesNo::Yes, ..configs[0].clone() };
    let n1 = in_time("rejoining", Server::start(&consent)).await.unwrap_or_else(|error| panic!("{error}"));
    servers.push(n1);
    let http = own(&servers[2]).http;
    beside(move || {
        let status = get(&http, "/v1/status");
        let row = |name: &str| {
            status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap()
        };
        assert_eq!((&row("n1")["state"], &row("n1")["replicas"]), (&"spare".into(), &0.into()), "{status}");
        assert_eq!(row("n1")["next"], "tholos cluster plan add n1");
        assert_eq!((&row("n1.lost.1")["state"], &row("n1.lost.1")["replicas"]), (&"down".into(), &8.into()));
        assert_eq!(status["verdict"], "degraded");
        plan_and_apply(&http, "add n1");
        let status = get(&http, "/v1/status");
        let names: Vec<&Json> =
            status["nodes"].as_array().unwrap().iter().map(|node| &node["name"]).collect();
        assert_eq!(names, ["n2", "n3", "n1"], "what was lost has left");
        assert_eq!(status["meta"].as_array().unwrap().len(), 3, "{status}");
    })
    .await;
    // It has everything: with it and one other it goes on.
    let n2 = servers.remove(0);
    in_time("stopping", n2.stop()).await;
    let gateway = own(&servers[1]).gateway;
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..50 {
            assert_eq!(client.ask(&["GET", &format!("key:{number}")]), Value::bulk("value"));
        }
    })
    .await;
    for server in servers {
        in_time("stopping", server.stop()).await;
    }
}

/// It would serve what that other cluster holds, and clients of these seeds would write into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_of_another_cluster_is_refused_where_a_seed_says_so() {
    let temp = Temp::new();
    let configs = configs(&temp.0);
    let other = Config { seeds: Seeds::default(), dir: temp.0.join("other"), ..configs[2].clone() };
    let alone = in_time("founding", Server::start(&other)).await.unwrap_or_else(|error| panic!("{error}"));
    in_time("stopping", alone.stop()).await;
    let mut servers = start_all(&configs).await;
    in_time("stopping", servers.pop().unwrap().stop()).await;

    let by_seeds = Config { dir: other.dir.clone(), ..configs[2].clone() };
    let by_join = Config { seeds: Seeds::default(), join: Some(configs[0].peer.clone()), ..by_seeds.clone() };
    for config in [by_seeds, by_join] {
        let refused =
            in_time("refusing", Server::start(&config)).await.err().expect("two clusters").to_string();
        assert!(
            refused.contains("belongs to cluster") && refused.contains("nothing was touched"),
            "{refused}"
        );
    }
    // Its own directory is as good as before, and the other one, too.
    let n3 = in_time("starting", Server::start(&configs[2])).await.unwrap_or_else(|error| panic!("{error}"));
    servers.push(n3);
    for server in servers {
        in_time("stopping", server.stop()).await;
    }
    let alone = in_time("starting", Server::start(&other)).await.unwrap_or_else(|error| panic!("{error}"));
    in_time("stopping", alone.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_alone_is_a_cluster() {
    let temp = Temp::new();
    let config = Config { seeds: Seeds::default(), ..configs(&temp.0).remove(0) };
    let server = in_time("starting", Server::start(&config)).await.unwrap_or_else(|error| panic!("{error}"));
    in_time("getting ready", server.ready()).await;
    let gateway = server.addresses().gateway.clone();
    beside(move || assert_eq!(Client::connect(&gateway).ask(&["INCR", "n"]), Value::integer(1))).await;
    let twice =
        Server::start(&Config { peer: "127.0.0.1:0".parse().unwrap(), ..config }).await.err().unwrap();
    assert!(twice.to_string().contains("in use by the process"), "{twice}");
    in_time("stopping", server.stop()).await;
}
