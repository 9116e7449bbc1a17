//! Whether embedded answers changed at all: kernel two-sample tests paired by session.
//!
//! Trials are relabelled only within their session, never across, so what a session is about cannot look like a change
//! (DECISION 1.9). Three statistics see different changes, and a fourth stands in where an arm has a single trial:
//!
//! - [`Statistic::Within`]: sum over sessions of the unbiased squared maximum mean discrepancy, Gaussian kernel, bandwidth
//!   the median distance within sessions (no relabelling changes it): each session's own change;
//! - [`Statistic::Cross`]: |sum of g|^2 - sum of |g|^2, g a session's difference of mean vectors: a change in one
//!   direction common to the sessions;
//! - [`Statistic::Dispersion`]: sum of mean distance within the baseline minus within the candidate, either sign;
//! - [`Statistic::Single`]: where one arm of a session has one trial (a recording), how much less it is like the others
//!   than they are like each other; which trial is the lone one is exchangeable (DECISION 1.7).
//!
//! A change of answers is evidence of change, not of harm. Nothing here knows of runs or policies.

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

/// Relative slack within which two statistics count as tied.
const TIE: f64 = 1e-12;

/// The same for sums that were made in single precision.
const TIE_SINGLE: f64 = 1e-6;

/// With fewer tables that vary the saddlepoint is not used.
const SMOOTH: usize = 8;

/// What a statistic says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatisticResult {
    /// Which.
    pub statistic: Statistic,
    /// Cases that it says something of.
    pub cases: usize,
    /// Its value as observed; signed for [`Statistic::Dispersion`].
    pub value: f64,
    /// The probability of a value as extreme by relabelling alone: from the exact null distribution by saddlepoint where
    /// that is smooth, else from the relabellings taken.
    pub p: f64,
    /// The same from the relabellings taken, the observed one counted.
    pub p_permutation: f64,
}

/// What the tests say together.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTest {
    /// Median distance of two trials of one session, the kernel's bandwidth; 0 where nothing differs.
    pub bandwidth: f64,
    /// Relabellings taken, the observed one included.
    pub relabellings: usize,
    /// Whether these are all there are.
    pub is_exact: bool,
    /// The statistics that these cases allow, in the order of [`Statistic::ALL`].
    pub statistics: Vec<StatisticResult>,
    /// The probability, by relabelling alone, of a smallest p as small as the smallest of the statistics'.
    pub p_min: f64,
    /// Each case, in the order in which they were given.
    pub cases: Vec<CaseResult>,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CaseResult {
    /// Mean distances as observed: half the squared distance, which for vectors of length 1 is the cosine distance.
    pub observed: Observed,
    /// Share of the case's own relabellings under which its arms lie at least as far apart; 1 where it has no table.
    pub p: f64,
}

/// Runs every test that the cases allow. `seed` keys the relabellings; the result does not depend on threads nor on the
/// order of trials within an arm.
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

/// The within-session test alone: the statistic and its p by saddlepoint; `None` where no case has two trials in both
/// arms. It draws no permutation, so it costs some milliseconds for hundreds of cases.
#[must_use]
pub fn within(groups: &Groups, seed: u64) -> Option<(f64, f64)> {
    let distances = Distances::new(groups);
    let tables = tables::within(groups, &distances, &relabeller(groups, seed));
    let filled = tables.iter().filter(|table| !table.is_empty());
    filled.clone().next()?;
    let value: f64 = filled.clone().map(|table| table[0]).sum();
    Some((value, SumOfDraws::new(filled.map(Vec::as_slice)).at_least(value)))
}

/// The null distributions of [`Statistic::Within`] and [`Statistic::Dispersion`] on these cases, for checks of their tails.
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
