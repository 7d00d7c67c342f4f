//! Replays the inputs of the fuzz targets: hostile ones written by hand, and each one that ever found something.

use std::fs;
use std::path::{Path, PathBuf};

use tholos_engine::{Keyspace, Loader, SnapshotError};

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/engine.rs"]
mod harness;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

/// Replays a folder; how many inputs it has.
fn replay(name: &str, check: fn(&[u8])) -> usize {
    let mut replayed = 0;
    for entry in fs::read_dir(corpus(name)).expect("the corpus is in the repository") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("a readable file"));
        replayed += 1;
    }
    replayed
}

#[test]
fn the_corpus_of_snapshots_is_harmless() {
    assert!(replay("keyspace_snapshot", harness::keyspace_snapshot) >= 20);
}

#[test]
fn the_corpus_of_commands_is_harmless() {
    assert!(replay("keyspace_commands", harness::keyspace_commands) >= 14);
}

fn load(name: &str) -> Result<Keyspace, SnapshotError> {
    let mut loader = Loader::new();
    loader.push(&fs::read(corpus("keyspace_snapshot").join(name)).expect("a file of the corpus"))?;
    loader.finish()
}

/// Written by the first release that had snapshots: every later one reads it, and finds the same state.
#[test]
fn format_1_is_read_for_ever() {
    let keyspace = load("format-1").unwrap();
    assert_eq!((keyspace.slots(), keyspace.digest()), (0..4, 0xa566_e425_8a80_bd96));
    assert_eq!((keyspace.len(5), keyspace.len(6), keyspace.next_due_ms()), (5, 4, Some(6)));
}

#[test]
fn refusals_say_what_is_wrong() {
    let check = |name: &str, text: &str| assert_eq!(load(name).unwrap_err().to_string(), text, "{name}");
    check("nothing", "the snapshot stops before its end");
    check("cut-short", "the snapshot stops before its end");
    check("long-text-that-never-comes", "the snapshot stops before its end");
    check("newer-format", "snapshot format 2 is newer than 1, the newest this release reads");
    check("format-0", "the snapshot is damaged: format 0");
    check("slots-out-of-range", "the snapshot is damaged: slots out of range");
    check("unknown-record", "the snapshot is damaged: unknown record");
    check("wrong-sum", "the snapshot is damaged: the sum of the keys is not the one at the end");
    check("wrong-count", "the snapshot is damaged: the number of keys is not the one at the end");
    check("bytes-after-the-end", "the snapshot is damaged: bytes after the end");
    check("slot-of-another-shard", "the snapshot is damaged: slot out of range");
    check("impossible-length", "the snapshot is damaged: impossible length");
    check("integer-of-3-bytes", "the snapshot is damaged: an integer of other than 8 bytes");
    check("unknown-kind", "the snapshot is damaged: unknown kind of value");
    check("key-of-another-shard", "the snapshot is damaged: a key of another shard");
    check("key-twice", "the snapshot is damaged: a key twice");
}
