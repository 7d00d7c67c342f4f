//! One shard on this node: its Paxos group, the keyspace it decides on, and who waits for what.
//!
//! Invariants:
//! - S1: the keyspace and the sessions are exactly what the entries up to `applied_index` make.
//! - S2: a waiter is answered once: from its own entry's application, or when leadership ends.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_engine::wide::Wide;
use tholos_engine::{Access, Command, Context, Keyspace, Transaction};
use tholos_paxos::{
    Config, Connectivity, Entry, Group, Index, Millis, MoveId, Outbox, Payload, Planted, ProposeError,
};
use tholos_resp::Value;
use tholos_ring::ShardId;

use crate::detector::{Detector, node_of};
use crate::digests::Digests;
use crate::event::Loss;
use crate::hot::{Asked, Rates};
use crate::meta::store;
use crate::operation::{Operation, WriteHeader, decode_item, peek_item};
use crate::peer::{Ask, Outcome};
use crate::prefetch::Lookups;
use crate::refused::Before;
use crate::sessions::{Sessions, Verdict};
use crate::work::{Batch, DurableWait, PendingRead, TICK_INTERVAL, Work};

/// Dead keys removed by each applied entry, at most.
const EVICT_MAX: usize = 64;

/// Who asked: where the answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The gateway's node; `None` is this one.
    pub node: Option<NodeId>,
    /// The node by which the answer goes back, if not straight (R11).
    pub relay: Option<NodeId>,
    /// The gateway's boot.
    pub boot: u64,
    /// The gateway's number of the request.
    pub request: u64,
}

impl Origin {
    /// Whether both ask the same: a copy may come by another way.
    pub(crate) fn is_same_request(&self, other: &Origin) -> bool {
        (self.node, self.boot, self.request) == (other.node, other.boot, other.request)
    }
}

/// Why the records of a replica do not make a state.
#[derive(Clone, PartialEq, Debug)]
pub enum Unfit {
    /// They do not follow each other.
    Records(String),
    /// The snapshot that they go on from is not what they say, or not there.
    Snapshot(String),
}

/// Answers on their way out.
pub(crate) type Answers = Vec<(Origin, Outcome)>;

/// A shard of which this node holds a replica.
#[derive(Debug)]
pub struct Shard {
    /// Which one.
    pub id: ShardId,
    /// The nodes that vote on it, in walk order: those of the latest configuration in its log.
    pub voters: Box<[NodeId]>,
    /// Its Paxos group.
    pub group: Group,
    /// Its keys.
    pub keyspace: Keyspace,
    /// Its sessions (R18).
    pub sessions: Sessions,
    /// Shard time of the last applied entry.
    pub time: Millis,
    /// The last index that a durable snapshot covers; zero if there is none.
    pub snapshot: Index,
    /// That of the snapshot which the last durable checkpoint names: recovery needs no older one (R22).
    pub named_snapshot: Index,
    /// What it has lost, while it is mute (R20).
    pub loss: Option<Loss>,
    /// The comparison of its state with the other replicas' (R24).
    pub(crate) digests: Digests,
    /// Set while it stands in the node's list of shards with work.
    pub dirty: bool,
    /// Set while it stands in the node's list of shards to which time may bring something.
    pub(crate) restless: bool,
    planted: Planted,
    /// The last entry whose look-ups are foreseen. Only a hint: the entry may be another by now.
    foreseen_write: Index,
    /// What clients wait for.
    work: Option<Box<Work>>,
    seldom: Option<Box<Seldom>>,
    /// By this node's clock: all that was decided by then is applied here once this index is, if that is known of any time.
    pub(crate) fresh: Option<Box<(Millis, Index)>>,
}

/// What most replicas never have.
#[derive(PartialEq, Debug, Default)]
struct Seldom {
    /// In recovery: why the records so far do not make a state. The log may begin in the middle
    /// of what a later checkpoint replaces (R22), so this counts only at the end.
    unfit: Option<Unfit>,
    /// Since when the durable map says that this replica is retired, if it leads nevertheless.
    retired_since: Option<Millis>,
    /// A change of the replica set was applied and not told of yet.
    changed: Option<(u64, MoveId)>,
}

impl Shard {
    /// An empty replica.
    pub fn new(id: ShardId, group: Group, keyspace: Keyspace, planted: Planted) -> Shard {
        Shard {
            id,
            voters: Box::default(),
            group,
            keyspace,
            sessions: Sessions::default(),
            time: Millis(0),
            snapshot: Index::ZERO,
            named_snapshot: Index::ZERO,
            loss: None,
            digests: Digests::default(),
            dirty: false,
            restless: false,
            planted,
            foreseen_write: Index::ZERO,
            work: None,
            seldom: None,
            fresh: None,
        }
    }

    /// A request for this shard. It is answered through `answers`, now or later.
    pub fn ask(&mut self, ask: Ask, origin: Origin, now: Millis, answers: &mut Answers) {
        if self.group.leading().is_none() || self.group.draining() {
            answers.push((origin, Outcome::NotLeader { leader: None }));
            return;
        }
        match ask {
            Ask::Write { session, sequence, acknowledged, expires_at, operation } => {
                let header = WriteHeader { session, sequence, acknowledged, expires_at };
                self.write(&header, &operation, origin);
            }
            Ask::Read { operation } | Ask::ReplicaRead { operation } => match Operation::decode(operation) {
                Ok(operation) => self.read(operation, origin, now, answers),
                Err(_) => answers.push((origin, Outcome::Refused(malformed()))),
            },
        }
    }

    /// Refuses a write, if a copy of it was refused before, or for `why`; but not if a copy of it is applied, waits here to be,
    /// or may be decided without this leader knowing it yet: the network may double a request, and the copy finds the disk
    /// full. Whether it is not to be taken.
    pub(crate) fn refuse(
        &mut self,
        ask: &Ask,
        why: Option<Value>,
        origin: Origin,
        detector: &Detector,
        answers: &mut Answers,
    ) -> bool {
        let Ask::Write { session, sequence, expires_at, .. } = *ask else { return false };
        let refused = self.work.as_mut().and_then(|work| work.refused.as_mut());
        let before = refused.map_or(Before::New, |refused| {
            refused.before(session, sequence, || detector.shard_time(&self.voters))
        });
        if (why.is_none() && before == Before::New) || self.has_taken(session, sequence, &origin) {
            return false;
        }
        if !self.group.serving() {
            // What was refused here is not taken either, and nothing is said of it before this leader knows all that is
            // decided: it is asked again. Who does not lead says so.
            return before != Before::New && self.group.leading().is_some();
        }
        let why = match before {
            Before::Refused(why) => why,
            // If it is new it waits, asked again, until that is sure.
            Before::New | Before::Unknown => match why {
                Some(why) => why,
                None => return true,
            },
        };
        let time = detector.shard_time(&self.voters);
        self.work().refused.get_or_insert_default().note(session, sequence, expires_at, &why, time);
        answers.push((origin, Outcome::Refused(why)));
        true
    }

    fn has_taken(&self, session: u64, sequence: u64, origin: &Origin) -> bool {
        self.sessions.has_applied(session, sequence)
            || self.work.as_ref().is_some_and(|work| work.has_taken(origin))
    }

    /// What clients wait for, made if there was nothing.
    fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    /// Why a write cannot wait for this shard, if so: too much does already, or it would open a session, and their records
    /// may take up no more than `sessions_bytes_max` (X2).
    pub(crate) fn overfull(&self, ask: &Ask, sessions_bytes_max: usize) -> Option<Value> {
        let Ask::Write { session, .. } = ask else { return None };
        let (work, room) = (self.work.as_ref(), self.sessions.room(sessions_bytes_max));
        let text = if work.is_some_and(|work| work.is_overfull()) {
            "BUSY too many writes wait for this shard, nothing was written: try again later"
        } else if work.map_or(room == 0, |work| work.has_waiting(room)) && !self.sessions.knows(*session) {
            "BUSY too many connections have written to this shard in the last seconds, nothing was written: try again \
             later, and keep connections open"
        } else {
            return None;
        };
        Some(Value::error(text))
    }

    fn write(&mut self, header: &WriteHeader, operation: &[u8], origin: Origin) {
        let work = self.work();
        if work.is_overfull() {
            // A copy of one that is on its way, or one that comes before this leader knows: it is asked again.
            return;
        }
        work.write(header, operation, origin);
    }

    fn read(&mut self, operation: Operation, origin: Origin, now: Millis, answers: &mut Answers) {
        if let Operation::Durable { replicas, local, timeout } = operation {
            if self.work().renew_wait(origin, now) {
                return;
            }
            let until = (timeout > 0).then(|| now.plus(Millis(timeout)));
            // Before its own no-op is decided a leader may not know that what the client wrote is.
            let index = match self.group.serving() {
                true => self.group.decided_index(),
                false => self.group.accepted_index(),
            };
            self.work().add_wait(DurableWait { index, replicas, local, until, origin, asked_at: now });
            return;
        }
        let work = self.work.get_or_insert_default();
        let token = work.next_token();
        if self.group.read(token) {
            work.add_read(token, PendingRead { operation, origin });
        } else {
            answers.push((origin, Outcome::NotLeader { leader: None }));
        }
    }

    /// Answers a read from the applied state, unless only a Tick can (R17) or it is none that has its answer there.
    pub(crate) fn read_undisputed(&self, operation: &Bytes, time: Millis) -> Option<Outcome> {
        let operation = Operation::decode(operation.clone()).ok()?;
        if matches!(operation, Operation::Durable { .. }) || self.is_disputed(&operation, time) {
            return None;
        }
        Some(self.read_now(operation, time))
    }

    /// What it was asked for in the last span, writes forwarded by others included.
    pub fn rates(&self) -> Rates {
        self.work.as_ref().map_or(Rates::default(), |work| work.asked.rates)
    }

    /// It is asked for something.
    pub(crate) fn asked(&mut self) -> &mut Asked {
        &mut self.work().asked
    }

    /// What it was asked for in the span that is over becomes its rates.
    pub(crate) fn end_span(&mut self, span: Millis) {
        if let Some(work) = &mut self.work {
            work.asked.end_span(span);
        }
    }

    /// Whether its state is what its log says, as far as is known: nothing is lost, and no majority had another one.
    pub(crate) fn is_whole(&self) -> bool {
        self.group.repair().is_none() && self.loss.is_none() && !self.digests.diverged()
    }

    /// Answers a read from the applied state of a replica that need not lead, by shard time only (R17).
    pub(crate) fn read_as_replica(&self, operation: Bytes) -> Outcome {
        match Operation::decode(operation) {
            Ok(operation) => self.read_now(operation, self.time),
            Err(_) => Outcome::Refused(malformed()),
        }
    }

    /// Whether this replica votes in a configuration that counts.
    pub fn has_vote(&self) -> bool {
        self.group.configs().any(|config| config.is_voter(self.group.me()))
    }

    /// Takes over who votes from the group's log.
    pub(crate) fn follow_config(&mut self) {
        let config = self.group.config();
        if !self.voters.iter().map(|node| node.0).eq(config.voters.iter().map(|replica| replica.node())) {
            self.voters = config.voters.iter().copied().map(node_of).collect();
        }
    }

    /// The number and order of a change of the replica set that was applied since the last call.
    pub(crate) fn take_change(&mut self) -> Option<(u64, MoveId)> {
        self.seldom.as_mut()?.changed.take()
    }

    /// In recovery: why the records so far do not make a state.
    pub(crate) fn unfit(&self) -> Option<&Unfit> {
        self.seldom.as_ref()?.unfit.as_ref()
    }

    pub(crate) fn set_unfit(&mut self, why: Option<Unfit>) {
        if why.is_some() || self.seldom.is_some() {
            self.seldom.get_or_insert_default().unfit = why;
        }
    }

    /// Since when the durable map says that this replica is retired: from `now` on, if that is new.
    pub(crate) fn retired_since(&mut self, now: Millis) -> Millis {
        *self.seldom.get_or_insert_default().retired_since.get_or_insert(now)
    }

    /// It is not, or is needed all the same.
    pub(crate) fn forget_retired(&mut self) {
        if let Some(seldom) = &mut self.seldom {
            seldom.retired_since = None;
        }
    }

    /// Whether writes wait to be proposed.
    pub fn has_batches(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.has_batches())
    }

    /// Refuses the writes that wait to be proposed, those left out of which a copy is applied or may be decided.
    pub(crate) fn refuse_waiting(&mut self, why: &Value, time: Millis, answers: &mut Answers) {
        if !self.group.serving() {
            // It may not know yet which are decided.
            return;
        }
        for batch in self.work.as_mut().map(|work| work.take_batches()).unwrap_or_default() {
            let mut items = Bytes::from(batch.bytes);
            for origin in batch.waiters {
                let Ok(Some((header, operation))) = decode_item(&mut items) else { break };
                let WriteHeader { session, sequence, expires_at, .. } = header;
                if self.has_taken(session, sequence, &origin) {
                    self.write(&header, &operation, origin);
                } else {
                    let refused = self.work().refused.get_or_insert_default();
                    refused.note(session, sequence, expires_at, why, time);
                    answers.push((origin, Outcome::Refused(why.clone())));
                }
            }
        }
    }

    /// Proposes what has gathered, as far as the window lets it. `time` is the shard time
    /// wanted (R16); `seed` is fresh chance.
    pub fn propose(&mut self, time: Millis, mut seed: impl FnMut() -> u64, out: &mut Outbox) {
        let Some(work) = &mut self.work else { return };
        while let Some(batch) = work.take_batch() {
            let bytes = Bytes::from(batch.bytes);
            match self.group.propose(Payload::Batch(bytes.clone()), time, seed(), out) {
                Ok(index) => {
                    let origin = self.group.leading().expect("only a leader's proposal is taken");
                    work.note_proposed(bytes.len(), index, origin, batch.waiters);
                }
                Err(ProposeError::WindowFull | ProposeError::NotServing | _) => {
                    work.put_back(Batch { bytes: bytes.into(), waiters: batch.waiters });
                    return;
                }
            }
        }
    }

    /// The shard time at which a Tick is due if no entry comes before (R17): a key ends, or a session's record has ended.
    /// Nobody asks whether that one has, so it waits for a while: where entries come anyway, none is made for its sake.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        let key = self.keyspace.next_due_ms().map(Millis);
        let session = self.sessions.next_end().map(|end| end.plus(TICK_INTERVAL));
        [key, session].into_iter().flatten().min()
    }

    /// Proposes a Tick if one is due and the last one is long enough ago (R17).
    pub fn tick_if_due(&mut self, now: Millis, time: Millis, seed: u64, out: &mut Outbox) {
        let due = self.next_due().is_some_and(|due| due <= time);
        if due && self.group.serving() && self.work().may_tick(now) {
            self.work().note_tick(now);
            // A full window will bring an entry, and its time, by itself.
            let _ = self.group.propose(Payload::Tick, time, seed, out);
        }
    }

    /// Notes what the writes that have come since the last call will look up, as far as there is room.
    pub(crate) fn foresee_writes(&mut self, lookups: &mut Lookups) {
        let mut index = self.group.applied_index().max(self.foreseen_write);
        while let Some(entry) = self.group.entry(Index(index.0 + 1)).filter(|_| !lookups.is_full()) {
            index = entry.index;
            let Payload::Batch(batch) = &entry.payload else { continue };
            let mut items = &batch[..];
            while let Some((session, key, rest)) = peek_item(items) {
                lookups.push(self.id, Some(session), self.keyspace.locate(key));
                items = rest;
            }
        }
        self.foreseen_write = index;
    }

    /// The same of reads.
    pub(crate) fn foresee_reads(&mut self, lookups: &mut Lookups) {
        let Some(work) = &mut self.work else { return };
        for key in work.foresee_reads() {
            lookups.push(self.id, None, self.keyspace.locate(key));
        }
    }

    /// Whether time brings nothing here until something happens, `net` says something else, or the wall clock has come to
    /// `until`.
    pub(crate) fn is_idle(&self, net: &impl Connectivity, until: Millis) -> bool {
        let nothing_due = self.next_due().is_none_or(|due| due > until);
        !self.has_batches()
            && !self.has_durable_waits()
            && !self.waits_for_a_tick()
            && !self.digests.diverged()
            && (nothing_due || !self.group.serving())
            && self.group.is_idle(net)
    }

    /// Gives back memory that was reserved for what is to come (I3).
    pub(crate) fn shrink(&mut self, now: Millis) {
        self.group.shrink(now);
        self.sessions.shrink();
        if let Some(work) = &mut self.work {
            work.shrink();
        }
        self.work.take_if(|work| work.is_over(now));
        self.seldom.take_if(|seldom| **seldom == Seldom::default());
    }

    /// Applies everything decided and answers whoever waited for it. Returns how many writes of sessions were applied before
    /// and got their kept reply again (R18).
    pub(crate) fn apply_decided(&mut self, answers: &mut Answers) -> u64 {
        let mut repeated = 0;
        while let Some(entry) = self.group.take_decided().cloned() {
            repeated += self.apply_entry(entry, answers);
        }
        repeated
    }

    fn apply_entry(&mut self, entry: Entry, answers: &mut Answers) -> u64 {
        assert!(entry.time >= self.time, "P3: shard time runs back in {} at {}", self.id, entry.index);
        self.time = entry.time;
        let mut waiters = match &mut self.work {
            Some(work) => work.take_waiters(entry.index, entry.origin),
            None => Vec::new(),
        }
        .into_iter();
        let mut repeated = 0;
        if let Payload::Config(config) = &entry.payload {
            self.seldom.get_or_insert_default().changed = Some((config.number, config.move_id));
        }
        if let Payload::Batch(mut batch) = entry.payload {
            let mut position = 0;
            // What was decided is the same bytes on every replica, so a malformed rest is
            // skipped alike on all of them.
            while let Ok(Some((header, operation))) = decode_item(&mut batch) {
                let seed = mix(entry.seed, u64::from(position));
                let context = Context { time_ms: entry.time.0, seed, index: entry.index.0, position };
                let outcome = self.apply_item(&context, &header, operation, &mut repeated);
                if let Some(origin) = waiters.next() {
                    answers.push((origin, outcome));
                }
                position += 1;
            }
        }
        self.keyspace.evict_due(entry.time.0, EVICT_MAX);
        self.sessions.expire(entry.time);
        let keyspace = &self.keyspace;
        self.digests.note_applied(entry.index, || keyspace.digest());
        repeated
    }

    fn apply_item(
        &mut self,
        context: &Context,
        header: &WriteHeader,
        operation: Bytes,
        repeated: &mut u64,
    ) -> Outcome {
        let verdict = match self.planted {
            Planted::RetryAppliedAgain => Verdict::Apply,
            _ => self.sessions.judge(header, Millis(context.time_ms)),
        };
        let verdict = match (verdict, self.planted) {
            (Verdict::Gap { .. }, Planted::SessionGapAccepted) => Verdict::Apply,
            (Verdict::Repeat(Some(_)), Planted::KeptReplyOfAnother) => {
                Verdict::Repeat(self.sessions.newest_reply(header.session))
            }
            (verdict, _) => verdict,
        };
        match verdict {
            Verdict::Apply => {
                let reply = self.apply_operation(context, operation);
                self.sessions.record(header, &reply);
                Outcome::Done(reply)
            }
            Verdict::Repeat(Some(reply)) => {
                *repeated += 1;
                Outcome::Done(reply)
            }
            Verdict::Repeat(None) => Outcome::Done(Value::error(
                "INDOUBT the write was applied, but its reply is lost: read what you need to know",
            )),
            Verdict::Gap { expected } => Outcome::Gap { expected },
            Verdict::Expired => Outcome::Expired,
        }
    }

    fn apply_operation(&mut self, context: &Context, operation: Bytes) -> Value {
        match Operation::decode(operation) {
            Ok(Operation::Command(args)) => match Command::parse(&args) {
                Ok(command) => self.keyspace.apply(context, &command),
                Err(error) => error,
            },
            Ok(Operation::Transaction { watched, commands }) => {
                self.apply_transaction(context, watched, &commands)
            }
            Ok(Operation::Meta(command)) => store::apply(&mut self.keyspace, context, &command),
            _ => malformed(),
        }
    }

    fn apply_transaction(
        &mut self,
        context: &Context,
        watched: Vec<(Bytes, tholos_engine::Version)>,
        commands: &[Vec<Bytes>],
    ) -> Value {
        // A command that does not parse has its error as its own reply, as in Redis.
        let parsed: Vec<Result<Command, Value>> = commands.iter().map(|args| Command::parse(args)).collect();
        let good = parsed.iter().filter_map(|command| command.as_ref().ok().cloned()).collect();
        let watched = if self.planted == Planted::WatchUnchecked { Vec::new() } else { watched };
        let transaction = Transaction { watched, commands: good };
        let Value::Array(replies) = transaction.apply(context, &mut self.keyspace) else {
            return Value::NullArray;
        };
        let mut replies = replies.into_iter();
        let all = parsed.into_iter().map(|command| match command {
            Ok(_) => replies.next().unwrap_or(Value::Null),
            Err(error) => error,
        });
        Value::Array(all.collect())
    }

    /// Answers the reads that were confirmed, from the applied state. `time` is the shard time
    /// that a Tick would carry now.
    pub fn answer_reads(
        &mut self,
        ready: impl Iterator<Item = u64>,
        time: Millis,
        mut seed: impl FnMut() -> u64,
        out: &mut Outbox,
        answers: &mut Answers,
    ) {
        for token in ready {
            let Some(read) = self.work.as_mut().and_then(|work| work.take_read(token)) else { continue };
            match self.needs_tick(&read.operation, time, &mut seed, out) {
                Some(index) => self.work().add_after_tick(index, read),
                None => answers.push((read.origin, self.read_now(read.operation, time))),
            }
        }
        let applied = self.group.applied_index();
        while let Some(read) = self.work.as_mut().and_then(|work| work.take_after_tick(applied)) {
            answers.push((read.origin, self.read_now(read.operation, time)));
        }
    }

    /// Whether reads wait until a Tick is applied.
    pub fn waits_for_a_tick(&self) -> bool {
        self.last_tick().is_some()
    }

    /// The last Tick that a read waits for.
    fn last_tick(&self) -> Option<Index> {
        self.work.as_ref()?.last_tick()
    }

    /// Whether the wall clock says dead and shard time says alive.
    fn is_disputed(&self, operation: &Operation, time: Millis) -> bool {
        if matches!(self.planted, Planted::ExpiryByWallClock | Planted::TickNotProposed) {
            return false;
        }
        let Some(due) = self.keyspace.next_due_ms().filter(|due| *due <= time.0) else { return false };
        match operation {
            Operation::Command(args) => Command::parse(args)
                .is_ok_and(|command| self.keyspace.expired_by(time.0, self.time.0, &command)),
            Operation::CountInSlot(_) | Operation::KeysInSlot(..) => false,
            _ => due > self.time.0,
        }
    }

    /// R17: of a dispute, a Tick decides.
    fn needs_tick(
        &mut self,
        operation: &Operation,
        time: Millis,
        seed: &mut impl FnMut() -> u64,
        out: &mut Outbox,
    ) -> Option<Index> {
        if !self.is_disputed(operation, time) {
            return None;
        }
        if let Some(index) = self.last_tick()
            && self.group.entry(index).is_some_and(|entry| entry.time >= time)
        {
            return Some(index);
        }
        self.group.propose(Payload::Tick, time, seed(), out).ok()
    }

    /// Answers from the applied state, by shard time only (R17). `wall` is for a planted fault.
    fn read_now(&self, operation: Operation, wall: Millis) -> Outcome {
        let time = match self.planted {
            Planted::ExpiryByWallClock => wall.0,
            _ => self.time.0,
        };
        Outcome::Done(match operation {
            Operation::Command(args) => match Command::parse(&args) {
                Ok(command) if command.access() == Access::Read => self.keyspace.read(time, &command),
                Ok(_) => malformed(),
                Err(error) => error,
            },
            Operation::Wide { cursor, seed, args } => self.read_wide(cursor, seed, &args),
            Operation::Versions(keys) => {
                let version = |key: &Bytes| {
                    let version = self.keyspace.version(key, time);
                    let numbers =
                        [version.index as i64, i64::from(version.position), i64::from(version.present)];
                    Value::Array(numbers.into_iter().map(Value::Integer).collect())
                };
                Value::Array(keys.iter().map(version).collect())
            }
            Operation::CountInSlot(slot) => Value::Integer(self.keyspace.count_in_slot(slot, time) as i64),
            Operation::KeysInSlot(slot, count) => {
                let keys = self.keyspace.keys_in_slot(slot, count as usize, time);
                Value::Array(keys.into_iter().map(Value::bulk).collect())
            }
            Operation::HowFar => Value::Integer(self.group.applied_index().0 as i64),
            Operation::Transaction { .. } | Operation::Meta(_) | Operation::Durable { .. } => malformed(),
        })
    }

    fn read_wide(&self, cursor: u64, seed: u64, args: &[Bytes]) -> Value {
        let time = self.time.0;
        let bulks = |keys: Vec<Bytes>| Value::Array(keys.into_iter().map(Value::Bulk).collect());
        match Wide::parse(args) {
            Err(error) => error,
            Ok(Wide::Size) => Value::Integer(self.keyspace.len(time) as i64),
            Ok(Wide::Keys { pattern }) => bulks(self.keyspace.keys(&pattern, usize::MAX, time)),
            Ok(Wide::RandomKey) => {
                let key = self.keyspace.random_key(seed, time).map_or(Value::Null, Value::Bulk);
                Value::Array(alloc::vec![Value::Integer(self.keyspace.len(time) as i64), key])
            }
            Ok(Wide::Scan { filter, count, .. }) => {
                let (next, keys) = self.keyspace.scan(cursor, &filter, count, time);
                Value::Array(alloc::vec![Value::Integer(next as i64), bulks(keys)])
            }
        }
    }

    /// Answers WAIT and WAITAOF whose condition holds or whose time is over (R32).
    pub fn answer_durable_waits(&mut self, now: Millis, answers: &mut Answers) {
        let (group, Some(work)) = (&self.group, &mut self.work) else { return };
        let reached = |index: Index| {
            let replicas = group.followers().filter(|(_, accepted)| *accepted >= index).count() as u64;
            (replicas, group.own_durable_index() >= index)
        };
        work.answer_waits(reached, now, answers);
    }

    /// Whoever waited with this request has left.
    pub fn forget_wait(&mut self, origin: &Origin) {
        if let Some(work) = &mut self.work {
            work.forget_wait(origin);
        }
    }

    /// How many WAIT and WAITAOF are open.
    pub fn durable_waits(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.waits())
    }

    /// Whether a WAIT or WAITAOF is open.
    pub fn has_durable_waits(&self) -> bool {
        self.durable_waits() > 0
    }

    /// Reads that could not be confirmed.
    pub fn fail_reads(&mut self, failed: impl Iterator<Item = u64>, answers: &mut Answers) {
        for token in failed {
            if let Some(read) = self.work.as_mut().and_then(|work| work.take_read(token)) {
                answers.push((read.origin, Outcome::NotLeader { leader: None }));
            }
        }
    }

    /// Leadership is gone: what was proposed has an unknown fate, the rest was not proposed.
    pub fn stop_leading(&mut self, answers: &mut Answers) {
        if let Some(work) = &mut self.work {
            work.stop_leading(answers);
        }
    }

    /// At which index this replica's state differed from the others' without a majority that agreed, if it did when it
    /// was last compared (R24).
    pub fn states_differ(&self) -> Option<Index> {
        self.digests.differ()
    }

    /// The configuration that a snapshot of the applied state carries.
    pub fn applied_config(&self) -> Config {
        self.group.applied_config().clone()
    }
}

fn malformed() -> Value {
    Value::error("ERR internal: an operation between nodes could not be read, nothing was written")
}

/// Mixes a seed and a position into a fresh seed (R4; the finalizer of SplitMix64).
pub(crate) fn mix(seed: u64, position: u64) -> u64 {
    let mut z = seed.wrapping_add(position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
