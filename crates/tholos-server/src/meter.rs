//! Measures what tells a slow machine: how much longer the worker's rounds take by the clock than on the processor, and
//! how long the log's syncs take; and how long each round took, and the worker waited before it. The core judges.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tholos_node::{LoadSample, Round};

use crate::wal_task::WalCounters;

/// How often the core is told.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// One round in so many is measured: reading a thread's processor time is a call to the system.
const ROUNDS_PER_LOOK: u32 = 4;

/// What was measured since the core was told last.
pub(crate) struct Meter {
    told_at: Instant,
    rounds: u32,
    rounds_took: Duration,
    processor_took: Duration,
    /// Syncs, and the nanoseconds that they took, as they were told last.
    syncs: (u64, u64),
    /// When the last round ended, and what is to be told of it.
    ended_at: Instant,
    round: Option<Round>,
}

/// The clocks as a round began.
pub(crate) struct Look {
    wall: Instant,
    processor: Option<Duration>,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        Meter {
            told_at: Instant::now(),
            rounds: 0,
            rounds_took: Duration::ZERO,
            processor_took: Duration::ZERO,
            syncs: (0, 0),
            ended_at: Instant::now(),
            round: None,
        }
    }

    /// A round begins. It must end on the same thread.
    pub(crate) fn begin(&mut self) -> Look {
        self.rounds = self.rounds.wrapping_add(1);
        let looks = self.rounds.is_multiple_of(ROUNDS_PER_LOOK);
        Look { wall: Instant::now(), processor: looks.then(processor_time) }
    }

    /// It has ended.
    pub(crate) fn end(&mut self, look: &Look) {
        let now = Instant::now();
        let took = now.duration_since(look.wall);
        if let Some(began) = look.processor {
            self.processor_took += processor_time().saturating_sub(began);
            self.rounds_took += took;
        }
        let idle = look.wall.duration_since(self.ended_at);
        self.ended_at = now;
        self.round = Some(Round { took_us: narrow(micros(took)), idle_us: narrow(micros(idle)) });
    }

    /// The round that has ended, once.
    pub(crate) fn take_round(&mut self) -> Option<Round> {
        self.round.take()
    }

    /// What to tell the core, when it is time.
    pub(crate) fn take_due(&mut self, log: &WalCounters) -> Option<LoadSample> {
        let span = self.told_at.elapsed();
        if span < TELL_INTERVAL {
            return None;
        }
        self.told_at = Instant::now();
        let now = (log.batches.load(Ordering::Relaxed), log.batch_nanos.load(Ordering::Relaxed));
        let before = std::mem::replace(&mut self.syncs, now);
        let of_all = |took: Duration| micros(took.saturating_mul(ROUNDS_PER_LOOK));
        Some(LoadSample {
            span_us: micros(span),
            rounds_us: of_all(std::mem::take(&mut self.rounds_took)),
            processor_us: of_all(std::mem::take(&mut self.processor_took)),
            syncs: narrow(now.0.saturating_sub(before.0)),
            syncs_us: now.1.saturating_sub(before.1) / 1000,
        })
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// For how long processors have run this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // It counts from the thread's start, so both parts are positive.
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_takes_longer_than_its_processor() {
        let mut meter = Meter::new();
        let (_, other) = std::sync::mpsc::channel::<()>();
        for _ in 0..ROUNDS_PER_LOOK * 3 {
            let look = meter.begin();
            // Gives the processor up until the time is over.
            let _ = other.recv_timeout(Duration::from_millis(1));
            std::thread::park_timeout(Duration::from_millis(9));
            meter.end(&look);
        }
        let round = meter.take_round().expect("a round has ended");
        assert!(round.took_us >= 9_000 && meter.take_round().is_none(), "{round:?}");
        let log = WalCounters::default();
        log.batches.store(3, Ordering::Relaxed);
        log.batch_nanos.store(7_000_000, Ordering::Relaxed);
        let sample = meter.take_due(&log).expect("more than 100 ms have passed");
        assert!(sample.rounds_us > 2 * sample.processor_us, "{sample:?}");
        // Three of twelve rounds were measured, and stand for all.
        assert!(sample.rounds_us >= 12 * 8_000, "{sample:?}");
        assert_eq!((sample.syncs, sample.syncs_us), (3, 7_000));
        assert_eq!(meter.take_due(&log), None, "it was told just now");
    }
}
