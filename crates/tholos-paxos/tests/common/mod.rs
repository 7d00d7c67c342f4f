//! A council in memory: N replicas of one group, a network and disks that do only what they are told.
//!
//! Nothing happens by itself: a message arrives when it is delivered, a record is durable when the test
//! says so, a crash leaves durable records and snapshot files and nothing else. After every step the
//! checks of [`Facts`] have been made.
#![allow(dead_code, unreachable_pub, reason = "each test uses its own part")]

use std::collections::VecDeque;

use bytes::Bytes;
use tholos_paxos::{
    Ballot, Config, Entry, Group, Index, Message, Millis, Options, Outbox, Payload, ReplicaId, RoleChange,
};

mod asks;
pub mod coverage;
pub mod disk;
pub mod facts;
mod failures;
pub mod links;
mod membership;
mod renewal;

use coverage::{Coverage, Reached};
use disk::Disk;
pub use disk::SnapshotFile;
use facts::{Facts, check_prefix};
pub use links::{Envelope, Parcel};
use links::{Links, View};

pub struct Replica {
    pub id: ReplicaId,
    /// `None` while it is down.
    pub group: Option<Group>,
    outbox: Outbox,
    pub disk: Disk,
    /// What was applied, from index 1 on.
    pub state: Vec<Entry>,
    decided_max: Index,
    /// Its process stands still: nothing happens to it, and what it is sent waits.
    pub paused: bool,
    pub life: Life,
    /// Where it lives: its own id, but for one that has begun anew.
    home: ReplicaId,
    /// The one before it in its home, as long as nothing of this one is durable (R20).
    instead_of: Option<ReplicaId>,
}

/// Whether a replica may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    Here,
    /// Its id is proposed, and whoever is to have it was not told so yet.
    Awaited,
    /// Another lives in its home.
    Gone,
}

pub struct Council {
    pub now: Millis,
    /// How many replicas founded it; those after them have joined.
    founders: u32,
    pub options: Options,
    pub replicas: Vec<Replica>,
    pub network: VecDeque<Envelope>,
    pub links: Links,
    pub facts: Facts,
    pub coverage: Coverage,
    nonces: u64,
    /// What happened, in our notation; kept only if asked for.
    pub trace: Option<Vec<String>>,
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

/// Whether `replica` was in a configuration once and is in none any more, as far as the holder of `latest` knows.
fn is_retired(latest: &Config, replica: ReplicaId) -> bool {
    replica <= latest.last_replica && !latest.names(replica)
}

/// How a replica stands.
pub fn standing(group: &Group) -> String {
    let role = match (group.leading(), group.leader()) {
        (Some(ballot), _) if group.serving() => format!("serves in {ballot}"),
        (Some(ballot), _) => format!("leads in {ballot}"),
        (None, Some(leader)) => format!("follows {leader}"),
        (None, None) => "knows no leader".to_string(),
    };
    format!(
        "{role}; promised {}, log {} to {}, decided {}",
        group.promised(),
        group.accepted_ballot(),
        group.accepted_index(),
        group.decided_index()
    )
}

/// All of them, in full.
pub fn entries(entries: &[Entry]) -> String {
    let all: Vec<String> = entries.iter().map(|entry| format!("{entry:#}")).collect();
    format!("[{}]", all.join(", "))
}

impl Council {
    pub fn new(replicas: u32, options: Options) -> Council {
        let config = Council::config(replicas);
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
                    paused: false,
                    life: Life::Here,
                    home: ReplicaId(number),
                    instead_of: None,
                })
                .collect(),
            network: VecDeque::new(),
            links: Links::new(replicas),
            facts: Facts::new(Council::config(replicas)),
            coverage: Coverage::default(),
            nonces: 0,
            trace: None,
        }
    }

    /// The configuration decided last, as far as anybody knows.
    pub fn decided_config(&self) -> &Config {
        self.facts.config()
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
        let view = View { links: &self.links, up: &up };
        let replica = &mut self.replicas[id.0 as usize - 1];
        let Some(group) = replica.group.as_mut().filter(|_| !replica.paused) else { return T::default() };
        event(group, self.now, &view, &mut replica.outbox)
    }

    pub fn tick(&mut self, id: ReplicaId) {
        if self.group_of(id).is_some_and(|group| group.repair().is_some()) {
            // The driver knows by its map whom to ask.
            let contacts = self.ids();
            self.step(id, |group, _, _, _| group.ask_also(contacts));
        }
        self.with(id, |group, now, view, out| {
            let known = |group: &Group| (group.leading(), group.leader(), group.promised());
            let (idle, before) = (group.is_idle(view), known(group));
            group.handle_tick(now, view, out);
            let nothing = out.is_empty() && known(group) == before;
            assert!(!idle || nothing, "{id} was idle, and a tick came to something: {out:?}");
        });
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
                if self.group_of(to).is_some_and(|group| is_retired(group.config(), from)) {
                    self.coverage.count(Reached::FromRetired);
                }
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
        let (mut last, mut kept_to) = (Index::ZERO, Index::ZERO);
        let installed = self.step(to, |group, now, _, out| {
            last = group.accepted_index();
            let installed = group.install(ballot, file.base, file.config.clone(), now, out);
            kept_to = group.accepted_index();
            installed
        });
        if installed.is_some() {
            self.say(|| format!("{to} installs a snapshot to {}", file.base.index));
            self.coverage.count(Reached::SnapshotInstalled);
            if last > file.base.index {
                self.coverage.count(if kept_to == last { Reached::TailKept } else { Reached::TailDropped });
            }
            self.at(to).state = file.state;
        } else {
            self.coverage.count(Reached::SnapshotOld);
        }
        self.carry_out(to);
    }

    /// Makes the oldest `count` of the records asked for durable.
    pub fn make_durable(&mut self, id: ReplicaId, count: usize) {
        let Replica { disk, paused, .. } = self.at(id);
        let count = count.min(disk.pending.len());
        if count == 0 || *paused {
            return;
        }
        for _ in 0..count {
            disk.sync_one();
        }
        let seq = disk.seq;
        self.with(id, |group, now, _, out| group.handle_durable(seq, now, out));
    }

    fn fresh_nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
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
        let renewals = std::mem::take(&mut out.renewals_wanted);
        let changes = std::mem::take(&mut out.changes);
        let mut news = Vec::new();
        while let Some(entry) = group.take_decided() {
            replica.state.push(entry.clone());
            news.push(entry.clone());
        }
        let (promised, accepted) = (group.promised(), group.accepted_ballot());
        assert!(promised >= accepted, "P1: {id} has promised {promised} and accepted in {accepted}");
        let decided = group.decided_index();
        assert!(decided >= replica.decided_max, "{id}: decided {} falls to {decided}", replica.decided_max);
        replica.decided_max = decided;
        for record in appends {
            self.say(|| format!("{id} appends {record:#}"));
            self.coverage.note_record(&record);
            self.facts.check_change(id, &record);
            self.at(id).disk.pending.push_back(record);
        }
        for change in changes {
            self.say(|| format!("{id} {change}"));
            self.coverage.note_change(change);
            if let RoleChange::Elected(ballot) = change {
                self.facts.elected(id, ballot);
                self.note_elected(id);
            }
        }
        for (to, message) in sends {
            self.coverage.note_sent(&message);
            let removed = matches!(message, Message::Released { .. })
                && self.group_of(id).is_some_and(|group| !group.config().is_voter(id));
            if removed {
                self.coverage.count(Reached::ReleasedRemoved);
            }
            self.send(Envelope { from: id, to, parcel: Parcel::Message(message) });
        }
        if !news.is_empty() {
            self.say(|| format!("{id} applies {}", entries(&news)));
        }
        for entry in news {
            let own = self.at(id).disk.holds(&entry);
            let leads = self.group_of(id).is_some_and(|group| group.leading().is_some());
            if self.facts.learn(id, entry, &self.replicas) && leads && !own {
                self.coverage.count(Reached::DecidedByOthers);
            }
        }
        for to in wanted {
            // A leader may have let go since it was asked.
            let group = self.at(id).group.as_ref();
            let Some(ballot) = group.and_then(|group| group.snapshots_in(|receiver| receiver == to)) else {
                continue;
            };
            if let Some(file) = self.snapshot_file(id) {
                self.coverage.count(Reached::SnapshotSent);
                self.send(Envelope { from: id, to, parcel: Parcel::Snapshot { ballot, file } });
            }
        }
        for token in ready {
            self.say(|| format!("{id} answers read {token}"));
            self.coverage.count(Reached::ReadAnswered);
            let applied = Index(self.at(id).state.len() as u64);
            self.facts.read_answered(id, token, applied);
        }
        for token in failed {
            self.say(|| format!("{id} cannot answer read {token}"));
            self.coverage.count(Reached::ReadFailed);
            self.facts.reads_failed.push(token);
        }
        check_prefix(id, &self.replicas);
        self.note_repaired(id);
        for asked in renewals {
            self.renew(id, asked);
        }
        self.begin_anew(id);
        self.note_renewed(id);
    }

    fn group_of(&self, id: ReplicaId) -> Option<&Group> {
        self.replicas[id.0 as usize - 1].group.as_ref()
    }

    fn note_elected(&mut self, id: ReplicaId) {
        let leads = |group: &&Group| group.leading().is_some();
        if self.replicas.iter().filter_map(|replica| replica.group.as_ref()).filter(leads).count() > 1 {
            self.coverage.count(Reached::TwoLead);
        }
        if self.group_of(id).is_some_and(|group| group.configs().count() > 1) {
            self.coverage.count(Reached::ElectedJoint);
        }
    }

    /// A replica that counts again must have everything that was decided with its lost votes.
    fn note_repaired(&mut self, id: ReplicaId) {
        let replica = self.at(id);
        let mute = replica.group.as_ref().is_none_or(|group| group.repair().is_some());
        if mute || !replica.disk.is_rotten() || !replica.disk.pending.is_empty() {
            return;
        }
        replica.disk.repaired();
        self.say(|| format!("{id} is repaired"));
        self.facts.repaired += 1;
        self.coverage.count(Reached::Repaired);
        self.check_all_on_majority();
    }

    fn send(&mut self, envelope: Envelope) {
        self.say(|| envelope.to_string());
        self.network.push_back(envelope);
    }

    /// Durability: what is decided is on the disks of a majority of the configuration in force.
    pub fn check_all_on_majority(&self) {
        self.facts.check_all_on_majority(&self.replicas);
    }

    // --- Whole rounds. -----------------------------------------------------------------------

    /// Delivers every message of which the test does not say `false`; those are lost, as are
    /// those over a cut. New messages wait for the next call. Returns how many there were.
    pub fn deliver_where(&mut self, wanted: impl Fn(&Envelope) -> bool) -> usize {
        let all = std::mem::take(&mut self.network);
        let count = all.len();
        for envelope in all {
            if self.is_held(&envelope) {
                self.network.push_back(envelope);
            } else if !self.links.is_cut(&envelope) && wanted(&envelope) {
                self.deliver(envelope);
            }
        }
        count
    }

    /// Whether it has to wait.
    pub fn is_held(&self, envelope: &Envelope) -> bool {
        self.links.is_held(envelope) || self.replicas[envelope.to.0 as usize - 1].paused
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

    /// The same, where messages of which the test says `false` are lost.
    pub fn settle_but(&mut self, wanted: impl Fn(&Envelope) -> bool) {
        for _ in 0..10_000 {
            self.sync_all();
            if self.network.is_empty() {
                return;
            }
            self.deliver_where(&wanted);
        }
        panic!("messages without end");
    }

    /// The same, where some of what is under way is held back.
    fn settle_but_held(&mut self) {
        for _ in 0..10_000 {
            self.sync_all();
            if self.network.iter().all(|envelope| self.is_held(envelope))
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
}
