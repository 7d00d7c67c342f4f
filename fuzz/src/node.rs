//! What must hold for any bytes given to `tholos-node` as a snapshot.

use tholos_node::{LoadedSnapshot, SnapshotLoader};

/// A snapshot of a shard: nothing panics, and what is read does not depend on how the bytes are cut.
pub fn node_snapshot(bytes: &[u8]) {
    let whole = load(bytes, bytes.len().max(1));
    for cut in [1, 7, 100] {
        match (&whole, load(bytes, cut)) {
            (Ok(whole), Ok(cut)) => assert_eq!(whole.index(), cut.index()),
            (Err(whole), Err(cut)) => assert_eq!(whole, &cut),
            (whole, cut) => panic!("whole: {}, cut: {}", whole.is_ok(), cut.is_ok()),
        }
    }
}

fn load(bytes: &[u8], cut: usize) -> Result<LoadedSnapshot, String> {
    let mut loader = SnapshotLoader::new();
    for chunk in bytes.chunks(cut) {
        loader.push(chunk)?;
    }
    loader.finish()
}
