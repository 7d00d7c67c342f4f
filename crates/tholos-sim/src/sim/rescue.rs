//! Machines are lost for good, and an operator plans a recovery of what is left and gives the word (R29).

use tholos_cluster::{
    MetaCommand, MetaState, NodeId, RecoverOrder, RecoveryBlock, RecoveryRequest, plan_recovery,
};
use tholos_node::{Event, Notice};
use tholos_ring::ShardId;

use super::{FAULTS_END_US, Happening, LIVE_AGAIN_US, SHARDS, Sim};
use crate::coverage::Reached;
use crate::disaster::{self, Kept};

/// Until it can happen, it is tried again after so long.
const AGAIN_US: u64 = 200_000;
/// Later than this nothing is lost for good: what follows needs its time.
const LATEST_US: u64 = 32_000_000;
/// Between two looks of the operator, at least and at most.
const LOOK_US: (u64, u64) = (200_000, 1_500_000);
/// So long the operator thinks about a plan, at most.
const THINKS_US: u64 = 2_000_000;

/// Whether a node is known to be gone; or was never known, if it had joined by those alone who are lost.
fn has_left(state: &MetaState, node: NodeId) -> bool {
    state.is_gone(node) || state.map.node(node).is_none()
}

impl Sim {
    /// They are lost, as soon as all that are up can be told apart: every machine is, and none is being let in again.
    pub(super) fn strike(&mut self) {
        let is_up = |at: usize| self.hosts[at].node.is_some();
        let founded = self.hosts.len() - usize::from(self.elastic.is_on);
        let all_up = (0..founded).all(is_up) && (!self.elastic.joined || is_up(founded));
        let nodes: Vec<_> = self.hosts.iter().enumerate().collect();
        let nodes: Vec<_> =
            nodes.iter().filter_map(|(at, host)| Some((*at, host.id, host.node.as_ref()?))).collect();
        let lost = if all_up { disaster::choose(&nodes, &mut self.random) } else { None };
        let Some(lost) = lost else {
            if self.now < LATEST_US {
                self.after(self.now + AGAIN_US, Happening::Strike);
            }
            return;
        };
        let power = self.random.below(2) == 0;
        for host in lost.iter().copied() {
            self.trail.note(self.now, None, || format!("n{} is lost for good", host + 1));
            self.coverage.count(Reached::LostForGood);
            self.crash(host, power);
            (self.hosts[host].is_lost, self.hosts[host].is_off) = (true, true);
        }
        if let Some(disaster) = &mut self.disaster {
            disaster.lost = lost;
        }
        self.after(self.now + self.random.clone().below(LOOK_US.1), Happening::Operator);
    }

    /// The operator looks whether there is something to recover, at the node that has the newest map.
    pub(super) fn operator(&mut self) {
        let (low, high) = LOOK_US;
        let next = self.now + self.random.between(low, high);
        if next < LIVE_AGAIN_US {
            self.after(next, Happening::Operator);
        }
        let left = || self.hosts.iter().enumerate().filter(|(_, host)| !host.is_lost);
        let asked =
            left().filter_map(|(at, host)| Some((host.node.as_ref()?.meta_state().epoch(), at))).max();
        let Some((_, asked)) = asked else { return };
        let Some(node) = self.hosts[asked].node.as_ref() else { return };
        let state = node.meta_state();
        let said: Vec<_> = (state.map.nodes.iter())
            .map(|row| left().find(|(_, host)| host.id == row.id && host.paused_until <= self.now))
            .map(|of| of.and_then(|(_, host)| host.node.as_ref()).ok_or(String::from("no answer")))
            .map(|node| node.map(|node| node.inventory(ShardId(0))))
            .collect();
        let named = |host: &&crate::host::Host| host.is_lost && state.map.node(host.id).is_some();
        let lost = self.hosts.iter().filter(named).map(|host| host.id).collect();
        let plan = plan_recovery(state, &said, &RecoveryRequest { lost, groups: Vec::new() });
        let is_done = plan.blocks == [RecoveryBlock::NothingToDo];
        if plan.is_blocked() && !is_done {
            self.trail.note(self.now, None, || format!("no recovery: {:?}", plan.blocks));
            return self.coverage.count(Reached::RecoveryBlocked);
        }
        if let Some(shard) = plan.hopeless.first().copied() {
            return self.violate(Some(shard), format!("{shard} has survivors, and is said to have none"));
        }
        if is_done {
            return self.let_one_return();
        }
        let order = Box::new(plan.to_order("operator"));
        let boot = self.hosts[asked].boot;
        let at = self.now + self.random.below(THINKS_US);
        self.after(at, Happening::Recover { host: asked, boot, order });
    }

    /// The operator gives the word.
    pub(super) fn recover(&mut self, host: usize, boot: u64, order: RecoverOrder) {
        if self.hosts[host].boot != boot || self.hosts[host].node.is_none() {
            return;
        }
        self.trail.note(self.now, None, || format!("n{} is asked for {order:?}", host + 1));
        self.coverage.count(Reached::RecoveryOrdered);
        if let Some(disaster) = &mut self.disaster {
            disaster.orders.insert(order.plan, order.clone());
        }
        let command = Box::new(MetaCommand::Recover(order));
        self.give(host, Event::AskMeta { asker: 0, command });
    }

    /// Once everybody knows, durably, who is gone, one of them may come back with what it had. It must disturb nobody.
    fn let_one_return(&mut self) {
        let Some(disaster) = &mut self.disaster else { return };
        let gone: Vec<_> = disaster.lost.iter().map(|at| self.hosts[*at].id).collect();
        let mut left = self.hosts.iter().filter(|host| !host.is_lost && host.boot > 0);
        let knows = left.all(|host| {
            let kept = host.map.as_ref().filter(|_| host.node.is_some());
            kept.is_some_and(|state| gone.iter().all(|id| has_left(state, *id)))
        });
        if !knows || disaster.has_returned || self.now + LOOK_US.1 > FAULTS_END_US {
            return;
        }
        disaster.has_returned = true;
        let host = disaster.lost[self.random.below(disaster.lost.len() as u64) as usize];
        self.trail.note(self.now, None, || format!("n{} comes back with what it had", host + 1));
        self.coverage.count(Reached::LostReturned);
        self.hosts[host].is_off = false;
        self.after(self.now, Happening::Start { host });
    }

    /// It goes again before all is looked at.
    pub(super) fn switch_lost_off(&mut self) {
        for host in 0..self.hosts.len() {
            if self.hosts[host].is_lost {
                self.crash(host, false);
                self.hosts[host].is_off = true;
            }
        }
    }

    /// A group goes on without those who are lost: exactly from where the operator was told.
    pub(super) fn note_rescues(&mut self, host: usize, notices: &[Notice]) {
        for notice in notices {
            if let Notice::GroupRescued { shard, number, .. } = notice
                && let Err(text) = self.note_rescue(host, *shard, *number)
            {
                self.violate(Some(*shard), text);
            }
        }
    }

    fn note_rescue(&mut self, host: usize, id: ShardId, number: u64) -> Result<(), String> {
        let now = self.now;
        let Some(disaster) = &mut self.disaster else { return Err(format!("{id} was recovered unasked")) };
        let group = self.hosts[host].node.as_ref().and_then(|node| Some(&node.shard(id)?.group));
        let survivor = group.ok_or(format!("{id} went on without a replica"))?.survivor();
        let own = survivor.configs.iter().find(|(_, config)| config.number == number);
        let (at, config) = own.ok_or(format!("{id} went on with another set than it said"))?;
        let ordered =
            disaster.orders.values().find(|order| RecoverOrder::move_id(order.plan) == config.move_id);
        let order = ordered.and_then(|order| order.groups.iter().find(|order| order.group == id));
        let order = order.ok_or(format!("{id} went on with nobody's word"))?;
        let (told, length) = (order.rescue.length, at.0 - 1);
        if told.0 != length {
            return Err(format!("{id} was to be kept to {told}, and goes on from @{length}"));
        }
        let mut applied_most = 0;
        for other in self.hosts.iter().filter(|other| !other.is_lost) {
            let shard = other.node.as_ref().and_then(|node| node.shard(id));
            let applied = shard.map_or(0, |shard| shard.group.applied_index().0);
            // Before it was helped: whoever goes on alone applies all that it has at once.
            applied_most = applied_most.max(self.agreement.shown(usize::from(other.id.0) - 1, id));
            if other.id != self.hosts[host].id && applied > length {
                return Err(format!(
                    "{id}: {} had applied @{applied}, and {told} is the last kept",
                    other.id
                ));
            }
        }
        // What survivors have and do not know to be decided is kept, and may be another thing than what was decided at its place by
        // those who are gone.
        let certain = if order.loses_nothing { length } else { applied_most.min(length) };
        let lost_since = self.agreement.rescued(id, certain);
        self.coverage.count(Reached::GroupRescued);
        match lost_since {
            Some(_) if order.loses_nothing => {
                return Err(format!("{id} was to lose nothing, and more than {told} was applied"));
            }
            Some(_) => self.coverage.count(Reached::EntriesLost),
            None if order.loses_nothing => self.coverage.count(Reached::NothingLost),
            None => {}
        }
        if order.rescue.is_anew() {
            self.coverage.count(Reached::MetaBegunAnew);
        }
        disaster.kept.insert(id, Kept { at: now, lost_since });
        if lost_since.is_some() {
            self.crowd.forget(id);
        }
        Ok(())
    }

    /// In the end everything is served by those who are left, and they know who is gone.
    pub(super) fn check_recovery(&mut self) {
        let Some(disaster) = self.disaster.as_ref().filter(|disaster| disaster.has_struck()) else { return };
        let left = || self.hosts.iter().filter(|host| !host.is_lost).filter_map(|host| host.node.as_ref());
        let Some(newest) = left().map(|node| node.meta_state()).max_by_key(|state| state.epoch()) else {
            return;
        };
        let served =
            |id: ShardId| left().filter_map(|node| node.shard(id)).any(|shard| shard.group.serving());
        let dark = (0..=SHARDS).map(ShardId).find(|id| !served(*id));
        // Where those who were left had a majority after all, nobody had to say who is gone.
        let unasked = disaster.orders.is_empty();
        let gone = |at: &&usize| unasked || has_left(newest, self.hosts[**at].id);
        let text = match (dark, newest.recovery_under_way(), disaster.lost.iter().find(|at| !gone(at))) {
            (Some(id), ..) => format!("nobody of those who are left leads {id}"),
            (_, Some(recovery), _) => format!("recovery {} is without end", recovery.id),
            (.., Some(at)) => format!("n{} is not known to be gone", at + 1),
            (None, None, None) => return,
        };
        self.violate(dark, text);
    }
}
