//! Commands and their replies, family by family. Every reply here was also given by Redis 7.0.15.

mod common;

use common::{run, show};
use tholos_engine::{Context, Keyspace};

/// Runs a script against one keyspace of all slots and compares every reply.
///
/// A line is `COMMAND args => reply`, `@ milliseconds` (sets the time) or `# remark`. Arguments with spaces stand
/// in double quotes. Replies are written as [`show`] does.
fn check(script: &str) {
    let mut keyspace = Keyspace::new(0..16384, 7);
    let mut context = Context { time_ms: 1_000_000, seed: 1, index: 0, position: 0 };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(time) = line.strip_prefix('@') {
            context.time_ms = time.trim().parse().expect("a time");
            continue;
        }
        let (command, expected) = line.split_once("=>").expect("a reply after =>");
        context.index += 1;
        let reply = run(&mut keyspace, &context, command);
        assert_eq!(show(&reply).trim_end(), expected.trim(), "{line}");
    }
}

#[test]
fn set_and_get() {
    check(
        r#"
        GET a => nil
        SET a 1 => OK
        GET a => "1"
        set A "two words" => OK
        get A => "two words"
        SET a "" => OK
        GET a => ""
        EXISTS a A b a => 3
        DEL a b a => 1
        GET a => nil
        UNLINK A => 1
        "#,
    );
}

#[test]
fn set_conditions_and_get() {
    check(
        r#"
        SET a 1 XX => nil
        SET a 1 NX => OK
        SET a 2 NX => nil
        SET a 2 XX => OK
        SET a 3 XX NX => -ERR syntax error
        SET a 3 GET => "2"
        SET b 3 GET => nil
        SET a 4 NX GET => "3"
        GET a => "3"
        SET c 4 XX GET => nil
        GET c => nil
        SET c 4 NX GET => nil
        GET c => "4"
        SET a 1 FOO => -ERR syntax error
        "#,
    );
}

#[test]
fn set_expiry_options() {
    check(
        r#"
        @ 5000
        SET a 1 EX 10 => OK
        PTTL a => 10000
        SET a 1 PX 10 => OK
        PEXPIRETIME a => 5010
        SET a 2 KEEPTTL => OK
        PTTL a => 10
        SET a 2 => OK
        PTTL a => -1
        SET a 1 EXAT 6 => OK
        PTTL a => 1000
        SET a 1 PXAT 5001 => OK
        PTTL a => 1
        SET a 1 PXAT 5000 => OK
        GET a => nil
        SET a 1 EX 1 EX 2 => OK
        TTL a => 2
        SET a 1 EX 1 PX 1 => -ERR syntax error
        SET a 1 KEEPTTL EX 1 => -ERR syntax error
        SET a 1 EX 1 KEEPTTL => -ERR syntax error
        SET a 1 KEEPTTL KEEPTTL => OK
        SET a 1 EX => -ERR syntax error
        SET a 1 EX 0 => -ERR invalid expire time in 'set' command
        SET a 1 EX -1 => -ERR invalid expire time in 'set' command
        SET a 1 EX x => -ERR value is not an integer or out of range
        SET a 1 EX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET a 1 PX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET a 1 PERSIST => -ERR syntax error
        SETEX a 10 v => OK
        TTL a => 10
        SETEX a 0 v => -ERR invalid expire time in 'setex' command
        PSETEX a 10 v => OK
        PTTL a => 10
        PSETEX a x v => -ERR value is not an integer or out of range
        "#,
    );
}

#[test]
fn keys_die_at_their_time() {
    check(
        r#"
        @ 1000
        SET a 1 PX 5 => OK
        @ 1004
        GET a => "1"
        @ 1005
        GET a => nil
        EXISTS a => 0
        TTL a => -2
        PERSIST a => 0
        DEL a => 0
        SET a 2 KEEPTTL => OK
        TTL a => -1
        "#,
    );
}

#[test]
fn counters() {
    check(
        r#"
        INCR a => 1
        INCRBY a 41 => 42
        DECR a => 41
        DECRBY a 1 => 40
        SET a 9223372036854775807 => OK
        INCR a => -ERR increment or decrement would overflow
        DECRBY a -9223372036854775808 => -ERR decrement would overflow
        SET a x => OK
        INCR a => -ERR value is not an integer or out of range
        INCRBY a x => -ERR value is not an integer or out of range
        SET b 10.50 => OK
        INCRBYFLOAT b 0.1 => "10.6"
        INCRBYFLOAT b x => -ERR value is not a valid float
        INCRBYFLOAT b inf => -ERR increment would produce NaN or Infinity
        INCRBYFLOAT a 1 => -ERR value is not a valid float
        OBJECT ENCODING b => "embstr"
        "#,
    );
}

#[test]
fn unknown_and_wrong_arity() {
    check(
        r#"
        FOO a b => -ERR unknown command 'FOO', with args beginning with: 'a' 'b'
        GET => -ERR wrong number of arguments for 'get' command
        GET a b => -ERR wrong number of arguments for 'get' command
        MSET a 1 b => -ERR wrong number of arguments for 'mset' command
        OBJECT => -ERR wrong number of arguments for 'object' command
        OBJECT FOO a => -ERR unknown subcommand 'FOO'. Try OBJECT HELP.
        OBJECT ENCODING => -ERR wrong number of arguments for 'object|encoding' command
        "#,
    );
}
