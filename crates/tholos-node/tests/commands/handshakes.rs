//! The connection and the server: HELLO, AUTH, CLIENT, CONFIG, INFO, COMMAND.

use crate::support::{Client, Cluster, check, check_single, flat};
use tholos_node::Port;

const GREETING: &str = "$6 server $5 redis $7 version $5 7.2.4 $5 proto :3 $2 id :1 $4 mode $10 standalone $4 role \
                        $6 master $7 modules *0";

#[test]
fn a_connection_says_hello() {
    let resp3 = format!("%7 {GREETING}");
    let resp2 = format!("*14 {}", GREETING.replace("proto :3", "proto :2"));
    check_single(&[
        ("PING", "+PONG"),
        ("PING a", "$1 a"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
        ("ECHO x", "$1 x"),
        ("HELLO", &resp2),
        ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ("HELLO 1", "-NOPROTO unsupported protocol version"),
        ("HELLO x", "-ERR Protocol version is not an integer or out of range"),
        ("HELLO 99999999999999999999", "-ERR Protocol version is not an integer or out of range"),
        ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'"),
        ("HELLO 3 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'"),
        ("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
        ("HELLO 3 AUTH foo x", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("CLIENT GETNAME", "$-1"),
        ("HELLO 3 AUTH default any SETNAME me", &resp3),
        ("CLIENT GETNAME", "$2 me"),
        ("HELLO 2 SETNAME a\tb", "-ERR Client names cannot contain spaces, newlines or special characters."),
        ("HELLO", &resp3),
        ("GET missing", "_"),
        ("CONFIG GET save", "%1 $4 save $0 "),
        ("RESET", "+RESET"),
        ("CLIENT GETNAME", "$-1"),
        ("CONFIG GET save", "*2 $4 save $0 "),
    ]);
}

#[test]
fn one_database_only() {
    let expected = [
        ("SELECT 0", "+OK"),
        ("SELECT x", "-ERR value is not an integer or out of range"),
        ("SELECT 4294967296", "-ERR value is out of range, value must between -2147483648 and 2147483647"),
    ];
    check_single(&expected);
    check_single(&[
        ("SELECT 1", "-ERR DB index is out of range"),
        ("SELECT -1", "-ERR DB index is out of range"),
    ]);
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Cluster);
    check(&mut cluster, client, &expected);
    check(&mut cluster, client, &[("SELECT 1", "-ERR SELECT is not allowed in cluster mode")]);
}

#[test]
fn without_a_password_auth_has_nothing_to_do() {
    check_single(&[
        (
            "AUTH x",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ),
        ("AUTH default x", "+OK"),
        ("AUTH foo x", "-WRONGPASS invalid username-password pair or user is disabled."),
        ("AUTH a b c", "-ERR syntax error"),
    ]);
}

const NOAUTH: &str = "-NOAUTH Authentication required.";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

#[test]
fn a_password_is_asked_for_first() {
    let mut cluster = Cluster::start(1, 1, |config| config.requirepass = Some("secret".into()));
    cluster.wait_for_leaders();
    let client = cluster.connect(0, Port::Gateway);
    let hello = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
                 <pass> option can be used to authenticate the client and select the RESP protocol version at the \
                 same time";
    let unknown = "-ERR unknown command 'FOO', with args beginning with: ";
    check(
        &mut cluster,
        client,
        &[
            ("PING", NOAUTH),
            ("SET a b", NOAUTH),
            ("FOO", unknown),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            ("CLIENT ID", NOAUTH),
            ("COMMAND COUNT", NOAUTH),
            ("MULTI", NOAUTH),
            ("EXEC", "-EXECABORT Transaction discarded because of: NOAUTH Authentication required."),
            ("HELLO", hello),
            ("HELLO 3", hello),
            ("HELLO 3 SETNAME x", hello),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
            ("AUTH x", WRONGPASS),
            ("AUTH secretsecret", WRONGPASS),
            ("AUTH secre", WRONGPASS),
            ("AUTH \"\"", WRONGPASS),
            ("AUTH default x", WRONGPASS),
            ("AUTH foo secret", WRONGPASS),
            ("HELLO 3 AUTH default bad", WRONGPASS),
            ("PING", NOAUTH),
            ("RESET", "+RESET"),
            ("AUTH secret", "+OK"),
            ("PING", "+PONG"),
            // A wrong password afterwards changes nothing.
            ("AUTH bad", WRONGPASS),
            ("PING", "+PONG"),
            ("RESET", "+RESET"),
            ("PING", NOAUTH),
            ("HELLO 3 AUTH default secret", &format!("%7 {GREETING}")),
            ("PING", "+PONG"),
            ("CONFIG GET requirepass", "%1 $11 requirepass $6 secret"),
        ],
    );
    let quitter = cluster.connect(0, Port::Gateway);
    assert_eq!(cluster.ask(quitter, &["QUIT"]), "+OK\r\n");
    assert!(cluster.is_closed(quitter));
}

#[test]
fn a_password_set_later_binds_new_connections() {
    let mut cluster = Cluster::single();
    let old = cluster.connect(0, Port::Gateway);
    check(&mut cluster, old, &[("CONFIG SET requirepass secret", "+OK"), ("PING", "+PONG")]);
    let new = cluster.connect(0, Port::Gateway);
    check(&mut cluster, new, &[("PING", NOAUTH)]);
    check(&mut cluster, old, &[("CONFIG SET requirepass \"\"", "+OK")]);
    check(&mut cluster, new, &[("PING", "+PONG")]);
}

#[test]
fn without_a_password_other_machines_are_denied() {
    let mut cluster = Cluster::single();
    for port in [Port::Gateway, Port::Cluster] {
        let client = cluster.connect_from(0, port, "10.0.0.9", false);
        assert!(cluster.read(client).starts_with("-DENIED Tholos is in protected mode: "));
        assert!(cluster.is_closed(client));
        assert_eq!(cluster.completed(client), 0);
        assert_eq!(cluster.ask(client, &["SET a b"]), "");
    }
    let own = cluster.connect(0, Port::Gateway);
    check(&mut cluster, own, &[("EXISTS a", ":0"), ("CONFIG SET requirepass secret", "+OK")]);
    let client = cluster.connect_from(0, Port::Gateway, "10.0.0.9", false);
    check(&mut cluster, client, &[("PING", NOAUTH), ("AUTH secret", "+OK"), ("PING", "+PONG")]);
}

#[test]
fn quit_answers_then_closes() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let replies = cluster.ask(client, &["SET a b", "GET a", "QUIT", "PING"]);
    assert_eq!(replies, "+OK\r\n$1\r\nb\r\n+OK\r\n");
    assert!(cluster.is_closed(client));

    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(cluster.ask(client, &["MULTI", "PING", "QUIT", "PING"]), "+OK\r\n+QUEUED\r\n+OK\r\n");
    assert!(cluster.is_closed(client));

    let client = cluster.connect(0, Port::Gateway);
    assert_eq!(cluster.ask(client, &["CLIENT REPLY OFF", "QUIT"]), "");
    assert!(cluster.is_closed(client));
}

#[test]
fn an_http_request_is_cut_off() {
    let mut cluster = Cluster::single();
    for line in ["POST / HTTP/1.1", "Host: example", "post", "HOST:"] {
        let client = cluster.connect(0, Port::Gateway);
        assert_eq!(cluster.ask(client, &[line, "SET hacked 1"]), "", "{line}");
        assert!(cluster.is_closed(client), "{line}");
    }
    let client = cluster.connect(0, Port::Gateway);
    check(&mut cluster, client, &[("EXISTS hacked", ":0")]);
}

#[test]
fn what_is_not_the_protocol_is_told_after_what_is_due() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.send(client, &["SET a 1"]);
    let error = cluster.malformed(client, "ERR Protocol error: invalid bulk length");
    assert_eq!(error, "+OK\r\n-ERR Protocol error: invalid bulk length\r\n");
    assert!(cluster.is_closed(client));
}

#[test]
fn replies_are_held_back_as_asked() {
    let pipelines: &[(&[&str], &str)] = &[
        (&["CLIENT REPLY OFF", "PING", "CLIENT REPLY SKIP", "PING", "CLIENT REPLY ON", "PING"], "+OK +PONG"),
        (&["CLIENT REPLY SKIP", "PING", "PING"], "+PONG"),
        (&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "ECHO b"], "$1 b"),
        (&["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING"], "+OK +PONG"),
        (&["CLIENT REPLY SKIP", "SET a 1", "GET a"], "$1 1"),
        (&["CLIENT REPLY SKIP", "FOO", "PING"], "+PONG"),
        (&["CLIENT REPLY SKIP", "CLIENT REPLY OFF", "PING"], ""),
        (&["CLIENT REPLY foo", "PING", "CLIENT REPLY SKIP", "PING", "PING"], ""),
        (&["RESET", "PING"], "+RESET +PONG"),
        (&["CLIENT REPLY foo"], "-ERR syntax error"),
    ];
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let mut sent = 0;
    for (pipeline, expected) in pipelines {
        assert_eq!(flat(&cluster.ask(client, pipeline)), *expected, "{pipeline:?}");
        sent += pipeline.len() as u32;
        // A command without a reply is over all the same: the driver counts on it.
        assert_eq!(cluster.completed(client), sent, "{pipeline:?}");
    }
}

#[test]
fn clients_know_themselves() {
    check_single(&[
        ("CLIENT ID", ":1"),
        ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command"),
        ("CLIENT SETNAME foo", "+OK"),
        ("CLIENT GETNAME", "$3 foo"),
        ("CLIENT SETNAME é", "-ERR Client names cannot contain spaces, newlines or special characters."),
        ("CLIENT SETNAME \"\"", "+OK"),
        ("CLIENT GETNAME", "$-1"),
        ("CLIENT SETINFO LIB-NAME redis-py", "+OK"),
        ("CLIENT SETINFO lib-ver 8.1.0", "+OK"),
        (
            "CLIENT SETINFO lib-ver 8\n1",
            "-ERR lib-ver cannot contain spaces, newlines or special characters.",
        ),
        ("CLIENT SETINFO lib-foo x", "-ERR Unrecognized option 'lib-foo'"),
        ("CLIENT NO-EVICT on", "+OK"),
        ("CLIENT NO-EVICT x", "-ERR syntax error"),
        ("CLIENT NO-TOUCH OFF", "+OK"),
        (
            "CLIENT INFO",
            "$277 id=1 addr=127.0.0.1:50001 laddr=127.0.0.1:6379 name= age=0 idle=0 flags=e db=0 sub=0 psub=0 ssub=0 \
             multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=client|info user=default redir=-1 resp=2 lib-name=redis-py lib-ver=8.1.0\n",
        ),
        ("CLIENT TRACKING off", "+OK"),
        ("CLIENT TRACKING foo", "-ERR syntax error"),
        ("CLIENT TRACKING on", "-ERR CLIENT TRACKING is not supported, do not cache on the client's side"),
        ("CLIENT MAINT_NOTIFICATIONS on", "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP."),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command"),
    ]);
}

#[test]
fn clients_are_listed() {
    let mut cluster = Cluster::single();
    let first = cluster.connect(0, Port::Gateway);
    let second = cluster.connect(0, Port::Cluster);
    cluster.advance(3000);
    cluster.send(second, &["MULTI", "PING", "READONLY"]);
    let list = cluster.ask(first, &["CLIENT LIST"]);
    let lines: Vec<&str> = list.lines().filter(|line| line.contains("addr=")).collect();
    assert!(lines[0].contains("id=1 ") && lines[0].contains(" age=3 idle=0 flags=N "), "{list}");
    assert!(lines[1].contains("id=2 ") && lines[1].contains(" flags=x db=0 "), "{list}");
    assert!(lines[1].contains(" multi=2 ") && lines[1].contains(" laddr=127.0.0.1:7001 "), "{list}");
    for (command, clients) in [
        ("CLIENT LIST TYPE normal", 2),
        ("CLIENT LIST TYPE pubsub", 0),
        ("CLIENT LIST ID 2 99", 1),
        ("CLIENT LIST ID 99", 0),
    ] {
        let list = cluster.ask(first, &[command]);
        assert_eq!(list.matches("addr=127.0.0.1:5").count(), clients, "{command} {list}");
    }
    check(
        &mut cluster,
        first,
        &[
            ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT LIST ID 1 x", "-ERR Invalid client ID"),
            ("CLIENT LIST ID 0 -1", "$0 "),
            ("CLIENT LIST ID", "-ERR syntax error"),
            ("CLIENT LIST FOO", "-ERR syntax error"),
        ],
    );
    cluster.disconnect(second);
    assert_eq!(cluster.ask(first, &["CLIENT LIST"]).matches("user=default").count(), 1);
}

#[test]
fn clients_are_killed() {
    let mut cluster = Cluster::single();
    let killer = cluster.connect(0, Port::Gateway);
    for (kill, reply) in [
        ("CLIENT KILL ID 2", ":1"),
        ("CLIENT KILL 127.0.0.1:50003", "+OK"),
        ("CLIENT KILL LADDR 127.0.0.1:7001", ":1"),
        ("CLIENT KILL ADDR 127.0.0.1:50005", ":1"),
        ("CLIENT KILL TYPE normal", ":1"),
        ("CLIENT KILL USER default SKIPME yes", ":1"),
    ] {
        let victim = cluster.connect(0, Port::Cluster);
        check(&mut cluster, killer, &[(kill, reply)]);
        assert!(cluster.is_closed(victim), "{kill}");
        assert!(!cluster.is_closed(killer), "{kill}");
        assert_eq!(cluster.ask(victim, &["PING"]), "", "{kill}");
        cluster.disconnect(victim);
    }
    check(
        &mut cluster,
        killer,
        &[
            ("CLIENT KILL foo", "-ERR No such client"),
            ("CLIENT KILL ID x", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 999", ":0"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT KILL TYPE pubsub", ":0"),
            ("CLIENT KILL USER foo", "-ERR No such user 'foo'"),
            ("CLIENT KILL ID 999 SKIPME foo", "-ERR syntax error"),
            ("CLIENT KILL ID 1 FOO", "-ERR syntax error"),
            ("CLIENT KILL ID 1", ":0"),
        ],
    );
    // What was under way is not answered any more.
    let victim = cluster.connect(0, Port::Gateway);
    cluster.hold_disk(true);
    cluster.send(victim, &["SET a 1", "PING"]);
    cluster.send(killer, &[&format!("CLIENT KILL ID {}", victim.id.0)]);
    cluster.hold_disk(false);
    assert_eq!((cluster.read(killer), cluster.read(victim)), (":1\r\n".into(), String::new()));
    // Killing oneself is answered first.
    assert_eq!(cluster.ask(killer, &["CLIENT KILL ID 1 SKIPME no", "PING"]), ":1\r\n");
    assert!(cluster.is_closed(killer));
}

#[test]
fn settings_are_read_and_some_are_set() {
    let immutable =
        "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config";
    let memory =
        "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value";
    check_single(&[
        ("CONFIG GET save", "*2 $4 save $0 "),
        ("CONFIG GET APPENDonly", "*2 $10 appendonly $3 yes"),
        ("CONFIG GET foo", "*0"),
        ("CONFIG GET save databases save", "*4 $4 save $0  $9 databases $1 1"),
        ("CONFIG GET maxm*", "*4 $9 maxmemory $1 0 $16 maxmemory-policy $10 noeviction"),
        ("CONFIG GET timeout requirepass", "*4 $7 timeout $1 0 $11 requirepass $0 "),
        ("CONFIG GET cluster-enabled port", "*4 $4 port $4 6379 $15 cluster-enabled $2 no"),
        ("CONFIG GET maxclients", "*2 $10 maxclients $5 10240"),
        ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command"),
        ("CONFIG SET maxmemory 100mb", "+OK"),
        ("CONFIG GET maxmemory", "*2 $9 maxmemory $9 104857600"),
        ("CONFIG SET maxmemory -1", memory),
        (
            "CONFIG SET maxmemory 1g maxmemory 2g",
            "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - duplicate parameter",
        ),
        // All or nothing.
        ("CONFIG SET maxmemory 0 databases 3", immutable),
        ("CONFIG SET maxmemory 0 foo 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'"),
        ("CONFIG SET maxmemory 10 maxclients", "-ERR syntax error"),
        ("CONFIG GET maxmemory", "*2 $9 maxmemory $9 104857600"),
        ("CONFIG SET save \"\" MAXMEMORY 1k", "+OK"),
        ("CONFIG GET maxmemory", "*2 $9 maxmemory $4 1000"),
        ("CONFIG REWRITE", "-ERR The server is running without a config file"),
        ("CONFIG FOO", "-ERR unknown subcommand 'FOO'. Try CONFIG HELP."),
        ("CONFIG RESETSTAT", "+OK"),
    ]);
}

/// The fields of INFO's reply.
fn info(cluster: &mut Cluster, client: Client, command: &str) -> Vec<String> {
    cluster.ask(client, &[command]).split("\r\n").map(String::from).collect()
}

#[test]
fn info_tells_what_is_true() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    cluster.send(client, &["SET a 1", "SET b 2 EX 1000", "SET c 3 EX 1", "FOO", "INCR a"]);
    cluster.advance(61_000);
    cluster.send(client, &["INCR a"]);
    for command in ["INFO", "INFO all", "INFO everything", "INFO default", "INFO foo ALL"] {
        let all = info(&mut cluster, client, command);
        for field in [
            "# Server",
            "redis_version:7.2.4",
            "tholos_version:0.1.0",
            "redis_mode:standalone",
            "tcp_port:6379",
            "role:master",
            "loading:0",
            "maxmemory_policy:noeviction",
            "connected_clients:1",
            "cluster_enabled:0",
            "total_connections_received:1",
            "total_error_replies:1",
            "tholos_shards_led:16",
            "db0:keys=2,expires=1,avg_ttl=0",
        ] {
            assert!(all.iter().any(|line| line == field), "{command}: {field}: {all:#?}");
        }
    }
    let number = |lines: Vec<String>, field: &str| -> u64 {
        let line = lines.iter().find_map(|line| line.strip_prefix(field)).unwrap();
        line.parse().unwrap()
    };
    let server = info(&mut cluster, client, "INFO server");
    assert!((60..70).contains(&number(server.clone(), "uptime_in_seconds:")), "{server:?}");
    assert!(server.iter().find_map(|line| line.strip_prefix("run_id:")).is_some_and(|id| id.len() == 40));
    assert!(number(info(&mut cluster, client, "INFO memory"), "used_memory:") > 0);
    let offset = number(info(&mut cluster, client, "INFO replication"), "master_repl_offset:");
    cluster.send(client, &["INCR a"]);
    assert_eq!(number(info(&mut cluster, client, "INFO replication"), "master_repl_offset:"), offset + 1);
    let commands = number(info(&mut cluster, client, "INFO stats"), "total_commands_processed:");
    cluster.send(client, &["CONFIG RESETSTAT"]);
    assert!(commands > 10);
    assert_eq!(number(info(&mut cluster, client, "INFO stats"), "total_commands_processed:"), 1);
}

#[test]
fn info_has_sections() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let both = "# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\n";
    assert_eq!(cluster.ask(client, &["INFO keyspace cluster"]), format!("${}\r\n{both}\r\n", both.len()));
    assert_eq!(cluster.ask(client, &["INFO foo"]), "$0\r\n\r\n");
    cluster.send(client, &["HELLO 3"]);
    cluster.read(client);
    assert_eq!(cluster.ask(client, &["INFO cluster"]), "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n");
    let other = cluster.connect(0, Port::Cluster);
    assert_eq!(cluster.ask(other, &["INFO cluster"]), "$30\r\n# Cluster\r\ncluster_enabled:1\r\n\r\n");
    assert!(cluster.ask(other, &["INFO server"]).contains("redis_mode:cluster\r\n"));
}

#[test]
fn the_server_tells_its_role_and_time() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let role = flat(&cluster.ask(client, &["ROLE"]));
    assert!(role.starts_with("*3 $6 master :") && role.ends_with(" *0"), "{role}");
    let wall = cluster.now().wall.0;
    let expected = format!("*2 $10 {} $6 {:06}", wall / 1000, wall % 1000 * 1000);
    assert!(wall % 1000 >= 100, "or the digits below would be fewer");
    check(&mut cluster, client, &[("TIME", &expected)]);
    check(&mut cluster, client, &[("LOLWUT", "-ERR unknown command 'LOLWUT', with args beginning with: ")]);
}

#[test]
fn the_command_table_is_told() {
    let mut cluster = Cluster::single();
    let client = cluster.connect(0, Port::Gateway);
    let all = cluster.ask(client, &["COMMAND"]);
    let count = cluster.ask(client, &["COMMAND COUNT"]);
    assert_eq!(all.split("\r\n").next().unwrap().replace('*', ":"), count.trim_end());
    check(
        &mut cluster,
        client,
        &[
            ("COMMAND GETKEYS MSET a 1 b 2", "*2 $1 a $1 b"),
            ("COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
            ("COMMAND INFO nope", "*1 $-1"),
        ],
    );
    assert!(cluster.ask(client, &["COMMAND INFO get"]).starts_with("*1\r\n*10\r\n$3\r\nget\r\n:2\r\n"));
    assert!(cluster.ask(client, &["COMMAND DOCS get"]).starts_with("*2\r\n$3\r\nget\r\n"));
    for command in ["CLIENT HELP", "CONFIG HELP", "COMMAND HELP", "OBJECT HELP"] {
        assert!(cluster.ask(client, &[command]).contains("HELP\r\n"), "{command}");
    }
}
