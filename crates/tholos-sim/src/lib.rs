//! The whole cluster in one thread from one seed: the cores that ship, a simulated network,
//! disks that lose what was not synced, clocks that disagree, clients that record what they saw.
//!
//! The same seed gives the same run, event for event: its hash is printed as `trace`.

pub mod client;
pub mod faults;
pub mod host;
pub mod net;
pub mod planted;
pub mod random;
pub mod sim;
pub mod snapshots;
