//! Whether the lanes ran at the same time.
//!
//! A provider that changes between two runs changes every trial of one lane. Only trials that run at the same time can
//! tell this from a change of the build.

use std::collections::BTreeMap;

use crate::pairs::Pairs;
use crate::run::TrialRecord;
use crate::stats::variance::float;
use crate::verdict::RunTiming;

/// Largest share of trials in batches of one lane only with which the lanes count as interleaved.
const ALONE: f64 = 0.10;

/// Compares the times of the lanes' trials, else their batches.
pub(super) fn judge(pairs: &Pairs<'_>) -> RunTiming {
    let lane = |candidate: bool| -> Vec<&TrialRecord> {
        let arms = pairs.paired().map(|case| if candidate { &case.candidate } else { &case.baseline });
        arms.flat_map(|arm| arm.trials.iter().copied()).collect()
    };
    let lanes = [lane(false), lane(true)];
    by_time(&lanes).or_else(|| by_batch(&lanes)).unwrap_or(RunTiming::Unknown)
}

fn by_batch(lanes: &[Vec<&TrialRecord>; 2]) -> Option<RunTiming> {
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for (place, lane) in lanes.iter().enumerate() {
        for record in lane {
            counts.entry(record.trial.batch.as_deref()?).or_default()[place] += 1;
        }
    }
    let total: usize = counts.values().flatten().sum();
    let alone: usize =
        counts.values().filter(|lanes| lanes.contains(&0)).map(|lanes| lanes[0] + lanes[1]).sum();
    Some(if float(alone) <= ALONE * float(total) { RunTiming::Interleaved } else { RunTiming::Apart })
}

fn by_time(lanes: &[Vec<&TrialRecord>; 2]) -> Option<RunTiming> {
    let times = |lane: &[&TrialRecord]| -> Option<Vec<i64>> {
        let mut times: Vec<i64> = lane.iter().map(|record| record.trial.started_at).collect::<Option<_>>()?;
        times.sort_unstable();
        (!times.is_empty()).then_some(times)
    };
    let (before, after) = (times(&lanes[0])?, times(&lanes[1])?);
    let inside = |times: &[i64], of: &[i64]| {
        let (first, last) = (of[0], of[of.len() - 1]);
        let count = times.iter().filter(|time| (first..=last).contains(time)).count();
        float(count) / float(times.len())
    };
    let shared = inside(&before, &after).min(inside(&after, &before));
    Some(if shared >= 1.0 - 2.0 * ALONE { RunTiming::Interleaved } else { RunTiming::Apart })
}
