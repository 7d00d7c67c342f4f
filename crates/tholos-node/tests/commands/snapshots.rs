//! Snapshots that cannot be written, and transfers that break off.

use std::sync::Arc;

use crate::support::{Client, Cluster, Saves, check};
use tholos_node::{Event, LogRoom, NodeConfig, Notice, PeerMessage, Port};
use tholos_paxos::Index;
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
    cluster.handle(0, Event::LogRoom(LogRoom::Short));
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

fn under_way(cluster: &Cluster) -> usize {
    cluster.nodes.iter().map(|node| node.snapshots_under_way()).sum()
}

fn applied(cluster: &Cluster, node: usize) -> Vec<Index> {
    let shards = (0..16).map(|id| cluster.nodes[node].shard(ShardId(id)).expect("three replicas"));
    shards.map(|shard| shard.group.applied_index()).collect()
}

/// Three nodes, of which the last lacks `count` values of 1 KiB of one shard, with small chunks. Answers a client of the
/// shard's leader.
fn one_behind(count: usize, configure: impl Fn(&mut NodeConfig)) -> (Cluster, Client) {
    let mut cluster = Cluster::start(3, 3, |config| {
        config.entry_cache_bytes = 1 << 10;
        config.snapshot_chunk_bytes = 1 << 10;
        configure(config);
    });
    cluster.wait_for_leaders();
    cluster.cut(2);
    cluster.advance(2000);
    let shard = shard_of(slot(b"k"), 16);
    let leads = |node: &usize| cluster.nodes[*node].shard(shard).expect("three replicas").group.serving();
    let leader = (0..2).find(leads).expect("a majority is there");
    let client = cluster.connect(leader, Port::Gateway);
    for number in 0..count {
        one_more(&mut cluster, client, number);
    }
    (cluster, client)
}

fn one_more(cluster: &mut Cluster, client: Client, number: usize) {
    let value = "v".repeat(1 << 10);
    assert_eq!(cluster.ask(client, &[&format!("SET {{k}}{number} {value}")]), "+OK\r\n");
}

fn installed(cluster: &Cluster, node: usize) -> usize {
    let at = |(at, notice): &&(usize, Notice)| {
        *at == node
            && matches!(notice, Notice::SnapshotInstalled { shard, .. } if *shard == shard_of(slot(b"k"), 16))
    };
    cluster.notices.iter().filter(at).count()
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_stood() {
    let (mut cluster, _) = one_behind(300, |_| {});
    cluster.pace = 5;
    cluster.mend();
    cluster.advance(600);
    let before = cluster.taken;
    assert!((20..250).contains(&before), "{before} chunks have come");
    cluster.cut(2);
    // The sender gives the transfer up; what has come is kept.
    cluster.advance(8000);
    cluster.mend();
    cluster.advance(8000);
    assert_eq!(applied(&cluster, 2), applied(&cluster, 0));
    let resumed = cluster.notices.iter().find_map(|(_, notice)| match notice {
        Notice::SnapshotResumed { chunk, .. } => Some(*chunk as usize),
        _ => None,
    });
    assert!(resumed.is_some_and(|chunk| chunk + 50 > before), "{resumed:?}");
    assert_eq!((installed(&cluster, 2), under_way(&cluster)), (1, 0));
}

#[test]
fn what_has_come_is_forgotten_in_the_end() {
    let (mut cluster, _) = one_behind(300, |_| {});
    cluster.pace = 5;
    cluster.mend();
    cluster.advance(600);
    cluster.cut(2);
    cluster.advance(50_000);
    assert_eq!(under_way(&cluster), 1, "the sender has given up");
    cluster.advance(20_000);
    assert_eq!(under_way(&cluster), 0);
    cluster.mend();
    cluster.advance(10_000);
    assert_eq!(applied(&cluster, 2), applied(&cluster, 0));
}

/// The replica gets the file while it is written, and what follows it from memory: one snapshot is enough, though every
/// entry would leave memory at once otherwise.
#[test]
fn a_replica_that_fell_behind_catches_up_under_load() {
    let (mut cluster, client) = one_behind(300, |_| {});
    cluster.pace = 4;
    cluster.mend();
    for number in 0..600 {
        one_more(&mut cluster, client, 300 + number);
        cluster.advance(10);
    }
    let shard = shard_of(slot(b"k"), 16);
    let at = |node: usize| cluster.nodes[node].shard(shard).unwrap().group.applied_index().0;
    assert!(at(0).max(at(1)) - at(2) < 5, "{} to {}", at(2), at(0));
    assert_eq!(installed(&cluster, 2), 1);
    // And then memory is let go.
    cluster.advance(10_000);
    one_more(&mut cluster, client, 0);
    let bytes = cluster.nodes[client.node].shard(shard).unwrap().group.log_bytes();
    assert!(bytes < 16 << 10, "{bytes} bytes are kept");
}

/// A newer snapshot of the shard is durable before an older one has arrived, and takes it away only then.
#[test]
fn a_snapshot_that_is_being_sent_stays() {
    let (mut cluster, client) = one_behind(300, |config| config.log_bytes_max = 100 << 10);
    cluster.mend();
    cluster.pace = 8;
    cluster.lost = |message| match message {
        PeerMessage::SnapshotWanted { .. } => {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            !COUNT.fetch_add(1, Ordering::Relaxed).is_multiple_of(12)
        }
        _ => false,
    };
    let finished = cluster.finished;
    for number in 0..600 {
        one_more(&mut cluster, client, 300 + number);
        cluster.advance(10);
    }
    cluster.lost = |_| false;
    cluster.advance(5000);
    assert!(cluster.finished > finished + 2, "{} since", cluster.finished - finished);
    assert_eq!((cluster.unread, installed(&cluster, 2)), (0, 1));
    cluster.advance(10_000);
    let of_shard = cluster.snapshot_files(client.node, shard_of(slot(b"k"), 16));
    assert_eq!(of_shard, 1, "the old one is gone");
}

/// The newer snapshot is whole, but the checkpoint that names it is not durable: recovery would need the older one.
#[test]
fn a_snapshot_stays_until_the_checkpoint_after_it_is_durable() {
    let (mut cluster, client) = one_behind(300, |config| config.log_bytes_max = 100 << 10);
    let (leader, shard) = (client.node, shard_of(slot(b"k"), 16));
    // A transfer that does not end by itself, nor is there another one.
    cluster.lost = |message| matches!(message, PeerMessage::SnapshotWanted { .. });
    cluster.mend();
    let mut number = 300;
    loop {
        assert!(number < 2000, "no snapshot was written while the disk stood still");
        one_more(&mut cluster, client, number);
        number += 1;
        cluster.hold_disk(true);
        cluster.advance(20);
        if cluster.snapshot_files(leader, shard) == 2 && under_way(&cluster) > 0 {
            break;
        }
        cluster.hold_disk(false);
    }
    // It ends because its sender leads no longer.
    cluster.cut(leader);
    cluster.advance(10_000);
    assert!(!cluster.nodes[leader].shard(shard).unwrap().group.serving());
    assert_eq!(cluster.snapshot_files(leader, shard), 2, "the log on the disk names the older one");
    cluster.hold_disk(false);
    cluster.mend();
    cluster.lost = |_| false;
    cluster.advance(10_000);
    assert_eq!(cluster.snapshot_files(leader, shard), 1);
}

/// What a slow replica makes its leader keep has a bound, and beyond it the replica is sent another snapshot.
#[test]
fn what_follows_a_snapshot_is_kept_within_bounds() {
    let bound = 64 << 10;
    let (mut cluster, client) =
        one_behind(300, |config| Arc::make_mut(&mut config.group).resent_bytes_max = bound);
    cluster.pace = 2;
    cluster.mend();
    let shard = shard_of(slot(b"k"), 16);
    for number in 0..300 {
        one_more(&mut cluster, client, 300 + number);
        cluster.advance(10);
        let bytes = cluster.nodes[client.node].shard(shard).unwrap().group.log_bytes();
        assert!(bytes < bound + (4 << 10), "{bytes} bytes are kept");
    }
    cluster.pace = usize::MAX;
    cluster.advance(10_000);
    assert_eq!(applied(&cluster, 2), applied(&cluster, 0));
}

#[test]
fn a_snapshot_that_cannot_be_read_is_written_anew() {
    let (mut cluster, _) = one_behind(300, |_| {});
    cluster.unreadable = true;
    cluster.mend();
    cluster.advance(1000);
    assert_eq!(installed(&cluster, 2), 0);
    cluster.unreadable = false;
    cluster.advance(10_000);
    assert_eq!(applied(&cluster, 2), applied(&cluster, 0));
}

/// Nothing that is away, or slow, holds up the log.
#[test]
fn the_log_is_trimmed_though_a_node_is_dead() {
    let (mut cluster, client) = one_behind(0, |config| config.log_bytes_max = 128 << 10);
    for number in 0..1000 {
        one_more(&mut cluster, client, number % 50);
        if number % 10 == 0 {
            cluster.advance(50);
        }
    }
    let appended = cluster.last_append(client.node);
    let released = cluster.released[&client.node].0;
    assert!(released > appended * 3 / 4, "released to {released} of {appended}");
}

#[test]
fn a_lost_chunk_is_sent_again() {
    let mut cluster = Cluster::start(3, 3, |config| config.entry_cache_bytes = 1 << 10);
    cluster.wait_for_leaders();
    cluster.cut(2);
    cluster.advance(2000);
    let client = cluster.connect(0, Port::Gateway);
    write(&mut cluster, client, 20, 1 << 20);
    // One chunk in eight is lost, and not always the same one of those that are sent again together.
    cluster.lost = |message| match message {
        PeerMessage::SnapshotChunk(_) => {
            use std::sync::atomic::{AtomicU32, Ordering};
            static COUNT: AtomicU32 = AtomicU32::new(0);
            COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9) >> 29 == 1
        }
        _ => false,
    };
    cluster.mend();
    cluster.advance(20_000);
    check(&mut cluster, client, &[("DBSIZE", ":20")]);
    assert_eq!(applied(&cluster, 2), applied(&cluster, 0));
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

/// One node with a shard of a MiB, of which a tenth is written to a snapshot that does not come on: its log had 1 MiB of room for
/// writes when that began.
fn with_a_slow_snapshot() -> (Cluster, Client) {
    let mut cluster = Cluster::start(1, 1, |config| {
        (config.log_bytes_max, config.log_room_bytes) = (512 << 10, 1 << 20);
        config.snapshot_chunk_bytes = 1 << 10;
    });
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    cluster.pace = 20;
    let value = "v".repeat(1 << 10);
    for number in 0..1024 {
        assert_eq!(cluster.ask(client, &[&format!("SET {{k}}{number} {value}")]), "+OK\r\n");
    }
    // Those of the other shards, which are empty, are through by then.
    while cluster.chunks < 100 {
        cluster.advance(10);
    }
    cluster.pace = 0;
    assert_eq!(cluster.nodes[0].snapshots_under_way(), 1);
    (cluster, client)
}

fn kept(cluster: &mut Cluster, kept_bytes: u64) {
    cluster.handle(0, Event::DurableLsn { lsn: 1, kept_bytes });
}

/// H1: the disk was far from full, and writes were refused for want of room in the log.
#[test]
fn writes_go_on_as_fast_as_the_snapshot_that_makes_room() {
    let (mut cluster, client) = with_a_slow_snapshot();
    kept(&mut cluster, 256 << 10);
    check(&mut cluster, client, &[("SET {k} 1", "+OK")]);
    kept(&mut cluster, 384 << 10);
    cluster.send(client, &["SET {k} 2"]);
    cluster.advance(500);
    assert_eq!(cluster.read(client), "", "more of the room is used than of the snapshot is written");
    let other = cluster.connect(0, Port::Gateway);
    check(&mut cluster, other, &[("GET {k}", "$1 1")]);
    cluster.pace = 2;
    cluster.advance(500);
    assert_eq!(cluster.read(client), "+OK\r\n");
    assert_eq!(cluster.nodes[0].snapshots_under_way(), 1, "it is not at its end by far");
    kept(&mut cluster, 1 << 20);
    cluster.send(client, &["SET {k} 3"]);
    cluster.advance(1000);
    assert_eq!(cluster.read(client), "");
    cluster.pace = 1000;
    cluster.advance(500);
    assert_eq!((cluster.read(client).as_str(), cluster.nodes[0].snapshots_under_way()), ("+OK\r\n", 0));
}

/// H2
#[test]
fn without_room_writes_wait_as_long_as_snapshots_come_on_and_not_too_long() {
    let (mut cluster, client) = with_a_slow_snapshot();
    cluster.pace = 1;
    cluster.advance(20);
    cluster.handle(0, Event::LogRoom(LogRoom::Short));
    cluster.send(client, &["SET {k} 1", "INCR {k}"]);
    cluster.advance(1900);
    assert_eq!(cluster.read(client), "");
    cluster.advance(200);
    let refused = cluster.read(client);
    let told = "takes long; nothing was written: try again later";
    assert_eq!(refused.matches(told).count(), 2, "{refused}");
    // A disk that stands still makes no room.
    cluster.pace = 0;
    cluster.advance(1100);
    let refused = cluster.ask(client, &["SET {k} 2"]);
    assert!(refused.starts_with("-DISKFULL") && refused.contains("free disk space"), "{refused}");
    cluster.handle(0, Event::LogRoom(LogRoom::Ample));
    // What was refused left no hole in the session, and no copy of it comes to be written.
    check(&mut cluster, client, &[("INCR {k}", ":1"), ("GET {k}", "$1 1")]);
    cluster.advance(6000);
    check(&mut cluster, client, &[("GET {k}", "$1 1")]);
}
