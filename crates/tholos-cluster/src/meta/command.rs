//! What can be asked of the meta group, and why it refuses.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use tholos_paxos::Config;
use tholos_ring::ShardId;

use crate::id::{Epoch, Incarnation, Level, NodeId};
use crate::map::{ClusterMap, MapError, NodeRow};
use crate::meta::{Cause, MOVES_MAX, MetaState, RecoverOrder, Standing, THROTTLE_BYTES_MIN, TITLE_BYTES_MAX};
use crate::moves::Move;

/// A change of the state that the meta group decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaCommand {
    /// The first map; only the first such command counts. Answered with the epoch, 1.
    Found(ClusterMap),
    /// A node with an empty directory wants to be one of the cluster. Answered with its number.
    Join(NodeRow),
    /// A node of the cluster, known by number and incarnation, has other addresses. Answered with the epoch.
    Readdress(NodeRow),
    /// A plan is to be carried out. Answered with the number of its job.
    StartJob(JobOrder),
    /// A move of the running job is ordered: its shard is to carry it out. Answered with the epoch.
    Order {
        /// The job.
        job: u64,
        /// The move's position in it.
        at: u32,
    },
    /// The log of a shard, or of the meta group, says that this is decided. Answered with the epoch.
    Record {
        /// The group.
        group: ShardId,
        /// Its configuration.
        config: Config,
        /// Bytes that were sent for the move that led to it, as far as they were counted.
        bytes: u64,
    },
    /// No further move of the job is ordered. Answered with the epoch; so are the next two.
    Pause(u64),
    /// The job goes on.
    Resume(u64),
    /// The job ends; what it has under way is taken back, and what is recorded stays.
    Cancel(u64),
    /// A node that holds nothing leaves for ever. Answered with the epoch; so are the next ones.
    Remove(NodeId),
    /// Jobs start by themselves no more (`true`), or again.
    Hold(bool),
    /// This node is back, which the running job was started to replace: the job is cancelled, and the node holds a share
    /// again. Changes nothing if no such job runs.
    Returned(NodeId),
    /// This job, which started by itself, gives replicas to a node that is down: it is cancelled, and another may start.
    GiveUp(u64),
    /// A restart of the running job is ordered.
    OrderRestart {
        /// The job.
        job: u64,
        /// The restart's position in it.
        at: u32,
        /// The boot of the node that is to end.
        boot: u64,
    },
    /// A node that was to restart is there again, in another boot, and has caught up.
    RecordRestart {
        /// The job.
        job: u64,
        /// The restart's position in it.
        at: u32,
    },
    /// The job sends so many bytes a second from now on.
    Throttle {
        /// The job.
        job: u64,
        /// 0 if nothing is to hold it back.
        bytes_per_s: u64,
    },
    /// A node with an empty directory wants to be one of the cluster, under a name that another may bear whose directory is
    /// lost for good. It is a new node, with a number of its own (R21); the other one is [lost](Standing::Lost) from then on.
    /// Answered with its number.
    Rejoin(NodeRow),
    /// Nodes are gone for ever, and groups that have lost their majority with them go on without (R29). Answered with the
    /// number of the recovery.
    Recover(RecoverOrder),
    /// The meta group has begun anew, for nothing was left of it, or has lost the end of its log: it goes on with this state,
    /// the newest that was left (R29). Changes nothing where there is one that is as new. Answered with the epoch.
    Restore(Box<MetaState>),
    /// A node's program knows feature levels up to this one. Answered with the epoch; so is the next one.
    Know {
        /// The node.
        node: NodeId,
        /// Its directory.
        incarnation: Incarnation,
        /// The highest level that it knows.
        level: Level,
    },
    /// The feature level rises, if every node knows it.
    Raise(Level),
    /// A group of a recovery cannot be helped as it was planned. Answered with the epoch.
    EndRescue {
        /// The recovery.
        recovery: u64,
        /// The group.
        group: ShardId,
    },
}

/// A plan to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOrder {
    /// The id of the plan.
    pub plan: u64,
    /// The epoch that it was made for: at another one it is refused.
    pub epoch: Epoch,
    /// What was asked for, for people: at most [`TITLE_BYTES_MAX`] bytes.
    pub title: String,
    /// Moves under way at a time, at most.
    pub in_flight_max: u16,
    /// Bytes of snapshots that all moves together may send in a second; 0 if nothing is to hold them back.
    pub bytes_per_s: u64,
    /// Replicas that each shard is meant to have from now on.
    pub replicas: u8,
    /// What becomes of nodes when the job starts.
    pub changes: Vec<NodeChange>,
    /// The moves, in order. Those of the meta group need not be among them: they follow from the changes.
    pub moves: Vec<Move>,
    /// Nodes that leave the cluster when all moves are recorded.
    pub removes: Vec<NodeId>,
    /// Why the job is to start.
    pub cause: Cause,
    /// Nodes that are to be restarted, one after the other, once all moves are recorded.
    pub restarts: Vec<NodeId>,
}

/// What becomes of a node when a job starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// What it is to the placement.
    Standing(NodeId, Standing),
    /// Its weight.
    Weight(NodeId, u16),
    /// Its zone; empty for one of its own.
    Zone(NodeId, String),
}

impl NodeChange {
    /// Whom it is about.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        let (NodeChange::Standing(node, _) | NodeChange::Weight(node, _) | NodeChange::Zone(node, _)) = self;
        *node
    }
}

/// Why a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no map yet.
    NotFounded,
    /// What the command brings is not valid.
    Invalid(MapError),
    /// A node of this name is there, with another directory.
    NameTaken(String),
    /// This directory belonged to a node that has left (R29).
    HasLeft(NodeId),
    /// No number is left for another node.
    NodesUsedUp,
    /// The map has no such node, or one with another directory.
    UnknownNode(NodeId),
    /// There is no such job, or it is forgotten.
    UnknownJob(u64),
    /// The job is finished.
    Finished(u64),
    /// The map has changed since the plan was made.
    MapMoved {
        /// The epoch of the plan.
        planned: Epoch,
        /// The epoch now.
        now: Epoch,
    },
    /// Another job is not finished.
    JobUnderWay(u64),
    /// A job out of its bounds.
    BadJob,
    /// No job is throttled to so few bytes a second.
    BadThrottle(u64),
    /// This move does not fit the replica set of its shard.
    BadMove(Move),
    /// The move, or the restart, cannot be ordered now.
    NotDue {
        /// The job.
        job: u64,
        /// Its position in the job.
        at: u32,
    },
    /// Jobs do not start by themselves now.
    Held,
    /// The node still holds so many replicas.
    StillHolds {
        /// The node.
        node: NodeId,
        /// Replicas of shards and of the meta group.
        replicas: usize,
    },
    /// A recovery is under way.
    RecoveryUnderWay(u64),
    /// There is no such recovery, or it is forgotten.
    UnknownRecovery(u64),
    /// The order for this group does not fit what is recorded of it, or names nodes that are not there.
    BadRescue(ShardId),
    /// The program of this node does not know the cluster's feature level.
    LevelTooLow {
        /// The node.
        node: NodeId,
        /// The highest level that it knows.
        known: Level,
        /// The cluster's.
        level: Level,
    },
    /// The programs of these nodes do not know the level.
    NodesBehind {
        /// The level.
        level: Level,
        /// The nodes.
        nodes: Vec<NodeId>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotFounded => out.write_str("the cluster has no map yet: try again"),
            Refusal::Invalid(error) => error.fmt(out),
            Refusal::NameTaken(name) => write!(
                out,
                "the cluster has a node {name} with another directory: put that directory back; if it is lost for good, start \
                 {name} once with --rejoin yes; if this is another node, give it another name"
            ),
            Refusal::HasLeft(node) => write!(
                out,
                "this directory is that of {node}, which has left the cluster for ever: let the node join with an empty one"
            ),
            Refusal::NodesUsedUp => out.write_str("the cluster has given every number a node can have"),
            Refusal::UnknownNode(node) => write!(out, "the cluster has no node {node} with this directory"),
            Refusal::UnknownJob(job) => {
                write!(out, "there is no job {job}; finished ones are forgotten after a while")
            }
            Refusal::Finished(job) => write!(out, "job {job} is finished"),
            Refusal::MapMoved { planned, now } => {
                write!(out, "the plan was made for the map {planned}, and it is {now} now: plan again")
            }
            Refusal::JobUnderWay(job) => {
                write!(out, "job {job} is not finished: wait for it, or cancel it first")
            }
            Refusal::BadJob => write!(
                out,
                "a job takes at most {MOVES_MAX} moves, {TITLE_BYTES_MAX} bytes of title, and at least one move at a time"
            ),
            Refusal::BadThrottle(bytes_per_s) => write!(
                out,
                "a job is not throttled to {bytes_per_s} bytes a second: it takes {THROTTLE_BYTES_MIN} or more, or 0 for no \
                 throttle; to stop it, pause it"
            ),
            Refusal::BadMove(step) => {
                write!(out, "the move \"{step}\" does not fit the shard's replica set: plan again")
            }
            Refusal::NotDue { job, at } => write!(out, "step {at} of job {job} cannot be ordered now"),
            Refusal::Held => out.write_str("automatic jobs are held: no job starts by itself"),
            Refusal::StillHolds { node, replicas } => {
                write!(out, "{node} still holds {replicas} replicas: drain it first")
            }
            Refusal::RecoveryUnderWay(recovery) => write!(
                out,
                "recovery {recovery} is not finished: wait for it, see tholos cluster recover --history"
            ),
            Refusal::UnknownRecovery(recovery) => write!(out, "there is no recovery {recovery}"),
            Refusal::LevelTooLow { node, known, level } => write!(
                out,
                "the program of {node} knows feature level {known} at most, and the cluster is at {level}: start a later release"
            ),
            Refusal::NodesBehind { level, nodes } => {
                write!(out, "feature level {level} is not known to the programs of")?;
                nodes.iter().try_for_each(|node| write!(out, " {node}"))?;
                out.write_str(": give them a later release first, or remove them")
            }
            Refusal::BadRescue(group) => write!(
                out,
                "the order for {group} does not fit what the map has recorded since: plan the recovery again"
            ),
        }
    }
}

impl core::error::Error for Refusal {}

impl From<MapError> for Refusal {
    fn from(error: MapError) -> Refusal {
        Refusal::Invalid(error)
    }
}
