//! Snapshots that are being written to their files, one at a time, and for whom.
//!
//! An image goes to its file slice by slice: so many chunks wait for the disk, and each one written lets the next be
//! made. Its memory is that of these chunks, and its pace the disk's.
//!
//! A snapshot is written for the log's sake, or since a replica needs one and the last is too old. If both is asked for
//! without end, they take turns.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::{Index, Millis};
use tholos_ring::ShardId;

use super::image::Image;
use super::outgoing::File;
use crate::event::SnapshotJob;
use crate::shard::Shard;

/// After a snapshot could not be written, the next is begun this much later.
const RETRY_AFTER: Millis = Millis(1000);
/// Chunks of one snapshot that wait to be written.
const CHUNKS_WAITING_MAX: usize = 2;
/// Snapshots of which nothing was written for so long do not come on.
const COMES_ON_WITHIN: Millis = Millis(1000);

#[derive(Debug, Default)]
pub(super) struct Saves {
    under_way: BTreeMap<ShardId, Saving>,
    /// No checkpoint is begun before this.
    not_before: Millis,
    /// Replicas that need a new snapshot, in the order in which they came to: one that needs it again and again does not
    /// keep others waiting.
    needed: Vec<(ShardId, NodeId)>,
    /// Whether the last one was begun for a replica's sake.
    last_was_needed: bool,
    /// When something of one was last written.
    came_on: Option<Millis>,
}

/// A snapshot that is being written to its file.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) file: File,
    image: Image,
    /// Of each chunk asked to be written, and not yet, whether it holds anything.
    waiting: VecDeque<bool>,
    /// Chunks written.
    written: u32,
    ended: bool,
    share: Share,
}

impl Saving {
    pub(super) fn new(file: File, image: Image, share: Share) -> Saving {
        Saving { file, image, waiting: VecDeque::new(), written: 0, ended: false, share }
    }

    /// Chunks written, and how many there are if that is all.
    pub(super) fn written(&self) -> (u32, u32) {
        (self.written, if self.ended && self.waiting.is_empty() { self.written } else { 0 })
    }
}

/// Of the room that there is when a snapshot begins, writes may always have one part of so many: a small one is over before
/// that is worth a wait.
const ROOM_PARTS: u64 = 256;

/// Clients' writes share what room the log has with the snapshots that are to be written until some of it is released.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Bytes that the log had for writes when this one began, or later if that was more.
    pub(super) room_bytes: u64,
    /// Bytes that it takes, about.
    pub(super) own_bytes: u64,
    /// Bytes that all of them take.
    pub(super) all_bytes: u64,
    /// Bytes of a chunk.
    pub(super) chunk_bytes: u64,
}

impl Share {
    /// Whether writes have had what they may have once so many chunks are written: of this snapshot's part in the room a quarter
    /// at once, and the rest in proportion.
    fn is_used(&self, chunks: u32, room_bytes: u64) -> bool {
        let used = self.room_bytes.saturating_sub(room_bytes);
        let written = u64::from(chunks).saturating_mul(self.chunk_bytes).min(self.own_bytes);
        let due = u128::from(self.own_bytes) + 3 * u128::from(written);
        let times = |one: u64, other: u64| u128::from(one) * u128::from(other);
        used > self.room_bytes / ROOM_PARTS
            && times(used, self.all_bytes).saturating_mul(4) > u128::from(self.room_bytes).saturating_mul(due)
    }
}

impl Saves {
    /// Whether a snapshot may begin: one at a time.
    pub(super) fn may_begin(&self, now: Millis) -> bool {
        now >= self.not_before && self.under_way.is_empty()
    }

    /// A replica needs a new snapshot.
    pub(super) fn need(&mut self, shard: ShardId, to: NodeId) {
        if !self.is_needed(shard, to) {
            self.needed.push((shard, to));
        }
    }

    /// Whether a snapshot is yet to be written for a replica.
    pub(super) fn is_needed(&self, shard: ShardId, to: NodeId) -> bool {
        self.needed.contains(&(shard, to))
    }

    /// Which shard is next, if the log is to be shortened by a snapshot of `due`.
    pub(super) fn next(&mut self, due: Option<ShardId>) -> Option<ShardId> {
        let needed = self.needed.first().map(|(shard, _)| *shard);
        let for_replica = needed.is_some() && (due.is_none() || !self.last_was_needed);
        self.last_was_needed = for_replica;
        if for_replica { needed } else { due }
    }

    /// The replicas that need a snapshot of the shard. They are not asked for again.
    pub(super) fn take_needed(&mut self, shard: ShardId) -> Vec<NodeId> {
        let all: Vec<NodeId> = self.needed.iter().filter(|(of, _)| *of == shard).map(|(_, to)| *to).collect();
        self.needed.retain(|(of, _)| *of != shard);
        all
    }

    /// Whether clients' writes go on too fast for the snapshot under way, with so much room left for them (H1).
    pub(super) fn outrun(&self, room_bytes: u64) -> bool {
        self.under_way.values().any(|saving| saving.share.is_used(saving.written, room_bytes))
    }

    /// The log has so much room: more than when the snapshot under way began, if what the last one released was not known then.
    pub(super) fn has_room(&mut self, room_bytes: u64) {
        for saving in self.under_way.values_mut() {
            saving.share.room_bytes = saving.share.room_bytes.max(room_bytes);
        }
    }

    /// Whether snapshots come on (H2).
    pub(super) fn come_on(&self, now: Millis) -> bool {
        self.came_on.is_some_and(|at| now.since(at) < COMES_ON_WITHIN)
    }

    pub(super) fn begin(&mut self, shard: ShardId, saving: Saving) {
        self.under_way.insert(shard, saving);
    }

    /// The file that is being written of `shard`, and how far it has come.
    pub(super) fn get(&self, shard: ShardId) -> Option<&Saving> {
        self.under_way.get(&shard)
    }

    /// Makes what chunks may wait for the disk, and says what to do with them.
    pub(super) fn produce(&mut self, shard: &mut Shard, hurry: bool, out: &mut Vec<SnapshotJob>) {
        let Some(saving) = self.under_way.get_mut(&shard.id) else { return };
        let (id, index) = (shard.id, saving.file.index);
        while saving.waiting.len() < CHUNKS_WAITING_MAX && !saving.ended {
            match saving.image.next_chunk(shard) {
                Some(bytes) => {
                    saving.waiting.push_back(!bytes.is_empty());
                    out.push(SnapshotJob::Write { shard: id, index, bytes, hurry });
                }
                None => {
                    saving.ended = true;
                    out.push(SnapshotJob::Finish { shard: id, index });
                }
            }
        }
    }

    /// A chunk is written.
    pub(super) fn handle_written(&mut self, shard: ShardId, index: Index, now: Millis) {
        if let Some(saving) = self.under_way.get_mut(&shard).filter(|saving| saving.file.index == index) {
            self.came_on = Some(now);
            saving.written += u32::from(saving.waiting.pop_front().unwrap_or_default());
        }
    }

    /// It is written, or given up.
    pub(super) fn take(&mut self, shard: ShardId, index: Index) -> Option<Saving> {
        self.under_way.get(&shard).filter(|saving| saving.file.index == index)?;
        self.under_way.remove(&shard)
    }

    /// It could not be written: as if it had never been asked for. The log still has everything. Answers whether that
    /// is news.
    pub(super) fn fail(&mut self, shard: ShardId, index: Index, now: Millis) -> bool {
        let failed = self.take(shard, index).is_some();
        if failed {
            self.not_before = now.plus(RETRY_AFTER);
            self.came_on = None;
        }
        failed
    }

    pub(super) fn count(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tholos_cluster::NodeId;
    use tholos_engine::Keyspace;
    use tholos_paxos::{Config, Group, Options, Planted, ReplicaId};

    use super::super::image::SliceLimits;
    use super::*;

    const SHARE: Share = Share { room_bytes: 4000, own_bytes: 100, all_bytes: 100, chunk_bytes: 1 };

    /// What room must be left, at least, when so many of 100 chunks are written.
    #[test]
    fn writes_get_a_quarter_of_the_room_at_once_and_the_rest_in_proportion() {
        for (chunks, room) in [(0, 3000), (1, 2970), (50, 1500), (99, 30), (100, 0), (101, 0)] {
            assert!(!SHARE.is_used(chunks, room), "{chunks}: {room}");
            assert!(room == 0 || SHARE.is_used(chunks, room - 1), "{chunks}: {room}");
        }
        let most = u64::MAX;
        let endless = Share { room_bytes: most, own_bytes: most, all_bytes: most, chunk_bytes: most };
        assert!(!endless.is_used(0, most) && endless.is_used(0, 0) && !endless.is_used(u32::MAX, 0));
        let nothing = Share { own_bytes: 0, all_bytes: 0, ..SHARE };
        assert!(!nothing.is_used(0, 0), "nothing is to be written");
    }

    /// Of ten of the same size each has a tenth of the room, or the first would leave nothing to the others.
    #[test]
    fn each_of_several_snapshots_has_its_part_of_the_room() {
        let tenth = Share { all_bytes: 1000, ..SHARE };
        for (chunks, room) in [(0, 3900), (50, 3750), (100, 3600), (101, 3600)] {
            assert!(!tenth.is_used(chunks, room) && tenth.is_used(chunks, room - 1), "{chunks}: {room}");
        }
        let small = Share { own_bytes: 1, all_bytes: 100_000, ..SHARE };
        assert!(!small.is_used(0, 4000 - 15) && small.is_used(0, 4000 - 16), "it is over before");
    }

    /// It began before it was known what the last one has released: writes were not held at all, and then until its end.
    #[test]
    fn room_that_comes_late_is_shared_too() {
        let (mut saves, mut shard) = (Saves::default(), shard());
        begin(&mut saves, &mut shard);
        saves.has_room(3999);
        assert!(saves.outrun(2999) && !saves.outrun(3000));
        saves.has_room(40_000);
        assert!(saves.outrun(29_999) && !saves.outrun(30_000));
    }

    #[test]
    fn snapshots_come_on_as_long_as_something_is_written() {
        let (mut saves, mut shard) = (Saves::default(), shard());
        assert!(!saves.come_on(Millis(0)) && !saves.outrun(0));
        begin(&mut saves, &mut shard);
        assert!(!saves.come_on(Millis(0)) && saves.outrun(2999) && !saves.outrun(3000));
        saves.handle_written(ShardId(1), Index(6), Millis(500));
        assert!(!saves.come_on(Millis(500)), "news of another");
        saves.handle_written(ShardId(1), Index(7), Millis(500));
        assert!(saves.come_on(Millis(1499)) && !saves.come_on(Millis(1500)));
        assert!(saves.fail(ShardId(1), Index(7), Millis(600)));
        assert!(!saves.come_on(Millis(600)) && !saves.outrun(0));
    }

    fn shard() -> Shard {
        let config = Config::founding(vec![ReplicaId(1)]);
        let group = Group::new(ReplicaId(1), config, Options::default());
        Shard::new(ShardId(1), group, Keyspace::new(0..10, 7), Planted::Nothing)
    }

    fn begin(saves: &mut Saves, shard: &mut Shard) {
        let image = Image::begin(shard, SliceLimits { chunk_bytes: 16, entries_max: 10 });
        saves.begin(ShardId(1), Saving::new(File { index: Index(7), id: 9 }, image, SHARE));
    }

    #[test]
    fn the_next_begins_when_the_last_is_done_and_later_after_a_failure() {
        let (mut saves, mut shard) = (Saves::default(), shard());
        begin(&mut saves, &mut shard);
        assert!(!saves.may_begin(Millis(0)));
        assert!(saves.take(ShardId(1), Index(6)).is_none(), "news of another");
        assert!(saves.take(ShardId(1), Index(7)).is_some());
        assert!(saves.may_begin(Millis(0)));
        begin(&mut saves, &mut shard);
        assert!(!saves.fail(ShardId(1), Index(6), Millis(100)));
        assert!(saves.get(ShardId(1)).is_some());
        assert!(saves.fail(ShardId(1), Index(7), Millis(100)));
        assert_eq!((saves.may_begin(Millis(1099)), saves.may_begin(Millis(1100))), (false, true));
    }

    #[test]
    fn a_chunk_is_made_when_one_is_written_and_the_end_follows_the_last() {
        let (mut saves, mut shard) = (Saves::default(), shard());
        begin(&mut saves, &mut shard);
        let (mut jobs, mut bytes, mut chunks) = (Vec::new(), 0, 0);
        saves.produce(&mut shard, false, &mut jobs);
        saves.produce(&mut shard, false, &mut jobs);
        assert_eq!(jobs.len(), CHUNKS_WAITING_MAX);
        while let Some(job) = (!jobs.is_empty()).then(|| jobs.remove(0)) {
            match job {
                SnapshotJob::Write { bytes: chunk, .. } => {
                    bytes += chunk.len();
                    chunks += u32::from(!chunk.is_empty());
                }
                SnapshotJob::Finish { .. } => break,
                other => panic!("{other:?}"),
            }
            saves.handle_written(ShardId(1), Index(6), Millis(1));
            saves.produce(&mut shard, false, &mut jobs);
            assert!(jobs.len() < CHUNKS_WAITING_MAX, "news of another let one be made");
            saves.handle_written(ShardId(1), Index(7), Millis(1));
            saves.produce(&mut shard, false, &mut jobs);
        }
        assert!(jobs.is_empty() && bytes > 100, "{bytes} bytes");
        assert_eq!(saves.get(ShardId(1)).unwrap().written(), (chunks, chunks));
    }

    #[test]
    fn who_needs_a_snapshot_again_and_again_does_not_keep_others_waiting() {
        let mut saves = Saves::default();
        let (n2, n3) = (NodeId(2), NodeId(3));
        for (shard, node) in [(3, n2), (1, n3), (3, n2), (3, n3)] {
            saves.need(ShardId(shard), node);
        }
        assert_eq!(saves.next(None), Some(ShardId(3)));
        assert_eq!(saves.take_needed(ShardId(3)), [n2, n3]);
        saves.need(ShardId(0), n2);
        assert_eq!(saves.next(None), Some(ShardId(1)), "it came before");
        assert_eq!(saves.take_needed(ShardId(1)), [n3]);
        saves.need(ShardId(1), n3);
        assert_eq!(saves.next(None), Some(ShardId(0)));
    }

    #[test]
    fn the_log_and_the_replicas_take_turns() {
        let mut saves = Saves::default();
        assert_eq!((saves.next(None), saves.next(Some(ShardId(1)))), (None, Some(ShardId(1))));
        saves.need(ShardId(2), NodeId(3));
        saves.need(ShardId(2), NodeId(1));
        assert_eq!(saves.next(Some(ShardId(1))), Some(ShardId(2)));
        assert_eq!(saves.next(Some(ShardId(1))), Some(ShardId(1)));
        assert_eq!(saves.next(None), Some(ShardId(2)));
        assert_eq!(saves.take_needed(ShardId(2)), [NodeId(3), NodeId(1)]);
        assert_eq!(saves.next(None), None);
    }
}
