//! The clocks, and the task that tells the worker that time passes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tholos_node::{Event, Now};
use tholos_paxos::Millis;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::worker_task::Input;

/// How often the core hears that time has passed.
pub(crate) const TICK_INTERVAL: Duration = Duration::from_millis(10);

/// Reads both clocks.
pub(crate) fn read_now() -> Now {
    Now { mono: monotonic(), wall: wall() }
}

/// Milliseconds of a clock that never jumps and goes on while the machine sleeps.
pub(crate) fn monotonic() -> Millis {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    // The clock counts from the machine's start, so both parts are positive.
    Millis(time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000)
}

/// Unix milliseconds; 0 for a clock set before 1970.
pub(crate) fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Ticks until the worker is gone.
pub(crate) async fn run(control: mpsc::Sender<Input>) {
    let mut interval = tokio::time::interval(TICK_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        // A full queue means that the worker is busy and reads the clock for each batch anyway.
        if let Err(mpsc::error::TrySendError::Closed(_)) = control.try_send(Input::Event(Event::Tick)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_set_and_monotonic_does_not_go_back() {
        let first = read_now();
        let second = read_now();
        assert!(first.mono.0 > 0 && second.mono >= first.mono);
        // 2020-01-01: a machine that believes less has no clock.
        assert!(first.wall.0 > 1_577_836_800_000, "{}", first.wall.0);
    }
}
