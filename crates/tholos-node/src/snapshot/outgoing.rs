//! Snapshots on their way to replicas that lack what the log no longer holds.
//!
//! What is sent is a file, chunk by chunk: that of the last durable snapshot, or one that is still being written, as far
//! as it has come. The driver reads each chunk when it is to be sent. The receiver says the first chunk that it lacks,
//! and so many from there on are on their way at once; after a break it says so again, and the transfer goes on there.
//! Nothing else repeats what was lost: a transfer that stands still is sent again from where it stands, and given up in
//! the end.
//!
//! - **O1** Bounds: one transfer for each replica of a shard, [`TRANSFERS_MAX`] of a node that have not arrived,
//!   [`CHUNKS_IN_FLIGHT`] chunks of each under way.
//! - **O2** The last chunk of a file is sent only when it is known to be the last: the receiver learns it with it.
//! - **O3** A transfer is sent no faster than its [`Pace`], which is what the running job allows; one that waits for that
//!   does not stand still.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::{Ballot, Index, Millis};
use tholos_ring::ShardId;

use super::TRANSFER_TIMEOUT;
use super::pace::Pace;
use crate::event::{ChunkRead, Effects, Notice, SnapshotJob};
use crate::peer::{PeerMessage, SnapshotChunk};

/// Transfers under way at once from one node.
const TRANSFERS_MAX: usize = 4;
/// Chunks on their way to one replica at once.
const CHUNKS_IN_FLIGHT: u32 = 8;
/// A transfer that stands still for this long is sent again from where it stands.
const RESEND_AFTER: Millis = Millis(500);
/// A replica that has all of it gets this long to take it over before it may ask for the next.
const TAKE_OVER_WITHIN: Millis = Millis(1000);

/// Which file is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct File {
    /// The last index of the snapshot.
    pub(super) index: Index,
    /// Tells files of one index apart: the same state may be written in another order.
    pub(super) id: u64,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    transfers: BTreeMap<(ShardId, NodeId), Transfer>,
    /// Of the file that was last sent to a replica, how many chunks were, ever: what is sent again is no news.
    counted: BTreeMap<(ShardId, NodeId), (File, u32)>,
    /// Bytes that a chunk is taken to have until it is read.
    chunk_bytes: u32,
}

#[derive(Debug)]
struct Transfer {
    ballot: Ballot,
    file: File,
    /// Chunks known to be in the file.
    written: u32,
    /// How many there are; 0 as long as that is not known.
    chunks: u32,
    /// The chunk asked for last.
    wanted: u32,
    /// Since when.
    moved_at: Millis,
    /// Chunks sent, or being read to be sent.
    sent: u32,
    /// Whether the replica has said where it stands.
    answered: bool,
    /// When the replica last answered, or more to send came about.
    at: Millis,
    /// The replica has all of it, and catches up with what follows.
    arrived: bool,
    /// How far it has then accepted.
    accepted: Index,
    pace: Pace,
    /// As above.
    chunk_bytes: u32,
}

/// How a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Chunks are on their way, or being written here.
    Sends,
    /// It waits until it may go on (O3).
    Held,
    /// The replica has all of it, and catches up with what follows.
    Arrived,
}

impl Outgoing {
    /// Chunks have so many bytes, most of them.
    pub(super) fn new(chunk_bytes: u32) -> Outgoing {
        Outgoing { transfers: BTreeMap::new(), counted: BTreeMap::new(), chunk_bytes }
    }

    /// Whether one that was begun in `ballot` is under way, or has just arrived.
    pub(super) fn is_under_way(&self, shard: ShardId, to: NodeId, ballot: Ballot, now: Millis) -> bool {
        self.transfers.get(&(shard, to)).is_some_and(|transfer| {
            let patience = if transfer.arrived { TAKE_OVER_WITHIN } else { TRANSFER_TIMEOUT };
            transfer.ballot == ballot && now.since(transfer.at) < patience
        })
    }

    /// Whether one more may begin (O1).
    pub(super) fn may_begin(&self) -> bool {
        self.count() < TRANSFERS_MAX
    }

    /// Begins to send a file instead of whatever was being sent there. Of a file that is still being written, nothing
    /// is there yet.
    pub(super) fn begin(
        &mut self,
        (shard, to): (ShardId, NodeId),
        (ballot, file): (Ballot, File),
        being_written: bool,
        rate: Option<u64>,
        now: Millis,
        out: &mut Effects,
    ) {
        let mut transfer = Transfer {
            ballot,
            file,
            // How many there are is told with the first that is read.
            written: if being_written { 0 } else { 2 },
            chunks: 0,
            wanted: 0,
            moved_at: now,
            sent: 0,
            answered: false,
            at: now,
            arrived: false,
            accepted: file.index,
            pace: Pace::new(rate, now),
            chunk_bytes: self.chunk_bytes,
        };
        transfer.send(shard, to, now, out);
        self.transfers.insert((shard, to), transfer);
    }

    /// So many chunks of a file are written; `chunks` is how many there are if that was all.
    pub(super) fn handle_written(
        &mut self,
        shard: ShardId,
        file: File,
        (written, chunks): (u32, u32),
        now: Millis,
        out: &mut Effects,
    ) {
        for ((of, to), transfer) in &mut self.transfers {
            if *of != shard || transfer.file != file || transfer.arrived {
                continue;
            }
            if transfer.sent == transfer.wanted {
                // Nothing was there to be answered.
                (transfer.at, transfer.moved_at) = (now, now);
            }
            (transfer.written, transfer.chunks) = (written, chunks);
            transfer.send(shard, *to, now, out);
        }
    }

    /// A chunk was read: here it goes. Answers how many bytes that the replica was not sent before.
    pub(super) fn handle_read(&mut self, read: ChunkRead, now: Millis, out: &mut Effects) -> u64 {
        let ChunkRead { shard, index, to, chunk, chunks, bytes, checksum } = read;
        let Some(transfer) = self.transfers.get_mut(&(shard, to)) else { return 0 };
        if transfer.file.index != index || transfer.arrived {
            return 0;
        }
        let length = bytes.len() as u32;
        transfer.pace.take(i64::from(length) - i64::from(self.chunk_bytes), now);
        let (counted_of, counted) = self.counted.entry((shard, to)).or_insert((transfer.file, 0));
        if *counted_of != transfer.file {
            (*counted_of, *counted) = (transfer.file, 0);
        }
        let news = if chunk < *counted { 0 } else { u64::from(length) };
        *counted = (chunk + 1).max(*counted);
        transfer.chunks = transfer.chunks.max(chunks);
        let (ballot, chunks, file) = (transfer.ballot, transfer.chunks, transfer.file.id);
        let message = SnapshotChunk { shard, ballot, index, file, chunk, chunks, checksum, bytes };
        out.sends.push((to, PeerMessage::SnapshotChunk(message)));
        transfer.send(shard, to, now, out);
        news
    }

    /// The replica has all chunks before `wanted`; with `u32::MAX` it needs none at all.
    pub(super) fn handle_wanted(
        &mut self,
        (shard, from): (ShardId, NodeId),
        (ballot, index, file): (Ballot, Index, u64),
        wanted: u32,
        now: Millis,
        out: &mut Effects,
    ) {
        let Some(transfer) = self.transfers.get_mut(&(shard, from)) else { return };
        if (transfer.ballot, transfer.file) != (ballot, File { index, id: file }) || transfer.arrived {
            return;
        }
        transfer.at = now;
        if wanted == u32::MAX || (transfer.chunks > 0 && wanted >= transfer.chunks) {
            transfer.arrived = true;
            return;
        }
        if wanted > transfer.sent {
            out.notices.push(Notice::SnapshotResumed { shard, node: from, chunk: wanted });
            transfer.sent = wanted;
        }
        transfer.answered = true;
        if transfer.wanted != wanted {
            (transfer.wanted, transfer.moved_at) = (wanted, now);
        }
        transfer.send(shard, from, now, out);
    }

    /// A file cannot be read, or will not be finished.
    pub(super) fn drop_file(&mut self, shard: ShardId, index: Index) {
        self.transfers.retain(|(of, _), transfer| *of != shard || transfer.file.index != index);
    }

    /// Everything of a shard: it is not led here any more.
    pub(super) fn drop_shard(&mut self, shard: ShardId) {
        self.transfers.retain(|(of, _), _| *of != shard);
    }

    /// Sends what may go by now, and again what was lost of transfers that stand still, and gives up those that nobody
    /// answers. `standing` is the ballot led in, and how far a replica has accepted in it; `rate` is what it may be sent.
    /// Answers the shards of which one ended.
    pub(super) fn tick(
        &mut self,
        standing: impl Fn(ShardId, NodeId) -> Option<(Ballot, Index)>,
        rate: impl Fn(ShardId, NodeId) -> Option<u64>,
        now: Millis,
        out: &mut Effects,
    ) -> Vec<ShardId> {
        let mut ended = Vec::new();
        self.transfers.retain(|(shard, to), transfer| {
            transfer.pace.set_rate(rate(*shard, *to), now);
            if transfer.is_held(now) {
                // Nothing was there to be answered.
                (transfer.at, transfer.moved_at) = (now, now);
            }
            let led = standing(*shard, *to).filter(|(ballot, _)| *ballot == transfer.ballot);
            if let Some((_, accepted)) = led.filter(|(_, accepted)| *accepted > transfer.accepted) {
                // It streams.
                (transfer.arrived, transfer.accepted, transfer.at) = (true, accepted, now);
            }
            let goes_on = led.is_some() && now.since(transfer.at) < TRANSFER_TIMEOUT;
            if !goes_on {
                ended.push(*shard);
            }
            goes_on
        });
        self.counted.retain(|(shard, to), _| standing(*shard, *to).is_some());
        for ((shard, to), transfer) in &mut self.transfers {
            if now.since(transfer.moved_at) >= RESEND_AFTER && !transfer.arrived {
                (transfer.moved_at, transfer.sent) = (now, transfer.wanted);
            }
            if !transfer.arrived {
                transfer.send(*shard, *to, now, out);
            }
        }
        ended
    }

    /// The entries after this index are needed by replicas that get a snapshot of the shard now, or have just got one.
    pub(super) fn floor(&self, shard: ShardId) -> Option<Index> {
        self.of_shard(shard).map(|transfer| transfer.accepted).min()
    }

    /// The oldest snapshot of the shard that is being sent.
    pub(super) fn oldest(&self, shard: ShardId) -> Option<Index> {
        self.of_shard(shard).filter(|transfer| !transfer.arrived).map(|transfer| transfer.file.index).min()
    }

    fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = &Transfer> {
        let range = (shard, NodeId(0))..=(shard, NodeId(u16::MAX));
        self.transfers.range(range).map(|(_, transfer)| transfer)
    }

    /// How the transfer to a replica is, if there is one.
    pub(super) fn standing(&self, shard: ShardId, to: NodeId, now: Millis) -> Option<Standing> {
        let transfer = self.transfers.get(&(shard, to))?;
        Some(match transfer.is_held(now) {
            true => Standing::Held,
            false if transfer.arrived => Standing::Arrived,
            false => Standing::Sends,
        })
    }

    /// How many have not arrived yet.
    pub(super) fn count(&self) -> usize {
        self.transfers.values().filter(|transfer| !transfer.arrived).count()
    }
}

impl Transfer {
    /// Whether it waits for its pace alone: all that was sent is answered.
    fn is_held(&self, now: Millis) -> bool {
        !self.arrived && self.sent <= self.wanted && !self.pace.is_open(now)
    }

    /// Has read what may be on its way and is not.
    fn send(&mut self, shard: ShardId, to: NodeId, now: Millis, out: &mut Effects) {
        // O2; with the first chunk the replica says where to go on.
        let there = if self.chunks > 0 { self.chunks } else { self.written.saturating_sub(1) };
        let window = if self.answered { CHUNKS_IN_FLIGHT } else { 1 };
        let end = self.sent.max(there.min(self.wanted.saturating_add(window)));
        let index = self.file.index;
        while self.sent < end && self.pace.is_open(now) {
            self.pace.take(i64::from(self.chunk_bytes), now);
            out.snapshots.push(SnapshotJob::Read { shard, index, to, chunk: self.sent });
            self.sent += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const KEY: (ShardId, NodeId) = (ShardId(0), NodeId(2));
    const FILE: File = File { index: Index(7), id: 9 };
    const NAME: (Ballot, Index, u64) = (Ballot::ZERO, Index(7), 9);

    /// The chunks asked to be read.
    fn read(step: impl FnOnce(&mut Effects)) -> Vec<u32> {
        let mut out = Effects::default();
        step(&mut out);
        let number = |job| match job {
            SnapshotJob::Read { chunk, .. } => chunk,
            other => panic!("{other:?}"),
        };
        out.snapshots.into_iter().map(number).collect()
    }

    /// A chunk of a file of `chunks` was read: what is read next.
    fn was_read(outgoing: &mut Outgoing, chunk: u32, chunks: u32) -> Vec<u32> {
        let (shard, to) = KEY;
        let bytes = Bytes::from_static(b"x");
        let read_chunk = ChunkRead { shard, index: FILE.index, to, chunk, chunks, bytes, checksum: 1 };
        read(|out| {
            outgoing.handle_read(read_chunk, Millis(0), out);
        })
    }

    fn wanted(outgoing: &mut Outgoing, chunk: u32, now: u64) -> Vec<u32> {
        read(|out| outgoing.handle_wanted(KEY, NAME, chunk, Millis(now), out))
    }

    fn begin(outgoing: &mut Outgoing, being_written: bool) -> Vec<u32> {
        read(|out| outgoing.begin(KEY, (Ballot::ZERO, FILE), being_written, None, Millis(0), out))
    }

    fn tick(outgoing: &mut Outgoing, accepted: u64, now: u64) -> Vec<u32> {
        let standing = |_, _| Some((Ballot::ZERO, Index(accepted)));
        read(|out| drop(outgoing.tick(standing, |_, _| None, Millis(now), out)))
    }

    #[test]
    fn one_goes_first_then_so_many_and_the_asked_ones_follow() {
        let mut outgoing = Outgoing::new(1);
        assert_eq!(begin(&mut outgoing, false), [0]);
        assert_eq!(was_read(&mut outgoing, 0, 12), []);
        assert_eq!(wanted(&mut outgoing, 1, 1), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(wanted(&mut outgoing, 1, 1), []);
        let other = (NAME.0, NAME.1, 8);
        assert_eq!(read(|out| outgoing.handle_wanted(KEY, other, 2, Millis(1), out)), []);
        assert_eq!(wanted(&mut outgoing, 5, 2), [9, 10, 11]);
        assert_eq!((outgoing.count(), outgoing.oldest(KEY.0)), (1, Some(Index(7))));
        assert_eq!(wanted(&mut outgoing, 12, 3), []);
        assert_eq!((outgoing.count(), outgoing.oldest(KEY.0)), (0, None));
        // The replica takes it over meanwhile.
        assert!(outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(1002)));
        assert!(!outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(1003)));
    }

    #[test]
    fn a_replica_that_has_a_part_gets_the_rest() {
        let mut outgoing = Outgoing::new(1);
        begin(&mut outgoing, false);
        was_read(&mut outgoing, 0, 100);
        let mut out = Effects::default();
        outgoing.handle_wanted(KEY, NAME, 90, Millis(1), &mut out);
        assert_eq!(out.notices, [Notice::SnapshotResumed { shard: KEY.0, node: KEY.1, chunk: 90 }]);
        assert_eq!(out.snapshots.len(), 8);
        assert_eq!(wanted(&mut outgoing, 98, 2), [98, 99]);
        assert_eq!(wanted(&mut outgoing, u32::MAX, 3), []);
        assert_eq!(outgoing.count(), 0);
    }

    /// O2: what is written goes, but for the last.
    #[test]
    fn a_file_is_sent_while_it_is_written() {
        let mut outgoing = Outgoing::new(1);
        assert_eq!(begin(&mut outgoing, true), []);
        let written = |outgoing: &mut Outgoing, written: (u32, u32), now| {
            read(|out| outgoing.handle_written(KEY.0, FILE, written, Millis(now), out))
        };
        assert_eq!(written(&mut outgoing, (1, 0), 4000), []);
        assert_eq!(written(&mut outgoing, (2, 0), 8000), [0]);
        assert_eq!(was_read(&mut outgoing, 0, 0), []);
        assert_eq!(wanted(&mut outgoing, 1, 8001), []);
        assert_eq!(written(&mut outgoing, (4, 0), 8002), [1, 2]);
        assert_eq!(written(&mut outgoing, (4, 4), 8003), [3]);
        assert_eq!(wanted(&mut outgoing, 4, 8004), []);
        assert_eq!(outgoing.count(), 0);
    }

    #[test]
    fn what_stands_still_is_sent_again_and_given_up_unanswered() {
        let mut outgoing = Outgoing::new(1);
        begin(&mut outgoing, false);
        was_read(&mut outgoing, 0, 4);
        wanted(&mut outgoing, 2, 100);
        assert_eq!(tick(&mut outgoing, 0, 599), []);
        assert_eq!(tick(&mut outgoing, 0, 600), [2, 3]);
        assert_eq!(tick(&mut outgoing, 0, 601), []);
        assert_eq!(tick(&mut outgoing, 0, 5099), [2, 3]);
        assert_eq!(tick(&mut outgoing, 0, 5100), []);
        assert!(!outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(5100)));
    }

    /// The entries that follow are kept until the replica has them, and not for ever.
    #[test]
    fn what_follows_is_needed_as_far_as_the_replica_has_not_come() {
        let mut outgoing = Outgoing::new(1);
        begin(&mut outgoing, false);
        was_read(&mut outgoing, 0, 1);
        wanted(&mut outgoing, 1, 10);
        tick(&mut outgoing, 3, 20);
        assert_eq!(
            outgoing.floor(KEY.0),
            Some(Index(7)),
            "what it had before the snapshot counts for nothing"
        );
        tick(&mut outgoing, 8, 30);
        assert_eq!(outgoing.floor(KEY.0), Some(Index(8)));
        tick(&mut outgoing, 8, 5029);
        assert_eq!(outgoing.floor(KEY.0), Some(Index(8)));
        tick(&mut outgoing, 8, 5030);
        assert_eq!(outgoing.floor(KEY.0), None);
        begin(&mut outgoing, false);
        let lost = |_, _| None;
        assert_eq!(
            outgoing.tick(lost, |_, _| None, Millis(1), &mut Effects::default()),
            [KEY.0],
            "not led any more"
        );
    }

    /// O3: four chunks of a byte each a second, and what waits for that does not stand still.
    #[test]
    fn a_transfer_goes_as_fast_as_it_may() {
        let mut outgoing = Outgoing::new(1);
        let tick = |outgoing: &mut Outgoing, rate: Option<u64>, now| {
            let standing = |_, _| Some((Ballot::ZERO, Index::ZERO));
            read(|out| drop(outgoing.tick(standing, |_, _| rate, Millis(now), out)))
        };
        let rate = Some(4);
        let begun = read(|out| outgoing.begin(KEY, (Ballot::ZERO, FILE), false, rate, Millis(0), out));
        assert_eq!(begun, [0]);
        assert_eq!(was_read(&mut outgoing, 0, 100), []);
        let mut sent = alloc::vec![];
        for now in (10..=20_000).step_by(10) {
            let mut asked = wanted(&mut outgoing, 1 + sent.len() as u32, now);
            asked.extend(tick(&mut outgoing, rate, now));
            for chunk in &asked {
                assert!(
                    read(|out| {
                        let bytes = Bytes::from_static(b"x");
                        let (shard, to) = KEY;
                        let read_chunk = ChunkRead {
                            shard,
                            index: FILE.index,
                            to,
                            chunk: *chunk,
                            chunks: 100,
                            bytes,
                            checksum: 1,
                        };
                        assert_eq!(outgoing.handle_read(read_chunk, Millis(now), out), 1);
                    })
                    .is_empty()
                );
            }
            sent.extend(asked);
        }
        assert_eq!(sent, (1..=80).collect::<Vec<u32>>());
        assert_eq!(outgoing.standing(KEY.0, KEY.1, Millis(20_000)), Some(Standing::Sends));
        assert_eq!(wanted(&mut outgoing, 81, 20_001), []);
        assert_eq!(outgoing.standing(KEY.0, KEY.1, Millis(20_001)), Some(Standing::Held));
        assert!(outgoing.is_under_way(KEY.0, KEY.1, NAME.0, Millis(20_001)));
        // Nothing holds it back any more: as much goes at once as may be on its way.
        assert_eq!(tick(&mut outgoing, None, 20_010).len(), 8);
        assert_eq!(outgoing.standing(KEY.0, KEY.1, Millis(20_010)), Some(Standing::Sends));
    }

    /// O3: eight seconds for each chunk, longer than one without progress is waited for.
    #[test]
    fn a_transfer_that_waits_for_its_pace_is_not_given_up() {
        let mut outgoing = Outgoing::new(8);
        let rate = Some(1);
        let begun = read(|out| outgoing.begin(KEY, (Ballot::ZERO, FILE), false, rate, Millis(0), out));
        assert_eq!(begun, [0]);
        let bytes = Bytes::from_static(b"8 bytes!");
        let chunk =
            ChunkRead { shard: KEY.0, index: FILE.index, to: KEY.1, chunk: 0, chunks: 9, bytes, checksum: 1 };
        outgoing.handle_read(chunk, Millis(0), &mut Effects::default());
        wanted(&mut outgoing, 1, 10);
        let standing = |_, _| Some((Ballot::ZERO, Index::ZERO));
        for now in (20..=8_000).step_by(10) {
            let sent = read(|out| {
                let ended = outgoing.tick(standing, |_, _| rate, Millis(now), out);
                assert_eq!(ended, [], "{now} ms");
            });
            assert_eq!(sent, if now < 8_000 { &[][..] } else { &[1] }, "{now} ms");
        }
    }

    #[test]
    fn what_is_sent_again_counts_once() {
        let mut outgoing = Outgoing::new(1);
        begin(&mut outgoing, false);
        let read_one = |outgoing: &mut Outgoing, chunk| {
            let (shard, to) = KEY;
            let bytes = Bytes::from_static(b"xyz");
            let one = ChunkRead { shard, index: FILE.index, to, chunk, chunks: 100, bytes, checksum: 1 };
            outgoing.handle_read(one, Millis(0), &mut Effects::default())
        };
        assert_eq!([0, 0, 1].map(|chunk| read_one(&mut outgoing, chunk)), [3, 0, 3]);
        // The replica has the first of it from before.
        wanted(&mut outgoing, 50, 1);
        assert_eq!([50, 49].map(|chunk| read_one(&mut outgoing, chunk)), [3, 0]);
        // Begun anew.
        begin(&mut outgoing, false);
        assert_eq!([0, 50, 51].map(|chunk| read_one(&mut outgoing, chunk)), [0, 0, 3]);
    }
}
