//! The tail of the cost, shifts between runs of one build, small losses that add up, and forecasts at other truths.

use analyzer::{AnalysisRequest, CalibrateRequest, Decision, Policy, Verdict, calibrate};
use rayon::prelude::*;
use schemas::trial::Lane;

use super::{SUCCESS, Scale, decide, policy};
use crate::rate::{Rate, repeat};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table::{self, Table};

const SESSIONS: Sessions = Sessions { count: 200, mean: 0.90, concentration: 1.0, trials: (4, 4) };

fn at_most(id: &'static str, figure: &str, rate: Rate) -> Row {
    Row {
        id,
        figure: figure.to_owned(),
        required: format!("<= {:.4} at this N", Rate::limit(rate.of, 0.05)),
        measured: rate.to_string(),
        standing: Standing::of(rate.is_at_most(0.05)),
    }
}

/// A required cost of which few sessions pay many times as much.
pub(crate) fn cost(scale: Scale) -> Vec<Row> {
    let policy = policy("metrics = [\"success\", \"cost\"]\n[metric.cost]\nrequired = true\n");
    let [approved] = repeat("cost tail", scale.times(2000, 10), |rng| {
        let (before, mut after) = draw(rng, &SESSIONS, Change::None, Extras::Effort(1.0));
        for session in &mut after {
            if rng.happens(0.03) {
                session.iter_mut().for_each(|trial| trial.cost_usd = trial.cost_usd.map(|cost| 20.0 * cost));
            }
        }
        [decide(&policy, &(before, after), rng).verdict == Decision::Approve]
    });
    vec![at_most("cost", "cost required, 3 % of sessions cost 20 times (mean +57 %): approved", approved)]
}

/// Draws the trials of one run, of which all share a shift of the logit.
fn shifted(rng: &mut SimulationRng, chances: &[f64], trials: usize, shift: f64) -> Table {
    let moved = |chance: f64| {
        let odds = chance / (1.0 - chance).max(1e-9) * shift.exp();
        odds / (1.0 + odds)
    };
    let outcomes = |chance: &f64| {
        let chance = moved(*chance);
        (0..trials).map(|_| table::Outcome::of(rng.happens(chance))).collect()
    };
    chances.iter().map(outcomes).collect()
}

/// Identical builds whose runs differ by a shift of the day, with the calibration of other runs of the build.
pub(crate) fn against(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let times = scale.times(2000, 12);
    let mut rows = Vec::new();
    for others in [1, 4] {
        let [blocked, plain] = repeat(&format!("against {others}"), times, |rng| {
            let chances: Vec<f64> = (0..200).map(|_| rng.beta(0.8, 3.0)).collect();
            let run = |rng: &mut SimulationRng, lane: Lane| {
                let shift = 0.2 * rng.normal();
                let mut run = table::run(lane, &shifted(rng, &chances, 4, shift));
                run.manifest.build = schemas::id::BuildId::parse("same").expect("an id");
                run
            };
            let baseline = run(rng, Lane::Baseline);
            let candidate = run(rng, Lane::Candidate);
            let other: Vec<_> = (0..others).map(|_| run(rng, Lane::Baseline)).collect();
            let against: Vec<_> = other.iter().collect();
            let ask = CalibrateRequest {
                policy: &policy,
                run: &baseline,
                against: &against,
                seed: 1,
                splits: 1,
                looks: 1,
            };
            let calibration = calibrate(&ask).expect("the runs can be split");
            let plain = AnalysisRequest {
                forecast: false,
                ..AnalysisRequest::new(&policy, &baseline, &candidate, 1)
            };
            let blocks = |ask: &AnalysisRequest<'_>| {
                analyzer::analyze(ask).expect("both runs hold trials").verdict.verdict == Decision::Block
            };
            [blocks(&AnalysisRequest { calibration: Some(&calibration), ..plain }), blocks(&plain)]
        });
        let figure = format!(
            "identical builds, runs shifted by sd .2 logit, calibrated against {others} other run(s): blocked \
             (without the calibration {plain})"
        );
        rows.push(at_most("against", &figure, blocked));
    }
    rows
}

/// Ten releases that each lose .02, compared with the first.
pub(crate) fn reference(scale: Scale) -> Vec<Row> {
    let policy = policy(&format!("{SUCCESS}[reference]\nblocks = true\n"));
    let [blocked] = repeat("reference", scale.times(500, 6), |rng| {
        let chances: Vec<f64> = (0..200).map(|_| rng.beta(0.95, 3.0)).collect();
        let release = |rng: &mut SimulationRng, lane: Lane, number: f64| {
            let lost: Vec<f64> = chances.iter().map(|chance| (chance - 0.02 * number).max(0.0)).collect();
            table::run(lane, &shifted(rng, &lost, 4, 0.0))
        };
        let first = release(rng, Lane::Baseline, 0.0);
        let (before, after) = (release(rng, Lane::Baseline, 9.0), release(rng, Lane::Candidate, 10.0));
        let request = AnalysisRequest {
            reference: Some(&first),
            forecast: false,
            ..AnalysisRequest::new(&policy, &before, &after, 1)
        };
        let verdict = analyzer::analyze(&request).expect("the runs hold trials").verdict;
        [verdict.verdict == Decision::Block && verdict.since.is_some()]
    });
    vec![Row {
        id: "reference",
        figure: "the tenth release of -.02 each: blocked on the sum since the reference".to_owned(),
        required: ">= 0.95".to_owned(),
        measured: blocked.to_string(),
        standing: Standing::of(blocked.is_at_least(0.95)),
    }]
}

/// Promise of one inconclusive verdict, and whether the sessions that it asked for approved.
fn promise(rng: &mut SimulationRng, policy: &Policy, truth: f64) -> Option<(f64, bool)> {
    let sessions = Sessions { count: 150, mean: 0.85, concentration: 2.0, trials: (4, 4) };
    let change = if truth > 0.0 { Change::Scaled(truth / 0.85) } else { Change::None };
    let mut trials = draw(rng, &sessions, change, Extras::None);
    let verdict = forecast(policy, &trials);
    if verdict.verdict != Decision::Inconclusive || verdict.need.predicted_approve < 0.80 {
        return None;
    }
    let cases = usize::try_from(verdict.need.cases).expect("a number of sessions");
    let more = Sessions { count: cases.saturating_sub(sessions.count), ..sessions };
    let (before, after) = draw(rng, &more, change, Extras::None);
    trials.0.extend(before);
    trials.1.extend(after);
    Some((verdict.need.predicted_approve, decide(policy, &trials, rng).verdict == Decision::Approve))
}

fn forecast(policy: &Policy, trials: &(Table, Table)) -> Verdict {
    let (baseline, candidate) =
        (table::run(Lane::Baseline, &trials.0), table::run(Lane::Candidate, &trials.1));
    analyzer::analyze(&AnalysisRequest::new(policy, &baseline, &candidate, 1))
        .expect("both hold trials")
        .verdict
}

/// Promises of at least .80 and what became of them, at several truths.
pub(crate) fn need(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let mut rows = Vec::new();
    for truth in [0.0, 0.02, 0.05] {
        let times = scale.times(600, 8);
        let once = |number: u32| {
            promise(&mut SimulationRng::new(&format!("need {truth}"), number.into()), &policy, truth)
        };
        let promised: Vec<(f64, bool)> = (0..times).into_par_iter().filter_map(once).collect();
        let of = u32::try_from(promised.len()).expect("few");
        let kept = u32::try_from(promised.iter().filter(|(_, kept)| *kept).count()).expect("few");
        let rate = Rate { hits: kept, of };
        // At the margin nothing may be approved, so what counts is that hardly anything is promised.
        let at_margin = truth >= 0.05;
        let holds =
            if at_margin { Rate { hits: of, of: times }.is_at_most(0.20) } else { rate.is_at_least(0.75) };
        rows.push(Row {
            id: "need",
            figure: format!("approval promised with .80 after 150 sessions, truth -{truth}: kept"),
            required: if at_margin { "promised in <= .20".to_owned() } else { ">= .75".to_owned() },
            measured: format!("{rate}; promised in {of} of {times}"),
            standing: Standing::of(holds),
        });
    }
    rows
}

/// Numbers that `calibrate` prints, each used for decisions of that size on fresh sessions.
pub(crate) fn calibrated(scale: Scale) -> Vec<Row> {
    let text = "policy = 1\n";
    let standard = policy(text);
    let sessions = Sessions { count: 150, ..SESSIONS };
    let [approved, within, blocked] = repeat("calibrated", scale.times(500, 4), |rng| {
        let (trials, _) = draw(rng, &sessions, Change::None, Extras::None);
        let run = table::run(Lane::Baseline, &trials);
        let ask =
            CalibrateRequest { policy: &standard, run: &run, against: &[], seed: 1, splits: 20, looks: 1 };
        let found = calibrate(&ask).expect("the run can be split");
        let success = found.metrics.iter().find(|metric| metric.name == "success").expect("is measured");
        let pass_k = found.metrics.iter().find(|metric| metric.name == "pass_k");
        let count = usize::try_from(found.cases_to_approve.unwrap_or(1)).expect("a number of cases");
        let fresh = draw(rng, &Sessions { count, ..sessions }, Change::None, Extras::None);
        let margin =
            |name: &str, margin: f64| format!("[metric.{name}]\nmargin = {:.6}\n", margin.clamp(0.001, 0.99));
        let wider = success.approvable_margin;
        let own = margin("success", wider)
            + &margin("pass_k", pass_k.map_or(2.5 * wider, |metric| metric.approvable_margin));
        let same = draw(rng, &sessions, Change::None, Extras::None);
        let broken = Change::Clustered(success.detectable / sessions.mean);
        let worse = draw(rng, &sessions, broken, Extras::None);
        [
            decide(&standard, &fresh, rng).verdict == Decision::Approve,
            decide(&policy(&format!("{text}{own}")), &same, rng).verdict == Decision::Approve,
            decide(&standard, &worse, rng).verdict == Decision::Block,
        ]
    });
    let row = |figure: &str, rate: Rate| Row {
        id: "calibrate",
        figure: figure.to_owned(),
        required: ">= .75, planned .80".to_owned(),
        measured: rate.to_string(),
        standing: Standing::of(rate.is_at_least(0.75)),
    };
    vec![
        row("identical builds with the printed number of cases, all required metrics: approved", approved),
        row("identical builds at the printed approvable margins: approved", within),
        row("the printed smallest change, in some sessions: blocked", blocked),
    ]
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_calibrate() {
    calibrated(Scale::full()).iter().for_each(Row::print);
}

#[test]
fn printed_sizes_have_the_power_they_promise() {
    demand(&calibrated(Scale::Short));
}

#[test]
fn what_two_runs_side_by_side_do_not_show() {
    demand(&[cost(Scale::Short), against(Scale::Short), reference(Scale::Short)].concat());
}

#[test]
fn promises_are_kept() {
    demand(&need(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_cost() {
    cost(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_against() {
    against(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_reference() {
    reference(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_need() {
    need(Scale::full()).iter().for_each(Row::print);
}
