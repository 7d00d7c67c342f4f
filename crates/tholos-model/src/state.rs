//! What one state of a council is: its replicas, what is on its way, and what has been learnt.
//!
//! A state is small and shared with its neighbours: a step changes one replica and copies nothing of the others.
//! Whatever decides what can happen next is in its hash, the clock as well, which stands still but for leases (see [`crate`]).

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::FixedState;
use tholos_paxos::{
    Ballot, Config, Connectivity, Entry, Group, Index, LEASE, Message, Millis, Options, Outbox, Payload,
    Planted, Record, ReplicaId,
};

use crate::disk::{Disk, Image};

/// The clock at the beginning. All time-outs are zero, so that whoever is ticked finds that enough of it has passed; the clock
/// goes on only for leases ([`Budget::spans`]).
pub(crate) const BEGINNING: Millis = Millis(0);

/// How far the clock goes on in one step: a lease lasts a little longer than two of these for whoever has granted it, and
/// ends within the second for its leader.
pub(crate) const SPAN: Millis = Millis(LEASE.0 / 2);

/// One replica: its process, its disk, and what is between them.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) group: Group,
    /// What would come back if the machine lost its power now.
    pub(crate) disk: Disk,
    /// Records on their way to the disk, in order.
    pub(crate) pending: Vec<Record>,
    /// For each checkpoint among them how many records after it belong to it.
    pub(crate) belong: Vec<u64>,
    /// A snapshot on its way to its file.
    pub(crate) saving: Option<Image>,
    /// Numbers the appends of this boot; otherwise empty between steps.
    pub(crate) outbox: Outbox,
    /// The disk that rot took, until the replica is repaired: others have counted its votes for what was there.
    pub(crate) lost: Option<Arc<Group>>,
    /// The replica as it began, and as it begins again after rot.
    pub(crate) blank: Arc<Group>,
    /// It may have granted a lease that it does not remember after a crash (R14).
    pub(crate) leases: bool,
    fingerprint: u64,
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) parcel: Parcel,
    fingerprint: u64,
}

/// What is sent.
#[derive(Clone, Hash, Debug)]
pub(crate) enum Parcel {
    Message(Message),
    /// The file of a snapshot, whole: one that is cut off on its way is one that never arrives.
    Snapshot {
        /// The ballot in which it is given.
        ballot: Ballot,
        image: Image,
    },
}

/// How many steps of a kind are still to come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Budget {
    /// A candidacy begins, or a leader falls silent.
    pub time_outs: u8,
    /// A machine loses its power and starts again.
    pub crashes: u8,
    /// A machine loses its power, and all of its disk turns out to be rotten.
    pub rots: u8,
    /// A message arrives a second time.
    pub duplicates: u8,
    /// A leader or a follower repeats what seems lost, or tells marks that nothing carried.
    pub ticks: u8,
    /// A command is proposed.
    pub commands: u8,
    /// A read is asked for.
    pub reads: u8,
    /// A leader is asked to hand over.
    pub transfers: u8,
    /// A leader is ordered to change the replica set.
    pub changes: u8,
    /// Half a lease passes, on all clocks alike.
    pub spans: u8,
    /// A checkpoint is written for the log's sake, and the snapshot that it names.
    pub saves: u8,
    /// Applied entries are forgotten in memory.
    pub trims: u8,
}

/// What has been learnt by anybody, ever: the history that the invariants speak of.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Facts {
    /// The configuration at the beginning.
    pub(crate) founding: Config,
    /// One value at each index.
    pub(crate) decided: Vec<Entry>,
    /// For each of them the lowest ballot whose leader has found it decided, if that is to be known.
    pub(crate) learnt_in: Option<Vec<Ballot>>,
    /// Commands proposed so far; they are numbered from 1.
    pub(crate) proposed: u8,
    /// Who has led in which ballot.
    pub(crate) elected: Vec<Ballot>,
    /// Reads under way.
    pub(crate) reads: Vec<Read>,
    pub(crate) tokens: u64,
    /// Starts after a crash or rot, over all replicas; none has the same number as another.
    pub(crate) boots: u64,
    /// How many were answered; nothing depends on it, but a search without any is worth little.
    pub(crate) answered: u8,
    /// How many of them at once, by a lease.
    pub(crate) answered_by_lease: u8,
}

/// A read under way: what its answer must have seen at least.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Read {
    pub(crate) token: u64,
    pub(crate) at: ReplicaId,
    pub(crate) floor: Index,
}

/// A check that did not hold: which, and what was seen.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) seen: String,
}

/// One state of a council.
#[derive(Clone)]
pub struct State {
    pub(crate) replicas: Vec<Arc<Replica>>,
    /// In the order of their fingerprints: the network has none of its own.
    pub(crate) network: Vec<Arc<Envelope>>,
    pub(crate) facts: Facts,
    pub(crate) left: Budget,
    /// What all clocks say.
    pub(crate) now: Millis,
    pub(crate) broken: Option<Arc<Broken>>,
}

/// What one replica's failure detection says.
pub(crate) enum Hears {
    Everybody,
    EverybodyBut(ReplicaId),
    Nobody,
}

impl Connectivity for Hears {
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool {
        a == b
            || match self {
                Hears::Everybody => true,
                Hears::EverybodyBut(silent) => b != *silent,
                Hears::Nobody => false,
            }
    }
}

pub(crate) fn fingerprint(value: &impl Hash) -> u64 {
    FixedState::with_seed(0).hash_one(value)
}

/// The command of a number.
pub(crate) fn command(number: u8) -> Payload {
    const COMMANDS: [&[u8]; 5] = [b"command 0", b"command 1", b"command 2", b"command 3", b"command 4"];
    Payload::Batch(Bytes::from_static(COMMANDS[usize::from(number)]))
}

/// The number of a command; nothing if the payload is none.
pub(crate) fn number_of(payload: &Payload) -> Option<u8> {
    match payload {
        Payload::Batch(bytes) => bytes.last().map(|digit| digit - b'0'),
        _ => None,
    }
}

impl Replica {
    pub(crate) fn new(me: ReplicaId, config: Config, options: Options) -> Replica {
        let group = Group::new(me, config, options);
        let disk = Disk::new(group.clone(), options.planted == Planted::ReleasedEarly);
        let (blank, outbox) = (Arc::new(group.clone()), Outbox::default());
        let mut replica = Replica {
            group,
            disk,
            pending: Vec::new(),
            belong: Vec::new(),
            saving: None,
            outbox,
            lost: None,
            blank,
            leases: options.leases,
            fingerprint: 0,
        };
        replica.seal();
        replica
    }

    /// One that has joined, which is on its disk, and that knows no configuration.
    pub(crate) fn joined(me: ReplicaId, options: Options) -> Replica {
        let mut replica = Replica::new(me, Config::default(), options);
        replica.group = Group::join(me, options, &mut replica.outbox);
        let seq = replica.outbox.last_seq();
        for record in std::mem::take(&mut replica.outbox.appends) {
            replica.disk.whole.recover(record).expect("the first record follows nothing");
        }
        replica.group.handle_durable(seq, BEGINNING, &mut replica.outbox);
        replica.seal();
        replica
    }

    /// After a change: what it is now is what it will be known by.
    pub(crate) fn seal(&mut self) {
        let on_their_way = (&self.pending, &self.belong, &self.saving);
        self.fingerprint = fingerprint(&(&self.group, &self.disk, on_their_way, &self.lost));
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ", self.from, self.to)?;
        match &self.parcel {
            Parcel::Message(message) => write!(f, "{message:#}"),
            Parcel::Snapshot { ballot, image } => write!(f, "snapshot to {} in {ballot}", image.base.index),
        }
    }
}

impl Envelope {
    pub(crate) fn new(from: ReplicaId, to: ReplicaId, parcel: Parcel) -> Envelope {
        let fingerprint = fingerprint(&(from, to, &parcel));
        Envelope { from, to, parcel, fingerprint }
    }

    pub(crate) fn is_canvass(&self) -> bool {
        matches!(self.parcel, Parcel::Message(Message::Canvass { .. }))
    }

    pub(crate) fn is_sync(&self) -> bool {
        matches!(self.parcel, Parcel::Message(Message::Sync { .. }))
    }

    pub(crate) fn is_snapshot(&self) -> bool {
        matches!(self.parcel, Parcel::Snapshot { .. })
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl State {
    /// `spare`: one more has joined, which the founders do not know.
    pub(crate) fn new(voters: u32, spare: bool, options: Options, left: Budget) -> State {
        let config = Config::founding((1..=voters).map(ReplicaId).collect());
        let founders = config.voters.iter().map(|me| Replica::new(*me, config.clone(), options));
        let spare = spare.then(|| Replica::joined(ReplicaId(voters + 1), options));
        let replicas = founders.chain(spare).map(Arc::new).collect();
        State {
            replicas,
            network: Vec::new(),
            facts: Facts { founding: config, ..Facts::default() },
            left,
            now: BEGINNING,
            broken: None,
        }
    }

    pub(crate) fn replica(&self, id: ReplicaId) -> &Replica {
        self.shared(id)
    }

    pub(crate) fn shared(&self, id: ReplicaId) -> &Arc<Replica> {
        &self.replicas[id.0 as usize - 1]
    }

    pub(crate) fn shared_mut(&mut self, id: ReplicaId) -> &mut Arc<Replica> {
        &mut self.replicas[id.0 as usize - 1]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (1..=self.replicas.len() as u32).map(ReplicaId)
    }

    pub(crate) fn send(&mut self, envelope: Arc<Envelope>) {
        let at = self.network.partition_point(|known| known.fingerprint < envelope.fingerprint);
        self.network.insert(at, envelope);
    }

    pub(crate) fn break_with(&mut self, invariant: &'static str, seen: String) {
        if self.broken.is_none() {
            self.broken = Some(Arc::new(Broken { invariant, seen }));
        }
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.replicas.iter().for_each(|replica| to.write_u64(replica.fingerprint));
        to.write_usize(self.network.len());
        self.network.iter().for_each(|envelope| to.write_u64(envelope.fingerprint));
        self.facts.hash(to);
        self.left.hash(to);
        self.now.hash(to);
        self.broken.hash(to);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        fingerprint(self) == fingerprint(other)
    }
}
