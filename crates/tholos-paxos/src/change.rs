//! Orders to change a replica set, and what is wrong with them.
//!
//! Rules kept here: R7 (an order is for one configuration, and brings replicas under ids that were never used).

use alloc::vec::Vec;
use core::fmt;

use crate::ballot::{MoveId, ReplicaId};
use crate::leader::ProposeError;
use crate::message::Config;

/// Voters of one group, at most; learners likewise.
pub const REPLICAS_MAX: usize = 9;

/// An order to change the replica set of a group (R7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The number of the configuration that it was made for.
    pub number: u64,
    /// The order's own number, chosen by whoever gives it.
    pub move_id: MoveId,
    /// Who votes afterwards, in walk order. New replicas need ids above all that the group has ever used.
    pub voters: Vec<ReplicaId>,
    /// Who gets entries and has no vote.
    pub learners: Vec<ReplicaId>,
    /// Ids up to this one are used up besides, whoever has them. Another order for the same configuration, of which nothing
    /// came because its leader was lost, may have let a replica begin that nobody knows of: let this be the highest id
    /// that such an order could have brought, and whoever has it is retired.
    pub used_up: ReplicaId,
}

/// Why an order was not taken. Nothing was proposed in any of these cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// It was made for another configuration than the latest one (R7): look at the group again.
    NotCurrent {
        /// The number of the latest configuration.
        number: u64,
    },
    /// The last change is not decided yet (R6): try again.
    UnderWay,
    /// Those of the new voters that have what is decided are no majority: the group would stand still until they
    /// have it. Let them learn first, then try again.
    VotersLackEntries,
    /// No voter, more than [`REPLICAS_MAX`] of a kind, or one named twice.
    Malformed,
    /// A replica that the latest configuration does not know has an id that was used before (R7).
    IdUsed {
        /// The replica.
        replica: ReplicaId,
    },
    /// As with any proposal.
    Refused(ProposeError),
}

impl From<ProposeError> for ChangeError {
    fn from(error: ProposeError) -> ChangeError {
        ChangeError::Refused(error)
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::NotCurrent { number } => {
                write!(out, "made for another replica set: the latest one is number {number}")
            }
            ChangeError::UnderWay => write!(out, "the last change of the replica set is still under way"),
            ChangeError::VotersLackEntries => {
                write!(out, "most of the new voters lack what is decided: let them learn first")
            }
            ChangeError::Malformed => {
                write!(out, "1 to {REPLICAS_MAX} voters, at most {REPLICAS_MAX} learners, and none twice")
            }
            ChangeError::IdUsed { replica } => write!(out, "the replica id {replica} was used before"),
            ChangeError::Refused(ProposeError::NotServing) => write!(out, "not led here"),
            ChangeError::Refused(ProposeError::Draining) => write!(out, "leadership is being handed over"),
            ChangeError::Refused(ProposeError::WindowFull) => write!(out, "too much is under way"),
        }
    }
}

impl core::error::Error for ChangeError {}

impl Change {
    /// The configuration that the order makes of `latest`.
    pub(crate) fn config_after(&self, latest: &Config) -> Result<Config, ChangeError> {
        if self.number != latest.number {
            return Err(ChangeError::NotCurrent { number: latest.number });
        }
        let mut all: Vec<ReplicaId> = self.voters.iter().chain(&self.learners).copied().collect();
        all.sort_unstable();
        let twice = all.windows(2).any(|pair| pair[0] == pair[1]);
        let too_many = self.voters.len().max(self.learners.len()) > REPLICAS_MAX;
        if self.voters.is_empty() || too_many || twice {
            return Err(ChangeError::Malformed);
        }
        let used = |replica: &&ReplicaId| **replica <= latest.last_replica && !latest.names(**replica);
        if let Some(replica) = all.iter().find(used) {
            return Err(ChangeError::IdUsed { replica: *replica });
        }
        Ok(Config {
            number: latest.number + 1,
            move_id: self.move_id,
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            last_replica: all
                .into_iter()
                .chain([latest.last_replica, self.used_up])
                .max()
                .unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn ids(numbers: &[u32]) -> Vec<ReplicaId> {
        numbers.iter().copied().map(ReplicaId).collect()
    }

    /// What an order for number 4 makes of it: voters 1, 2, 5 and learner 6, and 7 was used before.
    fn after(number: u64, voters: &[u32], learners: &[u32]) -> Result<Config, ChangeError> {
        let latest = Config {
            number: 4,
            learners: ids(&[6]),
            last_replica: ReplicaId(7),
            ..Config::founding(ids(&[1, 2, 5]))
        };
        let used_up = ReplicaId(0);
        let change =
            Change { number, move_id: MoveId(9), voters: ids(voters), learners: ids(learners), used_up };
        change.config_after(&latest)
    }

    #[test]
    fn an_order_is_for_one_configuration_and_names_each_replica_once() {
        for number in [0, 3, 5] {
            assert_eq!(after(number, &[1], &[]), Err(ChangeError::NotCurrent { number: 4 }));
        }
        for (voters, learners) in
            [(vec![], vec![1]), (vec![1, 1], vec![]), (vec![1, 2], vec![2]), (vec![1], (8..18).collect())]
        {
            assert_eq!(after(4, &voters, &learners), Err(ChangeError::Malformed), "{voters:?} {learners:?}");
        }
    }

    #[test]
    fn ids_are_never_used_again() {
        for id in [3, 4, 7] {
            let replica = ReplicaId(id);
            assert_eq!(after(4, &[1, id], &[]), Err(ChangeError::IdUsed { replica }));
            assert_eq!(after(4, &[1], &[id]), Err(ChangeError::IdUsed { replica }));
        }
        let config = after(4, &[8, 6, 1], &[2]).unwrap();
        assert_eq!((config.number, config.move_id), (5, MoveId(9)));
        assert_eq!((config.voters, config.learners), (ids(&[8, 6, 1]), ids(&[2])));
        assert_eq!(config.last_replica, ReplicaId(8));
        assert_eq!(after(4, &[1], &[]).unwrap().last_replica, ReplicaId(7), "used for ever");
    }
}
