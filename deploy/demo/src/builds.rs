//! The three builds of the demo's agent; the demo writes them out as files that a user can change.

/// The build in production.
pub(crate) const CURRENT: &str = include_str!("builds/current.toml");
/// A harmless change; the correct verdict is approve.
pub(crate) const HARMLESS: &str = include_str!("builds/harmless.toml");
/// A regressed change; the correct verdict is block.
pub(crate) const REGRESSED: &str = include_str!("builds/regressed.toml");
