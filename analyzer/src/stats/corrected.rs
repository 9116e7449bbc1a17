//! Mean contrast of scores, corrected by labels of some sessions (prediction-powered inference, Angelopoulos and others
//! 2023), with bounds that cover the uncertainty of the correction.
//!
//! The corrected mean is the mean contrast of the scores plus, for the scored sessions, the mean error (label minus
//! score) of the candidate's labelled sessions minus that of the baseline's. The central limit theorem gives no usable
//! bound here: a scorer without an error among 60 labelled sessions has a standard error of zero. The bounds generalise
//! Gaffke's instead: each session gets an exponential weight, the same in every mean that it enters, and one more
//! session has the worst contrast and the worst errors. For labels alone the bound is Gaffke's. Errors that never
//! occurred among n labelled sessions still cost about 3/n in each lane.

use crate::stats::stream::{Stream, StreamKey};
use crate::stats::variance::{float, mean};

/// Draws of the weights.
const DRAWS: usize = 3999;

/// A session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Contrast of the session, candidate minus baseline.
    pub contrast: f64,
    /// Group of the scorer that gave the contrast; absent if the contrast is that of labels.
    pub group: Option<usize>,
    /// Errors, label minus score, by group: of the baseline and of the candidate, each absent without labels.
    pub errors: Vec<(usize, [Option<f64>; 2])>,
    /// Sessions with the same unit are not independent and get one weight.
    pub unit: usize,
    /// Weight of the session in every mean.
    pub weight: f64,
}

impl Default for Session {
    fn default() -> Self {
        Self { contrast: 0.0, group: None, errors: Vec::new(), unit: 0, weight: 1.0 }
    }
}

/// Draws of the corrected mean.
#[derive(Debug, Clone)]
pub struct CorrectedMean {
    /// Corrected mean.
    pub estimate: f64,
    /// Draws with the worst and with the best additional session, ascending; empty without labels in both lanes.
    worst: Vec<f64>,
    best: Vec<f64>,
    range: [f64; 2],
}

/// Weighted sums of one mean.
#[derive(Debug, Clone, Copy, Default)]
struct WeightedMean {
    sum: f64,
    weight: f64,
}

impl WeightedMean {
    fn add(&mut self, weight: f64, value: f64) {
        self.sum += weight * value;
        self.weight += weight;
    }

    fn value(self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}

impl CorrectedMean {
    /// Draws the corrected mean of sessions whose contrasts are in `range` and whose errors are between -1 and 1.
    #[must_use]
    pub fn new(sessions: &[Session], groups: usize, range: [f64; 2], key: StreamKey) -> Self {
        let used: Vec<usize> =
            (0..groups).filter(|group| sessions.iter().any(|one| one.group == Some(*group))).collect();
        let has = |group: usize, lane: usize| {
            sessions
                .iter()
                .flat_map(|one| &one.errors)
                .any(|(of, lanes)| *of == group && lanes[lane].is_some())
        };
        let units = sessions.iter().map(|one| one.unit + 1).max().unwrap_or(0);
        let equal = vec![1.0; units];
        let none = vec![0.0; used.len() + 1];
        let estimate = weighted(sessions, &used, &equal, &none, range[0], 1.0);
        let mut corrected = Self { estimate, worst: Vec::new(), best: Vec::new(), range };
        if sessions.is_empty() || !used.iter().all(|group| has(*group, 0) && has(*group, 1)) {
            return corrected;
        }
        // The additional unit weighs as much as the heaviest one.
        let mut totals = vec![0.0; units];
        sessions.iter().for_each(|one| totals[one.unit] += one.weight);
        let heaviest = totals.into_iter().fold(0.0, f64::max);
        let mut stream = key.stream(0);
        for _ in 0..DRAWS {
            let weights: Vec<f64> = (0..units).map(|_| exponential(&mut stream)).collect();
            let extra: Vec<f64> = none.iter().map(|_| heaviest * exponential(&mut stream)).collect();
            corrected.worst.push(weighted(sessions, &used, &weights, &extra, range[0], -1.0));
            corrected.best.push(weighted(sessions, &used, &weights, &extra, range[1], 1.0));
        }
        corrected.worst.sort_by(f64::total_cmp);
        corrected.best.sort_by(f64::total_cmp);
        corrected
    }

    /// One-sided p of "worse than the margin".
    #[must_use]
    pub fn p_approve(&self, margin: f64) -> f64 {
        let reached = self.worst.partition_point(|mean| *mean <= -margin);
        if self.worst.is_empty() { 1.0 } else { float(reached + 1) / float(DRAWS + 1) }
    }

    /// One-sided p of "no deterioration".
    #[must_use]
    pub fn p_block(&self) -> f64 {
        let below = self.best.partition_point(|mean| *mean < 0.0);
        if self.best.is_empty() { 1.0 } else { float(self.best.len() - below + 1) / float(DRAWS + 1) }
    }

    /// One-sided bounds, each at this level.
    #[must_use]
    pub fn bounds(&self, alpha: f64) -> [f64; 2] {
        let rank = crate::cast::round((alpha * float(DRAWS + 1)).floor());
        let rank = usize::try_from(rank).unwrap_or(0).min(DRAWS);
        if rank == 0 || self.worst.is_empty() {
            return self.range;
        }
        [self.worst[rank - 1].max(self.range[0]), self.best[DRAWS - rank].min(self.range[1])]
    }
}

/// Corrected mean with these weights of the units. `extra` are the weights of the additional session: first in the mean
/// of contrasts, where its contrast is `contrast`, then in the errors of each used group, where the candidate's error
/// is `error` and the baseline's is its negative.
fn weighted(
    sessions: &[Session],
    used: &[usize],
    weights: &[f64],
    extra: &[f64],
    contrast: f64,
    error: f64,
) -> f64 {
    let mut contrasts = WeightedMean::default();
    let mut scored = vec![0.0; used.len()];
    let mut errors = vec![[WeightedMean::default(); 2]; used.len()];
    for one in sessions {
        let weight = weights[one.unit] * one.weight;
        contrasts.add(weight, one.contrast);
        for (place, group) in used.iter().enumerate() {
            if one.group == Some(*group) {
                scored[place] += weight;
            }
            let own = one.errors.iter().filter(|(of, _)| of == group);
            for (sums, value) in own.flat_map(|(_, lanes)| lanes.iter().enumerate()) {
                if let Some(value) = value {
                    errors[place][sums].add(weight, *value);
                }
            }
        }
    }
    let shares: Vec<f64> =
        scored.iter().map(|scored| scored / contrasts.weight.max(f64::MIN_POSITIVE)).collect();
    contrasts.add(extra[0], contrast);
    let mut total = contrasts.value();
    for (place, [baseline, candidate]) in errors.iter_mut().enumerate() {
        candidate.add(extra[place + 1], error);
        baseline.add(extra[place + 1], -error);
        total += shares[place] * (candidate.value() - baseline.value());
    }
    total
}

/// Standard exponential draw.
fn exponential(stream: &mut Stream) -> f64 {
    -((f64::from(stream.next_u32()) + 0.5) / 4_294_967_296.0).ln()
}

/// Corrected rates of Rogan and Gladen (1978): true share of successes from the share that passes, the sensitivity and
/// the specificity; absent if the scorer does not discriminate.
#[must_use]
pub fn rogan_gladen(passed: f64, sensitivity: f64, specificity: f64) -> Option<f64> {
    let discrimination = sensitivity + specificity - 1.0;
    (discrimination > 0.0).then(|| ((passed + specificity - 1.0) / discrimination).clamp(0.0, 1.0))
}

/// Mean of the errors of each lane in one group, with the number of labelled sessions.
#[must_use]
pub fn mean_errors(sessions: &[Session], group: usize) -> [(f64, usize); 2] {
    [0, 1].map(|lane| {
        let errors = sessions.iter().flat_map(|one| &one.errors).filter(|(of, _)| *of == group);
        let known: Vec<f64> = errors.filter_map(|(_, lanes)| lanes[lane]).collect();
        (mean(&known), known.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::gaffke::Sample;

    fn key() -> StreamKey {
        StreamKey::new(3, "corrected")
    }

    fn session(unit: usize, contrast: f64, errors: Option<[f64; 2]>) -> Session {
        let errors = errors.map(|lanes| (0, lanes.map(Some))).into_iter().collect();
        Session { contrast, group: Some(0), errors, unit, weight: 1.0 }
    }

    #[test]
    fn without_a_scorer_the_bound_is_that_of_gaffke() {
        let contrasts: Vec<f64> = (0..60).map(|n| [0.0, 0.0, 0.25, -0.25, 0.0][n % 5]).collect();
        let sessions: Vec<Session> = contrasts
            .iter()
            .enumerate()
            .map(|(unit, contrast)| Session { contrast: *contrast, unit, ..Session::default() })
            .collect();
        let corrected = CorrectedMean::new(&sessions, 0, [-1.0, 1.0], key());
        let sample = Sample::new(&contrasts, -1.0);
        assert!((corrected.p_approve(0.10) - sample.p_value(0.10)).abs() < 0.015);
        assert!((corrected.bounds(0.05)[0] - sample.lower_bound(0.05)).abs() < 0.006);
    }

    #[test]
    fn a_judge_without_an_error_is_bounded_by_its_labels() {
        let sessions = |labelled: usize| -> Vec<Session> {
            (0..200).map(|unit| session(unit, 0.0, (unit < labelled).then_some([0.0; 2]))).collect()
        };
        let p = |labelled| CorrectedMean::new(&sessions(labelled), 1, [-1.0, 1.0], key()).p_approve(0.05);
        assert!(p(60) > 0.05 && p(200) < 0.06, "{} {}", p(60), p(200));
        let none = CorrectedMean::new(&sessions(0), 1, [-1.0, 1.0], key());
        assert_eq!((none.p_approve(0.05), none.p_block(), none.bounds(0.05)), (1.0, 1.0, [-1.0, 1.0]));
    }

    #[test]
    fn labels_correct_a_judge_that_is_blind_in_one_lane() {
        // The scores show no change; the labels show that a fifth of the candidate's passes are failures.
        let sessions: Vec<Session> = (0..200)
            .map(|unit| {
                let errors = (unit < 100).then_some([0.0, if unit % 5 == 0 { -1.0 } else { 0.0 }]);
                session(unit, 0.0, errors)
            })
            .collect();
        let corrected = CorrectedMean::new(&sessions, 1, [-1.0, 1.0], key());
        assert!((corrected.estimate + 0.2).abs() < 1e-12);
        assert!(corrected.p_block() < 0.01 && corrected.p_approve(0.05) > 0.9);
    }

    #[test]
    fn rogan_and_gladen_invert_the_confusion() {
        // True share .8, sensitivity .9, specificity .7: .8 * .9 + .2 * .3 pass.
        let found = rogan_gladen(0.78, 0.9, 0.7).expect("discriminates");
        assert!((found - 0.8).abs() < 1e-12);
        assert_eq!(rogan_gladen(0.78, 0.5, 0.5), None);
    }
}
