//! One replica's way between nodes: the step that plans and jobs are made of.

use alloc::vec::Vec;
use core::fmt;

use tholos_ring::ShardId;

use crate::id::NodeId;

/// A change of one shard's replica set that is safe by itself, whatever becomes of others: one replica comes, goes, or
/// both; or one that is there, named as both, is to lead. Written `s12 n3 → n4`, `s12 + n4`, `s12 - n3` and `s12 ^ n3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Move {
    /// The shard.
    pub shard: ShardId,
    /// Who gives its replica up; nobody if the shard gets one more.
    pub from: Option<NodeId>,
    /// Who gets one; nobody if the shard keeps one less.
    pub to: Option<NodeId>,
}

impl Move {
    /// Whether a replica is copied to a node that does not have it.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.to.is_some() && self.from != self.to
    }

    /// Who is to lead, if nothing else changes.
    #[must_use]
    pub fn leads(&self) -> Option<NodeId> {
        self.to.filter(|_| self.from == self.to)
    }

    /// The set once the move is made: the new one stands where the old one stood, so that it is the preferred leader if
    /// that was, or last. `None` if the move does not fit `set`: it has no replica to give up, has the new one already,
    /// or would lose its last.
    #[must_use]
    pub fn set_after(&self, set: &[NodeId]) -> Option<Vec<NodeId>> {
        if let Some(leads) = self.leads() {
            let others = set.iter().copied().filter(|node| *node != leads);
            return set.contains(&leads).then(|| core::iter::once(leads).chain(others).collect());
        }
        let fits =
            self.from.is_none_or(|from| set.contains(&from)) && self.to.is_none_or(|to| !set.contains(&to));
        let swapped =
            set.iter().filter_map(|node| if Some(*node) == self.from { self.to } else { Some(*node) });
        let after: Vec<NodeId> = swapped.chain(self.to.filter(|_| self.from.is_none())).collect();
        (fits && !after.is_empty()).then_some(after)
    }
}

impl fmt::Display for Move {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (Some(from), Some(to)) if from == to => write!(out, "{} ^ {to}", self.shard),
            (Some(from), Some(to)) => write!(out, "{} {from} → {to}", self.shard),
            (None, Some(to)) => write!(out, "{} + {to}", self.shard),
            (Some(from), None) => write!(out, "{} - {from}", self.shard),
            (None, None) => write!(out, "{} stays", self.shard),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    fn step(from: Option<u16>, to: Option<u16>) -> Move {
        Move { shard: ShardId(12), from: from.map(NodeId), to: to.map(NodeId) }
    }

    #[track_caller]
    fn check(step: Move, set: &[u16], expected: Option<&[u16]>) {
        let ids = |set: &[u16]| set.iter().copied().map(NodeId).collect::<Vec<_>>();
        assert_eq!(step.set_after(&ids(set)), expected.map(ids), "{step} of {set:?}");
    }

    #[test]
    fn a_move_fits_a_set_or_changes_nothing() {
        check(step(Some(3), Some(4)), &[3, 1, 2], Some(&[4, 1, 2]));
        check(step(None, Some(4)), &[1], Some(&[1, 4]));
        check(step(Some(2), Some(2)), &[1, 3, 2], Some(&[2, 1, 3]));
        check(step(Some(2), Some(2)), &[1, 3], None);
        check(step(Some(1), None), &[1, 2], Some(&[2]));
        check(step(Some(3), Some(4)), &[1, 2], None);
        check(step(Some(1), Some(2)), &[1, 2], None);
        check(step(Some(1), None), &[1], None);
    }

    #[test]
    fn moves_are_written_in_one_notation() {
        let written =
            [step(Some(3), Some(4)), step(None, Some(4)), step(Some(3), None), step(Some(3), Some(3))];
        assert_eq!(written.map(|step| step.to_string()), ["s12 n3 → n4", "s12 + n4", "s12 - n3", "s12 ^ n3"]);
        assert_eq!(written.map(|step| step.is_copy()), [true, true, false, false]);
    }
}
