//! How long the logs of a run may get. In half of the seeds most of them meet their limit: clients' writes are refused, and what must be
//! written goes into the overdraft, as on a node.

use crate::faults::Fault;
use crate::host::Host;
use crate::plan::Trouble;
use crate::random::Random;
use crate::sim::FAULTS_END_US;

/// Segments of such a log, at least and at most: about as few as a node may be given.
const SEGMENTS: (u64, u64) = (8, 10);
/// Bytes that a disk has left which gets full under a log beyond its limit: less than a segment.
const LEFT_BYTES_MAX: u64 = 16_000;

/// Of one run.
pub struct LogLimits {
    is_on: bool,
    /// Of their own, so that seeds which were looked at before stay what they were.
    chance: Random,
}

impl LogLimits {
    /// Of the run of a seed.
    pub fn of(seed: u64) -> LogLimits {
        let mut chance = Random::new(seed ^ 0x00e4_d4af);
        LogLimits { is_on: chance.below(2) == 0, chance }
    }

    /// Gives the logs of three machines in four their limits.
    pub fn give(mut self, hosts: &mut [Host]) {
        for host in hosts.iter_mut().filter(|_| self.is_on) {
            let segments = self.chance.between(SEGMENTS.0, SEGMENTS.1);
            if self.chance.below(4) > 0 {
                host.wal = host.wal.clone().limited_to(segments * host.wal.segment_bytes);
            }
        }
    }

    /// A disk that gets full as soon as its log is beyond its limit, in half of these runs.
    pub fn full_disks(mut self, machines: usize) -> Option<Trouble> {
        let mut chance = self.chance.fork();
        let host = chance.below(machines as u64) as usize;
        let (at, for_us) = (chance.between(1_500_000, FAULTS_END_US / 2), chance.between(100_000, 4_000_000));
        let full = Fault::DiskFullOverdrawn { host, left_bytes: chance.below(LEFT_BYTES_MAX), for_us };
        (self.is_on && chance.below(2) == 0).then(|| vec![(at, full)])
    }
}
