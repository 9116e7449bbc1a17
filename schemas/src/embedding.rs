//! Embeddings: texts of trials as vectors. `foreshadow score` or an import writes them, the analyzer reads them.

use crate::columns;
use crate::id::{AgentId, CaseId, SessionId, TenantId};
use crate::trial::Lane;

columns! {
    /// One text of a trial as a vector.
    ///
    /// There is at most one row for each (session, turn, model digest). Vectors of different model digests are never
    /// compared.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Embedding {
        /// Tenant of the traffic.
        pub tenant: TenantId,
        /// Agent of the traffic.
        pub agent: AgentId,
        /// Lane of the trial.
        pub lane: Lane,
        /// Case of the trial.
        pub case: CaseId,
        /// Number of the trial within (lane, case).
        pub trial: u32,
        /// Session of the trial's exchanges.
        #[column(lookup)]
        pub session: SessionId,
        /// Start of the trial, UTC, as in its own row.
        pub trial_started_at: Option<i64>,
        /// Turn whose answer this is, from 0; null for the trial's last answer.
        pub turn: Option<u32>,
        /// Name of the embedding model.
        pub model: String,
        /// BLAKE3 of the weights or of the endpoint's configuration; `import` for a vector from an imported table.
        pub model_digest: String,
        /// Time of embedding, UTC; null for a vector from an imported table.
        pub embedded_at: Option<i64>,
        /// Number of windows that a text longer than the model's input was split into; 1 for a text in one window, null if
        /// unknown.
        pub windows: Option<u32>,
        /// The vector. All vectors of a model digest have one length. Payload, because a vector reveals its text.
        #[column(payload)]
        pub vector: Vec<f32>,
    }
}
