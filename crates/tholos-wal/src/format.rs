//! The bytes of a segment: its header and its batches. `docs/protocol/wal.md` draws them.
//!
//! Nothing here does I/O, and nothing here trusts a byte before its checksum held. All integers are little-endian.

use crate::Lsn;
use crate::buffer::AlignedBuffer;

/// The format this release writes, and the newest it reads. Format 1 names no earlier openings; it is read as well.
pub const FORMAT_VERSION: u32 = 2;

/// What a disk writes whole or not at all, and what each batch begins at a multiple of, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// Bytes before a segment's first batch: two copies of the header, in different sectors.
pub const HEADER_BYTES: usize = 4096;

const SEGMENT_MAGIC: [u8; 8] = *b"THOLOSWL";
const BATCH_MAGIC: [u8; 4] = *b"TBAT";
/// Where the second copy of a segment's header stands.
const HEADER_COPY_AT: usize = 2048;
/// Bytes of a batch before its table of records.
pub(crate) const BATCH_HEAD_BYTES: usize = 56;
/// Bytes of each record in that table: group, length, checksum.
pub(crate) const TABLE_ENTRY_BYTES: usize = 12;
/// In a header: the first batch says where the segment begins.
const BASE_UNKNOWN: u64 = u64::MAX;

/// What a log states about itself in every batch and every segment header. Each statement was true of the disk when
/// it was written and stays so; recovery takes the highest of each that it finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Everything below was durable before this was written (R20).
    pub(crate) synced_to: Lsn,
    /// Nothing below is needed, and what replaced it is durable (R22).
    pub(crate) released_to: Lsn,
}

impl Marks {
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            synced_to: self.synced_to.max(other.synced_to),
            released_to: self.released_to.max(other.released_to),
        }
    }
}

/// Openings that a header names, at most.
pub(crate) const OPENINGS_MAX: usize = 28;
/// Where they stand in a header: their number, then each.
const OPENINGS_AT: usize = 56;
const OPENING_BYTES: usize = 16;

/// An opening of the log: from `base` on, what segments of a lower use number hold is void.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opening {
    /// The segment that it began.
    pub(crate) use_number: u64,
    pub(crate) base: u64,
}

/// The last openings of a log, oldest first. Named in each header that is written later, so that they are known though
/// the segment that an opening began is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    count: usize,
    list: [Opening; OPENINGS_MAX],
}

impl Openings {
    /// The latest of `all`, in any order.
    pub(crate) fn latest(mut all: Vec<Opening>) -> Self {
        all.sort_unstable();
        all.dedup();
        let mut openings = Self::default();
        for opening in &all[all.len().saturating_sub(OPENINGS_MAX)..] {
            openings.list[openings.count] = *opening;
            openings.count += 1;
        }
        openings
    }

    pub(crate) fn list(&self) -> &[Opening] {
        &self.list[..self.count]
    }

    fn encode(&self, sector: &mut [u8]) {
        sector[..8].copy_from_slice(&(self.count as u64).to_le_bytes());
        for (place, opening) in sector[8..].chunks_exact_mut(OPENING_BYTES).zip(self.list()) {
            place[..8].copy_from_slice(&opening.use_number.to_le_bytes());
            place[8..].copy_from_slice(&opening.base.to_le_bytes());
        }
    }

    /// The checksum held, so what is more than fits is a fault of whoever wrote it, and cut off.
    fn decode(sector: &[u8]) -> Self {
        let count = usize::try_from(u64_at(sector, 0)).unwrap_or(OPENINGS_MAX).min(OPENINGS_MAX);
        let opening = |place: &[u8]| Opening { use_number: u64_at(place, 0), base: u64_at(place, 8) };
        Self::latest(sector[8..].chunks_exact(OPENING_BYTES).take(count).map(opening).collect())
    }
}

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The same in all segments of a log; see [`seed`].
    pub(crate) salt: u64,
    /// Never used twice in a log; also in the file's name.
    pub(crate) use_number: u64,
    /// Position of the first batch, if it was known: what segments of lower use number hold from there on is void.
    pub(crate) base: Option<Lsn>,
    pub(crate) marks: Marks,
    /// Openings before this was written.
    pub(crate) openings: Openings,
}

/// What the first [`HEADER_BYTES`] of a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one is read for each file, and never kept")]
pub(crate) enum HeaderRead {
    /// `worn`: only one of the two copies can be read.
    Valid {
        header: SegmentHeader,
        worn: bool,
    },
    /// Intact, by a later release.
    Newer(u32),
    Unreadable,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut block = [0; HEADER_BYTES];
        block[..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[16..24].copy_from_slice(&self.salt.to_le_bytes());
        block[24..32].copy_from_slice(&self.use_number.to_le_bytes());
        block[32..40].copy_from_slice(&self.base.map_or(BASE_UNKNOWN, |lsn| lsn.0).to_le_bytes());
        block[40..48].copy_from_slice(&self.marks.synced_to.0.to_le_bytes());
        block[48..OPENINGS_AT].copy_from_slice(&self.marks.released_to.0.to_le_bytes());
        self.openings.encode(&mut block[OPENINGS_AT..SECTOR_BYTES]);
        let crc = header_crc(&block[..SECTOR_BYTES]);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block.copy_within(..SECTOR_BYTES, HEADER_COPY_AT);
        block
    }

    /// Reads the two copies at the start of a segment.
    pub(crate) fn decode(segment: &[u8]) -> HeaderRead {
        let copies = [0, HEADER_COPY_AT].map(|at| match segment.get(at..at + SECTOR_BYTES) {
            Some(sector) => Self::decode_copy(sector),
            None => HeaderRead::Unreadable,
        });
        match copies {
            [HeaderRead::Newer(version), _] | [_, HeaderRead::Newer(version)] => HeaderRead::Newer(version),
            [HeaderRead::Valid { header, .. }, second] => {
                // Both are written at once, under a temporary name: two valid copies that differ do not exist.
                HeaderRead::Valid { header, worn: second == HeaderRead::Unreadable }
            }
            [_, HeaderRead::Valid { header, .. }] => HeaderRead::Valid { header, worn: true },
            [HeaderRead::Unreadable, HeaderRead::Unreadable] => HeaderRead::Unreadable,
        }
    }

    /// Magic, version and checksum stand at the same place in every version, so that a newer one can be told from rot.
    fn decode_copy(sector: &[u8]) -> HeaderRead {
        if sector[..8] != SEGMENT_MAGIC || u32_at(sector, 12) != header_crc(sector) {
            return HeaderRead::Unreadable;
        }
        let openings = match u32_at(sector, 8) {
            1 => Openings::default(),
            FORMAT_VERSION => Openings::decode(&sector[OPENINGS_AT..SECTOR_BYTES]),
            version if version > FORMAT_VERSION => return HeaderRead::Newer(version),
            _ => return HeaderRead::Unreadable,
        };
        let base = u64_at(sector, 32);
        let header = Self {
            salt: u64_at(sector, 16),
            use_number: u64_at(sector, 24),
            base: (base != BASE_UNKNOWN).then_some(Lsn(base)),
            marks: Marks { synced_to: Lsn(u64_at(sector, 40)), released_to: Lsn(u64_at(sector, 48)) },
            openings,
        };
        HeaderRead::Valid { header, worn: false }
    }
}

fn header_crc(sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sector[..12]), &sector[16..SECTOR_BYTES])
}

/// The name of the segment with this use number.
pub(crate) fn segment_name(use_number: u64) -> String {
    format!("{use_number:016x}.wal")
}

/// The use number in a segment's name.
pub(crate) fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    let use_number = u64::from_str_radix(digits, 16).ok()?;
    (segment_name(use_number) == name).then_some(use_number)
}

/// Where the checksums of one use of one segment start (R20).
///
/// Two use numbers less than 2^32 apart never give the same seed, and two seeds never give one batch the same checksum.
/// The salt keeps a client who writes values that look like batches from guessing one that would be taken for a batch.
pub(crate) fn seed(salt: u64, use_number: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &use_number.to_le_bytes())
}

/// What a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Records,
    /// No records: repeats the marks, so that rot of the records before it is known for rot (R20).
    Seal,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Self::Records => 1,
            Self::Seal => 2,
        }
    }
}

/// The head of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub(crate) use_number: u64,
    /// Position of the batch's first byte.
    pub(crate) start: Lsn,
    pub(crate) marks: Marks,
    pub(crate) kind: Kind,
}

/// Bytes of a batch on disk: head, table, payloads, and zeros up to a whole sector.
pub(crate) fn batch_bytes(records: u64, payload_bytes: u64) -> u64 {
    let used = BATCH_HEAD_BYTES as u64 + records * TABLE_ENTRY_BYTES as u64 + payload_bytes;
    used.next_multiple_of(SECTOR_BYTES as u64)
}

/// Writes a batch to `buffer` in place of its contents. The caller has checked that its size fits 32 bits.
pub(crate) fn encode_batch<B: AsRef<[u8]>>(
    buffer: &mut AlignedBuffer,
    head: &BatchHead,
    seed: u32,
    records: &[(u32, B)],
) {
    let payload_bytes: u64 = records.iter().map(|(_, payload)| payload.as_ref().len() as u64).sum();
    let length = batch_bytes(records.len() as u64, payload_bytes);
    let narrow = |value: u64| u32::try_from(value).expect("the caller bounds a batch far below 4 GiB");
    let bytes = usize::try_from(length).expect("a batch fits memory");
    buffer.reset(bytes);
    buffer.push(&BATCH_MAGIC);
    buffer.push(&[0; 4]);
    buffer.push(&head.use_number.to_le_bytes());
    buffer.push(&head.start.0.to_le_bytes());
    buffer.push(&head.marks.synced_to.0.to_le_bytes());
    buffer.push(&head.marks.released_to.0.to_le_bytes());
    buffer.push(&narrow(length).to_le_bytes());
    buffer.push(&narrow(records.len() as u64).to_le_bytes());
    buffer.push(&head.kind.code().to_le_bytes());
    buffer.push(&narrow(payload_bytes).to_le_bytes());
    for (group, payload) in records {
        let payload = payload.as_ref();
        buffer.push(&group.to_le_bytes());
        buffer.push(&narrow(payload.len() as u64).to_le_bytes());
        buffer.push(&crc32c::crc32c_append(seed, payload).to_le_bytes());
    }
    let table_end = buffer.bytes().len();
    for (_, payload) in records {
        buffer.push(payload.as_ref());
    }
    buffer.pad(bytes);
    let crc = crc32c::crc32c_append(seed, &buffer.bytes()[8..table_end]);
    buffer.bytes_mut()[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// A batch whose head and table are intact; its payloads may not be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) head: BatchHead,
    /// The whole batch, padding included.
    bytes: &'a [u8],
    records: usize,
    seed: u32,
}

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) group: u32,
    pub(crate) payload: &'a [u8],
    /// Whether the payload is what was written.
    pub(crate) intact: bool,
}

/// What stands at a place where a batch may begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    Batch(Batch<'a>),
    /// Marked as a batch of this use, and broken: torn or rotten.
    Broken,
    /// Zeros, an earlier use's bytes, or the inside of a broken batch.
    Nothing,
}

impl<'a> Batch<'a> {
    /// Reads what begins at `bytes`, which reaches to the end of the segment.
    pub(crate) fn read(bytes: &'a [u8], use_number: u64, seed: u32) -> At<'a> {
        let labelled =
            bytes.len() >= BATCH_HEAD_BYTES && bytes[..4] == BATCH_MAGIC && u64_at(bytes, 8) == use_number;
        if !labelled {
            return At::Nothing;
        }
        Self::read_labelled(bytes, use_number, seed).map_or(At::Broken, At::Batch)
    }

    fn read_labelled(bytes: &'a [u8], use_number: u64, seed: u32) -> Option<Self> {
        let (length, records) = (u32_at(bytes, 40) as usize, u32_at(bytes, 44) as usize);
        let payload_bytes = u32_at(bytes, 52);
        if batch_bytes(records as u64, u64::from(payload_bytes)) != length as u64 || length > bytes.len() {
            return None;
        }
        // In range: the sum above, which these are part of, is at most the segment's length.
        let table_end = BATCH_HEAD_BYTES + records * TABLE_ENTRY_BYTES;
        if u32_at(bytes, 4) != crc32c::crc32c_append(seed, &bytes[8..table_end]) {
            return None;
        }
        let kind = match u32_at(bytes, 48) {
            1 => Kind::Records,
            2 => Kind::Seal,
            _ => return None,
        };
        let start = Lsn(u64_at(bytes, 16));
        start.0.checked_add(length as u64)?;
        let marks = Marks { synced_to: Lsn(u64_at(bytes, 24)), released_to: Lsn(u64_at(bytes, 32)) };
        let head = BatchHead { use_number, start, marks, kind };
        let batch = Self { head, bytes: &bytes[..length], records, seed };
        let table_sum: u64 = batch.table().map(|(_, length, _)| length as u64).sum();
        (table_sum == u64::from(payload_bytes)).then_some(batch)
    }

    /// Bytes of the whole batch.
    pub(crate) fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Group, length and checksum of each record.
    fn table(&self) -> impl Iterator<Item = (u32, usize, u32)> + use<'a> {
        let table = &self.bytes[BATCH_HEAD_BYTES..BATCH_HEAD_BYTES + self.records * TABLE_ENTRY_BYTES];
        table
            .chunks_exact(TABLE_ENTRY_BYTES)
            .map(|entry| (u32_at(entry, 0), u32_at(entry, 4) as usize, u32_at(entry, 8)))
    }

    /// Its records, in the order they were appended.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let (bytes, seed) = (self.bytes, self.seed);
        let mut at = BATCH_HEAD_BYTES + self.records * TABLE_ENTRY_BYTES;
        self.table().map(move |(group, length, crc)| {
            // In range: `read_labelled` has checked that the lengths sum up to what the batch holds.
            let payload = &bytes[at..at + length];
            at += length;
            Record { group, payload, intact: crc32c::crc32c_append(seed, payload) == crc }
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
