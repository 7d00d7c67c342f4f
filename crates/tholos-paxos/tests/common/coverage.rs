//! What a council has really come by: faults, and branches of the protocol.
//!
//! The core says nothing of itself, so most of this is read off its outbox.

use tholos_paxos::{ChangeError, Message, ProposeError, Record, RoleChange};

macro_rules! reached {
    ($($name:ident: $text:literal,)*) => {
        /// Something that can be reached.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Reached {
            $(#[doc = $text] $name,)*
        }

        const NAMES: &[&str] = &[$($text),*];
    };
}

reached! {
    // Faults.
    Lost: "message lost",
    Doubled: "message doubled",
    Overtook: "message overtook another",
    IntoCut: "message into a cut",
    CutOneWay: "one direction cut",
    CutPair: "pair cut",
    Deaf: "deaf to one",
    LateOneWay: "one direction late",
    Aged: "leader mute and lives in the past",
    Isolated: "cut off after a change",
    Paused: "stood still",
    PausedUnheard: "stood still, unheard",
    Crashed: "crash",
    CrashedAll: "all down at once",
    RecordLost: "unsynced record lost",
    RecordKept: "unsynced record kept",
    Rotted: "disk rotten",
    // Elections.
    Canvass: "canvass",
    Endorse: "endorsed",
    Prepare: "prepare",
    Promise: "promise",
    Reject: "rejected",
    Fetch: "log fetched",
    FetchedInPieces: "log fetched in pieces",
    Elected: "elected",
    ElectedJoint: "elected while two sets count",
    Serving: "served",
    Stopped: "stopped leading",
    TwoLead: "two lead at once",
    // Logs.
    Sync: "log sent again",
    SyncInPieces: "log sent again in pieces",
    SyncEmpty: "nothing of a log to send again",
    Accept: "accept",
    Accepted: "accepted",
    Behind: "follower behind",
    Marks: "marks told",
    Probed: "follower probed",
    DecidedByOthers: "decided before the leader's own disk",
    RecordPromised: "promise written",
    RecordAccepted: "entries written",
    RecordReplaced: "tail replaced",
    // Snapshots.
    Checkpointed: "checkpoint",
    Trimmed: "log trimmed",
    SnapshotSent: "snapshot sent",
    SnapshotInstalled: "snapshot installed",
    SnapshotOld: "snapshot that is no news",
    TailKept: "tail kept after a snapshot",
    TailDropped: "tail dropped after a snapshot",
    // Reads, refusals, leaderships handed over.
    Confirm: "read round",
    Confirmed: "read round confirmed",
    ReadAnswered: "read answered",
    ReadFailed: "read failed",
    LeaseAsked: "lease asked for",
    LeaseGranted: "lease granted",
    LeaseRead: "read by lease",
    CutOffReader: "who reads by lease is cut off",
    WindowFull: "window full",
    Draining: "refused while handing over",
    Transfer: "transfer begun",
    Released: "leadership released",
    ReleasedRemoved: "a removed leader lets go",
    // Lost records.
    Repair: "asked for what was promised",
    Bound: "told what was promised",
    Muted: "mute",
    MutedUntil: "mute until a ballot",
    Repaired: "repaired",
    RottedAfterChange: "disk rotten after a change",
    RottedInChange: "disk rotten in the middle of a change",
    ToldRenewed: "told of another id",
    Stalled: "not served after that",
    Renewing: "another id for who has lost records",
    Renewed: "begun anew under another id",
    // Changes of the replica set.
    LearnerCame: "learner came",
    VoterMore: "learner became a voter",
    Swapped: "learner for a voter",
    ChangedPlaces: "voter and learner changed places",
    VoterLeft: "voter removed",
    LearnerLeft: "learner removed",
    AllChanged: "all voters but one changed",
    Stranger: "stranger for a voter",
    LeaderLeft: "leader removed",
    ChangeUnderWay: "change refused, one is under way",
    LackEntries: "change refused, voters lack entries",
    Joined: "joined",
    JoinedAgain: "joined again",
    FromRetired: "word of a retired replica",
}

/// Where the branches of the protocol begin.
const FAULTS: usize = Reached::Canvass as usize;

/// How often each was reached.
#[derive(Clone, Debug)]
pub struct Coverage([u64; NAMES.len()]);

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage([0; NAMES.len()])
    }
}

impl Coverage {
    pub fn count(&mut self, what: Reached) {
        self.0[what as usize] += 1;
    }

    pub fn of(&self, what: Reached) -> u64 {
        self.0[what as usize]
    }

    pub fn add(&mut self, other: &Coverage) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }

    /// Names and counts of the faults, or of the branches.
    pub fn each(&self, faults: bool) -> impl Iterator<Item = (&'static str, u64)> {
        let all = NAMES.iter().copied().zip(self.0).enumerate();
        all.filter(move |(at, _)| (*at < FAULTS) == faults).map(|(_, pair)| pair)
    }

    /// Faults that happened, other than to single messages.
    pub fn faults(&self) -> u64 {
        self.0[Reached::CutOneWay as usize..FAULTS].iter().sum()
    }

    /// What has to be reached and was not. That somebody has to be waited for who is gone need not be.
    pub fn missing(&self) -> Vec<&'static str> {
        let counted = NAMES.iter().copied().zip(self.0).enumerate();
        let missed = counted.filter(|(at, (_, count))| *count == 0 && *at != Reached::Stalled as usize);
        missed.map(|(_, (name, _))| name).collect()
    }

    pub fn note_sent(&mut self, message: &Message) {
        let what = match message {
            Message::Canvass { .. } => Reached::Canvass,
            Message::Endorse { .. } => Reached::Endorse,
            Message::Prepare { .. } => Reached::Prepare,
            Message::Promise { .. } => Reached::Promise,
            Message::Reject { .. } => Reached::Reject,
            Message::Fetch { .. } => Reached::Fetch,
            Message::Fetched { entries, whole_to, .. } => {
                match entries.last().is_some_and(|last| last.index < *whole_to) {
                    true => Reached::FetchedInPieces,
                    false => return,
                }
            }
            Message::Sync { entries, .. } if entries.is_empty() => Reached::SyncEmpty,
            Message::Sync { entries, whole_to, .. } => {
                match entries.last().is_some_and(|last| last.index < *whole_to) {
                    true => Reached::SyncInPieces,
                    false => Reached::Sync,
                }
            }
            Message::Accept { .. } => Reached::Accept,
            Message::Accepted { .. } => Reached::Accepted,
            Message::Behind { .. } => Reached::Behind,
            Message::Decide { length, .. } if length.0 == 0 => Reached::Marks,
            Message::Decide { .. } => Reached::Probed,
            Message::Confirm { .. } => Reached::Confirm,
            Message::Confirmed { .. } => Reached::Confirmed,
            Message::Lease { .. } => Reached::LeaseAsked,
            Message::Granted { .. } => Reached::LeaseGranted,
            Message::Released { .. } => Reached::Released,
            Message::Repair { .. } => Reached::Repair,
            Message::Bound { .. } => Reached::Bound,
            Message::Renewed { .. } => Reached::ToldRenewed,
        };
        self.count(what);
    }

    pub fn note_record(&mut self, record: &Record) {
        self.count(match record {
            Record::Promised { .. } => Reached::RecordPromised,
            Record::Accepted { .. } => Reached::RecordAccepted,
            Record::Replaced { .. } | Record::Rescued { .. } => Reached::RecordReplaced,
            Record::Checkpoint(_) => Reached::Checkpointed,
            Record::Joined { .. } => Reached::Joined,
            Record::Muted { until: None } => Reached::Muted,
            Record::Muted { until: Some(_) } => Reached::MutedUntil,
        });
    }

    pub fn note_change(&mut self, change: RoleChange) {
        self.count(match change {
            RoleChange::Elected(_) => Reached::Elected,
            RoleChange::Serving(_) => Reached::Serving,
            RoleChange::Stopped(_) => Reached::Stopped,
        });
    }

    pub fn note_refused(&mut self, error: ProposeError) {
        match error {
            ProposeError::WindowFull => self.count(Reached::WindowFull),
            ProposeError::Draining => self.count(Reached::Draining),
            _ => {}
        }
    }

    pub fn note_change_refused(&mut self, error: ChangeError) {
        match error {
            ChangeError::UnderWay => self.count(Reached::ChangeUnderWay),
            ChangeError::VotersLackEntries => self.count(Reached::LackEntries),
            _ => {}
        }
    }
}
