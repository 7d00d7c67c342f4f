//! Why a command did not do what was asked, and the exit code that says so to scripts.

use std::fmt;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The thing asked is not so: unhealthy, refused, failed.
    NotSo = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Nobody answers.
    CannotReach = 3,
    /// Answered, and not allowed.
    NotAllowed = 4,
    /// Timed out; what was started goes on.
    TimedOut = 5,
    /// ^C.
    Interrupted = 130,
}

/// What failed, why, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    what: String,
    why: String,
    remedy: String,
}

impl Failure {
    pub(crate) fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl fmt::Display,
        remedy: impl Into<String>,
    ) -> Self {
        Self { exit, what: what.into(), why: why.to_string(), remedy: remedy.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}: {}", self.what, self.why)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  {}", self.remedy)?;
        }
        Ok(())
    }
}
