//! Declared invariants: one confirmed violation by the candidate blocks, without statistics.
//!
//! Only invariants that the policy or the envelope declares are checked here. An invariant that the baseline breaks too is
//! compared as a rate instead. The analyzer never invents an invariant.

mod calls;
mod check;
mod declared;
mod envelope_check;
mod evaluate;
mod forbidden;
mod hiding;
mod mutants;
mod mutation_check;
mod precedence;
mod redacted;
mod sample;
#[cfg(test)]
mod tests;

pub(crate) use check::{Check, InvariantViolation};
pub(crate) use declared::{Invariant, broken_share, keeps_all};
pub(crate) use evaluate::{CaveatKind, Checked, check, envelope_name};
pub(crate) use hiding::Hider;
