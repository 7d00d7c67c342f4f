//! Replicas that have lost records and cannot be repaired under their ids: the leader gives each another one, by a change
//! of the replica set like any other (R6, R7), and the old id is retired.
//!
//! Such a replica must not begin under an id that it may have had before and forgotten. So it begins only when a leader
//! tells it to, under an id that this leader has proposed after the question, and that is decided. Why no earlier life of
//! it can have voted under that id is in `docs/decisions/0018-a-replica-with-rot-is-mute.md`.
//!
//! Rules kept here: R20.

use alloc::vec::Vec;

use crate::ballot::{Millis, ReplicaId};
use crate::message::{Config, Message};
use crate::outbox::Outbox;

/// In a set that never changed a replica is repaired under its id, if all others answer it. After so long without that it
/// is given another id there too.
const PATIENCE: Millis = Millis(10_000);

/// Places whose questions a leader remembers, at most; the oldest is forgotten, and asks again.
const ASKED_MAX: usize = 16;

/// An order to give a replica that has lost records another id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// Who asked, under whatever id it knows of itself, and with which nonce.
    pub asked: (ReplicaId, u64),
    /// The voter or learner that lives where the question came from.
    pub lost: ReplicaId,
    /// The id to come. No other kind of order that came to nothing may have given it, for such a replica begins as soon as it
    /// is spoken to: above all that [`Change`](crate::Change)s for this configuration could have brought.
    pub by: ReplicaId,
}

/// Those who have asked the leader of one ballot.
#[derive(Clone, Hash, Debug, Default)]
pub(crate) struct Renewals(Vec<Asked>);

#[derive(Clone, Hash, Debug)]
struct Asked {
    asker: ReplicaId,
    nonce: u64,
    since: Millis,
    /// The id that was proposed for it, after it asked.
    by: Option<ReplicaId>,
}

impl Renewals {
    /// A replica has lost records and asks. `config` is the latest configuration, and decided.
    pub(crate) fn ask(
        &mut self,
        asker: ReplicaId,
        nonce: u64,
        config: &Config,
        now: Millis,
        out: &mut Outbox,
    ) {
        let known = |asked: &Asked| (asked.asker, asked.nonce) == (asker, nonce);
        if !self.0.iter().any(known) {
            // An earlier boot of it asks no more.
            self.0.retain(|asked| asked.asker.node() != asker.node());
            if self.0.len() == ASKED_MAX {
                self.0.remove(0);
            }
            self.0.push(Asked { asker, nonce, since: now, by: None });
        }
        let Some(asked) = self.0.iter().find(|asked| known(asked)) else { return };
        match asked.by {
            Some(by) if config.names(by) => out.send(asker, Message::Renewed { nonce, replica: by }),
            _ if config.number > 0 || now.since(asked.since) >= PATIENCE => {
                out.renewals_wanted.push((asker, nonce));
            }
            _ => {}
        }
    }

    /// It was ordered.
    pub(crate) fn ordered(&mut self, renewal: &Renewal) {
        let (asker, nonce) = renewal.asked;
        if let Some(asked) = self.0.iter_mut().find(|asked| (asked.asker, asked.nonce) == (asker, nonce)) {
            asked.by = Some(renewal.by);
        }
    }
}
