//! Numbers that threads share without waiting for each other.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// A floating-point number. Two writers at once may lose one of two changes: good enough for averages.
#[derive(Debug, Default)]
pub(crate) struct Float(AtomicU64);

impl Float {
    pub(crate) const fn new(value: f64) -> Float {
        Float(AtomicU64::new(value.to_bits()))
    }

    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }
}

/// A time since the start of the caller's clock, or none. Kept in nanoseconds, which last for 584 years.
#[derive(Debug)]
pub(crate) struct Time(AtomicU64);

impl Time {
    const NEVER: u64 = u64::MAX;

    pub(crate) const fn never() -> Time {
        Time(AtomicU64::new(Time::NEVER))
    }

    /// In nanoseconds.
    pub(crate) fn set(&self, time: u64) {
        self.0.store(time, Relaxed);
    }

    /// Nanoseconds; `None` if it was never set.
    pub(crate) fn get(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|time| *time != Time::NEVER)
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(time.subsec_nanos()))
        .min(Time::NEVER - 1)
}
