//! Replay fidelity and completeness: whether the numbers can be trusted at all.

use schemas::trial::{Fidelity, TrialEnding};
use serde::Serialize;

use crate::cast;
use crate::report::input::ReportInput;
use crate::report::severity::Severity;
use crate::report::{escape, number};
use crate::run::{Run, TrialRecord};
use crate::verdict::Verdict;

#[derive(Debug, Serialize)]
pub(in crate::report) struct CompletenessSection {
    /// `None` for imported runs.
    fidelity: Option<FidelityView>,
    /// Counts by lane: label, baseline, candidate.
    lanes: Vec<[String; 3]>,
    /// Counts over both lanes: label and count.
    pairs: Vec<[String; 2]>,
}

#[derive(Debug, Serialize)]
struct FidelityView {
    rows: Vec<FidelityRow>,
    /// All tool responses: baseline, candidate.
    totals: [String; 2],
}

#[derive(Debug, Serialize)]
struct FidelityRow {
    name: &'static str,
    meaning: &'static str,
    baseline: String,
    candidate: String,
    severity: Severity,
}

pub(in crate::report) fn completeness(verdict: &Verdict, input: &ReportInput<'_>) -> CompletenessSection {
    CompletenessSection {
        fidelity: verdict.fidelity.as_ref().map(|_| fidelity(input)),
        lanes: lanes(verdict, input),
        pairs: pairs(verdict),
    }
}

fn fidelity(input: &ReportInput<'_>) -> FidelityView {
    let counts = [input.baseline, input.candidate].map(|run| {
        let mut sum = Fidelity::default();
        run.own().filter_map(|record| record.trial.fidelity.as_ref()).for_each(|one| sum.add(one));
        sum
    });
    let row = |name, meaning, of: fn(&Fidelity) -> u32| {
        let with_share = |lane: &Fidelity| match lane.total() {
            0 => "not applicable".to_owned(),
            total => format!(
                "{} ({})",
                number::count(u64::from(of(lane))),
                number::percent(f64::from(of(lane)) / f64::from(total))
            ),
        };
        let has_missed = name == "missed" && counts.iter().any(|lane| of(lane) > 0);
        FidelityRow {
            name,
            meaning,
            baseline: with_share(&counts[0]),
            candidate: with_share(&counts[1]),
            severity: if has_missed { Severity::Warning } else { Severity::Neutral },
        }
    };
    FidelityView {
        rows: vec![
            row("exact", "recorded with the same arguments", |lane| lane.exact),
            row(
                "normalised",
                "recorded with arguments that are declared equal, or for a read with the same but for spelling",
                |lane| lane.normalised,
            ),
            row("derived", "answered without a matching recording", |lane| lane.derived),
            row("live", "answered by the real service", |lane| lane.live),
            row("faulted", "an injected fault", |lane| lane.faulted),
            row("missed", "no recorded answer: the agent got an error", |lane| lane.missed),
        ],
        totals: [0, 1].map(|lane: usize| number::count(u64::from(counts[lane].total()))),
    }
}

fn lanes(verdict: &Verdict, input: &ReportInput<'_>) -> Vec<[String; 3]> {
    let runs = [input.baseline, input.candidate];
    let row = |name: &str, of: &dyn Fn(&Run) -> String| {
        let [baseline, candidate] = runs.map(of);
        [name.to_owned(), baseline, candidate]
    };
    let count = |is_counted: &dyn Fn(&TrialRecord) -> bool| {
        runs.map(|run| number::count(cast::to_u64(run.own().filter(|record| is_counted(record)).count())))
    };
    let labelled = |name: &str, [baseline, candidate]: [String; 2]| [name.to_owned(), baseline, candidate];
    let ended = |ending: TrialEnding| count(&|record| record.trial.ending == ending);
    let pairs = &verdict.pairs;
    let without_outcome = [pairs.missing_baseline, pairs.missing_candidate].map(number::count);
    let unpaired = [pairs.unpaired_baseline, pairs.unpaired_candidate].map(number::count);
    let causes = pairs.no_outcome_baseline.causes().into_iter().zip(pairs.no_outcome_candidate.causes());
    let causes = causes.filter(|((baseline, _), (candidate, _))| baseline + candidate > 0);
    let causes = causes.map(|((baseline, cause), (candidate, _))| {
        labelled(&format!("… {cause}"), [baseline, candidate].map(number::count))
    });
    let before = vec![
        row("Run", &|run| escape::name(&run.name)),
        row("Build", &|run| escape::name(run.manifest.build.as_str())),
        row("Source", &|run| escape::name(&run.manifest.source)),
        labelled("Trials", count(&|_| true)),
        labelled("… complete", ended(TrialEnding::Complete)),
        labelled("… failed", ended(TrialEnding::Failed)),
        labelled("… timed out", ended(TrialEnding::TimedOut)),
        labelled("… left the recording (unscorable)", ended(TrialEnding::Truncated)),
        labelled("… failed by the harness", ended(TrialEnding::Infrastructure)),
        labelled("… incomplete session, not counted", count(&|record| record.is_incomplete())),
        labelled("… without a transcript", count(&|record| !record.trial.has_transcript)),
        labelled("Trials without an outcome, tested as success and as failure", without_outcome),
    ];
    let after = labelled("Cases in this run only", unpaired);
    before.into_iter().chain(causes).chain([after]).collect()
}

fn pairs(verdict: &Verdict) -> Vec<[String; 2]> {
    let pairs = &verdict.pairs;
    vec![
        ["Cases in either run".to_owned(), number::count(pairs.cases)],
        ["Cases paired".to_owned(), number::count(pairs.paired)],
        ["Trials of incomplete sessions, not counted".to_owned(), number::count(pairs.incomplete)],
    ]
}
