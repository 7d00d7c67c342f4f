//! What the meta group decides: the cluster map, the jobs that change it, and how both change.
//!
//! The [`MetaState`] is the state machine of one more Paxos group. It changes by [`MetaCommand`]s, entries of that
//! group's log, and by nothing else; each change makes the next [`Epoch`]. A shard's own log stays the truth of its
//! replica set (R7): what stands here is the last one that was heard, and what was ordered.
//!
//! - E1: an applied command raises the epoch by one, or changes nothing at all. A refusal changes nothing. Only what goes on
//!   from a copy ([`MetaCommand::Restore`]) has an epoch above the copy's.
//! - E2: a command that was applied may be applied again: who gave it gets the same answer, and nothing changes. So
//!   whoever does not know the fate of one gives it again.
//! - E3: numbers of nodes and jobs are never given twice.
//! - E4: the recorded configuration of a shard only ever has a higher number than the one before.
//! - E5: one job runs at a time, and of each shard one move.
//!
//! A move is *ordered*, *recorded* or *cancelled* here; how far it has come in between is read from the shard's log.
//!
//! ```text
//!               StartJob            Order                      Record: the set is as the move wants it
//!      (nothing) ──────▶ Waiting ──────────▶ Ordered ───────────────────────────────────────▶ Recorded
//!                           │ Cancel            │ Record: the set goes on without the move
//!                           └──────────────▶ Cancelled ◀──┘
//! ```
//!
//! A job can restart nodes instead, one after the other. A restart is *ordered* for one boot of its node, and *recorded* when
//! another boot of it is there.

mod apply;
mod codec;
mod command;
mod job;
mod level;
mod recovery;
mod voters;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tholos_paxos::{Config, ReplicaId, Serial};
use tholos_ring::ShardId;

pub use self::command::{JobOrder, MetaCommand, NodeChange, Refusal};
pub use self::job::{
    Before, Cause, Job, JobMove, JobRestart, JobState, MoveStage, RestartStage, THROTTLE_BYTES_MIN,
};
pub use self::recovery::{RECOVERIES_MAX, RecoverOrder, Recovery, RescueAsk, RescueOrder, RescueStage};
use crate::id::{Epoch, Incarnation, Level, NodeId};
use crate::map::{ClusterMap, MapError, NodeRow, REPLICAS_MAX};

/// Jobs that are remembered, the running one included.
pub const JOBS_MAX: usize = 16;
/// Moves of one job, at most: every replica of the largest cluster once.
pub const MOVES_MAX: usize = 16_384 * REPLICAS_MAX as usize;
/// Bytes in the title of a job, at most.
pub const TITLE_BYTES_MAX: usize = 256;

/// What a node is to the placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It holds replicas by its weight.
    Member,
    /// It has joined and is given nothing until a plan says so.
    Spare,
    /// It is to hold nothing any more.
    Draining,
    /// Its directory is lost for good: a node with another one bears its name since ([`MetaCommand::Rejoin`]), or a recovery
    /// gave it up ([`MetaCommand::Recover`], R29). It is to hold nothing any more, is reached nowhere, refused by all, and
    /// leaves when it holds nothing.
    Lost,
}

/// What a node that is up is about to do, as far as the map tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It holds what it is to hold, or gets more of it.
    Settled,
    /// All that it holds has come to it by the job that is under way, and more is to come.
    Joining,
    /// It holds nothing, and is given nothing until a plan says so.
    Spare,
    /// It is to hold nothing any more.
    Leaving,
}

/// A node that is gone for ever (R29): its number and its directory are never taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Its number.
    pub id: NodeId,
    /// Its name, which another node may bear since.
    pub name: alloc::string::String,
    /// Its directory.
    pub incarnation: Incarnation,
}

/// The state that the meta group decides: what the decided commands make, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaState {
    /// The map; its epoch is the version of all of this. Its replica sets are the voters of `configs`.
    pub map: ClusterMap,
    /// Of each node of the map, in its order.
    pub standings: Vec<Standing>,
    /// Who has left, by ascending id.
    pub departed: Vec<Departed>,
    /// Of each shard, and after them of the meta group itself, the last configuration recorded.
    pub configs: Vec<Arc<Config>>,
    /// The jobs, oldest first; only the last may be unfinished.
    pub jobs: Vec<Job>,
    /// The number of the last job ever.
    pub last_job: u64,
    /// Whether no job starts by itself until somebody says otherwise.
    pub held: bool,
    /// The recoveries, oldest first; only of the last may something be still to do.
    pub recoveries: Vec<Recovery>,
    /// The feature level.
    pub level: Level,
    /// Nodes whose programs know more than [`Level::FIRST`], and how much, by ascending id.
    pub levels: Vec<(NodeId, Level)>,
}

impl ClusterMap {
    /// The number that the meta group has beside the shards.
    #[must_use]
    pub const fn meta_group(&self) -> ShardId {
        ShardId(self.shard_count)
    }
}

/// These configurations, of which those that are the same are one: most groups of a small cluster have the replica set of
/// many others.
pub(crate) fn shared(configs: impl IntoIterator<Item = Config>) -> Vec<Arc<Config>> {
    let mut known: BTreeMap<Vec<ReplicaId>, Arc<Config>> = BTreeMap::new();
    let share = |config: Config| match known.get(&config.voters) {
        Some(same) if **same == config => Arc::clone(same),
        _ => {
            let config = Arc::new(config);
            known.insert(config.voters.clone(), Arc::clone(&config));
            config
        }
    };
    configs.into_iter().map(share).collect()
}

impl MetaState {
    /// The state that a cluster is founded with: its first map, all nodes members, nothing ever changed.
    #[must_use]
    pub fn founded(map: ClusterMap) -> MetaState {
        let founders = |set: &[NodeId]| {
            Config::founding(set.iter().map(|node| ReplicaId::new(node.0, Serial(0))).collect())
        };
        let meta_group = founders(&voters::founding(&map));
        let configs = shared(map.shards.iter().map(|set| founders(set)).chain([meta_group]));
        MetaState {
            standings: alloc::vec![Standing::Member; map.nodes.len()],
            departed: Vec::new(),
            configs,
            jobs: Vec::new(),
            last_job: 0,
            held: false,
            recoveries: Vec::new(),
            level: Level::FIRST,
            levels: Vec::new(),
            map,
        }
    }

    /// Its version.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.map.epoch
    }

    /// The last recorded configuration of a shard or of the meta group; `None` if there is no such group.
    #[must_use]
    pub fn config(&self, group: ShardId) -> Option<&Config> {
        self.configs.get(usize::from(group.0)).map(|config| &**config)
    }

    /// The nodes that voted in a group when that was recorded last, in walk order.
    pub fn voters(&self, group: ShardId) -> impl Iterator<Item = NodeId> + '_ {
        self.config(group).into_iter().flat_map(|config| &config.voters).map(|replica| NodeId(replica.node()))
    }

    /// Whether a replica is out of its group for ever, as far as is recorded: it may be dropped, and must not come back.
    #[must_use]
    pub fn is_retired(&self, group: ShardId, replica: ReplicaId) -> bool {
        self.config(group).is_some_and(|config| replica <= config.last_replica && !config.names(replica))
    }

    /// What a node is to the placement; `None` if the map does not have it.
    #[must_use]
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        let at = self.map.nodes.binary_search_by_key(&node, |row| row.id).ok()?;
        self.standings.get(at).copied()
    }

    /// The job that is not finished, if there is one.
    #[must_use]
    pub fn active_job(&self) -> Option<&Job> {
        self.jobs.last().filter(|job| !job.state.is_finished())
    }

    /// A job by its number.
    #[must_use]
    pub fn job(&self, id: u64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// Replicas that a node holds of shards and of the meta group, learners included, as far as is recorded.
    #[must_use]
    pub fn holds(&self, node: NodeId) -> usize {
        self.configs.iter().filter(|config| config.replica_at(node.0).is_some()).count()
    }

    /// What a node is about to do; `None` if the map does not have it.
    #[must_use]
    pub fn phase(&self, node: NodeId) -> Option<Phase> {
        Some(match self.standing(node)? {
            Standing::Spare | Standing::Draining if self.holds(node) == 0 => Phase::Spare,
            // A spare that holds something was to give it up by a job that ended early.
            Standing::Spare | Standing::Draining | Standing::Lost => Phase::Leaving,
            Standing::Member => {
                let coming = || self.active_job().into_iter().flat_map(move |job| job.coming_to(node));
                let got = coming().filter(|stage| *stage == MoveStage::Recorded).count();
                let more = coming().any(|stage| stage != MoveStage::Recorded);
                // Learners count among what it holds, and are not recorded yet.
                let votes = |group| self.voters(group).any(|voter| voter == node);
                let held = (0..self.configs.len()).filter(|at| votes(ShardId(*at as u16))).count();
                if more && got == held { Phase::Joining } else { Phase::Settled }
            }
        })
    }

    /// Who bears the name since that a lost node bore; `None` if it is not lost, or nobody does.
    #[must_use]
    pub fn heir_of(&self, lost: NodeId) -> Option<&NodeRow> {
        let was = self.map.node(lost).filter(|_| self.standing(lost) == Some(Standing::Lost))?;
        self.map.nodes.iter().find(|row| apply::lost_name(&row.name, lost) == was.name)
    }

    /// Checks what the parts owe each other; the map's own invariants included.
    ///
    /// # Errors
    ///
    /// The first thing found to be wrong.
    pub fn check(&self) -> Result<(), MapError> {
        self.map.check()?;
        if self.standings.len() != self.map.nodes.len() {
            return Err(MapError::BadMeta("not every node has a standing"));
        }
        if self.configs.len() != self.map.shards.len() + 1 {
            return Err(MapError::BadMeta("not every shard has a configuration"));
        }
        for (at, config) in self.configs.iter().enumerate() {
            let group = ShardId(at as u16);
            let known = |replica: &ReplicaId| self.map.node(NodeId(replica.node())).is_some();
            let sized = (1..=usize::from(REPLICAS_MAX)).contains(&config.voters.len())
                && config.learners.len() <= usize::from(REPLICAS_MAX);
            let all = || config.voters.iter().chain(&config.learners);
            if !sized || !all().all(known) || all().any(|replica| *replica > config.last_replica) {
                return Err(MapError::BadReplicaSet(group));
            }
            if group != self.map.meta_group() && !self.voters(group).eq(self.map.shards[at].iter().copied()) {
                return Err(MapError::BadReplicaSet(group));
            }
        }
        let ascend = |pair: &[Departed]| pair[0].id < pair[1].id;
        if !self.departed.windows(2).all(ascend)
            || self.departed.iter().any(|gone| self.map.node(gone.id).is_some())
        {
            return Err(MapError::BadMeta("a node that has left is still there"));
        }
        let last = self.jobs.last().map_or(self.last_job, |job| job.id);
        if last != self.last_job
            || self.jobs.len() > JOBS_MAX
            || !self.jobs.windows(2).all(|pair| pair[0].id < pair[1].id && pair[0].state.is_finished())
        {
            return Err(MapError::BadMeta("the jobs are not in order"));
        }
        if self.recoveries.len() > RECOVERIES_MAX
            || !self.recoveries.windows(2).all(|pair| pair[0].id < pair[1].id)
        {
            return Err(MapError::BadMeta("the recoveries are not in order"));
        }
        self.check_levels()?;
        self.recoveries.iter().try_for_each(Recovery::check)?;
        self.jobs.iter().try_for_each(Job::check)
    }
}
