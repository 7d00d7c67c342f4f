//! `tholos check`: a workload whose history is recorded, and whether that history is linearizable.

mod file;
mod report;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use tholos_check::{Limits, Operation, linearizable};
use tholos_load::{Load, Mix, Plan, StartError, Summary};

use crate::failure::{Exit, Failure};
use crate::http::address;
use crate::out::{err, errln, out, outln};

use report::Report;

/// How long the keys may be read for at the end, while nobody answers.
const READ_FOR: Duration = Duration::from_secs(15);
/// How often the run looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);
/// Operations of one history, at most; each takes about 250 bytes of memory.
const OPERATIONS_MAX: u64 = 20_000_000;
/// A run that waits for its operations ends after a day all the same.
const SECONDS_MAX: f64 = 86_400.0;

/// Find out whether a server is linearizable while you do your worst to it.
///
/// Connections write and read few keys through all addresses, reconnect when one fails, and record when each operation
/// was called and answered; one without an answer may have happened at any time since, or never. At the end every key is
/// read once more, and the history is judged: an order that explains it, or the operations that have none.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exit codes: 0 linearizable · 1 not, or not decided · 2 usage · 3 cannot reach · 4 not allowed. ^C ends the run and judges
what there is. The password, if one is needed, comes from THOLOS_REQUIREPASS or --password-file.

Examples:
  tholos check --at 10.0.0.1:6379,10.0.0.2:6379,10.0.0.3:6379 --seconds 60
  tholos check --at 127.0.0.1:6379 --operations 1000000 --history run.history
  tholos check --from run.history")]
pub(crate) struct CheckArgs {
    /// Addresses that speak the Redis protocol and mean one store: all nodes of a cluster, or one server. MOVED is
    /// followed.
    #[arg(long, value_name = "HOST:PORT,..", default_value = "127.0.0.1:6379", value_delimiter = ',', value_parser = address)]
    at: Vec<String>,
    /// Connections, each with one operation at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    connections: u32,
    /// Keys of each class: registers, counters, logs. Few keys make many conflicts.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=tholos_load::KEYS_MAX))]
    keys: u64,
    /// Commands and their shares: get, set, incr, append, del, setnx, getdel, getset.
    #[arg(long, value_name = "COMMAND=SHARE,..", default_value_t = Mix::default())]
    mix: Mix,
    /// How long to run; 10 seconds if --operations says nothing either.
    #[arg(long, value_name = "SECONDS", value_parser = super::bench::seconds)]
    seconds: Option<f64>,
    /// Stop after this many operations.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=OPERATIONS_MAX))]
    operations: Option<u64>,
    /// Pause of a connection between two operations.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    think_ms: u64,
    /// Give up on a reply after this long, and leave its operation open.
    #[arg(long, value_name = "MS", default_value_t = 7_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    reply_timeout_ms: u64,
    /// Choice of keys, commands and addresses.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// What the keys begin with; none may exist. Default: new for each run.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Leave the keys behind.
    #[arg(long)]
    keep: bool,
    /// Write the history to a file, one operation a line.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Judge the history in a file and ask no server.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["at", "history"])]
    from: Option<PathBuf>,
    /// A file that holds the password.
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the workload or reads the file, and prints the verdict.
pub(crate) fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let report = match &args.from {
        Some(path) => {
            let operations = file::read(path)?;
            let clients = operations.iter().map(|operation| operation.client + 1).max().unwrap_or(0);
            let times = operations.iter().flat_map(|operation| [Some(operation.invoked), operation.returned]);
            let stopped = times.flatten().max().unwrap_or(0);
            let summary = Summary::new(&operations, usize::try_from(clients).unwrap_or(usize::MAX), stopped);
            Report::new(summary, judged(&operations), operations)
        }
        None => live(args)?,
    };
    if args.json {
        outln!("{}", report.json(args));
    } else {
        out!("{}", report.text());
    }
    Ok(if report.is_linearizable() { Exit::Ok } else { Exit::NotSo })
}

/// The verdict, and how long it took.
fn judged(operations: &[Operation]) -> (tholos_check::Verdict, Duration) {
    let begin = Instant::now();
    (linearizable(operations, &Limits::default()), begin.elapsed())
}

fn live(args: &CheckArgs) -> Result<Report, Failure> {
    let seconds = args.seconds.unwrap_or(if args.operations.is_some() { SECONDS_MAX } else { 10.0 });
    let plan = Plan {
        targets: args.at.clone(),
        password: super::bench::password(args.password_file.as_deref())?,
        pinned: 0,
        roaming: args.connections as usize,
        keys: args.keys,
        prefix: args.prefix.clone().unwrap_or_else(fresh_prefix),
        mix: args.mix.clone(),
        think: Duration::from_millis(args.think_ms),
        reply_timeout: Duration::from_millis(args.reply_timeout_ms),
        seed: args.seed,
        operations_max: args.operations.unwrap_or(OPERATIONS_MAX),
    };
    let begin = Instant::now();
    let load = Load::start(plan).map_err(|why| does_not_start(why, args))?;
    watch(&load, Duration::from_secs_f64(seconds))?;
    let history = load.stop(READ_FOR);
    let elapsed = begin.elapsed();
    // Before anything else can fail: the run cannot be had again.
    if let Some(path) = &args.history {
        file::write(path, &history.operations)?;
    }
    let left = if args.keep { 0 } else { history.remove_keys() };
    if left > 0 {
        errln!("{left} keys of this run could not be deleted");
    }
    let summary = history.summary();
    let mut report = Report::new(summary, judged(&history.operations), history.operations);
    report.elapsed = Some(elapsed);
    report.clients = history.clients;
    report.unread = history.unread;
    report.said = history.notes;
    Ok(report)
}

/// Waits until the time is over, the most operations are done, or ^C.
fn watch(load: &Load, at_most: Duration) -> Result<(), Failure> {
    let begin = Instant::now();
    let shows = std::io::stderr().is_terminal();
    super::serve::runtime(Some(1))?.block_on(async {
        let mut signals = super::serve::Signals::new()?;
        let mut shown = 0;
        loop {
            let left = at_most.saturating_sub(begin.elapsed());
            if left.is_zero() || load.is_full() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                _ = signals.next() => break,
            }
            let second = begin.elapsed().as_secs();
            if shows && second > shown {
                shown = second;
                let (recorded, succeeded) = load.counts();
                err!("\r{second} s, {recorded} operations, {succeeded} answered      ");
            }
        }
        if shows {
            err!("\r{:70}\r", "");
        }
        Ok(())
    })
}

fn fresh_prefix() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("tholos-check:{:x}.{:x}:", since.as_nanos(), std::process::id())
}

fn does_not_start(why: StartError, args: &CheckArgs) -> Failure {
    let what = format!("cannot check {}", args.at.join(", "));
    match why {
        StartError::NotAllowed(why) => {
            let remedy = "give the password with THOLOS_REQUIREPASS or --password-file";
            Failure::new(Exit::NotAllowed, what, why, remedy)
        }
        StartError::NotEmpty(why) => {
            Failure::new(Exit::Usage, what, why, "leave --prefix away, or choose one that no key begins with")
        }
        StartError::Unreachable(why) => {
            let remedy = "is the server running, and is this its address? Choose another with --at";
            Failure::new(Exit::CannotReach, what, why, remedy)
        }
        _ => Failure::new(Exit::NotSo, what, "the load does not start", ""),
    }
}
