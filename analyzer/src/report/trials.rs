//! Trials of both runs and the recordings, grouped by case.

use std::collections::BTreeMap;

use super::ReportInput;
use crate::analysis::AnalyzeError;
use crate::metrics::{self, Setting};
use crate::pairs::Pairs;
use crate::run::TrialRecord;

/// A trial with the outcome that `success` counts.
#[derive(Clone, Copy)]
pub(super) struct LabelledTrial<'a> {
    pub(super) record: &'a TrialRecord,
    /// `None` without an outcome, and for incomplete sessions.
    pub(super) success: Option<bool>,
}

/// The trials of one case.
#[derive(Default)]
pub(super) struct CaseTrials<'a> {
    /// The recording, whether it failed or not.
    pub(super) recorded: Option<LabelledTrial<'a>>,
    /// The recording, if it did not fail: writes are compared with it.
    pub(super) reference: Option<&'a TrialRecord>,
    /// By trial number.
    pub(super) baseline: Vec<LabelledTrial<'a>>,
    /// By trial number.
    pub(super) candidate: Vec<LabelledTrial<'a>>,
}

impl CaseTrials<'_> {
    pub(super) fn is_paired(&self) -> bool {
        !self.baseline.is_empty() && !self.candidate.is_empty()
    }
}

/// Groups all trials by case, incomplete sessions included.
///
/// # Errors
/// The runs cannot be paired. Runs that were analyzed can.
pub(super) fn by_case<'a>(
    input: &ReportInput<'a>,
    seed: u64,
) -> Result<BTreeMap<&'a str, CaseTrials<'a>>, AnalyzeError> {
    let ReportInput { baseline, candidate, recorded, policy, transcripts: _ } = *input;
    let pairs = Pairs::new(baseline, candidate, recorded)?;
    let succeeded = metrics::succeeded(Setting { policy, pairs: &pairs, seed });
    let mut cases: BTreeMap<&str, CaseTrials<'_>> = BTreeMap::new();
    for record in baseline.own() {
        let trials = cases.entry(record.trial.case.as_str()).or_default();
        trials.baseline.push(LabelledTrial { record, success: None });
    }
    for record in candidate.own() {
        let trials = cases.entry(record.trial.case.as_str()).or_default();
        trials.candidate.push(LabelledTrial { record, success: None });
    }
    for case in &pairs.cases {
        let Some(trials) = cases.get_mut(case.case.as_str()) else { continue };
        trials.recorded =
            case.recorded_any.map(|record| LabelledTrial { record, success: record.trial.success });
        trials.reference = case.recorded;
        for trial in trials.baseline.iter_mut().chain(&mut trials.candidate) {
            trial.success = if trial.record.is_incomplete() { None } else { succeeded(case, trial.record) };
        }
        trials.baseline.sort_by_key(|trial| trial.record.trial.trial);
        trials.candidate.sort_by_key(|trial| trial.record.trial.trial);
    }
    Ok(cases)
}
