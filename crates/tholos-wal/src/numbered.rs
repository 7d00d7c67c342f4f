//! A log by the numbers of its owner's appends: where they ended, for releases, and what the owner is to be told of the log's room.
//!
//! Nothing here waits or sleeps: whoever drives a log, thread or simulator, decides nothing about it.

use std::collections::VecDeque;

use crate::Lsn;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::Log;
use crate::options::Room;

/// Neighbours that end within one in so many parts of a segment are released together.
const STEP_PARTS: u64 = 16;

/// A log, and what its owner has in it.
pub struct NumberedLog<D: Disk> {
    /// For all but appends and releases.
    pub log: Log<D>,
    /// The last append of a run of neighbours, and where it ended.
    ends: VecDeque<(u64, Lsn)>,
    step_bytes: u64,
    /// What was to be appended last had no room.
    waits: bool,
    /// What the owner was told last.
    told: Room,
}

impl<D: Disk> NumberedLog<D> {
    /// A log that was just opened. Its owner takes its room for ample until it is told otherwise, and what is in
    /// the log already for appends below its first.
    #[must_use]
    pub fn new(log: Log<D>) -> Self {
        Self {
            ends: VecDeque::from([(0, log.durable_lsn())]),
            step_bytes: log.segment_bytes() / STEP_PARTS,
            log,
            waits: false,
            told: Room::Ample,
        }
    }

    /// [`Log::append`] of everything up to the append of this number: numbers rise.
    ///
    /// # Errors
    /// As there. After [`LogError::Full`] the owner releases what it can, and tries the same again; what it has appended before is to
    /// be synced and told meanwhile, for the release may wait for that.
    pub fn append<B: AsRef<[u8]>>(&mut self, last: u64, records: &[(u32, B)]) -> Result<Lsn, LogError> {
        let appended = self.log.append(records);
        self.waits = matches!(appended, Err(LogError::Full { .. }));
        let lsn = appended?;
        let before = self.ends.len().checked_sub(2).map(|at| self.ends[at].1);
        match (before, self.ends.back_mut()) {
            (Some(before), Some(end)) if lsn.0 - before.0 < self.step_bytes => *end = (last, lsn),
            _ => self.ends.push_back((last, lsn)),
        }
        Ok(lsn)
    }

    /// The owner needs no append below this number: [`Log::release`], rounded down to where a run of neighbours ended.
    pub fn release(&mut self, below: u64) {
        let mut before = None;
        while let Some((_, lsn)) = self.ends.pop_front_if(|(last, _)| *last < below) {
            before = Some(lsn);
        }
        if let Some(before) = before {
            self.log.release(before);
        }
    }

    /// How much room there is, if the owner was told otherwise last. To be asked after every sync, whenever the log was idle, and
    /// as long as something waits for room.
    pub fn room_changed(&mut self) -> Option<Room> {
        // More would only wait behind what waits.
        let room = if self.waits { Room::Spent } else { self.log.room() };
        let changed = std::mem::replace(&mut self.told, room) != room;
        changed.then_some(room)
    }

    /// How much room there is, as the owner was told last.
    #[must_use]
    pub fn told(&self) -> Room {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemDisk, Options};

    fn open(disk: &MemDisk) -> NumberedLog<MemDisk> {
        let options = Options { writer_reserve_bytes: 1, ..Options::small() };
        let (log, _) = Log::open(disk.clone(), options, |_, _, _| {}).expect("the log opens");
        NumberedLog::new(log)
    }

    #[test]
    fn neighbours_share_a_row_and_releases_are_rounded_down() {
        let mut log = open(&MemDisk::new());
        let lsns: Vec<Lsn> =
            (1..=100).map(|seq| log.append(seq, &[(1, [0; 100])]).expect("there is room")).collect();
        assert!(log.ends.len() as u64 <= lsns[99].0 / log.step_bytes * 2 + 3, "{}", log.ends.len());
        assert_eq!(log.ends.back(), Some(&(100, lsns[99])));
        for (seq, lsn) in log.ends.iter().skip(1) {
            assert_eq!(*lsn, lsns[*seq as usize - 1], "a row says where exactly its append ended");
        }
        log.release(50);
        let live = log.log.live_bytes();
        assert!(live >= lsns[99].0 - lsns[48].0, "what is needed is kept");
        assert!(live <= lsns[99].0 - lsns[48].0 + 2 * log.step_bytes, "and little more");
    }

    #[test]
    fn what_is_in_the_log_already_goes_with_the_first_release() {
        let disk = MemDisk::new();
        let mut log = open(&disk);
        log.append(1, &[(1, [0; 100])]).and_then(|_| log.log.sync()).expect("there is room");
        drop(log);
        let mut log = open(&disk);
        assert!(log.log.live_bytes() > 0);
        log.release(1);
        assert_eq!(log.log.live_bytes(), 0);
    }

    #[test]
    fn writers_are_not_welcome_while_something_waits_for_room() {
        let disk = MemDisk::new();
        let mut log = open(&disk);
        assert_eq!(log.room_changed(), None);
        disk.set_capacity_bytes(Some(disk.used_bytes()));
        let large = [(1, vec![0; 20_000])];
        log.append(1, &large).expect_err("it needs a segment of its own");
        // The rest of the segment would do for many small writes.
        assert_eq!(log.room_changed(), Some(Room::Spent));
        assert_eq!((log.room_changed(), log.told()), (None, Room::Spent));
        disk.set_capacity_bytes(None);
        log.append(1, &large).expect("there is room");
        assert_eq!(log.room_changed(), Some(Room::Ample));
    }
}
