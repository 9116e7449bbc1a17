//! Attaches rows of the `scores` table to their trials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use schemas::id::SessionId;
use schemas::score::Score;

use crate::run::Run;
use crate::scores::{Evaluator, TrialScore};

/// Attaches scores to the trials of a run. Of an evaluator with several versions, the version that scored last is
/// used. A row with an error is used only if there is none without. Notes on the run name what was left out.
pub fn attach_scores(run: &mut Run, rows: Vec<Score>) {
    if rows.is_empty() {
        return;
    }
    let current = current_versions(&rows);
    let mut old: BTreeSet<String> = BTreeSet::new();
    let mut slices: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut by_session: HashMap<SessionId, Vec<TrialScore>> = HashMap::new();
    for row in rows {
        let Some(evaluator) =
            current.get(row.evaluator.as_str()).filter(|one| one.digest == row.evaluator_digest)
        else {
            old.insert(row.evaluator);
            continue;
        };
        let slice = row.slice.map(|slice| match slices.get(slice.as_str()) {
            Some(known) => known.clone(),
            None => {
                let slice: Arc<str> = Arc::from(slice);
                slices.insert(slice.clone());
                slice
            }
        });
        let success = row.success.filter(|_| row.error.is_none());
        let score = TrialScore { evaluator: evaluator.clone(), success, slice };
        let held = by_session.entry(row.session).or_default();
        match held.iter_mut().find(|held| Arc::ptr_eq(&held.evaluator, evaluator)) {
            Some(held) if held.success.is_none() => *held = score,
            Some(_) => {}
            None => held.push(score),
        }
    }
    for record in &mut run.trials {
        if let Some(mut scores) = by_session.remove(&record.trial.session) {
            scores.sort_by(|a, b| a.evaluator.order().cmp(&b.evaluator.order()));
            record.scores = scores;
        }
    }
    if !old.is_empty() {
        let names: Vec<String> = old.into_iter().collect();
        run.notes.push(format!(
            "run {}: scores of earlier versions of {} are left out; the version that scored last is used",
            run.name,
            names.join(", ")
        ));
    }
    if !by_session.is_empty() {
        run.notes.push(format!(
            "run {}: scores of {} sessions without a trial are left out",
            run.name,
            by_session.len()
        ));
    }
}

/// Version of each evaluator, by name, that scored last.
fn current_versions(rows: &[Score]) -> BTreeMap<String, Arc<Evaluator>> {
    let mut latest: BTreeMap<&str, &Score> = BTreeMap::new();
    for row in rows {
        let held = latest.entry(&row.evaluator).or_insert(row);
        if (row.scored_at, &row.evaluator_digest, row.priority)
            > (held.scored_at, &held.evaluator_digest, held.priority)
        {
            *held = row;
        }
    }
    let evaluator = |row: &Score| Evaluator {
        name: row.evaluator.clone(),
        kind: row.kind,
        priority: row.priority,
        digest: row.evaluator_digest.clone(),
    };
    latest.into_iter().map(|(name, row)| (name.to_owned(), Arc::new(evaluator(row)))).collect()
}
