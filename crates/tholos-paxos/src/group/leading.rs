//! What a leader makes of its replies.

use super::{Group, Role};
use crate::acceptor::Standing;
use crate::ballot::{Ballot, Index, Millis, ReplicaId};
use crate::message::Message;
use crate::options::Planted;
use crate::outbox::Outbox;

impl Group {
    /// Counts votes and decides what a quorum has.
    pub(super) fn advance(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.advance(&mut self.acceptor, self.options.planted, out) {
            self.finish_transfer(now, out);
        }
    }

    pub(super) fn handle_accepted(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        index: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
            && leader.note_accepted(from, index, self.acceptor.log())
        {
            self.advance(now, out);
        }
    }

    /// Tells a follower of a ballot that this replica leads no more, lest it wait for it without end: who has promised a
    /// higher ballot leads no more, nor does who canvasses, for which one that has lost its vote has no other cause. A
    /// retired one is told as well: those who do not know that it is gone may need its vote (R6).
    ///
    /// One that has fallen silent says so as well. It may hear no quorum of a set that the other does not know, and then it never
    /// stands, which would tell all. Not at once: an heir is to have its time (R10).
    pub(super) fn disown(&self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) {
        let (me, promised) = (self.acceptor.me(), self.acceptor.promised());
        if ballot.replica != me || self.leading() == Some(ballot) {
            return;
        }
        let has_lost_its_vote = self.acceptor.log().has_lost_its_vote(me);
        let is_silent = match &self.role {
            Role::Follower(following) => self.election.leader().is_none() && now >= following.patient_until(),
            Role::Candidate(_) | Role::Leader(_) => false,
        };
        if promised > ballot && !has_lost_its_vote {
            self.acceptor.reject(from, out);
        } else if has_lost_its_vote || is_silent {
            let (ballot, decided) = (self.election.next_ballot(me, promised), self.decided_index());
            out.send(from, Message::Canvass { ballot, decided });
        }
    }

    pub(super) fn handle_behind(&mut self, ballot: Ballot, standing: Standing, out: &mut Outbox) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
        {
            leader.rewind(standing, self.acceptor.log(), &self.options, out);
        }
    }

    pub(super) fn handle_confirmed(&mut self, from: ReplicaId, ballot: Ballot, round: u64, out: &mut Outbox) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
        {
            leader.handle_confirmed(from, round, self.acceptor.log(), self.options.planted, out);
        }
    }

    pub(super) fn handle_granted(&mut self, from: ReplicaId, ballot: Ballot, asked: Millis, now: Millis) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
        {
            // R13: from before the question, not from when the answer came.
            let from_when = if self.options.planted == Planted::LeaseFromArrival { now } else { asked };
            leader.handle_granted(from, from_when);
        }
    }

    /// Lets go of leadership once the heir has everything (R10).
    pub(super) fn finish_transfer(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(heir) = leader.ready_heir(&self.acceptor) else { return };
        out.send(heir, Message::Released { ballot: leader.ballot() });
        self.step_down(now, out);
        if let Role::Follower(following) = &mut self.role {
            following.be_patient_until(now.plus(self.options.election_timeout));
        }
    }
}
