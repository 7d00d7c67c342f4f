//! One simulated machine: a node core, its disk, its clock, and the driver's duties done the
//! way the real driver does them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tholos_cluster::{ClusterMap, NodeId};
use tholos_node::{Append, Effects, Event, Node, NodeConfig, Now};
use tholos_paxos::{AppendSeq, Index, Millis, Planted};
use tholos_ring::ShardId;
use tholos_wal::{Crash, Log, Lsn, MemDisk, OpenError, Options};

use crate::random::Random;
use crate::snapshots::{self, Snapshots};

/// Bytes of log after which a shard is snapshotted: small, so that it happens in every run.
const LOG_BYTES_MAX: u64 = 96 << 10;
/// Entries kept in memory per shard: small, so that lagging replicas need snapshots.
const ENTRY_CACHE_BYTES: usize = 1 << 10;
/// Chunks of snapshots and keys or sessions of one slice: small, so that each snapshot is many of them.
const SNAPSHOT_CHUNK_BYTES: usize = 128;
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
    /// Its snapshot files, on a disk of their own.
    pub snapshots: Snapshots,
    log: Option<Log<MemDisk>>,
    /// Counts starts, so that events of an earlier one are dropped.
    pub boot: u64,
    /// Appends that wait for the disk's next turn.
    waiting: VecDeque<Append>,
    /// The last append of the write under way.
    pub writing: Option<AppendSeq>,
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
    planted: Planted,
}

impl Host {
    /// A machine with an empty disk, switched off.
    pub fn new(id: NodeId, planted: Planted) -> Host {
        Host {
            id,
            node: None,
            disk: MemDisk::new(),
            snapshots: Snapshots::default(),
            log: None,
            boot: 0,
            waiting: VecDeque::new(),
            writing: None,
            lsns: VecDeque::new(),
            wall_offset_ms: 0,
            paused_until: 0,
            stalled: Vec::new(),
            sync_us: (100, 400),
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
        if !self.snapshots.start() {
            return false;
        }
        let snapshots = self.snapshots.disk.clone();
        let mut load = |shard: ShardId, index: Index| snapshots::load(&snapshots, shard, index);
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
        node.recover_counted(recovery.recovered_lsn.0, []);
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
        self.lsns.clear();
        self.stalled.clear();
        let other = match crash {
            Crash::Power(seed) => Crash::Power(seed ^ 0x5eed),
            kept => kept,
        };
        self.disk.crash(crash);
        self.snapshots.crash(other);
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

    /// Up to where the log is durable.
    pub fn durable_lsn(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.durable_lsn().0)
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

    /// Snapshot files on the disk.
    pub fn snapshot_count(&self) -> usize {
        self.snapshots.count()
    }
}
