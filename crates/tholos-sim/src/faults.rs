//! What can go wrong.

use std::fmt;

use crate::coverage::Reached;
use crate::moves::Step;
use crate::net::Weather;

/// One thing that goes wrong, or is mended. Hosts are numbered from 0, times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// A process is killed, or its machine loses power (`power`), which may tear or lose what was not synced; it comes
    /// back after `down_us`.
    Crash {
        /// Which machine.
        host: usize,
        /// Whether its power fails.
        power: bool,
        /// Until it starts again.
        down_us: u64,
    },
    /// All at once.
    CrashAll {
        /// See [`Fault::Crash`].
        power: bool,
        /// See [`Fault::Crash`].
        down_us: u64,
    },
    /// Power fails in the middle of a write to come: after so many more changes to the disk, or in the next write of more
    /// than one sector if that is none.
    CrashInWrite {
        /// Which machine.
        host: usize,
        /// Of its disk.
        changes: u64,
    },
    /// The process stands still (SIGSTOP, a long pause of the machine).
    Pause {
        /// Which machine.
        host: usize,
        /// For so long.
        for_us: u64,
    },
    /// The node is told to hand over and stop, as by SIGTERM; it starts again after `down_us`.
    Drain {
        /// Which machine.
        host: usize,
        /// Until it starts again.
        down_us: u64,
    },
    /// One direction between two nodes is cut.
    Cut {
        /// From this one.
        from: usize,
        /// To this one.
        to: usize,
        /// What kind of cut this is a part of.
        part_of: Reached,
    },
    /// One direction is mended.
    Mend {
        /// From this one.
        from: usize,
        /// To this one.
        to: usize,
    },
    /// Everything that is sent to a node arrives later.
    Late {
        /// Which machine.
        host: usize,
        /// By so much.
        by_us: u64,
    },
    /// How the network is from now on.
    Weather(Weather),
    /// How long a machine's syncs take from now on.
    SlowDisk {
        /// Which machine.
        host: usize,
        /// From and to.
        sync_us: (u64, u64),
    },
    /// How much longer a machine's work takes from now on than on a processor of its own.
    SlowProcessor {
        /// Which machine.
        host: usize,
        /// In percent: 100 is no longer.
        stretch: u64,
    },
    /// A disk answers nothing for so long, while all else goes on (R9).
    StandingDisk {
        /// Which machine.
        host: usize,
        /// For so long.
        for_us: u64,
    },
    /// A wall clock is set.
    ClockJump {
        /// Which machine.
        host: usize,
        /// Milliseconds off the truth.
        ms: i64,
    },
    /// The next write or sync of the log fails, and the node stops (R23). The machine goes on, or loses power too.
    DiskFails {
        /// Which machine.
        host: usize,
        /// Whether it is a sync, and not a write.
        sync: bool,
        /// Whether power fails as well.
        power: bool,
    },
    /// The disk of the log has no more room, for a while.
    DiskFull {
        /// Which machine.
        host: usize,
        /// So many bytes are left.
        left_bytes: u64,
    },
    /// The disk of the log will have no more room, for a while, once the log is beyond its limit.
    DiskFullOverdrawn {
        /// Which machine.
        host: usize,
        /// So many bytes are left then.
        left_bytes: u64,
        /// For so long.
        for_us: u64,
    },
    /// There is room again.
    DiskRoom {
        /// Which machine.
        host: usize,
    },
    /// The disk hurts what it had, or is about to; the process is then killed, so that it must read it.
    Rot {
        /// Which machine.
        host: usize,
        /// How.
        rot: Rot,
        /// Where.
        seed: u64,
        /// Until the process is killed.
        kill_after_us: u64,
    },
    /// The leader of a shard is ordered to change its replica set (R6).
    ChangeReplicas {
        /// Which shard.
        shard: u16,
        /// How.
        step: Step,
        /// Whom it is about.
        pick: u64,
    },
}

/// What a disk does to what it had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rot {
    /// A bit of the log flips.
    Bit,
    /// A sector of the log cannot be read.
    Sector,
    /// No header of the log's segments can be read.
    Headers,
    /// A bit of a snapshot flips.
    SnapshotBit,
    /// The next write of the log goes to another place.
    Misdirect,
    /// A copy of log and snapshots is put back when the process has been killed.
    Copy,
}

impl Fault {
    /// What it counts as; mends count as nothing.
    pub fn reached(&self) -> Option<Reached> {
        Some(match self {
            Fault::Crash { power: false, .. } => Reached::Killed,
            Fault::Crash { power: true, .. } => Reached::PowerLost,
            Fault::CrashAll { .. } => Reached::AllDown,
            Fault::Pause { .. } => Reached::Paused,
            Fault::Drain { .. } => Reached::Drained,
            Fault::Cut { part_of, .. } => *part_of,
            Fault::Weather(weather) if weather.loss > 0 => Reached::Weather,
            Fault::SlowDisk { sync_us, .. } if sync_us.0 > 1_000 => Reached::DiskSlow,
            Fault::SlowProcessor { stretch, .. } if *stretch > 100 => Reached::ProcessorSlow,
            Fault::StandingDisk { .. } => Reached::DiskStood,
            Fault::ClockJump { .. } => Reached::ClockJumped,
            Fault::DiskFull { .. } => Reached::DiskFull,
            // These count when they come true.
            Fault::CrashInWrite { .. }
            | Fault::DiskFullOverdrawn { .. }
            | Fault::DiskFails { .. }
            | Fault::Rot { .. }
            | Fault::ChangeReplicas { .. } => return None,
            Fault::Late { .. }
            | Fault::Mend { .. }
            | Fault::Weather(_)
            | Fault::SlowDisk { .. }
            | Fault::SlowProcessor { .. }
            | Fault::DiskRoom { .. } => {
                return None;
            }
        })
    }
}

/// `n2 loses power, back after 1.204 s`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |host: &usize| format!("n{}", host + 1);
        let ms = |us: &u64| format!("{:.3} ms", *us as f64 / 1e3);
        let dies = |power: &bool| if *power { "loses power" } else { "is killed" };
        match self {
            Fault::Crash { host, power, down_us } => {
                write!(f, "{} {}, back after {}", n(host), dies(power), ms(down_us))
            }
            Fault::CrashAll { power, down_us } => {
                write!(f, "everybody {}, back after {}", dies(power), ms(down_us))
            }
            Fault::CrashInWrite { host, changes: 0 } => {
                write!(f, "{} will lose power in its next long write", n(host))
            }
            Fault::CrashInWrite { host, changes } => {
                write!(f, "{} will lose power at its disk's change number {changes} from here", n(host))
            }
            Fault::Pause { host, for_us } => write!(f, "{} stands still for {}", n(host), ms(for_us)),
            Fault::Drain { host, down_us } => {
                write!(f, "{} is told to stop, back after {}", n(host), ms(down_us))
            }
            Fault::Cut { from, to, .. } => write!(f, "cut: {} -> {}", n(from), n(to)),
            Fault::Mend { from, to } => write!(f, "mended: {} -> {}", n(from), n(to)),
            Fault::Late { host, by_us } => write!(f, "all that {} is sent is {} late", n(host), ms(by_us)),
            Fault::Weather(weather) => {
                let percent = |parts: u64| parts as f64 / 1e4;
                let (low, high) = weather.delay_us;
                write!(
                    f,
                    "weather: {:.1} % lost, {:.1} % doubled, {:.1} % far later, delay {low} to {high} us",
                    percent(weather.loss),
                    percent(weather.duplication),
                    percent(weather.stragglers)
                )
            }
            Fault::SlowDisk { host, sync_us: (low, high) } => {
                write!(f, "syncs of {} take {low} to {high} us", n(host))
            }
            Fault::SlowProcessor { host, stretch } => {
                write!(f, "work of {} takes {stretch} % of its time", n(host))
            }
            Fault::StandingDisk { host, for_us } => {
                write!(f, "the disk of {} stands still for {}", n(host), ms(for_us))
            }
            Fault::ClockJump { host, ms } => write!(f, "the clock of {} is set {ms} ms off", n(host)),
            Fault::DiskFails { host, sync, power } => {
                let what = if *sync { "sync" } else { "write" };
                let then = if *power { ", and its power too" } else { "" };
                write!(f, "the next {what} of {} fails{then}", n(host))
            }
            Fault::DiskFull { host, left_bytes } => {
                write!(f, "the disk of {} has {left_bytes} bytes left", n(host))
            }
            Fault::DiskFullOverdrawn { host, left_bytes, for_us } => {
                let (n, ms) = (n(host), ms(for_us));
                write!(
                    f,
                    "the disk of {n} will have {left_bytes} bytes left for {ms} once its log is too long"
                )
            }
            Fault::ChangeReplicas { shard, step, .. } => write!(f, "s{shard}: {step}"),
            Fault::DiskRoom { host } => write!(f, "the disk of {} has room again", n(host)),
            Fault::Rot { host, rot, kill_after_us, .. } => {
                let what = match rot {
                    Rot::Bit => "flips a bit of the log",
                    Rot::Sector => "loses a sector of the log",
                    Rot::Headers => "loses all headers of the log",
                    Rot::SnapshotBit => "flips a bit of a snapshot",
                    Rot::Misdirect => "will misdirect a write",
                    Rot::Copy => "will be put back to what it is now",
                };
                write!(f, "the disk of {} {what}; killed {} later", n(host), ms(kill_after_us))
            }
        }
    }
}
