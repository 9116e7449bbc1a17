//! Checks that two runs are comparable before any statistic is computed.
//!
//! An obvious mistake on the command line is an error; an unusual combination becomes a note of the verdict.

use analyzer::Run;
use anyhow::bail;
use schemas::trial::Lane;

/// Refuses runs whose comparison is meaningless, and adds notes.
///
/// # Errors
/// Both locations are the same run, the lanes are swapped, or the runs were replayed with different `--model`.
pub(crate) fn check(baseline: &mut Run, candidate: &mut Run) -> anyhow::Result<()> {
    let absolute = |run: &Run| std::path::absolute(&run.name).unwrap_or_else(|_| run.name.clone().into());
    if absolute(baseline) == absolute(candidate) {
        bail!("baseline and candidate are the same run, {}; name two runs", baseline.name);
    }
    if baseline.manifest.lane == Lane::Candidate && candidate.manifest.lane == Lane::Baseline {
        bail!(
            "{} is a run of lane candidate and {} of lane baseline: swap --baseline and --candidate",
            baseline.name,
            candidate.name
        );
    }
    if let (Some(of_baseline), Some(of_candidate)) = (&baseline.manifest.model, &candidate.manifest.model)
        && of_baseline != of_candidate
    {
        bail!(
            "{} was replayed with --model {of_baseline} and {} with --model {of_candidate}; replay both with the same --model",
            baseline.name,
            candidate.name
        );
    }
    candidate.notes.extend(unlike_settings(baseline, candidate));
    let contradicted =
        [(&*baseline, "baseline", Lane::Candidate), (&*candidate, "candidate", Lane::Baseline)];
    let notes: Vec<String> = contradicted
        .into_iter()
        .filter(|(run, _, other)| run.manifest.lane == *other)
        .map(|(run, flag, other)| format!("--{flag} {} is a run of lane {}", run.name, other.as_str()))
        .collect();
    candidate.notes.extend(notes);
    Ok(())
}

/// Notes on settings by which a lane loses or repeats more than the other.
fn unlike_settings(baseline: &Run, candidate: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    let (before, after) = (&baseline.manifest, &candidate.manifest);
    if before.infrastructure != after.infrastructure {
        notes.push(format!(
            "the runs know different texts of --infrastructure ({:?} and {:?}), so an error can be missing in one lane and a failure \
             in the other; replay or import both with the same texts",
            before.infrastructure, after.infrastructure
        ));
    }
    if let (Some(of_baseline), Some(of_candidate)) = (&before.model_retry, &after.model_retry)
        && of_baseline != of_candidate
    {
        notes.push(format!(
            "failed model calls were repeated differently: {of_baseline} in the baseline, {of_candidate} in the candidate; write the \
             same [model] retry in both candidate files"
        ));
    }
    notes
}
