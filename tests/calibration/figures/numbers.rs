//! Numerical functions of the decision, against SciPy, statsmodels and NumPy in the same run.

use analyzer::stats::betting::{Side, log_wealth};
use analyzer::stats::gaffke::Sample;
use analyzer::stats::permutation::Tables;
use analyzer::stats::stream::StreamKey;
use analyzer::stats::variance::variance;
use analyzer::stats::{discovery, holm, normal, spending};
use serde_json::{Value, json};

use super::Scale;
use crate::classical::{self, Tails, float};
use crate::reference::{ask, numbers};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;

/// Largest difference, relative to the reference.
fn worst_relative(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let off = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { ((a - b) / b).abs() };
    ours.iter().zip(theirs).map(off).fold(0.0, f64::max)
}

fn worst(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn row(id: &'static str, figure: String, limit: f64, kind: &str, found: f64) -> Row {
    Row {
        id,
        figure,
        required: format!("{kind} <= {limit:.0e}"),
        measured: format!("{found:.1e}"),
        standing: Standing::of(found <= limit),
    }
}

/// A distribution function: name, points, our values.
struct Compared {
    name: &'static str,
    points: Vec<Vec<f64>>,
    ours: Vec<f64>,
}

fn compared(name: &'static str, points: Vec<Vec<f64>>, of: impl Fn(&[f64]) -> f64) -> Compared {
    let ours = points.iter().map(|point| of(point)).collect();
    Compared { name, points, ours }
}

/// Converts a drawn count to a number.
fn count(number: f64) -> usize {
    (0..100_000).find(|count| float(*count) >= number).expect("a small count")
}

fn distributions(points: usize) -> Vec<Compared> {
    let mut rng = SimulationRng::new("N1", 0);
    let mut list = |of: &mut dyn FnMut(&mut SimulationRng) -> Vec<f64>| -> Vec<Vec<f64>> {
        (0..points).map(|_| of(&mut rng)).collect()
    };
    // Probabilities between 1e-9 and 1 - 1e-9, in the tails as often as in the middle.
    let probability = |rng: &mut SimulationRng| {
        let tail = 10_f64.powf(-9.0 * rng.uniform()) * 0.5;
        if rng.happens(0.5) { tail } else { 1.0 - tail }
    };
    let shape = |rng: &mut SimulationRng| 10_f64.powf(3.0 * rng.uniform() - 0.5);
    let whole = |rng: &mut SimulationRng, most: usize| float(1 + rng.below(most));
    vec![
        compared("normal_cdf", list(&mut |rng| vec![12.0 * rng.uniform() - 6.0]), |x| normal::cdf(x[0])),
        compared("normal_quantile", list(&mut |rng| vec![probability(rng)]), |x| normal::quantile(x[0])),
        compared("t_cdf", list(&mut |rng| vec![16.0 * rng.uniform() - 8.0, whole(rng, 2000)]), |x| {
            classical::t_cdf(x[0], x[1])
        }),
        compared("t_quantile", list(&mut |rng| vec![probability(rng), whole(rng, 2000)]), |x| {
            classical::t_quantile(x[0], x[1])
        }),
        compared(
            "beta_cdf",
            list(&mut |rng| {
                let (a, b) = (shape(rng), shape(rng));
                // Points near the mean, where the function varies.
                let (mean, spread) = (a / (a + b), (a * b / (a + b + 1.0)).sqrt() / (a + b));
                vec![(mean + 4.0 * spread * (rng.uniform() - 0.5)).clamp(1e-6, 1.0 - 1e-6), a, b]
            }),
            |x| classical::beta_cdf(x[0], x[1], x[2]),
        ),
        compared("beta_quantile", list(&mut |rng| vec![probability(rng), shape(rng), shape(rng)]), |x| {
            classical::beta_quantile(x[0], x[1], x[2])
        }),
        compared(
            "binomial_cdf",
            list(&mut |rng| {
                let (of, p) = (whole(rng, 2000), rng.uniform());
                let spread = (of * p * (1.0 - p)).sqrt();
                vec![(of * p + 5.0 * spread * (rng.uniform() - 0.5)).round().clamp(0.0, of), of, p]
            }),
            |x| classical::binomial_cdf(count(x[0]), count(x[1]), x[2]),
        ),
        compared(
            "binomial_quantile",
            list(&mut |rng| vec![probability(rng), whole(rng, 2000), rng.uniform()]),
            |x| float(classical::binomial_quantile(x[0], count(x[1]), x[2])),
        ),
    ]
}

/// N1: distribution functions and quantiles.
pub(crate) fn n1(scale: Scale) -> Vec<Row> {
    let points = scale.times(12_500, 1000) as usize;
    let all = distributions(points);
    let input: serde_json::Map<String, Value> =
        all.iter().map(|one| (one.name.to_owned(), json!(one.points))).collect();
    let Some(theirs) = ask("N1", &input.into()) else { return Vec::new() };
    let found = |one: &Compared| {
        let off = worst_relative(&one.ours, &numbers(&theirs[one.name]));
        let limit = if one.name.ends_with("cdf") { 1e-10 } else { 1e-8 };
        row("N1", format!("{} against SciPy, {points} points", one.name), limit, "rel", off)
    };
    all.iter().map(found).collect()
}

/// N2: standard error of the block test, against errors clustered by session.
pub(crate) fn n2() -> Vec<Row> {
    let mut rng = SimulationRng::new("N2", 0);
    let sessions: Vec<Vec<f64>> = (0..60)
        .map(|_| {
            let middle = rng.normal();
            (0..5).map(|_| middle + rng.normal()).collect()
        })
        .collect();
    let means: Vec<f64> = sessions.iter().map(|trials| trials.iter().sum::<f64>() / 5.0).collect();
    let ours = (variance(&means) / 60.0).sqrt();
    let Some(theirs) = ask("N2", &json!(sessions)) else { return Vec::new() };
    let against = |name: &str| {
        let value = theirs[name].as_f64().expect("a number");
        row(
            "N2",
            format!("clustered standard error against {name}"),
            1e-10,
            "rel",
            (ours / value - 1.0).abs(),
        )
    };
    vec![against("statsmodels"), against("inspect")]
}

/// N3: corrections of several p-values.
pub(crate) fn n3() -> Vec<Row> {
    let mut rng = SimulationRng::new("N3", 0);
    let mut lists: Vec<Vec<f64>> =
        (0..200).map(|number| (0..1 + number % 12).map(|_| rng.uniform().powi(3)).collect()).collect();
    // Ties, and values at the ends.
    lists.push(vec![0.02, 0.02, 0.5, 0.02]);
    lists.push(vec![0.0, 1.0, 1.0]);
    let Some(theirs) = ask("N3", &json!(lists)) else { return Vec::new() };
    let against = |name: &str, method: &str, adjust: fn(&[f64]) -> Vec<f64>| {
        let expected = theirs[method].as_array().expect("lists");
        let off = lists.iter().zip(expected).map(|(list, wanted)| worst(&adjust(list), &numbers(wanted)));
        row(
            "N3",
            format!("{name} against statsmodels, {} lists", lists.len()),
            1e-12,
            "abs",
            off.fold(0.0, f64::max),
        )
    };
    vec![against("Holm", "holm", holm::adjust), against("Benjamini and Hochberg", "bh", discovery::adjust)]
}

/// N4: textbook tests that baselines and references use.
pub(crate) fn n4(scale: Scale) -> Vec<Row> {
    let mut rng = SimulationRng::new("N4", 0);
    let cases: Vec<(Vec<f64>, Vec<f64>, [usize; 4])> = (0..scale.times(200, 40))
        .map(|number| {
            let length = 8 + rng.below(60);
            // Every second case has ties and zeros.
            let value = |rng: &mut SimulationRng| {
                let number_drawn = rng.normal();
                if number % 2 == 0 { (2.0 * number_drawn).round() / 2.0 } else { number_drawn }
            };
            let x: Vec<f64> = (0..length).map(|_| value(&mut rng)).collect();
            let y: Vec<f64> = (0..length).map(|_| value(&mut rng) + 0.25 * f64::from(number % 3)).collect();
            let table = [(); 4].map(|()| 1 + rng.below(40));
            (x, y, table)
        })
        .collect();
    let input: Vec<Value> =
        cases.iter().map(|(x, y, table)| json!({"x": x, "y": y, "table": table})).collect();
    let Some(theirs) = ask("N4", &input.into()) else { return Vec::new() };
    let difference = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<f64>>();
    type Test<'a> = (&'a str, &'a dyn Fn(&(Vec<f64>, Vec<f64>, [usize; 4])) -> Tails);
    let tests: [Test<'_>; 4] = [
        ("t", &|(x, y, _)| classical::paired_t(&difference(x, y))),
        ("mann_whitney", &|(x, y, _)| classical::mann_whitney(x, y)),
        ("wilcoxon", &|(x, y, _)| classical::wilcoxon(&difference(x, y))),
        ("fisher", &|(_, _, table)| classical::fisher(*table)),
    ];
    let mut rows = Vec::new();
    for (name, test) in tests {
        let mut off: f64 = 0.0;
        for (case, answer) in cases.iter().zip(theirs.as_array().expect("a list")) {
            let tails = test(case);
            let ours = [tails.less, tails.greater, tails.both];
            let wanted =
                ["less", "greater", "two-sided"].map(|tail| answer[name][tail].as_f64().expect("a number"));
            off = off.max(worst(&ours, &wanted));
        }
        rows.push(row("N4", format!("{name} against SciPy, {} samples", cases.len()), 1e-9, "abs", off));
    }
    rows
}

/// N5: boundaries of four equal looks, given by DECISION 1.5.
pub(crate) fn n5() -> Vec<Row> {
    let fractions = [0.25, 0.5, 0.75, 1.0];
    let published = [(0.05, [3.7496, 2.5399, 2.0161, 1.7202]), (0.04, [3.9444, 2.6815, 2.1305, 1.8182])];
    let off = published.map(|(alpha, wanted)| worst(&spending::boundaries(alpha, &fractions), &wanted));
    let figure =
        "O'Brien-Fleming boundaries of four looks, alpha .05 and .04, against the published ones".to_owned();
    vec![row("N5", figure, 2e-3, "abs", off[0].max(off[1]))]
}

/// N9: capital of a bet on the mean.
pub(crate) fn n9() -> Vec<Row> {
    let mut rng = SimulationRng::new("N9", 0);
    let lists: Vec<(Vec<f64>, f64)> = (0..20)
        .map(|number| {
            let mean = 0.2 + 0.03 * f64::from(number);
            let values = (0..200).map(|_| rng.beta(mean, 2.0)).collect();
            (values, 0.1 + 0.8 * rng.uniform())
        })
        .collect();
    let truncation = 0.5;
    let input: Vec<Value> =
        lists.iter().map(|(values, mean)| json!({"values": values, "mean": *mean})).collect();
    let Some(theirs) = ask("N9", &json!({"lists": input, "truncation": truncation})) else {
        return Vec::new();
    };
    let mut off: f64 = 0.0;
    for ((values, null), answer) in lists.iter().zip(theirs["paths"].as_array().expect("a list")) {
        for (side, name) in [(Side::Above, "above"), (Side::Below, "below")] {
            let ours = log_wealth(values, *null, side, truncation);
            let wanted = numbers(&answer[name]);
            let scale = wanted.iter().fold(1.0_f64, |most, value| most.max(value.abs()));
            off = off.max(worst(&ours, &wanted) / scale);
        }
    }
    let source = theirs["source"].as_str().unwrap_or("");
    vec![row("N9", format!("log wealth of aGRAPA bets against {source}, 20 paths of 200"), 1e-9, "rel", off)]
}

/// N6: all sign flips.
pub(crate) fn n6() -> Vec<Row> {
    let mut rng = SimulationRng::new("N6", 0);
    let lists: Vec<Vec<f64>> =
        (3..=15).map(|length| (0..length).map(|_| rng.normal() - 0.3).collect()).collect();
    let ours = lists.iter().map(|list| {
        let tables: Vec<[f64; 2]> = list.iter().map(|contrast| [*contrast, -contrast]).collect();
        Tables::new(tables.iter().map(<[f64; 2]>::as_slice)).p_value(StreamKey::new(1, "N6"))
    });
    let ours: Vec<f64> = ours.collect();
    let Some(theirs) = ask("N6", &json!(lists)) else { return Vec::new() };
    let figure = "all sign flips of 3 to 15 contrasts against scipy.stats.permutation_test".to_owned();
    vec![row("N6", figure, 1e-12, "abs", worst(&ours, &numbers(&theirs)))]
}

/// N8: Gaffke's bound against the Dirichlet-weighted mean whose quantile it is.
pub(crate) fn n8(scale: Scale) -> Vec<Row> {
    let mut rng = SimulationRng::new("N8", 0);
    let draws = scale.times(1_000_000, 100_000);
    let samples: Vec<Vec<f64>> = (0..8)
        .map(|number| {
            let length = 20 + 20 * number;
            let share = 0.01 + 0.02 * float(number % 4);
            (0..length)
                .map(|_| if rng.happens(share) { -0.2 - 0.8 * rng.uniform() } else { 0.1 * rng.uniform() })
                .collect()
        })
        .collect();
    let cases: Vec<Value> = samples
        .iter()
        .map(|contrasts| json!({"contrasts": contrasts, "margin": 0.05, "low": -1.0}))
        .collect();
    let Some(theirs) = ask("N8", &json!({"cases": cases, "draws": draws})) else { return Vec::new() };
    let theirs = numbers(&theirs);
    let ours: Vec<f64> = samples.iter().map(|contrasts| Sample::new(contrasts, -1.0).p_value(0.05)).collect();
    let small = |ours: &[f64]| -> Vec<f64> {
        ours.iter().zip(&theirs).filter(|(_, theirs)| **theirs <= 0.1).map(|(ours, _)| *ours).collect()
    };
    // Four standard errors of the draws themselves.
    let noise = 4.0 * (0.1 * 0.9 / f64::from(draws)).sqrt();
    let (near, all) = (worst(&small(&ours), &small(&theirs)), worst(&ours, &theirs));
    let limit = noise.max(0.004);
    vec![Row {
        id: "N8",
        figure: format!("Gaffke's p against {draws} Dirichlet draws, 8 samples of 20 to 160"),
        required: format!("abs <= {limit:.3} where p <= .1"),
        measured: format!("{near:.1e} (at any p {all:.1e})"),
        standing: Standing::of(near <= limit),
    }]
}

/// Outcomes of one arm, session by session.
type Arm = Vec<Vec<u8>>;

/// P-value of the block test against brute force in NumPy, besides the figures of the table.
pub(crate) fn block_test(scale: Scale) -> Vec<Row> {
    let mut rng = SimulationRng::new("block", 0);
    let draws = scale.times(400_000, 20_000);
    let mut trials = |mean: f64| -> Vec<Vec<u8>> {
        (0..30).map(|_| (0..3).map(|_| u8::from(rng.happens(mean))).collect()).collect()
    };
    let samples: Vec<(Arm, Arm)> =
        [(0.9, 0.8), (0.7, 0.6), (0.5, 0.3)].map(|(before, after)| (trials(before), trials(after))).into();
    let input: Vec<Value> = samples
        .iter()
        .map(|(before, after)| json!({"before": before, "after": after, "draws": draws}))
        .collect();
    let Some(theirs) = ask("block", &input.into()) else { return Vec::new() };
    let theirs = numbers(&theirs);
    let policy = super::policy(super::SUCCESS);
    let outcomes = |lane: &[Vec<u8>]| -> crate::table::Table {
        let of = |trials: &Vec<u8>| trials.iter().map(|one| crate::table::Outcome::of(*one == 1)).collect();
        lane.iter().map(of).collect()
    };
    let ours: Vec<f64> = samples
        .iter()
        .map(|(before, after)| {
            let verdict = super::decide(&policy, &(outcomes(before), outcomes(after)), &mut rng);
            verdict.metrics[0].p_block
        })
        .collect();
    // Both sides are drawn: four standard errors of each at p = .15.
    let noise = 4.0 * (0.15 * 0.85 * (1.0 / f64::from(draws) + 1.0 / 19_999.0)).sqrt();
    let pairs = ours.iter().zip(&theirs).filter(|(_, theirs)| **theirs < 0.15);
    let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    vec![Row {
        id: "N6",
        figure: format!("within-session relabelling, studentised, against {draws} draws in NumPy"),
        required: format!("abs <= {noise:.3} (both are drawn)"),
        measured: format!("{off:.1e}"),
        standing: Standing::of(off <= noise),
    }]
}

/// All numerical figures.
pub(crate) fn all(scale: Scale) -> Vec<Row> {
    let mut rows = n1(scale);
    rows.extend(n2());
    rows.extend(n3());
    rows.extend(n4(scale));
    rows.extend(n5());
    rows.extend(n6());
    rows.extend(n9());
    rows.extend(block_test(scale));
    rows.extend(n8(scale));
    rows
}

#[test]
fn numbers_agree_with_scipy_statsmodels_and_numpy() {
    if crate::reference::python().is_some() {
        demand(&all(Scale::Short));
    }
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_numbers() {
    all(Scale::full()).iter().for_each(Row::print);
}
