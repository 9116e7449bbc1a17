//! Transcript of one past session, before its conversion to exchanges. All formats are parsed into it.

use std::collections::BTreeMap;

use schemas::exchange::{Redaction, Usage};
use schemas::trial::TrialEnding;

use super::skipped::SkippedItem;
use super::stats::ImportWarning;

/// Author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TranscriptRole {
    /// The system prompt.
    System,
    /// The user, who calls the agent.
    User,
    /// The model of the agent.
    Assistant,
    /// A tool, with a result.
    Tool,
}

/// A tool call of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptToolCall {
    /// Id of the call; absent if the file has none or an empty one.
    pub id: Option<String>,
    /// Name of the tool.
    pub tool: String,
    /// Arguments as in the file: JSON, a Python literal, or other text.
    pub arguments: String,
    /// Redactions in the arguments.
    pub redactions: Vec<Redaction>,
}

/// One message of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscriptMessage {
    /// Author.
    pub role: TranscriptRole,
    /// Text; absent if the message has none.
    pub text: Option<String>,
    /// Redactions in the text.
    pub redactions: Vec<Redaction>,
    /// Tool calls that the message requests.
    pub calls: Vec<TranscriptToolCall>,
    /// Tool messages: id of the call that it answers.
    pub call_id: Option<String>,
    /// Tool messages: name of the tool, if the file has it.
    pub tool: Option<String>,
    /// Tool messages: whether the tool failed, if the file says so.
    pub is_error: Option<bool>,
    /// Tool messages: whether the user, not the agent, made the call.
    pub by_user: bool,
    /// Time of its completion, microseconds since 1970, UTC.
    pub at: Option<i64>,
    /// Assistant messages: tokens and cost in US dollars.
    pub usage: Usage,
    /// Assistant messages: `finish_reason` of the model.
    pub finish_reason: Option<String>,
}

/// Totals that a file reports for a session without messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportedTotals {
    /// Duration of the session, microseconds.
    pub duration_us: Option<u64>,
    /// Tokens and cost in US dollars.
    pub usage: Usage,
    /// Last answer of the agent.
    pub answer: Option<String>,
    /// Embedding of the answer: finite numbers, not all 0; any length, equal within a file.
    pub embedding: Option<Vec<f32>>,
}

/// One past session.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Line or number of the item in the file, from 1.
    pub line: u64,
    /// Name of the task. Equal names in two runs form a pair.
    pub case: String,
    /// Number of the trial of the task.
    pub trial: u32,
    /// End of the session id: `task/trial`, or more if that is not unique in the file.
    pub name: String,
    /// Name of the agent; absent if the file has none.
    pub agent: Option<String>,
    /// Model of the agent; absent if the file has none.
    pub model: Option<String>,
    /// Ticket that the agent works on if no user writes first.
    pub opening: Option<String>,
    /// Messages, in order.
    pub messages: Vec<TranscriptMessage>,
    /// Totals of a session without messages.
    pub reported: ReportedTotals,
    /// Start time, microseconds since 1970, UTC.
    pub started_at: Option<i64>,
    /// Success label; absent if unknown.
    pub success: Option<bool>,
    /// Success label that cannot be read; the outcome is then missing.
    pub unreadable_label: Option<SkippedItem>,
    /// Messages that the file lacks or that cannot be read; the trial is then incomplete.
    pub lost_messages: Option<SkippedItem>,
    /// Optional values that cannot be read, and are absent.
    pub unreadable_cells: Vec<SkippedItem>,
    /// Ending of the trial.
    pub ending: TrialEnding,
    /// Cause of an ending other than complete.
    pub ending_detail: Option<String>,
    /// Slices, by name: `attack` → `none`.
    pub slices: BTreeMap<String, String>,
    /// Independent unit that the case belongs to; absent where the case is its own unit.
    pub cluster: Option<String>,
    /// Sampling weight of the case: finite, above 0.
    pub weight: Option<f64>,
    /// Batch of trials that ran together; absent if unknown.
    pub batch: Option<String>,
    /// Repairs made while parsing.
    pub warnings: Vec<ImportWarning>,
}

impl Transcript {
    /// Whether the outcome of the trial is lost: its label or its messages cannot be read.
    #[must_use]
    pub fn has_lost_outcome(&self) -> bool {
        self.unreadable_label.is_some() || self.lost_messages.is_some()
    }

    /// The first value in which another transcript of the trial differs; absent if both say the same.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let label = |one: &Self| (one.success, one.unreadable_label.is_some());
        let checks = [
            ("success", label(self) == label(other)),
            ("ending", self.ending == other.ending && self.ending_detail == other.ending_detail),
            ("answer", self.reported.answer == other.reported.answer),
            ("duration", self.reported.duration_us == other.reported.duration_us),
            ("tokens or cost", self.reported.usage == other.reported.usage),
            ("embedding", self.reported.embedding == other.reported.embedding),
            ("start", self.started_at == other.started_at),
            ("cluster or weight", self.cluster == other.cluster && self.weight == other.weight),
            ("agent or model", self.agent == other.agent && self.model == other.model),
            ("messages", self.opening == other.opening && self.messages == other.messages),
        ];
        checks.into_iter().find(|(_, equal)| !equal).map(|(name, _)| name)
    }

    /// Whether the slice has this value.
    #[must_use]
    pub fn is_in(&self, slice: &str, value: &str) -> bool {
        self.slices.get(slice).is_some_and(|found| found == value)
    }
}
