use alloc::format;
use alloc::vec;

use super::*;

fn row(id: u16, name: &str) -> NodeRow {
    NodeRow {
        id: NodeId(id),
        name: String::from(name),
        zone: String::new(),
        weight: 1,
        incarnation: Incarnation(u64::from(id) * 1000),
        gateway: format!("10.0.0.{id}:6379"),
        cluster: format!("10.0.0.{id}:7001"),
        peer: format!("10.0.0.{id}:7101"),
        http: String::new(),
    }
}

fn map() -> ClusterMap {
    ClusterMap {
        cluster_id: ClusterId([7; 20]),
        epoch: Epoch(3),
        shard_count: 2,
        replicas: 2,
        nodes: vec![row(1, "n1"), row(2, "n2"), row(5, "n5")],
        shards: vec![vec![NodeId(1), NodeId(5)], vec![NodeId(2), NodeId(1)]],
    }
}

/// The map after one change must be refused for this reason.
#[track_caller]
fn check(change: impl FnOnce(&mut ClusterMap), expected: &MapError) {
    let mut map = map();
    change(&mut map);
    assert_eq!(map.check().as_ref(), Err(expected));
}

#[test]
fn a_map_finds_its_nodes_and_shards() {
    let map = map();
    assert_eq!(map.check(), Ok(()));
    assert_eq!(map.node(NodeId(5)).map(|row| row.name.as_str()), Some("n5"));
    assert_eq!(map.node(NodeId(3)), None);
    assert_eq!(map.by_name("n2").map(|row| row.id), Some(NodeId(2)));
    // CLUSTER KEYSLOT foo is 12182, in the upper half; bar is 5061.
    assert_eq!(map.shard_of_key(b"foo"), ShardId(1));
    assert_eq!(map.shard_of_key(b"bar"), ShardId(0));
    assert_eq!(map.replica_set(ShardId(1)), [NodeId(2), NodeId(1)]);
    assert_eq!(map.shards_of(NodeId(1)).collect::<Vec<_>>(), [ShardId(0), ShardId(1)]);
    assert_eq!(map.shards_of(NodeId(5)).collect::<Vec<_>>(), [ShardId(0)]);
}

#[test]
fn shards_with_two_replicas_in_a_zone_are_told() {
    let mut map = map();
    let crowded = |map: &ClusterMap| map.crowded().collect::<Vec<_>>();
    assert_eq!(crowded(&map), [], "who has no zone is one of its own");
    for (row, zone) in map.nodes.iter_mut().zip(["a", "a", "b"]) {
        row.zone = zone.into();
    }
    assert_eq!(crowded(&map), [ShardId(1)], "{:?}", map.shards);
}

#[test]
fn each_broken_invariant_is_named() {
    let set = MapError::BadReplicaSet(ShardId(1));
    check(|map| map.shard_count = 3, &MapError::BadShardCount(3));
    check(|map| map.shard_count = 0, &MapError::BadShardCount(0));
    check(|map| map.shard_count = 32768, &MapError::BadShardCount(32768));
    check(|map| map.replicas = 0, &MapError::BadReplicas(0));
    check(|map| map.nodes[0].id = NodeId(0), &MapError::BadNodeId(NodeId(0)));
    check(|map| map.nodes[1].id = NodeId(1), &MapError::BadNodeId(NodeId(1)));
    check(|map| map.nodes[2].name = "n1".into(), &MapError::DuplicateName("n1".into()));
    check(|map| map.nodes[2].name = "n 1".into(), &MapError::BadName("n 1".into()));
    check(|map| map.nodes[2].name = String::new(), &MapError::BadName(String::new()));
    check(|map| map.nodes[2].name = "x".repeat(65), &MapError::BadName("x".repeat(65)));
    check(|map| map.nodes[2].zone = "a/b".into(), &MapError::BadName("a/b".into()));
    check(|map| map.nodes[2].weight = 0, &MapError::BadWeight("n5".into()));
    check(|map| map.nodes[2].weight = WEIGHT_MAX + 1, &MapError::BadWeight("n5".into()));
    check(|map| map.nodes[2].http = "x".repeat(ADDRESS_BYTES_MAX + 1), &MapError::BadAddress("n5".into()));
    check(|map| map.shards[1][0] = NodeId(3), &set);
    check(|map| map.shards[1][0] = NodeId(1), &set);
    check(|map| map.shards[1].clear(), &set);
    check(|map| drop(map.shards.pop()), &set);
    check(|map| map.shards.push(vec![NodeId(1)]), &MapError::BadReplicaSet(ShardId(2)));
}

#[test]
fn bytes_are_those_of_version_1() {
    let small = ClusterMap {
        nodes: vec![NodeRow {
            gateway: "g:1".into(),
            cluster: String::new(),
            peer: "p".into(),
            zone: "z".into(),
            ..row(1, "n1")
        }],
        shard_count: 1,
        replicas: 1,
        shards: vec![vec![NodeId(1)]],
        ..map()
    };
    let mut expected = vec![1];
    expected.extend_from_slice(&[7; 20]);
    expected.extend_from_slice(b"\x03\0\0\0\0\0\0\0\x01\0\x01\x01\0");
    expected.extend_from_slice(b"\x01\0\xe8\x03\0\0\0\0\0\0\x01\0\x02\0n1\x01\0z\x03\0g:1\0\0\x01\0p\0\0");
    expected.extend_from_slice(b"\x01\x01\0");
    assert_eq!(small.encode(), expected);
    assert_eq!(ClusterMap::decode(&expected), Ok(small));
}

#[test]
fn damaged_bytes_are_an_error_and_never_a_panic() {
    let bytes = map().encode();
    assert_eq!(ClusterMap::decode(&bytes), Ok(map()));
    for end in 0..bytes.len() {
        assert_eq!(ClusterMap::decode(&bytes[..end]), Err(MapError::Truncated), "{end}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(ClusterMap::decode(&longer), Err(MapError::TrailingBytes));
    for at in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= change;
            if let Ok(map) = ClusterMap::decode(&bytes) {
                assert_eq!(map.encode(), bytes, "one map has one form");
            }
        }
    }
    let mut newer = bytes;
    newer[0] = 2;
    assert_eq!(ClusterMap::decode(&newer), Err(MapError::UnknownVersion { written: 2, reads: 1 }));
}
