//! What has no paper.

use tholos_paxos::{Index, Millis, Options, Record};

use crate::common::{Council, ballot, replica};
use crate::{council, entry, under_way};

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

/// R17: an idle group sends and writes nothing.
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

/// Ours: records that cannot follow each other are refused at recovery, and the replica must not run.
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
