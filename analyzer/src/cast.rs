//! Counts between the integers of rows and the floating point of statistics.

/// A non-negative number as a count, rounded; 0 for what is no number, the largest 32 bit number at most.
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

/// A length as a 64 bit count.
pub(crate) fn to_u64(length: usize) -> u64 {
    length as u64
}

/// A count as a floating point number.
pub(crate) fn to_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
