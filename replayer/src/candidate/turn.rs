//! One turn of a trial: the request to the candidate and its result.

use std::time::Duration;

use bytes::Bytes;
use schemas::exchange::Protocol;
use serde::Serialize;
use serde_json::Value;

use super::endpoint::TrialEndpoint;

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    User,
    Assistant,
}

/// An earlier message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) content: String,
}

/// A turn to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// The user message.
    pub(crate) input: &'a str,
    /// Number within the trial, from 0.
    pub(crate) number: usize,
    /// Earlier messages.
    pub(crate) history: &'a [Message],
    pub(crate) endpoint: &'a TrialEndpoint,
}

impl Turn<'_> {
    /// The earlier messages as `[{role, content}]`.
    pub(crate) fn history_json(&self) -> Value {
        serde_json::to_value(self.history).unwrap_or_default()
    }
}

/// The reason why a turn has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TurnFailure {
    /// The candidate did not answer in time.
    TimedOut(String),
    /// The candidate refused, crashed, or answered something else.
    Failed(String),
}

impl TurnFailure {
    pub(crate) fn detail(&self) -> &str {
        match self {
            Self::TimedOut(detail) | Self::Failed(detail) => detail,
        }
    }
}

/// The result of a turn.
#[derive(Debug, Clone)]
pub(crate) struct TurnResult {
    pub(crate) protocol: Protocol,
    /// HTTP method and path; absent for a command candidate.
    pub(crate) http: Option<(String, String)>,
    pub(crate) request: Bytes,
    /// Body of the answer, up to the point of a failure.
    pub(crate) response: Bytes,
    /// End of a program's standard error, if it failed.
    pub(crate) stderr: String,
    /// HTTP status; absent without an answer and for a command candidate.
    pub(crate) status: Option<u16>,
    /// Time to the head of the answer.
    pub(crate) first_byte: Option<Duration>,
    /// Time to the end of the answer or to the failure.
    pub(crate) duration: Duration,
    pub(crate) answer: Result<String, TurnFailure>,
}
