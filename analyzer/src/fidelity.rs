//! Replay fidelity: the share of answers that the recordings lack, and whether the re-run baseline matches the
//! recording.

use schemas::trial::Fidelity;

use crate::pairs::Pairs;
use crate::policy::{METRICS, Margin, Policy};
use crate::run::TrialRecord;
use crate::stats::gaffke::Sample;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::{float, mean};
use crate::verdict::FidelityCounts;

/// Result of the fidelity check.
#[derive(Debug, Default)]
pub(crate) struct FidelityCheck {
    /// Counts of both lanes together; absent if nothing was replayed.
    pub(crate) counts: Option<FidelityCounts>,
    /// Reasons why the replay is not faithful; empty if it is faithful or the runs were imported.
    pub(crate) failures: Vec<String>,
    /// Other facts for the reader.
    pub(crate) notes: Vec<String>,
}

/// Checks both lanes.
pub(crate) fn judge(policy: &Policy, pairs: &Pairs<'_>, selected: bool, seed: u64) -> FidelityCheck {
    let mut fidelity = FidelityCheck::default();
    let baseline = pairs.paired().flat_map(|case| &case.baseline.trials);
    judge_lane(policy, "baseline", baseline.copied(), &mut fidelity);
    let candidate = pairs.paired().flat_map(|case| &case.candidate.trials);
    judge_lane(policy, "candidate", candidate.copied(), &mut fidelity);
    // A recording selected by its outcome differs from any re-run through regression to the mean alone.
    if !selected {
        compare_with_recording(policy, pairs, seed, &mut fidelity);
    }
    fidelity
}

fn judge_lane<'a>(
    policy: &Policy,
    lane: &str,
    trials: impl Iterator<Item = &'a TrialRecord>,
    fidelity: &mut FidelityCheck,
) {
    let (mut missed, mut total) = (0, 0);
    for counts in trials.filter_map(|record| record.trial.fidelity) {
        add(fidelity.counts.get_or_insert_default(), &counts);
        missed += u64::from(counts.missed);
        total += u64::from(counts.total());
    }
    let share = crate::cast::to_f64(missed) / crate::cast::to_f64(total.max(1));
    if share > policy.fidelity.max_missed {
        fidelity.failures.push(format!(
            "the recordings lack {missed} of {total} answers to the {lane} ({:.1} %, the policy allows {:.1} %); record more \
             sessions, or allow live reads",
            100.0 * share,
            100.0 * policy.fidelity.max_missed
        ));
    }
}

fn add(counts: &mut FidelityCounts, trial: &Fidelity) {
    counts.exact += u64::from(trial.exact);
    counts.normalised += u64::from(trial.normalised);
    counts.derived += u64::from(trial.derived);
    counts.live += u64::from(trial.live);
    counts.faulted += u64::from(trial.faulted);
    counts.missed += u64::from(trial.missed);
}

/// Compares labels of the re-run baseline with those of the recording (DECISION 1.7, use ii).
///
/// Showing equivalence within half the margin needs far more cases than a release has (about 600 at 95 % success). So
/// by default only a proven difference beyond that fails; `fidelity.equivalence` demands equivalence.
fn compare_with_recording(policy: &Policy, pairs: &Pairs<'_>, seed: u64, fidelity: &mut FidelityCheck) {
    let mut contrasts = Vec::new();
    for case in pairs.paired() {
        let recorded = case.recorded_any.and_then(|record| record.trial.success);
        let rerun: Vec<f64> = case
            .baseline
            .trials
            .iter()
            .filter_map(|record| record.trial.success)
            .map(|success| f64::from(u8::from(success)))
            .collect();
        if let (Some(recorded), false) = (recorded, rerun.is_empty()) {
            contrasts.push(mean(&rerun) - f64::from(u8::from(recorded)));
        }
    }
    if contrasts.is_empty() {
        return;
    }
    let default = METRICS[0].margin;
    let tolerated = match policy.settings("success").margin.unwrap_or(default) {
        Margin::Difference(share) | Margin::Ratio(share) | Margin::OfDispersion(share) => 0.5 * share,
    };
    let mirrored: Vec<f64> = contrasts.iter().map(|contrast| -contrast).collect();
    let one_sided = |values: &[f64]| Sample::new(values, -1.0).p_value(tolerated);
    let equal = one_sided(&contrasts) <= policy.alpha && one_sided(&mirrored) <= policy.alpha;
    let flips: Vec<[f64; 2]> = contrasts.iter().map(|contrast| [*contrast, -contrast]).collect();
    let back: Vec<[f64; 2]> = mirrored.iter().map(|contrast| [*contrast, -contrast]).collect();
    let key = StreamKey::new(seed, "recording");
    let p = |tables: &[[f64; 2]]| Tables::new(tables.iter().map(<[f64; 2]>::as_slice)).p_value(key);
    let differs = 2.0 * p(&flips).min(p(&back)) <= policy.alpha && mean(&contrasts).abs() > tolerated;
    let text = format!(
        "success of the re-run baseline differs from the recording by {:+.1} points over {} cases (tolerated: {:.1})",
        100.0 * mean(&contrasts),
        float(contrasts.len()),
        100.0 * tolerated
    );
    if differs || (policy.fidelity.equivalence && !equal) {
        fidelity.failures.push(text);
    } else {
        let how =
            if equal { "shown to be equal within the tolerance" } else { "not shown to differ by more" };
        fidelity.notes.push(format!("{text}: {how}"));
    }
}
