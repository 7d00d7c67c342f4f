//! Which version a value is written in: the lowest that can say it (W4).
//!
//! Version 2 says what only a changed replica set needs (R7): configurations with learners, an order and the highest
//! replica id; ids of replicas that joined later; the record with which they begin. And what a replica that has lost
//! records needs (R20), how it is found out (R21, R24), leases (R12), the file of a snapshot and the checksum of each chunk,
//! by which a transfer that broke off goes on; the epoch of a map that has changed since the cluster was founded, a full
//! disk, the load of a node, and reads that are sent to a replica which need not lead.

use tholos_cluster::Epoch;
use tholos_node::{Ask, Forward, NodeLoad, PeerMessage};
use tholos_paxos::{Checkpoint, Config, Entry, Message, Payload, Record, ReplicaId, Serial};

use crate::{VERSION, VERSION_MAX};

pub(crate) fn of_record(record: &Record) -> u8 {
    match record {
        Record::Promised { .. } => VERSION,
        Record::Accepted { entries, .. } | Record::Replaced { entries, .. } => of_entries(entries),
        Record::Checkpoint(checkpoint)
            if checkpoint.joined != ReplicaId::default() || knows_to_be_in_log(checkpoint) =>
        {
            VERSION_MAX
        }
        Record::Checkpoint(checkpoint) => of_config(&checkpoint.config).max(of_entries(&checkpoint.entries)),
        Record::Joined { .. } | Record::Muted { .. } | Record::Rescued { .. } => VERSION_MAX,
    }
}

/// What it knows to be decided is so in its log's ballot or a lower one, though it has promised a higher: else that goes
/// without saying, or is not known.
pub(crate) fn knows_to_be_in_log(checkpoint: &Checkpoint) -> bool {
    checkpoint.promised > checkpoint.accepted && !checkpoint.knows_above
}

pub(crate) fn of_peer(message: &PeerMessage) -> u8 {
    match message {
        PeerMessage::Paxos { from, to, .. } if (*from, *to) != (Serial(0), Serial(0)) => VERSION_MAX,
        PeerMessage::Paxos {
            message:
                Message::Accept { entries, .. } | Message::Sync { entries, .. } | Message::Fetched { entries, .. },
            ..
        } => of_entries(entries),
        PeerMessage::Paxos {
            message:
                Message::Repair { .. }
                | Message::Bound { .. }
                | Message::Renewed { .. }
                | Message::Lease { .. }
                | Message::Granted { .. }
                | Message::Prepare { released: Some(_), .. },
            ..
        }
        | PeerMessage::Counted(_)
        | PeerMessage::Digest(_) => VERSION_MAX,
        PeerMessage::Heartbeat(heartbeat)
            if heartbeat.epoch != Epoch(1)
                || heartbeat.disk_full
                || heartbeat.load != NodeLoad::default() =>
        {
            VERSION_MAX
        }
        PeerMessage::MapWanted { .. }
        | PeerMessage::Map(_)
        | PeerMessage::MoveOrder(_)
        | PeerMessage::MoveReport(_)
        | PeerMessage::FactsWanted
        | PeerMessage::Facts(_)
        | PeerMessage::Restart { .. }
        | PeerMessage::Rescue(_)
        | PeerMessage::RescueReport(_)
        | PeerMessage::Queue(_)
        | PeerMessage::Relay(_)
        | PeerMessage::Relayed { .. }
        | PeerMessage::RelayedAnswer { .. }
        | PeerMessage::Forward(Forward { ask: Ask::ReplicaRead { .. }, .. }) => VERSION_MAX,
        PeerMessage::SnapshotChunk(chunk) if (chunk.file, chunk.checksum) != (0, 0) => VERSION_MAX,
        PeerMessage::SnapshotWanted { file, .. } if *file != 0 => VERSION_MAX,
        _ => VERSION,
    }
}

fn of_entries(entries: &[Entry]) -> u8 {
    let version = |entry: &Entry| match &entry.payload {
        Payload::Config(config) => of_config(config),
        Payload::Batch(_) | Payload::Noop | Payload::Tick => VERSION,
    };
    entries.iter().map(version).max().unwrap_or(VERSION)
}

fn of_config(config: &Config) -> u8 {
    let plain = Config { number: config.number, ..Config::founding(config.voters.clone()) };
    if *config == plain { VERSION } else { VERSION_MAX }
}
