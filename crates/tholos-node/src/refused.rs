//! Writes that were refused here: G3, "nothing was written" must be true of every copy of a request, also of one that
//! arrives when there is room again.

use alloc::collections::BTreeMap;

use tholos_paxos::Millis;
use tholos_resp::Value;

/// Refusals of a shard that are remembered one by one.
const REFUSED_MAX: usize = 16_384;
/// From so many on, those that no copy can come of any more are looked for.
const SWEPT_FROM: usize = 1024;

/// The writes of a shard that were refused on this node, until they may not be applied any more (R18).
#[derive(Debug, Default)]
pub(crate) struct RefusedWrites {
    /// By session and sequence: the shard time from which on no log takes it, and what was said.
    refused: BTreeMap<(u64, u64), (Millis, Value)>,
    /// More were refused than are remembered: all are, until then.
    all: Option<(Millis, Value)>,
    swept_at: Millis,
}

impl RefusedWrites {
    /// What is to be said of a write because a copy of it may have been refused. `time` is shard time.
    pub(crate) fn again(&mut self, session: u64, sequence: u64, time: impl Fn() -> Millis) -> Option<Value> {
        if self.refused.is_empty() {
            return None;
        }
        if let Some((until, why)) = &self.all {
            if time() < *until {
                return Some(why.clone());
            }
            self.all = None;
        }
        self.refused.get(&(session, sequence)).map(|(_, why)| why.clone())
    }

    /// A write is refused.
    pub(crate) fn note(
        &mut self,
        session: u64,
        sequence: u64,
        expires_at: Millis,
        why: &Value,
        time: Millis,
    ) {
        if self.refused.len() >= SWEPT_FROM && time > self.swept_at {
            self.swept_at = time;
            self.refused.retain(|_, (until, _)| *until > time);
        }
        if self.refused.len() < REFUSED_MAX {
            self.refused.insert((session, sequence), (expires_at, why.clone()));
        } else {
            let until = self.all.as_ref().map_or(expires_at, |(until, _)| expires_at.max(*until));
            self.all = Some((until, why.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_refused_until_no_log_takes_it() {
        let mut refused = RefusedWrites::default();
        let why = Value::error("BUSY");
        let at = |ms| move || Millis(ms);
        assert_eq!(refused.again(1, 1, at(0)), None);
        for sequence in 1..=REFUSED_MAX as u64 {
            refused.note(1, sequence, Millis(5_000), &why, Millis(1_000));
        }
        assert_eq!(refused.again(1, REFUSED_MAX as u64, at(1_000)).as_ref(), Some(&why));
        assert_eq!(refused.again(2, 1, at(1_000)), None);
        // There is no room for this one: all are refused as long as it may come again.
        refused.note(2, 1, Millis(4_500), &why, Millis(1_000));
        assert_eq!(refused.again(3, 1, at(4_499)).as_ref(), Some(&why));
        assert_eq!(refused.again(3, 1, at(4_500)), None);
        refused.note(3, 1, Millis(9_000), &why, Millis(5_000));
        assert_eq!(refused.again(1, 1, at(5_000)), None, "swept");
        assert_eq!(refused.again(3, 1, at(5_000)).as_ref(), Some(&why));
    }
}
