//! Failure detection per node pair, shared by all groups (R9), and the median of the wall
//! clocks (R16).

use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::{Connectivity, Millis, REPLICAS_MAX, ReplicaId, Serial};

use crate::event::Now;
use crate::peer::Heartbeat;

/// For how long at least the best estimate of a peer's clock counts, and twice as long at most.
const SKEW_SPAN: Millis = Millis(2_000);

/// What this node knows of the others' liveness and clocks.
#[derive(Debug)]
pub struct Detector {
    me: NodeId,
    timeout: Millis,
    peers: Vec<Peer>,
    now: Now,
    /// For how long the own disk has had an append waiting.
    own_stall: Millis,
    /// Whom some node hears may have changed since [`Detector::take_turned`].
    turned: bool,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    /// The boot that it is in, as it said last.
    boot: Option<u64>,
    /// Whoever speaks for it has another incarnation than the map says (R21).
    is_stranger: bool,
    /// Last message; `None` before the first and after its connections broke.
    heard_at: Option<Millis>,
    /// Whom it hears, as it said last.
    hears: Vec<NodeId>,
    disk_stall: Millis,
    /// As [`Detector::reaches_node`] said last.
    reached: bool,
    memory_full: bool,
    disk_full: bool,
    /// Its wall clock as it said last, and when that arrived.
    wall: Option<(Millis, Millis)>,
    skew: Skew,
    /// Since when it is heard without a break, as far as [`Detector::take_changes`] saw.
    heard_since: Option<Millis>,
    /// When it last gave up a leadership that was its own to have; `None` after its connections broke.
    gave_up_at: Option<Millis>,
}

impl Peer {
    fn new(node: NodeId) -> Peer {
        Peer {
            node,
            boot: None,
            is_stranger: false,
            heard_at: None,
            hears: Vec::new(),
            disk_stall: Millis(0),
            reached: false,
            memory_full: false,
            disk_full: false,
            wall: None,
            skew: Skew::default(),
            heard_since: None,
            gave_up_at: None,
        }
    }
}

/// How far a peer's wall clock is ahead of our clock that never jumps, in milliseconds. What a heartbeat took on its way
/// makes the sender seem behind, so the most of a few seconds is the best estimate.
#[derive(Debug, Default)]
struct Skew {
    /// The most since `since`, and the most of the span before that.
    most: Option<i64>,
    before: Option<i64>,
    since: Millis,
}

impl Skew {
    fn note(&mut self, wall: Millis, now: Millis) {
        if now.since(self.since) >= SKEW_SPAN {
            self.before = self.most.take();
            self.since = now;
        }
        self.most = self.most.max(Some(difference(wall, now)));
    }

    fn best(&self) -> Option<i64> {
        self.most.max(self.before)
    }
}

/// `a` less `b`, in milliseconds.
fn difference(a: Millis, b: Millis) -> i64 {
    i64::try_from(a.0).unwrap_or(i64::MAX).saturating_sub(i64::try_from(b.0).unwrap_or(i64::MAX))
}

impl Detector {
    /// Knows the other nodes and has heard none.
    pub fn new(me: NodeId, others: impl Iterator<Item = NodeId>, timeout: Millis) -> Detector {
        let peers = others.map(Peer::new).collect();
        Detector { me, timeout, peers, now: Now::default(), own_stall: Millis(0), turned: true }
    }

    /// The other nodes are these from here on: who is new has not been heard, and who is gone is forgotten.
    pub fn set_others(&mut self, others: impl Iterator<Item = NodeId>) {
        let mut before = core::mem::take(&mut self.peers);
        self.peers = others
            .map(|node| match before.iter().position(|peer| peer.node == node) {
                Some(at) => before.swap_remove(at),
                None => Peer::new(node),
            })
            .collect();
        self.turned = true;
    }

    /// Sets the time and the own disk's stall for all answers until the next call.
    pub fn set_now(&mut self, now: Now, own_stall: Millis) {
        self.now = now;
        self.turned |= (own_stall > self.timeout) != (self.own_stall > self.timeout);
        self.own_stall = own_stall;
    }

    fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == node)
    }

    fn peer_mut(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.node == node)
    }

    /// A voter is a node and its incarnation (R21): what another one says in its place is not heard.
    pub(crate) fn set_stranger(&mut self, node: NodeId, is_stranger: bool) {
        if let Some(peer) = self.peer_mut(node) {
            peer.is_stranger = is_stranger;
        }
    }

    /// Whether whoever speaks for `node` is not that node.
    pub(crate) fn is_stranger(&self, node: NodeId) -> bool {
        self.peer(node).is_some_and(|peer| peer.is_stranger)
    }

    /// Any message shows that its sender lives.
    pub fn heard(&mut self, node: NodeId) {
        let now = self.now.mono;
        if let Some(peer) = self.peer_mut(node) {
            peer.heard_at = Some(now);
        }
    }

    /// Its connections broke: unheard until it speaks again. This only hastens what silence
    /// would bring, and a quorum must agree before anything is prepared.
    pub fn disconnected(&mut self, node: NodeId) {
        if let Some(peer) = self.peer_mut(node) {
            peer.heard_at = None;
            peer.gave_up_at = None;
            peer.hears.clear();
            self.turned = true;
        }
    }

    /// Takes a heartbeat.
    pub fn handle_heartbeat(&mut self, from: NodeId, heartbeat: &Heartbeat) {
        let now = self.now.mono;
        if let Some(peer) = self.peer_mut(from) {
            peer.heard_at = Some(now);
            peer.boot = Some(heartbeat.boot);
            let turned = peer.hears != heartbeat.heard;
            if turned {
                peer.hears.clone_from(&heartbeat.heard);
            }
            peer.disk_stall = Millis(u64::from(heartbeat.disk_stall_ms));
            (peer.memory_full, peer.disk_full) = (heartbeat.memory_full, heartbeat.disk_full);
            peer.wall = Some((heartbeat.wall, now));
            peer.skew.note(heartbeat.wall, now);
            self.turned |= turned;
        }
    }

    /// Whether `node` was heard within an election time-out and its disk moves.
    pub fn hears_node(&self, node: NodeId) -> bool {
        if node == self.me {
            return self.own_stall <= self.timeout;
        }
        self.reaches_node(node) && self.peer(node).is_some_and(|peer| peer.disk_stall <= self.timeout)
    }

    /// Whether `node` was heard within an election time-out, whatever its disk does.
    fn reaches_node(&self, node: NodeId) -> bool {
        let since = |peer: &Peer| peer.heard_at.is_some_and(|at| self.now.mono.since(at) <= self.timeout);
        node == self.me || self.peer(node).is_some_and(since)
    }

    /// Whether this node hears `node`, or one that it hears does.
    pub fn anybody_hears(&self, node: NodeId) -> bool {
        self.hears_node(node) || self.relays_to(node).next().is_some()
    }

    /// The nodes that are heard and hear `node`: what this node cannot send there itself, they can (R11).
    pub(crate) fn relays_to(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let reaches = move |peer: &&Peer| peer.hears.contains(&node) && self.hears_node(peer.node);
        self.peers.iter().filter(move |peer| peer.node != node).filter(reaches).map(|peer| peer.node)
    }

    /// One of these, by chance: one that cannot send there either must not be asked each time.
    pub(crate) fn relay_to(&self, node: NodeId, chance: u64) -> Option<NodeId> {
        let turn = chance.checked_rem(self.relays_to(node).count() as u64)?;
        self.relays_to(node).nth(turn as usize)
    }

    /// The boot that `node` is in, as it said last.
    pub fn boot_of(&self, node: NodeId) -> Option<u64> {
        self.peer(node)?.boot
    }

    /// For how long `node` has been heard without a break; zero if it is not.
    pub fn heard_for(&self, node: NodeId) -> Millis {
        let since = self.peer(node).and_then(|peer| peer.heard_since);
        since.map_or(Millis(0), |since| self.now.mono.since(since))
    }

    /// `node` gave up a leadership that was its own to have: it is about to stop.
    pub fn gave_up(&mut self, node: NodeId) {
        let now = self.now.mono;
        if let Some(peer) = self.peer_mut(node) {
            peer.gave_up_at = Some(now);
        }
    }

    /// Whether `node` gave up leaderships within `span` and has not been gone since.
    pub fn gave_up_within(&self, node: NodeId, span: Millis) -> bool {
        let at = self.peer(node).and_then(|peer| peer.gave_up_at);
        at.is_some_and(|at| self.now.mono.since(at) < span)
    }

    /// The nodes heard, this one included.
    pub fn heard_nodes(&self) -> Vec<NodeId> {
        let others = self.peers.iter().map(|peer| peer.node).filter(|node| self.hears_node(*node));
        core::iter::once(self.me).chain(others).collect()
    }

    /// Nodes whose state has changed since the last call: (node, heard).
    pub fn take_changes(&mut self) -> Vec<(NodeId, bool)> {
        let mut changes = Vec::new();
        for at in 0..self.peers.len() {
            let node = self.peers[at].node;
            let reached = self.reaches_node(node);
            self.turned |= core::mem::replace(&mut self.peers[at].reached, reached) != reached;
            let heard = self.hears_node(node);
            if heard != self.peers[at].heard_since.is_some() {
                self.peers[at].heard_since = heard.then_some(self.now.mono);
                self.turned = true;
                changes.push((node, heard));
            }
        }
        changes
    }

    /// Whether an answer of [`Connectivity`] may have changed since the last call, as far as
    /// [`Detector::take_changes`] saw.
    pub(crate) fn take_turned(&mut self) -> bool {
        core::mem::take(&mut self.turned)
    }

    /// Whether a peer said that it is over its `maxmemory`.
    pub fn memory_full(&self, node: NodeId) -> bool {
        self.peer(node).is_some_and(|peer| peer.memory_full)
    }

    /// Whether a peer said that its disk has no room for writes.
    pub fn disk_full(&self, node: NodeId) -> bool {
        self.peer(node).is_some_and(|peer| peer.disk_full)
    }

    /// How far the own wall clock is ahead of the median of the clocks of all nodes heard, in milliseconds; below zero
    /// if it is behind. `None` if fewer than three are known: of two, nobody can say which is wrong.
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        let own = difference(self.now.wall, self.now.mono);
        let heard = self.peers.iter().filter(|peer| self.hears_node(peer.node));
        let mut all: Vec<i64> = heard.filter_map(|peer| peer.skew.best()).chain([own]).collect();
        if all.len() < 3 {
            return None;
        }
        all.sort_unstable();
        Some(own.saturating_sub(all[(all.len() - 1) / 2]))
    }

    fn wall_of(&self, node: NodeId) -> Option<Millis> {
        if node == self.me {
            return Some(self.now.wall);
        }
        let (wall, at) = self.peer(node)?.wall?;
        // Aged by our own clock that never jumps (R16).
        Some(wall.plus(self.now.mono.since(at)))
    }

    /// The latest shard time that may be proposed: the own wall clock, or the median of the
    /// voters' if that is earlier (R16). Clocks never heard do not count.
    pub fn shard_time(&self, voters: &[NodeId]) -> Millis {
        self.now.wall.min(self.median_time(voters))
    }

    /// What the shard time of these voters is about, whatever the own clock says: the median of theirs. The own clock, if
    /// none of theirs was ever heard.
    pub fn median_time(&self, voters: &[NodeId]) -> Millis {
        // Asked at each tick for each shard that is led here: nothing is allocated.
        let mut walls = [Millis(0); REPLICAS_MAX];
        let mut count = 0;
        for (place, wall) in walls.iter_mut().zip(voters.iter().filter_map(|voter| self.wall_of(*voter))) {
            *place = wall;
            count += 1;
        }
        let walls = &mut walls[..count];
        if walls.is_empty() {
            return self.now.wall;
        }
        walls.sort_unstable();
        walls[(walls.len() - 1) / 2]
    }
}

/// The replica of a node that was there when its shard was founded.
pub fn replica_of(node: NodeId) -> ReplicaId {
    ReplicaId::new(node.0, Serial(0))
}

/// The node of a replica.
pub fn node_of(replica: ReplicaId) -> NodeId {
    NodeId(replica.node())
}

impl Connectivity for Detector {
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let (a, b) = (node_of(a), node_of(b));
        if a == self.me {
            return self.hears_node(b);
        }
        a == b || self.peer(a).is_some_and(|peer| peer.hears.contains(&b))
    }

    fn reaches(&self, a: ReplicaId, b: ReplicaId) -> bool {
        match node_of(a) == self.me {
            true => self.reaches_node(node_of(b)),
            false => self.hears(a, b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(ms: u64) -> Now {
        Now { mono: Millis(ms), wall: Millis(1_000_000 + ms) }
    }

    fn heartbeat(wall: u64) -> Heartbeat {
        Heartbeat {
            boot: 1,
            heard: alloc::vec![NodeId(1), NodeId(2)],
            wall: Millis(wall),
            disk_stall_ms: 0,
            memory_full: false,
            disk_full: false,
            epoch: tholos_cluster::Epoch(1),
            load: crate::load::NodeLoad::default(),
        }
    }

    fn detector() -> Detector {
        Detector::new(NodeId(1), [NodeId(2), NodeId(3)].into_iter(), Millis(300))
    }

    #[test]
    fn silence_and_a_standing_disk_are_unheard() {
        let mut detector = detector();
        detector.set_now(now(0), Millis(0));
        assert!(!detector.hears_node(NodeId(2)));
        detector.handle_heartbeat(NodeId(2), &heartbeat(0));
        assert!(detector.hears_node(NodeId(2)));
        detector.set_now(now(301), Millis(0));
        assert!(!detector.hears_node(NodeId(2)));
        let stalled = Heartbeat { disk_stall_ms: 301, ..heartbeat(0) };
        detector.handle_heartbeat(NodeId(2), &stalled);
        assert!(!detector.hears_node(NodeId(2)));
        let (me, other) = (replica_of(NodeId(1)), replica_of(NodeId(2)));
        assert!(detector.reaches(me, other), "a slow disk is no silence");
        detector.take_changes();
        assert!(detector.take_turned());
        detector.set_now(now(602), Millis(0));
        assert!(!detector.reaches(me, other));
        assert!(detector.take_changes().is_empty() && detector.take_turned(), "silence counts all the same");
    }

    #[test]
    fn a_clock_off_the_median_is_known_and_a_late_heartbeat_is_no_wrong_clock() {
        let mut detector = detector();
        detector.set_now(now(0), Millis(0));
        detector.handle_heartbeat(NodeId(2), &heartbeat(1_000_000));
        assert_eq!(detector.clock_ahead_ms(), None, "of two, nobody can say which is wrong");
        detector.handle_heartbeat(NodeId(3), &heartbeat(999_000));
        assert_eq!(detector.clock_ahead_ms(), Some(0));
        // Both of the next are on their way for 900 ms.
        for ms in [950, 1_000] {
            detector.set_now(now(ms), Millis(0));
            detector.handle_heartbeat(NodeId(2), &heartbeat(1_000_000 + ms - 900));
            detector.handle_heartbeat(NodeId(3), &heartbeat(999_000 + ms - 900));
        }
        assert_eq!(detector.clock_ahead_ms(), Some(0));
        // Now the own clock jumps, and the others' stay where they are.
        detector.set_now(Now { mono: Millis(1_001), wall: Millis(1_000_000 + 61_001) }, Millis(0));
        assert_eq!(detector.clock_ahead_ms(), Some(60_000));
        // It is the others that have jumped: estimates of before are forgotten after a while.
        for ms in [4_000, 6_100, 8_200] {
            detector.set_now(now(ms), Millis(0));
            detector.handle_heartbeat(NodeId(2), &heartbeat(940_000 + ms));
            detector.handle_heartbeat(NodeId(3), &heartbeat(930_000 + ms));
        }
        assert_eq!(detector.clock_ahead_ms(), Some(60_000));
        // Who is not heard has no say.
        detector.disconnected(NodeId(3));
        assert_eq!(detector.clock_ahead_ms(), None);
    }

    #[test]
    fn whom_another_hears_is_not_lost() {
        let mut detector = detector();
        detector.set_now(now(0), Millis(0));
        assert!(!detector.anybody_hears(NodeId(3)));
        // It says that it hears n3.
        let heard = alloc::vec![NodeId(2), NodeId(3)];
        detector.handle_heartbeat(NodeId(2), &Heartbeat { heard, ..heartbeat(0) });
        assert!(detector.anybody_hears(NodeId(3)) && !detector.hears_node(NodeId(3)));
        assert_eq!((detector.boot_of(NodeId(2)), detector.boot_of(NodeId(3))), (Some(1), None));
        // What it said counts no longer than it is heard itself.
        detector.set_now(now(301), Millis(0));
        assert!(!detector.anybody_hears(NodeId(3)));
    }

    #[test]
    fn one_wild_clock_moves_nothing() {
        let all = [NodeId(1), NodeId(2), NodeId(3)];
        let mut detector = detector();
        detector.set_now(now(0), Millis(0));
        detector.handle_heartbeat(NodeId(2), &heartbeat(1_000_010));
        detector.handle_heartbeat(NodeId(3), &heartbeat(9_999_999));
        assert_eq!(detector.shard_time(&all), Millis(1_000_000));
        // The own clock is far behind: what it proposes is not, for the log's time holds it, but what it expects of others is theirs.
        detector.set_now(Now { mono: Millis(3), wall: Millis(5_000) }, Millis(0));
        assert_eq!(detector.shard_time(&all), Millis(5_000));
        assert_eq!(detector.median_time(&all), Millis(1_000_013));
        // The own clock is the wild one: the median holds it back.
        detector.set_now(Now { mono: Millis(5), wall: Millis(9_000_000) }, Millis(0));
        detector.handle_heartbeat(NodeId(3), &heartbeat(1_000_020));
        assert_eq!(detector.shard_time(&all), Millis(1_000_020));
    }
}
