//! The scores of earlier invocations, and the commits that add new ones.
//!
//! The writer claims the run. A second process that scores the run fences the first off, and files without a commit are
//! deleted. Every score has exactly one row: neither an earlier nor a new score is computed again.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use schemas::embedding::Embedding;
use schemas::id::SessionId;
use schemas::score::Score;
use serde::Deserialize;
use store::table::Table;
use store::{Batch, ChunkIndex};
use store::{Claim, Snapshot, Store, StoreError};

use crate::budget::Cost;
use crate::evaluator::Evaluator;

/// Source name of the commits.
const SOURCE: &str = "score";

/// Largest number of rows in one commit.
const COMMIT_ROWS: usize = 4096;

#[derive(Deserialize)]
struct ScoreRow {
    session: SessionId,
    evaluator: String,
    evaluator_digest: String,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cost_usd: Option<f64>,
    success: Option<bool>,
}

const SCORE_COLUMNS: [&str; 7] =
    ["session", "evaluator", "evaluator_digest", "input_tokens", "output_tokens", "cost_usd", "success"];

#[derive(Deserialize)]
struct EmbeddingRow {
    session: SessionId,
    model_digest: String,
}

const EMBEDDING_COLUMNS: [&str; 2] = ["session", "model_digest"];

/// Scores and embeddings of earlier invocations.
#[derive(Debug, Default)]
pub(crate) struct EarlierScores {
    /// Scored sessions by position of the evaluator.
    scored: Vec<HashSet<SessionId>>,
    /// Sessions with embeddings; one commit contains all embeddings of a session.
    embedded: HashSet<SessionId>,
    /// Cost of all scores.
    pub(crate) cost: Cost,
}

impl EarlierScores {
    /// Reads the tables of a run; `model_digest` selects the embeddings.
    pub(crate) async fn read(
        store: &Store,
        snapshot: &Snapshot,
        evaluators: &[Evaluator],
        model_digest: Option<&str>,
    ) -> Result<Self, StoreError> {
        let mut done = Self { scored: vec![HashSet::new(); evaluators.len()], ..Self::default() };
        for file in snapshot.files(Table::Scores) {
            let each = |rows: Vec<ScoreRow>| rows.into_iter().for_each(|row| done.add(row, evaluators));
            store.read_each(file, Some(&SCORE_COLUMNS), each).await?;
        }
        for file in snapshot.files(Table::Embeddings) {
            let each = |rows: Vec<EmbeddingRow>| {
                let same = |row: &EmbeddingRow| Some(row.model_digest.as_str()) == model_digest;
                done.embedded.extend(rows.into_iter().filter(same).map(|row| row.session));
            };
            store.read_each(file, Some(&EMBEDDING_COLUMNS), each).await?;
        }
        Ok(done)
    }

    fn add(&mut self, row: ScoreRow, evaluators: &[Evaluator]) {
        self.cost.tokens += row.input_tokens.unwrap_or(0) + row.output_tokens.unwrap_or(0);
        self.cost.usd += row.cost_usd.unwrap_or(0.0);
        let is_same = |one: &Evaluator| one.name == row.evaluator && one.digest == row.evaluator_digest;
        if row.success.is_some()
            && let Some(place) = evaluators.iter().position(is_same)
        {
            self.scored[place].insert(row.session);
        }
    }

    /// Whether the evaluator at this position scored the session.
    pub(crate) fn has_score(&self, evaluator: usize, session: &SessionId) -> bool {
        self.scored[evaluator].contains(session)
    }

    /// Whether the answers of the session are embedded.
    pub(crate) fn has_embeddings(&self, session: &SessionId) -> bool {
        self.embedded.contains(session)
    }
}

/// Buffers rows and commits them to the run.
#[derive(Debug)]
pub(crate) struct ScoreWriter<'a> {
    store: &'a Store,
    claim: Claim,
    commit_every: Duration,
    pending: Batch,
    since: Option<Instant>,
}

impl<'a> ScoreWriter<'a> {
    /// Claims the run and fences off an earlier writer.
    pub(crate) async fn open(store: &'a Store, commit_every: Duration) -> Result<Self, StoreError> {
        let claim = store.claim(SOURCE).await?;
        Ok(Self { store, claim, commit_every, pending: Batch::default(), since: None })
    }

    /// Adds a score; commits if a commit is due.
    pub(crate) async fn score(&mut self, row: Score) -> Result<(), StoreError> {
        self.pending.scores.push(row);
        self.commit_if_due().await
    }

    /// Adds embeddings; commits if a commit is due.
    pub(crate) async fn embeddings(&mut self, rows: Vec<Embedding>) -> Result<(), StoreError> {
        self.pending.embeddings.extend(rows);
        self.commit_if_due().await
    }

    async fn commit_if_due(&mut self) -> Result<(), StoreError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.rows() >= COMMIT_ROWS || since.elapsed() >= self.commit_every {
            self.commit().await
        } else {
            Ok(())
        }
    }

    fn rows(&self) -> usize {
        self.pending.scores.len() + self.pending.embeddings.len()
    }

    /// Commits the buffered rows.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.since = None;
        let rows = self.rows() as u64;
        if rows == 0 {
            return Ok(());
        }
        let (batch, next) = (std::mem::take(&mut self.pending), self.claim.position() + rows);
        let mut chunks = ChunkIndex::default();
        self.store.commit_claimed(&mut self.claim, next, BTreeMap::new(), batch, &mut chunks).await?;
        Ok(())
    }
}
