//! Sequence metrics: drift and dispersion of the order of tool calls.
//!
//! A trial is the normalised count of its 1-, 2- and 3-grams of (tool, argument names), a spectrum kernel; argument
//! values do not enter. Drift is evidence of change and not of harm, so it does not decide by default.

use std::collections::BTreeMap;

use crate::metrics::dispersion::{self, Form};
use crate::metrics::measured::spec;
use crate::metrics::{Measurement, Setting};
use crate::run::{ToolCall, TrialRecord};
use crate::verdict::Unit;

/// Longest n-gram counted.
const LONGEST_GRAM: usize = 3;

/// N-grams of a trial by hash, as a vector of length 1.
pub(crate) type Spectrum = Vec<(u64, f64)>;

/// Measures the family.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    let any = setting.pairs.trials().any(|record| !record.calls.is_empty());
    for (name, form) in [("sequence.drift", Form::Drift), ("sequence.dispersion", Form::Dispersion)] {
        let measured = if any {
            let start = setting.start(spec(name), Unit::Distance);
            dispersion::measure(setting, start, form, spectrum, distance)
        } else {
            Err("no trial has a tool call".to_owned())
        };
        measurement.take(name, measured);
    }
}

/// Distances by the order of tool calls; absent if a trial has no transcript or no trial has a call.
pub(crate) fn distances(trials: &[&TrialRecord]) -> Option<Vec<f64>> {
    if trials.iter().all(|record| record.calls.is_empty()) {
        return None;
    }
    crate::metrics::measured::distances(trials, spectrum, distance)
}

fn spectrum(record: &TrialRecord) -> Option<Spectrum> {
    if !record.trial.has_transcript {
        return None;
    }
    let tokens: Vec<u64> = record.calls.iter().map(token).collect();
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    for length in 1..=LONGEST_GRAM {
        for gram in tokens.windows(length) {
            let bytes: Vec<u8> = gram.iter().flat_map(|token| token.to_le_bytes()).collect();
            *counts.entry(hash(&bytes)).or_insert(0) += 1;
        }
    }
    if counts.is_empty() {
        // A trial without calls equals another one without calls and is orthogonal to any with calls.
        counts.insert(0, 1);
    }
    let length = counts.values().map(|count| f64::from(*count) * f64::from(*count)).sum::<f64>().sqrt();
    Some(counts.into_iter().map(|(gram, count)| (gram, f64::from(count) / length)).collect())
}

fn token(call: &ToolCall) -> u64 {
    let value: Option<serde_json::Value> =
        call.arguments.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let mut names: Vec<&str> = value
        .as_ref()
        .and_then(|value| value.as_object())
        .map_or_else(Vec::new, |map| map.keys().map(String::as_str).collect());
    names.sort_unstable();
    let mut bytes = call.tool.clone().into_bytes();
    for name in names {
        bytes.push(0);
        bytes.extend_from_slice(name.as_bytes());
    }
    hash(&bytes)
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = blake3::hash(bytes);
    let (first, _) = digest.as_bytes().split_first_chunk::<8>().expect("a digest has 32 bytes");
    u64::from_le_bytes(*first)
}

/// Cosine distance of two vectors of length 1 without negative entries.
fn distance(a: &Spectrum, b: &Spectrum) -> f64 {
    let (mut i, mut j, mut dot) = (0, 0, 0.0);
    while let (Some((x, p)), Some((y, q))) = (a.get(i), b.get(j)) {
        match x.cmp(y) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                dot += p * q;
                i += 1;
                j += 1;
            }
        }
    }
    // Rounding errors become 0: equal sequences have distance exactly 0.
    let distance = (1.0 - dot).clamp(0.0, 1.0);
    if distance < 1e-12 { 0.0 } else { distance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{read, record};

    fn between(a: &TrialRecord, b: &TrialRecord) -> Option<f64> {
        Some(distance(&spectrum(a)?, &spectrum(b)?))
    }

    #[test]
    fn order_and_argument_names_matter_and_values_do_not() {
        let a = record("c", 0, vec![read("find", "{\"id\":1}"), read("show", "{}")]);
        let values = record("c", 1, vec![read("find", "{\"id\":2}"), read("show", "{}")]);
        let order = record("c", 2, vec![read("show", "{}"), read("find", "{\"id\":1}")]);
        let names = record("c", 3, vec![read("find", "{\"name\":1}"), read("show", "{}")]);
        assert_eq!(between(&a, &values), Some(0.0));
        assert!(between(&a, &order).is_some_and(|distance| distance > 0.1 && distance < 0.9));
        assert!(between(&a, &names).is_some_and(|distance| distance > 0.1));
        let none = record("c", 4, vec![]);
        assert_eq!(between(&none, &none), Some(0.0));
        assert_eq!(between(&none, &a), Some(1.0));
    }
}
