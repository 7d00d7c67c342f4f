//! The entries of a range of slots, ordered by slot and by the keyed hash of the key.
//!
//! One B-tree for each slot, from hash to entry. A hash table would be a little smaller when full, but an ordered
//! tree gives what R25 and R24 need for nothing: SCAN and snapshots resume at (slot, hash) however much was
//! written meanwhile, no resize ever stops the shard, and nothing depends on the history of a table.
//!
//! Two keys of one slot with one 64-bit hash are *twins*. They are next to impossible, so the second and later
//! ones live in a side map, which is empty in practice.
//!
//! T1. `twins` has an entry for a place only if the slot's tree has one too, and never an empty list.
//! T2. Within a place, the order is that of insertion, with the tree's entry first.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::entry::{Entry, Stamp};
use super::hash::place_hash;

/// Where a key stands: its slot, counted from the shard's first, and its keyed hash. Ordered as SCAN walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) slot: u16,
    pub(crate) hash: u64,
}

impl Place {
    /// Before or at every other place.
    pub(crate) const FIRST: Place = Place { slot: 0, hash: 0 };
}

/// One slot: its entries, and the last write that may have taken a key away (R19).
#[derive(Debug, Default)]
struct Slot {
    entries: BTreeMap<u64, Entry>,
    absent: Stamp,
}

/// All entries of the shard.
#[derive(Debug)]
pub(crate) struct Tree {
    first_slot: u16,
    slots: Vec<Slot>,
    hash_seed: u64,
    twins: BTreeMap<Place, Vec<Entry>>,
    /// Bits of the hash that are kept; all of them, but for tests that need twins.
    hash_mask: u64,
}

impl Tree {
    pub(crate) fn new(first_slot: u16, slot_count: u16, hash_seed: u64) -> Tree {
        let slots = (0..slot_count).map(|_| Slot::default()).collect();
        Tree { first_slot, slots, hash_seed, twins: BTreeMap::new(), hash_mask: u64::MAX }
    }

    pub(crate) fn first_slot(&self) -> u16 {
        self.first_slot
    }

    pub(crate) fn slot_count(&self) -> u16 {
        self.slots.len() as u16
    }

    pub(crate) fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// Where `key` stands, or `None` if its slot is not of this shard.
    pub(crate) fn place(&self, key: &[u8]) -> Option<Place> {
        let slot = tholos_ring::slot(key).number().checked_sub(self.first_slot)?;
        let hash = place_hash(self.hash_seed, key) & self.hash_mask;
        (slot < self.slot_count()).then_some(Place { slot, hash })
    }

    pub(crate) fn get(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        let entry = self.slots[usize::from(place.slot)].entries.get(&place.hash)?;
        if entry.key() == key {
            return Some(entry);
        }
        self.twins_at(place).iter().find(|twin| twin.key() == key)
    }

    pub(crate) fn get_mut(&mut self, place: Place, key: &[u8]) -> Option<&mut Entry> {
        let entry = self.slots[usize::from(place.slot)].entries.get_mut(&place.hash)?;
        if entry.key() == key {
            return Some(entry);
        }
        self.twins.get_mut(&place)?.iter_mut().find(|twin| twin.key() == key)
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn insert(&mut self, place: Place, entry: Entry) {
        use alloc::collections::btree_map::Entry::{Occupied, Vacant};
        match self.slots[usize::from(place.slot)].entries.entry(place.hash) {
            Vacant(vacant) => {
                vacant.insert(entry);
            }
            Occupied(first) => {
                assert!(first.get().key() != entry.key(), "inserted a key twice at {place:?}");
                self.twins.entry(place).or_default().push(entry);
            }
        }
    }

    pub(crate) fn remove(&mut self, place: Place, key: &[u8]) -> Option<Entry> {
        let entries = &mut self.slots[usize::from(place.slot)].entries;
        let first = entries.get_mut(&place.hash)?;
        let Some(twins) = self.twins.get_mut(&place) else {
            return if first.key() == key { entries.remove(&place.hash) } else { None };
        };
        let removed = if first.key() == key {
            // T1: a twin takes the free place.
            core::mem::replace(first, twins.remove(0))
        } else {
            let at = twins.iter().position(|twin| twin.key() == key)?;
            twins.remove(at)
        };
        if twins.is_empty() {
            self.twins.remove(&place);
        }
        Some(removed)
    }

    /// All entries at one place: none, one, or twins.
    pub(crate) fn at(&self, place: Place) -> impl Iterator<Item = &Entry> {
        let first = self.slots[usize::from(place.slot)].entries.get(&place.hash);
        first.into_iter().chain(self.twins_at(place))
    }

    /// All entries from `from` on, in order.
    pub(crate) fn iter_from(&self, from: Place) -> impl Iterator<Item = (Place, &Entry)> {
        (from.slot..self.slot_count()).flat_map(move |slot| {
            let start = if slot == from.slot { from.hash } else { 0 };
            self.iter_slot(slot, start)
        })
    }

    /// The entries of one slot from `start` on, in order of their hash.
    pub(crate) fn iter_slot(&self, slot: u16, start: u64) -> impl Iterator<Item = (Place, &Entry)> {
        self.slots[usize::from(slot)].entries.range(start..).flat_map(move |(&hash, entry)| {
            let place = Place { slot, hash };
            core::iter::once(entry).chain(self.twins_at(place)).map(move |entry| (place, entry))
        })
    }

    /// Entries of one slot. Linear only in the number of twins.
    pub(crate) fn count_slot(&self, slot: u16) -> usize {
        let twins: usize = if self.twins.is_empty() {
            0
        } else {
            let first = Place { slot, hash: 0 };
            let last = Place { slot, hash: u64::MAX };
            self.twins.range(first..=last).map(|(_, twins)| twins.len()).sum()
        };
        self.slots[usize::from(slot)].entries.len() + twins
    }

    /// The last write that may have taken a key of this slot away.
    pub(crate) fn absent(&self, slot: u16) -> Stamp {
        self.slots[usize::from(slot)].absent
    }

    pub(crate) fn set_absent(&mut self, slot: u16, stamp: Stamp) {
        self.slots[usize::from(slot)].absent = stamp;
    }

    /// An empty tree of the same slots.
    pub(crate) fn emptied(&self) -> Tree {
        Tree { hash_mask: self.hash_mask, ..Tree::new(self.first_slot, self.slot_count(), self.hash_seed) }
    }

    fn twins_at(&self, place: Place) -> &[Entry] {
        if self.twins.is_empty() {
            return &[];
        }
        self.twins.get(&place).map_or(&[], Vec::as_slice)
    }

    /// Makes twins common, for tests.
    #[cfg(test)]
    pub(crate) fn set_hash_mask(&mut self, mask: u64) {
        assert!(self.slots.iter().all(|slot| slot.entries.is_empty()), "the mask moves no keys");
        self.hash_mask = mask;
    }
}
