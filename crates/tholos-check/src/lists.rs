//! Small containers of the search: which unknown operations were used, and a quick hash.

use alloc::vec;
use alloc::vec::Vec;
use core::hash::Hasher;

use super::HashMap;

/// Sorted lists of (class, how many used), each once and by number; 0 is the empty one.
pub(super) struct UsedLists {
    lists: Vec<Vec<(u32, u32)>>,
    numbers: HashMap<Vec<(u32, u32)>, u32>,
}

impl Default for UsedLists {
    fn default() -> Self {
        Self { lists: vec![Vec::new()], numbers: HashMap::from_iter([(Vec::new(), 0)]) }
    }
}

impl UsedLists {
    pub(super) fn count(&self, list: u32, class: u32) -> u32 {
        let list = &self.lists[list as usize];
        list.binary_search_by_key(&class, |&(class, _)| class).map_or(0, |at| list[at].1)
    }

    pub(super) fn with(&mut self, list: u32, class: u32) -> u32 {
        let mut longer = self.lists[list as usize].clone();
        match longer.binary_search_by_key(&class, |&(class, _)| class) {
            Ok(at) => longer[at].1 += 1,
            Err(at) => longer.insert(at, (class, 1)),
        }
        let next = self.lists.len() as u32;
        let number = *self.numbers.entry(longer.clone()).or_insert(next);
        if number == next {
            self.lists.push(longer);
        }
        number
    }

    pub(super) fn is_within(&self, inner: u32, outer: u32) -> bool {
        inner == outer || self.lists[inner as usize].iter().all(|&(class, n)| n <= self.count(outer, class))
    }
}

/// A quick hash for our own numbers; the same in every run.
#[derive(Default)]
pub(super) struct MixHasher(u64);

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
