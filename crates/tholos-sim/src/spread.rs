//! How a change of the cluster map reaches every node of a large cluster, over the real cores: all nodes hear of epochs by
//! heartbeats, and who is behind asks whoever it hears of a newer one.

use std::collections::BTreeMap;

use tholos_cluster::{ClusterId, ClusterMap, MetaCommand, NodeId, NodeRow};
use tholos_node::{Effects, Event, Node, NodeConfig, Now, PeerMessage};
use tholos_paxos::Millis;

use crate::founding::row_alone;
use crate::queue::Queue;
use crate::random::Random;

/// True time between two ticks of a node.
const TICK_US: u64 = 10_000;
/// How long a message is on its way.
const WAY_US: (u64, u64) = (200, 1_500);
/// How long a disk takes.
const SYNC_US: (u64, u64) = (200, 2_000);
/// Whatever has not happened by then does not happen.
const PATIENCE_US: u64 = 10_000_000;
/// Shards of the cluster: what spreads is a map, whatever stands in it.
const SHARDS: u16 = 64;
/// Of so many heartbeats one is measured: they are many, and alike.
const HEARTBEATS_MEASURED_ONE_IN: u64 = 97;

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// From the operator's word at one node to the last node that knows, in microseconds.
    pub spread_us: u64,
    /// Of each kind of message the bytes of the longest since the founding.
    pub largest: BTreeMap<&'static str, usize>,
    /// Maps that were sent for it.
    pub maps: u64,
    /// Messages of all kinds in that time.
    pub messages: u64,
}

#[derive(Debug)]
enum Happening {
    Tick { node: usize },
    Deliver { from: NodeId, to: usize, message: PeerMessage },
    ToNode { node: usize, event: Event },
}

struct World {
    random: Random,
    now: u64,
    queue: Queue<Happening>,
    nodes: Vec<Node>,
    outcome: Outcome,
    heartbeats: u64,
}

/// Has a change decided in a cluster of so many nodes, and waits until all of them know it. An error says what never happened.
pub fn run(nodes: usize, seed: u64) -> Result<Outcome, String> {
    let mut world = World::new(nodes, seed);
    let meta = world.nodes[0].map().meta_group();
    let leads = |node: &Node| node.shard(meta).is_some_and(|shard| shard.group.serving());
    world.play_until("a leader of the meta group", |nodes| nodes.iter().any(leads))?;
    let (began, asked) = (world.now, world.random.below(nodes as u64) as usize);
    // Lengths are of all messages since the founding.
    (world.outcome.maps, world.outcome.messages) = (0, 0);
    let command = Box::new(MetaCommand::Hold(true));
    world.give(asked, Event::AskMeta { asker: 0, command });
    world.play_until("a node that has not heard of it", |nodes| {
        nodes.iter().all(|node| node.meta_state().held)
    })?;
    world.outcome.spread_us = world.now - began;
    Ok(world.outcome)
}

fn row(number: usize) -> NodeRow {
    let address = |port: u16| format!("10.0.{}.{}:{port}", number / 250, number % 250);
    NodeRow {
        zone: format!("z{}", number % 5),
        gateway: address(6379),
        cluster: address(7001),
        peer: address(7101),
        http: address(8080),
        ..row_alone(number)
    }
}

const fn kind(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Heartbeat(_) => "heartbeat",
        PeerMessage::Map(_) => "map",
        PeerMessage::MapWanted { .. } => "map wanted",
        PeerMessage::Counted(_) => "counted",
        PeerMessage::Paxos { .. } => "of a group",
        PeerMessage::Forward(_) => "request",
        PeerMessage::Answer { .. } => "answer",
        _ => "other",
    }
}

impl World {
    fn new(count: usize, seed: u64) -> World {
        let mut random = Random::new(seed);
        let map = ClusterMap::genesis(ClusterId([7; 20]), (1..=count).map(row).collect(), SHARDS, 3)
            .expect("the simulated cluster can be founded");
        let mut node = |number: usize| {
            let config = NodeConfig::new(NodeId(number as u16), random.bits(), random.bits());
            Node::new(config, map.clone())
        };
        let nodes: Vec<Node> = (1..=count).map(&mut node).collect();
        let mut world = World {
            random,
            now: 1_000_000,
            queue: Queue::new(),
            nodes,
            outcome: Outcome::default(),
            heartbeats: 0,
        };
        for node in 0..count {
            let (now, mut out) = (world.clock(), Effects::default());
            world.nodes[node].start(now, &mut out);
            world.carry_out(node, out);
            let first = world.now + world.random.below(TICK_US);
            world.queue.push(first, Happening::Tick { node });
        }
        world
    }

    const fn clock(&self) -> Now {
        let ms = self.now / 1000;
        Now { mono: Millis(ms), wall: Millis(1_700_000_000_000 + ms) }
    }

    /// Plays until something is so, looking after each round of ticks.
    fn play_until(&mut self, what: &str, is_so: impl Fn(&[Node]) -> bool) -> Result<(), String> {
        let deadline = self.now + PATIENCE_US;
        let mut look_at = self.now;
        while let Some((at, happening)) = self.queue.pop() {
            self.now = at;
            if at >= look_at {
                if is_so(&self.nodes) {
                    self.queue.push(at, happening);
                    return Ok(());
                }
                look_at = at + TICK_US;
            }
            if at > deadline {
                return Err(format!("waited {PATIENCE_US} us for {what}"));
            }
            match happening {
                Happening::Tick { node } => {
                    self.give(node, Event::Tick);
                    self.queue.push(at + TICK_US, Happening::Tick { node });
                }
                Happening::Deliver { from, to, message } => self.give(to, Event::Peer { from, message }),
                Happening::ToNode { node, event } => self.give(node, event),
            }
        }
        Err(format!("nothing happens any more, before {what}"))
    }

    fn give(&mut self, node: usize, event: Event) {
        let (now, mut out) = (self.clock(), Effects::default());
        self.nodes[node].handle(now, event, &mut out);
        self.nodes[node].flush(now, &mut out);
        self.carry_out(node, out);
    }

    fn carry_out(&mut self, node: usize, out: Effects) {
        for (to, message) in out.sends {
            self.measure(&message);
            let at = self.now + self.random.between(WAY_US.0, WAY_US.1);
            let (from, to) = (NodeId(node as u16 + 1), usize::from(to.0) - 1);
            self.queue.push(at, Happening::Deliver { from, to, message });
        }
        let synced = self.now + self.random.between(SYNC_US.0, SYNC_US.1);
        if let Some(last) = out.appends.last() {
            self.queue.push(synced, Happening::ToNode { node, event: Event::Durable { seq: last.seq } });
        }
        if let Some(state) = out.map {
            let event = Event::MapKept { epoch: state.epoch() };
            self.queue.push(synced, Happening::ToNode { node, event });
        }
    }

    fn measure(&mut self, message: &PeerMessage) {
        let kind = kind(message);
        self.outcome.messages += 1;
        self.outcome.maps += u64::from(kind == "map");
        if kind == "heartbeat" {
            self.heartbeats += 1;
            if !self.heartbeats.is_multiple_of(HEARTBEATS_MEASURED_ONE_IN) {
                return;
            }
        }
        let mut bytes = Vec::new();
        tholos_wire::encode_peer(message, &mut bytes);
        let largest = self.outcome.largest.entry(kind).or_default();
        *largest = bytes.len().max(*largest);
    }
}

/// Whether no message of the larger cluster is longer than by as many times as it has nodes; numbers get longer as well, so
/// twice that is let pass (the square of four is sixteen), and some bytes do not count.
pub fn grows_no_faster(smaller: &Outcome, larger: &Outcome, times: usize) -> Result<(), String> {
    const DO_NOT_COUNT: usize = 256;
    for (kind, bytes) in &larger.largest {
        let before = smaller.largest.get(kind).copied().unwrap_or(0);
        if *bytes > 2 * times * before.max(DO_NOT_COUNT) {
            return Err(format!(
                "a message ({kind}) has {bytes} B, and had {before} B with {times} times fewer nodes"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the same name does it with a thousand.
    #[test]
    fn a_change_of_the_map_reaches_all_within_a_second_and_no_message_grows_faster_than_the_nodes() {
        let [few, many] = [24, 96].map(|nodes| run(nodes, 7).unwrap());
        assert!(few.spread_us <= 1_000_000 && many.spread_us <= 1_000_000, "{few:?} {many:?}");
        assert_eq!(grows_no_faster(&few, &many, 4), Ok(()));
        assert!(many.maps >= 91, "those who do not vote are sent it: {many:?}");
        // As the square would be: told.
        let square = few.largest.iter().map(|(kind, bytes)| (*kind, 16 * bytes.max(&256))).collect();
        assert!(grows_no_faster(&few, &Outcome { largest: square, ..many }, 4).is_err());
    }
}
