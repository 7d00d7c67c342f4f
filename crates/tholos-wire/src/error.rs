//! What can be wrong with bytes.

use core::fmt;

/// Why bytes are not a message or record. Nothing of them was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WireError {
    /// The first byte names a version that this build cannot read: a newer build wrote them.
    Version(u8),
    /// They end too early, or claim more than they hold.
    Truncated,
    /// Something follows the end: this many bytes.
    Trailing(usize),
    /// A byte that says what follows has no meaning in this version.
    Kind {
        /// What was to follow.
        what: &'static str,
        /// The byte.
        byte: u8,
    },
    /// A number does not fit its type, or is not written in the shortest way (W3).
    Number,
    /// A reply with more lists in lists than [`VALUE_DEPTH_MAX`](crate::VALUE_DEPTH_MAX).
    TooDeep,
    /// What should be text is not UTF-8.
    NotText,
}

impl fmt::Display for WireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Version(version) => write!(out, "bytes of version {version}, which is not known here"),
            WireError::Truncated => write!(out, "bytes end too early"),
            WireError::Trailing(count) => write!(out, "{count} bytes too many"),
            WireError::Kind { what, byte } => write!(out, "no {what} is known by {byte}"),
            WireError::Number => write!(out, "a number out of its range"),
            WireError::NotText => write!(out, "text that is not UTF-8"),
            WireError::TooDeep => write!(out, "lists in lists deeper than {}", crate::VALUE_DEPTH_MAX),
        }
    }
}

impl core::error::Error for WireError {}
