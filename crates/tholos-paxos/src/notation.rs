//! Messages, records and changes as text: replica `n2`, ballot `3.n2`, index `@1041`.
//!
//! `{}` is one short line: of many entries the first and the last, of a batch its size, so that no data of a client
//! comes into a log. `{:#}` is everything: each entry, and each batch as escaped ASCII.

use core::fmt::{Display, Formatter, Result};

use crate::ballot::{Ballot, Index, ReplicaId};
use crate::message::{Checkpoint, Config, Entry, Message, Payload, Record};
use crate::outbox::RoleChange;

impl Display for Payload {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Payload::Batch(bytes) if f.alternate() => write!(f, "{}", bytes.escape_ascii()),
            Payload::Batch(bytes) => write!(f, "{} B", bytes.len()),
            Payload::Config(config) => config.fmt(f),
            Payload::Noop => f.write_str("no-op"),
            Payload::Tick => f.write_str("tick"),
        }
    }
}

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} ", self.index)?;
        self.payload.fmt(f)?;
        write!(f, " of {}", self.origin)
    }
}

impl Display for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let list =
            |f: &mut Formatter<'_>, ids: &[ReplicaId]| ids.iter().try_for_each(|id| write!(f, " {id}"));
        write!(f, "config {}:", self.number)?;
        list(f, &self.voters)?;
        if !self.learners.is_empty() {
            f.write_str(" learning")?;
            list(f, &self.learners)?;
        }
        Ok(())
    }
}

/// A run of entries.
struct Entries<'a>(&'a [Entry]);

impl Display for Entries<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str("[")?;
        match self.0 {
            [first, _, .., last] if !f.alternate() => write!(f, "{first} .. {last}")?,
            all => {
                for (at, entry) in all.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    entry.fmt(f)?;
                }
            }
        }
        f.write_str("]")
    }
}

/// Where a log stands: the ballot that it is accepted in, its last index, how far it is known to be decided.
struct Log(Ballot, Index, Index);

impl Display for Log {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "log {} to {}, decided {}", self.0, self.1, self.2)
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Message::Canvass { ballot, decided } => write!(f, "Canvass {ballot}, decided {decided}"),
            Message::Endorse { ballot } => write!(f, "Endorse {ballot}"),
            Message::Prepare { ballot, decided, released } => {
                write!(f, "Prepare {ballot}, decided {decided}")?;
                released.map_or(Ok(()), |released| write!(f, ", {released} released"))
            }
            Message::Promise { ballot, accepted, length, decided } => {
                write!(f, "Promise {ballot}, {}", Log(*accepted, *length, *decided))
            }
            Message::Reject { promised } => write!(f, "Reject, promised {promised}"),
            Message::Fetch { ballot, from } => write!(f, "Fetch {ballot} from {from}"),
            Message::Fetched { ballot, entries, whole_to } => {
                write!(f, "Fetched {ballot} ")?;
                Entries(entries).fmt(f)?;
                write!(f, " whole to {whole_to}")
            }
            Message::Sync { ballot, from, entries, whole_to } => {
                write!(f, "Sync {ballot} from {from} ")?;
                Entries(entries).fmt(f)?;
                write!(f, " whole to {whole_to}")
            }
            Message::Accept { ballot, entries, decided } => {
                write!(f, "Accept {ballot} ")?;
                Entries(entries).fmt(f)?;
                write!(f, ", decided {decided}")
            }
            Message::Accepted { ballot, index } => write!(f, "Accepted {ballot} to {index}"),
            Message::Behind { ballot, accepted, length, decided } => {
                write!(f, "Behind {ballot}, {}", Log(*accepted, *length, *decided))
            }
            Message::Decide { ballot, decided, length } => {
                write!(f, "Decide {ballot} to {decided}, length {length}")
            }
            Message::Confirm { ballot, round } => write!(f, "Confirm {ballot} round {round}"),
            Message::Confirmed { ballot, round } => write!(f, "Confirmed {ballot} round {round}"),
            Message::Lease { ballot, asked } => write!(f, "Lease {ballot} asked {}", asked.0),
            Message::Granted { ballot, asked } => write!(f, "Granted {ballot} asked {}", asked.0),
            Message::Released { ballot } => write!(f, "Released {ballot}"),
            Message::Repair { nonce } => write!(f, "Repair {nonce}"),
            Message::Renewed { nonce, replica } => write!(f, "Renewed {nonce}, as {replica}"),
            Message::Bound { nonce, promised, config } => {
                write!(f, "Bound {nonce}, promised {promised}, config {config}")
            }
        }
    }
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Record::Promised { ballot } => write!(f, "Promised {ballot}"),
            Record::Accepted { ballot, entries, .. } => {
                write!(f, "Accepted {ballot} ")?;
                Entries(entries).fmt(f)
            }
            Record::Replaced { ballot, from, entries } => {
                write!(f, "Replaced {ballot} from {from} ")?;
                Entries(entries).fmt(f)
            }
            Record::Rescued { ballot, from, entries } => {
                write!(f, "Rescued {ballot} from {from} ")?;
                Entries(entries).fmt(f)
            }
            Record::Joined { replica } => write!(f, "Joined as {replica}"),
            Record::Checkpoint(checkpoint) => checkpoint.fmt(f),
            Record::Muted { until: None } => f.write_str("Muted"),
            Record::Muted { until: Some(until) } => write!(f, "Muted until {until}"),
        }
    }
}

impl Display for Checkpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let length = self.entries.last().map_or(self.snapshot, |entry| entry.index);
        let log = Log(self.accepted, length, self.decided);
        write!(f, "Checkpoint promised {}, {log}, snapshot to {}, ", self.promised, self.snapshot)?;
        Entries(&self.entries).fmt(f)
    }
}

impl Display for RoleChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            RoleChange::Elected(ballot) => write!(f, "leads in {ballot}"),
            RoleChange::Serving(ballot) => write!(f, "serves in {ballot}"),
            RoleChange::Stopped(ballot) => write!(f, "leads no more in {ballot}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;
    use crate::ballot::Millis;

    #[test]
    fn a_short_line_holds_no_data_of_a_client_and_the_long_one_holds_all() {
        let ballot = Ballot { round: 3, replica: ReplicaId(2) };
        let entries = (41..=43).map(|at| Entry {
            index: Index(at),
            origin: ballot,
            time: Millis(0),
            seed: 0,
            payload: Payload::Batch("SET\n".into()),
        });
        let accept = Message::Accept { ballot, entries: entries.collect(), decided: Index(40) };
        assert_eq!(accept.to_string(), "Accept 3.n2 [@41 4 B of 3.n2 .. @43 4 B of 3.n2], decided @40");
        let all = "@41 SET\\n of 3.n2, @42 SET\\n of 3.n2, @43 SET\\n of 3.n2";
        assert_eq!(std::format!("{accept:#}"), std::format!("Accept 3.n2 [{all}], decided @40"));
    }
}
