//! How many requests may be open, so that none waits for much longer than half a second: overload is met before anything
//! is proposed.
//!
//! By Little's law those that are open wait for as long as it takes to answer as many. So as many may be open as were
//! answered in half a second, at the best rate of the last ten: a shard that waits for a leader lowers nothing. Beyond that
//! a connection that already waits for an answer waits with its next command, which costs no memory beyond what the driver
//! lets it send. One that waits for nothing gets a request; and is refused once two seconds' worth are open.

use alloc::collections::VecDeque;

use tholos_paxos::Millis;

/// Answers are counted in spans of this length.
const SPAN: Millis = Millis(250);
/// So many spans are remembered.
const SPANS: usize = 40;
/// Open requests may take so many of the best span to be answered, before connections wait,
const OPEN_SPANS: u64 = 2;
/// and before they are refused.
const REFUSED_SPANS: u64 = 8;
/// So many may be open at any time, before connections wait,
const OPEN_MIN: u64 = 1024;
/// and before they are refused: more than there are clients by default, each of which may ask at the same moment.
const REFUSED_MIN: u64 = 16_384;

/// What was answered lately.
#[derive(Debug, Default)]
pub(super) struct Admission {
    began: Millis,
    answered: u64,
    spans: VecDeque<u64>,
    best: u64,
}

impl Admission {
    /// A request was answered.
    pub(super) fn answered(&mut self) {
        self.answered += 1;
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Millis) {
        let span = now.since(self.began);
        if span < SPAN {
            return;
        }
        self.began = now;
        if self.spans.len() == SPANS {
            self.spans.pop_front();
        }
        let answered = core::mem::take(&mut self.answered);
        self.spans.push_back(answered * SPAN.0 / span.0.max(1));
        self.best = self.spans.iter().copied().max().unwrap_or(0);
    }

    /// So many requests may be open before connections that have one wait for it.
    pub(super) fn open_max(&self) -> usize {
        self.of_best(OPEN_SPANS, OPEN_MIN)
    }

    /// So many may be open before those that have none are refused.
    pub(super) fn refused_from(&self) -> usize {
        self.of_best(REFUSED_SPANS, REFUSED_MIN)
    }

    fn of_best(&self, spans: u64, least: u64) -> usize {
        let best = self.best.max(self.answered);
        usize::try_from(least.max(best * spans)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After spans in which so many were answered.
    fn after(spans: &[u64]) -> (usize, usize) {
        let mut admission = Admission::default();
        for (at, answered) in (1..).zip(spans) {
            (0..*answered).for_each(|_| admission.answered());
            admission.tick(Millis(at * SPAN.0));
        }
        (admission.open_max(), admission.refused_from())
    }

    #[test]
    fn half_a_second_of_answers_may_be_open() {
        assert_eq!(after(&[]), (1024, 16_384));
        assert_eq!(after(&[100; 10]), (1024, 16_384));
        assert_eq!(after(&[10_000; 10]), (20_000, 80_000));
    }

    #[test]
    fn the_best_of_ten_seconds_counts() {
        let mut spans = [0; 40];
        spans[0] = 10_000;
        assert_eq!(after(&spans).0, 20_000, "a standstill lowers nothing");
        assert_eq!(after(&[&spans[..], &[7_000]].concat()).0, 14_000);
    }

    #[test]
    fn a_rate_that_rises_counts_at_once() {
        let mut admission = Admission::default();
        (0..50_000).for_each(|_| admission.answered());
        assert_eq!(admission.open_max(), 100_000);
        // A span that took longer counts for as much as was answered in a part of it.
        admission.tick(Millis(2_500));
        assert_eq!(admission.open_max(), 10_000);
    }
}
