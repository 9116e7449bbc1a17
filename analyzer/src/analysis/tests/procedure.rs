//! Looks, waves, betting, slices, recordings as baselines and forecasts, on made-up runs whose truth is known.

use super::*;
use crate::verdict::MonitoringKind;
use crate::{AnalysisRequest, MonitoringPlan, Waves, analyze, seeded_order};

fn asked(policy: &Policy, runs: &(Run, Run), monitoring: MonitoringPlan<'_>) -> Verdict {
    analyze(&AnalysisRequest { monitoring, ..AnalysisRequest::new(policy, &runs.0, &runs.1, 1) })
        .expect("two runs")
        .verdict
}

fn success_only(more: &str) -> Policy {
    Policy::parse(&format!("metrics = [\"success\"]\n{more}")).expect("a policy")
}

#[test]
fn a_plain_regression_is_blocked_at_an_early_look_and_says_so() {
    let runs = pair(&outcomes(200, 3, 0), &outcomes(200, 3, 60));
    let verdict = asked(&success_only(""), &runs, MonitoringPlan::PlannedLooks(4));
    assert_eq!((verdict.verdict, verdict.looks), (Decision::Block, 1));
    let history = verdict.monitoring.look_history.expect("looks");
    assert_eq!((history.kind, history.cases, history.planned_cases), (MonitoringKind::Looks, 50, 200));
    assert!(
        history.stopped_early && history.looks[0].boundary.is_some_and(|bound| (bound - 3.7496).abs() < 1e-3)
    );
    assert_eq!((verdict.pairs.cases, verdict.metrics[0].cases), (50, 50));
    assert!(verdict.notes[0].contains("look 1 of 4, with 50 of 200 planned cases"), "{:?}", verdict.notes);
    // Identical and flawless: 100 cases fall short of the second look's boundary by a hair, 150 are enough.
    let runs = pair(&outcomes(200, 3, 0), &outcomes(200, 3, 0));
    let verdict = asked(&success_only(""), &runs, MonitoringPlan::PlannedLooks(4));
    assert_eq!((verdict.verdict, verdict.metrics[0].cases), (Decision::Approve, 150));
}

#[test]
fn one_planned_look_is_the_plain_decision() {
    let runs = pair(&outcomes(120, 3, 4), &outcomes(120, 3, 9));
    let plain = asked(&Policy::default(), &runs, MonitoringPlan::SingleLook);
    let looked = asked(&Policy::default(), &runs, MonitoringPlan::PlannedLooks(1));
    assert_eq!(plain.verdict, looked.verdict);
    for (a, b) in plain.metrics.iter().zip(&looked.metrics) {
        assert_eq!((a.state, a.cases), (b.state, b.cases));
        // Levels near 1 are not reported apart.
        let near = (a.p_block - b.p_block).abs() <= 2e-3 * a.p_block.max(1e-9);
        assert!(near || a.p_block > 0.97, "{} {}", a.p_block, b.p_block);
    }
}

#[test]
fn waves_find_what_looks_over_the_finished_runs_find() {
    let runs = pair(&outcomes(200, 3, 3), &outcomes(200, 3, 14));
    let policy = success_only("");
    let finished = asked(&policy, &runs, MonitoringPlan::PlannedLooks(4));
    let names: Vec<CaseId> = runs.0.trials.iter().map(|record| record.trial.case.clone()).collect();
    let distinct: std::collections::BTreeSet<CaseId> = names.into_iter().collect();
    let order = seeded_order(distinct.iter().map(|case| (case, [])), 1);
    for count in 1..=4_usize {
        let ends: Vec<usize> = (1..=count).map(|look| 50 * look).collect();
        let played: std::collections::BTreeSet<&CaseId> = order[..50 * count].iter().collect();
        let mut so_far = runs.clone();
        for run in [&mut so_far.0, &mut so_far.1] {
            run.trials.retain(|record| played.contains(&record.trial.case));
            run.manifest.planned_trials = Some(3);
            run.manifest.planned_cases = Some(200);
        }
        let waves = Waves { order: &order, ends: &ends, planned: 200, extension: false };
        let verdict = asked(&policy, &so_far, MonitoringPlan::Waves(waves));
        assert_eq!(verdict.pairs.missing_candidate, 0, "what was not played yet is not missing");
        if u32::try_from(count) == Ok(finished.looks) {
            assert_eq!(verdict.verdict, finished.verdict);
            assert_eq!(verdict.metrics, finished.metrics);
            return;
        }
        assert_eq!(verdict.verdict, Decision::Inconclusive);
    }
    panic!("the finished runs were decided at look {}", finished.looks);
}

#[test]
fn an_extension_bets_with_what_the_plan_left() {
    let runs = pair(&outcomes(300, 2, 0), &outcomes(300, 2, 0));
    let names: std::collections::BTreeSet<CaseId> =
        runs.0.trials.iter().map(|record| record.trial.case.clone()).collect();
    let order = seeded_order(names.iter().map(|case| (case, [])), 1);
    let policy = success_only("");
    // A plan of 50 cases cannot show five points; the bets on all 300 can.
    let ends: Vec<usize> = (1..=6).map(|wave| 50 * wave).collect();
    let waves = |ends| Waves { order: &order, ends, planned: 50, extension: true };
    assert_eq!(
        asked(&policy, &runs, MonitoringPlan::Waves(waves(&ends[..1]))).verdict,
        Decision::Inconclusive
    );
    let verdict = asked(&policy, &runs, MonitoringPlan::Waves(waves(&ends)));
    let history = verdict.monitoring.look_history.expect("looks");
    assert_eq!((verdict.verdict, history.extension_looks, history.plan_share), (Decision::Approve, 5, 0.8));
    assert!(history.looks[5].boundary.is_none());
}

#[test]
fn betting_after_every_case_stops_when_it_has_seen_enough() {
    let runs = pair(&outcomes(200, 3, 0), &outcomes(200, 3, 100));
    let verdict = asked(&success_only(""), &runs, MonitoringPlan::Anytime);
    let history = verdict.monitoring.look_history.expect("every case");
    assert_eq!(
        (verdict.verdict, history.kind, history.stopped_early),
        (Decision::Block, MonitoringKind::Anytime, true)
    );
    assert!(history.cases < 60 && history.looks.last().is_some_and(|last| last.cases == history.cases));
    let runs = pair(&outcomes(200, 3, 0), &outcomes(200, 3, 0));
    let verdict = asked(&success_only(""), &runs, MonitoringPlan::Anytime);
    // More than the 59 that a fixed number of cases needs.
    assert_eq!(verdict.verdict, Decision::Approve);
    assert!((60..120).contains(&verdict.metrics[0].cases), "{}", verdict.metrics[0].cases);
}

#[test]
fn strict_approval_takes_more_cases() {
    let runs = pair(&outcomes(70, 3, 0), &outcomes(70, 3, 0));
    assert_eq!(asked(&success_only(""), &runs, MonitoringPlan::SingleLook).verdict, Decision::Approve);
    assert_eq!(
        asked(&success_only("strict = true"), &runs, MonitoringPlan::SingleLook).verdict,
        Decision::Inconclusive
    );
    let runs = pair(&outcomes(110, 3, 0), &outcomes(110, 3, 0));
    assert_eq!(
        asked(&success_only("strict = true"), &runs, MonitoringPlan::SingleLook).verdict,
        Decision::Approve
    );
}

/// The first `inside` cases are of slice `tier = gold`.
fn sliced(mut runs: (Run, Run), inside: usize) -> (Run, Run) {
    for run in [&mut runs.0, &mut runs.1] {
        for record in &mut run.trials {
            let is_gold = record.trial.case.as_str() < format!("case-{inside:05}").as_str();
            let tier = if is_gold { "gold" } else { "base" };
            record.trial.slices.insert("tier".to_owned(), tier.to_owned());
        }
    }
    runs
}

#[test]
fn a_critical_slice_blocks_where_the_whole_does_not() {
    // Ten of 400 break, all of them among the forty of gold.
    let runs = sliced(pair(&outcomes(400, 1, 0), &outcomes(400, 1, 10)), 40);
    let slice = |more: &str| success_only(&format!("[slice.gold]\nwhere = {{ tier = \"gold\" }}\n{more}"));
    let reported = asked(&slice(""), &runs, MonitoringPlan::SingleLook);
    assert_eq!((reported.verdict, reported.slices[0].state), (Decision::Approve, MetricState::Deteriorated));
    assert!(
        reported.slices[0].has_enough_cases && !reported.slices[0].critical && reported.slices[0].cases == 40
    );
    let blocked = asked(&slice("critical = true"), &runs, MonitoringPlan::SingleLook);
    assert_eq!((blocked.verdict, codes(&blocked)[0]), (Decision::Block, ReasonCode::Deteriorated));
    assert_eq!(blocked.reasons[0].metric.as_deref(), Some("slice.gold.success"));
    assert_eq!(blocked.metrics.len(), reported.metrics.len());
    // Required, it must reach the floor of its margin.
    let runs = sliced(pair(&outcomes(400, 1, 0), &outcomes(400, 1, 0)), 40);
    let needed = asked(&slice("required = true"), &runs, MonitoringPlan::SingleLook);
    assert_eq!((needed.verdict, codes(&needed)[0]), (Decision::Inconclusive, ReasonCode::BelowFloor));
    // Too few to say anything.
    let few = sliced(pair(&outcomes(400, 1, 0), &outcomes(400, 1, 20)), 25);
    let silent = asked(&slice("critical = true"), &few, MonitoringPlan::SingleLook);
    assert!(!silent.slices[0].has_enough_cases && silent.slices[0].p_block > 0.99);
}

#[test]
fn a_search_finds_the_slice_that_broke_and_does_not_block_for_it() {
    let runs = sliced(pair(&outcomes(400, 1, 0), &outcomes(400, 1, 8)), 40);
    let verdict = asked(&success_only(""), &runs, MonitoringPlan::SingleLook);
    assert_eq!(verdict.verdict, Decision::Approve);
    let found = verdict.review.subgroup_search.clone().expect("cases have slices");
    assert_eq!(found.slices[0].criteria.get("tier").map(String::as_str), Some("gold"));
    assert!(codes(&verdict).contains(&ReasonCode::SliceStandsOut));
}

#[test]
fn a_recording_is_compared_trial_by_trial() {
    let recording = |cases: usize| {
        let mut run = labelled(Lane::Recorded, &outcomes(cases, 1, 0));
        run.trials.iter_mut().for_each(|record| record.trial.lane = Lane::Recorded);
        run
    };
    let same = (recording(100), labelled(Lane::Candidate, &outcomes(100, 4, 0)));
    let verdict = asked(&Policy::default(), &same, MonitoringPlan::SingleLook);
    assert_eq!(
        (verdict.verdict, codes(&verdict)),
        (Decision::Inconclusive, vec![ReasonCode::BaselineIsRecording])
    );
    assert!(verdict.review.exchangeability[0].p > 0.5);
    assert!(verdict.notes.iter().any(|note| note.contains("assumes perfect replay")));
    let other = (recording(100), labelled(Lane::Candidate, &outcomes(100, 4, 30)));
    let verdict = asked(&Policy::default(), &other, MonitoringPlan::SingleLook);
    assert_eq!(verdict.verdict, Decision::Inconclusive);
    assert!(verdict.review.exchangeability[0].p_adjusted < 1e-6, "{:?}", verdict.review.exchangeability);
    assert!(codes(&verdict).contains(&ReasonCode::DiffersFromRecording));
}

#[test]
fn the_price_is_a_table_and_knows_the_corpus() {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(3));
    let drawn = |draws: &mut Draws| (0..60).map(|_| draws.case(0.8, 4)).collect::<Vec<_>>();
    let runs = pair(&drawn(&mut draws), &drawn(&mut draws));
    let policy = success_only("");
    let verdict = asked(&policy, &runs, MonitoringPlan::SingleLook);
    assert_eq!(verdict.verdict, Decision::Inconclusive);
    let need = verdict.need;
    assert!(need.reachable && need.predicted_approve >= 0.8 && need.cases > 60, "{need:?}");
    assert!(need.table.iter().all(|row| row.cases == 60 + row.extra_cases));
    let at_need = need.table.iter().find(|row| row.cases == need.cases && row.trials == 4).expect("a row");
    assert!((at_need.predicted_approve - need.predicted_approve).abs() < 1e-12);
    assert!(need.best_trials.is_some() && need.advice.is_some());
    let small =
        AnalysisRequest { corpus_cases: Some(61), ..AnalysisRequest::new(&policy, &runs.0, &runs.1, 1) };
    let need = analyze(&small).expect("two runs").verdict.need;
    assert!(!need.reachable && need.detail.contains("corpus of 61"), "{}", need.detail);
}

#[test]
fn bounds_never_deny_the_state_beside_them() {
    let plans = [
        MonitoringPlan::SingleLook,
        MonitoringPlan::PlannedLooks(2),
        MonitoringPlan::PlannedLooks(5),
        MonitoringPlan::Anytime,
    ];
    let (mut worse, mut early) = (0, 0);
    for seed in 0..6_u64 {
        let mut stream = crate::stats::stream::StreamKey::new(seed, "bounds").stream(0);
        let bad = 3 + 6 * u32::try_from(seed).expect("small");
        let mut run = |failing: u32| -> Vec<Vec<bool>> {
            (0..40).map(|_| (0..3).map(|_| stream.below(100) >= failing).collect()).collect()
        };
        let runs = (labelled(Lane::Baseline, &run(5)), labelled(Lane::Candidate, &run(5 + bad)));
        for plan in plans {
            let verdict = asked(&Policy::default(), &runs, plan);
            for metric in &verdict.metrics {
                let [low, high] = metric.interval;
                let is_worse =
                    matches!(metric.state, MetricState::Deteriorated | MetricState::DeterioratedWithinMargin);
                assert_eq!(high < 0.0, is_worse, "seed {seed}, {plan:?}: {metric:?}");
                let is_within =
                    matches!(metric.state, MetricState::NonInferior | MetricState::DeterioratedWithinMargin);
                assert!(!is_within || low >= -metric.margin - 1e-9, "seed {seed}, {plan:?}: {metric:?}");
                assert!(low <= metric.effect + 1e-9, "seed {seed}, {plan:?}: {metric:?}");
                worse += usize::from(is_worse);
                early += usize::from(is_worse && verdict.looks > 1);
            }
        }
    }
    assert!(worse > 20 && early > 0, "{worse} {early}");
}

#[test]
fn ten_small_losses_are_summed_up_since_the_reference() {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(8));
    let mut drawn = |chance: f64| (0..200).map(|_| draws.case(chance, 4)).collect::<Vec<_>>();
    let reference = labelled(Lane::Baseline, &drawn(0.95));
    let runs = pair(&drawn(0.77), &drawn(0.75));
    let decide = |text: &str| {
        let policy = success_only(text);
        let request = AnalysisRequest {
            reference: Some(&reference),
            ..AnalysisRequest::new(&policy, &runs.0, &runs.1, 1)
        };
        analyze(&request).expect("three runs").verdict
    };
    let shown = decide("");
    assert_ne!(shown.verdict, Decision::Block);
    let since = shown.since.as_ref().expect("a reference");
    assert!((since.metrics[0].effect + 0.20).abs() < 0.05 && since.metrics[0].worse, "{since:?}");
    assert!(shown.notes.iter().any(|note| note.starts_with("sum of changes since the reference build")));
    assert_eq!(shown.reasons.last().map(|reason| reason.code), Some(ReasonCode::WorseThanReference));
    let blocked = decide("[reference]\nblocks = true");
    assert_eq!((blocked.verdict, codes(&blocked)[0]), (Decision::Block, ReasonCode::WorseThanReference));
}
