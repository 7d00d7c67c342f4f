//! What must hold of `tholos-wal` for any bytes: as a script of calls, crashes and damage, and as a snapshot file.
//!
//! A script never says what bytes damage writes. They come from a generator or from elsewhere in the log, for a fuzzer
//! sees what a checksum is compared with and would forge it, and against forgery the log promises nothing.

use std::collections::BTreeSet;

use tholos_wal::{
    Crash, Damage, Disk, HEADER_BYTES, Log, LogError, Lsn, MemDisk, OpenError, Options, Recovery,
    SECTOR_BYTES, SNAPSHOT_CHUNK_BYTES_MAX, SnapshotError, SnapshotName, SnapshotReader, SnapshotWriter,
    Spare, Tail,
};

/// Calls of one script, at most, so that an input stays quick.
const CALLS_MAX: usize = 48;
/// Edits of one script, at most.
const EDITS_MAX: usize = 12;
/// Bytes of a snapshot's header.
const SNAPSHOT_HEADER_BYTES: usize = 32;

/// (group, lsn, payload)
type Seen = (u32, u64, Vec<u8>);

/// A log is written, crashes now and then, is damaged and opened. Nothing panics; a crash alone loses nothing that was
/// acknowledged; nothing is handed out that was not appended; what is lost below `synced_to` is reported as rot (R20);
/// and what was recovered is durable, so that a second opening agrees (R5).
pub fn wal_recover(bytes: &[u8]) {
    let mut script = Script { bytes };
    let (disk, mut model) = (MemDisk::new(), Model::default());
    model.write(&mut script, &disk);
    let (whole, last) = (model.openings(&disk), segments(&disk).pop_last());
    let edited = damage(&mut script, &disk);
    let blind = whole.iter().any(|(name, bytes)| !is_known(&disk, name, bytes));
    // Without its last file a log gives that file's use number again, and a misplaced sector of it can fit the new use.
    let is_number_free = last.is_some_and(|name| disk.contents(&name).is_none());
    let stated = stated_by_untouched(&disk, &edited);

    let found = segments(&disk);
    let (mut log, recovery, seen) = open(&disk).unwrap_or_else(|error| panic!("{error}"));
    if recovery.unreadable {
        assert!(found.is_subset(&edited), "a header that nobody touched can be read");
        assert!(seen.is_empty() && recovery.lost_records_of(9, None), "{recovery:?}");
        return;
    }
    if edited.is_empty() {
        model.check_crash(&recovery, &seen);
    }
    model.check_damage(&recovery, &seen, blind);
    assert!(recovery.synced_to.0 >= stated, "{stated} was stated where nothing was touched: {recovery:?}");

    // What was recovered is durable, and stays when the log goes on.
    while !is_number_free && log.prepare_spare().expect("the disk has room") == Spare::Working {}
    drop(log);
    disk.crash(Crash::Power(script.byte().into()));
    let (mut log, second, mut expected) = open(&disk).expect("it was opened before");
    assert_eq!(expected, seen, "the second opening sees something else");
    check_agreement(&recovery, &second);
    let lsn = log.append(&[(9, b"goes on")]).expect("the disk has room");
    assert_eq!(log.sync().expect("the disk is well"), lsn);
    drop(log);
    disk.crash(Crash::Power(script.byte().into()));
    let (_, third, seen) = open(&disk).expect("it was opened before");
    expected.push((9, lsn.0, b"goes on".to_vec()));
    assert_eq!(seen, expected, "the third opening sees something else");
    assert_eq!((third.recovered_lsn, third.tail), (lsn, Tail::Clean));
    assert_eq!(third.damage, recovery.damage, "rot is reported until it is released");
}

fn check_agreement(first: &Recovery, second: &Recovery) {
    assert_eq!(second.damage, first.damage, "rot is reported until it is released");
    assert_eq!((second.recovered_lsn, second.tail), (first.recovered_lsn, Tail::Clean));
    assert_eq!((second.synced_to, second.released_to), (first.recovered_lsn, first.released_to));
}

/// Takes from the input what it decides.
struct Script<'a> {
    bytes: &'a [u8],
}

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(*first)
    }

    /// The next byte, or zero at the end.
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// A number below `bound`, or zero if there is none.
    fn below(&mut self, bound: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])).checked_rem(bound).unwrap_or_default()
    }
}

/// What the log was told and what it answered.
#[derive(Default)]
struct Model {
    /// What belongs to the log, in order.
    records: Vec<Seen>,
    /// What was appended, never acknowledged, and dropped after a crash.
    dropped: Vec<Seen>,
    durable: u64,
    released: u64,
    serial: u8,
    /// The segments that openings began.
    begun: Vec<String>,
}

impl Model {
    /// The first part of the script: calls of the log, and crashes, each followed by an opening.
    fn write(&mut self, script: &mut Script<'_>, disk: &MemDisk) {
        let mut log = self.recover(disk);
        for _ in 0..CALLS_MAX {
            let call = script.next().unwrap_or(u8::MAX) % 16;
            let done = match call {
                0..=4 => self.append(&mut log, script),
                5 | 6 => log.sync().map(drop),
                7 => log.seal().map(drop),
                8 => {
                    let lsn = self.durable.saturating_sub(u64::from(script.byte()) * 128);
                    log.release(Lsn(lsn));
                    self.released = self.released.max(lsn);
                    Ok(())
                }
                9 | 10 => log.prepare_spare().map(drop),
                11 => {
                    // The process dies at one of the next changes, and the power with it.
                    disk.die_after(Some(1 + u64::from(script.byte()) % 16));
                    Ok(())
                }
                12 => {
                    // The page cache shows from here on what no disk holds (R5).
                    disk.fail_syncs(true);
                    log.sync().map(drop)
                }
                13 => {
                    drop(log);
                    disk.crash(Crash::Process);
                    log = self.recover(disk);
                    Ok(())
                }
                14 => {
                    drop(log);
                    self.crash_while_opening(script, disk);
                    log = self.recover(disk);
                    Ok(())
                }
                _ => break,
            };
            self.durable = log.durable_lsn().0;
            if done.is_err() {
                drop(log);
                let power = script.byte();
                disk.crash(if power == 0 { Crash::Process } else { Crash::Power(power.into()) });
                log = self.recover(disk);
            }
        }
        drop(log);
        // Damage is to what is at rest: no page cache knows better than the disk.
        disk.crash(Crash::Power(script.byte().into()));
    }

    fn append(&mut self, log: &mut Log<MemDisk>, script: &mut Script<'_>) -> Result<(), LogError> {
        let mut records = Vec::new();
        for _ in 0..=script.byte() % 4 {
            let size = match script.byte() {
                255 => 9000,
                size => usize::from(size) * 6,
            };
            self.serial = self.serial.wrapping_add(1);
            records.push((u32::from(self.serial % 5), vec![self.serial; size]));
        }
        let payload_bytes: usize = records.iter().map(|(_, payload)| payload.len()).sum();
        let batch_bytes = (56 + records.len() * 12 + payload_bytes).next_multiple_of(SECTOR_BYTES);
        let end = log.written_lsn().0 + batch_bytes as u64;
        // A failed append may have reached the disk whole.
        self.records.extend(records.iter().map(|(group, payload)| (*group, end, payload.clone())));
        log.append(&records).map(|lsn| assert_eq!(lsn.0, end, "where a batch ends"))
    }

    /// Loses power, or only the process, in the midst of an opening.
    fn crash_while_opening(&self, script: &mut Script<'_>, disk: &MemDisk) {
        disk.crash(Crash::Power(script.byte().into()));
        disk.die_after(Some(1 + u64::from(script.byte()) % 8));
        drop(open(disk));
        disk.crash(Crash::Power(script.byte().into()));
    }

    /// Opens a log that nobody has damaged.
    fn recover(&mut self, disk: &MemDisk) -> Log<MemDisk> {
        let (log, recovery, seen) = open(disk).expect("a crash leaves a log that opens");
        self.check_crash(&recovery, &seen);
        let end = recovery.recovered_lsn.0;
        self.dropped.extend(self.records.extract_if(.., |(_, lsn, _)| *lsn > end));
        self.durable = end;
        self.begun.extend(segments(disk).pop_last());
        log
    }

    /// The segments that openings began and that are still there, and what is in them.
    fn openings(&self, disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
        self.begun.iter().filter_map(|name| Some((name.clone(), disk.contents(name)?))).collect()
    }

    /// What must hold after any crash: what was acknowledged is there, nothing is there that was not appended, all of
    /// it is in order, and nothing is called rot.
    fn check_crash(&self, recovery: &Recovery, seen: &[Seen]) {
        let (from, end) = (recovery.released_to.0, recovery.recovered_lsn.0);
        assert!(end >= self.durable, "{} was durable: {recovery:?}", self.durable);
        assert!(from <= self.released, "{} was released: {recovery:?}", self.released);
        assert_eq!((&recovery.damage[..], &recovery.worn[..]), (&[][..], &[][..]), "a crash is no rot");
        let expected = self.records.iter().filter(|(_, lsn, _)| from < *lsn && *lsn <= end);
        assert!(seen.iter().eq(expected), "{seen:?} of {:?}", self.records);
    }

    /// What must hold after any damage, too.
    ///
    /// `blind`: a segment that an opening began is lost as a whole, and with it what it said: that what it rewrote or
    /// dropped is void (docs/protocol/wal.md, "What this cannot see").
    fn check_damage(&self, recovery: &Recovery, seen: &[Seen], blind: bool) {
        let (from, synced_to, end) = (recovery.released_to.0, recovery.synced_to.0, recovery.recovered_lsn.0);
        assert!(
            from <= self.released && synced_to <= self.durable.max(from) && synced_to <= end,
            "{recovery:?}"
        );
        assert!(seen.is_sorted_by_key(|(_, lsn, _)| *lsn), "out of order");
        assert!(seen.iter().all(|(_, lsn, _)| from < *lsn && *lsn <= end), "out of range");
        assert_eq!(recovery.records, seen.len() as u64);
        // A release may end within a batch, which is then needed as a whole.
        let mut cursor = 0;
        for rot in &recovery.damage {
            assert!(cursor <= rot.from.0 && rot.from < rot.to && rot.to.0 <= synced_to, "{recovery:?}");
            cursor = rot.to.0;
            let groups = rot.groups.as_deref().unwrap_or_default();
            let lost = |group: &u32| {
                let mut appended = self.records.iter().chain(&self.dropped);
                appended.any(|record| record.0 == *group && is_within(record, rot) && !seen.contains(record))
            };
            assert!(groups.is_sorted() && groups.iter().all(lost), "a group that lost nothing: {rot:?}");
        }
        let mut strangers = seen.iter().filter(|record| !self.records.contains(record)).peekable();
        assert!(
            strangers.peek().is_none() || !recovery.damage.is_empty() || blind,
            "dropped long ago: {recovery:?}"
        );
        assert!(strangers.all(|record| self.dropped.contains(record)), "never appended");
        let mut missing = self.records.iter().filter(|record| record.1 > from && !seen.contains(record));
        let owned_up = |lost: &Seen| {
            let rot = recovery.damage.iter().any(|rot| is_within(lost, rot) && names(rot, lost.0));
            rot || lost.1 > synced_to && lost.1 > end
        };
        assert!(blind || missing.all(owned_up), "lost without a word: {recovery:?}");
    }
}

fn is_within(record: &Seen, rot: &Damage) -> bool {
    rot.from.0 < record.1 && record.1 <= rot.to.0
}

fn names(rot: &Damage, group: u32) -> bool {
    rot.groups.as_ref().is_none_or(|groups| groups.contains(&group))
}

/// The second part of the script: edits of segment files. The names of those that were changed.
fn damage(script: &mut Script<'_>, disk: &MemDisk) -> BTreeSet<String> {
    let mut edited = BTreeSet::new();
    for _ in 0..EDITS_MAX {
        let Some(edit) = script.next() else { break };
        let names = Vec::from_iter(segments(disk));
        let Some(name) = names.get(usize::from(script.byte()).checked_rem(names.len()).unwrap_or_default())
        else {
            break;
        };
        let bytes = disk.contents(name).expect("it is listed");
        let sector =
            |script: &mut Script<'_>, length: usize| script.below(length / SECTOR_BYTES) * SECTOR_BYTES;
        let mut changed = bytes.clone();
        match edit % 8 {
            // A bit flips.
            0 => {
                let at = script.below(bytes.len());
                let mask = 1 << (script.byte() % 8);
                changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask);
            }
            // Sectors are overwritten.
            1 => {
                let mut noise = Noise(script.byte().into());
                let (at, count) = (sector(script, bytes.len()), 1 + usize::from(script.byte()));
                changed.iter_mut().skip(at).take(count * 64).for_each(|byte| *byte = noise.byte());
            }
            // Sectors are as if never written.
            2 => {
                let (at, count) = (sector(script, bytes.len()), 1 + usize::from(script.byte() % 16));
                changed.iter_mut().skip(at).take(count * SECTOR_BYTES).for_each(|byte| *byte = 0);
            }
            // The file ends early.
            3 => changed.truncate(script.below(bytes.len())),
            // A sector is where another belongs, of this file or of the next, or the two are swapped.
            4 | 5 => {
                let from = names.get(script.below(names.len())).expect("below their number");
                let source = disk.contents(from).expect("it is listed");
                let (at, source_at) = (sector(script, bytes.len()), sector(script, source.len()));
                overwrite(&mut changed, at, &source[source_at.min(source.len())..]);
                if edit % 8 == 5 && from != name {
                    disk.tamper(from, |source| overwrite(source, source_at, &bytes[at.min(bytes.len())..]));
                    edited.insert(from.clone());
                }
            }
            // A sector cannot be read.
            6 => disk.break_sector(name, sector(script, bytes.len())),
            // The file is gone.
            _ => disk.remove(name).expect("it is there"),
        }
        edited.insert(name.clone());
        disk.tamper(name, |bytes| *bytes = changed);
    }
    edited
}

/// Whether enough of a segment is left to say where it began: a copy of its header, or the head of a batch.
fn is_known(disk: &MemDisk, name: &str, whole: &[u8]) -> bool {
    let Ok(file) = disk.open(name) else { return false };
    let length = disk.contents(name).map_or(0, |bytes| bytes.len());
    let is_left = |at: usize| {
        let mut sector = [0; SECTOR_BYTES];
        let read = disk.read_at(&file, at as u64, &mut sector);
        read.is_ok_and(|count| count == SECTOR_BYTES) && whole[at..].starts_with(&sector)
    };
    let is_batch = |at: &usize| {
        let bytes = whole[at + 40..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
        whole[*at..].starts_with(b"TBAT") && at + bytes <= length
    };
    let mut batches = (HEADER_BYTES..whole.len()).step_by(SECTOR_BYTES).filter(is_batch);
    is_left(0) || is_left(HEADER_BYTES / 2) || batches.any(is_left)
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).take(SECTOR_BYTES).for_each(|(byte, new)| *byte = *new);
}

/// The highest `synced_to` that a file states which was not edited, as each says when it is all that there is.
fn stated_by_untouched(disk: &MemDisk, edited: &BTreeSet<String>) -> u64 {
    if edited.is_empty() {
        return 0;
    }
    let alone = |name: &String| {
        let bytes = disk.contents(name).expect("it is listed");
        let disk = MemDisk::new();
        disk.create(name).expect("memory");
        disk.tamper(name, |file| *file = bytes);
        open(&disk).map_or(0, |(_, recovery, _)| recovery.synced_to.0)
    };
    segments(disk).difference(edited).map(alone).max().unwrap_or(0)
}

fn segments(disk: &MemDisk) -> BTreeSet<String> {
    disk.list().expect("memory").into_iter().filter(|name| name.ends_with(".wal")).collect()
}

fn open(disk: &MemDisk) -> Result<(Log<MemDisk>, Recovery, Vec<Seen>), OpenError> {
    let options = Options { segment_bytes: 8 << 10, spare_step_bytes: 4 << 10, ..Options::small() };
    let mut seen = Vec::new();
    let visit = |group, lsn: Lsn, payload: &[u8]| seen.push((group, lsn.0, payload.to_vec()));
    let (log, recovery) = Log::open(disk.clone(), options, visit)?;
    Ok((log, recovery, seen))
}

/// SplitMix64.
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as u8
    }
}

/// A snapshot file, and the same bytes behind a valid header: what is read to its end is written as the same bytes.
pub fn wal_snapshot(bytes: &[u8]) {
    check_snapshot(bytes);
    let header = &written_snapshot(&[])[..SNAPSHOT_HEADER_BYTES];
    check_snapshot(&[header, bytes].concat());
}

const SNAPSHOT: SnapshotName = SnapshotName { shard: 12, index: 1041 };

fn check_snapshot(bytes: &[u8]) {
    let disk = MemDisk::new();
    disk.create(&SNAPSHOT.file_name()).expect("memory");
    disk.tamper(&SNAPSHOT.file_name(), |file| *file = bytes.to_vec());
    let verified = SnapshotReader::open(disk.clone(), SNAPSHOT).and_then(SnapshotReader::verify);
    match read_snapshot(disk) {
        Ok(chunks) => {
            assert!(verified.is_ok());
            assert_eq!(written_snapshot(&chunks), bytes);
        }
        Err(error) => assert_eq!(verified.expect_err("it cannot be read").to_string(), error.to_string()),
    }
}

fn read_snapshot(disk: MemDisk) -> Result<Vec<Vec<u8>>, SnapshotError> {
    let mut reader = SnapshotReader::open(disk, SNAPSHOT)?;
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        assert!((1..=SNAPSHOT_CHUNK_BYTES_MAX).contains(&chunk.len()), "a chunk of {} bytes", chunk.len());
        chunks.push(chunk);
    }
    Ok(chunks)
}

fn written_snapshot(chunks: &[Vec<u8>]) -> Vec<u8> {
    let disk = MemDisk::new();
    let mut writer = SnapshotWriter::create(disk.clone(), SNAPSHOT).expect("memory");
    for chunk in chunks {
        writer.write_chunk(chunk).expect("memory");
    }
    writer.finish().expect("memory");
    disk.contents(&SNAPSHOT.file_name()).expect("it was written")
}
