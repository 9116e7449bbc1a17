//! The figures of the README, measured: sizes, rates and look-ups on generated gateway traffic.
//!
//! `tests/performance/run` runs everything and prints a table. What runs among the tests proves with a little traffic that
//! the measurements work and that what they rest on holds (every body comes back byte for byte); it asserts no time.

mod exact;
mod look_up;
mod path;
mod report;
mod sizes;
mod stage;
mod watch;
