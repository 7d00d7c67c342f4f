//! The log of one replica: a window of entries in memory, its ballot and its three marks.
//!
//! Invariants kept here, of those in the crate's document:
//! - P1: `accepted_index ≥ decided ≥ applied ≥ base`.
//! - P2: a decided entry is never replaced.
//! - P3: shard time never runs back from one entry to the next (R16).
//! - P5: one (index, origin) names one value for ever.
//! - P6: what is known to be decided was learnt in a ballot that this replica has promised, so no
//!   leader that it still heeds lacks it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ballot::{Ballot, Index, Millis};
use crate::message::{Config, Entry, Payload};

/// The last entry that is no longer in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Base {
    /// Its index; zero before the first entry.
    pub index: Index,
    /// Its origin.
    pub origin: Ballot,
    /// Its shard time.
    pub time: Millis,
}

#[derive(Debug)]
pub(crate) struct Log {
    /// The ballot in which the whole log is accepted (R1).
    accepted: Ballot,
    base: Base,
    entries: VecDeque<Entry>,
    cost_bytes: usize,
    decided: Index,
    applied: Index,
    /// The configuration last decided, then every one after it in the log (R6).
    configs: Vec<(Index, Config)>,
}

impl Log {
    pub(crate) fn new(config: Config) -> Log {
        Log {
            accepted: Ballot::ZERO,
            base: Base::default(),
            entries: VecDeque::new(),
            cost_bytes: 0,
            decided: Index::ZERO,
            applied: Index::ZERO,
            configs: alloc::vec![(Index::ZERO, config)],
        }
    }

    /// A log that holds nothing but what a snapshot covers.
    pub(crate) fn at_snapshot(accepted: Ballot, base: Base, config: Config) -> Log {
        Log {
            accepted,
            base,
            decided: base.index,
            applied: base.index,
            configs: alloc::vec![(base.index, config)],
            ..Log::new(Config::default())
        }
    }

    pub(crate) fn accepted(&self) -> Ballot {
        self.accepted
    }

    pub(crate) fn raise_accepted(&mut self, ballot: Ballot) {
        assert!(ballot >= self.accepted, "accepted ballot {} falls to {ballot}", self.accepted);
        self.accepted = ballot;
    }

    pub(crate) fn base(&self) -> Base {
        self.base
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.base.index.0 + self.entries.len() as u64)
    }

    pub(crate) fn decided(&self) -> Index {
        self.decided
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) fn cost_bytes(&self) -> usize {
        self.cost_bytes
    }

    /// Bytes of the entries that are not decided yet.
    pub(crate) fn undecided_bytes(&self) -> usize {
        let start = (self.decided.0 - self.base.index.0) as usize;
        self.entries.iter().skip(start).map(Entry::cost_bytes).sum()
    }

    pub(crate) fn last_time(&self) -> Millis {
        self.entries.back().map_or(self.base.time, |entry| entry.time)
    }

    /// Every configuration that a quorum must satisfy: the last decided and all after it.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &Config> {
        self.configs.iter().map(|(_, config)| config)
    }

    pub(crate) fn latest_config(&self) -> &Config {
        &self.configs.last().expect("a log always has a configuration").1
    }

    /// The configuration in force at `index`, which must not lie before the last decided one.
    pub(crate) fn config_at(&self, index: Index) -> &Config {
        let found = self.configs.iter().rev().find(|(at, _)| *at <= index);
        &found.unwrap_or(&self.configs[0]).1
    }

    fn offset(&self, index: Index) -> Option<usize> {
        index.0.checked_sub(self.base.index.0 + 1).map(|offset| offset as usize)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.offset(index)?)
    }

    /// The origin of the entry at `index`, if memory still knows it.
    pub(crate) fn origin_at(&self, index: Index) -> Option<Ballot> {
        if index == self.base.index {
            return Some(self.base.origin);
        }
        self.get(index).map(|entry| entry.origin)
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last().next(), "an entry must follow the last one");
        assert!(entry.time >= self.last_time(), "P3: time runs back at {}", entry.index);
        if let Payload::Config(config) = &entry.payload {
            self.configs.push((entry.index, config.clone()));
        }
        self.cost_bytes += entry.cost_bytes();
        self.entries.push_back(entry);
    }

    /// Replaces everything from `from` on (R1).
    pub(crate) fn replace(&mut self, from: Index, entries: Vec<Entry>) {
        assert!(from > self.decided, "P2: replacing from {from}, decided {}", self.decided);
        let keep = self.offset(from).expect("P1: decided is not below base");
        assert!(keep <= self.entries.len(), "a hole before {from}, last {}", self.last());
        for entry in self.entries.drain(keep..) {
            self.cost_bytes -= entry.cost_bytes();
        }
        self.configs.retain(|(at, _)| *at < from);
        for entry in entries {
            self.append(entry);
        }
    }

    /// Up to `max_bytes` of consecutive entries from `from` to `to`; at least one if there is one.
    pub(crate) fn slice(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        let Some(start) = self.offset(from) else { return Vec::new() };
        let count = (to.0 + 1).saturating_sub(from.0) as usize;
        let mut bytes = 0;
        let mut slice = Vec::with_capacity(count.min(self.entries.len().saturating_sub(start)).min(64));
        for entry in self.entries.iter().skip(start).take(count) {
            bytes += entry.cost_bytes();
            if bytes > max_bytes && !slice.is_empty() {
                break;
            }
            slice.push(entry.clone());
        }
        slice
    }

    /// Marks everything up to `index` decided. Returns whether that is news.
    pub(crate) fn decide(&mut self, index: Index) -> bool {
        assert!(index <= self.last(), "P1: decided {index} beyond the last entry {}", self.last());
        if index <= self.decided {
            return false;
        }
        self.decided = index;
        while self.configs.len() > 1 && self.configs[1].0 <= index {
            self.configs.remove(0);
        }
        true
    }

    pub(crate) fn take_decided(&mut self) -> Option<Entry> {
        if self.applied >= self.decided {
            return None;
        }
        let entry = self.get(self.applied.next()).expect("P1: what is not applied is in memory").clone();
        self.applied = entry.index;
        Some(entry)
    }

    /// Forgets entries up to `to`, of those applied.
    pub(crate) fn trim(&mut self, to: Index) {
        let to = to.min(self.applied);
        while self.base.index < to {
            let entry = self.entries.pop_front().expect("P1: base is below applied");
            self.cost_bytes -= entry.cost_bytes();
            self.base = Base { index: entry.index, origin: entry.origin, time: entry.time };
        }
    }

    /// Takes over a snapshot that covers everything up to `base`. What follows `base` is kept
    /// only if this log agrees with the snapshot at `base`: if it does not, nothing after it
    /// can have been decided (the crate's document, "Snapshots").
    ///
    /// The log's ballot stays what it was: a snapshot may be shorter than the log that its
    /// sender adopted, so it is not the whole of it (R1).
    pub(crate) fn install(&mut self, base: Base, config: Config) {
        assert!(base.index > self.applied, "a snapshot must be news");
        let agrees = self.origin_at(base.index) == Some(base.origin);
        let kept: Vec<Entry> = match (agrees, self.offset(base.index.next())) {
            (true, Some(start)) => self.entries.drain(start..).collect(),
            _ => Vec::new(),
        };
        let accepted = self.accepted;
        let decided = if agrees { self.decided.max(base.index) } else { base.index };
        *self = Log::at_snapshot(accepted, base, config);
        for entry in kept {
            self.append(entry);
        }
        self.decide(decided);
    }

    /// All entries after `index`, which must not lie before the base.
    pub(crate) fn after(&self, index: Index) -> Vec<Entry> {
        let start = self.offset(index.next()).expect("entries after a snapshot are in memory");
        self.entries.iter().skip(start).cloned().collect()
    }
}
