//! Writes of a trial and their difference from the recorded writes.
//!
//! Calls of unknown effect are never counted here; callers report their number.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemas::exchange::Effect;

use crate::run::{ToolCall, TrialRecord};

/// A write: tool and arguments in comparable form.
pub(crate) type Write = (String, String);

/// Distinct writes of a trial.
pub(crate) fn distinct(record: &TrialRecord) -> BTreeSet<Write> {
    record.calls.iter().filter(|call| call.wrote()).map(name).collect()
}

/// Distinct writes of a trial in the order of their first calls.
pub(crate) fn ordered(record: &TrialRecord) -> Vec<Write> {
    let mut seen = BTreeSet::new();
    record
        .calls
        .iter()
        .filter(|call| call.wrote())
        .map(name)
        .filter(|write| seen.insert(write.clone()))
        .collect()
}

/// Writes that both trials made and that the trial made at another position.
///
/// The result is the smallest set whose removal leaves both in the same order, so one write that moved is one entry,
/// however far it moved.
pub(crate) fn reordered(trial: &[Write], recorded: &[Write]) -> Vec<Write> {
    let places: BTreeMap<&Write, usize> = recorded.iter().zip(0..).collect();
    let common: Vec<(&Write, usize)> =
        trial.iter().filter_map(|write| places.get(write).map(|place| (write, *place))).collect();
    // Length of the longest ascending run of positions that ends at each write, and its predecessor.
    let mut runs: Vec<(usize, Option<usize>)> = Vec::with_capacity(common.len());
    for (number, (_, place)) in common.iter().enumerate() {
        let before = (0..number).filter(|earlier| common[*earlier].1 < *place);
        // Of equally long runs, the first.
        let best = before.max_by_key(|earlier| (runs[*earlier].0, std::cmp::Reverse(*earlier)));
        runs.push((best.map_or(1, |best| runs[best].0 + 1), best));
    }
    let mut end = (0..common.len()).max_by_key(|number| (runs[*number].0, std::cmp::Reverse(*number)));
    let mut kept = BTreeSet::new();
    while let Some(number) = end {
        kept.insert(number);
        end = runs[number].1;
    }
    let moved = common.iter().enumerate().filter(|(number, _)| !kept.contains(number));
    moved.map(|(_, (write, _))| (*write).clone()).collect()
}

/// Writes of a trial with the number of times each was made.
pub(crate) fn counted(record: &TrialRecord) -> BTreeMap<Write, u32> {
    let mut counts = BTreeMap::new();
    for call in record.calls.iter().filter(|call| call.wrote()) {
        *counts.entry(name(call)).or_insert(0) += 1;
    }
    counts
}

fn name(call: &ToolCall) -> Write {
    (call.tool.clone(), call.compared_text().into_owned())
}

/// Write that was made most often, and more than once, with equal arguments: tool, arguments as first sent, and how often.
/// Calls declared idempotent do not count.
pub(crate) fn repeated<'a>(record: &'a TrialRecord, tools: &[String]) -> Option<(&'a str, &'a str, u32)> {
    let mut counts: BTreeMap<(&str, Cow<'_, str>), (&str, u32)> = BTreeMap::new();
    let counted = |call: &&ToolCall| call.wrote() && call.idempotent != Some(true);
    for call in record.calls.iter().filter(counted) {
        if tools.is_empty() || tools.contains(&call.tool) {
            let count = counts.entry((&call.tool, call.compared_text()));
            count.or_insert((call.arguments_text(), 0)).1 += 1;
        }
    }
    let most = counts.into_iter().filter(|(_, (_, count))| *count > 1).max_by_key(|(_, (_, count))| *count);
    most.map(|((tool, _), (arguments, count))| (tool, arguments, count))
}

/// Difference between the writes of a trial and of its recording, as shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    /// Share of the recorded writes that the trial did not make.
    pub(crate) missing: f64,
    /// Share of the trial's writes that the recording lacks.
    pub(crate) extra: f64,
    /// Share of the recorded writes that the trial made with other arguments.
    pub(crate) changed: f64,
}

/// Compares two sets of distinct writes.
pub(crate) fn compare(trial: &BTreeSet<Write>, recorded: &BTreeSet<Write>) -> Difference {
    let missing: Vec<&Write> = recorded.difference(trial).collect();
    let extra: Vec<&Write> = trial.difference(recorded).collect();
    let tools: BTreeSet<&str> = missing.iter().map(|write| write.0.as_str()).collect();
    let by = |writes: &[&Write], tool: &str| writes.iter().filter(|write| write.0 == tool).count();
    let changed: usize = tools.iter().map(|tool| by(&missing, tool).min(by(&extra, tool))).sum();
    Difference {
        missing: share(missing.len(), recorded.len()),
        extra: share(extra.len(), trial.len()),
        changed: share(changed, recorded.len()),
    }
}

/// One minus the multiset Jaccard index: 0 for the same writes, 1 for none in common.
pub(crate) fn distance(a: &BTreeMap<Write, u32>, b: &BTreeMap<Write, u32>) -> f64 {
    let names: BTreeSet<&Write> = a.keys().chain(b.keys()).collect();
    let (mut common, mut all) = (0, 0);
    for name in names {
        let (x, y) = (a.get(name).copied().unwrap_or(0), b.get(name).copied().unwrap_or(0));
        common += x.min(y);
        all += x.max(y);
    }
    if all == 0 { 0.0 } else { 1.0 - f64::from(common) / f64::from(all) }
}

/// Number of calls without a declared effect.
pub(crate) fn undeclared(record: &TrialRecord) -> usize {
    record.calls.iter().filter(|call| call.effect == Effect::Unknown).count()
}

fn share(part: usize, whole: usize) -> f64 {
    use crate::stats::variance::float;
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(writes: &[(&str, &str)]) -> BTreeSet<Write> {
        writes.iter().map(|(tool, arguments)| ((*tool).to_owned(), (*arguments).to_owned())).collect()
    }

    #[test]
    fn a_changed_write_is_missing_and_extra_and_changed() {
        let recorded = set(&[("refund", "10"), ("mail", "a")]);
        let difference = compare(&set(&[("refund", "20"), ("mail", "a")]), &recorded);
        assert_eq!(difference, Difference { missing: 0.5, extra: 0.5, changed: 0.5 });
        let difference = compare(&set(&[("mail", "a")]), &recorded);
        assert_eq!(difference, Difference { missing: 0.5, extra: 0.0, changed: 0.0 });
    }

    #[test]
    fn a_write_that_moved_is_the_only_one_reordered() {
        let writes = |names: &str| -> Vec<Write> {
            names.chars().map(|name| (name.to_string(), "{}".to_owned())).collect()
        };
        let moved = |trial: &str, recorded: &str| -> String {
            reordered(&writes(trial), &writes(recorded)).iter().map(|write| write.0.as_str()).collect()
        };
        assert_eq!(moved("abcd", "abcd"), "");
        assert_eq!(moved("bcda", "abcd"), "a");
        assert_eq!(moved("dabc", "abcd"), "d");
        // Writes that only one of them has do not matter.
        assert_eq!(moved("axbc", "abyc"), "");
        assert_eq!(moved("cxba", "abyc"), "ba");
        assert_eq!(moved("", "abc"), "");
    }

    #[test]
    fn distance_counts_repetitions() {
        let once = BTreeMap::from([(("refund".to_owned(), "10".to_owned()), 1)]);
        let twice = BTreeMap::from([(("refund".to_owned(), "10".to_owned()), 2)]);
        assert!((distance(&once, &twice) - 0.5).abs() < 1e-15);
        assert!(distance(&BTreeMap::new(), &BTreeMap::new()).abs() < 1e-15);
    }
}
