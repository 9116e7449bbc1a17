//! Slices of the cases for a reader: those that the policy names, and those that a search found.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::format;
use crate::report::{escape, number, wording};
use crate::verdict::{Discovered, SliceResult, Verdict};

/// Slices of the search shown.
const FOUND_SHOWN: usize = 20;

/// The section.
#[derive(Debug, Serialize)]
pub(in crate::report) struct SlicesView {
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
    tone: &'static str,
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

/// Nothing where there are no slices.
pub(in crate::report) fn slices(verdict: &Verdict) -> Option<SlicesView> {
    let found = verdict.discovered.as_ref();
    (!verdict.slices.is_empty() || found.is_some()).then(|| SlicesView {
        named: verdict.slices.iter().map(named).collect(),
        found: found.map(|found| found_view(found, verdict)),
    })
}

fn criteria(criteria: &BTreeMap<String, String>) -> String {
    let each = criteria.iter().map(|(name, value)| escape::name(&format!("{name}={value}")));
    each.collect::<Vec<_>>().join(", ")
}

/// The colour and the words of a slice's state.
pub(in crate::report) fn state(slice: &SliceResult) -> (&'static str, &'static str) {
    if !slice.speaks {
        return (wording::OPEN, "too few cases to speak");
    }
    wording::metric_state(slice.state, slice.critical)
}

fn named(slice: &SliceResult) -> SliceView {
    let (tone, state) = state(slice);
    SliceView {
        name: escape::name(&slice.name),
        criteria: criteria(&slice.criteria),
        role: match (slice.required, slice.critical) {
            (true, true) => "required, may block",
            (true, false) => "required",
            (false, true) => "may block",
            (false, false) => "reported",
        },
        metric: escape::name(&slice.metric),
        cases: number::count(slice.cases),
        baseline: format::value(slice.unit, slice.baseline),
        candidate: format::value(slice.unit, slice.candidate),
        effect: format::effect(slice.unit, slice.effect),
        margin: format::effect(slice.unit, -slice.margin),
        p_block: number::p_value(slice.p_block_adjusted),
        tone,
        state,
    }
}

fn found_view(found: &Discovered, verdict: &Verdict) -> FoundView {
    let unit = verdict.metrics.iter().find(|metric| metric.name == found.metric).map(|metric| metric.unit);
    let effect = |value: f64| unit.map_or_else(|| format!("{value:+.3}"), |unit| format::effect(unit, value));
    let left = match found.left_out {
        0 => String::new(),
        left => format!(", {} left out as the smallest", number::count(left)),
    };
    let rows = found.slices.iter().take(FOUND_SHOWN).map(|slice| FoundRow {
        criteria: criteria(&slice.criteria),
        cases: number::count(slice.cases),
        effect: effect(slice.effect),
        elsewhere: effect(slice.effect_elsewhere),
        p: number::p_value(slice.p_adjusted),
    });
    FoundView {
        sentence: format!(
            "A search over {} for where {} got worse{left}, corrected for all of them by {} relabellings: {}. What it \
             finds is for review and never decides: add cases there.",
            number::counted(found.searched, "slice", "slices"),
            escape::name(&found.metric),
            number::count(found.relabellings),
            match found.slices.len() {
                0 => "none stands out".to_owned(),
                some => format!(
                    "{} out",
                    number::counted(crate::cast::to_u64(some), "slice stands", "slices stand")
                ),
            },
        ),
        rows: rows.collect(),
    }
}
