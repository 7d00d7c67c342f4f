//! A thread that writes the log's spares while the log is busy: a log that is never idle would otherwise stop for each
//! new segment until it is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tholos_wal::{Disk, LentSpare, Log, LogError};

/// The log's side of the thread; ends and joins it when it is dropped.
pub(crate) struct SpareThread<D: Disk> {
    /// Spares to be written; `None` if the thread could not be started: then the log writes its spares itself.
    unwritten: Option<Sender<LentSpare<D>>>,
    written: Receiver<LentSpare<D>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Disk + 'static> SpareThread<D> {
    /// Starts it, under the name of the log's thread with its kind.
    pub(crate) fn start() -> SpareThread<D> {
        let (unwritten, jobs) = channel();
        let (done, written) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let name = std::thread::current().name().unwrap_or("log").replace("-wal", "-spare");
        let run = {
            let stop = Arc::clone(&stop);
            move || write_all(&jobs, &done, &stop)
        };
        match std::thread::Builder::new().name(name).spawn(run) {
            Ok(thread) => SpareThread { unwritten: Some(unwritten), written, stop, thread: Some(thread) },
            Err(error) => {
                tracing::warn!(%error, "no thread for the log's spares: the log stops for each now");
                SpareThread { unwritten: None, written, stop, thread: None }
            }
        }
    }

    /// Takes back what is written by now, and gives the next one to be written. Never waits for the thread.
    pub(crate) fn look(&self, log: &mut Log<D>) -> Result<(), LogError> {
        while let Ok(spare) = self.written.try_recv() {
            take_back(log, spare)?;
        }
        if let Some(unwritten) = &self.unwritten
            && let Some(spare) = log.lend_spare()?
        {
            // If the thread is gone, so is its spare, and the log writes the next one itself.
            let _ = unwritten.send(spare);
        }
        Ok(())
    }
}

fn take_back<D: Disk>(log: &mut Log<D>, spare: LentSpare<D>) -> Result<(), LogError> {
    match log.take_spare_back(spare) {
        // No room for a spare is no failure: the log goes on in what it has.
        Ok(()) | Err(LogError::Full { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

impl<D: Disk> Drop for SpareThread<D> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.unwritten = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic, and if it did, its log goes on without it.
            let _ = thread.join();
        }
    }
}

fn write_all<D: Disk>(jobs: &Receiver<LentSpare<D>>, done: &Sender<LentSpare<D>>, stop: &AtomicBool) {
    for mut spare in jobs {
        while spare.write() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
        if done.send(spare).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tholos_wal::{MemDisk, Options};

    use super::*;

    fn open(disk: &MemDisk) -> Log<MemDisk> {
        Log::open(disk.clone(), Options::small(), |_, _, _| {}).expect("the log opens").0
    }

    #[test]
    fn spares_are_written_beside_a_log_that_goes_on() {
        let mut log = open(&MemDisk::new());
        let spares = SpareThread::start();
        for round in 0..4 {
            spares.look(&mut log).expect("lend");
            log.append(&[(1, [round; 900])]).expect("append");
            log.sync().expect("sync");
            if log.usage().spares == 0 {
                let spare = spares.written.recv().expect("it was lent and is written");
                take_back(&mut log, spare).expect("whole");
            }
            assert_eq!(log.usage().spares, 1, "round {round}");
        }
        assert_eq!(log.usage().late_segments, 0);
    }

    #[test]
    fn a_disk_that_fails_under_a_spare_stops_the_log_and_the_thread_ends_at_once() {
        let disk = MemDisk::new();
        let mut log = open(&disk);
        let spares = SpareThread::start();
        disk.fail_syncs(true);
        spares.look(&mut log).expect("lend");
        let spare = spares.written.recv().expect("it was lent");
        let error = take_back(&mut log, spare).expect_err("its sync failed");
        assert!(matches!(error, LogError::Io { .. }), "{error}");

        let mut log = open(&MemDisk::new());
        spares.look(&mut log).expect("lend another");
        drop(spares);
    }
}
