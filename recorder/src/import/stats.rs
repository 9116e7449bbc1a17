//! What an import counts: what it made, what it converted on the way, what it set aside.

use std::collections::BTreeMap;

use serde::Serialize;

/// Something in a transcript that is not as it should be, and what was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Oddity {
    /// Arguments written as a Python literal, converted to JSON.
    PythonArguments,
    /// Arguments that are neither JSON nor a Python literal, kept as they stand.
    ArgumentsKeptVerbatim,
    /// A tool call without an id; the body got a made one, so that an agent can answer it.
    CallIdMissing,
    /// A tool result without the id of its call, joined by name and order.
    ResultJoinedByOrder,
    /// A tool result that no call asked for, kept as a tool exchange without arguments.
    ResultWithoutCall,
    /// A tool call that the transcript shows no result of; it stays in the model's answer and is no tool exchange.
    CallWithoutResult,
    /// A tool that the caller used on its side; it stands in the turn's request and is no tool exchange.
    CallerToolCall,
    /// A greeting that no model made; it stands in the history of the model calls.
    Greeting,
    /// A ticket that the agent worked on without a caller; it became the turn's input.
    TicketAsTurn,
    /// A user message repeated to the model within one turn; it is no turn of its own.
    RepeatedUserMessage,
    /// Several user messages before one answer, joined into one turn.
    JoinedUserMessages,
    /// A last user message that nobody answered; it became a label of the session.
    ClosingUserMessage,
    /// A turn that the transcript shows no answer of.
    UnansweredTurn,
    /// A model call without token counts.
    UsageMissing,
    /// A session without a label of success; it counts as unscored.
    LabelMissing,
    /// A trial whose transcript is empty; it votes by its label alone.
    TranscriptMissing,
    /// A time that is not one; the exchange has the time of the one before.
    TimeUnreadable,
    /// A value with the shape of a key or token, replaced.
    SecretReplaced,
    /// A `trial` field that only repeats the task; read as trial 0.
    TrialIsTaskIndex,
}

impl Oddity {
    /// What happened, in a few words that follow a count.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::PythonArguments => "arguments converted from Python",
            Self::ArgumentsKeptVerbatim => "arguments kept verbatim",
            Self::CallIdMissing => "tool calls without an id",
            Self::ResultJoinedByOrder => "tool results joined by order",
            Self::ResultWithoutCall => "tool results without a call",
            Self::CallWithoutResult => "tool calls without a result",
            Self::CallerToolCall => "tool calls by the caller, kept in its turns",
            Self::Greeting => "greetings that no model made",
            Self::TicketAsTurn => "tickets taken as the caller's turn",
            Self::RepeatedUserMessage => "user messages repeated within a turn",
            Self::JoinedUserMessages => "user messages joined into one turn",
            Self::ClosingUserMessage => "closing user messages, kept as labels",
            Self::UnansweredTurn => "turns without an answer",
            Self::UsageMissing => "model calls without token counts",
            Self::LabelMissing => "sessions without a label",
            Self::TranscriptMissing => "trials without a transcript",
            Self::TimeUnreadable => "unreadable times",
            Self::SecretReplaced => "secrets replaced",
            Self::TrialIsTaskIndex => "trial numbers that only repeat the task, read as 0",
        }
    }
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// The file.
    pub file: String,
    /// Its line, from 1; in a file that is one JSON document the item's number, from 1.
    pub line: u64,
    /// The field, as a path (`traj[3].tool_calls[0].function`); empty for the item as a whole.
    pub field: String,
    /// What was expected and what was found.
    pub detail: String,
}

impl std::fmt::Display for SetAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, field, detail } = self;
        if field.is_empty() {
            write!(f, "{file}:{line}: {detail}")
        } else {
            write!(f, "{file}:{line}: {field}: {detail}")
        }
    }
}

/// The counts of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Sessions or trials made.
    pub sessions: u64,
    /// Exchanges made, all edges.
    pub exchanges: u64,
    /// Of them, turns.
    pub turns: u64,
    /// Of them, model calls.
    pub model_calls: u64,
    /// Of them, tool calls.
    pub tool_calls: u64,
    /// What was converted or odd, by kind.
    pub oddities: BTreeMap<Oddity, u64>,
}

impl Tally {
    /// Counts one oddity.
    pub fn note(&mut self, oddity: Oddity) {
        *self.oddities.entry(oddity).or_default() += 1;
    }

    /// Adds the counts of another tally.
    pub fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.exchanges += other.exchanges;
        self.turns += other.turns;
        self.model_calls += other.model_calls;
        self.tool_calls += other.tool_calls;
        for (oddity, count) in &other.oddities {
            *self.oddities.entry(*oddity).or_default() += count;
        }
    }
}
