//! Embeddings: texts of trials as vectors. Written by `foreshadow score` or an import, read by the decision.

use serde::{Deserialize, Serialize};

use crate::id::{AgentId, CaseId, SessionId, TenantId};
use crate::trial::Lane;

/// One text of a trial as a vector.
///
/// There is at most one row of a (session, turn, model digest). Vectors of two model digests are never compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Embedding {
    /// Whose traffic.
    pub tenant: TenantId,
    /// Which agent.
    pub agent: AgentId,
    /// Whose trial.
    pub lane: Lane,
    /// The trial's case.
    pub case: CaseId,
    /// The trial's number within (lane, case).
    pub trial: u32,
    /// What the trial's exchanges are stored under.
    pub session: SessionId,
    /// When the trial started, UTC, microseconds since 1970, as its own row says.
    pub trial_started_at: Option<i64>,
    /// Which text: the answer of this turn, from 0; absent for the trial's last answer.
    pub turn: Option<u32>,
    /// The model's name.
    pub model: String,
    /// What tells two models, or two ways of using one, apart: BLAKE3 of the weights or of the endpoint's configuration;
    /// `import` where a table brought the vector.
    pub model_digest: String,
    /// When it was made, UTC, microseconds since 1970; absent where a table brought it.
    pub embedded_at: Option<i64>,
    /// Windows that the text was cut into, as it is longer than the model reads at once; 1 for a text read whole, absent
    /// where that is not known.
    pub windows: Option<u32>,
    /// The vector; all vectors of a model digest have one length.
    pub vector: Vec<f32>,
}
