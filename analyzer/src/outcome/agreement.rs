//! Agreement of an evaluator with labels, measured on every trial that has both.
//!
//! Trials of one case are correlated, so the bounds count cases. The share of a case's trials in which both agree is
//! one value between 0 and 1. The lower bound of its mean is Gaffke's, which for one trial per case equals Clopper and
//! Pearson's exact bound. Raw agreement alone is not enough: if 95 % of trials succeed, a judge that always says
//! "pass" agrees in 95 %. So a judge must also tell failures from successes: its discrimination (sensitivity plus
//! specificity minus 1) must reach a threshold, and a permutation of its scores between cases must show that they
//! depend on the labels. Cohen's kappa is reported and decides nothing: where almost all labels are alike, its bound
//! excludes a judge without an error.
//!
//! Qualification says that a judge is worth asking. What its errors cost is not assumed but corrected
//! ([`crate::metrics`]), which needs labels in both lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::id::CaseId;
use schemas::score::ScoreKind;

use super::label::label_of;
use crate::cast;
use crate::pairs::Pairs;
use crate::policy::JudgePolicy;
use crate::run::TrialRecord;
use crate::scores::Evaluator;
use crate::stats::gaffke::Sample;
use crate::stats::ratings::{self, Confusion};
use crate::stats::stream::StreamKey;
use crate::stats::variance::float;
use crate::verdict::{Agreement, EvaluatorResult, LaneAgreement};

/// Confusion counts of a case: baseline, candidate, recording.
type CaseConfusion = [Confusion; 3];

/// Confusion counts of one slice, by case.
type CountsByCase<'a> = BTreeMap<&'a CaseId, CaseConfusion>;

/// Index of the recordings in a [`CaseConfusion`].
const RECORDING: usize = 2;

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
            for (lane, arm) in [&case.baseline, &case.candidate].into_iter().enumerate() {
                arm.trials.iter().for_each(|record| collected.add(case.case, record, lane));
            }
            if let Some(record) = case.recorded_any {
                collected.add(case.case, record, RECORDING);
            }
        }
        collected
    }

    fn add(&mut self, case: &'a CaseId, record: &'a TrialRecord, lane: usize) {
        if record.scores.is_empty() {
            return;
        }
        let label = label_of(record);
        for score in &record.scores {
            let scores = self.0.entry(score.evaluator.name.as_str()).or_default();
            if lane != RECORDING {
                let version = scores.versions.entry(score.evaluator.digest.as_str());
                version.or_insert_with(|| score.evaluator.clone());
                scores.scored += usize::from(score.success.is_some());
                scores.errors += usize::from(score.success.is_none());
            }
            let counts = scores.slices.entry(score.slice.as_deref().unwrap_or_default()).or_default();
            // A label is not compared with itself.
            let other = score.evaluator.kind != ScoreKind::Label || record.trial.success.is_some();
            if let (Some(label), Some(score), true) = (label, score.success, other) {
                counts.entry(case).or_default()[lane].add(label, score);
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
            sum.iter_mut().zip(count).for_each(|(sum, lane)| sum.merge(lane));
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
        let cases: Vec<Confusion> = counts.values().map(together).collect();
        let sum = together(&cases);
        let agreed = |count: &Confusion| float(count.passed + count.caught) / float(count.labels().max(1));
        let agreement = (sum.labels() > 0).then(|| agreed(&sum));
        let bound = |level: f64, of: &dyn Fn(&Confusion) -> Option<f64>| {
            let shares: Vec<f64> = cases.iter().filter_map(of).collect();
            (!shares.is_empty()).then(|| Sample::new(&shares, 0.0).lower_bound(level))
        };
        let agreement_lower = bound(policy.alpha, &|count| (count.labels() > 0).then(|| agreed(count)))
            .zip(agreement)
            .map(|(lower, mean)| lower.min(mean));
        let half = 0.5 * policy.alpha;
        let lowers = bound(half, &Confusion::sensitivity).zip(bound(half, &Confusion::specificity));
        let [successes, passed, failures, caught] =
            [sum.successes, sum.passed, sum.failures, sum.caught].map(float);
        let kappa = kappa(successes, passed, failures, caught);
        let kappa_lower = lowers.zip(kappa).and_then(|((passed, caught), estimate)| {
            let lower = self::kappa(successes, successes * passed, failures, failures * caught)?;
            Some(lower.min(estimate))
        });
        let lanes: Vec<[Confusion; 2]> =
            counts.values().map(|[before, after, _]| [*before, *after]).collect();
        let key = |purpose: &str| StreamKey::new(0, &format!("{purpose} {}", slice.unwrap_or_default()));
        let mut measured = Self {
            slice: slice.map(str::to_owned),
            labels: cast::to_u64(sum.labels()),
            cases: cast::to_u64(counts.len()),
            successes: cast::to_u64(sum.successes),
            successes_passed: cast::to_u64(sum.passed),
            failures: cast::to_u64(sum.failures),
            failures_caught: cast::to_u64(sum.caught),
            agreement,
            agreement_lower,
            kappa,
            kappa_lower,
            ac1: agreement.and_then(|agreement| sum.ac1(agreement)),
            ac1_lower: agreement_lower.and_then(|lower| sum.ac1(lower)),
            discrimination: sum.discrimination(),
            discrimination_p: sum.discrimination().map(|_| association(&cases, key("discrimination"))),
            lanes: ["baseline", "candidate"]
                .into_iter()
                .enumerate()
                .map(|(at, lane)| lane_of(lane, at, &lanes))
                .collect(),
            equal_error_p: ratings::equal_errors(&lanes, key("equal errors")),
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
        let each = policy.min_cases.div_ceil(2);
        if let Some(lane) = self.lanes.iter().find(|lane| lane.cases < each) {
            let why = format!(
                "{} labelled cases of the {}, needs {each} in each lane: labels of one lane do not show how it errs in the other",
                lane.cases, lane.lane
            );
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
            "agreement {:.1} % (at least {:.1} %, needed {:.1} %), discrimination {:.2} (needed {:.2}; p {:.3}), AC1 {:.2}, {} of {}              failures caught, {} labels in {} cases",
            percent(self.agreement),
            percent(self.agreement_lower),
            100.0 * policy.min_agreement,
            self.discrimination.unwrap_or(0.0),
            policy.min_discrimination,
            self.discrimination_p.unwrap_or(1.0),
            self.ac1.unwrap_or(0.0),
            self.failures_caught,
            self.failures,
            self.labels,
            self.cases,
        );
        let agrees = self.agreement_lower.is_some_and(|lower| lower >= policy.min_agreement);
        let discriminates = self.discrimination.is_some_and(|share| share >= policy.min_discrimination)
            && self.discrimination_p.is_some_and(|p| p <= policy.alpha);
        (agrees && discriminates, why)
    }
}

fn together(counts: &(impl AsRef<[Confusion]> + ?Sized)) -> Confusion {
    let mut sum = Confusion::default();
    counts.as_ref().iter().for_each(|count| sum.merge(count));
    sum
}

fn association(cases: &[Confusion], key: StreamKey) -> f64 {
    let shares = cases.iter().filter(|count| count.labels() > 0).map(|count| {
        let labels = float(count.labels());
        let passing = count.passed + count.failures - count.caught;
        (float(count.successes) / labels, float(passing) / labels)
    });
    ratings::association(&shares.collect::<Vec<_>>(), key)
}

fn lane_of(lane: &str, at: usize, cases: &[[Confusion; 2]]) -> LaneAgreement {
    let own: Vec<Confusion> = cases.iter().map(|lanes| lanes[at]).collect();
    let sum = together(&own);
    LaneAgreement {
        lane: lane.to_owned(),
        cases: cast::to_u64(own.iter().filter(|count| count.labels() > 0).count()),
        successes: cast::to_u64(sum.successes),
        successes_passed: cast::to_u64(sum.passed),
        failures: cast::to_u64(sum.failures),
        failures_caught: cast::to_u64(sum.caught),
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
