//! The shape of an envelope as it is written; [`super::Envelope`] is what it is parsed into.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnvelopeFile {
    pub(super) envelope: Spanned<i64>,
    pub(super) agent: Option<String>,
    pub(super) version: Option<String>,
    #[serde(rename = "owner")]
    pub(super) _owner: Option<BTreeMap<String, String>>,
    /// What the tap does; a check of trials is the same in both.
    #[serde(rename = "mode")]
    pub(super) _mode: Option<ModeFile>,
    #[serde(rename = "on_internal_error")]
    pub(super) _on_internal_error: Option<UndeclaredFile>,
    pub(super) identity: Option<Spanned<Value>>,
    #[serde(default)]
    pub(super) defaults: DefaultsFile,
    #[serde(default)]
    pub(super) session: BTreeMap<String, Spanned<SetFile>>,
    #[serde(default)]
    pub(super) tool: Vec<ToolFile>,
    pub(super) data: Option<Spanned<Value>>,
    pub(super) output: Option<OutputFile>,
    pub(super) breaker: Option<Spanned<Value>>,
    pub(super) classify: Option<Spanned<Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeFile {
    Observe,
    Enforce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UndeclaredFile {
    Deny,
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EffectFile {
    Read,
    Write,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsFile {
    pub(super) undeclared_tool: Option<UndeclaredFile>,
    pub(super) undeclared_argument: Option<UndeclaredFile>,
    pub(super) max_calls_per_session: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetFile {
    pub(super) from: Vec<Spanned<SourceFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceFile {
    pub(super) tool: Option<String>,
    pub(super) arg: Option<String>,
    pub(super) result: Option<String>,
    pub(super) result_pattern: Option<String>,
    pub(super) turn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToolFile {
    pub(super) name: Spanned<String>,
    pub(super) effect: Option<EffectFile>,
    pub(super) reversible: Option<bool>,
    pub(super) undeclared_argument: Option<UndeclaredFile>,
    pub(super) args_schema: Option<Spanned<Value>>,
    pub(super) result_schema: Option<Spanned<Value>>,
    #[serde(default)]
    pub(super) bound: Vec<Spanned<BoundFile>>,
    pub(super) require: Option<Spanned<Value>>,
    pub(super) approve: Option<Spanned<Value>>,
    pub(super) approval: Option<Spanned<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BoundFile {
    pub(super) id: String,
    pub(super) arg: Option<String>,
    #[serde(rename = "in")]
    pub(super) within: Option<Value>,
    pub(super) min: Option<Value>,
    pub(super) max: Option<Value>,
    pub(super) sum: Option<String>,
    pub(super) unique: Option<Vec<String>>,
    pub(super) per: Option<String>,
    #[serde(default)]
    pub(super) optional: bool,
    pub(super) mode: Option<ModeFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputFile {
    pub(super) schema: Option<Spanned<Value>>,
    pub(super) max_bytes: Option<Spanned<i64>>,
    pub(super) forbid_detectors: Option<Spanned<Value>>,
}
