//! MULTI, EXEC, DISCARD, WATCH, and the order of pipelined commands.

use crate::support::{Cluster, check, check_pipeline, flat};
use tholos_node::{Event, Port};

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.";

#[test]
fn a_transaction_is_queued_then_done() {
    check_pipeline(
        &["MULTI", "SET {t}a 1", "INCR {t}a", "GET {t}b", "NOSUCH", "EXEC"],
        "+OK +QUEUED +QUEUED +QUEUED -ERR unknown command 'NOSUCH', with args beginning with:  \
         -EXECABORT Transaction discarded because of previous errors.",
    );
    check_pipeline(
        &["MULTI", "SET {t}a 1", "INCR {t}a", "GET {t}b", "EXEC", "GET {t}a"],
        "+OK +QUEUED +QUEUED +QUEUED *3 +OK :2 $-1 $1 2",
    );
    check_pipeline(&["MULTI", "EXEC"], "+OK *0");
    check_pipeline(&["MULTI", "GET a", "EXEC"], "+OK +QUEUED *1 $-1");
}

#[test]
fn an_error_inside_undoes_nothing() {
    check_pipeline(
        &[
            "SET {t}a x",
            "MULTI",
            "SET {t}b 1",
            "INCR {t}a",
            "SET {t}c 1 BAD",
            "SET {t}d 1",
            "EXEC",
            "GET {t}d",
        ],
        "+OK +OK +QUEUED +QUEUED +QUEUED +QUEUED *4 +OK -ERR value is not an integer or out of range -ERR syntax \
         error +OK $1 1",
    );
}

#[test]
fn what_cannot_be_queued_makes_exec_refuse() {
    for (command, error) in [
        ("FOO", "-ERR unknown command 'FOO', with args beginning with: "),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        // These are our own: Redis could do them.
        ("DBSIZE", "-ERR DBSIZE spans all shards and cannot be part of a transaction"),
        ("FLUSHALL", "-ERR FLUSHALL spans all shards and cannot be part of a transaction"),
        ("SCAN 0", "-ERR SCAN spans all shards and cannot be part of a transaction"),
        ("WAIT 0 0", "-ERR WAIT cannot be part of a transaction"),
        ("CLIENT REPLY OFF", "-ERR CLIENT REPLY cannot be part of a transaction"),
    ] {
        let expected = format!("+OK +QUEUED {error} +QUEUED {ABORTED} $-1");
        check_pipeline(&["MULTI", "SET a 1", command, "SET b 1", "EXEC", "GET a"], &expected);
    }
}

#[test]
fn multi_and_its_kin_keep_their_order() {
    check_pipeline(
        &["EXEC", "DISCARD", "MULTI", "MULTI", "SET a 1", "DISCARD", "GET a", "EXEC"],
        "-ERR EXEC without MULTI -ERR DISCARD without MULTI +OK -ERR MULTI calls can not be nested +QUEUED +OK $-1 \
         -ERR EXEC without MULTI",
    );
    check_pipeline(
        &["WATCH", "WATCH a", "MULTI", "WATCH b", "UNWATCH", "PING", "EXEC"],
        "-ERR wrong number of arguments for 'watch' command +OK +OK -ERR WATCH inside MULTI is not allowed +QUEUED \
         +QUEUED *2 +OK +PONG",
    );
    check_pipeline(
        &["MULTI", "SET a 1", "EXEC more", "GET a", "EXEC"],
        "+OK +QUEUED -EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command $-1 -ERR \
         EXEC without MULTI",
    );
    check_pipeline(&["MULTI", "PING", "RESET", "EXEC"], "+OK +QUEUED +RESET -ERR EXEC without MULTI");
}

#[test]
fn commands_of_the_connection_are_done_in_their_place() {
    check_pipeline(
        &["MULTI", "SET a 1", "ECHO x", "GET a", "CONFIG GET databases", "SELECT 1", "INCR a", "EXEC"],
        "+OK +QUEUED +QUEUED +QUEUED +QUEUED +QUEUED +QUEUED *6 +OK $1 x $1 1 *2 $9 databases $1 1 -ERR DB index is \
         out of range :2",
    );
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let replies = flat(&cluster.ask(client, &["MULTI", "HELLO 3", "CONFIG GET save", "EXEC", "GET a"]));
    assert!(replies.starts_with("+OK +QUEUED +QUEUED *2 %7 $6 server"), "{replies}");
    assert!(replies.ends_with("%1 $4 save $0  _"), "{replies}");
    let replies = flat(&cluster.ask(client, &["MULTI", "HELLO 2", "SET a 1", "CONFIG GET save", "EXEC"]));
    assert!(replies.starts_with("+OK +QUEUED +QUEUED +QUEUED *3 *14 $6 server"), "{replies}");
    assert!(replies.ends_with("+OK *2 $4 save $0 "), "{replies}");
    let replies = cluster.ask(client, &["MULTI", "CLIENT KILL ID 1 SKIPME no", "EXEC", "PING"]);
    assert_eq!(flat(&replies), "+OK +QUEUED *1 :1");
    assert!(cluster.is_closed(client));
}

#[test]
fn two_slots_are_refused_at_exec() {
    let cross = "-CROSSSLOT Keys in request don't hash to the same slot";
    for port in [Port::Gateway, Port::Cluster] {
        let mut cluster = Cluster::single();
        let client = cluster.connect(0, port);
        let replies = cluster.ask(client, &["MULTI", "SET a 1", "SET b 1", "EXEC", "GET a", "EXEC"]);
        assert_eq!(
            flat(&replies),
            format!("+OK +QUEUED +QUEUED {cross} $-1 -ERR EXEC without MULTI"),
            "{port:?}"
        );
        let replies = cluster.ask(client, &["WATCH a", "MULTI", "SET b 1", "EXEC"]);
        assert_eq!(flat(&replies), format!("+OK +OK +QUEUED {cross}"), "{port:?}");
        let replies = cluster.ask(client, &["MULTI", "SET a 1", "MSET a 2 b 2", "EXEC", "GET a"]);
        let abort = "-EXECABORT Transaction discarded because of previous errors.";
        assert_eq!(
            flat(&replies),
            format!("+OK +QUEUED {cross} {abort} $-1"),
            "{port:?}: one command over both"
        );
    }
}

#[test]
fn keys_of_two_slots_are_watched_at_the_gateway_only() {
    let cross = "-CROSSSLOT Keys in request don't hash to the same slot";
    for (port, answer) in [(Port::Gateway, "+OK"), (Port::Cluster, cross)] {
        let mut cluster = Cluster::single();
        let client = cluster.connect(0, port);
        assert_eq!(flat(&cluster.ask(client, &["WATCH a b"])), answer, "{port:?}");
        assert_eq!(flat(&cluster.ask(client, &["WATCH {a}1 {a}2"])), "+OK", "{port:?}");
    }
}

#[test]
fn a_watched_key_that_changed_aborts() {
    let mut cluster = Cluster::single();
    let (client, other) = (cluster.connect(0, Port::Gateway), cluster.connect(0, Port::Gateway));
    for change in ["SET w 1", "INCR w", "DEL w", "SET w 5", "EXPIRE w 100", "FLUSHALL"] {
        check(&mut cluster, client, &[("WATCH w", "+OK")]);
        cluster.ask(other, &[change]);
        let replies = cluster.ask(client, &["MULTI", "CONFIG SET maxmemory 77", "SET w mine", "EXEC"]);
        assert_eq!(flat(&replies), "+OK +QUEUED +QUEUED *-1", "{change}");
        // Nothing of it happened, on the node neither.
        check(&mut cluster, client, &[("CONFIG GET maxmemory", "*2 $9 maxmemory $1 0")]);
    }
    // The watch is over with its EXEC.
    let replies = cluster.ask(client, &["MULTI", "SET w mine", "EXEC"]);
    assert_eq!(flat(&replies), "+OK +QUEUED *1 +OK");
    check(&mut cluster, client, &[("HELLO 3", &flat(&hello3())), ("WATCH w", "+OK")]);
    cluster.send(other, &["SET w 2"]);
    assert_eq!(flat(&cluster.ask(client, &["MULTI", "GET w", "EXEC"])), "+OK +QUEUED _");
}

fn hello3() -> String {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.ask(client, &["HELLO 3"])
}

#[test]
fn a_watched_key_that_did_not_change_does_not_abort() {
    let mut cluster = Cluster::single();
    let (client, other) = (cluster.connect(0, Port::Gateway), cluster.connect(0, Port::Gateway));
    check(&mut cluster, client, &[("SET w 1", "+OK"), ("WATCH w", "+OK")]);
    cluster.send(other, &["SET other 1", "GET w", "DEL missing", "SET w 2 NX"]);
    assert_eq!(flat(&cluster.ask(client, &["MULTI", "INCR w", "EXEC"])), "+OK +QUEUED *1 :2");
    for forget in ["UNWATCH", "MULTI DISCARD", "RESET"] {
        cluster.ask(client, &["WATCH w"]);
        cluster.ask(other, &["INCR w"]);
        cluster.ask(client, &forget.split(' ').collect::<Vec<_>>());
        assert_eq!(
            flat(&cluster.ask(client, &["MULTI", "EXISTS w", "EXEC"])),
            "+OK +QUEUED *1 :1",
            "{forget}"
        );
    }
}

#[test]
fn a_watched_key_that_expires_aborts() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.ask(client, &["SET w 1 PX 100", "WATCH w"]);
    cluster.advance(200);
    assert_eq!(flat(&cluster.ask(client, &["MULTI", "SET w 2", "EXEC"])), "+OK +QUEUED *-1");
}

#[test]
fn a_full_node_refuses_a_transaction_that_writes() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.ask(client, &["SET a 1", "MULTI", "SET a 2"]);
    let other = cluster.connect(0, Port::Gateway);
    cluster.ask(other, &["CONFIG SET maxmemory 1"]);
    cluster.advance(200);
    let oom = "OOM command not allowed when used memory > 'maxmemory'.";
    let aborted = format!("-EXECABORT Transaction discarded because of: {oom}");
    check(&mut cluster, client, &[("EXEC", &aborted), ("GET a", "$1 1"), ("MULTI", "+OK")]);
    check(&mut cluster, client, &[("SET a 2", &format!("-{oom}")), ("GET a", "+QUEUED"), ("EXEC", ABORTED)]);
    assert_eq!(
        flat(&cluster.ask(client, &["MULTI", "GET a", "DEL a", "EXEC"])),
        "+OK +QUEUED +QUEUED *2 $1 1 :1"
    );
}

#[test]
fn a_transaction_has_a_size() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let megabyte = format!("APPEND big {}", "x".repeat(1 << 20));
    cluster.ask(client, &["MULTI"]);
    for _ in 0..63 {
        assert_eq!(cluster.ask(client, &[&megabyte]), "+QUEUED\r\n");
    }
    let refused = "-ERR the transaction is larger than 64 MiB, nothing of it was written";
    check(
        &mut cluster,
        client,
        &[(&megabyte, refused), ("PING", "+QUEUED"), ("EXEC", ABORTED), ("GET big", "$-1")],
    );
}

#[test]
fn replies_come_in_the_order_of_their_commands() {
    check_pipeline(
        &[
            "SET a 1", "PING", "GET a", "GET b", "INCR a", "ECHO e", "MGET a b", "SET b 5", "DBSIZE",
            "GET b", "FOO", "PING",
        ],
        "+OK +PONG $1 1 $-1 :2 $1 e *2 $1 2 $-1 +OK :2 $1 5 -ERR unknown command 'FOO', with args beginning with:  \
         +PONG",
    );
}

#[test]
fn nothing_is_answered_before_the_disk_has_it() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.hold_disk(true);
    let replies = cluster.ask(client, &["PING", "SET a 1", "PING", "GET b", "HELLO 3"]);
    assert_eq!(replies, "+PONG\r\n");
    assert_eq!(cluster.completed(client), 1);
    cluster.hold_disk(false);
    let replies = flat(&cluster.read(client));
    assert!(replies.starts_with("+OK +PONG $-1 %7 "), "{replies}");
    assert_eq!(cluster.completed(client), 5);
}

#[test]
fn a_transaction_waits_for_what_is_under_way() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.hold_disk(true);
    let commands = ["SET a 1", "WATCH a", "MULTI", "INCR a", "EXEC", "KEYS *", "PING"];
    assert_eq!(cluster.ask(client, &commands), "");
    cluster.hold_disk(false);
    assert_eq!(flat(&cluster.read(client)), "+OK +OK +OK +QUEUED *1 :2 *1 $1 a +PONG");
}

#[test]
fn a_client_that_leaves_takes_its_requests_along() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.hold_disk(true);
    cluster.send(client, &["SET a 1", "GET a", "EXEC"]);
    cluster.handle(0, Event::Disconnected { client: client.id });
    assert_eq!(cluster.nodes[0].gateway().requests_open(), 0);
    cluster.hold_disk(false);
    assert_eq!(cluster.read(client), "");
    let client = cluster.connect(0, Port::Gateway);
    check(&mut cluster, client, &[("GET a", "$1 1")]);
}
