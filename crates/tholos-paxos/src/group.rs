//! The conductor of one group: takes events in, moves the replica through its roles, and puts
//! what is to be done into an [`Outbox`].
//!
//! The acceptor owns what is durable, the election what is remembered of ballots and leaders, and
//! each role what only it has. Here is decided who hears of an event; how a replica stands for leader,
//! follows, leads, and is silent after a loss is in the files of these names. When a role ends:
//!
//! ```text
//!              turn has come           own promise durable, quorum
//!   Follower ─────────────────▶ Candidate ───────────────────────▶ Leader
//!      ▲  │ named as heir (R10) ▲  │ time-out, or no quorum heard     │
//!      │  └─────────────────────┘  │                                 │
//!      └───────────────────────────┴── a higher ballot, or silence ──┘
//! ```

mod following;
mod leading;
mod mute;
mod standing;
mod view;

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::acceptor::{Acceptor, Standing};
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::candidate::Candidate;
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
use crate::rare::Rare;
use crate::renewal::Renewal;
use crate::repair::{self, Asking, ROUNDS_SKIPPED};
use crate::rescue::{Rescue, RescueError};

/// One replica of one Multi-Paxos group.
///
/// A value like any other: a clone goes its own way from here on, and what is hashed is all that decides
/// what it will do. So a model checker can keep its states, and tell those that it has met.
#[derive(Clone, Hash, Debug)]
pub struct Group {
    /// Most drivers give all their groups the same.
    options: Arc<Options>,
    acceptor: Acceptor,
    election: Election,
    role: Role,
    grants: Rare<Grants>,
    /// What it asks and hears while records are lost (R20).
    asking: Option<Box<Asking>>,
}

#[derive(Clone, Hash, Debug)]
enum Role {
    Follower(Following),
    Candidate(Box<Candidate>),
    Leader(Box<Leader>),
}

impl Group {
    /// A founder that remembers nothing yet. Give it its records by [`Group::recover`].
    pub fn new(me: ReplicaId, config: impl Into<Arc<Config>>, options: impl Into<Arc<Options>>) -> Group {
        Group {
            options: options.into(),
            acceptor: Acceptor::new(me, config.into()),
            election: Election::default(),
            role: Role::Follower(Following::default()),
            grants: Rare::default(),
            asking: None,
        }
    }

    /// A replica that joins a running group under an id that no replica of it has ever had (R7). It gets entries and
    /// snapshots once a configuration of the group names it, and that first one is how it learns of any.
    pub fn join(me: ReplicaId, options: impl Into<Arc<Options>>, out: &mut Outbox) -> Group {
        Group { acceptor: Acceptor::join(me, out), ..Group::new(me, Config::default(), options) }
    }

    /// A replica that has joined under this id before. Give it its records by [`Group::recover`]; or it has lost them, and the
    /// caller says so ([`Group::lose`]).
    pub fn rejoin(me: ReplicaId, options: impl Into<Arc<Options>>) -> Group {
        Group { acceptor: Acceptor::joined(me), ..Group::new(me, Config::default(), options) }
    }

    /// A replica of which no more is known than that one may have lived here, and voted: mute until a leader gives it another
    /// id ([`Group::renewed`]). It writes nothing, so that after a restart the driver has to know it again. `nonce` is
    /// fresh chance.
    pub fn unknown(me: ReplicaId, options: impl Into<Arc<Options>>, nonce: u64) -> Group {
        let mut group = Group::new(me, Config::default(), options);
        group.acceptor.forget();
        group.asking = Some(Box::new(Asking::new(nonce)));
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
        self.asking = self.acceptor.is_mute().then(|| Box::new(Asking::new(nonce)));
    }

    /// Called as well unless nobody in this group ever asks for leases: an earlier boot may have granted one. A replica
    /// that remembers a promise makes no other for [`LEASE`](crate::LEASE) from `now` on (R14).
    pub fn remember_grants(&mut self, now: Millis) {
        if self.acceptor.has_durable_promise() && self.options.planted != Planted::GrantForgotten {
            self.grants = Grants::restarted(now).into();
        }
    }

    /// Records of this replica that were durable are lost, and which is not known. It forgets the rest and is mute until
    /// it is repaired (R20). The caller forgets the applied state. `nonce` is fresh chance.
    pub fn lose(&mut self, nonce: u64, out: &mut Outbox) {
        self.asking = Some(Box::new(Asking::new(nonce)));
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
        self.acceptor.rescue(ballot, last, self.options.planted, out);
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
        if let Some((from, message)) = self.grants.get_mut().and_then(|grants| grants.take_held(now)) {
            self.handle_message(from, message, now, out);
        }
        let (me, log, options) = (self.acceptor.me(), self.acceptor.log(), &*self.options);
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
            self.tell_follower(from, &message, out);
            return;
        }
        if let Message::Accepted { ballot, .. } | Message::Behind { ballot, .. } = message {
            self.disown(from, ballot, now, out);
        }
        if let Message::Repair { nonce } = &message {
            // Also of a retired id: whoever has lost all may know itself by no other.
            match &mut self.role {
                Role::Leader(leader) => leader.note_lost(from, *nonce, self.acceptor.log(), now, out),
                _ => self.election.handle_lost(from),
            }
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
                let (promised, config) =
                    (self.acceptor.promised(), self.acceptor.log().latest_config().number);
                out.send(from, Message::Bound { nonce, promised, config });
            }
            Message::Bound { nonce, promised, config } => {
                self.handle_bound(from, nonce, promised, config, out)
            }
            Message::Renewed { nonce, replica } => {
                if self.acceptor.is_mute() && replica > self.acceptor.me() {
                    self.asking().handle_renewed(nonce, replica);
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

    /// Gives back memory that was reserved for what is to come. Worth calling when the group has come to rest.
    pub fn shrink(&mut self, now: Millis) {
        self.acceptor.shrink();
        match &mut self.role {
            Role::Follower(following) => following.shrink(),
            Role::Candidate(_) => {}
            Role::Leader(leader) => leader.shrink(),
        }
        if let Some(grants) = self.grants.get_mut() {
            grants.forget_past(now);
            self.grants.shrink();
        }
    }

    /// The whole durable state, for the head of the log (R22), with `snapshot` as the last
    /// index that a durable snapshot covers. Entries after it must still be in memory.
    pub fn checkpoint(&self, snapshot: Base, config: Config) -> Checkpoint {
        self.acceptor.checkpoint(snapshot, config)
    }

    /// Appends a checkpoint and returns the number of its last record: nothing of this group before its first one is needed
    /// once that is durable. A replica that has lost records says so again in a second one ([`Record::Muted`], R20).
    pub fn append_checkpoint(&mut self, snapshot: Base, config: Config, out: &mut Outbox) -> AppendSeq {
        let seq = self.acceptor.append_checkpoint(snapshot, config, self.options.planted, out);
        if let Role::Leader(leader) = &mut self.role {
            leader.note_append(seq, self.acceptor.log().last());
        }
        seq
    }

    /// Takes over a snapshot that is durable in its own file (R22), from the leader of `ballot`, or, if that ballot is one
    /// that this replica has stood in, from one that has lost its vote ([`Group::snapshots_in`]).
    /// Returns nothing if it is not news or, from a leader, if a higher ballot was promised. The caller replaces
    /// the applied state.
    ///
    /// What it holds is decided, as far as is known, in `ballot` or a lower one: so this replica promises
    /// that ballot, and no leader of a lower one can build on a log that is not its own (P6).
    pub fn install(
        &mut self,
        ballot: Ballot,
        base: Base,
        config: Config,
        now: Millis,
        out: &mut Outbox,
    ) -> Option<AppendSeq> {
        if base.index <= self.acceptor.log().applied() {
            return None;
        }
        let planted = self.options.planted;
        let me = self.acceptor.me();
        if ballot.replica.node() == me.node() {
            // It was handed over. Its own ballots it has promised, those of whoever lived here before it has not. Whoever leads finds
            // out by itself what is decided.
            let takes = ballot.replica == me
                && !self.acceptor.is_mute()
                && ballot <= self.acceptor.promised()
                && self.leading().is_none();
            return takes.then(|| {
                // A candidate has counted on what it knew to be decided before.
                self.step_down(now, out);
                self.acceptor.install(ballot, base, config, planted, out)
            });
        }
        if !self.heed(ballot.replica, ballot, now, out) {
            return None;
        }
        let seq = self.acceptor.install(ballot, base, config, planted, out);
        self.acceptor.say_installed(ballot, planted, out);
        Some(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be thousands of groups, most of them at rest: what only some need, or only now and then, is in a box.
    #[test]
    fn a_group_is_small() {
        assert!(size_of::<Group>() <= 296, "{}", size_of::<Group>());
    }
}
