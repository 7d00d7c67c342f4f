//! What must hold for any bytes given to `tholos-engine`: a keyspace's snapshot, and lines of commands.

use bytes::Bytes;
use tholos_engine::wide::{Filter, Wide};
use tholos_engine::{Command, Context, Keyspace, Loader, SnapshotError, introspect};

/// A snapshot: what is read does not depend on how the stream is cut, and is written so that it reads alike.
pub fn keyspace_snapshot(bytes: &[u8]) {
    let whole = load(bytes, bytes.len().max(1));
    let cut = load(bytes, 7);
    match (whole, cut) {
        (Ok(mut whole), Ok(cut)) => {
            assert_eq!(whole.digest(), cut.digest());
            let again = load(&save(&mut whole), 100).expect("our own snapshot");
            assert_eq!(again.digest(), whole.digest());
        }
        (Err(whole), Err(cut)) => assert_eq!(whole, cut),
        (whole, cut) => panic!("whole: {}, cut: {}", whole.is_ok(), cut.is_ok()),
    }
}

/// Command lines, one a line: nothing panics, and the state is the one that a second replica has, that SCAN shows,
/// and that a snapshot keeps.
pub fn keyspace_commands(bytes: &[u8]) {
    let (mut first, mut second) = (Keyspace::new(0..16384, 7), Keyspace::new(0..16384, 7));
    let mut time_ms = 1_000;
    for (index, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let args: Vec<Bytes> = line.split(|byte| *byte == b' ').map(Bytes::copy_from_slice).collect();
        let _ = introspect::command(&args);
        let _ = Wide::parse(&args);
        let Ok(command) = Command::queue(&args) else { continue };
        time_ms += line.len() as u64;
        let context = Context { time_ms, seed: index, index, position: 0 };
        assert_eq!(first.apply(&context, &command), second.apply(&context, &command));
        first.evict_due(time_ms, 1);
        second.evict_due(time_ms, 1);
    }
    assert_eq!(first.digest(), second.digest());
    assert_eq!(scan(&first, time_ms), first.len(time_ms));
    let loaded = load(&save(&mut first), 64).expect("our own snapshot");
    assert_eq!(loaded.digest(), first.digest());
}

fn load(bytes: &[u8], cut: usize) -> Result<Keyspace, SnapshotError> {
    let mut loader = Loader::new();
    for chunk in bytes.chunks(cut) {
        loader.push(chunk)?;
    }
    loader.finish()
}

fn save(keyspace: &mut Keyspace) -> Vec<u8> {
    keyspace.begin_snapshot(50);
    std::iter::from_fn(|| keyspace.next_snapshot_chunk(7)).flatten().collect()
}

fn scan(keyspace: &Keyspace, time_ms: u64) -> usize {
    let (mut cursor, mut found) = (0, 0);
    loop {
        let (next, keys) = keyspace.scan(cursor, &Filter::default(), 2, time_ms);
        found += keys.len();
        if next == 0 {
            return found;
        }
        cursor = next;
    }
}
