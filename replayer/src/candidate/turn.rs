//! One turn of a trial as a candidate is asked it, and what came of it.

use std::time::Duration;

use bytes::Bytes;
use schemas::exchange::Protocol;
use serde::Serialize;
use serde_json::Value;

/// Where a trial's candidate finds its world, and what it is told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// 32 hexadecimal digits: the trace id, and the name of the trial for the candidate.
    pub(crate) token: String,
    /// The trial's seed.
    pub(crate) seed: u64,
    /// The world's address with the trial's path prefix, without a trailing slash.
    pub(crate) base: String,
}

impl Place {
    /// Base URL of an OpenAI client.
    pub(crate) fn model_url(&self) -> String {
        format!("{}/v1", self.base)
    }

    /// URL of an MCP client.
    pub(crate) fn mcp_url(&self) -> String {
        format!("{}/mcp", self.base)
    }

    /// Base URL of tools spoken to in plain JSON.
    pub(crate) fn tools_url(&self) -> String {
        format!("{}/tools", self.base)
    }

    /// W3C trace context that names the trial; the span changes with the turn.
    pub(crate) fn traceparent(&self, turn: usize) -> String {
        // An all-zero span id is invalid, so spans count from 1.
        format!("00-{}-{:016x}-01", self.token, turn + 1)
    }

    /// W3C baggage that names the trial.
    pub(crate) fn baggage(&self) -> String {
        format!("foreshadow-trial={},foreshadow-seed={}", self.token, self.seed)
    }
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    User,
    Assistant,
}

/// Something said before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) content: String,
}

/// A turn to be asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// What the user says.
    pub(crate) input: &'a str,
    /// Its number in the trial, from 0.
    pub(crate) number: usize,
    /// What was said before.
    pub(crate) history: &'a [Message],
    /// Where the candidate finds its world.
    pub(crate) place: &'a Place,
}

impl Turn<'_> {
    /// What was said before, as `[{role, content}]`.
    pub(crate) fn history_json(&self) -> Value {
        serde_json::to_value(self.history).unwrap_or_default()
    }
}

/// Why a turn got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TurnFailure {
    /// The candidate did not answer in time.
    TimedOut(String),
    /// It refused, crashed or answered something else.
    Failed(String),
}

impl TurnFailure {
    /// Why, in words.
    pub(crate) fn detail(&self) -> &str {
        match self {
            Self::TimedOut(detail) | Self::Failed(detail) => detail,
        }
    }
}

/// What came of a turn.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// What it was spoken in.
    pub(crate) protocol: Protocol,
    /// HTTP method and path, for a service.
    pub(crate) http: Option<(String, String)>,
    /// What was sent.
    pub(crate) request: Bytes,
    /// What came back, as far as it came.
    pub(crate) response: Bytes,
    /// HTTP status, where one came.
    pub(crate) status: Option<u16>,
    /// From the start to the answer's head.
    pub(crate) first_byte: Option<Duration>,
    /// From the start to the end.
    pub(crate) duration: Duration,
    /// The answer.
    pub(crate) answer: Result<String, TurnFailure>,
}
