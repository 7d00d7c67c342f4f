//! A council in memory: N replicas of one group, a network and disks that do only what they are told.
//!
//! Nothing happens by itself: a message arrives when it is delivered, a record is durable when the test
//! says so, a crash leaves durable records and snapshot files and nothing else. After every step the
//! checks of [`Facts`] have been made.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use bytes::Bytes;
use tholos_paxos::{
    AppendSeq, Ballot, Base, Change, ChangeError, Config, Connectivity, Entry, Group, Index, Message, Millis,
    MoveId, Options, Outbox, Payload, ProposeError, Record, ReplicaId, RoleChange,
};

/// What is on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: ReplicaId,
    pub to: ReplicaId,
    pub parcel: Parcel,
}

#[derive(Clone, Debug)]
pub enum Parcel {
    Message(Message),
    /// Stands for the chunks of a snapshot, which the protocol leaves to its driver.
    Snapshot {
        ballot: Ballot,
        file: SnapshotFile,
    },
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ", self.from, self.to)?;
        match &self.parcel {
            Parcel::Message(message) => write!(f, "{message:#}"),
            Parcel::Snapshot { ballot, file } => write!(f, "Snapshot {ballot} to {}", file.base.index),
        }
    }
}

/// A durable snapshot: what was applied, whole.
#[derive(Clone, Debug, Default)]
pub struct SnapshotFile {
    pub base: Base,
    pub config: Config,
    pub state: Vec<Entry>,
}

/// What outlives a crash, and what is on its way there.
#[derive(Default)]
pub struct Disk {
    pub durable: Vec<Record>,
    pub pending: VecDeque<Record>,
    files: BTreeMap<Index, SnapshotFile>,
    /// Of this boot.
    seq: AppendSeq,
    /// The origin of each entry in the durable log, and up to where a durable snapshot covers it.
    origins: BTreeMap<Index, Ballot>,
    covered: Index,
    /// What rot took of a replica that has not been repaired yet: others counted its votes for that.
    rotten: Option<(BTreeMap<Index, Ballot>, Index)>,
}

pub struct Replica {
    pub id: ReplicaId,
    /// `None` while it is down.
    pub group: Option<Group>,
    outbox: Outbox,
    pub disk: Disk,
    /// What was applied, from index 1 on.
    pub state: Vec<Entry>,
    decided_max: Index,
}

/// What is true of the whole council, checked as it is learnt.
#[derive(Default)]
pub struct Facts {
    /// The configurations decided, the founding one first, each with its index.
    pub configs: Vec<(Index, Config)>,
    /// Agreement: one value at each index, whoever learns it and when.
    pub decided: Vec<Entry>,
    /// Validity: what was proposed.
    proposed: BTreeSet<u64>,
    /// One leader to a ballot, and once.
    elected: BTreeSet<Ballot>,
    /// Reads under way: what each must see at least.
    floors: BTreeMap<u64, Index>,
    pub reads_ready: Vec<u64>,
    pub reads_failed: Vec<u64>,
    /// Replicas that had lost everything and count again.
    pub repaired: u64,
    next_value: u64,
    next_token: u64,
}

pub struct Council {
    pub now: Millis,
    /// How many replicas founded it; those after them have joined.
    founders: u32,
    pub options: Options,
    pub replicas: Vec<Replica>,
    pub network: VecDeque<Envelope>,
    /// `cut[a][b]`: what a sends to b is lost.
    pub cut: Vec<Vec<bool>>,
    /// `held[a][b]`: what a sends to b waits in the network.
    pub held: Vec<Vec<bool>>,
    /// `deaf[a][b]`: failure detection of a says that b is silent, whether it is or not.
    pub deaf: Vec<Vec<bool>>,
    pub facts: Facts,
    nonces: u64,
    /// What happened, in our notation; kept only if asked for.
    pub trace: Option<Vec<String>>,
}

/// What one replica's failure detection says.
pub struct View<'a> {
    deaf: &'a [Vec<bool>],
    cut: &'a [Vec<bool>],
    up: &'a [bool],
}

impl Connectivity for View<'_> {
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let (a, b) = (a.0 as usize - 1, b.0 as usize - 1);
        // One that was proposed may not be there yet.
        let here = a.max(b) < self.up.len();
        here && (a == b || (self.up[b] && !self.cut[b][a] && !self.deaf[a][b]))
    }
}

pub fn replica(number: u32) -> ReplicaId {
    ReplicaId(number)
}

pub fn ballot(round: u64, number: u32) -> Ballot {
    Ballot { round, replica: ReplicaId(number) }
}

pub fn value(number: u64) -> Payload {
    Payload::Batch(Bytes::from(format!("value {number}")))
}

pub fn number_of(payload: &Payload) -> Option<u64> {
    match payload {
        Payload::Batch(bytes) => {
            let text = std::str::from_utf8(bytes).expect("a text");
            Some(text.strip_prefix("value ")?.parse().expect("a number"))
        }
        _ => None,
    }
}

/// All of them, in full.
pub fn entries(entries: &[Entry]) -> String {
    let all: Vec<String> = entries.iter().map(|entry| format!("{entry:#}")).collect();
    format!("[{}]", all.join(", "))
}

impl Council {
    pub fn new(replicas: u32, options: Options) -> Council {
        let config = Council::config(replicas);
        let size = replicas as usize;
        Council {
            now: Millis(1_000),
            founders: replicas,
            options,
            replicas: (1..=replicas)
                .map(|number| Replica {
                    id: ReplicaId(number),
                    group: Some(Group::new(ReplicaId(number), config.clone(), options)),
                    outbox: Outbox::default(),
                    disk: Disk::default(),
                    state: Vec::new(),
                    decided_max: Index::ZERO,
                })
                .collect(),
            network: VecDeque::new(),
            cut: vec![vec![false; size]; size],
            held: vec![vec![false; size]; size],
            deaf: vec![vec![false; size]; size],
            facts: Facts { configs: vec![(Index::ZERO, Council::config(replicas))], ..Facts::default() },
            nonces: 0,
            trace: None,
        }
    }

    /// One more replica, which joins under the next id.
    pub fn join(&mut self) -> ReplicaId {
        let id = ReplicaId(self.size() as u32 + 1);
        for rows in [&mut self.cut, &mut self.held, &mut self.deaf] {
            rows.iter_mut().for_each(|row| row.push(false));
            rows.push(vec![false; id.0 as usize]);
        }
        let mut outbox = Outbox::default();
        let group = Some(Group::join(id, self.options, &mut outbox));
        let (disk, state) = (Disk::default(), Vec::new());
        self.replicas.push(Replica { id, group, outbox, disk, state, decided_max: Index::ZERO });
        self.carry_out(id);
        id
    }

    /// Orders a change of the replica set of the leader `id`; replicas that are named and not there join.
    pub fn change(&mut self, id: ReplicaId, voters: &[u32], learners: &[u32]) -> Result<Index, ChangeError> {
        let number = self.at(id).group.as_ref().map_or(0, |group| group.config().number);
        self.change_from(number, id, voters, learners)
    }

    /// The same by an order that was made for the configuration `number`.
    pub fn change_from(
        &mut self,
        number: u64,
        id: ReplicaId,
        voters: &[u32],
        learners: &[u32],
    ) -> Result<Index, ChangeError> {
        while voters.iter().chain(learners).any(|replica| *replica as usize > self.size()) {
            self.join();
        }
        let ids = |replicas: &[u32]| replicas.iter().copied().map(ReplicaId).collect();
        let change = Change { number, move_id: MoveId(number), voters: ids(voters), learners: ids(learners) };
        let mut result = Err(ChangeError::Refused(ProposeError::NotServing));
        self.with(id, |group, now, _, out| {
            let latest = group.config().number;
            result = group.change_replicas(&change, now, out);
            assert!(
                result.is_err() || number == latest,
                "R7: an order for {number}, but {latest} was in force"
            );
        });
        result
    }

    /// The configuration decided last, as far as anybody knows.
    pub fn decided_config(&self) -> &Config {
        &self.facts.configs.last().expect("the founding one").1
    }

    pub fn config(replicas: u32) -> Config {
        Config::founding((1..=replicas).map(ReplicaId).collect())
    }

    pub fn traced(replicas: u32, options: Options) -> Council {
        Council { trace: Some(Vec::new()), ..Council::new(replicas, options) }
    }

    /// What happened since the last call.
    pub fn take_trace(&mut self) -> Vec<String> {
        self.trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    pub fn size(&self) -> usize {
        self.replicas.len()
    }

    pub fn at(&mut self, id: ReplicaId) -> &mut Replica {
        &mut self.replicas[id.0 as usize - 1]
    }

    /// The group of a replica that is up.
    pub fn group(&mut self, number: u32) -> &mut Group {
        self.at(ReplicaId(number)).group.as_mut().expect("the replica is up")
    }

    pub fn ids(&self) -> Vec<ReplicaId> {
        self.replicas.iter().map(|replica| replica.id).collect()
    }

    pub fn is_up(&self, id: ReplicaId) -> bool {
        self.replicas[id.0 as usize - 1].group.is_some()
    }

    /// The replica that serves in the highest ballot.
    pub fn server(&self) -> Option<ReplicaId> {
        let groups = self.replicas.iter().filter_map(|replica| Some((replica.id, replica.group.as_ref()?)));
        let serving = groups.filter(|(_, group)| group.serving());
        serving.max_by_key(|(_, group)| group.leading()).map(|(id, _)| id)
    }

    // --- Events. -----------------------------------------------------------------------------

    /// Something happens to a replica; then its driver flushes and carries out. Nothing happens to
    /// one that is down.
    fn with<T: Default>(
        &mut self,
        id: ReplicaId,
        event: impl FnOnce(&mut Group, Millis, &View, &mut Outbox) -> T,
    ) -> T {
        let result = self.step(id, event);
        self.carry_out(id);
        result
    }

    fn step<T: Default>(
        &mut self,
        id: ReplicaId,
        event: impl FnOnce(&mut Group, Millis, &View, &mut Outbox) -> T,
    ) -> T {
        let up: Vec<bool> = self.replicas.iter().map(|replica| replica.group.is_some()).collect();
        let view = View { deaf: &self.deaf, cut: &self.cut, up: &up };
        let replica = &mut self.replicas[id.0 as usize - 1];
        let Some(group) = &mut replica.group else { return T::default() };
        event(group, self.now, &view, &mut replica.outbox)
    }

    pub fn tick(&mut self, id: ReplicaId) {
        self.with(id, |group, now, view, out| group.handle_tick(now, view, out));
    }

    pub fn tick_all(&mut self, millis: u64) {
        self.now = self.now.plus(Millis(millis));
        for id in self.ids() {
            self.tick(id);
        }
    }

    pub fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, parcel } = envelope;
        match parcel {
            Parcel::Message(message) => {
                self.with(to, |group, now, _, out| group.handle_message(from, message, now, out));
            }
            Parcel::Snapshot { ballot, file } => self.deliver_snapshot(to, ballot, file),
        }
    }

    fn deliver_snapshot(&mut self, to: ReplicaId, ballot: Ballot, file: SnapshotFile) {
        if !self.is_up(to) {
            return;
        }
        // The file is durable before the record that names it (R22).
        self.at(to).disk.files.insert(file.base.index, file.clone());
        let installed = self
            .step(to, |group, now, _, out| group.install(ballot, file.base, file.config.clone(), now, out));
        if installed.is_some() {
            self.say(|| format!("{to} installs a snapshot to {}", file.base.index));
            self.at(to).state = file.state;
        }
        self.carry_out(to);
    }

    /// Makes the oldest `count` of the records asked for durable.
    pub fn make_durable(&mut self, id: ReplicaId, count: usize) {
        let disk = &mut self.at(id).disk;
        let count = count.min(disk.pending.len());
        if count == 0 {
            return;
        }
        for _ in 0..count {
            disk.sync_one();
        }
        let seq = disk.seq;
        self.with(id, |group, now, _, out| group.handle_durable(seq, now, out));
    }

    pub fn crash(&mut self, id: ReplicaId) {
        self.say(|| format!("{id} crashes"));
        let replica = self.at(id);
        replica.group = None;
        replica.disk.pending.clear();
        replica.state.clear();
        // What it was asked to read gets no answer.
        replica.outbox = Outbox::default();
    }

    pub fn restart(&mut self, id: ReplicaId) {
        if self.is_up(id) {
            return;
        }
        let disk = &self.at(id).disk;
        if disk.rotten.is_some() && !disk.durable.iter().any(|record| matches!(record, Record::Muted { .. }))
        {
            // The damage is found at each opening until something durable says that it is known.
            return self.rot(id);
        }
        self.say(|| format!("{id} restarts"));
        let (founders, options) = (self.founders, self.options);
        let nonce = self.fresh_nonce();
        let replica = self.at(id);
        let joins_again = id.0 > founders && replica.disk.durable.is_empty();
        let mut group = match id.0 > founders {
            // It died before anything of it was durable, so nobody has heard anything that binds it.
            true if joins_again => Group::join(id, options, &mut replica.outbox),
            true => Group::new(id, Config::default(), options),
            false => Group::new(id, Council::config(founders), options),
        };
        for record in &replica.disk.durable {
            group.recover(record.clone()).expect("durable records follow each other");
        }
        group.begin(nonce);
        replica.disk.seq = AppendSeq(0);
        replica.state = match group.base().index {
            Index::ZERO => Vec::new(),
            index => replica.disk.files[&index].state.clone(),
        };
        replica.decided_max = group.decided_index();
        replica.group = Some(group);
        self.carry_out(id);
    }

    /// Restarts a replica that is down, with all of its disk rotten but for what its driver can tell of it.
    pub fn rot(&mut self, id: ReplicaId) {
        assert!(!self.is_up(id), "{id} is up");
        self.say(|| format!("{id} restarts and finds rot"));
        let (config, options) = (Council::config(self.size() as u32), self.options);
        let nonce = self.fresh_nonce();
        let replica = self.at(id);
        let mut group = Group::new(id, config, options);
        let disk = std::mem::take(&mut replica.disk);
        replica.disk.rotten = disk.rotten.or(Some((disk.origins, disk.covered)));
        // A file that no record names any more may still be there.
        replica.disk.files = disk.files;
        replica.decided_max = Index::ZERO;
        group.lose(nonce, &mut replica.outbox);
        replica.group = Some(group);
        self.carry_out(id);
    }

    /// Whether a replica has lost records and is not repaired, running or not.
    pub fn is_mute(&self, id: ReplicaId) -> bool {
        let replica = &self.replicas[id.0 as usize - 1];
        replica.disk.rotten.is_some() || replica.group.as_ref().is_some_and(|group| group.repair().is_some())
    }

    fn fresh_nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
    }

    /// Proposes the next value. `None`: refused.
    pub fn propose(&mut self, id: ReplicaId) -> Option<Index> {
        self.try_propose(id).ok()
    }

    pub fn try_propose(&mut self, id: ReplicaId) -> Result<Index, ProposeError> {
        self.facts.next_value += 1;
        let number = self.facts.next_value;
        self.facts.proposed.insert(number);
        let mut result = Err(ProposeError::NotServing);
        self.with(id, |group, now, _, out| {
            result = group.propose(value(number), now, number, out);
        });
        result
    }

    /// Asks for a read and returns its token, if the replica took it.
    pub fn read(&mut self, id: ReplicaId) -> Option<u64> {
        let token = self.facts.next_token + 1;
        // Everything that anybody knows to be decided by now must be seen (R15).
        let floor = Index(self.facts.decided.len() as u64);
        self.facts.floors.insert(token, floor);
        let taken = self.with(id, |group, _, _, _| group.read(token));
        if taken {
            self.facts.next_token = token;
        }
        taken.then_some(token)
    }

    pub fn transfer(&mut self, from: ReplicaId, to: ReplicaId) -> bool {
        self.with(from, |group, now, _, out| group.transfer(to, now, out))
    }

    /// Saves what is applied as a snapshot, asks for a checkpoint, and forgets the entries if
    /// `trim`. Entries may be forgotten at once: they are still in the durable log.
    pub fn snapshot(&mut self, id: ReplicaId, trim: bool) {
        let Some(file) = self.snapshot_file(id) else { return };
        self.say(|| format!("{id} saves a snapshot to {}", file.base.index));
        self.at(id).disk.files.insert(file.base.index, file.clone());
        self.with(id, |group, _, _, out| {
            group.append_checkpoint(file.base, file.config.clone(), out);
            if trim {
                group.trim(file.base.index);
            }
        });
    }

    fn snapshot_file(&mut self, id: ReplicaId) -> Option<SnapshotFile> {
        let replica = self.at(id);
        let group = replica.group.as_ref()?;
        let base = group.applied_base();
        if base.index == Index::ZERO {
            return None;
        }
        Some(SnapshotFile { base, config: group.applied_config().clone(), state: replica.state.clone() })
    }

    /// Two logs accepted in one ballot: one is a prefix of the other (R1).
    fn check_prefix(&self, id: ReplicaId) {
        let Some(group) = &self.replicas[id.0 as usize - 1].group else { return };
        for other in self.replicas.iter().filter(|other| other.id != id) {
            let Some(their) = &other.group else { continue };
            if their.accepted_ballot() != group.accepted_ballot() {
                continue;
            }
            let first = group.base().index.max(their.base().index).0;
            let last = group.accepted_index().min(their.accepted_index()).0;
            for at in (first + 1..=last).map(Index) {
                let (mine, yours) = (group.entry(at), their.entry(at));
                assert_eq!(
                    mine,
                    yours,
                    "{id} and {} differ at {at} in {}",
                    other.id,
                    group.accepted_ballot()
                );
            }
        }
    }

    // --- Effects. ----------------------------------------------------------------------------

    fn carry_out(&mut self, id: ReplicaId) {
        let now = self.now;
        let replica = self.at(id);
        let Some(group) = &mut replica.group else { return };
        let out = &mut replica.outbox;
        group.flush(now, out);
        let appends = std::mem::take(&mut out.appends);
        let sends = std::mem::take(&mut out.sends);
        let ready = std::mem::take(&mut out.reads_ready);
        let failed = std::mem::take(&mut out.reads_failed);
        let wanted = std::mem::take(&mut out.snapshots_wanted);
        let changes = std::mem::take(&mut out.changes);
        let mut news = Vec::new();
        while let Some(entry) = group.take_decided() {
            replica.state.push(entry.clone());
            news.push(entry);
        }
        let (promised, accepted) = (group.promised(), group.accepted_ballot());
        assert!(promised >= accepted, "P1: {id} has promised {promised} and accepted in {accepted}");
        let decided = group.decided_index();
        assert!(decided >= replica.decided_max, "{id}: decided {} falls to {decided}", replica.decided_max);
        replica.decided_max = decided;
        for record in appends {
            self.say(|| format!("{id} appends {record:#}"));
            self.check_change(id, &record);
            self.at(id).disk.pending.push_back(record);
        }
        for change in changes {
            self.say(|| format!("{id} {change}"));
            if let RoleChange::Elected(ballot) = change {
                assert_eq!(ballot.replica, id, "{id} leads in another's ballot");
                assert!(self.facts.elected.insert(ballot), "{ballot} leads twice");
            }
        }
        for (to, message) in sends {
            self.send(Envelope { from: id, to, parcel: Parcel::Message(message) });
        }
        if !news.is_empty() {
            self.say(|| format!("{id} applies {}", entries(&news)));
        }
        for entry in news {
            self.learn(id, entry);
        }
        for to in wanted {
            // Only leaders give snapshots; this one may have let go since it was asked.
            let Some(ballot) = self.at(id).group.as_ref().and_then(Group::leading) else { continue };
            if let Some(file) = self.snapshot_file(id) {
                self.send(Envelope { from: id, to, parcel: Parcel::Snapshot { ballot, file } });
            }
        }
        for token in ready {
            self.say(|| format!("{id} answers read {token}"));
            let floor = self.facts.floors[&token];
            let applied = Index(self.at(id).state.len() as u64);
            assert!(applied >= floor, "{id} answers a stale read: {applied}, but {floor} was decided before");
            self.facts.reads_ready.push(token);
        }
        for token in failed {
            self.say(|| format!("{id} cannot answer read {token}"));
            self.facts.reads_failed.push(token);
        }
        self.check_prefix(id);
        self.note_repaired(id);
    }

    /// A replica that counts again must have everything that was decided with its lost votes.
    fn note_repaired(&mut self, id: ReplicaId) {
        let replica = self.at(id);
        let mute = replica.group.as_ref().is_none_or(|group| group.repair().is_some());
        if mute || replica.disk.rotten.is_none() || !replica.disk.pending.is_empty() {
            return;
        }
        replica.disk.rotten = None;
        self.say(|| format!("{id} is repaired"));
        self.facts.repaired += 1;
        self.check_all_on_majority();
    }

    fn send(&mut self, envelope: Envelope) {
        self.say(|| envelope.to_string());
        self.network.push_back(envelope);
    }

    /// `entry` is decided, says `id`: the first to say so sets it for all.
    fn learn(&mut self, id: ReplicaId, entry: Entry) {
        let at = entry.index.0 as usize - 1;
        if let Some(known) = self.facts.decided.get(at) {
            assert_eq!(*known, entry, "agreement: {id} decided another value");
            return;
        }
        assert_eq!(self.facts.decided.len(), at, "{id} decided {} before what is below", entry.index);
        let last_time = self.facts.decided.last().map_or(Millis(0), |last| last.time);
        assert!(entry.time >= last_time, "time runs back at {}", entry.index);
        if let Some(number) = number_of(&entry.payload) {
            assert!(self.facts.proposed.remove(&number), "validity: {number} was not proposed, or twice");
        }
        self.check_on_majority(&entry, self.decided_config());
        if let Payload::Config(config) = &entry.payload {
            self.check_on_majority(&entry, config);
            let last = self.decided_config();
            assert_eq!(config.number, last.number + 1, "R7: configurations are numbered");
            let old = |replica: &&ReplicaId| !last.names(**replica);
            for new in config.voters.iter().chain(&config.learners).filter(old) {
                assert!(*new > last.last_replica, "R7: the id {new} comes back");
            }
            self.facts.configs.push((entry.index, config.clone()));
        }
        self.facts.decided.push(entry);
    }

    /// R6: a leader proposes a Config only when the last one is decided.
    fn check_change(&self, id: ReplicaId, record: &Record) {
        let Record::Accepted { entries, .. } = record else { return };
        for entry in entries.iter().filter(|entry| entry.origin.replica == id) {
            if let Payload::Config(config) = &entry.payload {
                let last = self.decided_config().number;
                assert!(
                    config.number <= last + 1,
                    "R6: {} is proposed before {last} is decided",
                    config.number
                );
            }
        }
    }

    /// Durability: what is decided is on the disks of a majority of the configuration in force.
    fn check_on_majority(&self, entry: &Entry, config: &Config) {
        let holds = |replica: ReplicaId| self.replicas[replica.0 as usize - 1].disk.holds(entry);
        assert!(config.majority(holds), "{} is decided but not on a majority's disks", entry.index);
    }

    pub fn check_all_on_majority(&self) {
        for entry in &self.facts.decided {
            self.check_on_majority(entry, self.decided_config());
        }
    }

    // --- Whole rounds. -----------------------------------------------------------------------

    /// Delivers every message of which the test does not say `false`; those are lost, as are
    /// those over a cut. New messages wait for the next call. Returns how many there were.
    pub fn deliver_where(&mut self, wanted: impl Fn(&Envelope) -> bool) -> usize {
        let all = std::mem::take(&mut self.network);
        let count = all.len();
        for envelope in all {
            let (from, to) = (envelope.from.0 as usize - 1, envelope.to.0 as usize - 1);
            if self.held[from][to] {
                self.network.push_back(envelope);
            } else if !self.cut[from][to] && wanted(&envelope) {
                self.deliver(envelope);
            }
        }
        count
    }

    pub fn is_cut(&self, envelope: &Envelope) -> bool {
        self.cut[envelope.from.0 as usize - 1][envelope.to.0 as usize - 1]
    }

    pub fn sync_all(&mut self) {
        for id in self.ids() {
            self.make_durable(id, usize::MAX);
        }
    }

    /// Messages and disks go on until nothing is under way. Time stands still.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            self.sync_all();
            let quiet = self.network.is_empty()
                && self.replicas.iter().all(|replica| replica.disk.pending.is_empty());
            if quiet {
                return;
            }
            self.deliver_where(|_| true);
        }
        panic!("messages without end: {:?}", self.network.iter().take(4).collect::<Vec<_>>());
    }

    /// The same, where some of what is under way is held back.
    fn settle_but_held(&mut self) {
        for _ in 0..10_000 {
            self.sync_all();
            let held =
                |envelope: &Envelope| self.held[envelope.from.0 as usize - 1][envelope.to.0 as usize - 1];
            if self.network.iter().all(held)
                && self.replicas.iter().all(|replica| replica.disk.pending.is_empty())
            {
                return;
            }
            self.deliver_where(|_| true);
        }
        panic!("messages without end");
    }

    /// Time passes in ticks of 10 ms, each settled.
    pub fn run(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            self.tick_all(10);
            self.settle();
        }
    }

    /// For tests that make up messages: these values count as proposed.
    pub fn facts_propose(&mut self, numbers: impl IntoIterator<Item = u64>) {
        self.facts.proposed.extend(numbers);
    }

    /// Makes one replica lead.
    pub fn elect(&mut self, number: u32) -> Ballot {
        self.elect_but(number, 0)
    }

    /// Makes one replica lead while for another one time stands still.
    pub fn elect_but(&mut self, number: u32, still: u32) -> Ballot {
        let id = ReplicaId(number);
        for _ in 0..100 {
            self.now = self.now.plus(Millis(10));
            for other in self.ids().into_iter().filter(|other| other.0 != still) {
                self.tick(other);
            }
            // The others notice, too, but their own candidacies get nowhere.
            self.network.retain(|envelope| {
                let canvass = matches!(envelope.parcel, Parcel::Message(Message::Canvass { .. }));
                envelope.from == id || !canvass
            });
            self.settle_but_held();
            if let Some(ballot) = self.group(number).leading()
                && self.group(number).serving()
            {
                self.tick(id);
                self.settle_but_held();
                return ballot;
            }
        }
        panic!("{id} was not elected");
    }

    /// Nothing is cut and nobody deaf from here on.
    pub fn heal_links(&mut self) {
        for row in self.cut.iter_mut().chain(&mut self.held).chain(&mut self.deaf) {
            row.fill(false);
        }
    }

    /// Nothing is cut and nobody deaf or down from here on.
    pub fn heal(&mut self) {
        self.heal_links();
        for id in self.ids() {
            self.restart(id);
        }
    }

    /// No message passes between these two, and neither hears the other.
    pub fn cut_between(&mut self, a: u32, b: u32) {
        let (a, b) = (a as usize - 1, b as usize - 1);
        self.cut[a][b] = true;
        self.cut[b][a] = true;
    }

    /// What is sent to this replica is late, and the others do not hear it, or no longer so: a leader
    /// grows old without knowing.
    pub fn age(&mut self, at: usize, old: bool) {
        for row in &mut self.held {
            row[at] = old;
        }
        for row in &mut self.deaf {
            row[at] = old;
        }
    }

    /// Cuts every connection of a replica.
    pub fn isolate(&mut self, number: u32) {
        for other in 1..=self.size() as u32 {
            if other != number {
                self.cut_between(number, other);
            }
        }
    }
}

impl Disk {
    fn sync_one(&mut self) {
        let record = self.pending.pop_front().expect("something is pending");
        self.seq = AppendSeq(self.seq.0 + 1);
        match &record {
            Record::Promised { .. } | Record::Joined { .. } => {}
            Record::Accepted { entries, .. } => self.note(entries),
            Record::Replaced { from, entries, .. } => {
                self.origins.split_off(from);
                self.note(entries);
            }
            Record::Checkpoint(checkpoint) => {
                self.origins.clear();
                self.covered = checkpoint.snapshot;
                self.note(&checkpoint.entries);
            }
            Record::Muted { .. } => {}
        }
        self.durable.push(record);
    }

    fn note(&mut self, entries: &[Entry]) {
        self.origins.extend(entries.iter().map(|entry| (entry.index, entry.origin)));
    }

    fn holds(&self, entry: &Entry) -> bool {
        if entry.index <= self.covered {
            let state = &self.files[&self.covered].state;
            return state[entry.index.0 as usize - 1].origin == entry.origin;
        }
        if let Some((origins, covered)) = &self.rotten
            && (entry.index <= *covered || origins.get(&entry.index) == Some(&entry.origin))
        {
            return true;
        }
        self.origins.get(&entry.index) == Some(&entry.origin)
    }
}
