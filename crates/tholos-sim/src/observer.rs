//! Reads off a node's inputs and effects which branches it took.

use tholos_node::{Append, Effects, Event, Notice, Outcome, PeerMessage};
use tholos_paxos::{Ballot, Entry, Message, Payload, Record};
use tholos_ring::ShardId;

use crate::coverage::{Coverage, Reached};
use crate::elastic::LIVES_APART;

/// What must be remembered of a node, to tell a first time from a repeat.
#[derive(Debug, Default)]
pub struct Observer {
    shards: Vec<Seen>,
}

/// The same of one of its replicas.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// The candidacy under way.
    standing: Option<Ballot>,
    /// The last read round sent, and to whom first.
    round: Option<((Ballot, u64), usize)>,
    /// The last log sent again, for each receiver.
    synced: Vec<Option<(Ballot, u64)>>,
}

/// What an event was, as far as its effects are judged by it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A canvass came in.
    Canvass,
    /// Appends are durable.
    Durable,
    /// Anything else.
    Other,
}

impl Cause {
    /// Of an event.
    pub fn of(event: &Event) -> Cause {
        match event {
            Event::Peer { message: PeerMessage::Paxos { message: Message::Canvass { .. }, .. }, .. } => {
                Cause::Canvass
            }
            Event::Durable { .. } => Cause::Durable,
            _ => Cause::Other,
        }
    }
}

impl Observer {
    /// Of a node that holds so many shards, in a cluster of so many nodes.
    pub fn new(shards: u16, nodes: usize) -> Observer {
        let seen = Seen { synced: vec![None; nodes + 1], ..Seen::default() };
        Observer { shards: vec![seen; usize::from(shards)] }
    }

    /// The node was started anew.
    pub fn restarted(&mut self, coverage: &mut Coverage) {
        for seen in &mut self.shards {
            if seen.standing.take().is_some() {
                coverage.count(Reached::ElectionLost);
            }
        }
    }

    /// What one event, or several at once, led to.
    pub fn note(&mut self, cause: Cause, out: &Effects, coverage: &mut Coverage) {
        let mut endorsed = false;
        for (to, message) in &out.sends {
            match message {
                PeerMessage::Paxos { shard, message, .. } => {
                    endorsed |= matches!(message, Message::Endorse { .. });
                    self.message(*shard, usize::from(to.0), message, cause, coverage);
                }
                PeerMessage::SnapshotChunk(chunk) if chunk.chunk == 0 => {
                    coverage.count(Reached::SnapshotSent)
                }
                PeerMessage::SnapshotWanted { .. } => coverage.count(Reached::SnapshotAsked),
                PeerMessage::MapWanted { .. } => coverage.count(Reached::MapAsked),
                PeerMessage::Forward(_) => coverage.count(Reached::Forwarded),
                PeerMessage::Relayed { .. } => coverage.count(Reached::Relayed),
                PeerMessage::Answer { outcome, .. } => answer(outcome, coverage),
                _ => {}
            }
        }
        if cause == Cause::Canvass && !endorsed {
            coverage.count(Reached::CanvassRefused);
        }
        for append in &out.appends {
            record(append, coverage);
        }
        for notice in &out.notices {
            self.notice(notice, coverage);
        }
        if out.release.is_some() {
            coverage.count(Reached::Released);
        }
    }

    fn message(
        &mut self,
        shard: ShardId,
        to: usize,
        message: &Message,
        cause: Cause,
        coverage: &mut Coverage,
    ) {
        let seen = &mut self.shards[usize::from(shard.0)];
        match message {
            Message::Canvass { .. } => coverage.count(Reached::Canvassed),
            Message::Prepare { ballot, .. } if seen.standing != Some(*ballot) => {
                if seen.standing.replace(*ballot).is_some() {
                    coverage.count(Reached::ElectionLost);
                }
                coverage.count(Reached::Prepared);
            }
            Message::Reject { .. } => coverage.count(Reached::Rejected),
            Message::Fetch { .. } => coverage.count(Reached::Fetched),
            Message::Sync { ballot, from, entries, whole_to } => {
                if entries.last().is_some_and(|entry| entry.index < *whole_to) {
                    coverage.count(Reached::SyncInPieces);
                }
                if entries.first().is_none_or(|entry| entry.index == *from) {
                    coverage.count(Reached::SyncSent);
                    let sent = (*ballot, from.0);
                    if seen.synced[to % LIVES_APART].replace(sent) == Some(sent) {
                        coverage.count(Reached::SyncRepeated);
                    }
                }
            }
            Message::Behind { .. } => coverage.count(Reached::Rewound),
            Message::Decide { length, .. } if length.0 > 0 => coverage.count(Reached::Probed),
            Message::Accepted { .. } | Message::Promise { .. } if cause == Cause::Durable => {
                coverage.count(Reached::HeldReply);
            }
            Message::Confirm { ballot, round } => {
                // A round goes to each of the others: the same one again is a repeat only to the same.
                let this = (*ballot, *round);
                match seen.round {
                    Some((last, first)) if last == this && first == to => {
                        coverage.count(Reached::ReadRoundRepeated);
                    }
                    Some((last, _)) if last == this => {}
                    _ => {
                        seen.round = Some((this, to));
                        coverage.count(Reached::ReadRound);
                    }
                }
            }
            Message::Released { .. } => coverage.count(Reached::Transferred),
            Message::Lease { .. } => coverage.count(Reached::LeaseAsked),
            Message::Granted { .. } => coverage.count(Reached::LeaseGranted),
            _ => {}
        }
    }

    fn notice(&mut self, notice: &Notice, coverage: &mut Coverage) {
        match notice {
            Notice::LeaderElected { shard, .. } => {
                self.shards[usize::from(shard.0)].standing = None;
                coverage.count(Reached::Elected);
            }
            Notice::LeaderStoppedLeading { .. } => coverage.count(Reached::StoppedLeading),
            Notice::ReplicasChanged { .. } => coverage.count(Reached::SetChanged),
            Notice::ChangeRefused { .. } => coverage.count(Reached::ChangeRefused),
            Notice::ReplicaJoined { .. } => coverage.count(Reached::ReplicaJoined),
            Notice::JobStarts { .. } => coverage.count(Reached::JobByItself),
            Notice::RestartOrdered => coverage.count(Reached::RestartOrdered),
            Notice::CapacityChanged { before, capacity, .. } if capacity < before => {
                coverage.count(Reached::FoundSlow);
            }
            Notice::CapacityChanged { .. } => coverage.count(Reached::FoundWell),
            Notice::NodeLost { .. } => coverage.count(Reached::NodeLost),
            Notice::ReplicaRepaired { .. } => coverage.count(Reached::RotRepaired),
            Notice::ReplicaRenewed { .. } => coverage.count(Reached::RotRenewed),
            Notice::WentBack { .. } => coverage.count(Reached::WentBackNoticed),
            Notice::SnapshotResumed { .. } => coverage.count(Reached::SnapshotResumed),
            Notice::SnapshotInstalled { .. } => coverage.count(Reached::SnapshotInstalled),
            Notice::ReplicaDropped { .. } => coverage.count(Reached::ReplicaDropped),
            _ => {}
        }
    }
}

fn answer(outcome: &Outcome, coverage: &mut Coverage) {
    match outcome {
        Outcome::NotLeader { .. } => coverage.count(Reached::NotLeader),
        Outcome::Unknown => coverage.count(Reached::InDoubt),
        Outcome::Gap { .. } => coverage.count(Reached::Gap),
        Outcome::Expired => coverage.count(Reached::Expired),
        _ => {}
    }
}

fn record(append: &Append, coverage: &mut Coverage) {
    let tick = |entries: &[Entry]| entries.iter().any(|entry| entry.payload == Payload::Tick);
    match &append.record {
        Record::Accepted { entries, .. } if tick(entries) => coverage.count(Reached::Ticked),
        Record::Replaced { .. } => coverage.count(Reached::TailReplaced),
        Record::Checkpoint(_) => coverage.count(Reached::Checkpointed),
        _ => {}
    }
}
