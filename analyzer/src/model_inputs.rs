//! Whether the recorded model answered the requests that it was asked.
//!
//! With `--model recorded` the answers belong to the recorded requests. A candidate with another prompt, model, tool list or
//! parameter gets the same answers, so its trials say nothing about that change. A difference that both builds share, such
//! as today's date, is no change of the candidate.

use std::collections::BTreeSet;

use crate::pairs::{Arm, Pairs};

/// Comparison of the model requests of both lanes with the recorded ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelInputsCheck {
    baseline: Counts,
    candidate: Counts,
    /// A difference of one lane only, and the lane.
    first: Option<(&'static str, String)>,
    /// A difference that both lanes share.
    shared: Option<String>,
    /// Cases with a difference of one lane only.
    changed_cases: usize,
    /// Cases in which only this lane, baseline or candidate, continued a history that was not recorded.
    own_history: [u32; 2],
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Trials that say how their requests compare.
    trials: u64,
    compared: u64,
    changed: u64,
}

/// Compares the lanes case by case.
pub(crate) fn judge(pairs: &Pairs<'_>) -> ModelInputsCheck {
    let mut check = ModelInputsCheck::default();
    for case in pairs.paired() {
        check.baseline.add(&case.baseline);
        check.candidate.add(&case.candidate);
        let (before, after) = (changes(&case.baseline), changes(&case.candidate));
        let added = after.difference(&before).next().map(|change| ("candidate", *change));
        // A lane that made fewer requests cannot show every difference.
        let is_comparable =
            longest(&case.candidate) > 0 && longest(&case.candidate) >= longest(&case.baseline);
        let removed = before.difference(&after).next().filter(|_| is_comparable);
        let found = added.or(removed.map(|change| ("baseline", *change)));
        check.changed_cases += usize::from(found.is_some());
        let histories = [leaves_history(&case.baseline), leaves_history(&case.candidate)];
        check.own_history[0] += u32::from(histories == [true, false]);
        check.own_history[1] += u32::from(histories == [false, true]);
        check.first = check.first.take().or(found.map(|(lane, change)| (lane, change.to_owned())));
        check.shared = check.shared.take().or(before.intersection(&after).next().map(ToString::to_string));
    }
    check
}

impl Counts {
    fn add(&mut self, arm: &Arm<'_>) {
        for inputs in arm.trials.iter().filter_map(|record| record.trial.model_inputs.as_ref()) {
            self.trials += 1;
            self.compared += u64::from(inputs.compared);
            self.changed += u64::from(inputs.changed);
        }
    }
}

/// The distinct differences of an arm, in order.
fn changes<'a>(arm: &Arm<'a>) -> BTreeSet<&'a str> {
    let inputs = arm.trials.iter().filter_map(|record| record.trial.model_inputs.as_ref());
    inputs.flat_map(|inputs| &inputs.changes).map(String::as_str).collect()
}

/// The largest number of compared requests of a trial.
fn longest(arm: &Arm<'_>) -> u32 {
    let inputs = arm.trials.iter().filter_map(|record| record.trial.model_inputs.as_ref());
    inputs.map(|inputs| inputs.compared).max().unwrap_or(0)
}

/// Whether a recorded answer was given to a history that was not recorded, by its number in the trial alone.
fn leaves_history(arm: &Arm<'_>) -> bool {
    let recorded = arm.trials.iter().filter(|record| record.trial.model_inputs.is_some());
    recorded.filter_map(|record| record.trial.model_fidelity).any(|counts| counts.derived > 0)
}

/// P(at least `count` of `total`) for a fair coin.
fn at_least_half(count: u32, total: u32) -> f64 {
    // Logarithms, because the probability of one outcome underflows beyond a thousand cases.
    let mut log_term = -f64::from(total) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for heads in 0..=total {
        tail += if heads >= count { log_term.exp() } else { 0.0 };
        log_term += f64::from(total - heads).ln() - f64::from(heads + 1).ln();
    }
    tail
}

impl ModelInputsCheck {
    /// Why approval does not follow, if the candidate's histories leave the recording in more cases than the baseline's.
    ///
    /// Harm can still be shown: what the candidate did before and besides is its own doing. Equal builds leave the recording
    /// equally often, so a case in which only one lane does is a fair coin (sign test).
    pub(crate) fn history_failure(&self, alpha: f64) -> Option<String> {
        let [baseline, candidate] = self.own_history;
        let differs = candidate > baseline && at_least_half(candidate, baseline + candidate) <= alpha;
        differs.then(|| {
            format!(
                "in {candidate} case(s) only the candidate's model requests continue a history that was not recorded (only the                  baseline's in {baseline}), because its tool calls, their results as it passes them on, or its own messages                  differ. The recorded answers belong to other histories, so they do not show that the candidate is as good;                  replay both builds with --model live"
            )
        })
    }

    /// Why neither approval nor a block follows from the metrics, if the lanes' requests differ.
    pub(crate) fn failure(&self) -> Option<String> {
        let (lane, change) = self.first.as_ref()?;
        let Self { baseline, candidate, changed_cases, .. } = self;
        Some(format!(
            "the model requests of the {lane} differ from the recording's in a way that those of the other lane do not, in \
             {changed_cases} case(s); first: {change}. Of the compared requests {} of {} of the candidate differ from the \
             recording's, and {} of {} of the baseline. The recorded answers belong to other requests, so the trials show \
             nothing about this change; replay both builds with --model live",
            candidate.changed, candidate.compared, baseline.changed, baseline.compared
        ))
    }

    /// What the recorded model let the trials test; `None` if no recorded model answered.
    pub(crate) fn note(&self) -> Option<String> {
        let Self { baseline, candidate, first, shared, .. } = self;
        if baseline.trials + candidate.trials == 0 || first.is_some() {
            return None;
        }
        let scope = "the verdict is about the tools and the orchestration code of the build, not about prompt, model or \
                     parameters; replay with --model live to test those";
        if candidate.compared == 0 {
            let text = "the recording answers model calls (--model recorded), and the candidate made none that it answered";
            return Some(format!("{text}; {scope}"));
        }
        let Some(shared) = shared else {
            return Some(format!(
                "the recording answered the model calls (--model recorded): prompt, model, tools and parameters of all {} \
                 compared requests equal the recording's, so {scope}",
                baseline.compared + candidate.compared
            ));
        };
        Some(format!(
            "the recording answered the model calls (--model recorded): {} of {} compared requests of the candidate and {} of \
             {} of the baseline differ from the recording's, in the same way in both lanes (first: {shared}); so {scope}",
            candidate.changed, candidate.compared, baseline.changed, baseline.compared
        ))
    }
}

#[cfg(test)]
mod tests {
    use schemas::trial::{Lane, ModelInputs};

    use super::*;
    use crate::fixture::{record, run};

    fn check(baseline: &[(u32, &[&str])], candidate: &[(u32, &[&str])]) -> ModelInputsCheck {
        let lane = |lane, trials: &[(u32, &[&str])]| {
            let records = trials.iter().zip(0..).map(|((compared, changes), number)| {
                let mut record = record("c", number, Vec::new());
                record.trial.model_inputs = Some(ModelInputs {
                    compared: *compared,
                    changed: u32::try_from(changes.len()).expect("few"),
                    changes: changes.iter().map(ToString::to_string).collect(),
                    ..ModelInputs::default()
                });
                record
            });
            run(lane, records.collect())
        };
        let (baseline, candidate) = (lane(Lane::Baseline, baseline), lane(Lane::Candidate, candidate));
        let pairs = Pairs::new(&baseline, &candidate, None).expect("pairs");
        judge(&pairs)
    }

    #[test]
    fn a_change_of_one_lane_is_named_and_a_shared_one_is_not() {
        let same = check(&[(2, &["date"]), (2, &["date"])], &[(2, &["date"])]);
        assert_eq!(same.failure(), None);
        assert!(same.note().expect("a note").contains("in the same way in both lanes (first: date)"));
        let changed = check(&[(2, &["date"])], &[(2, &["date", "prompt"])]);
        assert!(
            changed.failure().expect("a failure").contains("of the candidate differ from the recording's")
        );
        assert!(changed.failure().expect("a failure").contains("first: prompt"));
        assert_eq!(changed.note(), None);
        let reverted = check(&[(2, &["prompt"])], &[(2, &[])]);
        assert!(reverted.failure().expect("a failure").contains("requests of the baseline differ"));
    }

    #[test]
    fn a_candidate_that_stops_early_does_not_lack_the_baselines_differences() {
        assert_eq!(check(&[(3, &["late"])], &[(1, &[])]).failure(), None);
        assert_eq!(check(&[(3, &["late"])], &[(0, &[])]).failure(), None);
    }

    #[test]
    fn equal_requests_leave_the_orchestration_as_what_was_tested() {
        let note = check(&[(2, &[])], &[(2, &[])]).note().expect("a note");
        assert!(note.contains("all 4 compared requests equal the recording's"), "{note}");
        assert!(note.contains("not about prompt"), "{note}");
        let none = check(&[(0, &[])], &[(0, &[])]).note().expect("a note");
        assert!(none.contains("the candidate made none that it answered"), "{none}");
    }

    #[test]
    fn a_candidate_whose_histories_were_not_recorded_is_not_approved() {
        let of = |own_history| {
            ModelInputsCheck { own_history, ..ModelInputsCheck::default() }.history_failure(0.05)
        };
        assert!(of([0, 5]).is_some() && of([3, 20]).is_some());
        assert_eq!([of([0, 4]), of([0, 0]), of([9, 12]), of([20, 0])], [None, None, None, None]);
        assert!((at_least_half(5, 5) - 1.0 / 32.0).abs() < 1e-12);
        assert!((at_least_half(2, 3) - 0.5).abs() < 1e-12);
        assert!(at_least_half(2_001, 4_000) > 0.4);
    }
}
