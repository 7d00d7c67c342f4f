//! Recovery: which batches the segments hold, what is torn, what is rotten, and where the log goes on.
//!
//! Three steps: [`read_segment`] finds the batches of each file, [`Plan::judge`] decides about them without touching the
//! disk, and [`Plan::replay`] reads them again for the owner.
//!
//! Rules kept here: R20 (tear or rot), and R5's live tail, which `log.rs` writes again.

use std::io;

use crate::Lsn;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::format::{
    At, Batch, FORMAT_VERSION, HEADER_BYTES, HeaderRead, Marks, Opening, Openings, SECTOR_BYTES,
    SegmentHeader, parse_segment_name, seed, segment_name,
};

/// Unit in which a file is read, so that one bad sector costs its surroundings and not the file, in bytes.
const READ_STEP_BYTES: usize = 1 << 20;

/// What [`Log::open`](crate::Log::open) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Records handed to the visitor.
    pub records: u64,
    /// Where the log begins: nothing below is needed.
    pub released_to: Lsn,
    /// Where the log ends; everything below is durable when `open` returns (R5). What a peer counted as durable here
    /// must not be above (R21).
    pub recovered_lsn: Lsn,
    /// Up to here the log itself said that it was durable; above, it was written again (R5).
    pub synced_to: Lsn,
    /// How the log ended.
    pub tail: Tail,
    /// Rot: what was durable once and cannot be read. It is reported at each open until it is released.
    pub damage: Vec<Damage>,
    /// Files of which a copy of the header cannot be read. Nothing is lost, but the disk is failing.
    pub worn: Vec<String>,
    /// There were segments and not one of their headers could be read. A new log was begun behind them, and all that they
    /// held counts as damage.
    pub unreadable: bool,
    /// The file system had no room for the segment that an opening writes, and a file of the log that held nothing became it.
    pub short_of_room: bool,
}

/// How the log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// With a whole batch.
    Clean,
    /// A write was under way at the crash; what it left was never acknowledged and is dropped.
    Torn {
        /// Where the dropped part began.
        from: Lsn,
        /// How much of it can be recognised, in bytes.
        dropped_bytes: u64,
    },
}

/// A part of the log that was durable and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins.
    pub from: Lsn,
    /// Where it ends.
    pub to: Lsn,
    /// The groups that have lost records in it, sorted; `None` if that cannot be known: then each may have.
    pub groups: Option<Vec<u32>>,
}

impl Recovery {
    /// Whether durable records of `group` are lost that count. `replaced_at` is the lsn of its last record that needs none
    /// before it, if there is one: what was lost before that is no loss.
    #[must_use]
    pub fn lost_records_of(&self, group: u32, replaced_at: Option<Lsn>) -> bool {
        let hit = |damage: &Damage| damage.groups.as_ref().is_none_or(|groups| groups.contains(&group));
        // A batch that is damaged in part may have lost what came after the record in it.
        let counts = |damage: &Damage| replaced_at.is_none_or(|at| at <= damage.to);
        self.damage.iter().any(|damage| hit(damage) && counts(damage))
    }
}

/// A batch that was found, and where.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) offset: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The release that it states.
    released_to: u64,
    /// Groups of records whose payload is broken.
    hurt: Vec<u32>,
}

/// Which batch of which segment.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: usize,
    batch: usize,
}

impl Place {
    fn of(self, segments: &[SegmentRead]) -> &Found {
        &segments[self.segment].batches[self.batch]
    }
}

/// One file of the log.
#[derive(Debug, Clone)]
pub(crate) struct SegmentRead {
    pub(crate) use_number: u64,
    pub(crate) file_bytes: u64,
    /// Where its batches begin, if a batch or the header says.
    base: Option<u64>,
    /// The highest of its header and its batches.
    marks: Marks,
    /// The release that its header states, which was durable before the file had its name.
    header_released_to: u64,
    /// What its header names, and itself if an opening began it.
    openings: Vec<Opening>,
    worn: bool,
    pub(crate) batches: Vec<Found>,
    /// Places marked as a batch of this use that cannot be read.
    broken: Vec<usize>,
}

/// A segment that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) use_number: u64,
    pub(crate) file_bytes: u64,
    /// It is needed until everything below is released.
    pub(crate) end: u64,
}

/// Where a log ends that is begun behind segments of which nothing can be read: above 0, so that there is something which
/// was durable and is damaged.
const UNREADABLE_END: u64 = SECTOR_BYTES as u64;

/// What recovery decided.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) recovery: Recovery,
    /// The batches to replay, in lsn order.
    batches: Vec<Place>,
    /// Where the live tail begins (R5).
    pub(crate) tail_from: u64,
    /// Segments that hold something.
    pub(crate) kept: Vec<Kept>,
    /// Use numbers of files that hold nothing, and their sizes.
    pub(crate) empty: Vec<(u64, u64)>,
    pub(crate) use_number_max: u64,
    /// Openings that still put something out of force.
    pub(crate) openings: Vec<Opening>,
    /// Whether the oldest segment that is kept holds nothing but what was released, on disk for good.
    oldest_is_spent: bool,
}

/// Reads a whole file; what the disk refuses to give reads as zeros, and so is judged like any other damage.
pub(crate) fn read_file<D: Disk>(disk: &D, name: &str, buffer: &mut Vec<u8>) -> Result<(), OpenError> {
    let io = |operation| move |source| OpenError::Io { operation, path: disk.path(name), source };
    let file = disk.open(name).map_err(io("open"))?;
    let length = disk.length(&file).map_err(io("read the length of"))?;
    let length = usize::try_from(length).map_err(|_| io("read")(io::ErrorKind::FileTooLarge.into()))?;
    buffer.clear();
    buffer.resize(length, 0);
    for (step, chunk) in buffer.chunks_mut(READ_STEP_BYTES).enumerate() {
        read_or_zeros(disk, &file, step * READ_STEP_BYTES, chunk);
    }
    Ok(())
}

/// Fills `chunk`, with zeros where the disk refuses.
fn read_or_zeros<D: Disk>(disk: &D, file: &D::File, offset: usize, chunk: &mut [u8]) {
    if disk.read_at(file, offset as u64, chunk).is_ok() {
        return;
    }
    for (sector, piece) in chunk.chunks_mut(SECTOR_BYTES).enumerate() {
        if disk.read_at(file, (offset + sector * SECTOR_BYTES) as u64, piece).is_err() {
            piece.fill(0);
        }
    }
}

/// The segments of the directory by use number, and the names of unfinished files.
pub(crate) fn list_segments<D: Disk>(disk: &D) -> Result<(Vec<u64>, Vec<String>), OpenError> {
    let names =
        disk.list().map_err(|source| OpenError::Io { operation: "list", path: disk.path(""), source })?;
    let mut segments: Vec<u64> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    segments.sort_unstable();
    let unfinished = names.into_iter().filter(|name| name.ends_with(".tmp")).collect();
    Ok((segments, unfinished))
}

/// The salt of the log, which all headers have that can be read; `None` if there are none. Refuses newer formats before
/// anything is changed.
pub(crate) fn read_salt<D: Disk>(disk: &D, segments: &[u64]) -> Result<Option<u64>, OpenError> {
    let mut salt = None;
    for &use_number in segments {
        let name = segment_name(use_number);
        let io = |operation| {
            let path = disk.path(&name);
            move |source| OpenError::Io { operation, path, source }
        };
        let file = disk.open(&name).map_err(io("open"))?;
        let mut block = [0; HEADER_BYTES];
        read_or_zeros(disk, &file, 0, &mut block);
        match SegmentHeader::decode(&block) {
            HeaderRead::Valid { header, .. } if salt.is_some_and(|salt| salt != header.salt) => {
                return Err(OpenError::Mixed { path: disk.path(&name) });
            }
            HeaderRead::Valid { header, .. } => salt = Some(header.salt),
            HeaderRead::Newer(found) => {
                return Err(OpenError::NewerFormat {
                    path: disk.path(&name),
                    found,
                    supported: FORMAT_VERSION,
                });
            }
            HeaderRead::Unreadable => {}
        }
    }
    Ok(salt)
}

/// Finds the batches in the bytes of a segment. The file's name, not its header, says which use it is, so that a
/// header's rot costs nothing.
pub(crate) fn read_segment(bytes: &[u8], use_number: u64, salt: u64) -> SegmentRead {
    let mut segment = SegmentRead {
        use_number,
        file_bytes: bytes.len() as u64,
        base: None,
        marks: Marks::default(),
        header_released_to: 0,
        openings: Vec::new(),
        worn: true,
        batches: Vec::new(),
        broken: Vec::new(),
    };
    if let HeaderRead::Valid { header, worn } = SegmentHeader::decode(bytes) {
        segment.worn = worn;
        segment.take_header(&header);
    }
    let seed = seed(salt, use_number);
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        let step = match Batch::read(&bytes[offset..], use_number, seed) {
            At::Batch(batch) => segment.take_batch(offset, &batch),
            At::Broken => {
                segment.broken.push(offset);
                None
            }
            At::Nothing => None,
        };
        // Past something broken its length cannot be trusted, but batches begin at sectors.
        offset += step.unwrap_or(SECTOR_BYTES);
    }
    segment
}

impl SegmentRead {
    /// The highest release that it states durably, where everything below `synced_to` is durable.
    fn released_durably(&self, synced_to: u64) -> u64 {
        let durable = self.batches.iter().filter(|found| found.end <= synced_to);
        durable.map(|found| found.released_to).fold(self.header_released_to, u64::max)
    }

    fn take_header(&mut self, header: &SegmentHeader) {
        // A file whose renaming for its next use did not reach the disk has the header of that use already.
        let is_of_this_use = header.use_number == self.use_number;
        if !is_of_this_use && header.base.is_some() {
            // Of an opening that took this file for want of room. What it states holds together with its tail, from when it
            // has its name, and it never got that.
            return;
        }
        self.marks = header.marks;
        self.header_released_to = header.marks.released_to.0;
        self.base = header.base.map(|lsn| lsn.0);
        self.openings = header.openings.list().to_vec();
        // Only the segment that an opening begins knows its base beforehand.
        let this = self.base.map(|base| Opening { use_number: self.use_number, base });
        self.openings.extend(this);
    }

    /// Notes a batch; `None` if it cannot be of this place.
    fn take_batch(&mut self, offset: usize, batch: &Batch<'_>) -> Option<usize> {
        let start = batch.head.start.0;
        // Position and offset run in step through a segment.
        let base = start.checked_sub((offset - HEADER_BYTES) as u64)?;
        if *self.base.get_or_insert(base) != base {
            return None;
        }
        let mut hurt: Vec<u32> =
            batch.records().filter(|record| !record.intact).map(|record| record.group).collect();
        hurt.sort_unstable();
        hurt.dedup();
        self.marks = self.marks.max(batch.head.marks);
        let end = start + batch.length() as u64;
        let released_to = batch.head.marks.released_to.0;
        self.batches.push(Found { offset, start, end, released_to, hurt });
        Some(batch.length())
    }
}

impl Plan {
    /// Decides about what was found. `segments` is sorted by use number.
    pub(crate) fn judge(segments: &[SegmentRead]) -> Self {
        let marks = segments.iter().fold(Marks::default(), |marks, segment| marks.max(segment.marks));
        // Only what is durable is ever released.
        let synced_to = marks.synced_to.max(marks.released_to).0;
        let (valid, limits) = drop_superseded(segments);
        let mut judge =
            Judge { synced_to, cursor: marks.released_to.0, end: 0, damage: Vec::new(), taken: Vec::new() };
        for place in valid {
            let found = place.of(segments);
            if found.end > marks.released_to.0 && !judge.take(place, found) {
                break;
            }
        }
        let end = judge.finish();
        let tail_from =
            judge.taken.iter().map(|place| place.of(segments)).find(|found| found.end > synced_to);
        let tail_from = tail_from.map_or(end, |found| found.start);
        let recovery = Recovery {
            records: 0,
            released_to: marks.released_to,
            recovered_lsn: Lsn(end),
            synced_to: Lsn(synced_to),
            tail: judge_tail(segments, &limits, end),
            damage: judge.damage,
            worn: worn(segments, &limits, marks.released_to),
            unreadable: false,
            short_of_room: false,
        };
        let (mut kept, mut empty) = (Vec::new(), Vec::new());
        for (segment, limit) in segments.iter().zip(limits) {
            // A file without a readable batch may be the damaged part itself: kept until that is released.
            if segment.batches.is_empty() && recovery.damage.is_empty() {
                empty.push((segment.use_number, segment.file_bytes));
            } else {
                let end = limit.min(tail_from);
                kept.push(Kept { use_number: segment.use_number, file_bytes: segment.file_bytes, end });
            }
        }
        let use_number_max = segments.iter().map(|segment| segment.use_number).max().unwrap_or(0);
        let mut openings = openings_of(segments);
        openings.retain(|opening| {
            let older = segments.iter().filter(|segment| segment.use_number < opening.use_number);
            older.into_iter().any(|segment| !segment.batches.is_empty())
        });
        // R22: it would be missed after a crash if its release were in the page cache only.
        let released = segments.iter().map(|segment| segment.released_durably(synced_to)).max().unwrap_or(0);
        let oldest = kept
            .first()
            .and_then(|kept: &Kept| segments.iter().find(|segment| segment.use_number == kept.use_number));
        let oldest_is_spent = recovery.damage.is_empty()
            && oldest.is_some_and(|oldest| oldest.batches.iter().all(|found| found.end <= released));
        Self {
            recovery,
            batches: judge.taken,
            tail_from,
            kept,
            empty,
            use_number_max,
            openings,
            oldest_is_spent,
        }
    }

    /// The same where not one header can be read, and with them no batch: all that the segments held was durable once and
    /// is damage (R20). It stays so at each opening to come, by the header of the segment that this one begins, until the
    /// owner has released it.
    pub(crate) fn judge_unreadable(segments: &[SegmentRead]) -> Self {
        let end = Lsn(UNREADABLE_END);
        let kept = segments.iter().map(|segment| {
            let SegmentRead { use_number, file_bytes, .. } = *segment;
            Kept { use_number, file_bytes, end: end.0 }
        });
        Self {
            recovery: Recovery {
                records: 0,
                released_to: Lsn(0),
                recovered_lsn: end,
                synced_to: end,
                tail: Tail::Clean,
                damage: vec![Damage { from: Lsn(0), to: end, groups: None }],
                worn: Vec::new(),
                unreadable: true,
                short_of_room: false,
            },
            batches: Vec::new(),
            tail_from: end.0,
            kept: kept.collect(),
            empty: Vec::new(),
            use_number_max: segments.iter().map(|segment| segment.use_number).max().unwrap_or(0),
            openings: Vec::new(),
            oldest_is_spent: false,
        }
    }

    /// A file of the log of this size that holds nothing: what an opening writes may go there if the file system has no
    /// room for a new one. It is the owner's from here on.
    pub(crate) fn take_material(&mut self, file_bytes: u64) -> Option<u64> {
        // The latest is a spare, if any is, and not what an earlier opening began.
        if let Some(at) = self.empty.iter().rposition(|(_, bytes)| *bytes == file_bytes) {
            return Some(self.empty.remove(at).0);
        }
        // The oldest only, or what puts an older one out of force might go first.
        let oldest = self.kept.first().filter(|oldest| oldest.file_bytes == file_bytes)?.use_number;
        if !std::mem::take(&mut self.oldest_is_spent) {
            return None;
        }
        self.kept.remove(0);
        Some(oldest)
    }

    /// Reads the chosen batches again and hands their records to `visit`; the batches of the live tail also go to
    /// `rewrite`, as (start, payloads).
    pub(crate) fn replay<D: Disk>(
        &mut self,
        disk: &D,
        segments: &[SegmentRead],
        salt: u64,
        mut visit: impl FnMut(u32, Lsn, &[u8]),
        mut rewrite: impl FnMut(&Batch<'_>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let mut bytes = Vec::new();
        let mut loaded = None;
        for place in &self.batches {
            let found = place.of(segments);
            let use_number = segments[place.segment].use_number;
            let name = segment_name(use_number);
            if loaded != Some(place.segment) {
                read_file(disk, &name, &mut bytes)?;
                loaded = Some(place.segment);
            }
            let unstable = || OpenError::Unstable { path: disk.path(&name), offset: found.offset as u64 };
            let rest = bytes.get(found.offset..).unwrap_or_default();
            let At::Batch(batch) = Batch::read(rest, use_number, seed(salt, use_number)) else {
                return Err(unstable());
            };
            for record in batch.records() {
                if record.intact {
                    self.recovery.records += 1;
                    visit(record.group, Lsn(found.end), record.payload);
                } else if found.hurt.binary_search(&record.group).is_err() {
                    return Err(unstable());
                }
            }
            if found.start >= self.tail_from {
                rewrite(&batch)?;
            }
        }
        Ok(())
    }

    /// What later headers name: the openings before this one, and this one.
    pub(crate) fn openings_with(&self, use_number: u64) -> Openings {
        let this = Opening { use_number, base: self.tail_from };
        Openings::latest(self.openings.iter().copied().chain([this]).collect())
    }

    /// Bytes of the live tail.
    pub(crate) fn tail_bytes(&self) -> u64 {
        self.recovery.recovered_lsn.0 - self.tail_from
    }
}

/// The batches that count, in lsn order, and for each segment where the next one that counts takes over.
///
/// A segment begins where the log ended when it was begun, so what segments of lower use number hold from there on was
/// dropped as torn, or rewritten into it (R5). Where the segment of an opening is lost, later headers say where it began.
fn drop_superseded(segments: &[SegmentRead]) -> (Vec<Place>, Vec<u64>) {
    let mut limit = u64::MAX;
    let mut limits = vec![0; segments.len()];
    let mut valid = Vec::new();
    let mut openings = openings_of(segments);
    openings.sort_unstable();
    for (index, segment) in segments.iter().enumerate().rev() {
        while let Some(opening) = openings.pop_if(|opening| opening.use_number > segment.use_number) {
            limit = limit.min(opening.base);
        }
        limits[index] = limit;
        let counts = segment.batches.iter().enumerate().filter(|(_, found)| found.end <= limit);
        valid.extend(counts.map(|(batch, _)| Place { segment: index, batch }));
        limit = limit.min(segment.base.unwrap_or(u64::MAX));
    }
    valid.sort_by_key(|place| place.of(segments).start);
    (valid, limits)
}

/// All openings that are named anywhere.
fn openings_of(segments: &[SegmentRead]) -> Vec<Opening> {
    segments.iter().flat_map(|segment| segment.openings.iter().copied()).collect()
}

/// Needed segments of which a copy of the header cannot be read. One that is released or holds nothing may be on its
/// way to its next use, and torn.
fn worn(segments: &[SegmentRead], limits: &[u64], released_to: Lsn) -> Vec<String> {
    let needed = segments.iter().zip(limits).filter(|(_, limit)| **limit > released_to.0);
    let holding = needed.filter(|(segment, _)| !segment.batches.is_empty());
    holding.filter(|(segment, _)| segment.worn).map(|(segment, _)| segment_name(segment.use_number)).collect()
}

/// Walks the batches and stops at the tear.
struct Judge {
    /// Everything below was durable once.
    synced_to: u64,
    /// Everything below is taken or known damage.
    cursor: u64,
    damage: Vec<Damage>,
    /// Where the last batch taken ends.
    end: u64,
    taken: Vec<Place>,
}

impl Judge {
    /// Takes the next batch, or refuses it and all that follow.
    fn take(&mut self, place: Place, found: &Found) -> bool {
        if found.start < self.end {
            // No writer leaves two batches for one place: keep the one that fits what came before.
            return true;
        }
        if found.start > self.cursor && !self.skip_to(found.start) {
            return false;
        }
        if !found.hurt.is_empty() {
            if found.end > self.synced_to {
                return false;
            }
            let groups = Some(found.hurt.clone());
            self.damage.push(Damage { from: Lsn(found.start), to: Lsn(found.end), groups });
        }
        self.cursor = found.end;
        self.end = found.end;
        self.taken.push(place);
        true
    }

    /// Nothing readable stands between the cursor and `next`: rot as far as it was durable; beyond, a tear.
    fn skip_to(&mut self, next: u64) -> bool {
        let rotten_to = next.min(self.synced_to);
        if rotten_to > self.cursor {
            self.damage.push(Damage { from: Lsn(self.cursor), to: Lsn(rotten_to), groups: None });
            self.cursor = rotten_to;
        }
        self.cursor == next
    }

    /// The end of the log: what was durable belongs to it, readable or not.
    fn finish(&mut self) -> u64 {
        self.skip_to(self.synced_to);
        self.cursor.max(self.synced_to)
    }
}

/// Whether anything recognisable stands beyond `end` that no later segment has superseded.
fn judge_tail(segments: &[SegmentRead], limits: &[u64], end: u64) -> Tail {
    let mut dropped_bytes = 0;
    for (segment, &limit) in segments.iter().zip(limits) {
        let beyond = segment.batches.iter().filter(|found| found.start >= end && found.end <= limit);
        dropped_bytes += beyond.map(|found| found.end - found.start).sum::<u64>();
        if let Some(base) = segment.base {
            let position = |offset: &&usize| base.saturating_add((**offset - HEADER_BYTES) as u64);
            let broken = segment.broken.iter().filter(|offset| (end..limit).contains(&position(offset)));
            dropped_bytes += (broken.count() * SECTOR_BYTES) as u64;
        } else if limit == u64::MAX {
            dropped_bytes += (segment.broken.len() * SECTOR_BYTES) as u64;
        }
    }
    if dropped_bytes == 0 { Tail::Clean } else { Tail::Torn { from: Lsn(end), dropped_bytes } }
}
