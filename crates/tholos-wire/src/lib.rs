//! Versioned bytes of peer messages and log records.
//!
//! The layouts are in docs/protocol/wire.md; the fixtures under `fixtures/` hold them for ever. Numbers are
//! little-endian, small ones in seven bits a byte, since most are small. Decoding is checked: any bytes give a
//! value or a [`WireError`], never a panic, and no claimed length or count is believed before that many bytes
//! are there (W1). Decoded payloads are slices of the input, not copies (W2). Each value has one encoding, so
//! what was decoded encodes to the same bytes again (W3).
//!
//! ```
//! use bytes::Bytes;
//! use tholos_paxos::{Ballot, Record, ReplicaId};
//!
//! let record = Record::Promised { ballot: Ballot { round: 3, replica: ReplicaId(2) } };
//! let mut bytes = Vec::new();
//! tholos_wire::encode_record(&record, &mut bytes);
//! assert_eq!(bytes, [1, 1, 3, 2]);
//! assert_eq!(tholos_wire::decode_record(Bytes::from(bytes)), Ok(record));
//! ```
#![no_std]

extern crate alloc;

mod entry;
mod error;
mod frame;
mod paxos;
mod peer;
mod reader;
mod record;
mod value;
mod version;
mod writer;

pub use error::WireError;
pub use frame::{FrameBuilder, Frames, Payload, frames};
pub use peer::{decode_peer, encode_peer};
pub use record::{decode_record, encode_record};

/// The version of all that does not need a later one; the first byte of each message and each record.
pub const VERSION: u8 = 1;

/// The newest version known here: only what version 1 cannot say is written in it.
pub const VERSION_MAX: u8 = 2;

/// Lists within lists of one reply, at most: deeper ones are refused, so that decoding needs little stack.
pub const VALUE_DEPTH_MAX: usize = 64;
