//! Evaluates every declared invariant on every complete trial of both lanes and on the recordings: exact rates and
//! their bounds.
//!
//! Trials of one session are not independent, so bounds count sessions.

use std::borrow::Cow;
use std::collections::BTreeSet;

use statrs::function::beta::beta_reg;

use super::{Check, Invariant, InvariantViolation, envelope_check, mutation_check};
use crate::cast::to_f64;
use crate::pairs::{Arm, PairedCase, Pairs};
use crate::policy::Policy;
use crate::run::TrialRecord;
use crate::verdict::{
    EnvelopeIdentity, InvariantResult, InvariantState, LaneCheck, MutationCheck, ViolationExample,
};

/// Largest number of violating sessions listed.
const EXAMPLES: usize = 20;

/// Largest number of violations listed.
const BREACHES: usize = 100;

/// Level of the upper bound on the share of violating cases.
const BOUND_LEVEL: f64 = 0.95;

/// Evaluation of all declared invariants.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Results in the order of the verdict.
    pub(crate) results: Vec<InvariantResult>,
    /// Names of invariants that the baseline breaks too.
    pub(crate) demoted: Vec<&'static str>,
    /// Caveats that forbid approval.
    pub(crate) caveats: Vec<Caveat>,
    /// Notes for the reader.
    pub(crate) notes: Vec<String>,
    /// Violating candidate trials: invariant, case, session, trial, violation.
    pub(crate) broken: Vec<(&'static str, String, String, u32, String)>,
}

/// A reason why an invariant shows less than the policy demands.
#[derive(Debug)]
pub(crate) struct Caveat {
    /// Name of the invariant.
    pub(crate) name: &'static str,
    /// Kind of caveat.
    pub(crate) why: CaveatKind,
    /// The caveat in words.
    pub(crate) detail: String,
}

/// Kinds of caveat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CaveatKind {
    /// The invariant was not checked, or is vacuous.
    Unchecked,
    /// Too few cases for the demanded bound.
    TooFewCases,
}

/// Checks every complete trial of both runs, paired or not.
pub(crate) fn check(policy: &Policy, pairs: &Pairs<'_>, seed: u64) -> Checked {
    let mut checked = Checked::default();
    for (invariant, again) in
        Invariant::declared(&policy.invariant).into_iter().zip(Invariant::declared(&policy.invariant))
    {
        check_one(policy, &invariant, &again, pairs, seed, &mut checked);
    }
    judge_envelope(policy, pairs, &mut checked);
    checked
}

/// Identity of the envelope that trials were checked against.
pub(crate) fn envelope_name(policy: &Policy) -> Option<EnvelopeIdentity> {
    let envelope = policy.invariant.enabled_envelope()?;
    let listed = |key: &::envelope::NotChecked| format!("line {}: {}", key.line, key.key);
    Some(EnvelopeIdentity {
        digest: envelope.digest().to_owned(),
        agent: envelope.agent().map(str::to_owned),
        version: envelope.version().map(str::to_owned),
        not_checked: envelope.not_checked().iter().map(listed).collect(),
    })
}

/// A violation counts if a second evaluation, by a checker built again from the policy, finds the same.
fn confirmed(again: &Invariant<'_>, record: &TrialRecord, found: &[InvariantViolation]) -> bool {
    matches!(again.check(record), Check::Broken(violations) if violations == found)
}

fn check_one(
    policy: &Policy,
    invariant: &Invariant<'_>,
    again: &Invariant<'_>,
    pairs: &Pairs<'_>,
    seed: u64,
    checked: &mut Checked,
) {
    let name = invariant.name();
    let mut result = InvariantResult { name: name.to_owned(), ..InvariantResult::default() };
    let mut lanes = [LaneCheck::default(); 3];
    let mut after_miss = 0_u64;
    // Candidate trials with redacted values that cannot be checked, and the kinds of the values.
    let mut redacted: (u64, BTreeSet<String>) = (0, BTreeSet::new());
    for case in &pairs.cases {
        let mut candidate = Vec::with_capacity(case.candidate.trials.len());
        let lost = [violating_lost(invariant, &case.baseline), violating_lost(invariant, &case.candidate)];
        for record in case.candidate.trials.iter().copied().chain(lost[1].iter().copied()) {
            let (check, record) = until_miss(invariant, record, &mut after_miss);
            let record = &*record;
            match check {
                Check::Broken(violations) if !confirmed(again, record, &violations) => {
                    result.unconfirmed += 1
                }
                Check::Broken(violations) => {
                    note(&mut result, case, record, &violations);
                    let detail = words(&violations);
                    let session = record.trial.session.to_string();
                    checked.broken.push((name, case.case.to_string(), session, record.trial.trial, detail));
                    candidate.push(Some(true));
                }
                Check::Kept => candidate.push(Some(false)),
                Check::Redacted(kinds) => {
                    redacted.0 += 1;
                    redacted.1.extend(kinds);
                    candidate.push(None);
                }
                Check::Unchecked => candidate.push(None),
            }
        }
        let state = |record: &TrialRecord| match until_miss(invariant, record, &mut 0).0 {
            Check::Broken(_) => Some(true),
            Check::Kept => Some(false),
            Check::Redacted(_) | Check::Unchecked => None,
        };
        add(&mut lanes[0], candidate.into_iter());
        add(&mut lanes[1], case.baseline.trials.iter().copied().chain(lost[0].iter().copied()).map(state));
        add(&mut lanes[2], case.recorded_any.iter().copied().map(state));
    }
    for lane in &mut lanes {
        lane.rate = if lane.cases == 0 { 0.0 } else { to_f64(lane.violating_cases) / to_f64(lane.cases) };
        lane.upper_bound = upper_bound(lane.violating_cases, lane.cases);
    }
    [result.candidate, result.baseline, _] = lanes;
    result.recorded = (lanes[2].trials > 0).then_some(lanes[2]);
    result.violations = result.candidate.violations;
    result.cases = result.candidate.cases;
    result.upper_bound = result.candidate.upper_bound;
    result.violations_baseline = result.baseline.violations;
    result.max_rate = policy.invariant.max_rate.get(name).copied();
    result.mutation_check = Some(live(invariant, &result, pairs, seed));
    result.redacted = redacted.0;
    judge(name, &mut result, checked);
    if after_miss > 0 {
        let detail = format!(
            "{after_miss} candidate trials break invariant {name} only after a call that the recording could not answer, \
             which may be caused by the error that they got; the notes name the missed calls"
        );
        checked.caveats.push(Caveat { name, why: CaveatKind::Unchecked, detail });
    }
    judge_redacted(name, &mut result, redacted.1, checked);
    checked.results.push(result);
}

/// Checks a trial up to its first miss. A violation before it is a fact. A later one can be caused by the world's error: it is
/// counted in `after_miss` and does not block. Without a violation, a trial with a miss shows nothing.
fn until_miss<'r>(
    invariant: &Invariant<'_>,
    record: &'r TrialRecord,
    after_miss: &mut u64,
) -> (Check, Cow<'r, TrialRecord>) {
    let cut = record.until_miss();
    let check = invariant.check(&cut);
    if matches!(cut, Cow::Borrowed(_)) || matches!(check, Check::Broken(_) | Check::Redacted(_)) {
        return (check, cut);
    }
    *after_miss += u64::from(matches!(invariant.check(record), Check::Broken(_)));
    (Check::Unchecked, cut)
}

/// Trials that the infrastructure failed and one of whose calls breaks an invariant by itself. What a trial called, it
/// called. Its answer, its time, and what it repeated or left out may come from the failure and show nothing, and neither
/// does a trial without a violation.
fn violating_lost<'a>(invariant: &Invariant<'_>, arm: &Arm<'a>) -> Vec<&'a TrialRecord> {
    if !matches!(invariant.name(), "envelope" | "forbidden" | "tool-arguments") {
        return Vec::new();
    }
    let broken = |record: &&TrialRecord| matches!(invariant.check(&record.until_miss()), Check::Broken(_));
    arm.lost.iter().copied().filter(broken).collect()
}

/// Counts the trials of a case: `Some(true)` breaks the invariant, `Some(false)` keeps it, `None` does not apply.
fn add(lane: &mut LaneCheck, trials: impl Iterator<Item = Option<bool>>) {
    let (mut seen, mut broken) = (0, 0);
    for is_broken in trials.flatten() {
        seen += 1;
        broken += u64::from(is_broken);
    }
    lane.trials += seen;
    lane.violations += broken;
    lane.cases += u64::from(seen > 0);
    lane.violating_cases += u64::from(broken > 0);
}

fn note(
    result: &mut InvariantResult,
    case: &PairedCase<'_>,
    record: &TrialRecord,
    violations: &[InvariantViolation],
) {
    if result.examples.len() >= EXAMPLES {
        return;
    }
    let (trial, session) = (record.trial.trial, record.trial.session.to_string());
    result.details.push(format!(
        "case {}, trial {trial}, session {session}: {}",
        case.case,
        words(violations)
    ));
    let room = BREACHES.saturating_sub(result.violation_examples.len());
    result.violation_examples.extend(violations.iter().take(room).map(|violation| ViolationExample {
        case: case.case.to_string(),
        trial,
        session: session.clone(),
        seq: violation.seq,
        tool: violation.tool.clone(),
        rule: violation.rule.clone(),
        pointer: violation.pointer.clone(),
        detail: violation.detail.clone(),
    }));
    result.examples.push(session);
}

/// The first violation of a trial, and the number of further ones.
fn words(violations: &[InvariantViolation]) -> String {
    let first = violations.first().map(InvariantViolation::words).unwrap_or_default();
    match violations.len() {
        0 | 1 => first,
        many => format!("{first} (and {} more)", many - 1),
    }
}

/// Mutation check of an invariant that the baseline keeps; a violation by the baseline already shows that it can fail.
fn live(invariant: &Invariant<'_>, result: &InvariantResult, pairs: &Pairs<'_>, seed: u64) -> MutationCheck {
    if result.violations_baseline > 0 {
        return MutationCheck::default();
    }
    let baseline: Vec<&TrialRecord> =
        pairs.cases.iter().flat_map(|case| &case.baseline.trials).copied().collect();
    mutation_check::probe(invariant, &baseline, seed)
}

/// Sets the state of an invariant and adds its caveats.
fn judge(name: &'static str, result: &mut InvariantResult, checked: &mut Checked) {
    let mut caveat = |why, detail: String| checked.caveats.push(Caveat { name, why, detail });
    if result.cases == 0 {
        result.state = InvariantState::Unchecked;
        let detail = format!("invariant {name} applies to no candidate trial");
        caveat(CaveatKind::Unchecked, detail);
    } else if result.violations_baseline > 0 {
        result.state = InvariantState::Demoted;
        checked.demoted.push(name);
    } else if result.violations > 0 {
        result.state = InvariantState::Violated;
    }
    let mutation_check = result.mutation_check.as_ref();
    if let Some(vacuous) = mutation_check.filter(|check| check.vacuous && result.cases > 0) {
        let detail =
            format!("invariant {name} is vacuous on these sessions ({})", vacuous.vacuous_rules.join("; "));
        caveat(CaveatKind::Unchecked, detail);
        if result.state == InvariantState::Kept {
            result.state = InvariantState::Vacuous;
        }
    }
    if let Some(max_rate) =
        result.max_rate.filter(|max_rate| result.cases > 0 && result.upper_bound > *max_rate)
    {
        let detail = too_few(name, result, max_rate);
        caveat(CaveatKind::TooFewCases, detail);
        if result.state == InvariantState::Kept {
            result.state = InvariantState::TooFewCases;
        }
    }
    notes(name, result, &mut checked.notes);
}

/// A value that redaction replaced cannot be searched any more: the invariant is unchecked in these trials.
fn judge_redacted(
    name: &'static str,
    result: &mut InvariantResult,
    kinds: BTreeSet<String>,
    checked: &mut Checked,
) {
    if kinds.is_empty() {
        return;
    }
    let kinds: Vec<String> = kinds.into_iter().collect();
    let detail = format!(
        "invariant {name} cannot be checked in {} candidate trials: they hold redacted values ({}) that a rule might have \
         matched; to forbid every value of a kind, add the pattern '⟦{}:'",
        result.redacted,
        kinds.join(", "),
        kinds[0]
    );
    checked.caveats.push(Caveat { name, why: CaveatKind::Unchecked, detail });
    if result.state == InvariantState::Kept {
        result.state = InvariantState::Unchecked;
    }
}

fn too_few(name: &str, result: &InvariantResult, max_rate: f64) -> String {
    let needed = ((1.0 - BOUND_LEVEL).ln() / (-max_rate).ln_1p()).ceil();
    format!(
        "invariant {name}: {} of {} cases break it, so at most {:.2} % of such cases do, and the policy wants at most {:.2} % \
         ({needed:.0} cases without a violation show that)",
        result.candidate.violating_cases,
        result.cases,
        100.0 * result.upper_bound,
        100.0 * max_rate
    )
}

fn notes(name: &str, result: &InvariantResult, notes: &mut Vec<String>) {
    if result.unconfirmed > 0 {
        notes.push(format!(
            "{} violations of invariant {name} were not confirmed by a second evaluation and do not count",
            result.unconfirmed
        ));
    }
    if let Some(recorded) = result.recorded.filter(|recorded| recorded.violations > 0) {
        notes.push(format!(
            "the recording itself breaks invariant {name} in {} of {} cases",
            recorded.violating_cases, recorded.cases
        ));
    }
    let silent =
        result.mutation_check.as_ref().filter(|check| !check.vacuous).map(|check| &check.vacuous_rules);
    if let Some(silent) = silent.filter(|silent| !silent.is_empty()) {
        notes.push(format!("rules of invariant {name} are vacuous on these sessions: {}", silent.join("; ")));
    }
}

/// Notes and caveats of the envelope apart from its violations.
fn judge_envelope(policy: &Policy, pairs: &Pairs<'_>, checked: &mut Checked) {
    let name = "envelope";
    let Some(envelope) = policy.invariant.enabled_envelope() else {
        if policy.invariant.envelope == Some(true) {
            let detail =
                "invariant.envelope is on without an envelope; pass --envelope FILE, or set on = false"
                    .to_owned();
            checked.caveats.push(Caveat { name, why: CaveatKind::Unchecked, detail });
        } else if policy.invariant.declared_envelope.is_some() {
            checked
                .notes
                .push("the policy turns the envelope off, so no call was checked against it".to_owned());
        }
        return;
    };
    let of_kind = |restricts: bool| {
        let keys = envelope.not_checked().iter().filter(|key| key.restricts == restricts);
        let listed: Vec<String> = keys.map(|key| format!("{} (line {})", key.key, key.line)).collect();
        (!listed.is_empty()).then(|| listed.join(", "))
    };
    if let Some(keys) = of_kind(true) {
        let detail = format!(
            "this version cannot check these restrictions of the envelope, which forbids approval: {keys}; move them to \
             another envelope"
        );
        checked.caveats.push(Caveat { name, why: CaveatKind::Unchecked, detail });
    }
    if let Some(keys) = of_kind(false) {
        checked.notes.push(format!("this version does not check these envelope keys on trials: {keys}"));
    }
    let watched = envelope.tools().flat_map(|(_, tool)| tool.bounds()).any(|bound| !bound.enforced);
    if watched {
        let mut counts = std::collections::BTreeMap::new();
        for record in pairs.cases.iter().flat_map(|case| &case.candidate.trials) {
            for rule in envelope_check::observed(envelope, record) {
                *counts.entry(rule).or_insert(0_u64) += 1;
            }
        }
        checked.notes.extend(counts.into_iter().map(|(rule, count)| {
            format!("envelope rule {rule} is in observe mode; {count} candidate trials break it, which does not block")
        }));
    }
}

/// Upper 95 % bound of a share (Clopper and Pearson 1934): `hits` of `cases`.
pub(super) fn upper_bound(hits: u64, cases: u64) -> f64 {
    if hits >= cases {
        return 1.0;
    }
    let (x, n) = (to_f64(hits), to_f64(cases));
    if hits == 0 {
        return 1.0 - (1.0 - BOUND_LEVEL).powf(1.0 / n);
    }
    let (mut low, mut high) = (x / n, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        // P(at most x of n) = 1 - I(p; x + 1, n - x).
        if beta_reg(x + 1.0, n - x, middle) < BOUND_LEVEL { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
