//! Segments that hold nothing: spares ready for use, and files on their way to be one.
//!
//! A spare is written in full and named before its first batch, so that a batch changes no metadata and its sync is
//! one flush. It gets a number that no segment of this log had before (R20).

use std::collections::VecDeque;
use std::io;

use crate::disk::Disk;
use crate::format::{Marks, Openings, SegmentHeader, segment_name};

/// The file that is becoming a spare; removed when a log is opened.
const BUILDING: &str = "spare.tmp";
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
    file: F,
    written_bytes: u64,
}

/// All files of the log that hold nothing.
#[derive(Debug)]
pub(crate) struct Pool<F> {
    /// In the order of their use numbers, which is that of their use.
    ready: VecDeque<Ready<F>>,
    /// Names of whole segments to be recycled.
    reusable: VecDeque<String>,
    building: Option<Building<F>>,
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
        let files = self.ready.len() + self.reusable.len() + usize::from(self.building.is_some());
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
            self.building = Some(match self.reusable.pop_front() {
                Some(name) => {
                    disk.rename(&name, BUILDING).map_err(failure("rename", &name))?;
                    let file = disk.open(BUILDING).map_err(failure("open", BUILDING))?;
                    Building { file, written_bytes: self.segment_bytes }
                }
                None => {
                    let file = disk.create(BUILDING).map_err(failure("create", BUILDING))?;
                    self.created += 1;
                    Building { file, written_bytes: 0 }
                }
            });
            return Ok(false);
        };
        if building.written_bytes < self.segment_bytes {
            let bytes = step_bytes.min(self.segment_bytes - building.written_bytes);
            let zeros = vec![0; usize::try_from(bytes).expect("a step fits memory")];
            let written = disk
                .write_at(&building.file, building.written_bytes, &zeros)
                .map_err(failure("write", BUILDING))
                .and_then(|()| disk.sync_data(&building.file).map_err(failure("sync", BUILDING)));
            building.written_bytes += bytes;
            return match written {
                Ok(()) => Ok(false),
                Err(error) => {
                    self.building = None;
                    // Best effort: what stays is removed at the next start.
                    let _ = disk.remove(BUILDING);
                    Err(error)
                }
            };
        }
        let Some(building) = self.building.take() else { return Ok(false) };
        let ready = self.name(disk, building.file, BUILDING, salt, marks)?;
        self.ready.push_back(ready);
        Ok(true)
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
