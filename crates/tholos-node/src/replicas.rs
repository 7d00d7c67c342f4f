//! Replica sets that change (R6, R7): orders for the leader, replicas that join, and who holds a shard now.
//!
//! What a group says of itself goes before what the map said last: the shard's own log is the truth of its replica set.

use alloc::sync::Arc;
use core::fmt;

use tholos_cluster::{ClusterMap, NodeId};
use tholos_engine::Keyspace;
use tholos_paxos::{Change, ChangeError, Group, Message, Record, ReplicaId, Serial};
use tholos_ring::ShardId;

use crate::config::NodeConfig;
use crate::counted::Bar;
use crate::detector::{node_of, replica_of};
use crate::event::{Effects, LogRoom, Notice, ReplicaOrder, SnapshotJob};
use crate::hints;
use crate::load::CAPACITY_WHOLE;
use crate::meta::{Meta, store};
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::shard::{Shard, mix};
use crate::snapshot::Discarded;

/// Why an order was not taken. Nothing was proposed in any of these cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OrderError {
    /// This node has no replica of the shard, so it does not lead it.
    NotHeld,
    /// The order names a node that the map does not know.
    UnknownNode(NodeId),
    /// The shard has no replica id left to give.
    IdsUsedUp,
    /// The group refused it.
    Group(ChangeError),
}

impl fmt::Display for OrderError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderError::NotHeld => write!(out, "this node has no replica of the shard"),
            OrderError::UnknownNode(node) => write!(out, "{node} is not in the map"),
            OrderError::IdsUsedUp => write!(out, "the shard has no replica id left"),
            OrderError::Group(error) => write!(out, "{error}"),
        }
    }
}

impl core::error::Error for OrderError {}

/// The replica that this node has of a shard, or of the meta group, as the cluster was founded.
pub(crate) fn founding_shard(config: &NodeConfig, meta: &Meta, id: ShardId) -> Option<Shard> {
    let me = replica_of(config.me);
    let founders = meta.founders(id).filter(|founders| founders.is_voter(me))?;
    Some(shard_of(config, meta.map(), id, Group::new(me, Arc::clone(founders), Arc::clone(&config.group))))
}

/// A replica under the id `me`, to be given its records.
pub(crate) fn shard_under(config: &NodeConfig, meta: &Meta, id: ShardId, me: ReplicaId) -> Option<Shard> {
    if me.serial() == Serial(0) {
        return founding_shard(config, meta, id);
    }
    Some(shard_of(config, meta.map(), id, Group::rejoin(me, Arc::clone(&config.group))))
}

pub(crate) fn shard_of(config: &NodeConfig, map: &ClusterMap, id: ShardId, group: Group) -> Shard {
    let mut shard = Shard::new(id, group, empty_keyspace(map, id), config.group.planted);
    shard.follow_config();
    shard
}

pub(crate) fn empty_keyspace(map: &ClusterMap, id: ShardId) -> Keyspace {
    // Secret from clients, the same on all replicas (R25).
    let hash_seed = map.cluster_id.0.iter().fold(u64::from(id.0), |seed, byte| mix(seed, u64::from(*byte)));
    let slots =
        if id == map.meta_group() { store::slots() } else { tholos_ring::slots_of(id, map.shard_count) };
    Keyspace::new(slots, hash_seed)
}

/// Whether a follower appends what a leader says here to its log.
fn brings_entries(message: &Message) -> bool {
    matches!(message, Message::Accept { entries, .. } | Message::Sync { entries, .. } if !entries.is_empty())
}

/// Under which id a replica begins with `record`, if it does.
pub(crate) fn begins_as(record: &Record) -> Option<ReplicaId> {
    match record {
        Record::Joined { replica } => Some(*replica),
        Record::Checkpoint(checkpoint) => {
            Some(checkpoint.joined).filter(|joined| *joined != ReplicaId::default())
        }
        _ => None,
    }
}

impl Node {
    /// The nodes that vote on a shard: as its group says if this node has a replica of it, else as the map does.
    pub fn replica_nodes(&self, shard: ShardId) -> &[NodeId] {
        voters_known(&self.shards, shard).unwrap_or_else(|| self.meta.recorded_set(shard))
    }

    /// An order to change a replica set.
    pub(crate) fn handle_order(&mut self, order: &ReplicaOrder, out: &mut Effects) {
        let (id, move_id) = (order.shard, order.move_id);
        match self.change_replicas(order) {
            Ok(()) => {
                out.notices.push(Notice::ReplicasChanging { shard: id, move_id });
                self.mark_dirty(id);
                self.collect(id, out);
            }
            Err(error) => out.notices.push(Notice::ChangeRefused { shard: id, move_id, error }),
        }
    }

    pub(crate) fn change_replicas(&mut self, order: &ReplicaOrder) -> Result<(), OrderError> {
        let all = order.voters.iter().chain(&order.learners);
        if let Some(node) = all.copied().find(|node| self.meta.map().node(*node).is_none()) {
            return Err(OrderError::UnknownNode(node));
        }
        let time = self.shard_time(order.shard);
        let held = self.shards.get_mut(usize::from(order.shard.0)).and_then(Option::as_mut);
        let shard = held.ok_or(OrderError::NotHeld)?;
        let config = shard.group.config();
        let replica = |node: &NodeId| {
            let id = config.replica_at(node.0).or_else(|| config.next_replica_at(node.0));
            id.ok_or(OrderError::IdsUsedUp)
        };
        let change = Change {
            number: order.number,
            move_id: order.move_id,
            voters: order.voters.iter().map(replica).collect::<Result<_, _>>()?,
            learners: order.learners.iter().map(replica).collect::<Result<_, _>>()?,
            // An order for this configuration that was lost with its leader gave a serial as this one would, to whatever node.
            used_up: config.next_replica_at(u16::MAX).unwrap_or(config.last_replica),
        };
        shard.group.change_replicas(&change, time, &mut self.outbox).map_err(OrderError::Group)?;
        Ok(())
    }

    /// A message of a shard's group, from `replica` to the replica of this node with the serial `to`.
    pub(crate) fn handle_paxos(
        &mut self,
        replica: ReplicaId,
        to: Serial,
        id: ShardId,
        message: Message,
        out: &mut Effects,
    ) {
        let me = ReplicaId::new(self.config.me.0, to);
        if !self.is_held_as(id, me) {
            self.join(id, me, out);
            self.miss(id, me, out);
        }
        let from = node_of(replica);
        // Who has lost all (R20) may know only who was there at the founding. That it leads no more concerns whoever lives
        // here now.
        let concerns_any = matches!(message, Message::Repair { .. }) && self.shard(id).is_some();
        if !self.is_held_as(id, me) && !concerns_any {
            let reason = "for a replica that is not here";
            return out.notices.push(Notice::MessageDropped { node: from, reason });
        }
        if self.log_room == LogRoom::Spent && brings_entries(&message) {
            let reason = "the log has no room for its entries";
            return out.notices.push(Notice::MessageDropped { node: from, reason });
        }
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let led_before = shard.group.leader();
        // Who is slow gives up what it cannot lead, and stays.
        let is_whole = self.steering.load.of_peer(from).capacity == CAPACITY_WHOLE;
        if matches!(message, Message::Released { .. }) && shard.voters.first() == Some(&from) && is_whole {
            self.detector.gave_up(from);
        }
        shard.group.handle_message(replica, message, now, &mut self.outbox);
        let leads_now = shard.group.leader();
        if leads_now.is_some() && leads_now != led_before {
            self.gateway.wake(id);
        }
        self.mark_dirty(id);
        self.collect(id, out);
        self.begin_anew(id, out);
    }

    fn is_held_as(&self, id: ShardId, me: ReplicaId) -> bool {
        self.shard(id).is_some_and(|shard| shard.group.me() == me)
    }

    /// Begins a replica of a shard that this node has learnt of, because a message is for it. One that lived here under
    /// an earlier id is retired and gives way; ids rise, so a late message brings nothing back.
    fn join(&mut self, id: ShardId, me: ReplicaId, out: &mut Effects) {
        // C4, L1
        if self.bar == Bar::Open && !self.is_mute(id) {
            self.begin(id, me, out);
        }
    }

    /// The same because somebody says so who knows that no replica had this id before.
    pub(crate) fn begin(&mut self, id: ShardId, me: ReplicaId, out: &mut Effects) {
        // It may have been here, and been dropped since.
        let retired = self.meta.state().is_retired(id, me);
        let Some(place) = self.shards.get_mut(usize::from(id.0)) else { return };
        let may =
            me.serial() > Serial(0) && !retired && place.as_ref().is_none_or(|shard| shard.group.me() < me);
        if !may {
            return;
        }
        self.transfers.begin_anew(id, out);
        let group = Group::join(me, Arc::clone(&self.config.group), &mut self.outbox);
        let before = place.replace(shard_of(&self.config, self.meta.map(), id, group));
        if let Some(shard) = before {
            out.snapshots.push(SnapshotJob::Drop(Discarded::state(shard.keyspace, shard.sessions)));
        }
        out.notices.push(Notice::ReplicaJoined { shard: id, replica: me });
        self.collect(id, out);
    }

    /// Asks who leads the shards whose leader this node does not learn from a replica of its own.
    pub(crate) fn ask_for_leader(&mut self, id: ShardId, out: &mut Effects) {
        let mut heard = match self.shard(id) {
            Some(shard)
                if shard.has_vote()
                    && let Some(ballot) = shard.group.leader() =>
            {
                return self.hints.rest(id, ballot);
            }
            // It may have been removed and not know it, as may all whom it knows: whoever it hears may know more.
            Some(_) => self.meta.map().nodes.iter().map(|row| row.id).collect(),
            None => self.meta.recorded_set(id).to_vec(),
        };
        // A shard may have moved away from all nodes that the map names.
        heard.extend(self.hints.of(id).map(|(leader, _)| leader));
        heard.retain(|node| *node != self.config.me && self.detector.hears_node(*node));
        heard.sort_unstable();
        heard.dedup();
        let now = self.time().mono;
        // Who was removed knows who has come instead.
        let voters = voters_known(&self.shards, id).unwrap_or_default();
        let (me, detector) = (self.config.me, &self.detector);
        let is_relayed = |node: NodeId| node != me && detector.relays_to(node).next().is_some();
        if let Some(node) = self.hints.ask(id, &heard, is_relayed, |node| voters.contains(&node), now) {
            let question = hints::question(id, self.gateway.boot());
            out.sends.push((node, PeerMessage::Forward(question)));
        }
    }

    /// Says so if a change of the replica set is decided.
    pub(crate) fn note_replicas(&mut self, id: ShardId, out: &mut Effects) {
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        shard.follow_config();
        if let Some((number, move_id)) = shard.take_change() {
            out.notices.push(Notice::ReplicasChanged { shard: id, number, move_id });
        }
    }
}

/// Who votes on a shard, as its replica here says; `None` if there is none, or it has only just begun.
pub(crate) fn voters_known(shards: &[Option<Shard>], shard: ShardId) -> Option<&[NodeId]> {
    let held = shards.get(usize::from(shard.0))?.as_ref()?;
    Some(&*held.voters).filter(|voters| !voters.is_empty())
}
