//! Counter-based random streams: each consumer has its own stream, identified by (seed, purpose, number).
//!
//! The draws of a permutation depend neither on the thread nor on earlier draws.

pub use seeded::{Stream, scale_to};

/// Key of a family of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey(seeded::Key);

impl StreamKey {
    /// Derives the key of a purpose (a metric's name and the quantity drawn).
    ///
    /// The derivation is frozen, because it determines the p-values of earlier verdicts.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("foreshadow 2026 analyzer stream v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(seeded::Key::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Key material, for draws by hash.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    /// Stream with this number.
    #[must_use]
    pub fn stream(&self, number: u64) -> Stream {
        self.0.stream(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_by_seed_purpose_and_number() {
        let draws = |seed, purpose, number| {
            let mut stream = StreamKey::new(seed, purpose).stream(number);
            [(); 4].map(|()| stream.below(1000))
        };
        assert_eq!(draws(1, "success", 3), [550, 506, 592, 232]);
        assert_ne!(draws(1, "success", 3), draws(1, "success", 4));
        assert_ne!(draws(1, "success", 3), draws(2, "success", 3));
        assert_ne!(draws(1, "success", 3), draws(1, "failure", 3));
    }
}
