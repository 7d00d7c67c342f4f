//! Faults as they happen in a run, and their end.

use tholos_node::Event;
use tholos_ring::ShardId;
use tholos_wal::Crash;

use super::{DRAIN_US, Happening, Sim};
use crate::coverage::Reached;
use crate::faults::Fault;
use crate::host::Host;

impl Sim {
    pub(super) fn fault(&mut self, fault: Fault) {
        self.trail.note(self.now, None, || format!("FAULT {fault}"));
        if let Some(reached) = fault.reached() {
            self.coverage.count(reached);
        }
        let now = self.now;
        match fault {
            Fault::Crash { host, power, down_us } => {
                self.crash(host, power);
                self.after(now + down_us, Happening::Start { host });
            }
            Fault::CrashAll { power, down_us } => {
                for host in 0..self.hosts.len() {
                    self.crash(host, power);
                    let delay = down_us + self.random.below(500_000);
                    self.after(now + delay, Happening::Start { host });
                }
            }
            Fault::CrashInWrite { host, changes: 0 } => self.hosts[host].dies_in_long_write = true,
            Fault::CrashInWrite { host, changes } => self.hosts[host].disk.die_after(Some(changes)),
            // Anywhere, or between a look at the clock and what it was for.
            Fault::Pause { host, for_us } if self.leases && for_us.is_multiple_of(2) => {
                self.hosts[host].pauses_in_the_middle = Some(for_us);
            }
            Fault::Pause { host, for_us } => self.pause(host, for_us),
            Fault::Drain { host, down_us } => {
                let boot = self.hosts[host].boot;
                self.give(host, Event::Resign);
                self.after(now, Happening::Drained { host, boot, until: now + DRAIN_US, down_us });
            }
            Fault::Cut { from, to, .. } => {
                self.net.set_cut(from, to, true);
                self.break_connection(from, to);
            }
            Fault::Mend { from, to } => self.net.set_cut(from, to, false),
            Fault::Late { host, by_us } => self.net.set_late(host, by_us),
            Fault::Weather(weather) => self.net.weather = weather,
            Fault::SlowDisk { host, sync_us } => self.hosts[host].sync_us = sync_us,
            Fault::SlowProcessor { host, stretch } => self.hosts[host].stretch = stretch,
            Fault::StandingDisk { host, for_us } => self.hosts[host].disk_stands_until = now + for_us,
            Fault::ClockJump { host, ms } => self.set_clock(host, ms),
            Fault::DiskFails { host, sync, power } if self.hosts[host].node.is_some() => {
                let disk = &self.hosts[host].disk;
                disk.fail_syncs(sync);
                disk.fail_writes(!sync);
                let what = if sync { Reached::SyncFailed } else { Reached::WriteFailed };
                self.hosts[host].failing = Some((what, power));
            }
            Fault::DiskFails { .. } => {}
            Fault::DiskFull { host, left_bytes } => {
                let disk = &self.hosts[host].disk;
                disk.set_capacity_bytes(Some(disk.used_bytes() + left_bytes));
            }
            Fault::DiskFullOverdrawn { host, left_bytes, for_us } => {
                self.hosts[host].fills_overdrawn = Some((left_bytes, for_us));
            }
            Fault::ChangeReplicas { shard, step, pick } => self.change_replicas(ShardId(shard), step, pick),
            Fault::DiskRoom { host } => self.hosts[host].disk.set_capacity_bytes(None),
            Fault::Rot { host, rot, seed, kill_after_us } => {
                self.rot(host, rot, seed);
                let kill = Fault::Crash { host, power: seed.is_multiple_of(2), down_us: seed % 400_000 };
                self.after(now + kill_after_us, Happening::Fault(kill));
            }
        }
    }

    pub(super) fn set_clock(&mut self, host: usize, offset_ms: i64) {
        self.hosts[host].wall_offset_ms = offset_ms;
        self.clocks_true = false;
    }

    pub(super) fn heal(&mut self) {
        self.trail.note(self.now, None, || String::from("the faults stop"));
        self.net.heal();
        self.switch_lost_off();
        for host in 0..self.hosts.len() {
            let machine = &mut self.hosts[host];
            machine.sync_us = (100, 400);
            machine.stretch = 100;
            machine.snapshots.piece_us = (50, 2_000);
            machine.paused_until = self.now.min(machine.paused_until);
            machine.disk_stands_until = self.now.min(machine.disk_stands_until);
            machine.mend_disk();
            self.resume(host);
            self.after(self.now, Happening::Start { host });
        }
    }

    pub(super) fn power_crash(&mut self, host: usize) -> Crash {
        self.trail.note(self.now, None, || format!("n{} has lost power", host + 1));
        Crash::Power(self.random.bits())
    }

    pub(super) fn crash(&mut self, host: usize, power: bool) {
        if self.hosts[host].node.is_none() {
            return;
        }
        self.hosts[host].count(&mut self.coverage);
        self.trail.note(self.now, None, || format!("n{} is down", host + 1));
        let crash = if power { self.power_crash(host) } else { Crash::Process };
        // What no other has counted nobody can notice (R21): a copy is put back only if each has more than it holds.
        if let Some(lsn) = self.hosts[host].copied_to() {
            let id = self.hosts[host].id;
            let counts = |other: &Host| other.id == id || other.boot == 0 || other.counted_of(id) > lsn;
            if !self.hosts.iter().all(counts) {
                self.hosts[host].drop_copy();
            }
        }
        self.hosts[host].crash(crash);
        for connection in self.crowd.at_node(host) {
            let delay = self.random.between(20, 2_000);
            self.after(self.now + delay, Happening::Closed { connection });
        }
        // The others notice by a broken connection, or later by silence.
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            if self.random.below(2) == 0 && !self.net.is_cut(host, other) {
                let node = self.hosts[host].id;
                let (boot, event) = (self.hosts[other].boot, Event::PeerDown { node });
                let delay = self.random.between(50, 1_000);
                self.after(self.now + delay, Happening::ToNode { host: other, boot, event });
            }
        }
    }
}
