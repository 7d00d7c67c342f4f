//! The snapshots' thread: writes, reads and receives snapshots chunk by chunk (R22), and frees what takes a while to
//! free. The core makes a chunk when one before is written, and sends one when one before has arrived, so the pace here
//! is the pace of the whole: neither the log's syncs, nor the log's messages, nor the worker wait for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tholos_node::{ChunkRead, Event, SnapshotJob};
use tholos_paxos::Index;
use tholos_ring::ShardId;
use tholos_wal::{Disk, SnapshotChunk, SnapshotError};
use tokio::sync::mpsc;

use crate::metrics::{Counters, add};
use crate::snapshot_files::{Received, SnapshotFiles};
use crate::worker_task::Input;

/// Bytes written, read and received a second together, at most, unless the log waits for room. A part of what a modest
/// disk or network does, so that the log keeps the rest; a shard of 1 GiB is written in eight seconds.
const BYTES_PER_SECOND: u64 = 128 << 20;
/// How far ahead of that pace the thread may be before it pauses.
const AHEAD_MAX: Duration = Duration::from_millis(2);

/// The thread's own state.
pub(crate) struct SnapshotTask<D: Disk> {
    files: SnapshotFiles<D>,
    /// The core asks for few chunks at a time, so what waits here is bounded.
    jobs: Receiver<SnapshotJob>,
    control: mpsc::Sender<Input>,
    counters: Arc<Counters>,
    /// Set when the node is killed: leave everything as it is.
    abandoned: Arc<AtomicBool>,
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
        SnapshotTask {
            files: SnapshotFiles::new(disk),
            jobs,
            control,
            counters,
            abandoned,
            pace: Pace::default(),
        }
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
        match job {
            SnapshotJob::Begin { shard, index } => {
                let begun = self.files.begin(shard, index);
                begun.err().map(|error| self.failed(shard, index, &error))
            }
            SnapshotJob::Write { shard, index, bytes, hurry } => {
                if !hurry {
                    self.pace.keep(bytes.len());
                }
                match self.files.write(shard, index, &bytes) {
                    Ok(known) => known.then_some(Event::SnapshotWritten { shard, index }),
                    Err(error) => Some(self.failed(shard, index, &error)),
                }
            }
            SnapshotJob::Finish { shard, index } => match self.files.finish(shard, index) {
                Ok(known) => {
                    add(&self.counters.snapshots_saved, u64::from(known));
                    known.then_some(Event::SnapshotSaved { shard, index })
                }
                Err(error) => Some(self.failed(shard, index, &error)),
            },
            SnapshotJob::Read { shard, index, to, chunk } => match self.files.read(shard, index, chunk) {
                Ok(Some((SnapshotChunk { bytes, checksum }, chunks))) => {
                    self.pace.keep(bytes.len());
                    let bytes = Bytes::from(bytes);
                    Some(Event::SnapshotRead(ChunkRead { shard, index, to, chunk, chunks, bytes, checksum }))
                }
                // It was given up meanwhile.
                Ok(None) => Some(Event::SnapshotUnreadable { shard, index }),
                Err(error) => {
                    tracing::error!(%shard, %index, %error, "a snapshot cannot be read to be sent");
                    Some(Event::SnapshotUnreadable { shard, index })
                }
            },
            SnapshotJob::Take { shard, index, file, chunk, checksum, bytes, last } => {
                self.pace.keep(bytes.len());
                self.receive(shard, (index, file), chunk, (&bytes, checksum), last)
            }
            SnapshotJob::Abandon { shard, index } => {
                self.files.abandon(shard, index);
                None
            }
            SnapshotJob::Forget { shard, file } => {
                self.files.forget(shard, file);
                None
            }
            SnapshotJob::RemoveBelow { shard, index } => {
                self.files.remove_below(shard, index);
                None
            }
            SnapshotJob::Drop(discarded) => {
                drop(discarded);
                None
            }
        }
    }

    /// The log still has everything, so this costs space and no data; the core tries again.
    fn failed(&mut self, shard: ShardId, index: Index, error: &SnapshotError) -> Event {
        tracing::error!(%shard, %index, %error, "a snapshot was not written");
        self.files.abandon(shard, index);
        Event::SnapshotFailed { shard, index }
    }

    fn receive(
        &mut self,
        shard: ShardId,
        name: (Index, u64),
        number: u32,
        (bytes, checksum): (&Bytes, u32),
        last: bool,
    ) -> Option<Event> {
        let file = name.1;
        match self.files.receive(shard, name, number, (bytes, checksum), last) {
            Ok(Received::Taken) => Some(Event::SnapshotTaken { shard, file, chunk: number }),
            Ok(Received::Loaded(snapshot)) => Some(Event::SnapshotLoaded { shard, file, snapshot }),
            Ok(Received::Unknown) => None,
            Err(error) => {
                tracing::error!(%shard, index = %name.0, %error, "a snapshot from the leader was not taken");
                self.files.forget(shard, file);
                Some(Event::SnapshotRefused { shard, file })
            }
        }
    }
}

/// Keeps to [`BYTES_PER_SECOND`].
#[derive(Default)]
struct Pace {
    /// When what was moved so far should have been.
    due: Option<Instant>,
}

impl Pace {
    /// Waits, if need be, until `bytes` more may be moved.
    fn keep(&mut self, bytes: usize) {
        let now = Instant::now();
        // Time in which nothing was moved is not saved up.
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + Duration::from_nanos(bytes as u64 * 1_000_000_000 / BYTES_PER_SECOND));
        let ahead = due.saturating_duration_since(now);
        if ahead >= AHEAD_MAX {
            std::thread::sleep(ahead);
        }
    }
}
