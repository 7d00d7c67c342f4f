//! `tholos-model`: explores small councils of the real Paxos core, every interleaving.

use std::panic;
use std::process::ExitCode;
use std::time::Duration;

use tholos_model::configs::{self, Named};
use tholos_model::explore::{Limits, Report, explore};
use tholos_model::planted::{FAULTS, Fault};

const HELP: &str = "\
tholos-model: every interleaving of small councils of the real Paxos core

  --config NAME    explore this council only (default: all, one after the other)
  --minutes N      give a council up after so long (default 15)
  --threads N      search with so many threads (default: the processors)
  --planted NAME   plant a fault in the protocol, and succeed when it is caught
  --mutants        plant each fault in turn, in the council that has it in reach
  --list           print the councils and the faults";

/// Steps after which a search is given up: it remembers the states that it has not gone on from, some hundreds of bytes
/// each.
const STEPS_MAX: usize = 30_000_000;

struct Arguments {
    config: Option<String>,
    time: Duration,
    threads: usize,
    planted: Option<&'static Fault>,
    mutants: bool,
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tholos-model: {error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // An assertion of the core that fails is part of the report.
    panic::set_hook(Box::new(|_| {}));
    let faults: Vec<&Fault> = match arguments.planted {
        Some(fault) => vec![fault],
        None if arguments.mutants => FAULTS.iter().collect(),
        None => return explore_all(&arguments),
    };
    hunt(&faults, &arguments)
}

fn explore_all(arguments: &Arguments) -> ExitCode {
    let limits = Limits { threads: arguments.threads, time: arguments.time, steps: STEPS_MAX };
    let wanted = |named: &Named| arguments.config.as_ref().is_none_or(|name| named.name == name);
    let (mut states, mut failed) = (0, 0);
    for named in configs::all().into_iter().filter(wanted) {
        println!("{}: {}", named.name, named.about);
        let report = explore(&named.council, limits);
        states += report.states;
        println!("{}: {}", named.name, told(&report));
        let Some(violation) = &report.violation else {
            // What was given up early may still have had it to come.
            if report.whole && !report.missed.is_empty() {
                println!("{}: never reached: {}", named.name, report.missed.join(", "));
                failed += 1;
            }
            continue;
        };
        failed += 1;
        // Several threads find it sooner, one finds a shortest way to it.
        let shortest = explore(&named.council, Limits { threads: 1, ..limits });
        print_violation(shortest.violation.as_ref().unwrap_or(violation));
    }
    println!("{states} distinct states");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn told(report: &Report) -> String {
    let Report { states, steps, depth, time, .. } = report;
    let how = match (&report.violation, report.whole) {
        (Some(violation), _) => format!("VIOLATION of {}", violation.invariant),
        (None, true) => "all explored, no violation".to_string(),
        (None, false) => "no violation so far, given up".to_string(),
    };
    let seconds = time.as_secs_f64();
    format!("{states} distinct states, {steps} steps, depth {depth}, {seconds:.1} s: {how}")
}

fn print_violation(violation: &tholos_model::explore::Violation) {
    println!("\n{}: {}\n", violation.invariant, violation.seen);
    for line in &violation.trace {
        println!("{line}");
    }
    println!();
}

/// Each fault is caught. One thread, so that the counts are the same every time.
fn hunt(faults: &[&Fault], arguments: &Arguments) -> ExitCode {
    let mut missed = 0;
    for fault in faults {
        let name = arguments.config.as_deref().unwrap_or(fault.config);
        let Some(mut named) = configs::all().into_iter().find(|named| named.name == name) else { continue };
        named.council.options.planted = fault.planted;
        let report = explore(&named.council, Limits { threads: 1, time: arguments.time, steps: STEPS_MAX });
        let Some(violation) = &report.violation else {
            println!("planted {} in {name}: NOT caught, {}", fault.name, told(&report));
            missed += 1;
            continue;
        };
        println!(
            "planted {} in {name}: caught after {} states, by {}, {} steps, {:.1} s",
            fault.name,
            report.states,
            violation.invariant,
            violation.length,
            report.time.as_secs_f64()
        );
        if arguments.planted.is_some() {
            print_violation(violation);
        }
    }
    println!("{} passed, {missed} failed", faults.len() - missed);
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse() -> Result<Option<Arguments>, String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments {
        config: None,
        time: Duration::from_secs(15 * 60),
        threads: processors,
        planted: None,
        mutants: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        match word.as_str() {
            "--config" => {
                let name = value()?;
                let known = configs::all().iter().any(|named| named.name == name);
                known.then_some(()).ok_or(format!("no council is named {name:?}"))?;
                arguments.config = Some(name);
            }
            "--minutes" => arguments.time = Duration::from_secs(60 * number(value()?)?),
            "--threads" => arguments.threads = number(value()?)?.max(1) as usize,
            "--planted" => {
                let name = value()?;
                let fault = FAULTS.iter().find(|fault| fault.name == name);
                arguments.planted = Some(fault.ok_or(format!("no fault is named {name:?}"))?);
            }
            "--mutants" => arguments.mutants = true,
            "--list" => {
                configs::all().iter().for_each(|named| println!("{:<10} {}", named.name, named.about));
                FAULTS.iter().for_each(|fault| println!("planted {} in {}", fault.name, fault.config));
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(Some(arguments))
}
