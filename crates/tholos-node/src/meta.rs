//! The meta group on this node: the cluster map that everybody has a copy of, and the group that decides it.
//!
//! The group is one more Paxos group, numbered behind the shards; its replicas live beside theirs, in the same log. It
//! decides [`MetaState`]s; what it decides reaches every node as a copy. Each part owns its state: `store` the decided
//! state in the group's keyspace, [`requests`](Requests) the commands whose fate this node waits for, `copies` how the
//! newest map gets here and to the disk, [`mover`](Mover)
//! the moves under way, [`automatic`](Automatic) what begins by itself, [`roll`](Roll) the restart under way,
//! [`survey`](Survey) what all nodes say of themselves, `retired` the end of replicas that are in no set any more,
//! [`rescuer`](Rescuer) what becomes of groups that have lost their majority for good.
//!
//! - N1: a copy only ever gives way to one of a higher epoch.
//! - N2: a replica is dropped only when a map is durable here that says it is retired (R7): a restart cannot bring it back.
//! - N3: serving data never needs the meta group; a node goes on with the copy that it has.

pub(crate) mod automatic;
mod copies;
mod mover;
mod progress;
mod requests;
mod rescuer;
mod retired;
mod roll;
pub(crate) mod store;
mod survey;
mod throttle;

use alloc::sync::Arc;
use alloc::vec::Vec;

use tholos_cluster::{ClusterMap, Epoch, MetaState, NodeId, NodeRow};
use tholos_paxos::{Config, Index, Millis};
use tholos_ring::ShardId;

use self::automatic::Automatic;
use self::mover::Mover;
pub use self::progress::{JobProgress, MoveProgress, STALL_AFTER};
pub(crate) use self::requests::{Requests, is_request};
use self::rescuer::Rescuer;
use self::roll::Roll;
pub(crate) use self::survey::Room;
use self::survey::Survey;
use self::throttle::Throttle;
use crate::config::NodeConfig;

/// The epoch of the map that a cluster is founded with.
const FOUNDED: Epoch = Epoch(1);

/// The newest map that this node has, and what it does to have the newest.
#[derive(Debug)]
pub(crate) struct Meta {
    state: MetaState,
    /// What the groups were founded with, unless this node joined later.
    founded: Option<Vec<Arc<Config>>>,
    /// Who votes in the meta group as far as is recorded.
    voters: Vec<NodeId>,
    /// The map of this epoch, or a later one, is durable here.
    kept: Epoch,
    /// This node as it was told to stand in the map.
    own: Option<NodeRow>,
    pub(crate) requests: Requests,
    pub(crate) mover: Mover,
    automatic: Automatic,
    roll: Roll,
    survey: Survey,
    rescuer: Rescuer,
    throttle: Throttle,
    /// The meta group's replica here is read up to this index.
    seen: Index,
    /// The epoch of what was read there.
    decided: Epoch,
    /// When a newer map was last asked for.
    asked_at: Option<Millis>,
}

impl Meta {
    /// The node has `map` from its disk: the one that its cluster was founded with, or the one it joined by.
    pub(crate) fn new(config: &NodeConfig, map: ClusterMap) -> Meta {
        let own = map.node(config.me).cloned();
        let kept = map.epoch;
        let state = MetaState::founded(map);
        Meta {
            voters: state.voters(state.map.meta_group()).collect(),
            founded: (state.epoch() == FOUNDED).then(|| state.configs.clone()),
            state,
            kept,
            own,
            requests: Requests::default(),
            mover: Mover::default(),
            automatic: Automatic::default(),
            roll: Roll::default(),
            survey: Survey::default(),
            rescuer: Rescuer::default(),
            throttle: Throttle::default(),
            seen: Index::ZERO,
            decided: Epoch(0),
            asked_at: None,
        }
    }

    pub(crate) fn map(&self) -> &ClusterMap {
        &self.state.map
    }

    pub(crate) fn state(&self) -> &MetaState {
        &self.state
    }

    /// What a group was founded with, if this node was there.
    pub(crate) fn founders(&self, group: ShardId) -> Option<&Arc<Config>> {
        self.founded.as_ref()?.get(usize::from(group.0))
    }

    /// Bytes of a snapshot that a replica may be sent in a second: by the order for it; by the own map where none has come
    /// yet, since another led before.
    pub(crate) fn send_rate(&self, id: ShardId, to: NodeId) -> Option<u64> {
        match self.mover.share(id, to) {
            Some(share) => Some(share).filter(|share| *share > 0),
            None => self.throttle.rate(id, to),
        }
    }

    /// The number of the meta group.
    pub(crate) fn group(&self) -> ShardId {
        self.state.map.meta_group()
    }

    /// The nodes that vote in a group as far as is recorded, the preferred leader first.
    pub(crate) fn recorded_set(&self, group: ShardId) -> &[NodeId] {
        if group == self.group() { &self.voters } else { self.state.map.replica_set(group) }
    }
}
