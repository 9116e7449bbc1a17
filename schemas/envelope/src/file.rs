//! The TOML form of an envelope. [`crate::Envelope`] is the parsed form.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::{Spanned, Value};

/// Any TOML value, in the reference of keys.
type Any = serde_json::Value;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct EnvelopeFile {
    /// Version of the file format: 1.
    #[schemars(with = "i64")]
    pub(crate) envelope: Spanned<i64>,
    /// Name of the agent.
    pub(crate) agent: Option<String>,
    /// Version of this envelope, for reports.
    pub(crate) version: Option<String>,
    /// Contacts of the owner, by role.
    #[serde(rename = "owner")]
    pub(crate) _owner: Option<BTreeMap<String, String>>,
    /// Behaviour of a tap. The check of trials is the same in both modes.
    #[serde(rename = "mode")]
    pub(crate) _mode: Option<ModeFile>,
    /// Decision of a tap when the check itself fails.
    #[serde(rename = "on-internal-error")]
    pub(crate) _on_internal_error: Option<UndeclaredFile>,
    /// Identity rules. This version names the key and does not check it.
    #[schemars(with = "Option<Any>")]
    pub(crate) identity: Option<Spanned<Value>>,
    /// Decisions for calls that no rule names.
    #[serde(default)]
    pub(crate) defaults: DefaultsFile,
    /// A set of values that the session has seen, for `in = "session.NAME"`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, SetFile>")]
    pub(crate) session: BTreeMap<String, Spanned<SetFile>>,
    /// Rules of one tool.
    #[serde(default)]
    pub(crate) tool: Vec<ToolFile>,
    /// Data scopes. This version does not check them, so the key forbids approval.
    #[schemars(with = "Option<Any>")]
    pub(crate) data: Option<Spanned<Value>>,
    /// Rules of the agent's answers.
    pub(crate) output: Option<OutputFile>,
    /// Circuit breaker. This version names the key and does not use it.
    #[schemars(with = "Option<Any>")]
    pub(crate) breaker: Option<Spanned<Value>>,
    /// Classification of violations. This version names the key and does not use it.
    #[schemars(with = "Option<Any>")]
    pub(crate) classify: Option<Spanned<Value>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ModeFile {
    /// Record violations.
    Observe,
    /// Deny violations.
    Enforce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UndeclaredFile {
    /// A violation.
    Deny,
    /// No violation.
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EffectFile {
    /// The tool changes nothing.
    Read,
    /// The tool changes something.
    Write,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DefaultsFile {
    /// Decision for a call of a tool without rules; default `deny`.
    pub(crate) undeclared_tool: Option<UndeclaredFile>,
    /// Decision for an argument that no schema names; default `deny`.
    pub(crate) undeclared_argument: Option<UndeclaredFile>,
    /// Tool calls of a session at most; default: no bound.
    #[schemars(with = "Option<i64>")]
    pub(crate) max_calls_per_session: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SetFile {
    /// A source of values.
    #[schemars(with = "Vec<SourceFile>")]
    pub(crate) from: Vec<Spanned<SourceFile>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SourceFile {
    /// Name of the tool whose calls provide values.
    pub(crate) tool: Option<String>,
    /// JSON pointer into the arguments of the tool's calls.
    pub(crate) arg: Option<String>,
    /// JSON pointer into the results of the tool's calls.
    pub(crate) result: Option<String>,
    /// Regular expression over the results of the tool's calls. Its matches are the values.
    pub(crate) result_pattern: Option<String>,
    /// Regular expression over the user's turns. Its matches are the values.
    pub(crate) turn: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ToolFile {
    /// Name of the tool.
    #[schemars(with = "String")]
    pub(crate) name: Spanned<String>,
    /// Effect of a call.
    pub(crate) effect: Option<EffectFile>,
    /// Whether another call can undo the effect.
    pub(crate) reversible: Option<bool>,
    /// Decision for an argument that the schema does not name; default: that of `[defaults]`.
    pub(crate) undeclared_argument: Option<UndeclaredFile>,
    /// JSON Schema of the arguments: a table, or the path of a file.
    #[schemars(with = "Option<Any>")]
    pub(crate) args_schema: Option<Spanned<Value>>,
    /// JSON Schema of the result: a table, or the path of a file.
    #[schemars(with = "Option<Any>")]
    pub(crate) result_schema: Option<Spanned<Value>>,
    /// A bound on the arguments of one call or of several calls.
    #[serde(default)]
    #[schemars(with = "Vec<BoundFile>")]
    pub(crate) bound: Vec<Spanned<BoundFile>>,
    /// Conditions. This version does not check them, so the key forbids approval.
    #[schemars(with = "Option<Any>")]
    pub(crate) require: Option<Spanned<Value>>,
    /// Approval rules. This version names the key and does not use it.
    #[schemars(with = "Option<Any>")]
    pub(crate) approve: Option<Spanned<Value>>,
    /// Settings of approvals. This version names the key and does not use it.
    #[schemars(with = "Option<Any>")]
    pub(crate) approval: Option<Spanned<Value>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct BoundFile {
    /// Name of the bound in reports.
    pub(crate) id: String,
    /// JSON pointer to the bounded argument, for `in`, `min` and `max`.
    pub(crate) arg: Option<String>,
    /// Allowed values: a list, or `session.NAME` for a set of the session.
    #[serde(rename = "in")]
    #[schemars(with = "Option<Any>")]
    pub(crate) within: Option<Value>,
    /// Smallest allowed value; with `sum`, of the sum.
    #[schemars(with = "Option<Any>")]
    pub(crate) min: Option<Value>,
    /// Largest allowed value; with `sum`, of the sum.
    #[schemars(with = "Option<Any>")]
    pub(crate) max: Option<Value>,
    /// JSON pointer to a numeric argument whose sum over `per` is bounded.
    pub(crate) sum: Option<String>,
    /// JSON pointers whose values together may occur once over `per`.
    pub(crate) unique: Option<Vec<String>>,
    /// Span of `sum` and `unique`: `session`, or a duration such as `24h`.
    pub(crate) per: Option<String>,
    /// Whether the argument may be absent.
    #[serde(default)]
    pub(crate) optional: bool,
    /// Behaviour of a tap for this bound.
    pub(crate) mode: Option<ModeFile>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct OutputFile {
    /// JSON Schema of the answer: a table, or the path of a file.
    #[schemars(with = "Option<Any>")]
    pub(crate) schema: Option<Spanned<Value>>,
    /// Bytes of an answer at most.
    #[schemars(with = "Option<i64>")]
    pub(crate) max_bytes: Option<Spanned<i64>>,
    /// Detectors that must find nothing. This version does not check them, so the key forbids approval.
    #[schemars(with = "Option<Any>")]
    pub(crate) forbid_detectors: Option<Spanned<Value>>,
}
