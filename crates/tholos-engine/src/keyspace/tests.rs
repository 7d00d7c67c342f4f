//! The keyspace's own books: sums, expiry index, twins, versions and snapshots, under random commands.

use std::prelude::rust_2024::*;
use std::{format, vec};

use bytes::Bytes;

use super::*;
use crate::snapshot::Loader;

/// Small numbers that look random; the sequence is that of its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

impl Keyspace {
    /// An empty keyspace where many keys share a place.
    fn crowded(mask: u64) -> Keyspace {
        let mut keyspace = Keyspace::new(0..16384, 7);
        keyspace.set_hash_mask(mask);
        keyspace
    }

    pub(crate) fn set_hash_mask(&mut self, mask: u64) {
        self.store.set_hash_mask(mask);
    }

    /// Recounts everything that `settle` keeps in step (K2, K3).
    fn assert_books(&self) {
        let mut due = BTreeSet::new();
        let (mut len, mut digest, mut bytes) = (0, 0_u64, 0);
        for (place, entry) in self.store.iter_from(Place::FIRST) {
            len += 1;
            digest = digest.wrapping_add(entry.digest());
            bytes += entry.allocated_bytes();
            due.extend(entry.expire_at().map(|at_ms| Due { at_ms, place }));
        }
        for slot in 0..self.store.slot_count() {
            digest = digest.wrapping_add(absent_digest(slot, self.store.absent(slot)));
        }
        assert_eq!((self.len, self.digest, self.allocated_bytes), (len, digest, bytes));
        assert_eq!(self.due, due);
    }
}

fn command(line: &str) -> Command {
    let args: Vec<Bytes> = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
    Command::parse(&args).unwrap()
}

/// Any command on one of so many keys of one slot.
fn random_command(random: &mut Random, keys: u64) -> Command {
    let key = random.below(keys);
    let other = random.below(keys);
    let number = random.below(60);
    let line = match random.below(14) {
        0 | 1 => format!("SET {{a}}{key} value{number}"),
        2 => format!("SET {{a}}{key} {number} PX {}", number + 1),
        3 => format!("DEL {{a}}{key} {{a}}{other}"),
        4 => format!("INCRBY {{a}}{key} {number}"),
        5 => format!("APPEND {{a}}{key} {}", "x".repeat(number as usize * 30)),
        6 => format!("PEXPIRE {{a}}{key} {number}"),
        7 => format!("PERSIST {{a}}{key}"),
        8 => format!("RENAME {{a}}{key} {{a}}{other}"),
        9 => format!("SETRANGE {{a}}{key} {number} abc"),
        10 => format!("GETEX {{a}}{key} PX {number}"),
        11 => format!("MSET {{a}}{key} 1 {{a}}{other} two"),
        12 => format!("SET {{a}}{key} v PXAT 1"),
        _ => format!("GETDEL {{a}}{key}"),
    };
    command(&line)
}

fn context(time_ms: u64, index: u64) -> Context {
    Context { time_ms, seed: index, index, position: (index % 3) as u32 }
}

/// The snapshot under way, to its end, in slices of `entries_max` entries.
fn rest_of_snapshot(keyspace: &mut Keyspace, entries_max: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = keyspace.next_snapshot_chunk(entries_max) {
        bytes.extend(chunk);
    }
    bytes
}

fn load(bytes: &[u8], cut: usize) -> Result<Keyspace, crate::SnapshotError> {
    let mut loader = Loader::new();
    for chunk in bytes.chunks(cut) {
        loader.push(chunk)?;
    }
    loader.finish()
}

#[test]
fn books_agree_after_any_commands_even_with_twins() {
    for (seed, mask, keys) in
        [(1, u64::MAX, 40), (2, u64::MAX, 600), (3, 3, 40), (4, 3, 40), (5, 0, 40), (6, 7 << 61, 600)]
    {
        let mut random = Random(seed);
        let mut keyspace = Keyspace::crowded(mask);
        for index in 1..3000 {
            let time = 1000 + index / 3;
            keyspace.evict_due(time, random.below(3) as usize);
            keyspace.apply(&context(time, index), &random_command(&mut random, keys));
            if index % 50 == 0 {
                keyspace.assert_books();
                assert_eq!(keyspace.count_in_slot(15495, time), keyspace.len(time));
            }
        }
        keyspace.apply(&context(2000, 3000), &command("FLUSHALL"));
        keyspace.assert_books();
        assert!(keyspace.is_empty(0));
    }
}

#[test]
fn digest_tells_what_was_forgotten() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    let mut seen = vec![keyspace.digest()];
    for (index, line) in
        ["SET a 1", "SET a 2", "PEXPIRE a 1000", "PERSIST a", "APPEND a x", "DEL a"].iter().enumerate()
    {
        keyspace.apply(&context(1, index as u64 + 1), &command(line));
        assert!(!seen.contains(&keyspace.digest()), "{line}");
        seen.push(keyspace.digest());
    }
    keyspace.apply(&context(1, 99), &command("GET a"));
    keyspace.apply(&context(1, 99), &command("DEL a"));
    assert_eq!(seen.last(), Some(&keyspace.digest()), "what changes nothing leaves the digest");
}

#[test]
fn snapshot_is_the_state_at_its_start_whatever_follows() {
    let few = [(1, u64::MAX, false), (2, 7, false), (3, 7, true), (4, u64::MAX, true)];
    let cases = few.into_iter().flat_map(|case| [(case, 40), (case, 600)]);
    for ((seed, mask, flush), keys) in cases {
        let mut random = Random(seed);
        let mut keyspace = Keyspace::crowded(mask);
        let start = 12 * keys;
        for index in 1..start {
            keyspace.apply(&context(1, index), &random_command(&mut random, keys));
        }
        let (digest, len) = (keyspace.digest(), keyspace.entry_count());
        keyspace.begin_snapshot(100);
        let mut bytes = Vec::new();
        for step in 0..2 * keys {
            bytes.extend(keyspace.next_snapshot_chunk(3).unwrap_or_default());
            keyspace.apply(&context(step, start + step), &random_command(&mut random, keys));
            keyspace.evict_due(step, 2);
            if flush && step == keys / 4 {
                keyspace.apply(&context(step, start + step), &command("FLUSHALL"));
            }
        }
        bytes.extend(rest_of_snapshot(&mut keyspace, 5));
        assert!(!keyspace.snapshot_under_way());
        assert_eq!(keyspace.take_discarded().is_some(), flush, "seed {seed}");
        keyspace.assert_books();
        let loaded = load_masked(&bytes, mask);
        loaded.assert_books();
        assert_eq!((loaded.digest(), loaded.entry_count()), (digest, len), "seed {seed}");
    }
}

/// A slice ends at so many entries, also where every one of them is written already; all chunks but the last are of
/// one length, whatever the lengths of the entries.
#[test]
fn slices_are_bounded_in_bytes_and_entries() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    let write = |keyspace: &mut Keyspace, round: u64| {
        for key in 0..1000 {
            let value = "v".repeat(1 + key as usize % 97);
            let line = format!("SET k{key} {value}");
            keyspace.apply(&context(1, round * 1000 + key), &command(&line));
        }
    };
    write(&mut keyspace, 1);
    let digest = keyspace.digest();
    keyspace.begin_snapshot(500);
    write(&mut keyspace, 2);
    let chunks: Vec<_> = std::iter::from_fn(|| keyspace.next_snapshot_chunk(10)).collect();
    let (empty, mut full): (Vec<_>, Vec<_>) = chunks.into_iter().partition(Vec::is_empty);
    assert!((90..=100).contains(&empty.len()), "{} slices passed what was written", empty.len());
    let last = full.pop().unwrap();
    assert!((1..=500).contains(&last.len()) && full.iter().all(|chunk| chunk.len() == 500));
    let bytes = [full.concat(), last].concat();
    assert_eq!(load(&bytes, usize::MAX).unwrap().digest(), digest);
}

#[test]
fn what_is_flushed_is_handed_out_to_be_dropped_elsewhere() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    let run = |keyspace: &mut Keyspace, line: &str| drop(keyspace.apply(&context(1, 1), &command(line)));
    run(&mut keyspace, "FLUSHALL");
    assert!(keyspace.take_discarded().is_none(), "nothing was there");
    run(&mut keyspace, "SET a 1");
    run(&mut keyspace, "FLUSHALL");
    assert!(keyspace.take_discarded().is_some());
    run(&mut keyspace, "SET a 1");
    keyspace.begin_snapshot(100);
    run(&mut keyspace, "FLUSHALL");
    assert!(keyspace.take_discarded().is_none(), "the snapshot needs it");
    keyspace.cancel_snapshot();
    assert!(keyspace.take_discarded().is_some());
}

/// Loads into a crowded keyspace, as the mask is not part of a snapshot.
fn load_masked(bytes: &[u8], mask: u64) -> Keyspace {
    let mut loader = Loader::new();
    loader.push(&bytes[..22]).unwrap();
    loader.set_hash_mask(mask);
    loader.push(&bytes[22..]).unwrap();
    loader.finish().unwrap()
}

#[test]
fn damaged_snapshots_are_refused_and_never_panic() {
    // The tag lies in slot 0.
    let mut keyspace = Keyspace::new(0..4, 7);
    let lines =
        ["SET {06S}a 1", "SET {06S}b text PX 50", "APPEND {06S}a x", "DEL {06S}b", "SETRANGE {06S}c 1100 x"];
    for (line, index) in lines.into_iter().zip(1..) {
        assert!(!keyspace.apply(&context(index, index), &command(line)).is_error());
    }
    keyspace.begin_snapshot(4096);
    let bytes = rest_of_snapshot(&mut keyspace, 4096);
    for cut in [1, 7, 1000, usize::MAX] {
        assert_eq!(load(&bytes, cut).unwrap().digest(), keyspace.digest(), "cut {cut}");
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert!(load(&damaged, usize::MAX).is_err(), "bit {bit} of byte {at}");
        }
    }
    for length in 0..bytes.len() {
        assert!(load(&bytes[..length], usize::MAX).is_err(), "cut to {length}");
    }
    let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
    assert!(load(&longer, usize::MAX).is_err());
}

#[test]
fn versions_follow_logical_liveness() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    let mut index = 0;
    let mut run = |keyspace: &mut Keyspace, time: u64, line: &str| {
        index += 1;
        keyspace.apply(&context(time, index), &command(line));
    };
    let never = keyspace.version(b"a", 0);
    run(&mut keyspace, 0, "SET a 1");
    let first = keyspace.version(b"a", 0);
    assert_ne!(first, never);
    run(&mut keyspace, 0, "GET a");
    run(&mut keyspace, 0, "DEL b");
    assert_eq!(keyspace.version(b"a", 0), first, "reads and others' writes leave it");
    run(&mut keyspace, 0, "PEXPIRE a 10");
    let mortal = keyspace.version(b"a", 0);
    assert_ne!(mortal, first);
    assert_eq!(keyspace.version(b"a", 9), mortal);
    let dead = keyspace.version(b"a", 10);
    assert_ne!(dead, mortal, "death by TTL is a change");
    keyspace.evict_due(10, 1);
    assert_eq!(keyspace.version(b"a", 10), dead, "eviction is none");
    run(&mut keyspace, 10, "SET a 1 PX 5");
    assert_ne!(keyspace.version(b"a", 15), dead, "it came and went in between");
    run(&mut keyspace, 20, "DEL a");
    assert_eq!(keyspace.version(b"a", 20), keyspace.version(b"a", 21));
}

#[test]
fn only_keys_of_the_shard_are_touched() {
    let mut keyspace = Keyspace::new(0..256, 7);
    let reply = keyspace.apply(&context(1, 1), &command("SET foo 1"));
    assert!(reply.is_error(), "slot 12182 is of another shard");
    assert!(keyspace.read(1, &command("GET foo")).is_error());
    assert_eq!(keyspace.count_in_slot(12182, 1), 0);
}

#[test]
fn eviction_is_bounded_and_in_order_of_expiry() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    for (index, line) in ["SET c 1 PX 30", "SET a 1 PX 10", "SET b 1 PX 20", "SET d 1"].iter().enumerate() {
        keyspace.apply(&context(0, index as u64 + 1), &command(line));
    }
    assert_eq!(keyspace.next_due_ms(), Some(10));
    assert_eq!((keyspace.evict_due(9, 9), keyspace.len(9), keyspace.len(30)), (0, 4, 1));
    assert_eq!((keyspace.evict_due(25, 1), keyspace.next_due_ms()), (1, Some(20)));
    assert_eq!((keyspace.evict_due(25, 9), keyspace.next_due_ms()), (1, Some(30)));
    assert!(keyspace.expired_by(30, 29, &command("MGET d c")));
    assert!(!keyspace.expired_by(29, 28, &command("MGET d c")));
    assert!(!keyspace.expired_by(30, 30, &command("MGET d c")));
    assert!(!keyspace.expired_by(30, 29, &command("GET d")));
}

#[test]
fn flush_changes_the_versions_of_slots_that_had_keys() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    keyspace.apply(&context(1, 1), &command("SET a 1"));
    let before = ["a", "{a}none", "b"].map(|key| keyspace.version(key.as_bytes(), 1));
    keyspace.apply(&context(1, 2), &command("FLUSHALL"));
    let after = ["a", "{a}none", "b"].map(|key| keyspace.version(key.as_bytes(), 1));
    assert!(before[0] != after[0] && before[1] != after[1] && before[2] == after[2]);
}

#[test]
fn twins_stand_in_the_order_of_their_keys() {
    let mut keyspace = Keyspace::crowded(0);
    let order = |keyspace: &Keyspace| keyspace.keys_in_slot(15495, 9, 1).concat();
    keyspace.apply(&context(1, 1), &command("MSET {a}3 1 {a}1 1 {a}4 1 {a}2 1"));
    assert_eq!(order(&keyspace), b"{a}1{a}2{a}3{a}4");
    keyspace.apply(&context(1, 2), &command("DEL {a}1"));
    assert_eq!(order(&keyspace), b"{a}2{a}3{a}4");
    keyspace.apply(&context(1, 3), &command("DEL {a}3"));
    assert_eq!(order(&keyspace), b"{a}2{a}4");
}

#[test]
fn locations_lead_to_the_entries_that_are_there() {
    let mut keyspace = Keyspace::new(0..256, 7);
    // The tag lies in slot 0; there are enough keys for several pages, and a long one.
    for number in 0..300 {
        keyspace.apply(&context(1, 1), &command(&format!("SET {{06S}}{number} 1")));
    }
    keyspace.apply(&context(1, 1), &command(&format!("SET {{06S}}long {}", "x".repeat(2000))));
    let found = |key: &str| {
        let location = keyspace.locate(key.as_bytes())?;
        let _ = keyspace.prefetch_item(location);
        keyspace.prefetch_entry(location)
    };
    assert!((0..300).all(|number| found(&format!("{{06S}}{number}")).is_some()));
    assert!(found("{06S}long").is_some());
    assert!((300..600).all(|number| found(&format!("{{06S}}{number}")).is_none()));
    assert!(keyspace.locate(b"foo").is_none(), "slot 12182 is of another shard");
}
