//! Commands and their replies, family by family. Redis 7.0.15 gave every reply here too, but those after an `@`.

mod common;

use common::{run, show, words};
use tholos_engine::{Access, Command, Context, Keyspace, Limits, Transaction, check_limits};

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

#[test]
fn several_keys() {
    check(
        r#"
        MSET a 1 b two c "" => OK
        MGET a nokey b c a => ["1" nil "two" "" "1"]
        MSETNX d 1 a 2 => 0
        EXISTS d => 0
        MSETNX d 1 e 2 => 1
        MSETNX d 1 f => -ERR wrong number of arguments for 'msetnx' command
        MSET d => -ERR wrong number of arguments for 'mset' command
        MSET a 1 a 2 => OK
        GET a => "2"
        TOUCH a b nokey => 2
        UNLINK a b nokey a => 2
        SETNX a 1 => 1
        SETNX a 2 => 0
        GETSET a 3 => "1"
        GETSET nokey 3 => nil
        GETDEL a => "3"
        GETDEL a => nil
        EXPIRE d 100 => 1
        MSET d 5 => OK
        TTL d => -1
        EXPIRE d 100 => 1
        GETSET d 6 => "5"
        TTL d => -1
        "#,
    );
}

#[test]
fn parts_of_values() {
    check(
        r#"
        APPEND a Hello => 5
        APPEND a " World" => 11
        GET a => "Hello World"
        STRLEN a => 11
        STRLEN nokey => 0
        GETRANGE a 0 4 => "Hello"
        GETRANGE a -5 -1 => "World"
        GETRANGE a 5 2 => ""
        GETRANGE a 0 -100 => "H"
        GETRANGE a -1 -5 => ""
        GETRANGE a 100 200 => ""
        GETRANGE a -100 200 => "Hello World"
        GETRANGE a x 1 => -ERR value is not an integer or out of range
        GETRANGE nokey 0 1 => ""
        SUBSTR a 1 2 => "el"
        SETRANGE a 6 Redis => 11
        GET a => "Hello Redis"
        SETRANGE a -1 x => -ERR offset is out of range
        SETRANGE a x x => -ERR value is not an integer or out of range
        SETRANGE nokey 5 "" => 0
        EXISTS nokey => 0
        SETRANGE a 100 "" => 11
        SETRANGE b 3 x => 4
        STRLEN b => 4
        SETRANGE a 67108863 xx => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE a 9223372036854775807 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SET n 1234 => OK
        GETRANGE n 1 2 => "23"
        APPEND n 5 => 5
        INCR n => 12346
        SETRANGE n 0 9 => 5
        GET n => "92346"
        "#,
    );
}

#[test]
fn encodings() {
    check(
        r#"
        SET a 123 => OK
        OBJECT ENCODING a => "int"
        SET a 0123 => OK
        OBJECT ENCODING a => "embstr"
        SET a 12345678901234567890 => OK
        OBJECT ENCODING a => "embstr"
        SET a aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeee => OK
        OBJECT ENCODING a => "embstr"
        SET a aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeee => OK
        OBJECT ENCODING a => "raw"
        SET a 1 => OK
        APPEND a 2 => 2
        OBJECT ENCODING a => "raw"
        INCR a => 13
        OBJECT ENCODING a => "int"
        SETRANGE a 0 1 => 2
        OBJECT ENCODING a => "raw"
        APPEND b 5 => 1
        OBJECT ENCODING b => "int"
        SETRANGE c 0 5 => 1
        OBJECT ENCODING c => "raw"
        COPY c d => 1
        OBJECT ENCODING d => "raw"
        RENAME b e => OK
        OBJECT ENCODING e => "int"
        INCRBYFLOAT e 1 => "6"
        OBJECT ENCODING e => "embstr"
        OBJECT ENCODING nokey => nil
        TYPE e => string
        TYPE nokey => none
        "#,
    );
}

#[test]
fn rename_and_copy() {
    check(
        r#"
        RENAME nokey a => -ERR no such key
        SET a 1 EX 100 => OK
        SET b 2 => OK
        RENAME a b => OK
        GET b => "1"
        TTL b => 100
        EXISTS a => 0
        RENAME b b => OK
        RENAMENX b b => 0
        SET a 3 => OK
        RENAMENX a b => 0
        RENAMENX a c => 1
        RENAMENX a c => -ERR no such key
        COPY b c => 0
        COPY b c REPLACE => 1
        GET c => "1"
        TTL c => 100
        COPY nokey d => 0
        COPY b b => -ERR source and destination objects are the same
        COPY nokey nokey REPLACE => -ERR source and destination objects are the same
        COPY b d DB 0 => 1
        COPY b d DB 1 => -ERR DB index is out of range
        COPY b d DB x => -ERR value is not an integer or out of range
        COPY b d DB 3000000000 => -ERR value is out of range, value must between -2147483648 and 2147483647
        COPY b d DB => -ERR syntax error
        COPY b d FOO => -ERR syntax error
        "#,
    );
}

#[test]
fn expire_conditions() {
    check(
        r#"
        @ 1000000
        EXPIRE nokey 100 => 0
        SET a 1 => OK
        EXPIRE a 100 XX => 0
        EXPIRE a 100 GT => 0
        EXPIRE a 100 LT => 1
        EXPIRE a 200 NX => 0
        EXPIRE a 200 LT => 0
        EXPIRE a 200 GT => 1
        EXPIRE a 100 GT => 0
        EXPIRE a 200 GT => 0
        EXPIRE a 200 LT => 0
        EXPIRE a 100 XX LT => 1
        TTL a => 100
        PTTL a => 100000
        EXPIRETIME a => 1100
        PEXPIRETIME a => 1100000
        PERSIST a => 1
        PERSIST a => 0
        TTL a => -1
        PTTL a => -1
        EXPIRETIME a => -1
        TTL nokey => -2
        PEXPIRETIME nokey => -2
        PEXPIRE a 1499 => 1
        TTL a => 1
        PEXPIRE a 1500 => 1
        TTL a => 2
        EXPIREAT a 1010 => 1
        TTL a => 10
        PEXPIREAT a 1010001 => 1
        PTTL a => 10001
        EXPIRE a 10 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE a 10 NX GT => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE a 10 GT LT => -ERR GT and LT options at the same time are not compatible
        EXPIRE a x FOO => -ERR Unsupported option FOO
        EXPIRE a x => -ERR value is not an integer or out of range
        EXPIRE a 9223372036854775807 => -ERR invalid expire time in 'expire' command
        EXPIRE a -9223372036854775808 => -ERR invalid expire time in 'expire' command
        PEXPIRE a 9223372036854775807 => -ERR invalid expire time in 'pexpire' command
        PEXPIREAT a 9223372036854775807 => 1
        PEXPIREAT a -9223372036854775808 => 1
        EXISTS a => 0
        SET a 1 => OK
        EXPIRE a 0 => 1
        EXISTS a => 0
        SET a 1 => OK
        EXPIRE a -1 NX => 1
        EXISTS a => 0
        "#,
    );
}

#[test]
fn getex_options() {
    check(
        r#"
        @ 1000000
        GETEX nokey EX x => nil
        GETEX nokey FOO => -ERR syntax error
        SET a 1 EX 100 => OK
        GETEX a => "1"
        TTL a => 100
        GETEX a EX 10 => "1"
        TTL a => 10
        GETEX a PX 10 => "1"
        PTTL a => 10
        GETEX a EXAT 1010 => "1"
        TTL a => 10
        GETEX a PERSIST => "1"
        TTL a => -1
        GETEX a PXAT 1010000 => "1"
        TTL a => 10
        GETEX a EX 0 => -ERR invalid expire time in 'getex' command
        GETEX a EX x => -ERR value is not an integer or out of range
        GETEX a EX => -ERR syntax error
        GETEX a EX 1 PERSIST => -ERR syntax error
        GETEX a PERSIST PERSIST => "1"
        GETEX a KEEPTTL => -ERR syntax error
        GETEX a PXAT 1 => "1"
        EXISTS a => 0
        "#,
    );
}

#[test]
fn longest_common_subsequence() {
    check(
        r#"
        MSET key1 ohmytext key2 mynewtext => OK
        LCS key1 key2 => "mytext"
        LCS key1 key2 LEN => 6
        LCS key1 key2 IDX => {"matches": [[[4 7] [5 8]] [[2 3] [0 1]]], "len": 6}
        LCS key1 key2 IDX MINMATCHLEN 4 => {"matches": [[[4 7] [5 8]]], "len": 6}
        LCS key1 key2 IDX MINMATCHLEN 4 WITHMATCHLEN => {"matches": [[[4 7] [5 8] 4]], "len": 6}
        LCS key1 key2 IDX MINMATCHLEN -5 => {"matches": [[[4 7] [5 8]] [[2 3] [0 1]]], "len": 6}
        LCS key1 key2 IDX LEN => -ERR If you want both the length and indexes, please just use IDX.
        LCS key1 key2 FOO => -ERR syntax error
        LCS key1 key2 MINMATCHLEN => -ERR syntax error
        LCS key1 key2 MINMATCHLEN x => -ERR value is not an integer or out of range
        LCS key1 nokey => ""
        LCS key1 nokey LEN => 0
        LCS key1 nokey IDX => {"matches": [], "len": 0}
        LCS key1 key1 => "ohmytext"
        SETRANGE big 9000 x => 9001
        LCS big big LEN => -ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len
        "#,
    );
}

#[test]
fn flush() {
    check(
        r#"
        MSET a 1 b 2 => OK
        FLUSHALL FOO => -ERR syntax error
        EXISTS a b => 2
        FLUSHALL => OK
        EXISTS a b => 0
        SET a 1 EX 10 => OK
        flushdb async => OK
        FLUSHDB SYNC => OK
        EXISTS a => 0
        "#,
    );
}

#[test]
fn limits_are_on_keys_and_on_values() {
    let check = |line: &str, expected: Option<&str>| {
        let command = Command::parse(&words(line)).unwrap();
        let limits = Limits { key_bytes_max: 3, value_bytes_max: 5 };
        let refused = check_limits(&command, &limits).err().map(|error| show(&error));
        assert_eq!(refused.as_deref(), expected, "{line}");
    };
    let (key, value) = (
        Some("-ERR key is longer than the limit of 3 bytes"),
        Some("-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
    );
    check("SET abc 12345", None);
    check("SET abcd 1", key);
    check("SET abc 123456", value);
    check("MGET a abcd", key);
    check("MSET abc 1 a 123456", value);
    check("APPEND a 123456", value);
    check("SETRANGE a 0 123456", value);
    check("RENAME a abcd", key);
    assert_eq!(Limits::default(), Limits { key_bytes_max: 65_536, value_bytes_max: 67_108_864 });
}

#[test]
fn queued_commands_keep_their_errors_for_exec() {
    let mut keyspace = Keyspace::new(0..16384, 7);
    let queue = |line: &str| Command::queue(&words(line));
    assert_eq!(show(&queue("SET a").unwrap_err()), "-ERR wrong number of arguments for 'set' command");
    assert!(queue("NOSUCH").is_err() && queue("PING").is_err());
    let wrong = queue("RENAME a b").unwrap();
    assert_eq!(wrong.access(), Access::Write);
    let wrong = queue("SET a 1 FOO").unwrap();
    assert_eq!((wrong.access(), wrong.keys().cloned().collect()), (Access::Read, words("a")));
    let transaction = Transaction {
        watched: vec![],
        commands: vec![queue("SET a 1").unwrap(), wrong, queue("GET a").unwrap()],
    };
    assert_eq!(transaction.access(), Access::Write);
    let context = Context { time_ms: 1, seed: 0, index: 1, position: 0 };
    assert_eq!(show(&transaction.apply(&context, &mut keyspace)), "[OK -ERR syntax error \"1\"]");
}
