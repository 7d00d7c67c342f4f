//! Exactly once (R18): which writes of which session were applied, and their replies.
//!
//! Part of the replicated state: every replica keeps the same table, snapshots carry it. As with keys (R24), a snapshot
//! walks through the table in slices, and a session that changes before the walk is there hands in its old image first.
//!
//! - **X1** A record counts until the first entry at or after its end is applied, and no longer, whenever it is removed: that
//!   is work, and an entry does only so much of it. So what replicas answer does not hang on how much that is, and snapshots
//!   hold records that count and no others.
//! - **X2** The records of a shard take up so much memory and no more ([`NodeConfig::sessions_bytes_max`]): its leader
//!   refuses writes that would open further sessions, before it proposes them. That is no part of the state; what is decided
//!   is recorded wherever the records stand, so they exceed the bound by what one window holds, and by replies of those
//!   who have sent several writes and not been answered, which gateways bound.
//!
//! [`NodeConfig::sessions_bytes_max`]: crate::NodeConfig::sessions_bytes_max

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque, vec_deque};
use alloc::vec::Vec;
use core::ops::Bound;
use core::{iter, option};

use tholos_paxos::Millis;
use tholos_resp::Value;

use crate::operation::WriteHeader;
use crate::work::BATCH_COMMANDS_MAX;

type HashMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// Replies larger than this are not kept: a retry is told that it was applied.
pub(crate) const KEPT_REPLY_BYTES_MAX: usize = 4096;

/// Ends of records that one applied entry sees to, at most: a million that end together do not stand in the way of all other
/// work. More than the commands of a batch, each of which opens one session at most, so a shard that is written to forgets
/// faster than it learns.
const ENDS_MAX: usize = 2 * BATCH_COMMANDS_MAX;
/// Bytes of a record beside its replies, at most: its place in a hash table that has just grown and in the order of ends. With
/// one short reply a record takes 150 to 280 by the allocator's count, and counts as 306 (`a_million_sessions_come_and_go`).
const RECORD_BYTES: usize = 256;
/// Room for records that a table keeps, at least: below it, giving some back is not worth the work.
const KEPT_CAPACITY: usize = 1024;

/// The sessions of one shard. Many shards have none.
#[derive(Debug, Default)]
pub struct Sessions(Option<Box<Table>>);

#[derive(Debug)]
struct Table {
    sessions: HashMap<u64, Session>,
    /// Each session once, by a time not later than its end.
    ends: BTreeSet<(Millis, u64)>,
    /// The first of `ends`: most entries find nothing to expire without a look at the set.
    next_end: Millis,
    /// Shard time of the last entry applied. Records that had ended by then count no more (X1).
    time: Millis,
    /// What the records cost.
    bytes: usize,
    walk: Option<Box<Walk>>,
}

impl Default for Table {
    fn default() -> Table {
        let (sessions, ends) = (HashMap::default(), BTreeSet::new());
        Table { sessions, ends, next_end: Millis(u64::MAX), time: Millis(0), bytes: 0, walk: None }
    }
}

/// A snapshot's way through the table, in the order of `ends`.
#[derive(Debug, Default)]
struct Walk {
    /// Records that had ended by then are not handed out (X1).
    begun: Millis,
    /// Where in `ends` the walk is; `None` at its beginning.
    reached: Option<(Millis, u64)>,
    /// Sessions whose image is handed out or waits, beside those that stand before `reached`; and new ones, which have none.
    done: BTreeSet<u64>,
    /// Old images of what has changed meanwhile.
    waiting: VecDeque<(u64, Session)>,
}

impl Walk {
    /// The session as it is now, before its first change or its end.
    fn before_change(&mut self, id: u64, session: &Session) {
        // It may have been handed out before, as it is now: two equal images do no harm.
        if self.done.insert(id) && session.ends > self.begun {
            self.waiting.push_back((id, session.clone()));
        }
    }

    /// A session's place in `ends` becomes a later one.
    fn before_move(&mut self, from: (Millis, u64)) {
        if self.reached.is_some_and(|reached| from <= reached) {
            self.done.insert(from.1);
        }
    }
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

    /// Forgets the replies up to `acknowledged`. Returns what they cost.
    pub fn forget(&mut self, acknowledged: u64) -> usize {
        let mut bytes = 0;
        while let Some(reply) = self.older.pop_front_if(|(sequence, _)| *sequence <= acknowledged) {
            bytes += cost_of_reply(&reply);
        }
        bytes
            + self.newest.take_if(|(sequence, _)| *sequence <= acknowledged).as_ref().map_or(0, cost_of_reply)
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

impl Session {
    /// Bytes of memory, about.
    fn cost(&self) -> usize {
        RECORD_BYTES + self.replies.iter().map(cost_of_reply).sum::<usize>()
    }
}

/// Bytes of memory that a kept reply holds, about.
fn cost_of_reply(reply: &KeptReply) -> usize {
    size_of::<KeptReply>() + reply.1.as_ref().map_or(0, |reply| weigh(reply, size_of::<Value>()))
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
    /// A session whose record counts (X1).
    fn get(&self, id: u64) -> Option<&Session> {
        let table = self.0.as_ref()?;
        table.sessions.get(&id).filter(|session| session.ends > table.time)
    }

    /// Judges a write by the session's record at shard time `time`.
    pub fn judge(&self, header: &WriteHeader, time: Millis) -> Verdict {
        if time >= header.expires_at {
            return Verdict::Expired;
        }
        let Some(session) = self.get(header.session) else {
            return if header.sequence == 1 { Verdict::Apply } else { Verdict::Gap { expected: 1 } };
        };
        if header.sequence > session.last {
            let expected = session.last + 1;
            return if header.sequence == expected { Verdict::Apply } else { Verdict::Gap { expected } };
        }
        let kept = session.replies.iter().find(|(sequence, _)| *sequence == header.sequence);
        Verdict::Repeat(kept.and_then(|(_, reply)| reply.clone()))
    }

    /// Reads the memory of a session's record. The number means nothing.
    pub(crate) fn prefetch(&self, id: u64) -> u64 {
        self.get(id).map_or(0, |session| session.last)
    }

    /// For a planted fault only: the reply of a session's last write, if that is kept.
    pub(crate) fn newest_reply(&self, session: u64) -> Option<Value> {
        self.get(session)?.replies.newest.as_ref()?.1.clone()
    }

    /// Whether a session's write was applied.
    pub fn has_applied(&self, session: u64, sequence: u64) -> bool {
        self.get(session).is_some_and(|known| sequence <= known.last)
    }

    /// Remembers that a write was applied, with its reply.
    pub fn record(&mut self, header: &WriteHeader, reply: &Value) {
        let table = self.0.get_or_insert_default();
        if let Some(walk) = &mut table.walk {
            match table.sessions.get(&header.session) {
                Some(session) => walk.before_change(header.session, session),
                None => drop(walk.done.insert(header.session)),
            }
        }
        let session = table.sessions.entry(header.session).or_insert_with(|| {
            table.ends.insert((header.expires_at, header.session));
            table.next_end = table.next_end.min(header.expires_at);
            table.bytes += RECORD_BYTES;
            Session { ends: header.expires_at, ..Session::default() }
        });
        // Of a record that counts no more nothing is kept (X1).
        let forgotten = if header.sequence == 1 { u64::MAX } else { header.acknowledged };
        table.bytes -= session.replies.forget(forgotten);
        session.last = header.sequence;
        session.ends = session.ends.max(header.expires_at);
        let small = size_of_reply(reply) <= KEPT_REPLY_BYTES_MAX;
        let kept = (header.sequence, small.then(|| reply.clone()));
        table.bytes += cost_of_reply(&kept);
        session.replies.push_back(kept);
    }

    /// An entry of this shard time is applied: the sessions whose time is over count no more, and are forgotten, as far as
    /// one entry is to do that.
    pub fn expire(&mut self, time: Millis) {
        self.expire_some(time, ENDS_MAX);
    }

    fn expire_some(&mut self, time: Millis, max: usize) {
        let Some(table) = &mut self.0 else { return };
        table.time = time;
        if time >= table.next_end {
            table.expire(max);
            self.shrink();
        }
    }

    /// A shard time not later than the first end of a record, if there is one.
    pub(crate) fn next_end(&self) -> Option<Millis> {
        self.0.as_ref().filter(|table| !table.ends.is_empty()).map(|table| table.next_end)
    }

    /// Gives back the table if there is nothing in it.
    pub(crate) fn shrink(&mut self) {
        self.0.take_if(|table| table.sessions.is_empty() && table.walk.is_none());
    }

    /// How many there are, those not forgotten yet included.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |table| table.sessions.len())
    }

    /// Bytes of memory that they hold, about, and those of a walk under way not counted.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |table| table.bytes)
    }

    /// How many more sessions with one short reply there is room for in so many bytes.
    pub(crate) fn room(&self, bytes_max: usize) -> usize {
        bytes_max.saturating_sub(self.bytes()) / (RECORD_BYTES + size_of::<KeptReply>())
    }

    /// Whether a session has a record that counts.
    pub(crate) fn knows(&self, id: u64) -> bool {
        self.get(id).is_some()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a walk through the table as it is now, instead of one under way.
    pub fn begin_walk(&mut self) {
        let table = self.0.get_or_insert_default();
        table.walk = Some(Box::new(Walk { begun: table.time, ..Walk::default() }));
    }

    /// Up to `max` (at least 1) sessions more of the walk under way, each at least once and as it was at the start, for
    /// the work of `max` of them; `None` when it has ended.
    pub fn next_walked(&mut self, max: usize) -> Option<Vec<(u64, Session)>> {
        let table = self.0.as_mut()?;
        let walk = table.walk.as_mut()?;
        let mut walked = Vec::new();
        for _ in 0..max.max(1) {
            if let Some(old) = walk.waiting.pop_front() {
                walked.push(old);
                continue;
            }
            let after = walk.reached.map_or(Bound::Unbounded, Bound::Excluded);
            let Some(next) = table.ends.range((after, Bound::Unbounded)).next().copied() else {
                if walked.is_empty() {
                    table.walk = None;
                    return None;
                }
                break;
            };
            walk.reached = Some(next);
            if !walk.done.contains(&next.1)
                && let Some(session) = table.sessions.get(&next.1).filter(|session| session.ends > walk.begun)
            {
                walked.push((next.1, session.clone()));
            }
        }
        Some(walked)
    }

    /// Drops the walk under way, if there is one.
    pub fn cancel_walk(&mut self) {
        if let Some(table) = &mut self.0 {
            table.walk = None;
        }
    }

    /// All of them in the order of their ids.
    #[cfg(test)]
    pub(crate) fn export(&self) -> Vec<(u64, &Session)> {
        let sessions = self.0.iter().flat_map(|table| &table.sessions);
        let mut all: Vec<_> = sessions.map(|(id, session)| (*id, session)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Takes one back from a snapshot.
    pub fn import(&mut self, id: u64, session: Session) {
        let table = self.0.get_or_insert_default();
        table.ends.insert((session.ends, id));
        table.next_end = table.next_end.min(session.ends);
        table.bytes += session.cost();
        if let Some(same) = table.sessions.insert(id, session) {
            table.bytes -= same.cost();
        }
    }
}

impl Table {
    /// Sees to up to `max` of the ends that have come.
    fn expire(&mut self, max: usize) {
        for _ in 0..max {
            let Some((end, id)) = self.ends.first().copied().filter(|(end, _)| *end <= self.time) else {
                break;
            };
            self.ends.remove(&(end, id));
            let Some(session) = self.sessions.get(&id) else { continue };
            if session.ends <= self.time {
                if let Some(walk) = &mut self.walk {
                    walk.before_change(id, session);
                }
                self.bytes -= session.cost();
                self.sessions.remove(&id);
            } else {
                if let Some(walk) = &mut self.walk {
                    walk.before_move((end, id));
                }
                self.ends.insert((session.ends, id));
            }
        }
        self.next_end = self.ends.first().map_or(Millis(u64::MAX), |(end, _)| *end);
        if self.sessions.capacity() > KEPT_CAPACITY.max(8 * self.sessions.len()) {
            self.sessions.shrink_to(KEPT_CAPACITY.max(2 * self.sessions.len()));
        }
    }
}

/// Bytes of a reply, about, and never fewer than it has on its way to another node.
pub(crate) fn size_of_reply(reply: &Value) -> usize {
    weigh(reply, 16)
}

/// Bytes of a reply, and so many for each value within another.
fn weigh(reply: &Value, item_bytes: usize) -> usize {
    let weigh = |item: &Value| item_bytes + weigh(item, item_bytes);
    match reply {
        Value::Simple(bytes) | Value::Error(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => {
            bytes.len()
        }
        Value::Verbatim { text, .. } => text.len(),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => items.iter().map(weigh).sum(),
        Value::Map(pairs) => pairs.iter().map(|(key, value)| weigh(key) + weigh(value)).sum(),
        _ => 8,
    }
}

#[cfg(test)]
mod tests;
