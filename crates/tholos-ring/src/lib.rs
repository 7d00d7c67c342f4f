//! Key to slot to shard to replica set: CRC16 slots, hash ring, bounded-load placement.

#![no_std]

extern crate alloc;

mod caps;
mod hash;
mod leaders;
mod place;
mod ring;
mod shard_map;
mod slot;

pub use hash::hash64;
pub use place::{PlaceError, place, shard_token};
pub use ring::{Node, NodeIndex, POINTS_PER_WEIGHT, Ring, Successors};
pub use shard_map::ShardMap;
pub use slot::{SLOT_COUNT, ShardId, Slot, crc16, shard_of, slot, slots_of, tag};
