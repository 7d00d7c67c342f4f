//! What the owner may choose about a log, and what the log tells about itself.

#[cfg(doc)]
use crate::{Log, LogError};

use crate::error::OpenError;
use crate::format::SECTOR_BYTES;

/// The largest batch, framing included, in bytes. One that fits no segment gets a segment of its own.
///
/// Far more than the largest command: a record may hold a whole window of entries beside one that large.
pub const BATCH_BYTES_MAX: u64 = 256 << 20;

/// How many times its limit a log may take besides. The largest value may be a sixteenth of the limit or even a quarter, and it is
/// in the log once for each leadership that could not decide it, and once more in each checkpoint.
const OVERDRAFT_TIMES: u64 = 3;

/// How a log behaves. All sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment file: a multiple of 512, at least 8 KiB. Larger means fewer changes of file and coarser
    /// recycling. Default 16 MiB.
    pub segment_bytes: u64,
    /// Segments kept written ahead, so that going on to the next costs nothing. Default 2.
    pub segments_spare: usize,
    /// What all files of the log may take together as long as writers are welcome. Default 1 GiB.
    pub log_bytes_max: u64,
    /// What appends may take beyond that. They are not for the owner to refuse then: what others have decided, or what must be
    /// written again to release anything. A log that let none of them pass could wait for itself for ever. Default 3 GiB.
    pub overdraft_bytes: u64,
    /// Below this much [`Headroom::bytes`], [`Headroom::writers_welcome`] is false: the rest is for promises, and for what must be
    /// written again before old segments can be released (R22). Default 128 MiB.
    pub writer_reserve_bytes: u64,
    /// What the log leaves free on its file system, for snapshots and others. Default 256 MiB.
    pub disk_reserve_bytes: u64,
    /// What one [`Log::prepare_spare`] writes and syncs at most, so that it never holds up a batch for long.
    /// Default 256 KiB.
    pub spare_step_bytes: u64,
    /// Chosen at random by the owner; used only when the log is created. It keeps clients from writing values that
    /// recovery could take for a batch.
    pub salt: u64,
    /// A fault planted for tests of the tests; [`Planted::Nothing`] in every other use.
    pub planted: Planted,
}

/// Faults that a test can plant to see that the simulator catches them (docs/protocol/mutants.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Planted {
    /// The log as it should be.
    #[default]
    Nothing,
    /// What is written counts as durable without a sync (breaks R3).
    SyncSkipped,
    /// A sync that failed counts as done (breaks R23).
    FailedSyncForgotten,
    /// The tail that recovery writes again is not synced (breaks R5).
    TailNotSynced,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            segments_spare: 2,
            log_bytes_max: 1 << 30,
            overdraft_bytes: 3 << 30,
            writer_reserve_bytes: 128 << 20,
            disk_reserve_bytes: 256 << 20,
            spare_step_bytes: 256 << 10,
            salt: 0,
            planted: Planted::Nothing,
        }
    }
}

impl Options {
    /// Small segments, for tests and simulations.
    #[must_use]
    pub fn small() -> Self {
        Self {
            segment_bytes: 16 << 10,
            segments_spare: 1,
            log_bytes_max: 64 << 20,
            overdraft_bytes: 0,
            writer_reserve_bytes: 32 << 10,
            disk_reserve_bytes: 0,
            spare_step_bytes: 8 << 10,
            salt: 0x7408_0105,
            planted: Planted::Nothing,
        }
    }

    /// The same with so much for all files as long as writers are welcome, and what goes by that: an overdraft of three times as
    /// much, and a reserve that leaves most of a small log to writers.
    #[must_use]
    pub fn limited_to(self, log_bytes_max: u64) -> Self {
        let writer_reserve_bytes = Self::default().writer_reserve_bytes.min(log_bytes_max / 4);
        let overdraft_bytes = log_bytes_max.saturating_mul(OVERDRAFT_TIMES);
        Self { log_bytes_max, overdraft_bytes, writer_reserve_bytes, ..self }
    }

    /// How much may be live until the owner should take snapshots and release: so they free the log long before writers would be
    /// refused.
    #[must_use]
    pub fn snapshot_from_bytes(&self) -> u64 {
        self.log_bytes_max / 2
    }

    /// How much may be in full segments until writers are not welcome any more, if the disk has room for all of the limit.
    #[must_use]
    pub fn writers_kept_bytes_max(&self) -> u64 {
        let begun_and_spare = self.segment_bytes.saturating_mul(self.segments_spare as u64 + 1);
        self.log_bytes_max.saturating_sub(self.writer_reserve_bytes.saturating_add(begun_and_spare))
    }

    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let refuse = |option, reason| Err(OpenError::Options { option, reason });
        if self.segment_bytes < 8 << 10 || !self.segment_bytes.is_multiple_of(SECTOR_BYTES as u64) {
            return refuse("segment_bytes", "must be a multiple of 512 and at least 8 KiB");
        }
        if self.segment_bytes > BATCH_BYTES_MAX {
            return refuse("segment_bytes", "must be at most 256 MiB");
        }
        if self.spare_step_bytes == 0 {
            return refuse("spare_step_bytes", "must be above 0, or no spare ever gets ready");
        }
        let least = self.segment_bytes.saturating_mul(self.segments_spare as u64 + 2);
        if self.log_bytes_max < least.saturating_add(self.writer_reserve_bytes) {
            return refuse(
                "log_bytes_max",
                "must hold writer_reserve_bytes and segments_spare + 2 segments, or no writer is ever welcome",
            );
        }
        Ok(())
    }
}

/// What [`Log::prepare_spare`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// All wanted spares are ready; nothing was done.
    Enough,
    /// A step; call again when idle.
    Working,
}

/// How much more the log can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// Bytes that can be appended within [`Options::log_bytes_max`]; framing included. What does
    /// not fit the end of a segment is lost to it, so it may be up to a batch less for each segment.
    pub bytes: u64,
    /// False when the reserve is reached: refuse clients' writes, serve reads, release old segments.
    pub writers_welcome: bool,
}

/// What the log still takes, as far as its owner can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Everything.
    Ample,
    /// Not what writers want: the reserve is reached.
    Short,
    /// Not what others send to be kept either: half of the reserve and of the overdraft is left for what must be written again
    /// before anything can be released, and that would wait behind it.
    Spent,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes appended since the log was opened, framing included.
    pub written_bytes: u64,
    /// Bytes of the log that are not released.
    pub live_bytes: u64,
    /// Bytes of all its files.
    pub file_bytes: u64,
    /// Bytes of the segments that are full and not released, and what is written of the one after them.
    pub kept_bytes: u64,
    /// Segments that hold something, the one being written included.
    pub segments: u64,
    /// Segments written ahead.
    pub spares: u64,
    /// Batches appended since the log was opened, seals included.
    pub batches: u64,
    /// Calls of `fdatasync` for batches since the log was opened.
    pub syncs: u64,
    /// Segment files made, rather than recycled, since the log was opened: each costs many syncs.
    pub created_segments: u64,
    /// Segments begun without a spare at hand: a latency peak each; prepare spares sooner.
    pub late_segments: u64,
}
