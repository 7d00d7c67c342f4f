//! How loaded this node is, as its driver measures it, and how fast it is beside the others.
//!
//! Two figures tell a slow machine, and neither depends on how much a node is asked to do: the *stretch*, time that the
//! worker's rounds took by the clock over time that a processor ran them, and how long a sync of the log takes. What the
//! node could do is judged from them at one place, here, for the node alone; the others are told the outcome.

mod capacity;
mod queue;

use alloc::vec::Vec;

use tholos_cluster::NodeId;
use tholos_paxos::Millis;

pub(crate) use self::capacity::Judge;
pub use self::capacity::Slowness;
pub(crate) use self::queue::QueueMeter;
pub use self::queue::{QueueReport, Round};

/// What is measured is smoothed over about this time.
const MEMORY: Millis = Millis(1000);
/// A figure that has not been measured for so long is not known any more.
const FRESH_FOR: Millis = Millis(5000);
/// What another node said last of its stretch counts for so long after it has had too little work to tell: who alone has work
/// would have nobody to be compared with. The machine may be another by then, so it is not longer.
const PEER_STRETCH_FOR: Millis = Millis(300_000);
/// The worker must have run for this part of the time, in percent of a processor: of less work one interruption tells as
/// much as half a machine.
const WORK_PERCENT_MIN: u64 = 5;
/// A node that has all that it should.
pub const CAPACITY_WHOLE: u8 = 100;

/// What a driver has measured since it last told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LoadSample {
    /// How long ago that was, in microseconds.
    pub span_us: u64,
    /// How long the worker's rounds took by the clock, in microseconds.
    pub rounds_us: u64,
    /// For how long a processor ran them, in microseconds.
    pub processor_us: u64,
    /// Syncs of the log that ended.
    pub syncs: u32,
    /// How long these took together, in microseconds, their writes included.
    pub syncs_us: u64,
}

/// What a node says of its load with each heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeLoad {
    /// What it could do of what it should, in percent: 0 to 100. 0: it should lead nothing.
    pub capacity: u8,
    /// Shards it leads.
    pub leads: u16,
    /// Requests a second that these are asked for.
    pub rate: u32,
    /// How much longer its worker takes by the clock than on a processor of its own, in percent: 100 is no longer, 0 is
    /// not known.
    pub stretch: u32,
    /// What a sync of its log takes on average, in microseconds; 0 is not known.
    pub sync_us: u32,
    /// The part of the time that its worker has work, in percent: 0 to 100.
    pub busy: u8,
    /// What waits for its worker.
    pub queue: QueueReport,
}

impl NodeLoad {
    /// What it has left of what it should be able to do, in percent: 0 to 100.
    pub fn spare(&self) -> u8 {
        let left = u16::from(CAPACITY_WHOLE - self.busy.min(CAPACITY_WHOLE));
        (u16::from(self.capacity) * left / u16::from(CAPACITY_WHOLE)) as u8
    }
}

impl Default for NodeLoad {
    fn default() -> NodeLoad {
        NodeLoad {
            capacity: CAPACITY_WHOLE,
            leads: 0,
            rate: 0,
            stretch: 0,
            sync_us: 0,
            busy: 0,
            queue: QueueReport::default(),
        }
    }
}

/// A moving average that no time passes for while nothing is measured.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    value: f64,
    at: Option<Millis>,
}

impl Average {
    fn note(&mut self, value: f64, now: Millis) {
        let since = self.at.filter(|at| now.since(*at) < FRESH_FOR).map(|at| now.since(at).0 as f64);
        // The first one after a while is all that is known.
        let part = since.map_or(1.0, |since| since / (since + MEMORY.0 as f64));
        self.value += (value - self.value) * part;
        self.at = Some(now);
    }

    /// Rounded, at least 1; 0 if it is not known.
    fn known(&self, now: Millis) -> u32 {
        match self.at {
            Some(at) if now.since(at) < FRESH_FOR => self.value.clamp(1.0, f64::from(u32::MAX)) as u32,
            _ => 0,
        }
    }
}

/// What is known of this node's load and of the others'.
#[derive(Debug, Default)]
pub(crate) struct Load {
    stretch: Average,
    sync_us: Average,
    busy: Average,
    commands_per_s: Average,
    commands: u64,
    judge: Judge,
    peers: Vec<Peer>,
}

/// What another node said.
#[derive(Clone, Copy, Debug)]
struct Peer {
    node: NodeId,
    load: NodeLoad,
    /// The last stretch that it knew, and when it said so.
    stretch: (u32, Millis),
}

impl Peer {
    /// Its stretch as far as that is known, or was lately; 0: not at all.
    fn stretch(&self, now: Millis) -> u32 {
        let (stretch, at) = self.stretch;
        if now.since(at) < PEER_STRETCH_FOR { stretch } else { 0 }
    }
}

impl Load {
    /// The driver told what it measured. `stall` is for how long its disk has owed an answer, `commands` how many clients
    /// have given since the start, and `heard` says whose word is fresh. Whether the capacity is another now.
    pub(crate) fn note(
        &mut self,
        sample: &LoadSample,
        stall: Millis,
        commands: u64,
        heard: impl Fn(NodeId) -> bool,
        now: Millis,
    ) -> bool {
        if sample.span_us > 0 {
            let since = commands.saturating_sub(core::mem::replace(&mut self.commands, commands));
            self.commands_per_s.note(since as f64 * 1e6 / sample.span_us as f64, now);
            self.busy.note(sample.rounds_us as f64 * 100.0 / sample.span_us as f64, now);
        }
        if sample.processor_us > 0 && sample.processor_us * 100 >= sample.span_us * WORK_PERCENT_MIN {
            self.stretch.note(sample.rounds_us as f64 * 100.0 / sample.processor_us as f64, now);
        }
        if sample.syncs > 0 {
            self.sync_us.note(sample.syncs_us as f64 / f64::from(sample.syncs), now);
        } else if stall.0 as f64 * 1000.0 > self.sync_us.value {
            // One that does not end is at least so long.
            self.sync_us.note(stall.0 as f64 * 1000.0, now);
        }
        let own = (self.stretch.known(now), self.sync_us.known(now));
        let others = self.peers.iter().filter(|peer| heard(peer.node));
        let others: Vec<(u32, u32)> = others.map(|peer| (peer.stretch(now), peer.load.sync_us)).collect();
        self.judge.note(own, &others, now)
    }

    /// Another node told its load.
    pub(crate) fn note_peer(&mut self, node: NodeId, load: NodeLoad, now: Millis) {
        let at = self.peers.iter().position(|peer| peer.node == node).unwrap_or_else(|| {
            self.peers.push(Peer { node, load, stretch: (0, now) });
            self.peers.len() - 1
        });
        let peer = &mut self.peers[at];
        peer.load = load;
        if load.stretch > 0 {
            peer.stretch = (load.stretch, now);
        }
    }

    /// Nodes that are not among these are forgotten.
    pub(crate) fn retain(&mut self, is_known: impl Fn(NodeId) -> bool) {
        self.peers.retain(|peer| is_known(peer.node));
    }

    /// What another node said last.
    pub(crate) fn of_peer(&self, node: NodeId) -> NodeLoad {
        self.peers.iter().find(|peer| peer.node == node).map_or_else(NodeLoad::default, |peer| peer.load)
    }

    /// What this node says of itself.
    pub(crate) fn own(&self, leads: u16, now: Millis) -> NodeLoad {
        NodeLoad {
            capacity: self.judge.capacity(),
            leads,
            rate: 0,
            stretch: self.stretch.known(now),
            sync_us: self.sync_us.known(now),
            busy: self.busy.value.clamp(0.0, 100.0) as u8,
            queue: QueueReport::default(),
        }
    }

    /// Commands of clients a second.
    pub(crate) fn commands_per_s(&self, now: Millis) -> u32 {
        match self.commands_per_s.value < 1.0 {
            true => 0,
            false => self.commands_per_s.known(now),
        }
    }

    /// Why the capacity is below what it should be.
    pub(crate) fn slowness(&self) -> Option<Slowness> {
        self.judge.slowness()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(stretch: u64, processor_us: u64) -> LoadSample {
        LoadSample {
            span_us: 100_000,
            rounds_us: processor_us * stretch / 100,
            processor_us,
            syncs: 0,
            syncs_us: 0,
        }
    }

    fn after(samples: &[LoadSample]) -> NodeLoad {
        let mut load = Load::default();
        let mut now = Millis(50_000);
        for sample in samples {
            now = now.plus(Millis(100));
            load.note(sample, Millis(0), 0, |_| true, now);
        }
        load.own(0, now)
    }

    #[test]
    fn figures_follow_in_about_a_second() {
        let mut samples = alloc::vec![sample(100, 50_000); 20];
        assert_eq!(after(&samples).stretch, 100);
        samples.extend([sample(300, 50_000); 10]);
        assert!((200..260).contains(&after(&samples).stretch), "{:?}", after(&samples));
        samples.extend([sample(300, 50_000); 40]);
        assert!((290..=300).contains(&after(&samples).stretch), "{:?}", after(&samples));
    }

    #[test]
    fn little_work_tells_nothing_and_is_forgotten() {
        // 4 % of a processor, ten times interrupted.
        assert_eq!(after(&[sample(1000, 4_000); 20]).stretch, 0);
        let mut samples = alloc::vec![sample(200, 50_000); 20];
        samples.extend([sample(1000, 4_000); 40]);
        assert_eq!(after(&samples).stretch, 200, "no data, no change");
        samples.extend([sample(1000, 4_000); 20]);
        assert_eq!(after(&samples).stretch, 0, "after five seconds it is not known");
    }

    #[test]
    fn a_sync_that_does_not_end_counts_as_it_goes_on() {
        let mut load = Load::default();
        let quick = LoadSample { span_us: 100_000, syncs: 50, syncs_us: 50_000, ..LoadSample::default() };
        load.note(&quick, Millis(1), 0, |_| true, Millis(1000));
        assert_eq!(load.own(0, Millis(1000)).sync_us, 1000);
        for step in 1..=20 {
            let nothing = LoadSample { span_us: 100_000, ..LoadSample::default() };
            load.note(&nothing, Millis(step * 100), 0, |_| true, Millis(1000 + step * 100));
        }
        assert!(load.own(0, Millis(3000)).sync_us > 500_000, "{:?}", load.own(0, Millis(3000)));
    }

    #[test]
    fn spare_is_what_work_leaves_of_the_capacity() {
        let load = after(&[sample(100, 30_000); 40]);
        assert_eq!((load.busy, load.spare()), (30, 70));
        assert_eq!(NodeLoad { capacity: 50, busy: 40, ..NodeLoad::default() }.spare(), 30);
        assert_eq!(NodeLoad { capacity: 0, ..NodeLoad::default() }.spare(), 0);
        assert_eq!(after(&[sample(300, 50_000); 40]).spare(), 0, "what it waits for its processor counts");
    }

    #[test]
    fn who_alone_has_work_is_compared_with_what_others_said_before() {
        let (mut load, mut now) = (Load::default(), Millis(50_000));
        let mut pass = |ms: u64, others: u32, own: u64| {
            for _ in 0..ms / 100 {
                now = now.plus(Millis(100));
                for node in [NodeId(2), NodeId(3)] {
                    load.note_peer(node, NodeLoad { stretch: others, ..NodeLoad::default() }, now);
                }
                load.note(&sample(own, 50_000), Millis(0), 0, |_| true, now);
            }
            (load.own(0, now).capacity, load.slowness())
        };
        assert_eq!(pass(10_000, 110, 110), (100, None));
        // They have nothing to do any more, and the processor here is half of one.
        assert_eq!(pass(10_000, 0, 220), (50, Some(Slowness::Processor)));
        assert_eq!(pass(60_000, 0, 220), (50, Some(Slowness::Processor)));
        assert_eq!(pass(300_000, 0, 220), (100, None), "that is too long ago to tell anything");
        assert_eq!(pass(5_000, 110, 220), (50, Some(Slowness::Processor)));
    }

    #[test]
    fn commands_are_counted_by_the_second() {
        let mut load = Load::default();
        for step in 1..=50 {
            load.note(&sample(100, 0), Millis(0), step * 20, |_| true, Millis(step * 100));
        }
        assert_eq!(load.commands_per_s(Millis(5000)), 200);
        assert_eq!(Load::default().commands_per_s(Millis(5000)), 0);
    }
}
