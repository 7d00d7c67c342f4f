//! The conductor of one group: takes events in, moves the replica through its roles, and puts
//! what is to be done into an [`Outbox`].

use alloc::vec::Vec;

use crate::acceptor::Acceptor;
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::candidate::{Candidate, PromiseFrom, Step};
use crate::leader::{Follower, Leader, Stage};
use crate::log::{Base, Log};
use crate::message::{Checkpoint, Config, Entry, Message, Payload, Record};
use crate::options::{Options, Planted};
use crate::outbox::{Outbox, RoleChange};

/// What failure detection says (R9). It is per node pair and shared by all groups, so it
/// stands outside of this crate.
pub trait Connectivity {
    /// Whether `a` has heard `b` within an election time-out, as far as this node knows.
    /// A replica hears itself.
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool;
}

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
    Follower(Waiting),
    Candidate(Candidate),
    Leader(Leader),
}

/// What only a follower has.
#[derive(Debug, Default)]
struct Waiting {
    /// Since when the leader is lost and a quorum is heard.
    lost_since: Option<Millis>,
    /// No candidacy before this: another candidate was promised, or an heir was named.
    patient_until: Millis,
    /// Pieces of a re-sent log (R1): not in the log, not in a promise.
    staging: Option<Staging>,
    /// The decided index, and since when entries after it have waited.
    undecided_since: Option<(Index, Millis)>,
}

#[derive(Debug)]
struct Staging {
    ballot: Ballot,
    from: Index,
    whole_to: Index,
    entries: Vec<Entry>,
}

impl Group {
    /// A replica that remembers nothing yet. Give it its records by [`Group::recover`].
    pub fn new(me: ReplicaId, config: Config, options: Options) -> Group {
        Group {
            me,
            options,
            acceptor: Acceptor::default(),
            log: Log::new(config),
            role: Role::Follower(Waiting::default()),
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
                if ballot != self.log.accepted() {
                    return Err("entries of another ballot than the log's");
                }
                for entry in entries {
                    if entry.index != self.log.last().next() || entry.time < self.log.last_time() {
                        return Err("an entry that does not follow the last one");
                    }
                    self.log.append(entry);
                }
                if decided > self.log.last() {
                    return Err("a log decided beyond its end");
                }
                self.log.decide(decided);
            }
            Record::Replaced { ballot, from, entries } => {
                if ballot < self.log.accepted() || from.0 > self.log.last().0 + 1 {
                    return Err("a replaced log that does not fit");
                }
                if from <= self.log.decided() {
                    return Err("a replaced log below what is decided");
                }
                self.log.replace(from, entries);
                self.log.raise_accepted(ballot);
                self.recover_promised(ballot);
            }
            Record::Checkpoint(checkpoint) => self.recover_checkpoint(checkpoint)?,
        }
        Ok(())
    }

    fn recover_promised(&mut self, ballot: Ballot) {
        if self.options.planted != Planted::PromiseForgotten {
            self.acceptor.recover_promised(self.acceptor.promised().max(ballot));
            self.highest_seen = self.acceptor.promised();
        }
    }

    fn recover_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), &'static str> {
        let base = Base {
            index: checkpoint.snapshot,
            origin: checkpoint.snapshot_origin,
            time: checkpoint.snapshot_time,
        };
        self.log = Log::at_snapshot(checkpoint.accepted, base, checkpoint.config);
        for entry in checkpoint.entries {
            if entry.index != self.log.last().next() || entry.time < self.log.last_time() {
                return Err("a checkpoint with a hole");
            }
            self.log.append(entry);
        }
        if checkpoint.decided > self.log.last() {
            return Err("a checkpoint decided beyond its end");
        }
        self.log.decide(checkpoint.decided);
        self.recover_promised(checkpoint.promised.max(checkpoint.accepted));
        Ok(())
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
                let heard = |replica| net.hears(self.me, replica);
                tell_followers(leader, &self.log, heard, probe, out);
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
            Role::Follower(waiting) => {
                let lost = self.leader.is_none_or(|ballot| leader_lost(&self.log, self.me, ballot, net));
                if !lost {
                    waiting.lost_since = None;
                    self.ask_for_marks(now, out);
                    return;
                }
                self.leader = None;
                let rank = self.log.latest_config().voters.iter().position(|voter| *voter == self.me);
                let Some(rank) = rank.filter(|_| hears_quorum) else {
                    waiting.lost_since = None;
                    return;
                };
                let since = *waiting.lost_since.get_or_insert(now);
                let turn = since.plus(self.options.patience(self.me, rank as u64, self.failures));
                if now >= turn && now >= waiting.patient_until {
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
        for follower in &mut leader.followers {
            while let Stage::Streaming(next) = follower.stage {
                if next > self.log.last()
                    || next.0 > follower.accepted.0 + self.options.follower_entries_max
                    || self.log.get(next).is_none()
                {
                    break;
                }
                let entries = self.log.slice(next, self.log.last(), self.options.message_bytes_max);
                let last = entries.last().expect("the entry at next exists").index;
                let decided = self.log.decided();
                follower.told = follower.told.max(decided);
                follower.stage = Stage::Streaming(last.next());
                out.send(follower.replica, Message::Accept { ballot: leader.ballot, entries, decided });
            }
        }
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
}

/// What others may know.
impl Group {
    /// This replica.
    pub fn me(&self) -> ReplicaId {
        self.me
    }

    /// The ballot in which this replica leads, if it does.
    pub fn leading(&self) -> Option<Ballot> {
        match &self.role {
            Role::Leader(leader) => Some(leader.ballot),
            _ => None,
        }
    }

    /// Whether this replica leads and the no-op of its ballot is decided.
    pub fn serving(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.serving && leader.heir.is_none())
    }

    /// Whether this replica leads and is handing leadership over.
    pub fn draining(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.heir.is_some())
    }

    /// On the leader: how far its own disk has its ballot's log; zero on others.
    pub fn own_durable_index(&self) -> Index {
        match &self.role {
            Role::Leader(leader) => leader.mark(self.me, self.me),
            _ => Index::ZERO,
        }
    }

    /// The ballot of the leader known, itself included. A hint (R11).
    pub fn leader(&self) -> Option<Ballot> {
        self.leading().or(self.leader)
    }

    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.acceptor.promised()
    }

    /// The ballot in which the whole log is accepted.
    pub fn accepted_ballot(&self) -> Ballot {
        self.log.accepted()
    }

    /// The last index of the log.
    pub fn accepted_index(&self) -> Index {
        self.log.last()
    }

    /// Everything up to here is decided, as far as this replica knows.
    pub fn decided_index(&self) -> Index {
        self.log.decided()
    }

    /// Everything up to here was handed out by [`Group::take_decided`].
    pub fn applied_index(&self) -> Index {
        self.log.applied()
    }

    /// The last index that is no longer in memory.
    pub fn base(&self) -> Base {
        self.log.base()
    }

    /// Index, origin and time of the last applied entry: what a snapshot taken now covers.
    pub fn applied_base(&self) -> Base {
        let applied = self.log.applied();
        match self.log.get(applied) {
            Some(entry) => Base { index: applied, origin: entry.origin, time: entry.time },
            None => self.log.base(),
        }
    }

    /// The configuration in force at the applied index.
    pub fn applied_config(&self) -> &Config {
        self.log.config_at(self.log.applied())
    }

    /// The latest configuration in the log.
    pub fn config(&self) -> &Config {
        self.log.latest_config()
    }

    /// Shard time of the last entry in the log.
    pub fn last_time(&self) -> Millis {
        self.log.last_time()
    }

    /// Bytes of entries in memory, about.
    pub fn log_bytes(&self) -> usize {
        self.log.cost_bytes()
    }

    /// On the leader: for each other replica, how far it has durably accepted.
    pub fn followers(&self) -> impl Iterator<Item = (ReplicaId, Index)> {
        let followers = match &self.role {
            Role::Leader(leader) => leader.followers.as_slice(),
            _ => &[],
        };
        followers.iter().map(|follower| (follower.replica, follower.accepted))
    }

    /// The entry at `index`, if it is in memory.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// Whether some of what this group asked to append is not durable yet.
    pub fn waits_for_disk(&self) -> bool {
        !self.acceptor.all_durable()
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
        self.role = Role::Candidate(Candidate {
            ballot,
            step: Step::Canvass { endorsed: Vec::new() },
            gives_up: now.plus(self.options.election_timeout),
            repeats: now.plus(self.options.stagger),
        });
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
        self.role = Role::Follower(Waiting { lost_since: Some(now), ..Waiting::default() });
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
        if self.leader.is_none() && decided >= self.log.base().index {
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
        self.role = Role::Candidate(Candidate {
            ballot,
            step: Step::Promise { seq },
            gives_up: now.plus(self.options.election_timeout),
            repeats: now.plus(self.options.stagger),
        });
        if self.options.planted == Planted::PromiseBeforeDurable {
            self.start_prepare(now, out);
        }
    }

    fn start_prepare(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Candidate(candidate) = &mut self.role else { return };
        candidate.step = Step::Prepare { promises: Vec::new() };
        let ballot = candidate.ballot;
        self.repeat_candidacy(out);
        let own = self.own_promise();
        self.handle_promise(ballot, own, now, out);
    }

    fn own_promise(&self) -> PromiseFrom {
        PromiseFrom {
            replica: self.me,
            accepted: self.log.accepted(),
            length: self.log.last(),
            decided: self.log.decided(),
        }
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
        if decided < self.log.base().index {
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
        if let Role::Follower(waiting) = &mut self.role {
            waiting.patient_until = now.plus(self.options.election_timeout);
        }
        let PromiseFrom { accepted, length, decided, .. } = self.own_promise();
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
                    self.start_follower(promise, out);
                }
            }
            Role::Candidate(candidate) if candidate.ballot == ballot => {
                let (promises, counted) = match &mut candidate.step {
                    Step::Prepare { promises } => (promises, false),
                    // Too late to be counted, but not to be brought up to date.
                    Step::Fetch { promises, .. } => (promises, true),
                    _ => return,
                };
                if promises.iter().all(|known| known.replica != promise.replica) {
                    promises.push(promise);
                }
                if counted {
                    return;
                }
                let promises = promises.clone();
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
        if rank(best) <= rank(&self.own_promise()) {
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
        let decided = self.log.decided();
        let Role::Candidate(candidate) = &mut self.role else { return };
        let Step::Fetch { promises, source, entries, whole_to } = &mut candidate.step else { return };
        if candidate.ballot != ballot || *source != from || *whole_to != length {
            return;
        }
        for entry in pieces {
            let next = entries.last().map_or(decided.next(), |last| last.index.next());
            if entry.index == next {
                entries.push(entry);
                // A long log takes longer than one time-out; what counts is that it moves.
                candidate.gives_up = now.plus(self.options.election_timeout);
            }
        }
        if entries.last().map_or(decided, |last| last.index) < *whole_to {
            self.repeat_candidacy(out);
            return;
        }
        let (promises, entries) = (core::mem::take(promises), core::mem::take(entries));
        self.lead(promises, entries, now, out);
    }

    /// Takes `entries` as the log after the decided index, re-accepts it whole under the own
    /// ballot together with the no-op that opens it (R1), and leads.
    fn lead(&mut self, promises: Vec<PromiseFrom>, mut entries: Vec<Entry>, now: Millis, out: &mut Outbox) {
        let ballot = self.acceptor.promised();
        let from = self.log.decided().next();
        let last = entries.last().map_or(self.log.decided(), |entry| entry.index);
        let time = entries.last().map_or_else(|| self.time_at_decided(), |entry| entry.time);
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
        self.role = Role::Leader(leader);
        self.leader = Some(ballot);
        self.failures = 0;
        out.changes.push(RoleChange::Elected(ballot));
        let me = self.me;
        for promise in promises.into_iter().filter(|promise| promise.replica != me) {
            self.start_follower(promise, out);
        }
        self.advance(now, out);
    }

    fn time_at_decided(&self) -> Millis {
        self.log.get(self.log.decided()).map_or(self.log.base().time, |entry| entry.time)
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
        let waiting = Waiting { patient_until, ..Waiting::default() };
        if let Role::Leader(leader) = core::mem::replace(&mut self.role, Role::Follower(waiting)) {
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
        if let Role::Follower(waiting) = &mut self.role {
            // Patience was for the time until somebody leads.
            waiting.patient_until = Millis(0);
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
        let Role::Follower(waiting) = &mut self.role else { return };
        let staging = match waiting.staging.take() {
            Some(mut staging) if staging.continues_with(&piece) => {
                staging.entries.extend(piece.entries);
                staging
            }
            _ if piece.entries.first().is_none_or(|entry| entry.index == piece.from) => piece,
            other => {
                waiting.staging = other;
                return;
            }
        };
        let end = staging.end();
        if end < staging.whole_to {
            if self.options.planted == Planted::BallotRaisedByPieces {
                self.take_whole(from, staging, now, out);
            } else {
                waiting.staging = Some(staging);
            }
            return;
        }
        self.take_whole(from, staging, now, out);
    }

    /// The whole re-sent log is here: one record raises the log's ballot (R1).
    fn take_whole(&mut self, from: ReplicaId, staging: Staging, _now: Millis, out: &mut Outbox) {
        let Staging { ballot, mut entries, .. } = staging;
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
        let decided = self.log.decided();
        let (Role::Follower(waiting), Some(leader)) = (&mut self.role, self.leader) else { return };
        if decided == self.log.last() || self.log.accepted() != leader {
            waiting.undecided_since = None;
            return;
        }
        match waiting.undecided_since {
            Some((at, since)) if at == decided => {
                if now.since(since) >= self.options.probe_interval {
                    waiting.undecided_since = Some((decided, now));
                    self.say_accepted(leader.replica, leader, out);
                }
            }
            _ => waiting.undecided_since = Some((decided, now)),
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
    /// Starts to bring a replica up to date whose state is known.
    fn start_follower(&mut self, state: PromiseFrom, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        let ballot = leader.ballot;
        let Some(follower) = leader.follower(state.replica) else { return };
        if state.accepted == ballot {
            follower.stage = match self.log.get(state.length.next()) {
                Some(_) => Stage::Streaming(state.length.next()),
                None if state.length >= self.log.last() => Stage::Streaming(state.length.next()),
                None => Stage::Snapshot,
            };
        } else if state.decided < self.log.base().index {
            follower.stage = Stage::Snapshot;
        } else {
            let (from, whole_to) = (state.decided.next(), self.log.last());
            // P6: what it knows to be decided was decided in this ballot or a lower one.
            assert!(state.decided <= whole_to, "{} has decided beyond {whole_to} in {ballot}", state.replica);
            let mut next = from;
            loop {
                // Nothing to re-send is a Sync without entries: the log's ballot must rise (R1).
                let entries = self.log.slice(next, whole_to, self.options.message_bytes_max);
                next = entries.last().map_or(next, |entry| entry.index.next());
                out.send(state.replica, Message::Sync { ballot, from, entries, whole_to });
                if next > whole_to {
                    break;
                }
            }
            follower.stage = Stage::Streaming(next);
        }
        if follower.stage == Stage::Snapshot {
            out.snapshots_wanted.push(state.replica);
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
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.ballot != ballot {
            return;
        }
        let last = self.log.last();
        let Some(follower) = leader.follower(from) else { return };
        assert!(index <= last, "{from} accepted {index} beyond the log's end {last} in {ballot}");
        if index <= follower.accepted {
            // Said again: it may have missed what was decided.
            follower.told = Index::ZERO;
            return;
        }
        follower.accepted = index;
        follower.rewound = None;
        match follower.stage {
            Stage::Streaming(next) if next > index => {}
            _ => follower.stage = Stage::Streaming(index.next()),
        }
        self.advance(now, out);
    }

    fn handle_behind(&mut self, ballot: Ballot, state: PromiseFrom, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.ballot != ballot {
            return;
        }
        let Some(follower) = leader.follower(state.replica) else { return };
        let standing = if state.accepted == ballot { state.length } else { state.decided };
        if follower.rewound == Some(standing) {
            // One of a burst; the probe repeats the rewind if it was lost.
            return;
        }
        follower.rewound = Some(standing);
        // Marks told meanwhile may not have fitted.
        follower.told = Index::ZERO;
        self.start_follower(state, out);
    }

    /// Counts votes and decides what a quorum has.
    fn advance(&mut self, now: Millis, out: &mut Outbox) {
        let Role::Leader(leader) = &mut self.role else { return };
        let me = self.me;
        let mut reached = self.log.last();
        for config in self.log.configs() {
            reached = reached.min(config.reached(|replica| leader.mark(me, replica)));
        }
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
        if let Role::Follower(waiting) = &mut self.role {
            waiting.patient_until = now.plus(self.options.election_timeout);
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

impl Options {
    /// How long a voter of this rank waits after it has lost its leader. After failures the
    /// order is shuffled, deterministically, and stretched, so that candidates do not go on
    /// outbidding each other.
    fn patience(&self, me: ReplicaId, rank: u64, failures: u32) -> Millis {
        if failures == 0 {
            return Millis(rank * self.stagger.0);
        }
        let mixed = (u64::from(me.0) << 32 | u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let steps = 2 + 2 * u64::from(failures.min(4));
        Millis((mixed >> 32) % (steps * self.stagger.0))
    }
}

/// R9: unheard, or without a quorum of its own.
fn leader_lost(log: &Log, me: ReplicaId, ballot: Ballot, net: &impl Connectivity) -> bool {
    let leader = ballot.replica;
    !net.hears(me, leader)
        || !log.configs().all(|config| config.majority(|replica| net.hears(leader, replica)))
}

/// Marks that no Accept has carried, and questions to those who are heard and have not answered.
fn tell_followers(
    leader: &mut Leader,
    log: &Log,
    heard: impl Fn(ReplicaId) -> bool,
    probe: bool,
    out: &mut Outbox,
) {
    let ballot = leader.ballot;
    let (decided, last) = (log.decided(), log.last());
    if probe && let Some(round) = leader.reads.open_round() {
        for follower in &leader.followers {
            out.send(follower.replica, Message::Confirm { ballot, round });
        }
    }
    for follower in &mut leader.followers {
        let idle = follower.accepted < last && follower.probed == follower.accepted;
        let stuck = probe && idle && heard(follower.replica);
        if probe {
            follower.probed = follower.accepted;
        }
        if stuck {
            follower.rewound = None;
            if follower.stage == Stage::Snapshot {
                out.snapshots_wanted.push(follower.replica);
            }
            // It may not fit, so it does not count as told.
            out.send(follower.replica, Message::Decide { ballot, decided, length: last });
        } else if follower.told < decided && follower.accepted >= decided {
            out.send(follower.replica, Message::Decide { ballot, decided, length: Index::ZERO });
            follower.told = decided;
        }
    }
}
