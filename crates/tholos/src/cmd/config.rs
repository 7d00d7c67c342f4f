//! `tholos config`: what is in force, where it came from, and an example file; and the flags that `serve` shares.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};
use serde_json::{Map, Value, json};
use tholos_server::config::{ConfigError, KEYS, Key, Layers, Resolved, example};

use crate::failure::{Exit, Failure};
use crate::out::{errln, out, outln};

/// Read if it is there and no other file is named.
const DEFAULT_FILE: &str = "tholos.toml";

/// A flag for every key that is no secret, and `--config`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConfigFlags {
    file: Option<PathBuf>,
    given: Vec<(&'static str, String)>,
}

impl ConfigFlags {
    /// Puts flags, variables and file together.
    pub(crate) fn resolve(&self) -> Result<Resolved, Failure> {
        let mut layers = Layers::new();
        let named = self.file.clone().or_else(|| std::env::var_os("THOLOS_CONFIG").map(PathBuf::from));
        match named {
            Some(file) => layers.read_file(&file).map_err(wrong)?,
            None if Path::new(DEFAULT_FILE).exists() => {
                layers.read_file(Path::new(DEFAULT_FILE)).map_err(wrong)?
            }
            None => {}
        }
        let variables = std::env::vars_os();
        layers.read_environment(
            variables.filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?))),
        );
        for (key, text) in &self.given {
            layers.set_flag(key, text).map_err(wrong)?;
        }
        let resolved = layers.resolve().map_err(wrong)?;
        for warning in &resolved.warnings {
            errln!("warning: {warning}");
        }
        Ok(resolved)
    }
}

/// A wrong configuration as a failure of the command.
pub(crate) fn wrong(error: ConfigError) -> Failure {
    Failure::new(Exit::Usage, "the configuration is wrong", error, "")
}

impl ConfigFlags {
    fn add_to(command: Command, keys: impl Iterator<Item = &'static Key>) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("PATH")
            .help("The configuration file. Default: THOLOS_CONFIG, then ./tholos.toml if it is there")
            .value_parser(clap::value_parser!(PathBuf));
        keys.map(argument).fold(command.arg(file), Command::arg)
    }

    fn of_matches(matches: &ArgMatches, keys: impl Iterator<Item = &'static Key>) -> Self {
        let given = keys.filter_map(|key| Some((key.name, matches.get_one::<String>(key.name)?.clone())));
        Self { file: matches.get_one::<PathBuf>("config").cloned(), given: given.collect() }
    }
}

fn keys_of_serve() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !key.secret)
}

/// Those that are about every node alike, but for the few that `dev` has as flags of its own. Where its data is and what is
/// written when it is ready it learns by these alone: a file may be about another cluster.
fn keys_of_dev() -> impl Iterator<Item = &'static Key> {
    const OWN: [&str; 4] = ["dir", "shards", "replicas", "ready_file"];
    keys_of_serve().filter(|key| key.is_of_every_node() && !OWN.contains(&key.name))
}

/// The same for `dev`, whose nodes all have the same settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct DevConfigFlags(pub(crate) ConfigFlags);

impl Args for DevConfigFlags {
    fn augment_args(command: Command) -> Command {
        ConfigFlags::add_to(command, keys_of_dev())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DevConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(ConfigFlags::of_matches(matches, keys_of_dev())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        Self::add_to(command, keys_of_serve())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key) -> Arg {
    let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
    Arg::new(key.name)
        .long(key.flag())
        .value_name(key.value_name)
        .help(key.summary() + &default)
        .action(ArgAction::Set)
        .hide(!key.common)
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self::of_matches(matches, keys_of_serve()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// See and check the configuration of a node.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Print every value in force. Takes the flags of `tholos serve`.
    #[command(after_help = "\
A flag beats a THOLOS_ variable, a variable beats the file, the file beats the default. Every key of
`tholos config example` is a flag, also those not listed here. Secrets are not printed.

Examples:
  tholos config show --origin
  THOLOS_HTTP=127.0.0.1:9090 tholos config show --config /etc/tholos/tholos.toml --origin")]
    Show {
        /// Say where each value came from: a flag, a variable, the file, or the default.
        #[arg(long)]
        origin: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: ConfigFlags,
    },
    /// Check that a node could start with this configuration. Takes the flags of `tholos serve`.
    #[command(after_help = "Example:\n  tholos config check --config /etc/tholos/tholos.toml")]
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: ConfigFlags,
    },
    /// Print a configuration file with every key, what it means, and its default.
    #[command(after_help = "Example:\n  tholos config example > tholos.toml")]
    Example {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &ConfigArgs) -> Result<Exit, Failure> {
    match &args.what {
        What::Show { origin, json, flags } => {
            let resolved = flags.resolve()?;
            out!("{}", if *json { show_json(&resolved) } else { show_text(&resolved, *origin) });
        }
        What::Check { json, flags } => {
            let config = flags.resolve()?.config;
            config.validate().and_then(|()| config.validate_founding()).map_err(wrong)?;
            outln!("{}", if *json { "{\"ok\":true}" } else { "ok" });
        }
        What::Example { json } => out!("{}", if *json { example_json() } else { example() }),
    }
    Ok(Exit::Ok)
}

fn value_of(resolved: &Resolved, key: &Key) -> String {
    resolved.config.print(key.name).expect("KEYS are the keys of the configuration")
}

fn show_text(resolved: &Resolved, with_origin: bool) -> String {
    let line = |key: &Key| {
        let value = value_of(resolved, key);
        let bare = value.parse::<u64>().is_ok();
        format!("{} = {}", key.name, if bare { value } else { format!("\"{value}\"") })
    };
    let lines: Vec<(String, &Key)> = KEYS.iter().map(|key| (line(key), key)).collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (line, key) in lines {
        if with_origin {
            text += &format!("{line:<width$}  # {}\n", resolved.origin(key.name));
        } else {
            text += &format!("{line}\n");
        }
    }
    text
}

fn show_json(resolved: &Resolved) -> String {
    let entry = |key: &Key| {
        let entry =
            json!({"value": value_of(resolved, key), "origin": resolved.origin(key.name).to_string()});
        (key.name.to_owned(), entry)
    };
    format!("{}\n", Value::Object(KEYS.iter().map(entry).collect::<Map<_, _>>()))
}

fn example_json() -> String {
    let entry = |key: &Key| {
        json!({
            "key": key.name, "about": key.about.split_whitespace().collect::<Vec<_>>().join(" "),
            "default": key.default, "min": key.bounds.map(|(min, _)| min), "max": key.bounds.map(|(_, max)| max),
            "flag": if key.secret { None } else { Some(format!("--{}", key.flag())) }, "variable": key.variable(),
        })
    };
    format!("{}\n", Value::Array(KEYS.iter().map(entry).collect()))
}
