//! Activation functions and normalisation of the transformer, without branches and calls so that the compiler can
//! vectorise them. Sums run over fixed lanes, so the bits are the same on every processor.

use crate::matrix::PANEL;

/// Adding and subtracting this constant rounds a number to an integer: at 1.5 * 2^23 an f32 has no fraction bits.
const ROUNDER: f32 = 12_582_912.0;

/// e^x with an error of at most 2 units in the last place. Clamps x to -87..=88, where the result is finite and normal.
///
/// Method of `expf` in Cephes: 2^n e^r with integer n and |r| at most half of ln 2.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const TERMS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let whole = shifted - ROUNDER;
    let rest = whole.mul_add(-LN_2_LOW, whole.mul_add(-LN_2_HIGH, x));
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = sum.mul_add(rest, *term);
    }
    let fraction = sum.mul_add(rest * rest, rest) + 1.0;
    // The low bits of `shifted` are n. Shifted left by 23 they are an exponent.
    fraction * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// GELU: x times the standard normal distribution function at x, with an error of at most 3e-7 |x|.
///
/// Error function by Abramowitz and Stegun 7.1.26.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    const STEP: f32 = 0.327_591_1;
    const TERMS: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(STEP, 1.0);
    let mut sum = TERMS[0];
    for term in &TERMS[1..] {
        sum = sum.mul_add(t, *term);
    }
    let upper_tail = 0.5 * sum * t * exp(-z * z);
    if x > 0.0 { x - x * upper_tail } else { x * upper_tail }
}

/// Sum of the lanes, by pairwise halving.
#[inline(always)]
pub(crate) fn sum_of_lanes(lanes: [f32; PANEL]) -> f32 {
    reduced(lanes, |a, b| a + b)
}

/// Maximum of the lanes.
#[inline(always)]
pub(crate) fn max_of_lanes(lanes: [f32; PANEL]) -> f32 {
    reduced(lanes, max)
}

/// Maximum of two numbers, neither NaN; `f32::max` costs an extra comparison for NaN.
#[inline(always)]
pub(crate) fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn reduced(mut lanes: [f32; PANEL], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = PANEL / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Layer normalisation: mean 0 and variance 1 (with epsilon 1e-12, as in training), then times weight plus bias.
#[inline(always)]
pub(crate) fn layer_norm<const N: usize>(row: &mut [f32; N], weight: &[f32; N], bias: &[f32; N]) {
    #[expect(clippy::cast_precision_loss, reason = "a row has a few hundred numbers")]
    let count = N as f32;
    let mut lanes = [0.0; PANEL];
    for chunk in row.as_chunks::<PANEL>().0 {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let mean = sum_of_lanes(lanes) / count;
    let mut lanes = [0.0; PANEL];
    for chunk in row.as_chunks::<PANEL>().0 {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = (x - mean).mul_add(x - mean, *lane);
        }
    }
    let scale = 1.0 / (sum_of_lanes(lanes) / count + 1e-12).sqrt();
    for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *x = ((*x - mean) * scale).mul_add(*weight, *bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for step in -8_700..8_800_i16 {
            let x = f32::from(step) / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 2.5e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY).is_finite());
    }

    #[test]
    fn gelu_agrees_with_the_error_function() {
        for step in -12_000..12_000_i16 {
            let x = f32::from(step) / 1000.0;
            let expected =
                0.5 * f64::from(x) * (1.0 + statrs::function::erf::erf(f64::from(x) / 2.0_f64.sqrt()));
            let error = (f64::from(gelu(x)) - expected).abs();
            assert!(error <= 3e-7 * f64::from(x.abs()).max(1.0), "gelu({x}) is off by {error}");
        }
    }

    #[test]
    fn a_normalised_row_has_mean_0_and_variance_1() {
        let mut row: [f32; 384] =
            std::array::from_fn(|place| f32::from(u8::try_from(place % 251).expect("below 251")));
        layer_norm(&mut row, &[2.0; 384], &[5.0; 384]);
        let mean = row.iter().sum::<f32>() / 384.0;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / 384.0;
        assert!((mean - 5.0).abs() < 1e-5 && (variance - 4.0).abs() < 1e-4, "{mean} {variance}");
    }
}
