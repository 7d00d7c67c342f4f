//! What other nodes say, and what this one tells them of itself.

use tholos_cluster::NodeId;
use tholos_paxos::{Millis, ReplicaId};
use tholos_ring::ShardId;

use super::Node;
use crate::event::{Effects, Notice};
use crate::hints;
use crate::meta::is_request;
use crate::peer::{Heartbeat, Outcome, PeerMessage};

/// What a node asks another, and has an answer to.
enum Question {
    /// The meta group is to decide something.
    Meta,
    /// Who leads the shard?
    WhoLeads(ShardId),
    /// How far is the shard decided?
    HowFar(ShardId),
    /// A client's request to a shard, unless it is over.
    Client(Option<ShardId>),
}

impl Question {
    /// The group that it is about.
    fn shard(&self, meta: ShardId) -> Option<ShardId> {
        match self {
            Question::Meta => Some(meta),
            Question::WhoLeads(shard) | Question::HowFar(shard) => Some(*shard),
            Question::Client(shard) => *shard,
        }
    }
}

impl Node {
    pub(super) fn handle_peer(&mut self, from: NodeId, message: PeerMessage, out: &mut Effects) {
        if from == self.config.me || self.meta.map().node(from).is_none() {
            out.notices.push(Notice::MessageDropped { node: from, reason: "from a node outside the map" });
            return;
        }
        if self.meta.state().is_gone(from) {
            // U3
            let reason = "from a node that a recovery gave up for ever (R29): destroy its data";
            out.notices.push(Notice::MessageDropped { node: from, reason });
            return;
        }
        if self.detector.is_stranger(from) {
            return;
        }
        self.detector.heard(from);
        if message.rests_on_the_log() && !self.trusts(from) {
            // R21: what its log may lack, its votes may lack; it says first where it stands.
            return;
        }
        match message {
            PeerMessage::Heartbeat(heartbeat) => {
                self.detector.handle_heartbeat(from, &heartbeat);
                self.steering.load.note_peer(from, heartbeat.load, self.now.mono);
                self.reading.note(from, heartbeat.load.queue, self.now.mono);
                self.note_epoch(from, heartbeat.epoch, out);
            }
            PeerMessage::Queue(queue) => self.reading.note(from, queue, self.now.mono),
            PeerMessage::MapWanted { have } => self.handle_map_wanted(from, have, out),
            PeerMessage::MoveOrder(order) => self.handle_move_order(from, &order, out),
            PeerMessage::MoveReport(report) => self.handle_move_report(from, report),
            PeerMessage::FactsWanted => out.sends.push((from, PeerMessage::Facts(self.own_facts()))),
            PeerMessage::Facts(said) => self.handle_facts(from, said),
            PeerMessage::Restart { boot } => self.handle_restart(boot, out),
            PeerMessage::Rescue(bytes) => self.handle_rescue_bytes(from, &bytes, out),
            PeerMessage::RescueReport(report) => self.handle_rescue_report(from, report, out),
            PeerMessage::Map(bytes) => self.handle_map(from, &bytes, out),
            PeerMessage::Counted(said) => self.handle_counted(from, &said, out),
            PeerMessage::Digest(note) => self.handle_digest(from, note, out),
            PeerMessage::Paxos { shard, from: serial, to, message } => {
                let replica = ReplicaId::new(from.0, serial);
                self.handle_paxos(replica, to, shard, message, out);
            }
            PeerMessage::Forward(forward) => self.handle_forward(from, None, forward, out),
            PeerMessage::Relay(forward) => self.handle_relay(from, forward, out),
            PeerMessage::Relayed { gateway, forward } => {
                self.handle_forward(gateway, Some(from), forward, out);
            }
            PeerMessage::RelayedAnswer { gateway, request, boot, outcome } => {
                if self.detector.hears_node(gateway) && gateway != self.config.me {
                    out.sends.push((gateway, PeerMessage::Answer { request, boot, outcome }));
                }
            }
            PeerMessage::Answer { request, boot, outcome } if boot == self.gateway.boot() => {
                self.handle_answer(from, request, outcome, out);
            }
            // To an earlier boot.
            PeerMessage::Answer { .. } => {}
            PeerMessage::SnapshotChunk(chunk) => self.handle_snapshot_chunk(from, chunk, out),
            PeerMessage::SnapshotWanted { shard, ballot, index, file, chunk } => {
                self.transfers.handle_wanted((shard, from), (ballot, index, file), chunk, self.now.mono, out);
            }
        }
    }

    fn handle_answer(&mut self, from: NodeId, request: u64, outcome: Outcome, out: &mut Effects) {
        let question = self.question_of(request);
        if let (Some(shard), Outcome::NotLeader { leader }) = (question.shard(self.meta.group()), &outcome) {
            let promised = self.shard(shard).map(|shard| shard.group.promised()).unwrap_or_default();
            if self.hints.learn(shard, from, *leader, promised) {
                self.gateway.wake(shard);
            }
            self.mark_restless(shard);
        }
        match question {
            Question::Meta => self.meta_answered(request, &outcome, out),
            Question::WhoLeads(_) => {}
            Question::HowFar(shard) => self.handle_how_far(shard, &outcome),
            Question::Client(_) => {
                let (gateway, view) = self.gateway_and_view();
                gateway.handle_answer(request, outcome, &view);
            }
        }
    }

    /// What was asked under a number: each kind has its own.
    fn question_of(&self, request: u64) -> Question {
        if is_request(request) {
            return Question::Meta;
        }
        let who_leads = hints::question_of(request).map(Question::WhoLeads);
        let how_far = || self.replica_reads.shard_of(request).map(Question::HowFar);
        who_leads.or_else(how_far).unwrap_or_else(|| Question::Client(self.gateway.shard_of(request)))
    }

    /// Notices who is heard and was not, or the other way round; whether anybody is.
    pub(super) fn note_connectivity(&mut self, out: &mut Effects) -> bool {
        let changes = self.detector.take_changes();
        for (node, heard) in &changes {
            let node = *node;
            out.notices.push(if *heard { Notice::NodeHeard { node } } else { Notice::NodeLost { node } });
            if *heard {
                self.gateway.peer_back(node);
            } else if self.detector.relays_to(node).next().is_some() {
                // What waits for its answer goes by another (R11).
                self.gateway.peer_down(node, self.now.mono);
            }
        }
        !changes.is_empty()
    }

    pub(crate) fn send_heartbeats(&mut self, now: Millis, out: &mut Effects) {
        self.last_heartbeat = Some(now);
        let stall = self.appends.stall(now).0;
        let heartbeat = Heartbeat {
            boot: self.config.boot,
            heard: self.detector.heard_nodes(),
            wall: self.now.wall,
            disk_stall_ms: u32::try_from(stall).unwrap_or(u32::MAX),
            memory_full: self.own_memory_full(),
            disk_full: self.disk_is_full(),
            epoch: self.meta.state().epoch(),
            load: self.own_load(),
        };
        let others = self.meta.map().nodes.iter().filter(|row| row.id != self.config.me);
        for row in others.filter(|row| !self.meta.state().is_gone(row.id)) {
            out.sends.push((row.id, PeerMessage::Heartbeat(heartbeat.clone())));
            if let Some(counted) = self.ledger.tell(row.id, now) {
                out.sends.push((row.id, PeerMessage::Counted(counted)));
            }
        }
    }
}
