//! What trials did outside otherwise than the recording: writes made twice, left out, added, changed, or in another order.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::cases::Sides;
use crate::run::TrialRecord;
use crate::writes::{self, Write};

/// A way in which the writes of a trial can differ from the recording's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Made more than once with the same arguments.
    Duplicated,
    /// Not made.
    Missing,
    /// Not in the recording.
    Extra,
    /// Made by the same tool with other arguments; it is missing and extra too.
    Changed,
    /// Made in another order than in the recording.
    Reordered,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub(super) const ALL: [Self; 5] =
        [Self::Duplicated, Self::Missing, Self::Extra, Self::Changed, Self::Reordered];

    /// Its word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Duplicated => "duplicated",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Changed => "changed",
            Self::Reordered => "reordered",
        }
    }
}

/// The writes of a recording.
pub(super) struct Reference {
    distinct: BTreeSet<Write>,
    order: Vec<Write>,
}

impl Reference {
    /// The writes of this recording.
    pub(super) fn of(record: &TrialRecord) -> Self {
        let order = writes::ordered(record);
        Self { distinct: order.iter().cloned().collect(), order }
    }
}

/// Whether the calls of a trial are counted.
pub(super) fn votes(record: &TrialRecord) -> bool {
    record.trial.has_transcript && !record.is_torn()
}

/// In what the writes of a trial differ, each kind and tool once.
pub(super) fn departures(record: &TrialRecord, reference: Option<&Reference>) -> BTreeSet<(Kind, String)> {
    let mut found = BTreeSet::new();
    let used: BTreeSet<&str> = record.calls.iter().map(|call| call.tool.as_str()).collect();
    for tool in used {
        if writes::repeated(record, &[tool.to_owned()]).is_some() {
            found.insert((Kind::Duplicated, tool.to_owned()));
        }
    }
    let Some(reference) = reference else { return found };
    let order = writes::ordered(record);
    let made: BTreeSet<Write> = order.iter().cloned().collect();
    let tools_of = |writes: Vec<&Write>| -> BTreeSet<String> {
        writes.into_iter().map(|write| write.0.clone()).collect()
    };
    let missing = tools_of(reference.distinct.difference(&made).collect());
    let extra = tools_of(made.difference(&reference.distinct).collect());
    found.extend(missing.intersection(&extra).map(|tool| (Kind::Changed, tool.clone())));
    found.extend(missing.into_iter().map(|tool| (Kind::Missing, tool)));
    found.extend(extra.into_iter().map(|tool| (Kind::Extra, tool)));
    let moved = writes::reordered(&order, &reference.order);
    found.extend(moved.into_iter().map(|write| (Kind::Reordered, write.0)));
    found
}

/// In how many trials of a case the candidate's writes differ in one way by one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CaseEffect {
    pub(super) kind: Kind,
    pub(super) tool: String,
    /// Candidate trials in which they do.
    pub(super) trials: usize,
    /// Candidate trials that were looked at.
    pub(super) of: usize,
}

/// What the candidate's trials of a case do more often than the baseline's, the worst kinds first.
pub(super) fn of_case(sides: &Sides<'_>) -> Vec<CaseEffect> {
    let reference = sides.reference.filter(|record| record.trial.has_transcript).map(Reference::of);
    let [baseline, candidate] = [&sides.baseline, &sides.candidate].map(|trials| {
        let voting: Vec<&TrialRecord> =
            trials.iter().map(|shown| shown.record).filter(|record| votes(record)).collect();
        let mut counts: BTreeMap<(Kind, String), usize> = BTreeMap::new();
        for record in &voting {
            for departure in departures(record, reference.as_ref()) {
                *counts.entry(departure).or_default() += 1;
            }
        }
        (voting.len(), counts)
    });
    let more_often = |key: &(Kind, String), count: usize| {
        let before = baseline.1.get(key).copied().unwrap_or(0);
        count * baseline.0.max(1) > before * candidate.0
    };
    (candidate.1.iter())
        .filter(|(key, count)| more_often(key, **count))
        .map(|((kind, tool), count)| CaseEffect {
            kind: *kind,
            tool: tool.clone(),
            trials: *count,
            of: candidate.0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn refunds(ids: &[u32]) -> TrialRecord {
        let arguments: Vec<String> = ids.iter().map(|id| format!("{{\"id\":{id}}}")).collect();
        let calls: Vec<(&str, &str)> = arguments.iter().map(|text| ("refund", text.as_str())).collect();
        fixture::record("c", 0, true, &calls)
    }

    fn kinds(recorded: &[u32], made: &[u32]) -> Vec<&'static str> {
        let found = departures(&refunds(made), Some(&Reference::of(&refunds(recorded))));
        found.into_iter().map(|(kind, _)| kind.as_str()).collect()
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        assert!(kinds(&[1, 2], &[1, 2]).is_empty());
        assert_eq!(kinds(&[1, 2], &[2, 1]), ["reordered"]);
        assert_eq!(kinds(&[1, 2], &[1]), ["missing"]);
        assert_eq!(kinds(&[1], &[1, 2]), ["extra"]);
        assert_eq!(kinds(&[1], &[2]), ["missing", "extra", "changed"]);
        assert_eq!(kinds(&[1], &[1, 1]), ["duplicated"]);
        assert_eq!(departures(&refunds(&[1, 1]), None).len(), 1, "repetition needs no recording");
    }
}
