//! CONFIG: the settings that Redis's clients ask for, from a closed list. Per node, and not kept.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_engine::glob::Glob;
use tholos_engine::{error, introspect};
use tholos_resp::Value;

use super::super::Settings;
use super::connection::staleness;
use super::{Call, Reply, is};
use crate::event::Port;

pub(super) fn run(call: &mut Call) -> Reply {
    match call.spec.name {
        "config|get" => Ok(get(call)),
        "config|set" => set(call),
        "config|resetstat" => {
            call.gateway.reset_at = call.gateway.counters;
            Ok(Value::ok())
        }
        "config|rewrite" => Err(Value::error("ERR The server is running without a config file")),
        "config|help" => Ok(introspect::help(call.spec)),
        _ => Err(error::unknown_subcommand(call.args)),
    }
}

/// Every setting with its value. What has a fixed value says how this server behaves, in Redis's words.
fn all(call: &Call) -> Vec<(&'static str, Bytes)> {
    let (settings, config) = (&call.gateway.settings, call.view.config);
    let fixed = |value: &'static str| Bytes::from_static(value.as_bytes());
    let number = |value: u64| Bytes::from(format!("{value}"));
    let local = call.gateway.connections.get(&call.client).map_or("", |connection| &connection.local);
    let port = local.rsplit_once(':').map_or("0", |(_, port)| port);
    alloc::vec![
        ("save", fixed("")),
        ("appendonly", fixed("yes")),
        ("appendfsync", fixed("always")),
        ("maxmemory", number(settings.maxmemory)),
        ("maxmemory-policy", fixed("noeviction")),
        ("maxclients", number(settings.maxclients)),
        ("replica-read-staleness-ms", number(settings.replica_read_staleness.0)),
        ("databases", fixed("1")),
        ("timeout", fixed("0")),
        ("port", Bytes::from(String::from(port))),
        ("protected-mode", fixed("yes")),
        ("requirepass", settings.requirepass.clone().unwrap_or_default()),
        ("notify-keyspace-events", fixed("")),
        ("cluster-enabled", fixed(if call.port() == Port::Cluster { "yes" } else { "no" })),
        ("cluster-node-timeout", number(config.election_timeout.0)),
        ("cluster-require-full-coverage", fixed("no")),
    ]
}

/// CONFIG GET pattern [pattern ...]
fn get(call: &Call) -> Value {
    let patterns: Vec<Glob> =
        call.args[2..].iter().map(|pattern| Glob::new(&pattern.to_ascii_lowercase())).collect();
    let wanted = |name: &str| patterns.iter().any(|pattern| pattern.matches(name.as_bytes()));
    let found = all(call).into_iter().filter(|(name, _)| wanted(name));
    Value::Map(found.map(|(name, value)| (Value::bulk(name), Value::Bulk(value))).collect())
}

/// CONFIG SET name value [name value ...]: all or nothing.
fn set(call: &mut Call) -> Reply {
    let mut settings = call.gateway.settings.clone();
    let known = all(call);
    let pairs = &call.args[2..];
    if !pairs.len().is_multiple_of(2) {
        return Err(error::syntax());
    }
    let mut seen: Vec<&str> = Vec::new();
    for pair in pairs.chunks(2) {
        let Some((name, value)) = known.iter().find(|(name, _)| is(&pair[0], name)) else {
            let before = "ERR Unknown option or number of arguments for CONFIG SET - '";
            return Err(super::quoting(before, &pair[0], "'"));
        };
        if seen.contains(name) {
            return Err(failed(name, "duplicate parameter"));
        }
        seen.push(name);
        change(&mut settings, name, &pair[1], value)?;
    }
    call.gateway.settings = settings;
    Ok(Value::ok())
}

fn change(settings: &mut Settings, name: &str, value: &Bytes, present: &Bytes) -> Result<(), Value> {
    match name {
        "maxmemory" => {
            settings.maxmemory =
                memory(value).ok_or_else(|| failed(name, "argument must be a memory value"))?;
        }
        "replica-read-staleness-ms" => {
            settings.replica_read_staleness = staleness(value)
                .ok_or_else(|| failed(name, "argument must be milliseconds, at most 86400000"))?;
        }
        "requirepass" => settings.requirepass = (!value.is_empty()).then(|| value.clone()),
        // Tools set what they need without asking; what is so already is no error.
        _ if value.eq_ignore_ascii_case(present) => {}
        _ => return Err(failed(name, "can't set immutable config")),
    }
    Ok(())
}

fn failed(name: &str, reason: &str) -> Value {
    Value::error(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}

/// A number of bytes as Redis writes it: `100`, `1k` (1000), `1kb` (1024), and so on.
fn memory(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = text.split_at(digits);
    let number: u64 = core::str::from_utf8(digits).ok()?.parse().ok()?;
    let unit = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_redis_reads_it() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1b", Some(1)),
            ("1K", Some(1000)),
            ("1kb", Some(1024)),
            ("2Mb", Some(2 << 20)),
            ("1g", Some(1_000_000_000)),
            ("3gb", Some(3 << 30)),
            ("", None),
            ("x", None),
            ("-1", None),
            ("1.5", None),
            ("1xb", None),
            ("18446744073709551615kb", None),
        ] {
            assert_eq!(memory(text.as_bytes()), bytes, "{text:?}");
        }
    }
}
