//! What nodes say to each other.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::{Epoch, NodeId, NodeSaid};
use tholos_paxos::{Ballot, Config, Index, Message, Millis, MoveId, Serial};
use tholos_resp::Value;
use tholos_ring::ShardId;

use crate::counted::Counted;
use crate::digests::DigestNote;
use crate::load::{NodeLoad, QueueReport};

/// An answer of more bytes than this, about, is large.
const LARGE_ANSWER_BYTES: usize = 64 << 10;

/// One message from node to node.
#[derive(Clone, PartialEq, Debug)]
pub enum PeerMessage {
    /// I am here, this is what I hear (R9), and this is my wall clock (R16).
    Heartbeat(Heartbeat),
    /// How far the logs of both are durable, as each knows it (R21).
    Counted(Counted),
    /// About the digests of a shard's replicas (R24).
    Digest(DigestNote),
    /// A message of one shard's Paxos group.
    Paxos {
        /// The group.
        shard: ShardId,
        /// Which of the replicas that its node has had of the shard the sender is (R7).
        from: Serial,
        /// Which replica of the receiver's node it is for.
        to: Serial,
        /// The message.
        message: Message,
    },
    /// A client's request, from its gateway to the shard's leader.
    Forward(Forward),
    /// The answer to a [`Forward`].
    Answer {
        /// The number of the request, as its gateway gave it.
        request: u64,
        /// The gateway's boot, so that an answer to an earlier boot is not mistaken.
        boot: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// A client's request, from its gateway to a node that hears the leader when the gateway's node does not: to be passed
    /// on (R11).
    Relay(Forward),
    /// The same, passed on to the leader.
    Relayed {
        /// The node of the gateway.
        gateway: NodeId,
        /// The request, as the gateway sent it.
        forward: Forward,
    },
    /// The answer to a [`PeerMessage::Relayed`], to be passed on to the gateway.
    RelayedAnswer {
        /// The node of the gateway.
        gateway: NodeId,
        /// The number of the request.
        request: u64,
        /// The gateway's boot.
        boot: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// How long the sender's queue is, beside its answers.
    Queue(QueueReport),
    /// A piece of a snapshot, from a leader to a replica that fell behind.
    SnapshotChunk(SnapshotChunk),
    /// Send me the newest map.
    MapWanted {
        /// The epoch of the one that the sender has.
        have: Epoch,
    },
    /// The newest map that the sender has, with all that is decided with it, as `tholos-cluster` writes it.
    Map(Bytes),
    /// From the leader of the meta group: make this move, as far as it is not made.
    MoveOrder(MoveOrder),
    /// The answer of the shard's leader.
    MoveReport(MoveReport),
    /// From the leader of the meta group: say how you are.
    FactsWanted,
    /// How the sender is.
    Facts(NodeSaid),
    /// From the leader of the meta group: end this boot, and begin another.
    Restart {
        /// The boot of the receiver; in another one it does nothing.
        boot: u64,
    },
    /// To the owner of the log that a recovery keeps (R29): go on with it. A `RescueAsk` as `tholos-cluster` writes it.
    Rescue(Bytes),
    /// The answer.
    RescueReport(RescueReport),
    /// How far a snapshot has arrived.
    SnapshotWanted {
        /// The group.
        shard: ShardId,
        /// The leader's ballot.
        ballot: Ballot,
        /// The last index of the snapshot.
        index: Index,
        /// The file, as its chunks name it.
        file: u64,
        /// The next chunk wanted: all before it are written. `u32::MAX`: none is needed.
        chunk: u32,
    },
}

impl PeerMessage {
    /// Whether it is of a shard's protocol, and so not to be taken from a peer whose log may lack what was counted of it
    /// (R21).
    pub(crate) fn rests_on_the_log(&self) -> bool {
        match self {
            PeerMessage::Heartbeat(_)
            | PeerMessage::Counted(_)
            | PeerMessage::MapWanted { .. }
            | PeerMessage::Map(_)
            | PeerMessage::MoveOrder(_)
            | PeerMessage::MoveReport(_)
            | PeerMessage::FactsWanted
            | PeerMessage::Facts(_)
            | PeerMessage::Restart { .. }
            | PeerMessage::Rescue(_)
            | PeerMessage::RescueReport(_)
            | PeerMessage::Forward(_)
            | PeerMessage::Relay(_)
            | PeerMessage::Relayed { .. }
            | PeerMessage::RelayedAnswer { .. }
            | PeerMessage::Queue(_)
            | PeerMessage::Answer { .. } => false,
            PeerMessage::Paxos { .. }
            | PeerMessage::Digest(_)
            | PeerMessage::SnapshotChunk(_)
            | PeerMessage::SnapshotWanted { .. } => true,
        }
    }

    /// Whether it belongs on the bulk connection, where it cannot hold up heartbeats and what is small (R27). Of what
    /// clients send and get only answers: a large write that came after small ones of its session would bring about a gap.
    pub fn is_bulk(&self) -> bool {
        match self {
            PeerMessage::SnapshotChunk(_) | PeerMessage::Map(_) | PeerMessage::Facts(_) => true,
            PeerMessage::Answer { outcome: Outcome::Done(value), .. }
            | PeerMessage::RelayedAnswer { outcome: Outcome::Done(value), .. } => is_large(value),
            _ => false,
        }
    }
}

/// Whether an answer is of more bytes than [`LARGE_ANSWER_BYTES`], or many elements in place of bytes.
fn is_large(value: &Value) -> bool {
    /// What is left of `left` after this value; `None` if it is more.
    fn after(left: usize, value: &Value) -> Option<usize> {
        let left = left.checked_sub(size_of::<Value>())?;
        match value {
            Value::Simple(bytes) | Value::Error(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => {
                left.checked_sub(bytes.len())
            }
            Value::Verbatim { text, .. } => left.checked_sub(text.len()),
            Value::Array(values) | Value::Set(values) | Value::Push(values) => {
                values.iter().try_fold(left, after)
            }
            Value::Map(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).try_fold(left, after),
            Value::Integer(_) | Value::Null | Value::NullArray | Value::Double(_) | Value::Boolean(_) => {
                Some(left)
            }
        }
    }
    after(LARGE_ANSWER_BYTES, value).is_none()
}

/// Failure detection per node pair (R9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// A random number of the sender's boot.
    pub boot: u64,
    /// The nodes that the sender has heard within an election time-out, itself included.
    pub heard: Vec<NodeId>,
    /// The sender's wall clock, Unix milliseconds.
    pub wall: Millis,
    /// For how long the sender's disk has had an append waiting, in milliseconds; 0 if none.
    pub disk_stall_ms: u32,
    /// Bytes in the sender's keyspaces are over its `maxmemory`.
    pub memory_full: bool,
    /// The sender's disk has less room than its reserve.
    pub disk_full: bool,
    /// The epoch of the sender's map.
    pub epoch: Epoch,
    /// How loaded the sender is, and what it could do.
    pub load: NodeLoad,
}

/// An order to move a replica, given again until the map has recorded what came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MoveOrder {
    /// The shard.
    pub shard: ShardId,
    /// The move's number, which the configurations that it makes carry.
    pub move_id: MoveId,
    /// The number of the configuration that it is for (R7).
    pub number: u64,
    /// Who gives up its replica.
    pub from: Option<NodeId>,
    /// Who gets one.
    pub to: Option<NodeId>,
    /// The move is taken back, as far as it has come.
    pub back: bool,
    /// Bytes of a snapshot that may be sent for it in a second; 0 if nothing holds it back.
    pub share: u64,
}

/// How far an ordered move is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveReport {
    /// The shard.
    pub shard: ShardId,
    /// The decided configuration, once nothing more is to be done for the order.
    pub config: Option<Config>,
    /// How many entries the node lacks that is to get the shard, while it learns.
    pub behind: Option<u64>,
    /// The number of the shard's latest configuration.
    pub number: u64,
    /// Bytes of snapshot and entries that this leader has sent for the move.
    pub sent: u64,
    /// Bytes that the move takes, about.
    pub total: u64,
    /// What it waits for.
    pub wait: Wait,
}

impl MoveReport {
    /// Of a move of which nothing is known yet.
    pub(crate) const fn new(shard: ShardId) -> MoveReport {
        MoveReport { shard, config: None, behind: None, number: 0, sent: 0, total: 0, wait: Wait::Decision }
    }
}

/// What a move waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wait {
    /// For the shard to decide its next configuration.
    Decision,
    /// For most voters of the shard to be there.
    Quorum,
    /// For most voters to know what is decided.
    Told,
    /// For the node that is to get a replica: it is not heard.
    Target,
    /// For room on that node's disk.
    TargetFull,
    /// For that node to begin its replica.
    Join,
    /// For a snapshot to be written, or for others to have been sent.
    Snapshot,
    /// For the snapshot to arrive.
    Sending,
    /// For the throttle of the job.
    Throttle,
    /// For the entries that follow the snapshot.
    Entries,
    /// For a leader of the shard.
    Leader,
    /// For that leader to say something.
    Silent,
}

impl Wait {
    /// All of them, as they are numbered between nodes.
    pub const ALL: [Wait; 12] = [
        Wait::Decision,
        Wait::Quorum,
        Wait::Told,
        Wait::Target,
        Wait::TargetFull,
        Wait::Join,
        Wait::Snapshot,
        Wait::Sending,
        Wait::Throttle,
        Wait::Entries,
        Wait::Leader,
        Wait::Silent,
    ];
}

/// What has come of an order to go on without those who are gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RescueReport {
    /// The number of the recovery's plan.
    pub plan: u64,
    /// The group.
    pub group: ShardId,
    /// What has come of it.
    pub said: RescueSaid,
}

/// What has come of an order to go on without those who are gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RescueSaid {
    /// Nothing yet, and why: to be ordered again.
    Waits(String),
    /// The log goes on, durably, with this configuration.
    Done(Config),
    /// Nothing, and why; it stays so.
    Refused(String),
}

/// A request on its way to the shard's leader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forward {
    /// Numbers the requests of one gateway boot.
    pub request: u64,
    /// The gateway's boot.
    pub boot: u64,
    /// The shard.
    pub shard: ShardId,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Apply commands as one entry part; exactly once (R18).
    Write {
        /// The session of the connection on this shard.
        session: u64,
        /// Consecutive per session.
        sequence: u64,
        /// Replies up to this sequence have arrived at the gateway: they need not be kept.
        acknowledged: u64,
        /// Shard time at which it may no longer be applied.
        expires_at: Millis,
        /// The encoded operation (see `crate::operation`).
        operation: Bytes,
    },
    /// Answer from a linearizable state.
    Read {
        /// The encoded operation.
        operation: Bytes,
    },
    /// The same, of a replica that need not lead: it asks the leader how far the log is decided.
    ReplicaRead {
        /// The encoded operation.
        operation: Bytes,
    },
}

/// What became of a forwarded request.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Done, with this reply.
    Done(Value),
    /// Not led here; nothing was done. The hint carries its ballot (R11).
    NotLeader {
        /// The leader that this node knows, if any.
        leader: Option<(NodeId, Ballot)>,
    },
    /// A write's sequence is not the next one: send again from this one on.
    Gap {
        /// The sequence wanted.
        expected: u64,
    },
    /// The write's time was over before it was applied: it was not and will not be.
    Expired,
    /// Refused before anything was proposed; may be sent again.
    Refused(Value),
    /// It may have been applied; leadership was lost meanwhile. A write may be sent again
    /// under the same session and sequence.
    Unknown,
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotChunk {
    /// The group.
    pub shard: ShardId,
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The last index it covers.
    pub index: Index,
    /// Tells the sender's files of one index apart: each holds the state in an order of its own.
    pub file: u64,
    /// Number of this chunk, from 0.
    pub chunk: u32,
    /// How many there are; 0 while that is not known, which it is with the last.
    pub chunks: u32,
    /// The checksum, as it stands in the file, of everything up to the end of this chunk.
    pub checksum: u32,
    /// The bytes.
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn large_answers_are_bulk_and_what_has_an_order_is_not() {
        let answer = |value| PeerMessage::Answer { request: 1, boot: 1, outcome: Outcome::Done(value) };
        let value = |bytes: usize| Value::bulk(vec![0; bytes]);
        let small = [value(1000), Value::Array(vec![value(1000); 50]), Value::Null];
        let large = [
            value(LARGE_ANSWER_BYTES),
            Value::Array(vec![value(1000); 70]),
            Value::Map(vec![(value(1), value(70_000))]),
            Value::Array(vec![Value::Integer(1); 10_000]),
        ];
        assert!(small.iter().all(|value| !answer(value.clone()).is_bulk()));
        assert!(large.iter().all(|value| answer(value.clone()).is_bulk()));
        let relayed = PeerMessage::RelayedAnswer {
            gateway: NodeId(1),
            request: 1,
            boot: 1,
            outcome: Outcome::Done(large[0].clone()),
        };
        assert!(relayed.is_bulk());
    }
}
