//! Snapshots arriving, mostly from leaders, chunk by chunk and in order.
//!
//! One for each shard: the latest of the highest ballot, unless it stands still. A chunk goes to a file at once, and its
//! contents to a state that is built beside the one in use, both on the driver's side; here is only how far that is.
//! What has come is kept for a while when the rest does not, and the next chunk of the same file goes on there.
//!
//! - **I1** The sender hears of a chunk when it is written: the disk holds the sender back, and few chunks wait in memory.
//! - **I2** What the driver says is of the transfer that it was given the chunk by: a file that is sent again, after what had come
//!   of it was not needed any more, is another transfer.

use alloc::collections::BTreeMap;

use tholos_cluster::NodeId;
use tholos_paxos::{Ballot, Index, Millis};
use tholos_ring::ShardId;

use super::TRANSFER_TIMEOUT;
use crate::event::{Effects, SnapshotJob};
use crate::peer::{PeerMessage, SnapshotChunk};

/// What has come of a snapshot is kept for so long after the last chunk: a connection is back by then, or its leader is
/// no leader any more.
const RESUMED_WITHIN: Millis = Millis(60_000);
/// Chunks that wait to be written, at most. A sender has fewer under way.
const CHUNKS_WAITING_MAX: u32 = 64;
/// Bytes of a chunk, at most: what a snapshot file takes.
const CHUNK_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Incoming {
    transfers: BTreeMap<ShardId, Transfer>,
    /// Transfers so far.
    begun: u64,
    /// Bytes of one snapshot, at most.
    snapshot_bytes_max: u64,
}

#[derive(Debug)]
struct Transfer {
    from: NodeId,
    ballot: Ballot,
    index: Index,
    /// What its sender calls the file.
    file: u64,
    /// What the driver knows it by (I2).
    number: u64,
    /// Chunks given to the driver, and those that it has written.
    given: u32,
    taken: u32,
    /// Whether the last one is among those given.
    all_given: bool,
    bytes: u64,
    /// When a chunk last came that was wanted.
    at: Millis,
}

impl Transfer {
    fn new(from: NodeId, chunk: &SnapshotChunk, number: u64, at: Millis) -> Transfer {
        let SnapshotChunk { ballot, index, file, .. } = *chunk;
        Transfer { from, ballot, index, file, number, given: 0, taken: 0, all_given: false, bytes: 0, at }
    }

    /// Asks for what is not written yet.
    fn ask(&self, shard: ShardId, out: &mut Effects) {
        let Transfer { ballot, index, file, taken: chunk, .. } = *self;
        out.sends.push((self.from, PeerMessage::SnapshotWanted { shard, ballot, index, file, chunk }));
    }
}

impl Incoming {
    pub(super) fn new(snapshot_bytes_max: u64) -> Incoming {
        Incoming { transfers: BTreeMap::new(), begun: 0, snapshot_bytes_max }
    }

    /// Takes a chunk if it is the next one. An error says why the whole snapshot is refused.
    pub(super) fn handle_chunk(
        &mut self,
        from: NodeId,
        chunk: SnapshotChunk,
        now: Millis,
        out: &mut Effects,
    ) -> Result<(), &'static str> {
        let shard = chunk.shard;
        let number = self.begun + 1;
        let transfer =
            self.transfers.entry(shard).or_insert_with(|| Transfer::new(from, &chunk, number, now));
        if (transfer.from, transfer.file, transfer.index) != (from, chunk.file, chunk.index) {
            if (chunk.ballot, chunk.index) < (transfer.ballot, transfer.index)
                && now.since(transfer.at) < TRANSFER_TIMEOUT
            {
                return Ok(());
            }
            out.snapshots.push(SnapshotJob::Forget { shard, file: transfer.number });
            *transfer = Transfer::new(from, &chunk, number, now);
        }
        self.begun = self.begun.max(transfer.number);
        // Its sender may have been elected again meanwhile.
        transfer.ballot = transfer.ballot.max(chunk.ballot);
        let file = transfer.number;
        let SnapshotChunk { index, chunk: number, chunks, checksum, bytes, .. } = chunk;
        let waiting = transfer.given - transfer.taken;
        if number != transfer.given || transfer.all_given || waiting >= CHUNKS_WAITING_MAX {
            transfer.ask(shard, out);
            return Ok(());
        }
        transfer.bytes += bytes.len() as u64;
        let sound = (1..=CHUNK_BYTES_MAX).contains(&bytes.len()) && (chunks == 0 || number < chunks);
        if !sound || transfer.bytes > self.snapshot_bytes_max {
            self.transfers.remove(&shard);
            out.snapshots.push(SnapshotJob::Forget { shard, file });
            return Err(if sound {
                "a snapshot larger than any may be"
            } else {
                "a chunk that no snapshot has"
            });
        }
        let last = chunks == number + 1;
        (transfer.given, transfer.all_given, transfer.at) = (number + 1, last, now);
        out.snapshots.push(SnapshotJob::Take { shard, index, file, chunk: number, checksum, bytes, last });
        Ok(())
    }

    /// A chunk is written (I1).
    pub(super) fn handle_taken(
        &mut self,
        shard: ShardId,
        file: u64,
        chunk: u32,
        now: Millis,
        out: &mut Effects,
    ) {
        let Some(transfer) = self.transfers.get_mut(&shard).filter(|transfer| transfer.number == file) else {
            return;
        };
        if chunk == transfer.taken {
            (transfer.taken, transfer.at) = (chunk + 1, now);
            transfer.ask(shard, out);
        }
    }

    /// All of it is durable and read: from whom it came, in their latest ballot.
    pub(super) fn handle_loaded(
        &mut self,
        shard: ShardId,
        file: u64,
        out: &mut Effects,
    ) -> Option<(NodeId, Ballot)> {
        self.transfers.get(&shard).filter(|transfer| transfer.number == file && transfer.all_given)?;
        let mut transfer = self.transfers.remove(&shard)?;
        transfer.taken = transfer.given;
        transfer.ask(shard, out);
        Some((transfer.from, transfer.ballot))
    }

    /// It could not be written, or is not what was sent. Answers from whom it came.
    pub(super) fn handle_refused(&mut self, shard: ShardId, file: u64) -> Option<NodeId> {
        self.transfers.get(&shard).filter(|transfer| transfer.number == file)?;
        self.transfers.remove(&shard).map(|transfer| transfer.from)
    }

    /// What has come of the shard is not needed.
    pub(super) fn forget(&mut self, shard: ShardId, out: &mut Effects) {
        if let Some(transfer) = self.transfers.remove(&shard) {
            out.snapshots.push(SnapshotJob::Forget { shard, file: transfer.number });
        }
    }

    /// Gives up those that stand still.
    pub(super) fn tick(&mut self, now: Millis, out: &mut Effects) {
        self.transfers.retain(|shard, transfer| {
            // What is being made durable takes as long as it takes.
            let kept = transfer.all_given || now.since(transfer.at) < RESUMED_WITHIN;
            if !kept {
                out.snapshots.push(SnapshotJob::Forget { shard: *shard, file: transfer.number });
            }
            kept
        });
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.transfers.len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tholos_paxos::ReplicaId;

    use super::*;

    const SHARD: ShardId = ShardId(0);

    /// A chunk of three of the snapshot at `index` from the leader of `round`.
    fn chunk_of((round, index): (u64, u64), chunk: u32) -> SnapshotChunk {
        SnapshotChunk {
            shard: SHARD,
            ballot: Ballot { round, replica: ReplicaId(2) },
            index: Index(index),
            file: index,
            chunk,
            chunks: 3,
            checksum: 5,
            bytes: Bytes::from_static(b"x"),
        }
    }

    /// What is asked for next, and which chunks go to the driver.
    fn seen(out: Effects) -> (Option<u32>, Vec<u32>) {
        let wanted = out.sends.into_iter().find_map(|(_, message)| match message {
            PeerMessage::SnapshotWanted { chunk, .. } => Some(chunk),
            _ => None,
        });
        let taken = out.snapshots.into_iter().filter_map(|job| match job {
            SnapshotJob::Take { chunk, .. } => Some(chunk),
            _ => None,
        });
        (wanted, taken.collect())
    }

    fn give(incoming: &mut Incoming, name: (u64, u64), number: u32, now: u64) -> (Option<u32>, Vec<u32>) {
        let mut out = Effects::default();
        incoming.handle_chunk(NodeId(2), chunk_of(name, number), Millis(now), &mut out).unwrap();
        seen(out)
    }

    fn taken(incoming: &mut Incoming, transfer: u64, number: u32) -> Option<u32> {
        let mut out = Effects::default();
        incoming.handle_taken(SHARD, transfer, number, Millis(0), &mut out);
        seen(out).0
    }

    fn incoming() -> Incoming {
        Incoming::new(100)
    }

    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn chunks_are_given_on_in_order_and_asked_for_when_they_are_written() {
        let mut incoming = incoming();
        assert_eq!(give(&mut incoming, (1, 7), 1, 0), (Some(0), vec![]));
        assert_eq!(give(&mut incoming, (1, 7), 0, 0), (None, vec![0]));
        assert_eq!(give(&mut incoming, (1, 7), 0, 0), (Some(0), vec![]));
        assert_eq!(give(&mut incoming, (1, 7), 1, 0), (None, vec![1]));
        assert_eq!(taken(&mut incoming, 1, 0), Some(1));
        assert_eq!(taken(&mut incoming, 1, 0), None, "news of before");
        assert_eq!(give(&mut incoming, (1, 7), 2, 0), (None, vec![2]));
        assert_eq!(give(&mut incoming, (1, 7), 2, 0), (Some(1), vec![]));
        let mut out = Effects::default();
        assert_eq!(incoming.handle_loaded(SHARD, 2, &mut out), None, "another one");
        let leader = Ballot { round: 1, replica: ReplicaId(2) };
        assert_eq!(incoming.handle_loaded(SHARD, 1, &mut out), Some((NodeId(2), leader)));
        assert_eq!((seen(out).0, incoming.count()), (Some(3), 0));
    }

    /// The job of a move had no end: what the driver said of chunks of before was taken for the same chunks of the file that came
    /// again. (Seed 306808 of the simulator at 67277b2.)
    #[test]
    fn what_is_said_of_a_transfer_that_was_given_up_is_not_of_the_next() {
        let mut incoming = incoming();
        for number in 0..3 {
            give(&mut incoming, (1, 7), number, 0);
        }
        incoming.forget(SHARD, &mut Effects::default());
        assert_eq!(give(&mut incoming, (1, 7), 0, 0), (None, vec![0]));
        assert_eq!((taken(&mut incoming, 1, 0), taken(&mut incoming, 1, 1)), (None, None));
        assert_eq!(incoming.handle_loaded(SHARD, 1, &mut Effects::default()), None);
        assert_eq!(taken(&mut incoming, 2, 0), Some(1));
    }

    #[test]
    fn a_break_is_gone_on_from_in_a_later_ballot_too() {
        let mut incoming = incoming();
        give(&mut incoming, (1, 7), 0, 0);
        taken(&mut incoming, 1, 0);
        incoming.tick(Millis(59_999), &mut Effects::default());
        assert_eq!(give(&mut incoming, (3, 7), 0, 59_999), (Some(1), vec![]));
        assert_eq!(give(&mut incoming, (3, 7), 1, 59_999), (None, vec![1]));
        let mut out = Effects::default();
        incoming.tick(Millis(120_000), &mut out);
        assert!(matches!(out.snapshots[..], [SnapshotJob::Forget { file: 1, .. }]));
        assert_eq!(incoming.count(), 0);
    }

    #[test]
    fn a_late_chunk_of_an_earlier_snapshot_disturbs_nothing() {
        let mut incoming = incoming();
        assert_eq!(give(&mut incoming, (1, 7), 0, 0), (None, vec![0]));
        assert_eq!(give(&mut incoming, (1, 9), 0, 10), (None, vec![0]));
        assert_eq!(give(&mut incoming, (1, 7), 1, 20), (None, vec![]));
        assert_eq!(give(&mut incoming, (1, 9), 1, 30), (None, vec![1]), "the later one goes on");
    }

    #[test]
    fn a_lower_ballot_disturbs_only_what_stands_still() {
        let mut incoming = incoming();
        give(&mut incoming, (2, 9), 0, 0);
        assert_eq!(give(&mut incoming, (1, 7), 0, 4999), (None, vec![]));
        assert_eq!(give(&mut incoming, (1, 7), 0, 5000), (None, vec![0]));
        assert_eq!(give(&mut incoming, (2, 9), 0, 5000), (None, vec![0]));
    }

    #[test]
    fn what_no_snapshot_has_is_refused() {
        let refuse = |mut chunks: Vec<SnapshotChunk>| {
            let (mut incoming, mut out) = (incoming(), Effects::default());
            let last = chunks.pop().unwrap();
            for chunk in chunks {
                incoming.handle_chunk(NodeId(2), chunk, Millis(0), &mut out).unwrap();
            }
            let refused = incoming.handle_chunk(NodeId(2), last, Millis(0), &mut out);
            assert!(matches!(out.snapshots.last(), Some(SnapshotJob::Forget { .. })));
            assert_eq!(incoming.count(), 0);
            refused.unwrap_err()
        };
        let of = |number: u32, chunks: u32, length: usize| SnapshotChunk {
            chunks,
            bytes: vec![0; length].into(),
            ..chunk_of((1, 7), number)
        };
        assert_eq!(refuse(vec![of(0, 0, 0)]), "a chunk that no snapshot has");
        assert_eq!(refuse(vec![of(0, 0, CHUNK_BYTES_MAX + 1)]), "a chunk that no snapshot has");
        assert_eq!(refuse(vec![of(0, 0, 60), of(1, 1, 3)]), "a chunk that no snapshot has");
        assert_eq!(refuse(vec![of(0, 0, 60), of(1, 0, 41)]), "a snapshot larger than any may be");
    }
}
