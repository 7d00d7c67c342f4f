//! Which commands a load is made of.

use tholos_load::Worded;

/// A command of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Get,
    Set,
    Incr,
    Append,
    Del,
    Exists,
    Ping,
}

/// Commands with their shares.
pub(super) type Mix = tholos_load::Mix<Command>;

impl Worded for Command {
    const WORDS: &[(Command, &str)] = &[
        (Command::Get, "get"),
        (Command::Set, "set"),
        (Command::Incr, "incr"),
        (Command::Append, "append"),
        (Command::Del, "del"),
        (Command::Exists, "exists"),
        (Command::Ping, "ping"),
    ];
}
