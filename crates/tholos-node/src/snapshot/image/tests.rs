use alloc::vec;

use tholos_engine::{Command, Context};
use tholos_paxos::{Group, Options, Planted};
use tholos_ring::ShardId;

use super::*;
use crate::operation::WriteHeader;

const LIMITS: SliceLimits = SliceLimits { chunk_bytes: 4096, entries_max: 50 };

fn shard() -> Shard {
    let config = Config::founding(vec![ReplicaId(1)]);
    let group = Group::new(ReplicaId(1), config, Options::default());
    let keyspace = Keyspace::new(tholos_ring::slots_of(ShardId(0), 1), 7);
    Shard::new(ShardId(0), group, keyspace, Planted::Nothing)
}

fn write(shard: &mut Shard, number: u64, round: u64) {
    let header = WriteHeader {
        session: number,
        sequence: round,
        acknowledged: round - 1,
        expires_at: Millis(number % 7 + round),
    };
    shard.sessions.record(&header, &Value::bulk(vec![b'x'; 100 * (number as usize % 5)]));
    let value = alloc::format!("{round}");
    let args = ["SET".into(), alloc::format!("k{number}"), value].map(Bytes::from);
    let context = Context { time_ms: 1, seed: 1, index: round, position: number as u32 };
    shard.keyspace.apply(&context, &Command::parse(&args).unwrap());
}

fn load(chunks: impl Iterator<Item = Bytes>) -> Result<LoadedSnapshot, String> {
    let mut loader = SnapshotLoader::new();
    for chunk in chunks {
        loader.push(&chunk)?;
    }
    loader.finish()
}

/// Keys and sessions are those of the start, whatever is written between the slices, and however the bytes are cut.
#[test]
fn an_image_is_the_state_of_its_start() {
    let mut shard = shard();
    for number in 0..500 {
        write(&mut shard, number, 1);
    }
    let own = |(id, session): (u64, &Session)| (id, session.clone());
    let sessions: Vec<_> = shard.sessions.export().into_iter().map(own).collect();
    let digest = shard.keyspace.digest();
    let mut image = Image::begin(&mut shard, LIMITS);
    let mut chunks = Vec::new();
    let mut number = 250;
    while let Some(chunk) = image.next_chunk(&mut shard) {
        assert!(chunk.len() <= LIMITS.chunk_bytes);
        chunks.push(chunk);
        for _ in 0..20 {
            number += 1;
            write(&mut shard, number, if number < 500 { 2 } else { 1 });
        }
        shard.sessions.expire(Millis(4));
    }
    assert!(number > 600, "what was written meanwhile is old and new");
    let loaded = load(chunks.clone().into_iter()).unwrap();
    assert_eq!(loaded.sessions.export().into_iter().map(own).collect::<Vec<_>>(), sessions);
    assert_eq!(loaded.keyspace.digest(), digest);
    let whole = Bytes::from(chunks.concat());
    assert_eq!(load(whole.chunks(999).map(Bytes::copy_from_slice)).unwrap().keyspace.digest(), digest);
    for length in [0, 4, 100, 5000, whole.len() - 1] {
        assert!(load([whole.slice(..length)].into_iter()).is_err(), "cut to {length}");
    }
}

#[test]
fn an_image_that_is_given_up_leaves_nothing() {
    let mut shard = shard();
    write(&mut shard, 1, 1);
    drop(Image::begin(&mut shard, LIMITS));
    abandon(&mut shard);
    assert!(!shard.keyspace.snapshot_under_way());
    assert!(shard.sessions.next_walked(1).is_none());
}

/// Every release reads these bytes.
#[test]
fn records_are_as_ever() {
    let origin = Ballot { round: 3, replica: ReplicaId(2) };
    let base = Base { index: Index(1041), origin, time: Millis(1_700_000_000_000) };
    let config = Config {
        number: 1,
        learners: vec![ReplicaId(4)],
        last_replica: ReplicaId(5),
        move_id: MoveId(6),
        ..Config::founding(vec![ReplicaId(1), ReplicaId(2)])
    };
    let mut session = Session { last: 9, ends: Millis(77), ..Session::default() };
    session.replies.push_back((8, None));
    session.replies.push_back((9, Some(Value::Integer(5))));
    let mut bytes = BytesMut::new();
    put_record(HEAD, &encode_head(base, &config), &mut bytes);
    put_record(SESSION, &encode_session(7, &session), &mut bytes);
    put_record(SESSIONS_END, &[], &mut bytes);
    let hex: String = bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect();
    let expected = [
        "6100000001031104000000000000030000000000000002000000000000000068e5cf8b010000",
        "01000000000000000200000000000000010000000000000002000000000000000100000000000000040000000000000005000000000000000600000000000000",
        "36000000020700000000000000",
        "09000000000000004d0000000000000002000000080000000000000000090000000000000001040000003a350d0a",
        "0000000003",
    ];
    assert_eq!(hex, expected.concat());
    let mut loader = SnapshotLoader::new();
    loader.push(&bytes).unwrap();
    assert_eq!(loader.head, Some((base, config)));
    assert_eq!(loader.sessions.export(), [(7, &session)]);
}

/// The heads of earlier versions, however they are cut.
#[test]
fn heads_of_versions_1_and_2_are_read() {
    let mut shard = shard();
    write(&mut shard, 4, 1);
    let mut keys = Vec::new();
    shard.keyspace.begin_snapshot(LIMITS.chunk_bytes);
    while let Some(chunk) = shard.keyspace.next_snapshot_chunk(100) {
        keys.extend(chunk);
    }
    for version in [1, 2] {
        let (base, voters, learners) = ([1041, 3, 2, 1_700_000_000_000], [1, 2, 1, 2], [1, 4, 5, 6]);
        // Session 7 with replies 8, not kept, and 9.
        let sessions = [1, 7, 9, 77, 2, 8, 0, 9, 1];
        let later: &[u64] = if version == 1 { &[] } else { &learners };
        let numbers = [&base[..], &voters, later, &sessions].concat();
        let mut head = vec![version];
        head.extend(numbers.iter().flat_map(|number: &u64| number.to_le_bytes()));
        head.extend_from_slice(b"\x04\0\0\0:5\r\n");
        let whole = [&(head.len() as u64).to_le_bytes()[..], &head, &keys].concat();
        for cut in [1, 7, 1000] {
            let loaded = load(whole.chunks(cut).map(Bytes::copy_from_slice)).unwrap();
            assert_eq!((loaded.base.index, loaded.base.time), (Index(1041), Millis(1_700_000_000_000)));
            assert_eq!(loaded.config.voters, [ReplicaId(1), ReplicaId(2)]);
            assert_eq!(loaded.config.learners.len(), usize::from(version) - 1);
            let sessions = loaded.sessions.export();
            assert_eq!((sessions[0].0, sessions[0].1.last, sessions[0].1.replies.len()), (7, 9, 2));
            assert_eq!(loaded.keyspace.digest(), shard.keyspace.digest());
        }
    }
}
