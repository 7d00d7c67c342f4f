//! Linearizable reads at a replica that does not lead (R15).
//!
//! The leader is asked how far its log was decided when the read had come; it answers as it answers any read, by its lease or
//! after a round. Once the replica has applied as much, it reads its own state. The value itself crosses no network,
//! and one question serves all reads of a shard that came before it.
//!
//! A question confirms only reads that were there when it was sent: one that comes later may be of a client that has seen
//! a later write, so it waits for the next question.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::{Index, Millis, Planted};
use tholos_resp::Value;
use tholos_ring::ShardId;

use crate::event::Effects;
use crate::gateway::Routed;
use crate::node::Node;
use crate::operation::Operation;
use crate::peer::{Ask, Forward, Outcome, PeerMessage};
use crate::shard::{Origin, Shard};

/// Set in the numbers of these questions, which no client's request has: it would take 2^61 of them.
const QUESTION: u64 = 1 << 61;
/// A question without an answer for so long is given up, and its reads are routed anew.
const ANSWER_WITHIN: Millis = Millis(250);
/// A replica that has not applied what the leader had decided after so long leaves the reads to the leader: it lags, or is
/// none any more.
const APPLY_WITHIN: Millis = Millis(500);

/// The reads that wait here, by shard.
#[derive(Debug, Default)]
pub(crate) struct ReplicaReads {
    shards: BTreeMap<ShardId, Shelf>,
    last_question: u64,
}

/// The reads of one shard, as numbers of the gateway's requests.
#[derive(Debug, Default)]
struct Shelf {
    /// They came after the question under way was sent.
    waiting: Vec<u64>,
    asked: Option<Asked>,
    /// They are answered once this index is applied; since when they are known to be.
    confirmed: Vec<(Index, Millis, Vec<u64>)>,
}

#[derive(Debug)]
struct Asked {
    question: u64,
    leader: NodeId,
    at: Millis,
    reads: Vec<u64>,
}

impl ReplicaReads {
    /// The shard that a question of this number is about, while it waits for its answer.
    pub(crate) fn shard_of(&self, question: u64) -> Option<ShardId> {
        if question >> 61 != 1 {
            return None;
        }
        let asks = |shelf: &Shelf| shelf.asked.as_ref().is_some_and(|asked| asked.question == question);
        self.shards.iter().find(|(_, shelf)| asks(shelf)).map(|(shard, _)| *shard)
    }
}

impl Node {
    /// Takes a read that its client lets a replica answer, if there is one here that can. `false`: it goes the usual way.
    pub(crate) fn read_at_replica(&mut self, routed: &Routed, leader: NodeId, out: &mut Effects) -> bool {
        let now = self.time().mono;
        let serves = self.shard(routed.shard).is_some_and(Shard::is_whole);
        if leader == self.config.me || !serves || !self.gateway.may_read_at_replica(routed.request) {
            return false;
        }
        self.gateway.sent(routed.request, self.config.me, now);
        self.note_asked(routed.shard, &routed.ask);
        let shelf = self.replica_reads.shards.entry(routed.shard).or_default();
        match (&mut shelf.asked, self.config.group.planted) {
            (_, Planted::ReplicaReadUnasked) => {
                shelf.confirmed.push((Index::ZERO, now, alloc::vec![routed.request]));
                self.answer_replica_reads(routed.shard);
            }
            (Some(asked), Planted::LateReadJoins) => asked.reads.push(routed.request),
            _ => {
                shelf.waiting.push(routed.request);
                self.ask_how_far(routed.shard, out);
            }
        }
        true
    }

    /// Asks the leader on behalf of all reads that wait, unless a question is under way.
    fn ask_how_far(&mut self, id: ShardId, out: &mut Effects) {
        let (now, boot) = (self.time().mono, self.gateway.boot());
        let leader = self.gateway_and_view().1.leader(id).map(|(leader, _)| leader);
        let leader = leader.filter(|leader| *leader != self.config.me && self.detector.hears_node(*leader));
        let Some(shelf) = self.replica_reads.shards.get_mut(&id) else { return };
        if shelf.asked.is_some() || shelf.waiting.is_empty() {
            return;
        }
        let reads = core::mem::take(&mut shelf.waiting);
        let Some(leader) = leader else {
            // Nobody leads, or this node does by now: the gateway will find out.
            return reads.into_iter().for_each(|read| self.gateway.park(read));
        };
        self.replica_reads.last_question += 1;
        let question = QUESTION | self.replica_reads.last_question;
        shelf.asked = Some(Asked { question, leader, at: now, reads });
        let ask = Ask::Read { operation: Operation::HowFar.to_bytes() };
        out.sends.push((leader, PeerMessage::Forward(Forward { request: question, boot, shard: id, ask })));
    }

    /// The leader's answer to a question about `id`.
    pub(crate) fn handle_how_far(&mut self, id: ShardId, outcome: &Outcome, out: &mut Effects) {
        let now = self.time().mono;
        let Some(shelf) = self.replica_reads.shards.get_mut(&id) else { return };
        let Some(asked) = shelf.asked.take() else { return };
        match outcome {
            Outcome::Done(Value::Integer(index)) => {
                let index = Index(u64::try_from(*index).unwrap_or(u64::MAX));
                shelf.confirmed.push((index, now, asked.reads));
                self.answer_replica_reads(id);
            }
            _ => asked.reads.into_iter().for_each(|read| self.gateway.park(read)),
        }
        self.ask_how_far(id, out);
    }

    /// Answers the reads of a shard whose index is applied.
    pub(crate) fn answer_replica_reads(&mut self, id: ShardId) {
        let Some(shelf) = self.replica_reads.shards.get_mut(&id) else { return };
        let Some(shard) = self.shards[usize::from(id.0)].as_mut().filter(|shard| shard.is_whole()) else {
            return;
        };
        let applied = shard.group.applied_index();
        let boot = self.gateway.boot();
        shelf.confirmed.retain_mut(|(index, _, reads)| {
            if *index > applied {
                return true;
            }
            for request in reads.drain(..) {
                // Its client may have left.
                let Some(Routed { ask: Ask::Read { operation }, .. }) = self.gateway.routed(request) else {
                    continue;
                };
                let origin = Origin { node: None, boot, request };
                self.answers.push((origin, shard.read_as_replica(operation)));
            }
            false
        });
    }

    /// Gives up what has waited for too long, and shelves that are empty.
    pub(crate) fn tick_replica_reads(&mut self) {
        let now = self.time().mono;
        let (gateway, detector) = (&mut self.gateway, &self.detector);
        self.replica_reads.shards.retain(|_, shelf| {
            let lost = |asked: &mut Asked| {
                now.since(asked.at) >= ANSWER_WITHIN || !detector.hears_node(asked.leader)
            };
            if let Some(asked) = shelf.asked.take_if(lost) {
                let reads = asked.reads.into_iter().chain(shelf.waiting.drain(..));
                reads.for_each(|read| gateway.park(read));
            }
            for (_, _, reads) in
                shelf.confirmed.extract_if(.., |(_, since, _)| now.since(*since) >= APPLY_WITHIN)
            {
                for read in reads {
                    gateway.leave_to_leader(read);
                    gateway.park(read);
                }
            }
            !(shelf.waiting.is_empty() && shelf.asked.is_none() && shelf.confirmed.is_empty())
        });
    }
}
