//! How loaded the nodes are, what each should lead, by what rule, and which leaderships moved why, as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tholos_cluster::{ClusterMap, NodeId};
use tholos_node::{CAPACITY_WHOLE, MoveReason, Node};
use tholos_ring::ShardId;

use crate::status::{Answers, leaders};

/// Moves of leaderships that are shown, at most.
const MOVES_SHOWN_MAX: usize = 32;

/// What one node says of its load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// What it could do of what it should, in percent.
    pub capacity: u8,
    /// Why that is not all.
    pub slow: Option<String>,
    /// Its part of all leaderships, 0 to 1; `None` if it is not among those that are to lead.
    pub share: Option<f64>,
    /// How many shards it should lead.
    pub target: u16,
    /// How much longer its worker takes than on a processor of its own: 1 is no longer. `None` if it has little to do.
    pub stretch: Option<f64>,
    /// What a sync of its log takes, in microseconds; `None` if there was none lately.
    pub sync_us: Option<u32>,
    /// Its weight, as the operator gave it.
    #[serde(default)]
    pub weight: u16,
    /// The part of the time that its worker has work, in percent.
    #[serde(default)]
    pub busy: u8,
    /// What it has left of what it could do, in percent.
    #[serde(default)]
    pub spare: u8,
    /// What waits for its worker.
    #[serde(default)]
    pub queue: u32,
    /// How many clients it takes at a time at present.
    #[serde(default)]
    pub clients_max: u64,
    /// Leaderships given away since it started, by reason.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
    /// Commands of clients a second.
    pub commands_per_s: u32,
    /// Leaderships that it has given away since it started.
    pub given: u64,
    /// The last of them, the oldest first.
    pub moves: Vec<GivenReport>,
    /// Whether it leaves leaderships where the map has them, whatever is measured.
    #[serde(default)]
    pub leads_by_map: bool,
    /// The zones in which it wants leaders to sit; empty: anywhere.
    #[serde(default)]
    pub leader_zones: Vec<String>,
}

/// A leadership that a node gave away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenReport {
    /// When, in Unix milliseconds by its own clock.
    pub at_ms: u64,
    /// Of which shard.
    pub shard: u16,
    /// The number of the node that got it.
    pub to: u16,
    /// Why: preference, share, hot shard, slow disk, slow processor, standing disk, resigning, leaving, differs.
    pub reason: String,
}

impl LoadReport {
    /// What a node says of its load.
    pub(crate) fn of(node: &Node) -> LoadReport {
        let standing = node.own_standing();
        let known = |number: u32| (number > 0).then_some(number);
        LoadReport {
            capacity: standing.load.capacity,
            slow: standing.slowness.map(|slowness| slowness.to_string()),
            share: standing.share,
            target: standing.target,
            stretch: known(standing.load.stretch).map(|percent| f64::from(percent) / 100.0),
            sync_us: known(standing.load.sync_us),
            weight: node.own_row().map_or(0, |row| row.weight),
            busy: standing.load.busy,
            spare: standing.load.spare(),
            queue: standing.load.queue.waiting,
            clients_max: node.gateway().clients_admitted(),
            reasons: node.leaders_given_for().map(|(reason, count)| (reason.to_string(), count)).collect(),
            commands_per_s: standing.commands_per_s,
            given: node.leaders_given(),
            moves: node
                .leader_moves()
                .map(|given| GivenReport {
                    at_ms: given.at.0,
                    shard: given.shard.0,
                    to: given.to.0,
                    reason: given.reason.to_string(),
                })
                .collect(),
            leads_by_map: !node.config().steers,
            leader_zones: node.config().leader_zones.clone(),
        }
    }
}

/// A node's row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeLoad {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: u16,
    /// Shards it leads.
    pub leads: usize,
    /// What it could do of what it should, in percent; `None` if it does not answer, as are all figures below.
    pub capacity: Option<u8>,
    /// Why that is not all.
    pub slow: Option<String>,
    /// Its part of all leaderships, 0 to 1.
    pub share: Option<f64>,
    /// How many shards it should lead.
    pub target: Option<u16>,
    /// How much longer its worker takes than on a processor of its own.
    pub stretch: Option<f64>,
    /// What a sync of its log takes, in microseconds.
    pub sync_us: Option<u32>,
    /// The part of the time that its worker has work, in percent.
    pub busy: Option<u8>,
    /// What it has left of what it could do, in percent.
    pub spare: Option<u8>,
    /// What waits for its worker.
    pub queue: Option<u32>,
    /// How many clients it takes at a time at present.
    pub clients_max: Option<u64>,
    /// Commands of clients a second.
    pub commands_per_s: Option<u32>,
    /// Why it is not up.
    pub reason: Option<String>,
}

/// A move of a leadership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaderMove {
    /// When, in Unix milliseconds by the giver's clock.
    pub at_ms: u64,
    /// Of which shard; the number behind the last is the meta group.
    pub shard: u16,
    /// Who gave it away.
    pub from: String,
    /// Who got it.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// What decides who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LeaderRule {
    /// The map, as a node is told to leave it at that.
    Fixed,
    /// Weight and capacity, as a node is slow or leaders are to sit in some zones only.
    Capacity,
    /// The map, as no node is slow.
    Map,
}

/// The load of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ClusterLoad {
    /// Every node of the map.
    pub nodes: Vec<NodeLoad>,
    /// Shards in all.
    pub shards: u16,
    /// What decides who leads.
    pub rule: LeaderRule,
    /// The zones in which leaders are to sit; empty: anywhere.
    pub leader_zones: Vec<String>,
    /// Shards that are led where they are for what is asked of them, as far as the nodes remember.
    pub hot_shards: Vec<u16>,
    /// The last moves of leaderships that the nodes remember, the newest first.
    pub moves: Vec<LeaderMove>,
}

/// Puts the answers of all nodes together.
pub(crate) fn cluster_load(map: &ClusterMap, answers: &Answers) -> ClusterLoad {
    let mut leads: BTreeMap<usize, usize> = BTreeMap::new();
    let leaders: Vec<Option<&str>> = leaders(map, answers)
        .into_iter()
        .map(|leader| {
            let (at, _) = leader?;
            *leads.entry(at).or_default() += 1;
            Some(map.nodes[at].name.as_str())
        })
        .collect();
    let mut nodes = Vec::new();
    for (at, row) in map.nodes.iter().enumerate() {
        let answer =
            answers.get(at).map_or(Err("it was not asked"), |answer| answer.as_ref().map_err(String::as_str));
        let load = answer.ok().and_then(|report| report.load.as_ref());
        nodes.push(NodeLoad {
            name: row.name.clone(),
            weight: row.weight,
            leads: leads.get(&at).copied().unwrap_or(0),
            capacity: load.map(|load| load.capacity),
            slow: load.and_then(|load| load.slow.clone()),
            share: load.and_then(|load| load.share),
            target: load.map(|load| load.target),
            stretch: load.and_then(|load| load.stretch),
            sync_us: load.and_then(|load| load.sync_us),
            busy: load.map(|load| load.busy),
            spare: load.map(|load| load.spare),
            queue: load.map(|load| load.queue),
            clients_max: load.map(|load| load.clients_max),
            commands_per_s: load.map(|load| load.commands_per_s),
            reason: answer.err().map(str::to_owned),
        });
    }
    let reports = || answers.iter().flatten().filter_map(|report| report.load.as_ref());
    // The same on all nodes, if the operator has done as the book says.
    let zones: BTreeSet<&String> = reports().flat_map(|load| &load.leader_zones).collect();
    let is_slow = reports().any(|load| load.capacity < CAPACITY_WHOLE);
    let rule = match (reports().any(|load| load.leads_by_map), is_slow || !zones.is_empty()) {
        (true, _) => LeaderRule::Fixed,
        (false, true) => LeaderRule::Capacity,
        (false, false) => LeaderRule::Map,
    };
    let mut moves = all_moves(map, answers);
    let hot_shards = hot_shards(&moves, &leaders);
    moves.truncate(MOVES_SHOWN_MAX);
    let leader_zones = zones.into_iter().cloned().collect();
    ClusterLoad { nodes, shards: map.shard_count, rule, leader_zones, hot_shards, moves }
}

/// The moves of leaderships that the nodes remember, the newest first.
fn all_moves(map: &ClusterMap, answers: &Answers) -> Vec<LeaderMove> {
    let name = |id: u16| map.node(NodeId(id)).map_or_else(|| format!("n{id}"), |row| row.name.clone());
    let mut moves = Vec::new();
    for (row, answer) in map.nodes.iter().zip(answers) {
        let load = answer.as_ref().ok().and_then(|report| report.load.as_ref());
        moves.extend(load.into_iter().flat_map(|load| &load.moves).map(|given| LeaderMove {
            at_ms: given.at_ms,
            shard: given.shard,
            from: row.name.clone(),
            to: name(given.to),
            reason: given.reason.clone(),
        }));
    }
    moves.sort_by_key(|given| std::cmp::Reverse((given.at_ms, ShardId(given.shard))));
    moves
}

/// The last of them.
pub(crate) fn last_moves(map: &ClusterMap, answers: &Answers) -> Vec<LeaderMove> {
    let mut moves = all_moves(map, answers);
    moves.truncate(MOVES_SHOWN_MAX);
    moves
}

/// Shards whose last move was for what is asked of them, and whose leaders are still those that got them then: `leaders` has
/// their names.
fn hot_shards(moves: &[LeaderMove], leaders: &[Option<&str>]) -> Vec<u16> {
    let mut last: BTreeMap<u16, &LeaderMove> = BTreeMap::new();
    for given in moves {
        last.entry(given.shard).or_insert(given);
    }
    let is_led_there = |given: &LeaderMove| {
        let leader = leaders.get(usize::from(given.shard)).copied().flatten();
        given.reason == MoveReason::HotShard.to_string() && leader == Some(given.to.as_str())
    };
    last.into_values().filter(|given| is_led_there(given)).map(|given| given.shard).collect()
}

#[cfg(test)]
mod tests {
    use tholos_cluster::{ClusterId, Incarnation, NodeRow};

    use super::*;
    use crate::status::{NodeReport, ShardReport};

    fn row(number: u16) -> NodeRow {
        NodeRow {
            id: NodeId(0),
            name: format!("n{number}"),
            zone: String::new(),
            weight: number,
            incarnation: Incarnation(u64::from(number)),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        }
    }

    #[test]
    fn rows_and_moves_of_all_nodes_are_put_together() {
        let map = ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), 4, 3).unwrap();
        let report = |at_ms: u64, shards: &[u16]| {
            let moved =
                |step| GivenReport { at_ms: at_ms + step, shard: 1, to: 2, reason: "slow disk".into() };
            let moves = (0..20).map(moved).collect();
            let load =
                LoadReport { capacity: 50, stretch: Some(2.1), given: 20, moves, ..LoadReport::default() };
            let led = |shard: &u16| ShardReport { shard: *shard, leads: true, ..ShardReport::default() };
            let shards = shards.iter().map(led).collect();
            Ok(NodeReport { load: Some(load), shards, ..NodeReport::default() })
        };
        let load = cluster_load(&map, &vec![report(100, &[0, 2]), Err("gone".into()), report(110, &[1])]);
        let rows: Vec<_> = load.nodes.iter().map(|node| (node.weight, node.leads, node.capacity)).collect();
        assert_eq!(rows, [(1, 2, Some(50)), (2, 0, None), (3, 1, Some(50))]);
        assert_eq!(load.nodes[1].reason.as_deref(), Some("gone"));
        let first = &load.moves[0];
        assert_eq!((first.at_ms, first.from.as_str(), first.to.as_str()), (129, "n3", "n2"));
        assert_eq!(load.moves.len(), MOVES_SHOWN_MAX);
        assert!(load.moves.is_sorted_by(|a, b| a.at_ms >= b.at_ms));
    }

    #[test]
    fn what_decides_who_leads_is_told() {
        let map = ClusterMap::genesis(ClusterId([7; 20]), (1..=3).map(row).collect(), 4, 3).unwrap();
        let told = |loads: [LoadReport; 3]| {
            let led = |shard| ShardReport { shard, leads: true, ..ShardReport::default() };
            let leads: [&[u16]; 3] = [&[0], &[1, 3], &[2]];
            let reports = loads.into_iter().zip(leads).map(|(load, leads)| {
                let shards = leads.iter().copied().map(led).collect();
                Ok(NodeReport { load: Some(load), shards, ..NodeReport::default() })
            });
            let load = cluster_load(&map, &reports.collect());
            (load.rule, load.leader_zones.join(" "), load.hot_shards)
        };
        let whole = || LoadReport { capacity: 100, ..LoadReport::default() };
        assert_eq!(told([whole(), whole(), whole()]), (LeaderRule::Map, String::new(), vec![]));
        let slow = LoadReport { capacity: 50, ..whole() };
        assert_eq!(told([whole(), slow, whole()]), (LeaderRule::Capacity, String::new(), vec![]));
        let zones = || LoadReport { leader_zones: vec!["a".into(), "b".into()], ..whole() };
        assert_eq!(told([zones(), zones(), zones()]), (LeaderRule::Capacity, "a b".into(), vec![]));
        let fixed = LoadReport { leads_by_map: true, ..whole() };
        assert_eq!(told([whole(), whole(), fixed]), (LeaderRule::Fixed, String::new(), vec![]));
        // n1 gave s1 to n2 for what is asked of it, s3 as well, and s3 came back and went again for another reason.
        let given = |at_ms, shard, reason: &str| GivenReport { at_ms, shard, to: 2, reason: reason.into() };
        let moves = vec![
            given(1, 1, "hot shard"),
            given(2, 3, "hot shard"),
            given(9, 3, "share"),
            given(9, 2, "hot shard"),
        ];
        let hot = LoadReport { moves, ..whole() };
        assert_eq!(told([hot, whole(), whole()]), (LeaderRule::Map, String::new(), vec![1]), "n3 leads s2");
    }
}
