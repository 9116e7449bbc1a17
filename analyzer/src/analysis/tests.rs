//! Whole decisions on synthetic runs whose truth is known.

mod misses;
mod procedure;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use schemas::id::CaseId;
use schemas::trial::{Fidelity, Lane, TrialEnding};

use super::*;
use crate::decide::{self, MissingDataScenario, Tests};
use crate::fixture::{labelled, read, record, run, write};
use crate::metrics::Setting;
use crate::run::{ToolCall, TrialRecord};
use crate::verdict::{MetricState, ReasonCode};

fn decide(policy: &Policy, baseline: &Run, candidate: &Run) -> Verdict {
    analyze_once(policy, baseline, candidate, None, 1).expect("two runs").verdict
}

fn default(baseline: &Run, candidate: &Run) -> Verdict {
    decide(&Policy::default(), baseline, candidate)
}

fn codes(verdict: &Verdict) -> Vec<ReasonCode> {
    verdict.reasons.iter().map(|reason| reason.code).collect()
}

/// `bad` of `cases` cases fail all their trials.
fn outcomes(cases: usize, trials: usize, bad: usize) -> Vec<Vec<bool>> {
    (0..cases).map(|case| vec![case >= bad; trials]).collect()
}

fn pair(before: &[Vec<bool>], after: &[Vec<bool>]) -> (Run, Run) {
    (labelled(Lane::Baseline, before), labelled(Lane::Candidate, after))
}

#[test]
fn a_regression_is_blocked_and_identical_builds_are_approved() {
    let (before, after) = pair(&outcomes(100, 3, 0), &outcomes(100, 3, 25));
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Block, ReasonCode::Deteriorated));
    assert_eq!(verdict.reasons[0].metric.as_deref(), Some("success"));
    let (before, after) = pair(&outcomes(100, 3, 5), &outcomes(100, 3, 5));
    let verdict = default(&before, &after);
    assert_eq!(verdict.verdict, Decision::Approve);
    assert_eq!(codes(&verdict), vec![ReasonCode::NonInferior; 2]);
}

#[test]
fn below_the_floor_nothing_is_approved_and_harm_still_blocks() {
    // 28 cases that all improve pass the test itself; the floor still forbids approval.
    let (before, after) = pair(&outcomes(28, 3, 28), &outcomes(28, 3, 0));
    let any_baseline = Policy::parse("least-baseline-success = 0").expect("a policy");
    let verdict = decide(&any_baseline, &before, &after);
    assert!(verdict.metrics[0].p_approve < 0.001);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::BelowFloor));
    let (before, after) = pair(&outcomes(28, 3, 0), &outcomes(28, 3, 28));
    assert_eq!(default(&before, &after).verdict, Decision::Block);
}

#[test]
fn nothing_is_approved_against_a_baseline_that_fails() {
    let (before, after) = pair(&outcomes(200, 3, 200), &outcomes(200, 3, 200));
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::BaselineFails));
    let detail = &verdict.reasons[0].detail;
    assert!(detail.starts_with("the baseline fails: success 0.0 % of 600 trials"), "{detail}");
    // The bound is the policy's: 15 % are too few by default.
    let (before, after) = pair(&outcomes(200, 3, 170), &outcomes(200, 3, 170));
    assert_eq!(codes(&default(&before, &after))[0], ReasonCode::BaselineFails);
    let lower = Policy::parse("least-baseline-success = 0.15").expect("a policy");
    assert_eq!(decide(&lower, &before, &after).verdict, Decision::Approve);
    // Other required metrics do not hide it, and labels that every trial has are legitimate.
    let other = Policy::parse("metrics = [\"pass_k\"]").expect("a policy");
    assert_eq!(codes(&decide(&other, &before, &after))[0], ReasonCode::BaselineFails);
    let (before, after) = pair(&outcomes(200, 3, 0), &outcomes(200, 3, 0));
    assert_eq!(default(&before, &after).verdict, Decision::Approve);
}

#[test]
fn an_invariant_that_the_baseline_breaks_once_still_blocks_whatever_metrics_are_listed() {
    let lane = |lane: Lane, breaks: &dyn Fn(usize, u32) -> bool| {
        let records = (0..200).flat_map(|case| (0..5).map(move |number| (case, number)));
        let records = records.map(|(case, number)| {
            let times = if breaks(case, number) { 2 } else { 1 };
            let mut record = record(&format!("case-{case:03}"), number, vec![write("refund", "{}"); times]);
            record.trial.success = Some(true);
            record
        });
        run(lane, records.collect())
    };
    let before = lane(Lane::Baseline, &|case, number| case == 199 && number == 0);
    let after = lane(Lane::Candidate, &|case, number| case < 40 && number == 0);
    let policy = Policy::parse("metrics = [\"success\"]\n[invariant.idempotency]").expect("a policy");
    let verdict = decide(&policy, &before, &after);
    let metric = verdict.metrics.iter().find(|metric| metric.name == "invariant.idempotency").expect("rate");
    assert!(metric.p_block < 3e-11 && metric.decides && metric.required, "{metric:?}");
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Block, ReasonCode::Deteriorated));
    assert_eq!(verdict.reasons[0].metric.as_deref(), Some("invariant.idempotency"));
    // The same rate in both lanes is no reason to block, and 200 sessions show it within the margin.
    assert_eq!(
        decide(&policy, &before, &lane(Lane::Candidate, &|case, number| case + 1 == 200 - 1 && number == 0))
            .verdict,
        Decision::Approve
    );
}

#[test]
fn a_required_metric_that_cannot_fail_approves_nothing() {
    let lane = |lane: Lane, wanted: Lane| {
        let records = (0..100).flat_map(|case| [(case, lane), (case, Lane::Recorded)]);
        let records = records.map(|(case, of)| {
            let mut record = record(&format!("case-{case:03}"), 0, vec![read("find", "{}")]);
            record.trial.success = Some(true);
            record.trial.lane = of;
            record
        });
        run(wanted, records.collect())
    };
    let before = lane(Lane::Baseline, Lane::Baseline);
    let after = lane(Lane::Candidate, Lane::Candidate);
    assert_eq!(default(&before, &after).verdict, Decision::Approve);
    let policy = Policy::parse("[metric.effects.missing]\nrequired = true").expect("a policy");
    let verdict = decide(&policy, &before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::MetricAbsent));
}

#[test]
fn an_inconclusive_verdict_says_what_it_takes() {
    let before: Vec<Vec<bool>> = (0..80).map(|case| vec![case % 4 != 0]).collect();
    let after: Vec<Vec<bool>> = (0..80).map(|case| vec![case % 4 != 1]).collect();
    let (before, after) = pair(&before, &after);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::Underpowered]));
    // The standard error of 80 cases is .08, so the effect may well be worse than the margin of .05: the probability of
    // that is about a quarter, and no number of cases is promised to approve with .80.
    let need = verdict.need;
    assert!((0.60..0.80).contains(&need.limit_approve), "{need:?}");
    assert!(need.predicted_approve >= 0.9 * need.limit_approve && need.predicted_approve < 0.80, "{need:?}");
    assert!(need.cases > 1252, "more than the formula at no change: {need:?}");
    assert!(need.predicted_block > 0.05, "{need:?}");
}

#[test]
fn order_and_numbers_of_trials_do_not_change_a_byte() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut drawn = |cases: usize| {
        (0..cases).map(|_| (0..4).map(|_| random.next_u32() % 10 != 0).collect()).collect::<Vec<Vec<bool>>>()
    };
    let (before, after) = pair(&drawn(40), &drawn(40));
    let sequences = |run: &mut Run| {
        for record in &mut run.trials {
            record.trial.has_transcript = true;
            let tools = ["find", "show", "list"];
            let pick = record.trial.case.as_str().len() + record.trial.trial as usize;
            record.calls = vec![read(tools[pick % 3], "{}"), read(tools[(pick / 2) % 3], "{\"a\":1}")];
            record.trial.duration_us = Some(1000 + 137 * u64::from(record.trial.trial));
        }
    };
    let (mut before, mut after) = (before, after);
    sequences(&mut before);
    sequences(&mut after);
    let bytes =
        |before: &Run, after: &Run| serde_json::to_string(&default(before, after)).expect("a verdict");
    let first = bytes(&before, &after);
    for run in [&mut before, &mut after] {
        run.trials.reverse();
        for record in &mut run.trials {
            record.trial.trial = 3 - record.trial.trial;
        }
    }
    assert_eq!(first, bytes(&before, &after));
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    assert_eq!(first, single.install(|| bytes(&before, &after)));
}

#[test]
fn missing_trials_are_read_both_ways() {
    let (before, mut after) = pair(&outcomes(100, 1, 0), &outcomes(100, 1, 0));
    assert_eq!(default(&before, &after).verdict, Decision::Approve);
    for record in after.trials.iter_mut().take(12) {
        record.trial.complete = Some(false);
    }
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!((verdict.pairs.incomplete, verdict.pairs.missing_candidate), (12, 12));
    // An interrupted run: trials are planned and do not exist.
    let (before, mut after) = pair(&outcomes(100, 1, 0), &outcomes(100, 1, 0));
    after.manifest.planned_trials = Some(1);
    after.manifest.planned_cases = Some(100);
    after.trials.truncate(88);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    // A time-out is a failure and not a missing trial.
    let (before, mut after) = pair(&outcomes(100, 1, 0), &outcomes(100, 1, 0));
    for record in after.trials.iter_mut().take(20) {
        record.trial.ending = TrialEnding::TimedOut;
        record.trial.success = None;
    }
    assert_eq!(default(&before, &after).verdict, Decision::Block);
}

/// Marks the trials of a run as lost to the provider, with an answer that would count as a failure.
fn lose(run: &mut Run, wanted: impl Fn(usize) -> bool) {
    for (number, record) in run.trials.iter_mut().enumerate().filter(|(number, _)| wanted(*number)) {
        record.trial.ending = TrialEnding::Infrastructure;
        record.trial.provider_failures = Some(1);
        record.trial.success = Some(number % 2 == 0);
        record.trial.answer = Some("Sorry".to_owned());
        record.trial.duration_us = Some(60_000_000);
    }
}

#[test]
fn trials_that_the_provider_failed_neither_block_nor_approve() {
    let policy =
        "[invariant.answer-schema]\nschema = { enum = [\"fine\"] }\n[metric.latency]\ndecides = true";
    let policy = Policy::parse(policy).expect("a policy");
    let (mut before, mut after) = pair(&outcomes(300, 1, 0), &outcomes(300, 1, 0));
    for record in before.trials.iter_mut().chain(&mut after.trials) {
        record.trial.answer = Some("fine".to_owned());
        record.trial.duration_us = Some(1_000);
    }
    // Three in ten trials of one lane, whose agent says "Sorry" after a minute.
    let mut lossy = after.clone();
    lose(&mut lossy, |number| number % 10 < 3);
    let verdict = decide(&policy, &before, &lossy);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::ProviderFailures));
    let detail = &verdict.reasons[0].detail;
    assert!(detail.contains("90 of 300 trials of the candidate (30.0 %, 90 of them"), "{detail}");
    let lost = [verdict.pairs.no_outcome_baseline, verdict.pairs.no_outcome_candidate];
    assert_eq!(lost.map(|lane| lane.infrastructure), [0, 90]);
    assert_eq!((verdict.pairs.missing_candidate, verdict.invariants[0].violations), (90, 0));
    // In the other lane.
    let mut lossy = before.clone();
    lose(&mut lossy, |number| number % 10 < 3);
    let verdict = decide(&policy, &lossy, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::ProviderFailures));
    // All trials of both lanes: the cause is named, not its effect that no case is left.
    lose(&mut before, |_| true);
    let mut lossy = after.clone();
    lose(&mut lossy, |_| true);
    let verdict = decide(&policy, &before, &lossy);
    assert_eq!(verdict.verdict, Decision::Inconclusive);
    assert!(codes(&verdict).starts_with(&[ReasonCode::ProviderFailures; 2]), "{:?}", codes(&verdict));
}

#[test]
fn a_few_trials_that_the_provider_failed_are_tolerated_and_harm_done_before_still_blocks() {
    let (before, mut after) = pair(&outcomes(300, 1, 0), &outcomes(300, 1, 0));
    lose(&mut after, |number| number < 3);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, verdict.pairs.no_outcome_candidate.infrastructure), (Decision::Approve, 3));
    let strict = Policy::parse("[fidelity]\nmax-provider-failures = 0.005").expect("a policy");
    let verdict = decide(&strict, &before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::ProviderFailures));
    // What a lost trial called, it called; what it repeated may come from the failure.
    let lost = |text: &str, calls: Vec<ToolCall>| {
        let policy = Policy::parse(text).expect("a policy");
        let before = replayed(Lane::Baseline, 80, refund);
        let mut after = replayed(Lane::Candidate, 80, refund);
        let own =
            after.trials.iter_mut().find(|record| record.trial.lane == Lane::Candidate).expect("a trial");
        own.calls = calls;
        own.trial.ending = TrialEnding::Infrastructure;
        decide(&policy, &before, &after)
    };
    let evil = vec![write("refund", r#"{"note":"evil"}"#)];
    let verdict = lost("[invariant.forbidden]\nliterals = [\"evil\"]", evil);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Block, ReasonCode::InvariantViolated));
    let verdict = lost("[invariant.idempotency]\ntools = [\"refund\"]", refund_twice(0));
    assert_ne!(verdict.verdict, Decision::Block, "{:?}", verdict.reasons);
}

#[test]
fn cases_of_one_run_only_are_missing_in_the_other() {
    // Half of the cases are missing, and the remaining ones all succeed.
    let (before, mut after) = pair(&outcomes(300, 1, 0), &outcomes(300, 1, 0));
    after.trials.truncate(150);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!((verdict.pairs.missing_baseline, verdict.pairs.missing_candidate), (0, 150));
    assert!(
        verdict
            .notes
            .iter()
            .any(|note| note.starts_with("candidate trials without an outcome: 150 (150 not in the run);"))
    );
    // The reverse: the baseline's behaviour there is unknown.
    let (mut before, after) = pair(&outcomes(300, 2, 0), &outcomes(300, 2, 0));
    before.trials.retain(|record| record.trial.case.as_str() < "case-00150");
    let verdict = default(&before, &after);
    assert_eq!(verdict.pairs.missing_baseline, 300);
    // A good candidate cannot be worse than any baseline there.
    assert_eq!(verdict.verdict, Decision::Approve);
    // Cases that only the candidate has do not count towards the floor.
    before.trials.retain(|record| record.trial.case.as_str() < "case-00030");
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::BelowFloor));
    // A few missing trials change nothing and are still reported.
    let (before, mut after) = pair(&outcomes(300, 1, 0), &outcomes(300, 1, 0));
    after.trials.truncate(298);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, verdict.pairs.missing_candidate), (Decision::Approve, 2));
    assert!(
        verdict
            .notes
            .iter()
            .any(|note| note.starts_with("candidate trials without an outcome: 2 (2 not in the run);"))
    );
}

#[test]
fn a_plan_that_was_not_finished_approves_nothing() {
    let planned = |mut run: Run, cases: u32, trials: u32| {
        run.manifest.planned_cases = Some(cases);
        run.manifest.planned_trials = Some(trials);
        run
    };
    let (before, after) = pair(&outcomes(100, 1, 0), &outcomes(100, 1, 0));
    let (before, after) = (planned(before, 300, 1), planned(after, 300, 1));
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!((verdict.pairs.missing_baseline, verdict.pairs.missing_candidate), (200, 200));
    // Five trials of each case are planned, and the candidate has four.
    let (before, after) = pair(&outcomes(300, 5, 0), &outcomes(300, 4, 0));
    let (before, after) = (planned(before, 300, 5), planned(after, 300, 5));
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!(verdict.pairs.missing_candidate, 300);
}

#[test]
fn a_required_cost_or_tail_with_missing_trials_is_not_approved() {
    let timed = |mut run: Run| {
        for record in &mut run.trials {
            record.trial.duration_us = Some(1000);
            record.trial.cost_usd = Some(0.01);
        }
        run
    };
    let (before, after) = pair(&outcomes(300, 1, 0), &outcomes(300, 1, 0));
    let (before, mut after) = (timed(before), timed(after));
    let cost = Policy::parse("metrics = [\"cost\"]\n[metric.cost]\nrequired = true").expect("a policy");
    let tail = "metrics = [\"tail_latency\"]\n[metric.tail_latency]\nrequired = true\nbound-ms = 5";
    let tail = Policy::parse(tail).expect("a policy");
    for policy in [&cost, &tail] {
        assert_eq!(decide(policy, &before, &after).verdict, Decision::Approve);
    }
    after.trials.truncate(240);
    for policy in [&cost, &tail] {
        let verdict = decide(policy, &before, &after);
        assert_eq!(
            (verdict.verdict, codes(&verdict)),
            (Decision::Inconclusive, vec![ReasonCode::MissingTrials]),
            "{:?}",
            verdict.reasons
        );
    }
}

#[test]
fn runs_may_have_different_numbers_of_trials_and_uneven_cases_lack_some() {
    let (before, after) = pair(&outcomes(100, 5, 0), &outcomes(100, 3, 0));
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Approve, vec![ReasonCode::NonInferior; 2]));
    assert_eq!((verdict.pairs.missing_baseline, verdict.pairs.missing_candidate), (0, 0));
    assert!(!verdict.notes.iter().any(|note| note.contains("without an outcome")), "{:?}", verdict.notes);
    // Rows that were not written leave fewer trials in some cases.
    let (before, mut after) = pair(&outcomes(100, 5, 0), &outcomes(100, 5, 0));
    after.trials.retain(|record| record.trial.trial < 4 || record.trial.case.as_str() < "case-00060");
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!((verdict.pairs.missing_baseline, verdict.pairs.missing_candidate), (0, 40));
    assert_eq!(verdict.pairs.no_outcome_candidate.not_written, 40);
    // A declared plan takes precedence.
    after.manifest.planned_trials = Some(4);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, verdict.pairs.missing_candidate), (Decision::Approve, 0));
    // One row of each case is not written, and the numbers of the others give it away.
    let (before, mut after) = pair(&outcomes(100, 3, 0), &outcomes(100, 3, 0));
    let case_number =
        |record: &TrialRecord| record.trial.case.as_str()[5..].parse::<u32>().expect("a number");
    after.trials.retain(|record| record.trial.trial != case_number(record) % 3);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!(verdict.pairs.missing_candidate, 100);
}

#[test]
fn trials_without_a_label_are_missing_whatever_their_ending() {
    for ending in [TrialEnding::Complete, TrialEnding::Failed] {
        for (reason, expected) in [(schemas::trial::UNREADABLE_LABEL, 40), (schemas::trial::BLANK_LABEL, 0)] {
            let (before, mut after) = pair(&outcomes(100, 3, 0), &outcomes(100, 3, 0));
            for record in after.trials.iter_mut().filter(|record| record.trial.trial == 0).take(40) {
                record.trial.success = None;
                record.trial.outcome_missing = Some(reason.to_owned());
                record.trial.ending = ending;
            }
            let verdict = default(&before, &after);
            let without = verdict.pairs.no_outcome_candidate;
            assert_eq!(without.unreadable_label, expected, "{ending:?} {reason}");
            assert_eq!(verdict.pairs.missing_candidate, without.total());
            if ending == TrialEnding::Complete || expected > 0 {
                assert_eq!(without.unreadable_label + without.blank_label, 40);
                assert_eq!(codes(&verdict), [ReasonCode::MissingTrials], "{ending:?} {reason}");
            }
            assert_ne!(verdict.verdict, Decision::Approve);
        }
    }
}

#[test]
fn imported_rows_that_name_no_trial_are_missing_trials() {
    let lost = |rows: u64| schemas::trial::ImportRecord { lost_rows: rows, ..Default::default() };
    let (before, mut after) = pair(&outcomes(100, 3, 0), &outcomes(100, 3, 0));
    after.imports = vec![lost(50), lost(10)];
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::MissingTrials]));
    assert_eq!((verdict.pairs.no_outcome_candidate.unattributed, verdict.pairs.missing_baseline), (60, 0));
    // Rows that may be those of trials that the run lacks count once.
    after.trials.retain(|record| record.trial.trial > 0 || record.trial.case.as_str() >= "case-00020");
    let verdict = default(&before, &after);
    let without = verdict.pairs.no_outcome_candidate;
    assert_eq!((without.not_written, without.unattributed, verdict.pairs.missing_candidate), (20, 40, 60));
}

#[test]
fn a_corpus_picked_by_its_outcome_supports_no_mean() {
    let (mut before, after) = pair(&outcomes(100, 3, 0), &outcomes(100, 3, 30));
    before.manifest.selected = true;
    let verdict = default(&before, &after);
    assert_eq!(
        (verdict.verdict, codes(&verdict)),
        (Decision::Inconclusive, vec![ReasonCode::CorpusSelected])
    );
    let (mut before, after) = pair(&outcomes(100, 1, 0), &outcomes(100, 1, 30));
    before.manifest.lane = Lane::Recorded;
    before.trials.iter_mut().for_each(|record| record.trial.lane = Lane::Recorded);
    let verdict = default(&before, &after);
    assert_eq!(
        (verdict.verdict, codes(&verdict)),
        (Decision::Inconclusive, vec![ReasonCode::BaselineIsRecording])
    );
}

/// A replayed run: each case refunds once; `calls` gives the calls of a trial.
fn replayed(lane: Lane, cases: usize, calls: impl Fn(usize) -> Vec<ToolCall>) -> Run {
    let mut records = Vec::new();
    for case in 0..cases {
        let name = format!("case-{case:03}");
        let mut trial = record(&name, 0, calls(case));
        trial.trial.fidelity = Some(Fidelity { exact: 2, ..Fidelity::default() });
        let mut recording = record(&name, 0, refund(case));
        recording.trial.lane = Lane::Recorded;
        records.extend([trial, recording]);
    }
    run(lane, records)
}

fn refund(case: usize) -> Vec<ToolCall> {
    vec![read("find", "{}"), write("refund", &format!("{{\"order\":{case}}}"))]
}

fn refund_twice(case: usize) -> Vec<ToolCall> {
    let mut calls = refund(case);
    calls.extend(refund(case));
    calls
}

#[test]
fn without_labels_the_end_state_decides_and_a_second_refund_blocks() {
    let before = replayed(Lane::Baseline, 100, refund);
    let verdict = default(&before, &replayed(Lane::Candidate, 100, refund));
    assert_eq!(verdict.verdict, Decision::Approve);
    assert!(verdict.notes.iter().any(|note| note.contains("end-state check")), "{:?}", verdict.notes);
    let careless =
        replayed(Lane::Candidate, 100, |case| if case < 20 { refund_twice(case) } else { refund(case) });
    let analysis = analyze_once(&Policy::default(), &before, &careless, None, 1).expect("two runs");
    assert_eq!(analysis.verdict.verdict, Decision::Block);
    assert_eq!(analysis.verdict.reasons[0].metric.as_deref(), Some("effects.duplicated"));
    let seen = analysis.findings.iter().find(|finding| finding.subject == "effects.duplicated");
    assert!(
        seen.is_some_and(|finding| finding.detail.contains("refund({\"order\":0}) made 2 times")),
        "{seen:?}"
    );
    // Skipping the refund in a fifth of the cases breaks the end state and misses an effect.
    let lazy = replayed(Lane::Candidate, 100, |case| if case < 20 { vec![] } else { refund(case) });
    let verdict = default(&before, &lazy);
    let named: Vec<_> = verdict.reasons.iter().filter_map(|reason| reason.metric.as_deref()).collect();
    assert_eq!((verdict.verdict, named), (Decision::Block, vec!["success", "effects.missing"]));
}

#[test]
fn a_declared_invariant_blocks_once_and_only_where_the_baseline_keeps_it() {
    let policy = Policy::parse("[invariant.idempotency]\non = true").expect("a policy");
    let before = replayed(Lane::Baseline, 100, refund);
    let once =
        replayed(Lane::Candidate, 100, |case| if case == 7 { refund_twice(case) } else { refund(case) });
    assert_eq!(default(&before, &once).verdict, Decision::Approve);
    let verdict = decide(&policy, &before, &once);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Block, ReasonCode::InvariantViolated));
    assert_eq!((verdict.invariants[0].violations, verdict.invariants[0].cases), (1, 100));
    let sloppy =
        replayed(Lane::Baseline, 100, |case| if case == 9 { refund_twice(case) } else { refund(case) });
    let verdict = decide(&policy, &sloppy, &once);
    assert_ne!(verdict.verdict, Decision::Block);
    assert!(codes(&verdict).contains(&ReasonCode::BaselineViolatesInvariant));
    assert!(verdict.metrics.iter().any(|metric| metric.name == "invariant.idempotency" && metric.decides));
    let unseen = Policy::parse("[invariant.response-time]\nmax-ms = 5").expect("a policy");
    assert!(codes(&decide(&unseen, &before, &once)).contains(&ReasonCode::InvariantUnchecked));
}

#[test]
fn a_replay_that_misses_too_much_is_not_approved() {
    let before = replayed(Lane::Baseline, 100, refund);
    let mut after = replayed(Lane::Candidate, 100, refund);
    let own = |record: &&mut TrialRecord| record.trial.lane == Lane::Candidate;
    for record in after.trials.iter_mut().filter(own).take(30) {
        record.trial.fidelity = Some(Fidelity { exact: 1, missed: 1, ..Fidelity::default() });
    }
    let verdict = default(&before, &after);
    assert_eq!(
        (verdict.verdict, codes(&verdict)),
        (Decision::Inconclusive, vec![ReasonCode::ReplayLeftRecording])
    );
}

#[test]
fn unscorable_is_absent_where_no_trial_broke_off() {
    let before = replayed(Lane::Baseline, 100, refund);
    let mut after = replayed(Lane::Candidate, 100, refund);
    let verdict = default(&before, &after);
    assert!(verdict.metrics.iter().all(|metric| metric.name != "unscorable"));
    let absent = verdict.absent.iter().find(|absent| absent.name == "unscorable");
    assert!(absent.is_some_and(|absent| absent.reason.contains("fidelity.max-missed")), "{absent:?}");
    let own = |record: &&mut TrialRecord| record.trial.lane == Lane::Candidate;
    for record in after.trials.iter_mut().filter(own).take(30) {
        record.trial.ending = TrialEnding::Truncated;
    }
    let verdict = default(&before, &after);
    let state = |metric: &MetricResult| (metric.name == "unscorable").then_some(metric.state);
    assert_eq!(verdict.metrics.iter().find_map(state), Some(MetricState::Deteriorated));
}

#[test]
fn runs_that_cannot_be_compared_say_so() {
    let (before, mut after) = pair(&outcomes(60, 1, 0), &outcomes(60, 1, 0));
    for record in &mut after.trials {
        record.trial.case = CaseId::parse(&format!("other-{}", record.trial.case)).expect("id");
    }
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Inconclusive, vec![ReasonCode::NoPairs]));
    let doubled = after.trials[0].clone();
    after.trials.push(doubled);
    let error = analyze_once(&Policy::default(), &before, &after, None, 1).expect_err("a trial twice");
    assert!(matches!(error, AnalyzeError::Twice { trial: 0, .. }));
    after.trials.clear();
    let error = analyze_once(&Policy::default(), &before, &after, None, 1).expect_err("nothing");
    assert!(matches!(error, AnalyzeError::Empty { lane: "candidate", .. }));
}

#[test]
fn listed_metrics_alone_decide_and_margins_can_be_set() {
    let (before, after) = pair(&outcomes(40, 3, 0), &outcomes(40, 3, 0));
    let wide = Policy::parse("metrics = [\"success\"]\n[metric.success]\nmargin = 0.10").expect("a policy");
    let verdict = decide(&wide, &before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)), (Decision::Approve, vec![ReasonCode::NonInferior]));
    let others = verdict.metrics.iter().filter(|metric| metric.name != "success");
    assert!(others.into_iter().all(|metric| !metric.decides && !metric.required));
    assert_eq!(default(&before, &after).verdict, Decision::Inconclusive);
}

/// A source of trials: each case has its own success probability, equal in both lanes unless broken.
struct Draws(ChaCha8Rng);

impl Draws {
    fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / 4_294_967_296.0
    }

    fn case(&mut self, chance: f64, trials: usize) -> Vec<bool> {
        (0..trials).map(|_| self.unit() < chance).collect()
    }
}

#[test]
fn identical_builds_are_blocked_no_more_often_than_alpha() {
    // 80 rollouts of identical builds; at 5 % the 99.9 % limit is 11.
    const ROLLOUTS: u64 = 80;
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(11));
    let policy = Policy::default();
    let mut blocked = 0;
    for seed in 0..ROLLOUTS {
        let chances: Vec<f64> =
            (0..25).map(|_| if draws.unit() < 0.6 { 0.98 } else { draws.unit() }).collect();
        let before: Vec<_> = chances.iter().map(|chance| draws.case(*chance, 3)).collect();
        let after: Vec<_> = chances.iter().map(|chance| draws.case(*chance, 3)).collect();
        let (before, after) = pair(&before, &after);
        let pairs = Pairs::new(&before, &after, None).expect("two runs");
        let measured = metrics::measure(Setting { policy: &policy, pairs: &pairs, seed }, &[]).metrics;
        let tests = Tests {
            alpha: policy.alpha,
            seed,
            strict: false,
            ranks: &[],
            units: &crate::units::CaseUnits::CASES,
            shared_state: false,
            calibration: None,
        };
        let tested = decide::test(&measured, MissingDataScenario::Observed, &tests);
        blocked += u64::from(decide::answer(&measured, &tested) == Decision::Block);
    }
    assert!(blocked <= 11, "{blocked} of {ROLLOUTS} identical builds were blocked");
}

#[test]
fn a_build_that_breaks_just_the_margin_is_approved_no_more_often_than_alpha() {
    // 600 rollouts that break each case with a chance of .05, near the ceiling; at 5 % the 99.9 % limit is 47. Student's
    // t approves about twice as many.
    const ROLLOUTS: u64 = 600;
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(12));
    for cases in [59, 100] {
        let mut approved = 0;
        for _ in 0..ROLLOUTS {
            let contrasts: Vec<f64> =
                (0..cases).map(|_| if draws.unit() < 0.05 { -1.0 } else { 0.0 }).collect();
            let p = crate::stats::gaffke::Sample::new(&contrasts, -1.0).p_value(0.05);
            approved += u64::from(p <= 0.05);
        }
        assert!(approved <= 47, "{approved} of {ROLLOUTS} were approved at {cases} cases");
        assert!(approved > 0, "the test never approves anything at {cases} cases");
    }
}

#[test]
fn states_follow_from_the_two_tests() {
    // Two of 400 cases break: not proven worse, and within the margin.
    let (before, after) = pair(&outcomes(400, 1, 0), &outcomes(400, 1, 2));
    assert_eq!(default(&before, &after).metrics[0].state, MetricState::NonInferior);
    // Eight of 400 break: proven worse (1/256), and still within five points.
    let (before, after) = pair(&outcomes(400, 1, 0), &outcomes(400, 1, 8));
    let verdict = default(&before, &after);
    assert_eq!(verdict.metrics[0].state, MetricState::DeterioratedWithinMargin);
    assert_eq!(
        (verdict.verdict, codes(&verdict)[1]),
        (Decision::Approve, ReasonCode::DeterioratedWithinMargin)
    );
}
