//! One command line: a name and its arguments.

use std::fmt::Display;
use std::str::FromStr;

/// A command line of a script, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The first word.
    pub name: String,
    /// The words after it, in order.
    pub args: Vec<Argument>,
    /// The line in the script, from 1.
    pub line: usize,
    /// All that stands after `> `, as it was written.
    pub raw: String,
}

/// One argument: `value` or `key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// What stands before the first `=` that is not in quotes; `None` for a plain value.
    pub key: Option<String>,
    /// The value, quotes and escapes resolved.
    pub value: String,
}

impl Command {
    /// Parses the text after `> `. The error is a sentence without the place.
    pub(crate) fn parse(raw: &str, line: usize) -> Result<Command, String> {
        let mut words = Words { rest: raw };
        let Some(first) = words.next_word()? else { return Err("a command line without a command".into()) };
        if first.key.is_some() {
            return Err(format!("a command line starts with a name, not with {raw:?}"));
        }
        let mut args = Vec::new();
        while let Some(argument) = words.next_word()? {
            args.push(argument);
        }
        Ok(Command { name: first.value, args, line, raw: raw.to_string() })
    }

    /// A reader of the arguments that can say which were never asked for; a misspelt key then fails the script.
    pub fn consume(&self) -> Arguments<'_> {
        Arguments { command: self, taken: vec![false; self.args.len()] }
    }
}

/// Reads the arguments of one command, each once.
#[derive(Debug)]
pub struct Arguments<'a> {
    command: &'a Command,
    taken: Vec<bool>,
}

impl<'a> Arguments<'a> {
    /// The next plain value, or an error that names what was wanted.
    pub fn next<T: FromStr>(&mut self, what: &str) -> Result<T, String>
    where
        T::Err: Display,
    {
        match self.next_if_any(what)? {
            Some(value) => Ok(value),
            None => Err(format!("{} wants {what}", self.command.name)),
        }
    }

    /// The next plain value, or `None` if there is none.
    pub fn next_if_any<T: FromStr>(&mut self, what: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        self.take(what, |argument| argument.key.is_none())
    }

    /// The value of `key=…`, or `None`. A key given twice is caught by [`Arguments::finish`].
    pub fn lookup<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        self.take(key, |argument| argument.key.as_deref() == Some(key))
    }

    /// All plain values not yet taken.
    pub fn rest(&mut self) -> Vec<&'a str> {
        let mut values = Vec::new();
        for (argument, taken) in self.command.args.iter().zip(&mut self.taken) {
            if argument.key.is_none() && !*taken {
                *taken = true;
                values.push(argument.value.as_str());
            }
        }
        values
    }

    /// An error if an argument was left over.
    pub fn finish(self) -> Result<(), String> {
        let left = self.command.args.iter().zip(&self.taken).find(|(_, taken)| !**taken);
        match left {
            None => Ok(()),
            Some((argument, _)) => {
                let key = argument.key.as_ref().map(|key| format!("{key}=")).unwrap_or_default();
                Err(format!("{} does not know the argument {key}{}", self.command.name, argument.value))
            }
        }
    }

    fn take<T: FromStr>(
        &mut self,
        what: &str,
        wanted: impl Fn(&Argument) -> bool,
    ) -> Result<Option<T>, String>
    where
        T::Err: Display,
    {
        let args = &self.command.args;
        let Some(i) = (0..args.len()).find(|&i| !self.taken[i] && wanted(&args[i])) else { return Ok(None) };
        self.taken[i] = true;
        let value = &args[i].value;
        value.parse().map(Some).map_err(|error| format!("{}: {what} {value:?}: {error}", self.command.name))
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    /// The next word up to a blank, quotes resolved; the first bare `=` ends its key.
    fn next_word(&mut self) -> Result<Option<Argument>, String> {
        self.rest = self.rest.trim_start();
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut key = None;
        let mut word = String::new();
        let mut quoted = false;
        let mut characters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => quoted = !quoted,
                '\\' if quoted => word.push(escaped(&mut characters)?),
                '=' if !quoted && key.is_none() && !word.is_empty() => key = Some(std::mem::take(&mut word)),
                c if c.is_whitespace() && !quoted => {
                    end = at;
                    break;
                }
                c => word.push(c),
            }
        }
        if quoted {
            return Err(format!("a quote is not closed in {:?}", self.rest));
        }
        self.rest = &self.rest[end..];
        Ok(Some(Argument { key, value: word }))
    }
}

fn escaped(characters: &mut std::str::CharIndices<'_>) -> Result<char, String> {
    let mut next = || characters.next().map(|(_, c)| c);
    match next() {
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some(c @ ('"' | '\\')) => Ok(c),
        Some('x') => {
            let digits: String = [next(), next()].into_iter().flatten().collect();
            match u8::from_str_radix(&digits, 16) {
                Ok(byte) if byte.is_ascii() && digits.len() == 2 => Ok(char::from(byte)),
                _ => Err(format!("\\x wants two hex digits below 80, not {digits:?}")),
            }
        }
        other => Err(format!("unknown escape \\{}", other.map(String::from).unwrap_or_default())),
    }
}
