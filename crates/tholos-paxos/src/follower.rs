//! What only a follower has: its patience, and the pieces of a log that is sent again.
//!
//! Rules kept here: R1 (pieces are neither in the log nor in a promise before the whole is here), R9 (it stands only
//! when its leader is lost and its turn has come).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::acceptor::Acceptor;
use crate::ballot::{Ballot, Index, Millis, ReplicaId};
use crate::log::Log;
use crate::message::{Entry, Message};
use crate::options::{Options, Planted};
use crate::outbox::Outbox;
use crate::rare::Rare;

/// Nothing at all while its leader is there and all that it has is decided.
#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Following(Rare<Unrest>);

#[derive(Clone, PartialEq, Hash, Debug, Default)]
struct Unrest {
    /// Since when the leader is lost and a quorum is heard.
    lost_since: Option<Millis>,
    /// Since when the leader is known to be removed.
    removed_since: Option<Millis>,
    /// No candidacy before this: another candidate was promised, or an heir was named.
    patient_until: Millis,
    staging: Option<Box<Staging>>,
    /// The decided index, and since when entries after it have waited.
    undecided_since: Option<(Index, Millis)>,
}

/// Pieces of a re-sent log.
#[derive(Clone, PartialEq, Hash, Debug)]
pub(crate) struct Staging {
    pub(crate) ballot: Ballot,
    pub(crate) from: Index,
    pub(crate) whole_to: Index,
    pub(crate) entries: Vec<Entry>,
}

impl Following {
    /// The leader is lost, and a quorum is heard.
    pub(crate) fn lost_since(now: Millis) -> Following {
        Following(Unrest { lost_since: Some(now), ..Unrest::default() }.into())
    }

    /// Patient until `patient_until`, else as new.
    pub(crate) fn until(patient_until: Millis) -> Following {
        Following(Unrest { patient_until, ..Unrest::default() }.into())
    }

    /// No candidacy before this.
    pub(crate) fn patient_until(&self) -> Millis {
        self.0.get().map_or(Millis(0), |unrest| unrest.patient_until)
    }

    pub(crate) fn be_patient_until(&mut self, until: Millis) {
        if until > Millis(0) {
            self.0.make().patient_until = until;
        } else if let Some(unrest) = self.0.get_mut() {
            unrest.patient_until = until;
        }
    }

    /// Gives back memory that is not needed now.
    pub(crate) fn shrink(&mut self) {
        self.0.shrink();
    }

    /// Time passed, and nobody leads. Whether it is this replica's turn to stand, which comes after
    /// `patience`; there is none if it may not stand.
    pub(crate) fn tick_lost(&mut self, patience: Option<Millis>, now: Millis) -> bool {
        let unrest = self.0.make();
        let Some(patience) = patience else {
            unrest.lost_since = None;
            return false;
        };
        let since = *unrest.lost_since.get_or_insert(now);
        now >= since.plus(patience) && now >= unrest.patient_until
    }

    /// The leader is there. Whether it is `removed` and should have handed over `patience` ago: then its last word was
    /// lost, and since it never stands nobody would come to miss it.
    pub(crate) fn outstays(&mut self, removed: bool, patience: Millis, now: Millis) -> bool {
        if removed {
            return now >= self.0.make().removed_since.get_or_insert(now).plus(patience);
        }
        if let Some(unrest) = self.0.get_mut() {
            unrest.removed_since = None;
        }
        false
    }

    /// Time passed, and the leader of `ballot` is there.
    ///
    /// The leader of an idle group tells each mark once. If it was lost, this replica holds
    /// entries that nobody calls decided: it says again what it holds, and is told again.
    pub(crate) fn tick_led(
        &mut self,
        ballot: Ballot,
        acceptor: &mut Acceptor,
        options: &Options,
        now: Millis,
        out: &mut Outbox,
    ) {
        if let Some(unrest) = self.0.get_mut() {
            unrest.lost_since = None;
        }
        let log = acceptor.log();
        let follows = log.accepted() == ballot;
        let marks = follows.then(|| (log.decided(), log.last()));
        if self.misses_marks(marks, now, options.probe_interval) {
            acceptor.say_accepted(ballot.replica, ballot, options.planted, out);
        }
    }

    /// Whether time brings nothing as long as the leader of `ballot` is there.
    pub(crate) fn is_idle(&self, ballot: Ballot, log: &Log) -> bool {
        let waits = log.accepted() == ballot && log.decided() < log.last();
        !waits && self.0.get().is_none_or(Unrest::is_over)
    }

    /// A piece of the log that the leader sends again, whole, under its own ballot.
    pub(crate) fn handle_sync(
        &mut self,
        from: ReplicaId,
        piece: Staging,
        acceptor: &mut Acceptor,
        planted: Planted,
        out: &mut Outbox,
    ) {
        let ballot = piece.ballot;
        if acceptor.log().accepted() == ballot {
            // A repeat: the whole log has arrived already.
            let accepted = Message::Accepted { ballot, index: acceptor.log().last() };
            acceptor.send_when_durable(from, accepted, out);
            return;
        }
        if piece.from > acceptor.log().decided().next() {
            out.send(from, acceptor.behind(ballot));
            return;
        }
        if let Some(whole) = self.take_piece(piece, planted == Planted::BallotRaisedByPieces) {
            acceptor.adopt(ballot, whole, out);
            acceptor.say_accepted(from, ballot, planted, out);
        }
    }

    /// Adds a piece to those that came before it, and returns what that makes if it is the
    /// whole. A first piece begins anew; one that continues nothing is dropped.
    fn take_piece(&mut self, piece: Staging, planted_unwhole: bool) -> Option<Vec<Entry>> {
        let place = &mut self.0.make().staging;
        let staging = match place.take() {
            Some(mut staging) if staging.continues_with(&piece) => {
                staging.entries.extend(piece.entries);
                staging
            }
            _ if piece.entries.first().is_none_or(|entry| entry.index == piece.from) => Box::new(piece),
            other => {
                *place = other;
                return None;
            }
        };
        if staging.end() < staging.whole_to && !planted_unwhole {
            *place = Some(staging);
            return None;
        }
        Some(staging.entries)
    }

    /// Whether entries have waited for `patience` without that anybody called them decided. Asked
    /// with what is decided and the end of the log, or nothing if its leader is another one.
    fn misses_marks(&mut self, marks: Option<(Index, Index)>, now: Millis, patience: Millis) -> bool {
        let Some((decided, _)) = marks.filter(|(decided, last)| decided < last) else {
            if let Some(unrest) = self.0.get_mut() {
                unrest.undecided_since = None;
            }
            return false;
        };
        let undecided_since = &mut self.0.make().undecided_since;
        match *undecided_since {
            Some((at, since)) if at == decided => {
                let missed = now.since(since) >= patience;
                if missed {
                    *undecided_since = Some((decided, now));
                }
                missed
            }
            _ => {
                *undecided_since = Some((decided, now));
                false
            }
        }
    }
}

impl Unrest {
    /// Whether nothing of it runs. Pieces wait for more, and for nothing that time brings.
    fn is_over(&self) -> bool {
        self.lost_since.is_none() && self.removed_since.is_none() && self.undecided_since.is_none()
    }
}

impl Staging {
    fn end(&self) -> Index {
        self.entries.last().map_or(Index(self.from.0.saturating_sub(1)), |entry| entry.index)
    }

    fn continues_with(&self, piece: &Staging) -> bool {
        self.ballot == piece.ballot
            && self.from == piece.from
            && self.whole_to == piece.whole_to
            && piece.entries.first().is_some_and(|entry| entry.index == self.end().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Config, Payload};

    const BALLOT: Ballot = Ballot { round: 2, replica: ReplicaId(2) };

    /// A piece of the log from @5 to @9, with the entries at `indexes`.
    fn piece(ballot: Ballot, indexes: core::ops::RangeInclusive<u64>) -> Staging {
        let entry = |at| Entry {
            index: Index(at),
            origin: ballot,
            time: Millis(at),
            seed: 0,
            payload: Payload::Noop,
        };
        Staging { ballot, from: Index(5), whole_to: Index(9), entries: indexes.map(entry).collect() }
    }

    fn whole(following: &mut Following, piece: Staging) -> Option<usize> {
        following.take_piece(piece, false).map(|entries| entries.len())
    }

    #[test]
    fn pieces_are_nothing_until_they_are_the_whole() {
        let mut following = Following::default();
        assert_eq!(whole(&mut following, piece(BALLOT, 5..=6)), None);
        // One that continues nothing changes nothing.
        assert_eq!(whole(&mut following, piece(BALLOT, 8..=9)), None);
        assert_eq!(whole(&mut following, piece(BALLOT, 7..=8)), None);
        assert_eq!(whole(&mut following, piece(BALLOT, 9..=9)), Some(5));
    }

    #[test]
    fn a_first_piece_begins_anew_and_ballots_do_not_mix() {
        let later = Ballot { round: 3, ..BALLOT };
        let mut following = Following::default();
        assert_eq!(whole(&mut following, piece(BALLOT, 5..=7)), None);
        assert_eq!(whole(&mut following, piece(later, 8..=9)), None);
        assert_eq!(whole(&mut following, piece(later, 5..=6)), None);
        assert_eq!(whole(&mut following, piece(BALLOT, 8..=9)), None);
        assert_eq!(whole(&mut following, piece(later, 7..=9)), Some(5));
    }

    #[test]
    fn who_waits_for_marks_is_not_idle() {
        let mut log = Log::new(Config::founding(alloc::vec![ReplicaId(1), ReplicaId(2)]).into());
        log.raise_accepted(BALLOT);
        let following = Following::default();
        assert!(following.is_idle(BALLOT, &log));
        log.append(piece(BALLOT, 1..=1).entries.remove(0));
        assert!(!following.is_idle(BALLOT, &log));
        // Of a leader that has not brought it to its log it waits for nothing.
        assert!(following.is_idle(Ballot { round: 3, ..BALLOT }, &log));
        log.decide(Index(1));
        assert!(following.is_idle(BALLOT, &log));
        assert!(!Following::lost_since(Millis(5)).is_idle(BALLOT, &log));
    }

    #[test]
    fn a_turn_comes_after_patience_and_begins_anew_without_a_quorum() {
        let mut following = Following::until(Millis(50));
        assert!(!following.tick_lost(Some(Millis(20)), Millis(10)));
        // The patience is over, but somebody else was promised.
        assert!(!following.tick_lost(Some(Millis(20)), Millis(30)));
        assert!(following.tick_lost(Some(Millis(20)), Millis(50)));
        assert!(!following.tick_lost(None, Millis(60)));
        assert!(!following.tick_lost(Some(Millis(20)), Millis(70)));
        assert!(following.tick_lost(Some(Millis(20)), Millis(90)));
    }

    #[test]
    fn a_removed_leader_is_waited_for_and_not_for_ever() {
        let mut following = Following::default();
        let mut outstays = |removed, now| following.outstays(removed, Millis(300), Millis(now));
        assert!(!outstays(true, 100) && !outstays(true, 399) && outstays(true, 400));
        assert!(!outstays(false, 500) && !outstays(true, 600) && outstays(true, 900));
    }

    #[test]
    fn marks_are_missed_when_the_same_ones_have_waited() {
        let mut following = Following::default();
        let mut misses =
            |decided, now| following.misses_marks(Some((Index(decided), Index(9))), Millis(now), Millis(100));
        assert!(!misses(5, 0));
        assert!(!misses(6, 90));
        assert!(!misses(6, 180));
        assert!(misses(6, 190));
        // Asked once an interval.
        assert!(!misses(6, 200));
        assert!(!misses(9, 400));
    }
}
