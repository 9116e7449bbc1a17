//! Exact decimal numbers, so that ten times 0.1 is 1 and a cap of 1 is kept.

use std::fmt;

/// Digits kept behind the point.
const PLACES: usize = 12;

/// Digits before the point.
const MAX_WHOLE_DIGITS: usize = 24;

/// A decimal number below 10^24 in size, in units of 10^-12.
///
/// Digits further behind the point are rounded away from zero: a cap errs on the side of the cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal(i128);

impl Decimal {
    /// The number as JSON spells it; `None` where it is too large to be counted with.
    #[must_use]
    pub fn of(number: &serde_json::Number) -> Option<Self> {
        Self::parse(&number.to_string())
    }

    /// Parses `-12.5e3`; `None` where that is no number or too large a one.
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
        // Where the point stands, counted from the first digit that is not zero.
        let leading = i64::try_from(digits.len() - digits_trimmed.len()).ok()?;
        let point = i64::try_from(whole.len()).ok()? + i64::from(exponent) - leading;
        let size = unsigned(digits_trimmed, point)?;
        Some(Self(if negative { -size } else { size }))
    }

    /// The sum; `None` where it is too large.
    #[must_use]
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference; `None` where it is too large.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// Whether it is under zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// The digits with the point at a place, in units.
fn unsigned(digits: &str, point: i64) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    if point > i64::try_from(MAX_WHOLE_DIGITS).ok()? {
        return None;
    }
    // How many digits count; those behind them only round.
    let kept = point + i64::try_from(PLACES).ok()?;
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
        let digits = format!("{:0width$}", self.0.unsigned_abs(), width = PLACES + 1);
        let (whole, fraction) = digits.split_at(digits.len() - PLACES);
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
    fn what_is_no_number_or_too_large_is_none() {
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
        fn order_is_that_of_the_numbers(a in -1e15f64..1e15, b in -1e15f64..1e15) {
            let of = |float: f64| Decimal::of(&serde_json::Number::from_f64(float).expect("finite")).expect("small");
            if (a - b).abs() > 1e-9 {
                prop_assert_eq!(of(a) < of(b), a < b);
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,40}") {
            let _ = Decimal::parse(&text);
        }
    }
}
