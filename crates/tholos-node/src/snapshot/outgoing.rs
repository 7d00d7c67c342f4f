//! Snapshots on their way to replicas that lack what the log no longer holds.
//!
//! The receiver asks for the first chunk that it lacks, and so many from there on are on their way at once. Nothing else
//! repeats what was lost: a transfer that stands still is sent again from where it stands, and given up in the end.
//! Bounds: one transfer for each replica of a shard, [`CHUNKS_IN_FLIGHT`] chunks of each under way.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_paxos::{Ballot, Index, Millis};
use tholos_ring::ShardId;

use super::TRANSFER_TIMEOUT;
use crate::event::Effects;
use crate::peer::{PeerMessage, SnapshotChunk};

/// Chunks on their way to one replica at once.
const CHUNKS_IN_FLIGHT: u32 = 4;
/// A transfer that stands still for this long is sent again from where it stands.
const RESEND_AFTER: Millis = Millis(500);

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    transfers: BTreeMap<(ShardId, NodeId), Transfer>,
}

#[derive(Debug)]
struct Transfer {
    ballot: Ballot,
    index: Index,
    /// None once all have arrived: the replica gets time to take them over before the next transfer.
    chunks: Vec<Bytes>,
    /// The chunk asked for last.
    wanted: u32,
    /// Since when.
    moved_at: Millis,
    /// Chunks sent.
    sent: u32,
    /// When the replica last answered.
    at: Millis,
}

impl Outgoing {
    /// Whether one that was begun in `ballot` is under way, or has just arrived.
    pub(super) fn is_under_way(&self, shard: ShardId, to: NodeId, ballot: Ballot, now: Millis) -> bool {
        self.transfers
            .get(&(shard, to))
            .is_some_and(|transfer| transfer.ballot == ballot && now.since(transfer.at) < TRANSFER_TIMEOUT)
    }

    /// Begins to send the snapshot of `chunks`, instead of whatever was being sent there.
    pub(super) fn begin(
        &mut self,
        (shard, to): (ShardId, NodeId),
        (ballot, index): (Ballot, Index),
        chunks: Vec<Bytes>,
        now: Millis,
        out: &mut Effects,
    ) {
        let mut transfer = Transfer { ballot, index, chunks, wanted: 0, moved_at: now, sent: 0, at: now };
        transfer.send(shard, to, out);
        self.transfers.insert((shard, to), transfer);
    }

    /// The replica has all chunks before `wanted`.
    pub(super) fn handle_wanted(
        &mut self,
        (shard, from): (ShardId, NodeId),
        (ballot, index): (Ballot, Index),
        wanted: u32,
        now: Millis,
        out: &mut Effects,
    ) {
        let Some(transfer) = self.transfers.get_mut(&(shard, from)) else { return };
        if (transfer.ballot, transfer.index) != (ballot, index) || transfer.chunks.is_empty() {
            return;
        }
        transfer.at = now;
        if wanted >= transfer.chunks.len() as u32 {
            transfer.chunks = Vec::new();
            return;
        }
        if transfer.wanted != wanted {
            (transfer.wanted, transfer.moved_at) = (wanted, now);
        }
        transfer.send(shard, from, out);
    }

    /// Sends again what was lost of transfers that stand still, and gives up those that nobody answers.
    pub(super) fn tick(&mut self, now: Millis, out: &mut Effects) {
        self.transfers.retain(|_, transfer| now.since(transfer.at) < TRANSFER_TIMEOUT);
        for ((shard, to), transfer) in &mut self.transfers {
            if now.since(transfer.moved_at) >= RESEND_AFTER {
                (transfer.moved_at, transfer.sent) = (now, transfer.wanted);
                transfer.send(*shard, *to, out);
            }
        }
    }

    /// How many have not arrived yet.
    pub(super) fn count(&self) -> usize {
        self.transfers.values().filter(|transfer| !transfer.chunks.is_empty()).count()
    }
}

impl Transfer {
    /// Sends what may be on its way and is not.
    fn send(&mut self, shard: ShardId, to: NodeId, out: &mut Effects) {
        let chunks = self.chunks.len() as u32;
        let end = self.sent.max(chunks.min(self.wanted.saturating_add(CHUNKS_IN_FLIGHT)));
        let (ballot, index) = (self.ballot, self.index);
        for chunk in core::mem::replace(&mut self.sent, end)..end {
            let bytes = self.chunks[chunk as usize].clone();
            let chunk = SnapshotChunk { shard, ballot, index, chunk, chunks, bytes };
            out.sends.push((to, PeerMessage::SnapshotChunk(chunk)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (ShardId, NodeId) = (ShardId(0), NodeId(2));
    const NAME: (Ballot, Index) = (Ballot::ZERO, Index(7));

    /// The chunks sent.
    fn sent(step: impl FnOnce(&mut Effects)) -> Vec<u32> {
        let mut out = Effects::default();
        step(&mut out);
        let number = |(_, message)| match message {
            PeerMessage::SnapshotChunk(chunk) => chunk.chunk,
            other => panic!("{other:?}"),
        };
        out.sends.into_iter().map(number).collect()
    }

    fn begin(outgoing: &mut Outgoing) -> Vec<u32> {
        let chunks = alloc::vec![Bytes::from_static(b"x"); 6];
        sent(|out| outgoing.begin(KEY, NAME, chunks, Millis(0), out))
    }

    #[test]
    fn so_many_chunks_are_under_way_and_the_asked_ones_follow() {
        let mut outgoing = Outgoing::default();
        assert_eq!(begin(&mut outgoing), [0, 1, 2, 3]);
        assert_eq!(sent(|out| outgoing.handle_wanted(KEY, NAME, 1, Millis(1), out)), [4]);
        assert_eq!(sent(|out| outgoing.handle_wanted(KEY, NAME, 1, Millis(1), out)), []);
        let other = (NAME.0, Index(8));
        assert_eq!(sent(|out| outgoing.handle_wanted(KEY, other, 2, Millis(1), out)), []);
        assert_eq!(sent(|out| outgoing.handle_wanted(KEY, NAME, 5, Millis(2), out)), [5]);
        assert_eq!(outgoing.count(), 1);
        assert_eq!(sent(|out| outgoing.handle_wanted(KEY, NAME, 6, Millis(3), out)), []);
        assert_eq!(outgoing.count(), 0);
        // The replica takes it over meanwhile.
        assert!(outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(4)));
        assert!(!outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(3).plus(TRANSFER_TIMEOUT)));
    }

    #[test]
    fn what_stands_still_is_sent_again_and_given_up_unanswered() {
        let mut outgoing = Outgoing::default();
        begin(&mut outgoing);
        outgoing.handle_wanted(KEY, NAME, 2, Millis(100), &mut Effects::default());
        assert_eq!(sent(|out| outgoing.tick(Millis(599), out)), []);
        assert_eq!(sent(|out| outgoing.tick(Millis(600), out)), [2, 3, 4, 5]);
        assert_eq!(sent(|out| outgoing.tick(Millis(601), out)), []);
        assert_eq!(sent(|out| outgoing.tick(Millis(5099), out)), [2, 3, 4, 5]);
        assert_eq!(sent(|out| outgoing.tick(Millis(5100), out)), []);
        assert!(!outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(5100)));
    }
}
