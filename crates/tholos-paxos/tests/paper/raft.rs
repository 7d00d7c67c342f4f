//! Raft: reads by index, transfer.

use tholos_paxos::{Index, Message, Options, ProposeError, ReplicaId};

use crate::common::{Council, ballot, replica};
use crate::{council, hand, prepare};

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
