//! Rates, and limits of a rate whose probability is known.

use rayon::prelude::*;

use crate::rng::SimulationRng;

/// Hits among a number of repetitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) hits: u32,
    pub(crate) of: u32,
}

/// Probability of a false alarm of a rate check: the slack of the acceptance figures.
const SLACK: f64 = 0.001;

impl Rate {
    pub(crate) fn share(self) -> f64 {
        f64::from(self.hits) / f64::from(self.of.max(1))
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, of: self.of + other.of }
    }

    /// Clopper and Pearson's interval at 95 %.
    pub(crate) fn interval(self) -> [f64; 2] {
        let beta = |p, a: u32, b: u32| quantile_of_beta(p, f64::from(a), f64::from(b));
        let low = if self.hits == 0 { 0.0 } else { beta(0.025, self.hits, self.of - self.hits + 1) };
        let high = if self.hits == self.of { 1.0 } else { beta(0.975, self.hits + 1, self.of - self.hits) };
        [low, high]
    }

    /// Whether a probability of at most `most` explains this many hits, at level [`SLACK`].
    pub(crate) fn is_at_most(self, most: f64) -> bool {
        self.hits <= most_hits(self.of, most)
    }

    /// Whether a probability of at least `least` explains this few hits, at level [`SLACK`].
    pub(crate) fn is_at_least(self, least: f64) -> bool {
        self.of - self.hits <= most_hits(self.of, 1.0 - least)
    }

    /// Share that [`Self::is_at_most`] allows.
    pub(crate) fn limit(of: u32, most: f64) -> f64 {
        f64::from(most_hits(of, most)) / f64::from(of.max(1))
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4} (N={})", self.share(), self.of)
    }
}

/// Largest plausible number of hits: the first with P(more) at most [`SLACK`].
fn most_hits(of: u32, probability: f64) -> u32 {
    if probability <= 0.0 {
        return 0;
    }
    if probability >= 1.0 {
        return of;
    }
    let (p, q) = (probability.ln(), (1.0 - probability).ln());
    let mut below = 0.0;
    let mut ln_ways = 0.0;
    for hits in 0..=of {
        if hits > 0 {
            ln_ways += (f64::from(of - hits + 1) / f64::from(hits)).ln();
        }
        below += (ln_ways + f64::from(hits) * p + f64::from(of - hits) * q).exp();
        if below >= 1.0 - SLACK {
            return hits;
        }
    }
    of
}

/// Beta quantile by bisection of the binomial sum; `a` and `b` are whole.
fn quantile_of_beta(p: f64, a: f64, b: f64) -> f64 {
    let of = a + b - 1.0;
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    for _ in 0..60 {
        let x = 0.5 * (low + high);
        // P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a)
        let (mut term, mut above, mut k) = (of * (1.0 - x).ln(), 0.0, 0.0);
        while k <= of {
            if k >= a {
                above += term.exp();
            }
            term += ((of - k) / (k + 1.0)).ln() + x.ln() - (1.0 - x).ln();
            k += 1.0;
        }
        if above < p {
            low = x;
        } else {
            high = x;
        }
    }
    0.5 * (low + high)
}

/// Repeats an experiment, each time with its own random stream, and counts each outcome.
pub(crate) fn repeat<const K: usize>(
    purpose: &str,
    times: u32,
    once: impl Fn(&mut SimulationRng) -> [bool; K] + Sync,
) -> [Rate; K] {
    let outcomes: Vec<[bool; K]> = (0..times)
        .into_par_iter()
        .map(|number| once(&mut SimulationRng::new(purpose, u64::from(number))))
        .collect();
    let mut rates = [Rate { hits: 0, of: times }; K];
    for outcome in outcomes {
        for (rate, hit) in rates.iter_mut().zip(outcome) {
            rate.hits += u32::from(hit);
        }
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_design() {
        // With a true rate of .05, the 99.9 % limit is .0655 for 2,000 repetitions and .0569 for 10,000.
        assert!((Rate::limit(2000, 0.05) - 0.0655).abs() < 3e-4, "{}", Rate::limit(2000, 0.05));
        assert!((Rate::limit(10_000, 0.05) - 0.0569).abs() < 3e-4, "{}", Rate::limit(10_000, 0.05));
        assert_eq!((most_hits(10, 0.0), most_hits(10, 1.0)), (0, 10));
        assert!(
            Rate { hits: 70, of: 100 }.is_at_least(0.80) && !Rate { hits: 60, of: 100 }.is_at_least(0.80)
        );
    }

    #[test]
    fn intervals_are_those_of_scipy() {
        // scipy.stats.binomtest(7, 276).proportion_ci()
        let [low, high] = Rate { hits: 7, of: 276 }.interval();
        assert!((low - 0.010_256_4).abs() < 1e-6 && (high - 0.051_555_6).abs() < 1e-6, "{low} {high}");
        assert!((Rate { hits: 0, of: 10 }.interval()[1] - 0.308_497_1).abs() < 1e-6);
    }
}
