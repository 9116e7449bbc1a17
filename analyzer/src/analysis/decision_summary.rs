//! A decision in numbers, without explanations; calibration decides many times.

use super::context::AnalysisContext;
use super::request::AnalysisRequest;
use super::{interim, reasons, secondary};
use crate::decide::Tested;
use crate::metrics::{CaseTable, Measured};
use crate::pairs::Pairs;
use crate::stats::variance::variance;
use crate::verdict::{Decision, Unit};

/// A decision in numbers, without explanations.
pub(crate) struct DecisionSummary {
    pub(crate) answer: Decision,
    /// Whether an invariant was violated.
    pub(crate) violated: bool,
    /// Share of the cases that had been looked at when the decision was made.
    pub(crate) share_used: f64,
    pub(crate) metrics: Vec<MetricDecisionSummary>,
}

/// Summary of a metric.
pub(crate) struct MetricDecisionSummary {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) decides: bool,
    pub(crate) required: bool,
    pub(crate) cases: usize,
    pub(crate) low: f64,
    pub(crate) margin: f64,
    /// Variance of the contrasts.
    pub(crate) variance: f64,
    /// Contrast of each case, by index of the case.
    pub(crate) contrasts: Vec<(usize, f64)>,
    /// Mean contrast.
    pub(crate) effect: f64,
    /// P-value of the block test, uncorrected.
    pub(crate) p_block: f64,
    /// Whether the corrected block test rejected.
    pub(crate) alarm: bool,
}

/// Decides on any pairs; mean tests apply whatever the lane of the run.
pub(crate) fn decide_pairs(request: AnalysisRequest<'_>, pairs: Pairs<'_>) -> DecisionSummary {
    let context = AnalysisContext::new(request, pairs, None);
    let look = interim::look(&context);
    let metric = |(metric, test): (&Measured, &Tested)| {
        let contrasts: Vec<f64> = metric.observed.iter().map(CaseTable::observed).collect();
        MetricDecisionSummary {
            name: metric.name.clone(),
            unit: metric.unit,
            decides: metric.decides,
            required: metric.required,
            cases: test.cases,
            low: metric.low,
            margin: metric.margin,
            variance: variance(&contrasts),
            contrasts: metric.observed.iter().map(|table| (table.place, table.observed())).collect(),
            effect: test.effect,
            p_block: test.p_block,
            alarm: test.p_block_adjusted.unwrap_or(test.p_block) <= request.policy.alpha,
        }
    };
    DecisionSummary {
        answer: reasons::answer(&look.evidence(&context)),
        violated: context.is_violated(),
        share_used: look.look_history.as_ref().map_or(1.0, |history| {
            crate::cast::to_f64(history.cases) / crate::cast::to_f64(history.planned_cases.max(1))
        }),
        metrics: secondary::tested(&look).map(metric).collect(),
    }
}
