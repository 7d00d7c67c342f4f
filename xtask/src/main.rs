//! Project tasks: `cargo xtask <task>`. CI runs these and nothing that a laptop cannot.
//!
//! A task is a list of steps. Each step prints one line before and one after, the task ends with
//! `N passed, M failed`, and the exit code is 0 only if nothing failed: 1 otherwise, 2 for a misused command line.

mod layers;
mod links;
mod metadata;
mod papers;
mod picture;
mod rules;
mod rust_text;
mod steps;
mod tasks;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <task> [arguments]

  test                 all tests of the workspace, then a short simulation; needs only Rust
  verify [--no-tests]  fmt, clippy, layers, tidy, links, rules, documents, tests; changes no file of the project
  fix                  rewrites: rustfmt, and what clippy can mend by itself
  layers               which crate may depend on which
  tidy                 house rules a machine can check
  links                relative links of the documents
  rules                R1 to R32 are told once, what is named to hold them is there, papers.md has each test of a paper
  picture              redraws docs/images/ring.svg from what the ring computes
  golden [--update]    the golden scripts; --update rewrites them
  sim [flags]          the simulator, optimised, with assertions; flags are its own (--seeds N, --seed S)
  schedules [flags]    random fault schedules of the Paxos core; flags are its own (--seeds N, --seed S)
  model [flags]        every interleaving of small councils of the real Paxos core; flags are its own (--config NAME, --minutes N)
  mutants [--seeds N]  each fault planted in the protocol is caught within N seeds (10000) by random schedules or the simulator
  mutants --some N     N of them, each day others
  balance-sim [flags]  policies of load balancing side by side, simulated (--seconds N, --plots DIR)
  torture [flags]      three real processes and their worst days, optimised; Linux and root (--minutes N, --seed S)
  compat [flags]       stock Redis clients against the release binary; needs python3, node and redis-tools
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((task, rest)) = arguments.split_first() else { return usage("which task?") };
    match (task.as_str(), rest) {
        ("test", []) => tasks::test(),
        ("verify", []) => tasks::verify(true),
        ("verify", [flag]) if flag == "--no-tests" => tasks::verify(false),
        ("fix", []) => tasks::fix(),
        ("layers", []) => tasks::layers(),
        ("tidy", []) => tasks::tidy(),
        ("links", []) => tasks::links(),
        ("rules", []) => tasks::rules(),
        ("picture", []) => tasks::picture(),
        ("golden", []) => tasks::golden(false),
        ("golden", [flag]) if flag == "--update" => tasks::golden(true),
        ("sim", flags) => tasks::sim(flags),
        ("schedules", flags) => tasks::schedules(flags),
        ("model", flags) => tasks::model(flags),
        ("mutants", []) => tasks::mutants(tasks::MUTANT_SEEDS),
        ("mutants", [flag, count]) if flag == "--some" => tasks::mutants_by_turns(count),
        ("mutants", [flag, seeds]) if flag == "--seeds" => tasks::mutants(seeds),
        ("balance-sim", flags) => tasks::balance_sim(flags),
        ("torture", flags) => tasks::torture(flags),
        ("compat", flags) => tasks::compat(flags),
        ("help" | "--help" | "-h", _) => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => usage(&format!("cannot run: {}", arguments.join(" "))),
    }
}

fn usage(complaint: &str) -> ExitCode {
    eprintln!("{complaint}\n\n{USAGE}");
    ExitCode::from(2)
}
