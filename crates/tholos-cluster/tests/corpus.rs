//! Replays the inputs of the fuzz target: hostile ones written by hand, and each one that ever found something.

use std::fs;
use std::path::Path;

#[expect(unreachable_pub, reason = "the fuzz targets, a crate of their own, call these functions too")]
#[path = "../../../fuzz/src/cluster.rs"]
mod harness;

#[test]
fn the_corpus_of_maps_is_harmless() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/cluster_map");
    let (mut replayed, mut maps) = (0, 0);
    for entry in fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("a readable folder").path();
        println!("{}", path.display());
        let bytes = fs::read(&path).expect("a readable file");
        harness::cluster_map(&bytes);
        replayed += 1;
        maps += usize::from(tholos_cluster::ClusterMap::decode(&bytes).is_ok());
    }
    assert!(replayed >= 30, "{replayed} inputs in {}", folder.display());
    assert_eq!(maps, 2, "the two that are maps");
}
