//! What partial partitions cost: the three cases of *Omni-Paxos* (Ng, Haridi, Carbone 2023, §2), for three nodes and
//! five, also with a disk or a worker that stands still (R9).
//!
//! Nodes as they ship, with their own failure detection, one fault, and from then on a client at each node that tries
//! to write. How long until one of them succeeds, and how often leadership moves, is what the case costs.

use std::fmt;

use bytes::Bytes;
use tholos_cluster::{ClusterId, ClusterMap, NodeId};
use tholos_node::{ClientId, Effects, Event, Node, NodeConfig, Notice, Now, PeerMessage, Port};
use tholos_paxos::{AppendSeq, Millis};
use tholos_ring::ShardId;

use crate::coverage::Coverage;
use crate::founding::row_alone;
use crate::net::Net;
use crate::queue::Queue;
use crate::random::Random;

/// Election time-out of the nodes, in microseconds: the setting's default.
pub const ELECTION_TIMEOUT_US: u64 = 300_000;
/// How long a case is watched after its fault, in microseconds.
const WATCHED_US: u64 = 5_000_000;
const TICK_US: u64 = 10_000;
/// What a sync takes, from and to, in microseconds.
const SYNC_US: (u64, u64) = (100, 2_000);
/// The same on a slow disk: longer than an election time-out.
const SLOW_SYNC_US: (u64, u64) = (310_000, 720_000);
/// How long a majority with a slow disk is watched, in microseconds.
const SLOW_WATCHED_US: u64 = 30_000_000;
/// Only one shard, so that one leader is in question.
const SHARD: ShardId = ShardId(0);

/// Who is cut off from whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Nobody.
    None,
    /// All hear a hub alone; the leader lives, and the hub hears it, but it has lost its quorum. Of three nodes the
    /// leader hears nobody, and the hub hears it.
    QuorumLoss,
    /// The leader is gone, and of the others all hear one alone, whose log is behind.
    Constrained,
    /// A chain: each hears its neighbours.
    Chained,
}

/// What stands still at the leader, besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing.
    None,
    /// Its disk, while everything else goes on.
    Disk,
    /// Its worker: it says nothing and takes nothing.
    Worker,
}

/// One case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// Three or five.
    pub nodes: usize,
    /// Who hears whom.
    pub cut: Cut,
    /// What stands still.
    pub standing: Standing,
}

impl Case {
    /// Every case in which something happens.
    pub fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for nodes in [3, 5] {
            for standing in [Standing::None, Standing::Disk, Standing::Worker] {
                for cut in [Cut::None, Cut::QuorumLoss, Cut::Constrained, Cut::Chained] {
                    all.push(Case { nodes, cut, standing });
                }
            }
        }
        all.retain(|case| (case.cut, case.standing) != (Cut::None, Standing::None));
        all
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut = match self.cut {
            Cut::None => "nobody cut off",
            Cut::QuorumLoss => "quorum loss",
            Cut::Constrained => "constrained election",
            Cut::Chained => "chained",
        };
        let standing = match self.standing {
            Standing::None => "",
            Standing::Disk => ", its disk stands",
            Standing::Worker => ", its worker stands",
        };
        write!(f, "{} nodes, {cut}{standing}", self.nodes)
    }
}

/// What a case came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Microseconds until a write that was sent after the fault was answered; `None`: none was.
    pub recovered_us: Option<u64>,
    /// How often a leader began to serve after the fault.
    pub changes: usize,
}

#[derive(Debug)]
enum Happening {
    Tick { node: usize },
    Deliver { from: usize, to: usize, message: PeerMessage },
    Synced { node: usize },
}

#[derive(Debug)]
struct Host {
    node: Node,
    /// The last append that waits for the disk's next turn.
    waiting: Option<AppendSeq>,
    syncing: Option<AppendSeq>,
    sync_us: (u64, u64),
    disk_stands: bool,
    worker_stands: bool,
    /// Its client waits for an answer.
    asked: bool,
}

struct World {
    random: Random,
    now: u64,
    queue: Queue<Happening>,
    net: Net,
    hosts: Vec<Host>,
    coverage: Coverage,
    /// Writes answered.
    written: u64,
    elected: usize,
    writes: u64,
}

/// Runs one case from one seed.
pub fn run(case: Case, seed: u64) -> Outcome {
    let mut world = World::new(case.nodes, seed);
    world.play_until(2_000_000, true);
    let leader = world.leader().expect("somebody leads a cluster in which nothing has happened");
    let roles = world.roles(case, leader);
    if case.cut == Cut::Constrained {
        // Its log falls behind, and the others' goes on.
        let alone = roles[1];
        world.cut(|a, b| a == alone || b == alone);
        world.play_until(world.now + 200_000, true);
    }
    // Nothing of before is taken for what comes after.
    world.play_until(world.now + world.random.clone().below(50_000), false);
    let (began, written, elected) = (world.now, world.written, world.elected);
    world.strike(case, leader, &roles);
    for host in &mut world.hosts {
        host.asked = false;
    }
    let mut recovered_us = None;
    while world.now < began + WATCHED_US {
        world.play_until(world.now + TICK_US / 2, true);
        if world.written > written {
            recovered_us.get_or_insert(world.now - began);
        }
    }
    Outcome { recovered_us, changes: world.elected - elected }
}

/// Who of three nodes is gone and whose disk is slow, once n1 leads: all that is left is a majority that needs the slow
/// one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlowCase {
    /// A follower is gone, the other is slow.
    SlowFollower,
    /// A follower is gone, the leader is slow.
    SlowLeader,
    /// The leader is gone, a follower is slow.
    LeaderGone,
}

/// Runs one case of a majority with a slow disk; the longest time in which no write was answered, in microseconds.
pub fn run_slow(case: SlowCase, seed: u64) -> u64 {
    let mut world = World::new(3, seed);
    world.play_until(2_000_000, true);
    let leader = world.leader().expect("somebody leads a cluster in which nothing has happened");
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (gone, slow) = match case {
        SlowCase::SlowFollower => (one, other),
        SlowCase::SlowLeader => (one, leader),
        SlowCase::LeaderGone => (leader, one),
    };
    world.hosts[gone].worker_stands = true;
    world.hosts[slow].sync_us = SLOW_SYNC_US;
    let (began, mut written, mut last, mut longest) = (world.now, world.written, world.now, 0);
    while world.now < began + SLOW_WATCHED_US {
        world.play_until(world.now + TICK_US / 2, true);
        if world.written > written {
            (written, last) = (world.written, world.now);
        }
        longest = longest.max(world.now - last);
    }
    longest
}

impl World {
    fn new(nodes: usize, seed: u64) -> World {
        let mut random = Random::new(seed);
        let rows = (1..=nodes).map(row_alone).collect();
        let map = ClusterMap::genesis(ClusterId([7; 20]), rows, 1, nodes as u8)
            .expect("the simulated cluster can be founded");
        let mut host = |number: usize| Host {
            node: Node::new(
                NodeConfig::new(NodeId(number as u16), random.bits(), random.bits()),
                map.clone(),
            ),
            waiting: None,
            syncing: None,
            sync_us: SYNC_US,
            disk_stands: false,
            worker_stands: false,
            asked: false,
        };
        let hosts = (1..=nodes).map(&mut host).collect();
        let mut world = World {
            random,
            now: 1_000_000,
            queue: Queue::new(),
            net: Net::new(nodes),
            hosts,
            coverage: Coverage::default(),
            written: 0,
            elected: 0,
            writes: 0,
        };
        for node in 0..nodes {
            let (now, mut out) = (world.clock(), Effects::default());
            world.hosts[node].node.start(now, &mut out);
            world.carry_out(node, out);
            let local = String::from("10.0.0.1:7001");
            let event = Event::Connected {
                client: ClientId(1),
                port: Port::Cluster,
                remote: String::from("10.0.1.1:50000"),
                local,
                loopback: true,
            };
            world.give(node, event);
            let first = world.now + world.random.below(TICK_US);
            world.queue.push(first, Happening::Tick { node });
        }
        world
    }

    fn clock(&self) -> Now {
        let ms = self.now / 1000;
        Now { mono: Millis(ms), wall: Millis(1_700_000_000_000 + ms) }
    }

    fn leader(&self) -> Option<usize> {
        self.hosts.iter().position(|host| host.node.shard(SHARD).is_some_and(|shard| shard.group.serving()))
    }

    /// The leader and the others in an order by chance, in which a quorum is left: who comes second is the hub, or the
    /// one that is behind; a chain goes from the first of the order to the last, wherever the leader stands in it.
    fn roles(&mut self, case: Case, leader: usize) -> Vec<usize> {
        loop {
            let mut order: Vec<usize> = (0..case.nodes).filter(|node| *node != leader).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, self.random.below(at as u64 + 1) as usize);
            }
            let place =
                if case.cut == Cut::Chained { self.random.below(case.nodes as u64) as usize } else { 0 };
            order.insert(place, leader);
            let able = |node: usize| case.standing == Standing::None || node != leader;
            let hears =
                |a: usize, b: usize| a == b || !is_cut(case, &order, a, b) && !is_cut(case, &order, b, a);
            let heard = |a: usize| (0..case.nodes).filter(|b| able(*b) && hears(a, *b)).count();
            if (0..case.nodes).any(|node| able(node) && 2 * heard(node) > case.nodes) {
                return order;
            }
        }
    }

    fn cut(&mut self, cut: impl Fn(usize, usize) -> bool) {
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|to| *to != from) {
                self.net.set_cut(from, to, cut(from, to));
            }
        }
    }

    fn strike(&mut self, case: Case, leader: usize, roles: &[usize]) {
        self.cut(|from, to| is_cut(case, roles, from, to));
        match case.standing {
            Standing::None => {}
            Standing::Disk => self.hosts[leader].disk_stands = true,
            Standing::Worker => self.hosts[leader].worker_stands = true,
        }
    }

    fn play_until(&mut self, until: u64, writing: bool) {
        while let Some((at, happening)) = self.queue.pop() {
            if at > until {
                self.queue.push(at, happening);
                break;
            }
            self.now = at;
            match happening {
                Happening::Tick { node } => {
                    self.give(node, Event::Tick);
                    self.queue.push(at + TICK_US, Happening::Tick { node });
                    if writing {
                        self.write(node);
                    }
                }
                Happening::Deliver { from, to, message } => {
                    self.give(to, Event::Peer { from: NodeId(from as u16 + 1), message });
                }
                Happening::Synced { node } => {
                    if self.hosts[node].disk_stands {
                        continue;
                    }
                    if let Some(seq) = self.hosts[node].syncing.take() {
                        self.give(node, Event::Durable { seq });
                    }
                    self.sync(node);
                }
            }
        }
        self.now = until;
    }

    /// The client at a node writes, if it does not wait.
    fn write(&mut self, node: usize) {
        if !self.hosts[node].asked && !self.hosts[node].worker_stands {
            self.hosts[node].asked = true;
            self.writes += 1;
            let value = self.writes.to_string();
            let command = ["SET", "k", &value].map(|part| Bytes::copy_from_slice(part.as_bytes())).to_vec();
            self.give(node, Event::Commands { client: ClientId(1), commands: vec![command] });
        }
    }

    fn give(&mut self, node: usize, event: Event) {
        if self.hosts[node].worker_stands {
            return;
        }
        let (now, mut out) = (self.clock(), Effects::default());
        self.hosts[node].node.handle(now, event, &mut out);
        self.hosts[node].node.flush(now, &mut out);
        self.carry_out(node, out);
    }

    fn carry_out(&mut self, node: usize, out: Effects) {
        for (to, message) in out.sends {
            let to = usize::from(to.0) - 1;
            let at = self.net.arrivals((node, to), self.now, &mut self.random, &mut self.coverage);
            if let [Some(at), _] = at {
                self.queue.push(at, Happening::Deliver { from: node, to, message });
            }
        }
        for (_, reply) in out.replies {
            if !reply.is_empty() {
                self.hosts[node].asked = false;
                self.written += u64::from(reply.starts_with(b"+OK"));
            }
        }
        let elected = |notice: &&Notice| matches!(notice, Notice::LeaderElected { shard: SHARD, .. });
        self.elected += out.notices.iter().filter(elected).count();
        if let Some(last) = out.appends.last() {
            self.hosts[node].waiting = Some(last.seq);
            self.sync(node);
        }
    }

    /// Writes what waits, if the disk is idle.
    fn sync(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.syncing.is_none() && host.waiting.is_some() {
            host.syncing = host.waiting.take();
            let done = self.now + self.random.between(host.sync_us.0, host.sync_us.1);
            self.queue.push(done, Happening::Synced { node });
        }
    }
}

/// Whether what `from` sends to `to` is lost. `roles` is who is what, as [`World::roles`] says.
fn is_cut(case: Case, roles: &[usize], from: usize, to: usize) -> bool {
    let (leader, second) = (roles[0], roles[1]);
    match case.cut {
        Cut::None => false,
        Cut::QuorumLoss if case.nodes == 3 => to == leader || (from == leader && to != second),
        Cut::QuorumLoss => from != second && to != second,
        Cut::Constrained => from == leader || to == leader || (from != second && to != second),
        Cut::Chained => {
            let place = |node: usize| roles.iter().position(|role| *role == node);
            let (Some(from), Some(to)) = (place(from), place(to)) else { return false };
            from.abs_diff(to) > 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four election time-outs at most, and one leader change at most; the example of the same name runs more seeds.
    #[test]
    fn partial_partitions_are_recovered_from() {
        let recovers = |case: Case| {
            for seed in 1..=8 {
                let outcome = run(case, seed);
                let recovered = outcome.recovered_us.is_some_and(|us| us <= 4 * ELECTION_TIMEOUT_US);
                assert!(recovered && outcome.changes <= 1, "{case}, seed {seed}: {outcome:?}");
            }
        };
        // Those of five nodes take longer: each thread has some.
        let (cases, threads) = (Case::all(), std::thread::available_parallelism().map_or(1, usize::from));
        std::thread::scope(|scope| {
            for first in 0..threads {
                let own = cases.iter().skip(first).step_by(threads);
                scope.spawn(move || own.for_each(|case| recovers(*case)));
            }
        });
    }

    /// A slow disk is slow, and no standstill: elections and writes wait for it. A leader does not fall silent, and a
    /// candidate does not give up, because the only other node that is left takes longer than an election time-out.
    #[test]
    fn a_majority_with_a_slow_disk_goes_on() {
        for case in [SlowCase::SlowFollower, SlowCase::SlowLeader, SlowCase::LeaderGone] {
            let longest = (1..=8).map(|seed| run_slow(case, seed)).max();
            assert!(longest.is_some_and(|us| us <= 5_000_000), "{case:?}: {longest:?}");
        }
    }
}
