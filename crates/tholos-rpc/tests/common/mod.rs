//! Nodes on loopback for the tests: ports are the system's choice, and every wait has a deadline.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tholos_rpc::{Config, Event, Lane, LocalHello, PeerAddress, Refusal, Rpc, Secret};
use tokio::sync::mpsc;

/// No test needs this long; one that does has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const CLUSTER: [u8; 20] = [0xc1; 20];

pub struct Node {
    pub rpc: Rpc,
    pub events: mpsc::Receiver<Event>,
}

pub fn secret(byte: u8) -> Option<Secret> {
    Some(Secret::new(&[byte; 32]).expect("32 bytes are enough"))
}

pub fn hello(node: u16) -> LocalHello {
    LocalHello {
        cluster_id: Some(CLUSTER),
        node,
        name: format!("n{node}"),
        incarnation: 100 + u64::from(node),
        boot: 1,
        recovered_lsn: 77,
        advertised: Bytes::from(format!("rows of n{node}")),
    }
}

pub fn config(node: u16, secret: Option<Secret>) -> Config {
    Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), hello(node), secret)
}

pub fn address(node: u16, of: &Node) -> PeerAddress {
    PeerAddress { node, name: format!("n{node}"), address: of.rpc.local_address().to_string() }
}

impl Node {
    pub fn start(config: Config) -> Node {
        Node::with_events(config, 1024)
    }

    pub fn with_events(config: Config, events_max: usize) -> Node {
        let (sender, events) = mpsc::channel(events_max);
        Node { rpc: Rpc::start(config, sender).expect("loopback has free ports"), events }
    }

    /// The next event.
    pub async fn next(&mut self) -> Event {
        self.find(Some).await
    }

    /// The first event that `pick` takes; others are dropped.
    pub async fn find<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let finding = async {
            loop {
                let event = self.events.recv().await.expect("events end only with the node");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        tokio::time::timeout(DEADLINE, finding).await.expect("it did not come before the deadline")
    }

    /// Waits until both lanes to `node` are up.
    pub async fn both_up(&mut self, node: u16) {
        let mut up = Vec::new();
        while up.len() < 2 {
            let lane = self.find(|event| match event {
                Event::Up { peer, lane } if peer.node == node => Some(lane),
                _ => None,
            });
            let lane = lane.await;
            assert!(!up.contains(&lane), "{lane} came up twice");
            up.push(lane);
        }
    }

    /// The next message, its lane and sender.
    pub async fn message(&mut self) -> (u16, Lane, Bytes) {
        self.find(|event| match event {
            Event::Frame { from, lane, payload, .. } => Some((from, lane, payload)),
            _ => None,
        })
        .await
    }

    /// The first refusal with this label.
    pub async fn refusal(&mut self, label: &str) -> Refusal {
        self.find(|event| match event {
            Event::Refused { reason, .. } if reason.reason() == label => Some(reason),
            _ => None,
        })
        .await
    }
}

/// Two nodes that know each other and are connected.
pub async fn pair(secret: Option<Secret>) -> (Node, Node) {
    let (mut one, mut two) = (Node::start(config(1, secret.clone())), Node::start(config(2, secret)));
    introduce(&one, 1, &two, 2);
    one.both_up(2).await;
    two.both_up(1).await;
    (one, two)
}

pub fn introduce(one: &Node, one_id: u16, two: &Node, two_id: u16) {
    two.rpc.set_peers(vec![address(one_id, one), address(two_id, two)]);
    one.rpc.set_peers(vec![address(one_id, one), address(two_id, two)]);
}
