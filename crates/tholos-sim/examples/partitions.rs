//! What partial partitions cost, case by case: how many seeds recover, how soon, and how often leadership moves.
//!
//! `cargo run --profile sim -p tholos-sim --example partitions [-- SEEDS]`

use std::process::ExitCode;

use tholos_sim::partitions::{Case, ELECTION_TIMEOUT_US, run};

/// Seeds of each case, if nothing is said.
const SEEDS: u64 = 1_000;

fn main() -> ExitCode {
    let seeds = std::env::args().nth(1).map_or(Ok(SEEDS), |text| text.parse());
    let Ok(seeds) = seeds else {
        eprintln!("partitions: the number of seeds is wanted, 1 or more");
        return ExitCode::from(2);
    };
    println!("{seeds} seeds of each case; times in election time-outs of {} ms", ELECTION_TIMEOUT_US / 1000);
    println!("{:54} {:>9} {:>6} {:>6} {:>10}", "", "recovered", "median", "max", "changes");
    let mut good = true;
    for case in Case::all() {
        let outcomes: Vec<_> = (1..=seeds).map(|seed| (seed, run(case, seed))).collect();
        let mut times: Vec<u64> = outcomes.iter().filter_map(|(_, outcome)| outcome.recovered_us).collect();
        times.sort_unstable();
        let timeouts = |us: Option<&u64>| us.map_or(f64::NAN, |us| *us as f64 / ELECTION_TIMEOUT_US as f64);
        let changes = outcomes.iter().map(|(_, outcome)| outcome.changes).max().unwrap_or(0);
        let in_time = |us: u64| us <= 4 * ELECTION_TIMEOUT_US;
        let recovered = times.iter().filter(|us| in_time(**us)).count();
        println!(
            "{:54} {:>8.1}% {:6.2} {:6.2} {:>10}",
            case.to_string(),
            100.0 * recovered as f64 / seeds as f64,
            timeouts(times.get(times.len() / 2)),
            timeouts(times.last()),
            changes
        );
        let bad = |outcome: &tholos_sim::partitions::Outcome| {
            outcome.changes > 1 || !outcome.recovered_us.is_some_and(in_time)
        };
        if let Some((seed, outcome)) = outcomes.iter().find(|(_, outcome)| bad(outcome)) {
            let count = outcomes.iter().filter(|(_, outcome)| bad(outcome)).count();
            println!("  {count} seeds are worse than that may be, the first {seed}: {outcome:?}");
            good = false;
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
