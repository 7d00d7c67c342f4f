//! What is asked for most: the rates of shards, and hot keys in bounded memory.
//!
//! Keys are counted by Space-Saving (Metwally, Agrawal and El Abbadi 2005, §3): so many counters; a key without one takes
//! over the least, and with it what that has counted, as its possible error. Whatever makes up more than one part in
//! [`KEYS_MAX`] of what was looked at has a counter for certain. One request in [`LOOK_AT_ONE_IN`] is looked at, chosen by
//! chance, so that counting costs next to nothing and a client that goes round in a circle is not seen at one point only.

use alloc::vec::Vec;
use core::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::node::Node;
use crate::operation::{HOW_FAR, peek_key};
use crate::peer::Ask;

type HashMap<K, V> = hashbrown::HashMap<K, V, FixedState>;

/// One request in so many is looked at; a power of two.
const LOOK_AT_ONE_IN: u64 = 16;
/// Keys that have a counter at a time.
const KEYS_MAX: usize = 256;
/// Bytes of a key that are kept; a longer one is shown by its beginning.
const KEY_BYTES_MAX: usize = 128;
/// For so long is counted, and then told until the next span is over.
const SPAN: Millis = Millis(5_000);

/// A key that is asked for often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// Its first 128 bytes.
    pub key: Bytes,
    /// Its shard.
    pub shard: ShardId,
    /// Reads a second, about; not counted are those before it had a counter.
    pub reads_per_second: u64,
    /// Writes a second, likewise.
    pub writes_per_second: u64,
    /// Reads and writes a second that it can have had at most, but for the chance of what was looked at.
    pub most_per_second: u64,
}

/// What a shard was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Reads a second that this replica was asked for, in the last five seconds that were counted to their end.
    pub reads_per_second: u64,
    /// Writes, likewise.
    pub writes_per_second: u64,
}

impl Rates {
    /// Reads and writes together.
    pub fn of_all(self) -> u64 {
        self.reads_per_second + self.writes_per_second
    }
}

/// What a shard was asked for since the span began, and in the one before.
#[derive(PartialEq, Debug, Default)]
pub(crate) struct Asked {
    reads: u64,
    writes: u64,
    pub(crate) rates: Rates,
}

impl Asked {
    pub(crate) fn end_span(&mut self, span: Millis) {
        self.rates = Rates {
            reads_per_second: per_second(self.reads, span),
            writes_per_second: per_second(self.writes, span),
        };
        (self.reads, self.writes) = (0, 0);
    }
}

/// The keys that a node was asked for.
#[derive(Debug)]
pub(crate) struct HotKeys {
    chance: u64,
    began: Millis,
    counters: Vec<Counter>,
    /// The counter of a key, by its hash.
    places: HashMap<u64, usize>,
    /// What the last span came to, the hottest first.
    told: Vec<HotKey>,
}

#[derive(Debug)]
struct Counter {
    hash: u64,
    key: Bytes,
    shard: ShardId,
    reads: u64,
    writes: u64,
    /// What the key that had this counter before had counted.
    inherited: u64,
}

impl Counter {
    fn count(&self) -> u64 {
        self.reads + self.writes + self.inherited
    }
}

impl HotKeys {
    pub(crate) fn new(chance: u64) -> HotKeys {
        let (counters, places, told) = (Vec::new(), HashMap::default(), Vec::new());
        HotKeys { chance, began: Millis(0), counters, places, told }
    }

    /// Whether this request is one to look at (Knuth's linear congruential generator, by its highest bits).
    fn looks(&mut self) -> bool {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> (64 - LOOK_AT_ONE_IN.trailing_zeros()) == 0
    }

    fn note(&mut self, key: &[u8], shard: ShardId, writes: bool) {
        // Two keys of one hash share a counter: of 2^64 that is no matter here.
        let hash = FixedState::default().hash_one(key);
        let at = match self.places.get(&hash) {
            Some(at) => *at,
            None => self.place(hash, key, shard),
        };
        let counter = &mut self.counters[at];
        *if writes { &mut counter.writes } else { &mut counter.reads } += 1;
    }

    /// A counter for a key that has none.
    fn place(&mut self, hash: u64, key: &[u8], shard: ShardId) -> usize {
        let key = Bytes::copy_from_slice(&key[..key.len().min(KEY_BYTES_MAX)]);
        let fresh = |inherited| Counter { hash, key, shard, reads: 0, writes: 0, inherited };
        let at = if self.counters.len() < KEYS_MAX {
            self.counters.push(fresh(0));
            self.counters.len() - 1
        } else {
            let least = (0..KEYS_MAX).min_by_key(|at| self.counters[*at].count()).unwrap_or(0);
            let inherited = self.counters[least].count();
            let before = core::mem::replace(&mut self.counters[least], fresh(inherited));
            self.places.remove(&before.hash);
            least
        };
        self.places.insert(hash, at);
        at
    }

    fn end_span(&mut self, span: Millis) {
        let rate = |count: u64| per_second(count * LOOK_AT_ONE_IN, span);
        self.counters.sort_unstable_by_key(|counter| core::cmp::Reverse(counter.reads + counter.writes));
        let told = self.counters.drain(..).map(|counter| HotKey {
            reads_per_second: rate(counter.reads),
            writes_per_second: rate(counter.writes),
            most_per_second: rate(counter.count()),
            key: counter.key,
            shard: counter.shard,
        });
        self.told = told.collect();
        self.places.clear();
    }
}

fn per_second(count: u64, span: Millis) -> u64 {
    count.saturating_mul(1000) / span.0.max(1)
}

impl Node {
    /// Counts a request that a replica here is asked for.
    pub(crate) fn note_asked(&mut self, id: ShardId, ask: &Ask) {
        let (Ask::Write { operation, .. } | Ask::Read { operation } | Ask::ReplicaRead { operation }) = ask;
        if id == self.meta.group() || operation[..] == [HOW_FAR] {
            return;
        }
        let writes = matches!(ask, Ask::Write { .. });
        if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
            let asked = shard.asked();
            *if writes { &mut asked.writes } else { &mut asked.reads } += 1;
        }
        if self.hot.looks()
            && let Some(key) = peek_key(operation)
        {
            self.hot.note(key, id, writes);
        }
    }

    /// Tells what a span came to when it is over.
    pub(crate) fn tick_hot(&mut self) {
        let now = self.time().mono;
        let span = now.since(self.hot.began);
        if span < SPAN {
            return;
        }
        self.hot.began = now;
        self.hot.end_span(span);
        for shard in self.shards.iter_mut().flatten() {
            shard.end_span(span);
        }
    }

    /// The keys that replicas here were asked for most in the last five seconds that were counted to their end, the
    /// hottest first; at most 256.
    pub fn hot_keys(&self) -> &[HotKey] {
        &self.hot.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(hot: &mut HotKeys) -> Vec<(Bytes, u64, u64)> {
        // As long as one in so many is looked at, a count of one is a rate of one.
        hot.end_span(Millis(LOOK_AT_ONE_IN * 1000));
        hot.told.iter().map(|key| (key.key.clone(), key.reads_per_second, key.writes_per_second)).collect()
    }

    #[test]
    fn the_hottest_come_first_with_reads_and_writes_apart() {
        let mut hot = HotKeys::new(7);
        for (key, reads, writes) in [("cold", 1, 0), ("hot", 2, 30), ("warm", 9, 1)] {
            (0..reads).for_each(|_| hot.note(key.as_bytes(), ShardId(1), false));
            (0..writes).for_each(|_| hot.note(key.as_bytes(), ShardId(1), true));
        }
        let expected = [("hot", 2, 30), ("warm", 9, 1), ("cold", 1, 0)];
        let expected =
            expected.map(|(key, reads, writes)| (Bytes::from_static(key.as_bytes()), reads, writes));
        assert_eq!(told(&mut hot), expected);
        assert_eq!(told(&mut hot), [], "each span begins anew");
    }

    #[test]
    fn a_hot_key_is_found_among_many_times_more_keys_than_counters() {
        let mut hot = HotKeys::new(7);
        for number in 0..100_000_u32 {
            let key = alloc::format!("key:{number}");
            hot.note(key.as_bytes(), ShardId(0), false);
            if number % 50 == 0 {
                hot.note(b"the hot one", ShardId(3), true);
            }
        }
        hot.end_span(Millis(1000));
        assert_eq!(hot.told.len(), KEYS_MAX);
        let first = &hot.told[0];
        assert_eq!((&first.key[..], first.shard), (&b"the hot one"[..], ShardId(3)));
        let truly = 2_000 * LOOK_AT_ONE_IN;
        assert!(first.writes_per_second <= truly && truly <= first.most_per_second, "{first:?}");
        assert!(first.writes_per_second > truly * 8 / 10, "{first:?}");
    }

    #[test]
    fn one_in_so_many_is_looked_at_and_long_keys_are_kept_in_part() {
        let mut hot = HotKeys::new(7);
        let looked = (0..160_000).filter(|_| hot.looks()).count();
        assert!((9_500..10_500).contains(&looked), "{looked}");
        let long = [b'x'; 70_000];
        hot.note(&long, ShardId(0), false);
        hot.note(&long[..60_000], ShardId(0), false);
        assert_eq!(hot.counters.len(), 2, "they are told apart by all of their bytes");
        assert!(hot.counters.iter().all(|counter| counter.key.len() == KEY_BYTES_MAX));
    }
}
