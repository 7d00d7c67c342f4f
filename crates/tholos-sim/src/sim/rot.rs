//! What is done to disks behind their nodes' backs: bits, sectors, writes that go astray, copies of the past.

use tholos_wal::{Disk as _, HEADER_BYTES};

use super::{Happening, Sim, TICK_US};
use crate::coverage::Reached;
use crate::faults::{Fault, Rot};

impl Sim {
    pub(super) fn rot(&mut self, host: usize, rot: Rot, seed: u64) {
        let machine = &mut self.hosts[host];
        let (reached, done) = match rot {
            Rot::Bit => (Reached::BitFlipped, machine.disk.flip_bit(seed).is_some()),
            Rot::Sector => (Reached::SectorUnreadable, machine.disk.lose_sector(seed).is_some()),
            Rot::Headers => {
                let names = machine.disk.list().expect("a simulated directory can be listed");
                for name in names.iter().filter(|name| name.ends_with(".wal")) {
                    machine.disk.tamper(name, |bytes| bytes[..HEADER_BYTES].fill(0));
                }
                (Reached::HeadersLost, true)
            }
            Rot::SnapshotBit => {
                (Reached::SnapshotBitFlipped, machine.snapshots.disk.flip_bit(seed).is_some())
            }
            Rot::Copy => {
                machine.keep_copy();
                (Reached::CopyKept, true)
            }
            Rot::Misdirect => {
                machine.disk.misdirect_next_write(seed);
                // What is written last is not sealed yet, and its loss looks like a tear.
                machine.dies_after_sync = !seed.is_multiple_of(3);
                (Reached::WriteMisdirected, true)
            }
        };
        if done {
            machine.rotten = true;
            self.coverage.count(reached);
        }
    }

    /// What no other has counted nobody can notice (R21).
    pub(super) fn lost(&mut self, host: usize, boot: u64, lsn: u64, down_us: u64) {
        let id = self.hosts[host].id;
        if self.hosts[host].boot != boot {
            return;
        }
        if self.hosts.iter().all(|other| other.id == id || other.counted_of(id) >= lsn) {
            return self.fault(Fault::Crash { host, power: false, down_us });
        }
        self.after(self.now + TICK_US, Happening::Lost { host, boot, lsn, down_us });
    }
}
