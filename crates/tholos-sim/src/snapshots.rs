//! The snapshots' thread of a simulated machine: the driver's duties with snapshot files, piece by piece.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tholos_node::{ChunkRead, Event, LoadedSnapshot, SnapshotJob, SnapshotLoader};
use tholos_paxos::Index;
use tholos_ring::ShardId;
use tholos_wal::{
    Crash, MemDisk, SnapshotChunk, SnapshotError, SnapshotName, SnapshotReader, SnapshotSource,
    SnapshotWriter, list_snapshots, remove_snapshots_below, remove_unfinished_snapshots,
};

/// The thread and its disk.
pub struct Snapshots {
    /// Outlives crashes.
    pub disk: MemDisk,
    jobs: VecDeque<SnapshotJob>,
    /// Whether a piece of work is under way.
    pub busy: bool,
    /// Unfinished files.
    writers: BTreeMap<SnapshotName, SnapshotWriter<MemDisk>>,
    /// Those that arrive.
    receivers: BTreeMap<ShardId, Receiver>,
    /// How long a piece of work takes, in microseconds.
    pub piece_us: (u64, u64),
}

struct Receiver {
    file: u64,
    writer: SnapshotWriter<MemDisk>,
    loader: SnapshotLoader,
}

impl Default for Snapshots {
    fn default() -> Snapshots {
        Snapshots {
            disk: MemDisk::new(),
            jobs: VecDeque::new(),
            busy: false,
            writers: BTreeMap::new(),
            receivers: BTreeMap::new(),
            piece_us: (50, 2_000),
        }
    }
}

impl Snapshots {
    /// Stops at once. What the disk had not synced is kept or lost as `crash` says.
    pub fn crash(&mut self, crash: Crash) {
        self.jobs.clear();
        self.busy = false;
        self.writers.clear();
        self.receivers.clear();
        self.disk.crash(crash);
    }

    /// Removes what the last crash left unfinished. `false`: the disk failed.
    pub fn start(&self) -> bool {
        remove_unfinished_snapshots(&self.disk).is_ok()
    }

    /// Takes work in; `true`: the thread is idle and should begin.
    pub fn push(&mut self, jobs: Vec<SnapshotJob>) -> bool {
        self.jobs.extend(jobs);
        !self.busy && !self.jobs.is_empty()
    }

    /// Does the next piece of work. An error: the disk failed, and its power goes.
    pub fn step(&mut self) -> Result<Option<Event>, SnapshotError> {
        let Some(job) = self.jobs.pop_front() else { return Ok(None) };
        Ok(match job {
            SnapshotJob::Begin { shard, index } => {
                let name = name(shard, index);
                self.writers.insert(name, SnapshotWriter::create(self.disk.clone(), name)?);
                None
            }
            SnapshotJob::Write { shard, index, bytes, .. } => {
                let writer = self.writers.get_mut(&name(shard, index)).expect("it was begun");
                if !bytes.is_empty() {
                    writer.write_chunk(&bytes)?;
                }
                Some(Event::SnapshotWritten { shard, index })
            }
            SnapshotJob::Finish { shard, index } => {
                self.writers.remove(&name(shard, index)).expect("it was begun").finish()?;
                Some(Event::SnapshotSaved { shard, index })
            }
            SnapshotJob::Abandon { shard, index } => {
                if let Some(writer) = self.writers.remove(&name(shard, index)) {
                    writer.abandon()?;
                }
                None
            }
            SnapshotJob::Read { shard, index, to, chunk } => Some(match self.read(shard, index, chunk) {
                Some((SnapshotChunk { bytes, checksum }, chunks)) => {
                    let bytes = Bytes::from(bytes);
                    Event::SnapshotRead(ChunkRead { shard, index, to, chunk, chunks, bytes, checksum })
                }
                None => Event::SnapshotUnreadable { shard, index },
            }),
            SnapshotJob::Take { shard, index, file, chunk, checksum, bytes, last } => {
                self.take(shard, (index, file), chunk, (&bytes, checksum), last)?
            }
            SnapshotJob::Forget { shard, file } => {
                self.forget(shard, file)?;
                None
            }
            SnapshotJob::RemoveBelow { shard, index } => {
                // One that stays costs room, nothing else.
                let _ = remove_snapshots_below(&self.disk, u32::from(shard.0), index.0);
                None
            }
            SnapshotJob::Drop(discarded) => {
                drop(discarded);
                None
            }
        })
    }

    /// A chunk, and how many there are if the file is finished.
    fn read(&self, shard: ShardId, index: Index, chunk: u32) -> Option<(SnapshotChunk, u32)> {
        let name = name(shard, index);
        if let Some(writer) = self.writers.get(&name) {
            return Some((writer.read_chunk(chunk).ok()??, 0));
        }
        let mut source = SnapshotSource::open(self.disk.clone(), name).ok()?;
        let chunks = u32::try_from(source.chunks()).ok()?;
        Some((source.read_chunk(chunk).ok()??, chunks))
    }

    fn take(
        &mut self,
        shard: ShardId,
        (index, file): (Index, u64),
        chunk: u32,
        (bytes, checksum): (&Bytes, u32),
        last: bool,
    ) -> Result<Option<Event>, SnapshotError> {
        if chunk == 0 {
            let writer = SnapshotWriter::receive(self.disk.clone(), name(shard, index))?;
            self.receivers.insert(shard, Receiver { file, writer, loader: SnapshotLoader::new() });
        }
        // What follows a refusal was sent before it was heard of.
        let Some(receiver) = self.receivers.get_mut(&shard).filter(|receiver| receiver.file == file) else {
            return Ok(None);
        };
        let sound = match receiver.writer.write_received(bytes, checksum) {
            Ok(()) => receiver.loader.push(bytes).is_ok(),
            Err(SnapshotError::Damaged { .. }) => false,
            Err(error) => return Err(error),
        };
        if !sound {
            self.forget(shard, file)?;
            return Ok(Some(Event::SnapshotRefused { shard, file }));
        }
        if !last {
            return Ok(Some(Event::SnapshotTaken { shard, file, chunk }));
        }
        let Receiver { writer, loader, .. } = self.receivers.remove(&shard).expect("it was there");
        let Ok(snapshot) = loader.finish() else { return Ok(Some(Event::SnapshotRefused { shard, file })) };
        writer.finish()?;
        Ok(Some(Event::SnapshotLoaded { shard, file, snapshot: Box::new(snapshot) }))
    }

    fn forget(&mut self, shard: ShardId, file: u64) -> Result<(), SnapshotError> {
        if self.receivers.get(&shard).is_some_and(|receiver| receiver.file == file) {
            self.receivers.remove(&shard).map_or(Ok(()), |receiver| receiver.writer.abandon())?;
        }
        Ok(())
    }

    /// Finished files on the disk.
    pub fn count(&self) -> usize {
        list_snapshots(&self.disk).map_or(0, |names| names.len())
    }
}

fn name(shard: ShardId, index: Index) -> SnapshotName {
    SnapshotName { shard: u32::from(shard.0), index: index.0 }
}

/// Reads a snapshot at start. One that is damaged is as good as none (R20).
pub fn load(disk: &MemDisk, shard: ShardId, index: Index) -> Option<LoadedSnapshot> {
    let mut reader = SnapshotReader::open(disk.clone(), name(shard, index)).ok()?;
    let mut loader = SnapshotLoader::new();
    while let Some(chunk) = reader.next_chunk().ok()? {
        loader.push(&chunk).expect("a verified chunk can be read");
    }
    Some(loader.finish().expect("a finished snapshot is whole"))
}
