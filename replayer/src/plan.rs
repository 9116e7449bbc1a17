//! What a replay is asked to do, and the trials that follow from it, in the order in which they start.
//!
//! Pure: the same corpus and seed give the same list, byte for byte.

use std::time::Duration;

use schemas::canonical::canonical;
use schemas::id::{AgentId, CaseId, IncarnationId, SessionId};
use schemas::keys::RootKey;
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;
use serde::Serialize;
use serde_json::json;
use store::keyring::KeyRing;

use crate::candidate::Candidate;
use crate::clock::Clock;
use crate::faults::FaultRules;
use crate::seed::{self, trial_seed};

/// What answers a candidate's model calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelMode {
    /// The configured provider.
    Live,
    /// The recording.
    Recorded,
}

impl ModelMode {
    /// Its name as `run.json` holds it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Recorded => "recorded",
        }
    }
}

/// Everything that a replay needs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the sessions are: a directory or a `file://` URL.
    pub store: String,
    /// Where the trials go: a directory or a `file://` URL.
    pub run: String,
    /// Keys of encrypted stores and runs.
    pub ring: KeyRing,
    /// What is replayed against.
    pub candidate: Candidate,
    /// Whose trials they are.
    pub lane: Lane,
    /// Trials of each case.
    pub trials: u32,
    /// A seeded sample of this many sessions; absent: all.
    pub sessions: Option<usize>,
    /// Seed of everything random.
    pub seed: u64,
    /// Trials at a time, at least 1.
    pub concurrency: usize,
    /// Faults to inject.
    pub faults: Option<FaultRules>,
    /// What answers model calls.
    pub model: ModelMode,
    /// What is known of the tools.
    pub tools: ToolCatalog,
    /// Sessions of this agent only.
    pub agent: Option<AgentId>,
    /// Go on with a run that was interrupted.
    pub resume: bool,
    /// Recorded tool delays are multiplied by this.
    pub delay_scale: f64,
    /// No recorded tool delay is replayed longer than this.
    pub delay_cap: Duration,
    /// A command candidate may reach the network.
    pub allow_open_egress: bool,
    /// Keys of the digests of stored pieces.
    pub keys: RootKey,
    /// The version of the program, for `run.json`.
    pub tool_version: String,
    /// This start of this process.
    pub incarnation: IncarnationId,
    /// The wall clock.
    pub clock: Clock,
}

impl Plan {
    /// Digest of what must not change when the run is resumed.
    pub(crate) fn digest(&self) -> String {
        let settings = json!({
            "candidate": self.candidate.digest_text(),
            "lane": self.lane.as_str(),
            "trials": self.trials,
            "seed": self.seed,
            "faults": self.faults.clone().unwrap_or_default(),
            "model": self.model,
            "tools": format!("{:?}", self.tools),
            "delay_scale": self.delay_scale,
            "delay_cap_ms": u64::try_from(self.delay_cap.as_millis()).unwrap_or(u64::MAX),
        });
        blake3::hash(canonical(&settings).as_bytes()).to_hex().to_string()
    }
}

/// A trial to be played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedTrial {
    /// The case.
    pub(crate) case: CaseId,
    /// Its number within the case, from 0.
    pub(crate) trial: u32,
    /// Its seed, the same in both lanes.
    pub(crate) seed: u64,
    /// What its exchanges are stored under.
    pub(crate) session: SessionId,
}

/// Lists the trials: the first of every case in seeded order, then the second of every case, so that a run that is
/// interrupted has not played some cases only.
pub(crate) fn trials<'a>(
    cases: impl IntoIterator<Item = &'a CaseId>,
    lane: Lane,
    count: u32,
    run_seed: u64,
) -> Vec<PlannedTrial> {
    let mut cases: Vec<&CaseId> = cases.into_iter().collect();
    let place = |case: &CaseId, trial: u32| {
        let parts: [&[u8]; 3] = [&run_seed.to_le_bytes(), &trial.to_le_bytes(), case.as_str().as_bytes()];
        seed::digest("foreshadow 2026 trial order v1", &parts)
    };
    let mut planned = Vec::new();
    for trial in 0..count {
        cases.sort_by_cached_key(|case| place(case, trial));
        planned.extend(cases.iter().map(|case| PlannedTrial {
            case: (*case).clone(),
            trial,
            seed: trial_seed(run_seed, case, trial),
            session: session_of(case, lane, trial),
        }));
    }
    planned
}

/// `<case>~<lane>~<trial>`; a case whose name is too long for that is named by its hash.
fn session_of(case: &CaseId, lane: Lane, trial: u32) -> SessionId {
    let named = SessionId::parse(&format!("{case}~{}~{trial}", lane.as_str()));
    named.unwrap_or_else(|_| {
        let hash = blake3::hash(case.as_str().as_bytes()).to_hex();
        SessionId::parse(&format!("{hash}~{}~{trial}", lane.as_str())).expect("a hash is short and plain")
    })
}

/// The name by which the candidate knows a trial: 32 hexadecimal digits, another one at each start of the process, so
/// that what a service remembers of an interrupted trial is not mixed into its repetition.
pub(crate) fn token(incarnation: &IncarnationId, session: &SessionId) -> String {
    let parts = [incarnation.as_str().as_bytes(), session.as_str().as_bytes()];
    let digest = seed::digest("foreshadow 2026 trial token v1", &parts);
    let hex = blake3::Hash::from_bytes(digest).to_hex();
    hex.as_str()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn cases(count: usize) -> Vec<CaseId> {
        (0..count).map(|n| CaseId::parse(&format!("case-{n}")).expect("id")).collect()
    }

    fn bytes(cases: &[CaseId], seed: u64) -> String {
        serde_json::to_string(&trials(cases, Lane::Candidate, 3, seed)).expect("plain values")
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let cases = cases(20);
        let turned: Vec<CaseId> = cases.iter().rev().cloned().collect();
        assert_eq!(bytes(&cases, 7), bytes(&turned, 7));
        assert_ne!(bytes(&cases, 7), bytes(&cases, 8));
    }

    #[test]
    fn every_case_is_played_before_any_is_played_again() {
        let planned = trials(&cases(20), Lane::Baseline, 3, 1);
        assert_eq!(planned.len(), 60);
        for round in planned.chunks(20) {
            let distinct: BTreeSet<&CaseId> = round.iter().map(|trial| &trial.case).collect();
            assert_eq!(distinct.len(), 20);
        }
        let sessions: BTreeSet<&SessionId> = planned.iter().map(|trial| &trial.session).collect();
        assert_eq!(sessions.len(), 60);
    }

    #[test]
    fn both_lanes_get_the_same_seeds() {
        let seeds = |lane| -> BTreeSet<(CaseId, u32, u64)> {
            trials(&cases(9), lane, 2, 5).into_iter().map(|t| (t.case, t.trial, t.seed)).collect()
        };
        assert_eq!(seeds(Lane::Baseline), seeds(Lane::Candidate));
    }

    #[test]
    fn a_long_case_still_has_a_session() {
        let case = CaseId::parse(&"x".repeat(512)).expect("id");
        assert!(session_of(&case, Lane::Candidate, 0).as_str().ends_with("~candidate~0"));
    }
}
