//! The live tail: what recovery found above the last valid `synced_to`, written again so that it is durable (R5).

use std::io;

use crate::Lsn;
use crate::buffer::AlignedBuffer;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{Batch, BatchHead, HEADER_BYTES, Marks, SegmentHeader, encode_batch, seed, segment_name};
use crate::log::{FILL_STEP_BYTES, SEAL_BYTES, is_full};
use crate::options::{Options, Planted};
use crate::pool::Ready;
use crate::recover::{Plan, SegmentRead};

/// Use numbers that an opening passes over: more than a boot has files that hold nothing anybody counts on.
const OPENING_SKIPS: u64 = 64;

/// The segment that a log writes while it opens, until it is named.
const OPENING: &str = "tail.tmp";

/// R5: writes the live tail into a fresh segment, under a temporary name until it is whole and synced, so that a crash
/// in the midst leaves the old segments in force. Returns it and the offset at which the log goes on in it.
pub(crate) fn write_tail<D: Disk>(
    disk: &D,
    options: &Options,
    salt: u64,
    plan: &mut Plan,
    segments: &[SegmentRead],
    visit: impl FnMut(u32, Lsn, &[u8]),
) -> Result<(Ready<D::File>, u64), OpenError> {
    // Segments at the end of the log may be lost, and their numbers with them: these are not given again.
    let skipped = if plan.use_number_max == 0 { 0 } else { OPENING_SKIPS };
    let use_number = plan.use_number_max + 1 + skipped;
    let tail_end = HEADER_BYTES as u64 + plan.tail_bytes();
    let file_bytes = options.segment_bytes.max(tail_end + SEAL_BYTES);
    let (file, written) = begin_file(disk, plan, file_bytes)?;
    let full = || OpenError::Full {
        path: disk.path(""),
        wanted_bytes: file_bytes,
        free_bytes: disk.free_bytes().unwrap_or(0),
    };
    let write = |offset: u64, bytes: &[u8]| {
        disk.write_at(&file, offset, bytes).map_err(|source| {
            if is_full(&source) { full() } else { open_error(disk, "write", OPENING)(source) }
        })
    };
    let marks = Marks { synced_to: plan.recovery.recovered_lsn, released_to: plan.recovery.released_to };
    let openings = plan.openings_with(use_number);
    let header = SegmentHeader { salt, use_number, base: Some(Lsn(plan.tail_from)), marks, openings };
    write(0, &header.encode())?;
    let seed = seed(salt, use_number);
    let mut offset = HEADER_BYTES as u64;
    let mut buffer = AlignedBuffer::default();
    plan.replay(disk, segments, salt, visit, |batch: &Batch<'_>| {
        let records: Vec<(u32, &[u8])> =
            batch.records().map(|record| (record.group, record.payload)).collect();
        encode_batch(&mut buffer, &BatchHead { use_number, ..batch.head }, seed, &records);
        write(offset, buffer.bytes())?;
        offset += buffer.bytes().len() as u64;
        Ok(())
    })?;
    assert_eq!(offset, tail_end, "the tail has the length it was planned with");
    // What a file that was there has behind is of an earlier use.
    offset = offset.max(written);
    while offset < file_bytes {
        let bytes = FILL_STEP_BYTES.min(file_bytes - offset);
        write(offset, &vec![0; usize::try_from(bytes).expect("a step fits memory")])?;
        offset += bytes;
    }
    if options.planted != Planted::TailNotSynced {
        disk.sync_data(&file).map_err(open_error(disk, "sync", OPENING))?;
    }
    let name = segment_name(use_number);
    disk.rename(OPENING, &name).map_err(open_error(disk, "rename", OPENING))?;
    disk.sync_directory().map_err(open_error(disk, "sync the directory of", &name))?;
    Ok((Ready { use_number, file, file_bytes }, tail_end))
}

/// The file of the new segment, under its temporary name, and how much of it is written already. Where the file system has
/// no room it is one of the log that holds nothing, so that a full disk does not keep a node from starting.
fn begin_file<D: Disk>(disk: &D, plan: &mut Plan, file_bytes: u64) -> Result<(D::File, u64), OpenError> {
    let free_bytes = disk.free_bytes().map_err(open_error(disk, "ask the free space of", ""))?;
    if free_bytes >= file_bytes {
        return Ok((disk.create(OPENING).map_err(open_error(disk, "create", OPENING))?, 0));
    }
    let Some(use_number) = plan.take_material(file_bytes) else {
        return Err(OpenError::Full { path: disk.path(""), wanted_bytes: file_bytes, free_bytes });
    };
    plan.recovery.short_of_room = true;
    let name = segment_name(use_number);
    disk.rename(&name, OPENING).map_err(open_error(disk, "rename", &name))?;
    Ok((disk.open(OPENING).map_err(open_error(disk, "open", OPENING))?, file_bytes))
}

/// `map_err` with the operation and the file.
pub(crate) fn open_error<'a, D: Disk>(
    disk: &'a D,
    operation: &'static str,
    name: &'a str,
) -> impl FnOnce(io::Error) -> OpenError + use<'a, D> {
    move |source| OpenError::Io { operation, path: disk.path(name), source }
}
