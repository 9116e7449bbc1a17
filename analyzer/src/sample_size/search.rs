//! Search for the number of cases that reaches a power.

/// Planned probability of approval, if the cases so far allow it.
pub(super) const POWER: f64 = 0.80;

/// Largest number of cases considered; above it, approval is not reachable.
pub(super) const MOST_CASES: u64 = 50_000;

/// Smallest number of cases to add that reaches the planned power, near a first guess.
pub(super) fn search(guess: u64, power: f64, chance: impl Fn(u64) -> f64) -> Option<(u64, f64)> {
    let mut high = guess.max(1);
    let mut reached = chance(high);
    let mut low = 0;
    while reached < power {
        low = high;
        high = high + high / 4 + 1;
        if high > MOST_CASES {
            return None;
        }
        reached = chance(high);
    }
    // A fiftieth is finer than the precision of the variance.
    while high - low > 1 + high / 50 {
        // The first guess is close, so the first step down is small.
        let step = if low == 0 { high - high / 5 - 1 } else { u64::midpoint(low, high) };
        let found = chance(step);
        if found >= power {
            (high, reached) = (step, found);
        } else {
            low = step;
        }
    }
    Some((high, reached))
}
