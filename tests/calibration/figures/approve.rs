//! False approvals: share of approved builds that are worse by exactly the margin, or have too few sessions.

use analyzer::{Decision, MonitoringPlan};

use super::{LOOKS, SUCCESS, Scale, decide, decide_in, policy};
use crate::classical::paired_t;
use crate::rate::{Rate, repeat};
use crate::report::{Row, Standing, demand};
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table::Table;

const MARGIN: f64 = 0.05;
const ALPHA: f64 = 0.05;

/// Builds worse by the margin on average: name, mean and concentration of the sessions, and the change.
fn harms() -> [(&'static str, f64, f64, Change); 4] {
    [
        ("spread, mean .90", 0.90, 1.0, Change::Scaled(MARGIN / 0.90)),
        ("spread, at the ceiling", 1.0, 1.0, Change::Spread(MARGIN)),
        ("clustered, at the ceiling", 1.0, 1.0, Change::Clustered(MARGIN)),
        ("clustered, mean .97", 0.97, 1.0, Change::Clustered(MARGIN / 0.97)),
    ]
}

/// A3: share of approvals in one look, with that of Student's t for comparison.
pub(crate) fn a3(scale: Scale) -> Vec<Row> {
    worse_by_the_margin(scale, "A3", MonitoringPlan::SingleLook)
}

/// A4: share of approvals in four looks, with that of t in one look for comparison.
pub(crate) fn a4(scale: Scale) -> Vec<Row> {
    worse_by_the_margin(scale, "A4", MonitoringPlan::PlannedLooks(LOOKS))
}

fn worse_by_the_margin(scale: Scale, id: &'static str, monitoring: MonitoringPlan<'_>) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let mut rows = Vec::new();
    for (name, mean, concentration, change) in harms() {
        let mut worst: Option<(Rate, String)> = None;
        let mut of_t = (Rate::default(), String::new());
        for count in [59, 100, 200, 500] {
            for trials in [1, 4] {
                if scale == Scale::Short && (count > 100 || trials > 1) {
                    continue;
                }
                let sessions = Sessions { count, mean, concentration, trials: (trials, trials) };
                let times = scale.times(2000, 150);
                let [approved, by_t] = repeat(&format!("{id} {name} {sessions:?}"), times, |rng| {
                    let trials = draw(rng, &sessions, change, Extras::None);
                    let verdict = decide_in(&policy, &trials, monitoring, rng);
                    [verdict.verdict == Decision::Approve, approves_by_t(&trials)]
                });
                let cell = format!("M={count}, K={trials}");
                if by_t.share() >= of_t.0.share() {
                    of_t = (by_t, cell.clone());
                }
                if worst.as_ref().is_none_or(|(rate, _)| approved.share() >= rate.share()) {
                    worst = Some((approved, cell));
                }
            }
        }
        let Some((rate, cell)) = worst else { continue };
        rows.push(Row {
            id,
            figure: format!("false approval of a build worse by just the margin .05, {name}, {}, worst of M 59-500, K 1-4",
                if id == "A4" { "four looks" } else { "one look" }),
            required: format!("<= {:.4} at this N", Rate::limit(rate.of, ALPHA)),
            measured: format!("{rate} at {cell}; Student's t {:.4} at {}", of_t.0.share(), of_t.1),
            standing: Standing::of(rate.is_at_most(ALPHA)),
        });
    }
    rows
}

/// Non-inferiority by Student's t.
pub(crate) fn approves_by_t((before, after): &(Table, Table)) -> bool {
    let share = |outcomes: &[crate::table::Outcome]| {
        let good = outcomes.iter().filter(|outcome| outcome.success).count();
        crate::classical::float(good) / crate::classical::float(outcomes.len())
    };
    let moved: Vec<f64> = before.iter().zip(after).map(|(b, c)| share(c) - share(b) + MARGIN).collect();
    paired_t(&moved).greater <= ALPHA
}

/// A5: below the floor nothing is approved, however good it looks.
pub(crate) fn a5(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let [approved] = repeat("A5", scale.times(2000, 100), |rng| {
        let count = 5 + rng.below(54);
        let trials = 1 + rng.below(8);
        let sessions = Sessions { count, mean: 1.0, concentration: 1.0, trials: (trials, trials) };
        let trials = draw(rng, &sessions, Change::None, Extras::None);
        [decide(&policy, &trials, rng).verdict == Decision::Approve]
    });
    vec![Row {
        id: "A5",
        figure: "approvals below the floor (5 to 58 sessions, margin .05, every trial a success)".to_owned(),
        required: "0".to_owned(),
        measured: format!("{} of {}", approved.hits, approved.of),
        standing: Standing::of(approved.hits == 0),
    }]
}

#[test]
fn a_build_worse_by_the_margin_is_rarely_approved() {
    demand(&a3(Scale::Short));
}

#[test]
fn nor_in_four_looks() {
    demand(&a4(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a4() {
    a4(Scale::full()).iter().for_each(Row::print);
}

#[test]
fn nothing_is_approved_below_the_floor() {
    demand(&a5(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a3() {
    a3(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a5() {
    a5(Scale::full()).iter().for_each(Row::print);
}
