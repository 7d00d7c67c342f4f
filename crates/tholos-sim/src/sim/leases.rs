//! What is done to read leases: clocks at wrong rates, machines that stand still between a look at the clock and what it
//! was for, connections that break while a lease is held. And what must hold: who reads by a lease is the only leader.

use tholos_node::{Event, PeerMessage};
use tholos_ring::ShardId;

use super::{Happening, Sim};
use crate::faults::Fault;
use crate::host::Host;
use crate::random::Random;

/// Clocks run at a wrong rate by this much, at most.
const CLOCK_RATE_PPM_MAX: i64 = 50_000;

/// Whether a client's read may come of it.
pub(super) fn asks_to_read(event: &Event) -> bool {
    matches!(event, Event::Commands { .. } | Event::Peer { message: PeerMessage::Forward(_), .. })
}

/// How wrong a clock's rate is: not at all, or by anything up to the 5 % that leases allow for, often by all of it.
pub(super) fn clock_rate_ppm(random: &mut Random) -> i64 {
    match random.below(4) {
        0 => 0,
        1 => CLOCK_RATE_PPM_MAX,
        2 => -CLOCK_RATE_PPM_MAX,
        _ => random.between(0, 2 * CLOCK_RATE_PPM_MAX as u64) as i64 - CLOCK_RATE_PPM_MAX,
    }
}

impl Sim {
    /// Whoever answers a read by its lease is the only leader: nobody serves in a higher ballot yet (R12).
    pub(super) fn check_leases(&mut self, host: usize, shards: &[ShardId]) {
        for id in shards {
            let ballot = |host: &Host| {
                let group = &host.node.as_ref()?.shard(*id)?.group;
                group.leading().filter(|_| group.serving())
            };
            let mine = ballot(&self.hosts[host]);
            let above = self.hosts.iter().filter_map(ballot).find(|other| Some(*other) > mine);
            if let (Some(mine), Some(other)) = (mine, above) {
                let host = host + 1;
                self.violate(Some(*id), format!("n{host} reads by its lease in {mine}, and {other} serves"));
            }
        }
    }

    /// A cut may break a connection, and then is noticed at once: a new leader comes while the old one has a lease.
    pub(super) fn break_connection(&mut self, from: usize, to: usize) {
        let mut chance = Random::new(self.now ^ (from * self.hosts.len() + to) as u64);
        if self.leases && chance.below(2) == 0 {
            let (boot, event) = (self.hosts[to].boot, Event::PeerDown { node: self.hosts[from].id });
            self.after(self.now + chance.between(50, 1_000), Happening::ToNode { host: to, boot, event });
            if chance.below(6) == 0 {
                // What cuts one off may well take another's power for a moment, and with it what it has granted.
                let kill = Fault::Crash { host: to, power: true, down_us: chance.between(1_000, 60_000) };
                self.after(self.now + chance.below(1_000), Happening::Fault(kill));
            }
        }
    }
}
