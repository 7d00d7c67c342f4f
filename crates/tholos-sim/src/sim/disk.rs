//! The disks of a run: writes of logs, pieces of snapshots, and what fails.

use tholos_node::Event;
use tholos_paxos::AppendSeq;

use super::{Happening, Sim};
use crate::coverage::Reached;
use crate::host::Begun;

/// How long a log without room waits before it tries again.
const ROOM_RETRY_US: u64 = 20_000;

impl Sim {
    pub(super) fn begin_snapshot_work(&mut self, host: usize) {
        self.hosts[host].snapshots.busy = true;
        let (low, high) = self.hosts[host].snapshots.piece_us;
        let delay = self.random.between(low, high);
        let boot = self.hosts[host].boot;
        self.after(self.now + delay, Happening::SnapshotWork { host, boot });
    }

    pub(super) fn snapshot_work(&mut self, host: usize, boot: u64) {
        if self.hosts[host].boot != boot || self.hosts[host].node.is_none() {
            return;
        }
        self.hosts[host].snapshots.busy = false;
        let Ok(event) = self.hosts[host].snapshots.step() else { return self.disk_failed(host) };
        if let Some(event) = event {
            self.give(host, event);
        }
        if self.hosts[host].node.is_some() && self.hosts[host].snapshots.push(Vec::new()) {
            self.begin_snapshot_work(host);
        }
    }

    pub(super) fn begin_write(&mut self, host: usize) {
        let boot = self.hosts[host].boot;
        match self.hosts[host].begin_write() {
            Begun::Nothing => {}
            Begun::Writing if self.hosts[host].dies_in_long_write && self.hosts[host].writing_bytes > 512 => {
                self.coverage.count(Reached::DiedInWrite);
                self.crash(host, true);
                let delay = self.random.between(10_000, 2_000_000);
                return self.after(self.now + delay, Happening::Start { host });
            }
            Begun::Writing => {
                self.hosts[host].waits_for_room = false;
                let (low, high) = self.hosts[host].sync_us;
                let delay = self.random.between(low, high);
                self.hosts[host].write_began = self.now;
                self.after(self.now + delay, Happening::WriteDone { host, boot });
            }
            Begun::NoRoom => {
                let waited = std::mem::replace(&mut self.hosts[host].waits_for_room, true);
                if !waited && self.hosts[host].is_overdrawn() {
                    self.coverage.count(Reached::OverdraftWaits);
                }
                self.after(self.now + ROOM_RETRY_US, Happening::Write { host, boot });
            }
            Begun::Failed => return self.disk_failed(host),
        }
        self.tell_room(host);
    }

    pub(super) fn write_done(&mut self, host: usize, boot: u64) {
        if self.hosts[host].boot != boot || self.hosts[host].node.is_none() {
            return;
        }
        let stands_until = self.hosts[host].disk_stands_until;
        if stands_until > self.now {
            return self.after(stands_until, Happening::WriteDone { host, boot });
        }
        let Some(AppendSeq(seq)) = self.hosts[host].end_write() else { return self.disk_failed(host) };
        self.note_synced(host);
        let (lsn, kept_bytes) = (self.hosts[host].durable_lsn(), self.hosts[host].kept_bytes());
        self.give(host, Event::DurableLsn { lsn, kept_bytes });
        self.give(host, Event::Durable { seq: AppendSeq(seq) });
        if std::mem::take(&mut self.hosts[host].dies_after_sync) {
            let (delay, down_us) = (self.random.below(4_000), self.random.below(400_000));
            self.after(self.now + delay, Happening::Lost { host, boot, lsn, down_us });
        }
        if self.hosts[host].boot == boot && self.hosts[host].writing.is_none() {
            if self.hosts[host].has_waiting() {
                self.begin_write(host);
            } else if self.random.below(4) == 0 {
                if !self.hosts[host].tidy() {
                    return self.disk_failed(host);
                }
                self.tell_room(host);
            }
        }
    }

    /// R23: the node stops.
    pub(super) fn disk_failed(&mut self, host: usize) {
        if self.hosts[host].disk.is_dead() || self.hosts[host].snapshots.disk.is_dead() {
            self.coverage.count(Reached::DiedInWrite);
        }
        let power = self.hosts[host].failing.is_none_or(|(reached, power)| {
            self.coverage.count(reached);
            power
        });
        self.crash(host, power);
        let delay = self.random.between(10_000, 2_000_000);
        self.after(self.now + delay, Happening::Start { host });
    }
}
