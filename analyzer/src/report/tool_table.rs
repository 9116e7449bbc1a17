//! What changed in the tools: calls, and the writes that are repeated, missing, extra or changed, tool by tool.

use std::collections::{BTreeMap, BTreeSet};

use schemas::exchange::Effect;
use serde::Serialize;

use super::cases::Sides;
use super::write_changes::{self, Kind, Reference};
use super::{escape, number, wording};
use crate::run::TrialRecord;
use crate::verdict::ToolRate;

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
    /// What a person reads first: the candidate's writes that differ more often than the baseline's.
    pub(super) headlines: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ToolRow {
    tool: String,
    /// The tool's name as the filter of cases takes it.
    filter: String,
    effect: &'static str,
    /// Calls per trial: baseline, candidate.
    calls: [String; 2],
    calls_change: String,
    calls_tone: &'static str,
    /// Chance of such a change in the share of trials that call it, were there none; empty where it was not tested.
    p_called: String,
    /// Trials in which the tool reported an error.
    errors: Pair,
    /// By kind, in the order of [`Kind::ALL`].
    kinds: Vec<Pair>,
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
    kinds: [u64; Kind::ALL.len()],
}

#[derive(Default)]
struct Lane {
    trials: u64,
    /// Of them those whose case has a recording to compare with.
    compared: u64,
    tools: BTreeMap<String, Use>,
}

impl Use {
    fn of(&self, kind: Kind) -> u64 {
        Kind::ALL.iter().zip(self.kinds).filter(|(one, _)| **one == kind).map(|(_, count)| count).sum()
    }
}

/// Counts the tool calls of the paired cases.
pub(super) fn tools(cases: &BTreeMap<&str, Sides<'_>>, rates: &[ToolRate]) -> Tools {
    let mut lanes = [Lane::default(), Lane::default()];
    let mut effects: BTreeMap<&str, Effect> = BTreeMap::new();
    for sides in cases.values().filter(|sides| sides.is_paired()) {
        let reference = sides.reference.filter(|record| record.trial.has_transcript).map(Reference::of);
        for (lane, trials) in lanes.iter_mut().zip([&sides.baseline, &sides.candidate]) {
            for record in
                trials.iter().map(|shown| shown.record).filter(|record| write_changes::votes(record))
            {
                lane.add(record, reference.as_ref());
                effects.extend(record.calls.iter().map(|call| (call.tool.as_str(), call.effect)));
            }
        }
    }
    // A write that only the recording makes is missing from both.
    let missing = lanes.iter().flat_map(|lane| lane.tools.keys());
    let mut effects: BTreeMap<String, Effect> =
        effects.into_iter().map(|(tool, effect)| (tool.to_owned(), effect)).collect();
    for tool in missing {
        effects.entry(tool.clone()).or_insert(Effect::Write);
    }
    let mut rows: Vec<(bool, f64, ToolRow)> =
        effects.iter().map(|(tool, effect)| tool_row(tool, *effect, &lanes, rates)).collect();
    rows.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then_with(|| a.2.tool.cmp(&b.2.tool)));
    Tools {
        left_out: rows.len().saturating_sub(TOOLS_LISTED),
        rows: rows.into_iter().take(TOOLS_LISTED).map(|(_, _, row)| row).collect(),
        trials: [0, 1].map(|lane: usize| number::count(lanes[lane].trials)),
        has_recording: lanes.iter().any(|lane| lane.compared > 0),
        undeclared: effects.values().filter(|effect| **effect == Effect::Unknown).count(),
        headlines: headlines(&effects, &lanes),
    }
}

/// Kinds and tools by which the candidate departs in at least one trial in a hundred more than the baseline.
fn headlines(effects: &BTreeMap<String, Effect>, lanes: &[Lane; 2]) -> Vec<String> {
    let mut found: Vec<(f64, String)> = Vec::new();
    for tool in effects.keys() {
        let uses = [0, 1].map(|lane: usize| lanes[lane].tools.get(tool).copied().unwrap_or_default());
        for kind in Kind::ALL {
            let shares = [0, 1].map(|lane: usize| lanes[lane].rate(uses[lane].of(kind)));
            // What is changed is missing and extra too: it is told once.
            let told =
                matches!(kind, Kind::Missing | Kind::Extra) && uses[1].of(Kind::Changed) >= uses[1].of(kind);
            let rise = shares[1] - shares[0];
            if rise >= 0.01 && !told {
                let of = |lane: usize| {
                    format!("{} of {}", number::count(uses[lane].of(kind)), number::count(lanes[lane].trials))
                };
                let line = format!(
                    "{} {} in {} candidate trials, {} baseline trials",
                    escape::name(tool),
                    kind.as_str(),
                    of(1),
                    of(0)
                );
                found.push((rise, line));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().take(6).map(|(_, line)| line).collect()
}

impl Lane {
    fn add(&mut self, record: &TrialRecord, reference: Option<&Reference>) {
        self.trials += 1;
        self.compared += u64::from(reference.is_some());
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
        for (kind, tool) in write_changes::departures(record, reference) {
            let counts = &mut self.tools.entry(tool).or_default().kinds;
            for (count, one) in counts.iter_mut().zip(Kind::ALL) {
                *count += u64::from(one == kind);
            }
        }
    }

    fn rate(&self, count: u64) -> f64 {
        crate::cast::to_f64(count) / crate::cast::to_f64(self.trials.max(1))
    }
}

/// The row with its sort keys: writes first, then the largest change in calls.
fn tool_row(tool: &str, effect: Effect, lanes: &[Lane; 2], rates: &[ToolRate]) -> (bool, f64, ToolRow) {
    let uses = [0, 1].map(|lane: usize| lanes[lane].tools.get(tool).copied().unwrap_or_default());
    let per_trial = [0, 1].map(|lane: usize| lanes[lane].rate(uses[lane].calls));
    let pair = |of: &dyn Fn(&Use) -> u64| -> Pair {
        let shares = [0, 1].map(|lane: usize| lanes[lane].rate(of(&uses[lane])));
        let [baseline, candidate] = [0, 1].map(|lane: usize| {
            let count = of(&uses[lane]);
            Trials { count: number::count(count), share: (count > 0).then(|| number::percent(shares[lane])) }
        });
        // Only a rise that a reader would call one is marked; whether it is proven, the metrics say.
        let tone = if shares[1] > shares[0] + 0.01 { wording::BAD } else { wording::OPEN };
        Pair { baseline, candidate, tone }
    };
    let change = per_trial[1] - per_trial[0];
    let row = ToolRow {
        tool: escape::name(tool),
        filter: crate::report::anchor::encoded(tool),
        effect: wording::effect(effect),
        calls: per_trial.map(|rate| format!("{rate:.2}")),
        calls_change: change_text(per_trial),
        calls_tone: if change.abs() > 0.1 * per_trial[0].max(0.1) { wording::WARN } else { wording::OPEN },
        p_called: (rates.iter())
            .find(|rate| rate.tool == tool)
            .map_or_else(String::new, |rate| number::p_value(rate.p_called)),
        errors: Pair { tone: wording::OPEN, ..pair(&|of| of.errors) },
        kinds: (0..Kind::ALL.len()).map(|place| pair(&|of| of.kinds[place])).collect(),
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
    use crate::report::{cases, fixture};

    #[test]
    fn a_doubled_write_is_counted_against_the_candidate_alone() {
        let runs = fixture::runs();
        let tools = tools(&cases::by_case(&runs.input(), 7).unwrap(), &[]);
        assert!(tools.has_recording);
        let refund = &tools.rows[0];
        assert_eq!((refund.tool.as_str(), refund.effect), ("refund", "write"));
        let [duplicated, missing, _, _, reordered] = &refund.kinds[..] else { panic!("five kinds") };
        assert_eq!(duplicated.baseline, Trials { count: "0".to_owned(), share: None });
        let once = Trials { count: "1".to_owned(), share: Some("33.3 %".to_owned()) };
        assert_eq!(duplicated.candidate, once);
        assert_eq!((missing.candidate.count.as_str(), reordered.candidate.count.as_str()), ("0", "0"));
        assert_eq!(refund.calls_change, "+33%");
        assert_eq!(tools.headlines, ["refund duplicated in 1 of 3 candidate trials, 0 of 3 baseline trials"]);
    }
}
