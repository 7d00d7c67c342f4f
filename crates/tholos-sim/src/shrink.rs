//! Makes a failing seed small: fewer faults, fewer clients and commands, a shorter run.
//!
//! Leaving anything out moves all that chance decides afterwards, so what is left often fails only with other chances: each
//! smaller run is tried with several (`Narrow::salt`). Any violation counts; it need not be the first one's text.

use crate::report::{Narrow, Report, Settings, Violation};
use crate::sim::{CLIENTS, RUN_END_US, planned, run};

/// Other chances that a smaller run is tried with.
const SALTS: u64 = 6;

/// A failing run made small.
#[derive(Debug)]
pub struct Shrunk {
    /// The run: it fails each time.
    pub settings: Settings,
    /// How.
    pub violation: Violation,
    /// Runs that were tried.
    pub runs: u32,
}

struct Shrinker {
    settings: Settings,
    violation: Violation,
    runs: u32,
    runs_max: u32,
}

/// Shrinks a run that fails with `violation`, in at most so many runs.
pub fn shrink(settings: Settings, violation: Violation, runs_max: u32) -> Shrunk {
    let mut shrinker = Shrinker { settings, violation, runs: 0, runs_max };
    shrinker.cut_short();
    shrinker.drop_troubles();
    shrinker.drop_clients();
    shrinker.drop_commands();
    // Fewer commands may make faults superfluous that were not.
    shrinker.drop_troubles();
    let Shrinker { settings, violation, runs, .. } = shrinker;
    Shrunk { settings, violation, runs }
}

impl Shrinker {
    /// Runs a smaller one with several chances and takes over the first that fails.
    fn attempt(&mut self, narrow: &Narrow) -> bool {
        let salts = (0..SALTS).map(|step| narrow.salt + step);
        for salt in salts {
            if self.runs >= self.runs_max {
                return false;
            }
            self.runs += 1;
            let narrow = Narrow { salt, ..narrow.clone() };
            let settings = Settings { narrow, trail: false, ..self.settings.clone() };
            if let Report { violation: Some(violation), .. } = run(settings.clone()) {
                self.settings = settings;
                self.violation = violation;
                self.cut_short();
                return true;
            }
        }
        false
    }

    /// Nothing that comes after the violation matters.
    fn cut_short(&mut self) {
        let end_us = Some(self.violation.at + 1);
        let narrow = Narrow { end_us, ..self.settings.narrow.clone() };
        let settings = Settings { narrow, ..self.settings.clone() };
        // What shows only at the end of a run may need the rest of it.
        if self.violation.at < RUN_END_US && run(settings.clone()).violation.is_some() {
            self.settings = settings;
        }
        self.runs += 1;
    }

    fn kept(&self) -> Vec<usize> {
        let all = || (0..planned(&self.settings).len()).collect();
        self.settings.narrow.troubles.clone().unwrap_or_else(all)
    }

    /// Delta debugging (Zeller and Hildebrandt, 2002), in halves, quarters and so on.
    fn drop_troubles(&mut self) {
        let mut piece = self.kept().len().div_ceil(2).max(1);
        loop {
            let mut from = 0;
            let mut dropped = false;
            while from < self.kept().len() {
                let mut fewer = self.kept();
                fewer.drain(from..(from + piece).min(fewer.len()));
                let narrow = Narrow { troubles: Some(fewer), ..self.settings.narrow.clone() };
                if self.attempt(&narrow) {
                    dropped = true;
                } else {
                    from += piece;
                }
            }
            if piece == 1 && !dropped {
                return;
            }
            piece = (piece / 2).max(1);
            if self.runs >= self.runs_max {
                return;
            }
        }
    }

    fn drop_clients(&mut self) {
        for clients in 1..self.settings.narrow.clients.unwrap_or(CLIENTS) {
            let narrow = Narrow { clients: Some(clients), ..self.settings.narrow.clone() };
            if self.attempt(&narrow) {
                return;
            }
        }
    }

    fn drop_commands(&mut self) {
        let mut commands = 1;
        while self.settings.narrow.commands.is_none_or(|most| commands < most) && commands < 1_000 {
            let narrow = Narrow { commands: Some(commands), ..self.settings.narrow.clone() };
            if self.attempt(&narrow) {
                return;
            }
            commands *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tholos_paxos::Planted;

    fn settings(seed: u64, planted: Planted, end_us: Option<u64>) -> Settings {
        Settings { seed, planted, narrow: Narrow { end_us, ..Narrow::default() }, ..Settings::default() }
    }

    #[test]
    fn a_seed_gives_one_run_and_another_seed_another() {
        let trace = |seed| run(settings(seed, Planted::Nothing, Some(4_000_000))).trace;
        assert_eq!(trace(1), trace(1));
        assert_ne!(trace(1), trace(2));
    }

    #[test]
    fn what_is_left_is_less_and_fails_each_time() {
        let failing = (1..50).find_map(|seed| {
            let settings = settings(seed, Planted::PromiseForgotten, Some(20_000_000));
            let violation = run(settings.clone()).violation?;
            Some((settings, violation))
        });
        let (settings, violation) = failing.expect("a forgotten promise shows");
        let shrunk = shrink(settings.clone(), violation, 40);
        let kept = shrunk.settings.narrow.troubles.clone().expect("faults were left out");
        assert!(kept.len() < planned(&settings).len(), "{kept:?}");
        let again = run(shrunk.settings).violation.expect("it fails again");
        assert_eq!((again.at, again.text), (shrunk.violation.at, shrunk.violation.text));
    }
}
