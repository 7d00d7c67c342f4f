//! Membership in a run: a fourth machine joins three, jobs move replicas between the four, and one of them may lose its disk and
//! come back under its name as a new node (R21), whatever else goes wrong.
//!
//! Here is only what is asked of the meta group, and what must be true in the end; the nodes do the rest.

use tholos_cluster::{
    Cause, Job, JobOrder, JobState, MetaCommand, MetaState, Move, NodeChange, NodeId, NodeRow, Standing,
    THROTTLE_BYTES_MIN,
};
use tholos_node::Node;
use tholos_ring::ShardId;

use crate::coverage::Reached;
use crate::founding::nodes_of;
use crate::random::Random;

/// Replicas of a shard, at least and at most: fewer could not lose one.
const VOTERS: (usize, usize) = (3, 4);

/// Who they are, where four or five nodes found the cluster and one more machine joins: without them most are left.
const ZONE_MATES: (usize, usize) = (3, 4);
/// They stay away for so much longer than one machine does.
const ZONE_DOWN_US: u64 = 3_000_000;

/// Between the numbers of a machine's nodes: what `tholos-cluster` gives a node named n2 that comes back.
pub const LIVES_APART: usize = 1000;

/// What becomes of the membership of one run.
#[derive(Debug)]
pub struct Elastic {
    /// Whether anything does: half of the seeds.
    pub is_on: bool,
    /// Whether the fourth machine has joined.
    pub joined: bool,
    /// How long a machine may be down until others take over, in milliseconds; never in half of these runs.
    pub replace_after_ms: Option<u64>,
    /// Two machines, counted from 0, that stand in one zone, and are away at the same time: in those of these runs in which
    /// most are left then.
    pub zone_mates: Option<(usize, usize)>,
    /// Whether nodes get their shares by themselves: half of those.
    pub auto_placement: bool,
    seen: u64,
    /// Whether a machine loses its disk: half of these.
    pub wipes: bool,
    /// The machine that has lost its disk and is not let in again yet.
    pub wiped: Option<usize>,
    plans: u64,
}

impl Elastic {
    /// Of the run of a seed.
    pub fn of(seed: u64) -> Elastic {
        let is_on = Random::new(seed ^ 0xe1a5_71c0).below(2) == 0;
        // Chance of their own, so that seeds which were looked at before stay what they were.
        let mut chance = Random::new(seed ^ 0x1057_0de5);
        let replaces = is_on && chance.below(2) == 0;
        Elastic {
            is_on,
            joined: false,
            zone_mates: match nodes_of(seed) {
                4.. if replaces => Some(ZONE_MATES),
                _ => None,
            },
            replace_after_ms: replaces.then(|| chance.between(1_500, 4_000)),
            auto_placement: replaces && chance.below(2) == 0,
            seen: 0,
            wipes: is_on && Random::new(seed ^ 0x0031_9ed0).below(2) == 0,
            wiped: None,
            plans: 0,
        }
    }

    /// In runs in which others take over, a machine is away for longer than that, or a whole zone: when, which one, and for
    /// how long.
    pub fn losses(&self, seed: u64, machines: usize) -> Vec<(u64, usize, u64)> {
        let Some(after_ms) = self.replace_after_ms else { return Vec::new() };
        let mut chance = Random::new(seed ^ 0xdead_0de5);
        let at = chance.between(4_000_000, 34_000_000);
        let down_us = after_ms * 1000 + chance.between(1_000_000, 10_000_000);
        match self.zone_mates {
            // Most often at once, as when the power fails.
            Some((one, other)) => {
                let later = if chance.below(3) == 0 { chance.below(500_000) } else { 0 };
                vec![(at, one, down_us + ZONE_DOWN_US), (at + later, other, down_us + ZONE_DOWN_US)]
            }
            None => vec![(at, chance.below(machines as u64) as usize, down_us)],
        }
    }

    /// Looks at a state that a node knows, and says what is new in it.
    pub fn look(&mut self, state: &MetaState) -> Vec<Reached> {
        let ended = |job: &&Job| job.id > self.seen && job.state.is_finished();
        let jobs: Vec<&Job> = state.jobs.iter().filter(ended).collect();
        let reached = |job: &&Job| match (&job.cause, job.state) {
            (Cause::Lost(nodes), JobState::Done) if !job.moves.is_empty() => Some(match nodes.len() {
                1 => Reached::NodeReplaced,
                _ => Reached::ZoneReplaced,
            }),
            (Cause::Lost(nodes), JobState::Cancelled) => {
                let back = nodes.iter().any(|node| state.standing(*node) == Some(Standing::Member));
                back.then_some(Reached::NodeReturned)
            }
            _ => None,
        };
        let reached = jobs.iter().filter_map(reached).collect();
        self.seen = jobs.iter().map(|job| job.id).max().unwrap_or(self.seen);
        reached
    }

    /// What is asked next by whoever sees this state, if anything; `late`: nothing new begins.
    pub fn next(
        &mut self,
        row: NodeRow,
        state: &MetaState,
        late: bool,
        random: &mut Random,
    ) -> Option<MetaCommand> {
        if state.map.by_name(&row.name).is_none() {
            return Some(MetaCommand::Join(row));
        }
        // Nothing begins by itself any more when all is to come to an end; before, it is held and released by chance.
        match (state.held, self.replace_after_ms) {
            (false, Some(_)) if late => return Some(MetaCommand::Hold(true)),
            (true, Some(_)) if !late && random.below(3) == 0 => return Some(MetaCommand::Hold(false)),
            _ => {}
        }
        if let Some(job) = state.active_job() {
            let is_lost = |node: NodeId| state.standing(node) == Some(Standing::Lost);
            let stuck = job.moves.iter().any(|step| step.is_under_way() && step.what.to.is_some_and(is_lost));
            if (late && !job.restarts.is_empty()) || (stuck && job.state != JobState::Cancelling) {
                return Some(MetaCommand::Cancel(job.id));
            }
            let goes_on = job.state == JobState::Paused && (late || random.below(2) == 0);
            return match random.below(26) {
                _ if goes_on => Some(MetaCommand::Resume(job.id)),
                0 | 1 => Some(MetaCommand::Cancel(job.id)).filter(|_| !late),
                2..=4 => Some(MetaCommand::Pause(job.id)).filter(|_| !late),
                24 | 25 => Some(MetaCommand::Throttle { job: job.id, bytes_per_s: throttle(random) }),
                _ => None,
            };
        }
        if late {
            return None;
        }
        // Else the jobs by chance leave no time for those that begin by themselves.
        if self.replace_after_ms.is_some() && random.below(6) > 0 {
            return None;
        }
        self.plans += 1;
        let rolls = self.replace_after_ms.is_some() && random.below(3) == 0;
        let moves = if rolls { Vec::new() } else { moves(state, random) };
        let restarts = state.map.nodes.iter().map(|row| row.id).filter(|_| rolls && random.below(2) == 0);
        let restarts = restarts.collect();
        let standing = NodeChange::Standing(state.map.by_name(&row.name)?.id, Standing::Member);
        Some(MetaCommand::StartJob(JobOrder {
            // Asked at several nodes, the same plan is the same job.
            plan: self.plans,
            epoch: state.epoch(),
            title: String::from("a plan by chance"),
            in_flight_max: random.between(1, 3) as u16,
            bytes_per_s: throttle(random),
            replicas: state.map.replicas,
            changes: if random.below(2) == 0 { vec![standing] } else { Vec::new() },
            moves,
            removes: Vec::new(),
            cause: Cause::Operator,
            restarts,
        }))
    }
}

/// No throttle, the lowest, or one that hardly holds anything back.
fn throttle(random: &mut Random) -> u64 {
    [0, THROTTLE_BYTES_MIN, 50 * THROTTLE_BYTES_MIN][random.below(3) as usize]
}

/// Moves of some groups, each by chance: away from a node that holds it to one that does not, one more, or one less.
fn moves(state: &MetaState, random: &mut Random) -> Vec<Move> {
    let mut moves = Vec::new();
    let rows = state.map.nodes.iter().zip(&state.standings);
    let nodes: Vec<NodeId> =
        rows.filter(|(_, standing)| **standing != Standing::Lost).map(|(row, _)| row.id).collect();
    for group in (0..state.configs.len()).map(|at| ShardId(at as u16)) {
        if random.below(3) == 0 {
            continue;
        }
        let voters: Vec<NodeId> = state.voters(group).collect();
        let others: Vec<NodeId> = nodes.iter().copied().filter(|node| !voters.contains(node)).collect();
        let mut one_of = |nodes: &[NodeId]| {
            let count = nodes.len() as u64;
            (count > 0).then(|| nodes[random.below(count) as usize])
        };
        let (mut from, mut to) = (one_of(&voters), one_of(&others));
        match random.below(6) {
            0 if voters.len() < VOTERS.1 => from = None,
            1 if voters.len() > VOTERS.0 => to = None,
            _ => {}
        }
        // No plan leaves those who are lost a majority.
        let lost = voters.iter().copied().find(|node| state.standing(*node) == Some(Standing::Lost));
        let goes = |voter: &NodeId| from == Some(*voter);
        let alive = voters.iter().filter(|voter| !goes(voter) && nodes.contains(voter)).count();
        let after = voters.len() - usize::from(from.is_some()) + usize::from(to.is_some());
        if 2 * (alive + usize::from(to.is_some())) <= after {
            from = lost.or(from);
        }
        if to.is_some() || (from.is_some() && voters.len() > VOTERS.0) {
            moves.push(Move { shard: group, from, to });
        }
    }
    moves
}

/// What is wrong in the end, when nothing went wrong for a while: all nodes know one map, nothing is under way, and each
/// holds what the map says.
pub fn verdict<'a>(nodes: impl Iterator<Item = (NodeId, &'a Node)> + Clone) -> Option<String> {
    let newest = nodes.clone().map(|(_, node)| node.meta_state()).max_by_key(|state| state.epoch())?;
    if let Some(job) = newest.active_job() {
        let open: Vec<String> =
            job.moves.iter().filter(|step| step.is_under_way()).map(|step| step.what.to_string()).collect();
        return Some(format!("job {} is {:?} without end: {}", job.id, job.state, open.join(", ")));
    }
    for (id, node) in nodes {
        if node.meta_state() != newest {
            return Some(format!("{id} has the map {}, and {} is out", node.map().epoch, newest.epoch()));
        }
        for (at, config) in newest.configs.iter().enumerate() {
            let group = ShardId(at as u16);
            let held = node.shard(group).map(|shard| shard.group.me());
            let recorded = config.voters.iter().copied().find(|replica| replica.node() == id.0);
            if !config.learners.is_empty() || held != recorded {
                let words = |replica: Option<_>| {
                    replica.map_or("none".to_owned(), |one: tholos_paxos::ReplicaId| one.to_string())
                };
                return Some(format!(
                    "{id} holds {group} as {}, recorded is {}",
                    words(held),
                    words(recorded)
                ));
            }
        }
    }
    None
}
