//! Majorities over one or several configurations at once (R6, R8).

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::ballot::{Index, ReplicaId};
use crate::message::Config;
use crate::options::Planted;

impl Config {
    /// Whether those for whom `has` is true are a majority of the voters.
    pub fn majority(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        let count = self.voters.iter().filter(|voter| has(**voter)).count();
        2 * count > self.voters.len()
    }

    /// Whether `replica` votes here.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica)
    }

    /// Whether `replica` is a voter or a learner here.
    pub fn names(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.learners.contains(&replica)
    }

    /// The highest index that a majority of the voters has reached, where `mark` says how
    /// far each voter has come.
    pub fn reached(&self, mark: impl Fn(ReplicaId) -> Index) -> Index {
        // The usual set is three: no heap, no sort.
        if let [a, b, c] = self.voters[..] {
            let (a, b, c) = (mark(a), mark(b), mark(c));
            return a.max(b).min(a.min(b).max(c));
        }
        if self.voters.is_empty() {
            return Index::ZERO;
        }
        let mut marks: Vec<Index> = self.voters.iter().map(|voter| mark(*voter)).collect();
        marks.sort_unstable();
        marks[(marks.len() - 1) / 2]
    }
}

/// Those of `configs`, oldest first, in which a quorum is counted: all of them, unless a fault is planted.
pub(crate) fn planted_configs<'a>(
    planted: Planted,
    configs: impl Iterator<Item = &'a Config>,
) -> impl Iterator<Item = Cow<'a, Config>> {
    let mut configs: Vec<Cow<'a, Config>> = configs.map(Cow::Borrowed).collect();
    match planted {
        Planted::NewSetOnly => {
            configs.drain(..configs.len() - 1);
        }
        Planted::OldSetOnly => configs.truncate(1),
        Planted::LearnerVotes => {
            for config in &mut configs {
                let learners = config.learners.clone();
                config.to_mut().voters.extend(learners);
            }
        }
        _ => {}
    }
    configs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dumb second version: tries every index.
    fn reached_dumb(marks: &[u64]) -> Index {
        let mut best = 0;
        for index in 0..=9 {
            let count = marks.iter().filter(|mark| **mark >= index).count();
            if 2 * count > marks.len() {
                best = index;
            }
        }
        Index(best)
    }

    #[test]
    fn reached_agrees_with_counting() {
        for size in 1..=5_u32 {
            for code in 0..6_u64.pow(size) {
                let marks: Vec<u64> = (0..size).map(|i| code / 6_u64.pow(i) % 6).collect();
                let config = Config::founding((1..=size).map(ReplicaId).collect());
                assert_eq!(
                    config.reached(|r| Index(marks[r.0 as usize - 1])),
                    reached_dumb(&marks),
                    "{marks:?}"
                );
            }
        }
    }

    #[test]
    fn nobody_is_no_majority() {
        assert!(!Config::default().majority(|_| true));
    }
}
