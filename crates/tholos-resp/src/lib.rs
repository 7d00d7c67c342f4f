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

#![no_std]

extern crate alloc;

mod encode;
mod value;

pub use encode::{encode, encode_bulk, encode_command, format_double, push_integer};
pub use value::{Protocol, Value};
