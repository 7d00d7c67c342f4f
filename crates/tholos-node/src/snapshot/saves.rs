//! Snapshots that are being written to their files: one for each shard at most.
//!
//! An image goes to its file slice by slice: so many chunks wait for the disk, and each one written lets the next be
//! made. Its memory is that of these chunks, and its pace the disk's.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tholos_paxos::{Ballot, Index, Millis};
use tholos_ring::ShardId;

use super::image::{Image, LoadedSnapshot};
use crate::event::SnapshotJob;
use crate::shard::Shard;

/// After a snapshot could not be written, the next is begun this much later.
const RETRY_AFTER: Millis = Millis(1000);
/// Chunks of one snapshot that wait to be written.
const CHUNKS_WAITING_MAX: u32 = 2;

#[derive(Debug, Default)]
pub(super) struct Saves {
    under_way: BTreeMap<ShardId, Saving>,
    /// No checkpoint is begun before this.
    not_before: Millis,
}

/// A snapshot that is being written to its file.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) index: Index,
    pub(super) source: Source,
}

/// Where its bytes come from.
#[derive(Debug)]
pub(super) enum Source {
    /// This replica's own state, for the log's sake.
    Own(Own),
    /// The leader of this ballot: to be installed.
    Leader(Ballot, Box<LoadedSnapshot>),
}

#[derive(Debug)]
pub(super) struct Own {
    image: Image,
    /// Chunks asked to be written, and not yet.
    waiting: u32,
    ended: bool,
}

impl Own {
    pub(super) fn new(image: Image) -> Own {
        Own { image, waiting: 0, ended: false }
    }
}

impl Saves {
    /// Whether a checkpoint may begin: they are made one at a time, and not while a snapshot from a leader is written.
    pub(super) fn may_begin(&self, now: Millis) -> bool {
        now >= self.not_before && self.under_way.is_empty()
    }

    pub(super) fn begin(&mut self, shard: ShardId, saving: Saving) {
        self.under_way.insert(shard, saving);
    }

    /// The index that the snapshot being written of `shard` covers.
    pub(super) fn index(&self, shard: ShardId) -> Option<Index> {
        self.under_way.get(&shard).map(|saving| saving.index)
    }

    /// Makes what chunks may wait for the disk, and says what to do with them.
    pub(super) fn produce(&mut self, shard: &mut Shard, hurry: bool, out: &mut Vec<SnapshotJob>) {
        let Some(Saving { index, source: Source::Own(own) }) = self.under_way.get_mut(&shard.id) else {
            return;
        };
        let (id, index) = (shard.id, *index);
        while own.waiting < CHUNKS_WAITING_MAX && !own.ended {
            match own.image.next_chunk(shard) {
                Some(bytes) => {
                    own.waiting += 1;
                    out.push(SnapshotJob::Write { shard: id, index, bytes, hurry });
                }
                None => {
                    own.ended = true;
                    out.push(SnapshotJob::Finish { shard: id, index });
                }
            }
        }
    }

    /// A chunk is written.
    pub(super) fn written(&mut self, shard: ShardId, index: Index) {
        if let Some(saving) = self.under_way.get_mut(&shard).filter(|saving| saving.index == index)
            && let Source::Own(own) = &mut saving.source
        {
            own.waiting = own.waiting.saturating_sub(1);
        }
    }

    /// It is written.
    pub(super) fn take(&mut self, shard: ShardId, index: Index) -> Option<Saving> {
        if self.index(shard) != Some(index) {
            return None;
        }
        self.under_way.remove(&shard)
    }

    /// It could not be written: as if it had never been asked for. The log still has everything, and a leader that
    /// sent one sends another. Answers what it was.
    pub(super) fn fail(&mut self, shard: ShardId, index: Index, now: Millis) -> Option<Saving> {
        let failed = self.take(shard, index)?;
        self.not_before = now.plus(RETRY_AFTER);
        Some(failed)
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

    fn shard() -> Shard {
        let config = Config::founding(vec![ReplicaId(1)]);
        let group = Group::new(ReplicaId(1), config, Options::default());
        Shard::new(ShardId(1), vec![NodeId(1)], group, Keyspace::new(0..10, 7), Planted::Nothing)
    }

    fn begin(saves: &mut Saves, shard: &mut Shard) {
        let image = Image::begin(shard, SliceLimits { chunk_bytes: 16, entries_max: 10 });
        saves.begin(ShardId(1), Saving { index: Index(7), source: Source::Own(Own::new(image)) });
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
        assert!(saves.fail(ShardId(1), Index(6), Millis(100)).is_none());
        assert!(saves.index(ShardId(1)).is_some());
        assert!(saves.fail(ShardId(1), Index(7), Millis(100)).is_some());
        assert_eq!((saves.may_begin(Millis(1099)), saves.may_begin(Millis(1100))), (false, true));
    }

    #[test]
    fn a_chunk_is_made_when_one_is_written_and_the_end_follows_the_last() {
        let (mut saves, mut shard) = (Saves::default(), shard());
        begin(&mut saves, &mut shard);
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        saves.produce(&mut shard, false, &mut jobs);
        saves.produce(&mut shard, false, &mut jobs);
        assert_eq!(jobs.len() as u32, CHUNKS_WAITING_MAX);
        while let Some(job) = (!jobs.is_empty()).then(|| jobs.remove(0)) {
            match job {
                SnapshotJob::Write { bytes: chunk, .. } => bytes += chunk.len(),
                SnapshotJob::Finish { .. } => break,
                other => panic!("{other:?}"),
            }
            saves.written(ShardId(1), Index(6));
            saves.produce(&mut shard, false, &mut jobs);
            assert!((jobs.len() as u32) < CHUNKS_WAITING_MAX, "news of another let one be made");
            saves.written(ShardId(1), Index(7));
            saves.produce(&mut shard, false, &mut jobs);
        }
        assert!(jobs.is_empty() && bytes > 100, "{bytes} bytes");
    }
}
