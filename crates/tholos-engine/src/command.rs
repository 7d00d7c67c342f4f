//! A parsed command: what it does, whether it writes, and which keys it names.

use alloc::vec::Vec;

use bytes::Bytes;
use tholos_resp::Value;

use crate::cmd::counter::CounterCommand;
use crate::cmd::expire::ExpireCommand;
use crate::cmd::key::KeyCommand;
use crate::cmd::lcs::Lcs;
use crate::cmd::range::RangeCommand;
use crate::cmd::string::StringCommand;
use crate::error;
use crate::session::{Reader, Session};
use crate::table;

/// Whether a command must go through the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing; a replica that may read can answer it.
    Read,
    /// Changes keys, or may.
    Write,
}

/// A command on the keys of one slot, its options checked. Only [`Command::parse`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Command(pub(crate) Kind);

/// A queued command whose options were wrong: EXEC answers with the error and goes on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    error: Value,
    keys: Vec<Bytes>,
}

/// One variant for each family of commands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    String(StringCommand),
    Range(RangeCommand),
    Counter(CounterCommand),
    Lcs(Lcs),
    Key(KeyCommand),
    Expire(ExpireCommand),
    Refused(Refused),
}

impl Command {
    /// Reads a command line: name first. Errors are those of Redis, in its order: unknown command, number of
    /// arguments, then the options.
    ///
    /// Commands that are no work for a keyspace (PING, MULTI, SCAN, …) answer [`error::not_data`].
    pub fn parse(args: &[Bytes]) -> Result<Command, Value> {
        let spec = table::resolve(args)?;
        match spec.parser {
            Some(parser) => parser(spec, args),
            None => Err(error::not_data(spec.name)),
        }
    }

    /// Reads a command line that MULTI queues. As in Redis, only an unknown name or a wrong number of arguments is
    /// refused now; any other error is what the command will answer in EXEC's reply.
    pub fn queue(args: &[Bytes]) -> Result<Command, Value> {
        let spec = table::resolve(args)?;
        let Some(parser) = spec.parser else { return Err(error::not_data(spec.name)) };
        Ok(parser(spec, args).unwrap_or_else(|error| {
            let keys = table::keys(spec, args).cloned().collect();
            Command(Kind::Refused(Refused { error, keys }))
        }))
    }

    /// Whether it must go through the log.
    #[must_use]
    pub fn access(&self) -> Access {
        match &self.0 {
            Kind::String(command) => command.access(),
            Kind::Range(command) => command.access(),
            Kind::Counter(_) => Access::Write,
            Kind::Lcs(_) | Kind::Refused(_) => Access::Read,
            Kind::Key(command) => command.access(),
            Kind::Expire(command) => command.access(),
        }
    }

    /// The keys it names, in order, repeated ones repeated. None for FLUSHDB and FLUSHALL, which mean all.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (keys, step) = match &self.0 {
            Kind::String(command) => command.keys(),
            Kind::Range(command) => (command.keys(), 1),
            Kind::Counter(command) => (command.keys(), 1),
            Kind::Lcs(command) => (&command.keys[..], 1),
            Kind::Key(command) => (command.keys(), 1),
            Kind::Expire(command) => (command.keys(), 1),
            Kind::Refused(command) => (&command.keys[..], 1),
        };
        keys.chunks(step).map(|group| &group[0])
    }

    /// The longest value it carries, in bytes.
    pub(crate) fn value_bytes(&self) -> usize {
        match &self.0 {
            Kind::String(command) => command.value_bytes(),
            Kind::Range(command) => command.value_bytes(),
            Kind::Counter(_) | Kind::Lcs(_) | Kind::Key(_) | Kind::Expire(_) | Kind::Refused(_) => 0,
        }
    }

    pub(crate) fn read(&self, reader: &Reader<'_>) -> Value {
        match &self.0 {
            Kind::String(command) => command.read(reader),
            Kind::Range(command) => command.read(reader),
            Kind::Counter(_) => error::not_a_read(),
            Kind::Lcs(command) => command.read(reader),
            Kind::Key(command) => command.read(reader),
            Kind::Expire(command) => command.read(reader),
            Kind::Refused(command) => command.error.clone(),
        }
    }

    pub(crate) fn apply(&self, session: &mut Session<'_>) -> Value {
        match &self.0 {
            Kind::String(command) => command.apply(session),
            Kind::Range(command) => command.apply(session),
            Kind::Counter(command) => command.apply(session),
            Kind::Lcs(command) => command.read(&session.reader()),
            Kind::Key(command) => command.apply(session),
            Kind::Expire(command) => command.apply(session),
            Kind::Refused(command) => command.error.clone(),
        }
    }
}
