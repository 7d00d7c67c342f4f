//! What happened, in our notation: `n1 -> n2 s3 Accept 3.n1 @41 to @43, decided @40`.

use tholos_node::{Event, Notice, Outcome, PeerMessage};
use tholos_paxos::Record;
use tholos_ring::ShardId;

/// The lines of one run; kept only if they are asked for.
#[derive(Debug, Default)]
pub struct Trail {
    lines: Option<Vec<Line>>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Line {
    /// True time in microseconds.
    pub at: u64,
    /// The shard that it is about, if it is about one.
    pub shard: Option<ShardId>,
    /// What happened.
    pub text: String,
}

impl Trail {
    /// Keeps all lines, or none.
    pub fn new(kept: bool) -> Trail {
        Trail { lines: kept.then(Vec::new) }
    }

    /// Something happened.
    pub fn note(&mut self, at: u64, shard: Option<ShardId>, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, shard, text: text() });
        }
    }

    /// A message was sent to a node, or has reached it.
    pub fn message(&mut self, at: u64, (from, to): (usize, usize), verb: &str, message: &PeerMessage) {
        let (shard, what) = match message {
            PeerMessage::Heartbeat(_)
            | PeerMessage::Counted(_)
            | PeerMessage::Digest(_)
            | PeerMessage::FactsWanted
            | PeerMessage::Facts(_)
            | PeerMessage::MapWanted { .. }
            | PeerMessage::Rescue(_)
            | PeerMessage::Queue(_)
            | PeerMessage::Map(_) => return,
            _ if self.lines.is_none() => return,
            PeerMessage::Restart { boot } => {
                let text = format!("n{} {verb} n{} Restart {boot}", from + 1, to + 1);
                return self.note(at, None, || text);
            }
            PeerMessage::MoveOrder(order) => (order.shard, format!("{order:?}")),
            PeerMessage::MoveReport(report) => (report.shard, format!("{report:?}")),
            PeerMessage::RescueReport(report) => (report.group, format!("{:?}", report.said)),
            PeerMessage::Paxos { shard, message, .. } => (*shard, message.to_string()),
            PeerMessage::Forward(forward) => (forward.shard, format!("Forward {}", forward.request & 0xffff)),
            PeerMessage::Relay(forward) => (forward.shard, format!("Relay {}", forward.request & 0xffff)),
            PeerMessage::Relayed { gateway, forward } => {
                (forward.shard, format!("Relayed for {gateway} {}", forward.request & 0xffff))
            }
            PeerMessage::RelayedAnswer { gateway, request, outcome, .. } => {
                let text =
                    format!("n{} {verb} n{} Answer {} for {gateway}", from + 1, to + 1, request & 0xffff);
                return self.note(at, None, || format!("{text} {}", self::outcome(outcome)));
            }
            PeerMessage::Answer { request, outcome, .. } => {
                let text = format!("n{} {verb} n{} Answer {}", from + 1, to + 1, request & 0xffff);
                return self.note(at, None, || format!("{text} {}", self::outcome(outcome)));
            }
            PeerMessage::SnapshotChunk(chunk) => (
                chunk.shard,
                format!(
                    "Snapshot {} to {}, chunk {} of {}",
                    chunk.ballot, chunk.index, chunk.chunk, chunk.chunks
                ),
            ),
            PeerMessage::SnapshotWanted { shard, ballot, index, chunk, .. } => {
                (*shard, format!("wants snapshot {ballot} to {index} from chunk {chunk}"))
            }
        };
        self.note(at, Some(shard), || format!("n{} {verb} n{} {shard} {what}", from + 1, to + 1));
    }

    /// A node asks its log to keep something.
    pub fn append(&mut self, at: u64, host: usize, shard: ShardId, record: &Record) {
        self.note(at, Some(shard), || format!("n{} {shard} appends {record}", host + 1));
    }

    /// A node says what has happened to it.
    pub fn notice(&mut self, at: u64, host: usize, notice: &Notice) {
        let (shard, text) = match notice {
            Notice::LeaderElected { shard, ballot } => (Some(*shard), format!("{shard} serves in {ballot}")),
            Notice::LeaderStoppedLeading { shard, ballot } => {
                (Some(*shard), format!("{shard} leads no more in {ballot}"))
            }
            Notice::SnapshotInstalled { shard, index } => {
                (Some(*shard), format!("{shard} has taken over a snapshot to {index}"))
            }
            other => (None, format!("{other:?}")),
        };
        self.note(at, shard, || format!("n{} {text}", host + 1));
    }

    /// An event that is not a message.
    pub fn event(&mut self, at: u64, host: usize, event: &Event) {
        match event {
            Event::Durable { seq } => {
                self.note(at, None, || format!("n{} is durable to {}", host + 1, seq.0))
            }
            Event::SnapshotSaved { shard, index } => {
                self.note(at, Some(*shard), || {
                    format!("n{} {shard} has saved a snapshot to {index}", host + 1)
                });
            }
            Event::LogRoom(room) => self.note(at, None, || format!("n{} log room: {room:?}", host + 1)),
            Event::PeerDown { node } => self.note(at, None, || format!("n{} finds {node} down", host + 1)),
            Event::Resign => self.note(at, None, || format!("n{} is to resign", host + 1)),
            _ => {}
        }
    }

    /// The lines so far.
    pub fn take(&mut self) -> Vec<Line> {
        self.lines.take().unwrap_or_default()
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::NotLeader { leader: Some((node, ballot)) } => {
            format!("not the leader, {node} is in {ballot}")
        }
        Outcome::NotLeader { leader: None } => String::from("not the leader"),
        other => format!("{other:?}"),
    }
}
