//! The bytes of each format, kept as they were first written.

mod common;

use std::fmt::Write as _;

use common::{open_with, tiny};
use tholos_wal::{Disk, Lsn, MemDisk, Options, SnapshotName, SnapshotReader, SnapshotWriter, Tail};

const LOG_1: &str = include_str!("golden/log-v1.hex");
const LOG_2: &str = include_str!("golden/log-v2.hex");
const SNAPSHOT: &str = include_str!("golden/snapshot-v1.hex");

fn options() -> Options {
    Options { salt: 0x0123_4567_89ab_cdef, ..tiny() }
}

/// Rows of 16 bytes with their offset; rows of zeros are left out.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0))
    {
        write!(text, "{:06x}:", row * 16).expect("a string takes all");
        chunk.iter().for_each(|byte| write!(text, " {byte:02x}").expect("a string takes all"));
        text.push('\n');
    }
    text
}

fn unhex(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for line in text.lines() {
        let (offset, row) = line.split_once(": ").expect("a row");
        let offset = usize::from_str_radix(offset, 16).expect("an offset");
        for (at, byte) in (offset..).zip(row.split(' ')) {
            bytes[at] = u8::from_str_radix(byte, 16).expect("a byte");
        }
    }
    bytes
}

/// Compares, or writes anew when asked to.
fn check(file: &str, golden: &str, bytes: &[u8]) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, hex(bytes)).expect("write the golden file");
        return;
    }
    assert_eq!(hex(bytes), golden, "the format has drifted; data on disks would not be read");
}

#[test]
fn the_log_is_written_as_ever() {
    let disk = MemDisk::new();
    let (mut log, ..) = open_with(&disk, options()).expect("open");
    log.append(&[(1, &b"one"[..]), (0xffff_fffe, b""), (3, b"three")]).expect("append");
    log.sync().expect("sync");
    log.release(Lsn(512));
    log.sync().expect("sync");
    log.append(&[(7, b"seven")]).expect("append");
    log.seal().expect("seal");
    assert_eq!(disk.list().expect("list"), ["0000000000000001.wal"]);
    check("log-v2.hex", LOG_2, &disk.contents("0000000000000001.wal").expect("there"));
}

#[test]
fn logs_of_all_formats_are_read() {
    for golden in [LOG_1, LOG_2] {
        let disk = MemDisk::new();
        disk.create("0000000000000001.wal").expect("create");
        disk.tamper("0000000000000001.wal", |bytes| *bytes = unhex(golden, 8192));
        // The salt is in the file.
        let (_, recovery, seen) = open_with(&disk, Options { salt: 0, ..tiny() }).expect("open");
        assert_eq!(seen, [(7, 1024, b"seven".to_vec())]);
        assert_eq!((recovery.released_to, recovery.synced_to), (Lsn(512), Lsn(1024)));
        assert_eq!((recovery.recovered_lsn, recovery.tail), (Lsn(1536), Tail::Clean));
        assert_eq!((recovery.damage, recovery.worn), (vec![], vec![]));
    }
}

#[test]
fn the_snapshot_is_written_and_read_as_ever() {
    let disk = MemDisk::new();
    let name = SnapshotName { shard: 12, index: 1041 };
    let mut writer = SnapshotWriter::create(disk.clone(), name).expect("create");
    writer.write_chunk(b"first chunk").expect("write");
    writer.write_chunk(b"second").expect("write");
    writer.finish().expect("finish");
    let bytes = disk.contents(&name.file_name()).expect("there");
    check("snapshot-v1.hex", SNAPSHOT, &bytes);
    disk.tamper(&name.file_name(), |bytes| *bytes = unhex(SNAPSHOT, bytes.len()));
    SnapshotReader::open(disk, name).expect("open").verify().expect("whole");
}
