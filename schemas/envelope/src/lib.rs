//! The capability envelope: what an agent may do, declared in TOML, and the pure check of one call against it.
//!
//! A closed vocabulary: declared tools, JSON Schemas of their arguments, and bounds (`in`, `min`, `max`, `sum`, `unique`)
//! on single arguments. Whatever cannot be evaluated (a missing argument, a value of another type, a number too large)
//! is a violation, never a pass. Keys that a later build checks (`require`, `approve`, `breaker`, …) are read and kept in
//! [`Envelope::not_checked`], so that nobody takes them for checked. Nothing here decides what happens to a call.
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
//! [session.orders]                          # what rules call `session.orders`: values that this session has seen
//! from = [{ tool = "find_order", arg = "/order_id" }]            # an argument of a call that succeeded
//! [session.emails]
//! from = [{ tool = "find_order", result = "/customer/email" },   # a place in its JSON result
//!         { tool = "find_mail", result-pattern = 'from: (\S+)' },# group 1, or all, of matches in its result
//!         { turn = '\S+@\S+' }]                                  # matches in what the caller said
//!
//! [[tool]]
//! name = "refund"
//! effect = "write"
//! args-schema = "schemas/refund.json"       # a file beside the envelope, or the schema itself as a table
//! bound = [
//!   { id = "own-order",   arg = "/order_id", in = "session.orders" },          # or a list; a list may name sets too
//!   { id = "cap-call",    arg = "/amount_cents", min = 1, max = 20000 },
//!   { id = "cap-session", sum = "/amount_cents", per = "session", max = 50000 },
//!   { id = "once",        unique = ["/order_id"], per = "24h" },
//!   { id = "currency",    arg = "/currency", in = ["EUR"], optional = true },  # may be left out or null
//!   { id = "canary",      arg = "/note", in = ["a", "b"], mode = "observe" },  # reported, never a violation that blocks
//! ]
//! [output]
//! max-bytes = 8192                          # of an answer to the caller
//! schema = "schemas/reply.json"
//! ```
//!
//! Places are JSON pointers; a segment `*` means every element. A set holds what the session itself has seen, so take its
//! values from fields that only the owner of a tool writes: a pattern over free text believes whoever wrote the text.

mod call;
mod check;
mod decimal;
mod document;
mod error;
mod file;
mod parse;
mod pointer;
mod policy;
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
