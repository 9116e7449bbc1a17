//! Exact decimal numbers, so that ten times 0.1 is 1.

use std::fmt;

/// Digits after the decimal point.
const FRACTION_DIGITS: usize = 12;

/// Digits before the decimal point.
const MAX_WHOLE_DIGITS: usize = 24;

/// A decimal number with an absolute value below 10^24, in units of 10^-12.
///
/// Smaller digits are rounded away from zero, so that a limit is never exceeded unnoticed. Own code, because the sums of a limit
/// must be exact: `rust_decimal` has 96 bits, which do not hold 24 digits before and 12 after the point, and rounds a sum
/// that does not fit instead of refusing it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(i128);

impl Decimal {
    /// Converts a JSON number; `None` if it is too large.
    #[must_use]
    pub fn of(number: &serde_json::Number) -> Option<Self> {
        Self::parse(&number.to_string())
    }

    /// Parses a number such as `-12.5e3`; `None` if the text is not a number or the number is too large.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = [whole, fraction].concat();
        if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits_trimmed = digits.trim_start_matches('0');
        // Position of the decimal point, counted from the first digit that is not zero.
        let leading = i64::try_from(digits.len() - digits_trimmed.len()).ok()?;
        let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) - leading;
        let size = unsigned(digits_trimmed, point)?;
        Some(Self(if negative { -size } else { size }))
    }

    /// The sum; `None` if it is too large.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` if it is too large.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Whether the number is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// The number with these digits and the decimal point after `point` of them, in units.
fn unsigned(digits: &str, point: i64) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    if point > i64::try_from(MAX_WHOLE_DIGITS).ok()? {
        return None;
    }
    // Digits that are kept; the rest only rounds.
    let kept = point + i64::try_from(FRACTION_DIGITS).ok()?;
    if kept <= 0 {
        return Some(1);
    }
    let kept = usize::try_from(kept).ok()?;
    let (counted, rest) = digits.split_at(kept.min(digits.len()));
    let mut size: i128 = counted.parse().ok()?;
    for _ in counted.len()..kept {
        size = size.checked_mul(10)?;
    }
    if rest.bytes().any(|byte| byte != b'0') {
        size += 1;
    }
    Some(size)
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:0width$}", self.0.unsigned_abs(), width = FRACTION_DIGITS + 1);
        let (whole, fraction) = digits.split_at(digits.len() - FRACTION_DIGITS);
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.0 < 0 { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        write!(formatter, "{sign}{whole}{point}{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).expect("a number")
    }

    #[test]
    fn sums_are_exact() {
        let tenth = decimal("0.1");
        let sum = (0..10).try_fold(Decimal::default(), |sum, _| sum.plus(tenth));
        assert_eq!(sum, Some(decimal("1")));
        assert_eq!(decimal("1e3"), decimal("1000.000"));
        assert_eq!(decimal("-12.5e-1"), decimal("-1.25"));
        assert_eq!(decimal("0"), decimal("-0.0"));
        assert_eq!(decimal("0.0000000000001"), decimal("0.000000000001"), "rounded away from zero");
    }

    #[test]
    fn other_text_and_large_numbers_are_none() {
        for text in ["", "-", ".5", "1e", "abc", "1.2.3", "1e300", "1e99999999999", "0x10", "NaN", "inf"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        assert!(Decimal::parse("1e-300").is_some_and(|tiny| tiny > Decimal::default()));
        assert!(Decimal::parse("999999999999999999999999").is_some());
    }

    proptest! {
        #[test]
        fn integers_and_shortest_floats_keep_their_value(integer: i64, cents in -1_000_000_000i64..1_000_000_000) {
            prop_assert_eq!(decimal(&integer.to_string()).to_string(), integer.to_string());
            let number = serde_json::Number::from_f64(f64::from(i32::try_from(cents).expect("fits")) / 100.0);
            let number = Decimal::of(&number.expect("finite")).expect("small");
            let sum = (0..100).try_fold(Decimal::default(), |sum, _| sum.plus(number));
            prop_assert_eq!(sum.map(|sum| sum.to_string()), Some(cents.to_string()));
        }

        #[test]
        fn the_order_is_numeric(a in -1e15f64..1e15, b in -1e15f64..1e15) {
            let of = |float: f64| Decimal::of(&serde_json::Number::from_f64(float).expect("finite")).expect("small");
            if (a - b).abs() > 1e-9 {
                prop_assert_eq!(of(a) < of(b), a < b);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Decimal::parse(&text);
        }
    }
}
