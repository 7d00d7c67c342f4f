//! Where leaders sit: leaderships that are handed back, over and away.
//!
//! As long as every node can do what it should, the map says who leads: leaderships go back to the first of their replica
//! sets, and that is all. When one cannot, all are spread by weight and capacity instead ([`targets`]): who leads more
//! than its part hands one after the other to who leads less. Each node gives away what is its own and takes nothing, by
//! what the others said last, so that no two ever decide on the same leadership.

mod moves;
mod spread;
pub(crate) mod targets;

use alloc::vec::Vec;

use tholos_cluster::{NodeId, NodeRow, Standing as MapStanding};
use tholos_paxos::{Index, Millis, ReplicaId};
use tholos_ring::ShardId;

use self::moves::Moves;
pub use self::moves::{LeaderMove, MoveReason};
use self::spread::{Hot, Part};
use self::targets::{Standing, apportion};
use crate::detector::node_of;
use crate::event::{Effects, Notice};
use crate::load::{CAPACITY_WHOLE, Load, LoadSample, NodeLoad, Slowness};
use crate::node::Node;
use crate::shard::Shard;

/// A node must have been heard for so long before leaderships go back to it.
const HAND_BACK_AFTER: Millis = Millis(30_000);
/// A node that gave up leaderships gets none back for so long, unless it was gone meanwhile: it is about to stop, and
/// would never be done.
const RESIGNED_FOR: Millis = Millis(60_000);
/// One leadership is handed back at most this often: clients of the cluster port meet single MOVEDs, not a storm.
const HAND_BACK_INTERVAL: Millis = Millis(500);
/// Hands over leadership to another replica again at most this often.
const RESIGN_INTERVAL: Millis = Millis(50);
/// Leaderships go by shares at most this often: what the others lead is heard several times in between.
const GIVE_INTERVAL: Millis = Millis(200);
/// Of what a node leads too many, one in so many goes at once, at least one: a large node is done as soon as a small one.
const GIVE_PART: i64 = 16;
/// A node that should lead nothing gives up half of what it has at once, and at least so many.
const SHED_MIN: i64 = 4;
/// A leadership is given away for what is asked of its shard at most this often: three spans of what is counted.
const SPREAD_INTERVAL: Millis = Millis(15_000);
/// With less of its capacity to spare, in percent, a node takes fewer clients than it may.
const LITTLE_SPARE_PERCENT: u8 = 20;
/// How many entries an heir may lack: while it gets them, the shard takes no writes.
const HEIR_BEHIND_MAX: u64 = 64;
/// What this node leads is counted anew after so long, whether or not anything happened.
const COUNT_INTERVAL: Millis = Millis(1000);

/// What this node keeps of the leaderships that it gives to others.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    pub(crate) load: Load,
    moves: Moves,
    resigning: bool,
    last_resign: Millis,
    last_hand_back: Millis,
    last_give: Millis,
    last_spread: Millis,
    /// Shards led here, when they were counted, and whether that may have changed.
    leads: u16,
    /// What they are asked for, in requests a second.
    rate: u32,
    counted_at: Millis,
    leads_changed: bool,
}

impl Steering {
    /// All leaderships are to be handed over from here on.
    pub(crate) fn resign(&mut self) {
        self.resigning = true;
    }

    /// A shard got or lost a leader here.
    pub(crate) fn leads_changed(&mut self) {
        self.leads_changed = true;
    }
}

/// How a node stands beside the others, as it sees it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct OwnStanding {
    /// What it says to the others.
    pub load: NodeLoad,
    /// Why its capacity is not whole.
    pub slowness: Option<Slowness>,
    /// Its part of all leaderships, 0 to 1; `None` if it is not among those that are to lead.
    pub share: Option<f64>,
    /// How many shards it should lead.
    pub target: u16,
    /// Commands of clients a second.
    pub commands_per_s: u32,
}

impl Node {
    /// The driver told what it measured.
    pub(crate) fn handle_load(&mut self, sample: &LoadSample, out: &mut Effects) {
        let now = self.time().mono;
        let stall = self.appends.stall(now);
        let commands = self.gateway.counters.commands;
        let detector = &self.detector;
        let load = &mut self.steering.load;
        let before = load.own(0, now).capacity;
        // Who does not steer measures all the same, and nothing follows.
        let changed = load.note(sample, stall, commands, |node| detector.hears_node(node), now);
        if changed && self.config.steers {
            let (capacity, slowness) = (load.own(0, now).capacity, load.slowness());
            out.notices.push(Notice::CapacityChanged { before, capacity, slowness });
            // The others know it before they see what follows from it.
            self.send_heartbeats(now, out);
        }
    }

    /// What this node says of its load.
    pub(crate) fn own_load(&mut self) -> NodeLoad {
        let now = self.time().mono;
        if self.steering.leads_changed || now.since(self.steering.counted_at) >= COUNT_INTERVAL {
            self.count_led();
        }
        let load = self.steering.load.own(self.steering.leads, now);
        // Who does not steer is as the map says, whatever it measures.
        let capacity = if self.config.steers { load.capacity } else { CAPACITY_WHOLE };
        NodeLoad { capacity, rate: self.steering.rate, queue: self.queue.report(), ..load }
    }

    /// Counts what this node leads, and what that is asked for.
    fn count_led(&mut self) {
        let shards = &self.shards[..usize::from(self.meta.map().shard_count)];
        let led = shards.iter().flatten().filter(|shard| shard.group.serving());
        self.steering.leads = u16::try_from(led.clone().count()).unwrap_or(u16::MAX);
        let rate = led.map(|shard| shard.rates().of_all()).sum::<u64>();
        self.steering.rate = u32::try_from(rate).unwrap_or(u32::MAX);
        self.steering.counted_at = self.time().mono;
        self.steering.leads_changed = false;
    }

    /// How this node stands beside the others.
    pub fn own_standing(&self) -> OwnStanding {
        let now = self.time().mono;
        let (me, map) = (self.config.me, self.meta.map());
        let led = self.shards[..usize::from(map.shard_count)].iter().flatten();
        let leads = led.filter(|shard| shard.group.serving()).count();
        let mut load = self.steering.load.own(u16::try_from(leads).unwrap_or(u16::MAX), now);
        (load.queue, load.rate) = (self.queue.report(), self.steering.rate);
        if !self.config.steers {
            load.capacity = CAPACITY_WHOLE;
        }
        let standings = self.standings(load, Which::Heard);
        let own = standings.iter().find(|standing| standing.node == me);
        let by_map = !self.config.steers || self.map_says_who_leads(load);
        let preferred =
            || (0..map.shard_count).filter(|shard| map.replica_set(ShardId(*shard)).first() == Some(&me));
        OwnStanding {
            load,
            slowness: self.steering.load.slowness().filter(|_| self.config.steers),
            share: own.map(|own| own.share),
            target: match own {
                Some(own) if !by_map => u16::try_from(own.target).unwrap_or(0),
                _ => u16::try_from(preferred().count()).unwrap_or(u16::MAX),
            },
            commands_per_s: self.steering.load.commands_per_s(now),
        }
    }

    /// The leaderships that this node gave away last, the oldest first.
    pub fn leader_moves(&self) -> impl Iterator<Item = &LeaderMove> {
        self.steering.moves.iter()
    }

    /// For what reasons this node has given leaderships away since it started, and how many for each.
    pub fn leaders_given_for(&self) -> impl Iterator<Item = (MoveReason, u64)> {
        self.steering.moves.by_reason()
    }

    /// How many clients this node takes at a time: all that it may while it has something to spare, since most clients do
    /// little. With little left, as large a part as it can do of an even share, by what all nodes have to spare; in sixteenths,
    /// so that it changes seldom, and an eighth at least.
    pub fn clients_max(&mut self) -> u64 {
        let most = self.gateway.settings.maxclients;
        let me = self.config.me;
        let view = self.gateway_and_view().1;
        let admitted = if view.load_of(me).spare() >= LITTLE_SPARE_PERCENT {
            most
        } else {
            let shares = view.shares();
            let own = shares.iter().find(|(node, _)| *node == me).map_or(1.0, |(_, share)| *share);
            let of_even = (own * shares.len() as f64).clamp(0.0, 1.0);
            let sixteenths = ((of_even * 16.0 + 0.5) as u64).clamp(2, 16);
            (most * sixteenths / 16).max(1)
        };
        self.gateway.clients_max = admitted;
        admitted
    }

    /// How many leaderships this node has given away since it started.
    pub fn leaders_given(&self) -> u64 {
        self.steering.moves.count()
    }

    /// Gives leaderships away that this node should not have.
    pub(crate) fn steer(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        if now.since(self.steering.last_resign) < RESIGN_INTERVAL {
            return;
        }
        self.steering.last_resign = now;
        // A leader whose disk stands still goes on with the others' votes, and answers whoever would replace it.
        if self.steering.resigning {
            return self.resign(MoveReason::Resigning, out);
        }
        if self.appends.stall(now) > self.config.election_timeout {
            return self.resign(MoveReason::StandingDisk, out);
        }
        self.lead_no_more(out);
        if now.since(self.steering.last_give) >= GIVE_INTERVAL {
            self.steering.last_give = now;
            if self.give(out) || self.spread(out) {
                return;
            }
        }
        self.hand_back(out);
    }

    /// Whether a node is heard and here to stay, so that leaderships may go to it.
    fn counts(&self, node: NodeId, which: Which) -> bool {
        let is_there = match which {
            Which::Settled => self.detector.heard_for(node) >= HAND_BACK_AFTER,
            Which::Heard => self.detector.hears_node(node),
        };
        is_there && !self.detector.gave_up_within(node, RESIGNED_FOR)
    }

    /// The nodes that are to lead, by what they said last, this one with `own`: those that have been there for a while, or
    /// all that are heard.
    fn standings(&self, own: NodeLoad, which: Which) -> Vec<Standing> {
        let (me, state) = (self.config.me, self.meta.state());
        let candidates = state
            .map
            .nodes
            .iter()
            .filter(|row| self.is_member(row.id) && (row.id == me || self.counts(row.id, which)));
        let holders = candidates.filter(|row| state.map.shards_of(row.id).next().is_some());
        let mut standings: Vec<Standing> = holders
            .map(|row| {
                let load = if row.id == me { own } else { self.steering.load.of_peer(row.id) };
                let weight = if self.may_lead(row) { row.weight } else { 0 };
                Standing::new(row.id, weight, load.capacity, load.leads, load.rate)
            })
            .collect();
        apportion(&mut standings, state.map.shard_count);
        standings
    }

    /// Whether leaders may sit on a node: in a preferred zone, if there are such and one of their nodes is heard and well.
    fn may_lead(&self, row: &NodeRow) -> bool {
        // A node without a zone is one of its own.
        let zone = |row: &NodeRow| if row.zone.is_empty() { row.name.clone() } else { row.zone.clone() };
        let is_preferred = |row: &NodeRow| self.config.leader_zones.contains(&zone(row));
        let is_well = |row: &NodeRow| match row.id == self.config.me {
            true => self.steering.load.own(0, self.time().mono).capacity > 0,
            false => self.detector.hears_node(row.id) && self.steering.load.of_peer(row.id).capacity > 0,
        };
        let zones = &self.config.leader_zones;
        zones.is_empty()
            || is_preferred(row)
            || !self
                .meta
                .map()
                .nodes
                .iter()
                .any(|row| is_preferred(row) && self.is_member(row.id) && is_well(row))
    }

    /// Whether every node that is heard can do what it should, and may: then the map says who leads.
    fn map_says_who_leads(&self, own: NodeLoad) -> bool {
        if !self.config.leader_zones.is_empty() {
            return false;
        }
        let others = self.meta.map().nodes.iter().map(|row| row.id).filter(|node| *node != self.config.me);
        let mut heard = others.filter(|node| self.detector.hears_node(*node));
        own.capacity == CAPACITY_WHOLE
            && heard.all(|node| self.steering.load.of_peer(node).capacity == CAPACITY_WHOLE)
    }

    /// Hands over what this node leads beyond its part; whether anything.
    fn give(&mut self, out: &mut Effects) -> bool {
        let own = self.own_load();
        if !self.config.steers || self.map_says_who_leads(own) {
            return false;
        }
        let me = self.config.me;
        // Who should lead nothing does not wait until others have been there for long.
        let sheds = own.capacity == 0;
        let mut standings = self.standings(own, if sheds { Which::Heard } else { Which::Settled });
        let over = standings.iter().find(|standing| standing.node == me).map_or(0, Standing::over);
        let reason = match self.steering.load.slowness() {
            Some(Slowness::Disk) => MoveReason::SlowDisk,
            Some(Slowness::Processor) => MoveReason::SlowProcessor,
            None => MoveReason::Share,
        };
        let mut left = match sheds {
            // The meta group is not counted.
            true => (i64::from(own.leads) / 2).max(SHED_MIN),
            false if over > 0 => (over / GIVE_PART).max(1),
            false => return false,
        };
        // Others give at the same time: the last places are left to those that have more to give.
        let rank = standings.iter().filter(|other| (other.over(), me) > (over, other.node)).count() as i64;
        // Who is in no preferred zone gives to any that is: those even out what they have among themselves.
        let is_outside = standings.iter().any(|standing| standing.node == me && standing.weight == 0);
        let rank = if sheds || is_outside { i64::MIN } else { rank };
        let mut given = false;
        for wish in [Wish::Home, Wish::Guest, Wish::Any] {
            for at in 0..self.shards.len() {
                let id = ShardId(at as u16);
                if left == 0 {
                    return given;
                }
                if let Some((heir, to)) = self.heir_of(id, wish, &standings, rank, sheds)
                    && self.hand_to(id, heir, reason, out)
                {
                    given = true;
                    left -= 1;
                    if let Some(heir) = standings.iter_mut().find(|standing| standing.node == to) {
                        heir.leads += 1;
                    }
                }
            }
        }
        given
    }

    /// What the nodes that count are asked for, and what their parts of it would be; this one just now, since it is compared
    /// with what each of its shards is asked for: a figure of an earlier span would make one of them out to be less than all.
    fn parts(&mut self) -> Vec<Part> {
        self.count_led();
        let own = self.own_load();
        let standings = self.standings(own, Which::Settled);
        spread::parts(standings.iter().map(|standing| (standing.node, standing.rate, standing.share)))
    }

    /// Hands over a shard that is asked for much, if this node is asked for far more than its part; whether any.
    fn spread(&mut self, out: &mut Effects) -> bool {
        let now = self.time().mono;
        if !self.config.steers || now.since(self.steering.last_spread) < SPREAD_INTERVAL {
            return false;
        }
        let own = self.own_load();
        if u64::from(own.rate) < self.config.hot_from_per_second || own.capacity < CAPACITY_WHOLE {
            return false;
        }
        let parts = self.parts();
        let shards = self.shards[..usize::from(self.meta.map().shard_count)].iter().flatten();
        let led = shards.filter(|shard| shard.group.serving()).map(|shard| Hot {
            shard: shard.id,
            rate: shard.rates().of_all(),
            heirs: shard
                .group
                .followers()
                .filter_map(|(replica, accepted)| {
                    let node = node_of(replica);
                    let is_near = shard.group.config().is_voter(replica)
                        && accepted.0 + HEIR_BEHIND_MAX >= shard.group.decided_index().0
                        && self.counts(node, Which::Settled)
                        && self.steering.load.of_peer(node).capacity == CAPACITY_WHOLE;
                    is_near.then_some(node)
                })
                .collect(),
        });
        let Some((id, heir)) = spread::choose(self.config.me, &parts, led) else { return false };
        let config = self.shards[usize::from(id.0)].as_ref().map(|shard| shard.group.config());
        let Some(replica) = config.and_then(|config| config.replica_at(heir.0)) else { return false };
        self.steering.last_spread = now;
        self.hand_to(id, replica, MoveReason::HotShard, out)
    }

    /// Who should lead a shard that is led here instead.
    fn heir_of(
        &self,
        id: ShardId,
        wish: Wish,
        standings: &[Standing],
        rank: i64,
        sheds: bool,
    ) -> Option<(ReplicaId, NodeId)> {
        let shard = self.shards[usize::from(id.0)].as_ref().filter(|shard| shard.group.serving())?;
        if id == self.meta.group() && !sheds {
            return None;
        }
        let first = shard.voters.first().copied();
        let decided = shard.group.decided_index();
        let heirs = shard.group.followers().filter_map(|(replica, accepted)| {
            let node = node_of(replica);
            let is_near = shard.group.config().is_voter(replica)
                && self.detector.hears_node(node)
                && accepted.0 + HEIR_BEHIND_MAX >= decided.0;
            let heir = standings.iter().find(|standing| standing.node == node);
            let need = heir.filter(|heir| sheds || heir.weight > 0).map(|heir| -heir.over());
            let need = need.or(sheds.then_some(i64::MIN + 1)).filter(|need| *need > rank)?;
            let is_well = self.steering.load.of_peer(node).capacity > 0;
            (is_near && is_well).then_some((need, accepted, replica, node))
        });
        let fits = |node: NodeId| match wish {
            Wish::Home => first == Some(node),
            Wish::Guest => first != Some(self.config.me),
            Wish::Any => true,
        };
        let best = heirs
            .filter(|(_, _, _, node)| fits(*node))
            .max_by_key(|(need, accepted, _, _)| (*need, *accepted));
        best.map(|(_, _, replica, node)| (replica, node))
    }

    /// Hands one leadership back to the first of its replica set, once that node has been there
    /// for a while and lacks nothing: the map spreads leaders evenly, restarts do not.
    fn hand_back(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        if now.since(self.steering.last_hand_back) < HAND_BACK_INTERVAL {
            return;
        }
        self.steering.last_hand_back = now;
        let own = self.own_load();
        let by_shares = self.config.steers && !self.map_says_who_leads(own);
        let standings = if by_shares { self.standings(own, Which::Settled) } else { Vec::new() };
        // What was given away for what is asked of it stays away while it would be given away again.
        let parts = if self.config.steers { self.parts() } else { Vec::new() };
        let is_hot =
            parts.iter().map(|part| part.rate).sum::<f64>() >= self.config.hot_from_per_second as f64;
        for at in 0..self.shards.len() {
            let id = ShardId(at as u16);
            let Some(shard) = self.shards[at].as_ref().filter(|shard| shard.group.serving()) else {
                continue;
            };
            let Some(first) = shard.voters.first().copied().filter(|first| *first != self.config.me) else {
                continue;
            };
            // One that is to hold nothing would give it away again.
            if !self.is_member(first) {
                continue;
            }
            let Some(heir) = shard.group.config().voters.first().copied() else { continue };
            let fits = (!by_shares || self.has_room(first, id, &standings))
                && (!is_hot || spread::may_go(first, &parts, shard.rates().of_all()));
            if fits && lacks_nothing(shard, heir) && self.counts(first, Which::Settled) {
                self.hand_to(id, heir, MoveReason::Preference, out);
                return;
            }
        }
    }

    /// Whether a node is to have one leadership more, and this one can do without. The sum of what all are off their targets
    /// must not grow by it: else it would come back.
    fn has_room(&self, node: NodeId, id: ShardId, standings: &[Standing]) -> bool {
        let over = |node| standings.iter().find(|standing| standing.node == node).map(Standing::over);
        match (over(node), over(self.config.me)) {
            _ if id == self.meta.group() => self.steering.load.of_peer(node).capacity > 0,
            (Some(theirs), Some(ours)) => theirs < 0 && theirs < ours,
            _ => false,
        }
    }

    /// Hands every leadership to a replica that is heard (R10).
    fn resign(&mut self, reason: MoveReason, out: &mut Effects) {
        for at in 0..self.shards.len() {
            let id = ShardId(at as u16);
            if self.shards[at].as_ref().is_some_and(|shard| shard.group.serving()) {
                self.hand_over(id, reason, out);
            }
        }
    }

    /// Whether a node holds a share, as far as is recorded. One that is to hold none leads only if nobody else can.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.meta.state().standing(node) == Some(MapStanding::Member)
    }

    /// Hands what is led here to members, if this node is none: leaders go before replicas.
    fn lead_no_more(&mut self, out: &mut Effects) {
        if self.is_member(self.config.me) {
            return;
        }
        for id in (0..self.shards.len()).map(|at| ShardId(at as u16)) {
            self.hand_to_member(id, out);
        }
    }

    /// Hands leadership to the replica that is heard and has most, of a node that holds a share and can lead if there is one.
    pub(crate) fn hand_over(&mut self, id: ShardId, reason: MoveReason, out: &mut Effects) {
        self.hand_to_best(id, false, reason, out);
    }

    /// The same, to nobody else than a node that holds a share; whether there is one, if this node leads.
    pub(crate) fn hand_to_member(&mut self, id: ShardId, out: &mut Effects) -> bool {
        self.hand_to_best(id, true, MoveReason::Leaving, out)
    }

    fn hand_to_best(
        &mut self,
        id: ShardId,
        members_only: bool,
        reason: MoveReason,
        out: &mut Effects,
    ) -> bool {
        let Some(shard) = self.shards[usize::from(id.0)].as_ref().filter(|shard| shard.group.serving())
        else {
            return false;
        };
        let is_well = |replica| self.steering.load.of_peer(node_of(replica)).capacity > 0;
        let is_member = |replica| self.is_member(node_of(replica));
        let best = shard
            .group
            .followers()
            .filter(|(replica, _)| shard.group.config().is_voter(*replica))
            .filter(|(replica, _)| self.detector.hears_node(node_of(*replica)))
            .filter(|(replica, _)| !members_only || is_member(*replica))
            .max_by_key(|(replica, accepted)| (is_member(*replica), is_well(*replica), *accepted));
        best.is_some_and(|(heir, _)| self.hand_to(id, heir, reason, out))
    }

    fn hand_to(&mut self, id: ShardId, heir: ReplicaId, reason: MoveReason, out: &mut Effects) -> bool {
        let now = self.time();
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return false };
        let begun = !shard.group.draining();
        if !shard.group.transfer(heir, now.mono, &mut self.outbox) {
            return false;
        }
        if begun {
            self.steering.moves.note(LeaderMove { at: now.wall, shard: id, to: node_of(heir), reason });
        }
        self.steering.leads_changed();
        self.mark_dirty(id);
        self.collect(id, out);
        true
    }
}

/// Which nodes may get leaderships.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those that have been heard for a while.
    Settled,
    /// All that are heard.
    Heard,
}

/// Which leaderships are given first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// To the first of the replica set.
    Home,
    /// Of which this node is not the first.
    Guest,
    Any,
}

/// Whether a replica has all that is decided.
fn lacks_nothing(shard: &Shard, replica: ReplicaId) -> bool {
    let decided: Index = shard.group.decided_index();
    shard.group.followers().any(|(follower, accepted)| follower == replica && accepted >= decided)
}
