//! The hash ring: who owns a point of the circle, and who comes after.
//!
//! Lookups are by a *bucket index*: the highest bits of a hash say where in the sorted points to begin, and on average
//! less than one point must be passed from there. A binary search over 128,000 points takes 17 steps, each of which
//! the processor guesses wrong half of the time.
//!
//! ```text
//!   hash   0110 1011…          starts      tokens     owners
//!          |  |                0101 -> 7   7  0101…   n2
//!          +--+-- bucket 0110  0110 -> 8   8  0110 0  n1   < hash
//!                              0111 -> 10  9  0110 11 n3   >= hash: n3
//! ```
//!
//! A ring is larger than the nearest cache, so what counts is how few bytes a lookup may touch. It compares only the
//! upper halves of tokens, and asks the whole ones once in a hundred thousand lookups, when two halves are equal.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::hash::hash64;

/// Points on the ring for each unit of a node's weight. With V points the shares of equal nodes differ by about
/// 1/√V: 9 % here.
pub const POINTS_PER_WEIGHT: u32 = 128;

/// Points compared at once behind the start of a bucket, which holds one to two of them on average.
const WINDOW: usize = 8;

/// A node as the ring and the placement see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// What is hashed; distinct among the nodes. A node keeps its place on the ring for as long as it keeps its name.
    pub name: &'a str,
    /// Nodes of one zone may fail together. Empty for a node that is a zone of its own.
    pub zone: &'a str,
    /// Points on the ring, in units of [`POINTS_PER_WEIGHT`]. A node of weight 0 owns nothing.
    pub weight: u16,
}

/// A node, by its position in the list the ring or the placement was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u16);

/// A ring of nodes. Depends on their names and weights alone, not on their order.
#[derive(Clone)]
pub struct Ring {
    /// The points, ascending.
    tokens: Vec<u64>,
    /// Their upper halves; behind them [`WINDOW`] of `u32::MAX`, so that a window never ends early.
    heads: Vec<u32>,
    /// The owner of each point; one more stands behind the last, because the circle closes there.
    owners: Vec<NodeIndex>,
    /// For each bucket its first point, or the one after if it has none.
    starts: Vec<u32>,
    /// Shifts the upper half of a hash down to its bucket.
    shift: u32,
    node_count: usize,
}

impl Ring {
    /// A ring of these nodes.
    ///
    /// # Panics
    ///
    /// With more than 65,536 nodes or 2³¹ points.
    #[must_use]
    pub fn new(nodes: &[Node<'_>]) -> Ring {
        let points: u64 =
            nodes.iter().map(|node| u64::from(node.weight) * u64::from(POINTS_PER_WEIGHT)).sum();
        assert!(points < 1 << 31 && nodes.len() <= 1 << 16, "{points} points of {} nodes", nodes.len());

        let mut ring: Vec<(u64, NodeIndex)> = Vec::with_capacity(points as usize);
        for (node, index) in nodes.iter().zip(0..) {
            let seeds = 0..u64::from(node.weight) * u64::from(POINTS_PER_WEIGHT);
            ring.extend(seeds.map(|seed| (hash64(node.name.as_bytes(), seed), NodeIndex(index))));
        }
        // Two nodes may own one point, once in 10⁹ rings of this size; the name decides, as the order in which nodes
        // were listed must not.
        let name = |index: NodeIndex| nodes[usize::from(index.0)].name;
        ring.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1))));

        let tokens: Vec<u64> = ring.iter().map(|(token, _)| *token).collect();
        let mut heads: Vec<u32> = tokens.iter().map(|token| head(*token)).collect();
        let bits = (points / 2 + 1).max(2).next_power_of_two().trailing_zeros();
        let shift = u32::BITS - bits;
        let starts = (0..1 << bits)
            .map(|bucket| heads.partition_point(|head| head >> shift < bucket) as u32)
            .collect();
        heads.extend([u32::MAX; WINDOW]);
        let mut owners: Vec<NodeIndex> = ring.iter().map(|(_, owner)| *owner).collect();
        owners.extend(owners.first().copied());
        Ring { tokens, heads, owners, starts, shift, node_count: nodes.len() }
    }

    /// The node that owns a hash: that of the first point at or clockwise after it. None on an empty ring.
    #[must_use]
    #[inline]
    pub fn get(&self, hash: u64) -> Option<NodeIndex> {
        self.owners.get(self.point_at(hash)).copied()
    }

    /// The nodes met clockwise from a token, each once; the first is that of [`Ring::get`].
    #[must_use]
    pub fn successors(&self, token: u64) -> Successors<'_> {
        let point_count = self.point_count();
        let at = self.point_at(token);
        Successors {
            ring: self,
            at: if at < point_count { at } else { 0 },
            points_left: point_count,
            nodes_left: self.node_count,
            met: vec![0; self.node_count.div_ceil(64)],
        }
    }

    /// Points on the ring, of all nodes.
    #[must_use]
    pub fn point_count(&self) -> usize {
        self.tokens.len()
    }

    /// Every point and its owner, clockwise from 0.
    pub fn points(&self) -> impl Iterator<Item = (u64, NodeIndex)> + '_ {
        self.tokens.iter().copied().zip(self.owners.iter().copied())
    }

    /// Number of the first point at or after `hash`; the number of points if there is none.
    #[inline]
    fn point_at(&self, hash: u64) -> usize {
        let head = head(hash);
        let start = self.starts[(head >> self.shift) as usize] as usize;
        // Counted without branches: where in its bucket a hash falls is a coin toss that no predictor learns.
        let window = &self.heads[start..start + WINDOW];
        let passed: usize = window.iter().map(|other| usize::from(*other < head)).sum();
        let mut at = start + passed;
        if passed == WINDOW || window[passed] == head {
            while self.tokens.get(at).is_some_and(|token| *token < hash) {
                at += 1;
            }
        }
        at
    }
}

/// The upper half of a hash or token.
const fn head(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl fmt::Debug for Ring {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Ring({} nodes, {} points)", self.node_count, self.point_count())
    }
}

/// Distinct nodes clockwise from a token. Made by [`Ring::successors`].
#[derive(Clone, Debug)]
pub struct Successors<'a> {
    ring: &'a Ring,
    /// The next point to look at.
    at: usize,
    points_left: usize,
    nodes_left: usize,
    /// One bit for each node already given.
    met: Vec<u64>,
}

impl Iterator for Successors<'_> {
    type Item = NodeIndex;

    fn next(&mut self) -> Option<NodeIndex> {
        while self.points_left > 0 && self.nodes_left > 0 {
            let owner = self.ring.owners[self.at];
            self.points_left -= 1;
            self.at += 1;
            if self.at == self.ring.point_count() {
                self.at = 0;
            }
            let (word, bit) = (usize::from(owner.0) / 64, 1 << (owner.0 % 64));
            if self.met[word] & bit == 0 {
                self.met[word] |= bit;
                self.nodes_left -= 1;
                return Some(owner);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("n{number}")).collect()
    }

    fn ring_of(names: &[String], weight: u16) -> Ring {
        let nodes: Vec<Node<'_>> = names.iter().map(|name| Node { name, zone: "", weight }).collect();
        Ring::new(&nodes)
    }

    /// The dumb second version: look at every point.
    fn get_slow(ring: &Ring, hash: u64) -> Option<NodeIndex> {
        let at_or_after = ring.points().find(|(token, _)| *token >= hash);
        at_or_after.or_else(|| ring.points().next()).map(|(_, owner)| owner)
    }

    #[test]
    fn an_empty_ring_has_no_owner() {
        for ring in [Ring::new(&[]), Ring::new(&[Node { name: "n1", zone: "", weight: 0 }])] {
            assert_eq!(ring.get(7), None);
            assert_eq!(ring.successors(7).next(), None);
        }
    }

    #[test]
    fn lookup_agrees_with_a_look_at_every_point() {
        for count in [1, 2, 3, 10, 40] {
            let ring = ring_of(&names(count), 1);
            let mut hashes = vec![0, 1, u64::MAX, u64::MAX - 1, 1 << 63];
            hashes.extend((0..500).map(|at| hash64(b"probe", at)));
            for (token, _) in ring.points().step_by(7) {
                hashes.extend([token.wrapping_sub(1), token, token.wrapping_add(1)]);
            }
            for hash in hashes {
                assert_eq!(ring.get(hash), get_slow(&ring, hash), "{count} nodes, hash {hash:#x}");
                assert_eq!(ring.successors(hash).next(), ring.get(hash));
            }
        }
    }

    #[test]
    fn crowded_buckets_are_walked_to_their_end() {
        // No test finds names whose points crowd so, and differ in their lower halves alone: build the ring by hand.
        let crowd = 0x7fff_ffff_0000_0000..0x7fff_ffff_0000_0010_u64;
        let tokens: Vec<u64> = (3 << 32..10 << 32).step_by(1 << 31).chain(crowd).collect();
        let count = tokens.len();
        let ring = Ring {
            heads: tokens.iter().map(|token| head(*token)).chain([u32::MAX; WINDOW]).collect(),
            owners: (0..count as u16).chain([0]).map(NodeIndex).collect(),
            starts: vec![0, count as u32],
            shift: 31,
            node_count: count,
            tokens,
        };
        let mut hashes: Vec<u64> =
            ring.points().flat_map(|(token, _)| [token - 1, token, token + 1]).collect();
        hashes.extend([0, 1 << 33, 1 << 63, u64::MAX]);
        for hash in hashes {
            assert_eq!(ring.get(hash), get_slow(&ring, hash), "{hash}");
        }
    }

    #[test]
    fn successors_are_all_nodes_once() {
        let ring = ring_of(&names(70), 1);
        for seed in 0..20 {
            let token = hash64(b"token", seed);
            let mut met: Vec<NodeIndex> = ring.successors(token).collect();
            assert_eq!(met.len(), 70);
            met.sort_unstable();
            met.dedup();
            assert_eq!(met.len(), 70);
        }
    }

    #[test]
    fn places_are_frozen() {
        // These keys lived here in the first release, and must in every later one.
        let ring = ring_of(&names(5), 1);
        let owners: Vec<u16> = (0..16)
            .filter_map(|at| ring.get(hash64(format!("key:{at}").as_bytes(), 0)))
            .map(|index| index.0)
            .collect();
        assert_eq!(owners, [4, 4, 4, 2, 2, 3, 0, 0, 0, 2, 0, 3, 4, 2, 4, 2]);
    }
}
