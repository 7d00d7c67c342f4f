//! Connected nodes: what arrives, what overtakes, what is bounded, and what a restart looks like.

mod common;

use bytes::Bytes;
use common::{Node, address, config, introduce, pair, secret};
use tholos_rpc::{DownReason, Event, Lane, SendError};

fn numbered(number: u32, length: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(4 + length, number as u8);
    bytes.into()
}

#[tokio::test]
async fn messages_cross_both_lanes_both_ways_in_order() {
    for secret in [None, secret(1)] {
        let (mut one, mut two) = pair(secret).await;
        let lengths = [0, 1, 200, 3000, 65_536, 65_537, 300_000];
        let total = 70u32;
        let rpcs = [one.rpc.clone(), two.rpc.clone()];
        for (from, to, from_id, to_id) in [(&rpcs[0], &mut two, 1, 2), (&rpcs[1], &mut one, 2, 1)] {
            for lane in Lane::ALL {
                for number in 0..total {
                    let message = numbered(number, lengths[number as usize % lengths.len()]);
                    from.send(to_id, lane, message).unwrap();
                }
            }
            let mut next = [0; 2];
            while next != [total; 2] {
                let (sender, lane, message) = to.message().await;
                assert_eq!(sender, from_id);
                let number = next[lane as usize];
                assert!(
                    message == numbered(number, lengths[number as usize % lengths.len()]),
                    "{lane} {number}"
                );
                next[lane as usize] += 1;
            }
        }
    }
}

#[tokio::test]
async fn up_carries_the_hello() {
    let mut one = Node::start(config(1, secret(1)));
    let mut two = Node::start(config(2, secret(1)));
    introduce(&one, 1, &two, 2);
    for (node, other) in [(&mut one, 2), (&mut two, 1)] {
        let up = |event| match event {
            Event::Up { peer, .. } => Some(peer),
            _ => None,
        };
        let peer = node.find(up).await;
        assert_eq!((peer.node, peer.name, peer.boot), (other, format!("n{other}"), 1));
        assert_eq!((peer.incarnation, peer.recovered_lsn), (100 + u64::from(other), 77));
        assert_eq!(peer.advertised, format!("rows of n{other}"));
    }
}

#[tokio::test]
async fn three_nodes_connect_each_with_each() {
    let mut nodes: Vec<Node> = (1..=3).map(|id| Node::start(config(id, secret(1)))).collect();
    let rows: Vec<_> = nodes.iter().zip(1..).map(|(node, id)| address(id, node)).collect();
    nodes.iter().for_each(|node| node.rpc.set_peers(rows.clone()));
    for (node, id) in nodes.iter_mut().zip(1u16..) {
        let mut up = Vec::new();
        while up.len() < 4 {
            match node.next().await {
                Event::Up { peer, lane } => up.push((peer.node, lane)),
                // A listener may not know its peers yet when the first dials.
                Event::Refused { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        up.sort();
        let others = (1..=3).filter(|other| *other != id);
        let expected: Vec<_> = others.flat_map(|other| Lane::ALL.map(|lane| (other, lane))).collect();
        assert_eq!(up, expected, "exactly one connection for each lane and pair");
    }
}

#[tokio::test]
async fn restart_is_noticed_at_once_and_dialled_again() {
    let (mut one, two) = pair(secret(1)).await;
    two.rpc.shutdown().await;
    let mut down = 0;
    while down < 2 {
        if let Event::Down { node, reason, .. } = one.next().await {
            assert!(node == 2 && matches!(reason, DownReason::Closed | DownReason::Broken(_)), "{reason:?}");
            down += 1;
        }
    }
    assert_eq!(one.rpc.send(2, Lane::Log, Bytes::new()), Err(SendError::NotConnected));

    let mut again = Node::start(config(2, secret(1)));
    introduce(&one, 1, &again, 2);
    one.both_up(2).await;
    again.both_up(1).await;
    again.rpc.send(1, Lane::Log, Bytes::from_static(b"back")).unwrap();
    assert_eq!(one.message().await.2, "back");
}

#[tokio::test]
async fn dialler_that_restarts_is_seated_again() {
    let (one, mut two) = pair(secret(1)).await;
    drop(one);
    let mut again = Node::start(config(1, secret(1)));
    introduce(&again, 1, &two, 2);
    again.both_up(2).await;
    two.both_up(1).await;
}

#[tokio::test]
async fn dropping_the_last_handle_closes_everything() {
    let (one, mut two) = pair(secret(1)).await;
    let clone = one.rpc.clone();
    drop(one);
    // The events of the first are gone with it, its connections are not.
    clone.send(2, Lane::Log, Bytes::from_static(b"still here")).unwrap();
    assert_eq!(two.message().await.2, "still here");
    drop(clone);
    two.find(|event| matches!(event, Event::Down { .. }).then_some(())).await;
}

#[tokio::test]
async fn removed_peer_is_disconnected_and_not_dialled() {
    let (mut one, mut two) = pair(secret(1)).await;
    one.rpc.set_peers(vec![]);
    let down = |event| match event {
        Event::Down { reason, .. } => Some(reason),
        _ => None,
    };
    assert_eq!(one.find(down).await, DownReason::Removed);
    two.find(down).await;
    assert_eq!(one.rpc.send(2, Lane::Log, Bytes::new()), Err(SendError::NotConnected));
    assert!(one.rpc.status().is_empty());
}

#[tokio::test]
async fn bulk_message_of_64_mib_passes_while_heartbeats_flow() {
    let (mut one, mut two) = pair(secret(1)).await;
    let snapshot = numbered(1, 64 << 20);
    one.rpc.send(2, Lane::Bulk, snapshot.clone()).unwrap();
    let mut beats = 0;
    loop {
        one.rpc.send_urgent(2, Bytes::from_static(b"beat")).unwrap();
        let (_, lane, message) = two.message().await;
        if lane == Lane::Bulk {
            assert!(message == snapshot);
            break;
        }
        two.rpc.send_urgent(1, message).unwrap();
        assert_eq!(one.message().await.1, Lane::Log);
        beats += 1;
    }
    assert!(beats > 0, "no heartbeat came through while the bulk message was on its way");
}

#[tokio::test]
async fn heartbeat_overtakes_megabytes_on_its_own_lane() {
    // One thread: nothing is sent between two statements without an await.
    let (one, mut two) = pair(secret(1)).await;
    let idle = one.rpc.status()[0].log.sent_bytes;
    one.rpc.send(2, Lane::Log, numbered(1, 32 << 20)).unwrap();
    while one.rpc.status()[0].log.sent_bytes == idle {
        tokio::task::yield_now().await;
    }
    assert!(one.rpc.status()[0].log.queued_bytes > 32 << 20, "the long message is on its way");
    one.rpc.send_urgent(2, Bytes::from_static(b"beat")).unwrap();
    assert_eq!(two.message().await.2, "beat");
    assert_eq!(two.message().await.2.len(), 4 + (32 << 20));
}

#[tokio::test]
async fn full_queue_refuses_and_drains_again() {
    let mut limits = config(1, secret(1));
    limits.limits.log_queue_bytes_max = 1 << 20;
    let one = Node::start(limits);
    let mut slow = config(2, secret(1));
    slow.limits.received_bytes_max = 1 << 20;
    let mut two = Node::with_events(slow, 4);
    introduce(&one, 1, &two, 2);
    two.both_up(1).await;
    let message = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    // Until not one more goes even after everyone had a chance to move bytes.
    let mut refused = 0;
    while refused < 1000 {
        match one.rpc.send(2, Lane::Log, message.clone()) {
            Ok(()) => (sent, refused) = (sent + 1, 0),
            Err(SendError::Full) => {
                refused += 1;
                tokio::task::yield_now().await;
            }
            Err(SendError::NotConnected) if sent == 0 => tokio::task::yield_now().await,
            Err(error) => panic!("{error} after {sent}"),
        }
        assert!(one.rpc.status()[0].log.queued_bytes <= 1 << 20);
    }
    one.rpc.send_urgent(2, message.clone()).unwrap();
    for number in 0..=sent {
        assert_eq!(two.message().await.2, message, "message {number} of {sent}");
    }
    one.rpc.send(2, Lane::Log, message).unwrap();
}

#[tokio::test]
async fn received_bytes_are_bounded_until_their_owner_drops_them() {
    let mut slow = config(2, secret(1));
    slow.limits.received_bytes_max = 100_000;
    let mut one = Node::start(config(1, secret(1)));
    let mut two = Node::start(slow);
    introduce(&one, 1, &two, 2);
    one.both_up(2).await;
    two.both_up(1).await;
    for _ in 0..20 {
        one.rpc.send(2, Lane::Bulk, Bytes::from(vec![1; 30_000])).unwrap();
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        let credit = |event| match event {
            Event::Frame { credit, .. } => Some(credit),
            _ => None,
        };
        held.push(two.find(credit).await);
    }
    // A round trip on the other lane: had there been room for a fourth, it would have come by now.
    for _ in 0..50 {
        one.rpc.send(2, Lane::Log, Bytes::from_static(b"?")).unwrap();
        assert_eq!(two.message().await.1, Lane::Log);
        two.rpc.send(1, Lane::Log, Bytes::from_static(b"!")).unwrap();
        one.message().await;
    }
    held.clear();
    for _ in 0..17 {
        assert_eq!(two.message().await.1, Lane::Bulk);
    }
}

#[tokio::test]
async fn sends_that_cannot_be_are_refused() {
    let (one, _two) = pair(None).await;
    assert_eq!(one.rpc.send(9, Lane::Log, Bytes::new()), Err(SendError::NotConnected));
    let limit = config(1, None).limits.bulk_message_bytes_max;
    let long = Bytes::from(vec![0; limit + 1]);
    assert_eq!(one.rpc.send(2, Lane::Bulk, long.clone()), Err(SendError::TooLarge));
    assert_eq!(one.rpc.send_urgent(2, long.slice(..70_000)), Err(SendError::TooLarge));
    one.rpc.send(2, Lane::Bulk, long.slice(..limit)).unwrap();
    assert_eq!(one.rpc.send(2, Lane::Bulk, Bytes::new()), Err(SendError::Full));
}

#[tokio::test]
async fn node_without_a_cluster_connects_once_it_has_one() {
    let mut founding = config(1, secret(1));
    founding.me.cluster_id = None;
    let mut one = Node::start(founding);
    let mut two = Node::start(config(2, secret(1)));
    introduce(&one, 1, &two, 2);
    one.rpc.set_me(common::hello(1)).unwrap();
    one.both_up(2).await;
    two.both_up(1).await;
}
