//! What a server says of its load, and how it measures that.

use core::time::Duration;

/// What a server says of itself, with every answer and now and then besides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadReport {
    /// Requests at the server, served or waiting. With an answer: those that are left once it is given.
    pub in_system: u32,
    /// Requests it serves at once: threads, connections to a disk, 1 for a single loop. At least 1.
    pub workers: u32,
    /// What serving one takes, without waiting.
    pub service: Duration,
}

/// Requests after which what was measured of one counts for about a third.
const MEMORY: f64 = 100.0;

/// Measures a server's load: told of each request's arrival and end, it knows the rest.
///
/// The time of service is the time that workers were busy over the requests that ended, both forgotten alike. So it grows
/// while workers are stuck, before the first request that is stuck ends.
#[derive(Clone, Debug)]
pub struct LoadMeter {
    workers: u32,
    in_system: u32,
    /// Microseconds that workers were busy, and requests ended meanwhile.
    busy: f64,
    ended: f64,
    at: Duration,
}

impl LoadMeter {
    /// For a server of so many workers (0 counts as 1), of which nothing is known but that a request takes about
    /// `service`.
    #[must_use]
    pub fn new(workers: u32, service: Duration, now: Duration) -> LoadMeter {
        LoadMeter { workers: workers.max(1), in_system: 0, busy: micros(service), ended: 1.0, at: now }
    }

    /// A request came.
    pub fn arrived(&mut self, now: Duration) {
        self.advance(now);
        self.in_system += 1;
    }

    /// A request ended, well or not. One that never came is not counted.
    pub fn ended(&mut self, now: Duration) {
        self.advance(now);
        self.in_system = self.in_system.saturating_sub(1);
        self.ended += 1.0;
        let kept = 1.0 - 1.0 / MEMORY;
        self.busy *= kept;
        self.ended *= kept;
    }

    /// The load as it is.
    pub fn report(&mut self, now: Duration) -> LoadReport {
        self.advance(now);
        let service = Duration::from_secs_f64((self.busy / self.ended / 1e6).clamp(1e-9, 1e6));
        LoadReport { in_system: self.in_system, workers: self.workers, service }
    }

    fn advance(&mut self, now: Duration) {
        let busy = self.in_system.min(self.workers);
        self.busy += f64::from(busy) * micros(now.saturating_sub(self.at));
        self.at = self.at.max(now);
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    // By halves: a conversion from 128 bits takes longer than the rest of a choice.
    time.as_secs() as f64 * 1e6 + f64::from(time.subsec_nanos()) * 1e-3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn service_is_what_a_worker_takes_and_not_what_a_request_waits() {
        let mut meter = LoadMeter::new(2, at(1), at(0));
        // Four at a time on two workers, each served in 50: half of them wait for 50.
        for round in 0..1000 {
            (0..4).for_each(|_| meter.arrived(at(round * 100)));
            (0..2).for_each(|_| meter.ended(at(round * 100 + 50)));
            assert_eq!(meter.report(at(round * 100 + 50)).in_system, 2);
            (0..2).for_each(|_| meter.ended(at(round * 100 + 100)));
        }
        let report = meter.report(at(100_000));
        assert_eq!((report.in_system, report.workers), (0, 2));
        assert!(report.service.abs_diff(at(50)) < at(1), "{report:?}");
    }

    #[test]
    fn a_stuck_worker_shows_before_anything_ends() {
        let mut meter = LoadMeter::new(1, at(10), at(0));
        for round in 0..1000 {
            meter.arrived(at(round * 10));
            meter.ended(at(round * 10 + 10));
        }
        meter.arrived(at(10_000));
        let before = meter.report(at(10_000)).service;
        assert!(meter.report(at(20_000)).service > 5 * before);
    }

    #[test]
    fn a_clock_that_stands_or_runs_back_does_no_harm() {
        let mut meter = LoadMeter::new(0, Duration::ZERO, at(100));
        meter.ended(at(50));
        meter.arrived(at(40));
        let report = meter.report(at(30));
        assert_eq!((report.in_system, report.workers), (1, 1));
        assert!(report.service > Duration::ZERO);
    }
}
