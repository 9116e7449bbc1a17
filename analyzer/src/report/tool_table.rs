//! Table of tools: calls per trial, errors and write changes of both lanes.

use std::collections::{BTreeMap, BTreeSet};

use schemas::exchange::Effect;
use serde::Serialize;
use strum::VariantArray;

use super::severity::Severity;
use super::trials::CaseTrials;
use super::write_changes::{self, RecordedWrites, WriteChange};
use super::{anchor, escape, number, wording};
use crate::cast;
use crate::run::TrialRecord;
use crate::verdict::ToolRate;

/// Rows of the table; further tools are counted only.
const TOOLS_LISTED: usize = 100;

/// Headlines listed above the table.
const HEADLINES_LISTED: usize = 6;

/// Rise of a share of trials that the table marks, and that makes a headline.
const MARKED_RISE: f64 = 0.01;

/// Relative change of the calls per trial that the table marks.
const MARKED_CALL_CHANGE: f64 = 0.1;

/// The table with its headlines.
#[derive(Debug, Serialize)]
pub(super) struct ToolTable {
    rows: Vec<ToolRow>,
    /// Tools beyond [`TOOLS_LISTED`].
    rows_left_out: usize,
    /// Trials with a complete transcript: baseline, candidate.
    trials: [String; 2],
    /// Whether any case has a recording to compare writes with.
    has_recording: bool,
    /// Tools without a declared effect: their writes are not in the table.
    undeclared: usize,
    /// Write changes that the candidate shows more often than the baseline, the largest rise first.
    pub(super) headlines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ToolRow {
    tool: String,
    /// The tool's name, percent-encoded for the page's case filter.
    filter: String,
    effect: &'static str,
    /// Calls per trial: baseline, candidate.
    calls: [String; 2],
    calls_change: String,
    calls_severity: Severity,
    /// Two-sided p of a change in the share of trials that call the tool; empty if it was not tested.
    p_called: String,
    /// Trials in which the tool reported an error.
    errors: TrialCounts,
    /// In the order of [`WriteChange::VARIANTS`].
    changes: Vec<TrialCounts>,
}

/// Trials of both lanes in which something happened.
#[derive(Debug, Serialize)]
struct TrialCounts {
    baseline: CountWithShare,
    candidate: CountWithShare,
    severity: Severity,
}

/// A number of trials and its share; no share for zero trials.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct CountWithShare {
    count: String,
    share: Option<String>,
}

/// Counts of one tool in one lane.
#[derive(Debug, Default, Clone, Copy)]
struct ToolCounts {
    /// Calls.
    calls: u64,
    /// Trials with an error of the tool.
    errors: u64,
    /// Trials with each of [`WriteChange::VARIANTS`].
    changes: [u64; WriteChange::VARIANTS.len()],
}

impl ToolCounts {
    fn trials_with(&self, change: WriteChange) -> u64 {
        let counts = WriteChange::VARIANTS.iter().zip(self.changes);
        counts.filter(|(one, _)| **one == change).map(|(_, count)| count).sum()
    }
}

#[derive(Default)]
struct LaneCounts {
    /// Trials with complete tool calls.
    trials: u64,
    /// Of these, trials of a case with a recording.
    compared: u64,
    tools: BTreeMap<String, ToolCounts>,
}

/// Counts the tool calls of the paired cases.
pub(super) fn tool_table(cases: &BTreeMap<&str, CaseTrials<'_>>, rates: &[ToolRate]) -> ToolTable {
    let mut lanes = [LaneCounts::default(), LaneCounts::default()];
    let mut effects: BTreeMap<&str, Effect> = BTreeMap::new();
    for case in cases.values().filter(|case| case.is_paired()) {
        let recorded = RecordedWrites::of_case(case);
        for (lane, trials) in lanes.iter_mut().zip([&case.baseline, &case.candidate]) {
            let records = trials.iter().map(|trial| trial.record);
            for record in records.filter(|record| write_changes::has_complete_calls(record)) {
                lane.add(record, recorded.as_ref());
                effects.extend(record.calls.iter().map(|call| (call.tool.as_str(), call.effect)));
            }
        }
    }
    // A tool that only the recording calls is in no lane's calls, but its writes are missing from both.
    let mut effects: BTreeMap<String, Effect> =
        effects.into_iter().map(|(tool, effect)| (tool.to_owned(), effect)).collect();
    for tool in lanes.iter().flat_map(|lane| lane.tools.keys()) {
        effects.entry(tool.clone()).or_insert(Effect::Write);
    }
    let mut rows: Vec<(bool, f64, ToolRow)> =
        effects.iter().map(|(tool, effect)| tool_row(tool, *effect, &lanes, rates)).collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then_with(|| a.2.tool.cmp(&b.2.tool)));
    ToolTable {
        rows_left_out: rows.len().saturating_sub(TOOLS_LISTED),
        rows: rows.into_iter().take(TOOLS_LISTED).map(|(_, _, row)| row).collect(),
        trials: [0, 1].map(|lane: usize| number::count(lanes[lane].trials)),
        has_recording: lanes.iter().any(|lane| lane.compared > 0),
        undeclared: effects.values().filter(|effect| **effect == Effect::Unknown).count(),
        headlines: headlines(&effects, &lanes),
    }
}

/// One line for each tool and write change whose share of trials rises by [`MARKED_RISE`] or more.
fn headlines(effects: &BTreeMap<String, Effect>, lanes: &[LaneCounts; 2]) -> Vec<String> {
    let mut found: Vec<(f64, String)> = Vec::new();
    for tool in effects.keys() {
        let counts = [0, 1].map(|lane: usize| lanes[lane].tools.get(tool).copied().unwrap_or_default());
        for change in WriteChange::VARIANTS {
            let shares = [0, 1].map(|lane: usize| lanes[lane].share(counts[lane].trials_with(*change)));
            // A changed write is missing and extra too; one line is enough.
            let is_repetition = matches!(change, WriteChange::Missing | WriteChange::Extra)
                && counts[1].trials_with(WriteChange::Changed) >= counts[1].trials_with(*change);
            let rise = shares[1] - shares[0];
            if rise >= MARKED_RISE && !is_repetition {
                found.push((rise, headline(tool, *change, &counts, lanes)));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().take(HEADLINES_LISTED).map(|(_, line)| line).collect()
}

fn headline(tool: &str, change: WriteChange, counts: &[ToolCounts; 2], lanes: &[LaneCounts; 2]) -> String {
    let of = |lane: usize| {
        format!(
            "{} of {}",
            number::count(counts[lane].trials_with(change)),
            number::count(lanes[lane].trials)
        )
    };
    let change: &str = change.into();
    format!("{change} write {} in {} candidate trials, {} baseline trials", escape::name(tool), of(1), of(0))
}

impl LaneCounts {
    fn add(&mut self, record: &TrialRecord, recorded: Option<&RecordedWrites>) {
        self.trials += 1;
        self.compared += u64::from(recorded.is_some());
        let mut failing: BTreeSet<&str> = BTreeSet::new();
        for call in &record.calls {
            self.tools.entry(call.tool.clone()).or_default().calls += 1;
            if call.is_error == Some(true) || call.status.is_some_and(|status| status >= 400) {
                failing.insert(&call.tool);
            }
        }
        for tool in failing {
            self.tools.entry(tool.to_owned()).or_default().errors += 1;
        }
        for (change, tool) in write_changes::of_trial(record, recorded) {
            let counts = &mut self.tools.entry(tool).or_default().changes;
            for (count, one) in counts.iter_mut().zip(WriteChange::VARIANTS) {
                *count += u64::from(*one == change);
            }
        }
    }

    /// Share of the lane's trials; calls per trial for a number of calls.
    fn share(&self, count: u64) -> f64 {
        cast::to_f64(count) / cast::to_f64(self.trials.max(1))
    }
}

/// The row with its sort keys: tools that write first, then the largest change in calls.
fn tool_row(tool: &str, effect: Effect, lanes: &[LaneCounts; 2], rates: &[ToolRate]) -> (bool, f64, ToolRow) {
    let counts = [0, 1].map(|lane: usize| lanes[lane].tools.get(tool).copied().unwrap_or_default());
    let per_trial = [0, 1].map(|lane: usize| lanes[lane].share(counts[lane].calls));
    let trial_counts = |of: &dyn Fn(&ToolCounts) -> u64| -> TrialCounts {
        let shares = [0, 1].map(|lane: usize| lanes[lane].share(of(&counts[lane])));
        let [baseline, candidate] = [0, 1].map(|lane: usize| {
            let count = of(&counts[lane]);
            CountWithShare {
                count: number::count(count),
                share: (count > 0).then(|| number::percent(shares[lane])),
            }
        });
        // The mark is for reading. The metrics say whether a rise is proven.
        let severity = if shares[1] > shares[0] + MARKED_RISE { Severity::Bad } else { Severity::Neutral };
        TrialCounts { baseline, candidate, severity }
    };
    let change = per_trial[1] - per_trial[0];
    let is_marked = change.abs() > MARKED_CALL_CHANGE * per_trial[0].max(MARKED_CALL_CHANGE);
    let row = ToolRow {
        tool: escape::name(tool),
        filter: anchor::query_value(tool),
        effect: wording::effect(effect),
        calls: per_trial.map(|rate| format!("{rate:.2}")),
        calls_change: change_text(per_trial),
        calls_severity: if is_marked { Severity::Warning } else { Severity::Neutral },
        p_called: (rates.iter())
            .find(|rate| rate.tool == tool)
            .map_or_else(String::new, |rate| number::p_value(rate.p_called)),
        errors: TrialCounts { severity: Severity::Neutral, ..trial_counts(&|of| of.errors) },
        changes: WriteChange::VARIANTS
            .iter()
            .map(|change| trial_counts(&|of| of.trials_with(*change)))
            .collect(),
    };
    (effect == Effect::Write, change.abs(), row)
}

fn change_text([before, after]: [f64; 2]) -> String {
    if before == 0.0 {
        "new".to_owned()
    } else if after == 0.0 {
        "gone".to_owned()
    } else if (after / before - 1.0).abs() < 0.005 {
        "same".to_owned()
    } else {
        let change = 100.0 * (after / before - 1.0);
        format!("{}{:.0}%", if change < 0.0 { "\u{2212}" } else { "+" }, change.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, trials};

    #[test]
    fn a_duplicated_write_counts_against_the_candidate_only() {
        let runs = fixture::runs();
        let table = tool_table(&trials::by_case(&runs.input(), 7).unwrap(), &[]);
        assert!(table.has_recording);
        let refund = &table.rows[0];
        assert_eq!((refund.tool.as_str(), refund.effect), ("refund", "write"));
        let [duplicated, missing, _, _, reordered] = &refund.changes[..] else { panic!("five changes") };
        assert_eq!(duplicated.baseline, CountWithShare { count: "0".to_owned(), share: None });
        let once = CountWithShare { count: "1".to_owned(), share: Some("33.3 %".to_owned()) };
        assert_eq!(duplicated.candidate, once);
        assert_eq!((missing.candidate.count.as_str(), reordered.candidate.count.as_str()), ("0", "0"));
        assert_eq!(refund.calls_change, "+33%");
        assert_eq!(
            table.headlines,
            ["duplicated write refund in 1 of 3 candidate trials, 0 of 3 baseline trials"]
        );
    }
}
