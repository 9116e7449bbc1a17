//! Who says whether a trial did the work: its label, an evaluator, a judge where it may vote, else nobody.
//!
//! All trials of a case, of both lanes, are judged by one source: were one lane labelled by people and the other by a
//! judge, identical builds would differ. The source of a case is the one that speaks of the most of its complete trials;
//! among equals the first in the order labels, evaluators, judges. Nothing here measures a metric.

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

pub use crate::scores::{Evaluator, TrialScore};
pub use crate::verdict::{Agreement, EvaluatorResult, OutcomeResult, SourceCount};
pub use attach::attach_scores;

/// One who may say whether a trial did the work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// The label that came with the trial.
    Label,
    /// An evaluator; where present, only in these slices (by name; the empty name is all trials together).
    Evaluator(Arc<Evaluator>, Option<BTreeSet<String>>),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Label => "label".to_owned(),
            Self::Evaluator(evaluator, _) => evaluator.source(),
        }
    }

    /// What it says of the trial, where it may say anything.
    pub(crate) fn says(&self, record: &TrialRecord) -> Option<bool> {
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

/// Who decides `success` of which case.
#[derive(Debug, Clone)]
pub(crate) struct Sources<'a> {
    /// Those who may say something of at least one trial, in their order.
    list: Vec<Source>,
    /// The place in `list` by case; empty where there are fewer than two to choose from.
    chosen: HashMap<&'a CaseId, Option<usize>>,
    /// The evaluators and what they are worth.
    pub(crate) evaluators: Vec<EvaluatorResult>,
}

impl<'a> Sources<'a> {
    /// Measures the evaluators against the labels, and gives every case its source.
    pub(crate) fn new(policy: &Policy, pairs: &'a Pairs<'a>) -> Self {
        let known = agreement::Known::collect(pairs);
        let mut list = Vec::new();
        if pairs.trials().any(|record| record.trial.success.is_some()) {
            list.push(Source::Label);
        }
        let mut evaluators = Vec::new();
        for measured in known.measure(&policy.judge) {
            if let Some(slices) = measured.may_vote() {
                list.push(Source::Evaluator(measured.evaluator.clone(), slices));
            }
            evaluators.push(measured.result);
        }
        list.retain(|source| pairs.trials().any(|record| source.says(record).is_some()));
        let chosen = if list.len() < 2 {
            HashMap::new()
        } else {
            pairs.cases.iter().map(|case| (case.case, choose(&list, case))).collect()
        };
        Self { list, chosen, evaluators }
    }

    /// Whether nobody says anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether all that is there are judges: where these may not vote, the end state is still asked.
    pub(crate) fn only_judges(&self) -> bool {
        let is_judge = |source: &Source| match source {
            Source::Label => false,
            Source::Evaluator(evaluator, _) => evaluator.kind == ScoreKind::Judge,
        };
        self.list.iter().all(is_judge)
    }

    /// Who decides a case; nobody where no source speaks of any of its complete trials.
    pub(crate) fn of(&self, case: &PairedCase<'_>) -> Option<&Source> {
        match &self.list[..] {
            [] => None,
            [only] if self.only_judges() => choose(std::slice::from_ref(only), case).map(|_| only),
            [only] => Some(only),
            list => self.chosen.get(case.case).copied().flatten().map(|place| &list[place]),
        }
    }

    /// Who decided how many paired cases; `fallback` is who decides the others.
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

/// The source that speaks of the most complete trials of a case, the first of several; nobody where none speaks.
fn choose(list: &[Source], case: &PairedCase<'_>) -> Option<usize> {
    let complete = |record: &&&TrialRecord| record.trial.ending == TrialEnding::Complete;
    let trials = || case.baseline.trials.iter().chain(&case.candidate.trials);
    let mut best = None;
    let mut most = 0;
    for (place, source) in list.iter().enumerate() {
        let spoken = trials().filter(complete).filter(|record| source.says(record).is_some()).count();
        if spoken > most {
            (best, most) = (Some(place), spoken);
        }
    }
    // Where no trial is complete there is nothing to say: each is a failure, or missing, whoever decides.
    let none_complete = !trials().any(|record| complete(&record));
    best.or_else(|| (none_complete && !list.is_empty()).then_some(0))
}

#[cfg(test)]
mod tests;
