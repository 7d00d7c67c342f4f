//! Replicas whose states differ are found out by their digests, and repaired (R24).

use bytes::Bytes;
use tholos_node::{Loss, Notice, PeerMessage, Port};
use tholos_paxos::{Entry, Message, Payload};
use tholos_ring::{ShardId, shard_of, slot};

use crate::support::{Cluster, flat};

fn shard() -> ShardId {
    shard_of(slot(b"b"), 16)
}

/// As if memory or a wire had changed what is written.
fn spoil(message: &mut PeerMessage) {
    let PeerMessage::Paxos {
        message: Message::Accept { entries, .. } | Message::Sync { entries, .. }, ..
    } = message
    else {
        return;
    };
    for Entry { payload, .. } in entries {
        let Payload::Batch(bytes) = payload else { continue };
        if let Some(at) = bytes.windows(4).position(|window| window == b"good") {
            let mut changed = bytes.to_vec();
            changed[at..at + 4].copy_from_slice(b"evil");
            *bytes = Bytes::from(changed);
        }
    }
}

/// Three nodes, of which n1 leads the shard of `b`, and a client of it.
fn three() -> Cluster {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    let leader = cluster
        .nodes
        .iter()
        .position(|node| node.shard(shard()).expect("it holds all shards").group.serving());
    assert_eq!(leader, Some(0), "the key was chosen so");
    cluster
}

fn digests(cluster: &Cluster) -> Vec<u64> {
    cluster
        .nodes
        .iter()
        .map(|node| node.shard(shard()).expect("it holds all shards").keyspace.digest())
        .collect()
}

fn set(cluster: &mut Cluster, value: &str) {
    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &[&format!("SET b {value}")])), "+OK");
    cluster.advance(200);
}

fn get(cluster: &mut Cluster) -> String {
    let client = cluster.connect(1, Port::Gateway);
    flat(&cluster.ask(client, &["GET b"]))
}

/// Of the shard's: whose replicas were found to differ, and which nodes were mute and repaired.
fn story(cluster: &Cluster) -> (Vec<u16>, Vec<usize>, Vec<usize>) {
    let (mut diverged, mut muted, mut repaired) = (Vec::new(), Vec::new(), Vec::new());
    for (at, notice) in &cluster.notices {
        match notice {
            Notice::ReplicaDiverged { shard: of, node, .. } if *of == shard() => diverged.push(node.0),
            Notice::ReplicaMuted { shard: of, loss: Loss::Diverged } if *of == shard() => muted.push(*at),
            Notice::ReplicaRepaired { shard: of } if *of == shard() => repaired.push(*at),
            _ => {}
        }
    }
    (diverged, muted, repaired)
}

#[test]
fn a_follower_whose_state_differs_is_repaired() {
    let mut cluster = three();
    cluster.spoil = |to, message| {
        if to == 2 {
            spoil(message);
        }
    };
    set(&mut cluster, "good");
    cluster.spoil = |_, _| {};
    let before = digests(&cluster);
    assert!(before[0] == before[1] && before[0] != before[2]);
    cluster.advance(25_000);
    assert_eq!(story(&cluster), (vec![3], vec![2], vec![2]));
    let after = digests(&cluster);
    assert_eq!(after, [before[0]; 3]);
    assert_eq!(get(&mut cluster), "$4 good");
}

#[test]
fn a_leader_whose_state_differs_hands_over_first() {
    let mut cluster = three();
    cluster.spoil = |_, message| spoil(message);
    set(&mut cluster, "good");
    cluster.spoil = |_, _| {};
    let before = digests(&cluster);
    assert!(before[1] == before[2] && before[0] != before[1]);
    cluster.advance(25_000);
    assert_eq!(story(&cluster), (vec![1], vec![0], vec![0]));
    let ledger = &cluster.notices;
    let at = |wanted: fn(&Notice) -> bool| {
        ledger.iter().rposition(|(node, notice)| *node == 0 && wanted(notice)).expect("it was noticed")
    };
    let stopped =
        at(|notice| matches!(notice, Notice::LeaderStoppedLeading { shard: of, .. } if *of == shard()));
    let muted = at(|notice| matches!(notice, Notice::ReplicaMuted { .. }));
    assert!(stopped < muted, "it led while it was mute");
    let after = digests(&cluster);
    assert!(after[0] == after[1] && after[1] == after[2]);
    // What a majority has is what there is.
    assert_eq!(get(&mut cluster), "$4 evil");
}

#[test]
fn two_replicas_that_differ_are_an_alarm() {
    let mut cluster = Cluster::start(2, 2, |_| {});
    cluster.wait_for_leaders();
    cluster.spoil = |_, message| spoil(message);
    set(&mut cluster, "good");
    cluster.spoil = |_, _| {};
    cluster.advance(25_000);
    assert_eq!(story(&cluster), (vec![], vec![], vec![]));
    let alarm = |(_, notice): &(usize, Notice)| matches!(notice, Notice::StatesDiffer { shard: of, .. } if *of == shard());
    assert!(cluster.notices.iter().any(alarm));
    let differ = |node: &tholos_node::Node| {
        node.shard(shard()).expect("it holds all shards").states_differ().is_some()
    };
    assert_eq!(cluster.nodes.iter().filter(|node| differ(node)).count(), 1, "its leader says so");
}
