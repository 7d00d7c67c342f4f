//! What the cluster is asked for most: `GET /v1/hot`.

use serde::{Deserialize, Serialize};
use tholos_cluster::ClusterMap;
use tholos_node::{HotKey, Node};

use crate::status::Answers;

/// Keys that a node tells of, at most.
const KEYS_OF_A_NODE_MAX: usize = 20;
/// Keys and shards of the whole cluster that are shown, at most.
const SHOWN_MAX: usize = 20;

/// What a node says of a key that it is asked for often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotKeyReport {
    /// Its first 128 bytes, with what is no text replaced.
    pub key: String,
    /// Its shard.
    pub shard: u16,
    /// Reads a second, about: one request in 16 is looked at.
    pub reads_per_s: u64,
    /// Writes a second, likewise.
    pub writes_per_s: u64,
    /// Reads and writes a second that it can have had at most, but for the chance of what was looked at.
    pub most_per_s: u64,
}

impl From<&HotKey> for HotKeyReport {
    fn from(hot: &HotKey) -> HotKeyReport {
        HotKeyReport {
            key: String::from_utf8_lossy(&hot.key).into_owned(),
            shard: hot.shard.0,
            reads_per_s: hot.reads_per_second,
            writes_per_s: hot.writes_per_second,
            most_per_s: hot.most_per_second,
        }
    }
}

/// The keys that a node is asked for most.
pub(crate) fn of_node(node: &Node) -> Vec<HotKeyReport> {
    node.hot_keys().iter().take(KEYS_OF_A_NODE_MAX).map(HotKeyReport::from).collect()
}

/// What the cluster is asked for most.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Hot {
    /// Reads a second of all nodes that answered.
    pub(crate) reads_per_s: u64,
    /// Writes a second, likewise.
    pub(crate) writes_per_s: u64,
    /// The hottest keys, as each node counts them.
    pub(crate) keys: Vec<HotKeyRow>,
    /// The hottest shards, as each node counts them.
    pub(crate) shards: Vec<HotShardRow>,
    /// Nodes that did not answer.
    pub(crate) silent: Vec<String>,
}

/// A key that a node is asked for often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct HotKeyRow {
    /// The node that is asked.
    pub(crate) node: String,
    /// The key and its rates.
    #[serde(flatten)]
    pub(crate) key: HotKeyReport,
    /// Its part of all reads and writes of the cluster, from 0 to 1.
    pub(crate) share: f64,
}

/// A shard that a node is asked for often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct HotShardRow {
    /// The node that is asked: the shard's leader, or one that answers reads of clients that said READONLY.
    pub(crate) node: String,
    /// The shard.
    pub(crate) shard: u16,
    /// Whether the node leads it.
    pub(crate) leads: bool,
    /// Reads a second.
    pub(crate) reads_per_s: u64,
    /// Writes a second.
    pub(crate) writes_per_s: u64,
    /// Its part of all reads and writes of the cluster, from 0 to 1.
    pub(crate) share: f64,
}

/// Puts the answers of all nodes together.
pub(crate) fn hot(map: &ClusterMap, answers: &Answers) -> Hot {
    let reports: Vec<_> = answers.iter().flatten().collect();
    let shards = || reports.iter().flat_map(|report| &report.shards);
    let reads_per_s: u64 = shards().map(|shard| shard.reads_per_s).sum();
    let writes_per_s: u64 = shards().map(|shard| shard.writes_per_s).sum();
    let share = |rate: u64| rate as f64 / (reads_per_s + writes_per_s).max(1) as f64;
    let keys_of = |report: &&crate::status::NodeReport| {
        let row = |key: &HotKeyReport| HotKeyRow {
            node: report.name.clone(),
            // Chance may have looked at a few more of its requests than their part.
            share: share(key.reads_per_s + key.writes_per_s).min(1.0),
            key: key.clone(),
        };
        report.hot_keys.iter().map(row).collect::<Vec<_>>()
    };
    let mut keys: Vec<HotKeyRow> = reports.iter().flat_map(keys_of).collect();
    keys.sort_by(|a, b| b.share.total_cmp(&a.share));
    let shards_of = |report: &&crate::status::NodeReport| {
        let asked = report.shards.iter().filter(|shard| shard.reads_per_s + shard.writes_per_s > 0);
        let row = |shard: &crate::status::ShardReport| HotShardRow {
            node: report.name.clone(),
            shard: shard.shard,
            leads: shard.leads,
            reads_per_s: shard.reads_per_s,
            writes_per_s: shard.writes_per_s,
            share: share(shard.reads_per_s + shard.writes_per_s),
        };
        asked.map(row).collect::<Vec<_>>()
    };
    let mut rows: Vec<HotShardRow> = reports.iter().flat_map(shards_of).collect();
    rows.sort_by(|a, b| b.share.total_cmp(&a.share));
    keys.truncate(SHOWN_MAX);
    rows.truncate(SHOWN_MAX);
    let silent = map.nodes.iter().zip(answers).filter(|(_, answer)| answer.is_err());
    let silent = silent.map(|(row, _)| row.name.clone()).collect();
    Hot { reads_per_s, writes_per_s, keys, shards: rows, silent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::map;
    use crate::status::{NodeReport, ShardReport};

    fn report(name: &str, shard: u16, rates: (u64, u64), keys: &[(&str, u64)]) -> Result<NodeReport, String> {
        let (reads_per_s, writes_per_s) = rates;
        let key = |(key, reads): &(&str, u64)| HotKeyReport {
            key: (*key).to_owned(),
            shard,
            reads_per_s: *reads,
            ..HotKeyReport::default()
        };
        Ok(NodeReport {
            name: name.to_owned(),
            shards: vec![ShardReport {
                shard,
                leads: true,
                reads_per_s,
                writes_per_s,
                ..ShardReport::default()
            }],
            hot_keys: keys.iter().map(key).collect(),
            ..NodeReport::default()
        })
    }

    #[test]
    fn the_hottest_of_all_nodes_come_first_with_their_share_of_the_whole() {
        let answers = vec![
            report("n1", 0, (100, 100), &[("a", 90), ("b", 5)]),
            report("n2", 1, (600, 200), &[("c", 500)]),
            Err("no answer".to_owned()),
        ];
        let hot = hot(&map(), &answers);
        assert_eq!((hot.reads_per_s, hot.writes_per_s, hot.silent), (700, 300, vec!["n3".to_owned()]));
        let keys: Vec<_> = hot.keys.iter().map(|row| (&row.node[..], &row.key.key[..], row.share)).collect();
        assert_eq!(keys, [("n2", "c", 0.5), ("n1", "a", 0.09), ("n1", "b", 0.005)]);
        let shards: Vec<_> = hot.shards.iter().map(|row| (&row.node[..], row.shard, row.share)).collect();
        assert_eq!(shards, [("n2", 1, 0.8), ("n1", 0, 0.2)]);
    }

    #[test]
    fn a_cluster_that_nobody_asks_has_nothing_hot() {
        let answers = vec![report("n1", 0, (0, 0), &[])];
        let hot = hot(&map(), &answers);
        assert!(hot.keys.is_empty() && hot.shards.is_empty());
    }
}
