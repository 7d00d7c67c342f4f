//! Key to slot to shard to replica set: CRC16 slots, hash ring, bounded-load placement that moves the least possible.
//!
//! # Consistent hashing in five minutes
//!
//! Spread keys over N machines by `hash(key) mod N`, and the day a machine is added nearly every key changes its place:
//! `mod 4` and `mod 5` agree for one key in five. *Consistent hashing* (Karger and others, 1997) lets machines and keys
//! fall on one circle. A key belongs to the first machine clockwise from it:
//!
//! ```text
//!                 0 = 2^64
//!               .---+---.
//!           n1 o         x user:7   -> n3, the next clockwise
//!             /           \
//!            |             o n3
//!     user:2 x             |        o  a machine's point
//!     -> n1  |             |        x  a key's hash
//!             \           x user:1  -> n2
//!           n3 o         /
//!               '--o----'
//!                  n2
//! ```
//!
//! A new machine takes from its clockwise neighbours the keys that now meet it first, and no key moves between two old
//! ones. Moving fewer is impossible, because what the new machine holds must have come from somewhere.
//!
//! One point for each machine makes arcs of very different length. So each machine has V *virtual nodes*, points that
//! are hashed from its name and a number, and the lengths average out: the shares of equal machines differ by about
//! 1/√V, which is 9 % for the 128 points here. Twice the weight is twice the points. See [`Ring`].
//!
//! ## The textbook's formula, and why we count from 0
//!
//! Textbooks write `h(x) = (x mod p) + 1`: a number x, made of the key, lands on one of p positions, numbered 1 to p.
//! The `+ 1` only names the positions; nothing about the spread depends on it. We number from 0 and write
//!
//! ```text
//!     h(x) = x mod p,   p = 16384,   x = CRC16/XMODEM of the key, or of its {tag}
//! ```
//!
//! because Redis Cluster does, and so every cluster client can compute a key's position, its *slot*, without asking.
//! Starting at 0 also makes a range of positions a half-open interval, whose length is its end less its start, and
//! turns `mod 16384` into a mask.
//!
//! ## From a circle of keys to shards on a circle
//!
//! A cluster that replicates by consensus cannot move single keys around: each group of replicas keeps one log. So the
//! slots are cut once into Q *shards*, fixed ranges, and what stands on the ring are shards instead of keys:
//!
//! ```text
//!     key -- crc16 --> slot -- * Q >> 14 --> shard -- token --> ring --> replica set
//!     user:1           10778     (Q = 64)    s42                        n2 n4 n3
//! ```
//!
//! The first two steps are arithmetic, the same for ever. Only the last depends on the nodes, and with few large things
//! to place a ring alone is too uneven: [`place()`] bounds the load of each node exactly, and keeps zones apart.
//!
//! ## Why a hash without memory cannot be both even and still
//!
//! A ring moves nothing but what a change makes necessary, because each node's points are its own affair; and for the
//! same reason nobody evens out what chance made uneven. To bound what a node holds, all nodes must be looked at
//! together. But then a new node lowers the bounds of all, and what now finds a node full walks on, to a node that had
//! nothing to do with the change, which is full the sooner. A function of the nodes alone answers the same whatever
//! was there before, so it cannot prefer what need not be copied. Measured, 256 shards of one replica on 10 nodes, 33
//! sets of names (`cd bench && cargo run --release -p bench-ring --bin placement`):
//!
//! | | largest share ÷ mean, median | worst | moved ÷ necessary, a node joins | one leaves |
//! |---|--:|--:|--:|--:|
//! | plain ring, 128 points | 1.29 | 1.60 | 1.00 | 1.00 |
//! | `pingora-ketama` 0.8, 160 points | 1.25 | 1.64 | 1.00 | 1.00 |
//! | `hashring` 0.3.6, 128 points | 1.33 | 1.48 | 1.00 | 1.00 |
//! | `conhash` 0.5.1, 128 points | 1.41 | 1.88 | 1.00 | 1.00 |
//! | `jumphash` 0.1.9 | 1.29 | 1.48 | 1.00 | 5.11 |
//! | `anchorhash` 0.2.2 | 1.33 | 1.64 | 1.00 | 1.00 |
//! | bounded ring without memory | 1.02 | 1.02 | 1.43 | 1.39 |
//! | bounded ring with memory: [`rebalance()`] | 1.02 | 1.02 | 1.00 | 1.00 |
//!
//! So [`rebalance()`] takes the map of before as an input. What may stay stays; what must go goes to the next node
//! clockwise that has room. A cluster holds its map in a log anyway, and a map of 16,384 shards is small.
//!
//! # Example
//!
//! ```
//! use tholos_ring::{Node, NodeIndex, ShardId, place, slot};
//!
//! let nodes = ["n1", "n2", "n3", "n4"].map(|name| Node { name, zone: "", weight: 1 });
//! let map = place(&nodes, 64, 3).unwrap();
//! assert_eq!(slot(b"user:1").number(), 10778);
//! assert_eq!(map.shard_of_key(b"user:1"), ShardId(42));
//! assert_eq!(map.replica_set(ShardId(42)).len(), 3);
//! // Sixty-four shards of three replicas: each of four nodes holds 48.
//! assert_eq!(map.iter().filter(|(_, set)| set.contains(&NodeIndex(0))).count(), 48);
//!
//! // A fifth node takes its share, 38 of 192, and nothing else moves.
//! let nodes = ["n1", "n2", "n3", "n4", "n5"].map(|name| Node { name, zone: "", weight: 1 });
//! let plan = tholos_ring::rebalance(&map, &nodes, 3).unwrap();
//! assert_eq!((plan.moved(), plan.least_possible), (38, 38));
//! assert!(plan.moves.iter().all(|step| step.to == Some(NodeIndex(4))));
//! ```
//!
//! See also `cargo run -p tholos-ring --example ring -- --nodes n1,n2,n3 --keys user:1,user:2 --add n4`.
//!
//! # What never changes
//!
//! [`slot()`], [`shard_of`], [`hash64`], [`shard_token`] and the points of a [`Ring`] are frozen: another result would
//! move data in running clusters. Tests hold them to fixed vectors.

#![no_std]

extern crate alloc;

mod assignment;
mod caps;
mod chain;
mod hash;
mod leaders;
mod place;
mod rebalance;
mod ring;
mod shard_map;
mod slot;
mod topology;

pub use hash::hash64;
pub use place::{PlaceError, place, shard_token};
pub use rebalance::{Move, Plan, moves_between, rebalance};
pub use ring::{Node, NodeIndex, POINTS_PER_WEIGHT, Ring, Successors};
pub use shard_map::ShardMap;
pub use slot::{SLOT_COUNT, ShardId, Slot, crc16, shard_of, slot, slots_of, tag};
