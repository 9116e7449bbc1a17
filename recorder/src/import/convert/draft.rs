//! An exchange before it has ids: content, times, and links to other drafts.

use schemas::exchange::{Edge, Operation, OperationKind, Redaction, Usage};

/// An exchange without ids.
#[derive(Debug)]
pub(super) struct ExchangeDraft {
    pub(super) edge: Edge,
    /// Microseconds since 1970, UTC; absent if the transcript has no times.
    pub(super) started_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
    pub(super) request: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) operation: Operation,
    pub(super) usage: Usage,
    /// Whether it is a turn without an answer.
    pub(super) unanswered: bool,
    /// Links: seq of another draft, and kind.
    pub(super) links: Vec<(u32, &'static str)>,
    pub(super) identifiers: Vec<(&'static str, String)>,
    pub(super) redactions: Vec<Redaction>,
}

impl ExchangeDraft {
    /// An exchange without content.
    pub(super) fn new(edge: Edge, started_at: Option<i64>) -> Self {
        let kind = match edge {
            Edge::Turn => OperationKind::Turn,
            Edge::Model => OperationKind::Chat,
            Edge::Tool => OperationKind::CallTool,
        };
        Self {
            edge,
            started_at,
            ended_at: None,
            request: Vec::new(),
            response: Vec::new(),
            operation: Operation::new(kind),
            usage: Usage::default(),
            unanswered: false,
            links: Vec::new(),
            identifiers: Vec::new(),
            redactions: Vec::new(),
        }
    }

    /// Duration in microseconds; absent without both times, or if they run backwards.
    pub(super) fn duration_us(&self) -> Option<u64> {
        u64::try_from(self.ended_at?.checked_sub(self.started_at?)?).ok()
    }
}

/// Duration of all answered turns, microseconds; absent if one has no times.
pub(super) fn turn_duration(drafts: &[ExchangeDraft]) -> Option<u64> {
    let mut turns = drafts.iter().filter(|draft| draft.edge == Edge::Turn && !draft.unanswered).peekable();
    turns.peek()?;
    turns.map(ExchangeDraft::duration_us).sum()
}

/// The agent's last answer to the user, else the last text of its model.
pub(super) fn last_answer(drafts: &[ExchangeDraft]) -> Option<String> {
    let of = |edge| {
        drafts
            .iter()
            .rev()
            .filter(move |draft| draft.edge == edge)
            .find_map(|draft| draft.operation.output.clone())
    };
    of(Edge::Turn).or_else(|| of(Edge::Model))
}

/// Tokens and cost of all model calls. A sum is absent if one call lacks the value, because a partial sum would mislead.
pub(super) fn total_usage(drafts: &[ExchangeDraft]) -> Usage {
    let calls = || drafts.iter().filter(|draft| draft.edge == Edge::Model).map(|draft| draft.usage);
    if calls().next().is_none() {
        return Usage::default();
    }
    Usage {
        input_tokens: calls().map(|usage| usage.input_tokens).sum(),
        output_tokens: calls().map(|usage| usage.output_tokens).sum(),
        cached_tokens: calls().map(|usage| usage.cached_tokens).sum(),
        cost_usd: calls().map(|usage| usage.cost_usd).sum(),
    }
}
