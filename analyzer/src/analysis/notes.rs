//! Notes of a verdict, and the digest of its corpus.

use std::collections::BTreeMap;

use schemas::id::CaseId;
use schemas::trial::Lane;

use super::evidence::Evidence;
use crate::model_inputs;
use crate::pairs::{Pairs, unanswered};
use crate::run::Run;
use crate::tools;
use crate::verdict::{LookHistory, MonitoringKind};

pub(super) fn notes(evidence: &Evidence<'_>, runs: [&Run; 2], history: Option<&LookHistory>) -> Vec<String> {
    let mut notes: Vec<String> = history.and_then(early_stop_note).into_iter().collect();
    notes.extend(evidence.units.notes.iter().cloned());
    notes.extend(evidence.measurement.notes.iter().cloned());
    notes.extend(evidence.fidelity.notes.iter().cloned());
    for run in runs {
        notes.extend(run.notes.iter().cloned());
        if run.manifest.lane == Lane::Recorded {
            notes.push(format!(
                "run {} is a recording: a comparison with it assumes perfect replay",
                run.name
            ));
        }
    }
    notes.extend(model_inputs::judge(evidence.pairs).note());
    let counts = evidence.pairs.counts;
    notes.extend(missing_trials_note(evidence.pairs));
    for run in runs {
        notes.extend(uneven_trials_note(run));
    }
    if counts.incomplete > 0 {
        notes.push(format!(
            "{} incomplete trials have lost exchanges; they count as missing",
            counts.incomplete
        ));
    }
    let undecoded = evidence.pairs.trials().flat_map(|record| &record.calls);
    let undecoded = undecoded.filter(|call| call.arguments_verbatim.is_some()).count();
    if undecoded > 0 {
        notes.push(format!(
            "{undecoded} tool calls have arguments that are not JSON; they are compared verbatim"
        ));
    }
    let unlisted = tools::unlisted(evidence.pairs);
    if unlisted > 0 {
        notes.push(format!("the list of tools leaves out {unlisted} tools whose use changed least"));
    }
    notes.extend(evidence.checked.notes.iter().cloned());
    notes
}

/// Note that the decision used part of the cases only.
fn early_stop_note(history: &LookHistory) -> Option<String> {
    let how = match history.kind {
        MonitoringKind::Looks => format!(
            "decided at look {} of {}",
            history.looks.len(),
            history.planned_looks.max(u32::try_from(history.looks.len()).unwrap_or(u32::MAX))
        ),
        MonitoringKind::Anytime => "decided by a look after every case".to_owned(),
    };
    history.stopped_early.then(|| {
        format!(
            "{how}, with {} of {} planned cases; all numbers are of these cases, in their seeded order",
            history.cases, history.planned_cases
        )
    })
}

/// Note on missing trials.
fn missing_trials_note(pairs: &Pairs<'_>) -> Option<String> {
    let counts = pairs.counts;
    let ended = pairs.cases.iter().map(|case| unanswered(&case.baseline) + unanswered(&case.candidate));
    let ended: usize = ended.sum();
    let without = counts.incomplete + crate::cast::to_u64(ended);
    let total = counts.missing_baseline + counts.missing_candidate;
    let absent = total.saturating_sub(without);
    (absent > 0).then(|| {
        format!(
            "{absent} expected trials do not exist: {} cases are only in the baseline, {} only in the candidate, {} were planned \
             and are in neither. Incomplete and cut-off trials included, {} baseline and {} candidate trials are missing; the \
             decision counts them once against the candidate and once for it",
            counts.unpaired_baseline,
            counts.unpaired_candidate,
            pairs.unseen.cases,
            counts.missing_baseline,
            counts.missing_candidate
        )
    })
}

/// Note that a run without a plan has different numbers of trials per case.
fn uneven_trials_note(run: &Run) -> Option<String> {
    let mut counts: BTreeMap<&CaseId, usize> = BTreeMap::new();
    run.own().for_each(|record| *counts.entry(&record.trial.case).or_default() += 1);
    let (least, most) = (counts.values().min()?, counts.values().max()?);
    (run.manifest.planned_trials.is_none() && least < most).then(|| {
        let fewer = counts.values().filter(|count| *count < most).count();
        format!(
            "run {} has {most} trials of some cases and as few as {least} of others ({fewer} cases have fewer than {most}); \
             the run has no plan, so none of these counts as missing",
            run.name
        )
    })
}

/// The corpus digest of both manifests, else a digest of the cases and trials compared.
pub(super) fn corpus_digest(baseline: &Run, candidate: &Run, pairs: &Pairs<'_>) -> String {
    match (&baseline.manifest.corpus_digest, &candidate.manifest.corpus_digest) {
        (Some(before), Some(after)) if before == after => before.clone(),
        _ => {
            let mut hasher = blake3::Hasher::new();
            for case in pairs.paired() {
                let counts = (case.case.as_str(), case.baseline.trials.len(), case.candidate.trials.len());
                hasher.update(format!("{counts:?}\n").as_bytes());
            }
            hasher.finalize().to_hex().to_string()
        }
    }
}
