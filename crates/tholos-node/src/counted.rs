//! How far each node's log is durable, as the others have counted it (R21).
//!
//! A log's durable lsn never runs back, not through a restart either. So a node that recovers less than a peer has
//! counted has lost what that peer may rest on: its directory is an old copy, or a part of it is gone without a trace.
//! Every node tells every other, and hears from it, before one of them takes the other's word in any shard:
//!
//! - **C1** Nothing of a shard's protocol is taken from a peer whose log recovered less than was counted of it, until it
//!   says that it knows: then all its replicas are mute (R20), durably.
//! - **C2** Nothing is taken from a peer either that has not said, to this boot, what it has counted of this node.
//! - **C3** What was counted rises, but for a peer that knows of its loss.
//! - **C4** A node that may have lost replicas without a trace begins none any more because a message is for it, in this
//!   directory: a group could speak to one that had been here before, and voted. That is durable before the node says that
//!   it knows. How it comes by replicas nevertheless is in `renewals.rs`.
//!
//! All this rests on connections: what was sent to an earlier boot of the receiver does not reach a later one.
//!
//! What was counted of a peer outlives a restart if the driver keeps it; it may be late in doing so.

use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::{Millis, Planted};
use tholos_ring::ShardId;

use crate::event::{Effects, Loss, Notice};
use crate::node::Node;
use crate::peer::PeerMessage;
use crate::replicas::empty_keyspace;

/// Boots of a peer that are remembered, so that what an earlier one said late is not taken for a new one.
const BOOTS_MAX: usize = 8;
/// What has not changed is said again after this long: it may have been lost.
const REPEAT_AFTER: Millis = Millis(1000);

/// What nodes tell each other of their logs. Positions are lsns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// The sender's boot.
    pub boot: u64,
    /// Where its log ended when this boot began.
    pub recovered: u64,
    /// Up to here it is durable now.
    pub durable: u64,
    /// It knows that it has lost what was below this, and counts nowhere with it; 0 if it knows of no loss.
    pub owned_up: u64,
    /// The receiver's boot that the rest is about; 0 if the sender has heard of none.
    pub of_boot: u64,
    /// What the sender had counted of the receiver before that boot.
    pub of_before: u64,
}

/// What is counted of one peer's log, for the driver to keep over this node's restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CountedOf {
    /// The latest boot of the peer that was heard of; 0 if none was. A peer that runs on through this node's restart is
    /// in the same boot after it, and its log began that boot with less than it has now.
    pub boot: u64,
    /// What had been counted before that boot.
    pub before: u64,
    /// What is counted now.
    pub lsn: u64,
}

/// What this node and its peers have counted of each other.
#[derive(Debug)]
pub(crate) struct Ledger {
    boot: u64,
    recovered: u64,
    durable: u64,
    owned_up: u64,
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    node: NodeId,
    counted: u64,
    /// Its boots heard of, latest last: each with what had been counted before it.
    boots: Vec<(u64, u64)>,
    /// C1: its log has all that was counted of it.
    whole: bool,
    /// C2: it has said to this boot what it counted, and that was no more than is here.
    vouches: bool,
    /// What was told it last, and when.
    told: Option<(Counted, Millis)>,
}

/// Whether this node begins replicas (C4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bar {
    /// It does.
    Open,
    /// It does not, and that is not durable yet.
    Closed,
    /// It does not, durably.
    Kept,
}

/// What becomes of a [`Counted`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// The peer wants an answer now.
    Answer,
    /// The peer went back in time: told once in a boot.
    PeerWentBack,
    /// This node went back in time: a peer has counted this much.
    WentBack { counted: u64 },
}

impl Ledger {
    pub(crate) fn new(boot: u64, others: impl Iterator<Item = NodeId>) -> Ledger {
        Ledger { boot, recovered: 0, durable: 0, owned_up: 0, peers: others.map(Peer::new).collect() }
    }

    /// Where the log ended when this boot began.
    pub(crate) fn set_recovered(&mut self, lsn: u64) {
        (self.recovered, self.durable) = (lsn, lsn);
    }

    /// What was counted of `node` before this node's restart.
    pub(crate) fn set_counted(&mut self, node: NodeId, counted: CountedOf) {
        let peer = self.peer_mut(node);
        peer.counted = counted.lsn;
        if counted.boot != 0 {
            peer.boots.push((counted.boot, counted.before));
        }
    }

    pub(crate) fn recovered(&self) -> u64 {
        self.recovered
    }

    pub(crate) fn set_durable(&mut self, lsn: u64) {
        self.durable = self.durable.max(lsn);
    }

    /// Everything that this node is mute for, having lost what was below `lsn`, is durable.
    pub(crate) fn own_up(&mut self, lsn: u64) {
        self.owned_up = self.owned_up.max(lsn);
    }

    /// What was counted of each node, for the driver to keep.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (NodeId, CountedOf)> {
        self.peers.iter().map(|peer| {
            let (boot, before) = peer.boots.last().copied().unwrap_or_default();
            (peer.node, CountedOf { boot, before, lsn: peer.counted })
        })
    }

    /// Whether the word of `node` counts (C1, C2).
    pub(crate) fn trusts(&self, node: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.node == node && peer.whole && peer.vouches)
    }

    /// What to tell `node`, if there is news for it or it is time to say it again.
    pub(crate) fn tell(&mut self, node: NodeId, now: Millis) -> Option<Counted> {
        let counted = self.report(node);
        let peer = self.peer_mut(node);
        let stale = |(told, at): (Counted, Millis)| told != counted || now.since(at) >= REPEAT_AFTER;
        if !peer.told.is_none_or(stale) && peer.vouches {
            return None;
        }
        peer.told = Some((counted, now));
        Some(counted)
    }

    fn report(&self, node: NodeId) -> Counted {
        let about = self.peers.iter().find(|peer| peer.node == node).and_then(|peer| peer.boots.last());
        let (of_boot, of_before) = about.copied().unwrap_or_default();
        let Ledger { boot, recovered, durable, owned_up, .. } = *self;
        Counted { boot, recovered, durable, owned_up, of_boot, of_before }
    }

    /// Takes in what `from` says of its log and of this one.
    pub(crate) fn handle(&mut self, from: NodeId, said: &Counted) -> News {
        let (boot, recovered, owned_up) = (self.boot, self.recovered, self.owned_up);
        let peer = self.peer_mut(from);
        let is_news = peer.note_boot(said.boot);
        let went_back = peer.count(said);
        if said.of_boot == boot && peer.boots.last().is_some_and(|(latest, _)| *latest == said.boot) {
            if said.of_before > recovered.max(owned_up) {
                peer.vouches = false;
                return News::WentBack { counted: said.of_before };
            }
            peer.vouches = true;
        }
        match (went_back && is_news, is_news || said.of_boot != boot) {
            (true, _) => News::PeerWentBack,
            (false, true) => News::Answer,
            (false, false) => News::None,
        }
    }

    /// The row of a node of the map, which may have joined since the start.
    fn peer_mut(&mut self, node: NodeId) -> &mut Peer {
        let at = self.peers.iter().position(|peer| peer.node == node).unwrap_or_else(|| {
            self.peers.push(Peer::new(node));
            self.peers.len() - 1
        });
        &mut self.peers[at]
    }
}

impl Peer {
    fn new(node: NodeId) -> Peer {
        Peer { node, counted: 0, boots: Vec::new(), whole: false, vouches: false, told: None }
    }

    /// Whether `boot` is one not heard of before.
    fn note_boot(&mut self, boot: u64) -> bool {
        if self.boots.iter().any(|(known, _)| *known == boot) {
            return false;
        }
        if self.boots.len() == BOOTS_MAX {
            self.boots.remove(0);
        }
        self.boots.push((boot, self.counted));
        // A new process has not said what it has counted; its last word is none of this one's.
        self.vouches = false;
        true
    }

    /// Counts what the peer says is durable; whether its log has less than was counted before its boot.
    fn count(&mut self, said: &Counted) -> bool {
        let at = self.boots.iter().position(|(known, _)| *known == said.boot).unwrap_or(0);
        if at + 1 < self.boots.len() {
            // Of an earlier boot, and late: those after it must have that much.
            for (_, before) in &mut self.boots[at + 1..] {
                *before = (*before).max(said.durable);
            }
            self.counted = self.counted.max(said.durable);
            return false;
        }
        let before = self.boots[at].1;
        let went_back = said.recovered < before;
        self.whole = !went_back || said.owned_up >= before;
        if went_back && self.whole {
            // It counts with nothing of what it has lost (C3).
            self.boots[at].1 = said.recovered;
            self.counted = said.durable;
        } else if self.whole {
            self.counted = self.counted.max(said.durable);
        }
        went_back && !self.whole
    }
}

/// What the ledger says, and what comes of it.
impl Node {
    /// Whether this node begins no replica because a message is for it (C4).
    pub fn is_barred(&self) -> bool {
        self.bar != Bar::Open
    }

    pub(crate) fn tell_counted(&mut self, node: NodeId, out: &mut Effects) {
        if let Some(counted) = self.ledger.tell(node, self.time().mono) {
            out.sends.push((node, PeerMessage::Counted(counted)));
        }
    }

    pub(crate) fn handle_counted(&mut self, from: NodeId, said: &Counted, out: &mut Effects) {
        match self.ledger.handle(from, said) {
            News::None => {}
            News::Answer => self.tell_counted(from, out),
            News::PeerWentBack => {
                out.notices.push(Notice::PeerWentBack { node: from });
                self.tell_counted(from, out);
            }
            News::WentBack { counted } => {
                let under_way = self.owning_up.map_or(0, |(_, lost_to)| lost_to);
                if under_way < counted && !self.forgets_what_was_counted() {
                    let recovered = self.ledger.recovered();
                    out.notices.push(Notice::WentBack { counted_by: from, recovered, counted });
                    self.lose_all(out);
                    self.bar(out);
                    self.owning_up = Some((self.outbox.last_seq(), counted));
                    self.own_up();
                }
            }
        }
    }

    /// What is lost, promises too, is no longer counted with here (R20): every replica that is not mute yet becomes it.
    fn lose_all(&mut self, out: &mut Effects) {
        for at in 0..self.shards.len() {
            if self.shards[at].as_ref().is_some_and(|shard| shard.group.repair().is_none()) {
                self.lose(ShardId(at as u16), Loss::Restored, out);
            }
        }
    }

    pub(crate) fn lose(&mut self, id: ShardId, loss: Loss, out: &mut Effects) {
        let nonce = self.fresh_chance();
        let Some(shard) = self.shards[usize::from(id.0)].as_mut() else { return };
        shard.group.lose(nonce, &mut self.outbox);
        // Whoever waits is answered first, from what led and leads no more.
        self.collect(id, out);
        let empty = empty_keyspace(self.meta.map(), id);
        self.forget_state(id, empty, loss, out);
        out.notices.push(Notice::ReplicaMuted { shard: id, loss });
    }

    pub(crate) fn trusts(&self, node: NodeId) -> bool {
        self.ledger.trusts(node) || self.forgets_what_was_counted()
    }

    /// Planted.
    fn forgets_what_was_counted(&self) -> bool {
        matches!(self.config.group.planted, Planted::BackInTimeVotes | Planted::WipedVotes)
    }

    /// Begins no replicas from here on (C4).
    pub(crate) fn bar(&mut self, out: &mut Effects) {
        if self.bar == Bar::Open {
            self.bar = Bar::Closed;
        }
        out.bar |= self.bar == Bar::Closed;
    }

    /// The directory says that this node begins no replicas any more (C4). Called before the start.
    pub fn recover_barred(&mut self) {
        self.bar = Bar::Kept;
    }

    /// The driver has made that durable.
    pub(crate) fn handle_bar_kept(&mut self) {
        self.bar = Bar::Kept;
        self.own_up();
    }

    /// Once that is durable, the others may know.
    pub(crate) fn own_up(&mut self) {
        if let Some((seq, counted)) = self.owning_up
            && self.appends.durable >= seq
            && self.bar == Bar::Kept
        {
            self.ledger.own_up(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    fn ledger(me: NodeId, other: NodeId, boot: u64, recovered: u64) -> Ledger {
        let mut ledger = Ledger::new(boot, core::iter::once(other));
        ledger.set_recovered(recovered);
        ledger.set_durable(recovered);
        assert!(!ledger.trusts(other) && !ledger.trusts(me));
        ledger
    }

    /// Both say what there is to say until nothing is left; what came of it on either side.
    fn exchange(one: &mut Ledger, two: &mut Ledger) -> (Vec<News>, Vec<News>) {
        let (mut news_one, mut news_two) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            news_two.push(two.handle(ME, &one.report(OTHER)));
            news_one.push(one.handle(OTHER, &two.report(ME)));
        }
        let quiet = |news: &mut Vec<News>| news.retain(|news| !matches!(news, News::None | News::Answer));
        quiet(&mut news_one);
        quiet(&mut news_two);
        (news_one, news_two)
    }

    #[test]
    fn both_sides_are_heard_before_either_is_trusted() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        assert_eq!(two.handle(ME, &one.report(OTHER)), News::Answer);
        assert!(!two.trusts(ME), "it has not said what it counted");
        assert_eq!(one.handle(OTHER, &two.report(ME)), News::Answer);
        assert!(one.trusts(OTHER));
        two.handle(ME, &one.report(OTHER));
        assert!(two.trusts(ME));
        assert!(!one.trusts(NodeId(3)) && !one.trusts(ME));
    }

    #[test]
    fn a_restart_with_all_that_was_counted_is_trusted() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        exchange(&mut one, &mut two);
        two.set_durable(900);
        exchange(&mut one, &mut two);
        let mut again = ledger(OTHER, ME, 9, 900);
        assert_eq!(exchange(&mut one, &mut again), (Vec::new(), Vec::new()));
        assert!(one.trusts(OTHER) && again.trusts(ME));
        // A late word of the boot before changes nothing for the one that is there.
        assert_eq!(one.handle(OTHER, &two.report(ME)), News::None);
        assert_eq!(exchange(&mut one, &mut again), (Vec::new(), Vec::new()));
        assert!(one.trusts(OTHER));
    }

    #[test]
    fn who_went_back_in_time_is_told_and_not_trusted_until_it_owns_up() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        two.set_durable(900);
        exchange(&mut one, &mut two);
        let mut back = ledger(OTHER, ME, 9, 800);
        let (news_one, news_back) = exchange(&mut one, &mut back);
        assert_eq!(news_one, [News::PeerWentBack]);
        assert_eq!(news_back[0], News::WentBack { counted: 900 });
        assert!(!one.trusts(OTHER) && !back.trusts(ME));
        let stays = CountedOf { boot: 9, before: 900, lsn: 900 };
        assert_eq!(one.counted().collect::<Vec<_>>(), [(OTHER, stays)], "what was counted stays");
        back.own_up(900);
        assert_eq!(exchange(&mut one, &mut back), (Vec::new(), Vec::new()));
        assert!(one.trusts(OTHER) && back.trusts(ME));
        // Its next boots are judged by what it has from now on.
        back.set_durable(850);
        exchange(&mut one, &mut back);
        let mut later = ledger(OTHER, ME, 10, 850);
        assert_eq!(exchange(&mut one, &mut later), (Vec::new(), Vec::new()));
        let mut back_again = ledger(OTHER, ME, 11, 849);
        assert_eq!(exchange(&mut one, &mut back_again).0, [News::PeerWentBack]);
    }

    #[test]
    fn what_was_counted_in_an_earlier_boot_counts() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        one.set_counted(OTHER, CountedOf { boot: 6, before: 0, lsn: 501 });
        assert_eq!(exchange(&mut one, &mut two).1[0], News::WentBack { counted: 501 });
    }

    /// Found by the torture test: a node that was restarted took those that had run on for ones that went back, since
    /// their boots had begun with less than was counted of them meanwhile; they were mute, and the cluster stood still.
    #[test]
    fn who_ran_on_through_a_restart_of_this_node_has_not_gone_back() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        two.set_durable(900);
        exchange(&mut one, &mut two);
        let kept: Vec<(NodeId, CountedOf)> = one.counted().collect();
        let mut again = ledger(ME, OTHER, 10, 1000);
        kept.iter().for_each(|&(node, counted)| again.set_counted(node, counted));
        assert_eq!(exchange(&mut again, &mut two), (Vec::new(), Vec::new()));
        assert!(again.trusts(OTHER) && two.trusts(ME));
        // Its next boot is judged by all that was counted, also before the restart.
        let mut back = ledger(OTHER, ME, 9, 899);
        assert_eq!(exchange(&mut again, &mut back).1[0], News::WentBack { counted: 900 });
    }

    #[test]
    fn who_went_back_before_a_restart_of_this_node_is_not_trusted_after_it() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        two.set_durable(900);
        exchange(&mut one, &mut two);
        let mut back = ledger(OTHER, ME, 9, 800);
        one.handle(OTHER, &back.report(ME));
        let kept: Vec<(NodeId, CountedOf)> = one.counted().collect();
        let mut again = ledger(ME, OTHER, 10, 1000);
        kept.iter().for_each(|&(node, counted)| again.set_counted(node, counted));
        assert_eq!(exchange(&mut again, &mut back).1[0], News::WentBack { counted: 900 });
        assert!(!again.trusts(OTHER));
    }

    #[test]
    fn it_is_said_again_when_it_changed_or_after_a_while() {
        let (mut one, mut two) = (ledger(ME, OTHER, 7, 1000), ledger(OTHER, ME, 8, 500));
        assert!(one.tell(OTHER, Millis(0)).is_some());
        assert!(one.tell(OTHER, Millis(1)).is_some(), "as long as it has not answered");
        exchange(&mut one, &mut two);
        assert!(one.tell(OTHER, Millis(2)).is_some(), "there is news");
        assert_eq!(one.tell(OTHER, Millis(900)), None);
        assert!(one.tell(OTHER, Millis(1002)).is_some());
        one.set_durable(1512);
        assert_eq!(one.tell(OTHER, Millis(1003)).map(|told| told.durable), Some(1512));
    }
}
