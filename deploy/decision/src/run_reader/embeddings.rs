//! Attaches the `embeddings` table of a run to its trials: one embedding for all answers of a trial.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use analyzer::{AnswerEmbedding, Run};
use schemas::id::SessionId;
use serde::Deserialize;
use store::table::Table;
use store::{Snapshot, Store, StoreError};

#[derive(Debug, Deserialize)]
struct ModelRow {
    model: String,
    model_digest: String,
    embedded_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct VectorRow {
    session: SessionId,
    turn: Option<u32>,
    model_digest: String,
    vector: Vec<f32>,
}

const VECTOR_COLUMNS: [&str; 4] = ["session", "turn", "model_digest", "vector"];

/// Embeddings of one trial by turn.
type Turns = BTreeMap<Option<u32>, Vec<f32>>;

/// Attaches the embeddings. If several models embedded the run, the latest counts. Adds notes on missing embeddings.
pub(crate) async fn attach(run: &mut Run, store: &Store, snapshot: &Snapshot) -> Result<(), StoreError> {
    let Some((digest, model)) = model(run, store, snapshot).await? else {
        if run.own().any(|record| record.trial.answer.is_some()) {
            run.notes.push(format!(
                "run {}: its answers have no embeddings, so their meaning is not compared; add them with `foreshadow score {}`",
                run.name, run.name
            ));
        }
        return Ok(());
    };
    let mut by_session: HashMap<SessionId, Turns> = HashMap::new();
    for file in snapshot.files(Table::Embeddings) {
        let each = |rows: Vec<VectorRow>| {
            for row in rows.into_iter().filter(|row| row.model_digest == digest) {
                by_session.entry(row.session).or_default().insert(row.turn, row.vector);
            }
        };
        store.read_each(file, Some(&VECTOR_COLUMNS), each).await?;
    }
    let mut without = 0_usize;
    for record in &mut run.trials {
        let Some(turns) = by_session.remove(&record.trial.session) else { continue };
        let turns: Vec<Vec<f32>> = turns.into_values().collect();
        match AnswerEmbedding::of_turns(&model, &turns) {
            Ok(embedding) => record.embedding = Some(embedding),
            Err(_) => without += 1,
        }
    }
    if without > 0 {
        run.notes
            .push(format!("run {}: {without} trials have answers whose embeddings cancel out", run.name));
    }
    Ok(())
}

/// Digest and display name of the model that embedded last.
async fn model(
    run: &mut Run,
    store: &Store,
    snapshot: &Snapshot,
) -> Result<Option<(String, Arc<str>)>, StoreError> {
    let mut models: BTreeMap<String, (Option<i64>, String)> = BTreeMap::new();
    for file in snapshot.files(Table::Embeddings) {
        let each = |rows: Vec<ModelRow>| {
            for row in rows {
                let latest = models.entry(row.model_digest).or_insert((None, row.model));
                latest.0 = latest.0.max(row.embedded_at);
            }
        };
        store.read_each(file, Some(&["model", "model_digest", "embedded_at"]), each).await?;
    }
    let others = models.len().saturating_sub(1);
    let last = models.into_iter().max_by(|a, b| (a.1.0, &a.0).cmp(&(b.1.0, &b.0)));
    let Some((digest, (_, name))) = last else { return Ok(None) };
    if others > 0 {
        run.notes
            .push(format!("run {}: embeddings by {others} other models than {name} are ignored", run.name));
    }
    // Two endpoints can serve different models under one name, so the display name contains the digest.
    let is_own = blake3::hash(name.as_bytes()).to_hex().as_str() == digest;
    let shown = if is_own { name } else { format!("{name} ({})", digest.get(..8).unwrap_or(&digest)) };
    Ok(Some((digest, Arc::from(shown))))
}
