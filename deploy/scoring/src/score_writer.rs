//! What of a run is scored already, and the commits that add to it.
//!
//! Rows become files through the run's commits, under a claim: of two that score one run at a time the first is refused,
//! and what a killed one left half-written is deleted. A row is there once: what was found at the start and what was
//! added since is never asked for again.

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

/// Name of the commits.
const SOURCE: &str = "score";

/// Rows that are committed together, at most.
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

/// What earlier starts did.
#[derive(Debug, Default)]
pub(crate) struct EarlierScores {
    /// Of each evaluator, by its place, the sessions that it scored.
    scored: Vec<HashSet<SessionId>>,
    /// Sessions whose answers are vectors already: all of a session's are committed together.
    embedded: HashSet<SessionId>,
    /// What all scores together cost.
    pub(crate) cost: Cost,
}

impl EarlierScores {
    /// Reads it; `model_digest` is that of the model that makes vectors.
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
        let is_it = |one: &Evaluator| one.name == row.evaluator && one.digest == row.evaluator_digest;
        if row.success.is_some()
            && let Some(place) = evaluators.iter().position(is_it)
        {
            self.scored[place].insert(row.session);
        }
    }

    /// Whether the evaluator at this place scored the session.
    pub(crate) fn has_score(&self, place: usize, session: &SessionId) -> bool {
        self.scored[place].contains(session)
    }

    /// Whether the session's answers are vectors already.
    pub(crate) fn has_vectors(&self, session: &SessionId) -> bool {
        self.embedded.contains(session)
    }
}

/// Rows on their way into the run.
#[derive(Debug)]
pub(crate) struct ScoreWriter<'a> {
    store: &'a Store,
    claim: Claim,
    every: Duration,
    pending: Batch,
    since: Option<Instant>,
}

impl<'a> ScoreWriter<'a> {
    /// Takes the run over from whoever scored it before.
    pub(crate) async fn open(store: &'a Store, every: Duration) -> Result<Self, StoreError> {
        let claim = store.claim(SOURCE).await?;
        Ok(Self { store, claim, every, pending: Batch::default(), since: None })
    }

    /// Adds a score; commits where enough have come together.
    pub(crate) async fn score(&mut self, row: Score) -> Result<(), StoreError> {
        self.pending.scores.push(row);
        self.commit_if_due().await
    }

    /// Adds vectors; commits where enough have come together.
    pub(crate) async fn embeddings(&mut self, rows: Vec<Embedding>) -> Result<(), StoreError> {
        self.pending.embeddings.extend(rows);
        self.commit_if_due().await
    }

    async fn commit_if_due(&mut self) -> Result<(), StoreError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.rows() >= COMMIT_ROWS || since.elapsed() >= self.every { self.commit().await } else { Ok(()) }
    }

    fn rows(&self) -> usize {
        self.pending.scores.len() + self.pending.embeddings.len()
    }

    /// Makes everything that was added exist.
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
