//! What a replica of any role remembers of elections: ballots seen, the leader heard, candidacies failed.
//!
//! None of it is durable and none of it decides what is safe: a candidate's ballot is above the one that
//! it has *promised* (R2), which the acceptor keeps. Rules kept here: R9 (who may stand, and when), R11 (the leader is
//! a hint, and a lower ballot does not hide a higher one).

use crate::ballot::{Ballot, Millis, ReplicaId};
use crate::options::Options;

#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Election {
    /// The highest ballot seen in any message: a candidate outbids it.
    highest_seen: Ballot,
    /// That of the leader heard last, in the ballot promised last; zero, in which nobody leads, if there is none.
    leader: Ballot,
    /// Candidacies in a row that came to nothing.
    failures: u32,
}

impl Election {
    pub(crate) fn leader(&self) -> Option<Ballot> {
        Some(self.leader).filter(|leader| *leader > Ballot::ZERO)
    }

    /// A message named `ballot`.
    pub(crate) fn see(&mut self, ballot: Ballot) {
        self.highest_seen = self.highest_seen.max(ballot);
    }

    /// A ballot of `me` above all that was seen, and above what was promised.
    pub(crate) fn next_ballot(&self, me: ReplicaId, promised: Ballot) -> Ballot {
        self.highest_seen.max(promised).next_for(me)
    }

    /// For planted faults only: whether a candidate can take what it has promised for a ballot of its own.
    pub(crate) fn takes_promised(&self, me: ReplicaId, promised: Ballot) -> bool {
        promised.replica == me && self.highest_seen <= promised
    }

    /// The leader of `ballot` is heard, or is this replica.
    pub(crate) fn follow(&mut self, ballot: Ballot) {
        // R11: a lower ballot that was not deposed here yet does not hide a higher one.
        self.leader = self.leader.max(ballot);
        self.failures = 0;
    }

    /// Nobody leads, as far as this replica knows.
    pub(crate) fn lose_leader(&mut self) {
        self.leader = Ballot::ZERO;
    }

    /// Who canvasses for `ballot`, or has promised it, leads in no lower one: it restarted, or stepped down, and
    /// nobody missed it.
    pub(crate) fn handle_higher(&mut self, from: ReplicaId, ballot: Ballot) {
        if self.leader.replica == from && self.leader < ballot {
            self.lose_leader();
        }
    }

    /// A candidate of `ballot` says that a quorum has lost whoever leads in a lower one.
    pub(crate) fn handle_prepared(&mut self, ballot: Ballot) {
        if self.leader < ballot {
            self.lose_leader();
        }
    }

    /// Whoever lives where `from` does has lost its records and does not lead. It may not even know under which id it did.
    pub(crate) fn handle_lost(&mut self, from: ReplicaId) {
        if self.leader.replica.node() == from.node() {
            self.lose_leader();
        }
    }

    /// A candidacy came to nothing.
    pub(crate) fn fail(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.lose_leader();
    }

    /// How long a candidacy lasts. Twice as long after each that came to nothing, up to eight times: the promise that one
    /// waits for may be with a slow disk.
    pub(crate) fn candidacy(&self, options: &Options) -> Millis {
        Millis(options.election_timeout.0 << self.failures.min(3))
    }

    /// How long a voter of this rank waits after it has lost its leader. After failures the
    /// order is shuffled, deterministically, and stretched, so that candidates do not go on
    /// outbidding each other.
    pub(crate) fn patience(&self, options: &Options, me: ReplicaId, rank: u64) -> Millis {
        let stagger = options.stagger.0;
        if self.failures == 0 {
            return Millis(rank * stagger);
        }
        let mixed = (u64::from(me.0) << 32 | u64::from(self.failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let steps = 2 + 2 * u64::from(self.failures.min(4));
        Millis((mixed >> 32) % (steps * stagger).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, replica: u32) -> Ballot {
        Ballot { round, replica: ReplicaId(replica) }
    }

    #[test]
    fn a_new_ballot_is_above_what_was_seen_and_what_was_promised() {
        let mut election = Election::default();
        for (seen, promised) in [(ballot(3, 2), ballot(1, 1)), (ballot(3, 2), ballot(5, 3))] {
            election.see(seen);
            let next = election.next_ballot(ReplicaId(1), promised);
            assert!(next > seen && next > promised && next.replica == ReplicaId(1), "{next}");
        }
    }

    #[test]
    fn a_lower_ballot_does_not_hide_a_higher_leader() {
        let mut election = Election::default();
        election.follow(ballot(5, 2));
        election.follow(ballot(4, 3));
        assert_eq!(election.leader(), Some(ballot(5, 2)));
    }

    #[test]
    fn what_the_leader_itself_says_loses_it_and_a_quorum_that_has_lost_it() {
        let mut election = Election::default();
        election.follow(ballot(5, 2));
        election.handle_higher(ReplicaId(3), ballot(6, 3));
        election.handle_higher(ReplicaId(2), ballot(4, 2));
        election.handle_lost(ReplicaId(3));
        assert_eq!(election.leader(), Some(ballot(5, 2)));
        election.handle_higher(ReplicaId(2), ballot(6, 2));
        assert_eq!(election.leader(), None);
        election.follow(ballot(7, 2));
        election.handle_prepared(ballot(6, 3));
        assert_eq!(election.leader(), Some(ballot(7, 2)));
        election.handle_lost(ReplicaId(2));
        assert_eq!(election.leader(), None);
        election.follow(ballot(8, 2));
        election.handle_prepared(ballot(9, 3));
        assert_eq!(election.leader(), None);
    }

    #[test]
    fn voters_stand_in_walk_order_until_one_fails() {
        let options = Options::default();
        let mut election = Election::default();
        let patience = |election: &Election| {
            [0, 1, 2].map(|rank| election.patience(&options, ReplicaId(rank + 1), rank.into()))
        };
        assert_eq!(patience(&election), [Millis(0), Millis(40), Millis(80)]);
        election.fail();
        // Shuffled by replica, and within the stretch.
        assert!(patience(&election).iter().all(|patience| *patience < Millis(4 * 40)));
        assert_ne!(patience(&election), [Millis(0), Millis(40), Millis(80)]);
        election.follow(ballot(1, 1));
        assert_eq!(patience(&election), [Millis(0), Millis(40), Millis(80)]);
    }
}
