//! Everything random in a replay, as a pure function of names: the same names always draw the same number.
//!
//! No generator has a state here, so neither the order in which trials run nor how many run at once changes a draw.

use schemas::id::CaseId;

/// A seed fits in 53 bits, so that JSON readers that hold numbers as doubles keep all of it.
const SEED_BITS: u32 = 53;

/// Hashes the parts, each behind its length, so that no two lists of parts run together.
pub(crate) fn digest(purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// A number of 53 bits.
fn number(purpose: &str, parts: &[&[u8]]) -> u64 {
    let digest = digest(purpose, parts);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first) >> (u64::BITS - SEED_BITS)
}

/// A number in [0, 1).
pub(crate) fn unit(purpose: &str, parts: &[&[u8]]) -> f64 {
    // 53 bits are exact in a double.
    number(purpose, parts) as f64 / (1_u64 << SEED_BITS) as f64
}

/// The seed of a trial: from the run's seed, the case and the trial's number only, so that both lanes get the same.
#[must_use]
pub fn trial_seed(run_seed: u64, case: &CaseId, trial: u32) -> u64 {
    let parts: [&[u8]; 3] = [&run_seed.to_le_bytes(), case.as_str().as_bytes(), &trial.to_le_bytes()];
    number("foreshadow 2026 trial seed v1", &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_frozen_and_apart() {
        let case = CaseId::parse("case-1").expect("id");
        let other = CaseId::parse("case-11").expect("id");
        assert_eq!(trial_seed(1, &case, 0), trial_seed(1, &case, 0));
        assert_ne!(trial_seed(1, &case, 0), trial_seed(1, &case, 1));
        assert_ne!(trial_seed(1, &case, 0), trial_seed(2, &case, 0));
        assert_ne!(trial_seed(1, &case, 0), trial_seed(1, &other, 0));
        assert!(trial_seed(1, &case, 0) < 1 << SEED_BITS);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(digest("p", &[b"ab", b"c"]), digest("p", &[b"a", b"bc"]));
    }

    #[test]
    fn draws_fill_the_unit_interval() {
        let draws: Vec<f64> = (0..2000_u32).map(|n| unit("p", &[&n.to_le_bytes()])).collect();
        let mean = draws.iter().sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
    }
}
