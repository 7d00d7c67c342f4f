//! Recoveries from the loss of a majority: what was ordered, whom it gave up, and how far it is (R29).
//!
//! ```text
//!                 Recover                   Record: the survivor's log has the new set
//!      (nothing) ────────▶ Ordered ─────────────────────────────────────────────────▶ Done
//!                             │ EndRescue: its log is another one than was planned for
//!                             └──────────────────────────────────────────────────────▶ Refused
//! ```
//!
//! - E6: a node that was named lost is never again anything else, and goes when the last recorded set without it is there.
//! - E7: one recovery is under way at a time: a later one ends what an earlier one had still ordered.

use alloc::string::String;
use alloc::vec::Vec;

use tholos_paxos::{Config, Index, Millis, MoveId, ReplicaId, Rescue};
use tholos_ring::ShardId;

use crate::id::{Epoch, NodeId};
use crate::map::{MapError, NAME_BYTES_MAX};
use crate::meta::{Departed, MetaState, Refusal, Standing};

/// Recoveries that are remembered, at most: the oldest are forgotten first, whom they gave up never is.
pub const RECOVERIES_MAX: usize = 16;

/// Set in the numbers of rescues, which no move's number has: a job would have to have the number 2^31.
const RESCUE: u64 = 1 << 63;

/// A plan of a recovery, as the meta group takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverOrder {
    /// The number of the plan: the same plan is not started twice. Below 2^63.
    pub plan: u64,
    /// The name of the node that was asked.
    pub by: String,
    /// Who is gone for ever.
    pub lost: Vec<Departed>,
    /// What is to be done, for each group that has lost its majority.
    pub groups: Vec<RescueOrder>,
}

/// What is to be done for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RescueOrder {
    /// The group.
    pub group: ShardId,
    /// The replica whose log is kept, and which is to go on with it.
    pub replica: ReplicaId,
    /// How far some survivor knew that log to be decided.
    pub decided: Index,
    /// Nothing can have been decided that is not in it.
    pub loses_nothing: bool,
    /// The order to that replica.
    pub rescue: Rescue,
}

/// What the owner of a log is told: the order, and who must not be heard any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RescueAsk {
    /// The number of the plan.
    pub plan: u64,
    /// Who is gone for ever.
    pub lost: Vec<NodeId>,
    /// The order.
    pub order: RescueOrder,
}

/// A recovery that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Its number, from 1.
    pub id: u64,
    /// When it was decided, in milliseconds since 1970.
    pub at: Millis,
    /// The epoch of the map that it was begun with.
    pub epoch: Epoch,
    /// What was ordered.
    pub order: RecoverOrder,
    /// How far each of the order's groups is, in their order.
    pub stages: Vec<RescueStage>,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RescueStage {
    /// The survivor is to go on.
    Ordered,
    /// It has, durably.
    Done,
    /// Its log was another one than was planned for, or another recovery came: nothing was done, plan again.
    Refused,
}

impl RecoverOrder {
    /// Whether a configuration was made by a recovery.
    #[must_use]
    pub const fn made(config: &Config) -> bool {
        config.move_id.0 & RESCUE != 0
    }

    /// The epoch of the map that it was planned for: the newest that any node had which is left.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        Epoch(self.plan >> 32)
    }

    /// What the owner of the log that one of its groups keeps is told.
    #[must_use]
    pub fn ask(&self, order: &RescueOrder) -> RescueAsk {
        let lost = self.lost.iter().map(|lost| lost.id).collect();
        RescueAsk { plan: self.plan, lost, order: order.clone() }
    }

    /// The number of the configurations that this makes.
    #[must_use]
    pub const fn move_id(plan: u64) -> MoveId {
        MoveId(RESCUE | plan)
    }
}

impl Recovery {
    /// The orders that are not carried out yet.
    pub fn open(&self) -> impl Iterator<Item = &RescueOrder> {
        let groups = self.order.groups.iter().zip(&self.stages);
        groups.filter(|(_, stage)| **stage == RescueStage::Ordered).map(|(order, _)| order)
    }

    /// How many groups are at this stage.
    #[must_use]
    pub fn count(&self, stage: RescueStage) -> usize {
        self.stages.iter().filter(|own| **own == stage).count()
    }

    pub(super) fn check(&self) -> Result<(), MapError> {
        let bounded = self.order.by.len() <= NAME_BYTES_MAX && self.order.plan < RESCUE;
        if self.stages.len() != self.order.groups.len() || !bounded {
            return Err(MapError::BadMeta("a recovery is out of its bounds"));
        }
        Ok(())
    }
}

impl MetaState {
    /// The recovery of which something is still to be done, if there is one (E7).
    #[must_use]
    pub fn recovery_under_way(&self) -> Option<&Recovery> {
        self.recoveries.last().filter(|recovery| recovery.open().next().is_some())
    }

    /// Whether a node was given up for ever by a recovery, or has left.
    #[must_use]
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.standing(node) == Some(Standing::Lost) || self.departed.iter().any(|gone| gone.id == node)
    }

    /// Whether the recovery that made a configuration is recorded. Those that are forgotten are not
    /// ([`RECOVERIES_MAX`]).
    #[must_use]
    pub fn knows_recovery_of(&self, config: &Config) -> bool {
        let made = |known: &Recovery| RecoverOrder::move_id(known.order.plan) == config.move_id;
        self.recoveries.iter().any(made)
    }

    pub(super) fn recover(&mut self, order: &RecoverOrder, time: Millis) -> Result<u64, Refusal> {
        // E2
        if let Some(known) = self.recoveries.iter().find(|known| known.order.plan == order.plan) {
            return Ok(known.id);
        }
        for lost in &order.lost {
            let here = self.map.node(lost.id).is_some_and(|row| row.incarnation == lost.incarnation);
            let left = self.departed.iter().any(|gone| gone.id == lost.id);
            if !here && !left {
                return Err(Refusal::UnknownNode(lost.id));
            }
        }
        for rescue in order.groups.iter().filter(|rescue| !self.is_made(order, rescue)) {
            self.check_rescue(rescue, &order.lost)?;
        }
        if let Some(last) = self.recoveries.last_mut() {
            last.stages.iter_mut().filter(|stage| **stage == RescueStage::Ordered).for_each(|stage| {
                *stage = RescueStage::Refused;
            });
        }
        if let Some(job) = self.active_job() {
            // Its plan counted on nodes that are gone.
            let id = job.id;
            self.cancel_job(id, time)?;
        }
        for lost in &order.lost {
            if !self.is_gone(lost.id) {
                self.lose(lost.id)?;
            }
        }
        let id = self.recoveries.last().map_or(0, |last| last.id) + 1;
        if self.recoveries.len() == RECOVERIES_MAX {
            self.recoveries.remove(0);
        }
        let stage =
            |rescue| if self.is_made(order, rescue) { RescueStage::Done } else { RescueStage::Ordered };
        let stages = order.groups.iter().map(stage).collect();
        self.recoveries.push(Recovery { id, at: time, epoch: self.map.epoch, order: order.clone(), stages });
        self.dismiss_lost();
        self.check()?;
        Ok(id)
    }

    /// Whether the set that this is to make is recorded: the meta group goes on before it can be told of the recovery.
    fn is_made(&self, order: &RecoverOrder, rescue: &RescueOrder) -> bool {
        let recorded = self.config(rescue.group);
        recorded.is_some_and(|config| config.move_id == RecoverOrder::move_id(order.plan))
    }

    fn check_rescue(&self, order: &RescueOrder, lost: &[Departed]) -> Result<(), Refusal> {
        let bad = Refusal::BadRescue(order.group);
        let config = &order.rescue.config;
        let gone = |replica: &ReplicaId| lost.iter().any(|lost| lost.id.0 == replica.node());
        let known = |replica: &ReplicaId| self.map.node(NodeId(replica.node())).is_some();
        let fits = (1..=usize::from(crate::map::REPLICAS_MAX)).contains(&config.voters.len())
            && config.learners.is_empty()
            && config.is_voter(order.replica)
            && config.voters.iter().all(|voter| known(voter) && !gone(voter))
            && config.voters.iter().all(|voter| *voter <= config.last_replica);
        match self.config(order.group) {
            Some(recorded) if fits && recorded.number < config.number => Ok(()),
            _ => Err(bad),
        }
    }

    /// The survivor's log was another one than was planned for.
    pub(super) fn end_rescue(&mut self, id: u64, group: ShardId) -> Result<(), Refusal> {
        let recovery = self.recoveries.iter_mut().find(|recovery| recovery.id == id);
        let recovery = recovery.ok_or(Refusal::UnknownRecovery(id))?;
        let groups = recovery.order.groups.iter().zip(&mut recovery.stages);
        for (_, stage) in groups.filter(|(order, _)| order.group == group) {
            // E2: done is done.
            if *stage == RescueStage::Ordered {
                *stage = RescueStage::Refused;
            }
        }
        Ok(())
    }

    /// A set of `group` was recorded that was made for `move_id`.
    pub(super) fn settle_rescue(&mut self, group: ShardId, move_id: MoveId) {
        if let Some(recovery) = self.recoveries.last_mut() {
            let own = RecoverOrder::move_id(recovery.order.plan);
            let groups = recovery.order.groups.iter().zip(&mut recovery.stages);
            for (_, stage) in groups.filter(|(order, _)| order.group == group) {
                if *stage == RescueStage::Ordered {
                    *stage = if move_id == own { RescueStage::Done } else { RescueStage::Refused };
                }
            }
        }
        self.dismiss_lost();
    }

    /// E6
    fn dismiss_lost(&mut self) {
        let lost =
            |at: &usize| self.standings[*at] == Standing::Lost && self.holds(self.map.nodes[*at].id) == 0;
        let gone: Vec<NodeId> =
            (0..self.map.nodes.len()).filter(lost).map(|at| self.map.nodes[at].id).collect();
        for node in gone {
            // Refused while a move of the running job is to bring something there: it goes with the job.
            let _ = self.remove(node);
        }
    }
}
