//! Seeded random numbers: every draw is a function of a key and a position, never of time, threads or earlier draws.
//!
//! A [`Key`] is derived from a purpose and the names of the thing that is drawn for. It yields one number by itself
//! ([`Key::unit`], [`Key::number`]) or any number of independent streams ([`Key::stream`]). Streams are `ChaCha8`
//! (D. J. Bernstein, "`ChaCha`, a variant of `Salsa20`", 2008) with the stream number as nonce; keys are BLAKE3 in
//! key-derivation mode. The numbers are not for cryptography.
//!
//! Derivations are frozen: recorded runs, fault plans and verdicts are reproduced from their seed.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// Bits of [`Key::number`]: JSON readers that hold numbers as doubles keep all of them.
pub const NUMBER_BITS: u32 = 53;

/// Key of a family of random streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Derives a key from a purpose and parts. Each part is hashed behind its length, so that `("ab", "c")` and
    /// `("a", "bc")` differ.
    #[must_use]
    pub fn derive(purpose: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        add_parts(&mut hasher, parts);
        Self(*hasher.finalize().as_bytes())
    }

    /// Derives a key from a purpose, a seed (8 bytes, little-endian, without a length) and parts.
    #[must_use]
    pub fn derive_with_seed(purpose: &str, seed: u64, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&seed.to_le_bytes());
        add_parts(&mut hasher, parts);
        Self(*hasher.finalize().as_bytes())
    }

    /// Uses key material that the caller derived.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key material; sorting by it gives a random order.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// An integer below 2^53 ([`NUMBER_BITS`]).
    #[must_use]
    pub fn number(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first) >> (u64::BITS - NUMBER_BITS)
    }

    /// A number in [0, 1).
    #[must_use]
    pub fn unit(&self) -> f64 {
        // 53 bits are exact in a double.
        self.number() as f64 / (1_u64 << NUMBER_BITS) as f64
    }

    /// Stream number `number` of this key.
    #[must_use]
    pub fn stream(&self, number: u64) -> Stream {
        let mut rng = ChaCha8Rng::from_seed(self.0);
        rng.set_stream(number);
        Stream(rng)
    }
}

fn add_parts(hasher: &mut blake3::Hasher, parts: &[&[u8]]) {
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
}

/// One stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// Draws 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Draws 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Draws from `0..bound`, or 0 if `bound` is 0. The bias is below `bound` / 2^32.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        scale_to(self.next_u32(), bound)
    }

    /// Draws from (0, 1): a multiple of 2^-32 plus 2^-33.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (f64::from(self.next_u32()) + 0.5) / 4_294_967_296.0
    }

    /// Draws true with this probability, 0 to 1.
    #[inline]
    pub fn happens(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Draws one item.
    ///
    /// # Panics
    /// If `items` is empty or has 2^32 items or more.
    pub fn pick<'items, T>(&mut self, items: &'items [T]) -> &'items T {
        &items[self.below(u32::try_from(items.len()).expect("fewer than 2^32 items")) as usize]
    }

    /// Draws `digits` hexadecimal digits in lower case, at most 16.
    pub fn hex(&mut self, digits: usize) -> String {
        let mut text = format!("{:016x}", self.next_u64());
        text.truncate(digits);
        text
    }

    /// Shuffles in place (Durstenfeld, CACM 7 (1964), algorithm 235).
    ///
    /// # Panics
    /// If `items` has 2^32 items or more.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).expect("fewer than 2^32 items");
            items.swap(last, self.below(bound) as usize);
        }
    }
}

/// Maps 32 random bits to `0..bound` (Lemire, ACM TOMACS 29 (2019), without the rejection step).
#[must_use]
#[inline]
pub fn scale_to(bits: u32, bound: u32) -> u32 {
    let product = u64::from(bits) * u64::from(bound);
    u32::try_from(product >> 32).expect("the product of two 32-bit numbers shifted by 32 bits fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changing one of these numbers changes the seeds of every recorded run.
    #[test]
    fn derivations_are_frozen() {
        let key = Key::derive("p", &[b"ab", b"c"]);
        assert_eq!(key.number(), 1_352_068_260_971_556);
        assert_eq!(key.stream(3).next_u64(), 16_475_067_157_056_724_931);
        assert_eq!(Key::derive_with_seed("p", 7, &[b"a"]).stream(0).hex(16), "6fff86d46212df88");
    }

    #[test]
    fn parts_seeds_and_stream_numbers_are_kept_apart() {
        let key = Key::derive("p", &[b"ab", b"c"]);
        assert_ne!(key, Key::derive("p", &[b"a", b"bc"]));
        assert_ne!(key, Key::derive("q", &[b"ab", b"c"]));
        assert_ne!(Key::derive_with_seed("p", 1, &[b"a"]), Key::derive_with_seed("p", 2, &[b"a"]));
        assert_eq!(key.stream(3).hex(16), key.stream(3).hex(16));
        assert_ne!(key.stream(3).hex(16), key.stream(4).hex(16));
    }

    #[test]
    fn draws_are_uniform() {
        let mut stream = Key::from_bytes([7; 32]).stream(0);
        let mean = (0..10_000).map(|_| stream.uniform()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.015, "mean {mean}");
        let hits = (0..10_000).filter(|_| stream.happens(0.1)).count();
        assert!((900..1100).contains(&hits), "{hits} of 10000 at probability 0.1");
        assert!((0..1000).all(|_| stream.below(3) < 3));
        let units: Vec<f64> = (0..2000_u32).map(|n| Key::derive("p", &[&n.to_le_bytes()]).unit()).collect();
        let mean = units.iter().sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.03, "mean {mean}");
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)));
    }

    #[test]
    fn bits_scale_to_the_whole_range() {
        assert_eq!((scale_to(0, 7), scale_to(u32::MAX, 7), scale_to(u32::MAX, 0)), (0, 6, 0));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Key::from_bytes([1; 32]).stream(0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
