//! Faults that can be planted in the protocol, by name (docs/protocol/mutants.md), and the council that is to find each.

use tholos_paxos::Planted;

/// A planted fault, and where it is in reach.
#[derive(Debug)]
pub struct Fault {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is planted.
    pub planted: Planted,
    /// The name of the council that finds it.
    pub config: &'static str,
}

const fn fault(name: &'static str, planted: Planted, config: &'static str) -> Fault {
    Fault { name, planted, config }
}

/// Faults of the group itself, and of what a driver does with its checkpoints; those of the state machine around it are out of
/// the model's reach.
pub const FAULTS: [Fault; 26] = [
    fault("accepted-before-durable", Planted::AcceptedBeforeDurable, "small"),
    fault("own-vote-before-durable", Planted::OwnVoteBeforeDurable, "small"),
    fault("vote-counted-twice", Planted::VoteCountedTwice, "small"),
    fault("promise-before-durable", Planted::PromiseBeforeDurable, "behind"),
    fault("promise-forgotten", Planted::PromiseForgotten, "crash"),
    fault("ballot-used-twice", Planted::BallotUsedTwice, "behind"),
    fault("ballot-raised-by-pieces", Planted::BallotRaisedByPieces, "pieces"),
    fault("decided-in-any-ballot", Planted::DecidedInAnyBallot, "marks"),
    fault("longest-log-adopted", Planted::LongestLogAdopted, "tail"),
    fault("lower-ballot-accepted", Planted::LowerBallotAccepted, "behind"),
    fault("rotten-votes", Planted::RottenVotes, "rot"),
    fault("read-unconfirmed", Planted::ReadUnconfirmed, "reads"),
    fault("read-confirmed-late", Planted::ReadConfirmedLate, "reads"),
    fault("grant-does-not-bind", Planted::GrantDoesNotBind, "lease"),
    fault("own-grant-ignored", Planted::OwnGrantIgnored, "lease"),
    fault("grant-forgotten", Planted::GrantForgotten, "lease"),
    fault("lease-from-arrival", Planted::LeaseFromArrival, "leases"),
    fault("new-set-only", Planted::NewSetOnly, "change"),
    fault("old-set-only", Planted::OldSetOnly, "swap"),
    fault("retired-id-counts", Planted::RetiredIdCounts, "swap"),
    fault("released-early", Planted::ReleasedEarly, "save"),
    fault("checkpoint-without-tail", Planted::CheckpointWithoutTail, "save"),
    fault("checkpoint-forgets-promise", Planted::CheckpointForgetsPromise, "save"),
    fault("checkpoint-forgets-mute", Planted::CheckpointForgetsMute, "rotten"),
    fault("snapshot-does-not-bind", Planted::SnapshotDoesNotBind, "snapshot"),
    fault("snapshot-raises-ballot", Planted::SnapshotRaisesBallot, "resent"),
];
