//! Snapshots: written for the log's sake, sent to replicas that fell behind, taken back at
//! start (R22).
//!
//! Each part owns its state: [`retained`](Retained) what the log must keep, [`saves`](Saves) what is being written to
//! files, [`outgoing`](Outgoing) and [`incoming`](Incoming) what is on its way. `image` knows the bytes. Here they meet
//! the shards:
//!
//! ```text
//!   log too long ─▶ checkpoint in the log ─▶ image ─▶ saves, slice by slice ─▶ both durable ─▶ older records and
//!                                                                                              snapshots go
//!   replica behind ─▶ image ─▶ outgoing ─ ─ chunks ─ ─▶ incoming ─▶ saves ─▶ written ─▶ installed
//! ```
//!
//! A checkpoint for the log's sake is appended when its snapshot *begins*, and names it: from there on the log has what
//! the snapshot will lack, however long it takes to write. Until the file is durable the checkpoint releases nothing
//! (S1), and recovery that finds no such file goes on with the records before (decision 0017).

mod image;
mod incoming;
mod outgoing;
mod retained;
mod saves;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_engine::Keyspace;
use tholos_paxos::{AppendSeq, Ballot, Index, Millis, Record};
use tholos_ring::ShardId;

use self::image::{Image, SliceLimits};
pub use self::image::{LoadedSnapshot, SnapshotLoader};
use self::incoming::Incoming;
use self::outgoing::Outgoing;
use self::retained::Retained;
pub(crate) use self::retained::cost_of;
use self::saves::{Own, Saves, Saving, Source};
use crate::event::{Effects, Notice, SnapshotJob};
use crate::node::Node;
use crate::peer::SnapshotChunk;
use crate::sessions::Sessions;
use crate::shard::{Shard, Unfit};

/// A transfer without progress for this long is dropped: the leader starts a new one.
const TRANSFER_TIMEOUT: Millis = Millis(5000);

/// Snapshots on their way, and what the log must keep.
#[derive(Debug)]
pub(crate) struct Transfers {
    retained: Retained,
    saves: Saves,
    outgoing: Outgoing,
    incoming: Incoming,
}

impl Transfers {
    pub(crate) fn new(shard_count: u16, log_bytes_max: u64) -> Transfers {
        Transfers {
            retained: Retained::new(shard_count, log_bytes_max),
            saves: Saves::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
        }
    }

    /// A record found in the log at start.
    pub(crate) fn recovered(&mut self, shard: ShardId, bytes: u64, checkpoint: bool) {
        self.retained.recovered(shard, bytes, checkpoint);
    }

    /// An append was asked for.
    pub(crate) fn appended(&mut self, shard: ShardId, seq: AppendSeq, record: &Record) {
        self.retained.appended(shard, seq, record);
    }

    /// Keeps the entries in memory within `bytes_max`, and gives up only in need what a follower still lacks.
    pub(crate) fn trim(&self, shard: &mut Shard, bytes_max: usize) {
        if shard.group.log_bytes() <= bytes_max {
            return;
        }
        let mut to = shard.group.applied_index();
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

/// State that is not needed any more and takes a while to free.
#[derive(Debug)]
#[must_use]
pub struct Discarded(#[expect(dead_code, reason = "only its end matters")] Kind);

#[derive(Debug)]
enum Kind {
    #[expect(dead_code, reason = "only its end matters")]
    Entries(tholos_engine::Discarded),
    #[expect(dead_code, reason = "only its end matters")]
    State(Box<(Keyspace, Sessions)>),
}

impl From<tholos_engine::Discarded> for Discarded {
    fn from(entries: tholos_engine::Discarded) -> Discarded {
        Discarded(Kind::Entries(entries))
    }
}

/// Takes back the snapshot that a checkpoint names, at start.
pub(crate) fn recover(
    shard: &mut Shard,
    index: Index,
    load_file: &mut dyn FnMut(ShardId, Index) -> Option<LoadedSnapshot>,
) -> Result<(), String> {
    let id = shard.id;
    shard.unfit = None;
    if index == Index::ZERO {
        if shard.snapshot > Index::ZERO {
            let later = shard.snapshot;
            let reason = alloc::format!("{id}: a checkpoint without a snapshot after one at {later}");
            shard.unfit = Some(Unfit::Records(reason));
        }
        return Ok(());
    }
    let Some(loaded) = load_file(id, index) else {
        // A checkpoint that a later one has replaced, or the replica is mute (`finish_recovery`).
        let reason = alloc::format!("{id} needs its snapshot {index}, and there is no whole file of it");
        shard.unfit = Some(Unfit::Snapshot(reason));
        return Ok(());
    };
    let LoadedSnapshot { base, sessions, keyspace, .. } = loaded;
    if base.index != index {
        return Err(alloc::format!("{id}: the snapshot named {index} is of {}", base.index));
    }
    if keyspace.slots() != shard.keyspace.slots() {
        return Err(alloc::format!("{id}: the snapshot is of other slots"));
    }
    shard.keyspace = keyspace;
    shard.sessions = sessions;
    shard.time = base.time;
    shard.snapshot = index;
    Ok(())
}

/// For the log's sake.
impl Node {
    /// Writes a snapshot of the shard that holds up the oldest part of a log grown too long.
    pub(crate) fn start_checkpoint(&mut self, out: &mut Effects) {
        if !self.transfers.saves.may_begin(self.time().mono) {
            return;
        }
        let Some(id) = self.transfers.retained.due(self.disk_full) else { return };
        let limits = self.slice_limits();
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let base = shard.group.applied_base();
        let config = shard.applied_config();
        let is_new = base.index != shard.snapshot;
        if is_new {
            let source = Source::Own(Own::new(Image::begin(shard, limits)));
            self.transfers.saves.begin(id, Saving { index: base.index, source });
        }
        // With nothing new to snapshot, only the records move to the head of the log.
        shard.group.append_checkpoint(base, config, &mut self.outbox);
        self.collect(id, out);
        if is_new {
            self.transfers.retained.file_begun(id);
            out.snapshots.push(SnapshotJob::Begin { shard: id, index: base.index });
            self.produce_chunks(id, out);
        }
    }

    fn slice_limits(&self) -> SliceLimits {
        SliceLimits {
            chunk_bytes: self.config.snapshot_chunk_bytes,
            entries_max: self.config.snapshot_slice_entries,
        }
    }

    fn produce_chunks(&mut self, id: ShardId, out: &mut Effects) {
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        self.transfers.saves.produce(shard, self.disk_full, &mut out.snapshots);
        if let Some(discarded) = shard.keyspace.take_discarded() {
            out.snapshots.push(SnapshotJob::Drop(discarded.into()));
        }
    }

    pub(crate) fn handle_snapshot_written(&mut self, id: ShardId, index: Index, out: &mut Effects) {
        self.transfers.saves.written(id, index);
        self.produce_chunks(id, out);
    }

    pub(crate) fn handle_snapshot_failed(&mut self, id: ShardId, index: Index) {
        let now = self.time().mono;
        let Some(failed) = self.transfers.saves.fail(id, index, now) else { return };
        if let (Source::Own(_), Some(shard)) = (failed.source, self.shards[usize::from(id.0)].as_mut()) {
            image::abandon(shard);
            self.transfers.retained.file_failed(id);
        }
    }

    pub(crate) fn handle_snapshot_saved(&mut self, id: ShardId, index: Index, out: &mut Effects) {
        let Some(saving) = self.transfers.saves.take(id, index) else { return };
        match saving.source {
            Source::Own(_) => {
                if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
                    shard.snapshot = index;
                }
                self.transfers.retained.file_done(id);
                self.settle_checkpoints(out);
            }
            Source::Leader(ballot, loaded) => self.install(id, ballot, *loaded, out),
        }
    }

    /// Puts the state of a durable snapshot from a leader in the place of the shard's own.
    fn install(&mut self, id: ShardId, ballot: Ballot, loaded: LoadedSnapshot, out: &mut Effects) {
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let LoadedSnapshot { base, config, sessions, keyspace } = loaded;
        let index = base.index;
        if shard.group.install(ballot, base, config, now, &mut self.outbox).is_some() {
            shard.snapshot = index;
            shard.time = base.time;
            let keyspace = core::mem::replace(&mut shard.keyspace, keyspace);
            let sessions = core::mem::replace(&mut shard.sessions, sessions);
            out.snapshots.push(SnapshotJob::Drop(Discarded(Kind::State(Box::new((keyspace, sessions))))));
            out.notices.push(Notice::SnapshotInstalled { shard: id, index });
        }
        self.collect(id, out);
    }

    /// Lets go of what checkpoints have replaced that are durable by now, with their files.
    pub(crate) fn settle_checkpoints(&mut self, out: &mut Effects) {
        let done = self.transfers.retained.checkpoints_done(self.appends.durable);
        for shard in &done {
            let covered =
                self.shards[usize::from(shard.0)].as_ref().map_or(Index::ZERO, |shard| shard.snapshot);
            out.snapshots.push(SnapshotJob::RemoveBelow { shard: *shard, index: covered });
        }
        if !done.is_empty() {
            out.release = self.transfers.retained.releasable().or(out.release);
        }
    }

    /// Snapshots being sent, received or written to a file.
    pub fn snapshots_under_way(&self) -> usize {
        let Transfers { saves, outgoing, incoming, .. } = &self.transfers;
        outgoing.count() + incoming.count() + saves.count()
    }
}

/// From node to node.
impl Node {
    /// Sends again what was lost of transfers that stand still, and gives up those that nobody answers.
    pub(crate) fn tick_transfers(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        self.transfers.outgoing.tick(now, out);
        self.transfers.incoming.tick(now);
    }

    /// Begins to send a snapshot to a replica, unless that is under way.
    pub(crate) fn send_snapshot(&mut self, id: ShardId, to: NodeId, out: &mut Effects) {
        let (now, limits) = (self.time().mono, self.slice_limits());
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let Some(ballot) = shard.group.leading() else { return };
        let index = shard.group.applied_index();
        if index == Index::ZERO || self.transfers.outgoing.is_under_way(id, to, ballot, now) {
            return;
        }
        // One image at a time; the replica is asked about again.
        if self.transfers.saves.index(id).is_some() {
            return;
        }
        let mut image = Image::begin(shard, limits);
        let mut chunks = Vec::new();
        while let Some(chunk) = image.next_chunk(shard) {
            if !chunk.is_empty() {
                chunks.push(chunk);
            }
        }
        self.transfers.outgoing.begin((id, to), (ballot, index), chunks, now, out);
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
        self.transfers.outgoing.handle_wanted((shard, from), (ballot, index), wanted, now, out);
    }

    pub(crate) fn handle_snapshot_chunk(&mut self, from: NodeId, chunk: SnapshotChunk, out: &mut Effects) {
        let (id, ballot, index) = (chunk.shard, chunk.ballot, chunk.index);
        let now = self.time().mono;
        let known = self.shards.get(usize::from(id.0)).and_then(Option::as_ref);
        let Some(shard) = known else { return };
        if index <= shard.group.applied_index() || self.transfers.saves.index(id).is_some() {
            return;
        }
        let Some(chunks) = self.transfers.incoming.handle_chunk(from, chunk, now, out) else { return };
        match load(&chunks) {
            Ok(loaded) if loaded.base.index == index => {
                let source = Source::Leader(ballot, Box::new(loaded));
                self.transfers.saves.begin(id, Saving { index, source });
                out.snapshots.push(SnapshotJob::Begin { shard: id, index });
                let write = |bytes| SnapshotJob::Write { shard: id, index, bytes, hurry: false };
                out.snapshots.extend(chunks.into_iter().map(write));
                out.snapshots.push(SnapshotJob::Finish { shard: id, index });
            }
            _ => {
                let reason = "a snapshot that cannot be read";
                out.notices.push(Notice::MessageDropped { node: from, reason });
            }
        }
    }
}

fn load(chunks: &[Bytes]) -> Result<LoadedSnapshot, String> {
    let mut loader = SnapshotLoader::new();
    chunks.iter().try_for_each(|chunk| loader.push(chunk))?;
    loader.finish()
}
