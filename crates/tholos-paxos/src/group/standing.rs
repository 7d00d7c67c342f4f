//! How a replica stands for leader: canvass, promise, prepare, and what ends it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Group, Role};
use crate::acceptor::Standing;
use crate::ballot::{Ballot, Index, Millis, ReplicaId};
use crate::candidate::{Candidate, Elected};
use crate::follower::Following;
use crate::leader::Leader;
use crate::message::{Entry, Message};
use crate::options::Planted;
use crate::outbox::Outbox;

impl Group {
    pub(super) fn start_canvass(&mut self, now: Millis, out: &mut Outbox) {
        let (me, promised) = (self.acceptor.me(), self.acceptor.promised());
        let mut ballot = self.election.next_ballot(me, promised);
        if self.options.planted == Planted::BallotUsedTwice && self.election.takes_promised(me, promised) {
            ballot = promised;
        }
        let candidate = Candidate::canvass(ballot, now, &self.options);
        candidate.repeat(&self.acceptor, out);
        self.role = Role::Candidate(Box::new(candidate));
        self.handle_endorse(me, ballot, now, out);
    }

    /// R9: a quorum must call the leader lost.
    pub(super) fn handle_canvass(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        decided: Index,
        out: &mut Outbox,
    ) {
        if let Role::Leader(leader) = &self.role {
            // The other has lost us, or has only just started: say that we are here.
            out.send(from, leader.probe(self.acceptor.log()));
            return;
        }
        if ballot <= self.acceptor.promised() {
            self.acceptor.reject(from, out);
            return;
        }
        self.election.handle_higher(from, ballot);
        match self.election.leader() {
            None if self.may_vote_for(decided) => out.send(from, Message::Endorse { ballot }),
            // It may have lost its records and ask others than this replica, which it does not know (R20): it says so when it
            // is spoken to.
            Some(leader) if self.acceptor.log().accepted() == leader => {
                self.acceptor.say_accepted(leader.replica, leader, self.options.planted, out);
            }
            Some(leader) => out.send(leader.replica, self.acceptor.behind(leader)),
            None => {}
        }
    }

    /// A candidate that would need a snapshot from us could not adopt our log if ours is the one to adopt, so it must do
    /// without us. Who has no vote, as far as it knows, does not lead instead, and hands it over ([`Group::snapshots_in`]): the
    /// voters have all of it, too, but the candidate may know none of them, or need this vote for a Config that has not come here.
    fn may_vote_for(&self, decided: Index) -> bool {
        let log = self.acceptor.log();
        log.walk_rank(self.acceptor.me()).is_none()
            || log.resends_after(decided, self.options.resent_bytes_max)
    }

    pub(super) fn handle_endorse(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) {
        if let Role::Candidate(candidate) = &mut self.role
            && candidate.ballot() == ballot
        {
            candidate.handle_endorse(from);
            self.stand_if_endorsed(ballot, now, out);
        }
    }

    /// Stands once a quorum misses the leader and no own grant binds: it would be the first promise (R12).
    pub(super) fn stand_if_endorsed(&mut self, ballot: Ballot, now: Millis, out: &mut Outbox) {
        if let Role::Candidate(candidate) = &self.role
            && candidate.is_endorsed(self.acceptor.log())
            && !self.own_grants_bind(now)
        {
            self.start_promise(ballot, None, now, out);
        }
    }

    /// Whether this replica may have granted a lease that is not over.
    fn grants_bind(&self, now: Millis) -> bool {
        self.options.planted != Planted::GrantDoesNotBind
            && self.grants.get().is_some_and(|grants| grants.bind(now))
    }

    /// The leader of `ballot` reads no more in it (R10).
    pub(super) fn cancel_grants(&mut self, ballot: Ballot) {
        if let Some(grants) = self.grants.get_mut() {
            grants.cancel(ballot);
        }
    }

    /// Whether that keeps it from standing.
    pub(super) fn own_grants_bind(&self, now: Millis) -> bool {
        self.options.planted != Planted::OwnGrantIgnored && self.grants_bind(now)
    }

    /// The candidate promises its own ballot first; nothing leaves before that is durable (R2). `released`: the leader
    /// of that ballot has let go.
    pub(super) fn start_promise(
        &mut self,
        ballot: Ballot,
        released: Option<Ballot>,
        now: Millis,
        out: &mut Outbox,
    ) {
        let seq = self.acceptor.promise(ballot, out);
        self.election.see(ballot);
        self.election.lose_leader();
        let span = self.election.candidacy(&self.options);
        let candidate = Candidate::promise(ballot, seq, now, span, &self.options);
        self.role = Role::Candidate(Box::new(candidate.released(released)));
        if self.options.planted == Planted::PromiseBeforeDurable {
            self.start_prepare(now, out);
        }
    }

    pub(super) fn start_prepare(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if let Some(elected) = candidate.start_prepare(&self.acceptor, self.options.planted, out) {
            self.lead(elected, now, out);
        }
    }

    /// Phase 1b: promises `ballot` unless a higher one was promised.
    pub(super) fn handle_prepare(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        decided: Index,
        released: Option<Ballot>,
        now: Millis,
        out: &mut Outbox,
    ) {
        self.election.see(ballot);
        if ballot < self.acceptor.promised() || ballot.replica != from {
            self.acceptor.reject(from, out);
            return;
        }
        if let Some(released) = released {
            self.cancel_grants(released);
        }
        if self.acceptor.log().accepted() == ballot {
            // A late repeat: this ballot leads already.
            return;
        }
        if !self.may_vote_for(decided) {
            // It may need this vote all the same, for a set that it finds in another's log: then this replica has to stand
            // instead. A quorum has lost the leader (R9), so this one waits no longer for it; a leader that is there all the
            // same says so to whoever canvasses.
            self.election.handle_prepared(ballot);
            return;
        }
        self.election.handle_higher(from, ballot);
        // An equal ballot is a retry of the same, still living candidate (R2): the first
        // promise may have been lost.
        if ballot > self.acceptor.promised() {
            if self.grants_bind(now) {
                self.grants.make().hold(from, ballot, Message::Prepare { ballot, decided, released });
                return;
            }
            self.step_down(now, out);
            self.acceptor.promise(ballot, out);
        }
        self.election.lose_leader();
        if let Role::Follower(following) = &mut self.role {
            following.be_patient_until(now.plus(self.options.election_timeout));
        }
        self.acceptor.say_promise(from, ballot, decided, self.options.planted, out);
    }

    pub(super) fn handle_promise(
        &mut self,
        ballot: Ballot,
        promise: Standing,
        now: Millis,
        out: &mut Outbox,
    ) {
        let acceptor = &self.acceptor;
        match &mut self.role {
            Role::Leader(leader) if leader.ballot() == ballot => {
                leader.handle_promise(promise, acceptor.log(), &self.options, out);
            }
            Role::Candidate(candidate) if candidate.ballot() == ballot => {
                let elected = candidate.handle_promise(promise, acceptor, self.options.planted, out);
                if let Some(elected) = elected {
                    self.lead(elected, now, out);
                }
            }
            _ => {}
        }
    }

    pub(super) fn handle_fetched(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        pieces: Vec<Entry>,
        length: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.ballot() != ballot {
            return;
        }
        let times = (now.plus(self.options.election_timeout), self.options.planted);
        if let Some(elected) = candidate.handle_fetched(from, pieces, length, &self.acceptor, times, out) {
            self.lead(elected, now, out);
        } else if candidate.knows_no_config(&self.acceptor) {
            // To go on would only keep those from standing who have promised.
            self.give_up(now);
        }
    }

    fn lead(&mut self, elected: Elected, now: Millis, out: &mut Outbox) {
        let leader = Leader::begin(elected, &mut self.acceptor, &self.options, now, out);
        self.election.follow(leader.ballot());
        self.role = Role::Leader(Box::new(leader));
        self.advance(now, out);
    }

    pub(super) fn handle_reject(&mut self, from: ReplicaId, promised: Ballot, now: Millis, out: &mut Outbox) {
        self.election.see(promised);
        self.election.handle_higher(from, promised);
        match &self.role {
            Role::Leader(leader) if promised > leader.ballot() => self.step_down(now, out),
            Role::Candidate(candidate) if promised >= candidate.ballot() => self.give_up(now),
            _ => {}
        }
    }

    pub(super) fn give_up(&mut self, now: Millis) {
        self.election.fail();
        self.role = Role::Follower(Following::lost_since(now));
    }

    /// Becomes a follower of nobody. Nothing happens to a follower.
    pub(super) fn step_down(&mut self, now: Millis, out: &mut Outbox) {
        if matches!(self.role, Role::Follower(_)) {
            return;
        }
        let following = Role::Follower(Following::until(now.plus(self.options.stagger)));
        if let Role::Leader(leader) = core::mem::replace(&mut self.role, following) {
            leader.end(out);
        }
        self.election.lose_leader();
    }
}
