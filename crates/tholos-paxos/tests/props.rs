//! Some random schedules (`schedule`), so that `cargo test` has tried them. `cargo xtask schedules` runs many, and shows
//! what a seed does.

use std::sync::Mutex;

use tholos_paxos::Planted;

mod common;
mod schedule;
use common::coverage::Reached;
use schedule::planted::{FAULTS, name_of};
use schedule::{LIVENESS, Settings, run, shrink};

#[test]
fn councils_agree() {
    let mut repaired = 0;
    for seed in 0..250 {
        let report = run(&Settings { seed, ..Settings::default() });
        if let Some(violation) = report.violation {
            panic!("{violation}\nsee: cargo xtask schedules --seed {seed} --verbose");
        }
        repaired += report.coverage.of(Reached::Repaired);
    }
    assert!(repaired > 10, "rot was repaired only {repaired} times");
}

/// The first of so many seeds that catches a fault, and how. Only what is wrong counts, not what is slow.
fn caught(planted: Planted, seeds: u64) -> Option<(Settings, String)> {
    (0..seeds).find_map(|seed| {
        let settings = Settings { seed, planted, ..Settings::default() };
        let violation = run(&settings).violation.filter(|text| !text.starts_with(LIVENESS))?;
        Some((settings, violation))
    })
}

/// Seeds until a fault must have been caught. `FAULT=new-set-only` tries one.
const SEEDS_MAX: u64 = 3_000;

#[test]
fn planted_faults_are_caught() {
    let wanted = std::env::var("FAULT").ok();
    let faults =
        FAULTS.into_iter().filter(|fault| wanted.as_ref().is_none_or(|name| *name == name_of(*fault)));
    // Each processor takes the next one: some take a hundred times as long as others.
    let (left, missed) = (Mutex::new(faults), Mutex::new(Vec::new()));
    let next = || left.lock().expect("no thread panics with it").next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(fault) = next() {
                    match caught(fault, SEEDS_MAX) {
                        Some((settings, _)) => println!("{fault:?} is caught by seed {}", settings.seed),
                        None => missed.lock().expect("no thread panics with it").push(fault),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no thread panics with it");
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}

#[test]
fn a_seed_gives_one_schedule_and_what_is_left_of_it_fails_each_time() {
    let (settings, violation) = caught(Planted::PromiseForgotten, 100).expect("a forgotten promise shows");
    assert_eq!(run(&settings).violation.as_ref(), Some(&violation));
    let shrunk = shrink::shrink(&settings, violation, 2_000);
    let steps = shrunk.settings.steps.as_ref().expect("steps were left out").len();
    assert!(steps < 100, "{steps} steps are left");
    assert_eq!(run(&shrunk.settings).violation, Some(shrunk.violation));
}
