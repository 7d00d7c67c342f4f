//! The faults planted in the protocol that random schedules are to catch (docs/protocol/mutants.md).

use tholos_paxos::Planted;

pub const FAULTS: [Planted; 31] = [
    Planted::AcceptedBeforeDurable,
    Planted::PromiseForgotten,
    Planted::VoteCountedTwice,
    Planted::BallotUsedTwice,
    Planted::ReadUnconfirmed,
    Planted::ReadConfirmedLate,
    Planted::BallotRaisedByPieces,
    Planted::DecidedInAnyBallot,
    Planted::LongestLogAdopted,
    Planted::OwnVoteBeforeDurable,
    Planted::PromiseBeforeDurable,
    Planted::LowerBallotAccepted,
    Planted::RottenVotes,
    Planted::RottenVotesAfterChange,
    Planted::NewSetOnly,
    Planted::OldSetOnly,
    Planted::ConfigBeforeLastDecided,
    Planted::LearnerVotes,
    Planted::RetiredIdCounts,
    Planted::AcceptedWithGap,
    Planted::CheckpointWithoutTail,
    Planted::CheckpointForgetsPromise,
    Planted::TailKeptAfterSnapshot,
    Planted::SnapshotDoesNotBind,
    Planted::SnapshotRaisesBallot,
    Planted::ReadBeforeNoop,
    Planted::GrantDoesNotBind,
    Planted::OwnGrantIgnored,
    Planted::GrantForgotten,
    Planted::LeaseFromArrival,
    Planted::LeaseOfOneGrant,
];

/// The name on the command line: `accepted-before-durable`.
pub fn name_of(planted: Planted) -> String {
    let camel = format!("{planted:?}");
    let kebab = camel.char_indices().flat_map(|(at, letter)| {
        let dash = (at > 0 && letter.is_ascii_uppercase()).then_some('-');
        dash.into_iter().chain(letter.to_lowercase())
    });
    kebab.collect()
}

pub fn by_name(name: &str) -> Option<Planted> {
    FAULTS.into_iter().find(|planted| name_of(*planted) == name)
}
