use alloc::format;

use super::*;

/// Nodes written as `name/zone*weight`, zone and weight as needed.
fn nodes(text: &str) -> Vec<Node<'_>> {
    text.split_whitespace()
        .map(|word| {
            let (word, weight) = word.split_once('*').map_or((word, 1), |(word, weight)| {
                (word, weight.parse().expect("a test's weight is a number"))
            });
            let (name, zone) = word.split_once('/').unwrap_or((word, ""));
            Node { name, zone, weight }
        })
        .collect()
}

/// Shards held and led by each node, written `name held/led`.
fn shares(nodes: &[Node<'_>], map: &ShardMap) -> String {
    let mut text = String::new();
    for (at, node) in (0..).map(NodeIndex).zip(nodes) {
        let held = map.iter().filter(|(_, set)| set.contains(&at)).count();
        let led = map.iter().filter(|(_, set)| set[0] == at).count();
        text.push_str(&format!("{} {held}/{led}, ", node.name));
    }
    String::from(text.trim_end_matches(", "))
}

#[track_caller]
fn check(text: &str, shard_count: u16, replicas: u8, expected: &str) {
    let nodes = nodes(text);
    let map = place(&nodes, shard_count, replicas).expect("these nodes can hold the shards");
    assert_eq!(shares(&nodes, &map), expected);
}

#[test]
fn every_node_holds_its_share_and_leads_its_share() {
    check("n1 n2 n3", 64, 3, "n1 64/22, n2 64/21, n3 64/21");
    check("n1", 64, 1, "n1 64/64");
    check("n1 n2 n3 n4", 64, 3, "n1 48/16, n2 48/16, n3 48/16, n4 48/16");
    check("n1 n2 n3 n4 n5", 64, 3, "n1 39/13, n2 39/13, n3 38/13, n4 38/12, n5 38/13");
    check("n1*1 n2*1 n3*2 n4*2", 60, 3, "n1 30/10, n2 30/10, n3 60/20, n4 60/20");
    check("n1 n2 n3 n4*0", 64, 3, "n1 64/22, n2 64/21, n3 64/21, n4 0/0");
}

#[test]
fn zones_bound_what_a_weight_may_claim() {
    // Zone a would claim 3/5 of 180 replicas, but each shard has one of its three there: 60, shared by its nodes.
    check("a1/a a2/a a3/a b1/b c1/c", 60, 3, "a1 20/6, a2 20/7, a3 20/7, b1 60/20, c1 60/20");
    // Two zones for three replicas: two of a shard in one of them cannot be helped, three can.
    check("a1/a a2/a b1/b b2/b", 60, 3, "a1 45/15, a2 45/15, b1 45/15, b2 45/15");
    check("a1/a a2/a a3/a", 60, 3, "a1 60/20, a2 60/20, a3 60/20");
    check("a1/a a2/a a3/a a4/a b1/b", 60, 3, "a1 30/10, a2 30/10, a3 30/10, a4 30/10, b1 60/20");
}

#[test]
fn what_cannot_be_placed_is_said() {
    let check = |text: &str, shard_count, replicas, expected| {
        assert_eq!(place(&nodes(text), shard_count, replicas), Err(expected));
    };
    check("n1 n2", 64, 3, PlaceError::TooFewNodes { nodes: 2, replicas: 3 });
    check("n1 n2 n3*0", 64, 3, PlaceError::TooFewNodes { nodes: 2, replicas: 3 });
    check("", 64, 1, PlaceError::TooFewNodes { nodes: 0, replicas: 1 });
    check("n1 n2 n1", 64, 3, PlaceError::DuplicateName("n1".into()));
    check("n1", 0, 1, PlaceError::BadShardCount(0));
    check("n1", 16385, 1, PlaceError::BadShardCount(16385));
    check("n1", 64, 0, PlaceError::NoReplicas);
}

#[test]
fn sets_are_frozen() {
    // A later release must place a new cluster's shards as this one does, or the book's transcripts are wrong.
    let nodes = nodes("n1 n2 n3 n4 n5");
    let map = place(&nodes, 8, 3).expect("five nodes hold three replicas");
    let sets: Vec<Vec<u16>> =
        map.into_sets().iter().map(|set| set.iter().map(|node| node.0 + 1).collect()).collect();
    assert_eq!(
        sets,
        [[5, 2, 4], [3, 2, 4], [2, 5, 3], [1, 2, 4], [3, 2, 1], [1, 5, 3], [4, 3, 1], [5, 4, 1]]
    );
}
