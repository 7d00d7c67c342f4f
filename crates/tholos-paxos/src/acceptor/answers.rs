//! What an acceptor takes of leaders, and what it says to them and to candidates.

use alloc::vec::Vec;

use super::{Acceptor, Standing};
use crate::ballot::{Ballot, Index, ReplicaId};
use crate::message::{Entry, Message};
use crate::options::{Options, Planted};
use crate::outbox::Outbox;

/// Who asks was judged before.
impl Acceptor {
    /// Phase 2b: takes new entries of the leader of `ballot`.
    pub(crate) fn handle_accept(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        mut entries: Vec<Entry>,
        decided: Index,
        planted: Planted,
        out: &mut Outbox,
    ) {
        // R1: taken only at accepted + 1 of that very ballot.
        let first = entries.first().map_or(Index::ZERO, |entry| entry.index);
        let other_ballot = self.log.accepted() != ballot && planted != Planted::LowerBallotAccepted;
        if other_ballot || (first > self.log.last().next() && planted != Planted::AcceptedWithGap) {
            out.send(from, self.behind(ballot));
            return;
        }
        let known = entries.iter().take_while(|entry| entry.index <= self.log.last()).count();
        for entry in entries.drain(..known) {
            if let Some(origin) = self.log.origin_at(entry.index)
                && planted == Planted::Nothing
            {
                assert_eq!(origin, entry.origin, "P5: two values at {} in {ballot}", entry.index);
            }
        }
        // Before the append, so that its record tells it after a restart.
        self.learn_decided(decided);
        if !entries.is_empty() {
            self.append(entries, out);
            self.learn_decided(decided);
        }
        self.say_accepted(from, ballot, planted, out);
    }

    /// The leader of `ballot` tells its marks; `length` is zero if it asks for nothing.
    pub(crate) fn handle_decide(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        decided: Index,
        length: Index,
        planted: Planted,
        out: &mut Outbox,
    ) {
        let fits = self.log.accepted() == ballot;
        if fits || planted == Planted::DecidedInAnyBallot {
            self.learn_decided(decided);
        }
        if fits && length > Index::ZERO {
            // Also if more is missing: earlier answers may be what was lost.
            self.say_accepted(from, ballot, planted, out);
        }
        if !fits || length > self.log.last() {
            out.send(from, self.behind(ballot));
        }
    }

    /// A candidate asks for the log that it must adopt, from `first` on.
    pub(crate) fn handle_fetch(
        &self,
        from: ReplicaId,
        ballot: Ballot,
        first: Index,
        options: &Options,
        out: &mut Outbox,
    ) {
        if ballot != self.promised {
            self.reject(from, out);
            return;
        }
        // What is not in memory any more the candidate may have itself. If not, it needs what covers it.
        if !self.log.resends_after(Index(first.0.saturating_sub(1)), options.resent_bytes_max) {
            out.snapshots_wanted.push(from);
        }
        let first = first.max(self.log.base().index.next());
        let whole_to = self.log.last();
        let entries = self.log.slice(first, whole_to, options.message_bytes_max);
        out.send(from, Message::Fetched { ballot, entries, whole_to });
    }

    fn learn_decided(&mut self, decided: Index) {
        self.log.decide(decided.min(self.log.last()));
    }

    pub(crate) fn say_accepted(&mut self, to: ReplicaId, ballot: Ballot, planted: Planted, out: &mut Outbox) {
        let accepted = Message::Accepted { ballot, index: self.log.last() };
        self.say(to, accepted, planted == Planted::AcceptedBeforeDurable, out);
    }

    /// Promises to a candidate that knows as much as `known` to be decided. It takes for decided, in the best log that it finds,
    /// what anybody says is (R6). What came with a snapshot of a higher ballot than this log's says nothing of such a log, which
    /// may be of a ballot in between, with a Config that was never decided: so no more is told than is known there.
    pub(crate) fn say_promise(
        &mut self,
        to: ReplicaId,
        ballot: Ballot,
        known: Index,
        planted: Planted,
        out: &mut Outbox,
    ) {
        let Standing { accepted, length, mut decided, .. } = self.standing();
        if self.knows_above_its_log {
            decided = decided.min(known);
        }
        let promise = Message::Promise { ballot, accepted, length, decided };
        self.say(to, promise, planted == Planted::PromiseBeforeDurable, out);
    }

    fn say(&mut self, to: ReplicaId, message: Message, planted_early: bool, out: &mut Outbox) {
        if planted_early {
            out.send(to, message);
        } else {
            self.send_when_durable(to, message, out);
        }
    }

    /// Only a hint that saves the other a time-out, so it need not wait for disk.
    pub(crate) fn reject(&self, to: ReplicaId, out: &mut Outbox) {
        out.send(to, Message::Reject { promised: self.promised });
    }

    pub(crate) fn behind(&self, ballot: Ballot) -> Message {
        let Standing { accepted, length, decided, .. } = self.standing();
        Message::Behind { ballot, accepted, length, decided }
    }

    /// To every other voter of every configuration that counts.
    pub(crate) fn broadcast(&self, message: &Message, out: &mut Outbox) {
        self.tell(self.log.configs().flat_map(|config| &config.voters), message, out);
    }

    /// To each of `voters` once, but not to this replica.
    pub(crate) fn tell<'a>(
        &self,
        voters: impl Iterator<Item = &'a ReplicaId>,
        message: &Message,
        out: &mut Outbox,
    ) {
        let mut told: Vec<ReplicaId> = Vec::new();
        for voter in voters {
            if *voter != self.me && !told.contains(voter) {
                told.push(*voter);
                out.send(*voter, message.clone());
            }
        }
    }
}
