//! Random numbers by counter: each consumer has its own stream, keyed (seed, purpose, number).
//!
//! A permutation's draws do not depend on which thread makes them nor on what was drawn before.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// The key of a family of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey([u8; 32]);

/// One stream.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl StreamKey {
    /// Derives the key of a purpose (a metric's name and what is drawn for it).
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("foreshadow 2026 analyzer stream v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The key itself, for what is drawn by hash.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The stream of this number.
    #[must_use]
    pub fn stream(&self, number: u64) -> Stream {
        let mut rng = ChaCha8Rng::from_seed(self.0);
        rng.set_stream(number);
        Stream(rng)
    }
}

impl Stream {
    /// Draws 32 random bits.
    pub fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Draws from `0..below`; biased by less than `below` in 2^32. `below` must not be 0.
    pub fn below(&mut self, below: u32) -> u32 {
        scaled(self.bits(), below)
    }
}

/// Takes 32 random bits to `0..below`.
#[must_use]
pub fn scaled(bits: u32, below: u32) -> u32 {
    let wide = u64::from(bits) * u64::from(below);
    u32::try_from(wide >> 32).expect("a product of two 32 bit numbers shifted by 32 bits fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_by_key_and_number() {
        let key = StreamKey::new(1, "success");
        let mut a = key.stream(3);
        let mut b = key.stream(3);
        let mut c = key.stream(4);
        let first: Vec<u32> = (0..8).map(|_| a.below(1000)).collect();
        assert_eq!(first, (0..8).map(|_| b.below(1000)).collect::<Vec<_>>());
        assert_ne!(first, (0..8).map(|_| c.below(1000)).collect::<Vec<_>>());
        assert_eq!((scaled(0, 7), scaled(u32::MAX, 7)), (0, 6));
    }
}
