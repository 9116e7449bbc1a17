//! Order in which cases are looked at: seeded and stratified by slices, so that each look resembles the whole corpus.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::CaseId;

use crate::policy::{ClusterKey, Policy};
use crate::stats::stream::StreamKey;

/// Cases of one stratum, each after the number drawn for it.
type Stratum<'a> = Vec<(u64, &'a CaseId)>;

/// Orders cases by a seeded permutation stratified by their slices. Any prefix of the order contains each combination
/// of slices in about its share. The order depends only on seed, ids and slices.
#[must_use]
pub fn seeded_order<'a, S>(cases: impl IntoIterator<Item = (&'a CaseId, S)>, seed: u64) -> Vec<CaseId>
where
    S: IntoIterator<Item = (&'a str, &'a str)>,
{
    let key = StreamKey::new(seed, "order of cases");
    let mut strata: BTreeMap<Vec<(&str, &str)>, Stratum<'_>> = BTreeMap::new();
    for (case, slices) in cases {
        let mut stratum: Vec<(&str, &str)> = slices.into_iter().collect();
        stratum.sort_unstable();
        strata.entry(stratum).or_default().push((draw(&key, case), case));
    }
    let mut placed = Vec::new();
    for mut cases in strata.into_values() {
        cases.sort_unstable();
        let size = crate::stats::variance::float(cases.len());
        for (rank, (drawn, case)) in cases.into_iter().enumerate() {
            // A random position within the case's own interval.
            let within = crate::cast::to_f64(drawn >> 32) / 4_294_967_296.0;
            placed.push(((crate::stats::variance::float(rank) + within) / size, drawn, case));
        }
    }
    placed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(b.2)));
    placed.into_iter().map(|(_, _, case)| case.clone()).collect()
}

/// Order of the cases before any trial, as [`seeded_order`]; where the policy names the clusters by a slice, the cases
/// of a cluster follow each other. With the order comes the number of clusters, or of cases where no slice names them.
#[must_use]
pub fn planned_order<'a>(
    policy: &Policy,
    cases: &[(&'a CaseId, Vec<(&'a str, &'a str)>)],
    seed: u64,
) -> (Vec<CaseId>, usize) {
    let all = cases.iter().map(|(case, slices)| (*case, slices.clone()));
    let ClusterKey::Slice(name) = &policy.sampling.cluster else {
        return (seeded_order(all, seed), cases.len());
    };
    let value =
        |slices: &[(&'a str, &'a str)]| slices.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
    let clusters: BTreeMap<&CaseId, &str> =
        cases.iter().filter_map(|(case, slices)| Some((*case, value(slices)?))).collect();
    let distinct: BTreeSet<&str> = clusters.values().copied().collect();
    let order = clustered_order(all, |case| clusters.get(case).copied(), seed);
    (order, distinct.len() + cases.len() - clusters.len())
}

/// As [`seeded_order`], but the cases of a cluster follow each other: the clusters are ordered by their first case. A
/// case of no cluster is one of its own.
#[must_use]
pub(crate) fn clustered_order<'a, S, C: Ord>(
    cases: impl IntoIterator<Item = (&'a CaseId, S)>,
    cluster: impl Fn(&CaseId) -> Option<C>,
    seed: u64,
) -> Vec<CaseId>
where
    S: IntoIterator<Item = (&'a str, &'a str)>,
{
    let mut first = Vec::new();
    let mut members: BTreeMap<&CaseId, Vec<&CaseId>> = BTreeMap::new();
    let mut known: BTreeMap<C, &CaseId> = BTreeMap::new();
    for (case, slices) in cases {
        let head = cluster(case).map_or(case, |cluster| *known.entry(cluster).or_insert(case));
        if head == case {
            first.push((case, slices));
        }
        members.entry(head).or_default().push(case);
    }
    let order = seeded_order(first, seed);
    order.iter().flat_map(|head| members.remove(head).unwrap_or_default()).cloned().collect()
}

fn draw(key: &StreamKey, case: &CaseId) -> u64 {
    let digest = blake3::keyed_hash(key.bytes(), case.as_str().as_bytes());
    let (first, _) = digest.as_bytes().split_first_chunk::<8>().expect("a digest has 32 bytes");
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(count: usize) -> Vec<(CaseId, String)> {
        let slice = |number: usize| if number.is_multiple_of(10) { "rare" } else { "common" };
        (0..count)
            .map(|number| (CaseId::parse(&format!("case-{number}")).expect("id"), slice(number).to_owned()))
            .collect()
    }

    fn order(cases: &[(CaseId, String)], seed: u64) -> Vec<CaseId> {
        seeded_order(cases.iter().map(|(case, slice)| (case, [("tier", slice.as_str())])), seed)
    }

    #[test]
    fn every_part_of_the_order_has_its_share_of_each_slice() {
        let cases = cases(400);
        let rare = |case: &CaseId| cases.iter().any(|(held, slice)| held == case && slice == "rare");
        let ordered = order(&cases, 5);
        for part in ordered.chunks(100) {
            let count = part.iter().filter(|case| rare(case)).count();
            assert!((9..=11).contains(&count), "{count} of 100 are rare");
        }
    }

    #[test]
    fn the_cases_of_a_cluster_follow_each_other() {
        let cases = cases(60);
        let users: Vec<String> = (0..60).map(|number| format!("user-{}", number % 12)).collect();
        let sliced: Vec<(&CaseId, Vec<(&str, &str)>)> =
            cases.iter().zip(&users).map(|((case, _), user)| (case, vec![("user", user.as_str())])).collect();
        let policy = Policy::parse("[sampling]\ncluster = \"slice:user\"").expect("a policy");
        let (order, clusters) = planned_order(&policy, &sliced, 3);
        assert_eq!((order.len(), clusters), (60, 12));
        let user = |case: &CaseId| {
            let place = cases.iter().position(|(held, _)| held == case).expect("a case");
            users[place].clone()
        };
        let changes = order.windows(2).filter(|pair| user(&pair[0]) != user(&pair[1])).count();
        assert_eq!(changes, 11);
        assert_eq!(planned_order(&Policy::default(), &sliced, 3).1, 60);
    }

    #[test]
    fn the_order_depends_on_the_seed_and_not_on_the_input() {
        let cases = cases(60);
        let mut turned = cases.clone();
        turned.reverse();
        assert_eq!(order(&cases, 1), order(&turned, 1));
        assert_ne!(order(&cases, 1), order(&cases, 2));
    }
}
