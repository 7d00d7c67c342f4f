//! What only a leader has: how far each replica has come, its own disk's vote, the reads that
//! wait, and the heir.
//!
//! Rules kept here: R1 (it begins by re-accepting the whole log under its own ballot), R3 (a vote counts only when
//! durable, the leader's own included), R6 (one change of the replica set at a time; it leads until the one without it
//! is decided), R10 (nothing new once leadership is being handed over), R15 (no
//! read before the no-op of the own ballot), R16 (shard time never runs back).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::acceptor::{Acceptor, Standing};
use crate::ballot::{AppendSeq, Ballot, Index, Millis, ReplicaId};
use crate::candidate::Elected;
use crate::change::{Change, ChangeError};
use crate::lease::{self, LEASE_HELD, Lease};
use crate::log::Log;
use crate::message::{Entry, Message, Payload};
use crate::options::{Options, Planted};
use crate::outbox::{Outbox, RoleChange};
use crate::quorum::planted_configs;
use crate::rare::Rare;
use crate::reads::Reads;
use crate::renewal::{Renewal, Renewals};

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

#[derive(Clone, Hash, Debug)]
pub(crate) struct Leader {
    ballot: Ballot,
    /// The no-op that opens this ballot.
    first: Index,
    /// Whether [`Leader::first`] is decided and that was announced.
    serving: bool,
    followers: Vec<Follower>,
    /// Own appends under way, and the last index each makes durable.
    own_pending: Rare<VecDeque<(AppendSeq, Index)>>,
    own_durable: Index,
    /// Made with the first read that needs a round, and kept: its rounds are numbered through the whole ballot.
    reads: Option<Box<Reads>>,
    lease: Lease,
    handover: Option<Box<Handover>>,
    /// Who have lost records (R20).
    renewals: Option<Box<Renewals>>,
    /// When followers that made no progress are next asked.
    next_probe: Millis,
}

/// Leadership on its way to another.
#[derive(Clone, Hash, Debug, Default)]
struct Handover {
    /// Who it is being handed to, and until when the drain may last (R10).
    heir: Option<(ReplicaId, Millis)>,
    /// Once this replica is removed: the no-op by whose Accept the others learn that this is decided.
    farewell: Option<Index>,
}

/// What the leader knows of one other replica.
#[derive(Clone, Hash, Debug)]
struct Follower {
    replica: ReplicaId,
    stage: Stage,
    /// Durable in the leader's ballot up to here.
    accepted: Index,
    /// Bytes of the entries after it that were sent. Too many rather than too few where the log has forgotten some of them.
    unaccepted_bytes: usize,
    /// The first of these: how far its log came into this ballot. Whatever follows came by Accept, and with it a mark.
    entered: Index,
    /// The decided index last told.
    told: Index,
    /// `accepted` at the last probe: no progress since then means something was lost.
    probed: Index,
    /// Where the last rewind went, so that a burst of refusals causes one.
    rewound: Option<Index>,
    /// When the last question for a lease was asked that it has granted (R12).
    granted: Option<Millis>,
}

/// How a replica is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// Nothing is known of its log: ask.
    Unknown,
    /// Its log is (or, if messages arrive, will be) accepted in this ballot; next to send.
    Streaming(Index),
    /// It lacks what the log no longer holds.
    Snapshot,
}

impl Leader {
    /// Takes the log that phase 1 found, re-accepts it whole under the ballot promised together with the
    /// no-op that opens it (R1), and begins to bring to it those who have promised.
    pub(crate) fn begin(
        elected: Elected,
        acceptor: &mut Acceptor,
        options: &Options,
        now: Millis,
        out: &mut Outbox,
    ) -> Leader {
        let Elected { promises, mut entries, decided } = elected;
        let (me, ballot) = (acceptor.me(), acceptor.promised());
        let log = acceptor.log();
        let first = entries.last().map_or(log.decided(), |entry| entry.index).next();
        let time = entries.last().map_or_else(|| log.time_at_decided(), |entry| entry.time);
        entries.push(Entry { index: first, origin: ballot, time, seed: 0, payload: Payload::Noop });
        let seq = acceptor.adopt(ballot, entries, out);
        // What one of those who promised knows to be decided is decided, and configurations before it count no more.
        acceptor.decide(decided);
        let mut leader = Leader {
            ballot,
            first,
            serving: false,
            followers: Vec::new(),
            own_pending: Rare::default(),
            own_durable: Index::ZERO,
            reads: None,
            lease: Lease::default(),
            handover: None,
            renewals: None,
            next_probe: now.plus(options.probe_interval),
        };
        leader.note_append(seq, first);
        leader.follow_configs(acceptor, out);
        if options.planted == Planted::OwnVoteBeforeDurable {
            leader.own_durable = first;
        }
        out.changes.push(RoleChange::Elected(ballot));
        for promise in promises.into_iter().filter(|promise| promise.replica != me) {
            leader.start_follower(promise, acceptor.log(), options, out);
        }
        leader
    }

    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Time passed, and a quorum is heard.
    pub(crate) fn tick(
        &mut self,
        acceptor: &mut Acceptor,
        heard: impl Fn(ReplicaId) -> bool,
        options: &Options,
        now: Millis,
        out: &mut Outbox,
    ) {
        if let Some(handover) = &mut self.handover
            && handover.heir.is_some_and(|(_, until)| now >= until)
        {
            handover.heir = None;
        }
        if !self.draining() && self.is_removed(acceptor) {
            self.bid_farewell(&heard, acceptor, options, now, out);
        }
        let log = acceptor.log();
        let probe = now >= self.next_probe;
        if probe {
            self.next_probe = now.plus(options.probe_interval);
        }
        self.tell_followers(log, heard, probe, out);
        if options.leases && self.serving && !self.draining() && self.lease.asks(now) {
            for follower in &self.followers {
                out.send(follower.replica, Message::Lease { ballot: self.ballot, asked: now });
            }
        }
    }

    /// Whether [`Leader::tick`] has nothing to do, now and later, as long as nothing happens.
    pub(crate) fn is_idle(&self, acceptor: &Acceptor, heard: impl Fn(ReplicaId) -> bool) -> bool {
        let log = acceptor.log();
        let (decided, last) = (log.decided(), log.last());
        let knows_all = |follower: &Follower| match follower.accepted >= last {
            true => follower.told >= decided,
            // Asked again as soon as it is heard.
            false => !heard(follower.replica),
        };
        self.serving
            && !self.draining()
            && decided == last
            && self.reads.as_ref().is_none_or(|reads| reads.is_empty())
            && self.lease.is_idle()
            && !self.is_removed(acceptor)
            && self.followers.iter().all(knows_all)
    }

    /// Puts a value at the end of the log.
    pub(crate) fn propose(
        &mut self,
        payload: Payload,
        time: Millis,
        seed: u64,
        acceptor: &mut Acceptor,
        options: &Options,
        out: &mut Outbox,
    ) -> Result<Index, ProposeError> {
        if !self.serving {
            return Err(ProposeError::NotServing);
        }
        if self.draining() {
            return Err(ProposeError::Draining);
        }
        let log = acceptor.log();
        let under_way = log.last().0 - log.decided().0;
        if under_way >= options.window_entries_max
            || (under_way > 0 && log.undecided_bytes() >= options.window_bytes_max)
        {
            return Err(ProposeError::WindowFull);
        }
        let index = log.last().next();
        let time = match options.planted {
            Planted::TimeRunsBack => time,
            _ => time.max(log.last_time()),
        };
        let entry = Entry { index, origin: self.ballot, time, seed, payload };
        let seq = acceptor.append_next(entry, out);
        self.note_append(seq, index);
        if options.planted == Planted::OwnVoteBeforeDurable {
            self.own_durable = index;
        }
        Ok(index)
    }

    /// Puts a Config at the end of the log, where it counts at once (R6).
    pub(crate) fn change_replicas(
        &mut self,
        change: &Change,
        time: Millis,
        acceptor: &mut Acceptor,
        options: &Options,
        out: &mut Outbox,
    ) -> Result<Index, ChangeError> {
        if !self.serving {
            return Err(ProposeError::NotServing.into());
        }
        let log = acceptor.log();
        let config = change.config_after(log.latest_config())?;
        // R6: the last one is decided; that an entry of this ballot is, too, is what serving means.
        if log.is_joint() && options.planted != Planted::ConfigBeforeLastDecided {
            return Err(ChangeError::UnderWay);
        }
        let decided = log.decided();
        if !config.majority(|voter| voter == acceptor.me() || self.mark(acceptor.me(), voter) >= decided) {
            return Err(ChangeError::VotersLackEntries);
        }
        let index = self.propose(Payload::Config(Box::new(config)), time, 0, acceptor, options, out)?;
        self.follow_configs(acceptor, out);
        Ok(index)
    }

    /// `asker` has lost its records: what it accepted is not counted on any more, and it may need another id (R20).
    pub(crate) fn note_lost(
        &mut self,
        asker: ReplicaId,
        nonce: u64,
        log: &Log,
        now: Millis,
        out: &mut Outbox,
    ) {
        if let Some(follower) = self.follower(asker) {
            *follower = Follower::new(asker);
        }
        if self.serving && !self.draining() && !log.is_joint() {
            self.renewals.get_or_insert_default().ask(asker, nonce, log.latest_config(), now, out);
        }
    }

    /// Gives a replica that has lost records another id.
    pub(crate) fn renew(
        &mut self,
        renewal: &Renewal,
        acceptor: &mut Acceptor,
        options: &Options,
        out: &mut Outbox,
    ) -> Result<Index, ChangeError> {
        let log = acceptor.log();
        let (latest, time) = (log.latest_config(), log.last_time());
        let renewed = |replicas: &[ReplicaId]| -> Vec<ReplicaId> {
            let renewed = |replica: &ReplicaId| if *replica == renewal.lost { renewal.by } else { *replica };
            replicas.iter().map(renewed).collect()
        };
        let change = Change {
            number: latest.number,
            // Of a move under way it is no step, and it goes on.
            move_id: latest.move_id,
            voters: renewed(&latest.voters),
            learners: renewed(&latest.learners),
            used_up: renewal.by,
        };
        let index = self.change_replicas(&change, time, acceptor, options, out)?;
        if let Some(renewals) = &mut self.renewals {
            renewals.ordered(renewal);
        }
        Ok(index)
    }

    /// Whether a Config without this replica is decided: then it hands over what it leads (R6).
    pub(crate) fn is_removed(&self, acceptor: &Acceptor) -> bool {
        let log = acceptor.log();
        !log.is_joint() && !log.latest_config().is_voter(acceptor.me())
    }

    /// The last duty of a leader that is removed: the voter that has most leads next (R10), and before that most of them
    /// learn, durably, that the Config is decided. Who did not know it would go on to ask this replica for its vote,
    /// and it would not be there.
    fn bid_farewell(
        &mut self,
        heard: impl Fn(ReplicaId) -> bool,
        acceptor: &mut Acceptor,
        options: &Options,
        now: Millis,
        out: &mut Outbox,
    ) {
        let mark = |replica| self.mark(acceptor.me(), replica);
        let voters = acceptor.log().latest_config().voters.iter().rev().copied();
        let here = voters.filter(|voter| mark(*voter) > Index::ZERO && heard(*voter));
        let Some(heir) = here.max_by_key(|voter| mark(*voter)) else { return };
        let farewell = self.propose(Payload::Noop, Millis(0), 0, acceptor, options, out).ok();
        let heir = farewell.map(|_| (heir, now.plus(options.election_timeout)));
        self.handover = Some(Box::new(Handover { heir, farewell }));
    }

    /// Whether `replica` has the farewell, and by an Accept.
    fn was_told(&self, farewell: Index, replica: ReplicaId) -> bool {
        let found = self.followers.iter().find(|follower| follower.replica == replica);
        found.is_some_and(|follower| follower.entered < farewell && farewell <= follower.accepted)
    }

    /// Follows the configurations that count: asks replicas that came where they stand, and gives up those that are in
    /// none any more, with a last word on what is decided.
    fn follow_configs(&mut self, acceptor: &Acceptor, out: &mut Outbox) {
        let (me, log) = (acceptor.me(), acceptor.log());
        let last_word = Message::Decide { ballot: self.ballot, decided: log.decided(), length: Index::ZERO };
        self.followers.retain(|follower| {
            let stays = log.names(follower.replica);
            if !stays {
                out.send(follower.replica, last_word.clone());
            }
            stays
        });
        for replica in log.configs().flat_map(|config| config.voters.iter().chain(&config.learners)) {
            if *replica != me && self.follower(*replica).is_none() {
                self.followers.push(Follower::new(*replica));
                if self.serving {
                    out.send(*replica, self.probe(log));
                }
            }
        }
    }

    /// `from` has granted what was asked for at `asked`.
    pub(crate) fn handle_granted(&mut self, from: ReplicaId, asked: Millis) {
        if let Some(follower) = self.follower(from) {
            follower.granted = follower.granted.max(Some(asked));
        }
    }

    /// Until when the applied state may be read without a round (R12): no other leader can be elected before. `None` if
    /// it may not: also while something decided is not applied, and before the no-op of the own ballot is (R15).
    pub(crate) fn lease_until(
        &mut self,
        acceptor: &Acceptor,
        options: &Options,
        now: Millis,
    ) -> Option<Millis> {
        if !options.leases {
            return None;
        }
        self.lease.note_read(now);
        let log = acceptor.log();
        // R10: none once leadership is being handed over.
        if !self.serving || self.draining() || log.applied() < log.decided() {
            return None;
        }
        let granted = self.followers.iter().filter_map(|of| of.granted.map(|asked| (of.replica, asked)));
        let until = match options.planted {
            Planted::LeaseOfOneGrant => granted.map(|(_, asked)| asked).max()?.plus(LEASE_HELD),
            _ => lease::held_until(acceptor.me(), log, granted)?,
        };
        (now < until).then_some(until)
    }

    /// Takes a read in, unless leadership is being handed over.
    pub(crate) fn read(&mut self, token: u64, log: &Log, planted: Planted) -> bool {
        if self.draining() {
            return false;
        }
        // R15: never before the no-op of the leader's own ballot.
        let first = if planted == Planted::ReadBeforeNoop { Index::ZERO } else { self.first };
        self.reads.get_or_insert_default().arrive(token, log.decided().max(first));
        true
    }

    /// Sends what has gathered: entries, and one round for all reads.
    pub(crate) fn flush(&mut self, acceptor: &Acceptor, options: &Options, out: &mut Outbox) {
        let log = acceptor.log();
        self.stream(log, options, out);
        let Some(reads) = &mut self.reads else { return };
        if options.planted == Planted::ReadUnconfirmed {
            reads.confirm_arrived();
        }
        if let Some(round) = reads.start_round(options.read_rounds_max) {
            for follower in &self.followers {
                out.send(follower.replica, Message::Confirm { ballot: self.ballot, round });
            }
            self.count_confirmed(acceptor.me(), round, log, out);
        } else {
            reads.take_ready(log.decided(), out);
        }
    }

    /// `from` held to this ballot when it answered `round`.
    pub(crate) fn handle_confirmed(
        &mut self,
        from: ReplicaId,
        round: u64,
        log: &Log,
        planted: Planted,
        out: &mut Outbox,
    ) {
        if planted == Planted::ReadConfirmedLate
            && let Some(reads) = &mut self.reads
        {
            reads.confirm_arrived();
        }
        self.count_confirmed(from, round, log, out);
    }

    fn count_confirmed(&mut self, from: ReplicaId, round: u64, log: &Log, out: &mut Outbox) {
        let Some(reads) = &mut self.reads else { return };
        reads.confirm(from, round, |by| log.quorum(|replica| by.contains(&replica)));
        reads.take_ready(log.decided(), out);
    }

    /// Counts votes and decides what a quorum has. Returns whether that is news.
    pub(crate) fn advance(&mut self, acceptor: &mut Acceptor, planted: Planted, out: &mut Outbox) -> bool {
        if acceptor.log().decided() == acceptor.log().last() {
            return false;
        }
        let mut reached = self.planted_reached(planted, acceptor);
        let joint = acceptor.log().is_joint();
        if !acceptor.decide(reached) {
            return false;
        }
        if joint {
            if planted != Planted::RetiredIdCounts {
                self.follow_configs(acceptor, out);
            }
            // Fewer configurations may count now, and more be decided or confirmed with the same answers: those who stay
            // may have given theirs, and a leader that stays alone asks nobody again.
            reached = self.planted_reached(planted, acceptor).max(reached);
            acceptor.decide(reached);
            let log = acceptor.log();
            if let Some(reads) = &mut self.reads {
                reads.count(|by| log.quorum(|replica| by.contains(&replica)));
            }
        }
        if !self.serving && reached >= self.first {
            self.serving = true;
            out.changes.push(RoleChange::Serving(self.ballot));
        }
        if let Some(reads) = &mut self.reads {
            reads.take_ready(acceptor.log().decided(), out);
        }
        true
    }

    /// Names who leadership is handed to, and until when that may take (R10).
    pub(crate) fn transfer(&mut self, heir: ReplicaId, until: Millis) {
        self.handover.get_or_insert_default().heir = Some((heir, until));
    }

    /// The heir, once all is decided and it has everything (R10).
    pub(crate) fn ready_heir(&self, acceptor: &Acceptor) -> Option<ReplicaId> {
        let handover = self.handover.as_ref()?;
        let (heir, _) = handover.heir?;
        if let Some(farewell) = handover.farewell
            && !(self.was_told(farewell, heir)
                && acceptor.log().latest_config().majority(|voter| self.was_told(farewell, voter)))
        {
            return None;
        }
        let last = acceptor.log().last();
        (acceptor.log().decided() >= last && self.mark(acceptor.me(), heir) >= last).then_some(heir)
    }

    /// Leadership is gone.
    pub(crate) fn end(self, out: &mut Outbox) {
        out.changes.push(RoleChange::Stopped(self.ballot));
        if let Some(reads) = self.reads {
            reads.fail(out);
        }
    }

    /// Whether the no-op of this ballot is decided.
    pub(crate) fn serving(&self) -> bool {
        self.serving
    }

    /// Whether leadership is being handed over.
    pub(crate) fn draining(&self) -> bool {
        self.handover.as_ref().is_some_and(|handover| handover.heir.is_some())
    }

    /// How far each other replica's vote reaches.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (ReplicaId, Index)> {
        self.followers.iter().map(|follower| (follower.replica, follower.accepted))
    }

    pub(crate) fn note_append(&mut self, seq: AppendSeq, last: Index) {
        let own_pending = self.own_pending.make();
        match own_pending.back_mut() {
            // It went into the same record.
            Some((pending, index)) if *pending == seq => *index = last,
            _ => own_pending.push_back((seq, last)),
        }
    }

    pub(crate) fn handle_durable(&mut self, seq: AppendSeq) {
        let Some(own_pending) = self.own_pending.get_mut() else { return };
        while let Some((_, index)) = own_pending.pop_front_if(|(at, _)| *at <= seq) {
            self.own_durable = index;
        }
    }

    /// Gives back memory that was reserved for what is to come.
    pub(crate) fn shrink(&mut self) {
        self.followers.shrink_to_fit();
        self.own_pending.shrink();
        if let Some(reads) = &mut self.reads {
            reads.shrink();
        }
    }

    fn follower(&mut self, replica: ReplicaId) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.replica == replica)
    }

    /// How far the own disk has this ballot's log.
    pub(crate) fn own_durable(&self) -> Index {
        self.own_durable
    }

    /// How far `replica`'s vote reaches: durable and in this ballot.
    fn mark(&self, me: ReplicaId, replica: ReplicaId) -> Index {
        if replica == me {
            return self.own_durable;
        }
        let found = self.followers.iter().find(|follower| follower.replica == replica);
        found.map_or(Index::ZERO, |follower| follower.accepted)
    }

    /// How far a quorum of every configuration that counts has come.
    fn reached(&self, me: ReplicaId, log: &Log) -> Index {
        let marks = log.configs().map(|config| config.reached(|replica| self.mark(me, replica)));
        marks.fold(log.last(), Index::min)
    }

    /// The same, in which a fault may be planted.
    fn planted_reached(&self, planted: Planted, acceptor: &Acceptor) -> Index {
        let (me, log) = (acceptor.me(), acceptor.log());
        if planted == Planted::Nothing {
            return self.reached(me, log);
        }
        let accepted = |follower: &Follower| follower.accepted;
        match planted {
            Planted::VoteCountedTwice => {
                let best = self.followers.iter().map(accepted).max();
                best.unwrap_or_else(|| self.reached(me, log))
            }
            Planted::RetiredIdCounts => {
                let mut marks: Vec<Index> = self.followers.iter().map(accepted).collect();
                marks.push(self.own_durable);
                marks.sort_unstable_by(|a, b| b.cmp(a));
                marks[log.latest_config().voters.len() / 2]
            }
            _ => {
                let configs = planted_configs(planted, log.configs());
                let marks = configs.map(|config| config.reached(|replica| self.mark(me, replica)));
                marks.fold(log.last(), Index::min)
            }
        }
    }

    /// Sends followers what they may have.
    fn stream(&mut self, log: &Log, options: &Options, out: &mut Outbox) {
        let (ballot, decided) = (self.ballot, log.decided());
        for follower in &mut self.followers {
            while let Some(entries) = follower.take_next(log, options) {
                follower.told = follower.told.max(decided);
                out.send(follower.replica, Message::Accept { ballot, entries, decided });
            }
        }
    }

    /// Starts to bring a replica up to date whose state is known.
    fn start_follower(&mut self, state: Standing, log: &Log, options: &Options, out: &mut Outbox) {
        let ballot = self.ballot;
        let Some(follower) = self.follower(state.replica) else { return };
        if state.accepted == ballot {
            follower.stage = match log.get(state.length.next()) {
                Some(_) => Stage::Streaming(state.length.next()),
                None if state.length >= log.last() => Stage::Streaming(state.length.next()),
                None => Stage::Snapshot,
            };
        } else if !log.resends_after(state.decided, options.resent_bytes_max) {
            follower.stage = Stage::Snapshot;
        } else {
            let (from, whole_to) = (state.decided.next(), log.last());
            // P6: what it knows to be decided was decided in this ballot or a lower one.
            assert!(state.decided <= whole_to, "{} has decided beyond {whole_to} in {ballot}", state.replica);
            let mut next = from;
            loop {
                // Nothing to re-send is a Sync without entries: the log's ballot must rise (R1).
                let entries = log.slice(next, whole_to, options.message_bytes_max);
                next = entries.last().map_or(next, |entry| entry.index.next());
                out.send(state.replica, Message::Sync { ballot, from, entries, whole_to });
                if next > whole_to {
                    break;
                }
            }
            follower.stage = Stage::Streaming(next);
        }
        follower.count_unaccepted(log);
        if follower.stage == Stage::Snapshot {
            out.snapshots_wanted.push(state.replica);
        }
    }

    /// A late promise: brings this replica up to date as well.
    pub(crate) fn handle_promise(
        &mut self,
        promise: Standing,
        log: &Log,
        options: &Options,
        out: &mut Outbox,
    ) {
        if self.follower(promise.replica).is_some_and(|follower| follower.stage == Stage::Unknown) {
            self.start_follower(promise, log, options, out);
        }
    }

    /// A follower's vote reaches to `index`. Returns whether that is news.
    pub(crate) fn note_accepted(&mut self, from: ReplicaId, index: Index, log: &Log) -> bool {
        let (ballot, last) = (self.ballot, log.last());
        let Some(follower) = self.follower(from) else { return false };
        assert!(index <= last, "{from} accepted {index} beyond the log's end {last} in {ballot}");
        if index <= follower.accepted {
            // Said again: it may have missed what was decided.
            follower.told = Index::ZERO;
            return false;
        }
        if follower.accepted == Index::ZERO {
            follower.entered = index;
        }
        match follower.stage {
            Stage::Streaming(next) if next > index.next() => {
                let bytes = log.bytes_between(follower.accepted, index);
                debug_assert!(
                    bytes <= follower.unaccepted_bytes,
                    "{from} has accepted more than it was sent"
                );
                follower.unaccepted_bytes = follower.unaccepted_bytes.saturating_sub(bytes);
            }
            _ => (follower.stage, follower.unaccepted_bytes) = (Stage::Streaming(index.next()), 0),
        }
        follower.accepted = index;
        follower.rewound = None;
        true
    }

    /// Something did not fit: goes back to where the follower stands.
    pub(crate) fn rewind(&mut self, state: Standing, log: &Log, options: &Options, out: &mut Outbox) {
        let standing = if state.accepted == self.ballot { state.length } else { state.decided };
        let Some(follower) = self.follower(state.replica) else { return };
        if follower.rewound == Some(standing) {
            // One of a burst; the probe repeats the rewind if it was lost.
            return;
        }
        follower.rewound = Some(standing);
        // Marks told meanwhile may not have fitted.
        follower.told = Index::ZERO;
        self.start_follower(state, log, options, out);
    }

    /// Tells some what is decided, if they have it and may not know so.
    pub(crate) fn tell_decided(&mut self, log: &Log, whom: impl Fn(ReplicaId) -> bool, out: &mut Outbox) {
        let (ballot, decided) = (self.ballot, log.decided());
        let unaware = |follower: &&mut Follower| follower.told < decided && follower.accepted >= decided;
        for follower in self.followers.iter_mut().filter(|follower| whom(follower.replica)).filter(unaware) {
            out.send(follower.replica, Message::Decide { ballot, decided, length: Index::ZERO });
            follower.told = decided;
        }
    }

    /// Marks that no Accept has carried, and, if it is time to `probe`, questions to those who
    /// are heard and have not answered.
    fn tell_followers(
        &mut self,
        log: &Log,
        heard: impl Fn(ReplicaId) -> bool,
        probe: bool,
        out: &mut Outbox,
    ) {
        let ballot = self.ballot;
        let (decided, last) = (log.decided(), log.last());
        if probe && let Some(round) = self.reads.as_ref().and_then(|reads| reads.open_round()) {
            for follower in &self.followers {
                out.send(follower.replica, Message::Confirm { ballot, round });
            }
        }
        for follower in &mut self.followers {
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

    /// Tells a follower where it should stand, and asks where it does.
    pub(crate) fn probe(&self, log: &Log) -> Message {
        Message::Decide { ballot: self.ballot, decided: log.decided(), length: log.last() }
    }
}

impl Follower {
    /// The next entries to send, if there are any and the follower may have them.
    fn take_next(&mut self, log: &Log, options: &Options) -> Option<Vec<Entry>> {
        let Stage::Streaming(next) = self.stage else { return None };
        if next > log.last() || next.0 > self.accepted.0 + options.follower_entries_max {
            return None;
        }
        if next <= self.accepted.next() {
            // All that it was sent it has accepted, whatever was counted.
            self.unaccepted_bytes = 0;
        }
        let room = options.follower_bytes_max.saturating_sub(self.unaccepted_bytes);
        if self.unaccepted_bytes > 0 && log.get(next)?.cost_bytes() > room {
            return None;
        }
        let (entries, bytes) = log.weighed_slice(next, log.last(), options.message_bytes_max.min(room));
        // None if they are forgotten: the follower will say that it is behind.
        self.stage = Stage::Streaming(entries.last()?.index.next());
        self.unaccepted_bytes += bytes;
        Some(entries)
    }

    /// Sums up anew: it may go on elsewhere than where it was.
    fn count_unaccepted(&mut self, log: &Log) {
        self.unaccepted_bytes = match self.stage {
            Stage::Streaming(next) => log.bytes_between(self.accepted, Index(next.0 - 1)),
            Stage::Unknown | Stage::Snapshot => 0,
        };
    }

    fn new(replica: ReplicaId) -> Follower {
        Follower {
            replica,
            stage: Stage::Unknown,
            accepted: Index::ZERO,
            unaccepted_bytes: 0,
            entered: Index::ZERO,
            told: Index::ZERO,
            probed: Index::ZERO,
            rewound: None,
            granted: None,
        }
    }
}
