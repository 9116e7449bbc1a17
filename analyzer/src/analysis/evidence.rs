//! Everything that the decision rule considers.

use super::context::MeanTestsDisabled;
use crate::decide::Tested;
use crate::fidelity::FidelityCheck;
use crate::invariants::Checked;
use crate::metrics::Measurement;
use crate::pairs::Pairs;
use crate::policy::Policy;
use crate::units::{CaseUnits, SamplingUnits};
use crate::verdict::{Decision, Drift, PairCounts};

/// Evidence of one look.
pub(super) struct Evidence<'a> {
    pub(super) policy: &'a Policy,
    pub(super) pairs: &'a Pairs<'a>,
    /// Sampling units and weights of all cases.
    pub(super) units: &'a SamplingUnits<'a>,
    pub(super) counts: PairCounts,
    /// Sampling units and weights of the cases of this look.
    pub(super) case_units: &'a CaseUnits,
    pub(super) checked: &'a Checked,
    pub(super) measurement: &'a Measurement,
    pub(super) tested: &'a [Tested],
    pub(super) intervals: &'a [[f64; 2]],
    pub(super) fidelity: &'a FidelityCheck,
    /// Lanes of which the infrastructure failed too many trials, in words.
    pub(super) infrastructure: &'a [String],
    /// Drift test, if it was possible.
    pub(super) drift: Option<&'a Drift>,
    /// Reason why mean tests do not apply to these runs, if they do not.
    pub(super) mean_tests_disabled: Option<MeanTestsDisabled>,
    /// Decisions over the metrics with missing trials counted against the candidate, and for it.
    pub(super) bounds: Option<(Decision, Decision)>,
}
