//! What changed in the tools: calls, and the writes that are repeated, missing, extra or changed, tool by tool.

use std::collections::{BTreeMap, BTreeSet};

use schemas::exchange::Effect;
use serde::Serialize;

use super::cases::Sides;
use super::{phrases, text};
use crate::run::TrialRecord;
use crate::writes::{self, Write};

/// Tools listed; the rest are counted.
const TOOLS_LISTED: usize = 100;

/// The table of tools.
#[derive(Debug, Serialize)]
pub(super) struct Tools {
    rows: Vec<ToolRow>,
    /// Tools that are not listed.
    left_out: usize,
    /// Trials with a transcript: baseline, candidate.
    trials: [String; 2],
    /// Whether a recording was there to compare writes with.
    has_recording: bool,
    /// Tools whose effect nobody declared: their writes are not in the table.
    undeclared: usize,
}

#[derive(Debug, Serialize)]
struct ToolRow {
    tool: String,
    effect: &'static str,
    /// Calls per trial: baseline, candidate.
    calls: [String; 2],
    calls_change: String,
    calls_tone: &'static str,
    /// Trials in which the tool reported an error.
    errors: Pair,
    duplicated: Pair,
    missing: Pair,
    extra: Pair,
    changed: Pair,
}

/// Trials of each lane in which something happened.
#[derive(Debug, Serialize)]
struct Pair {
    baseline: Trials,
    candidate: Trials,
    tone: &'static str,
}

/// How many trials, and their share; no share where there are none.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Trials {
    count: String,
    share: Option<String>,
}

/// What one lane did with one tool.
#[derive(Debug, Default, Clone, Copy)]
struct Use {
    calls: u64,
    errors: u64,
    duplicated: u64,
    missing: u64,
    extra: u64,
    changed: u64,
}

#[derive(Default)]
struct Lane {
    trials: u64,
    /// Of them those whose case has a recording to compare with.
    compared: u64,
    tools: BTreeMap<String, Use>,
}

/// Counts the tool calls of the paired cases.
pub(super) fn tools(cases: &BTreeMap<&str, Sides<'_>>) -> Tools {
    let mut lanes = [Lane::default(), Lane::default()];
    let mut effects: BTreeMap<&str, Effect> = BTreeMap::new();
    for sides in cases.values().filter(|sides| sides.is_paired()) {
        let recorded = sides.reference.filter(|record| record.trial.has_transcript).map(writes::distinct);
        for (lane, trials) in lanes.iter_mut().zip([&sides.baseline, &sides.candidate]) {
            for record in trials.iter().map(|shown| shown.record).filter(|record| votes(record)) {
                lane.add(record, recorded.as_ref());
                effects.extend(record.calls.iter().map(|call| (call.tool.as_str(), call.effect)));
            }
        }
    }
    let mut rows: Vec<(bool, f64, ToolRow)> =
        effects.iter().map(|(tool, effect)| tool_row(tool, *effect, &lanes)).collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then_with(|| a.2.tool.cmp(&b.2.tool)));
    Tools {
        left_out: rows.len().saturating_sub(TOOLS_LISTED),
        rows: rows.into_iter().take(TOOLS_LISTED).map(|(_, _, row)| row).collect(),
        trials: [0, 1].map(|lane: usize| text::count(lanes[lane].trials)),
        has_recording: lanes.iter().any(|lane| lane.compared > 0),
        undeclared: effects.values().filter(|effect| **effect == Effect::Unknown).count(),
    }
}

/// Whether its calls are counted.
fn votes(record: &TrialRecord) -> bool {
    record.trial.has_transcript && !record.is_torn()
}

impl Lane {
    fn add(&mut self, record: &TrialRecord, recorded: Option<&BTreeSet<Write>>) {
        self.trials += 1;
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
        let used: BTreeSet<&str> = record.calls.iter().map(|call| call.tool.as_str()).collect();
        for tool in used {
            if writes::repeated(record, &[tool.to_owned()]).is_some() {
                self.tools.entry(tool.to_owned()).or_default().duplicated += 1;
            }
        }
        if let Some(recorded) = recorded {
            self.compared += 1;
            self.compare(&writes::distinct(record), recorded);
        }
    }

    /// Counts the tools whose writes differ from the recording's; a changed write is a missing and an extra one too.
    fn compare(&mut self, made: &BTreeSet<Write>, recorded: &BTreeSet<Write>) {
        let tools_of = |writes: Vec<&Write>| -> BTreeSet<String> {
            writes.into_iter().map(|write| write.0.clone()).collect()
        };
        let missing = tools_of(recorded.difference(made).collect());
        let extra = tools_of(made.difference(recorded).collect());
        for tool in missing.union(&extra) {
            let counts = self.tools.entry(tool.clone()).or_default();
            counts.missing += u64::from(missing.contains(tool));
            counts.extra += u64::from(extra.contains(tool));
            counts.changed += u64::from(missing.contains(tool) && extra.contains(tool));
        }
    }

    fn rate(&self, count: u64) -> f64 {
        crate::count::float(count) / crate::count::float(self.trials.max(1))
    }
}

/// The row with its sort keys: writes first, then the largest change in calls.
fn tool_row(tool: &str, effect: Effect, lanes: &[Lane; 2]) -> (bool, f64, ToolRow) {
    let uses = [0, 1].map(|lane: usize| lanes[lane].tools.get(tool).copied().unwrap_or_default());
    let rates = [0, 1].map(|lane: usize| lanes[lane].rate(uses[lane].calls));
    let pair = |of: fn(&Use) -> u64| -> Pair {
        let shares = [0, 1].map(|lane: usize| lanes[lane].rate(of(&uses[lane])));
        let [baseline, candidate] = [0, 1].map(|lane: usize| {
            let count = of(&uses[lane]);
            Trials { count: text::count(count), share: (count > 0).then(|| text::percent(shares[lane])) }
        });
        // Only a rise that a reader would call one is marked; whether it is proven, the metrics say.
        let tone = if shares[1] > shares[0] + 0.01 { phrases::BAD } else { phrases::OPEN };
        Pair { baseline, candidate, tone }
    };
    let change = rates[1] - rates[0];
    let row = ToolRow {
        tool: text::name(tool),
        effect: phrases::effect(effect),
        calls: rates.map(|rate| format!("{rate:.2}")),
        calls_change: change_text(rates),
        calls_tone: if change.abs() > 0.1 * rates[0].max(0.1) { phrases::WARN } else { phrases::OPEN },
        errors: Pair { tone: phrases::OPEN, ..pair(|of| of.errors) },
        duplicated: pair(|of| of.duplicated),
        missing: pair(|of| of.missing),
        extra: pair(|of| of.extra),
        changed: pair(|of| of.changed),
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
    use crate::report::{cases, sample};

    #[test]
    fn a_doubled_write_is_counted_against_the_candidate_alone() {
        let runs = sample::runs();
        let tools = tools(&cases::by_case(&runs.evidence(), 7).unwrap());
        assert!(tools.has_recording);
        let refund = &tools.rows[0];
        assert_eq!((refund.tool.as_str(), refund.effect), ("refund", "write"));
        assert_eq!(refund.duplicated.baseline, Trials { count: "0".to_owned(), share: None });
        let once = Trials { count: "1".to_owned(), share: Some("33.3 %".to_owned()) };
        assert_eq!(refund.duplicated.candidate, once);
        assert_eq!(refund.missing.candidate.count, "0");
        assert_eq!(refund.calls_change, "+33%");
    }
}
