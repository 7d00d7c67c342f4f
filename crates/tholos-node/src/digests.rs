//! Whether all replicas of a shard have the same state: their digests, compared now and then at the same index (R24).
//!
//! The leader says at which index it stands; each follower answers with its digest when it has applied that index. An
//! idle shard is not compared again. What a majority has is right:
//!
//! - **D1** A follower that differs from a majority is told so and loses its state, its log, and what was written from
//!   them: it is mute until it is repaired (R20). One at a time, and only if every voter has answered, for it will need
//!   all of them.
//! - **D2** A leader that differs from a majority hands over first, then it is a follower that differs.
//! - **D3** Where no majority agrees nothing is repaired: somebody must look.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::{Index, Millis};
use tholos_ring::ShardId;

use crate::detector::node_of;
use crate::event::{Effects, Loss, Notice};
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::steering::MoveReason;

/// How often a shard whose state has moved is compared.
const INTERVAL: Millis = Millis(10_000);

/// What nodes say to each other about the digests of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestNote {
    /// The shard.
    pub shard: ShardId,
    /// The state after this index.
    pub index: Index,
    /// What is said of it.
    pub said: DigestSaid,
}

/// See [`DigestNote`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DigestSaid {
    /// The leader asks for the receiver's digest.
    Asked,
    /// The sender's digest.
    Is(u64),
    /// The receiver differs from a majority: what it has is wrong.
    Wrong,
}

/// What one replica knows of the comparison of its shard.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    next_at: Millis,
    /// Everybody agreed after this index.
    agreed: Index,
    /// While nothing is compared and nothing differs there is nothing here.
    open: Option<Box<Open>>,
}

#[derive(PartialEq, Debug, Default)]
struct Open {
    /// Asked by this node for the state after this index, which is not applied yet.
    asked: Option<(NodeId, Index)>,
    answer: Option<(NodeId, Index, u64)>,
    comparison: Option<Comparison>,
    /// D3: at this index they differed, and no majority agreed.
    differ: Option<Index>,
    /// D2: this replica is the one that differs.
    diverged: bool,
}

/// On the leader: the digests after an index, its own first.
#[derive(PartialEq, Debug)]
struct Comparison {
    index: Index,
    digests: Vec<(NodeId, u64)>,
}

/// What came of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// Not enough is known, or all agree.
    Nothing,
    /// D1.
    Wrong(NodeId),
    /// D2.
    OwnIsWrong,
    /// D3.
    NoMajority,
}

impl Digests {
    /// On the leader, which has applied up to `applied`: whether it is time to compare, and whether what was compared
    /// before has come to a difference that nobody could judge.
    pub(crate) fn begin(
        &mut self,
        me: NodeId,
        applied: Index,
        digest: impl FnOnce() -> u64,
        now: Millis,
    ) -> (Option<Index>, Finding) {
        if now < self.next_at || applied == self.agreed {
            return (None, Finding::Nothing);
        }
        self.next_at = now.plus(INTERVAL);
        let open = self.open.get_or_insert_default();
        let unjudged = open.comparison.take().is_some_and(|last| last.differs());
        let digests = alloc::vec![(me, digest())];
        open.comparison = Some(Comparison { index: applied, digests });
        if unjudged {
            open.differ = Some(applied);
            return (Some(applied), Finding::NoMajority);
        }
        (Some(applied), Finding::Nothing)
    }

    /// Leadership is gone, and with it what was compared.
    pub(crate) fn end(&mut self) {
        if let Some(open) = &mut self.open {
            open.comparison = None;
            self.close();
        }
    }

    /// D2: whether this replica is the one that differs.
    pub(crate) fn diverged(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.diverged)
    }

    /// D3: at which index they differed, and no majority agreed.
    pub(crate) fn differ(&self) -> Option<Index> {
        self.open.as_ref()?.differ
    }

    /// Gives back what has nothing in it.
    fn close(&mut self) {
        self.open.take_if(|open| **open == Open::default());
    }

    /// On the leader: the digest of one of the other `voters`.
    pub(crate) fn handle_digest(
        &mut self,
        from: NodeId,
        index: Index,
        digest: u64,
        voters: &[NodeId],
    ) -> Finding {
        let Some(open) = &mut self.open else { return Finding::Nothing };
        let Some(comparison) = open.comparison.as_mut().filter(|comparison| comparison.index == index) else {
            return Finding::Nothing;
        };
        if !voters.contains(&from) || comparison.digests.iter().any(|(node, _)| *node == from) {
            return Finding::Nothing;
        }
        comparison.digests.push((from, digest));
        if comparison.digests.len() < voters.len() {
            return Finding::Nothing;
        }
        let finding = comparison.judge();
        open.comparison = None;
        match finding {
            Finding::Nothing => (self.agreed, open.differ) = (index, None),
            Finding::NoMajority => open.differ = Some(index),
            Finding::OwnIsWrong => open.diverged = true,
            Finding::Wrong(_) => {}
        }
        self.close();
        finding
    }

    /// On a follower: the leader asks for the digest after `index`.
    pub(crate) fn ask(&mut self, leader: NodeId, index: Index, applied: Index, digest: impl FnOnce() -> u64) {
        if applied == index {
            self.open.get_or_insert_default().answer = Some((leader, index, digest()));
        } else if applied < index {
            self.open.get_or_insert_default().asked = Some((leader, index));
        }
    }

    /// `index` is applied.
    pub(crate) fn note_applied(&mut self, index: Index, digest: impl FnOnce() -> u64) {
        let Some(open) = &mut self.open else { return };
        let asked = open.asked.take_if(|(_, asked)| *asked <= index);
        if let Some((leader, _)) = asked.filter(|(_, asked)| *asked == index) {
            open.answer = Some((leader, index, digest()));
        }
        self.close();
    }

    /// An answer that is due: to whom, and the digest after which index.
    pub(crate) fn take_answer(&mut self) -> Option<(NodeId, Index, u64)> {
        let answer = self.open.as_mut()?.answer.take();
        self.close();
        answer
    }
}

impl Comparison {
    fn differs(&self) -> bool {
        self.digests.iter().any(|(_, digest)| *digest != self.digests[0].1)
    }

    /// Every voter has answered.
    fn judge(&self) -> Finding {
        if !self.differs() {
            return Finding::Nothing;
        }
        let count = |wanted: u64| self.digests.iter().filter(|(_, digest)| *digest == wanted).count();
        let majority = self
            .digests
            .iter()
            .map(|(_, digest)| *digest)
            .find(|digest| 2 * count(*digest) > self.digests.len());
        let Some(right) = majority else { return Finding::NoMajority };
        if self.digests[0].1 != right {
            return Finding::OwnIsWrong;
        }
        let wrong = self.digests.iter().find(|(_, digest)| *digest != right);
        wrong.map_or(Finding::Nothing, |(node, _)| Finding::Wrong(*node))
    }
}

/// The comparisons of all shards.
impl Node {
    /// Begins comparisons that are due (R24), and lets go of leaderships of replicas whose state is wrong.
    pub(crate) fn tick_digest(&mut self, id: ShardId, out: &mut Effects) {
        let (me, now) = (self.config.me, self.time().mono);
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        if !shard.group.serving() {
            if shard.digests.diverged() && shard.group.leading().is_none() {
                self.lose(id, Loss::Diverged, out);
            } else {
                shard.digests.end();
            }
            return;
        }
        if shard.digests.diverged() {
            self.hand_over(id, MoveReason::Differs, out);
            return;
        }
        let applied = shard.group.applied_index();
        let keyspace = &shard.keyspace;
        let (asked, finding) = shard.digests.begin(me, applied, || keyspace.digest(), now);
        if let Some(index) = asked {
            for node in shard.voters.iter().filter(|node| **node != me) {
                let note = DigestNote { shard: id, index, said: DigestSaid::Asked };
                out.sends.push((*node, PeerMessage::Digest(note)));
            }
        }
        self.judge_digests(id, applied, finding, out);
    }

    fn judge_digests(&mut self, id: ShardId, index: Index, finding: Finding, out: &mut Effects) {
        let node = match finding {
            Finding::Nothing => return,
            Finding::NoMajority => {
                out.notices.push(Notice::StatesDiffer { shard: id, index });
                return;
            }
            Finding::OwnIsWrong => self.config.me,
            Finding::Wrong(node) => {
                let note = DigestNote { shard: id, index, said: DigestSaid::Wrong };
                out.sends.push((node, PeerMessage::Digest(note)));
                node
            }
        };
        out.notices.push(Notice::ReplicaDiverged { shard: id, node, index });
    }

    pub(crate) fn handle_digest(&mut self, from: NodeId, note: DigestNote, out: &mut Effects) {
        let DigestNote { shard: id, index, said } = note;
        let known = self.shards.get_mut(usize::from(id.0)).and_then(Option::as_mut);
        let Some(shard) = known else { return };
        let is_leader = shard.group.leader().is_some_and(|ballot| node_of(ballot.replica) == from);
        match said {
            DigestSaid::Asked if is_leader && shard.group.repair().is_none() => {
                let applied = shard.group.applied_index();
                let keyspace = &shard.keyspace;
                shard.digests.ask(from, index, applied, || keyspace.digest());
                self.answer_digest(id, out);
            }
            DigestSaid::Is(digest) if shard.group.serving() => {
                let finding = shard.digests.handle_digest(from, index, digest, &shard.voters);
                self.judge_digests(id, index, finding, out);
            }
            DigestSaid::Wrong if is_leader && shard.group.repair().is_none() => {
                self.lose(id, Loss::Diverged, out);
            }
            _ => {}
        }
    }

    pub(crate) fn answer_digest(&mut self, id: ShardId, out: &mut Effects) {
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        if let Some((leader, index, digest)) = shard.digests.take_answer() {
            let note = DigestNote { shard: id, index, said: DigestSaid::Is(digest) };
            out.sends.push((leader, PeerMessage::Digest(note)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [NodeId; 5] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5)];

    /// What comes of these digests, the leader's first.
    fn check(digests: &[u64], expected: Finding) {
        let voters = &VOTERS[..digests.len()];
        let mut leader = Digests::default();
        let (asked, _) = leader.begin(VOTERS[0], Index(9), || digests[0], Millis(0));
        assert_eq!(asked, Some(Index(9)));
        let mut found = Finding::Nothing;
        for (node, digest) in voters.iter().zip(digests).skip(1) {
            assert_eq!(found, Finding::Nothing, "judged before all have answered");
            assert_eq!(
                leader.handle_digest(*node, Index(8), 77, voters),
                Finding::Nothing,
                "of another index"
            );
            found = leader.handle_digest(*node, Index(9), *digest, voters);
        }
        assert_eq!(found, expected, "{digests:?}");
        assert_eq!(leader.diverged(), expected == Finding::OwnIsWrong);
        assert_eq!(leader.differ().is_some(), expected == Finding::NoMajority);
    }

    #[test]
    fn what_a_majority_has_is_right() {
        check(&[7, 7, 7], Finding::Nothing);
        check(&[7, 7, 8], Finding::Wrong(NodeId(3)));
        check(&[8, 7, 7], Finding::OwnIsWrong);
        check(&[7, 8, 9], Finding::NoMajority);
        check(&[7, 8], Finding::NoMajority);
        check(&[7, 7, 8, 9, 7], Finding::Wrong(NodeId(3)));
        check(&[7, 7, 8, 8, 9], Finding::NoMajority);
    }

    #[test]
    fn a_difference_between_those_who_answer_is_told_though_one_is_silent() {
        let mut leader = Digests::default();
        leader.begin(VOTERS[0], Index(9), || 7, Millis(0));
        assert_eq!(leader.handle_digest(VOTERS[1], Index(9), 8, &VOTERS[..3]), Finding::Nothing);
        assert_eq!(leader.begin(VOTERS[0], Index(10), || 7, Millis(9_999)), (None, Finding::Nothing));
        let next = leader.begin(VOTERS[0], Index(10), || 7, Millis(10_000));
        assert_eq!(next, (Some(Index(10)), Finding::NoMajority));
        assert_eq!(leader.differ(), Some(Index(10)));
    }

    #[test]
    fn an_idle_shard_is_not_compared_again() {
        let mut leader = Digests::default();
        leader.begin(VOTERS[0], Index(9), || 7, Millis(0));
        for voter in &VOTERS[1..3] {
            leader.handle_digest(*voter, Index(9), 7, &VOTERS[..3]);
        }
        assert_eq!(leader.begin(VOTERS[0], Index(9), || 7, Millis(90_000)), (None, Finding::Nothing));
        assert_eq!(leader.begin(VOTERS[0], Index(10), || 7, Millis(90_000)).0, Some(Index(10)));
    }

    #[test]
    fn a_follower_answers_at_the_index_asked_for() {
        let mut follower = Digests::default();
        follower.ask(VOTERS[0], Index(9), Index(7), || 0);
        follower.note_applied(Index(8), || 8);
        assert_eq!(follower.take_answer(), None);
        follower.note_applied(Index(9), || 9);
        assert_eq!(follower.take_answer(), Some((VOTERS[0], Index(9), 9)));
        assert_eq!(follower.take_answer(), None);
        // Passed over by a snapshot: it is asked about another.
        follower.ask(VOTERS[0], Index(12), Index(9), || 0);
        follower.note_applied(Index(20), || 20);
        assert_eq!(follower.take_answer(), None);
        follower.ask(VOTERS[0], Index(20), Index(20), || 20);
        assert!(follower.take_answer().is_some());
    }
}
