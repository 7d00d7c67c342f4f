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
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;

use crate::ballot::{Ballot, Index, Millis, ReplicaId};
use crate::message::{Checkpoint, Config, Entry, Payload};
use crate::rare::Rare;

/// Entries that are moved to a smaller piece of memory when their group comes to rest, at most.
const FEW_ENTRIES: usize = 8;

/// The last entry that is no longer in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Base {
    /// Its index; zero before the first entry.
    pub index: Index,
    /// Its origin.
    pub origin: Ballot,
    /// Its shard time.
    pub time: Millis,
}

#[derive(Clone, Hash, Debug)]
pub(crate) struct Log {
    /// The ballot in which the whole log is accepted (R1).
    accepted: Ballot,
    base: Base,
    entries: VecDeque<Entry>,
    cost_bytes: usize,
    /// Of them, those of entries not decided yet.
    undecided_bytes: usize,
    decided: Index,
    applied: Index,
    /// The configuration last decided, and where it stands.
    config: (Index, Arc<Config>),
    /// Every one after it in the log (R6).
    later_configs: Rare<Vec<(Index, Arc<Config>)>>,
    /// The configuration in force at `applied`.
    applied_config: Arc<Config>,
}

impl Log {
    pub(crate) fn new(config: Arc<Config>) -> Log {
        Log {
            accepted: Ballot::ZERO,
            base: Base::default(),
            entries: VecDeque::new(),
            cost_bytes: 0,
            undecided_bytes: 0,
            decided: Index::ZERO,
            applied: Index::ZERO,
            applied_config: Arc::clone(&config),
            config: (Index::ZERO, config),
            later_configs: Rare::default(),
        }
    }

    /// A log that holds nothing but what a snapshot covers.
    pub(crate) fn at_snapshot(accepted: Ballot, base: Base, config: Arc<Config>) -> Log {
        Log {
            accepted,
            base,
            decided: base.index,
            applied: base.index,
            config: (base.index, Arc::clone(&config)),
            ..Log::new(config)
        }
    }

    /// Takes back a record of appended entries. An error says why they cannot follow.
    pub(crate) fn recover_accepted(
        &mut self,
        ballot: Ballot,
        decided: Index,
        entries: Vec<Entry>,
    ) -> Result<(), &'static str> {
        if ballot != self.accepted {
            return Err("entries of another ballot than the log's");
        }
        self.recover_entries(entries)?;
        self.recover_decided(decided)
    }

    /// Takes back a record of a replaced tail (R1).
    pub(crate) fn recover_replaced(
        &mut self,
        ballot: Ballot,
        from: Index,
        entries: Vec<Entry>,
    ) -> Result<(), &'static str> {
        if ballot < self.accepted || from.0 > self.last().0 + 1 {
            return Err("a replaced log that does not fit");
        }
        if from <= self.decided {
            return Err("a replaced log below what is decided");
        }
        self.replace(from, Vec::new());
        self.accepted = ballot;
        self.recover_entries(entries)
    }

    /// Takes back a record of a log that was taken for decided to its end (R29).
    pub(crate) fn recover_rescued(
        &mut self,
        ballot: Ballot,
        from: Index,
        entries: Vec<Entry>,
    ) -> Result<(), &'static str> {
        self.recover_replaced(ballot, from, entries)?;
        self.recover_decided(self.last())
    }

    /// The log of a checkpoint.
    pub(crate) fn recover_checkpoint(checkpoint: Checkpoint) -> Result<Log, &'static str> {
        let base = Base {
            index: checkpoint.snapshot,
            origin: checkpoint.snapshot_origin,
            time: checkpoint.snapshot_time,
        };
        let mut log = Log::at_snapshot(checkpoint.accepted, base, checkpoint.config.into());
        log.recover_entries(checkpoint.entries)?;
        log.recover_decided(checkpoint.decided)?;
        Ok(log)
    }

    fn recover_entries(&mut self, entries: Vec<Entry>) -> Result<(), &'static str> {
        for entry in entries {
            if entry.index != self.last().next() || entry.time < self.last_time() {
                return Err("an entry that does not follow the last one");
            }
            self.append(entry);
        }
        Ok(())
    }

    fn recover_decided(&mut self, decided: Index) -> Result<(), &'static str> {
        if decided > self.last() {
            return Err("a log decided beyond its end");
        }
        self.decide(decided);
        Ok(())
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

    /// Whether a replica that has decided up to `index` may have the rest entry by entry under a new ballot. If not, for
    /// the rest is not in memory or too large to be one record, it needs a snapshot first.
    pub(crate) fn resends_after(&self, index: Index, bytes_max: usize) -> bool {
        let Some(start) = self.offset(index.next()) else { return false };
        let end = self.offset(self.applied.next()).unwrap_or(0);
        let applied = self.entries.iter().take(end).skip(start);
        self.cost_bytes <= bytes_max || applied.map(Entry::cost_bytes).sum::<usize>() <= bytes_max
    }

    /// Bytes of the entries that are not decided yet.
    pub(crate) fn undecided_bytes(&self) -> usize {
        self.undecided_bytes
    }

    /// Shard time of the last decided entry.
    pub(crate) fn time_at_decided(&self) -> Millis {
        self.get(self.decided).map_or(self.base.time, |entry| entry.time)
    }

    pub(crate) fn last_time(&self) -> Millis {
        self.entries.back().map_or(self.base.time, |entry| entry.time)
    }

    /// Every configuration that a quorum must satisfy: the last decided and all after it.
    pub(crate) fn configs(&self) -> impl DoubleEndedIterator<Item = &Config> {
        self.configs_at().map(|(_, config)| config)
    }

    /// Whether those for whom `has` is true are a majority of each of them.
    pub(crate) fn quorum(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        self.configs().all(|config| config.majority(&has))
    }

    /// Whether the configuration decided last is known. It is not by a replica that has joined, until one in its own log
    /// is decided, as far as it knows.
    pub(crate) fn knows_its_config(&self) -> bool {
        !self.config.1.voters.is_empty()
    }

    /// [`Log::quorum`] of the configurations that are known: enough to ask, and not to win.
    pub(crate) fn quorum_of_known(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        let mut known = self.configs().filter(|config| !config.voters.is_empty()).peekable();
        known.peek().is_some() && known.all(|config| config.majority(&has))
    }

    /// The configurations that count, each with its index; that of the last decided one is at most the decided index.
    pub(crate) fn configs_at(&self) -> impl DoubleEndedIterator<Item = (Index, &Config)> {
        iter::once(&self.config).chain(self.later_configs()).map(|(index, config)| (*index, &**config))
    }

    /// Whether a configuration is under way, so that more than one counts.
    pub(crate) fn is_joint(&self) -> bool {
        !self.later_configs().is_empty()
    }

    fn later_configs(&self) -> &[(Index, Arc<Config>)] {
        self.later_configs.get().map_or(&[], Vec::as_slice)
    }

    /// Whether `replica` is a voter or learner of a configuration that counts.
    pub(crate) fn names(&self, replica: ReplicaId) -> bool {
        self.configs().any(|config| config.names(replica))
    }

    /// Whether `replica` is known and has no vote, for good: it was removed, or learns again.
    pub(crate) fn has_lost_its_vote(&self, replica: ReplicaId) -> bool {
        replica <= self.config.1.last_replica && !self.configs().any(|config| config.is_voter(replica))
    }

    /// How many voters stand before `replica` when the leader is lost; `None` for who has no vote. Who is about to be
    /// removed stands after all others: it may be the only one that can win.
    pub(crate) fn walk_rank(&self, replica: ReplicaId) -> Option<u64> {
        let mut voters = self.configs().rev().flat_map(|config| &config.voters);
        voters.position(|voter| *voter == replica).map(|rank| rank as u64)
    }

    /// Whether `replica` was removed, or never came to be more than a proposal: no configuration after this one can name
    /// it (R7). One that is unknown and not retired may be a voter of a configuration that has not arrived here yet.
    pub(crate) fn is_retired(&self, replica: ReplicaId) -> bool {
        replica <= self.config.1.last_replica && !self.names(replica)
    }

    /// Whether those for whom `has` is true meet every quorum that phase 1 of a higher ballot can be won with (R12).
    ///
    /// Who wins it counts under the log that it adopts (R6), and that log holds whatever was decided. So it needs a
    /// majority of one of these configurations at least, perhaps of one alone: for each, those who are *not* among
    /// them must be no majority. Learners are in no configuration's voters and change nothing here.
    pub(crate) fn meets_every_phase1_quorum(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        self.configs().all(|config| !config.majority(|voter| !has(voter)))
    }

    pub(crate) fn latest_config(&self) -> &Config {
        &self.later_configs().last().unwrap_or(&self.config).1
    }

    /// The configuration in force at the applied index.
    pub(crate) fn applied_config(&self) -> &Config {
        &self.applied_config
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
            self.later_configs.make().push((entry.index, Arc::new(Config::clone(config))));
        }
        self.cost_bytes += entry.cost_bytes();
        self.undecided_bytes += entry.cost_bytes();
        self.entries.push_back(entry);
    }

    /// Replaces everything from `from` on (R1).
    pub(crate) fn replace(&mut self, from: Index, entries: Vec<Entry>) {
        assert!(from > self.decided, "P2: replacing from {from}, decided {}", self.decided);
        let keep = self.offset(from).expect("P1: decided is not below base");
        assert!(keep <= self.entries.len(), "a hole before {from}, last {}", self.last());
        for entry in self.entries.drain(keep..) {
            self.cost_bytes -= entry.cost_bytes();
            self.undecided_bytes -= entry.cost_bytes();
        }
        if let Some(later) = self.later_configs.get_mut() {
            later.retain(|(at, _)| *at < from);
        }
        for entry in entries {
            self.append(entry);
        }
    }

    /// Up to `max_bytes` of consecutive entries from `from` to `to`; at least one if there is one.
    pub(crate) fn slice(&self, from: Index, to: Index, max_bytes: usize) -> Vec<Entry> {
        self.weighed_slice(from, to, max_bytes).0
    }

    /// The same, and how many bytes they have.
    pub(crate) fn weighed_slice(&self, from: Index, to: Index, max_bytes: usize) -> (Vec<Entry>, usize) {
        let Some(start) = self.offset(from) else { return (Vec::new(), 0) };
        let count = (to.0 + 1).saturating_sub(from.0) as usize;
        let mut bytes = 0;
        let mut slice = Vec::with_capacity(count.min(self.entries.len().saturating_sub(start)).min(64));
        for entry in self.entries.iter().skip(start).take(count) {
            let with_it = bytes + entry.cost_bytes();
            if with_it > max_bytes && !slice.is_empty() {
                break;
            }
            bytes = with_it;
            slice.push(entry.clone());
        }
        (slice, bytes)
    }

    /// Bytes of the entries after `after` and up to `to`, of those in memory.
    pub(crate) fn bytes_between(&self, after: Index, to: Index) -> usize {
        let start = self.offset(after.next()).unwrap_or(0);
        let end = self.offset(to.next()).unwrap_or(0).min(self.entries.len());
        self.entries.range(start.min(end)..end).map(Entry::cost_bytes).sum()
    }

    /// Marks everything up to `index` decided. Returns whether that is news.
    pub(crate) fn decide(&mut self, index: Index) -> bool {
        assert!(index <= self.last(), "P1: decided {index} beyond the last entry {}", self.last());
        if index <= self.decided {
            return false;
        }
        let start = self.offset(self.decided.next()).expect("P1: base is not beyond decided");
        let count = (index.0 - self.decided.0) as usize;
        let decided = self.entries.range(start..start + count);
        self.undecided_bytes -= decided.map(Entry::cost_bytes).sum::<usize>();
        self.decided = index;
        if let Some(later) = self.later_configs.get_mut() {
            let decided = later.partition_point(|(at, _)| *at <= index);
            if let Some(newest) = later.drain(..decided).next_back() {
                self.config = newest;
            }
        }
        true
    }

    pub(crate) fn take_decided(&mut self) -> Option<&Entry> {
        if self.applied >= self.decided {
            return None;
        }
        self.applied = self.applied.next();
        let offset = self.offset(self.applied).expect("P1: base is not beyond applied");
        let entry = self.entries.get(offset).expect("P1: what is not applied is in memory");
        if let Payload::Config(config) = &entry.payload {
            self.applied_config = Arc::new(Config::clone(config));
        }
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
    pub(crate) fn install(&mut self, base: Base, config: Arc<Config>, planted_keep: bool) {
        assert!(base.index > self.applied, "a snapshot must be news");
        let agrees = self.origin_at(base.index) == Some(base.origin);
        let kept: Vec<Entry> = match (agrees || planted_keep, self.offset(base.index.next())) {
            (true, Some(start)) if start <= self.entries.len() => self.entries.drain(start..).collect(),
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

    /// Gives back memory that was reserved for entries to come. A log that holds more than a few is not at rest for long,
    /// and copying it to and fro would cost more than it saves.
    pub(crate) fn shrink(&mut self) {
        self.later_configs.shrink();
        if self.entries.len() <= FEW_ENTRIES {
            self.entries.shrink_to_fit();
        }
    }

    /// All entries after `index`, which must not lie before the base.
    pub(crate) fn after(&self, index: Index) -> Vec<Entry> {
        let start = self.offset(index.next()).expect("entries after a snapshot are in memory");
        self.entries.iter().skip(start).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec;

    use bytes::Bytes;

    use super::*;

    const BALLOT: Ballot = Ballot { round: 1, replica: ReplicaId(1) };

    fn entry(index: u64, origin: Ballot, bytes: usize) -> Entry {
        let payload = Payload::Batch(Bytes::from(vec![0; bytes]));
        Entry { index: Index(index), origin, time: Millis(index), seed: 0, payload }
    }

    fn config_entry(index: u64, number: u64) -> Entry {
        Entry {
            payload: Payload::Config(Box::new(Config { number, ..Config::default() })),
            ..entry(index, BALLOT, 0)
        }
    }

    fn log(entries: u64) -> Log {
        let mut log = Log::new(Config::default().into());
        for index in 1..=entries {
            log.append(entry(index, BALLOT, index as usize));
        }
        log
    }

    /// The dumb second version of both sums.
    fn check_costs(log: &Log) {
        let sum =
            |from: Index| log.entries.iter().filter(|entry| entry.index > from).map(Entry::cost_bytes).sum();
        assert_eq!((log.cost_bytes(), log.undecided_bytes()), (sum(Index::ZERO), sum(log.decided())));
        let indexes = || (0..=log.last().0 + 1).map(Index);
        for (after, to) in indexes().flat_map(|after| indexes().map(move |to| (after, to))) {
            assert_eq!(
                log.bytes_between(after, to),
                sum(after).saturating_sub(sum(to)),
                "from {after} to {to}"
            );
        }
    }

    #[test]
    fn costs_are_those_of_the_entries() {
        let mut log = log(9);
        check_costs(&log);
        log.decide(Index(3));
        check_costs(&log);
        log.replace(Index(6), vec![entry(6, BALLOT, 100), entry(7, BALLOT, 200)]);
        check_costs(&log);
        while log.take_decided().is_some() {}
        log.trim(Index(2));
        check_costs(&log);
        log.install(
            Base { index: Index(5), origin: BALLOT, time: Millis(5) },
            Config::default().into(),
            false,
        );
        check_costs(&log);
        assert_eq!((log.last(), log.decided()), (Index(7), Index(5)));
        log.install(
            Base { index: Index(20), origin: BALLOT, time: Millis(5) },
            Config::default().into(),
            false,
        );
        check_costs(&log);
    }

    #[test]
    fn a_snapshot_that_differs_drops_the_tail() {
        let other = Ballot { round: 2, replica: ReplicaId(2) };
        let mut log = log(9);
        log.install(
            Base { index: Index(5), origin: other, time: Millis(5) },
            Config::default().into(),
            false,
        );
        assert_eq!((log.last(), log.decided(), log.applied()), (Index(5), Index(5), Index(5)));
    }

    #[test]
    fn configurations_count_from_acceptance_until_the_next_is_decided() {
        let numbers = |log: &Log| log.configs().map(|config| config.number).collect::<Vec<_>>();
        let mut log = Log::new(Config::default().into());
        log.append(config_entry(1, 1));
        log.append(entry(2, BALLOT, 0));
        log.append(config_entry(3, 2));
        assert_eq!(numbers(&log), [0, 1, 2]);
        log.decide(Index(2));
        assert_eq!(numbers(&log), [1, 2]);
        // What is applied lags behind what is decided.
        assert_eq!(log.applied_config().number, 0);
        log.take_decided();
        assert_eq!(log.applied_config().number, 1);
        // What was not decided may still be replaced, and then counts no more.
        log.replace(Index(3), vec![entry(3, BALLOT, 0)]);
        assert_eq!(numbers(&log), [1]);
    }

    /// The dumb second version: tries every set of voters that is a majority of one configuration.
    fn meets_dumb(configs: &[Vec<u32>], has: u32) -> bool {
        let among = |set: u32, voter: &u32| set & 1 << voter != 0;
        let majorities = (0..1 << 6).filter(|set| {
            let wins = |voters: &Vec<u32>| {
                2 * voters.iter().filter(|voter| among(*set, voter)).count() > voters.len()
            };
            configs.iter().any(wins)
        });
        majorities.into_iter().all(|set: u32| set & has != 0)
    }

    #[test]
    fn who_meets_every_phase_1_quorum_leaves_none_without_them() {
        for configs in [
            vec![vec![1]],
            vec![vec![1, 2, 3]],
            vec![vec![1, 2, 3], vec![1, 2, 4]],
            vec![vec![1, 2, 3, 4]],
            vec![vec![1], vec![1, 2, 3, 4, 5]],
        ] {
            let config = |at: usize| {
                let voters = configs[at].iter().copied().map(ReplicaId).collect();
                Config { number: at as u64, ..Config::founding(voters) }
            };
            let mut log = Log::new(config(0).into());
            for at in 1..configs.len() {
                log.append(Entry {
                    payload: Payload::Config(Box::new(config(at))),
                    ..entry(at as u64, BALLOT, 0)
                });
            }
            for has in (0..1 << 6).filter(|has| has & 1 == 0) {
                let meets = log.meets_every_phase1_quorum(|voter| has & 1 << voter.0 != 0);
                assert_eq!(meets, meets_dumb(&configs, has), "{configs:?} {has:b}");
            }
        }
    }

    #[test]
    fn a_slice_keeps_to_its_bytes_but_holds_one() {
        let log = log(9);
        let indexes = |max_bytes| -> Vec<u64> {
            log.slice(Index(2), Index(8), max_bytes).iter().map(|entry| entry.index.0).collect()
        };
        assert_eq!(indexes(0), [2]);
        assert_eq!(indexes(64 + 2 + 64 + 3), [2, 3]);
        assert_eq!(indexes(usize::MAX), [2, 3, 4, 5, 6, 7, 8]);
        assert!(log.slice(Index(10), Index(20), 99).is_empty());
    }

    #[test]
    fn a_log_at_rest_has_no_room_to_spare_and_a_long_one_keeps_it() {
        let mut short = log(1);
        short.shrink();
        assert_eq!((short.entries.capacity(), short.later_configs.get()), (1, None));
        let mut long = log(FEW_ENTRIES as u64 + 1);
        let reserved = long.entries.capacity();
        long.shrink();
        assert_eq!(long.entries.capacity(), reserved);
    }

    #[test]
    #[should_panic(expected = "P2")]
    fn what_is_decided_is_not_replaced() {
        let mut log = log(3);
        log.decide(Index(2));
        log.replace(Index(2), vec![]);
    }
}
