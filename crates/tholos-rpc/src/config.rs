//! What a node is told at start: who it is, where it listens, its peers and its limits.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::secret::Secret;

/// Bytes of a node's name, at most.
pub const NAME_BYTES_MAX: usize = 255;

/// Bytes of what a node advertises in its hello, at most.
pub const ADVERTISED_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a cluster id.
pub const CLUSTER_ID_BYTES: usize = 20;

/// Which of the two connections of a pair of nodes (R27).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Log traffic and heartbeats: little waits in it.
    Log,
    /// Snapshots and large answers.
    Bulk,
}

impl Lane {
    /// Both lanes.
    pub const ALL: [Lane; 2] = [Lane::Log, Lane::Bulk];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Log => "log",
            Lane::Bulk => "bulk",
        })
    }
}

/// What this node says of itself in every hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalHello {
    /// The cluster it belongs to; without one it only asks and answers queries.
    pub cluster_id: Option<[u8; CLUSTER_ID_BYTES]>,
    /// Its node id.
    pub node: u16,
    /// Its name, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Its data directory's incarnation (R21).
    pub incarnation: u64,
    /// The number or random id of this start.
    pub boot: u64,
    /// The lsn its log was recovered to at this start (R21).
    pub recovered_lsn: u64,
    /// Opaque rows for the other node (addresses of its listeners, say), at most [`ADVERTISED_BYTES_MAX`] bytes.
    pub advertised: Bytes,
}

/// What a proven peer said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The cluster it belongs to; always ours on a lane.
    pub cluster_id: Option<[u8; CLUSTER_ID_BYTES]>,
    /// Its node id.
    pub node: u16,
    /// Its name.
    pub name: String,
    /// Its data directory's incarnation.
    pub incarnation: u64,
    /// The number or random id of its start.
    pub boot: u64,
    /// Random per process: two live processes that claim one node differ in it (R21).
    pub nonce: u64,
    /// The lsn its log was recovered to.
    pub recovered_lsn: u64,
    /// Its opaque rows.
    pub advertised: Bytes,
    /// The other end of the connection; for an accepted one the port is an ephemeral one.
    pub address: SocketAddr,
}

/// Where a peer is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its node id.
    pub node: u16,
    /// Its name: a hello with this id and another name is refused.
    pub name: String,
    /// `host:port`; resolved again at every attempt.
    pub address: String,
}

/// Everything [`Rpc::start`](crate::Rpc::start) needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 lets the system choose. Beyond loopback only with a secret.
    pub listen: SocketAddr,
    /// Who this node is.
    pub me: LocalHello,
    /// What all nodes of the cluster share.
    pub secret: Option<Secret>,
    /// Bounds of memory and connections.
    pub limits: Limits,
    /// Deadlines and pauses.
    pub timing: Timing,
}

impl Config {
    /// A configuration with the default limits and timing.
    pub fn new(listen: SocketAddr, me: LocalHello, secret: Option<Secret>) -> Config {
        Config { listen, me, secret, limits: Limits::default(), timing: Timing::default() }
    }
}

/// Bounds of memory and connections. All nodes of a cluster must have the same message limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a message on the log lane.
    pub log_message_bytes_max: usize,
    /// Bytes of a message on the bulk lane: the largest client value with room for its frame.
    pub bulk_message_bytes_max: usize,
    /// Bytes that wait to be sent to one peer on the log lane; a single larger message passes when nothing waits.
    pub log_queue_bytes_max: usize,
    /// The same for the bulk lane.
    pub bulk_queue_bytes_max: usize,
    /// Bytes received from one peer on one lane that the owner of the events has not dropped yet.
    pub received_bytes_max: usize,
    /// Accepted connections that have not proved themselves; the oldest makes room for a new one.
    pub half_open_max: usize,
    /// Queries being answered at once.
    pub queries_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            log_message_bytes_max: 72 << 20,
            bulk_message_bytes_max: 72 << 20,
            log_queue_bytes_max: 16 << 20,
            bulk_queue_bytes_max: 72 << 20,
            received_bytes_max: 32 << 20,
            half_open_max: 64,
            queries_max: 16,
        }
    }
}

impl Limits {
    pub(crate) fn message_bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Log => self.log_message_bytes_max,
            Lane::Bulk => self.bulk_message_bytes_max,
        }
    }

    pub(crate) fn queue_bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Log => self.log_queue_bytes_max,
            Lane::Bulk => self.bulk_queue_bytes_max,
        }
    }
}

/// Deadlines and pauses.
#[derive(Clone, Debug)]
pub struct Timing {
    /// From connected to proven, and from dialled to connected.
    pub handshake_timeout: Duration,
    /// The first pause before dialling again; each failure doubles it, and half of it is random.
    pub backoff_min: Duration,
    /// The longest pause before dialling again.
    pub backoff_max: Duration,
    /// A connection on which nothing was sent for this long (up to twice this) carries a ping.
    pub ping_interval: Duration,
    /// A connection on which nothing arrived for this long (up to twice this) is closed. Failure detection of
    /// nodes is the heartbeats' work (R9); this only frees what a vanished machine left behind. At least three times
    /// the ping interval.
    pub silence_limit: Duration,
    /// From a query's proof to its answer, on the answering side.
    pub query_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            handshake_timeout: Duration::from_secs(2),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            ping_interval: Duration::from_secs(1),
            silence_limit: Duration::from_secs(4),
            query_timeout: Duration::from_secs(5),
        }
    }
}
