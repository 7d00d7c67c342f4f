//! Every value survives its bytes, and no bytes do harm.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
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
use tholos_wire::{FrameBuilder, decode_peer, decode_record, encode_peer, encode_record, frames};

/// Mostly small numbers, as on the wire, and now and then any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..300_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

/// Mostly that of the founding.
fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![1 => Just(Epoch(1)), 1 => number().prop_map(Epoch)]
}

/// Mostly that of a node that leads nothing and has measured nothing.
fn load() -> impl Strategy<Value = NodeLoad> {
    let any = (0..=100_u8, any::<u16>(), any::<u32>(), any::<u32>(), any::<u32>(), 0..=100_u8, queue());
    let any = any.prop_map(|(capacity, leads, rate, stretch, sync_us, busy, queue)| NodeLoad {
        capacity,
        leads,
        rate,
        stretch,
        sync_us,
        busy,
        queue,
    });
    prop_oneof![1 => Just(NodeLoad::default()), 1 => any]
}

fn queue() -> impl Strategy<Value = QueueReport> {
    (any::<u32>(), any::<u32>()).prop_map(|(waiting, service_ns)| QueueReport { waiting, service_ns })
}

fn somebody() -> impl Strategy<Value = Option<NodeId>> {
    option::of((1..=u16::MAX).prop_map(NodeId))
}

fn index() -> impl Strategy<Value = Index> {
    number().prop_map(Index)
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (number(), prop_oneof![0..6_u32, any::<u32>()])
        .prop_map(|(round, replica)| Ballot { round, replica: ReplicaId(replica) })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

/// Of both versions.
fn config() -> impl Strategy<Value = Config> {
    let replicas = || vec(any::<u32>().prop_map(ReplicaId), 0..6);
    let plain =
        || (number(), replicas()).prop_map(|(number, voters)| Config { number, ..Config::founding(voters) });
    let any = (plain(), number(), replicas(), any::<u32>()).prop_map(|(plain, order, learners, last)| {
        Config { move_id: MoveId(order), learners, last_replica: ReplicaId(last), ..plain }
    });
    prop_oneof![plain(), any]
}

/// Mostly a founder's.
fn serial() -> impl Strategy<Value = Serial> {
    prop_oneof![2 => Just(Serial(0)), 1 => any::<u16>().prop_map(Serial)]
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        3 => bytes().prop_map(Payload::Batch),
        1 => config().prop_map(|config| Payload::Config(Box::new(config))),
        1 => Just(Payload::Noop),
        1 => Just(Payload::Tick),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (index(), ballot(), number(), number(), payload()).prop_map(|(index, origin, time, seed, payload)| {
        Entry { index, origin, time: Millis(time), seed, payload }
    })
}

/// Runs as logs hold them, and also anything else that the type can say.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let run = (1..1_000_u64, ballot(), vec((0..50_u64, any::<u64>(), payload()), 0..6)).prop_map(
        |(first, origin, parts)| {
            let mut time = 1_700_000_000_000;
            let mut entries = Vec::new();
            for (at, (later, seed, payload)) in (first..).zip(parts) {
                time += later;
                entries.push(Entry { index: Index(at), origin, time: Millis(time), seed, payload });
            }
            entries
        },
    );
    prop_oneof![run, vec(entry(), 0..4)]
}

fn facts() -> impl Strategy<Value = NodeSaid> {
    let own = (
        any::<u16>().prop_map(ShardId),
        option::of(number()),
        [number(), number(), number(), number()],
        voters(),
        any::<bool>(),
    );
    let own = own.prop_map(|(shard, leads, [decided, bytes, data_bytes, config], voters, mute)| ShardSaid {
        shard,
        leads,
        decided,
        bytes,
        data_bytes,
        config,
        voters,
        mute,
    });
    let all = (option::of(number()), option::of(number()), vec(own, 0..4));
    all.prop_map(|(disk_free, memory_free, shards)| NodeSaid { disk_free, memory_free, shards })
}

fn voters() -> impl Strategy<Value = Vec<NodeId>> {
    vec(any::<u16>().prop_map(NodeId), 0..4)
}

fn message() -> impl Strategy<Value = Message> {
    let marks = || (ballot(), index());
    prop_oneof![
        marks().prop_map(|(ballot, decided)| Message::Canvass { ballot, decided }),
        ballot().prop_map(|ballot| Message::Endorse { ballot }),
        (marks(), proptest::option::of(ballot()))
            .prop_map(|((ballot, decided), released)| Message::Prepare { ballot, decided, released }),
        (ballot(), ballot(), index(), index()).prop_map(|(ballot, accepted, length, decided)| {
            Message::Promise { ballot, accepted, length, decided }
        }),
        ballot().prop_map(|promised| Message::Reject { promised }),
        marks().prop_map(|(ballot, from)| Message::Fetch { ballot, from }),
        (ballot(), entries(), index()).prop_map(|(ballot, entries, whole_to)| Message::Fetched {
            ballot,
            entries,
            whole_to
        }),
        (ballot(), index(), entries(), index()).prop_map(|(ballot, from, entries, whole_to)| {
            Message::Sync { ballot, from, entries, whole_to }
        }),
        (ballot(), entries(), index()).prop_map(|(ballot, entries, decided)| Message::Accept {
            ballot,
            entries,
            decided
        }),
        marks().prop_map(|(ballot, index)| Message::Accepted { ballot, index }),
        (ballot(), ballot(), index(), index()).prop_map(|(ballot, accepted, length, decided)| {
            Message::Behind { ballot, accepted, length, decided }
        }),
        (ballot(), index(), index()).prop_map(|(ballot, decided, length)| Message::Decide {
            ballot,
            decided,
            length
        }),
        (ballot(), number()).prop_map(|(ballot, round)| Message::Confirm { ballot, round }),
        (ballot(), number()).prop_map(|(ballot, round)| Message::Confirmed { ballot, round }),
        (ballot(), number()).prop_map(|(ballot, asked)| Message::Lease { ballot, asked: Millis(asked) }),
        (ballot(), number()).prop_map(|(ballot, asked)| Message::Granted { ballot, asked: Millis(asked) }),
        ballot().prop_map(|ballot| Message::Released { ballot }),
        any::<u64>().prop_map(|nonce| Message::Repair { nonce }),
        (any::<u64>(), any::<u32>())
            .prop_map(|(nonce, replica)| Message::Renewed { nonce, replica: ReplicaId(replica) }),
        (any::<u64>(), ballot(), any::<u64>()).prop_map(|(nonce, promised, config)| Message::Bound {
            nonce,
            promised,
            config
        }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let joined = || prop_oneof![Just(ReplicaId::default()), any::<u32>().prop_map(ReplicaId)];
    let checkpoint = (
        (ballot(), ballot(), any::<bool>()),
        index(),
        number(),
        ballot(),
        config(),
        joined(),
        index(),
        entries(),
    )
        .prop_map(
            |(
                (promised, accepted, above),
                snapshot,
                time,
                snapshot_origin,
                config,
                joined,
                decided,
                entries,
            )| {
                Checkpoint {
                    promised,
                    accepted,
                    // A promise is never below what was accepted.
                    knows_above: above && promised > accepted,
                    snapshot,
                    snapshot_time: Millis(time),
                    snapshot_origin,
                    config,
                    joined,
                    decided,
                    entries,
                }
            },
        );
    prop_oneof![
        ballot().prop_map(|ballot| Record::Promised { ballot }),
        option::of(ballot()).prop_map(|until| Record::Muted { until }),
        (ballot(), index(), entries()).prop_map(|(ballot, decided, entries)| Record::Accepted {
            ballot,
            decided,
            entries
        }),
        (ballot(), index(), entries()).prop_map(|(ballot, from, entries)| Record::Replaced {
            ballot,
            from,
            entries
        }),
        (ballot(), index(), entries()).prop_map(|(ballot, from, entries)| Record::Rescued {
            ballot,
            from,
            entries
        }),
        checkpoint.prop_map(|checkpoint| Record::Checkpoint(Box::new(checkpoint))),
        any::<u32>().prop_map(|replica| Record::Joined { replica: ReplicaId(replica) }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        bytes().prop_map(Value::Simple),
        bytes().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
        Just(Value::NullArray),
        // Not NaN, which equals nothing: see `not_a_number_keeps_its_bits`.
        any::<f64>().prop_filter("equal to itself", |number| !number.is_nan()).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Boolean),
        (any::<[u8; 3]>(), bytes()).prop_map(|(format, text)| Value::Verbatim { format, text }),
        bytes().prop_map(Value::BigNumber),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::Map),
            vec(inner.clone(), 0..6).prop_map(Value::Set),
            vec(inner, 0..6).prop_map(Value::Push),
        ]
    })
}

fn peer() -> impl Strategy<Value = PeerMessage> {
    let shard = || any::<u16>().prop_map(ShardId);
    let node = || any::<u16>().prop_map(NodeId);
    // Zero is what version 1 says by leaving it out.
    let file = || prop_oneof![Just(0), any::<u64>()];
    // What is passed on is for the leader.
    let asked = prop_oneof![
        (any::<u64>(), number(), number(), number(), bytes()).prop_map(
            |(session, sequence, acknowledged, expires_at, operation)| Ask::Write {
                session,
                sequence,
                acknowledged,
                expires_at: Millis(expires_at),
                operation,
            }
        ),
        bytes().prop_map(|operation| Ask::Read { operation }),
    ]
    .boxed();
    let ask =
        prop_oneof![2 => asked.clone(), 1 => bytes().prop_map(|operation| Ask::ReplicaRead { operation })];
    let outcome = prop_oneof![
        3 => value().prop_map(Outcome::Done),
        1 => option::of((node(), ballot())).prop_map(|leader| Outcome::NotLeader { leader }),
        1 => number().prop_map(|expected| Outcome::Gap { expected }),
        1 => value().prop_map(Outcome::Refused),
        1 => Just(Outcome::Unknown),
        1 => Just(Outcome::Expired),
    ]
    .boxed();
    prop_oneof![
        6 => (shard(), serial(), serial(), message())
            .prop_map(|(shard, from, to, message)| PeerMessage::Paxos { shard, from, to, message }),
        1 => (any::<u64>(), vec(node(), 0..9), number(), any::<u32>(), any::<[bool; 2]>(), epoch(), load()).prop_map(
            |(boot, heard, wall, disk_stall_ms, [memory_full, disk_full], epoch, load)| {
                let wall = Millis(wall);
                PeerMessage::Heartbeat(Heartbeat { boot, heard, wall, disk_stall_ms, memory_full, disk_full, epoch, load })
            }
        ),
        1 => epoch().prop_map(|have| PeerMessage::MapWanted { have }),
        1 => bytes().prop_map(PeerMessage::Map),
        1 => (shard(), number(), number(), somebody(), somebody(), any::<bool>(), number()).prop_map(
            |(shard, move_id, number, from, to, back, share)| {
                let move_id = MoveId(move_id);
                PeerMessage::MoveOrder(MoveOrder { shard, move_id, number, from, to, back, share })
            }
        ),
        1 => (shard(), option::of(config()), option::of(number()), number(), number(), 0..Wait::ALL.len()).prop_map(|(shard, config, behind, number, sent, wait)| {
            let (total, wait) = (sent.saturating_add(number), Wait::ALL[wait]);
            PeerMessage::MoveReport(MoveReport { shard, config, behind, number, sent, total, wait })
        }),
        1 => Just(PeerMessage::FactsWanted),
        1 => any::<u64>().prop_map(|boot| PeerMessage::Restart { boot }),
        1 => facts().prop_map(PeerMessage::Facts),
        1 => bytes().prop_map(PeerMessage::Rescue),
        1 => queue().prop_map(PeerMessage::Queue),
        1 => (any::<u64>(), shard(), option::of(config()), any::<bool>(), ".{0,20}").prop_map(
            |(plan, group, config, waits, why)| {
                let said = match (config, waits) {
                    (Some(config), _) => RescueSaid::Done(config),
                    (None, true) => RescueSaid::Waits(why),
                    (None, false) => RescueSaid::Refused(why),
                };
                PeerMessage::RescueReport(RescueReport { plan, group, said })
            }
        ),
        1 => (any::<u64>(), any::<u64>(), number(), number(), number(), number()).prop_map(
            |(boot, of_boot, recovered, durable, owned_up, of_before)| {
                PeerMessage::Counted(Counted { boot, recovered, durable, owned_up, of_boot, of_before })
            }
        ),
        1 => (shard(), index(), option::of(any::<u64>()), any::<bool>()).prop_map(|(shard, index, is, asked)| {
            let said = match (is, asked) {
                (Some(digest), _) => DigestSaid::Is(digest),
                (None, true) => DigestSaid::Asked,
                (None, false) => DigestSaid::Wrong,
            };
            PeerMessage::Digest(DigestNote { shard, index, said })
        }),
        2 => (number(), any::<u64>(), shard(), ask)
            .prop_map(|(request, boot, shard, ask)| PeerMessage::Forward(Forward { request, boot, shard, ask })),
        1 => (number(), any::<u64>(), shard(), asked.clone())
            .prop_map(|(request, boot, shard, ask)| PeerMessage::Relay(Forward { request, boot, shard, ask })),
        1 => (node(), number(), any::<u64>(), shard(), asked).prop_map(|(gateway, request, boot, shard, ask)| {
            PeerMessage::Relayed { gateway, forward: Forward { request, boot, shard, ask } }
        }),
        1 => (node(), number(), any::<u64>(), outcome.clone()).prop_map(|(gateway, request, boot, outcome)| {
            PeerMessage::RelayedAnswer { gateway, request, boot, outcome }
        }),
        2 => (number(), any::<u64>(), outcome)
            .prop_map(|(request, boot, outcome)| PeerMessage::Answer { request, boot, outcome }),
        1 => (shard(), ballot(), index(), file(), any::<[u32; 2]>(), file(), bytes()).prop_map(
            |(shard, ballot, index, file, [chunk, chunks], checksum, bytes)| {
                let checksum = checksum as u32;
                PeerMessage::SnapshotChunk(SnapshotChunk { shard, ballot, index, file, chunk, chunks, checksum, bytes })
            }
        ),
        1 => (shard(), ballot(), index(), file(), any::<u32>()).prop_map(|(shard, ballot, index, file, chunk)| {
            PeerMessage::SnapshotWanted { shard, ballot, index, file, chunk }
        }),
    ]
}

fn bytes_of_peer(message: &PeerMessage) -> Bytes {
    let mut out = Vec::new();
    encode_peer(message, &mut out);
    Bytes::from(out)
}

fn bytes_of_record(record: &Record) -> Bytes {
    let mut out = Vec::new();
    encode_record(record, &mut out);
    Bytes::from(out)
}

/// Whatever decodes is what these very bytes mean, and nothing else means it (W3).
fn check_any_bytes(bytes: Bytes) -> Result<(), TestCaseError> {
    if let Ok(message) = decode_peer(bytes.clone()) {
        prop_assert_eq!(bytes_of_peer(&message), bytes.clone());
    }
    if let Ok(record) = decode_record(bytes.clone()) {
        prop_assert_eq!(bytes_of_record(&record), bytes.clone());
    }
    let count = frames(bytes.clone()).count();
    prop_assert!(count <= bytes.len());
    Ok(())
}

proptest! {
    #[test]
    fn peer_messages_survive(message in peer()) {
        prop_assert_eq!(decode_peer(bytes_of_peer(&message)), Ok(message));
    }

    #[test]
    fn records_survive(record in record()) {
        prop_assert_eq!(decode_record(bytes_of_record(&record)), Ok(record));
    }

    #[test]
    fn a_cut_message_is_an_error(message in peer(), cut in any::<prop::sample::Index>()) {
        let whole = bytes_of_peer(&message);
        prop_assert!(decode_peer(whole.slice(..cut.index(whole.len()))).is_err());
    }

    #[test]
    fn a_cut_record_is_an_error(record in record(), cut in any::<prop::sample::Index>()) {
        let whole = bytes_of_record(&record);
        prop_assert!(decode_record(whole.slice(..cut.index(whole.len()))).is_err());
    }

    #[test]
    fn a_longer_message_is_an_error(message in peer(), more in vec(any::<u8>(), 1..9)) {
        let mut longer = bytes_of_peer(&message).to_vec();
        longer.extend(more);
        prop_assert!(decode_peer(Bytes::from(longer)).is_err());
    }

    #[test]
    fn random_bytes_do_no_harm(
        version in 1..=tholos_wire::VERSION_MAX,
        kind in 0..32_u8,
        rest in vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = vec![version, kind];
        bytes.extend(rest);
        check_any_bytes(Bytes::from(bytes))?;
    }

    #[test]
    fn flipped_bytes_do_no_harm(
        message in peer(),
        record in record(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for bytes in [bytes_of_peer(&message), bytes_of_record(&record)] {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            check_any_bytes(Bytes::from(bytes))?;
        }
    }

    #[test]
    fn a_frame_keeps_its_messages_apart_and_in_order(messages in vec(peer(), 0..8)) {
        let mut builder = FrameBuilder::new();
        for message in &messages {
            builder.push(message);
        }
        prop_assert_eq!(builder.is_empty(), messages.is_empty());
        let frame = builder.take().into_bytes();
        prop_assert!(builder.is_empty());
        let decoded: Result<Vec<PeerMessage>, _> = frames(frame).collect();
        prop_assert_eq!(decoded, Ok(messages));
    }
}
