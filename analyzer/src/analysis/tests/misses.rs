//! Trials with a call that the recording could not answer: missing in both directions, and never a fact about the build.

use schemas::trial::Divergence;

use super::*;

/// Marks a trial: the call at `seq` of tool refund found no recorded answer.
fn miss(record: &mut TrialRecord, seq: u32, exact: u32) {
    record.trial.fidelity = Some(Fidelity { exact, missed: 1, ..Fidelity::default() });
    record.trial.divergences = vec![Divergence {
        seq,
        kind: "tool_missed".to_owned(),
        tool: Some("refund".to_owned()),
        path: None,
        argument: Some("/request_id".to_owned()),
        detail: String::new(),
    }];
}

/// A labelled run of three trials a case, all of them replayed and successful.
fn perfect(lane: Lane, cases: usize) -> Run {
    let mut run = labelled(lane, &outcomes(cases, 3, 0));
    for record in &mut run.trials {
        record.trial.fidelity = Some(Fidelity { exact: 3, ..Fidelity::default() });
    }
    run
}

/// Lets the first trial of every case miss an answer and fail.
fn fail_by_a_miss(run: &mut Run) {
    for record in run.trials.iter_mut().filter(|record| record.trial.trial == 0) {
        miss(record, 1, 1);
        record.trial.success = Some(false);
    }
}

#[test]
fn failures_that_misses_explain_do_not_block() {
    let (before, mut after) = (perfect(Lane::Baseline, 100), perfect(Lane::Candidate, 100));
    fail_by_a_miss(&mut after);
    let verdict = default(&before, &after);
    assert_eq!(
        (verdict.verdict, codes(&verdict)[0]),
        (Decision::Inconclusive, ReasonCode::ReplayLeftRecording)
    );
    let detail = &verdict.reasons[0].detail;
    let headline = "the candidate asks for what the recording does not hold: tool refund, argument /request_id, 100 calls in 100 trials";
    assert!(detail.starts_with(headline), "{detail}");
    assert!(
        detail.contains("do not differ") && detail.contains("\"/request_id\" = \"generated\""),
        "{detail}"
    );
    assert!(!codes(&verdict).contains(&ReasonCode::Underpowered), "{:?}", verdict.reasons);
    assert!(!verdict.need.reachable && verdict.need.cases == 0, "{:?}", verdict.need);
    let misses = verdict.misses.expect("replayed");
    assert_eq!((misses.lanes[1].tool_calls, misses.lanes[1].tool_calls_missed), (800, 100));
    assert_eq!((misses.lanes[1].trials_missed, misses.calls.len(), misses.calls[0].trials), (100, 1, 100));
    assert!(misses.p_lanes.is_some_and(|p| p < 0.001));
}

#[test]
fn the_same_misses_in_both_lanes_are_the_replays_fault() {
    let (mut before, mut after) = (perfect(Lane::Baseline, 100), perfect(Lane::Candidate, 100));
    fail_by_a_miss(&mut before);
    fail_by_a_miss(&mut after);
    let verdict = default(&before, &after);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Inconclusive, ReasonCode::ReplayUnfaithful));
    assert!(verdict.misses.is_some_and(|misses| misses.p_lanes.is_some_and(|p| p > 0.9)));
}

#[test]
fn a_success_after_a_miss_is_not_shown() {
    let (before, mut after) = (perfect(Lane::Baseline, 100), perfect(Lane::Candidate, 100));
    // 2.5 % of the calls, but every third trial.
    after.trials.iter_mut().filter(|record| record.trial.trial == 0).for_each(|record| miss(record, 1, 39));
    let verdict = default(&before, &after);
    assert_eq!(
        (verdict.verdict, codes(&verdict)[0]),
        (Decision::Inconclusive, ReasonCode::ReplayLeftRecording)
    );
    let few =
        |record: &&mut TrialRecord| record.trial.trial == 0 && record.trial.case.as_str().ends_with("07");
    let mut after = perfect(Lane::Candidate, 100);
    after.trials.iter_mut().filter(few).for_each(|record| miss(record, 1, 39));
    assert_eq!(
        default(&before, &after).verdict,
        Decision::Approve,
        "one trial of 300 cannot change the decision"
    );
}

#[test]
fn harm_among_the_answered_trials_still_blocks() {
    let (before, mut after) = (perfect(Lane::Baseline, 100), perfect(Lane::Candidate, 100));
    for (number, record) in after.trials.iter_mut().enumerate() {
        if number % 50 == 0 {
            miss(record, 1, 39);
        } else {
            record.trial.success = Some(number % 3 > 0);
        }
    }
    assert_eq!(default(&before, &after).verdict, Decision::Block);
}

#[test]
fn a_violation_is_a_fact_only_before_the_first_miss() {
    let policy = Policy::parse("[invariant.idempotency]\n").expect("a policy");
    let numbered = |calls: Vec<ToolCall>| -> Vec<ToolCall> {
        calls.into_iter().zip(0..).map(|(call, seq)| ToolCall { seq, ..call }).collect()
    };
    let before = replayed(Lane::Baseline, 100, refund);
    let with = |calls: &dyn Fn(usize) -> Vec<ToolCall>, missed: u32| {
        let mut after = replayed(Lane::Candidate, 100, |case| {
            numbered(if case == 9 { calls(case) } else { refund(case) })
        });
        let case = |record: &&mut TrialRecord| {
            record.trial.lane == Lane::Candidate && record.trial.case.as_str() == "case-009"
        };
        after.trials.iter_mut().filter(case).for_each(|record| miss(record, missed, 3));
        decide(&policy, &before, &after)
    };
    // The second refund is a retry of the one that the world could not answer.
    let verdict = with(&refund_twice, 1);
    assert_ne!(verdict.verdict, Decision::Block, "{:?}", verdict.reasons);
    assert!(codes(&verdict).contains(&ReasonCode::InvariantUnchecked), "{:?}", verdict.reasons);
    assert_eq!(verdict.invariants[0].violations, 0);
    // Both refunds were answered, a later call was not.
    let verdict = with(&refund_twice, 4);
    assert_eq!((verdict.verdict, codes(&verdict)[0]), (Decision::Block, ReasonCode::InvariantViolated));
}

#[test]
fn rare_misses_that_both_lanes_have_do_not_prevent_an_approval() {
    let spoil = |run: &mut Run, cases: &[&str]| {
        let chosen = |record: &&mut TrialRecord| {
            record.trial.trial == 0 && cases.iter().any(|case| record.trial.case.as_str().ends_with(case))
        };
        run.trials.iter_mut().filter(chosen).for_each(|record| miss(record, 1, 39));
    };
    let (mut before, mut after) = (perfect(Lane::Baseline, 100), perfect(Lane::Candidate, 100));
    spoil(&mut before, &["07", "18", "29", "31"]);
    spoil(&mut after, &["07", "18", "29", "32"]);
    let verdict = default(&before, &after);
    assert_eq!(verdict.verdict, Decision::Approve, "{:?}", verdict.reasons);
    assert!(
        verdict.notes.iter().any(|note| note.contains("rare, alike in both lanes")),
        "{:?}",
        verdict.notes
    );
    // One trial in three of both lanes: too many to know what they hide.
    let every = |run: &mut Run| {
        run.trials.iter_mut().filter(|record| record.trial.trial == 0).for_each(|record| miss(record, 1, 39))
    };
    every(&mut before);
    every(&mut after);
    assert_eq!(default(&before, &after).verdict, Decision::Inconclusive);
}
