//! Power of the procedure: blocked regressions, approved identical builds, and calibration of the forecasts.

use analyzer::{AnalysisRequest, Decision, MonitoringPlan, Policy, Verdict};
use schemas::trial::Lane;

use super::{FOUR_METRICS, LOOKS, SUCCESS, Scale, decide, decide_in, policy};
use rayon::prelude::*;

use crate::rate::{Rate, repeat};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table;

/// Setting of A6 and A7: success mean .90, concentration 1, five trials per lane.
fn four(rng: &mut SimulationRng, policy: &Policy, count: usize, change: Change) -> Verdict {
    let sessions = Sessions { count, mean: 0.90, concentration: 1.0, trials: (5, 5) };
    let trials = draw(rng, &sessions, change, Extras::Effort(1.0));
    decide(policy, &trials, rng)
}

fn row(id: &'static str, figure: String, rate: Rate, least: f64) -> Row {
    Row {
        id,
        figure,
        required: format!(">= {least}"),
        measured: rate.to_string(),
        standing: Standing::of(rate.is_at_least(least)),
    }
}

/// A6: success falls by .05 on average, in every session by the same share.
pub(crate) fn a6(scale: Scale) -> Vec<Row> {
    let policy = policy(FOUR_METRICS);
    let mut rows = Vec::new();
    for (count, least) in [(100, 0.93), (200, 0.99)] {
        if scale == Scale::Short && count > 100 {
            continue;
        }
        let [blocked] = repeat(&format!("A6 {count}"), scale.times(2000, 60), |rng| {
            [four(rng, &policy, count, Change::Scaled(0.05 / 0.90)).verdict == Decision::Block]
        });
        rows.push(row(
            "A6",
            format!("success falls by .05: blocked, four metrics, M={count}, K=5"),
            blocked,
            least,
        ));
    }
    rows
}

/// A7: identical builds.
pub(crate) fn a7(scale: Scale) -> Vec<Row> {
    let policy = policy(FOUR_METRICS);
    let mut rows = Vec::new();
    for (count, least) in [(100, 0.75), (200, 0.98)] {
        if scale == Scale::Short && count > 100 {
            continue;
        }
        let [approved] = repeat(&format!("A7 {count}"), scale.times(2000, 60), |rng| {
            [four(rng, &policy, count, Change::None).verdict == Decision::Approve]
        });
        rows.push(row(
            "A7",
            format!("identical builds: approved, four metrics, M={count}, K=5"),
            approved,
            least,
        ));
    }
    rows
}

/// A8: sessions looked at if success falls by .20, of 200 planned in four looks.
pub(crate) fn a8(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let times = scale.times(2000, 60);
    let sessions = Sessions { count: 200, mean: 0.90, concentration: 1.0, trials: (4, 4) };
    let seen = |number: u32| {
        let mut rng = SimulationRng::new("A8", u64::from(number));
        let trials = draw(&mut rng, &sessions, Change::Scaled(0.20 / 0.90), Extras::None);
        let verdict = decide_in(&policy, &trials, MonitoringPlan::PlannedLooks(LOOKS), &mut rng);
        (verdict.pairs.cases, verdict.verdict == Decision::Block)
    };
    let all: Vec<(u64, bool)> = (0..times).into_par_iter().map(seen).collect();
    let cases: u64 = all.iter().map(|(cases, _)| cases).sum();
    #[expect(clippy::cast_precision_loss, reason = "a small sum")]
    let mean = cases as f64 / f64::from(times);
    let blocked = all.iter().filter(|(_, blocked)| *blocked).count();
    vec![Row {
        id: "A8",
        figure: "sessions looked at where success falls by .20, M_max=200, K=4, four looks".to_owned(),
        required: "<= 60 in the mean".to_owned(),
        measured: format!("{mean:.1}; blocked {blocked} of {times}"),
        standing: Standing::of(mean <= 60.0),
    }]
}

#[test]
fn large_regressions_are_blocked_early() {
    demand(&a8(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a8() {
    a8(Scale::full()).iter().for_each(Row::print);
}

/// Result of one forecast.
struct Forecast {
    predicted: f64,
    approved: bool,
}

/// A11: a verdict that asks for more sessions, and the verdict with these sessions added.
pub(crate) fn a11(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let wanted = scale.times(500, 12);
    let mut forecasts = Vec::new();
    let mut number = 0;
    while forecasts.len() < wanted as usize {
        forecasts.extend(forecast(&mut SimulationRng::new("A11", number), &policy));
        number += 1;
        assert!(number < 100 * u64::from(wanted), "hardly any verdict asks for more sessions");
    }
    let of = f64::from(wanted);
    let predicted = forecasts.iter().map(|forecast| forecast.predicted).sum::<f64>() / of;
    let hits = forecasts.iter().filter(|forecast| forecast.approved).count();
    let rate = Rate { hits: u32::try_from(hits).expect("few"), of: wanted };
    let error = (predicted - rate.share()).abs();
    // Slack for having fewer repetitions than the 500 of the acceptance table.
    let slack = if scale == Scale::Short { 0.35 } else { 0.0 };
    vec![
        Row {
            id: "A11",
            figure: "forecast of approval against what came once the sessions were added".to_owned(),
            required: format!("differ by <= {:.2}", 0.07 + slack),
            measured: format!("predicted {predicted:.3}, realised {rate}: differ by {error:.3}"),
            standing: Standing::of(error <= 0.07 + slack),
        },
        Row {
            id: "A11",
            figure: "realised power where .80 was promised".to_owned(),
            required: format!(">= {:.2}", 0.75 - slack),
            measured: rate.to_string(),
            standing: Standing::of(rate.share() >= 0.75 - slack),
        },
    ]
}

/// Sixty sessions of identical builds; if they are not enough, as many as the verdict asks for.
fn forecast(rng: &mut SimulationRng, policy: &Policy) -> Option<Forecast> {
    let sessions = Sessions { count: 60, mean: 0.8, concentration: 2.0, trials: (4, 4) };
    let mut trials = draw(rng, &sessions, Change::None, Extras::None);
    let (baseline, candidate) =
        (table::run(Lane::Baseline, &trials.0), table::run(Lane::Candidate, &trials.1));
    let request = AnalysisRequest::new(policy, &baseline, &candidate, 1);
    let verdict = analyzer::analyze(&request).expect("both hold trials").verdict;
    if verdict.verdict != Decision::Inconclusive || !verdict.need.reachable {
        return None;
    }
    let cases = usize::try_from(verdict.need.cases).expect("a number of sessions");
    let more = Sessions { count: cases.saturating_sub(sessions.count), ..sessions };
    let (before, after) = draw(rng, &more, Change::None, Extras::None);
    trials.0.extend(before);
    trials.1.extend(after);
    let approved = decide(policy, &trials, rng).verdict == Decision::Approve;
    Some(Forecast { predicted: verdict.need.predicted_approve, approved })
}

#[test]
fn regressions_are_blocked() {
    demand(&a6(Scale::Short));
}

#[test]
fn identical_builds_are_approved() {
    demand(&a7(Scale::Short));
}

#[test]
fn forecasts_come_true() {
    demand(&a11(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a6() {
    a6(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a7() {
    a7(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a11() {
    a11(Scale::full()).iter().for_each(Row::print);
}
