//! Replays one folder of the corpus; the tests of the crates include this file.

use std::fs;
use std::path::Path;

/// Gives each input of `target` to `check`; there must be `least` of them, or the corpus was not found.
pub(crate) fn replay(target: &str, least: usize, check: impl Fn(&[u8])) {
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
