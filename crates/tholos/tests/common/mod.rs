//! Nodes as processes of their own, and a client of theirs: what the process tests share.

#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A test that waits longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
/// Of each cluster here.
pub(crate) const SHARDS: u64 = 8;

/// The binary, without anything of the developer's own surroundings.
pub(crate) fn tholos() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_tholos")))
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THOLOS_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

pub(crate) fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// A node's row in a status.
pub(crate) fn row<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name).unwrap_or(&Value::Null)
}

/// Asks again and again until the answer is there.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(seen) => assert!(begin.elapsed() < DEADLINE, "never {what}: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ports of the four listeners of a node: gateway, cluster, peer, http.
pub(crate) type Ports = [u16; 4];

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

/// n1, n2 and so on; the first is at 0.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) ports: Ports,
    /// While it runs.
    pub(crate) child: Option<Child>,
    /// Arguments of its own, but for how it comes to its cluster.
    pub(crate) more: Vec<String>,
    how: Vec<String>,
}

/// Nodes of one cluster, in a directory of their own; killed when dropped.
pub(crate) struct Cluster {
    pub(crate) dir: PathBuf,
    pub(crate) nodes: Vec<Node>,
    /// Arguments of all nodes.
    pub(crate) more: Vec<String>,
    /// The program that the nodes run.
    pub(crate) program: PathBuf,
}

impl Cluster {
    /// `nodes` nodes, none of which runs yet.
    pub(crate) fn new(name: &str, nodes: usize) -> Cluster {
        let dir = std::env::temp_dir().join(format!("tholos-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        // Held together, so that they differ.
        let held: Vec<_> = (0..4 * nodes).map(|_| hold_port()).collect();
        let port = |at: usize| held[at].local_addr().unwrap().port();
        let node = |at: usize| Node {
            name: format!("n{}", at + 1),
            ports: [0, 1, 2, 3].map(|of| port(4 * at + of)),
            child: None,
            more: Vec::new(),
            how: Vec::new(),
        };
        let nodes = (0..nodes).map(node).collect();
        Cluster { dir, nodes, more: Vec::new(), program: PathBuf::from(env!("CARGO_BIN_EXE_tholos")) }
    }

    /// The same, begun: the first `seeds` found the cluster, and the others join it.
    pub(crate) fn start(name: &str, seeds: usize, nodes: usize, more: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(name, nodes);
        cluster.more = more.iter().map(|text| (*text).to_owned()).collect();
        cluster.found(seeds);
        (seeds..nodes).for_each(|at| cluster.join(at));
        cluster
    }

    /// The first nodes found the cluster.
    pub(crate) fn found(&mut self, seeds: usize) {
        let seed = |at: usize| format!("{}={}", self.nodes[at].name, self.address(at, 2));
        let list = (0..seeds).map(seed).collect::<Vec<_>>().join(",");
        for at in 0..seeds {
            self.nodes[at].how = vec!["--seeds".to_owned(), list.clone()];
            self.spawn(at);
        }
        (0..seeds).for_each(|at| self.wait_until_ready(at));
    }

    /// What a node is told of the seeds from its next start on.
    pub(crate) fn set_seeds(&mut self, at: usize, list: &str) {
        self.nodes[at].how = vec!["--seeds".to_owned(), list.to_owned()];
    }

    /// A node joins by the first one.
    pub(crate) fn join(&mut self, at: usize) {
        self.nodes[at].how = vec!["--join".to_owned(), self.address(0, 2)];
        self.spawn(at);
        self.wait_until_ready(at);
    }

    /// Starts the process of a node, and does not wait for anything.
    pub(crate) fn spawn(&mut self, at: usize) {
        let node = &self.nodes[at];
        let _ = fs::remove_file(self.ready_of(at));
        let log = fs::File::options().create(true).append(true).open(self.log_of(at)).unwrap();
        let mut command = clean(Command::new(&self.program));
        command.args(["serve", "--name", &node.name, "--dir"]).arg(&self.dir).current_dir(&self.dir);
        for (of, listener) in ["--gateway", "--cluster", "--peer", "--http"].iter().enumerate() {
            command.arg(listener).arg(self.address(at, of));
        }
        command.arg("--shards").arg(SHARDS.to_string()).arg("--ready-file").arg(self.ready_of(at));
        command.args(&node.how).args(&node.more).args(&self.more);
        self.nodes[at].child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn ready_of(&self, at: usize) -> PathBuf {
        self.dir.join(format!("{}.ready", self.nodes[at].name))
    }

    fn log_of(&self, at: usize) -> PathBuf {
        self.dir.join(format!("{}.log", self.nodes[at].name))
    }

    /// What a node has said.
    pub(crate) fn log(&self, at: usize) -> String {
        fs::read_to_string(self.log_of(at)).unwrap_or_default()
    }

    pub(crate) fn wait_until_ready(&mut self, at: usize) {
        let begin = Instant::now();
        while !self.ready_of(at).exists() {
            let ended = self.child(at).try_wait().unwrap();
            assert!(ended.is_none() && begin.elapsed() < DEADLINE, "{ended:?} {}", self.log(at));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn child(&mut self, at: usize) -> &mut Child {
        self.nodes[at].child.as_mut().unwrap()
    }

    pub(crate) fn id(&self, at: usize) -> u32 {
        self.nodes[at].child.as_ref().unwrap().id()
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self, at: usize) {
        let mut child = self.nodes[at].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a node that was killed.
    pub(crate) fn restart(&mut self, at: usize) {
        self.spawn(at);
        self.wait_until_ready(at);
    }

    pub(crate) fn address(&self, at: usize, of: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[at].ports[of])
    }

    pub(crate) fn gateway(&self, at: usize) -> String {
        self.address(at, 0)
    }

    pub(crate) fn client(&self, at: usize) -> Client {
        Client::connect(&self.gateway(at)).unwrap()
    }

    /// Runs a command of the binary, with the admin addresses of these nodes.
    pub(crate) fn run(&self, arguments: &[&str], at: &[usize]) -> Output {
        let mut command = tholos();
        command.args(arguments).current_dir(&self.dir);
        for node in at {
            command.arg("--at").arg(self.address(*node, 3));
        }
        command.output().unwrap()
    }

    /// The same with `--json`; and the exit code.
    pub(crate) fn json_and_code(&self, arguments: &[&str], at: &[usize]) -> (Value, i32) {
        let output = self.run(&[arguments, &["--json"]].concat(), at);
        let parsed = serde_json::from_slice(&output.stdout);
        let value = parsed.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        (value, output.status.code().unwrap())
    }

    pub(crate) fn json(&self, arguments: &[&str], at: &[usize]) -> Value {
        self.json_and_code(arguments, at).0
    }

    /// Waits for a status that is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, at: &[usize], wanted: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || {
            let status = self.json(&["cluster", "status"], at);
            if wanted(&status) {
                return Ok(status);
            }
            Err(format!("{status} {}", self.json(&["job", "list"], at)))
        })
    }

    /// Plans a change at a node, and carries it out to its end.
    #[track_caller]
    pub(crate) fn change(&self, words: &[&str], at: usize) {
        let plan = self.json(words, &[at]);
        let id = plan["id"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned();
        let applied = self.run(&["cluster", "apply", &id], &[at]);
        assert!(applied.status.success(), "{}", text(&applied.stderr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Brings a copy of the binary into a directory.
pub(crate) fn bring(dir: &Path, name: &str) -> PathBuf {
    let to = dir.join(name);
    fs::copy(env!("CARGO_BIN_EXE_tholos"), &to).unwrap();
    to
}

/// A client of the Redis protocol, as far as these tests speak it.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: &str) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, commands: &[&[&str]]) -> std::io::Result<()> {
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
    pub(crate) fn reply(&mut self) -> std::io::Result<Option<String>> {
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

    pub(crate) fn ask(&mut self, command: &[&str]) -> std::io::Result<Option<String>> {
        self.send(&[command])?;
        self.reply()
    }

    /// Sets keys k0, k1 and so on to one value.
    #[track_caller]
    pub(crate) fn write(&mut self, keys: usize, value: &str) {
        for key in 0..keys {
            let set = self.ask(&["SET", &format!("k{key}"), value]).unwrap();
            assert_eq!(set.as_deref(), Some("+OK"), "k{key}");
        }
    }

    /// They have it.
    #[track_caller]
    pub(crate) fn check(&mut self, keys: usize, value: &str) {
        for key in 0..keys {
            let got = self.ask(&["GET", &format!("k{key}")]).unwrap();
            assert_eq!(got.as_deref(), Some(value), "k{key}");
        }
    }
}
