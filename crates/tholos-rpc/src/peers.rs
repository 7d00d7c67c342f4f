//! The peers: their addresses, the one live process of each, and its two lanes.
//!
//! Rules kept here: R21 (one live nonce per node, a second is refused), R27 (one connection per lane and pair).

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Lane, Limits, PeerAddress};
use crate::queue::SendQueue;
use crate::refusal::Refusal;

/// One other node.
pub(crate) struct Peer {
    pub(crate) node: u16,
    pub(crate) name: String,
    /// Cancelled when the peer leaves the list, or the whole `Rpc` stops.
    pub(crate) stop: CancellationToken,
    addresses: Mutex<Addresses>,
    lanes: [LaneState; 2],
    live: Mutex<Live>,
}

/// Where a peer is reached, and where it was before.
///
/// Whoever tells the newest address may know less than who told the one before: after a restart on new ports a node is told
/// where the others are, and then gets a map in which one of them has not said so yet. So both are tried, in turn, as long
/// as there is no connection; who answers proves who it is.
struct Addresses {
    newest: String,
    before: Option<String>,
    /// The next attempt goes to the one before.
    tries_before: bool,
}

/// One lane to a peer, connected or not.
pub(crate) struct LaneState {
    pub(crate) queue: SendQueue,
    /// The budget of received bytes that the owner of the events has not dropped yet.
    pub(crate) credit: Arc<Semaphore>,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    /// Why it is not connected; None while it is.
    last_error: Mutex<Option<String>>,
}

impl LaneState {
    pub(crate) fn set_error(&self, error: Option<String>) {
        *lock(&self.last_error) = error;
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        lock(&self.last_error).clone()
    }
}

/// The process that is connected as this node now.
#[derive(Default)]
struct Live {
    /// Its nonce, while at least one session stands.
    nonce: u64,
    sessions: [Option<Session>; 2],
    sessions_made: u64,
}

struct Session {
    number: u64,
    stop: CancellationToken,
    done: CancellationToken,
}

impl Peer {
    pub(crate) fn new(address: PeerAddress, limits: &Limits, stop: CancellationToken) -> Peer {
        let lane = |lane| LaneState {
            queue: SendQueue::new(limits.queue_bytes_max(lane), limits.message_bytes_max(lane)),
            credit: Arc::new(Semaphore::new(limits.received_bytes_max)),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            last_error: Mutex::new(None),
        };
        Peer {
            node: address.node,
            name: address.name,
            stop,
            addresses: Mutex::new(Addresses { newest: address.address, before: None, tries_before: false }),
            lanes: Lane::ALL.map(lane),
            live: Mutex::default(),
        }
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneState {
        &self.lanes[lane as usize]
    }

    /// Where the next attempt goes.
    pub(crate) fn address(&self) -> String {
        let addresses = lock(&self.addresses);
        let before = addresses.before.as_ref().filter(|_| addresses.tries_before);
        before.unwrap_or(&addresses.newest).clone()
    }

    pub(crate) fn set_address(&self, address: String) {
        let mut addresses = lock(&self.addresses);
        if addresses.newest != address {
            addresses.before = Some(std::mem::replace(&mut addresses.newest, address));
            addresses.tries_before = false;
        }
    }

    /// An attempt at `address` has failed: the next one goes to the other, if there are two.
    pub(crate) fn try_other(&self, address: &str) {
        let mut addresses = lock(&self.addresses);
        addresses.tries_before = addresses.before.is_some() && addresses.newest == address;
    }

    /// Gives the process with `nonce` its seat on `lane`.
    ///
    /// A second live process is refused; the same process again takes the place of its earlier connection, which
    /// it must have lost.
    pub(crate) fn admit(self: &Arc<Peer>, lane: Lane, nonce: u64) -> Result<Seat, Refusal> {
        let mut live = lock(&self.live);
        if live.sessions.iter().any(Option::is_some) && live.nonce != nonce {
            // If the other process died with its machine, this ping brings the reset that frees the seat.
            self.lanes.iter().for_each(|lane| lane.queue.nudge());
            return Err(Refusal::Duplicate { node: self.node });
        }
        live.nonce = nonce;
        live.sessions_made += 1;
        let number = live.sessions_made;
        let (stop, done) = (self.stop.child_token(), CancellationToken::new());
        let session = Session { number, stop: stop.clone(), done: done.clone() };
        let previous = live.sessions[lane as usize].replace(session).map(|previous| {
            previous.stop.cancel();
            previous.done
        });
        Ok(Seat { peer: Arc::clone(self), lane, number, stop, done, previous })
    }
}

/// The right to run a session on a lane; dropping it ends the right.
pub(crate) struct Seat {
    pub(crate) peer: Arc<Peer>,
    pub(crate) lane: Lane,
    number: u64,
    /// Cancelled when the session must end.
    pub(crate) stop: CancellationToken,
    done: CancellationToken,
    /// Cancelled when the session before this one has told its `Down`.
    pub(crate) previous: Option<CancellationToken>,
}

impl Seat {
    pub(crate) fn lane_state(&self) -> &LaneState {
        self.peer.lane(self.lane)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut live = lock(&self.peer.live);
        let session = &mut live.sessions[self.lane as usize];
        if session.as_ref().is_some_and(|session| session.number == self.number) {
            *session = None;
        }
        self.done.cancel();
    }
}

/// No code under these locks can leave their contents half changed, so a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Arc<Peer> {
        let address = PeerAddress { node: 2, name: "n2".into(), address: "127.0.0.1:1".into() };
        Arc::new(Peer::new(address, &Limits::default(), CancellationToken::new()))
    }

    #[test]
    fn second_live_nonce_is_refused_until_the_first_is_gone() {
        let peer = peer();
        let log = peer.admit(Lane::Log, 7).unwrap();
        let bulk = peer.admit(Lane::Bulk, 7).unwrap();
        assert_eq!(peer.admit(Lane::Log, 8).err(), Some(Refusal::Duplicate { node: 2 }));
        drop(log);
        assert_eq!(
            peer.admit(Lane::Log, 8).err(),
            Some(Refusal::Duplicate { node: 2 }),
            "its bulk lane lives"
        );
        drop(bulk);
        assert!(peer.admit(Lane::Log, 8).is_ok());
    }

    #[test]
    fn same_process_replaces_its_lost_connection() {
        let peer = peer();
        let first = peer.admit(Lane::Log, 7).unwrap();
        let second = peer.admit(Lane::Log, 7).unwrap();
        assert!(first.stop.is_cancelled() && !second.stop.is_cancelled());
        assert!(!second.previous.as_ref().unwrap().is_cancelled(), "the first has not said goodbye yet");
        drop(first);
        assert!(second.previous.as_ref().unwrap().is_cancelled());
        assert!(peer.admit(Lane::Bulk, 8).is_err(), "dropping the first must not free the second's seat");
    }
}
