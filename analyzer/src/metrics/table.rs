//! A case's contrast under every relabelling of its trials.

use std::collections::BTreeMap;

use crate::stats::stream::{Stream, StreamKey};

/// More relabellings than this are sampled, with the observed one kept.
const MOST_RELABELLINGS: usize = 256;

/// A case and its contrast under every relabelling, the observed one first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CaseTable {
    /// Its place in [`crate::pairs::Pairs::cases`].
    pub(crate) place: usize,
    /// The baseline's value.
    pub(crate) baseline: f64,
    /// The candidate's value.
    pub(crate) candidate: f64,
    /// The contrast as observed, then under the other relabellings.
    pub(crate) contrasts: Vec<f64>,
}

impl CaseTable {
    pub(crate) fn observed(&self) -> f64 {
        self.contrasts[0]
    }
}

/// Which of the pooled trials (the baseline's first) are called the candidate's.
pub(crate) type Labels = Vec<Vec<usize>>;

/// The relabellings of arms of these sizes, made once per pair of sizes.
#[derive(Debug)]
pub(crate) struct Relabeller {
    key: StreamKey,
    known: BTreeMap<(usize, usize), Labels>,
}

impl Relabeller {
    pub(crate) fn new(seed: u64, metric: &str) -> Self {
        Self { key: StreamKey::new(seed, &format!("relabel {metric}")), known: BTreeMap::new() }
    }

    /// The relabellings for a case, the observed one (the last `candidate` trials) first.
    ///
    /// Where they are sampled each case gets its own sample; the observed labels and the sampled ones are exchangeable
    /// under the null hypothesis, so the test stays exact.
    pub(crate) fn labels(
        &mut self,
        place: usize,
        baseline: usize,
        candidate: usize,
    ) -> std::borrow::Cow<'_, Labels> {
        let total = baseline + candidate;
        if combinations(total, candidate) > MOST_RELABELLINGS {
            let mut stream = self.key.stream(place as u64);
            let mut labels = vec![(baseline..total).collect()];
            labels.extend((0..MOST_RELABELLINGS).map(|_| draw(&mut stream, total, candidate)));
            return std::borrow::Cow::Owned(labels);
        }
        let known = self.known.entry((baseline, candidate)).or_insert_with(|| all(total, candidate));
        std::borrow::Cow::Borrowed(known)
    }
}

/// How many ways there are, as far as they matter.
fn combinations(total: usize, chosen: usize) -> usize {
    let mut ways: usize = 1;
    for step in 0..chosen.min(total - chosen) {
        ways = ways * (total - step) / (step + 1);
        if ways > MOST_RELABELLINGS {
            return ways;
        }
    }
    ways
}

/// Every choice, the last ones first: (baseline..total) is the observed one.
fn all(total: usize, chosen: usize) -> Labels {
    let mut current: Vec<usize> = (total - chosen..total).collect();
    let mut labels = vec![current.clone()];
    // Steps down through the choices in reverse lexicographic order.
    while let Some(place) = (0..chosen).rev().find(|place| {
        let least = if *place == 0 { 0 } else { current[place - 1] + 1 };
        current[*place] > least
    }) {
        current[place] -= 1;
        for (later, chosen_trial) in current.iter_mut().enumerate().skip(place + 1) {
            *chosen_trial = total - chosen + later;
        }
        labels.push(current.clone());
    }
    labels
}

fn draw(stream: &mut Stream, total: usize, chosen: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..total).collect();
    for place in 0..chosen {
        let left = u32::try_from(total - place).unwrap_or(u32::MAX);
        order.swap(place, place + stream.below(left) as usize);
    }
    order.truncate(chosen);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_is_there_once_and_the_observed_one_first() {
        let mut relabeller = Relabeller::new(1, "m");
        let labels = relabeller.labels(0, 3, 2).into_owned();
        assert_eq!(labels[0], vec![3, 4]);
        let mut sorted = labels.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((labels.len(), sorted.len()), (10, 10));
        assert_eq!(relabeller.labels(0, 5, 5).len(), 252);
        assert_eq!(relabeller.labels(0, 1, 1).into_owned(), vec![vec![1], vec![0]]);
    }

    #[test]
    fn many_choices_are_sampled_and_repeatable() {
        let a = Relabeller::new(1, "m").labels(4, 8, 8).into_owned();
        assert_eq!(a.len(), 257);
        assert_eq!(a[0], (8..16).collect::<Vec<_>>());
        assert_eq!(a, Relabeller::new(1, "m").labels(4, 8, 8).into_owned());
        assert_ne!(a, Relabeller::new(1, "m").labels(5, 8, 8).into_owned());
    }
}
