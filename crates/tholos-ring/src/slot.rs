//! Key → slot → shard.
//!
//! A slot is Redis Cluster's: `CRC16(tag(key)) mod 16384`, counted from 0. A shard is a fixed range of slots, so that
//! both steps are arithmetic and need no table of the cluster.

use core::fmt;
use core::ops::Range;

/// Hash slots of a cluster; Redis Cluster's number, which clients know.
pub const SLOT_COUNT: u16 = 16384;

/// One of the [`SLOT_COUNT`] hash slots, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot with this number, if there is one.
    #[must_use]
    pub const fn new(number: u16) -> Option<Slot> {
        if number < SLOT_COUNT { Some(Slot(number)) } else { None }
    }

    /// Its number, below [`SLOT_COUNT`].
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A fixed range of slots, served by one Paxos group. Written `s12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "s{}", self.0)
    }
}

/// The slot of a key: of its tag if it has one, else of all its bytes.
#[must_use]
#[inline]
pub fn slot(key: &[u8]) -> Slot {
    Slot(crc16(tag(key)) % SLOT_COUNT)
}

/// The part of a key that is hashed: what stands between its first `{` and the first `}` after it, unless that is
/// empty. Keys with one tag share a slot, so that one command may take them all. (Redis Cluster specification, *hash
/// tags*.)
#[must_use]
#[inline]
pub fn tag(key: &[u8]) -> &[u8] {
    if !contains(key, b'{') {
        return key;
    }
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// The shard that holds a slot when the slots are cut into `shard_count` equal ranges.
///
/// # Panics
///
/// If `shard_count` is not within 1..=[`SLOT_COUNT`].
#[must_use]
pub const fn shard_of(slot: Slot, shard_count: u16) -> ShardId {
    assert!(shard_count >= 1 && shard_count <= SLOT_COUNT);
    ShardId((slot.0 as u32 * shard_count as u32 / SLOT_COUNT as u32) as u16)
}

/// The slots of a shard, as numbers: the inverse of [`shard_of`].
///
/// # Panics
///
/// If `shard_count` is not within 1..=[`SLOT_COUNT`], or there is no such shard.
#[must_use]
pub const fn slots_of(shard: ShardId, shard_count: u16) -> Range<u16> {
    assert!(shard_count >= 1 && shard_count <= SLOT_COUNT && shard.0 < shard_count);
    first_slot(shard.0, shard_count)..first_slot(shard.0 + 1, shard_count)
}

/// The lowest slot with `slot * shard_count / SLOT_COUNT >= shard`.
const fn first_slot(shard: u16, shard_count: u16) -> u16 {
    (shard as u32 * SLOT_COUNT as u32).div_ceil(shard_count as u32) as u16
}

/// The generator of CRC16/XMODEM, x¹⁶ + x¹² + x⁵ + 1 without its first term.
const POLYNOMIAL: u16 = 0x1021;
/// Bytes folded at once; each costs a table of 512 bytes, and all of them should stay in the first-level cache.
const LANES: usize = 16;

/// `TABLES[k][b]` is the remainder of byte `b` followed by `k` zero bytes.
///
/// The checksum starts from 0 and is linear, so that of a short key is the exclusive or of one lookup for each byte,
/// none of which waits for another. A byte-wise loop waits for each lookup before it can begin the next.
static TABLES: [[u16; 256]; LANES] = tables();

const fn tables() -> [[u16; 256]; LANES] {
    let mut tables = [[0; 256]; LANES];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = (byte as u16) << 8;
        let mut lane = 0;
        while lane < LANES {
            let mut bit = 0;
            while bit < 8 {
                let carry = remainder & 0x8000 != 0;
                remainder <<= 1;
                if carry {
                    remainder ^= POLYNOMIAL;
                }
                bit += 1;
            }
            tables[lane][byte] = remainder;
            lane += 1;
        }
        byte += 1;
    }
    tables
}

/// CRC16/XMODEM: polynomial 0x1021, start 0, nothing reflected, no final exclusive or.
#[must_use]
#[inline]
pub fn crc16(bytes: &[u8]) -> u16 {
    let (head, chunks) = bytes.as_rchunks::<LANES>();
    // The odd bytes go first, while there is no remainder to fold into them.
    let mut crc = 0;
    for (byte, table) in head.iter().rev().zip(&TABLES) {
        crc ^= table[usize::from(*byte)];
    }
    for chunk in chunks {
        let mut chunk = *chunk;
        let [high, low] = crc.to_be_bytes();
        chunk[0] ^= high;
        chunk[1] ^= low;
        crc = 0;
        for (byte, table) in chunk.iter().rev().zip(&TABLES) {
            crc ^= table[usize::from(*byte)];
        }
    }
    crc
}

/// Whether `byte` is among `bytes`, eight at a time.
fn contains(bytes: &[u8], byte: u8) -> bool {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let pattern = LOW * u64::from(byte);
    // The classic test for a zero byte; it may also flag the byte above a zero byte, which does not matter here.
    let zero = |word: u64| word.wrapping_sub(LOW) & !word & HIGH;
    let (words, tail) = bytes.as_chunks::<8>();
    let mut found = 0;
    for word in words {
        found |= zero(u64::from_le_bytes(*word) ^ pattern);
    }
    found != 0 || tail.contains(&byte)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// The textbook's bit by bit.
    fn crc16_slow(bytes: &[u8]) -> u16 {
        let mut crc = 0_u16;
        for byte in bytes {
            crc ^= u16::from(*byte) << 8;
            for _ in 0..8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ POLYNOMIAL };
            }
        }
        crc
    }

    #[test]
    fn crc_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn crc_of_every_length_is_the_slow_one() {
        let bytes: Vec<u8> = (0..200_u32).map(|at| (at * 167 + 13) as u8).collect();
        for start in 0..8 {
            for end in start..bytes.len() {
                assert_eq!(crc16(&bytes[start..end]), crc16_slow(&bytes[start..end]), "{start}..{end}");
            }
        }
    }

    #[test]
    fn slots_as_redis_answers_cluster_keyslot() {
        // CLUSTER KEYSLOT of redis-server 7.0.
        for (key, expected) in [
            ("", 0),
            ("foo", 12182),
            ("bar", 5061),
            ("user:1", 10778),
            ("{user1000}.following", 3443),
            ("{user1000}.followers", 3443),
            ("user1000", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
            ("{", 4092),
        ] {
            assert_eq!(slot(key.as_bytes()).number(), expected, "{key:?}");
        }
    }

    #[test]
    fn tags_as_the_specification_says() {
        for (key, expected) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("plain key without", "plain key without"),
            ("open{only at the end", "open{only at the end"),
            ("}close{before}", "before"),
            ("0123456789abcdef{t}", "t"),
            ("01234567{t}89abcdef", "t"),
        ] {
            assert_eq!(tag(key.as_bytes()), expected.as_bytes(), "{key:?}");
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        for length in 0..40 {
            let mut bytes: Vec<u8> = (0..length).map(|at| b'z' - (at % 3)).collect();
            assert!(!contains(&bytes, b'{'), "{length}");
            for at in 0..bytes.len() {
                let old = core::mem::replace(&mut bytes[at], b'{');
                assert!(contains(&bytes, b'{'), "{at} of {length}");
                bytes[at] = old;
            }
        }
    }

    #[test]
    fn shards_cut_the_slots_evenly() {
        for shard_count in [1, 2, 3, 64, 100, 1024, 16384] {
            let mut next = 0;
            for shard in 0..shard_count {
                let slots = slots_of(ShardId(shard), shard_count);
                assert_eq!(slots.start, next);
                let size = usize::from(SLOT_COUNT / shard_count);
                assert!(slots.len() == size || slots.len() == size + 1);
                for number in slots.clone() {
                    assert_eq!(shard_of(Slot(number), shard_count), ShardId(shard));
                }
                next = slots.end;
            }
            assert_eq!(next, SLOT_COUNT);
        }
    }
}
