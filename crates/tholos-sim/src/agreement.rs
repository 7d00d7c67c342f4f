//! What is true of the whole cluster, and checked after every event: one state at each index of each shard, one
//! leader to a ballot, and maps of nodes that only get newer.

use std::collections::BTreeMap;

use tholos_cluster::NodeId;
use tholos_node::Node;
use tholos_paxos::Ballot;
use tholos_ring::ShardId;

/// What has been seen so far.
#[derive(Debug)]
pub struct Agreement {
    shards: u16,
    /// Digest of each shard's state at each index, and when it was first seen, in microseconds of true time.
    digests: Vec<BTreeMap<u64, (u64, u64)>>,
    /// The same before the shard was recovered from the loss of a majority (R29).
    before: Vec<Option<BTreeMap<u64, (u64, u64)>>>,
    /// Who led in each ballot.
    leaders: BTreeMap<(ShardId, Ballot), NodeId>,
    /// What each replica showed last, in this boot: leading ballot, applied index, digest.
    shown: Vec<Shown>,
    /// The epoch of the map that each node had last, in this boot.
    epochs: Vec<u64>,
}

type Shown = (Option<Ballot>, u64, u64);

impl Agreement {
    /// Of so many nodes and shards.
    pub fn new(nodes: usize, shards: u16) -> Agreement {
        Agreement {
            shards,
            digests: vec![BTreeMap::new(); usize::from(shards)],
            before: vec![None; usize::from(shards)],
            leaders: BTreeMap::new(),
            shown: vec![Shown::default(); nodes * usize::from(shards)],
            epochs: vec![0; nodes],
        }
    }

    /// How far a node had applied a shard when it was looked at last.
    pub fn shown(&self, host: usize, shard: ShardId) -> u64 {
        self.shown[host * usize::from(self.shards) + usize::from(shard.0)].1
    }

    /// A node has started.
    pub fn restarted(&mut self, host: usize) {
        let shards = usize::from(self.shards);
        self.shown[host * shards..][..shards].fill(Shown::default());
        self.epochs[host] = 0;
    }

    /// A shard goes on, and what was after the entry at `length` is void or may be (R29). Since when something had been
    /// applied that is lost, if anything had. A recovery that no disk has yet may be followed by another.
    pub fn rescued(&mut self, shard: ShardId, length: u64) -> Option<u64> {
        let at = usize::from(shard.0);
        let before = self.before[at].take().unwrap_or_else(|| std::mem::take(&mut self.digests[at]));
        self.digests[at] = before.range(..=length).map(|(index, seen)| (*index, *seen)).collect();
        let lost_since = before.range(length + 1..).map(|(_, (_, seen_at))| *seen_at).min();
        self.before[at] = Some(before);
        lost_since
    }

    /// What a node shows at a true time. An error says where and what does not agree.
    pub fn check(&mut self, host: usize, node: &Node, now_us: u64) -> Result<(), (ShardId, String)> {
        let me = NodeId(host as u16 + 1);
        // N1
        let epoch = node.meta_state().epoch().0;
        let had = std::mem::replace(&mut self.epochs[host], epoch);
        if epoch < had {
            let meta = ShardId(self.shards - 1);
            return Err((meta, format!("{me} had the map e{had}, and now has the older e{epoch}")));
        }
        for number in 0..self.shards {
            let id = ShardId(number);
            let Some(shard) = node.shard(id) else { continue };
            let (leading, applied) = (shard.group.leading(), shard.group.applied_index().0);
            let shown = &mut self.shown[host * usize::from(self.shards) + usize::from(number)];
            let now = (leading, applied, shard.keyspace.digest());
            if *shown == now {
                continue;
            }
            *shown = now;
            if let Some(ballot) = leading {
                let leader = *self.leaders.entry((id, ballot)).or_insert(me);
                if leader != me {
                    return Err((id, format!("{id}: both {leader} and {me} lead in {ballot}")));
                }
            }
            let digest = now.2;
            let (first, _) = *self.digests[usize::from(number)].entry(applied).or_insert((digest, now_us));
            if first != digest {
                let text = format!("{id}: {me} has another state at @{applied}: {digest:x}, not {first:x}");
                return Err((id, text));
            }
        }
        Ok(())
    }
}
