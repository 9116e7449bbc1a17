//! Drift from runs to the verdict.

use std::sync::Arc;

use schemas::trial::Lane;

use crate::embedding::AnswerEmbedding;
use crate::fixture::labelled;
use crate::policy::Policy;
use crate::run::Run;
use crate::stats::stream::StreamKey;
use crate::verdict::{Decision, DriftEffect, PermutationUnit, ReasonCode, Verdict};
use crate::{Analysis, analyze_once};

/// A run of 60 good cases with answers in eight numbers around the case's own; `moved` of the cases answer otherwise.
fn run(lane: Lane, trials: usize, moved: usize) -> Run {
    let mut run = labelled(lane, &vec![vec![true; trials]; 60]);
    let model: Arc<str> = Arc::from("m");
    let key = StreamKey::new(5, lane.as_str());
    for (number, record) in run.trials.iter_mut().enumerate() {
        let case = number / trials;
        let mut stream = key.stream(number as u64);
        let turn: Vec<f32> = (0..8)
            .map(|place| {
                let own = if place == case % 7 { 1.0 } else { 0.0 };
                let other = if place == 7 && case < moved { 0.6 } else { 0.0 };
                own + other
                    + 0.2 * (f32::from(u16::try_from(stream.below(1000)).expect("small")) / 1000.0 - 0.5)
            })
            .collect();
        record.embedding = AnswerEmbedding::of_turns(&model, &[turn]).ok();
    }
    run
}

fn decide(policy: &str, before: &Run, after: &Run) -> Analysis {
    analyze_once(&Policy::parse(policy).expect("a policy"), before, after, None, 1).expect("two runs")
}

fn codes(verdict: &Verdict) -> Vec<ReasonCode> {
    verdict.reasons.iter().map(|reason| reason.code).collect()
}

#[test]
fn a_change_of_answers_is_for_review_and_blocks_only_a_neutral_build() {
    let (before, after) = (run(Lane::Baseline, 4, 0), run(Lane::Candidate, 4, 30));
    let analysis = decide("", &before, &after);
    let drift = analysis.verdict.review.drift.as_ref().expect("embedded answers");
    assert_eq!((analysis.verdict.verdict, drift.effect), (Decision::Approve, DriftEffect::Review));
    assert!(drift.changed && drift.p_min <= 0.001, "{drift:?}");
    assert!(codes(&analysis.verdict).contains(&ReasonCode::AnswersChanged));
    assert_eq!((drift.cases, drift.trials_baseline, drift.drifted.len()), (60, 240, 20));
    assert!(
        drift.drifted.iter().all(|moved| moved.case.as_str() < "case-00030" && moved.p < 0.1),
        "{:?}",
        drift.drifted
    );
    let map = analysis.drift_map.expect("embedded answers");
    assert_eq!((map.points.len(), map.points[3].case.as_str()), (60, "case-00003"));
    let neutral = decide("[drift]\nbehaviour-neutral = true", &before, &after).verdict;
    assert_eq!((neutral.verdict, codes(&neutral)[0]), (Decision::Block, ReasonCode::Deteriorated));
    assert_eq!(neutral.reasons[0].metric.as_deref(), Some("semantic.drift"));
}

#[test]
fn unchanged_answers_pass_even_a_neutral_build() {
    let policy = "[drift]\nbehaviour-neutral = true\n[metric.semantic.drift]\nmargin = 0.5";
    let (before, after) = (run(Lane::Baseline, 4, 0), run(Lane::Candidate, 4, 0));
    let verdict = decide(policy, &before, &after).verdict;
    let drift = verdict.review.drift.as_ref().expect("embedded answers");
    assert!(!drift.changed && drift.detail.starts_with("no change"), "{drift:?}");
    assert_eq!((verdict.verdict, drift.effect), (Decision::Approve, DriftEffect::Block));
    assert!(!codes(&verdict).contains(&ReasonCode::AnswersChanged));
    let swapped =
        decide("[drift]\nshared-state = true", &before, &after).verdict.review.drift.expect("embedded");
    assert_eq!(swapped.permutation_unit, PermutationUnit::Sessions);
    let named: Vec<&str> = swapped.statistics.iter().map(|statistic| statistic.name.as_str()).collect();
    assert_eq!(named, ["cross", "dispersion"]);
}

#[test]
fn a_recording_alone_is_tested_by_its_place_among_the_candidates_trials() {
    let mut before = run(Lane::Baseline, 1, 0);
    before.manifest.lane = Lane::Recorded;
    before.trials.iter_mut().for_each(|record| record.trial.lane = Lane::Recorded);
    let verdict = decide("", &before, &run(Lane::Candidate, 4, 30)).verdict;
    assert_eq!(codes(&verdict)[0], ReasonCode::BaselineIsRecording);
    let drift = verdict.review.drift.expect("embedded answers");
    let named: Vec<&str> = drift.statistics.iter().map(|statistic| statistic.name.as_str()).collect();
    assert_eq!(named, ["cross", "single"]);
    assert!(drift.changed && drift.drift.is_none() && drift.distance_baseline.is_none(), "{drift:?}");
    let same =
        decide("", &before, &run(Lane::Candidate, 4, 0)).verdict.review.drift.expect("embedded answers");
    assert!(same.p_min > 0.02, "{same:?}");
    before.manifest.selected = true;
    let picked = decide("", &before, &run(Lane::Candidate, 4, 30)).verdict;
    assert!(
        picked.review.drift.is_none(),
        "recordings picked by their outcome are not exchangeable: {:?}",
        picked.review.drift
    );
}

#[test]
fn runs_without_answers_or_of_two_models_have_no_drift_and_say_why() {
    let (before, mut after) = (run(Lane::Baseline, 4, 0), run(Lane::Candidate, 4, 0));
    let other: Arc<str> = Arc::from("other");
    after.trials[0].embedding = AnswerEmbedding::of_turns(&other, &[vec![1.0_f32; 8]]).ok();
    let analysis = decide("", &before, &after);
    assert!(analysis.verdict.review.drift.is_none() && analysis.drift_map.is_none());
    let absent = analysis.verdict.absent.iter().find(|absent| absent.name == "semantic.drift");
    assert!(absent.is_some_and(|absent| absent.reason.contains("different models")), "{absent:?}");
    let neutral = decide("[drift]\nbehaviour-neutral = true", &before, &after).verdict;
    assert_eq!((neutral.verdict, codes(&neutral)[0]), (Decision::Inconclusive, ReasonCode::MetricAbsent));
}
