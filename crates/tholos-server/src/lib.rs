//! The driver: tokio tasks and threads around the node core.
//!
//! A core decides, this crate does: it reads the clocks, owns the sockets, the files and the threads, and carries out
//! what [`tholos_node::Node`] asks for. Nothing here decides anything about the protocol.
//!
//! ```text
//!  clients ── client_task ──▶ worker_task (owns the Node) ──▶ wal_task (owns the log)
//!                 ▲               │     ▲  │                        │
//!                 └── replies ────┘     │  └──▶ snapshot_task       │
//!                                       └───── durable up to ◀──────┘
//!  other nodes ◀── tholos-rpc ──▶ peers, in the worker's task
//! ```
//!
//! Every channel is bounded and full means that its sender waits, with two exceptions that hold one value each: how far
//! the log is durable, and what a client's output buffer holds, whose bound ends the client instead.

mod admin;
mod bar_file;
mod client_output;
mod client_task;
mod clock;
pub mod config;
mod counted_file;
mod dev;
mod genesis;
mod hot;
mod jobs;
mod join;
mod load;
mod map_file;
mod meter;
mod metrics;
mod node_dir;
mod notices;
mod open_files;
mod peers;
mod plan;
mod ports;
mod recover;
mod recovery;
mod room;
mod serve;
mod server;
mod snapshot_files;
mod snapshot_task;
mod spare_thread;
mod status;
mod sync_pace;
mod upgrade;
mod wal_task;
mod worker_task;

pub use client_task::ClientLimits;
pub use dev::{
    Added, Addresses, DevCluster, DevError, DevSettings, Left, NODES_MAX, NewNode, NodeAddresses, Wiped,
};
pub use hot::HotKeyReport;
pub use load::LeaderMove;
pub use node_dir::{DIRECTORY_FORMAT, DirectoryError, Identity, NodeDir};
pub use plan::{CheckReport, EffectReport, LeaderReport, MoveReport, PlanReport};
pub use ports::PortError;
pub use recover::RecoverError;
pub use serve::Server;
pub use server::{
    NodeHandle, NodeSettings, PeerPort, RunningNode, StartError, Tuning, start_node, start_node_on,
};
pub use status::{ClusterStatus, Location, NodeReport, NodeState, NodeStatus, ShardReport, Verdict};
