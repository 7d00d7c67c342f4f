//! The mark of a directory that begins no replicas any more because a message is for one: it went back in time, or lost what
//! might say which it had (C4 of the core's ledger). It lasts as long as the directory.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use crate::node_dir::{DirectoryError, sync_directory};

const FILE: &str = "barred";
const TEXT: &str = "This directory lost data that others had counted on. It begins further replicas only under ids \
                    that are given after it has asked for them, so that it cannot be taken for one that it has forgotten.\n";

/// Whether the directory has the mark.
pub(crate) fn is_there(directory: &Path) -> bool {
    // What cannot be looked at is taken for there.
    directory.join(FILE).try_exists().unwrap_or(true)
}

/// Makes the mark, durably.
///
/// # Errors
/// [`DirectoryError::Io`]; it may then be there or not.
pub(crate) fn write(directory: &Path) -> Result<(), DirectoryError> {
    let path = directory.join(FILE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(TEXT.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| DirectoryError::Io { operation: "write", path, source })?;
    sync_directory(directory)
}
