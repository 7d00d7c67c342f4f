//! Who leads the shards that this node has no replica of (R11).
//!
//! A node asks the replicas of such a shard: often while it knows of no leader, and the leader now and then, so that
//! CLUSTER SLOTS follows changes that no request of this node has met. A hint can be wrong: what comes of it is a
//! refusal with a better one.

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_paxos::{Ballot, Millis};
use tholos_ring::ShardId;

use crate::peer::{Ask, Forward};

/// How often a replica is asked while no leader is known.
const ASK_INTERVAL: Millis = Millis(50);
/// How often while requests wait for the answer, for the first [`HASTY`] questions: whoever hands its place over is followed
/// within a few ticks.
const HASTE_INTERVAL: Millis = Millis(10);
const HASTY: u8 = 8;
/// How often a leader is asked whether it still is.
const CONFIRM_INTERVAL: Millis = Millis(1000);
/// A leader that has said so itself so often since it was first known, about a second apart, leads.
const CONFIRMATIONS: u8 = 2;
/// Set in the numbers of questions, which no request has: it would take 2^63 of them.
const QUESTION: u64 = 1 << 63;

/// What is known of other nodes' shards.
#[derive(Debug)]
pub(crate) struct Hints(Vec<Hint>);

#[derive(Debug)]
struct Hint {
    node: Option<NodeId>,
    /// That in which it leads.
    ballot: Ballot,
    /// How often in a row the leader that is known has said so itself.
    confirmed: u8,
    asked_at: Millis,
    /// How many were asked since a leader was known.
    asked: u8,
    /// Requests wait since the last question.
    is_wanted: bool,
    /// Counts the questions about this shard, so that one replica after the other is asked. One count for all shards could come to
    /// the same replica each time that it is the turn of a shard.
    turn: u16,
}

impl Hint {
    fn known(&self) -> Option<(NodeId, Ballot)> {
        self.node.map(|node| (node, self.ballot))
    }

    fn set(&mut self, known: Option<(NodeId, Ballot)>) {
        (self.node, self.ballot) = known.map_or((None, Ballot::ZERO), |(node, ballot)| (Some(node), ballot));
    }
}

impl Hints {
    pub(crate) fn new(shard_count: u16) -> Hints {
        let (node, ballot, confirmed, asked_at, asked, is_wanted) =
            (None, Ballot::ZERO, 0, Millis(0), 0, false);
        // Not all begin with the same node.
        let turns = (0..shard_count).map(|shard| shard.wrapping_mul(2));
        Hints(turns.map(|turn| Hint { node, ballot, confirmed, asked_at, asked, is_wanted, turn }).collect())
    }

    /// What was said of a shard, whatever is promised here.
    pub(crate) fn of(&self, shard: ShardId) -> Option<(NodeId, Ballot)> {
        self.0[usize::from(shard.0)].known()
    }

    /// Who leads a shard, as far as others have said; `promised` is what the replica here has, if there is one. One that has
    /// promised a higher ballot knows that the leader has lost its place, or is about to: unless the replica was removed, which it
    /// need not know, and goes on asking others that were removed for their votes. So a leader that says of itself again and again that
    /// it leads is believed.
    pub(crate) fn leader(&self, shard: ShardId, promised: Ballot) -> Option<(NodeId, Ballot)> {
        let hint = self.0.get(usize::from(shard.0))?;
        hint.known().filter(|(_, ballot)| *ballot >= promised || hint.confirmed >= CONFIRMATIONS)
    }

    /// A node said who leads a shard; `None` if it knows of nobody. `promised` is what the replica here has. A lower ballot
    /// never replaces a higher one, but one that its own leader denies is dropped. Hearsay of a leader below the promise is no
    /// answer: others are to be asked. True if it was news who leads.
    pub(crate) fn learn(
        &mut self,
        shard: ShardId,
        from: NodeId,
        leader: Option<(NodeId, Ballot)>,
        promised: Ballot,
    ) -> bool {
        let Some(hint) = self.0.get_mut(usize::from(shard.0)) else { return false };
        let before = hint.known();
        let leader = leader.filter(|(node, ballot)| *ballot >= promised || *node == from);
        let known = match (before, leader) {
            (None, Some(_)) => leader,
            (Some((_, old)), Some((_, new))) if new > old => leader,
            (Some((node, _)), _) if node == from && leader.is_none_or(|(leader, _)| leader != node) => None,
            _ => before,
        };
        if known != before {
            hint.set(known);
            hint.confirmed = 0;
        } else if known == leader && known.is_some_and(|(node, _)| node == from) {
            hint.confirmed = hint.confirmed.saturating_add(1);
        }
        known != before && known.is_some()
    }

    /// A request waits until it is known who leads a shard.
    pub(crate) fn want(&mut self, shard: ShardId) {
        self.0[usize::from(shard.0)].is_wanted = true;
    }

    /// Nobody need be asked: the replica here knows who leads a shard, in `ballot`.
    pub(crate) fn rest(&mut self, shard: ShardId, ballot: Ballot) {
        let hint = &mut self.0[usize::from(shard.0)];
        hint.asked = 0;
        if hint.ballot < ballot {
            // When that one has lost its place it would be asked first, and others a second later.
            hint.set(None);
        }
    }

    /// Whom to ask about a shard now, if it is time: of those that are heard each has its turn, and every other time one of
    /// them that is likely to know. A leader that is not heard is forgotten, unless others hear it and pass requests on.
    pub(crate) fn ask(
        &mut self,
        shard: ShardId,
        heard: &[NodeId],
        is_relayed: impl Fn(NodeId) -> bool,
        is_likely: impl Fn(NodeId) -> bool,
        now: Millis,
    ) -> Option<NodeId> {
        let hint = &mut self.0[usize::from(shard.0)];
        if hint.node.is_some_and(|node| !heard.contains(&node) && !is_relayed(node)) {
            hint.set(None);
        }
        let interval = match hint.node {
            Some(_) => CONFIRM_INTERVAL,
            None if hint.is_wanted && hint.asked < HASTY => HASTE_INTERVAL,
            None => ASK_INTERVAL,
        };
        if heard.is_empty() || now.since(hint.asked_at) < interval {
            return None;
        }
        (hint.asked_at, hint.is_wanted) = (now, false);
        hint.asked = if hint.node.is_some() { 0 } else { hint.asked.saturating_add(1) };
        let turn = usize::from(hint.turn);
        if let Some(leader) = hint.node.filter(|leader| heard.contains(leader)) {
            // If it is lost, those who are likely to know are asked first.
            hint.turn &= !1;
            return Some(leader);
        }
        hint.turn = hint.turn.wrapping_add(1);
        let likely: Vec<NodeId> = heard.iter().copied().filter(|node| is_likely(*node)).collect();
        let (among, nth) = match turn % 2 {
            _ if likely.is_empty() => (heard, turn),
            0 => (&likely[..], turn / 2),
            _ => (heard, turn / 2),
        };
        Some(among[nth % among.len()])
    }
}

/// The question who leads a shard: a forward that asks for nothing.
pub(crate) fn question(shard: ShardId, boot: u64) -> Forward {
    let ask = Ask::Read { operation: Bytes::new() };
    Forward { request: QUESTION | u64::from(shard.0), boot, shard, ask }
}

/// Whether a forward is such a question.
pub(crate) fn is_question(forward: &Forward) -> bool {
    matches!(&forward.ask, Ask::Read { operation } if operation.is_empty())
}

/// The shard that a question of this number was about.
pub(crate) fn question_of(request: u64) -> Option<ShardId> {
    let shard = request.checked_sub(QUESTION)?;
    u16::try_from(shard).ok().map(ShardId)
}

#[cfg(test)]
mod tests {
    use tholos_paxos::ReplicaId;

    use super::*;

    const S0: ShardId = ShardId(0);

    fn nobody(_: NodeId) -> bool {
        false
    }

    fn hint(round: u64, node: u16) -> Option<(NodeId, Ballot)> {
        Some((NodeId(node), Ballot { round, replica: ReplicaId(node.into()) }))
    }

    #[test]
    fn a_lower_ballot_never_replaces_a_higher() {
        let mut hints = Hints::new(1);
        hints.learn(S0, NodeId(1), hint(5, 2), Ballot::ZERO);
        hints.learn(S0, NodeId(1), hint(4, 3), Ballot::ZERO);
        hints.learn(S0, NodeId(3), None, Ballot::ZERO);
        assert_eq!(hints.of(S0), hint(5, 2));
        hints.learn(S0, NodeId(1), hint(6, 3), Ballot::ZERO);
        assert_eq!(hints.of(S0), hint(6, 3));
    }

    #[test]
    fn who_says_again_that_it_leads_is_believed_against_a_higher_promise() {
        let mut hints = Hints::new(1);
        let promised = Ballot { round: 9, replica: ReplicaId(4) };
        hints.learn(S0, NodeId(3), hint(5, 2), Ballot::ZERO);
        assert_eq!(hints.leader(S0, Ballot::ZERO), hint(5, 2));
        // Hearsay confirms nothing.
        (0..5).for_each(|_| assert!(!hints.learn(S0, NodeId(3), hint(5, 2), Ballot::ZERO)));
        assert_eq!(hints.leader(S0, promised), None);
        hints.learn(S0, NodeId(2), hint(5, 2), Ballot::ZERO);
        assert_eq!(hints.leader(S0, promised), None, "it may have said so before it heard of the other");
        hints.learn(S0, NodeId(2), hint(5, 2), Ballot::ZERO);
        assert_eq!(hints.leader(S0, promised), hint(5, 2));
        hints.learn(S0, NodeId(3), hint(6, 3), Ballot::ZERO);
        assert_eq!(hints.leader(S0, promised), None, "the next one has to say so, too");
    }

    /// It was believed to be an answer, and the next question was asked a second later.
    #[test]
    fn hearsay_of_a_leader_that_has_lost_its_place_is_no_answer() {
        let (mut hints, heard) = (Hints::new(1), [NodeId(1), NodeId(3)]);
        let promised = Ballot { round: 2, replica: ReplicaId(2) };
        assert!(hints.ask(S0, &heard, nobody, nobody, Millis(1000)).is_some());
        assert!(!hints.learn(S0, NodeId(1), hint(1, 3), promised));
        assert_eq!(hints.of(S0), None);
        assert!(hints.ask(S0, &heard, nobody, nobody, Millis(1050)).is_some());
        // What it says of itself may be true: the replica here may have been removed since it promised.
        assert!(hints.learn(S0, NodeId(3), hint(1, 3), promised));
        // The replica here knows of a later one.
        hints.rest(S0, promised);
        assert_eq!(hints.of(S0), None);
        assert!(hints.learn(S0, NodeId(1), hint(3, 1), promised));
        hints.rest(S0, promised);
        assert_eq!(hints.of(S0), hint(3, 1));
    }

    #[test]
    fn who_denies_to_lead_is_believed() {
        let mut hints = Hints::new(1);
        for denial in [None, hint(4, 3)] {
            hints.learn(S0, NodeId(1), hint(5, 2), Ballot::ZERO);
            hints.learn(S0, NodeId(2), denial, Ballot::ZERO);
            assert_eq!(hints.of(S0), None);
        }
        hints.learn(S0, NodeId(2), hint(5, 2), Ballot::ZERO);
        assert_eq!(hints.of(S0), hint(5, 2));
    }

    #[test]
    fn replicas_are_asked_in_turn_and_a_leader_seldom() {
        let (mut hints, heard) = (Hints::new(1), [NodeId(1), NodeId(2)]);
        let asked: Vec<_> =
            (1..=4).filter_map(|at| hints.ask(S0, &heard, nobody, nobody, Millis(at * 50))).collect();
        assert_eq!(asked, [NodeId(1), NodeId(2), NodeId(1), NodeId(2)]);
        assert_eq!(hints.ask(S0, &heard, nobody, nobody, Millis(210)), None);
        hints.learn(S0, NodeId(1), hint(1, 1), Ballot::ZERO);
        assert_eq!(hints.ask(S0, &heard, nobody, nobody, Millis(300)), None);
        assert_eq!(hints.ask(S0, &heard, nobody, nobody, Millis(1200)), Some(NodeId(1)));
        // Its leader is not heard any more, but by another, which is asked now and then.
        let first = |node: NodeId| node == NodeId(1);
        assert_eq!(hints.ask(S0, &heard[1..], first, nobody, Millis(1300)), None);
        assert_eq!(hints.ask(S0, &heard[1..], first, nobody, Millis(2200)), Some(NodeId(2)));
        assert_eq!(hints.of(S0), hint(1, 1));
        // Nobody hears it.
        assert_eq!(hints.ask(S0, &heard[1..], nobody, nobody, Millis(2300)), Some(NodeId(2)));
        assert_eq!(hints.of(S0), None);
    }

    /// At each tick, but not for ever.
    #[test]
    fn replicas_are_asked_more_often_while_somebody_waits_for_the_answer() {
        let (mut hints, heard) = (Hints::new(1), [NodeId(1), NodeId(2)]);
        let mut asked = |waits: bool, from: u64| {
            let mut ask = |at: u64| {
                if waits {
                    hints.want(S0);
                }
                hints.ask(S0, &heard, nobody, nobody, Millis(from + at * 10)).is_some()
            };
            (1..=20).filter(|at| ask(*at)).count()
        };
        assert_eq!([asked(false, 1000), asked(true, 1200), asked(true, 1400)], [4, 7, 4]);
        hints.rest(S0, Ballot::ZERO);
        hints.want(S0);
        let soon = [1610, 1620].map(|at| hints.ask(S0, &heard, nobody, nobody, Millis(at)));
        assert!(soon[0].is_some() && soon[1].is_none(), "nobody waits any more");
    }

    #[test]
    fn who_is_likely_to_know_is_asked_first_and_every_other_time() {
        let (mut hints, heard) = (Hints::new(1), [1, 2, 3, 4, 5].map(NodeId));
        let is_likely = |node: NodeId| node.0 >= 4;
        let mut asked = |from: u64, to: u64| -> Vec<u16> {
            (from..=to)
                .filter_map(|at| hints.ask(S0, &heard, nobody, is_likely, Millis(at * 50)))
                .map(|node| node.0)
                .collect()
        };
        assert_eq!(asked(1, 10), [4, 1, 5, 2, 4, 3, 5, 4, 4, 5]);
        asked(11, 11);
        hints.learn(S0, NodeId(1), hint(1, 1), Ballot::ZERO);
        assert_eq!(hints.ask(S0, &heard, nobody, is_likely, Millis(2000)), Some(NodeId(1)));
        hints.learn(S0, NodeId(1), None, Ballot::ZERO);
        let next = hints.ask(S0, &heard, nobody, is_likely, Millis(2050)).map(is_likely);
        assert_eq!(next, Some(true));
    }

    /// Four shards that have moved away, two to each of two nodes: asked one after the other, each must come to the node that
    /// knows. With one turn for all, each shard asked the same node for ever.
    #[test]
    fn each_shard_asks_all_replicas_however_many_others_ask() {
        let heard = [NodeId(2), NodeId(3)];
        for count in 1..=6 {
            let mut hints = Hints::new(count);
            let mut asked = alloc::vec![Vec::new(); usize::from(count)];
            for at in 1..=4 {
                for shard in 0..count {
                    let asked_now = hints.ask(ShardId(shard), &heard, nobody, nobody, Millis(at * 50));
                    asked[usize::from(shard)].extend(asked_now);
                }
            }
            for nodes in asked {
                assert!(heard.iter().all(|node| nodes.contains(node)), "{count} shards: {nodes:?}");
            }
        }
    }

    #[test]
    fn a_question_has_its_own_numbers() {
        let asked = question(ShardId(7), 1);
        assert!(is_question(&asked));
        assert_eq!(question_of(asked.request), Some(ShardId(7)));
        assert_eq!(question_of(7), None);
    }
}
