//! Finds the sampling unit and the weight of every case, from the policy and from the trials.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::CaseId;

use super::copies;
use super::group::{CaseUnits, Member};
use super::timing;
use crate::pairs::{PairedCase, Pairs};
use crate::policy::{ClusterKey, Policy, TrafficPolicy};
use crate::run::TrialRecord;
use crate::stats::variance::float;
use crate::verdict::{RunTiming, Sampling, SamplingUnit};

/// Share of cases with a repeated opening above which the verdict says so.
const REPEATED: f64 = 0.05;

/// Sampling units of all cases of an analysis.
#[derive(Debug)]
pub(crate) struct SamplingUnits<'a> {
    members: BTreeMap<&'a CaseId, Member>,
    pub(crate) sampling: Sampling,
    pub(crate) notes: Vec<String>,
    /// Values of the traffic's slice that have a share and no case, in words.
    pub(crate) uncovered: Vec<String>,
}

impl<'a> SamplingUnits<'a> {
    /// Finds the units of these pairs.
    pub(crate) fn new(policy: &Policy, pairs: &Pairs<'a>) -> Self {
        let mut notes = Vec::new();
        let units = clusters(policy, pairs, &mut notes);
        let (weights, uncovered) = weights(policy.traffic.as_ref(), pairs, &mut notes);
        let sampling = summary(&units, &weights, pairs);
        notes.extend(few_clusters(&sampling, policy));
        notes.extend(timing_note(sampling.runs));
        let members = pairs.cases.iter().zip(units.iter().zip(&weights));
        let members =
            members.map(|(case, (unit, weight))| (case.case, Member { unit: *unit, weight: *weight }));
        Self { members: members.collect(), sampling, notes, uncovered }
    }

    /// Units of the cases of a look.
    pub(crate) fn of(&self, pairs: &Pairs<'_>) -> CaseUnits {
        let alone = |place| Member { unit: self.members.len() + place, weight: 1.0 };
        let member = |(place, case): (usize, &PairedCase<'_>)| {
            self.members.get(case.case).copied().unwrap_or(alone(place))
        };
        CaseUnits {
            members: pairs.cases.iter().enumerate().map(member).collect(),
            clustered: self.is_clustered(),
            weighted: self.sampling.weighted,
        }
    }

    pub(crate) fn is_clustered(&self) -> bool {
        self.sampling.unit == SamplingUnit::Cluster
    }

    /// Unit of a case, if it is known.
    pub(crate) fn unit(&self, case: &CaseId) -> Option<usize> {
        self.members.get(case).map(|member| member.unit)
    }
}

// === clusters ===

/// Sets of cases that were joined (union-find).
struct Joined(Vec<usize>);

impl Joined {
    fn root(&self, place: usize) -> usize {
        let mut root = place;
        while self.0[root] != root {
            root = self.0[root];
        }
        root
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        // The smaller index stays the root, so that the result does not depend on the order of the joins.
        self.0[a.max(b)] = a.min(b);
    }
}

fn trials<'p, 'a>(case: &'p PairedCase<'a>) -> impl Iterator<Item = &'a TrialRecord> + use<'p, 'a> {
    let own = case.baseline.trials.iter().chain(&case.candidate.trials).copied();
    own.chain(case.recorded_any)
}

/// Root of each case's unit, by index of the case.
fn clusters(policy: &Policy, pairs: &Pairs<'_>, notes: &mut Vec<String>) -> Vec<usize> {
    let mut joined = Joined((0..pairs.cases.len()).collect());
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut several, mut without) = (0, 0);
    for (place, case) in pairs.cases.iter().enumerate() {
        let keys: BTreeSet<&str> = match &policy.sampling.cluster {
            ClusterKey::Trials => trials(case).filter_map(|record| record.trial.cluster.as_deref()).collect(),
            ClusterKey::None => BTreeSet::new(),
            ClusterKey::Slice(name) => case.slices.get(name.as_str()).copied().into_iter().collect(),
            ClusterKey::Opening => trials(case)
                .filter_map(|record| record.user_turns.first())
                .map(|turn| turn.text.as_str())
                .collect(),
        };
        several += usize::from(keys.len() > 1);
        without += usize::from(keys.is_empty());
        for key in keys {
            joined.join(place, *first.entry(key).or_insert(place));
        }
    }
    if several > 0 {
        notes.push(format!("{several} cases have trials of several clusters, which count as one cluster"));
    }
    if !first.is_empty() && without > 0 {
        notes.push(format!("{without} cases have no cluster; each counts as a cluster of its own"));
    }
    if first.is_empty() && !matches!(policy.sampling.cluster, ClusterKey::Trials | ClusterKey::None) {
        let key = match &policy.sampling.cluster {
            ClusterKey::Slice(name) => format!("slice {name}"),
            _ => "user turn".to_owned(),
        };
        notes.push(format!(
            "sampling.cluster finds no cluster: no case has a {key}, so every case counts as independent"
        ));
    }
    if policy.sampling.cluster != ClusterKey::None {
        join_copies(pairs, &mut joined, notes);
        notes.extend(repeated_openings(pairs, &joined));
    }
    (0..pairs.cases.len()).map(|place| joined.root(place)).collect()
}

/// Note that independent cases open with the same words. Traffic repeats itself, so this alone makes no cluster.
fn repeated_openings(pairs: &Pairs<'_>, joined: &Joined) -> Option<String> {
    let mut units: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut cases = 0;
    for (place, case) in pairs.cases.iter().enumerate() {
        let texts: BTreeSet<&str> = trials(case)
            .filter_map(|record| record.user_turns.first())
            .map(|turn| turn.text.as_str())
            .collect();
        if let [text] = Vec::from_iter(texts)[..] {
            cases += 1;
            units.entry(text).or_default().insert(joined.root(place));
        }
    }
    let repeated: usize = units.values().map(|units| units.len() - 1).sum();
    (float(repeated) > REPEATED * float(cases)).then(|| {
        format!(
            "{repeated} of {cases} cases open with the same user turn as another case and count as independent; if they are copies \
             or versions of one task, name what they share: sampling.cluster = \"opening\", or a cluster of each case"
        )
    })
}

fn join_copies(pairs: &Pairs<'_>, joined: &mut Joined, notes: &mut Vec<String>) {
    let mut repeated = 0;
    let mut example = None;
    for places in copies::groups(pairs) {
        let distinct: BTreeSet<usize> = places.iter().map(|place| joined.root(*place)).collect();
        repeated += distinct.len() - 1;
        if distinct.len() > 1 {
            example.get_or_insert([pairs.cases[places[0]].case, pairs.cases[places[1]].case]);
        }
        places.iter().skip(1).for_each(|place| joined.join(places[0], *place));
    }
    if let Some([one, other]) = example {
        notes.push(format!(
            "{repeated} cases repeat another case in every outcome, duration, token count and cost ({one} and {other}); copies of \
             a case count as one independent unit"
        ));
    }
}

// === weights ===

/// Weight of each case, 1 on average, and the values of the traffic's slice without a case.
fn weights(
    traffic: Option<&TrafficPolicy>,
    pairs: &Pairs<'_>,
    notes: &mut Vec<String>,
) -> (Vec<f64>, Vec<String>) {
    let mut weights = sampled(pairs, notes);
    let mut uncovered = Vec::new();
    if let Some(traffic) = traffic {
        uncovered = post_stratify(traffic, pairs, &mut weights, notes);
    }
    let total: f64 = weights.iter().sum();
    let average = total / float(weights.len().max(1));
    if average > 0.0 && weights.iter().any(|weight| *weight != weights[0]) {
        weights.iter_mut().for_each(|weight| *weight /= average);
    } else if average > 0.0 {
        weights.fill(1.0);
    }
    (weights, uncovered)
}

/// Sampling weights of the cases' trials; 1 without any.
fn sampled(pairs: &Pairs<'_>, notes: &mut Vec<String>) -> Vec<f64> {
    let of = |case: &PairedCase<'_>| -> Vec<f64> {
        let known = trials(case).filter_map(|record| record.trial.weight);
        let mut found: Vec<f64> = known.filter(|weight| weight.is_finite() && *weight > 0.0).collect();
        found.sort_by(f64::total_cmp);
        found.dedup();
        found
    };
    let found: Vec<Vec<f64>> = pairs.cases.iter().map(of).collect();
    let known: Vec<f64> = found.iter().flat_map(|weights| weights.last()).copied().collect();
    if known.is_empty() {
        return vec![1.0; found.len()];
    }
    let without = found.len() - known.len();
    if without > 0 {
        notes.push(format!(
            "{without} cases have no sampling weight and count with the mean weight of the others"
        ));
    }
    let several = found.iter().filter(|weights| weights.len() > 1).count();
    if several > 0 {
        notes.push(format!(
            "{several} cases have trials of different sampling weights and count with the largest"
        ));
    }
    let average = known.iter().sum::<f64>() / float(known.len());
    found.iter().map(|weights| weights.last().copied().unwrap_or(average)).collect()
}

/// Multiplies the weights so that every value of the slice has its share of the traffic.
fn post_stratify(
    traffic: &TrafficPolicy,
    pairs: &Pairs<'_>,
    weights: &mut [f64],
    notes: &mut Vec<String>,
) -> Vec<String> {
    fn stratum<'c>(traffic: &TrafficPolicy, case: &PairedCase<'c>) -> Option<&'c str> {
        let value = case.slices.get(traffic.slice.as_str()).copied();
        value.filter(|value| traffic.shares.contains_key(*value))
    }
    let rest = (1.0 - traffic.shares.values().sum::<f64>()).max(0.0);
    let rest = if rest < 1e-9 { 0.0 } else { rest };
    let share = |value: Option<&str>| value.map_or(rest, |value| traffic.shares[value]);
    let total: f64 = weights.iter().sum();
    let mut sums: BTreeMap<Option<&str>, f64> = BTreeMap::new();
    for (case, weight) in pairs.cases.iter().zip(weights.iter()) {
        *sums.entry(stratum(traffic, case)).or_default() += weight;
    }
    for (case, weight) in pairs.cases.iter().zip(weights.iter_mut()) {
        let stratum = stratum(traffic, case);
        *weight *= share(stratum) * total / sums[&stratum];
    }
    let others = pairs.cases.iter().filter(|case| stratum(traffic, case).is_none()).count();
    if others > 0 && rest == 0.0 {
        notes.push(format!(
            "{others} cases have a value of slice {} to which traffic.shares gives nothing; they do not count",
            traffic.slice
        ));
    }
    let mut uncovered: Vec<String> = traffic
        .shares
        .iter()
        .filter(|(value, share)| **share > 0.0 && !sums.contains_key(&Some(value.as_str())))
        .map(|(value, share)| format!("{} = {value} ({:.1} %)", traffic.slice, 100.0 * share))
        .collect();
    if rest > 0.0 && !sums.contains_key(&None) {
        uncovered.push(format!("other values of {} ({:.1} %)", traffic.slice, 100.0 * rest));
    }
    uncovered
}

// === summary ===

fn summary(units: &[usize], weights: &[f64], pairs: &Pairs<'_>) -> Sampling {
    let mut sizes: BTreeMap<usize, (u64, f64)> = BTreeMap::new();
    for ((unit, weight), case) in units.iter().zip(weights).zip(&pairs.cases) {
        if case.is_paired() && *weight > 0.0 {
            let size = sizes.entry(*unit).or_default();
            size.0 += 1;
            size.1 += weight;
        }
    }
    let largest = sizes.values().map(|(cases, _)| *cases).max().unwrap_or(0);
    let sum: f64 = sizes.values().map(|(_, weight)| weight).sum();
    let squares: f64 = sizes.values().map(|(_, weight)| weight * weight).sum();
    Sampling {
        unit: if largest > 1 { SamplingUnit::Cluster } else { SamplingUnit::Case },
        units: crate::cast::to_u64(sizes.len()),
        largest,
        weighted: weights.iter().any(|weight| *weight != 1.0),
        effective_units: if squares > 0.0 { sum * sum / squares } else { 0.0 },
        runs: timing::judge(pairs),
    }
}

/// Note on clusters and weights: what the numbers of the verdict count.
fn few_clusters(sampling: &Sampling, policy: &Policy) -> Vec<String> {
    let mut notes = Vec::new();
    let Sampling { units, largest, effective_units, .. } = sampling;
    if sampling.unit == SamplingUnit::Cluster {
        notes.push(format!(
            "the cases belong to {units} clusters of up to {largest} cases: the tests, the bounds and the floors count clusters, \
             and the effects stay means over the cases"
        ));
        let least = 0.5_f64.powi(i32::try_from(*units).unwrap_or(i32::MAX));
        if least > policy.alpha {
            notes.push(format!(
                "with {units} clusters no difference can be shown at level {}: the smallest possible p is {least}; record sessions \
                 of more clusters, or set sampling.cluster = \"none\" if the sessions are independent",
                policy.alpha
            ));
        }
    }
    if sampling.weighted {
        let by =
            if policy.traffic.is_some() { "their shares of the traffic" } else { "their sampling weights" };
        notes.push(format!(
            "the cases are weighted by {by}: means and effects are weighted, and {units} units show as much as \
             {effective_units:.0} of equal weight"
        ));
    }
    notes
}

fn timing_note(runs: RunTiming) -> Option<String> {
    match runs {
        RunTiming::Apart => Some(
            "the runs were made apart: a shift in time of the provider or the environment cannot be told from a change of the \
             build; replay both lanes at once (`replay --baseline --candidate`, `gate`)"
                .to_owned(),
        ),
        RunTiming::Interleaved | RunTiming::Unknown => None,
    }
}
