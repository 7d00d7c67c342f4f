//! Paxos Made Simple.

use tholos_paxos::{Index, Message, Millis, Options, Payload, ProposeError, Record, RoleChange};

use crate::common::{Council, Envelope, ballot, replica};
use crate::{council, entry, hand, is, prepare, sync, under_way, values};

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

/// Ours: the same number again is the same candidate, whose first promise may have been lost
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

/// Ours: a prepare that comes late, when its ballot leads already, changes nothing.
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

/// Ours: a rejection is only a hint, and one of a ballot that is not higher changes nothing.
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

/// Simple §2.5: an acceptor writes a promise to stable storage before it sends it.
#[test]
fn a_promise_waits_for_the_disk() {
    let mut council = council(3);
    assert!(hand(&mut council, 2, 3, prepare(ballot(2, 2))).is_empty());
    assert_eq!(council.at(replica(3)).disk.pending, [Record::Promised { ballot: ballot(2, 2) }]);
    council.make_durable(replica(3), 1);
    assert_eq!(under_way(&council), ["n3 -> n2 Promise 2.n2, log 0.n0 to @0, decided @0"]);
}

/// Simple §2.5: an acceptor writes what it accepts to stable storage before it says so.
#[test]
fn an_acceptance_waits_for_the_disk() {
    let mut council = council(3);
    assert!(hand(&mut council, 1, 3, sync(ballot(1, 1), vec![entry(1, ballot(1, 1), 7)])).is_empty());
    council.make_durable(replica(3), 1);
    assert_eq!(under_way(&council), ["n3 -> n1 Accepted 1.n1 to @1"]);
}

/// R3: the leader's own vote waits for its disk as any other, and followers may decide without it.
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
