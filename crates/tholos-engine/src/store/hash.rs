//! The two hashes of the keyspace, both written out here so that every release and processor computes the same.
//!
//! - [`place_hash`]: where a key stands in its slot. Keyed by the shard's secret seed, so that a client cannot
//!   choose keys that stand together, and the order of SCAN and of eviction. SipHash-1-3 (Aumasson and Bernstein,
//!   *SipHash: a fast short-input PRF*, 2012).
//! - [`Digest`]: compares the states of two replicas (R24). Guards against faults, not against an enemy, and is
//!   therefore the fast kind: each 16 bytes are one widening multiplication.
//!
//! A general-purpose hasher would be shorter, but those reserve the right to change their function between
//! versions, and then replicas of mixed versions would evict in different orders and their digests would differ.

/// Bytes of a text that are hashed together. A write inside a long text costs the hash of the chunks it touches.
const CHUNK_BYTES: usize = 4096;

/// The place of `key` within its slot, a keyed hash (SipHash-1-3 with the key expanded from `seed`).
pub(crate) fn place_hash(seed: u64, key: &[u8]) -> u64 {
    let mut sip = Sip::new(seed, mix(seed, 0x9E37_79B9_7F4A_7C15));
    let (words, tail) = key.as_chunks::<8>();
    for word in words {
        sip.absorb(u64::from_le_bytes(*word));
    }
    // A copy of so few bytes costs more than a look at the last eight.
    let last = match key.last_chunk::<8>() {
        Some(_) if tail.is_empty() => 0,
        Some(chunk) => u64::from_le_bytes(*chunk) >> (u64::BITS as usize - 8 * tail.len()),
        None => little_endian(tail) as u64,
    };
    sip.absorb(last | (key.len() as u64) << 56);
    sip.finish()
}

/// The four lanes of SipHash, with one round for each word and three at the end.
struct Sip {
    lanes: [u64; 4],
}

impl Sip {
    fn new(k0: u64, k1: u64) -> Sip {
        // The constants are the ASCII of "somepseudorandomlygeneratedbytes", as the paper gives them.
        let lanes = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Sip { lanes }
    }

    fn absorb(&mut self, word: u64) {
        self.lanes[3] ^= word;
        self.round();
        self.lanes[0] ^= word;
    }

    fn finish(mut self) -> u64 {
        self.lanes[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.lanes[0] ^ self.lanes[1] ^ self.lanes[2] ^ self.lanes[3]
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.lanes;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.lanes = [a, b, c, d];
    }
}

/// Mixes two words into one: the two halves of their product, folded.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xA076_1D64_78BD_642F) * u128::from(b ^ 0xE703_7ED1_A0B4_28DB);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A running hash of the parts of one element.
pub(crate) struct Digest(u64);

impl Digest {
    /// Starts with what tells kinds of elements apart.
    pub(crate) fn new(tag: u64) -> Digest {
        Digest(mix(tag, 0x8EBC_6AF0_9C88_C6E3))
    }

    /// Adds a number.
    pub(crate) fn word(mut self, word: u64) -> Digest {
        self.0 = mix(self.0, word).wrapping_add(word);
        self
    }

    /// Adds bytes and their length, so that no two lists of parts look alike.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Digest {
        let seed = self.0;
        self.word(hash_bytes(seed, bytes))
    }

    /// The hash of all parts.
    pub(crate) fn finish(self) -> u64 {
        mix(self.0, self.0 >> 32)
    }
}

/// Hashes bytes 16 at a time; the length is part of the hash.
fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed, bytes.len() as u64);
    let (pairs, tail) = bytes.as_chunks::<16>();
    for pair in pairs {
        let both = u128::from_le_bytes(*pair);
        state = mix(state ^ both as u64, (both >> 64) as u64 ^ state.rotate_left(29));
    }
    let both = match bytes.last_chunk::<16>() {
        Some(_) if tail.is_empty() => 0,
        Some(chunk) => u128::from_le_bytes(*chunk) >> (u128::BITS as usize - 8 * tail.len()),
        None => little_endian(tail),
    };
    mix(state ^ both as u64, (both >> 64) as u64 ^ state.rotate_left(29))
}

/// Fewer than 16 bytes as a number.
fn little_endian(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

/// The hash of a text: the sum over its chunks, so that [`text_digest_part`] can renew a part of it.
pub(crate) fn text_digest(text: &[u8]) -> u64 {
    text_digest_part(text, 0)
}

/// The sum over the chunks of `text` from the one that holds byte `from` on.
///
/// For a change that leaves the bytes before `from` as they were:
/// `new = old - text_digest_part(before, from) + text_digest_part(after, from)`.
pub(crate) fn text_digest_part(text: &[u8], from: usize) -> u64 {
    let first = from / CHUNK_BYTES;
    let rest = text.get(first * CHUNK_BYTES..).unwrap_or_default();
    rest.chunks(CHUNK_BYTES)
        .zip(first as u64..)
        .fold(0, |sum, (chunk, number)| sum.wrapping_add(hash_bytes(mix(number, 1), chunk)))
}

#[cfg(test)]
mod tests {
    use std::prelude::rust_2024::*;

    use super::*;

    /// SipHash-1-3 of `bytes` under an explicit 128-bit key, through the same lanes.
    fn sip13(k0: u64, k1: u64, bytes: &[u8]) -> u64 {
        let mut sip = Sip::new(k0, k1);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            sip.absorb(u64::from_le_bytes(*word));
        }
        let mut last = [0_u8; 8];
        last[..tail.len()].copy_from_slice(tail);
        sip.absorb(u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
        sip.finish()
    }

    #[test]
    fn lanes_are_those_of_siphash_1_3() {
        // std's hasher is SipHash-1-3 with a zero key; `write` adds no length prefix.
        use std::hash::Hasher;
        for length in 0..70_usize {
            let bytes: Vec<u8> = (0..length).map(|byte| (byte * 7) as u8).collect();
            #[allow(deprecated)]
            let mut theirs = std::hash::DefaultHasher::new();
            theirs.write(&bytes);
            assert_eq!(sip13(0, 0, &bytes), theirs.finish(), "{length} bytes");
        }
    }

    #[test]
    fn place_depends_on_seed_and_is_fixed_for_ever() {
        assert_ne!(place_hash(1, b"user:7"), place_hash(2, b"user:7"));
        assert_ne!(place_hash(1, b""), place_hash(1, b"\0"));
        // SCAN cursors and snapshots in the field rest on these numbers.
        assert_eq!(place_hash(1, b"user:7"), 14_140_690_350_871_850_140);
    }

    #[test]
    fn tails_are_filled_up_with_zero_bytes() {
        let bytes: Vec<u8> = (1..=70).collect();
        for length in 0..=bytes.len() {
            let bytes = &bytes[..length];
            let seed = 9;
            assert_eq!(place_hash(seed, bytes), sip13(seed, mix(seed, 0x9E37_79B9_7F4A_7C15), bytes));
            let mut state = mix(seed, length as u64);
            let whole = bytes.chunks_exact(16);
            let tail = whole.remainder().to_vec();
            for chunk in whole.map(<[u8]>::to_vec).chain([tail]) {
                let half = |at: usize| {
                    let byte = |n: usize| u64::from(chunk.get(at + n).copied().unwrap_or(0)) << (8 * n);
                    (0..8).map(byte).sum::<u64>()
                };
                state = mix(state ^ half(0), half(8) ^ state.rotate_left(29));
            }
            assert_eq!(hash_bytes(seed, bytes), state, "{length} bytes");
        }
    }

    #[test]
    fn digest_tells_parts_apart() {
        let split = |a: &[u8], b: &[u8]| Digest::new(1).bytes(a).bytes(b).finish();
        assert_ne!(split(b"ab", b"c"), split(b"a", b"bc"));
        assert_ne!(split(b"", b"\0"), split(b"\0", b""));
        assert_eq!(split(b"ab", b"c"), split(b"ab", b"c"));
    }

    #[test]
    fn text_digest_is_renewed_by_parts() {
        let mut text: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        let whole = text_digest(&text);
        for from in [0, 1, 4095, 4096, 4097, 12_288, 19_999] {
            let before = text_digest_part(&text, from);
            let mut changed = text.clone();
            changed[from] ^= 1;
            changed.extend_from_slice(b"more");
            let renewed = whole.wrapping_sub(before).wrapping_add(text_digest_part(&changed, from));
            assert_eq!(renewed, text_digest(&changed), "from {from}");
            assert_ne!(renewed, whole);
        }
        text.clear();
        assert_eq!(text_digest(&text), 0);
    }
}
