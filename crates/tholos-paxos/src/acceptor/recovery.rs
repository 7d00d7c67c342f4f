//! What an acceptor takes back from its disk, and what becomes of it when records are lost (R20).

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::Acceptor;
use crate::ballot::{Ballot, Index, ReplicaId};
use crate::log::Log;
use crate::message::{Checkpoint, Record};
use crate::options::Planted;
use crate::outbox::Outbox;
use crate::rare::Rare;

/// Records that were durable are lost (R20).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Lost {
    /// In which ballots it has voted is not known.
    Unknown,
    /// None at or above this one.
    Until(Ballot),
}

/// Taking back.
impl Acceptor {
    /// Takes back one record, in order. All are durable.
    pub(crate) fn recover(&mut self, record: Record, planted: Planted) -> Result<(), &'static str> {
        if let Record::Joined { replica } = record {
            // Whoever lived here before has nothing to do with this one.
            *self = Acceptor::joined(replica);
        }
        let promised = match record {
            Record::Promised { ballot } => ballot,
            Record::Accepted { ballot, decided, entries } => {
                return self.log.recover_accepted(ballot, decided, entries);
            }
            Record::Replaced { ballot, from, entries } => {
                self.log.recover_replaced(ballot, from, entries)?;
                self.knows_above_its_log = false;
                ballot
            }
            Record::Rescued { ballot, from, entries } => {
                self.log.recover_rescued(ballot, from, entries)?;
                self.knows_above_its_log = false;
                ballot
            }
            Record::Checkpoint(checkpoint) => {
                let promised = checkpoint.promised.max(checkpoint.accepted);
                if checkpoint.joined != ReplicaId::default() {
                    (self.me, self.has_joined) = (checkpoint.joined, true);
                }
                self.knows_above_its_log = checkpoint.knows_above;
                self.log = Log::recover_checkpoint(*checkpoint)?;
                promised
            }
            Record::Joined { .. } => return Ok(()),
            Record::Muted { until: None } => {
                self.forget();
                Ballot::ZERO
            }
            Record::Muted { until: Some(until) } => {
                self.lost = Some(Box::new(Lost::Until(until)));
                until
            }
        };
        if planted != Planted::PromiseForgotten {
            self.promised = self.promised.max(promised);
        }
        Ok(())
    }

    /// Whether the records taken back so far hold all that `checkpoint` does; then its marks are taken over, and no
    /// snapshot is needed for it. Whoever lacks a first part of its records has another last index: recovery takes an
    /// entry only after the one before.
    pub(crate) fn recover_known(&mut self, checkpoint: &Checkpoint, planted: Planted) -> bool {
        let last = Index(checkpoint.snapshot.0 + checkpoint.entries.len() as u64);
        let known = self.joined_as() == checkpoint.joined
            && self.log.accepted() == checkpoint.accepted
            && self.log.last() == last
            && self.log.origin_at(checkpoint.snapshot) == Some(checkpoint.snapshot_origin);
        if known {
            self.knows_above_its_log = checkpoint.knows_above;
            self.log.decide(checkpoint.decided);
            if planted != Planted::PromiseForgotten {
                self.promised = self.promised.max(checkpoint.promised);
            }
        }
        known
    }
}

/// Loss.
impl Acceptor {
    /// Whether records are lost that its votes would rest on (R20).
    pub(crate) fn is_mute(&self) -> bool {
        match self.lost.as_deref() {
            None => false,
            Some(Lost::Unknown) => true,
            Some(Lost::Until(until)) => self.log.accepted() < *until,
        }
    }

    /// What is lost; nothing any more once it is not mute.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost.as_deref().copied().filter(|_| self.is_mute())
    }

    /// Everything was lost, as far as is known.
    pub(crate) fn forget(&mut self) {
        self.promised = Ballot::ZERO;
        self.held = Rare::default();
        self.log = Log::new(Arc::clone(&self.initial));
        self.knows_above_its_log = false;
        self.lost = Some(Box::new(Lost::Unknown));
    }

    /// Records that were durable are lost: forgets the rest, and says so on disk before anything else (R20).
    pub(crate) fn lose(&mut self, planted: Planted, out: &mut Outbox) {
        self.forget();
        if planted == Planted::RottenVotes {
            self.lost = None;
            return;
        }
        self.record(Record::Muted { until: None }, out);
    }

    /// Planted: what was lost is no reason to be silent.
    pub(crate) fn vote_nevertheless(&mut self) {
        self.lost = None;
    }

    /// It has voted nowhere at or above `until`, which is below every ballot to come.
    pub(crate) fn mute_until(&mut self, until: Ballot, out: &mut Outbox) {
        self.raise_promised(until);
        self.lost = Some(Box::new(Lost::Until(until)));
        self.record(Record::Muted { until: Some(until) }, out);
    }
}
