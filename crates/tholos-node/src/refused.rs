//! Writes that were refused here: G3, "nothing was written" must be true of every copy of a request, also of one that
//! arrives when there is room again.

use alloc::collections::BTreeMap;

use tholos_paxos::Millis;
use tholos_resp::Value;

/// Refusals of a shard that are remembered one by one.
const REFUSED_MAX: usize = 16_384;
/// Those that no copy can come of any more are looked for this often.
const SWEPT_EVERY: Millis = Millis(1_000);

/// The writes of a shard that were refused on this node, until they may not be applied any more (R18).
#[derive(Debug, Default)]
pub(crate) struct RefusedWrites {
    /// By session and sequence: the shard time from which on no log takes it, and what was said.
    refused: BTreeMap<(u64, u64), (Millis, Value)>,
    /// More were refused than are remembered; the last of them may come again until then.
    forgotten_until: Millis,
    swept_at: Millis,
}

/// What is known of a write that comes.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Before {
    /// No copy of it was refused here.
    New,
    /// One was, with these words.
    Refused(Value),
    /// One may have been.
    Unknown,
}

impl RefusedWrites {
    /// Whether nothing that was refused is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }

    /// `time` is shard time.
    pub(crate) fn before(&mut self, session: u64, sequence: u64, time: impl Fn() -> Millis) -> Before {
        if self.refused.is_empty() {
            return Before::New;
        }
        let time = time();
        self.sweep(time);
        match self.refused.get(&(session, sequence)) {
            Some((_, why)) => Before::Refused(why.clone()),
            None if time < self.forgotten_until => Before::Unknown,
            None => Before::New,
        }
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
        self.sweep(time);
        if self.refused.len() < REFUSED_MAX {
            self.refused.insert((session, sequence), (expires_at, why.clone()));
        } else {
            self.forgotten_until = self.forgotten_until.max(expires_at);
        }
    }

    /// Forgets what no log takes any more; nothing, while something forgotten may come again.
    fn sweep(&mut self, time: Millis) {
        if time.since(self.swept_at) >= SWEPT_EVERY && time >= self.forgotten_until {
            self.swept_at = time;
            self.refused.retain(|_, (until, _)| *until > time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_known_until_no_log_takes_it() {
        let mut refused = RefusedWrites::default();
        let why = Value::error("BUSY");
        let at = |ms| move || Millis(ms);
        assert_eq!(refused.before(1, 1, at(0)), Before::New);
        for sequence in 1..=REFUSED_MAX as u64 {
            refused.note(1, sequence, Millis(5_000), &why, Millis(1_000));
        }
        assert_eq!(refused.before(1, REFUSED_MAX as u64, at(1_000)), Before::Refused(why.clone()));
        assert_eq!(refused.before(2, 1, at(1_000)), Before::New);
        // There is no room for this one: nothing is known of any other until it cannot come again.
        refused.note(2, 1, Millis(9_000), &why, Millis(1_000));
        assert_eq!(refused.before(2, 1, at(8_999)), Before::Unknown);
        assert_eq!(refused.before(3, 1, at(8_999)), Before::Unknown, "asking does not make it longer");
        assert_eq!(refused.before(3, 1, at(9_000)), Before::New);
        assert!(refused.refused.is_empty(), "nothing is kept");
        refused.note(3, 1, Millis(19_000), &why, Millis(10_000));
        assert_eq!(refused.before(3, 1, at(18_999)), Before::Refused(why));
    }
}
