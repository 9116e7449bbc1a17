//! The wall clock as an argument: the caller brings it, nothing here reads the system's.

/// Says what time it is, in microseconds since 1970, UTC.
#[derive(Clone, Copy)]
pub struct Clock(fn() -> i64);

impl Clock {
    /// Takes the function that reads the clock.
    #[must_use]
    pub fn new(now_micros: fn() -> i64) -> Self {
        Self(now_micros)
    }

    /// Now, in microseconds since 1970, UTC.
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
