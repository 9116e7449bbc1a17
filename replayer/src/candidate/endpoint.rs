//! The addresses and headers by which a candidate reaches the world of its trial.

/// Base URL of a trial's world, and the identifiers that the candidate passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrialEndpoint {
    /// 32 hexadecimal digits: trace id of the trial, and its session id for the candidate.
    pub(crate) token: String,
    /// Seed of the trial.
    pub(crate) seed: u64,
    /// Address of the world with the trial's path prefix, without a trailing slash.
    pub(crate) base: String,
}

impl TrialEndpoint {
    /// Base URL for an OpenAI client.
    pub(crate) fn model_url(&self) -> String {
        format!("{}/v1", self.base)
    }

    /// URL for an MCP client.
    pub(crate) fn mcp_url(&self) -> String {
        format!("{}/mcp", self.base)
    }

    /// Base URL of plain JSON tools.
    pub(crate) fn tools_url(&self) -> String {
        format!("{}/tools", self.base)
    }

    /// W3C `traceparent`: the token is the trace id, the parent id changes with the turn.
    pub(crate) fn traceparent(&self, turn: usize) -> String {
        // An all-zero parent id is invalid, so parent ids count from 1.
        wire::trace_context::traceparent(&self.token, &format!("{:016x}", turn + 1))
    }

    /// W3C `baggage` with token and seed.
    pub(crate) fn baggage(&self) -> String {
        format!("foreshadow-trial={},foreshadow-seed={}", self.token, self.seed)
    }
}
