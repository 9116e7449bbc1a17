//! Who decides, and when a judge may.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::score::{Score, ScoreKind};
use schemas::trial::{Lane, TrialEnding};

use super::*;
use crate::fixture::{record, run};
use crate::policy::Policy;
use crate::run::Run;
use crate::{Analysis, analyze_once};

fn evaluator(name: &str, kind: ScoreKind) -> Arc<Evaluator> {
    Arc::new(Evaluator { name: name.to_owned(), kind, priority: 0, digest: format!("{name}-1") })
}

fn says(evaluator: &Arc<Evaluator>, success: Option<bool>, slice: Option<&str>) -> TrialScore {
    TrialScore { evaluator: evaluator.clone(), success, slice: slice.map(Arc::from) }
}

/// A judge's words: (label, word, slice, how many cases).
type Cells<'a> = [(bool, bool, Option<&'a str>, usize)];

/// Two equal runs with a judge's words, two trials of each case in each lane; the first of them has a label.
fn judged(judge: &Arc<Evaluator>, cells: &Cells<'_>) -> (Run, Run) {
    labelled_in(judge, cells, [true; 2])
}

fn labelled_in(judge: &Arc<Evaluator>, cells: &Cells<'_>, labelled: [bool; 2]) -> (Run, Run) {
    let mut lanes = [Vec::new(), Vec::new()];
    let mut number = 0;
    for (label, word, slice, cases) in cells {
        for _ in 0..*cases {
            number += 1;
            for (trials, labelled) in lanes.iter_mut().zip(labelled) {
                for trial in 0..2 {
                    let mut one = record(&format!("case-{number:04}"), trial, vec![]);
                    one.trial.has_transcript = false;
                    one.trial.success = (labelled && trial == 0).then_some(*label);
                    one.scores = vec![says(judge, Some(*word), *slice)];
                    trials.push(one);
                }
            }
        }
    }
    let [baseline, candidate] = lanes;
    (run(Lane::Baseline, baseline), run(Lane::Candidate, candidate))
}

fn decide(baseline: &Run, candidate: &Run) -> Analysis {
    analyze_once(&Policy::default(), baseline, candidate, None, 1).expect("two runs")
}

fn counts(analysis: &Analysis) -> BTreeMap<&str, u64> {
    analysis.verdict.outcome.decided_by.iter().map(|count| (count.source.as_str(), count.cases)).collect()
}

fn close(found: Option<f64>, expected: f64) {
    assert!(found.is_some_and(|found| (found - expected).abs() < 1e-8), "{found:?} is not {expected}");
}

#[test]
fn published_judges_of_airline_sessions_do_not_qualify() {
    // The confusion of three judges with the true reward of 50 sessions, and the bounds that SciPy's beta.ppf gives.
    let judges = [
        ([18, 5, 11, 16], 0.68, 0.555_376_704_181_158_9, 0.368_088_467_614_533_8, -0.048_045_238_107_421_65),
        ([14, 9, 21, 6], 0.40, 0.283_130_590_915_852_7, -0.162_790_697_674_418_7, -0.511_022_614_204_325_3),
        ([22, 1, 24, 3], 0.50, 0.376_245_891_209_321_2, 0.062_968_515_742_128_96, -0.183_370_341_098_751_8),
    ];
    for ([passed, failed, let_pass, caught], agreement, agreement_lower, kappa, kappa_lower) in judges {
        let judge = evaluator("j", ScoreKind::Judge);
        let cells = [
            (true, true, None, passed),
            (true, false, None, failed),
            (false, true, None, let_pass),
            (false, false, None, caught),
        ];
        let (baseline, candidate) = judged(&judge, &cells);
        let analysis = decide(&baseline, &candidate);
        let found = &analysis.verdict.outcome.evaluators[0].overall;
        assert_eq!((found.labels, found.failures, found.failures_caught), (100, 54, 2 * caught as u64));
        close(found.agreement, agreement);
        close(found.agreement_lower, agreement_lower);
        close(found.kappa, kappa);
        close(found.kappa_lower, kappa_lower);
        assert!(!found.qualified && found.reason.contains("needed 75.0 %"), "{}", found.reason);
        // The labels cover half of the trials; the others have no source.
        assert_eq!(counts(&analysis), BTreeMap::from([("label", 50)]));
        let note = analysis.verdict.notes.iter().find(|note| note.starts_with("judge j is not qualified"));
        assert!(note.is_some(), "{:?}", analysis.verdict.notes);
    }
}

#[test]
fn a_judge_that_is_shown_to_agree_decides_only_with_labels_in_both_lanes() {
    let judge = evaluator("good", ScoreKind::Judge);
    let cells =
        [(true, true, None, 47), (true, false, None, 3), (false, true, None, 4), (false, false, None, 46)];
    let (baseline, candidate) = judged(&judge, &cells);
    let analysis = decide(&baseline, &candidate);
    let found = &analysis.verdict.outcome.evaluators[0];
    close(found.overall.kappa, 0.86);
    close(found.overall.kappa_lower, 0.642_175_269_800_264_3);
    assert!(found.qualified, "{}", found.overall.reason);
    assert_eq!(counts(&analysis), BTreeMap::from([("judge:good", 100)]));
    let success = analysis.verdict.metrics.iter().find(|metric| metric.name == "success").expect("measured");
    assert_eq!((success.baseline, success.candidate), (0.51, 0.51), "both lanes by the judge");
    let correction = success.judge.expect("a judge decides");
    assert_eq!(
        (correction.judged, correction.labelled_baseline, correction.labelled_candidate),
        (100, 100, 100)
    );
    assert!(
        success.effect.abs() < 1e-12 && correction.rogan_gladen.is_some_and(|effect| effect.abs() < 1e-12)
    );
    assert_eq!(found.overall.equal_error_p, Some(1.0), "the same errors in both lanes");
    // The same labels of the baseline alone say nothing about its errors on the candidate.
    let (baseline, candidate) = labelled_in(&judge, &cells, [true, false]);
    let analysis = decide(&baseline, &candidate);
    let found = &analysis.verdict.outcome.evaluators[0].overall;
    assert!(
        !found.qualified && found.reason.starts_with("0 labelled cases of the candidate"),
        "{}",
        found.reason
    );
    assert_eq!(counts(&analysis), BTreeMap::from([("label", 100)]));
}

#[test]
fn a_perfect_judge_of_rare_failures_qualifies_and_its_labels_bound_what_it_can_show() {
    let judge = evaluator("perfect", ScoreKind::Judge);
    let (baseline, candidate) = judged(&judge, &[(true, true, None, 57), (false, false, None, 3)]);
    let analysis = decide(&baseline, &candidate);
    let found = &analysis.verdict.outcome.evaluators[0].overall;
    assert!(found.qualified, "{}", found.reason);
    assert!(
        found.kappa_lower.is_some_and(|lower| lower < 0.4)
            && found.ac1_lower.is_some_and(|lower| lower > 0.9)
    );
    assert_eq!(counts(&analysis), BTreeMap::from([("judge:perfect", 60)]));
    // Sixty cases without an error leave room for errors in 5 % of the sessions of each lane.
    assert_eq!(analysis.verdict.verdict, crate::Decision::Inconclusive);
    let success = analysis.verdict.metrics.iter().find(|metric| metric.name == "success").expect("measured");
    assert!(success.interval[0] < -0.05 && success.interval[0] > -0.25, "{:?}", success.interval);
}

#[test]
fn a_judge_that_always_passes_agrees_and_does_not_vote() {
    let judge = evaluator("yes", ScoreKind::Judge);
    let (baseline, candidate) = judged(&judge, &[(true, true, None, 95), (false, true, None, 5)]);
    let found = decide(&baseline, &candidate).verdict.outcome.evaluators.remove(0).overall;
    assert!(found.agreement_lower.is_some_and(|lower| lower > 0.89), "{found:?}");
    assert!(!found.qualified);
    let (baseline, candidate) = judged(&judge, &[(true, true, None, 95)]);
    let found = decide(&baseline, &candidate).verdict.outcome.evaluators.remove(0).overall;
    assert!(!found.qualified && found.reason.contains("all 190 labels are successes"), "{}", found.reason);
}

#[test]
fn a_judge_qualifies_slice_by_slice() {
    let judge = evaluator("j", ScoreKind::Judge);
    let (good, bad, few) = (Some("d=good"), Some("d=bad"), Some("d=few"));
    let cells = [
        (true, true, good, 30),
        (false, false, good, 30),
        (true, true, bad, 20),
        (false, true, bad, 20),
        (true, true, few, 5),
        (false, false, few, 5),
    ];
    let (baseline, mut candidate) = judged(&judge, &cells);
    let analysis = decide(&baseline, &candidate);
    let slices = &analysis.verdict.outcome.evaluators[0].slices;
    let votes: Vec<_> =
        slices.iter().map(|one| (one.slice.as_deref().unwrap_or(""), one.qualified)).collect();
    assert_eq!(votes, [("d=bad", false), ("d=few", false), ("d=good", true)]);
    assert!(slices[1].reason.contains("10 labelled cases, needs 30"), "{}", slices[1].reason);
    assert_eq!(counts(&analysis), BTreeMap::from([("judge:j", 60), ("label", 50)]));
    // Another version of the judge in one lane: neither word counts any more.
    let other = Arc::new(Evaluator { digest: "j-2".to_owned(), ..(*judge).clone() });
    candidate.trials.iter_mut().for_each(|one| one.scores[0].evaluator = other.clone());
    let analysis = decide(&baseline, &candidate);
    let found = &analysis.verdict.outcome.evaluators[0];
    assert!(!found.qualified && found.overall.reason.contains("two versions"), "{}", found.overall.reason);
    assert_eq!(counts(&analysis), BTreeMap::from([("label", 110)]));
}

#[test]
fn one_source_decides_a_case_and_the_first_in_order_where_several_cover_it() {
    let (check, person) = (evaluator("check", ScoreKind::Command), evaluator("people", ScoreKind::Label));
    let mut lanes = [Vec::new(), Vec::new()];
    for trials in &mut lanes {
        for (case, people, checked) in
            [("both", true, true), ("people", true, false), ("check", false, true), ("nobody", false, false)]
        {
            let mut one = record(case, 0, vec![]);
            one.scores.push(says(&check, checked.then_some(false), None));
            one.scores.push(says(&person, people.then_some(true), None));
            trials.push(one);
        }
        let mut timed_out = record("timed-out", 0, vec![]);
        timed_out.trial.ending = TrialEnding::TimedOut;
        trials.push(timed_out);
    }
    let [baseline, candidate] = lanes;
    let analysis = decide(&run(Lane::Baseline, baseline), &run(Lane::Candidate, candidate));
    let expected = [("evaluator:check", 1), ("label:people", 3), ("none", 1)];
    assert_eq!(counts(&analysis), BTreeMap::from(expected));
    let success = analysis.verdict.metrics.iter().find(|metric| metric.name == "success").expect("measured");
    assert_eq!(success.cases, 4, "the case that nobody speaks of is missing, the one without an end failed");
    assert!((success.baseline - 0.5).abs() < 1e-12, "{}", success.baseline);
    let errors: Vec<_> = analysis.verdict.outcome.evaluators.iter().map(|one| one.errors).collect();
    assert_eq!(errors, [4, 4]);
}

fn row(session: &str, digest: &str, scored_at: i64, success: Option<bool>) -> Score {
    let trial = record("c", 0, vec![]).trial;
    Score {
        tenant: trial.tenant,
        agent: trial.agent,
        lane: trial.lane,
        case: trial.case,
        trial: 0,
        session: schemas::id::SessionId::parse(session).expect("id"),
        trial_started_at: None,
        evaluator: "e".to_owned(),
        kind: ScoreKind::Http,
        priority: 0,
        evaluator_digest: digest.to_owned(),
        scored_at,
        success,
        value: None,
        reason: None,
        slice: None,
        model: None,
        input_tokens: None,
        output_tokens: None,
        cost_usd: None,
        error: success.is_none().then(|| "no answer".to_owned()),
    }
}

#[test]
fn of_rows_the_last_version_holds_and_an_error_never_hides_a_score() {
    let mut one = run(Lane::Candidate, vec![record("c", 0, vec![]), record("c", 1, vec![])]);
    let rows = vec![
        row("c~0", "new", 7, None),
        row("c~0", "old", 5, Some(false)),
        row("c~0", "new", 8, Some(true)),
        row("c~0", "new", 9, None),
        row("c~1", "new", 7, None),
        row("gone", "new", 7, Some(true)),
    ];
    attach_scores(&mut one, rows.clone());
    let found = |place: usize| one.trials[place].scores.iter().map(|score| score.success).collect::<Vec<_>>();
    assert_eq!((found(0), found(1)), (vec![Some(true)], vec![None]));
    assert!(
        one.notes[0].contains("earlier versions of e") && one.notes[1].contains("1 sessions"),
        "{:?}",
        one.notes
    );
    let mut turned = run(Lane::Candidate, vec![record("c", 0, vec![]), record("c", 1, vec![])]);
    attach_scores(&mut turned, rows.into_iter().rev().collect());
    assert_eq!(turned, one, "the order of the rows does not matter");
}
