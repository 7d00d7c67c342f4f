//! What drivers do for a replica that has lost records and gets another id (R20).

use tholos_paxos::{Group, Outbox, Renewal, ReplicaId};

use super::coverage::Reached;
use super::{Council, Life};

impl Council {
    /// Carries out what a leader wants for a replica that has lost records.
    pub(super) fn renew(&mut self, leader: ReplicaId, asked: (ReplicaId, u64)) {
        let home = self.at(asked.0).home;
        let Some(config) = self.group_of(leader).map(|group| group.config().clone()) else { return };
        let mut named = config.voters.iter().chain(&config.learners).copied();
        let Some(lost) = named.find(|named| self.replicas[named.0 as usize - 1].home == home) else { return };
        let by = ReplicaId(self.size() as u32 + 1);
        let ordered =
            self.step(leader, |group, _, _, out| group.renew(&Renewal { asked, lost, by }, out).is_ok());
        if ordered {
            // One who has begun under the first of two ids is not asked for the second: only a driver knows who lives there.
            self.facts.may_stall |= self.at(lost).group.is_some() && self.at(lost).instead_of.is_some();
            self.await_replica(Some(home));
            self.coverage.count(Reached::Renewing);
            self.say(|| format!("{leader} gives {lost} the id {by}"));
            self.carry_out(leader);
        }
    }

    /// Whoever has lost records begins anew, under the id that it was told.
    pub(super) fn begin_anew(&mut self, id: ReplicaId) {
        let Some(by) = self.group_of(id).and_then(Group::renewed) else { return };
        self.say(|| format!("{id} begins anew as {by}"));
        let before = self.at(id);
        before.group = None;
        before.life = Life::Gone;
        before.disk.pending.clear();
        before.state.clear();
        before.outbox = Outbox::default();
        assert_eq!(self.at(by).life, Life::Awaited, "R20: {by} has lived before");
        // Likewise where the second was given before the first had begun.
        let home = self.at(by).home;
        self.facts.may_stall |= self.replicas.iter().any(|other| other.home == home && other.id > by);
        self.at(by).instead_of = Some(id);
        self.begin(by);
    }

    /// It knows, durably, that the set which names it is decided: the one before it is needed by nobody any more.
    pub(super) fn note_renewed(&mut self, id: ReplicaId) {
        let index = self.facts.configs.iter().find(|(_, config)| config.names(id)).map(|(index, _)| *index);
        let replica = self.at(id);
        let knows = index.is_some_and(|index| replica.disk.knows_decided(index));
        if let Some(before) = replica.instead_of.take_if(|_| knows) {
            self.at(before).disk.repaired();
            self.facts.renewed += 1;
            self.coverage.count(Reached::Renewed);
            self.check_all_on_majority();
        }
    }
}
