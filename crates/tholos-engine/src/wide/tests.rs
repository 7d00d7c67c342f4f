//! SCAN under change, and the other questions about all keys.

use std::collections::{BTreeMap, BTreeSet};
use std::prelude::rust_2024::*;
use std::{format, panic, vec};

use super::*;
use crate::{Command, Context};

fn args(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn apply(keyspace: &mut Keyspace, index: u64, line: &str) {
    let context = Context { time_ms: index, seed: 0, index, position: 0 };
    keyspace.apply(&context, &Command::parse(&args(line)).unwrap());
}

/// A whole scan with `between` called after each step; how often each key came.
fn scan_all(
    keyspace: &mut Keyspace,
    count: usize,
    mut between: impl FnMut(&mut Keyspace, u64),
) -> BTreeMap<Bytes, u32> {
    let (mut seen, mut cursor, mut step) = (BTreeMap::new(), 0, 0);
    loop {
        let (next, keys) = keyspace.scan(cursor, &Filter::default(), count, 0);
        for key in keys {
            *seen.entry(key).or_insert(0) += 1;
        }
        if next == 0 {
            return seen;
        }
        assert!(next > cursor && next < 1 << CURSOR_BITS);
        cursor = next;
        step += 1;
        between(keyspace, step);
    }
}

#[test]
fn scan_answers_every_lasting_key_once_whatever_comes_and_goes() {
    for (mask, tag) in [(u64::MAX, ""), (u64::MAX, "{t}"), (7 << 61, ""), (7 << 61, "{t}"), (0, "{t}")] {
        let mut keyspace = Keyspace::new(0..16384, 7);
        keyspace.set_hash_mask(mask);
        for number in 0..500 {
            apply(&mut keyspace, number, &format!("SET {tag}keep{number} 1"));
            apply(&mut keyspace, number, &format!("SET {tag}drop{number} 1"));
        }
        let seen = scan_all(&mut keyspace, 7, |keyspace, step| {
            apply(keyspace, step, &format!("SET {tag}new{step} 1"));
            apply(keyspace, step, &format!("DEL {tag}drop{step}"));
        });
        for number in 0..500 {
            assert_eq!(seen.get(format!("{tag}keep{number}").as_bytes()), Some(&1), "keep{number}");
        }
        assert!(seen.values().all(|times| *times == 1));
    }
}

#[test]
fn scan_visits_about_count_keys_a_call() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    for number in 0..1000 {
        apply(&mut keyspace, number, &format!("SET {number} 1"));
    }
    let mut calls = 0;
    let seen = scan_all(&mut keyspace, 10, |_, _| calls += 1);
    assert_eq!((seen.len(), calls), (1000, 99));
}

#[test]
fn scan_filters_and_hides_the_dead() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    apply(&mut keyspace, 1, "MSET a 1 b 1 ab 1");
    apply(&mut keyspace, 1, "SET c 1 PX 5");
    let scan = |line: &str, time| match Wide::parse(&args(line)) {
        Ok(Wide::Scan { cursor, filter, count }) => {
            let (next, keys) = keyspace.scan(cursor, &filter, count, time);
            (next, keys.into_iter().collect::<BTreeSet<_>>())
        }
        other => panic!("{other:?}"),
    };
    let expect = |keys: &str| (0, args(keys).into_iter().collect::<BTreeSet<_>>());
    assert_eq!(scan("SCAN 0", 5), expect("a b c ab"));
    assert_eq!(scan("SCAN 0", 6), expect("a b ab"));
    assert_eq!(scan("SCAN 0 MATCH a* COUNT 100", 6), expect("a ab"));
    assert_eq!(scan("SCAN 0 TYPE String", 6), expect("a b ab"));
    assert_eq!(scan("SCAN 0 TYPE hash", 6), (0, BTreeSet::new()));
    assert_eq!(scan("SCAN 18446744073709551615", 6), (0, BTreeSet::new()));
    assert_eq!(keyspace.keys(&Glob::new(b"a*"), 9, 6).len(), 2);
    assert_eq!(keyspace.keys(&Glob::new(b"*"), 2, 6).len(), 2);
    assert_eq!(keyspace.keys_in_slot(tholos_ring::slot(b"c").number(), 9, 5), args("c"));
    assert!(keyspace.keys_in_slot(tholos_ring::slot(b"c").number(), 9, 6).is_empty());
    assert!(keyspace.keys_in_slot(20_000, 9, 6).is_empty());
}

#[test]
fn options_are_checked_in_redis_order() {
    let check = |line: &str, error: Value| assert_eq!(Wide::parse(&args(line)), Err(error), "{line}");
    check("SCAN x FOO", error::invalid_cursor());
    check("SCAN 0x", error::invalid_cursor());
    check("SCAN 18446744073709551616", error::invalid_cursor());
    check("SCAN 0 COUNT", error::syntax());
    check("SCAN 0 COUNT 0", error::syntax());
    check("SCAN 0 COUNT x", error::not_an_integer());
    check("SCAN 0 FOO 1", error::syntax());
    check("KEYS", error::wrong_arity("keys"));
    check("GET a", error::not_data("get"));
}

#[test]
fn random_keys_are_alive_and_every_key_has_its_turn() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    assert_eq!(keyspace.random_key(1, 1), None);
    apply(&mut keyspace, 1, "MSET a 1 b 1 {a}c 1 {a}d 1");
    apply(&mut keyspace, 1, "SET {b}dead 1 PX 5");
    let picked: BTreeSet<Bytes> = (0..200).filter_map(|seed| keyspace.random_key(seed, 6)).collect();
    assert_eq!(picked, vec!["a", "b", "{a}c", "{a}d"].into_iter().map(Bytes::from).collect());
    apply(&mut keyspace, 7, "DEL a b {a}c {a}d");
    assert_eq!(keyspace.random_key(1, 8), None, "only a dead key is left");
}
