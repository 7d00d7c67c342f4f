//! Snapshots that cannot be written, and transfers that break off.

use crate::support::{Client, Cluster, Saves, check};
use tholos_node::{Event, PeerMessage, Port};
use tholos_ring::{ShardId, shard_of, slot};

/// One node whose log is written anew after so many bytes.
fn single(log_bytes_max: u64) -> (Cluster, Client) {
    let mut cluster = Cluster::start(1, 1, |config| config.log_bytes_max = log_bytes_max);
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    (cluster, client)
}

fn write(cluster: &mut Cluster, client: Client, count: usize, bytes: usize) {
    let value = "v".repeat(bytes);
    for number in 0..count {
        assert_eq!(cluster.ask(client, &[&format!("SET k{number} {value}")]), "+OK\r\n");
    }
}

#[test]
fn a_snapshot_that_cannot_be_written_is_tried_again() {
    let (mut cluster, client) = single(64 << 10);
    cluster.saves = Saves::Fail;
    write(&mut cluster, client, 100, 1024);
    cluster.advance(5000);
    assert_eq!(cluster.released.get(&0), None);
    assert_eq!(cluster.nodes[0].snapshots_under_way(), 0);
    cluster.saves = Saves::AtOnce;
    cluster.advance(5000);
    assert!(cluster.released.contains_key(&0));
}

#[test]
fn a_log_without_room_is_written_anew_before_its_time() {
    let (mut cluster, client) = single(1 << 20);
    write(&mut cluster, client, 200, 1024);
    cluster.advance(1000);
    assert_eq!(cluster.released.get(&0), None);
    // The disk counts more than the core does: sectors, seals, segments.
    cluster.handle(0, Event::DiskFull(true));
    cluster.advance(1000);
    let released = cluster.released.get(&0).copied();
    assert!(released.is_some());
    // Once everything is written anew there is nothing more to gain by it.
    cluster.advance(10_000);
    assert_eq!(cluster.released.get(&0).copied(), released);
}

/// However much is applied while a snapshot is written, it counts, and what was applied is not written again.
#[test]
fn what_is_applied_meanwhile_does_not_make_a_snapshot_useless() {
    let (mut cluster, client) = single(1 << 20);
    let shard = shard_of(slot(b"k"), 16);
    let value = "v".repeat(1 << 20);
    cluster.saves = Saves::HoldOf(shard);
    let large = format!("SET {{k}} {value}");
    while cluster.saves_held() == 0 {
        cluster.ask(client, &[&large]);
        cluster.advance(100);
    }
    let (finished, released) = (cluster.finished, cluster.released.get(&0).copied());
    for _ in 0..70 {
        cluster.ask(client, &[&large]);
    }
    let bytes = cluster.nodes[0].shard(shard).unwrap().group.log_bytes();
    assert!(bytes < 4 << 20, "{bytes} bytes of entries are kept in memory");
    cluster.advance(1000);
    assert_eq!(cluster.released.get(&0).copied(), released, "nothing is released before the file is durable");
    cluster.release_saves();
    assert_eq!(cluster.finished, finished, "no other snapshot was needed");
    assert!(cluster.released.get(&0).copied() > released);
    let mebibytes = cluster.largest_append >> 20;
    assert!(mebibytes < 9, "a record of {mebibytes} MiB");
}

/// A snapshot of many keys goes to its file chunk by chunk, each asked for when one before is written.
#[test]
fn a_snapshot_is_written_in_chunks() {
    let mut cluster = Cluster::start(1, 1, |config| {
        config.log_bytes_max = 256 << 10;
        config.snapshot_chunk_bytes = 4 << 10;
    });
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    write(&mut cluster, client, 600, 1024);
    cluster.advance(1000);
    assert!(cluster.released.contains_key(&0));
    assert_eq!(cluster.largest_chunk, 4 << 10);
    assert!(cluster.chunks > 5 * cluster.finished, "{} of {}", cluster.chunks, cluster.finished);
}

#[test]
fn a_transfer_that_breaks_off_is_forgotten_and_begun_again() {
    let mut cluster = Cluster::start(3, 3, |config| config.entry_cache_bytes = 1 << 10);
    cluster.wait_for_leaders();
    cluster.cut(2);
    cluster.advance(2000);
    let client = cluster.connect(0, Port::Gateway);
    write(&mut cluster, client, 300, 1024);
    cluster.lost = |message| matches!(message, PeerMessage::SnapshotWanted { .. });
    cluster.mend();
    cluster.advance(1000);
    let under_way =
        |cluster: &Cluster| cluster.nodes.iter().map(|node| node.snapshots_under_way()).sum::<usize>();
    assert!(under_way(&cluster) > 0);
    cluster.cut(2);
    cluster.advance(7000);
    assert_eq!(under_way(&cluster), 0);
    cluster.lost = |_| false;
    cluster.mend();
    cluster.advance(7000);
    assert_eq!(under_way(&cluster), 0);
    let applied = |node: usize| {
        let shards = (0..16).map(|id| cluster.nodes[node].shard(ShardId(id)).unwrap());
        shards.map(|shard| shard.group.applied_index()).collect::<Vec<_>>()
    };
    assert_eq!(applied(2), applied(0));
}

#[test]
fn a_lost_chunk_is_sent_again() {
    let mut cluster = Cluster::start(3, 3, |config| config.entry_cache_bytes = 1 << 10);
    cluster.wait_for_leaders();
    cluster.cut(2);
    cluster.advance(2000);
    let client = cluster.connect(0, Port::Gateway);
    write(&mut cluster, client, 20, 1 << 20);
    // One chunk in seven is lost.
    cluster.lost = |message| match message {
        PeerMessage::SnapshotChunk(_) => {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            COUNT.fetch_add(1, Ordering::Relaxed) % 7 == 1
        }
        _ => false,
    };
    cluster.mend();
    cluster.advance(10_000);
    check(&mut cluster, client, &[("DBSIZE", ":20")]);
    let applied = |node: usize| {
        let shards = (0..16).map(|id| cluster.nodes[node].shard(ShardId(id)).unwrap());
        shards.map(|shard| shard.group.applied_index()).collect::<Vec<_>>()
    };
    assert_eq!(applied(2), applied(0));
}

#[test]
fn a_log_too_large_to_be_one_record_is_not_sent_again() {
    let mut cluster = Cluster::start(3, 3, |config| config.entry_cache_bytes = 256 << 20);
    cluster.wait_for_leaders();
    let shard = shard_of(slot(b"k"), 16);
    let leads =
        |cluster: &Cluster, node: usize| cluster.nodes[node].shard(shard).unwrap().group.leading().is_some();
    let old = (0..3).find(|node| leads(&cluster, *node)).unwrap();
    let (other, behind) = ((old + 1) % 3, (old + 2) % 3);
    cluster.cut(behind);
    let client = cluster.connect(old, Port::Gateway);
    let value = "v".repeat(1 << 20);
    for number in 0..70 {
        assert_eq!(cluster.ask(client, &[&format!("SET {{k}}{number} {value}")]), "+OK\r\n");
    }
    // The one that is behind is needed by whoever leads next.
    cluster.mend();
    cluster.cut(old);
    cluster.advance(5000);
    let client = cluster.connect(other, Port::Gateway);
    check(&mut cluster, client, &[("INCR {k}", ":1")]);
    cluster.mend();
    cluster.advance(2000);
    let applied = |node: usize| cluster.nodes[node].shard(shard).unwrap().group.applied_index();
    assert_eq!(applied(behind), applied(other));
    let mebibytes = cluster.largest_append >> 20;
    assert!(mebibytes < 64, "a record of {mebibytes} MiB");
}
