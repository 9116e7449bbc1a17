//! Everything that the decision rule considers.

use super::context::MeanTestsDisabled;
use crate::decide::Tested;
use crate::fidelity::FidelityCheck;
use crate::invariants::Checked;
use crate::metrics::Measurement;
use crate::pairs::Pairs;
use crate::policy::Policy;
use crate::verdict::{Decision, Drift};

/// Everything that the rule looks at.
pub(super) struct Evidence<'a> {
    pub(super) policy: &'a Policy,
    pub(super) pairs: &'a Pairs<'a>,
    pub(super) checked: &'a Checked,
    pub(super) measurement: &'a Measurement,
    pub(super) tested: &'a [Tested],
    pub(super) intervals: &'a [[f64; 2]],
    pub(super) fidelity: &'a FidelityCheck,
    /// Whether the answers changed, where that could be tested.
    pub(super) drift: Option<&'a Drift>,
    /// Why means say nothing of these runs, where they do not.
    pub(super) mean_tests_disabled: Option<MeanTestsDisabled>,
    /// The answers of the metrics where missing trials count against the candidate, and for it.
    pub(super) bounds: Option<(Decision, Decision)>,
}
