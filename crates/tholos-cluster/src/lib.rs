//! The cluster map and its genesis.
//!
//! The map says which nodes there are and which of them hold which shard. It is data with a version, its
//! [`Epoch`]; the meta group decides each next one, and a shard's own log stays the truth of its replica set (R7).

#![no_std]

extern crate alloc;

mod bytes;
mod id;
mod map;

pub use id::{ClusterId, Epoch, Incarnation, NodeId, node_hash_id};
pub use map::{
    ADDRESS_BYTES_MAX, ClusterMap, MapError, NAME_BYTES_MAX, NodeRow, REPLICAS_MAX, WEIGHT_MAX, check_name,
};
