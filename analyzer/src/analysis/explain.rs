//! Sessions that explain each number, the worst first.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::{Example, FINDINGS_PER_SUBJECT, Finding};
use crate::format;
use crate::invariants::Checked;
use crate::metrics::{CaseTable, Measured};
use crate::pairs::{PairedCase, Pairs};
use crate::run::TrialRecord;
use crate::writes::{self, Write};

/// Largest number of writes named in a sentence.
const NAMED_WRITES: usize = 3;

/// Findings of invariants, then of metrics in their order.
pub(super) fn findings(pairs: &Pairs<'_>, metrics: &[Measured], checked: &Checked) -> Vec<Finding> {
    let mut findings = Vec::new();
    for result in &checked.results {
        let broken = checked.broken.iter().filter(|broken| broken.0 == result.name);
        for (subject, case, session, trial, detail) in broken.take(FINDINGS_PER_SUBJECT) {
            let example = Example {
                lane: "candidate".to_owned(),
                trial: *trial,
                session: session.clone(),
                detail: detail.clone(),
            };
            findings.push(Finding {
                subject: (*subject).to_owned(),
                case: case.clone(),
                effect: None,
                baseline: None,
                candidate: None,
                detail: detail.clone(),
                examples: vec![example],
            });
        }
    }
    for metric in metrics.iter().filter(|metric| metric.slice.is_none()) {
        findings.extend(of_metric(pairs, metric));
    }
    findings
}

fn of_metric(pairs: &Pairs<'_>, metric: &Measured) -> Vec<Finding> {
    let mut worse: Vec<&CaseTable> = metric.observed.iter().filter(|case| case.observed() < 0.0).collect();
    // The sort is stable: ties stay in the order of their cases.
    worse.sort_by(|a, b| a.observed().total_cmp(&b.observed()));
    let finding = |table: &&CaseTable| {
        let case = &pairs.cases[table.place];
        let value = |value| format::value(metric.unit, value);
        let shown = case.candidate.trials.iter().find(|record| shows(&metric.name, case, record));
        let shown = shown.or(case.candidate.trials.first()).copied();
        let seen = shown.map_or_else(String::new, |record| describe(&metric.name, case, record));
        let numbers = format!("baseline {}, candidate {}", value(table.baseline), value(table.candidate));
        let detail = if seen.is_empty() { numbers } else { format!("{numbers}: {seen}") };
        Finding {
            subject: metric.name.clone(),
            case: case.case.to_string(),
            effect: Some(table.observed()),
            baseline: Some(table.baseline),
            candidate: Some(table.candidate),
            detail,
            examples: examples(case, shown, &seen),
        }
    };
    worse.iter().take(FINDINGS_PER_SUBJECT).map(finding).collect()
}

fn examples(case: &PairedCase<'_>, shown: Option<&TrialRecord>, seen: &str) -> Vec<Example> {
    let example = |lane: &str, record: &TrialRecord, detail: &str| Example {
        lane: lane.to_owned(),
        trial: record.trial.trial,
        session: record.trial.session.to_string(),
        detail: detail.to_owned(),
    };
    let recorded = case.recorded_any.map(|record| example("recorded", record, ""));
    let baseline = case.baseline.trials.first().map(|record| example("baseline", record, ""));
    let candidate = shown.map(|record| example("candidate", record, seen));
    [recorded, baseline, candidate].into_iter().flatten().collect()
}

/// Whether this trial shows the metric's problem.
fn shows(metric: &str, case: &PairedCase<'_>, record: &TrialRecord) -> bool {
    match metric {
        "success" | "pass_k" | "agreement" => {
            record.trial.success == Some(false)
                || record.trial.success.is_none() && !describe(metric, case, record).is_empty()
        }
        _ => !describe(metric, case, record).is_empty(),
    }
}

/// Behaviour of this trial that the metric measures, in words; empty if there is none.
fn describe(metric: &str, case: &PairedCase<'_>, record: &TrialRecord) -> String {
    // The same text under every metric that counts a write, so that a report can list the write once.
    let against = |counts: fn(&WriteDifference) -> bool| {
        let Some(recorded) = case.recorded else { return String::new() };
        let difference = WriteDifference::new(record, recorded);
        if counts(&difference) { difference.text() } else { String::new() }
    };
    match metric {
        "success" | "pass_k" | "agreement" => {
            if record.trial.ending == schemas::trial::TrialEnding::Complete {
                against(|_| true)
            } else {
                let why = record.trial.ending_detail.as_deref().unwrap_or("no reason given");
                format!("the trial did not complete ({why})")
            }
        }
        "effects.duplicated" => match writes::repeated(record, &[]) {
            Some((tool, arguments, count)) => format!("{tool}({arguments}) made {count} times"),
            None => String::new(),
        },
        "effects.missing" => against(|difference| !difference.missing.is_empty()),
        "effects.extra" => against(|difference| !difference.extra.is_empty()),
        "effects.changed" => against(|_| true),
        "unscorable" => {
            let first = record.trial.divergences.first();
            first.map_or_else(String::new, |divergence| format!("{}: {}", divergence.kind, divergence.detail))
        }
        _ => String::new(),
    }
}

/// Difference between the writes of a trial and those of its recording.
struct WriteDifference {
    missing: Vec<Write>,
    extra: Vec<Write>,
}

impl WriteDifference {
    fn new(record: &TrialRecord, recorded: &TrialRecord) -> Self {
        let (made, expected) = (writes::distinct(record), writes::distinct(recorded));
        Self {
            missing: expected.difference(&made).cloned().collect(),
            extra: made.difference(&expected).cloned().collect(),
        }
    }

    /// Each write once: changed with the arguments that differ, missing, or extra.
    fn text(self) -> String {
        let Self { missing, mut extra } = self;
        let mut changed = Vec::new();
        let mut absent = Vec::new();
        for write in missing {
            // The extra write of the same tool that has most arguments in common.
            let differing = |other: &Write| argument_changes(&write.1, &other.1).len();
            let same_tool = (0..extra.len()).filter(|place| extra[*place].0 == write.0);
            match same_tool.min_by_key(|place| differing(&extra[*place])) {
                Some(place) => {
                    let other = extra.remove(place);
                    let changes = argument_changes(&write.1, &other.1).join(", ");
                    changed.push(format!("{} with {changes}", write.0));
                }
                None => absent.push(write),
            }
        }
        let call = |(tool, arguments): &Write| format!("{tool}({arguments})");
        let list = |what: &str, writes: Vec<String>| {
            let more = writes.len().saturating_sub(NAMED_WRITES);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = writes.iter().take(NAMED_WRITES).cloned().collect::<Vec<_>>().join("; ");
            (!writes.is_empty()).then(|| format!("{what}: {named}{rest}"))
        };
        let parts = [
            list("changed write", changed),
            list("missing write", absent.iter().map(call).collect()),
            list("extra write", extra.iter().map(call).collect()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Arguments that differ between two calls of a tool, as `amount_cents 2370 → 2100`.
fn argument_changes(before: &str, after: &str) -> Vec<String> {
    let leaves = |text: &str| {
        let mut leaves = BTreeMap::new();
        match serde_json::from_str(text) {
            Ok(value) => flatten("", &value, &mut leaves),
            Err(_) => drop(leaves.insert("arguments".to_owned(), text.to_owned())),
        }
        leaves
    };
    let (before, after) = (leaves(before), leaves(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differing = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let shown = |value: Option<&String>| value.map_or("absent", String::as_str).to_owned();
    let changes: Vec<String> = differing
        .map(|name| format!("{name} {} \u{2192} {}", shown(before.get(name)), shown(after.get(name))))
        .collect();
    // A number that differs in digits beyond those of the reader's parser.
    if changes.is_empty() { vec!["digits of a number changed".to_owned()] } else { changes }
}

/// Values by their path, such as `items.0.quantity`.
fn flatten(path: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    let under = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(key, value)| flatten(&under(key), value, leaves));
        }
        serde_json::Value::Array(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                flatten(&under(&number.to_string()), item, leaves);
            }
        }
        _ => {
            leaves.insert(path.to_owned(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{record, write};

    fn text(made: &[(&str, &str)], recorded: &[(&str, &str)]) -> String {
        let of = |calls: &[(&str, &str)]| {
            record("c", 0, calls.iter().map(|(tool, arguments)| write(tool, arguments)).collect())
        };
        WriteDifference::new(&of(made), &of(recorded)).text()
    }

    #[test]
    fn a_changed_write_is_listed_once_with_its_arguments() {
        let recorded = [("refund", r#"{"amount_cents":2370,"order":"A1"}"#), ("mail", r#"{"to":"Ann"}"#)];
        let made = [("refund", r#"{"amount_cents":2100,"order":"A1"}"#), ("mail", r#"{"to":"Ann"}"#)];
        assert_eq!(text(&made, &recorded), "changed write: refund with amount_cents 2370 \u{2192} 2100");
        // As sent: nothing is lower-cased, and absent is not null.
        let made = [("refund", r#"{"amount_cents":2370}"#), ("mail", r#"{"to":"ann"}"#)];
        assert_eq!(
            text(&made, &recorded),
            "changed write: mail with to \"Ann\" \u{2192} \"ann\"; refund with order \"A1\" \u{2192} absent"
        );
        let made = [("mail", r#"{"to":"Ann"}"#), ("close", "{}")];
        assert_eq!(
            text(&made, &recorded),
            "missing write: refund({\"amount_cents\":2370,\"order\":\"A1\"}); extra write: close({})"
        );
    }
}
