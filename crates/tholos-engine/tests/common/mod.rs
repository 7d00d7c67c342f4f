//! Command lines and replies as text, for tests.

use bytes::Bytes;
use tholos_engine::{Access, Command, Context, Keyspace};
use tholos_resp::Value;

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
