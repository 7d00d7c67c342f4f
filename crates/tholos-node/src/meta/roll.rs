//! Restarts nodes one after the other, as the running job says: the leader of the meta group orders, each node does it itself.
//!
//! ```text
//!   meta leader                                   the node
//!   everybody is there and has what is decided
//!   OrderRestart decided ── restart, again and again ──▶ hands its leaderships over, ends, begins anew
//!   RecordRestart decided ◀── heard in another boot, and it lacks nothing
//! ```
//!
//! - W1: an order is for one boot of the node, and the node does nothing for an order of another one: however late it comes,
//!   or from whichever leader, each node restarts once.
//! - W2: a node is ordered to restart only if every node is there and no shard would miss it.
//! - W3: who does not come back stops it: the job is paused, and what it waits for is told.
//! - W4: a while passes between two restarts. A client that lost its connection goes to another node and tries once more after
//!   half a second, say; that one must not be the next to go.

use alloc::format;
use alloc::string::String;
use alloc::vec;

use tholos_cluster::{Ailment, Facts, JobState, MetaCommand, NodeId, Request, RestartStage, plan};
use tholos_paxos::Millis;
use tholos_ring::ShardId;

use crate::event::{Effects, Notice};
use crate::meta::automatic::first_block;
use crate::node::Node;
use crate::peer::PeerMessage;

/// An order is given again after this long, and whether it may be given is looked at so often.
const ORDER_INTERVAL: Millis = Millis(500);
/// A node must be back within this time, and the others be well.
const BACK_WITHIN: Millis = Millis(120_000);
/// After one node is back, the next goes no sooner.
const CALM: Millis = Millis(2_000);
/// A replica that lacks more entries than this has not caught up.
const LAG_ENTRIES_MAX: u64 = 1000;

/// The restart under way, as the leader of the meta group sees it.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    /// Which one, by job and position, and since when it is waited for.
    step: Option<(u64, u32, RestartStage, Millis)>,
    looked_at: Millis,
    /// What it waits for.
    waits: Option<String>,
}

/// On the leader of the meta group.
impl Node {
    /// What the restart under way waits for, as the leader of the meta group knows.
    pub fn restart_waits(&self) -> Option<&str> {
        self.meta.roll.waits.as_deref()
    }

    pub(crate) fn drive_roll(&mut self, out: &mut Effects) {
        let now = self.time().mono;
        let job = self.meta.state().active_job().filter(|_| self.leads_meta());
        let next = job.filter(|job| job.state == JobState::Running).and_then(|job| {
            let (at, restart) = job.next_restart()?;
            Some((job.id, at, *restart))
        });
        let Some((job, at, restart)) = next else {
            // Why it was paused is told until it goes on.
            if job.is_none_or(|job| job.state != JobState::Paused) {
                self.meta.roll.waits = None;
            }
            // What was asked for it is of no use to whoever asks next.
            if self.meta.roll.step.take().is_some() {
                self.meta.survey.stop();
            }
            return;
        };
        let since = match self.meta.roll.step {
            Some((of, place, stage, since)) if (of, place, stage) == (job, at, restart.stage) => since,
            _ => {
                self.meta.survey.stop();
                self.meta.roll = Roll { step: Some((job, at, restart.stage, now)), ..Roll::default() };
                now
            }
        };
        if now.since(since) >= BACK_WITHIN {
            let seconds = BACK_WITHIN.0 / 1000;
            let waits = self.meta.roll.waits.take().unwrap_or_else(|| String::from("nobody answers"));
            self.meta.roll.waits =
                Some(format!("{waits} for {seconds} s: the job is paused; mend it, then resume the job"));
            return self.propose_meta(&MetaCommand::Pause(job));
        }
        match restart.stage {
            RestartStage::Waiting if at > 0 && now.since(since) < CALM => {
                self.meta.roll.waits = Some(String::from("clients get time to come back to the last one"));
            }
            RestartStage::Waiting => self.order_restart(job, at, restart.node, out),
            RestartStage::Ordered { boot } => self.await_restart((job, at), restart.node, boot, out),
            RestartStage::Recorded | RestartStage::Cancelled => {}
        }
    }

    fn name_of(&self, node: NodeId) -> String {
        self.meta.map().node(node).map_or_else(|| format!("{node}"), |row| row.name.clone())
    }

    /// The boot that a node is in, as far as is known here.
    fn boot_of(&self, node: NodeId) -> Option<u64> {
        if node == self.config.me { Some(self.config.boot) } else { self.detector.boot_of(node) }
    }

    /// Whether it is time to look again.
    fn looks_now(&mut self) -> bool {
        let now = self.time().mono;
        let due = now.since(self.meta.roll.looked_at) >= ORDER_INTERVAL;
        if due {
            self.meta.roll.looked_at = now;
        }
        due
    }

    /// W2.
    fn order_restart(&mut self, job: u64, at: u32, node: NodeId, out: &mut Effects) {
        let Some(facts) = self.survey(LAG_ENTRIES_MAX, out) else { return };
        let state = self.meta.state();
        let made = plan(&state.map, &state.standings, &facts, &Request::Roll(vec![node]));
        let waits = match &made {
            Err(error) => Some(format!("{error}")),
            Ok(made) => first_block(made).map(|reason| reason.to_words(&state.map)),
        };
        let waits = waits.or_else(|| self.lagging(&facts));
        let boot = self.boot_of(node);
        self.meta.roll.waits = waits.or_else(|| {
            boot.is_none().then(|| format!("{} has not said which boot it is in", self.name_of(node)))
        });
        if let Some(boot) = boot.filter(|_| self.meta.roll.waits.is_none()) {
            self.propose_meta(&MetaCommand::OrderRestart { job, at, boot });
        }
    }

    /// Who has not caught up, if anybody.
    fn lagging(&self, facts: &Facts) -> Option<String> {
        let ailing = (0..).map(ShardId).zip(&facts.shards);
        let mut ailing = ailing.filter_map(|(shard, facts)| Some((shard, facts.ailing.first()?)));
        let (shard, (node, ailment)) = ailing.next()?;
        let name = self.name_of(*node);
        Some(match ailment {
            Ailment::Absent => format!("{name} has no replica of {shard} yet"),
            Ailment::Mute => format!("the replica of {shard} on {name} has lost data"),
            Ailment::Behind(entries) => format!("{name} is {entries} entries behind on {shard}"),
        })
    }

    fn await_restart(&mut self, (job, at): (u64, u32), node: NodeId, boot: u64, out: &mut Effects) {
        let name = self.name_of(node);
        if self.boot_of(node).is_none_or(|now| now == boot) || !self.detector.hears_node(node) {
            self.meta.survey.stop();
            self.meta.roll.waits = Some(format!("{name} has not come back"));
            if self.looks_now() {
                match node == self.config.me {
                    true => self.handle_restart(boot, out),
                    false => out.sends.push((node, PeerMessage::Restart { boot })),
                }
            }
            return;
        }
        let Some(facts) = self.survey(LAG_ENTRIES_MAX, out) else { return };
        let down = self.meta.map().nodes.iter().zip(&facts.nodes).find(|(row, _)| row.id == node);
        let down = down.and_then(|(_, facts)| facts.down.as_ref()).map(|why| format!("{name}: {why}"));
        self.meta.roll.waits = down.or_else(|| self.lagging(&facts));
        if self.meta.roll.waits.is_none() {
            self.propose_meta(&MetaCommand::RecordRestart { job, at });
        }
    }
}

/// On the node that restarts.
impl Node {
    /// W1.
    pub(crate) fn handle_restart(&mut self, boot: u64, out: &mut Effects) {
        if boot == self.config.boot && !self.restarting {
            self.restarting = true;
            out.restart = true;
            out.notices.push(Notice::RestartOrdered);
        }
    }
}
