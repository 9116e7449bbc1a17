//! Seeded chance: every random choice of the demo is a function of a seed and a name, never of time or of the order
//! in which requests arrive.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A stream of random numbers of its own, named by what it decides.
#[derive(Debug)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// Makes the stream named by `parts` under `seed`; different names give independent streams.
    pub(crate) fn new(seed: u64, parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("foreshadow 2026 demo rng v1");
        hasher.update(&seed.to_le_bytes());
        for part in parts {
            // The length keeps ("a", "bc") and ("ab", "c") apart.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// Says yes with the probability `share` (0 to 1).
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        const STEPS: f64 = 4_294_967_296.0;
        f64::from(self.0.next_u32()) / STEPS < share
    }

    /// Draws evenly from `0..bound`; 0 where the bound is 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let wide = u64::from(self.0.next_u32()) * u64::from(bound);
        u32::try_from(wide >> 32).expect("a product of two 32-bit numbers shifted by 32 fits")
    }

    /// Draws one of the items evenly.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let bound = u32::try_from(items.len()).expect("lists of choices are short");
        &items[self.below(bound) as usize]
    }

    /// Draws `digits` hexadecimal digits, at most 16.
    pub(crate) fn hex(&mut self, digits: usize) -> String {
        let mut text = format!("{:016x}", self.0.next_u64());
        text.truncate(digits);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_stream_and_another_name_another() {
        let draw = |seed, parts: &[&str]| Rng::new(seed, parts).hex(16);
        assert_eq!(draw(1, &["a", "bc"]), draw(1, &["a", "bc"]));
        assert_ne!(draw(1, &["a", "bc"]), draw(1, &["ab", "c"]));
        assert_ne!(draw(1, &["a"]), draw(2, &["a"]));
    }

    #[test]
    fn chance_keeps_its_share() {
        let mut rng = Rng::new(7, &["share"]);
        let yes = (0..10_000).filter(|_| rng.chance(0.1)).count();
        assert!((850..1150).contains(&yes), "{yes} of 10000 at a share of 0.1");
        assert!((0..1000).all(|_| rng.below(3) < 3));
    }
}
