//! The replies to COMMAND, and HELP of every container: the command table as clients ask for it.
//!
//! Shapes are those of Redis 7.0. The words are ours, and argument trees are read from each entry's `syntax`.

mod syntax;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_resp::Value;

use crate::cmd::is_option;
use crate::error;
use crate::glob::Glob;
use crate::table::{self, KeySpec, Spec};

/// Answers COMMAND and its subcommands. `args` is the whole line, the name first.
#[must_use]
pub fn command(args: &[Bytes]) -> Value {
    let spec = match table::resolve(args) {
        Ok(spec) => spec,
        Err(error) => return error,
    };
    let rest = args.get(2..).unwrap_or_default();
    match spec.name {
        "command" => Value::Array(table::all().iter().map(info).collect()),
        "command|count" => count(),
        "command|info" if rest.is_empty() => Value::Array(table::all().iter().map(info).collect()),
        "command|info" => {
            Value::Array(rest.iter().map(|name| named(name).map_or(Value::Null, info)).collect())
        }
        "command|docs" if rest.is_empty() => Value::Map(table::all().iter().map(docs).collect()),
        "command|docs" => Value::Map(rest.iter().filter_map(|name| named(name)).map(docs).collect()),
        "command|list" => list(rest).unwrap_or_else(|error| error),
        "command|getkeys" => get_keys(rest, false).unwrap_or_else(|error| error),
        "command|getkeysandflags" => get_keys(rest, true).unwrap_or_else(|error| error),
        "command|help" => help(spec),
        name => error::not_data(name),
    }
}

/// HELP of the container that `spec` is a part of, one line a status.
#[must_use]
pub fn help(spec: &'static Spec) -> Value {
    let name = spec.name.split('|').next().unwrap_or_default();
    let upper = name.to_ascii_uppercase();
    let mut lines = vec![text(&[&upper, " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"])];
    for sub in table::lookup(name.as_bytes()).map_or(&[][..], |container| container.subcommands) {
        let own = sub.name.split_once('|').map_or(sub.name, |(_, own)| own).to_ascii_uppercase();
        let space = if sub.syntax.is_empty() { "" } else { " " };
        lines.push(text(&[&own, space, sub.syntax]));
        lines.push(text(&["    ", sub.summary]));
    }
    Value::Array(lines.into_iter().map(|line| Value::Simple(line.into())).collect())
}

fn text(parts: &[&str]) -> String {
    parts.concat()
}

fn count() -> Value {
    Value::Integer(table::all().len() as i64)
}

/// A command by name, a subcommand as `config|get`.
fn named(name: &[u8]) -> Option<&'static Spec> {
    match name.iter().position(|byte| *byte == b'|') {
        None => table::lookup(name),
        Some(bar) => table::subcommand(table::lookup(&name[..bar])?, &name[bar + 1..]),
    }
}

fn statuses(names: impl Iterator<Item = &'static str>) -> Value {
    Value::Set(names.map(Value::simple).collect())
}

/// One entry as COMMAND INFO gives it: ten fields.
fn info(spec: &Spec) -> Value {
    Value::Array(vec![
        Value::bulk(spec.name),
        Value::Integer(spec.arity.into()),
        statuses(spec.flags.names()),
        Value::Integer(spec.keys.first.into()),
        Value::Integer(spec.keys.last.into()),
        Value::Integer(spec.keys.step.into()),
        statuses(spec.categories()),
        Value::Set(spec.tips.iter().map(|tip| Value::bulk(*tip)).collect()),
        Value::Set(spec.key_specs.iter().map(key_spec).collect()),
        Value::Set(spec.subcommands.iter().map(info).collect()),
    ])
}

fn key_spec(spec: &KeySpec) -> Value {
    let field = |name: &'static str, value: i16| (Value::bulk(name), Value::Integer(value.into()));
    let typed = |name: &'static str, fields: Vec<(Value, Value)>| {
        Value::Map(vec![(Value::bulk("type"), Value::bulk(name)), (Value::bulk("spec"), Value::Map(fields))])
    };
    let range = vec![field("lastkey", spec.last), field("keystep", spec.step), field("limit", 0)];
    Value::Map(vec![
        (Value::bulk("flags"), statuses(spec.flags.iter().copied())),
        (Value::bulk("begin_search"), typed("index", vec![field("index", spec.begin)])),
        (Value::bulk("find_keys"), typed("range", range)),
    ])
}

/// One entry as COMMAND DOCS gives it: its name and a map.
fn docs(spec: &'static Spec) -> (Value, Value) {
    let mut fields = vec![
        (Value::bulk("summary"), Value::bulk(spec.summary)),
        (Value::bulk("since"), Value::bulk(spec.since)),
        (Value::bulk("group"), Value::bulk(spec.group)),
        (Value::bulk("complexity"), Value::bulk(spec.complexity)),
    ];
    if !spec.syntax.is_empty() {
        fields.push((Value::bulk("arguments"), syntax::arguments(spec)));
    }
    if !spec.subcommands.is_empty() {
        let subcommands = spec.subcommands.iter().map(docs).collect();
        fields.push((Value::bulk("subcommands"), Value::Map(subcommands)));
    }
    (Value::bulk(spec.name), Value::Map(fields))
}

/// `COMMAND LIST [FILTERBY MODULE name | FILTERBY ACLCAT category | FILTERBY PATTERN pattern]`
fn list(rest: &[Bytes]) -> Result<Value, Value> {
    let with_subcommands =
        table::all().iter().flat_map(|spec| core::iter::once(spec).chain(spec.subcommands));
    let wanted: Vec<&Spec> = match rest {
        [] => with_subcommands.collect(),
        [filter, kind, _] if is_option(filter, "FILTERBY") && is_option(kind, "MODULE") => Vec::new(),
        [filter, kind, category] if is_option(filter, "FILTERBY") && is_option(kind, "ACLCAT") => {
            let in_category = |spec: &&Spec| {
                spec.categories().any(|own| category.eq_ignore_ascii_case(&own.as_bytes()[1..]))
            };
            with_subcommands.filter(in_category).collect()
        }
        [filter, kind, pattern] if is_option(filter, "FILTERBY") && is_option(kind, "PATTERN") => {
            let pattern = Glob::new(&pattern.to_ascii_lowercase());
            with_subcommands.filter(|spec| pattern.matches(spec.name.as_bytes())).collect()
        }
        _ => return Err(error::syntax()),
    };
    Ok(Value::Array(wanted.into_iter().map(|spec| Value::bulk(spec.name)).collect()))
}

/// COMMAND GETKEYS and GETKEYSANDFLAGS: the keys of the command line `line`.
fn get_keys(line: &[Bytes], with_flags: bool) -> Result<Value, Value> {
    let fail = |text: &'static str| Err(Value::error(text));
    let container = line.first().and_then(|name| table::lookup(name));
    let spec = container.and_then(|container| match line.get(1) {
        Some(sub) if !container.subcommands.is_empty() => table::subcommand(container, sub),
        _ => Some(container),
    });
    let Some(spec) = spec else { return fail("ERR Invalid command specified") };
    if spec.key_specs.is_empty() {
        return fail("ERR The command has no key arguments");
    }
    if !spec.takes(line.len()) {
        return fail("ERR Invalid number of arguments specified for command");
    }
    let mut keys = Vec::new();
    for key_spec in spec.key_specs {
        let flags = statuses(key_spec.flags.iter().copied());
        for key in spec_keys(key_spec, line) {
            let key = Value::Bulk(key.clone());
            keys.push(if with_flags { Value::Array(vec![key, flags.clone()]) } else { key });
        }
    }
    Ok(Value::Array(keys))
}

/// The keys that one key spec names.
fn spec_keys<'a>(spec: &KeySpec, line: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
    let begin = spec.begin.unsigned_abs() as usize;
    let end = match usize::try_from(spec.last) {
        Ok(last) => begin + last + 1,
        Err(_) => line.len(),
    };
    let keys = line.get(begin..end.min(line.len())).unwrap_or_default();
    keys.iter().step_by(spec.step.unsigned_abs().max(1) as usize)
}

#[cfg(test)]
mod tests;
