//! Replica sets that change while clients are served (R6, R7).

use tholos_cluster::NodeId;
use tholos_node::{
    Effects, Event, LogRoom, Node, NodeConfig, Notice, Now, OrderError, PeerMessage, Port, ReplicaOrder,
};
use tholos_paxos::{
    Ballot, ChangeError, Checkpoint, Index, Message, Millis, MoveId, Record, ReplicaId, Serial,
};
use tholos_ring::ShardId;

use crate::support::{Client, Cluster};

/// The shard of the key `k`.
const SHARD: ShardId = ShardId(7);

/// Five nodes, three replicas of each shard; the nodes of [`SHARD`]'s founders first.
fn cluster() -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::start(5, 3, |_| {});
    cluster.wait_for_leaders();
    let founders = cluster.nodes[0].map().replica_set(SHARD).to_vec();
    let others = (1..=5).map(NodeId).filter(|node| !founders.contains(node)).collect::<Vec<_>>();
    (cluster, [founders, others].concat())
}

fn at(node: NodeId) -> usize {
    usize::from(node.0) - 1
}

fn leads(node: &Node) -> bool {
    node.shard(SHARD).is_some_and(|shard| shard.group.serving())
}

fn leader(cluster: &Cluster) -> usize {
    cluster.nodes.iter().position(leads).expect("somebody leads")
}

/// Orders it of the leader, and gives it time.
fn order(cluster: &mut Cluster, voters: &[NodeId], learners: &[NodeId]) {
    let leader = leader(cluster);
    let number = cluster.nodes[leader].shard(SHARD).expect("held").group.config().number;
    let (voters, learners) = (voters.to_vec(), learners.to_vec());
    let order = ReplicaOrder { shard: SHARD, number, move_id: MoveId(number + 100), voters, learners };
    cluster.handle(leader, Event::ChangeReplicas(order));
    cluster.advance(500);
    let changed = Notice::ReplicasChanged { shard: SHARD, number: number + 1, move_id: MoveId(number + 100) };
    assert!(cluster.notices.iter().any(|(_, notice)| *notice == changed), "{changed:?}");
}

/// A client of each node writes and reads.
fn check_served(cluster: &mut Cluster, round: u64) {
    for node in 0..cluster.nodes.len() {
        let client: Client = cluster.connect(node, Port::Gateway);
        let mut reply = cluster.ask(client, &["INCR k"]);
        // A node that has just lost its replica has to ask who leads.
        for _ in 0..100 {
            if reply.is_empty() {
                cluster.advance(10);
                reply = cluster.read(client);
            }
        }
        assert_eq!(reply, format!(":{}\r\n", round * 5 + node as u64 + 1), "at node {node} in round {round}");
    }
}

#[test]
fn a_shard_moves_to_other_nodes_while_it_serves() {
    let (mut cluster, nodes) = cluster();
    let [a, b, c, d, e] = nodes[..] else { panic!("five nodes") };
    check_served(&mut cluster, 0);
    order(&mut cluster, &[a, b, c], &[d]);
    check_served(&mut cluster, 1);
    order(&mut cluster, &[a, b, d], &[]);
    check_served(&mut cluster, 2);
    order(&mut cluster, &[a, b, d], &[e]);
    // The leader goes, whichever it is, and so does every founder in the end.
    order(&mut cluster, &[d, e], &[]);
    assert!([at(d), at(e)].contains(&leader(&cluster)));
    check_served(&mut cluster, 3);
    // One that was removed comes back, under a new id.
    order(&mut cluster, &[d, e], &[a]);
    order(&mut cluster, &[d, e, a], &[]);
    check_served(&mut cluster, 4);
    let shard = cluster.nodes[at(a)].shard(SHARD).expect("held");
    assert!(shard.has_vote());
    assert_eq!(shard.group.me(), ReplicaId::new(a.0, Serial(5)), "by the fifth change of the set");
    assert_eq!(cluster.nodes[at(b)].replica_nodes(SHARD), [d, e], "as it was when it was removed");
    assert_eq!(cluster.nodes[at(a)].replica_nodes(SHARD), [d, e, a]);
}

/// Whoever the clients ask, whether it has a replica that was removed, one that stays, a new one or none.
#[test]
fn what_waits_while_a_leader_is_removed_is_answered_soon() {
    let (mut cluster, nodes) = cluster();
    let [a, b, c, d, _] = nodes[..] else { panic!("five nodes") };
    check_served(&mut cluster, 0);
    order(&mut cluster, &[a, b, c], &[d]);
    let gone = leader(&cluster);
    let stay: Vec<NodeId> = [a, b, c, d].into_iter().filter(|node| at(*node) != gone).collect();
    let number = cluster.nodes[gone].shard(SHARD).expect("held").group.config().number;
    let order =
        ReplicaOrder { shard: SHARD, number, move_id: MoveId(9), voters: stay.clone(), learners: Vec::new() };
    // The election of the next one takes a while, in which everybody asks in vain.
    cluster.held_up = |_, _, message| {
        matches!(message, PeerMessage::Paxos { shard: SHARD, message: Message::Promise { .. }, .. })
    };
    cluster.handle(gone, Event::ChangeReplicas(order));
    for _ in 0..10 {
        if leads(&cluster.nodes[gone]) {
            cluster.advance(10);
        }
    }
    assert!(!leads(&cluster.nodes[gone]));
    let clients: Vec<Client> = (0..5).map(|node| cluster.connect(node, Port::Gateway)).collect();
    for client in &clients {
        cluster.send(*client, &["INCR k"]);
    }
    cluster.advance(20);
    cluster.release_mail();
    let leader_now = leader(&cluster);
    assert!(leader_now != gone && stay.iter().any(|node| at(*node) == leader_now));
    // Two may have to be asked who leads since.
    cluster.advance(20);
    let replies: Vec<String> = clients.iter().map(|client| cluster.read(*client)).collect();
    assert!(replies.iter().all(|reply| reply.starts_with(':')), "{replies:?}");
}

#[test]
fn replicas_that_joined_come_back_under_their_ids() {
    let (mut cluster, nodes) = cluster();
    let [a, b, c, d, e] = nodes[..] else { panic!("five nodes") };
    check_served(&mut cluster, 0);
    order(&mut cluster, &[a, b, c], &[d, e]);
    order(&mut cluster, &[c, d, e], &[]);
    check_served(&mut cluster, 1);
    for node in 0..5 {
        cluster.restart(node);
    }
    cluster.wait_for_leaders();
    assert_eq!(cluster.nodes[at(d)].shard(SHARD).expect("held").group.me(), ReplicaId::new(d.0, Serial(1)));
    assert!([at(c), at(d), at(e)].contains(&leader(&cluster)));
    cluster.advance(500);
    check_served(&mut cluster, 2);
}

#[test]
fn orders_that_cannot_be_are_refused() {
    let (mut cluster, nodes) = cluster();
    let voters = nodes[..3].to_vec();
    let leader = leader(&cluster);
    let elsewhere = at(nodes[4]);
    for (node, number, learner, error) in [
        (leader, 0, NodeId(9), OrderError::UnknownNode(NodeId(9))),
        (leader, 1, nodes[3], OrderError::Group(ChangeError::NotCurrent { number: 0 })),
        (elsewhere, 0, nodes[3], OrderError::NotHeld),
    ] {
        let learners = vec![learner];
        let order =
            ReplicaOrder { shard: SHARD, number, move_id: MoveId(5), voters: voters.clone(), learners };
        cluster.handle(node, Event::ChangeReplicas(order));
        let refused = Notice::ChangeRefused { shard: SHARD, move_id: MoveId(5), error };
        assert!(cluster.notices.contains(&(node, refused.clone())), "{refused:?}");
    }
}

/// The log is released in batches, and the checkpoint of a replica that has joined may stand in one behind other records.
#[test]
fn records_before_a_replica_that_joined_are_passed_over() {
    let (cluster, nodes) = cluster();
    let me = ReplicaId::new(nodes[3].0, Serial(1));
    let recover = |records: Vec<Record>| {
        let map = cluster.nodes[0].map().clone();
        let mut node = Node::new(NodeConfig::new(nodes[3], 1, 7), map);
        for record in records {
            node.recover_record(SHARD, record, &mut |_, _| None)?;
        }
        node.finish_recovery(|_| false)?;
        Ok::<Option<ReplicaId>, String>(node.shard(SHARD).map(|shard| shard.group.me()))
    };
    let before =
        Record::Accepted { ballot: Ballot { round: 2, replica: me }, decided: Index(7), entries: Vec::new() };
    let checkpoint = Record::Checkpoint(Box::new(Checkpoint { joined: me, ..Checkpoint::default() }));
    assert_eq!(recover(vec![before.clone(), checkpoint]), Ok(Some(me)));
    let alone = recover(vec![before]);
    assert_eq!(alone, Err(format!("the log has records of {SHARD}, which this node does not hold")));
}

/// A replica that has joined and lost its records is brought back by its checkpoint alone, once that has released the records
/// before it. (Seed 702061 of the simulator: it was forgotten, began anew under the same id, and voted.)
#[test]
fn a_replica_that_joined_and_has_lost_its_records_is_not_forgotten() {
    let (cluster, nodes) = cluster();
    let me = ReplicaId::new(nodes[3].0, Serial(1));
    let start = |records: &[Record], rotten: bool| {
        let map = cluster.nodes[0].map().clone();
        let mut node = Node::new(NodeConfig::new(nodes[3], 1, 7), map);
        for record in records {
            node.recover_record(SHARD, record.clone(), &mut |_, _| None).expect("a record of its own");
        }
        node.finish_recovery(|_| rotten).expect("it starts, mute");
        let (mut now, mut out) =
            (Now { mono: Millis(1000), wall: Millis(1_700_000_000_000) }, Effects::default());
        node.start(now, &mut out);
        // With its log out of room whatever earlier boots have left is written anew.
        if let Some(last) = out.appends.last() {
            let seq = last.seq;
            node.handle(now, Event::Durable { seq }, &mut out);
        }
        node.handle(now, Event::LogRoom(LogRoom::Short), &mut out);
        now.mono = Millis(1010);
        node.handle(now, Event::Tick, &mut out);
        let held = node.shard(SHARD).map(|shard| (shard.group.me(), shard.group.repair().is_some()));
        (held, out.appends.into_iter().map(|append| append.record).collect::<Vec<_>>())
    };
    let promised = Record::Promised { ballot: Ballot { round: 2, replica: me } };
    let (held, first) = start(&[Record::Joined { replica: me }, promised], true);
    assert_eq!(held, Some((me, true)));
    let checkpoint = first.iter().position(|record| matches!(record, Record::Checkpoint(_)));
    let left = &first[checkpoint.expect("a checkpoint is due")..];
    assert!(matches!(left, [_, Record::Muted { .. }]), "{left:?}");
    let (held, second) = start(left, false);
    assert_eq!(
        (held, second.is_empty()),
        (Some((me, true)), false),
        "with all records before the checkpoint released"
    );
    // Until then who it is stands in the records before.
    let (held, third) = start(&[&[Record::Joined { replica: me }], &first[..1]].concat(), false);
    assert_eq!(held, Some((me, true)));
    let checkpoint = third.iter().position(|record| matches!(record, Record::Checkpoint(_)));
    let (held, _) = start(&third[checkpoint.expect("one is due, too")..], false);
    assert_eq!(held, Some((me, true)));
}
