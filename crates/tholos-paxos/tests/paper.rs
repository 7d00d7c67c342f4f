//! One test for each sentence of the papers that this crate relies on. Sentences are told in our words, with
//! the section that says them; departures are in docs/protocol/divergence.md.
//!
//! - *Simple*: Lamport, "Paxos Made Simple", 2001.
//! - *Omni*: Ng, Haridi, Carbone, "Omni-Paxos: Breaking the Barriers of Partial Connectivity", EuroSys 2023.
//! - *VR*: Liskov, Cowling, "Viewstamped Replication Revisited", 2012.
//! - *Raft*: Ongaro, "Consensus: Bridging Theory and Practice", 2014.

use tholos_paxos::{
    Ballot, Entry, Index, Message, Millis, Options, Payload, ProposeError, Record, ReplicaId, RoleChange,
};

mod common;
use common::{Council, Envelope, Parcel, ballot, number_of, replica, value};

fn council(replicas: u32) -> Council {
    Council::new(replicas, Options::default())
}

/// Hands a message to a replica and returns what it says at once.
fn hand(council: &mut Council, from: u32, to: u32, message: Message) -> Vec<String> {
    let before = council.network.len();
    council.deliver(Envelope { from: replica(from), to: replica(to), parcel: Parcel::Message(message) });
    council.network.iter().skip(before).map(Envelope::to_string).collect()
}

/// What is under way, as text.
fn under_way(council: &Council) -> Vec<String> {
    council.network.iter().map(Envelope::to_string).collect()
}

fn entry(index: u64, origin: Ballot, number: u64) -> Entry {
    Entry { index: Index(index), origin, time: Millis(1_000), seed: number, payload: value(number) }
}

/// The whole log of a leader, sent again under its ballot.
fn sync(ballot: Ballot, entries: Vec<Entry>) -> Message {
    let whole_to = entries.last().map_or(Index::ZERO, |last| last.index);
    Message::Sync { ballot, from: Index(1), entries, whole_to }
}

fn prepare(ballot: Ballot) -> Message {
    Message::Prepare { ballot, decided: Index::ZERO, released: None }
}

fn is(envelope: &Envelope, wanted: impl Fn(&Message) -> bool) -> bool {
    matches!(&envelope.parcel, Parcel::Message(message) if wanted(message))
}

/// The numbers in the log of a replica, no-ops as 0.
fn values(council: &mut Council, number: u32) -> Vec<u64> {
    let group = council.group(number);
    let all = (1..=group.accepted_index().0).filter_map(|at| group.entry(Index(at)));
    all.map(|entry| number_of(&entry.payload).unwrap_or(0)).collect()
}

// --- Paxos Made Simple. ----------------------------------------------------------------------

/// Simple §2.2, P1: an acceptor must accept the first proposal that it receives.
#[test]
fn the_first_proposal_is_accepted() {
    let mut council = council(3);
    hand(&mut council, 1, 3, sync(ballot(1, 1), vec![entry(1, ballot(1, 1), 7)]));
    council.sync_all();
    assert_eq!(under_way(&council), ["n3 -> n1 Accepted 1.n1 to @1"]);
}

/// Simple §2.2, phase 1a: a proposer chooses a new number and asks a majority to promise it.
#[test]
fn a_candidate_prepares_a_number_of_its_own_above_all_it_has_seen() {
    let mut council = council(3);
    hand(&mut council, 3, 1, Message::Reject { promised: ballot(8, 3) });
    council.elect(1);
    assert_eq!(council.group(1).leading(), Some(ballot(9, 1)));
}

/// Simple §2.2, phase 1b: whoever promises a number tells the highest-numbered proposal that it has accepted.
#[test]
fn a_promise_tells_what_was_accepted() {
    let mut council = council(3);
    hand(&mut council, 1, 3, sync(ballot(1, 1), vec![entry(1, ballot(1, 1), 7), entry(2, ballot(1, 1), 8)]));
    council.sync_all();
    council.network.clear();
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    assert_eq!(under_way(&council), ["n3 -> n2 Promise 2.n2, log 1.n1 to @2, decided @0"]);
}

/// Simple §2.2, phase 1b: a promise is given only to a number greater than that of any prepare answered before.
#[test]
fn a_lower_prepare_is_not_promised() {
    let mut council = council(3);
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    assert_eq!(hand(&mut council, 1, 3, prepare(ballot(2, 1))), ["n3 -> n1 Reject, promised 2.n2"]);
    assert_eq!(council.group(3).promised(), ballot(2, 2));
}

/// The same number again is the same candidate, whose first promise may have been lost
/// (docs/protocol/divergence.md, "Equal ballots").
#[test]
fn an_equal_prepare_is_promised_again() {
    let mut council = council(3);
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    council.network.clear();
    assert_eq!(
        hand(&mut council, 2, 3, prepare(ballot(2, 2))),
        ["n3 -> n2 Promise 2.n2, log 0.n0 to @0, decided @0"]
    );
}

/// A prepare that comes late, when its ballot leads already, changes nothing.
#[test]
fn a_late_prepare_does_not_unseat_its_own_leader() {
    let mut council = council(3);
    let led = council.elect(1);
    assert!(hand(&mut council, 1, 3, prepare(led)).is_empty());
    assert_eq!(council.group(3).leader(), Some(led));
}

/// Simple §2.2, P1a and phase 2b: an acceptor accepts a proposal unless it has answered a prepare of a greater
/// number.
#[test]
fn a_promise_binds() {
    let mut council = council(3);
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    council.network.clear();
    let older = sync(ballot(1, 1), vec![entry(1, ballot(1, 1), 7)]);
    assert_eq!(hand(&mut council, 1, 3, older), ["n3 -> n1 Reject, promised 2.n2"]);
    assert_eq!(council.group(3).accepted_index(), Index::ZERO);
    hand(&mut council, 2, 3, sync(ballot(2, 2), vec![entry(1, ballot(2, 2), 9)]));
    assert_eq!(values(&mut council, 3), [9]);
}

/// Simple §2.2, phase 2a: the proposer proposes the value of the highest-numbered proposal among the answers of a
/// majority, here for the whole log.
#[test]
fn a_leader_adopts_the_log_of_the_highest_ballot() {
    let mut council = council(5);
    // n2 has a long log of a low ballot, n3 a short one of a higher ballot; n1, n4 and n5 have none.
    let (low, high) = (ballot(1, 4), ballot(2, 5));
    hand(&mut council, 4, 2, sync(low, (1..=3).map(|at| entry(at, low, 10 + at)).collect()));
    hand(&mut council, 5, 3, sync(high, vec![entry(1, high, 21)]));
    council.sync_all();
    council.network.clear();
    council.isolate(4);
    council.isolate(5);
    council.facts.propose([21]);
    assert_eq!(council.elect(1), ballot(3, 1));
    assert_eq!(values(&mut council, 1), [21, 0]);
    assert_eq!(council.group(1).entry(Index(1)).expect("adopted").origin, high);
}

/// Simple §2.2, phase 2a: if no answer reports a proposal, any value may be proposed.
#[test]
fn a_leader_of_an_empty_log_proposes_its_own() {
    let mut council = council(3);
    council.elect(1);
    council.propose(replica(1));
    council.settle();
    assert_eq!(values(&mut council, 3), [0, 1]);
}

/// Simple §2.2: a proposer abandons its proposal when somebody has begun a higher one, and an acceptor tells it so.
#[test]
fn a_leader_that_is_rejected_stops() {
    let mut council = Council::traced(3, Options::default());
    council.elect(1);
    council.take_trace();
    hand(&mut council, 3, 1, Message::Reject { promised: ballot(5, 3) });
    assert_eq!(council.group(1).leading(), None);
    assert_eq!(council.take_trace(), [format!("n1 {}", RoleChange::Stopped(ballot(1, 1)))]);
}

/// A rejection is only a hint: one of a ballot that is not higher changes nothing.
#[test]
fn a_rejection_of_an_old_ballot_is_ignored() {
    let mut council = council(3);
    council.elect(1);
    hand(&mut council, 3, 1, Message::Reject { promised: ballot(1, 1) });
    assert_eq!(council.group(1).leading(), Some(ballot(1, 1)));
}

/// Simple §2.3: a value is chosen once a majority has accepted it, whoever knows.
#[test]
fn a_value_is_decided_by_a_majority_not_by_fewer() {
    let mut council = council(5);
    council.elect(1);
    council.propose(replica(1));
    council.sync_all();
    let accepted_by = |envelope: &Envelope| {
        !is(envelope, |message| matches!(message, Message::Accepted { .. })) || envelope.from == replica(2)
    };
    for _ in 0..4 {
        council.deliver_where(accepted_by);
        council.sync_all();
    }
    assert_eq!(council.group(1).decided_index(), Index(1), "two of five have it");
    council.run(300);
    assert_eq!(council.group(1).decided_index(), Index(2));
}

/// Simple §2.3: a value may be chosen without anybody finding out; proposing again finds it.
#[test]
fn a_value_chosen_unknown_to_all_is_found_by_the_next_leader() {
    let mut council = council(3);
    council.elect(1);
    council.propose(replica(1));
    council.sync_all();
    council.deliver_where(|envelope| envelope.to == replica(3));
    council.sync_all();
    // n1 and n3 have it on disk: it is chosen. All else is lost, and n1 with it.
    council.network.clear();
    council.crash(replica(1));
    assert_eq!(council.facts.decided.len(), 1);
    council.elect(2);
    assert_eq!(values(&mut council, 2), [0, 1, 0]);
    assert_eq!(council.facts.decided.len(), 3);
}

/// Simple §2.4: two proposers that outbid each other for ever decide nothing; here candidates wait for different
/// times, so that one of them wins.
#[test]
fn candidates_that_start_together_end_with_one_leader() {
    for replicas in [3, 5] {
        let mut council = council(replicas);
        // All have waited long: every turn has come when they look again.
        council.tick_all(10);
        council.now = council.now.plus(Millis(500));
        council.run(2 * council.options.election_timeout.0);
        assert!(council.server().is_some(), "{replicas} candidates");
    }
}

/// Simple §2.5: an acceptor writes its answer to stable storage before it sends it. A promise …
#[test]
fn a_promise_waits_for_the_disk() {
    let mut council = council(3);
    assert!(hand(&mut council, 2, 3, prepare(ballot(2, 2))).is_empty());
    assert_eq!(council.at(replica(3)).disk.pending, [Record::Promised { ballot: ballot(2, 2) }]);
    council.make_durable(replica(3), 1);
    assert_eq!(under_way(&council), ["n3 -> n2 Promise 2.n2, log 0.n0 to @0, decided @0"]);
}

/// … and an acceptance …
#[test]
fn an_acceptance_waits_for_the_disk() {
    let mut council = council(3);
    assert!(hand(&mut council, 1, 3, sync(ballot(1, 1), vec![entry(1, ballot(1, 1), 7)])).is_empty());
    council.make_durable(replica(3), 1);
    assert_eq!(under_way(&council), ["n3 -> n1 Accepted 1.n1 to @1"]);
}

/// … and the leader's own vote, which is one like any other: followers may decide without its disk (R3).
#[test]
fn the_leaders_vote_waits_for_its_disk_and_the_council_does_not() {
    let mut council = council(3);
    council.elect(1);
    council.propose(replica(1));
    // n1's disk stands still; n2 has it: one vote.
    council.deliver_where(|envelope| envelope.to == replica(2));
    council.make_durable(replica(2), 1);
    council.deliver_where(|_| true);
    assert_eq!(council.group(1).decided_index(), Index(1));
    // With n3 there are two.
    council.run(0);
    let accept = Message::Accept {
        ballot: ballot(1, 1),
        entries: vec![council.group(1).entry(Index(2)).expect("proposed").clone()],
        decided: Index(1),
    };
    hand(&mut council, 1, 3, accept);
    council.make_durable(replica(3), 1);
    council.deliver_where(|_| true);
    assert_eq!(council.group(1).decided_index(), Index(2));
    assert!(council.group(1).waits_for_disk());
}

/// Simple §2.5: what was promised outlives a crash.
#[test]
fn a_promise_outlives_a_crash() {
    let mut council = council(3);
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    council.crash(replica(3));
    council.restart(replica(3));
    council.network.clear();
    assert_eq!(hand(&mut council, 1, 3, prepare(ballot(1, 1))), ["n3 -> n1 Reject, promised 2.n2"]);
}

/// Simple §2.5: different proposers choose their numbers from disjoint sets.
#[test]
fn ballots_of_different_replicas_differ() {
    for round in 0..4 {
        for (a, b) in [(1, 2), (2, 3), (3, 1)] {
            let start = ballot(round, 2);
            assert_ne!(start.next_for(replica(a)), start.next_for(replica(b)));
            assert!(start.next_for(replica(a)) > start);
        }
    }
    // And nobody may use another's.
    let mut council = council(3);
    assert_eq!(hand(&mut council, 1, 3, prepare(ballot(2, 2))), ["n3 -> n1 Reject, promised 0.n0"]);
}

/// Simple §2.5: a proposer remembers on stable storage the highest number it has tried, and begins with a higher
/// one (R2).
#[test]
fn a_restarted_candidate_takes_a_higher_ballot() {
    let mut council = council(3);
    assert_eq!(council.elect(1), ballot(1, 1));
    council.crash(replica(1));
    council.restart(replica(1));
    council.crash(replica(2));
    council.run(1_000);
    assert!(council.group(1).promised() > ballot(1, 1));
    let leader = council.server().expect("n1 and n3 are a majority");
    assert!(council.at(leader).group.as_ref().expect("up").leading() > Some(ballot(1, 1)));
}

/// R2: no prepare leaves before the candidate's own promise is durable.
#[test]
fn a_prepare_waits_for_the_candidates_own_promise() {
    let mut council = council(3);
    council.tick_all(10);
    council.deliver_where(|_| true);
    council.deliver_where(|_| true);
    assert_eq!(council.at(replica(1)).disk.pending, [Record::Promised { ballot: ballot(1, 1) }]);
    let prepares =
        |council: &Council| under_way(council).iter().filter(|line| line.contains("Prepare")).count();
    assert_eq!(prepares(&council), 0);
    council.make_durable(replica(1), 1);
    assert_eq!(prepares(&council), 2);
}

/// Simple §3: in normal operation one server leads and runs phase 2 only.
#[test]
fn a_leader_decides_in_one_round_trip() {
    let mut council = council(3);
    council.elect(1);
    council.propose(replica(1));
    assert_eq!(
        under_way(&council),
        [
            "n1 -> n2 Accept 1.n1 [@2 value 1 of 1.n1], decided @1",
            "n1 -> n3 Accept 1.n1 [@2 value 1 of 1.n1], decided @1"
        ]
    );
    council.deliver_where(|_| true);
    council.sync_all();
    council.deliver_where(|_| true);
    assert_eq!(council.group(1).decided_index(), Index(2));
}

/// Simple §3: a new leader runs phase 1 once for all instances.
#[test]
fn one_prepare_covers_the_whole_log() {
    let mut council = Council::traced(3, Options::default());
    council.elect(1);
    for _ in 0..5 {
        council.propose(replica(1));
    }
    council.settle();
    council.crash(replica(1));
    council.take_trace();
    council.elect(2);
    let trace = council.take_trace();
    assert_eq!(trace.iter().filter(|line| line.starts_with("n2 -> n3 Prepare")).count(), 1, "{trace:#?}");
}

/// Simple §3: a leader may propose more before it learns that the last is chosen, up to a bound.
#[test]
fn proposals_are_pipelined_up_to_the_window() {
    let mut council = Council::new(3, Options { window_entries_max: 3, ..Options::default() });
    council.elect(1);
    for at in 2..=4 {
        assert_eq!(council.try_propose(replica(1)), Ok(Index(at)));
    }
    assert_eq!(council.try_propose(replica(1)), Err(ProposeError::WindowFull));
    council.settle();
    assert_eq!(council.try_propose(replica(1)), Ok(Index(5)));
}

/// Simple §3: a new leader proposes a no-op; what stands before it is decided with it.
#[test]
fn a_new_leader_opens_with_a_no_op() {
    let mut council = council(3);
    council.elect(1);
    let first = council.group(2).entry(Index(1)).expect("the no-op").clone();
    assert_eq!(first.payload, Payload::Noop);
    assert_eq!(first.origin, ballot(1, 1));
}

/// Simple §3: several that believe to lead may block each other, but safety does not suffer.
#[test]
fn two_that_believe_to_lead_do_not_both_decide() {
    let mut council = council(3);
    council.elect(1);
    // Nobody hears n1, and it does not know: what is sent to it is late.
    council.links.age(0, true);
    council.elect_but(2, 1);
    assert_eq!(council.group(1).leading(), Some(ballot(1, 1)));
    council.propose(replica(1)).expect("n1 believes that it leads");
    council.propose(replica(2)).expect("n2 leads");
    for _ in 0..6 {
        council.sync_all();
        council.deliver_where(|_| true);
    }
    assert_eq!(council.group(1).decided_index(), Index(1));
    assert_eq!(council.group(2).decided_index(), Index(3));
}

// --- Omni-Paxos: Sequence Paxos. -------------------------------------------------------------

/// Simple §2.2, phase 1b: who has promised a higher number gives nothing to a lower candidate any more.
#[test]
fn a_log_is_fetched_only_in_the_ballot_promised() {
    let mut council = council(3);
    hand(&mut council, 1, 3, sync(ballot(1, 1), vec![entry(1, ballot(1, 1), 7)]));
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    let fetch = |ballot| Message::Fetch { ballot, from: Index(1) };
    assert_eq!(hand(&mut council, 1, 3, fetch(ballot(1, 1))), ["n3 -> n1 Reject, promised 2.n2"]);
    assert_eq!(
        hand(&mut council, 2, 3, fetch(ballot(2, 2))),
        ["n3 -> n2 Fetched 2.n2 [@1 value 7 of 1.n1] whole to @1"]
    );
}

/// Omni §4.1 (Prepare): the most updated log is that of the highest accepted round, and among these the longest.
#[test]
fn of_logs_of_one_ballot_the_longest_is_adopted() {
    let mut council = council(5);
    let ballot_1 = ballot(1, 5);
    hand(&mut council, 5, 2, sync(ballot_1, vec![entry(1, ballot_1, 11)]));
    hand(&mut council, 5, 3, sync(ballot_1, (1..=2).map(|at| entry(at, ballot_1, 10 + at)).collect()));
    council.sync_all();
    council.network.clear();
    council.isolate(4);
    council.isolate(5);
    council.facts.propose([11, 12]);
    council.elect(1);
    assert_eq!(values(&mut council, 1), [11, 12, 0]);
}

/// Omni §4.1: before new entries the leader brings each promised follower to its own log, and a follower accepts it
/// as a whole: its accepted round rises with it (R1).
#[test]
fn a_followers_ballot_rises_with_the_whole_log_in_one_record() {
    let mut council = council(3);
    let (old, new) = (ballot(1, 1), ballot(2, 2));
    hand(&mut council, 1, 3, sync(old, vec![entry(1, old, 7), entry(2, old, 8)]));
    council.sync_all();
    council.network.clear();
    let whole: Vec<Entry> = vec![entry(1, old, 7), entry(2, new, 20), entry(3, new, 21)];
    let piece = |from: usize, to: usize| Message::Sync {
        ballot: new,
        from: Index(1),
        entries: whole[from..to].to_vec(),
        whole_to: Index(3),
    };
    hand(&mut council, 2, 3, piece(0, 2));
    assert_eq!(council.group(3).accepted_ballot(), old, "a piece is not the whole");
    assert_eq!(values(&mut council, 3), [7, 8]);
    hand(&mut council, 2, 3, piece(2, 3));
    assert_eq!(council.group(3).accepted_ballot(), new);
    assert_eq!(values(&mut council, 3), [7, 20, 21]);
    let records = &council.at(replica(3)).disk.pending;
    assert!(matches!(records.iter().collect::<Vec<_>>()[..], [Record::Replaced { .. }]), "{records:?}");
}

/// R1: pieces of two leaders' logs are never put together.
#[test]
fn pieces_of_two_ballots_do_not_make_a_whole() {
    let mut council = council(3);
    let (first, second) = (ballot(1, 1), ballot(2, 2));
    let piece = |ballot, at: std::ops::Range<u64>| Message::Sync {
        ballot,
        from: Index(1),
        entries: at.map(|at| entry(at, ballot, 10 * ballot.round + at)).collect(),
        whole_to: Index(3),
    };
    hand(&mut council, 1, 3, piece(first, 1..2));
    hand(&mut council, 2, 3, piece(second, 2..4));
    assert_eq!(council.group(3).accepted_index(), Index::ZERO);
    assert_eq!(council.group(3).accepted_ballot(), Ballot::ZERO);
    hand(&mut council, 2, 3, piece(second, 1..2));
    hand(&mut council, 2, 3, piece(second, 2..4));
    assert_eq!(values(&mut council, 3), [21, 22, 23]);
}

/// Omni §4.1 (Accept): entries are accepted in order, only in the round of the log, and only at its end.
#[test]
fn entries_that_do_not_follow_are_not_accepted() {
    let mut council = council(3);
    let (old, new) = (ballot(1, 1), ballot(2, 2));
    hand(&mut council, 1, 3, sync(old, vec![entry(1, old, 7)]));
    council.sync_all();
    council.network.clear();
    let accept =
        |ballot, at| Message::Accept { ballot, entries: vec![entry(at, ballot, 9)], decided: Index(9) };
    assert_eq!(
        hand(&mut council, 1, 3, accept(old, 3)),
        ["n3 -> n1 Behind 1.n1, log 1.n1 to @1, decided @0"],
        "a hole"
    );
    assert_eq!(
        hand(&mut council, 2, 3, accept(new, 2)),
        ["n3 -> n2 Behind 2.n2, log 1.n1 to @1, decided @0"],
        "another ballot"
    );
    assert_eq!(values(&mut council, 3), [7]);
    assert_eq!(council.group(3).decided_index(), Index::ZERO);
}

/// Omni §4.1 (Decide): a decided index is obeyed only in the round that the log is accepted in (R1).
#[test]
fn a_decided_mark_of_another_ballot_is_not_obeyed() {
    let mut council = council(3);
    let (old, new) = (ballot(1, 1), ballot(2, 2));
    hand(&mut council, 1, 3, sync(old, vec![entry(1, old, 7)]));
    let decide = |ballot| Message::Decide { ballot, decided: Index(1), length: Index::ZERO };
    hand(&mut council, 2, 3, decide(new));
    assert_eq!(council.group(3).decided_index(), Index::ZERO);
    council.facts.propose([7]);
    // Two disks must have it, or the council itself objects.
    hand(&mut council, 1, 2, sync(old, vec![entry(1, old, 7)]));
    council.sync_all();
    hand(&mut council, 1, 3, decide(old));
    assert_eq!(council.group(3).decided_index(), Index(1));
}

/// Omni §4.1.3: a server that missed messages asks and is brought up to date.
#[test]
fn a_follower_that_was_away_catches_up() {
    let mut council = council(3);
    council.elect(1);
    council.isolate(3);
    for _ in 0..5 {
        council.propose(replica(1));
        council.settle();
    }
    council.heal();
    council.run(500);
    assert_eq!(council.group(3).applied_index(), Index(6));
}

// --- Omni-Paxos: ballot leader election and partial partitions. ------------------------------

/// Omni §5 (LE3): ballots of elected leaders rise, and no two leaders share one. The council checks that no ballot
/// leads twice; here, that they rise.
#[test]
fn elected_ballots_rise() {
    let mut council = council(3);
    let mut last = Ballot::ZERO;
    for leader in [2, 3, 1, 2] {
        council.heal();
        council.run(200);
        if let Some(server) = council.server() {
            council.isolate(server.0);
        }
        let ballot = council.elect(leader);
        assert!(ballot > last);
        last = ballot;
    }
}

/// Omni §5: only a server that is connected to a quorum may stand.
#[test]
fn a_replica_without_a_quorum_does_not_stand() {
    let mut council = council(3);
    council.isolate(3);
    council.tick_all(10);
    council.now = council.now.plus(Millis(1_000));
    council.tick(replica(3));
    assert!(council.network.iter().all(|envelope| envelope.from != replica(3)));
    assert_eq!(council.group(3).promised(), Ballot::ZERO);
}

/// R9: a quorum must call the leader lost; a replica that alone does not hear it raises no ballot.
#[test]
fn one_that_alone_misses_the_leader_disturbs_nobody() {
    let mut council = council(3);
    let led = council.elect(1);
    council.run(100);
    council.cut_between(1, 3);
    council.run(3_000);
    assert_eq!(council.group(1).leading(), Some(led));
    assert_eq!(council.group(3).promised(), led);
}

/// R9: a leader that hears no quorum falls silent.
#[test]
fn a_leader_without_a_quorum_stops() {
    let mut council = council(3);
    council.elect(1);
    let token = council.read(replica(1)).expect("n1 leads");
    council.isolate(1);
    council.tick_all(10);
    assert_eq!(council.group(1).leading(), None);
    assert_eq!(council.facts.reads_failed, [token]);
}

/// What a partial partition may cost at most: four election time-outs.
fn recovers(council: &mut Council, among: &[u32]) {
    let before = council.facts.decided.len();
    council.run(4 * council.options.election_timeout.0);
    let server = council.server().expect("somebody serves");
    assert!(among.contains(&server.0), "{server} serves");
    council.propose(server).expect("it serves");
    council.run(100);
    assert!(council.facts.decided.len() > before);
}

/// Omni §2, quorum loss: the leader lives and is heard by the hub, but has lost its quorum; everybody is connected
/// to the hub alone. The hub must take over.
#[test]
fn quorum_loss_is_recovered() {
    let mut council = council(5);
    council.elect(2);
    // n1 is the hub.
    for a in 2..=5 {
        for b in a + 1..=5 {
            council.cut_between(a, b);
        }
    }
    recovers(&mut council, &[1]);
}

/// Omni §2, constrained election: the leader is gone and only one server has a quorum, but its log is behind. It must
/// lead nevertheless, with the log of another.
#[test]
fn constrained_election_is_recovered() {
    let mut council = council(5);
    council.elect(2);
    council.isolate(1);
    for _ in 0..3 {
        council.propose(replica(2));
    }
    council.settle();
    council.heal();
    // n2 is cut off; n3, n4 and n5 hear n1 alone, and n1 has nothing of the last three.
    council.isolate(2);
    for (a, b) in [(3, 4), (3, 5), (4, 5)] {
        council.cut_between(a, b);
    }
    assert_eq!(council.group(1).accepted_index(), Index(1));
    recovers(&mut council, &[1]);
    assert!(council.group(1).accepted_index() > Index(4));
}

/// Omni §2, chained: the ends of a chain do not hear each other; leadership must not go to and fro.
#[test]
fn a_chain_does_not_livelock() {
    let mut council = council(3);
    council.elect(1);
    council.run(100);
    council.cut_between(1, 3);
    recovers(&mut council, &[1, 2]);
    let ballot = council.server().map(|server| council.group(server.0).leading());
    council.run(3_000);
    assert_eq!(council.server().map(|server| council.group(server.0).leading()), ballot, "leadership moved");
}

// --- Viewstamped Replication Revisited. ------------------------------------------------------

/// VR §5.1, §5.2: logs are kept short by checkpoints; who lacks what is forgotten gets the checkpoint, then the log.
#[test]
fn who_lacks_what_is_forgotten_gets_a_snapshot() {
    let mut council = Council::traced(3, Options::default());
    council.isolate(3);
    council.elect(1);
    for _ in 0..3 {
        council.propose(replica(1));
    }
    council.settle();
    council.snapshot(replica(1), true);
    council.propose(replica(1));
    council.settle();
    council.heal();
    council.take_trace();
    council.run(500);
    let trace = council.take_trace();
    assert!(trace.contains(&"n3 installs a snapshot to @5".to_string()), "{trace:#?}");
    assert_eq!(council.group(3).applied_index(), Index(5));
}

/// VR §4.3: a replica that recovers takes no part before it knows what it had promised. Ours reads it from disk;
/// after a checkpoint from the checkpoint alone (R22).
#[test]
fn a_checkpoint_is_all_that_recovery_needs() {
    let mut council = council(3);
    council.elect(1);
    council.propose(replica(1));
    council.settle();
    council.snapshot(replica(1), true);
    council.propose(replica(1));
    council.settle();
    let records = &mut council.at(replica(1)).disk.durable;
    let last =
        records.iter().rposition(|record| matches!(record, Record::Checkpoint(_))).expect("a checkpoint");
    records.drain(..last);
    council.crash(replica(1));
    council.restart(replica(1));
    let group = council.group(1);
    assert_eq!((group.promised(), group.accepted_ballot()), (ballot(1, 1), ballot(1, 1)));
    assert_eq!((group.base().index, group.accepted_index()), (Index(2), Index(3)));
    council.run(1_000);
    assert!(council.server().is_some());
}

// --- Raft: reads by index, transfer. ---------------------------------------------------------

/// Raft §6.4, step 1: a leader answers no read before an entry of its own term is decided (R15).
#[test]
fn no_read_before_the_leaders_own_no_op_is_decided() {
    let mut council = council(3);
    council.tick_all(10);
    let mut asked = None;
    for _ in 0..20 {
        if asked.is_none() && council.group(1).leading().is_some() {
            assert!(!council.group(1).serving());
            asked = council.read(replica(1));
        }
        let confirmed = council.facts.reads_ready.len();
        assert!(confirmed == 0 || council.group(1).decided_index() >= Index(1));
        council.sync_all();
        council.deliver_where(|_| true);
    }
    assert_eq!(council.facts.reads_ready, [asked.expect("n1 led")]);
}

/// Raft §6.4, step 3: a majority must confirm the leader after the read arrived.
#[test]
fn a_read_waits_for_a_quorum_to_confirm() {
    let mut council = council(5);
    council.elect(1);
    let token = council.read(replica(1)).expect("n1 leads");
    let confirm = |by: u32| Message::Confirmed { ballot: ballot(1, 1), round: u64::from(by.min(1)) };
    council.network.clear();
    hand(&mut council, 2, 1, confirm(2));
    assert!(council.facts.reads_ready.is_empty(), "n1 and n2 are two of five");
    hand(&mut council, 2, 1, confirm(2));
    assert!(council.facts.reads_ready.is_empty(), "n2 counts once");
    hand(&mut council, 3, 1, confirm(3));
    assert_eq!(council.facts.reads_ready, [token]);
}

/// Raft §6.4: one round confirms all reads that waited when it was sent, and none that came later (R15).
#[test]
fn a_round_confirms_what_came_before_it() {
    let mut council = Council::new(3, Options { read_rounds_max: 1, ..Options::default() });
    council.elect(1);
    let first = council.read(replica(1)).expect("n1 leads");
    let later = council.read(replica(1)).expect("n1 leads");
    council.network.clear();
    hand(&mut council, 2, 1, Message::Confirmed { ballot: ballot(1, 1), round: 1 });
    assert_eq!(council.facts.reads_ready, [first]);
    council.settle();
    assert_eq!(council.facts.reads_ready, [first, later]);
}

/// R15: a replica confirms only while its promise is exactly the leader's ballot.
#[test]
fn who_has_promised_another_confirms_nothing() {
    let mut council = council(3);
    council.elect(1);
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    let answer = hand(&mut council, 1, 3, Message::Confirm { ballot: ballot(1, 1), round: 1 });
    assert_eq!(answer, ["n3 -> n1 Reject, promised 2.n2"]);
    // Nor does one that has not promised it yet.
    let answer = hand(&mut council, 3, 2, Message::Confirm { ballot: ballot(7, 3), round: 1 });
    assert!(answer.is_empty(), "{answer:?}");
}

/// Raft §3.10: a leader that hands over stops taking proposals, brings its heir up to date and tells it to stand at
/// once; no time-out passes (R10).
#[test]
fn a_transfer_takes_no_time_out() {
    let mut council = council(3);
    let led = council.elect(1);
    council.propose(replica(1));
    assert!(council.transfer(replica(1), replica(3)));
    assert_eq!(council.try_propose(replica(1)), Err(ProposeError::Draining));
    assert_eq!(council.read(replica(1)), None);
    // Not a tick: messages and disks alone.
    council.settle();
    assert_eq!(council.server(), Some(ReplicaId(3)));
    assert!(council.group(3).leading() > Some(led));
    assert_eq!(council.group(3).decided_index(), Index(3));
}

/// R10: a leader drains before it lets go, so that no proposal of its own is left with an unknown fate.
#[test]
fn a_transfer_waits_for_what_is_under_way() {
    let mut council = council(5);
    council.elect(1);
    council.propose(replica(1));
    council.transfer(replica(1), replica(2));
    // The heir has it, and so has n1: two of five.
    council.deliver_where(|envelope| envelope.to == replica(2));
    council.sync_all();
    council.deliver_where(|_| true);
    assert_eq!(council.group(1).leading(), Some(ballot(1, 1)), "n1 let go too early");
    council.run(300);
    assert_eq!(council.server(), Some(replica(2)));
}

/// Raft §3.10: if the transfer does not come about within an election time-out, the leader goes on (R10).
#[test]
fn a_transfer_that_fails_ends() {
    let mut council = council(3);
    council.elect(1);
    council.cut_between(1, 3);
    council.propose(replica(1));
    council.transfer(replica(1), replica(3));
    council.run(council.options.election_timeout.0 - 50);
    assert_eq!(council.try_propose(replica(1)), Err(ProposeError::Draining));
    council.run(100);
    assert!(council.try_propose(replica(1)).is_ok());
}

/// R10: only who has the whole log of the ballot given up, and has promised no other, is its heir.
#[test]
fn an_old_release_raises_nobody() {
    let mut council = council(3);
    let led = council.elect(1);
    hand(&mut council, 2, 3, prepare(ballot(2, 2)));
    council.sync_all();
    council.network.clear();
    assert!(hand(&mut council, 1, 3, Message::Released { ballot: led }).is_empty());
    assert_eq!(council.group(3).promised(), ballot(2, 2));
    assert!(council.replicas.iter().all(|replica| replica.disk.pending.is_empty()));
}

/// R10: whoever has handed over never serves in that ballot again.
#[test]
fn who_has_let_go_does_not_come_back_in_that_ballot() {
    let mut council = council(3);
    let led = council.elect(1);
    council.transfer(replica(1), replica(2));
    council.network.clear();
    council.run(2_000);
    let server = council.server().expect("somebody serves");
    assert!(council.group(server.0).leading() > Some(led));
}

// --- What has no paper. ----------------------------------------------------------------------

/// R8: one replica alone is a council, for development.
#[test]
fn a_council_of_one_decides_when_its_disk_does() {
    let mut council = council(1);
    council.run(100);
    assert_eq!(council.server(), Some(replica(1)));
    council.propose(replica(1));
    assert_eq!(council.group(1).decided_index(), Index(1));
    council.sync_all();
    assert_eq!(council.group(1).decided_index(), Index(2));
}

/// R16: shard time never runs back, whatever the proposer's clock says.
#[test]
fn time_does_not_run_back() {
    let mut council = council(3);
    council.elect(1);
    let at = council.now;
    council.propose(replica(1));
    council.now = Millis(5);
    council.propose(replica(1));
    let group = council.group(1);
    let times: Vec<Millis> = (2..=3).map(|at| group.entry(Index(at)).expect("proposed").time).collect();
    assert_eq!(times, [at, at]);
}

/// An idle group sends and writes nothing.
#[test]
fn an_idle_group_is_silent() {
    let mut council = council(3);
    council.elect(1);
    council.propose(replica(1));
    council.settle();
    council.run(200);
    for _ in 0..300 {
        council.tick_all(10);
        assert_eq!(under_way(&council), [""; 0]);
        assert!(council.replicas.iter().all(|replica| replica.disk.pending.is_empty()));
    }
}

/// Records that cannot follow each other are refused at recovery, and the replica must not run.
#[test]
fn recovery_refuses_records_that_do_not_follow() {
    let check = |records: Vec<Record>, expected: &str| {
        let mut group = tholos_paxos::Group::new(replica(1), Council::config(3), Options::default());
        let result = records.into_iter().try_for_each(|record| group.recover(record));
        assert_eq!(result, Err(expected));
    };
    let first = ballot(1, 1);
    let accepted = |ballot, decided, at| Record::Accepted {
        ballot,
        decided: Index(decided),
        entries: vec![entry(at, ballot, 1)],
    };
    let replaced =
        |from, at| Record::Replaced { ballot: first, from: Index(from), entries: vec![entry(at, first, 1)] };
    check(vec![accepted(first, 0, 1)], "entries of another ballot than the log's");
    check(vec![replaced(1, 1), accepted(first, 0, 3)], "an entry that does not follow the last one");
    check(vec![replaced(1, 1), accepted(first, 3, 2)], "a log decided beyond its end");
    check(vec![replaced(3, 3)], "a replaced log that does not fit");
    check(vec![replaced(1, 2)], "an entry that does not follow the last one");
    check(
        vec![replaced(1, 1), accepted(first, 1, 2), replaced(1, 1)],
        "a replaced log below what is decided",
    );
}
