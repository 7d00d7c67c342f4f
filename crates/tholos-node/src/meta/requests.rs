//! Commands for the meta group whose fate this node waits for.
//!
//! They go to the group's leader as clients' writes do, each in a session of its own, so that one sent again is applied
//! once (R18).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use tholos_cluster::{Epoch, MetaCommand, RecoverOrder, Refusal};
use tholos_paxos::Millis;
use tholos_resp::Value;
use tholos_ring::ShardId;

use crate::event::{Effects, MetaFailure};
use crate::meta::store;
use crate::node::Node;
use crate::operation::Operation;
use crate::peer::{Ask, Forward, Outcome, PeerMessage};
use crate::shard::Origin;

/// Set in the numbers of these requests, which no client's request has: it would take 2^62 of them.
const REQUEST: u64 = 1 << 62;
/// A request without an answer is sent again after this long.
const RESEND_AFTER: Millis = Millis(250);
/// In shard time: a command that was not applied by then never is.
const EXPIRES_AFTER: Millis = Millis(60_000);
/// Requests under way at a time, at most; more are refused.
const REQUESTS_MAX: usize = 1024;

/// Whether an answer of this number belongs here, and not to a client.
pub(crate) fn is_request(number: u64) -> bool {
    number >> 62 == 1
}

fn later(text: &str) -> MetaFailure {
    MetaFailure { text: String::from(text), retry: true }
}

/// The commands under way.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    under_way: BTreeMap<u64, Request>,
    last: u64,
}

#[derive(Debug)]
struct Request {
    ask: Ask,
    operation: Bytes,
    /// The driver's number, if the driver asked.
    asker: Option<u64>,
    until: Millis,
    sent_at: Option<Millis>,
}

impl Requests {
    /// Whether this node waits for the fate of this request.
    pub(crate) fn is_under_way(&self, number: u64) -> bool {
        self.under_way.contains_key(&number)
    }

    /// Whether this node waits for the fate of this very command.
    fn has(&self, operation: &Bytes) -> bool {
        self.under_way.values().any(|request| request.operation == *operation)
    }
}

/// What this node asks of the meta group.
impl Node {
    /// The driver wants a command decided.
    pub(crate) fn ask_meta(&mut self, asker: u64, command: &MetaCommand, out: &mut Effects) {
        if self.meta.requests.under_way.len() >= REQUESTS_MAX {
            let text = "too many commands wait for the meta group: try again later";
            return out.meta_answers.push((asker, Err(later(text))));
        }
        if let Some(bearer) = self.lives_under_the_name_of(command) {
            let text = format!(
                "{bearer} lives with another directory: stop it first, or give this node another name"
            );
            return out.meta_answers.push((asker, Err(later(&text))));
        }
        let number = self.begin_request(Some(asker), command);
        if let (Some(number), MetaCommand::Recover(order)) = (number, command) {
            self.begin_recovery(number, order);
        }
        self.send_requests(out);
    }

    /// Who would be taken for lost although it is heard. Nothing unsafe would come of it, but nobody wants that.
    fn lives_under_the_name_of(&self, command: &MetaCommand) -> Option<String> {
        let MetaCommand::Rejoin(row) = command else { return None };
        let bearer = self.meta.map().by_name(&row.name)?;
        let other = bearer.incarnation != row.incarnation;
        (other && self.detector.hears_node(bearer.id)).then(|| bearer.name.clone())
    }

    /// Whether this asks the meta group, which has no state yet, or not the newest that is left after a recovery, for something
    /// else than that: it would be refused for good, or forgotten with what it was done to, and the state is on its way.
    pub(crate) fn comes_before_the_map(&self, group: ShardId, ask: &Ask) -> bool {
        if group != self.meta.group() {
            return false;
        }
        let (Ask::Write { operation, .. }, Some(shard)) = (ask, self.shard(group)) else { return false };
        let Ok(Operation::Meta(command)) = Operation::decode(operation.clone()) else { return false };
        if MetaCommand::is_first(&command) {
            return false;
        }
        let planned_for = |epoch: Epoch| match MetaCommand::decode(&command) {
            Ok(MetaCommand::Recover(order)) => epoch.max(order.epoch()),
            _ => epoch,
        };
        let recovered = RecoverOrder::made(shard.group.config());
        !store::is_there(&shard.keyspace)
            || (recovered && self.meta_lacks(planned_for(self.meta.state().epoch())))
    }

    /// This node itself wants a command decided, if it does not wait for it already.
    pub(crate) fn propose_meta(&mut self, command: &MetaCommand) {
        if self.meta.requests.under_way.len() < REQUESTS_MAX {
            self.begin_request(None, command);
        }
    }

    /// The number of the request; none if the same is under way.
    fn begin_request(&mut self, asker: Option<u64>, command: &MetaCommand) -> Option<u64> {
        let operation = Operation::Meta(command.encode().into()).to_bytes();
        if asker.is_none() && self.meta.requests.has(&operation) {
            return None;
        }
        let (now, session) = (self.time().mono, self.fresh_chance());
        // Not by the own clock, which may be the wrong one (R16).
        let time = self.detector.median_time(self.replica_nodes(self.meta.group()));
        let ask = Ask::Write {
            session,
            sequence: 1,
            acknowledged: 0,
            expires_at: time.plus(EXPIRES_AFTER),
            operation: operation.clone(),
        };
        let until = now.plus(self.config.request_timeout);
        let requests = &mut self.meta.requests;
        requests.last += 1;
        let request = Request { ask, operation, asker, until, sent_at: None };
        let number = REQUEST | requests.last;
        requests.under_way.insert(number, request);
        Some(number)
    }

    /// Sends what was not answered for a while, and gives up what waits for too long.
    pub(crate) fn send_requests(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        let over = |(number, request): (&u64, &Request)| (request.until <= now).then_some(*number);
        let given_up: Vec<u64> = self.meta.requests.under_way.iter().filter_map(over).collect();
        for number in given_up {
            let text =
                "the meta group has not answered; it may still do what was asked: look, then ask again";
            self.end_request(number, Err(later(text)), out);
        }
        let due = |request: &Request| request.sent_at.is_none_or(|at| now.since(at) >= RESEND_AFTER);
        if !self.meta.requests.under_way.values().any(due) {
            return;
        }
        let group = self.meta.group();
        let Some(leader) = self.leader_of(group) else { return };
        let me = self.config.me;
        let chance = self.fresh_chance();
        // R11
        let to = match self.detector.hears_node(leader) {
            true => leader,
            false => match self.detector.relay_to(leader, chance) {
                Some(relay) if leader != me => relay,
                _ => return,
            },
        };
        let boot = self.gateway.boot();
        let mut asks = Vec::new();
        for (number, request) in self.meta.requests.under_way.iter_mut().filter(|(_, request)| due(request)) {
            request.sent_at = Some(now);
            asks.push((*number, request.ask.clone()));
        }
        for (request, ask) in asks {
            if leader == me {
                self.ask(group, ask, Origin { node: None, relay: None, boot, request });
            } else {
                let forward = Forward { request, boot, shard: group, ask };
                let message =
                    if to == leader { PeerMessage::Forward(forward) } else { PeerMessage::Relay(forward) };
                out.sends.push((to, message));
            }
        }
    }

    /// What became of a request.
    pub(crate) fn meta_answered(&mut self, number: u64, outcome: &Outcome, out: &mut Effects) {
        let answer = match outcome {
            Outcome::Done(Value::Integer(answer)) => Ok(u64::try_from(*answer).unwrap_or_default()),
            Outcome::Done(Value::Error(text)) | Outcome::Refused(Value::Error(text)) => {
                let text = String::from_utf8_lossy(text).into_owned();
                // Its leader is about to give it one.
                let retry = text == Refusal::NotFounded.to_string();
                Err(MetaFailure { text, retry })
            }
            Outcome::Done(_) | Outcome::Refused(_) | Outcome::Expired => {
                Err(later("the meta group did not take it in time; nothing was done: ask again"))
            }
            // It is sent again, to whoever leads then.
            Outcome::NotLeader { .. } | Outcome::Gap { .. } | Outcome::Unknown => return,
        };
        self.end_request(number, answer, out);
    }

    pub(crate) fn end_request(&mut self, number: u64, answer: Result<u64, MetaFailure>, out: &mut Effects) {
        let Some(request) = self.meta.requests.under_way.remove(&number) else { return };
        if let Some(asker) = request.asker {
            out.meta_answers.push((asker, answer));
        }
    }
}
