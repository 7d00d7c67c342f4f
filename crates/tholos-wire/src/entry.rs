//! Entries of a log. They come in runs, so each says only how it differs from the one before it.
//!
//! ```text
//! count | { flags | [index] | [origin] | time | [seed] | payload } …
//!
//! flags  bits 0 to 2  the payload: 0 batch, 1 config, 2 no-op, 3 tick
//!        bit 3        the index is written: it does not follow the last one
//!        bit 4        the origin is written: it is not that of the last one
//!        bit 5        the seed is written: it is not zero
//! time   the difference to the last one, signed
//! ```
//!
//! "The last one" of the first entry has index 0, time 0 and the ballot of the message or record as origin.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tholos_paxos::{Ballot, Config, Entry, Index, Millis, MoveId, Payload, ReplicaId};

use crate::reader::Reader;
use crate::writer::{Out, push_ballot, push_number, push_replica, push_shared, push_signed, push_u64};
use crate::{VERSION, WireError};

const PAYLOAD_MASK: u8 = 0b0000_0111;
const INDEX_WRITTEN: u8 = 0b0000_1000;
const ORIGIN_WRITTEN: u8 = 0b0001_0000;
const SEED_WRITTEN: u8 = 0b0010_0000;

const BATCH: u8 = 0;
const CONFIG: u8 = 1;
const NOOP: u8 = 2;
const TICK: u8 = 3;

/// Flags and time: no entry takes less.
const ENTRY_BYTES_MIN: usize = 2;

/// What the next entry is compared with.
struct Last {
    index: Index,
    origin: Ballot,
    time: Millis,
}

impl Last {
    fn before_first(ballot: Ballot) -> Last {
        Last { index: Index::ZERO, origin: ballot, time: Millis(0) }
    }

    fn expected_index(&self) -> Index {
        Index(self.index.0.wrapping_add(1))
    }
}

pub(crate) fn push_entries(version: u8, ballot: Ballot, entries: &[Entry], out: &mut Out) {
    push_number(entries.len() as u64, out);
    let mut last = Last::before_first(ballot);
    for entry in entries {
        push_entry(version, &last, entry, out);
        last = Last { index: entry.index, origin: entry.origin, time: entry.time };
    }
}

fn push_entry(version: u8, last: &Last, entry: &Entry, out: &mut Out) {
    let mut flags = match &entry.payload {
        Payload::Batch(_) => BATCH,
        Payload::Config(_) => CONFIG,
        Payload::Noop => NOOP,
        Payload::Tick => TICK,
    };
    if entry.index != last.expected_index() {
        flags |= INDEX_WRITTEN;
    }
    if entry.origin != last.origin {
        flags |= ORIGIN_WRITTEN;
    }
    if entry.seed != 0 {
        flags |= SEED_WRITTEN;
    }
    out.push(flags);
    if flags & INDEX_WRITTEN != 0 {
        push_number(entry.index.0, out);
    }
    if flags & ORIGIN_WRITTEN != 0 {
        push_ballot(entry.origin, out);
    }
    push_signed(entry.time.0.wrapping_sub(last.time.0) as i64, out);
    if flags & SEED_WRITTEN != 0 {
        push_u64(entry.seed, out);
    }
    match &entry.payload {
        Payload::Batch(bytes) => push_shared(bytes, out),
        Payload::Config(config) => push_config(version, config, out),
        Payload::Noop | Payload::Tick => {}
    }
}

pub(crate) fn read_entries(ballot: Ballot, reader: &mut Reader) -> Result<Vec<Entry>, WireError> {
    let count = reader.count(ENTRY_BYTES_MIN)?;
    let mut entries = Vec::with_capacity(count);
    let mut last = Last::before_first(ballot);
    for _ in 0..count {
        let entry = read_entry(&last, reader)?;
        last = Last { index: entry.index, origin: entry.origin, time: entry.time };
        entries.push(entry);
    }
    Ok(entries)
}

fn read_entry(last: &Last, reader: &mut Reader) -> Result<Entry, WireError> {
    let flags = reader.u8()?;
    if flags & !(PAYLOAD_MASK | INDEX_WRITTEN | ORIGIN_WRITTEN | SEED_WRITTEN) != 0 {
        return Err(WireError::Kind { what: "entry", byte: flags });
    }
    let expected = last.expected_index();
    let index = if flags & INDEX_WRITTEN != 0 { reader.index()? } else { expected };
    let origin = if flags & ORIGIN_WRITTEN != 0 { reader.ballot()? } else { last.origin };
    let time = Millis(last.time.0.wrapping_add(reader.signed()? as u64));
    let seed = if flags & SEED_WRITTEN != 0 { reader.u64()? } else { 0 };
    // W3: what need not be written is not written.
    if (flags & INDEX_WRITTEN != 0 && index == expected)
        || (flags & ORIGIN_WRITTEN != 0 && origin == last.origin)
        || (flags & SEED_WRITTEN != 0 && seed == 0)
    {
        return Err(WireError::Kind { what: "entry", byte: flags });
    }
    let payload = match flags & PAYLOAD_MASK {
        BATCH => Payload::Batch(reader.bytes()?),
        CONFIG => Payload::Config(Box::new(read_config(reader)?)),
        NOOP => Payload::Noop,
        TICK => Payload::Tick,
        _ => return Err(WireError::Kind { what: "entry", byte: flags }),
    };
    Ok(Entry { index, origin, time, seed, payload })
}

/// Version 1 has number and voters alone.
pub(crate) fn push_config(version: u8, config: &Config, out: &mut Out) {
    push_number(config.number, out);
    push_replicas(&config.voters, out);
    if version > VERSION {
        push_replicas(&config.learners, out);
        push_replica(config.last_replica, out);
        push_number(config.move_id.0, out);
    }
}

fn push_replicas(replicas: &[ReplicaId], out: &mut Out) {
    push_number(replicas.len() as u64, out);
    replicas.iter().for_each(|replica| push_replica(*replica, out));
}

pub(crate) fn read_config(reader: &mut Reader) -> Result<Config, WireError> {
    let number = reader.number()?;
    let config = Config::founding(reader.list(Reader::replica)?);
    if reader.version() == VERSION {
        return Ok(Config { number, ..config });
    }
    Ok(Config {
        number,
        learners: reader.list(Reader::replica)?,
        last_replica: reader.replica()?,
        move_id: MoveId(reader.number()?),
        ..config
    })
}
