//! The bytes of a snapshot: the length of the head in eight bytes, the head (index, origin, time, configuration,
//! sessions), then the keyspace's own. They are cut into chunks anywhere.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use tholos_engine::{Keyspace, Loader};
use tholos_paxos::{Ballot, Base, Config, Index, Millis, MoveId, ReplicaId};
use tholos_resp::{Protocol, Value, ValueDecoder, ValueLimits, encode};

use crate::operation::{Malformed, Reader};
use crate::sessions::{Session, Sessions};
use crate::shard::Shard;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Version of the head. Version 1, which is still read, had of the configuration only number and voters.
const HEAD_VERSION: u8 = 2;
/// Bytes of the head's length before it.
const HEAD_LENGTH_BYTES: usize = 8;

/// What a head says.
pub(super) struct Head {
    pub(super) base: Base,
    pub(super) config: Config,
    pub(super) sessions: Sessions,
}

/// Every chunk of a snapshot of the shard's applied state.
pub(super) fn chunks_of(shard: &mut Shard) -> Vec<Bytes> {
    // Many sessions make a head of many chunks.
    let mut chunks = cut(Bytes::from(encode_head(shard)));
    shard.keyspace.begin_snapshot();
    while let Some(chunk) = shard.keyspace.next_snapshot_chunk(CHUNK_BYTES) {
        chunks.push(Bytes::from(chunk));
    }
    chunks
}

fn cut(mut bytes: Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        chunks.push(bytes.split_to(bytes.len().min(CHUNK_BYTES)));
    }
    chunks
}

fn encode_head(shard: &Shard) -> Vec<u8> {
    let base = shard.group.applied_base();
    let config = shard.group.applied_config();
    let mut out = alloc::vec![0; HEAD_LENGTH_BYTES];
    out.push(HEAD_VERSION);
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
    let sessions = shard.sessions.export();
    put(sessions.len() as u64);
    for (id, session) in sessions {
        put(id);
        put(session.last);
        put(session.ends.0);
        put(session.replies.len() as u64);
        for (sequence, reply) in &session.replies {
            put(*sequence);
            put(u64::from(reply.is_some()));
        }
    }
    for (_, session) in shard.sessions.export() {
        for reply in session.replies.iter().filter_map(|(_, reply)| reply.as_ref()) {
            put_reply(reply, &mut out);
        }
    }
    let length = (out.len() - HEAD_LENGTH_BYTES) as u64;
    out[..HEAD_LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    out
}

/// The head's bytes, and what follows them in their last chunk.
fn take_head(chunks: &mut impl Iterator<Item = Bytes>) -> Option<(Bytes, Bytes)> {
    let mut bytes = Vec::new();
    loop {
        bytes.extend_from_slice(&chunks.next()?);
        let Some(length) = bytes.first_chunk::<HEAD_LENGTH_BYTES>() else { continue };
        let end = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_add(HEAD_LENGTH_BYTES)?;
        if bytes.len() >= end {
            let bytes = Bytes::from(bytes);
            return Some((bytes.slice(HEAD_LENGTH_BYTES..end), bytes.slice(end..)));
        }
    }
}

fn decode_head(head: Bytes) -> Result<Head, Malformed> {
    let mut reader = Reader(head);
    let version = reader.u8()?;
    if !(1..=HEAD_VERSION).contains(&version) {
        return Err(Malformed);
    }
    let index = Index(reader.u64()?);
    let origin = Ballot { round: reader.u64()?, replica: replica(reader.u64()?)? };
    let base = Base { index, origin, time: Millis(reader.u64()?) };
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
    Ok(Head { base, config, sessions })
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

/// The state that these chunks hold, if they are whole and sound.
pub(super) fn load(mut chunks: impl Iterator<Item = Bytes>) -> Result<(Head, Keyspace), String> {
    let (head, rest) = take_head(&mut chunks).ok_or("a snapshot without a whole head")?;
    let head = decode_head(head).map_err(|Malformed| "the head of the snapshot cannot be read")?;
    let mut loader = Loader::new();
    for chunk in core::iter::once(rest).chain(chunks) {
        loader.push(&chunk).map_err(|error| alloc::format!("the snapshot's keys: {error}"))?;
    }
    let keyspace = loader.finish().map_err(|error| alloc::format!("the snapshot's keys: {error}"))?;
    Ok((head, keyspace))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tholos_cluster::NodeId;
    use tholos_paxos::{Group, Options, Planted};
    use tholos_ring::ShardId;

    use super::*;
    use crate::operation::WriteHeader;

    fn shard() -> Shard {
        let config = Config::founding(vec![ReplicaId(1)]);
        let group = Group::new(ReplicaId(1), config, Options::default());
        let keyspace = Keyspace::new(tholos_ring::slots_of(ShardId(0), 16), 7);
        Shard::new(ShardId(0), vec![NodeId(1)], group, keyspace, Planted::Nothing)
    }

    #[test]
    fn a_head_of_version_1_is_read() {
        let mut shard = shard();
        let whole = chunks_of(&mut shard).concat();
        let known = load([Bytes::from(whole.clone())].into_iter()).unwrap().0.config;
        // Length, version, four fields of the base, number, one voter; then what version 1 did not have.
        let at = HEAD_LENGTH_BYTES + 1 + 8 * (4 + 1 + 2);
        let mut old = [&whole[..at], &whole[at + 8 * 3..]].concat();
        old[HEAD_LENGTH_BYTES] = 1;
        let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) - 8 * 3;
        old[..HEAD_LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        assert_eq!(load([Bytes::from(old)].into_iter()).unwrap().0.config, known);
    }

    #[test]
    fn a_head_of_many_sessions_is_cut_like_the_rest() {
        let mut shard = shard();
        for session in 0..2000 {
            let header = WriteHeader { session, sequence: 1, acknowledged: 0, expires_at: Millis(9) };
            shard.sessions.record(&header, &Value::bulk(vec![b'x'; 4000]));
        }
        let chunks = chunks_of(&mut shard);
        // A snapshot file takes chunks of 1 byte to 4 MiB.
        assert!(chunks.iter().all(|chunk| (1..=CHUNK_BYTES).contains(&chunk.len())));
        let (head, keyspace) = load(chunks.clone().into_iter()).unwrap();
        assert_eq!(head.sessions.export(), shard.sessions.export());
        assert_eq!(keyspace.slots(), shard.keyspace.slots());
        // However they are cut.
        let whole = Bytes::from(chunks.concat());
        let bytes = whole.chunks(999).map(Bytes::copy_from_slice);
        assert_eq!(load(bytes).unwrap().0.sessions.len(), 2000);
        assert!(load([whole.slice(..whole.len() - 1)].into_iter()).is_err());
        assert!(load([whole.slice(..100)].into_iter()).is_err());
        assert!(load(core::iter::empty()).is_err());
    }
}
