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
    /// n1 leads in 1.n1 and serves, has a durable snapshot of all that is decided, and has forgotten the entries.
    Trimmed {
        /// So many commands are decided.
        commands: u8,
        /// All that was sent to this one was lost, and the snapshot is on its way to it; nothing else is.
        without: Option<ReplicaId>,
    },
    /// The same with one command and n3, but that the snapshot has not been sent, and n2 has one more command, which is decided. Then
    /// n1 has started again and leads in 2.n1. Its log has reached nobody in this ballot; a snapshot that is older
    /// than what it leads with is on its way to n3.
    Resent,
    /// n1 has led in 1.n1, has a durable snapshot of all that is decided, and has forgotten the entries. The disk of n3 is rotten: it
    /// has asked the others, waits for a leader of a higher ballot, and has said so. Nothing is on its way.
    Mute,
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

const NOTHING: Budget = Budget {
    time_outs: 0,
    crashes: 0,
    rots: 0,
    duplicates: 0,
    ticks: 0,
    commands: 0,
    reads: 0,
    transfers: 0,
    changes: 0,
    spans: 0,
    saves: 0,
    trims: 0,
};

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

/// All of them: first those that end soon, then those that need minutes, last those that only a limit ends.
pub fn all() -> Vec<Named> {
    let (crash_and_election, nothing_at_n3) = (
        Budget { time_outs: 1, crashes: 1, ..NOTHING },
        Start::Led { commands: 0, without: N3, tail: false },
    );
    let mut reads = named(
        "reads",
        "two reads, one round at a time, while another leader comes up",
        led(0),
        Budget { time_outs: 1, reads: 2, ..NOTHING },
    );
    reads.council.options.read_rounds_max = 1;
    let mut pieces = named(
        "pieces",
        "logs are sent again one entry at a time to a replica that has none; two more elections",
        Start::Led { commands: 1, without: N3, tail: false },
        Budget { time_outs: 2, ..NOTHING },
    );
    pieces.council.options.message_bytes_max = 1;
    // The least that makes a lease: n3 has granted it, n2 knows of nothing.
    let nothing_at_n2 = Start::Led { commands: 0, without: Some(ReplicaId(2)), tail: false };
    let mut lease = named(
        "lease",
        "a leader that reads by a lease of n3's, one read, one crash, another election, and time for the lease to end",
        nothing_at_n2,
        Budget { reads: 1, spans: 3, ..crash_and_election },
    );
    let mut leases = named(
        "leases",
        "the same without the crash and the read, with a tick by which the lease is renewed, and more time",
        nothing_at_n2,
        Budget { time_outs: 1, ticks: 1, spans: 4, ..NOTHING },
    );
    lease.council.options.leases = true;
    leases.council.options.leases = true;
    vec![
        named(
            "small",
            "one election from nothing, one command, one crash",
            Start::Nobody,
            Budget { commands: 1, ..crash_and_election },
        ),
        named(
            "transfer",
            "a leader hands over, with one command and one crash",
            led(0),
            Budget { crashes: 1, commands: 1, transfers: 1, ..NOTHING },
        ),
        named(
            "twice",
            "n3 has nothing; one crash, another election, one message twice",
            nothing_at_n3,
            Budget { duplicates: 1, ..crash_and_election },
        ),
        named(
            "behind",
            "n3 has nothing; one command, one crash, another election",
            nothing_at_n3,
            Budget { commands: 1, ..crash_and_election },
        ),
        named(
            "read",
            "a leader, one read, one crash, another election",
            led(0),
            Budget { reads: 1, ..crash_and_election },
        ),
        reads,
        lease,
        leases,
        named(
            "crash",
            "a leader, one command, one crash, another election",
            led(0),
            Budget { commands: 1, ..crash_and_election },
        ),
        named(
            "swap",
            "a leader has a fourth replica for one of the three, perhaps for itself; one crash",
            led(0),
            Budget { crashes: 1, changes: 1, ..NOTHING },
        ),
        named(
            "joins",
            "a leader that has forgotten its log has a fourth replica for one of the three, perhaps for itself; one crash",
            Start::Trimmed { commands: 1, without: None },
            Budget { crashes: 1, changes: 1, ..NOTHING },
        ),
        named(
            "snapshot",
            "n3 has nothing, n1 has forgotten its log and sends a snapshot; one command, another election",
            Start::Trimmed { commands: 1, without: N3 },
            Budget { commands: 1, crashes: 0, ..crash_and_election },
        ),
        named(
            "snapshots",
            "the same with a crash",
            Start::Trimmed { commands: 1, without: N3 },
            Budget { commands: 1, ..crash_and_election },
        ),
        named(
            "resent",
            "a leader sends its log in its second ballot, and to n3 a snapshot older than that; one crash, another election",
            Start::Resent,
            crash_and_election,
        ),
        named(
            "save",
            "n3 has nothing; one snapshot anywhere, one command, one crash, another election",
            nothing_at_n3,
            Budget { commands: 1, saves: 1, ..crash_and_election },
        ),
        named(
            "forget",
            "n3 has nothing; somebody forgets what it has applied, and saves it when it is asked for; one command, one crash, one tick",
            Start::Led { commands: 1, without: N3, tail: false },
            Budget { crashes: 1, ticks: 1, commands: 1, trims: 1, ..NOTHING },
        ),
        named(
            "trim",
            "n3 has nothing; somebody forgets what it has applied, and saves it when n3 asks; one command, one crash, another election",
            Start::Led { commands: 1, without: N3, tail: false },
            Budget { commands: 1, trims: 1, ..crash_and_election },
        ),
        named(
            "rotten",
            "a command is decided and n3 has nothing; one disk rots, one checkpoint anywhere, one crash",
            Start::Led { commands: 1, without: N3, tail: false },
            Budget { crashes: 1, rots: 1, saves: 1, ..NOTHING },
        ),
        named(
            "mended",
            "n1 has forgotten its log, n3 has lost its disk, and a leader is due that is elected without it; one crash, one tick",
            Start::Mute,
            Budget { ticks: 1, ..crash_and_election },
        ),
        named(
            "farewell",
            "a leader has a fourth replica for one of the three, perhaps for itself, which then hands over; one tick",
            led(0),
            Budget { ticks: 1, changes: 1, ..NOTHING },
        ),
        named(
            "mixed",
            "a leader, one command, one read, another election",
            led(0),
            Budget { time_outs: 1, commands: 1, reads: 1, ..NOTHING },
        ),
        named(
            "marks",
            "a leader, one command, another election, and marks told by themselves",
            led(0),
            Budget { time_outs: 1, ticks: 1, commands: 1, ..NOTHING },
        ),
        named(
            "again",
            "a command is decided and n3 has nothing; two more elections",
            Start::Led { commands: 1, without: N3, tail: false },
            Budget { time_outs: 2, ..NOTHING },
        ),
        pieces,
        named(
            "tail",
            "a leader with a command that only its own disk has; two more elections",
            Start::Led { commands: 0, without: None, tail: true },
            Budget { time_outs: 2, ..NOTHING },
        ),
        named(
            "change",
            "a leader has a fourth replica for one of the three, perhaps for itself, while another leader comes up",
            led(0),
            Budget { time_outs: 1, changes: 1, ..NOTHING },
        ),
        named(
            "changed",
            "the same with a command, a crash and two more elections",
            led(0),
            Budget { time_outs: 2, crashes: 1, commands: 1, changes: 1, ..NOTHING },
        ),
        named("duel", "two elections from nothing", Start::Nobody, Budget { time_outs: 2, ..NOTHING }),
        named(
            "rot",
            "a command is decided and n3 has nothing; one disk rots, two more elections, two ticks",
            Start::Led { commands: 1, without: N3, tail: false },
            Budget { time_outs: 2, rots: 1, ticks: 2, ..NOTHING },
        ),
        named(
            "all",
            "a leader, two commands, one crash, two more elections, one message twice, one read",
            led(0),
            Budget { time_outs: 2, crashes: 1, duplicates: 1, commands: 2, reads: 1, ..NOTHING },
        ),
    ]
}
