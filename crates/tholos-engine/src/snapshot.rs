//! The keyspace as bytes: written in slices while commands go on, read with every check (R24).
//!
//! The stream is the state at the moment of [`Keyspace::begin_snapshot`], whatever is applied meanwhile: a change
//! of an entry that the walk has not reached first hands its old image to the stream. Dead keys that are still in
//! memory belong to the state (R17).
//!
//! The work of one slice is bounded in bytes and in entries. Only a single value larger than a chunk makes it longer:
//! it is copied whole, by the walk or by the first change of it.
//!
//! ```text
//! head   "THOLKEYS" · format u16 · first slot u16 · slot count u16 · hash seed u64
//! slot   1 · slot u16 · index u64 · position u32             the slot's absent version, if it has one
//! entry  2 · kind u8 · index u64 · position u32 · [expire ms u64] · key length u32 · text length u32 · key · text
//! end    3 · entries u64 · sum u64                           the digest of the state, plus the hash of the head
//! ```
//!
//! Numbers are little-endian. `kind` is 0 integer, 1 plain, 2 raw, plus 4 if there is an expiry. Slots and entries
//! come in any order. Every bit of the stream is covered by the sum or by a check.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::fmt;

use crate::keyspace::Keyspace;
use crate::store::entry::{Content, Stamp, View};
use crate::store::hash::Digest;
use crate::store::slots::{Place, Slots};

/// Format this release writes, and the newest it reads.
pub const FORMAT: u16 = 1;

const MAGIC: &[u8; 8] = b"THOLKEYS";
/// Marks the hash of the head; those of entries and slots have other tags.
const HEAD_TAG: u64 = 0x200;
const RECORD_SLOT: u8 = 1;
const RECORD_ENTRY: u8 = 2;
const RECORD_END: u8 = 3;
const KIND_INTEGER: u8 = 0;
const KIND_PLAIN: u8 = 1;
const KIND_RAW: u8 = 2;
const KIND_EXPIRES: u8 = 4;
/// A length beyond this is damage, not data. In bytes.
const LENGTH_MAX: u32 = 1 << 30;

/// Why bytes are no snapshot. The keyspace read so far is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The stream does not start as a snapshot does.
    NotASnapshot,
    /// Written by a newer release, in this format.
    NewerFormat(u16),
    /// The stream stopped before its end record.
    Truncated,
    /// A field that no release writes; says which.
    Corrupt(&'static str),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NotASnapshot => write!(out, "not a snapshot of a keyspace"),
            SnapshotError::NewerFormat(format) => {
                write!(out, "snapshot format {format} is newer than {FORMAT}, the newest this release reads")
            }
            SnapshotError::Truncated => write!(out, "the snapshot stops before its end"),
            SnapshotError::Corrupt(what) => write!(out, "the snapshot is damaged: {what}"),
        }
    }
}

impl core::error::Error for SnapshotError {}

/// Bytes in chunks of one length, but for the last.
#[derive(Debug)]
struct Chunks {
    /// In bytes, at least 1.
    chunk_bytes: usize,
    full: VecDeque<Vec<u8>>,
    last: Vec<u8>,
}

impl Chunks {
    fn new(chunk_bytes: usize) -> Chunks {
        Chunks { chunk_bytes: chunk_bytes.max(1), full: VecDeque::new(), last: Vec::new() }
    }

    fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    fn extend_from_slice(&mut self, mut bytes: &[u8]) {
        while self.last.len() + bytes.len() >= self.chunk_bytes {
            let (now, later) = bytes.split_at(self.chunk_bytes - self.last.len());
            self.last.extend_from_slice(now);
            self.full.push_back(core::mem::take(&mut self.last));
            bytes = later;
        }
        if self.last.capacity() == 0 && !bytes.is_empty() {
            self.last.reserve_exact(self.chunk_bytes);
        }
        self.last.extend_from_slice(bytes);
    }
}

/// A snapshot under way.
#[derive(Debug)]
pub(crate) struct Walk {
    /// The first place not yet written; `None` once the end record is.
    next: Option<Place>,
    /// Places at or after `next` whose image at the start is written, or that were empty then.
    done: BTreeSet<Place>,
    /// Written and not yet taken.
    chunks: Chunks,
    /// The entries of the start, if a flush has since removed them.
    kept: Option<Slots>,
    entries: u64,
    sum: u64,
}

impl Walk {
    /// Writes the entries at `place` as they are now, before the first change since the start.
    pub(crate) fn before_change(&mut self, store: &Slots, place: Place) {
        let reached = self.next.is_none_or(|next| place < next);
        if reached || self.kept.is_some() || !self.done.insert(place) {
            return;
        }
        for entry in store.at(place) {
            encode_entry(&mut self.chunks, &entry.view());
        }
    }

    /// Takes over what a flush has removed, if it is needed.
    pub(crate) fn keep(&mut self, store: Slots) -> Option<Slots> {
        if self.next.is_none() || self.kept.is_some() {
            return Some(store);
        }
        self.kept = Some(store);
        None
    }

    /// Walks on until a chunk is full, past `entries_max` entries, or to the end. Answers the entries that were kept for
    /// it and are not needed any more.
    fn fill(&mut self, store: &Slots, entries_max: usize) -> Option<Slots> {
        let mut next = self.next?;
        let store = self.kept.as_ref().unwrap_or(store);
        for (passed, (place, entry)) in store.iter_from(next).enumerate() {
            if place != next {
                next = place;
                // Twins stay together, so a slice ends only between places.
                if !self.chunks.full.is_empty() || passed >= entries_max {
                    self.next = Some(next);
                    return None;
                }
            }
            while self.done.first().is_some_and(|first| *first < place) {
                self.done.pop_first();
            }
            if self.done.first() != Some(&place) {
                encode_entry(&mut self.chunks, &entry.view());
            }
        }
        self.chunks.push(RECORD_END);
        self.chunks.extend_from_slice(&self.entries.to_le_bytes());
        self.chunks.extend_from_slice(&self.sum.to_le_bytes());
        self.next = None;
        self.done = BTreeSet::new();
        self.kept.take()
    }

    /// The next full chunk, or at the end what is left; empty if there is none yet, `None` after the last.
    fn take(&mut self) -> Option<Vec<u8>> {
        if let Some(chunk) = self.chunks.full.pop_front() {
            return Some(chunk);
        }
        if self.next.is_some() {
            return Some(Vec::new());
        }
        let last = core::mem::take(&mut self.chunks.last);
        (!last.is_empty()).then_some(last)
    }

    /// The entries that were kept for the walk, when that is given up.
    fn into_kept(self) -> Option<Slots> {
        self.kept
    }
}

impl Keyspace {
    /// Starts a snapshot of the state as it is now, in chunks of `chunk_bytes`; one under way is dropped. The work is
    /// that of a few bytes for each slot.
    ///
    /// While it runs, a changed entry that is not reached yet costs its old image and 24 bytes of memory.
    pub fn begin_snapshot(&mut self, chunk_bytes: usize) {
        self.cancel_snapshot();
        let mut chunks = Chunks::new(chunk_bytes);
        let (entries, sum) = (self.entry_count() as u64, end_sum(self));
        let store = self.store();
        chunks.extend_from_slice(MAGIC);
        chunks.extend_from_slice(&FORMAT.to_le_bytes());
        chunks.extend_from_slice(&store.first_slot().to_le_bytes());
        chunks.extend_from_slice(&store.slot_count().to_le_bytes());
        chunks.extend_from_slice(&store.hash_seed().to_le_bytes());
        for slot in 0..store.slot_count() {
            let absent = store.absent(slot);
            if absent != Stamp::default() {
                chunks.push(RECORD_SLOT);
                chunks.extend_from_slice(&slot.to_le_bytes());
                encode_stamp(&mut chunks, absent);
            }
        }
        let next = Some(Place::FIRST);
        let walk = Walk { next, done: BTreeSet::new(), chunks, kept: None, entries, sum };
        *self.walk_mut().1 = Some(Box::new(walk));
    }

    /// The next chunk of the snapshot under way, all but the last of the length asked for; `None` after the last. An
    /// empty one says that `entries_max` entries (at least 1) were passed and none is full yet.
    pub fn next_snapshot_chunk(&mut self, entries_max: usize) -> Option<Vec<u8>> {
        let (store, slot) = self.walk_mut();
        let walk = slot.as_mut()?;
        // Old images of what has changed go first: they wait in memory.
        let freed = if walk.chunks.full.is_empty() { walk.fill(store, entries_max.max(1)) } else { None };
        let chunk = walk.take();
        if chunk.is_none() {
            *slot = None;
        }
        self.discard(freed);
        chunk
    }

    /// Drops the snapshot under way, if there is one.
    pub fn cancel_snapshot(&mut self) {
        let kept = self.walk_mut().1.take().and_then(|walk| walk.into_kept());
        self.discard(kept);
    }

    /// Whether a snapshot is under way.
    #[must_use]
    pub fn snapshot_under_way(&self) -> bool {
        self.walk().is_some()
    }
}

/// Entries that are gone for every command and still in memory: a million of them take a while to free, so this is
/// to be dropped where nobody waits.
#[derive(Debug, Default)]
#[must_use]
pub struct Discarded(Vec<Slots>);

impl Discarded {
    pub(crate) fn push(&mut self, entries: Slots) {
        self.0.push(entries);
    }
}

/// What the end record says: the state's digest, and what the digest leaves out.
fn end_sum(keyspace: &Keyspace) -> u64 {
    let store = keyspace.store();
    let slots = u64::from(store.first_slot()) << 16 | u64::from(store.slot_count());
    let head = Digest::new(HEAD_TAG).word(slots).word(store.hash_seed()).finish();
    keyspace.digest().wrapping_add(head)
}

fn encode_stamp(out: &mut Chunks, stamp: Stamp) {
    out.extend_from_slice(&stamp.index.to_le_bytes());
    out.extend_from_slice(&stamp.position.to_le_bytes());
}

fn encode_entry(out: &mut Chunks, view: &View<'_>) {
    let number;
    let (kind, text) = match view.content {
        Content::Integer(value) => {
            number = value.to_le_bytes();
            (KIND_INTEGER, &number[..])
        }
        Content::Plain(text) => (KIND_PLAIN, text),
        Content::Raw(text) => (KIND_RAW, text),
    };
    out.push(RECORD_ENTRY);
    out.push(kind | if view.expire_at.is_some() { KIND_EXPIRES } else { 0 });
    encode_stamp(out, view.stamp);
    if let Some(expire_at) = view.expire_at {
        out.extend_from_slice(&expire_at.to_le_bytes());
    }
    out.extend_from_slice(&(view.key.len() as u32).to_le_bytes());
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(view.key);
    out.extend_from_slice(text);
}

/// Reads a snapshot, cut in any way, back into a keyspace.
#[derive(Debug, Default)]
pub struct Loader {
    /// Bytes of a record that has not come whole.
    buffer: Vec<u8>,
    keyspace: Option<Keyspace>,
    ended: bool,
}

impl Loader {
    /// A loader that waits for the first byte.
    #[must_use]
    pub fn new() -> Loader {
        Loader::default()
    }

    /// Takes the next bytes of the stream. After an error the loader is of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(bytes);
        let mut buffer = core::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while let Some(after) = self.step(rest)? {
            rest = after;
        }
        let consumed = buffer.len() - rest.len();
        // Nothing moves while a long record is still coming.
        buffer.drain(..consumed);
        self.buffer = buffer;
        Ok(())
    }

    /// The keyspace, if the stream was whole and its sums agree.
    pub fn finish(self) -> Result<Keyspace, SnapshotError> {
        match self.keyspace {
            Some(keyspace) if self.ended => Ok(keyspace),
            _ => Err(SnapshotError::Truncated),
        }
    }

    /// Makes twins common, for tests.
    #[cfg(test)]
    pub(crate) fn set_hash_mask(&mut self, mask: u64) {
        self.keyspace.as_mut().expect("the head has come").set_hash_mask(mask);
    }

    /// Reads one record from the front of `bytes`; `None` if it has not come whole.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, SnapshotError> {
        let mut cut = Cut(bytes);
        let done = match &mut self.keyspace {
            None => {
                if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
                    return Err(SnapshotError::NotASnapshot);
                }
                match read_head(&mut cut)? {
                    Some(keyspace) => {
                        self.keyspace = Some(keyspace);
                        true
                    }
                    None => false,
                }
            }
            Some(_) if self.ended => {
                if bytes.is_empty() {
                    return Ok(None);
                }
                return Err(SnapshotError::Corrupt("bytes after the end"));
            }
            Some(keyspace) => match cut.u8() {
                None => false,
                Some(RECORD_SLOT) => read_slot(&mut cut, keyspace)?,
                Some(RECORD_ENTRY) => read_entry(&mut cut, keyspace)?,
                Some(RECORD_END) => {
                    self.ended = read_end(&mut cut, keyspace)?;
                    self.ended
                }
                Some(_) => return Err(SnapshotError::Corrupt("unknown record")),
            },
        };
        Ok(done.then_some(cut.0))
    }
}

fn read_head(cut: &mut Cut<'_>) -> Result<Option<Keyspace>, SnapshotError> {
    let (Some(_magic), Some(format)) = (cut.take(MAGIC.len()), cut.u16()) else { return Ok(None) };
    match format {
        FORMAT => {}
        0 => return Err(SnapshotError::Corrupt("format 0")),
        newer => return Err(SnapshotError::NewerFormat(newer)),
    }
    let (Some(first), Some(count), Some(seed)) = (cut.u16(), cut.u16(), cut.u64()) else { return Ok(None) };
    match first.checked_add(count) {
        Some(end) if end <= tholos_ring::SLOT_COUNT => Ok(Some(Keyspace::new(first..end, seed))),
        _ => Err(SnapshotError::Corrupt("slots out of range")),
    }
}

fn read_slot(cut: &mut Cut<'_>, keyspace: &mut Keyspace) -> Result<bool, SnapshotError> {
    let (Some(slot), Some(stamp)) = (cut.u16(), cut.stamp()) else { return Ok(false) };
    if slot >= keyspace.store().slot_count() {
        return Err(SnapshotError::Corrupt("slot out of range"));
    }
    keyspace.set_absent(slot, stamp);
    Ok(true)
}

fn read_entry(cut: &mut Cut<'_>, keyspace: &mut Keyspace) -> Result<bool, SnapshotError> {
    let (Some(flags), Some(stamp)) = (cut.u8(), cut.stamp()) else { return Ok(false) };
    let kind = flags & !KIND_EXPIRES;
    if kind > KIND_RAW {
        return Err(SnapshotError::Corrupt("unknown kind of value"));
    }
    let mut expire_at = None;
    if flags & KIND_EXPIRES != 0 {
        expire_at = cut.u64();
        if expire_at.is_none() {
            return Ok(false);
        }
    }
    let (Some(key_length), Some(text_length)) = (cut.u32(), cut.u32()) else { return Ok(false) };
    if key_length > LENGTH_MAX || text_length > LENGTH_MAX {
        return Err(SnapshotError::Corrupt("impossible length"));
    }
    let (Some(key), Some(text)) = (cut.take(key_length as usize), cut.take(text_length as usize)) else {
        return Ok(false);
    };
    let content = match kind {
        KIND_INTEGER => match text.try_into() {
            Ok(number) => Content::Integer(i64::from_le_bytes(number)),
            Err(_) => return Err(SnapshotError::Corrupt("an integer of other than 8 bytes")),
        },
        KIND_PLAIN => Content::Plain(text),
        _ => Content::Raw(text),
    };
    let Some(place) = keyspace.store().place(key) else {
        return Err(SnapshotError::Corrupt("a key of another shard"));
    };
    if keyspace.store().get(place, key).is_some() {
        return Err(SnapshotError::Corrupt("a key twice"));
    }
    keyspace.put_entry(place, View { key, stamp, expire_at, content });
    Ok(true)
}

fn read_end(cut: &mut Cut<'_>, keyspace: &Keyspace) -> Result<bool, SnapshotError> {
    let (Some(entries), Some(sum)) = (cut.u64(), cut.u64()) else { return Ok(false) };
    if entries != keyspace.entry_count() as u64 {
        return Err(SnapshotError::Corrupt("the number of keys is not the one at the end"));
    }
    if sum != end_sum(keyspace) {
        return Err(SnapshotError::Corrupt("the sum of the keys is not the one at the end"));
    }
    Ok(true)
}

/// Bytes that are cut off from the front.
struct Cut<'a>(&'a [u8]);

impl<'a> Cut<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp { index: self.u64()?, position: self.u32()? })
    }
}
