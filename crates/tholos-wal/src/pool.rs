//! Segments that hold nothing: spares ready for use, and files on their way to be one.
//!
//! A spare is written in full and named before its first batch, so that a batch changes no metadata and its sync is
//! one flush. It gets a number that no segment of this log had before (R20).

use std::collections::VecDeque;
use std::io;

use crate::buffer::AlignedBuffer;
use crate::disk::Disk;
use crate::format::{Marks, Openings, SegmentHeader, segment_name};

/// The file that is becoming a spare; removed when a log is opened.
const BUILDING: &str = "spare.tmp";
/// The file of a spare that is written while [`BUILDING`] is lent; removed when a log is opened.
const LATE: &str = "late.tmp";
/// The file of an oversize segment until it is named; removed when a log is opened.
const OVERSIZE: &str = "oversize.tmp";

/// Why the pool failed: what was tried on which file.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) operation: &'static str,
    pub(crate) name: String,
    pub(crate) source: io::Error,
}

/// `map_err` with the operation and the file.
pub(crate) fn failure(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> Failure + use<> {
    let name = name.to_owned();
    move |source| Failure { operation, name, source }
}

/// A segment ready for its first batch.
#[derive(Debug)]
pub(crate) struct Ready<F> {
    pub(crate) use_number: u64,
    pub(crate) file: F,
    pub(crate) file_bytes: u64,
}

#[derive(Debug)]
struct Building<F> {
    name: &'static str,
    file: F,
    written_bytes: u64,
}

/// A spare that is written elsewhere, so that the log goes on meanwhile: [`Log::lend_spare`](crate::Log::lend_spare)
/// gives it out, and [`Log::take_spare_back`](crate::Log::take_spare_back) takes it, whole or not. One that is dropped
/// is a spare less until the log is opened again.
#[derive(Debug)]
pub struct LentSpare<D: Disk> {
    disk: D,
    building: Building<D::File>,
    segment_bytes: u64,
    step_bytes: u64,
    zeros: AlignedBuffer,
    failure: Option<Failure>,
}

impl<D: Disk> LentSpare<D> {
    pub(crate) fn is_whole(&self) -> bool {
        self.building.written_bytes == self.segment_bytes
    }

    /// Writes [`Options::spare_step_bytes`](crate::Options::spare_step_bytes) more, and syncs after the last; true if
    /// there is more to write. What fails is told by [`Log::take_spare_back`](crate::Log::take_spare_back).
    pub fn write(&mut self) -> bool {
        let filled = self.building.fill(&self.disk, &mut self.zeros, self.segment_bytes, self.step_bytes);
        let written = match filled {
            Ok(()) if self.is_whole() => {
                self.disk.sync_data(&self.building.file).map_err(failure("sync", self.building.name))
            }
            filled => filled,
        };
        self.failure = written.err();
        self.failure.is_none() && !self.is_whole()
    }
}

impl<F> Building<F> {
    /// Writes zeros, so many bytes at most. Its name comes with a sync.
    fn fill<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        zeros: &mut AlignedBuffer,
        segment_bytes: u64,
        step_bytes: u64,
    ) -> Result<(), Failure> {
        let bytes = step_bytes.min(segment_bytes - self.written_bytes);
        let length = usize::try_from(bytes).expect("a step fits memory");
        zeros.reset(length);
        zeros.pad(length);
        disk.write_at(&self.file, self.written_bytes, zeros.bytes()).map_err(failure("write", self.name))?;
        self.written_bytes += bytes;
        Ok(())
    }
}

/// All files of the log that hold nothing.
#[derive(Debug)]
pub(crate) struct Pool<F> {
    /// In the order of their use numbers, which is that of their use.
    ready: VecDeque<Ready<F>>,
    /// Names of whole segments to be recycled.
    reusable: VecDeque<String>,
    building: Option<Building<F>>,
    /// A file that becomes a spare is with someone else.
    lent: bool,
    use_number_next: u64,
    openings: Openings,
    segment_bytes: u64,
    /// Files made rather than recycled.
    created: u64,
}

impl<F> Pool<F> {
    pub(crate) fn new(use_number_next: u64, openings: Openings, segment_bytes: u64) -> Self {
        Self {
            ready: VecDeque::new(),
            reusable: VecDeque::new(),
            building: None,
            lent: false,
            use_number_next,
            openings,
            segment_bytes,
            created: 0,
        }
    }

    /// Takes a segment that is needed no more. One of another size is removed: the options have changed, or it held
    /// one oversize batch.
    pub(crate) fn give<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        use_number: u64,
        file_bytes: u64,
    ) -> Result<(), Failure> {
        let name = segment_name(use_number);
        if file_bytes == self.segment_bytes {
            self.reusable.push_back(name);
            return Ok(());
        }
        disk.remove(&name).map_err(failure("remove", &name))
    }

    /// The next spare, if one is ready.
    pub(crate) fn take(&mut self) -> Option<Ready<F>> {
        self.ready.pop_front()
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Files made rather than recycled, so far.
    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    /// Whether the next step needs no more of the disk than it has already.
    pub(crate) fn has_material(&self) -> bool {
        self.building.is_some() || !self.reusable.is_empty()
    }

    /// Bytes of all files here.
    pub(crate) fn file_bytes(&self) -> u64 {
        let unfinished = usize::from(self.building.is_some()) + usize::from(self.lent);
        let files = self.ready.len() + self.reusable.len() + unfinished;
        files as u64 * self.segment_bytes
    }

    /// Removes one file if more than `kept` wait to be recycled; whether it did.
    pub(crate) fn shrink<D: Disk<File = F>>(&mut self, disk: &D, kept: usize) -> Result<bool, Failure> {
        if self.reusable.len() <= kept {
            return Ok(false);
        }
        let Some(name) = self.reusable.pop_back() else { return Ok(false) };
        disk.remove(&name).map_err(failure("remove", &name))?;
        Ok(true)
    }

    /// Does a bounded step towards the next spare, `step_bytes` of writing and a sync at most; whether one got ready.
    ///
    /// If there is no room for a new file, the unfinished one is removed and the error is `StorageFull` or the like.
    pub(crate) fn step<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        salt: u64,
        marks: Marks,
        step_bytes: u64,
    ) -> Result<bool, Failure> {
        let Some(building) = &mut self.building else {
            self.building = Some(self.begin(disk)?);
            return Ok(false);
        };
        if building.written_bytes < self.segment_bytes {
            let mut zeros = AlignedBuffer::default();
            let filled = building.fill(disk, &mut zeros, self.segment_bytes, step_bytes);
            let name = building.name;
            let synced = filled.and_then(|()| disk.sync_data(&building.file).map_err(failure("sync", name)));
            if synced.is_err() {
                self.building = None;
                // Best effort: what stays is removed at the next start.
                let _ = disk.remove(name);
            }
            return synced.map(|()| false);
        }
        let Some(building) = self.building.take() else { return Ok(false) };
        let ready = self.name(disk, building.file, building.name, salt, marks)?;
        self.ready.push_back(ready);
        Ok(true)
    }

    /// Begins a spare, of a file to be recycled if there is one.
    fn begin<D: Disk<File = F>>(&mut self, disk: &D) -> Result<Building<F>, Failure> {
        let name = if self.lent { LATE } else { BUILDING };
        if let Some(old) = self.reusable.pop_front() {
            disk.rename(&old, name).map_err(failure("rename", &old))?;
            let file = disk.open(name).map_err(failure("open", name))?;
            return Ok(Building { name, file, written_bytes: self.segment_bytes });
        }
        let file = disk.create(name).map_err(failure("create", name))?;
        self.created += 1;
        Ok(Building { name, file, written_bytes: 0 })
    }

    /// Whether the next spare has to be written, and may be by someone else.
    pub(crate) fn can_lend(&self) -> bool {
        let unwritten = |building: &Building<F>| building.written_bytes < self.segment_bytes;
        !self.lent && self.building.as_ref().map_or(self.reusable.is_empty(), unwritten)
    }

    pub(crate) fn has_lent(&self) -> bool {
        self.lent
    }

    /// Gives out the next spare to be written, if it [can be lent](Self::can_lend).
    pub(crate) fn lend<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        step_bytes: u64,
    ) -> Result<LentSpare<D>, Failure> {
        let building = match self.building.take() {
            Some(building) => building,
            None => self.begin(disk)?,
        };
        self.lent = true;
        Ok(LentSpare {
            disk: disk.clone(),
            building,
            segment_bytes: self.segment_bytes,
            step_bytes,
            zeros: AlignedBuffer::default(),
            failure: None,
        })
    }

    /// Takes back what was lent: the next steps finish it.
    pub(crate) fn take_back<D: Disk<File = F>>(&mut self, spare: LentSpare<D>) -> Result<(), Failure> {
        self.lent = false;
        let LentSpare { disk, building, failure, .. } = spare;
        // A late one that is unfinished keeps its place: it is a spare as well.
        if failure.is_some() || self.building.is_some() {
            let _ = disk.remove(building.name);
        } else {
            self.building = Some(building);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Gives a finished file its number and its name, durably.
    fn name<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        file: F,
        unfinished: &str,
        salt: u64,
        marks: Marks,
    ) -> Result<Ready<F>, Failure> {
        let use_number = self.use_number_next;
        self.use_number_next += 1;
        let header = SegmentHeader { salt, use_number, base: None, marks, openings: self.openings };
        disk.write_at(&file, 0, &header.encode()).map_err(failure("write", unfinished))?;
        disk.sync_data(&file).map_err(failure("sync", unfinished))?;
        let name = segment_name(use_number);
        disk.rename(unfinished, &name).map_err(failure("rename", unfinished))?;
        disk.sync_directory().map_err(failure("sync the directory of", &name))?;
        Ok(Ready { use_number, file, file_bytes: self.segment_bytes })
    }

    /// Makes a segment for one batch that fits no other. It is not written ahead: such a batch is rare and its sync
    /// long anyway.
    pub(crate) fn oversize<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        salt: u64,
        marks: Marks,
        file_bytes: u64,
    ) -> Result<Ready<F>, Failure> {
        let file = disk.create(OVERSIZE).map_err(failure("create", OVERSIZE))?;
        self.created += 1;
        let mut ready = self.name(disk, file, OVERSIZE, salt, marks)?;
        ready.file_bytes = file_bytes;
        // Segments are used in the order of their numbers, so the spares, whose numbers are lower now, need new ones.
        self.reusable.extend(self.ready.drain(..).map(|spare| segment_name(spare.use_number)));
        Ok(ready)
    }
}
