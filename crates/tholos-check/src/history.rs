//! Histories as text: one operation a line, so that a run can be kept, looked through with grep, and checked again.
//!
//! ```text
//! tholos history 1
//! 3 1200 4410 key:7 SET c3.12 ok
//! 5 1310 4502 key:7 GET val:c3.12
//! 3 5000 - key:9 INCRBY 1 unknown
//! ```
//!
//! Words are divided by one space: client, time of the call, time of the return or `-`, key, command, its argument if
//! it has one, outcome. Bytes that are no printable ASCII, the space, `\` and quotes are escaped as `\x20`, `\\`. Lines
//! that begin with `#` and empty lines say nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::{Kind, Operation, Outcome, Reply};

/// The first line of a history.
pub const HISTORY_HEADER: &str = "tholos history 1";

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryError {
    /// In words.
    pub reason: String,
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl core::error::Error for HistoryError {}

/// Appends an operation to `text`, with its line end.
pub fn write_operation(operation: &Operation, text: &mut String) {
    use core::fmt::Write as _;
    let mut write = || {
        write!(text, "{} {} ", operation.client, operation.invoked)?;
        match operation.returned {
            Some(returned) => write!(text, "{returned} ")?,
            None => text.write_str("- ")?,
        }
        escape(&operation.key, text)?;
        match &operation.kind {
            Kind::Get => text.write_str(" GET")?,
            Kind::Set(value) => with_bytes(" SET ", value, text)?,
            Kind::SetNx(value) => with_bytes(" SETNX ", value, text)?,
            Kind::Del => text.write_str(" DEL")?,
            Kind::IncrBy(delta) => write!(text, " INCRBY {delta}")?,
            Kind::Append(suffix) => with_bytes(" APPEND ", suffix, text)?,
            Kind::GetDel => text.write_str(" GETDEL")?,
            Kind::GetSet(value) => with_bytes(" GETSET ", value, text)?,
        }
        match &operation.outcome {
            Outcome::Ok(Reply::Ok) => text.write_str(" ok\n"),
            Outcome::Ok(Reply::Nil) => text.write_str(" nil\n"),
            Outcome::Ok(Reply::Integer(number)) => writeln!(text, " int:{number}"),
            Outcome::Ok(Reply::Value(value)) => {
                with_bytes(" val:", value, text)?;
                text.write_char('\n')
            }
            Outcome::Ok(Reply::Refused) => text.write_str(" refused\n"),
            Outcome::Unknown => text.write_str(" unknown\n"),
            Outcome::Failed => text.write_str(" failed\n"),
        }
    };
    write().expect("writing to a string does not fail");
}

fn with_bytes(before: &str, bytes: &[u8], text: &mut String) -> fmt::Result {
    text.push_str(before);
    escape(bytes, text)
}

fn escape(bytes: &[u8], text: &mut String) -> fmt::Result {
    use core::fmt::Write as _;
    for &byte in bytes {
        match byte {
            b' ' => text.push_str("\\x20"),
            _ => write!(text, "{}", core::ascii::escape_default(byte))?,
        }
    }
    Ok(())
}

/// Reads a line; `None` if it says nothing (a comment, the header, an empty line).
///
/// # Errors
/// [`HistoryError`] with the word that cannot be read.
pub fn read_operation(line: &str) -> Result<Option<Operation>, HistoryError> {
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() || line.starts_with('#') || line == HISTORY_HEADER {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let mut word = |what: &str| words.next().ok_or_else(|| refuse(format!("the line has no {what}")));
    let client = number(word("client")?, "client")?;
    let invoked = number(word("time of the call")?, "time of the call")?;
    let returned = match word("time of the return")? {
        "-" => None,
        time => Some(number(time, "time of the return")?),
    };
    if returned.is_some_and(|returned| returned < invoked) {
        return Err(refuse(format!("it returned before its call: \"{line}\"")));
    }
    let key = unescape(word("key")?)?;
    let kind = match word("command")? {
        "GET" => Kind::Get,
        "SET" => Kind::Set(unescape(word("value")?)?),
        "SETNX" => Kind::SetNx(unescape(word("value")?)?),
        "DEL" => Kind::Del,
        "INCRBY" => Kind::IncrBy(number(word("delta")?, "delta")?),
        "APPEND" => Kind::Append(unescape(word("suffix")?)?),
        "GETDEL" => Kind::GetDel,
        "GETSET" => Kind::GetSet(unescape(word("value")?)?),
        other => return Err(refuse(format!("\"{other}\" is no command of a history"))),
    };
    let outcome = match word("outcome")? {
        "ok" => Outcome::Ok(Reply::Ok),
        "nil" => Outcome::Ok(Reply::Nil),
        "refused" => Outcome::Ok(Reply::Refused),
        "unknown" => Outcome::Unknown,
        "failed" => Outcome::Failed,
        other => match (other.strip_prefix("int:"), other.strip_prefix("val:")) {
            (Some(text), _) => Outcome::Ok(Reply::Integer(number(text, "integer")?)),
            (_, Some(text)) => Outcome::Ok(Reply::Value(unescape(text)?)),
            _ => return Err(refuse(format!("\"{other}\" is no outcome"))),
        },
    };
    match words.next() {
        Some(extra) => Err(refuse(format!("\"{extra}\" follows the outcome"))),
        None => Ok(Some(Operation { client, key, kind, invoked, returned, outcome })),
    }
}

fn number<T: core::str::FromStr>(text: &str, what: &str) -> Result<T, HistoryError> {
    text.parse().map_err(|_| refuse(format!("\"{text}\" is no {what}")))
}

fn unescape(text: &str) -> Result<Vec<u8>, HistoryError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let broken = || refuse(format!("\"{text}\" has an escape that cannot be read"));
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next().ok_or_else(broken)? {
            b't' => b'\t',
            b'r' => b'\r',
            b'n' => b'\n',
            b'x' => {
                let mut digit = || {
                    let digit =
                        char::from(rest.next().ok_or_else(broken)?).to_digit(16).ok_or_else(broken)?;
                    Ok(u8::try_from(digit).expect("a hex digit is below 16"))
                };
                digit()? << 4 | digit()?
            }
            same @ (b'\\' | b'\'' | b'"') => same,
            _ => return Err(broken()),
        });
    }
    Ok(bytes)
}

fn refuse(reason: impl Into<String>) -> HistoryError {
    HistoryError { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use alloc::vec;

    #[test]
    fn what_is_written_is_read_again() {
        let all_bytes: Vec<u8> = (0..=255).collect();
        let kinds = [
            Kind::Get,
            Kind::Set(all_bytes.clone()),
            Kind::SetNx(vec![]),
            Kind::Del,
            Kind::IncrBy(-3),
            Kind::Append(b"a b".to_vec()),
            Kind::GetDel,
            Kind::GetSet(b"x".to_vec()),
        ];
        let outcomes = [
            Outcome::Ok(Reply::Ok),
            Outcome::Ok(Reply::Nil),
            Outcome::Ok(Reply::Integer(i64::MIN)),
            Outcome::Ok(Reply::Value(all_bytes.clone())),
            Outcome::Ok(Reply::Value(vec![])),
            Outcome::Ok(Reply::Refused),
            Outcome::Unknown,
            Outcome::Failed,
        ];
        for (kind, outcome) in kinds.iter().flat_map(|kind| outcomes.iter().map(move |o| (kind, o))) {
            for returned in [None, Some(u64::MAX)] {
                let operation = Operation {
                    client: 7,
                    key: all_bytes.clone(),
                    kind: kind.clone(),
                    invoked: 12,
                    returned,
                    outcome: outcome.clone(),
                };
                let mut text = String::new();
                write_operation(&operation, &mut text);
                assert_eq!(read_operation(&text), Ok(Some(operation)), "{text}");
            }
        }
    }

    #[test]
    fn what_says_nothing_is_passed_over_and_what_is_broken_is_named() {
        for line in ["", "# a note", HISTORY_HEADER, "\n"] {
            assert_eq!(read_operation(line), Ok(None));
        }
        for (line, word) in [
            ("x 1 2 k GET nil", "client"),
            ("1 1", "time of the return"),
            ("1 5 2 k GET nil", "before its call"),
            ("1 1 2 k FLY nil", "FLY"),
            ("1 1 2 k SET nil", "outcome"),
            ("1 1 2 k GET val:\\xz1", "escape"),
            ("1 1 2 k GET nil more", "more"),
            ("1 1 2 k GET fine", "fine"),
        ] {
            let error = read_operation(line).expect_err(line);
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
    }
}
