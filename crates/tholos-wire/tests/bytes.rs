//! What the bytes are, and what is refused.

use bytes::Bytes;
use tholos_cluster::{Epoch, NodeId, NodeSaid, ShardSaid};
use tholos_node::{
    Ask, Counted, DigestNote, DigestSaid, Forward, Heartbeat, MoveOrder, MoveReport, NodeLoad, Outcome,
    PeerMessage, QueueReport, RescueReport, RescueSaid, SnapshotChunk, Wait,
};
use tholos_paxos::{
    Ballot, Checkpoint, Config, Entry, Index, Message, Millis, MoveId, Payload, Record, ReplicaId, Serial,
};
use tholos_resp::Value;
use tholos_ring::ShardId;
use tholos_wire::{
    FrameBuilder, VALUE_DEPTH_MAX, WireError, decode_peer, decode_record, encode_peer, encode_record, frames,
};

fn ballot(round: u64, replica: u32) -> Ballot {
    Ballot { round, replica: ReplicaId(replica) }
}

fn batch(index: u64, bytes: &'static [u8]) -> Entry {
    Entry {
        index: Index(index),
        origin: ballot(3, 2),
        time: Millis(1_700_000_000_000 + index),
        seed: 0x0102_0304_0506_0708,
        payload: Payload::Batch(Bytes::from_static(bytes)),
    }
}

fn noop(index: u64, origin: Ballot) -> Entry {
    Entry { index: Index(index), origin, time: Millis(1_700_000_000_000), seed: 0, payload: Payload::Noop }
}

fn bytes_of(message: &PeerMessage) -> Vec<u8> {
    let mut out = Vec::new();
    encode_peer(message, &mut out);
    out
}

fn paxos(message: Message) -> PeerMessage {
    PeerMessage::Paxos { shard: ShardId(12), from: Serial(0), to: Serial(0), message }
}

fn answer(outcome: Outcome) -> PeerMessage {
    PeerMessage::Answer { request: 1041, boot: 0x1122_3344_5566_7788, outcome }
}

/// One of each kind of message, named as in the fixtures.
fn sample_messages() -> Vec<(&'static str, PeerMessage)> {
    let (ballot, older) = (ballot(3, 2), ballot(2, 1));
    let entries = vec![batch(1041, b"SET k v"), batch(1042, b"")];
    let config = Config { number: 4, ..Config::founding(vec![ReplicaId(1), ReplicaId(2), ReplicaId(5)]) };
    let mixed = vec![
        noop(91, older),
        Entry { payload: Payload::Config(Box::new(config)), ..noop(92, older) },
        Entry { payload: Payload::Tick, time: Millis(1_700_000_000_250), ..noop(93, ballot) },
    ];
    let all_values = Value::Array(vec![
        Value::Simple(Bytes::from_static(b"OK")),
        Value::Error(Bytes::from_static(b"ERR no")),
        Value::Integer(-1),
        Value::Bulk(Bytes::from_static(b"b")),
        Value::Null,
        Value::NullArray,
        Value::Map(vec![(Value::Integer(1), Value::Boolean(true))]),
        Value::Set(vec![Value::Boolean(false)]),
        Value::Double(0.5),
        Value::Verbatim { format: *b"txt", text: Bytes::from_static(b"t") },
        Value::BigNumber(Bytes::from_static(b"12")),
        Value::Push(vec![]),
    ]);
    let write = Ask::Write {
        session: 0xaabb_ccdd_eeff_0011,
        sequence: 7,
        acknowledged: 6,
        expires_at: Millis(1_700_000_030_000),
        operation: Bytes::from_static(b"op"),
    };
    let forward = |ask| {
        PeerMessage::Forward(Forward { request: 9, boot: 0x1122_3344_5566_7788, shard: ShardId(12), ask })
    };
    vec![
        ("canvass", paxos(Message::Canvass { ballot, decided: Index(1040) })),
        ("endorse", paxos(Message::Endorse { ballot })),
        ("prepare", paxos(Message::Prepare { ballot, decided: Index(1040), released: None })),
        (
            "promise",
            paxos(Message::Promise { ballot, accepted: older, length: Index(1041), decided: Index(1040) }),
        ),
        ("reject", paxos(Message::Reject { promised: ballot })),
        ("fetch", paxos(Message::Fetch { ballot, from: Index(1041) })),
        ("fetched", paxos(Message::Fetched { ballot, entries: mixed.clone(), whole_to: Index(93) })),
        ("sync", paxos(Message::Sync { ballot, from: Index(91), entries: mixed, whole_to: Index(93) })),
        ("accept", paxos(Message::Accept { ballot, entries, decided: Index(1040) })),
        ("accepted", paxos(Message::Accepted { ballot, index: Index(1042) })),
        (
            "behind",
            paxos(Message::Behind { ballot, accepted: older, length: Index(1041), decided: Index(1040) }),
        ),
        ("decide", paxos(Message::Decide { ballot, decided: Index(1042), length: Index(1042) })),
        ("confirm", paxos(Message::Confirm { ballot, round: 77 })),
        ("confirmed", paxos(Message::Confirmed { ballot, round: 77 })),
        ("released", paxos(Message::Released { ballot })),
        (
            "heartbeat",
            PeerMessage::Heartbeat(Heartbeat {
                boot: 0x1122_3344_5566_7788,
                heard: vec![NodeId(1), NodeId(2), NodeId(300)],
                wall: Millis(1_700_000_000_000),
                disk_stall_ms: 15,
                memory_full: true,
                disk_full: false,
                epoch: Epoch(1),
                load: NodeLoad::default(),
            }),
        ),
        ("forward-write", forward(write)),
        ("forward-read", forward(Ask::Read { operation: Bytes::from_static(b"op") })),
        ("answer-done", answer(Outcome::Done(all_values))),
        ("answer-not-leader", answer(Outcome::NotLeader { leader: None })),
        ("answer-not-leader-but", answer(Outcome::NotLeader { leader: Some((NodeId(2), ballot)) })),
        ("answer-gap", answer(Outcome::Gap { expected: 5 })),
        ("answer-refused", answer(Outcome::Refused(Value::error("BUSY later")))),
        ("answer-unknown", answer(Outcome::Unknown)),
        ("answer-expired", answer(Outcome::Expired)),
        (
            "snapshot-chunk",
            PeerMessage::SnapshotChunk(SnapshotChunk {
                shard: ShardId(12),
                ballot,
                index: Index(1000),
                file: 0,
                chunk: 1,
                chunks: 3,
                checksum: 0,
                bytes: Bytes::from_static(b"snap"),
            }),
        ),
        (
            "snapshot-wanted",
            PeerMessage::SnapshotWanted { shard: ShardId(12), ballot, index: Index(1000), file: 0, chunk: 2 },
        ),
    ]
}

/// One of each kind of record, named as in the fixtures.
fn sample_records() -> Vec<(&'static str, Record)> {
    let ballot = ballot(3, 2);
    let config = Config { number: 4, ..Config::founding(vec![ReplicaId(1), ReplicaId(2), ReplicaId(5)]) };
    let entries = vec![batch(1041, b"SET k v"), batch(1042, b"")];
    let checkpoint = Checkpoint {
        promised: Ballot { round: 4, replica: ReplicaId(1) },
        accepted: ballot,
        knows_above: true,
        snapshot: Index(1040),
        snapshot_time: Millis(1_700_000_001_040),
        snapshot_origin: ballot,
        config,
        joined: ReplicaId::default(),
        decided: Index(1041),
        entries: entries.clone(),
    };
    vec![
        ("promised", Record::Promised { ballot }),
        ("accepted", Record::Accepted { ballot, decided: Index(0), entries }),
        ("replaced", Record::Replaced { ballot, from: Index(91), entries: vec![noop(91, ballot)] }),
        ("replaced-by-nothing", Record::Replaced { ballot, from: Index(91), entries: vec![] }),
        ("checkpoint", Record::Checkpoint(Box::new(checkpoint))),
    ]
}

/// What only version 2 can say, named as in its fixtures: replicas that joined later, and learners.
fn digest(said: DigestSaid) -> PeerMessage {
    PeerMessage::Digest(DigestNote { shard: ShardId(12), index: Index(1041), said })
}

fn sample_messages_2() -> Vec<(&'static str, PeerMessage)> {
    let ballot = Ballot { round: 3, replica: ReplicaId::new(2, Serial(1)) };
    let later = |message| PeerMessage::Paxos { shard: ShardId(12), from: Serial(1), to: Serial(0), message };
    let entries = vec![Entry { payload: Payload::Config(Box::new(config_2())), ..noop(92, ballot) }];
    vec![
        ("accept-config", paxos(Message::Accept { ballot, entries: entries.clone(), decided: Index(91) })),
        ("sync-config", later(Message::Sync { ballot, from: Index(92), entries, whole_to: Index(92) })),
        ("accepted-of-a-later-replica", later(Message::Accepted { ballot, index: Index(1042) })),
        (
            "endorse-to-a-later-replica",
            PeerMessage::Paxos {
                shard: ShardId(12),
                from: Serial(0),
                to: Serial(2),
                message: Message::Endorse { ballot },
            },
        ),
        (
            "counted",
            PeerMessage::Counted(Counted {
                boot: 0x1122_3344_5566_7788,
                recovered: 4096,
                durable: 9728,
                owned_up: 0,
                of_boot: 5,
                of_before: 512,
            }),
        ),
        (
            "heartbeat-of-a-later-map",
            PeerMessage::Heartbeat(Heartbeat {
                boot: 0x1122_3344_5566_7788,
                heard: vec![NodeId(1)],
                wall: Millis(1_700_000_000_000),
                disk_stall_ms: 0,
                memory_full: false,
                disk_full: true,
                epoch: Epoch(300),
                load: NodeLoad::default(),
            }),
        ),
        (
            "heartbeat-of-a-slow-leader",
            PeerMessage::Heartbeat(Heartbeat {
                boot: 0x1122_3344_5566_7788,
                heard: vec![NodeId(1)],
                wall: Millis(1_700_000_000_000),
                disk_stall_ms: 0,
                memory_full: false,
                disk_full: false,
                epoch: Epoch(1),
                load: NodeLoad {
                    capacity: 50,
                    leads: 21,
                    rate: 40_000,
                    stretch: 210,
                    sync_us: 812,
                    busy: 33,
                    queue: QueueReport { waiting: 300, service_ns: 4_500 },
                },
            }),
        ),
        ("queue", PeerMessage::Queue(QueueReport { waiting: 300, service_ns: 4_500 })),
        (
            "forward-replica-read",
            PeerMessage::Forward(Forward {
                request: 41,
                boot: 0x1122_3344_5566_7788,
                shard: ShardId(12),
                ask: Ask::ReplicaRead { operation: Bytes::from_static(b"get") },
            }),
        ),
        (
            "relay",
            PeerMessage::Relay(Forward {
                request: 41,
                boot: 0x1122_3344_5566_7788,
                shard: ShardId(12),
                ask: Ask::Read { operation: Bytes::from_static(b"get") },
            }),
        ),
        (
            "relayed",
            PeerMessage::Relayed {
                gateway: NodeId(300),
                forward: Forward {
                    request: 41,
                    boot: 0x1122_3344_5566_7788,
                    shard: ShardId(12),
                    ask: Ask::Read { operation: Bytes::from_static(b"get") },
                },
            },
        ),
        (
            "relayed-answer",
            PeerMessage::RelayedAnswer {
                gateway: NodeId(300),
                request: 41,
                boot: 0x1122_3344_5566_7788,
                outcome: Outcome::Gap { expected: 7 },
            },
        ),
        ("map-wanted", PeerMessage::MapWanted { have: Epoch(300) }),
        ("map", PeerMessage::Map(Bytes::from_static(b"map"))),
        (
            "move-order",
            PeerMessage::MoveOrder(MoveOrder {
                shard: ShardId(12),
                move_id: MoveId(0x1_0000_0002),
                number: 4,
                from: Some(NodeId(3)),
                to: None,
                back: true,
                share: 12_500_000,
            }),
        ),
        (
            "move-report",
            PeerMessage::MoveReport(MoveReport {
                shard: ShardId(12),
                config: None,
                behind: Some(1041),
                number: 3,
                sent: 70_000,
                total: 1_000_000,
                wait: Wait::Sending,
            }),
        ),
        (
            "move-report-made",
            PeerMessage::MoveReport(MoveReport {
                shard: ShardId(12),
                config: Some(config_2()),
                behind: None,
                number: 4,
                sent: 0,
                total: 0,
                wait: Wait::Told,
            }),
        ),
        ("facts-wanted", PeerMessage::FactsWanted),
        (
            "facts",
            PeerMessage::Facts(NodeSaid {
                disk_free: Some(1 << 40),
                memory_free: None,
                shards: vec![
                    ShardSaid {
                        shard: ShardId(12),
                        leads: Some(3),
                        decided: 1041,
                        bytes: 70_000,
                        data_bytes: 60_000,
                        config: 4,
                        voters: vec![NodeId(1), NodeId(2), NodeId(300)],
                        mute: false,
                    },
                    ShardSaid {
                        shard: ShardId(13),
                        leads: None,
                        decided: 0,
                        bytes: 0,
                        data_bytes: 0,
                        config: 0,
                        voters: Vec::new(),
                        mute: true,
                    },
                ],
            }),
        ),
        ("restart", PeerMessage::Restart { boot: 0x1122_3344_5566_7788 }),
        ("rescue", PeerMessage::Rescue(Bytes::from_static(b"ask"))),
        ("rescue-waits", rescued(RescueSaid::Waits("why".into()))),
        ("rescue-done", rescued(RescueSaid::Done(config_2()))),
        ("rescue-refused", rescued(RescueSaid::Refused("why".into()))),
        ("digest-asked", digest(DigestSaid::Asked)),
        ("digest-is", digest(DigestSaid::Is(0x0102_0304_0506_0708))),
        ("digest-wrong", digest(DigestSaid::Wrong)),
        (
            "prepare-released",
            paxos(Message::Prepare {
                ballot,
                decided: Index(1040),
                released: Some(Ballot { round: 3, ..ballot }),
            }),
        ),
        ("lease", paxos(Message::Lease { ballot, asked: Millis(123_456) })),
        ("granted", paxos(Message::Granted { ballot, asked: Millis(123_456) })),
        ("repair", paxos(Message::Repair { nonce: 9 })),
        ("renewed", paxos(Message::Renewed { nonce: 9, replica: ReplicaId::new(2, Serial(5)) })),
        ("bound", paxos(Message::Bound { nonce: 9, promised: ballot, config: 4 })),
        (
            "snapshot-chunk",
            PeerMessage::SnapshotChunk(SnapshotChunk {
                shard: ShardId(12),
                ballot,
                index: Index(1000),
                file: 0x1122_3344_5566_7788,
                chunk: 1,
                chunks: 0,
                checksum: 0xaabb_ccdd,
                bytes: Bytes::from_static(b"snap"),
            }),
        ),
        (
            "snapshot-wanted",
            PeerMessage::SnapshotWanted {
                shard: ShardId(12),
                ballot,
                index: Index(1000),
                file: 0x1122_3344_5566_7788,
                chunk: u32::MAX,
            },
        ),
    ]
}

fn config_2() -> Config {
    Config {
        number: 4,
        move_id: MoveId(1041),
        voters: vec![ReplicaId(1), ReplicaId(2), ReplicaId::new(2, Serial(3))],
        learners: vec![ReplicaId::new(4, Serial(4))],
        last_replica: ReplicaId::new(5, Serial(4)),
    }
}

fn rescued(said: RescueSaid) -> PeerMessage {
    PeerMessage::RescueReport(RescueReport { plan: 0x0102_0304_0506_0708, group: ShardId(12), said })
}

fn sample_records_2() -> Vec<(&'static str, Record)> {
    let ballot = ballot(3, 2);
    let joined = ReplicaId::new(4, Serial(4));
    let entries = vec![Entry { payload: Payload::Config(Box::new(config_2())), ..noop(92, ballot) }];
    let checkpoint =
        Checkpoint { promised: ballot, accepted: ballot, config: config_2(), ..Checkpoint::default() };
    let in_log =
        Checkpoint { promised: Ballot { round: 4, ..ballot }, accepted: ballot, ..Checkpoint::default() };
    vec![
        ("joined", Record::Joined { replica: joined }),
        ("accepted-config", Record::Accepted { ballot, decided: Index(91), entries: entries.clone() }),
        ("replaced-config", Record::Replaced { ballot, from: Index(92), entries: entries.clone() }),
        ("checkpoint-config", Record::Checkpoint(Box::new(checkpoint.clone()))),
        ("checkpoint-joined", Record::Checkpoint(Box::new(Checkpoint { joined, ..checkpoint }))),
        (
            "checkpoint-joined-only",
            Record::Checkpoint(Box::new(Checkpoint { joined, ..Checkpoint::default() })),
        ),
        ("checkpoint-in-log", Record::Checkpoint(Box::new(in_log))),
        ("muted", Record::Muted { until: None }),
        ("muted-until", Record::Muted { until: Some(ballot) }),
        ("rescued", Record::Rescued { ballot, from: Index(92), entries }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Bytes {
    assert!(digits.len().is_multiple_of(2), "an odd count of hex digits: {digits}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits"))
        .collect()
}

/// Writes and reads one of each; none of their bytes may ever change: a cluster holds them on disk, and speaks them
/// during an upgrade.
fn check_frozen(version: u8, messages: &[(&str, PeerMessage)], records: &[(&str, Record)]) {
    let path = format!("fixtures/v0.1/wire{}.txt", if version == 1 { "" } else { "-2" });
    let mut text = format!("# Bytes of wire version {version}, written by release 0.1: name, then hex.\n");
    for (name, message) in messages {
        text += &format!("peer {name} {}\n", hex(&bytes_of(message)));
    }
    for (name, record) in records {
        let mut bytes = Vec::new();
        encode_record(record, &mut bytes);
        text += &format!("record {name} {}\n", hex(&bytes));
    }
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &text).expect("fixtures can be written");
    }
    let fixtures = std::fs::read_to_string(&path).expect("fixtures can be read");
    assert_eq!(fixtures, text, "the bytes of version {version} changed");

    let mut decoded = 0;
    for line in fixtures.lines().filter(|line| !line.starts_with('#')) {
        let [kind, name, digits] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let bytes = from_hex(digits);
        assert_eq!(bytes[0], version, "W4: the lowest version that can say it: {name}");
        if kind == "peer" {
            let (_, expected) = messages.iter().find(|(known, _)| *known == name).expect(name);
            assert_eq!(decode_peer(bytes).as_ref(), Ok(expected), "{name}");
        } else {
            let (_, expected) = records.iter().find(|(known, _)| *known == name).expect(name);
            assert_eq!(decode_record(bytes).as_ref(), Ok(expected), "{name}");
        }
        decoded += 1;
    }
    assert_eq!(decoded, messages.len() + records.len());
}

#[test]
fn bytes_of_version_1_are_frozen() {
    check_frozen(1, &sample_messages(), &sample_records());
}

#[test]
fn a_checkpoint_that_says_what_goes_without_saying_is_refused() {
    let checkpoint = Checkpoint { promised: ballot(3, 2), ..Checkpoint::default() };
    let mut bytes = Vec::new();
    encode_record(&Record::Checkpoint(Box::new(checkpoint)), &mut bytes);
    assert_eq!(bytes[..4], [2, 9, 3, 2]);
    (bytes[2], bytes[3]) = (0, 0);
    let refused = Err(WireError::Kind { what: "record", byte: 9 });
    assert_eq!(decode_record(bytes.into()), refused);
}

#[test]
fn bytes_of_version_2_are_frozen() {
    check_frozen(2, &sample_messages_2(), &sample_records_2());
}

/// W3: version 2 is not another way to say what version 1 says, nor the other way round.
#[test]
fn a_version_is_written_only_if_it_is_needed() {
    let unneeded = Err(WireError::Kind { what: "need of the version", byte: 2 });
    assert_eq!(decode_record(Bytes::from_static(&[2, 1, 3, 2])), unneeded);
    // An endorsement between founders.
    let unneeded = Err(WireError::Kind { what: "need of the version", byte: 2 });
    assert_eq!(decode_peer(Bytes::from_static(&[2, 17, 12, 0, 0, 3, 2])), unneeded);
    let joined = Err(WireError::Kind { what: "record", byte: 5 });
    assert_eq!(decode_record(Bytes::from_static(&[1, 5, 9])), joined);
}

#[test]
fn hot_messages_are_small() {
    let sizes: Vec<(&str, usize)> =
        sample_messages().iter().map(|(name, message)| (*name, bytes_of(message).len())).collect();
    let size = |wanted: &str| sizes.iter().find(|(name, _)| *name == wanted).expect(wanted).1;
    assert_eq!(size("accepted"), 7);
    assert_eq!(size("decide"), 9);
    assert_eq!(size("confirm"), 6);
    // Two entries, of them 7 bytes of payload and 16 of seeds.
    assert_eq!(size("accept"), 44);
}

#[test]
fn a_batch_is_a_slice_of_its_message() {
    let whole = Bytes::from(bytes_of(&paxos(Message::Accept {
        ballot: ballot(3, 2),
        entries: vec![batch(1041, b"a payload that is not copied")],
        decided: Index(1040),
    })));
    let Ok(PeerMessage::Paxos { message: Message::Accept { entries, .. }, .. }) = decode_peer(whole.clone())
    else {
        panic!("an Accept")
    };
    let Payload::Batch(payload) = &entries[0].payload else { panic!("a batch") };
    assert!(whole.as_ptr_range().contains(&payload.as_ptr()), "W2: the payload was copied");
}

#[test]
fn a_newer_version_is_named() {
    assert_eq!(decode_record(Bytes::from_static(&[3, 1, 3, 2])), Err(WireError::Version(3)));
    assert_eq!(decode_peer(Bytes::from_static(&[0])), Err(WireError::Version(0)));
    assert_eq!(decode_peer(Bytes::new()), Err(WireError::Truncated));
}

/// W1: no node can do more than all.
#[test]
fn a_capacity_above_the_whole_is_refused() {
    let heartbeat = &[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 101, 0, 0, 0];
    let refused = WireError::Kind { what: "percentage", byte: 101 };
    assert_eq!(decode_peer(Bytes::from_static(heartbeat)), Err(refused));
}

#[test]
fn claims_are_not_believed() {
    // An Accept that claims 2^63 entries, a snapshot chunk of 2^63 bytes, a heartbeat that hears 2^63 nodes.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    for start in [&[1, 24, 12, 3, 2, 0][..], &[1, 5, 12, 3, 2, 0, 0, 1], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
        let bytes = Bytes::from([start, &huge].concat());
        assert_eq!(decode_peer(bytes), Err(WireError::Truncated), "{start:?}");
    }
}

/// W1 for claims within claims: each of 64 maps in maps claims as many pairs as can be there.
#[test]
fn claims_within_claims_take_no_memory() {
    let mut bytes = bytes_of(&answer(Outcome::Done(Value::Null)));
    bytes.pop();
    for _ in 0..VALUE_DEPTH_MAX {
        bytes.extend([7, 0x80, 0x80, 2]);
    }
    bytes.resize(bytes.len() + (1 << 16) + 64, 5);
    let length = bytes.len() as u64;
    let used = allocation_counter::measure(|| {
        assert_eq!(decode_peer(Bytes::from(bytes)), Err(WireError::Truncated));
    });
    assert!(used.bytes_max < 100 * length, "{} bytes of memory for {length}", used.bytes_max);
}

#[test]
fn a_number_has_one_way_to_be_written() {
    for round in [&[0x83, 0x00][..], &[0x80; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
    {
        let bytes = Bytes::from([&[1, 1][..], round, &[2]].concat());
        assert_eq!(decode_record(bytes), Err(WireError::Number), "{round:?}");
    }
    // A replica id beyond 32 bits.
    let bytes = Bytes::from_static(&[1, 1, 3, 0x80, 0x80, 0x80, 0x80, 0x10]);
    assert_eq!(decode_record(bytes), Err(WireError::Number));
}

#[test]
fn lists_in_lists_have_a_limit() {
    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    let decode = |depth| decode_peer(Bytes::from(bytes_of(&answer(Outcome::Done(nested(depth))))));
    assert_eq!(decode(VALUE_DEPTH_MAX), Ok(answer(Outcome::Done(nested(VALUE_DEPTH_MAX)))));
    assert_eq!(decode(VALUE_DEPTH_MAX + 1), Err(WireError::TooDeep));
}

#[test]
fn not_a_number_keeps_its_bits() {
    let bits = 0x7ff8_0000_dead_beef;
    let message = answer(Outcome::Done(Value::Double(f64::from_bits(bits))));
    let Ok(PeerMessage::Answer { outcome: Outcome::Done(Value::Double(number)), .. }) =
        decode_peer(Bytes::from(bytes_of(&message)))
    else {
        panic!("a double")
    };
    assert_eq!(number.to_bits(), bits);
}

#[test]
fn an_unknown_message_does_not_take_the_others_with_it() {
    let (first, last) = (paxos(Message::Endorse { ballot: ballot(3, 2) }), answer(Outcome::Unknown));
    let mut builder = FrameBuilder::new();
    builder.push(&first);
    let mut bytes = builder.take().into_bytes().to_vec();
    bytes.extend([3, 0, 0, 0, 1, 99, 0]);
    builder.push(&last);
    bytes.extend_from_slice(&builder.take().into_bytes());
    bytes.extend([9, 0, 0, 0, 1]);
    let decoded: Vec<_> = frames(Bytes::from(bytes)).collect();
    let unknown = Err(WireError::Kind { what: "message", byte: 99 });
    assert_eq!(decoded, [Ok(first), unknown, Ok(last), Err(WireError::Truncated)]);
}

/// A leader that copied a value of 64 MiB for each follower did nothing else meanwhile, and its heartbeats were missed.
#[test]
fn large_values_are_not_copied() {
    let value = Bytes::from(vec![b'x'; 100_000]);
    let entry = |index: u64, payload| Entry {
        index: Index(index),
        origin: ballot(3, 2),
        time: Millis(7),
        seed: 0,
        payload,
    };
    let entries = vec![
        entry(5, Payload::Noop),
        entry(6, Payload::Batch(value.clone())),
        entry(7, Payload::Batch(Bytes::from_static(b"small"))),
        entry(8, Payload::Batch(value.clone())),
    ];
    let messages = [
        paxos(Message::Accept { ballot: ballot(3, 2), entries, decided: Index(4) }),
        answer(Outcome::Done(Value::Bulk(value.clone()))),
        answer(Outcome::Unknown),
    ];
    let mut builder = FrameBuilder::new();
    let mut copied = Vec::new();
    for message in &messages {
        builder.push(message);
        copied.extend((bytes_of(message).len() as u32).to_le_bytes());
        copied.extend(bytes_of(message));
    }
    assert_eq!(builder.len(), copied.len());
    let payload = builder.take();
    assert!(builder.is_empty());
    let shared = payload.rest.iter().filter(|part| part.as_ptr() == value.as_ptr()).count();
    assert_eq!((shared, payload.rest.len()), (3, 6), "and what is between and after them");
    let bytes = payload.into_bytes();
    assert_eq!(bytes, copied);
    assert_eq!(frames(bytes).collect::<Result<Vec<_>, _>>().unwrap(), messages);
    builder.push(&messages[2]);
    assert!(builder.take().rest.is_empty(), "nothing of it stays");
}

#[test]
fn payloads_of_any_size_go_out_whole_and_leave_nothing_behind() {
    let mut builder = FrameBuilder::new();
    for count in [1, 9000, 1, 200_000, 3] {
        let message = answer(Outcome::Done(Value::bulk(vec![b'x'; count])));
        builder.push(&message);
        assert_eq!(builder.len(), 4 + bytes_of(&message).len());
        let payload = builder.take().into_bytes();
        assert!(builder.is_empty());
        assert_eq!(frames(payload).collect::<Vec<_>>(), [Ok(message)], "{count} bytes");
    }
}
