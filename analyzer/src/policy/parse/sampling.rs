//! Reading `[sampling]` and `[traffic]`.

use std::collections::BTreeMap;

use super::section::{Result, Section, bad, missing, table_at};
use crate::policy::sampling::{ClusterKey, RunsApart, SamplingPolicy, TrafficPolicy};

const CLUSTERS: &str = "\"trials\", \"none\", \"opening\" or \"slice:NAME\"";

/// Reads `[sampling]`.
///
/// # Errors
/// A value is not allowed.
pub(super) fn read(section: &Section<'_>) -> Result<SamplingPolicy> {
    let mut sampling = SamplingPolicy::default();
    if let Some(value) = section.table.get("cluster") {
        let cluster = value.as_str().and_then(ClusterKey::parse);
        sampling.cluster = cluster.ok_or_else(|| bad(&section.at("cluster"), value, CLUSTERS))?;
    }
    if let Some(value) = section.table.get("runs-apart") {
        sampling.runs_apart = match value.as_str() {
            Some("flag") => RunsApart::Flag,
            Some("refuse") => RunsApart::Refuse,
            Some(_) | None => {
                return Err(bad(&section.at("runs-apart"), value, "\"flag\" or \"refuse\""));
            }
        };
    }
    Ok(sampling)
}

/// Reads `[traffic]`.
///
/// # Errors
/// A key is missing, or the shares are not between 0 and 1, or exceed 1 together.
pub(super) fn traffic(section: &Section<'_>) -> Result<TrafficPolicy> {
    let slice = section.required("slice", "the name of a slice, such as \"tier\"")?;
    let name = slice.as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| bad(&section.at("slice"), slice, "the name of a slice"))?;
    let expected = "a table of values of the slice and their shares, such as { gold = 0.1, free = 0.9 }";
    let at = section.at("shares");
    let value = section.required("shares", expected)?;
    let mut shares = BTreeMap::new();
    for (key, share) in table_at(value, &at)? {
        let number = share
            .as_float()
            .or_else(|| share.as_integer().and_then(|n| i32::try_from(n).ok()).map(f64::from));
        let inside = number.filter(|number| (0.0..=1.0).contains(number));
        let inside = inside.ok_or_else(|| bad(&format!("{at}.{key}"), share, "a number from 0 to 1"))?;
        shares.insert(key.clone(), inside);
    }
    if shares.is_empty() {
        return Err(missing(&at, expected));
    }
    if shares.values().sum::<f64>() > 1.0 + 1e-9 {
        return Err(bad(&at, value, "shares whose sum is at most 1"));
    }
    Ok(TrafficPolicy { slice: name.to_owned(), shares })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn clusters_and_traffic_are_read() {
        let text = "[sampling]\ncluster = \"slice:user\"\nruns-apart = \"refuse\"\n[traffic]\nslice = \"tier\"\nshares = { gold = 0.1, free = 0.9 }";
        let policy = Policy::parse(text).expect("a policy");
        assert_eq!(policy.sampling.cluster, ClusterKey::Slice("user".to_owned()));
        assert_eq!(policy.sampling.runs_apart, RunsApart::Refuse);
        assert_eq!(policy.traffic.expect("shares").shares["gold"], 0.1);
        for (text, named) in [
            ("[sampling]\ncluster = \"user\"", "sampling.cluster"),
            ("[sampling]\nruns-apart = \"no\"", "sampling.runs-apart"),
            ("[traffic]\nshares = { a = 0.5 }", "traffic.slice"),
            ("[traffic]\nslice = \"t\"\nshares = { a = 0.7, b = 0.7 }", "at most 1"),
            ("[traffic]\nslice = \"t\"\nshares = { a = 7 }", "traffic.shares.a"),
        ] {
            let error = Policy::parse(text).expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
