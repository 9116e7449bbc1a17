//! One past session as its file tells it, before it is cut into exchanges.
//!
//! All formats are read into this one shape; what is peculiar to a format ends here.

use std::collections::BTreeMap;

use schemas::exchange::{Redaction, Usage};
use schemas::trial::TrialEnding;

use super::stats::ImportWarning;

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptRole {
    /// The agent's instructions.
    System,
    /// The caller.
    User,
    /// The agent's model.
    Assistant,
    /// A tool.
    Tool,
}

/// A tool call as the transcript has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptToolCall {
    /// Its id; absent where the source gives none or an empty one.
    pub id: Option<String>,
    /// The tool.
    pub tool: String,
    /// The arguments as they were written.
    pub arguments: String,
    /// What was replaced in the arguments.
    pub redactions: Vec<Redaction>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscriptMessage {
    /// Who it is from.
    pub role: TranscriptRole,
    /// Its text.
    pub text: Option<String>,
    /// What was replaced in the text.
    pub redactions: Vec<Redaction>,
    /// The tool calls it asks for.
    pub calls: Vec<TranscriptToolCall>,
    /// Of a tool's message: the id of the call that it answers.
    pub call_id: Option<String>,
    /// Of a tool's message: the tool, where the source names it.
    pub tool: Option<String>,
    /// Of a tool's message: whether the tool reported a failure, where the source says.
    pub is_error: Option<bool>,
    /// Of a tool's message: it answers a call that the caller made on its own side, not the agent.
    pub by_user: bool,
    /// When it was complete, UTC, microseconds since 1970.
    pub at: Option<i64>,
    /// Of an assistant's message: tokens and money.
    pub usage: Usage,
    /// Of an assistant's message: why the model stopped.
    pub finish_reason: Option<String>,
}

/// What the source reports of a session as a whole, where it has no transcript to add it up from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportedTotals {
    /// How long the agent took, microseconds.
    pub duration_us: Option<u64>,
    /// Tokens and money.
    pub usage: Usage,
    /// The agent's last answer.
    pub answer: Option<String>,
    /// The embedding of that answer; finite numbers, not all 0.
    pub embedding: Option<Vec<f32>>,
}

/// One past session.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Its line or item in the file, from 1.
    pub line: u64,
    /// The task: what pairs it with the same task in another run.
    pub case: String,
    /// Which of several runs of the task it is.
    pub trial: u32,
    /// What its session id ends with: `task/trial`, and what else tells it from others of the file.
    pub name: String,
    /// The agent, where the file says so.
    pub agent: Option<String>,
    /// The agent's model, where the file says so.
    pub model: Option<String>,
    /// What the agent was given to work on where no caller speaks first.
    pub opening: Option<String>,
    /// The messages, in order.
    pub messages: Vec<TranscriptMessage>,
    /// What the source reports beside the messages.
    pub reported: ReportedTotals,
    /// When it started, UTC, microseconds since 1970.
    pub started_at: Option<i64>,
    /// Whether the work was done right.
    pub success: Option<bool>,
    /// How it ended.
    pub ending: TrialEnding,
    /// Why, in words.
    pub ending_detail: Option<String>,
    /// Slices it belongs to.
    pub slices: BTreeMap<String, String>,
    /// What was odd about reading it.
    pub warnings: Vec<ImportWarning>,
}

impl Transcript {
    /// Whether it belongs to the slice; `attack=none` holds where `attack` is `none`.
    #[must_use]
    pub fn is_in(&self, slice: &str, value: &str) -> bool {
        self.slices.get(slice).is_some_and(|found| found == value)
    }
}
