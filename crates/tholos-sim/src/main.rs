//! `tholos-sim`: runs seeds of the whole simulated cluster.

mod arguments;
mod totals;

use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tholos_sim::report::{Report, Settings, Violation};
use tholos_sim::shrink::shrink;
use tholos_sim::sim::{planned, run};
use tholos_sim::trail::Line;

use crate::arguments::Arguments;
use crate::totals::Totals;

/// Violations shown of a run of many seeds.
const SHOWN_MAX: usize = 5;
/// Lines shown before a violation.
const LINES_MAX: usize = 80;
/// Runs that shrinking one seed may take: about half a minute.
const SHRINK_RUNS_MAX: u32 = 800;

fn main() -> ExitCode {
    let arguments = match arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tholos-sim: {error}\n\n{}", arguments::HELP);
            return ExitCode::from(2);
        }
    };
    // A broken invariant panics; its text is part of the report.
    panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let threads = arguments.threads.min(arguments.seeds as usize);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&arguments, &next, &stop, &totals));
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.print(started.elapsed().as_secs_f64(), threads);
    totals.failures.sort_by_key(|(seed, _)| *seed);
    judge(&arguments, &totals)
}

fn work(arguments: &Arguments, next: &AtomicU64, stop: &AtomicBool, totals: &Mutex<Totals>) {
    while !stop.load(Ordering::Relaxed) {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= arguments.seeds {
            return;
        }
        let seed = arguments.first + at;
        let report = run(arguments.settings(seed));
        if arguments.seeds == 1 {
            println!("trace {:016x}", report.trace);
            if arguments.verbose {
                report.lines.iter().for_each(print_line);
            }
        }
        if report.violation.is_some() && !arguments.keep_going {
            stop.store(true, Ordering::Relaxed);
        }
        totals.lock().unwrap_or_else(PoisonError::into_inner).add(seed, report);
    }
}

/// Says what failed, and whether the whole passed.
fn judge(arguments: &Arguments, totals: &Totals) -> ExitCode {
    if arguments.planted.is_some() && !arguments.shrink {
        return judge_planted(arguments, totals);
    }
    for (seed, violation) in totals.failures.iter().take(SHOWN_MAX) {
        println!("\nseed {seed}: {violation}");
        println!("again: cargo xtask sim {}", arguments.settings(*seed).flags());
    }
    if let Some((seed, violation)) = totals.failures.first() {
        if arguments.shrink {
            print_shrunk(arguments.settings(*seed), violation);
        }
        println!("\n{} of {} seeds violate", totals.failures.len(), totals.seeds);
        return ExitCode::FAILURE;
    }
    let missing = totals.missing(arguments.recovery);
    if !missing.is_empty() {
        println!("\nnever reached in {} seeds: {}", totals.seeds, missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn judge_planted(arguments: &Arguments, totals: &Totals) -> ExitCode {
    let name = arguments.planted.as_deref().unwrap_or_default();
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

fn print_shrunk(settings: Settings, violation: &Violation) {
    let shrunk = shrink(settings, violation.clone(), SHRINK_RUNS_MAX);
    let settings = Settings { trail: true, ..shrunk.settings };
    println!("\nshrunk in {} runs to: cargo xtask sim {}", shrunk.runs, settings.flags());
    let troubles = planned(&settings);
    println!("faults left:");
    for (number, trouble) in troubles.iter().enumerate().filter(|(number, _)| settings.narrow.keeps(*number))
    {
        for (at, fault) in trouble.iter().filter(|(at, _)| *at <= shrunk.violation.at) {
            println!("  {number:>2} {:>12.3} ms {fault}", *at as f64 / 1e3);
        }
    }
    let Report { violation, lines, .. } = run(settings);
    let violation = violation.unwrap_or(shrunk.violation);
    let about = |line: &&Line| {
        line.at <= violation.at
            && (line.shard.is_none() || violation.shard.is_none_or(|s| line.shard == Some(s)))
    };
    let lines: Vec<&Line> = lines.iter().filter(about).collect();
    println!("what happened before, the last {LINES_MAX} lines at most:");
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().for_each(|line| print_line(line));
    println!("{violation}");
}

fn print_line(line: &Line) {
    println!("{:>14.3} ms {}", line.at as f64 / 1e3, line.text);
}
