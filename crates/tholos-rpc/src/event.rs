//! What the owner of an [`Rpc`](crate::Rpc) is told.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::config::{Lane, PeerHello};
use crate::frame::FrameError;
use crate::refusal::Refusal;

/// One thing that happened. Of one lane of one peer: `Up`, then its `Frame`s in order, then `Down`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A lane to a peer is up: sending works from now on.
    Up {
        /// What the peer said of itself.
        peer: PeerHello,
        /// The lane.
        lane: Lane,
    },
    /// A lane to a peer is down; what waited in its queue is gone, and what was sent may have arrived or not.
    Down {
        /// The peer.
        node: u16,
        /// The lane.
        lane: Lane,
        /// Why.
        reason: DownReason,
    },
    /// A message from a peer.
    Frame {
        /// The peer.
        from: u16,
        /// The lane it came on.
        lane: Lane,
        /// The message. Small ones are slices of a shared receive buffer of 128 KiB: copy what is kept for long.
        payload: Bytes,
        /// Held while the message counts against the peer's share of memory; dropping it lets more in.
        credit: Credit,
    },
    /// A connection did not come about. Told at a bounded rate for each reason.
    Refused {
        /// The other end: `ip:port` of who dialled us, or the address that we dialled.
        address: String,
        /// The node that was dialled or that the proven other end claims to be.
        node: Option<u16>,
        /// Cause and remedy.
        reason: Refusal,
        /// Refusals of the same reason kept back since the last one told.
        suppressed: u64,
    },
    /// Someone who has the secret asks something. Dropping `reply` closes the connection without an answer.
    Query {
        /// The other end.
        address: String,
        /// The question.
        payload: Bytes,
        /// Takes the answer, at most [`QUERY_BYTES_MAX`](crate::QUERY_BYTES_MAX) bytes.
        reply: oneshot::Sender<Bytes>,
    },
}

/// A received message's claim on the bound of `received_bytes_max`; dropping it gives the bytes back.
pub struct Credit(#[expect(dead_code, reason = "held for its drop")] pub(crate) OwnedSemaphorePermit);

impl fmt::Debug for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credit")
    }
}

/// Why a lane went down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DownReason {
    /// The peer closed the connection: it stopped or restarted.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing arrived for too long, not even a ping.
    #[error("nothing arrived for {0:?}")]
    Silent(Duration),
    /// Bytes arrived that no healthy peer sends.
    #[error("{0}")]
    BadFrame(FrameError),
    /// The same process dialled again: it had lost this connection.
    #[error("the peer dialled again")]
    Replaced,
    /// The peer left the list of peers.
    #[error("the peer was removed from the list of peers")]
    Removed,
    /// This node shuts down.
    #[error("this node shuts down")]
    Shutdown,
}
