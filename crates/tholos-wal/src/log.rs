//! The log: one writer, one write for each batch, one sync for all groups.
//!
//! Invariants:
//! - L1: a batch's `synced_to` and `released_to` were true of the disk before it is written (R20, R22).
//! - L2: a file is recycled only after a durable mark says that nothing in it is needed (R22).
//! - L3: after a failed write or sync nothing is written or synced again (R23).
//! - L4: use numbers rise, and segments are used in their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::Lsn;
use crate::buffer::AlignedBuffer;
use crate::disk::Disk;
use crate::error::{LogError, OpenError};
use crate::format::{
    BatchHead, HEADER_BYTES, Kind, Marks, SECTOR_BYTES, batch_bytes, encode_batch, seed, segment_name,
};
use crate::options::{BATCH_BYTES_MAX, Headroom, Options, Planted, Room, Spare, Usage};
use crate::pool::{Failure, LentSpare, Pool, Ready};
use crate::recover::{Kept, Plan, Recovery, list_segments, read_file, read_salt, read_segment};
use crate::tail::{open_error, write_tail};

/// A write buffer above this is given back after the batch that needed it, in bytes.
const BUFFER_BYTES_KEPT: usize = 4 << 20;
/// Bytes of a seal.
pub(crate) const SEAL_BYTES: u64 = SECTOR_BYTES as u64;
/// After plenty of room was found, the file system is not asked for room until one in so many parts of a segment is
/// written.
const ASKED_AGAIN_PARTS: u64 = 16;
/// Zeros are written in pieces of this size, in bytes.
pub(crate) const FILL_STEP_BYTES: u64 = 1 << 20;

/// The segment being written.
#[derive(Debug)]
struct Active<F> {
    use_number: u64,
    seed: u32,
    file: F,
    file_bytes: u64,
    /// Where the next batch goes in the file.
    offset: u64,
    unsynced: bool,
}

/// What the owner has released, on its way to the disk.
#[derive(Debug, Default)]
struct Release {
    /// Asked for, and to be stated once everything written until then is durable (L1).
    asked: Option<Lsn>,
    /// Stated in each batch from now on.
    stated: Lsn,
}

/// The log of a node.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    options: Options,
    salt: u64,
    active: Active<D::File>,
    /// Full segments that are not synced yet.
    unsynced: Vec<(u64, D::File)>,
    /// Full segments, oldest first.
    kept: VecDeque<Kept>,
    pool: Pool<D::File>,
    release: Release,
    /// End of what was written.
    written: Lsn,
    /// End of what is durable.
    durable: Lsn,
    /// The last batch states all there is to state.
    sealed: bool,
    poison: Option<Arc<str>>,
    buffer: AlignedBuffer,
    usage: Usage,
    /// Bytes written at which the file system is asked for room again.
    asked_again_at: u64,
}

impl<D: Disk> Log<D> {
    /// Opens the log in `disk`'s directory, or creates it if there is none, and hands every record that is not released
    /// to `visit` as (group, lsn, payload), in the order they were appended.
    ///
    /// When it returns, everything visited is durable, and the live tail has been written again (R5). The directory
    /// must be nobody else's: locking it is the caller's duty. Records of a batch that was damaged after it became
    /// durable are missing among the visited; [`Recovery::damage`] names their groups.
    ///
    /// # Errors
    /// [`OpenError`]; what was visited before it must be forgotten.
    pub fn open(
        disk: D,
        options: Options,
        visit: impl FnMut(u32, Lsn, &[u8]),
    ) -> Result<(Self, Recovery), OpenError> {
        options.validate()?;
        let (uses, unfinished) = list_segments(&disk)?;
        let salt_read = read_salt(&disk, &uses)?;
        let salt = salt_read.unwrap_or(options.salt);
        for name in &unfinished {
            disk.remove(name).map_err(open_error(&disk, "remove", name))?;
        }
        let mut segments = Vec::with_capacity(uses.len());
        let mut bytes = Vec::new();
        for use_number in uses {
            read_file(&disk, &segment_name(use_number), &mut bytes)?;
            segments.push(read_segment(&bytes, use_number, salt));
        }
        drop(bytes);
        let mut plan = match salt_read {
            // Without the salt nothing in them can be verified, and an empty log would be a lie.
            None if !segments.is_empty() => Plan::judge_unreadable(&segments),
            _ => Plan::judge(&segments),
        };
        let (tail, offset) = write_tail(&disk, &options, salt, &mut plan, &segments, visit)?;
        let active = Active { offset, ..Active::begin(tail, salt) };
        let mut log = Self {
            pool: Pool::new(
                active.use_number + 1,
                plan.openings_with(active.use_number),
                options.segment_bytes,
            ),
            salt,
            active,
            unsynced: Vec::new(),
            kept: plan.kept.into(),
            release: Release { asked: None, stated: plan.recovery.released_to },
            written: plan.recovery.recovered_lsn,
            durable: plan.recovery.recovered_lsn,
            sealed: true,
            poison: None,
            buffer: AlignedBuffer::default(),
            usage: Usage::default(),
            asked_again_at: 0,
            disk,
            options,
        };
        let retired = plan
            .empty
            .into_iter()
            .try_for_each(|(use_number, file_bytes)| log.pool.give(&log.disk, use_number, file_bytes));
        let retired = retired.and_then(|()| log.retire());
        retired.map_err(|error| open_error(&log.disk, error.operation, &error.name)(error.source))?;
        Ok((log, plan.recovery))
    }

    /// Appends the records as one batch in one write, and returns the batch's lsn. Nothing is durable before
    /// [`sync`](Self::sync) returns that lsn or more. A batch is recovered whole or not at all. An empty slice does
    /// nothing.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::BatchTooLarge`] have done nothing; after any other the log is poisoned (R23).
    pub fn append<B: AsRef<[u8]>>(&mut self, records: &[(u32, B)]) -> Result<Lsn, LogError> {
        self.check()?;
        if records.is_empty() {
            return Ok(self.written);
        }
        match self.write_batch(Kind::Records, records) {
            // What was released may be room enough, once a seal has stated it.
            Err(LogError::Full { .. }) if self.seal_frees_a_segment()? => {
                self.seal()?;
                self.write_batch(Kind::Records, records)
            }
            appended => appended,
        }
    }

    /// Makes everything appended durable, and returns up to where.
    ///
    /// # Errors
    /// After any error the log is poisoned (R23); what was not durable before may be durable or not.
    pub fn sync(&mut self) -> Result<Lsn, LogError> {
        self.check()?;
        // Older segments first: what is acknowledged is a prefix anyway, and this way it mostly is one on disk too.
        for (use_number, file) in std::mem::take(&mut self.unsynced) {
            self.usage.syncs += 1;
            let synced = self.sync_data(&file);
            synced.map_err(|source| self.fail("sync", &segment_name(use_number), source))?;
        }
        if self.active.unsynced {
            self.usage.syncs += 1;
            let synced = self.sync_data(&self.active.file);
            synced.map_err(|source| self.fail("sync", &segment_name(self.active.use_number), source))?;
            self.active.unsynced = false;
        }
        if self.durable < self.written {
            self.durable = self.written;
            // What was written states what is stated: an asked release waits for the next round.
            self.retire().map_err(|error| self.fail_with(error))?;
        }
        if let Some(before) = self.release.asked.take() {
            assert!(before <= self.durable, "released {before} beyond the durable {}", self.durable);
            self.release.stated = before;
            self.sealed = false;
        }
        Ok(self.durable)
    }

    fn sync_data(&self, file: &D::File) -> std::io::Result<()> {
        match self.options.planted {
            Planted::SyncSkipped => Ok(()),
            Planted::FailedSyncForgotten => self.disk.sync_data(file).or(Ok(())),
            _ => self.disk.sync_data(file),
        }
    }

    /// Syncs, then writes and syncs a seal: an empty batch that states that all before it is durable, so that later
    /// damage to it is known for rot (R20). Called after 10 ms without a batch and before a clean stop. Does no more
    /// than sync if there is nothing new to state, or no room to state it.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn seal(&mut self) -> Result<Lsn, LogError> {
        self.sync()?;
        self.asked_again_at = 0;
        if !self.sealed {
            match self.write_batch::<&[u8]>(Kind::Seal, &[]) {
                Ok(_) => {}
                // Only the judgement of rot is weaker without it.
                Err(LogError::Full { .. }) => return Ok(self.durable),
                Err(error) => return Err(error),
            }
            self.sync()?;
            self.sealed = true;
        }
        Ok(self.durable)
    }

    /// The owner needs no record with an lsn of `before` or less: it has appended again whatever it still needs (R22).
    ///
    /// Takes effect when everything appended before this call is durable: from then on each batch states it, and when
    /// such a batch or a seal is durable too, segments are recycled, and the released records are not visited again.
    pub fn release(&mut self, before: Lsn) {
        let before = before.min(self.written);
        if before > self.release.asked.unwrap_or(self.release.stated) {
            self.release.asked = Some(before);
        }
    }

    /// Does one bounded step towards having [`Options::segments_spare`] segments written ahead, or towards giving back
    /// what is too much. Call it when idle until it answers [`Spare::Enough`]. While a spare is lent it leaves all to that.
    ///
    /// # Errors
    /// [`LogError::Full`] has done nothing; after any other the log is poisoned (R23).
    pub fn prepare_spare(&mut self) -> Result<Spare, LogError> {
        self.check()?;
        if self.pool.has_lent() {
            return Ok(Spare::Enough);
        }
        if self.pool.ready_count() < self.options.segments_spare {
            if !self.pool.has_material() && self.creatable_bytes(0) < self.options.segment_bytes {
                return Err(self.full(self.options.segment_bytes));
            }
            self.step_spare(self.options.spare_step_bytes)?;
            return Ok(Spare::Working);
        }
        // As many again stay for the spares to come, or each release would remove a file and each roll write a new one.
        let shrunk = self
            .pool
            .shrink(&self.disk, self.options.segments_spare)
            .map_err(|error| self.fail_with(error))?;
        Ok(if shrunk { Spare::Working } else { Spare::Enough })
    }

    /// The next spare, if one is wanted and has to be written: to be written by [`LentSpare::write`] on another thread while
    /// this log goes on, and given back. So a log that is never idle has spares too.
    ///
    /// # Errors
    /// After any error the log is poisoned (R23). That there is no room is none: nothing is lent then.
    pub fn lend_spare(&mut self) -> Result<Option<LentSpare<D>>, LogError> {
        self.check()?;
        let wanted = self.pool.ready_count() < self.options.segments_spare && self.pool.can_lend();
        if !wanted || (!self.pool.has_material() && self.creatable_bytes(0) < self.options.segment_bytes) {
            return Ok(None);
        }
        self.pool
            .lend(&self.disk, self.options.spare_step_bytes)
            .map(Some)
            .map_err(|error| self.fail_with(error))
    }

    /// Takes a spare back that was lent. If it is whole it gets ready now, which takes a few syncs.
    ///
    /// # Errors
    /// What went wrong with it: [`LogError::Full`] has done nothing, after any other the log is poisoned (R23).
    pub fn take_spare_back(&mut self, spare: LentSpare<D>) -> Result<(), LogError> {
        self.check()?;
        let whole = spare.is_whole();
        match self.pool.take_back(spare) {
            Ok(()) if whole => self.step_spare(self.options.spare_step_bytes),
            Ok(()) => Ok(()),
            Err(error) if is_full(&error.source) => Err(self.full(self.options.segment_bytes)),
            Err(error) => Err(self.fail_with(error)),
        }
    }

    /// How much more can be appended. Asks the file system, which costs about a microsecond.
    #[must_use]
    pub fn headroom(&self) -> Headroom {
        let creatable = self.creatable_bytes(0) / self.options.segment_bytes;
        let bytes = self.room_bytes(creatable);
        Headroom { bytes, writers_welcome: bytes > self.options.writer_reserve_bytes }
    }

    /// What [`Headroom::writers_welcome`] says. Asks the file system only if the files that are there do not suffice, and
    /// after plenty of room not for the next part of a segment or until a [`seal`](Self::seal), so it may be asked
    /// after every sync.
    #[must_use]
    pub fn writers_welcome(&mut self) -> bool {
        let reserve = self.options.writer_reserve_bytes;
        if self.room_bytes(0) > reserve {
            return true;
        }
        if self.usage.written_bytes >= self.asked_again_at {
            let headroom = self.headroom();
            let step = self.options.segment_bytes / ASKED_AGAIN_PARTS;
            if headroom.bytes <= reserve + 2 * step {
                return headroom.writers_welcome;
            }
            self.asked_again_at = self.usage.written_bytes + step;
        }
        true
    }

    /// How much room there is, for the owner to decide what to take. As cheap as [`writers_welcome`](Self::writers_welcome) while
    /// there is enough.
    #[must_use]
    pub fn room(&mut self) -> Room {
        if self.writers_welcome() {
            return Room::Ample;
        }
        let creatable = self.creatable_bytes(self.options.overdraft_bytes / 2) / self.options.segment_bytes;
        let needed = self.options.writer_reserve_bytes / 2;
        if self.room_bytes(creatable) > needed { Room::Short } else { Room::Spent }
    }

    /// Bytes that fit into the files that are there and so many new ones.
    fn room_bytes(&self, new_segments: u64) -> u64 {
        if self.poison.is_some() {
            return 0;
        }
        let left = self.active.file_bytes.saturating_sub(self.active.offset + SEAL_BYTES);
        let others = new_segments + self.pool.file_bytes() / self.options.segment_bytes;
        let usable = self.options.segment_bytes - HEADER_BYTES as u64 - SEAL_BYTES;
        left + others * usable
    }

    /// Where the oldest segment that is still needed ends, if it is full: releasing up to there frees it.
    #[must_use]
    pub fn oldest_segment_end(&self) -> Option<Lsn> {
        self.kept.front().map(|kept| Lsn(kept.end))
    }

    /// End of what was appended.
    #[must_use]
    pub fn written_lsn(&self) -> Lsn {
        self.written
    }

    /// End of what is durable.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.durable
    }

    /// Bytes appended since the log was opened, framing included.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.usage.written_bytes
    }

    /// Bytes of the log that are not released: when they near `log_bytes_max`, take snapshots and release.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.written.0 - self.release.asked.unwrap_or(self.release.stated).0
    }

    /// By how much its files exceed [`Options::log_bytes_max`].
    #[must_use]
    pub fn overdrawn_bytes(&self) -> u64 {
        self.file_bytes().saturating_sub(self.options.log_bytes_max)
    }

    /// [`Options::segment_bytes`].
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.options.segment_bytes
    }

    /// Figures for metrics.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            live_bytes: self.live_bytes(),
            file_bytes: self.file_bytes(),
            kept_bytes: self.kept_bytes(),
            segments: self.kept.len() as u64 + 1,
            spares: self.pool.ready_count() as u64,
            created_segments: self.pool.created(),
            ..self.usage
        }
    }

    /// Writes one batch at the end of the log.
    fn write_batch<B: AsRef<[u8]>>(&mut self, kind: Kind, records: &[(u32, B)]) -> Result<Lsn, LogError> {
        let payload_bytes = records.iter().map(|(_, payload)| payload.as_ref().len() as u64).sum();
        let bytes = batch_bytes(records.len() as u64, payload_bytes);
        if bytes > BATCH_BYTES_MAX {
            return Err(LogError::BatchTooLarge { bytes, max: BATCH_BYTES_MAX });
        }
        // The last sector of a segment is for a seal that gets segments free: so a full log can always be released.
        let last = kind == Kind::Seal && self.release_frees_a_segment();
        let kept_free = if last { 0 } else { SEAL_BYTES };
        if self.active.offset + bytes + kept_free > self.active.file_bytes {
            self.next_segment(bytes)?;
        }
        let head =
            BatchHead { use_number: self.active.use_number, start: self.written, marks: self.marks(), kind };
        encode_batch(&mut self.buffer, &head, self.active.seed, records);
        assert_eq!(self.buffer.bytes().len() as u64, bytes, "a batch has the size it was given room for");
        // Set first: a failed write may have reached the file.
        self.active.unsynced = true;
        let written = self.disk.write_at(&self.active.file, self.active.offset, self.buffer.bytes());
        written.map_err(|source| self.fail("write", &segment_name(self.active.use_number), source))?;
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = AlignedBuffer::default();
        }
        self.active.offset += bytes;
        self.written = Lsn(self.written.0 + bytes);
        self.sealed = false;
        self.usage.written_bytes += bytes;
        self.usage.batches += 1;
        Ok(self.written)
    }

    /// Leaves the active segment for a spare, or for one made for a batch of this size.
    fn next_segment(&mut self, batch_bytes: u64) -> Result<(), LogError> {
        let file_bytes = HEADER_BYTES as u64 + batch_bytes + SEAL_BYTES;
        let next = if file_bytes > self.options.segment_bytes {
            self.check_room(file_bytes)?;
            let made = self.pool.oversize(&self.disk, self.salt, self.marks(), file_bytes);
            made.map_err(|error| self.fail_with(error))?
        } else {
            self.take_spare()?
        };
        assert!(
            next.use_number > self.active.use_number,
            "segments are used in the order of their numbers (L4)"
        );
        let next = Active::begin(next, self.salt);
        let full = std::mem::replace(&mut self.active, next);
        self.kept.push_back(Kept {
            use_number: full.use_number,
            file_bytes: full.file_bytes,
            end: self.written.0,
        });
        if full.unsynced {
            self.unsynced.push((full.use_number, full.file));
        }
        Ok(())
    }

    /// A spare, made on the spot if none is ready.
    fn take_spare(&mut self) -> Result<Ready<D::File>, LogError> {
        if self.pool.ready_count() == 0 {
            self.usage.late_segments += 1;
        }
        loop {
            if let Some(ready) = self.pool.take() {
                return Ok(ready);
            }
            self.step_spare(FILL_STEP_BYTES)?;
        }
    }

    fn step_spare(&mut self, step_bytes: u64) -> Result<(), LogError> {
        if !self.pool.has_material() {
            self.check_room(self.options.segment_bytes)?;
        }
        match self.pool.step(&self.disk, self.salt, self.marks(), step_bytes) {
            Ok(_) => Ok(()),
            // The file system filled up between asking and writing. No batch was involved and the file is gone again.
            Err(error) if is_full(&error.source) => Err(self.full(self.options.segment_bytes)),
            Err(error) => Err(self.fail_with(error)),
        }
    }

    /// Whether what is to be stated frees a segment that is kept now.
    fn release_frees_a_segment(&self) -> bool {
        self.kept.front().is_some_and(|oldest| oldest.end <= self.release.stated.0)
    }

    /// The same with what was only asked for, for which everything must be durable first.
    fn seal_frees_a_segment(&mut self) -> Result<bool, LogError> {
        self.sync()?;
        Ok(self.release_frees_a_segment())
    }

    /// Gives the released segments to the pool. Called when what is stated is stated in a durable batch or header (L2).
    fn retire(&mut self) -> Result<(), Failure> {
        while let Some(oldest) = self.kept.front().filter(|kept| kept.end <= self.release.stated.0) {
            let (use_number, file_bytes) = (oldest.use_number, oldest.file_bytes);
            self.kept.pop_front();
            self.pool.give(&self.disk, use_number, file_bytes)?;
        }
        Ok(())
    }

    /// What is true of the disk now (L1).
    fn marks(&self) -> Marks {
        Marks { synced_to: self.durable, released_to: self.release.stated }
    }

    fn file_bytes(&self) -> u64 {
        self.full_bytes() + self.active.file_bytes + self.pool.file_bytes()
    }

    fn full_bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.file_bytes).sum()
    }

    /// Bytes of the segments that are full and not released, and what is written of the one after them: no less than the
    /// records in them, and much more where little was written between one opening and the next, for each opening begins a segment.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.full_bytes() + self.active.offset
    }

    /// Bytes of new files that the limits allow, with so much more than the limit of the log.
    fn creatable_bytes(&self, overdraft_bytes: u64) -> u64 {
        let limit = self.options.log_bytes_max.saturating_add(overdraft_bytes);
        let by_limit = limit.saturating_sub(self.file_bytes());
        // If the file system does not say, let the write find out.
        let free = self.disk.free_bytes().unwrap_or(u64::MAX);
        by_limit.min(free.saturating_sub(self.options.disk_reserve_bytes))
    }

    fn check_room(&self, wanted_bytes: u64) -> Result<(), LogError> {
        let creatable = self.creatable_bytes(self.options.overdraft_bytes);
        if creatable >= wanted_bytes { Ok(()) } else { Err(self.full(wanted_bytes)) }
    }

    fn full(&self, wanted_bytes: u64) -> LogError {
        LogError::Full {
            path: self.disk.path(""),
            wanted_bytes,
            used_bytes: self.file_bytes(),
            max_bytes: self.options.log_bytes_max.saturating_add(self.options.overdraft_bytes),
            free_bytes: self.disk.free_bytes().unwrap_or(0),
            reserve_bytes: self.options.disk_reserve_bytes,
        }
    }

    fn check(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(first) => Err(LogError::Poisoned { first: Arc::clone(first) }),
            None => Ok(()),
        }
    }

    /// Poisons the log (L3).
    fn fail(&mut self, operation: &'static str, name: &str, source: io::Error) -> LogError {
        let error = LogError::Io { operation, path: self.disk.path(name), source: Arc::new(source) };
        self.poison = Some(error.to_string().into());
        error
    }

    fn fail_with(&mut self, failure: Failure) -> LogError {
        self.fail(failure.operation, &failure.name, failure.source)
    }
}

impl<F> Active<F> {
    fn begin(ready: Ready<F>, salt: u64) -> Self {
        Self {
            use_number: ready.use_number,
            seed: seed(salt, ready.use_number),
            file: ready.file,
            file_bytes: ready.file_bytes,
            offset: HEADER_BYTES as u64,
            unsynced: false,
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
