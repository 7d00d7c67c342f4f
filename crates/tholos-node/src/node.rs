//! The node: every shard it holds a replica of, its gateway, and what it knows of its peers.
//!
//! One owner, one thread of control: the driver hands in events and carries out effects.

mod peers;
mod requests;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use tholos_cluster::{ClusterMap, NodeId, NodeRow};
use tholos_paxos::{AppendSeq, Index, Millis, Outbox, Record, RoleChange};
use tholos_ring::ShardId;

use crate::appends::Appends;
use crate::config::NodeConfig;
use crate::counted::{Bar, CountedOf, Ledger};
use crate::detector::{Detector, node_of};
use crate::event::{Append, Effects, Event, LogRoom, Loss, Notice, Now, SnapshotJob};
use crate::gateway::{Gateway, Settings, View};
use crate::hints::Hints;
use crate::hot::HotKeys;
use crate::leased::{AskedRead, LeasedRead};
use crate::load::QueueMeter;
use crate::meta::{Meta, Room};
use crate::peer::PeerMessage;
use crate::prefetch;
use crate::reading::Reading;
use crate::replica_reads::ReplicaReads;
use crate::replicas::{begins_as, founding_shard, shard_under};
use crate::shard::{Answers, Origin, Shard, Unfit, mix};
use crate::snapshot::{LoadedSnapshot, Transfers};
use crate::steering::Steering;
use crate::ticks::Restless;

/// How often the totals of memory are taken.
const MEMORY_INTERVAL: Millis = Millis(100);

/// What the replicas of a node have answered since it began, for metrics; those that it holds no more included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Writes of sessions to shards that were applied before and got their kept reply again (R18).
    pub writes_repeated: u64,
    /// Reads answered by leases.
    pub reads_by_lease: u64,
    /// Of these, those whose answer came too late and that were asked again by a round (R13).
    pub reads_late: u64,
    /// Reads answered by replicas while another led.
    pub reads_as_replica: u64,
    /// Of these, those that were answered at once, within the age that their clients allow.
    pub reads_stale: u64,
}

/// The core of one node.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    /// The newest map, and the meta group that decides it.
    pub(crate) meta: Meta,
    pub(crate) shards: Vec<Option<Shard>>,
    pub(crate) hints: Hints,
    pub(crate) detector: Detector,
    pub(crate) gateway: Gateway,
    pub(crate) transfers: Transfers,
    pub(crate) ledger: Ledger,
    /// The append after which everything lost is owned up to, and what had been counted (R21).
    pub(crate) owning_up: Option<(AppendSeq, u64)>,
    pub(crate) bar: Bar,
    /// Shards of which the log had records and, so far, no beginning; empty once the node runs.
    strays: Vec<ShardId>,
    pub(crate) outbox: Outbox,
    pub(crate) answers: Answers,
    /// Reads of this round that leases may answer.
    pub(crate) lease_asked: Vec<AskedRead>,
    /// Answers that wait for another look at the clock (R13).
    pub(crate) leased: Vec<LeasedRead>,
    pub(crate) replica_reads: ReplicaReads,
    pub(crate) queue: QueueMeter,
    pub(crate) reading: Reading,
    pub(crate) hot: HotKeys,
    pub(crate) served: Served,
    /// Shards with something to propose, send or apply.
    dirty: Vec<ShardId>,
    pub(crate) restless: Restless,
    pub(crate) appends: Appends,
    chance: u64,
    now: Now,
    last_heartbeat: Option<Millis>,
    last_memory: Millis,
    pub(crate) steering: Steering,
    pub(crate) log_room: LogRoom,
    /// Shards whose writes wait until the log has room, and since when.
    pub(crate) held: BTreeMap<ShardId, Millis>,
    pub(crate) room: Room,
    /// It was told to restart, and does.
    pub(crate) restarting: bool,
    pub(crate) memory_used: u64,
}

impl Node {
    /// A node of the cluster of `map`, empty: give it what its disk holds, then start it.
    pub fn new(config: NodeConfig, map: ClusterMap) -> Node {
        let me = config.me;
        let others = map.nodes.iter().map(|row| row.id).filter(|id| *id != me);
        let ledger = Ledger::new(config.boot, others.clone());
        let detector = Detector::new(me, others, config.election_timeout);
        let hot = HotKeys::new(mix(config.seed, 1));
        let meta = Meta::new(&config, map);
        // The meta group stands behind the shards.
        let groups = meta.group().0 + 1;
        let shards = (0..groups).map(|group| founding_shard(&config, &meta, ShardId(group))).collect();
        let settings = Settings {
            requirepass: config.requirepass.clone(),
            maxmemory: config.maxmemory,
            maxclients: config.maxclients,
            replica_read_staleness: config.replica_read_staleness,
        };
        let session_seed = mix(config.boot, config.seed);
        Node {
            gateway: Gateway::new(me, config.boot, session_seed, config.request_timeout, settings),
            hints: Hints::new(groups),
            transfers: Transfers::new(groups, &config),
            ledger,
            owning_up: None,
            bar: Bar::Open,
            strays: Vec::new(),
            chance: config.seed,
            detector,
            shards,
            meta,
            config,
            outbox: Outbox::default(),
            answers: Vec::new(),
            lease_asked: Vec::new(),
            leased: Vec::new(),
            replica_reads: ReplicaReads::default(),
            queue: QueueMeter::default(),
            reading: Reading::default(),
            hot,
            served: Served::default(),
            dirty: Vec::new(),
            restless: Restless::default(),
            appends: Appends::default(),
            now: Now::default(),
            last_heartbeat: None,
            last_memory: Millis(0),
            steering: Steering::default(),
            log_room: LogRoom::Ample,
            held: BTreeMap::new(),
            room: Room::default(),
            restarting: false,
            memory_used: 0,
        }
    }

    /// Takes back one record of the log, in the log's order. `load` reads the durable snapshot
    /// that a record names, or gives `None` if there is no whole file of it: then the records before
    /// have all that it would hold, or a later one must name another, or the replica is mute. Returns
    /// whether nothing of this shard before it matters any more. An error says why the node must not start
    /// from this log.
    pub fn recover_record(
        &mut self,
        shard: ShardId,
        record: Record,
        load: &mut dyn FnMut(ShardId, Index) -> Option<LoadedSnapshot>,
    ) -> Result<bool, String> {
        let (id, bytes) = (shard, crate::snapshot::cost_of(&record));
        let cache_bytes = self.config.entry_cache_bytes;
        if let Some(place) = self.shards.get_mut(usize::from(shard.0)) {
            let held = place.as_ref().map(|shard| shard.group.me());
            let begins =
                begins_as(&record).filter(|me| held != Some(*me) || matches!(record, Record::Joined { .. }));
            // Everything before these is void, the applied state too.
            let anew = begins.or(held.filter(|_| record == (Record::Muted { until: None })));
            if let Some(me) = anew {
                *place = shard_under(&self.config, &self.meta, shard, me);
                self.strays.retain(|stray| *stray != shard);
            }
        }
        let (replaces_all, voids_all) = (record.replaces_all(), record.voids_all());
        let is_mute = matches!(record, Record::Muted { .. });
        let Some(shard) = self.shards.get_mut(usize::from(shard.0)).and_then(Option::as_mut) else {
            // The log is released in batches, so there may be some before the checkpoint of one that has joined; or they
            // are what a replica has left that was dropped (N2).
            let dropped = self.meta.state().config(shard).is_some_and(|config| config.number > 0);
            self.strays.extend(Some(shard).filter(|_| !dropped));
            if is_mute && dropped && self.bar == Bar::Open {
                // C4: one that had lost its records was here.
                self.bar = Bar::Closed;
            }
            return Ok(false);
        };
        let mut known = false;
        if let Record::Checkpoint(checkpoint) = &record {
            // Its file may not have been finished; with all records before it none is needed.
            known = shard.unfit().is_none() && shard.group.recover_known(checkpoint);
            if !known {
                crate::snapshot::recover(shard, checkpoint.snapshot, load)?;
            }
        }
        self.transfers.recovered(id, bytes, replaces_all && !known);
        if shard.unfit().is_some() {
            return Ok(false);
        }
        if !known && let Err(reason) = shard.group.recover(record) {
            let reason = alloc::format!("{}: the log holds {reason}", shard.id);
            shard.set_unfit(Some(Unfit::Records(reason)));
            return Ok(false);
        }
        // Nobody waits for these.
        let repeated = shard.apply_decided(&mut Vec::new());
        shard.follow_config();
        self.transfers.trim(shard, cache_bytes);
        self.note_repeated(id, repeated);
        Ok(voids_all)
    }

    /// Whether what was taken back is whole: called once after the last record. `lost_records` says of which shards
    /// durable records cannot be read. A replica that has lost some, or its snapshot, is mute from the start (R20); any
    /// other that does not make a state is one that this release cannot run, and the error says why.
    pub fn finish_recovery(&mut self, lost_records: impl Fn(ShardId) -> bool) -> Result<(), String> {
        if let Some(stray) = self.strays.first() {
            return Err(alloc::format!("the log has records of {stray}, which this node does not hold"));
        }
        self.drop_recovered_retired();
        for at in 0..self.shards.len() {
            let Some(shard) = self.shards[at].as_mut() else {
                if lost_records(ShardId(at as u16)) && self.bar == Bar::Open {
                    // C4: what is lost may say that a replica had joined.
                    self.bar = Bar::Closed;
                }
                continue;
            };
            let id = shard.id;
            let loss = match (shard.unfit(), lost_records(id)) {
                (_, true) => Loss::Log,
                (Some(Unfit::Snapshot(_)), false) => Loss::Snapshot,
                (Some(Unfit::Records(reason)), false) => return Err(reason.clone()),
                (None, false) if shard.group.repair().is_some() => {
                    shard.loss = Some(Loss::Before);
                    continue;
                }
                (None, false) => continue,
            };
            let me = shard.group.me();
            self.shards[at] = shard_under(&self.config, &self.meta, id, me).map(|mut shard| {
                shard.loss = Some(loss);
                shard
            });
        }
        Ok(())
    }

    /// Says where the log ended, and what was counted of the other nodes' logs in earlier boots (R21). Called before
    /// the start.
    pub fn recover_counted(
        &mut self,
        recovered_lsn: u64,
        others: impl IntoIterator<Item = (NodeId, CountedOf)>,
    ) {
        self.ledger.set_recovered(recovered_lsn);
        for (node, counted) in others {
            self.ledger.set_counted(node, counted);
        }
    }

    /// What is counted of the other nodes' logs: kept by the driver now and then, for [`Node::recover_counted`].
    pub fn counted(&self) -> impl Iterator<Item = (NodeId, CountedOf)> {
        self.ledger.counted()
    }

    /// Begins. Everything recovered is durable.
    pub fn start(&mut self, now: Now, out: &mut Effects) {
        self.set_now(now);
        for at in 0..self.shards.len() {
            let nonce = next_chance(&mut self.chance);
            let Some(shard) = self.shards[at].as_mut() else { continue };
            shard.group.begin(nonce);
            shard.group.remember_grants(now.mono);
            let Some(loss) = shard.loss else { continue };
            if loss != Loss::Before {
                shard.group.lose(nonce, &mut self.outbox);
            }
            let id = shard.id;
            out.notices.push(Notice::ReplicaMuted { shard: id, loss });
            self.collect(id, out);
        }
        if self.bar == Bar::Closed {
            self.bar(out);
        }
        self.remove_left_files(out);
        self.follow_meta(out);
        self.stand_in_for_all(out);
        self.handle(now, Event::Tick, out);
    }

    /// Takes in one event. The effects of several events come together with
    /// [`Node::flush`], which the driver calls when no event waits.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Effects) {
        self.set_now(now);
        match event {
            Event::Tick => {
                self.queue.came(1);
                self.handle_tick(out);
            }
            Event::Durable { seq } => self.handle_durable(seq, out),
            Event::DurableLsn { lsn, kept_bytes } => {
                self.ledger.set_durable(lsn);
                self.transfers.log_keeps(kept_bytes);
            }
            Event::Peer { from, message } => {
                self.queue.came(1);
                self.handle_peer(from, message, out);
            }
            Event::Commands { client, commands } => {
                self.queue.came(commands.len());
                let (gateway, view) = self.gateway_and_view();
                gateway.commands(client, commands, &view);
            }
            Event::Connected { client, port, remote, local, loopback } => {
                self.gateway.connected(client, port, remote, local, loopback, now.mono);
            }
            Event::Malformed { client, text } => {
                let (gateway, view) = self.gateway_and_view();
                gateway.malformed(client, text, &view);
            }
            Event::Disconnected { client } => {
                for (id, request) in self.gateway.disconnected(client) {
                    if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
                        shard.forget_wait(&Origin {
                            node: None,
                            relay: None,
                            boot: self.gateway.boot(),
                            request,
                        });
                    }
                }
            }
            Event::PeerUp { node, incarnation } => {
                // A directory made anew cannot have the cluster's id, so this one is a copy or a restored backup.
                let is_known = self.meta.map().node(node).is_some_and(|row| row.incarnation == incarnation);
                self.detector.set_stranger(node, !is_known);
                if is_known {
                    self.detector.heard(node);
                    self.tell_counted(node, out);
                } else {
                    out.notices.push(Notice::OtherIncarnation { node });
                }
            }
            Event::PeerDown { node } => {
                self.detector.disconnected(node);
                self.gateway.peer_down(node, self.now.mono);
            }
            Event::SnapshotWritten { shard, index } => self.handle_snapshot_written(shard, index, out),
            Event::SnapshotSaved { shard, index } => self.handle_snapshot_saved(shard, index, out),
            Event::SnapshotFailed { shard, index } => self.handle_snapshot_failed(shard, index),
            Event::SnapshotRead(read) => self.handle_snapshot_read(read, out),
            Event::SnapshotUnreadable { shard, index } => self.transfers.handle_unreadable(shard, index),
            Event::SnapshotTaken { shard, file, chunk } => {
                self.transfers.handle_taken(shard, file, chunk, now.mono, out);
            }
            Event::SnapshotLoaded { shard, file, snapshot } => {
                self.handle_snapshot_loaded(shard, file, *snapshot, out);
            }
            Event::SnapshotRefused { shard, file } => self.handle_snapshot_refused(shard, file, out),
            Event::Load(sample) => self.handle_load(&sample, out),
            Event::Round(round) => self.note_round(round),
            Event::Resign => self.steering.resign(),
            Event::ChangeReplicas(order) => self.handle_order(&order, out),
            Event::BarKept => self.handle_bar_kept(),
            Event::MapKept { epoch } => self.handle_map_kept(epoch, out),
            Event::AskMeta { asker, command } => self.ask_meta(asker, &command, out),
            Event::LogRoom(room) => self.log_room = room,
            Event::Room { disk_free, memory_free } => self.room = Room { disk_free, memory_free },
        }
        self.settle(out);
    }

    /// Proposes, sends and answers what has gathered. Called once when no event waits.
    pub fn flush(&mut self, now: Now, out: &mut Effects) {
        self.set_now(now);
        self.gateway.route_woken();
        self.settle(out);
        prefetch::reads(&mut self.shards, &self.dirty);
        // Shards whose windows are full: their batches wait for what is under way.
        let mut waiting = Vec::new();
        // An answer may have let a client's next command start, and with it a shard's next work: all of it goes
        // out now, or it would wait for the next event. Each turn completes commands that clients had sent before.
        while !(self.dirty.is_empty() && self.lease_asked.is_empty()) {
            self.answer_leased();
            for id in core::mem::take(&mut self.dirty) {
                self.flush_shard(id, out);
                if self.shards[usize::from(id.0)].as_ref().is_some_and(Shard::has_batches) {
                    waiting.push(id);
                }
            }
            self.settle(out);
        }
        for id in waiting {
            self.mark_dirty(id);
        }
        self.ask_leaders(out);
        self.tell_queue(out);
        for (client, bytes, completed) in self.gateway.take_replies() {
            out.replies.push((client, bytes));
            out.completed.push((client, completed));
        }
        out.closes.extend(self.gateway.take_closes());
    }

    fn flush_shard(&mut self, id: ShardId, out: &mut Effects) {
        let now = self.now.mono;
        let has_batches = self.shard(id).is_some_and(Shard::has_batches);
        if !has_batches && !self.held.is_empty() {
            self.held.remove(&id);
        }
        let proposes = has_batches && !self.holds_back(id);
        let mut chance = self.chance;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        shard.dirty = false;
        if proposes {
            let time = self.detector.shard_time(&shard.voters);
            shard.propose(time, || next_chance(&mut chance), &mut self.outbox);
        }
        shard.group.flush(now, &mut self.outbox);
        if let Some(discarded) = shard.keyspace.take_discarded() {
            out.snapshots.push(SnapshotJob::Drop(discarded.into()));
        }
        self.chance = chance;
        self.collect(id, out);
    }

    fn set_now(&mut self, now: Now) {
        self.now = now;
        self.detector.set_now(now, self.appends.stall(now.mono));
    }

    pub(crate) fn fresh_chance(&mut self) -> u64 {
        next_chance(&mut self.chance)
    }

    pub(crate) fn time(&self) -> Now {
        self.now
    }

    /// Who leads a group, as far as is known here.
    pub(crate) fn leader_of(&mut self, group: ShardId) -> Option<NodeId> {
        self.gateway_and_view().1.leader(group).map(|(leader, _)| leader)
    }

    pub(crate) fn shard_time(&self, shard: ShardId) -> Millis {
        self.detector.shard_time(self.replica_nodes(shard))
    }

    pub(crate) fn gateway_and_view(&mut self) -> (&mut Gateway, View<'_>) {
        let view = View {
            config: &self.config,
            map: self.meta.map(),
            shards: &self.shards,
            hints: &self.hints,
            detector: &self.detector,
            load: &self.steering.load,
            now: self.now,
            memory_full: self.own_memory_full(),
            memory_used: self.memory_used,
            seed: next_chance(&mut self.chance),
        };
        (&mut self.gateway, view)
    }

    pub(crate) fn mark_dirty(&mut self, id: ShardId) {
        if let Some(shard) = self.shards[usize::from(id.0)].as_mut()
            && !shard.dirty
        {
            shard.dirty = true;
            self.dirty.push(id);
        }
        self.mark_restless(id);
    }

    /// Moves what a group asked for to the effects, then applies and answers.
    pub(crate) fn collect(&mut self, id: ShardId, out: &mut Effects) {
        let at = usize::from(id.0);
        let Some(from) = self.shards[at].as_ref().map(|shard| shard.group.me().serial()) else { return };
        self.mark_restless(id);
        let first = self.outbox.last_seq().0 + 1 - self.outbox.appends.len() as u64;
        for (offset, record) in self.outbox.appends.drain(..).enumerate() {
            let seq = AppendSeq(first + offset as u64);
            self.appends.note(seq, id, crate::snapshot::cost_of(&record), self.now.mono);
            self.transfers.appended(id, seq, &record);
            out.appends.push(Append { seq, shard: id, record });
        }
        self.meta.mover.count_entries(id, &self.outbox.sends);
        for (to, message) in self.outbox.sends.drain(..) {
            out.sends.push((node_of(to), PeerMessage::Paxos { shard: id, from, to: to.serial(), message }));
        }
        let changes = core::mem::take(&mut self.outbox.changes);
        for change in changes {
            self.handle_role_change(id, change, out);
        }
        let wanted = core::mem::take(&mut self.outbox.snapshots_wanted);
        for replica in wanted {
            self.send_snapshot(id, node_of(replica), out);
        }
        for asked in core::mem::take(&mut self.outbox.renewals_wanted) {
            self.renew(id, asked, out);
        }
        self.apply(id);
        self.answer_replica_reads(id);
        self.answer_digest(id, out);
        self.note_replicas(id, out);
        if id == self.meta.group() {
            self.follow_meta(out);
        }
        if let Some(shard) = self.shards[at].as_mut().filter(|shard| shard.loss.is_some())
            && shard.group.repair().is_none()
        {
            shard.loss = None;
            out.notices.push(Notice::ReplicaRepaired { shard: id });
        }
        // Answering a read may have proposed a Tick.
        if !self.outbox.appends.is_empty() {
            self.mark_dirty(id);
            self.collect(id, out);
        }
    }

    pub(crate) fn apply(&mut self, id: ShardId) {
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let repeated = shard.apply_decided(&mut self.answers);
        if shard.waits_for_a_tick() || !self.outbox.reads_ready.is_empty() {
            let time = self.detector.shard_time(&shard.voters);
            let ready = core::mem::take(&mut self.outbox.reads_ready);
            let chance = &mut self.chance;
            let seed = || next_chance(chance);
            shard.answer_reads(ready.into_iter(), time, seed, &mut self.outbox, &mut self.answers);
        }
        let failed = core::mem::take(&mut self.outbox.reads_failed);
        shard.fail_reads(failed.into_iter(), &mut self.answers);
        if shard.has_durable_waits() {
            shard.answer_durable_waits(self.now.mono, &mut self.answers);
        }
        self.transfers.trim(shard, self.config.entry_cache_bytes);
        self.note_repeated(id, repeated);
    }

    fn note_repeated(&mut self, id: ShardId, writes: u64) {
        // What is told is of clients' writes.
        if id != self.meta.group() {
            self.served.writes_repeated += writes;
        }
    }

    fn handle_role_change(&mut self, id: ShardId, change: RoleChange, out: &mut Effects) {
        self.steering.leads_changed();
        match change {
            RoleChange::Elected(_) => {}
            RoleChange::Serving(ballot) => out.notices.push(Notice::LeaderElected { shard: id, ballot }),
            RoleChange::Stopped(ballot) => {
                if let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
                    // What is decided is applied first: its waiters have a true answer.
                    let repeated = shard.apply_decided(&mut self.answers);
                    shard.stop_leading(&mut self.answers);
                    self.note_repeated(id, repeated);
                }
                self.meta.mover.stopped_leading(id);
                out.notices.push(Notice::LeaderStoppedLeading { shard: id, ballot });
            }
        }
    }

    /// Routes requests and delivers answers until there are none.
    fn settle(&mut self, out: &mut Effects) {
        loop {
            let requests = self.gateway.take_outgoing();
            for request in requests.iter().copied() {
                self.route(request, out);
            }
            if requests.is_empty() && self.answers.is_empty() {
                return;
            }
            let mut answers = core::mem::take(&mut self.answers);
            for (origin, outcome) in answers.drain(..) {
                self.answer(origin, outcome, out);
            }
            // The list's memory serves the next answers.
            answers.append(&mut self.answers);
            self.answers = answers;
        }
    }

    fn handle_durable(&mut self, seq: AppendSeq, out: &mut Effects) {
        let settled = self.appends.settle(seq);
        prefetch::writes(&mut self.shards, &settled);
        for id in settled {
            let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { continue };
            shard.group.handle_durable(seq, self.now.mono, &mut self.outbox);
            self.mark_dirty(id);
            self.collect(id, out);
        }
        self.settle_checkpoints(out);
        self.own_up();
    }

    fn handle_tick(&mut self, out: &mut Effects) {
        let now = self.now.mono;
        // The others judge who may lead by what this node hears: they are told at once when that has changed (R9).
        let is_due = self.last_heartbeat.is_none_or(|last| now.since(last) >= self.config.heartbeat_interval);
        if self.note_connectivity(out) || is_due {
            self.send_heartbeats(now, out);
        }
        if now.since(self.last_memory) >= MEMORY_INTERVAL && self.restless.take_moved() {
            self.last_memory = now;
            self.take_memory();
        }
        self.tick_shards(now, out);
        self.steer(out);
        self.tick_meta(out);
        self.tick_transfers(out);
        self.tick_replica_reads();
        self.tick_hot();
        self.start_checkpoint(out);
        let runs = self.meta.state().jobs.iter().rev().find(|job| !job.state.is_finished());
        self.gateway.job_writes.follow(runs.map(|job| job.id));
        let (gateway, view) = self.gateway_and_view();
        gateway.tick(now, &view);
    }

    pub(crate) fn own_memory_full(&self) -> bool {
        self.gateway.settings.maxmemory > 0 && self.memory_used > self.gateway.settings.maxmemory
    }

    fn take_memory(&mut self) {
        let used = |shard: &Shard| (shard.keyspace.used_bytes() + shard.sessions.bytes()) as u64;
        self.memory_used = self.shards.iter().flatten().map(used).sum();
    }

    /// Whether no shard is led here: after [`Event::Resign`] the node may stop.
    pub fn leads_nothing(&self) -> bool {
        self.shards.iter().flatten().all(|shard| shard.group.leading().is_none())
    }

    /// The cluster map.
    pub fn map(&self) -> &ClusterMap {
        self.meta.map()
    }

    /// What it was started with.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// This node in the map; `None` once it has left.
    pub fn own_row(&self) -> Option<&NodeRow> {
        self.meta.map().node(self.config.me)
    }

    /// What its replicas have answered.
    pub fn served(&self) -> Served {
        self.served
    }

    /// This node's replica of a shard, if it holds one.
    pub fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards.get(usize::from(shard.0))?.as_ref()
    }

    /// The gateway's connections and counters.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Whether the driver has said that the log has no room.
    pub fn disk_is_full(&self) -> bool {
        self.log_room != LogRoom::Ample
    }

    /// Who is heard.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }
}

/// Steps the node's chance (SplitMix64).
fn next_chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mix(*state, 0)
}
