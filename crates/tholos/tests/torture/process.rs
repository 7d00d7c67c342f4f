//! Server processes: started from any command line, killed, paused, started again.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Everything a command line of a node may want to know.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    pub(crate) name: String,
    /// The same for all nodes: each has its own directory below it, or ignores it.
    pub(crate) dir: PathBuf,
    pub(crate) gateway: u16,
    pub(crate) cluster: u16,
    pub(crate) peer: u16,
    pub(crate) http: u16,
    /// `n1=127.0.0.1:7101,n2=…`
    pub(crate) seeds: String,
}

/// An address for clients.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: String,
    /// A cluster port: keys led elsewhere are answered by MOVED.
    pub(crate) redirects: bool,
}

struct Node {
    plan: NodePlan,
    child: Option<Child>,
}

/// The processes of a cluster. All are killed when it is dropped.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    command: fn(&NodePlan) -> Command,
}

impl Cluster {
    pub(crate) fn new(dir: &Path, count: usize, command: fn(&NodePlan) -> Command) -> Self {
        let ports = free_ports(count * 4);
        let name = |i: usize| format!("n{}", i + 1);
        let seed = |i: usize| format!("{}=127.0.0.1:{}", name(i), ports[i * 4 + 2]);
        let seeds = (0..count).map(seed).collect::<Vec<_>>().join(",");
        let node = |i: usize| {
            let [gateway, cluster, peer, http] = ports[i * 4..i * 4 + 4] else {
                unreachable!("four ports a node")
            };
            let plan = NodePlan {
                name: name(i),
                dir: dir.to_owned(),
                gateway,
                cluster,
                peer,
                http,
                seeds: seeds.clone(),
            };
            Node { plan, child: None }
        };
        Self { nodes: (0..count).map(node).collect(), command }
    }

    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn start_all(&mut self) {
        (0..self.count()).for_each(|i| self.start(i));
    }

    /// Starts a node unless it runs. Its output goes to `<dir>/<name>.log`.
    pub(crate) fn start(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if node.child.is_some() {
            return;
        }
        let log = || -> File {
            let path = node.plan.dir.join(format!("{}.log", node.plan.name));
            OpenOptions::new().create(true).append(true).open(path).expect("the log can be written")
        };
        let mut command = (self.command)(&node.plan);
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        node.child = Some(command.spawn().expect("the server can be started"));
    }

    /// SIGKILL. The process is gone when this returns.
    pub(crate) fn kill(&mut self, victims: &[usize]) {
        // All are struck before any is waited for: they must be able to die at the same time.
        let mut dying: Vec<Child> = victims.iter().filter_map(|&i| self.nodes[i].child.take()).collect();
        dying.iter_mut().for_each(|child| child.kill().expect("our own child can be killed"));
        dying.iter_mut().for_each(|child| drop(child.wait()));
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, i: usize, signal: &str) {
        if let Some(child) = &self.nodes[i].child {
            let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
            assert!(sent.is_ok_and(|status| status.success()), "kill {signal} failed");
        }
    }

    pub(crate) fn targets(&self, cluster_ports: bool) -> Vec<Target> {
        let target = |port: u16, redirects| Target { address: format!("127.0.0.1:{port}"), redirects };
        let gateways = self.nodes.iter().map(|node| target(node.plan.gateway, false));
        let clusters =
            self.nodes.iter().filter(|_| cluster_ports).map(|node| target(node.plan.cluster, true));
        gateways.chain(clusters).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let all: Vec<usize> = (0..self.count()).collect();
        self.kill(&all);
    }
}

/// Ports of loopback that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    // All are held until all are found, or the system would give one twice.
    let listeners: Vec<TcpListener> = (0..count).map(|_| bind()).collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("a listener has an address").port())
        .collect()
}

/// A new directory for one run.
pub(crate) fn fresh_dir(name: &str) -> PathBuf {
    let dir =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("torture-{name}-{}", std::process::id()));
    // Left by an earlier process of this number.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("an old directory of ours can be removed");
    }
    std::fs::create_dir_all(&dir).expect("a directory can be made");
    dir
}
