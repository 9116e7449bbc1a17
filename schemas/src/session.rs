//! The close row of a session, and whether a session is whole.
//!
//! One row per incarnation at close; a late exchange appends a superseding row. A torn session never votes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, BuildId, IncarnationId, SessionId, TenantId};

/// Why an incarnation closed a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseReason {
    /// Nothing happened for the configured time.
    Idle,
    /// It reached the configured age.
    MaxAge,
    /// The recorder was stopped in order.
    Shutdown,
    /// A transcript was imported.
    Imported,
    /// A replayed trial ended.
    TrialEnded,
}

/// What an incarnation saw of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClose {
    /// Whose traffic.
    pub tenant: TenantId,
    /// Which agent.
    pub agent: AgentId,
    /// Which version of it, where known.
    pub build: Option<BuildId>,
    /// The session.
    pub session: SessionId,
    /// The recorder process.
    pub incarnation: IncarnationId,
    /// When its first exchange started, UTC, microseconds since 1970.
    pub started_at: i64,
    /// When this row was made, UTC, microseconds since 1970; of two rows of one incarnation the later one holds.
    pub closed_at: i64,
    /// Why it was closed.
    pub reason: CloseReason,
    /// Exchanges journaled on the turn edge.
    pub turns: u32,
    /// Exchanges journaled on the model edge.
    pub model_calls: u32,
    /// Exchanges journaled on the tool edge.
    pub tool_calls: u32,
    /// The highest number given to an exchange; absent where every one was shed.
    pub last_seq: Option<u32>,
    /// Exchanges that were started and not journaled.
    pub shed: u32,
    /// Why they were shed: `session sampled out`, `journal full`, `queue full`, `encoding failed`.
    pub shed_reason: Option<String>,
    /// The case and what is known of its outcome, for imported sessions.
    pub case: Option<String>,
    /// Whether the work was done right, where a label came with it.
    pub success: Option<bool>,
    /// Free labels for filters and slices.
    pub labels: BTreeMap<String, String>,
}

/// Why a session is torn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// An incarnation saw exchanges and never closed the session (it was killed, or is still running).
    #[error("incarnation {incarnation} has no close row")]
    NotClosed {
        /// The recorder process.
        incarnation: IncarnationId,
    },
    /// Numbers are missing.
    #[error("incarnation {incarnation} is missing {missing} of {expected} exchanges, the first is {first}")]
    MissingExchanges {
        /// The recorder process.
        incarnation: IncarnationId,
        /// How many are missing.
        missing: u32,
        /// How many there should be.
        expected: u32,
        /// The first missing number.
        first: u32,
    },
    /// The recorder says that it shed some.
    #[error("incarnation {incarnation} shed {shed} exchanges ({reason})")]
    Shed {
        /// The recorder process.
        incarnation: IncarnationId,
        /// How many.
        shed: u32,
        /// Why.
        reason: String,
    },
    /// A body cannot be put together.
    #[error("exchange {seq} of incarnation {incarnation}: {detail}")]
    Body {
        /// The recorder process.
        incarnation: IncarnationId,
        /// The exchange's number.
        seq: u32,
        /// What is wrong.
        detail: String,
    },
}

/// Finds what is missing of a session, from its close rows and the (incarnation, seq) of its exchanges.
///
/// Empty means that the session is whole as far as numbers go; bodies are the caller's to check.
#[must_use]
pub fn gaps<'a>(
    closes: impl IntoIterator<Item = &'a SessionClose>,
    seqs: impl IntoIterator<Item = (&'a IncarnationId, u32)>,
) -> Vec<Gap> {
    let mut seen: BTreeMap<&IncarnationId, Vec<u32>> = BTreeMap::new();
    for (incarnation, seq) in seqs {
        seen.entry(incarnation).or_default().push(seq);
    }
    let latest = latest_closes(closes);
    let mut gaps = Vec::new();
    for incarnation in seen.keys() {
        if !latest.contains_key(incarnation) {
            gaps.push(Gap::NotClosed { incarnation: (*incarnation).clone() });
        }
    }
    for (incarnation, close) in latest {
        if close.shed > 0 {
            let reason = close.shed_reason.clone().unwrap_or_else(|| "no reason given".to_owned());
            gaps.push(Gap::Shed { incarnation: incarnation.clone(), shed: close.shed, reason });
        }
        let numbers = seen.remove(incarnation).unwrap_or_default();
        gaps.extend(gap(incarnation, close, numbers));
    }
    gaps
}

/// Keeps, of each incarnation, the row that holds.
pub fn latest_closes<'a>(
    closes: impl IntoIterator<Item = &'a SessionClose>,
) -> BTreeMap<&'a IncarnationId, &'a SessionClose> {
    let mut latest: BTreeMap<&IncarnationId, &SessionClose> = BTreeMap::new();
    for close in closes {
        let held = latest.entry(&close.incarnation).or_insert(close);
        if (close.closed_at, close.last_seq) > (held.closed_at, held.last_seq) {
            *held = close;
        }
    }
    latest
}

fn gap(incarnation: &IncarnationId, close: &SessionClose, mut numbers: Vec<u32>) -> Option<Gap> {
    numbers.sort_unstable();
    numbers.dedup();
    let expected = close.last_seq.map_or(0, |last| last.saturating_add(1));
    let present = numbers.iter().filter(|seq| **seq < expected).count();
    let missing = expected - u32::try_from(present).unwrap_or(expected);
    if missing == 0 {
        return None;
    }
    let first = (0..expected).find(|seq| numbers.binary_search(seq).is_err())?;
    Some(Gap::MissingExchanges { incarnation: incarnation.clone(), missing, expected, first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(last_seq: Option<u32>, closed_at: i64) -> SessionClose {
        SessionClose {
            tenant: TenantId::parse("t").expect("id"),
            agent: AgentId::parse("a").expect("id"),
            build: None,
            session: SessionId::parse("s").expect("id"),
            incarnation: IncarnationId::parse("i").expect("id"),
            started_at: 0,
            closed_at,
            reason: CloseReason::Idle,
            turns: 0,
            model_calls: 0,
            tool_calls: 0,
            last_seq,
            shed: 0,
            shed_reason: None,
            case: None,
            success: None,
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn a_late_exchange_needs_the_superseding_row() {
        let incarnation = IncarnationId::parse("i").expect("id");
        let early = close(Some(1), 10);
        let late = close(Some(2), 20);
        let two = [(&incarnation, 0), (&incarnation, 1)];
        assert_eq!(gaps([&early], two), vec![]);
        let gap =
            Gap::MissingExchanges { incarnation: incarnation.clone(), missing: 1, expected: 3, first: 2 };
        assert_eq!(gaps([&late, &early], two), vec![gap]);
    }

    #[test]
    fn an_incarnation_without_a_close_row_is_torn() {
        let incarnation = IncarnationId::parse("i").expect("id");
        assert_eq!(gaps([], [(&incarnation, 0)]), vec![Gap::NotClosed { incarnation }]);
    }

    #[test]
    fn a_session_of_which_all_was_shed_is_torn() {
        let mut row = close(None, 1);
        row.shed = 3;
        assert!(matches!(gaps([&row], [])[..], [Gap::Shed { shed: 3, .. }]));
    }
}
