//! What goes wrong, and when.

use crate::random::Random;
use crate::sim::FAULTS_END_US;

/// One thing that goes wrong, or is mended.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A process is killed, or its machine loses power; it comes back after a while.
    Crash {
        /// Which machine.
        host: usize,
        /// Power: what was not synced may be lost or torn.
        power: bool,
        /// Microseconds until it starts again.
        down_us: u64,
    },
    /// All at once.
    CrashAll {
        /// See [`Fault::Crash`].
        power: bool,
        /// See [`Fault::Crash`].
        down_us: u64,
    },
    /// Power fails in the middle of a write to come.
    CrashInWrite {
        /// Which machine.
        host: usize,
        /// After so many more changes to its disk.
        changes: u64,
    },
    /// The process stands still (SIGSTOP, a long pause of the machine).
    Pause {
        /// Which machine.
        host: usize,
        /// Microseconds.
        for_us: u64,
    },
    /// One direction between two nodes is cut.
    Cut {
        /// From this one.
        from: usize,
        /// To this one.
        to: usize,
    },
    /// One direction is mended.
    Mend {
        /// From this one.
        from: usize,
        /// To this one.
        to: usize,
    },
    /// How the network is from now on.
    Weather {
        /// Messages lost per million.
        loss: u64,
        /// Messages doubled per million.
        duplication: u64,
        /// Delay from and to, in microseconds.
        delay_us: (u64, u64),
        /// Messages far later than that, per million.
        stragglers: u64,
    },
    /// How long a machine's syncs take from now on.
    SlowDisk {
        /// Which machine.
        host: usize,
        /// Microseconds, from and to.
        sync_us: (u64, u64),
    },
    /// A wall clock is set.
    ClockOffset {
        /// Which machine.
        host: usize,
        /// Milliseconds off the truth.
        ms: i64,
    },
}

/// Faults counted by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultCounts([u64; KINDS.len()]);

const KINDS: [&str; 9] = [
    "crash",
    "crash of all",
    "power cut in a write",
    "pause",
    "cut",
    "mend",
    "weather",
    "slow disk",
    "clock",
];

impl FaultCounts {
    /// Counts one.
    pub fn count(&mut self, fault: &Fault) {
        let at = match fault {
            Fault::Crash { .. } => 0,
            Fault::CrashAll { .. } => 1,
            Fault::CrashInWrite { .. } => 2,
            Fault::Pause { .. } => 3,
            Fault::Cut { .. } => 4,
            Fault::Mend { .. } => 5,
            Fault::Weather { .. } => 6,
            Fault::SlowDisk { .. } => 7,
            Fault::ClockOffset { .. } => 8,
        };
        self.0[at] += 1;
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &FaultCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// How many of each kind.
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        KINDS.into_iter().zip(self.0)
    }

    /// How many in all, without mends.
    pub fn total(&self) -> u64 {
        self.by_kind().filter(|(kind, _)| *kind != "mend").map(|(_, count)| count).sum()
    }
}

/// Plans a run's faults: at least ten, spread over the time until they stop.
pub fn plan_faults(random: &mut Random, nodes: usize) -> Vec<(u64, Fault)> {
    let mut plan = Vec::new();
    let count = random.between(10, 24);
    for _ in 0..count {
        let at = random.between(1_500_000, FAULTS_END_US - 1_000_000);
        plan_one(at, random, nodes, &mut plan);
    }
    plan
}

fn plan_one(at: u64, random: &mut Random, nodes: usize, plan: &mut Vec<(u64, Fault)>) {
    let host = random.below(nodes as u64) as usize;
    let power = random.below(2) == 0;
    let short = random.between(1_000, 400_000);
    let long = random.between(400_000, 6_000_000);
    let down_us = if random.below(2) == 0 { short } else { long };
    match random.below(20) {
        0..=4 => plan.push((at, Fault::Crash { host, power, down_us })),
        5 => plan.push((at, Fault::CrashAll { power, down_us: short })),
        6 | 7 => plan.push((at, Fault::CrashInWrite { host, changes: random.between(1, 40) })),
        8..=10 => plan.push((at, Fault::Pause { host, for_us: random.between(20_000, 2_500_000) })),
        11..=14 => plan_partition(at, host, random, nodes, plan),
        15..=17 => {
            let low = random.between(20, 5_000);
            let weather = Fault::Weather {
                loss: random.below(300_000),
                duplication: random.below(200_000),
                delay_us: (low, low + random.between(1, 20_000)),
                stragglers: random.below(50_000),
            };
            let calm = Fault::Weather { loss: 0, duplication: 0, delay_us: (50, 500), stragglers: 0 };
            plan.push((at, weather));
            plan.push((at + long, calm));
        }
        18 => {
            let low = random.between(1_000, 400_000);
            plan.push((at, Fault::SlowDisk { host, sync_us: (low, 2 * low) }));
            plan.push((at + long, Fault::SlowDisk { host, sync_us: (100, 400) }));
        }
        _ => {
            let ms = random.between(0, 20_000) as i64 - 10_000;
            plan.push((at, Fault::ClockOffset { host, ms }));
        }
    }
}

/// A node alone, one direction of a pair, or a pair that hears each other only through the third.
fn plan_partition(at: u64, host: usize, random: &mut Random, nodes: usize, plan: &mut Vec<(u64, Fault)>) {
    let until = at + random.between(300_000, 6_000_000);
    let other = (host + 1 + random.below(nodes as u64 - 1) as usize) % nodes;
    let mut cuts = Vec::new();
    match random.below(4) {
        0 => {
            for peer in (0..nodes).filter(|peer| *peer != host) {
                cuts.extend([(host, peer), (peer, host)]);
            }
        }
        1 => cuts.push((host, other)),
        2 => cuts.extend([(host, other), (other, host)]),
        _ => cuts.extend((0..nodes).filter(|peer| *peer != host).map(|peer| (host, peer))),
    }
    for (from, to) in cuts {
        plan.push((at, Fault::Cut { from, to }));
        plan.push((until, Fault::Mend { from, to }));
    }
}
