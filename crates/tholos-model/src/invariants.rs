//! What must hold in every state, and what a search must have come by.

use stateright::Property;
use tholos_paxos::{Ballot, Entry, Group, Index, Payload, ReplicaId};

use crate::Council;
use crate::state::{Budget, State, number_of};

/// No index is decided with two values, on any replicas or over time.
pub(crate) const AGREEMENT: &str = "agreement";
/// Only what was proposed is decided, and once.
pub(crate) const VALIDITY: &str = "validity";
/// What is decided is on the disks of a majority, as recovery would find it: in a log or in what a snapshot covers.
pub(crate) const DURABILITY: &str = "durability";
/// A ballot is led by its own replica, and once.
pub(crate) const ONE_LEADER: &str = "one leader to a ballot";
/// Of two logs accepted in one ballot, one is a prefix of the other (P4).
pub(crate) const ONE_LOG: &str = "one log to a ballot";
/// What a replica knows to be decided was learnt in a ballot that it has promised (P6).
pub(crate) const KNOWN_IN_PROMISED: &str = "known in a ballot promised";
/// A read is answered by what was decided before it came, at least.
pub(crate) const READ_FRESHNESS: &str = "read freshness";
/// Nobody else is elected while a leader may read without asking (R12 to R14).
pub(crate) const LEASE_EXCLUSION: &str = "lease exclusion";
/// The records of a disk can be taken back at any time.
pub(crate) const RECOVERY: &str = "recovery";
/// The assertions of the core itself.
pub(crate) const ASSERTIONS: &str = "assertions of the core";

/// All of them, as `stateright` takes them: a property is a plain function, hence the constants.
pub(crate) fn properties() -> Vec<Property<Council>> {
    fn always<const AT: usize>() -> Property<Council> {
        Property::always(NAMES[AT], |_, state: &State| {
            state.broken.as_ref().is_none_or(|broken| broken.invariant != NAMES[AT])
        })
    }
    vec![
        always::<0>(),
        always::<1>(),
        always::<2>(),
        always::<3>(),
        always::<4>(),
        always::<5>(),
        always::<6>(),
        always::<7>(),
        always::<8>(),
        always::<9>(),
    ]
}

const NAMES: [&str; 10] = [
    AGREEMENT,
    VALIDITY,
    DURABILITY,
    ONE_LEADER,
    ONE_LOG,
    KNOWN_IN_PROMISED,
    READ_FRESHNESS,
    LEASE_EXCLUSION,
    RECOVERY,
    ASSERTIONS,
];

/// Checks what is to be seen in the state alone, whatever led to it.
pub(crate) fn check(state: &mut State) {
    if let Some(seen) = not_decided_below(state) {
        state.break_with(AGREEMENT, seen);
    }
    if let Some(seen) = not_durable(state) {
        state.break_with(DURABILITY, seen);
    }
    if let Some(seen) = two_logs(state) {
        state.break_with(ONE_LOG, seen);
    }
    if let Some(seen) = known_beyond_promise(state) {
        state.break_with(KNOWN_IN_PROMISED, seen);
    }
    if let Some(seen) = reads_beside_another(state) {
        state.break_with(LEASE_EXCLUSION, seen);
    }
}

/// All replicas, running and as they would come back.
fn groups(state: &State) -> impl Iterator<Item = &Group> {
    state.replicas.iter().flat_map(|replica| [&replica.group].into_iter().chain(replica.disk.outcomes()))
}

/// Whether what stands before `group`'s log, forgotten or never had, is what was decided.
fn begins_with_decided(decided: &[Entry], group: &Group) -> bool {
    let base = group.base();
    let last = base.index.0.checked_sub(1).map(|at| decided.get(at as usize));
    last.is_none_or(|last| last.is_some_and(|last| (last.origin, last.time) == (base.origin, base.time)))
}

/// A log begins where something else was decided, or nothing, or with another configuration.
fn not_decided_below(state: &State) -> Option<String> {
    let decided = &state.facts.decided;
    let group = groups(state).find(|group| !begins_with_decided(decided, group))?;
    let base = group.base();
    Some(format!(
        "the log of {} begins after {} of {}, which is not decided",
        group.me(),
        base.index,
        base.origin
    ))
}

fn known_beyond_promise(state: &State) -> Option<String> {
    let learnt_in = state.facts.learnt_in.as_ref()?;
    groups(state).find_map(|group| {
        let last = group.decided_index().0.checked_sub(1)?;
        let (known, promised) = (learnt_in.get(last as usize)?, group.promised());
        let index = group.decided_index();
        (promised < *known).then(|| {
            format!(
                "{} knows {index} to be decided, in {known} at the lowest, and has promised {promised}",
                group.me()
            )
        })
    })
}

fn reads_beside_another(state: &State) -> Option<String> {
    let newest = state.facts.elected.last()?;
    let leading =
        state.replicas.iter().filter_map(|replica| Some((&replica.group, replica.group.leading()?)));
    let mut deposed = leading.filter(|(_, ballot)| ballot < newest);
    // To be asked leaves a mark, so a copy is asked.
    let (group, ballot) = deposed.find(|(group, _)| Group::clone(group).lease_until(state.now).is_some())?;
    Some(format!("{} may read in {ballot}, and {newest} was elected", group.me()))
}

fn not_durable(state: &State) -> Option<String> {
    let decided = &state.facts.decided;
    let config = decided.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Config(config) => Some(config.as_ref()),
        _ => None,
    });
    let config = config.unwrap_or(&state.facts.founding);
    decided.iter().find_map(|entry| {
        // What a snapshot covers it holds, for that is what was decided.
        let holds = |disk: &Group| match disk.entry(entry.index) {
            Some(held) => held.origin == entry.origin,
            None => entry.index <= disk.base().index,
        };
        let has = |id: ReplicaId| {
            let replica = state.replica(id);
            replica.disk.outcomes().all(holds) || replica.lost.as_ref().is_some_and(|disk| holds(disk))
        };
        let count = config.voters.iter().filter(|voter| has(**voter)).count();
        (!config.majority(has)).then(|| format!("{entry:#} is decided, and on {count} disks only"))
    })
}

fn two_logs(state: &State) -> Option<String> {
    let groups = || state.replicas.iter().map(|replica| &replica.group);
    let pairs = groups()
        .flat_map(|one| groups().filter(move |other| one.me() < other.me()).map(move |other| (one, other)));
    pairs.filter(|(one, other)| one.accepted_ballot() == other.accepted_ballot()).find_map(|(one, other)| {
        let last = one.accepted_index().min(other.accepted_index());
        // What either has forgotten was decided.
        let first = one.base().index.max(other.base().index).next();
        let differs = |at: &Index| one.entry(*at) != other.entry(*at);
        let at = (first.0..=last.0).map(Index).find(differs)?;
        Some(format!("{} and {} differ at {at} in {}", one.me(), other.me(), one.accepted_ballot()))
    })
}

/// Something that must come about in some state, or the search has seen too little to say anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    CommandDecided,
    DecidedInTwoBallots,
    TwoLeaders,
    ReadAnswered,
    ReadByLease,
    Repaired,
    SetChanged,
    SnapshotInstalled,
    AcceptedAfterSnapshot,
    LedFromSnapshot,
    BackFromCheckpoint,
    AllHasHappened,
}

impl Wanted {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Wanted::CommandDecided => "a command is decided",
            Wanted::DecidedInTwoBallots => "entries of two ballots are decided",
            Wanted::TwoLeaders => "two lead at once",
            Wanted::ReadAnswered => "a read is answered",
            Wanted::ReadByLease => "a read is answered by a lease",
            Wanted::Repaired => "a replica with rot counts again",
            Wanted::SetChanged => "a change of the replica set is decided",
            Wanted::SnapshotInstalled => "a snapshot is installed",
            Wanted::AcceptedAfterSnapshot => "entries are accepted after a snapshot",
            Wanted::LedFromSnapshot => "somebody leads whose log begins after a snapshot",
            Wanted::BackFromCheckpoint => "a replica comes back by a checkpoint alone",
            Wanted::AllHasHappened => "all that may happen has happened",
        }
    }

    pub(crate) fn holds(self, state: &State) -> bool {
        let decided = &state.facts.decided;
        let groups = || state.replicas.iter().map(|replica| &replica.group);
        let disks = || state.replicas.iter().map(|replica| &replica.disk.whole);
        let begins_later = |group: &Group| group.base().index > Index::ZERO;
        let is_unaccepted = |group: &Group| group.accepted_ballot() == Ballot::ZERO;
        match self {
            Wanted::CommandDecided => decided.iter().any(|entry| number_of(&entry.payload).is_some()),
            Wanted::DecidedInTwoBallots => decided.windows(2).any(|pair| pair[0].origin != pair[1].origin),
            Wanted::TwoLeaders => {
                state.replicas.iter().filter(|replica| replica.group.leading().is_some()).count() > 1
            }
            Wanted::ReadAnswered => state.facts.answered > 0,
            Wanted::ReadByLease => state.facts.answered_by_lease > 0,
            Wanted::Repaired => {
                state.left.rots == 0 && state.replicas.iter().all(|replica| replica.lost.is_none())
            }
            Wanted::SetChanged => decided.iter().any(|entry| matches!(entry.payload, Payload::Config(_))),
            // Only a snapshot takes a log further that is accepted in no ballot.
            Wanted::SnapshotInstalled => groups().any(|group| begins_later(group) && is_unaccepted(group)),
            Wanted::AcceptedAfterSnapshot => {
                disks().any(|disk| begins_later(disk) && disk.accepted_index() > disk.base().index)
            }
            Wanted::LedFromSnapshot => groups()
                .any(|group| begins_later(group) && group.leading().is_some_and(|ballot| ballot.round > 1)),
            Wanted::BackFromCheckpoint => {
                state.left.crashes == 0 && disks().any(|disk| begins_later(disk) && !is_unaccepted(disk))
            }
            Wanted::AllHasHappened => state.left == Budget::default(),
        }
    }

    pub(crate) fn property(self) -> Property<Council> {
        let name = self.name();
        match self {
            Wanted::CommandDecided => {
                Property::sometimes(name, |_, state| Wanted::CommandDecided.holds(state))
            }
            Wanted::DecidedInTwoBallots => {
                Property::sometimes(name, |_, state| Wanted::DecidedInTwoBallots.holds(state))
            }
            Wanted::TwoLeaders => Property::sometimes(name, |_, state| Wanted::TwoLeaders.holds(state)),
            Wanted::ReadAnswered => Property::sometimes(name, |_, state| Wanted::ReadAnswered.holds(state)),
            Wanted::ReadByLease => Property::sometimes(name, |_, state| Wanted::ReadByLease.holds(state)),
            Wanted::Repaired => Property::sometimes(name, |_, state| Wanted::Repaired.holds(state)),
            Wanted::SetChanged => Property::sometimes(name, |_, state| Wanted::SetChanged.holds(state)),
            Wanted::SnapshotInstalled => {
                Property::sometimes(name, |_, state| Wanted::SnapshotInstalled.holds(state))
            }
            Wanted::AcceptedAfterSnapshot => {
                Property::sometimes(name, |_, state| Wanted::AcceptedAfterSnapshot.holds(state))
            }
            Wanted::LedFromSnapshot => {
                Property::sometimes(name, |_, state| Wanted::LedFromSnapshot.holds(state))
            }
            Wanted::BackFromCheckpoint => {
                Property::sometimes(name, |_, state| Wanted::BackFromCheckpoint.holds(state))
            }
            Wanted::AllHasHappened => {
                Property::sometimes(name, |_, state| Wanted::AllHasHappened.holds(state))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Action;
    use crate::configs::{self, Start};

    /// n1 leads, and one command is decided and known to n1: a no-op @1, the command @2.
    fn led() -> State {
        let start = Start::Led { commands: 1, without: None, tail: false };
        Council::new(3, configs::options(), start, Budget::default()).begin()
    }

    #[track_caller]
    fn expect(mut state: State, invariant: &str, seen: &str) {
        check(&mut state);
        let broken = state.broken.expect("it is broken");
        assert_eq!((broken.invariant, broken.seen.as_str()), (invariant, seen));
    }

    #[test]
    fn what_holds_breaks_nothing() {
        let mut state = led();
        assert_eq!(state.facts.decided.len(), 2);
        check(&mut state);
        assert_eq!(state.broken, None);
    }

    #[test]
    fn what_is_decided_must_be_on_a_majority_of_disks() {
        let mut state = led();
        state.facts.decided[1].origin = Ballot { round: 7, replica: ReplicaId(3) };
        expect(state, DURABILITY, "@2 command 1 of 7.n3 is decided, and on 0 disks only");
        // One disk that is empty is one that may be; with a second one, too much is lost.
        let mut state = led();
        let empty = Council::new(3, configs::options(), Start::Nobody, Budget::default()).begin();
        state.replicas[2] = Arc::clone(&empty.replicas[2]);
        let mut two = state.clone();
        check(&mut state);
        assert_eq!(state.broken, None);
        two.replicas[1] = Arc::clone(&empty.replicas[1]);
        expect(two, DURABILITY, "@1 no-op of 1.n1 is decided, and on 1 disks only");
    }

    #[test]
    fn nobody_is_elected_while_another_may_read() {
        let options = tholos_paxos::Options { leases: true, ..configs::options() };
        let start = Start::Led { commands: 1, without: None, tail: false };
        let mut state = Council::new(3, options, start, Budget::default()).begin();
        state.facts.elected.push(Ballot { round: 2, replica: ReplicaId(3) });
        let mut over = state.clone();
        expect(state, LEASE_EXCLUSION, "n1 may read in 1.n1, and 2.n3 was elected");
        over.now = tholos_paxos::LEASE;
        check(&mut over);
        assert_eq!(over.broken, None, "the lease is over");
    }

    #[test]
    fn two_logs_of_one_ballot_must_not_differ() {
        let mut state = led();
        // The same leader in another life, in which its first command was another one.
        let start = Start::Led { commands: 0, without: None, tail: false };
        let council = Council::new(3, configs::options(), start, Budget { commands: 1, ..Budget::default() });
        let mut other = council.begin();
        other.facts.proposed = 1;
        other = council.happened(&other, Action::Propose { at: ReplicaId(1) });
        council.settle(&mut other, |_| true);
        state.facts.decided.clear();
        state.replicas[1] = Arc::clone(&other.replicas[1]);
        expect(state, ONE_LOG, "n1 and n2 differ at @2 in 1.n1");
    }

    /// n1 leads and has forgotten what it has a snapshot of: a no-op @1, the command @2.
    fn trimmed() -> State {
        let start = Start::Trimmed { commands: 1, without: None };
        Council::new(3, configs::options(), start, Budget::default()).begin()
    }

    #[test]
    fn what_a_snapshot_covers_is_durable_and_what_was_decided() {
        let mut state = trimmed();
        assert_eq!(state.replicas[0].group.entry(Index(2)), None);
        check(&mut state);
        assert_eq!(state.broken, None);
        // With n1 alone it is too little.
        let empty = Council::new(3, configs::options(), Start::Nobody, Budget::default()).begin();
        let mut lacking = state.clone();
        lacking.replicas[1] = Arc::clone(&empty.replicas[1]);
        lacking.replicas[2] = Arc::clone(&empty.replicas[2]);
        expect(lacking, DURABILITY, "@1 no-op of 1.n1 is decided, and on 1 disks only");
        state.facts.decided[1].origin = Ballot { round: 2, replica: ReplicaId(3) };
        expect(state, AGREEMENT, "the log of n1 begins after @2 of 1.n1, which is not decided");
    }

    #[test]
    fn what_is_known_binds() {
        let mut state = trimmed();
        assert_eq!(state.facts.learnt_in, Some(vec![Ballot { round: 1, replica: ReplicaId(1) }; 2]));
        state.facts.learnt_in = Some(vec![Ballot { round: 2, replica: ReplicaId(3) }; 2]);
        let seen = "n1 knows @2 to be decided, in 2.n3 at the lowest, and has promised 1.n1";
        expect(state, KNOWN_IN_PROMISED, seen);
    }
}
