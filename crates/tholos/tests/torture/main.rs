//! Real processes, real sockets, real `kill -9`: clients write and read while nodes die, and what they saw must be
//! linearizable.
//!
//! `TORTURE_ROUNDS=50 cargo test --release -p tholos --test torture -- --nocapture` runs the long form and prints how
//! long writes stood still; TORTURE_SEED chooses who dies when, TORTURE_BINARY another build of the server. A failed run
//! keeps its directory and says where it is.

mod client;
mod nemesis;
mod process;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{Load, Mix};
use nemesis::{Act, Random};
use process::{Cluster, NodePlan};
use tholos_check::{Limits, Operation, Outcome, Verdict, linearizable};

/// Rounds in a plain `cargo test`.
const ROUNDS_SHORT: u32 = 3;
/// How long a cluster may take to serve again once enough nodes run.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// What one torture run is made of.
struct Torture {
    name: &'static str,
    nodes: usize,
    rounds: u32,
    seed: u64,
    clients: usize,
    mix: Mix,
    acts: &'static [Act],
    /// Whether clients also use the cluster ports, and follow MOVED there.
    cluster_ports: bool,
    command: fn(&NodePlan) -> Command,
}

/// What came of it.
struct Outcomes {
    dir: PathBuf,
    history: Vec<Operation>,
    /// For each round that left a majority alive: how long the slowest key took no write.
    gaps: Vec<Duration>,
}

impl Torture {
    fn run(&self) -> Outcomes {
        let dir = process::fresh_dir(self.name);
        let mut cluster = Cluster::new(&dir, self.nodes, self.command);
        cluster.start_all();
        let mut random = Random::new(self.seed);
        let mut gaps = Vec::new();
        let load = Load::start(cluster.targets(self.cluster_ports), self.clients, self.mix, self.seed);
        load.wait_until_served(RECOVERY_MAX, &dir);
        for round in 0..self.rounds {
            std::thread::sleep(Duration::from_millis(200 + random.below(400)));
            let act = self.acts[random.below(self.acts.len() as u64) as usize];
            let struck = load.now();
            let victims = act.strike(&mut cluster, &mut random);
            println!("{} round {round}: {act:?} {victims:?}", self.name);
            let minority = (self.nodes - 1) / 2;
            if victims.len() <= minority && self.nodes > 1 {
                let all = load.wait_until_served(RECOVERY_MAX, &dir);
                let gap = Duration::from_nanos(all.saturating_sub(struck));
                println!(
                    "{} round {round}: every key was written again {} ms later",
                    self.name,
                    gap.as_millis()
                );
                gaps.push(gap);
            }
            std::thread::sleep(Duration::from_millis(random.below(800)));
            act.heal(&mut cluster, &victims);
            load.wait_until_served(RECOVERY_MAX, &dir);
        }
        let served = load.served.load(Ordering::Relaxed);
        let history = load.stop();
        assert!(served > 100, "{}: only {served} operations succeeded, see {}", self.name, dir.display());
        Outcomes { dir, history, gaps }
    }
}

impl Outcomes {
    /// Checks the history and removes the directory if all is well.
    #[track_caller]
    fn must_be_linearizable(self) {
        let count = |wanted: fn(&Outcome) -> bool| self.history.iter().filter(|o| wanted(&o.outcome)).count();
        println!(
            "{} operations, {} of unknown fate, {} refused; longest pause with a majority {:?}",
            self.history.len(),
            count(|outcome| matches!(outcome, Outcome::Unknown)),
            count(|outcome| matches!(outcome, Outcome::Failed)),
            self.gaps.iter().max(),
        );
        match linearizable(&self.history, &Limits::default()) {
            Verdict::Ok(stats) => println!("linearizable: {stats:?}"),
            Verdict::Violation(violation) => {
                // All of the key, for whoever looks for the cause.
                let all: Vec<String> =
                    violation.operations.iter().map(|operation| format!("{operation:?}\n")).collect();
                std::fs::write(self.dir.join("history.txt"), all.concat())
                    .expect("the history can be written");
                panic!("{}\nsee {}", violation.explain(), self.dir.display());
            }
            Verdict::Undecided(why) => panic!("undecided: {why:?}, see {}", self.dir.display()),
        }
        std::fs::remove_dir_all(&self.dir).expect("our own directory can be removed");
    }
}

fn rounds() -> u32 {
    std::env::var("TORTURE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS_SHORT)
}

fn seed() -> u64 {
    std::env::var("TORTURE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn tholos(plan: &NodePlan) -> Command {
    let binary = std::env::var_os("TORTURE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_tholos").into());
    let mut command = Command::new(binary);
    command.arg("serve").args(["--name", &plan.name, "--dir"]).arg(&plan.dir);
    for (flag, port) in [
        ("--gateway", plan.gateway),
        ("--cluster", plan.cluster),
        ("--peer", plan.peer),
        ("--http", plan.http),
    ] {
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
    }
    command.arg("--seeds").arg(&plan.seeds);
    command
}

#[test]
fn killed_nodes_lose_nothing_and_reads_never_go_back() {
    let torture = Torture {
        name: "kill",
        nodes: 3,
        rounds: rounds(),
        seed: seed(),
        clients: 8,
        mix: Mix::default(),
        acts: &[Act::KillOne, Act::KillOne, Act::KillTwo, Act::KillAll],
        cluster_ports: true,
        command: tholos,
    };
    torture.run().must_be_linearizable();
}

#[test]
fn stopped_nodes_serve_nothing_stale_when_they_go_on() {
    let torture = Torture {
        name: "pause",
        nodes: 3,
        rounds: rounds(),
        seed: seed(),
        clients: 8,
        mix: Mix::default(),
        acts: &[Act::PauseOne],
        cluster_ports: true,
        command: tholos,
    };
    torture.run().must_be_linearizable();
}

/// The harness on a store that loses what it acknowledged: a test that cannot fail proves nothing.
#[test]
fn a_store_that_forgets_is_found_out() {
    if Command::new("redis-server").arg("--version").output().is_err() {
        println!("redis-server is not installed: skipped");
        return;
    }
    fn forgetful(plan: &NodePlan) -> Command {
        let mut command = Command::new("redis-server");
        std::fs::create_dir_all(&plan.dir).expect("a directory can be made");
        command
            .args(["--port", &plan.gateway.to_string(), "--save", "", "--appendonly", "no", "--dir"])
            .arg(&plan.dir);
        command
    }
    let torture = Torture {
        name: "forgetful",
        nodes: 1,
        rounds: 2,
        seed: 1,
        clients: 4,
        mix: Mix::default(),
        acts: &[Act::KillOne],
        cluster_ports: false,
        command: forgetful,
    };
    let outcomes = torture.run();
    match linearizable(&outcomes.history, &Limits::default()) {
        Verdict::Violation(violation) => println!("found, as it should be:\n{}", violation.explain()),
        other => panic!("lost writes were not found: {other:?}"),
    }
    std::fs::remove_dir_all(&outcomes.dir).expect("our own directory can be removed");
}
