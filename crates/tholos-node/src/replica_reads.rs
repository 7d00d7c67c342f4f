//! Linearizable reads at a replica that does not lead (R15).
//!
//! The leader is asked how far its log was decided when the read had come; it answers as it answers any read, by its lease or
//! after a round. Once the replica has applied as much, it reads its own state. The value itself crosses no network,
//! and one question serves all reads of a shard that came before it.
//!
//! A client may also state how old its answers may be. Then a replica answers at once while its state is known to be young
//! enough: it holds all that was decided when the last question was sent that it has caught up with. That age is measured
//! by this node's clock alone, from before the question left (R32).
//!
//! A question confirms only reads that were there when it was sent: one that comes later may be of a client that has seen
//! a later write, so it waits for the next question. That is why questions leave when no event waits any more, and not with the
//! first read: all that came together are confirmed together.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;
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

/// A clock may run slower than true time by this part, in percent, or a little less: leases allow for as much (decision 0011).
const CLOCK_SLOW_PERCENT: u64 = 5;

/// How old a state may be by this node's clock, so that it is no older than `bound` in truth. `None`: no state is young enough.
fn age_max(bound: Millis) -> Option<Millis> {
    // Clocks are read in whole milliseconds, rounded down, at both ends.
    (bound.0.saturating_mul(100 - CLOCK_SLOW_PERCENT) / 100).checked_sub(1).map(Millis)
}

/// The reads that wait here, by shard.
#[derive(Debug, Default)]
pub(crate) struct ReplicaReads {
    shards: BTreeMap<ShardId, Shelf>,
    /// Shards whose leaders are to be asked once no event waits.
    to_ask: Vec<ShardId>,
    last_question: u64,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(crate) enum Reader {
    /// A client of the gateway here, by the number of its request.
    Client(u64),
    /// The gateway of another node.
    Other {
        /// Where the answer goes.
        origin: Origin,
        /// The encoded operation.
        operation: Bytes,
    },
}

/// The reads of one shard.
#[derive(Debug, Default)]
struct Shelf {
    /// They came after the question under way was sent.
    waiting: Vec<Reader>,
    /// Nobody waits, but what is applied is to be known to be fresh again soon.
    refresh: bool,
    asked: Option<Asked>,
    confirmed: Vec<Confirmed>,
}

/// Reads that are answered once an index is applied.
#[derive(Debug)]
struct Confirmed {
    index: Index,
    /// When the question was sent, and when its answer came.
    asked_at: Millis,
    since: Millis,
    reads: Vec<Reader>,
}

#[derive(Debug)]
struct Asked {
    question: u64,
    leader: NodeId,
    at: Millis,
    reads: Vec<Reader>,
}

impl Confirmed {
    /// Of a planted fault.
    fn unasked(read: Reader, now: Millis) -> Confirmed {
        Confirmed { index: Index::ZERO, asked_at: Millis(0), since: now, reads: alloc::vec![read] }
    }
}

impl ReplicaReads {
    fn note_to_ask(&mut self, id: ShardId) {
        if !self.to_ask.contains(&id) {
            self.to_ask.push(id);
        }
    }

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
    pub(crate) fn read_at_replica(&mut self, routed: &Routed, leader: NodeId) -> bool {
        let now = self.time().mono;
        let serves = self.shard(routed.shard).is_some_and(Shard::is_whole);
        if leader == self.config.me || !serves || !self.gateway.may_read_at_replica(routed.request) {
            return false;
        }
        self.gateway.sent(routed.request, self.config.me, now);
        self.wait_at_replica(routed.shard, Reader::Client(routed.request));
        true
    }

    /// Answers a read of a client that has stated how old it may be, from what the replica here has applied, if that is
    /// known to be young enough (R32). `false`: it goes the usual way, which makes the replica fresh again.
    pub(crate) fn read_within_bound(&mut self, routed: &Routed) -> bool {
        let (id, now, me) = (routed.shard, self.time().mono, self.config.me);
        let Some(bound) = self.gateway.staleness_bound(routed.request) else { return false };
        let Ask::Read { operation } = &routed.ask else { return false };
        let planted = self.config.group.planted;
        let Some(shard) = self.shards[usize::from(id.0)].as_mut().filter(|shard| shard.is_whole()) else {
            return false;
        };
        let Some((at, index)) = shard.fresh.as_deref().copied() else { return false };
        // What has lost its state and is whole again may still be on its way there.
        if index > shard.group.applied_index() {
            return false;
        }
        let age = now.since(at);
        let is_fresh = age_max(bound).is_some_and(|most| age <= most) || planted == Planted::AgeIgnored;
        if shard.group.serving() || !is_fresh {
            return false;
        }
        let origin = Origin { node: None, relay: None, boot: self.gateway.boot(), request: routed.request };
        self.served.reads_as_replica += 1;
        self.served.reads_stale += 1;
        self.answers.push((origin, shard.read_as_replica(operation.clone())));
        self.gateway.sent(routed.request, me, now);
        self.note_asked(id, &routed.ask);
        if age.0 * 2 >= bound.0 {
            self.replica_reads.shards.entry(id).or_default().refresh = true;
            self.replica_reads.note_to_ask(id);
        }
        true
    }

    /// A read that the gateway of another node sends here, although this node does not lead.
    pub(crate) fn read_for_other(&mut self, id: ShardId, origin: Origin, operation: Bytes) {
        if !self.shard(id).is_some_and(Shard::is_whole) {
            let leader = self.gateway_and_view().1.leader(id);
            return self.answers.push((origin, Outcome::NotLeader { leader }));
        }
        self.wait_at_replica(id, Reader::Other { origin, operation });
    }

    /// The replica here answers a read once it has what the leader has decided by now.
    pub(crate) fn wait_at_replica(&mut self, id: ShardId, reader: Reader) {
        let now = self.time().mono;
        self.note_read_at_replica(id, &reader);
        let is_sent_here = matches!(reader, Reader::Other { .. });
        let shelf = self.replica_reads.shards.entry(id).or_default();
        match (&mut shelf.asked, self.config.group.planted) {
            (_, Planted::ReplicaReadUnasked) => {
                shelf.confirmed.push(Confirmed::unasked(reader, now));
                self.answer_replica_reads(id);
            }
            (_, Planted::SentReadUnasked) if is_sent_here => {
                shelf.confirmed.push(Confirmed::unasked(reader, now));
                self.answer_replica_reads(id);
            }
            (Some(asked), Planted::LateReadJoins) => asked.reads.push(reader),
            _ => {
                shelf.waiting.push(reader);
                self.replica_reads.note_to_ask(id);
            }
        }
    }

    fn note_read_at_replica(&mut self, id: ShardId, reader: &Reader) {
        let operation = match reader {
            Reader::Other { operation, .. } => operation.clone(),
            Reader::Client(request) => match self.gateway.routed(*request) {
                Some(Routed { ask: Ask::Read { operation }, .. }) => operation,
                _ => return,
            },
        };
        self.note_asked(id, &Ask::Read { operation });
    }

    /// The replica here cannot answer: somebody else has to.
    fn give_up(&mut self, reads: impl IntoIterator<Item = Reader>, id: ShardId) {
        let now = self.time().mono;
        for read in reads {
            match read {
                Reader::Client(request) => self.gateway.park(request, now),
                Reader::Other { origin, .. } => {
                    let leader = self.gateway_and_view().1.leader(id);
                    self.answers.push((origin, Outcome::NotLeader { leader }));
                }
            }
        }
    }

    /// Asks the leaders of all shards of which reads wait.
    pub(crate) fn ask_leaders(&mut self, out: &mut Effects) {
        for id in core::mem::take(&mut self.replica_reads.to_ask) {
            self.ask_how_far(id, out);
        }
    }

    /// Asks the leader on behalf of all reads that wait, unless a question is under way.
    fn ask_how_far(&mut self, id: ShardId, out: &mut Effects) {
        let (now, boot) = (self.time().mono, self.gateway.boot());
        let leader = self.gateway_and_view().1.leader(id).map(|(leader, _)| leader);
        let leader = leader.filter(|leader| *leader != self.config.me && self.detector.hears_node(*leader));
        let Some(shelf) = self.replica_reads.shards.get_mut(&id) else { return };
        if shelf.asked.is_some() || (shelf.waiting.is_empty() && !shelf.refresh) {
            return;
        }
        shelf.refresh = false;
        let reads = core::mem::take(&mut shelf.waiting);
        let Some(leader) = leader else {
            // Nobody leads, or this node does by now: the gateway will find out.
            return self.give_up(reads, id);
        };
        self.replica_reads.last_question += 1;
        let question = QUESTION | self.replica_reads.last_question;
        shelf.asked = Some(Asked { question, leader, at: now, reads });
        let ask = Ask::Read { operation: Operation::HowFar.to_bytes() };
        out.sends.push((leader, PeerMessage::Forward(Forward { request: question, boot, shard: id, ask })));
    }

    /// The leader's answer to a question about `id`.
    pub(crate) fn handle_how_far(&mut self, id: ShardId, outcome: &Outcome) {
        let now = self.time().mono;
        let Some(shelf) = self.replica_reads.shards.get_mut(&id) else { return };
        let Some(asked) = shelf.asked.take() else { return };
        match outcome {
            Outcome::Done(Value::Integer(index)) => {
                let index = Index(u64::try_from(*index).unwrap_or(u64::MAX));
                let asked_at = match self.config.group.planted {
                    Planted::AgeFromAnswer => now,
                    _ => asked.at,
                };
                shelf.confirmed.push(Confirmed { index, asked_at, since: now, reads: asked.reads });
                self.answer_replica_reads(id);
            }
            _ => self.give_up(asked.reads, id),
        }
        self.replica_reads.note_to_ask(id);
    }

    /// Answers the reads of a shard whose index is applied.
    pub(crate) fn answer_replica_reads(&mut self, id: ShardId) {
        let Some(shelf) = self.replica_reads.shards.get_mut(&id) else { return };
        let Some(shard) = self.shards[usize::from(id.0)].as_mut().filter(|shard| shard.is_whole()) else {
            return;
        };
        let applied = shard.group.applied_index();
        let boot = self.gateway.boot();
        shelf.confirmed.retain_mut(|confirmed| {
            if confirmed.index > applied {
                return true;
            }
            let fresh = shard.fresh.get_or_insert_default();
            **fresh = (**fresh).max((confirmed.asked_at, confirmed.index));
            for read in confirmed.reads.drain(..) {
                let (origin, operation) = match read {
                    Reader::Other { origin, operation } => (origin, operation),
                    Reader::Client(request) => match self.gateway.routed(request) {
                        Some(Routed { ask: Ask::Read { operation }, .. }) => {
                            (Origin { node: None, relay: None, boot, request }, operation)
                        }
                        // Its client may have left.
                        _ => continue,
                    },
                };
                self.served.reads_as_replica += 1;
                self.answers.push((origin, shard.read_as_replica(operation)));
            }
            false
        });
    }

    /// Gives up what has waited for too long, and shelves that are empty.
    pub(crate) fn tick_replica_reads(&mut self) {
        let now = self.time().mono;
        let detector = &self.detector;
        let (mut unasked, mut late) = (Vec::new(), Vec::new());
        self.replica_reads.shards.retain(|id, shelf| {
            let lost = |asked: &mut Asked| {
                now.since(asked.at) >= ANSWER_WITHIN || !detector.hears_node(asked.leader)
            };
            if let Some(asked) = shelf.asked.take_if(lost) {
                unasked.push((*id, asked.reads));
                unasked.push((*id, core::mem::take(&mut shelf.waiting)));
            }
            let lags = |confirmed: &mut Confirmed| now.since(confirmed.since) >= APPLY_WITHIN;
            late.extend(shelf.confirmed.extract_if(.., lags).map(|confirmed| (*id, confirmed.reads)));
            shelf.refresh = false;
            !(shelf.waiting.is_empty() && shelf.asked.is_none() && shelf.confirmed.is_empty())
        });
        for (id, reads) in unasked {
            self.give_up(reads, id);
        }
        for (id, reads) in late {
            for read in &reads {
                if let Reader::Client(request) = read {
                    self.gateway.leave_to_leader(*request);
                }
            }
            self.give_up(reads, id);
        }
    }
}
