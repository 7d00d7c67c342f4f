//! What finding a key costs: the keyspace beside two plain structures that do as much, in one run.
//!
//! ```text
//! cargo run --release -p tholos-engine --example lookups -- --keys 1000000
//! ```
//!
//! *Trees* are one B-tree a slot from the keyed hash to the entry, which the keyspace had once; *tables* one hash table a
//! slot, which can neither be walked in order nor grow without a halt. They find a key and copy its value, or overwrite it;
//! the keyspace also keeps digests, versions and sums, and answers as a command. With `--tag 1` all keys are in one slot.
//! Rounds are taken by turns and the median counts, so that the ratios hold on a machine that has other work.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use tholos_engine::{Command, Context, Keyspace};
use tholos_resp::Value;

/// Shards of a cluster that was created without saying how many.
const SHARDS: u16 = 64;
const SLOTS_PER_SHARD: u16 = tholos_ring::SLOT_COUNT / SHARDS;
const VALUE: [u8; 64] = [b'x'; 64];
const ROUNDS: usize = 301;
const ROUND_KEYS: u64 = 1_000;

/// A key and its value in one allocation, as in the keyspace.
type Plain = Box<[u8]>;

struct Stores {
    trees: Vec<BTreeMap<u64, Plain>>,
    tables: Vec<HashMap<u64, Plain>>,
    keyspaces: Vec<Keyspace>,
    hasher: RandomState,
    index: u64,
}

fn main() {
    let keys = option("--keys").unwrap_or(1_000_000).max(1);
    let tag = option("--tag") == Some(1);
    let starts = (0..SHARDS).map(|shard| shard * SLOTS_PER_SHARD);
    let slots = usize::from(tholos_ring::SLOT_COUNT);
    let mut stores = Stores {
        trees: vec![BTreeMap::new(); slots],
        tables: vec![HashMap::new(); slots],
        keyspaces: starts.map(|start| Keyspace::new(start..start + SLOTS_PER_SHARD, 7)).collect(),
        hasher: RandomState::new(),
        index: 0,
    };
    let fill: Vec<Bytes> = (0..keys).map(|number| name(number, tag)).collect();
    println!("{keys} keys, nanoseconds each: trees, tables, keyspace");
    report("SET new", &[[stores.set_trees(&fill), stores.set_tables(&fill), stores.set_keyspaces(&fill)]]);
    let mut chance = 1_u64;
    let mut sets = Vec::new();
    let mut gets = Vec::new();
    for _ in 0..ROUNDS {
        let mut some = || {
            let next = || {
                chance =
                    chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                name((chance >> 33) % keys, tag)
            };
            std::iter::repeat_with(next).take(ROUND_KEYS as usize).collect::<Vec<_>>()
        };
        // Each structure has keys of its own: none finds warm what another has touched, but for the command's own bytes.
        let (one, two, three) = (some(), some(), some());
        sets.push([stores.set_trees(&one), stores.set_tables(&two), stores.set_keyspaces(&three)]);
        gets.push([stores.get_trees(&two), stores.get_tables(&three), stores.get_keyspaces(&one)]);
    }
    report("SET old", &sets);
    report("GET", &gets);
}

impl Stores {
    fn set_trees(&mut self, keys: &[Bytes]) -> f64 {
        timed(keys, |key| {
            let (slot, hash) = place(&self.hasher, key);
            match self.trees[slot].get_mut(&hash) {
                Some(old) => overwrite(old, key),
                None => self.trees[slot].insert(hash, plain(key)).map_or(0, |old| old.len()),
            }
        })
    }

    fn set_tables(&mut self, keys: &[Bytes]) -> f64 {
        timed(keys, |key| {
            let (slot, hash) = place(&self.hasher, key);
            match self.tables[slot].get_mut(&hash) {
                Some(old) => overwrite(old, key),
                None => self.tables[slot].insert(hash, plain(key)).map_or(0, |old| old.len()),
            }
        })
    }

    fn set_keyspaces(&mut self, keys: &[Bytes]) -> f64 {
        let value = Bytes::from_static(&VALUE);
        let set = |key: &Bytes| command(&[Bytes::from_static(b"SET"), key.clone(), value.clone()]);
        let commands: Vec<(usize, Command)> = keys.iter().map(|key| (shard(key), set(key))).collect();
        timed(&commands, |(shard, command)| {
            self.index += 1;
            let context = Context { time_ms: 1, seed: 1, index: self.index, position: 0 };
            black_box(self.keyspaces[*shard].apply(&context, command));
            self.keyspaces[*shard].digest() as usize
        })
    }

    fn get_trees(&self, keys: &[Bytes]) -> f64 {
        timed(keys, |key| {
            let (slot, hash) = place(&self.hasher, key);
            self.trees[slot].get(&hash).map_or(0, |entry| value(entry, key))
        })
    }

    fn get_tables(&self, keys: &[Bytes]) -> f64 {
        timed(keys, |key| {
            let (slot, hash) = place(&self.hasher, key);
            self.tables[slot].get(&hash).map_or(0, |entry| value(entry, key))
        })
    }

    fn get_keyspaces(&self, keys: &[Bytes]) -> f64 {
        let get = |key: &Bytes| command(&[Bytes::from_static(b"GET"), key.clone()]);
        let commands: Vec<(usize, Command)> = keys.iter().map(|key| (shard(key), get(key))).collect();
        timed(&commands, |(shard, command)| match self.keyspaces[*shard].read(1, command) {
            Value::Bulk(value) => usize::from(value[0]),
            _ => 0,
        })
    }
}

/// Nanoseconds for each of `items`. A processor would go on to the next while the last still waits for memory, which a
/// server that has much else to do in between sees nothing of: so where the next lies depends on what the last gives.
fn timed<T>(items: &[T], mut run: impl FnMut(&T) -> usize) -> f64 {
    let (start, nothing, mut seen) = (Instant::now(), black_box(0), 0);
    for at in 0..items.len() {
        seen = run(&items[at + (seen & nothing)]);
    }
    start.elapsed().as_nanos() as f64 / items.len() as f64
}

/// The median of each structure, and its ratio to that of the trees.
fn report(what: &str, rounds: &[[f64; 3]]) {
    let median = |at: usize| {
        let mut all: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let [trees, tables, keyspace] = [0, 1, 2].map(median);
    let (tables_ratio, ratio) = (tables / trees, keyspace / trees);
    println!("{what}: {trees:.0}, {tables:.0} (x {tables_ratio:.2}), {keyspace:.0} (x {ratio:.2})");
}

fn place(hasher: &RandomState, key: &[u8]) -> (usize, u64) {
    (usize::from(tholos_ring::slot(key).number()), hasher.hash_one(key))
}

fn plain(key: &[u8]) -> Plain {
    [key, &VALUE].concat().into_boxed_slice()
}

fn overwrite(entry: &mut Plain, key: &[u8]) -> usize {
    let (own, value) = entry.split_at_mut(key.len());
    let seen = usize::from(value[0]);
    if own == key {
        value.copy_from_slice(&VALUE);
    }
    seen
}

fn value(entry: &Plain, key: &[u8]) -> usize {
    let copy = entry.strip_prefix(key).map(Bytes::copy_from_slice);
    copy.map_or(0, |copy| usize::from(copy[0]))
}

fn command(args: &[Bytes]) -> Command {
    Command::parse(args).expect("a command with its arguments")
}

fn name(number: u64, tag: bool) -> Bytes {
    Bytes::from(if tag { format!("{{tag}}:{number:010}") } else { format!("key:{number:012}") })
}

fn shard(key: &[u8]) -> usize {
    usize::from(tholos_ring::slot(key).number() / SLOTS_PER_SHARD)
}

fn option(name: &str) -> Option<u64> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|value| value.parse().ok())
}
