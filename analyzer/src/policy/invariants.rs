//! The invariants that a policy declares: `[invariant.*]` of `policy.toml`, each on once it is named.
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
//! Each also takes `on = false`, and `max_rate`: the share of cases that may break it as far as these cases can tell. Where
//! there are too few of them for that, nothing is approved. In an order rule `first` and `then` may be lists (one of them),
//! and `same` two places: the argument of `first`, then that of `then`.

use std::collections::BTreeMap;
use std::sync::Arc;

use envelope::Envelope;
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

/// The invariants that the policy declares; a violation blocks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct InvariantPolicy {
    /// JSON Schema that every final answer must satisfy.
    pub answer_schema: Option<serde_json::Value>,
    /// JSON Schemas of arguments by tool.
    pub tool_arguments: Option<BTreeMap<String, serde_json::Value>>,
    /// Side effects only move forward.
    pub monotonic_effects: Option<MonotonicEffects>,
    /// A write is not repeated with the same arguments.
    pub idempotency: Option<Idempotency>,
    /// No turn takes longer than this many milliseconds.
    pub response_time_max_ms: Option<u64>,
    /// What must not be said nor sent.
    pub forbidden: Option<Forbidden>,
    /// What must have been done before.
    pub order: Option<Vec<OrderRule>>,
    /// Calls stay inside the capability envelope; `None` where the policy does not say.
    pub envelope: Option<bool>,
    /// The most that the share of violating cases may be, by invariant: its upper bound must be shown to be under it.
    pub max_rate: BTreeMap<String, f64>,
    /// The envelope itself; the verdict names it by a digest of its own, so the policy's does not.
    #[serde(skip)]
    pub declared_envelope: Option<DeclaredEnvelope>,
}

/// The envelope of `--envelope`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclaredEnvelope(Arc<Envelope>);

impl DeclaredEnvelope {
    /// The envelope that every trial is checked against.
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
    /// The envelope that trials are checked against: the given one, unless the policy turns it off.
    #[must_use]
    pub fn enabled_envelope(&self) -> Option<&Envelope> {
        let declared = self.declared_envelope.as_ref().filter(|_| self.envelope != Some(false));
        declared.map(DeclaredEnvelope::get)
    }

    /// Whether an invariant looks at what calls of this tool returned.
    #[must_use]
    pub fn needs_result_of(&self, tool: &str) -> bool {
        self.enabled_envelope().is_some_and(|envelope| envelope.needs_result_of(tool))
    }

    /// Whether an invariant looks at what any call returned.
    #[must_use]
    pub fn needs_results(&self) -> bool {
        self.enabled_envelope().is_some_and(Envelope::needs_results)
    }

    /// Whether an invariant looks at what the caller said.
    #[must_use]
    pub fn needs_turns(&self) -> bool {
        self.enabled_envelope().is_some_and(Envelope::needs_turns)
    }
}

/// A write is never made again after another write came between, and writes keep the declared order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MonotonicEffects {
    /// Tools in the only order in which a trial may use them; tools not listed are free.
    pub order: Vec<String>,
}

/// A write that is not declared idempotent is made at most once with the same arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Idempotency {
    /// Only these tools; all where empty.
    pub tools: Vec<String>,
}

/// What must not stand in an answer nor in the arguments of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forbidden {
    /// Texts.
    pub literals: Vec<String>,
    /// Regular expressions.
    pub patterns: Vec<String>,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Whether answers are looked at.
    pub answer: bool,
    /// Whether the arguments of calls are looked at.
    pub arguments: bool,
}

/// One of some tools has succeeded in the session before another is called.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OrderRule {
    /// One of these must have succeeded.
    pub first: Vec<String>,
    /// Before one of these is called.
    pub then: Vec<String>,
    /// With an equal argument: JSON pointers into the arguments of the first and of the second.
    pub same: Option<(String, String)>,
}

impl OrderRule {
    /// What violations of it are told by: `find_order before refund`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} before {}", self.first.join(" or "), self.then.join(" or "))
    }
}
