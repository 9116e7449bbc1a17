//! Drift map: the mean answers of every case in both lanes, projected on a plane.
//!
//! The plane is spanned by the two largest principal components of the means, so it mostly shows the topics of the
//! sessions. The distance between a case's two points shows its drift.

use crate::stats::kernel::{CaseResult, Groups};
use crate::stats::stream::StreamKey;

/// Largest number of power iterations; a chart needs no more digits.
const ROUNDS: u32 = 60;

/// Change of a direction below which the iteration stops.
const STILL: f64 = 1e-7;

/// Mean answers of the cases on a plane.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DriftMap {
    /// One point per case, by case id.
    pub points: Vec<DriftPoint>,
    /// Share of the variance of all means that the first and the second axis show.
    pub explained: [f64; 2],
}

/// A case on the drift map.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftPoint {
    /// Id of the case.
    pub case: String,
    /// Mean of the baseline's answers.
    pub baseline: [f64; 2],
    /// Mean of the candidate's answers.
    pub candidate: [f64; 2],
    /// Drift of the case: distance between the lanes beyond the distance within them, cosine distance.
    pub drift: f64,
    /// Share of the case's permutations with a distance at least as large.
    pub p: f64,
}

/// Projects the means of all cases.
pub(super) fn project(groups: &Groups, cases: &[&str], results: &[CaseResult], seed: u64) -> DriftMap {
    let mut rows: Vec<Vec<f64>> = (0..groups.len()).flat_map(|case| groups.means(case)).collect();
    centre(&mut rows);
    let total: f64 = rows.iter().flatten().map(|value| value * value).sum();
    let mut stream = StreamKey::new(seed, "drift map").stream(0);
    let mut axes: Vec<Vec<f64>> = Vec::new();
    for _ in 0..2 {
        let start = (0..groups.dimension())
            .map(|_| f64::from(stream.next_u32()) / f64::from(u32::MAX) - 0.5)
            .collect();
        axes.push(axis(&rows, &axes, start));
    }
    let place = |row: &[f64]| [dot(row, &axes[0]), dot(row, &axes[1])];
    let places: Vec<[f64; 2]> = rows.iter().map(|row| place(row)).collect();
    let shown = |axis: usize| {
        let squares: f64 = places.iter().map(|place| place[axis] * place[axis]).sum();
        if total > 0.0 { squares / total } else { 0.0 }
    };
    let point = |(number, (case, result)): (usize, (&&str, &CaseResult))| DriftPoint {
        case: (*case).to_owned(),
        baseline: places[2 * number],
        candidate: places[2 * number + 1],
        drift: result.observed.apart(),
        p: result.p,
    };
    let points = cases.iter().zip(results).enumerate().map(point).collect();
    DriftMap { points, explained: [shown(0), shown(1)] }
}

fn centre(rows: &mut [Vec<f64>]) {
    let Some(first) = rows.first() else { return };
    let mut mean = vec![0.0; first.len()];
    for row in rows.iter() {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    let count = crate::stats::variance::float(rows.len());
    mean.iter_mut().for_each(|sum| *sum /= count);
    for row in rows.iter_mut() {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
}

/// Direction of the largest variance perpendicular to the axes found, of length 1; 0 if there is none.
fn axis(rows: &[Vec<f64>], found: &[Vec<f64>], start: Vec<f64>) -> Vec<f64> {
    let mut axis = start;
    if !straighten(&mut axis, found) {
        return axis;
    }
    for _ in 0..ROUNDS {
        let mut next = vec![0.0; axis.len()];
        for row in rows {
            let along = dot(row, &axis);
            next.iter_mut().zip(row).for_each(|(sum, value)| *sum += along * value);
        }
        if !straighten(&mut next, found) {
            return next;
        }
        let turned = axis.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        axis = next;
        if turned < STILL {
            break;
        }
    }
    // The sign of an axis is arbitrary; its largest entry is made positive.
    let largest =
        axis.iter().copied().fold(0.0_f64, |held, value| if value.abs() > held.abs() { value } else { held });
    if largest < 0.0 {
        axis.iter_mut().for_each(|value| *value = -*value);
    }
    axis
}

/// Makes a vector perpendicular to the axes found and of length 1. If nothing is left, the vector becomes 0 and the
/// result is `false`.
fn straighten(axis: &mut [f64], found: &[Vec<f64>]) -> bool {
    let before = dot(axis, axis).sqrt();
    for other in found {
        let along = dot(axis, other);
        axis.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
    }
    let length = dot(axis, axis).sqrt();
    if length <= 1e-12 * before || length <= f64::MIN_POSITIVE {
        axis.fill(0.0);
        return false;
    }
    axis.iter_mut().for_each(|value| *value /= length);
    true
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (left, left_rest) = a.as_chunks::<8>();
    let (right, right_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for (x, y) in left.iter().zip(right) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f64>() + left_rest.iter().zip(right_rest).map(|(x, y)| x * y).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::kernel::{self, Relabelling};

    #[test]
    fn the_plane_shows_the_two_largest_spreads() {
        // Cases spread over 10 along the third entry, 3 along the first, and a hair along the others.
        let mut groups = Groups::new(4);
        let names: Vec<String> = (0..30).map(|case| format!("c{case:02}")).collect();
        for case in 0..30_u8 {
            let (far, near) = (f32::from(case % 6) * 2.0, f32::from(case % 5) * 0.7);
            let before = [near, 0.001, far, 0.0];
            let after = [near + 1.0, 0.0, far, 0.001];
            groups.push(&[&before, &before], &[&after, &after]).expect("a case");
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let results = kernel::test(&groups, Relabelling::Trials, 1).cases;
        let map = project(&groups, &names, &results, 1);
        assert_eq!((map.points.len(), map.points[7].case.as_str()), (30, "c07"));
        assert!(map.explained[0] > 0.8 && map.explained.iter().sum::<f64>() > 0.999, "{:?}", map.explained);
        let step = map.points[0].candidate[1] - map.points[0].baseline[1];
        assert!((step - 1.0).abs() < 1e-3, "the change of the first number is the second axis: {step}");
        assert!((map.points[0].drift - 0.5).abs() < 1e-5);
        assert_eq!(map, project(&groups, &names, &results, 1));
    }

    #[test]
    fn equal_answers_have_no_plane_and_no_failure() {
        let mut groups = Groups::new(2);
        let same = [1.0_f32, 0.0];
        groups.push(&[&same, &same], &[&same, &same]).expect("a case");
        let results = kernel::test(&groups, Relabelling::Trials, 1).cases;
        let map = project(&groups, &["c"], &results, 1);
        assert_eq!((map.points[0].baseline, map.explained), ([0.0, 0.0], [0.0, 0.0]));
    }
}
