//! What a load saw, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::failure::{Exit, Failure};

/// Latencies above this are written down as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Different kinds of errors told apart; more count as one.
const ERROR_KINDS_MAX: usize = 32;
/// Clock ticks of /proc/PID/stat in a second: USER_HZ, 100 on every Linux we build for.
const TICKS_PER_SECOND: u64 = 100;

/// What the clients of one thread saw.
pub(super) struct Recorder {
    latencies_us: Histogram<u64>,
    missing: u64,
    errors: BTreeMap<String, u64>,
    /// MOVED replies followed.
    pub(super) redirections: u64,
    /// Commands of an open loop that were due and not sent when it ended.
    pub(super) unsent: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3).expect("the bounds are legal")
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { latencies_us: histogram(), missing: 0, errors: BTreeMap::new(), redirections: 0, unsent: 0 }
    }

    pub(super) fn answered(&mut self, latency: Duration, missing: bool) {
        self.latencies_us.saturating_record((latency.as_micros() as u64).clamp(1, LATENCY_US_MAX));
        self.missing += u64::from(missing);
    }

    pub(super) fn failed(&mut self, why: &str, count: u64) {
        let known = self.errors.len() < ERROR_KINDS_MAX || self.errors.contains_key(why);
        *self.errors.entry(if known { why } else { "other" }.to_owned()).or_default() += count;
    }
}

/// The result of a run.
pub(super) struct Report {
    latencies_us: Histogram<u64>,
    pub(super) operations: u64,
    missing: u64,
    redirections: u64,
    unsent: u64,
    errors: BTreeMap<String, u64>,
    pub(super) elapsed: Duration,
    /// Processor time of the server processes while it was measured, in microseconds.
    pub(super) cpu_us: Option<u64>,
    pub(super) pids: usize,
}

impl Report {
    pub(super) fn new(elapsed: Duration) -> Self {
        let (operations, missing, redirections, unsent, errors) = Default::default();
        let latencies_us = histogram();
        Self {
            latencies_us,
            operations,
            missing,
            redirections,
            unsent,
            errors,
            elapsed,
            cpu_us: None,
            pids: 0,
        }
    }

    pub(super) fn add(&mut self, seen: &Recorder) {
        self.latencies_us.add(&seen.latencies_us).expect("all histograms have the same bounds");
        self.operations = self.latencies_us.len();
        self.missing += seen.missing;
        self.redirections += seen.redirections;
        self.unsent += seen.unsent;
        for (why, count) in &seen.errors {
            *self.errors.entry(why.clone()).or_default() += count;
        }
    }

    fn ops_per_s(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    fn quantile(&self, quantile: f64) -> u64 {
        self.latencies_us.value_at_quantile(quantile)
    }

    fn cpu_us_per_op(&self) -> Option<f64> {
        let cpu_us = self.cpu_us.filter(|_| self.pids > 0 && self.operations > 0)?;
        Some(cpu_us as f64 / self.operations as f64)
    }

    pub(super) fn json(&self, settings: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "ops_per_s": self.ops_per_s().round(),
            "p50_us": self.quantile(0.50), "p99_us": self.quantile(0.99), "p999_us": self.quantile(0.999),
            "max_us": self.latencies_us.max(), "mean_us": self.latencies_us.mean().round(),
            "operations": self.operations, "elapsed_s": self.elapsed.as_secs_f64(),
            "errors": self.errors.values().sum::<u64>(), "errors_by_kind": self.errors,
            "missing": self.missing, "redirections": self.redirections, "unsent": self.unsent,
            "server_cpu_us_per_op": self.cpu_us_per_op(),
            "settings": settings,
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let ms = |us: u64| us as f64 / 1000.0;
        let elapsed = self.elapsed.as_secs_f64();
        let _infallible = writeln!(
            text,
            "{:.0} commands/s  ({} in {elapsed:.2} s)\nlatency  p50 {:.3} ms  p99 {:.3} ms  p99.9 {:.3} ms  max {:.3} ms",
            self.ops_per_s(),
            self.operations,
            ms(self.quantile(0.50)),
            ms(self.quantile(0.99)),
            ms(self.quantile(0.999)),
            ms(self.latencies_us.max()),
        );
        if let Some(cpu) = self.cpu_us_per_op() {
            let _infallible = writeln!(text, "server processor time  {cpu:.1} us per command");
        }
        if self.missing > 0 {
            let _infallible = writeln!(text, "keys not there  {}", self.missing);
        }
        if self.redirections > 0 {
            let _infallible = writeln!(text, "redirections followed  {}", self.redirections);
        }
        if self.unsent > 0 {
            let _infallible = writeln!(text, "due at the end and not sent  {}", self.unsent);
        }
        let errors: u64 = self.errors.values().sum();
        let _infallible = writeln!(text, "errors  {errors}");
        for (why, count) in &self.errors {
            let _infallible = writeln!(text, "  {count} x {why}");
        }
        text
    }
}

/// The processor time some processes have used.
pub(super) struct CpuSample {
    ticks: u64,
}

impl CpuSample {
    /// Reads /proc/PID/stat of each process.
    pub(super) fn take(pids: &[u32]) -> Result<Self, Failure> {
        let mut ticks = 0;
        for pid in pids {
            let path = format!("/proc/{pid}/stat");
            let read = std::fs::read_to_string(&path).map_err(|error| error.to_string());
            ticks += read
                .and_then(|stat| ticks_of(&stat).ok_or_else(|| "its form is unknown".to_owned()))
                .map_err(|why| {
                    let remedy =
                        "--pid takes the id of a process that runs on this machine (Linux) to the end";
                    Failure::new(Exit::Usage, format!("cannot read {path}"), why, remedy)
                })?;
        }
        Ok(Self { ticks })
    }

    /// Microseconds from `before` to this.
    pub(super) fn since(&self, before: &CpuSample) -> u64 {
        (self.ticks - before.ticks) * (1_000_000 / TICKS_PER_SECOND)
    }
}

/// User and system time, the 14th and 15th field; the second may hold blanks and ends with the last parenthesis.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_a_strange_name() {
        let stat = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0";
        assert_eq!(ticks_of(stat), Some(150));
        let before = CpuSample { ticks: 100 };
        assert_eq!(CpuSample { ticks: 150 }.since(&before), 500_000);
    }

    #[test]
    fn a_report_adds_up() {
        let mut one = Recorder::new();
        (1..=1000).for_each(|us| one.answered(Duration::from_micros(us), us % 10 == 0));
        one.failed("CLUSTERDOWN", 2);
        let mut other = Recorder::new();
        other.failed("CLUSTERDOWN", 1);
        (0..100).for_each(|i| other.failed(&format!("kind {i}"), 1));
        let mut report = Report::new(Duration::from_millis(500));
        report.add(&one);
        report.add(&other);
        (report.pids, report.cpu_us) = (1, Some(5000));
        let json = report.json(&serde_json::json!({"seed": 1}));
        assert_eq!((&json["ops_per_s"], &json["p50_us"]), (&2000.0.into(), &500.into()));
        assert_eq!((&json["errors"], &json["missing"]), (&103.into(), &100.into()));
        assert_eq!(json["errors_by_kind"]["CLUSTERDOWN"], 3);
        assert_eq!(json["server_cpu_us_per_op"], 5.0);
        assert!(report.errors.len() <= ERROR_KINDS_MAX + 1);
        assert!(report.text().starts_with("2000 commands/s"), "{}", report.text());
    }
}
