//! The wall clock as an argument: the caller supplies it, so that tests fix the time.

/// A wall clock, in microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy)]
pub struct Clock(fn() -> i64);

impl Clock {
    /// Wraps a function that returns microseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn new(now_micros: fn() -> i64) -> Self {
        Self(now_micros)
    }

    /// The time now, in microseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn now_micros(self) -> i64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}
