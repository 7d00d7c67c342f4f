//! The conductor of one group: takes events in, moves the replica through its roles, and puts
//! what is to be done into an [`Outbox`].

mod view;

use alloc::vec::Vec;

use crate::acceptor::Acceptor;
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::candidate::{Candidate, Fetched, PromiseFrom, Step};
use crate::connectivity::{Connectivity, leader_lost};
use crate::follower::{Following, Staging, patience};
use crate::leader::{Follower, Leader, Stage};
use crate::log::{Base, Log};
use crate::message::{Checkpoint, Config, Entry, Message, Payload, Record};
use crate::options::{Options, Planted};
use crate::outbox::{Outbox, RoleChange};

/// Why a proposal was not taken. Nothing was proposed in any of these cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProposeError {
    /// This replica does not lead, or does not serve yet.
    NotServing,
    /// Leadership is being handed over.
    Draining,
    /// As much as may be under way is under way.
    WindowFull,
}

/// One replica of one Multi-Paxos group.
#[derive(Debug)]
pub struct Group {
    me: ReplicaId,
    options: Options,
    acceptor: Acceptor,
    log: Log,
    role: Role,
    /// The highest ballot seen in any message: a candidate outbids it.
    highest_seen: Ballot,
    /// The leader heard last in the ballot promised last.
    leader: Option<Ballot>,
    /// Candidacies in a row that came to nothing.
    failures: u32,
}

#[derive(Debug)]
enum Role {
    Follower(Following),
    Candidate(Candidate),
    Leader(Leader),
}

impl Group {
    /// A replica that remembers nothing yet. Give it its records by [`Group::recover`].
    pub fn new(me: ReplicaId, config: Config, options: Options) -> Group {
        Group {
            me,
            options,
            acceptor: Acceptor::default(),
            log: Log::new(config),
            role: Role::Follower(Following::default()),
            highest_seen: Ballot::ZERO,
            leader: None,
            failures: 0,
        }
    }

    /// Takes back one record of an earlier run, in the order in which they were appended.
    /// All of them are durable. Returns what is wrong with a record that cannot follow the
    /// ones before it: the replica must then not run.
    pub fn recover(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Promised { ballot } => self.recover_promised(ballot),
            Record::Accepted { ballot, decided, entries } => {
                self.log.recover_accepted(ballot, decided, entries)?;
            }
            Record::Replaced { ballot, from, entries } => {
                self.log.recover_replaced(ballot, from, entries)?;
                self.recover_promised(ballot);
            }
            Record::Checkpoint(checkpoint) => {
                let promised = checkpoint.promised.max(checkpoint.accepted);
                self.log = Log::recover_checkpoint(checkpoint)?;
                self.recover_promised(promised);
            }
        }
        Ok(())
    }

    fn recover_promised(&mut self, ballot: Ballot) {
        if self.options.planted != Planted::PromiseForgotten {
            self.acceptor.recover_promised(self.acceptor.promised().max(ballot));
            self.highest_seen = self.acceptor.promised();
        }
    }

    /// Time passed, or failure detection has news. Wanted about every 10 ms; costs a few
    /// comparisons when there is nothing to do.
    pub fn handle_tick(&mut self, now: Millis, net: &impl Connectivity, out: &mut Outbox) {
        let hears_quorum = self.quorum(|replica| net.hears(self.me, replica));
        match &mut self.role {
            Role::Leader(leader) => {
                if !hears_quorum || !self.log.latest_config().is_voter(self.me) {
                    // A leader that hears no quorum falls silent (R9).
                    self.step_down(now, out);
                    return;
                }
                if leader.heir.is_some_and(|(_, until)| now >= until) {
                    leader.heir = None;
                }
                let probe = now >= leader.next_probe;
                if probe {
                    leader.next_probe = now.plus(self.options.probe_interval);
                }
                leader.tell_followers(&self.log, |replica| net.hears(self.me, replica), probe, out);
                self.flush(now, out);
            }
            Role::Candidate(candidate) => {
                if now >= candidate.gives_up || !hears_quorum {
                    self.give_up(now);
                } else if now >= candidate.repeats {
                    candidate.repeats = now.plus(self.options.stagger);
                    self.repeat_candidacy(out);
                }
            }
            Role::Follower(following) => {
                let lost = self.leader.is_none_or(|ballot| leader_lost(&self.log, self.me, ballot, net));
                if !lost {
                    following.lost_since = None;
                    self.ask_for_marks(now, out);
                    return;
                }
                self.leader = None;
                let rank = self.log.latest_config().voters.iter().position(|voter| *voter == self.me);
                let Some(rank) = rank.filter(|_| hears_quorum) else {
                    following.lost_since = None;
                    return;
                };
                let since = *following.lost_since.get_or_insert(now);
                let turn = since.plus(patience(&self.options, self.me, rank as u64, self.failures));
                if now >= turn && now >= following.patient_until {
                    self.start_canvass(now, out);
                }
            }
        }
    }

    /// A message from another replica of this group.
    pub fn handle_message(&mut self, from: ReplicaId, message: Message, now: Millis, out: &mut Outbox) {
        match message {
            Message::Canvass { ballot, decided } => self.handle_canvass(from, ballot, decided, out),
            Message::Endorse { ballot } => self.handle_endorse(from, ballot, now, out),
            Message::Prepare { ballot, decided } => self.handle_prepare(from, ballot, decided, now, out),
            Message::Promise { ballot, accepted, length, decided } => {
                let promise = PromiseFrom { replica: from, accepted, length, decided };
                self.handle_promise(ballot, promise, now, out);
            }
            Message::Reject { promised } => self.handle_reject(promised, now, out),
            Message::Fetch { ballot, from: first } => self.handle_fetch(from, ballot, first, out),
            Message::Fetched { ballot, entries, whole_to } => {
                self.handle_fetched(from, ballot, entries, whole_to, now, out);
            }
            Message::Sync { ballot, from: first, entries, whole_to } => {
                let piece = Staging { ballot, from: first, whole_to, entries };
                self.handle_sync(from, piece, now, out);
            }
            Message::Accept { ballot, entries, decided } => {
                self.handle_accept(from, ballot, entries, decided, now, out);
            }
            Message::Accepted { ballot, index } => self.handle_accepted(from, ballot, index, now, out),
            Message::Behind { ballot, accepted, length, decided } => {
                let state = PromiseFrom { replica: from, accepted, length, decided };
                self.handle_behind(ballot, state, out);
            }
            Message::Decide { ballot, decided, length } => {
                self.handle_decide(from, ballot, decided, length, now, out);
            }
            Message::Confirm { ballot, round } => self.handle_confirm(from, ballot, round, now, out),
            Message::Confirmed { ballot, round } => self.handle_confirmed(from, ballot, round, out),
            Message::Released { ballot } => self.handle_released(ballot, now, out),
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
            Role::Candidate(Candidate { step: Step::Promise { seq: own }, .. }) if *own <= seq => {
                self.start_prepare(now, out);
            }
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
        if !leader.serving {
            return Err(ProposeError::NotServing);
        }
        if leader.heir.is_some() {
            return Err(ProposeError::Draining);
        }
        let under_way = self.log.last().0 - self.log.decided().0;
        if under_way >= self.options.window_entries_max
            || (under_way > 0 && self.log.undecided_bytes() >= self.options.window_bytes_max)
        {
            return Err(ProposeError::WindowFull);
        }
        let index = self.log.last().next();
        let time = time.max(self.log.last_time());
        let entry = Entry { index, origin: leader.ballot, time, seed, payload };
        let decided = self.log.decided();
        let entries = alloc::vec![entry.clone()];
        let seq = out.append(Record::Accepted { ballot: leader.ballot, decided, entries });
        self.acceptor.note_append(seq);
        leader.note_append(seq, index);
        self.log.append(entry);
        if self.options.planted == Planted::OwnVoteBeforeDurable {
            leader.count_own(index);
        }
        Ok(index)
    }

    /// Asks for a linearizable read: `token` comes back in [`Outbox::reads_ready`] when the
    /// applied state may answer it, or in [`Outbox::reads_failed`]. `false`: not the leader.
    pub fn read(&mut self, token: u64) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        if leader.heir.is_some() {
            return false;
        }
        // R15: never before the no-op of the leader's own ballot.
        leader.reads.arrive(token, self.log.decided().max(leader.first));
        true
    }

    /// Sends what has gathered since the last call: entries to followers, one read-index round
    /// for all reads. Called once at the end of each round of events.
    pub fn flush(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.stream(&self.log, &self.options, out);
        if self.options.planted == Planted::ReadUnconfirmed {
            leader.reads.confirm_arrived();
        }
        if let Some(round) = leader.reads.start_round(self.options.read_rounds_max) {
            for follower in &leader.followers {
                out.send(follower.replica, Message::Confirm { ballot: leader.ballot, round });
            }
            self.count_confirmed(self.me, round, out);
        } else {
            leader.reads.take_ready(self.log.decided(), out);
        }
        self.finish_transfer(now, out);
    }

    /// Hands leadership to `to`, once all that was proposed is decided (R10). Proposals and
    /// reads are refused from now on; if it does not come about within an election time-out
    /// the leader goes on. `false`: not the leader, or `to` is not another voter.
    pub fn transfer(&mut self, to: ReplicaId, now: Millis, out: &mut Outbox) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        if to == self.me || !self.log.latest_config().is_voter(to) {
            return false;
        }
        leader.heir = Some((to, now.plus(self.options.election_timeout)));
        self.flush(now, out);
        true
    }

    /// The next decided entry to apply, in order, each once.
    pub fn take_decided(&mut self) -> Option<Entry> {
        self.log.take_decided()
    }

    /// Forgets applied entries up to `to` in memory. What followers still lack of them will
    /// need a snapshot.
    pub fn trim(&mut self, to: Index) {
        self.log.trim(to);
    }

    /// The whole durable state, for the head of the log (R22), with `snapshot` as the last
    /// index that a durable snapshot covers. Entries after it must still be in memory.
    pub fn checkpoint(&self, snapshot: Base, config: Config) -> Checkpoint {
        Checkpoint {
            promised: self.acceptor.promised(),
            accepted: self.log.accepted(),
            snapshot: snapshot.index,
            snapshot_time: snapshot.time,
            snapshot_origin: snapshot.origin,
            config,
            decided: self.log.decided(),
            entries: self.log.after(snapshot.index),
        }
    }

    /// Appends a checkpoint and returns its number: nothing of this group before it is needed
    /// once it is durable.
    pub fn append_checkpoint(&mut self, snapshot: Base, config: Config, out: &mut Outbox) -> AppendSeq {
        let last = self.log.last();
        let seq = out.append(Record::Checkpoint(self.checkpoint(snapshot, config)));
        self.acceptor.note_append(seq);
        if let Role::Leader(leader) = &mut self.role {
            leader.note_append(seq, last);
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
        if base.index <= self.log.applied() || !self.heed(ballot.replica, ballot, now, out) {
            return None;
        }
        self.acceptor.raise_promised(ballot);
        self.log.install(base, config.clone());
        let seq = self.append_checkpoint(base, config, out);
        if self.log.accepted() == ballot {
            self.say_accepted(ballot.replica, ballot, out);
        } else {
            let behind = self.behind(ballot);
            self.acceptor.send_when_durable(ballot.replica, behind, out);
        }
        Some(seq)
    }

    fn quorum(&self, has: impl Fn(ReplicaId) -> bool) -> bool {
        self.log.configs().all(|config| config.majority(&has))
    }

    fn behind(&self, ballot: Ballot) -> Message {
        Message::Behind {
            ballot,
            accepted: self.log.accepted(),
            length: self.log.last(),
            decided: self.log.decided(),
        }
    }
}

/// Elections.
impl Group {
    fn start_canvass(&mut self, now: Millis, out: &mut Outbox) {
        let mut ballot = self.highest_seen.max(self.acceptor.promised()).next_for(self.me);
        if self.options.planted == Planted::BallotUsedTwice
            && self.acceptor.promised().replica == self.me
            && self.highest_seen <= self.acceptor.promised()
        {
            ballot = self.acceptor.promised();
        }
        let step = Step::Canvass { endorsed: Vec::new() };
        self.role = Role::Candidate(Candidate::new(ballot, step, now, &self.options));
        self.repeat_candidacy(out);
        self.handle_endorse(self.me, ballot, now, out);
    }

    /// Sends again what the current step of the candidacy waits for.
    fn repeat_candidacy(&mut self, out: &mut Outbox) {
        let Role::Candidate(candidate) = &self.role else { return };
        let ballot = candidate.ballot;
        let decided = self.log.decided();
        match &candidate.step {
            Step::Promise { .. } => {}
            Step::Fetch { source, entries, .. } => {
                let from = entries.last().map_or(decided.next(), |entry| entry.index.next());
                out.send(*source, Message::Fetch { ballot, from });
            }
            Step::Canvass { .. } => self.broadcast(&Message::Canvass { ballot, decided }, out),
            Step::Prepare { .. } => self.broadcast(&Message::Prepare { ballot, decided }, out),
        }
    }

    /// To every other voter of every configuration that counts.
    fn broadcast(&self, message: &Message, out: &mut Outbox) {
        let mut told: Vec<ReplicaId> = Vec::new();
        for voter in self.log.configs().flat_map(|config| &config.voters) {
            if *voter != self.me && !told.contains(voter) {
                told.push(*voter);
                out.send(*voter, message.clone());
            }
        }
    }

    fn give_up(&mut self, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        self.leader = None;
        self.role = Role::Follower(Following::lost_since(now));
    }

    fn handle_canvass(&mut self, from: ReplicaId, ballot: Ballot, decided: Index, out: &mut Outbox) {
        if let Role::Leader(leader) = &self.role {
            // The other has lost us, or has only just started: say that we are here.
            out.send(from, leader.probe(&self.log));
            return;
        }
        if ballot <= self.acceptor.promised() {
            out.send(from, Message::Reject { promised: self.acceptor.promised() });
            return;
        }
        if self.leader.is_some_and(|leader| leader.replica == from && leader < ballot) {
            // Who canvasses does not lead: it restarted, or stepped down, and nobody missed it.
            self.leader = None;
        }
        // R9: a quorum must call the leader lost. A candidate that would need a snapshot from
        // us could not adopt our log, so it must not lead us.
        if self.leader.is_none() && self.log.resends_after(decided, self.options.resent_bytes_max) {
            out.send(from, Message::Endorse { ballot });
        }
    }

    fn handle_endorse(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.ballot != ballot {
            return;
        }
        let Step::Canvass { endorsed } = &mut candidate.step else { return };
        if !endorsed.contains(&from) {
            endorsed.push(from);
        }
        let endorsed = endorsed.clone();
        if self.quorum(|replica| endorsed.contains(&replica)) {
            self.start_promise(ballot, now, out);
        }
    }

    /// The candidate promises its own ballot first; nothing leaves before that is durable (R2).
    fn start_promise(&mut self, ballot: Ballot, now: Millis, out: &mut Outbox) {
        self.acceptor.raise_promised(ballot);
        self.highest_seen = self.highest_seen.max(ballot);
        let seq = out.append(Record::Promised { ballot });
        self.acceptor.note_append(seq);
        self.leader = None;
        self.role = Role::Candidate(Candidate::new(ballot, Step::Promise { seq }, now, &self.options));
        if self.options.planted == Planted::PromiseBeforeDurable {
            self.start_prepare(now, out);
        }
    }

    fn start_prepare(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        candidate.step = Step::Prepare { promises: Vec::new() };
        let ballot = candidate.ballot;
        self.repeat_candidacy(out);
        let own = PromiseFrom::of(self.me, &self.log);
        self.handle_promise(ballot, own, now, out);
    }

    /// Phase 1b: promises `ballot` unless a higher one was promised.
    fn handle_prepare(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        decided: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        self.highest_seen = self.highest_seen.max(ballot);
        if ballot < self.acceptor.promised() || ballot.replica != from {
            // Only a hint that saves the candidate a time-out, so it need not wait for disk.
            out.send(from, Message::Reject { promised: self.acceptor.promised() });
            return;
        }
        if self.log.accepted() == ballot {
            // A late repeat: this ballot leads already.
            return;
        }
        if !self.log.resends_after(decided, self.options.resent_bytes_max) {
            // It could not adopt our log if ours is the one to adopt, so it must do without us.
            return;
        }
        // An equal ballot is a retry of the same, still living candidate (R2): the first
        // promise may have been lost.
        if ballot > self.acceptor.promised() {
            self.step_down(now, out);
            self.acceptor.raise_promised(ballot);
            let seq = out.append(Record::Promised { ballot });
            self.acceptor.note_append(seq);
        }
        self.leader = None;
        if let Role::Follower(following) = &mut self.role {
            following.patient_until = now.plus(self.options.election_timeout);
        }
        let PromiseFrom { accepted, length, decided, .. } = PromiseFrom::of(self.me, &self.log);
        let promise = Message::Promise { ballot, accepted, length, decided };
        if self.options.planted == Planted::PromiseBeforeDurable {
            out.send(from, promise);
        } else {
            self.acceptor.send_when_durable(from, promise, out);
        }
    }

    fn handle_promise(&mut self, ballot: Ballot, promise: PromiseFrom, now: Millis, out: &mut Outbox) {
        match &mut self.role {
            Role::Leader(leader) => {
                // A late promise: bring this replica up to date as well.
                let unknown = |follower: &mut Follower| follower.stage == Stage::Unknown;
                if leader.ballot == ballot && leader.follower(promise.replica).is_some_and(unknown) {
                    leader.start_follower(promise, &self.log, &self.options, out);
                }
            }
            Role::Candidate(candidate) if candidate.ballot == ballot => {
                let Some(promises) = candidate.note_promise(promise) else { return };
                let promises = promises.to_vec();
                if self.quorum(|replica| promises.iter().any(|known| known.replica == replica)) {
                    self.adopt(promises, now, out);
                }
            }
            _ => {}
        }
    }

    /// Phase 1 is complete: the log with the highest (accepted ballot, length) is the one that
    /// holds everything that may have been decided.
    fn adopt(&mut self, promises: Vec<PromiseFrom>, now: Millis, out: &mut Outbox) {
        let rank = |promise: &PromiseFrom| match self.options.planted {
            Planted::LongestLogAdopted => (Ballot::ZERO, promise.length),
            _ => promise.rank(),
        };
        let best = promises.iter().max_by_key(|promise| rank(promise)).expect("a quorum is not empty");
        if rank(best) <= rank(&PromiseFrom::of(self.me, &self.log)) {
            let entries = self.log.after(self.log.decided());
            self.lead(promises, entries, now, out);
            return;
        }
        let (source, whole_to) = (best.replica, best.length);
        if whole_to <= self.log.decided() {
            self.lead(promises, Vec::new(), now, out);
            return;
        }
        let Role::Candidate(candidate) = &mut self.role else { return };
        candidate.step = Step::Fetch { promises, source, entries: Vec::new(), whole_to };
        self.repeat_candidacy(out);
    }

    fn handle_fetch(&mut self, from: ReplicaId, ballot: Ballot, first: Index, out: &mut Outbox) {
        if ballot != self.acceptor.promised() {
            out.send(from, Message::Reject { promised: self.acceptor.promised() });
            return;
        }
        if first <= self.log.base().index {
            // Not in memory any more: this candidate cannot lead; its time-out will tell it.
            return;
        }
        let whole_to = self.log.last();
        let entries = self.log.slice(first, whole_to, self.options.message_bytes_max);
        out.send(from, Message::Fetched { ballot, entries, whole_to });
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
        if candidate.ballot != ballot {
            return;
        }
        let gives_up = now.plus(self.options.election_timeout);
        match candidate.take_pieces(from, pieces, length, self.log.decided(), gives_up) {
            Fetched::Stray => {}
            Fetched::Part => self.repeat_candidacy(out),
            Fetched::Whole(promises, entries) => self.lead(promises, entries, now, out),
        }
    }

    /// Takes `entries` as the log after the decided index, re-accepts it whole under the own
    /// ballot together with the no-op that opens it (R1), and leads.
    fn lead(&mut self, promises: Vec<PromiseFrom>, mut entries: Vec<Entry>, now: Millis, out: &mut Outbox) {
        let ballot = self.acceptor.promised();
        let from = self.log.decided().next();
        let last = entries.last().map_or(self.log.decided(), |entry| entry.index);
        let time = entries.last().map_or_else(|| self.log.time_at_decided(), |entry| entry.time);
        entries.push(Entry { index: last.next(), origin: ballot, time, seed: 0, payload: Payload::Noop });
        self.log.replace(from, entries.clone());
        self.log.raise_accepted(ballot);
        let seq = out.append(Record::Replaced { ballot, from, entries });
        self.acceptor.note_append(seq);
        let others = self.log.latest_config().voters.iter().copied().filter(|voter| *voter != self.me);
        let mut leader = Leader::new(ballot, last.next(), others);
        leader.note_append(seq, last.next());
        leader.next_probe = now.plus(self.options.probe_interval);
        if self.options.planted == Planted::OwnVoteBeforeDurable {
            leader.count_own(last.next());
        }
        out.changes.push(RoleChange::Elected(ballot));
        for promise in promises.into_iter().filter(|promise| promise.replica != self.me) {
            leader.start_follower(promise, &self.log, &self.options, out);
        }
        self.role = Role::Leader(leader);
        self.leader = Some(ballot);
        self.failures = 0;
        self.advance(now, out);
    }

    fn handle_reject(&mut self, promised: Ballot, now: Millis, out: &mut Outbox) {
        self.highest_seen = self.highest_seen.max(promised);
        match &self.role {
            Role::Leader(leader) if promised > leader.ballot => self.step_down(now, out),
            Role::Candidate(candidate) if promised >= candidate.ballot => self.give_up(now),
            _ => {}
        }
    }

    fn handle_released(&mut self, ballot: Ballot, now: Millis, out: &mut Outbox) {
        let fits = ballot == self.acceptor.promised() && ballot == self.log.accepted();
        if fits && matches!(self.role, Role::Follower(_)) && self.config().is_voter(self.me) {
            let next = self.highest_seen.max(ballot).next_for(self.me);
            self.start_promise(next, now, out);
        }
    }

    /// Becomes a follower of nobody. Nothing happens to a follower.
    fn step_down(&mut self, now: Millis, out: &mut Outbox) {
        if matches!(self.role, Role::Follower(_)) {
            return;
        }
        let patient_until = now.plus(self.options.stagger);
        let following = Role::Follower(Following::until(patient_until));
        if let Role::Leader(leader) = core::mem::replace(&mut self.role, following) {
            out.changes.push(RoleChange::Stopped(leader.ballot));
            leader.reads.fail(out);
        }
        self.leader = None;
    }
}

/// Following.
impl Group {
    /// Whether a message of the leader of `ballot` is to be heeded. If so this replica follows
    /// that leader from now on.
    fn heed(&mut self, from: ReplicaId, ballot: Ballot, now: Millis, out: &mut Outbox) -> bool {
        self.highest_seen = self.highest_seen.max(ballot);
        let lower = ballot < self.acceptor.promised() && self.options.planted != Planted::LowerBallotAccepted;
        if lower || ballot.replica != from || from == self.me {
            out.send(from, Message::Reject { promised: self.acceptor.promised() });
            return false;
        }
        if ballot > self.acceptor.promised() || matches!(self.role, Role::Candidate(_)) {
            self.step_down(now, out);
        }
        if matches!(self.role, Role::Leader(_)) {
            return false;
        }
        // R11: a lower ballot that was not deposed here yet does not hide a higher one.
        self.leader = self.leader.max(Some(ballot));
        self.failures = 0;
        if let Role::Follower(following) = &mut self.role {
            // Patience was for the time until somebody leads.
            following.patient_until = Millis(0);
        }
        true
    }

    fn handle_sync(&mut self, from: ReplicaId, piece: Staging, now: Millis, out: &mut Outbox) {
        if !self.heed(from, piece.ballot, now, out) {
            return;
        }
        let ballot = piece.ballot;
        if self.log.accepted() == ballot {
            // A repeat: the whole log has arrived already.
            let accepted = Message::Accepted { ballot, index: self.log.last() };
            self.acceptor.send_when_durable(from, accepted, out);
            return;
        }
        if piece.from > self.log.decided().next() {
            let behind = self.behind(ballot);
            out.send(from, behind);
            return;
        }
        let Role::Follower(following) = &mut self.role else { return };
        let unwhole = self.options.planted == Planted::BallotRaisedByPieces;
        if let Some(whole) = following.take_piece(piece, unwhole) {
            self.take_whole(from, whole, out);
        }
    }

    /// The whole re-sent log is here: one record raises the log's ballot (R1).
    fn take_whole(&mut self, from: ReplicaId, whole: Staging, out: &mut Outbox) {
        let Staging { ballot, mut entries, .. } = whole;
        let decided = self.log.decided();
        let known = entries.iter().take_while(|entry| entry.index <= decided).count();
        for entry in entries.drain(..known) {
            if let Some(mine) = self.log.get(entry.index) {
                // P2 and P5: what is decided is the same everywhere.
                assert_eq!(mine.origin, entry.origin, "two values decided at {}", entry.index);
            }
        }
        self.acceptor.raise_promised(ballot.max(self.acceptor.promised()));
        self.log.replace(decided.next(), entries.clone());
        self.log.raise_accepted(ballot);
        let seq = out.append(Record::Replaced { ballot, from: decided.next(), entries });
        self.acceptor.note_append(seq);
        self.say_accepted(from, ballot, out);
    }

    fn say_accepted(&mut self, to: ReplicaId, ballot: Ballot, out: &mut Outbox) {
        let accepted = Message::Accepted { ballot, index: self.log.last() };
        if self.options.planted == Planted::AcceptedBeforeDurable {
            out.send(to, accepted);
        } else {
            self.acceptor.send_when_durable(to, accepted, out);
        }
    }

    fn handle_accept(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        mut entries: Vec<Entry>,
        decided: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        if !self.heed(from, ballot, now, out) {
            return;
        }
        // R1: taken only at accepted + 1 of that very ballot.
        let first = entries.first().map_or(Index::ZERO, |entry| entry.index);
        let other_ballot =
            self.log.accepted() != ballot && self.options.planted != Planted::LowerBallotAccepted;
        if other_ballot || first > self.log.last().next() {
            let behind = self.behind(ballot);
            out.send(from, behind);
            return;
        }
        let known = entries.iter().take_while(|entry| entry.index <= self.log.last()).count();
        for entry in entries.drain(..known) {
            if let Some(origin) = self.log.origin_at(entry.index)
                && self.options.planted == Planted::Nothing
            {
                assert_eq!(origin, entry.origin, "P5: two values at {} in {ballot}", entry.index);
            }
        }
        if !entries.is_empty() {
            for entry in &entries {
                self.log.append(entry.clone());
            }
            let (ballot, decided) = (self.log.accepted(), self.log.decided());
            let seq = out.append(Record::Accepted { ballot, decided, entries });
            self.acceptor.note_append(seq);
        }
        self.say_accepted(from, ballot, out);
        self.learn_decided(decided);
    }

    /// The leader of an idle group tells each mark once. If it was lost, this replica holds
    /// entries that nobody calls decided: it says again what it holds, and is told again.
    fn ask_for_marks(&mut self, now: Millis, out: &mut Outbox) {
        let (Role::Follower(following), Some(leader)) = (&mut self.role, self.leader) else { return };
        let follows = self.log.accepted() == leader;
        let marks = follows.then(|| (self.log.decided(), self.log.last()));
        if following.misses_marks(marks, now, self.options.probe_interval) {
            self.say_accepted(leader.replica, leader, out);
        }
    }

    fn learn_decided(&mut self, decided: Index) {
        self.log.decide(decided.min(self.log.last()));
    }

    fn handle_decide(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        decided: Index,
        length: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        if !self.heed(from, ballot, now, out) {
            return;
        }
        let fits = self.log.accepted() == ballot;
        if fits || self.options.planted == Planted::DecidedInAnyBallot {
            self.learn_decided(decided);
        }
        if fits && length > Index::ZERO {
            // Also if more is missing: earlier answers may be what was lost.
            self.say_accepted(from, ballot, out);
        }
        if !fits || length > self.log.last() {
            let behind = self.behind(ballot);
            out.send(from, behind);
        }
    }

    fn handle_confirm(&mut self, from: ReplicaId, ballot: Ballot, round: u64, now: Millis, out: &mut Outbox) {
        // R12, R15: only while the promise is exactly that ballot.
        if self.heed(from, ballot, now, out) && self.acceptor.promised() == ballot {
            out.send(from, Message::Confirmed { ballot, round });
        }
    }
}

/// Leading.
impl Group {
    fn handle_accepted(
        &mut self,
        from: ReplicaId,
        ballot: Ballot,
        index: Index,
        now: Millis,
        out: &mut Outbox,
    ) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.ballot != ballot {
            return;
        }
        if leader.note_accepted(from, index, self.log.last()) {
            self.advance(now, out);
        }
    }

    fn handle_behind(&mut self, ballot: Ballot, state: PromiseFrom, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.ballot != ballot {
            return;
        }
        leader.rewind(state, &self.log, &self.options, out);
    }

    /// Counts votes and decides what a quorum has.
    fn advance(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        let mut reached = leader.reached(self.me, &self.log);
        if self.options.planted == Planted::VoteCountedTwice {
            reached = leader.followers.iter().map(|follower| follower.accepted).max().unwrap_or(reached);
        }
        if self.log.decide(reached) {
            if !leader.serving && reached >= leader.first {
                leader.serving = true;
                out.changes.push(RoleChange::Serving(leader.ballot));
            }
            leader.reads.take_ready(self.log.decided(), out);
            self.finish_transfer(now, out);
        }
    }

    fn handle_confirmed(&mut self, from: ReplicaId, ballot: Ballot, round: u64, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.ballot == ballot {
            if self.options.planted == Planted::ReadConfirmedLate {
                leader.reads.confirm_arrived();
            }
            self.count_confirmed(from, round, out);
        }
    }

    fn count_confirmed(&mut self, from: ReplicaId, round: u64, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        let log = &self.log;
        leader.reads.confirm(from, round, |by| {
            log.configs().all(|config| config.majority(|replica| by.contains(&replica)))
        });
        leader.reads.take_ready(self.log.decided(), out);
    }

    /// Lets go of leadership once the heir has everything (R10).
    fn finish_transfer(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &self.role else { return };
        let Some((heir, _)) = leader.heir else { return };
        let last = self.log.last();
        if self.log.decided() < last || leader.mark(self.me, heir) < last {
            return;
        }
        out.send(heir, Message::Released { ballot: leader.ballot });
        self.step_down(now, out);
        if let Role::Follower(following) = &mut self.role {
            following.patient_until = now.plus(self.options.election_timeout);
        }
    }
}
