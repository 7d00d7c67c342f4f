//! One simulated machine: a node core, its disk, its clock, and the driver's duties done the
//! way the real driver does them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tholos_cluster::{ClusterMap, MetaState, NodeId};
use tholos_node::{Append, CountedOf, Effects, Event, LogRoom, MoveReason, Node, NodeConfig, Now, Shard};
use tholos_paxos::{AppendSeq, Index, Millis, Options, Planted};
use tholos_ring::ShardId;
use tholos_wal::{
    Crash, LentSpare, Log, LogError, Lsn, MemDisk, NumberedLog, OpenError, Recovery, Room, Tail,
};

use crate::coverage::{Coverage, Reached};
use crate::durable::Durable;
use crate::planted;
use crate::random::Random;
use crate::snapshots::{self, Snapshots};

/// Bytes of log after which a shard is snapshotted: small, so that it happens in every run.
const LOG_BYTES_MAX: u64 = 96 << 10;
/// Entries kept in memory per shard: small, so that lagging replicas need snapshots.
const ENTRY_CACHE_BYTES: usize = 1 << 10;
/// Requests a second from which a shard may be hot: few, as clients here are.
const HOT_FROM_PER_SECOND: u64 = 5;
/// Chunks of snapshots and keys or sessions of one slice: small, so that each snapshot is many of them.
const SNAPSHOT_CHUNK_BYTES: usize = 128;
const SNAPSHOT_SLICE_ENTRIES: usize = 3;

/// A machine's disks as they once were.
struct Copied {
    log: MemDisk,
    snapshots: MemDisk,
    durable_lsn: u64,
    map: Option<MetaState>,
    barred: bool,
}

/// A machine.
pub struct Host {
    /// Which node it is.
    pub id: NodeId,
    /// The running node; `None` while it is down.
    pub node: Option<Node>,
    /// The disk of the log.
    pub disk: MemDisk,
    /// The snapshots, on a disk of their own.
    pub snapshots: Snapshots,
    log: Option<NumberedLog<MemDisk>>,
    /// How large the log may get.
    pub wal: tholos_wal::Options,
    /// The spare that is written beside the log.
    lent: Option<LentSpare<MemDisk>>,
    durable: Durable,
    /// Counts starts, so that events of an earlier one are dropped.
    pub boot: u64,
    /// Appends that wait for the disk's next turn.
    waiting: VecDeque<Append>,
    /// The last append of the write under way.
    pub writing: Option<AppendSeq>,
    /// What waits has found no room, and is to be tried again.
    pub waits_for_room: bool,
    /// Its log is beyond its limit.
    overdrawn: bool,
    /// Its disk is full, with so many bytes left and for so long, once its log is beyond its limit.
    pub fills_overdrawn: Option<(u64, u64)>,
    /// Added to the true time, in milliseconds, for the wall clock.
    pub wall_offset_ms: i64,
    /// By how much the other clock runs too fast, in millionths: up to 5 % either way is what leases allow for.
    pub clock_rate_ppm: i64,
    /// Until when the machine stands still, in microseconds of true time.
    pub paused_until: u64,
    /// It stands still for so long when it has next taken a client's commands and read its clock for them.
    pub pauses_in_the_middle: Option<u64>,
    /// When it last read its clock, if it stands still between that and what it read it for (R13).
    pub read_clock_at: Option<u64>,
    /// Until when its disk does.
    pub disk_stands_until: u64,
    /// Events that arrived while it stood still.
    pub stalled: Vec<Event>,
    /// How long a sync takes, in microseconds.
    pub sync_us: (u64, u64),
    /// How much longer its work takes than on a processor of its own, in percent.
    pub stretch: u64,
    /// Syncs that ended since its node was told of them, and how long they took.
    pub synced: (u32, u64),
    /// When the write under way began.
    pub write_began: u64,
    /// When its node was last told of its load.
    pub load_told_at: u64,
    /// The next write or sync fails: whether power then fails as well.
    pub failing: Option<(Reached, bool)>,
    /// It loses power in its next write of more than one sector.
    pub dies_in_long_write: bool,
    /// Bytes of the write under way, about.
    pub writing_bytes: usize,
    /// It is killed as soon as the next write is synced and told of.
    pub dies_after_sync: bool,
    /// Its disk has hurt what was durable: it may refuse to start, and then stays away.
    pub rotten: bool,
    /// The latest boot of each other machine that was heard.
    heard_boots: BTreeMap<usize, u64>,
    /// Put back at the next crash.
    copy: Option<Copied>,
    /// What this node has counted of the others' logs, as its driver keeps it (R21).
    counted: Vec<(NodeId, CountedOf)>,
    /// Whether its directory begins no replicas any more (R21).
    pub barred: bool,
    /// The map that it joined by, if it was not there at the founding.
    pub begun: Option<ClusterMap>,
    /// The newest map on its disk, if that has changed since the founding.
    pub map: Option<MetaState>,
    /// It has refused to start.
    pub retired: bool,
    /// It is lost for good, as far as the others are concerned.
    pub is_lost: bool,
    /// It is not to be started.
    pub is_off: bool,
    /// Where its node wants leaders to sit.
    pub leader_zones: Vec<String>,
    /// How much the records of a shard's sessions may take up.
    pub sessions_bytes_max: usize,
    /// What its node does by itself.
    pub by_itself: (Option<Millis>, bool),
    options: Options,
}

/// How a start went.
#[derive(Debug)]
pub enum Started {
    /// The node runs.
    Up,
    /// The disk failed meanwhile, or had no room: to be tried again.
    DiskFailed,
    /// The node refuses, or finds rot where there is none.
    Refused(String),
    /// It starts with less than was durable, without having lost the end of its log, and does not know: only R20 could save it.
    Forgot(String),
}

/// How a write began.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// There was nothing to write.
    Nothing,
    /// The disk has it.
    Writing,
    /// The log has no room: to be tried again.
    NoRoom,
    /// The disk failed: the node must stop (R23).
    Failed,
}

impl Host {
    /// A machine with an empty disk, switched off.
    pub fn new(id: NodeId, options: Options) -> Host {
        Host {
            id,
            node: None,
            disk: MemDisk::new(),
            snapshots: Snapshots::default(),
            log: None,
            wal: tholos_wal::Options {
                planted: planted::of_log(options.planted),
                ..tholos_wal::Options::small()
            },
            lent: None,
            durable: Durable::default(),
            boot: 0,
            waiting: VecDeque::new(),
            writing: None,
            waits_for_room: false,
            overdrawn: false,
            fills_overdrawn: None,
            wall_offset_ms: 0,
            clock_rate_ppm: 0,
            paused_until: 0,
            pauses_in_the_middle: None,
            read_clock_at: None,
            disk_stands_until: 0,
            stalled: Vec::new(),
            sync_us: (100, 400),
            stretch: 100,
            synced: (0, 0),
            write_began: 0,
            load_told_at: 0,
            failing: None,
            dies_in_long_write: false,
            writing_bytes: 0,
            dies_after_sync: false,
            rotten: false,
            heard_boots: BTreeMap::new(),
            copy: None,
            counted: Vec::new(),
            barred: false,
            begun: None,
            map: None,
            retired: false,
            is_lost: false,
            is_off: false,
            leader_zones: Vec::new(),
            sessions_bytes_max: usize::MAX,
            by_itself: (None, false),
            options,
        }
    }

    /// The same machine with an empty disk, as another node: one that has never voted (R21).
    pub fn wiped(&self, id: NodeId) -> Host {
        Host {
            boot: self.boot,
            wall_offset_ms: self.wall_offset_ms,
            clock_rate_ppm: self.clock_rate_ppm,
            sync_us: self.sync_us,
            wal: self.wal.clone(),
            leader_zones: self.leader_zones.clone(),
            sessions_bytes_max: self.sessions_bytes_max,
            by_itself: self.by_itself,
            ..Host::new(id, self.options)
        }
    }

    /// Whether something that a machine sent in a boot is heard: not once a later boot of it was.
    pub fn hears_boot(&mut self, machine: usize, boot: u64) -> bool {
        let latest = self.heard_boots.entry(machine).or_default();
        *latest = boot.max(*latest);
        *latest == boot
    }

    /// What is planted in its node.
    pub fn planted(&self) -> Planted {
        self.options.planted
    }

    /// This machine's clocks at a true time in microseconds.
    pub fn now(&self, true_us: u64) -> Now {
        let ms = true_us / 1000;
        let wall = 1_700_000_000_000_i64 + ms as i64 + self.wall_offset_ms;
        let own_us = true_us as i64 + true_us as i64 * self.clock_rate_ppm / 1_000_000;
        Now { mono: Millis(1_000_000 + own_us as u64 / 1000), wall: Millis(wall as u64) }
    }

    /// Starts the node from its disk.
    pub fn start(
        &mut self,
        map: &ClusterMap,
        true_us: u64,
        random: &mut Random,
        coverage: &mut Coverage,
        out: &mut Effects,
    ) -> Started {
        self.boot += 1;
        let mut config = NodeConfig::new(self.id, random.bits(), random.bits());
        config.group = self.options.into();
        (config.replace_after, config.auto_placement) = self.by_itself;
        config.leader_zones = self.leader_zones.clone();
        config.sessions_bytes_max = self.sessions_bytes_max;
        config.hot_from_per_second = HOT_FROM_PER_SECOND;
        config.entry_cache_bytes = ENTRY_CACHE_BYTES;
        config.log_bytes_max = LOG_BYTES_MAX.min(self.wal.snapshot_from_bytes());
        config.log_room_bytes = self.wal.writers_kept_bytes_max();
        config.snapshot_chunk_bytes = SNAPSHOT_CHUNK_BYTES;
        config.snapshot_slice_entries = SNAPSHOT_SLICE_ENTRIES;
        let mut node = Node::new(config, self.begun.as_ref().unwrap_or(map).clone());
        if let Some(newest) = &self.map {
            node.recover_map(newest.clone());
        }
        if self.barred {
            node.recover_barred();
        }
        if !self.snapshots.start() {
            return Started::DiskFailed;
        }
        let (log, recovery) = match self.recover(&mut node) {
            Ok(recovered) => recovered,
            Err(started) => return started,
        };
        if self.boot > 1 {
            coverage.count(Reached::Recovered);
        }
        if recovery.recovered_lsn > recovery.synced_to {
            coverage.count(Reached::TailRewritten);
        }
        if recovery.tail != Tail::Clean {
            coverage.count(Reached::TearDropped);
        }
        if recovery.unreadable {
            coverage.count(Reached::LogUnreadable);
        }
        if recovery.short_of_room {
            coverage.count(Reached::OpenedWithoutRoom);
        }
        node.recover_counted(recovery.recovered_lsn.0, self.counted.iter().copied());
        // Replicas that have lost records know it from here on (R20).
        node.start(self.now(true_us), out);
        let mute = shards(&node).filter(|shard| shard.group.repair().is_some()).count();
        coverage.add_to(Reached::RotFound, mute as u64);
        if mute > 0 && !self.rotten {
            return Started::Refused(format!("{mute} replicas have lost records of a disk that lost none"));
        }
        if let Err(text) = self.durable.check(&node) {
            // Its peers will notice that the log's end is gone (R21); what else is lost it must know itself (R20).
            match self.rotten && self.durable.went_back(recovery.recovered_lsn.0) {
                true => coverage.count(Reached::WentBack),
                false => return Started::Forgot(text),
            }
        }
        self.durable.recovered(&node, recovery.recovered_lsn.0);
        let log = NumberedLog::new(log);
        self.overdrawn = log.log.overdrawn_bytes() > 0;
        if self.overdrawn {
            coverage.count(Reached::OpenedOverdrawn);
        }
        self.log = Some(log);
        self.lent = None;
        self.node = Some(node);
        Started::Up
    }

    fn recover(&self, node: &mut Node) -> Result<(Log<MemDisk>, Recovery), Started> {
        let mut refused: Option<String> = None;
        let mut replaced_at = BTreeMap::new();
        let mut load = |shard: ShardId, index: Index| snapshots::load(&self.snapshots.disk, shard, index);
        let visit = |group: u32, lsn: Lsn, payload: &[u8]| {
            let record = tholos_wire::decode_record(Bytes::copy_from_slice(payload));
            let record = record.expect("the log gave back a damaged record");
            match node.recover_record(ShardId(group as u16), record, &mut load) {
                Ok(true) => _ = replaced_at.insert(group, lsn),
                Ok(false) => {}
                Err(reason) => refused = refused.take().or(Some(reason)),
            }
        };
        let (log, recovery) = match Log::open(self.disk.clone(), self.wal.clone(), visit) {
            Ok(opened) => opened,
            Err(OpenError::Io { .. } | OpenError::Full { .. }) => return Err(Started::DiskFailed),
            Err(error) => return Err(Started::Refused(error.to_string())),
        };
        let lost = |shard: ShardId| {
            let group = u32::from(shard.0);
            recovery.lost_records_of(group, replaced_at.get(&group).copied())
        };
        match refused.or(node.finish_recovery(lost).err()) {
            Some(reason) => Err(Started::Refused(reason)),
            None => Ok((log, recovery)),
        }
    }

    /// Stops at once. What the disk had not synced is kept or lost as `crash` says.
    pub fn crash(&mut self, crash: Crash) {
        if let Some(node) = self.node.take() {
            self.counted = node.counted().collect();
        }
        self.log = None;
        self.lent = None;
        self.waiting.clear();
        self.writing = None;
        self.waits_for_room = false;
        self.stalled.clear();
        self.read_clock_at = None;
        self.failing = None;
        self.dies_after_sync = false;
        self.dies_in_long_write = false;
        let other = match crash {
            Crash::Power(seed) => Crash::Power(seed ^ 0x5eed),
            kept => kept,
        };
        self.disk.crash(crash);
        self.snapshots.crash(other);
        if let Some(copy) = self.copy.take() {
            (self.disk, self.snapshots.disk) = (copy.log, copy.snapshots);
            (self.map, self.barred) = (copy.map, copy.barred);
        }
    }

    /// Where the log of the copy ends that is to be put back.
    pub fn copied_to(&self) -> Option<u64> {
        self.copy.as_ref().map(|copy| copy.durable_lsn)
    }

    /// The copy is not put back.
    pub fn drop_copy(&mut self) {
        self.copy = None;
    }

    /// How far this node has counted another's log, running or not.
    pub fn counted_of(&self, other: NodeId) -> u64 {
        let kept = || self.counted.clone();
        let counted: Vec<(NodeId, CountedOf)> =
            self.node.as_ref().map_or_else(kept, |node| node.counted().collect());
        counted.iter().find(|(node, _)| *node == other).map_or(0, |(_, counted)| counted.lsn)
    }

    /// What is durable now is what is there after the next crash.
    pub fn keep_copy(&mut self) {
        let (log, snapshots) = (self.disk.fork(), self.snapshots.disk.fork());
        log.crash(Crash::Power(0));
        snapshots.crash(Crash::Power(0));
        let (durable_lsn, map, barred) = (self.durable_lsn(), self.map.clone(), self.barred);
        self.copy = Some(Copied { log, snapshots, durable_lsn, map, barred });
    }

    /// Shards of which the running node's replicas have lost records and are not repaired.
    pub fn mute(&self) -> impl Iterator<Item = ShardId> {
        let mute = self.node.iter().flat_map(shards).filter(|shard| shard.group.repair().is_some());
        mute.map(|shard| shard.id)
    }

    /// Counts what only the running node's own counters tell.
    pub fn count(&self, coverage: &mut Coverage) {
        for given in self.node.iter().flat_map(Node::leader_moves) {
            match given.reason {
                MoveReason::SlowDisk => coverage.count(Reached::ShedForDisk),
                MoveReason::HotShard => coverage.count(Reached::ShedForHeat),
                MoveReason::SlowProcessor => coverage.count(Reached::ShedForProcessor),
                _ => {}
            }
        }
        for (kept, sent) in self.node.iter().map(Node::reads_sent) {
            coverage.add_to(Reached::ReadKeptForLeader, kept);
            coverage.add_to(Reached::ReadSentToReplica, sent);
        }
        for served in self.node.iter().map(Node::served) {
            // Retried writes that were found applied.
            coverage.add_to(Reached::Repeated, served.writes_repeated);
            coverage.add_to(Reached::ReadByLease, served.reads_by_lease);
            coverage.add_to(Reached::ReadAtReplica, served.reads_as_replica);
            coverage.add_to(Reached::ReadLate, served.reads_late);
            coverage.add_to(Reached::ReadStale, served.reads_stale);
        }
    }

    /// The disk fails no more, and has room.
    pub fn mend_disk(&mut self) {
        self.disk.set_capacity_bytes(None);
        self.disk.die_after(None);
        self.disk.fail_syncs(false);
        self.disk.fail_writes(false);
        self.failing = None;
        self.dies_in_long_write = false;
        self.fills_overdrawn = None;
    }

    /// Takes appends in; `true`: the disk is idle and a write should begin.
    pub fn append(&mut self, appends: Vec<Append>) -> bool {
        self.waiting.extend(appends);
        self.writing.is_none() && !self.waits_for_room && !self.waiting.is_empty()
    }

    /// Writes everything that waits as one batch.
    pub fn begin_write(&mut self) -> Begun {
        let (Some(log), Some(node)) = (self.log.as_mut(), self.node.as_ref()) else { return Begun::Nothing };
        let Some(last) = self.waiting.back().map(|append| append.seq) else { return Begun::Nothing };
        let records: Vec<(u32, Vec<u8>)> = self
            .waiting
            .iter()
            .map(|append| {
                let mut bytes = Vec::new();
                tholos_wire::encode_record(&append.record, &mut bytes);
                (u32::from(append.shard.0), bytes)
            })
            .collect();
        match log.append(last.0, &records) {
            Ok(_) => {
                self.waiting.clear();
                self.writing = Some(last);
                self.writing_bytes = records.iter().map(|(_, bytes)| bytes.len()).sum();
                self.durable.write(node);
                Begun::Writing
            }
            Err(LogError::Full { .. }) => Begun::NoRoom,
            Err(_) => {
                // Some of it may have reached the disk, and stay.
                self.durable.write(node);
                Begun::Failed
            }
        }
    }

    /// Syncs. `Some`: everything up to this append is durable. `None`: the node must stop (R23).
    pub fn end_write(&mut self) -> Option<AppendSeq> {
        let seq = self.writing.take()?;
        self.log.as_mut()?.log.sync().ok()?;
        self.durable.sync(self.durable_lsn());
        self.step_lent()?;
        Some(seq)
    }

    /// Does what a thread of the driver does, which writes spares of a busy log. `None`: the node must stop (R23).
    fn step_lent(&mut self) -> Option<()> {
        let log = &mut self.log.as_mut()?.log;
        match self.lent.take() {
            None => self.lent = log.lend_spare().ok()?,
            Some(mut spare) => {
                if spare.write() {
                    self.lent = Some(spare);
                } else if !matches!(log.take_spare_back(spare), Ok(()) | Err(LogError::Full { .. })) {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Up to where the log is durable.
    pub fn durable_lsn(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.log.durable_lsn().0)
    }

    /// Bytes of the full segments of its log that are not released.
    pub fn kept_bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.log.kept_bytes())
    }

    /// Whether more waits to be written.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// States what is durable and prepares a spare, as the driver does when idle. `false`: the node must stop (R23).
    pub fn tidy(&mut self) -> bool {
        if self.writing.is_some() {
            return true;
        }
        let Some(NumberedLog { log, .. }) = self.log.as_mut() else { return true };
        log.seal().is_ok() && matches!(log.prepare_spare(), Ok(_) | Err(LogError::Full { .. }))
    }

    /// What the node is to be told of the log's room, if that has changed.
    pub fn room_changed(&mut self) -> Option<Event> {
        Some(Event::LogRoom(match self.log.as_mut()?.room_changed()? {
            Room::Ample => LogRoom::Ample,
            Room::Short => LogRoom::Short,
            Room::Spent => LogRoom::Spent,
        }))
    }

    /// Whether clients' writes are refused for want of room.
    pub fn is_full(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.told() != Room::Ample)
    }

    /// How its log has got beyond its limit or back since it was asked last.
    pub fn overdraft_changed(&mut self) -> Option<Reached> {
        let overdrawn = self.is_overdrawn();
        let changed = std::mem::replace(&mut self.overdrawn, overdrawn) != overdrawn;
        changed.then_some(if overdrawn { Reached::Overdrawn } else { Reached::OverdraftRepaid })
    }

    /// Whether its log is beyond its limit.
    pub fn is_overdrawn(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.log.overdrawn_bytes() > 0)
    }

    /// Gives up the log below an append.
    pub fn release(&mut self, AppendSeq(before): AppendSeq) {
        if let Some(log) = self.log.as_mut() {
            log.release(before);
        }
    }
}

/// The replicas of a node.
fn shards(node: &Node) -> impl Iterator<Item = &Shard> {
    (0..=node.map().meta_group().0).filter_map(|shard| node.shard(ShardId(shard)))
}
