//! The simulated network: who reaches whom, how late, how often.

use crate::random::Random;

/// Links between nodes, each way by itself.
#[derive(Clone, Debug)]
pub struct Net {
    nodes: usize,
    cut: Vec<bool>,
    /// Messages lost, per million.
    pub loss: u64,
    /// Messages doubled, per million.
    pub duplication: u64,
    /// Delay of a message in microseconds, from and to.
    pub delay_us: (u64, u64),
    /// Messages that take up to a hundred times as long, per million.
    pub stragglers: u64,
}

impl Net {
    /// A quiet network of `nodes`.
    pub fn new(nodes: usize) -> Net {
        Net {
            nodes,
            cut: vec![false; nodes * nodes],
            loss: 0,
            duplication: 0,
            delay_us: (50, 500),
            stragglers: 0,
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

    /// Mends everything.
    pub fn heal(&mut self) {
        *self = Net::new(self.nodes);
    }

    /// The delays at which copies of a message arrive: none if it is lost.
    pub fn deliveries(&self, from: usize, to: usize, random: &mut Random) -> Vec<u64> {
        if self.is_cut(from, to) || random.per_million(self.loss) {
            return Vec::new();
        }
        let copies = 1 + u64::from(random.per_million(self.duplication));
        (0..copies)
            .map(|_| {
                let delay = random.between(self.delay_us.0, self.delay_us.1);
                if random.per_million(self.stragglers) { delay * random.between(1, 100) } else { delay }
            })
            .collect()
    }
}
