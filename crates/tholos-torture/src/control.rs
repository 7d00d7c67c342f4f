//! What is wrong with the disk just now, told by whoever started this process: one word a line on standard input.
//!
//! The end of the input is the end of the process, so that no server outlives its torturer.

use std::io::{self, BufRead as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::stall;

/// The variable that plants a fault: the harness must find it, or it proves nothing. Only this program reads it.
pub(crate) const PLANTED_VARIABLE: &str = "THOLOS_TORTURE_PLANTED";

/// Faults of the disk.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    syncs_fail: AtomicBool,
    writes_fail: AtomicBool,
    full: AtomicBool,
    sync_millis: AtomicU64,
    /// Planted: a sync reports success and does nothing.
    syncs_lie: AtomicBool,
}

impl Faults {
    /// As the environment plants them; the error names what is not known.
    pub(crate) fn planted() -> Result<Self, String> {
        let faults = Self::default();
        match std::env::var(PLANTED_VARIABLE).as_deref() {
            Err(_) => {}
            Ok("sync-lies") => faults.syncs_lie.store(true, Ordering::Relaxed),
            Ok(other) => return Err(format!("{PLANTED_VARIABLE} is {other}, and only sync-lies is known")),
        }
        Ok(faults)
    }

    /// Obeys one line; false if it says nothing known.
    pub(crate) fn set(&self, line: &str) -> bool {
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("sync-fails", _) => self.syncs_fail.store(true, Ordering::Relaxed),
            ("write-fails", _) => self.writes_fail.store(true, Ordering::Relaxed),
            ("full", _) => self.full.store(true, Ordering::Relaxed),
            ("slow", millis) => {
                let Ok(millis) = millis.parse() else { return false };
                self.sync_millis.store(millis, Ordering::Relaxed);
            }
            ("heal", _) => {
                for fault in [&self.syncs_fail, &self.writes_fail, &self.full] {
                    fault.store(false, Ordering::Relaxed);
                }
                self.sync_millis.store(0, Ordering::Relaxed);
            }
            _ => return false,
        }
        true
    }

    pub(crate) fn check_write(&self) -> io::Result<()> {
        if self.writes_fail.load(Ordering::Relaxed) { Err(broken()) } else { Ok(()) }
    }

    pub(crate) fn before_sync(&self) -> io::Result<()> {
        stall(Duration::from_millis(self.sync_millis.load(Ordering::Relaxed)));
        if self.syncs_fail.load(Ordering::Relaxed) { Err(broken()) } else { Ok(()) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn syncs_lie(&self) -> bool {
        self.syncs_lie.load(Ordering::Relaxed)
    }
}

fn broken() -> io::Error {
    // EIO on every system this runs on.
    io::Error::from_raw_os_error(5)
}

/// Obeys standard input until it ends, and ends the process with it.
pub(crate) fn listen(faults: Arc<Faults>) {
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if !faults.set(&line) {
                eprintln!("not known: {line}");
            }
        }
        // As a power cut would: nothing is flushed.
        std::process::exit(1);
    });
}
