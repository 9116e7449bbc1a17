//! Conversions between integer counts and floating point numbers.

/// Rounds a number to a count. NaN and negative numbers become 0; the result is at most `u32::MAX`.
pub(crate) fn round(number: f64) -> u64 {
    let bounded = number.round().clamp(0.0, f64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number within 32 bits, and what is no number becomes 0"
    )]
    let whole = bounded as u64;
    whole
}

/// Converts a length to a 64 bit count.
pub(crate) fn to_u64(length: usize) -> u64 {
    length as u64
}

/// Converts a count to a floating point number, exact up to `u32::MAX`.
pub(crate) fn to_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
