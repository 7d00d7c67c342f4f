//! The whole cluster in one thread from one seed: the cores that ship, a simulated network,
//! disks that lose what was not synced, clocks that disagree, clients that record what they saw.
//!
//! The same seed gives the same run, event for event: its hash is printed as `trace`.

pub mod agreement;
pub mod client;
pub mod coverage;
pub mod crowd;
pub mod disaster;
pub mod durable;
pub mod elastic;
pub mod faults;
pub mod founding;
pub mod host;
pub mod log_limits;
pub mod mortals;
pub mod moves;
pub mod net;
pub mod observer;
pub mod partitions;
pub mod plan;
pub mod planted;
pub mod queue;
pub mod random;
pub mod report;
pub mod shrink;
pub mod sim;
pub mod snapshots;
pub mod spread;
pub mod trail;
