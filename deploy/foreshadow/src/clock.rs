//! The wall clock; every crate receives it as an argument.

/// Now, in microseconds since 1970, UTC.
pub(crate) fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
