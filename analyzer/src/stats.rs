//! Statistics of the decision: pure functions of numbers, reduced in a fixed order.
//!
//! This module knows no trials, metrics or policies.

pub mod betting;
pub mod corrected;
pub mod discovery;
pub mod gaffke;
pub mod holm;
pub mod interval;
pub mod kernel;
pub mod labels;
pub mod normal;
pub mod pairwise;
pub mod permutation;
pub mod ratings;
pub mod saddlepoint;
pub(crate) mod session_rates;
pub mod spending;
pub mod stream;
pub mod student;
pub mod variance;
