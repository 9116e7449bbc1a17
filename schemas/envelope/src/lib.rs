//! The capability envelope: a policy in TOML that declares allowed tool calls, and a pure check of calls against it.
//!
//! The vocabulary is closed: declared tools, JSON Schemas of their arguments, and bounds (`in`, `min`, `max`, `sum`, `unique`)
//! on arguments. A rule that cannot be evaluated (a missing argument, a value of another type, a number that is too large)
//! is violated, never passed. Keys that this build does not check (`require`, `approve`, `breaker`, …) are parsed and listed
//! by [`Envelope::not_checked`], so that a report can name them. The check only reports; its caller decides.
//!
//! ```toml
//! envelope = 1
//! agent = "refund-support"
//! version = "2026-11-20.1"
//! [defaults]
//! undeclared-tool = "deny"                  # or "allow"; deny is the default
//! undeclared-argument = "deny"              # an argument that the tool's schema does not name
//! max-calls-per-session = 60
//!
//! [session.orders]                          # the set `session.orders` of values seen in this session
//! from = [{ tool = "find_order", arg = "/order_id" }]            # an argument of a call that succeeded
//! [session.emails]
//! from = [{ tool = "find_order", result = "/customer/email" },   # a value in its JSON result
//!         { tool = "find_mail", result-pattern = 'from: (\S+)' },# group 1, or all, of matches in its result text
//!         { turn = '\S+@\S+' }]                                  # matches in the caller's text
//!
//! [[tool]]
//! name = "refund"
//! effect = "write"
//! args-schema = "schemas/refund.json"       # a path relative to the envelope, or the schema as a table
//! bound = [
//!   { id = "own-order",   arg = "/order_id", in = "session.orders" },          # or a list, which may name sets too
//!   { id = "cap-call",    arg = "/amount_cents", min = 1, max = 20000 },
//!   { id = "cap-session", sum = "/amount_cents", per = "session", max = 50000 },
//!   { id = "once",        unique = ["/order_id"], per = "24h" },
//!   { id = "currency",    arg = "/currency", in = ["EUR"], optional = true },  # may be absent or null
//!   { id = "canary",      arg = "/note", in = ["a", "b"], mode = "observe" },  # reported, does not count
//! ]
//! [output]
//! max-bytes = 8192                          # limit on an answer to the caller
//! schema = "schemas/reply.json"
//! ```
//!
//! `arg` and `result` are JSON pointers; the segment `*` matches every element. A set contains values that the session itself
//! has seen. Take them from fields that only the owner of a tool writes: a pattern over free text trusts its author.

mod call;
mod check;
mod decimal;
mod document;
mod error;
mod file;
mod parse;
mod pointer;
mod policy;
#[cfg(test)]
mod reference;
mod rule_id;
mod rules;
mod session;
#[cfg(test)]
mod tests;
mod values;

pub use call::{Arguments, Call, Violation, ViolationKind};
pub use decimal::Decimal;
pub use error::EnvelopeError;
pub use pointer::{Absent, Pointer};
pub use policy::{
    AllowedValues, Bound, Condition, DefaultAction, Envelope, NotChecked, SetSource, ToolPolicy, Window,
};
pub use rule_id::{
    ARGS_SCHEMA, MAX_CALLS, OUTPUT_MAX_BYTES, OUTPUT_SCHEMA, UNDECLARED_ARGUMENT, UNDECLARED_TOOL,
};
pub use session::{CallOutcome, Reservation, SessionState};
