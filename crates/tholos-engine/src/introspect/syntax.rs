//! From an entry's syntax, as manuals write it, to the tree of arguments that COMMAND DOCS answers.
//!
//! ```text
//! syntax    = item*
//! item      = word | TOKEN word* | '[' syntax ('|' syntax)* ']'       brackets are optional, or one of several
//! ```
//!
//! A word in small letters is an argument, one in capitals a token written as it stands; a token takes the words up
//! to the next token or bracket as its arguments. Brackets that repeat what stands before them, with `...`, mean
//! that it may come many times: `key [key ...]`, `key value [key value ...]`. Bars outside of brackets divide the
//! whole.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use tholos_resp::Value;

use crate::table::Spec;

/// One argument, or a group of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) token: Option<&'static str>,
    pub(super) optional: bool,
    pub(super) multiple: bool,
    pub(super) parts: Vec<Argument>,
}

/// The `arguments` of COMMAND DOCS.
pub(super) fn arguments(spec: &'static Spec) -> Value {
    let key_specs = spec.key_specs.len();
    let mut keys = 0;
    Value::Array(parse(spec.syntax).iter().map(|argument| reply(argument, key_specs, &mut keys)).collect())
}

fn reply(argument: &Argument, key_specs: usize, keys: &mut usize) -> Value {
    let mut fields = vec![
        (Value::bulk("name"), Value::bulk(argument.name.clone())),
        (Value::bulk("type"), Value::bulk(argument.kind)),
    ];
    if argument.kind == "key" {
        // The last key spec covers all further keys.
        let index = (*keys).min(key_specs.saturating_sub(1));
        fields.push((Value::bulk("key_spec_index"), Value::Integer(index as i64)));
        *keys += 1;
    }
    if let Some(token) = argument.token {
        fields.push((Value::bulk("token"), Value::bulk(token)));
    }
    let flags = [("optional", argument.optional), ("multiple", argument.multiple)];
    let flags: Vec<Value> =
        flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| Value::simple(name)).collect();
    if !flags.is_empty() {
        fields.push((Value::bulk("flags"), Value::Set(flags)));
    }
    if !argument.parts.is_empty() {
        let parts = argument.parts.iter().map(|part| reply(part, key_specs, keys)).collect();
        fields.push((Value::bulk("arguments"), Value::Array(parts)));
    }
    Value::Map(fields)
}

/// Reads a whole syntax.
pub(super) fn parse(syntax: &'static str) -> Vec<Argument> {
    let mut words = words(syntax);
    words.reverse();
    let mut alternatives = alternatives(&mut words);
    if alternatives.len() > 1 {
        return vec![one_of(alternatives.into_iter().map(single).collect())];
    }
    alternatives.pop().unwrap_or_default()
}

/// Splits at spaces, with brackets as words of their own.
fn words(syntax: &'static str) -> Vec<&'static str> {
    let mut words = Vec::new();
    for mut word in syntax.split(' ').filter(|word| !word.is_empty()) {
        while let Some(rest) = word.strip_prefix('[') {
            words.push("[");
            word = rest;
        }
        let bare = word.trim_end_matches(']');
        if !bare.is_empty() {
            words.push(bare);
        }
        words.extend(core::iter::repeat_n("]", word.len() - bare.len()));
    }
    words
}

/// Reads up to the closing bracket or the end; one list for each side of a bar. `words` is in reverse.
fn alternatives(words: &mut Vec<&'static str>) -> Vec<Vec<Argument>> {
    let mut all = vec![Vec::new()];
    while let Some(word) = words.pop() {
        let last = all.len() - 1;
        match word {
            "]" => break,
            "|" => all.push(Vec::new()),
            "[" => {
                let repeats = repetition(words);
                let inside = alternatives(words);
                if repeats > 0 {
                    repeat(&mut all[last], repeats);
                } else {
                    all[last].push(Argument { optional: true, ..group(inside) });
                }
            }
            token if is_token(token) => {
                let mut values = Vec::new();
                while let Some(value) = words.pop_if(|next| is_value(next)) {
                    values.push(value);
                }
                all[last].push(tokened(token, &values));
            }
            value => all[last].push(argument(value)),
        }
    }
    all
}

/// How many arguments a bracket that ends in `...` repeats; 0 for other brackets.
fn repetition(words: &[&'static str]) -> usize {
    let inside = words.iter().rev().take_while(|word| **word != "]" && **word != "[");
    let inside: Vec<_> = inside.collect();
    if inside.last().is_some_and(|word| **word == "...") { inside.len() - 1 } else { 0 }
}

/// Makes the last `count` arguments one that may come many times.
fn repeat(arguments: &mut Vec<Argument>, count: usize) {
    let start = arguments.len().saturating_sub(count);
    let repeated = arguments.split_off(start);
    arguments.push(Argument { multiple: true, ..single(repeated) });
}

fn group(mut alternatives: Vec<Vec<Argument>>) -> Argument {
    if alternatives.len() == 1 {
        return single(alternatives.pop().unwrap_or_default());
    }
    one_of(alternatives.into_iter().map(single).collect())
}

fn one_of(parts: Vec<Argument>) -> Argument {
    Argument { parts, ..named(joined_name("_or_", &[]), "oneof") }.with_joined_name("_or_")
}

/// One argument for a list of them.
fn single(mut arguments: Vec<Argument>) -> Argument {
    if arguments.len() == 1 {
        return arguments.remove(0);
    }
    Argument { parts: arguments, ..named(String::new(), "block") }.with_joined_name("_")
}

fn tokened(token: &'static str, values: &[&'static str]) -> Argument {
    match values {
        [] => Argument { token: Some(token), ..named(token.to_ascii_lowercase(), "pure-token") },
        [value] => Argument { token: Some(token), ..argument(value) },
        many => {
            let parts = many.iter().map(|value| argument(value)).collect();
            Argument { token: Some(token), parts, ..named(token.to_ascii_lowercase(), "block") }
        }
    }
}

fn argument(name: &str) -> Argument {
    let kind = match name {
        "key" | "key1" | "key2" | "newkey" | "source" | "destination" => "key",
        "pattern" => "pattern",
        "increment-by" => "double",
        name if name.starts_with("unix-time") => "unix-time",
        "seconds" | "milliseconds" | "start" | "end" | "offset" | "increment" | "decrement" | "cursor"
        | "count" | "min-match-len" | "destination-db" | "index" | "timeout" | "numreplicas" | "numlocal"
        | "slot" | "client-id" | "protover" => "integer",
        _ => "string",
    };
    named(String::from(name), kind)
}

fn named(name: String, kind: &'static str) -> Argument {
    Argument { name, kind, token: None, optional: false, multiple: false, parts: Vec::new() }
}

fn joined_name(separator: &str, parts: &[Argument]) -> String {
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    names.join(separator)
}

impl Argument {
    fn with_joined_name(self, separator: &str) -> Argument {
        Argument { name: joined_name(separator, &self.parts), ..self }
    }
}

fn is_token(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_value(word: &str) -> bool {
    !matches!(word, "[" | "]" | "|" | "...") && !is_token(word)
}
