//! The tests on embeddings whose truth is known, and against SciPy.

use super::*;
use crate::stats::stream::Stream;

/// Numbers in a vector.
const DIMENSION: usize = 32;

/// Session means are spread this many times as widely as trials of a session.
const SPREAD: f64 = 2.0;

/// What the candidate does otherwise.
#[derive(Clone, Copy)]
enum Change {
    Nothing,
    /// Every number of every session moves by this.
    Common(f64),
    /// Every session moves in its own direction, its numbers by this in root mean square.
    Own(f64),
    /// Trials differ this many times as much.
    Noise(f64),
}

/// Gaussian embeddings: `cases` sessions with these many trials in each arm.
struct Simulation {
    cases: usize,
    baseline: usize,
    candidate: usize,
    change: Change,
}

impl Simulation {
    fn draw(&self, seed: u64) -> Groups {
        let mut random = Normal(StreamKey::new(seed, "simulation").stream(0));
        let mut groups = Groups::new(DIMENSION);
        for _ in 0..self.cases {
            let mean = random.vector(SPREAD, None);
            let before: Vec<Vec<f32>> =
                (0..self.baseline).map(|_| narrow(&random.vector(1.0, Some(&mean)))).collect();
            let (noise, moved) = match self.change {
                Change::Nothing => (1.0, mean),
                Change::Common(shift) => (1.0, mean.iter().map(|value| value + shift).collect()),
                Change::Own(shift) => (1.0, random.vector(shift, Some(&mean))),
                Change::Noise(noise) => (noise, mean),
            };
            let after: Vec<Vec<f32>> =
                (0..self.candidate).map(|_| narrow(&random.vector(noise, Some(&moved)))).collect();
            let of =
                |arm: &'_ [Vec<f32>]| arm.iter().map(Vec::as_slice).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let (before, after) = (of(&before), of(&after));
            let before: Vec<&[f32]> = before.iter().map(Vec::as_slice).collect();
            let after: Vec<&[f32]> = after.iter().map(Vec::as_slice).collect();
            groups.push(&before, &after).expect("a case");
        }
        groups
    }

    /// In how many of `rollouts` each p is at most 5 %: those of [`Statistic::ALL`], then the smallest of them.
    fn found(&self, rollouts: u64) -> [u64; 5] {
        let mut found = [0; 5];
        for seed in 0..rollouts {
            let test = test(&self.draw(seed), Relabelling::Trials, seed);
            for result in &test.statistics {
                found[result.statistic.place()] += u64::from(result.p <= 0.05);
            }
            found[4] += u64::from(test.p_min <= 0.05);
        }
        found
    }
}

fn paired(change: Change) -> Simulation {
    Simulation { cases: 50, baseline: 4, candidate: 4, change }
}

/// Standard normal numbers (Box and Muller 1958).
struct Normal(Stream);

impl Normal {
    fn next(&mut self) -> f64 {
        let unit = |stream: &mut Stream| (f64::from(stream.next_u32()) + 0.5) / 4_294_967_296.0;
        let (a, b) = (unit(&mut self.0), unit(&mut self.0));
        (-2.0 * a.ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()
    }

    fn vector(&mut self, deviation: f64, around: Option<&Vec<f64>>) -> Vec<f64> {
        let at = |place: usize| around.map_or(0.0, |around| around[place]);
        (0..DIMENSION).map(|place| at(place) + deviation * self.next()).collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

#[test]
fn identical_builds_are_found_changed_no_more_often_than_alpha() {
    // 100 rollouts at 5 %: the 99.9 % limit is 13. Each statistic, and the smallest of them.
    let found = paired(Change::Nothing).found(100);
    assert!(found.iter().all(|count| *count <= 13), "{found:?}");
    assert!(found[..3].iter().sum::<u64>() > 0, "no test ever finds anything");
    // Unequal arms, of which every relabelling is taken.
    let uneven = Simulation { cases: 30, baseline: 2, candidate: 5, change: Change::Nothing };
    let found = uneven.found(100);
    assert!(found.iter().all(|count| *count <= 13), "{found:?}");
}

#[test]
fn each_change_is_found_by_its_statistic() {
    // 20 rollouts; 18 of 20 is implausible (4 %) where the power is .98 and sure to fail where it is .5.
    let common = paired(Change::Common(0.15)).found(20);
    assert!(common[Statistic::Cross.place()] >= 18 && common[4] >= 18, "{common:?}");
    let own = paired(Change::Own(0.4)).found(20);
    assert!(own[Statistic::Within.place()] >= 18 && own[4] >= 18, "{own:?}");
    let noise = paired(Change::Noise(1.05)).found(20);
    assert!(noise[Statistic::Dispersion.place()] >= 16, "{noise:?}");
    let calm = paired(Change::Noise(0.95)).found(20);
    assert!(calm[Statistic::Dispersion.place()] >= 16, "less variety is a change too: {calm:?}");
}

#[test]
fn a_single_recording_is_told_from_the_candidates_trials() {
    let single = |change| Simulation { cases: 100, baseline: 1, candidate: 5, change };
    let found = single(Change::Nothing).found(100);
    assert!(found.iter().all(|count| *count <= 13), "{found:?}");
    assert_eq!((found[Statistic::Within.place()], found[Statistic::Dispersion.place()]), (0, 0));
    let moved = single(Change::Own(0.5)).found(20);
    assert!(moved[Statistic::Single.place()] >= 18 && moved[4] >= 18, "{moved:?}");
}

#[test]
fn whole_sessions_are_swapped_where_trials_share_state() {
    let simulation = paired(Change::Common(0.15));
    let swapped = test(&simulation.draw(1), Relabelling::Sessions, 1);
    let named: Vec<_> = swapped.statistics.iter().map(|result| result.statistic).collect();
    assert_eq!(named, [Statistic::Cross, Statistic::Dispersion]);
    assert!(swapped.p_min <= 0.01, "{}", swapped.p_min);
    let mut as_often = 0;
    for seed in 0..100 {
        let nothing = paired(Change::Nothing).draw(seed);
        as_often += u32::from(test(&nothing, Relabelling::Sessions, seed).p_min <= 0.05);
    }
    assert!(as_often <= 13, "{as_often}");
}

#[test]
fn enumerated_sign_flips_agree_with_scipy() {
    // tests/calibration/kernel_reference.py, scipy.stats.permutation_test(permutation_type="samples"): 12 cases of one
    // trial in each arm, three numbers each, of which only the differences matter.
    let mut groups = Groups::new(3);
    for case in 0..12_u8 {
        let k = f32::from(case);
        let before = [0.0_f32, 0.0, 0.0];
        let after = [0.25 * (k % 5.0) - 0.375, 0.5 - 0.125 * (k % 7.0), 0.0625 * (k % 3.0)];
        groups.push(&[&before], &[&after]).expect("a case");
    }
    for relabelling in [Relabelling::Trials, Relabelling::Sessions] {
        let test = test(&groups, relabelling, 1);
        assert!(test.is_exact && test.relabellings == 4096);
        let cross = test.statistics[0];
        assert_eq!((cross.statistic, test.statistics.len()), (Statistic::Cross, 1));
        assert!((cross.p - SCIPY_CROSS).abs() < 1e-12, "{}", cross.p);
    }
}

/// See [`enumerated_sign_flips_agree_with_scipy`].
const SCIPY_CROSS: f64 = 0.117_187_5;

/// The sessions of tests/calibration/kernel_reference.py: 50 of 4 + 4 trials, a 32 bit hash of their place to ten bits.
fn reference_sessions() -> Groups {
    let number = |case: u32, trial: u32, place: u32| {
        let mut hash = ((case * 8 + trial) * 32 + place).wrapping_mul(2_654_435_761);
        hash ^= hash >> 15;
        hash = hash.wrapping_mul(2_246_822_519);
        hash ^= hash >> 13;
        let bits = f32::from(u16::try_from(hash >> 22).expect("ten bits"));
        bits / 1024.0 - 0.5 + if trial >= 4 && place == case % 32 { 0.125 } else { 0.0 }
    };
    let mut groups = Groups::new(32);
    for case in 0..50 {
        let trials: Vec<Vec<f32>> =
            (0..8).map(|trial| (0..32).map(|place| number(case, trial, place)).collect()).collect();
        let trials: Vec<&[f32]> = trials.iter().map(Vec::as_slice).collect();
        groups.push(&trials[..4], &trials[4..]).expect("a case");
    }
    groups
}

#[test]
fn statistics_agree_with_numpy() {
    let test = test(&reference_sessions(), Relabelling::Trials, 1);
    let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-5, "{found} is not {wanted}");
    close(test.bandwidth, 2.308_680_292_305_029_4);
    let [within, cross, dispersion] = test.statistics[..] else { panic!("three statistics: {test:?}") };
    close(within.value, 0.097_135_208_188_581);
    close(cross.value, -10.591_753_602_027_893);
    close(dispersion.value, 0.581_892_013_549_804_5);
}

#[test]
fn saddlepoints_agree_with_ten_million_draws() {
    // Of tests/calibration/kernel_reference.py: P(z >= 0, 1, 2, 3, 3.5) and P(z <= 0, -1, -2, -3, -3.5).
    let [within, dispersion] = null_sums(&reference_sessions(), 1);
    let drawn = [
        (&within, 1.0, [0.495_022_1, 0.158_758_3, 0.024_747_9, 0.001_833_6, 0.000_369_4]),
        (&within, -1.0, [0.504_977_9, 0.158_663_6, 0.020_564_6, 0.000_920_1, 0.000_123_6]),
        (&dispersion, 1.0, [0.499_843_9, 0.158_942_7, 0.022_693_7, 0.001_305_5, 0.000_213]),
        (&dispersion, -1.0, [0.500_156_1, 0.158_946_1, 0.022_644_2, 0.001_285_9, 0.000_218]),
    ];
    for (sum, side, wanted) in drawn {
        let (mean, deviation) = sum.moments();
        for (z, wanted) in [0.0, 1.0, 2.0, 3.0, 3.5].into_iter().zip(wanted) {
            let bar = mean + side * z * deviation;
            let found = if side > 0.0 { sum.at_least(bar) } else { sum.at_most(bar) };
            let slack = if wanted > 1e-3 { 0.03 } else { 0.08 };
            assert!((found / wanted - 1.0_f64).abs() <= slack, "{side} x {z}: {found} is not {wanted}");
        }
    }
}

#[test]
fn drawn_and_enumerated_relabellings_agree() {
    // Four cases of 3 + 3 trials have 20^4 relabellings: too many, so they are drawn; three have 8,000.
    let draw = |cases| Simulation { cases, baseline: 3, candidate: 3, change: Change::Own(0.5) }.draw(4);
    let (all, drawn) = (test(&draw(3), Relabelling::Trials, 1), test(&draw(4), Relabelling::Trials, 1));
    assert!(all.is_exact && all.relabellings == 8000);
    assert!(!drawn.is_exact && drawn.relabellings == 2000);
    // The cross statistic of the drawn ones is a single precision product: its observed value is the formula's.
    let groups = draw(4);
    let mut sum = vec![0.0; DIMENSION];
    let mut lengths = 0.0;
    for case in 0..4 {
        let [before, after] = groups.means(case);
        let difference: Vec<f64> = before.iter().zip(&after).map(|(b, a)| a - b).collect();
        lengths += difference.iter().map(|value| value * value).sum::<f64>();
        sum.iter_mut().zip(&difference).for_each(|(sum, value)| *sum += value);
    }
    let cross = sum.iter().map(|value| value * value).sum::<f64>() - lengths;
    let found = drawn.statistics[Statistic::Cross.place()].value;
    assert!((found - cross).abs() < 1e-4 * lengths, "{found} {cross}");
}

#[test]
fn the_saddlepoint_agrees_with_the_relabellings_drawn() {
    for seed in 0..5 {
        let test = test(&paired(Change::Own(0.1)).draw(seed), Relabelling::Trials, seed);
        for result in &test.statistics {
            // Standard error of a share of 2000 is at most .011.
            assert!((result.p - result.p_permutation).abs() < 0.05, "{result:?}");
        }
        let alone = within(&paired(Change::Own(0.1)).draw(seed), seed).expect("two trials each");
        assert!((alone.1 - test.statistics[0].p).abs() < 1e-12);
    }
}

#[test]
fn equal_answers_show_nothing() {
    let mut groups = Groups::new(2);
    let same = [0.6_f32, 0.8];
    for _ in 0..40 {
        groups.push(&[&same, &same, &same], &[&same, &same, &same]).expect("a case");
    }
    let test = test(&groups, Relabelling::Trials, 1);
    assert!((test.p_min - 1.0).abs() < 1e-12 && test.bandwidth.abs() < 1e-12, "{test:?}");
    assert!(test.statistics.iter().all(|result| (result.p - 1.0).abs() < 1e-12), "{:?}", test.statistics);
}

#[test]
fn neither_threads_nor_the_order_of_trials_change_a_bit() {
    let groups = paired(Change::Common(0.05)).draw(9);
    let mut reversed = Groups::new(DIMENSION);
    for case in groups.cases() {
        let arm = |from: usize, count: usize| {
            (from..from + count).rev().map(|trial| groups.vector(trial)).collect()
        };
        let before: Vec<&[f32]> = arm(case.start, case.baseline);
        let after: Vec<&[f32]> = arm(case.start + case.baseline, case.candidate);
        reversed.push(&before, &after).expect("a case");
    }
    let first = test(&groups, Relabelling::Trials, 3);
    assert_eq!(first, test(&reversed, Relabelling::Trials, 3));
    let single = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    assert_eq!(first, single.install(|| test(&groups, Relabelling::Trials, 3)));
}
