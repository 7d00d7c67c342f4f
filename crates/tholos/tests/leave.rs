//! Nodes as processes of their own that are killed, drained and restarted: what the cluster does by itself, and what clients
//! see of it.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(120);
const SHARDS: u64 = 8;

fn tholos() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_tholos")))
}

/// Nothing of the developer's own surroundings.
fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THOLOS_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Ports of the four listeners of a node: gateway, cluster, peer, http.
type Ports = [u16; 4];

/// A port that is free and will be until it is used: not of those that the kernel gives to outgoing connections, and of
/// those of one process never the same.
fn hold_port() -> TcpListener {
    use std::hash::{BuildHasher as _, Hasher as _};
    use std::sync::atomic::{AtomicU64, Ordering};
    static BASE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let base =
        *BASE.get_or_init(|| std::collections::hash_map::RandomState::new().build_hasher().finish() % 6_000);
    let port = || 20_000 + ((base + COUNT.fetch_add(1, Ordering::Relaxed)) % 6_000) as u16;
    std::iter::repeat_with(port).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).unwrap()
}

struct Node {
    name: String,
    ports: Ports,
    child: Child,
    more: Vec<String>,
}

/// Nodes of one cluster, in a directory of their own; killed when dropped.
struct Cluster {
    dir: PathBuf,
    nodes: Vec<Node>,
    more: Vec<String>,
    /// The program that the nodes run.
    program: PathBuf,
}

impl Cluster {
    /// The first `seeds` of `nodes` found the cluster, and the others join it.
    fn start(name: &str, seeds: usize, nodes: usize, more: &[&str]) -> Cluster {
        Cluster::start_with(name, seeds, nodes, more, |_| PathBuf::from(env!("CARGO_BIN_EXE_tholos")))
    }

    /// The same with a program that is found in, or brought into, the cluster's directory.
    fn start_with(
        name: &str,
        seeds: usize,
        nodes: usize,
        more: &[&str],
        program: impl Fn(&Path) -> PathBuf,
    ) -> Cluster {
        let dir = std::env::temp_dir().join(format!("tholos-leave-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let ports: Vec<Ports> = {
            // Held together, so that they differ.
            let held: Vec<_> = (0..4 * nodes).map(|_| hold_port()).collect();
            let port = |at: usize| held[at].local_addr().unwrap().port();
            (0..nodes).map(|at| [0, 1, 2, 3].map(|of| port(4 * at + of))).collect()
        };
        let seed = |at: usize| format!("n{}=127.0.0.1:{}", at + 1, ports[at][2]);
        let list = (0..seeds).map(seed).collect::<Vec<_>>().join(",");
        let more = more.iter().map(|text| (*text).to_owned()).collect();
        let program = program(&dir);
        let mut cluster = Cluster { dir, nodes: Vec::new(), more, program };
        for (at, own) in ports.iter().enumerate().take(seeds) {
            let how = vec!["--seeds".to_owned(), list.clone()];
            cluster.spawn(at, *own, how);
        }
        (0..seeds).for_each(|at| cluster.wait_until_ready(at));
        for (at, own) in ports.iter().enumerate().skip(seeds) {
            let how = vec!["--join".to_owned(), format!("127.0.0.1:{}", ports[0][2])];
            cluster.spawn(at, *own, how);
            cluster.wait_until_ready(at);
        }
        cluster
    }

    fn spawn(&mut self, at: usize, ports: Ports, more: Vec<String>) {
        let name = format!("n{}", at + 1);
        let child = self.process(&name, ports, &more);
        self.nodes.push(Node { name, ports, child, more });
    }

    fn process(&self, name: &str, ports: Ports, more: &[String]) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.log_of(name)).unwrap();
        let mut command = clean(Command::new(&self.program));
        command.args(["serve", "--name", name, "--dir"]).arg(&self.dir).current_dir(&self.dir);
        for (listener, port) in ["gateway", "cluster", "peer", "http"].iter().zip(ports) {
            command.arg(format!("--{listener}")).arg(format!("127.0.0.1:{port}"));
        }
        command.arg("--shards").arg(SHARDS.to_string()).arg("--ready-file").arg(self.ready_of(name));
        command.args(more).args(&self.more).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    fn ready_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.ready"))
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn log(&self, at: usize) -> String {
        std::fs::read_to_string(self.log_of(&self.nodes[at].name)).unwrap_or_default()
    }

    fn wait_until_ready(&mut self, at: usize) {
        let begin = Instant::now();
        while !self.ready_of(&self.nodes[at].name).exists() {
            let ended = self.nodes[at].child.try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < DEADLINE, "{ended:?} {}", self.log(at));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn restart(&mut self, at: usize) {
        let Node { name, ports, more, .. } = &self.nodes[at];
        let _ = std::fs::remove_file(self.ready_of(name));
        let child = self.process(name, *ports, more);
        self.nodes[at].child = child;
        self.wait_until_ready(at);
    }

    fn gateway(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[at].ports[0])
    }

    fn http(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[at].ports[3])
    }

    /// Runs a command of the binary, with the admin addresses of these nodes.
    fn run(&self, arguments: &[&str], at: &[usize]) -> Output {
        let mut command = tholos();
        command.args(arguments).current_dir(&self.dir);
        for node in at {
            command.arg("--at").arg(self.http(*node));
        }
        command.output().unwrap()
    }

    fn json(&self, arguments: &[&str], at: &[usize]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat(), at);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Waits for a status that is as wanted.
    #[track_caller]
    fn wait_for(&self, what: &str, at: &[usize], wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.json(&["cluster", "status"], at);
            if wanted(&status) {
                return status;
            }
            let jobs = self.json(&["job", "list"], at);
            assert!(begin.elapsed() < DEADLINE, "never {what}: {status} {jobs}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Plans a change at a node, and carries it out to its end.
    fn change(&self, words: &[&str], at: usize) {
        let plan = self.json(words, &[at]);
        let id = plan["id"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned();
        let applied = self.run(&["cluster", "apply", &id], &[at]);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _gone = node.child.kill();
            let _reaped = node.child.wait();
        }
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn row<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap_or(&Value::Null)
}

/// A client of the Redis protocol, as far as these tests speak it.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: &str) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    fn send(&mut self, commands: &[&[&str]]) -> std::io::Result<()> {
        let mut text = String::new();
        for command in commands {
            text += &format!("*{}\r\n", command.len());
            for argument in *command {
                text += &format!("${}\r\n{argument}\r\n", argument.len());
            }
        }
        self.stream.get_mut().write_all(text.as_bytes())
    }

    /// A reply of one line; of a bulk string its content, or nothing.
    fn reply(&mut self) -> std::io::Result<Option<String>> {
        let first = self.line()?;
        match first.strip_prefix('$') {
            Some("-1") => Ok(None),
            Some(_) => self.line().map(Some),
            None => Ok(Some(first)),
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 || !line.ends_with("\r\n") {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn ask(&mut self, command: &[&str]) -> std::io::Result<Option<String>> {
        self.send(&[command])?;
        self.reply()
    }
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

#[test]
fn a_node_that_is_killed_is_replaced_by_the_spare_without_an_operator() {
    let mut cluster = Cluster::start("lost", 3, 4, &["--placement-replace-after", "2s"]);
    let mut client = Client::connect(&cluster.gateway(0)).unwrap();
    for key in 0..100 {
        assert_eq!(client.ask(&["SET", &format!("k{key}"), "v"]).unwrap().as_deref(), Some("+OK"));
    }
    cluster.nodes[2].child.kill().unwrap();
    cluster.nodes[2].child.wait().unwrap();
    let whole = |status: &Value| {
        let up = ["n1", "n2", "n4"].map(|name| row(status, name));
        let held: u64 = up.iter().map(|node| node["replicas"].as_u64().unwrap()).sum();
        let caught_up = up.iter().all(|node| node["state"] == "up" && node["lag"] == 0);
        held == 3 * SHARDS && caught_up && row(status, "n3")["replicas"] == 0
    };
    let mut seen_under_way = false;
    let begin = Instant::now();
    loop {
        let status = cluster.json(&["cluster", "status"], &[0, 1]);
        let notes = status["notes"].to_string();
        seen_under_way |= notes.contains("replace n3 by n4 (down for ");
        if whole(&status) && !notes.contains("is running") {
            break;
        }
        assert!(begin.elapsed() < DEADLINE, "{status}");
    }
    let jobs = cluster.json(&["job", "list"], &[0, 1]);
    let job = &jobs["jobs"][0];
    assert_eq!((&job["state"], &job["cause"]), (&"done".into(), &"lost".into()), "{jobs}");
    assert!(job["title"].as_str().unwrap().starts_with("replace n3 by n4 (down for "), "{jobs}");
    assert!(seen_under_way, "the status tells of it while it is under way");
    for key in 0..100 {
        assert_eq!(client.ask(&["GET", &format!("k{key}")]).unwrap().as_deref(), Some("v"));
    }
    // Who returns is a spare now.
    cluster.restart(2);
    cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    let status = cluster.json(&["cluster", "status"], &[0]);
    assert_eq!(row(&status, "n3")["replicas"], 0, "{status}");
    assert_eq!(cluster.json(&["job", "list"], &[0])["jobs"].as_array().unwrap().len(), 1);
}

/// Writes until it is told to stop, by whichever node it reaches; what needed a second try, what failed for good, and how
/// many writes there were.
fn write_anywhere(gateways: &[String], name: usize, stop: &AtomicBool) -> (usize, Vec<String>, usize) {
    let mut at = name;
    let mut client = None;
    let mut attempt = |key: &str, at: &mut usize| -> Result<(), String> {
        let mut open = match client.take() {
            Some(open) => open,
            None => Client::connect(&gateways[*at % gateways.len()]).map_err(|error| error.to_string())?,
        };
        match open.ask(&["SET", key, key]) {
            Ok(Some(ok)) if ok == "+OK" => {
                client = Some(open);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    };
    let (mut again, mut failed, mut written) = (0, Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let key = format!("{name}:{written}");
        written += 1;
        let Err(first) = attempt(&key, &mut at) else { continue };
        again += 1;
        // As a client does that knows several nodes.
        at += 1;
        std::thread::sleep(Duration::from_millis(500));
        if let Err(second) = attempt(&key, &mut at) {
            failed.push(format!("{key}: {first}, then {second}"));
            at += 1;
        }
    }
    (again, failed, written)
}

#[test]
#[cfg(target_os = "linux")]
fn a_node_restarts_with_the_program_that_has_taken_the_place_of_its_own() {
    let bring = |dir: &Path, name: &str| {
        let to = dir.join(name);
        std::fs::copy(env!("CARGO_BIN_EXE_tholos"), &to).unwrap();
        to
    };
    let cluster = Cluster::start_with("upgrade", 3, 3, &[], |dir| bring(dir, "tholos"));
    let newer = bring(&cluster.dir, "newer");
    std::fs::rename(newer, &cluster.program).unwrap();
    let runs = || std::fs::read_link(format!("/proc/{}/exe", cluster.nodes[1].child.id())).unwrap();
    assert!(runs().to_string_lossy().ends_with("/tholos (deleted)"), "{:?}", runs());
    cluster.change(&["cluster", "roll", "n2"], 0);
    assert_eq!(runs(), cluster.program.canonicalize().unwrap(), "{}", cluster.log(1));
    cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
}

#[test]
fn nodes_restart_one_after_the_other_and_a_client_that_retries_once_sees_no_error() {
    let cluster = Cluster::start("roll", 3, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let gateways: Vec<String> = (0..3).map(|at| cluster.gateway(at)).collect();
    let clients: Vec<_> = (0..3)
        .map(|name| {
            let (gateways, stop) = (gateways.clone(), Arc::clone(&stop));
            std::thread::spawn(move || write_anywhere(&gateways, name, &stop))
        })
        .collect();
    let ids: Vec<u32> = cluster.nodes.iter().map(|node| node.child.id()).collect();
    let plan = cluster.json(&["cluster", "roll"], &[0]);
    assert_eq!(plan["restarts"], serde_json::json!(["n1", "n2", "n3"]), "{plan}");
    assert_eq!((&plan["blocked"], &plan["moves_total"]), (&false.into(), &0.into()));
    let applied = cluster.run(&["cluster", "apply", plan["id"].as_str().unwrap(), "--detach"], &[0]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    // All are asked at once, so it does not matter that each of them is gone for a while.
    let watched = cluster.run(&["job", "watch", "1"], &[0, 1, 2]);
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    let why = String::from_utf8_lossy(&watched.stderr).into_owned();
    assert!(watched.status.success() && last.contains("3 restarts"), "{text}{why}");
    stop.store(true, Ordering::Relaxed);
    let ends: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    eprintln!("needed a second try, failed, written: {ends:?}");
    let failed: Vec<&String> = ends.iter().flat_map(|(_, failed, _)| failed).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(cluster.log(at).matches("begins anew").count(), 1, "{}", cluster.log(at));
        assert_eq!(cluster.nodes[at].child.id(), *id);
    }
    let status = cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    assert_eq!(row(&status, "n2")["version"], env!("CARGO_PKG_VERSION"));
    let mut client = Client::connect(&cluster.gateway(1)).unwrap();
    for (name, (.., written)) in ends.iter().enumerate() {
        for number in 0..*written {
            let key = format!("{name}:{number}");
            assert_eq!(client.ask(&["GET", &key]).unwrap(), Some(key));
        }
    }
}

/// Sends many writes at once, again and again, until the connection ends; what was answered, and what was not.
fn write_in_batches(gateway: &str, name: usize) -> (Vec<String>, Vec<String>) {
    const BATCH: usize = 40;
    let mut client = Client::connect(gateway).unwrap();
    let (mut answered, mut number) = (Vec::new(), 0);
    loop {
        let keys: Vec<String> = (0..BATCH).map(|at| format!("{name}:{}", number + at)).collect();
        number += BATCH;
        let commands: Vec<[&str; 3]> = keys.iter().map(|key| ["SET", key, "v"]).collect();
        let commands: Vec<&[&str]> = commands.iter().map(|command| &command[..]).collect();
        let mut done = 0;
        if client.send(&commands).is_ok() {
            while done < BATCH && client.reply().is_ok_and(|reply| reply.as_deref() == Some("+OK")) {
                done += 1;
            }
        }
        answered.extend(keys[..done].iter().cloned());
        if done < BATCH {
            return (answered, keys[done..].to_vec());
        }
    }
}

#[test]
fn a_drained_node_that_stops_leaves_no_request_in_doubt() {
    let mut cluster = Cluster::start("drain", 4, 4, &[]);
    // If it started last, others led its shards first.
    cluster.wait_for("its leaders", &[0], |status| row(status, "n4")["leads"].as_u64() > Some(0));
    let text = cluster.run(&["cluster", "plan", "drain", "n4"], &[0]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("hands its leaders over, then its replicas; stays as a spare"), "{text}");
    cluster.change(&["cluster", "plan", "drain", "n4"], 0);
    let status = cluster.wait_for("drained", &[0], |status| row(status, "n4")["replicas"] == 0);
    assert_eq!(row(&status, "n4")["leads"], 0);

    let gateway = cluster.gateway(3);
    let clients: Vec<_> = (0..4)
        .map(|name| {
            let gateway = gateway.clone();
            std::thread::spawn(move || write_in_batches(&gateway, name))
        })
        .collect();
    // They are at it.
    let mut client = Client::connect(&cluster.gateway(0)).unwrap();
    let begin = Instant::now();
    while client.ask(&["GET", "3:400"]).unwrap().is_none() {
        assert!(begin.elapsed() < DEADLINE);
    }
    terminate(&cluster.nodes[3].child);
    assert!(cluster.nodes[3].child.wait().unwrap().success(), "{}", cluster.log(3));
    let (mut answered, mut silent) = (Vec::new(), Vec::new());
    for client in clients {
        let (done, rest) = client.join().unwrap();
        answered.extend(done);
        silent.extend(rest);
    }
    assert!(answered.len() > 400);
    for key in answered {
        assert_eq!(client.ask(&["GET", &key]).unwrap().as_deref(), Some("v"), "{key} was acknowledged");
    }
    for key in silent {
        assert_eq!(client.ask(&["GET", &key]).unwrap(), None, "{key} was done and not answered");
    }
    // And out it goes, dead as it is.
    cluster.change(&["cluster", "plan", "remove", "n4"], 0);
    let status = cluster.wait_for("healthy", &[0], |status| status["verdict"] == "healthy");
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "{status}");
}

#[test]
fn nothing_begins_by_itself_while_it_is_held() {
    let mut cluster = Cluster::start("held", 3, 4, &["--placement-replace-after", "1s"]);
    let told = cluster.run(&["cluster", "hold"], &[0]);
    assert!(
        told.status.success() && String::from_utf8_lossy(&told.stdout).contains("tholos cluster release")
    );
    cluster.nodes[2].child.kill().unwrap();
    cluster.nodes[2].child.wait().unwrap();
    let status = cluster.wait_for("down", &[0], |status| row(status, "n3")["state"] == "down");
    assert!(status["notes"].to_string().contains("no job begins by itself"), "{status}");
    assert_eq!(cluster.run(&["cluster", "release"], &[0]).status.code(), Some(0));
    cluster.wait_for("replaced", &[0], |status| row(status, "n3")["replicas"] == 0);
}

#[test]
fn a_node_that_joins_gets_its_share_by_itself_where_that_is_wanted() {
    let cluster = Cluster::start("auto", 3, 4, &["--placement-auto", "true"]);
    let status = cluster.wait_for("shared", &[0], |status| row(status, "n4")["replicas"] == 3 * SHARDS / 4);
    let held = ["n1", "n2", "n3"].map(|name| row(&status, name)["replicas"].as_u64().unwrap());
    assert_eq!(held.iter().sum::<u64>(), 3 * SHARDS * 3 / 4, "{status}");
    let job = cluster.json(&["job", "list"], &[0])["jobs"][0].clone();
    assert_eq!((&job["title"], &job["cause"]), (&"add n4 (by itself)".into(), &"placement".into()), "{job}");
}

#[test]
fn a_program_that_cannot_be_reached_is_told() {
    let dir = Path::new("/");
    let output = tholos().args(["cluster", "hold", "--at", "127.0.0.1:1"]).current_dir(dir).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}
