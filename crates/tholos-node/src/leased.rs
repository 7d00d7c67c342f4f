//! Reads by lease (R12, R13): answered at once from the applied state, and kept back until the driver has looked at its
//! clock once more.
//!
//! The time that an event comes with was read before the state was. If the machine stood still in between, the lease may
//! have run out, and another leader may have written what was not seen. So an answer leaves only with a time that was
//! read *after* it and is before the end of the lease. An answer that is late is forgotten, and the read asked again by a round.
//!
//! The reads of a round are answered together at its end: what they will look up is fetched side by side before
//! ([`Lookups`]).

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_paxos::{Millis, Planted};
use tholos_ring::ShardId;

use crate::event::{Effects, Now};
use crate::node::Node;
use crate::operation::peek_key;
use crate::peer::{Ask, Outcome};
use crate::prefetch::Lookups;
use crate::shard::Origin;

/// A read of a shard that had a lease when it came.
#[derive(Debug)]
pub(crate) struct AskedRead {
    shard: ShardId,
    origin: Origin,
    operation: Bytes,
}

/// An answer that rests on a lease.
#[derive(Debug)]
pub(crate) struct LeasedRead {
    shard: ShardId,
    origin: Origin,
    /// The operation, as it was asked.
    operation: Bytes,
    outcome: Outcome,
    /// The end of the lease.
    until: Millis,
}

impl Node {
    /// Takes a read in that the lease of its shard may answer when the round ends. `false`: there is none.
    pub(crate) fn take_leased(&mut self, id: ShardId, operation: &Bytes, origin: Origin) -> bool {
        let now = self.time().mono;
        let group = self.shards[usize::from(id.0)].as_mut().map(|shard| &mut shard.group);
        let has_lease = group.is_some_and(|group| group.lease_until(now).is_some());
        if has_lease {
            self.lease_asked.push(AskedRead { shard: id, origin, operation: operation.clone() });
        }
        has_lease
    }

    /// Answers what was taken in, by lease or, if that has ended meanwhile, by a round.
    pub(crate) fn answer_leased(&mut self) {
        if self.lease_asked.is_empty() {
            return;
        }
        let asked = core::mem::take(&mut self.lease_asked);
        let mut lookups = Lookups::default();
        for read in &asked {
            if let Some(shard) = &self.shards[usize::from(read.shard.0)]
                && let Some(key) = peek_key(&read.operation)
            {
                lookups.push(read.shard, None, shard.keyspace.locate(key));
            }
        }
        lookups.make(&self.shards);
        for read in asked {
            self.answer_by_lease(read);
        }
    }

    fn answer_by_lease(&mut self, read: AskedRead) {
        let now = self.time().mono;
        let AskedRead { shard: id, origin, operation } = read;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else {
            return self.answers.push((origin, Outcome::NotLeader { leader: None }));
        };
        if let Some(until) = shard.group.lease_until(now) {
            // Where nothing is due no clock is in dispute.
            let time = match shard.keyspace.next_due_ms() {
                Some(_) => self.detector.shard_time(&shard.voters),
                None => shard.time,
            };
            if let Some(outcome) = shard.read_undisputed(&operation, time) {
                self.served.reads_by_lease += 1;
                self.leased.push(LeasedRead { shard: id, origin, operation, outcome, until });
                // It will ask for the next lease.
                return self.mark_restless(id);
            }
        }
        shard.ask(Ask::Read { operation }, origin, now, &mut self.answers);
        self.mark_dirty(id);
    }

    /// Whether answers are kept back until [`Node::release`].
    pub fn keeps_back(&self) -> bool {
        !self.leased.is_empty()
    }

    /// The shards of which [`Node::release`] lets answers go at `now`.
    pub fn releases(&self, now: Now) -> impl Iterator<Item = ShardId> {
        self.leased.iter().filter(move |read| self.is_in_time(read, now)).map(|read| read.shard)
    }

    fn is_in_time(&self, read: &LeasedRead, now: Now) -> bool {
        now.mono < read.until || self.config.group.planted == Planted::LateReplySent
    }

    /// Lets the answers go that rest on leases. `now` must have been read after the last call of [`Node::handle`],
    /// [`Node::flush`] or this came back (R13). What comes of them goes out as with `flush`; as long as
    /// [`Node::keeps_back`], there is more.
    pub fn release(&mut self, now: Now, out: &mut Effects) {
        let leased = core::mem::take(&mut self.leased);
        let (in_time, late): (Vec<_>, Vec<_>) =
            leased.into_iter().partition(|read| self.is_in_time(read, now));
        self.answers.extend(in_time.into_iter().map(|read| (read.origin, read.outcome)));
        for read in late {
            let Some(shard) = self.shards[usize::from(read.shard.0)].as_mut() else { continue };
            self.served.reads_late += 1;
            let ask = Ask::Read { operation: read.operation };
            shard.ask(ask, read.origin, now.mono, &mut self.answers);
            self.mark_dirty(read.shard);
        }
        self.flush(now, out);
    }
}
