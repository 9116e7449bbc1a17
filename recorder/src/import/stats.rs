//! Counts of an import: sessions, exchanges, and repairs by kind.

use std::collections::BTreeMap;

use serde::Serialize;

/// An irregularity in a transcript and the repair that import makes.
///
/// [`Self::description`] is a plural phrase that follows a count; the JSON key is the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
pub enum ImportWarning {
    /// Arguments are a Python literal. Import converts them to JSON.
    #[strum(to_string = "arguments converted from Python")]
    PythonArguments,
    /// Arguments are neither JSON nor a Python literal. Import keeps the text.
    #[strum(to_string = "arguments kept verbatim")]
    ArgumentsKeptVerbatim,
    /// A tool call has no id. Import generates one, so that an agent can answer the call.
    #[strum(to_string = "tool calls without an id")]
    CallIdMissing,
    /// A tool result does not name its call. Import joins it by tool name and order.
    #[strum(to_string = "tool results joined by order")]
    ResultJoinedByOrder,
    /// A tool result has no call. It becomes a tool exchange without arguments.
    #[strum(to_string = "tool results without a call")]
    ResultWithoutCall,
    /// A tool call has no result. It stays in the model's answer and becomes no tool exchange.
    #[strum(to_string = "tool calls without a result")]
    CallWithoutResult,
    /// The user, not the agent, called a tool. The call goes into the turn's request and becomes no tool exchange.
    #[strum(to_string = "tool calls by the user, kept in the turns")]
    UserToolCall,
    /// A greeting before the first user message. It goes into the history of the model calls.
    #[strum(to_string = "greetings that no model made")]
    Greeting,
    /// The agent worked on a ticket without a user. The ticket becomes the turn's input.
    #[strum(to_string = "tickets imported as user turns")]
    TicketAsTurn,
    /// A user message repeats within a turn. It becomes no turn of its own.
    #[strum(to_string = "user messages repeated within a turn")]
    RepeatedUserMessage,
    /// Several user messages precede one answer. They become one turn.
    #[strum(to_string = "user messages joined into one turn")]
    JoinedUserMessages,
    /// The last user message has no answer. It becomes a label of the session.
    #[strum(to_string = "closing user messages, kept as labels")]
    ClosingUserMessage,
    /// A turn has no answer.
    #[strum(to_string = "turns without an answer")]
    UnansweredTurn,
    /// A model call has no token counts.
    #[strum(to_string = "model calls without token counts")]
    UsageMissing,
    /// A session has no success label, so it counts as unscored.
    #[strum(to_string = "sessions without a label")]
    LabelMissing,
    /// A success label cannot be read. The trial's outcome is missing.
    #[strum(to_string = "trials whose label cannot be read, so their outcome is missing")]
    LabelUnreadable,
    /// The messages of a trial are not in the file or cannot be read. The trial is incomplete.
    #[strum(to_string = "trials whose messages are lost, so their outcome is missing")]
    MessagesLost,
    /// An optional value cannot be read. The trial lacks it.
    #[strum(to_string = "optional values that cannot be read, left out")]
    CellUnreadable,
    /// A trial occurs again with equal values. Import leaves the repetition out.
    #[strum(to_string = "repetitions of equal trials, left out")]
    DuplicateTrial,
    /// A trial has no messages. It counts by its success label alone.
    #[strum(to_string = "trials without a transcript")]
    TranscriptMissing,
    /// A timestamp cannot be parsed. The exchange gets the time of the one before it.
    #[strum(to_string = "unreadable times")]
    TimeUnreadable,
    /// A text had the shape of a key or token. Import replaced it.
    #[strum(to_string = "secrets replaced")]
    SecretReplaced,
    /// The field `trial` repeats the task number. Import reads it as trial 0.
    #[strum(to_string = "trial numbers that only repeat the task, read as 0")]
    TrialIsTaskIndex,
}

impl ImportWarning {
    /// A plural phrase that follows a count, such as `turns without an answer`.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.into()
    }
}

/// The counts of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportStats {
    /// Converted sessions, or trials.
    pub sessions: u64,
    /// Exchanges on all edges.
    pub exchanges: u64,
    /// Exchanges on the turn edge.
    pub turns: u64,
    /// Exchanges on the model edge.
    pub model_calls: u64,
    /// Exchanges on the tool edge.
    pub tool_calls: u64,
    /// Repairs by kind.
    pub warnings: BTreeMap<ImportWarning, u64>,
}

impl ImportStats {
    /// Counts one repair.
    pub fn add_warning(&mut self, warning: ImportWarning) {
        *self.warnings.entry(warning).or_default() += 1;
    }

    /// Adds the counts of another session or file.
    pub fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.exchanges += other.exchanges;
        self.turns += other.turns;
        self.model_calls += other.model_calls;
        self.tool_calls += other.tool_calls;
        for (warning, count) in &other.warnings {
            *self.warnings.entry(*warning).or_default() += count;
        }
    }
}
