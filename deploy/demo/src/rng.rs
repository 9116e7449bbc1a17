//! Random streams of the demo: every choice depends on a seed and a name, never on time or on the order of requests.

use seeded::{Key, Stream};

/// Purpose of the key derivation; frozen, because the reports of the demo are reproduced from their seed.
const PURPOSE: &str = "foreshadow 2026 demo dice v1";

/// The stream with this name under this seed; different names give independent streams.
pub(crate) fn stream(seed: u64, name: &[&str]) -> Stream {
    let parts: Vec<&[u8]> = name.iter().map(|part| part.as_bytes()).collect();
    Key::derive_with_seed(PURPOSE, seed, &parts).stream(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_give_equal_streams_and_different_names_different_streams() {
        let draw = |seed, name: &[&str]| stream(seed, name).hex(16);
        assert_eq!(draw(1, &["a", "bc"]), draw(1, &["a", "bc"]));
        assert_ne!(draw(1, &["a", "bc"]), draw(1, &["ab", "c"]));
        assert_ne!(draw(1, &["a"]), draw(2, &["a"]));
    }
}
