//! The sessions that a replay uses: complete ones only, a seeded sample of them, and a digest that identifies them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemas::id::{AgentId, SessionId};
use schemas::tools::ToolCatalog;
use seeded::Key;
use serde::Serialize;
use store::{Snapshot, Store, StoreError, StoredSession};

use crate::blocking::run_blocking;
use crate::case_recording::CaseRecording;

/// A session left out because exchanges are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IncompleteSession {
    /// Id of the session.
    pub session: SessionId,
    /// One sentence for each gap.
    pub reasons: Vec<String>,
}

/// A complete session that cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnusableSession {
    /// Id of the session.
    pub session: SessionId,
    /// Why the session cannot be replayed.
    pub reason: String,
}

/// Sessions that are read together. Their bodies are in memory until they are decoded.
const SESSIONS_PER_READ: usize = 256;

/// A session chosen for the replay.
#[derive(Debug)]
pub(crate) struct SelectedSession {
    pub(crate) session: SessionId,
    pub(crate) exchanges: usize,
    pub(crate) recording: CaseRecording,
}

/// The sessions of a replay.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// In the order of session ids.
    pub(crate) selected: Vec<SelectedSession>,
    /// The store that the sessions were read from.
    pub(crate) store: Store,
    /// The snapshot that the sessions were read from.
    pub(crate) snapshot: Snapshot,
    /// Complete and usable sessions, from which the sample was drawn.
    pub(crate) complete: usize,
    pub(crate) incomplete: Vec<IncompleteSession>,
    pub(crate) unusable: Vec<UnusableSession>,
    /// BLAKE3 over the sorted (session, exchange count), in hexadecimal digits.
    pub(crate) digest: String,
}

/// Selection of sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    /// Sessions of this agent; absent: of any agent.
    pub(crate) agent: Option<&'a AgentId>,
    /// Size of the sample; absent: all sessions.
    pub(crate) sample: Option<usize>,
    /// Seed of the sample.
    pub(crate) seed: u64,
}

/// Reads the selected sessions of a store.
pub(crate) async fn load(
    store: &Store,
    snapshot: &Snapshot,
    selection: Selection<'_>,
    catalog: &Arc<ToolCatalog>,
) -> Result<Corpus, StoreError> {
    let mut snapshot = snapshot.clone();
    let groups = store.session_groups(&snapshot, SESSIONS_PER_READ).await?;
    let mut corpus = Corpus {
        selected: Vec::new(),
        store: store.clone(),
        snapshot: snapshot.clone(),
        complete: 0,
        incomplete: Vec::new(),
        unusable: Vec::new(),
        digest: String::new(),
    };
    for group in &groups {
        let mut sessions = store.load_group(&mut snapshot, group).await?;
        sessions.retain(|session| selection.agent.is_none_or(|agent| belongs_to(session, agent)));
        let catalog = catalog.clone();
        // Reassembling and parsing bodies takes seconds in a large store.
        let read: Vec<SessionResult> =
            run_blocking(move || sessions.into_iter().map(|session| read(session, &catalog)).collect()).await;
        for session in read {
            match session {
                SessionResult::Selected(session) => {
                    corpus.complete += 1;
                    corpus.selected.push(session);
                }
                SessionResult::Incomplete(session) => corpus.incomplete.push(session),
                SessionResult::Unusable(session) => corpus.unusable.push(session),
            }
        }
        // Sampling after each group bounds the recordings in memory by the size of the sample.
        corpus.selected = sample(corpus.selected, selection);
    }
    corpus.incomplete.sort_by(|a, b| a.session.cmp(&b.session));
    corpus.unusable.sort_by(|a, b| a.session.cmp(&b.session));
    corpus.digest = digest(&corpus.selected);
    corpus.snapshot = snapshot;
    Ok(corpus)
}

enum SessionResult {
    Selected(SelectedSession),
    Incomplete(IncompleteSession),
    Unusable(UnusableSession),
}

fn read(session: StoredSession, catalog: &ToolCatalog) -> SessionResult {
    let gaps = session.gaps();
    if !gaps.is_empty() {
        let reasons = gaps.iter().map(ToString::to_string).collect();
        return SessionResult::Incomplete(IncompleteSession { session: session.session, reasons });
    }
    match CaseRecording::read(&session, catalog) {
        Ok(recording) => {
            let exchanges = session.exchanges.len();
            SessionResult::Selected(SelectedSession { session: session.session, exchanges, recording })
        }
        Err(error) => {
            SessionResult::Unusable(UnusableSession { session: session.session, reason: error.to_string() })
        }
    }
}

/// The agents of the selected sessions.
pub(crate) fn agents(corpus: &Corpus) -> BTreeSet<AgentId> {
    corpus.selected.iter().map(|session| session.recording.agent.clone()).collect()
}

fn belongs_to(session: &StoredSession, agent: &AgentId) -> bool {
    let exchanges = session.exchanges.iter().map(|exchange| &exchange.agent);
    exchanges.chain(session.closes.iter().map(|close| &close.agent)).any(|of| of == agent)
}

/// Orders sessions by a hash of their own id, so that new sessions do not change the relative order of earlier ones.
fn sample(mut sessions: Vec<SelectedSession>, selection: Selection<'_>) -> Vec<SelectedSession> {
    if let Some(size) = selection.sample.filter(|size| *size < sessions.len()) {
        sessions.sort_by_cached_key(|session| sample_key(selection.seed, &session.session));
        sessions.truncate(size);
    }
    sessions.sort_by(|a, b| a.session.cmp(&b.session));
    sessions
}

fn sample_key(seed: u64, session: &SessionId) -> Key {
    Key::derive("foreshadow 2026 corpus order v1", &[&seed.to_le_bytes(), session.as_str().as_bytes()])
}

fn digest(sessions: &[SelectedSession]) -> String {
    let counts: BTreeMap<&SessionId, usize> =
        sessions.iter().map(|session| (&session.session, session.exchanges)).collect();
    let mut hasher = blake3::Hasher::new();
    for (session, count) in counts {
        hasher.update(format!("{}\n{count}\n", session.as_str()).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
