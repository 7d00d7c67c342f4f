//! Omni-Paxos: Sequence Paxos, ballot leader election, partial partitions.

use tholos_paxos::{Ballot, Entry, Index, Message, Millis, Record};

use crate::common::{Council, ballot, replica};
use crate::{council, entry, hand, prepare, sync, values};

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
