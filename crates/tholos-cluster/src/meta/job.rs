//! Jobs: the moves of one plan, in their order, and how far they are.

use alloc::string::String;
use alloc::vec::Vec;

use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::id::NodeId;
use crate::map::{MapError, REPLICAS_MAX};
use crate::meta::{MOVES_MAX, NodeChange, TITLE_BYTES_MAX};
use crate::moves::Move;

/// Bytes a second that a job is throttled to, at least: with less, a replica would wait for the next piece of a snapshot
/// longer than others wait for news of it.
pub const THROTTLE_BYTES_MIN: u64 = 1_000_000;

/// Whether a job may be throttled to this: not at all (0), or to so many bytes a second.
pub(super) const fn is_throttle(bytes_per_s: u64) -> bool {
    bytes_per_s == 0 || bytes_per_s >= THROTTLE_BYTES_MIN
}

/// A plan that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number, from 1.
    pub id: u64,
    /// The id of the plan: the same plan is not started twice.
    pub plan: u64,
    /// What was asked for, for people.
    pub title: String,
    /// Where it stands.
    pub state: JobState,
    /// Moves under way at a time, at most.
    pub in_flight_max: u16,
    /// Its moves, in the order in which they are ordered.
    pub moves: Vec<JobMove>,
    /// Nodes that leave the cluster when all moves are recorded.
    pub removes: Vec<NodeId>,
    /// Why it was started.
    pub cause: Cause,
    /// Nodes that are restarted, one after the other in this order.
    pub restarts: Vec<JobRestart>,
    /// Bytes of snapshots that all its moves together may send in a second; 0 if nothing holds them back. At least
    /// [`THROTTLE_BYTES_MIN`] otherwise.
    pub bytes_per_s: u64,
    /// When it was started, in the meta group's time: milliseconds since 1970.
    pub started_at: Millis,
    /// When it was finished, in the same time; 0 until then.
    pub ended_at: Millis,
    /// Bytes that its recorded moves have sent, as far as leaders of shards have counted them.
    pub moved_bytes: u64,
    /// What it changes, as it was before; `None` if that is not known.
    pub before: Option<Before>,
}

/// Why a job was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// Somebody asked for it.
    #[default]
    Operator,
    /// These nodes were down for too long, and others take over what they hold.
    Lost(Vec<NodeId>),
    /// Nodes have come that hold less than their share.
    Placement,
}

impl Cause {
    /// Whether the cluster started the job by itself.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        *self != Cause::Operator
    }
}

/// A restart of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobRestart {
    /// Which node.
    pub node: NodeId,
    /// How far it is.
    pub stage: RestartStage,
}

/// How far a restart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestartStage {
    /// Not begun.
    Waiting,
    /// The node is to restart.
    Ordered {
        /// The boot that is to end: a node that is in another one has done it.
        boot: u64,
    },
    /// Another boot of the node is there.
    Recorded,
    /// It will not be ordered any more.
    Cancelled,
}

impl JobRestart {
    /// Whether nothing will be done for it any more.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.stage, RestartStage::Recorded | RestartStage::Cancelled)
    }
}

/// What a job changes, as it was when the job was started: what it takes to undo it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Replicas that each shard was meant to have.
    pub replicas: u8,
    /// Of each node that is changed, what it was.
    pub nodes: Vec<NodeChange>,
    /// Of each shard of which replicas move, who held it, in walk order; by ascending shard.
    pub sets: Vec<(ShardId, Vec<NodeId>)>,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Moves are ordered as others are done.
    Running,
    /// No further move is ordered.
    Paused,
    /// No further move is ordered, and those under way are taken back.
    Cancelling,
    /// All is done that could be.
    Done,
    /// It was cancelled, and nothing of it is under way.
    Cancelled,
}

/// A move of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobMove {
    /// What moves.
    pub what: Move,
    /// How far it is, as far as the meta group knows it (R7).
    pub stage: MoveStage,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveStage {
    /// Not begun.
    Waiting,
    /// The shard is to carry it out.
    Ordered {
        /// The number of the configuration that the order is for.
        number: u64,
    },
    /// The shard's replica set is as it should be.
    Recorded,
    /// It was taken back, or its shard went another way.
    Cancelled,
}

impl JobState {
    /// Whether nothing will happen any more.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, JobState::Done | JobState::Cancelled)
    }
}

impl JobMove {
    /// Whether its shard is to carry it out, or to take it back.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.stage, MoveStage::Ordered { .. })
    }
}

impl Job {
    /// How many of its moves are at this stage; the number of an order counts for nothing.
    #[must_use]
    pub fn count(&self, stage: MoveStage) -> usize {
        let same = |other: MoveStage| core::mem::discriminant(&other) == core::mem::discriminant(&stage);
        self.moves.iter().filter(|step| same(step.stage)).count()
    }

    /// Replicas of shards that it copies to other nodes, and how many of these are there. The meta group, which stands at
    /// `meta_group`, finds its voters by itself: no plan counts them.
    #[must_use]
    pub fn copies(&self, meta_group: ShardId) -> (usize, usize) {
        let copies = || self.moves.iter().filter(|step| step.what.is_copy() && step.what.shard != meta_group);
        (copies().count(), copies().filter(|step| step.stage == MoveStage::Recorded).count())
    }

    /// How many of its moves are under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.moves.iter().filter(|step| step.is_under_way()).count()
    }

    /// The stages of its moves that bring a replica to a node, those left out that were cancelled.
    pub(super) fn coming_to(&self, node: NodeId) -> impl Iterator<Item = MoveStage> + '_ {
        let comes = move |step: &&JobMove| step.what.is_copy() && step.what.to == Some(node);
        self.moves.iter().filter(comes).map(|step| step.stage).filter(|stage| *stage != MoveStage::Cancelled)
    }

    /// The positions of the moves that may be ordered now, first to last: as many as the bound leaves room for, and none
    /// whose shard has an earlier one that is not through.
    #[must_use]
    pub fn due(&self) -> Vec<u32> {
        let mut room = usize::from(self.in_flight_max).saturating_sub(self.in_flight());
        if self.state != JobState::Running || room == 0 {
            return Vec::new();
        }
        let mut busy = alloc::collections::BTreeSet::new();
        let mut due = Vec::new();
        for (at, step) in (0..).zip(&self.moves) {
            if room == 0 {
                break;
            }
            let open = matches!(step.stage, MoveStage::Waiting | MoveStage::Ordered { .. });
            if open && busy.insert(step.what.shard) && step.stage == MoveStage::Waiting {
                due.push(at);
                room -= 1;
            }
        }
        due
    }

    /// The restart that is under way or comes next, with its position; `None` while moves are to be made, and when there is
    /// none.
    #[must_use]
    pub fn next_restart(&self) -> Option<(u32, &JobRestart)> {
        let open = |step: &JobMove| step.is_under_way() || step.stage == MoveStage::Waiting;
        if self.state.is_finished() || self.moves.iter().any(open) {
            return None;
        }
        (0..).zip(&self.restarts).find(|(_, restart)| !restart.is_finished())
    }

    /// The number under which a shard's log carries one of its moves out.
    #[must_use]
    pub const fn move_id(&self, at: u32) -> u64 {
        self.id << 32 | at as u64
    }

    pub(super) fn check(&self) -> Result<(), MapError> {
        let open =
            self.moves.iter().any(|step| matches!(step.stage, MoveStage::Waiting) || step.is_under_way())
                || !self.restarts.iter().all(JobRestart::is_finished);
        if self.moves.len() > MOVES_MAX || self.title.len() > TITLE_BYTES_MAX || self.in_flight_max == 0 {
            return Err(MapError::BadMeta("a job is out of its bounds"));
        }
        if self.state.is_finished() && open {
            return Err(MapError::BadMeta("a finished job has something to do"));
        }
        if self.state.is_finished() != (self.ended_at > Millis(0)) {
            return Err(MapError::BadMeta("a job has ended at no time, or has a time and has not ended"));
        }
        if !is_throttle(self.bytes_per_s) {
            return Err(MapError::BadMeta("a job is throttled out of bounds"));
        }
        let sets = self.before.as_ref().map_or(&[][..], |before| &before.sets);
        if !sets.windows(2).all(|pair| pair[0].0 < pair[1].0)
            || !sets.iter().all(|(_, set)| (1..=usize::from(REPLICAS_MAX)).contains(&set.len()))
        {
            return Err(MapError::BadMeta("what was before a job is out of bounds"));
        }
        Ok(())
    }
}
