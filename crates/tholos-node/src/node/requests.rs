//! Requests on their way: to the leader of their shard or to a replica that may answer, and back.

use tholos_cluster::NodeId;
use tholos_ring::ShardId;

use super::Node;
use crate::detector::node_of;
use crate::event::Effects;
use crate::meta::is_request;
use crate::peer::{Ask, Forward, Outcome, PeerMessage};
use crate::reading::node_of_pick;
use crate::replica_reads::Reader;
use crate::shard::Origin;
use crate::{hints, refusal};

impl Node {
    pub(super) fn route(&mut self, request: u64, out: &mut Effects) {
        let Some(routed) = self.gateway.routed(request) else { return };
        if self.read_within_bound(&routed) {
            return;
        }
        let (gateway, view) = self.gateway_and_view();
        let Some((leader, _)) = view.leader(routed.shard) else {
            gateway.park(request, view.now.mono);
            return self.hints.want(routed.shard);
        };
        if self.read_at_replica(&routed, leader) {
            return;
        }
        let pick = self.choose_reader(request, leader);
        let (gateway, view) = self.gateway_and_view();
        if let Some(slot) = gateway.must_move(request, leader) {
            return gateway.refuse(request, &view.moved(slot, leader), &view);
        }
        let me = view.config.me;
        if leader != me && !view.detector.hears_node(leader) {
            let Some(relay) = view.detector.relay_to(leader, view.seed) else {
                return gateway.park(request, view.now.mono);
            };
            gateway.relayed(request, relay, view.now.mono);
            let boot = gateway.boot();
            let forward = Forward { request, boot, shard: routed.shard, ask: routed.ask };
            return out.sends.push((relay, PeerMessage::Relay(forward)));
        }
        let reader = pick.as_ref().map_or(leader, node_of_pick);
        gateway.sent(request, reader, view.now.mono);
        if let Some(pick) = pick {
            gateway.picked(request, pick, reader != leader);
        }
        let boot = self.gateway.boot();
        if reader == me && leader != me {
            self.wait_at_replica(routed.shard, Reader::Client(request));
        } else if reader != leader {
            let (Ask::Read { operation } | Ask::ReplicaRead { operation } | Ask::Write { operation, .. }) =
                routed.ask;
            let ask = Ask::ReplicaRead { operation };
            let forward = Forward { request, boot, shard: routed.shard, ask };
            out.sends.push((reader, PeerMessage::Forward(forward)));
        } else if leader == me {
            let origin = Origin { node: None, relay: None, boot, request };
            self.ask(routed.shard, routed.ask, origin);
        } else {
            let forward = Forward { request, boot, shard: routed.shard, ask: routed.ask };
            out.sends.push((leader, PeerMessage::Forward(forward)));
        }
    }

    pub(super) fn answer(&mut self, origin: Origin, outcome: Outcome, out: &mut Effects) {
        let Origin { node, relay, boot, request } = origin;
        match node {
            Some(gateway) => {
                let outcome = match outcome {
                    Outcome::Done(reply) => {
                        Outcome::Done(refusal::relayed(reply, self.config.relayed_reply_bytes_max))
                    }
                    other => other,
                };
                self.answers_to(relay.unwrap_or(gateway));
                out.sends.push(match relay {
                    Some(relay) => (relay, PeerMessage::RelayedAnswer { gateway, request, boot, outcome }),
                    None => (gateway, PeerMessage::Answer { request, boot, outcome }),
                });
            }
            None if is_request(request) => self.meta_answered(request, &outcome, out),
            None => {
                let (gateway, view) = self.gateway_and_view();
                gateway.handle_answer(request, outcome, &view);
            }
        }
    }

    /// A request of the gateway at `from`, which does not hear the leader: passed on, once (R11). Nothing is kept of it: the
    /// answer says to whom it goes.
    pub(super) fn handle_relay(&mut self, from: NodeId, forward: Forward, out: &mut Effects) {
        let leader = self.gateway_and_view().1.leader(forward.shard);
        match leader {
            Some((leader, _)) if leader == self.config.me => self.handle_forward(from, None, forward, out),
            Some((leader, _)) if leader != from && self.detector.hears_node(leader) => {
                out.sends.push((leader, PeerMessage::Relayed { gateway: from, forward }));
            }
            leader => {
                let origin = origin_of(from, None, &forward);
                self.answers.push((origin, Outcome::NotLeader { leader }));
            }
        }
    }

    /// A request of the gateway at `from`, which came straight from there or by `relay`.
    pub(super) fn handle_forward(
        &mut self,
        from: NodeId,
        relay: Option<NodeId>,
        forward: Forward,
        out: &mut Effects,
    ) {
        let origin = origin_of(from, relay, &forward);
        let leads = self.shard(forward.shard).is_some_and(|shard| shard.group.leading().is_some());
        if !leads && let Ask::ReplicaRead { operation } = forward.ask {
            return self.read_for_other(forward.shard, origin, operation);
        }
        if !leads || hints::is_question(&forward) {
            let leader = self.gateway_and_view().1.leader(forward.shard);
            self.answers.push((origin, Outcome::NotLeader { leader }));
        } else {
            if matches!(&forward.ask, Ask::Read { operation } if operation[..] == [crate::operation::HOW_FAR])
            {
                self.tell_decided(forward.shard, from, out);
            }
            self.ask(forward.shard, forward.ask, origin);
        }
    }

    /// Whoever asks how far the log is decided will wait until it knows so itself: the next tick would be late.
    fn tell_decided(&mut self, id: ShardId, node: NodeId, out: &mut Effects) {
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        shard.group.tell_decided(|replica| node_of(replica) == node, &mut self.outbox);
        self.collect(id, out);
    }

    /// Gives a request to the replica here, which leads.
    pub(crate) fn ask(&mut self, id: ShardId, ask: Ask, origin: Origin) {
        let refusal = self.refusal(id, &ask);
        // The meta group is asked for little.
        let sessions_bytes_max = match id == self.meta.group() {
            true => usize::MAX,
            false => self.config.sessions_bytes_max,
        };
        // A hint may name this node for a shard that it does not hold.
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else {
            return self.answers.push((origin, Outcome::NotLeader { leader: None }));
        };
        // G3: "nothing was written" must be true of every copy of the request.
        let refusal = refusal.or_else(|| shard.overfull(&ask, sessions_bytes_max));
        if shard.refuse(&ask, refusal, origin, &self.detector, &mut self.answers) {
            return;
        }
        if self.comes_before_the_map(id, &ask) {
            // It is asked again soon.
            return self.answers.push((origin, Outcome::NotLeader { leader: None }));
        }
        self.note_asked(id, &ask);
        if let Ask::Read { operation } = &ask
            && self.take_leased(id, operation, origin)
        {
            return;
        }
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        shard.ask(ask, origin, self.now.mono, &mut self.answers);
        self.mark_dirty(id);
    }
}

fn origin_of(gateway: NodeId, relay: Option<NodeId>, forward: &Forward) -> Origin {
    Origin { node: Some(gateway), relay, boot: forward.boot, request: forward.request }
}
