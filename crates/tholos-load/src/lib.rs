//! Clients that drive a workload against any address that speaks the Redis protocol, while others do their worst to
//! the servers behind it, and write down what they asked, when, and what they were told.
//!
//! The history goes to `tholos-check`, which says whether it is linearizable. `tholos check` and the torture test are
//! the two users; `tholos bench` has its mixes and its chance from here.
//!
//! What each rests on:
//!
//! - H1: an operation is recorded from before its first byte is sent to after its reply is read, by one monotonic clock
//!   for all clients.
//! - H2: an operation without a reply stays open for ever: it may happen at any time after its call, or never.
//! - H3: only an error that is known to say that nothing happened makes an operation *failed*; every other one leaves
//!   it open.
//! - H4: no two writes write the same value, so that a read tells which write it saw.
//! - H5: a client never has two operations under way.

mod client;
mod connection;
mod load;
mod mix;
mod random;
mod summary;

pub use load::{History, KEYS_MAX, Load, Plan, StartError};
pub use mix::{Action, Mix, Worded};
pub use random::Random;
pub use summary::{Lost, Summary, lost_writes};
