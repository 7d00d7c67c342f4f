//! A model of what a log must remember, and the script that drives both.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use tholos_wal::{LentSpare, Log, LogError, Lsn, MemDisk, OpenError, Options, Recovery};

/// (group, lsn, payload)
pub type Seen = (u32, u64, Vec<u8>);

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Segments so small that every script changes them often.
pub fn tiny() -> Options {
    Options { segment_bytes: 8 << 10, spare_step_bytes: 4 << 10, ..Options::small() }
}

pub fn open_with(disk: &MemDisk, options: Options) -> Result<(Log<MemDisk>, Recovery, Vec<Seen>), OpenError> {
    let mut seen = Vec::new();
    let (log, recovery) = Log::open(disk.clone(), options, |group, lsn, payload: &[u8]| {
        seen.push((group, lsn.0, payload.to_vec()));
    })?;
    Ok((log, recovery, seen))
}

pub fn open(disk: &MemDisk) -> (Log<MemDisk>, Recovery, Vec<Seen>) {
    open_with(disk, tiny()).expect("the log opens")
}

/// What the log was told and what it answered.
#[derive(Debug, Default)]
pub struct Model {
    pub records: Vec<Seen>,
    pub acknowledged: u64,
    pub released: u64,
    serial: u64,
    /// A spare on its way, of the log that is open.
    lent: Option<LentSpare<MemDisk>>,
}

impl Model {
    /// One random call; false when the log has failed.
    pub fn step(&mut self, log: &mut Log<MemDisk>, random: &mut Random) -> bool {
        match random.below(18) {
            0..=6 => self.append(log, random),
            7..=11 => log.sync().map(|lsn| self.acknowledged = lsn.0).is_ok(),
            12 => log.seal().map(|lsn| self.acknowledged = lsn.0).is_ok(),
            13 => {
                let lsn = self.acknowledged.saturating_sub(random.below(6000));
                log.release(Lsn(lsn));
                self.released = self.released.max(lsn);
                true
            }
            14 | 15 => log.prepare_spare().is_ok(),
            _ => self.step_lent(log, random),
        }
    }

    /// What a thread does that writes spares: each turn of it at any moment.
    fn step_lent(&mut self, log: &mut Log<MemDisk>, random: &mut Random) -> bool {
        match self.lent.take() {
            None => match log.lend_spare() {
                Ok(spare) => self.lent = spare,
                Err(_) => return false,
            },
            Some(mut spare) => {
                if random.below(8) > 0 && spare.write() {
                    self.lent = Some(spare);
                } else {
                    // Whole, failed, or given up.
                    return matches!(log.take_spare_back(spare), Ok(()) | Err(LogError::Full { .. }));
                }
            }
        }
        true
    }

    /// The same, for a log of its own.
    pub fn fork(&self) -> Model {
        let Model { acknowledged, released, serial, .. } = *self;
        Model { records: self.records.clone(), acknowledged, released, serial, lent: None }
    }

    pub fn append(&mut self, log: &mut Log<MemDisk>, random: &mut Random) -> bool {
        let count = 1 + random.below(4);
        let mut records = Vec::new();
        for _ in 0..count {
            self.serial += 1;
            let size = match random.below(40) {
                0 => 9000,
                1..=6 => 0,
                _ => random.below(1500),
            };
            let mut payload = self.serial.to_le_bytes().to_vec();
            payload.resize(8 + size as usize, self.serial as u8);
            records.push((random.below(5) as u32, payload));
        }
        let start = log.written_lsn();
        let appended = log.append(&records);
        // A failed append may have reached the disk whole, so the model keeps it as possible.
        let end = appended.as_ref().map_or(u64::MAX, |lsn| lsn.0);
        assert!(end > start.0, "an append moves the end");
        self.records.extend(records.into_iter().map(|(group, payload)| (group, end, payload)));
        appended.is_ok()
    }

    /// What must hold after any crash: what was acknowledged is there, nothing is there that was not appended, and all
    /// of it is in order.
    pub fn check(&mut self, recovery: &Recovery, seen: &[Seen]) {
        self.lent = None;
        assert_eq!(recovery.damage, [], "a crash is no rot");
        assert_eq!(recovery.worn, [] as [String; 0], "a crash wears no header");
        let end = recovery.recovered_lsn.0;
        assert!(end >= self.acknowledged, "acknowledged to {}, recovered to {end}", self.acknowledged);
        assert!(recovery.synced_to.0 <= end);
        assert!(recovery.released_to.0 <= self.released, "released more than was asked");
        // Only the last batch can have an unknown end: it failed, and then the log wrote no more.
        if let Some(found) = seen.iter().map(|(_, lsn, _)| *lsn).max() {
            for record in self.records.iter_mut().filter(|record| record.1 == u64::MAX) {
                let known = seen.iter().any(|(group, _, payload)| *group == record.0 && *payload == record.2);
                if known {
                    record.1 = found;
                }
            }
        }
        let expected: Vec<&Seen> =
            self.records.iter().filter(|(_, lsn, _)| *lsn > recovery.released_to.0 && *lsn <= end).collect();
        assert_eq!(
            seen.iter().collect::<Vec<_>>(),
            expected,
            "released {:?} end {end}",
            recovery.released_to
        );
        self.records.retain(|(_, lsn, _)| *lsn <= end);
        self.acknowledged = end;
    }
}
