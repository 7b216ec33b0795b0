//! Chance that can be had again: the same seed throws the same.

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Dice(u64);

impl Dice {
    /// Dice of one thrower of a run.
    pub fn new(seed: u64, thrower: u64) -> Self {
        let mut dice = Self(seed ^ thrower.wrapping_mul(0xd134_2543_de82_ef95));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True in so many of a hundred throws.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these, each as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(usize, T)]) -> T {
        let mut thrown = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            match thrown.checked_sub(*weight) {
                None => return *choice,
                Some(left) => thrown = left,
            }
        }
        unreachable!("the weights are all there is")
    }
}
