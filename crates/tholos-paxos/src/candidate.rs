//! What only a candidate has: the step of its candidacy, and who has answered.
//!
//! ```text
//!   Canvass ──quorum──▶ Promise ──durable──▶ Prepare ──quorum──▶ Fetch ──whole──▶ elected
//!   (binds nobody)      (own, R2)                └── own log is the best ──────────▶
//! ```
//!
//! An heir begins with Promise (R10). Who gives up begins again as a follower.
//!
//! Rules kept here: R2 (no Prepare before the own promise is durable), R9 (a quorum must call
//! the leader lost before anything is prepared).

use alloc::vec::Vec;

use crate::acceptor::{Acceptor, Standing};
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::log::Log;
use crate::message::{Entry, Message};
use crate::options::{Options, Planted};
use crate::outbox::Outbox;

#[derive(Clone, Hash, Debug)]
pub(crate) struct Candidate {
    ballot: Ballot,
    step: Step,
    /// When this attempt is given up.
    gives_up: Millis,
    /// When the last messages are sent again.
    repeats: Millis,
}

#[derive(Clone, Hash, Debug)]
enum Step {
    /// Asking whether the others, too, have lost the leader. Binds nobody.
    Canvass { endorsed: Vec<ReplicaId> },
    /// Own promise on its way to disk; nothing has been said yet (R2).
    Promise { seq: AppendSeq },
    /// Phase 1: collecting promises, the own one first.
    Prepare { promises: Vec<Standing> },
    /// A quorum has promised; fetching the log that must be adopted.
    Fetch { promises: Vec<Standing>, source: ReplicaId, entries: Vec<Entry>, whole_to: Index },
}

/// What a candidacy that has won is won with.
#[derive(Debug)]
pub(crate) struct Elected {
    /// Who has promised, this replica included.
    pub(crate) promises: Vec<Standing>,
    /// The log to adopt, after the decided index.
    pub(crate) entries: Vec<Entry>,
}

impl Candidate {
    /// Asks the others whether they would promise `ballot`.
    pub(crate) fn canvass(ballot: Ballot, now: Millis, options: &Options) -> Candidate {
        Candidate::new(ballot, Step::Canvass { endorsed: Vec::new() }, now, options)
    }

    /// Has asked for its own promise of `ballot`, in the record `seq`.
    pub(crate) fn promise(ballot: Ballot, seq: AppendSeq, now: Millis, options: &Options) -> Candidate {
        Candidate::new(ballot, Step::Promise { seq }, now, options)
    }

    fn new(ballot: Ballot, step: Step, now: Millis, options: &Options) -> Candidate {
        Candidate {
            ballot,
            step,
            gives_up: now.plus(options.election_timeout),
            repeats: now.plus(options.stagger),
        }
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whether this has taken too long.
    pub(crate) fn is_over(&self, now: Millis) -> bool {
        now >= self.gives_up
    }

    /// Whether the own promise is what was waited for and is durable.
    pub(crate) fn may_prepare(&self, durable: AppendSeq) -> bool {
        matches!(self.step, Step::Promise { seq } if seq <= durable)
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, acceptor: &Acceptor, options: &Options, now: Millis, out: &mut Outbox) {
        if now >= self.repeats {
            self.repeats = now.plus(options.stagger);
            self.repeat(acceptor, out);
        }
    }

    /// Sends, or sends again, what the current step waits for.
    pub(crate) fn repeat(&self, acceptor: &Acceptor, out: &mut Outbox) {
        let ballot = self.ballot;
        let decided = acceptor.log().decided();
        match &self.step {
            Step::Promise { .. } => {}
            Step::Fetch { source, entries, .. } => {
                let from = entries.last().map_or(decided.next(), |entry| entry.index.next());
                out.send(*source, Message::Fetch { ballot, from });
            }
            Step::Canvass { .. } => acceptor.broadcast(&Message::Canvass { ballot, decided }, out),
            Step::Prepare { .. } => acceptor.broadcast(&Message::Prepare { ballot, decided }, out),
        }
    }

    /// `from` misses the leader as well. Returns whether a quorum does.
    pub(crate) fn handle_endorse(&mut self, from: ReplicaId, log: &Log) -> bool {
        let Step::Canvass { endorsed } = &mut self.step else { return false };
        if !endorsed.contains(&from) {
            endorsed.push(from);
        }
        log.quorum(|replica| endorsed.contains(&replica))
    }

    /// Phase 1a, now that the own promise is durable: it is the first one.
    pub(crate) fn start_prepare(
        &mut self,
        acceptor: &Acceptor,
        planted: Planted,
        out: &mut Outbox,
    ) -> Option<Elected> {
        self.step = Step::Prepare { promises: Vec::new() };
        self.repeat(acceptor, out);
        self.handle_promise(acceptor.standing(), acceptor, planted, out)
    }

    /// One more has promised this ballot.
    pub(crate) fn handle_promise(
        &mut self,
        promise: Standing,
        acceptor: &Acceptor,
        planted: Planted,
        out: &mut Outbox,
    ) -> Option<Elected> {
        let (promises, counting) = match &mut self.step {
            Step::Prepare { promises } => (promises, true),
            // Too late to be counted, but not to be brought up to date.
            Step::Fetch { promises, .. } => (promises, false),
            Step::Canvass { .. } | Step::Promise { .. } => return None,
        };
        if promises.iter().all(|known| known.replica != promise.replica) {
            promises.push(promise);
        }
        let has_promised = |replica| promises.iter().any(|known| known.replica == replica);
        if !counting || !acceptor.log().quorum(has_promised) {
            return None;
        }
        let promises = core::mem::take(promises);
        self.choose_log(promises, acceptor, planted, out)
    }

    /// Phase 1 is complete: the log with the highest (accepted ballot, length) is the one that
    /// holds everything that may have been decided.
    fn choose_log(
        &mut self,
        promises: Vec<Standing>,
        acceptor: &Acceptor,
        planted: Planted,
        out: &mut Outbox,
    ) -> Option<Elected> {
        let rank = |promise: &Standing| match planted {
            Planted::LongestLogAdopted => (Ballot::ZERO, promise.length),
            _ => promise.rank(),
        };
        let decided = acceptor.log().decided();
        let best = promises.iter().max_by_key(|promise| rank(promise)).expect("a quorum is not empty");
        if rank(best) <= rank(&acceptor.standing()) {
            return Some(Elected { promises, entries: acceptor.log().after(decided) });
        }
        let (source, whole_to) = (best.replica, best.length);
        if whole_to <= decided {
            return Some(Elected { promises, entries: Vec::new() });
        }
        self.step = Step::Fetch { promises, source, entries: Vec::new(), whole_to };
        self.repeat(acceptor, out);
        None
    }

    /// Adds pieces of the log of `from`, which ends at `length`, to what comes after the decided index.
    pub(crate) fn handle_fetched(
        &mut self,
        from: ReplicaId,
        pieces: Vec<Entry>,
        length: Index,
        acceptor: &Acceptor,
        gives_up: Millis,
        out: &mut Outbox,
    ) -> Option<Elected> {
        let Step::Fetch { promises, source, entries, whole_to } = &mut self.step else { return None };
        if *source != from || *whole_to != length {
            return None;
        }
        let decided = acceptor.log().decided();
        for entry in pieces {
            let next = entries.last().map_or(decided.next(), |last| last.index.next());
            if entry.index == next {
                entries.push(entry);
                // A long log takes longer than one time-out; what counts is that it moves.
                self.gives_up = gives_up;
            }
        }
        if entries.last().map_or(decided, |last| last.index) < *whole_to {
            self.repeat(acceptor, out);
            return None;
        }
        Some(Elected { promises: core::mem::take(promises), entries: core::mem::take(entries) })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::message::{Config, Payload};

    const OWN: Ballot = Ballot { round: 1, replica: ReplicaId(1) };
    const BALLOT: Ballot = Ballot { round: 3, replica: ReplicaId(1) };

    fn entry(at: u64) -> Entry {
        Entry { index: Index(at), origin: OWN, time: Millis(at), seed: 0, payload: Payload::Noop }
    }

    /// Of five, with two entries accepted in [`OWN`]; its own promise counts already.
    fn preparing() -> (Candidate, Acceptor) {
        let voters = (1..=5).map(ReplicaId).collect();
        let mut acceptor = Acceptor::new(ReplicaId(1), Config::founding(voters));
        let mut out = Outbox::default();
        acceptor.adopt(OWN, vec![entry(1), entry(2)], &mut out);
        let seq = acceptor.promise(BALLOT, &mut out);
        let mut candidate = Candidate::promise(BALLOT, seq, Millis(0), &Options::default());
        assert!(candidate.may_prepare(seq) && !candidate.may_prepare(AppendSeq(seq.0 - 1)));
        assert!(candidate.start_prepare(&acceptor, Planted::Nothing, &mut out).is_none());
        (candidate, acceptor)
    }

    fn promise(replica: u32, round: u64, length: u64) -> Standing {
        let accepted = Ballot { round, replica: ReplicaId(1) };
        Standing { replica: ReplicaId(replica), accepted, length: Index(length), decided: Index::ZERO }
    }

    /// What comes of these promises: the length of the log won with, and what is sent.
    fn check(promises: &[Standing], won_with: Option<usize>, sent: &[(ReplicaId, Message)]) {
        let (mut candidate, acceptor) = preparing();
        let mut out = Outbox::default();
        let mut won = None;
        for promise in promises {
            won = candidate.handle_promise(*promise, &acceptor, Planted::Nothing, &mut out);
        }
        assert_eq!(won.map(|elected| elected.entries.len()), won_with);
        assert_eq!(out.sends, sent);
    }

    #[test]
    fn a_quorum_chooses_the_highest_ballot_before_the_longest_log() {
        let fetch = |from| (ReplicaId(from), Message::Fetch { ballot: BALLOT, from: Index(1) });
        // Nobody counts twice.
        check(&[promise(2, 1, 1), promise(2, 1, 1)], None, &[]);
        check(&[promise(2, 1, 1), promise(3, 1, 2)], Some(2), &[]);
        check(&[promise(2, 1, 3), promise(3, 0, 9)], None, &[fetch(2)]);
        check(&[promise(2, 2, 1), promise(3, 1, 9)], None, &[fetch(2)]);
        // The best log is empty: so is what it won with.
        check(&[promise(2, 2, 0), promise(3, 1, 9)], Some(0), &[]);
    }

    #[test]
    fn a_fetched_log_is_won_with_when_it_is_whole() {
        let (mut candidate, acceptor) = preparing();
        let mut out = Outbox::default();
        for from in [2, 3] {
            candidate.handle_promise(promise(from, 2, 3), &acceptor, Planted::Nothing, &mut out);
        }
        let mut fetched = |from, entries: &[u64], length| {
            let entries = entries.iter().copied().map(entry).collect();
            let elected = candidate.handle_fetched(
                ReplicaId(from),
                entries,
                Index(length),
                &acceptor,
                Millis(500),
                &mut out,
            );
            elected.map(|elected| (elected.promises.len(), elected.entries.len()))
        };
        assert_eq!(fetched(2, &[1, 2, 3], 3), None, "not the one that was asked");
        assert_eq!(fetched(3, &[1, 2, 3, 4], 4), None, "not the log that was promised");
        assert_eq!(fetched(3, &[1], 3), None);
        assert_eq!(fetched(3, &[1, 3], 3), None, "a hole");
        assert_eq!(fetched(3, &[2, 3], 3), Some((3, 3)));
        assert!(!candidate.is_over(Millis(499)) && candidate.is_over(Millis(500)));
    }
}
