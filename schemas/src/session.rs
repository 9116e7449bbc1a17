//! The close row of a session, and the check for its completeness.
//!
//! Each recorder process (incarnation) writes one row when it closes a session; a late exchange appends a row that supersedes
//! it. An incomplete session never counts in a decision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::columns;
use crate::columns::text_values;
use crate::id::{AgentId, BuildId, IncarnationId, SessionId, TenantId};

/// Why an incarnation closed a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CloseReason {
    /// No exchange arrived for the configured idle time.
    Idle,
    /// The session reached the configured age.
    MaxAge,
    /// The recorder shut down.
    Shutdown,
    /// An import finished the session.
    Imported,
    /// A replayed trial ended.
    TrialEnded,
}

text_values! {
    CloseReason: |value| (*value).into();
}

columns! {
    /// The close row: counts of one incarnation for one session.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SessionClose {
        /// Tenant of the traffic.
        pub tenant: TenantId,
        /// Agent of the traffic.
        pub agent: AgentId,
        /// Build of the agent, if known.
        pub build: Option<BuildId>,
        /// The closed session.
        #[column(lookup)]
        pub session: SessionId,
        /// Recorder process that closed it.
        pub incarnation: IncarnationId,
        /// Start of the first exchange, UTC.
        pub started_at: i64,
        /// Time of this row, UTC; the latest row of an incarnation supersedes earlier ones.
        pub closed_at: i64,
        /// Reason: `idle`, `max_age`, `shutdown`, `imported` or `trial_ended`.
        pub reason: CloseReason,
        /// Journaled exchanges on the turn edge.
        pub turns: u32,
        /// Journaled exchanges on the model edge.
        pub model_calls: u32,
        /// Journaled exchanges on the tool edge.
        pub tool_calls: u32,
        /// Highest assigned `seq`; null if every exchange was shed.
        pub last_seq: Option<u32>,
        /// Exchanges that started and were not journaled.
        pub shed: u32,
        /// Reason of shedding: `session sampled out`, `journal full`, `queue full`, `encoding failed`.
        pub shed_reason: Option<String>,
        /// Case, for imported sessions.
        pub case: Option<String>,
        /// Whether the task succeeded, if the source has a label.
        pub success: Option<bool>,
        /// Labels for filters and slices.
        #[column(payload)]
        pub labels: BTreeMap<String, String>,
    }
}

/// A reason why a session is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// The incarnation has no close row: it was killed, or is still running.
    #[error("incarnation {incarnation} has no close row")]
    NotClosed {
        /// The recorder process.
        incarnation: IncarnationId,
    },
    /// Numbers between 0 and the last one are missing.
    #[error("incarnation {incarnation} is missing {missing} of {expected} exchanges, the first is {first}")]
    MissingExchanges {
        /// The recorder process.
        incarnation: IncarnationId,
        /// Number of missing exchanges.
        missing: u32,
        /// Number of exchanges that the close row states.
        expected: u32,
        /// Lowest missing `seq`.
        first: u32,
    },
    /// The recorder shed exchanges.
    #[error("incarnation {incarnation} shed {shed} exchanges ({reason})")]
    Shed {
        /// The recorder process.
        incarnation: IncarnationId,
        /// Number of shed exchanges.
        shed: u32,
        /// Reason in the close row.
        reason: String,
    },
    /// A body cannot be reassembled.
    #[error("exchange {seq} of incarnation {incarnation}: {detail}")]
    Body {
        /// The recorder process.
        incarnation: IncarnationId,
        /// `seq` of the exchange.
        seq: u32,
        /// The reassembly error.
        detail: String,
    },
}

/// Finds the gaps of a session from its close rows and the (incarnation, seq) of its exchanges.
///
/// Returns an empty list for a session without gaps in its numbers; callers check the bodies.
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

/// Keeps the latest close row of each incarnation.
pub fn latest_closes<'a>(
    closes: impl IntoIterator<Item = &'a SessionClose>,
) -> BTreeMap<&'a IncarnationId, &'a SessionClose> {
    let mut latest: BTreeMap<&IncarnationId, &SessionClose> = BTreeMap::new();
    for close in closes {
        let kept = latest.entry(&close.incarnation).or_insert(close);
        if (close.closed_at, close.last_seq) > (kept.closed_at, kept.last_seq) {
            *kept = close;
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
    fn an_incarnation_without_a_close_row_is_a_gap() {
        let incarnation = IncarnationId::parse("i").expect("id");
        assert_eq!(gaps([], [(&incarnation, 0)]), vec![Gap::NotClosed { incarnation }]);
    }

    #[test]
    fn a_session_with_every_exchange_shed_has_a_gap() {
        let mut row = close(None, 1);
        row.shed = 3;
        assert!(matches!(gaps([&row], [])[..], [Gap::Shed { shed: 3, .. }]));
    }
}
