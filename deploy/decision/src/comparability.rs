//! Whether two runs can be compared at all, before anything is computed from them.
//!
//! What is plainly a slip of the command line is refused; what may be meant becomes a remark in the verdict.

use analyzer::Run;
use anyhow::bail;
use schemas::trial::Lane;

/// Refuses runs whose comparison says nothing, and adds remarks on what a reader must know.
///
/// # Errors
/// Both are one run, they are swapped, or they were replayed with different `--model`.
pub(crate) fn check(baseline: &mut Run, candidate: &mut Run) -> anyhow::Result<()> {
    let place = |run: &Run| std::path::absolute(&run.name).unwrap_or_else(|_| run.name.clone().into());
    if place(baseline) == place(candidate) {
        bail!("baseline and candidate are the same run, {}; give two runs", baseline.name);
    }
    if baseline.manifest.lane == Lane::Candidate && candidate.manifest.lane == Lane::Baseline {
        bail!(
            "{} is a candidate's run and {} a baseline's: swap --baseline and --candidate",
            baseline.name,
            candidate.name
        );
    }
    if let (Some(of_baseline), Some(of_candidate)) = (&baseline.manifest.model, &candidate.manifest.model)
        && of_baseline != of_candidate
    {
        bail!(
            "{} was replayed with --model {of_baseline} and {} with --model {of_candidate}; replay both alike",
            baseline.name,
            candidate.name
        );
    }
    if candidate.manifest.model.as_deref() == Some("recorded") {
        candidate.notes.push(
            "the model calls of these runs were answered from the recording (--model recorded): a changed prompt, model \
             or tool list had no say in them; replay with --model live to judge such a change"
                .to_owned(),
        );
    }
    let contradicted =
        [(&*baseline, "baseline", Lane::Candidate), (&*candidate, "candidate", Lane::Baseline)];
    let remarks: Vec<String> = contradicted
        .into_iter()
        .filter(|(run, _, other)| run.manifest.lane == *other)
        .map(|(run, flag, other)| format!("--{flag} {} is a run of lane {}", run.name, other.as_str()))
        .collect();
    candidate.notes.extend(remarks);
    Ok(())
}
