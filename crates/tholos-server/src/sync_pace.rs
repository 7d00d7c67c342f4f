//! How densely the log syncs under load ([decision 0035](../../../docs/decisions/0035-syncs-are-paced-under-load.md)).

use std::time::Duration;

/// Appends in one batch from which on so many writers are at work that the next batch is worth waiting for.
const CROWD_APPENDS: usize = 16;
/// The distance between the beginnings of two batches, in syncs.
const SYNCS_APART: u32 = 3;
/// The same, at most.
const APART_MAX: Duration = Duration::from_millis(1);
/// Weight of the latest batch in the mean: one in so many.
const MEAN_OF: u32 = 16;

/// How long batches take, and how many appends they hold.
#[derive(Debug, Default)]
pub(crate) struct SyncPace {
    mean: Duration,
    appends: usize,
}

impl SyncPace {
    /// A batch of so many appends was durable after so long.
    pub(crate) fn note(&mut self, appends: usize, took: Duration) {
        self.mean = if self.mean.is_zero() { took } else { self.mean - self.mean / MEAN_OF + took / MEAN_OF };
        self.appends = appends;
    }

    /// How long after the last batch began the next one begins at the soonest. Zero for few writers: each waits for its
    /// own sync, and would only wait longer.
    pub(crate) fn gap(&self) -> Duration {
        if self.appends < CROWD_APPENDS { Duration::ZERO } else { (self.mean * SYNCS_APART).min(APART_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROS: fn(u64) -> Duration = Duration::from_micros;

    #[test]
    fn a_few_writers_never_wait() {
        let mut pace = SyncPace::default();
        assert_eq!(pace.gap(), Duration::ZERO);
        for appends in [1, CROWD_APPENDS - 1] {
            pace.note(appends, MICROS(300));
            assert_eq!(pace.gap(), Duration::ZERO);
        }
    }

    #[test]
    fn many_writers_wait_for_three_syncs_and_for_no_more_than_a_millisecond() {
        let mut pace = SyncPace::default();
        pace.note(64, MICROS(40));
        assert_eq!(pace.gap(), MICROS(120));
        for _ in 0..200 {
            pace.note(64, MICROS(20_000));
        }
        assert_eq!(pace.gap(), APART_MAX);
        pace.note(2, MICROS(20_000));
        assert_eq!(pace.gap(), Duration::ZERO, "the crowd is gone");
    }
}
