//! How the newest map gets to this node, to its disk, and to who is behind.
//!
//! Heartbeats carry the epoch; who is behind asks the sender for the whole.

use alloc::boxed::Box;

use tholos_cluster::{Epoch, Level, MetaCommand, MetaState, NodeId, NodeRow, RecoverOrder};
use tholos_paxos::{Millis, Planted};

use crate::event::{Effects, Notice};
use crate::meta::throttle::Throttle;
use crate::meta::{FOUNDED, store};
use crate::node::Node;
use crate::peer::PeerMessage;

/// A newer map is asked for again after this long.
const ASK_INTERVAL: Millis = Millis(200);

/// The copy of the map.
impl Node {
    /// The newest map that this node's disk has. Called once, before its records are taken back: replicas that are
    /// retired by it do not come back (N2).
    pub fn recover_map(&mut self, state: MetaState) {
        if state.epoch() < self.meta.state.epoch() {
            return;
        }
        // One of the same epoch says more than the map that a node joined by.
        self.meta.kept = state.epoch();
        self.take_over(state);
    }

    /// The newest map, and all that is decided with it.
    pub fn meta_state(&self) -> &MetaState {
        self.meta.state()
    }

    /// Takes over what the replica of the meta group here has applied, if it has more than was seen.
    pub(crate) fn follow_meta(&mut self, out: &mut Effects) {
        let Some(shard) = self.shard(self.meta.group()) else { return };
        let applied = shard.group.applied_index();
        if applied == self.meta.seen {
            return;
        }
        let decided = store::read(&shard.keyspace);
        self.meta.seen = applied;
        self.meta.decided = decided.as_ref().map_or(Epoch(0), MetaState::epoch);
        if let Some(state) = decided {
            self.adopt(state, out);
        }
    }

    /// N1.
    fn adopt(&mut self, state: MetaState, out: &mut Effects) {
        let is_newer = match self.config.group.planted {
            Planted::MapEpochIgnored => state.epoch() != self.meta.state.epoch(),
            _ => state.epoch() > self.meta.state.epoch(),
        };
        if !is_newer {
            return;
        }
        self.take_over(state);
        out.notices.push(Notice::MapChanged { epoch: self.meta.state.epoch() });
        out.map = Some(Box::new(self.meta.state.clone()));
    }

    fn take_over(&mut self, state: MetaState) {
        let me = self.config.me;
        self.steering.load.retain(|node| state.map.node(node).is_some());
        self.reading.retain(|node| state.map.node(node).is_some());
        // U3
        let others = state.map.nodes.iter().map(|row| row.id).filter(|id| *id != me && !state.is_gone(*id));
        self.detector.set_others(others);
        self.meta.voters = state.voters(state.map.meta_group()).collect();
        self.meta.throttle = Throttle::of(&state);
        self.meta.state = state;
    }

    /// The driver has made the map of this epoch durable, and reaches the nodes that are in it.
    pub(crate) fn handle_map_kept(&mut self, epoch: Epoch, out: &mut Effects) {
        self.meta.kept = self.meta.kept.max(epoch);
        self.stand_in_for_all(out);
        // Replicas may be retired with it.
        self.restless.sweep_soon();
    }

    /// A peer's map is of this epoch.
    pub(crate) fn note_epoch(&mut self, from: NodeId, epoch: Epoch, out: &mut Effects) {
        let now = self.time().mono;
        let waits = self.meta.asked_at.is_some_and(|at| now.since(at) < ASK_INTERVAL);
        if epoch > self.meta.state.epoch() && !waits {
            self.meta.asked_at = Some(now);
            out.sends.push((from, PeerMessage::MapWanted { have: self.meta.state.epoch() }));
        }
    }

    /// A peer is behind.
    pub(crate) fn handle_map_wanted(&mut self, from: NodeId, have: Epoch, out: &mut Effects) {
        if have < self.meta.state.epoch() {
            out.sends.push((from, PeerMessage::Map(self.meta.state.encode().into())));
        }
    }

    /// A peer's map, which was asked for.
    pub(crate) fn handle_map(&mut self, from: NodeId, bytes: &[u8], out: &mut Effects) {
        self.meta.asked_at = None;
        match MetaState::decode(bytes) {
            Ok(state) if state.map.cluster_id == self.meta.map().cluster_id => self.adopt(state, out),
            _ => {
                let reason = "a map that cannot be read, or of another cluster";
                out.notices.push(Notice::MessageDropped { node: from, reason });
            }
        }
    }

    /// What the meta group needs of time.
    pub(crate) fn tick_meta(&mut self, out: &mut Effects) {
        self.found_meta(out);
        self.announce_addresses();
        self.announce_level();
        self.drive_job(out);
        self.drive_automatic(out);
        self.drive_roll(out);
        self.rescue_meta(out);
        self.drive_recovery(out);
        self.send_requests(out);
    }

    /// Who leads a meta group that has decided nothing gives it the map that the cluster was founded with; or, after a recovery,
    /// the newest that was left.
    fn found_meta(&mut self, out: &mut Effects) {
        let Some(shard) = self.shard(self.meta.group()).filter(|shard| shard.group.serving()) else { return };
        // Each tick of a cluster that has not changed: the leader alone looks, and it decodes nothing.
        let state = &self.meta.state;
        if state.epoch() == FOUNDED && !store::is_there(&shard.keyspace) {
            self.propose_meta(&MetaCommand::Found(state.map.clone()));
        } else if self.meta_lacks(state.epoch()) {
            self.propose_meta(&MetaCommand::Restore(Box::new(state.clone())));
        } else {
            self.record_meta(out);
        }
    }

    /// The leader of a meta group that was recovered records its set by itself: it may be led by a node that no map names among
    /// its voters yet, and nobody would find it to ask for anything, nor for what is to come of the recovery.
    fn record_meta(&mut self, out: &mut Effects) {
        let group = self.meta.group();
        let Some(shard) = self.shard(group) else { return };
        let config = shard.group.config();
        let recorded = self.meta.state.config(group).map_or(0, |config| config.number);
        if !RecoverOrder::made(config) || config.number <= recorded || !store::is_there(&shard.keyspace) {
            return;
        }
        let config = config.clone();
        let known = self.most_know(group, &config);
        self.mark_dirty(group);
        self.collect(group, out);
        if known {
            self.propose_meta(&MetaCommand::Record { group, config, bytes: 0 });
        }
    }

    /// Whether the meta group, led here, was recovered from the loss of its majority and has not decided what made the map of
    /// this epoch: the end of its log is lost, or all of it (R29). Nodes would take no map of it for newer than the one
    /// that they have (N1).
    pub(crate) fn meta_lacks(&self, epoch: Epoch) -> bool {
        self.shard(self.meta.group()).is_some_and(|shard| {
            let has_read_all = self.meta.seen == shard.group.applied_index();
            RecoverOrder::made(shard.group.config()) && has_read_all && self.meta.decided < epoch
        })
    }

    /// The cluster's feature level, if this program does not know it: the driver stops the node, for it may not understand what
    /// others say and what is decided.
    pub fn level_unknown(&self) -> Option<Level> {
        Some(self.meta.state.level).filter(|level| *level > self.config.level)
    }

    /// Says so if this program knows other feature levels than the map has it.
    fn announce_level(&mut self) {
        let (me, level) = (self.config.me, self.config.level);
        let state = &self.meta.state;
        if state.level_of(me) == level || level < state.level {
            return;
        }
        let Some(row) = self.meta.map().node(me) else { return };
        self.propose_meta(&MetaCommand::Know { node: me, incarnation: row.incarnation, level });
    }

    /// Says so if this node is reached elsewhere than the map has it.
    fn announce_addresses(&mut self) {
        let Some(own) = &self.meta.own else { return };
        let Some(known) = self.meta.map().node(own.id) else { return };
        let NodeRow { weight, ref zone, .. } = *known;
        let wanted = NodeRow { weight, zone: zone.clone(), ..own.clone() };
        if wanted != *known {
            self.propose_meta(&MetaCommand::Readdress(wanted));
        }
    }
}
