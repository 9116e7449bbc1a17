//! Sessions that explain each number, the worst first.

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
    let against = |side: fn(&mut WriteDifference)| {
        let Some(recorded) = case.recorded else { return String::new() };
        let mut difference = WriteDifference::new(record, recorded);
        side(&mut difference);
        difference.text()
    };
    match metric {
        "success" | "pass_k" | "agreement" => {
            if record.trial.ending == schemas::trial::TrialEnding::Complete {
                against(|_| {})
            } else {
                let why = record.trial.ending_detail.as_deref().unwrap_or("no reason given");
                format!("the trial did not complete ({why})")
            }
        }
        "effects.duplicated" => match writes::repeated(record, &[]) {
            Some((tool, arguments, count)) => format!("{tool}({arguments}) made {count} times"),
            None => String::new(),
        },
        "effects.missing" => against(|difference| difference.extra.clear()),
        "effects.extra" => against(|difference| difference.missing.clear()),
        "effects.changed" => against(|_| {}),
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

    fn text(&self) -> String {
        let list = |what: &str, writes: &[Write]| {
            let named: Vec<String> = writes
                .iter()
                .take(NAMED_WRITES)
                .map(|(tool, arguments)| format!("{tool}({arguments})"))
                .collect();
            let more = writes.len().saturating_sub(NAMED_WRITES);
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            (!writes.is_empty()).then(|| format!("{what}: {}{rest}", named.join(", ")))
        };
        let parts = [list("missing write", &self.missing), list("extra write", &self.extra)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}
