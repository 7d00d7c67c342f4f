//! Where leaders sit: leaderships that are handed back, over and away.

use tholos_cluster::{NodeId, Standing};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::detector::node_of;
use crate::event::Effects;
use crate::node::Node;

/// A node must have been heard for so long before leaderships go back to it.
const HAND_BACK_AFTER: Millis = Millis(30_000);
/// A node that gave up leaderships gets none back for so long, unless it was gone meanwhile: it is about to stop, and
/// would never be done.
const RESIGNED_FOR: Millis = Millis(60_000);
/// One leadership is handed back at most this often: clients of the cluster port meet single MOVEDs, not a storm.
const HAND_BACK_INTERVAL: Millis = Millis(500);
/// Hands over leadership to another replica again at most this often.
const RESIGN_INTERVAL: Millis = Millis(50);

/// What this node keeps of the leaderships that it gives to others.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    resigning: bool,
    last_resign: Millis,
    last_hand_back: Millis,
}

impl Steering {
    /// All leaderships are to be handed over from here on.
    pub(crate) fn resign(&mut self) {
        self.resigning = true;
    }
}

impl Node {
    /// Gives leaderships away that this node should not have.
    pub(crate) fn steer(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        if now.since(self.steering.last_resign) < RESIGN_INTERVAL {
            return;
        }
        self.steering.last_resign = now;
        // A leader whose disk stands still goes on with the others' votes, and answers whoever would replace it.
        if self.steering.resigning || self.appends.stall(now) > self.config.election_timeout {
            self.resign(out);
        } else {
            self.lead_no_more(out);
            self.hand_back(out);
        }
    }

    /// Hands one leadership back to the first of its replica set, once that node has been there
    /// for a while and lacks nothing: the map spreads leaders evenly, restarts do not.
    fn hand_back(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        if now.since(self.steering.last_hand_back) < HAND_BACK_INTERVAL {
            return;
        }
        self.steering.last_hand_back = now;
        for at in 0..self.shards.len() {
            let id = ShardId(at as u16);
            let Some(shard) = self.shards[at].as_mut().filter(|shard| shard.group.serving()) else {
                continue;
            };
            let Some(first) = shard.voters.first().copied().filter(|first| *first != self.config.me) else {
                continue;
            };
            // One that is to hold nothing would give it away again.
            if self.meta.state().standing(first) != Some(Standing::Member) {
                continue;
            }
            let Some(heir) = shard.group.config().voters.first().copied() else { continue };
            let near = shard
                .group
                .followers()
                .any(|(replica, accepted)| replica == heir && accepted >= shard.group.decided_index());
            let stays = !self.detector.gave_up_within(first, RESIGNED_FOR);
            if near && stays && self.detector.heard_for(first) >= HAND_BACK_AFTER {
                shard.group.transfer(heir, now, &mut self.outbox);
                self.mark_dirty(id);
                self.collect(id, out);
                return;
            }
        }
    }

    /// Hands every leadership to a replica that is heard (R10).
    fn resign(&mut self, out: &mut Effects) {
        for at in 0..self.shards.len() {
            let id = ShardId(at as u16);
            if self.shards[at].as_ref().is_some_and(|shard| shard.group.serving()) {
                self.hand_over(id, out);
            }
        }
    }

    /// Whether a node holds a share, as far as is recorded. One that is to hold none leads only if nobody else can.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.meta.state().standing(node) == Some(Standing::Member)
    }

    /// Hands what is led here to members, if this node is none: leaders go before replicas.
    fn lead_no_more(&mut self, out: &mut Effects) {
        if self.is_member(self.config.me) {
            return;
        }
        for id in (0..self.shards.len()).map(|at| ShardId(at as u16)) {
            self.hand_to_member(id, out);
        }
    }

    /// Hands leadership to the replica that is heard and has most, of a node that holds a share if there is one.
    pub(crate) fn hand_over(&mut self, id: ShardId, out: &mut Effects) {
        self.hand_to(id, false, out);
    }

    /// The same, to nobody else than a node that holds a share; whether there is one, if this node leads.
    pub(crate) fn hand_to_member(&mut self, id: ShardId, out: &mut Effects) -> bool {
        self.hand_to(id, true, out)
    }

    fn hand_to(&mut self, id: ShardId, members_only: bool, out: &mut Effects) -> bool {
        let (now, state) = (self.time().mono, self.meta.state());
        let is_member = |replica| state.standing(node_of(replica)) == Some(Standing::Member);
        let Some(shard) = self.shards[usize::from(id.0)].as_mut().filter(|shard| shard.group.serving())
        else {
            return false;
        };
        let best = shard
            .group
            .followers()
            .filter(|(replica, _)| shard.group.config().is_voter(*replica))
            .filter(|(replica, _)| self.detector.hears_node(node_of(*replica)))
            .filter(|(replica, _)| !members_only || is_member(*replica))
            .max_by_key(|(replica, accepted)| (is_member(*replica), *accepted));
        let Some((heir, _)) = best else { return false };
        shard.group.transfer(heir, now, &mut self.outbox);
        self.mark_dirty(id);
        self.collect(id, out);
        true
    }
}
