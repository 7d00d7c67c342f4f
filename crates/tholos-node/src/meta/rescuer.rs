//! Carries out a recovery (R29): groups that have lost their majority for good go on without it.
//!
//! ```text
//!   node that was asked              owner of the meta group's log      meta leader                  owners of logs
//!   Recover ── rescue, again and again ─▶ one record, then elected
//!     └────────────── the command, once somebody leads ───────────────▶ Recover decided
//!                                                                          │ rescue, again and again ─▶ one record each
//!                                                                       Record decided ◀── durable ─────────┘
//! ```
//!
//! - U1: how far a group is stands in its log: the new configuration carries the number of the recovery. So each order may be
//!   given twice, by any meta leader, and a crash anywhere only delays.
//! - U2: a group's log is taken for decided only while none of those who are named lost is heard here.
//! - U3: once the map says who is lost, nothing that they say is heard here any more, and nothing is said to them.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use tholos_cluster::{Inventory, MetaCommand, NodeId, RecoverOrder, RescueAsk};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::counted::Bar;
use crate::event::{Effects, MetaFailure, Notice};
use crate::node::Node;
use crate::peer::{PeerMessage, RescueReport, RescueSaid};

/// An order is given again after this long.
const ORDER_INTERVAL: Millis = Millis(200);
/// Groups that are helped at a time, at most.
const IN_FLIGHT_MAX: usize = 64;
/// Groups in one answer about what a node has, at most: it has to fit into the answer to a query, of 1 MiB.
const INVENTORY_GROUPS_MAX: u16 = 1024;

/// What is under way of recoveries.
#[derive(Debug, Default)]
pub(crate) struct Rescuer {
    /// On the node that was asked, while the meta group leads nobody: the number of the request, what the owner of the
    /// meta group's log is asked, and when it was asked last.
    meta: Option<(u64, RescueAsk, Option<Millis>)>,
    /// On the leader of the meta group: when each group's order was given last.
    ordered: BTreeMap<ShardId, Millis>,
}

/// On the node that was asked.
impl Node {
    /// A recovery was asked for under this number. The meta group comes first, for it holds the map.
    pub(crate) fn begin_recovery(&mut self, request: u64, order: &RecoverOrder) {
        let meta = self.meta.group();
        let rescue = order.groups.iter().find(|rescue| rescue.group == meta);
        self.meta.rescuer.meta = rescue.map(|rescue| (request, order.ask(rescue), None));
    }

    pub(crate) fn rescue_meta(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        let Some((request, ask, asked_at)) = self.meta.rescuer.meta.clone() else { return };
        if !self.meta.requests.is_under_way(request) {
            self.meta.rescuer.meta = None;
            return;
        }
        let due = asked_at.is_none_or(|at| now.since(at) >= ORDER_INTERVAL);
        if due && !self.meta_is_led() {
            if let Some((.., asked_at)) = &mut self.meta.rescuer.meta {
                *asked_at = Some(now);
            }
            self.send_rescue(&ask, out);
        }
    }

    fn meta_is_led(&mut self) -> bool {
        self.leader_of(self.meta.group()).is_some_and(|leader| self.detector.hears_node(leader))
    }

    fn send_rescue(&mut self, ask: &RescueAsk, out: &mut Effects) {
        let (me, to) = (self.config.me, NodeId(ask.order.replica.node()));
        if to == me {
            self.handle_rescue(me, ask, out);
        } else {
            out.sends.push((to, PeerMessage::Rescue(ask.encode().into())));
        }
    }
}

/// On the leader of the meta group.
impl Node {
    pub(crate) fn drive_recovery(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        let Some(recovery) = self.meta.state().recovery_under_way().filter(|_| self.leads_meta()) else {
            self.meta.rescuer.ordered.clear();
            return;
        };
        let ordered = &self.meta.rescuer.ordered;
        let due = |group: ShardId| ordered.get(&group).is_none_or(|at| now.since(*at) >= ORDER_INTERVAL);
        let open = recovery.open().take(IN_FLIGHT_MAX).filter(|order| due(order.group));
        let asks: Vec<RescueAsk> = open.map(|order| recovery.order.ask(order)).collect();
        for ask in asks {
            self.meta.rescuer.ordered.insert(ask.order.group, now);
            self.send_rescue(&ask, out);
        }
    }

    /// What the owner of a log says of its order.
    pub(crate) fn handle_rescue_report(&mut self, from: NodeId, report: RescueReport, out: &mut Effects) {
        let RescueReport { plan, group, said } = report;
        if let RescueSaid::Refused(why) = &said
            && let Some((request, ask, _)) = &self.meta.rescuer.meta
            && (ask.plan, ask.order.group) == (plan, group)
        {
            let (request, node) = (*request, from);
            // Another may have come before: then somebody leads by now, and the command says what is right.
            if !self.meta_is_led() {
                let text = alloc::format!("{node} cannot go on with the meta group: {why}: plan again");
                self.end_request(request, Err(MetaFailure { text, retry: false }), out);
            }
        }
        let under_way = self.meta.state().recovery_under_way().filter(|recovery| recovery.order.plan == plan);
        let Some(id) = under_way.map(|recovery| recovery.id).filter(|_| self.leads_meta()) else { return };
        match said {
            RescueSaid::Waits(_) => {}
            RescueSaid::Done(config) => {
                let recorded = self.meta.state().config(group).map(|config| config.number);
                if recorded.is_some_and(|number| number < config.number) {
                    self.propose_meta(&MetaCommand::Record { group, config, bytes: 0 });
                }
            }
            RescueSaid::Refused(reason) => {
                out.notices.push(Notice::RescueRefused { shard: group, node: from, reason });
                self.propose_meta(&MetaCommand::EndRescue { recovery: id, group });
            }
        }
    }
}

/// On the owner of a log.
impl Node {
    /// An order, as it comes from another node.
    pub(crate) fn handle_rescue_bytes(&mut self, from: NodeId, bytes: &[u8], out: &mut Effects) {
        match RescueAsk::decode(bytes) {
            Ok(ask) => self.handle_rescue(from, &ask, out),
            Err(_) => {
                let reason = "an order of a recovery that cannot be read";
                out.notices.push(Notice::MessageDropped { node: from, reason });
            }
        }
    }

    fn handle_rescue(&mut self, from: NodeId, ask: &RescueAsk, out: &mut Effects) {
        let said = self.rescue(ask, out);
        let report = RescueReport { plan: ask.plan, group: ask.order.group, said };
        if from == self.config.me {
            self.handle_rescue_report(from, report, out);
        } else {
            out.sends.push((from, PeerMessage::RescueReport(report)));
        }
    }

    fn rescue(&mut self, ask: &RescueAsk, out: &mut Effects) -> RescueSaid {
        let id = ask.order.group;
        // U2
        if let Some(lost) = ask.lost.iter().find(|lost| self.detector.hears_node(**lost)) {
            return RescueSaid::Waits(alloc::format!("{lost} is named lost and is heard"));
        }
        // Nothing is left of it but the map that is here.
        let begins = id == self.meta.group() && ask.order.rescue.is_anew();
        let is_here = self.shard(id).is_some_and(|shard| shard.group.me() == ask.order.replica);
        if begins && !is_here && self.bar == Bar::Open {
            self.begin(id, ask.order.replica, out);
        }
        let (now, time) = (self.time().mono, self.shard_time(id));
        let own = self.shards.get_mut(usize::from(id.0)).and_then(Option::as_mut);
        let Some(shard) = own.filter(|shard| shard.group.me() == ask.order.replica) else {
            return RescueSaid::Refused(String::from("it has no such replica"));
        };
        let before = shard.group.config().number;
        match shard.group.rescue(&ask.order.rescue, time, now, &mut self.outbox) {
            Ok(()) => {}
            Err(error) => return RescueSaid::Refused(error.to_string()),
        }
        let number = shard.group.config().number;
        if number > before {
            out.notices.push(Notice::GroupRescued { shard: id, replica: ask.order.replica, number });
        }
        self.mark_dirty(id);
        self.collect(id, out);
        let Some(shard) = self.shard(id) else { return RescueSaid::Waits(String::from("it is gone")) };
        let mut configs = shard.group.configs();
        match (configs.next(), configs.next()) {
            (Some(only), None) if !shard.group.waits_for_disk() => RescueSaid::Done(only.clone()),
            _ => RescueSaid::Waits(String::from("its record is not durable yet")),
        }
    }

    /// What this node has and knows, for a plan of a recovery: of groups from `first` on, as many as fit into an answer.
    pub fn inventory(&self, first: ShardId) -> Inventory {
        let count = self.meta.group().0 + 1;
        let end = first.0.saturating_add(INVENTORY_GROUPS_MAX).min(count);
        let held = || (first.0..end).filter_map(|group| self.shard(ShardId(group)));
        Inventory {
            epoch: self.meta.state().epoch(),
            hears: self.detector.heard_nodes(),
            replicas: held().map(|shard| (shard.id, shard.group.survivor())).collect(),
            next: (end < count).then_some(ShardId(end)),
        }
    }
}
