//! Snapshots: written for the log's sake, sent to replicas that fell behind, taken back at
//! start. And the account of which records of the log are still needed (R22).
//!
//! A snapshot's bytes: the length of the head in eight bytes, the head (index, origin, time, configuration, sessions),
//! then the keyspace's own. They are cut into chunks anywhere.

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
/// A transfer that stands still for this long is sent again from where it stands.
const RESEND_AFTER: Millis = Millis(500);
/// After a snapshot could not be written, the next is begun this much later.
const RETRY_AFTER: Millis = Millis(1000);
/// Bytes of entries applied since the snapshot was taken that a checkpoint may hold: it is one record, and a batch of
/// the log has an upper bound. With more, a fresh snapshot is taken instead.
const CHECKPOINT_BYTES_MAX: usize = 64 << 20;
/// Version of the head.
const HEAD_VERSION: u8 = 1;
/// Bytes of the head's length before it.
const HEAD_LENGTH_BYTES: usize = 8;
/// Bytes of memory that a log entry costs beside its batch, about, in the log file.
const RECORD_BYTES: u64 = 64;

/// Snapshots on their way, and what the log must keep.
#[derive(Debug)]
pub(crate) struct Transfers {
    shards: Vec<Kept>,
    /// Bytes ever appended, as a position.
    position: u64,
    log_bytes_max: u64,
    released: AppendSeq,
    outgoing: BTreeMap<(ShardId, NodeId), Outgoing>,
    incoming: BTreeMap<ShardId, Incoming>,
    saving: BTreeMap<ShardId, Saving>,
    /// No checkpoint is begun before this.
    not_before: Millis,
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
    /// None once all have arrived: the replica gets time to take them over before the next transfer.
    chunks: Vec<Bytes>,
    /// The chunk asked for last.
    wanted: Option<u32>,
    /// Since when.
    moved_at: Millis,
    /// Chunks sent.
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
            not_before: Millis(0),
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

    /// The shard that holds up the oldest of the log, if the log is too long. Its length is an estimate, so when its
    /// room gets short a fraction is too long already.
    fn due(&self, now: Millis, disk_full: bool) -> Option<ShardId> {
        if now < self.not_before
            || !self.saving.is_empty()
            || self.shards.iter().any(|kept| kept.next.is_some())
        {
            return None;
        }
        let numbered = self.shards.iter().enumerate().filter(|(_, kept)| kept.any);
        let (at, oldest) = numbered.min_by_key(|(_, kept)| kept.position)?;
        let bytes_max = if disk_full { self.log_bytes_max / 8 } else { self.log_bytes_max };
        (self.position - oldest.position > bytes_max).then_some(ShardId(at as u16))
    }

    /// Gives up transfers that stand still, and their memory.
    pub(crate) fn drop_stale(&mut self, now: Millis) {
        self.outgoing.retain(|_, outgoing| now.since(outgoing.at) < TRANSFER_TIMEOUT);
        self.incoming.retain(|_, incoming| now.since(incoming.at) < TRANSFER_TIMEOUT);
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
    let (head, rest) = take_head(&mut chunks).ok_or("a snapshot without a whole head")?;
    let head = decode_head(head).map_err(|Malformed| "the head of the snapshot cannot be read")?;
    let mut loader = Loader::new();
    for chunk in core::iter::once(rest).chain(chunks) {
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

/// Bytes of the entries that were applied after `index`, about.
fn applied_bytes_after(shard: &Shard, index: Index) -> usize {
    let applied = index.next().0..=shard.group.applied_index().0;
    applied.filter_map(|at| shard.group.entry(Index(at))).map(tholos_paxos::Entry::cost_bytes).sum()
}

impl Node {
    /// Writes a snapshot of the shard that holds up the oldest part of a log grown too long.
    pub(crate) fn start_checkpoint(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        let Some(id) = self.transfers.due(now, self.disk_full) else { return };
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

    /// A snapshot could not be written: as if it had never been asked for. The log still has everything, and a leader
    /// that sent one sends another.
    pub(crate) fn handle_snapshot_failed(&mut self, id: ShardId, index: Index) {
        if self.transfers.saving.get(&id).is_some_and(|saving| saving.base.index == index) {
            self.transfers.saving.remove(&id);
            self.transfers.not_before = self.time().mono.plus(RETRY_AFTER);
        }
    }

    /// Sends again what was lost of transfers that stand still, and gives up those that nobody answers.
    pub(crate) fn tick_transfers(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        self.transfers.drop_stale(now);
        let stands = |outgoing: &Outgoing| now.since(outgoing.moved_at) >= RESEND_AFTER;
        let standing = self.transfers.outgoing.iter_mut().filter(|(_, outgoing)| stands(outgoing));
        let mut again = Vec::new();
        for ((shard, to), outgoing) in standing {
            outgoing.moved_at = now;
            let wanted = outgoing.wanted.unwrap_or(0);
            outgoing.sent = wanted;
            again.push((*shard, *to, outgoing.ballot, outgoing.index, wanted, outgoing.at));
        }
        for (shard, to, ballot, index, wanted, at) in again {
            self.handle_snapshot_wanted(to, shard, ballot, index, wanted, out);
            // Nobody has answered.
            if let Some(outgoing) = self.transfers.outgoing.get_mut(&(shard, to)) {
                outgoing.at = at;
            }
        }
    }

    /// Snapshots being sent, received or written to a file.
    pub fn snapshots_under_way(&self) -> usize {
        let sent = self.transfers.outgoing.values().filter(|outgoing| !outgoing.chunks.is_empty());
        sent.count() + self.transfers.incoming.len() + self.transfers.saving.len()
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
            None if applied_bytes_after(shard, index) > CHECKPOINT_BYTES_MAX => {}
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
        self.transfers.outgoing.insert(
            (id, to),
            Outgoing { ballot, index, chunks, wanted: None, moved_at: now, sent: 0, at: now },
        );
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
        let count = outgoing.chunks.len() as u32;
        if outgoing.ballot != ballot || outgoing.index != index || count == 0 {
            return;
        }
        outgoing.at = now;
        if wanted >= count {
            outgoing.chunks = Vec::new();
            return;
        }
        if outgoing.wanted != Some(wanted) {
            (outgoing.wanted, outgoing.moved_at) = (Some(wanted), now);
        }
        let end = outgoing.sent.max(count.min(wanted.saturating_add(CHUNKS_IN_FLIGHT)));
        for chunk in core::mem::replace(&mut outgoing.sent, end)..end {
            let bytes = outgoing.chunks[chunk as usize].clone();
            let chunk = SnapshotChunk { shard, ballot, index, chunk, chunks: count, bytes };
            out.sends.push((from, PeerMessage::SnapshotChunk(chunk)));
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tholos_paxos::{Group, Options, Planted};

    use super::*;
    use crate::operation::WriteHeader;

    fn shard() -> Shard {
        let config = Config { number: 0, voters: vec![ReplicaId(1)] };
        let group = Group::new(ReplicaId(1), config, Options::default());
        let keyspace = Keyspace::new(tholos_ring::slots_of(ShardId(0), 16), 7);
        Shard::new(ShardId(0), vec![NodeId(1)], group, keyspace, Planted::Nothing)
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
