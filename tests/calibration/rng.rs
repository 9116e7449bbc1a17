//! Random numbers of the simulations: a stream for each purpose and repetition.
//!
//! The keys are derived apart from the analyzer's, so that a simulation and the tests that it checks share no stream.

use seeded::{Key, Stream};

/// One stream.
pub(crate) struct SimulationRng(Stream);

impl SimulationRng {
    /// The stream of a repetition.
    pub(crate) fn new(purpose: &str, repetition: u64) -> Self {
        let mut key = [0; 32];
        // FNV-1a over the purpose, spread over the key. Apart from the derivation of the analyzer's keys.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for (position, byte) in purpose.bytes().chain([0; 32]).enumerate() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            key[position % 32] ^= hash.to_le_bytes()[3];
        }
        Self(Key::from_bytes(key).stream(repetition))
    }

    /// Draws from (0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0.uniform()
    }

    /// Draws from `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.below(u32::try_from(bound).expect("a bound below 2^32")) as usize
    }

    /// Draws true with this probability.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.0.happens(probability)
    }

    /// Of the standard normal distribution (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()
    }

    /// Logarithm of a number of the gamma distribution (Marsaglia and Tsang 2000); the logarithm, as with a small shape
    /// the number itself is often too small to be told from 0.
    fn ln_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.ln_gamma(shape + 1.0) + self.uniform().ln() / shape;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return (d * v).ln();
            }
        }
    }

    /// Of the beta distribution with this mean and concentration (the sum of its two parameters).
    pub(crate) fn beta(&mut self, mean: f64, concentration: f64) -> f64 {
        if mean <= 0.0 || mean >= 1.0 {
            return mean.clamp(0.0, 1.0);
        }
        let good = self.ln_gamma(mean * concentration);
        let bad = self.ln_gamma((1.0 - mean) * concentration);
        1.0 / (1.0 + (bad - good).exp())
    }

    /// Shuffles in place.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}

#[cfg(test)]
mod tests {
    use super::SimulationRng;

    fn moments(numbers: &[f64]) -> (f64, f64) {
        let count = f64::from(u32::try_from(numbers.len()).expect("few"));
        let mean = numbers.iter().sum::<f64>() / count;
        (mean, numbers.iter().map(|number| (number - mean) * (number - mean)).sum::<f64>() / count)
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let mut rng = SimulationRng::new("moments", 0);
        for (mean, concentration) in [(0.97, 0.5), (0.5, 1.0), (0.9, 5.0)] {
            let numbers: Vec<f64> = (0..40_000).map(|_| rng.beta(mean, concentration)).collect();
            let (found, spread) = moments(&numbers);
            let expected = mean * (1.0 - mean) / (1.0 + concentration);
            assert!((found - mean).abs() < 0.006, "mean {found}, not {mean}");
            assert!((spread / expected - 1.0).abs() < 0.06, "variance {spread}, not {expected}");
        }
        let numbers: Vec<f64> = (0..40_000).map(|_| rng.normal()).collect();
        let (mean, spread) = moments(&numbers);
        assert!(mean.abs() < 0.02 && (spread - 1.0).abs() < 0.03, "{mean} {spread}");
        let (mean, spread) = moments(&(0..40_000).map(|_| rng.uniform()).collect::<Vec<_>>());
        assert!((mean - 0.5).abs() < 0.006 && (spread - 1.0 / 12.0).abs() < 0.003, "{mean} {spread}");
    }

    #[test]
    fn streams_differ_by_purpose_and_repetition() {
        let first = |purpose, repetition| SimulationRng::new(purpose, repetition).uniform().to_bits();
        assert_eq!(first("a", 1), first("a", 1));
        assert_ne!(first("a", 1), first("a", 2));
        assert_ne!(first("a", 1), first("b", 1));
    }
}
