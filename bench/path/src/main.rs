//! What one command costs the processors of a cluster, from the client's bytes to the reply's: three nodes in one thread,
//! with everything that the server's worker and connections compute (RESP, routing, Paxos, the bytes of records and of
//! messages, application, replies) and nothing that waits (sockets, disks, tasks, checksums).
//!
//! ```text
//! cd bench && cargo run --release -p bench-path -- --set 100 --keys 100000
//! valgrind --tool=callgrind --toggle-collect='*measured_turn*' target/release/bench-path --keys 20000 --commands 20000
//! ```
//!
//! `--set` is the share of SETs in percent, the rest are GETs. Clients send `--pipeline` commands at once (1) and wait for
//! all replies; as many are on each node. A round of a node takes all that has come, as the worker does.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tholos_cluster::{ClusterId, ClusterMap, Incarnation, NodeId, NodeRow};
use tholos_node::{ClientId, Effects, Event, Node, NodeConfig, Now, Port};
use tholos_paxos::{AppendSeq, Millis};
use tholos_resp::{CommandDecoder, Limits};
use tholos_ring::ShardId;
use tholos_wire::FrameBuilder;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NODES: usize = 3;
const SHARDS: u16 = 64;
const VALUE: [u8; 64] = [b'x'; 64];
/// Wall clock at the start, in Unix milliseconds.
const WALL: u64 = 1_700_000_000_000;

struct Client {
    id: ClientId,
    decoder: CommandDecoder,
    input: BytesMut,
    /// Commands asked for and not answered.
    open: u32,
}

/// A node with what its worker has around it.
struct Member {
    node: Node,
    effects: Effects,
    inbox: Vec<(NodeId, Bytes)>,
    durable: Option<AppendSeq>,
    frames: Vec<FrameBuilder>,
    log: Vec<u8>,
    clients: Vec<Client>,
}

struct Cluster {
    members: Vec<Member>,
    now: u64,
    chance: u64,
    rounds: u64,
    replies: u64,
}

/// What clients ask for.
#[derive(Clone, Copy)]
struct Load {
    keys: u64,
    set_percent: u64,
    pipeline: u64,
}

fn main() {
    let clients = option("--clients", 64);
    let load = Load {
        keys: option("--keys", 100_000),
        set_percent: option("--set", 100),
        pipeline: option("--pipeline", 1),
    };
    let commands = option("--commands", 200_000);
    let mut cluster = Cluster::start(clients as usize);
    for key in 0..load.keys {
        cluster.ask_one(key);
    }
    let rounds = cluster.rounds;
    let start = Instant::now();
    run(&mut cluster, load, commands);
    let nanos = start.elapsed().as_nanos() as f64 / commands as f64;
    let turns = (cluster.rounds - rounds) as f64 / commands as f64;
    println!(
        "{clients} clients, {} % SET, {} keys: {nanos:.0} ns a command on all {NODES} nodes, {turns:.3} rounds each",
        load.set_percent, load.keys,
    );
}

fn run(cluster: &mut Cluster, load: Load, commands: u64) {
    let end = cluster.replies + commands;
    while cluster.replies < end {
        for at in 0..NODES {
            cluster.ask_idle(at, load);
        }
        measured_turn(cluster);
    }
}

/// All that is to be counted, for a profiler to find.
#[inline(never)]
fn measured_turn(cluster: &mut Cluster) {
    cluster.turn();
}

impl Cluster {
    fn start(clients: usize) -> Cluster {
        let rows = (1..=NODES).map(row).collect();
        let map = ClusterMap::genesis(ClusterId([7; 20]), rows, SHARDS, NODES as u8).expect("a valid map");
        let member = |number: usize| {
            let config = NodeConfig::new(NodeId(number as u16), number as u64, 40 + number as u64);
            let clients = (0..clients).filter(|client| client % NODES == number - 1);
            Member {
                node: Node::new(config, map.clone()),
                effects: Effects::default(),
                inbox: Vec::new(),
                durable: None,
                frames: (0..NODES).map(|_| FrameBuilder::new()).collect(),
                log: Vec::new(),
                clients: clients.map(|client| Client::new(client as u64)).collect(),
            }
        };
        let members = (1..=NODES).map(member).collect();
        let mut cluster = Cluster { members, now: 1000, chance: 1, rounds: 0, replies: 0 };
        let now = cluster.now();
        for member in &mut cluster.members {
            member.node.start(now, &mut member.effects);
            for client in &member.clients {
                let (remote, local) = ("127.0.0.1:1".into(), "127.0.0.1:2".into());
                let event = Event::Connected {
                    client: client.id,
                    port: Port::Gateway,
                    remote,
                    local,
                    loopback: true,
                };
                member.node.handle(now, event, &mut member.effects);
            }
        }
        for _ in 0..2000 {
            cluster.tick();
        }
        let led = |shard: u16| {
            let serves = |member: &Member| {
                member.node.shard(ShardId(shard)).is_some_and(|shard| shard.group.serving())
            };
            cluster.members.iter().any(serves)
        };
        assert!((0..SHARDS).all(led), "every shard has a leader");
        cluster
    }

    fn now(&self) -> Now {
        Now { mono: Millis(self.now), wall: Millis(WALL + self.now) }
    }

    /// Lets 10 ms pass.
    fn tick(&mut self) {
        self.now += 10;
        let now = self.now();
        for member in &mut self.members {
            member.node.handle(now, Event::Tick, &mut member.effects);
        }
        self.turn();
    }

    /// One round of each node. Some rounds take 10 ms together, so that time passes as under load.
    fn turn(&mut self) {
        self.rounds += 1;
        if self.rounds.is_multiple_of(100) {
            self.now += 10;
            let now = self.now();
            for member in &mut self.members {
                member.node.handle(now, Event::Tick, &mut member.effects);
            }
        }
        let now = self.now();
        for at in 0..NODES {
            self.replies += self.members[at].round(now);
            for to in 0..NODES {
                let frames = &mut self.members[at].frames[to];
                if !frames.is_empty() {
                    let payload = frames.take().into_bytes();
                    self.members[to].inbox.push((NodeId(at as u16 + 1), payload));
                }
            }
        }
    }

    /// Lets each client of a node that waits for nothing send a command.
    fn ask_idle(&mut self, at: usize, load: Load) {
        let mut chance = self.chance;
        let mut below = |bound: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % bound
        };
        for client in self.members[at].clients.iter_mut().filter(|client| client.open == 0) {
            for _ in 0..load.pipeline {
                let key = below(load.keys);
                client.ask(key, below(100) < load.set_percent);
            }
        }
        self.chance = chance;
    }

    /// Has a key set.
    fn ask_one(&mut self, key: u64) {
        let clients = &mut self.members[key as usize % NODES].clients;
        let at = (key as usize / NODES) % clients.len();
        clients[at].ask(key, true);
        if at + 1 == clients.len() {
            while self.members.iter().flat_map(|member| &member.clients).any(|client| client.open > 0) {
                self.turn();
            }
        }
    }
}

impl Client {
    fn new(id: u64) -> Client {
        Client {
            id: ClientId(id),
            decoder: CommandDecoder::new(Limits::default()),
            input: BytesMut::new(),
            open: 0,
        }
    }

    fn ask(&mut self, key: u64, set: bool) {
        let key = format!("key:{key:012}");
        if set {
            self.input.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n$64\r\n").as_bytes());
            self.input.extend_from_slice(&VALUE);
            self.input.extend_from_slice(b"\r\n");
        } else {
            self.input.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n$16\r\n{key}\r\n").as_bytes());
        }
        self.open += 1;
    }
}

impl Member {
    /// Takes all that has come, as the server's worker does; answers how many replies went out.
    fn round(&mut self, now: Now) -> u64 {
        let effects = &mut self.effects;
        if let Some(seq) = self.durable.take() {
            self.node.handle(now, Event::Durable { seq }, effects);
        }
        for (from, payload) in self.inbox.drain(..) {
            for message in tholos_wire::frames(payload) {
                let message = message.expect("a peer's message");
                self.node.handle(now, Event::Peer { from, message }, effects);
            }
        }
        for client in self.clients.iter_mut().filter(|client| !client.input.is_empty()) {
            let mut commands = Vec::new();
            while let Some(command) = client.decoder.decode(&mut client.input).expect("the protocol") {
                commands.push(command);
            }
            self.node.handle(now, Event::Commands { client: client.id, commands }, effects);
        }
        self.node.flush(now, effects);
        self.log.clear();
        for append in effects.appends.drain(..) {
            tholos_wire::encode_record(&append.record, &mut self.log);
            self.durable = Some(append.seq);
        }
        for (to, message) in effects.sends.drain(..) {
            self.frames[usize::from(to.0) - 1].push(&message);
        }
        let mut replies = 0;
        let completed: BTreeMap<ClientId, u32> = effects.completed.drain(..).collect();
        effects.replies.clear();
        effects.closes.clear();
        effects.snapshots.clear();
        effects.notices.clear();
        for client in &mut self.clients {
            let done = completed.get(&client.id).copied().unwrap_or(0);
            client.open -= done;
            replies += u64::from(done);
        }
        replies
    }
}

fn row(number: usize) -> NodeRow {
    NodeRow {
        id: NodeId(0),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(number as u64),
        gateway: format!("127.0.0.1:{}", 6378 + number),
        cluster: format!("127.0.0.1:{}", 7000 + number),
        peer: format!("127.0.0.1:{}", 7100 + number),
        http: String::new(),
    }
}

fn option(name: &str, or: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1).and_then(|value| value.parse().ok()).unwrap_or(or)
}
