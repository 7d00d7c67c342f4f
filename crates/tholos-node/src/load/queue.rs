//! How long what comes to this node waits for its worker, measured round by round.
//!
//! The worker takes all that waits, handles it and begins again: a *round*. What comes while one runs waits for its end and
//! then for its own round. So the time that a request spends here follows from how long rounds take and how much of the time
//! they take up, and the number of those that wait from that by Little's law.

use core::time::Duration;

use tholos_balance::LoadReport;

/// What is measured is smoothed over about this time, in microseconds.
const MEMORY_US: f64 = 5000.0;

/// A round of the worker that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Round {
    /// How long it took by the clock, in microseconds.
    pub took_us: u32,
    /// For how long nothing was to be done before it, in microseconds.
    pub idle_us: u32,
}

/// What a node says of its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueReport {
    /// Commands and messages that wait for its worker, or are being handled, on average.
    pub waiting: u32,
    /// What handling one takes, in nanoseconds; 0 if nothing is known.
    pub service_ns: u32,
}

impl QueueReport {
    /// How long one more would wait, in nanoseconds, if `sent` more are on their way.
    pub(crate) fn wait_ns(self, sent: u32) -> u64 {
        (u64::from(self.waiting) + u64::from(sent)) * u64::from(self.service_ns)
    }

    /// The same in the words of `tholos-balance`: the worker is one loop.
    pub(crate) fn to_load(self) -> LoadReport {
        let service = Duration::from_nanos(u64::from(self.service_ns.max(1)));
        LoadReport { in_system: self.waiting, workers: 1, service }
    }
}

/// Measures the queue of this node.
#[derive(Debug, Default)]
pub(crate) struct QueueMeter {
    /// Handed in since the last round ended.
    came: u32,
    /// Of the last few milliseconds, the older the less: microseconds of rounds, of all, what was handled, and rounds.
    busy: f64,
    all: f64,
    handled: f64,
    rounds: f64,
}

impl QueueMeter {
    /// So much was handed in.
    pub(crate) fn came(&mut self, count: usize) {
        self.came = self.came.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// What was handed in since the last round makes up this one.
    pub(crate) fn note(&mut self, round: Round) {
        let (took, idle) = (f64::from(round.took_us), f64::from(round.idle_us));
        let kept = MEMORY_US / (took + idle + MEMORY_US);
        self.busy = self.busy * kept + took;
        self.all = self.all * kept + took + idle;
        self.handled = self.handled * kept + f64::from(core::mem::take(&mut self.came));
        self.rounds = self.rounds * kept + 1.0;
    }

    /// The queue as it is.
    pub(crate) fn report(&self) -> QueueReport {
        if self.busy <= 0.0 || self.handled <= 0.0 {
            return QueueReport::default();
        }
        let busy = self.busy / self.all;
        let time_here = self.busy / self.rounds * (1.0 + busy / 2.0);
        QueueReport {
            waiting: (self.handled / self.all * time_here) as u32,
            service_ns: (self.busy / self.handled * 1000.0 + 0.5).clamp(1.0, 4e9) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds of so many commands each, with their time and the idle time before, in microseconds.
    fn after(rounds: &[(usize, usize, u32, u32)]) -> QueueReport {
        let mut meter = QueueMeter::default();
        for (times, came, took_us, idle_us) in rounds.iter().copied() {
            for _ in 0..times {
                meter.came(came);
                meter.note(Round { took_us, idle_us });
            }
        }
        meter.report()
    }

    #[test]
    fn who_is_idle_most_of_the_time_has_no_queue() {
        assert_eq!(after(&[(1000, 1, 20, 10_000)]), QueueReport { waiting: 0, service_ns: 20_000 });
        assert_eq!(after(&[(1000, 4, 40, 160)]), QueueReport { waiting: 0, service_ns: 10_000 });
    }

    #[test]
    fn who_is_never_idle_has_a_round_and_a_half_of_work() {
        // 100 in each round of a millisecond: one waits half a round for the one that runs, and then for its own.
        let report = after(&[(1000, 100, 1000, 0)]);
        assert!((149..=150).contains(&report.waiting), "{report:?}");
        assert!((9_990..=10_010).contains(&report.service_ns), "{report:?}");
        assert_eq!(report.wait_ns(50) / 1_000_000, 1 + report.wait_ns(0) / 2_000_000 / 2);
    }

    #[test]
    fn a_few_milliseconds_are_remembered() {
        let report = after(&[(1000, 100, 1000, 0), (20, 1, 20, 1000)]);
        assert!(report.waiting < 5, "{report:?}");
        let report = after(&[(1000, 1, 20, 1000), (20, 100, 1000, 0)]);
        assert!(report.waiting > 100, "{report:?}");
    }

    #[test]
    fn nothing_is_known_of_who_did_nothing() {
        assert_eq!(after(&[]), QueueReport::default());
        assert_eq!(after(&[(5, 0, 0, 0)]), QueueReport::default());
    }
}
