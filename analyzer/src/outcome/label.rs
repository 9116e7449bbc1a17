//! The label of a trial.

use schemas::score::ScoreKind;

use crate::run::TrialRecord;

/// Label of a trial: the one that came with it, else that of a label file.
pub(crate) fn label_of(record: &TrialRecord) -> Option<bool> {
    let given = record.scores.iter().find(|score| score.evaluator.kind == ScoreKind::Label);
    record.trial.success.or_else(|| given.and_then(|score| score.success))
}
