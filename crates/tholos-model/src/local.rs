//! What one replica does when something happens to it.
//!
//! Everything that a driver does with a group is here: it hands events in, flushes, queues records, applies. The core is
//! a function of what it holds and of what happens to it, and a search comes by the same replica and the same event again
//! and again, in councils that differ elsewhere; so what came of them is kept ([`Memory`]), and each is run once.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::FixedState;
use tholos_paxos::{
    AppendSeq, Ballot, Change, Entry, Group, Index, Millis, MoveId, Outbox, Record, ReplicaId, RoleChange,
};

use crate::disk::Image;
use crate::state::{Envelope, Hears, Parcel, Replica, command};

/// Something that happens to one replica.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A message or a snapshot arrives; if `lost`, the replica has lost its leader just before.
    Arrival { envelope: &'a Envelope, lost: bool },
    /// The oldest so many records are on disk.
    Durable { count: usize },
    /// Power is lost, and so many of the records on their way are on disk; if `released`, all before the last checkpoint
    /// that counted was gone before.
    Crash { kept: usize, released: bool, nonce: u64 },
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
    /// It begins a checkpoint and the snapshot that it names.
    Save,
    /// The snapshot is in its file, and durable.
    Saved,
    /// It forgets applied entries up to here in memory.
    Trim { to: Index },
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
        let (done, wrong) = match result {
            Ok(Ok(done)) => (done, None),
            Ok(Err(error)) => (Done::default(), Some(Wrong::Recovery(error))),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| String::from(*text)));
                (Done::default(), Some(Wrong::Assertion(text.unwrap_or_default())))
            }
        };
        let Done { news, parcels } = done;
        let out = &mut replica.outbox;
        let (sends, appends) = (std::mem::take(&mut out.sends), std::mem::take(&mut out.appends));
        let changes = std::mem::take(&mut out.changes);
        let (reads_ready, reads_failed) =
            (std::mem::take(&mut out.reads_ready), std::mem::take(&mut out.reads_failed));
        replica.pending.extend(appends.iter().cloned());
        replica.seal();
        let me = replica.group.me();
        let messages = sends.into_iter().map(|(to, message)| (to, Parcel::Message(message)));
        let sends = messages.chain(parcels).map(|(to, parcel)| Envelope::new(me, to, parcel));
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

/// What a driver has made of an event, besides what is in the outbox.
#[derive(Default)]
struct Done {
    news: Vec<Entry>,
    parcels: Vec<(ReplicaId, Parcel)>,
}

/// The driver of one replica: the event, a flush, all that is decided is applied, and whoever needs a snapshot is sent one.
fn happen(replica: &mut Replica, event: Event, now: Millis) -> Result<Done, &'static str> {
    match event {
        Event::Arrival { envelope, lost } => {
            let Replica { group, outbox, .. } = replica;
            if lost {
                group.handle_tick(now, &Hears::Nobody, outbox);
            }
            match &envelope.parcel {
                Parcel::Message(message) => {
                    group.handle_message(envelope.from, message.clone(), now, outbox);
                }
                Parcel::Snapshot { ballot, image } => install(replica, *ballot, image, now),
            }
        }
        Event::Durable { count } => {
            let seq = write(replica, count)?;
            replica.group.handle_durable(seq, now, &mut replica.outbox);
        }
        Event::Crash { kept, released, nonce } => {
            if released {
                replica.disk.release()?;
            }
            stop(replica, kept)?;
            replica.group = replica.disk.whole.clone();
            if replica.lost.is_some() && replica.group.repair().is_none() {
                if released {
                    // What was damaged is not needed any more, so nothing is found: it votes with what it has.
                    replica.lost = None;
                } else {
                    // The damage is found at each opening until something durable says that it is known.
                    begin_rotten(replica, nonce, now);
                }
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
            replica.lost =
                Some(Arc::new(std::mem::replace(&mut replica.disk.whole, Group::clone(&replica.blank))));
            replica.disk.reopen();
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
        Event::Save => _ = begin_image(replica),
        Event::Saved => {
            if let Some(image) = replica.saving.take() {
                replica.disk.save(image);
            }
        }
        Event::Trim { to } => replica.group.trim(to),
    }
    replica.group.flush(now, &mut replica.outbox);
    let mut news = Vec::new();
    while let Some(entry) = replica.group.take_decided() {
        news.push(entry.clone());
    }
    let mut wanted = std::mem::take(&mut replica.outbox.snapshots_wanted);
    wanted.dedup();
    let parcels = wanted.into_iter().filter_map(|to| Some((to, snapshot_for(replica, to)?)));
    Ok(Done { news, parcels: parcels.collect() })
}

/// The checkpoint comes first, and the image is written behind it; with nothing new to write the records alone move.
fn begin_image(replica: &mut Replica) -> Image {
    let image = Image::of(&replica.group);
    let before = replica.outbox.last_seq();
    let last = replica.group.append_checkpoint(image.base, image.config.clone(), &mut replica.outbox);
    replica.belong.push(last.0 - before.0 - 1);
    let index = replica.disk.file.as_ref().map_or(Index::ZERO, |file| file.base.index);
    if image.base.index != index {
        replica.saving = Some(image.clone());
    }
    image
}

/// A snapshot from a leader is durable in a file of its own.
fn install(replica: &mut Replica, ballot: Ballot, image: &Image, now: Millis) {
    let Replica { group, outbox, .. } = replica;
    let before = outbox.last_seq();
    if let Some(last) = group.install(ballot, image.base, image.config.clone(), now, outbox) {
        replica.belong.push(last.0 - before.0 - 1);
        // What was being written is of the state before.
        replica.saving = None;
        replica.disk.save(image.clone());
    }
}

/// What a driver sends to a replica that needs a snapshot: the one being written or the last one, if what follows it is in
/// memory, else a new one.
fn snapshot_for(replica: &mut Replica, to: ReplicaId) -> Option<Parcel> {
    let ballot = replica.group.snapshots_in(|receiver| receiver == to)?;
    if replica.group.applied_index() == Index::ZERO {
        return None;
    }
    let known = replica.saving.as_ref().or(replica.disk.file.as_ref());
    let image = match known.filter(|image| replica.group.resends_after(image.base.index)) {
        Some(image) => image.clone(),
        None if replica.saving.is_none() => begin_image(replica),
        // When that one is done, if it is asked for again.
        None => return None,
    };
    Some(Parcel::Snapshot { ballot, image })
}

/// The oldest `count` records are on disk. An error says why they cannot follow what is there.
fn write(replica: &mut Replica, count: usize) -> Result<AppendSeq, &'static str> {
    for record in replica.pending.drain(..count) {
        let was_mute = replica.disk.whole.repair().is_some();
        let is_checkpoint = matches!(record, Record::Checkpoint(_));
        let belong = if is_checkpoint { replica.belong.remove(0) } else { 0 };
        replica.disk.write(record, &replica.blank, belong)?;
        if was_mute && replica.disk.whole.repair().is_none() {
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
    replica.belong.clear();
    replica.saving = None;
    replica.disk.reopen();
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
            Event::Arrival { envelope, lost } => (u64::from(lost), envelope.fingerprint()),
            Event::Durable { count } => (2, count as u64),
            Event::Crash { kept, released, nonce } => {
                (3, crate::state::fingerprint(&(kept, released, nonce)))
            }
            Event::Rot { kept, nonce } => (9, crate::state::fingerprint(&(kept, nonce))),
            Event::TimeOut => (4, 0),
            Event::Tick => (5, 0),
            Event::Propose { number } => (6, number.into()),
            Event::Read { token } => (7, token),
            Event::Transfer { to } => (8, to.0.into()),
            Event::Change { goes, .. } => (10, goes.0.into()),
            Event::Save => (11, 0),
            Event::Saved => (12, 0),
            Event::Trim { to } => (13, to.0),
        };
        crate::state::fingerprint(&(kind, detail))
    }
}
