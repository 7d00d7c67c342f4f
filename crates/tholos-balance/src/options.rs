//! How a balancer chooses.

use core::time::Duration;

/// By what the next server is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// The least expected time to an answer, of all candidates: by the load that servers report, or, of those that
    /// report none, by a moving average of what they took that follows peaks at once. When what is known of them is old,
    /// shares by capacity instead: see the crate's document.
    #[default]
    PeakEwma,
    /// The fewest own requests under way, by weight.
    LeastRequest,
    /// By chance, in proportion to weights.
    WeightedRandom,
    /// One after the other, whatever their weights.
    RoundRobin,
}

/// Settings of a balancer.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// By what it chooses.
    pub policy: Policy,
    /// A moving average of response times forgets in this time. Only for servers that report no load.
    pub memory: Duration,
    /// For so long a server that is new, or is back, gets less than its share, from a tenth of it on.
    pub slow_start: Duration,
    /// Failures in a row after which a server is left out.
    pub failures_max: u32,
    /// For how long it is left out the first time; doubled each time it fails again, up to 64 times as long.
    pub left_out_for: Duration,
    /// A failure counts as an answer that took at least this long.
    pub failure_takes: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            policy: Policy::PeakEwma,
            memory: Duration::from_secs(10),
            slow_start: Duration::from_secs(10),
            failures_max: 5,
            left_out_for: Duration::from_secs(1),
            failure_takes: Duration::from_secs(1),
        }
    }
}
