//! Search for slices that stand out: conjunctions of up to three conditions on the properties of the cases.
//!
//! Every slice is scored on the same permutations of the trials. A slice stands out if it is worse than the worst
//! slice of all but a share alpha of the permutations (max-T, Westfall and Young 1993), so the whole search has one
//! error level. The result is for review and never decides.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::metrics::{CaseTable, Measured};
use crate::pairs::{PairedCase, Pairs};
use crate::stats::stream::StreamKey;
use crate::stats::variance::{float, mean};
use crate::verdict::{Subgroup, SubgroupSearch};

/// Smallest number of cases of a slice.
const SUPPORT: usize = 20;

/// Largest number of conditions of a slice.
const DEPTH: usize = 3;

/// Largest number of slices scored; the largest slices are kept.
const MOST_SLICES: usize = 2000;

/// Above this number of cases, fewer slices are scored on fewer permutations, so that time and memory stay bounded.
const MANY_CASES: usize = 20_000;

/// Largest number of conditions combined; the most frequent ones are kept.
const MOST_CONDITIONS: usize = 150;

/// Permutations on which the search is repeated.
const RELABELLINGS: usize = 1000;

/// Permutations scored together, so that their sums stay in the processor's cache.
const BLOCK: usize = 256;

/// Largest number of slices reported.
const SHOWN: usize = 10;

/// Relative tolerance of a tie between two scores, which are sums of 32 bit numbers.
const TIE: f32 = 1e-5;

/// A set of cases, 64 to a word.
type Cases = Vec<u64>;

/// A slice: the indexes of its conditions, ascending, and its cases.
#[derive(Debug, Clone)]
struct Slice {
    conditions: Vec<usize>,
    cases: Cases,
    size: usize,
}

/// Searches the contrasts of a metric; absent if the cases have no properties that divide them.
pub(crate) fn search(pairs: &Pairs<'_>, metric: &Measured, alpha: f64, seed: u64) -> Option<SubgroupSearch> {
    let conditions = conditions(pairs, metric);
    if conditions.is_empty() {
        return None;
    }
    let bounded =
        |most: usize, least: usize| (most * MANY_CASES / metric.observed.len().max(1)).clamp(least, most);
    let (slices, left_out) = lattice(&conditions, bounded(MOST_SLICES, 100));
    let relabellings = bounded(RELABELLINGS, 100);
    let contrasts = PermutationUnit::new(&metric.observed, relabellings, StreamKey::new(seed, "slices"));
    let (scores, least) = contrasts.score(&slices);
    let mut sorted = least[1..].to_vec();
    sorted.sort_by(f32::total_cmp);
    let rank = crate::cast::round((alpha * float(sorted.len())).floor());
    let critical = sorted.get(usize::try_from(rank).unwrap_or(0)).copied().unwrap_or(0.0);
    let mut found: Vec<(f64, f32, &Slice)> = Vec::new();
    for (slice, score) in slices.iter().zip(scores) {
        let bar = score + TIE * score.abs();
        let as_bad = sorted.partition_point(|least| *least <= bar);
        let p = float(as_bad + 1) / float(sorted.len() + 1);
        if score < 0.0 && p <= alpha {
            found.push((p, score, slice));
        }
    }
    found.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.conditions.cmp(&b.2.conditions)));
    let tell = |(p_adjusted, score, slice): &(f64, f32, &Slice)| {
        let inside = |place: &usize| is_inside(&slice.cases, *place);
        let places = 0..metric.observed.len();
        let (of, elsewhere): (Vec<usize>, Vec<usize>) = places.partition(inside);
        let effect = |places: &[usize]| {
            mean(&places.iter().map(|place| metric.observed[*place].observed()).collect::<Vec<_>>())
        };
        Subgroup {
            criteria: slice.conditions.iter().map(|number| conditions[*number].0.clone()).collect(),
            cases: crate::cast::to_u64(slice.size),
            effect: effect(&of),
            effect_elsewhere: effect(&elsewhere),
            score: f64::from(*score),
            p_adjusted: *p_adjusted,
        }
    };
    Some(SubgroupSearch {
        metric: metric.name.clone(),
        searched: crate::cast::to_u64(slices.len()),
        left_out: crate::cast::to_u64(left_out),
        permutations: crate::cast::to_u64(relabellings),
        critical_score: f64::from(critical),
        slices: found.iter().take(SHOWN).map(tell).collect(),
    })
}

// === conditions and slices ===

/// Conditions that at least [`SUPPORT`] cases meet and at least one does not, the most frequent first, with their
/// cases.
fn conditions(pairs: &Pairs<'_>, metric: &Measured) -> Vec<((String, String), Cases)> {
    let count = metric.observed.len();
    let mut found: BTreeMap<(String, String), Cases> = BTreeMap::new();
    for (number, table) in metric.observed.iter().enumerate() {
        let Some(case) = pairs.cases.get(table.place) else { continue };
        for property in properties(case) {
            let cases = found.entry(property).or_insert_with(|| vec![0; count.div_ceil(64)]);
            cases[number / 64] |= 1 << (number % 64);
        }
    }
    let mut list: Vec<_> = found.into_iter().collect();
    list.retain(|(_, cases)| (SUPPORT..count).contains(&size(cases)));
    // The sort is stable: equally frequent conditions stay in the order of their names.
    list.sort_by_key(|(_, cases)| std::cmp::Reverse(size(cases)));
    list.truncate(MOST_CONDITIONS);
    list
}

/// Properties of a case that do not depend on the arms: its slices, and the tools that its recording called.
fn properties(case: &PairedCase<'_>) -> Vec<(String, String)> {
    let slices = case.slices.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let calls = case.recorded_any.iter().flat_map(|record| &record.calls);
    let tools: BTreeSet<&str> = calls.map(|call| call.tool.as_str()).collect();
    slices
        .chain(tools.into_iter().map(|tool| (format!("recording calls {tool}"), "yes".to_owned())))
        .collect()
}

fn size(cases: &[u64]) -> usize {
    cases.iter().map(|word| word.count_ones() as usize).sum()
}

/// Slices with enough cases, by number of conditions and then by size, and the number left out. A conjunction that
/// excludes no case of a shorter one is the same slice.
fn lattice(conditions: &[((String, String), Cases)], most: usize) -> (Vec<Slice>, usize) {
    let mut seen: BTreeSet<Cases> = BTreeSet::new();
    let mut level: Vec<Slice> = Vec::new();
    for (number, (_, cases)) in conditions.iter().enumerate() {
        if seen.insert(cases.clone()) {
            level.push(Slice { conditions: vec![number], cases: cases.clone(), size: size(cases) });
        }
    }
    let mut slices = Vec::new();
    let mut left_out = 0;
    for _ in 0..DEPTH {
        level.sort_by(|a, b| b.size.cmp(&a.size).then(a.conditions.cmp(&b.conditions)));
        let room = most - slices.len();
        left_out += level.len().saturating_sub(room);
        level.truncate(room);
        slices.extend(level.iter().cloned());
        if slices.len() >= most {
            break;
        }
        level = deeper(&level, conditions, &mut seen);
    }
    (slices, left_out)
}

fn deeper(
    level: &[Slice],
    conditions: &[((String, String), Cases)],
    seen: &mut BTreeSet<Cases>,
) -> Vec<Slice> {
    let mut next = Vec::new();
    for slice in level {
        let last = slice.conditions.last().map_or(0, |last| last + 1);
        for (number, ((key, _), cases)) in conditions.iter().enumerate().skip(last) {
            // Two values of one property have no case in common.
            if slice.conditions.iter().any(|held| conditions[*held].0.0 == *key) {
                continue;
            }
            let both: Cases = slice.cases.iter().zip(cases).map(|(a, b)| a & b).collect();
            let size = size(&both);
            if size >= SUPPORT && size < slice.size && seen.insert(both.clone()) {
                let mut conditions = slice.conditions.clone();
                conditions.push(number);
                next.push(Slice { conditions, cases: both, size });
            }
        }
    }
    next
}

// === scores ===

/// Contrasts as observed and under every permutation: one row per case.
struct PermutationUnit {
    rows: Vec<f32>,
    width: usize,
}

impl PermutationUnit {
    fn new(tables: &[CaseTable], relabellings: usize, key: StreamKey) -> Self {
        let width = relabellings + 1;
        let row = |table: &CaseTable| {
            let length = u32::try_from(table.contrasts.len()).unwrap_or(u32::MAX);
            let mut stream = key.stream(table.place as u64);
            let mut row = vec![single(table.observed())];
            row.extend((0..relabellings).map(|_| single(table.contrasts[stream.below(length) as usize])));
            row
        };
        let rows: Vec<Vec<f32>> = tables.par_iter().map(row).collect();
        Self { rows: rows.concat(), width }
    }

    /// Observed score of each slice, and the smallest score of any slice under each permutation, starting with the
    /// observed labels.
    fn score(&self, slices: &[Slice]) -> (Vec<f32>, Vec<f32>) {
        let scored: Vec<(Vec<f32>, Vec<f32>)> = slices
            .par_chunks(32)
            .map(|part| {
                let mut least = vec![0.0_f32; self.width];
                let mut observed = Vec::with_capacity(part.len());
                for slice in part {
                    observed.push(self.score_one(slice, &mut least));
                }
                (observed, least)
            })
            .collect();
        let mut least = vec![0.0_f32; self.width];
        let mut observed = Vec::with_capacity(slices.len());
        for (part, part_least) in scored {
            observed.extend(part);
            least.iter_mut().zip(part_least).for_each(|(held, new)| *held = held.min(new));
        }
        (observed, least)
    }

    fn score_one(&self, slice: &Slice, least: &mut [f32]) -> f32 {
        let members: Vec<usize> = places(&slice.cases).collect();
        let mut observed = 0.0;
        for start in (0..self.width).step_by(BLOCK) {
            let end = (start + BLOCK).min(self.width);
            let (mut sums, mut squares) = ([0.0_f32; BLOCK], [0.0_f32; BLOCK]);
            for member in &members {
                let row = &self.rows[member * self.width + start..member * self.width + end];
                for ((sum, square), value) in sums.iter_mut().zip(&mut squares).zip(row) {
                    *sum += value;
                    *square += value * value;
                }
            }
            for (place, held) in least[start..end].iter_mut().enumerate() {
                let score = if squares[place] > 0.0 { sums[place] / squares[place].sqrt() } else { 0.0 };
                if start + place == 0 {
                    observed = score;
                }
                *held = held.min(score);
            }
        }
        observed
    }
}

fn is_inside(cases: &[u64], place: usize) -> bool {
    (cases[place / 64] >> (place % 64)) & 1 == 1
}

fn places(cases: &[u64]) -> impl Iterator<Item = usize> {
    let of = |(word, bits): (usize, &u64)| {
        let bits = *bits;
        (0..64).filter(move |bit| (bits >> bit) & 1 == 1).map(move |bit| word * 64 + bit)
    };
    cases.iter().enumerate().flat_map(of)
}

/// Converts a contrast, which is between -1.5 and 1.5, to single precision.
fn single(value: f64) -> f32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "digits beyond single precision do not matter to a score"
    )]
    let single = value as f32;
    single
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::labelled;
    use crate::metrics::{Setting, measure};
    use crate::policy::Policy;
    use crate::run::Run;

    /// Runs of `cases` cases with two trials each and random slices, whose candidate fails in the cases of one slice.
    fn runs(cases: usize, seed: u64, broken: Option<(&str, &str)>) -> (Run, Run) {
        let key = StreamKey::new(seed, "runs");
        let lane = |lane: Lane| {
            let mut of = labelled(lane, &vec![vec![true; 2]; cases]);
            for (number, record) in of.trials.iter_mut().enumerate() {
                let mut slices = key.stream(number as u64 / 2);
                for (property, values) in [("tier", 3), ("region", 4), ("tool", 2)] {
                    record.trial.slices.insert(property.to_owned(), slices.below(values).to_string());
                }
                let mut own = StreamKey::new(seed, lane.as_str()).stream(number as u64);
                let inside = |(key, value): (&str, &str)| {
                    record.trial.slices.get(key).is_some_and(|held| held == value)
                };
                let fails = lane == Lane::Candidate && broken.is_some_and(inside) && own.below(2) == 0;
                record.trial.success = Some(!fails && own.below(10) > 0);
            }
            of
        };
        (lane(Lane::Baseline), lane(Lane::Candidate))
    }

    fn found(runs: &(Run, Run), seed: u64) -> SubgroupSearch {
        let policy = Policy::default();
        let pairs = Pairs::new(&runs.0, &runs.1, None).expect("two runs");
        let metrics = measure(Setting { policy: &policy, pairs: &pairs, seed }, &[]).metrics;
        search(&pairs, &metrics[0], 0.05, seed).expect("cases have slices")
    }

    #[test]
    fn a_slice_that_broke_is_found_and_told_with_the_rest() {
        let found = found(&runs(300, 1, Some(("region", "2"))), 1);
        let worst = found.slices.first().expect("a slice stands out");
        assert_eq!(worst.criteria.get("region").map(String::as_str), Some("2"), "{found:?}");
        assert!(worst.p_adjusted <= 0.002 && worst.effect < -0.3 && worst.effect_elsewhere.abs() < 0.1);
        assert!(found.critical_score < -2.0 && worst.score < found.critical_score);
        // 3 + 4 + 2 conditions, 26 pairs, 24 triples; some of them have too few cases.
        assert!((30..=59).contains(&found.searched), "{}", found.searched);
    }

    #[test]
    fn nothing_stands_out_where_nothing_changed() {
        // At 5 % the 99.9 % limit of 40 is 7.
        let alarms = (0..40).filter(|seed| !found(&runs(120, *seed, None), *seed).slices.is_empty()).count();
        assert!(alarms <= 7, "{alarms} of 40");
    }

    #[test]
    fn cases_without_properties_are_not_searched() {
        let plain = |lane| labelled(lane, &vec![vec![true]; 50]);
        let (before, after) = (plain(Lane::Baseline), plain(Lane::Candidate));
        let policy = Policy::default();
        let pairs = Pairs::new(&before, &after, None).expect("two runs");
        let metrics = measure(Setting { policy: &policy, pairs: &pairs, seed: 1 }, &[]).metrics;
        assert_eq!(search(&pairs, &metrics[0], 0.05, 1), None);
    }
}
