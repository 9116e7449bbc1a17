//! The standard normal distribution.
//!
//! The error function is by the rational approximations of Cephes (Moshier 1989), to twelve digits also in the far tail,
//! where those of the statistics crate have ten.

use statrs::function::erf::erfc_inv;

/// Probability of a value at most `x`.
#[must_use]
pub fn cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// The value below which a share `p` lies; `p` strictly between 0 and 1.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    let first = -std::f64::consts::SQRT_2 * erfc_inv(2.0 * p);
    // One Newton step takes the series' last digits.
    let density = (-0.5 * first * first).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if density > 1e-300 { first - (cdf(first) - p) / density } else { first }
}

/// Coefficients of the approximations, the highest power first: numerator and denominator for arguments up to 1, up to 8,
/// and beyond.
const UP_TO_1: ([f64; 5], [f64; 6]) = (
    [
        9.604_973_739_870_516,
        90.026_019_720_384_27,
        2_232.005_345_946_843,
        7_003.325_141_128_051,
        55_592.301_301_039_49,
    ],
    [
        1.0,
        33.561_714_164_750_31,
        521.357_949_780_152_7,
        4_594.323_829_709_801,
        22_629.000_061_389_095,
        49_267.394_260_863_59,
    ],
);
const UP_TO_8: ([f64; 9], [f64; 9]) = (
    [
        2.461_969_814_735_305e-10,
        0.564_189_564_831_068_8,
        7.463_210_564_422_699,
        48.637_197_098_568_14,
        196.520_832_956_077_1,
        526.445_194_995_477_4,
        934.528_527_171_957_6,
        1_027.551_886_895_157_1,
        557.535_335_369_399_3,
    ],
    [
        1.0,
        13.228_195_115_474_499,
        86.707_214_088_598_97,
        354.937_778_887_819_9,
        975.708_501_743_205_5,
        1_823.909_166_879_097_4,
        2_246.337_608_187_109_8,
        1_656.663_091_941_613_5,
        557.535_340_817_727_7,
    ],
);
const BEYOND: ([f64; 6], [f64; 7]) = (
    [
        0.564_189_583_547_755_1,
        1.275_366_707_599_781,
        5.019_050_422_511_805,
        6.160_210_979_930_536,
        7.409_742_699_504_489,
        2.978_866_653_721_002_4,
    ],
    [
        1.0,
        2.260_528_632_201_173,
        9.396_035_249_380_015,
        12.048_953_980_809_666,
        17.081_445_074_756_59,
        9.608_968_090_632_86,
        3.369_076_451_000_815,
    ],
);

/// The complement of the error function.
fn erfc(x: f64) -> f64 {
    let size = x.abs();
    if size < 1.0 {
        return 1.0 - x * ratio(x * x, &UP_TO_1.0, &UP_TO_1.1);
    }
    let part =
        if size < 8.0 { ratio(size, &UP_TO_8.0, &UP_TO_8.1) } else { ratio(size, &BEYOND.0, &BEYOND.1) };
    let tail = (-x * x).exp() * part;
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// A ratio of polynomials at `x`.
fn ratio(x: f64, above: &[f64], below: &[f64]) -> f64 {
    let at = |terms: &[f64]| terms.iter().fold(0.0, |sum, term| sum * x + term);
    at(above) / at(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_scipy() {
        // scipy.stats.norm.cdf and .ppf, see tests/calibration/reference.py.
        for (x, p) in [
            (-5.0, 2.866_515_718_791_933e-7),
            (-1.5, 0.066_807_201_268_858_07),
            (0.3, 0.617_911_422_188_952_7),
            (-8.5, 9.479_534_822_203_25e-18),
            (-1.0, 0.158_655_253_931_457_07),
            (2.2, 0.986_096_552_486_501_4),
        ] {
            assert!((cdf(x) / p - 1.0).abs() < 1e-12, "cdf({x})");
            assert!((quantile(p) / x - 1.0).abs() < 1e-8, "quantile({p})");
        }
        assert!((cdf(-20.0) / 2.753_624_118_606_155_6e-89 - 1.0).abs() < 1e-12);
        assert!((quantile(0.95) / 1.644_853_626_951_472_2 - 1.0).abs() < 1e-10);
    }
}
