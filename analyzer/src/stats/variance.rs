//! Means, variances, and the part of a contrast's variance that more trials could remove (DECISION 1.6).

/// Arithmetic mean in the given order; 0 if empty.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / float(values.len()) }
}

/// Unbiased variance; 0 with fewer than two values.
#[must_use]
pub fn variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let middle = mean(values);
    values.iter().map(|value| (value - middle) * (value - middle)).sum::<f64>() / float(values.len() - 1)
}

/// Control variate estimate (as in CUPED): mean of the second numbers adjusted by their regression on the first
/// numbers, whose mean is that of `all`. Returns the adjusted mean, its standard error, and the share of the variance
/// explained; absent if the first numbers do not vary.
#[must_use]
pub fn control(pairs: &[(f64, f64)], all: &[f64]) -> Option<(f64, f64, f64)> {
    let first: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
    let second: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    let (x, y) = (mean(&first), mean(&second));
    let spread: f64 = first.iter().map(|value| (value - x) * (value - x)).sum();
    let whole: f64 = second.iter().map(|value| (value - y) * (value - y)).sum();
    let common: f64 = pairs.iter().map(|pair| (pair.0 - x) * (pair.1 - y)).sum();
    if pairs.len() < 3 || spread <= 0.0 {
        return None;
    }
    let slope = common / spread;
    let left = (whole - slope * common).max(0.0) / float(pairs.len() - 2);
    let explained = if whole > 0.0 { slope * common / whole } else { 0.0 };
    Some((y - slope * (x - mean(all)), (left / float(pairs.len())).sqrt(), explained))
}

/// Converts a count to a floating point number.
#[must_use]
pub fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Variance components of a case's contrast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Components {
    /// Variance between cases, which no number of trials removes.
    pub between: f64,
    /// Variance within a case, both arms together, of a single trial each.
    pub within: f64,
}

impl Components {
    /// Splits the variance of the contrasts into components; `arms` are the trial values of both lanes per case.
    ///
    /// `None` if fewer than two cases have two trials in both lanes, because the variance within is then unknown.
    #[must_use]
    pub fn estimate(contrasts: &[f64], arms: &[(&[f64], &[f64])]) -> Option<Self> {
        let pooled = |arm: fn(&(&[f64], &[f64])) -> usize, of: fn(&(&[f64], &[f64])) -> f64| {
            let repeated: Vec<_> = arms.iter().filter(|case| arm(case) >= 2).collect();
            let freedom: f64 = repeated.iter().map(|case| float(arm(case) - 1)).sum();
            let squares: f64 = repeated.iter().map(|case| of(case) * float(arm(case) - 1)).sum();
            (repeated.len() >= 2).then(|| squares / freedom)
        };
        let within_baseline = pooled(|case| case.0.len(), |case| variance(case.0))?;
        let within_candidate = pooled(|case| case.1.len(), |case| variance(case.1))?;
        let share = |of: fn(&(&[f64], &[f64])) -> usize| {
            let inverse: Vec<f64> = arms.iter().map(|case| 1.0 / float(of(case).max(1))).collect();
            mean(&inverse)
        };
        let noise =
            within_baseline * share(|case| case.0.len()) + within_candidate * share(|case| case.1.len());
        let between = (variance(contrasts) - noise).max(0.0);
        Some(Self { between, within: within_baseline + within_candidate })
    }

    /// Variance of a case's contrast with this many trials per lane.
    #[must_use]
    pub fn at(&self, trials: f64) -> f64 {
        self.between + self.within / trials
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_numpy() {
        let values = [0.1, 0.4, -0.2, 0.9];
        assert!((mean(&values) - 0.3).abs() < 1e-15);
        // numpy.var(ddof=1)
        assert!((variance(&values) - 0.22).abs() < 1e-12);
    }

    #[test]
    fn what_the_covariate_explains_is_taken_out() {
        // statsmodels OLS of y on x - mean(all), see tests/calibration/reference.py: intercept, and R squared.
        let pairs = [(1.0, 0.1), (1.0, -0.1), (0.0, 0.4), (0.0, 0.2), (1.0, 0.0), (0.0, 0.5)];
        let all = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0];
        let (effect, error, explained) = control(&pairs, &all).expect("the covariate varies");
        assert!((effect - 0.137_5).abs() < 1e-12, "{effect}");
        assert!((error - 0.052_704_627_669).abs() < 1e-9, "{error}");
        assert!((explained - 0.751_552_795_031).abs() < 1e-9, "{explained}");
        assert_eq!(control(&[(1.0, 0.1), (1.0, 0.2), (1.0, 0.3)], &all), None);
    }

    #[test]
    fn trials_within_a_case_remove_only_what_is_within() {
        let arms: Vec<(Vec<f64>, Vec<f64>)> = (0..50)
            .map(|case| (vec![1.0, 0.0], if case % 2 == 0 { vec![1.0, 0.0] } else { vec![1.0, 1.0] }))
            .collect();
        let contrasts: Vec<f64> = arms.iter().map(|(b, c)| mean(c) - mean(b)).collect();
        let arms: Vec<_> = arms.iter().map(|(b, c)| (b.as_slice(), c.as_slice())).collect();
        let parts = Components::estimate(&contrasts, &arms).expect("two trials each");
        assert!((parts.within - 0.75).abs() < 1e-12);
        assert!(parts.between.abs() < 1e-12);
        assert!(parts.at(4.0) < parts.at(1.0));
        assert_eq!(Components::estimate(&[0.0, 1.0], &[(&[1.0], &[1.0]), (&[0.0], &[1.0])]), None);
    }
}
