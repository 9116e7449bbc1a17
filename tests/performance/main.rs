//! Measurements behind the published figures: sizes, rates and lookups on generated gateway traffic.
//!
//! `tests/performance/run` runs all of them and prints a table. The tests that run without it use little traffic: they check
//! that the measurements work and that every body is stored byte for byte, and assert no time.

mod exact;
mod lookup;
mod path;
mod recording;
mod report;
mod sizes;
mod watch;
