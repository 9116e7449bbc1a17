//! Judges: decisions on scores whose errors labels of some sessions reveal.

use std::sync::Arc;

use analyzer::outcome::{Evaluator, TrialScore};
use analyzer::{AnalysisRequest, Decision, Run, Verdict};
use schemas::score::ScoreKind;
use schemas::trial::Lane;

use super::{SUCCESS, Scale, policy};
use crate::rate::{Rate, repeat};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table::{self, Table};

/// Sessions of every figure.
const SESSIONS: Sessions = Sessions { count: 200, mean: 0.90, concentration: 1.0, trials: (4, 4) };

/// Errors of a judge: probability that it passes a failure and that it fails a success, by lane.
#[derive(Debug, Clone, Copy)]
struct Judge {
    passes_failure: [f64; 2],
    fails_success: [f64; 2],
}

/// A judge without an error.
const PERFECT: Judge = Judge { passes_failure: [0.0; 2], fails_success: [0.0; 2] };

/// Labelled sessions, with the number of labelled trials of each, by lane.
#[derive(Debug, Clone, Copy)]
struct Labels {
    sessions: [usize; 2],
    trials: usize,
}

fn judged(rng: &mut SimulationRng, lane: Lane, table: &Table, judge: Judge, labels: Labels) -> Run {
    let place = usize::from(lane == Lane::Candidate);
    let evaluator = Arc::new(Evaluator {
        name: "judge".to_owned(),
        kind: ScoreKind::Judge,
        priority: 0,
        digest: "1".to_owned(),
    });
    let mut run = table::run(lane, table);
    let (mut session, mut last) = (0, None);
    for record in &mut run.trials {
        if last.as_ref().is_some_and(|last| *last != record.trial.case) {
            session += 1;
        }
        last = Some(record.trial.case.clone());
        let truth = record.trial.success.unwrap_or(false);
        let errs = rng.happens(if truth { judge.fails_success[place] } else { judge.passes_failure[place] });
        let score = TrialScore { evaluator: evaluator.clone(), success: Some(truth != errs), slice: None };
        record.scores = vec![score];
        if session >= labels.sessions[place] || record.trial.trial as usize >= labels.trials {
            record.trial.success = None;
        }
    }
    run
}

fn decide(
    rng: &mut SimulationRng,
    sessions: Sessions,
    change: Change,
    judge: Judge,
    labels: Labels,
) -> Verdict {
    let (before, after) = draw(rng, &sessions, change, Extras::None);
    let baseline = judged(rng, Lane::Baseline, &before, judge, labels);
    let candidate = judged(rng, Lane::Candidate, &after, judge, labels);
    let policy = policy(SUCCESS);
    let request =
        AnalysisRequest { forecast: false, ..AnalysisRequest::new(&policy, &baseline, &candidate, 1) };
    analyzer::analyze(&request).expect("both runs hold trials").verdict
}

fn rate(
    purpose: &str,
    times: u32,
    of: (Sessions, Change, Judge, Labels),
    hit: impl Fn(&Verdict) -> bool + Sync,
) -> Rate {
    let (sessions, change, judge, labels) = of;
    let [rate] = repeat(purpose, times, |rng| [hit(&decide(rng, sessions, change, judge, labels))]);
    rate
}

fn at_most(figure: &str, rate: Rate) -> Row {
    Row {
        id: "judge",
        figure: figure.to_owned(),
        required: format!("<= {:.4} at this N", Rate::limit(rate.of, 0.05)),
        measured: rate.to_string(),
        standing: Standing::of(rate.is_at_most(0.05)),
    }
}

/// Wrong decisions on the scores of judges, and judges that can vote.
#[expect(clippy::too_many_lines, reason = "one entry for each row of the figure")]
pub(crate) fn judges(scale: Scale) -> Vec<Row> {
    let times = scale.times(1000, 8);
    let approved = |verdict: &Verdict| verdict.verdict == Decision::Approve;
    let blocked = |verdict: &Verdict| verdict.verdict == Decision::Block;
    let votes = |verdict: &Verdict| {
        verdict.outcome.decided_by.iter().any(|source| source.source == "judge:judge" && source.cases > 0)
    };
    let worse = Change::Scaled(0.10 / 0.90);
    let blind = Judge { passes_failure: [0.0, 1.0], ..PERFECT };
    let one_lane = Labels { sessions: [60, 0], trials: 4 };
    let both = Labels { sessions: [60, 60], trials: 4 };
    let stricter = Judge { fails_success: [0.0, 0.12], ..PERFECT };
    let rare = Sessions { mean: 0.95, ..SESSIONS };
    let few = Labels { sessions: [30, 30], trials: 1 };
    let one_less = Labels { trials: 3, ..both };
    let mut rows = vec![
        at_most(
            "judge blind to the candidate's failures, truth -.10, labels of the baseline only: approved",
            rate("blind, one lane", times, (SESSIONS, worse, blind, one_lane), approved),
        ),
        at_most(
            "the same, labels of 60 sessions in both lanes: approved",
            rate("blind, both lanes", times, (SESSIONS, worse, blind, both), approved),
        ),
        at_most(
            "identical builds, judge stricter on the candidate, labels of 60 sessions in both lanes: blocked",
            rate("stricter", times, (SESSIONS, Change::None, stricter, both), blocked),
        ),
        at_most(
            "truth -.05, judge passes a tenth of the candidate's failures, 150 labelled sessions: approved",
            rate(
                "margin",
                times,
                (
                    SESSIONS,
                    Change::Scaled(0.05 / 0.90),
                    Judge { passes_failure: [0.0, 0.1], ..PERFECT },
                    Labels { sessions: [150, 150], trials: 1 },
                ),
                approved,
            ),
        ),
    ];
    let voting = rate("perfect", times, (rare, Change::None, PERFECT, few), votes);
    rows.push(Row {
        id: "judge",
        figure: "perfect judge, 95 % success, 60 labels: votes".to_owned(),
        required: ">= 0.80".to_owned(),
        measured: voting.to_string(),
        standing: Standing::of(voting.is_at_least(0.80)),
    });
    if scale != Scale::Short {
        for (figure, change, labelled) in [
            ("perfect judge, identical builds: approved", Change::None, 100),
            ("perfect judge, identical builds: approved", Change::None, 180),
            ("perfect judge, truth -.10: blocked", worse, 60),
        ] {
            let labels = Labels { sessions: [labelled; 2], ..one_less };
            let hit = |verdict: &Verdict| {
                if change == Change::None { approved(verdict) } else { blocked(verdict) }
            };
            let found =
                rate(&format!("{figure} {labelled}"), times, (SESSIONS, change, PERFECT, labels), hit);
            rows.push(Row {
                id: "judge",
                figure: format!("{figure}, {labelled} labelled sessions"),
                required: "-".to_owned(),
                measured: found.to_string(),
                standing: Standing::Beside,
            });
        }
    }
    rows
}

#[test]
fn judges_decide_only_as_far_as_labels_correct_them() {
    demand(&judges(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_judge() {
    judges(Scale::full()).iter().for_each(Row::print);
}
