//! The three versions of the demo's agent, as files that a user can read and change.

/// What serves customers today.
pub(crate) const CURRENT: &str = include_str!("builds/current.toml");
/// A change that must be approved.
pub(crate) const HARMLESS: &str = include_str!("builds/harmless.toml");
/// A change that must be blocked.
pub(crate) const REGRESSED: &str = include_str!("builds/regressed.toml");
