//! Messages between nodes: gathered into one payload for each peer and lane of a round, and taken apart again.

use bytes::Bytes;
use tholos_cluster::{ClusterMap, NodeId};
use tholos_node::PeerMessage;
use tholos_rpc::{Lane, PeerAddress, Rpc, SendError};
use tholos_wire::{FrameBuilder, Payload};

use crate::metrics::{Counters, add};

/// A payload is sent on when it has this many bytes, so that one round's messages do not become one huge one.
const PAYLOAD_BYTES: usize = 256 << 10;

/// The other nodes, as the worker sends to them.
pub(crate) struct Peers {
    rpc: Rpc,
    rows: Vec<Row>,
}

struct Row {
    node: NodeId,
    log: FrameBuilder,
    bulk: FrameBuilder,
}

impl Peers {
    pub(crate) fn new(rpc: Rpc, map: &ClusterMap, me: NodeId) -> Peers {
        let others = map.nodes.iter().map(|row| row.id).filter(|node| *node != me);
        let row = |node| Row { node, log: FrameBuilder::new(), bulk: FrameBuilder::new() };
        Peers { rpc, rows: others.map(row).collect() }
    }

    /// The other nodes are those of this map from here on.
    pub(crate) fn set_map(&mut self, map: &ClusterMap, me: NodeId) {
        self.rpc.set_peers(addresses(map, me));
        let others = || map.nodes.iter().map(|row| row.id).filter(|node| *node != me);
        self.rows.retain(|row| others().any(|node| node == row.node));
        for node in others() {
            if !self.rows.iter().any(|row| row.node == node) {
                self.rows.push(Row { node, log: FrameBuilder::new(), bulk: FrameBuilder::new() });
            }
        }
    }

    /// Sends all of a round. What cannot be sent is dropped: the core sends again what matters.
    pub(crate) fn send_all(&mut self, sends: &mut Vec<(NodeId, PeerMessage)>, counters: &Counters) {
        add(&counters.peer_messages_sent, sends.len() as u64);
        for (to, message) in sends.drain(..) {
            let Some(row) = self.rows.iter_mut().find(|row| row.node == to) else { continue };
            if let PeerMessage::Heartbeat(_) = message {
                let mut alone = FrameBuilder::new();
                alone.push(&message);
                note(self.rpc.send_urgent(to.0, alone.take().into_bytes()), counters);
                continue;
            }
            let (builder, lane) =
                if message.is_bulk() { (&mut row.bulk, Lane::Bulk) } else { (&mut row.log, Lane::Log) };
            builder.push(&message);
            if builder.len() >= PAYLOAD_BYTES {
                let Payload { first, rest } = builder.take();
                note(self.rpc.send_parts(to.0, lane, first, rest), counters);
            }
        }
        for row in &mut self.rows {
            for (builder, lane) in [(&mut row.log, Lane::Log), (&mut row.bulk, Lane::Bulk)] {
                if !builder.is_empty() {
                    let Payload { first, rest } = builder.take();
                    note(self.rpc.send_parts(row.node.0, lane, first, rest), counters);
                }
            }
        }
    }
}

fn note(sent: Result<(), SendError>, counters: &Counters) {
    if sent.is_err() {
        add(&counters.peer_payloads_dropped, 1);
    }
}

/// Hands each message of a payload to `handle`; what cannot be read is counted and told, and the rest goes on.
pub(crate) fn take_apart(
    from: NodeId,
    payload: Bytes,
    counters: &Counters,
    mut handle: impl FnMut(PeerMessage),
) {
    for message in tholos_wire::frames(payload) {
        match message {
            Ok(message) => {
                add(&counters.peer_messages_received, 1);
                handle(message);
            }
            Err(error) => {
                add(&counters.peer_messages_undecodable, 1);
                tracing::warn!(from = %from, %error, "a peer's message cannot be read and is dropped");
            }
        }
    }
}

/// Where the other nodes are reached, for the connections.
pub(crate) fn addresses(map: &ClusterMap, me: NodeId) -> Vec<PeerAddress> {
    let others = map.nodes.iter().filter(|row| row.id != me && !row.peer.is_empty());
    others
        .map(|row| PeerAddress { node: row.id.0, name: row.name.clone(), address: row.peer.clone() })
        .collect()
}
