//! The names of things in a cluster, each a type of its own, so that two numbers of different meaning cannot be mixed.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use tholos_ring::hash64;

/// A node of the cluster. Written `n1`; numbers count from 1 and are never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "n{}", self.0)
    }
}

/// A cluster, drawn at random at its genesis. Written as 40 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 20]);

impl ClusterId {
    /// The id written as 40 hex digits, or nothing if the text is not that.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<ClusterId> {
        let mut id = [0; 20];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != id.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in id.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
        }
        Some(ClusterId(id))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// A node's data directory, drawn at random when it is made: a wiped node is a new voter (R21). Written as 16 hex
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// The version of a cluster map, from 1 at genesis. Written `e7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A feature level: what the nodes of a cluster may say to each other and write. It is decided apart from the versions of their
/// programs, and rises only when every node's program knows it; until then each may be put back to the release before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u16);

impl Level {
    /// What every release knows.
    pub const FIRST: Level = Level(1);
    /// The highest that this release knows. Whoever raises it makes what is new hang on [`MetaState::level`](crate::MetaState::level),
    /// formats included.
    pub const KNOWN: Level = Level(1);
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "e{}", self.0)
    }
}

/// The 40 hex digits that `CLUSTER MYID` answers: the same for a name for as long as its cluster lives, whatever
/// address or incarnation the node has.
///
/// They are the first 160 bits of XXH64(cluster id ‖ name) under the seeds 0, 1 and 2, each result written with its
/// highest byte first. Frozen: client libraries key their tables by it.
#[must_use]
pub fn node_hash_id(cluster: &ClusterId, name: &str) -> String {
    let mut bytes = Vec::with_capacity(cluster.0.len() + name.len());
    bytes.extend_from_slice(&cluster.0);
    bytes.extend_from_slice(name.as_bytes());
    let mut id = [0; 20];
    for (seed, part) in (0..).zip(id.chunks_mut(8)) {
        part.copy_from_slice(&hash64(&bytes, seed).to_be_bytes()[..part.len()]);
    }
    alloc::format!("{}", ClusterId(id))
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::format;

    use super::*;

    #[test]
    fn ids_read_as_everywhere_else() {
        assert_eq!(format!("{} {}", NodeId(2), Epoch(7)), "n2 e7");
        assert_eq!(format!("{}", Incarnation(0x1f)), "000000000000001f");
        let id = ClusterId(core::array::from_fn(|at| at as u8));
        assert_eq!(format!("{id}"), "000102030405060708090a0b0c0d0e0f10111213");
        assert_eq!(ClusterId::from_hex(&format!("{id}")), Some(id));
    }

    #[test]
    fn only_forty_hex_digits_are_a_cluster_id() {
        let digits = "000102030405060708090a0b0c0d0e0f10111213";
        for text in [
            "",
            "00",
            &digits[..39],
            &format!("{digits}0"),
            &digits.replace('f', "g"),
            &digits.replace("13", "+3"),
        ] {
            assert_eq!(ClusterId::from_hex(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_node_is_known_by_cluster_and_name() {
        let cluster = ClusterId([7; 20]);
        // Frozen: a change of these digits changes what clients know of running clusters.
        assert_eq!(node_hash_id(&cluster, "n1"), "c1f5d8afc37324701ef6a719a2981db20c1ffba9");
        let ids: BTreeSet<String> = (0..1000).map(|at| node_hash_id(&cluster, &format!("n{at}"))).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 40 && id.bytes().all(|digit| digit.is_ascii_hexdigit())));
        assert_ne!(node_hash_id(&ClusterId([8; 20]), "n1"), node_hash_id(&cluster, "n1"));
    }
}
