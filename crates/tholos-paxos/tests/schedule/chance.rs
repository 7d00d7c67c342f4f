//! Chance from a seed, and nothing else.

/// A generator of our own (SplitMix64), so that a seed means the same for ever.
pub struct Chance(u64);

impl Chance {
    /// What a seed decides beforehand.
    pub fn of_seed(seed: u64) -> Chance {
        Chance(seed)
    }

    /// What one step of a seed draws: nothing of it depends on the steps before, so that any can be left out.
    pub fn of_step(seed: u64, step: usize) -> Chance {
        let mut chance = Chance(seed ^ 0x5ced_0000_0000_0000);
        Chance(chance.next() ^ (step as u64).wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
