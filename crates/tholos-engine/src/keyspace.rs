//! The keys of one shard: what commands change and read, and what the node asks about them.
//!
//! A keyspace is a state machine: its state after a log entry depends on the entries before and on nothing else,
//! so every replica holds the same one. Time is the shard time of the entry (R16), chance its seed (R4).
//!
//! K1. A key is dead at `time` if its expiry is at or before it, whether or not it is still in memory (R17).
//!     Dead keys are removed by [`Keyspace::evict_due`], in order of expiry, then place: alike on every replica.
//! K2. `due` holds (expiry, place) of every entry that has an expiry, and nothing else.
//! K3. `digest` is the sum of the digests of all entries and of all slots' absent stamps (R24).
//! K4. An absent key's version is the slot's `absent` stamp, which moves at each deletion and each time a key is
//!     given an expiry. The second makes a key that came, and died of its TTL, between WATCH and EXEC a change.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::ops::Range;

use tholos_resp::Value;

use crate::command::{Access, Command};
use crate::error;
use crate::session::{Reader, Session};
use crate::snapshot::{Discarded, Walk};
use crate::store::entry::{Entry, Stamp, View};
use crate::store::hash::Digest;
use crate::store::slots::{Place, Slots};

/// What one entry costs in its page: its hash, 16 bytes, and a share of what pages have spare.
const PAGE_BYTES_PER_ENTRY: usize = 28;
/// What one expiry costs in its index.
const DUE_BYTES_PER_ENTRY: usize = 40;
/// Marks digests of slots; entries have smaller tags.
const SLOT_TAG: u64 = 0x100;

/// What a log entry tells the commands in it. A command may read time and chance from nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Shard time of the entry, in Unix milliseconds (R16).
    pub time_ms: u64,
    /// The entry's seed mixed with `position` (R4).
    pub seed: u64,
    /// Log index of the entry.
    pub index: u64,
    /// Position of the command, or of the transaction it is part of, in the entry's batch.
    pub position: u32,
}

/// Which write a key was last touched by, as WATCH remembers it (R19).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Log index of the write: the key's last, or for an absent key the slot's last that took one away.
    pub index: u64,
    /// Position of the write in that entry's batch.
    pub position: u32,
    /// Whether the key was there. A key that died of its TTL differs by this alone.
    pub present: bool,
}

/// Where a key stands in a keyspace. Found ahead of a command, the memory that the command will need can be read while
/// others are looked up.
#[derive(Clone, Copy, Debug)]
pub struct Location(Place);

/// The keys of one shard, that is of a contiguous range of slots.
#[derive(Debug)]
pub struct Keyspace {
    store: Slots,
    due: BTreeSet<Due>,
    len: usize,
    digest: u64,
    allocated_bytes: usize,
    walk: Option<Box<Walk>>,
    discarded: Option<Box<Discarded>>,
}

/// When the entry at a place dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ms: u64,
    place: Place,
}

/// What the sums over all entries keep of one entry.
#[derive(Clone, Copy)]
struct Account {
    digest: u64,
    allocated_bytes: usize,
    expire_at: Option<u64>,
}

impl Account {
    fn of(entry: &Entry) -> Account {
        Account {
            digest: entry.digest(),
            allocated_bytes: entry.allocated_bytes(),
            expire_at: entry.expire_at(),
        }
    }
}

impl Keyspace {
    /// An empty keyspace for `slots`. `hash_seed` decides the order of SCAN; it is secret, random, and the same on
    /// all replicas of the shard.
    #[must_use]
    pub fn new(slots: Range<u16>, hash_seed: u64) -> Keyspace {
        let count = slots.end.saturating_sub(slots.start);
        let store = Slots::new(slots.start, count, hash_seed);
        let due = BTreeSet::new();
        Keyspace { store, due, len: 0, digest: 0, allocated_bytes: 0, walk: None, discarded: None }
    }

    /// The slots whose keys are here.
    #[must_use]
    pub fn slots(&self) -> Range<u16> {
        self.store.first_slot()..self.store.first_slot() + self.store.slot_count()
    }

    /// Carries out a command of a decided entry. A pure function of the state, the context and the command.
    pub fn apply(&mut self, context: &Context, command: &Command) -> Value {
        if command.access() == Access::Read {
            return self.read(context.time_ms, command);
        }
        if let Some(refusal) = self.refuse_strangers(command) {
            return refusal;
        }
        let stamp = Stamp { index: context.index, position: context.position };
        command.apply(&mut Session { keyspace: self, time_ms: context.time_ms, stamp })
    }

    /// Answers a command that only reads, at shard time `time_ms` (R17).
    ///
    /// # Panics
    /// If the command writes: only [`Keyspace::apply`] may do that.
    #[must_use]
    pub fn read(&self, time_ms: u64, command: &Command) -> Value {
        assert!(command.access() == Access::Read, "a write reached the read path: {command:?}");
        match self.refuse_strangers(command) {
            Some(refusal) => refusal,
            None => command.read(&Reader { keyspace: self, time_ms }),
        }
    }

    /// Keys of other shards get a deterministic refusal, as a replica must not stop over an entry.
    fn refuse_strangers(&self, command: &Command) -> Option<Value> {
        let slots = self.slots();
        let stranger = command.keys().any(|key| !slots.contains(&tholos_ring::slot(key).number()));
        stranger.then(error::cross_slot)
    }

    /// The version of `key` at shard time `time_ms`, by logical liveness (R19).
    #[must_use]
    pub fn version(&self, key: &[u8], time_ms: u64) -> Version {
        let Some(place) = self.store.place(key) else {
            return Version { index: 0, position: 0, present: false };
        };
        let live = self.store.get(place, key).filter(|entry| !is_dead(entry.expire_at(), time_ms));
        let stamp = live.map_or_else(|| self.store.absent(place.slot), |entry| entry.view().stamp);
        Version { index: stamp.index, position: stamp.position, present: live.is_some() }
    }

    /// When the next key dies, in Unix milliseconds; at or before now if dead ones are still to be removed.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|due| due.at_ms)
    }

    /// Removes up to `max` keys that are dead at `time_ms`; answers how many.
    ///
    /// Every applied entry calls it with the same `max` on every replica, or digests differ. It changes nothing
    /// that a client can see.
    pub fn evict_due(&mut self, time_ms: u64, max: usize) -> usize {
        let mut evicted = 0;
        while evicted < max {
            let Some(due) = self.due.first().copied().filter(|due| due.at_ms <= time_ms) else { break };
            // Twins of one expiry share an item of the index, which stays until the last of them is gone.
            let key = self.key_due(due).expect("an item of the index has its entry (K2)");
            self.remove_entry(due.place, &key);
            evicted += 1;
        }
        evicted
    }

    /// The key of an entry at the place of `due` that dies then.
    fn key_due(&self, due: Due) -> Option<Vec<u8>> {
        self.store
            .at(due.place)
            .find(|entry| entry.expire_at() == Some(due.at_ms))
            .map(|entry| entry.key().to_vec())
    }

    /// Whether the command reads a key that is dead by the wall clock but alive by shard time. The leader then
    /// proposes a Tick before it answers (R17).
    #[must_use]
    pub fn expired_by(&self, wall_ms: u64, time_ms: u64, command: &Command) -> bool {
        wall_ms > time_ms && command.keys().any(|key| self.key_expired_by(wall_ms, time_ms, key))
    }

    /// The same for one key, which is what WATCH looks at.
    #[must_use]
    pub fn key_expired_by(&self, wall_ms: u64, time_ms: u64, key: &[u8]) -> bool {
        let expire_at = self.entry(key).and_then(Entry::expire_at);
        is_dead(expire_at, wall_ms) && !is_dead(expire_at, time_ms)
    }

    /// Where `key` stands or would stand; `None` if it is not of this shard.
    #[must_use]
    pub fn locate(&self, key: &[u8]) -> Option<Location> {
        self.store.place(key).map(Location)
    }

    /// Reads the memory that a look-up at `location` begins with, but for the entry's own. The number means nothing: it
    /// is there so that the read is not left out.
    #[must_use]
    pub fn prefetch_item(&self, location: Location) -> u64 {
        self.store.prefetch_item(location.0)
    }

    /// Reads both ends of the entry at `location`; `None` if there is none. Quick if [`Keyspace::prefetch_item`] is done.
    #[must_use]
    pub fn prefetch_entry(&self, location: Location) -> Option<u64> {
        self.store.at(location.0).next().map(Entry::prefetch)
    }

    /// Removes every key.
    pub(crate) fn flush(&mut self, stamp: Stamp) {
        let mut emptied = self.store.emptied();
        let mut digest: u64 = 0;
        for slot in 0..emptied.slot_count() {
            // K4: a slot that had no key keeps its stamp, so that watchers of other slots are left alone.
            let was_empty = self.store.count_slot(slot) == 0;
            let absent = if was_empty { self.store.absent(slot) } else { stamp };
            emptied.set_absent(slot, absent);
            digest = digest.wrapping_add(absent_digest(slot, absent));
        }
        let old = core::mem::replace(&mut self.store, emptied);
        let unneeded = match &mut self.walk {
            Some(walk) => walk.keep(old),
            None => Some(old),
        };
        self.discard(unneeded);
        self.due.clear();
        self.len = 0;
        self.allocated_bytes = 0;
        self.digest = digest;
    }

    /// Keys that are alive at `time_ms`. Counts the dead that are still in memory, so it is quick while those are few.
    #[must_use]
    pub fn len(&self, time_ms: u64) -> usize {
        if self.next_due_ms().is_none_or(|next| next > time_ms) {
            return self.len;
        }
        let dead: usize = self.dead_places(time_ms).map(|due| self.count_due(due)).sum();
        self.len - dead
    }

    /// Keys that are alive at `time_ms` and will expire; about, as keys with equal hashes and times count once.
    #[must_use]
    pub fn expiring(&self, time_ms: u64) -> usize {
        self.due.len() - self.dead_places(time_ms).count()
    }

    /// Whether no key is alive at `time_ms`.
    #[must_use]
    pub fn is_empty(&self, time_ms: u64) -> bool {
        self.len(time_ms) == 0
    }

    fn dead_places(&self, time_ms: u64) -> impl Iterator<Item = Due> {
        self.due.iter().copied().take_while(move |due| due.at_ms <= time_ms)
    }

    fn count_due(&self, due: Due) -> usize {
        self.store.at(due.place).filter(|entry| entry.expire_at() == Some(due.at_ms)).count()
    }

    /// Live keys of one slot; 0 for a slot of another shard.
    #[must_use]
    pub fn count_in_slot(&self, slot: u16, time_ms: u64) -> usize {
        let Some(slot) = self.local_slot(slot) else { return 0 };
        let in_slot = self.dead_places(time_ms).filter(|due| due.place.slot == slot);
        let dead: usize = in_slot.map(|due| self.count_due(due)).sum();
        self.store.count_slot(slot) - dead
    }

    /// Sum of the hashes of all that replicas must agree on: keys, values, expiries, versions (R24).
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Estimated memory of the keys, in bytes, for `maxmemory`: allocations, their rounding, and indexes.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.allocated_bytes + self.len * PAGE_BYTES_PER_ENTRY + self.due.len() * DUE_BYTES_PER_ENTRY
    }

    /// Bytes that a snapshot of the keys has, about: what replicas are sent and keep on their disks.
    #[must_use]
    pub fn data_bytes(&self) -> usize {
        // An allocated entry has a head and is rounded up; an entry of a snapshot has a longer head and is not.
        self.allocated_bytes
    }

    pub(crate) fn local_slot(&self, slot: u16) -> Option<u16> {
        slot.checked_sub(self.store.first_slot()).filter(|local| *local < self.store.slot_count())
    }

    pub(crate) fn store(&self) -> &Slots {
        &self.store
    }

    /// Entries in memory, dead ones included.
    pub(crate) fn entry_count(&self) -> usize {
        self.len
    }

    /// The snapshot under way, beside the entries it walks.
    pub(crate) fn walk_mut(&mut self) -> (&Slots, &mut Option<Box<Walk>>) {
        (&self.store, &mut self.walk)
    }

    pub(crate) fn walk(&self) -> Option<&Walk> {
        self.walk.as_deref()
    }

    /// Puts aside entries that are gone, if there are any.
    pub(crate) fn discard(&mut self, slots: Option<Slots>) {
        if let Some(slots) = slots.filter(|slots| slots.iter_from(Place::FIRST).next().is_some()) {
            self.discarded.get_or_insert_default().push(slots);
        }
    }

    /// What was flushed, and what a snapshot held of it, for the caller to drop where nobody waits.
    pub fn take_discarded(&mut self) -> Option<Discarded> {
        self.discarded.take().map(|discarded| *discarded)
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<&Entry> {
        self.store.get(self.store.place(key)?, key)
    }

    /// Gives `key` a value, whether or not it has one.
    pub(crate) fn put_entry(&mut self, place: Place, view: View<'_>) {
        self.walk_before(place);
        let (before, after);
        if let Some(entry) = self.store.get_mut(place, view.key) {
            before = Some(Account::of(entry));
            entry.set(view.stamp, view.expire_at, view.content);
            after = Account::of(entry);
        } else {
            let entry = Entry::new(view);
            before = None;
            after = Account::of(&entry);
            self.store.insert(place, entry);
        }
        self.settle(place, before, Some(after));
    }

    /// Changes an entry that is there, by `change`.
    pub(crate) fn change_entry(&mut self, place: Place, key: &[u8], change: impl FnOnce(&mut Entry)) {
        self.walk_before(place);
        let Some(entry) = self.store.get_mut(place, key) else { return };
        let before = Account::of(entry);
        change(entry);
        let after = Account::of(entry);
        self.settle(place, Some(before), Some(after));
    }

    pub(crate) fn remove_entry(&mut self, place: Place, key: &[u8]) {
        self.walk_before(place);
        if let Some(entry) = self.store.remove(place, key) {
            self.settle(place, Some(Account::of(&entry)), None);
        }
    }

    /// Brings the sums and the expiry index in line with a change at `place` (K2, K3).
    fn settle(&mut self, place: Place, before: Option<Account>, after: Option<Account>) {
        if let Some(before) = before {
            self.len -= 1;
            self.digest = self.digest.wrapping_sub(before.digest);
            self.allocated_bytes -= before.allocated_bytes;
        }
        if let Some(after) = after {
            self.len += 1;
            self.digest = self.digest.wrapping_add(after.digest);
            self.allocated_bytes += after.allocated_bytes;
        }
        let (old, new) =
            (before.and_then(|before| before.expire_at), after.and_then(|after| after.expire_at));
        if old == new {
            return;
        }
        if let Some(at_ms) = old {
            let due = Due { at_ms, place };
            // A twin with the same expiry still needs the item.
            if self.count_due(due) == 0 {
                self.due.remove(&due);
            }
        }
        if let Some(at_ms) = new {
            self.due.insert(Due { at_ms, place });
        }
    }

    pub(crate) fn set_absent(&mut self, slot: u16, stamp: Stamp) {
        let old = absent_digest(slot, self.store.absent(slot));
        let new = absent_digest(slot, stamp);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(new);
        self.store.set_absent(slot, stamp);
    }

    /// A snapshot under way takes the old image of what is about to change.
    fn walk_before(&mut self, place: Place) {
        if let Some(walk) = &mut self.walk {
            walk.before_change(&self.store, place);
        }
    }

    pub(crate) fn place(&self, key: &[u8]) -> Place {
        // `refuse_strangers` has seen every command's keys.
        self.store.place(key).expect("the key belongs to this shard")
    }
}

/// A slot's part of the digest; a slot that never lost a key has none.
fn absent_digest(slot: u16, stamp: Stamp) -> u64 {
    if stamp == Stamp::default() {
        return 0;
    }
    Digest::new(SLOT_TAG).word(u64::from(slot)).word(stamp.index).word(u64::from(stamp.position)).finish()
}

/// Whether a key of this expiry is dead at `time_ms` (K1).
pub(crate) fn is_dead(expire_at: Option<u64>, time_ms: u64) -> bool {
    expire_at.is_some_and(|expire_at| expire_at <= time_ms)
}

#[cfg(test)]
mod tests;
