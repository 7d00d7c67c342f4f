//! Replays the inputs of the fuzz target: hostile ones written by hand, and each one that ever found something.

#[expect(unreachable_pub, reason = "the fuzz target, a crate of its own, calls this function too")]
#[path = "../../../fuzz/src/node.rs"]
mod harness;

#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn the_corpus_of_snapshots_is_harmless() {
    replay("node_snapshot", 17, harness::node_snapshot);
}
