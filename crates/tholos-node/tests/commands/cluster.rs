//! The cluster port: MOVED, and the map as Redis Cluster shows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Client, Cluster, check, flat};
use tholos_cluster::{Incarnation, NodeId};
use tholos_node::{Event, Node, Outcome, PeerMessage, Port, replica_of};
use tholos_paxos::Ballot;
use tholos_ring::ShardId;

const DISABLED: &str = "-ERR This instance has cluster support disabled";
const N1: &str = "c1f5d8afc37324701ef6a719a2981db20c1ffba9";

#[test]
fn the_gateway_has_no_cluster_support() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    for command in [
        "CLUSTER SLOTS",
        "CLUSTER SHARDS",
        "CLUSTER NODES",
        "CLUSTER LINKS",
        "CLUSTER MYSHARDID",
        "CLUSTER HELP",
        "CLUSTER MEET 1 2",
        "CLUSTER COUNTKEYSINSLOT 1",
        "CLUSTER GETKEYSINSLOT 1 1",
        "READONLY",
        "READWRITE",
        "ASKING",
    ] {
        check(&mut cluster, client, &[(command, DISABLED)]);
    }
    check(
        &mut cluster,
        client,
        &[
            ("CLUSTER KEYSLOT foo", ":12182"),
            ("CLUSTER MYID", &format!("$40 {N1}")),
            ("CLUSTER FOO", "-ERR unknown subcommand 'FOO'. Try CLUSTER HELP."),
            ("CLUSTER", "-ERR wrong number of arguments for 'cluster' command"),
        ],
    );
    assert!(cluster.ask(client, &["CLUSTER INFO"]).contains("\r\ncluster_enabled:0\r\ncluster_state:ok\r\n"));
}

#[test]
fn a_single_node_holds_all_slots() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Cluster);
    check(
        &mut cluster,
        client,
        &[
            ("CLUSTER KEYSLOT {user1}x", ":8106"),
            ("CLUSTER KEYSLOT user1", ":8106"),
            ("CLUSTER MYID", &format!("$40 {N1}")),
            ("CLUSTER SLOTS", &format!("*1 *3 :0 :16383 *4 $9 127.0.0.1 :7001 $40 {N1} *0")),
            (
                "CLUSTER NODES",
                &format!("$101 {N1} 127.0.0.1:7001@7101 myself,master - 0 0 1 connected 0-16383\n"),
            ),
            ("CLUSTER LINKS", "*0"),
            ("CLUSTER REPLICAS x", "-ERR Unknown node x"),
            (&format!("CLUSTER REPLICAS {N1}"), "*0"),
            ("READONLY", "+OK"),
            ("READWRITE", "+OK"),
            ("ASKING", "+OK"),
            ("CLUSTER FOO", "-ERR unknown subcommand 'FOO'. Try CLUSTER HELP."),
        ],
    );
    let refused = cluster.ask(client, &["CLUSTER MEET 127.0.0.1 7002"]);
    assert!(refused.starts_with("-ERR CLUSTER MEET is not supported: "), "{refused}");
    assert!(refused.contains("'tholos cluster status'"), "{refused}");
    let shards = flat(&cluster.ask(client, &["CLUSTER SHARDS"]));
    let node = format!(
        "*14 $2 id $40 {N1} $4 port :7001 $2 ip $9 127.0.0.1 $8 endpoint $9 127.0.0.1 $4 role $6 master \
         $18 replication-offset :"
    );
    assert!(shards.starts_with(&format!("*1 *4 $5 slots *2 :0 :16383 $5 nodes *1 {node}")), "{shards}");
    assert!(shards.ends_with(" $6 health $6 online"), "{shards}");
    let info = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n\
                cluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\ncluster_current_epoch:1\r\n\
                cluster_my_epoch:1\r\n";
    assert_eq!(cluster.ask(client, &["CLUSTER INFO"]), format!("${}\r\n{info}\r\n", info.len()));
    // RESP3 marks what is a map and what is text.
    cluster.ask(client, &["HELLO 3"]);
    assert!(cluster.ask(client, &["CLUSTER SLOTS"]).ends_with("%0\r\n"));
    assert!(cluster.ask(client, &["CLUSTER SHARDS"]).starts_with("*1\r\n%2\r\n$5\r\nslots\r\n"));
    assert!(cluster.ask(client, &["CLUSTER NODES"]).starts_with("=105\r\ntxt:"));
}

#[test]
fn keys_of_a_slot_are_counted_and_listed() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Cluster);
    for key in ["{user1}a", "{user1}b", "other"] {
        cluster.ask(client, &[&format!("SET {key} 1")]);
    }
    check(
        &mut cluster,
        client,
        &[
            ("CLUSTER COUNTKEYSINSLOT 8106", ":2"),
            ("CLUSTER COUNTKEYSINSLOT 1", ":0"),
            ("CLUSTER GETKEYSINSLOT 8106 0", "*0"),
            ("CLUSTER GETKEYSINSLOT 1 5", "*0"),
            ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
            ("CLUSTER COUNTKEYSINSLOT -1", "-ERR Invalid slot"),
            ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range"),
            ("CLUSTER GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys"),
            ("CLUSTER GETKEYSINSLOT 99999 1", "-ERR Invalid slot or number of keys"),
            ("CLUSTER GETKEYSINSLOT 1 x", "-ERR value is not an integer or out of range"),
        ],
    );
    let keys = cluster.ask(client, &["CLUSTER GETKEYSINSLOT 8106 10"]);
    assert!(keys.starts_with("*2\r\n") && keys.contains("{user1}a") && keys.contains("{user1}b"), "{keys}");
    assert!(cluster.ask(client, &["CLUSTER GETKEYSINSLOT 8106 1"]).starts_with("*1\r\n"));
}

/// Three nodes that hold all shards, with leaders.
fn three() -> Cluster {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    cluster
}

#[test]
fn a_node_has_one_role_everywhere() {
    let mut cluster = Cluster::start(5, 3, |_| {});
    cluster.wait_for_leaders();
    // The shards that the fifth led go to others, and it comes back as a mere follower.
    cluster.cut(4);
    cluster.advance(3000);
    cluster.mend();
    cluster.advance(1000);
    let client = cluster.connect(0, Port::Cluster);
    let (shards, nodes) = (cluster.ask(client, &["CLUSTER SHARDS"]), cluster.ask(client, &["CLUSTER NODES"]));
    let shown = slots(&mut cluster, client);
    assert_eq!(shards.matches("$6\r\nmaster\r\n").count(), 4, "{shards}");
    assert_eq!(shards.matches("$7\r\nreplica\r\n").count(), 1, "{shards}");
    for port in 7001..=7005 {
        assert_eq!(shards.matches(&format!(":{port}\r\n")).count(), 1, "{shards}");
        let line = nodes.lines().find(|line| line.contains(&format!(":{port}@"))).unwrap();
        assert_eq!(line.contains("slave "), port == 7005, "{nodes}");
        assert_eq!(shown.iter().any(|range| range.2[0] == port), port != 7005, "{shown:?}");
        assert_eq!(shown.iter().any(|range| range.2[1..].contains(&port)), port == 7005, "{shown:?}");
    }
    assert_eq!((shown[0].0, shown.last().unwrap().1), (0, 16383));
    assert!(shown.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0 && pair[0].2 != pair[1].2), "{shown:?}");
}

#[test]
fn the_gateway_serves_shards_that_its_node_does_not_hold() {
    let mut cluster = Cluster::start(5, 1, |_| {});
    cluster.wait_for_leaders();
    let clients: Vec<Client> = (0..5).map(|node| cluster.connect(node, Port::Gateway)).collect();
    for number in 0..50 {
        let (writer, reader) = (clients[number % 5], clients[(number + 1) % 5]);
        check(&mut cluster, writer, &[(&format!("SET k{number} {number}"), "+OK")]);
        let digits = if number < 10 { 1 } else { 2 };
        check(&mut cluster, reader, &[(&format!("GET k{number}"), &format!("${digits} {number}"))]);
    }
    check(&mut cluster, clients[0], &[("DBSIZE", ":50")]);
    let client = cluster.connect(0, Port::Cluster);
    let slot = |number: usize| tholos_ring::slot(format!("k{number}").as_bytes()).number();
    let shown = slots(&mut cluster, client);
    for number in 0..50 {
        let slot = slot(number);
        let range = shown.iter().find(|range| (range.0..=range.1).contains(&slot)).unwrap();
        let expected = match range.2[0] {
            7001 => String::from(":1"),
            port => format!("-MOVED {slot} 127.0.0.1:{port}"),
        };
        check(&mut cluster, client, &[(&format!("EXISTS k{number}"), &expected)]);
    }
}

#[test]
fn a_change_of_leader_elsewhere_is_learned() {
    let mut cluster = Cluster::start(5, 3, |_| {});
    cluster.wait_for_leaders();
    let clients: Vec<Client> = (0..4).map(|node| cluster.connect(node, Port::Cluster)).collect();
    cluster.cut(4);
    cluster.advance(3000);
    let shown = slots(&mut cluster, clients[0]);
    assert_eq!((shown[0].0, shown.last().unwrap().1), (0, 16383));
    assert!(shown.iter().all(|range| !range.2.contains(&7005)), "{shown:?}");
    for client in &clients[1..] {
        assert_eq!(slots(&mut cluster, *client), shown);
    }
}

/// For each range of CLUSTER SLOTS its first and last slot and the ports of its nodes.
fn slots(cluster: &mut Cluster, client: Client) -> Vec<(u16, u16, Vec<u16>)> {
    let reply = cluster.ask(client, &["CLUSTER SLOTS"]);
    let numbers: Vec<u16> =
        reply.split("\r\n").filter_map(|line| line.strip_prefix(':')?.parse().ok()).collect();
    let mut ranges: Vec<(u16, u16, Vec<u16>)> = Vec::new();
    let mut numbers = numbers.into_iter().peekable();
    while let Some(first) = numbers.next() {
        let last = numbers.next().expect("a range has an end");
        let mut ports = Vec::new();
        while let Some(port) = numbers.next_if(|number| (7001..=7005).contains(number) && ports.len() < 3) {
            ports.push(port);
        }
        ranges.push((first, last, ports));
    }
    ranges
}

#[test]
fn all_nodes_show_the_same_leaders() {
    let mut cluster = three();
    let clients: Vec<Client> = (0..3).map(|node| cluster.connect(node, Port::Cluster)).collect();
    let shown = slots(&mut cluster, clients[0]);
    assert_eq!((shown[0].0, shown.last().unwrap().1), (0, 16383));
    assert!(shown.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{shown:?}");
    // Neighbours with the same leader are one range.
    assert!(shown.windows(2).all(|pair| pair[0].2 != pair[1].2), "{shown:?}");
    for client in &clients[1..] {
        assert_eq!(slots(&mut cluster, *client), shown);
    }
    for (first, last, ports) in shown {
        // Every node leads here, and a client takes a node for a leader or for a replica, never for both.
        assert_eq!(ports.len(), 1, "{ports:?}");
        let leader = &cluster.nodes[usize::from(ports[0]) - 7001];
        for slot in [first, last] {
            let shard = tholos_ring::ShardId(slot / 1024);
            assert!(leader.shard(shard).unwrap().group.serving(), "{shard}");
        }
    }
}

/// R21: whoever comes in a node's place with another directory says nothing for it, until the node itself is back.
#[test]
fn who_has_another_incarnation_is_not_heard() {
    let mut cluster = three();
    let node = NodeId(2);
    let own = cluster.nodes[0].map().node(node).unwrap().incarnation;
    let up = |incarnation| Event::PeerUp { node, incarnation };
    let waits_for = |cluster: &mut Cluster, heard| {
        for _ in 0..100 {
            cluster.advance(10);
            if cluster.nodes[0].detector().hears_node(node) == heard {
                return true;
            }
        }
        false
    };
    cluster.handle(0, up(Incarnation(own.0 + 1)));
    assert!(waits_for(&mut cluster, false), "its heartbeats do not count");
    cluster.handle(0, up(own));
    assert!(waits_for(&mut cluster, true));
}

/// A node that has left the map, or is not in it yet, has no address here: nobody can be sent there.
#[test]
fn no_client_is_sent_to_a_leader_that_the_map_does_not_name() {
    const QUESTION: u64 = 1 << 63;
    let mut cluster = three();
    let client = cluster.connect(0, Port::Cluster);
    let slot = tholos_ring::slot(b"k");
    let shard = cluster.nodes[0].map().shard_of_key(b"k");
    let hear = |cluster: &mut Cluster, node: u16, round: u64| {
        let leader = Some((NodeId(node), Ballot { round, replica: replica_of(NodeId(node)) }));
        let (request, boot) = (QUESTION | u64::from(shard.0), cluster.nodes[0].gateway().boot());
        let message = PeerMessage::Answer { request, boot, outcome: Outcome::NotLeader { leader } };
        cluster.handle(0, Event::Peer { from: NodeId(2), message });
    };
    hear(&mut cluster, 9, 1000);
    assert_eq!(cluster.ask(client, &["GET k"]), "");
    hear(&mut cluster, 3, 1001);
    cluster.advance(100);
    assert_eq!(cluster.read(client), format!("-MOVED {} 127.0.0.1:7003\r\n", slot.number()));
}

/// R16: nor does it lose writes. What such a gateway says of the time until which a write may be applied would be over for the leader, and
/// each write to a shard of which it has no replica would be refused for ever.
#[test]
fn a_gateway_whose_clock_is_far_behind_writes_to_all_shards() {
    let mut cluster = Cluster::start(5, 3, |_| {});
    cluster.clock_behind = |at| if at == 4 { 3_600_000 } else { 0 };
    cluster.wait_for_leaders();
    cluster.advance(1000);
    let client = cluster.connect(4, Port::Gateway);
    for key in 0..20 {
        cluster.send(client, &[&format!("SET key:{key} {key}")]);
        cluster.advance(200);
        assert_eq!(flat(&cluster.read(client)), "+OK", "key:{key}");
    }
}

#[test]
fn a_key_of_another_leader_is_moved() {
    let mut cluster = three();
    let client = cluster.connect(0, Port::Cluster);
    let by_key: BTreeMap<String, u16> = (0..50)
        .map(|number| {
            let key = format!("k{number}");
            let slot = tholos_ring::slot(key.as_bytes()).number();
            let ranges = slots(&mut cluster, client);
            let range = ranges.iter().find(|range| (range.0..=range.1).contains(&slot)).unwrap();
            (key, range.2[0])
        })
        .collect();
    assert!(by_key.values().any(|port| *port == 7001) && by_key.values().any(|port| *port != 7001));
    for (key, port) in &by_key {
        let slot = tholos_ring::slot(key.as_bytes()).number();
        let moved = format!("-MOVED {slot} 127.0.0.1:{port}");
        let here = *port == 7001;
        let expected = |reply: &'static str| if here { reply } else { &moved }.to_string();
        check(
            &mut cluster,
            client,
            &[
                (&format!("SET {key} 1"), &expected("+OK")),
                (&format!("GET {key}"), &expected("$1 1")),
                (&format!("CLUSTER COUNTKEYSINSLOT {slot}"), &expected(":1")),
                ("MULTI", "+OK"),
                // As in Redis, known when it is queued.
                (&format!("INCR {key}"), &expected("+QUEUED")),
            ],
        );
        let exec =
            if here { "*1 :2" } else { "-EXECABORT Transaction discarded because of previous errors." };
        check(&mut cluster, client, &[("EXEC", exec)]);
    }
    // The gateway of any node takes any key; DBSIZE there is all, on the cluster port what this node leads.
    let led = by_key.values().filter(|port| **port == 7001).count();
    check(&mut cluster, client, &[("DBSIZE", &format!(":{led}"))]);
    let gateway = cluster.connect(1, Port::Gateway);
    for key in by_key.keys() {
        check(&mut cluster, gateway, &[(&format!("SET {key} 1"), "+OK")]);
    }
    check(&mut cluster, gateway, &[("DBSIZE", ":50")]);
    cluster.ask(client, &["FLUSHALL"]);
    check(&mut cluster, gateway, &[("DBSIZE", &format!(":{}", 50 - led))]);
}

#[test]
fn nodes_have_one_line_each() {
    let mut cluster = three();
    let client = cluster.connect(1, Port::Cluster);
    let nodes = cluster.ask(client, &["CLUSTER NODES"]);
    let lines: Vec<Vec<&str>> =
        nodes.lines().skip(1).filter(|line| !line.is_empty()).map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 3, "{nodes}");
    let mut covered = 0;
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line[1], format!("127.0.0.1:{}@{}", 7001 + at, 7101 + at));
        assert!(["master", "myself,master", "slave", "myself,slave"].contains(&line[2]), "{nodes}");
        assert_eq!(line[2].starts_with("myself"), at == 1, "{nodes}");
        assert_eq!(line[7], "connected");
        for range in &line[8..] {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            covered += last.parse::<u32>().unwrap() - first.parse::<u32>().unwrap() + 1;
        }
    }
    assert_eq!(covered, 16384, "{nodes}");
    let leader = lines.iter().find(|line| line.len() > 8).unwrap()[0];
    let replicas = cluster.ask(client, &[&format!("CLUSTER REPLICAS {leader}")]);
    assert!(replicas.starts_with("*2\r\n"), "{replicas}");
    assert_eq!(replicas.matches(&format!(" {leader} 0 0 1 connected")).count(), 2, "{replicas}");
    assert!(cluster.ask(client, &["CLUSTER LINKS"]).starts_with("*2\r\n*4\r\n$9\r\ndirection\r\n"));
}

#[test]
fn a_lost_node_is_shown_as_such() {
    let mut cluster = three();
    cluster.cut(2);
    for _ in 0..40 {
        // No slot is without a node that may be asked, and after its time-out none is on the lost one.
        cluster.advance(10);
        let client = cluster.connect(0, Port::Cluster);
        let shown = slots(&mut cluster, client);
        assert_eq!((shown[0].0, shown.last().unwrap().1), (0, 16383), "{shown:?}");
        assert!(shown.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{shown:?}");
    }
    let client = cluster.connect(0, Port::Cluster);
    assert!(slots(&mut cluster, client).iter().all(|range| !range.2.contains(&7003)));
    // Its leaderships go to others.
    cluster.advance(3000);
    let client = cluster.connect(0, Port::Cluster);
    let nodes = cluster.ask(client, &["CLUSTER NODES"]);
    let line = nodes.lines().find(|line| line.contains(":7003@")).unwrap();
    assert!(line.contains(",fail? ") && line.ends_with(" disconnected"), "{nodes}");
    let shown = slots(&mut cluster, client);
    assert!(shown.iter().all(|range| !range.2.contains(&7003)), "{shown:?}");
    assert_eq!((shown[0].0, shown.last().unwrap().1), (0, 16383), "{shown:?}");
    assert!(flat(&cluster.ask(client, &["CLUSTER SHARDS"])).contains("$6 health $4 fail"));
    assert!(cluster.ask(client, &["CLUSTER INFO"]).contains("cluster_state:ok\r\n"));
    // The lost one knows of no leader after a while, and says so.
    let lost = cluster.connect(2, Port::Cluster);
    let info = cluster.ask(lost, &["CLUSTER INFO"]);
    assert!(!info.contains("cluster_slots_ok:16384"), "{info}");
}

#[test]
fn without_leaders_the_cluster_is_down() {
    let mut cluster = Cluster::start(3, 3, |_| {});
    for node in 0..3 {
        cluster.cut(node);
    }
    cluster.advance(1000);
    let client = cluster.connect(0, Port::Cluster);
    let info = cluster.ask(client, &["CLUSTER INFO"]);
    assert!(
        info.contains("cluster_state:fail\r\n") && info.contains("cluster_slots_fail:16384\r\n"),
        "{info}"
    );
    // Clients give up on a map with holes: they are to come here and wait.
    assert_eq!(slots(&mut cluster, client), [(0, 16383, vec![7001])]);
    check(&mut cluster, client, &[("PING", "+PONG")]);
    for port in [Port::Gateway, Port::Cluster] {
        let client = cluster.connect(0, port);
        cluster.send(client, &["SET a 1", "GET a", "PING"]);
        cluster.advance(4900);
        assert_eq!(cluster.read(client), "");
        cluster.advance(6000);
        let replies = cluster.read(client);
        let lines: Vec<&str> = replies.lines().collect();
        assert!(
            lines[0].starts_with("-CLUSTERDOWN ") && lines[0].contains("nothing was written"),
            "{replies}"
        );
        assert!(lines[1].starts_with("-CLUSTERDOWN "), "{replies}");
        assert_eq!(lines[2], "+PONG");
    }
}

/// Idle shards send nothing, write nothing, and miss their leader as soon as the others do.
#[test]
fn idle_shards_are_silent_and_awake() {
    let mut cluster = three();
    let client = cluster.connect(0, Port::Gateway);
    cluster.ask(client, &["SET k v"]);
    // The states are compared, leaders are where the map wants them, and the meta group has forgotten the sessions of what it
    // was asked for that: after a minute, by a Tick.
    cluster.advance(70_000);
    let count = |cluster: &Cluster| (cluster.shard_messages, (0..3).map(|at| cluster.last_append(at)).sum());
    let before: (usize, u64) = count(&cluster);
    cluster.advance(60_000);
    assert_eq!(count(&cluster), before);
    // Sooner than any of them is looked at for no reason.
    cluster.cut(2);
    cluster.advance(500);
    let leads = |node: usize| {
        let shards = (0..16).filter_map(|shard| cluster.nodes[node].shard(ShardId(shard)));
        shards.filter(|shard| shard.group.serving()).count()
    };
    assert_eq!((leads(0) + leads(1), leads(2)), (16, 0));
}

/// Without a further write, the leader of an idle shard lets time pass once its sessions' records are over (R18), on all
/// replicas, and says nothing more after that (R17).
#[test]
fn an_idle_shard_forgets_its_sessions() {
    let mut cluster = three();
    let records = |cluster: &Cluster| -> Vec<usize> {
        let of = |node: &Node| -> usize {
            (0..16).filter_map(|shard| node.shard(ShardId(shard))).map(|shard| shard.sessions.len()).sum()
        };
        cluster.nodes.iter().map(of).collect()
    };
    cluster.advance(60_000);
    for number in 0..40 {
        let client = cluster.connect(number % 3, Port::Gateway);
        cluster.ask(client, &[&format!("SET key:{number} v")]);
    }
    cluster.advance(1000);
    assert_eq!(records(&cluster), [40; 3]);
    let said = |cluster: &Cluster| (cluster.shard_messages, (0..3).map(|at| cluster.last_append(at)).sum());
    let before: (usize, u64) = said(&cluster);
    cluster.advance(8000);
    assert_eq!((records(&cluster), said(&cluster)), (vec![40; 3], before), "nothing is due");
    cluster.advance(4000);
    assert_eq!(records(&cluster), [0; 3]);
    let after = said(&cluster);
    cluster.advance(60_000);
    assert_eq!(said(&cluster), after, "nothing is due any more");
}

/// Others judge leaders by whom they hear: a node says so at once when that has changed, and not with the next heartbeat
/// that is due (R9).
#[test]
fn whom_a_node_hears_is_told_at_once() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let mut cluster = three();
    cluster.lost = |message| {
        let misses_one = matches!(message, PeerMessage::Heartbeat(beat) if beat.heard.len() == 2);
        TOLD.fetch_add(usize::from(misses_one), Ordering::Relaxed);
        false
    };
    cluster.cut(2);
    while cluster.nodes[0].detector().hears_node(NodeId(3)) {
        assert_eq!(TOLD.load(Ordering::Relaxed), 0);
        cluster.advance(10);
    }
    assert_ne!(TOLD.load(Ordering::Relaxed), 0);
}

#[test]
fn writes_go_on_when_a_node_is_lost() {
    let mut cluster = three();
    let clients: Vec<Client> = (0..2).map(|node| cluster.connect(node, Port::Cluster)).collect();
    let mut number = 0;
    // When each client sent what it waits for.
    let mut waits: [Option<u32>; 2] = [None, None];
    for step in 0..200 {
        if step == 50 {
            cluster.cut(2);
        }
        for (client, waits) in clients.iter().zip(&mut waits) {
            for _ in 0..100 {
                if waits.is_none() {
                    number += 1;
                    cluster.send(*client, &[&format!("SET k{number} v")]);
                    *waits = Some(step);
                }
                let reply = cluster.read(*client);
                if reply.is_empty() {
                    break;
                }
                assert!(reply.starts_with("+OK") || reply.starts_with("-MOVED"), "{reply}");
                *waits = None;
            }
            assert!(waits.is_none_or(|since| step - since < 60), "a write waits for 600 ms at step {step}");
        }
        cluster.advance(10);
    }
}
