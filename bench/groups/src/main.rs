//! Many groups on three nodes: what idle ones cost, and what it costs to write to many of them at once.
//!
//! `cd bench && cargo run --release -p bench-groups [-- idle | many]`
//!
//! The cores of three nodes in one thread. Memory is what they have asked of the allocator and not given back; time is that
//! of the cores and of encoding, without sockets and disks.

mod trio;

use std::mem::size_of;

use bytes::Bytes;
use tholos_engine::Keyspace;
use tholos_node::{ClientId, Event, Shard};
use tholos_paxos::{Group, Millis};
use tholos_ring::{ShardId, shard_of, slot};
use trio::{Counts, Trio};

/// As many as there are slots, the most that a cluster can have.
const IDLE_GROUPS: u16 = 16_384;
const IDLE_SPAN: Millis = Millis(60_000);
const GROUPS: u16 = 64;
const AT_ONCE: usize = 21;
const ROUNDS: u64 = 64;
/// Of all rounds, the best: on a busy machine everything but the code itself only adds time.
const REPEATS: usize = 200;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    if "idle".contains(&wanted) {
        idle();
    }
    if "many".contains(&wanted) {
        many();
    }
}

fn idle() {
    let mut trio = None;
    let memory = allocation_counter::measure(|| {
        let mut young = Trio::new(IDLE_GROUPS);
        // Until all followers know what is decided, all states are compared, and no session of the meta group is left.
        young.advance(Millis(70_000));
        young.forget_spare();
        trio = Some(young);
    });
    let Some(mut trio) = trio else { return };
    let before = trio.counts;
    trio.advance(IDLE_SPAN);
    let Counts { shard_messages, node_messages, writes, busy, .. } = trio.counts.since(&before);
    let replica = memory.bytes_current as f64 / f64::from(IDLE_GROUPS) / 3.0;
    let seconds = IDLE_SPAN.0 as f64 / 1000.0;
    println!("{IDLE_GROUPS} idle groups on three nodes, {seconds} s:");
    println!("  messages of groups    {shard_messages}");
    println!(
        "  messages of nodes     {node_messages} ({:.0} a second and pair)",
        node_messages as f64 / seconds / 6.0
    );
    println!("  writes to logs        {writes}");
    println!("  a replica             {replica:.0} B, of them {} B in one piece", size_of::<Option<Shard>>());
    println!("    of which a group    {} B, a keyspace {} B", size_of::<Group>(), size_of::<Keyspace>());
    println!("  time of a node        {:.3} % of one processor", busy.as_secs_f64() / 3.0 / seconds * 100.0);
}

/// Keys of so many different shards that n1 leads, one of each, and as many of one of them.
fn keys(trio: &Trio) -> (Vec<String>, Vec<String>) {
    let names = || (0..).map(|number| format!("key:{number:06}"));
    let shard = |key: &String| shard_of(slot(key.as_bytes()), GROUPS);
    let (mut many, mut shards): (Vec<String>, Vec<ShardId>) = (Vec::new(), Vec::new());
    for key in names() {
        let of = shard(&key);
        if trio.leader(of) == Some(0) && !shards.contains(&of) {
            many.push(key);
            shards.push(of);
        }
        if many.len() == AT_ONCE {
            break;
        }
    }
    let one = names().filter(|key| shard(key) == shards[0]).take(AT_ONCE).collect();
    (many, one)
}

/// Each of so many clients sets its key, all in one round of the leader's node, again and again.
fn write(trio: &mut Trio, keys: &[String], value: &str) -> Counts {
    let before = trio.counts;
    for _ in 0..ROUNDS {
        for (client, key) in keys.iter().enumerate() {
            let command = ["SET", key, value].map(|part| Bytes::copy_from_slice(part.as_bytes())).to_vec();
            let client = ClientId(client as u64 + 1);
            trio.handle(0, Event::Commands { client, commands: vec![command] });
        }
        trio.settle();
    }
    let counts = trio.counts.since(&before);
    assert_eq!(counts.replies, ROUNDS * keys.len() as u64, "every client is answered");
    counts
}

fn many() {
    println!("{AT_ONCE} commands a round, {ROUNDS} rounds, one round of the leader's node each:");
    println!("{:34} {:>8} {:>8} {:>8} {:>8}", "", "frames", "writes", "bytes", "ns");
    println!("{:34} {:>17} {:>17}", "", "a node and round", "a command");
    for bytes in [16, 256] {
        let mut trio = Trio::new(GROUPS);
        trio.advance(Millis(1_000));
        for client in 1..=AT_ONCE as u64 {
            trio.connect(0, ClientId(client));
        }
        let (many, one) = keys(&trio);
        let value = "v".repeat(bytes);
        let mut best = [f64::INFINITY; 2];
        let mut counts = [Counts::default(); 2];
        for _ in 0..REPEATS {
            for (at, keys) in [&one, &many].into_iter().enumerate() {
                counts[at] = write(&mut trio, keys, &value);
                best[at] = best[at].min(counts[at].busy.as_nanos() as f64);
            }
        }
        let commands = (ROUNDS * AT_ONCE as u64) as f64;
        for (at, name) in ["in one group", "in as many groups"].into_iter().enumerate() {
            let Counts { frames, writes, frame_bytes, record_bytes, .. } = counts[at];
            let (rounds, name) = (ROUNDS as f64 * 3.0, format!("{bytes} B, {name}"));
            println!(
                "{name:34} {:8.2} {:8.2} {:8.1} {:8.0}",
                frames as f64 / rounds,
                writes as f64 / rounds,
                (frame_bytes + record_bytes) as f64 / commands,
                best[at] / commands
            );
        }
        let size = |at: usize| (counts[at].frame_bytes + counts[at].record_bytes) as f64;
        println!("{:34} {:26.2} {:8.2}", "  many to one", size(1) / size(0), best[1] / best[0]);
    }
}
