//! The dialling side: of each pair the node with the smaller id dials, once for each lane, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Lane, Timing};
use crate::handshake::{self, Role};
use crate::hello::{Answer, Hello, Purpose, Verdict};
use crate::peers::Peer;
use crate::refusal::Refusal;
use crate::rpc::Shared;
use crate::session;
use crate::transport::Transport;

/// Keeps one lane to one peer connected until the peer is removed or all stops.
pub(crate) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, lane: Lane) {
    let mut me = shared.me.subscribe();
    let mut backoff = Backoff::new(&shared.config.timing);
    loop {
        // A node without a cluster has no one to dial; genesis sets the id and wakes us.
        let ours_to_dial = me.wait_for(|me| me.cluster_id.is_some() && me.node < peer.node);
        tokio::select! {
            found = ours_to_dial => if found.is_err() { return },
            () = peer.stop.cancelled() => return,
        }
        let address = peer.address();
        let connected = tokio::select! {
            connected = connect(&shared, &peer, lane, &address) => connected,
            () = peer.stop.cancelled() => return,
        };
        match connected {
            Ok(session) => {
                backoff.reset();
                session.await;
            }
            Err(reason) => {
                peer.lane(lane).set_error(Some(reason.to_string()));
                peer.try_other(&address);
                shared.refuse(address, Some(peer.node), reason);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = peer.stop.cancelled() => return,
        }
    }
}

/// Dials, proves both sides and returns the session to run.
async fn connect(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    lane: Lane,
    address: &str,
) -> Result<impl Future<Output = ()> + use<>, Refusal> {
    let timeout = shared.config.timing.handshake_timeout;
    let connecting = Transport::connect(address, !shared.keyring.secured);
    let mut transport = match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(transport)) => transport,
        Ok(Err(error)) => return Err(Refusal::Unreachable(format!("{address}: {error}"))),
        Err(_) => return Err(Refusal::Unreachable(format!("{address}: no answer within {timeout:?}"))),
    };
    let identity = shared.identity();
    let cluster_id = identity.cluster_id;
    let hello = Hello { purpose: Purpose::Lane(lane), expects: peer.node, identity };
    let shaking = handshake::dial(transport.stream(), &shared.keyring, &hello);
    let dialled = tokio::time::timeout(timeout, shaking).await.map_err(|_| Refusal::Deadline)??;
    judge(&dialled.answer, cluster_id, peer)?;
    let seat = peer.admit(lane, dialled.answer.identity.nonce)?;
    let found = dialled.answer.identity.into_peer_hello(transport.address);
    Ok(session::run(Arc::clone(shared), seat, transport, dialled.keys, Role::Dialler, found))
}

/// Whether the answer is a welcome by the right node.
fn judge(answer: &Answer, ours: Option<[u8; 20]>, peer: &Peer) -> Result<(), Refusal> {
    let found = &answer.identity;
    match answer.verdict {
        Verdict::Welcome
            if found.cluster_id == ours && found.node == peer.node && found.name == peer.name =>
        {
            Ok(())
        }
        Verdict::Welcome | Verdict::OtherCluster if found.cluster_id != ours => {
            Err(Refusal::Cluster { ours, theirs: found.cluster_id })
        }
        Verdict::Welcome if found.node == peer.node => {
            Err(Refusal::UnknownNode { node: found.node, name: found.name.clone() })
        }
        Verdict::Welcome | Verdict::WrongNode => {
            Err(Refusal::WrongNode { expected: peer.node, found: found.node })
        }
        Verdict::UnknownNode => Err(Refusal::UnknownThere { node: peer.node }),
        Verdict::Duplicate => Err(Refusal::DuplicateOfUs { node: peer.node }),
        Verdict::Busy => Err(Refusal::Busy),
        Verdict::NotYourTurn | Verdict::OtherCluster => Err(Refusal::Malformed("a verdict")),
    }
}

/// Pauses that double from the smallest to the largest, half of each random.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(timing: &Timing) -> Backoff {
        Backoff { min: timing.backoff_min, max: timing.backoff_max, next: timing.backoff_min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        // Without randomness the pauses are only less spread.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_its_bound_and_starts_again() {
        let timing = Timing::default();
        let mut backoff = Backoff::new(&timing);
        let mut whole = timing.backoff_min;
        for _ in 0..20 {
            let pause = backoff.next();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(timing.backoff_max);
        }
        assert_eq!(whole, timing.backoff_max);
        backoff.reset();
        assert!(backoff.next() <= timing.backoff_min);
    }
}
