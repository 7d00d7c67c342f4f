//! The table agrees with itself, and its replies have Redis's shapes.

use std::prelude::rust_2024::*;
use std::{format, panic, vec};

use super::*;
use crate::Command;
use crate::table::{all, keys, lookup};

fn args(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn every_spec() -> impl Iterator<Item = &'static Spec> {
    all().iter().flat_map(|spec| core::iter::once(spec).chain(spec.subcommands))
}

#[test]
fn table_is_sorted_whole_and_found_by_name() {
    assert!(all().is_sorted_by(|a, b| a.name < b.name));
    for spec in all() {
        assert_eq!(
            lookup(spec.name.to_ascii_uppercase().as_bytes()).map(|found| found.name),
            Some(spec.name)
        );
        assert!(spec.subcommands.is_sorted_by(|a, b| a.name < b.name), "{}", spec.name);
        for sub in spec.subcommands {
            assert_eq!(named(sub.name.as_bytes()).map(|found| found.name), Some(sub.name));
        }
    }
    for name in ["", "gett", "ge", "get ", "config|get", "a name that is much longer than any command's"] {
        assert!(lookup(name.as_bytes()).is_none(), "{name:?}");
    }
    for spec in every_spec() {
        assert!(spec.arity != 0 && !spec.group.is_empty() && !spec.since.is_empty(), "{}", spec.name);
        assert!(spec.summary.ends_with('.') && !spec.complexity.is_empty(), "{}", spec.name);
        assert_eq!(spec.keys.first == 0, spec.key_specs.is_empty(), "{}", spec.name);
    }
}

/// The waves W0 and W1.
const NAMES: &str = "append asking auth client cluster command config copy dbsize decr decrby del discard echo exec \
    exists expire expireat expiretime flushall flushdb get getdel getex getrange getset hello incr incrby incrbyfloat \
    info keys lcs mget mset msetnx multi object persist pexpire pexpireat pexpiretime ping psetex pttl quit randomkey \
    readonly readwrite rename renamenx reset role scan select set setex setnx setrange strlen substr time touch ttl \
    type unlink unwatch wait waitaof watch";

#[test]
fn table_holds_the_first_two_waves() {
    let names: Vec<&str> = all().iter().map(|spec| spec.name).collect();
    assert_eq!(names, NAMES.split_ascii_whitespace().collect::<Vec<_>>());
}

#[test]
fn keys_of_the_table_are_keys_of_the_command() {
    for line in [
        "GET a",
        "MGET a b c",
        "MSET a 1 b 2",
        "SET a 1 EX 5",
        "RENAME a b",
        "COPY a b REPLACE",
        "LCS a b LEN",
        "OBJECT ENCODING a",
        "DEL a b",
        "EXPIRE a 5 NX",
        "FLUSHALL",
        "GETEX a PERSIST",
    ] {
        let args = args(line);
        let spec = table::resolve(&args).unwrap();
        let command = Command::parse(&args).unwrap();
        assert!(keys(spec, &args).eq(command.keys()), "{line}");
        let mut from_specs: Vec<&Bytes> =
            spec.key_specs.iter().flat_map(|part| spec_keys(part, &args)).collect();
        from_specs.dedup();
        assert!(from_specs.into_iter().eq(command.keys()), "{line}");
    }
}

#[test]
fn access_agrees_with_the_flags() {
    use crate::Access;
    use crate::table::Flags;
    for spec in every_spec().filter(|spec| spec.is_data()) {
        let line = match spec.name {
            "object|encoding" => "object encoding a".to_string(),
            "flushall" | "flushdb" => spec.name.to_string(),
            name => format!("{name}{}", " 5".repeat(spec.arity.unsigned_abs() as usize - 1)),
        };
        let line = line.replace("copy 5 5", "copy 5 6");
        let command = Command::parse(&args(&line)).unwrap();
        // GETEX without an option reads.
        let writes = spec.flags.has(Flags::WRITE) && spec.name != "getex";
        assert_eq!(command.access() == Access::Write, writes, "{line}");
        assert_ne!(spec.flags.has(Flags::WRITE), spec.flags.has(Flags::READONLY), "{line}");
    }
}

#[test]
fn count_info_list_and_getkeys_answer_as_redis_does() {
    let check = |line: &str, expected: Value| assert_eq!(command(&args(line)), expected, "{line}");
    let bulks =
        |names: &str| Value::Array(names.split(' ').map(|name| Value::bulk(name.to_string())).collect());
    check("COMMAND COUNT", Value::Integer(all().len() as i64));
    check("COMMAND INFO foo", Value::Array(vec![Value::Null]));
    check("COMMAND GETKEYS MSET a 1 b 2", bulks("a b"));
    check("COMMAND GETKEYS RENAME a b", bulks("a b"));
    check("COMMAND GETKEYS OBJECT ENCODING a", bulks("a"));
    check("COMMAND GETKEYS FOO a", Value::error("ERR Invalid command specified"));
    check("COMMAND GETKEYS PING a", Value::error("ERR The command has no key arguments"));
    check("COMMAND GETKEYS GET a b", Value::error("ERR Invalid number of arguments specified for command"));
    check("COMMAND GETKEYS", error::wrong_arity("command|getkeys"));
    check("COMMAND FOO", error::unknown_subcommand(&args("COMMAND FOO")));
    check("COMMAND LIST FILTERBY MODULE m", Value::Array(vec![]));
    check("COMMAND LIST FILTERBY PATTERN getd*", bulks("getdel"));
    check("COMMAND LIST FOO", error::syntax());
    let get = Value::Array(vec![
        Value::bulk("get"),
        Value::Integer(2),
        Value::Set(vec![Value::simple("readonly"), Value::simple("fast")]),
        Value::Integer(1),
        Value::Integer(1),
        Value::Integer(1),
        Value::Set(["@read", "@string", "@fast"].map(Value::simple).to_vec()),
        Value::Set(vec![]),
        Value::Set(vec![key_spec(&lookup(b"get").unwrap().key_specs[0])]),
        Value::Set(vec![]),
    ]);
    check("command info GET", Value::Array(vec![get]));
}

#[test]
fn syntaxes_become_argument_trees() {
    let show = |syntax| {
        fn one(argument: &syntax::Argument) -> String {
            let token = argument.token.map(|token| format!("{token}=")).unwrap_or_default();
            let parts: Vec<String> = argument.parts.iter().map(one).collect();
            let parts = if parts.is_empty() { String::new() } else { format!("({})", parts.join(" ")) };
            let optional = if argument.optional { "?" } else { "" };
            let multiple = if argument.multiple { "*" } else { "" };
            format!("{token}{}:{}{parts}{optional}{multiple}", argument.name, argument.kind)
        }
        syntax::parse(syntax).iter().map(one).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(show(""), "");
    assert_eq!(show("key value"), "key:key value:string");
    assert_eq!(show("key [key ...]"), "key:key*");
    assert_eq!(show("key value [key value ...]"), "key_value:block(key:key value:string)*");
    assert_eq!(show("[message]"), "message:string?");
    assert_eq!(
        show("[NX | XX] [GET]"),
        "nx_or_xx:oneof(NX=nx:pure-token XX=xx:pure-token)? GET=get:pure-token?"
    );
    assert_eq!(
        show("[EX seconds | KEEPTTL]"),
        "seconds_or_keepttl:oneof(EX=seconds:integer KEEPTTL=keepttl:pure-token)?"
    );
    assert_eq!(show("ON | OFF"), "on_or_off:oneof(ON=on:pure-token OFF=off:pure-token)");
    assert_eq!(show("[AUTH username password]"), "AUTH=auth:block(username:string password:string)?",);
    assert_eq!(show("[section [section ...]]"), "section:string?*");
    assert_eq!(show("[ID client-id [client-id ...]]"), "ID=client-id:integer?*");
}

#[test]
fn docs_and_help_cover_every_entry() {
    let Value::Map(entries) = command(&args("COMMAND DOCS")) else { panic!("not a map") };
    assert_eq!(entries.len(), all().len());
    let Value::Map(some) = command(&args("COMMAND DOCS get foo config|get")) else { panic!("not a map") };
    assert_eq!(some.len(), 2);
    let Value::Array(lines) = help(lookup(b"object").unwrap()) else { panic!("not a list") };
    assert_eq!(lines[0], Value::simple("OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    assert_eq!(lines[1], Value::simple("ENCODING key"));
}
