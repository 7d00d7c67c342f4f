//! Snapshot files: what is finished survives, what is damaged is refused.

use tholos_wal::{
    Crash, Disk, MemDisk, SNAPSHOT_CHUNK_BYTES_MAX, SnapshotError, SnapshotName, SnapshotReader,
    SnapshotWriter, list_snapshots, remove_snapshots_below, remove_unfinished_snapshots,
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
