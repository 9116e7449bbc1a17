//! Writes that differ from the recording's: duplicated, missing, extra, changed or reordered.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use strum::{IntoStaticStr, VariantArray};

use super::trials::CaseTrials;
use crate::run::TrialRecord;
use crate::writes::{self, Write};

/// A difference between the writes of a trial and those of the recording, in the order of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, IntoStaticStr, VariantArray)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub(super) enum WriteChange {
    /// More than once with the same arguments; needs no recording.
    Duplicated,
    /// Only in the recording.
    Missing,
    /// Not in the recording.
    Extra,
    /// Same tool, other arguments; such a write counts as missing and extra too.
    Changed,
    /// In another order than in the recording.
    Reordered,
}

/// The distinct writes of a recording.
pub(super) struct RecordedWrites {
    distinct: BTreeSet<Write>,
    ordered: Vec<Write>,
}

impl RecordedWrites {
    pub(super) fn new(recording: &TrialRecord) -> Self {
        let ordered = writes::ordered(recording);
        Self { distinct: ordered.iter().cloned().collect(), ordered }
    }

    /// The writes to compare the trials of a case with; `None` without a recorded transcript.
    pub(super) fn of_case(trials: &CaseTrials<'_>) -> Option<Self> {
        trials.reference.filter(|recording| recording.trial.has_transcript).map(Self::new)
    }
}

/// Whether the tool calls of a trial are known and complete.
pub(super) fn has_complete_calls(record: &TrialRecord) -> bool {
    record.trial.has_transcript && !record.is_incomplete()
}

/// The write changes of a trial, each pair of change and tool once.
pub(super) fn of_trial(
    record: &TrialRecord,
    recorded: Option<&RecordedWrites>,
) -> BTreeSet<(WriteChange, String)> {
    let mut changes = BTreeSet::new();
    let tools: BTreeSet<&str> = record.calls.iter().map(|call| call.tool.as_str()).collect();
    for tool in tools {
        if writes::repeated(record, &[tool.to_owned()]).is_some() {
            changes.insert((WriteChange::Duplicated, tool.to_owned()));
        }
    }
    let Some(recorded) = recorded else { return changes };
    let ordered = writes::ordered(record);
    let distinct: BTreeSet<Write> = ordered.iter().cloned().collect();
    let tools_of = |writes: Vec<&Write>| -> BTreeSet<String> {
        writes.into_iter().map(|write| write.0.clone()).collect()
    };
    let missing = tools_of(recorded.distinct.difference(&distinct).collect());
    let extra = tools_of(distinct.difference(&recorded.distinct).collect());
    changes.extend(missing.intersection(&extra).map(|tool| (WriteChange::Changed, tool.clone())));
    changes.extend(missing.into_iter().map(|tool| (WriteChange::Missing, tool)));
    changes.extend(extra.into_iter().map(|tool| (WriteChange::Extra, tool)));
    let reordered = writes::reordered(&ordered, &recorded.ordered);
    changes.extend(reordered.into_iter().map(|write| (WriteChange::Reordered, write.0)));
    changes
}

/// The number of the candidate's trials of one case that have a write change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CaseWriteChange {
    pub(super) change: WriteChange,
    pub(super) tool: String,
    /// Candidate trials with this change.
    pub(super) trials: usize,
    /// Candidate trials with complete tool calls.
    pub(super) of: usize,
}

/// The write changes that the candidate's trials of a case show more often than the baseline's.
pub(super) fn more_often_in_candidate(trials: &CaseTrials<'_>) -> Vec<CaseWriteChange> {
    let recorded = RecordedWrites::of_case(trials);
    let [baseline, candidate] = [&trials.baseline, &trials.candidate].map(|trials| {
        let complete: Vec<&TrialRecord> =
            trials.iter().map(|trial| trial.record).filter(|record| has_complete_calls(record)).collect();
        let mut counts: BTreeMap<(WriteChange, String), usize> = BTreeMap::new();
        for record in &complete {
            for change in of_trial(record, recorded.as_ref()) {
                *counts.entry(change).or_default() += 1;
            }
        }
        (complete.len(), counts)
    });
    let is_more_often = |key: &(WriteChange, String), count: usize| {
        let before = baseline.1.get(key).copied().unwrap_or(0);
        count * baseline.0.max(1) > before * candidate.0
    };
    (candidate.1.iter())
        .filter(|(key, count)| is_more_often(key, **count))
        .map(|((change, tool), count)| CaseWriteChange {
            change: *change,
            tool: tool.clone(),
            trials: *count,
            of: candidate.0,
        })
        .collect()
}

/// Drops the missing and extra writes that are the two halves of a changed write: one line is enough.
pub(super) fn drop_repetitions(changes: &mut Vec<CaseWriteChange>) {
    let changed: BTreeMap<String, usize> = (changes.iter())
        .filter(|change| change.change == WriteChange::Changed)
        .map(|change| (change.tool.clone(), change.trials))
        .collect();
    changes.retain(|change| match change.change {
        WriteChange::Missing | WriteChange::Extra => {
            changed.get(&change.tool).is_none_or(|trials| *trials < change.trials)
        }
        WriteChange::Duplicated | WriteChange::Changed | WriteChange::Reordered => true,
    });
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

    fn changes(recorded: &[u32], made: &[u32]) -> Vec<&'static str> {
        let found = of_trial(&refunds(made), Some(&RecordedWrites::new(&refunds(recorded))));
        found.into_iter().map(|(change, _)| change.into()).collect()
    }

    #[test]
    fn a_changed_write_is_one_line() {
        let change = |change, trials| CaseWriteChange { change, tool: "refund".to_owned(), trials, of: 5 };
        let mut changes = vec![
            change(WriteChange::Missing, 3),
            change(WriteChange::Extra, 4),
            change(WriteChange::Changed, 3),
        ];
        drop_repetitions(&mut changes);
        let left: Vec<WriteChange> = changes.iter().map(|change| change.change).collect();
        assert_eq!(left, [WriteChange::Extra, WriteChange::Changed]);
    }

    #[test]
    fn write_changes_are_distinguished() {
        assert!(changes(&[1, 2], &[1, 2]).is_empty());
        assert_eq!(changes(&[1, 2], &[2, 1]), ["reordered"]);
        assert_eq!(changes(&[1, 2], &[1]), ["missing"]);
        assert_eq!(changes(&[1], &[1, 2]), ["extra"]);
        assert_eq!(changes(&[1], &[2]), ["missing", "extra", "changed"]);
        assert_eq!(changes(&[1], &[1, 1]), ["duplicated"]);
        assert_eq!(of_trial(&refunds(&[1, 1]), None).len(), 1, "a duplicated write needs no recording");
    }
}
