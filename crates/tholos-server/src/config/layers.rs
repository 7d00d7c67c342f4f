//! Flag > environment > file > default, and where each value in force came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, KEYS, Key, Secret, VARIABLE_PREFIX};

/// Variables of ours that are no configuration of a node.
const OTHER_VARIABLES: [&str; 2] = ["THOLOS_AT", "THOLOS_CONFIG"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This environment variable.
    Variable(String),
    /// This flag.
    Flag(String),
    /// The file that another key names.
    SecretFile(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) | Origin::SecretFile(path) => write!(f, "file {}", path.display()),
            Origin::Variable(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// What is wrong with a configuration. Nothing was started or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No key has this name.
    UnknownKey {
        /// The name.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The key whose name is nearest, and whether that is near.
        nearest: (&'static str, bool),
    },
    /// A value is not what its key takes.
    BadValue {
        /// The key.
        key: &'static str,
        /// Where the value stands.
        origin: Origin,
        /// The value, unless it is a secret.
        value: String,
        /// What would be right.
        why: String,
    },
    /// The values do not go together.
    Invalid {
        /// The key to change.
        key: &'static str,
        /// What is wrong.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A file cannot be read.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(key: &'static str, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        ConfigError::Invalid { key, why: why.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::UnknownKey { key, origin, nearest } => {
                write!(f, "there is no key `{key}` ({origin})")?;
                match nearest {
                    (nearest, true) => write!(f, "; did you mean `{nearest}`?"),
                    (nearest, false) => {
                        write!(f, "; the nearest is `{nearest}`, and `tholos config example` lists all keys")
                    }
                }
            }
            ConfigError::BadValue { key, origin, value, why } => {
                write!(f, "`{key}` cannot be \"{value}\" ({origin}): {why}")
            }
            ConfigError::Invalid { key, why, remedy } => write!(f, "`{key}`: {why}; {remedy}"),
            ConfigError::File { path, why } => write!(f, "cannot read {}: {why}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A configuration with the origin of each of its values.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The values. Not yet validated: see [`Config::validate`].
    pub config: Config,
    /// Where the value of each key that is not at its default came from.
    pub origins: BTreeMap<&'static str, Origin>,
    /// What the user should know, and what hinders nothing.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// Where the value of `key` came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Collects values from their sources, in any order.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    file: Vec<(&'static Key, String, Origin)>,
    variables: Vec<(&'static Key, String, Origin)>,
    flags: Vec<(&'static Key, String, Origin)>,
    warnings: Vec<String>,
}

impl Layers {
    /// No source yet: all defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a flag: `key` as in [`KEYS`].
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`].
    pub fn set_flag(&mut self, key: &str, text: &str) -> Result<(), ConfigError> {
        let origin = Origin::Flag(format!("--{}", key.replace(['.', '_'], "-")));
        let key = find(key, &origin)?;
        self.flags.push((key, text.to_owned(), origin));
        Ok(())
    }

    /// Takes the variables that start with `THOLOS_`. One that is no key of ours is only warned of: orchestrators
    /// make such variables for services of our name.
    pub fn read_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, text) in variables {
            if !name.starts_with(VARIABLE_PREFIX) || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
                self.variables.push((key, text, Origin::Variable(name)));
                continue;
            }
            let known = KEYS.iter().map(Key::variable).collect::<Vec<_>>();
            let hint = match nearest(&name, known.iter().map(String::as_str)) {
                Some((nearest, true)) => format!(" (the nearest is {nearest})"),
                _ => String::new(),
            };
            self.warnings
                .push(format!("the environment variable {name} is no key of ours{hint} and is not used"));
        }
    }

    /// Takes a configuration file.
    ///
    /// # Errors
    /// If it cannot be read, is no TOML, or has a key we do not have.
    pub fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let failed = |why: String| ConfigError::File { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        self.read_text(path, &text)
    }

    /// Takes the text of a configuration file.
    ///
    /// # Errors
    /// As [`Layers::read_file`].
    pub fn read_text(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let origin = Origin::File(path.to_owned());
        let mut flat = Vec::new();
        flatten("", &table, &mut flat);
        for (name, value) in flat {
            let key = find(&name, &origin)?;
            let text = plain(value)
                .ok_or_else(|| bad_value(key, &origin, "...", "it must be one value".to_owned()))?;
            self.file.push((key, text, origin.clone()));
        }
        Ok(())
    }

    /// Puts the layers together, and reads the files that hold secrets.
    ///
    /// # Errors
    /// If a value is wrong, or the file of a secret cannot be read.
    pub fn resolve(self) -> Result<Resolved, ConfigError> {
        let mut resolved = self.resolve_without_files()?;
        resolved.read_secrets()?;
        Ok(resolved)
    }

    /// Puts the layers together for who needs no secret, and reads no further file.
    ///
    /// # Errors
    /// If a value is wrong.
    pub fn resolve_without_files(self) -> Result<Resolved, ConfigError> {
        for (key, text, origin) in &self.variables {
            // It would switch off what whoever set it wants to have.
            if let (true, Origin::Variable(name)) = (key.secret && text.trim_end().is_empty(), origin) {
                let why = format!("{name} is empty and should hold a secret");
                return Err(ConfigError::invalid(key.name, why, "unset it, or give it the secret"));
            }
        }
        let mut resolved =
            Resolved { config: Config::default(), origins: BTreeMap::new(), warnings: self.warnings };
        for (key, text, origin) in self.file.into_iter().chain(self.variables).chain(self.flags) {
            resolved.config.set(key.name, &text).map_err(|why| bad_value(key, &origin, &text, why))?;
            resolved.origins.insert(key.name, origin);
        }
        Ok(resolved)
    }
}

impl Resolved {
    fn read_secrets(&mut self) -> Result<(), ConfigError> {
        let config = &mut self.config;
        let pairs = [
            (
                "cluster_secret",
                "cluster_secret_file",
                &mut config.cluster_secret,
                &config.cluster_secret_file,
            ),
            ("requirepass", "requirepass_file", &mut config.requirepass, &config.requirepass_file),
        ];
        for (key, file_key, secret, file) in pairs {
            let Some(path) = file else { continue };
            if secret.is_some() {
                let why = format!("`{key}` is given as well, and they may differ");
                return Err(ConfigError::invalid(file_key, why, "keep one of them"));
            }
            let failed = |why: String| ConfigError::File { path: path.clone(), why };
            let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            if text.trim_end().is_empty() {
                return Err(failed("it is empty and should hold a secret".to_owned()));
            }
            *secret = Some(Secret::new(&text));
            self.origins.insert(key, Origin::SecretFile(path.clone()));
        }
        Ok(())
    }
}

fn find(name: &str, origin: &Origin) -> Result<&'static Key, ConfigError> {
    KEYS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::UnknownKey {
        key: name.to_owned(),
        origin: origin.clone(),
        nearest: nearest(name, KEYS.iter().map(|key| key.name)).expect("there are keys"),
    })
}

fn bad_value(key: &'static Key, origin: &Origin, text: &str, why: String) -> ConfigError {
    let value = if key.secret { "(a secret)".to_owned() } else { text.to_owned() };
    ConfigError::BadValue { key: key.name, origin: origin.clone(), value, why }
}

/// Dotted names of all values of a table and its tables.
fn flatten<'a>(prefix: &str, table: &'a toml::Table, flat: &mut Vec<(String, &'a toml::Value)>) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) if name != "seeds" => flatten(&name, inner, flat),
            _ => flat.push((name, value)),
        }
    }
}

/// A value as a flag would give it. Lists and tables of texts (`seeds`) become `a,b` and `k=v,k=v`.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Array(parts) => Some(parts.iter().map(plain).collect::<Option<Vec<_>>>()?.join(",")),
        toml::Value::Table(pairs) => {
            let pair = |(name, value): (&String, &toml::Value)| Some(format!("{name}={}", plain(value)?));
            Some(pairs.iter().map(pair).collect::<Option<Vec<_>>>()?.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => None,
    }
}

/// The candidate that takes the fewest edits to reach, and whether that is less than half of its letters.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<(&'a str, bool)> {
    let leaf = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    candidates
        .map(|candidate| {
            // A key given without its table, or in the wrong one, is near.
            let whole = edits(name, candidate);
            let leaves = edits(&leaf(name), &leaf(candidate)) + 1;
            (whole.min(leaves), candidate)
        })
        .min()
        .map(|(distance, candidate)| (candidate, distance * 2 < candidate.len().max(4)))
}

/// Bytes to add, drop or replace, and neighbours to swap, which is how names are most often mistyped (the optimal string
/// alignment distance).
fn edits(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let (mut above, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=to.len()).collect());
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = row[j] + usize::from(a != b);
            let mut least = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && (*a, from[i - 1]) == (to[j - 1], *b) {
                least = least.min(above[j - 1] + 1);
            }
            next.push(least);
        }
        (above, row) = (row, next);
    }
    row[to.len()]
}
