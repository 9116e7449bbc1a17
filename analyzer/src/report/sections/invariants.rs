//! The declared invariants and the envelope, for a reader.

use serde::Serialize;

use crate::report::{anchor, escape, number, wording};
use crate::verdict::{BreachPlace, EnvelopeName, InvariantResult, Liveness};

/// Breaches named per invariant.
const BREACHES_SHOWN: usize = 5;

/// Rules named that nothing breaks.
const SILENT_SHOWN: usize = 5;

/// One invariant.
#[derive(Debug, Serialize)]
pub(in crate::report) struct InvariantView {
    name: String,
    tone: &'static str,
    state: &'static str,
    /// Trials that break it: candidate, baseline, recording; empty for a recording that is not there.
    violations: [String; 3],
    cases: String,
    upper_bound: String,
    demanded: String,
    unconfirmed: String,
    breaches: Vec<BreachView>,
    breaches_left_out: usize,
    liveness: Option<LivenessView>,
}

/// One thing that a candidate's trial did.
#[derive(Debug, Serialize)]
struct BreachView {
    /// Link to its case; empty where only the session is known.
    anchor: String,
    case: String,
    place: String,
    detail: String,
}

/// Whether the invariant can fail at all.
#[derive(Debug, Serialize)]
struct LivenessView {
    tone: &'static str,
    sentence: String,
    silent: Vec<String>,
    silent_left_out: usize,
}

/// The envelope that every trial was checked against.
#[derive(Debug, Serialize)]
pub(in crate::report) struct EnvelopeView {
    sentence: String,
    not_checked: Vec<String>,
}

pub(in crate::report) fn invariant(of: &InvariantResult) -> InvariantView {
    let (tone, state) = wording::invariant(of);
    let recorded = of.recorded.map(|lane| number::count(lane.violations));
    let (breaches, in_all) = if of.breaches.is_empty() {
        (sessions(of), of.examples.len())
    } else {
        (of.breaches.iter().take(BREACHES_SHOWN).map(breach).collect(), of.breaches.len())
    };
    InvariantView {
        name: escape::name(&of.name),
        tone,
        state,
        violations: [
            number::count(of.violations),
            number::count(of.violations_baseline),
            recorded.unwrap_or_default(),
        ],
        cases: number::count(of.cases),
        upper_bound: number::percent(of.upper_bound),
        demanded: of.max_rate.map(number::percent).unwrap_or_default(),
        unconfirmed: if of.unconfirmed > 0 { number::count(of.unconfirmed) } else { String::new() },
        breaches_left_out: in_all.saturating_sub(breaches.len()),
        breaches,
        liveness: of.liveness.as_ref().map(liveness),
    }
}

fn breach(of: &BreachPlace) -> BreachView {
    let mut place = vec![format!("trial {}", of.trial)];
    place.extend(of.seq.map(|seq| format!("exchange {seq}")));
    place.extend(of.tool.as_deref().map(escape::name));
    place.extend(of.rule.as_deref().map(|rule| format!("rule {}", escape::name(rule))));
    if !of.pointer.is_empty() {
        place.push(escape::name(&of.pointer));
    }
    BreachView {
        anchor: anchor::anchor(&of.case),
        case: escape::name(&of.case),
        place: place.join(", "),
        detail: escape::visible(&escape::shortened(&of.detail, 300)),
    }
}

/// The sessions that break it, where single breaches are not told.
fn sessions(of: &InvariantResult) -> Vec<BreachView> {
    let details = of.details.iter().map(String::as_str).chain(std::iter::repeat(""));
    let examples = of.examples.iter().zip(details).take(BREACHES_SHOWN);
    examples
        .map(|(session, detail)| BreachView {
            anchor: String::new(),
            case: escape::name(session),
            place: String::new(),
            detail: escape::visible(&escape::shortened(detail, 300)),
        })
        .collect()
}

fn liveness(of: &Liveness) -> LivenessView {
    let sentence = if of.live {
        format!(
            "can fail: {} of {} changed trials broke it",
            number::count(of.failed),
            number::count(of.mutants)
        )
    } else {
        "nothing that these sessions could do breaks it: it proves nothing".to_owned()
    };
    LivenessView {
        tone: if of.live { wording::GOOD } else { wording::WARN },
        sentence,
        silent: of.silent.iter().take(SILENT_SHOWN).map(|rule| escape::visible(rule)).collect(),
        silent_left_out: of.silent.len().saturating_sub(SILENT_SHOWN),
    }
}

pub(in crate::report) fn envelope(of: &EnvelopeName) -> EnvelopeView {
    let mut named: Vec<String> = Vec::new();
    named.extend(of.agent.as_deref().map(|agent| format!("for agent {}", escape::name(agent))));
    named.extend(of.version.as_deref().map(|version| format!("version {}", escape::name(version))));
    let named = if named.is_empty() { String::new() } else { format!(" {}", named.join(", ")) };
    EnvelopeView {
        sentence: format!(
            "Every trial was checked against the envelope{named} (digest {}).",
            escape::name(&of.digest)
        ),
        not_checked: of.not_checked.iter().map(|key| escape::visible(key)).collect(),
    }
}
