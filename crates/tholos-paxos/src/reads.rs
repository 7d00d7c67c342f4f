//! Reads on their way through read-index rounds.
//!
//! Rules kept here: R15 (a round confirms only reads that arrived before it was sent).

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::ballot::{Index, ReplicaId};
use crate::outbox::Outbox;

#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Reads {
    /// Arrived since the last round was sent.
    arrived: Vec<(u64, Index)>,
    /// Rounds sent, oldest first.
    rounds: VecDeque<Round>,
    /// Confirmed, but the state has not come as far yet.
    confirmed: Vec<(u64, Index)>,
    last_round: u64,
}

#[derive(Clone, Hash, Debug)]
struct Round {
    round: u64,
    reads: Vec<(u64, Index)>,
    confirmed_by: Vec<ReplicaId>,
}

impl Reads {
    /// A read that must see everything decided up to `index`.
    pub(crate) fn arrive(&mut self, token: u64, index: Index) {
        self.arrived.push((token, index));
    }

    /// Starts a round for what has arrived, if anything has and fewer than `rounds_max` are
    /// under way. Returns its number.
    pub(crate) fn start_round(&mut self, rounds_max: usize) -> Option<u64> {
        if self.arrived.is_empty() || self.rounds.len() >= rounds_max {
            return None;
        }
        self.last_round += 1;
        let reads = core::mem::take(&mut self.arrived);
        self.rounds.push_back(Round { round: self.last_round, reads, confirmed_by: Vec::new() });
        Some(self.last_round)
    }

    /// The number of the last round under way, to be asked again if an answer was lost.
    pub(crate) fn open_round(&self) -> Option<u64> {
        self.rounds.back().map(|round| round.round)
    }

    /// `replica` held to the leader's ballot after `round` was sent, and so after every
    /// earlier one was.
    pub(crate) fn confirm(&mut self, replica: ReplicaId, round: u64, quorum: impl Fn(&[ReplicaId]) -> bool) {
        for open in self.rounds.iter_mut().filter(|open| open.round <= round) {
            if !open.confirmed_by.contains(&replica) {
                open.confirmed_by.push(replica);
            }
        }
        self.count(quorum);
    }

    /// Closes the rounds that a quorum has confirmed. Fewer configurations may count than when an answer came.
    pub(crate) fn count(&mut self, quorum: impl Fn(&[ReplicaId]) -> bool) {
        while self.rounds.front().is_some_and(|open| quorum(&open.confirmed_by)) {
            if let Some(done) = self.rounds.pop_front() {
                self.confirmed.extend(done.reads);
            }
        }
    }

    /// Gives back memory that was reserved for what is to come.
    pub(crate) fn shrink(&mut self) {
        self.arrived.shrink_to_fit();
        self.rounds.shrink_to_fit();
        self.confirmed.shrink_to_fit();
    }

    /// Whether no read waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.arrived.is_empty() && self.rounds.is_empty() && self.confirmed.is_empty()
    }

    /// For planted faults only: whatever has arrived counts as confirmed.
    pub(crate) fn confirm_arrived(&mut self) {
        self.confirmed.append(&mut self.arrived);
    }

    /// Hands out the confirmed reads whose index is decided; the driver applies before it answers.
    pub(crate) fn take_ready(&mut self, decided: Index, out: &mut Outbox) {
        self.confirmed.retain(|(token, index)| {
            let ready = *index <= decided;
            if ready {
                out.reads_ready.push(*token);
            }
            !ready
        });
    }

    /// Leadership is gone: nothing here can be confirmed.
    pub(crate) fn fail(self, out: &mut Outbox) {
        let rounds = self.rounds.into_iter().flat_map(|round| round.reads);
        let all = self.arrived.into_iter().chain(rounds).chain(self.confirmed);
        out.reads_failed.extend(all.map(|(token, _)| token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(reads: &mut Reads, decided: u64) -> Vec<u64> {
        let mut out = Outbox::default();
        reads.take_ready(Index(decided), &mut out);
        out.reads_ready
    }

    #[test]
    fn a_round_confirms_only_what_arrived_before_it_was_sent() {
        let mut reads = Reads::default();
        reads.arrive(1, Index(5));
        assert_eq!(reads.start_round(8), Some(1));
        reads.arrive(2, Index(5));
        reads.confirm(ReplicaId(2), 1, |by| !by.is_empty());
        assert_eq!(ready(&mut reads, 5), [1]);
        assert_eq!(reads.start_round(8), Some(2));
        // Late news of the first round is none of the second.
        reads.confirm(ReplicaId(2), 1, |by| !by.is_empty());
        assert_eq!(ready(&mut reads, 5), []);
        reads.confirm(ReplicaId(2), 2, |by| !by.is_empty());
        assert_eq!(ready(&mut reads, 5), [2]);
    }

    #[test]
    fn a_later_round_confirms_the_earlier_ones() {
        let mut reads = Reads::default();
        reads.arrive(1, Index(1));
        reads.start_round(2);
        reads.arrive(2, Index(1));
        reads.start_round(2);
        reads.arrive(3, Index(1));
        assert_eq!(reads.start_round(2), None);
        reads.confirm(ReplicaId(2), 2, |by| by.len() >= 2);
        assert_eq!(ready(&mut reads, 9), []);
        reads.confirm(ReplicaId(3), 2, |by| by.len() >= 2);
        assert_eq!(ready(&mut reads, 9), [1, 2]);
    }

    #[test]
    fn a_round_is_counted_again_when_fewer_count() {
        let mut reads = Reads::default();
        reads.arrive(1, Index(1));
        reads.start_round(8);
        reads.confirm(ReplicaId(1), 1, |by| by.len() >= 2);
        assert_eq!(ready(&mut reads, 9), []);
        reads.count(|by| !by.is_empty());
        assert_eq!(ready(&mut reads, 9), [1]);
    }

    #[test]
    fn a_confirmed_read_waits_for_its_index_and_fails_with_the_leadership() {
        let mut reads = Reads::default();
        reads.arrive(1, Index(7));
        reads.start_round(8);
        reads.confirm(ReplicaId(2), 1, |_| true);
        assert_eq!(ready(&mut reads, 6), []);
        reads.arrive(2, Index(7));
        let mut out = Outbox::default();
        reads.fail(&mut out);
        assert_eq!(out.reads_failed, [2, 1]);
    }
}
