//! Invariants and the capability envelope.

use serde::Serialize;

use crate::report::severity::Severity;
use crate::report::{anchor, escape, number, wording};
use crate::verdict::{EnvelopeIdentity, InvariantResult, MutationCheck, Verdict, ViolationExample};

/// Violations listed per invariant.
const VIOLATIONS_LISTED: usize = 5;

/// Rules listed that no changed trial violates.
const VACUOUS_RULES_LISTED: usize = 5;

/// Longest description of a violation, characters.
const MAX_DETAIL_CHARS: usize = 300;

#[derive(Debug, Serialize)]
pub(in crate::report) struct InvariantsSection {
    envelope: Option<EnvelopeView>,
    rows: Vec<InvariantRow>,
}

#[derive(Debug, Serialize)]
struct InvariantRow {
    name: String,
    severity: Severity,
    state: &'static str,
    /// Violating trials: candidate, baseline, recordings; empty without recordings.
    violations: [String; 3],
    /// Violations that a second evaluation did not confirm; empty for none.
    unconfirmed: String,
    cases: String,
    upper_bound: String,
    /// The largest upper bound that the policy allows; empty without one.
    max_rate: String,
    listed: Vec<ViolationView>,
    listed_left_out: usize,
    mutation_check: Option<MutationCheckView>,
}

/// One violation by a candidate trial.
#[derive(Debug, Serialize)]
struct ViolationView {
    /// Link to the case; empty if only the session is known.
    anchor: String,
    /// The case, or the session if the case is unknown.
    case: String,
    /// Trial, exchange, tool, rule and JSON pointer.
    location: String,
    detail: String,
}

/// Whether changed copies of the baseline's trials violate the invariant. If none does, it is vacuous.
#[derive(Debug, Serialize)]
struct MutationCheckView {
    severity: Severity,
    label: &'static str,
    sentence: String,
    vacuous_rules: Vec<String>,
    vacuous_rules_left_out: usize,
}

#[derive(Debug, Serialize)]
struct EnvelopeView {
    sentence: String,
    /// Keys of the envelope that this version does not check.
    not_checked: Vec<String>,
}

pub(in crate::report) fn invariants(verdict: &Verdict) -> InvariantsSection {
    InvariantsSection {
        envelope: verdict.envelope.as_ref().map(envelope),
        rows: verdict.invariants.iter().map(row).collect(),
    }
}

fn row(of: &InvariantResult) -> InvariantRow {
    let (severity, state) = wording::invariant(of);
    let recorded = of.recorded.map(|lane| number::count(lane.violations));
    let (listed, in_all) = if of.violation_examples.is_empty() {
        (violating_sessions(of), of.examples.len())
    } else {
        (
            of.violation_examples.iter().take(VIOLATIONS_LISTED).map(violation).collect(),
            of.violation_examples.len(),
        )
    };
    InvariantRow {
        name: escape::name(&of.name),
        severity,
        state,
        violations: [
            number::count(of.violations),
            number::count(of.violations_baseline),
            recorded.unwrap_or_default(),
        ],
        unconfirmed: if of.unconfirmed > 0 { number::count(of.unconfirmed) } else { String::new() },
        cases: number::count(of.cases),
        upper_bound: number::percent(of.upper_bound),
        max_rate: of.max_rate.map(number::percent).unwrap_or_default(),
        listed_left_out: in_all.saturating_sub(listed.len()),
        listed,
        mutation_check: of.mutation_check.as_ref().map(mutation_check),
    }
}

fn violation(of: &ViolationExample) -> ViolationView {
    let mut location = vec![format!("trial {}", of.trial)];
    location.extend(of.seq.map(|seq| format!("exchange {seq}")));
    location.extend(of.tool.as_deref().map(escape::name));
    location.extend(of.rule.as_deref().map(|rule| format!("rule {}", escape::name(rule))));
    if !of.pointer.is_empty() {
        location.push(escape::name(&of.pointer));
    }
    ViolationView {
        anchor: anchor::case_id(&of.case),
        case: escape::name(&of.case),
        location: location.join(", "),
        detail: detail(&of.detail),
    }
}

/// The violating sessions, for an invariant that does not locate single violations.
fn violating_sessions(of: &InvariantResult) -> Vec<ViolationView> {
    let details = of.details.iter().map(String::as_str).chain(std::iter::repeat(""));
    let examples = of.examples.iter().zip(details).take(VIOLATIONS_LISTED);
    examples
        .map(|(session, text)| ViolationView {
            anchor: String::new(),
            case: escape::name(session),
            location: String::new(),
            detail: detail(text),
        })
        .collect()
}

fn detail(text: &str) -> String {
    escape::visible(&escape::shortened(text, MAX_DETAIL_CHARS))
}

fn mutation_check(of: &MutationCheck) -> MutationCheckView {
    let (severity, label, sentence) = if !of.vacuous {
        let sentence = format!(
            "{} of {} changed trials violate it",
            number::count(of.killed),
            number::count(of.mutants)
        );
        (Severity::Good, "can fail", sentence)
    } else {
        let sentence = "no changed trial of these sessions violates it".to_owned();
        (Severity::Warning, "vacuous", sentence)
    };
    MutationCheckView {
        severity,
        label,
        sentence,
        vacuous_rules: (of.vacuous_rules.iter().take(VACUOUS_RULES_LISTED))
            .map(|rule| escape::visible(rule))
            .collect(),
        vacuous_rules_left_out: of.vacuous_rules.len().saturating_sub(VACUOUS_RULES_LISTED),
    }
}

fn envelope(of: &EnvelopeIdentity) -> EnvelopeView {
    let mut named: Vec<String> = Vec::new();
    named.extend(of.agent.as_deref().map(|agent| format!("for agent {}", escape::name(agent))));
    named.extend(of.version.as_deref().map(|version| format!("version {}", escape::name(version))));
    let named = if named.is_empty() { String::new() } else { format!(" {}", named.join(", ")) };
    EnvelopeView {
        sentence: format!(
            "Every trial was checked against the capability envelope{named} (digest {}).",
            escape::name(&of.digest)
        ),
        not_checked: of.not_checked.iter().map(|key| escape::visible(key)).collect(),
    }
}
