//! The one place where the wall clock is read.

/// Now, in microseconds since 1970, UTC.
pub(crate) fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
