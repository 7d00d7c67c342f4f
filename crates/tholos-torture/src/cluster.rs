//! Three server processes: started, struck, healed, started again.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ground::Ground;
use crate::plan::{Act, NODES, Round, Strike};

/// What clients show; the namespaces are not loopback, so the servers ask for one.
pub(crate) const PASSWORD: &str = "torture";
const SECRET: &str = "a secret of sixteen characters and more";
/// How long a node whose disk has failed may take to stop.
const STOP_MAX: Duration = Duration::from_secs(15);
/// Where Debian puts the library that shifts clocks.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const FAKETIME_ARM: &str = "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The library that shifts the wall clock of a process, if it is installed.
pub(crate) fn faketime() -> Option<&'static str> {
    [FAKETIME, FAKETIME_ARM].into_iter().find(|path| Path::new(path).exists())
}

/// What the servers are.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    /// Any program that takes `serve --config FILE`.
    pub(crate) program: PathBuf,
    pub(crate) real_files: bool,
    /// Whether clocks can jump.
    pub(crate) faketime: Option<&'static str>,
}

pub(crate) struct Cluster {
    dir: PathBuf,
    pub(crate) ground: Ground,
    servers: Servers,
    nodes: Vec<Option<Child>>,
}

impl Cluster {
    /// Writes what the nodes are configured by; starts none.
    pub(crate) fn new(dir: &Path, ground: Ground, servers: Servers) -> Result<Self, String> {
        let cluster =
            Self { dir: dir.to_owned(), ground, servers, nodes: (0..NODES).map(|_| None).collect() };
        cluster.configure().map_err(|error| format!("cannot write {}: {error}", dir.display()))?;
        Ok(cluster)
    }

    fn configure(&self) -> std::io::Result<()> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        fs::write(path("secret"), SECRET)?;
        fs::write(path("password"), PASSWORD)?;
        let seeds: Vec<String> =
            (0..NODES).map(|i| format!("{}={}", name(i), self.ground.addresses(i).peer)).collect();
        for node in 0..NODES {
            let at = self.ground.addresses(node);
            let text = format!(
                "name = \"{}\"\ndir = \"{}\"\ngateway = \"{}\"\ncluster = \"{}\"\npeer = \"{}\"\nhttp = \"{}\"\n\
                 seeds = \"{}\"\ncluster_secret_file = \"{}\"\nrequirepass_file = \"{}\"\n[wal]\nsegment_bytes = \"1MiB\"\n",
                name(node),
                path("data"),
                at.gateway,
                at.cluster,
                at.peer,
                at.http,
                seeds.join(","),
                path("secret"),
                path("password"),
            );
            fs::write(path(&format!("{}.toml", name(node))), text)?;
            self.set_clock(node, 0)?;
        }
        Ok(())
    }

    pub(crate) fn gateways(&self) -> Vec<String> {
        (0..NODES).map(|node| self.ground.addresses(node).gateway).collect()
    }

    pub(crate) fn start_all(&mut self) -> Result<(), String> {
        (0..NODES).try_for_each(|node| self.start(node))
    }

    /// Starts a node unless it runs. What it says goes to `<dir>/<name>.log`.
    fn start(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].is_some() {
            return Ok(());
        }
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", name(node));
        let log = || OpenOptions::new().create(true).append(true).open(self.log(node));
        let mut command = self.ground.command(node, &self.servers.program);
        command.args(["serve", "--config"]).arg(self.dir.join(format!("{}.toml", name(node))));
        if self.servers.real_files {
            command.arg("--real-files");
        }
        if let Some(library) = self.servers.faketime {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock(node));
            // Only the wall clock jumps: the others cannot on a Linux machine, and leases rest on that.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
            command.env("FAKETIME_CACHE_DURATION", "1");
        }
        command.stdin(Stdio::piped()).stdout(log().map_err(failed)?).stderr(log().map_err(failed)?);
        self.nodes[node] = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Strikes all of a round at once.
    pub(crate) fn strike(&mut self, round: &Round) -> Result<(), String> {
        let killed: Vec<usize> = (0..NODES)
            .filter(|&node| {
                round.strikes.iter().any(|strike| match strike.act {
                    Act::KillOne | Act::KillTwo | Act::KillAll => strike.unsettles(node),
                    _ => false,
                })
            })
            .collect();
        for strike in &round.strikes {
            let victims: Vec<usize> = (0..NODES).filter(|&node| strike.unsettles(node)).collect();
            match strike.act {
                Act::PauseOne | Act::PauseTwo => victims.iter().for_each(|&node| self.signal(node, "-STOP")),
                Act::SyncFails => self.tell(strike.victim, "sync-fails"),
                Act::WriteFails => self.tell(strike.victim, "write-fails"),
                Act::FullDisk => self.tell(strike.victim, "full"),
                Act::SlowDisk => self.tell(strike.victim, &format!("slow {}", strike.amount)),
                Act::ClockJump => {
                    let set = self.set_clock(strike.victim, strike.jump_seconds());
                    set.map_err(|error| format!("cannot set a clock: {error}"))?;
                }
                Act::CutOne | Act::CutOut | Act::CutIn | Act::CutPair => self.set_network(strike, true)?,
                Act::KillOne | Act::KillTwo | Act::KillAll | Act::Several => {}
            }
        }
        self.kill(&killed);
        Ok(())
    }

    /// Mends all that a round struck. A node whose disk failed has stopped by itself by then, or it is at fault.
    pub(crate) fn heal(&mut self, round: &Round) -> Result<(), String> {
        // First who must be able to stop, then who is started.
        for strike in &round.strikes {
            match strike.act {
                Act::PauseOne | Act::PauseTwo => {
                    (0..NODES)
                        .filter(|&node| strike.unsettles(node))
                        .for_each(|node| self.signal(node, "-CONT"));
                }
                Act::CutOne | Act::CutOut | Act::CutIn | Act::CutPair => self.set_network(strike, false)?,
                Act::ClockJump => {
                    let set = self.set_clock(strike.victim, 0);
                    set.map_err(|error| format!("cannot set a clock: {error}"))?;
                }
                Act::FullDisk | Act::SlowDisk => self.tell(strike.victim, "heal"),
                _ => {}
            }
        }
        for strike in &round.strikes {
            if matches!(strike.act, Act::SyncFails | Act::WriteFails) {
                self.must_have_stopped(strike.victim)?;
            }
        }
        self.start_all()
    }

    /// A node that was to fail has; one that was killed meanwhile is not asked.
    fn must_have_stopped(&mut self, node: usize) -> Result<(), String> {
        let deadline = Instant::now() + STOP_MAX;
        while let Some(child) = &mut self.nodes[node] {
            match child.try_wait() {
                Ok(Some(_)) => self.nodes[node] = None,
                _ if Instant::now() > deadline => {
                    return Err(format!(
                        "{} goes on {} s after its disk failed (R23)",
                        name(node),
                        STOP_MAX.as_secs()
                    ));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        Ok(())
    }

    /// Sees that every node that was not struck down runs.
    pub(crate) fn all_run(&mut self) -> Result<(), String> {
        for node in 0..NODES {
            let Some(child) = &mut self.nodes[node] else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => format!("signal {signal}"),
                    _ => "no reason".to_owned(),
                };
                return Err(format!(
                    "{} ended by itself ({how}); see {}",
                    name(node),
                    self.log(node).display()
                ));
            }
        }
        Ok(())
    }

    /// SIGKILL to all of them before any is waited for. They are gone when this returns.
    fn kill(&mut self, nodes: &[usize]) {
        let mut dying: Vec<Child> = nodes.iter().filter_map(|&node| self.nodes[node].take()).collect();
        dying.iter_mut().for_each(|child| child.kill().expect("our own child can be killed"));
        dying.iter_mut().for_each(|child| drop(child.wait()));
    }

    fn signal(&self, node: usize, signal: &str) {
        if let Some(child) = &self.nodes[node] {
            // A node that a failed disk has just stopped is not there any more.
            let _sent =
                Command::new("kill").arg(signal).arg(child.id().to_string()).stderr(Stdio::null()).status();
        }
    }

    fn tell(&mut self, node: usize, line: &str) {
        if let Some(input) = self.nodes[node].as_mut().and_then(|child| child.stdin.as_mut()) {
            // The same.
            let _told = writeln!(input, "{line}");
        }
    }

    fn set_network(&self, strike: &Strike, cut: bool) -> Result<(), String> {
        let victim = strike.victim;
        for other in (0..NODES).filter(|&node| node != victim) {
            if strike.act == Act::CutPair && other != strike.other {
                continue;
            }
            if strike.act != Act::CutIn {
                self.ground.set_direction(victim, other, cut)?;
            }
            if strike.act != Act::CutOut {
                self.ground.set_direction(other, victim, cut)?;
            }
        }
        Ok(())
    }

    fn set_clock(&self, node: usize, seconds: i64) -> std::io::Result<()> {
        // Renamed into place, or half of it could be read.
        let new = self.dir.join("clock.new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(new, self.clock(node))
    }

    fn clock(&self, node: usize) -> PathBuf {
        self.dir.join(format!("{}.clock", name(node)))
    }

    fn log(&self, node: usize) -> PathBuf {
        self.dir.join(format!("{}.log", name(node)))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill(&[0, 1, 2]);
    }
}

pub(crate) fn name(node: usize) -> String {
    format!("n{}", node + 1)
}
