//! Kernel tests on embeddings: rates on simulated ones, and numbers and speed compared with NumPy.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use analyzer::stats::kernel::{self, Groups, Relabelling, Statistic};
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;
use serde_json::Value;

use super::Scale;
use crate::rate::{Rate, repeat};
use crate::reference::{numbers, python};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;

/// Dimension of a simulated embedding, as in the simulations behind the design.
const DIMENSION: usize = 32;

/// Ratio of the standard deviation of session means to that of trials within a session.
const SPREAD: f64 = 2.0;

/// Change of the candidate; a shift is of every entry, in units of the noise within a session.
#[derive(Debug, Clone, Copy)]
enum Change {
    Nothing,
    /// The same shift in all sessions.
    Common(f64),
    /// A shift of each session in its own direction, root mean square.
    Own(f64),
    /// Factor of the noise within a session.
    Noise(f64),
}

/// Sessions of Gaussian embeddings with these numbers of trials per lane.
#[derive(Debug, Clone, Copy)]
struct Embeddings {
    sessions: usize,
    trials: (usize, usize),
    change: Change,
}

impl Embeddings {
    fn draw(&self, rng: &mut SimulationRng) -> Groups {
        let mut groups = Groups::new(DIMENSION);
        let mut around = |mean: &[f64], deviation: f64| -> Vec<f64> {
            mean.iter().map(|mean| mean + deviation * rng.normal()).collect()
        };
        for _ in 0..self.sessions {
            let mean = around(&[0.0; DIMENSION], SPREAD);
            let (moved, noise) = match self.change {
                Change::Nothing => (mean.clone(), 1.0),
                Change::Common(shift) => (mean.iter().map(|value| value + shift).collect(), 1.0),
                Change::Own(shift) => (around(&mean, shift), 1.0),
                Change::Noise(noise) => (mean.clone(), noise),
            };
            let mut arm = |count: usize, mean: &[f64], noise: f64| -> Vec<Vec<f32>> {
                (0..count).map(|_| around(mean, noise).into_iter().map(single).collect()).collect()
            };
            let (before, after) = (arm(self.trials.0, &mean, 1.0), arm(self.trials.1, &moved, noise));
            let before: Vec<&[f32]> = before.iter().map(Vec::as_slice).collect();
            let after: Vec<&[f32]> = after.iter().map(Vec::as_slice).collect();
            groups.push(&before, &after).expect("every session has both lanes");
        }
        groups
    }

    /// Rate at which each of [`Statistic::ALL`], and the smallest p of them, is at most .05.
    fn found(&self, times: u32) -> [Rate; 5] {
        repeat(&format!("{self:?}"), times, |rng| {
            let seed = u64::try_from(rng.below(1 << 31)).expect("31 bits");
            let test = kernel::test(&self.draw(rng), Relabelling::Trials, seed);
            let of = |statistic| {
                let result = test.statistics.iter().find(|result| result.statistic == statistic);
                result.is_some_and(|result| result.p <= 0.05)
            };
            let [a, b, c, d] = Statistic::ALL.map(of);
            [a, b, c, d, test.p_min <= 0.05]
        })
    }

    fn label(&self) -> String {
        format!("M={}, K={}+{}", self.sessions, self.trials.0, self.trials.1)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
fn single(value: f64) -> f32 {
    value as f32
}

/// Names of the rates of [`Embeddings::found`].
const NAMES: [&str; 5] = ["within", "cross", "dispersion", "single", "smallest p"];

fn sizes(id: &'static str, scale: Scale, embeddings: Embeddings) -> Row {
    let found = embeddings.found(scale.times(2000, 400));
    let said: Vec<String> = NAMES
        .iter()
        .zip(found)
        .filter(|(_, rate)| rate.hits > 0)
        .map(|(name, rate)| format!("{name} {:.4}", rate.share()))
        .collect();
    let of = found[4].of;
    Row {
        id,
        figure: format!("identical builds found changed, {}", embeddings.label()),
        required: format!("<= {:.4}", Rate::limit(of, 0.05)),
        measured: format!("{} (N={of})", said.join(", ")),
        standing: Standing::of(found.iter().all(|rate| rate.is_at_most(0.05))),
    }
}

/// `least` is required of the named statistic and, if `smallest` is set, of the smallest p.
fn power(
    id: &'static str,
    scale: Scale,
    embeddings: Embeddings,
    (statistic, least, smallest): (usize, f64, bool),
) -> Row {
    let found = embeddings.found(scale.times(1000, 40));
    let holds = found[statistic].is_at_least(least) && (!smallest || found[4].is_at_least(least));
    Row {
        id,
        figure: format!("{:?} found, {}", embeddings.change, embeddings.label()),
        required: format!(
            ">= {least} by {}{}",
            NAMES[statistic],
            if smallest { " and smallest p" } else { "" }
        ),
        measured: format!("{} {}, smallest p {:.4}", NAMES[statistic], found[statistic], found[4].share()),
        standing: Standing::of(holds),
    }
}

/// A9: size and power of the paired kernel tests.
pub(crate) fn a9(scale: Scale) -> Vec<Row> {
    let of = |change| Embeddings { sessions: 50, trials: (4, 4), change };
    let nothing = |sessions, trials| Embeddings { sessions, trials, change: Change::Nothing };
    let mut rows = vec![sizes("A9", scale, of(Change::Nothing))];
    if scale != Scale::Short {
        for (sessions, trials) in [(20, (2, 5)), (30, (8, 8)), (5, (3, 3))] {
            rows.push(sizes("A9", scale, nothing(sessions, trials)));
        }
    }
    rows.push(power("A9", scale, of(Change::Common(0.15)), (1, 0.95, true)));
    rows.push(power("A9", scale, of(Change::Own(0.4)), (0, 0.95, true)));
    rows.push(power("A9", scale, of(Change::Noise(1.05)), (2, 0.90, false)));
    rows
}

/// A10: a single recording against the candidate's trials.
pub(crate) fn a10(scale: Scale) -> Vec<Row> {
    let of = |change| Embeddings { sessions: 100, trials: (1, 5), change };
    vec![
        sizes("A10", scale, of(Change::Nothing)),
        power("A10", scale, of(Change::Own(0.5)), (3, 0.95, true)),
        power("A10", scale, of(Change::Common(0.5)), (3, 0.95, true)),
    ]
}

/// Runs `kernel_reference.py`; absent without Python.
fn ask(arguments: &[&str]) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("calibration/kernel_reference.py");
    let done = Command::new(python()?).arg(script).args(arguments).output().expect("Python starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(serde_json::from_slice(&done.stdout).expect("answers in JSON"))
}

/// Sessions of `kernel_reference.py`: 50 of 4 + 4 trials; entries are 32 bit hashes of their position cut to ten bits.
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
        groups.push(&trials[..4], &trials[4..]).expect("both lanes");
    }
    groups
}

/// N7: saddlepoint tail probabilities against draws in NumPy from the same tables.
pub(crate) fn n7(scale: Scale) -> Vec<Row> {
    let draws = scale.times(10_000_000, 500_000);
    let Some(theirs) = ask(&["values", &draws.to_string()]) else { return Vec::new() };
    let sums = kernel::null_sums(&reference_sessions(), 1);
    let mut off = [0.0_f64; 2];
    for (name, sum) in [("within", &sums[0]), ("dispersion", &sums[1])] {
        let (mean, deviation) = sum.moments();
        for (side, tail) in [(1.0, "at_least"), (-1.0, "at_most")] {
            let wanted = numbers(&theirs[name][tail]);
            for (z, wanted) in [0.0, 1.0, 2.0, 3.0, 3.5].into_iter().zip(wanted) {
                let bar = mean + side * z * deviation;
                let found = if side > 0.0 { sum.at_least(bar) } else { sum.at_most(bar) };
                // Probabilities that the draws do not determine to about a percent are no reference.
                if wanted * f64::from(draws) >= 1000.0 {
                    let place = usize::from(wanted <= 1e-3);
                    off[place] = off[place].max((found / wanted - 1.0).abs());
                }
            }
        }
    }
    vec![Row {
        id: "N7",
        figure: format!(
            "kernel p by saddlepoint against {draws} draws in NumPy, two statistics, both tails, z to 3.5"
        ),
        required: "rel <= .03 above 1e-3, <= .08 below".to_owned(),
        measured: format!("{:.4}, {:.4}", off[0], off[1]),
        standing: Standing::of(off[0] <= 0.03 && off[1] <= 0.08),
    }]
}

/// Shortest of several runs, milliseconds.
fn best(runs: u32, mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let start = Instant::now();
        work();
        best = best.min(1000.0 * start.elapsed().as_secs_f64());
    }
    best
}

/// P1 and P2: on one thread, compared with NumPy and OpenBLAS in the same run.
pub(crate) fn speed() -> Vec<Row> {
    let Some(theirs) = ask(&["timings"]) else { return Vec::new() };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let mut rng = SimulationRng::new("P1", 0);
    let mut groups = Groups::new(384);
    for _ in 0..500 {
        let trials: Vec<Vec<f32>> =
            (0..16).map(|_| (0..384).map(|_| single(rng.normal())).collect()).collect();
        let trials: Vec<&[f32]> = trials.iter().map(Vec::as_slice).collect();
        groups.push(&trials[..8], &trials[8..]).expect("both lanes");
    }
    let ours = one.install(|| best(20, || assert!(kernel::within(&groups, 1).is_some())));
    let whole =
        one.install(|| best(3, || assert!(kernel::test(&groups, Relabelling::Trials, 1).p_min > 0.0)));
    let numpy = theirs["within_ms"].as_f64().expect("a number");
    let mut rows = vec![Row {
        id: "P1",
        figure: "within-session kernel test with p, M=500, K=8, D=384, one thread".to_owned(),
        required: "<= 25 ms, >= 20 times as fast as NumPy with 1000 permutations".to_owned(),
        measured: format!(
            "{ours:.1} ms, NumPy {numpy:.0} ms ({:.0} times); all statistics and 1,999 permutations {whole:.0} ms",
            numpy / ours
        ),
        standing: Standing::of(ours <= 25.0 && numpy / ours >= 20.0),
    }];
    for product in theirs["products"].as_array().expect("a list") {
        rows.push(product_row(product));
    }
    rows
}

fn product_row(theirs: &Value) -> Row {
    let size = |key: &str| usize::try_from(theirs[key].as_u64().expect("a number")).expect("a size");
    let (rows, inner, columns) = (size("rows"), size("inner"), size("columns"));
    let left = Array2::<f32>::from_elem((rows, inner), 0.5);
    let right = Array2::<f32>::from_elem((inner, columns), 0.25);
    let mut product = Array2::<f32>::zeros((rows, columns));
    let took = best(50, || general_mat_mul(1.0, &left, &right, 0.0, &mut product));
    let operations: u32 = (2 * rows * inner * columns).try_into().expect("some thousand million");
    let ours = f64::from(operations) / took / 1e6;
    let openblas = theirs["gflops"].as_f64().expect("a number");
    Row {
        id: "P2",
        figure: format!("matrix product {rows} x {inner} x {columns}, single precision, one thread"),
        required: ">= 70 % of OpenBLAS".to_owned(),
        measured: format!("{ours:.0} against {openblas:.0} GFLOP/s ({:.0} %)", 100.0 * ours / openblas),
        standing: Standing::of(ours >= 0.7 * openblas),
    }
}

#[test]
fn changes_of_answers_are_found_and_identical_builds_are_not() {
    demand(&a9(Scale::Short));
}

#[test]
fn a_single_recording_is_told_apart() {
    demand(&a10(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a9() {
    a9(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_a10() {
    a10(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_n7() {
    n7(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "measures time: tests/calibration/run"]
fn full_kernel() {
    speed().iter().for_each(Row::print);
}
