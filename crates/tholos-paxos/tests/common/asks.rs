//! What a replica is asked: to propose, to read, to hand over, to be rescued, to take a snapshot.

use tholos_paxos::{Entry, Index, Millis, ProposeError, ReplicaId, Rescue, RescueError, Survivor};

use super::coverage::Reached;
use super::disk::SnapshotFile;
use super::{Council, value};

impl Council {
    /// Proposes the next value. `None`: refused.
    pub fn propose(&mut self, id: ReplicaId) -> Option<Index> {
        self.try_propose(id).ok()
    }

    pub fn try_propose(&mut self, id: ReplicaId) -> Result<Index, ProposeError> {
        let number = self.facts.next_value();
        let mut result = Err(ProposeError::NotServing);
        self.with(id, |group, now, _, out| {
            result = group.propose(value(number), now, number, out);
        });
        if let Err(error) = result {
            self.coverage.note_refused(error);
        }
        result
    }

    /// Asks for a read and returns its token, if the replica took it.
    pub fn read(&mut self, id: ReplicaId) -> Option<u64> {
        let token = self.facts.next_read();
        let taken = self.with(id, |group, _, _, _| group.read(token));
        if taken {
            self.facts.read_taken();
        }
        taken.then_some(token)
    }

    /// Reads by its lease, if it has one, and says until when it may.
    pub fn read_by_lease(&mut self, id: ReplicaId) -> Option<Millis> {
        let until = self.step(id, |group, now, _, _| group.lease_until(now))?;
        let (applied, decided) = (self.at(id).state.len(), self.facts.decided.len());
        assert!(applied >= decided, "{id} reads @{applied} by its lease, but @{decided} is decided");
        self.coverage.count(Reached::LeaseRead);
        Some(until)
    }

    pub fn transfer(&mut self, from: ReplicaId, to: ReplicaId) -> bool {
        let begun = self.with(from, |group, now, _, out| group.transfer(to, now, out));
        if begun {
            self.coverage.count(Reached::Transfer);
        }
        begun
    }

    /// What the replicas that are up say of themselves.
    pub fn survivors(&self) -> Vec<Survivor> {
        self.replicas.iter().filter_map(|replica| Some(replica.group.as_ref()?.survivor())).collect()
    }

    /// All that a replica has: what it has applied, and what follows in its log.
    pub fn whole_log(&self, id: ReplicaId) -> Vec<Entry> {
        let replica = &self.replicas[id.0 as usize - 1];
        let Some(group) = &replica.group else { return Vec::new() };
        let tail = (group.applied_index().0 + 1..=group.accepted_index().0).map(Index);
        let tail = tail.map(|at| group.entry(at).expect("what is not applied is in memory").clone());
        replica.state.iter().cloned().chain(tail).collect()
    }

    /// Orders `id` to go on without those who are gone. From then on its log is what is decided, whatever the others had
    /// decided by themselves.
    pub fn rescue(&mut self, id: ReplicaId, order: &Rescue) -> Result<(), RescueError> {
        let mut result = Err(RescueError::Mute);
        self.step(id, |group, now, _, out| result = group.rescue(order, now, now, out));
        if result.is_ok() {
            let log = self.whole_log(id);
            self.facts.rescued(log);
        }
        self.carry_out(id);
        result
    }

    /// Saves what is applied as a snapshot, asks for a checkpoint, and forgets the entries if
    /// `trim`. Entries may be forgotten at once: they are still in the durable log.
    pub fn snapshot(&mut self, id: ReplicaId, trim: bool) {
        let Some(file) = self.snapshot_file(id).filter(|_| !self.replicas[id.0 as usize - 1].paused) else {
            return;
        };
        self.say(|| format!("{id} saves a snapshot to {}", file.base.index));
        if trim {
            self.coverage.count(Reached::Trimmed);
        }
        self.at(id).disk.files.insert(file.base.index, file.clone());
        self.with(id, |group, _, _, out| {
            group.append_checkpoint(file.base, file.config.clone(), out);
            if trim {
                group.trim(file.base.index);
            }
        });
    }

    pub(super) fn snapshot_file(&mut self, id: ReplicaId) -> Option<SnapshotFile> {
        let replica = self.at(id);
        let group = replica.group.as_ref()?;
        let base = group.applied_base();
        if base.index == Index::ZERO {
            return None;
        }
        Some(SnapshotFile { base, config: group.applied_config().clone(), state: replica.state.clone() })
    }
}
