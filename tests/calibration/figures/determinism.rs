//! Facts that must not change a verdict (order, threads, trial numbers, library or binary), and a selected corpus,
//! which must never give a verdict.

use std::path::Path;

use analyzer::{Decision, Policy, Run, Verdict};
use schemas::trial::Lane;
use serde_json::Value;
use tests::binary;

use super::{FOUR_METRICS, SIX_METRICS, Scale, policy};
use crate::rate::repeat;
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;
use crate::simulation::{Change, Extras, Sessions, draw};
use crate::table::{self, Table};

/// A12: only sessions whose recording succeeded, the recording as baseline, an identical build as candidate.
pub(crate) fn a12(scale: Scale) -> Vec<Row> {
    let policy = policy(FOUR_METRICS);
    let mut rows = Vec::new();
    for (said, figure) in
        [(true, "selected corpus, said so"), (false, "selected corpus, not said, lane recorded")]
    {
        let [inconclusive, blocked] = repeat(&format!("A12 {said}"), scale.times(500, 40), |rng| {
            let (recorded, candidate) = selected(rng);
            let mut baseline = table::run(Lane::Recorded, &recorded);
            baseline.manifest.selected = said;
            let candidate = table::run(Lane::Candidate, &candidate);
            let verdict =
                analyzer::analyze_once(&policy, &baseline, &candidate, None, 1).expect("both hold trials");
            [verdict.verdict.verdict == Decision::Inconclusive, verdict.verdict.verdict == Decision::Block]
        });
        rows.push(Row {
            id: "A12",
            figure: format!("{figure}, no re-runs: inconclusive"),
            required: "100 %, never block".to_owned(),
            measured: format!(
                "{} of {} inconclusive, {} blocked",
                inconclusive.hits, inconclusive.of, blocked.hits
            ),
            standing: Standing::of(inconclusive.hits == inconclusive.of && blocked.hits == 0),
        });
    }
    rows
}

/// A hundred sessions of Beta(.9, .1) whose recording succeeded, and four trials of an identical build.
fn selected(rng: &mut SimulationRng) -> (Table, Table) {
    let one = Sessions { count: 1, mean: 0.9, concentration: 1.0, trials: (1, 4) };
    let (mut recorded, mut candidate) = (Table::new(), Table::new());
    while recorded.len() < 100 {
        let (before, after) = draw(rng, &one, Change::None, Extras::Effort(1.0));
        if before[0][0].success {
            recorded.extend(before);
            candidate.extend(after);
        }
    }
    (recorded, candidate)
}

/// The verdict as written to `verdict.json`.
fn text(policy: &Policy, baseline: &Run, candidate: &Run) -> String {
    let analysis = analyzer::analyze_once(policy, baseline, candidate, None, 11).expect("both hold trials");
    serde_json::to_string_pretty(&analysis.verdict).expect("a verdict is JSON")
}

/// Gives the trials of each case new numbers and all trials another order.
fn disturb(rng: &mut SimulationRng, run: &mut Run) {
    rng.shuffle(&mut run.trials);
    let mut next = std::collections::BTreeMap::new();
    for record in &mut run.trials {
        let number = next.entry(record.trial.case.clone()).or_insert(0);
        record.trial.trial = *number;
        *number += 1;
    }
}

/// A13: order, trial numbers and threads.
pub(crate) fn a13(scale: Scale) -> Vec<Row> {
    let policy = policy(SIX_METRICS);
    let [same] = repeat("A13", scale.times(40, 3), |rng| {
        let change = [Change::None, Change::Scaled(0.05), Change::Clustered(0.1)][rng.below(3)];
        let trials = [(5, 5), (8, 8), (1, 5)][rng.below(3)];
        let sessions = Sessions { count: 40 + rng.below(80), mean: 0.8, concentration: 1.0, trials };
        let (before, after) = draw(rng, &sessions, change, Extras::Effort(1.0));
        let (mut baseline, mut candidate) =
            (table::run(Lane::Baseline, &before), table::run(Lane::Candidate, &after));
        let expected = text(&policy, &baseline, &candidate);
        let same = [1, 2, 3, 7].iter().all(|threads| {
            disturb(rng, &mut baseline);
            disturb(rng, &mut candidate);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(*threads).build().expect("threads start");
            pool.install(|| text(&policy, &baseline, &candidate)) == expected
        });
        [same]
    });
    vec![Row {
        id: "A13",
        figure: "verdict.json where order, numbers of trials in an arm, and threads (1, 2, 3, 7) change"
            .to_owned(),
        required: "the same bytes".to_owned(),
        measured: format!("{} of {} the same", same.hits, same.of),
        standing: Standing::of(same.hits == same.of),
    }]
}

/// Imports both tables and analyzes them with the binary on this number of threads.
fn through_binary(folder: &Path, policy: &str, (before, after): &(Table, Table), threads: &str) -> Value {
    std::fs::write(folder.join("policy.toml"), policy).expect("writes");
    for (lane, table) in [("baseline", before), ("candidate", after)] {
        let file = format!("{lane}.csv");
        std::fs::write(folder.join(&file), table::csv(table)).expect("writes");
        let done = binary::run(
            folder,
            &["import", "--format", "outcomes", &file, "--run", lane, "--build", lane, "--lane", lane],
        );
        assert!(done.status.success(), "{}", binary::printed(&done));
    }
    let args = ["analyze", "--baseline", "baseline", "--candidate", "candidate", "--policy", "policy.toml"];
    let done = binary::command(folder)
        .args([&args[..], &["--seed", "11", "--out", "out"]].concat())
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .expect("the binary starts");
    assert!(matches!(done.status.code(), Some(0 | 3 | 4)), "{}", binary::printed(&done));
    serde_json::from_slice(&std::fs::read(folder.join("out/verdict.json")).expect("is written"))
        .expect("is JSON")
}

/// Compares the library, which the figures use, with the binary.
pub(crate) fn binary_agrees(scale: Scale) -> Vec<Row> {
    let settings = [
        (SIX_METRICS, Change::None, (5, 5)),
        (FOUR_METRICS, Change::Clustered(0.15), (4, 4)),
        (SIX_METRICS, Change::Redrawn, (1, 5)),
    ];
    let mut same = 0;
    let times = scale.times(24, 3);
    for number in 0..times {
        let mut rng = SimulationRng::new("binary", u64::from(number));
        let (text, change, trials) = settings[number as usize % settings.len()];
        let sessions = Sessions { count: 40 + rng.below(60), mean: 0.85, concentration: 1.0, trials };
        let tables = draw(&mut rng, &sessions, change, Extras::Effort(1.0));
        let folder = tempfile::tempdir().expect("temp");
        let written = through_binary(folder.path(), text, &tables, if number % 2 == 0 { "1" } else { "2" });
        let (baseline, candidate) =
            (table::run(Lane::Baseline, &tables.0), table::run(Lane::Candidate, &tables.1));
        let analysis =
            analyzer::analyze_once(&policy(text), &baseline, &candidate, None, 11).expect("both hold trials");
        let expected: Verdict = analysis.verdict;
        let found: Verdict = serde_json::from_value(written).expect("is a verdict");
        assert_eq!(found, expected, "the binary and the library differ on table {number}");
        same += 1;
    }
    vec![Row {
        id: "A13",
        figure: "import and analyze by the binary against the library that the figures here ask".to_owned(),
        required: "the same verdict, every number".to_owned(),
        measured: format!("{same} of {times} the same"),
        standing: Standing::of(same == times),
    }]
}

#[test]
fn a_selected_corpus_is_inconclusive() {
    demand(&a12(Scale::Short));
}

#[test]
fn order_names_and_threads_change_nothing() {
    demand(&a13(Scale::Short));
}

#[test]
fn library_and_binary_agree() {
    demand(&binary_agrees(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a12() {
    a12(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a13() {
    a13(Scale::full()).iter().chain(&binary_agrees(Scale::full())).for_each(Row::print);
}
