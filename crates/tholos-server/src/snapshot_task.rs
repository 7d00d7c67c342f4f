//! The snapshots' thread: writes each to its own file, durably and with its directory, then tells the worker (R22).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use tholos_node::{Event, SaveSnapshot};
use tholos_paxos::Index;
use tholos_ring::ShardId;
use tholos_wal::{Disk, SnapshotError, SnapshotName, SnapshotWriter, remove_snapshots_below};
use tokio::sync::mpsc;

use crate::metrics::{Counters, add};
use crate::worker_task::Input;

/// What the thread is asked for.
pub(crate) enum SnapshotJob {
    /// Write this one.
    Save(SaveSnapshot),
    /// Remove those of a shard below an index: a durable record names a newer one.
    RemoveBelow(ShardId, Index),
}

/// The thread's own state.
pub(crate) struct SnapshotTask<D: Disk> {
    pub(crate) disk: D,
    /// The core asks for one snapshot of a shard at a time, so as many wait as there are shards, at most.
    pub(crate) jobs: Receiver<SnapshotJob>,
    pub(crate) control: mpsc::Sender<Input>,
    pub(crate) counters: Arc<Counters>,
    /// Set when the node is killed: leave everything as it is.
    pub(crate) abandoned: Arc<AtomicBool>,
}

impl<D: Disk> SnapshotTask<D> {
    /// Runs until the worker is gone.
    pub(crate) fn run(self) {
        while let Ok(job) = self.jobs.recv() {
            let snapshot = match job {
                SnapshotJob::Save(snapshot) => snapshot,
                SnapshotJob::RemoveBelow(shard, index) => {
                    if let Err(error) = remove_snapshots_below(&self.disk, u32::from(shard.0), index.0) {
                        tracing::warn!(%shard, %index, %error, "old snapshots stay for now");
                    }
                    continue;
                }
            };
            let (shard, index) = (snapshot.shard, snapshot.index);
            let event = match self.save(&snapshot) {
                Ok(true) => {
                    add(&self.counters.snapshots_saved, 1);
                    Event::SnapshotSaved { shard, index }
                }
                Ok(false) => return,
                // The log still has everything, so this costs space and no data; the core tries again.
                Err(error) => {
                    tracing::error!(%shard, %index, %error, "a snapshot was not written");
                    Event::SnapshotFailed { shard, index }
                }
            };
            if self.control.blocking_send(Input::Event(event)).is_err() {
                return;
            }
        }
    }

    /// Writes one; false if it was abandoned on the way.
    fn save(&self, snapshot: &SaveSnapshot) -> Result<bool, SnapshotError> {
        let name = SnapshotName { shard: u32::from(snapshot.shard.0), index: snapshot.index.0 };
        // The writer syncs in steps, so that the log's own syncs never wait for long.
        let mut writer = SnapshotWriter::create(self.disk.clone(), name)?;
        for chunk in &snapshot.chunks {
            if self.abandoned.load(Ordering::Relaxed) {
                return Ok(false);
            }
            writer.write_chunk(chunk)?;
        }
        writer.finish()?;
        Ok(true)
    }
}
