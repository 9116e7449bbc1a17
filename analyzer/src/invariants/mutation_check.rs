//! Mutation check: whether an invariant can fail on these sessions. Each rule is checked on changed baseline trials.
//!
//! A rule that no changed trial breaks, because it names a tool that never occurs or a schema that accepts everything,
//! asserts nothing on these sessions. Keeping it would look like a pass.

use super::mutants::{self, Probe};
use super::{Check, Invariant};
use crate::run::TrialRecord;
use crate::stats::stream::StreamKey;
use crate::verdict::MutationCheck;

/// Number of trials that each rule is tried on.
const TRIALS_PER_RULE: usize = 16;

/// Tries every rule of an invariant on baseline trials, starting at a position drawn by the seed.
pub(super) fn probe(invariant: &Invariant<'_>, baseline: &[&TrialRecord], seed: u64) -> MutationCheck {
    let mut result = MutationCheck { vacuous: true, ..MutationCheck::default() };
    let probes = mutants::probes(invariant);
    let single = probes.len() == 1;
    for one in &probes {
        let start = start(invariant.name(), &one.rule, baseline.len(), seed);
        let (mutants, failed) = try_rule(invariant, one, baseline, start);
        result.mutants += mutants;
        result.killed += failed;
        if failed > 0 {
            result.vacuous = false;
        } else {
            let what = if single && one.rule.is_empty() { "it" } else { one.rule.as_str() };
            let why =
                if mutants == 0 { "it applies to no baseline trial" } else { "no changed trial breaks it" };
            result.vacuous_rules.push(format!("{what}: {why}"));
        }
    }
    result
}

fn start(name: &str, rule: &str, trials: usize, seed: u64) -> usize {
    let below = u32::try_from(trials.max(1)).unwrap_or(u32::MAX);
    let drawn = StreamKey::new(seed, &format!("mutation check {name} {rule}")).stream(0).below(below);
    drawn as usize
}

/// Number of mutants tried, and number of mutants that broke the rule.
fn try_rule(
    invariant: &Invariant<'_>,
    probe: &Probe<'_>,
    baseline: &[&TrialRecord],
    start: usize,
) -> (u64, u64) {
    let (before, after) = baseline.split_at(start.min(baseline.len()));
    let breaks = |record: &TrialRecord| match invariant.check(record) {
        Check::Broken(violations) => violations.iter().any(|violation| (probe.expect)(violation)),
        Check::Kept | Check::Redacted(_) | Check::Unchecked => false,
    };
    let (mut tried, mut mutants, mut failed) = (0, 0, 0);
    for record in after.iter().chain(before) {
        let changed = (probe.mutate)(record);
        // A trial that breaks the rule unchanged shows nothing about the mutation.
        if changed.is_empty() || breaks(record) {
            continue;
        }
        mutants += crate::cast::to_u64(changed.len());
        failed += crate::cast::to_u64(changed.iter().filter(|mutant| breaks(mutant)).count());
        tried += 1;
        if tried == TRIALS_PER_RULE {
            break;
        }
    }
    (mutants, failed)
}
