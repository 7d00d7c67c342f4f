//! Three node cores in one thread: frames are encoded and decoded as between servers, records are encoded and durable
//! at once.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tholos_cluster::{ClusterId, ClusterMap, Incarnation, NodeId, NodeRow};
use tholos_node::{ClientId, Effects, Event, Node, NodeConfig, Now, PeerMessage, Port};
use tholos_paxos::Millis;
use tholos_ring::ShardId;
use tholos_wire::FrameBuilder;

const WALL: u64 = 1_700_000_000_000;
/// As the server ticks.
pub(crate) const TICK: Millis = Millis(10);

/// What has left the cores.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Payloads for one peer.
    pub(crate) frames: u64,
    pub(crate) frame_bytes: u64,
    /// Messages of a shard; the rest is between nodes alone.
    pub(crate) shard_messages: u64,
    pub(crate) node_messages: u64,
    /// Handfuls of records for the log.
    pub(crate) writes: u64,
    pub(crate) record_bytes: u64,
    pub(crate) replies: u64,
    /// Time in the cores and in their encoding.
    pub(crate) busy: Duration,
}

impl Counts {
    pub(crate) fn since(&self, before: &Counts) -> Counts {
        Counts {
            frames: self.frames - before.frames,
            frame_bytes: self.frame_bytes - before.frame_bytes,
            shard_messages: self.shard_messages - before.shard_messages,
            node_messages: self.node_messages - before.node_messages,
            writes: self.writes - before.writes,
            record_bytes: self.record_bytes - before.record_bytes,
            replies: self.replies - before.replies,
            busy: self.busy - before.busy,
        }
    }
}

pub(crate) struct Trio {
    pub(crate) nodes: Vec<Node>,
    now: Millis,
    effects: Effects,
    frames: Vec<FrameBuilder>,
    records: Vec<u8>,
    mail: Vec<(NodeId, usize, Bytes)>,
    pub(crate) counts: Counts,
}

fn row(number: u16) -> NodeRow {
    NodeRow {
        id: NodeId(0),
        name: format!("n{number}"),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(number.into()),
        gateway: format!("127.0.0.1:{}", 6378 + number),
        cluster: format!("127.0.0.1:{}", 7000 + number),
        peer: format!("127.0.0.1:{}", 7100 + number),
        http: String::new(),
    }
}

impl Trio {
    /// Nodes n1 to n3, each with a replica of each of so many shards; every shard is led.
    pub(crate) fn new(shards: u16) -> Trio {
        let map = ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), shards, 3)
            .expect("a valid map");
        let node = |number: u16| {
            let number64 = u64::from(number);
            Node::new(NodeConfig::new(NodeId(number), number64, 40 + number64), map.clone())
        };
        let mut trio = Trio {
            nodes: (1..=3).map(node).collect(),
            now: Millis(1000),
            effects: Effects::default(),
            frames: (0..3).map(|_| FrameBuilder::new()).collect(),
            records: Vec::new(),
            mail: Vec::new(),
            counts: Counts::default(),
        };
        for at in 0..3 {
            trio.timed(|trio, now| trio.nodes[at].start(now, &mut trio.effects));
            trio.carry_out(at);
        }
        for (at, node) in [(0, 2), (0, 3), (1, 1), (1, 3), (2, 1), (2, 2)] {
            trio.handle(at, Event::PeerUp { node: NodeId(node), incarnation: Incarnation(node.into()) });
        }
        trio.settle();
        while !(0..shards).all(|shard| trio.leader(ShardId(shard)).is_some()) {
            trio.advance(TICK);
        }
        trio
    }

    /// Who serves a shard.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<usize> {
        self.nodes.iter().position(|node| node.shard(shard).is_some_and(|shard| shard.group.serving()))
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, span: Millis) {
        for _ in 0..span.0 / TICK.0 {
            self.now = self.now.plus(TICK);
            for at in 0..3 {
                self.handle(at, Event::Tick);
            }
            self.settle();
        }
    }

    /// Gives back what this driver keeps of its largest round. It grows with that, and not with the replicas.
    pub(crate) fn forget_spare(&mut self) {
        self.effects = Effects::default();
        self.frames = (0..3).map(|_| FrameBuilder::new()).collect();
        (self.records, self.mail) = (Vec::new(), Vec::new());
    }

    pub(crate) fn connect(&mut self, at: usize, client: ClientId) {
        let (remote, local) = ("127.0.0.1:9".to_string(), "127.0.0.1:6379".to_string());
        self.handle(at, Event::Connected { client, port: Port::Cluster, remote, local, loopback: true });
    }

    pub(crate) fn handle(&mut self, at: usize, event: Event) {
        self.timed(|trio, now| trio.nodes[at].handle(now, event, &mut trio.effects));
        self.carry_out(at);
    }

    fn timed(&mut self, work: impl FnOnce(&mut Trio, Now)) {
        let now = Now { mono: self.now, wall: Millis(WALL + self.now.0) };
        let began = Instant::now();
        work(self, now);
        self.counts.busy += began.elapsed();
    }

    /// Rounds of all nodes until nothing is under way: what has arrived, the disk, flush.
    pub(crate) fn settle(&mut self) {
        loop {
            for at in 0..3 {
                self.timed(|trio, now| trio.nodes[at].flush(now, &mut trio.effects));
                self.carry_out(at);
            }
            if self.mail.is_empty() {
                return;
            }
            for (from, to, payload) in std::mem::take(&mut self.mail) {
                self.timed(|trio, now| {
                    for message in tholos_wire::frames(payload) {
                        let message = message.expect("it was encoded here");
                        trio.nodes[to].handle(now, Event::Peer { from, message }, &mut trio.effects);
                    }
                });
                self.carry_out(to);
            }
        }
    }

    fn carry_out(&mut self, at: usize) {
        let me = NodeId(at as u16 + 1);
        self.timed(|trio, _| {
            for (to, message) in trio.effects.sends.drain(..) {
                match message {
                    PeerMessage::Heartbeat(_) | PeerMessage::Counted(_) => trio.counts.node_messages += 1,
                    _ => trio.counts.shard_messages += 1,
                }
                trio.frames[usize::from(to.0) - 1].push(&message);
            }
            for to in 0..3 {
                if !trio.frames[to].is_empty() {
                    let payload = trio.frames[to].take().into_bytes();
                    trio.counts.frames += 1;
                    trio.counts.frame_bytes += payload.len() as u64;
                    trio.mail.push((me, to, payload));
                }
            }
        });
        if let Some(map) = self.effects.map.take() {
            let epoch = map.map.epoch;
            self.handle(at, Event::MapKept { epoch });
        }
        self.counts.replies += self.effects.replies.drain(..).count() as u64;
        self.effects.completed.clear();
        self.effects.notices.clear();
        assert!(self.effects.snapshots.is_empty(), "nothing here needs a snapshot");
        let Some(last) = self.effects.appends.last().map(|append| append.seq) else { return };
        self.timed(|trio, now| {
            for append in trio.effects.appends.drain(..) {
                tholos_wire::encode_record(&append.record, &mut trio.records);
            }
            trio.counts.writes += 1;
            trio.counts.record_bytes += trio.records.len() as u64;
            trio.records.clear();
            trio.nodes[at].handle(now, Event::Durable { seq: last }, &mut trio.effects);
        });
        self.carry_out(at);
    }
}
