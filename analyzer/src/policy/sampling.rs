//! How the sessions were sampled: the units that are independent, and the shares of the traffic that slices have.

use std::collections::BTreeMap;

use serde::Serialize;

/// Unit that is sampled independently of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterKey {
    /// The `cluster` of the trials where they have one, else the case.
    #[default]
    Trials,
    /// The case, whatever the trials say.
    None,
    /// The value of this slice.
    Slice(String),
    /// The text of the first user turn.
    Opening,
}

impl ClusterKey {
    /// Reads the value of `sampling.cluster`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "trials" => Some(Self::Trials),
            "none" => Some(Self::None),
            "opening" => Some(Self::Opening),
            _ => text
                .strip_prefix("slice:")
                .filter(|name| !name.is_empty())
                .map(|name| Self::Slice(name.to_owned())),
        }
    }
}

/// Consequence of runs that were made apart: no batch holds trials of both lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunsApart {
    /// The verdict says so and decides.
    #[default]
    Flag,
    /// Neither approval nor block.
    Refuse,
}

/// How the sessions were sampled.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SamplingPolicy {
    /// Unit that is sampled independently of the others.
    pub cluster: ClusterKey,
    /// Consequence of runs that were made apart.
    pub runs_apart: RunsApart,
}

/// Shares of the traffic by the values of a slice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrafficPolicy {
    /// Name of the slice.
    pub slice: String,
    /// Share of each value. What is left of 1 belongs to all other values together.
    pub shares: BTreeMap<String, f64>,
}
