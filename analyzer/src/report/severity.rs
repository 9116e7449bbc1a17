//! Severity of a row: it chooses colour and symbol. The symbol differs too, so colour alone carries nothing.

use serde::Serialize;

/// How much a row asks for attention; the names are also the CSS classes of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// Speaks for the candidate.
    Good,
    /// Harm: blocks, or would block.
    Bad,
    /// Needs a review, and does not block.
    Warning,
    /// Undecided or not measured.
    Neutral,
}
