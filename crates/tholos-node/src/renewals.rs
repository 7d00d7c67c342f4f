//! Replicas that have lost records and get another id (R20, decision 0018): what leaders order, and what those do that have
//! lost them.
//!
//! - **L1** Where a replica may have lived and voted of which nothing is known any more, none begins because a message is
//!   for it: a mute one stands in its place, and begins anew when a leader says so, under an id that it has proposed after
//!   it was asked.
//! - **L2** So what is mute is not forgotten: it is dropped only when the map has retired it and nobody speaks to it any
//!   more, and from then on this node begins no others in that way either (C4).

use alloc::sync::Arc;

use tholos_paxos::{Config, Group, Millis, Renewal, ReplicaId, Serial};
use tholos_ring::ShardId;

use crate::counted::Bar;
use crate::event::{Effects, Loss, Notice};
use crate::node::Node;
use crate::peer::{MoveReport, PeerMessage};
use crate::replicas::shard_of;

/// A mute replica that the map has retired goes when nobody has spoken to it for so long: a leader asks those it misses ten
/// times as often.
const MUTE_KEPT: Millis = Millis(2000);

/// On the leader of the shard.
impl Node {
    /// A replica that has lost records asks for another id.
    pub(crate) fn renew(&mut self, id: ShardId, asked: (ReplicaId, u64), out: &mut Effects) {
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        let (config, node) = (shard.group.config(), asked.0.node());
        let Some(lost) = config.replica_at(node).filter(|lost| *lost != shard.group.me()) else { return };
        // The next serial is that of ordinary orders: one that came to nothing may have given it.
        let serial = config.last_replica.serial().0.checked_add(2);
        let Some(by) = serial.map(|serial| ReplicaId::new(node, Serial(serial))) else { return };
        // What is refused now is asked for again.
        if shard.group.renew(&Renewal { asked, lost, by }, &mut self.outbox).is_ok() {
            out.notices.push(Notice::ReplicaRenewed { shard: id, lost, by });
            self.mark_dirty(id);
        }
    }

    /// The map learns of a set in which only ids are others: no job reports that.
    pub(crate) fn report_renewed(&mut self, id: ShardId, out: &mut Effects) {
        let Some(group) = self.shard(id).map(|shard| &shard.group) else { return };
        let (config, recorded) = (group.config(), self.meta.state().config(id));
        let is_news =
            |recorded: &&Config| config.number > recorded.number && config.move_id == recorded.move_id;
        if !group.serving() || group.configs().count() > 1 || recorded.filter(is_news).is_none() {
            return;
        }
        let config = config.clone();
        let Some(leader) = self.leader_of(self.meta.group()) else { return };
        // V3
        if !self.most_know(id, &config) {
            return self.mark_dirty(id);
        }
        let report = MoveReport { number: config.number, config: Some(config), ..MoveReport::new(id) };
        if leader == self.config.me {
            self.handle_move_report(leader, report);
        } else {
            out.sends.push((leader, PeerMessage::MoveReport(report)));
        }
    }
}

/// On whoever has lost records.
impl Node {
    /// Whether the replica here has lost records and is not repaired.
    pub(crate) fn is_mute(&self, id: ShardId) -> bool {
        self.shard(id).is_some_and(|shard| shard.group.repair().is_some())
    }

    /// It asks whom the map names and whoever leads, as far as is known: it may know of no set itself.
    pub(crate) fn tell_contacts(&mut self, id: ShardId) {
        let me = self.config.me.0;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        if shard.group.repair().is_none() {
            return;
        }
        let recorded = self.meta.state().config(id).into_iter().flat_map(|config| &config.voters).copied();
        let leader = self.hints.of(id).map(|(_, ballot)| ballot.replica);
        shard.group.ask_also(recorded.chain(leader).filter(|replica| replica.node() != me));
    }

    /// It begins anew, if it was told to.
    pub(crate) fn begin_anew(&mut self, id: ShardId, out: &mut Effects) {
        if let Some(me) = self.shard(id).and_then(|shard| shard.group.renewed()) {
            self.begin(id, me, out);
        }
    }

    /// A mute replica stands for one that may have lived here, if the map says that one does.
    pub(crate) fn stand_in_for_all(&mut self, out: &mut Effects) {
        if self.bar == Bar::Open {
            return;
        }
        for id in (0..self.shards.len()).map(|at| ShardId(at as u16)) {
            let here = self.meta.state().config(id).and_then(|config| config.replica_at(self.config.me.0));
            if here.is_some() && self.shard(id).is_none() {
                self.stand_in(id, out);
            }
        }
    }

    /// A message is for the replica `me`, which is not here.
    pub(crate) fn miss(&mut self, id: ShardId, me: ReplicaId, out: &mut Effects) {
        let Some(place) = self.shards.get_mut(usize::from(id.0)) else { return };
        if let Some(shard) = place {
            // L2: a mute one is spoken to. One that leads, and that all others have retired, is not.
            if shard.group.repair().is_some() {
                shard.forget_retired();
            }
        } else if self.bar != Bar::Open && !self.meta.state().is_retired(id, me) {
            self.stand_in(id, out);
        }
    }

    fn stand_in(&mut self, id: ShardId, out: &mut Effects) {
        let (me, nonce) = (ReplicaId::new(self.config.me.0, Serial(0)), self.fresh_chance());
        let group = Group::unknown(me, Arc::clone(&self.config.group), nonce);
        let mut shard = shard_of(&self.config, self.meta.map(), id, group);
        shard.loss = Some(Loss::Log);
        self.shards[usize::from(id.0)] = Some(shard);
        out.notices.push(Notice::ReplicaMuted { shard: id, loss: Loss::Log });
        self.mark_restless(id);
    }

    /// Whether a mute replica that the map has retired stays nevertheless (L2).
    pub(crate) fn stays_mute(&mut self, id: ShardId, out: &mut Effects) -> bool {
        if !self.is_mute(id) {
            return false;
        }
        let now = self.time().mono;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return false };
        if now.since(shard.retired_since(now)) < MUTE_KEPT {
            return true;
        }
        self.bar(out);
        false
    }
}
