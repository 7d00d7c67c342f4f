//! Viewstamped Replication Revisited.

use tholos_paxos::{Index, Options, Record};

use crate::common::{Council, ballot, replica};
use crate::council;

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
