//! Nodes as processes of their own, two of three of which are destroyed (R29): the one that is left goes on, and new ones
//! join it.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(120);
const SHARDS: u64 = 8;
const KEYS: usize = 60;

fn tholos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tholos"));
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

/// Processes n1, n2, … of one cluster, in a directory of their own; killed when dropped.
struct Cluster {
    dir: PathBuf,
    ports: Vec<Ports>,
    running: Vec<Option<Child>>,
}

impl Cluster {
    /// Ports for `nodes`, none of which runs yet.
    fn of(nodes: usize) -> Cluster {
        let dir = std::env::temp_dir().join(format!("tholos-recover-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        // Held together, so that they differ.
        let held: Vec<_> = (0..4 * nodes).map(|_| hold_port()).collect();
        let port = |at: usize| held[at].local_addr().unwrap().port();
        let ports = (0..nodes).map(|at| [0, 1, 2, 3].map(|of| port(4 * at + of))).collect();
        Cluster { dir, ports, running: (0..nodes).map(|_| None).collect() }
    }

    fn address(&self, at: usize, of: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at][of])
    }

    fn spawn(&mut self, at: usize, more: &[&str]) {
        let name = format!("n{}", at + 1);
        let log = fs::File::options().create(true).append(true).open(self.log_of(at)).unwrap();
        let mut command = tholos();
        command.args(["serve", "--name", &name, "--shards", &SHARDS.to_string()]);
        command.arg("--dir").arg(&self.dir).arg("--ready-file").arg(self.ready_of(at));
        for (of, listener) in ["--gateway", "--cluster", "--peer", "--http"].iter().enumerate() {
            command.arg(listener).arg(self.address(at, of));
        }
        let child = command.args(more).current_dir(&self.dir).stdout(Stdio::null()).stderr(log).spawn();
        self.running[at] = Some(child.unwrap());
    }

    fn log_of(&self, at: usize) -> PathBuf {
        self.dir.join(format!("n{}.log", at + 1))
    }

    fn ready_of(&self, at: usize) -> PathBuf {
        self.dir.join(format!("n{}.ready", at + 1))
    }

    fn log(&self, at: usize) -> String {
        fs::read_to_string(self.log_of(at)).unwrap_or_default()
    }

    fn wait_until_ready(&mut self, at: usize) {
        let begin = Instant::now();
        while !self.ready_of(at).exists() {
            let ended = self.running[at].as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < DEADLINE, "{ended:?} {}", self.log(at));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As `kill -9`.
    fn kill(&mut self, at: usize) {
        let mut child = self.running[at].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_file(self.ready_of(at));
    }

    /// Runs a command of the binary, with the admin address of a node.
    fn run(&self, arguments: &[&str], at: usize) -> Output {
        tholos().args(arguments).arg("--at").arg(self.address(at, 3)).output().unwrap()
    }

    fn json(&self, arguments: &[&str], at: usize) -> (Value, i32) {
        let output = self.run(&[arguments, &["--json"]].concat(), at);
        let parsed = serde_json::from_slice(&output.stdout);
        let value =
            parsed.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (value, output.status.code().unwrap())
    }

    fn client(&self, at: usize) -> Client {
        let stream = TcpStream::connect(self.address(at, 0)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client { stream: BufReader::new(stream) }
    }

    /// Waits for a status that is as wanted.
    #[track_caller]
    fn wait_for(&self, what: &str, at: usize, wanted: impl Fn(&Value) -> bool) {
        let begin = Instant::now();
        loop {
            let (status, _) = self.json(&["cluster", "status"], at);
            if wanted(&status) {
                return;
            }
            assert!(begin.elapsed() < DEADLINE, "never {what}: {status} {}", self.log(at));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// A client of the Redis protocol, as far as this test speaks it.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// The first line of a reply; of a bulk string its content.
    fn ask(&mut self, command: &str) -> String {
        self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let first = self.line();
        if first.starts_with('$') && first != "$-1" { self.line() } else { first }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn write(&mut self, value: &str) {
        for key in 0..KEYS {
            assert_eq!(self.ask(&format!("SET k{key} {value}")), "+OK", "k{key}");
        }
    }

    fn check(&mut self, value: &str) {
        for key in 0..KEYS {
            assert_eq!(self.ask(&format!("GET k{key}")), value, "k{key}");
        }
    }
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn one_process_of_three_goes_on_and_two_new_ones_join_it() {
    let mut cluster = Cluster::of(5);
    let seeds = (0..3).map(|at| format!("n{}={}", at + 1, cluster.address(at, 2)));
    let seeds = seeds.collect::<Vec<_>>().join(",");
    (0..3).for_each(|at| cluster.spawn(at, &["--seeds", &seeds]));
    (0..3).for_each(|at| cluster.wait_until_ready(at));
    cluster.client(1).write("before");
    // Somebody who is alive is not given up, and where there is a majority there is nothing to do.
    let (plan, code) = cluster.json(&["cluster", "recover", "--lost", "n3"], 0);
    assert_eq!((code, plan["blocked"].as_bool()), (1, Some(true)));
    assert!(plan["blocks"].to_string().contains("n3 is named lost and answers"), "{plan}");
    let old = fs::read_dir(cluster.dir.join("n2")).unwrap().count();
    assert!(old > 1, "its data is there");
    cluster.kill(1);
    cluster.kill(2);
    // A copy that somebody has kept of a directory that should be gone.
    fs::rename(cluster.dir.join("n2"), cluster.dir.join("n2.old")).unwrap();
    fs::remove_dir_all(cluster.dir.join("n3")).unwrap();
    cluster.wait_for("noticed", 0, |status| status["verdict"] == "unavailable");

    let (plan, code) = cluster.json(&["cluster", "recover", "--lost", "n2"], 0);
    assert_eq!(code, 1, "n3 may know more: {plan}");
    assert!(plan["blocks"].to_string().contains("n3 does not answer and is not named lost"), "{plan}");
    // Nodes are heard for a moment after they are gone.
    let begin = Instant::now();
    let shown = loop {
        let shown = cluster.run(&["cluster", "recover", "--lost", "n2,n3"], 0);
        if shown.status.success() {
            break text(&shown.stdout);
        }
        assert!(begin.elapsed() < DEADLINE, "{}{}", text(&shown.stdout), text(&shown.stderr));
        std::thread::sleep(Duration::from_millis(50));
    };
    for part in [
        "given up for ever: n2, n3",
        "9 groups go on with less; 0 of them lose nothing for certain. 0 groups have a majority",
        "They must be destroyed first",
        "--i-accept-loss",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (plan, code) = cluster.json(&["cluster", "recover", "--lost", "n2,n3"], 0);
    assert_eq!((code, plan["rescues"].as_array().unwrap().len()), (0, 9), "{plan}");
    let id = plan["id"].as_str().unwrap().to_owned();
    let silent = cluster.run(&["cluster", "recover", "apply", &id], 0);
    assert_eq!(silent.status.code(), Some(2), "never without the operator's word");
    let unknown = cluster.run(&["cluster", "recover", "apply", "00000000", "--i-accept-loss"], 0);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("plan it again"), "{}", text(&unknown.stderr));
    let (done, code) = cluster.json(&["cluster", "recover", "apply", &id, "--i-accept-loss"], 0);
    assert_eq!((code, done["finished"].as_bool()), (0, Some(true)), "{done} {}", cluster.log(0));
    let (again, code) = cluster.json(&["cluster", "recover", "apply", &id, "--i-accept-loss"], 0);
    assert_eq!((code, &again["id"]), (0, &done["id"]), "given again, it is the same");

    let mut client = cluster.client(0);
    client.check("before");
    client.write("alone");
    let (status, code) = cluster.json(&["cluster", "status"], 0);
    assert_eq!((code, status["nodes"].as_array().unwrap().len()), (0, 1), "{status}");
    assert!(status["notes"].to_string().contains("gave up n2 and n3 for ever; 9 groups go on"), "{status}");
    let history = text(&cluster.run(&["cluster", "recover", "--history"], 0).stdout);
    assert!(history.contains("recovery 1 by n1 at 20"), "{history}");

    // The copy comes back: it is refused, and says so.
    fs::rename(cluster.dir.join("n2.old"), cluster.dir.join("n2")).unwrap();
    cluster.spawn(1, &["--seeds", &seeds]);
    let begin = Instant::now();
    while !cluster.log(1).contains("the cluster goes on without this node: it was given up for ever") {
        assert!(begin.elapsed() < DEADLINE, "{} {}", cluster.log(0), cluster.log(1));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(client.ask("SET k0 alone"), "+OK");
    cluster.kill(1);

    // Two new ones; and n1 is killed while they get its data.
    let member = cluster.address(0, 2);
    for at in [3, 4] {
        cluster.spawn(at, &["--join", &member]);
        cluster.wait_until_ready(at);
    }
    let (plan, code) = cluster.json(&["cluster", "plan", "add", "n4", "n5"], 0);
    assert_eq!(code, 0, "{plan}");
    let started = cluster.run(&["cluster", "apply", plan["id"].as_str().unwrap(), "--detach"], 0);
    assert!(started.status.success(), "{}", text(&started.stderr));
    cluster.kill(0);
    cluster.spawn(0, &["--seeds", &seeds]);
    cluster.wait_until_ready(0);
    cluster.wait_for("whole again", 0, |status| {
        let nodes = status["nodes"].as_array().unwrap();
        let whole = |node: &Value| node["replicas"] == SHARDS && node["lag"] == 0 && node["state"] == "up";
        status["verdict"] == "healthy" && nodes.len() == 3 && nodes.iter().all(whole)
    });
    cluster.client(3).check("alone");
    cluster.client(4).write("after");
    // Any one of them may fail now.
    cluster.kill(0);
    let mut client = cluster.client(3);
    client.write("later");
    client.check("later");
}
