//! Random choices from a seed, so that a run can be repeated, and identifiers made of them.

use std::hash::{BuildHasher, Hasher, RandomState};

/// SplitMix64: small, fast and good enough for identifiers that need not be secret.
pub(crate) struct Generator {
    state: u64,
}

/// A seed that differs from run to run.
pub(crate) fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // The bias of a remainder of 64 bits is far below what a test could see.
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A Twilio identifier: `kind` and 32 hexadecimal digits.
    pub(crate) fn sid(&mut self, kind: &str) -> String {
        format!("{kind}{:016x}{:016x}", self.next(), self.next())
    }

    /// `length` characters as nanoid chooses them.
    pub(crate) fn nanoid(&mut self, length: usize) -> String {
        (0..length)
            .map(|_| char::from(NANOID[self.below(NANOID.len())]))
            .collect()
    }

    /// A version 4 UUID in lower case.
    pub(crate) fn uuid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0xc << 60) | 0x8 << 60;
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

const NANOID: &[u8; 64] = b"_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_identifiers() {
        let (mut a, mut b) = (Generator::new(7), Generator::new(7));
        assert_eq!(a.sid("SM"), b.sid("SM"));
        assert!(protocol::sid::is_message(&a.sid("SM")));
        assert_ne!(a.sid("SM"), b.uuid());
    }

    #[test]
    fn uuids_have_version_and_variant() {
        let mut generator = Generator::new(1);
        for _ in 0..100 {
            let uuid = generator.uuid();
            assert_eq!(uuid.len(), 36);
            assert_eq!(&uuid[14..15], "4");
            assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        }
    }
}
