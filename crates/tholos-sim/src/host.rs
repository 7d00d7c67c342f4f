//! One simulated machine: a node core, its disk, its clock, and the driver's duties done the
//! way the real driver does them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tholos_cluster::{ClusterMap, NodeId};
use tholos_node::{
    Append, Effects, Event, LoadedSnapshot, Node, NodeConfig, Now, SnapshotJob, SnapshotLoader,
};
use tholos_paxos::{AppendSeq, Index, Millis, Planted};
use tholos_ring::ShardId;
use tholos_wal::{
    Crash, Log, Lsn, MemDisk, OpenError, Options, SnapshotError, SnapshotName, SnapshotReader,
    SnapshotWriter, list_snapshots, remove_snapshots_below, remove_unfinished_snapshots,
};

use crate::random::Random;

/// Bytes of log after which a shard is snapshotted: small, so that it happens in every run.
const LOG_BYTES_MAX: u64 = 96 << 10;
/// Entries kept in memory per shard: small, so that lagging replicas need snapshots.
const ENTRY_CACHE_BYTES: usize = 4 << 10;
/// Chunks of snapshots and keys or sessions of one slice: small, so that each snapshot is many of them.
const SNAPSHOT_CHUNK_BYTES: usize = 512;
const SNAPSHOT_SLICE_ENTRIES: usize = 3;
/// Decided entries sent again under a new ballot: few, so that a replica that lacks more needs a snapshot.
const RESENT_BYTES_MAX: usize = 2 << 10;

/// A machine.
pub struct Host {
    /// Which node it is.
    pub id: NodeId,
    /// The running node; `None` while it is down.
    pub node: Option<Node>,
    disk: MemDisk,
    snapshot_disk: MemDisk,
    log: Option<Log<MemDisk>>,
    /// Counts starts, so that events of an earlier one are dropped.
    pub boot: u64,
    /// Appends that wait for the disk's next turn.
    waiting: VecDeque<Append>,
    /// The last append of the write under way.
    pub writing: Option<AppendSeq>,
    /// Work on snapshots that waits for its thread's next turn.
    snapshot_jobs: VecDeque<SnapshotJob>,
    /// Whether that thread is at work.
    pub snapshot_busy: bool,
    /// Unfinished files.
    writers: BTreeMap<SnapshotName, SnapshotWriter<MemDisk>>,
    /// Lsn of each append written, for releases.
    lsns: VecDeque<(AppendSeq, Lsn)>,
    /// Added to the true time, in milliseconds, for the wall clock.
    pub wall_offset_ms: i64,
    /// Until when the machine stands still, in microseconds of true time.
    pub paused_until: u64,
    /// Events that arrived while it stood still.
    pub stalled: Vec<Event>,
    /// How long a sync takes, in microseconds.
    pub sync_us: (u64, u64),
    /// How long a piece of work on a snapshot takes, in microseconds.
    pub snapshot_us: (u64, u64),
    planted: Planted,
}

impl Host {
    /// A machine with an empty disk, switched off.
    pub fn new(id: NodeId, planted: Planted) -> Host {
        Host {
            id,
            node: None,
            disk: MemDisk::new(),
            snapshot_disk: MemDisk::new(),
            log: None,
            boot: 0,
            waiting: VecDeque::new(),
            writing: None,
            snapshot_jobs: VecDeque::new(),
            snapshot_busy: false,
            writers: BTreeMap::new(),
            lsns: VecDeque::new(),
            wall_offset_ms: 0,
            paused_until: 0,
            stalled: Vec::new(),
            sync_us: (100, 400),
            snapshot_us: (50, 2_000),
            planted,
        }
    }

    /// This machine's clocks at a true time in microseconds.
    pub fn now(&self, true_us: u64) -> Now {
        let ms = true_us / 1000;
        let wall = 1_700_000_000_000_i64 + ms as i64 + self.wall_offset_ms;
        Now { mono: Millis(1_000_000 + ms), wall: Millis(wall as u64) }
    }

    /// Starts the node from its disk. `false`: the disk failed meanwhile.
    pub fn start(&mut self, map: &ClusterMap, true_us: u64, random: &mut Random, out: &mut Effects) -> bool {
        self.boot += 1;
        let mut config = NodeConfig::new(self.id, random.bits(), random.bits());
        config.group.planted = self.planted;
        config.entry_cache_bytes = ENTRY_CACHE_BYTES;
        config.log_bytes_max = LOG_BYTES_MAX;
        config.snapshot_chunk_bytes = SNAPSHOT_CHUNK_BYTES;
        config.snapshot_slice_entries = SNAPSHOT_SLICE_ENTRIES;
        config.group.resent_bytes_max = RESENT_BYTES_MAX;
        let mut node = Node::new(config, map.clone());
        if remove_unfinished_snapshots(&self.snapshot_disk).is_err() {
            return false;
        }
        let snapshots = self.snapshot_disk.clone();
        let mut load = |shard: ShardId, index: Index| load_snapshot(&snapshots, shard, index);
        let mut refused = None;
        let mut replaced_at = BTreeMap::new();
        let visit = |group: u32, lsn: Lsn, payload: &[u8]| {
            let record = tholos_wire::decode_record(Bytes::copy_from_slice(payload));
            let record = record.expect("the log gave back a damaged record");
            match node.recover_record(ShardId(group as u16), record, &mut load) {
                Ok(true) => _ = replaced_at.insert(group, lsn),
                Ok(false) => {}
                Err(reason) => refused = refused.take().or(Some(reason)),
            }
        };
        let (log, recovery) = match Log::open(self.disk.clone(), Options::small(), visit) {
            Ok(opened) => opened,
            Err(OpenError::Io { .. }) => return false,
            Err(error) => panic!("the log of {} must open: {error}", self.id),
        };
        assert_eq!(refused, None, "recovery of {}", self.id);
        let lost = |shard: ShardId| {
            let group = u32::from(shard.0);
            recovery.lost_records_of(group, replaced_at.get(&group).copied())
        };
        node.finish_recovery(lost).expect("recovery must be whole");
        self.log = Some(log);
        node.start(self.now(true_us), out);
        self.node = Some(node);
        true
    }

    /// Stops at once. What the disk had not synced is kept or lost as `crash` says.
    pub fn crash(&mut self, crash: Crash) {
        self.node = None;
        self.log = None;
        self.waiting.clear();
        self.writing = None;
        self.snapshot_jobs.clear();
        self.snapshot_busy = false;
        self.writers.clear();
        self.lsns.clear();
        self.stalled.clear();
        let other = match crash {
            Crash::Power(seed) => Crash::Power(seed ^ 0x5eed),
            kept => kept,
        };
        self.disk.crash(crash);
        self.snapshot_disk.crash(other);
    }

    /// The disk dies after so many more changes, as if power failed in the middle of a write.
    pub fn die_after(&self, changes: u64) {
        self.disk.die_after(Some(changes));
    }

    /// Takes appends in; `true`: the disk is idle and a write should begin.
    pub fn append(&mut self, appends: Vec<Append>) -> bool {
        self.waiting.extend(appends);
        self.writing.is_none() && !self.waiting.is_empty()
    }

    /// Writes everything that waits as one batch. `false`: the disk failed, the node must stop (R23).
    pub fn begin_write(&mut self) -> bool {
        let Some(log) = self.log.as_mut() else { return true };
        let appends: Vec<Append> = self.waiting.drain(..).collect();
        let Some(last) = appends.last().map(|append| append.seq) else { return true };
        let records: Vec<(u32, Vec<u8>)> = appends
            .iter()
            .map(|append| {
                let mut bytes = Vec::new();
                tholos_wire::encode_record(&append.record, &mut bytes);
                (u32::from(append.shard.0), bytes)
            })
            .collect();
        match log.append(&records) {
            Ok(lsn) => {
                self.lsns.push_back((last, lsn));
                self.writing = Some(last);
                true
            }
            Err(_) => false,
        }
    }

    /// Syncs. `Some`: everything up to this append is durable. `None`: the node must stop (R23).
    pub fn end_write(&mut self) -> Option<AppendSeq> {
        let seq = self.writing.take()?;
        self.log.as_mut()?.sync().ok()?;
        Some(seq)
    }

    /// Whether more waits to be written.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// States what is durable, as the driver does when idle.
    pub fn seal(&mut self) -> bool {
        self.writing.is_some() || self.log.as_mut().is_none_or(|log| log.seal().is_ok())
    }

    /// Gives up the log below an append.
    pub fn release(&mut self, before: AppendSeq) {
        let mut released = None;
        while let Some((_, lsn)) = self.lsns.front().filter(|(seq, _)| *seq < before).copied() {
            released = Some(lsn);
            self.lsns.pop_front();
        }
        if let (Some(lsn), Some(log)) = (released, self.log.as_mut()) {
            log.release(lsn);
        }
    }

    /// Takes work on snapshots in; `true`: their thread is idle and should begin.
    pub fn work(&mut self, jobs: Vec<SnapshotJob>) -> bool {
        self.snapshot_jobs.extend(jobs);
        !self.snapshot_busy && !self.snapshot_jobs.is_empty()
    }

    /// Does the next piece of work on snapshots. An error: the disk failed, and its power goes.
    pub fn next_work(&mut self) -> Result<Option<Event>, SnapshotError> {
        let Some(job) = self.snapshot_jobs.pop_front() else { return Ok(None) };
        Ok(match job {
            SnapshotJob::Begin { shard, index } => {
                let name = name(shard, index);
                self.writers.insert(name, SnapshotWriter::create(self.snapshot_disk.clone(), name)?);
                None
            }
            SnapshotJob::Write { shard, index, bytes, .. } => {
                let writer = self.writers.get_mut(&name(shard, index)).expect("it was begun");
                if !bytes.is_empty() {
                    writer.write_chunk(&bytes)?;
                }
                Some(Event::SnapshotWritten { shard, index })
            }
            SnapshotJob::Finish { shard, index } => {
                self.writers.remove(&name(shard, index)).expect("it was begun").finish()?;
                Some(Event::SnapshotSaved { shard, index })
            }
            SnapshotJob::Abandon { shard, index } => {
                if let Some(writer) = self.writers.remove(&name(shard, index)) {
                    writer.abandon()?;
                }
                None
            }
            SnapshotJob::RemoveBelow { shard, index } => {
                // One that stays costs room, nothing else.
                let _ = remove_snapshots_below(&self.snapshot_disk, u32::from(shard.0), index.0);
                None
            }
            SnapshotJob::Drop(discarded) => {
                drop(discarded);
                None
            }
        })
    }

    /// Snapshot files on the disk.
    pub fn snapshot_count(&self) -> usize {
        list_snapshots(&self.snapshot_disk).map_or(0, |names| names.len())
    }
}

fn name(shard: ShardId, index: Index) -> SnapshotName {
    SnapshotName { shard: u32::from(shard.0), index: index.0 }
}

fn load_snapshot(disk: &MemDisk, shard: ShardId, index: Index) -> Option<LoadedSnapshot> {
    let mut reader = SnapshotReader::open(disk.clone(), name(shard, index)).ok()?;
    let mut loader = SnapshotLoader::new();
    // One that is damaged is as good as none (R20).
    while let Some(chunk) = reader.next_chunk().ok()? {
        loader.push(&chunk).expect("a verified chunk can be read");
    }
    Some(loader.finish().expect("a finished snapshot is whole"))
}
