//! The command line.

use crate::schedule::Settings;
use crate::schedule::mood::KINDS;
use crate::schedule::planted::{self, FAULTS};

pub(crate) const HELP: &str = "\
schedules: random fault schedules of the Paxos core

  --seeds N        run N seeds (default 1)
  --seed S         the first seed (default 1)
  --threads N      run so many at once (default: the processors)
  --planted NAME   plant a fault in the protocol, and succeed when it is caught
  --list-planted   print the faults that can be planted
  --keep-going     do not stop at the first violation
  --no-shrink      do not shrink what fails
  --shrink         shrink what a planted fault makes fail
  --verbose        print what happens (one seed)

A part of a schedule, as shrinking prints it:

  --steps 3,7      only these of its steps ('' is none)
  --without a,b    without these kinds of faults";

pub(crate) struct Arguments {
    pub(crate) seeds: u64,
    pub(crate) first: u64,
    pub(crate) threads: usize,
    pub(crate) planted: bool,
    pub(crate) keep_going: bool,
    pub(crate) shrink: bool,
    pub(crate) verbose: bool,
    settings: Settings,
}

impl Arguments {
    /// The schedule of a seed.
    pub(crate) fn settings(&self, seed: u64) -> Settings {
        Settings { seed, ..self.settings.clone() }
    }
}

/// The flags that give this schedule.
pub(crate) fn flags(settings: &Settings) -> String {
    let mut flags = format!("--seed {}", settings.seed);
    if let Some(steps) = &settings.steps {
        let list: Vec<String> = steps.iter().map(usize::to_string).collect();
        flags.push_str(&format!(" --steps '{}'", list.join(",")));
    }
    if !settings.without.is_empty() {
        flags.push_str(&format!(" --without {}", settings.without.join(",")));
    }
    if FAULTS.contains(&settings.planted) {
        flags.push_str(&format!(" --planted {}", planted::name_of(settings.planted)));
    }
    flags
}

/// `None`: what was asked for is printed already.
pub(crate) fn parse() -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments {
        seeds: 1,
        first: 1,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        planted: false,
        keep_going: false,
        shrink: true,
        verbose: false,
        settings: Settings::default(),
    };
    let mut shrink = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut text = || words.next().ok_or(format!("{word} wants a value"));
        let number =
            |value: &str| value.parse::<u64>().map_err(|_| format!("{word}: {value:?} is not a number"));
        match word.as_str() {
            "--seeds" => arguments.seeds = number(&text()?)?,
            "--seed" => arguments.first = number(&text()?)?,
            "--threads" => arguments.threads = number(&text()?)?.max(1) as usize,
            "--planted" => {
                let name = text()?;
                let planted = planted::by_name(&name).ok_or(format!("no fault is named {name:?}"))?;
                (arguments.planted, arguments.settings.planted) = (true, planted);
            }
            "--list-planted" => {
                FAULTS.iter().for_each(|planted| println!("{}", planted::name_of(*planted)));
                return Ok(None);
            }
            "--keep-going" => arguments.keep_going = true,
            "--no-shrink" => shrink = Some(false),
            "--shrink" => shrink = Some(true),
            "--verbose" => arguments.verbose = true,
            "--steps" => {
                let list = text()?;
                let numbers = list.split(',').filter(|part| !part.is_empty());
                let steps: Result<Vec<usize>, String> =
                    numbers.map(|part| number(part).map(|step| step as usize)).collect();
                arguments.settings.steps = Some(steps?);
            }
            "--without" => {
                for name in text()?.split(',') {
                    let kind = KINDS.iter().find(|kind| **kind == name);
                    let kind =
                        kind.ok_or(format!("no kind of faults is named {name:?}: {}", KINDS.join(", ")))?;
                    arguments.settings.without.push(kind);
                }
            }
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("{other} is not known")),
        }
    }
    let narrowed = arguments.settings.steps.is_some() || !arguments.settings.without.is_empty();
    // What is narrow already, and what must fail, is not shrunk unless that is asked for.
    arguments.shrink = shrink.unwrap_or(!arguments.planted && !narrowed);
    arguments.settings.trace = arguments.verbose && arguments.seeds == 1;
    Ok(Some(arguments))
}
