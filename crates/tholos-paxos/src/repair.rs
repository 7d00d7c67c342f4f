//! A replica that has lost records which were durable: mute until it knows what it may have promised, then brought up
//! to date like any follower, and only then a voter again.
//!
//! It cannot know what it has lost, so it takes everything for lost. What makes it safe is in
//! `docs/decisions/0018-a-replica-with-rot-is-mute.md`; in short, with *B* the highest ballot that any other voter says
//! it has promised:
//!
//! - Whoever sent this replica a Prepare had its own promise of that ballot on disk before (R2). So *B* is no lower than
//!   any ballot that this replica has promised to another, or has led in. Above it are at most its own candidacies
//!   that nobody had promised yet; [`ROUNDS_SKIPPED`] passes over them.
//! - It takes part again when its log is accepted, whole (R1), in a ballot above those. The leader of that ballot was elected
//!   without it, by a majority of which each has told the truth, so it has everything that was decided below, with the
//!   help of lost records too.
//! - It accepts nothing below that ballot any more, so every promise that it has lost is kept.
//!
//! Rules kept here: R20.

use alloc::vec::Vec;

use crate::ballot::{Ballot, Millis, ReplicaId};
use crate::message::{Config, Message};

/// Rounds between what the others have promised and what a repaired replica takes part in: more than the candidacies in
/// a row that can have come to nothing. Each takes a quorum of endorsements and then an election time-out without any
/// promise, so these are days. Passed over, no ballot of its own is used twice, and no promise that was made to one of
/// them binds too late.
pub(crate) const ROUNDS_SKIPPED: u64 = 1 << 20;

/// Who waits for a leader asks again once none has spoken to it for so long, many times as long as leaders take to ask those
/// they miss: it may have been replaced since it was answered, or its place been given to another id, and then nobody tells it.
const LEFT_ALONE: Millis = Millis(2_000);

/// What a replica that has lost records still waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repair {
    /// Answers of other voters: what they have promised bounds what this one may have.
    Asks {
        /// Who have answered.
        answered: usize,
        /// Who must.
        needed: usize,
    },
    /// Another id: it knows of no set, or of one that is not in force any more.
    WaitsForId,
    /// A leader of this ballot or a higher one, and its whole log.
    Waits {
        /// Above every ballot in which it may have voted.
        until: Ballot,
    },
}

/// What a mute replica has asked and heard.
#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Asking {
    /// Tells answers to this boot's question from those to an earlier one, which may be too low.
    nonce: u64,
    bounds: Vec<(ReplicaId, Ballot)>,
    /// Whom to ask besides the voters that are known.
    contacts: Vec<ReplicaId>,
    /// Whether the set that it knows of has changed since.
    set_changed: bool,
    /// Under which id it may begin anew, if it may.
    renewed: Option<ReplicaId>,
    /// When to ask again.
    next: Millis,
    /// When a leader spoke to it last, or when it began to wait for one.
    led: Option<Millis>,
}

impl Asking {
    pub(crate) fn new(nonce: u64) -> Asking {
        Asking { nonce, ..Asking::default() }
    }

    pub(crate) fn ask_also(&mut self, contacts: impl IntoIterator<Item = ReplicaId>) {
        self.contacts.clear();
        self.contacts.extend(contacts);
    }

    pub(crate) fn note_changed(&mut self) {
        self.set_changed = true;
    }

    pub(crate) fn set_changed(&self) -> bool {
        self.set_changed
    }

    pub(crate) fn contacts(&self) -> &[ReplicaId] {
        &self.contacts
    }

    pub(crate) fn handle_renewed(&mut self, nonce: u64, replica: ReplicaId) {
        if nonce == self.nonce {
            self.renewed = Some(replica);
        }
    }

    pub(crate) fn renewed(&self) -> Option<ReplicaId> {
        self.renewed
    }

    /// A leader that it may follow has spoken to it.
    pub(crate) fn note_led(&mut self, now: Millis) {
        self.led = Some(now);
    }

    /// Whether it has waited long enough for a leader.
    pub(crate) fn is_left_alone(&mut self, now: Millis) -> bool {
        now.since(*self.led.get_or_insert(now)) >= LEFT_ALONE
    }

    /// What to ask, if it is time to.
    pub(crate) fn tick(&mut self, now: Millis, interval: Millis) -> Option<Message> {
        if now < self.next {
            return None;
        }
        self.next = now.plus(interval);
        Some(self.question())
    }

    pub(crate) fn question(&self) -> Message {
        Message::Repair { nonce: self.nonce }
    }

    pub(crate) fn has_answered(&self, replica: ReplicaId) -> bool {
        self.bounds.iter().any(|(known, _)| *known == replica)
    }

    /// `from` has promised nothing above `promised` yet. Returns a ballot above all of them once every other voter of
    /// `config` has answered. Nobody bounds what a replica without others has lost.
    pub(crate) fn handle_bound(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        promised: Ballot,
        me: ReplicaId,
        config: &Config,
    ) -> Option<Ballot> {
        if nonce != self.nonce || from == me || !config.is_voter(from) {
            return None;
        }
        if !self.has_answered(from) {
            self.bounds.push((from, promised));
        }
        let all = config.voters.iter().filter(|voter| **voter != me).all(|voter| self.has_answered(*voter));
        let highest = self.bounds.iter().map(|(_, promised)| *promised).max()?;
        // Nobody leads in it: replicas are numbered from 1.
        all.then(|| Ballot { round: highest.round + ROUNDS_SKIPPED, replica: ReplicaId(0) })
    }
}

/// Whether a mute replica may take `message` in: the answers it waits for, and what brings it up to date. Nothing of
/// this lets another count a vote of it.
pub(crate) fn concerns(message: &Message) -> bool {
    matches!(
        message,
        Message::Bound { .. }
            | Message::Renewed { .. }
            | Message::Sync { .. }
            | Message::Accept { .. }
            | Message::Decide { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(1);

    fn config() -> Config {
        Config::founding((1..=3).map(ReplicaId).collect())
    }

    fn bound(asking: &mut Asking, from: u32, nonce: u64, round: u64) -> Option<Ballot> {
        let promised = Ballot { round, replica: ReplicaId(from) };
        asking.handle_bound(ReplicaId(from), nonce, promised, ME, &config())
    }

    #[test]
    fn the_bound_is_above_what_every_other_voter_has_promised() {
        let mut asking = Asking::new(7);
        assert_eq!(bound(&mut asking, 2, 7, 5), None);
        assert_eq!(bound(&mut asking, 2, 7, 9), None, "nobody counts twice");
        let until = bound(&mut asking, 3, 7, 4).expect("all have answered");
        assert_eq!(until, Ballot { round: 5 + ROUNDS_SKIPPED, replica: ReplicaId(0) });
    }

    #[test]
    fn strangers_and_answers_to_an_earlier_question_do_not_count() {
        let mut asking = Asking::new(7);
        assert_eq!(bound(&mut asking, 2, 7, 1), None);
        assert_eq!(bound(&mut asking, 3, 6, 1), None, "of an earlier boot");
        assert_eq!(bound(&mut asking, 4, 7, 1), None, "no voter");
        assert_eq!(bound(&mut asking, 1, 7, 1), None, "itself");
        assert!(bound(&mut asking, 3, 7, 1).is_some());
    }

    #[test]
    fn it_asks_once_an_interval() {
        let mut asking = Asking::new(7);
        let ask = Some(Message::Repair { nonce: 7 });
        assert_eq!(asking.tick(Millis(10), Millis(100)), ask);
        assert_eq!(asking.tick(Millis(109), Millis(100)), None);
        assert_eq!(asking.tick(Millis(110), Millis(100)), ask);
    }
}
