//! Real identical builds: runs of one model against each other, from data that may not be copied here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use analyzer::{Decision, Policy, Run, TrialRecord};
use recorder::import::{ImportFile, ImportFormat, OutcomeColumns, Transcript, read};
use schemas::trial::{Lane, TrialEnding};

use crate::rate::Rate;
use crate::report::{Row, Standing};
use crate::rng::SimulationRng;
use crate::table::{self, Outcome};

/// Errors of a provider or of the benchmark's own harness, by a part of their text. Errors that the agent causes (a
/// context too long, turns or time used up, arguments that are not JSON) remain failures of the agent.
const INFRASTRUCTURE: [&str; 16] = [
    "Incorrect mode",
    "Model not supp",
    "must be verified",
    "NOT provided",
    "InternalServerError",
    "APIError",
    "NotFoundError",
    "(tid: ",
    "Cannot connect",
    "upstream connect",
    "stream error",
    "service error",
    "Operation timed out",
    "Authentication failed",
    "unhandled errors in a TaskGroup",
    "builtin_function_or_method",
];

/// Trials of each model by run.
type Models = BTreeMap<String, BTreeMap<u32, Vec<Transcript>>>;

fn models(path: &PathBuf) -> Models {
    let mut columns = OutcomeColumns::default();
    for renamed in ["case=service+task", "trial=run", "slice.model=model"] {
        columns.map_column(renamed).expect("names of the table");
    }
    INFRASTRUCTURE.iter().for_each(|text| columns.infrastructure(text));
    let raw = std::fs::read(path).expect("the data folder holds mcpmark-outcomes/outcomes.csv.zst");
    let source = ImportFile::outcome_table("outcomes.csv", raw).expect("unpacks");
    let parsed = read(ImportFormat::Outcomes, &source, &columns).expect("has its columns");
    assert!(parsed.skipped.is_empty(), "{:?}", parsed.skipped);
    let mut models = Models::new();
    for one in parsed.transcripts {
        let model = one.slices["model"].clone();
        models.entry(model).or_default().entry(one.trial).or_default().push(one);
    }
    models
}

fn run(lane: Lane, transcripts: &[Transcript]) -> Run {
    let outcomes: Vec<Vec<Outcome>> =
        transcripts.iter().map(|one| vec![Outcome::of(one.success.unwrap_or(false))]).collect();
    let mut run = table::run(lane, &outcomes);
    for (record, one) in run.trials.iter_mut().zip(transcripts) {
        let TrialRecord { trial, .. } = record;
        trial.case = schemas::id::CaseId::parse(&one.case).expect("an id");
        trial.success = one.success;
        trial.ending = one.ending;
        trial.duration_us = one.reported.duration_us;
        trial.input_tokens = one.reported.usage.input_tokens;
        trial.output_tokens = one.reported.usage.output_tokens;
    }
    run
}

/// Results of one model's ordered pairs of runs.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    blocked: u32,
    approved: u32,
    pairs: u32,
}

/// All ordered pairs of runs of each model that has two or more.
fn mcpmark(path: &PathBuf) -> Vec<Row> {
    let policy = Policy::default();
    let models = models(path);
    let infrastructure = models.values().flat_map(BTreeMap::values).flatten();
    let infrastructure = infrastructure.filter(|one| one.ending == TrialEnding::Infrastructure).count();
    let mut answers: BTreeMap<&str, Answers> = BTreeMap::new();
    for (model, runs) in models.iter().filter(|(_, runs)| runs.len() >= 2) {
        let numbers: BTreeSet<u32> = runs.keys().copied().collect();
        let of = answers.entry(model).or_default();
        for before in &numbers {
            for after in numbers.iter().filter(|after| *after != before) {
                let (baseline, candidate) =
                    (run(Lane::Baseline, &runs[before]), run(Lane::Candidate, &runs[after]));
                let analysis = analyzer::analyze_once(&policy, &baseline, &candidate, None, 0)
                    .expect("both hold trials");
                of.pairs += 1;
                of.blocked += u32::from(analysis.verdict.verdict == Decision::Block);
                of.approved += u32::from(analysis.verdict.verdict == Decision::Approve);
            }
        }
    }
    let sum = |of: fn(&Answers) -> u32| answers.values().map(of).sum::<u32>();
    let rate = Rate { hits: sum(|one| one.blocked), of: sum(|one| one.pairs) };
    let [low, high] = rate.interval();
    let [cluster_low, cluster_high] = by_model(&answers.values().copied().collect::<Vec<_>>());
    let blocked: Vec<&str> =
        answers.iter().filter(|(_, one)| one.blocked > 0).map(|(model, _)| *model).collect();
    vec![Row {
        id: "mcpmark",
        figure: format!(
            "A/A of {} models, all ordered pairs of runs, {infrastructure} provider errors triaged: false blocks",
            answers.len()
        ),
        required: "<= .05 within the interval".to_owned(),
        measured: format!(
            "{rate}, 95 % {low:.3} to {high:.3}, resampling models {cluster_low:.3} to {cluster_high:.3}; blocked: {}; \
             {} approved, the rest inconclusive",
            if blocked.is_empty() { "none".to_owned() } else { blocked.join(", ") },
            sum(|one| one.approved)
        ),
        standing: Standing::of(low.min(cluster_low) <= 0.05),
    }]
}

/// 95 % interval of the rates when the models are resampled: pairs of one model are not independent.
fn by_model(answers: &[Answers]) -> [f64; 2] {
    let mut rng = SimulationRng::new("models", 0);
    let mut rates: Vec<f64> = (0..4000)
        .map(|_| {
            let drawn = (0..answers.len()).map(|_| answers[rng.below(answers.len())]);
            let (hits, of) = drawn.fold((0, 0), |(hits, of), one| (hits + one.blocked, of + one.pairs));
            Rate { hits, of }.share()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    [rates[100], rates[3899]]
}

#[test]
#[ignore = "needs data that may not be copied here: tests/calibration/run --data FOLDER"]
fn full_mcpmark() {
    let folder =
        std::env::var_os("FORESHADOW_TEST_DATA").expect("FORESHADOW_TEST_DATA names the data folder");
    mcpmark(&PathBuf::from(folder).join("mcpmark-outcomes/outcomes.csv.zst")).iter().for_each(Row::print);
}
