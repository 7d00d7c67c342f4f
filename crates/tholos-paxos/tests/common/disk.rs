//! What outlives a crash.

use std::collections::{BTreeMap, VecDeque};

use tholos_paxos::{AppendSeq, Ballot, Base, Config, Entry, Index, Record};

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
    pub files: BTreeMap<Index, SnapshotFile>,
    /// The last append of this boot that is durable.
    pub seq: AppendSeq,
    /// The origin of each entry in the durable log, and up to where a durable snapshot covers it.
    origins: BTreeMap<Index, Ballot>,
    covered: Index,
    /// The highest ballot promised, in whatever record.
    pub promised: Ballot,
    /// What rot took of a replica that has not been repaired yet: others counted its votes for that.
    rotten: Option<(BTreeMap<Index, Ballot>, Index)>,
    /// Whether an opening would find that.
    damaged: bool,
}

impl Disk {
    /// The oldest record on its way is durable.
    pub fn sync_one(&mut self) {
        let record = self.pending.pop_front().expect("something is pending");
        self.seq = AppendSeq(self.seq.0 + 1);
        match &record {
            Record::Promised { ballot } => self.promised = *ballot,
            Record::Joined { .. } => {}
            Record::Muted { .. } => self.damaged = false,
            Record::Accepted { entries, .. } => self.note(entries),
            Record::Replaced { ballot, from, entries } | Record::Rescued { ballot, from, entries } => {
                self.promised = self.promised.max(*ballot);
                self.origins.split_off(from);
                self.note(entries);
            }
            Record::Checkpoint(checkpoint) => {
                self.origins.clear();
                self.covered = checkpoint.snapshot;
                self.promised = self.promised.max(checkpoint.promised);
                self.note(&checkpoint.entries);
            }
        }
        // What is not needed any more is released by a driver soon, or not before the next crash (R22). A checkpoint counts when
        // what it says of lost records is there (R20).
        let says_more = matches!(self.pending.front(), Some(Record::Muted { .. }));
        let releases = self.seq.0.is_multiple_of(2);
        if record.replaces_all() && !says_more && releases {
            self.durable.clear();
            self.damaged = false;
        } else if let (Record::Muted { .. }, Some(checkpoint @ Record::Checkpoint(_))) =
            (&record, self.durable.last())
            && releases
        {
            self.durable = vec![checkpoint.clone()];
        }
        self.durable.push(record);
    }

    fn note(&mut self, entries: &[Entry]) {
        self.origins.extend(entries.iter().map(|entry| (entry.index, entry.origin)));
    }

    /// Whether an entry is there, or was until rot took it.
    pub fn holds(&self, entry: &Entry) -> bool {
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

    /// Whether it says, after a restart too, that everything up to `index` is decided.
    pub fn knows_decided(&self, index: Index) -> bool {
        self.durable.iter().any(|record| match record {
            Record::Accepted { decided, .. } => *decided >= index,
            Record::Checkpoint(checkpoint) => checkpoint.decided >= index,
            _ => false,
        })
    }

    /// Rot takes all but the snapshot files, which no record names any more.
    pub fn rot(&mut self) {
        let disk = std::mem::take(self);
        let (mut origins, covered) = disk.rotten.unwrap_or_default();
        origins.extend(disk.origins);
        self.rotten = Some((origins, covered.max(disk.covered)));
        self.files = disk.files;
        self.damaged = true;
    }

    /// Whether rot has taken something that is not repaired.
    pub fn is_rotten(&self) -> bool {
        self.rotten.is_some()
    }

    /// Whether the damage would be found at an opening: until something durable says that it is known, or it is released.
    pub fn shows_rot(&self) -> bool {
        self.damaged
    }

    /// The replica counts again.
    pub fn repaired(&mut self) {
        self.rotten = None;
    }
}
