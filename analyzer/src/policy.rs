//! The policy: what may block, what approval needs, how much worse is tolerated; from `policy.toml`, every key optional.
//!
//! It knows nothing of data: a margin is what the business tolerates and is fixed before a candidate is seen.

mod error;
mod invariants;
mod judge;
mod keys;
mod metrics;
mod model;
mod parse;
#[cfg(test)]
mod reference;
mod sampling;

pub use error::{PolicyError, PolicyErrorKind};
pub use invariants::{
    DeclaredEnvelope, Forbidden, INVARIANTS, Idempotency, InvariantPolicy, MonotonicEffects, OrderRule,
    TokenKey,
};
pub use judge::JudgePolicy;
pub use keys::{KeyType, POLICY_KEYS, PolicyKey};
pub(crate) use metrics::{DEFAULT_K, DISPERSION_RANGE, RATIO_RANGE_LN};
pub use metrics::{DEMOTED_MARGIN, METRICS, Margin, MetricSettings, MetricSpec};
pub use model::{
    DEFAULT_ALPHA, DEFAULT_LEAST_BASELINE_SUCCESS, DEFAULT_MAX_MISSED, DriftPolicy, FidelityPolicy,
    NeedPolicy, Policy, SlicePolicy,
};
pub use sampling::{ClusterKey, RunsApart, SamplingPolicy, TrafficPolicy};
