//! Metrics of distances between trials: drift between the arms, and dispersion within each arm.
//!
//! With D the mean distances within the baseline, within the candidate and between them, drift is the distance between
//! minus half of both within. Dispersion is the distance within the baseline minus that within the candidate (DECISION
//! 1.1).

use std::cmp::Ordering;

use crate::metrics::table::{CaseTable, relabeller};
use crate::metrics::{Measured, Setting};
use crate::policy::DISPERSION_RANGE;
use crate::run::TrialRecord;
use crate::stats::pairwise::{Pairwise, Split, pairs};
use crate::stats::variance::{float, mean};

/// Smallest dispersion assumed of a baseline; without it, any change of a constant baseline would be infinitely large.
const LEAST_DISPERSION: f64 = 0.01;

/// Kind of contrast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Distance between the arms beyond the distance within each.
    Drift,
    /// Decrease of the distance within an arm.
    Dispersion,
}

/// Distances of a case, the baseline's trials first.
struct DistanceMatrix {
    place: usize,
    baseline: usize,
    size: usize,
    distances: Vec<f64>,
}

/// Measures the metric over the cases in which both arms have two trials.
///
/// # Errors
///
/// Gives the reason why there is nothing to compare.
pub(crate) fn measure<T: PartialOrd>(
    setting: Setting<'_>,
    mut measured: Measured,
    form: Form,
    describe: impl Fn(&TrialRecord) -> Option<T>,
    distance: impl Fn(&T, &T) -> f64,
) -> Result<Measured, String> {
    let mut squares = Vec::new();
    measured.least = 2;
    measured.mirrored = form != Form::Drift;
    let lacking = setting.pairs.cases.iter().map(|case| case.baseline.missing + case.candidate.missing);
    measured.left_out = setting.pairs.unseen.trials() + lacking.sum::<usize>();
    for (place, case) in setting.pairs.cases.iter().enumerate() {
        let of = |trials: &[&TrialRecord]| {
            let mut described: Vec<T> = trials
                .iter()
                .filter(|record| record.first_miss().is_none())
                .filter_map(|record| describe(record))
                .collect();
            // Sorted by content, so that the numbers of the trials do not matter.
            described.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
            described
        };
        let (before, after) = (of(&case.baseline.trials), of(&case.candidate.trials));
        // A complete trial without this description counts as missing.
        let complete = case.baseline.trials.len() + case.candidate.trials.len();
        measured.left_out += complete - before.len() - after.len();
        if before.len() >= 2 && after.len() >= 2 {
            squares.push(square(place, &before, &after, &distance));
        }
    }
    if squares.is_empty() {
        return Err("no case has two trials in both runs; replay with --trials 2 or more".to_owned());
    }
    let own: Vec<f64> = squares.iter().map(|square| square.distances_of(&square.observed()).own).collect();
    let pooled: Vec<f64> = squares.iter().map(DistanceMatrix::pooled).collect();
    // The range enters the permutations, so it must not depend on the labels; the margin does not, and is what the
    // business tolerates of the baseline.
    measured.high = DISPERSION_RANGE * mean(&pooled).max(LEAST_DISPERSION);
    measured.low = -measured.high;
    measured.margin *= mean(&own).max(LEAST_DISPERSION);
    let shared_state = setting.policy.drift.shared_state;
    let mut relabeller = relabeller(setting.seed, &measured.name);
    for square in &squares {
        let labels = relabeller.labels(square.place, square.baseline, square.size - square.baseline);
        let pairwise = Pairwise::new(square.size, &square.distances);
        let of = |chosen: &[usize]| square.distances(pairwise.split(chosen));
        let raw: Vec<f64> = if shared_state {
            // All trials of a lane change sides together: dispersion changes its sign, drift stays.
            let observed = of(labels.chosen(0)).contrast(form);
            vec![observed, if form == Form::Drift { observed } else { -observed }]
        } else {
            labels.iter().map(|chosen| of(chosen).contrast(form)).collect()
        };
        measured.clipped += usize::from(raw[0].abs() > measured.high);
        let observed = of(labels.chosen(0));
        let candidate = if form == Form::Drift { observed.between } else { observed.other };
        let contrasts = raw.iter().map(|value| value.clamp(measured.low, measured.high)).collect();
        measured.observed.push(CaseTable {
            place: square.place,
            baseline: observed.own,
            candidate,
            contrasts,
        });
    }
    Ok(measured)
}

fn square<T>(place: usize, before: &[T], after: &[T], distance: impl Fn(&T, &T) -> f64) -> DistanceMatrix {
    let pooled: Vec<&T> = before.iter().chain(after).collect();
    let size = pooled.len();
    let mut distances = vec![0.0; size * size];
    for row in 0..size {
        for column in row + 1..size {
            let apart = distance(pooled[row], pooled[column]);
            distances[row * size + column] = apart;
            distances[column * size + row] = apart;
        }
    }
    DistanceMatrix { place, baseline: before.len(), size, distances }
}

/// Mean distances of a case under one relabelling.
#[derive(Debug, Clone, Copy)]
struct Distances {
    /// Between two trials of the baseline.
    own: f64,
    /// Between two trials of the candidate.
    other: f64,
    /// Between a trial of each.
    between: f64,
}

impl DistanceMatrix {
    /// Indexes of the candidate's trials.
    fn observed(&self) -> Vec<usize> {
        (self.baseline..self.size).collect()
    }

    /// Mean distance of two trials of the case, whatever their lanes.
    fn pooled(&self) -> f64 {
        self.distances.iter().sum::<f64>() / (2.0 * pairs(self.size))
    }

    fn distances_of(&self, candidate: &[usize]) -> Distances {
        self.distances(Pairwise::new(self.size, &self.distances).split(candidate))
    }

    fn distances(&self, split: Split) -> Distances {
        let candidate = self.size - self.baseline;
        Distances {
            own: split.baseline / pairs(self.baseline),
            other: split.candidate / pairs(candidate),
            between: split.between / (float(self.baseline) * float(candidate)),
        }
    }
}

impl Distances {
    fn contrast(self, form: Form) -> f64 {
        match form {
            Form::Drift => 0.5 * (self.own + self.other) - self.between,
            Form::Dispersion => self.own - self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_is_zero_for_equal_arms_and_negative_for_distant_ones() {
        let apart = |a: &f64, b: &f64| (a - b).abs();
        let same = square(0, &[0.0, 1.0], &[0.0, 1.0], apart);
        // Equal arms seem closer than they are, because no trial is compared with itself: +0.5 for two trials.
        assert!((same.distances_of(&[2, 3]).contrast(Form::Drift) - 0.5).abs() < 1e-15);
        let far = square(0, &[0.0, 0.0], &[1.0, 1.0], apart);
        assert!((far.distances_of(&[2, 3]).contrast(Form::Drift) + 1.0).abs() < 1e-15);
        let wild = square(0, &[0.0, 0.0], &[0.0, 1.0], apart);
        assert!((wild.distances_of(&[2, 3]).contrast(Form::Dispersion) + 1.0).abs() < 1e-15);
    }
}
