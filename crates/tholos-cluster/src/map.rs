//! The cluster map: nodes, shards, and which nodes hold which shard.
//!
//! Invariants, checked whenever a map is made or read:
//! - M1: node ids are distinct and at least 1; names are distinct and well formed.
//! - M2: there is one replica set for each shard; its nodes are distinct and in the map.
//! - M3: every string and number is within its bound, so a map can always be written and read again.
//!
//! # Bytes, version 1
//!
//! Numbers are little-endian; a string is its length in 2 bytes, then UTF-8.
//!
//! ```text
//!   version 1 | cluster id 20 | epoch 8 | shards 2 | replicas 1 | nodes 2
//!   each node:  id 2 | incarnation 8 | weight 2 | name | zone
//!               | gateway | cluster | peer | http
//!   each shard: count 1 | node id 2 each
//! ```
//!
//! Nothing follows the last shard. There is no checksum: who carries the bytes has one.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use tholos_ring::{SLOT_COUNT, ShardId, shard_of, slot};

use crate::bytes::{Reader, push_string};
use crate::id::{ClusterId, Epoch, Incarnation, NodeId};

/// Bytes in the name of a node or zone, at most.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes in an address, at most: the longest DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 260;
/// Largest weight of a node. Each unit is 128 points on the ring, and a map may hold a thousand nodes.
pub const WEIGHT_MAX: u16 = 100;
/// Replicas of a shard, at most. Useful are 1, 3 and 5 (R8).
pub const REPLICAS_MAX: u8 = 7;

/// The version of the bytes written today.
const VERSION: u8 = 1;

/// One node as every other node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its number in this cluster.
    pub id: NodeId,
    /// What the ring hashes and people type: 1 to [`NAME_BYTES_MAX`] of letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Nodes of one zone may fail together; empty for a node that is a zone of its own. Spelled like a name.
    pub zone: String,
    /// Share of replicas it is to hold, relative to the others: 1 to [`WEIGHT_MAX`].
    pub weight: u16,
    /// Its data directory.
    pub incarnation: Incarnation,
    /// Where clients of the gateway reach it, `host:port`; empty if nowhere. So for the next three.
    pub gateway: String,
    /// Where clients that speak Redis Cluster reach it.
    pub cluster: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// Where its admin HTTP is.
    pub http: String,
}

/// The map of a cluster at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap {
    /// Whose map it is.
    pub cluster_id: ClusterId,
    /// Its version.
    pub epoch: Epoch,
    /// Shards the slots are cut into: a power of two, fixed at genesis.
    pub shard_count: u16,
    /// Replicas each shard is meant to have.
    pub replicas: u8,
    /// The nodes, by ascending id.
    pub nodes: Vec<NodeRow>,
    /// For each shard its replica set, in the order the ring was walked; the first is the preferred leader.
    pub shards: Vec<Vec<NodeId>>,
}

/// Why bytes or parts are no map.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// The bytes end early.
    Truncated,
    /// Bytes follow the map.
    TrailingBytes,
    /// Written by a release that is newer than this one.
    UnknownVersion {
        /// The version of the bytes.
        written: u8,
        /// The newest version that this release reads.
        reads: u8,
    },
    /// An answer of a kind that this release does not know.
    UnknownKind(u8),
    /// A string is not UTF-8.
    NotText,
    /// A name or zone is empty, too long, or has a character that names do not have.
    BadName(String),
    /// An address is longer than [`ADDRESS_BYTES_MAX`].
    BadAddress(String),
    /// A weight is not within 1..=[`WEIGHT_MAX`].
    BadWeight(String),
    /// A node has number 0, or the ids do not ascend.
    BadNodeId(NodeId),
    /// Two nodes have this name.
    DuplicateName(String),
    /// The number of shards is not a power of two within 1..=16384.
    BadShardCount(u16),
    /// The number of replicas is not within 1..=[`REPLICAS_MAX`].
    BadReplicas(u8),
    /// What stands beside the map does not fit it or itself.
    BadMeta(&'static str),
    /// This shard's replica set is empty, too large, names a node twice, or one that is not in the map; or the shard
    /// itself is missing.
    BadReplicaSet(ShardId),
}

impl fmt::Display for MapError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::Truncated => out.write_str("the bytes end early"),
            MapError::TrailingBytes => out.write_str("bytes follow the end"),
            MapError::UnknownVersion { written, reads } => {
                write!(out, "written in version {written}, and this release reads up to version {reads}")
            }
            MapError::UnknownKind(kind) => write!(out, "an answer of unknown kind {kind}"),
            MapError::NotText => out.write_str("a string is not UTF-8"),
            MapError::BadName(name) => write!(
                out,
                "\"{}\" is no name: it takes 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' or '-'",
                name.escape_default()
            ),
            MapError::BadAddress(name) => {
                write!(out, "an address of node {name} is longer than {ADDRESS_BYTES_MAX} bytes")
            }
            MapError::BadWeight(name) => {
                write!(out, "the weight of node {name} is not within 1 to {WEIGHT_MAX}")
            }
            MapError::BadNodeId(id) => write!(out, "node id {id} is 0 or out of order"),
            MapError::DuplicateName(name) => write!(out, "two nodes are named {name}"),
            MapError::BadShardCount(count) => {
                write!(out, "{count} shards: it takes a power of two within 1 to {SLOT_COUNT}")
            }
            MapError::BadReplicas(count) => {
                write!(out, "{count} replicas: it takes 1 to {REPLICAS_MAX}, and 3 or 5 to survive a loss")
            }
            MapError::BadMeta(what) => out.write_str(what),
            MapError::BadReplicaSet(shard) => write!(out, "the replica set of {shard} is not valid"),
        }
    }
}

impl core::error::Error for MapError {}

/// Whether `name` may name a node or a zone.
///
/// # Errors
///
/// [`MapError::BadName`] with the name.
pub fn check_name(name: &str) -> Result<(), MapError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        Ok(())
    } else {
        Err(MapError::BadName(String::from(name)))
    }
}

impl NodeRow {
    /// Checks every field but the id, which the cluster gives.
    ///
    /// # Errors
    ///
    /// The first field out of its bounds.
    pub fn check(&self) -> Result<(), MapError> {
        check_name(&self.name)?;
        if !self.zone.is_empty() {
            check_name(&self.zone)?;
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(MapError::BadWeight(self.name.clone()));
        }
        let addresses = [&self.gateway, &self.cluster, &self.peer, &self.http];
        if addresses.iter().any(|address| address.len() > ADDRESS_BYTES_MAX) {
            return Err(MapError::BadAddress(self.name.clone()));
        }
        Ok(())
    }

    /// Appends the row's bytes, as the map's format has them.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.incarnation.0.to_le_bytes());
        out.extend_from_slice(&self.weight.to_le_bytes());
        for text in [&self.name, &self.zone, &self.gateway, &self.cluster, &self.peer, &self.http] {
            push_string(text, out);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<NodeRow, MapError> {
        Ok(NodeRow {
            id: NodeId(reader.u16()?),
            incarnation: Incarnation(reader.u64()?),
            weight: reader.u16()?,
            name: reader.string()?,
            zone: reader.string()?,
            gateway: reader.string()?,
            cluster: reader.string()?,
            peer: reader.string()?,
            http: reader.string()?,
        })
    }
}

impl ClusterMap {
    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&NodeRow> {
        self.nodes.binary_search_by_key(&id, |row| row.id).ok().map(|at| &self.nodes[at])
    }

    /// The node with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&NodeRow> {
        self.nodes.iter().find(|row| row.name == name)
    }

    /// The shard that holds a key.
    #[must_use]
    pub fn shard_of_key(&self, key: &[u8]) -> ShardId {
        shard_of(slot(key), self.shard_count)
    }

    /// The nodes that hold a shard, the preferred leader first.
    ///
    /// # Panics
    ///
    /// If the cluster has no such shard.
    #[must_use]
    pub fn replica_set(&self, shard: ShardId) -> &[NodeId] {
        &self.shards[usize::from(shard.0)]
    }

    /// The shards a node holds, ascending.
    pub fn shards_of(&self, node: NodeId) -> impl Iterator<Item = ShardId> + '_ {
        (0..)
            .map(ShardId)
            .zip(&self.shards)
            .filter(move |(_, set)| set.contains(&node))
            .map(|(shard, _)| shard)
    }

    /// Shards with more than one replica in one zone. A node without a zone is one of its own.
    pub fn crowded(&self) -> impl Iterator<Item = ShardId> + '_ {
        let zone_of =
            |node: &NodeId| self.node(*node).map(|row| row.zone.as_str()).filter(|zone| !zone.is_empty());
        let is_crowded = move |set: &[NodeId]| {
            let zones: Vec<&str> = set.iter().filter_map(zone_of).collect();
            (1..zones.len()).any(|at| zones[..at].contains(&zones[at]))
        };
        (0..).map(ShardId).zip(&self.shards).filter(move |(_, set)| is_crowded(set)).map(|(shard, _)| shard)
    }

    /// Checks the invariants M1 to M3.
    ///
    /// # Errors
    ///
    /// The first thing found to be wrong.
    pub fn check(&self) -> Result<(), MapError> {
        if !self.shard_count.is_power_of_two() || self.shard_count > SLOT_COUNT {
            return Err(MapError::BadShardCount(self.shard_count));
        }
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return Err(MapError::BadReplicas(self.replicas));
        }
        let mut last = NodeId(0);
        for row in &self.nodes {
            row.check()?;
            if row.id <= last {
                return Err(MapError::BadNodeId(row.id));
            }
            last = row.id;
        }
        let mut names: Vec<&str> = self.nodes.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(MapError::DuplicateName(String::from(pair[0])));
        }
        for shard in 0..self.shard_count.max(u16::try_from(self.shards.len()).unwrap_or(u16::MAX)) {
            let set = self.shards.get(usize::from(shard)).map_or(&[][..], Vec::as_slice);
            let distinct = (1..set.len()).all(|at| !set[..at].contains(&set[at]));
            let known = set.iter().all(|node| self.node(*node).is_some());
            let sized = (1..=usize::from(REPLICAS_MAX)).contains(&set.len());
            if shard >= self.shard_count || !distinct || !known || !sized {
                return Err(MapError::BadReplicaSet(ShardId(shard)));
            }
        }
        Ok(())
    }

    /// The map's bytes.
    ///
    /// # Panics
    ///
    /// If the map does not hold its invariants ([`ClusterMap::check`]): no such map may reach a disk or a peer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        if let Err(error) = self.check() {
            panic!("M1 to M3 before write: {error}");
        }
        let mut out = Vec::with_capacity(64 + 128 * self.nodes.len() + 8 * self.shards.len());
        out.push(VERSION);
        out.extend_from_slice(&self.cluster_id.0);
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.shard_count.to_le_bytes());
        out.push(self.replicas);
        let node_count = u16::try_from(self.nodes.len()).expect("M1: ids are distinct numbers of 16 bits");
        out.extend_from_slice(&node_count.to_le_bytes());
        for row in &self.nodes {
            row.encode(&mut out);
        }
        for set in &self.shards {
            out.push(u8::try_from(set.len()).expect("M3: a set has at most REPLICAS_MAX nodes"));
            for node in set {
                out.extend_from_slice(&node.0.to_le_bytes());
            }
        }
        out
    }

    /// Reads a map back. Any bytes may come: what is no map is an error, and allocates little.
    ///
    /// # Errors
    ///
    /// The first thing found to be wrong.
    pub fn decode(bytes: &[u8]) -> Result<ClusterMap, MapError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            written => return Err(MapError::UnknownVersion { written, reads: VERSION }),
        }
        let cluster_id = ClusterId(reader.array()?);
        let epoch = Epoch(reader.u64()?);
        let shard_count = reader.u16()?;
        let replicas = reader.u8()?;
        // Counts are claims: the lists grow with the bytes that are really there.
        let mut nodes = Vec::new();
        for _ in 0..reader.u16()? {
            nodes.push(NodeRow::decode(&mut reader)?);
        }
        let mut shards = Vec::new();
        for _ in 0..shard_count {
            let mut set = Vec::new();
            for _ in 0..reader.u8()? {
                set.push(NodeId(reader.u16()?));
            }
            shards.push(set);
        }
        if !reader.is_empty() {
            return Err(MapError::TrailingBytes);
        }
        let map = ClusterMap { cluster_id, epoch, shard_count, replicas, nodes, shards };
        map.check()?;
        Ok(map)
    }
}

#[cfg(test)]
mod tests;
