//! What many seeds add up to.

use tholos_sim::coverage::Coverage;
use tholos_sim::report::{Report, Violation};
use tholos_sim::sim::RUN_END_US;

/// From so many seeds on, a kind of fault or a branch that was never reached is a failure.
const SEEDS_THAT_REACH_ALL: u64 = 200;

#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) seeds: u64,
    pub(crate) failures: Vec<(u64, Violation)>,
    operations: u64,
    refused: u64,
    troubles: u64,
    events: u64,
    coverage: Coverage,
    least_operations: Option<u64>,
    least_troubles: Option<u64>,
}

impl Totals {
    pub(crate) fn add(&mut self, seed: u64, report: Report) {
        self.seeds += 1;
        self.operations += report.operations;
        self.refused += report.refused;
        self.troubles += report.troubles;
        self.events += report.events;
        self.coverage.add(&report.coverage);
        match report.violation {
            Some(violation) => self.failures.push((seed, violation)),
            None => {
                let least = |least: Option<u64>, now: u64| Some(least.map_or(now, |least| least.min(now)));
                self.least_operations = least(self.least_operations, report.operations);
                self.least_troubles = least(self.least_troubles, report.troubles);
            }
        }
    }

    pub(crate) fn print(&self, seconds: f64, threads: usize) {
        let simulated = self.seeds as f64 * RUN_END_US as f64 / 1e6;
        println!(
            "{} seeds, {:.1} simulated hours in {seconds:.1} s ({:.0} x real time, {:.0} x for each of {threads} threads), \
             {} operations answered (least {} in a seed), {} refused or in doubt, {} faults planned (least {}); {:.0} \
             operations and {:.0} events in a simulated second",
            self.seeds,
            simulated / 3600.0,
            simulated / seconds,
            simulated / seconds / threads as f64,
            self.operations,
            self.least_operations.unwrap_or(0),
            self.refused,
            self.troubles,
            self.least_troubles.unwrap_or(0),
            self.operations as f64 / simulated,
            self.events as f64 / simulated,
        );
        let list = |faults: bool| {
            let of = self.coverage.each().filter(|(what, _, _)| what.is_fault() == faults);
            of.map(|(_, name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        println!("faults: {}", list(true));
        println!("reached: {}", list(false));
    }

    /// What should have been reached by now and was not.
    pub(crate) fn missing(&self, recovery: bool) -> Vec<&'static str> {
        if self.seeds < SEEDS_THAT_REACH_ALL { Vec::new() } else { self.coverage.missing(recovery) }
    }
}
