//! The bytes of a snapshot, written and read in slices, and cut into chunks anywhere.
//!
//! First come records, each of a length (u32), a kind (u8) and so many bytes: the head, then sessions, then the mark of
//! their end. What follows is the stream of the keyspace (`tholos-engine`), which knows its own end. Integers are
//! little-endian.
//!
//! ```text
//! head     1 · version u8 · index u64 · origin round u64 · origin replica u64 · time u64
//!            · config number u64 · voters u64 · each u64 · learners u64 · each u64 · last replica u64 · move u64
//! session  2 · id u64 · last u64 · ends u64 · replies u32 · each: sequence u64 · kept u8 · [length u32 · RESP3]
//! end      3
//! ```
//!
//! All of it is the state at the moment when the image was begun (R24). A session may come twice, and is then the same.
//! Versions 1 and 2 had one head of another shape ([`early`]), which begins with eight bytes of length and is so told
//! from these: the kind of their first record would be 0.

mod early;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};
use tholos_engine::{Keyspace, Loader};
use tholos_paxos::{Ballot, Base, Config, Index, Millis, MoveId, ReplicaId};
use tholos_resp::{Protocol, Value, ValueDecoder, ValueLimits, encode};

use crate::operation::{Malformed, Reader};
use crate::sessions::{Session, Sessions};
use crate::shard::Shard;

/// Version of the records.
const VERSION: u8 = 3;
const HEAD: u8 = 1;
const SESSION: u8 = 2;
const SESSIONS_END: u8 = 3;
/// Length and kind of a record.
const RECORD_HEAD_BYTES: usize = 5;
/// A record longer than this is damage: a session keeps replies of at most a pipeline of 4 KiB each.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// How much work one slice is.
#[derive(Clone, Copy, Debug)]
pub(super) struct SliceLimits {
    /// Bytes of a chunk.
    pub(super) chunk_bytes: usize,
    /// Keys or sessions passed, at most.
    pub(super) entries_max: usize,
}

/// An image of a shard's state that is being written.
#[derive(Debug)]
pub(super) struct Image {
    limits: SliceLimits,
    /// Records that are in no chunk yet.
    records: BytesMut,
    sessions_ended: bool,
}

impl Image {
    /// Begins the image of the shard's state as it is now.
    pub(super) fn begin(shard: &mut Shard, limits: SliceLimits) -> Image {
        shard.keyspace.begin_snapshot(limits.chunk_bytes);
        shard.sessions.begin_walk();
        let mut records = BytesMut::new();
        let head = encode_head(shard.group.applied_base(), shard.group.applied_config());
        put_record(HEAD, &head, &mut records);
        Image { limits, records, sessions_ended: false }
    }

    /// The next chunk, `None` after the last. It is empty if a slice's work has filled none.
    pub(super) fn next_chunk(&mut self, shard: &mut Shard) -> Option<Bytes> {
        let SliceLimits { chunk_bytes, entries_max } = self.limits;
        if !self.sessions_ended && self.records.len() < chunk_bytes {
            self.walk_sessions(shard);
        }
        if self.records.len() >= chunk_bytes || (self.sessions_ended && !self.records.is_empty()) {
            let bytes = self.records.len().min(chunk_bytes);
            return Some(self.records.split_to(bytes).freeze());
        }
        if !self.sessions_ended {
            return Some(Bytes::new());
        }
        shard.keyspace.next_snapshot_chunk(entries_max).map(Bytes::from)
    }

    fn walk_sessions(&mut self, shard: &mut Shard) {
        let mut left = self.limits.entries_max;
        while left > 0 && self.records.len() < self.limits.chunk_bytes {
            // A few at a time, since they are copied before they are written.
            let count = left.min(16);
            left -= count;
            let Some(walked) = shard.sessions.next_walked(count) else {
                put_record(SESSIONS_END, &[], &mut self.records);
                self.sessions_ended = true;
                return;
            };
            for (id, session) in walked {
                put_record(SESSION, &encode_session(id, &session), &mut self.records);
            }
        }
    }
}

/// Drops what a shard keeps for an image under way.
pub(super) fn abandon(shard: &mut Shard) {
    shard.keyspace.cancel_snapshot();
    shard.sessions.cancel_walk();
}

fn put_record(kind: u8, body: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(body);
}

fn encode_head(base: Base, config: &Config) -> Vec<u8> {
    let mut out = alloc::vec![VERSION];
    let mut put = |number: u64| out.extend_from_slice(&number.to_le_bytes());
    put(base.index.0);
    put(base.origin.round);
    put(u64::from(base.origin.replica.0));
    put(base.time.0);
    put(config.number);
    put(config.voters.len() as u64);
    config.voters.iter().for_each(|voter| put(u64::from(voter.0)));
    put(config.learners.len() as u64);
    config.learners.iter().for_each(|learner| put(u64::from(learner.0)));
    put(u64::from(config.last_replica.0));
    put(config.move_id.0);
    out
}

fn decode_head(head: Bytes) -> Result<(Base, Config), Malformed> {
    let mut reader = Reader(head);
    if reader.u8()? != VERSION {
        return Err(Malformed);
    }
    Ok((take_base(&mut reader)?, take_config(VERSION, &mut reader)?))
}

fn take_base(reader: &mut Reader) -> Result<Base, Malformed> {
    let index = Index(reader.u64()?);
    let origin = Ballot { round: reader.u64()?, replica: replica(reader.u64()?)? };
    Ok(Base { index, origin, time: Millis(reader.u64()?) })
}

fn take_config(version: u8, reader: &mut Reader) -> Result<Config, Malformed> {
    let number = reader.u64()?;
    let config = Config { number, ..Config::founding(take_replicas(reader)?) };
    if version == 1 {
        return Ok(config);
    }
    let learners = take_replicas(reader)?;
    let last_replica = replica(reader.u64()?)?;
    Ok(Config { learners, last_replica, move_id: MoveId(reader.u64()?), ..config })
}

fn take_replicas(reader: &mut Reader) -> Result<Vec<ReplicaId>, Malformed> {
    let count = bounded(reader.u64()?, reader.0.len())?;
    (0..count).map(|_| replica(reader.u64()?)).collect()
}

fn encode_session(id: u64, session: &Session) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for number in [id, session.last, session.ends.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&(session.replies.len() as u32).to_le_bytes());
    for (sequence, reply) in &session.replies {
        out.extend_from_slice(&sequence.to_le_bytes());
        out.push(u8::from(reply.is_some()));
        if let Some(reply) = reply {
            put_reply(reply, &mut out);
        }
    }
    out
}

fn decode_session(body: Bytes) -> Result<(u64, Session), Malformed> {
    let mut reader = Reader(body);
    let id = reader.u64()?;
    let mut session = Session { last: reader.u64()?, ends: Millis(reader.u64()?), ..Session::default() };
    for _ in 0..reader.u32()? {
        let sequence = reader.u64()?;
        let reply = if reader.u8()? != 0 { Some(take_reply(&mut reader)?) } else { None };
        session.replies.push_back((sequence, reply));
    }
    Ok((id, session))
}

/// A kept reply: RESP3, but for the one value that RESP3 cannot tell apart.
fn put_reply(reply: &Value, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    if *reply != Value::NullArray {
        encode(reply, Protocol::Resp3, &mut bytes);
    }
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&bytes);
}

fn take_reply(reader: &mut Reader) -> Result<Value, Malformed> {
    let bytes = reader.bytes()?;
    if bytes.is_empty() {
        return Ok(Value::NullArray);
    }
    let mut buffer = BytesMut::from(&bytes[..]);
    ValueDecoder::new(ValueLimits::default()).decode(&mut buffer).ok().flatten().ok_or(Malformed)
}

/// A count of items that take eight bytes at least.
fn bounded(count: u64, bytes_left: usize) -> Result<usize, Malformed> {
    usize::try_from(count).ok().filter(|count| *count <= bytes_left / 8).ok_or(Malformed)
}

fn replica(number: u64) -> Result<ReplicaId, Malformed> {
    u32::try_from(number).map(ReplicaId).map_err(|_| Malformed)
}

/// The state of a shard as a snapshot holds it, read and verified.
pub struct LoadedSnapshot {
    pub(crate) base: Base,
    pub(crate) config: Config,
    pub(crate) sessions: Sessions,
    pub(crate) keyspace: Keyspace,
}

impl LoadedSnapshot {
    /// The last index that it covers.
    pub fn index(&self) -> Index {
        self.base.index
    }
}

impl fmt::Debug for LoadedSnapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LoadedSnapshot({})", self.base.index)
    }
}

/// Reads a snapshot from its chunks, in any cut. It touches no shard, so a driver does this on whatever thread it likes.
#[derive(Debug, Default)]
pub struct SnapshotLoader {
    /// Bytes of a record that has not come whole.
    records: BytesMut,
    head: Option<(Base, Config)>,
    sessions: Sessions,
    /// Once the sessions have ended.
    keys: Option<Loader>,
}

impl SnapshotLoader {
    /// A loader that waits for the first byte.
    pub fn new() -> SnapshotLoader {
        SnapshotLoader::default()
    }

    /// Takes the next bytes. After an error, in words, the loader is of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let Some(keys) = &mut self.keys {
            return push_keys(keys, bytes);
        }
        self.records.extend_from_slice(bytes);
        while self.keys.is_none() {
            let Some((kind, body)) = self.take_record()? else { return Ok(()) };
            self.read_record(kind, body).map_err(|Malformed| "a record of the snapshot cannot be read")?;
        }
        let rest = core::mem::take(&mut self.records);
        self.keys.as_mut().map_or(Ok(()), |keys| push_keys(keys, &rest))
    }

    /// The state, if the stream was whole and its sums agree.
    pub fn finish(self) -> Result<LoadedSnapshot, String> {
        let (Some((base, config)), Some(keys)) = (self.head, self.keys) else {
            return Err("the snapshot stops before its keys".into());
        };
        let keyspace = keys.finish().map_err(|error| alloc::format!("the snapshot's keys: {error}"))?;
        Ok(LoadedSnapshot { base, config, sessions: self.sessions, keyspace })
    }

    /// The next record, if it is whole.
    fn take_record(&mut self) -> Result<Option<(u8, Bytes)>, String> {
        let Some(head) = self.records.first_chunk::<RECORD_HEAD_BYTES>() else { return Ok(None) };
        let [a, b, c, d, kind] = *head;
        if kind == early::KIND && self.head.is_none() {
            return Ok(early::take(&mut self.records)?.map(|head| (early::KIND, head)));
        }
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > RECORD_BYTES_MAX {
            return Err("a record of the snapshot is longer than any can be".into());
        }
        if self.records.len() - RECORD_HEAD_BYTES < length {
            return Ok(None);
        }
        self.records.advance(RECORD_HEAD_BYTES);
        Ok(Some((kind, self.records.split_to(length).freeze())))
    }

    fn read_record(&mut self, kind: u8, body: Bytes) -> Result<(), Malformed> {
        match (kind, &self.head) {
            (HEAD, None) => self.head = Some(decode_head(body)?),
            (early::KIND, None) => {
                let (base, config, sessions) = early::decode(body)?;
                (self.head, self.sessions, self.keys) = (Some((base, config)), sessions, Some(Loader::new()));
            }
            (SESSION, Some(_)) => {
                let (id, session) = decode_session(body)?;
                self.sessions.import(id, session);
            }
            (SESSIONS_END, Some(_)) if body.is_empty() => self.keys = Some(Loader::new()),
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

fn push_keys(keys: &mut Loader, bytes: &[u8]) -> Result<(), String> {
    keys.push(bytes).map_err(|error| alloc::format!("the snapshot's keys: {error}"))
}

#[cfg(test)]
mod tests;
