//! Randomness that can be repeated: the seed is in a failing test's output.

/// A generator of pseudo-random numbers (SplitMix64).
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator with a fixed seed, or with that of the variable `SEED`.
    pub fn new() -> Self {
        let seed = std::env::var("SEED").map_or(20_260_919, |seed| {
            seed.parse().expect("SEED is a whole number")
        });
        eprintln!("random numbers from SEED={seed}");
        Self { state: seed }
    }

    /// A generator that depends on this one and on nothing that happens to this one later.
    pub fn fork(&mut self) -> Self {
        Self {
            state: self.number(),
        }
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap();
        usize::try_from(self.number() % bound).unwrap()
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }

    /// `length` random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.number() & 0xff) as u8).collect()
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
