//! Timestamps of benchmark files.

/// Parses an RFC 3339 timestamp, without a zone as UTC; returns microseconds since 1970.
pub(super) fn parse(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_microsecond());
    }
    let civil: jiff::civil::DateTime = text.parse().ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_with_and_without_a_zone_are_parsed() {
        assert_eq!(parse("1970-01-01T00:00:01.5"), Some(1_500_000));
        assert_eq!(parse("1970-01-01T01:00:01+01:00"), Some(1_000_000));
        assert_eq!(parse("yesterday"), None);
    }
}
