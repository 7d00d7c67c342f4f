//! Limits and times of a group.

use crate::ballot::Millis;

/// Limits and times of a group; the same on all its replicas unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Options {
    /// A candidacy that has not won after this long is given up. At least [`LEASE`](crate::LEASE), with a round trip and an
    /// fsync: it may have to wait for the end of grants.
    pub election_timeout: Millis,
    /// How much longer each voter waits than the one before it in walk order, so that the
    /// first one that can lead usually stands alone. More than one round trip and one fsync.
    pub stagger: Millis,
    /// How long without progress until a follower is asked where it stands.
    pub probe_interval: Millis,
    /// Entries proposed and not yet decided, at most.
    pub window_entries_max: u64,
    /// Bytes proposed and not yet decided, at most; one entry is always let through.
    pub window_bytes_max: usize,
    /// Bytes of entries in one message, about; one entry is always let through.
    pub message_bytes_max: usize,
    /// Bytes of decided entries that are sent again under a new ballot, at most: the log sent again becomes one record
    /// of its replica (R1), and a record has an upper bound. A replica that lacks more needs a snapshot first. It is sent
    /// all at once, for nothing answers a piece of it; so with what may be undecided it should fit into what the driver
    /// queues for one peer, or it begins again and again.
    pub resent_bytes_max: usize,
    /// Entries sent to one follower and not yet accepted by it, at most.
    pub follower_entries_max: u64,
    /// Bytes of these, at most; one entry is always let through. Far less than what the driver queues for one peer, which
    /// drops what does not fit: all groups share that.
    pub follower_bytes_max: usize,
    /// Read-index rounds under way at once, at most.
    pub read_rounds_max: usize,
    /// Whether leaders ask for leases and read by them (R12); if not, each read waits for a round of messages, and no
    /// clock is trusted. Grants are given and kept either way.
    pub leases: bool,
    /// A fault planted for tests of the tests; [`Planted::Nothing`] in every other use.
    pub planted: Planted,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            election_timeout: Millis(300),
            stagger: Millis(40),
            probe_interval: Millis(100),
            window_entries_max: 64,
            window_bytes_max: 8 << 20,
            message_bytes_max: 1 << 20,
            resent_bytes_max: 64 << 20,
            follower_entries_max: 1024,
            follower_bytes_max: 8 << 20,
            read_rounds_max: 8,
            leases: false,
            planted: Planted::Nothing,
        }
    }
}

/// Faults that a test can plant to see that the simulator catches them (docs/protocol/mutants.md).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Planted {
    /// The protocol as it should be.
    #[default]
    Nothing,
    /// A follower says Accepted before its record is durable (breaks R3).
    AcceptedBeforeDurable,
    /// A restarted replica has forgotten its promises (breaks R2).
    PromiseForgotten,
    /// The leader counts each follower's vote as two (breaks R3).
    VoteCountedTwice,
    /// A candidate takes the ballot that it has promised already, if it is its own (breaks R2).
    BallotUsedTwice,
    /// Reads are answered without a round (breaks R15).
    ReadUnconfirmed,
    /// A round confirms also what arrived after it was sent (breaks R15).
    ReadConfirmedLate,
    /// The pieces of a re-sent log raise the log's ballot (breaks R1).
    BallotRaisedByPieces,
    /// A decided mark is obeyed whatever ballot it names (breaks R1).
    DecidedInAnyBallot,
    /// A candidate adopts the longest log whatever its ballot (breaks phase 1).
    LongestLogAdopted,
    /// The leader counts its own vote before its disk has it (breaks R3).
    OwnVoteBeforeDurable,
    /// A promise leaves before its record is durable (breaks R2).
    PromiseBeforeDurable,
    /// A replica accepts entries of a lower ballot than it has promised (breaks phase 2).
    LowerBallotAccepted,
    /// While a Config is under way, quorums are counted in the new set alone (breaks R6).
    NewSetOnly,
    /// While a Config is under way, quorums are counted in the old set alone (breaks R6).
    OldSetOnly,
    /// Phase 1 is not counted again under the configurations of the log that it adopts (breaks R6).
    NotCountedAgain,
    /// A Config is proposed before the last one is decided (breaks R6).
    ConfigBeforeLastDecided,
    /// Learners count like voters (breaks R6).
    LearnerVotes,
    /// What removed replicas accept goes on counting (breaks R7).
    RetiredIdCounts,
    /// A retried write is applied again (breaks R18; kept by the state machine around the group).
    RetryAppliedAgain,
    /// Expiry is judged by the replica's own wall clock (breaks R17; likewise).
    ExpiryByWallClock,
    /// A replica that has lost records votes at once (breaks R20).
    RottenVotes,
    /// In a set that has changed, a replica that has lost records votes as soon as it hears so (breaks R20).
    RottenVotesAfterChange,
    /// A node whose directory went back in time votes on (breaks R21; kept by the node around the groups).
    BackInTimeVotes,
    /// A node with an empty directory starts as the node that it was, and is heeded (breaks R21; done by whoever starts it).
    WipedVotes,
    /// A copy of the cluster map is taken whatever its epoch, also an older one.
    MapEpochIgnored,
    /// Records are released before the snapshot that replaces them is durable (breaks R22; likewise).
    ReleasedEarly,
    /// Entries are taken also where some are missing before them (breaks R1).
    AcceptedWithGap,
    /// A checkpoint leaves out the entries after its snapshot (breaks R22).
    CheckpointWithoutTail,
    /// A checkpoint leaves out the promise (breaks R22).
    CheckpointForgetsPromise,
    /// A checkpoint leaves out that records are lost (breaks R20).
    CheckpointForgetsMute,
    /// Taking over a snapshot keeps what follows it, whatever its origin (breaks P4).
    TailKeptAfterSnapshot,
    /// Taking over a snapshot promises nothing (breaks P6).
    SnapshotDoesNotBind,
    /// Taking over a snapshot raises the log's ballot to that of its sender, whose log may be longer (breaks R1).
    SnapshotRaisesBallot,
    /// A leader gives its entries the time that it is told, later or not (breaks R16).
    TimeRunsBack,
    /// Reads do not wait for the no-op of the leader's own ballot (breaks R15).
    ReadBeforeNoop,
    /// A gap in a session's sequence is no reason to refuse (breaks R18; kept by the state machine around the group).
    SessionGapAccepted,
    /// A retry is answered with the session's newest reply (breaks R18; likewise).
    KeptReplyOfAnother,
    /// A read that the wall clock disputes is answered without a Tick (breaks R17; likewise).
    TickNotProposed,
    /// EXEC does not look at what was watched (breaks R19; likewise).
    WatchUnchecked,
    /// What is written counts as durable without a sync (breaks R3; kept by the log below the groups).
    SyncSkipped,
    /// A sync that failed counts as done (breaks R23; likewise).
    FailedSyncForgotten,
    /// The tail that recovery writes again is not synced (breaks R5; likewise).
    TailNotSynced,
    /// A grant does not keep its replica from promising another ballot, its own or one that is asked for (breaks R12).
    GrantDoesNotBind,
    /// A candidate's own grant does not keep it from standing (breaks R12).
    OwnGrantIgnored,
    /// A restarted replica promises at once, whatever it may have granted (breaks R14).
    GrantForgotten,
    /// A lease counts from when its grant arrived (breaks R13).
    LeaseFromArrival,
    /// One grant makes a lease (breaks R12).
    LeaseOfOneGrant,
    /// A reply that rests on a lease is sent without another look at the clock (breaks R13; kept by the node around the
    /// group).
    LateReplySent,
    /// A replica answers a read from what it has applied, without asking the leader how far the log is (breaks R15;
    /// kept by the node around the group).
    ReplicaReadUnasked,
    /// A read at a replica joins a question to the leader that was sent before the read came (breaks R15; likewise).
    LateReadJoins,
    /// A read that another node's gateway sends to a replica is answered from what that has applied, without asking the
    /// leader (breaks R15; likewise).
    SentReadUnasked,
    /// A replica answers a read whose client has stated how old the answer may be, however old its state is (breaks R32;
    /// likewise).
    AgeIgnored,
    /// A replica counts the age of its state from when the leader's answer came (breaks R32; likewise).
    AgeFromAnswer,
    /// The survivor of a group that goes on without its majority drops what it does not know to be decided (breaks R29).
    RescueDropsUnknown,
}
