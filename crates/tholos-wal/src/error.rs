//! What can go wrong, each with what failed, where, why, and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a call of [`Log`](crate::Log) failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk failed. The log is poisoned from here on; whether the last batches are on disk is unknown (R23).
    #[error(
        "cannot {operation} {}: {source}; the log stops here and tries nothing again, since what is on disk is now \
         unknown: check the disk, then restart the node", path.display()
    )]
    Io {
        /// What was tried: `write`, `sync`, …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// An earlier call failed and nothing is tried again (R23). Nothing was done.
    #[error("the log has stopped since an earlier failure: {first}")]
    Poisoned {
        /// The first failure, in words.
        first: Arc<str>,
    },
    /// There is no room for a new segment. Nothing was written, the log is whole and goes on once there is room.
    #[error(
        "no room for {wanted_bytes} more bytes of log in {}: {used_bytes} of at most {max_bytes} bytes used, \
         {free_bytes} bytes free on the file system of which {reserve_bytes} stay reserved: free space there, or \
         let snapshots release the log's oldest part", path.display()
    )]
    Full {
        /// The log's directory.
        path: PathBuf,
        /// Size of the segment that was to be created.
        wanted_bytes: u64,
        /// What all the log's files take now.
        used_bytes: u64,
        /// `Options::log_bytes_max`, and the overdraft.
        max_bytes: u64,
        /// Free bytes of the file system.
        free_bytes: u64,
        /// `Options::disk_reserve_bytes`.
        reserve_bytes: u64,
    },
    /// The caller's fault: one batch must fit [`BATCH_BYTES_MAX`](crate::BATCH_BYTES_MAX). Nothing was written.
    #[error("a batch of {bytes} bytes is larger than the {max} bytes a log takes at once: split it")]
    BatchTooLarge {
        /// Size of the batch, framing included.
        bytes: u64,
        /// The bound.
        max: u64,
    },
}

/// Why a log cannot be opened. The directory holds what it held before, but for removed temporary files, and files that
/// held nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot {operation} {}: {source}; check the disk and the permissions of the directory", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A later release wrote this log.
    #[error(
        "{} has log format {found}, and this release reads formats up to {supported}: start the release that wrote \
         it, or a later one", path.display()
    )]
    NewerFormat {
        /// The segment.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest we read.
        supported: u32,
    },
    /// Not all segments are of the same log.
    #[error(
        "{} is not of the same log as the segments before it: a file of another node's directory was put there; move \
         it away", path.display()
    )]
    Mixed {
        /// The first segment that differs.
        path: PathBuf,
    },
    /// Two readings of one place differ: the disk or memory is failing.
    #[error("{} read twice gave different bytes at {offset}: the disk or the memory is failing", path.display())]
    Unstable {
        /// The segment.
        path: PathBuf,
        /// Offset of the batch in it.
        offset: u64,
    },
    /// The options contradict themselves.
    #[error("log option {option}: {reason}")]
    Options {
        /// Name of the field.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The segment that recovery must write (R5) does not fit the disk, and no file of the log can become it.
    #[error(
        "{} has {free_bytes} bytes free, and opening the log needs {wanted_bytes} for a fresh segment, for none of its \
         files is spare: free space on this file system and start the node again; delete nothing in this directory, its \
         log is whole", path.display()
    )]
    Full {
        /// The log's directory.
        path: PathBuf,
        /// Size of the segment.
        wanted_bytes: u64,
        /// Free bytes of the file system.
        free_bytes: u64,
    },
}

/// Why a snapshot file cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The disk failed. A file being written stays under its temporary name.
    #[error("cannot {operation} {}: {source}; check the disk", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are not what was written. Take the snapshot from a peer.
    #[error("{} is damaged at byte {offset}: {what}; take this snapshot again from another replica", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What does not hold.
        what: &'static str,
    },
    /// A later release wrote this file.
    #[error(
        "{} has snapshot format {found}, and this release reads formats up to {supported}: start the release that \
         wrote it, or a later one", path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest we read.
        supported: u32,
    },
    /// The caller's fault: a chunk is empty or larger than the bound. Nothing was written.
    #[error("a snapshot chunk of {bytes} bytes; a chunk has 1 to {max} bytes")]
    ChunkSize {
        /// Its size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
}
