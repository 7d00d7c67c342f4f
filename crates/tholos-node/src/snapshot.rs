//! Snapshots: written for the log's sake, sent to replicas that fell behind, taken back at
//! start. And the account of which records of the log are still needed (R22).
//!
//! A snapshot's chunks: a head (index, origin, time, configuration, sessions), then the
//! keyspace's own bytes.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use tholos_cluster::NodeId;
use tholos_engine::{Keyspace, Loader};
use tholos_paxos::{AppendSeq, Ballot, Base, Config, Index, Millis, Record, ReplicaId};
use tholos_resp::{Protocol, Value, ValueDecoder, ValueLimits, encode};
use tholos_ring::ShardId;

use crate::event::{Effects, Notice, SaveSnapshot};
use crate::node::Node;
use crate::operation::{Malformed, Reader};
use crate::peer::{PeerMessage, SnapshotChunk};
use crate::sessions::{Session, Sessions};
use crate::shard::Shard;

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks on their way to one replica at once.
const CHUNKS_IN_FLIGHT: u32 = 4;
/// A transfer without progress for this long is dropped: the leader starts a new one.
const TRANSFER_TIMEOUT: Millis = Millis(5000);
/// Version of the head.
const HEAD_VERSION: u8 = 1;
/// Bytes of memory that a log entry costs beside its batch, about, in the log file.
const RECORD_BYTES: u64 = 64;

/// Snapshots on their way, and what the log must keep.
#[derive(Debug)]
pub struct Transfers {
    shards: Vec<Kept>,
    /// Bytes ever appended, as a position.
    position: u64,
    log_bytes_max: u64,
    released: AppendSeq,
    outgoing: BTreeMap<(ShardId, NodeId), Outgoing>,
    incoming: BTreeMap<ShardId, Incoming>,
    saving: BTreeMap<ShardId, Saving>,
}

/// What one shard needs of the log.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    /// Its oldest needed append; zero is one of an earlier boot.
    from: AppendSeq,
    /// The bytes appended before it.
    position: u64,
    /// Whether it has appended anything at all.
    any: bool,
    /// A checkpoint under way: its append and position.
    next: Option<(AppendSeq, u64)>,
}

#[derive(Debug)]
struct Outgoing {
    ballot: Ballot,
    index: Index,
    chunks: Vec<Bytes>,
    sent: u32,
    at: Millis,
}

#[derive(Debug)]
struct Incoming {
    from: NodeId,
    ballot: Ballot,
    index: Index,
    count: u32,
    chunks: Vec<Bytes>,
    at: Millis,
}

/// A snapshot that is being written to its file.
#[derive(Debug)]
struct Saving {
    base: Base,
    config: Config,
    /// The state to install and the leader's ballot, for a snapshot that came from it.
    install: Option<(Ballot, Keyspace, Sessions)>,
}

/// What a head says.
struct Head {
    base: Base,
    config: Config,
    sessions: Sessions,
}

impl Transfers {
    pub(crate) fn new(shard_count: u16, log_bytes_max: u64) -> Transfers {
        Transfers {
            shards: (0..shard_count).map(|_| Kept::default()).collect(),
            position: 0,
            log_bytes_max,
            released: AppendSeq(0),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            saving: BTreeMap::new(),
        }
    }

    /// A record found in the log at start.
    pub(crate) fn recovered(&mut self, shard: ShardId, bytes: u64, checkpoint: bool) {
        if let Some(kept) = self.shards.get_mut(usize::from(shard.0)) {
            if checkpoint || !kept.any {
                kept.position = self.position;
            }
            kept.any = true;
        }
        self.position += bytes;
    }

    /// An append was asked for.
    pub(crate) fn appended(&mut self, shard: ShardId, seq: AppendSeq, record: &Record) {
        let kept = &mut self.shards[usize::from(shard.0)];
        if !kept.any {
            *kept = Kept { from: seq, position: self.position, any: true, next: None };
        }
        if matches!(record, Record::Checkpoint(_)) {
            kept.next = Some((seq, self.position));
        }
        self.position += cost_of(record);
    }

    /// `seq` is durable: the shards whose checkpoints are with it.
    pub(crate) fn checkpoints_done(&mut self, seq: AppendSeq) -> Vec<ShardId> {
        let mut done = Vec::new();
        for (at, kept) in self.shards.iter_mut().enumerate() {
            if let Some((from, position)) = kept.next.filter(|(from, _)| *from <= seq) {
                (kept.from, kept.position, kept.next) = (from, position, None);
                done.push(ShardId(at as u16));
            }
        }
        done
    }

    /// The oldest append that some shard still needs, if it has moved.
    pub(crate) fn releasable(&mut self) -> Option<AppendSeq> {
        let oldest = self.shards.iter().filter(|kept| kept.any).map(|kept| kept.from).min()?;
        if oldest <= self.released {
            return None;
        }
        self.released = oldest;
        Some(oldest)
    }

    /// The shard that holds up the oldest of the log, if the log is too long.
    fn due(&self) -> Option<ShardId> {
        if !self.saving.is_empty() || self.shards.iter().any(|kept| kept.next.is_some()) {
            return None;
        }
        let numbered = self.shards.iter().enumerate().filter(|(_, kept)| kept.any);
        let (at, oldest) = numbered.min_by_key(|(_, kept)| kept.position)?;
        (self.position - oldest.position > self.log_bytes_max).then_some(ShardId(at as u16))
    }

    /// Keeps the entries in memory within `bytes_max`, but never gives up what a snapshot
    /// being written does not cover, and only in need what a follower still lacks.
    pub(crate) fn trim(&self, shard: &mut Shard, bytes_max: usize) {
        if shard.group.log_bytes() <= bytes_max {
            return;
        }
        let mut to = shard.group.applied_index();
        if let Some(saving) = self.saving.get(&shard.id) {
            to = to.min(saving.base.index);
        }
        if shard.group.log_bytes() <= 8 * bytes_max
            && let Some(slowest) = shard.group.followers().map(|(_, accepted)| accepted).min()
        {
            to = to.min(slowest);
        }
        // Half of the room is freed at once, oldest first.
        let half = shard.group.base().index.0 + (to.0.saturating_sub(shard.group.base().index.0)).div_ceil(2);
        shard.group.trim(Index(half.min(to.0)));
    }

    /// Snapshots being sent or received, for status.
    pub fn under_way(&self) -> (usize, usize) {
        (self.outgoing.len(), self.incoming.len())
    }
}

/// What a record costs in the log, about.
pub(crate) fn cost_of(record: &Record) -> u64 {
    let entries = match record {
        Record::Promised { .. } => return RECORD_BYTES,
        Record::Accepted { entries, .. } | Record::Replaced { entries, .. } => entries,
        Record::Checkpoint(checkpoint) => &checkpoint.entries,
    };
    RECORD_BYTES + entries.iter().map(|entry| entry.cost_bytes() as u64).sum::<u64>()
}

/// Every chunk of a snapshot of the shard's applied state.
fn chunks_of(shard: &mut Shard) -> Vec<Bytes> {
    let mut chunks = alloc::vec![Bytes::from(encode_head(shard))];
    shard.keyspace.begin_snapshot();
    while let Some(chunk) = shard.keyspace.next_snapshot_chunk(CHUNK_BYTES) {
        chunks.push(Bytes::from(chunk));
    }
    chunks
}

fn encode_head(shard: &Shard) -> Vec<u8> {
    let base = shard.group.applied_base();
    let config = shard.group.applied_config();
    let mut out = alloc::vec![HEAD_VERSION];
    let mut put = |number: u64| out.extend_from_slice(&number.to_le_bytes());
    put(base.index.0);
    put(base.origin.round);
    put(u64::from(base.origin.replica.0));
    put(base.time.0);
    put(config.number);
    put(config.voters.len() as u64);
    config.voters.iter().for_each(|voter| put(u64::from(voter.0)));
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
    out
}

fn decode_head(head: Bytes) -> Result<Head, Malformed> {
    let mut reader = Reader(head);
    if reader.u8()? != HEAD_VERSION {
        return Err(Malformed);
    }
    let index = Index(reader.u64()?);
    let origin = Ballot { round: reader.u64()?, replica: replica(reader.u64()?)? };
    let base = Base { index, origin, time: Millis(reader.u64()?) };
    let number = reader.u64()?;
    let voters = bounded(reader.u64()?, reader.0.len())?;
    let voters = (0..voters).map(|_| replica(reader.u64()?)).collect::<Result<_, _>>()?;
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
    Ok(Head { base, config: Config { number, voters }, sessions })
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

fn load(mut chunks: impl Iterator<Item = Bytes>) -> Result<(Head, Keyspace), String> {
    let head = chunks.next().ok_or("an empty snapshot")?;
    let head = decode_head(head).map_err(|Malformed| "the head of the snapshot cannot be read")?;
    let mut loader = Loader::new();
    for chunk in chunks {
        loader.push(&chunk).map_err(|error| alloc::format!("the snapshot's keys: {error}"))?;
    }
    let keyspace = loader.finish().map_err(|error| alloc::format!("the snapshot's keys: {error}"))?;
    Ok((head, keyspace))
}

/// Takes back the snapshot that a checkpoint names, at start.
pub(crate) fn recover(
    shard: &mut Shard,
    index: Index,
    load_file: &mut dyn FnMut(ShardId, Index) -> Option<Vec<Bytes>>,
) -> Result<(), String> {
    let id = shard.id;
    shard.unfit = None;
    if index == Index::ZERO {
        return match shard.snapshot {
            Index::ZERO => Ok(()),
            later => Err(alloc::format!("{id}: a checkpoint without a snapshot after one at {later}")),
        };
    }
    let Some(chunks) = load_file(id, index) else {
        // A checkpoint that a later one has replaced; `finish_recovery` refuses if none has.
        shard.unfit = Some(alloc::format!("{id} needs its snapshot {index}, and there is no such file"));
        return Ok(());
    };
    let (head, keyspace) = load(chunks.into_iter()).map_err(|reason| alloc::format!("{id}: {reason}"))?;
    if head.base.index != index {
        return Err(alloc::format!("{id}: the snapshot named {index} is of {}", head.base.index));
    }
    if keyspace.slots() != shard.keyspace.slots() {
        return Err(alloc::format!("{id}: the snapshot is of other slots"));
    }
    shard.keyspace = keyspace;
    shard.sessions = head.sessions;
    shard.time = head.base.time;
    shard.snapshot = index;
    Ok(())
}

impl Node {
    /// Writes a snapshot of the shard that holds up the oldest part of a log grown too long.
    pub(crate) fn start_checkpoint(&mut self, out: &mut Effects) {
        let Some(id) = self.transfers.due() else { return };
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let base = shard.group.applied_base();
        let config = shard.applied_config();
        if base.index == shard.snapshot {
            // Nothing new to snapshot: only the records move to the head of the log.
            shard.group.append_checkpoint(base, config, &mut self.outbox);
            self.collect(id, out);
            return;
        }
        out.snapshots.push(SaveSnapshot { shard: id, index: base.index, chunks: chunks_of(shard) });
        self.transfers.saving.insert(id, Saving { base, config, install: None });
    }

    pub(crate) fn handle_snapshot_saved(&mut self, id: ShardId, index: Index, out: &mut Effects) {
        let now = self.time().mono;
        let Some(saving) = self.transfers.saving.remove(&id) else { return };
        if saving.base.index != index {
            self.transfers.saving.insert(id, saving);
            return;
        }
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        match saving.install {
            None => {
                shard.snapshot = index;
                shard.group.append_checkpoint(saving.base, saving.config, &mut self.outbox);
            }
            Some((ballot, keyspace, sessions)) => {
                let (base, config) = (saving.base, saving.config);
                if shard.group.install(ballot, base, config, now, &mut self.outbox).is_some() {
                    shard.snapshot = index;
                    shard.keyspace = keyspace;
                    shard.sessions = sessions;
                    shard.time = base.time;
                    out.notices.push(Notice::SnapshotInstalled { shard: id, index });
                }
            }
        }
        self.collect(id, out);
    }

    /// Begins to send a snapshot to a replica, unless that is under way.
    pub(crate) fn send_snapshot(&mut self, id: ShardId, to: NodeId, out: &mut Effects) {
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let Some(ballot) = shard.group.leading() else { return };
        if let Some(outgoing) = self.transfers.outgoing.get(&(id, to))
            && outgoing.ballot == ballot
            && now.since(outgoing.at) < TRANSFER_TIMEOUT
        {
            return;
        }
        let index = shard.group.applied_index();
        if index == Index::ZERO {
            return;
        }
        let chunks = chunks_of(shard);
        self.transfers.outgoing.insert((id, to), Outgoing { ballot, index, chunks, sent: 0, at: now });
        self.handle_snapshot_wanted(to, id, ballot, index, 0, out);
    }

    pub(crate) fn handle_snapshot_wanted(
        &mut self,
        from: NodeId,
        shard: ShardId,
        ballot: Ballot,
        index: Index,
        wanted: u32,
        out: &mut Effects,
    ) {
        let now = self.time().mono;
        let Some(outgoing) = self.transfers.outgoing.get_mut(&(shard, from)) else { return };
        if outgoing.ballot != ballot || outgoing.index != index {
            return;
        }
        outgoing.at = now;
        let count = outgoing.chunks.len() as u32;
        if wanted >= count {
            self.transfers.outgoing.remove(&(shard, from));
            return;
        }
        // A receiver that asks for less than was sent has lost something: go back to it.
        if wanted + CHUNKS_IN_FLIGHT < outgoing.sent {
            outgoing.sent = wanted;
        }
        while outgoing.sent < count.min(wanted + CHUNKS_IN_FLIGHT) {
            let chunk = outgoing.sent;
            let bytes = outgoing.chunks[chunk as usize].clone();
            let chunk = SnapshotChunk { shard, ballot, index, chunk, chunks: count, bytes };
            out.sends.push((from, PeerMessage::SnapshotChunk(chunk)));
            outgoing.sent += 1;
        }
    }

    pub(crate) fn handle_snapshot_chunk(&mut self, from: NodeId, chunk: SnapshotChunk, out: &mut Effects) {
        let id = chunk.shard;
        let now = self.time().mono;
        let known = self.shards.get(usize::from(id.0)).and_then(Option::as_ref);
        let Some(shard) = known else { return };
        if chunk.index <= shard.group.applied_index() || self.transfers.saving.contains_key(&id) {
            return;
        }
        let fresh = Incoming {
            from,
            ballot: chunk.ballot,
            index: chunk.index,
            count: chunk.chunks,
            chunks: Vec::new(),
            at: now,
        };
        let incoming = self.transfers.incoming.entry(id).or_insert(fresh);
        let same = incoming.from == from
            && (incoming.ballot, incoming.index, incoming.count) == (chunk.ballot, chunk.index, chunk.chunks);
        if !same {
            if chunk.ballot < incoming.ballot && now.since(incoming.at) < TRANSFER_TIMEOUT {
                return;
            }
            *incoming = Incoming {
                from,
                ballot: chunk.ballot,
                index: chunk.index,
                count: chunk.chunks,
                chunks: Vec::new(),
                at: now,
            };
        }
        if chunk.chunk == incoming.chunks.len() as u32 {
            incoming.chunks.push(chunk.bytes);
            incoming.at = now;
        }
        let next = incoming.chunks.len() as u32;
        let wanted =
            PeerMessage::SnapshotWanted { shard: id, ballot: chunk.ballot, index: chunk.index, chunk: next };
        out.sends.push((from, wanted));
        if next < chunk.chunks {
            return;
        }
        let Some(incoming) = self.transfers.incoming.remove(&id) else { return };
        match load(incoming.chunks.iter().cloned()) {
            Ok((head, keyspace)) if head.base.index == incoming.index => {
                let Head { base, config, sessions } = head;
                let install = Some((incoming.ballot, keyspace, sessions));
                self.transfers.saving.insert(id, Saving { base, config, install });
                out.snapshots.push(SaveSnapshot { shard: id, index: base.index, chunks: incoming.chunks });
            }
            _ => {
                let reason = "a snapshot that cannot be read";
                out.notices.push(Notice::MessageDropped { node: from, reason });
            }
        }
    }
}
