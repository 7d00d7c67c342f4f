//! Reads that the gateway sends to replicas when the leader has much to do, and reads whose client says how old the answer may
//! be.

use std::sync::Arc;

use tholos_cluster::NodeId;
use tholos_node::{Ask, Event, Forward, PeerMessage, Port, QueueReport, Round};
use tholos_paxos::{Message, Payload, Planted};
use tholos_ring::{ShardId, shard_of, slot};

use crate::support::{Client, Cluster, flat};

fn shard() -> ShardId {
    shard_of(slot(b"b"), 16)
}

/// Nodes of which n1 leads the shard of `b`, which holds `one`, and a client of n1's gateway.
fn cluster(nodes: usize, replicas: u8, planted: Planted) -> (Cluster, Client) {
    let mut cluster =
        Cluster::start(nodes, replicas, |config| Arc::make_mut(&mut config.group).planted = planted);
    cluster.wait_for_leaders();
    let at = (0..nodes).find(|at| leads(&cluster, *at)).expect("somebody leads");
    let writer = cluster.connect(at, Port::Gateway);
    assert_eq!(flat(&cluster.ask(writer, &["SET b one"])), "+OK");
    (cluster, writer)
}

fn leads(cluster: &Cluster, at: usize) -> bool {
    cluster.nodes[at].shard(shard()).is_some_and(|shard| shard.group.serving())
}

fn reads_as_replica(cluster: &Cluster, at: usize) -> u64 {
    cluster.nodes[at].served().reads_as_replica
}

/// For 100 ms the worker of a node has no time left, and the others hear of it.
fn keep_busy(cluster: &mut Cluster, at: usize) {
    for _ in 0..10 {
        cluster.advance(10);
        for node in 0..cluster.nodes.len() {
            let (took_us, idle_us) = if node == at { (10_000, 0) } else { (20, 9_980) };
            cluster.handle(node, Event::Round(Round { took_us, idle_us }));
        }
    }
}

/// Where reads of a client of another node than the leader's were answered: by the leader, by its own node, by others.
fn answered(cluster: &mut Cluster, client: Client, reads: usize) -> (u64, u64, u64) {
    let count = |cluster: &Cluster| -> Vec<u64> {
        (0..cluster.nodes.len()).map(|at| reads_as_replica(cluster, at)).collect()
    };
    let before = count(cluster);
    for _ in 0..reads {
        assert_eq!(flat(&cluster.ask(client, &["GET b"])), "$3 one");
    }
    let after = count(cluster);
    let own = after[client.node] - before[client.node];
    let all: u64 = after.iter().sum::<u64>() - before.iter().sum::<u64>();
    (reads as u64 - all, own, all - own)
}

#[test]
fn a_leader_with_little_to_do_answers_the_reads_of_all_gateways() {
    let (mut cluster, _) = cluster(3, 3, Planted::Nothing);
    cluster.advance(200);
    let reader = cluster.connect(1, Port::Gateway);
    assert_eq!(answered(&mut cluster, reader, 20), (20, 0, 0));
    assert_eq!(cluster.nodes[1].reads_sent().1, 0);
}

#[test]
fn the_replica_here_answers_for_a_leader_with_much_to_do() {
    let (mut cluster, writer) = cluster(3, 3, Planted::Nothing);
    keep_busy(&mut cluster, 0);
    assert!(cluster.nodes[1].queue_of(NodeId(1)).waiting > 0, "it has said so");
    let reader = cluster.connect(1, Port::Gateway);
    let (leader, own, others) = answered(&mut cluster, reader, 20);
    assert!(own >= 12 && others == 0, "{leader} {own} {others}");
    // What is written is seen at once.
    for value in ["two", "three"] {
        assert_eq!(flat(&cluster.ask(writer, &[&format!("SET b {value}")])), "+OK");
        assert_eq!(flat(&cluster.ask(reader, &["GET b"])), format!("${} {value}", value.len()));
    }
    // Writes go to the leader, and once it has time again the reads do as well.
    assert_eq!(flat(&cluster.ask(reader, &["SET b one"])), "+OK");
    keep_busy(&mut cluster, 2);
    assert_eq!(answered(&mut cluster, reader, 20), (20, 0, 0));
}

#[test]
fn a_follower_elsewhere_answers_where_the_gateway_holds_no_replica() {
    let (mut cluster, writer) = cluster(5, 3, Planted::Nothing);
    let stranger = (0..5).find(|at| cluster.nodes[*at].shard(shard()).is_none()).expect("two hold nothing");
    keep_busy(&mut cluster, writer.node);
    let reader = cluster.connect(stranger, Port::Gateway);
    let (leader, own, others) = answered(&mut cluster, reader, 20);
    assert!(others >= 12 && own == 0, "{leader} {own} {others}");
}

#[test]
fn a_follower_that_cannot_answer_leaves_the_read_to_the_leader() {
    let (mut cluster, writer) = cluster(5, 3, Planted::Nothing);
    let stranger = (0..5).find(|at| cluster.nodes[*at].shard(shard()).is_none()).expect("two hold nothing");
    keep_busy(&mut cluster, writer.node);
    let reader = cluster.connect(stranger, Port::Gateway);
    // Followers get no answer to what they ask the leader.
    cluster.lost = |message| match message {
        PeerMessage::Answer { request, .. } => request >> 61 == 1,
        _ => false,
    };
    cluster.send(reader, &["GET b", "GET b", "GET b", "GET b"]);
    cluster.advance(2_500);
    assert_eq!(flat(&cluster.read(reader)), ["$3 one"; 4].join(" "));
}

/// The first follower of the shard of `b` among five nodes.
const FOLLOWER: usize = 0;
/// Five in a row, and single ones one, two, four and eight seconds after the one before.
const TRIED_MAX: u64 = 9;

/// Of 40 reads of a gateway that holds no replica, how many went to a follower that answers none: what is lost, and whether
/// the connection there breaks besides.
fn sent_to_a_follower_that_fails(lost: fn(usize, usize, &PeerMessage) -> bool, breaks: bool) -> u64 {
    let (mut cluster, writer) = cluster(5, 3, Planted::Nothing);
    let holds = |at: usize| cluster.nodes[at].shard(shard()).is_some();
    let stranger = (0..5).find(|at| !holds(*at)).expect("two hold nothing");
    let followers: Vec<usize> = (0..5).filter(|at| holds(*at) && *at != writer.node).collect();
    assert_eq!(followers[0], FOLLOWER);
    let reader = cluster.connect(stranger, Port::Gateway);
    cluster.lost_between = lost;
    let to_other = reads_as_replica(&cluster, followers[1]);
    for _ in 0..40 {
        keep_busy(&mut cluster, writer.node);
        cluster.send(reader, &["GET b"]);
        if breaks {
            cluster.handle(stranger, Event::PeerDown { node: NodeId(FOLLOWER as u16 + 1) });
        }
        cluster.advance(300);
        assert_eq!(flat(&cluster.read(reader)), "$3 one");
    }
    assert_eq!(reads_as_replica(&cluster, FOLLOWER), 0);
    cluster.nodes[stranger].reads_sent().1 - (reads_as_replica(&cluster, followers[1]) - to_other)
}

#[test]
fn a_follower_that_cannot_answer_is_soon_left_out() {
    let cannot_answer = sent_to_a_follower_that_fails(
        |_, to, message| {
            to == FOLLOWER && matches!(message, PeerMessage::Answer { request, .. } if request >> 61 == 1)
        },
        false,
    );
    assert!((5..=TRIED_MAX).contains(&cannot_answer), "{cannot_answer}");
    let breaks = sent_to_a_follower_that_fails(
        |_, to, message| {
            let is_read = |forward: &Forward| matches!(forward.ask, Ask::ReplicaRead { .. });
            to == FOLLOWER && matches!(message, PeerMessage::Forward(forward) if is_read(forward))
        },
        true,
    );
    assert!((5..=TRIED_MAX).contains(&breaks), "{breaks}");
}

#[test]
fn a_read_sent_to_a_follower_waits_for_what_the_leader_has_decided() {
    assert_eq!(read_at_a_follower_that_lags(Planted::Nothing), "");
    assert_eq!(read_at_a_follower_that_lags(Planted::SentReadUnasked), "$3 one", "the fault shows");
}

/// What a gateway without a replica gets while followers lack the last write.
fn read_at_a_follower_that_lags(planted: Planted) -> String {
    let (mut cluster, writer) = cluster(5, 3, planted);
    let stranger = (0..5).find(|at| cluster.nodes[*at].shard(shard()).is_none()).expect("two hold nothing");
    let reader = cluster.connect(stranger, Port::Gateway);
    // A follower that does not know what is decided: all that would tell it is held up, like the answers to its questions.
    cluster.advance(200);
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    cluster.held_up = |_, _, message| {
        matches!(message, PeerMessage::Paxos { message: Message::Decide { .. } | Message::Accept { .. }, .. })
            || matches!(message, PeerMessage::Answer { request, .. } if request >> 61 == 1)
    };
    for at in 0..5 {
        let waiting = if at == writer.node { 10_000 } else { 0 };
        let from = NodeId(at as u16 + 1);
        let message = PeerMessage::Queue(QueueReport { waiting, service_ns: 10_000 });
        if at != stranger {
            cluster.handle(stranger, Event::Peer { from, message });
        }
    }
    cluster.send(reader, &["GET b"]);
    flat(&cluster.read(reader))
}

/// A client of n2 that takes answers that are so old, of the cluster port.
fn patient(cluster: &mut Cluster, ms: u64, port: Port) -> Client {
    let reader = cluster.connect(1, port);
    assert_eq!(cluster.ask(reader, &[&format!("READONLY {ms}")]), "+OK\r\n");
    reader
}

/// n2 gets no entries of the shard any more.
fn starve(cluster: &mut Cluster) {
    cluster.lost_between = |_, to, message| {
        to == 1 && matches!(message, PeerMessage::Paxos { message: Message::Accept { .. }, .. })
    };
}

#[test]
fn within_the_stated_age_a_replica_answers_by_itself_and_no_longer() {
    for port in [Port::Cluster, Port::Gateway] {
        let (mut cluster, writer) = cluster(3, 3, Planted::Nothing);
        let reader = patient(&mut cluster, 100, port);
        assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one", "it asked the leader");
        starve(&mut cluster);
        assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
        assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one", "less than 100 ms old");
        // By a clock that runs 5 % slow, 94 ms and the rest of one are 100.
        cluster.advance(90);
        assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one");
        cluster.skip(10);
        assert_eq!(
            flat(&cluster.ask(reader, &["GET b"])),
            "",
            "it is too old, and the leader's state not here yet"
        );
        cluster.lost_between = |_, _, _| false;
        cluster.advance(300);
        assert_eq!(flat(&cluster.read(reader)), "$3 two");
        assert_eq!(cluster.nodes[1].served().reads_stale, 2, "{port:?}");
    }
}

#[test]
fn the_age_counts_from_before_the_question_left() {
    assert_eq!(read_after_a_slow_answer(Planted::Nothing), "");
    assert_eq!(read_after_a_slow_answer(Planted::AgeFromAnswer), "$3 one", "the fault shows");
    assert_eq!(read_after_a_slow_answer(Planted::AgeIgnored), "$3 one", "the fault shows");
}

/// The leader's answer takes 90 ms, and 20 ms later somebody reads who takes answers of 100 ms.
fn read_after_a_slow_answer(planted: Planted) -> String {
    let (mut cluster, writer) = cluster(3, 3, planted);
    let reader = patient(&mut cluster, 100, Port::Cluster);
    cluster.held_up =
        |from, to, message| (from, to) == (0, 1) && matches!(message, PeerMessage::Answer { .. });
    cluster.send(reader, &["GET b"]);
    starve(&mut cluster);
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    cluster.skip(90);
    cluster.release_mail();
    assert!(planted == Planted::AgeIgnored || flat(&cluster.read(reader)) == "$3 one");
    cluster.held_up = |_, _, _| false;
    cluster.skip(20);
    cluster.read(reader);
    flat(&cluster.ask(reader, &["GET b"]))
}

#[test]
fn without_a_leader_answers_go_on_until_they_are_too_old() {
    let (mut cluster, _) = cluster(3, 3, Planted::Nothing);
    let reader = patient(&mut cluster, 2000, Port::Cluster);
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one");
    cluster.cut(0);
    cluster.cut(2);
    cluster.advance(1_500);
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one");
    cluster.advance(1_000);
    assert_eq!(cluster.ask(reader, &["GET b"]), "");
    cluster.advance(6_000);
    assert!(cluster.read(reader).starts_with("-CLUSTERDOWN"));
}

#[test]
fn a_connection_that_has_written_reads_what_it_wrote() {
    let (mut cluster, writer) = cluster(3, 3, Planted::Nothing);
    let reader = patient(&mut cluster, 5000, Port::Gateway);
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one");
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    assert_eq!(flat(&cluster.ask(reader, &["SET b three", "GET b"])), "+OK $5 three");
    assert_eq!(cluster.nodes[1].served().reads_stale, 0);
}

#[test]
fn the_age_is_stated_by_the_client_or_by_the_setting() {
    let (mut cluster, _) = cluster(3, 3, Planted::Nothing);
    let stale = |cluster: &Cluster| cluster.nodes[1].served().reads_stale;
    let reader = cluster.connect(1, Port::Cluster);
    let ask = |cluster: &mut Cluster, command: &str| flat(&cluster.ask(reader, &[command]));
    assert_eq!(ask(&mut cluster, "READONLY"), "+OK");
    for _ in 0..3 {
        assert_eq!(ask(&mut cluster, "GET b"), "$3 one");
    }
    assert_eq!(stale(&cluster), 0, "no age is stated");
    assert_eq!(ask(&mut cluster, "CONFIG SET replica-read-staleness-ms 500"), "+OK");
    assert_eq!(ask(&mut cluster, "GET b"), "$3 one");
    assert_eq!(stale(&cluster), 1);
    assert_eq!(ask(&mut cluster, "READONLY 0"), "+OK");
    assert_eq!(ask(&mut cluster, "GET b"), "$3 one");
    assert_eq!(stale(&cluster), 1, "the client wants none");
    for wrong in ["READONLY -1", "READONLY x", "READONLY 86400001", "READONLY 1 2"] {
        assert!(ask(&mut cluster, wrong).starts_with("-ERR"), "{wrong}");
    }
    assert!(ask(&mut cluster, "CONFIG SET replica-read-staleness-ms x").starts_with("-ERR"));
    assert_eq!(ask(&mut cluster, "READWRITE"), "+OK");
    assert!(ask(&mut cluster, "GET b").starts_with("-MOVED"));
    let single = cluster.connect(1, Port::Gateway);
    assert!(
        cluster.ask(single, &["READONLY"]).starts_with("-ERR This instance has cluster support disabled")
    );
}

/// R20: a replica that forgets its state and gets it again is not young for what it held before.
#[test]
fn a_replica_that_lost_its_state_does_not_answer_by_what_it_knew() {
    let (mut cluster, writer) = cluster(3, 3, Planted::Nothing);
    let reader = patient(&mut cluster, 60_000, Port::Cluster);
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one");
    // What n2 gets of the next write is spoilt, which the digests find out.
    cluster.spoil = |to, message| {
        if let (1, PeerMessage::Paxos { message: Message::Accept { entries, .. }, .. }) = (to, message) {
            for entry in entries {
                if let Payload::Batch(bytes) = &mut entry.payload
                    && let Some(at) = bytes.windows(4).position(|window| window == b"good")
                {
                    let mut changed = bytes.to_vec();
                    changed[at..at + 4].copy_from_slice(b"evil");
                    *bytes = changed.into();
                }
            }
        }
    };
    assert_eq!(flat(&cluster.ask(writer, &["SET other{b} good"])), "+OK");
    cluster.advance(200);
    let mut repaired = false;
    for _ in 0..2_000 {
        cluster.send(reader, &["GET b"]);
        cluster.advance(10);
        let seen = flat(&cluster.read(reader));
        // While it has no state, it says who has.
        let moved = "-MOVED 3300 127.0.0.1:7001";
        assert!(seen.replace(moved, "").split(' ').all(|part| ["", "$3", "one"].contains(&part)), "{seen}");
        repaired |= cluster.notices.iter().any(|(at, notice)| {
            (*at, notice) == (1, &tholos_node::Notice::ReplicaRepaired { shard: shard() })
        });
    }
    assert!(repaired, "it was found out");
}
