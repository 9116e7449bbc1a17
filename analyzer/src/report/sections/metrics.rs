//! Metrics with their tests.

use serde::Serialize;

use crate::format;
use crate::report::severity::Severity;
use crate::report::{escape, number, wording};
use crate::verdict::{ExchangeabilityResult, MetricResult, Verdict};

#[derive(Debug, Serialize)]
pub(in crate::report) struct MetricsSection {
    alpha: String,
    /// Whether any metric has a margin, and so an interval to draw.
    has_intervals: bool,
    rows: Vec<MetricRow>,
    /// Candidate against recording: description, cases, p, adjusted p.
    recording_tests: Vec<[String; 4]>,
    /// Metrics that could not be computed: name and reason.
    not_computed: Vec<[String; 2]>,
}

#[derive(Debug, Serialize)]
struct MetricRow {
    name: String,
    meaning: &'static str,
    role: &'static str,
    /// Whether it may block or is required.
    decides: bool,
    state: &'static str,
    severity: Severity,
    baseline: String,
    candidate: String,
    effect: String,
    interval: String,
    margin: String,
    p_block: String,
    /// Empty for a metric that may not block.
    p_block_adjusted: String,
    p_approve: String,
    cases: String,
    /// The fewest cases with which the margin can be proven.
    floor: String,
    /// Cases whose contrast was clipped to the metric's range.
    clipped: u64,
}

pub(in crate::report) fn metrics(verdict: &Verdict) -> MetricsSection {
    MetricsSection {
        alpha: verdict.monitoring.alpha.to_string(),
        has_intervals: verdict.metrics.iter().any(|metric| metric.margin > 0.0),
        rows: verdict.metrics.iter().map(row).collect(),
        recording_tests: verdict.review.exchangeability.iter().map(recording_test).collect(),
        not_computed: (verdict.absent.iter())
            .map(|absent| [escape::name(&absent.name), escape::visible(&absent.reason)])
            .collect(),
    }
}

fn row(metric: &MetricResult) -> MetricRow {
    let (severity, state) = wording::metric(metric);
    MetricRow {
        name: escape::name(&metric.name),
        meaning: wording::meaning(&metric.name),
        role: wording::role(metric),
        decides: metric.decides || metric.required,
        state,
        severity,
        baseline: format::value(metric.unit, metric.baseline),
        candidate: format::value(metric.unit, metric.candidate),
        effect: format::effect(metric.unit, metric.effect),
        interval: wording::interval(metric),
        margin: wording::margin(metric),
        p_block: number::p_value(metric.p_block),
        p_block_adjusted: metric.p_block_adjusted.map(number::p_value).unwrap_or_default(),
        p_approve: number::p_value(metric.p_approve),
        cases: number::count(metric.cases),
        floor: number::count(metric.floor),
        clipped: metric.clipped,
    }
}

fn recording_test(test: &ExchangeabilityResult) -> [String; 4] {
    [
        escape::name(&test.name),
        number::count(test.cases),
        number::p_value(test.p),
        number::p_value(test.p_adjusted),
    ]
}
