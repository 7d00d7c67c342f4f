//! The command line as scripts see it: exit codes, words, where values come from, and a `dev` cluster in use.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(60);

fn tholos(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tholos"));
    // Nothing of the developer's own surroundings: no variables of ours, no tholos.toml.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THOLOS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command
}

fn run(arguments: &[&str]) -> Output {
    tholos(arguments).output().expect("the binary can be run")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("output is UTF-8")
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("our own directory can be removed");
    }
    std::fs::create_dir_all(&dir).expect("a directory can be made");
    dir
}

/// An address where nobody listens: a port that was free a moment ago.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[track_caller]
fn fails(arguments: &[&str], exit: i32, words: &[&str]) {
    let output = run(arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say \"{word}\": {said}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?} prints a result: {}", stdout(&output));
}

#[test]
fn exit_codes_tell_usage_from_no_answer() {
    let nobody = nobody();
    fails(&["fly"], 2, &["fly"]);
    fails(&["bench", "--mix", "fly=1"], 2, &["get, set"]);
    fails(&["bench", "--rate", "0"], 2, &["0.001 to 10000000"]);
    fails(&["bench", "--at", &nobody], 3, &["connect", "--at"]);
    fails(&["cluster", "status", "--at", &nobody], 3, &["connection refused", "THOLOS_AT"]);
    fails(&["cluster", "locate", "key", "--at", &nobody], 3, &["no node answers"]);
    fails(&["dev", "kill", "n2", "--at", &nobody], 3, &["no node answers"]);
    fails(&["config", "show", "--weight", "0"], 2, &["`weight`", "1 to 100", "flag --weight"]);
    fails(&["config", "check"], 2, &["`name`", "--name n1"]);
    fails(&["serve", "--name", "n1", "--shards", "48"], 2, &["`shards`", "power of two"]);
    fails(&["dev", "--temp", "--replicas", "2"], 2, &["--replicas", "use 1, 3 or 5"]);
    fails(
        &["serve", "--name", "n1", "--peer", "0.0.0.0:7101", "--advertise-peer", "h:1"],
        2,
        &["`peer`", "secret"],
    );
}

#[test]
fn something_else_at_the_address_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let redis = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        // Read first: closing over unread bytes would cut the connection instead.
        let _request = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"-ERR unknown command 'GET'\r\n").unwrap();
    });
    fails(&["cluster", "status", "--at", &address], 3, &["speaks no HTTP"]);
    redis.join().unwrap();
}

#[test]
fn each_layer_beats_the_one_below_it() {
    let dir = scratch("layers");
    let file = dir.join("tholos.toml");
    std::fs::write(&file, "http = \"127.0.0.1:1\"\nzone = \"file\"\nweight = 7\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = tholos(&["config", "show", "--json", "--config", file, "--http", "127.0.0.1:3"]);
    command.env("THOLOS_HTTP", "127.0.0.1:2").env("THOLOS_ZONE", "variable");
    let shown: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    for (key, value, origin) in [
        ("http", "127.0.0.1:3", "flag --http".to_owned()),
        ("zone", "variable", "environment THOLOS_ZONE".to_owned()),
        ("weight", "7", format!("file {file}")),
        ("shards", "64", "default".to_owned()),
    ] {
        assert_eq!(shown[key]["value"], value, "{key}");
        assert_eq!(shown[key]["origin"], origin, "{key}");
    }
    let text = stdout(&run(&["config", "show", "--origin", "--config", file]));
    assert!(
        text.lines().any(|line| line.starts_with("weight = 7 ") && line.ends_with(&format!("# file {file}")))
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_unknown_key_names_the_nearest_and_secrets_stay_secret() {
    let dir = scratch("keys");
    let file = dir.join("tholos.toml");
    std::fs::write(&file, "htpp = \"127.0.0.1:1\"\n").unwrap();
    fails(&["config", "show", "--config", file.to_str().unwrap()], 2, &["`htpp`", "did you mean `http`?"]);
    std::fs::write(&file, "cluster_secret = \"correct horse battery\"\n").unwrap();
    let output = tholos(&["config", "show", "--json", "--config", file.to_str().unwrap()])
        .env("THOLOS_REQUIREPASS", "staple")
        .output()
        .unwrap();
    let all = stdout(&output) + &stderr(&output);
    assert!(all.contains("THOLOS_REQUIREPASS") && !all.contains("horse") && !all.contains("staple"), "{all}");
    fails(&["serve", "--requirepass", "staple"], 2, &["--requirepass"]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_example_is_a_file_that_changes_nothing() {
    let dir = scratch("example");
    let file = dir.join("tholos.toml");
    std::fs::write(&file, run(&["config", "example"]).stdout).unwrap();
    let with_file = run(&["config", "show", "--config", file.to_str().unwrap()]);
    assert_eq!(stdout(&with_file), stdout(&run(&["config", "show"])));
    assert!(with_file.status.success());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn nothing_piped_has_colour() {
    let nobody = nobody();
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["fly"],
        &["config", "show", "--origin"],
        &["cluster", "status", "--at", &nobody],
    ] {
        let output = run(arguments);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{arguments:?}");
    }
}

/// A `dev` cluster on free ports in a temporary directory; killed when dropped.
struct Dev {
    child: Child,
    addresses: Value,
}

impl Dev {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Self {
        Self::start_by(more, |command| command)
    }

    fn start_by(more: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let dir = scratch(&format!("dev{}", more.join("")));
        let ready = dir.join("ready.json");
        let free = ["--port", "0", "--cluster-port", "0", "--peer-port", "0", "--http-port", "0"];
        let mut command = tholos(&["dev", "--temp", "--ready-file", ready.to_str().unwrap()]);
        command.args(free).args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = change(&mut command).spawn().unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Ok(text) = std::fs::read(&ready) {
                let addresses =
                    serde_json::from_slice(&text).expect("the ready file is whole when it is there");
                std::fs::remove_dir_all(&dir).unwrap();
                return Dev { child, addresses };
            }
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "not ready: {ended:?} {}",
                Self::said(&mut child)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An orderly end; with which exit code.
    fn end(&mut self) -> Option<i32> {
        self.end_by("-TERM")
    }

    fn end_by(&mut self, signal: &str) -> Option<i32> {
        let killed = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let deadline = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "SIG{signal} does not end it");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.wait().unwrap().code()
    }

    fn said(child: &mut Child) -> String {
        let _gone = child.kill();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }

    fn http(&self) -> &str {
        self.addresses["http"].as_str().unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = run(&[arguments, &["--at", self.http()]].concat());
        (output.status.code(), stdout(&output) + &stderr(&output))
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// What a bench says that gets a ^C once it has written a key.
fn interrupted_bench(gateway: &str, loads: &[&str], key: &str) -> Output {
    let mut bench = tholos(&[&["bench", "--json", "--at", gateway], loads].concat());
    let bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut client = TcpStream::connect(gateway).unwrap();
    let (deadline, mut reply) = (Instant::now() + DEADLINE, [0; 4]);
    while reply != *b":1\r\n" {
        assert!(Instant::now() < deadline, "it has written nothing");
        client.write_all(format!("EXISTS {key}\r\n").as_bytes()).unwrap();
        client.read_exact(&mut reply).unwrap();
    }
    assert!(Command::new("kill").args(["-INT", &bench.id().to_string()]).status().unwrap().success());
    bench.wait_with_output().unwrap()
}

#[test]
fn a_bench_that_is_interrupted_before_it_measures_says_so() {
    let dev = Dev::start_with(&["--nodes", "1", "--shards", "4"]);
    let gateway = dev.addresses["gateway"].as_str().unwrap();
    let ways = [
        &["--fill", "--keys", "1000000000", "--connections", "2"][..],
        &["--warmup", "3600", "--mix", "incr=1", "--keys", "1", "--connections", "2"],
    ];
    for (way, key) in ways.into_iter().zip(["key:000000000000", "cnt:000000000000"]) {
        let bench = interrupted_bench(gateway, way, key);
        assert_eq!(bench.status.code(), Some(130), "{way:?}: {}", stderr(&bench));
        assert!(
            stderr(&bench).contains("nothing was measured") && bench.stdout.is_empty(),
            "{}",
            stderr(&bench)
        );
    }
}

#[test]
fn a_dev_cluster_is_watched_killed_and_restarted() {
    let mut dev = Dev::start();
    let gateway = dev.addresses["gateway"].as_str().unwrap().to_owned();

    let (exit, text) = dev.ask(&["cluster", "status"]);
    assert!(exit == Some(0) && text.starts_with("HEALTHY  3 of 3 nodes up"), "{text}");
    let (_, json) = dev.ask(&["cluster", "locate", "hello", "--json"]);
    let location: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&location["slot"], &location["shard"]), (&866.into(), &3.into()));
    assert_eq!(location["replicas"].as_array().unwrap().len(), 3);

    let (exit, text) = dev.ask(&["dev", "kill", "n2"]);
    assert!(exit == Some(0) && text.starts_with("n2 stopped."), "{text}");
    let (exit, text) = dev.ask(&["cluster", "status"]);
    assert!(exit == Some(1) && text.starts_with("DEGRADED") && text.contains("n2    DOWN"), "{text}");
    let (exit, text) = dev.ask(&["dev", "kill", "n9"]);
    assert!(exit == Some(1) && text.contains("n1, n2, n3"), "{text}");

    // Writes go on without it.
    let bench = run(&[
        "bench",
        "--at",
        &gateway,
        "--requests",
        "500",
        "--warmup",
        "0",
        "--connections",
        "4",
        "--json",
    ]);
    let bench: Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert_eq!((&bench["operations"], &bench["errors"]), (&500.into(), &0.into()), "{bench}");
    // An open loop sends as many as were due, and no more.
    let loads = ["--at", &gateway, "--rate", "500", "--seconds", "1", "--warmup", "0", "--connections", "4"];
    let bench = run(&[&["bench", "--json"], &loads[..]].concat());
    let bench: Value = serde_json::from_slice(&bench.stdout).unwrap();
    let number = |name: &str| bench[name].as_u64().unwrap();
    let all = number("operations") + number("errors") + number("unsent");
    // A reply that comes after the end is not counted, of each connection one.
    assert!((496..=500).contains(&all) && number("operations") > 0, "{bench}");

    // ^C ends it with what was measured.
    let loads =
        ["--mix", "incr=1", "--keys", "1", "--seconds", "3600", "--warmup", "0", "--connections", "4"];
    let bench = interrupted_bench(&gateway, &loads, "cnt:000000000000");
    let said: Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert!(bench.status.success() && said["operations"].as_u64() > Some(0), "{said}");

    let (exit, text) = dev.ask(&["dev", "restart", "n2"]);
    assert!(exit == Some(0) && text.starts_with("n2 is up, caught up"), "{text}");
    let (exit, json) = dev.ask(&["cluster", "status", "--json"]);
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((exit, &status["verdict"]), (Some(0), &"healthy".into()), "{json}");

    assert_eq!(dev.end(), Some(0));
    let mut banner = String::new();
    dev.child.stdout.take().unwrap().read_to_string(&mut banner).unwrap();
    assert!(banner.contains("64 shards x 3 replicas") && !banner.contains('\x1b'), "{banner}");
}

#[test]
fn the_hottest_key_is_named_with_its_shard() {
    let dev = Dev::start();
    let gateway = dev.addresses["gateway"].as_str().unwrap();
    let (exit, text) = dev.ask(&["cluster", "hot"]);
    assert!(exit == Some(0) && text.contains("reads/s"), "{text}");
    let deadline = Instant::now() + DEADLINE;
    loop {
        let loads =
            ["--at", gateway, "--keys", "1", "--mix", "get=3,set=1", "--seconds", "1", "--warmup", "0"];
        assert_eq!(run(&[&["bench"], &loads[..]].concat()).status.code(), Some(0));
        let (_, json) = dev.ask(&["cluster", "hot", "--json"]);
        let hot: Value = serde_json::from_str(&json).unwrap();
        if let Some(first) = hot["keys"].get(0) {
            assert_eq!(
                (&first["key"], &hot["shards"][0]["shard"]),
                (&"key:000000000000".into(), &first["shard"])
            );
            assert!(first["reads_per_s"].as_u64() > first["writes_per_s"].as_u64(), "{json}");
            assert_eq!(hot["shards"][0]["leads"], true);
            break;
        }
        assert!(Instant::now() < deadline, "nothing is hot: {json}");
    }
    let (_, text) = dev.ask(&["cluster", "hot"]);
    assert!(text.contains("key:000000000000  s"), "{text}");
}

#[test]
fn dev_is_killed_and_restarted_with_its_password() {
    let mut dev = Dev::start_by(&["--nodes", "3"], |command| command.env("THOLOS_REQUIREPASS", "secret"));
    let (exit, text) = dev.ask(&["dev", "kill", "n2"]);
    assert!(exit == Some(4) && text.contains("THOLOS_REQUIREPASS"), "{text}");
    for (what, says) in [("kill", "n2 stopped."), ("restart", "n2 is up")] {
        let mut command = tholos(&["dev", what, "n2", "--at", dev.http()]);
        let text = stdout(&command.env("THOLOS_REQUIREPASS", "secret").output().unwrap());
        assert!(text.starts_with(says), "{text}");
    }
    assert_eq!(dev.end(), Some(0));
}

/// A collector of logs may restart, and the disk of a log be full.
#[test]
fn a_server_runs_on_when_nobody_can_read_what_it_says() {
    let mut dev = Dev::start();
    drop((dev.child.stdout.take(), dev.child.stderr.take()));
    let (exit, text) = dev.ask(&["dev", "kill", "n2"]);
    assert!(exit == Some(0) && text.starts_with("n2 stopped."), "{text}");
    // The others have said by now that they do not hear it.
    let (exit, text) = dev.ask(&["dev", "restart", "n2"]);
    assert!(exit == Some(0) && text.starts_with("n2 is up"), "{text}");
    // Nor does a command mind that goes on by itself.
    let mut status =
        tholos(&["cluster", "status", "--at", dev.http()]).stdout(Stdio::piped()).spawn().unwrap();
    drop(status.stdout.take());
    assert_eq!(status.wait().unwrap().code(), Some(0));
    assert_eq!(dev.end(), Some(0));
}

/// A terminal that closes says so by SIGHUP.
#[test]
fn what_is_temporary_is_gone_after_every_signal_that_ends_it() {
    let dir = scratch("temporary");
    // Under nohup these tests ignore it, and so do their children: then it must not end them.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let outlives = ignored.is_none_or(|mask| mask.trim().ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']));
    for signal in ["-HUP", "-TERM", "-INT"].iter().skip(usize::from(outlives)) {
        let mut dev = Dev::start_by(&["--nodes", "1"], |command| command.env("TMPDIR", &dir));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "where its data is");
        assert_eq!(dev.end_by(signal), Some(0), "{signal}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "{signal}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What is about every node alike can be told to `dev` as to a node of its own.
#[test]
fn dev_takes_settings_of_nodes_by_flag_variable_and_file() {
    let dir = scratch("devconfig");
    let file = dir.join("tholos.toml");
    std::fs::write(&file, "shards = 16\n[limits]\nclients = 9\nkey_bytes = 8\n").unwrap();
    let mut dev = Dev::start_by(&["--limits-key-bytes", "10"], |command| {
        command.env("THOLOS_CONFIG", &file).env("THOLOS_LIMITS_CLIENTS", "7")
    });
    let mut redis = TcpStream::connect(dev.addresses["gateway"].as_str().unwrap()).unwrap();
    let mut ask = |command: &str, answer: &str| {
        redis.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut got = vec![0; answer.len()];
        redis.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), answer, "{command}");
    };
    ask("CONFIG GET maxclients", "*2\r\n$10\r\nmaxclients\r\n$1\r\n7\r\n");
    ask("SET 0123456789 x", "+OK\r\n");
    ask("SET 01234567890 x", "-ERR ");
    let (_, json) = dev.ask(&["cluster", "locate", "x", "--json"]);
    let shard = serde_json::from_str::<Value>(&json).unwrap()["shard"].as_u64().unwrap();
    assert!(shard < 16, "{json}");
    assert_eq!(dev.end(), Some(0));
    fails(&["dev", "--temp", "--limits-clients", "0"], 2, &["limits.clients", "it must be 1 to 1000000"]);
    fails(&["dev", "--temp", "--limits-value-bytes", "512MiB"], 2, &["limits.query_buffer_bytes"]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_taken_port_is_told_with_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let free = ["--cluster-port", "0", "--peer-port", "0", "--http-port", "0"];
    fails(&[&["dev", "--temp", "--port", &port], &free[..]].concat(), 1, &["in use", &port, "--port"]);
}

#[test]
fn what_a_change_would_move_is_told_and_nothing_moves() {
    let dev = Dev::start_with(&["--nodes", "4"]);
    let gateway = dev.addresses["gateway"].as_str().unwrap();
    let loads = ["--at", gateway, "--requests", "500", "--warmup", "0", "--connections", "4"];
    assert_eq!(run(&[&["bench"], &loads[..]].concat()).status.code(), Some(0));

    let (exit, json) = dev.ask(&["cluster", "plan", "remove", "n4", "--json"]);
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((exit, &plan["blocked"], &plan["epoch"]), (Some(0), &false.into(), &1.into()), "{json}");
    assert_eq!((&plan["moves_total"], &plan["least_possible"]), (&48.into(), &48.into()));
    let moves = plan["moves"].as_array().unwrap();
    assert!(moves.len() == 48 && moves.iter().all(|step| step["from"] == "n4"), "{json}");
    assert!(plan["bytes"].as_u64() > Some(0), "the nodes say what their shards hold: {json}");
    let checks: Vec<&str> =
        plan["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["quorum", "disk", "memory", "zones"]);

    // The same again: nothing has been changed, so it has the same name.
    let (exit, text) = dev.ask(&["cluster", "plan", "remove", "n4"]);
    assert_eq!(exit, Some(0), "{text}");
    assert!(text.starts_with(&format!("Plan {} (map epoch 1)", plan["id"].as_str().unwrap())), "{text}");
    assert!(text.contains("moves 48 of 192 replicas (25.0%); the least possible is 48"), "{text}");
    assert!(text.contains("quorum kept at every step ok · disk fits ok"), "{text}");

    // With two nodes down there are shards that cannot change, and one that is to get replicas cannot.
    for node in ["n1", "n2"] {
        assert_eq!(dev.ask(&["dev", "kill", node]).0, Some(0));
    }
    let (exit, text) = dev.ask(&["cluster", "plan", "drain", "n4"]);
    assert_eq!(exit, Some(1), "{text}");
    assert!(text.contains("quorum kept at every step BLOCKED") && text.contains("n2 is down"), "{text}");
    assert!(text.contains("Blocked: this plan cannot be applied."), "{text}");

    let (exit, text) = dev.ask(&["cluster", "plan", "remove", "n4", "n3"]);
    assert!(exit == Some(1) && text.contains("3 replicas of a shard need as many nodes"), "{text}");
    let (exit, text) = dev.ask(&["cluster", "plan", "add", "n9"]);
    assert!(exit == Some(1) && text.contains("the cluster has no node n9"), "{text}");
}

#[test]
fn the_nodes_of_a_dev_cluster_restart_one_after_the_other() {
    let dev = Dev::start_with(&["--shards", "8"]);
    let (exit, json) = dev.ask(&["cluster", "roll", "n2", "n3", "--json"]);
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((exit, &plan["restarts"]), (Some(0), &serde_json::json!(["n2", "n3"])), "{json}");
    let (exit, text) = dev.ask(&["cluster", "roll", "n2", "n3"]);
    assert!(exit == Some(0) && text.contains("2 restarts one after the other: n2 n3"), "{text}");
    let (exit, text) = dev.ask(&["cluster", "apply", plan["id"].as_str().unwrap()]);
    assert!(exit == Some(0) && text.contains(": 2 restarts"), "{text}");
    let (exit, text) = dev.ask(&["cluster", "status"]);
    assert!(exit == Some(0) && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert_eq!(dev.ask(&["dev", "kill", "n1"]).0, Some(0));
    let (exit, text) = dev.ask(&["cluster", "roll"]);
    assert!(exit == Some(1) && text.contains("n1 is down: it was killed: start it first"), "{text}");
}

#[test]
fn a_plan_is_applied_once_and_a_stale_one_refused() {
    let dev = Dev::start_with(&["--nodes", "4", "--shards", "8"]);
    let plan = |what: &str, node: &str| -> String {
        let (exit, json) = dev.ask(&["cluster", "plan", what, node, "--json"]);
        assert_eq!(exit, Some(0), "{json}");
        let plan: Value = serde_json::from_str(&json).unwrap();
        plan["id"].as_str().unwrap().to_owned()
    };
    let (remove, drain) = (plan("remove", "n4"), plan("drain", "n3"));
    // The second time it follows the job that there is.
    for _ in 0..2 {
        let (exit, text) = dev.ask(&["cluster", "apply", &remove]);
        assert!(
            exit == Some(0) && text.starts_with("job 1: remove n4.") && text.contains("job 1 done"),
            "{text}"
        );
    }
    let (exit, text) = dev.ask(&["cluster", "apply", &drain]);
    assert!(exit == Some(1) && text.contains("made for the map e1") && text.contains("plan again"), "{text}");
    let (exit, text) = dev.ask(&["cluster", "apply", "00c0ffee"]);
    assert!(exit == Some(1) && text.contains("no node that answers remembers a plan 00c0ffee"), "{text}");

    let (_, json) = dev.ask(&["cluster", "status", "--json"]);
    let status: Value = serde_json::from_str(&json).unwrap();
    let nodes: Vec<(&str, u64)> = status["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["name"].as_str().unwrap(), node["replicas"].as_u64().unwrap()))
        .collect();
    assert_eq!(nodes, [("n1", 8), ("n2", 8), ("n3", 8)], "{json}");
}

/// Plans a change and carries it out.
#[track_caller]
fn apply(dev: &Dev, plan: &[&str]) {
    let (_, json) = dev.ask(&[plan, &["--json"]].concat());
    let plan: Value = serde_json::from_str(&json).unwrap();
    let (exit, text) = dev.ask(&["cluster", "apply", plan["id"].as_str().unwrap()]);
    assert_eq!(exit, Some(0), "{text}");
}

/// Whatever their names, and thus their places among the others.
#[test]
fn nodes_that_come_first_by_name_leave_as_others_do() {
    let dev = Dev::start_with(&["--nodes", "4", "--shards", "8"]);
    let (exit, text) = dev.ask(&["dev", "remove", "n1"]);
    assert!(
        exit == Some(1) && text.contains("n1 still holds 6 replicas and one of the meta group:"),
        "{text}"
    );
    for leaving in ["foo", "bar"] {
        assert_eq!(dev.ask(&["dev", "add", leaving]).0, Some(0));
        let (exit, text) = dev.ask(&["dev", "remove", leaving]);
        assert!(exit == Some(0) && text.starts_with(&format!("{leaving} has left the cluster")), "{text}");
    }
    apply(&dev, &["cluster", "plan", "drain", "n1"]);
    let (exit, text) = dev.ask(&["dev", "remove", "n1"]);
    assert!(exit == Some(0) && text.starts_with("n1 has left the cluster"), "{text}");
}

#[test]
fn a_check_of_the_cluster_ports_leaves_no_key_behind() {
    let dev = Dev::start();
    let ports: Vec<&str> = dev.addresses["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["cluster"].as_str().unwrap())
        .collect();
    let check = run(&["check", "--at", &ports.join(","), "--operations", "2000", "--json"]);
    assert_eq!((check.status.code(), stderr(&check).as_str()), (Some(0), ""));
    let mut redis = TcpStream::connect(dev.addresses["gateway"].as_str().unwrap()).unwrap();
    redis.write_all(b"DBSIZE\r\n").unwrap();
    let mut size = [0; 4];
    redis.read_exact(&mut size).unwrap();
    assert_eq!(size, *b":0\r\n");
}

#[test]
fn a_bench_without_the_password_is_not_allowed() {
    let dev = Dev::start_by(&["--nodes", "1"], |command| command.env("THOLOS_REQUIREPASS", "right"));
    let (gateway, node) = (&dev.addresses["gateway"], &dev.addresses["nodes"][0]["cluster"]);
    let ways = [vec!["--at", gateway.as_str().unwrap()], vec!["--cluster", "--at", node.as_str().unwrap()]];
    for way in ways {
        for more in [&["--requests", "10"][..], &["--requests", "10", "--keys", "10", "--fill"]] {
            let bench = || {
                tholos(
                    &[&["bench", "--json", "--connections", "2", "--warmup", "0"], &way[..], more].concat(),
                )
            };
            for password in [None, Some("wrong")] {
                let mut command = bench();
                command.envs(password.map(|password| ("THOLOS_REQUIREPASS", password)));
                let output = command.output().unwrap();
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(4), "{way:?} {password:?}: {said}");
                assert!(said.contains("THOLOS_REQUIREPASS or --password-file"), "{said}");
                assert!(output.stdout.is_empty(), "{}", stdout(&output));
            }
            let output = bench().env("THOLOS_REQUIREPASS", "right").output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        }
    }
}

/// People know nodes by their names.
#[test]
fn what_is_told_of_a_node_names_it() {
    let mut dev = Dev::start_with(&["--shards", "8"]);
    assert_eq!(dev.ask(&["dev", "add", "foo"]).0, Some(0));
    // By the time that it holds something the others have heard it.
    apply(&dev, &["cluster", "plan", "add", "foo"]);
    assert_eq!(dev.ask(&["dev", "kill", "foo"]).0, Some(0));
    let lines = std::io::BufReader::new(dev.child.stderr.take().unwrap());
    let (sender, lost) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let said = std::io::BufRead::lines(lines).map_while(Result::ok);
        said.filter(|line| line.contains("lost=")).for_each(|line| _ = sender.send(line));
    });
    let line = lost.recv_timeout(DEADLINE).expect("a node that is not heard is told");
    assert!(line.contains("lost=foo"), "{line}");
}
