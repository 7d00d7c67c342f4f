//! Pages against a map that is ordered alike, under any changes and with hashes that are spread badly.

use std::collections::BTreeMap;
use std::prelude::rust_2024::*;
use std::{format, vec};

use proptest::prelude::*;

use super::*;
use crate::store::entry::{Content, Stamp, View};
use crate::store::hash::{mix, place_hash};

/// What [`Pages`] must hold, in its order.
type Model = BTreeMap<(u64, Vec<u8>), u64>;

fn entry(key: &[u8], index: u64) -> Entry {
    let stamp = Stamp { index, position: 0 };
    Entry::new(View { key, stamp, expire_at: None, content: Content::Integer(0) })
}

fn key(number: u64) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

impl Pages {
    fn all(&self) -> &[Page] {
        match &self.0 {
            Form::One(page) => core::slice::from_ref(page),
            Form::Many { pages, .. } => pages,
        }
    }

    fn assert_invariants(&self) {
        let pages = self.all();
        for (number, page) in pages.iter().enumerate() {
            assert!(page.is_sorted_by_key(|item| (item.hash, item.entry.key())), "T1: page {number}");
            let own = |item: &Item| Range::of(item.hash, pages.len()).page == number;
            assert!(page.iter().all(own), "T2: page {number} of {}", pages.len());
            assert!(
                page.capacity() <= 2 * page.len() + 3 * GROWTH_ITEMS_MIN,
                "page {number} has much to spare"
            );
        }
        let len = self.len();
        assert_eq!(len, pages.iter().map(Vec::len).sum());
        assert!(len <= pages.len() * PAGE_ENTRIES_MAX, "{len} entries in {} pages", pages.len());
        assert!(pages.len() == 1 || len >= pages.len() * PAGE_ENTRIES_MIN, "{len} in {}", pages.len());
    }

    fn assert_is(&self, model: &Model, from: u64) {
        let item = |item: &Item| (item.hash, item.entry.key().to_vec(), item.entry.view().stamp.index);
        let expected =
            model.range((from, Vec::new())..).map(|((hash, key), index)| (*hash, key.clone(), *index));
        assert_eq!(self.iter_from(from).map(item).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        self.assert_invariants();
    }
}

/// Does the same to pages and model; `hash_of` decides how well the hashes are spread.
fn run(hash_of: impl Fn(u64) -> u64, keys: u64, seed: u64, steps: u64) {
    let (mut pages, mut model) = (Pages::default(), Model::new());
    for step in 0..steps {
        let chance = mix(seed, step);
        let (name, hash) = (key(chance % keys), hash_of(chance % keys));
        let at = (hash, name);
        assert_eq!(pages.get(hash, &at.1).map(|entry| entry.view().stamp.index), model.get(&at).copied());
        // Mostly comes, then mostly goes, and so on.
        let goes = (chance >> 40) % 8 < if (step / keys).is_multiple_of(2) { 1 } else { 7 };
        if goes {
            let removed = pages.remove(hash, &at.1).map(|entry| entry.view().stamp.index);
            assert_eq!(removed, model.remove(&at));
        } else if let Some(old) = pages.get_mut(hash, &at.1) {
            old.set(Stamp { index: step, position: 0 }, None, Content::Integer(1));
            model.insert(at, step);
        } else {
            pages.insert(hash, entry(&at.1, step));
            model.insert(at, step);
        }
        assert_eq!(
            pages.at(hash).count(),
            model.range((hash, Vec::new())..).take_while(|((other, _), _)| *other == hash).count()
        );
        if step % 64 == 0 {
            pages.assert_is(&model, 0);
            pages.assert_is(&model, hash);
            pages.assert_is(&model, mix(seed, step + 1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_hold_what_a_map_holds(
        seed: u64,
        keys in 1..1500_u64,
        // All bits of the hash, few in front, few at the end, none: from no twins to nothing but twins.
        mask in prop_oneof![Just(u64::MAX), Just(0xff << 56), Just(0xffff), Just(1 << 63 | 1), Just(0)],
    ) {
        run(|number| place_hash(seed, &key(number)) & mask, keys, seed, 6 * keys);
    }
}

#[test]
fn a_change_cuts_or_joins_one_page_at_most() {
    let mut pages = Pages::default();
    let counts = |pages: &Pages| pages.all().iter().map(Vec::len).collect::<Vec<_>>();
    let mut before = counts(&pages);
    let mut compare = |pages: &Pages| {
        let after = counts(pages);
        let others = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(others <= 2 && before.len().abs_diff(after.len()) <= 1, "{before:?} {after:?}");
        before = after;
    };
    for number in 0..5000 {
        pages.insert(mix(number, 1), entry(&key(number), 0));
        compare(&pages);
    }
    for number in 0..5000 {
        assert!(pages.remove(mix(number, 1), &key(number)).is_some());
        compare(&pages);
    }
    assert_eq!(pages.all().len(), 1);
}

#[test]
fn pages_stay_short_in_a_slot_of_many_keys() {
    let mut pages = Pages::default();
    for number in 0..100_000 {
        pages.insert(place_hash(7, &key(number)), entry(&key(number), 0));
    }
    pages.assert_invariants();
    let longest = pages.all().iter().map(Vec::len).max();
    assert!(longest.is_some_and(|longest| longest < 3 * PAGE_ENTRIES_MAX), "{longest:?}");
}

#[test]
fn a_slot_is_half_a_cache_line() {
    assert_eq!(size_of::<Pages>(), 32);
    assert_eq!(size_of::<Item>(), 24);
}

#[test]
#[should_panic(expected = "inserted a key twice")]
fn a_key_is_inserted_once() {
    let mut pages = Pages::default();
    for name in [&b"a"[..], b"b", b"a"] {
        pages.insert(7, entry(name, 0));
    }
}

#[test]
fn the_end_of_the_last_page_is_the_end() {
    let ends = |count: usize, hash: u64| Range::of(hash, count).end(hash);
    let cases = [
        (1, 5, None),
        (2, 5, Some(1 << 63)),
        (2, 1 << 63, None),
        (3, 0, Some(1 << 62)),
        (3, 1 << 63, None),
        (3, u64::MAX, None),
    ];
    for (count, hash, end) in cases {
        assert_eq!(ends(count, hash), end, "{hash:#x} of {count}");
    }
    assert_eq!(vec![0, 2, 1, 1], [0, 1, 2, 3].map(|top: u64| Range::of(top << 62, 3).page));
}
