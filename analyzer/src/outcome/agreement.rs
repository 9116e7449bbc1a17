//! Agreement of an evaluator with labels, measured on every trial that has both.
//!
//! Trials of one case are correlated, so the bounds count cases. The share of a case's trials in which both agree is
//! one value between 0 and 1. The lower bound of its mean is Gaffke's, which for one trial per case equals Clopper and
//! Pearson's exact bound. Raw agreement alone is not enough: if 95 % of trials succeed, a judge that always says
//! "pass" agrees in 95 %. So Cohen's kappa is bounded too. Kappa grows with the share of successes passed and with the
//! share of failures caught, so the lower bounds of both, each at half the level, bound it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::id::CaseId;
use schemas::score::ScoreKind;

use crate::cast;
use crate::pairs::Pairs;
use crate::policy::JudgePolicy;
use crate::run::TrialRecord;
use crate::scores::Evaluator;
use crate::stats::gaffke::Sample;
use crate::stats::variance::float;
use crate::verdict::{Agreement, EvaluatorResult};

/// Confusion counts of one case: labelled successes and how many the evaluator passed, labelled failures and how many
/// it caught.
#[derive(Debug, Clone, Copy, Default)]
struct ConfusionCounts {
    successes: usize,
    passed: usize,
    failures: usize,
    caught: usize,
}

impl ConfusionCounts {
    fn add(&mut self, label: bool, score: bool) {
        if label {
            self.successes += 1;
            self.passed += usize::from(score);
        } else {
            self.failures += 1;
            self.caught += usize::from(!score);
        }
    }
}

/// Confusion counts of one slice, by case.
type CountsByCase<'a> = BTreeMap<&'a CaseId, ConfusionCounts>;

/// Scores of one evaluator.
#[derive(Debug, Default)]
struct EvaluatorScores<'a> {
    /// Versions of the evaluator by digest.
    versions: BTreeMap<&'a str, Arc<Evaluator>>,
    scored: usize,
    errors: usize,
    slices: BTreeMap<&'a str, CountsByCase<'a>>,
}

/// Scores of all evaluators, by evaluator name.
#[derive(Debug, Default)]
pub(super) struct ScoresByEvaluator<'a>(BTreeMap<&'a str, EvaluatorScores<'a>>);

impl<'a> ScoresByEvaluator<'a> {
    /// Collects the scores of the trials of both runs and of the recordings.
    pub(super) fn collect(pairs: &'a Pairs<'a>) -> Self {
        let mut collected = Self::default();
        for case in &pairs.cases {
            for record in case.baseline.trials.iter().chain(&case.candidate.trials) {
                collected.add(case.case, record, true);
            }
            if let Some(record) = case.recorded_any {
                collected.add(case.case, record, false);
            }
        }
        collected
    }

    fn add(&mut self, case: &'a CaseId, record: &'a TrialRecord, own: bool) {
        if record.scores.is_empty() {
            return;
        }
        let given = record.scores.iter().find(|score| score.evaluator.kind == ScoreKind::Label);
        let label = record.trial.success.or_else(|| given.and_then(|score| score.success));
        for score in &record.scores {
            let scores = self.0.entry(score.evaluator.name.as_str()).or_default();
            if own {
                let version = scores.versions.entry(score.evaluator.digest.as_str());
                version.or_insert_with(|| score.evaluator.clone());
                scores.scored += usize::from(score.success.is_some());
                scores.errors += usize::from(score.success.is_none());
            }
            let counts = scores.slices.entry(score.slice.as_deref().unwrap_or_default()).or_default();
            // A label is not compared with itself.
            let other = score.evaluator.kind != ScoreKind::Label || record.trial.success.is_some();
            if let (Some(label), Some(score), true) = (label, score.success, other) {
                counts.entry(case).or_default().add(label, score);
            }
        }
    }

    /// Evaluators in their order with their agreement. Evaluators that scored only recordings are left out.
    pub(super) fn measure(&self, policy: &JudgePolicy) -> Vec<MeasuredEvaluator> {
        let mut all: Vec<MeasuredEvaluator> =
            self.0.values().filter_map(|scores| scores.measure(policy)).collect();
        all.sort_by(|a, b| a.evaluator.order().cmp(&b.evaluator.order()));
        all
    }
}

/// An evaluator with the result to report.
pub(super) struct MeasuredEvaluator {
    pub(super) evaluator: Arc<Evaluator>,
    pub(super) result: EvaluatorResult,
}

impl MeasuredEvaluator {
    /// Slices in which the evaluator can decide, with `Some(None)` for all; absent if it cannot decide.
    pub(super) fn qualified_slices(&self) -> Option<Option<BTreeSet<String>>> {
        if !self.result.qualified {
            return None;
        }
        if self.evaluator.kind != ScoreKind::Judge {
            return Some(None);
        }
        let slices = if self.result.slices.is_empty() {
            std::slice::from_ref(&self.result.overall)
        } else {
            &self.result.slices
        };
        let qualified = slices.iter().filter(|slice| slice.qualified);
        Some(Some(qualified.map(|slice| slice.slice.clone().unwrap_or_default()).collect()))
    }
}

impl<'a> EvaluatorScores<'a> {
    /// Confusion counts of all slices together.
    fn together(&self) -> CountsByCase<'a> {
        let mut together = CountsByCase::new();
        for (case, count) in self.slices.values().flatten() {
            let sum = together.entry(*case).or_default();
            sum.successes += count.successes;
            sum.passed += count.passed;
            sum.failures += count.failures;
            sum.caught += count.caught;
        }
        together
    }

    fn measure(&self, policy: &JudgePolicy) -> Option<MeasuredEvaluator> {
        let evaluator = self.versions.values().next()?.clone();
        let is_judge = evaluator.kind == ScoreKind::Judge;
        let digests: Vec<&str> = self.versions.keys().copied().collect();
        let one_version = digests.len() == 1;
        let together = self.together();
        let measured = |slice: Option<&str>, counts: &CountsByCase<'_>| {
            let mut agreement = Agreement::measure(slice, counts, policy);
            if !one_version {
                agreement.qualified = false;
                agreement.reason =
                    "two versions scored the runs; score both runs with one configuration".to_owned();
            } else if !is_judge {
                agreement.qualified = true;
                agreement.reason = format!("a {} decides everywhere", evaluator.kind.as_str());
            }
            agreement
        };
        let mut overall = measured(None, &together);
        let in_slices = self.slices.keys().any(|slice| !slice.is_empty());
        let slices: Vec<Agreement> = if in_slices {
            self.slices.iter().map(|(slice, counts)| measured(Some(*slice), counts)).collect()
        } else {
            Vec::new()
        };
        if in_slices && is_judge && one_version {
            let qualified = slices.iter().filter(|slice| slice.qualified).count();
            overall.qualified = qualified > 0;
            overall.reason = format!("decides in {qualified} of {} slices", slices.len());
        }
        let result = EvaluatorResult {
            name: evaluator.name.clone(),
            kind: evaluator.kind.as_str().to_owned(),
            digest: digests.join(", "),
            scored: cast::to_u64(self.scored),
            errors: cast::to_u64(self.errors),
            qualified: overall.qualified,
            overall,
            slices,
        };
        Some(MeasuredEvaluator { evaluator, result })
    }
}

impl Agreement {
    fn measure(slice: Option<&str>, counts: &CountsByCase<'_>, policy: &JudgePolicy) -> Self {
        let sum = |of: fn(&ConfusionCounts) -> usize| counts.values().map(of).sum::<usize>();
        let (successes, passed) = (sum(|count| count.successes), sum(|count| count.passed));
        let (failures, caught) = (sum(|count| count.failures), sum(|count| count.caught));
        let labels = successes + failures;
        let agreement = (labels > 0).then(|| float(passed + caught) / float(labels));
        let bound = |level: f64, of: fn(&ConfusionCounts) -> (usize, usize)| {
            let shares: Vec<f64> = counts
                .values()
                .map(of)
                .filter(|(all, _)| *all > 0)
                .map(|(all, agreed)| float(agreed) / float(all))
                .collect();
            (!shares.is_empty()).then(|| Sample::new(&shares, 0.0).lower_bound(level))
        };
        let both = |count: &ConfusionCounts| (count.successes + count.failures, count.passed + count.caught);
        let agreement_lower = bound(policy.alpha, both).zip(agreement).map(|(lower, mean)| lower.min(mean));
        let half = 0.5 * policy.alpha;
        let lowers = bound(half, |count| (count.successes, count.passed))
            .zip(bound(half, |count| (count.failures, count.caught)));
        let kappa = kappa(float(successes), float(passed), float(failures), float(caught));
        let kappa_lower = lowers.zip(kappa).and_then(|((passed, caught), estimate)| {
            let (successes, failures) = (float(successes), float(failures));
            let lower = self::kappa(successes, successes * passed, failures, failures * caught)?;
            Some(lower.min(estimate))
        });
        let mut measured = Self {
            slice: slice.map(str::to_owned),
            labels: cast::to_u64(labels),
            cases: cast::to_u64(counts.len()),
            successes: cast::to_u64(successes),
            successes_passed: cast::to_u64(passed),
            failures: cast::to_u64(failures),
            failures_caught: cast::to_u64(caught),
            agreement,
            agreement_lower,
            kappa,
            kappa_lower,
            qualified: false,
            reason: String::new(),
        };
        (measured.qualified, measured.reason) = measured.passes(policy);
        measured
    }

    /// Whether the agreement reaches the thresholds, and the reason.
    fn passes(&self, policy: &JudgePolicy) -> (bool, String) {
        if self.cases < policy.min_cases {
            let why = format!("{} labelled cases, needs {}", self.cases, policy.min_cases);
            return (false, why);
        }
        if self.successes == 0 || self.failures == 0 {
            let all = if self.failures == 0 { "successes" } else { "failures" };
            return (
                false,
                format!(
                    "all {} labels are {all}, so nothing shows that it can tell the difference",
                    self.labels
                ),
            );
        }
        let percent = |share: Option<f64>| 100.0 * share.unwrap_or(0.0);
        let why = format!(
            "agreement {:.1} % (at least {:.1} %, needed {:.1} %), kappa {:.2} (at least {:.2}, needed {:.2}), {} of {} \
             failures caught, {} labels in {} cases",
            percent(self.agreement),
            percent(self.agreement_lower),
            100.0 * policy.min_agreement,
            self.kappa.unwrap_or(0.0),
            self.kappa_lower.unwrap_or(-1.0),
            policy.min_kappa,
            self.failures_caught,
            self.failures,
            self.labels,
            self.cases,
        );
        let agrees = self.agreement_lower.is_some_and(|lower| lower >= policy.min_agreement);
        let beyond_chance = self.kappa_lower.is_some_and(|lower| lower >= policy.min_kappa);
        (agrees && beyond_chance, why)
    }
}

/// Cohen's kappa (1960) of labels and scores; absent if chance alone would always agree.
fn kappa(successes: f64, passed: f64, failures: f64, caught: f64) -> Option<f64> {
    let all = successes + failures;
    if all <= 0.0 {
        return None;
    }
    let scores = passed + (failures - caught);
    let chance = (successes * scores + failures * (all - scores)) / (all * all);
    let agreed = (passed + caught) / all;
    (chance < 1.0 - 1e-12).then(|| (agreed - chance) / (1.0 - chance))
}
