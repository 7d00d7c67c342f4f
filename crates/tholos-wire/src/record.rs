//! Records of the log: what a replica must remember (docs/protocol/wire.md, "Records").

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_paxos::{Checkpoint, Record, ReplicaId};

use crate::entry::{push_config, push_entries, read_config, read_entries};
use crate::reader::Reader;
use crate::writer::{Out, push_ballot, push_number, push_replica};
use crate::{VERSION, WireError, version};

const PROMISED: u8 = 1;
const ACCEPTED: u8 = 2;
const REPLACED: u8 = 3;
const CHECKPOINT: u8 = 4;
const JOINED: u8 = 5;
const MUTED: u8 = 6;
const MUTED_UNTIL: u8 = 7;
const RESCUED: u8 = 8;
const CHECKPOINT_IN_LOG: u8 = 9;

/// Appends the bytes of a record.
pub fn encode_record(record: &Record, out: &mut Vec<u8>) {
    Out::append(out, |out| push_record(record, out));
}

fn push_record(record: &Record, out: &mut Out) {
    let version = version::of_record(record);
    out.push(version);
    match record {
        Record::Promised { ballot } => {
            out.push(PROMISED);
            push_ballot(*ballot, out);
        }
        Record::Accepted { ballot, decided, entries } => {
            out.push(ACCEPTED);
            push_ballot(*ballot, out);
            push_number(decided.0, out);
            push_entries(version, *ballot, entries, out);
        }
        Record::Replaced { ballot, from, entries } => {
            out.push(REPLACED);
            push_ballot(*ballot, out);
            push_number(from.0, out);
            push_entries(version, *ballot, entries, out);
        }
        Record::Rescued { ballot, from, entries } => {
            out.push(RESCUED);
            push_ballot(*ballot, out);
            push_number(from.0, out);
            push_entries(version, *ballot, entries, out);
        }
        Record::Checkpoint(checkpoint) => {
            out.push(if version::knows_to_be_in_log(checkpoint) { CHECKPOINT_IN_LOG } else { CHECKPOINT });
            push_checkpoint(version, checkpoint, out);
        }
        Record::Joined { replica } => {
            out.push(JOINED);
            push_replica(*replica, out);
        }
        Record::Muted { until: None } => out.push(MUTED),
        Record::Muted { until: Some(ballot) } => {
            out.push(MUTED_UNTIL);
            push_ballot(*ballot, out);
        }
    }
}

/// Reads what [`encode_record`] wrote: all of `bytes`, neither less nor more.
pub fn decode_record(bytes: Bytes) -> Result<Record, WireError> {
    let mut reader = Reader::new(bytes)?;
    let record = match reader.u8()? {
        PROMISED => Record::Promised { ballot: reader.ballot()? },
        ACCEPTED => {
            let (ballot, decided) = (reader.ballot()?, reader.index()?);
            Record::Accepted { ballot, decided, entries: read_entries(ballot, &mut reader)? }
        }
        REPLACED => {
            let (ballot, from) = (reader.ballot()?, reader.index()?);
            Record::Replaced { ballot, from, entries: read_entries(ballot, &mut reader)? }
        }
        CHECKPOINT => Record::Checkpoint(Box::new(read_checkpoint(&mut reader, true)?)),
        CHECKPOINT_IN_LOG if reader.version() > VERSION => {
            let checkpoint = read_checkpoint(&mut reader, false)?;
            if !version::knows_to_be_in_log(&checkpoint) {
                // It says what goes without saying (W4).
                return Err(WireError::Kind { what: "record", byte: CHECKPOINT_IN_LOG });
            }
            Record::Checkpoint(Box::new(checkpoint))
        }
        JOINED if reader.version() > VERSION => Record::Joined { replica: reader.replica()? },
        MUTED if reader.version() > VERSION => Record::Muted { until: None },
        MUTED_UNTIL if reader.version() > VERSION => Record::Muted { until: Some(reader.ballot()?) },
        RESCUED if reader.version() > VERSION => {
            let (ballot, from) = (reader.ballot()?, reader.index()?);
            Record::Rescued { ballot, from, entries: read_entries(ballot, &mut reader)? }
        }
        byte => return Err(WireError::Kind { what: "record", byte }),
    };
    reader.finish(version::of_record(&record))?;
    Ok(record)
}

fn push_checkpoint(version: u8, checkpoint: &Checkpoint, out: &mut Out) {
    push_ballot(checkpoint.promised, out);
    push_ballot(checkpoint.accepted, out);
    push_number(checkpoint.snapshot.0, out);
    push_number(checkpoint.snapshot_time.0, out);
    push_ballot(checkpoint.snapshot_origin, out);
    push_config(version, &checkpoint.config, out);
    if version > VERSION {
        push_replica(checkpoint.joined, out);
    }
    push_number(checkpoint.decided.0, out);
    push_entries(version, checkpoint.accepted, &checkpoint.entries, out);
}

/// `may_know_above`: it does not say that what it knows to be decided is in its log's ballot.
fn read_checkpoint(reader: &mut Reader, may_know_above: bool) -> Result<Checkpoint, WireError> {
    let promised = reader.ballot()?;
    let accepted = reader.ballot()?;
    Ok(Checkpoint {
        promised,
        accepted,
        knows_above: may_know_above && promised > accepted,
        snapshot: reader.index()?,
        snapshot_time: reader.millis()?,
        snapshot_origin: reader.ballot()?,
        config: read_config(reader)?,
        joined: if reader.version() > VERSION { reader.replica()? } else { ReplicaId::default() },
        decided: reader.index()?,
        entries: read_entries(accepted, reader)?,
    })
}
