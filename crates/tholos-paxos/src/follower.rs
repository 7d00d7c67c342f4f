//! What only a follower has: its patience, and the pieces of a log that is sent again.
//!
//! Rules kept here: R1 (pieces are neither in the log nor in a promise before the whole is here).

use alloc::vec::Vec;

use crate::ballot::{Ballot, Index, Millis, ReplicaId};
use crate::message::Entry;
use crate::options::Options;

#[derive(Debug, Default)]
pub(crate) struct Following {
    /// Since when the leader is lost and a quorum is heard.
    pub(crate) lost_since: Option<Millis>,
    /// No candidacy before this: another candidate was promised, or an heir was named.
    pub(crate) patient_until: Millis,
    staging: Option<Staging>,
    /// The decided index, and since when entries after it have waited.
    undecided_since: Option<(Index, Millis)>,
}

/// Pieces of a re-sent log.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) ballot: Ballot,
    pub(crate) from: Index,
    pub(crate) whole_to: Index,
    pub(crate) entries: Vec<Entry>,
}

impl Following {
    /// The leader is lost, and a quorum is heard.
    pub(crate) fn lost_since(now: Millis) -> Following {
        Following { lost_since: Some(now), ..Following::default() }
    }

    /// Patient until `patient_until`, else as new.
    pub(crate) fn until(patient_until: Millis) -> Following {
        Following { patient_until, ..Following::default() }
    }

    /// Adds a piece to those that came before it, and returns what that makes if it is the
    /// whole. A first piece begins anew; one that continues nothing is dropped.
    pub(crate) fn take_piece(&mut self, piece: Staging, planted_unwhole: bool) -> Option<Staging> {
        let staging = match self.staging.take() {
            Some(mut staging) if staging.continues_with(&piece) => {
                staging.entries.extend(piece.entries);
                staging
            }
            _ if piece.entries.first().is_none_or(|entry| entry.index == piece.from) => piece,
            other => {
                self.staging = other;
                return None;
            }
        };
        if staging.end() < staging.whole_to && !planted_unwhole {
            self.staging = Some(staging);
            return None;
        }
        Some(staging)
    }

    /// Whether entries have waited for `patience` without that anybody called them decided. Asked
    /// with what is decided and the end of the log, or nothing if its leader is another one.
    pub(crate) fn misses_marks(
        &mut self,
        marks: Option<(Index, Index)>,
        now: Millis,
        patience: Millis,
    ) -> bool {
        let Some((decided, _)) = marks.filter(|(decided, last)| decided < last) else {
            self.undecided_since = None;
            return false;
        };
        match self.undecided_since {
            Some((at, since)) if at == decided => {
                let missed = now.since(since) >= patience;
                if missed {
                    self.undecided_since = Some((decided, now));
                }
                missed
            }
            _ => {
                self.undecided_since = Some((decided, now));
                false
            }
        }
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

/// How long a voter of this rank waits after it has lost its leader. After failures the
/// order is shuffled, deterministically, and stretched, so that candidates do not go on
/// outbidding each other.
pub(crate) fn patience(options: &Options, me: ReplicaId, rank: u64, failures: u32) -> Millis {
    let stagger = options.stagger.0;
    if failures == 0 {
        return Millis(rank * stagger);
    }
    let mixed = (u64::from(me.0) << 32 | u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let steps = 2 + 2 * u64::from(failures.min(4));
    Millis((mixed >> 32) % (steps * stagger).max(1))
}
