//! What clients see when writes are refused, leaders change and answers are lost.

use std::cell::RefCell;
use std::sync::Arc;

use crate::support::{Client, Cluster, check, flat};
use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_node::{Ask, Event, Forward, LogRoom, Operation, Outcome, PeerMessage, Port};
use tholos_paxos::{Millis, Options};
use tholos_resp::Value;
use tholos_ring::{ShardId, shard_of, slot};

/// The one key of these tests.
const KEY: &str = "k";

fn three() -> Cluster {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    cluster
}

fn shard() -> ShardId {
    shard_of(slot(KEY.as_bytes()), 16)
}

/// The node that leads and serves [`KEY`]'s shard, of those not in `without`.
fn leader(cluster: &Cluster, without: Option<usize>) -> Option<usize> {
    let serves = |at: &usize| cluster.nodes[*at].shard(shard()).is_some_and(|shard| shard.group.serving());
    (0..cluster.nodes.len()).filter(|at| Some(*at) != without).find(serves)
}

fn wait_for_leader(cluster: &mut Cluster, without: usize) -> usize {
    for _ in 0..500 {
        if let Some(leader) = leader(cluster, Some(without)) {
            return leader;
        }
        cluster.advance(10);
    }
    panic!("no leader");
}

fn clients(cluster: &mut Cluster, port: Port) -> Vec<Client> {
    (0..cluster.nodes.len()).map(|node| cluster.connect(node, port)).collect()
}

#[test]
fn a_moved_client_may_come_back() {
    let mut cluster = three();
    let clients = clients(&mut cluster, Port::Cluster);
    let old = leader(&cluster, None).unwrap();
    for client in &clients {
        let reply = cluster.ask(*client, &["SET k 1"]);
        assert_eq!(reply.starts_with("-MOVED"), client.node != old, "{reply}");
    }
    cluster.cut(old);
    let new = wait_for_leader(&mut cluster, old);
    // What was moved was never written: it must not hold up what comes later.
    assert_eq!(flat(&cluster.ask(clients[new], &["INCR k"])), ":2");
}

#[test]
fn a_write_that_may_have_happened_is_not_moved() {
    let mut cluster = three();
    let old = leader(&cluster, None).unwrap();
    let client = cluster.connect(old, Port::Cluster);
    cluster.hold_disk(true);
    cluster.send(client, &["INCR k"]);
    // The others have the entry, and their answers are lost.
    cluster.cut(old);
    cluster.hold_disk(false);
    let new = wait_for_leader(&mut cluster, old);
    cluster.mend();
    cluster.advance(1000);
    // MOVED would say that nothing was done, and the client would do it again.
    assert_eq!(flat(&cluster.read(client)), ":1");
    let other = cluster.connect(new, Port::Cluster);
    check(&mut cluster, other, &[("GET k", "$1 1")]);
}

/// A client cannot ask elsewhere for a part of SCAN, and would get another node's whole keyspace for it.
#[test]
fn a_command_on_all_keys_is_not_moved() {
    for (command, reply) in
        [("DBSIZE", ":1"), ("SCAN 0", "*2 $1 0 *1 $1 k"), ("KEYS *", "*1 $1 k"), ("RANDOMKEY", "$1 k")]
    {
        let mut cluster = three();
        let old = leader(&cluster, None).unwrap();
        let client = cluster.connect(old, Port::Cluster);
        check(&mut cluster, client, &[("SET k 1", "+OK")]);
        // Its lease runs out, and it has not noticed yet that nobody hears it.
        cluster.cut(old);
        cluster.advance(250);
        cluster.send(client, &[command]);
        assert_eq!(cluster.read(client), "", "{command}");
        wait_for_leader(&mut cluster, old);
        cluster.mend();
        cluster.advance(1500);
        assert_eq!(flat(&cluster.read(client)), reply, "{command}");
    }
}

#[test]
fn a_read_is_not_older_than_the_one_before_it() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    let client = cluster.connect((leader + 1) % 3, Port::Gateway);
    let other = cluster.connect(leader, Port::Gateway);
    // The first read does not arrive, those after it do.
    cluster.lost = |message| match message {
        PeerMessage::Forward(forward) => {
            let operation = match &forward.ask {
                Ask::Read { operation } | Ask::ReplicaRead { operation } | Ask::Write { operation, .. } => {
                    operation
                }
            };
            operation.windows(4).any(|window| window == b"a{k}")
        }
        _ => false,
    };
    cluster.send(client, &["GET a{k}", "GET b{k}", "GET c{k}", "SET d{k} 1"]);
    check(&mut cluster, other, &[("MSET b{k} 1 c{k} 1", "+OK"), ("SET a{k} 1", "+OK")]);
    cluster.lost = |_| false;
    cluster.advance(2000);
    assert_eq!(flat(&cluster.read(client)), "$1 1 $1 1 $1 1 +OK");
}

#[test]
fn a_reply_too_long_to_be_passed_on_is_refused() {
    let mut cluster = Cluster::start(3, 3, |config| config.relayed_reply_bytes_max = 2 << 20);
    cluster.wait_for_leaders();
    let leader = leader(&cluster, None).unwrap();
    let client = cluster.connect((leader + 1) % 3, Port::Gateway);
    check(&mut cluster, client, &[("SETRANGE k 1048575 x", ":1048576")]);
    let refused = "-ERR the reply is longer than the 2 MiB that one node passes on to another: ask for less at once, \
                   or on the node that leads the shard; what this command writes was written";
    check(&mut cluster, client, &[("MGET k k", refused)]);
    assert_eq!(cluster.ask(client, &["MGET k"]).len(), "*1\r\n$1048576\r\n\r\n".len() + 1_048_576);
    let near = cluster.connect(leader, Port::Gateway);
    assert!(cluster.ask(near, &["MGET k k"]).starts_with("*2"));
    check(&mut cluster, client, &[("MULTI", "+OK"), ("SET a{k} 1", "+QUEUED"), ("MGET k k", "+QUEUED")]);
    check(&mut cluster, client, &[("EXEC", refused), ("GET a{k}", "$1 1")]);
}

/// Its heartbeats go on, and say that the disk does not (R9): it loses its leaderships within two election time-outs, and
/// nobody who writes fails.
#[test]
fn a_leader_whose_disk_stands_still_is_replaced() {
    let mut cluster = three();
    let clients = clients(&mut cluster, Port::Gateway);
    let old = leader(&cluster, None).unwrap();
    let at = clients[(old + 1) % 3];
    assert_eq!(flat(&cluster.ask(at, &["INCR k"])), ":1");
    cluster.stuck = Some(old);
    // Its own disk is one vote, so this is decided by the others.
    assert_eq!(flat(&cluster.ask(at, &["INCR k"])), ":2");
    cluster.advance(600);
    let new = leader(&cluster, Some(old)).expect("another leads");
    assert!(cluster.nodes[old].leads_nothing(), "it still leads something beside n{}", new + 1);
    assert_eq!(flat(&cluster.ask(at, &["INCR k"])), ":3");
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    let clients = clients(&mut cluster, Port::Gateway);
    check(&mut cluster, clients[leader], &[("SET k 1", "+OK")]);
    cluster.handle(leader, Event::LogRoom(LogRoom::Short));
    let refused = "-DISKFULL the log of this shard's leader has no room, nothing was written: free disk space or raise \
                   wal.bytes_max";
    for client in clients.clone() {
        for command in ["SET k 2", "DEL k"] {
            assert_eq!(flat(&cluster.ask(client, &[command])), refused, "{command} on {}", client.node);
        }
        let replies = flat(&cluster.ask(client, &["MULTI", "SET k 2", "EXEC", "SET k 3", "GET k"]));
        assert_eq!(replies, format!("+OK +QUEUED {refused} {refused} $1 1"));
        let reply = flat(&cluster.ask(client, &["FLUSHALL"]));
        assert!(reply.starts_with("-DISKFULL") && reply.ends_with("may have been written)"), "{reply}");
    }
    cluster.handle(leader, Event::LogRoom(LogRoom::Ample));
    // At once: what was refused left no hole in the clients' sessions.
    for client in clients {
        check(&mut cluster, client, &[("SET k 4", "+OK"), ("INCR k", ":5"), ("GET k", "$1 5")]);
    }
}

/// A follower's checkpoints release its log, and would wait behind entries for which there is no room. (Seed 704024 of the
/// simulator: its node stood still for good.)
#[test]
fn a_follower_whose_log_is_spent_takes_no_entries_until_there_is_room() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    let follower = (leader + 1) % 3;
    let clients = clients(&mut cluster, Port::Gateway);
    check(&mut cluster, clients[leader], &[("SET k 1", "+OK")]);
    cluster.advance(200);
    let last = |cluster: &Cluster, at: usize| {
        let group = &cluster.nodes[at].shard(shard()).expect("it has a replica").group;
        (group.accepted_index(), group.decided_index())
    };
    let before = last(&cluster, follower);
    assert_eq!(before, last(&cluster, leader));
    cluster.handle(follower, Event::LogRoom(LogRoom::Spent));
    for at in [leader, follower] {
        check(&mut cluster, clients[at], &[("INCR k", if at == leader { ":2" } else { ":3" })]);
    }
    cluster.advance(1000);
    assert_eq!(last(&cluster, follower), before, "the others decide without it");
    cluster.handle(follower, Event::LogRoom(LogRoom::Ample));
    cluster.advance(1000);
    assert_eq!(last(&cluster, follower), last(&cluster, leader), "it catches up");
    check(&mut cluster, clients[follower], &[("GET k", "$1 3")]);
}

thread_local!(static ANSWERS: RefCell<Vec<Outcome>> = const { RefCell::new(Vec::new()) });

/// A write of another node's client.
fn written() -> Forward {
    let mut operation = Vec::new();
    Operation::Command(["SET", KEY, "1"].map(Bytes::from).to_vec()).encode(&mut operation);
    let operation = Bytes::from(operation);
    let expires_at = Millis(u64::MAX);
    let ask = Ask::Write { session: 5, sequence: 1, acknowledged: 0, expires_at, operation };
    Forward { request: 7, boot: 9, shard: shard(), ask }
}

/// The leader, and what delivers it a write from another node, the same each time; what is answered is kept in [`ANSWERS`].
fn forwarded(cluster: &mut Cluster) -> (usize, impl Fn(&mut Cluster) + use<>) {
    let leader = leader(cluster, None).expect("somebody leads");
    let message = PeerMessage::Forward(written());
    cluster.lost = |message| {
        if let PeerMessage::Answer { boot: 9, outcome, .. } = message {
            ANSWERS.with_borrow_mut(|answers| answers.push(outcome.clone()));
        }
        false
    };
    let from = NodeId((leader + 1) as u16 % 3 + 1);
    (leader, move |cluster: &mut Cluster| {
        cluster.handle(leader, Event::Peer { from, message: message.clone() });
    })
}

/// Delivers a copy of the same that comes by a third node (R11).
fn deliver_relayed(cluster: &mut Cluster, leader: usize) {
    let forward = written();
    let [gateway, relay] = [1, 2].map(|more| NodeId((leader + more) as u16 % 3 + 1));
    let message = PeerMessage::Relayed { gateway, forward };
    cluster.handle(leader, Event::Peer { from: relay, message });
}

/// Found by seed 142 of the simulator: the refusal of a copy said that nothing was written, and the first one was.
#[test]
fn a_copy_of_a_write_that_was_taken_is_not_refused() {
    let mut cluster = three();
    let (leader, deliver) = forwarded(&mut cluster);
    cluster.hold_disk(true);
    deliver(&mut cluster);
    cluster.handle(leader, Event::LogRoom(LogRoom::Short));
    // Copies while the first is under way, one by another way, and one after it was applied: R18 answers all.
    deliver(&mut cluster);
    deliver_relayed(&mut cluster, leader);
    cluster.hold_disk(false);
    cluster.advance(100);
    deliver(&mut cluster);
    cluster.advance(100);
    assert_eq!(ANSWERS.take(), vec![Outcome::Done(Value::Simple("OK".into())); 4]);
}

/// Found by seed 1057: the first was refused, the disk had room again, and the copy was taken.
#[test]
fn a_copy_of_a_write_that_was_refused_is_not_taken() {
    let mut cluster = three();
    let (leader, deliver) = forwarded(&mut cluster);
    cluster.handle(leader, Event::LogRoom(LogRoom::Short));
    deliver(&mut cluster);
    cluster.handle(leader, Event::LogRoom(LogRoom::Ample));
    deliver(&mut cluster);
    cluster.advance(100);
    let answers = ANSWERS.take();
    let refused = |answer: &Outcome| matches!(answer, Outcome::Refused(Value::Error(why)) if why.starts_with(b"DISKFULL"));
    assert!(answers.len() == 2 && answers.iter().all(refused), "{answers:?}");
    let client = cluster.connect(leader, Port::Cluster);
    assert_eq!(cluster.ask(client, &["GET k"]), "$-1\r\n");
}

#[test]
fn a_pipeline_that_was_refused_in_part_leaves_no_hole() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    let client = cluster.connect((leader + 1) % 3, Port::Gateway);
    cluster.handle(leader, Event::LogRoom(LogRoom::Short));
    let many = vec!["INCR k"; 50];
    let replies = cluster.ask(client, &many);
    assert_eq!(replies.matches("-DISKFULL").count(), 50, "{replies}");
    cluster.handle(leader, Event::LogRoom(LogRoom::Ample));
    let expected: String = (1..=50).map(|number| format!(":{number}\r\n")).collect();
    assert_eq!(cluster.ask(client, &many), expected);
}

#[test]
fn the_leader_that_is_out_of_memory_refuses() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    let clients = clients(&mut cluster, Port::Gateway);
    check(&mut cluster, clients[leader], &[("SET k 1", "+OK")]);
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    cluster.ask(clients[leader], &["CONFIG SET maxmemory 1"]);
    cluster.advance(200);
    for client in clients.clone() {
        check(&mut cluster, client, &[("SET k 2", oom), ("INCR k", oom), ("GET k", "$1 1")]);
        check(&mut cluster, client, &[("MULTI", "+OK"), ("DEL other{k}", "+QUEUED"), ("EXEC", "*1 :0")]);
    }
    // Another one that is over is a minority and does not lead: that is its own affair.
    cluster.ask(clients[leader], &["CONFIG SET maxmemory 0"]);
    cluster.ask(clients[(leader + 1) % 3], &["CONFIG SET maxmemory 1"]);
    cluster.advance(200);
    for client in clients.clone() {
        check(&mut cluster, client, &[("SET k 2", "+OK")]);
    }
    cluster.ask(clients[(leader + 2) % 3], &["CONFIG SET maxmemory 1"]);
    cluster.advance(200);
    for client in clients {
        check(&mut cluster, client, &[("SET k 3", oom), ("DEL nosuch", ":0")]);
    }
}

#[test]
fn a_wait_ends_with_its_client() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    for client in clients(&mut cluster, Port::Gateway) {
        assert_eq!(flat(&cluster.ask(client, &["SET k 1", "WAIT 2 0", "WAIT 5 0"])), "+OK :2");
        cluster.advance(5000);
        let waits = |cluster: &Cluster| cluster.nodes[leader].shard(shard()).unwrap().durable_waits();
        assert_eq!(waits(&cluster), 1, "asked again, not twice");
        cluster.disconnect(client);
        cluster.advance(5000);
        assert_eq!(waits(&cluster), 0);
    }
}

#[test]
fn a_wait_asked_again_keeps_its_time() {
    let mut cluster = three();
    let leader = leader(&cluster, None).unwrap();
    let client = cluster.connect((leader + 1) % 3, Port::Gateway);
    assert_eq!(flat(&cluster.ask(client, &["SET k 1", "WAIT 5 4000"])), "+OK");
    cluster.advance(3900);
    assert_eq!(cluster.read(client), "");
    cluster.advance(200);
    assert_eq!(flat(&cluster.read(client)), ":2");
}

/// When copies of a write go to its leader, in milliseconds since the first one, while no answer comes; `event` happens after
/// so long.
fn sent_again(for_ms: u64, after_ms: u64, event: impl Fn(&mut Cluster, usize, usize)) -> Vec<u64> {
    let mut cluster = Cluster::start(3, 3, |config| config.request_timeout = Millis(60_000));
    cluster.wait_for_leaders();
    let leader = leader(&cluster, None).expect("somebody leads");
    // Not the one to which a leadership is handed over.
    let client = cluster.connect((leader + 2) % 3, Port::Gateway);
    let forwarded = |cluster: &Cluster| cluster.nodes[client.node].gateway().counters.forwarded;
    cluster.lost = |message| matches!(message, PeerMessage::Answer { .. });
    cluster.send(client, &["INCR k"]);
    let (began, mut times, mut known) = (cluster.now().mono, Vec::new(), forwarded(&cluster));
    let since = |cluster: &Cluster| cluster.now().mono.since(began).0;
    while since(&cluster) < for_ms {
        if since(&cluster) == after_ms {
            event(&mut cluster, client.node, leader);
        }
        cluster.advance(10);
        if std::mem::replace(&mut known, forwarded(&cluster)) < forwarded(&cluster) {
            times.push(since(&cluster));
        }
    }
    cluster.lost = |_| false;
    cluster.advance(20_000);
    assert_eq!(flat(&cluster.read(client)), ":1", "it was the same write");
    times
}

#[test]
fn a_request_without_an_answer_is_sent_again_after_twice_as_long_each_time() {
    let times = sent_again(33_000, u64::MAX, |_, _, _| {});
    let waits: Vec<u64> = times.iter().scan(0, |last, at| Some(at - std::mem::replace(last, *at))).collect();
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 8_000, 8_000], "{times:?}");
}

#[test]
fn a_request_is_sent_again_at_once_where_another_leads_or_the_link_is_back() {
    // Until when the next copy must be sent; the one after that comes soon as well.
    let check = |event: fn(&mut Cluster, usize, usize), latest: u64| {
        let times = sent_again(latest + 2_010, 3_300, event);
        assert_eq!(times[..2], [1_000, 3_000], "{times:?}");
        assert!(times[2] > 3_300 && times[2] <= latest, "{times:?}");
        assert!(times[3] - times[2] <= 2_000, "{times:?}");
    };
    // What was sent is lost with the connection.
    let breaks = |cluster: &mut Cluster, gateway: usize, leader: usize| {
        let node = NodeId(leader as u16 + 1);
        let incarnation = cluster.nodes[gateway].map().node(node).unwrap().incarnation;
        cluster.handle(gateway, Event::PeerDown { node });
        cluster.handle(gateway, Event::PeerUp { node, incarnation });
    };
    check(breaks, 3_400);
    // Nobody was heard for a while, though no connection broke.
    let is_cut_off = |cluster: &mut Cluster, gateway: usize, _: usize| {
        cluster.cut(gateway);
        cluster.advance(1_500);
        cluster.mend();
    };
    check(is_cut_off, 4_900);
    let resigns = |cluster: &mut Cluster, _: usize, leader: usize| cluster.handle(leader, Event::Resign);
    check(resigns, 3_400);
}

#[test]
fn watching_again_costs_nothing() {
    let mut cluster = Cluster::single();
    let (client, other) = (cluster.connect(0, Port::Gateway), cluster.connect(0, Port::Gateway));
    cluster.ask(client, &vec!["WATCH k"; 100]);
    let watched = |cluster: &Cluster| {
        let mut connections = cluster.nodes[0].gateway().connections();
        connections.find(|open| open.id == client.id).unwrap().watched.len()
    };
    assert_eq!(watched(&cluster), 1);
    // The first look counts.
    cluster.ask(other, &["SET k 1"]);
    assert_eq!(flat(&cluster.ask(client, &["WATCH k", "MULTI", "SET k 2", "EXEC"])), "+OK +OK +QUEUED *-1");
}

#[test]
fn what_is_watched_is_bounded() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let watch = |number: usize| format!("WATCH {{k}}{number}{}", "x".repeat(65_000));
    let refused =
        (0..300).map(|number| cluster.ask(client, &[&watch(number)])).position(|reply| reply != "+OK\r\n");
    assert_eq!(refused, Some((16 << 20) / 65_100));
    let reply = cluster.ask(client, &[&watch(300)]);
    assert_eq!(flat(&reply), "-ERR the keys watched by this connection are larger than 16 MiB");
    check(&mut cluster, client, &[("MULTI", "+OK"), ("SET {k} 1", "+QUEUED"), ("EXEC", "*1 +OK")]);
}

#[test]
fn a_wait_follows_its_shard() {
    let mut cluster = three();
    let old = leader(&cluster, None).unwrap();
    let client = cluster.connect(old, Port::Cluster);
    check(&mut cluster, client, &[("SET k 1", "+OK")]);
    cluster.handle(old, Event::Resign);
    cluster.advance(1000);
    wait_for_leader(&mut cluster, old);
    // Another connection has written nothing that could be waited for.
    assert_eq!(flat(&cluster.ask(client, &["WAIT 2 1000"])), ":2");
    assert!(cluster.ask(client, &["GET k"]).starts_with("-MOVED"));
}

#[test]
fn who_resigns_is_not_made_leader_again() {
    let mut cluster = three();
    cluster.advance(40_000);
    cluster.handle(0, Event::Resign);
    cluster.advance(2000);
    for _ in 0..500 {
        cluster.advance(10);
        assert!(cluster.nodes[0].leads_nothing());
    }
}

#[test]
fn more_requests_than_a_node_may_have_open_are_refused_and_nothing_is_lost() {
    let value = "v".repeat(1000);
    let write = format!("SET k {value}");
    // By bytes: three of them are open when the fourth comes, or a few that are small are.
    for (requests, bytes, taken) in [(3, usize::MAX, 3), (usize::MAX, 2500, 3), (0, 0, 0)] {
        let mut cluster = Cluster::start(3, 3, |config| {
            config.requests_max = requests;
            config.requests_bytes_max = bytes;
        });
        cluster.wait_for_leaders();
        let clients: Vec<Client> = (0..6).map(|_| cluster.connect(0, Port::Gateway)).collect();
        // Nobody answers n1.
        cluster.cut(0);
        let replies: Vec<String> =
            clients.iter().map(|client| flat(&cluster.ask(*client, &[&write]))).collect();
        let busy =
            "-BUSY too many requests of this node's clients wait for their shards, nothing was written";
        let refused = replies.iter().filter(|reply| reply.starts_with(busy)).count();
        assert_eq!((refused, cluster.nodes[0].gateway().requests_open()), (6 - taken, taken));
        assert_eq!(cluster.nodes[0].gateway().counters.shed, refused as u64);
        let reply = flat(&cluster.ask(clients[5], &["GET k"]));
        assert!(reply.ends_with("nothing was read: try again later"), "{reply}");
        // What was taken is answered, and then there is room again.
        cluster.mend();
        cluster.advance(3_000);
        for client in &clients[..taken] {
            assert_eq!(flat(&cluster.read(*client)), "+OK");
        }
        if taken > 0 {
            assert_eq!(flat(&cluster.ask(clients[5], &[&write])), "+OK");
        }
    }
}

#[test]
fn who_leaves_makes_room() {
    let mut cluster = Cluster::start(3, 3, |config| config.requests_max = 1);
    cluster.wait_for_leaders();
    let (first, second) = (cluster.connect(0, Port::Gateway), cluster.connect(0, Port::Gateway));
    cluster.cut(0);
    assert_eq!(cluster.ask(first, &["SET k 1"]), "");
    assert!(cluster.ask(second, &["SET k 2"]).starts_with("-BUSY"));
    cluster.disconnect(first);
    assert_eq!(cluster.ask(second, &["SET k 2"]), "", "it is taken, and waits");
}

/// 64 clients of one node that each send so many writes at once, to shards that do not answer; how many are open then, and how
/// many were refused.
fn pipelines(cluster: &mut Cluster, each: usize) -> (Vec<Client>, usize, u64) {
    let writes: Vec<String> = (0..each).map(|number| format!("SET k{number} v")).collect();
    let writes: Vec<&str> = writes.iter().map(String::as_str).collect();
    let clients: Vec<Client> = (0..64).map(|_| cluster.connect(0, Port::Gateway)).collect();
    cluster.cut(0);
    clients.iter().for_each(|client| cluster.send(*client, &writes));
    let gateway = cluster.nodes[0].gateway();
    (clients, gateway.requests_open(), gateway.counters.shed)
}

#[test]
fn a_connection_that_waits_waits_with_its_next_command_too_when_a_node_is_behind() {
    let mut cluster = three();
    let (clients, open, refused) = pipelines(&mut cluster, 100);
    assert_eq!((open, refused), (1_024 + 53, 0), "one at least for each, and not 100");
    cluster.mend();
    cluster.advance(4_000);
    for client in clients {
        assert_eq!(flat(&cluster.read(client)), vec!["+OK"; 100].join(" "));
    }
    // Far more were answered in a quarter of a second than before, so more may be open.
    assert!(cluster.nodes[0].gateway().requests_open_max() > 1_024);
}

#[test]
fn who_waits_for_nothing_is_refused_when_a_node_is_far_behind() {
    let mut cluster = three();
    let clients: Vec<Client> = (0..16_385).map(|_| cluster.connect(0, Port::Gateway)).collect();
    cluster.cut(0);
    clients.iter().for_each(|client| cluster.send(*client, &["SET k v"]));
    let late = clients[16_384];
    let reply = flat(&cluster.read(late));
    assert!(reply.starts_with("-BUSY") && reply.contains("nothing was written"), "{reply}");
    assert_eq!(cluster.ask(late, &["PING"]), "+PONG\r\n");
    let gateway = cluster.nodes[0].gateway();
    assert_eq!((gateway.requests_open(), gateway.counters.shed), (16_384, 1));
}

/// X2: as many sessions as there is room for, and no more; who has one goes on.
#[test]
fn who_would_open_one_session_too_many_is_refused() {
    const ROOM: usize = 4;
    let mut cluster = Cluster::start(3, 3, |config| {
        config.sessions_bytes_max = ROOM * 306;
        config.group = Arc::new(Options { window_entries_max: 1, ..*config.group });
    });
    cluster.wait_for_leaders();
    let clients: Vec<Client> = (0..ROOM + 2).map(|at| cluster.connect(at % 3, Port::Gateway)).collect();
    let sessions = |cluster: &Cluster| {
        let shards = cluster.nodes.iter().map(|node| node.shard(shard()).expect("it has a replica"));
        shards.map(|shard| shard.sessions.len()).collect::<Vec<_>>()
    };
    for client in &clients[..ROOM - 1] {
        check(&mut cluster, *client, &[("SET k 1", "+OK")]);
    }
    // Those that wait to be proposed count: of three that come while nothing is decided one is proposed, and one waits.
    cluster.hold_disk(true);
    let late = &clients[ROOM - 1..];
    late.iter().for_each(|client| cluster.send(*client, &["SET k 2"]));
    cluster.settle();
    cluster.hold_disk(false);
    cluster.advance(100);
    let replies: Vec<String> = late.iter().map(|client| cluster.read(*client)).collect();
    let refused = |reply: &&String| reply.starts_with("-BUSY too many connections");
    assert_eq!(replies.iter().filter(refused).count(), 1, "{replies:?}");
    assert!(
        replies.iter().all(|reply| reply == "+OK\r\n" || reply.contains("nothing was written")),
        "{replies:?}"
    );
    assert_eq!(sessions(&cluster), [ROOM + 1; 3], "what one window holds, too");
    // Nobody who has a session notices, nor who only reads or writes to another shard.
    for client in &clients[..ROOM - 1] {
        check(&mut cluster, *client, &[("SET k 3", "+OK")]);
    }
    for client in late {
        check(&mut cluster, *client, &[("GET k", "$1 3"), ("SET other 1", "+OK")]);
    }
    assert_eq!(sessions(&cluster), [ROOM + 1; 3]);
    // What was refused stays so, and there is room again when the records have ended.
    cluster.advance(13_000);
    assert_eq!(sessions(&cluster), [0; 3]);
    for client in late {
        check(&mut cluster, *client, &[("GET k", "$1 3"), ("INCR k", ":4"), ("SET k 3", "+OK")]);
    }
}
