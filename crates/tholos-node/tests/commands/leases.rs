//! Reads by lease, and the second look at the clock (R12, R13).

use std::sync::Arc;

use tholos_node::{PeerMessage, Port};
use tholos_paxos::{LEASE_HELD, Message};
use tholos_ring::{ShardId, shard_of, slot};

use crate::support::{Client, Cluster, flat};

fn shard() -> ShardId {
    shard_of(slot(b"b"), 16)
}

/// Three nodes, of which n1 leads the shard of `b` and has leases for it, and a client of n1.
fn three() -> (Cluster, Client) {
    let mut cluster = Cluster::start(3, 3, |config| Arc::make_mut(&mut config.group).leases = true);
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &["SET b value", "GET b"])), "+OK $5 value");
    assert_eq!(reads_by_lease(&cluster), 0, "nobody has granted anything");
    cluster.advance(100);
    (cluster, client)
}

fn reads_by_lease(cluster: &Cluster) -> u64 {
    cluster.nodes[0].served().reads_by_lease
}

fn reads_late(cluster: &Cluster) -> u64 {
    cluster.nodes[0].served().reads_late
}

#[test]
fn a_leader_with_a_lease_answers_alone_and_not_for_long() {
    let (mut cluster, client) = three();
    cluster.cut(0);
    assert_eq!(flat(&cluster.ask(client, &["GET b", "STRLEN b"])), "$5 value :5");
    assert_eq!(reads_by_lease(&cluster), 2);
    cluster.advance(LEASE_HELD.0 + 10);
    assert_eq!(cluster.ask(client, &["GET b"]), "", "its lease is over");
    cluster.mend();
    cluster.advance(1000);
    assert_eq!(flat(&cluster.read(client)), "$5 value");
}

#[test]
fn an_answer_that_is_late_is_asked_again() {
    let (mut cluster, client) = three();
    // It stands still between the look at the clock and what it was for, and the others go on without it.
    cluster.cut(0);
    cluster.stands_still = LEASE_HELD.0 + 10;
    assert_eq!(cluster.ask(client, &["GET b", "GET b"]), "", "the lease was over when it was answered");
    assert!(reads_late(&cluster) > 0);
    cluster.mend();
    cluster.advance(1000);
    assert_eq!(flat(&cluster.read(client)), "$5 value $5 value");
}

#[test]
fn a_lease_does_not_decide_who_is_dead() {
    let (mut cluster, client) = three();
    assert_eq!(flat(&cluster.ask(client, &["SET b value PX 70", "GET b"])), "+OK $5 value");
    let before = cluster.nodes[0].shard(shard()).expect("it holds all shards").group.decided_index();
    // Its wall clock says dead and shard time says alive: a Tick decides (R17).
    cluster.skip(80);
    assert_eq!(flat(&cluster.ask(client, &["GET b"])), "$-1");
    let after = cluster.nodes[0].shard(shard()).expect("it holds all shards").group.decided_index();
    assert_eq!(after.0, before.0 + 1);
}

#[test]
fn reads_of_one_client_do_not_overtake_each_other() {
    let (mut cluster, client) = three();
    cluster.cut(0);
    // The first waits for a round, and there is a lease again when the second comes: the gateway asks that one again.
    cluster.skip(LEASE_HELD.0 + 20);
    cluster.send(client, &["GET b"]);
    cluster.mend();
    cluster.lost = |message| matches!(message, PeerMessage::Paxos { message: Message::Confirm { .. }, .. });
    cluster.advance(60);
    cluster.send(client, &["GET b"]);
    assert_eq!(cluster.read(client), "");
    assert_eq!(reads_by_lease(&cluster), 1, "the second could be answered at once");
    let other = cluster.connect(0, Port::Gateway);
    assert_eq!(flat(&cluster.ask(other, &["SET b newer"])), "+OK");
    cluster.lost = |_| false;
    cluster.advance(200);
    assert_eq!(flat(&cluster.read(client)), "$5 newer $5 newer");
}
