//! Authenticated connections between the nodes of a cluster, carrying messages of opaque bytes.
//!
//! Each pair of nodes has two connections, the [lanes](Lane): the log lane for log traffic and heartbeats, where
//! little ever waits, and the bulk lane for snapshots and large answers. All groups share them. The node with the
//! smaller id dials, so there is exactly one connection for each lane and pair; it dials again, with growing and
//! partly random pauses, for as long as the peer is in the list.
//!
//! With a cluster [`Secret`] every connection begins with a proof on both sides and every frame carries a keyed
//! MAC; who has not the secret gets not one byte. Without one, nothing listens or is dialled beyond loopback.
//! The bytes, and what this protects against and what not, are in `docs/protocol/rpc.md`.
//!
//! What is deliberately absent: message types, batching (callers put many messages into one), retries (a message
//! is sent once or the lane goes [`Down`](Event::Down)), and TLS (its place is the transport module).
//!
//! Everything is bounded: queues to send and bytes received in bytes per peer and lane, half-open handshakes and
//! queries in number, reports of refusals in rate.

mod config;
mod dial;
mod event;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod hello;
mod listen;
mod peers;
mod query;
mod queue;
mod refusal;
mod rpc;
mod secret;
mod session;
mod transport;

pub use config::{
    ADVERTISED_BYTES_MAX, CLUSTER_ID_BYTES, Config, Lane, Limits, LocalHello, NAME_BYTES_MAX, PeerAddress,
    PeerHello, Timing,
};
pub use event::{Credit, DownReason, Event};
pub use frame::{FrameError, PIECE_BYTES};
pub use query::{QUERY_BYTES_MAX, QueryError, query};
pub use queue::SendError;
pub use refusal::Refusal;
pub use rpc::{LaneStatus, PeerStatus, Rpc, StartError};
pub use secret::{SECRET_BYTES_MIN, Secret, SecretTooShort};
