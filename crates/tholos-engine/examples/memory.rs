//! What a key costs: fills the keyspaces of all shards, then prints memory and speed.
//!
//! ```text
//! cargo run --release -p tholos-engine --example memory -- --keys 1000000 --value 64
//! ```
//!
//! Memory is the growth of the process's resident set (Linux only), so the allocator's own cost is in it. With
//! `--expire 1` every key has an expiry.

use std::time::Instant;

use bytes::Bytes;
use tholos_engine::{Command, Context, Keyspace};

/// Shards of a cluster that was created without saying how many.
const SHARDS: u16 = 64;
const SLOTS_PER_SHARD: u16 = 16384 / SHARDS;

fn main() {
    let keys = option("--keys").unwrap_or(1_000_000);
    let value = Bytes::from(vec![b'x'; option("--value").unwrap_or(64) as usize]);
    let expire = option("--expire").unwrap_or(0) == 1;
    let starts = (0..SHARDS).map(|shard| shard * SLOTS_PER_SHARD);
    let mut shards: Vec<Keyspace> =
        starts.map(|start| Keyspace::new(start..start + SLOTS_PER_SHARD, 7)).collect();
    let before = resident_bytes();
    let set = |key: u64| {
        let mut args = vec![Bytes::from("SET"), name(key), value.clone()];
        if expire {
            args.extend([Bytes::from("EX"), Bytes::from("1000")]);
        }
        args
    };
    timed("SET new", keys, |key| write(&mut shards, key, &set(key)));
    let resident = resident_bytes().saturating_sub(before);
    let used: usize = shards.iter().map(Keyspace::used_bytes).sum();
    timed("SET old", keys, |key| write(&mut shards, key, &set(key)));
    timed("GET", keys, |key| {
        let command = Command::parse(&[Bytes::from("GET"), name(key)]).expect("GET of a key");
        let shard = &shards[shard_of(&name(key))];
        assert!(matches!(shard.read(1, &command), tholos_resp::Value::Bulk(_)));
    });
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    println!(
        "{keys} keys of {} bytes: {:.0} MiB resident, {:.0} bytes a key; used_bytes says {:.0} MiB",
        value.len(),
        mebibytes(resident),
        resident as f64 / keys as f64,
        mebibytes(used),
    );
}

fn write(shards: &mut [Keyspace], key: u64, args: &[Bytes]) {
    let command = Command::parse(args).expect("a SET");
    let context = Context { time_ms: 1, seed: key, index: key + 1, position: 0 };
    shards[shard_of(&args[1])].apply(&context, &command);
}

fn timed(what: &str, count: u64, mut run: impl FnMut(u64)) {
    let start = Instant::now();
    // A stride that shares no factor with most counts, so that neighbours in time are not neighbours in memory.
    (0..count).for_each(|number| run(number.wrapping_mul(7_919) % count));
    let nanoseconds = start.elapsed().as_nanos() / u128::from(count.max(1));
    println!("{what}: {nanoseconds} ns, parsing included");
}

fn name(number: u64) -> Bytes {
    Bytes::from(format!("key:{number:012}"))
}

fn shard_of(key: &[u8]) -> usize {
    usize::from(tholos_ring::slot(key).number() / SLOTS_PER_SHARD)
}

/// Resident memory of this process; 0 where that cannot be told.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|line| {
        let resident = line.split_ascii_whitespace().nth(1)?;
        resident.parse::<usize>().ok()
    });
    pages.unwrap_or(0) * 4096
}

fn option(name: &str) -> Option<u64> {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|value| value.parse().ok())
}
