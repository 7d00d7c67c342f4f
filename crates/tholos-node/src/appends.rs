//! The appends that the log owes an answer for.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use tholos_paxos::{AppendSeq, Millis};
use tholos_ring::ShardId;

/// What a disk writes at least while it counts as moving: 20 MB/s.
const SLOW_DISK_BYTES_PER_MS: u64 = 20_000;

/// Appends under way that there is always room for.
const ROOM: usize = 1024;

/// The appends under way: whose they are, and since when the disk has had them.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    owners: VecDeque<(AppendSeq, ShardId)>,
    /// The first append of each handful, when it was asked for, and the bytes of the handful.
    since: VecDeque<(AppendSeq, Millis, u64)>,
    pub(crate) durable: AppendSeq,
}

impl Appends {
    /// For how long the disk has owed an answer, beyond the time that the bytes before it take
    /// on a slow disk: a large value is no standstill (R9).
    pub(crate) fn stall(&self, now: Millis) -> Millis {
        let Some((_, since, _)) = self.since.front() else { return Millis(0) };
        now.since(since.plus(Millis(self.bytes() / SLOW_DISK_BYTES_PER_MS)))
    }

    /// Bytes that are under way, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.since.iter().map(|(_, _, bytes)| bytes).sum()
    }

    pub(crate) fn note(&mut self, seq: AppendSeq, shard: ShardId, bytes: u64, now: Millis) {
        self.owners.push_back((seq, shard));
        match self.since.back_mut().filter(|(_, since, _)| *since == now) {
            Some((_, _, handful)) => *handful += bytes,
            None => self.since.push_back((seq, now, bytes)),
        }
    }

    /// The shards that own appends up to `seq`, each once.
    pub(crate) fn settle(&mut self, seq: AppendSeq) -> Vec<ShardId> {
        self.durable = self.durable.max(seq);
        let count = self.owners.partition_point(|(at, _)| *at <= seq);
        let mut shards: Vec<ShardId> = self.owners.drain(..count).map(|(_, shard)| shard).collect();
        shards.sort_unstable();
        shards.dedup();
        while self.since.len() > 1 && self.since[1].0 <= AppendSeq(seq.0 + 1) {
            self.since.pop_front();
        }
        if self.owners.is_empty() {
            self.since.clear();
        }
        shards
    }

    /// Gives back most of the memory that was reserved for what is to come.
    pub(crate) fn shrink(&mut self) {
        self.owners.shrink_to(ROOM);
    }
}
