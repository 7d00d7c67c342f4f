//! `tholos serve`: one node of a cluster.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use clap::Args;
use tholos_server::config::{LogFormat, LogLevel, Origin, Resolved};
use tholos_server::{Server, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};
use crate::style;

use super::config::{ConfigFlags, wrong};

/// Run one node of a cluster.
#[derive(Args, Debug)]
#[command(after_help = "\
The cluster is founded when all seeds have answered that they are empty. SIGTERM hands leadership over first.
Every key of `tholos config example` is a flag, a variable (THOLOS_NAME) and a key of the file, also those not listed
here. Secrets come by file or variable: THOLOS_CLUSTER_SECRET, THOLOS_REQUIREPASS.

Examples:
  tholos serve --name n1 --dir /var/lib/tholos
  tholos serve --config /etc/tholos/tholos.toml
  tholos serve --name n1 --dir d --peer 10.0.0.1:7101 --cluster-secret-file secret \\
    --seeds n1=10.0.0.1:7101,n2=10.0.0.2:7101,n3=10.0.0.3:7101
  tholos serve --name n4 --dir d --peer 10.0.0.4:7101 --cluster-secret-file secret --join 10.0.0.1:7101")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    flags: ConfigFlags,
}

pub(crate) fn run(args: &ServeArgs) -> Result<Exit, Failure> {
    let resolved = args.flags.resolve()?;
    let config = &resolved.config;
    config.validate().map_err(wrong)?;
    log_to_stderr(config.log_level, config.log_format);
    let half = std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).max(1));
    let threads = usize::try_from(config.workers).ok().filter(|threads| *threads > 0).unwrap_or(half);
    runtime(Some(threads))?.block_on(serve(&resolved))
}

async fn serve(resolved: &Resolved) -> Result<Exit, Failure> {
    let config = &resolved.config;
    let mut signals = Signals::new()?;
    let server = tokio::select! {
        started = Server::start(config) => started.map_err(|error| does_not_start(&config.name, &error))?,
        exit = signals.next() => return Ok(exit),
    };
    let name = server.name().to_owned();
    tracing::info!(node = %name, gateway = %config.gateway, cluster = %config.cluster, http = %config.http, "serves");
    tell_what_is_not_in_force(resolved, &server);
    let readiness = async {
        let took = server.ready().await;
        tracing::info!(node = %name, "every shard has a leader, {:.1} s after the start", took.as_secs_f64());
        std::future::pending::<()>().await;
    };
    let restarts = tokio::select! {
        () = readiness => false,
        why = server.ended() => {
            let remedy = "its data is kept; mend the cause and start it again";
            return Err(Failure::new(Exit::NotSo, format!("{name} has stopped"), why, remedy));
        }
        () = server.restart_wanted() => true,
        _ = signals.next() => false,
    };
    tracing::info!(node = %name, "hands its leaderships over and stops");
    // A second signal means now.
    let handed_over = tokio::select! {
        handed_over = server.stop() => handed_over,
        exit = signals.next() => return Ok(exit),
    };
    if !handed_over {
        tracing::warn!(node = %name, "stopped before every shard had another leader");
    }
    if restarts {
        return Err(begin_anew(&name));
    }
    Ok(Exit::Ok)
}

/// What is said of the founding counts no more once that has been; who says otherwise must not think that it does.
fn tell_what_is_not_in_force(resolved: &Resolved, server: &Server) {
    let (shards, replicas) = server.shards_and_replicas();
    let given = &resolved.config;
    let both = [
        ("shards", given.shards, u64::from(shards), "that was fixed when it was founded"),
        (
            "replicas",
            given.replicas,
            u64::from(replicas),
            "tholos cluster plan replicas changes that of a cluster that there is",
        ),
    ];
    for (key, said, holds, why) in both {
        let origin = resolved.origin(key);
        if *origin != Origin::Default && said != holds {
            tracing::warn!(node = %server.name(), "{key} = {said} is not in force ({origin}): the cluster has {holds}; {why}");
        }
    }
}

/// Becomes the program that is on the disk now, under the same number and with the same arguments and variables. Returns only
/// why that cannot be.
fn begin_anew(name: &str) -> Failure {
    let remedy = "its data is kept; start it again";
    let failed =
        |why: std::io::Error| Failure::new(Exit::NotSo, format!("{name} does not restart"), why, remedy);
    let program = match std::env::current_exe() {
        Ok(program) => program_on_disk(program),
        Err(error) => return failed(error),
    };
    tracing::info!(node = %name, program = %program.display(), "begins anew");
    failed(std::process::Command::new(program).args(std::env::args_os().skip(1)).exec())
}

/// Where a program stands, or the newer one that has taken its place: of one that was replaced, Linux says that it is deleted.
fn program_on_disk(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) if !program.exists() => PathBuf::from(path),
        _ => program,
    }
}

/// The exit code tells a script whether to change the command line or the world.
pub(crate) fn does_not_start(what: &str, error: &StartError) -> Failure {
    let exit = if matches!(error, StartError::Settings(_)) { Exit::Usage } else { Exit::NotSo };
    Failure::new(exit, format!("{what} does not start"), error, "")
}

/// Log lines go to stderr: stdout is for results.
pub(crate) fn log_to_stderr(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let colour = style::wants_colour(std::io::stderr().is_terminal());
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(colour);
    // A line that cannot be written is lost. Told on stderr, where it could not be written, it would be a panic.
    let log = log.log_internal_errors(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

/// The runtime of a server, with so many threads; `None` takes one for each processor.
pub(crate) fn runtime(threads: Option<usize>) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(|error| {
        Failure::new(Exit::NotSo, "cannot start", error, "raise the limits of processes and open files")
    })
}

/// SIGINT, SIGTERM and SIGHUP: all mean an orderly stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` if whoever started this program wants it to outlive the terminal.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Must be called within a runtime.
    pub(crate) fn new() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::NotSo, "cannot listen for signals", error, "");
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hang_up: (!ignores_hang_up())
                .then(|| signal(SignalKind::hangup()))
                .transpose()
                .map_err(failed)?,
        })
    }

    /// Waits for one, and says how a command that has not begun its work should exit.
    pub(crate) async fn next(&mut self) -> Exit {
        let hung_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Ok,
            _ = hung_up => Exit::Ok,
        }
    }
}

/// Whether this program was started to ignore SIGHUP, as `nohup` does: a handler of ours would take that back. Where nobody
/// tells, it is taken for so, and the signal does what the system does with it.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_signals(&status).is_none_or(|mask| mask & 1 != 0)
}

/// The mask of ignored signals in what Linux says of a process; the lowest bit is signal 1, SIGHUP.
fn ignored_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored_signals(status), Some(0x1001));
        assert_eq!(ignored_signals("SigCgt:\t0\n"), None);
    }

    #[test]
    fn a_program_that_was_replaced_is_found_where_it_was() {
        let at = |path: &str| program_on_disk(PathBuf::from(path));
        assert_eq!(at("/nowhere/tholos (deleted)"), PathBuf::from("/nowhere/tholos"));
        assert_eq!(at("/nowhere/tholos"), PathBuf::from("/nowhere/tholos"));
        let odd = std::env::temp_dir().join(format!("tholos-{} (deleted)", std::process::id()));
        std::fs::write(&odd, "").expect("a temporary file");
        assert_eq!(program_on_disk(odd.clone()), odd, "it is named so");
        std::fs::remove_file(&odd).expect("it is there");
    }
}
