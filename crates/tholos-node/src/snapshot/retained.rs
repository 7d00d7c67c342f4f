//! Which records of the log are still needed, and how long that makes the log (R22).
//!
//! - **S1** A shard needs everything from its first append on, until a checkpoint of it is durable and the snapshot file
//!   that the checkpoint names is durable too; then everything from that checkpoint on. One of a replica that has lost
//!   records is durable when the record behind it is, which says so (R20).
//! - **S2** What is released is never needed again: it only rises.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tholos_paxos::{AppendSeq, Record};
use tholos_ring::ShardId;

/// Bytes of memory that a log entry costs beside its batch, about, in the log file.
const RECORD_BYTES: u64 = 64;

/// Comes after every append.
const NONE: AppendSeq = AppendSeq(u64::MAX);

#[derive(Debug)]
pub(super) struct Retained {
    shards: Vec<Need>,
    /// Bytes ever appended, as a position.
    position: u64,
    log_bytes_max: u64,
    /// Bytes of the log's segments, as the driver says: more than were appended where segments are not full of records.
    kept_bytes: u64,
    /// With so many of them there is no room for clients' writes any more.
    room_bytes: u64,
    released: AppendSeq,
}

/// What one shard needs of the log.
#[derive(Debug)]
struct Need {
    /// Its oldest needed append; zero is one of an earlier boot, [`NONE`] if it has appended nothing at all.
    from: AppendSeq,
    /// The bytes appended before it.
    position: u64,
    next: Option<Box<Next>>,
}

impl Need {
    const NOTHING: Need = Need { from: NONE, position: 0, next: None };
}

/// A checkpoint under way.
#[derive(Clone, Copy, Debug)]
struct Next {
    seq: AppendSeq,
    /// Its last record.
    last: AppendSeq,
    position: u64,
    /// Whether the snapshot that it names is durable.
    file_whole: bool,
}

impl Retained {
    pub(super) fn new(shard_count: u16, log_bytes_max: u64, room_bytes: u64) -> Retained {
        Retained {
            shards: (0..shard_count).map(|_| Need::NOTHING).collect(),
            position: 0,
            log_bytes_max,
            kept_bytes: 0,
            room_bytes,
            released: AppendSeq(0),
        }
    }

    /// Bytes of the log's segments that are not released, of the last one as far as it is written.
    pub(super) fn set_kept(&mut self, bytes: u64) {
        self.kept_bytes = bytes;
    }

    /// Bytes that clients' writes may still take, with `waiting_bytes` asked to be appended that the driver has not told of.
    pub(super) fn room_bytes(&self, waiting_bytes: u64) -> u64 {
        self.room_bytes.saturating_sub(self.kept_bytes).saturating_sub(waiting_bytes)
    }

    /// Whether less room is left than what a log may grow by until snapshots are due.
    pub(super) fn is_pressed(&self) -> bool {
        self.room_bytes(0) < self.log_bytes_max
    }

    /// The shards that hold up the oldest of the log together: once there is a snapshot of each, what is released makes up for
    /// half of its part in all snapshots, at least. One, where the shards' records begin at even distances; all, where they all begin at
    /// the log's beginning.
    pub(super) fn together(&self) -> Vec<ShardId> {
        let numbered = self.shards.iter().enumerate().filter(|(_, need)| need.from != NONE);
        let mut needs: Vec<(u64, ShardId)> =
            numbered.map(|(at, need)| (need.position, ShardId(at as u16))).collect();
        needs.sort_unstable();
        let Some((oldest, _)) = needs.first().copied() else { return Vec::new() };
        let (count, all) = (needs.len(), u128::from(self.position - oldest));
        let is_enough = |some: &usize| {
            let next = needs.get(*some).map_or(self.position, |(position, _)| *position);
            u128::from(next - oldest) * 2 * count as u128 >= all * *some as u128
        };
        let some = (1..=count).find(is_enough).unwrap_or(count);
        needs.into_iter().take(some).map(|(_, shard)| shard).collect()
    }

    /// A record found in the log at start.
    pub(super) fn recovered(&mut self, shard: ShardId, bytes: u64, checkpoint: bool) {
        if let Some(need) = self.shards.get_mut(usize::from(shard.0)) {
            if checkpoint || need.from == NONE {
                need.position = self.position;
            }
            need.from = AppendSeq(0);
        }
        self.position += bytes;
    }

    /// An append was asked for.
    pub(super) fn appended(&mut self, shard: ShardId, seq: AppendSeq, record: &Record) {
        let need = &mut self.shards[usize::from(shard.0)];
        if need.from == NONE {
            *need = Need { from: seq, position: self.position, next: None };
        }
        if record.replaces_all() {
            let next = Next { seq, last: seq, position: self.position, file_whole: true };
            need.next = Some(Box::new(next));
        } else if let (Record::Muted { .. }, Some(next)) = (record, &mut need.next) {
            next.last = seq;
        }
        self.position += cost_of(record);
    }

    /// Nothing of this shard is needed any more.
    pub(super) fn forget(&mut self, shard: ShardId) {
        self.shards[usize::from(shard.0)] = Need::NOTHING;
    }

    /// The file that the checkpoint just appended names is still to be written.
    pub(super) fn file_begun(&mut self, shard: ShardId) {
        let next = self.shards[usize::from(shard.0)].next.as_mut();
        next.expect("its checkpoint was appended").file_whole = false;
    }

    /// The file that the checkpoint under way names is durable.
    pub(super) fn file_done(&mut self, shard: ShardId) {
        if let Some(next) = &mut self.shards[usize::from(shard.0)].next {
            next.file_whole = true;
        }
    }

    /// The file that the checkpoint under way names will not come: the checkpoint counts for nothing.
    pub(super) fn file_failed(&mut self, shard: ShardId) {
        self.shards[usize::from(shard.0)].next.take_if(|next| !next.file_whole);
    }

    /// `seq` is durable: the shards whose checkpoints are with it, and with them their files (S1).
    pub(super) fn checkpoints_done(&mut self, seq: AppendSeq) -> Vec<ShardId> {
        let mut done = Vec::new();
        for (at, need) in self.shards.iter_mut().enumerate() {
            if let Some(next) = need.next.take_if(|next| next.last <= seq && next.file_whole) {
                (need.from, need.position) = (next.seq, next.position);
                done.push(ShardId(at as u16));
            }
        }
        done
    }

    /// The oldest append that some shard still needs, if it has moved (S2).
    pub(super) fn releasable(&mut self) -> Option<AppendSeq> {
        let oldest = self.shards.iter().map(|need| need.from).min()?;
        if oldest <= self.released || oldest == NONE {
            return None;
        }
        self.released = oldest;
        Some(oldest)
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.shards.iter().any(|need| need.next.is_some())
    }

    /// The shard that holds up the oldest of the log, if the log is too long and no checkpoint is under way: by its files, or by
    /// what was appended. That is an estimate, so when room gets short a fraction is too long already, and whatever earlier
    /// boots have left is: it goes as a whole, once nobody needs any of it.
    pub(super) fn due(&self, disk_full: bool) -> Option<ShardId> {
        if self.is_busy() {
            return None;
        }
        let numbered = self.shards.iter().enumerate().filter(|(_, need)| need.from != NONE);
        let (at, oldest) = numbered.min_by_key(|(_, need)| need.position)?;
        let bytes_max = if disk_full { self.log_bytes_max / 8 } else { self.log_bytes_max };
        let too_long = self.position - oldest.position > bytes_max || self.kept_bytes > self.log_bytes_max;
        let holds_earlier_boots = disk_full && oldest.from == AppendSeq(0);
        (too_long || holds_earlier_boots).then_some(ShardId(at as u16))
    }
}

/// What a record costs in the log, about.
pub(crate) fn cost_of(record: &Record) -> u64 {
    let entries = match record {
        Record::Promised { .. } | Record::Joined { .. } | Record::Muted { .. } => return RECORD_BYTES,
        Record::Accepted { entries, .. }
        | Record::Replaced { entries, .. }
        | Record::Rescued { entries, .. } => entries,
        Record::Checkpoint(checkpoint) => &checkpoint.entries,
    };
    RECORD_BYTES + entries.iter().map(|entry| entry.cost_bytes() as u64).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;

    use tholos_paxos::Ballot;

    use super::*;

    const PROMISED: Record = Record::Promised { ballot: Ballot::ZERO };

    /// Appends 1 to 4 of s0, s1, s0, s1, each of [`RECORD_BYTES`].
    fn retained() -> Retained {
        let mut retained = Retained::new(2, 4 * RECORD_BYTES, u64::MAX);
        for (shard, seq) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
            retained.appended(ShardId(shard), AppendSeq(seq), &PROMISED);
        }
        retained
    }

    #[test]
    fn what_must_be_snapshotted_before_much_is_released_is_counted_together() {
        let mut retained = Retained::new(4, 0, u64::MAX);
        assert_eq!(retained.together(), []);
        let append = |retained: &mut Retained, shards: &[u16]| {
            shards.iter().for_each(|shard| retained.appended(ShardId(*shard), AppendSeq(1), &PROMISED));
        };
        // All begin where the log begins: nothing is released before there is a snapshot of each.
        append(&mut retained, &[2, 0, 1, 3]);
        append(&mut retained, &[0; 96]);
        assert_eq!(retained.together(), [2, 0, 1, 3].map(ShardId));
        // One is done.
        checkpoint(&mut retained, 2, 101);
        assert_eq!(retained.checkpoints_done(AppendSeq(101)), [ShardId(2)]);
        append(&mut retained, &[0; 20]);
        assert_eq!(retained.together(), [0, 1, 3].map(ShardId));
        // Each begins a quarter of the log behind the one before.
        for (shard, seq) in [(0, 122), (1, 143), (3, 164)] {
            checkpoint(&mut retained, shard, seq);
            let _done = retained.checkpoints_done(AppendSeq(seq));
            append(&mut retained, &[2; 20]);
        }
        assert_eq!(retained.together(), [ShardId(2)]);
    }

    fn checkpoint(retained: &mut Retained, shard: u16, seq: u64) {
        retained.appended(ShardId(shard), AppendSeq(seq), &Record::Checkpoint(Box::default()));
    }

    #[test]
    fn a_shard_needs_all_until_its_checkpoint_is_durable() {
        let mut retained = retained();
        assert_eq!(retained.releasable(), Some(AppendSeq(1)));
        checkpoint(&mut retained, 0, 5);
        assert_eq!((retained.checkpoints_done(AppendSeq(4)), retained.releasable()), (Vec::new(), None));
        assert_eq!(retained.checkpoints_done(AppendSeq(5)), [ShardId(0)]);
        assert_eq!(retained.releasable(), Some(AppendSeq(2)));
        checkpoint(&mut retained, 1, 6);
        assert_eq!(retained.checkpoints_done(AppendSeq(9)), [ShardId(1)]);
        assert_eq!((retained.releasable(), retained.releasable()), (Some(AppendSeq(5)), None));
    }

    /// R20: whoever was brought back by the checkpoint alone would vote.
    #[test]
    fn a_checkpoint_of_a_mute_replica_counts_when_it_says_so() {
        let mut retained = retained();
        retained.releasable();
        checkpoint(&mut retained, 0, 5);
        retained.appended(ShardId(0), AppendSeq(6), &Record::Muted { until: Some(Ballot::ZERO) });
        assert_eq!(retained.checkpoints_done(AppendSeq(5)), []);
        assert_eq!(retained.checkpoints_done(AppendSeq(6)), [ShardId(0)]);
        assert_eq!(retained.releasable(), Some(AppendSeq(2)));
    }

    /// R22: a checkpoint is appended when its snapshot begins, and releases nothing before the file is there.
    #[test]
    fn a_checkpoint_counts_when_its_file_is_durable_as_well() {
        let mut retained = retained();
        retained.releasable();
        checkpoint(&mut retained, 0, 5);
        retained.file_begun(ShardId(0));
        assert_eq!(retained.checkpoints_done(AppendSeq(5)), []);
        retained.file_done(ShardId(0));
        assert_eq!(retained.checkpoints_done(AppendSeq(4)), []);
        assert_eq!(retained.checkpoints_done(AppendSeq(5)), [ShardId(0)]);
        checkpoint(&mut retained, 1, 6);
        retained.file_begun(ShardId(1));
        retained.file_failed(ShardId(1));
        retained.file_done(ShardId(1));
        assert_eq!(retained.checkpoints_done(AppendSeq(9)), []);
        assert_eq!(retained.releasable(), Some(AppendSeq(2)), "s1 still needs its first append");
    }

    #[test]
    fn the_shard_with_the_oldest_need_is_due_when_the_log_is_too_long() {
        let mut retained = retained();
        assert_eq!((retained.due(false), retained.due(true)), (None, Some(ShardId(0))));
        retained.appended(ShardId(1), AppendSeq(5), &PROMISED);
        assert_eq!(retained.due(false), Some(ShardId(0)));
        checkpoint(&mut retained, 0, 6);
        assert_eq!(retained.due(true), None, "one at a time");
        retained.checkpoints_done(AppendSeq(6));
        assert_eq!(retained.due(false), Some(ShardId(1)));
    }

    /// Records of earlier boots are released together: as long as one shard needs some of them, there is no room.
    #[test]
    fn without_room_all_that_earlier_boots_left_is_due() {
        let mut retained = Retained::new(2, 32 * RECORD_BYTES, u64::MAX);
        for shard in [0, 1, 0] {
            retained.recovered(ShardId(shard), RECORD_BYTES, false);
        }
        assert_eq!((retained.due(false), retained.due(true)), (None, Some(ShardId(0))));
        for (shard, seq, then) in [(0, 1, Some(ShardId(1))), (1, 2, None)] {
            assert_eq!(retained.releasable(), None);
            checkpoint(&mut retained, shard, seq);
            assert_eq!(retained.checkpoints_done(AppendSeq(seq)), [ShardId(shard)]);
            assert_eq!(retained.due(true), then);
        }
        assert_eq!(retained.releasable(), Some(AppendSeq(1)));
    }

    /// Each start begins a segment, and a small batch takes a sector.
    #[test]
    fn the_log_is_as_long_as_its_files() {
        let mut retained = retained();
        retained.set_kept(4 * RECORD_BYTES);
        assert_eq!(retained.due(false), None);
        retained.set_kept(4 * RECORD_BYTES + 1);
        assert_eq!(retained.due(false), Some(ShardId(0)));
    }

    #[test]
    fn records_of_an_earlier_boot_count_from_the_last_checkpoint() {
        let mut retained = Retained::new(1, 100, u64::MAX);
        for (bytes, checkpoint) in [(90, false), (50, true), (50, false)] {
            retained.recovered(ShardId(0), bytes, checkpoint);
        }
        assert_eq!((retained.due(false), retained.releasable()), (None, None));
        retained.recovered(ShardId(0), 1, false);
        assert_eq!(retained.due(false), Some(ShardId(0)));
    }
}
