//! Input of the analyzer: a run of trials with their tool calls, as plain values.
//!
//! The caller reads the run from its files and passes only what the decision needs, without bodies.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemas::canonical::canonical_text;
use schemas::exchange::{Effect, Ending};
use schemas::trial::{ImportRecord, Lane, RunManifest, Trial, TrialEnding};

use crate::embedding::AnswerEmbedding;
use crate::scores::TrialScore;

/// A run: trials of one lane, and the recordings of their cases if the run contains them.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Name in the verdict: the path that the run was read from.
    pub name: String,
    /// Manifest of the run.
    pub manifest: RunManifest,
    /// Trials in any order, of lane [`RunManifest::lane`] and of lane `recorded`.
    pub trials: Vec<TrialRecord>,
    /// Notes on reading the run; the verdict repeats them.
    pub notes: Vec<String>,
    /// Records of the imported files, by commit; empty for a replayed run.
    pub imports: Vec<ImportRecord>,
}

/// Gives every tool one effect in all runs, and adds a note to the first run if that changes an effect.
///
/// An effect belongs to the tool, not to the run that declares it. If only one run declared it, the other run would
/// seem to write nothing, and identical builds would differ. A declared effect applies to all runs. If one run
/// declares `read` and another `write`, the effect is `write`.
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
            "the runs declare different effects for these tools; a declared effect applies to all runs, and write takes \
             precedence over read: {}",
            names.join(", ")
        ));
    }
}

/// A trial with the parts of its exchanges that the decision needs.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialRecord {
    /// Row of the trial.
    pub trial: Trial,
    /// Tool calls in the order in which they started.
    pub calls: Vec<ToolCall>,
    /// Duration of each turn, microseconds; empty if the transcript does not contain it.
    pub turns_us: Vec<u64>,
    /// Embedding of the answers; absent if they were not embedded.
    pub embedding: Option<AnswerEmbedding>,
    /// User turns in order; empty without a transcript.
    pub user_turns: Vec<UserTurn>,
    /// Scores by evaluator, in the evaluators' order.
    pub scores: Vec<TrialScore>,
}

/// A message of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTurn {
    /// Number of the trial's tool calls before the message.
    pub calls_before: usize,
    /// Text of the message.
    pub text: String,
}

/// A tool call of a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Sequence number of the exchange within its session.
    pub seq: u32,
    /// Name of the tool.
    pub tool: String,
    /// Arguments in canonical JSON; absent if they could not be parsed.
    pub arguments: Option<String>,
    /// Arguments verbatim, if they could not be parsed.
    pub arguments_verbatim: Option<String>,
    /// Text by which the call is compared with others, set by [`crate::compare_arguments`]; without it, calls are compared by
    /// their canonical arguments.
    pub compared: Option<ComparedArguments>,
    /// Declared effect of the tool on the outside world.
    pub effect: Effect,
    /// Ending of the exchange.
    pub ending: Ending,
    /// HTTP status of the response.
    pub status: Option<u16>,
    /// Whether the tool reported a failure.
    pub is_error: Option<bool>,
    /// Whether the effect can be undone; absent if undeclared.
    pub reversible: Option<bool>,
    /// Whether repeating the call changes nothing more; absent if undeclared.
    pub idempotent: Option<bool>,
    /// Duration, microseconds.
    pub duration_us: Option<u64>,
    /// Start, UTC, microseconds since 1970.
    pub at: i64,
    /// Result as text; absent if no invariant reads it.
    pub result: Option<String>,
}

/// Comparison text of a call. It holds for the arguments from which it was made, so a changed copy of a call, as the mutation
/// checks make, is compared by its own arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedArguments {
    of: blake3::Hash,
    text: String,
}

impl ComparedArguments {
    pub(crate) fn new(call: &ToolCall, text: String) -> Self {
        Self { of: Self::hash(call), text }
    }

    fn is_of(&self, call: &ToolCall) -> bool {
        self.of == Self::hash(call)
    }

    fn hash(call: &ToolCall) -> blake3::Hash {
        blake3::hash(call.arguments_text().as_bytes())
    }
}

impl Run {
    /// Trials of the run's own lane.
    pub fn own(&self) -> impl Iterator<Item = &TrialRecord> {
        self.trials.iter().filter(|record| record.trial.lane == self.manifest.lane)
    }

    /// Recordings of the run's cases; empty if the run itself is of lane `recorded`.
    pub fn recordings(&self) -> impl Iterator<Item = &TrialRecord> {
        let other = self.manifest.lane != Lane::Recorded;
        self.trials.iter().filter(move |record| other && record.trial.lane == Lane::Recorded)
    }
}

impl TrialRecord {
    /// Builds a trial of which only the row is known, as in an outcome table.
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

    /// Whether the trial ended without being cut off, so that it has an outcome if anything scores it.
    #[must_use]
    pub(crate) fn ended_by_itself(&self) -> bool {
        match self.trial.ending {
            TrialEnding::Truncated | TrialEnding::Infrastructure => false,
            TrialEnding::Complete | TrialEnding::Failed | TrialEnding::TimedOut => true,
        }
    }

    /// Number of the first exchange that the recording could not answer; absent if it answered all, or the trial was imported.
    ///
    /// What follows it answers the world's error and not the recorded situation, so it shows nothing about the build.
    #[must_use]
    pub fn first_miss(&self) -> Option<u32> {
        let missed = self.trial.fidelity.is_some_and(|fidelity| fidelity.missed > 0);
        let is_miss = |kind: &str| kind.ends_with("_missed") || kind == "request_refused";
        let first = self.trial.divergences.iter().filter(|one| is_miss(&one.kind)).map(|one| one.seq).min();
        missed.then(|| first.unwrap_or(0))
    }

    /// The trial up to its first miss, with the call that missed and without an answer; the trial itself if there is none.
    #[must_use]
    pub(crate) fn until_miss(&self) -> Cow<'_, Self> {
        let Some(seq) = self.first_miss() else { return Cow::Borrowed(self) };
        let mut cut = self.clone();
        cut.calls.retain(|call| call.seq <= seq);
        let kept = cut.calls.len();
        cut.user_turns.retain(|turn| turn.calls_before <= kept);
        cut.turns_us.clear();
        (cut.trial.answer, cut.trial.duration_us) = (None, None);
        Cow::Owned(cut)
    }

    /// Whether exchanges of the trial were lost. An incomplete trial counts as missing.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.trial.complete == Some(false)
    }
}

impl ToolCall {
    /// Whether the call wrote or may have written: a declared write that the tool did not refuse.
    ///
    /// A write whose response was lost, or was a server error, counts, because it may have been carried out. A write
    /// that the replay could not answer counts too, because the candidate attempted it. Status 503 is a refusal: the
    /// request was not processed (RFC 9110 section 15.6.4).
    #[must_use]
    pub fn wrote(&self) -> bool {
        let server_error = self.status.is_some_and(|status| status >= 500 && status != 503);
        let unanswered = self.ending != Ending::Complete || server_error;
        self.effect == Effect::Write && (unanswered || self.is_error != Some(true))
    }

    /// Whether the tool refused the call, so that it was certainly not carried out.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        let server_error = self.status.is_some_and(|status| status >= 500 && status != 503);
        self.ending == Ending::Complete && !server_error && self.is_error == Some(true)
    }

    /// Whether the response says that the call was carried out.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        let failed = self.status.is_some_and(|status| status >= 400);
        self.ending == Ending::Complete && !failed && self.is_error != Some(true)
    }

    /// Text by which the call is compared with others of its tool: canonical JSON, loosened where that is declared or learned.
    #[must_use]
    pub fn compared_text(&self) -> Cow<'_, str> {
        if let Some(compared) = self.compared.as_ref().filter(|compared| compared.is_of(self)) {
            return Cow::Borrowed(&compared.text);
        }
        match self.arguments.as_deref().and_then(canonical_text) {
            Some(text) => Cow::Owned(text),
            None => Cow::Borrowed(self.arguments_text()),
        }
    }

    /// Arguments as printed: canonical, else verbatim, else empty.
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
