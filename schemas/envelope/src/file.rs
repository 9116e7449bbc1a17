//! The TOML structure of an envelope file; [`crate::Envelope`] is the parsed form.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct EnvelopeFile {
    pub(crate) envelope: Spanned<i64>,
    pub(crate) agent: Option<String>,
    pub(crate) version: Option<String>,
    #[serde(rename = "owner")]
    pub(crate) _owner: Option<BTreeMap<String, String>>,
    /// For enforcement at a gateway; the check of trials does not depend on it.
    #[serde(rename = "mode")]
    pub(crate) _mode: Option<ModeFile>,
    #[serde(rename = "on-internal-error")]
    pub(crate) _on_internal_error: Option<UndeclaredFile>,
    pub(crate) identity: Option<Spanned<Value>>,
    #[serde(default)]
    pub(crate) defaults: DefaultsFile,
    #[serde(default)]
    pub(crate) session: BTreeMap<String, Spanned<SetFile>>,
    #[serde(default)]
    pub(crate) tool: Vec<ToolFile>,
    pub(crate) data: Option<Spanned<Value>>,
    pub(crate) output: Option<OutputFile>,
    pub(crate) breaker: Option<Spanned<Value>>,
    pub(crate) classify: Option<Spanned<Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ModeFile {
    Observe,
    Enforce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UndeclaredFile {
    Deny,
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EffectFile {
    Read,
    Write,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DefaultsFile {
    pub(crate) undeclared_tool: Option<UndeclaredFile>,
    pub(crate) undeclared_argument: Option<UndeclaredFile>,
    pub(crate) max_calls_per_session: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SetFile {
    pub(crate) from: Vec<Spanned<SourceFile>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SourceFile {
    pub(crate) tool: Option<String>,
    pub(crate) arg: Option<String>,
    pub(crate) result: Option<String>,
    pub(crate) result_pattern: Option<String>,
    pub(crate) turn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ToolFile {
    pub(crate) name: Spanned<String>,
    pub(crate) effect: Option<EffectFile>,
    pub(crate) reversible: Option<bool>,
    pub(crate) undeclared_argument: Option<UndeclaredFile>,
    pub(crate) args_schema: Option<Spanned<Value>>,
    pub(crate) result_schema: Option<Spanned<Value>>,
    #[serde(default)]
    pub(crate) bound: Vec<Spanned<BoundFile>>,
    pub(crate) require: Option<Spanned<Value>>,
    pub(crate) approve: Option<Spanned<Value>>,
    pub(crate) approval: Option<Spanned<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct BoundFile {
    pub(crate) id: String,
    pub(crate) arg: Option<String>,
    #[serde(rename = "in")]
    pub(crate) within: Option<Value>,
    pub(crate) min: Option<Value>,
    pub(crate) max: Option<Value>,
    pub(crate) sum: Option<String>,
    pub(crate) unique: Option<Vec<String>>,
    pub(crate) per: Option<String>,
    #[serde(default)]
    pub(crate) optional: bool,
    pub(crate) mode: Option<ModeFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct OutputFile {
    pub(crate) schema: Option<Spanned<Value>>,
    pub(crate) max_bytes: Option<Spanned<i64>>,
    pub(crate) forbid_detectors: Option<Spanned<Value>>,
}
