//! Which replica answers a read that came to the gateway of a node that does not lead its shard.
//!
//! The leader, as long as it has little to do: then nothing is gained elsewhere. Once what it is asked would wait, the
//! choice is by the least expected time among those that can answer (`tholos-balance`), the leader included: the replica
//! here, which asks the leader one question for all reads that wait; or, where this node holds none, the leader and its
//! followers, which are one message more away. Nodes say how long their queues are with their heartbeats and, while there
//! are any, beside their answers.

use alloc::vec::Vec;
use core::time::Duration;

use tholos_balance::{Balancer, Candidate, Options, Pick, ServerId};
use tholos_cluster::NodeId;
use tholos_paxos::Millis;

use crate::event::Effects;
use crate::load::QueueReport;
use crate::node::Node;
use crate::peer::PeerMessage;

/// A leader at which a request would wait for less has little to do; and a replica that answers instead counts as so much
/// further away, for the question that it asks the leader.
const QUIET: Duration = Duration::from_micros(200);

/// What is known of the queues of all nodes, this one included.
#[derive(Debug)]
pub(crate) struct Reading {
    balancer: Balancer,
    queues: Vec<(NodeId, QueueReport)>,
    /// Nodes that were sent answers and are to be told how long the queue is.
    to_tell: Vec<NodeId>,
    /// Who was last told of a queue, and so must hear when it is gone.
    told: Vec<NodeId>,
    /// Reads that went to the leader, and to other replicas.
    pub(crate) counts: (u64, u64),
}

impl Default for Reading {
    fn default() -> Reading {
        let options = Options { slow_start: Duration::ZERO, ..Options::default() };
        Reading {
            balancer: Balancer::new(options),
            queues: Vec::new(),
            to_tell: Vec::new(),
            told: Vec::new(),
            counts: (0, 0),
        }
    }
}

impl Reading {
    /// A node said how long its queue is.
    pub(crate) fn note(&mut self, node: NodeId, queue: QueueReport, now: Millis) {
        if queue.service_ns == 0 {
            return;
        }
        let (id, at) = (server(node), time(now));
        match self.queues.iter_mut().find(|(of, _)| *of == node) {
            Some((_, known)) => *known = queue,
            None => {
                self.queues.push((node, queue));
                self.balancer.set(id, 1, at);
            }
        }
        self.balancer.report(id, queue.to_load(), at);
    }

    /// Nodes that are not among these are forgotten.
    pub(crate) fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        let balancer = &mut self.balancer;
        self.queues.retain(|(node, _)| {
            let known = is_known(*node);
            if !known {
                balancer.remove(server(*node));
            }
            known
        });
        self.told.retain(|node| is_known(*node));
    }

    /// What a node said last.
    pub(crate) fn queue_of(&self, node: NodeId) -> QueueReport {
        self.queues.iter().find(|(of, _)| *of == node).map_or_else(QueueReport::default, |(_, queue)| *queue)
    }

    /// Whether a read waits for nothing worth mentioning at a node, own ones that are on their way included.
    fn is_quiet(&self, node: NodeId, now: Millis) -> bool {
        let sent = self.balancer.view(server(node), time(now)).map_or(0, |view| view.in_flight);
        u128::from(self.queue_of(node).wait_ns(sent)) <= QUIET.as_nanos()
    }

    /// Who is to answer: the leader or one of the others. `None`, which means the leader, if nothing is known of it.
    fn pick(&mut self, leader: NodeId, others: &[NodeId], now: Millis, chance: u64) -> Option<Pick> {
        let mut candidates: Vec<Candidate> = Vec::with_capacity(1 + others.len());
        candidates.push(server(leader).into());
        // A leader that has told nothing yet counts as quiet.
        if !self.is_quiet(leader, now) {
            candidates.extend(others.iter().map(|node| Candidate { server: server(*node), distance: QUIET }));
        }
        let pick = self.balancer.pick(&candidates, time(now), chance)?;
        let to_leader = pick.server() == server(leader);
        *if to_leader { &mut self.counts.0 } else { &mut self.counts.1 } += 1;
        Some(pick)
    }
}

/// Whom a choice is for.
pub(crate) fn node_of_pick(pick: &Pick) -> NodeId {
    NodeId(pick.server().0 as u16)
}

fn server(node: NodeId) -> ServerId {
    ServerId(u32::from(node.0))
}

pub(crate) fn time(now: Millis) -> Duration {
    Duration::from_millis(now.0)
}

impl Node {
    /// Who is to answer a read of a client of the gateway, if there is something to choose.
    pub(crate) fn choose_reader(&mut self, request: u64, leader: NodeId) -> Option<Pick> {
        if leader == self.config.me || !self.config.reads_at_replicas || !self.gateway.may_choose(request) {
            return None;
        }
        let id = self.gateway.shard_of(request)?;
        let now = self.time().mono;
        let holds = self.shard(id).is_some_and(|shard| shard.is_whole());
        let others: Vec<NodeId> = match holds {
            true => alloc::vec![self.config.me],
            false => self
                .replica_nodes(id)
                .iter()
                .copied()
                .filter(|node| *node != leader && *node != self.config.me && self.detector.hears_node(*node))
                .collect(),
        };
        let chance = self.fresh_chance();
        self.reading.pick(leader, &others, now, chance)
    }

    /// A round of the worker has ended.
    pub(crate) fn note_round(&mut self, round: crate::load::Round) {
        self.queue.note(round);
        let now = self.time().mono;
        self.reading.note(self.config.me, self.queue.report(), now);
    }

    /// A node is sent an answer, and will be told of the queue here.
    pub(crate) fn answers_to(&mut self, node: NodeId) {
        if !self.reading.to_tell.contains(&node) {
            self.reading.to_tell.push(node);
        }
    }

    /// Tells the nodes that were sent answers how long the queue here is: nothing while there is none.
    pub(crate) fn tell_queue(&mut self, out: &mut Effects) {
        if self.reading.to_tell.is_empty() {
            return;
        }
        let queue = self.queue.report();
        for node in core::mem::take(&mut self.reading.to_tell) {
            let knew = self.reading.told.contains(&node);
            match (queue.waiting > 0, knew) {
                (true, false) => self.reading.told.push(node),
                (false, true) => self.reading.told.retain(|told| *told != node),
                (true, true) => {}
                (false, false) => continue,
            }
            out.sends.push((node, PeerMessage::Queue(queue)));
        }
    }

    /// How long the queue of a node is, as it said last.
    pub fn queue_of(&self, node: NodeId) -> QueueReport {
        if node == self.config.me { self.queue.report() } else { self.reading.queue_of(node) }
    }

    /// Reads of clients of this gateway that went to the leader of their shard on another node, and to another replica.
    pub fn reads_sent(&self) -> (u64, u64) {
        self.reading.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: NodeId = NodeId(1);
    const ME: NodeId = NodeId(2);

    fn queue(waiting: u32) -> QueueReport {
        QueueReport { waiting, service_ns: 10_000 }
    }

    /// How many of 1,000 reads stay with the leader when queues are so long, all choices under way at once.
    fn to_leader(leader: QueueReport, own: QueueReport) -> usize {
        let mut reading = Reading::default();
        for at in 0..50 {
            reading.note(L, leader, Millis(at));
            reading.note(ME, own, Millis(at));
        }
        let picks = (0..1000_u64).filter_map(|number| {
            let pick = reading.pick(L, &[ME], Millis(50), crate::shard::mix(7, number))?;
            Some(node_of_pick(&pick))
        });
        picks.filter(|node| *node == L).count()
    }

    #[test]
    fn a_leader_with_little_to_do_answers_all_reads() {
        assert_eq!(to_leader(queue(0), queue(0)), 1000);
        assert_eq!(to_leader(queue(20), queue(0)), 1000);
        assert_eq!(
            to_leader(QueueReport::default(), queue(0)),
            0,
            "nothing is known of it, and nothing is chosen"
        );
    }

    #[test]
    fn a_leader_with_a_long_queue_answers_few() {
        let kept = to_leader(queue(1000), queue(0));
        assert!(kept < 100, "{kept}");
        let kept = to_leader(queue(1000), queue(1000));
        assert!((300..=1000).contains(&kept), "{kept}");
    }

    #[test]
    fn own_reads_on_their_way_count() {
        let mut reading = Reading::default();
        reading.note(L, queue(0), Millis(1));
        reading.note(ME, queue(0), Millis(1));
        let picks: Vec<Pick> = (0..100)
            .filter_map(|number| reading.pick(L, &[ME], Millis(2), crate::shard::mix(7, number)))
            .collect();
        let kept = picks.iter().filter(|pick| node_of_pick(pick) == L).count();
        assert!((20..90).contains(&kept), "{kept} of 100 that came at once");
        assert_eq!(reading.counts.0 + reading.counts.1, 100);
    }

    #[test]
    fn who_has_left_is_not_chosen() {
        let mut reading = Reading::default();
        reading.note(L, queue(0), Millis(1));
        reading.retain(|node| node != L);
        assert!(reading.pick(L, &[], Millis(2), 7).is_none());
        assert_eq!(reading.queue_of(L), QueueReport::default());
    }
}
