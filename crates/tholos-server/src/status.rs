//! The state of a node and of the cluster, as JSON.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tholos_cluster::{ClusterMap, MetaState, NodeId, NodeRow, Phase, Standing};
use tholos_node::{JobProgress, JobWrites, Loss, MoveProgress, Node, Wait, node_of};
use tholos_paxos::{Index, Repair};
use tholos_ring::ShardId;

use crate::hot::{self, HotKeyReport};
use crate::load::{LeaderMove, LoadReport, last_moves};
use crate::plan::{Made, Plans};
use crate::recovery;
use crate::room::Room;
use crate::upgrade;

/// What one node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its directory; `None` of a node of an earlier release, or that has left.
    #[serde(default)]
    pub incarnation: Option<u64>,
    /// The epoch of its map.
    pub epoch: u64,
    /// The shards it holds.
    pub shards: Vec<ShardReport>,
    /// Keys in its keyspaces.
    pub keys: u64,
    /// Bytes in its keyspaces.
    pub used_bytes: u64,
    /// Connections of clients.
    pub clients: u64,
    /// Commands started since it started.
    pub commands: u64,
    /// Requests sent to other nodes since it started.
    pub forwarded: u64,
    /// Of these, by way of a third node, because the leader was not heard.
    #[serde(default)]
    pub relayed: u64,
    /// Requests that ran out of time since it started.
    pub timed_out: u64,
    /// Error replies since it started.
    pub errors: u64,
    /// Commands refused since it started because too many requests of its clients were open.
    #[serde(default)]
    pub shed: u64,
    /// What its clients' writes met while the latest job ran.
    #[serde(default)]
    pub job_writes: Option<JobWritesReport>,
    /// Writes that its replicas found applied already, and answered again, since it started.
    pub repeated: u64,
    /// Reads that its replicas answered by a lease since it started.
    #[serde(default)]
    pub reads_by_lease: u64,
    /// Of these, those that the clock then found too late, and that were asked again by a round.
    #[serde(default)]
    pub reads_late: u64,
    /// Reads that its replicas answered while another node led, since it started.
    #[serde(default)]
    pub reads_as_replica: u64,
    /// Of these, those that were answered at once, within the age that their clients allow.
    #[serde(default)]
    pub reads_stale: u64,
    /// Reads of its clients that it sent to the leader on another node, by choice.
    #[serde(default)]
    pub reads_to_leaders: u64,
    /// Reads of its clients that it had another replica than the leader answer, likewise.
    #[serde(default)]
    pub reads_to_replicas: u64,
    /// The keys that it is asked for most.
    #[serde(default)]
    pub hot_keys: Vec<HotKeyReport>,
    /// The version of its program; empty if it does not say.
    #[serde(default)]
    pub version: String,
    /// If it leads the meta group: what begins by itself, and what is waited for.
    #[serde(default)]
    pub automatic: Vec<String>,
    /// Plans that it has made for the map that it has.
    #[serde(default)]
    pub plans: Vec<Made>,
    /// If it leads the meta group, and a job runs: how far that is.
    #[serde(default)]
    pub job: Option<JobReport>,
    /// For how long a job has waited for a leader of the meta group, as far as it knows, in milliseconds.
    #[serde(default)]
    pub meta_leaderless_ms: Option<u64>,
    /// Bytes that may still be written to its disk, the reserve left out; `None` if not known.
    #[serde(default)]
    pub disk_free_bytes: Option<u64>,
    /// Whether its log has no room, so that writes to the shards it leads are refused.
    #[serde(default)]
    pub disk_full: bool,
    /// Bytes that its keyspaces may still grow by, by `maxmemory` and by the machine; `None` if not known.
    #[serde(default)]
    pub memory_free_bytes: Option<u64>,
    /// How loaded it is; `None` of a node of an earlier release.
    #[serde(default)]
    pub load: Option<LoadReport>,
    /// By how many milliseconds its wall clock is ahead of the median of the nodes' clocks; `None` if not known.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
}

/// How far the running job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Its number.
    pub job: u64,
    /// Bytes that were sent in a second, over the last few.
    pub bytes_per_s: u64,
    /// Its moves under way.
    pub moves: Vec<MoveStands>,
}

/// How far a move is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveStands {
    /// The shard; behind the last one, the meta group.
    pub shard: u16,
    /// Bytes sent for it.
    pub bytes_sent: u64,
    /// Bytes that it takes, about.
    pub bytes_total: u64,
    /// Entries that the node lacks which is to get the shard, while it learns.
    pub behind: Option<u64>,
    /// What it waits for, by one of the words of [`wait_word`].
    pub wait: String,
    /// For how long nothing has come of it, in milliseconds.
    pub still_ms: u64,
    /// Whether that is longer than it should be.
    pub stalled: bool,
}

impl JobReport {
    fn of(progress: JobProgress) -> JobReport {
        let stands = |step: &MoveProgress| MoveStands {
            shard: step.shard.0,
            bytes_sent: step.sent,
            bytes_total: step.total,
            behind: step.behind,
            wait: wait_word(step.wait).to_owned(),
            still_ms: step.still_for.0,
            stalled: step.is_stalled(),
        };
        let JobProgress { job, bytes_per_s, ref moves } = progress;
        JobReport { job, bytes_per_s, moves: moves.iter().map(stands).collect() }
    }

    /// Moves from which nothing has come for too long.
    pub(crate) fn stalled(&self) -> u64 {
        self.moves.iter().filter(|step| step.stalled).count() as u64
    }
}

/// What a move waits for, in a word that stays the same.
const fn wait_word(wait: Wait) -> &'static str {
    match wait {
        Wait::Decision => "decision",
        Wait::Quorum => "quorum",
        Wait::Told => "told",
        Wait::Target => "target-down",
        Wait::TargetFull => "target-full",
        Wait::Join => "target-begins",
        Wait::Snapshot => "snapshot",
        Wait::Sending => "sending",
        Wait::Throttle => "throttle",
        Wait::Entries => "entries",
        Wait::Leader => "leader",
        Wait::Silent => "leader-silent",
    }
}

/// What a node's clients met while a job ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobWritesReport {
    /// The number of the job.
    pub job: u64,
    /// Writes that failed.
    pub failed: u64,
    /// How long the longest took, in milliseconds.
    pub longest_ms: u64,
}

impl JobWritesReport {
    fn of(writes: JobWrites) -> Option<JobWritesReport> {
        let JobWrites { job, failed, longest, .. } = writes;
        (job > 0).then_some(JobWritesReport { job, failed, longest_ms: longest.0 })
    }
}

/// What a node says of its replica of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardReport {
    /// Its number.
    pub shard: u16,
    /// The ballot of the leader that this replica follows, `3.n2`.
    pub ballot: Option<String>,
    /// The number of that leader's node.
    pub leader: Option<u16>,
    /// Whether this replica leads and serves.
    pub leads: bool,
    /// The round of the ballot, to tell which of two leaders is the newer.
    pub round: u64,
    /// The last index of its log.
    pub accepted: u64,
    /// How far its log is known to be decided.
    pub decided: u64,
    /// How far its keyspace is.
    pub applied: u64,
    /// If it leads: how far each other replica has accepted, by node number.
    pub followers: BTreeMap<u16, u64>,
    /// Why it votes nowhere, if it has lost data (R20), and what it waits for.
    #[serde(default)]
    pub mute: Option<String>,
    /// If it leads: about where the replicas' states differed without a majority that agreed (R24).
    #[serde(default)]
    pub differ: Option<u64>,
    /// Bytes of memory that its keyspace takes, about.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes that a snapshot of it has, about.
    #[serde(default)]
    pub data_bytes: u64,
    /// Reads a second that this replica is asked for.
    #[serde(default)]
    pub reads_per_s: u64,
    /// Writes a second that this replica is asked for.
    #[serde(default)]
    pub writes_per_s: u64,
    /// The number of the latest replica set in its log (R7).
    #[serde(default)]
    pub config: u64,
    /// The numbers of the nodes that vote by it.
    #[serde(default)]
    pub voters: Vec<u16>,
}

impl NodeReport {
    /// What a node says of itself.
    pub(crate) fn of(node: &Node, name: &str, room: Room, plans: &Plans) -> NodeReport {
        let map = node.map();
        let gateway = node.gateway();
        let counters = &gateway.counters;
        let held = (0..map.shard_count).filter_map(|shard| node.shard(ShardId(shard)));
        let (mut keys, mut used_bytes) = (0, 0);
        let served = node.served();
        let (reads_to_leaders, reads_to_replicas) = node.reads_sent();
        let shards = held
            .map(|shard| {
                keys += shard.keyspace.len(shard.time.0) as u64;
                used_bytes += shard.keyspace.used_bytes() as u64;
                let group = &shard.group;
                let leader = group.leader();
                let leads = group.serving();
                ShardReport {
                    shard: shard.id.0,
                    ballot: leader.map(|ballot| ballot.to_string()),
                    leader: leader.map(|ballot| node_of(ballot.replica).0),
                    leads,
                    round: leader.map_or(0, |ballot| ballot.round),
                    accepted: group.accepted_index().0,
                    decided: group.decided_index().0,
                    applied: group.applied_index().0,
                    followers: if leads {
                        group.followers().map(|(replica, index)| (node_of(replica).0, index.0)).collect()
                    } else {
                        BTreeMap::new()
                    },
                    differ: shard.states_differ().map(|index| index.0),
                    mute: shard.group.repair().map(|repair| mute_words(shard.loss, repair)),
                    bytes: shard.keyspace.used_bytes() as u64,
                    data_bytes: shard.keyspace.data_bytes() as u64,
                    reads_per_s: shard.rates().reads_per_second,
                    writes_per_s: shard.rates().writes_per_second,
                    config: group.config().number,
                    voters: shard.voters.iter().map(|node| node.0).collect(),
                }
            })
            .collect();
        NodeReport {
            name: name.to_owned(),
            incarnation: node.own_row().map(|row| row.incarnation.0),
            epoch: map.epoch.0,
            shards,
            keys,
            used_bytes,
            clients: gateway.connections().len() as u64,
            commands: counters.commands,
            forwarded: counters.forwarded,
            relayed: counters.relayed,
            timed_out: counters.timed_out,
            errors: counters.errors,
            shed: counters.shed,
            job_writes: JobWritesReport::of(gateway.job_writes),
            repeated: served.writes_repeated,
            reads_by_lease: served.reads_by_lease,
            reads_late: served.reads_late,
            reads_as_replica: served.reads_as_replica,
            reads_stale: served.reads_stale,
            reads_to_leaders,
            reads_to_replicas,
            hot_keys: hot::of_node(node),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            automatic: automatic_words(node),
            plans: plans.of(map.epoch),
            job: node.job_progress().map(JobReport::of),
            meta_leaderless_ms: node.meta_leaderless_for().map(|span| span.0),
            load: Some(LoadReport::of(node)),
            disk_free_bytes: room.disk_free,
            disk_full: node.disk_is_full(),
            clock_ahead_ms: node.detector().clock_ahead_ms(),
            memory_free_bytes: match gateway.settings.maxmemory {
                0 => room.memory_free,
                most => {
                    let left = most.saturating_sub(used_bytes);
                    Some(room.memory_free.map_or(left, |free| free.min(left)))
                }
            },
        }
    }

    /// The report, if it is that of the node in this row: an old directory of it, put back, is not that node (R21).
    pub(crate) fn of_row(self, row: &NodeRow) -> Result<NodeReport, String> {
        match self.incarnation {
            Some(found) if found != row.incarnation.0 => Err(OTHER_DIRECTORY.to_owned()),
            _ => Ok(self),
        }
    }

    /// What somebody should look at; `None` if there is nothing.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.differ().or_else(|| self.mute()).or_else(|| self.full()).or_else(|| self.clock())
    }

    /// A log without room.
    fn full(&self) -> Option<String> {
        let words = "its log has no room, and writes to the shards it leads are refused: free disk space or raise wal.bytes_max";
        self.disk_full.then(|| words.to_owned())
    }

    /// A wall clock that is wrong (R16).
    fn clock(&self) -> Option<String> {
        let ahead = self.clock_ahead_ms.filter(|ahead| ahead.unsigned_abs() >= CLOCK_ALARM_MS)?;
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        let seconds = ahead.unsigned_abs() as f64 / 1000.0;
        Some(format!(
            "its clock is {seconds:.1} s {side} the median of the nodes' clocks: set it (keys still expire by the median)"
        ))
    }

    /// Shards it leads whose replicas' states differ.
    fn differ(&self) -> Option<String> {
        let (shard, index) = self.shards.iter().find_map(|shard| Some((shard.shard, shard.differ?)))?;
        let (shard, index) = (ShardId(shard), Index(index));
        Some(format!(
            "the replicas of {shard} have different states at {index}, and no majority agrees: compare them"
        ))
    }

    /// Its replicas that have lost data, and why; `None` if there are none.
    fn mute(&self) -> Option<String> {
        let mute: Vec<&ShardReport> = self.shards.iter().filter(|shard| shard.mute.is_some()).collect();
        let why = mute.first()?.mute.as_deref()?;
        let names: Vec<String> =
            mute.iter().take(MUTE_NAMED_MAX).map(|shard| ShardId(shard.shard).to_string()).collect();
        let more = if mute.len() > MUTE_NAMED_MAX { ", …" } else { "" };
        let (count, names) = (mute.len(), names.join(", "));
        Some(format!("{count} of its replicas vote nowhere ({names}{more}): {why}"))
    }

    /// The report as it goes to other nodes.
    pub(crate) fn to_json(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("plain fields can be written as JSON"))
    }
}

/// Why a node counts as down at whose address something else answers.
pub(crate) const OTHER_DIRECTORY: &str =
    "at its address another directory answers than the one it has: stop that one";

/// Why a node is not asked whose name another one bears since.
pub(crate) const NO_ADDRESS: &str = "its directory is lost";

/// A wall clock that is so far off the median of the nodes' clocks is an alarm (R16).
const CLOCK_ALARM_MS: u64 = 500;

/// Mute shards named in a reason, at most.
const MUTE_NAMED_MAX: usize = 4;

/// What a mute replica has lost, and what it waits for.
fn mute_words(loss: Option<Loss>, repair: Repair) -> String {
    let loss = loss.unwrap_or(Loss::Before);
    match repair {
        Repair::Asks { needed: 0, .. } => {
            format!(
                "{loss}; there is no other voter to repair it from, so its keys are gone: begin another cluster, with three \
                 replicas of each shard, and write them again"
            )
        }
        Repair::Asks { answered, needed } => format!(
            "{loss}; {answered} of {needed} other voters have said what they have promised, and all must: start those \
             that are down"
        ),
        Repair::WaitsForId => {
            format!(
                "{loss}; the set of its replicas has changed, so its leader gives it another id: it waits for that"
            )
        }
        Repair::Waits { until } => format!("{loss}; it waits for a leader above {until} and for its log"),
    }
}

/// What the leader of the meta group does by itself, or would do.
fn automatic_words(node: &Node) -> Vec<String> {
    let blocked = node.automatic_blocked().map(|why| format!("not replaced by itself: {why}"));
    let waits = node.restart_waits().map(|why| format!("the roll waits: {why}"));
    blocked.into_iter().chain(waits).collect()
}

/// How the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every node is up and whole, and every shard has a leader.
    Healthy,
    /// A node is missing or has lost data, or a shard has too few replicas, and every shard has a leader.
    Degraded,
    /// A shard has no leader: its keys can be neither read nor written.
    Unavailable,
}

/// Whether a node takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It answers, and holds its share.
    Up,
    /// It does not answer.
    Down,
    /// It answers, and gets its first replicas.
    Joining,
    /// It answers, holds nothing, and is given nothing until a plan says so.
    Spare,
    /// It answers, and is to hold nothing any more.
    Leaving,
}

/// A node's row in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Whether it takes part.
    pub state: NodeState,
    /// Its zone; empty if it is one of its own.
    pub zone: String,
    /// Its weight.
    pub weight: u16,
    /// Shards it leads.
    pub leads: usize,
    /// Shards it holds.
    pub replicas: usize,
    /// Entries it is behind, summed over its shards; `None` if not known.
    pub lag: Option<u64>,
    /// The part of the time that its worker has work, in percent; `None` if not known, as the next two.
    pub load: Option<u8>,
    /// What it has left of what it could do, in percent.
    pub spare: Option<u8>,
    /// Its part of all leaderships, in percent; `None` as well if it is to lead nothing.
    pub share: Option<u8>,
    /// The version of its program; `None` if not known.
    pub version: Option<String>,
    /// The highest feature level that its program knows.
    pub level: u16,
    /// Why it is not up, or what it has lost.
    pub reason: Option<String>,
    /// The command that would make more of it, if there is one.
    pub next: Option<String>,
}

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// How it is.
    pub verdict: Verdict,
    /// The epoch of the map.
    pub epoch: u64,
    /// The feature level: what nodes may say to each other and write.
    pub level: u16,
    /// Every node of the map.
    pub nodes: Vec<NodeStatus>,
    /// Shards in all.
    pub shards: u16,
    /// Shards without a leader.
    pub leaderless: Vec<u16>,
    /// Shards whose leader has no room for writes: they are only read.
    pub full: Vec<u16>,
    /// The nodes that vote in the meta group, as far as is recorded.
    pub meta: Vec<String>,
    /// What is under way, what begins by itself, and what is waited for.
    pub notes: Vec<String>,
    /// The last moves of leaderships, the newest first.
    pub leader_moves: Vec<LeaderMove>,
}

/// Where a key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The key, with what is no text replaced.
    pub key: String,
    /// Its slot.
    pub slot: u16,
    /// Its shard.
    pub shard: u16,
    /// The nodes that hold it, in the order the ring was walked.
    pub replicas: Vec<String>,
    /// Their zones, in that order; empty where a node has none.
    pub zones: Vec<String>,
    /// How far their keyspaces are, in that order; `None` for those that do not answer or have no replica yet.
    pub applied: Vec<Option<u64>>,
    /// The leader; `None` if there is none.
    pub leader: Option<String>,
    /// The leader's ballot, `1.n2`.
    pub ballot: Option<String>,
    /// The last decided index.
    pub decided: Option<u64>,
}

/// What each node of the map answered, in the map's order: its report, or why there is none.
pub(crate) type Answers = Vec<Result<NodeReport, String>>;

/// The leader of each shard: its node's place in the map, and its report.
pub(crate) fn leaders(map: &ClusterMap, answers: &Answers) -> Vec<Option<(usize, ShardReport)>> {
    let mut leaders: Vec<Option<(usize, ShardReport)>> = vec![None; usize::from(map.shard_count)];
    for (at, report) in
        answers.iter().enumerate().filter_map(|(at, answer)| Some((at, answer.as_ref().ok()?)))
    {
        for shard in report.shards.iter().filter(|shard| shard.leads) {
            let Some(leader) = leaders.get_mut(usize::from(shard.shard)) else { continue };
            // Two may believe it for a moment: the newer one is right.
            if leader.as_ref().is_none_or(|(_, other)| other.round < shard.round) {
                *leader = Some((at, shard.clone()));
            }
        }
    }
    leaders
}

/// Puts the answers of all nodes together.
pub(crate) fn cluster_status(state: &MetaState, answers: &Answers) -> ClusterStatus {
    let map = &state.map;
    let leaders = leaders(map, answers);
    let node = |(at, row): (usize, &tholos_cluster::NodeRow)| {
        let answer =
            answers.get(at).map_or(Err("it was not asked"), |answer| answer.as_ref().map_err(String::as_str));
        let replicas: Vec<ShardId> = map.shards_of(row.id).collect();
        let load = answer.ok().and_then(|report| report.load.as_ref());
        NodeStatus {
            name: row.name.clone(),
            state: node_state(state, row.id, answer.is_ok()),
            zone: row.zone.clone(),
            weight: row.weight,
            leads: leaders.iter().flatten().filter(|(leader, _)| *leader == at).count(),
            replicas: replicas.len(),
            lag: replicas.iter().map(|shard| lag(*shard, at, row.id.0, answer.ok(), &leaders)).sum(),
            reason: lost_words(state, row.id)
                .or_else(|| answer.map_or_else(|why| Some(why.to_owned()), NodeReport::trouble)),
            next: next_command(state, row, answer.is_ok()),
            level: state.level_of(row.id).0,
            load: load.map(|load| load.busy),
            spare: load.map(|load| load.spare),
            share: load.and_then(|load| load.share).map(|share| (share * 100.0).round() as u8),
            version: answer.ok().map(|report| report.version.clone()).filter(|version| !version.is_empty()),
        }
    };
    let nodes: Vec<NodeStatus> = map.nodes.iter().enumerate().map(node).collect();
    let leaderless: Vec<u16> =
        (0..map.shard_count).filter(|shard| leaders[usize::from(*shard)].is_none()).collect();
    let is_full =
        |at: usize| answers.get(at).is_some_and(|answer| answer.as_ref().is_ok_and(|node| node.disk_full));
    let full: Vec<u16> =
        leaders.iter().flatten().filter(|(at, _)| is_full(*at)).map(|(_, led)| led.shard).collect();
    let whole = |node: &NodeStatus| node.state != NodeState::Down && node.reason.is_none();
    let too_few = too_few_note(map);
    let verdict = match (leaderless.is_empty(), nodes.iter().all(whole) && too_few.is_none()) {
        (false, _) => Verdict::Unavailable,
        (true, false) => Verdict::Degraded,
        (true, true) => Verdict::Healthy,
    };
    let name = |id: NodeId| map.node(id).map_or_else(|| id.to_string(), |row| row.name.clone());
    let meta = state.voters(map.meta_group()).map(name).collect();
    let automatic = answers.iter().flatten().flat_map(|report| report.automatic.clone());
    let notes = automatic
        .chain(recovery::note(state))
        .chain(too_few)
        .chain(crowded_note(map, &nodes))
        .chain(upgrade::note(state))
        .collect();
    ClusterStatus {
        verdict,
        epoch: map.epoch.0,
        level: state.level.0,
        nodes,
        shards: map.shard_count,
        leaderless,
        full,
        meta,
        notes,
        leader_moves: last_moves(map, answers),
    }
}

/// What is said while shards have fewer replicas than they are to have: after a recovery (R29), or until a job is done.
fn too_few_note(map: &ClusterMap) -> Option<String> {
    let few = map.shards.iter().filter(|set| set.len() < usize::from(map.replicas)).count();
    let shards = if few == 1 { "1 shard has".to_owned() } else { format!("{few} shards have") };
    let (replicas, next) = (map.replicas, "tholos cluster plan add spares, or even");
    (few > 0).then(|| format!("{shards} fewer than {replicas} replicas: {next}"))
}

/// What is said while a zone holds more than one replica of a shard, for whoever loses it loses both.
fn crowded_note(map: &ClusterMap, nodes: &[NodeStatus]) -> Option<String> {
    let crowded = map.crowded().count();
    if crowded == 0 {
        return None;
    }
    let takes = |node: &&NodeStatus| !matches!(node.state, NodeState::Down | NodeState::Leaving);
    // A node without a zone is one of its own.
    let zone =
        |node: &NodeStatus| if node.zone.is_empty() { node.name.clone() } else { format!("/{}", node.zone) };
    let zones = nodes.iter().filter(takes).map(zone).collect::<BTreeSet<_>>().len();
    let replicas = usize::from(map.replicas);
    let shards = if crowded == 1 { "1 shard has".to_owned() } else { format!("{crowded} shards have") };
    Some(match zones < replicas {
        true => format!(
            "{shards} more than one replica in a zone: {zones} zones are up, and {replicas} are needed"
        ),
        false => format!(
            "{shards} more than one replica in a zone, and {zones} zones are up: tholos cluster plan add spares, or even"
        ),
    })
}

fn node_state(state: &MetaState, node: NodeId, answers: bool) -> NodeState {
    match state.phase(node) {
        _ if !answers => NodeState::Down,
        Some(Phase::Joining) => NodeState::Joining,
        Some(Phase::Spare) => NodeState::Spare,
        Some(Phase::Leaving) => NodeState::Leaving,
        Some(Phase::Settled) | None => NodeState::Up,
    }
}

/// What is said of a node whose name another one bears since, or that a recovery gave up.
fn lost_words(state: &MetaState, node: NodeId) -> Option<String> {
    if state.standing(node) != Some(Standing::Lost) {
        return None;
    }
    let heir =
        state.heir_of(node).map_or_else(|| "others are".to_owned(), |heir| format!("{} is", heir.name));
    Some(format!("its directory is lost: {heir} to take over what it held"))
}

/// What an operator would do with a node that holds nothing, or that keeps what it is to give up.
fn next_command(state: &MetaState, row: &NodeRow, answers: bool) -> Option<String> {
    let adds = |name: &str| format!("tholos cluster plan add {name}");
    match state.phase(row.id) {
        // One that does not answer is to be started first.
        Some(Phase::Spare) => answers.then(|| adds(&row.name)),
        // Its moves wait for nothing but to be planned.
        Some(Phase::Leaving) if state.active_job().is_none() => {
            let is_lost = state.standing(row.id) == Some(Standing::Lost);
            match state.heir_of(row.id).filter(|heir| state.phase(heir.id) == Some(Phase::Spare)) {
                Some(heir) => Some(adds(&heir.name)),
                None if is_lost => Some(format!("tholos cluster plan remove {}", row.name)),
                None => answers.then(|| "tholos cluster plan even".to_owned()),
            }
        }
        _ => None,
    }
}

/// Entries that a replica is behind the leader; `None` if nobody knows.
fn lag(
    shard: ShardId,
    at: usize,
    id: u16,
    report: Option<&NodeReport>,
    leaders: &[Option<(usize, ShardReport)>],
) -> Option<u64> {
    let (leader_at, leader) = leaders[usize::from(shard.0)].as_ref()?;
    if *leader_at == at {
        return Some(0);
    }
    let own = report.and_then(|report| report.shards.iter().find(|own| own.shard == shard.0));
    // Of a node that does not answer, the leader knows how far it had come.
    let reached = own.map_or_else(|| leader.followers.get(&id).copied(), |own| Some(own.decided))?;
    Some(leader.decided.saturating_sub(reached))
}

/// Where a key is.
pub(crate) fn locate(map: &ClusterMap, answers: &Answers, key: &[u8]) -> Location {
    let slot = tholos_ring::slot(key);
    let shard = map.shard_of_key(key);
    let places: Vec<Option<usize>> =
        map.replica_set(shard).iter().map(|node| map.nodes.iter().position(|row| row.id == *node)).collect();
    let of = |text: fn(&NodeRow) -> &String| -> Vec<String> {
        places.iter().map(|at| at.map_or_else(String::new, |at| text(&map.nodes[at]).clone())).collect()
    };
    let applied = |at: &Option<usize>| {
        let report = answers[(*at)?].as_ref().ok()?;
        report.shards.iter().find(|own| own.shard == shard.0).map(|own| own.applied)
    };
    let leader = leaders(map, answers).swap_remove(usize::from(shard.0));
    Location {
        key: String::from_utf8_lossy(key).into_owned(),
        slot: slot.number(),
        shard: shard.0,
        replicas: of(|row| &row.name),
        zones: of(|row| &row.zone),
        applied: places.iter().map(applied).collect(),
        leader: leader.as_ref().map(|(at, _)| map.nodes[*at].name.clone()),
        ballot: leader.as_ref().and_then(|(_, report)| report.ballot.clone()),
        decided: leader.map(|(_, report)| report.decided),
    }
}

#[cfg(test)]
pub(crate) mod tests;
