//! Slots and lookups beside `crc16`, and beside `pingora-ketama`, `hashring`, `conhash`, `jumphash` and `anchorhash`, all in
//! one run on one core.
//!
//! `cargo run --release -p bench-ring` prints nanoseconds per operation: the best of many rounds, because on a shared
//! machine everything but the code itself only ever adds time. How even shares are and what moves is
//! `--bin placement`.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use tholos_ring::{Node, POINTS_PER_WEIGHT, Ring, hash64, shard_of, slot};

const KEYS: usize = 16_384;
const ROUNDS: usize = 50;
const NODES: usize = 1000;

/// Best time of one operation over all keys, in nanoseconds.
fn measure<T>(keys: &[T], mut operation: impl FnMut(&T) -> u64) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut sum = 0_u64;
        for key in keys {
            sum = sum.wrapping_add(operation(black_box(key)));
        }
        black_box(sum);
        best = best.min(start.elapsed().as_nanos() as f64 / keys.len() as f64);
    }
    best
}

fn report(what: &str, ours: f64, others: &[(&str, f64)]) {
    println!("{what}");
    println!("  {:<28}{ours:>8.2} ns", "tholos-ring");
    for (name, theirs) in others {
        println!("  {name:<28}{theirs:>8.2} ns   {:>6.2} x ours", theirs / ours);
    }
}

/// The tag rules written plainly, for `crc16`, which has none.
fn tag_plain(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

fn slots(what: &str, keys: &[String]) {
    let ours = measure(keys, |key| u64::from(shard_of(slot(key.as_bytes()), 64).0));
    let theirs = measure(keys, |key| {
        let slot = crc16::State::<crc16::XMODEM>::calculate(tag_plain(key.as_bytes())) & 16383;
        u64::from((u32::from(slot) * 64) >> 14)
    });
    for key in keys {
        let theirs = crc16::State::<crc16::XMODEM>::calculate(tag_plain(key.as_bytes())) & 16383;
        assert_eq!(slot(key.as_bytes()).number(), theirs, "{key}");
    }
    report(what, ours, &[("crc16 + tag scan", theirs)]);
}

#[derive(Clone)]
struct Named(String, u64);

impl conhash::Node for Named {
    fn name(&self) -> String {
        self.0.clone()
    }
}

fn rings() {
    let addresses: Vec<SocketAddr> = (0..NODES)
        .map(|at| SocketAddr::from(([10, 0, (at / 250) as u8, (at % 250) as u8 + 1], 6379)))
        .collect();
    let names: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();

    let start = Instant::now();
    let nodes: Vec<Node<'_>> = names.iter().map(|name| Node { name, zone: "", weight: 1 }).collect();
    let ours = Ring::new(&nodes);
    let built_ours = start.elapsed();

    let start = Instant::now();
    // Ketama takes 160 points for each unit of weight and has no way to say 128.
    let buckets: Vec<_> = addresses.iter().map(|address| pingora_ketama::Bucket::new(*address, 1)).collect();
    let ketama = pingora_ketama::Continuum::new(&buckets);
    let built_ketama = start.elapsed();

    let start = Instant::now();
    let mut hashring = hashring::HashRing::new();
    hashring.batch_add(
        (0..NODES).flat_map(|node| (0..POINTS_PER_WEIGHT).map(move |point| (node, point))).collect(),
    );
    let built_hashring = start.elapsed();

    let start = Instant::now();
    let mut conhash = conhash::ConsistentHash::new();
    for (name, node) in names.iter().zip(0..) {
        conhash.add(&Named(name.clone(), node), POINTS_PER_WEIGHT as usize);
    }
    let built_conhash = start.elapsed();
    // These two have no points: nodes are numbers to them.
    let jumphash = jumphash::JumpHasher::new_with_keys(1, 2);
    let anchorhash = anchorhash::Builder::default().with_resources(0..NODES as u64).build(NODES as u16);

    let keys: Vec<String> =
        (0..KEYS).map(|at| format!("user:{:07}", at * 2_654_435_761 % 9_999_991)).collect();
    let hashes: Vec<u64> = keys.iter().map(|key| hash64(key.as_bytes(), 0)).collect();
    println!(
        "\nring of {NODES} nodes: {} points built in {built_ours:.1?} (pingora-ketama {built_ketama:.1?}, hashring {built_hashring:.1?}, conhash {built_conhash:.1?})",
        ours.point_count()
    );
    let lookup = measure(&hashes, |hash| ours.get(*hash).map_or(0, |node| u64::from(node.0)));
    let with_hash =
        measure(&keys, |key| ours.get(hash64(key.as_bytes(), 0)).map_or(0, |node| u64::from(node.0)));
    let theirs_ketama =
        measure(&keys, |key| ketama.node(key.as_bytes()).map_or(0, |node| u64::from(node.port())));
    let theirs_hashring = measure(&keys, |key| hashring.get(key).map_or(0, |node| node.0 as u64));
    let theirs_conhash = measure(&keys, |key| conhash.get_str(key).map_or(0, |node| node.1));
    let theirs_jumphash = measure(&keys, |key| u64::from(jumphash.slot(key, NODES as u32)));
    let theirs_anchorhash = measure(&keys, |key| anchorhash.get_resource(key).copied().unwrap_or(0));
    println!("lookup of a hash");
    println!("  {:<28}{lookup:>8.2} ns", "tholos-ring");
    report(
        "lookup of a 12-byte key, hash included",
        with_hash,
        &[
            ("pingora-ketama", theirs_ketama),
            ("hashring", theirs_hashring),
            ("conhash", theirs_conhash),
            ("jumphash, no weights", theirs_jumphash),
            ("anchorhash, no weights", theirs_anchorhash),
        ],
    );

    // One lookup after the other: each key's hash depends on the owner found before.
    let mut last = 0;
    let chained = measure(&hashes, |hash| {
        last = ours.get(*hash ^ last).map_or(0, |node| u64::from(node.0));
        last
    });
    println!("lookup of a hash, each waiting for the one before");
    println!("  {:<28}{chained:>8.2} ns", "tholos-ring");
}

fn main() {
    let plain = |width: usize| -> Vec<String> {
        (0..KEYS).map(|at| format!("user:{:0width$}", at * 2_654_435_761 % 9_999_991)).collect()
    };
    let tagged: Vec<String> = (0..KEYS).map(|at| format!("{{user{at:05}}}.cart")).collect();
    let mixed: Vec<String> = (0..KEYS)
        .map(|at| format!("user:{}", at * 2_654_435_761 % 10_usize.pow(1 + at as u32 % 7)))
        .collect();
    slots("key to slot to shard, 12-byte keys", &plain(7));
    slots("key to slot to shard, keys of 6 to 12 bytes", &mixed);
    slots("key to slot to shard, 30-byte keys", &plain(25));
    slots("key to slot to shard, {tag} of 9 in 16 bytes", &tagged);
    rings();
}
