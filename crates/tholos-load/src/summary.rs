//! Figures of a history: how much came of it, how long clients waited, what was acknowledged and is gone.

use std::collections::BTreeMap;
use std::ops::Range;

use tholos_check::{Kind, Operation, Outcome, Reply};

/// Figures of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Operations with a reply.
    pub succeeded: u64,
    /// Operations whose fate is not known.
    pub unknown: u64,
    /// Operations that certainly did not happen.
    pub failed: u64,
    /// For each client its successes, in nanoseconds of the run.
    successes: Vec<Vec<u64>>,
    /// The same of all clients together.
    all: Vec<u64>,
    stopped: u64,
}

impl Summary {
    /// Adds up the operations of the clients below number `clients`, who were stopped at `stopped`; what others did
    /// counts, and says nothing of pauses.
    #[must_use]
    pub fn new(operations: &[Operation], clients: usize, stopped: u64) -> Self {
        let mut summary = Self {
            succeeded: 0,
            unknown: 0,
            failed: 0,
            successes: vec![Vec::new(); clients],
            all: Vec::new(),
            stopped,
        };
        for operation in operations {
            match (&operation.outcome, operation.returned) {
                (Outcome::Ok(_), Some(returned)) => {
                    summary.succeeded += 1;
                    if let Some(times) = summary.successes.get_mut(operation.client as usize) {
                        times.push(returned);
                        summary.all.push(returned);
                    }
                }
                (Outcome::Failed, _) => summary.failed += 1,
                _ => summary.unknown += 1,
            }
        }
        summary.all.sort_unstable();
        summary
    }

    /// The longest time in `window` in which no client had a reply, in nanoseconds.
    #[must_use]
    pub fn longest_pause(&self, window: Range<u64>) -> u64 {
        longest_gap(&self.all, window)
    }

    /// The longest time in `window` that one client went without a reply, in nanoseconds.
    ///
    /// # Panics
    /// If there is no such client.
    #[must_use]
    pub fn longest_wait(&self, client: usize, window: Range<u64>) -> u64 {
        longest_gap(&self.successes[client], window)
    }

    /// From the start to when the clients had stopped.
    #[must_use]
    pub fn whole(&self) -> Range<u64> {
        0..self.stopped
    }
}

/// The longest part of `window` without one of the sorted `times`.
fn longest_gap(times: &[u64], window: Range<u64>) -> u64 {
    let first = times.partition_point(|&time| time < window.start);
    let last = times.partition_point(|&time| time < window.end).max(first);
    let mut before = window.start;
    let mut longest = 0;
    for &time in times[first..last].iter().chain([&window.end]) {
        longest = longest.max(time.saturating_sub(before));
        before = time;
    }
    longest
}

/// Acknowledged writes, and those that the last read of their key does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Acknowledged `INCRBY` and `APPEND` of keys that nothing else writes and that were read after their last write.
    pub acknowledged: u64,
    /// Those that are gone.
    pub lost: u64,
}

/// Counts what was lost, without a checker: a counter must show at least its acknowledged increments, a log every
/// acknowledged part. Registers are overwritten, so what they lost cannot be counted; the checker judges them.
#[must_use]
pub fn lost_writes(operations: &[Operation]) -> Lost {
    let mut by_key: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        by_key.entry(&operation.key).or_default().push(operation);
    }
    let mut total = Lost::default();
    for operations in by_key.values() {
        if let Some(lost) = lost_of_key(operations) {
            total.acknowledged += lost.acknowledged;
            total.lost += lost.lost;
        }
    }
    total
}

fn lost_of_key(operations: &[&Operation]) -> Option<Lost> {
    let writes = || operations.iter().filter(|operation| operation.kind != Kind::Get);
    let acknowledged = || writes().filter(|operation| matches!(operation.outcome, Outcome::Ok(_)));
    let last_write = acknowledged().filter_map(|operation| operation.returned).max()?;
    let value = operations.iter().find_map(|operation| match &operation.outcome {
        Outcome::Ok(Reply::Value(value)) if operation.kind == Kind::Get && operation.invoked > last_write => {
            Some(value.clone())
        }
        // The whole key is gone.
        Outcome::Ok(Reply::Nil) if operation.kind == Kind::Get && operation.invoked > last_write => {
            Some(Vec::new())
        }
        _ => None,
    })?;
    let count = acknowledged().count() as u64;
    if writes().all(|operation| matches!(operation.kind, Kind::IncrBy(1))) {
        let shown: u64 = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        return Some(Lost { acknowledged: count, lost: count.saturating_sub(shown) });
    }
    let parts: std::collections::BTreeSet<&[u8]> = value.split_inclusive(|&byte| byte == b';').collect();
    let mut lost = 0;
    for operation in acknowledged() {
        let Kind::Append(part) = &operation.kind else { return None };
        lost += u64::from(!parts.contains(&part[..]));
    }
    Some(Lost { acknowledged: count, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(key: &str, at: u64, kind: Kind, reply: Reply) -> Operation {
        Operation {
            client: 0,
            key: key.into(),
            kind,
            invoked: at,
            returned: Some(at + 1),
            outcome: Outcome::Ok(reply),
        }
    }

    fn open(key: &str, at: u64, kind: Kind) -> Operation {
        Operation { returned: None, outcome: Outcome::Unknown, ..done(key, at, kind, Reply::Nil) }
    }

    #[test]
    fn gaps_are_measured_within_their_window() {
        let times = [10, 20, 50, 60];
        assert_eq!(longest_gap(&times, 0..70), 30);
        assert_eq!(longest_gap(&times, 15..25), 5);
        assert_eq!(longest_gap(&times, 30..45), 15, "a gap over the whole window");
        assert_eq!(longest_gap(&times, 55..200), 140, "a gap that has no end yet");
        assert_eq!(longest_gap(&[], 5..9), 4);
    }

    #[test]
    fn what_the_last_read_does_not_show_is_lost() {
        let incr = |at, sum| done("c", at, Kind::IncrBy(1), Reply::Integer(sum));
        let read = |at, value: &str| done("c", at, Kind::Get, Reply::Value(value.into()));
        let lost = |history: &[Operation]| lost_writes(history);
        assert_eq!(lost(&[incr(1, 1), incr(3, 2), read(9, "2")]), Lost { acknowledged: 2, lost: 0 });
        assert_eq!(lost(&[incr(1, 1), incr(3, 2), read(9, "1")]), Lost { acknowledged: 2, lost: 1 });
        // One of unknown fate may have happened, and must not have.
        let unclear = open("c", 4, Kind::IncrBy(1));
        assert_eq!(lost(&[incr(1, 1), unclear.clone(), read(9, "2")]), Lost { acknowledged: 1, lost: 0 });
        assert_eq!(lost(&[incr(1, 1), unclear, read(9, "1")]), Lost { acknowledged: 1, lost: 0 });
        assert_eq!(lost(&[incr(1, 1), read(9, "")]).lost, 1);
        // Never read after the last write: nothing is known.
        assert_eq!(lost(&[incr(10, 1), read(1, "0")]), Lost::default());
    }

    #[test]
    fn a_log_shows_each_part() {
        let append = |at, part: &str| done("l", at, Kind::Append(part.into()), Reply::Integer(1));
        let read = |value: &str| done("l", 99, Kind::Get, Reply::Value(value.into()));
        let history = [append(1, "c1.1;"), append(5, "c2.1;"), read("c1.1;c2.1;")];
        assert_eq!(lost_writes(&history), Lost { acknowledged: 2, lost: 0 });
        let history = [append(1, "c1.1;"), append(5, "c1.11;"), read("c1.11;")];
        assert_eq!(lost_writes(&history), Lost { acknowledged: 2, lost: 1 });
        let gone = done("l", 99, Kind::Get, Reply::Nil);
        assert_eq!(lost_writes(&[append(1, "c1.1;"), gone]).lost, 1);
        // Registers are overwritten, and not counted.
        let set = done("r", 1, Kind::Set("x".into()), Reply::Ok);
        let read = done("r", 9, Kind::Get, Reply::Value("y".into()));
        assert_eq!(lost_writes(&[set, read]), Lost::default());
    }
}
