//! The tholos binary: one command line for the server, its tools and its measurements.

mod cmd;
mod failure;
mod http;
mod out;
mod style;

use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use failure::{Exit, Failure};
use out::errln;

// Most of what a node allocates is freed by another thread than the one that asked for it (a record by the log's, a
// reply by its client's task), which is what the system's malloc is slow at. See docs/decisions/0009.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The Redis you can believe: any Redis client, every acknowledged write on a majority's disks.
#[derive(Parser)]
#[command(
    name = "tholos",
    version,
    after_help = "\
Exit codes: 0 ok · 1 the thing asked is not so · 2 usage · 3 cannot reach · 4 not allowed · 5 timed out, work goes on ·
130 interrupted. Colour only on a terminal, never with NO_COLOR.

Examples:
  tholos dev                     a cluster of three nodes in one process; then: redis-cli SET hello world
  tholos cluster status          how a running cluster is
  tholos bench --seconds 5       measure it
  tholos check --seconds 60      is it linearizable, whatever you do to it meanwhile"
)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    Dev(cmd::dev::DevArgs),
    Serve(cmd::serve::ServeArgs),
    Cluster(cmd::cluster::ClusterArgs),
    Job(cmd::job::JobArgs),
    Config(cmd::config::ConfigArgs),
    Bench(cmd::bench::BenchArgs),
    Check(cmd::check::CheckArgs),
}

/// One form of help everywhere, with a line for each option, so that it fits a screen.
fn compact(command: Command) -> Command {
    let subcommands: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let help = Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print help");
    let command = command.disable_help_flag(true).arg(help);
    subcommands.into_iter().fold(command, |command, name| command.mut_subcommand(name, compact))
}

fn command_line() -> Command {
    compact(Cli::command()).disable_help_subcommand(true)
}

fn main() -> ExitCode {
    let matches = command_line().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let done: Result<Exit, Failure> = match &cli.command {
        Task::Dev(args) => cmd::dev::run(args),
        Task::Serve(args) => cmd::serve::run(args),
        Task::Cluster(args) => cmd::cluster::run(args),
        Task::Job(args) => cmd::job::run(args),
        Task::Config(args) => cmd::config::run(args),
        Task::Bench(args) => cmd::bench::run(args),
        Task::Check(args) => cmd::check::run(args),
    };
    match done {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            errln!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_command(command: &mut Command, path: &str, visit: &mut dyn FnMut(&str, &mut Command)) {
        visit(path, command);
        for sub in command.get_subcommands_mut() {
            let path = format!("{path} {}", sub.get_name());
            every_command(sub, &path, visit);
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        command_line().debug_assert();
    }

    #[test]
    fn every_help_fits_a_screen_and_has_a_purpose_and_an_example() {
        let mut root = command_line();
        root.build();
        every_command(&mut root, "tholos", &mut |path, command| {
            let help = command.render_help().to_string();
            let lines = help.lines().count();
            assert!(lines <= 60, "{path} --help has {lines} lines:\n{help}");
            assert!(command.get_about().is_some(), "{path} has no purpose");
            if command.get_subcommands().next().is_none() {
                assert!(help.contains("Example"), "{path} has no example:\n{help}");
            }
        });
    }

    #[test]
    fn secrets_are_never_flags() {
        let mut root = command_line();
        root.build();
        every_command(&mut root, "tholos", &mut |path, command| {
            for argument in command.get_arguments() {
                let flag = argument.get_long().unwrap_or_default();
                assert!(!matches!(flag, "requirepass" | "cluster-secret" | "password"), "{path} --{flag}");
            }
        });
    }

    #[test]
    fn every_command_with_a_result_can_print_json() {
        let mut root = command_line();
        root.build();
        every_command(&mut root, "tholos", &mut |path, command| {
            let is_leaf = command.get_subcommands().next().is_none();
            let has = |name: &str| command.get_arguments().any(|argument| argument.get_long() == Some(name));
            assert!(!is_leaf || path == "tholos serve" || has("json"), "{path} has no --json");
        });
    }
}
