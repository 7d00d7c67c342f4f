//! The room of a log in a run: what its driver tells the node, and how it looks for more.

use tholos_node::{Event, LogRoom};

use super::{Happening, Sim};
use crate::coverage::Reached;
use crate::faults::Fault;

/// How often a log that refuses writers looks for room when idle.
const FULL_RETRY_US: u64 = 100_000;

impl Sim {
    /// The driver tells the node when the log's room gets short, and when it is enough again.
    pub(super) fn tell_room(&mut self, host: usize) {
        if let Some(reached) = self.hosts[host].overdraft_changed() {
            self.trail.note(self.now, None, || format!("n{}: {reached:?}", host + 1));
            self.coverage.count(reached);
            if reached == Reached::Overdrawn
                && let Some((left_bytes, for_us)) = self.hosts[host].fills_overdrawn.take()
            {
                self.fault(Fault::DiskFull { host, left_bytes });
                self.after(self.now + for_us, Happening::Fault(Fault::DiskRoom { host }));
            }
        }
        if let Some(event) = self.hosts[host].room_changed() {
            if matches!(event, Event::LogRoom(LogRoom::Spent)) {
                self.coverage.count(Reached::RoomSpent);
            }
            let boot = self.hosts[host].boot;
            self.after(self.now, Happening::ToNode { host, boot, event });
            if self.hosts[host].is_full() {
                self.after(self.now + FULL_RETRY_US, Happening::LookForRoom { host, boot });
            }
        }
    }

    /// What the log's thread does while writers are refused and nothing comes: a release is room only once it is stated, and others
    /// may make some.
    pub(super) fn look_for_room(&mut self, host: usize, boot: u64) {
        let machine = &mut self.hosts[host];
        if machine.boot != boot || machine.node.is_none() || !machine.is_full() {
            return;
        }
        if machine.disk_stands_until <= self.now && !machine.has_waiting() {
            if !machine.tidy() {
                return self.disk_failed(host);
            }
            self.tell_room(host);
        }
        if self.hosts[host].is_full() {
            self.after(self.now + FULL_RETRY_US, Happening::LookForRoom { host, boot });
        }
    }
}
