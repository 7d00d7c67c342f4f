//! Snapshots arriving from leaders, chunk by chunk and in order.
//!
//! One for each shard: the latest of the highest ballot, unless it stands still. It is kept in memory until it is whole.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::NodeId;
use tholos_paxos::{Ballot, Index, Millis};
use tholos_ring::ShardId;

use super::TRANSFER_TIMEOUT;
use crate::event::Effects;
use crate::peer::{PeerMessage, SnapshotChunk};

#[derive(Debug, Default)]
pub(super) struct Incoming {
    transfers: BTreeMap<ShardId, Transfer>,
}

#[derive(Debug)]
struct Transfer {
    from: NodeId,
    ballot: Ballot,
    index: Index,
    count: u32,
    chunks: Vec<Bytes>,
    /// When a chunk last came that was wanted.
    at: Millis,
}

impl Incoming {
    /// Takes a chunk if it is the next one, and asks for the one after it. Returns all of them if it was the last.
    pub(super) fn handle_chunk(
        &mut self,
        from: NodeId,
        chunk: SnapshotChunk,
        now: Millis,
        out: &mut Effects,
    ) -> Option<Vec<Bytes>> {
        let SnapshotChunk { shard, ballot, index, chunk: number, chunks: count, bytes } = chunk;
        let fresh = Transfer { from, ballot, index, count, chunks: Vec::new(), at: now };
        let transfer = self.transfers.entry(shard).or_insert(fresh);
        if (transfer.from, transfer.ballot, transfer.index, transfer.count) != (from, ballot, index, count) {
            if (ballot, index) < (transfer.ballot, transfer.index)
                && now.since(transfer.at) < TRANSFER_TIMEOUT
            {
                return None;
            }
            *transfer = Transfer { from, ballot, index, count, chunks: Vec::new(), at: now };
        }
        if number == transfer.chunks.len() as u32 {
            transfer.chunks.push(bytes);
            transfer.at = now;
        }
        let next = transfer.chunks.len() as u32;
        out.sends.push((from, PeerMessage::SnapshotWanted { shard, ballot, index, chunk: next }));
        if next < count {
            return None;
        }
        self.transfers.remove(&shard).map(|whole| whole.chunks)
    }

    /// Gives up those that stand still, and their memory.
    pub(super) fn tick(&mut self, now: Millis) {
        self.transfers.retain(|_, transfer| now.since(transfer.at) < TRANSFER_TIMEOUT);
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.transfers.len()
    }
}

#[cfg(test)]
mod tests {
    use tholos_paxos::ReplicaId;

    use super::*;

    /// Chunk `number` of three from the leader of `round`, at `now`: what is asked for next, and whether that was all.
    fn take(incoming: &mut Incoming, round: u64, number: u32, now: u64) -> (Option<u32>, bool) {
        take_of(incoming, (round, 7), number, now)
    }

    /// The same of the snapshot at `index`.
    fn take_of(
        incoming: &mut Incoming,
        (round, index): (u64, u64),
        number: u32,
        now: u64,
    ) -> (Option<u32>, bool) {
        let chunk = SnapshotChunk {
            shard: ShardId(0),
            ballot: Ballot { round, replica: ReplicaId(2) },
            index: Index(index),
            chunk: number,
            chunks: 3,
            bytes: Bytes::from_static(b"x"),
        };
        let mut out = Effects::default();
        let whole = incoming.handle_chunk(NodeId(2), chunk, Millis(now), &mut out);
        let wanted = out.sends.into_iter().find_map(|(_, message)| match message {
            PeerMessage::SnapshotWanted { chunk, .. } => Some(chunk),
            _ => None,
        });
        (wanted, whole.is_some_and(|chunks| chunks.len() == 3))
    }

    #[test]
    fn chunks_are_taken_in_order_until_all_are_there() {
        let mut incoming = Incoming::default();
        assert_eq!(take(&mut incoming, 1, 1, 0), (Some(0), false));
        assert_eq!(take(&mut incoming, 1, 0, 0), (Some(1), false));
        assert_eq!(take(&mut incoming, 1, 0, 0), (Some(1), false));
        assert_eq!(take(&mut incoming, 1, 1, 0), (Some(2), false));
        assert_eq!((take(&mut incoming, 1, 2, 0), incoming.count()), ((Some(3), true), 0));
    }

    #[test]
    fn a_late_chunk_of_an_earlier_snapshot_disturbs_nothing() {
        let mut incoming = Incoming::default();
        assert_eq!(take_of(&mut incoming, (1, 7), 0, 0), (Some(1), false));
        assert_eq!(take_of(&mut incoming, (1, 9), 0, 10), (Some(1), false));
        assert_eq!(take_of(&mut incoming, (1, 7), 1, 20), (None, false));
        assert_eq!(take_of(&mut incoming, (1, 9), 1, 30), (Some(2), false), "the later one goes on");
    }

    #[test]
    fn a_lower_ballot_disturbs_only_what_stands_still() {
        let mut incoming = Incoming::default();
        assert_eq!(take(&mut incoming, 2, 0, 0), (Some(1), false));
        assert_eq!(take(&mut incoming, 1, 0, 4999), (None, false));
        assert_eq!(take(&mut incoming, 1, 0, 5000), (Some(1), false));
        assert_eq!(take(&mut incoming, 2, 0, 5000), (Some(1), false));
        incoming.tick(Millis(9999));
        assert_eq!(incoming.count(), 1);
        incoming.tick(Millis(10_000));
        assert_eq!(incoming.count(), 0);
    }
}
