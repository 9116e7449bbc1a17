//! Test of the mean of bounded values by betting (Waudby-Smith and Ramdas 2024), valid at any stopping time.
//!
//! The capital K(t) = product of 1 + lambda(t) (x(t) - m) is a fair game if the mean is m, so it ever exceeds 1/alpha
//! with probability at most alpha (Ville 1939). The stake lambda depends on the values before t only (aGRAPA). It is
//! one-sided: capital grows if the mean is above m, or below it.

use crate::stats::gaffke::UnitMean;

/// Fraction of the largest stake that cannot lose everything; the source proposes 0.5 or 0.75.
pub const TRUNCATION: f64 = 0.75;

/// Side of the bet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The mean is above the null value.
    Above,
    /// The mean is below the null value.
    Below,
}

/// Running moments of the values, starting with one artificial observation of mean 1/2 and variance 1/4.
#[derive(Debug, Clone, Copy)]
struct Seen {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Seen {
    const NOTHING: Self = Self { count: 1.0, sum: 0.5, squares: 0.25 };

    /// Stake on the next value, computed before the value is known.
    fn stake(&self, mean: f64, side: Side, truncation: f64) -> f64 {
        let (middle, spread) = (self.sum / self.count, self.squares / self.count);
        let away = middle - mean;
        let stake = away / (spread + away * away);
        match side {
            Side::Above => stake.clamp(0.0, truncation / mean),
            Side::Below => stake.clamp(-truncation / (1.0 - mean), 0.0),
        }
    }

    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        let away = value - self.sum / self.count;
        self.squares += away * away;
    }
}

/// Logarithm of the capital after each value. Values are in [0, 1], `mean` strictly between.
#[must_use]
pub fn log_wealth(values: &[f64], mean: f64, side: Side, truncation: f64) -> Vec<f64> {
    let mut seen = Seen::NOTHING;
    let mut log = 0.0;
    let step = |value: &f64| {
        log += (seen.stake(mean, side, truncation) * (value - mean)).ln_1p();
        seen.add(*value);
        log
    };
    values.iter().map(step).collect()
}

/// Distance of the null mean from the ends of the range, where stakes are unbounded.
const EDGE: f64 = 1e-9;

/// Contrasts in a known range, in betting order.
#[derive(Debug, Clone)]
pub struct Bets {
    values: Vec<f64>,
    /// Weight of each value as a share of the largest.
    shares: Vec<f64>,
    low: f64,
    high: f64,
}

impl Bets {
    /// Wraps contrasts within `low..=high`, in their order.
    #[must_use]
    pub fn new(contrasts: &[f64], low: f64, high: f64) -> Self {
        let units: Vec<UnitMean> =
            contrasts.iter().map(|contrast| UnitMean { mean: *contrast, weight: 1.0 }).collect();
        Self::of_units(&units, low, high)
    }

    /// Wraps units of unequal weight, in their order. A unit bets the share of its weight in the largest: with x its
    /// value and m the null mean, m + share (x - m) is in the range too, and its mean is m where the weighted mean of
    /// x is.
    #[must_use]
    pub fn of_units(units: &[UnitMean], low: f64, high: f64) -> Self {
        let heaviest = units.iter().map(|unit| unit.weight).fold(0.0, f64::max);
        let value = |unit: &UnitMean| ((unit.mean - low) / (high - low)).clamp(0.0, 1.0);
        let share = |unit: &UnitMean| if heaviest > 0.0 { unit.weight / heaviest } else { 0.0 };
        Self {
            values: units.iter().map(value).collect(),
            shares: units.iter().map(share).collect(),
            low,
            high,
        }
    }

    /// Logarithm of the capital after each contrast, betting against "the mean is `null`".
    #[must_use]
    pub fn against(&self, null: f64, side: Side) -> Vec<f64> {
        let mean = ((null - self.low) / (self.high - self.low)).clamp(EDGE, 1.0 - EDGE);
        if self.shares.iter().all(|share| *share == 1.0) {
            return log_wealth(&self.values, mean, side, TRUNCATION);
        }
        let scaled: Vec<f64> = self
            .values
            .iter()
            .zip(&self.shares)
            .map(|(value, share)| mean + share * (value - mean))
            .collect();
        log_wealth(&scaled, mean, side, TRUNCATION)
    }

    /// P-value valid at any stopping time: 1 / the largest capital after all contrasts.
    #[must_use]
    pub fn p_value(&self, null: f64, side: Side) -> f64 {
        p_of(&self.against(null, side))
    }

    /// Bound that the mean is shown to exceed (`Above`) or to stay below (`Below`) at level `alpha`, at any stopping
    /// time; the end of the range if nothing is shown.
    #[must_use]
    pub fn bound(&self, alpha: f64, side: Side) -> f64 {
        let (mut shown, mut not_shown) = match side {
            Side::Above => (self.low, self.high),
            Side::Below => (self.high, self.low),
        };
        for _ in 0..40 {
            let middle = 0.5 * (shown + not_shown);
            if self.p_value(middle, side) <= alpha {
                shown = middle;
            } else {
                not_shown = middle;
            }
        }
        shown
    }
}

/// P-value of a sequence of log capitals.
#[must_use]
pub fn p_of(path: &[f64]) -> f64 {
    let most = path.iter().copied().fold(0.0, f64::max);
    (-most).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::variance::float;

    fn values() -> Vec<f64> {
        (0..60).map(|k| float((k * 37) % 101) / 100.0).collect()
    }

    #[test]
    fn agrees_with_confseq_on_the_same_stakes() {
        // confseq.betting_strategies.lambda_aKelly with betting_mart(trunc_scale=1/2), one-sided; see
        // tests/calibration/reference.py.
        let above = |mean| log_wealth(&values(), mean, Side::Above, 0.5);
        let below = |mean| log_wealth(&values(), mean, Side::Below, 0.5);
        let last = |path: Vec<f64>| *path.last().expect("sixty values");
        for (found, wanted) in [
            (last(above(0.3)), 10.924_800_241_626_205),
            (last(above(0.475)), -0.389_155_438_383_277_2),
            (last(below(0.3)), -0.064_526_680_582_485_84),
            (last(below(0.475)), -1.116_393_336_700_005_8),
            (last(below(0.8)), 20.888_038_960_388_332),
        ] {
            assert!((found / wanted - 1.0).abs() < 1e-9, "{found} {wanted}");
        }
        assert!(above(0.8).iter().all(|log| log.abs() < 1e-15), "nothing is staked against the evidence");
        let most = above(0.475).into_iter().fold(f64::NEG_INFINITY, f64::max);
        assert!((most / -0.048_540_818_699_994_05 - 1.0).abs() < 1e-9, "{most}");
    }

    #[test]
    fn a_flawless_candidate_is_shown_within_the_margin_some_cases_above_the_floor() {
        let p = |cases| Bets::new(&vec![0.0; cases], -1.0, 1.0).p_value(-0.05, Side::Above);
        assert!(p(58) > 0.05, "below the floor nothing is shown");
        assert!((p(100) - 0.027_913_787_139_752_2).abs() < 1e-9);
        assert!(p(100) <= 0.05 && p(80) > 0.05);
    }

    #[test]
    fn the_bound_is_where_the_test_turns() {
        let contrasts: Vec<f64> = (0..150).map(|k| if k % 9 == 0 { -0.5 } else { 0.1 }).collect();
        let bets = Bets::new(&contrasts, -1.0, 1.0);
        let low = bets.bound(0.05, Side::Above);
        assert!(bets.p_value(low, Side::Above) <= 0.05 && bets.p_value(low + 1e-3, Side::Above) > 0.05);
        let high = bets.bound(0.05, Side::Below);
        let middle = crate::stats::variance::mean(&contrasts);
        assert!(low < middle && middle < high, "{low} {middle} {high}");
    }

    #[test]
    fn capital_is_ever_large_no_more_often_than_promised() {
        // 4,000 fair games of 300 rounds at mean 0.9; at 5 % the 99.9 % limit is .0607.
        let key = crate::stats::stream::StreamKey::new(8, "games");
        let won = (0..4000_u64).filter(|number| {
            let mut stream = key.stream(*number);
            let values: Vec<f64> = (0..300).map(|_| f64::from(u8::from(stream.below(10) > 0))).collect();
            p_of(&log_wealth(&values, 0.9, Side::Above, TRUNCATION)) <= 0.05
        });
        let share = float(won.count()) / 4000.0;
        assert!(share <= 0.0607, "{share}");
    }
}
