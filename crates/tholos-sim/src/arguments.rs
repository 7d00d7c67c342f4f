//! The command line.

use tholos_sim::planted;
use tholos_sim::report::{Narrow, Settings};

pub(crate) const HELP: &str = "\
tholos-sim: the whole cluster in one thread from one seed

  --seeds N        run N seeds (default 1)
  --seed S         the first seed (default 1)
  --threads N      run so many at once (default: the processors)
  --recovery       machines are lost for good, a majority of some group among them, and an operator recovers the rest
  --planted NAME   plant a fault in the protocol, and succeed when it is caught
  --list-planted   print the faults that can be planted
  --keep-going     do not stop at the first violation
  --no-shrink      do not shrink what fails
  --shrink         shrink what a planted fault makes fail
  --verbose        print what happens (one seed)

A part of a run, as shrinking prints it:

  --only 3,7       only these of the planned faults ('' is none)
  --salt N         other chances than the seed's own
  --clients N      only so many clients
  --commands N     only so many handfuls of commands from each
  --until US       the run ends at this time, in microseconds";

pub(crate) struct Arguments {
    pub(crate) seeds: u64,
    pub(crate) first: u64,
    pub(crate) threads: usize,
    pub(crate) planted: Option<String>,
    pub(crate) keep_going: bool,
    pub(crate) shrink: bool,
    pub(crate) recovery: bool,
    pub(crate) verbose: bool,
    narrow: Narrow,
}

impl Arguments {
    /// The run of a seed.
    pub(crate) fn settings(&self, seed: u64) -> Settings {
        let planted = self.planted.as_deref().and_then(planted::by_name).unwrap_or_default();
        Settings {
            seed,
            planted,
            narrow: self.narrow.clone(),
            recovery: self.recovery || planted::needs_recovery(planted),
            trail: self.verbose && self.seeds == 1,
        }
    }
}

/// `None`: what was asked for is printed already.
pub(crate) fn parse() -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        seeds: 1,
        first: 1,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        planted: None,
        keep_going: false,
        shrink: true,
        recovery: false,
        verbose: false,
        narrow: Narrow::default(),
    };
    let mut shrink = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut text = || words.next().ok_or(format!("{word} wants a value"));
        let number =
            |value: String| value.parse::<u64>().map_err(|_| format!("{word}: {value:?} is not a number"));
        match word.as_str() {
            "--seeds" => arguments.seeds = number(text()?)?,
            "--seed" => arguments.first = number(text()?)?,
            "--threads" => arguments.threads = number(text()?)?.max(1) as usize,
            "--planted" => {
                let name = text()?;
                planted::by_name(&name).ok_or(format!("no fault is named {name:?}"))?;
                arguments.planted = Some(name);
            }
            "--list-planted" => {
                planted::NAMES.iter().for_each(|(name, _)| println!("{name}"));
                return Ok(None);
            }
            "--recovery" => arguments.recovery = true,
            "--keep-going" => arguments.keep_going = true,
            "--no-shrink" => shrink = Some(false),
            "--shrink" => shrink = Some(true),
            "--verbose" => arguments.verbose = true,
            "--only" => {
                let list = text()?;
                let numbers = list.split(',').filter(|part| !part.is_empty());
                let numbers = numbers.map(|part| number(part.to_owned()).map(|at| at as usize));
                arguments.narrow.troubles = Some(numbers.collect::<Result<_, _>>()?);
            }
            "--salt" => arguments.narrow.salt = number(text()?)?,
            "--clients" => arguments.narrow.clients = Some(number(text()?)?),
            "--commands" => arguments.narrow.commands = Some(number(text()?)?),
            "--until" => arguments.narrow.end_us = Some(number(text()?)?),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("{other} is not known")),
        }
    }
    let narrowed = arguments.narrow != Narrow::default();
    // What is narrow already, and what must fail, is not shrunk unless that is asked for.
    arguments.shrink = shrink.unwrap_or(arguments.planted.is_none() && !narrowed);
    Ok(Some(arguments))
}
