//! Sampling units: what is independent of what, and how much each case counts.
//!
//! A case is a unit of its own unless it belongs to a cluster: sessions of one user, trials of one task. The effect is
//! the weighted mean over the cases in any case. Clusters change what varies independently: the tests permute and sum
//! whole clusters, and the floor counts clusters.

mod block;
mod copies;
mod group;
mod plan;
mod timing;

pub(crate) use block::{Design, p_block, upper_bound};
pub(crate) use group::{CaseUnits, Unit};
pub(crate) use plan::SamplingUnits;
