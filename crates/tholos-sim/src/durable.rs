//! What a machine's disk must give back: what it said was durable, replica by replica.
//!
//! The driver's view, beside the log's own: whatever had been asked for when a write began is durable once that write is
//! synced, so a replica that starts again has at least the promise, the ballot and the length of then (R2, R3, R22).

use std::fmt;

use tholos_node::Node;
use tholos_paxos::{Ballot, Index, ReplicaId};
use tholos_ring::ShardId;

/// Of all replicas of one machine.
#[derive(Debug, Default)]
pub struct Durable {
    /// Said to be durable.
    synced: Vec<Marks>,
    /// Written, and not synced: may be lost, and may stay.
    written: Vec<Marks>,
    /// Where the log ended when it was last synced.
    lsn: u64,
}

/// How far a replica has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Marks {
    /// Which of the replicas that have lived here.
    me: ReplicaId,
    promised: Ballot,
    /// The ballot of its log, and how long that is.
    log: (Ballot, Index),
}

impl Durable {
    /// Everything that `node` has asked for is being written.
    pub fn write(&mut self, node: &Node) {
        self.written.clear();
        self.written.extend(marks(node));
    }

    /// What was being written is durable, and the log ends here.
    pub fn sync(&mut self, lsn: u64) {
        self.synced.clone_from(&self.written);
        self.lsn = lsn;
    }

    /// Whether a log that ends here has lost its end, which its peers may have counted.
    pub fn went_back(&self, lsn: u64) -> bool {
        lsn < self.lsn
    }

    /// What `node` has recovered is durable (R5).
    pub fn recovered(&mut self, node: &Node, lsn: u64) {
        self.write(node);
        self.sync(lsn);
    }

    /// Whether `node` has recovered at least what was durable.
    pub fn check(&self, node: &Node) -> Result<(), String> {
        for (number, now) in marks(node).enumerate() {
            let id = ShardId(number as u16);
            if node.shard(id).is_some_and(|shard| shard.group.repair().is_some()) {
                // It has found that it lost something, and says nothing (R20).
                continue;
            }
            let Some(synced) = self.synced.get(number) else { continue };
            let dropped = node.meta_state().is_retired(id, synced.me);
            if node.shard(id).is_none() && (dropped || node.is_barred()) {
                // As the durable map says (N2); or whatever was here is lost, and none begins before a leader says so (C4).
                continue;
            }
            let written = self.written.get(number).unwrap_or(synced);
            if now.me > synced.me && now.me == written.me {
                // It had joined instead of the one before it, and that was written and not yet said to be durable.
                continue;
            }
            // Taking over a snapshot may leave a shorter log of the same ballot, and that may be what was written.
            let less = now.promised < synced.promised || (now.log < synced.log && now.log < written.log);
            if now.me != synced.me || less {
                return Err(format!("{id} was durable as {synced} and is recovered as {now}"));
            }
        }
        Ok(())
    }
}

fn marks(node: &Node) -> impl Iterator<Item = Marks> {
    let shards = (0..=node.map().meta_group().0).map(ShardId);
    shards.map(|id| match node.shard(id) {
        Some(shard) => Marks {
            me: shard.group.me(),
            promised: shard.group.promised(),
            log: (shard.group.accepted_ballot(), shard.group.accepted_index()),
        },
        None => Marks::default(),
    })
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (accepted, length) = self.log;
        write!(f, "{}: promised {}, log {accepted} to {length}", self.me, self.promised)
    }
}
