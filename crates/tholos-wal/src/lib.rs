//! One group-commit log for all the groups of a node, and the files of snapshots.
//!
//! The log carries opaque bytes: it knows nothing of consensus. Its owner, one thread, hands it everything that waits
//! in one [`Log::append`], which is one write, then calls [`Log::sync`], which is one `fdatasync` for all groups, and
//! tells each waiter the [`Lsn`] that is durable now.
//!
//! ```
//! use tholos_wal::{Log, MemDisk, Options};
//!
//! let disk = MemDisk::new();
//! let (mut log, _) = Log::open(disk.clone(), Options::small(), |_, _, _| {})?;
//! let lsn = log.append(&[(7, "promise 3.n2"), (9, "entry @1041")])?;
//! assert!(log.sync()? >= lsn);
//! drop(log);
//!
//! let mut seen = Vec::new();
//! Log::open(disk, Options::small(), |group, _, payload| seen.push((group, payload.to_vec())))?;
//! assert_eq!(seen, [(7, b"promise 3.n2".to_vec()), (9, b"entry @1041".to_vec())]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it promises, by the numbers of `docs/protocol/paxos.md`:
//!
//! - **R5** [`Log::open`] writes the live tail, the batches above the last valid `synced_to`, again into a fresh
//!   segment and syncs it before it returns: after a failed sync or a `kill -9` the page cache shows what no disk holds.
//! - **R20** A segment's use number seeds its checksums, so a recycled segment's old batches never come back. Each
//!   batch carries `synced_to`; damage below the highest valid one is rot and is reported, above it a tear and dropped.
//! - **R22** [`Log::release`] takes effect only after everything written before it is durable, and a segment is
//!   recycled only after the release is durable too.
//! - **R23** A failed write or sync poisons the log; nothing is tried again.
//!
//! The format is documented byte by byte in `docs/protocol/wal.md`.

mod buffer;
mod disk;
mod error;
mod format;
mod log;
mod mem_disk;
mod numbered;
mod options;
mod pool;
mod recover;
mod snapfile;
mod tail;

pub use disk::{Disk, DiskFile, FileDisk};
pub use error::{LogError, OpenError, SnapshotError};
pub use format::{FORMAT_VERSION, HEADER_BYTES, SECTOR_BYTES};
pub use log::Log;
pub use mem_disk::{Crash, MemDisk, MemFile, SectorFates};
pub use numbered::NumberedLog;
pub use options::{BATCH_BYTES_MAX, Headroom, Options, Planted, Room, Spare, Usage};
pub use pool::LentSpare;
pub use recover::{Damage, Recovery, Tail};
pub use snapfile::{
    SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_FORMAT_VERSION, SnapshotChunk, SnapshotName, SnapshotReader,
    SnapshotSource, SnapshotWriter, list_snapshots, remove_snapshots_below, remove_unfinished_snapshots,
};

/// A position in the log, in bytes since it was created; it only rises.
///
/// The lsn of a batch is the position of its *end*: everything in it is durable once [`Log::sync`] has returned this
/// much or more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl core::fmt::Display for Lsn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}
