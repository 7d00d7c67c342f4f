//! How much room a node has for replicas that are to come: on its disk and in the machine's memory.
//!
//! Looked at now and then by a task of its own, so that who asks the worker never waits for the file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tholos_node::Event;
use tokio::sync::mpsc;

use crate::metrics::{Counters, get};
use crate::worker_task::Input;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// What stands in a counter while nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// Room for more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that may be written to the disk, the reserve left out.
    pub(crate) disk_free: Option<u64>,
    /// Bytes of memory that the machine can give.
    pub(crate) memory_free: Option<u64>,
}

impl Room {
    /// As it was seen last.
    pub(crate) fn of(counters: &Counters) -> Room {
        let known = |bytes: u64| (bytes != UNKNOWN).then_some(bytes);
        Room {
            disk_free: known(get(&counters.disk_free_bytes)),
            memory_free: known(get(&counters.memory_free_bytes)),
        }
    }

    fn look(directory: &Path, reserve_bytes: u64) -> Room {
        let disk = rustix::fs::statvfs(directory).ok();
        let disk_free = disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        Room {
            disk_free: disk_free.map(|free| free.saturating_sub(reserve_bytes)),
            memory_free: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)),
        }
    }

    fn store(self, counters: &Counters) {
        counters.disk_free_bytes.store(self.disk_free.unwrap_or(UNKNOWN), Ordering::Relaxed);
        counters.memory_free_bytes.store(self.memory_free.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }
}

/// What Linux says it can give without swapping. Limits of a container are not among it.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Looks once, so that it is known from the start.
pub(crate) fn look(counters: &Counters, directory: &Path, reserve_bytes: u64) {
    Room::look(directory, reserve_bytes).store(counters);
}

/// Looks now and then and tells the core, for as long as the node runs.
pub(crate) async fn keep(
    counters: Arc<Counters>,
    directory: PathBuf,
    reserve_bytes: u64,
    control: mpsc::Sender<Input>,
) {
    loop {
        let Room { disk_free, memory_free } = Room::of(&counters);
        // The worker may have ended, and this soon with it.
        let _ = control.send(Input::Event(Event::Room { disk_free, memory_free })).await;
        tokio::time::sleep(INTERVAL).await;
        let directory = directory.clone();
        let looked = tokio::task::spawn_blocking(move || Room::look(&directory, reserve_bytes)).await;
        looked.unwrap_or_default().store(&counters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_linux_calls_available() {
        let text = "MemTotal:       16 kB\nMemFree:         2 kB\nMemAvailable:    8 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(8192));
        assert_eq!(available("MemFree: 2 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn the_reserve_is_not_room() {
        let here = std::env::temp_dir();
        let (all, none) = (Room::look(&here, 0), Room::look(&here, u64::MAX));
        assert!(all.disk_free.is_some_and(|free| free > 0), "{all:?}");
        assert_eq!(none.disk_free, Some(0));
        let counters = Counters::default();
        Room::default().store(&counters);
        assert_eq!(Room::of(&counters), Room::default());
        none.store(&counters);
        assert_eq!(Room::of(&counters), none);
    }
}
