//! What others may know of a group. Nothing here changes it.

use super::{Group, Role};
use crate::acceptor::Lost;
use crate::ballot::{Ballot, Index, Millis, ReplicaId};
use crate::connectivity::{Connectivity, leader_lost};
use crate::leader::Leader;
use crate::lease::Grants;
use crate::log::Base;
use crate::message::{Config, Entry};
use crate::repair::{Asking, Repair};
use crate::rescue::Survivor;

impl Group {
    /// This replica.
    pub fn me(&self) -> ReplicaId {
        self.acceptor.me()
    }

    /// The ballot in which this replica leads, if it does.
    pub fn leading(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leader(leader) => Some(leader.ballot()),
            _ => None,
        }
    }

    /// Whether this replica leads and the no-op of its ballot is decided.
    pub fn serving(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.serving() && !leader.draining())
    }

    /// Whether this replica leads and is handing leadership over.
    pub fn draining(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.draining())
    }

    /// On the leader: how far its own disk has its ballot's log; zero on others.
    pub fn own_durable_index(&self) -> Index {
        match &self.role {
            Role::Leader(leader) => leader.own_durable(),
            _ => Index::ZERO,
        }
    }

    /// The ballot of the leader known, itself included. A hint (R11).
    pub fn leader(&self) -> Option<Ballot> {
        self.leading().or(self.election.leader())
    }

    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// The ballot in which the whole log is accepted.
    pub fn accepted_ballot(&self) -> Ballot {
        self.acceptor.log().accepted()
    }

    /// The last index of the log.
    pub fn accepted_index(&self) -> Index {
        self.acceptor.log().last()
    }

    /// Everything up to here is decided, as far as this replica knows.
    pub fn decided_index(&self) -> Index {
        self.acceptor.log().decided()
    }

    /// Everything up to here was handed out by [`Group::take_decided`].
    pub fn applied_index(&self) -> Index {
        self.acceptor.log().applied()
    }

    /// The last index that is no longer in memory.
    pub fn base(&self) -> Base {
        self.acceptor.log().base()
    }

    /// Index, origin and time of the last applied entry: what a snapshot taken now covers.
    pub fn applied_base(&self) -> Base {
        let applied = self.acceptor.log().applied();
        match self.acceptor.log().get(applied) {
            Some(entry) => Base { index: applied, origin: entry.origin, time: entry.time },
            None => self.acceptor.log().base(),
        }
    }

    /// The configuration in force at the applied index.
    pub fn applied_config(&self) -> &Config {
        self.acceptor.log().applied_config()
    }

    /// Every configuration that a quorum must satisfy now, oldest first: the last one known to be decided, and what
    /// follows it in the log (R6).
    pub fn configs(&self) -> impl Iterator<Item = &Config> {
        self.acceptor.log().configs()
    }

    /// Whether this replica was removed, as far as it knows: nobody heeds it any more (R7).
    pub fn is_retired(&self) -> bool {
        self.acceptor.log().is_retired(self.acceptor.me())
    }

    /// The latest configuration in the log.
    pub fn config(&self) -> &Config {
        self.acceptor.log().latest_config()
    }

    /// Shard time of the last entry in the log.
    pub fn last_time(&self) -> Millis {
        self.acceptor.log().last_time()
    }

    /// Bytes of entries in memory, about.
    pub fn log_bytes(&self) -> usize {
        self.acceptor.log().cost_bytes()
    }

    /// Whether a replica that has applied everything up to `index`, say by a snapshot, can have the rest from memory.
    pub fn resends_after(&self, index: Index) -> bool {
        self.acceptor.log().resends_after(index, self.options.resent_bytes_max)
    }

    /// The ballot in which this replica gives its snapshots to others: to all if it leads in it. If it has no vote, as far as
    /// it knows, only to the candidate of that ballot, which it has promised, and which may know of nobody else who has what is
    /// decided: all of that was in this ballot or a lower one.
    pub fn snapshots_in(&self, is_receiver: impl FnOnce(ReplicaId) -> bool) -> Option<Ballot> {
        let (me, promised) = (self.me(), self.promised());
        let has_no_vote = || self.acceptor.log().walk_rank(me).is_none() && !self.acceptor.is_mute();
        let hands_over = || promised.replica != me && has_no_vote() && is_receiver(promised.replica);
        self.leading().or_else(|| hands_over().then_some(promised))
    }

    /// On the leader: for each other replica, how far it has durably accepted.
    pub fn followers(&self) -> impl Iterator<Item = (ReplicaId, Index)> {
        let leader = match &self.role {
            Role::Leader(leader) => Some(&**leader),
            _ => None,
        };
        leader.into_iter().flat_map(Leader::marks)
    }

    /// The entry at `index`, if it is in memory.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.acceptor.log().get(index)
    }

    /// What this replica waits for until it votes again; `None` unless it has lost records (R20).
    pub fn repair(&self) -> Option<Repair> {
        let asking = self.asking.as_deref();
        Some(match self.acceptor.lost()? {
            Lost::Until(until) => Repair::Waits { until },
            Lost::Unknown if asking.is_some_and(Asking::set_changed) || self.config().voters.is_empty() => {
                Repair::WaitsForId
            }
            Lost::Unknown => {
                let others = || self.config().voters.iter().filter(|voter| **voter != self.me());
                let has_answered = |voter| asking.is_some_and(|asking| asking.has_answered(voter));
                let answered = others().filter(|voter| has_answered(**voter)).count();
                Repair::Asks { answered, needed: others().count() }
            }
        })
    }

    /// The id under which this replica, which has lost records, is to begin anew: the driver puts a [`Group::join`] with it in
    /// its place.
    pub fn renewed(&self) -> Option<ReplicaId> {
        self.asking.as_ref()?.renewed().filter(|_| self.acceptor.is_mute())
    }

    /// What this replica says if others of its group are gone for good (R29).
    pub fn survivor(&self) -> Survivor {
        Survivor::of(self.me(), self.promised(), self.acceptor.log(), self.acceptor.is_mute())
    }

    /// Whether time alone brings nothing: until this replica is told something, or `net` says something else, ticks
    /// may be left out. Said cheaply: it may be `false` once or twice though it need not.
    pub fn is_idle(&self, net: &impl Connectivity) -> bool {
        let (me, log) = (self.me(), self.acceptor.log());
        let heard = |replica| net.hears(me, replica);
        if self.acceptor.is_mute() || self.holds_back() {
            return false;
        }
        match &self.role {
            Role::Candidate(_) => false,
            Role::Leader(leader) => {
                leader.is_idle(&self.acceptor, heard) && log.quorum(|replica| net.reaches(me, replica))
            }
            Role::Follower(following) => self.election.leader().is_some_and(|ballot| {
                following.is_idle(ballot, log)
                    && !log.has_lost_its_vote(ballot.replica)
                    && !leader_lost(log, me, ballot, net)
            }),
        }
    }

    /// Whether something waits here for the end of a grant.
    pub(super) fn holds_back(&self) -> bool {
        self.grants.get().is_some_and(Grants::holds)
    }

    /// Whether some of what this group asked to append is not durable yet.
    pub fn waits_for_disk(&self) -> bool {
        !self.acceptor.all_durable()
    }
}
