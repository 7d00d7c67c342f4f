//! Snapshot files: what is finished survives, what is damaged is refused.

use tholos_wal::{
    Crash, Disk, MemDisk, SNAPSHOT_CHUNK_BYTES_MAX, SnapshotError, SnapshotName, SnapshotReader,
    SnapshotSource, SnapshotWriter, list_snapshots, remove_snapshots_below, remove_unfinished_snapshots,
};

const NAME: SnapshotName = SnapshotName { shard: 12, index: 1041 };

fn chunks() -> Vec<Vec<u8>> {
    vec![vec![1; 700], vec![2; 1], vec![3; 513]]
}

fn write(disk: &MemDisk, name: SnapshotName) -> Result<SnapshotName, SnapshotError> {
    let mut writer = SnapshotWriter::create(disk.clone(), name)?;
    for chunk in chunks() {
        writer.write_chunk(&chunk)?;
    }
    writer.finish()
}

fn read(disk: &MemDisk, name: SnapshotName) -> Result<Vec<Vec<u8>>, SnapshotError> {
    let mut reader = SnapshotReader::open(disk.clone(), name)?;
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        chunks.push(chunk);
    }
    assert!(reader.next_chunk()?.is_none());
    Ok(chunks)
}

#[test]
fn what_is_written_is_read() {
    let disk = MemDisk::new();
    assert_eq!(write(&disk, NAME).expect("write"), NAME);
    assert_eq!(read(&disk, NAME).expect("read"), chunks());
    SnapshotReader::open(disk, NAME).expect("open").verify().expect("whole");
    let empty = MemDisk::new();
    SnapshotWriter::create(empty.clone(), NAME).expect("create").finish().expect("finish");
    assert_eq!(read(&empty, NAME).expect("read"), [] as [Vec<u8>; 0]);
}

/// R22: a finished snapshot survives any crash, an unfinished one is never taken for one.
#[test]
fn a_crash_at_every_change_leaves_all_or_nothing() {
    let whole = MemDisk::new();
    write(&whole, NAME).expect("write");
    for change in 1..=whole.changes() {
        for seed in 0..30 {
            let disk = MemDisk::new();
            disk.die_after(Some(change));
            assert!(write(&disk, NAME).is_err());
            disk.crash(Crash::Power(seed));
            for name in list_snapshots(&disk).expect("list") {
                assert_eq!(read(&disk, name).expect("whole"), chunks(), "change {change} seed {seed}");
            }
            remove_unfinished_snapshots(&disk).expect("remove");
            assert!(disk.list().expect("list").iter().all(|name| name.ends_with(".snap")));
        }
    }
    for seed in 0..30 {
        let disk = whole.fork();
        disk.crash(Crash::Power(seed));
        assert_eq!(read(&disk, NAME).expect("durable"), chunks(), "seed {seed}");
    }
}

#[test]
fn every_damaged_byte_and_every_cut_is_refused() {
    let disk = MemDisk::new();
    write(&disk, NAME).expect("write");
    let bytes = disk.contents(&NAME.file_name()).expect("there");
    let refused = |context: String, change: &dyn Fn(&mut Vec<u8>)| {
        let disk = disk.fork();
        disk.tamper(&NAME.file_name(), |bytes| change(bytes));
        let error = read(&disk, NAME).expect_err(&context);
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{context}: {error}");
        assert!(error.to_string().contains("s12-1041.snap"), "{error}");
    };
    for at in 0..bytes.len() {
        refused(format!("byte {at}"), &|bytes| bytes[at] ^= 1 << (at % 8));
        refused(format!("cut to {at}"), &|bytes| bytes.truncate(at));
    }
    refused("longer".to_owned(), &|bytes| bytes.push(0));
}

#[test]
fn another_snapshots_file_is_refused() {
    let disk = MemDisk::new();
    write(&disk, NAME).expect("write");
    let other = SnapshotName { shard: 12, index: 1042 };
    disk.rename(&NAME.file_name(), &other.file_name()).expect("rename");
    assert!(matches!(read(&disk, other), Err(SnapshotError::Damaged { .. })));
}

#[test]
fn a_newer_snapshot_format_is_refused_by_name() {
    let disk = MemDisk::new();
    write(&disk, NAME).expect("write");
    disk.tamper(&NAME.file_name(), |bytes| {
        bytes[8] = 9;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..32]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    let error = read(&disk, NAME).expect_err("newer");
    assert!(matches!(error, SnapshotError::NewerFormat { found: 9, supported: 1, .. }), "{error}");
}

#[test]
fn old_snapshots_of_one_shard_are_removed() {
    let disk = MemDisk::new();
    let name = |shard, index| SnapshotName { shard, index };
    for (shard, index) in [(1, 5), (1, 70), (1, 600), (2, 5)] {
        write(&disk, name(shard, index)).expect("write");
    }
    assert_eq!(remove_snapshots_below(&disk, 1, 600).expect("remove"), 2);
    assert_eq!(list_snapshots(&disk).expect("list"), [name(1, 600), name(2, 5)]);
}

#[test]
fn names_are_read_one_way_only() {
    assert_eq!(NAME.file_name(), "s12-1041.snap");
    assert_eq!(SnapshotName::parse("s12-1041.snap"), Some(NAME));
    for name in
        ["s12-1041.snap.tmp", "s+12-1041.snap", "s012-1041.snap", "12-1041.snap", "s12.snap", "s1-2-3.snap"]
    {
        assert_eq!(SnapshotName::parse(name), None, "{name}");
    }
}

#[test]
fn chunks_have_bounds_and_failures_say_where() {
    let disk = MemDisk::new();
    let mut writer = SnapshotWriter::create(disk.clone(), NAME).expect("create");
    assert!(matches!(writer.write_chunk(&[]), Err(SnapshotError::ChunkSize { .. })));
    let large = vec![0; SNAPSHOT_CHUNK_BYTES_MAX + 1];
    assert!(matches!(writer.write_chunk(&large), Err(SnapshotError::ChunkSize { .. })));
    disk.fail_syncs(true);
    let error = writer.finish().expect_err("the sync fails");
    assert!(error.to_string().contains("cannot sync mem/s12-1041.snap.tmp"), "{error}");
    assert_eq!(list_snapshots(&disk).expect("list"), []);
}

#[test]
fn a_snapshot_given_up_leaves_no_file() {
    let disk = MemDisk::new();
    let mut writer = SnapshotWriter::create(disk.clone(), NAME).expect("create");
    writer.write_chunk(b"x").expect("write");
    writer.abandon().expect("remove");
    assert_eq!(disk.list().expect("list"), [""; 0]);
}

/// A file sent chunk by chunk, also while it is being written, becomes the same file elsewhere; what is not the next
/// chunk, or not as it was, is refused.
#[test]
fn a_received_snapshot_is_the_sent_one() {
    let chunks: Vec<Vec<u8>> = (1..30_usize).map(|number| vec![number as u8; number * 100]).collect();
    let (from, to) = (MemDisk::new(), MemDisk::new());
    let mut writer = SnapshotWriter::create(from.clone(), NAME).expect("create");
    let mut receiver = SnapshotWriter::receive(to.clone(), NAME).expect("create");
    for (number, bytes) in (0..10).zip(&chunks) {
        assert_eq!(writer.read_chunk(number).expect("not there"), None);
        writer.write_chunk(bytes).expect("write");
        let chunk = writer.read_chunk(number).expect("read").expect("it was written");
        assert_eq!(&chunk.bytes, bytes);
        receiver.write_received(&chunk.bytes, chunk.checksum).expect("it follows");
    }
    chunks[10..].iter().for_each(|bytes| writer.write_chunk(bytes).expect("write"));
    writer.finish().expect("finish");
    let mut source = SnapshotSource::open(from.clone(), NAME).expect("open");
    assert_eq!(source.chunks(), 29);
    // In any order.
    for number in [28, 3, 15, 0, 29, u32::MAX] {
        let chunk = source.read_chunk(number).expect("read");
        assert_eq!(chunk.map(|chunk| chunk.bytes).as_ref(), chunks.get(number as usize), "{number}");
    }
    for number in 10..29 {
        let chunk = source.read_chunk(number).expect("read").expect("it is there");
        receiver.write_received(&chunk.bytes, chunk.checksum).expect("it follows");
    }
    assert_eq!(to.list().expect("list"), ["s12-1041.snap.part"]);
    receiver.finish().expect("finish");
    assert_eq!(to.contents(&NAME.file_name()), from.contents(&NAME.file_name()));
    for (number, change) in [(0, 0), (2, 0), (1, 1)] {
        let mut receiver = SnapshotWriter::receive(to.clone(), NAME).expect("create");
        let first = source.read_chunk(0).expect("read").expect("it is there");
        receiver.write_received(&first.bytes, first.checksum).expect("the first");
        let mut next = source.read_chunk(number).expect("read").expect("it is there");
        next.bytes[0] ^= change;
        let error =
            receiver.write_received(&next.bytes, next.checksum).expect_err("not the next, or not as it was");
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    }
    assert_eq!(remove_unfinished_snapshots(&to).expect("remove"), 1);
}

/// Every byte that was changed is noticed before a chunk of it is sent on, but for the counts, which nothing rests on.
#[test]
fn a_source_reads_no_damaged_chunk() {
    let disk = MemDisk::new();
    let mut writer = SnapshotWriter::create(disk.clone(), NAME).expect("create");
    let chunks = [b"a".repeat(9), b"b".repeat(30), b"c".repeat(20)];
    chunks.iter().for_each(|chunk| writer.write_chunk(chunk).expect("write"));
    writer.finish().expect("finish");
    let whole = disk.contents(&NAME.file_name()).expect("it is there");
    for at in 0..whole.len() - 24 {
        disk.tamper(&NAME.file_name(), |bytes| {
            *bytes = whole.clone();
            bytes[at] ^= 1;
        });
        let read = || {
            let mut source = SnapshotSource::open(disk.clone(), NAME)?;
            (0..3).map(|number| source.read_chunk(number)).collect::<Result<Vec<_>, _>>()
        };
        assert!(read().is_err(), "byte {at}");
    }
    for length in 0..whole.len() {
        disk.tamper(&NAME.file_name(), |bytes| *bytes = whole[..length].to_vec());
        let read = || {
            let mut source = SnapshotSource::open(disk.clone(), NAME)?;
            (0..3).map(|number| source.read_chunk(number)).collect::<Result<Vec<_>, _>>()
        };
        let all = |read: Vec<Option<_>>| read.iter().all(Option::is_some);
        assert!(!read().is_ok_and(all), "cut to {length}");
    }
}
