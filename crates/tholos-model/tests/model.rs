//! The model itself: it goes to the end of a small council, sees what is wrong, and tells it readably.

use std::time::Duration;

use tholos_model::configs::Start;
use tholos_model::explore::{Limits, Report, explore};
use tholos_model::planted::FAULTS;
use tholos_model::{Budget, Council, configs};
use tholos_paxos::{Options, Planted};

/// A leader and one command: a few thousand states, also without optimisation.
fn tiny(planted: Planted) -> Council {
    let options = Options { planted, ..configs::options() };
    let start = Start::Led { commands: 0, without: None, tail: false };
    Council::new(3, options, start, Budget { commands: 1, duplicates: 1, ..Budget::default() })
}

fn search(council: &Council, threads: usize) -> Report {
    explore(council, Limits { threads, time: Duration::from_secs(3600), steps: 10_000_000 })
}

#[test]
fn a_tiny_council_is_explored_to_its_end() {
    let report = search(&tiny(Planted::Nothing), 1);
    assert!(report.violation.is_none() && report.whole && report.missed.is_empty(), "{report:?}");
    assert!(report.states > 100 && report.depth > 8, "{report:?}");
    // How many search changes nothing of what is found.
    assert_eq!(search(&tiny(Planted::Nothing), 2).states, report.states);
}

#[test]
fn what_is_never_reached_is_missed() {
    let mut council = tiny(Planted::Nothing);
    // One step too few for the command to be decided.
    council.options.window_entries_max = 0;
    assert_eq!(search(&council, 1).missed, ["all that may happen has happened", "a command is decided"]);
}

#[test]
fn a_violation_is_told_step_by_step() {
    let mut council = tiny(Planted::AcceptedBeforeDurable);
    council.budget.duplicates = 0;
    let violation = search(&council, 1).violation.expect("it is caught");
    assert_eq!(violation.seen, "@2 command 1 of 1.n1 is decided, and on 1 disks only");
    // n2 or n3 is the follower: both ways are as short.
    let follower = if violation.trace[4].contains("n2") { "n2" } else { "n3" };
    let expected = [
        "  1  n1 is given command 1",
        "       n1 appends Accepted 1.n1 [@2 command 1 of 1.n1]",
        "       n1 -> n2 Accept 1.n1 [@2 command 1 of 1.n1], decided @1",
        "       n1 -> n3 Accept 1.n1 [@2 command 1 of 1.n1], decided @1",
        "  2  n1 -> nX Accept 1.n1 [@2 command 1 of 1.n1], decided @1 arrives",
        "       nX appends Accepted 1.n1 [@2 command 1 of 1.n1]",
        "       nX applies [@1 no-op of 1.n1]",
        "       nX -> n1 Accepted 1.n1 to @2",
    ];
    let expected: Vec<String> = expected.iter().map(|line| line.replace("nX", follower)).collect();
    assert_eq!(violation.trace[..8], expected);
    // Its vote arrives, and the leader's own disk is the other one; in this order or that.
    assert_eq!(violation.length, 4);
    assert_eq!(violation.trace[10], "       n1 applies [@2 command 1 of 1.n1]");
}

/// The fault with the shortest way to a broken lease, and none.
#[test]
fn a_grant_that_does_not_bind_is_seen() {
    let named = configs::all().into_iter().find(|named| named.name == "lease").expect("it is there");
    let mut council = named.council;
    council.budget = Budget { time_outs: 1, spans: 3, ..Budget::default() };
    let report = search(&council, 1);
    assert!(report.violation.is_none() && report.whole && report.missed.is_empty(), "{report:?}");
    let options = Options { planted: Planted::GrantDoesNotBind, ..council.options };
    let violation = search(&Council::new(3, options, council.start, council.budget), 1).violation;
    assert_eq!(violation.expect("it is caught").seen, "n1 may read in 1.n1, and 2.n3 was elected");
}

/// Whoever joins where the log is forgotten gets a snapshot, and whatever is lost on the way nothing breaks.
#[test]
fn snapshots_are_explored() {
    let named = configs::all().into_iter().find(|named| named.name == "joins").expect("it is there");
    let report = search(&named.council, 1);
    assert!(report.violation.is_none() && report.whole && report.missed.is_empty(), "{report:?}");
    let mut council = named.council;
    council.budget = Budget { saves: 1, crashes: 1, ..Budget::default() };
    council.options.planted = Planted::ReleasedEarly;
    let council =
        Council::new(3, council.options, Start::Trimmed { commands: 1, without: None }, council.budget);
    let violation = search(&council, 1).violation.expect("it is caught");
    let missing = "n2 has a record that cannot follow: a checkpoint whose snapshot is not there";
    assert_eq!(violation.seen.replace("n3", "n2"), missing);
    let trace = violation.trace.join("\n").replace("n3", "n2");
    assert_eq!(
        trace,
        "  1  n2 begins a snapshot to @2\n       \
         n2 appends Checkpoint promised 1.n1, log 1.n1 to @2, decided @2, snapshot to @2, []\n  \
         2  n2 has on disk the next 1 record\n  \
         3  n2 loses its power, and with it 0 records, and starts again from its checkpoint"
    );
}

#[test]
fn every_fault_names_a_council_and_every_council_has_its_name() {
    let all = configs::all();
    for fault in &FAULTS {
        assert!(all.iter().any(|named| named.name == fault.config), "{fault:?}");
    }
    for named in &all {
        assert_eq!(all.iter().filter(|other| other.name == named.name).count(), 1, "{}", named.name);
    }
}
