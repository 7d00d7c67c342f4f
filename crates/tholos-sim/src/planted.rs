//! Faults that can be planted in the protocol, by name (docs/protocol/mutants.md).

use tholos_paxos::Planted;

/// Every fault and its name on the command line.
pub const NAMES: [(&str, Planted); 40] = [
    ("accepted-before-durable", Planted::AcceptedBeforeDurable),
    ("promise-forgotten", Planted::PromiseForgotten),
    ("vote-counted-twice", Planted::VoteCountedTwice),
    ("ballot-used-twice", Planted::BallotUsedTwice),
    ("read-unconfirmed", Planted::ReadUnconfirmed),
    ("read-confirmed-late", Planted::ReadConfirmedLate),
    ("ballot-raised-by-pieces", Planted::BallotRaisedByPieces),
    ("decided-in-any-ballot", Planted::DecidedInAnyBallot),
    ("longest-log-adopted", Planted::LongestLogAdopted),
    ("own-vote-before-durable", Planted::OwnVoteBeforeDurable),
    ("promise-before-durable", Planted::PromiseBeforeDurable),
    ("lower-ballot-accepted", Planted::LowerBallotAccepted),
    ("retry-applied-again", Planted::RetryAppliedAgain),
    ("expiry-by-wall-clock", Planted::ExpiryByWallClock),
    ("rotten-votes", Planted::RottenVotes),
    ("rotten-votes-after-change", Planted::RottenVotesAfterChange),
    ("back-in-time-votes", Planted::BackInTimeVotes),
    ("wiped-votes", Planted::WipedVotes),
    ("map-epoch-ignored", Planted::MapEpochIgnored),
    ("released-early", Planted::ReleasedEarly),
    ("accepted-with-gap", Planted::AcceptedWithGap),
    ("checkpoint-without-tail", Planted::CheckpointWithoutTail),
    ("checkpoint-forgets-promise", Planted::CheckpointForgetsPromise),
    ("tail-kept-after-snapshot", Planted::TailKeptAfterSnapshot),
    ("time-runs-back", Planted::TimeRunsBack),
    ("read-before-noop", Planted::ReadBeforeNoop),
    ("session-gap-accepted", Planted::SessionGapAccepted),
    ("kept-reply-of-another", Planted::KeptReplyOfAnother),
    ("tick-not-proposed", Planted::TickNotProposed),
    ("watch-unchecked", Planted::WatchUnchecked),
    ("sync-skipped", Planted::SyncSkipped),
    ("failed-sync-forgotten", Planted::FailedSyncForgotten),
    ("tail-not-synced", Planted::TailNotSynced),
    ("grant-does-not-bind", Planted::GrantDoesNotBind),
    ("grant-forgotten", Planted::GrantForgotten),
    ("late-reply-sent", Planted::LateReplySent),
    ("replica-read-unasked", Planted::ReplicaReadUnasked),
    ("sent-read-unasked", Planted::SentReadUnasked),
    ("age-ignored", Planted::AgeIgnored),
    ("rescue-drops-unknown", Planted::RescueDropsUnknown),
];

/// Whether only runs with a recovery meet it.
pub fn needs_recovery(planted: Planted) -> bool {
    planted == Planted::RescueDropsUnknown
}

/// What of it the log does, which knows no group.
pub fn of_log(planted: Planted) -> tholos_wal::Planted {
    match planted {
        Planted::SyncSkipped => tholos_wal::Planted::SyncSkipped,
        Planted::FailedSyncForgotten => tholos_wal::Planted::FailedSyncForgotten,
        Planted::TailNotSynced => tholos_wal::Planted::TailNotSynced,
        _ => tholos_wal::Planted::Nothing,
    }
}

/// The fault of a name.
pub fn by_name(name: &str) -> Option<Planted> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, planted)| *planted)
}

/// The name of a fault; none for the protocol as it should be.
pub fn name_of(planted: Planted) -> Option<&'static str> {
    NAMES.iter().find(|(_, known)| *known == planted).map(|(name, _)| *name)
}
