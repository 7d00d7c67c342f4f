//! One replica's way between nodes: the step that plans and jobs are made of.

use alloc::vec::Vec;
use core::fmt;

use tholos_ring::ShardId;

use crate::id::NodeId;

/// A change of one shard's replica set that is safe by itself, whatever becomes of others: one replica comes, goes, or
/// both. Written `s12 n3 → n4`, `s12 + n4` and `s12 - n3`.
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
    /// The set once the move is made: who stays in its order, then the new one. `None` if the move does not fit `set`: it
    /// has no replica to give up, has the new one already, or would lose its last.
    #[must_use]
    pub fn set_after(&self, set: &[NodeId]) -> Option<Vec<NodeId>> {
        let fits =
            self.from.is_none_or(|from| set.contains(&from)) && self.to.is_none_or(|to| !set.contains(&to));
        let stay = set.iter().copied().filter(|node| Some(*node) != self.from);
        let after: Vec<NodeId> = stay.chain(self.to).collect();
        (fits && !after.is_empty()).then_some(after)
    }
}

impl fmt::Display for Move {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
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
        check(step(Some(3), Some(4)), &[3, 1, 2], Some(&[1, 2, 4]));
        check(step(None, Some(4)), &[1], Some(&[1, 4]));
        check(step(Some(1), None), &[1, 2], Some(&[2]));
        check(step(Some(3), Some(4)), &[1, 2], None);
        check(step(Some(1), Some(2)), &[1, 2], None);
        check(step(Some(1), None), &[1], None);
    }

    #[test]
    fn moves_are_written_in_one_notation() {
        let written = [step(Some(3), Some(4)), step(None, Some(4)), step(Some(3), None)];
        assert_eq!(written.map(|step| step.to_string()), ["s12 n3 → n4", "s12 + n4", "s12 - n3"]);
    }
}
