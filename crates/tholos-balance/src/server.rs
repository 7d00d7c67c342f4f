//! What a balancer knows of one server, in a fixed amount of memory.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use crate::cell::{Float, Time, nanos};
use crate::load::{LoadReport, micros};
use crate::options::Options;

/// Own requests whose times of sending are remembered: those that a report cannot have counted yet.
const SENT_MAX: usize = 4;
/// How far the average gap between reports follows the last one.
const GAP_STEP: f64 = 0.1;
/// A server that fails or has just come counts as so much slower at most.
const SLOW_START_LEAST: f64 = 0.1;
/// Reports count as old when they come so many times of service apart: meanwhile others have sent so much that who was free is
/// no longer, and all who heard the same have gone there together.
const OLD_SERVICES: f64 = 12.0;
/// Doublings of the time for which a server is left out.
const DOUBLINGS_MAX: u32 = 6;

/// One server. Times are nanoseconds of the caller's clock, costs microseconds.
///
/// A choice looks at every candidate, so what it reads of one comes first and fits into a line of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Server {
    pub(crate) weight: AtomicU32,
    left_out: AtomicU32,
    /// The load last reported: what waits or is served, and what each of these adds to the time of a new one (service over
    /// workers: divisions are for reports, which come less often than choices).
    in_system: Float,
    workers: Float,
    per_request: Float,
    /// By how much reports come too seldom to follow the least: requests served between two of them, less so many times those
    /// that may be, times its capacity.
    stale: Float,
    /// When the slow start is over, in nanoseconds.
    warm_at: AtomicU64,
    /// Own requests since the report, which it does not count.
    unseen: AtomicU32,
    service: Float,
    capacity: Float,
    /// When it reported, and a moving average of the time between reports.
    reported_at: Time,
    gap: Float,
    sent_at: [AtomicU64; SENT_MAX],
    sent: AtomicUsize,
    /// The least time that an answer took: the way there and back, about.
    least: Float,
    /// A moving average of response times, and when it last moved.
    latency: Float,
    latency_at: Time,
    failures: AtomicU32,
    left_out_until: AtomicU64,
    probed: AtomicBool,
    /// How many servers of the balancer failed too often.
    suspects: Arc<AtomicU32>,
    options: Options,
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_suspect() {
            self.suspects.fetch_sub(1, Relaxed);
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer, also one that refuses for good reason.
    Answered,
    /// With an error of the server, a broken connection or no answer in time.
    Failed,
}

/// Load as a balancer sees it when it chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Requests at the server, own ones that it has not counted included.
    pub(crate) queue: f64,
    pub(crate) workers: f64,
    /// Microseconds.
    pub(crate) service: f64,
    /// Requests that it can serve in a microsecond.
    pub(crate) capacity: f64,
    /// How old such a report is when the next one comes: as a rule, or this one by now if that is more. Microseconds.
    pub(crate) age: f64,
}

impl Server {
    pub(crate) fn new(weight: u32, now: Duration, options: &Options, suspects: Arc<AtomicU32>) -> Server {
        Server {
            weight: AtomicU32::new(weight),
            reported_at: Time::never(),
            gap: Float::default(),
            in_system: Float::default(),
            workers: Float::new(1.0),
            service: Float::default(),
            per_request: Float::default(),
            capacity: Float::default(),
            stale: Float::default(),
            unseen: AtomicU32::new(0),
            sent_at: [const { AtomicU64::new(0) }; SENT_MAX],
            sent: AtomicUsize::new(0),
            least: Float::new(f64::MAX),
            latency: Float::default(),
            latency_at: Time::never(),
            failures: AtomicU32::new(0),
            left_out: AtomicU32::new(0),
            left_out_until: AtomicU64::new(0),
            probed: AtomicBool::new(false),
            suspects,
            warm_at: AtomicU64::new(nanos(now.saturating_add(options.slow_start))),
            options: *options,
        }
    }

    /// A request goes there; `now` in nanoseconds, here and below: durations take longer to be calculated with than all else
    /// that is done for an answer.
    pub(crate) fn note_sent(&self, now: u64) {
        // These may lose one of two that come at once, and are right again with the next report.
        self.unseen.store(self.unseen.load(Relaxed).saturating_add(1), Relaxed);
        let sent = self.sent.load(Relaxed);
        self.sent.store(sent.wrapping_add(1), Relaxed);
        self.sent_at[sent % SENT_MAX].store(now, Relaxed);
    }

    /// A request was given up: nothing is learned of it.
    pub(crate) fn note_cancelled(&self) {
        self.unseen.store(self.unseen.load(Relaxed).saturating_sub(1), Relaxed);
        self.probed.store(false, Relaxed);
    }

    /// A request of `sent_at` ended.
    pub(crate) fn note_ended(&self, sent_at: u64, now: u64, outcome: Outcome) {
        let options = &self.options;
        self.probed.store(false, Relaxed);
        let took = micros_between(sent_at, now);
        match outcome {
            Outcome::Answered => {
                self.least.set(self.least.get().min(took));
                self.note_latency(took, now, options);
                self.failures.store(0, Relaxed);
                if self.left_out.load(Relaxed) > 0 && self.left_out.swap(0, Relaxed) > 0 {
                    self.suspects.fetch_sub(1, Relaxed);
                    self.warm_at.store(now.saturating_add(nanos(options.slow_start)), Relaxed);
                }
            }
            Outcome::Failed => {
                // However fast it failed: a server that refuses at once must not look like the fastest.
                let slow = took.max(micros(options.failure_takes)).max(2.0 * self.latency.get());
                self.note_latency(slow, now, options);
                let failures = self.failures.fetch_add(1, Relaxed) + 1;
                if failures >= options.failures_max || self.left_out.load(Relaxed) > 0 {
                    self.leave_out(now, options);
                }
            }
        }
    }

    fn leave_out(&self, now: u64, options: &Options) {
        self.failures.store(0, Relaxed);
        let times = self.left_out.fetch_add(1, Relaxed);
        if times == 0 {
            self.suspects.fetch_add(1, Relaxed);
        }
        let times = times.min(DOUBLINGS_MAX);
        let until = now.saturating_add(nanos(options.left_out_for.saturating_mul(1 << times)));
        self.left_out_until.store(until, Relaxed);
    }

    /// Follows a peak at once and forgets it slowly, as peak-EWMA does (Finagle's `PeakEwma`).
    fn note_latency(&self, took: f64, now: u64, options: &Options) {
        let old = self.latency.get();
        let fresh = match self.latency_at.get() {
            Some(at) if took < old => {
                let since = micros_between(at, now);
                old + (took - old) * since / (since + micros(options.memory))
            }
            _ => took,
        };
        self.latency.set(fresh);
        self.latency_at.set(now);
    }

    /// The server told its load; `in_flight` own requests are under way there.
    pub(crate) fn note_report(&self, report: LoadReport, in_flight: u32, now: u64) {
        if let Some(at) = self.reported_at.get() {
            let since = micros_between(at, now);
            self.gap.set(self.gap.get() + (since - self.gap.get()) * GAP_STEP);
        }
        let (workers, service) = (f64::from(report.workers.max(1)), micros(report.service).max(1e-3));
        self.in_system.set(f64::from(report.in_system));
        self.workers.set(workers);
        self.service.set(service);
        self.per_request.set(service / workers);
        let rate = 1.0 / service;
        self.capacity.set(workers * rate);
        self.stale.set((self.gap.get() * rate - OLD_SERVICES) * workers * rate);
        self.reported_at.set(now);
        // What was sent less than a way there and back ago was not there yet when this was said.
        let way = if self.least.get() < 1e12 { self.least.get() } else { 0.0 };
        let since = now.saturating_sub((way * 1e3) as u64);
        let sent = self.sent.load(Relaxed).min(SENT_MAX);
        let unseen = self.sent_at[..sent].iter().filter(|at| at.load(Relaxed) > since).count() as u32;
        self.unseen.store(unseen.min(in_flight), Relaxed);
    }

    /// Expected time of one more request, in microseconds, by the load it told, if it did. Each request there adds its part
    /// of a service, and each that would have to wait adds that part again as often as `wariness` says.
    pub(crate) fn expected_by_load(&self, wariness: f64) -> Option<f64> {
        let per_request = self.per_request.get();
        if per_request == 0.0 {
            return None;
        }
        let queue = self.in_system.get() + f64::from(self.unseen.load(Relaxed));
        let workers = self.workers.get();
        let waiting = (queue - (workers - 1.0)).max(0.0);
        Some(per_request * (workers + queue + wariness * waiting))
    }

    /// Its capacity in requests a microsecond, times by how much what one worker serves between two reports is more than may be
    /// if the least is to be followed; 0 if it told nothing.
    pub(crate) fn stale(&self) -> f64 {
        self.stale.get()
    }

    /// Its load, if it ever told it.
    pub(crate) fn seen(&self, now: u64) -> Option<Seen> {
        let at = self.reported_at.get()?;
        Some(Seen {
            queue: self.in_system.get() + f64::from(self.unseen.load(Relaxed)),
            workers: self.workers.get(),
            service: self.service.get(),
            capacity: self.capacity.get(),
            age: self.gap.get().max(now.saturating_sub(at) as f64 / 1e3),
        })
    }

    /// Expected time of one more request by what earlier ones took, for a server that reports no load. A server of
    /// which nothing is known costs next to nothing: somebody must try.
    pub(crate) fn expected_by_latency(&self, in_flight: u32) -> f64 {
        self.latency.get().max(1.0) * (f64::from(in_flight) + 1.0)
    }

    /// The part of its share that a new server gets, and one that is back.
    pub(crate) fn warmth(&self, now: u64) -> f64 {
        let left = self.warm_at.load(Relaxed).saturating_sub(now);
        if left == 0 {
            return 1.0;
        }
        (1.0 - left as f64 / nanos(self.options.slow_start) as f64).max(SLOW_START_LEAST)
    }

    pub(crate) fn weight(&self) -> f64 {
        f64::from(self.weight.load(Relaxed))
    }

    /// Whether it failed too often, is left out for it or wants to be tried again.
    pub(crate) fn is_suspect(&self) -> bool {
        self.left_out.load(Relaxed) > 0
    }

    /// Whether it is left out for its failures.
    pub(crate) fn is_left_out(&self, now: u64) -> bool {
        self.left_out.load(Relaxed) > 0 && now < self.left_out_until.load(Relaxed)
    }

    /// Whether it was left out and may be tried again. One request at a time tries.
    pub(crate) fn wants_probe(&self, now: u64) -> bool {
        self.left_out.load(Relaxed) > 0 && now >= self.left_out_until.load(Relaxed)
    }

    /// Takes the right to try; false if somebody else does.
    pub(crate) fn take_probe(&self) -> bool {
        !self.probed.swap(true, Relaxed)
    }

    pub(crate) fn latency(&self) -> f64 {
        self.latency.get()
    }
}

/// Microseconds from one time in nanoseconds to a later one.
fn micros_between(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 * 1e-3
}
