//! What this node could do of what it should, judged by how it does beside the others.
//!
//! Slow is who is slow by itself *and* beside the median of all nodes that are heard: where all are alike, as on one
//! machine that has too much to do, nobody is. It takes two seconds to be slow and longer to be well again, in steps, and
//! who turns slow again soon has to be well for twice as long: a node that is well only while it has little to do
//! settles there.

use tholos_paxos::Millis;

use super::CAPACITY_WHOLE;

/// For so long a node must look slow.
const SLOW_FOR: Millis = Millis(2000);
/// A processor looks slow from this stretch on, in percent: half of one is 200, less what the average sways,
const STRETCH_SLOW: u32 = 170;
/// and from so many times the median, in percent; it looks well below the second.
const STRETCH_RATIO: (u32, u32) = (160, 125);
/// For so long it must look well.
const PROCESSOR_WELL_FOR: Millis = Millis(5000);
/// A disk looks slow when syncs take so long, in microseconds; it looks well below the second.
const SYNC_US: (u32, u32) = (20_000, 10_000);
/// and so many times the median; it looks well below the second, too.
const SYNC_TIMES: (u32, u32) = (8, 4);
/// For so long it must look well.
const DISK_WELL_FOR: Millis = Millis(10_000);
/// What is not known for so long is tried: who leads nothing may have nothing to be measured by.
const UNKNOWN_FOR: Millis = Millis(30_000);
/// Capacities in percent: back up they go one at a time,
const STEPS: [u8; 6] = [0, 12, 25, 33, 50, CAPACITY_WHOLE];
/// each for so long.
const STEP_FOR: Millis = Millis(5000);
/// Who was slow again within this time of being well has to be well for twice as long,
const RELAPSE_WITHIN: Millis = Millis(600_000);
/// so many times at most.
const DOUBLINGS_MAX: u32 = 6;

/// What makes a node slow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Slowness {
    /// The log's syncs take long.
    Disk,
    /// Its worker waits for a processor.
    Processor,
}

impl core::fmt::Display for Slowness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Slowness::Disk => "slow disk",
            Slowness::Processor => "slow processor",
        })
    }
}

/// How one of the two looks just now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// It could do so much, in percent.
    Slow(u8),
    Well,
    /// Neither: nothing changes.
    Between,
    /// Nothing is known.
    Unknown,
}

/// One of the two, through time.
#[derive(Debug)]
struct Watch {
    well_for: Millis,
    /// What it could do, in percent.
    level: u8,
    /// Since when it has looked slower than `level`, and the best that it looked meanwhile.
    slow: Option<(Millis, u8)>,
    well_since: Option<Millis>,
    /// It is on its way up.
    rising: bool,
    /// When it was last whole again.
    whole_at: Option<Millis>,
    doublings: u32,
}

impl Watch {
    fn new(well_for: Millis) -> Watch {
        Watch {
            well_for,
            level: CAPACITY_WHOLE,
            slow: None,
            well_since: None,
            rising: false,
            whole_at: None,
            doublings: 0,
        }
    }

    fn note(&mut self, look: Look, now: Millis) {
        match look {
            Look::Slow(to) if to < self.level => {
                self.well_since = None;
                let (since, best) = self.slow.unwrap_or((now, to));
                self.slow = Some((since, best.max(to)));
                if now.since(since) >= SLOW_FOR {
                    self.slow_down(best.max(to), now);
                }
            }
            Look::Well | Look::Unknown if self.level < CAPACITY_WHOLE => {
                self.slow = None;
                let since = *self.well_since.get_or_insert(now);
                let wait = match (look, self.rising) {
                    (Look::Unknown, _) => UNKNOWN_FOR,
                    (_, true) => STEP_FOR,
                    (_, false) => Millis(self.well_for.0 << self.doublings),
                };
                if now.since(since) >= wait {
                    self.rise(now);
                }
            }
            _ => {
                self.slow = None;
                self.well_since = None;
            }
        }
    }

    fn slow_down(&mut self, to: u8, now: Millis) {
        let relapse = self.rising || self.whole_at.is_some_and(|at| now.since(at) < RELAPSE_WITHIN);
        if relapse {
            self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        } else if self.level == CAPACITY_WHOLE {
            self.doublings = 0;
        }
        self.level = to;
        self.slow = None;
        self.rising = false;
        self.whole_at = None;
    }

    fn rise(&mut self, now: Millis) {
        self.level = STEPS.into_iter().find(|step| *step > self.level).unwrap_or(CAPACITY_WHOLE);
        self.well_since = Some(now);
        self.rising = self.level < CAPACITY_WHOLE;
        if !self.rising {
            self.whole_at = Some(now);
        }
    }
}

/// Judges this node.
#[derive(Debug)]
pub(crate) struct Judge {
    disk: Watch,
    processor: Watch,
}

impl Default for Judge {
    fn default() -> Judge {
        Judge { disk: Watch::new(DISK_WELL_FOR), processor: Watch::new(PROCESSOR_WELL_FOR) }
    }
}

impl Judge {
    /// Takes the own stretch in percent and time of a sync in microseconds, and those of the others that are heard; 0
    /// stands for what is not known. Whether the capacity is another now.
    pub(crate) fn note(&mut self, own: (u32, u32), others: &[(u32, u32)], now: Millis) -> bool {
        let before = self.capacity();
        let stretch = with_median(own.0, others.iter().map(|other| other.0));
        let sync = with_median(own.1, others.iter().map(|other| other.1));
        self.processor.note(stretch.map_or(Look::Unknown, look_of_stretch), now);
        self.disk.note(sync.map_or(Look::Unknown, look_of_sync), now);
        self.capacity() != before
    }

    /// What the node could do of what it should, in percent.
    pub(crate) fn capacity(&self) -> u8 {
        self.disk.level.min(self.processor.level)
    }

    /// Why that is less than all.
    pub(crate) fn slowness(&self) -> Option<Slowness> {
        if self.capacity() == CAPACITY_WHOLE {
            return None;
        }
        Some(if self.disk.level <= self.processor.level { Slowness::Disk } else { Slowness::Processor })
    }
}

/// The own figure and the median of all, of two in the middle the lower; `None` if the own is not known, or nobody else's.
fn with_median(own: u32, others: impl Iterator<Item = u32>) -> Option<(u32, u32)> {
    let mut all: alloc::vec::Vec<u32> = others.filter(|other| *other > 0).collect();
    if own == 0 || all.is_empty() {
        return None;
    }
    all.push(own);
    all.sort_unstable();
    Some((own, all[(all.len() - 1) / 2]))
}

fn look_of_stretch((own, median): (u32, u32)) -> Look {
    let ratio = u64::from(own) * 100 / u64::from(median);
    let (slow, well) = STRETCH_RATIO;
    if own >= STRETCH_SLOW && ratio >= u64::from(slow) {
        return Look::Slow(match ratio {
            ..250 => 50,
            250..350 => 33,
            350..600 => 25,
            // What little it would lead is more than one request in a hundred, and sets the p99 of all.
            _ => 0,
        });
    }
    if ratio < u64::from(well) { Look::Well } else { Look::Between }
}

fn look_of_sync((own, median): (u32, u32)) -> Look {
    let times = |count: u32| u64::from(median) * u64::from(count);
    let own_us = u64::from(own);
    if own >= SYNC_US.0 && own_us >= times(SYNC_TIMES.0) {
        return Look::Slow(0);
    }
    if own < SYNC_US.1 || own_us < times(SYNC_TIMES.1) { Look::Well } else { Look::Between }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time in steps of 100 ms, the figures of the own node and of two others that are well.
    struct World {
        judge: Judge,
        now: u64,
    }

    impl World {
        fn new() -> World {
            World { judge: Judge::default(), now: 1_000_000 }
        }

        /// Lets `ms` pass with these figures, and counts how often the capacity changed.
        fn pass(&mut self, ms: u64, own: (u32, u32), others: (u32, u32)) -> usize {
            let step = |_| {
                self.now += 100;
                self.judge.note(own, &[others, others], Millis(self.now))
            };
            (0..ms / 100).map(step).filter(|changed| *changed).count()
        }

        /// The same until the capacity is this one, for how long that takes in ms.
        fn until(&mut self, capacity: u8, own: (u32, u32)) -> u64 {
            let began = self.now;
            while self.judge.capacity() != capacity {
                assert!(self.now - began < 2_000_000, "it stays at {}", self.judge.capacity());
                self.pass(100, own, WELL);
            }
            self.now - began
        }
    }

    const WELL: (u32, u32) = (105, 500);
    const SLOW_DISK: (u32, u32) = (105, 50_000);
    const HALF: (u32, u32) = (210, 500);

    #[test]
    fn a_slow_disk_takes_everything_away_after_two_seconds() {
        let mut world = World::new();
        assert_eq!(world.pass(60_000, WELL, WELL), 0);
        assert_eq!(world.until(0, SLOW_DISK), 2_100);
        assert_eq!(world.judge.slowness(), Some(Slowness::Disk));
        assert_eq!(world.pass(60_000, SLOW_DISK, WELL), 0);
        // Neither slow nor well.
        assert_eq!(world.pass(60_000, (105, 15_000), WELL), 0);
        assert_eq!(world.until(12, WELL), 10_100);
        assert_eq!(world.until(100, WELL), 20_000, "and four steps more");
        assert_eq!(world.judge.slowness(), None);
    }

    #[test]
    fn a_moment_is_not_enough() {
        let mut world = World::new();
        for _ in 0..20 {
            assert_eq!(world.pass(1_900, SLOW_DISK, WELL) + world.pass(1_900, HALF, WELL), 0);
            assert_eq!(world.pass(500, WELL, WELL), 0);
        }
    }

    #[test]
    fn where_all_are_alike_nobody_is_slow() {
        let mut world = World::new();
        for all in [(900, 80_000), (300, 200_000)] {
            assert_eq!(world.pass(60_000, all, all), 0);
        }
        // Slow by itself, and not beside the others; slow beside them, and quick enough.
        assert_eq!(world.pass(60_000, (300, 80_000), (200, 20_000)), 0);
        assert_eq!(world.pass(60_000, (169, 15_000), WELL), 0);
    }

    #[test]
    fn alone_or_unmeasured_nobody_is_slow() {
        let mut judge = Judge::default();
        for step in 0..600 {
            assert!(!judge.note((900, 900_000), &[(0, 0), (0, 0)], Millis(step * 100)));
            assert!(!judge.note((0, 0), &[WELL, WELL], Millis(step * 100)));
        }
    }

    #[test]
    fn a_processor_shared_with_others_keeps_its_part() {
        for (stretch, capacity) in [(210, 50), (300, 33), (450, 25), (1200, 0)] {
            let mut world = World::new();
            assert_eq!(world.until(capacity, (stretch, 500)), 2_100, "{stretch}");
            assert_eq!(world.judge.slowness(), Some(Slowness::Processor));
        }
        // It gets worse, and a little better, which is not enough to rise.
        let mut world = World::new();
        world.until(50, HALF);
        assert_eq!(world.until(25, (450, 500)), 2_100);
        assert_eq!(world.pass(60_000, HALF, WELL), 0);
    }

    #[test]
    fn who_is_slow_again_soon_has_to_be_well_for_longer() {
        let mut world = World::new();
        world.until(50, HALF);
        let mut last = world.until(100, WELL);
        assert_eq!(last, 5_100);
        for _ in 0..3 {
            world.until(50, HALF);
            let next = world.until(100, WELL);
            assert!(next > last + last / 2, "{last} then {next}");
            last = next;
        }
        world.pass(700_000, WELL, WELL);
        world.until(50, HALF);
        assert_eq!(world.until(100, WELL), 5_100, "long ago is forgotten");
    }

    #[test]
    fn who_has_nothing_to_do_is_tried_again() {
        let mut world = World::new();
        world.until(0, SLOW_DISK);
        assert_eq!(world.until(12, (0, 0)), 30_100);
        assert_eq!(world.pass(500, WELL, WELL), 0);
        world.until(100, (0, 0));
    }
}
