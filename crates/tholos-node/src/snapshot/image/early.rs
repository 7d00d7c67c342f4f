//! Heads of versions 1 and 2: one piece, with all sessions in it.
//!
//! ```text
//! length of the rest u64 · version u8 · base and config as in the head of today (1: without learners and what follows)
//! sessions u64 · each: id u64 · last u64 · ends u64 · replies u64 · each: sequence u64 · kept u64
//! then the kept replies of all sessions in that order, each: length u32 · RESP3
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes, BytesMut};
use tholos_paxos::{Base, Config, Millis};

use super::{bounded, take_base, take_config, take_reply};
use crate::operation::{Malformed, Reader};
use crate::sessions::{Session, Sessions};

/// What stands in the place of a record's kind: a part of the length that no head ever needed.
pub(super) const KIND: u8 = 0;
/// The last of these versions.
const VERSION_MAX: u8 = 2;
/// Bytes of the length.
const LENGTH_BYTES: usize = 8;
/// A longer head is damage. In bytes.
const HEAD_BYTES_MAX: u64 = 4 << 30;

/// Cuts the head off, once it is whole.
pub(super) fn take(bytes: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u64::from_le_bytes(*length);
    if length > HEAD_BYTES_MAX {
        return Err("the head of the snapshot is longer than any can be".into());
    }
    let Some(length) = usize::try_from(length).ok().filter(|length| bytes.len() - LENGTH_BYTES >= *length)
    else {
        return Ok(None);
    };
    bytes.advance(LENGTH_BYTES);
    Ok(Some(bytes.split_to(length).freeze()))
}

pub(super) fn decode(head: Bytes) -> Result<(Base, Config, Sessions), Malformed> {
    let mut reader = Reader(head);
    let version = reader.u8()?;
    if !(1..=VERSION_MAX).contains(&version) {
        return Err(Malformed);
    }
    let base = take_base(&mut reader)?;
    let config = take_config(version, &mut reader)?;
    let count = bounded(reader.u64()?, reader.0.len())?;
    let mut table = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, last, ends) = (reader.u64()?, reader.u64()?, Millis(reader.u64()?));
        let replies = bounded(reader.u64()?, reader.0.len())?;
        let replies: Vec<(u64, bool)> = (0..replies)
            .map(|_| Ok((reader.u64()?, reader.u64()? != 0)))
            .collect::<Result<_, Malformed>>()?;
        table.push((id, last, ends, replies));
    }
    let mut sessions = Sessions::default();
    for (id, last, ends, replies) in table {
        let mut session = Session { last, ends, ..Session::default() };
        for (sequence, kept) in replies {
            let reply = if kept { Some(take_reply(&mut reader)?) } else { None };
            session.replies.push_back((sequence, reply));
        }
        sessions.import(id, session);
    }
    Ok((base, config, sessions))
}
