//! Use of each tool, and writes that changed position. Both are for review and never decide: more calls than before
//! are not harm.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::{Example, FINDINGS_PER_SUBJECT, Finding};
use crate::pairs::{PairedCase, Pairs};
use crate::run::TrialRecord;
use crate::stats::labels::Relabeller;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::{float, mean};
use crate::verdict::ToolRate;
use crate::writes::{self, Write};

/// Largest number of tools listed; tools whose use changed least are left out first.
const TOLD: usize = 100;

/// Share of a change that one tool must explain to be named.
const EXPLAINING_SHARE: f64 = 0.9;

/// Subject of findings about reordered writes.
const REORDERED: &str = "effects.reordered";

/// Share of trials that call each tool, by tool name.
pub(crate) fn rates(pairs: &Pairs<'_>, seed: u64) -> Vec<ToolRate> {
    let cases: Vec<Case<'_>> = pairs.paired().filter_map(Case::new).collect();
    let tools: BTreeSet<&str> = cases.iter().flat_map(Case::tools).collect();
    let mut rates: Vec<ToolRate> = tools.into_iter().map(|tool| rate(tool, &cases, seed)).collect();
    let change = |rate: &ToolRate| {
        let moved = rate.reordered_candidate.unwrap_or(0.0) - rate.reordered_baseline.unwrap_or(0.0);
        (rate.called_candidate - rate.called_baseline).abs().max(moved.abs())
    };
    // The sort is stable: ties stay in the order of their names.
    rates.sort_by(|a, b| change(b).total_cmp(&change(a)));
    rates.truncate(TOLD);
    rates.sort_by(|a, b| a.tool.cmp(&b.tool));
    rates
}

/// Tool whose writes explain at least nine tenths of what an effects metric got worse by, if there is one.
pub(crate) fn explaining(pairs: &Pairs<'_>, metric: &str) -> Option<String> {
    let kind = metric.strip_prefix("effects.")?;
    let mut more: BTreeMap<String, f64> = BTreeMap::new();
    for case in pairs.paired() {
        for (sign, trials) in [(-1.0, &case.baseline.trials), (1.0, &case.candidate.trials)] {
            for record in trials {
                for tool in departing(kind, case, record) {
                    *more.entry(tool).or_default() += sign / float(trials.len());
                }
            }
        }
    }
    let total: f64 = more.values().filter(|change| **change > 0.0).sum();
    // Of equal changes, the first name.
    let (tool, most) = more.into_iter().rev().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (total > 0.0 && most >= EXPLAINING_SHARE * total).then_some(tool)
}

/// Tools whose writes in this trial depart in the way that the metric counts.
fn departing(kind: &str, case: &PairedCase<'_>, record: &TrialRecord) -> BTreeSet<String> {
    if kind == "duplicated" {
        let tools: BTreeSet<&String> = record.calls.iter().map(|call| &call.tool).collect();
        let repeats = |tool: &&String| writes::repeated(record, std::slice::from_ref(*tool)).is_some();
        return tools.into_iter().filter(repeats).cloned().collect();
    }
    let Some(recorded) = case.recorded.filter(|recorded| recorded.trial.has_transcript) else {
        return BTreeSet::new();
    };
    let (made, expected) = (writes::distinct(record), writes::distinct(recorded));
    let tools = |writes: Vec<&Write>| -> BTreeSet<String> {
        writes.into_iter().map(|write| write.0.clone()).collect()
    };
    let missing = tools(expected.difference(&made).collect());
    let extra = tools(made.difference(&expected).collect());
    match kind {
        "missing" => missing,
        "extra" => extra,
        "changed" => missing.intersection(&extra).cloned().collect(),
        _ => BTreeSet::new(),
    }
}

/// Cases in which the candidate reorders writes more often than the baseline, the worst first.
pub(crate) fn reordered(pairs: &Pairs<'_>) -> Vec<Finding> {
    let found = pairs.paired().filter_map(|case| {
        let view = Case::new(case)?;
        let [before, after] = view.share(|trial| trial.moved.as_ref().is_some_and(|moved| !moved.is_empty()));
        let shown = view.trials[1]
            .iter()
            .find(|trial| trial.moved.as_ref().is_some_and(|moved| !moved.is_empty()))?;
        (after > before).then(|| finding(case, shown, before, after))
    });
    let mut found: Vec<Finding> = found.collect();
    found.sort_by(|a, b| a.effect.unwrap_or(0.0).total_cmp(&b.effect.unwrap_or(0.0)));
    found.truncate(FINDINGS_PER_SUBJECT);
    found
}

fn finding(case: &PairedCase<'_>, shown: &Trial<'_>, before: f64, after: f64) -> Finding {
    let named = |write: &Write| format!("{}({})", write.0, write.1);
    let moved: Vec<String> = shown.moved.iter().flatten().take(3).map(named).collect();
    let seen = format!("reordered writes: {}", moved.join(", "));
    let example = |lane: &str, record: &TrialRecord, detail: &str| Example {
        lane: lane.to_owned(),
        trial: record.trial.trial,
        session: record.trial.session.to_string(),
        detail: detail.to_owned(),
    };
    let recorded = case.recorded.map(|record| example("recorded", record, ""));
    let baseline = case.baseline.trials.first().map(|record| example("baseline", record, ""));
    let candidate = Some(example("candidate", shown.record, &seen));
    Finding {
        subject: REORDERED.to_owned(),
        case: case.case.to_string(),
        effect: Some(before - after),
        baseline: Some(before),
        candidate: Some(after),
        detail: format!(
            "baseline {:.1} %, candidate {:.1} % of trials: {seen}",
            100.0 * before,
            100.0 * after
        ),
        examples: [recorded, baseline, candidate].into_iter().flatten().collect(),
    }
}

/// Facts counted per trial.
struct Trial<'a> {
    record: &'a TrialRecord,
    called: BTreeSet<&'a str>,
    /// Reordered writes; absent without a recording.
    moved: Option<Vec<Write>>,
}

/// A case whose trials of both lanes have transcripts.
struct Case<'a> {
    /// Baseline, then candidate.
    trials: [Vec<Trial<'a>>; 2],
}

impl<'a> Case<'a> {
    fn new(case: &PairedCase<'a>) -> Option<Self> {
        let recorded = case.recorded.filter(|record| record.trial.has_transcript).map(writes::ordered);
        let of = |records: &[&'a TrialRecord]| -> Vec<Trial<'a>> {
            let with_transcript = records.iter().filter(|record| record.trial.has_transcript);
            with_transcript
                .map(|record| Trial {
                    record,
                    called: record.calls.iter().map(|call| call.tool.as_str()).collect(),
                    moved: recorded
                        .as_ref()
                        .map(|recorded| writes::reordered(&writes::ordered(record), recorded)),
                })
                .collect()
        };
        let trials = [of(&case.baseline.trials), of(&case.candidate.trials)];
        trials.iter().all(|arm| !arm.is_empty()).then_some(Self { trials })
    }

    fn tools(&self) -> impl Iterator<Item = &'a str> {
        self.trials.iter().flatten().flat_map(|trial| trial.called.iter().copied())
    }

    /// Share of each lane's trials for which a predicate holds.
    fn share(&self, holds: impl Fn(&Trial<'a>) -> bool) -> [f64; 2] {
        let of =
            |arm: &Vec<Trial<'a>>| float(arm.iter().filter(|trial| holds(trial)).count()) / float(arm.len());
        [of(&self.trials[0]), of(&self.trials[1])]
    }

    fn is_compared(&self) -> bool {
        self.trials[0][0].moved.is_some()
    }
}

fn rate(tool: &str, cases: &[Case<'_>], seed: u64) -> ToolRate {
    let called: Vec<[f64; 2]> =
        cases.iter().map(|case| case.share(|trial| trial.called.contains(tool))).collect();
    let of = |trial: &Trial<'_>| trial.moved.iter().flatten().any(|write| write.0 == tool);
    let writes = |case: &&Case<'_>| {
        let wrote =
            |trial: &Trial<'_>| trial.record.calls.iter().any(|call| call.tool == tool && call.wrote());
        case.is_compared() && case.trials.iter().flatten().any(wrote)
    };
    let moved: Vec<[f64; 2]> = cases.iter().filter(writes).map(|case| case.share(of)).collect();
    let lane =
        |shares: &[[f64; 2]], place: usize| mean(&shares.iter().map(|pair| pair[place]).collect::<Vec<_>>());
    let moves = |place: usize| (!moved.is_empty()).then(|| lane(&moved, place));
    ToolRate {
        tool: tool.to_owned(),
        called_baseline: lane(&called, 0),
        called_candidate: lane(&called, 1),
        p_called: p_called(tool, cases, seed),
        cases: crate::cast::to_u64(cases.len()),
        reordered_baseline: moves(0),
        reordered_candidate: moves(1),
    }
}

/// Two-sided p: the block test on "calls the tool" in both directions, doubled.
fn p_called(tool: &str, cases: &[Case<'_>], seed: u64) -> f64 {
    let mut relabeller = Relabeller::new(StreamKey::new(seed, &format!("relabel called {tool}")));
    let mut tables: Vec<Vec<f64>> = Vec::with_capacity(cases.len());
    for (place, case) in cases.iter().enumerate() {
        let arm = |number: usize| {
            case.trials[number].iter().map(|trial| f64::from(u8::from(trial.called.contains(tool))))
        };
        // Ascending within an arm, so that the numbers of the trials do not matter.
        let mut values: [Vec<f64>; 2] = [arm(0).collect(), arm(1).collect()];
        values.iter_mut().for_each(|arm| arm.sort_by(f64::total_cmp));
        let (before, after) = (values[0].len(), values[1].len());
        let pooled = values.concat();
        let total: f64 = pooled.iter().sum();
        if total == 0.0 || total >= float(pooled.len()) {
            tables.push(vec![0.0]);
            continue;
        }
        let contrast = |chosen: &[usize]| {
            let inside: f64 = chosen.iter().map(|trial| pooled[*trial]).sum();
            inside / float(after) - (total - inside) / float(before)
        };
        tables.push(relabeller.labels(place, before, after).iter().map(contrast).collect());
    }
    let key = |side: &str| StreamKey::new(seed, &format!("called {side} {tool}"));
    let less = Tables::new(tables.iter().map(Vec::as_slice)).p_value(key("less"));
    tables.iter_mut().flatten().for_each(|value| *value = -*value);
    let more = Tables::new(tables.iter().map(Vec::as_slice)).p_value(key("more"));
    (2.0 * less.min(more)).min(1.0)
}

/// Number of tools that the list leaves out.
pub(crate) fn unlisted(pairs: &Pairs<'_>) -> usize {
    let calls = pairs.trials().flat_map(|record| &record.calls);
    let tools: BTreeMap<&str, ()> = calls.map(|call| (call.tool.as_str(), ())).collect();
    tools.len().saturating_sub(TOLD)
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::{read, record, run, write};
    use crate::run::{Run, ToolCall};

    /// A run of 40 cases of 3 trials with recordings that look up, refund and mail.
    fn lane(lane: Lane, calls: impl Fn(usize) -> Vec<ToolCall>) -> Run {
        let mut records = Vec::new();
        for case in 0..40 {
            let name = format!("case-{case:03}");
            records.extend((0..3).map(|number| record(&name, number, calls(case))));
            let mut recording = record(&name, 0, usual());
            recording.trial.lane = Lane::Recorded;
            records.push(recording);
        }
        run(lane, records)
    }

    fn usual() -> Vec<ToolCall> {
        vec![read("find", "{}"), write("refund", "{}"), write("mail", "{}")]
    }

    fn mailed_first() -> Vec<ToolCall> {
        vec![write("mail", "{}"), read("find", "{}"), read("show", "{}"), write("refund", "{}")]
    }

    #[test]
    fn rates_are_told_by_tool_and_moved_writes_are_found() {
        let before = lane(Lane::Baseline, |_| usual());
        let after = lane(Lane::Candidate, |case| if case < 20 { mailed_first() } else { usual() });
        let pairs = Pairs::new(&before, &after, None).expect("two runs");
        let rates = rates(&pairs, 1);
        let names: Vec<&str> = rates.iter().map(|rate| rate.tool.as_str()).collect();
        assert_eq!(names, ["find", "mail", "refund", "show"]);
        let show = &rates[3];
        assert_eq!((show.called_baseline, show.called_candidate, show.cases), (0.0, 0.5, 40));
        assert!(show.p_called <= 0.001 && rates[0].p_called >= 0.999, "{rates:?}");
        assert_eq!((show.reordered_candidate, rates[1].reordered_baseline), (None, Some(0.0)));
        // Of two swapped writes one is listed: the second of the trial.
        assert_eq!((rates[1].reordered_candidate, rates[2].reordered_candidate), (Some(0.0), Some(0.5)));
        let found = reordered(&pairs);
        assert_eq!((found.len(), found[0].case.as_str(), found[0].effect), (20, "case-000", Some(-1.0)));
        assert!(found[0].detail.contains("refund({})"), "{}", found[0].detail);
        assert_eq!(found[0].examples.len(), 3);
        assert!(reordered(&Pairs::new(&before, &before, None).expect("a run")).is_empty());
        assert_eq!(unlisted(&pairs), 0);
    }

    #[test]
    fn runs_without_transcripts_have_no_rates() {
        let before = crate::fixture::labelled(Lane::Baseline, &[vec![true]]);
        let after = crate::fixture::labelled(Lane::Candidate, &[vec![true]]);
        assert!(rates(&Pairs::new(&before, &after, None).expect("two runs"), 1).is_empty());
    }
}
