//! Messages, records and changes in the notation of the project: replica `n2`, ballot `3.n2`, index `@1041`.

use tholos_paxos::{Entry, Index, Message, Payload, Record, ReplicaId, RoleChange};

use crate::local::Outcome;
use crate::state::{Envelope, State, number_of};
use crate::step::Action;

/// What happens.
pub(crate) fn action(before: &State, action: Action) -> String {
    match action {
        Action::Deliver { at, again, lost } => {
            let envelope = &before.network[at];
            let how =
                if lost { format!(", when {} has lost its leader", envelope.to) } else { String::new() };
            let again = if again { ", and a copy is on its way" } else { "" };
            format!("{} arrives{how}{again}", self::envelope(envelope))
        }
        Action::Durable { at, count } => format!("{at} has on disk the next {}", records(count)),
        Action::Crash { at, kept } => {
            let lost = before.replica(at).pending.len() - kept;
            format!("{at} loses its power, and with it {}, and starts again", records(lost))
        }
        Action::Rot { at, kept } => {
            let lost = before.replica(at).pending.len() - kept;
            format!("{at} loses its power, and with it {}, and finds its disk rotten", records(lost))
        }
        Action::TimeOut { at } => {
            let group = &before.replica(at).group;
            match group.leader() {
                Some(ballot) if ballot.replica == at => format!("{at} hears nobody any more"),
                Some(ballot) => format!("{at} hears {} no more", ballot.replica),
                None => format!("{at} has waited long enough"),
            }
        }
        Action::Tick { at } => format!("{at} hears everybody, and time passes"),
        Action::Propose { at } => format!("{at} is given command {}", before.facts.proposed + 1),
        Action::Read { at } => {
            let (token, decided) = (before.facts.tokens + 1, Index(before.facts.decided.len() as u64));
            format!("{at} is asked for read {token}, after {decided} was decided")
        }
        Action::Transfer { at, to } => format!("{at} is to hand over to {to}"),
    }
}

fn records(count: usize) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// What comes of it, one line for each effect.
pub(crate) fn effects(at: ReplicaId, outcome: &Outcome) -> Vec<String> {
    let seen = outcome.replica.group.applied_index();
    let mut lines: Vec<String> = Vec::new();
    lines.extend(outcome.appends.iter().map(|appended| format!("{at} appends {}", record(appended))));
    lines.extend(outcome.changes.iter().map(|changed| format!("{at} {}", change(*changed))));
    if !outcome.news.is_empty() {
        lines.push(format!("{at} applies {}", entries(&outcome.news)));
    }
    lines.extend(outcome.sends.iter().map(|sent| envelope(sent)));
    lines.extend(outcome.reads_ready.iter().map(|token| format!("{at} answers read {token} at {seen}")));
    lines.extend(outcome.reads_failed.iter().map(|token| format!("{at} cannot answer read {token}")));
    lines
}

pub(crate) fn envelope(envelope: &Envelope) -> String {
    format!("{} -> {} {}", envelope.from, envelope.to, message(&envelope.message))
}

pub(crate) fn entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Batch(_) => format!("command {}", number_of(&entry.payload).unwrap_or_default()),
        Payload::Config(config) => format!("config {}", config.number),
        Payload::Noop => "no-op".to_string(),
        Payload::Tick => "tick".to_string(),
    };
    format!("{} {what} of {}", entry.index, entry.origin)
}

pub(crate) fn entries(entries: &[Entry]) -> String {
    let all: Vec<String> = entries.iter().map(entry).collect();
    format!("[{}]", all.join(", "))
}

pub(crate) fn message(message: &Message) -> String {
    match message {
        Message::Canvass { ballot, decided } => format!("Canvass {ballot}, decided {decided}"),
        Message::Endorse { ballot } => format!("Endorse {ballot}"),
        Message::Prepare { ballot, decided } => format!("Prepare {ballot}, decided {decided}"),
        Message::Promise { ballot, accepted, length, decided } => {
            format!("Promise {ballot}, log {accepted} to {length}, decided {decided}")
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
            format!("Behind {ballot}, log {accepted} to {length}, decided {decided}")
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

pub(crate) fn record(record: &Record) -> String {
    match record {
        Record::Promised { ballot } => format!("Promised {ballot}"),
        Record::Accepted { ballot, entries, .. } => format!("Accepted {ballot} {}", self::entries(entries)),
        Record::Replaced { ballot, from, entries } => {
            format!("Replaced {ballot} from {from} {}", self::entries(entries))
        }
        Record::Joined { replica } => format!("Joined as {replica}"),
        Record::Muted { until: None } => "Muted".to_string(),
        Record::Muted { until: Some(until) } => format!("Muted until {until}"),
        Record::Checkpoint(checkpoint) => {
            let length: Index = checkpoint.entries.last().map_or(checkpoint.snapshot, |entry| entry.index);
            format!(
                "Checkpoint promised {}, snapshot to {}, log to {length}",
                checkpoint.promised, checkpoint.snapshot
            )
        }
    }
}

pub(crate) fn change(change: RoleChange) -> String {
    match change {
        RoleChange::Elected(ballot) => format!("leads in {ballot}"),
        RoleChange::Serving(ballot) => format!("serves in {ballot}"),
        RoleChange::Stopped(ballot) => format!("leads no more in {ballot}"),
    }
}
