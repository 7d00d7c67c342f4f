//! How long the slices of a snapshot take on the core, while commands are applied between them.
//!
//! `cargo run --release -p tholos-node --example snapshot_slices [KEYS, 1000000] [VALUE_BYTES, 1024]`
//!
//! One node, one shard, a disk that is instant: what is measured is what commands wait for, and not the disk. Prints the
//! time of each kind of step, but for those in which the machine took the processor away for other work (Linux only).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tholos_cluster::{ClusterId, ClusterMap, Incarnation, NodeId, NodeRow};
use tholos_node::{ClientId, Effects, Event, LogRoom, Node, NodeConfig, Now, Port, SnapshotJob};
use tholos_paxos::Millis;

/// Commands applied between two slices: what 64 clients have waiting.
const COMMANDS: u64 = 64;

struct Bench {
    node: Node,
    millis: u64,
    jobs: VecDeque<SnapshotJob>,
    chance: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().expect("a number"));
    let keys: u64 = arguments.next().unwrap_or(1_000_000);
    let value = vec![b'v'; arguments.next().unwrap_or(1024) as usize];
    let mut bench = Bench::start();
    for first in (0..keys).step_by(COMMANDS as usize) {
        bench.write((first..keys.min(first + COMMANDS)).map(|key| (key, &value[..])));
        // They are of another run.
        bench.jobs.clear();
    }
    let bytes = bench.node.shard(tholos_ring::ShardId(0)).expect("its only one").keyspace.used_bytes();
    println!("{keys} keys of {} bytes: {} MiB in memory", value.len(), bytes >> 20);
    // A log that is long enough to be shortened.
    let begin = time(|| {
        bench.handle(Event::LogRoom(LogRoom::Short));
        bench.millis += 10;
        bench.handle(Event::Tick);
    });
    bench.handle(Event::LogRoom(LogRoom::Ample));
    let (mut slices, mut commands, mut chunks, mut written) = (Vec::new(), Vec::new(), 0_u64, 0_u64);
    while let Some(job) = bench.jobs.pop_front() {
        match job {
            SnapshotJob::Write { shard, index, bytes, .. } => {
                chunks += 1;
                written += bytes.len() as u64;
                // As the driver's thread would.
                drop(bytes);
                slices.extend(undisturbed(|| bench.handle(Event::SnapshotWritten { shard, index })));
            }
            SnapshotJob::Finish { shard, index } => bench.handle(Event::SnapshotSaved { shard, index }),
            _ => {}
        }
        let first = bench.next_chance() % keys;
        let pairs = (0..COMMANDS).map(|at| ((first + at * 7919) % keys, &value[..]));
        commands.extend(undisturbed(|| bench.write(pairs)));
    }
    println!("begin: {:.3} ms", millis(begin));
    println!("{chunks} chunks, {} MiB", written >> 20);
    show("slices", slices);
    show("64 SETs between two", commands);
}

impl Bench {
    fn start() -> Bench {
        let row = NodeRow {
            id: NodeId(0),
            name: "n1".into(),
            zone: String::new(),
            weight: 1,
            incarnation: Incarnation(1),
            gateway: String::new(),
            cluster: "127.0.0.1:7001".into(),
            peer: String::new(),
            http: String::new(),
        };
        let map =
            ClusterMap::genesis(ClusterId([7; 20]), vec![row], 1, 1).expect("one node founds a cluster");
        let mut config = NodeConfig::new(NodeId(1), 1, 1);
        // Only a log without room is shortened.
        config.log_bytes_max = 512 << 20;
        let mut bench =
            Bench { node: Node::new(config, map), millis: 1000, jobs: VecDeque::new(), chance: 7 };
        for _ in 0..1000 {
            bench.millis += 10;
            bench.handle(Event::Tick);
            if bench.node.shard(tholos_ring::ShardId(0)).is_some_and(|shard| shard.group.serving()) {
                break;
            }
        }
        let (remote, local) = ("127.0.0.1:1".into(), "127.0.0.1:2".into());
        let client = ClientId(1);
        bench.handle(Event::Connected { client, port: Port::Gateway, remote, local, loopback: true });
        bench
    }

    fn next_chance(&mut self) -> u64 {
        self.chance = self.chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.chance >> 20
    }

    fn write<'a>(&mut self, pairs: impl Iterator<Item = (u64, &'a [u8])>) {
        let command = |(key, value): (u64, &[u8])| {
            ["SET".into(), format!("key:{key}").into(), Bytes::copy_from_slice(value)].to_vec()
        };
        self.handle(Event::Commands { client: ClientId(1), commands: pairs.map(command).collect() });
    }

    /// One round, with a disk that is instant.
    fn handle(&mut self, event: Event) {
        let now = Now { mono: Millis(self.millis), wall: Millis(self.millis) };
        let mut out = Effects::default();
        self.node.handle(now, event, &mut out);
        self.node.flush(now, &mut out);
        while let Some(seq) = out.appends.last().map(|append| append.seq) {
            self.jobs.extend(out.snapshots.drain(..));
            out = Effects::default();
            self.node.handle(now, Event::Durable { seq }, &mut out);
            self.node.flush(now, &mut out);
        }
        self.jobs.extend(out.snapshots);
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The same, unless the thread was interrupted meanwhile.
fn undisturbed(work: impl FnOnce()) -> Option<Duration> {
    let before = interruptions();
    let taken = time(work);
    (interruptions() == before).then_some(taken)
}

/// How often this thread has lost its processor; always zero where the system does not tell.
fn interruptions() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| millis(times[((times.len() - 1) as f64 * share) as usize]);
    println!(
        "{what}: {} of p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, longest {:.3} ms",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}
