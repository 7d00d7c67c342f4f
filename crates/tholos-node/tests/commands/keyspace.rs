//! Commands over several slots: fanned out on the gateway, refused on the cluster port; and those on all keys.

use std::collections::BTreeSet;

use crate::support::{Client, Cluster, check, flat};
use tholos_node::Port;

const CROSS: &str = "-CROSSSLOT Keys in request don't hash to the same slot";

#[test]
fn the_gateway_fans_out_over_slots() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        cluster.ask(client, &[&format!("SET {key} v{number}")]);
    }
    let all = keys.join(" ");
    let values: Vec<String> =
        (0..40).map(|number| format!("${} v{number}", format!("v{number}").len())).collect();
    check(
        &mut cluster,
        client,
        &[
            (&format!("MGET {all}"), &format!("*40 {}", values.join(" "))),
            ("MGET k3 missing k1 k3", "*4 $2 v3 $-1 $2 v1 $2 v3"),
            ("EXISTS k1 k2 k2 missing k3", ":4"),
            ("TOUCH k1 missing k3", ":2"),
            ("DEL k1 k1 k2 missing", ":2"),
            ("UNLINK k3 k1 k4", ":2"),
            (&format!("EXISTS {all}"), ":36"),
            ("DBSIZE", ":36"),
            // What must be atomic stays within a slot.
            ("MSET k1 a k2 b", CROSS),
            ("MSETNX k1 a k2 b", CROSS),
            ("RENAME k5 k6", CROSS),
            ("COPY k5 k6", CROSS),
            ("MSET {x}1 a {x}2 b", "+OK"),
            ("MGET {x}2 {x}1", "*2 $1 b $1 a"),
        ],
    );
}

#[test]
fn the_cluster_port_keeps_to_one_slot() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Cluster);
    for command in
        ["MGET a b", "DEL a b", "EXISTS a b", "TOUCH a b", "UNLINK a b", "MSET a 1 b 2", "RENAME a b"]
    {
        check(&mut cluster, client, &[(command, CROSS)]);
    }
    check(
        &mut cluster,
        client,
        &[("SET {x}a 1", "+OK"), ("MGET {x}a {x}b", "*2 $1 1 $-1"), ("DEL {x}a {x}b", ":1")],
    );
}

/// What Redis tells first: that a command or its number of arguments is unknown, then in a cluster that its keys are of many
/// slots, then what is wrong with its options. Alone it knows no slots.
#[test]
fn slots_are_judged_before_options_and_after_the_number_of_arguments() {
    let mut cluster = Cluster::single();
    let (in_cluster, alone) = (cluster.connect(0, Port::Cluster), cluster.connect(0, Port::Gateway));
    let odd = "-ERR wrong number of arguments for 'mset' command";
    let syntax = "-ERR syntax error";
    for (command, cluster_says, gateway_says) in [
        ("COPY a b FOO", CROSS, syntax),
        ("COPY a b DB 3", CROSS, "-ERR DB index is out of range"),
        ("LCS a b MINMATCHLEN x", CROSS, "-ERR value is not an integer or out of range"),
        ("LCS a b FOO", CROSS, syntax),
        ("MSET a 1 b", CROSS, odd),
        ("MSET a", odd, odd),
        ("COPY {a} {a}b FOO", syntax, syntax),
        (
            "RENAME a",
            "-ERR wrong number of arguments for 'rename' command",
            "-ERR wrong number of arguments for 'rename' command",
        ),
    ] {
        check(&mut cluster, in_cluster, &[(command, cluster_says)]);
        check(&mut cluster, alone, &[(command, gateway_says)]);
    }
}

/// The bulk strings of a reply, line by line.
fn bulks(reply: &str) -> Vec<String> {
    let mut lines = reply.split("\r\n");
    let mut all = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with('$') && line != "$-1" {
            all.extend(lines.next().map(String::from));
        }
    }
    all
}

/// All keys by SCAN; panics if one comes twice.
fn scan(cluster: &mut Cluster, client: Client, options: &str) -> BTreeSet<String> {
    let (mut cursor, mut keys) = (String::from("0"), BTreeSet::new());
    for _ in 0..10_000 {
        let mut page = bulks(&cluster.ask(client, &[&format!("SCAN {cursor}{options}")]));
        cursor = page.remove(0);
        for key in page {
            assert!(keys.insert(key.clone()), "{key} twice");
        }
        if cursor == "0" {
            return keys;
        }
    }
    panic!("SCAN does not end");
}

#[test]
fn scan_gives_each_key_once() {
    for port in [Port::Gateway, Port::Cluster] {
        let mut cluster = Cluster::single();
        let client = cluster.connect(0, port);
        assert!(scan(&mut cluster, client, "").is_empty());
        let keys: BTreeSet<String> = (0..500).map(|number| format!("key:{number}")).collect();
        for key in &keys {
            cluster.ask(client, &[&format!("SET {key} 1")]);
        }
        for options in ["", " COUNT 1", " COUNT 7", " COUNT 10000", " MATCH key:*", " TYPE string"] {
            assert_eq!(scan(&mut cluster, client, options), keys, "{port:?}{options}");
        }
        assert_eq!(scan(&mut cluster, client, " MATCH *9 COUNT 50").len(), 50);
        assert!(scan(&mut cluster, client, " TYPE hash").is_empty());
        check(
            &mut cluster,
            client,
            &[
                ("SCAN x", "-ERR invalid cursor"),
                ("SCAN 0 COUNT 0", "-ERR syntax error"),
                ("SCAN 0 FOO", "-ERR syntax error"),
                ("SCAN 9007199254740991", "*2 $1 0 *0"),
                ("SCAN 18446744073709551615", "*2 $1 0 *0"),
            ],
        );
    }
}

/// Tests of client libraries, and programs with few keys, look at the first page only.
#[test]
fn scan_of_few_keys_has_one_page() {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    check(&mut cluster, client, &[("SCAN 0", "*2 $1 0 *0"), ("SCAN 0 MATCH a", "*2 $1 0 *0")]);
    for key in ["a", "b", "c"] {
        cluster.ask(client, &[&format!("SET {key} 1")]);
    }
    let mut page = bulks(&cluster.ask(client, &["SCAN 0"]));
    assert_eq!(page.remove(0), "0");
    page.sort();
    assert_eq!(page, ["a", "b", "c"]);
    check(&mut cluster, client, &[("SCAN 0 MATCH b", "*2 $1 0 *1 $1 b"), ("SCAN 0 TYPE hash", "*2 $1 0 *0")]);
    // It stops when it has enough.
    let page = bulks(&cluster.ask(client, &["SCAN 0 COUNT 1"]));
    assert_eq!((page.len(), page[0] != "0"), (2, true), "{page:?}");
    // Replies keep their order, also where SCAN asks several times.
    let replies = flat(&cluster.ask(client, &["SCAN 0 MATCH a", "GET a", "DBSIZE", "PING"]));
    assert_eq!(replies, "*2 $1 0 *1 $1 a $1 1 :3 +PONG");
}

/// A shard that nobody leads hides no keys of the shards before it.
#[test]
fn scan_answers_what_comes_before_a_shard_that_does_not_answer() {
    let mut cluster = Cluster::start(2, 1, |_| {});
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    let keys: Vec<String> = (0..64).map(|number| format!("key:{number}")).collect();
    for key in &keys {
        cluster.ask(client, &[&format!("SET {key} 1")]);
    }
    cluster.cut(1);
    let (mut cursor, mut pages, mut last) = (String::from("0"), 0, String::new());
    for _ in 0..100 {
        cluster.send(client, &[&format!("SCAN {cursor} COUNT 1000")]);
        cluster.advance(6000);
        last = cluster.read(client);
        if last.starts_with('-') {
            break;
        }
        cursor = bulks(&last).remove(0);
        pages += 1;
    }
    assert!(last.starts_with("-CLUSTERDOWN"), "{last}");
    assert!(pages <= 1, "{pages} pages, and the error comes at the first shard that does not answer");
}

#[test]
fn all_keys_are_counted_listed_picked_and_flushed() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    check(&mut cluster, client, &[("DBSIZE", ":0"), ("KEYS *", "*0"), ("RANDOMKEY", "$-1")]);
    let keys: BTreeSet<String> = (0..30).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.ask(client, &[&format!("SET {key} 1")]);
    }
    check(&mut cluster, client, &[("DBSIZE", ":30")]);
    let listed: BTreeSet<String> = bulks(&cluster.ask(client, &["KEYS *"])).into_iter().collect();
    assert_eq!(listed, keys);
    assert_eq!(bulks(&cluster.ask(client, &["KEYS k1?"])).len(), 10);
    let picked: BTreeSet<String> =
        (0..400).flat_map(|_| bulks(&cluster.ask(client, &["RANDOMKEY"]))).collect();
    // 30 keys, 400 draws: that one is never drawn happens once in 25,000 seeds, and the seed is fixed.
    assert_eq!(picked, keys);
    check(
        &mut cluster,
        client,
        &[
            ("FLUSHALL FOO", "-ERR syntax error"),
            ("FLUSHALL ASYNC", "+OK"),
            ("DBSIZE", ":0"),
            ("SET a 1", "+OK"),
            ("FLUSHDB", "+OK"),
            ("EXISTS a", ":0"),
        ],
    );
}

#[test]
fn expired_keys_are_in_no_answer() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    for number in 0..20 {
        cluster.ask(client, &[&format!("SET k{number} 1 PX 100")]);
    }
    cluster.ask(client, &["SET stays 1"]);
    cluster.advance(100);
    check(&mut cluster, client, &[("DBSIZE", ":1"), ("KEYS *", "*1 $5 stays"), ("RANDOMKEY", "$5 stays")]);
    assert_eq!(scan(&mut cluster, client, "").len(), 1);
    check(&mut cluster, client, &[("EXISTS k1 k2 stays", ":1"), ("MGET k1 stays", "*2 $-1 $1 1")]);
}

#[test]
fn wait_counts_what_is_durable() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    check(&mut cluster, client, &[("WAIT 0 0", ":0"), ("WAITAOF 1 0 0", "*2 :1 :0"), ("SET a 1", "+OK")]);
    check(
        &mut cluster,
        client,
        &[
            ("WAIT 0 0", ":0"),
            ("WAITAOF 1 0 0", "*2 :1 :0"),
            ("WAIT x 0", "-ERR value is not an integer or out of range"),
            ("WAIT 1 -1", "-ERR timeout is negative"),
            ("WAIT 1 x", "-ERR timeout is not an integer or out of range"),
            ("WAIT x x", "-ERR value is not an integer or out of range"),
            ("WAIT -1 0", ":0"),
            ("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1"),
            ("WAITAOF x 0 0", "-ERR value is not an integer or out of range"),
            ("WAITAOF 1 -1 0", "-ERR value is out of range, must be positive"),
            ("WAITAOF 1 x 0", "-ERR value is out of range, must be positive"),
            ("WAITAOF 1 0 x", "-ERR timeout is not an integer or out of range"),
            ("WAITAOF 1 0 -1", "-ERR timeout is negative"),
        ],
    );
    // One replica is asked for and there is none: the time runs out.
    cluster.send(client, &["WAIT 1 500", "PING"]);
    cluster.advance(490);
    assert_eq!(cluster.read(client), "");
    cluster.advance(20);
    assert_eq!(flat(&cluster.read(client)), ":0 +PONG");
}

#[test]
fn wait_counts_followers() {
    let mut cluster = Cluster::start(3, 3, |_| {});
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    cluster.ask(client, &["SET a 1", "SET b 1"]);
    check(&mut cluster, client, &[("WAIT 2 1000", ":2"), ("WAITAOF 1 2 1000", "*2 :1 :2")]);
}
