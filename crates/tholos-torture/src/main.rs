//! The server over a disk that forgets what was not synced (`tholos-torture serve`), and what is done to three of it
//! (`tholos-torture run`). `cargo xtask torture` builds and runs it; docs/protocol/torture.md tells what is done.

mod cluster;
mod control;
mod disk;
mod ground;
mod plan;
mod report;
mod run;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::SignalKind;

use cluster::Servers;
use ground::{Ground, Namespaces};
use plan::{ALL, Act, Round};

#[derive(Parser)]
#[command(
    name = "tholos-torture",
    version,
    about = "Three servers, their worst days, and whether they kept their word"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Serve(serve::ServeArgs),
    Run(RunArgs),
}

/// Rounds of misfortune against three servers under load; exit code 0 only if every history is linearizable and no
/// acknowledged write is lost.
#[derive(Args, Clone, Debug)]
struct RunArgs {
    /// How long to go on.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,
    /// Stop after so many rounds.
    #[arg(long, value_name = "N", default_value_t = u64::MAX)]
    rounds: u64,
    /// Which misfortune comes when.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Begin with the round of this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Only these kinds of misfortune. Default: all that are possible.
    #[arg(long, value_name = "ACT,..", value_delimiter = ',')]
    acts: Vec<Act>,
    /// Print the plan of so many rounds, and do nothing.
    #[arg(long, value_name = "ROUNDS")]
    list: Option<u64>,
    /// Run on loopback: no cuts, no root needed.
    #[arg(long)]
    loopback: bool,
    /// Leave the scene of the cut-off leader out.
    #[arg(long)]
    no_scene: bool,
    /// Another server: any program that takes `serve --config FILE`. Its disk cannot be struck.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// The servers use the file system as it is: a kill is then no power cut.
    #[arg(long)]
    real_files: bool,
    /// Clients that stay with one node each, for each node.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pinned: usize,
    /// Clients that use any node.
    #[arg(long, value_name = "N", default_value_t = 5)]
    roaming: usize,
    /// Pause of a client between two operations, in microseconds.
    #[arg(long, value_name = "US", default_value_t = 500)]
    think_us: u64,
    /// Where the run's directory is made; it is kept if something is wrong.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The namespaces this process was started in, by itself.
    #[arg(long, hide = true, value_name = "NAME")]
    inside: Option<String>,
}

impl RunArgs {
    fn acts(&self, faketime: bool) -> Result<Vec<Act>, String> {
        let own_disk = self.program.is_none() && !self.real_files;
        let why_not = |act: Act| match act {
            _ if act.needs_namespaces() && self.loopback => Some("loopback cannot be cut"),
            _ if act.needs_power_disk() && !own_disk => Some("only the disk of tholos-torture can be struck"),
            Act::ClockJump if !faketime => Some("the package faketime is not installed"),
            _ => None,
        };
        if let Some((act, why)) = self.acts.iter().find_map(|&act| Some((act, why_not(act)?))) {
            return Err(format!("{act} is not possible: {why}"));
        }
        if !self.acts.is_empty() {
            return Ok(self.acts.clone());
        }
        let all = ALL.iter().map(|(act, _)| *act);
        if self.loopback || !own_disk {
            return Ok(all.filter(|&act| why_not(act).is_none()).collect());
        }
        // The whole run leaves nothing out silently.
        let all: Vec<Act> = all.collect();
        match all.iter().find_map(|&act| Some((act, why_not(act)?))) {
            Some((act, why)) => Err(format!("{act} is not possible: {why}")),
            None => Ok(all),
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().task {
        Task::Serve(args) => serve::run(&args),
        Task::Run(args) => match torture(&args) {
            Ok(code) => code,
            Err(why) => {
                eprintln!("error: {why}");
                ExitCode::FAILURE
            }
        },
    }
}

fn torture(args: &RunArgs) -> Result<ExitCode, String> {
    let faketime = cluster::faketime();
    let acts = args.acts(faketime.is_some())?;
    if let Some(rounds) = args.list {
        (args.from..args.from + rounds)
            .for_each(|n| println!("round {n}: {}", Round::draw(args.seed, n, &acts)));
        return Ok(ExitCode::SUCCESS);
    }
    if args.pinned + args.roaming == 0 {
        return Err("there must be clients".to_owned());
    }
    let ground = match &args.inside {
        _ if args.loopback => Ground::loopback()?,
        Some(base) => Ground::Namespaces(base.clone()),
        None => return in_namespaces(),
    };
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("tholos-torture-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let settings = run::Settings {
        dir: dir.clone(),
        servers: Servers {
            program: args.program.clone().unwrap_or(own),
            real_files: args.real_files,
            faketime: faketime.filter(|_| acts.contains(&Act::ClockJump)),
        },
        acts,
        seed: args.seed,
        from: args.from,
        rounds: args.rounds,
        time: Duration::from_secs_f64((args.minutes * 60.0).clamp(0.0, 1e9)),
        pinned: args.pinned,
        roaming: args.roaming,
        think: Duration::from_micros(args.think_us),
        scene: !args.loopback && !args.no_scene,
    };
    let report = run::run(&settings, ground);
    println!("{report}");
    finish(&dir, report.is_good())
}

fn finish(dir: &Path, good: bool) -> Result<ExitCode, String> {
    if !good {
        println!("logs, data and the history are in {}", dir.display());
        return Ok(ExitCode::FAILURE);
    }
    std::fs::remove_dir_all(dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the namespaces, runs this same command again among the clients', and removes them whatever comes.
fn in_namespaces() -> Result<ExitCode, String> {
    let spaces = Namespaces::make()?;
    let own = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut command = tokio::process::Command::from(spaces.client_command(&own));
    command.args(std::env::args_os().skip(1)).args(["--inside", spaces.base()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut child = command.spawn().map_err(|error| format!("cannot run in a namespace: {error}"))?;
        let on = |kind| tokio::signal::unix::signal(kind).map_err(|error| error.to_string());
        let mut terminate = on(SignalKind::terminate())?;
        let mut hang_up = on(SignalKind::hangup())?;
        tokio::select! {
            ended = child.wait() => {
                let code = ended.map_err(|error| error.to_string())?.code();
                Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
            }
            _ = terminate.recv() => Err("terminated".to_owned()),
            _ = hang_up.recv() => Err("the terminal is gone".to_owned()),
            _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        }
    })
}
