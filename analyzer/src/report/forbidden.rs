//! Hides forbidden texts in everything that the report shows of the trials.

use super::transcript::Transcripts;
use crate::invariants::Hider;
use crate::policy::Policy;
use crate::run::Run;

/// Replaces what the policy forbids by tokens, in the runs and transcripts of a report. The verdict is decided before, on
/// the trials as they were stored.
pub fn hide_forbidden(policy: &Policy, runs: &mut [&mut Run], transcripts: &mut Transcripts) {
    let Some(hider) = Hider::new(&policy.invariant) else { return };
    let hide = |text: Option<&mut String>| text.into_iter().for_each(|text| hider.hide(text));
    for record in runs.iter_mut().flat_map(|run| &mut run.trials) {
        let trial = &mut record.trial;
        hide(trial.answer.as_mut());
        hide(trial.ending_detail.as_mut());
        trial.divergences.iter_mut().for_each(|one| hide(Some(&mut one.detail)));
        trial.model_inputs.iter_mut().for_each(|inputs| hide(inputs.first_change.as_mut()));
        record.user_turns.iter_mut().for_each(|turn| hide(Some(&mut turn.text)));
        for call in &mut record.calls {
            hide(call.arguments.as_mut());
            hide(call.arguments_verbatim.as_mut());
            hide(call.result.as_mut());
        }
    }
    for run in runs.iter_mut() {
        run.notes.iter_mut().for_each(|note| hide(Some(note)));
    }
    for transcript in transcripts.values_mut() {
        transcript.results.values_mut().for_each(|result| hide(Some(result)));
        for turn in &mut transcript.turns {
            hide(turn.input.as_mut());
            hide(turn.output.as_mut());
        }
    }
}
