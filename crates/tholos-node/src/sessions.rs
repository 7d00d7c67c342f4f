//! Exactly once (R18): which writes of which session were applied, and their replies.
//!
//! Part of the replicated state: every replica keeps the same table, snapshots carry it.

use alloc::collections::{BTreeSet, VecDeque, vec_deque};
use alloc::vec::Vec;
use core::{iter, option};

use tholos_paxos::Millis;
use tholos_resp::Value;

use crate::operation::WriteHeader;

type HashMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// Replies larger than this are not kept: a retry is told that it was applied.
pub(crate) const KEPT_REPLY_BYTES_MAX: usize = 4096;

/// The sessions of one shard.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: HashMap<u64, Session>,
    /// Each session once, by a time not later than its end.
    ends: BTreeSet<(Millis, u64)>,
    /// Nothing in `ends` is before this: most entries find nothing to expire without a look at the set.
    next_end: Millis,
}

/// One session: its last write, and the replies that may still be asked for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Session {
    /// Sequence of the last write applied.
    pub last: u64,
    /// The record lives until here, in shard time.
    pub ends: Millis,
    /// Replies of the writes not acknowledged yet.
    pub replies: KeptReplies,
}

/// A write's sequence and its reply; `None` was too large to keep.
type KeptReply = (u64, Option<Value>);

/// Replies of a session, oldest first. A client that waits for each of its replies has one, and that one lies in the
/// session itself: no memory of its own, no further cache line.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct KeptReplies {
    older: VecDeque<KeptReply>,
    newest: Option<KeptReply>,
}

impl KeptReplies {
    /// Adds the reply of a later write than all before.
    pub fn push_back(&mut self, reply: KeptReply) {
        if let Some(before) = self.newest.replace(reply) {
            self.older.push_back(before);
        }
    }

    /// Forgets the replies up to `acknowledged`.
    pub fn forget(&mut self, acknowledged: u64) {
        while self.older.pop_front_if(|(sequence, _)| *sequence <= acknowledged).is_some() {}
        self.newest.take_if(|(sequence, _)| *sequence <= acknowledged);
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> iter::Chain<vec_deque::Iter<'_, KeptReply>, option::Iter<'_, KeptReply>> {
        self.older.iter().chain(&self.newest)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.older.len() + usize::from(self.newest.is_some())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }
}

impl<'a> IntoIterator for &'a KeptReplies {
    type Item = &'a KeptReply;
    type IntoIter = iter::Chain<vec_deque::Iter<'a, KeptReply>, option::Iter<'a, KeptReply>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What to do with a write.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Apply it, then [`Sessions::record`] its reply.
    Apply,
    /// It was applied before, with this reply; `None` if that was too large to keep.
    Repeat(Option<Value>),
    /// It does not follow the last one: nothing is applied.
    Gap {
        /// The sequence wanted.
        expected: u64,
    },
    /// Its time is over: it is not applied, now or ever.
    Expired,
}

impl Sessions {
    /// Judges a write by the session's record at shard time `time`.
    pub fn judge(&self, header: &WriteHeader, time: Millis) -> Verdict {
        if time >= header.expires_at {
            return Verdict::Expired;
        }
        let Some(session) = self.sessions.get(&header.session) else {
            return if header.sequence == 1 { Verdict::Apply } else { Verdict::Gap { expected: 1 } };
        };
        if header.sequence > session.last {
            let expected = session.last + 1;
            return if header.sequence == expected { Verdict::Apply } else { Verdict::Gap { expected } };
        }
        let kept = session.replies.iter().find(|(sequence, _)| *sequence == header.sequence);
        Verdict::Repeat(kept.and_then(|(_, reply)| reply.clone()))
    }

    /// Remembers that a write was applied, with its reply.
    pub fn record(&mut self, header: &WriteHeader, reply: &Value) {
        let session = self.sessions.entry(header.session).or_insert_with(|| {
            self.ends.insert((header.expires_at, header.session));
            self.next_end = self.next_end.min(header.expires_at);
            Session { ends: header.expires_at, ..Session::default() }
        });
        session.last = header.sequence;
        session.ends = session.ends.max(header.expires_at);
        session.replies.forget(header.acknowledged);
        let small = size_of_reply(reply) <= KEPT_REPLY_BYTES_MAX;
        session.replies.push_back((header.sequence, small.then(|| reply.clone())));
    }

    /// Forgets the sessions whose time is over.
    pub fn expire(&mut self, time: Millis) {
        if time < self.next_end {
            return;
        }
        while let Some((end, id)) = self.ends.first().copied().filter(|(end, _)| *end <= time) {
            self.ends.remove(&(end, id));
            let Some(session) = self.sessions.get(&id) else { continue };
            if session.ends <= time {
                self.sessions.remove(&id);
            } else {
                self.ends.insert((session.ends, id));
            }
        }
        self.next_end = self.ends.first().map_or(Millis(u64::MAX), |(end, _)| *end);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// All of them in the order of their ids, for a snapshot.
    pub fn export(&self) -> Vec<(u64, &Session)> {
        let mut all: Vec<_> = self.sessions.iter().map(|(id, session)| (*id, session)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Takes one back from a snapshot.
    pub fn import(&mut self, id: u64, session: Session) {
        self.ends.insert((session.ends, id));
        self.next_end = self.next_end.min(session.ends);
        self.sessions.insert(id, session);
    }
}

/// Bytes of a reply, about, and never fewer than it has on its way to another node.
pub(crate) fn size_of_reply(reply: &Value) -> usize {
    match reply {
        Value::Simple(bytes) | Value::Error(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => {
            bytes.len()
        }
        Value::Verbatim { text, .. } => text.len(),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            items.iter().map(|item| 16 + size_of_reply(item)).sum()
        }
        Value::Map(pairs) => {
            pairs.iter().map(|(key, value)| 32 + size_of_reply(key) + size_of_reply(value)).sum()
        }
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(sequence: u64, acknowledged: u64, expires_at: u64) -> WriteHeader {
        WriteHeader { session: 7, sequence, acknowledged, expires_at: Millis(expires_at) }
    }

    #[test]
    fn applies_next_repeats_last_refuses_gaps() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.judge(&header(2, 0, 100), Millis(1)), Verdict::Gap { expected: 1 });
        assert_eq!(sessions.judge(&header(1, 0, 100), Millis(1)), Verdict::Apply);
        sessions.record(&header(1, 0, 100), &Value::Integer(5));
        assert_eq!(sessions.judge(&header(1, 0, 100), Millis(1)), Verdict::Repeat(Some(Value::Integer(5))));
        assert_eq!(sessions.judge(&header(3, 1, 100), Millis(1)), Verdict::Gap { expected: 2 });
        sessions.record(&header(2, 1, 100), &Value::Integer(6));
        assert_eq!(sessions.judge(&header(1, 1, 100), Millis(1)), Verdict::Repeat(None));
    }

    #[test]
    fn a_write_past_its_time_is_refused_and_its_record_lives_exactly_that_long() {
        let mut sessions = Sessions::default();
        sessions.record(&header(1, 0, 100), &Value::Null);
        sessions.record(&header(2, 0, 90), &Value::Null);
        sessions.expire(Millis(99));
        assert_eq!(sessions.judge(&header(1, 0, 100), Millis(99)), Verdict::Repeat(Some(Value::Null)));
        assert_eq!(sessions.judge(&header(1, 0, 100), Millis(100)), Verdict::Expired);
        sessions.expire(Millis(100));
        assert!(sessions.is_empty());
    }

    #[test]
    fn replies_are_kept_in_order_until_they_are_acknowledged() {
        let mut replies = KeptReplies::default();
        let sequences = |replies: &KeptReplies| replies.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        for sequence in 1..=4 {
            replies.push_back((sequence, None));
        }
        assert_eq!(sequences(&replies), [1, 2, 3, 4]);
        replies.forget(2);
        assert_eq!((sequences(&replies), replies.len()), (alloc::vec![3, 4], 2));
        replies.forget(3);
        assert_eq!(sequences(&replies), [4]);
        replies.forget(9);
        assert_eq!((sequences(&replies), replies.is_empty()), (Vec::new(), true));
    }

    #[test]
    fn a_large_reply_is_not_kept() {
        let mut sessions = Sessions::default();
        sessions.record(&header(1, 0, 100), &Value::bulk(alloc::vec![0; KEPT_REPLY_BYTES_MAX + 1]));
        assert_eq!(sessions.judge(&header(1, 0, 100), Millis(1)), Verdict::Repeat(None));
    }
}
