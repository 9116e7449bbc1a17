//! Slices of the cases: those named in the policy, and those found by the subgroup search.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cast;
use crate::format;
use crate::report::severity::Severity;
use crate::report::{escape, number, wording};
use crate::verdict::{SliceResult, SubgroupSearch, Verdict};

/// Slices of the search listed.
const FOUND_LISTED: usize = 20;

#[derive(Debug, Serialize)]
pub(in crate::report) struct SlicesSection {
    named: Vec<SliceView>,
    found: Option<FoundView>,
}

#[derive(Debug, Serialize)]
struct SliceView {
    name: String,
    criteria: String,
    role: &'static str,
    metric: String,
    cases: String,
    baseline: String,
    candidate: String,
    effect: String,
    margin: String,
    p_block: String,
    severity: Severity,
    state: &'static str,
}

#[derive(Debug, Serialize)]
struct FoundView {
    sentence: String,
    rows: Vec<FoundRow>,
}

#[derive(Debug, Serialize)]
struct FoundRow {
    criteria: String,
    cases: String,
    effect: String,
    elsewhere: String,
    p: String,
}

/// `None` without named or found slices.
pub(in crate::report) fn slices(verdict: &Verdict) -> Option<SlicesSection> {
    let found = verdict.review.subgroup_search.as_ref();
    (!verdict.slices.is_empty() || found.is_some()).then(|| SlicesSection {
        named: verdict.slices.iter().map(named).collect(),
        found: found.map(|found| found_view(found, verdict)),
    })
}

fn criteria(criteria: &BTreeMap<String, String>) -> String {
    let each = criteria.iter().map(|(name, value)| escape::name(&format!("{name}={value}")));
    each.collect::<Vec<_>>().join(", ")
}

/// Severity and label of a slice's state.
pub(in crate::report) fn state(slice: &SliceResult) -> (Severity, &'static str) {
    if !slice.has_enough_cases {
        return (Severity::Neutral, "too few cases");
    }
    wording::metric_state(slice.state, slice.critical)
}

fn named(slice: &SliceResult) -> SliceView {
    let (severity, state) = state(slice);
    SliceView {
        name: escape::name(&slice.name),
        criteria: criteria(&slice.criteria),
        role: wording::decision_role(slice.required, slice.critical),
        metric: escape::name(&slice.metric),
        cases: number::count(slice.cases),
        baseline: format::value(slice.unit, slice.baseline),
        candidate: format::value(slice.unit, slice.candidate),
        effect: format::effect(slice.unit, slice.effect),
        margin: format::effect(slice.unit, -slice.margin),
        p_block: number::p_value(slice.p_block_adjusted),
        severity,
        state,
    }
}

fn found_view(found: &SubgroupSearch, verdict: &Verdict) -> FoundView {
    let unit = verdict.metrics.iter().find(|metric| metric.name == found.metric).map(|metric| metric.unit);
    let effect = |value: f64| unit.map_or_else(|| format!("{value:+.3}"), |unit| format::effect(unit, value));
    let left_out = match found.left_out {
        0 => String::new(),
        left_out => format!(" ({} left out)", number::counted(left_out, "smaller slice", "smaller slices")),
    };
    let rows = found.slices.iter().take(FOUND_LISTED).map(|slice| FoundRow {
        criteria: criteria(&slice.criteria),
        cases: number::count(slice.cases),
        effect: effect(slice.effect),
        elsewhere: effect(slice.effect_elsewhere),
        p: number::p_value(slice.p_adjusted),
    });
    let result = match found.slices.len() {
        0 => "no slice stands out".to_owned(),
        some => number::counted(cast::to_u64(some), "slice stands out", "slices stand out"),
    };
    FoundView {
        sentence: format!(
            "The search tested {}{left_out} for a loss of {} and found: {result}. Its p values are corrected for the \
             whole search ({} permutations). A found slice never decides: record more of its sessions, and name it in \
             the policy to let it decide next time.",
            number::counted(found.searched, "slice", "slices"),
            escape::name(&found.metric),
            number::count(found.permutations),
        ),
        rows: rows.collect(),
    }
}
