//! Hot shards apart: leaderships weighed by what is asked of their shards.
//!
//! Counts make nodes alike only where shards are alike. Each node says what is asked of the shards that it leads; who has far more
//! than its part gives one of them to a voter that has less, so that the busier of the two, beside what it should do, is less
//! busy than the giver was.
//! Only the node that is furthest over its part gives, one leadership in three spans, so that what has moved is measured
//! before anything moves again; and a shard goes home only where that would not be undone.

use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_ring::ShardId;

/// A node gives when what it is asked for is over its part by more than this part of it, in percent,
const OVER_PERCENT: f64 = 25.0;
/// and only what lessens that by this part at least. It takes a shard home only while it stays below it.
const GAIN_PERCENT: f64 = 10.0;

/// What a node is asked for, in requests a second, and what its part would be.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    pub(crate) rate: f64,
    pub(crate) part: f64,
}

impl Part {
    fn over(&self) -> f64 {
        self.rate - self.part
    }

    /// Whether it would be less busy with `more`, beside what it should do, than another one is.
    fn is_less_busy_with(&self, more: f64, than: &Part) -> bool {
        (self.rate + more) * than.part < than.rate * self.part
    }
}

/// The parts of nodes, given what each is asked for and its share.
pub(crate) fn parts(rows: impl Iterator<Item = (NodeId, u32, f64)> + Clone) -> Vec<Part> {
    let total: f64 = rows.clone().map(|(_, rate, _)| f64::from(rate)).sum();
    rows.map(|(node, rate, share)| Part { node, rate: f64::from(rate), part: share * total }).collect()
}

/// A shard that could be given away, what is asked of it, and to whom.
pub(crate) struct Hot {
    pub(crate) shard: ShardId,
    pub(crate) rate: u64,
    pub(crate) heirs: Vec<NodeId>,
}

/// What `me` should give away, if it is the one to give and anything is gained.
pub(crate) fn choose(
    me: NodeId,
    parts: &[Part],
    led: impl Iterator<Item = Hot>,
) -> Option<(ShardId, NodeId)> {
    let own = parts.iter().find(|part| part.node == me)?;
    let is_over = own.over() > own.part * OVER_PERCENT / 100.0;
    let first = parts.iter().max_by(|a, b| a.over().total_cmp(&b.over()).then(b.node.cmp(&a.node)))?;
    if !is_over || first.node != me {
        return None;
    }
    let gains = led.flat_map(|hot| {
        let gain = |heir: NodeId| {
            let rate = hot.rate as f64;
            let theirs = parts.iter().find(|part| part.node == heir)?;
            if !theirs.is_less_busy_with(rate, own) {
                return None;
            }
            let after = (own.over() - rate).max(theirs.over() + rate);
            Some((own.over() - after, hot.shard, heir))
        };
        hot.heirs.iter().copied().filter_map(gain).collect::<Vec<_>>()
    });
    let best = gains.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)))?;
    let (gain, shard, heir) = best;
    (gain > own.part * GAIN_PERCENT / 100.0).then_some((shard, heir))
}

/// Whether a shard may go home to `node` from `me`, by what is asked of it.
pub(crate) fn may_go(node: NodeId, parts: &[Part], rate: u64) -> bool {
    let Some(home) = parts.iter().find(|part| part.node == node) else { return true };
    home.over() + rate as f64 <= home.part * GAIN_PERCENT / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn thirds(rates: [u32; 3]) -> Vec<Part> {
        parts(NODES.into_iter().zip(rates).map(|(node, rate)| (node, rate, 1.0 / 3.0)))
    }

    /// What n1 gives of shards 0, 1, … with these rates, each of which the other two could lead.
    fn gives(rates: [u32; 3], shards: &[u64]) -> Option<(u16, u16)> {
        let led = (0..).map(ShardId).zip(shards).map(|(shard, rate)| Hot {
            shard,
            rate: *rate,
            heirs: NODES[1..].to_vec(),
        });
        choose(NODES[0], &thirds(rates), led).map(|(shard, heir)| (shard.0, heir.0))
    }

    #[test]
    fn who_has_far_more_than_its_part_gives_what_helps_most() {
        assert_eq!(gives([900, 300, 300], &[600, 200, 100]), Some((1, 2)), "the hot one would only move");
        assert_eq!(gives([900, 200, 400], &[500, 350, 50]), Some((1, 2)));
        assert_eq!(gives([900, 400, 200], &[500, 350, 50]), Some((1, 3)));
    }

    #[test]
    fn small_differences_move_nothing() {
        assert_eq!(gives([1200, 1000, 1000], &[400, 400, 400]), None);
        assert_eq!(gives([0, 0, 0], &[0, 0]), None);
        assert_eq!(gives([900, 300, 300], &[900]), None, "one hot shard is as hot elsewhere");
        assert_eq!(gives([900, 300, 300], &[895, 5]), None, "nor is it worth a move");
    }

    #[test]
    fn weights_count_for_what_a_move_does_to_the_heir() {
        // n2 should do a third of what n1 does: 500 are more to it than 900 are to n1.
        let weighed = |shares: [f64; 3], rates: [u32; 3], hot: u64, heirs: &[NodeId]| {
            let rows = NODES.into_iter().zip(rates).zip(shares);
            let parts = parts(rows.map(|((node, rate), share)| (node, rate, share)));
            let led = [hot, u64::from(rates[0]) - hot];
            let led = (0..).map(ShardId).zip(led);
            let led = led.map(|(shard, rate)| Hot { shard, rate, heirs: heirs.to_vec() });
            choose(NODES[0], &parts, led).map(|(shard, heir)| (shard.0, heir.0))
        };
        assert_eq!(weighed([0.3, 0.1, 0.6], [900, 0, 0], 500, &[NODES[1]]), None);
        assert_eq!(weighed([0.3, 0.1, 0.6], [900, 0, 0], 500, &[NODES[2]]), Some((0, 3)));
        assert_eq!(weighed([0.25, 0.0, 0.75], [900, 0, 0], 500, &[NODES[1]]), None, "it is to lead nothing");
        assert_eq!(
            weighed([0.25, 0.25, 0.5], [900, 0, 0], 900, &[NODES[2]]),
            Some((0, 3)),
            "it is less there"
        );
    }

    #[test]
    fn only_the_first_gives() {
        assert_eq!(gives([900, 950, 100], &[500, 400]), None);
        assert_eq!(gives([950, 900, 100], &[550, 400]), Some((1, 3)));
    }

    #[test]
    fn what_was_given_does_not_go_home_while_it_would_be_given_again() {
        // n1 gave 200 of 900 to n2: all that would make it give again stays away.
        assert!(!may_go(NODES[0], &thirds([700, 500, 300]), 200));
        assert!(may_go(NODES[0], &thirds([300, 500, 300]), 50));
        assert!(may_go(NODES[0], &thirds([0, 0, 0]), 0), "in the quiet all is as the map wants it");
        assert!(may_go(NodeId(9), &thirds([1, 1, 1]), 7), "nothing is known of it");
    }
}
