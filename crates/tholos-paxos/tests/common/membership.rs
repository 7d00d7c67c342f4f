//! How replicas come that were not founders: by joining, and by changes of the set.

use tholos_paxos::{Change, ChangeError, Group, Index, MoveId, Outbox, ProposeError, ReplicaId};

use super::disk::Disk;
use super::{Council, Life, Replica};

impl Council {
    /// One more replica, which joins under the next id.
    pub fn join(&mut self) -> ReplicaId {
        let id = self.await_replica(None);
        self.begin(id);
        id
    }

    /// The next id is given, to one in the home of another or to a new one.
    pub(super) fn await_replica(&mut self, home: Option<ReplicaId>) -> ReplicaId {
        let id = ReplicaId(self.size() as u32 + 1);
        self.links.grow();
        self.replicas.push(Replica {
            id,
            group: None,
            outbox: Outbox::default(),
            disk: Disk::default(),
            state: Vec::new(),
            decided_max: Index::ZERO,
            paused: false,
            life: Life::Awaited,
            home: home.unwrap_or(id),
            instead_of: None,
        });
        id
    }

    pub(super) fn begin(&mut self, id: ReplicaId) {
        let options = self.options;
        let replica = self.at(id);
        replica.group = Some(Group::join(id, options, &mut replica.outbox));
        replica.life = Life::Here;
        self.carry_out(id);
    }

    /// Orders a change of the replica set of the leader `id`; replicas that are named and not there join.
    pub fn change(&mut self, id: ReplicaId, voters: &[u32], learners: &[u32]) -> Result<Index, ChangeError> {
        let number = self.at(id).group.as_ref().map_or(0, |group| group.config().number);
        self.change_from(number, id, voters, learners)
    }

    /// The same by an order that was made for the configuration `number`.
    pub fn change_from(
        &mut self,
        number: u64,
        id: ReplicaId,
        voters: &[u32],
        learners: &[u32],
    ) -> Result<Index, ChangeError> {
        while voters.iter().chain(learners).any(|replica| *replica as usize > self.size()) {
            self.join();
        }
        for replica in voters.iter().chain(learners).copied().map(ReplicaId) {
            if self.at(replica).life == Life::Awaited {
                // The order that it was to come by came to nothing, so its id is that of whoever comes next.
                self.at(replica).home = replica;
                self.begin(replica);
            }
        }
        let ids = |replicas: &[u32]| replicas.iter().copied().map(ReplicaId).collect();
        let change = Change {
            number,
            move_id: MoveId(number),
            voters: ids(voters),
            learners: ids(learners),
            used_up: ReplicaId(0),
        };
        let mut result = Err(ChangeError::Refused(ProposeError::NotServing));
        self.with(id, |group, now, _, out| {
            let latest = group.config().number;
            result = group.change_replicas(&change, now, out);
            assert!(
                result.is_err() || number == latest,
                "R7: an order for {number}, but {latest} was in force"
            );
        });
        if let Err(error) = result {
            self.coverage.note_change_refused(error);
        }
        result
    }
}
