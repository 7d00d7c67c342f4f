//! Replays the inputs of the fuzz targets: hostile ones written by hand, and each one that ever found something.

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/resp.rs"]
mod harness;

#[path = "../../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn the_corpus_of_commands_is_harmless() {
    replay("resp_command", 30, harness::resp_command);
}

#[test]
fn the_corpus_of_values_is_harmless() {
    replay("resp_value", 25, harness::resp_value);
}
