//! One file of the simulated disk: what a reader sees, and what the disk has instead.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::SECTOR_BYTES;

type Sector = [u8; SECTOR_BYTES];

/// What became of unsynced sectors when the power failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SectorFates {
    /// Reached the disk all the same.
    pub kept: u64,
    /// Did not.
    pub lost: u64,
    /// Reached it in part, or as garbage.
    pub torn: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a reader sees.
    pub(super) bytes: Vec<u8>,
    /// What the disk has instead, for each sector written since the last sync.
    pub(super) unsynced: BTreeMap<usize, Sector>,
    /// The same for sectors whose sync failed: later syncs do not reach them.
    pub(super) lost: BTreeMap<usize, Sector>,
    pub(super) durable_length: usize,
    /// Sectors that cannot be read until they are written again.
    pub(super) unreadable: BTreeSet<usize>,
}

impl Inode {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if bytes.is_empty() {
            return;
        }
        for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            self.unreadable.remove(&sector);
            if !self.unsynced.contains_key(&sector) {
                let durable = self.lost.remove(&sector).unwrap_or_else(|| self.sector(sector));
                self.unsynced.insert(sector, durable);
            }
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn sector(&self, sector: usize) -> Sector {
        let mut copy = [0; SECTOR_BYTES];
        let start = (sector * SECTOR_BYTES).min(self.bytes.len());
        let end = (start + SECTOR_BYTES).min(self.bytes.len());
        copy[..end - start].copy_from_slice(&self.bytes[start..end]);
        copy
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.durable_length = self.bytes.len();
    }

    pub(super) fn fail_sync(&mut self) {
        self.lost.append(&mut self.unsynced);
    }

    pub(super) fn lose_power(&mut self, random: &mut Random, fates: &mut SectorFates) {
        let written = std::mem::take(&mut self.bytes);
        let mut durable = written.clone();
        let mut length = self.durable_length;
        let mut put = |sector: usize, bytes: &[u8]| {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(durable.len());
            durable[start..end].copy_from_slice(&bytes[..end - start]);
        };
        for (sector, old) in std::mem::take(&mut self.lost) {
            put(sector, &old);
        }
        // One file in four keeps all, one loses all, one keeps a prefix, one any subset: plain fates are the common ones.
        let fate = random.below(4);
        let cut = random.below(self.unsynced.len() as u64 + 1);
        for (nth, (sector, old)) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            let kept = match fate {
                0 => true,
                1 => false,
                2 => (nth as u64) < cut,
                _ => random.below(2) == 0,
            };
            let torn = random.below(4) == 0 && fate >= 2;
            match (torn, kept) {
                (true, _) => fates.torn += 1,
                (false, true) => fates.kept += 1,
                (false, false) => fates.lost += 1,
            }
            if torn {
                let mut mixed = old;
                let from = random.below(SECTOR_BYTES as u64) as usize;
                for (at, byte) in mixed.iter_mut().enumerate().skip(from) {
                    *byte = match fate {
                        2 => written.get(sector * SECTOR_BYTES + at).copied().unwrap_or(0),
                        _ => random.next() as u8,
                    };
                }
                put(sector, &mixed);
            } else if !kept {
                put(sector, &old);
            }
            if kept || torn {
                length = length.max(((sector + 1) * SECTOR_BYTES).min(written.len()));
            }
        }
        durable.truncate(length);
        self.bytes = durable;
        self.durable_length = length;
    }
}

/// Damage to what was durable.
impl Inode {
    /// Sectors that are on the disk as a reader sees them, and hold something.
    pub(super) fn durable_sectors(&self) -> Vec<usize> {
        let all = self.durable_length.min(self.bytes.len()).div_ceil(SECTOR_BYTES);
        let whole = |sector: &usize| {
            !self.unsynced.contains_key(sector)
                && !self.lost.contains_key(sector)
                && !self.unreadable.contains(sector)
        };
        (0..all).filter(whole).filter(|sector| self.sector(*sector) != [0; SECTOR_BYTES]).collect()
    }

    pub(super) fn flip_bit(&mut self, sector: usize, random: &mut Random) {
        let start = sector * SECTOR_BYTES;
        let length = SECTOR_BYTES.min(self.bytes.len() - start);
        self.bytes[start + random.below(length as u64) as usize] ^= 1 << random.below(8);
    }

    pub(super) fn lose_sector(&mut self, sector: usize, _: &mut Random) {
        self.unreadable.insert(sector);
    }

    /// Another place than `offset` for a write of `length` bytes, as far as the file has one.
    pub(super) fn other_place(&self, offset: usize, length: usize, random: &mut Random) -> usize {
        let places = self.bytes.len().saturating_sub(length) / SECTOR_BYTES;
        let place = random.below(places as u64 + 1) as usize * SECTOR_BYTES;
        if place == offset { place.saturating_sub(SECTOR_BYTES) } else { place }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
