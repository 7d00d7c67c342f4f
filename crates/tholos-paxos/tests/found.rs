//! What review and random schedules have found wrong once, each as the smallest scenario that shows it.

use tholos_paxos::{Ballot, Entry, Index, Message, Millis, Options, Payload, ReplicaId, Serial};

mod common;
use common::{Council, Envelope, Parcel, ballot, replica};

fn is_message(envelope: &Envelope, wanted: impl Fn(&Message) -> bool) -> bool {
    matches!(&envelope.parcel, Parcel::Message(message) if wanted(message))
}

/// A leader's log that holds nothing after a snapshot has nothing to re-send; the follower must still be
/// told to take it over under the new ballot, or it neither votes nor confirms reads (R1, R15).
#[test]
fn a_follower_fresh_from_a_snapshot_counts_in_an_idle_group() {
    let mut council = Council::new(3, Options::default());
    council.isolate(3);
    council.elect(1);
    council.propose(replica(1));
    council.settle();
    council.snapshot(replica(1), true);
    council.heal();
    council.run(1_000);
    let end = council.group(1).accepted_index();
    assert_eq!(council.group(3).decided_index(), end);
    assert_eq!(council.group(3).accepted_ballot(), ballot(1, 1));
    // n1 and n3 alone are a quorum now.
    council.isolate(2);
    let read = council.read(replica(1)).expect("n1 leads");
    council.run(100);
    assert!(council.facts.reads_ready.contains(&read));
}

/// A snapshot shows that the ballot of its sender has decided: whoever takes it over must not vote in a lower
/// one, for its log is none of a lower ballot's (R1).
#[test]
fn a_snapshot_binds_to_the_ballot_of_its_sender() {
    let mut council = Council::new(5, Options::default());
    let old = council.elect(1);
    // n1 and n3 on one side, the others on the other; n1 still believes that it leads.
    for (a, b) in [(1, 2), (1, 4), (1, 5), (3, 2), (3, 4), (3, 5)] {
        council.cut_between(a, b);
    }
    for _ in 0..2 {
        council.propose(replica(1)).expect("n1 leads");
    }
    council.settle();
    assert_eq!(council.group(3).accepted_index(), Index(3));
    let new = council.elect(2);
    for _ in 0..3 {
        council.propose(replica(2)).expect("n2 leads");
    }
    council.settle();
    council.snapshot(replica(2), true);
    council.settle();
    // n3 comes over and gets the snapshot to @5.
    for other in [2, 4, 5] {
        let (a, b) = (3 - 1, other - 1);
        (council.links.cut[a][b], council.links.cut[b][a]) = (false, false);
    }
    council.now = council.now.plus(Millis(200));
    council.tick(replica(2));
    for _ in 0..4 {
        council.deliver_where(|envelope| envelope.from != replica(1) && envelope.to != replica(1));
        council.sync_all();
    }
    assert_eq!(council.group(3).applied_index(), Index(5));
    assert!(council.group(3).promised() >= new, "n3 has promised only {}", council.group(3).promised());
    // But it is not the whole of that leader's log, so it does not count as accepted in its ballot.
    assert_eq!(council.group(3).accepted_ballot(), old);
    // The old leader goes on where it stood; n3 must not follow it.
    let stray = Entry { index: Index(6), origin: old, time: council.now, seed: 0, payload: Payload::Noop };
    let accept = Message::Accept { ballot: old, entries: vec![stray], decided: Index(1) };
    council.network.clear();
    council.deliver(Envelope { from: replica(1), to: replica(3), parcel: Parcel::Message(accept) });
    assert_eq!(
        council.group(3).entry(Index(6)),
        None,
        "n3 took an entry of {old} on top of what {new} decided"
    );
    let answers: Vec<String> = council.network.iter().map(Envelope::to_string).collect();
    assert_eq!(answers, ["n3 -> n1 Reject, promised 2.n2"]);
}

/// A leader that restarts before anybody has missed it leads no more, but all believe it does: its own
/// canvass must tell them.
#[test]
fn a_leader_that_restarts_at_once_is_replaced() {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    council.crash(replica(1));
    council.restart(replica(1));
    council.run(4 * council.options.election_timeout.0);
    assert!(council.server().is_some(), "nobody serves");
}

/// The same when its word to the heir is lost.
#[test]
fn a_release_that_is_lost_ends_in_an_election() {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    assert!(council.transfer(replica(1), replica(2)));
    assert_eq!(council.group(1).leading(), None);
    council.deliver_where(|envelope| {
        !is_message(envelope, |message| matches!(message, Message::Released { .. }))
    });
    council.run(4 * council.options.election_timeout.0);
    assert!(council.server().is_some(), "nobody serves");
}

/// A mark that is lost in an otherwise idle group comes again.
#[test]
fn a_lost_decided_mark_is_told_again() {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    council.propose(replica(1));
    // The marks are all that is lost.
    for _ in 0..10 {
        council.sync_all();
        council.deliver_where(|envelope| {
            !is_message(envelope, |message| matches!(message, Message::Decide { .. }))
        });
    }
    council.tick_all(10);
    council
        .deliver_where(|envelope| !is_message(envelope, |message| matches!(message, Message::Decide { .. })));
    assert_eq!(council.group(1).decided_index(), Index(2));
    assert_eq!(council.group(2).decided_index(), Index(1));
    council.run(1_000);
    assert_eq!(council.group(2).decided_index(), Index(2), "n2 never learns");
    // And then the group is idle: it says nothing any more.
    council.tick_all(10);
    council.tick_all(1_000);
    assert_eq!(council.network.len(), 0, "an idle group talks: {:?}", council.network);
}

/// A mark told to a follower that could not yet use it must be told again once it can.
#[test]
fn a_mark_that_did_not_fit_is_told_again() {
    let mut council = Council::new(3, Options::default());
    council.isolate(3);
    council.elect(1);
    council.propose(replica(1));
    council.settle();
    council.heal();
    // Only the leader's clock goes on.
    for _ in 0..50 {
        council.now = council.now.plus(Millis(10));
        council.tick(replica(1));
        council.settle();
    }
    assert_eq!(council.group(3).decided_index(), Index(2));
}

/// All that a follower may have unanswered has arrived, but its answers are lost: asked where it stands, it
/// must also say what it holds, or it gets nothing more.
#[test]
fn a_follower_whose_answers_are_lost_goes_on() {
    let mut council = Council::new(3, Options { follower_entries_max: 2, ..Options::default() });
    council.elect(1);
    for _ in 0..6 {
        council.propose(replica(1)).expect("n1 serves");
        for _ in 0..6 {
            council.sync_all();
            council.deliver_where(|envelope| {
                let answer = is_message(envelope, |message| matches!(message, Message::Accepted { .. }));
                !(answer && envelope.from == replica(3))
            });
        }
    }
    assert_eq!(council.group(3).accepted_index(), Index(3));
    council.run(1_000);
    assert_eq!(council.group(3).applied_index(), Index(7));
}

/// However large entries are, a slow follower has so many bytes of them on their way to it and no more, and one entry
/// whatever its size. It gets the rest as it answers.
#[test]
fn a_slow_follower_is_sent_so_many_bytes_and_no_more() {
    // Two entries have 142 bytes, three 213.
    for (follower_bytes_max, sent) in [(1, 1), (141, 1), (142, 2), (212, 2), (213, 3)] {
        let mut council = Council::new(3, Options { follower_bytes_max, ..Options::default() });
        council.elect(1);
        let lost = |envelope: &Envelope| {
            let answer = is_message(envelope, |message| matches!(message, Message::Accepted { .. }));
            answer && envelope.from == replica(3)
        };
        for _ in 0..6 {
            council.propose(replica(1)).expect("n1 serves");
            for _ in 0..6 {
                council.sync_all();
                council.deliver_where(|envelope| !lost(envelope));
                council.network.retain(|envelope| !lost(envelope));
            }
        }
        let (decided, arrived) = (council.group(1).decided_index(), council.group(3).accepted_index());
        assert_eq!((decided, arrived), (Index(7), Index(1 + sent)), "of {follower_bytes_max}");
        council.run(1_000);
        assert_eq!(council.group(3).applied_index(), Index(7));
    }
}

/// A late snapshot must not move the ground under what a candidate fetches.
#[test]
fn a_late_snapshot_does_not_disturb_a_candidate() {
    let mut council = Council::new(5, Options { message_bytes_max: 1, ..Options::default() });
    council.isolate(5);
    council.elect(1);
    for _ in 0..4 {
        council.propose(replica(1)).expect("n1 serves");
    }
    council.settle();
    // A snapshot for n5 is on its way, and late.
    council.snapshot(replica(1), false);
    council.settle();
    let file = council.group(1).applied_base();
    let config = council.group(1).applied_config().clone();
    let state = council.at(replica(1)).state.clone();
    // n1 is gone; n5 stands and has to fetch.
    council.crash(replica(1));
    for (a, b) in [(5, 2), (5, 3), (5, 4)] {
        let (a, b) = (a - 1, b - 1);
        (council.links.cut[a][b], council.links.cut[b][a]) = (false, false);
    }
    for other in [2, 3, 4] {
        council.now = council.now.plus(Millis(1));
        council.tick(replica(other));
    }
    council.network.clear();
    council.now = council.now.plus(Millis(10));
    council.tick(replica(5));
    council.now = council.now.plus(Millis(200));
    council.tick(replica(5));
    // Canvass, Endorse, Prepare, Promise, Fetch, and one piece of what it fetches.
    for _ in 0..6 {
        council.sync_all();
        council.deliver_where(|envelope| envelope.from == replica(5) || envelope.to == replica(5));
    }
    assert_eq!(council.group(5).promised().replica, replica(5), "n5 is a candidate");
    let late = Envelope {
        from: replica(1),
        to: replica(5),
        parcel: Parcel::Snapshot {
            ballot: ballot(1, 1),
            file: common::SnapshotFile { base: file, config, state },
        },
    };
    council.deliver(late);
    council.run(2_000);
    assert!(council.server().is_some());
}

/// A long log to fetch takes longer than an election time-out: as long as it moves, the candidate goes on.
#[test]
fn a_candidate_that_fetches_does_not_give_up_while_pieces_come() {
    let mut council = Council::new(3, Options { message_bytes_max: 1, ..Options::default() });
    council.elect(1);
    council.isolate(3);
    for _ in 0..40 {
        council.propose(replica(1)).expect("n1 serves");
        council.settle();
    }
    council.crash(replica(1));
    council.links.heal();
    // Only n3 stands; n2 hears it and has lost n1. A message takes 10 ms.
    let n3 = replica(3);
    for _ in 0..150 {
        council.now = council.now.plus(Millis(10));
        council.tick(n3);
        let at = council.now;
        if at.0.is_multiple_of(20) {
            council.tick(replica(2));
            council.network.retain(|envelope| {
                envelope.from == n3
                    || !is_message(envelope, |message| matches!(message, Message::Canvass { .. }))
            });
        }
        council.sync_all();
        council.deliver_where(|_| true);
    }
    assert_eq!(council.group(3).leading().map(|ballot| ballot.replica), Some(n3));
}

/// R11: the leader of a lower ballot that still talks does not hide the one of a higher.
#[test]
fn a_leader_known_is_not_replaced_by_a_lower_one() {
    let mut council = Council::new(5, Options::default());
    council.elect(1);
    let (old, new) = (ballot(1, 1), ballot(2, 2));
    let say = |ballot: Ballot| Envelope {
        from: ballot.replica,
        to: ReplicaId(3),
        parcel: Parcel::Message(Message::Decide { ballot, decided: Index(1), length: Index::ZERO }),
    };
    council.deliver(say(new));
    assert_eq!(council.group(3).leader(), Some(new));
    council.deliver(say(old));
    assert_eq!(council.group(3).leader(), Some(new));
}

/// A snapshot that was handed to the replica that lived here before, in its ballot, is of no leader: whoever followed that ballot would
/// follow somebody who is gone and whose node it hears for ever, for it is its own.
#[test]
fn a_snapshot_for_the_replica_that_lived_here_before_is_not_taken_for_a_leaders() {
    let mut council = Council::new(3, Options::default());
    council.isolate(3);
    council.elect(1);
    council.propose(replica(1)).expect("n1 serves");
    council.settle();
    let (file, config) = (council.group(2).applied_base(), council.group(2).applied_config().clone());
    let state = council.at(replica(2)).state.clone();
    let before_it = ReplicaId::new(3, Serial(1));
    council.deliver(Envelope {
        from: replica(2),
        to: replica(3),
        parcel: Parcel::Snapshot {
            ballot: Ballot { round: 7, replica: before_it },
            file: common::SnapshotFile { base: file, config, state },
        },
    });
    assert_eq!((council.group(3).leader(), council.group(3).applied_index()), (None, Index::ZERO));
}

/// A candidate that would need a snapshot cannot adopt the log of those who have forgotten what it lacks. They
/// do not promise, so that it can lead with the others, or fail at once.
#[test]
fn nobody_promises_to_a_candidate_that_cannot_adopt_its_log() {
    let mut council = Council::new(3, Options::default());
    council.isolate(3);
    council.elect(1);
    council.snapshot(replica(2), true);
    council.settle();
    let prepare = Message::Prepare { ballot: ballot(7, 3), decided: Index::ZERO, released: None };
    council.deliver(Envelope { from: replica(3), to: replica(2), parcel: Parcel::Message(prepare) });
    assert_eq!(council.group(2).promised(), ballot(1, 1));
    assert!(council.network.is_empty());
}

/// Nothing is sent to a follower that is not heard: an idle group with a dead member is as silent as any.
#[test]
fn an_idle_group_does_not_call_after_the_dead() {
    let mut council = Council::new(3, Options::default());
    council.elect(1);
    council.crash(replica(3));
    council.propose(replica(1)).expect("n1 serves");
    council.settle();
    council.run(500);
    for _ in 0..100 {
        council.tick_all(10);
        assert_eq!(council.network.len(), 0, "{:?}", council.network);
    }
    council.restart(replica(3));
    council.run(500);
    assert_eq!(council.group(3).applied_index(), Index(2));
}

/// A leader that is lost soon after its election is replaced by the first in walk order, not by all at once: the
/// patience that its promise cost has ended with its election.
#[test]
fn patience_ends_when_the_candidate_leads() {
    let mut council = Council::new(5, Options::default());
    council.elect(1);
    council.crash(replica(1));
    council.run(100);
    assert_eq!(council.server(), Some(replica(2)));
    assert_eq!(council.group(2).leading(), Some(ballot(2, 2)));
}
