//! What a run is made of, and what it found.

use std::fmt;

use tholos_paxos::Planted;
use tholos_ring::ShardId;

use crate::coverage::Coverage;
use crate::planted;
use crate::trail::Line;

/// What a run is made of.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// A fault planted in the protocol, to see it caught.
    pub planted: Planted,
    /// Parts of the run that are left out.
    pub narrow: Narrow,
    /// Machines are lost for good, a majority of some group among them, and recovered from (R29).
    pub recovery: bool,
    /// Keep what happened, in words.
    pub trail: bool,
}

/// Parts of a run that are left out, so that a violation can be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Narrow {
    /// Other chances than the seed's own, for all but the plan of faults; 0 are the seed's own.
    pub salt: u64,
    /// Only these of the planned faults, by number; all if there is no list.
    pub troubles: Option<Vec<usize>>,
    /// Only this many clients.
    pub clients: Option<u64>,
    /// Only this many handfuls of commands from each client.
    pub commands: Option<u64>,
    /// The run ends here, in microseconds of true time; what can be checked of its history is checked there.
    pub end_us: Option<u64>,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Hash of everything that happened.
    pub trace: u64,
    /// Operations whose outcome the clients know.
    pub operations: u64,
    /// Operations refused or in doubt.
    pub refused: u64,
    /// Faults planned.
    pub troubles: u64,
    /// What happened, counted: messages, ticks, writes to disks, what clients do.
    pub events: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// What went wrong, if anything did.
    pub violation: Option<Violation>,
    /// What happened, if that was asked for.
    pub lines: Vec<Line>,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Violation {
    /// When, in microseconds of true time.
    pub at: u64,
    /// In which shard, if it is known to be in one.
    pub shard: Option<ShardId>,
    /// What.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3} ms: {}", self.at as f64 / 1e3, self.text)
    }
}

impl Narrow {
    /// Whether a planned fault happens.
    pub fn keeps(&self, number: usize) -> bool {
        self.troubles.as_ref().is_none_or(|kept| kept.contains(&number))
    }
}

impl Settings {
    /// The flags of the command line that give this run.
    pub fn flags(&self) -> String {
        let Narrow { salt, troubles, clients, commands, end_us } = &self.narrow;
        let mut flags = format!("--seed {}", self.seed);
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let value = if value.is_empty() { value } else { format!(" {value}") };
                flags.push_str(&format!(" --{name}{value}"));
            }
        };
        add("recovery", self.recovery.then(String::new));
        add("planted", planted::name_of(self.planted).map(String::from));
        let list = |kept: &Vec<usize>| kept.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        add("only", troubles.as_ref().map(list).map(|list| format!("'{list}'")));
        add("salt", (*salt > 0).then(|| salt.to_string()));
        add("clients", clients.map(|count| count.to_string()));
        add("commands", commands.map(|count| count.to_string()));
        add("until", end_us.map(|at| at.to_string()));
        flags
    }
}
