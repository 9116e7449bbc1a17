//! Other tools on the same simulated tables: rates of blocked identical builds and of missed regressions.
//!
//! statgate itself runs (PyPI). The rules of Kayenta and Flagger are implemented here from their documentation, in the
//! reading that favours them. Pooled tests of trials represent tools that treat every trial as independent.

use analyzer::Decision;
use serde_json::{Value, json};

use super::{SUCCESS, Scale, decide, policy};
use crate::classical::{fisher, float, mann_whitney, paired_t, wilcoxon};
use crate::rate::{Rate, repeat};
use crate::reference::ask;
use crate::report::{Row, Standing};
use crate::rng::SimulationRng;
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table::{Outcome, Table};

const SESSIONS: Sessions = Sessions { count: 100, mean: 0.9, concentration: 1.0, trials: (5, 5) };
const MARGIN: f64 = 0.05;

/// Simulated changes: identical builds, sessions that differ with an unchanged mean, and two regressions.
const SCENARIOS: [(&str, Change); 4] = [
    ("identical", Change::None),
    ("redrawn", Change::Redrawn),
    ("-.05", Change::Scaled(0.05 / 0.90)),
    ("-.10 in a tenth of the sessions", Change::Clustered(0.10 / 0.90)),
];

/// Result of a rule on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    blocks: bool,
    passes: bool,
}

fn shares(table: &[Vec<Outcome>]) -> Vec<f64> {
    let good = |trials: &Vec<Outcome>| trials.iter().filter(|trial| trial.success).count();
    table.iter().map(|trials| float(good(trials)) / float(trials.len())).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / float(values.len())
}

/// A rule that only fails or passes.
fn either(blocks: bool) -> Said {
    Said { blocks, passes: !blocks }
}

/// Kayenta's Mann-Whitney classifier at confidence .98 on the sessions' shares of success: a metric fails if the whole
/// interval of the shift is beyond a quarter of its estimate; anything else passes.
fn kayenta((before, after): &(Table, Table)) -> Said {
    let (x, y) = (shares(after), shares(before));
    let mut shifts: Vec<f64> = x.iter().flat_map(|a| y.iter().map(move |b| a - b)).collect();
    shifts.sort_by(f64::total_cmp);
    let (m, n) = (float(x.len()), float(y.len()));
    // Normal limit of the order statistics that bound the Hodges-Lehmann estimate at 98 %.
    let reach = 2.326_347_874 * (m * n * (m + n + 1.0) / 12.0).sqrt();
    let place = (0..shifts.len()).find(|place| float(*place) >= m * n / 2.0 - reach).unwrap_or(0);
    let (high, estimate) = (shifts[shifts.len() - 1 - place], shifts[shifts.len() / 2]);
    either(high < -0.25 * estimate.abs() && high < 0.0)
}

/// Flagger's comparison of a metric with a fixed minimum, here the true value before the change minus the margin.
fn flagger((_, after): &(Table, Table)) -> Said {
    either(mean(&shares(after)) < SESSIONS.mean - MARGIN)
}

/// Fisher's test of all trials as independent, at .05.
fn pooled_fisher((before, after): &(Table, Table)) -> Said {
    let count =
        |table: &Table, wanted: bool| table.iter().flatten().filter(|trial| trial.success == wanted).count();
    let table = [count(after, true), count(after, false), count(before, true), count(before, false)];
    either(fisher(table).less <= 0.05)
}

/// Mann and Whitney's test of all trials as independent, at .05.
fn pooled_mann_whitney((before, after): &(Table, Table)) -> Said {
    let values = |table: &Table| -> Vec<f64> {
        table.iter().flatten().map(|trial| f64::from(u8::from(trial.success))).collect()
    };
    either(mann_whitney(&values(after), &values(before)).less <= 0.05)
}

fn differences((before, after): &(Table, Table)) -> Vec<f64> {
    shares(before).iter().zip(shares(after)).map(|(before, after)| after - before).collect()
}

/// Wilcoxon's signed ranks of the sessions' differences, at .05.
fn signed_ranks(tables: &(Table, Table)) -> Said {
    either(wilcoxon(&differences(tables)).less <= 0.05)
}

/// Blocks by Student's t of the sessions' differences at .05, passes by non-inferiority with t.
fn student(tables: &(Table, Table)) -> Said {
    let differences = differences(tables);
    let moved: Vec<f64> = differences.iter().map(|value| value + MARGIN).collect();
    Said { blocks: paired_t(&differences).less <= 0.05, passes: paired_t(&moved).greater <= 0.05 }
}

type Rule<'a> = (&'a str, &'a (dyn Fn(&(Table, Table), &mut SimulationRng) -> Said + Sync));

fn row(name: &str, results: &[[Rate; 2]]) -> Row {
    let [identical, redrawn, everywhere, tenth] = results else { unreachable!("a result for each scenario") };
    Row {
        id: "peer",
        figure: name.to_owned(),
        required: String::new(),
        measured: format!(
            "blocks identical builds {:.3}, sessions redrawn {:.3}; lets pass -.05 {:.3}, a broken tenth {:.3}; \
             passes identical builds {:.3} (N={})",
            identical[0].share(),
            redrawn[0].share(),
            everywhere[1].share(),
            tenth[1].share(),
            identical[1].share(),
            identical[0].of
        ),
        standing: Standing::Beside,
    }
}

/// Every rule on the same tables, ours first.
pub(crate) fn baselines(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let ours = |tables: &(Table, Table), rng: &mut SimulationRng| {
        let answer = decide(&policy, tables, rng).verdict;
        Said { blocks: answer == Decision::Block, passes: answer == Decision::Approve }
    };
    let rules: [Rule<'_>; 7] = [
        ("foreshadow, success only, margin .05", &ours),
        ("Kayenta's rule, on session means", &|tables, _| kayenta(tables)),
        ("Flagger's rule, threshold = truth - .05", &|tables, _| flagger(tables)),
        ("Fisher on pooled trials", &|tables, _| pooled_fisher(tables)),
        ("Mann-Whitney on pooled trials", &|tables, _| pooled_mann_whitney(tables)),
        ("signed ranks of session differences", &|tables, _| signed_ranks(tables)),
        ("Student's t, block and non-inferiority", &|tables, _| student(tables)),
    ];
    let times = scale.times(2000, 100);
    let mut rows: Vec<Row> = rules
        .iter()
        .map(|(name, rule)| {
            let results = SCENARIOS.map(|(scenario, change)| {
                repeat(&format!("peers {scenario}"), times, |rng| {
                    let tables = draw(rng, &SESSIONS, change, Extras::None);
                    let result = rule(&tables, rng);
                    [result.blocks, result.passes]
                })
            });
            row(name, &results)
        })
        .collect();
    rows.extend(statgate(scale.times(300, 10)));
    rows
}

/// statgate's own verdicts at its margin of .05; absent if it is not installed.
fn statgate(times: u32) -> Option<Row> {
    let mut results = Vec::new();
    for (scenario, change) in SCENARIOS {
        let tables: Vec<Value> = (0..times)
            .map(|number| {
                let mut rng = SimulationRng::new(&format!("peers {scenario}"), u64::from(number));
                let (before, after) = draw(&mut rng, &SESSIONS, change, Extras::None);
                let plain = |table: &Table| -> Vec<Vec<bool>> {
                    table.iter().map(|trials| trials.iter().map(|trial| trial.success).collect()).collect()
                };
                json!([plain(&before), plain(&after)])
            })
            .collect();
        let answers = ask("statgate", &json!({"tables": tables, "margin": MARGIN}))?;
        let share_of = |word: &str| {
            let all = answers.as_array().map_or(&[][..], Vec::as_slice);
            Rate {
                hits: u32::try_from(all.iter().filter(|answer| **answer == word).count()).expect("few"),
                of: times,
            }
        };
        results.push([share_of("BLOCK"), share_of("SHIP")]);
    }
    Some(row("statgate 0.1.1 (PyPI), margin .05", &results))
}

#[test]
fn baselines_decide_on_the_same_tables() {
    let rows = baselines(Scale::Short);
    rows.iter().for_each(Row::print);
    assert!(rows.len() >= 7);
    // Every rule must be able to give both results.
    let table = |after: bool| -> (Table, Table) {
        (vec![vec![Outcome::of(true); 4]; 60], vec![vec![Outcome::of(after); 4]; 60])
    };
    for rule in [kayenta, flagger, pooled_fisher, pooled_mann_whitney, signed_ranks, student] {
        assert!(rule(&table(false)).blocks && !rule(&table(true)).blocks && rule(&table(true)).passes);
    }
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_baselines() {
    baselines(Scale::full()).iter().for_each(Row::print);
}
