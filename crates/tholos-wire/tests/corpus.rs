//! Replays the inputs of the fuzz targets: hostile ones written by hand, and each one that ever found something.

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/wire.rs"]
mod harness;

#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn the_corpus_of_frames_is_harmless() {
    replay("wire_frames", 30, harness::wire_frames);
}

#[test]
fn the_corpus_of_records_is_harmless() {
    replay("wire_record", 12, harness::wire_record);
}
