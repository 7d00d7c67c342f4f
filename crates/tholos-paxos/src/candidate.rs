//! What only a candidate has: the step of its candidacy, and who has answered.
//!
//! ```text
//!   Canvass ──quorum──▶ Promise ──durable──▶ Prepare ──quorum──▶ Fetch ──whole─┐
//!   (binds nobody)      (own, R2)              ▲  └── the best log is here ──▶ elected
//!                                              └── counted again under its configurations
//! ```
//!
//! An heir begins with Promise (R10). Who gives up begins again as a follower.
//!
//! Rules kept here: R2 (no Prepare before the own promise is durable), R6 (phase 1 is counted again under the
//! configurations of the log that it adopts), R9 (a quorum must call the leader lost before anything is prepared).

use alloc::vec::Vec;

use crate::acceptor::{Acceptor, Standing};
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::log::Log;
use crate::message::{Config, Entry, Message, Payload};
use crate::options::{Options, Planted};
use crate::outbox::Outbox;
use crate::quorum::planted_configs;

#[derive(Clone, Hash, Debug)]
pub(crate) struct Candidate {
    ballot: Ballot,
    step: Step,
    /// When this attempt is given up.
    gives_up: Millis,
    /// When the last messages are sent again.
    repeats: Millis,
    /// Who has promised, this replica first.
    promises: Vec<Standing>,
    /// The best log fetched so far, if it is better than the own one.
    held: Option<Held>,
    /// The ballot whose leader has let go in favour of this replica (R10).
    released: Option<Ballot>,
}

/// A log fetched whole.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Held {
    /// Its (accepted ballot, length).
    rank: (Ballot, Index),
    /// What it has after the own decided index.
    entries: Vec<Entry>,
}

#[derive(Clone, Hash, Debug)]
enum Step {
    /// Asking whether the others, too, have lost the leader. Binds nobody.
    Canvass { endorsed: Vec<ReplicaId> },
    /// Own promise on its way to disk; nothing has been said yet (R2).
    Promise { seq: AppendSeq },
    /// Phase 1: collecting promises.
    Prepare,
    /// A quorum has promised; fetching the best log of theirs.
    Fetch { source: Standing, entries: Vec<Entry> },
}

/// What a candidacy that has won is won with.
#[derive(Debug)]
pub(crate) struct Elected {
    /// Who has promised, this replica included.
    pub(crate) promises: Vec<Standing>,
    /// The log to adopt, after the decided index.
    pub(crate) entries: Vec<Entry>,
    /// How far one of them knows it to be decided.
    pub(crate) decided: Index,
}

impl Candidate {
    /// Asks the others whether they would promise `ballot`.
    pub(crate) fn canvass(ballot: Ballot, now: Millis, options: &Options) -> Candidate {
        Candidate::new(ballot, Step::Canvass { endorsed: Vec::new() }, now, options.election_timeout, options)
    }

    /// Has asked for its own promise of `ballot`, in the record `seq`; has as long as `span` to win.
    pub(crate) fn promise(
        ballot: Ballot,
        seq: AppendSeq,
        now: Millis,
        span: Millis,
        options: &Options,
    ) -> Candidate {
        Candidate::new(ballot, Step::Promise { seq }, now, span, options)
    }

    fn new(ballot: Ballot, step: Step, now: Millis, span: Millis, options: &Options) -> Candidate {
        Candidate {
            ballot,
            step,
            gives_up: now.plus(span),
            repeats: now.plus(options.stagger),
            promises: Vec::new(),
            held: None,
            released: None,
        }
    }

    /// Stands because the leader of `ballot` has let go.
    #[must_use]
    pub(crate) fn released(self, ballot: Option<Ballot>) -> Candidate {
        Candidate { released: ballot, ..self }
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
            Step::Fetch { source, entries } => {
                let from = entries.last().map_or(decided.next(), |entry| entry.index.next());
                out.send(source.replica, Message::Fetch { ballot, from });
            }
            Step::Canvass { .. } => acceptor.broadcast(&Message::Canvass { ballot, decided }, out),
            Step::Prepare => {
                let prepare = Message::Prepare { ballot, decided, released: self.released };
                let held = self.held.iter().flat_map(|held| configs_of(&held.entries));
                let voters = acceptor.log().configs().chain(held).flat_map(|config| &config.voters);
                acceptor.tell(voters, &prepare, out);
            }
        }
    }

    /// `from` misses the leader as well.
    pub(crate) fn handle_endorse(&mut self, from: ReplicaId) {
        if let Step::Canvass { endorsed } = &mut self.step
            && !endorsed.contains(&from)
        {
            endorsed.push(from);
        }
    }

    /// Whether a quorum misses the leader, and nothing has been promised yet.
    pub(crate) fn is_endorsed(&self, log: &Log) -> bool {
        let Step::Canvass { endorsed } = &self.step else { return false };
        log.quorum_of_known(|replica| endorsed.contains(&replica))
    }

    /// Phase 1a, now that the own promise is durable: it is the first one.
    pub(crate) fn start_prepare(
        &mut self,
        acceptor: &Acceptor,
        planted: Planted,
        out: &mut Outbox,
    ) -> Option<Elected> {
        self.step = Step::Prepare;
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
        if matches!(self.step, Step::Canvass { .. } | Step::Promise { .. }) {
            return None;
        }
        if self.promises.iter().all(|known| known.replica != promise.replica) {
            self.promises.push(promise);
        }
        if matches!(self.step, Step::Fetch { .. }) {
            // Counted when the log that is being fetched is whole.
            return None;
        }
        self.choose_log(acceptor, planted, out)
    }

    /// Counts the promises under the configurations of the best log that is here. If they are a quorum, the log with
    /// the highest (accepted ballot, length) of theirs holds everything that may have been decided: it is fetched,
    /// which may bring configurations of its own and another count (R6), or it is the one that is here.
    fn choose_log(&mut self, acceptor: &Acceptor, planted: Planted, out: &mut Outbox) -> Option<Elected> {
        if !self.has_quorum(acceptor, planted) {
            return None;
        }
        let rank = |standing: &Standing| match planted {
            Planted::LongestLogAdopted => (Ballot::ZERO, standing.length),
            _ => standing.rank(),
        };
        let own = acceptor.standing();
        let best = *self.promises.iter().max_by_key(|promise| rank(promise)).unwrap_or(&own);
        let here = self.held.as_ref().map_or(rank(&own), |held| held.rank);
        if rank(&best) > here {
            // Of two logs of one ballot the shorter is the beginning of the longer (P4).
            let known =
                if best.accepted == own.accepted { acceptor.log().after(own.decided) } else { Vec::new() };
            self.step = Step::Fetch { source: best, entries: known };
            if best.length <= own.decided {
                return self.hold(acceptor, planted, out);
            }
            self.repeat(acceptor, out);
            return None;
        }
        let entries = match self.held.take() {
            Some(held) => held.entries,
            None => acceptor.log().after(own.decided),
        };
        let (decided, last) = (self.known_decided(), entries.last().map_or(own.decided, |entry| entry.index));
        assert!(
            decided <= last,
            "P6: {decided} is decided, and phase 1 of {} found a log to {last}",
            self.ballot
        );
        Some(Elected { promises: core::mem::take(&mut self.promises), entries, decided })
    }

    /// Whether it cannot know who counts: it has joined with a Config that is not in the best log, and nor is any other.
    pub(crate) fn knows_no_config(&self, acceptor: &Acceptor) -> bool {
        let without = |held: &Held| configs_of(&held.entries).next().is_none();
        !acceptor.log().knows_its_config() && self.held.as_ref().is_some_and(without)
    }

    /// How far one of those who have promised knows the log to be decided.
    fn known_decided(&self) -> Index {
        self.promises.iter().map(|promise| promise.decided).max().unwrap_or_default()
    }

    /// Whether those who have promised are a quorum of every configuration that counts in the best log that is here:
    /// the last one that anybody of them knows to be decided, and all after it (R6).
    fn has_quorum(&self, acceptor: &Acceptor, planted: Planted) -> bool {
        let log = acceptor.log();
        let own = log.configs_at();
        let configs: Vec<(Index, &Config)> = match &self.held {
            None => own.collect(),
            Some(held) => own.take(1).chain(configs_at(&held.entries)).collect(),
        };
        let known = self.known_decided();
        let last_decided = configs.iter().rposition(|(at, _)| *at <= known).unwrap_or(0);
        let counting = configs[last_decided..].iter().map(|(_, config)| *config);
        let has_promised = |replica| self.promises.iter().any(|promise| promise.replica == replica);
        match planted {
            Planted::NotCountedAgain => log.quorum(has_promised),
            _ => planted_configs(planted, counting).all(|config| config.majority(has_promised)),
        }
    }

    /// What is being fetched is whole: it is the best log that is here.
    fn hold(&mut self, acceptor: &Acceptor, planted: Planted, out: &mut Outbox) -> Option<Elected> {
        let Step::Fetch { source, entries } = core::mem::replace(&mut self.step, Step::Prepare) else {
            return None;
        };
        let rank = match planted {
            Planted::LongestLogAdopted => (Ballot::ZERO, source.length),
            _ => source.rank(),
        };
        let brings_configs = configs_of(&entries).next().is_some();
        self.held = Some(Held { rank, entries });
        let elected = self.choose_log(acceptor, planted, out);
        if elected.is_none() && brings_configs && matches!(self.step, Step::Prepare) {
            // Voters that were not known here have not been asked yet.
            self.repeat(acceptor, out);
        }
        elected
    }

    /// Adds pieces of the log of `from`, which ends at `length`, to what comes after the decided index.
    pub(crate) fn handle_fetched(
        &mut self,
        from: ReplicaId,
        pieces: Vec<Entry>,
        length: Index,
        acceptor: &Acceptor,
        times: (Millis, Planted),
        out: &mut Outbox,
    ) -> Option<Elected> {
        let Step::Fetch { source, entries } = &mut self.step else { return None };
        if source.replica != from || source.length != length {
            return None;
        }
        let (gives_up, planted) = times;
        let log = acceptor.log();
        let decided = log.decided();
        let before = entries.len();
        for entry in pieces {
            let mut next = entries.last().map_or(decided.next(), |last| last.index.next());
            if next < entry.index && log.accepted() == entry.origin && log.last().next() >= entry.index {
                // The other has forgotten what is before this one, which was proposed in the very ballot that the own
                // log is accepted in: that was on top of the own one so far (P4), whoever sends it again (P5).
                let own = log.after(decided).into_iter();
                entries.extend(own.filter(|own| next <= own.index && own.index < entry.index));
                next = entry.index;
            }
            if entry.index == next {
                entries.push(entry);
                // A long log takes longer than one time-out; what counts is that it moves.
                self.gives_up = gives_up;
            }
        }
        if entries.last().map_or(decided, |last| last.index) < source.length {
            if entries.len() > before {
                self.repeat(acceptor, out);
            }
            return None;
        }
        self.hold(acceptor, planted, out)
    }
}

fn configs_at(entries: &[Entry]) -> impl Iterator<Item = (Index, &Config)> {
    entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Config(config) => Some((entry.index, &**config)),
        _ => None,
    })
}

fn configs_of(entries: &[Entry]) -> impl Iterator<Item = &Config> {
    configs_at(entries).map(|(_, config)| config)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    const OWN: Ballot = Ballot { round: 1, replica: ReplicaId(1) };
    const BALLOT: Ballot = Ballot { round: 3, replica: ReplicaId(1) };

    fn entry(at: u64) -> Entry {
        Entry { index: Index(at), origin: OWN, time: Millis(at), seed: 0, payload: Payload::Noop }
    }

    /// Of five, with two entries accepted in [`OWN`]; its own promise counts already.
    fn preparing() -> (Candidate, Acceptor) {
        let voters = (1..=5).map(ReplicaId).collect();
        let mut acceptor = Acceptor::new(ReplicaId(1), Config::founding(voters).into());
        let mut out = Outbox::default();
        acceptor.adopt(OWN, vec![entry(1), entry(2)], &mut out);
        let seq = acceptor.promise(BALLOT, &mut out);
        let mut candidate = Candidate::promise(
            BALLOT,
            seq,
            Millis(0),
            Options::default().election_timeout,
            &Options::default(),
        );
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
        let fetch = |from, first| (ReplicaId(from), Message::Fetch { ballot: BALLOT, from: Index(first) });
        // Nobody counts twice. Of a log of its own ballot it has the beginning already (P4).
        check(&[promise(2, 1, 1), promise(2, 1, 1)], None, &[]);
        check(&[promise(2, 1, 1), promise(3, 1, 2)], Some(2), &[]);
        check(&[promise(2, 1, 3), promise(3, 0, 9)], None, &[fetch(2, 3)]);
        check(&[promise(2, 2, 1), promise(3, 1, 9)], None, &[fetch(2, 1)]);
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
            let origin = Ballot { round: 2, replica: ReplicaId(3) };
            let entries = entries.iter().map(|at| Entry { origin, ..entry(*at) }).collect();
            let elected = candidate.handle_fetched(
                ReplicaId(from),
                entries,
                Index(length),
                &acceptor,
                (Millis(500), Planted::Nothing),
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
