//! Holds what is sent to one replica to so many bytes a second.

use tholos_paxos::Millis;

/// What may go at once after a pause, as time at the rate: two ticks, so that a late one costs nothing.
const BURST: Millis = Millis(20);

/// A bucket that fills with time and is emptied by what is sent; what was sent beyond it is a debt.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; `None` if nothing holds it back.
    rate: Option<u64>,
    /// Bytes that may be sent, and when that was so.
    credit: i64,
    at: Millis,
}

impl Pace {
    pub(super) const fn new(rate: Option<u64>, now: Millis) -> Pace {
        Pace { rate, credit: 0, at: now }
    }

    /// Holds to another rate from now on. What is owed by the old one is paid off at the new one.
    pub(super) fn set_rate(&mut self, rate: Option<u64>, now: Millis) {
        if self.rate != rate {
            self.settle(now);
            self.rate = rate;
        }
    }

    /// Whether something may be sent now.
    pub(super) fn is_open(&self, now: Millis) -> bool {
        self.rate.is_none() || self.credit_at(now).0 >= 0
    }

    /// So many bytes are sent; fewer than 0 take back what was thought to be.
    pub(super) fn take(&mut self, bytes: i64, now: Millis) {
        self.settle(now);
        if self.rate.is_some() {
            self.credit = self.credit.saturating_sub(bytes);
        }
    }

    fn settle(&mut self, now: Millis) {
        (self.credit, self.at) = self.credit_at(now);
    }

    /// The credit, and up to when it is counted.
    fn credit_at(&self, now: Millis) -> (i64, Millis) {
        let Some(rate) = self.rate else { return (0, now) };
        let bytes = |span: Millis| i64::try_from(rate.saturating_mul(span.0) / 1000).unwrap_or(i64::MAX);
        let earned = bytes(now.since(self.at));
        // Time too short for a byte is not lost.
        let at = if earned > 0 { now } else { self.at };
        (self.credit.saturating_add(earned).min(bytes(BURST)), at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes sent in pieces until `end`, looked at each millisecond.
    fn send(pace: &mut Pace, piece: i64, (from, end): (u64, u64)) -> i64 {
        let mut sent = 0;
        for now in (from..end).map(Millis) {
            while pace.is_open(now) {
                pace.take(piece, now);
                sent += piece;
                assert!(sent < 1 << 40, "nothing holds it back");
            }
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_whatever_the_pieces_are() {
        for piece in [1, 1000, 64 << 10, 1 << 20] {
            let mut pace = Pace::new(Some(1_000_000), Millis(500));
            let sent = send(&mut pace, piece, (500, 10_500));
            let most = 10_000_000 + 20_000 + piece;
            assert!(
                sent <= most && sent + 2 * piece + 1000 >= 10_000_000,
                "{sent} bytes in pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_pause_earns_little() {
        let mut pace = Pace::new(Some(1_000_000), Millis(0));
        assert_eq!(send(&mut pace, 1000, (60_000, 60_001)), 21_000);
    }

    #[test]
    fn another_rate_counts_at_once() {
        let mut pace = Pace::new(Some(1_000), Millis(0));
        pace.take(4_000_000, Millis(0));
        pace.set_rate(Some(40_000_000), Millis(10));
        assert!(!pace.is_open(Millis(109)));
        assert!(pace.is_open(Millis(110)), "a debt of an hour is one of 100 ms");
        pace.take(4_000_000, Millis(110));
        pace.set_rate(None, Millis(111));
        assert!(pace.is_open(Millis(111)));
        pace.take(1 << 40, Millis(111));
        pace.set_rate(Some(1_000), Millis(112));
        assert!(pace.is_open(Millis(112)), "what was free is no debt");
    }

    #[test]
    fn what_was_thought_to_be_sent_is_taken_back() {
        let mut pace = Pace::new(Some(1_000), Millis(0));
        pace.take(500, Millis(0));
        pace.take(-500, Millis(0));
        assert!(pace.is_open(Millis(0)));
    }
}
