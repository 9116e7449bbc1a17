//! How faithful the replay was and what was counted: whether the numbers can be believed at all.

use schemas::trial::{Fidelity, TrialEnding};
use serde::Serialize;

use crate::report::{ReportInput, escape, number, wording};
use crate::run::Run;
use crate::verdict::Verdict;

#[derive(Debug, Serialize)]
pub(in crate::report) struct FidelityView {
    rows: Vec<FidelityRow>,
    totals: [String; 2],
}

#[derive(Debug, Serialize)]
struct FidelityRow {
    name: &'static str,
    meaning: &'static str,
    baseline: String,
    candidate: String,
    tone: &'static str,
}

pub(in crate::report) fn fidelity_view(input: &ReportInput<'_>) -> FidelityView {
    let counts = [input.baseline, input.candidate].map(|run| {
        let mut sum = Fidelity::default();
        run.own().filter_map(|record| record.trial.fidelity.as_ref()).for_each(|one| sum.add(one));
        sum
    });
    let row = |name, meaning, of: fn(&Fidelity) -> u32| {
        let shown = |lane: &Fidelity| match lane.total() {
            0 => "not applicable".to_owned(),
            total => format!(
                "{} ({})",
                number::count(u64::from(of(lane))),
                number::percent(f64::from(of(lane)) / f64::from(total))
            ),
        };
        let is_bad = name == "missed" && counts.iter().any(|lane| of(lane) > 0);
        let tone = if is_bad { wording::WARN } else { wording::OPEN };
        FidelityRow { name, meaning, baseline: shown(&counts[0]), candidate: shown(&counts[1]), tone }
    };
    FidelityView {
        rows: vec![
            row("exact", "the recording held the same arguments", |lane| lane.exact),
            row("normalised", "the same after ids, times and spelling were evened out", |lane| {
                lane.normalised
            }),
            row("overlaid", "answered from a write of the same trial", |lane| lane.overlaid),
            row("derived", "derived from other recordings", |lane| lane.derived),
            row("live", "let through to the real service", |lane| lane.live),
            row("faulted", "answered by an injected fault", |lane| lane.faulted),
            row("missed", "not answerable: the agent got an error", |lane| lane.missed),
        ],
        totals: [0, 1].map(|lane: usize| number::count(u64::from(counts[lane].total()))),
    }
}

/// What became of the trials of each lane.
pub(in crate::report) fn lanes(verdict: &Verdict, input: &ReportInput<'_>) -> Vec<[String; 3]> {
    let runs = [input.baseline, input.candidate];
    let row = |name: &str, of: &dyn Fn(&Run) -> String| {
        let [baseline, candidate] = runs.map(of);
        [name.to_owned(), baseline, candidate]
    };
    let ended = |ending: TrialEnding| {
        move |run: &Run| {
            number::count(crate::cast::to_u64(
                run.own().filter(|record| record.trial.ending == ending).count(),
            ))
        }
    };
    let pairs = &verdict.pairs;
    let missing = [pairs.missing_baseline, pairs.missing_candidate].map(number::count);
    let alone = [pairs.unpaired_baseline, pairs.unpaired_candidate].map(number::count);
    let [missing_baseline, missing_candidate] = missing;
    let [alone_baseline, alone_candidate] = alone;
    vec![
        row("Run", &|run| escape::name(&run.name)),
        row("Build", &|run| escape::name(run.manifest.build.as_str())),
        row("Where it comes from", &|run| escape::name(&run.manifest.source)),
        row("Trials", &|run| number::count(crate::cast::to_u64(run.own().count()))),
        row("… complete", &ended(TrialEnding::Complete)),
        row("… failed", &ended(TrialEnding::Failed)),
        row("… timed out", &ended(TrialEnding::TimedOut)),
        row("… left the recording (unscorable)", &ended(TrialEnding::Truncated)),
        row("… lost to the harness", &ended(TrialEnding::Infrastructure)),
        row("… torn: exchanges were lost, no vote", &|run| {
            number::count(crate::cast::to_u64(run.own().filter(|record| record.is_torn()).count()))
        }),
        row("… without a transcript", &|run| {
            number::count(crate::cast::to_u64(
                run.own().filter(|record| !record.trial.has_transcript).count(),
            ))
        }),
        ["Trials without an outcome, counted both ways".to_owned(), missing_baseline, missing_candidate],
        ["Cases that only this run has".to_owned(), alone_baseline, alone_candidate],
    ]
}

pub(in crate::report) fn pairs(verdict: &Verdict) -> Vec<[String; 2]> {
    let pairs = &verdict.pairs;
    vec![
        ["Cases in either run".to_owned(), number::count(pairs.cases)],
        ["Cases paired".to_owned(), number::count(pairs.paired)],
        [
            "Trials that did not vote because exchanges of them were lost".to_owned(),
            number::count(pairs.torn),
        ],
    ]
}
