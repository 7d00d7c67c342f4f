//! A replica that has lost what it may have promised (R20): it asks, gives no vote, and tells those who take it for more.

use super::Group;
use crate::acceptor::Lost;
use crate::ballot::{Ballot, Millis, ReplicaId};
use crate::message::Message;
use crate::options::Planted;
use crate::outbox::Outbox;
use crate::repair::Asking;

impl Group {
    pub(super) fn asking(&mut self) -> &mut Asking {
        self.asking.get_or_insert_default()
    }

    /// Asks those who have not said what they have promised, or makes itself heard by a leader whose ballot is too low.
    pub(super) fn tick_mute(&mut self, now: Millis, out: &mut Outbox) {
        let interval = self.options.probe_interval;
        let Some(ask) = self.asking().tick(now, interval) else { return };
        let me = self.acceptor.me();
        let knows = self.acceptor.lost() != Some(Lost::Unknown);
        if knows {
            // An idle leader says nothing, and would never learn that it must stand again.
            for voter in self.acceptor.log().latest_config().voters.iter().filter(|voter| **voter != me) {
                self.acceptor.reject(*voter, out);
            }
            if !self.asking().is_left_alone(now) {
                return;
            }
        }
        // Also those who have answered: one of them may lead by now, and give it another id.
        let voters = self.acceptor.log().latest_config().voters.iter();
        self.acceptor.tell(voters.chain(self.asking.iter().flat_map(|asking| asking.contacts())), &ask, out);
    }

    /// Whoever takes it for the leader learns that it is none, lest it wait for it without end: a voter that joined after all
    /// that this replica remembers is not among those whom it asks.
    pub(super) fn tell_follower(&mut self, from: ReplicaId, message: &Message, out: &mut Outbox) {
        if let Message::Accepted { ballot, .. } | Message::Behind { ballot, .. } = message
            && ballot.replica == self.acceptor.me()
        {
            out.send(from, self.asking().question());
        }
    }

    /// Whom a replica that has lost records asks besides the voters that it knows of, if it does.
    pub fn ask_also(&mut self, contacts: impl IntoIterator<Item = ReplicaId>) {
        self.asking().ask_also(contacts);
    }

    pub(super) fn handle_bound(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        promised: Ballot,
        number: u64,
        out: &mut Outbox,
    ) {
        if self.acceptor.lost() != Some(Lost::Unknown) {
            return;
        }
        let config = self.acceptor.log().latest_config();
        // In a set that has changed, others than its voters may hold a promise: only a new identity helps (R7).
        if config.number != number {
            self.asking().note_changed();
            if self.options.planted == Planted::RottenVotesAfterChange {
                self.acceptor.vote_nevertheless();
            }
            return;
        }
        let asking = self.asking.get_or_insert_default();
        let until = asking.handle_bound(from, nonce, promised, self.acceptor.me(), config);
        if let Some(until) = until {
            self.election.see(until);
            self.acceptor.mute_until(until, out);
        }
    }
}
