//! The entries of a range of slots, ordered by slot and by the keyed hash of the key.
//!
//! Each slot has its own [`Pages`]: they are counted, and walked in order, for CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT,
//! SCAN (R25) and snapshots (R24). A walk resumes at (slot, hash) however much was written meanwhile.

use alloc::boxed::Box;

use super::entry::{Entry, Stamp};
use super::hash::place_hash;
use super::pages::Pages;

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

/// All entries of the shard.
#[derive(Debug)]
pub(crate) struct Slots {
    first_slot: u16,
    slots: Box<[Pages]>,
    /// For each slot the last write that may have taken a key away (R19); apart, as most commands do not look, and empty until
    /// one has.
    absent: Box<[Stamp]>,
    hash_seed: u64,
    /// Bits of the hash that are kept: all of them, but for tests that need twins.
    #[cfg(test)]
    hash_mask: u64,
}

impl Slots {
    pub(crate) fn new(first_slot: u16, slot_count: u16, hash_seed: u64) -> Slots {
        let slots = (0..slot_count).map(|_| Pages::default()).collect();
        Slots {
            first_slot,
            slots,
            absent: Box::default(),
            hash_seed,
            #[cfg(test)]
            hash_mask: u64::MAX,
        }
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
        let hash = place_hash(self.hash_seed, key);
        #[cfg(test)]
        let hash = hash & self.hash_mask;
        (slot < self.slot_count()).then_some(Place { slot, hash })
    }

    /// See [`Pages::prefetch_item`].
    pub(crate) fn prefetch_item(&self, place: Place) -> u64 {
        self.slots[usize::from(place.slot)].prefetch_item(place.hash)
    }

    pub(crate) fn get(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        self.slots[usize::from(place.slot)].get(place.hash, key)
    }

    pub(crate) fn get_mut(&mut self, place: Place, key: &[u8]) -> Option<&mut Entry> {
        self.slots[usize::from(place.slot)].get_mut(place.hash, key)
    }

    /// Adds an entry whose key is not there yet.
    pub(crate) fn insert(&mut self, place: Place, entry: Entry) {
        self.slots[usize::from(place.slot)].insert(place.hash, entry);
    }

    pub(crate) fn remove(&mut self, place: Place, key: &[u8]) -> Option<Entry> {
        self.slots[usize::from(place.slot)].remove(place.hash, key)
    }

    /// All entries at one place: none, one, or twins.
    pub(crate) fn at(&self, place: Place) -> impl Iterator<Item = &Entry> {
        self.slots[usize::from(place.slot)].at(place.hash)
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
        let items = self.slots[usize::from(slot)].iter_from(start);
        items.map(move |item| (Place { slot, hash: item.hash }, &item.entry))
    }

    /// Entries of one slot.
    pub(crate) fn count_slot(&self, slot: u16) -> usize {
        self.slots[usize::from(slot)].len()
    }

    /// The last write that may have taken a key of this slot away.
    pub(crate) fn absent(&self, slot: u16) -> Stamp {
        self.absent.get(usize::from(slot)).copied().unwrap_or_default()
    }

    pub(crate) fn set_absent(&mut self, slot: u16, stamp: Stamp) {
        if self.absent.is_empty() {
            if stamp == Stamp::default() {
                return;
            }
            self.absent = alloc::vec![Stamp::default(); self.slots.len()].into();
        }
        self.absent[usize::from(slot)] = stamp;
    }

    /// The same slots without entries.
    pub(crate) fn emptied(&self) -> Slots {
        Slots {
            #[cfg(test)]
            hash_mask: self.hash_mask,
            ..Slots::new(self.first_slot, self.slot_count(), self.hash_seed)
        }
    }

    /// Makes twins common, for tests.
    #[cfg(test)]
    pub(crate) fn set_hash_mask(&mut self, mask: u64) {
        assert!(self.slots.iter().all(|slot| slot.len() == 0), "the mask moves no keys");
        self.hash_mask = mask;
    }
}
