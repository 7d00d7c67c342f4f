//! What all nodes say of themselves, asked for when the leader of the meta group wants to plan something by itself.
//!
//! Nothing is asked and nothing sent while there is nothing to plan.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use tholos_cluster::{Facts, NodeId, NodeSaid, ShardSaid};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::event::Effects;
use crate::node::Node;
use crate::peer::PeerMessage;

/// Who has not answered after so long is down, as far as the plan is concerned.
const ANSWER_WITHIN: Millis = Millis(1000);

/// A survey under way.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    asked_at: Option<Millis>,
    said: BTreeMap<NodeId, NodeSaid>,
}

impl Survey {
    /// Forgets what was said: it is of another time.
    pub(crate) fn stop(&mut self) {
        *self = Survey::default();
    }
}

/// Room for more, as the driver sees it. Nobody knows it before the driver has looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that may still be written to the disk, the reserve left out.
    pub(crate) disk_free: Option<u64>,
    /// Bytes of memory that the machine can give.
    pub(crate) memory_free: Option<u64>,
}

/// On the leader of the meta group.
impl Node {
    /// Asks every node that is heard; the facts once all of them have answered, or had time to. To be called again until
    /// there are some. A replica that lacks more than `lag_max` entries is not counted on.
    pub(crate) fn survey(&mut self, lag_max: u64, out: &mut Effects) -> Option<Facts> {
        let (now, me) = (self.time().mono, self.config.me);
        let heard = self.detector.heard_nodes();
        let Some(asked_at) = self.meta.survey.asked_at else {
            self.meta.survey = Survey { asked_at: Some(now), said: BTreeMap::new() };
            let others = heard.iter().filter(|node| **node != me);
            out.sends.extend(others.map(|node| (*node, PeerMessage::FactsWanted)));
            return None;
        };
        self.meta.survey.said.insert(me, self.own_facts());
        let said = &mut self.meta.survey.said;
        if now.since(asked_at) < ANSWER_WITHIN && !heard.iter().all(|node| said.contains_key(node)) {
            return None;
        }
        let mut said = core::mem::take(said);
        self.meta.survey.stop();
        let answer = |node: NodeId| {
            let silent = if heard.contains(&node) { "it does not answer" } else { "it is not heard" };
            said.remove(&node).ok_or_else(|| String::from(silent))
        };
        let map = self.meta.map();
        let said: Vec<_> = map.nodes.iter().map(|row| row.id).map(answer).collect();
        Some(Facts::gather(map, &said, lag_max))
    }

    /// A node says how it is.
    pub(crate) fn handle_facts(&mut self, from: NodeId, said: NodeSaid) {
        if self.meta.survey.asked_at.is_some() {
            self.meta.survey.said.insert(from, said);
        }
    }
}

/// On every node.
impl Node {
    /// What this node says of itself.
    pub(crate) fn own_facts(&self) -> NodeSaid {
        let shard = |id: ShardId| {
            let shard = self.shard(id)?;
            let group = &shard.group;
            Some(ShardSaid {
                shard: id,
                leads: group.leading().filter(|_| group.serving()).map(|ballot| ballot.round),
                decided: group.decided_index().0,
                bytes: shard.keyspace.used_bytes() as u64,
                data_bytes: shard.keyspace.data_bytes() as u64,
                config: group.config().number,
                voters: shard.voters.to_vec(),
                mute: group.repair().is_some(),
            })
        };
        let left = match self.gateway.settings.maxmemory {
            0 => None,
            most => Some(most.saturating_sub(self.memory_used)),
        };
        let free = self.room.memory_free;
        NodeSaid {
            disk_free: self.room.disk_free,
            memory_free: left.map_or(free, |left| Some(free.map_or(left, |free| free.min(left)))),
            shards: (0..self.meta.map().shard_count).map(ShardId).filter_map(shard).collect(),
        }
    }
}
