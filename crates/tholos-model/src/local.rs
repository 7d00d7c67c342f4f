//! What one replica does when something happens to it.
//!
//! Everything that a driver does with a group is here: it hands events in, flushes, queues records, applies. The core is
//! a function of what it holds and of what happens to it, and a search comes by the same replica and the same event again
//! and again, in councils that differ elsewhere; so what came of them is kept ([`Memory`]), and each is run once.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;
use tholos_paxos::{AppendSeq, Change, Entry, Group, Millis, MoveId, Outbox, Record, ReplicaId, RoleChange};

use crate::state::{Envelope, Hears, Replica, command};

/// Something that happens to one replica.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A message arrives; if `lost`, the replica has lost its leader just before.
    Message { envelope: &'a Envelope, lost: bool },
    /// The oldest so many records are on disk.
    Durable { count: usize },
    /// Power is lost, and so many of the records on their way are on disk.
    Crash { kept: usize, nonce: u64 },
    /// The same, and then all that was on the disk is rotten.
    Rot { kept: usize, nonce: u64 },
    /// A follower or candidate stands, a leader falls silent.
    TimeOut,
    /// Time has passed and all is well.
    Tick,
    /// A command comes in.
    Propose { number: u8 },
    /// A read comes in.
    Read { token: u64 },
    /// It is asked to hand over.
    Transfer { to: ReplicaId },
    /// It is ordered to have one voter for another.
    Change { goes: ReplicaId, comes: ReplicaId },
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) replica: Arc<Replica>,
    pub(crate) sends: Vec<Arc<Envelope>>,
    pub(crate) appends: Vec<Record>,
    pub(crate) changes: Vec<RoleChange>,
    pub(crate) news: Vec<Entry>,
    pub(crate) reads_ready: Vec<u64>,
    pub(crate) reads_failed: Vec<u64>,
    /// The replica is another than before, or something has left it, an answer as well.
    pub(crate) changed: bool,
    /// What went wrong on the way: it says that its disk cannot be taken back, or that an assertion failed.
    pub(crate) wrong: Option<Wrong>,
}

#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    Recovery(&'static str),
    Assertion(String),
}

/// Outcomes known, by replica and event.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    outcomes: [Shard<(u64, u64), Outcome>; SHARDS],
    replicas: [Shard<u64, Replica>; SHARDS],
    envelopes: [Shard<u64, Envelope>; SHARDS],
}

type Shard<K, V> = Mutex<HashMap<K, Arc<V>, FixedState>>;

/// So many, that two threads seldom want the same.
const SHARDS: usize = 16;

impl Memory {
    /// What comes of `event` at `replica`, whose clock says `now`.
    pub(crate) fn outcome(&self, replica: &Arc<Replica>, event: Event, now: Millis) -> Arc<Outcome> {
        let key = (replica.fingerprint(), crate::state::fingerprint(&(event.fingerprint(), now)));
        let shard = &self.outcomes[((key.0 ^ key.1) % SHARDS as u64) as usize];
        if let Some(known) = shard.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(known);
        }
        // Not under the lock: two that run the same find the same.
        let outcome = Arc::new(self.run(replica, event, now));
        shard.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&outcome));
        outcome
    }

    fn run(&self, before: &Arc<Replica>, event: Event, now: Millis) -> Outcome {
        let mut replica = Replica::clone(before);
        let result = catch_unwind(AssertUnwindSafe(|| happen(&mut replica, event, now)));
        let (news, wrong) = match result {
            Ok(Ok(news)) => (news, None),
            Ok(Err(error)) => (Vec::new(), Some(Wrong::Recovery(error))),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| String::from(*text)));
                (Vec::new(), Some(Wrong::Assertion(text.unwrap_or_default())))
            }
        };
        let out = &mut replica.outbox;
        let (sends, appends) = (std::mem::take(&mut out.sends), std::mem::take(&mut out.appends));
        let changes = std::mem::take(&mut out.changes);
        let (reads_ready, reads_failed) =
            (std::mem::take(&mut out.reads_ready), std::mem::take(&mut out.reads_failed));
        // No log is trimmed, so nobody needs a snapshot.
        assert!(out.snapshots_wanted.is_empty(), "a snapshot is wanted, and none is modelled");
        replica.pending.extend(appends.iter().cloned());
        replica.seal();
        let me = replica.group.me();
        let sends = sends.into_iter().map(|(to, message)| Envelope::new(me, to, message));
        let sends: Vec<_> =
            sends.map(|envelope| kept(&self.envelopes, envelope.fingerprint(), envelope)).collect();
        let answered = !reads_ready.is_empty() || !reads_failed.is_empty();
        let changed = answered || !sends.is_empty() || replica.fingerprint() != before.fingerprint();
        let replica = kept(&self.replicas, replica.fingerprint(), replica);
        Outcome { replica, sends, appends, changes, news, reads_ready, reads_failed, changed, wrong }
    }
}

/// The one copy of `value` that all states share.
fn kept<V>(shards: &[Shard<u64, V>; SHARDS], fingerprint: u64, value: V) -> Arc<V> {
    let shard = &shards[(fingerprint % SHARDS as u64) as usize];
    let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(shard.entry(fingerprint).or_insert_with(|| Arc::new(value)))
}

/// The driver of one replica: the event, a flush, and all that is decided is applied.
fn happen(replica: &mut Replica, event: Event, now: Millis) -> Result<Vec<Entry>, &'static str> {
    match event {
        Event::Message { envelope, lost } => {
            let Replica { group, outbox, .. } = replica;
            if lost {
                group.handle_tick(now, &Hears::Nobody, outbox);
            }
            group.handle_message(envelope.from, envelope.message.clone(), now, outbox);
        }
        Event::Durable { count } => {
            let seq = write(replica, count)?;
            replica.group.handle_durable(seq, now, &mut replica.outbox);
        }
        Event::Crash { kept, nonce } => {
            stop(replica, kept)?;
            replica.group = replica.disk.clone();
            if replica.lost.is_some() && replica.disk.repair().is_none() {
                // The damage is found at each opening until something durable says that it is known.
                begin_rotten(replica, nonce, now);
            } else if replica.group.repair().is_some() {
                // Only a mute one will ever use it.
                replica.group.begin(nonce);
            }
            if replica.leases {
                replica.group.remember_grants(now);
            }
        }
        Event::Rot { kept, nonce } => {
            stop(replica, kept)?;
            replica.lost = Some(Arc::new(std::mem::replace(&mut replica.disk, Group::clone(&replica.blank))));
            begin_rotten(replica, nonce, now);
        }
        Event::TimeOut => time_out(&mut replica.group, now, &mut replica.outbox),
        Event::Tick => replica.group.handle_tick(now, &Hears::Everybody, &mut replica.outbox),
        Event::Propose { number } => {
            // A refusal changes nothing, and so is seen.
            let _ = replica.group.propose(command(number), now, 0, &mut replica.outbox);
        }
        Event::Read { token } => match replica.group.lease_until(now) {
            // A driver would look at its clock again before it answers (R13); here nothing comes between.
            Some(_) => replica.outbox.reads_ready.push(token),
            None => _ = replica.group.read(token),
        },
        Event::Transfer { to } => {
            replica.group.transfer(to, now, &mut replica.outbox);
        }
        Event::Change { goes, comes } => {
            let config = replica.group.config();
            let voters = config.voters.iter().map(|voter| if *voter == goes { comes } else { *voter });
            let change = Change {
                number: config.number,
                move_id: MoveId(1),
                voters: voters.collect(),
                learners: Vec::new(),
                used_up: ReplicaId(0),
            };
            let _ = replica.group.change_replicas(&change, now, &mut replica.outbox);
        }
    }
    replica.group.flush(now, &mut replica.outbox);
    let mut news = Vec::new();
    while let Some(entry) = replica.group.take_decided() {
        news.push(entry.clone());
    }
    Ok(news)
}

/// The oldest `count` records are on disk. An error says why they cannot follow what is there.
fn write(replica: &mut Replica, count: usize) -> Result<AppendSeq, &'static str> {
    for record in replica.pending.drain(..count) {
        let was_mute = replica.disk.repair().is_some();
        replica.disk.recover(record)?;
        if was_mute && replica.disk.repair().is_none() {
            // Repaired: it votes again, and what is on its disk now must do.
            replica.lost = None;
        }
    }
    Ok(AppendSeq(replica.outbox.last_seq().0 - replica.pending.len() as u64))
}

/// Power is lost: what was on its way is gone, but for the oldest `kept` records.
fn stop(replica: &mut Replica, kept: usize) -> Result<(), &'static str> {
    write(replica, kept)?;
    replica.pending.clear();
    replica.outbox = Outbox::default();
    Ok(())
}

fn begin_rotten(replica: &mut Replica, nonce: u64, now: Millis) {
    replica.group = Group::clone(&replica.blank);
    replica.group.lose(nonce, &mut replica.outbox);
    if replica.group.repair().is_some() {
        // It asks the others at once; when they answer is open.
        replica.group.handle_tick(now, &Hears::Everybody, &mut replica.outbox);
    }
}

fn time_out(group: &mut Group, now: Millis, out: &mut Outbox) {
    if group.leading().is_some() {
        group.handle_tick(now, &Hears::Nobody, out);
        return;
    }
    let hears = group.leader().map_or(Hears::Everybody, |ballot| Hears::EverybodyBut(ballot.replica));
    group.handle_tick(now, &hears, out);
    if out.sends.is_empty() {
        // That gave up a candidacy; who has given up stands again.
        group.handle_tick(now, &hears, out);
    }
}

impl Event<'_> {
    fn fingerprint(self) -> u64 {
        let (kind, detail) = match self {
            Event::Message { envelope, lost } => (u64::from(lost), envelope.fingerprint()),
            Event::Durable { count } => (2, count as u64),
            Event::Crash { kept, nonce } => (3, crate::state::fingerprint(&(kept, nonce))),
            Event::Rot { kept, nonce } => (9, crate::state::fingerprint(&(kept, nonce))),
            Event::TimeOut => (4, 0),
            Event::Tick => (5, 0),
            Event::Propose { number } => (6, number.into()),
            Event::Read { token } => (7, token),
            Event::Transfer { to } => (8, to.0.into()),
            Event::Change { goes, .. } => (10, goes.0.into()),
        };
        crate::state::fingerprint(&(kind, detail))
    }
}
