//! The sessions that are replayed: whole ones only, a seeded sample of them, and a digest that names what was read.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::{AgentId, SessionId};
use schemas::tools::ToolCatalog;
use serde::Serialize;
use store::{Snapshot, Store, StoreError, StoredSession};

use crate::case_recording::Script;
use crate::seed;

/// A session that was left out because something of it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TornSession {
    /// The session.
    pub session: SessionId,
    /// What is missing, in words.
    pub reasons: Vec<String>,
}

/// A whole session that cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnusableSession {
    /// The session.
    pub session: SessionId,
    /// Why, in words.
    pub reason: String,
}

/// Sessions that are read at a time: in memory are their bodies, the ids of all sessions, and what is played of those
/// chosen.
const SESSIONS_AT_A_TIME: usize = 256;

/// A session that is replayed.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// The session.
    pub(crate) session: SessionId,
    /// How many exchanges it has.
    pub(crate) exchanges: usize,
    /// What is played of it.
    pub(crate) script: Script,
}

/// The sessions that are replayed, by session id.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// Each with what is played of it.
    pub(crate) chosen: Vec<Chosen>,
    /// Where they were read.
    pub(crate) lake: Store,
    /// What there was then.
    pub(crate) snapshot: Snapshot,
    /// Whole and usable sessions that the sample was drawn from.
    pub(crate) whole: usize,
    /// Left out because something is missing.
    pub(crate) torn: Vec<TornSession>,
    /// Left out because there is nothing to play.
    pub(crate) unusable: Vec<UnusableSession>,
    /// BLAKE3 over the sorted (session, exchange count), in hexadecimal digits.
    pub(crate) digest: String,
}

/// Which sessions are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Those of this agent only.
    pub(crate) agent: Option<&'a AgentId>,
    /// A sample of this size.
    pub(crate) sample: Option<usize>,
    /// What the sample is drawn by.
    pub(crate) seed: u64,
}

/// Reads a store and chooses.
pub(crate) async fn load(
    lake: &Store,
    snapshot: &Snapshot,
    choice: Choice<'_>,
    catalog: &ToolCatalog,
) -> Result<Corpus, StoreError> {
    let mut snapshot = snapshot.clone();
    let groups = lake.session_groups(&snapshot, SESSIONS_AT_A_TIME).await?;
    let (mut chosen, mut torn, mut unusable, mut whole) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for group in &groups {
        let sessions = lake.load_group(&mut snapshot, group).await?;
        let wanted = sessions.into_iter().filter(|one| choice.agent.is_none_or(|agent| is_of(one, agent)));
        for session in wanted {
            let tears = session.gaps();
            if !tears.is_empty() {
                let reasons = tears.iter().map(ToString::to_string).collect();
                torn.push(TornSession { session: session.session, reasons });
                continue;
            }
            match Script::read(&session, catalog) {
                Ok(script) => {
                    whole += 1;
                    let exchanges = session.exchanges.len();
                    chosen.push(Chosen { session: session.session, exchanges, script });
                }
                Err(error) => {
                    unusable.push(UnusableSession { session: session.session, reason: error.to_string() });
                }
            }
        }
        // What the sample cannot hold any more need not be kept.
        chosen = sample(chosen, choice);
    }
    torn.sort_by(|a, b| a.session.cmp(&b.session));
    unusable.sort_by(|a, b| a.session.cmp(&b.session));
    let digest = digest(&chosen);
    Ok(Corpus { chosen, lake: lake.clone(), snapshot, whole, torn, unusable, digest })
}

/// The agents whose sessions a corpus holds.
pub(crate) fn agents(corpus: &Corpus) -> BTreeSet<AgentId> {
    corpus.chosen.iter().map(|one| one.script.agent.clone()).collect()
}

fn is_of(session: &StoredSession, agent: &AgentId) -> bool {
    let exchanges = session.exchanges.iter().map(|exchange| &exchange.agent);
    exchanges.chain(session.closes.iter().map(|close| &close.agent)).any(|of| of == agent)
}

/// Draws by the session's own name, so that sessions recorded later do not change which of the earlier ones are drawn
/// before which.
fn sample(mut whole: Vec<Chosen>, choice: Choice<'_>) -> Vec<Chosen> {
    if let Some(size) = choice.sample.filter(|size| *size < whole.len()) {
        whole.sort_by_cached_key(|one| draw(choice.seed, &one.session));
        whole.truncate(size);
    }
    whole.sort_by(|a, b| a.session.cmp(&b.session));
    whole
}

/// The place of a session in the seeded order.
pub(crate) fn draw(seed: u64, session: &SessionId) -> [u8; 32] {
    seed::digest("foreshadow 2026 corpus order v1", &[&seed.to_le_bytes(), session.as_str().as_bytes()])
}

fn digest(chosen: &[Chosen]) -> String {
    let counts: BTreeMap<&SessionId, usize> =
        chosen.iter().map(|one| (&one.session, one.exchanges)).collect();
    let mut hasher = blake3::Hasher::new();
    for (session, count) in counts {
        hasher.update(format!("{}\n{count}\n", session.as_str()).as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
