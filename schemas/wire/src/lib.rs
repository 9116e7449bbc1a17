//! Parsers and writers of the wire formats that agents, model providers and proxies exchange.
//!
//! The crate is pure: functions take bytes or text that the caller has already bounded, and perform no I/O. A recorder
//! and a replayer that share these functions agree on the meaning of a recorded body.
//!
//! One module holds one format:
//!
//! - [`sse`]: server-sent events (WHATWG HTML).
//! - [`openai_chat`]: `OpenAI` chat completions, plain and streamed.
//! - [`trace_context`]: W3C Trace Context and W3C Baggage.
//!
//! Malformed input never panics. Each parser documents the input that it skips.

pub mod openai_chat;
pub mod sse;
pub mod trace_context;
