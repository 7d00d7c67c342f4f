//! A whole cluster in this process, over real sockets and real files: served, killed, restarted, stopped.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Client, DEADLINE, beside, http_post, http_request, in_time, rand};
use tholos_resp::Value;
use tholos_server::{DevCluster, DevSettings, NodeState, Verdict};

fn settings() -> DevSettings {
    DevSettings { port: 0, cluster_port: 0, peer_port: 0, http_port: 0, temp: true, ..DevSettings::default() }
}

async fn start(settings: DevSettings) -> DevCluster {
    let cluster = DevCluster::start(settings).await.unwrap_or_else(|error| panic!("{error}"));
    in_time("getting ready", cluster.ready()).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_is_killed_and_comes_back_and_nothing_is_lost() {
    let cluster = start(settings()).await;
    let gateway = cluster.addresses().gateway;
    let at = gateway.clone();
    beside(move || {
        let mut client = Client::connect(&at);
        assert_eq!(client.ask(&["PING"]), Value::simple("PONG"));
        for number in 0..200 {
            assert_eq!(
                client.ask(&["SET", &format!("key:{number}"), &format!("value {number}")]),
                Value::ok()
            );
        }
        assert_eq!(client.ask(&["GET", "key:7"]), Value::bulk("value 7"));
    })
    .await;

    cluster.kill("n2").await.unwrap();
    let at = gateway.clone();
    beside(move || {
        let mut client = Client::connect(&at);
        for number in 0..200 {
            let key = format!("key:{number}");
            assert_eq!(client.ask(&["GET", &key]), Value::bulk(format!("value {number}")), "{key}");
            assert_eq!(client.ask(&["SET", &key, "after"]), Value::ok(), "{key}");
        }
    })
    .await;
    // Shards without a key may take a moment longer to find a leader.
    let status = in_time("electing", async {
        loop {
            let status = cluster.status().await;
            if status.verdict != Verdict::Unavailable {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(status.verdict, Verdict::Degraded);
    assert_eq!(status.nodes[1].state, NodeState::Down);
    assert!(cluster.kill("n2").await.is_err(), "it is dead already");

    cluster.restart("n2").await.unwrap();
    in_time("catching up", async {
        loop {
            let status = cluster.status().await;
            if status.verdict == Verdict::Healthy && status.nodes[1].lag == Some(0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Now the writes that n2 missed are on its disk: it and one other are a majority.
    cluster.kill("n3").await.unwrap();
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..200 {
            assert_eq!(client.ask(&["GET", &format!("key:{number}")]), Value::bulk("after"));
        }
    })
    .await;
    cluster.stop().await;
}

/// A node whose log and snapshots rot starts, says so, is repaired by the others, and then counts again (R20).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_with_rot_starts_mute_and_is_repaired() {
    // The first batches: what comes after them says that they were durable.
    rot_is_repaired(|segments| overwrite(&segments[0], 4096..5120)).await;
}

/// So does one that cannot read anything of its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_a_readable_log_starts_mute_and_is_repaired() {
    rot_is_repaired(|segments| segments.iter().for_each(|segment| overwrite(segment, 0..5120))).await;
}

fn overwrite(file: &Path, range: std::ops::Range<usize>) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[range].iter_mut().for_each(|byte| *byte ^= 0x5a);
    std::fs::write(file, bytes).unwrap();
}

async fn rot_is_repaired(rot: impl Fn(&[PathBuf])) {
    let dir = std::env::temp_dir().join(format!("tholos-test-{:016x}", rand()));
    let mut settings = settings();
    (settings.temp, settings.dir) = (false, dir.clone());
    let cluster = start(settings).await;
    let (gateway, http) = (cluster.addresses().gateway.clone(), cluster.addresses().http.clone());
    let write = |value: &'static str| {
        let at = gateway.clone();
        beside(move || {
            let mut client = Client::connect(&at);
            for number in 0..100 {
                assert_eq!(client.ask(&["SET", &format!("key:{number}"), value]), Value::ok());
            }
        })
    };
    write("one").await;
    cluster.kill("n2").await.unwrap();
    write("two").await;
    let wal = dir.join("n2").join("wal");
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(wal).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    rot(&segments);

    // As long as n3 is down, nobody can say what n2 may have promised.
    cluster.kill("n3").await.unwrap();
    cluster.restart("n2").await.unwrap();
    let mute = in_time("telling", async {
        loop {
            let status = cluster.status().await;
            if let Some(reason) = status.nodes[1].reason.clone().filter(|reason| reason.contains("1 of 2")) {
                return reason;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(mute.contains("vote nowhere") && mute.contains("records of its log cannot be read"), "{mute}");
    assert_eq!(cluster.status().await.verdict, Verdict::Unavailable, "n1 is no quorum by itself");
    let get = |path: &'static str| {
        let at = http.clone();
        beside(move || http_request(&at, &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n")))
    };
    let (code, text) = get("/healthz").await;
    assert!(code == 200 && text.contains("n2: ") && text.contains("vote nowhere"), "{code} {text}");
    let (_, metrics) = get("/metrics").await;
    assert!(metrics.contains("tholos_paxos_mute_replicas{node=\"n2\"} 64"), "{metrics}");

    cluster.restart("n3").await.unwrap();
    in_time("repair", async {
        loop {
            let status = cluster.status().await;
            if status.verdict == Verdict::Healthy && status.nodes[1].lag == Some(0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // It and one other are a majority again, with everything that was acknowledged.
    cluster.kill("n1").await.unwrap();
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..100 {
            assert_eq!(client.ask(&["GET", &format!("key:{number}")]), Value::bulk("two"));
        }
    })
    .await;
    cluster.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

/// More than its leader keeps in memory: the node gets the leader's snapshot file, while writes go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_fell_far_behind_gets_a_snapshot() {
    let cluster = start(settings()).await;
    let addresses = cluster.addresses();
    let value = "v".repeat(64 << 10);
    let write = |numbers: std::ops::Range<u32>| {
        let (at, value) = (addresses.gateway.clone(), value.clone());
        beside(move || {
            let mut client = Client::connect(&at);
            for number in numbers {
                assert_eq!(client.ask(&["SET", &format!("{{k}}{number}"), &value]), Value::ok());
            }
        })
    };
    write(0..1).await;
    cluster.kill("n3").await.unwrap();
    write(1..80).await;
    cluster.restart("n3").await.unwrap();
    write(80..120).await;
    in_time("catching up", async {
        while cluster.status().await.nodes[2].lag != Some(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let http = addresses.http.clone();
    let (code, metrics) =
        beside(move || http_request(&http, &format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n"))).await;
    let installed = "tholos_node_snapshots_installed_total{node=\"n3\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(installed)).unwrap_or("none");
    assert!(code == 200 && count != "0" && count != "none", "{count} snapshots installed");
    // Now what it has is what a majority has.
    cluster.kill("n1").await.unwrap();
    let at = addresses.gateway.clone();
    beside(move || {
        let mut client = Client::connect(&at);
        for number in 0..120 {
            let length = client.ask(&["STRLEN", &format!("{{k}}{number}")]);
            assert_eq!(length, Value::integer(64 << 10), "{number}");
        }
    })
    .await;
    cluster.stop().await;
}

fn copy_directory(from: &Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_directory(&entry.path(), &target),
            false => _ = std::fs::copy(entry.path(), target).unwrap(),
        }
    }
}

/// An old copy of a directory is put back: the node is told, counts nowhere until it is repaired, and then holds what was
/// written meanwhile (R21).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory_that_went_back_in_time_is_noticed_and_repaired() {
    let dir = std::env::temp_dir().join(format!("tholos-test-{:016x}", rand()));
    let mut settings = settings();
    (settings.temp, settings.dir) = (false, dir.clone());
    let cluster = start(settings).await;
    let (gateway, http) = (cluster.addresses().gateway.clone(), cluster.addresses().http.clone());
    let write = |value: &'static str| {
        let at = gateway.clone();
        beside(move || {
            let mut client = Client::connect(&at);
            for number in 0..100 {
                assert_eq!(client.ask(&["SET", &format!("key:{number}"), value]), Value::ok());
            }
        })
    };
    let healthy = || async {
        in_time("getting healthy", async {
            loop {
                let status = cluster.status().await;
                if status.verdict == Verdict::Healthy && status.nodes[1].lag == Some(0) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    write("one").await;
    cluster.kill("n2").await.unwrap();
    copy_directory(&dir.join("n2"), &dir.join("copy"));
    cluster.restart("n2").await.unwrap();
    healthy().await;
    write("two").await;
    healthy().await;
    // The others have heard how far its disk is by now, or hear it with the next heartbeat.
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.kill("n2").await.unwrap();
    std::fs::remove_dir_all(dir.join("n2")).unwrap();
    std::fs::rename(dir.join("copy"), dir.join("n2")).unwrap();
    cluster.restart("n2").await.unwrap();
    healthy().await;
    let metrics =
        beside(move || http_request(&http, &format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\n"))).await.1;
    let shows = |line: &str| metrics.lines().any(|other| other == line);
    assert!(shows(r#"tholos_node_went_back_total{node="n2"} 1"#), "{metrics}");
    // All shards, and the meta group, whose repair nothing here waits for.
    let repaired = |count| shows(&format!("tholos_paxos_repaired_replicas_total{{node=\"n2\"}} {count}"));
    assert!(repaired(64) || repaired(65), "{metrics}");
    assert!(dir.join("n2/barred").exists(), "it begins no replicas any more");
    cluster.kill("n1").await.unwrap();
    beside(move || {
        let mut client = Client::connect(&gateway);
        for number in 0..100 {
            assert_eq!(client.ask(&["GET", &format!("key:{number}")]), Value::bulk("two"));
        }
    })
    .await;
    cluster.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_outlives_the_process() {
    let dir = std::env::temp_dir().join(format!("tholos-test-{:016x}", rand()));
    let mut settings = settings();
    settings.temp = false;
    settings.dir = dir.clone();
    for round in 0..3 {
        let cluster = start(settings.clone()).await;
        let gateway = cluster.addresses().gateway;
        beside(move || {
            let mut client = Client::connect(&gateway);
            assert_eq!(client.ask(&["INCR", "rounds"]), Value::integer(round + 1));
        })
        .await;
        cluster.stop().await;
    }
    let other = DevSettings { nodes: Some(5), ..settings.clone() };
    let error = DevCluster::start(other).await.err().expect("five nodes on the data of three").to_string();
    for part in ["--nodes 3", "--fresh", "--dir"] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    let fewer = DevSettings { nodes: Some(1), ..settings.clone() };
    assert!(DevCluster::start(fewer).await.is_err());
    let fresh = start(DevSettings { fresh: true, nodes: Some(1), ..settings }).await;
    let gateway = fresh.addresses().gateway;
    beside(move || assert_eq!(Client::connect(&gateway).ask(&["GET", "rounds"]), Value::Null)).await;
    fresh.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taken_port_is_told_and_nothing_is_left_behind() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let error = DevCluster::start(DevSettings { port, ..settings() }).await.err().unwrap().to_string();
    assert!(error.contains(&format!("port {port} is in use")) && error.contains("--port"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_bytes_get_an_error_and_the_end() {
    let cluster = start(DevSettings { nodes: Some(1), ..settings() }).await;
    let gateway = cluster.addresses().gateway;
    beside(move || {
        let mut client = Client::connect(&gateway);
        client.stream.write_all(b"PING\r\n*1\r\n$x\r\n").unwrap();
        assert_eq!(client.receive(), Some(Value::simple("PONG")), "what came before is answered");
        let error = client.receive().unwrap();
        assert_eq!(error, Value::error("ERR Protocol error: invalid bulk length"));
        assert_eq!(client.receive(), None);
        // Half a command, then the end of the stream.
        let mut client = Client::connect(&gateway);
        client.stream.write_all(b"*2\r\n$3\r\nGET\r\n").unwrap();
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.receive(), None);
        // Commands, then the end of the stream: all are answered.
        let mut client = Client::connect(&gateway);
        for _ in 0..10 {
            client.send(&["INCR", "counter"]);
        }
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        for number in 1..=10 {
            assert_eq!(client.receive(), Some(Value::integer(number)));
        }
        assert_eq!(client.receive(), None);
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_clients_are_told_so() {
    let mut settings = DevSettings { nodes: Some(1), ..settings() };
    settings.tuning.clients.clients_max = 2;
    let cluster = start(settings).await;
    let gateway = cluster.addresses().gateway;
    beside(move || {
        let mut first = Client::connect(&gateway);
        let mut second = Client::connect(&gateway);
        assert_eq!(
            (first.ask(&["PING"]), second.ask(&["PING"])),
            (Value::simple("PONG"), Value::simple("PONG"))
        );
        let mut third = Client::connect(&gateway);
        assert_eq!(third.receive(), Some(Value::error("ERR max number of clients reached")));
        assert_eq!(third.receive(), None);
        drop(first);
        let start = Instant::now();
        while Client::connect(&gateway).try_ping().is_none() {
            assert!(start.elapsed() < DEADLINE, "the place of the first is never free");
        }
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_guards_commands_and_their_size() {
    let mut settings = DevSettings { nodes: Some(1), ..settings() };
    settings.tuning.requirepass = Some("secret".into());
    let cluster = start(settings).await;
    let gateway = cluster.addresses().gateway;
    beside(move || {
        let mut client = Client::connect(&gateway);
        assert!(matches!(client.ask(&["GET", "k"]), Value::Error(text) if text.starts_with(b"NOAUTH")));
        let large = "x".repeat(20_000);
        // In one piece: the password must count before the large command behind it is judged.
        let mut bytes = Vec::new();
        tholos_resp::encode_command(&[&b"AUTH"[..], b"secret"], &mut bytes);
        tholos_resp::encode_command(&[&b"SET"[..], b"k", large.as_bytes()], &mut bytes);
        client.stream.write_all(&bytes).unwrap();
        assert_eq!((client.receive(), client.receive()), (Some(Value::ok()), Some(Value::ok())));
        let mut stranger = Client::connect(&gateway);
        stranger.send(&["SET", "k", &large]);
        let error = stranger.receive().unwrap();
        assert_eq!(error, Value::error("ERR Protocol error: unauthenticated bulk length"));
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_interface_shows_and_acts() {
    let cluster = start(settings()).await;
    let http = cluster.addresses().http;
    beside(move || {
        let get = |path: &str| http_request(&http, &format!("GET {path} HTTP/1.1\r\nHost: {http}\r\n"));
        // A loaded machine may be between two leaders just now.
        let deadline = Instant::now() + Duration::from_secs(30);
        let until = |path: &str, wanted: fn(&str) -> bool| loop {
            let answer = get(path);
            if (answer.0 == 200 && wanted(&answer.1)) || Instant::now() >= deadline {
                return answer;
            }
        };
        assert_eq!(until("/healthz", |body| body == "ok\n"), (200, "ok\n".to_owned()));
        let healthy = |status: &str| status.contains("\"verdict\":\"healthy\"");
        let (code, status) = until("/v1/status", healthy);
        assert!(code == 200 && healthy(&status), "{status}");
        let (code, metrics) = get("/metrics");
        assert!(code == 200 && metrics.contains("tholos_paxos_replicas{node=\"n3\"} 64\n"), "{metrics}");
        let led = |location: &str| location.contains("\"leader\":\"n");
        let location = until("/v1/locate?key=hello", led);
        assert!(location.0 == 200 && location.1.contains("\"slot\":866") && led(&location.1), "{location:?}");

        let post = |path: &str, more: &str| {
            http_request(
                &http,
                &format!("POST {path} HTTP/1.1\r\nHost: {http}\r\nContent-Length: 0\r\n{more}"),
            )
        };
        assert_eq!(post("/v1/dev/kill?node=n2", "Origin: http://evil.example\r\n").0, 403);
        assert_eq!(post("/v1/dev/kill?node=n9", "").0, 404);
        assert_eq!(post("/v1/dev/kill?node=n2", "").0, 200);
        assert_eq!(post("/v1/dev/kill?node=n2", "").0, 409);
        assert_eq!(post("/v1/dev/restart?node=n2", "").0, 200);
        assert_eq!(http_request(&http, "GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n").0, 403);
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_of_the_admin_interface_is_json_in_our_words() {
    let cluster = start(DevSettings { nodes: Some(1), ..settings() }).await;
    let http = cluster.addresses().http;
    beside(move || {
        let check = |(code, body): (u16, String), wanted: u16, words: &[&str]| {
            let answer: serde_json::Value =
                serde_json::from_str(&body).unwrap_or_else(|_| panic!("{code} {body}"));
            let error = answer["error"].as_str().unwrap_or_else(|| panic!("{body}"));
            assert_eq!(code, wanted, "{error}");
            for word in words {
                assert!(error.contains(word), "no {word}: {error}");
            }
            for foreign in ["deserialize", "expected", "invalid type", "`"] {
                assert!(!error.contains(foreign), "{error}");
            }
        };
        let ask = |request: &str| {
            http_request(&http, &format!("{request} HTTP/1.1\r\nHost: {http}\r\nContent-Length: 0\r\n"))
        };
        check(ask("GET /v1/locate"), 400, &["key is missing", "key (a key"]);
        check(ask("GET /v1/locate?kye=a"), 400, &["no field kye", "key (a key"]);
        check(ask("GET /v1/plan"), 400, &["request is missing"]);
        check(ask("POST /v1/jobs/pause?id=x"), 400, &["id cannot be x", "the number of a job"]);
        check(ask("POST /v1/apply?id=00000000&throttle=1"), 400, &["no field throttle", "bytes_per_s"]);
        check(ask("POST /v1/hold?held=perhaps"), 400, &["held cannot be perhaps", "true or false"]);
        check(ask("POST /v1/dev/kill"), 400, &["node is missing"]);
        check(ask("POST /v1/recover/apply"), 400, &["id is missing"]);
        check(ask("GET /v2/status"), 404, &["/v2/status"]);
        check(ask("DELETE /v1/jobs"), 405, &["/v1/jobs", "DELETE"]);
        check(ask("POST /v1/jobs"), 415, &["Content-Type: application/json"]);
        let post = |body: &str| http_post(&http, "/v1/jobs", body);
        check(post("{"), 400, &["no JSON"]);
        check(post("{\"plan\": 1}"), 422, &["epoch is missing", "standings"]);
        check(post("{\"plan\": \"x\"}"), 422, &["not what its field takes", "column"]);
        check(post("{\"plan\": 1, \"epohc\": 7}"), 422, &["no field epohc", "epoch (that of the map"]);
        let moves =
            "{\"plan\": 1, \"epoch\": 7, \"title\": \"t\", \"moves\": [{\"shard\": 0, \"too\": \"n1\"}]}";
        check(post(moves), 422, &["no field too", "shard"]);
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_interface_goes_by_the_passwords_that_are_in_force() {
    let mut settings = DevSettings { nodes: Some(2), ..settings() };
    settings.tuning.requirepass = Some("secret".into());
    let cluster = start(settings).await;
    let addresses = cluster.addresses();
    beside(move || {
        let http = addresses.http;
        let mut clients: Vec<Client> =
            addresses.nodes.iter().map(|node| Client::connect(&node.cluster)).collect();
        let mut set = |node: usize, old: &str, new: &str| {
            if !old.is_empty() {
                assert_eq!(clients[node].ask(&["AUTH", old]), Value::ok());
            }
            assert_eq!(clients[node].ask(&["CONFIG", "SET", "requirepass", new]), Value::ok());
        };
        let ask = |request: &str, password: &str| {
            let shown = match password {
                "" => String::new(),
                password => format!("Authorization: Bearer {password}\r\n"),
            };
            let head = format!("{request} HTTP/1.1\r\nHost: {http}\r\nContent-Length: 0\r\n{shown}");
            http_request(&http, &head)
        };
        let hold = |password: &str| ask("POST /v1/hold?held=false", password).0;
        assert_eq!((hold(""), hold("wrong"), hold("secret")), (401, 401, 200));
        let (code, body) = ask("POST /v1/dev/kill?node=n2", "");
        let error = serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].to_string();
        assert!(code == 401 && error.contains("requirepass") && error.contains("Bearer"), "{code} {body}");
        assert_eq!((ask("GET /v1/node", "").0, ask("GET /metrics", "wrong").0), (200, 200));
        // Each node by itself; any of their passwords opens what they share.
        set(0, "secret", "first");
        assert_eq!((hold(""), hold("first"), hold("secret"), hold("wrong")), (401, 200, 200, 401));
        set(1, "secret", "");
        assert_eq!((hold(""), hold("first"), hold("secret")), (401, 200, 401));
        set(0, "first", "");
        assert_eq!(hold(""), 200);
        set(1, "", "second");
        assert_eq!((hold(""), hold("second")), (401, 200));
        // One that is stopped will start with the one that it was given.
        set(1, "second", "");
        assert_eq!(ask("POST /v1/dev/kill?node=n2", "").0, 200);
        assert_eq!((ask("POST /v1/dev/restart?node=n2", "").0, hold("")), (401, 401));
        assert_eq!(ask("POST /v1/dev/restart?node=n2", "secret").0, 200);
    })
    .await;
    cluster.stop().await;
}

#[test]
fn ready_file_is_renamed_into_place() {
    let file: PathBuf = std::env::temp_dir().join(format!("tholos-ready-{:016x}.json", rand()));
    let mut settings = DevSettings { nodes: Some(1), ..settings() };
    settings.ready_file = Some(file.clone());
    std::fs::write(&file, "of an earlier start").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let cluster = DevCluster::start(settings).await.unwrap();
        assert!(!file.exists(), "what an earlier start wrote is gone before this one serves");
        in_time("getting ready", cluster.ready()).await;
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(&cluster.addresses().nodes[0].cluster), "{text}");
        cluster.stop().await;
    });
    std::fs::remove_file(file).unwrap();
}

/// Replies that nobody reads: the client is closed at its bound, and no other one notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_never_reads_is_closed_and_others_are_served() {
    let mut settings = DevSettings { nodes: Some(1), ..settings() };
    settings.tuning.clients.output_buffer_bytes_max = 1 << 20;
    let cluster = start(settings).await;
    let gateway = cluster.addresses().gateway;
    beside(move || {
        let mut other = Client::connect(&gateway);
        let value = "x".repeat(1 << 20);
        assert_eq!(other.ask(&["SET", "k", &value]), Value::ok());
        let mut deaf = Client::connect(&gateway);
        let mut sent = 0;
        deaf.stream.set_write_timeout(Some(DEADLINE)).unwrap();
        // Its own kernel buffers are full long before this many replies.
        while sent < 10_000 && deaf.stream.write_all(b"GET k\r\n").is_ok() {
            sent += 1;
            if sent % 100 == 0 {
                assert_eq!(other.ask(&["PING"]), Value::simple("PONG"));
            }
        }
        let start = Instant::now();
        while other.info("connected_clients:1\r\n").is_none() {
            assert!(start.elapsed() < DEADLINE, "the client that does not read is never closed");
            // Pushing it further is no harm.
            let _ = deaf.stream.write_all(b"GET k\r\n");
        }
        assert_eq!(other.ask(&["STRLEN", "k"]), Value::integer(1 << 20));
    })
    .await;
    cluster.stop().await;
}

impl Client {
    /// INFO, if it contains `part`.
    fn info(&mut self, part: &str) -> Option<String> {
        let text = match self.ask(&["INFO"]) {
            Value::Bulk(text) | Value::Verbatim { text, .. } => String::from_utf8_lossy(&text).into_owned(),
            other => panic!("{other:?}"),
        };
        text.contains(part).then_some(text)
    }
}
