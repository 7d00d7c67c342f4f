//! The commands, one module each.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod hot;
pub(crate) mod job;
pub(crate) mod load;
pub(crate) mod plan;
pub(crate) mod rate;
pub(crate) mod recover;
pub(crate) mod serve;
pub(crate) mod watch;
