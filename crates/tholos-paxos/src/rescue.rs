//! A group that has lost its majority for good: what its survivors say, which of their logs is kept, and what may be lost.
//!
//! Paxos does not know this case: whatever is done here, the dead may have decided more than the survivors know, and
//! clients may have been told so. So nothing happens by itself; somebody has to say who is gone for ever, and that the
//! rest shall do. What is kept then, of survivors *s* of which all have answered:
//!
//! - With *D* the highest index that any of them knows to be decided, only logs that have the entry at *D* are looked at.
//!   Whoever has it has all before it (P4, P5), so **nothing that a survivor knows to be decided is lost**. Since *D* is
//!   no lower than what the owner of a log knows to be decided itself, that is told by the origins of its tail alone.
//! - Of these it is the log with the highest (accepted ballot, length), as in phase 1. All that was decided below its
//!   ballot is in it (R1), and of what was decided in its ballot no survivor has more, or *D* would say so. Lower
//!   logs hold nothing besides that was ever decided.
//! - If those who are gone are no majority of any configuration that counts in this log, nothing was decided without
//!   a survivor, and **nothing at all is lost**. Let *e* be the first decided entry that is not in the log. Its quorum
//!   held a majority of the last configuration before *e*, which counts in this log, for all before *e* is in it. So a
//!   survivor has accepted *e*, and the log chosen, which ranks no lower, has it: a contradiction.
//!
//! The survivor whose log is kept then takes it for decided, whole, with a new configuration on top that names
//! survivors alone, under a ballot of its own above all that any of them has promised ([`Group::rescue`]). That is one
//! record; an ordinary election follows. A crash before the record is durable undoes everything, and nobody has heard of it.
//!
//! - **X1** The order is for one log: another accepted ballot, length or configuration than what was asked, and it is
//!   refused. So an order that comes late, or after another one, changes nothing.
//! - **X2** The number of the new configuration and the ids that it retires are above all that a survivor knows or
//!   the map has recorded (R7). Replicas that are gone are ignored from then on, should they come back.
//! - **X3** Where anybody knows a configuration that leaves out the owner of the log, the owner goes on alone: whoever hears
//!   of that ignores it for ever (R7), and the others may hear of it between the plan and the order, from the owner itself.
//!   Such an owner may still have more than those who removed it and are left.
//!
//! What no rule here can prevent: those who are gone, alone with each other, would still be a majority of the old set and
//! serve. They must be destroyed first (R29).
//!
//! [`Group::rescue`]: crate::Group::rescue

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;

use crate::ballot::{Ballot, Index, MoveId, ReplicaId};
use crate::log::Log;
use crate::message::Config;

/// What a replica that is left says of itself. Asked of all of them once nobody leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survivor {
    /// Who.
    pub replica: ReplicaId,
    /// The highest ballot that it has promised.
    pub promised: Ballot,
    /// The ballot in which its whole log is accepted.
    pub accepted: Ballot,
    /// The last index of its log.
    pub length: Index,
    /// How far it knows that log to be decided.
    pub decided: Index,
    /// The origins of its entries from the last decided one to the end: each with the first index that has it.
    pub origins: Vec<(Index, Ballot)>,
    /// The configurations that count in its log, oldest first, each with its index.
    pub configs: Vec<(Index, Config)>,
    /// It has lost records (R20): its log is void, and it votes nowhere.
    pub mute: bool,
}

/// An order to the survivor whose log is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rescue {
    /// The number of the latest configuration in its log when it was asked.
    pub number: u64,
    /// The ballot in which its log was accepted then.
    pub accepted: Ballot,
    /// Where its log ended then.
    pub length: Index,
    /// No survivor has promised a higher ballot.
    pub promised: Ballot,
    /// The configuration from then on.
    pub config: Config,
}

impl Rescue {
    /// The order by which a group of which nothing is left begins anew: to a replica that has just [joined] and has nothing.
    ///
    /// [joined]: crate::Group::join
    pub fn anew(config: Config) -> Rescue {
        let nothing = Ballot::ZERO;
        Rescue { number: 0, accepted: nothing, length: Index::ZERO, promised: nothing, config }
    }

    /// Whether it is that order.
    pub fn is_anew(&self) -> bool {
        (self.accepted, self.length) == (Ballot::ZERO, Index::ZERO)
    }
}

/// What can be done for a group, some of whose replicas are gone for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Assessment {
    /// The survivors are a majority: they go on by themselves.
    HasMajority,
    /// No survivor has a log: there is nothing to go on with.
    NothingLeft,
    /// The survivors are no majority, and one of them has the log to keep.
    Rescue(Prospect),
}

/// The log that is kept, and what is known of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Prospect {
    /// Whose log.
    pub replica: ReplicaId,
    /// How far somebody knows it to be decided. What follows, up to [`Rescue::length`], is kept as well; whether it was
    /// decided before is not known.
    pub decided: Index,
    /// Nothing can have been decided without a survivor. Otherwise those who are gone may have decided more.
    pub loses_nothing: bool,
    /// The order.
    pub rescue: Rescue,
}

/// Why an order was not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RescueError {
    /// The replica has lost records, and its log is void.
    Mute,
    /// Its log is another one than when it was asked (X1): ask all of them again.
    NotAsAsked {
        /// The ballot in which it is accepted now.
        accepted: Ballot,
        /// Where it ends now.
        length: Index,
        /// The number of its latest configuration.
        number: u64,
    },
    /// The new configuration does not name the replica.
    NotNamed,
}

impl fmt::Display for RescueError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RescueError::Mute => write!(out, "the replica has lost records itself"),
            RescueError::NotAsAsked { accepted, length, number } => write!(
                out,
                "the log is another one than when it was asked: accepted in {accepted} to {length}, replica set {number}"
            ),
            RescueError::NotNamed => write!(out, "the new replica set does not name the replica"),
        }
    }
}

impl core::error::Error for RescueError {}

impl Survivor {
    pub(crate) fn of(replica: ReplicaId, promised: Ballot, log: &Log, mute: bool) -> Survivor {
        let mut origins: Vec<(Index, Ballot)> = Vec::new();
        for at in (log.decided().0..=log.last().0).map(Index) {
            let origin = log.origin_at(at).unwrap_or_default();
            if origins.last().is_none_or(|(_, last)| *last != origin) {
                origins.push((at, origin));
            }
        }
        Survivor {
            replica,
            promised,
            accepted: log.accepted(),
            length: log.last(),
            decided: log.decided(),
            origins,
            configs: log.configs_at().map(|(at, config)| (at, config.clone())).collect(),
            mute,
        }
    }

    /// Whether its log has the entry of this origin at this index, which is decided. At or below what it knows to be
    /// decided itself, it has what is decided (P2).
    fn has(&self, index: Index, origin: Ballot) -> bool {
        let run = self.origins.iter().rev().find(|(first, _)| *first <= index);
        index < self.decided || (index <= self.length && run.is_some_and(|(_, own)| *own == origin))
    }

    /// Whether it knows a configuration, decided or not, by which `replica` is ignored for ever (R7).
    fn knows_to_be_left_out(&self, replica: ReplicaId) -> bool {
        self.configs.iter().any(|(_, config)| replica <= config.last_replica && !config.names(replica))
    }

    fn latest_number(&self) -> u64 {
        self.configs.iter().map(|(_, config)| config.number).max().unwrap_or(0)
    }

    fn last_replica(&self) -> ReplicaId {
        let known = self.configs.iter().map(|(_, config)| config.last_replica).max().unwrap_or_default();
        known.max(self.replica)
    }
}

impl Assessment {
    /// What can be done with these survivors: all replicas of the group that are left, each once. Whoever is not among
    /// them is taken to be gone for ever. `recorded` is the configuration that the map has last heard of: replicas that it
    /// has retired are passed over, for they are dropped at any time. `move_id` becomes that of the new configuration.
    pub fn of(survivors: &[Survivor], recorded: &Config, move_id: MoveId) -> Assessment {
        let retired = |replica: ReplicaId| replica <= recorded.last_replica && !recorded.names(replica);
        let whole = || survivors.iter().filter(|survivor| !survivor.mute && !retired(survivor.replica));
        // R6: a replica that has joined and knows no configuration yet has none to go on from.
        let informed = || {
            whole().filter(|survivor| survivor.configs.iter().any(|(_, config)| !config.voters.is_empty()))
        };
        let Some(knows_most) = informed().max_by_key(|survivor| survivor.decided) else {
            return Assessment::NothingLeft;
        };
        let decided = knows_most.decided;
        let origin = knows_most.origins.first().map_or(Ballot::ZERO, |(_, origin)| *origin);
        let rank = |survivor: &&Survivor| {
            let votes = survivor.configs.last().is_some_and(|(_, latest)| latest.is_voter(survivor.replica));
            (survivor.accepted, survivor.length, votes, Reverse(survivor.replica))
        };
        let best = informed().filter(|survivor| survivor.has(decided, origin)).max_by_key(rank);
        let best = best.unwrap_or(knows_most);
        let last_decided = best.configs.iter().rposition(|(at, _)| *at <= decided).unwrap_or(0);
        let counting: Vec<&Config> = best.configs[last_decided..].iter().map(|(_, config)| config).collect();
        let is_left = |replica: ReplicaId| whole().any(|survivor| survivor.replica == replica);
        let tells = |replica: ReplicaId| informed().any(|survivor| survivor.replica == replica);
        let known = counting.iter().all(|config| !config.voters.is_empty());
        if known && counting.iter().all(|config| config.majority(is_left)) {
            return Assessment::HasMajority;
        }
        let loses_nothing = known && counting.iter().all(|config| !config.majority(|voter| !tells(voter)));
        let mut voters: Vec<ReplicaId> = Vec::new();
        let old = counting.iter().rev().flat_map(|config| config.voters.iter().copied());
        // X3
        let is_left_out = whole().any(|survivor| survivor.knows_to_be_left_out(best.replica));
        let heeds = |replica: ReplicaId| !is_left_out && is_left(replica);
        for replica in old.filter(|replica| heeds(*replica)).chain([best.replica]) {
            if !voters.contains(&replica) {
                voters.push(replica);
            }
        }
        let number =
            survivors.iter().map(Survivor::latest_number).max().unwrap_or(0).max(recorded.number) + 1;
        let last_replica = survivors.iter().map(Survivor::last_replica).max().unwrap_or_default();
        let last_replica = last_replica.max(recorded.last_replica);
        Assessment::Rescue(Prospect {
            replica: best.replica,
            decided,
            loses_nothing,
            rescue: Rescue {
                number: best.latest_number(),
                accepted: best.accepted,
                length: best.length,
                promised: survivors.iter().map(|survivor| survivor.promised).max().unwrap_or_default(),
                config: Config { number, move_id, voters, learners: Vec::new(), last_replica },
            },
        })
    }
}
