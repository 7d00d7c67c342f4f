//! Replays the inputs of the fuzz targets: hostile ones written by hand, and each one that ever found something.

use tholos_rpc::fuzzing;

#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn the_corpus_of_frames_is_harmless() {
    replay("rpc_frames", 15, fuzzing::frames);
}

#[test]
fn the_corpus_of_handshakes_is_harmless() {
    replay("rpc_handshake", 10, fuzzing::handshake);
}
