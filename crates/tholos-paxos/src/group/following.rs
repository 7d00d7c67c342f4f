//! What a replica does for a leader that it follows: heeds it, confirms it, grants it leases, takes over from it.

use super::{Group, Role};
use crate::acceptor::Lost;
use crate::ballot::{Ballot, Millis, ReplicaId};
use crate::message::Message;
use crate::options::Planted;
use crate::outbox::Outbox;

impl Group {
    /// Whether a message of the leader of `ballot` is to be heeded. If so this replica follows
    /// that leader from now on.
    pub(super) fn heed(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) -> bool {
        if self.acceptor.lost() == Some(Lost::Unknown) {
            // What it may have promised is not known (R20).
            return false;
        }
        self.election.see(ballot);
        let promised = self.acceptor.promised();
        let lower = ballot < promised && self.options.planted != Planted::LowerBallotAccepted;
        if lower || ballot.replica != from || from == self.acceptor.me() {
            self.acceptor.reject(from, out);
            return false;
        }
        if ballot > promised || matches!(self.role, Role::Candidate(_)) {
            self.step_down(now, out);
        }
        let Role::Follower(following) = &mut self.role else { return false };
        self.election.follow(ballot);
        if self.acceptor.is_mute() {
            self.asking.get_or_insert_default().note_led(now);
        }
        // Patience was for the time until somebody leads.
        following.be_patient_until(Millis(0));
        true
    }

    pub(super) fn handle_confirm(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        round: u64,
        now: Millis,
        out: &mut Outbox,
    ) {
        // R12, R15: only while the promise is exactly that ballot.
        if self.heed(from, ballot, now, out) && self.acceptor.promised() == ballot {
            out.send(from, Message::Confirmed { ballot, round });
        }
    }

    /// R12: only while the promise is exactly that ballot, and nothing granted before it could be forgotten. Whoever holds
    /// a Prepare grants no more: a leader that goes on asking could keep all others out for ever, able to decide or not.
    pub(super) fn handle_lease(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        asked: Millis,
        now: Millis,
        out: &mut Outbox,
    ) {
        if self.heed(from, ballot, now, out)
            && self.acceptor.promised() == ballot
            && self.acceptor.has_durable_promise()
            && !self.holds_back()
        {
            self.grants.make().give(ballot, now);
            out.send(from, Message::Granted { ballot, asked });
        }
    }

    /// This replica is the heir, and its leader has let go (R10): it stands without a canvass.
    pub(super) fn handle_released(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) {
        let (me, promised) = (self.acceptor.me(), self.acceptor.promised());
        let fits = ballot == promised && ballot == self.acceptor.log().accepted();
        let is_voter = self.acceptor.log().latest_config().is_voter(me);
        if fits {
            // It lets go when all of its log is decided, and puts nothing into it afterwards.
            self.acceptor.decide(self.acceptor.log().last());
        }
        if fits && is_voter && matches!(self.role, Role::Follower(_)) {
            self.cancel_grants(ballot);
            if self.own_grants_bind(now) {
                self.grants.make().hold(from, ballot, Message::Released { ballot });
            } else {
                self.start_promise(self.election.next_ballot(me, promised), Some(ballot), now, out);
            }
        }
    }
}
