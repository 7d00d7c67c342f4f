//! The server of `tholos serve`, over a disk that forgets.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tholos_server::config::{Config, Layers};
use tholos_server::{Server, StartError};
use tholos_wal::FileDisk;
use tokio::signal::unix::{SignalKind, signal};

use crate::control::{self, Faults};
use crate::disk::PowerDisk;

/// Run one node; faults of its disk are told on standard input, whose end is the end of the process.
#[derive(clap::Args, Debug)]
pub(crate) struct ServeArgs {
    /// The configuration file, as `tholos serve` reads it.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Use the file system as `tholos serve` does: then a kill is a kill and no power cut.
    #[arg(long)]
    real_files: bool,
}

pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(), String> {
    let mut layers = Layers::new();
    layers.read_file(&args.config).map_err(|error| error.to_string())?;
    let config = layers.resolve().map_err(|error| error.to_string())?.config;
    config.validate().map_err(|error| error.to_string())?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let faults = Arc::new(Faults::planted()?);
    control::listen(Arc::clone(&faults));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(run_until_stopped(&config, faults, args.real_files))
}

async fn run_until_stopped(config: &Config, faults: Arc<Faults>, real_files: bool) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let server = start(config, faults, real_files).await.map_err(|error| error.to_string())?;
    tokio::select! {
        why = server.ended() => Err(format!("{} has stopped: {why}", config.name)),
        _ = terminate.recv() => {
            server.stop().await;
            Ok(())
        }
    }
}

async fn start(config: &Config, faults: Arc<Faults>, real_files: bool) -> Result<Server, StartError> {
    if real_files {
        return Server::start_on(config, |path: &Path| FileDisk::new(path)).await;
    }
    let seed = u64::from(std::process::id());
    Server::start_on(config, move |path: &Path| PowerDisk::open(path, Arc::clone(&faults), seed)).await
}
