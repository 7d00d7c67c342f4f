//! Snapshots: written for the log's sake, sent to replicas that fell behind, taken back at
//! start (R22).
//!
//! Each part owns its state: [`retained`](Retained) what the log must keep, [`saves`](Saves) what is being written to
//! files, [`outgoing`](Outgoing) and [`incoming`](Incoming) what is on its way. `image` knows the bytes. Here they meet
//! the shards:
//!
//! ```text
//!   log too long ─▶ image ─▶ saves ─▶ written ─▶ checkpoint in the log ─▶ durable ─▶ older records and snapshots go
//!   replica behind ─▶ image ─▶ outgoing ─ ─ chunks ─ ─▶ incoming ─▶ saves ─▶ written ─▶ installed
//! ```

mod image;
mod incoming;
mod outgoing;
mod retained;
mod saves;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_paxos::{AppendSeq, Ballot, Index, Millis, Record};
use tholos_ring::ShardId;

use self::image::{Head, chunks_of, load};
use self::incoming::Incoming;
use self::outgoing::Outgoing;
use self::retained::Retained;
pub(crate) use self::retained::cost_of;
use self::saves::{Saves, Saving};
use crate::event::{Effects, Notice, SaveSnapshot};
use crate::node::Node;
use crate::peer::SnapshotChunk;
use crate::shard::Shard;

/// A transfer without progress for this long is dropped: the leader starts a new one.
const TRANSFER_TIMEOUT: Millis = Millis(5000);
/// Bytes of entries applied since the snapshot was taken that a checkpoint may hold: it is one record, and a batch of
/// the log has an upper bound. With more, a fresh snapshot is taken instead.
const CHECKPOINT_BYTES_MAX: usize = 64 << 20;

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

    /// `seq` is durable: the shards whose checkpoints are with it.
    pub(crate) fn checkpoints_done(&mut self, seq: AppendSeq) -> Vec<ShardId> {
        self.retained.checkpoints_done(seq)
    }

    /// The oldest append that some shard still needs, if it has moved.
    pub(crate) fn releasable(&mut self) -> Option<AppendSeq> {
        self.retained.releasable()
    }

    /// Keeps the entries in memory within `bytes_max`, but never gives up what a snapshot
    /// being written does not cover, and only in need what a follower still lacks.
    pub(crate) fn trim(&self, shard: &mut Shard, bytes_max: usize) {
        if shard.group.log_bytes() <= bytes_max {
            return;
        }
        let mut to = shard.group.applied_index();
        if let Some(index) = self.saves.index(shard.id) {
            to = to.min(index);
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

/// For the log's sake.
impl Node {
    /// Writes a snapshot of the shard that holds up the oldest part of a log grown too long.
    pub(crate) fn start_checkpoint(&mut self, out: &mut Effects) {
        if !self.transfers.saves.may_begin(self.time().mono) {
            return;
        }
        let Some(id) = self.transfers.retained.due(self.disk_full) else { return };
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
        self.transfers.saves.begin(id, Saving { base, config, install: None });
    }

    pub(crate) fn handle_snapshot_failed(&mut self, id: ShardId, index: Index) {
        let now = self.time().mono;
        self.transfers.saves.fail(id, index, now);
    }

    pub(crate) fn handle_snapshot_saved(&mut self, id: ShardId, index: Index, out: &mut Effects) {
        let now = self.time().mono;
        let Some(saving) = self.transfers.saves.take(id, index) else { return };
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let Saving { base, config, install } = saving;
        match install {
            None if applied_bytes_after(shard, index) > CHECKPOINT_BYTES_MAX => {}
            None => {
                shard.snapshot = index;
                shard.group.append_checkpoint(base, config, &mut self.outbox);
            }
            Some((ballot, keyspace, sessions)) => {
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
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let Some(ballot) = shard.group.leading() else { return };
        let index = shard.group.applied_index();
        if index == Index::ZERO || self.transfers.outgoing.is_under_way(id, to, ballot, now) {
            return;
        }
        let chunks = chunks_of(shard);
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
        match load(chunks.iter().cloned()) {
            Ok((Head { base, config, sessions }, keyspace)) if base.index == index => {
                let install = Some((ballot, keyspace, sessions));
                self.transfers.saves.begin(id, Saving { base, config, install });
                out.snapshots.push(SaveSnapshot { shard: id, index, chunks });
            }
            _ => {
                let reason = "a snapshot that cannot be read";
                out.notices.push(Notice::MessageDropped { node: from, reason });
            }
        }
    }
}
