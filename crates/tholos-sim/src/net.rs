//! The simulated network: who reaches whom, how late, how often.

use crate::coverage::{Coverage, Reached};
use crate::random::Random;

/// Links between nodes, each way by itself.
#[derive(Clone, Debug)]
pub struct Net {
    nodes: usize,
    cut: Vec<bool>,
    /// When the last message so far arrives, of each direction.
    latest: Vec<u64>,
    /// Everything to this node is later by so much, in microseconds.
    late_us: Vec<u64>,
    /// Messages overtake each other in good weather, too: no connection of today does that to those that arrive.
    pub reorders: bool,
    /// How it is now.
    pub weather: Weather,
}

/// What the network does to messages.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Messages lost, per million.
    pub loss: u64,
    /// Messages doubled, per million.
    pub duplication: u64,
    /// Delay of a message in microseconds, from and to.
    pub delay_us: (u64, u64),
    /// Messages that take up to a hundred times as long, per million.
    pub stragglers: u64,
    /// Whether messages of one direction overtake each other.
    pub reorders: bool,
}

impl Weather {
    /// Nothing is lost, doubled or late, and what is sent first arrives first.
    pub const CALM: Weather =
        Weather { loss: 0, duplication: 0, delay_us: (50, 500), stragglers: 0, reorders: false };
}

impl Net {
    /// A quiet network of `nodes`.
    pub fn new(nodes: usize) -> Net {
        Net {
            nodes,
            cut: vec![false; nodes * nodes],
            latest: vec![0; nodes * nodes],
            late_us: vec![0; nodes],
            reorders: false,
            weather: Weather::CALM,
        }
    }

    /// Cuts or mends one direction.
    pub fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from * self.nodes + to] = cut;
    }

    /// Whether messages in one direction are lost.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.nodes + to]
    }

    /// Makes everything that is sent to a node later.
    pub fn set_late(&mut self, to: usize, late_us: u64) {
        self.late_us[to] = late_us;
    }

    /// Mends everything.
    pub fn heal(&mut self) {
        self.cut.fill(false);
        self.late_us.fill(0);
        self.reorders = false;
        self.weather = Weather::CALM;
    }

    /// When copies of a message sent at `now` arrive: never if it is lost.
    pub fn arrivals(
        &mut self,
        (from, to): (usize, usize),
        now: u64,
        random: &mut Random,
        coverage: &mut Coverage,
    ) -> [Option<u64>; 2] {
        if self.is_cut(from, to) {
            coverage.count(Reached::MessageCut);
            return [None; 2];
        }
        if random.per_million(self.weather.loss) {
            coverage.count(Reached::MessageLost);
            return [None; 2];
        }
        let doubled = random.per_million(self.weather.duplication);
        if doubled {
            coverage.count(Reached::MessageDoubled);
        }
        let mut arrival = || {
            let (low, high) = self.weather.delay_us;
            let delay = random.between(low, high);
            let late = random.per_million(self.weather.stragglers);
            let at = now + self.late_us[to] + if late { delay * random.between(1, 100) } else { delay };
            let latest = &mut self.latest[from * self.nodes + to];
            if at >= *latest {
                *latest = at;
            } else if self.reorders || self.weather.reorders {
                coverage.count(Reached::MessageOvertook);
            } else {
                return *latest;
            }
            at
        };
        [Some(arrival()), doubled.then(&mut arrival)]
    }
}
