//! `tholos-sim`: runs seeds of the whole simulated cluster.

use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tholos_sim::faults::FaultCounts;
use tholos_sim::planted;
use tholos_sim::sim::{RUN_END_US, Report, Settings, run};

const HELP: &str = "\
tholos-sim: the whole cluster in one thread from one seed

  --seeds N        run N seeds (default 1)
  --seed S         the first seed (default 1)
  --threads N      run so many at once (default: the processors)
  --planted NAME   plant a fault in the protocol, and succeed when it is caught
  --list-planted   print the faults that can be planted
  --keep-going     do not stop at the first violation
  --verbose        print every event (one seed)";

struct Arguments {
    seeds: u64,
    first: u64,
    threads: usize,
    planted: Option<String>,
    keep_going: bool,
    verbose: bool,
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    operations: u64,
    refused: u64,
    elections: u64,
    installs: u64,
    resumed: u64,
    checkpoints: u64,
    faults: FaultCounts,
    least_operations: Option<u64>,
    failures: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tholos-sim: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // A broken invariant panics; its text is part of the report.
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
    let totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    report(&arguments, &totals, started.elapsed().as_secs_f64())
}

fn work(arguments: &Arguments, next: &AtomicU64, stop: &AtomicBool, totals: &Mutex<Totals>) {
    while !stop.load(Ordering::Relaxed) {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= arguments.seeds {
            return;
        }
        let seed = arguments.first + at;
        let report = run_caught(arguments, seed);
        let mut totals = totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        totals.seeds += 1;
        totals.operations += report.operations;
        totals.refused += report.refused;
        totals.elections += report.elections;
        totals.installs += report.installs;
        totals.resumed += report.resumed;
        totals.checkpoints += report.checkpoints;
        totals.faults.add(&report.faults);
        if let Some(violation) = report.violation {
            totals.failures.push((seed, violation));
            if !arguments.keep_going {
                stop.store(true, Ordering::Relaxed);
            }
        } else {
            let least = totals.least_operations.unwrap_or(u64::MAX);
            totals.least_operations = Some(least.min(report.operations));
        }
        if arguments.seeds == 1 {
            println!("trace {:016x}", report.trace);
        }
    }
}

fn run_caught(arguments: &Arguments, seed: u64) -> Report {
    let planted = arguments.planted.as_deref().and_then(planted::by_name).unwrap_or_default();
    let settings = Settings { seed, planted, verbose: arguments.verbose };
    panic::catch_unwind(|| run(settings)).unwrap_or_else(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| String::from(*text)));
        let violation = Some(format!("an invariant broke: {}", text.unwrap_or_default()));
        Report { violation, ..Report::default() }
    })
}

fn report(arguments: &Arguments, totals: &Totals, seconds: f64) -> ExitCode {
    let hours = totals.seeds as f64 * RUN_END_US as f64 / 3.6e9;
    println!(
        "{} seeds, {hours:.1} simulated hours in {seconds:.1} s ({:.0} x real time), {} operations answered (least {} in a seed), {} refused or in doubt",
        totals.seeds,
        hours * 3600.0 / seconds,
        totals.operations,
        totals.least_operations.unwrap_or(0),
        totals.refused,
    );
    let kinds: Vec<String> = totals.faults.by_kind().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!("faults: {}", kinds.join(", "));
    println!(
        "reached: {} elections, {} snapshots written, {} taken over, {} transfers resumed",
        totals.elections, totals.checkpoints, totals.installs, totals.resumed
    );
    for (seed, violation) in totals.failures.iter().take(5) {
        println!("\nseed {seed}: {violation}");
        println!("again: cargo xtask sim --seed {seed}");
    }
    match &arguments.planted {
        None if totals.failures.is_empty() => ExitCode::SUCCESS,
        None => {
            println!("\n{} of {} seeds violate", totals.failures.len(), totals.seeds);
            ExitCode::FAILURE
        }
        Some(name) if totals.failures.is_empty() => {
            println!("\nplanted {name}: NOT caught in {} seeds", totals.seeds);
            ExitCode::FAILURE
        }
        Some(name) => {
            println!("\nplanted {name}: caught after {} seeds", totals.seeds);
            ExitCode::SUCCESS
        }
    }
}

fn parse() -> Result<Option<Arguments>, String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments {
        seeds: 1,
        first: 1,
        threads: processors,
        planted: None,
        keep_going: false,
        verbose: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().ok_or(format!("{word} wants a number"))?;
            value.parse::<u64>().map_err(|_| format!("{word}: {value:?} is not a number"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--seed" => arguments.first = number()?,
            "--threads" => arguments.threads = number()?.max(1) as usize,
            "--planted" => {
                let name = words.next().ok_or("--planted wants a name")?;
                planted::by_name(&name).ok_or(format!("no fault is named {name:?}"))?;
                arguments.planted = Some(name);
            }
            "--list-planted" => {
                planted::NAMES.iter().for_each(|(name, _)| println!("{name}"));
                return Ok(None);
            }
            "--keep-going" => arguments.keep_going = true,
            "--verbose" => arguments.verbose = true,
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(Some(arguments))
}
