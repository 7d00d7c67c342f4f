//! The listening side: accepts, lets strangers prove themselves within bounds, and seats peers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::config::Lane;
use crate::handshake::{self, Proven, Role};
use crate::hello::{Purpose, Verdict};
use crate::peers::Seat;
use crate::refusal::Refusal;
use crate::rpc::Shared;
use crate::transport::Transport;
use crate::{query, session};

/// The pause after a failed accept: with no descriptors left, trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until all stops.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener) {
    let half_open = Arc::new(HalfOpen::new(shared.config.limits.half_open_max));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((_, address)) if !shared.keyring.secured && !address.ip().to_canonical().is_loopback() => {
                shared.refuse(address.to_string(), None, Refusal::BeyondLoopback);
            }
            Ok((stream, address)) => {
                let place = HalfOpen::enter(&half_open);
                shared.tasks.spawn(serve(Arc::clone(&shared), place, stream, address));
            }
            Err(error) => {
                let listen = shared.config.listen.to_string();
                shared.refuse(listen, None, Refusal::CannotAccept(error.to_string()));
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    () = shared.stop.cancelled() => return,
                }
            }
        }
    }
}

/// Takes one connection from its first byte to its end.
async fn serve(shared: Arc<Shared>, place: Place, stream: TcpStream, address: SocketAddr) {
    let Ok(mut transport) = Transport::accept(stream, address) else { return };
    let timeout = shared.config.timing.handshake_timeout;
    let proving = tokio::time::timeout(timeout, handshake::accept(transport.stream(), &shared.keyring));
    let proven = tokio::select! {
        proven = proving => proven.unwrap_or(Err(Refusal::Deadline)),
        () = place.evicted.cancelled() => Err(Refusal::Crowded),
        () = shared.stop.cancelled() => return,
    };
    drop(place);
    let mut proven = match proven {
        Ok(proven) => proven,
        Err(reason) => return shared.refuse(address.to_string(), None, reason),
    };
    let lane = match proven.hello.purpose {
        Purpose::Query => return query::answer(shared, transport, proven).await,
        Purpose::Lane(lane) => lane,
    };
    let (verdict, seat) = match judge(&shared, &proven, lane) {
        Ok(seat) => (Verdict::Welcome, Some(seat)),
        Err((verdict, reason)) => {
            shared.refuse(address.to_string(), Some(proven.hello.identity.node), reason);
            (verdict, None)
        }
    };
    let answering = proven.answer(transport.stream(), verdict, shared.identity());
    let answered = tokio::time::timeout(timeout, answering).await;
    if let (Some(seat), Ok(Ok(()))) = (seat, answered) {
        let peer = proven.hello.identity.into_peer_hello(address);
        session::run(shared, seat, transport, proven.keys, Role::Listener, peer).await;
    }
}

/// Whether the proven dialler may have `lane`; the order of the questions is that of the remedies.
fn judge(shared: &Shared, proven: &Proven, lane: Lane) -> Result<Seat, (Verdict, Refusal)> {
    let me = shared.me();
    let hello = &proven.hello;
    let them = &hello.identity;
    if me.cluster_id.is_none() || them.cluster_id != me.cluster_id {
        let reason = Refusal::Cluster { ours: me.cluster_id, theirs: them.cluster_id };
        return Err((Verdict::OtherCluster, reason));
    }
    if hello.expects != me.node {
        return Err((Verdict::WrongNode, Refusal::WrongNode { expected: hello.expects, found: me.node }));
    }
    if them.node == me.node {
        return Err((Verdict::Duplicate, Refusal::Duplicate { node: me.node }));
    }
    let known = shared.peer(them.node).filter(|peer| peer.name == them.name);
    let Some(peer) = known else {
        let reason = Refusal::UnknownNode { node: them.node, name: them.name.clone() };
        return Err((Verdict::UnknownNode, reason));
    };
    if them.node > me.node {
        return Err((Verdict::NotYourTurn, Refusal::NotItsTurn { node: them.node }));
    }
    peer.admit(lane, them.nonce).map_err(|reason| (Verdict::Duplicate, reason))
}

/// The accepted connections that have not proved themselves, oldest first.
///
/// When all places are taken the oldest goes: a real peer needs its place for a round trip, so a stranger who
/// holds connections open cannot keep peers out, as he could if the newest were turned away.
struct HalfOpen {
    places: Mutex<Places>,
    max: usize,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: VecDeque<(u64, CancellationToken)>,
}

struct Place {
    half_open: Arc<HalfOpen>,
    number: u64,
    evicted: CancellationToken,
}

impl HalfOpen {
    fn new(max: usize) -> HalfOpen {
        HalfOpen { places: Mutex::default(), max }
    }

    fn enter(half_open: &Arc<HalfOpen>) -> Place {
        let mut places = half_open.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.taken.len() >= half_open.max
            && let Some((_, oldest)) = places.taken.pop_front()
        {
            oldest.cancel();
        }
        places.next += 1;
        let (number, evicted) = (places.next, CancellationToken::new());
        places.taken.push_back((number, evicted.clone()));
        drop(places);
        Place { half_open: Arc::clone(half_open), number, evicted }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.half_open.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(at) = places.taken.binary_search_by_key(&self.number, |(number, _)| *number) {
            places.taken.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_open_is_bounded_and_the_oldest_goes() {
        let half_open = Arc::new(HalfOpen::new(3));
        let mut places: Vec<Place> = (0..4).map(|_| HalfOpen::enter(&half_open)).collect();
        let evicted: Vec<bool> = places.iter().map(|place| place.evicted.is_cancelled()).collect();
        assert_eq!(evicted, [true, false, false, false]);
        places.remove(1);
        places.push(HalfOpen::enter(&half_open));
        assert!(!places[1].evicted.is_cancelled(), "a place was free");
        assert_eq!(half_open.places.lock().unwrap().taken.len(), 3);
    }
}
