//! [`Rpc`]: the handle its owner keeps, and the state its tasks share.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{ADVERTISED_BYTES_MAX, Config, Lane, LocalHello, NAME_BYTES_MAX, PeerAddress};
use crate::event::Event;
use crate::hello::Identity;
use crate::peers::Peer;
use crate::queue::{Message, SendError, SendQueue};
use crate::refusal::{Limiter, Refusal};
use crate::secret::Keyring;
use crate::{dial, listen};

/// Why an [`Rpc`] did not start. Nothing listens then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Beyond loopback a cluster secret is needed (R28).
    #[error(
        "the peer port may not listen on {listen} without a cluster secret: anyone who reaches it could join in; \
         set cluster_secret (or --cluster-secret-file) on all nodes, or listen on 127.0.0.1"
    )]
    NoSecret {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The address cannot be bound.
    #[error(
        "the peer port cannot listen on {listen}: {source}; stop what holds it or choose another address"
    )]
    Bind {
        /// The address asked for.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A setting is out of its bounds.
    #[error("{0}")]
    Setting(&'static str),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// The connections of this node with its peers.
///
/// Clones are handles to the same; when the last one is dropped, all stops.
#[derive(Clone)]
pub struct Rpc {
    shared: Arc<Shared>,
    local_address: SocketAddr,
    _guard: Arc<DropGuard>,
}

/// What all tasks share. Tasks hold it, so it never holds a task.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) keyring: Keyring,
    /// Random per process (R21).
    nonce: u64,
    pub(crate) me: watch::Sender<Arc<LocalHello>>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) queries: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    peers: RwLock<BTreeMap<u16, Arc<Peer>>>,
    limiter: Mutex<Limiter>,
}

impl Shared {
    pub(crate) fn me(&self) -> Arc<LocalHello> {
        Arc::clone(&self.me.borrow())
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::new(&self.me(), self.nonce)
    }

    pub(crate) fn peer(&self, node: u16) -> Option<Arc<Peer>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Hands an event to the owner, waiting while it is busy; false if `stop` came first or the owner is gone.
    pub(crate) async fn tell(&self, event: Event, stop: &CancellationToken) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(event)) => tokio::select! {
                sent = self.events.send(event) => sent.is_ok(),
                () = stop.cancelled() => false,
            },
        }
    }

    /// Tells a refusal, at a bounded rate and never waiting: a stranger must not be able to stop anything.
    pub(crate) fn refuse(&self, address: String, node: Option<u16>, reason: Refusal) {
        let label = reason.reason();
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = limiter.admit(label, Instant::now()) {
            let event = Event::Refused { address, node, reason, suppressed };
            if self.events.try_send(event).is_err() {
                limiter.put_back(label, suppressed);
            }
        }
    }
}

/// A peer as this node sees it.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Where it is reached.
    pub peer: PeerAddress,
    /// The log lane.
    pub log: LaneStatus,
    /// The bulk lane.
    pub bulk: LaneStatus,
}

/// A lane as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStatus {
    /// Whether it is connected.
    pub up: bool,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Bytes given to the kernel since start, frames and tags included.
    pub sent_bytes: u64,
    /// Bytes received since start, frames and tags included.
    pub received_bytes: u64,
    /// Why it is not connected, if it was tried.
    pub last_error: Option<String>,
}

impl Rpc {
    /// Listens, and from now on tells `events` what happens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`]; nothing listens then.
    pub fn start(config: Config, events: mpsc::Sender<Event>) -> Result<Rpc, StartError> {
        check(&config)?;
        let listen = config.listen;
        let bind = |source| StartError::Bind { listen, source };
        let listener = std::net::TcpListener::bind(listen).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let listener = TcpListener::from_std(listener).map_err(bind)?;
        let local_address = listener.local_addr().map_err(bind)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            keyring: Keyring::new(config.secret.as_ref()),
            nonce: getrandom::u64().map_err(StartError::Random)?,
            me: watch::Sender::new(Arc::new(config.me.clone())),
            events,
            queries: Arc::new(Semaphore::new(config.limits.queries_max)),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
            peers: RwLock::default(),
            limiter: Mutex::default(),
            config,
        });
        shared.tasks.spawn(listen::run(Arc::clone(&shared), listener));
        Ok(Rpc { shared, local_address, _guard: Arc::new(stop.drop_guard()) })
    }

    /// Where this node listens; with port 0 asked for, the port the system chose.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Sets who this node is, for handshakes from now on: the cluster id after genesis, say. Live connections stay.
    ///
    /// # Errors
    /// [`StartError::Setting`] when the name or the rows are too long; nothing changed then.
    pub fn set_me(&self, me: LocalHello) -> Result<(), StartError> {
        check_hello(&me)?;
        self.shared.me.send_replace(Arc::new(me));
        Ok(())
    }

    /// Sets all other nodes of the cluster; a row for this node itself is left out. New peers are dialled at once if
    /// their id is larger than ours, removed ones are disconnected, and a new address serves the next attempt; as long as there is no
    /// connection, the address before it is tried as well, in turn.
    pub fn set_peers(&self, peers: Vec<PeerAddress>) {
        let shared = &self.shared;
        let me = shared.me().node;
        let mut known = shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|node, peer| {
            let kept = peers.iter().any(|row| row.node == *node && row.name == peer.name);
            if !kept {
                peer.stop.cancel();
            }
            kept
        });
        for row in peers.into_iter().filter(|row| row.node != me) {
            if let Some(peer) = known.get(&row.node) {
                peer.set_address(row.address);
                continue;
            }
            let peer = Arc::new(Peer::new(row, &shared.config.limits, shared.stop.child_token()));
            for lane in Lane::ALL {
                shared.tasks.spawn(dial::run(Arc::clone(shared), Arc::clone(&peer), lane));
            }
            known.insert(peer.node, peer);
        }
    }

    /// Queues a message to a peer. Never blocks. Messages of one lane arrive in order or, when the lane goes down,
    /// not at all.
    ///
    /// # Errors
    /// See [`SendError`]; the message was not queued then.
    pub fn send(&self, node: u16, lane: Lane, message: Bytes) -> Result<(), SendError> {
        self.send_parts(node, lane, message, Vec::new())
    }

    /// The same for a message in parts, which arrives as one: a large one need not be copied together to be sent. No part of `rest`
    /// should be empty.
    ///
    /// # Errors
    /// See [`SendError`]; the message was not queued then.
    pub fn send_parts(&self, node: u16, lane: Lane, first: Bytes, rest: Vec<Bytes>) -> Result<(), SendError> {
        self.with_queue(node, lane, |queue| queue.send(Message { first, rest }))
    }

    /// As [`send`](Self::send) on the log lane, overtaking all that waits there, between the pieces of a long
    /// message too: for heartbeats, of at most [`PIECE_BYTES`](crate::PIECE_BYTES). Urgent messages have a bound of
    /// their own (256 KiB), so a full queue does not stop them.
    ///
    /// # Errors
    /// See [`SendError`]; the message was not queued then.
    pub fn send_urgent(&self, node: u16, message: Bytes) -> Result<(), SendError> {
        self.with_queue(node, Lane::Log, |queue| queue.send_urgent(message))
    }

    fn with_queue(
        &self,
        node: u16,
        lane: Lane,
        send: impl FnOnce(&SendQueue) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.get(&node).ok_or(SendError::NotConnected)?;
        send(&peer.lane(lane).queue)
    }

    /// All peers, by node id.
    pub fn status(&self) -> Vec<PeerStatus> {
        let lane_status = |peer: &Peer, lane| {
            let state = peer.lane(lane);
            let (up, queued_bytes) = state.queue.status();
            LaneStatus {
                up,
                queued_bytes,
                sent_bytes: state.sent_bytes.load(Relaxed),
                received_bytes: state.received_bytes.load(Relaxed),
                last_error: state.last_error(),
            }
        };
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        let status = |peer: &Arc<Peer>| PeerStatus {
            peer: PeerAddress { node: peer.node, name: peer.name.clone(), address: peer.address() },
            log: lane_status(peer, Lane::Log),
            bulk: lane_status(peer, Lane::Bulk),
        };
        peers.values().map(status).collect()
    }

    /// Closes all connections and the port, and waits until every task has ended. Queued messages are not sent.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

fn check(config: &Config) -> Result<(), StartError> {
    if config.secret.is_none() && !config.listen.ip().is_loopback() {
        return Err(StartError::NoSecret { listen: config.listen });
    }
    let limits = &config.limits;
    let bytes = [
        limits.log_message_bytes_max,
        limits.bulk_message_bytes_max,
        limits.log_queue_bytes_max,
        limits.bulk_queue_bytes_max,
        limits.received_bytes_max,
    ];
    if bytes.iter().any(|&bytes| bytes == 0 || bytes > 1 << 30) {
        return Err(StartError::Setting("peer limits in bytes must be between 1 and 1 GiB"));
    }
    if limits.half_open_max == 0 || limits.queries_max == 0 {
        return Err(StartError::Setting("half_open_max and queries_max must be at least 1"));
    }
    let timing = &config.timing;
    if timing.backoff_min.is_zero() || timing.backoff_max < timing.backoff_min {
        return Err(StartError::Setting("the back-off must be above 0 and its maximum at least its minimum"));
    }
    if timing.ping_interval.is_zero() || timing.silence_limit < timing.ping_interval * 3 {
        return Err(StartError::Setting("the silence limit must be at least three times the ping interval"));
    }
    check_hello(&config.me)
}

fn check_hello(me: &LocalHello) -> Result<(), StartError> {
    if me.name.len() > NAME_BYTES_MAX {
        return Err(StartError::Setting("a node's name may have 255 bytes"));
    }
    if me.advertised.len() > ADVERTISED_BYTES_MAX {
        return Err(StartError::Setting("a node may advertise 16 KiB of rows"));
    }
    Ok(())
}
