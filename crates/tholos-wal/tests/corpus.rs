//! Replays the inputs of the fuzz targets: scripts and files written by hand, and each one that ever found something.

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/wal.rs"]
mod harness;

fn replay(target: &str, least: usize, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display());
        check(&fs::read(&path).expect("a readable file"));
        replayed += 1;
    }
    assert!(replayed >= least, "{replayed} inputs in {}", folder.display());
}

#[test]
fn the_corpus_of_damage_is_owned_up_to() {
    replay("wal_recover", 20, harness::wal_recover);
}

#[test]
fn the_corpus_of_snapshots_is_harmless() {
    replay("wal_snapshot", 12, harness::wal_snapshot);
}
