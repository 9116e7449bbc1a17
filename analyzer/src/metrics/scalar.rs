//! Metrics of one number per trial: shares, and logarithms of times, tokens and money.

use rayon::prelude::*;

use crate::metrics::functional::Functional;
use crate::metrics::table::{CaseTable, relabeller};
use crate::metrics::{Bounds, Measured, Setting};
use crate::pairs::{Arm, PairedCase};
use crate::run::TrialRecord;
use crate::stats::labels::Relabeller;
use crate::verdict::Unit;

/// Value of a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Score {
    /// The value is known, if the recording answered the whole trial; otherwise it is missing.
    Known(f64),
    /// The value is known whatever the recording could not answer.
    Fact(f64),
    /// The value is missing: it counts as the worst and as the best.
    Missing,
    /// The metric does not apply to this trial.
    Absent,
}

/// Definition of a scalar metric.
#[derive(Clone, Copy)]
pub(crate) struct Scalar<F> {
    /// Computes a trial's value in its case.
    pub(crate) score: F,
    pub(crate) functional: Functional,
    /// Whether larger values are better.
    pub(crate) more_is_better: bool,
    /// Divisor of a contrast.
    pub(crate) scale: f64,
    /// Largest difference of two values; larger ones are clipped to it.
    pub(crate) most: f64,
    /// Whether missing trials have bounds, which only values between 0 and `most` have.
    pub(crate) bounded: bool,
}

/// Trial values of an arm.
#[derive(Debug, Default, Clone)]
struct Values {
    known: Vec<f64>,
    missing: usize,
    /// Trials that are missing because the recording could not answer one of their calls.
    missed: usize,
}

impl Values {
    fn lacking(&self) -> usize {
        self.missing + self.missed
    }

    /// Values with every missing one filled in, ascending, so that the numbers of the trials do not matter.
    fn filled(&self, fill: f64, missed: f64) -> Vec<f64> {
        let mut values = self.known.clone();
        values.extend(std::iter::repeat_n(fill, self.missing));
        values.extend(std::iter::repeat_n(missed, self.missed));
        values.sort_by(f64::total_cmp);
        values
    }
}

/// Trial values of a case in both lanes, ascending, with the index of the case.
type CaseValues = (usize, Vec<f64>, Vec<f64>);

/// Measures a scalar metric over all cases.
///
/// # Errors
///
/// Gives the reason why there is nothing to compare.
pub(crate) fn measure<F>(
    setting: Setting<'_>,
    mut measured: Measured,
    scalar: Scalar<F>,
) -> Result<Measured, String>
where
    F: Fn(&PairedCase<'_>, &TrialRecord) -> Score + Sync,
{
    let mut relabeller = relabeller(setting.seed, &measured.name);
    let shared_state = setting.policy.drift.shared_state;
    let cases: Vec<(usize, Values, Values)> = setting
        .pairs
        .cases
        .iter()
        .enumerate()
        .map(|(place, case)| {
            (place, values(case, &case.baseline, &scalar), values(case, &case.candidate, &scalar))
        })
        .collect();
    let least = scalar.functional.least();
    measured.least = least;
    let enough = |case: &CaseValues| case.1.len() >= least && case.2.len() >= least;
    let known = cases
        .iter()
        .map(|(place, baseline, candidate)| (*place, sorted(&baseline.known), sorted(&candidate.known)));
    let known: Vec<CaseValues> = known.filter(enough).collect();
    for (table, cut) in contrasts(&scalar, &mut relabeller, &known, measured.unit, shared_state) {
        measured.clipped += usize::from(cut);
        measured.observed.push(table);
    }
    if measured.observed.is_empty() {
        let trials = if least == 1 { "a trial".to_owned() } else { format!("{least} trials") };
        return Err(format!("no case has {trials} with a value in both runs"));
    }
    let unseen = setting.pairs.unseen;
    let missing = unseen.trials()
        + cases
            .iter()
            .map(|(_, baseline, candidate)| baseline.lacking() + candidate.lacking())
            .sum::<usize>();
    if !scalar.bounded {
        measured.left_out = missing;
    } else if missing > 0 {
        let bad = if scalar.more_is_better { 0.0 } else { scalar.most };
        let misses_alike = setting.pairs.counts_misses_alike();
        let mut fill = |baseline_fill: f64, candidate_fill: f64| {
            let missed = if misses_alike { candidate_fill } else { baseline_fill };
            let filled = cases.iter().map(|(place, baseline, candidate)| {
                let before = baseline.filled(baseline_fill, missed);
                (*place, before, candidate.filled(candidate_fill, candidate_fill))
            });
            // Planned cases without trials come after the last case; all are alike.
            let place = setting.pairs.cases.len();
            let alike = (place, vec![baseline_fill; unseen.baseline], vec![candidate_fill; unseen.candidate]);
            let filled: Vec<CaseValues> = std::iter::once(alike).chain(filled).filter(enough).collect();
            let tables = contrasts(&scalar, &mut relabeller, &filled, measured.unit, shared_state);
            let repeated = |(table, _): (CaseTable, bool)| {
                let times = if table.place == place { unseen.cases } else { 1 };
                std::iter::repeat_n(table, times)
            };
            tables.into_iter().flat_map(repeated).collect()
        };
        measured.bounds =
            Some(Bounds { worst: fill(scalar.most - bad, bad), best: fill(bad, scalar.most - bad) });
    }
    if scalar.functional == Functional::Mean {
        let oriented = |values: &[f64]| values.iter().map(|value| value / scalar.scale).collect::<Vec<_>>();
        measured.arms =
            Some(known.iter().map(|(_, before, after)| (oriented(before), oriented(after))).collect());
    }
    Ok(measured)
}

fn values<F>(case: &PairedCase<'_>, arm: &Arm<'_>, scalar: &Scalar<F>) -> Values
where
    F: Fn(&PairedCase<'_>, &TrialRecord) -> Score,
{
    let mut values = Values::default();
    let mut applies = arm.trials.is_empty();
    for record in &arm.trials {
        match (scalar.score)(case, record) {
            Score::Known(_) if record.first_miss().is_some() => values.missed += 1,
            Score::Known(value) | Score::Fact(value) => values.known.push(value),
            Score::Missing => values.missing += 1,
            Score::Absent => continue,
        }
        applies = true;
    }
    if applies {
        values.missing += arm.missing;
    }
    values
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Contrast table of each case, and whether its observed contrast was clipped.
fn contrasts<F: Sync>(
    scalar: &Scalar<F>,
    relabeller: &mut Relabeller,
    cases: &[CaseValues],
    unit: Unit,
    shared_state: bool,
) -> Vec<(CaseTable, bool)> {
    cases.iter().for_each(|(_, before, after)| relabeller.prepare(before.len(), after.len()));
    let relabeller = (!shared_state).then_some(&*relabeller);
    let of = |(place, before, after): &CaseValues| contrast(scalar, relabeller, *place, before, after, unit);
    cases.par_iter().map(of).collect()
}

/// Without a relabeller, the trials of a lane share state and only change sides together.
fn contrast<F>(
    scalar: &Scalar<F>,
    relabeller: Option<&Relabeller>,
    place: usize,
    before: &[f64],
    after: &[f64],
    unit: Unit,
) -> (CaseTable, bool) {
    let pooled: Vec<f64> = before.iter().chain(after).copied().collect();
    let sign = if scalar.more_is_better { 1.0 } else { -1.0 };
    let raw = |before: &[f64], after: &[f64]| {
        sign * (scalar.functional.of(after) - scalar.functional.of(before)) / scalar.scale
    };
    let constant = pooled.iter().all(|value| value.total_cmp(&pooled[0]).is_eq());
    let observed = raw(before, after);
    let limit = scalar.most / scalar.scale;
    let contrasts = if constant {
        vec![observed.clamp(-limit, limit)]
    } else if let Some(relabeller) = relabeller {
        let labels = relabeller.of(place, before.len(), after.len());
        let mut table = Vec::with_capacity(labels.len());
        let (mut left, mut right) = (vec![0.0; before.len() + 1], vec![0.0; after.len() + 1]);
        for chosen in labels.iter() {
            split(&pooled, chosen, &mut left, &mut right);
            table.push(raw(&left[..before.len()], &right[..after.len()]).clamp(-limit, limit));
        }
        table
    } else {
        vec![observed.clamp(-limit, limit), -observed.clamp(-limit, limit)]
    };
    let shown = |values: &[f64]| {
        let value = scalar.functional.of(values);
        if unit.is_ratio() { value.exp() } else { value }
    };
    let table = CaseTable { place, baseline: shown(before), candidate: shown(after), contrasts };
    (table, observed.abs() > limit * (1.0 + 1e-12))
}

/// Divides the pooled values by the labels; `chosen` is ascending. Both parts need room for one value more: each value
/// is written to both and kept in one, which avoids an unpredictable branch.
fn split(pooled: &[f64], chosen: &[usize], left: &mut [f64], right: &mut [f64]) {
    let mut next = 0;
    for (place, value) in pooled.iter().enumerate() {
        left[place - next] = *value;
        right[next] = *value;
        next += usize::from(chosen.get(next) == Some(&place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pass_k_is_the_unbiased_estimate() {
        // 4 of 5: C(4, 3) / C(5, 3) = 0.4; 2 of 5: 0.
        assert!((Functional::PassK(3).of(&[1.0, 1.0, 0.0, 1.0, 1.0]) - 0.4).abs() < 1e-15);
        assert!(Functional::PassK(3).of(&[1.0, 1.0, 0.0, 0.0, 0.0]).abs() < 1e-15);
    }

    #[test]
    fn agreement_counts_pairs() {
        assert!((Functional::Agreement.of(&[1.0, 0.0, 1.0]) - 1.0 / 3.0).abs() < 1e-15);
        assert!((Functional::Agreement.of(&[0.0, 0.0]) - 1.0).abs() < 1e-15);
    }
}
