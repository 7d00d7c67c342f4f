//! One key with its value, in as little memory as it can be told in.
//!
//! A key of up to 255 bytes with a text of up to 1 KiB is one allocation, read with one cache miss:
//!
//! ```text
//!  0        8          12      13        14           14 or 22
//! ┌────────┬──────────┬───────┬─────────┬────────────┬─────┬──────────────────┐
//! │ index  │ position │ flags │ key len │ expire ms  │ key │ text, or 8 bytes │
//! │ u64    │ u32      │ u8    │ u8      │ u64, or 0B │     │ of an integer    │
//! └────────┴──────────┴───────┴─────────┴────────────┴─────┴──────────────────┘
//! ```
//!
//! Numbers are little-endian. Anything longer is a [`Large`], whose text grows in place. Which of the two it is
//! depends on the lengths alone, so equal contents take equal memory on every replica.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::hash::{Digest, text_digest, text_digest_part};

/// Longest key of a packed entry, in bytes.
const PACKED_KEY_BYTES_MAX: usize = 255;
/// Longest text of a packed entry, in bytes. Above it the fixed cost of a [`Large`] is less than a tenth.
const PACKED_TEXT_BYTES_MAX: usize = 1024;
/// Bytes before the optional expiry.
const HEAD_BYTES: usize = 14;

const KIND_INTEGER: u8 = 0;
const KIND_PLAIN: u8 = 1;
const KIND_RAW: u8 = 2;
const KIND_MASK: u8 = 3;
const FLAG_EXPIRES: u8 = 4;

/// The write that made something: log index and position in that entry's batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) index: u64,
    pub(crate) position: u32,
}

/// A string value as Redis's three encodings tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// Held as a number (`int`).
    Integer(i64),
    /// As it was set: `embstr` up to 44 bytes, `raw` above.
    Plain(&'a [u8]),
    /// Changed in place by APPEND or SETRANGE, hence `raw` at any length.
    Raw(&'a [u8]),
}

/// What can be read of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) stamp: Stamp,
    /// Unix milliseconds; the key is dead at and after it.
    pub(crate) expire_at: Option<u64>,
    pub(crate) content: Content<'a>,
}

/// A key with its value. 16 bytes here, the rest in one or three allocations.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Packed(Box<[u8]>),
    Large(Box<Large>),
}

/// A long key or a long text.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    key: Box<[u8]>,
    stamp: Stamp,
    expire_at: Option<u64>,
    kind: u8,
    text: Vec<u8>,
    /// `text_digest(text)`, kept so that a small change to a long text stays cheap.
    digest: u64,
}

impl Entry {
    pub(crate) fn new(view: View<'_>) -> Entry {
        let mut number = [0; 8];
        let (kind, text) = view.content.encode(&mut number);
        if view.key.len() > PACKED_KEY_BYTES_MAX || text.len() > PACKED_TEXT_BYTES_MAX {
            return Entry::Large(Box::new(Large {
                key: view.key.into(),
                stamp: view.stamp,
                expire_at: view.expire_at,
                kind,
                text: text.to_vec(),
                digest: text_digest(text),
            }));
        }
        let expire_bytes = if view.expire_at.is_some() { 8 } else { 0 };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + expire_bytes + view.key.len() + text.len());
        bytes.extend_from_slice(&view.stamp.index.to_le_bytes());
        bytes.extend_from_slice(&view.stamp.position.to_le_bytes());
        bytes.push(kind | if view.expire_at.is_some() { FLAG_EXPIRES } else { 0 });
        bytes.push(view.key.len() as u8);
        if let Some(expire_at) = view.expire_at {
            bytes.extend_from_slice(&expire_at.to_le_bytes());
        }
        bytes.extend_from_slice(view.key);
        bytes.extend_from_slice(text);
        Entry::Packed(bytes.into_boxed_slice())
    }

    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Entry::Packed(bytes) => {
                let (stamp, flags, expire_at) = packed_head(bytes);
                let (key, text) = packed_body(bytes);
                View { key, stamp, expire_at, content: content(flags & KIND_MASK, text) }
            }
            Entry::Large(large) => View {
                key: &large.key,
                stamp: large.stamp,
                expire_at: large.expire_at,
                content: content(large.kind, &large.text),
            },
        }
    }

    /// Reads both ends of a short entry, and of a long one what leads to it. The number means nothing.
    pub(crate) fn prefetch(&self) -> u64 {
        match self {
            Entry::Packed(bytes) => u64::from(bytes[0]) + bytes.last().copied().map_or(0, u64::from),
            Entry::Large(large) => large.stamp.index,
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Entry::Packed(bytes) => packed_body(bytes).0,
            Entry::Large(large) => &large.key,
        }
    }

    /// Unix milliseconds at which the key dies.
    pub(crate) fn expire_at(&self) -> Option<u64> {
        match self {
            Entry::Packed(bytes) => packed_head(bytes).2,
            Entry::Large(large) => large.expire_at,
        }
    }

    /// Gives the key another value, in place where the lengths allow.
    pub(crate) fn set(&mut self, stamp: Stamp, expire_at: Option<u64>, content: Content<'_>) {
        if let Entry::Packed(bytes) = self {
            let mut number = [0; 8];
            let (kind, text) = content.encode(&mut number);
            let (old_key, old_text) = packed_body(bytes);
            let same_shape =
                old_text.len() == text.len() && (bytes[12] & FLAG_EXPIRES != 0) == expire_at.is_some();
            if same_shape {
                let text_start = bytes.len() - old_text.len();
                let key_start = text_start - old_key.len();
                bytes[..8].copy_from_slice(&stamp.index.to_le_bytes());
                bytes[8..12].copy_from_slice(&stamp.position.to_le_bytes());
                bytes[12] = kind | (bytes[12] & !KIND_MASK);
                if let Some(expire_at) = expire_at {
                    bytes[key_start - 8..key_start].copy_from_slice(&expire_at.to_le_bytes());
                }
                bytes[text_start..].copy_from_slice(text);
                return;
            }
        }
        *self = Entry::new(View { key: self.key(), stamp, expire_at, content });
    }

    /// Gives the key another expiry and leaves its value.
    pub(crate) fn set_expire(&mut self, stamp: Stamp, expire_at: Option<u64>) {
        if let Entry::Large(large) = self {
            large.stamp = stamp;
            large.expire_at = expire_at;
            return;
        }
        *self = Entry::new(View { stamp, expire_at, ..self.view() });
    }

    /// Writes `bytes` at `offset`, with zero bytes up to there if the text is shorter. The value becomes raw.
    pub(crate) fn write_at(&mut self, stamp: Stamp, offset: usize, bytes: &[u8]) {
        if let Entry::Large(large) = self
            && large.kind != KIND_INTEGER
        {
            large.stamp = stamp;
            large.kind = KIND_RAW;
            let from = offset.min(large.text.len());
            let before = text_digest_part(&large.text, from);
            splice(&mut large.text, offset, bytes);
            let after = text_digest_part(&large.text, from);
            large.digest = large.digest.wrapping_sub(before).wrapping_add(after);
            return;
        }
        let view = self.view();
        let mut text = view.content.to_vec();
        splice(&mut text, offset, bytes);
        *self = Entry::new(View { stamp, content: Content::Raw(&text), ..view });
    }

    /// The element's part of the keyspace's digest: everything that a later command could tell apart.
    pub(crate) fn digest(&self) -> u64 {
        let view = self.view();
        let (kind, value) = match (view.content, self) {
            (Content::Integer(value), _) => (KIND_INTEGER, value as u64),
            (Content::Plain(_) | Content::Raw(_), Entry::Large(large)) => (large.kind, large.digest),
            (Content::Plain(text), _) => (KIND_PLAIN, text_digest(text)),
            (Content::Raw(text), _) => (KIND_RAW, text_digest(text)),
        };
        Digest::new(u64::from(kind))
            .bytes(view.key)
            .word(view.stamp.index)
            .word(u64::from(view.stamp.position))
            .word(view.expire_at.unwrap_or(u64::MAX))
            .word(u64::from(view.expire_at.is_some()))
            .word(view.content.len() as u64)
            .word(value)
            .finish()
    }

    /// Allocated bytes, with what common allocators round up to.
    pub(crate) fn allocated_bytes(&self) -> usize {
        match self {
            Entry::Packed(bytes) => bytes.len().next_multiple_of(16),
            Entry::Large(large) => {
                size_of::<Large>().next_multiple_of(16)
                    + large.key.len().next_multiple_of(16)
                    + large.text.capacity().next_multiple_of(16)
            }
        }
    }
}

impl<'a> Content<'a> {
    /// Kind and stored bytes; `number` lends room for an integer's.
    fn encode(self, number: &'a mut [u8; 8]) -> (u8, &'a [u8]) {
        match self {
            Content::Integer(value) => {
                *number = value.to_le_bytes();
                (KIND_INTEGER, number)
            }
            Content::Plain(text) => (KIND_PLAIN, text),
            Content::Raw(text) => (KIND_RAW, text),
        }
    }

    /// Length of the text, in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Content::Integer(value) => crate::number::digits(*value),
            Content::Plain(text) | Content::Raw(text) => text.len(),
        }
    }

    /// The text, copied.
    pub(crate) fn to_vec(self) -> Vec<u8> {
        match self {
            Content::Integer(value) => crate::number::format(value),
            Content::Plain(text) | Content::Raw(text) => text.to_vec(),
        }
    }
}

fn content(kind: u8, text: &[u8]) -> Content<'_> {
    match kind {
        KIND_INTEGER => {
            let bytes = text.first_chunk::<8>().expect("an integer entry holds 8 bytes");
            Content::Integer(i64::from_le_bytes(*bytes))
        }
        KIND_PLAIN => Content::Plain(text),
        _ => Content::Raw(text),
    }
}

/// Stamp, flags and expiry of a packed entry.
fn packed_head(bytes: &[u8]) -> (Stamp, u8, Option<u64>) {
    let (index, rest) = bytes.split_first_chunk::<8>().expect("a packed entry starts with its index");
    let (position, rest) = rest.split_first_chunk::<4>().expect("a packed entry has its position");
    let stamp = Stamp { index: u64::from_le_bytes(*index), position: u32::from_le_bytes(*position) };
    let flags = rest[0];
    let expire_at = if flags & FLAG_EXPIRES == 0 {
        None
    } else {
        Some(u64::from_le_bytes(*rest[2..].first_chunk::<8>().expect("the flag promises an expiry")))
    };
    (stamp, flags, expire_at)
}

/// Key and text of a packed entry.
fn packed_body(bytes: &[u8]) -> (&[u8], &[u8]) {
    let start = if bytes[12] & FLAG_EXPIRES == 0 { HEAD_BYTES } else { HEAD_BYTES + 8 };
    bytes[start..].split_at(usize::from(bytes[13]))
}

/// Overwrites `text` from `offset` on, padding with zero bytes as needed.
fn splice(text: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if text.len() < offset {
        text.resize(offset, 0);
    }
    let overlap = text.len().min(end) - offset;
    text[offset..offset + overlap].copy_from_slice(&bytes[..overlap]);
    text.extend_from_slice(&bytes[overlap..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { index: 7, position: 3 };

    fn entry(key: &[u8], expire_at: Option<u64>, content: Content<'_>) -> Entry {
        Entry::new(View { key, stamp: STAMP, expire_at, content })
    }

    #[test]
    fn entry_is_two_words() {
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn view_gives_back_what_was_put_in() {
        let long = [b'x'; 2000];
        for key in [&b""[..], b"k", &long[..255], &long[..256], &long] {
            for expire_at in [None, Some(0), Some(u64::MAX)] {
                for text in
                    [Content::Integer(-5), Content::Plain(b""), Content::Raw(b"abc"), Content::Raw(&long)]
                {
                    let entry = entry(key, expire_at, text);
                    let view = entry.view();
                    assert_eq!((view.key, view.expire_at, view.content), (key, expire_at, text));
                    assert_eq!((view.stamp, entry.key(), entry.expire_at()), (STAMP, key, expire_at));
                }
            }
        }
    }

    #[test]
    fn changes_in_place_equal_a_new_entry() {
        let long = [b'x'; 2000];
        let texts =
            [Content::Integer(12), Content::Plain(b"abcdefgh"), Content::Raw(b"abc"), Content::Plain(&long)];
        for first in texts {
            for second in texts {
                for (old, new) in [(None, None), (None, Some(5)), (Some(5), None), (Some(5), Some(6))] {
                    let mut changed = entry(b"key", old, first);
                    let stamp = Stamp { index: 8, position: 0 };
                    changed.set(stamp, new, second);
                    let fresh = Entry::new(View { key: b"key", stamp, expire_at: new, content: second });
                    assert_eq!(changed.digest(), fresh.digest());
                    assert_eq!(changed.view().content, second);
                    assert_eq!(changed.view().expire_at, new);
                }
            }
        }
    }

    #[test]
    fn write_at_pads_overwrites_and_grows() {
        for length in [0_usize, 3, 1000, 1024, 1025, 9000] {
            for (offset, bytes) in
                [(0, &b""[..]), (0, b"abc"), (2, b"abcd"), (1020, b"abcdefgh"), (20_000, b"z")]
            {
                let start: Vec<u8> = (0..length).map(|n| n as u8).collect();
                let mut changed = entry(b"key", None, Content::Plain(&start));
                changed.write_at(STAMP, offset, bytes);
                let mut expected = start.clone();
                expected.resize(expected.len().max(offset + bytes.len()).max(offset), 0);
                expected[offset..offset + bytes.len()].copy_from_slice(bytes);
                assert_eq!(changed.view().content, Content::Raw(&expected), "{length} at {offset}");
                assert_eq!(changed.digest(), entry(b"key", None, Content::Raw(&expected)).digest());
            }
        }
    }

    #[test]
    fn digest_covers_every_field() {
        let base = entry(b"key", None, Content::Plain(b"12")).digest();
        assert_ne!(base, entry(b"kez", None, Content::Plain(b"12")).digest());
        assert_ne!(base, entry(b"key", Some(u64::MAX), Content::Plain(b"12")).digest());
        assert_ne!(base, entry(b"key", None, Content::Raw(b"12")).digest());
        assert_ne!(base, entry(b"key", None, Content::Integer(12)).digest());
        assert_ne!(base, entry(b"key", None, Content::Plain(b"13")).digest());
        let mut later = entry(b"key", None, Content::Plain(b"12"));
        later.set(Stamp { index: 7, position: 4 }, None, Content::Plain(b"12"));
        assert_ne!(base, later.digest());
    }
}
