//! Replays the inputs of the fuzz targets: scripts and files written by hand, and each one that ever found something.

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/wal.rs"]
mod harness;

#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn the_corpus_of_damage_is_owned_up_to() {
    replay("wal_recover", 20, harness::wal_recover);
}

#[test]
fn the_corpus_of_snapshots_is_harmless() {
    replay("wal_snapshot", 12, harness::wal_snapshot);
}
