//! Snapshots: written for the log's sake, sent to replicas that fell behind, taken back at
//! start (R22).
//!
//! Each part owns its state: [`retained`](Retained) what the log must keep, [`saves`](Saves) what is being written to
//! files, [`outgoing`](Outgoing) and [`incoming`](Incoming) what is on its way. `image` knows the bytes. Here they meet
//! the shards:
//!
//! ```text
//!   log too long ─▶ checkpoint in the log ─▶ image ─▶ saves, slice by slice ─▶ both durable ─▶ older records and
//!                                                      │ file                                  snapshots go
//!   replica behind ─▶ the last file, or a new one ─▶ outgoing ─ ─ chunks ─ ─▶ incoming ─▶ file ─▶ installed
//! ```
//!
//! A checkpoint for the log's sake is appended when its snapshot *begins*, and names it: from there on the log has what
//! the snapshot will lack, however long it takes to write. Until the file is durable the checkpoint releases nothing
//! (S1), and recovery that finds no such file goes on with the records before (decision 0017).
//!
//! A log takes writes faster than snapshots release them. So, before it has no room for them:
//!
//! - **H1** While a snapshot comes on, clients' writes are proposed only as fast as it is written, in proportion to the room
//!   that there was when it began: writers slow down to what snapshots can bear, and none is refused.
//!   Where it takes several snapshots until any of the log is released, each has its part in that room.
//! - **H2** Without room they wait as long as snapshots come on. If none does, waiting mends nothing (a disk is full): they are
//!   refused. So are those that have waited too long.

mod image;
mod incoming;
mod outgoing;
mod pace;
mod retained;
mod saves;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;

use tholos_cluster::NodeId;
use tholos_engine::Keyspace;
use tholos_paxos::{AppendSeq, Ballot, Index, Millis, Planted, Record};
use tholos_ring::ShardId;

use self::image::{Image, SliceLimits};
pub use self::image::{LoadedSnapshot, SnapshotLoader};
use self::incoming::Incoming;
use self::outgoing::{File, Outgoing, Standing};
use self::retained::Retained;
pub(crate) use self::retained::cost_of;
use self::saves::{Saves, Saving, Share};
use crate::config::NodeConfig;
use crate::detector::node_of;
use crate::digests::Digests;
use crate::event::{ChunkRead, Effects, Loss, Notice, SnapshotJob};
use crate::node::Node;
use crate::peer::{PeerMessage, SnapshotChunk, Wait};
use crate::sessions::Sessions;
use crate::shard::{Shard, Unfit, mix};

/// A transfer without progress for this long is begun anew by the leader. What has arrived of it counts.
const TRANSFER_TIMEOUT: Millis = Millis(5000);

/// Snapshots on their way, and what the log must keep.
#[derive(Debug)]
pub(crate) struct Transfers {
    retained: Retained,
    saves: Saves,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The durable snapshots of this boot that a name was given to.
    files: BTreeMap<ShardId, File>,
    /// Those that cannot be read.
    unreadable: BTreeMap<ShardId, Index>,
    boot: u64,
    last_file: u64,
    /// Bytes of entries kept in memory for replicas that get a snapshot.
    tail_bytes_max: usize,
}

impl Transfers {
    pub(crate) fn new(shard_count: u16, config: &NodeConfig) -> Transfers {
        Transfers {
            retained: Retained::new(shard_count, config.log_bytes_max, config.log_room_bytes),
            saves: Saves::default(),
            outgoing: Outgoing::new(config.snapshot_chunk_bytes as u32),
            incoming: Incoming::new(config.snapshot_bytes_max),
            files: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            boot: config.boot,
            last_file: 0,
            // With more, a replica could not have it sent again (the log's bound), and would need a snapshot again.
            tail_bytes_max: config.group.resent_bytes_max,
        }
    }

    /// A record found in the log at start.
    pub(crate) fn recovered(&mut self, shard: ShardId, bytes: u64, checkpoint: bool) {
        self.retained.recovered(shard, bytes, checkpoint);
    }

    /// Bytes of the log's segments that are not released, of the last one as far as it is written.
    pub(crate) fn log_keeps(&mut self, bytes: u64) {
        self.retained.set_kept(bytes);
        self.saves.has_room(self.retained.room_bytes(0));
    }

    /// Whether clients' writes are to wait for the snapshot under way (H1), with so many bytes of appends under way.
    pub(crate) fn holds_writes(&self, waiting_bytes: u64) -> bool {
        self.saves.outrun(self.retained.room_bytes(waiting_bytes))
    }

    /// Whether snapshots that make room come on (H2).
    pub(crate) fn comes_on(&self, now: Millis) -> bool {
        self.saves.come_on(now)
    }

    /// The state that a shard had is replaced by another: what was being written or sent is of the state before.
    fn void(&mut self, id: ShardId, out: &mut Effects) {
        if let Some(file) = self.saves.get(id).map(|saving| saving.file) {
            self.saves.take(id, file.index);
            self.retained.file_failed(id);
            out.snapshots.push(SnapshotJob::Abandon { shard: id, index: file.index });
        }
        self.outgoing.drop_shard(id);
        self.unreadable.remove(&id);
        self.files.remove(&id);
    }

    /// Another replica of the shard begins here (R7): nothing of the one before it is gone on with.
    pub(crate) fn begin_anew(&mut self, id: ShardId, out: &mut Effects) {
        self.void(id, out);
        self.incoming.forget(id, out);
        self.saves.take_needed(id);
    }

    /// A shard has no replica here any more: nothing of it in the log is needed.
    pub(crate) fn forget_records(&mut self, id: ShardId) {
        self.retained.forget(id);
    }

    /// An append was asked for.
    pub(crate) fn appended(&mut self, shard: ShardId, seq: AppendSeq, record: &Record) {
        self.retained.appended(shard, seq, record);
    }

    /// Keeps the entries in memory within `bytes_max`, but for what follows a snapshot that is being sent; and gives up
    /// only in need what a follower still lacks.
    pub(crate) fn trim(&self, shard: &mut Shard, bytes_max: usize) {
        let bytes = shard.group.log_bytes();
        if bytes <= bytes_max {
            return;
        }
        let mut to = shard.group.applied_index();
        if bytes <= self.tail_bytes_max
            && let Some(floor) = self.outgoing.floor(shard.id)
        {
            to = to.min(floor);
        }
        if bytes <= 8 * bytes_max
            && let Some(slowest) = shard.group.followers().map(|(_, accepted)| accepted).min()
        {
            to = to.min(slowest);
        }
        // Half of the room is freed at once, oldest first.
        let half = shard.group.base().index.0 + (to.0.saturating_sub(shard.group.base().index.0)).div_ceil(2);
        shard.group.trim(Index(half.min(to.0)));
    }

    /// A file that was to be sent cannot be read: another is to be written.
    pub(crate) fn handle_unreadable(&mut self, shard: ShardId, index: Index) {
        self.outgoing.drop_file(shard, index);
        self.unreadable.insert(shard, index);
    }

    /// A replica says how much of a snapshot it has.
    pub(crate) fn handle_wanted(
        &mut self,
        key: (ShardId, NodeId),
        name: (Ballot, Index, u64),
        wanted: u32,
        now: Millis,
        out: &mut Effects,
    ) {
        self.outgoing.handle_wanted(key, name, wanted, now, out);
    }

    /// A chunk from a leader is written.
    pub(crate) fn handle_taken(
        &mut self,
        shard: ShardId,
        file: u64,
        chunk: u32,
        now: Millis,
        out: &mut Effects,
    ) {
        self.incoming.handle_taken(shard, file, chunk, now, out);
    }

    /// A name for a file that no other file of the shard has.
    fn name_file(&mut self, index: Index) -> File {
        self.last_file += 1;
        File { index, id: mix(self.boot, self.last_file) }
    }

    /// The file of the shard's durable snapshot, if the replicas that take it over can have the rest from memory.
    fn durable_file(&mut self, shard: &Shard) -> Option<File> {
        let index = shard.snapshot;
        let usable = index > Index::ZERO
            && self.unreadable.get(&shard.id) != Some(&index)
            && shard.group.resends_after(index);
        if !usable {
            return None;
        }
        match self.files.get(&shard.id) {
            Some(file) if file.index == index => Some(*file),
            // Written in an earlier boot, or by a leader.
            _ => {
                let file = self.name_file(index);
                self.files.insert(shard.id, file);
                Some(file)
            }
        }
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

impl Discarded {
    /// All that a replica had applied.
    pub(crate) fn state(keyspace: Keyspace, sessions: Sessions) -> Discarded {
        Discarded(Kind::State(Box::new((keyspace, sessions))))
    }
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
    shard.set_unfit(None);
    if index == Index::ZERO {
        if shard.snapshot > Index::ZERO {
            let later = shard.snapshot;
            let reason = alloc::format!("{id}: a checkpoint without a snapshot after one at {later}");
            shard.set_unfit(Some(Unfit::Records(reason)));
        }
        return Ok(());
    }
    let Some(loaded) = load_file(id, index) else {
        // A checkpoint that a later one has replaced, or the replica is mute (`finish_recovery`).
        let reason = alloc::format!("{id} needs its snapshot {index}, and there is no whole file of it");
        shard.set_unfit(Some(Unfit::Snapshot(reason)));
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
    (shard.snapshot, shard.named_snapshot) = (index, index);
    Ok(())
}

/// Snapshots written here.
impl Node {
    /// Begins a snapshot of the shard that holds up the oldest part of a log grown too long, or of one that a replica
    /// needs.
    pub(crate) fn start_checkpoint(&mut self, out: &mut Effects) {
        if !self.transfers.saves.may_begin(self.time().mono) || self.transfers.retained.is_busy() {
            return;
        }
        let due = self.transfers.retained.due(self.disk_is_full());
        let Some(id) = self.transfers.saves.next(due) else { return };
        let (limits, share) = (self.slice_limits(), self.share_of(id));
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else {
            // Its replica has moved away since, and whoever needed it gets it from another.
            self.transfers.saves.take_needed(id);
            return;
        };
        let (base, config) = (shard.group.applied_base(), shard.applied_config());
        let is_new = base.index != shard.snapshot || self.transfers.unreadable.get(&id) == Some(&base.index);
        if is_new {
            let file = self.transfers.name_file(base.index);
            self.transfers.saves.begin(id, Saving::new(file, Image::begin(shard, limits), share));
        }
        // With nothing new to snapshot, only the records move to the head of the log.
        shard.group.append_checkpoint(base, config, &mut self.outbox);
        self.collect(id, out);
        if is_new {
            if self.config.group.planted != Planted::ReleasedEarly {
                self.transfers.retained.file_begun(id);
            }
            out.snapshots.push(SnapshotJob::Begin { shard: id, index: base.index });
            self.produce_chunks(id, out);
        }
        for to in self.transfers.saves.take_needed(id) {
            self.send_snapshot(id, to, out);
        }
    }

    /// What writes may have while a snapshot of the shard is written, which begins now.
    fn share_of(&self, id: ShardId) -> Share {
        let bytes = |id: &ShardId| self.shard(*id).map_or(0, |shard| shard.keyspace.data_bytes() as u64);
        let together = self.transfers.retained.together();
        let own_bytes = bytes(&id);
        Share {
            room_bytes: self.transfers.retained.room_bytes(self.appends.bytes()),
            own_bytes,
            all_bytes: own_bytes + together.iter().filter(|other| **other != id).map(bytes).sum::<u64>(),
            chunk_bytes: self.config.snapshot_chunk_bytes as u64,
        }
    }

    fn slice_limits(&self) -> SliceLimits {
        SliceLimits {
            chunk_bytes: self.config.snapshot_chunk_bytes,
            entries_max: self.config.snapshot_slice_entries,
        }
    }

    fn produce_chunks(&mut self, id: ShardId, out: &mut Effects) {
        let transfers = &self.transfers;
        let hurry = self.disk_is_full()
            || transfers.holds_writes(self.appends.bytes())
            || transfers.retained.is_pressed();
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        self.transfers.saves.produce(shard, hurry, &mut out.snapshots);
        if let Some(discarded) = shard.keyspace.take_discarded() {
            out.snapshots.push(SnapshotJob::Drop(discarded.into()));
        }
    }

    pub(crate) fn handle_snapshot_written(&mut self, id: ShardId, index: Index, out: &mut Effects) {
        let now = self.time().mono;
        self.transfers.saves.handle_written(id, index, now);
        self.produce_chunks(id, out);
        if let Some(saving) = self.transfers.saves.get(id) {
            // Whoever gets this file gets it as far as it has come.
            self.transfers.outgoing.handle_written(id, saving.file, saving.written(), now, out);
        }
    }

    pub(crate) fn handle_snapshot_failed(&mut self, id: ShardId, index: Index) {
        let now = self.time().mono;
        if !self.transfers.saves.fail(id, index, now) {
            return;
        }
        self.transfers.outgoing.drop_file(id, index);
        self.transfers.retained.file_failed(id);
        if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
            image::abandon(shard);
        }
    }

    pub(crate) fn handle_snapshot_saved(&mut self, id: ShardId, index: Index, out: &mut Effects) {
        let Some(saving) = self.transfers.saves.take(id, index) else { return };
        if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
            shard.snapshot = index;
        }
        self.transfers.files.insert(id, saving.file);
        self.transfers.unreadable.remove(&id);
        self.transfers.retained.file_done(id);
        self.settle_checkpoints(out);
    }

    /// The replica has lost its state and begins with an empty one (R20); an image of it under way is given up.
    pub(crate) fn forget_state(&mut self, id: ShardId, empty: Keyspace, loss: Loss, out: &mut Effects) {
        if let Some(index) = self.transfers.saves.get(id).map(|saving| saving.file.index) {
            self.handle_snapshot_failed(id, index);
            out.snapshots.push(SnapshotJob::Abandon { shard: id, index });
        }
        self.transfers.outgoing.drop_shard(id);
        self.transfers.unreadable.remove(&id);
        self.transfers.files.remove(&id);
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        (shard.snapshot, shard.named_snapshot) = (Index::ZERO, Index::ZERO);
        (shard.time, shard.loss, shard.fresh) = (Millis(0), Some(loss), None);
        shard.digests = Digests::default();
        let keyspace = core::mem::replace(&mut shard.keyspace, empty);
        let sessions = core::mem::take(&mut shard.sessions);
        out.snapshots.push(SnapshotJob::Drop(Discarded(Kind::State(Box::new((keyspace, sessions))))));
    }

    /// Lets go of what checkpoints have replaced that are durable by now, with their files.
    pub(crate) fn settle_checkpoints(&mut self, out: &mut Effects) {
        let done = self.transfers.retained.checkpoints_done(self.appends.durable);
        for id in &done {
            if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
                shard.named_snapshot = shard.snapshot;
            }
            self.remove_old_files(*id, out);
        }
        if !done.is_empty() {
            out.release = self.transfers.retained.releasable().or(out.release);
        }
    }

    /// What the log on the disk names stays, and what is being sent until it has arrived.
    fn remove_old_files(&self, id: ShardId, out: &mut Effects) {
        let Some(shard) = self.shards[usize::from(id.0)].as_ref() else { return };
        let sent = self.transfers.outgoing.oldest(id);
        let index = sent.map_or(shard.named_snapshot, |sent| sent.min(shard.named_snapshot));
        out.snapshots.push(SnapshotJob::RemoveBelow { shard: id, index });
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
        let shards = &self.shards;
        let standing = |id: ShardId, node: NodeId| {
            let group = &shards[usize::from(id.0)].as_ref()?.group;
            let accepted = group.followers().find(|(replica, _)| node_of(*replica) == node);
            Some((
                group.snapshots_in(|receiver| node_of(receiver) == node)?,
                accepted.map_or(Index::ZERO, |(_, accepted)| accepted),
            ))
        };
        let meta = &self.meta;
        let rate = |id, to| meta.send_rate(id, to);
        let ended = self.transfers.outgoing.tick(standing, rate, now, out);
        for id in ended {
            self.remove_old_files(id, out);
        }
        self.transfers.incoming.tick(now, out);
    }

    /// Begins to send a snapshot to a replica, unless that is under way: the last one if it is young enough, else one
    /// that is being written or will be.
    pub(crate) fn send_snapshot(&mut self, id: ShardId, to: NodeId, out: &mut Effects) {
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_ref() else { return };
        let ballot = shard.group.snapshots_in(|receiver| node_of(receiver) == to);
        let Some(ballot) = ballot else { return };
        if shard.group.applied_index() == Index::ZERO
            || self.transfers.outgoing.is_under_way(id, to, ballot, now)
            // It will be asked for again.
            || !self.transfers.outgoing.may_begin()
        {
            return;
        }
        let saving =
            self.transfers.saves.get(id).filter(|saving| shard.group.resends_after(saving.file.index));
        let rate = self.meta.send_rate(id, to);
        if let Some((file, written)) = saving.map(|saving| (saving.file, saving.written())) {
            self.transfers.outgoing.begin((id, to), (ballot, file), true, rate, now, out);
            self.transfers.outgoing.handle_written(id, file, written, now, out);
        } else if let Some(file) = self.transfers.durable_file(shard) {
            self.transfers.outgoing.begin((id, to), (ballot, file), false, rate, now, out);
        } else {
            self.transfers.saves.need(id, to);
        }
    }

    /// A chunk was read, to be sent.
    pub(crate) fn handle_snapshot_read(&mut self, read: ChunkRead, out: &mut Effects) {
        let (id, to, now) = (read.shard, read.to, self.time().mono);
        let bytes = self.transfers.outgoing.handle_read(read, now, out);
        self.meta.mover.count_sent(id, to, bytes);
    }

    /// What a replica waits for that a move brings here from the leader, which this is.
    pub(crate) fn learner_waits(&self, id: ShardId, to: NodeId) -> Wait {
        let now = self.time().mono;
        if !self.detector().hears_node(to) {
            return Wait::Target;
        }
        if self.detector().disk_full(to) {
            return Wait::TargetFull;
        }
        match self.transfers.outgoing.standing(id, to, now) {
            Some(Standing::Held) => return Wait::Throttle,
            Some(Standing::Sends) => return Wait::Sending,
            Some(Standing::Arrived) => return Wait::Entries,
            None => {}
        }
        let Some(shard) = self.shard(id) else { return Wait::Entries };
        let mark = self.mark(id, to);
        let lacks_all = mark == Index::ZERO;
        if self.transfers.saves.is_needed(id, to)
            || (mark < shard.group.base().index && !self.transfers.outgoing.may_begin())
        {
            return Wait::Snapshot;
        }
        if lacks_all { Wait::Join } else { Wait::Entries }
    }

    pub(crate) fn handle_snapshot_chunk(&mut self, from: NodeId, chunk: SnapshotChunk, out: &mut Effects) {
        let SnapshotChunk { shard: id, ballot, index, file, .. } = chunk;
        let now = self.time().mono;
        let known = self.shards.get(usize::from(id.0)).and_then(Option::as_ref);
        let Some(shard) = known else { return };
        if index <= shard.group.applied_index() {
            self.transfers.incoming.forget(id, out);
            let none = PeerMessage::SnapshotWanted { shard: id, ballot, index, file, chunk: u32::MAX };
            out.sends.push((from, none));
            return;
        }
        if let Err(reason) = self.transfers.incoming.handle_chunk(from, chunk, now, out) {
            out.notices.push(Notice::MessageDropped { node: from, reason });
        }
    }

    pub(crate) fn handle_snapshot_refused(&mut self, id: ShardId, file: u64, out: &mut Effects) {
        if let Some(node) = self.transfers.incoming.handle_refused(id, file) {
            let reason = "a snapshot that cannot be written or read";
            out.notices.push(Notice::MessageDropped { node, reason });
        }
    }

    /// Puts the state of a durable snapshot from a leader in the place of the shard's own.
    pub(crate) fn handle_snapshot_loaded(
        &mut self,
        id: ShardId,
        file: u64,
        loaded: LoadedSnapshot,
        out: &mut Effects,
    ) {
        let now = self.time().mono;
        let Some((node, ballot)) = self.transfers.incoming.handle_loaded(id, file, out) else { return };
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let LoadedSnapshot { base, config, sessions, keyspace } = loaded;
        let mut state = (keyspace, sessions);
        let index = base.index;
        if state.0.slots() != shard.keyspace.slots() {
            out.notices.push(Notice::MessageDropped { node, reason: "a snapshot of other slots" });
        } else if shard.group.install(ballot, base, config, now, &mut self.outbox).is_some() {
            core::mem::swap(&mut shard.keyspace, &mut state.0);
            core::mem::swap(&mut shard.sessions, &mut state.1);
            (shard.snapshot, shard.time) = (index, base.time);
            out.notices.push(Notice::SnapshotInstalled { shard: id, index });
            self.transfers.void(id, out);
        }
        // What was replaced, or what was of no use.
        out.snapshots.push(SnapshotJob::Drop(Discarded::state(state.0, state.1)));
        self.collect(id, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_of_a_replica_that_is_gone_keeps_nobody_waiting() {
        let mut transfers = Transfers::new(4, &NodeConfig::new(NodeId(1), 1, 1));
        let (gone, held) = (ShardId(2), ShardId(3));
        transfers.saves.need(gone, NodeId(2));
        transfers.saves.need(held, NodeId(2));
        transfers.begin_anew(gone, &mut Effects::default());
        assert_eq!(transfers.saves.next(None), Some(held));
        assert!(!transfers.saves.is_needed(gone, NodeId(2)));
    }
}
