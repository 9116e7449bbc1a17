//! Invariants that a policy declares in `[invariant.*]` of `policy.toml`; naming one turns it on.
//!
//! ```toml
//! [invariant.answer-schema]                 # every final answer satisfies this JSON Schema
//! schema = { type = "object", required = ["status"] }
//! [invariant.tool-arguments.schemas]        # the arguments of these tools satisfy these
//! refund = { type = "object", required = ["order_id"] }
//! [invariant.monotonic-effects]             # writes only move forward
//! order = ["reserve", "capture"]
//! [invariant.idempotency]                   # no write is made twice with the same arguments
//! tools = ["refund"]                        # all writes where left out
//! [invariant.response-time]                 # no turn takes longer
//! max-ms = 30000
//! [invariant.forbidden]                     # never in an answer nor in the arguments of a call
//! literals = ["BEGIN PRIVATE KEY"]
//! patterns = ['\b4[0-9]{15}\b']
//! ignore-case = true                        # default false
//! within = ["answer", "arguments"]          # the default: both
//! [invariant.order]                         # `first` has succeeded in the session before `then` is called
//! rules = [{ first = "find_order", then = "refund", same = "/order_id" }]
//! [invariant.envelope]                      # calls stay inside the capability envelope (`--envelope`)
//! on = true
//! ```
//!
//! Each also accepts `on = false` and `max-rate`, the largest share of cases that can break it. Approval needs the
//! upper 95 % bound of that share to be at most `max-rate`. In an order rule, `first` and `then` can be lists, of
//! which one tool is enough, and `same` can be two pointers: the argument of `first`, then that of `then`.

use std::collections::BTreeMap;
use std::sync::Arc;

use envelope::Envelope;
use schemas::id::TenantId;
use schemas::keys::{RootKey, TenantKeys};
use serde::Serialize;

/// Every invariant by its key in the policy.
pub const INVARIANTS: [&str; 8] = [
    "answer-schema",
    "tool-arguments",
    "monotonic-effects",
    "idempotency",
    "response-time",
    "forbidden",
    "order",
    "envelope",
];

/// Invariants that the policy declares; a confirmed violation blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct InvariantPolicy {
    /// JSON Schema that every final answer must satisfy.
    pub answer_schema: Option<serde_json::Value>,
    /// JSON Schemas of arguments by tool.
    pub tool_arguments: Option<BTreeMap<String, serde_json::Value>>,
    /// Writes only move forward.
    pub monotonic_effects: Option<MonotonicEffects>,
    /// No write repeats with the same arguments.
    pub idempotency: Option<Idempotency>,
    /// Longest allowed duration of a turn, milliseconds.
    pub response_time_max_ms: Option<u64>,
    /// Forbidden texts and patterns.
    pub forbidden: Option<Forbidden>,
    /// Calls that must succeed before others.
    pub order: Option<Vec<OrderRule>>,
    /// Whether calls are checked against the capability envelope; `None` if the policy does not set it.
    pub envelope: Option<bool>,
    /// Largest allowed share of violating cases, by invariant; its upper bound must not exceed it.
    pub max_rate: BTreeMap<String, f64>,
    /// The envelope itself. The verdict contains the envelope's own digest, so the policy's digest leaves it out.
    #[serde(skip)]
    pub declared_envelope: Option<DeclaredEnvelope>,
    /// Key of the tokens that stand for forbidden texts in every output; without it the tokens carry no digest.
    #[serde(skip)]
    pub token_key: Option<TokenKey>,
}

/// Key of the tokens that stand for forbidden texts. A plain digest of a card number could be reversed by trying all.
#[derive(Debug, Clone)]
pub struct TokenKey(TenantKeys);

impl TokenKey {
    /// Kind of the tokens.
    pub const KIND: &'static str = "forbidden";

    /// Derives the key from the root key of the deployment.
    ///
    /// # Panics
    /// Never; the name of the derivation is a valid identifier.
    #[must_use]
    pub fn new(root: &RootKey) -> Self {
        Self(root.tenant(&TenantId::parse(Self::KIND).expect("is a valid identifier")))
    }

    /// The token of a text; equal texts have equal tokens.
    #[must_use]
    pub fn token(&self, text: &str) -> String {
        self.0.token(Self::KIND, text.as_bytes())
    }
}

/// A key is no setting: policies that differ in it decide alike.
impl PartialEq for TokenKey {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Envelope of `--envelope`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredEnvelope(Arc<Envelope>);

impl DeclaredEnvelope {
    /// Wraps the envelope that every trial is checked against.
    #[must_use]
    pub fn new(envelope: Envelope) -> Self {
        Self(Arc::new(envelope))
    }

    /// The envelope.
    #[must_use]
    pub fn get(&self) -> &Envelope {
        &self.0
    }
}

impl InvariantPolicy {
    /// The envelope that trials are checked against, unless the policy turns it off.
    #[must_use]
    pub fn enabled_envelope(&self) -> Option<&Envelope> {
        let declared = self.declared_envelope.as_ref().filter(|_| self.envelope != Some(false));
        declared.map(DeclaredEnvelope::get)
    }

    /// Whether an invariant reads the results of this tool's calls.
    #[must_use]
    pub fn needs_result_of(&self, tool: &str) -> bool {
        self.enabled_envelope().is_some_and(|envelope| envelope.needs_result_of(tool))
    }

    /// Whether an invariant reads the results of any call.
    #[must_use]
    pub fn needs_results(&self) -> bool {
        self.enabled_envelope().is_some_and(Envelope::needs_results)
    }
}

/// A write never repeats after another write, and writes keep the declared order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MonotonicEffects {
    /// Tools in the only order in which a trial may use them; tools not listed are free.
    pub order: Vec<String>,
}

/// A write that is not declared idempotent is made at most once with the same arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Idempotency {
    /// The checked tools; all tools if empty.
    pub tools: Vec<String>,
}

/// Texts and patterns that must not occur in an answer or in the arguments of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forbidden {
    /// Forbidden texts.
    pub literals: Vec<String>,
    /// Forbidden regular expressions.
    pub patterns: Vec<String>,
    /// Whether matching ignores upper and lower case.
    pub ignore_case: bool,
    /// Whether answers are searched.
    pub answer: bool,
    /// Whether the arguments of calls are searched.
    pub arguments: bool,
}

/// A call of one tool must succeed in the session before another tool is called.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OrderRule {
    /// Tools of which one must have succeeded.
    pub first: Vec<String>,
    /// Tools whose calls need it.
    pub then: Vec<String>,
    /// Arguments that must be equal: JSON pointers into the arguments of the first and of the second call.
    pub same: Option<(String, String)>,
}

impl OrderRule {
    /// Name in violations: `find_order before refund`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} before {}", self.first.join(" or "), self.then.join(" or "))
    }
}
