//! The councils that are explored, by name.

use tholos_paxos::{Millis, Options, ReplicaId};

use crate::{Budget, Council};

/// Where a council begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Nobody leads, all logs are empty.
    Nobody,
    /// n1 leads in 1.n1 and serves; nothing is on its way.
    Led {
        /// So many commands are decided.
        commands: u8,
        /// All that was sent to this one was lost.
        without: Option<ReplicaId>,
        /// One more command is on n1's disk, and what it sent of it was lost.
        tail: bool,
    },
}

/// A council that has a name.
#[derive(Debug)]
pub struct Named {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// The council.
    pub council: Council,
}

const NOTHING: Budget =
    Budget { time_outs: 0, crashes: 0, duplicates: 0, ticks: 0, commands: 0, reads: 0, transfers: 0 };

const N3: Option<ReplicaId> = Some(ReplicaId(3));

/// Limits of a group whose time-outs are all zero: see the crate's document.
pub fn options() -> Options {
    Options {
        election_timeout: Millis(0),
        stagger: Millis(0),
        probe_interval: Millis(0),
        ..Options::default()
    }
}

fn named(name: &'static str, about: &'static str, start: Start, budget: Budget) -> Named {
    Named { name, about, council: Council::new(3, options(), start, budget) }
}

fn led(commands: u8) -> Start {
    Start::Led { commands, without: None, tail: false }
}

/// All of them, the small one first.
pub fn all() -> Vec<Named> {
    let mut pieces = named(
        "pieces",
        "logs are sent again one entry at a time to a replica that has none; two elections",
        Start::Led { commands: 1, without: N3, tail: false },
        Budget { time_outs: 2, ..NOTHING },
    );
    pieces.council.options.message_bytes_max = 1;
    let mut reads = named(
        "reads",
        "two reads, one round at a time, while another leader comes up",
        led(0),
        Budget { time_outs: 1, reads: 2, ..NOTHING },
    );
    reads.council.options.read_rounds_max = 1;
    vec![
        named(
            "small",
            "one election from nothing, one command, one crash",
            Start::Nobody,
            Budget { time_outs: 1, crashes: 1, commands: 1, ..NOTHING },
        ),
        named(
            "crash",
            "a leader, one command, one crash, another election",
            led(0),
            Budget { time_outs: 1, crashes: 1, commands: 1, ..NOTHING },
        ),
        named(
            "behind",
            "the same, and n3 has nothing of what is decided",
            Start::Led { commands: 0, without: N3, tail: false },
            Budget { time_outs: 1, crashes: 1, commands: 1, ..NOTHING },
        ),
        named(
            "marks",
            "a leader, one command, another election, and marks told by themselves",
            led(0),
            Budget { time_outs: 1, ticks: 1, commands: 1, ..NOTHING },
        ),
        named(
            "tail",
            "a leader with a command that only its own disk has, two more elections",
            Start::Led { commands: 0, without: None, tail: true },
            Budget { time_outs: 2, ..NOTHING },
        ),
        reads,
        pieces,
    ]
}
