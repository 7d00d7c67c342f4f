//! What the nodes stand on: loopback, where processes and disks can be struck, or a network namespace for each node,
//! where every direction between two of them can be cut alone.
//!
//! Each pair of namespaces has a wire of its own (a veth pair). To cut a direction, the sender's route to the other
//! node is laid to a wire that ends in a namespace where nobody listens: packets vanish without an error, as in a broken
//! switch. No packet filter is needed, and nothing outside the namespaces is touched.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use crate::plan::NODES;

/// The network of the namespaces, of those set apart for tests of networks (RFC 2544).
const NETWORK: [u8; 3] = [198, 18, 0];
/// Ports of loopback that the nodes may have: below those that Linux gives to whoever connects (from 32768).
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// What the names of our namespaces begin with; the number of the process follows.
const PREFIX: &str = "tholos-torture-";
/// The number of the clients' namespace; nodes have 0 to 2.
const CLIENT: usize = NODES;

/// Addresses of one node.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) gateway: String,
    pub(crate) cluster: String,
    pub(crate) peer: String,
    pub(crate) http: String,
}

/// Where the nodes run.
#[derive(Debug)]
pub(crate) enum Ground {
    /// Ports of loopback.
    Loopback(Vec<Addresses>),
    /// Namespaces whose names begin with this.
    Namespaces(String),
}

impl Ground {
    /// Ports of loopback that were free a moment ago.
    pub(crate) fn loopback() -> Result<Ground, String> {
        // A node that is down for a while must find its ports free again, so they are none of those that the system gives
        // to whoever connects.
        let first =
            PORTS.start + (std::process::id() as u16).wrapping_mul(61) % (PORTS.end - PORTS.start) / 2;
        // All are held until all are found, or one would be found twice.
        let listeners: Vec<TcpListener> = (first..PORTS.end)
            .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
            .take(NODES * 4)
            .collect();
        if listeners.len() < NODES * 4 {
            return Err(format!(
                "fewer than {} of the ports from {first} to {} are free",
                NODES * 4,
                PORTS.end
            ));
        }
        let address =
            |at: usize| listeners[at].local_addr().map(|a| a.to_string()).map_err(|e| e.to_string());
        let node = |node: usize| {
            let [gateway, cluster, peer, http] = [0, 1, 2, 3].map(|port| address(node * 4 + port));
            Ok(Addresses { gateway: gateway?, cluster: cluster?, peer: peer?, http: http? })
        };
        Ok(Ground::Loopback((0..NODES).map(node).collect::<Result<_, String>>()?))
    }

    pub(crate) fn addresses(&self, node: usize) -> Addresses {
        match self {
            Ground::Loopback(nodes) => nodes[node].clone(),
            Ground::Namespaces(_) => {
                let host = host(node);
                Addresses {
                    gateway: format!("{host}:6379"),
                    cluster: format!("{host}:7001"),
                    peer: format!("{host}:7101"),
                    http: format!("{host}:8080"),
                }
            }
        }
    }

    /// The command that runs `program` where the node is.
    pub(crate) fn command(&self, node: usize, program: &std::path::Path) -> Command {
        match self {
            Ground::Loopback(_) => Command::new(program),
            Ground::Namespaces(base) => {
                let mut command = Command::new("ip");
                // It becomes the program, so that the process's number is the program's.
                command.args(["netns", "exec", &name(base, node), "env"]).arg(program);
                command
            }
        }
    }

    /// Cuts or mends one direction between two nodes.
    pub(crate) fn set_direction(&self, from: usize, to: usize, cut: bool) -> Result<(), String> {
        let Ground::Namespaces(base) = self else {
            return Err("loopback cannot be cut".to_owned());
        };
        let device = if cut { "sink".to_owned() } else { wire(to) };
        let (from_host, to_host) = (host(from), format!("{}/32", host(to)));
        ip(&["-n", &name(base, from), "route", "replace", &to_host, "dev", &device, "src", &from_host])
    }
}

/// Network namespaces that are removed with this, and with them what still runs there.
pub(crate) struct Namespaces {
    base: String,
}

impl Namespaces {
    /// Makes a namespace for each node, for the clients, and for what is lost.
    ///
    /// # Errors
    /// If the kernel or the rights of this user do not allow it: in words for the user.
    pub(crate) fn make() -> Result<Self, String> {
        remove_those_of_the_dead();
        let made = Namespaces { base: format!("{PREFIX}{}-", std::process::id()) };
        made.lay().map_err(|why| {
            format!(
                "network namespaces cannot be made here ({why}): this needs Linux with CONFIG_NET_NS and CONFIG_VETH, \
                 root, and the program `ip` (package iproute2)"
            )
        })?;
        Ok(made)
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The command that runs `program` where the clients are.
    pub(crate) fn client_command(&self, program: &std::path::Path) -> Command {
        Ground::Namespaces(self.base.clone()).command(CLIENT, program)
    }

    fn lay(&self) -> Result<(), String> {
        let sink = self.sink();
        ip(&["netns", "add", &sink])?;
        for node in 0..=CLIENT {
            let space = name(&self.base, node);
            ip(&["netns", "add", &space])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{}/32", host(node)), "dev", "lo"])?;
            let end = format!("end{node}");
            ip(&["-n", &space, "link", "add", "sink", "type", "veth", "peer", "name", &end, "netns", &sink])?;
            ip(&["-n", &space, "link", "set", "sink", "up"])?;
            ip(&["-n", &sink, "link", "set", &end, "up"])?;
        }
        for a in 0..=CLIENT {
            for b in a + 1..=CLIENT {
                let (near, far) = (name(&self.base, a), name(&self.base, b));
                let (to_b, to_a) = (wire(b), wire(a));
                ip(&[
                    "-n", &near, "link", "add", &to_b, "type", "veth", "peer", "name", &to_a, "netns", &far,
                ])?;
                for (space, own, other) in [(&near, a, b), (&far, b, a)] {
                    ip(&["-n", space, "link", "set", &wire(other), "up"])?;
                    let route = format!("{}/32", host(other));
                    ip(&["-n", space, "route", "add", &route, "dev", &wire(other), "src", &host(own)])?;
                    // Known beforehand, or the sink would be asked who has the address, and its silence told.
                    let nobody = "02:00:00:00:00:01";
                    ip(&[
                        "-n",
                        space,
                        "neigh",
                        "add",
                        &host(other),
                        "lladdr",
                        nobody,
                        "dev",
                        "sink",
                        "nud",
                        "permanent",
                    ])?;
                }
            }
        }
        Ok(())
    }

    fn sink(&self) -> String {
        format!("{}sink", self.base)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let spaces = (0..=CLIENT).map(|node| name(&self.base, node)).chain([self.sink()]);
        spaces.for_each(|space| remove(&space));
    }
}

/// Removes a namespace of ours with what runs in it: a stopped server does not notice that its torturer is gone.
fn remove(space: &str) {
    for pid in said(&["netns", "pids", space]).split_whitespace() {
        let _gone = Command::new("kill").args(["-9", pid]).status();
    }
    if let Err(why) = ip(&["netns", "del", space]) {
        eprintln!("{space} stays: {why}");
    }
}

/// A run that was killed removed nothing.
fn remove_those_of_the_dead() {
    for space in said(&["netns", "list"]).lines().filter_map(|line| line.split(' ').next()) {
        let owner = space.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            remove(space);
        }
    }
}

/// What `ip` prints; nothing if it fails.
fn said(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn host(node: usize) -> String {
    let [a, b, c] = NETWORK;
    format!("{a}.{b}.{c}.{}", node + 1)
}

/// The device that leads to a node.
fn wire(node: usize) -> String {
    format!("to{}", node + 1)
}

fn name(base: &str, node: usize) -> String {
    if node == CLIENT { format!("{base}clients") } else { format!("{base}n{}", node + 1) }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
