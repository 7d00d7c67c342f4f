//! Replica sets change: one more machine joins and jobs move replicas, as far as the meta group is asked for it; or the
//! leader of a shard is given an order directly.

use tholos_cluster::{Incarnation, MetaCommand, MetaState, NodeId, NodeRow};
use tholos_node::Event;
use tholos_paxos::Planted;
use tholos_ring::ShardId;

use super::{DRAIN_US, FAULTS_END_US, GROUPS, Happening, LIVE_AGAIN_US, Sim, TICK_US};
use crate::coverage::Reached;
use crate::elastic::{self, LIVES_APART};
use crate::founding::row;
use crate::host::Host;
use crate::moves::{self, Step};
use crate::observer::Observer;
use crate::random::Random;

/// Time between two looks at the membership, at least and at most.
const MEMBERSHIP_US: (u64, u64) = (200_000, 1_500_000);

impl Sim {
    /// Somebody looks at the membership, by a node that happens to be up, and asks for something.
    pub(super) fn membership(&mut self) {
        let (low, high) = MEMBERSHIP_US;
        let next = self.now + self.random.between(low, high);
        if next < LIVE_AGAIN_US {
            self.after(next, Happening::Membership);
        }
        if let Some(wiped) = self.elastic.wiped {
            return self.let_in_again(wiped);
        }
        if self.wipe_one() {
            return;
        }
        let last = self.hosts.len() - 1;
        let any = self.random.below(last as u64 + 1) as usize;
        // Somebody who is lost is not asked, but the next who is not.
        let others = (any..=last).chain(0..any);
        let Some(host) = others.into_iter().find(|host| !self.hosts[*host].is_lost) else { return };
        let Some(node) = self.hosts[host].node.as_ref() else { return };
        let (state, newcomer) = (node.meta_state().clone(), &mut self.hosts[last]);
        self.elastic.look(&state).into_iter().for_each(|reached| self.coverage.count(reached));
        if !self.elastic.joined && state.map.node(newcomer.id).is_some() {
            (newcomer.begun, newcomer.map) = (Some(state.map.clone()), Some(state));
            self.elastic.joined = true;
            self.coverage.count(Reached::NodeJoined);
            return self.after(self.now, Happening::Start { host: last });
        }
        let late = self.now > FAULTS_END_US;
        let newcomer = match self.hosts[last].is_lost {
            // It is refused for ever; plans may be about another.
            true => state.map.nodes[0].clone(),
            false => row(last + 1, &self.elastic),
        };
        let Some(command) = self.elastic.next(newcomer, &state, late, &mut self.random) else { return };
        match &command {
            MetaCommand::StartJob(_) => self.coverage.count(Reached::JobStarted),
            MetaCommand::Pause(_) => self.coverage.count(Reached::JobPaused),
            MetaCommand::Cancel(_) => self.coverage.count(Reached::JobCancelled),
            MetaCommand::Throttle { .. } => self.coverage.count(Reached::JobThrottled),
            _ => {}
        }
        self.trail.note(self.now, None, || format!("n{} is asked for {command:?}", host + 1));
        self.give(host, Event::AskMeta { asker: 0, command: Box::new(command) });
    }

    /// A machine may lose its disk, once in a run; whether one did. Nothing else is lost then: of each shard two others are left,
    /// and will be up in the end.
    fn wipe_one(&mut self) -> bool {
        // Chance of its own, so that seeds which were looked at before stay what they were.
        let mut chance = Random::new(self.now ^ 0x0d15_c105);
        if !self.elastic.wipes || !self.elastic.joined || self.now > FAULTS_END_US || chance.below(6) > 0 {
            return false;
        }
        let host = chance.below(self.hosts.len() as u64) as usize;
        self.elastic.wipes = false;
        self.coverage.count(Reached::DiskWiped);
        self.trail.note(self.now, None, || format!("n{} has lost its disk", host + 1));
        self.crash(host, true);
        let id = self.hosts[host].id;
        if self.hosts[host].planted() == Planted::WipedVotes {
            let (begun, map) = (self.hosts[host].begun.take(), self.hosts[host].map.take());
            self.hosts[host] = self.hosts[host].wiped(id);
            (self.hosts[host].begun, self.hosts[host].map) = (begun, map);
            self.after(self.now + chance.between(1_000, 400_000), Happening::Start { host });
            return true;
        }
        self.hosts[host] = self.hosts[host].wiped(NodeId(id.0 + LIVES_APART as u16));
        self.observers[host] = Observer::new(GROUPS, self.hosts.len());
        self.elastic.wiped = Some(host);
        true
    }

    /// Some node is asked to let the machine in again, until one has the map that has it.
    fn let_in_again(&mut self, wiped: usize) {
        let asked = self.random.below(self.hosts.len() as u64) as usize;
        let Some(node) = self.hosts[asked].node.as_ref() else { return };
        let (state, machine) = (node.meta_state().clone(), &mut self.hosts[wiped]);
        if state.map.node(machine.id).is_some() {
            (machine.begun, machine.map) = (Some(state.map.clone()), Some(state));
            self.elastic.wiped = None;
            self.coverage.count(Reached::NodeRejoined);
            return self.after(self.now, Happening::Start { host: wiped });
        }
        let row =
            NodeRow { incarnation: Incarnation(u64::from(machine.id.0)), ..row(wiped + 1, &self.elastic) };
        self.trail.note(self.now, None, || format!("n{} is asked to let n{} in again", asked + 1, wiped + 1));
        let command = Box::new(MetaCommand::Rejoin(row));
        self.give(asked, Event::AskMeta { asker: 0, command });
    }

    /// In the end every replica is repaired, every job is finished, and every node holds what the newest map says.
    pub(super) fn check_membership(&mut self) {
        // Who stays away for good is waited for without end.
        let wiped = self.elastic.wiped;
        let all_up = (self.hosts.iter().enumerate())
            .all(|(at, host)| host.boot == 0 || host.node.is_some() || host.is_lost || wiped == Some(at));
        if !all_up {
            return;
        }
        // Whom no set names needs no repair.
        let named = |shard: ShardId, id: NodeId| {
            let groups = self.hosts.iter().filter_map(|host| Some(&host.node.as_ref()?.shard(shard)?.group));
            groups.filter(|group| group.serving()).any(|group| group.config().replica_at(id.0).is_some())
        };
        let mut mute = self.hosts.iter().flat_map(|host| host.mute().map(|shard| (host.id, shard)));
        let left = mute.find(|(id, shard)| named(*shard, *id));
        drop(mute);
        if let Some((id, shard)) = left {
            return self.violate(Some(shard), format!("the replica of {shard} on {id} is mute without end"));
        }
        if !self.elastic.is_on {
            return;
        }
        if let Some(wiped) = wiped {
            return self.violate(None, format!("n{} has lost its disk and is not let in again", wiped + 1));
        }
        let left = self.hosts.iter().filter(|host| !host.is_lost);
        let nodes = left.filter_map(|host| Some((host.id, host.node.as_ref()?)));
        if let Some(text) = elastic::verdict(nodes) {
            self.violate(None, text);
        }
    }

    /// The driver hands the node's leaderships over, stops it and starts it again.
    pub(super) fn restart_in_order(&mut self, host: usize) {
        let (boot, down_us) = (self.hosts[host].boot, self.random.between(50_000, 400_000));
        self.after(self.now, Happening::ToNode { host, boot, event: Event::Resign });
        self.after(self.now, Happening::Drained { host, boot, until: self.now + DRAIN_US, down_us });
    }

    /// A node that was told to stop has handed everything over, or its time is up.
    pub(super) fn drained(&mut self, host: usize, boot: u64, until: u64, down_us: u64) {
        let machine = &self.hosts[host];
        if machine.boot != boot {
            return;
        }
        let Some(node) = &machine.node else { return };
        if node.leads_nothing() || self.now >= until {
            self.crash(host, false);
            return self.after(self.now + down_us, Happening::Start { host });
        }
        self.after(self.now + TICK_US, Happening::Drained { host, boot, until, down_us });
    }

    /// Gives an order to the leader of a shard, if there is one.
    pub(super) fn change_replicas(&mut self, shard: ShardId, step: Step, pick: u64) {
        let leads = |host: &Host| {
            let group = &host.node.as_ref()?.shard(shard)?.group;
            group.leading().filter(|_| group.serving())
        };
        let Some(host) = (0..self.hosts.len()).max_by_key(|host| leads(&self.hosts[*host])) else { return };
        let Some(node) = self.hosts[host].node.as_ref().filter(|_| leads(&self.hosts[host]).is_some()) else {
            return;
        };
        let Some(order) = moves::order(node, shard, self.hosts.len(), step, pick) else { return };
        self.coverage.count(match step {
            Step::Learn => Reached::LearnOrdered,
            Step::Vote => Reached::SwapOrdered,
            Step::VoteForLeader => Reached::LeaderOrderedOut,
            Step::Leave => Reached::LeaveOrdered,
        });
        self.give(host, Event::ChangeReplicas(order));
    }

    /// The driver has the map on its disk.
    pub(super) fn map_kept(&mut self, host: usize, boot: u64, state: MetaState) {
        let newest = self.hosts[host].map.as_ref().is_none_or(|kept| kept.epoch() < state.epoch());
        if self.hosts[host].boot != boot || !newest {
            return;
        }
        let epoch = state.epoch();
        self.coverage.count(Reached::MapKept);
        self.hosts[host].map = Some(state);
        self.give(host, Event::MapKept { epoch });
    }
}
