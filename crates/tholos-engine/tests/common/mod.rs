//! The one helper through which command tests go: a script of commands and their replies.

use bytes::Bytes;
use tholos_engine::{Access, Command, Context, Keyspace};
use tholos_resp::Value;

/// Runs a script against one keyspace of all slots and compares every reply.
///
/// A line is `COMMAND args => reply`, `@ milliseconds` (sets the time) or `# remark`. Arguments with spaces stand
/// in double quotes. Replies are written as [`show`] does.
pub(crate) fn check(script: &str) {
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

/// Parses and carries out one line, reads by the read path.
pub(crate) fn run(keyspace: &mut Keyspace, context: &Context, line: &str) -> Value {
    match Command::parse(&words(line)) {
        Err(error) => error,
        Ok(command) if command.access() == Access::Read => keyspace.read(context.time_ms, &command),
        Ok(command) => keyspace.apply(context, &command),
    }
}

/// Splits a line into arguments; double quotes keep spaces and may be empty.
pub(crate) fn words(line: &str) -> Vec<Bytes> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("a closing quote"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(Bytes::copy_from_slice(word.as_bytes()));
        rest = after.trim_start();
    }
    words
}

/// A reply on one line: `OK`, `(error)` as `-ERR …`, `7`, `"text"`, `nil`, `[1 "a"]`, `{"len": 2}`.
pub(crate) fn show(value: &Value) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let list = |values: &[Value]| values.iter().map(show).collect::<Vec<_>>().join(" ");
    match value {
        Value::Simple(bytes) => text(bytes),
        Value::Error(bytes) => format!("-{}", text(bytes)),
        Value::Integer(number) => number.to_string(),
        Value::Bulk(bytes) => format!("\"{}\"", text(bytes)),
        Value::Array(values) => format!("[{}]", list(values)),
        Value::Null => "nil".to_string(),
        Value::NullArray => "nil-array".to_string(),
        Value::Map(pairs) => {
            let pairs: Vec<String> =
                pairs.iter().map(|(key, value)| format!("{}: {}", show(key), show(value))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => format!("{other:?}"),
    }
}
