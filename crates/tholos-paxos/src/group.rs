//! The conductor of one group: takes events in, moves the replica through its roles, and puts
//! what is to be done into an [`Outbox`].
//!
//! The acceptor owns what is durable, the election what is remembered of ballots and leaders, and
//! each role what only it has. Here is decided who hears of an event, and when a role ends:
//!
//! ```text
//!              turn has come           own promise durable, quorum
//!   Follower ─────────────────▶ Candidate ───────────────────────▶ Leader
//!      ▲  │ named as heir (R10) ▲  │ time-out, or no quorum heard     │
//!      │  └─────────────────────┘  │                                 │
//!      └───────────────────────────┴── a higher ballot, or silence ──┘
//! ```

mod view;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::acceptor::{Acceptor, Lost, Standing};
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::candidate::{Candidate, Elected};
use crate::change::{Change, ChangeError};
use crate::connectivity::{Connectivity, leader_lost};
use crate::election::Election;
use crate::follower::{Following, Staging};
use crate::leader::{Leader, ProposeError};
use crate::lease::Grants;
use crate::log::Base;
use crate::message::{Checkpoint, Config, Entry, Message, Payload, Record};
use crate::options::{Options, Planted};
use crate::outbox::Outbox;
use crate::renewal::Renewal;
use crate::repair::{self, Asking, ROUNDS_SKIPPED};
use crate::rescue::{Rescue, RescueError};

/// One replica of one Multi-Paxos group.
///
/// A value like any other: a clone goes its own way from here on, and what is hashed is all that decides
/// what it will do. So a model checker can keep its states, and tell those that it has met.
#[derive(Clone, Hash, Debug)]
pub struct Group {
    options: Options,
    acceptor: Acceptor,
    election: Election,
    role: Role,
    grants: Grants,
    /// Used while records are lost (R20).
    asking: Asking,
}

#[derive(Clone, Hash, Debug)]
enum Role {
    Follower(Following),
    Candidate(Candidate),
    Leader(Leader),
}

impl Group {
    /// A replica that remembers nothing yet. Give it its records by [`Group::recover`].
    pub fn new(me: ReplicaId, config: Config, options: Options) -> Group {
        Group {
            options,
            acceptor: Acceptor::new(me, config),
            election: Election::default(),
            role: Role::Follower(Following::default()),
            grants: Grants::default(),
            asking: Asking::default(),
        }
    }

    /// A replica that joins a running group under an id that no replica of it has ever had (R7). It gets entries and
    /// snapshots once a configuration of the group names it, and that first one is how it learns of any.
    pub fn join(me: ReplicaId, options: Options, out: &mut Outbox) -> Group {
        Group { acceptor: Acceptor::join(me, out), ..Group::new(me, Config::default(), options) }
    }

    /// A replica of which no more is known than that one may have lived here, and voted: mute until a leader gives it another
    /// id ([`Group::renewed`]). It writes nothing, so that after a restart the driver has to know it again. `nonce` is
    /// fresh chance.
    pub fn unknown(me: ReplicaId, options: Options, nonce: u64) -> Group {
        let mut group = Group::new(me, Config::default(), options);
        group.acceptor.forget();
        group.asking = Asking::new(nonce);
        group
    }

    /// Takes back one record of an earlier run, in the order in which they were appended.
    /// All of them are durable. Returns what is wrong with a record that cannot follow the
    /// ones before it: the replica must then not run.
    pub fn recover(&mut self, record: Record) -> Result<(), &'static str> {
        self.acceptor.recover(record, self.options.planted)?;
        self.election.see(self.acceptor.promised());
        Ok(())
    }

    /// At recovery, before [`Group::recover`] of a checkpoint: whether all that it holds was taken back already, so that
    /// neither it nor its snapshot is needed. A checkpoint may be appended before its snapshot is durable, as long as
    /// nothing before it is forgotten until then.
    pub fn recover_known(&mut self, checkpoint: &Checkpoint) -> bool {
        let known = self.acceptor.recover_known(checkpoint, self.options.planted);
        self.election.see(self.acceptor.promised());
        known
    }

    /// Called once after the last record was given back, before anything else. `nonce` is fresh chance.
    pub fn begin(&mut self, nonce: u64) {
        self.asking = Asking::new(nonce);
    }

    /// Called as well unless nobody in this group ever asks for leases: an earlier boot may have granted one. A replica
    /// that remembers a promise makes no other for [`LEASE`](crate::LEASE) from `now` on (R14).
    pub fn remember_grants(&mut self, now: Millis) {
        if self.acceptor.has_durable_promise() && self.options.planted != Planted::GrantForgotten {
            self.grants = Grants::restarted(now);
        }
    }

    /// Records of this replica that were durable are lost, and which is not known. It forgets the rest and is mute until
    /// it is repaired (R20). The caller forgets the applied state. `nonce` is fresh chance.
    pub fn lose(&mut self, nonce: u64, out: &mut Outbox) {
        self.asking = Asking::new(nonce);
        self.election = Election::default();
        if let Role::Leader(leader) = core::mem::replace(&mut self.role, Role::Follower(Following::default()))
        {
            leader.end(out);
        }
        self.acceptor.lose(self.options.planted, out);
    }

    /// The majority is gone for good, and this replica has the log to keep ([`Assessment::of`](crate::Assessment::of)):
    /// takes all of it for decided, with a Config of the survivors on top, and goes on by an ordinary election. `time` is
    /// the shard time wanted for the Config. Ordered again, or after a later change, it does nothing.
    ///
    /// What this risks (R29): entries that those who are gone have decided without a survivor are lost, though clients
    /// were told of them; and if they are not gone, they go on beside this one.
    pub fn rescue(
        &mut self,
        order: &Rescue,
        time: Millis,
        now: Millis,
        out: &mut Outbox,
    ) -> Result<(), RescueError> {
        let (me, log) = (self.acceptor.me(), self.acceptor.log());
        if self.acceptor.is_mute() {
            return Err(RescueError::Mute);
        }
        let number = log.latest_config().number;
        if number >= order.config.number {
            return Ok(());
        }
        let (accepted, length) = (log.accepted(), log.last());
        if (accepted, length, number) != (order.accepted, order.length, order.number) {
            return Err(RescueError::NotAsAsked { accepted, length, number });
        }
        if !order.config.is_voter(me) {
            return Err(RescueError::NotNamed);
        }
        // As after rot (R20): above what anybody can have promised of whom nobody has heard here.
        self.election.see(order.promised);
        let mut ballot = self.election.next_ballot(me, self.acceptor.promised());
        ballot.round += ROUNDS_SKIPPED;
        let last = Entry {
            index: length.next(),
            origin: ballot,
            time: time.max(log.last_time()),
            seed: 0,
            payload: Payload::Config(Box::new(order.config.clone())),
        };
        self.step_down(now, out);
        self.acceptor.rescue(ballot, last, out);
        self.election.see(ballot);
        self.election.lose_leader();
        self.role = Role::Follower(Following::lost_since(now));
        Ok(())
    }

    /// Time passed, or failure detection has news. Wanted about every 10 ms; costs a few
    /// comparisons when there is nothing to do.
    pub fn handle_tick(&mut self, now: Millis, net: &impl Connectivity, out: &mut Outbox) {
        if self.acceptor.is_mute() {
            self.tick_mute(now, out);
            return;
        }
        if let Some((from, message)) = self.grants.take_held(now) {
            self.handle_message(from, message, now, out);
        }
        let (me, log, options) = (self.acceptor.me(), self.acceptor.log(), &self.options);
        let reaches_quorum = log.quorum_of_known(|replica| net.reaches(me, replica));
        match &mut self.role {
            Role::Leader(leader) => {
                if !reaches_quorum {
                    // A leader that hears no quorum falls silent (R9).
                    self.step_down(now, out);
                    return;
                }
                leader.tick(&mut self.acceptor, |replica| net.hears(me, replica), options, now, out);
                self.flush(now, out);
            }
            Role::Candidate(candidate) => {
                if candidate.is_over(now) || !reaches_quorum {
                    self.give_up(now);
                } else if candidate.is_endorsed(log) {
                    // Its own grant has bound it.
                    let ballot = candidate.ballot();
                    self.stand_if_endorsed(ballot, now, out);
                } else {
                    candidate.tick(&self.acceptor, options, now, out);
                }
            }
            Role::Follower(following) => {
                let leader = self.election.leader().filter(|ballot| {
                    let removed = log.has_lost_its_vote(ballot.replica);
                    !following.outstays(removed, options.election_timeout, now)
                        && !leader_lost(log, me, *ballot, net)
                });
                if let Some(leader) = leader {
                    following.tick_led(leader, &mut self.acceptor, options, now, out);
                    return;
                }
                self.election.lose_leader();
                // Who cannot keep a promise now does not begin.
                let rank = log.walk_rank(me).filter(|_| reaches_quorum && net.hears(me, me));
                let patience = rank.map(|rank| {
                    let patience = self.election.patience(options, me, rank);
                    match log.knows_its_config() {
                        true => patience,
                        // It wins only if one of those who promise knows its configuration to be decided, and if none
                        // of them can lead. They all come first.
                        false => patience.plus(Millis(2 * options.election_timeout.0)),
                    }
                });
                if following.tick_lost(patience, now) {
                    self.start_canvass(now, out);
                }
            }
        }
    }

    /// A message from another replica of this group.
    pub fn handle_message(&mut self, from: ReplicaId, message: Message, now: Millis, out: &mut Outbox) {
        let planted = self.options.planted;
        if self.acceptor.is_mute() && !repair::concerns(&message) {
            return;
        }
        if let Message::Accepted { ballot, .. } = message {
            self.disown(from, ballot, out);
        }
        if let (Message::Repair { nonce }, Role::Leader(leader)) = (&message, &mut self.role) {
            // Also of a retired id: whoever has lost all may know itself by no other.
            leader.note_lost(from, *nonce, self.acceptor.log(), now, out);
        }
        // R7: retired ids are ignored for ever. But who led when it was removed leads until it has handed over.
        if self.acceptor.log().is_retired(from)
            && !(message.is_of_leader() && from == self.acceptor.promised().replica)
        {
            return;
        }
        match message {
            // What candidates ask of the others.
            Message::Canvass { ballot, decided } => self.handle_canvass(from, ballot, decided, out),
            Message::Prepare { ballot, decided, released } => {
                self.handle_prepare(from, ballot, decided, released, now, out);
            }
            Message::Fetch { ballot, from: first } => {
                self.acceptor.handle_fetch(from, ballot, first, &self.options, out);
            }
            // What they answer.
            Message::Endorse { ballot } => self.handle_endorse(from, ballot, now, out),
            Message::Promise { ballot, accepted, length, decided } => {
                let promise = Standing { replica: from, accepted, length, decided };
                self.handle_promise(ballot, promise, now, out);
            }
            Message::Fetched { ballot, entries, whole_to } => {
                self.handle_fetched(from, ballot, entries, whole_to, now, out);
            }
            Message::Reject { promised } => self.handle_reject(from, promised, now, out),
            // What leaders tell their followers.
            Message::Sync { ballot, from: first, entries, whole_to } => {
                if self.heed(from, ballot, now, out)
                    && let Role::Follower(following) = &mut self.role
                {
                    let piece = Staging { ballot, from: first, whole_to, entries };
                    following.handle_sync(from, piece, &mut self.acceptor, planted, out);
                }
            }
            Message::Accept { ballot, entries, decided } => {
                if self.heed(from, ballot, now, out) {
                    self.acceptor.handle_accept(from, ballot, entries, decided, planted, out);
                }
            }
            Message::Decide { ballot, decided, length } => {
                if self.heed(from, ballot, now, out) {
                    self.acceptor.handle_decide(from, ballot, decided, length, planted, out);
                }
            }
            Message::Confirm { ballot, round } => self.handle_confirm(from, ballot, round, now, out),
            Message::Lease { ballot, asked } => self.handle_lease(from, ballot, asked, now, out),
            Message::Released { ballot } => self.handle_released(from, ballot, now, out),
            // What they answer.
            Message::Accepted { ballot, index } => self.handle_accepted(from, ballot, index, now, out),
            Message::Behind { ballot, accepted, length, decided } => {
                let standing = Standing { replica: from, accepted, length, decided };
                self.handle_behind(ballot, standing, out);
            }
            Message::Confirmed { ballot, round } => self.handle_confirmed(from, ballot, round, out),
            Message::Granted { ballot, asked } => self.handle_granted(from, ballot, asked, now),
            // What a replica that has lost records asks, and what it is told.
            Message::Repair { nonce } => {
                self.election.handle_lost(from);
                let (promised, config) =
                    (self.acceptor.promised(), self.acceptor.log().latest_config().number);
                out.send(from, Message::Bound { nonce, promised, config });
            }
            Message::Bound { nonce, promised, config } => {
                self.handle_bound(from, nonce, promised, config, out)
            }
            Message::Renewed { nonce, replica } => {
                if self.acceptor.is_mute() && replica > self.acceptor.me() {
                    self.asking.handle_renewed(nonce, replica);
                }
            }
        }
    }

    /// Everything that was appended up to `seq` is durable.
    pub fn handle_durable(&mut self, seq: AppendSeq, now: Millis, out: &mut Outbox) {
        self.acceptor.handle_durable(seq, out);
        match &mut self.role {
            Role::Leader(leader) => {
                leader.handle_durable(seq);
                self.advance(now, out);
            }
            Role::Candidate(candidate) if candidate.may_prepare(seq) => self.start_prepare(now, out),
            _ => {}
        }
    }

    /// Proposes a value; it stands at the returned index if this ballot decides it. `time` is
    /// the shard time wanted, raised if the log's last entry is later (R16).
    pub fn propose(
        &mut self,
        payload: Payload,
        time: Millis,
        seed: u64,
        out: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        let Role::Leader(leader) = &mut self.role else { return Err(ProposeError::NotServing) };
        assert!(!matches!(payload, Payload::Config(_)), "a replica set is changed by change_replicas");
        leader.propose(payload, time, seed, &mut self.acceptor, &self.options, out)
    }

    /// Changes the replica set (R6): the order becomes a Config, which stands at the returned index if this ballot
    /// decides it. It counts from now on, beside the one before it until it is decided. New replicas are begun by
    /// their drivers ([`Group::join`]) when the first message for them comes.
    pub fn change_replicas(
        &mut self,
        change: &Change,
        time: Millis,
        out: &mut Outbox,
    ) -> Result<Index, ChangeError> {
        let Role::Leader(leader) = &mut self.role else { return Err(ProposeError::NotServing.into()) };
        leader.change_replicas(change, time, &mut self.acceptor, &self.options, out)
    }

    /// Gives a replica that has lost records another id ([`Outbox::renewals_wanted`]): its place in the set goes to that, by a
    /// change like any other. Once it is decided, whoever asked is told.
    pub fn renew(&mut self, renewal: &Renewal, out: &mut Outbox) -> Result<Index, ChangeError> {
        let Role::Leader(leader) = &mut self.role else { return Err(ProposeError::NotServing.into()) };
        leader.renew(renewal, &mut self.acceptor, &self.options, out)
    }

    /// Until when the applied state answers linearizable reads without a round: `None` if it does not, and then
    /// [`Group::read`] is to be asked. `now` may be any time before the state is read. Whoever has read it looks at the
    /// clock once more, and keeps the answer to itself if that is not before the time returned (R13).
    pub fn lease_until(&mut self, now: Millis) -> Option<Millis> {
        let Role::Leader(leader) = &mut self.role else { return None };
        leader.lease_until(&self.acceptor, &self.options, now)
    }

    /// Asks for a linearizable read: `token` comes back in [`Outbox::reads_ready`] when the
    /// applied state may answer it, or in [`Outbox::reads_failed`]. `false`: not the leader.
    pub fn read(&mut self, token: u64) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        leader.read(token, self.acceptor.log(), self.options.planted)
    }

    /// Tells followers what is decided that may not know it, without waiting for the next tick: they are about to answer
    /// reads by it (R15).
    pub fn tell_decided(&mut self, whom: impl Fn(ReplicaId) -> bool, out: &mut Outbox) {
        if let Role::Leader(leader) = &mut self.role {
            leader.tell_decided(self.acceptor.log(), whom, out);
        }
    }

    /// Sends what has gathered since the last call: entries to followers, one read-index round
    /// for all reads. Called once at the end of each round of events.
    pub fn flush(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.flush(&self.acceptor, &self.options, out);
        self.finish_transfer(now, out);
    }

    /// Hands leadership to `to`, once all that was proposed is decided (R10). Proposals and
    /// reads are refused from now on; if it does not come about within an election time-out
    /// the leader goes on. `false`: not the leader, or `to` is not another voter.
    pub fn transfer(&mut self, to: ReplicaId, now: Millis, out: &mut Outbox) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        let other_voter = to != self.acceptor.me() && self.acceptor.log().latest_config().is_voter(to);
        if !other_voter || leader.is_removed(&self.acceptor) {
            // Who was removed hands over by itself.
            return false;
        }
        leader.transfer(to, now.plus(self.options.election_timeout));
        self.flush(now, out);
        true
    }

    /// Leads no more, if it does: whoever drops a leader that was removed lets it end first, and what waits for it fails.
    pub fn stop_leading(&mut self, now: Millis, out: &mut Outbox) {
        if self.leading().is_some() {
            self.step_down(now, out);
        }
    }

    /// The next decided entry to apply, in order, each once.
    pub fn take_decided(&mut self) -> Option<&Entry> {
        self.acceptor.take_decided()
    }

    /// Forgets applied entries up to `to` in memory. What followers still lack of them will
    /// need a snapshot.
    pub fn trim(&mut self, to: Index) {
        self.acceptor.trim(to);
    }

    /// The whole durable state, for the head of the log (R22), with `snapshot` as the last
    /// index that a durable snapshot covers. Entries after it must still be in memory.
    pub fn checkpoint(&self, snapshot: Base, config: Config) -> Checkpoint {
        self.acceptor.checkpoint(snapshot, config)
    }

    /// Appends a checkpoint and returns its number: nothing of this group before it is needed
    /// once it is durable.
    pub fn append_checkpoint(&mut self, snapshot: Base, config: Config, out: &mut Outbox) -> AppendSeq {
        let seq = self.acceptor.append_checkpoint(snapshot, config, self.options.planted, out);
        if let Role::Leader(leader) = &mut self.role {
            leader.note_append(seq, self.acceptor.log().last());
        }
        seq
    }

    /// Takes over a snapshot from the leader of `ballot` that is durable in its own file (R22).
    /// Returns nothing if it is not news or a higher ballot was promised. The caller replaces
    /// the applied state.
    ///
    /// What it holds is decided, as far as is known, in `ballot`: so this replica promises
    /// that ballot, and no leader of a lower one can build on a log that is not its own (P6).
    pub fn install(
        &mut self,
        ballot: Ballot,
        base: Base,
        config: Config,
        now: Millis,
        out: &mut Outbox,
    ) -> Option<AppendSeq> {
        if base.index <= self.acceptor.log().applied() || !self.heed(ballot.replica, ballot, now, out) {
            return None;
        }
        Some(self.acceptor.install(ballot, base, config, self.options.planted, out))
    }
}

/// Elections.
impl Group {
    fn start_canvass(&mut self, now: Millis, out: &mut Outbox) {
        let (me, promised) = (self.acceptor.me(), self.acceptor.promised());
        let mut ballot = self.election.next_ballot(me, promised);
        if self.options.planted == Planted::BallotUsedTwice && self.election.takes_promised(me, promised) {
            ballot = promised;
        }
        let candidate = Candidate::canvass(ballot, now, &self.options);
        candidate.repeat(&self.acceptor, out);
        self.role = Role::Candidate(candidate);
        self.handle_endorse(me, ballot, now, out);
    }

    /// R9: a quorum must call the leader lost.
    fn handle_canvass(&mut self, from: ReplicaId, ballot: Ballot, decided: Index, out: &mut Outbox) {
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
        if self.election.leader().is_none() && self.may_vote_for(decided) {
            out.send(from, Message::Endorse { ballot });
        }
    }

    /// A candidate that would need a snapshot from us could not adopt our log if ours is the one to adopt, so it must do
    /// without us. Who has lost its vote does not lead instead, and what it has forgotten the new voters have.
    fn may_vote_for(&self, decided: Index) -> bool {
        let log = self.acceptor.log();
        log.has_lost_its_vote(self.acceptor.me()) || log.resends_after(decided, self.options.resent_bytes_max)
    }

    fn handle_endorse(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) {
        if let Role::Candidate(candidate) = &mut self.role
            && candidate.ballot() == ballot
        {
            candidate.handle_endorse(from);
            self.stand_if_endorsed(ballot, now, out);
        }
    }

    /// Stands once a quorum misses the leader and no own grant binds: it would be the first promise (R12).
    fn stand_if_endorsed(&mut self, ballot: Ballot, now: Millis, out: &mut Outbox) {
        if let Role::Candidate(candidate) = &self.role
            && candidate.is_endorsed(self.acceptor.log())
            && !self.own_grants_bind(now)
        {
            self.start_promise(ballot, None, now, out);
        }
    }

    /// Whether this replica may have granted a lease that is not over.
    fn grants_bind(&self, now: Millis) -> bool {
        self.options.planted != Planted::GrantDoesNotBind && self.grants.bind(now)
    }

    /// Whether that keeps it from standing.
    fn own_grants_bind(&self, now: Millis) -> bool {
        self.options.planted != Planted::OwnGrantIgnored && self.grants_bind(now)
    }

    /// The candidate promises its own ballot first; nothing leaves before that is durable (R2). `released`: the leader
    /// of that ballot has let go.
    fn start_promise(&mut self, ballot: Ballot, released: Option<Ballot>, now: Millis, out: &mut Outbox) {
        let seq = self.acceptor.promise(ballot, out);
        self.election.see(ballot);
        self.election.lose_leader();
        let span = self.election.candidacy(&self.options);
        let candidate = Candidate::promise(ballot, seq, now, span, &self.options);
        self.role = Role::Candidate(candidate.released(released));
        if self.options.planted == Planted::PromiseBeforeDurable {
            self.start_prepare(now, out);
        }
    }

    fn start_prepare(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if let Some(elected) = candidate.start_prepare(&self.acceptor, self.options.planted, out) {
            self.lead(elected, now, out);
        }
    }

    /// Phase 1b: promises `ballot` unless a higher one was promised.
    fn handle_prepare(
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
            self.grants.cancel(released);
        }
        if self.acceptor.log().accepted() == ballot {
            // A late repeat: this ballot leads already.
            return;
        }
        // Also if it gets no promise: who did not hear its canvass may have to stand instead.
        self.election.handle_higher(from, ballot);
        if !self.may_vote_for(decided) {
            return;
        }
        // An equal ballot is a retry of the same, still living candidate (R2): the first
        // promise may have been lost.
        if ballot > self.acceptor.promised() {
            if self.grants_bind(now) {
                self.grants.hold(from, ballot, Message::Prepare { ballot, decided, released });
                return;
            }
            self.step_down(now, out);
            self.acceptor.promise(ballot, out);
        }
        self.election.lose_leader();
        if let Role::Follower(following) = &mut self.role {
            following.patient_until = now.plus(self.options.election_timeout);
        }
        self.acceptor.say_promise(from, ballot, self.options.planted, out);
    }

    fn handle_promise(&mut self, ballot: Ballot, promise: Standing, now: Millis, out: &mut Outbox) {
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

    fn handle_fetched(
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
        }
    }

    fn lead(&mut self, elected: Elected, now: Millis, out: &mut Outbox) {
        let leader = Leader::begin(elected, &mut self.acceptor, &self.options, now, out);
        self.election.follow(leader.ballot());
        self.role = Role::Leader(leader);
        self.advance(now, out);
    }

    fn handle_reject(&mut self, from: ReplicaId, promised: Ballot, now: Millis, out: &mut Outbox) {
        self.election.see(promised);
        self.election.handle_higher(from, promised);
        match &self.role {
            Role::Leader(leader) if promised > leader.ballot() => self.step_down(now, out),
            Role::Candidate(candidate) if promised >= candidate.ballot() => self.give_up(now),
            _ => {}
        }
    }

    fn give_up(&mut self, now: Millis) {
        self.election.fail();
        self.role = Role::Follower(Following::lost_since(now));
    }

    /// Becomes a follower of nobody. Nothing happens to a follower.
    fn step_down(&mut self, now: Millis, out: &mut Outbox) {
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

/// Following.
impl Group {
    /// Whether a message of the leader of `ballot` is to be heeded. If so this replica follows
    /// that leader from now on.
    fn heed(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) -> bool {
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
        // Patience was for the time until somebody leads.
        following.patient_until = Millis(0);
        true
    }

    fn handle_confirm(&mut self, from: ReplicaId, ballot: Ballot, round: u64, now: Millis, out: &mut Outbox) {
        // R12, R15: only while the promise is exactly that ballot.
        if self.heed(from, ballot, now, out) && self.acceptor.promised() == ballot {
            out.send(from, Message::Confirmed { ballot, round });
        }
    }

    /// R12: only while the promise is exactly that ballot, and nothing granted before it could be forgotten. Whoever holds
    /// a Prepare grants no more: a leader that goes on asking could keep all others out for ever, able to decide or not.
    fn handle_lease(
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
            && !self.grants.holds()
        {
            self.grants.give(ballot, now);
            out.send(from, Message::Granted { ballot, asked });
        }
    }

    /// This replica is the heir, and its leader has let go (R10): it stands without a canvass.
    fn handle_released(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) {
        let (me, promised) = (self.acceptor.me(), self.acceptor.promised());
        let fits = ballot == promised && ballot == self.acceptor.log().accepted();
        let is_voter = self.acceptor.log().latest_config().is_voter(me);
        if fits {
            // It lets go when all of its log is decided, and puts nothing into it afterwards.
            self.acceptor.decide(self.acceptor.log().last());
        }
        if fits && is_voter && matches!(self.role, Role::Follower(_)) {
            self.grants.cancel(ballot);
            if self.own_grants_bind(now) {
                self.grants.hold(from, ballot, Message::Released { ballot });
            } else {
                self.start_promise(self.election.next_ballot(me, promised), Some(ballot), now, out);
            }
        }
    }
}

/// Mute (R20).
impl Group {
    /// Asks those who have not said what they have promised, or makes itself heard by a leader whose ballot is too low.
    fn tick_mute(&mut self, now: Millis, out: &mut Outbox) {
        let Some(ask) = self.asking.tick(now, self.options.probe_interval) else { return };
        let me = self.acceptor.me();
        let knows = self.acceptor.lost() != Some(Lost::Unknown);
        if knows {
            // An idle leader says nothing, and would never learn that it must stand again.
            for voter in self.acceptor.log().latest_config().voters.iter().filter(|voter| **voter != me) {
                self.acceptor.reject(*voter, out);
            }
            return;
        }
        // Also those who have answered: one of them may lead by now, and give it another id.
        let voters = self.acceptor.log().latest_config().voters.iter();
        self.acceptor.tell(voters.chain(self.asking.contacts()), &ask, out);
    }

    /// Whom a replica that has lost records asks besides the voters that it knows of, if it does.
    pub fn ask_also(&mut self, contacts: impl IntoIterator<Item = ReplicaId>) {
        self.asking.ask_also(contacts);
    }

    fn handle_bound(&mut self, from: ReplicaId, nonce: u64, promised: Ballot, number: u64, out: &mut Outbox) {
        if self.acceptor.lost() != Some(Lost::Unknown) {
            return;
        }
        let config = self.acceptor.log().latest_config();
        // In a set that has changed, others than its voters may hold a promise: only a new identity helps (R7).
        if config.number != number {
            self.asking.note_changed();
            if self.options.planted == Planted::RottenVotesAfterChange {
                self.acceptor.vote_nevertheless();
            }
            return;
        }
        let until = self.asking.handle_bound(from, nonce, promised, self.acceptor.me(), config);
        if let Some(until) = until {
            self.election.see(until);
            self.acceptor.mute_until(until, out);
        }
    }
}

/// Leading.
impl Group {
    /// Counts votes and decides what a quorum has.
    fn advance(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.advance(&mut self.acceptor, self.options.planted, out) {
            self.finish_transfer(now, out);
        }
    }

    fn handle_accepted(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        index: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
            && leader.note_accepted(from, index, self.acceptor.log().last())
        {
            self.advance(now, out);
        }
    }

    /// Tells a follower of a ballot that this replica leads no more, lest it wait for it without end: who has promised a
    /// higher ballot leads no more, nor does who canvasses, for which one that has lost its vote has no other cause. A
    /// retired one is told as well: those who do not know that it is gone may need its vote (R6).
    fn disown(&self, from: ReplicaId, ballot: Ballot, out: &mut Outbox) {
        let (me, promised) = (self.acceptor.me(), self.acceptor.promised());
        if ballot.replica != me || self.leading() == Some(ballot) {
            return;
        }
        if self.acceptor.log().has_lost_its_vote(me) {
            let (ballot, decided) = (self.election.next_ballot(me, promised), self.decided_index());
            out.send(from, Message::Canvass { ballot, decided });
        } else if promised > ballot {
            self.acceptor.reject(from, out);
        }
    }

    fn handle_behind(&mut self, ballot: Ballot, standing: Standing, out: &mut Outbox) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
        {
            leader.rewind(standing, self.acceptor.log(), &self.options, out);
        }
    }

    fn handle_confirmed(&mut self, from: ReplicaId, ballot: Ballot, round: u64, out: &mut Outbox) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
        {
            leader.handle_confirmed(from, round, self.acceptor.log(), self.options.planted, out);
        }
    }

    fn handle_granted(&mut self, from: ReplicaId, ballot: Ballot, asked: Millis, now: Millis) {
        if let Role::Leader(leader) = &mut self.role
            && leader.ballot() == ballot
        {
            // R13: from before the question, not from when the answer came.
            let from_when = if self.options.planted == Planted::LeaseFromArrival { now } else { asked };
            leader.handle_granted(from, from_when);
        }
    }

    /// Lets go of leadership once the heir has everything (R10).
    fn finish_transfer(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(heir) = leader.ready_heir(&self.acceptor) else { return };
        out.send(heir, Message::Released { ballot: leader.ballot() });
        self.step_down(now, out);
        if let Role::Follower(following) = &mut self.role {
            following.patient_until = now.plus(self.options.election_timeout);
        }
    }
}
