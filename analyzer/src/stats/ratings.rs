//! Agreement of a rater with labels: chance-corrected agreement, and permutation tests over sessions.

use crate::stats::stream::StreamKey;
use crate::stats::variance::float;

/// Permutations of each test.
const PERMUTATIONS: usize = 1999;

/// Slack with which statistics count as equal.
const TIE: f64 = 1e-12;

/// Confusion counts: labelled successes and how many passed, labelled failures and how many were caught.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Labelled successes.
    pub successes: usize,
    /// Labelled successes that the rater passed.
    pub passed: usize,
    /// Labelled failures.
    pub failures: usize,
    /// Labelled failures that the rater caught.
    pub caught: usize,
}

impl Confusion {
    /// Counts one label and score.
    pub fn add(&mut self, label: bool, score: bool) {
        if label {
            self.successes += 1;
            self.passed += usize::from(score);
        } else {
            self.failures += 1;
            self.caught += usize::from(!score);
        }
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        self.successes += other.successes;
        self.passed += other.passed;
        self.failures += other.failures;
        self.caught += other.caught;
    }

    /// Number of labels.
    #[must_use]
    pub fn labels(&self) -> usize {
        self.successes + self.failures
    }

    /// Share of labelled successes that passed.
    #[must_use]
    pub fn sensitivity(&self) -> Option<f64> {
        (self.successes > 0).then(|| float(self.passed) / float(self.successes))
    }

    /// Share of labelled failures that were caught.
    #[must_use]
    pub fn specificity(&self) -> Option<f64> {
        (self.failures > 0).then(|| float(self.caught) / float(self.failures))
    }

    /// Sensitivity plus specificity minus 1 (Youden 1950): the share of a true change that shows in the scores.
    #[must_use]
    pub fn discrimination(&self) -> Option<f64> {
        Some(self.sensitivity()? + self.specificity()? - 1.0)
    }

    /// Share of scores that pass.
    fn pass_share(&self) -> f64 {
        float(self.passed + self.failures - self.caught) / float(self.labels().max(1))
    }

    /// Gwet's AC1 (2008) at this raw agreement, with the prevalence of these counts. Unlike kappa it stays near the raw
    /// agreement where almost all labels are alike.
    #[must_use]
    pub fn ac1(&self, agreement: f64) -> Option<f64> {
        if self.labels() == 0 {
            return None;
        }
        let prevalence = 0.5 * (float(self.successes) / float(self.labels()) + self.pass_share());
        let chance = 2.0 * prevalence * (1.0 - prevalence);
        Some((agreement - chance) / (1.0 - chance))
    }
}

/// One-sided p of "the scores do not depend on the labels". Each pair is a session's share of labelled successes and
/// its share of passing scores; the scores are permuted between sessions.
#[must_use]
pub fn association(sessions: &[(f64, f64)], key: StreamKey) -> f64 {
    let product =
        |scores: &[f64]| sessions.iter().zip(scores).map(|(pair, score)| pair.0 * score).sum::<f64>();
    let mut scores: Vec<f64> = sessions.iter().map(|pair| pair.1).collect();
    let observed = product(&scores);
    let mut stream = key.stream(0);
    let mut reached = 1;
    for _ in 0..PERMUTATIONS {
        shuffle(&mut scores, |below| stream.below(below));
        reached += usize::from(product(&scores) >= observed - TIE);
    }
    float(reached) / float(PERMUTATIONS + 1)
}

/// Two-sided p of "the rater errs equally often in both lanes", for labelled successes and labelled failures together.
///
/// Sessions with labels in both lanes swap their lanes; those with labels in one lane exchange lanes with each other.
/// Absent if neither kind of label occurs in both lanes.
#[must_use]
pub fn equal_errors(sessions: &[[Confusion; 2]], key: StreamKey) -> Option<f64> {
    let gaps = |sessions: &[[Confusion; 2]]| {
        let mut sums = [Confusion::default(); 2];
        for lanes in sessions {
            sums.iter_mut().zip(lanes).for_each(|(sum, lane)| sum.merge(lane));
        }
        let gap = |of: fn(&Confusion) -> Option<f64>| Some((of(&sums[1])? - of(&sums[0])?).abs());
        [gap(Confusion::sensitivity), gap(Confusion::specificity)]
    };
    let observed = gaps(sessions);
    let compared = observed.iter().flatten().count();
    if compared == 0 {
        return None;
    }
    let is_single = |lanes: &[Confusion; 2]| lanes.iter().any(|lane| lane.labels() == 0);
    let single: Vec<usize> = (0..sessions.len()).filter(|place| is_single(&sessions[*place])).collect();
    let mut drawn = sessions.to_vec();
    let mut stream = key.stream(0);
    let mut reached = [1_usize; 2];
    for _ in 0..PERMUTATIONS {
        for (lanes, original) in drawn.iter_mut().zip(sessions) {
            *lanes = *original;
            if !is_single(original) && stream.below(2) == 1 {
                lanes.swap(0, 1);
            }
        }
        let mut in_candidate: Vec<bool> =
            single.iter().map(|place| sessions[*place][1].labels() > 0).collect();
        shuffle(&mut in_candidate, |below| stream.below(below));
        for (place, candidate) in single.iter().zip(in_candidate) {
            let mut sum = sessions[*place][0];
            sum.merge(&sessions[*place][1]);
            let empty = Confusion::default();
            drawn[*place] = if candidate { [empty, sum] } else { [sum, empty] };
        }
        for ((count, gap), observed) in reached.iter_mut().zip(gaps(&drawn)).zip(observed) {
            // A relabelling without labels of this kind in one lane says nothing against equal errors.
            *count +=
                usize::from(observed.is_none_or(|observed| gap.is_none_or(|gap| gap >= observed - TIE)));
        }
    }
    let p = |place: usize| float(reached[place]) / float(PERMUTATIONS + 1);
    Some((float(compared) * p(0).min(p(1))).min(1.0))
}

fn shuffle<T>(values: &mut [T], mut below: impl FnMut(u32) -> u32) {
    for place in (1..values.len()).rev() {
        let chosen = below(u32::try_from(place + 1).unwrap_or(u32::MAX)) as usize;
        values.swap(place, chosen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(purpose: &str) -> StreamKey {
        StreamKey::new(1, purpose)
    }

    #[test]
    fn ac1_stays_near_the_agreement_where_labels_are_alike() {
        // Gwet's formula by hand: prevalence .95, chance 2 * .95 * .05.
        let perfect = Confusion { successes: 57, passed: 57, failures: 3, caught: 3 };
        assert!((perfect.ac1(1.0).expect("labels") - 1.0).abs() < 1e-12);
        assert!((perfect.ac1(0.951).expect("labels") - (0.951 - 0.095) / 0.905).abs() < 1e-12);
        assert_eq!(perfect.discrimination(), Some(1.0));
        let yes = Confusion { successes: 57, passed: 57, failures: 3, caught: 0 };
        assert_eq!(yes.discrimination(), Some(0.0));
        assert_eq!(Confusion::default().ac1(1.0), None);
    }

    #[test]
    fn association_is_the_exact_share_of_permutations() {
        // One caught failure of 60: a random session is the caught one with probability 1/60.
        let mut sessions = vec![(1.0, 1.0); 59];
        sessions.push((0.0, 0.0));
        let p = association(&sessions, key("one"));
        assert!((p - 1.0 / 60.0).abs() < 0.01, "{p}");
        let always_yes: Vec<(f64, f64)> = sessions.iter().map(|pair| (pair.0, 1.0)).collect();
        assert!((association(&always_yes, key("yes")) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_judge_that_is_blind_in_one_lane_is_found() {
        let good = Confusion { successes: 8, passed: 8, failures: 2, caught: 2 };
        let blind = Confusion { caught: 0, ..good };
        let p = equal_errors(&[[good, blind]; 20], key("blind")).expect("labels in both lanes");
        assert!(p < 0.01, "{p}");
        let p = equal_errors(&[[good, good]; 20], key("equal")).expect("labels in both lanes");
        assert!((p - 1.0).abs() < 1e-12, "{p}");
        let none = Confusion::default();
        assert_eq!(equal_errors(&[[good, none]; 20], key("one lane")), None);
        let mut apart = vec![[good, none]; 20];
        apart.extend([[none, blind]; 20]);
        assert!(equal_errors(&apart, key("apart")).expect("both lanes") < 0.01);
    }
}
