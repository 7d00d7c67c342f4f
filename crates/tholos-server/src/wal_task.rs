//! The log's thread: takes every append that waits, writes them as one batch, syncs once, and says how far it is
//! durable.
//!
//! A thread and not a task, since it waits for the disk. While one batch syncs the next one gathers, so that one sync
//! serves all that arrived meanwhile. Spares of a busy log are written by a thread of their own.
//!
//! Rules kept here: appends in the order given; nothing is reported durable before its sync has returned; R20 (a seal
//! after 10 ms of idleness and at a clean stop); R23 (after a failed write or sync nothing more is done).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tholos_node::{Append, Event, LogRoom};
use tholos_paxos::{AppendSeq, Entry, Record};
use tholos_wal::{Disk, LogError, NumberedLog, Room, Spare};
use tokio::sync::{Notify, mpsc, watch};

use crate::spare_thread::SpareThread;
use crate::sync_pace::SyncPace;
use crate::worker_task::Input;

/// Idleness after which the log is sealed (R20).
const SEAL_AFTER: Duration = Duration::from_millis(10);
/// Bytes of appends that may wait; above, the worker takes no more work.
pub(crate) const WAITING_BYTES_MAX: usize = 64 << 20;
/// Bytes of one batch, about.
const BATCH_BYTES: usize = 16 << 20;
/// How often a log without room is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);
/// How many tries pass until it is told again that there is no room.
const FULL_RETRIES_BETWEEN_TELLING: u32 = 50;

/// The worker's side of the log's thread.
pub(crate) struct WalQueue {
    state: Mutex<State>,
    ready: Condvar,
    drained: Notify,
    pub(crate) counters: WalCounters,
}

/// Figures for metrics, since start.
#[derive(Default)]
pub(crate) struct WalCounters {
    pub(crate) appends: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    /// Batches written and synced, and the nanoseconds that this took, waits for room left out.
    pub(crate) batches: AtomicU64,
    pub(crate) batch_nanos: AtomicU64,
    pub(crate) live_bytes: AtomicU64,
    pub(crate) file_bytes: AtomicU64,
    pub(crate) kept_bytes: AtomicU64,
    /// Up to here the log is durable: never behind what [`WalState::Durable`] says.
    pub(crate) durable_lsn: AtomicU64,
}

#[derive(Default)]
struct State {
    appends: Vec<Append>,
    bytes: usize,
    release: Option<AppendSeq>,
    stop: Option<Stop>,
    /// The thread sleeps and wants to be woken.
    asleep: bool,
}

/// How the thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Write and sync what waits, then seal.
    Clean,
    /// Leave everything as it is, as a kill would.
    Abandon,
}

/// What became of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WalState {
    /// Everything up to here is durable.
    Durable(AppendSeq),
    /// It failed: the node must stop (R23).
    Failed(Arc<str>),
}

impl WalCounters {
    fn note_batch(&self, took: Duration) {
        self.batch_nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }
}

impl WalQueue {
    pub(crate) fn new() -> WalQueue {
        WalQueue {
            state: Mutex::default(),
            ready: Condvar::new(),
            drained: Notify::new(),
            counters: WalCounters::default(),
        }
    }

    /// Adds appends, leaving `appends` empty, and a release; true if the worker should take no more work for now.
    pub(crate) fn push(&self, appends: &mut Vec<Append>, release: Option<AppendSeq>) -> bool {
        let cost: usize = appends.iter().map(|append| record_cost(&append.record)).sum();
        let mut state = self.lock();
        if state.appends.is_empty() {
            std::mem::swap(&mut state.appends, appends);
        } else {
            state.appends.append(appends);
        }
        state.bytes += cost;
        state.release = state.release.max(release);
        let wake = std::mem::take(&mut state.asleep);
        let full = state.bytes > WAITING_BYTES_MAX;
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        full
    }

    /// Whether so much waits that no more work should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().bytes > WAITING_BYTES_MAX
    }

    /// Waits until the thread has taken what waited.
    pub(crate) async fn drained(&self) {
        self.drained.notified().await;
    }

    /// Ends the thread.
    pub(crate) fn stop(&self, stop: Stop) {
        self.lock().stop = Some(stop);
        self.ready.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record costs in memory, about.
fn record_cost(record: &Record) -> usize {
    let entries = |entries: &[Entry]| entries.iter().map(Entry::cost_bytes).sum::<usize>();
    64 + match record {
        Record::Promised { .. } | Record::Joined { .. } | Record::Muted { .. } => 0,
        Record::Accepted { entries: list, .. }
        | Record::Replaced { entries: list, .. }
        | Record::Rescued { entries: list, .. } => entries(list),
        Record::Checkpoint(checkpoint) => entries(&checkpoint.entries),
    }
}

/// The thread's own state.
pub(crate) struct WalTask<D: Disk> {
    pub(crate) log: NumberedLog<D>,
    pub(crate) queue: Arc<WalQueue>,
    /// Told how far the log is durable, or that it failed.
    pub(crate) state: watch::Sender<WalState>,
    /// Told when the log's room gets short, and when it is enough again.
    pub(crate) control: mpsc::Sender<Input>,
}

/// What the thread took from the queue.
enum Taken {
    /// Work, in `Round`.
    Work,
    /// Nothing for [`SEAL_AFTER`], or [`FULL_RETRY`] while writers are refused.
    Idle,
    /// The end.
    Stop(Stop),
}

#[derive(Default)]
struct Round {
    appends: Vec<Append>,
    release: Option<AppendSeq>,
}

impl<D: Disk<File: Send> + 'static> WalTask<D> {
    /// Runs until it is stopped or the log fails.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.serve() {
            tracing::error!(%error, "the log failed; this node stops");
            self.state.send_replace(WalState::Failed(error.to_string().into()));
        }
    }

    fn serve(&mut self) -> Result<(), LogError> {
        let mut round = Round::default();
        let mut encoded = Encoded::default();
        // Nothing to state or prepare is known yet, so the first idle moment looks.
        let mut tidy = false;
        let spares = SpareThread::start();
        let mut pace = SyncPace::default();
        let mut began = None;
        loop {
            match self.take(&mut round, tidy, began.map(|began| began + pace.gap())) {
                Taken::Work => tidy = false,
                Taken::Idle => {
                    tidy = self.tidy()?;
                    // What was released is room only now, and with writes refused nothing else would tell.
                    self.report_usage();
                    self.report_room();
                    continue;
                }
                Taken::Stop(Stop::Abandon) => return Ok(()),
                Taken::Stop(Stop::Clean) => {
                    self.write(&mut round, &mut encoded)?;
                    self.log.log.seal()?;
                    return Ok(());
                }
            }
            let appends = round.appends.len();
            let now = Instant::now();
            if !self.write(&mut round, &mut encoded)? {
                return Ok(());
            }
            pace.note(appends, now.elapsed());
            began = Some(now);
            spares.look(&mut self.log.log)?;
            self.report_usage();
            self.report_room();
        }
    }

    /// Tells the worker when the log's room gets short, and when it is enough again.
    fn report_room(&mut self) {
        if let Some(room) = self.log.room_changed() {
            let room = match room {
                Room::Ample => LogRoom::Ample,
                Room::Short => LogRoom::Short,
                Room::Spent => LogRoom::Spent,
            };
            // The worker never waits for this thread, so this ends soon; if the worker is gone, so are we.
            let _ = self.control.blocking_send(Input::Event(Event::LogRoom(room)));
        }
    }

    /// Waits until `not_before`, and then for work; with nothing left to tidy, for as long as it takes. While writers are refused nothing may ever
    /// come, and others may make room on the disk, so then it waits for a moment only.
    fn take(&self, round: &mut Round, tidy: bool, not_before: Option<Instant>) -> Taken {
        let mut state = self.queue.lock();
        if let Some(not_before) = not_before {
            // Appends that come meanwhile wake nobody.
            while state.stop.is_none() {
                let left = not_before.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.queue.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let deadline = Instant::now() + if tidy { FULL_RETRY } else { SEAL_AFTER };
        loop {
            if state.stop == Some(Stop::Abandon) {
                return Taken::Stop(Stop::Abandon);
            }
            let release = state.release.take();
            if !state.appends.is_empty() || release.is_some() {
                std::mem::swap(&mut state.appends, &mut round.appends);
                round.release = release;
                let was_full = state.bytes > WAITING_BYTES_MAX;
                state.bytes = 0;
                if was_full {
                    self.queue.drained.notify_one();
                }
                return match state.stop {
                    None => Taken::Work,
                    Some(stop) => Taken::Stop(stop),
                };
            }
            if let Some(stop) = state.stop {
                return Taken::Stop(stop);
            }
            state.asleep = true;
            state = if tidy && self.log.told() == Room::Ample {
                self.queue.ready.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.asleep = false;
                    return Taken::Idle;
                }
                self.queue.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            };
            state.asleep = false;
        }
    }

    /// Seals, and prepares spare segments for as long as nothing waits; true when nothing is left to do.
    fn tidy(&mut self) -> Result<bool, LogError> {
        self.log.log.seal()?;
        loop {
            match self.log.log.prepare_spare() {
                Ok(Spare::Enough) => return Ok(true),
                Ok(Spare::Working) => {}
                // No room for a spare is no failure: the log goes on in what it has.
                Err(LogError::Full { .. }) => return Ok(true),
                Err(error) => return Err(error),
            }
            let state = self.queue.lock();
            if !state.appends.is_empty() || state.release.is_some() || state.stop.is_some() {
                return Ok(false);
            }
        }
    }

    /// Writes and syncs a round; false if the thread was abandoned while the log had no room.
    fn write(&mut self, round: &mut Round, encoded: &mut Encoded) -> Result<bool, LogError> {
        if let Some(AppendSeq(release)) = round.release.take() {
            self.log.release(release);
        }
        let mut appends = round.appends.drain(..).peekable();
        // The last append that is written and not synced.
        let mut written = None;
        let mut took = Duration::ZERO;
        while let Some(first) = appends.peek() {
            let mut last = first.seq;
            encoded.clear();
            // A large record goes alone: a batch has an upper bound.
            let fits =
                |bytes: usize, next: &Append| bytes == 0 || bytes + record_cost(&next.record) < BATCH_BYTES;
            while let Some(append) = appends.next_if(|next| fits(encoded.bytes.len(), next)) {
                last = append.seq;
                encoded.push(&append);
            }
            let records = encoded.records();
            let mut waits = 0_u32;
            loop {
                let began = Instant::now();
                match self.log.append(last.0, &records) {
                    Ok(_) => {
                        took += began.elapsed();
                        break;
                    }
                    Err(error @ LogError::Full { .. }) => {
                        if waits.is_multiple_of(FULL_RETRIES_BETWEEN_TELLING) {
                            tracing::error!(%error, "the log waits for room");
                        }
                        waits += 1;
                        // Among what is written already may be the checkpoint that makes room.
                        self.sync(written.take(), std::mem::take(&mut took))?;
                        self.report_room();
                        if !self.wait_for_room() {
                            return Ok(false);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            written = Some(last);
            self.queue.counters.appends.fetch_add(records.len() as u64, Ordering::Relaxed);
        }
        self.sync(written, took)?;
        Ok(true)
    }

    /// Syncs what was written up to an append, which took so long, and tells that it is durable.
    fn sync(&mut self, written: Option<AppendSeq>, took: Duration) -> Result<(), LogError> {
        let Some(seq) = written else { return Ok(()) };
        let began = Instant::now();
        let synced = self.log.log.sync()?;
        self.queue.counters.note_batch(took + began.elapsed());
        assert!(self.log.log.written_lsn() <= synced, "a sync reaches what was written before it");
        self.queue.counters.durable_lsn.store(synced.0, Ordering::Relaxed);
        self.state.send_replace(WalState::Durable(seq));
        Ok(())
    }

    /// Waits a moment for a release to make room; false if the thread was abandoned.
    fn wait_for_room(&mut self) -> bool {
        let state = self.queue.lock();
        let waited = self.queue.ready.wait_timeout(state, FULL_RETRY);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let (stop, release) = (state.stop, state.release.take());
        drop(state);
        if let Some(AppendSeq(release)) = release {
            self.log.release(release);
        }
        // A clean stop cannot be had without room either: what waits was never acknowledged.
        stop.is_none()
    }

    fn report_usage(&self) {
        let usage = self.log.log.usage();
        let counters = &self.queue.counters;
        counters.written_bytes.store(usage.written_bytes, Ordering::Relaxed);
        counters.syncs.store(usage.syncs, Ordering::Relaxed);
        counters.live_bytes.store(usage.live_bytes, Ordering::Relaxed);
        counters.file_bytes.store(usage.file_bytes, Ordering::Relaxed);
        counters.kept_bytes.store(usage.kept_bytes, Ordering::Relaxed);
    }
}

/// The records of a batch, encoded side by side.
#[derive(Default)]
struct Encoded {
    bytes: Vec<u8>,
    /// For each record its group and where it ends.
    ends: Vec<(u32, usize)>,
}

impl Encoded {
    fn clear(&mut self) {
        if self.bytes.capacity() > BATCH_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, append: &Append) {
        tholos_wire::encode_record(&append.record, &mut self.bytes);
        self.ends.push((u32::from(append.shard.0), self.bytes.len()));
    }

    fn records(&self) -> Vec<(u32, &[u8])> {
        let mut start = 0;
        let record = |&(group, end): &(u32, usize)| {
            let bytes = &self.bytes[start..end];
            start = end;
            (group, bytes)
        };
        self.ends.iter().map(record).collect()
    }
}

#[cfg(test)]
mod tests;
