//! The snapshots' thread: writes each chunk by chunk to its own file, durably and with its directory (R22), and frees
//! what takes a while to free. The core makes a chunk when one before is written, so the pace here is the pace of the
//! whole: neither the log's syncs nor the worker wait for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tholos_node::{Event, SnapshotJob};
use tholos_paxos::Index;
use tholos_ring::ShardId;
use tholos_wal::{Disk, SnapshotError, SnapshotName, SnapshotWriter, remove_snapshots_below};
use tokio::sync::mpsc;

use crate::metrics::{Counters, add};
use crate::worker_task::Input;

/// Bytes written a second, at most, unless the log waits for room. A quarter of what a modest disk does, so that the
/// log keeps the rest; a shard of 1 GiB takes eight seconds.
const BYTES_PER_SECOND: u64 = 128 << 20;
/// How far ahead of that pace the thread may be before it pauses.
const AHEAD_MAX: Duration = Duration::from_millis(2);

/// The thread's own state.
pub(crate) struct SnapshotTask<D: Disk> {
    disk: D,
    /// The core asks for few chunks at a time, so what waits here is bounded.
    jobs: Receiver<SnapshotJob>,
    control: mpsc::Sender<Input>,
    counters: Arc<Counters>,
    /// Set when the node is killed: leave everything as it is.
    abandoned: Arc<AtomicBool>,
    /// Unfinished files.
    writers: BTreeMap<SnapshotName, SnapshotWriter<D>>,
    pace: Pace,
}

impl<D: Disk> SnapshotTask<D> {
    pub(crate) fn new(
        disk: D,
        jobs: Receiver<SnapshotJob>,
        control: mpsc::Sender<Input>,
        counters: Arc<Counters>,
        abandoned: Arc<AtomicBool>,
    ) -> SnapshotTask<D> {
        let pace = Pace::default();
        SnapshotTask { disk, jobs, control, counters, abandoned, writers: BTreeMap::new(), pace }
    }

    /// Runs until the worker is gone.
    pub(crate) fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            if self.abandoned.load(Ordering::Relaxed) {
                return;
            }
            if let Some(event) = self.work(job)
                && self.control.blocking_send(Input::Event(event)).is_err()
            {
                return;
            }
        }
    }

    /// Does one piece of work; answers what the core is to be told.
    fn work(&mut self, job: SnapshotJob) -> Option<Event> {
        let (shard, index, done) = match job {
            SnapshotJob::Begin { shard, index } => (shard, index, self.begin(name(shard, index))),
            SnapshotJob::Write { shard, index, bytes, hurry } => {
                if !hurry {
                    self.pace.keep(bytes.len() as u64);
                }
                (shard, index, self.write(name(shard, index), &bytes))
            }
            SnapshotJob::Finish { shard, index } => (shard, index, self.finish(name(shard, index))),
            SnapshotJob::Abandon { shard, index } => {
                self.abandon(name(shard, index));
                return None;
            }
            SnapshotJob::RemoveBelow { shard, index } => {
                if let Err(error) = remove_snapshots_below(&self.disk, u32::from(shard.0), index.0) {
                    tracing::warn!(%shard, %index, %error, "old snapshots stay for now");
                }
                return None;
            }
            SnapshotJob::Drop(discarded) => {
                drop(discarded);
                return None;
            }
        };
        match done {
            Ok(Done::Begun | Done::Unknown) => None,
            Ok(Done::Written) => Some(Event::SnapshotWritten { shard, index }),
            Ok(Done::Finished) => {
                add(&self.counters.snapshots_saved, 1);
                Some(Event::SnapshotSaved { shard, index })
            }
            // The log still has everything, so this costs space and no data; the core tries again.
            Err(error) => {
                tracing::error!(%shard, %index, %error, "a snapshot was not written");
                self.abandon(name(shard, index));
                Some(Event::SnapshotFailed { shard, index })
            }
        }
    }

    fn begin(&mut self, name: SnapshotName) -> Result<Done, SnapshotError> {
        self.writers.insert(name, SnapshotWriter::create(self.disk.clone(), name)?);
        Ok(Done::Begun)
    }

    fn write(&mut self, name: SnapshotName, bytes: &Bytes) -> Result<Done, SnapshotError> {
        // What follows a failure was asked for before the core heard of it.
        let Some(writer) = self.writers.get_mut(&name) else { return Ok(Done::Unknown) };
        if !bytes.is_empty() {
            // The writer syncs in steps, so that the log's own syncs never wait for long.
            writer.write_chunk(bytes)?;
        }
        Ok(Done::Written)
    }

    fn finish(&mut self, name: SnapshotName) -> Result<Done, SnapshotError> {
        let Some(writer) = self.writers.remove(&name) else { return Ok(Done::Unknown) };
        writer.finish()?;
        Ok(Done::Finished)
    }

    fn abandon(&mut self, name: SnapshotName) {
        if let Some(Err(error)) = self.writers.remove(&name).map(SnapshotWriter::abandon) {
            tracing::warn!(%error, "an unfinished snapshot stays until the next start");
        }
    }
}

fn name(shard: ShardId, index: Index) -> SnapshotName {
    SnapshotName { shard: u32::from(shard.0), index: index.0 }
}

/// What became of a piece of work.
enum Done {
    Begun,
    Written,
    Finished,
    /// Its file was given up.
    Unknown,
}

/// Keeps to [`BYTES_PER_SECOND`].
#[derive(Default)]
struct Pace {
    /// When what was written so far should have been.
    due: Option<Instant>,
}

impl Pace {
    /// Waits, if need be, until `bytes` more may be written.
    fn keep(&mut self, bytes: u64) {
        let now = Instant::now();
        // Time in which nothing was written is not saved up.
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + Duration::from_nanos(bytes * 1_000_000_000 / BYTES_PER_SECOND));
        let ahead = due.saturating_duration_since(now);
        if ahead >= AHEAD_MAX {
            std::thread::sleep(ahead);
        }
    }
}
