//! Random fault schedules of the Paxos core, many of them: `cargo xtask schedules --seeds N --seed S`.

use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/schedule/mod.rs"]
mod schedule;

mod arguments;

use arguments::{Arguments, flags};
use common::coverage::Coverage;
use schedule::shrink::shrink;
use schedule::{LIVENESS, Report, Settings, run};

/// Violations shown of a run of many seeds.
const SHOWN_MAX: usize = 5;
/// Lines shown before a violation.
const LINES_MAX: usize = 120;
/// Schedules that shrinking one may take: some seconds.
const SHRINK_RUNS_MAX: u32 = 5_000;
/// From so many seeds on, a kind of fault or a branch that was never reached is a failure.
const SEEDS_THAT_REACH_ALL: u64 = 5_000;

#[derive(Default)]
struct Totals {
    seeds: u64,
    steps: usize,
    decided: usize,
    coverage: Coverage,
    failures: Vec<(u64, String)>,
}

impl Totals {
    fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.decided += report.decided;
        self.coverage.add(&report.coverage);
        self.failures.extend(report.violation.map(|violation| (seed, violation)));
    }

    fn print(&self, seconds: f64) {
        println!(
            "{} schedules in {seconds:.1} s, {} steps, {} entries decided, {} faults other than to single messages",
            self.seeds,
            self.steps,
            self.decided,
            self.coverage.faults()
        );
        for (title, faults) in [("faults", true), ("reached", false)] {
            let each = self.coverage.each(faults).map(|(name, count)| format!("{name} {count}"));
            println!("{title}: {}", each.collect::<Vec<_>>().join(", "));
        }
    }
}

fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("schedules: {error}\n\n{}", arguments::HELP);
            return ExitCode::from(2);
        }
    };
    // A check that does not hold panics; its text is part of the report.
    panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.min(arguments.seeds as usize) {
            scope.spawn(|| work(&arguments, &next, &stop, &totals));
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.print(started.elapsed().as_secs_f64());
    totals.failures.sort();
    if arguments.planted && !arguments.shrink {
        judge_planted(&arguments, &totals)
    } else {
        judge(&arguments, &totals)
    }
}

fn work(arguments: &Arguments, next: &AtomicU64, stop: &AtomicBool, totals: &Mutex<Totals>) {
    while !stop.load(Ordering::Relaxed) {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= arguments.seeds {
            return;
        }
        let seed = arguments.first + at;
        let mut report = run(&arguments.settings(seed));
        report.lines.iter().for_each(|line| println!("{line}"));
        if arguments.planted && report.violation.as_ref().is_some_and(|text| text.starts_with(LIVENESS)) {
            // Only what is wrong catches a planted fault, not what is slow.
            report.violation = None;
        }
        if report.violation.is_some() && !arguments.keep_going {
            stop.store(true, Ordering::Relaxed);
        }
        totals.lock().unwrap_or_else(PoisonError::into_inner).add(seed, report);
    }
}

/// Says what failed, and whether the whole passed.
fn judge(arguments: &Arguments, totals: &Totals) -> ExitCode {
    for (seed, violation) in totals.failures.iter().take(SHOWN_MAX) {
        println!(
            "\nseed {seed}: {violation}\nagain: cargo xtask schedules {}",
            flags(&arguments.settings(*seed))
        );
    }
    if let Some((seed, violation)) = totals.failures.first() {
        if arguments.shrink {
            print_shrunk(&arguments.settings(*seed), violation);
        }
        println!("\n{} of {} schedules violate", totals.failures.len(), totals.seeds);
        return ExitCode::FAILURE;
    }
    let missing = totals.coverage.missing();
    if totals.seeds >= SEEDS_THAT_REACH_ALL && !missing.is_empty() {
        println!("\nnever reached in {} schedules: {}", totals.seeds, missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn judge_planted(arguments: &Arguments, totals: &Totals) -> ExitCode {
    let name = schedule::planted::name_of(arguments.settings(0).planted);
    match totals.failures.first() {
        None => {
            println!("\nplanted {name}: NOT caught in {} seeds", totals.seeds);
            ExitCode::FAILURE
        }
        Some((seed, violation)) => {
            println!("\nplanted {name}: caught after {} seeds, by seed {seed}: {violation}", totals.seeds);
            ExitCode::SUCCESS
        }
    }
}

fn print_shrunk(settings: &Settings, violation: &str) {
    let shrunk = shrink(settings, violation.to_owned(), SHRINK_RUNS_MAX);
    println!("\nshrunk in {} runs to: cargo xtask schedules {}", shrunk.runs, flags(&shrunk.settings));
    println!("what happens, the last {LINES_MAX} lines at most:");
    let Report { lines, .. } = run(&Settings { trace: true, ..shrunk.settings });
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().for_each(|line| println!("  {line}"));
    println!("{}", shrunk.violation);
}
