//! Notes of a verdict, and the digest of its corpus.

use schemas::trial::{ImportRecord, Lane};

use super::evidence::Evidence;
use crate::cast::to_u64;
use crate::model_inputs;
use crate::outcome::end_state;
use crate::pairs::Pairs;
use crate::run::Run;
use crate::tools;
use crate::verdict::{LookHistory, MonitoringKind};

pub(super) fn notes(evidence: &Evidence<'_>, runs: [&Run; 2], history: Option<&LookHistory>) -> Vec<String> {
    let mut notes: Vec<String> = history.and_then(early_stop_note).into_iter().collect();
    notes.extend(evidence.units.notes.iter().cloned());
    notes.extend(evidence.measurement.notes.iter().cloned());
    notes.extend(expected_reads(evidence.pairs));
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
    notes.extend(missing_trials_note(evidence));
    for run in runs {
        notes.extend(run.imports.iter().filter_map(|file| import_note(run, file)));
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

/// Notes on reads that every baseline trial of a case makes and candidate trials do not.
fn expected_reads(pairs: &Pairs<'_>) -> Vec<String> {
    let missed = end_state::expected_reads(pairs).into_iter().filter(|(_, count)| count.without > 0);
    let note = |(tool, count): (&str, end_state::ReadCounts)| {
        format!(
            "every baseline trial of {} cases calls {tool}, which only reads; {} of {} candidate trials of these cases do not",
            count.cases, count.without, count.trials
        )
    };
    missed.map(note).collect()
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

/// Note on the trials without an outcome, by lane and cause.
fn missing_trials_note(evidence: &Evidence<'_>) -> Option<String> {
    let counts = evidence.counts;
    let lanes = [("baseline", counts.no_outcome_baseline), ("candidate", counts.no_outcome_candidate)];
    let without = lanes.into_iter().filter(|(_, without)| without.total() > 0);
    let lanes: Vec<String> = without
        .map(|(lane, without)| format!("{lane} trials without an outcome: {}", without.in_words()))
        .collect();
    (!lanes.is_empty()).then(|| {
        let unpaired = counts.unpaired_baseline + counts.unpaired_candidate + to_u64(evidence.pairs.unseen.planned());
        let cases = if unpaired == 0 {
            String::new()
        } else {
            format!(
                "; {} cases are only in the baseline, {} only in the candidate, {} were planned and are in neither",
                counts.unpaired_baseline,
                counts.unpaired_candidate,
                evidence.pairs.unseen.planned()
            )
        };
        format!(
            "{}; the decision counts them once against the candidate and once for it{cases}",
            lanes.join("; ")
        )
    })
}

/// Note on what the import of a file set aside.
fn import_note(run: &Run, file: &ImportRecord) -> Option<String> {
    let parts = [
        (file.lost_rows, "rows that name no trial"),
        (file.unreadable_labels, "trials with an unreadable label"),
        (file.lost_messages, "trials whose messages are lost"),
        (file.unreadable_cells, "optional cells that cannot be read"),
        (file.duplicates, "repetitions of equal trials"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    let first =
        if file.first.is_empty() { String::new() } else { format!(", first {}", file.first.join(", ")) };
    (!parts.is_empty()).then(|| {
        format!("run {}: the import of {} set aside {}{first}", run.name, file.file, parts.join(", "))
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
