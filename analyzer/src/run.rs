//! What the analyzer is given: a run of trials with their tool calls, as plain values.
//!
//! Nothing here opens a file: the caller reads a run and hands over what the decision needs of it, without bodies.

use std::collections::{BTreeMap, BTreeSet};

use schemas::exchange::{Effect, Ending};
use schemas::trial::{Lane, RunManifest, Trial};

use crate::embedding::AnswerEmbedding;
use crate::scores::TrialScore;

/// A run: trials of one lane, and the recordings of their cases where the run carries them.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What it is called in the verdict: where it was read from.
    pub name: String,
    /// What it says of itself.
    pub manifest: RunManifest,
    /// Its trials in any order, of lane [`RunManifest::lane`] and of lane `recorded`.
    pub trials: Vec<TrialRecord>,
    /// Remarks on how it was read, repeated in the verdict.
    pub notes: Vec<String>,
}

/// Gives every tool one effect in all runs, and remarks in the first run where that changed anything.
///
/// An effect belongs to the tool, not to the run that declares it. Where only one run declares it, the other's calls
/// would seem to write nothing, and identical builds would differ. A declared effect holds for all runs; of `read` and
/// `write`, `write` holds.
pub fn unify_effects(runs: &mut [&mut Run]) {
    let mut effects: BTreeMap<String, BTreeSet<Effect>> = BTreeMap::new();
    for call in runs.iter().flat_map(|run| &run.trials).flat_map(|record| &record.calls) {
        match effects.get_mut(&call.tool) {
            Some(found) => {
                found.insert(call.effect);
            }
            None => {
                effects.insert(call.tool.clone(), BTreeSet::from([call.effect]));
            }
        }
    }
    effects.retain(|_, found| found.len() > 1);
    if effects.is_empty() {
        return;
    }
    let of =
        |found: &BTreeSet<Effect>| if found.contains(&Effect::Write) { Effect::Write } else { Effect::Read };
    let agreed: BTreeMap<String, Effect> =
        effects.iter().map(|(tool, found)| (tool.clone(), of(found))).collect();
    for call in runs.iter_mut().flat_map(|run| &mut run.trials).flat_map(|record| &mut record.calls) {
        if let Some(effect) = agreed.get(&call.tool) {
            call.effect = *effect;
        }
    }
    if let Some(run) = runs.first_mut() {
        let names: Vec<&str> = agreed.keys().map(String::as_str).collect();
        run.notes.push(format!(
            "the runs do not agree on what these tools do outside, so a declared effect holds for all of them, and write \
             before read: {}",
            names.join(", ")
        ));
    }
}

/// A trial and what is needed of its exchanges.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialRecord {
    /// The trial's row.
    pub trial: Trial,
    /// Its tool calls in the order in which they started.
    pub calls: Vec<ToolCall>,
    /// How long each of its turns took, microseconds; empty where the transcript does not say.
    pub turns_us: Vec<u64>,
    /// Its answers as one direction; absent where they were not embedded.
    pub embedding: Option<AnswerEmbedding>,
    /// What the caller said, in order; empty where no invariant looks at it.
    pub user_turns: Vec<UserTurn>,
    /// What evaluators say of it, in their order.
    pub scores: Vec<TrialScore>,
}

/// What the caller said in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTurn {
    /// How many of the trial's tool calls came before it.
    pub calls_before: usize,
    /// The text.
    pub text: String,
}

/// One tool call of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The exchange's number within its session.
    pub seq: u32,
    /// The tool's name.
    pub tool: String,
    /// Its arguments in canonical JSON; absent where they could not be parsed.
    pub arguments: Option<String>,
    /// Its arguments verbatim, where they could not be parsed.
    pub arguments_verbatim: Option<String>,
    /// What the call does outside.
    pub effect: Effect,
    /// How the exchange ended.
    pub ending: Ending,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// Whether the tool itself reported a failure.
    pub is_error: Option<bool>,
    /// The effect can be undone; absent where undeclared.
    pub reversible: Option<bool>,
    /// Repeating the call changes nothing more; absent where undeclared.
    pub idempotent: Option<bool>,
    /// How long it took, microseconds.
    pub duration_us: Option<u64>,
    /// When it started, UTC, microseconds since 1970.
    pub at: i64,
    /// What it returned, as text; absent where no invariant looks at it.
    pub result: Option<String>,
}

impl Run {
    /// The trials of the run's own lane.
    pub fn own(&self) -> impl Iterator<Item = &TrialRecord> {
        self.trials.iter().filter(|record| record.trial.lane == self.manifest.lane)
    }

    /// The recordings that the run carries of its cases; empty where the run itself is of lane `recorded`.
    pub fn recordings(&self) -> impl Iterator<Item = &TrialRecord> {
        let other = self.manifest.lane != Lane::Recorded;
        self.trials.iter().filter(move |record| other && record.trial.lane == Lane::Recorded)
    }
}

impl TrialRecord {
    /// A trial of which only its row is known, as of an outcome table.
    #[must_use]
    pub fn without_transcript(trial: Trial) -> Self {
        Self {
            trial,
            calls: Vec::new(),
            turns_us: Vec::new(),
            embedding: None,
            user_turns: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// A torn trial never votes: exchanges of it were lost.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.trial.complete == Some(false)
    }
}

impl ToolCall {
    /// Whether the call wrote, or may have: a declared write that the tool did not itself refuse.
    ///
    /// A write whose answer was lost, or was a server error, counts: nobody knows that it was not made. So does one that
    /// a replay's world could not answer: the candidate tried it. A 503 is a refusal: the request was not processed
    /// (RFC 9110 section 15.6.4).
    #[must_use]
    pub fn wrote(&self) -> bool {
        let server_error = self.status.is_some_and(|status| status >= 500 && status != 503);
        let unanswered = self.ending != Ending::Complete || server_error;
        self.effect == Effect::Write && (unanswered || self.is_error != Some(true))
    }

    /// Whether the call was surely not carried out: the tool itself said so.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        let server_error = self.status.is_some_and(|status| status >= 500 && status != 503);
        self.ending == Ending::Complete && !server_error && self.is_error == Some(true)
    }

    /// Whether the call was carried out, as far as its answer tells.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        let failed = self.status.is_some_and(|status| status >= 400);
        self.ending == Ending::Complete && !failed && self.is_error != Some(true)
    }

    /// The arguments as they are compared and shown: canonical, else verbatim, else empty.
    #[must_use]
    pub fn arguments_text(&self) -> &str {
        self.arguments.as_deref().or(self.arguments_verbatim.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{read, record, run, write};

    #[test]
    fn a_write_counts_unless_it_was_refused() {
        let with = |status, is_error| ToolCall { status, is_error, ..write("refund", "{}") };
        assert!(with(Some(200), Some(false)).wrote());
        assert!(with(Some(200), None).wrote(), "the world of a replay could not answer it");
        assert!(with(Some(504), Some(true)).wrote());
        assert!(!with(Some(200), Some(true)).wrote());
        assert!(!with(Some(503), Some(true)).wrote());
        assert!(ToolCall { ending: Ending::Failed, ..with(None, Some(true)) }.wrote());
    }

    #[test]
    fn an_effect_declared_in_one_run_holds_in_the_other() {
        let unknown = |mut call: ToolCall| {
            call.effect = Effect::Unknown;
            call
        };
        let calls = vec![unknown(write("refund", "{}")), unknown(read("look", "{}")), read("both", "{}")];
        let mut baseline = run(Lane::Baseline, vec![record("c", 0, calls)]);
        let calls = vec![write("refund", "{}"), read("look", "{}"), write("both", "{}")];
        let mut candidate = run(Lane::Candidate, vec![record("c", 0, calls)]);
        unify_effects(&mut [&mut baseline, &mut candidate]);
        let effects = |run: &Run| run.trials[0].calls.iter().map(|call| call.effect).collect::<Vec<_>>();
        assert_eq!(effects(&baseline), [Effect::Write, Effect::Read, Effect::Write]);
        assert_eq!(effects(&baseline), effects(&candidate));
        assert!(baseline.notes[0].contains("both, look, refund"), "{:?}", baseline.notes);
        let before = baseline.clone();
        unify_effects(&mut [&mut baseline, &mut candidate]);
        assert_eq!(baseline, before, "runs that agree are left alone");
    }
}
