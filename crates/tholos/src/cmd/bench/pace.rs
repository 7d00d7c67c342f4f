//! When a client of an open loop sends: by a clock, and not once the command before was answered.
//!
//! Latencies count from when a command was due. A client that waits for a slow reply sends late what was due meanwhile,
//! and that lateness is the server's: not to count it is the *coordinated omission* that hides stalls (Gil Tene).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Wakes clients when their turns are due. A thread of its own, since it sleeps more exactly than a runtime's timer, whose
/// steps of a millisecond would make bursts of an even load.
pub(super) struct Metronome {
    /// Time between two turns, of whichever client.
    between: Duration,
    /// By number of the client.
    clients: Vec<Notify>,
    stopped: AtomicBool,
}

/// The turns of one client.
pub(super) struct Pace {
    metronome: Arc<Metronome>,
    number: usize,
    next: Instant,
}

impl Metronome {
    /// For `clients` that send `rate` commands a second between them, in turns of `pipeline` commands, evenly spread.
    pub(super) fn new(clients: u32, rate: f64, pipeline: usize) -> Metronome {
        Metronome {
            between: Duration::from_secs_f64(pipeline as f64 / rate),
            clients: (0..clients).map(|_| Notify::new()).collect(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Wakes one client after the other, from `start` on, until it is stopped.
    pub(super) fn run(&self, start: Instant) {
        let mut next = start;
        for client in self.clients.iter().cycle() {
            loop {
                if self.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                std::thread::park_timeout(left);
            }
            client.notify_one();
            next += self.between;
        }
    }

    /// Ends [`Metronome::run`] in that thread.
    pub(super) fn stop(&self, thread: &Thread) {
        self.stopped.store(true, Ordering::Relaxed);
        thread.unpark();
    }

    fn interval(&self) -> Duration {
        self.between * self.clients.len() as u32
    }
}

impl Pace {
    pub(super) fn new(metronome: Arc<Metronome>, number: u32, start: Instant) -> Pace {
        let next = start + metronome.between * number;
        Pace { metronome, number: number as usize, next }
    }

    /// Waits for the next turn, and answers from when on its commands' latencies count.
    pub(super) async fn turn(&mut self) -> Instant {
        let due = self.next;
        self.next += self.metronome.interval();
        if Instant::now() >= due {
            return due;
        }
        loop {
            // It may be of a turn that came late and was taken without waiting.
            self.metronome.clients[self.number].notified().await;
            let now = Instant::now();
            if now >= due {
                // That the clock was late is no fault of the server.
                return now;
            }
        }
    }

    /// When the next turn is due.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// Turns that were due before `end` and are still to come.
    pub(super) fn owed(&self, end: Instant) -> u64 {
        let late = end.saturating_duration_since(self.next);
        late.as_nanos().div_ceil(self.metronome.interval().as_nanos().max(1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_evenly_spread_and_late_ones_count_from_when_they_were_due() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let metronome = Arc::new(Metronome::new(4, 100.0, 2));
        runtime.block_on(async {
            // All of it is in the past, so nobody waits.
            let start = Instant::now() - Duration::from_secs(10);
            for number in 0..4 {
                let mut pace = Pace::new(metronome.clone(), number, start);
                let first = start + Duration::from_millis(20 * u64::from(number));
                for turn in 0..3 {
                    assert_eq!(pace.turn().await, first + Duration::from_millis(80 * turn));
                }
                assert_eq!(pace.owed(first + Duration::from_millis(240)), 0);
                assert_eq!(pace.owed(first + Duration::from_millis(241)), 1);
                assert_eq!(pace.owed(first + Duration::from_millis(400)), 2);
            }
        });
    }

    #[test]
    fn a_turn_to_come_is_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let metronome = Arc::new(Metronome::new(2, 1000.0, 1));
        let start = Instant::now();
        let ticking = metronome.clone();
        let thread = std::thread::spawn(move || ticking.run(start));
        let mut pace = Pace::new(metronome.clone(), 1, start);
        // A wake-up of an earlier turn is none of this one.
        metronome.clients[1].notify_one();
        let due = pace.due();
        assert!(runtime.block_on(pace.turn()) >= due);
        metronome.stop(thread.thread());
        thread.join().unwrap();
    }
}
