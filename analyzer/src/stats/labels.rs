//! Relabellings of the trials of a case: choices of the candidate's trials among the pooled ones, the baseline's
//! first.
//!
//! With identical builds every choice is as likely as the observed one, whatever the statistic.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::stats::stream::{Stream, StreamKey};

/// Largest number of relabellings that is enumerated; more are sampled, with the observed one included.
pub const MOST_RELABELLINGS: usize = 256;

/// Largest number of choices that is listed once and sampled by index.
const LISTED: usize = 65_536;

/// Choices of the same number of trials, each ascending, concatenated.
#[derive(Debug, PartialEq)]
struct Choices {
    chosen: usize,
    flat: Vec<usize>,
}

/// Relabellings of one case, the observed one first.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    choices: Arc<Choices>,
    /// Indexes into `choices`, in order; absent for all of them.
    picked: Option<Vec<u32>>,
}

impl Labels {
    /// Number of relabellings, the observed one included.
    #[expect(clippy::len_without_is_empty, reason = "the observed one is always there")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.picked.as_ref().map_or(self.choices.len(), Vec::len)
    }

    /// Candidate trials of relabelling `number`, ascending; 0 is the observed one.
    #[must_use]
    pub fn chosen(&self, number: usize) -> &[usize] {
        self.choices.at(self.picked.as_ref().map_or(number, |picked| picked[number] as usize))
    }

    /// Iterates over the relabellings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        (0..self.len()).map(|number| self.chosen(number))
    }
}

impl Choices {
    fn len(&self) -> usize {
        self.flat.len() / self.chosen
    }

    fn at(&self, number: usize) -> &[usize] {
        &self.flat[number * self.chosen..(number + 1) * self.chosen]
    }

    /// Every choice in descending order, so that the observed one (the last `chosen` trials) is number 0.
    fn all(total: usize, chosen: usize) -> Self {
        let mut current: Vec<usize> = (total - chosen..total).collect();
        let mut flat = current.clone();
        // Steps through the choices in reverse lexicographic order.
        while let Some(place) = (0..chosen).rev().find(|place| {
            let least = if *place == 0 { 0 } else { current[place - 1] + 1 };
            current[*place] > least
        }) {
            current[place] -= 1;
            for (later, chosen_trial) in current.iter_mut().enumerate().skip(place + 1) {
                *chosen_trial = total - chosen + later;
            }
            flat.extend_from_slice(&current);
        }
        Self { chosen, flat }
    }
}

/// Builds relabellings of cases; lists of choices are built once per pair of arm sizes.
#[derive(Debug)]
pub struct Relabeller {
    key: StreamKey,
    known: BTreeMap<(usize, usize), Arc<Choices>>,
}

impl Relabeller {
    /// Relabellings drawn under this key.
    #[must_use]
    pub fn new(key: StreamKey) -> Self {
        Self { key, known: BTreeMap::new() }
    }

    /// Lists the choices of arms of these sizes in advance.
    pub fn prepare(&mut self, baseline: usize, candidate: usize) {
        let total = baseline + candidate;
        if combinations(total, candidate) <= LISTED {
            self.known
                .entry((baseline, candidate))
                .or_insert_with(|| Arc::new(Choices::all(total, candidate)));
        }
    }

    /// Relabellings of a case; lists the choices of its sizes if necessary.
    pub fn labels(&mut self, place: usize, baseline: usize, candidate: usize) -> Labels {
        self.prepare(baseline, candidate);
        self.of(place, baseline, candidate)
    }

    /// Relabellings of a case with this many trials in its arms, at least one each.
    ///
    /// If they are sampled, each case has its own sample, fixed by its index. The observed and the sampled labels are
    /// exchangeable under the null hypothesis, so the test stays exact.
    #[must_use]
    pub fn of(&self, place: usize, baseline: usize, candidate: usize) -> Labels {
        let total = baseline + candidate;
        let listed = self.known.get(&(baseline, candidate)).cloned();
        let listed = listed.or_else(|| {
            (combinations(total, candidate) <= LISTED).then(|| Arc::new(Choices::all(total, candidate)))
        });
        let mut stream = self.key.stream(place as u64);
        match listed {
            Some(choices) if choices.len() <= MOST_RELABELLINGS => Labels { choices, picked: None },
            Some(choices) => {
                let all = u32::try_from(choices.len()).expect("no more choices than are listed");
                let drawn = (0..MOST_RELABELLINGS).map(|_| stream.below(all));
                let picked = std::iter::once(0).chain(drawn).collect();
                Labels { choices, picked: Some(picked) }
            }
            None => {
                let mut flat: Vec<usize> = (baseline..total).collect();
                (0..MOST_RELABELLINGS).for_each(|_| flat.extend(draw(&mut stream, total, candidate)));
                Labels { choices: Arc::new(Choices { chosen: candidate, flat }), picked: None }
            }
        }
    }
}

/// Number of choices, saturating.
fn combinations(total: usize, chosen: usize) -> usize {
    let mut ways: usize = 1;
    for step in 0..chosen.min(total - chosen) {
        ways = ways * (total - step) / (step + 1);
        if ways > LISTED {
            return ways;
        }
    }
    ways
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

    fn relabeller() -> Relabeller {
        Relabeller::new(StreamKey::new(1, "labels"))
    }

    fn listed(labels: &Labels) -> Vec<Vec<usize>> {
        labels.iter().map(<[usize]>::to_vec).collect()
    }

    #[test]
    fn every_choice_is_there_once_and_the_observed_one_first() {
        let labels = listed(&relabeller().labels(0, 3, 2));
        assert_eq!(labels[0], vec![3, 4]);
        let mut sorted = labels.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((labels.len(), sorted.len()), (10, 10));
        assert_eq!(relabeller().labels(0, 5, 5).len(), 252);
        assert_eq!(listed(&relabeller().labels(0, 1, 1)), vec![vec![1], vec![0]]);
    }

    #[test]
    fn many_choices_are_sampled_and_repeatable() {
        // 12,870 choices are listed and drawn by index; 40 trials have too many to list.
        for each in [8, 20] {
            let labels = relabeller().labels(4, each, each);
            assert_eq!(labels.len(), 257);
            assert_eq!(labels.chosen(0), (each..2 * each).collect::<Vec<_>>());
            assert!(labels.iter().all(|chosen| chosen.len() == each && chosen.is_sorted()));
            assert_eq!(labels, relabeller().labels(4, each, each));
            assert_eq!(labels, relabeller().of(4, each, each), "listing beforehand changes nothing");
            assert_ne!(listed(&labels), listed(&relabeller().labels(5, each, each)));
        }
    }

    #[test]
    fn sampled_choices_take_every_trial_alike() {
        let mut relabeller = relabeller();
        let mut counts = [0_u32; 16];
        for place in 0..40 {
            for chosen in relabeller.labels(place, 8, 8).iter().skip(1) {
                chosen.iter().for_each(|trial| counts[*trial] += 1);
            }
        }
        // 40 x 256 x 8 / 16 = 5120 each, standard deviation about 50.
        assert!(counts.iter().all(|count| (4870..5370).contains(count)), "{counts:?}");
    }
}
