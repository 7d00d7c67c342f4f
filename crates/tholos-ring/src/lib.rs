//! Key to slot to shard to replica set: CRC16 slots, hash ring, bounded-load placement.

#![no_std]

extern crate alloc;

mod hash;
mod ring;
mod slot;

pub use hash::hash64;
pub use ring::{Node, NodeIndex, POINTS_PER_WEIGHT, Ring, Successors};
pub use slot::{SLOT_COUNT, ShardId, Slot, crc16, shard_of, slot, slots_of, tag};
