//! What breaks: processes, disks and links; and what makes them whole again.

use tholos_paxos::{AppendSeq, Config, Group, Index, Outbox, ReplicaId};

use super::coverage::Reached;
use super::{Council, Life};

impl Council {
    /// Nothing of what was on its way to the disk is kept.
    pub fn crash(&mut self, id: ReplicaId) {
        self.crash_keeping(id, 0);
    }

    /// The oldest `kept` of the records on their way are found on the disk, and nobody was told.
    pub fn crash_keeping(&mut self, id: ReplicaId, kept: usize) {
        let pending = self.at(id).disk.pending.len();
        let kept = kept.min(pending);
        self.say(|| match kept {
            0 => format!("{id} crashes"),
            _ => format!("{id} crashes, and {kept} of {pending} records on their way are kept"),
        });
        self.coverage.count(Reached::Crashed);
        (0..kept).for_each(|_| self.coverage.count(Reached::RecordKept));
        (kept..pending).for_each(|_| self.coverage.count(Reached::RecordLost));
        let replica = self.at(id);
        (0..kept).for_each(|_| replica.disk.sync_one());
        replica.group = None;
        replica.paused = false;
        replica.disk.pending.clear();
        replica.state.clear();
        // What it was asked to read gets no answer.
        replica.outbox = Outbox::default();
    }

    /// Its process stands still; `unheard`: the others notice.
    pub fn pause(&mut self, id: ReplicaId, unheard: bool) {
        if !self.is_up(id) || self.at(id).paused {
            return;
        }
        self.say(|| format!("{id} stands still"));
        self.coverage.count(if unheard { Reached::PausedUnheard } else { Reached::Paused });
        self.at(id).paused = true;
        self.links.set_unheard(id.0 as usize - 1, unheard);
    }

    /// Its process goes on.
    pub fn resume(&mut self, id: ReplicaId) {
        if std::mem::take(&mut self.at(id).paused) {
            self.say(|| format!("{id} goes on"));
            self.links.set_unheard(id.0 as usize - 1, false);
        }
    }

    pub fn restart(&mut self, id: ReplicaId) {
        if self.is_up(id) || self.at(id).life != Life::Here {
            return;
        }
        if let Some(before) = self.at(id).instead_of.filter(|_| self.at(id).disk.durable.is_empty()) {
            // Nothing of it is durable, so what starts is the one before it.
            self.at(id).life = Life::Gone;
            self.at(before).life = Life::Here;
            return self.restart(before);
        }
        if self.at(id).disk.shows_rot() {
            return self.rot(id);
        }
        self.say(|| format!("{id} restarts"));
        let (founders, options, now) = (self.founders, self.options, self.now);
        let nonce = self.fresh_nonce();
        let replica = self.at(id);
        let joins_again = id.0 > founders && replica.disk.durable.is_empty();
        if joins_again {
            self.coverage.count(Reached::JoinedAgain);
        }
        let replica = &mut self.replicas[id.0 as usize - 1];
        let mut group = match id.0 > founders {
            // It died before anything of it was durable, so nobody has heard anything that binds it.
            true if joins_again => Group::join(id, options, &mut replica.outbox),
            true => Group::new(id, Config::default(), options),
            false => Group::new(id, Council::config(founders), options),
        };
        for record in &replica.disk.durable {
            group.recover(record.clone()).expect("durable records follow each other");
        }
        let (promised, durable) = (group.promised(), replica.disk.promised);
        assert!(promised >= durable, "R2: {id} comes back with {promised}, and {durable} was promised");
        group.begin(nonce);
        group.remember_grants(now);
        replica.disk.seq = AppendSeq(0);
        replica.state = match group.base().index {
            Index::ZERO => Vec::new(),
            index => replica.disk.files[&index].state.clone(),
        };
        replica.decided_max = group.decided_index();
        replica.group = Some(group);
        self.carry_out(id);
    }

    /// Restarts a replica that is down, with all of its disk rotten but for what its driver can tell of it.
    pub fn rot(&mut self, id: ReplicaId) {
        assert!(!self.is_up(id), "{id} is up");
        self.say(|| format!("{id} restarts and finds rot"));
        self.coverage.count(Reached::Rotted);
        let (founders, options) = (self.founders, self.options);
        let nonce = self.fresh_nonce();
        let founding = if id.0 > founders { Config::default() } else { Council::config(founders) };
        let replica = self.at(id);
        let mut group = Group::new(id, founding, options);
        replica.disk.rot();
        replica.decided_max = Index::ZERO;
        group.lose(nonce, &mut replica.outbox);
        replica.group = Some(group);
        self.carry_out(id);
    }

    /// Whether a replica has lost records and is not repaired, running or not.
    pub fn is_mute(&self, id: ReplicaId) -> bool {
        let replica = &self.replicas[id.0 as usize - 1];
        replica.disk.is_rotten() || replica.group.as_ref().is_some_and(|group| group.repair().is_some())
    }

    /// Nothing is cut and nobody deaf, down or standing still from here on.
    pub fn heal(&mut self) {
        self.links.heal();
        for id in self.ids() {
            self.resume(id);
            self.restart(id);
        }
    }

    /// No message passes between these two, and neither hears the other.
    pub fn cut_between(&mut self, a: u32, b: u32) {
        let (a, b) = (a as usize - 1, b as usize - 1);
        self.links.cut[a][b] = true;
        self.links.cut[b][a] = true;
    }

    /// Cuts every connection of a replica.
    pub fn isolate(&mut self, number: u32) {
        for other in 1..=self.size() as u32 {
            if other != number {
                self.cut_between(number, other);
            }
        }
    }
}
