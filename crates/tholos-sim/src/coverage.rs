//! What a run has really reached: kinds of faults, and branches of the protocol.
//!
//! The cores say nothing of themselves, so most of this is read off what they put into their outboxes.

macro_rules! reached {
    ($($name:ident: $text:literal,)*) => {
        /// Something that a run can reach.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Reached {
            $(#[doc = $text] $name,)*
        }

        /// All of it, in words.
        const NAMES: &[&str] = &[$($text),*];
        const ALL: &[Reached] = &[$(Reached::$name),*];
    };
}

reached! {
    // Faults of the network.
    MessageLost: "message lost",
    MessageDoubled: "message doubled",
    MessageOvertook: "message overtook another",
    MessageCut: "message into a cut",
    CutAlone: "one node cut off",
    CutOneWay: "one direction cut",
    CutPair: "one pair cut",
    CutMute: "all that one node says cut",
    CutOld: "one node mute and lives in the past",
    Weather: "bad weather",
    // Faults of machines.
    Killed: "process killed",
    PowerLost: "power lost",
    AllDown: "all down at once",
    DiedInWrite: "power lost in a write",
    SectorKept: "unsynced sector kept",
    SectorLost: "unsynced sector lost",
    SectorTorn: "unsynced sector torn",
    Paused: "paused",
    PausedInTheMiddle: "paused between clock and read",
    ClockOff: "clock off from the start",
    ClockJumped: "clock jumped",
    Drained: "drained",
    // Faults of disks.
    DiskSlow: "disk slow",
    ProcessorSlow: "processor slow",
    DiskStood: "disk stands still",
    WriteFailed: "write failed",
    SyncFailed: "sync failed",
    DiskFull: "disk full",
    SectorUnreadable: "sector unreadable",
    HeadersLost: "headers of a log lost",
    BitFlipped: "bit flipped in the log",
    SnapshotBitFlipped: "bit flipped in a snapshot",
    WriteMisdirected: "write misdirected",
    CopyKept: "disk put back to a copy",
    // Replica sets.
    LearnOrdered: "node ordered to learn",
    SwapOrdered: "learner ordered to vote",
    LeaderOrderedOut: "leader ordered out",
    LeaveOrdered: "learner ordered to go",
    LostForGood: "machine lost for good",
    // What recovery found.
    Recovered: "recovery",
    TailRewritten: "unsynced tail written again",
    TearDropped: "tear dropped",
    LogUnreadable: "log of which nothing can be read begun anew",
    OpenedWithoutRoom: "log opened on a full disk",
    OpenedOverdrawn: "log opened beyond its limit",
    RotFound: "replica found rotten",
    RotRepaired: "rotten replica repaired",
    RotRenewed: "another id for a rotten replica",
    WentBack: "started with less than was durable",
    WentBackNoticed: "disk that went back in time noticed",
    // Elections.
    Canvassed: "canvass",
    CanvassRefused: "canvass not endorsed",
    Prepared: "prepare",
    Rejected: "rejected",
    Fetched: "log fetched",
    Elected: "election won",
    ElectionLost: "election lost",
    StoppedLeading: "leadership ended",
    NodeLost: "node lost",
    // Logs.
    SyncSent: "log sent again",
    SyncInPieces: "log sent again in pieces",
    SyncRepeated: "the same log sent again",
    Rewound: "follower behind",
    Probed: "follower probed",
    HeldReply: "held reply released",
    TailReplaced: "tail replaced",
    Checkpointed: "checkpoint",
    Released: "log released",
    Overdrawn: "log beyond its limit",
    OverdraftRepaid: "log within its limit again",
    OverdraftWaits: "log beyond its limit waits for room",
    SessionRefused: "write refused that would open a session too many",
    WritesHeld: "write held back for a snapshot",
    RoomSpent: "log takes no entries of others for want of room",
    SnapshotSent: "snapshot sent",
    SnapshotAsked: "snapshot chunk asked for",
    SnapshotResumed: "snapshot transfer resumed",
    SnapshotInstalled: "snapshot installed",
    // Leadership and reads.
    Transferred: "leadership transferred",
    FoundSlow: "node found itself slow",
    FoundWell: "node found itself well again",
    ShedForDisk: "leadership given up for a slow disk",
    ShedForProcessor: "leadership given up for a slow processor",
    ShedForHeat: "leadership given up for a hot shard",
    SetChanged: "replica set changed",
    ChangeRefused: "change of a replica set refused",
    ReplicaJoined: "replica joined",
    ReadRound: "read round",
    ReadRoundRepeated: "read round repeated",
    ReadByLease: "reads by lease",
    ReadLate: "read by lease too late",
    ReadAtReplica: "reads at replicas",
    ReadStale: "reads within a stated age",
    ReadSentToReplica: "reads sent to replicas by gateways",
    ReadKeptForLeader: "reads kept for the leader by gateways",
    LeaseAsked: "lease asked for",
    LeaseGranted: "lease granted",
    Ticked: "tick",
    // Membership.
    NodeJoined: "node joined",
    DiskWiped: "disk lost for good",
    NodeRejoined: "wiped node let in again",
    MapAsked: "map asked for",
    ReplicaDropped: "replica dropped",
    MapKept: "map kept",
    JobStarted: "job asked for",
    JobPaused: "job paused",
    JobCancelled: "job cancelled",
    JobByItself: "job begun by itself",
    NodeReplaced: "lost node replaced",
    ZoneReplaced: "lost zone replaced",
    NodeReturned: "node back while it was replaced",
    RestartOrdered: "restart ordered",
    JobThrottled: "job throttled",
    // Recoveries from the loss of a majority.
    RecoveryBlocked: "recovery blocked",
    RecoveryOrdered: "recovery ordered",
    GroupRescued: "group goes on without a majority",
    EntriesLost: "entries lost with a majority",
    NothingLost: "nothing lost with a majority, as was said",
    MetaBegunAnew: "meta group begun anew",
    LostReturned: "lost machine back",
    // Requests.
    Forwarded: "request forwarded",
    Relayed: "request relayed",
    NotLeader: "answered not the leader",
    InDoubt: "answered in doubt",
    Gap: "gap in a session refused",
    Expired: "write past its time refused",
    Repeated: "write applied before answered again",
    Full: "write refused for a full disk",
    ReadWhileFull: "read answered by a full disk",
    GoneByTtl: "key seen gone by its TTL",
    TransactionDone: "transaction done",
    TransactionAborted: "transaction aborted by WATCH",
    ThroughBytes: "messages through their bytes",
}

/// So rare that hundreds of seeds, or even thousands, may not reach them: counted, and not asked for.
const RARE: [Reached; 3] = [Reached::Expired, Reached::ZoneReplaced, Reached::OverdraftWaits];

/// What only runs with a recovery reach; of these nothing else is asked for.
const OF_RECOVERIES: [Reached; 8] = [
    Reached::LostForGood,
    Reached::RecoveryBlocked,
    Reached::RecoveryOrdered,
    Reached::GroupRescued,
    Reached::EntriesLost,
    Reached::NothingLost,
    Reached::MetaBegunAnew,
    Reached::LostReturned,
];

/// How often each was reached.
#[derive(Clone, Debug)]
pub struct Coverage([u64; NAMES.len()]);

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage([0; NAMES.len()])
    }
}

impl Coverage {
    /// Reached once more.
    pub fn count(&mut self, what: Reached) {
        self.add_to(what, 1);
    }

    /// Reached so many times more.
    pub fn add_to(&mut self, what: Reached, times: u64) {
        self.0[what as usize] += times;
    }

    /// How often so far.
    pub fn of(&self, what: Reached) -> u64 {
        self.0[what as usize]
    }

    /// Adds another run.
    pub fn add(&mut self, other: &Coverage) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// All of it, in words.
    pub fn each(&self) -> impl Iterator<Item = (Reached, &'static str, u64)> {
        ALL.iter().map(|what| (*what, NAMES[*what as usize], self.of(*what)))
    }

    /// What was never reached, and should be; in runs with a `recovery`, of that.
    pub fn missing(&self, recovery: bool) -> Vec<&'static str> {
        let wanted = |what| OF_RECOVERIES.contains(&what) == recovery && !RARE.contains(&what);
        let missing = self.each().filter(|(what, _, count)| *count == 0 && wanted(*what));
        missing.map(|(_, name, _)| name).collect()
    }
}

impl Reached {
    /// Whether it is something that goes wrong, rather than what the protocol does about it.
    pub fn is_fault(self) -> bool {
        (self as usize) < Reached::Recovered as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_adds_up_and_the_rest_is_missing() {
        let (mut one, mut other) = (Coverage::default(), Coverage::default());
        one.count(Reached::Elected);
        other.add_to(Reached::Elected, 2);
        other.count(Reached::MessageLost);
        one.add(&other);
        assert_eq!((one.of(Reached::Elected), one.of(Reached::MessageLost)), (3, 1));
        let never = RARE.len() + OF_RECOVERIES.len();
        assert_eq!(one.missing(false).len(), NAMES.len() - never - 2);
        assert!(!one.missing(false).contains(&"election won"));
        assert_eq!(one.missing(true).len(), OF_RECOVERIES.len());
        assert!(Reached::WriteMisdirected.is_fault() && !Reached::Recovered.is_fault());
    }
}
