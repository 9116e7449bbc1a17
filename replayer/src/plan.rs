//! The plan of a replay and its trials, in the order in which they start.
//!
//! Pure: the same corpus and seed give the same list of trials, byte for byte.

use std::time::Duration;

use schemas::canonical::canonical;
use schemas::equality::ArgumentRules;
use schemas::id::{AgentId, CaseId, IncarnationId, SessionId};
use schemas::keys::RootKey;
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;
use seeded::Key;
use serde::Serialize;
use serde_json::json;
use store::keyring::KeyRing;
use wire::trace_context::TRACE_ID_DIGITS;

use crate::candidate::Candidate;
use crate::clock::Clock;
use crate::faults::FaultRules;

/// Source of the answers to a candidate's model calls; `model` in `run.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ModelMode {
    /// The provider of `[model]` in the candidate file.
    Live,
    /// The recording.
    Recorded,
}

impl ModelMode {
    /// The value of `model` in `run.json`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Everything that determines a replay.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Store of the recorded sessions: a directory or a URL.
    pub store: String,
    /// Run that receives the trials: a directory or a `file://` URL.
    pub run: String,
    /// Keys of encrypted stores and runs.
    pub key_ring: KeyRing,
    /// The build under test.
    pub candidate: Candidate,
    /// Lane of the trials: `baseline` or `candidate`.
    pub lane: Lane,
    /// Trials of each case, at least 1.
    pub trials: u32,
    /// Size of the seeded sample of sessions; absent: all sessions.
    pub sessions: Option<usize>,
    /// Seed of sample, order of trials, trial seeds and faults.
    pub seed: u64,
    /// Trials in parallel, at least 1.
    pub concurrency: usize,
    /// Faults of tool calls; absent: none.
    pub faults: Option<FaultRules>,
    /// Source of model answers.
    pub model: ModelMode,
    /// Declared effects and schemas of tools.
    pub tools: ToolCatalog,
    /// Arguments that the policy declares to make no difference.
    pub arguments: ArgumentRules,
    /// Replays the sessions of this agent only.
    pub agent: Option<AgentId>,
    /// Continues an interrupted run.
    pub resume: bool,
    /// Factor for recorded tool delays, from 0.
    pub delay_scale: f64,
    /// Upper bound of a replayed tool delay, after scaling.
    pub delay_cap: Duration,
    /// A failed trial whose error contains one of these texts was failed by the infrastructure: it is missing.
    pub infrastructure: Vec<String>,
    /// Permits a command candidate, whose network access is not restricted.
    pub allow_open_egress: bool,
    /// Replays sessions of which no model or tool call was decoded; the world answers nothing in them.
    pub allow_undecoded: bool,
    /// Root of the keys that digest stored chunks.
    pub root_key: RootKey,
    /// `tool_version` in `run.json`.
    pub tool_version: String,
    /// Incarnation of this process; changes with each start.
    pub incarnation: IncarnationId,
    /// Source of timestamps.
    pub clock: Clock,
}

impl Plan {
    /// Digest of the settings that a resumed run must share.
    pub(crate) fn digest(&self) -> String {
        let mut settings = json!({
            "candidate": self.candidate.digest_text(),
            "lane": self.lane.as_str(),
            "trials": self.trials,
            "seed": self.seed,
            "faults": self.faults.clone().unwrap_or_default(),
            "model": self.model,
            "tools": format!("{:?}", self.tools),
            "delay_scale": self.delay_scale,
            "infrastructure": self.infrastructure,
            "delay_cap_ms": u64::try_from(self.delay_cap.as_millis()).unwrap_or(u64::MAX),
        });
        // Left out where nothing is declared, so that such a run can be resumed by any build.
        if !self.arguments.is_empty() {
            settings["arguments"] = json!(self.arguments);
        }
        blake3::hash(canonical(&settings).as_bytes()).to_hex().to_string()
    }
}

/// A trial of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PlannedTrial {
    pub(crate) case: CaseId,
    /// Number within the case, from 0.
    pub(crate) trial: u32,
    /// [`trial_seed`]; the same in both lanes.
    pub(crate) seed: u64,
    /// Session id of the trial's exchanges.
    pub(crate) session: SessionId,
}

/// Lists the trials: the first of every case in seeded order, then the second of every case, so that an interrupted run
/// covers all cases.
pub(crate) fn trials<'a>(
    cases: impl IntoIterator<Item = &'a CaseId>,
    lane: Lane,
    count: u32,
    run_seed: u64,
) -> Vec<PlannedTrial> {
    let mut cases: Vec<&CaseId> = cases.into_iter().collect();
    let sort_key = |case: &CaseId, trial: u32| {
        let parts: [&[u8]; 3] = [&run_seed.to_le_bytes(), &trial.to_le_bytes(), case.as_str().as_bytes()];
        Key::derive("foreshadow 2026 trial order v1", &parts)
    };
    let mut planned = Vec::new();
    for trial in 0..count {
        cases.sort_by_cached_key(|case| sort_key(case, trial));
        planned.extend(cases.iter().map(|case| PlannedTrial {
            case: (*case).clone(),
            trial,
            seed: trial_seed(run_seed, case, trial),
            session: session_of(case, lane, trial),
        }));
    }
    planned
}

/// The seed of a trial, below 2^53. It depends on run seed, case and trial number, so both lanes get the same.
#[must_use]
pub fn trial_seed(run_seed: u64, case: &CaseId, trial: u32) -> u64 {
    let parts: [&[u8]; 3] = [&run_seed.to_le_bytes(), case.as_str().as_bytes(), &trial.to_le_bytes()];
    Key::derive("foreshadow 2026 trial seed v1", &parts).number()
}

/// The session of a trial that earlier starts ran without result: `~r1` and so on behind its planned session.
pub(crate) fn session_of_repetition(trial: &PlannedTrial, lane: Lane, failures: u32) -> SessionId {
    if failures == 0 {
        return trial.session.clone();
    }
    SessionId::parse(&format!("{}~r{failures}", trial.session)).unwrap_or_else(|_| {
        let hash = blake3::hash(trial.case.as_str().as_bytes()).to_hex();
        let session = SessionId::parse(&format!("{hash}~{}~{}~r{failures}", lane.as_str(), trial.trial));
        session.expect("a hash is a valid session id")
    })
}

/// `<case>~<lane>~<trial>`, with the BLAKE3 hash of a case id that is too long.
fn session_of(case: &CaseId, lane: Lane, trial: u32) -> SessionId {
    let named = SessionId::parse(&format!("{case}~{}~{trial}", lane.as_str()));
    named.unwrap_or_else(|_| {
        let hash = blake3::hash(case.as_str().as_bytes()).to_hex();
        SessionId::parse(&format!("{hash}~{}~{trial}", lane.as_str())).expect("a hash is a valid session id")
    })
}

/// The token by which the candidate identifies a trial: 32 hexadecimal digits. It changes with each start of the
/// process, so that a service does not mix state of an interrupted trial into its repetition.
pub(crate) fn trial_token(incarnation: &IncarnationId, session: &SessionId) -> String {
    token("foreshadow 2026 trial token v1", &[incarnation.as_str().as_bytes(), session.as_str().as_bytes()])
}

/// The token of the probe: 32 hexadecimal digits.
pub(crate) fn probe_token(incarnation: &IncarnationId) -> String {
    token("foreshadow 2026 probe v1", &[incarnation.as_str().as_bytes()])
}

fn token(purpose: &str, parts: &[&[u8]]) -> String {
    let hex = blake3::Hash::from_bytes(*Key::derive(purpose, parts).bytes()).to_hex();
    hex.as_str()[..TRACE_ID_DIGITS].to_owned()
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
        let reversed: Vec<CaseId> = cases.iter().rev().cloned().collect();
        assert_eq!(bytes(&cases, 7), bytes(&reversed, 7));
        assert_ne!(bytes(&cases, 7), bytes(&cases, 8));
    }

    #[test]
    fn every_case_runs_once_before_any_runs_twice() {
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
    fn trial_seeds_are_frozen_and_distinct() {
        let case = CaseId::parse("case-1").expect("id");
        let other = CaseId::parse("case-11").expect("id");
        assert_eq!(trial_seed(1, &case, 0), 1_879_668_446_543_564);
        assert_ne!(trial_seed(1, &case, 0), trial_seed(1, &case, 1));
        assert_ne!(trial_seed(1, &case, 0), trial_seed(2, &case, 0));
        assert_ne!(trial_seed(1, &case, 0), trial_seed(1, &other, 0));
    }

    #[test]
    fn both_lanes_get_the_same_seeds() {
        let seeds = |lane| -> BTreeSet<(CaseId, u32, u64)> {
            trials(&cases(9), lane, 2, 5).into_iter().map(|t| (t.case, t.trial, t.seed)).collect()
        };
        assert_eq!(seeds(Lane::Baseline), seeds(Lane::Candidate));
    }

    #[test]
    fn a_case_id_of_maximal_length_has_a_session_id() {
        let case = CaseId::parse(&"x".repeat(512)).expect("id");
        assert!(session_of(&case, Lane::Candidate, 0).as_str().ends_with("~candidate~0"));
    }
}
