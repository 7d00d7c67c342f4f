//! Which shards a tick looks at: an idle one costs nothing but memory.
//!
//! - **I1** A shard is left out only while time brings it nothing: no timer of its group runs, nothing waits in it, and
//!   whom the nodes hear is what it was when that was found. Whatever happens to it brings it back.
//! - **I2** Every shard is looked at now and then. What needs no more than that does not count as waiting.
//! - **I3** What a shard has reserved beyond what it holds it gives back when it is found idle then, and not sooner: one that
//!   is at work would reserve it again at once.

use alloc::vec::Vec;

use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::event::Effects;
use crate::node::Node;
use crate::shard::Shard;

/// How often a shard is looked at for which nothing is known to wait: its state may be due for a comparison (R24), or
/// a key or a session of it for expiry (R17).
const SWEEP_INTERVAL: Millis = Millis(1000);

/// The shards to which time may bring something.
#[derive(Debug, Default)]
pub(crate) struct Restless {
    /// Some perhaps twice.
    shards: Vec<ShardId>,
    last_sweep: Option<Millis>,
    /// Something happened in a shard since [`Restless::take_moved`].
    moved: bool,
}

impl Restless {
    /// Whether anything has happened in any shard since the last call.
    pub(crate) fn take_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }

    /// The next tick looks at all shards.
    pub(crate) fn sweep_soon(&mut self) {
        self.last_sweep = None;
    }

    fn push(&mut self, shard: ShardId) {
        self.moved = true;
        self.shards.push(shard);
    }

    /// Whether it is time to look at all shards.
    fn take_sweep(&mut self, now: Millis) -> bool {
        let sweeps = self.last_sweep.is_none_or(|last| now.since(last) >= SWEEP_INTERVAL);
        if sweeps {
            self.last_sweep = Some(now);
        }
        sweeps
    }

    /// The shards that a tick must look at now, each once: `all` of them, as many as `count`, if something concerns all.
    fn take_due(&mut self, all: bool, count: usize) -> Vec<ShardId> {
        if all {
            self.shards = (0..count).map(|shard| ShardId(shard as u16)).collect();
        }
        let mut due = core::mem::take(&mut self.shards);
        due.sort_unstable();
        due.dedup();
        due
    }
}

impl Node {
    /// Something happened in this shard, or to what is known of it: the next tick looks at it.
    pub(crate) fn mark_restless(&mut self, id: ShardId) {
        let shard = self.shards[usize::from(id.0)].as_mut();
        if shard.is_none_or(|shard| !core::mem::replace(&mut shard.restless, true)) {
            self.restless.push(id);
        }
    }

    /// Lets time pass for the shards that it may bring something to: those in which something happened or waits, and all
    /// when whom this node or another hears has changed (R9).
    pub(crate) fn tick_shards(&mut self, now: Millis, out: &mut Effects) {
        let turned = self.detector.take_turned();
        let sweeps = self.restless.take_sweep(now);
        if sweeps {
            self.appends.shrink();
        }
        for id in self.restless.take_due(turned || sweeps, self.shards.len()) {
            self.tick_shard(id, now, out);
            if !self.is_idle(id) {
                self.mark_restless(id);
            } else if sweeps && let Some(shard) = self.shards[usize::from(id.0)].as_mut() {
                // I3
                shard.shrink(now);
            }
        }
    }

    fn tick_shard(&mut self, id: ShardId, now: Millis, out: &mut Effects) {
        let at = usize::from(id.0);
        let seed = self.fresh_chance();
        self.drop_retired(id, out);
        self.ask_for_leader(id, out);
        self.tell_contacts(id);
        self.report_renewed(id, out);
        if let Some(shard) = self.shards[at].as_mut() {
            shard.restless = false;
            shard.group.handle_tick(now, &self.detector, &mut self.outbox);
            if shard.next_due().is_some() {
                let time = self.detector.shard_time(&shard.voters);
                shard.tick_if_due(now, time, seed, &mut self.outbox);
            }
            if shard.has_batches() || shard.has_durable_waits() {
                self.mark_dirty(id);
            }
            if !self.outbox.is_empty() {
                self.mark_dirty(id);
                self.collect(id, out);
            } else if self.shards[at].as_ref().is_some_and(Shard::has_durable_waits) {
                self.apply(id);
            }
        }
        self.tick_digest(id, out);
    }

    /// Whether time brings this shard nothing until it is marked restless, the nodes' hearing changes, or the next sweep.
    fn is_idle(&self, id: ShardId) -> bool {
        let at = usize::from(id.0);
        let has_hint = self.hints.of(id).is_some();
        let until = self.time().wall.plus(SWEEP_INTERVAL);
        let Some(shard) = self.shards[at].as_ref() else { return has_hint };
        (has_hint || shard.has_vote()) && shard.is_idle(&self.detector, until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most of what an idle replica costs (bench/README.md). What exists only while something is under way, or only for one
    /// role now and then, is better in a box of its own than here.
    #[test]
    fn a_shard_is_small() {
        assert!(size_of::<Option<Shard>>() <= 520, "{}", size_of::<Option<Shard>>());
    }
}
