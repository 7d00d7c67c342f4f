//! Linearizable reads at replicas, for clients of the cluster port that have said READONLY (R15).

use std::sync::Arc;

use bytes::Bytes;
use tholos_node::{Event, PeerMessage, Port};
use tholos_paxos::{Message, Planted};
use tholos_ring::{ShardId, shard_of, slot};

use crate::support::{Client, Cluster, flat};

fn shard() -> ShardId {
    shard_of(slot(b"b"), 16)
}

/// Three nodes, of which n1 leads the shard of `b`, a client of its gateway, and one of n2 that has said READONLY.
fn three(leases: bool) -> (Cluster, Client, Client) {
    three_with(leases, Planted::Nothing)
}

fn three_with(leases: bool, planted: Planted) -> (Cluster, Client, Client) {
    let mut cluster = Cluster::start(3, 3, |config| {
        let group = Arc::make_mut(&mut config.group);
        (group.leases, group.planted) = (leases, planted);
    });
    cluster.wait_for_leaders();
    let (writer, reader) = (cluster.connect(0, Port::Gateway), cluster.connect(1, Port::Cluster));
    assert_eq!(flat(&cluster.ask(writer, &["SET b one"])), "+OK");
    let moved = flat(&cluster.ask(reader, &["GET b"]));
    assert!(moved.starts_with("-MOVED 3300 127.0.0.1:7001"), "{moved}");
    assert_eq!(cluster.ask(reader, &["READONLY"]), "+OK\r\n");
    (cluster, writer, reader)
}

fn reads_as_replica(cluster: &Cluster, at: usize) -> u64 {
    cluster.nodes[at].served().reads_as_replica
}

#[test]
fn a_replica_answers_once_it_has_what_the_leader_has_decided() {
    for leases in [false, true] {
        let (mut cluster, writer, reader) = three(leases);
        for value in ["two", "three"] {
            assert_eq!(flat(&cluster.ask(writer, &[&format!("SET b {value}")])), "+OK");
            let seen = flat(&cluster.ask(reader, &["GET b", "STRLEN b"]));
            assert_eq!(seen, format!("${0} {value} :{0}", value.len()), "it was told without a tick");
        }
        assert_eq!(reads_as_replica(&cluster, 1), 4);
        assert_eq!(reads_as_replica(&cluster, 0), 0);
    }
}

#[test]
fn writes_and_transactions_go_to_the_leader() {
    let (mut cluster, _, reader) = three(true);
    for command in ["SET b x", "WATCH b", "INCR b"] {
        let reply = flat(&cluster.ask(reader, &[command]));
        assert!(reply.starts_with("-MOVED"), "{command}: {reply}");
    }
    assert_eq!(cluster.ask(reader, &["READWRITE"]), "+OK\r\n");
    assert!(cluster.ask(reader, &["GET b"]).starts_with("-MOVED"));
    assert_eq!(reads_as_replica(&cluster, 1), 0);
}

#[test]
fn a_read_waits_until_the_replica_has_applied_what_it_must() {
    let (mut cluster, writer, reader) = three(true);
    // n2 gets no entries, and the other two decide without it.
    cluster.lost_between = |_, to, message| {
        to == 1 && matches!(message, PeerMessage::Paxos { message: Message::Accept { .. }, .. })
    };
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    assert_eq!(cluster.ask(reader, &["GET b"]), "", "it has only the old value");
    cluster.lost_between = |_, _, _| false;
    cluster.advance(300);
    assert_eq!(flat(&cluster.read(reader)), "$3 two");
    assert_eq!(reads_as_replica(&cluster, 1), 1);
}

#[test]
fn a_replica_that_does_not_get_there_leaves_the_read_to_the_leader() {
    let (mut cluster, writer, reader) = three(true);
    cluster.lost_between = |_, to, message| {
        to == 1 && matches!(message, PeerMessage::Paxos { message: Message::Accept { .. }, .. })
    };
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    assert_eq!(cluster.ask(reader, &["GET b"]), "");
    cluster.advance(700);
    assert!(cluster.read(reader).starts_with("-MOVED"), "it knows who has it");
}

#[test]
fn a_read_that_comes_after_a_question_is_not_confirmed_by_it() {
    assert_eq!(second_read_while_the_answer_is_slow(Planted::Nothing), "$3 two");
    assert_eq!(second_read_while_the_answer_is_slow(Planted::LateReadJoins), "$3 one", "the fault shows");
}

#[test]
fn reads_that_come_together_are_one_question() {
    let (mut cluster, _, reader) = three(true);
    let readers: Vec<Client> = (0..8).map(|_| cluster.connect(1, Port::Cluster)).collect();
    for client in &readers {
        assert_eq!(cluster.ask(*client, &["READONLY"]), "+OK\r\n");
    }
    let before = cluster.shard_messages;
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 one");
    let of_one = cluster.shard_messages - before;
    for client in &readers {
        let commands = vec![vec![Bytes::from("GET"), Bytes::from("b")]];
        cluster.handle(1, Event::Commands { client: client.id, commands });
    }
    cluster.settle();
    assert!(readers.iter().all(|client| flat(&cluster.read(*client)) == "$3 one"));
    let of_eight = cluster.shard_messages - before - of_one;
    assert!(of_eight <= of_one, "eight reads are asked for as one: {of_eight}, {of_one}");
    assert_eq!(reads_as_replica(&cluster, 1), 9);
}

/// The answer to a replica's question is slow, and so are the entries that it gets. Meanwhile somebody writes, and a
/// second client reads there.
fn second_read_while_the_answer_is_slow(planted: Planted) -> String {
    let (mut cluster, writer, reader) = three_with(true, planted);
    let second = cluster.connect(1, Port::Cluster);
    cluster.ask(second, &["READONLY"]);
    cluster.held_up = |from, to, _| (from, to) == (0, 1);
    cluster.send(reader, &["GET b"]);
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    cluster.send(second, &["GET b"]);
    assert_eq!(cluster.read(second), "");
    // The answer comes, and the entries are lost.
    cluster.lost_between = |_, to, message| {
        to == 1 && matches!(message, PeerMessage::Paxos { message: Message::Accept { .. }, .. })
    };
    cluster.release_mail();
    assert_eq!(flat(&cluster.read(reader)), "$3 one", "it came before the write");
    cluster.lost_between = |_, _, _| false;
    cluster.advance(300);
    flat(&cluster.read(second))
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let (mut cluster, _, reader) = three(true);
    cluster.lost_between =
        |from, to, message| (from, to) == (1, 0) && matches!(message, PeerMessage::Forward(_));
    assert_eq!(cluster.ask(reader, &["GET b"]), "");
    cluster.lost_between = |_, _, _| false;
    cluster.advance(300);
    assert_eq!(flat(&cluster.read(reader)), "$3 one");
    assert_eq!(reads_as_replica(&cluster, 1), 1);
}

#[test]
fn without_a_leader_that_has_a_quorum_a_replica_answers_nothing() {
    let (mut cluster, _, reader) = three(false);
    // n1 and n2 hear each other and nobody else; then n1 is gone too.
    cluster.cut(0);
    cluster.cut(2);
    assert_eq!(cluster.ask(reader, &["GET b"]), "");
    cluster.advance(6_000);
    assert!(cluster.read(reader).starts_with("-CLUSTERDOWN"), "what it has may be old");
    assert_eq!(reads_as_replica(&cluster, 1), 0);
}

#[test]
fn after_a_change_of_leader_a_replica_asks_the_new_one() {
    let (mut cluster, _, reader) = three(true);
    cluster.cut(0);
    cluster.advance(2_000);
    let heirs: Vec<usize> = (1..3)
        .filter(|at| cluster.nodes[*at].shard(shard()).is_some_and(|shard| shard.group.serving()))
        .collect();
    let [heir] = heirs[..] else { panic!("one of the two leads") };
    let writer = cluster.connect(heir, Port::Gateway);
    assert_eq!(flat(&cluster.ask(writer, &["SET b two"])), "+OK");
    let other = 3 - heir;
    let reader = if other == 1 { reader } else { cluster.connect(other, Port::Cluster) };
    cluster.ask(reader, &["READONLY"]);
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$3 two");
    assert_eq!(reads_as_replica(&cluster, other), 1);
}

#[test]
fn a_replica_does_not_decide_who_is_dead() {
    let (mut cluster, writer, reader) = three(true);
    assert_eq!(flat(&cluster.ask(writer, &["SET b value PX 70"])), "+OK");
    assert_eq!(flat(&cluster.ask(reader, &["GET b"])), "$5 value");
    // Wall clocks say dead, and shard time alive: the leader's Tick decides, and the replica waits for it (R17).
    cluster.skip(80);
    cluster.send(reader, &["GET b"]);
    cluster.advance(20);
    assert_eq!(flat(&cluster.read(reader)), "$-1");
}
