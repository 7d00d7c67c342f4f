//! Messages, records and changes in the notation of the logs: replica `n2`, ballot `3.n2`, index `@1041`.

use tholos_paxos::{
    Ballot, Checkpoint, Config, Entry, Index, Message, Payload, Record, ReplicaId, RoleChange,
};

use super::{Envelope, Parcel, number_of};

pub fn envelope(envelope: &Envelope) -> String {
    let what = match &envelope.parcel {
        Parcel::Message(message) => self::message(message),
        Parcel::Snapshot { ballot, file } => format!("Snapshot {ballot} to {}", file.base.index),
    };
    format!("{} -> {} {what}", envelope.from, envelope.to)
}

pub fn entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Batch(_) => format!("value {}", number_of(&entry.payload).unwrap_or_default()),
        Payload::Config(config) => self::config(config),
        Payload::Noop => "no-op".to_string(),
        Payload::Tick => "tick".to_string(),
    };
    format!("{} {what} of {}", entry.index, entry.origin)
}

pub fn config(config: &Config) -> String {
    let list =
        |replicas: &[ReplicaId]| -> String { replicas.iter().map(|replica| format!(" {replica}")).collect() };
    match &config.learners[..] {
        [] => format!("config {}:{}", config.number, list(&config.voters)),
        learners => format!("config {}:{} learning{}", config.number, list(&config.voters), list(learners)),
    }
}

pub fn entries(entries: &[Entry]) -> String {
    let all: Vec<String> = entries.iter().map(entry).collect();
    format!("[{}]", all.join(", "))
}

fn log(accepted: &Ballot, length: impl std::fmt::Display, decided: impl std::fmt::Display) -> String {
    format!("log {accepted} to {length}, decided {decided}")
}

pub fn message(message: &Message) -> String {
    match message {
        Message::Canvass { ballot, decided } => format!("Canvass {ballot}, decided {decided}"),
        Message::Endorse { ballot } => format!("Endorse {ballot}"),
        Message::Prepare { ballot, decided } => format!("Prepare {ballot}, decided {decided}"),
        Message::Promise { ballot, accepted, length, decided } => {
            format!("Promise {ballot}, {}", log(accepted, length, decided))
        }
        Message::Reject { promised } => format!("Reject, promised {promised}"),
        Message::Fetch { ballot, from } => format!("Fetch {ballot} from {from}"),
        Message::Fetched { ballot, entries, whole_to } => {
            format!("Fetched {ballot} {} whole to {whole_to}", self::entries(entries))
        }
        Message::Sync { ballot, from, entries, whole_to } => {
            format!("Sync {ballot} from {from} {} whole to {whole_to}", self::entries(entries))
        }
        Message::Accept { ballot, entries, decided } => {
            format!("Accept {ballot} {}, decided {decided}", self::entries(entries))
        }
        Message::Accepted { ballot, index } => format!("Accepted {ballot} to {index}"),
        Message::Behind { ballot, accepted, length, decided } => {
            format!("Behind {ballot}, {}", log(accepted, length, decided))
        }
        Message::Decide { ballot, decided, length } => {
            format!("Decide {ballot} to {decided}, length {length}")
        }
        Message::Confirm { ballot, round } => format!("Confirm {ballot} round {round}"),
        Message::Confirmed { ballot, round } => format!("Confirmed {ballot} round {round}"),
        Message::Released { ballot } => format!("Released {ballot}"),
        Message::Repair { nonce } => format!("Repair {nonce}"),
        Message::Bound { nonce, promised, config } => {
            format!("Bound {nonce}, promised {promised}, config {config}")
        }
    }
}

pub fn record(record: &Record) -> String {
    match record {
        Record::Promised { ballot } => format!("Promised {ballot}"),
        Record::Accepted { ballot, entries, .. } => format!("Accepted {ballot} {}", self::entries(entries)),
        Record::Replaced { ballot, from, entries } => {
            format!("Replaced {ballot} from {from} {}", self::entries(entries))
        }
        Record::Joined { replica } => format!("Joined as {replica}"),
        Record::Checkpoint(checkpoint) => format!(
            "Checkpoint promised {}, {}, snapshot to {}, {}",
            checkpoint.promised,
            log(&checkpoint.accepted, length(checkpoint), checkpoint.decided),
            checkpoint.snapshot,
            self::entries(&checkpoint.entries)
        ),
        Record::Muted { until: None } => "Muted".to_string(),
        Record::Muted { until: Some(until) } => format!("Muted until {until}"),
    }
}

fn length(checkpoint: &Checkpoint) -> Index {
    checkpoint.entries.last().map_or(checkpoint.snapshot, |entry| entry.index)
}

pub fn change(change: RoleChange) -> String {
    match change {
        RoleChange::Elected(ballot) => format!("leads in {ballot}"),
        RoleChange::Serving(ballot) => format!("serves in {ballot}"),
        RoleChange::Stopped(ballot) => format!("leads no more in {ballot}"),
    }
}
