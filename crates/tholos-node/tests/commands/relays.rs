//! Two nodes do not reach each other, and others reach both: clients of either are served as before (R11).

use tholos_node::{PeerMessage, Port};
use tholos_ring::{ShardId, shard_of, slot};

use crate::support::{Cluster, check, flat};

fn cluster(replicas: u8) -> Cluster {
    let mut cluster = Cluster::start(3, replicas, |_| {});
    cluster.wait_for_leaders();
    cluster
}

fn shard(key: &str) -> ShardId {
    shard_of(slot(key.as_bytes()), 16)
}

fn leader(cluster: &Cluster, key: &str) -> usize {
    let serves = |at: &usize| cluster.nodes[*at].shard(shard(key)).is_some_and(|shard| shard.group.serving());
    (0..3).find(serves).expect("somebody leads")
}

fn relayed(cluster: &Cluster, at: usize) -> u64 {
    cluster.nodes[at].gateway().counters.relayed
}

/// The gateway has a replica of the shard, or none; so does the node between.
#[test]
fn a_request_goes_by_a_third_node() {
    for replicas in [1, 3] {
        let mut cluster = cluster(replicas);
        let leader = leader(&cluster, "k");
        let (gateway, between) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.cut_pair(leader, gateway);
        cluster.advance(3000);
        let client = cluster.connect(gateway, Port::Gateway);
        check(&mut cluster, client, &[("SET k 1", "+OK"), ("INCR k", ":2"), ("GET k", "$1 2")]);
        assert_eq!(self::leader(&cluster, "k"), leader, "{replicas} replicas: it goes on leading");
        assert_eq!((relayed(&cluster, gateway), relayed(&cluster, between)), (3, 0), "{replicas} replicas");
        // Straight again, once they hear each other.
        cluster.mend();
        cluster.advance(1000);
        check(&mut cluster, client, &[("INCR k", ":3")]);
        assert_eq!(relayed(&cluster, gateway), 3);
    }
}

/// The copy comes by another way than the write did, and is the same write to the leader (R18).
#[test]
fn a_write_by_two_ways_is_applied_once() {
    let mut cluster = cluster(3);
    let leader = leader(&cluster, "k");
    let gateway = (leader + 1) % 3;
    let client = cluster.connect(gateway, Port::Gateway);
    cluster.lost = |message| matches!(message, PeerMessage::Answer { .. });
    cluster.send(client, &["INCR k", "INCR k"]);
    assert_eq!(cluster.read(client), "");
    cluster.cut_pair(leader, gateway);
    cluster.lost = |_| false;
    // As soon as the leader is missed, and not only when the time for an answer is over.
    cluster.advance(700);
    assert_eq!(flat(&cluster.read(client)), ":1 :2");
    assert!(relayed(&cluster, gateway) > 0);
    check(&mut cluster, client, &[("GET k", "$1 2")]);
}

/// WAIT is asked again as long as its client waits, and answered by the way that its last copy came.
#[test]
fn who_waits_for_replicas_is_answered_by_a_third_node() {
    let mut cluster = cluster(3);
    let leader = leader(&cluster, "k");
    let gateway = (leader + 1) % 3;
    let client = cluster.connect(gateway, Port::Gateway);
    check(&mut cluster, client, &[("SET k 1", "+OK")]);
    cluster.send(client, &["WAIT 3 2500"]);
    cluster.cut_pair(leader, gateway);
    cluster.advance(4000);
    assert_eq!(flat(&cluster.read(client)), ":2");
}

/// Nobody is kept waiting for a way that there is not: the time of the request ends it.
#[test]
fn without_a_third_node_nothing_is_written() {
    let mut cluster = cluster(1);
    let leader = leader(&cluster, "k");
    let gateway = (leader + 1) % 3;
    let client = cluster.connect(gateway, Port::Gateway);
    cluster.cut(leader);
    cluster.advance(1000);
    cluster.send(client, &["SET k 1"]);
    cluster.advance(6000);
    let reply = flat(&cluster.read(client));
    assert!(reply.starts_with("-CLUSTERDOWN") && reply.contains("nothing was written"), "{reply}");
    assert_eq!(relayed(&cluster, gateway), 0);
}
