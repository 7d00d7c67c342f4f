//! Carries out the running job: the leader of the meta group orders its moves, and the leaders of the shards make them.
//!
//! ```text
//!   meta leader                                shard's leader                 the shard's log
//!   Order decided ── order, again and again ──▶ one step, if none is under way
//!                                                  `to` learns  ─────────────▶ c + 1
//!                                                  `to` has what is decided
//!                                                  `to` for `from`  ─────────▶ c + 2
//!   Record decided ◀── the set is c + 2 ──────────┘
//! ```
//!
//! - V1: how far a move is stands in the shard's log and nowhere else: its configurations carry the number of the move.
//!   So each step may be ordered twice, and by any meta leader to any leader of the shard.
//! - V2: an order is for one configuration (R7). Once the set has gone another way it changes nothing, however late it
//!   comes. To take a move back that is not begun is a step too, which makes the order one for an old configuration.
//! - V3: a set is recorded, and with that its removed replica dropped, only when most of its voters know that it is
//!   decided. Else those that are left could need the one that is gone, to be a majority of the set before.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tholos_cluster::{JobState, MetaCommand, Move, MoveStage, NodeId};
use tholos_paxos::{Ballot, Config, Entry, Index, Message, Millis, MoveId, Payload, ReplicaId};
use tholos_ring::ShardId;

use crate::detector::node_of;
use crate::event::{Effects, Notice, ReplicaOrder};
use crate::hints;
use crate::meta::progress::{JobProgress, Progress};
use crate::node::Node;
use crate::peer::{MoveOrder, MoveReport, PeerMessage, Wait};

/// How often the running job is looked at.
const LOOK_INTERVAL: Millis = Millis(20);
/// An order is given again after this long.
const ORDER_INTERVAL: Millis = Millis(50);
/// A node that is to hold nothing hands a leadership over before it gives the replica up; for so long, if it cannot.
const LEADS_ON_FOR: Millis = Millis(5000);
/// A learner that lacks no more entries than this has caught up: they are on their way to it.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// What leaders know of the moves under way: that of the meta group, and those of shards.
#[derive(Debug, Default)]
pub(crate) struct Mover {
    looked_at: Millis,
    progress: Progress,
    /// On leaders of shards: what was sent for the move under way.
    sending: BTreeMap<ShardId, Sending>,
    /// Since when nobody is known to lead the meta group while a job is to run.
    leaderless_since: Option<Millis>,
    /// On leaders of shards: the entry by which the voters of a configuration, and in which ballot, learn that it is
    /// decided.
    told: BTreeMap<ShardId, (Ballot, u64, Index)>,
    /// On a leader of shards that is to hold nothing: which move was first ordered when, while it tries to hand over.
    leaves: BTreeMap<ShardId, (MoveId, Millis)>,
}

/// What a leader has sent for one move.
#[derive(Debug)]
struct Sending {
    move_id: MoveId,
    to: NodeId,
    bytes: u64,
    /// What it may send in a second; 0 if nothing holds it back.
    share: u64,
    /// Whether it goes on.
    open: bool,
}

impl Mover {
    /// Bytes of a snapshot were sent to a node.
    pub(crate) fn count_sent(&mut self, shard: ShardId, to: NodeId, bytes: u64) {
        if let Some(sending) = self.sending.get_mut(&shard).filter(|sending| sending.open && sending.to == to)
        {
            sending.bytes += bytes;
        }
    }

    /// Messages of a shard are sent; entries in them count if they are for the replica that a move brings.
    pub(crate) fn count_entries(&mut self, shard: ShardId, sends: &[(ReplicaId, Message)]) {
        if self.sending.is_empty() || sends.is_empty() {
            return;
        }
        let Some(sending) = self.sending.get_mut(&shard).filter(|sending| sending.open) else { return };
        for (to, message) in sends {
            if let Message::Sync { entries, .. } | Message::Accept { entries, .. } = message
                && to.node() == sending.to.0
            {
                sending.bytes += entries.iter().map(Entry::cost_bytes).sum::<usize>() as u64;
            }
        }
    }

    /// The shard is not led here any more.
    pub(crate) fn stopped_leading(&mut self, shard: ShardId) {
        self.sending.remove(&shard);
        self.told.remove(&shard);
    }

    /// The order that the shard's leader works at; what it has sent for it.
    fn note_order(&mut self, order: &MoveOrder) -> u64 {
        let Some(to) = order.to.filter(|to| order.from != Some(*to)) else { return 0 };
        let begun = |sending: &&mut Sending| sending.move_id == order.move_id;
        if let Some(sending) = self.sending.get_mut(&order.shard).filter(begun) {
            sending.share = order.share;
            return sending.bytes;
        }
        let sending = Sending { move_id: order.move_id, to, bytes: 0, share: order.share, open: true };
        self.sending.insert(order.shard, sending);
        0
    }

    /// What may be sent to a node in a second, by the order for it; 0 if nothing holds it back.
    pub(super) fn share(&self, shard: ShardId, to: NodeId) -> Option<u64> {
        let sending = self.sending.get(&shard).filter(|sending| sending.open && sending.to == to);
        sending.map(|sending| sending.share)
    }

    fn end_sending(&mut self, shard: ShardId) {
        if let Some(sending) = self.sending.get_mut(&shard) {
            sending.open = false;
        }
    }
}

/// What is to be done next for an order.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// This set is to be decided.
    Change { voters: Vec<NodeId>, learners: Vec<NodeId> },
    /// The same, once the node that is to vote has what is decided.
    Switch { voters: Vec<NodeId>, learners: Vec<NodeId> },
    /// Nothing: the move is made, or taken back, or the set has gone another way.
    Through,
}

/// What the latest configuration of a shard, which is decided, wants done for an order.
fn next_step(config: &Config, order: &MoveOrder) -> Step {
    let nodes = |replicas: &[ReplicaId]| -> Vec<NodeId> {
        replicas.iter().map(|replica| NodeId(replica.node())).collect()
    };
    let (voters, mut learners) = (nodes(&config.voters), nodes(&config.learners));
    let fresh = config.number == order.number;
    if !fresh && config.move_id != order.move_id {
        // V2
        return Step::Through;
    }
    let learns = order.to.is_some_and(|to| learners.contains(&to));
    if order.back {
        learners.retain(|node| Some(*node) != order.to);
        return if fresh || learns { Step::Change { voters, learners } } else { Step::Through };
    }
    let step = Move { shard: order.shard, from: order.from, to: order.to };
    if step.leads().is_some() {
        let after = step.set_after(&voters).filter(|_| fresh);
        return after.map_or(Step::Through, |voters| Step::Change { voters, learners });
    }
    match (order.to, step.set_after(&voters)) {
        (Some(to), Some(_)) if fresh && !learns => {
            learners.push(to);
            Step::Change { voters, learners }
        }
        (_, Some(after)) if fresh || learns => {
            learners.retain(|node| Some(*node) != order.to);
            Step::Switch { voters: after, learners }
        }
        _ => Step::Through,
    }
}

/// On the leader of the meta group.
impl Node {
    /// How many entries the node that is to get a shard lacks; known on the leader of the meta group, while it learns.
    pub fn move_behind(&self, shard: ShardId) -> Option<u64> {
        self.meta.mover.progress.behind(shard)
    }

    /// How far the running job is; known on the leader of the meta group.
    pub fn job_progress(&self) -> Option<JobProgress> {
        self.meta.mover.progress.report(self.time().mono)
    }

    /// For how long a job has waited for a leader of the meta group, as far as this node knows.
    pub fn meta_leaderless_for(&self) -> Option<Millis> {
        Some(self.time().mono.since(self.meta.mover.leaderless_since?))
    }

    /// A job is to run: whether somebody leads the meta group.
    fn watch_meta_leader(&mut self) {
        let now = self.time().mono;
        let waits = self.meta.state().active_job().is_some() && self.leader_of(self.meta.group()).is_none();
        let since = self.meta.mover.leaderless_since.filter(|_| waits);
        self.meta.mover.leaderless_since = since.or(waits.then_some(now));
    }

    pub(crate) fn drive_job(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        if now.since(self.meta.mover.looked_at) < LOOK_INTERVAL {
            return;
        }
        self.meta.mover.looked_at = now;
        self.watch_meta_leader();
        if !self.leads_meta() {
            return self.meta.mover.progress.clear();
        }
        let Some(job) = self.meta.state.active_job() else {
            return self.meta.mover.progress.clear();
        };
        let (id, moved_bytes) = (job.id, job.moved_bytes);
        let due: Vec<MetaCommand> =
            job.due().into_iter().map(|at| MetaCommand::Order { job: id, at }).collect();
        let order = |(at, step): (u32, &tholos_cluster::JobMove)| {
            let MoveStage::Ordered { number } = step.stage else { return None };
            let Move { shard, from, to } = step.what;
            // Who is lost takes nothing any more.
            let is_lost = to.is_some_and(|to| self.meta.state().is_gone(to));
            let back = job.state == JobState::Cancelling || is_lost;
            let share = to.and_then(|to| self.meta.throttle.rate(shard, to)).unwrap_or(0);
            Some(MoveOrder { shard, move_id: MoveId(job.move_id(at)), number, from, to, back, share })
        };
        let orders: Vec<MoveOrder> = (0..).zip(&job.moves).filter_map(order).collect();
        for command in due {
            self.propose_meta(&command);
        }
        let shards: Vec<ShardId> = orders.iter().map(|order| order.shard).collect();
        self.meta.mover.progress.keep(id, &shards, moved_bytes, now);
        for order in orders {
            let leader = self.leader_of(order.shard);
            if !self.meta.mover.progress.order(order.shard, leader.is_some(), ORDER_INTERVAL, now) {
                continue;
            }
            let me = self.config.me;
            match leader {
                Some(leader) if leader == me => self.handle_move_order(me, &order, out),
                Some(leader) => {
                    if self.meta.mover.progress.is_unheard(order.shard, now) {
                        // A replica here may have been removed and not know it, and follow one that leads no more.
                        let question = hints::question(order.shard, self.gateway.boot());
                        out.sends.push((leader, PeerMessage::Forward(question)));
                    }
                    out.sends.push((leader, PeerMessage::MoveOrder(order)));
                }
                None => {}
            }
        }
    }

    pub(crate) fn leads_meta(&self) -> bool {
        self.shard(self.meta.group()).is_some_and(|shard| shard.group.serving())
    }

    /// What a shard's leader says of an order.
    pub(crate) fn handle_move_report(&mut self, from: NodeId, report: MoveReport) {
        if !self.leads_meta() {
            return;
        }
        let now = self.time().mono;
        self.meta.mover.progress.hear(from, &report, now);
        let bytes = self.meta.mover.progress.sent(report.shard);
        let Some(config) = report.config else { return };
        let recorded = self.meta.state().config(report.shard).map(|config| config.number);
        if recorded.is_some_and(|number| number < config.number) {
            self.propose_meta(&MetaCommand::Record { group: report.shard, config, bytes });
        }
    }
}

/// On the leader of the shard.
impl Node {
    /// Takes one step of a move, if it is time, and says how far it is.
    pub(crate) fn handle_move_order(&mut self, from: NodeId, order: &MoveOrder, out: &mut Effects) {
        let Some(report) = self.step_move(order, out) else { return };
        self.mark_dirty(order.shard);
        self.collect(order.shard, out);
        if from == self.config.me {
            self.handle_move_report(from, report);
        } else {
            out.sends.push((from, PeerMessage::MoveReport(report)));
        }
    }

    fn step_move(&mut self, order: &MoveOrder, out: &mut Effects) -> Option<MoveReport> {
        let id = order.shard;
        let group = &self.shard(id)?.group;
        if !group.serving() || group.draining() || group.config().number < order.number {
            return None;
        }
        if self.leads_on(order, out) {
            let config = self.shard(id)?.group.config().clone();
            return Some(self.report_of(order, &config));
        }
        let group = &self.shard(id)?.group;
        let config = group.config().clone();
        let under_way = group.applied_config().number < config.number;
        let mut report = self.report_of(order, &config);
        if under_way {
            return Some(report);
        }
        let (voters, learners) = match next_step(&config, order) {
            Step::Change { voters, learners } => (voters, learners),
            Step::Switch { voters, learners } => {
                let mark = order.to.map(|to| self.mark(id, to));
                let decided = self.shard(id)?.group.decided_index();
                report.behind = mark.map(|mark| decided.0.saturating_sub(mark.0));
                // Who has nothing at all may not even be there, however little there is.
                let lacks = |mark: Index| mark == Index::ZERO || mark.0 + CAUGHT_UP_ENTRIES < decided.0;
                if mark.is_some_and(lacks) {
                    report.wait = order.to.map_or(Wait::Entries, |to| self.learner_waits(id, to));
                    return Some(report);
                }
                (voters, learners)
            }
            Step::Through => {
                self.meta.mover.end_sending(id);
                report.wait = if report.wait == Wait::Quorum { Wait::Quorum } else { Wait::Told };
                report.config = Some(config).filter(|config| self.most_know(id, config));
                return Some(report);
            }
        };
        let change =
            ReplicaOrder { shard: id, number: config.number, move_id: order.move_id, voters, learners };
        // What is refused now is ordered again.
        if self.change_replicas(&change).is_ok() {
            out.notices.push(Notice::ReplicasChanging { shard: id, move_id: order.move_id });
        }
        Some(report)
    }

    /// Whether this node, which is to hold nothing, hands the shard over first: leaders go before replicas.
    fn leads_on(&mut self, order: &MoveOrder, out: &mut Effects) -> bool {
        let (id, me, now) = (order.shard, self.config.me, self.time().mono);
        if order.back || order.from != Some(me) || order.to == Some(me) || self.is_member(me) {
            return false;
        }
        let began = self.meta.mover.leaves.get(&id).filter(|began| began.0 == order.move_id);
        let since = began.map_or(now, |began| began.1);
        self.meta.mover.leaves.insert(id, (order.move_id, since));
        now.since(since) < LEADS_ON_FOR && self.hand_to_member(id, out)
    }

    /// How far a move is, of which the shard's latest configuration is `config`; it waits for a decision or, if most
    /// voters are not heard, for them.
    fn report_of(&mut self, order: &MoveOrder, config: &Config) -> MoveReport {
        let me = self.config.me;
        let hears = |replica: ReplicaId| replica.node() == me.0 || self.detector.hears_node(node_of(replica));
        let wait = if config.majority(hears) { Wait::Decision } else { Wait::Quorum };
        let sent = self.meta.mover.note_order(order);
        let total = match self.shard(order.shard) {
            Some(shard) if order.to.is_some() && order.to != order.from => shard.keyspace.data_bytes() as u64,
            _ => 0,
        };
        MoveReport {
            number: config.number,
            sent,
            total: total.max(sent),
            wait,
            ..MoveReport::new(order.shard)
        }
    }

    /// V3: whether most voters know that `config`, the decided one, is decided; if not, sees to it. An entry that was
    /// proposed afterwards tells them, and what they accepted they have heard.
    pub(crate) fn most_know(&mut self, id: ShardId, config: &Config) -> bool {
        let (time, seed) = (self.shard_time(id), self.fresh_chance());
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return false };
        let Some(ballot) = shard.group.leading() else { return false };
        let told = self.meta.mover.told.get(&id).filter(|told| (told.0, told.1) == (ballot, config.number));
        let Some((.., index)) = told.copied() else {
            // What is refused now is tried with the next order.
            if let Ok(index) = shard.group.propose(Payload::Noop, time, seed, &mut self.outbox) {
                self.meta.mover.told.insert(id, (ballot, config.number, index));
            }
            return false;
        };
        let marks: Vec<(ReplicaId, Index)> = shard.group.followers().collect();
        let (me, own) = (shard.group.me(), shard.group.own_durable_index());
        let mark = |replica| {
            let other = marks.iter().find(|(other, _)| *other == replica).map(|(_, mark)| *mark);
            if replica == me { own } else { other.unwrap_or(Index::ZERO) }
        };
        config.majority(|replica| mark(replica) >= index)
    }

    /// How far the replica at `node` has accepted, as far as the leader here knows.
    pub(crate) fn mark(&self, id: ShardId, node: NodeId) -> Index {
        let mut followers = self.shard(id).into_iter().flat_map(|shard| shard.group.followers());
        followers.find(|(replica, _)| replica.node() == node.0).map_or(Index::ZERO, |(_, mark)| mark)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use tholos_paxos::Serial;

    use super::*;

    const MOVE: MoveId = MoveId(77);

    fn config(number: u64, move_id: MoveId, voters: &[u16], learners: &[u16]) -> Config {
        let ids = |nodes: &[u16]| nodes.iter().map(|node| ReplicaId::new(*node, Serial(0))).collect();
        Config { number, move_id, learners: ids(learners), ..Config::founding(ids(voters)) }
    }

    /// What follows from an order for configuration 4 of n1, n2, n3: n4 for n1.
    #[track_caller]
    fn check(config: &Config, back: bool, expected: &Step) {
        let order = MoveOrder {
            shard: ShardId(0),
            move_id: MOVE,
            number: 4,
            from: Some(NodeId(1)),
            to: Some(NodeId(4)),
            back,
            share: 0,
        };
        assert_eq!(next_step(config, &order), *expected);
    }

    fn nodes(numbers: &[u16]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn change(learners: &[u16]) -> Step {
        Step::Change { voters: nodes(&[1, 2, 3]), learners: nodes(learners) }
    }

    #[test]
    fn a_move_goes_step_by_step_and_each_is_read_off_the_log() {
        check(&config(4, MoveId(5), &[1, 2, 3], &[]), false, &change(&[4]));
        let switch = Step::Switch { voters: nodes(&[4, 2, 3]), learners: vec![] };
        check(&config(5, MOVE, &[1, 2, 3], &[4]), false, &switch);
        check(&config(6, MOVE, &[2, 3, 4], &[]), false, &Step::Through);
    }

    #[test]
    fn a_move_is_taken_back_from_wherever_it_is() {
        // Not begun: the order must become one for an old configuration.
        check(&config(4, MoveId(5), &[1, 2, 3], &[]), true, &change(&[]));
        check(&config(5, MOVE, &[1, 2, 3], &[4]), true, &change(&[]));
        check(&config(5, MOVE, &[1, 2, 3], &[]), true, &Step::Through);
        // Too late.
        check(&config(6, MOVE, &[2, 3, 4], &[]), true, &Step::Through);
    }

    #[test]
    fn an_order_for_an_old_configuration_changes_nothing() {
        for back in [false, true] {
            check(&config(5, MoveId(78), &[1, 2, 3], &[]), back, &Step::Through);
            check(&config(7, MoveId(78), &[1, 2, 3], &[4]), back, &Step::Through);
        }
        // Taken back while an order was on its way.
        check(&config(6, MOVE, &[1, 2, 3], &[]), false, &Step::Through);
    }

    #[test]
    fn a_set_grows_by_learning_and_shrinks_at_once() {
        let order = |from: Option<u16>, to: Option<u16>| MoveOrder {
            shard: ShardId(0),
            move_id: MOVE,
            number: 0,
            from: from.map(NodeId),
            to: to.map(NodeId),
            back: false,
            share: 0,
        };
        let one = config(0, MoveId(0), &[1], &[]);
        let learn = Step::Change { voters: nodes(&[1]), learners: nodes(&[2]) };
        assert_eq!(next_step(&one, &order(None, Some(2))), learn);
        let two = config(1, MOVE, &[1], &[2]);
        let grown = Step::Switch { voters: nodes(&[1, 2]), learners: vec![] };
        assert_eq!(next_step(&two, &order(None, Some(2))), grown);
        let leads = Step::Change { voters: nodes(&[2, 1]), learners: vec![] };
        let set = config(0, MoveId(0), &[1, 2], &[]);
        assert_eq!(next_step(&set, &order(Some(2), Some(2))), leads);
        assert_eq!(next_step(&set, &order(Some(3), Some(3))), Step::Through);
        assert_eq!(next_step(&config(1, MOVE, &[2, 1], &[]), &order(Some(2), Some(2))), Step::Through);
        let shrunk = Step::Switch { voters: nodes(&[2]), learners: vec![] };
        assert_eq!(next_step(&config(0, MoveId(0), &[1, 2], &[]), &order(Some(1), None)), shrunk);
    }
}
