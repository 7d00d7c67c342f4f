//! Jobs that start by themselves: others take over what a node holds that is down for too long, and, if that is wanted, nodes
//! that have come get their share.
//!
//! The leader of the meta group decides, by the same plans and checks as an operator's.
//!
//! - A1: a node counts as down from when this leader, which hears a majority of the meta group, and no node that it hears
//!   hears it. Nothing of that outlives the leadership, nor a time in which the leader itself stood still.
//! - A2: nothing starts while another job is not finished (E5), while automatic jobs are held, or while half of the members
//!   or more are not heard: then it is rather the network.
//! - A3: a plan that is blocked is not applied; it is made again until it is not, and the reason told.
//! - A4: a node that returns ends the job that replaces it: what is recorded stays, the rest is taken back.
//! - A5: so does one that gets replicas and is down for too long itself: what is left is planned anew.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use tholos_cluster::{
    Cause, Epoch, Facts, Job, JobMove, JobState, LAG_ENTRIES_MAX, MOVE_BYTES_PER_S_DEFAULT, MetaCommand,
    MetaState, MoveStage, NodeId, NodeRow, Outcome, Plan, Request, Standing, TITLE_BYTES_MAX, plan,
};
use tholos_paxos::Millis;

use crate::event::{Effects, Notice};
use crate::node::Node;

/// How often it is looked who is down.
const LOOK_INTERVAL: Millis = Millis(100);
/// Who has not looked for so long has stood still, and knows nothing of the time since.
const STOOD_STILL: Millis = Millis(1000);
/// A node must have been heard for so long to be back.
const BACK_AFTER: Millis = Millis(1000);
/// Nothing must come or go for so long before nodes that have come get their shares: two that join at once make one job.
const QUIET: Millis = Millis(5000);
/// After so long a plan is made again that was blocked, or whose job did not start.
const RETRY_INTERVAL: Millis = Millis(2000);
/// Moves under way at a time.
const IN_FLIGHT: u16 = 4;

/// What the leader of the meta group has seen so far.
#[derive(Debug, Default)]
pub(crate) struct Automatic {
    looked_at: Option<Millis>,
    /// Since when nodes are down (A1).
    down: BTreeMap<NodeId, Millis>,
    /// What the nodes that have come would be given, and since when that is so.
    come: Option<(Wanted, Millis)>,
    /// The map in which no member holds less than its share.
    even: Option<Epoch>,
    retry_at: Millis,
    /// Why what is due does not begin.
    blocked: Option<String>,
}

/// What nodes are to be given, and for which map.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    epoch: Epoch,
    spares: Vec<NodeId>,
}

/// On the leader of the meta group.
impl Node {
    /// For how long a node is down, as the leader of the meta group has measured it; `None` on other nodes, and if it is not.
    pub fn down_for(&self, node: NodeId) -> Option<Millis> {
        let now = self.time().mono;
        self.meta.automatic.down.get(&node).map(|since| now.since(*since))
    }

    /// Why a job does not start by itself that is due, as the leader of the meta group knows.
    pub fn automatic_blocked(&self) -> Option<&str> {
        self.meta.automatic.blocked.as_deref()
    }

    pub(crate) fn drive_automatic(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        if !self.leads_meta() || !self.hears_most_of_meta() {
            self.meta.automatic = Automatic::default();
            if !self.leads_meta() {
                self.meta.survey.stop();
            }
            return;
        }
        let before = self.meta.automatic.looked_at;
        if before.is_some_and(|at| now.since(at) < LOOK_INTERVAL) {
            return;
        }
        if before.is_some_and(|at| now.since(at) > STOOD_STILL) {
            self.meta.automatic = Automatic::default();
        }
        self.meta.automatic.looked_at = Some(now);
        self.note_down(now);
        if let Some(job) = self.meta.state().active_job() {
            let (end, asks) = (self.end_of(job), job.next_restart().is_some());
            // What is asked for a roll is asked here as well.
            if !asks {
                self.meta.survey.stop();
            }
            if let Some(command) = end {
                self.propose_meta(&command);
            }
            return;
        }
        let Some((requests, cause)) = self.wanted(now) else {
            self.meta.automatic.blocked = None;
            return self.meta.survey.stop();
        };
        if now < self.meta.automatic.retry_at {
            return;
        }
        let Some(facts) = self.survey(LAG_ENTRIES_MAX, out) else { return };
        self.meta.automatic.retry_at = now.plus(RETRY_INTERVAL);
        self.start_first(&requests, &cause, &facts, out);
    }

    /// What ends a job that started by itself, if anything does (A4, A5).
    fn end_of(&self, job: &Job) -> Option<MetaCommand> {
        if !job.cause.is_automatic() || job.state == JobState::Cancelling {
            return None;
        }
        if let Cause::Lost(nodes) = &job.cause {
            let back = |node: &&NodeId| self.detector.heard_for(**node) >= BACK_AFTER;
            if let Some(node) = nodes.iter().find(back) {
                return Some(MetaCommand::Returned(*node));
            }
        }
        let after = self.config.replace_after?;
        let gone = |node: NodeId| self.down_for(node).is_some_and(|down| down >= after);
        let open = |step: &&JobMove| step.stage == MoveStage::Waiting || step.is_under_way();
        let mut goals = job.moves.iter().filter(open).filter_map(|step| step.what.to);
        (job.state == JobState::Running && goals.any(gone)).then_some(MetaCommand::GiveUp(job.id))
    }

    fn hears_most_of_meta(&self) -> bool {
        let voters = self.meta.recorded_set(self.meta.group());
        let heard = voters.iter().filter(|node| self.detector.hears_node(**node)).count();
        heard > voters.len() / 2
    }

    /// A1.
    fn note_down(&mut self, now: Millis) {
        let me = self.config.me;
        let nodes: Vec<NodeId> = self.meta.map().nodes.iter().map(|row| row.id).collect();
        let is_down = |node: &NodeId| *node != me && !self.detector.anybody_hears(*node);
        let down: Vec<NodeId> = nodes.into_iter().filter(is_down).collect();
        let since = &mut self.meta.automatic.down;
        since.retain(|node, _| down.contains(node));
        for node in down {
            since.entry(node).or_insert(now);
        }
    }

    /// What is due, the best first, and why.
    fn wanted(&mut self, now: Millis) -> Option<(Vec<Request>, Cause)> {
        let state = self.meta.state();
        let down = &self.meta.automatic.down;
        let members =
            || (state.map.nodes.iter()).filter(|row| state.standing(row.id) == Some(Standing::Member));
        let heard = members().filter(|row| !down.contains_key(&row.id)).count();
        // A2
        if state.held || heard * 2 <= members().count() {
            return None;
        }
        let is_due = |node: &&NodeRow| {
            let down_for = down.get(&node.id).map(|since| now.since(*since));
            let due = down_for.zip(self.config.replace_after).is_some_and(|(down, after)| down >= after);
            // One that holds nothing yet counts on getting its share, and so do plans.
            due && (state.holds(node.id) > 0 || state.standing(node.id) == Some(Standing::Member))
        };
        let lost: Vec<NodeId> = state.map.nodes.iter().filter(is_due).map(|row| row.id).collect();
        if !lost.is_empty() {
            let with = stand_ins(state, &lost, |node| self.detector.hears_node(node));
            self.meta.automatic.come = None;
            let without = Request::Lost { nodes: lost.clone(), with: Vec::new() };
            let mut requests = Vec::new();
            if !with.is_empty() {
                requests.push(Request::Lost { nodes: lost.clone(), with });
            }
            requests.push(without);
            return Some((requests, Cause::Lost(lost)));
        }
        if !self.config.auto_placement || members().any(|row| down.contains_key(&row.id)) {
            self.meta.automatic.come = None;
            return None;
        }
        let is_spare = |row: &&NodeRow| state.standing(row.id) == Some(Standing::Spare);
        let spares = state.map.nodes.iter().filter(is_spare).map(|row| row.id);
        let spares: Vec<NodeId> = spares.filter(|node| self.detector.hears_node(*node)).collect();
        let wanted = Wanted { epoch: state.epoch(), spares };
        let since = match &self.meta.automatic.come {
            Some((before, since)) if *before == wanted => *since,
            _ => now,
        };
        let request = match wanted.spares.is_empty() {
            true => Request::Even,
            false => Request::Add(wanted.spares.clone()),
        };
        let nothing = request == Request::Even && self.meta.automatic.even == Some(wanted.epoch);
        self.meta.automatic.come = Some((wanted, since));
        (now.since(since) >= QUIET && !nothing).then(|| (Vec::from([request]), Cause::Placement))
    }

    /// Starts the job of the first plan that nothing blocks (A3).
    fn start_first(&mut self, requests: &[Request], cause: &Cause, facts: &Facts, out: &mut Effects) {
        let mut why = None;
        for request in requests {
            let state = self.meta.state();
            let made = match plan(&state.map, &state.standings, facts, request) {
                Ok(made) => made,
                Err(error) => {
                    why = Some(format!("{}: {error}", request.to_words(&state.map)));
                    continue;
                }
            };
            if let Some(reason) = first_block(&made) {
                why = Some(format!("{}: {}", request.to_words(&state.map), reason.to_words(&state.map)));
                continue;
            }
            let mut order = made.to_order(&state.map, IN_FLIGHT, MOVE_BYTES_PER_S_DEFAULT);
            order.cause = cause.clone();
            order.title = self.title(request, cause);
            self.meta.automatic.blocked = None;
            if *request == Request::Even && made.copies() == 0 {
                self.meta.automatic.even = Some(made.epoch);
                return;
            }
            out.notices.push(Notice::JobStarts { title: order.title.clone() });
            return self.propose_meta(&MetaCommand::StartJob(order));
        }
        self.meta.automatic.blocked = why;
    }

    fn title(&self, request: &Request, cause: &Cause) -> String {
        let map = self.meta.map();
        let name = |node: &NodeId| map.node(*node).map_or_else(|| format!("{node}"), |row| row.name.clone());
        let names = |nodes: &[NodeId]| nodes.iter().map(name).collect::<Vec<_>>().join(" ");
        let words = match (request, cause) {
            (Request::Lost { nodes, with }, _) => {
                let down = nodes.iter().filter_map(|node| self.down_for(*node)).min().unwrap_or_default();
                let by = if with.is_empty() { String::new() } else { format!(" by {}", names(with)) };
                format!("replace {}{by} (down for {})", names(nodes), duration(down))
            }
            (request, _) => format!("{} (by itself)", request.to_words(map)),
        };
        cut(words)
    }
}

/// Spares for nodes that are lost, one each: who bears its name since, then of the same zone, then of one that has no member.
/// What a drained node leaves is for the members.
fn stand_ins(state: &MetaState, lost: &[NodeId], is_heard: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let rows = &state.map.nodes;
    let is = |node: NodeId, standing: Standing| state.standing(node) == Some(standing);
    let is_free = |row: &&NodeRow| is(row.id, Standing::Spare) && is_heard(row.id) && !lost.contains(&row.id);
    let mut spares: Vec<&NodeRow> = rows.iter().filter(is_free).collect();
    let stays = |row: &NodeRow| is(row.id, Standing::Member) && !lost.contains(&row.id);
    let has_member = |zone: &str| !zone.is_empty() && rows.iter().any(|row| row.zone == zone && stays(row));
    let had_share = |node| is(node, Standing::Member) || is(node, Standing::Lost);
    let mut chosen = Vec::new();
    for gone in rows.iter().filter(|row| lost.contains(&row.id) && had_share(row.id)) {
        let heir = state.heir_of(gone.id).map(|row| row.id);
        let suits = |row: &NodeRow| {
            let same = !row.zone.is_empty() && row.zone == gone.zone;
            (heir != Some(row.id), !same, has_member(&row.zone), row.id)
        };
        let best = (0..spares.len()).min_by_key(|at| suits(spares[*at]));
        chosen.extend(best.map(|at| spares.remove(at).id));
    }
    chosen.sort_unstable();
    chosen
}

/// Titles have a bound.
fn cut(mut words: String) -> String {
    while words.len() > TITLE_BYTES_MAX {
        words.pop();
    }
    words
}

/// What blocks a plan, if something does.
pub(crate) fn first_block(plan: &Plan) -> Option<&tholos_cluster::Reason> {
    let blocks = plan.checks.iter().filter(|check| check.outcome == Outcome::Blocks);
    blocks.flat_map(|check| &check.reasons).next()
}

/// A time as people say it.
fn duration(time: Millis) -> String {
    let seconds = time.0 / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tholos_cluster::{ClusterId, ClusterMap, Incarnation};

    use super::*;

    fn row(number: u16, zone: &str) -> NodeRow {
        NodeRow {
            id: NodeId(0),
            name: format!("n{number}"),
            zone: zone.into(),
            weight: 1,
            incarnation: Incarnation(u64::from(number)),
            gateway: String::new(),
            cluster: String::new(),
            peer: String::new(),
            http: String::new(),
        }
    }

    /// n1, n2, n3 in zones a, b, c, and spares n4 and on in these.
    fn with_spares(zones: &[&str]) -> MetaState {
        let rows = (1..).zip(["a", "b", "c"]).map(|(number, zone)| row(number, zone)).collect();
        let map = ClusterMap::genesis(ClusterId([7; 20]), rows, 4, 3).expect("three nodes");
        let mut state = Some(MetaState::founded(map));
        for (number, zone) in (4..).zip(zones) {
            let joined = MetaState::apply(&mut state, &MetaCommand::Join(row(number, zone)), Millis(0));
            assert_eq!(joined, Ok(u64::from(number)));
        }
        state.expect("it is founded")
    }

    #[track_caller]
    fn check(state: &MetaState, lost: &[u16], silent: &[u16], expected: &[u16]) {
        let ids = |nodes: &[u16]| nodes.iter().copied().map(NodeId).collect::<Vec<_>>();
        let chosen = stand_ins(state, &ids(lost), |node| !silent.contains(&node.0));
        assert_eq!(chosen, ids(expected));
    }

    #[test]
    fn a_spare_of_the_same_zone_stands_in_else_one_of_a_zone_without_members() {
        let state = with_spares(&["a", "d", "c"]);
        check(&state, &[3], &[], &[6]);
        check(&state, &[1], &[], &[4]);
        check(&state, &[2], &[], &[5]);
        check(&state, &[2, 3], &[], &[5, 6]);
        // Who is lost as well, or not heard, stands in for nobody; nor does anybody for a spare.
        check(&state, &[3], &[6], &[5]);
        check(&state, &[3, 6], &[], &[5]);
        check(&state, &[6], &[], &[]);
        check(&with_spares(&[]), &[3], &[], &[]);
    }

    #[test]
    fn who_bears_the_name_of_a_lost_node_stands_in_for_it() {
        let mut state = Some(with_spares(&["b"]));
        let wiped = NodeRow { incarnation: Incarnation(99), ..row(2, "x") };
        let number = MetaState::apply(&mut state, &MetaCommand::Rejoin(wiped), Millis(0));
        let heir = u16::try_from(number.expect("n2 is known")).expect("a node's number");
        let state = state.expect("it is founded");
        check(&state, &[2], &[], &[heir]);
        check(&state, &[2], &[heir], &[4]);
        assert_eq!(vec![NodeId(2)], [state.map.by_name("n2.lost.2").expect("it is lost").id]);
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = [0, 59_999, 600_000, 90_000, 3_600_000, 5_000_000].map(|time| duration(Millis(time)));
        assert_eq!(said, ["0 s", "59 s", "10 min", "1 min 30 s", "1 h", "1 h 23 min"]);
    }

    #[test]
    fn titles_are_cut_at_a_character() {
        let title = cut("ü".repeat(TITLE_BYTES_MAX));
        assert_eq!(title.len(), TITLE_BYTES_MAX);
    }
}
