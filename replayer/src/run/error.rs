//! The error of a replay.

use schemas::id::SessionId;
use store::StoreError;

use crate::trial_log::TrialLogError;

/// A replay that failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store or the run cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The trial log cannot be read or written.
    #[error(transparent)]
    TrialLog(#[from] TrialLogError),
    /// The store has no sessions.
    #[error("store {location} has no sessions; record or import some first, or correct --store")]
    EmptyStore {
        /// Location of the store.
        location: String,
    },
    /// No session of the store can be replayed.
    #[error(
        "store {location} has no session that can be replayed: {incomplete} are incomplete, {unusable} have no turn to \
         replay{hint}; see `foreshadow sessions verify`"
    )]
    NoCases {
        /// Location of the store.
        location: String,
        /// Incomplete sessions.
        incomplete: usize,
        /// Complete sessions without a turn to replay.
        unusable: usize,
        /// The filter and the first reasons, as the end of the sentence.
        hint: String,
    },
    /// No model or tool call of a selected session was decoded.
    #[error(
        "{undecoded} of the {selected} selected sessions of store {location} cannot be replayed, because no model or tool \
         call of them was decoded ({cause}): the world could answer nothing, so every trial would fail alike in both lanes. \
         Such a session is {example}. Record these calls on routes with a protocol that is decoded (openai-chat, mcp, \
         generic-json); or replay the sessions all the same with --allow-undecoded (in gate.toml: allow-undecoded = true). \
         No trial ran"
    )]
    Undecoded {
        /// Location of the store.
        location: String,
        /// Selected sessions.
        selected: usize,
        /// Selected sessions without a decoded call.
        undecoded: usize,
        /// Paths of the exchanges that were not decoded, with counts.
        cause: String,
        /// Id of the first such session.
        example: SessionId,
    },
    /// The store has sessions of several agents.
    #[error("store {location} has sessions of several agents ({agents}); choose one with --agent")]
    SeveralAgents {
        /// Location of the store.
        location: String,
        /// The agents, comma-separated.
        agents: String,
    },
    /// The run exists and `--resume` is absent.
    #[error("run {location} exists; continue it with --resume, or choose another --run")]
    RunExists {
        /// Location of the run.
        location: String,
    },
    /// The run was started with another plan.
    #[error(
        "run {location} cannot be resumed: its {what} is {found}, this command's is {expected}; repeat the command that \
         started it, or choose another --run"
    )]
    OtherPlan {
        /// Location of the run.
        location: String,
        /// The setting that differs.
        what: &'static str,
        /// Value of the run.
        found: String,
        /// Value of this command.
        expected: String,
    },
    /// The plan is invalid or contradictory.
    #[error("{0}")]
    Plan(String),
    /// The candidate did not answer the probe, or answered with a failure.
    #[error("{detail}\nno trial ran: start the candidate or correct its file, then try again")]
    Probe {
        /// Cause, request and answer, on a line each.
        detail: String,
    },
    /// The model provider failed a model call of the probe.
    #[error(
        "{detail}; no trial ran: mend [model] of the candidate file, the key or the quota, then try again"
    )]
    Provider {
        /// The failures in words.
        detail: String,
    },
    /// The task of a trial panicked.
    #[error("a trial panicked: {0}; this is a bug, please report it, then resume the run")]
    Panicked(String),
}

impl ReplayError {
    /// Whether the command line or a configuration file is wrong.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::EmptyStore { .. }
            | Self::SeveralAgents { .. }
            | Self::Undecoded { .. }
            | Self::RunExists { .. }
            | Self::OtherPlan { .. }
            | Self::Plan(_)
            | Self::Store(StoreError::Location { .. } | StoreError::ManifestExists { .. }) => true,
            Self::Store(_)
            | Self::TrialLog(_)
            | Self::NoCases { .. }
            | Self::Probe { .. }
            | Self::Provider { .. }
            | Self::Panicked(_) => false,
        }
    }
}
