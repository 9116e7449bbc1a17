//! Kernel two-sample tests of embedded answers, paired by session.
//!
//! Trials are relabelled only within their session, so the topics of the sessions cannot look like a change (DECISION
//! 1.9). Three statistics detect different changes, and a fourth serves arms with a single trial:
//!
//! - [`Statistic::Within`]: sum over sessions of the unbiased squared maximum mean discrepancy with a Gaussian kernel,
//!   whose bandwidth is the median distance within sessions (invariant under relabelling): each session's own change.
//!
//! - [`Statistic::Cross`]: |sum of g|^2 - sum of |g|^2, g the difference of mean vectors of a session: a change in one
//!   direction common to the sessions.
//!
//! - [`Statistic::Dispersion`]: sum of the mean distance within the baseline minus within the candidate, either sign.
//!
//! - [`Statistic::Single`]: for sessions with one trial in an arm (a recording), its mean distance to the others minus
//!   that among the others; the position of the single trial is exchangeable (DECISION 1.7).
//!
//! A change of answers is evidence of change, not of harm.

use crate::stats::kernel::joint::{Joint, Source};
use crate::stats::kernel::tables::{CaseTables, Distances};
use crate::stats::labels::Relabeller;
use crate::stats::saddlepoint::SumOfDraws;
use crate::stats::stream::StreamKey;

mod design;
mod groups;
mod joint;
mod minimum;
mod tables;
#[cfg(test)]
mod tests;

pub use design::{ENUMERATED, PERMUTATIONS, Relabelling, Statistic};
pub use groups::{GroupError, Groups};
pub use tables::Observed;

/// Relative tolerance of a tie between two statistics.
const TIE: f64 = 1e-12;

/// Relative tolerance of a tie between sums in single precision.
const TIE_SINGLE: f64 = 1e-6;

/// Smallest number of varying tables for which the saddlepoint approximation is used.
const SMOOTH: usize = 8;

/// Result of a statistic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatisticResult {
    /// The statistic.
    pub statistic: Statistic,
    /// Number of cases with this statistic.
    pub cases: usize,
    /// Observed value; signed for [`Statistic::Dispersion`].
    pub value: f64,
    /// Probability of a value as extreme by relabelling alone: from the exact null distribution by saddlepoint if that
    /// is smooth, else from the evaluated relabellings.
    pub p: f64,
    /// The same probability from the evaluated relabellings, the observed one included.
    pub p_permutation: f64,
}

/// Results of all statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTest {
    /// Bandwidth of the kernel: median distance of two trials of one session; 0 if nothing differs.
    pub bandwidth: f64,
    /// Number of relabellings evaluated, the observed one included.
    pub relabellings: usize,
    /// Whether all relabellings were evaluated.
    pub is_exact: bool,
    /// Statistics that these cases allow, in the order of [`Statistic::ALL`].
    pub statistics: Vec<StatisticResult>,
    /// Westfall-Young min-p: probability, by relabelling alone, that the smallest p is at most this small.
    pub p_min: f64,
    /// Results by case, in input order.
    pub cases: Vec<CaseResult>,
}

/// Results of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaseResult {
    /// Observed mean distances: half the squared distance, which is the cosine distance for vectors of length 1.
    pub observed: Observed,
    /// Share of the case's own relabellings with a distance between the arms at least as large; 1 without a table.
    pub p: f64,
}

/// Runs every test that the cases allow. `seed` keys the relabellings. The result depends neither on threads nor on
/// the order of trials within an arm.
#[must_use]
pub fn test(groups: &Groups, relabelling: Relabelling, seed: u64) -> KernelTest {
    let distances = Distances::new(groups);
    let tables = tables::all(groups, &distances, &relabeller(groups, seed), relabelling);
    let key = StreamKey::new(seed, "kernel permutations");
    let joint = Source { groups, tables: &tables, relabelling, key }.joint();
    let shares: Vec<(Statistic, Vec<f64>)> = Statistic::ALL
        .into_iter()
        .filter(|statistic| !joint.values[statistic.place()].is_empty())
        .map(|statistic| {
            (statistic, minimum::shares(&joint.values[statistic.place()], slack(statistic, &joint)))
        })
        .collect();
    let statistics = shares.iter().map(|(statistic, shares)| result(*statistic, shares[0], &joint, &tables));
    let statistics = statistics.collect();
    let shares: Vec<Vec<f64>> = shares.into_iter().map(|(_, shares)| shares).collect();
    KernelTest {
        bandwidth: (2.0 * distances.median).sqrt(),
        relabellings: shares.first().map_or(0, Vec::len),
        is_exact: joint.exact,
        statistics,
        p_min: minimum::p_of_smallest(&shares),
        cases: tables.iter().map(case_result).collect(),
    }
}

/// The within-session test alone: statistic and saddlepoint p; `None` if no case has two trials in both arms. It draws
/// no permutation, so hundreds of cases take some milliseconds.
#[must_use]
pub fn within(groups: &Groups, seed: u64) -> Option<(f64, f64)> {
    let distances = Distances::new(groups);
    let tables = tables::within(groups, &distances, &relabeller(groups, seed));
    let filled = tables.iter().filter(|table| !table.is_empty());
    filled.clone().next()?;
    let value: f64 = filled.clone().map(|table| table[0]).sum();
    Some((value, SumOfDraws::new(filled.map(Vec::as_slice)).at_least(value)))
}

/// Null distributions of [`Statistic::Within`] and [`Statistic::Dispersion`] on these cases, to check their tails.
#[must_use]
pub fn null_sums(groups: &Groups, seed: u64) -> [SumOfDraws; 2] {
    let distances = Distances::new(groups);
    let tables = tables::all(groups, &distances, &relabeller(groups, seed), Relabelling::Trials);
    [Statistic::Within, Statistic::Dispersion].map(|statistic| {
        let filled = tables.iter().map(|tables| tables.of(statistic)).filter(|table| !table.is_empty());
        SumOfDraws::new(filled)
    })
}

fn relabeller(groups: &Groups, seed: u64) -> Relabeller {
    let mut relabeller = Relabeller::new(StreamKey::new(seed, "kernel relabel"));
    groups.cases().iter().for_each(|case| relabeller.prepare(case.baseline, case.candidate));
    relabeller
}

fn slack(statistic: Statistic, joint: &Joint) -> f64 {
    match statistic {
        Statistic::Cross if !joint.exact => TIE_SINGLE,
        Statistic::Cross | Statistic::Within | Statistic::Dispersion | Statistic::Single => TIE,
    }
}

fn result(statistic: Statistic, p_permutation: f64, joint: &Joint, tables: &[CaseTables]) -> StatisticResult {
    let filled = tables.iter().map(|tables| tables.of(statistic)).filter(|table| !table.is_empty());
    let cases = filled.clone().count();
    let sum: f64 = filled.clone().map(|table| table[0]).sum();
    let smooth = |of: fn(&SumOfDraws, f64) -> f64| {
        let null = SumOfDraws::new(filled);
        (!joint.exact && null.varying() >= SMOOTH).then(|| of(&null, sum))
    };
    let (value, p) = match statistic {
        Statistic::Cross => (joint.values[statistic.place()][0], None),
        Statistic::Within | Statistic::Single => (sum, smooth(SumOfDraws::at_least)),
        Statistic::Dispersion => (sum, smooth(both_sides)),
    };
    StatisticResult { statistic, cases, value, p: p.unwrap_or(p_permutation), p_permutation }
}

fn both_sides(null: &SumOfDraws, value: f64) -> f64 {
    (null.at_least(value.abs()) + null.at_most(-value.abs())).min(1.0)
}

fn case_result(tables: &CaseTables) -> CaseResult {
    let table = if tables.within.is_empty() { &tables.single } else { &tables.within };
    let p = minimum::shares(table, TIE).first().copied().unwrap_or(1.0);
    CaseResult { observed: tables.observed, p }
}
