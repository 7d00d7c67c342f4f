//! The Redis protocol, RESP2 and RESP3: bytes to values and back.
//!
//! ```text
//!   client bytes --> CommandDecoder --> Vec<Bytes>  (a command's arguments)
//!   Value        --> encode         --> reply bytes, in the client's Protocol
//!   reply bytes  --> ValueDecoder   --> Value       (clients: bench, tests)
//! ```
//!
//! Nothing here reads a socket: buffers come in, values go out. Decoders are incremental (a byte is looked at once,
//! however the stream is cut), copy no payload (arguments are slices of the buffer they arrived in), and hold
//! bounded memory whatever the bytes say: a claimed length allocates nothing until the bytes are there.
//!
//! # Example
//!
//! ```
//! use bytes::BytesMut;
//! use tholos_resp::{CommandDecoder, Limits, Protocol, Value, encode};
//!
//! let mut decoder = CommandDecoder::new(Limits::default());
//! let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..]);
//! let command = decoder.decode(&mut buffer).unwrap().unwrap();
//! assert_eq!(command, [&b"GET"[..], b"k"]);
//!
//! let mut out = Vec::new();
//! encode(&Value::Map(vec![(Value::bulk("a"), Value::integer(1))]), Protocol::Resp2, &mut out);
//! assert_eq!(out, b"*2\r\n$1\r\na\r\n:1\r\n");
//! ```

#![no_std]

extern crate alloc;

mod command;
mod encode;
mod inline;
mod number;
mod reply;
mod value;

pub use command::{
    CommandDecoder, Limits, ProtocolError, UNAUTHENTICATED_ARGUMENTS_MAX, UNAUTHENTICATED_BULK_BYTES_MAX,
};
pub use encode::{encode, encode_bulk, encode_command, format_double, push_integer};
pub use number::parse_integer;
pub use reply::{ValueDecoder, ValueError, ValueLimits};
pub use value::{Protocol, Value};
