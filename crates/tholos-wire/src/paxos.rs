//! Messages of one Paxos group (docs/protocol/wire.md, "Messages of a group").

use tholos_paxos::Message;

use crate::WireError;
use crate::entry::{push_entries, read_entries};
use crate::reader::Reader;
use crate::writer::{Out, push_ballot, push_number, push_replica, push_u64};

/// The kinds of these messages share one space with those of `peer`, to save a byte in the hot ones.
pub(crate) const CANVASS: u8 = 16;
const ENDORSE: u8 = 17;
const PREPARE: u8 = 18;
const PROMISE: u8 = 19;
const REJECT: u8 = 20;
const FETCH: u8 = 21;
const FETCHED: u8 = 22;
const SYNC: u8 = 23;
const ACCEPT: u8 = 24;
const ACCEPTED: u8 = 25;
const BEHIND: u8 = 26;
const DECIDE: u8 = 27;
const CONFIRM: u8 = 28;
const CONFIRMED: u8 = 29;
const RELEASED: u8 = 30;
const REPAIR: u8 = 40;
const BOUND: u8 = 41;
const LEASE: u8 = 42;
const GRANTED: u8 = 43;
/// A [`Message::Prepare`] that says who has let go.
const PREPARE_RELEASED: u8 = 44;
pub(crate) const RENEWED: u8 = 45;

/// The byte that names a message's kind.
pub(crate) fn kind_of(message: &Message) -> u8 {
    match message {
        Message::Canvass { .. } => CANVASS,
        Message::Endorse { .. } => ENDORSE,
        Message::Prepare { released: None, .. } => PREPARE,
        Message::Prepare { released: Some(_), .. } => PREPARE_RELEASED,
        Message::Promise { .. } => PROMISE,
        Message::Reject { .. } => REJECT,
        Message::Fetch { .. } => FETCH,
        Message::Fetched { .. } => FETCHED,
        Message::Sync { .. } => SYNC,
        Message::Accept { .. } => ACCEPT,
        Message::Accepted { .. } => ACCEPTED,
        Message::Behind { .. } => BEHIND,
        Message::Decide { .. } => DECIDE,
        Message::Confirm { .. } => CONFIRM,
        Message::Confirmed { .. } => CONFIRMED,
        Message::Released { .. } => RELEASED,
        Message::Repair { .. } => REPAIR,
        Message::Bound { .. } => BOUND,
        Message::Renewed { .. } => RENEWED,
        Message::Lease { .. } => LEASE,
        Message::Granted { .. } => GRANTED,
    }
}

/// Appends the fields that follow kind and shard: the ballot first, then as declared, entries last.
pub(crate) fn push_message(version: u8, message: &Message, out: &mut Out) {
    match message {
        Message::Endorse { ballot } | Message::Released { ballot } | Message::Reject { promised: ballot } => {
            push_ballot(*ballot, out);
        }
        Message::Canvass { ballot, decided: index }
        | Message::Prepare { ballot, decided: index, released: None }
        | Message::Fetch { ballot, from: index }
        | Message::Accepted { ballot, index } => {
            push_ballot(*ballot, out);
            push_number(index.0, out);
        }
        Message::Prepare { ballot, decided, released: Some(released) } => {
            push_ballot(*ballot, out);
            push_number(decided.0, out);
            push_ballot(*released, out);
        }
        Message::Promise { ballot, accepted, length, decided }
        | Message::Behind { ballot, accepted, length, decided } => {
            push_ballot(*ballot, out);
            push_ballot(*accepted, out);
            push_number(length.0, out);
            push_number(decided.0, out);
        }
        Message::Fetched { ballot, entries, whole_to: index }
        | Message::Accept { ballot, entries, decided: index } => {
            push_ballot(*ballot, out);
            push_number(index.0, out);
            push_entries(version, *ballot, entries, out);
        }
        Message::Sync { ballot, from, entries, whole_to } => {
            push_ballot(*ballot, out);
            push_number(from.0, out);
            push_number(whole_to.0, out);
            push_entries(version, *ballot, entries, out);
        }
        Message::Decide { ballot, decided, length } => {
            push_ballot(*ballot, out);
            push_number(decided.0, out);
            push_number(length.0, out);
        }
        Message::Confirm { ballot, round } | Message::Confirmed { ballot, round } => {
            push_ballot(*ballot, out);
            push_number(*round, out);
        }
        Message::Lease { ballot, asked } | Message::Granted { ballot, asked } => {
            push_ballot(*ballot, out);
            push_number(asked.0, out);
        }
        Message::Repair { nonce } => push_u64(*nonce, out),
        Message::Renewed { nonce, replica } => {
            push_u64(*nonce, out);
            push_replica(*replica, out);
        }
        Message::Bound { nonce, promised, config } => {
            push_ballot(*promised, out);
            push_u64(*nonce, out);
            push_number(*config, out);
        }
    }
}

/// Reads the fields of a message of this kind.
pub(crate) fn read_message(kind: u8, reader: &mut Reader) -> Result<Message, WireError> {
    if kind == REPAIR {
        return Ok(Message::Repair { nonce: reader.u64()? });
    }
    if kind == RENEWED {
        return Ok(Message::Renewed { nonce: reader.u64()?, replica: reader.replica()? });
    }
    let ballot = reader.ballot()?;
    let message = match kind {
        CANVASS => Message::Canvass { ballot, decided: reader.index()? },
        ENDORSE => Message::Endorse { ballot },
        PREPARE => Message::Prepare { ballot, decided: reader.index()?, released: None },
        PREPARE_RELEASED => {
            Message::Prepare { ballot, decided: reader.index()?, released: Some(reader.ballot()?) }
        }
        PROMISE => Message::Promise {
            ballot,
            accepted: reader.ballot()?,
            length: reader.index()?,
            decided: reader.index()?,
        },
        REJECT => Message::Reject { promised: ballot },
        FETCH => Message::Fetch { ballot, from: reader.index()? },
        FETCHED => {
            let whole_to = reader.index()?;
            Message::Fetched { ballot, entries: read_entries(ballot, reader)?, whole_to }
        }
        SYNC => {
            let (from, whole_to) = (reader.index()?, reader.index()?);
            Message::Sync { ballot, from, entries: read_entries(ballot, reader)?, whole_to }
        }
        ACCEPT => {
            let decided = reader.index()?;
            Message::Accept { ballot, entries: read_entries(ballot, reader)?, decided }
        }
        ACCEPTED => Message::Accepted { ballot, index: reader.index()? },
        BEHIND => Message::Behind {
            ballot,
            accepted: reader.ballot()?,
            length: reader.index()?,
            decided: reader.index()?,
        },
        DECIDE => Message::Decide { ballot, decided: reader.index()?, length: reader.index()? },
        CONFIRM => Message::Confirm { ballot, round: reader.number()? },
        CONFIRMED => Message::Confirmed { ballot, round: reader.number()? },
        RELEASED => Message::Released { ballot },
        BOUND => Message::Bound { nonce: reader.u64()?, promised: ballot, config: reader.number()? },
        LEASE => Message::Lease { ballot, asked: reader.millis()? },
        GRANTED => Message::Granted { ballot, asked: reader.millis()? },
        byte => return Err(WireError::Kind { what: "message", byte }),
    };
    Ok(message)
}
