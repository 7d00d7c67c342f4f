//! Look-ups of several shards side by side, a moment before they are needed.
//!
//! A write looks up its session and its key, a read its key, and each of these is a row of accesses to memory of which
//! one waits for the other. A round has some twenty writes, one or two for each of as many shards. Their first accesses
//! are made here in one loop, where none waits for another, since the processor runs ahead of what is still under way;
//! then their second ones. Nothing depends on what is read: a look-up too many or too few costs a little time.

use alloc::vec::Vec;
use core::hint::black_box;

use tholos_engine::Location;
use tholos_ring::ShardId;

use crate::shard::Shard;

/// Look-ups of one call: about as many as fit the second-level cache with all that they touch.
const LOOKUPS_MAX: usize = 1024;

/// What will be looked up soon.
#[derive(Debug, Default)]
pub(crate) struct Lookups(Vec<Lookup>);

#[derive(Debug)]
struct Lookup {
    shard: ShardId,
    session: Option<u64>,
    location: Location,
}

impl Lookups {
    /// Adds one; without a location there is nothing to look up.
    pub(crate) fn push(&mut self, shard: ShardId, session: Option<u64>, location: Option<Location>) {
        if !self.is_full() {
            self.0.extend(location.map(|location| Lookup { shard, session, location }));
        }
    }

    /// Whether no more are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= LOOKUPS_MAX
    }

    /// Makes them all.
    pub(crate) fn make(&self, shards: &[Option<Shard>]) {
        let mut seen = 0_u64;
        let each = || {
            self.0.iter().filter_map(|lookup| Some((lookup, shards[usize::from(lookup.shard.0)].as_ref()?)))
        };
        for (lookup, shard) in each() {
            let session = lookup.session.map_or(0, |session| shard.sessions.prefetch(session));
            seen = seen.wrapping_add(session).wrapping_add(shard.keyspace.prefetch_item(lookup.location));
        }
        for (lookup, shard) in each() {
            seen = seen.wrapping_add(shard.keyspace.prefetch_entry(lookup.location).unwrap_or(0));
        }
        // The compiler would leave out reads whose result nobody asks for.
        black_box(seen);
    }
}

/// What the writes of these shards will look up that are durable here, and so about to be decided.
pub(crate) fn writes(shards: &mut [Option<Shard>], soon: &[ShardId]) {
    ahead(shards, soon, Shard::foresee_writes);
}

/// What the reads of these shards will look up that are about to be confirmed.
pub(crate) fn reads(shards: &mut [Option<Shard>], soon: &[ShardId]) {
    ahead(shards, soon, Shard::foresee_reads);
}

fn ahead(shards: &mut [Option<Shard>], soon: &[ShardId], foresee: fn(&mut Shard, &mut Lookups)) {
    let mut lookups = Lookups::default();
    for id in soon {
        if let Some(shard) = shards[usize::from(id.0)].as_mut() {
            foresee(shard, &mut lookups);
        }
    }
    lookups.make(shards);
}
