//! The cluster map, its genesis, and how it changes.
//!
//! The [`ClusterMap`] says which nodes there are and which of them hold which shard. It is data with a version, its
//! [`Epoch`]; the meta group decides each next one, and a shard's own log stays the truth of its replica set (R7).
//!
//! A [`Genesis`] makes the first map, or finds that there is one already (R26):
//!
//! ```
//! use tholos_cluster::{Answer, ClusterId, Genesis, Incarnation, NodeId, NodeRow, Seed, Settings, Step};
//!
//! let row = |name: &str, incarnation| NodeRow {
//!     id: NodeId(0),
//!     name: name.into(),
//!     zone: String::new(),
//!     weight: 1,
//!     incarnation: Incarnation(incarnation),
//!     gateway: String::new(),
//!     cluster: String::new(),
//!     peer: format!("{name}:7101"),
//!     http: String::new(),
//! };
//! let seeds = ["n1", "n2"].map(|name| Seed { name: name.into(), address: format!("{name}:7101") });
//! let settings = Settings { seeds: seeds.into(), shard_count: 64, replicas: 1 };
//!
//! let mut genesis = Genesis::new(row("n1", 7), settings.clone(), ClusterId([0; 20])).unwrap();
//! assert!(matches!(genesis.step(), Step::Wait { missing, .. } if missing == ["n2"]));
//! let answer = Answer::Empty { row: row("n2", 8), settings };
//! assert!(matches!(genesis.handle_answer("n2", answer), Step::Found(map) if map.nodes.len() == 2));
//! ```

#![no_std]

extern crate alloc;

mod answer;
mod bytes;
mod founding;
mod genesis;
mod id;
mod map;
mod meta;
mod moves;
mod plan;
mod recovery;

pub use answer::Question;
pub use founding::FoundingError;
pub use genesis::{Answer, Genesis, GenesisError, SEEDS_MAX, Seed, Settings, Step};
pub use id::{ClusterId, Epoch, Incarnation, Level, NodeId, node_hash_id};
pub use map::{
    ADDRESS_BYTES_MAX, ClusterMap, MapError, NAME_BYTES_MAX, NodeRow, REPLICAS_MAX, WEIGHT_MAX, check_name,
};
pub use meta::{
    Before, Cause, Departed, JOBS_MAX, Job, JobMove, JobOrder, JobRestart, JobState, MOVES_MAX, MetaCommand,
    MetaState, MoveStage, NodeChange, Phase, RECOVERIES_MAX, RecoverOrder, Recovery, Refusal, RescueAsk,
    RescueOrder, RescueStage, RestartStage, Standing, THROTTLE_BYTES_MIN, TITLE_BYTES_MAX,
};
pub use moves::Move;
pub use plan::{
    Ailment, Check, CheckKind, Facts, Former, LAG_ENTRIES_MAX, MOVE_BYTES_PER_S_DEFAULT, NodeEffect,
    NodeFacts, NodeSaid, Outcome, Plan, PlanError, PlanId, REASONS_MAX, REQUEST_NODES_MAX, Reason, Request,
    ShardFacts, ShardSaid, plan,
};
pub use recovery::{
    GroupRescue, Inventory, RecoveryBlock, RecoveryError, RecoveryPlan, RecoveryRequest, plan_recovery,
    recovery_number,
};
