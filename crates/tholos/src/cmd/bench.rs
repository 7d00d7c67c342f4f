//! `tholos bench`: a closed or an open loop of clients, and what they saw.

mod connection;
mod load;
mod mix;
mod pace;
mod report;
mod route;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure};
use crate::http::address;
use crate::out::{err, out, outln};

use connection::{Connection, OpenFailure};
use load::{Plan, Shared, Work};
use mix::Mix;
use pace::Metronome;
use report::{CpuSample, Report};
use route::Routes;

/// Longest value; the server has its own limit.
const VALUE_BYTES_MAX: u64 = 512 << 20;

/// Measure a server that speaks the Redis protocol.
///
/// Each connection sends a command (or a pipeline of them), waits for the replies, and sends the next. Latencies are
/// what the client saw, from the first byte sent; with --rate, from when the command was due. ^C ends it with what was
/// measured until then.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tholos bench --at 127.0.0.1:6379 --seconds 5
  tholos bench --at 127.0.0.1:7001 --cluster --connections 64 --value-bytes 256 --json
  tholos bench --mix get=80,set=20 --fill --requests 1000000 --pipeline 16
  tholos bench --mix get=90,set=10 --rate 5000 --seconds 60

The password, if one is needed, comes from THOLOS_REQUIREPASS or --password-file.")]
pub(crate) struct BenchArgs {
    /// Address of a server; repeat it to spread the connections over several.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:6379", value_parser = address)]
    at: Vec<String>,
    /// Ask the first address for CLUSTER SLOTS, send each key to its leader, follow MOVED and ASK. A connection is then one
    /// to every leader, and still one command at a time.
    #[arg(long)]
    cluster: bool,
    /// Clients at the same time, each waiting for its replies.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Commands each client sends before it waits.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: u32,
    /// An open loop: so many commands a second, at even distances, whether or not earlier ones were answered.
    /// A connection that still waits sends late, and the lateness counts.
    #[arg(long, value_name = "PER SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Different keys, each as likely as the others.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keys: u64,
    /// Size of the values that SET and APPEND write.
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u64).range(0..=VALUE_BYTES_MAX))]
    value_bytes: u64,
    /// Commands and their shares: get, set, incr, append, del, exists, ping.
    #[arg(long, value_name = "COMMAND=SHARE,..", default_value = "set=100")]
    mix: Mix,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, conflicts_with = "requests", value_parser = seconds)]
    seconds: f64,
    /// Measure this many commands instead of a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Seconds of the same load before measuring.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Write every key once first, so that reads find something.
    #[arg(long)]
    fill: bool,
    /// Choice of keys, commands and values: the same seed, the same choices.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads of this client.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// A server process on this machine whose processor time to count; repeatable.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// A file that holds the password.
    #[arg(long, value_name = "PATH")]
    password_file: Option<std::path::PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number of seconds".to_owned())?;
    if (0.0..=86_400.0).contains(&number) {
        Ok(number)
    } else {
        Err("it must be 0 to 86400 seconds".to_owned())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it must be a number of commands a second".to_owned())?;
    if (0.001..=1e7).contains(&number) {
        Ok(number)
    } else {
        Err("it must be 0.001 to 10000000 commands a second".to_owned())
    }
}

/// Runs the load and prints what came of it.
pub(crate) fn run(args: &BenchArgs) -> Result<Exit, Failure> {
    let password = password(args.password_file.as_deref())?;
    let routes = discover(args, password.as_deref())?;
    let work = match args.requests {
        Some(requests) => Work::Requests(requests),
        None => Work::Until(Duration::from_secs_f64(args.seconds)),
    };
    let fill = Work::Fill { keys: args.keys };
    let fill = args.fill.then(|| Arc::new(Shared::new(routes.clone(), fill, Duration::ZERO)));
    let measured = Arc::new(Shared::new(routes, work, Duration::from_secs_f64(args.warmup)));
    stop_on_interrupt(fill.clone(), measured.clone())?;
    let mut plan = Plan {
        mix: args.mix.clone(),
        keys: args.keys,
        pipeline: args.pipeline as usize,
        value_bytes: usize::try_from(args.value_bytes).expect("clap bounds it"),
        seed: args.seed,
        password,
        metronome: None,
    };
    if let Some(fill) = &fill {
        drive(args, &plan, fill, "filling")?;
        if fill.is_stopped() {
            return Err(interrupted());
        }
    }
    let metronome = |rate| Arc::new(Metronome::new(args.connections, rate, plan.pipeline));
    plan.metronome = args.rate.map(metronome);
    let mut report = drive(args, &plan, &measured, "running")?;
    if report.operations == 0 && measured.is_stopped() {
        return Err(interrupted());
    }
    report.pids = args.pid.len();
    if args.json {
        outln!("{}", report.json(&settings(args)));
    } else {
        out!("{}", report.text());
    }
    // A run in which nothing worked is not a result.
    Ok(if report.operations == 0 { Exit::NotSo } else { Exit::Ok })
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted", "nothing was measured", "")
}

/// The first ^C ends the run, the second the process: a server may never answer.
fn stop_on_interrupt(fill: Option<Arc<Shared>>, measured: Arc<Shared>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let interrupts = runtime.block_on(async { signal(SignalKind::interrupt()) });
    let mut interrupts = interrupts.map_err(|error| {
        Failure::new(Exit::NotSo, "cannot take ^C", error, "raise the limit of open files")
    })?;
    std::thread::spawn(move || {
        while runtime.block_on(interrupts.recv()).is_some() {
            if let Some(fill) = &fill {
                fill.stop();
            }
            if !measured.stop() {
                std::process::exit(Exit::Interrupted as i32);
            }
        }
    });
    Ok(())
}

/// The password from a file or the environment.
pub(crate) fn password(file: Option<&std::path::Path>) -> Result<Option<String>, Failure> {
    if let Some(path) = file {
        let failed = |error: &dyn std::fmt::Display| {
            let what = format!("cannot read {}", path.display());
            Failure::new(Exit::Usage, what, error, "give the path of a file that holds the password")
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        let password = text.trim_end();
        return if password.is_empty() { Err(failed(&"it is empty")) } else { Ok(Some(password.to_owned())) };
    }
    match std::env::var("THOLOS_REQUIREPASS") {
        Ok(empty) if empty.trim_end().is_empty() => {
            let (what, why) = ("no password", "THOLOS_REQUIREPASS is empty and should hold one");
            Err(Failure::new(Exit::Usage, what, why, "unset it, or give it the password"))
        }
        given => Ok(given.ok()),
    }
}

/// Finds the servers before the clock runs.
fn discover(args: &BenchArgs, password: Option<&str>) -> Result<Arc<Routes>, Failure> {
    let runtime = runtime()?;
    if !args.cluster {
        for address in &args.at {
            runtime.block_on(greet(address, password))?;
        }
        return Ok(Arc::new(Routes::fixed(args.at.clone())));
    }
    let first = &args.at[0];
    let mut connection = runtime.block_on(greet(first, password))?;
    let found = runtime.block_on(route::ask(&mut connection, first));
    found.map(Arc::new).map_err(|why| {
        let remedy =
            "give the cluster port of a node with --at; the gateway port looks like one standalone server";
        Failure::new(Exit::CannotReach, format!("cannot learn the slots from {first}"), why, remedy)
    })
}

/// Connects to a server that answers and obeys. One that does not is told before a load is: a hundred thousand commands that
/// are not allowed are no measurement.
async fn greet(address: &str, password: Option<&str>) -> Result<Connection, Failure> {
    Connection::greet(address, password).await.map_err(|failure| match failure {
        OpenFailure::NotAllowed(why) => {
            let remedy = "give the password with THOLOS_REQUIREPASS or --password-file";
            Failure::new(Exit::NotAllowed, format!("cannot measure {address}"), why, remedy)
        }
        OpenFailure::Unreachable(why) => cannot_connect(why),
    })
}

fn cannot_connect(why: String) -> Failure {
    let remedy = "is the server running, and is this its address? Choose another with --at";
    Failure::new(Exit::CannotReach, "cannot connect all clients", why, remedy)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::NotSo, "cannot start the client", error, "raise the limit of open files")
    })
}

/// Connects all clients, lets them run together, and adds up what they saw.
fn drive(args: &BenchArgs, plan: &Plan, shared: &Arc<Shared>, doing: &str) -> Result<Report, Failure> {
    let threads = args.threads.min(args.connections);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let clients: Vec<u32> = (thread..args.connections).step_by(threads as usize).collect();
            let (plan, shared) = (plan.clone(), shared.clone());
            let (connected, wait) = std::sync::mpsc::channel();
            let (go, start) = std::sync::mpsc::channel();
            let worker = std::thread::spawn(move || load::run(&clients, &plan, &shared, &connected, &start));
            (worker, wait, go)
        })
        .collect();
    for (_, wait, _) in &workers {
        let connected = wait.recv().unwrap_or_else(|_| Err("the client thread stopped".to_owned()));
        connected.map_err(cannot_connect)?;
    }
    let begin = Instant::now();
    shared.begin.set(begin).expect("each run has its own state");
    for (_, _, go) in &workers {
        go.send(()).expect("a thread that said it is connected waits for this");
    }
    let ticking = plan.metronome.clone().map(|ticking| std::thread::spawn(move || ticking.run(begin)));
    let measured_from = begin + shared.warmup;
    let mut progress = Progress::new(doing);
    let mut cpu = None;
    while !workers.iter().all(|(worker, _, _)| worker.is_finished()) {
        let now = Instant::now();
        if now >= measured_from && cpu.is_none() {
            cpu = Some(CpuSample::take(&args.pid)?);
        }
        progress.show(shared, now.duration_since(begin));
        let until_measured = measured_from.saturating_duration_since(now);
        let nap = if until_measured.is_zero() { Duration::from_millis(20) } else { until_measured };
        std::thread::sleep(nap.min(Duration::from_millis(100)));
        if shared.is_over(Instant::now()) {
            break;
        }
    }
    let elapsed = shared.measured(Instant::now());
    let cpu_after = CpuSample::take(&args.pid)?;
    progress.clear();
    let mut report = Report::new(elapsed);
    report.cpu_us = cpu.map(|before| cpu_after.since(&before));
    for (worker, _, _) in workers {
        let seen = worker
            .join()
            .map_err(|_| Failure::new(Exit::NotSo, "the load stopped", "a client thread failed", ""))?;
        report.add(&seen);
    }
    if let (Some(metronome), Some(ticking)) = (&plan.metronome, ticking) {
        metronome.stop(ticking.thread());
        // If it failed, the report shows it.
        let _ended = ticking.join();
    }
    if let Work::Requests(_) | Work::Fill { .. } = shared.work {
        report.elapsed = shared.last_reply().unwrap_or(elapsed);
    }
    Ok(report)
}

/// One line on a terminal that tells how it goes; nothing anywhere else.
struct Progress {
    doing: String,
    shown: Option<(Instant, u64)>,
    enabled: bool,
}

impl Progress {
    fn new(doing: &str) -> Self {
        Self { doing: doing.to_owned(), shown: None, enabled: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, shared: &Shared, elapsed: Duration) {
        let now = Instant::now();
        let done = shared.progress.load(Ordering::Relaxed);
        let Some((then, before)) = self.shown else {
            self.shown = Some((now, done));
            return;
        };
        let since = now.duration_since(then);
        if !self.enabled || since < Duration::from_millis(500) {
            return;
        }
        let rate = (done - before) as f64 / since.as_secs_f64();
        let phase = if elapsed < shared.warmup { "warming up" } else { &self.doing };
        err!("\r{phase} {:.0} s, {done} commands, {rate:.0}/s      ", elapsed.as_secs_f64());
        self.shown = Some((now, done));
    }

    fn clear(&self) {
        if self.enabled {
            err!("\r{:60}\r", "");
        }
    }
}

fn settings(args: &BenchArgs) -> serde_json::Value {
    serde_json::json!({
        "at": args.at, "cluster": args.cluster, "connections": args.connections, "pipeline": args.pipeline,
        "keys": args.keys, "value_bytes": args.value_bytes, "mix": args.mix.to_string(),
        "seconds": if args.requests.is_none() { Some(args.seconds) } else { None },
        "requests": args.requests, "warmup": args.warmup, "fill": args.fill, "seed": args.seed,
        "threads": args.threads, "rate": args.rate,
    })
}
