//! Counts between the integers of rows and the floating point of statistics.

/// A non-negative number as a count, rounded; 0 for what is no number, the largest 32 bit number at most.
pub(crate) fn whole(number: f64) -> u64 {
    if number.is_nan() {
        return 0;
    }
    // Bounded first, so the text below always parses; a cast would silently truncate.
    let bounded = number.round().clamp(0.0, f64::from(u32::MAX));
    format!("{bounded:.0}").parse().unwrap_or(0)
}

/// A length as a 64 bit count.
pub(crate) fn of(length: usize) -> u64 {
    length as u64
}

/// A count as a floating point number.
pub(crate) fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
