//! Source of `success` for each case: labels, an evaluator, a qualified judge, or none.
//!
//! One source scores all trials of a case, in both lanes. If people labelled one lane and a judge the other, identical
//! builds would differ. The source of a case is the one that scores most of its complete trials; ties go to labels,
//! then evaluators, then judges. This module measures no metric.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use schemas::id::CaseId;
use schemas::score::ScoreKind;
use schemas::trial::TrialEnding;

use crate::pairs::{PairedCase, Pairs};
use crate::policy::Policy;
use crate::run::TrialRecord;

mod agreement;
mod attach;
pub(crate) mod end_state;
pub(crate) mod label;

pub use crate::scores::{Evaluator, TrialScore};
pub use crate::verdict::{Agreement, EvaluatorResult, LaneAgreement, OutcomeResult, SourceCount};
pub use attach::attach_scores;

/// A source that can score trials.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// Label that came with the trial.
    Label,
    /// An evaluator; if slices are given, only in these (by name; the empty name stands for all trials together).
    Evaluator(Arc<Evaluator>, Option<BTreeSet<String>>),
}

impl Source {
    /// Whether the source is a judge, whose errors are corrected by labels.
    pub(crate) fn is_judge(&self) -> bool {
        match self {
            Self::Label => false,
            Self::Evaluator(evaluator, _) => evaluator.kind == ScoreKind::Judge,
        }
    }

    /// Slice in which a judge scored the trial, empty for all trials together; absent if it cannot score it.
    pub(crate) fn slice_of(&self, record: &TrialRecord) -> Option<String> {
        self.score_of(record)?;
        match self {
            Self::Label => None,
            Self::Evaluator(evaluator, _) => {
                let score = record.scores.iter().find(|score| same(&score.evaluator, evaluator))?;
                Some(score.slice.as_deref().unwrap_or_default().to_owned())
            }
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Label => "label".to_owned(),
            Self::Evaluator(evaluator, _) => evaluator.source(),
        }
    }

    /// Score of the trial by this source, if the source can score it.
    pub(crate) fn score_of(&self, record: &TrialRecord) -> Option<bool> {
        match self {
            Self::Label => record.trial.success,
            Self::Evaluator(evaluator, slices) => {
                let score = record.scores.iter().find(|score| same(&score.evaluator, evaluator))?;
                let slice = score.slice.as_deref().unwrap_or_default();
                let may = slices.as_ref().is_none_or(|slices| slices.contains(slice));
                score.success.filter(|_| may)
            }
        }
    }
}

fn same(a: &Arc<Evaluator>, b: &Arc<Evaluator>) -> bool {
    Arc::ptr_eq(a, b) || (a.name == b.name && a.digest == b.digest)
}

/// Source of `success` by case.
#[derive(Debug, Clone)]
pub(crate) struct Sources<'a> {
    /// Sources that score at least one trial, in their order.
    list: Vec<Source>,
    /// Index into `list` by case; empty if there are fewer than two sources to choose from.
    chosen: HashMap<&'a CaseId, Option<usize>>,
    /// Evaluators with their measured agreement.
    pub(crate) evaluators: Vec<EvaluatorResult>,
}

impl<'a> Sources<'a> {
    /// Measures the evaluators against the labels and assigns a source to every case.
    pub(crate) fn new(policy: &Policy, pairs: &'a Pairs<'a>) -> Self {
        let known = agreement::ScoresByEvaluator::collect(pairs);
        let mut list = Vec::new();
        if pairs.trials().any(|record| record.trial.success.is_some()) {
            list.push(Source::Label);
        }
        let mut evaluators = Vec::new();
        for measured in known.measure(&policy.judge) {
            if let Some(slices) = measured.qualified_slices() {
                list.push(Source::Evaluator(measured.evaluator.clone(), slices));
            }
            evaluators.push(measured.result);
        }
        list.retain(|source| pairs.trials().any(|record| source.score_of(record).is_some()));
        let chosen = if list.len() < 2 {
            HashMap::new()
        } else {
            pairs.cases.iter().map(|case| (case.case, choose(&list, case))).collect()
        };
        Self { list, chosen, evaluators }
    }

    /// Whether no source scores any trial.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all sources are judges. Cases that no judge can score then still use the end-state check.
    pub(crate) fn only_judges(&self) -> bool {
        self.list.iter().all(Source::is_judge)
    }

    /// Source of a case; absent if no source scores any of its complete trials.
    pub(crate) fn of(&self, case: &PairedCase<'_>) -> Option<&Source> {
        match &self.list[..] {
            [] => None,
            [only] if self.only_judges() => choose(std::slice::from_ref(only), case).map(|_| only),
            [only] => Some(only),
            list => self.chosen.get(case.case).copied().flatten().map(|place| &list[place]),
        }
    }

    /// Judges that can decide, in their order.
    pub(crate) fn judges(&self) -> impl Iterator<Item = &Source> {
        self.list.iter().filter(|source| source.is_judge())
    }

    /// Number of paired cases by source; `fallback` names the source of the remaining cases.
    pub(crate) fn counts(
        &self,
        pairs: &Pairs<'_>,
        fallback: impl Fn(&PairedCase<'_>) -> &'static str,
    ) -> Vec<SourceCount> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for case in pairs.paired() {
            let source = self.of(case).map_or_else(|| fallback(case).to_owned(), Source::name);
            *counts.entry(source).or_default() += 1;
        }
        let mut counts: Vec<_> =
            counts.into_iter().map(|(source, cases)| SourceCount { source, cases }).collect();
        counts.sort_by(|a, b| b.cases.cmp(&a.cases).then_with(|| a.source.cmp(&b.source)));
        counts
    }
}

/// Source that scores most complete trials of a case, the first of several; absent if none scores any.
fn choose(list: &[Source], case: &PairedCase<'_>) -> Option<usize> {
    let complete = |record: &&&TrialRecord| record.trial.ending == TrialEnding::Complete;
    let trials = || case.baseline.trials.iter().chain(&case.candidate.trials);
    let mut best = None;
    let mut most = 0;
    for (place, source) in list.iter().enumerate() {
        let scored = trials().filter(complete).filter(|record| source.score_of(record).is_some()).count();
        if scored > most {
            (best, most) = (Some(place), scored);
        }
    }
    // Without a complete trial every trial is a failure or missing, whichever source decides.
    let none_complete = !trials().any(|record| complete(&record));
    best.or_else(|| (none_complete && !list.is_empty()).then_some(0))
}

#[cfg(test)]
mod tests;
