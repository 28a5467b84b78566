//! Owns all chance of a simulation: one sequence for one seed. Nothing else may be random.

/// A generator of equal sequences for equal seeds.
pub(crate) struct Dice(events::dice::Dice);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(events::dice::Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.roll()
    }

    /// A number under `bound`; 0 when there is none.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    /// A number from `least` to `most`.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.index(len)
    }

    pub(crate) fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())].clone()
    }
}
