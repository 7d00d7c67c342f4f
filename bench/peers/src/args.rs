//! Options, as `--name value`; a script gives them, so there is no help text to keep.

use std::str::FromStr;

/// The options in the order in which they were given.
pub(crate) struct Args(Vec<(String, String)>);

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut pairs = Vec::new();
        while let Some(name) = words.next() {
            let name = name.strip_prefix("--").ok_or_else(|| format!("{name} is no option"))?.to_owned();
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The last value of an option, or `default`.
    pub(crate) fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.all(name).last() {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| format!("--{name} {value} cannot be read")),
        }
    }

    /// All values of an option that may be repeated.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
