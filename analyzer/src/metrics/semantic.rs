//! Semantic metrics: drift and dispersion of the embedded answers.
//!
//! Drift is evidence of change and not of harm, so it decides only if the policy declares the build neutral.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::embedding::cosine_distance;
use crate::metrics::dispersion::{self, Form};
use crate::metrics::measured::spec;
use crate::metrics::{Measurement, Setting};
use crate::pairs::Pairs;
use crate::run::TrialRecord;
use crate::verdict::Unit;

/// Measures the family.
pub(crate) fn measure(setting: Setting<'_>, measurement: &mut Measurement) {
    let model = one_model(setting.pairs);
    for (name, form) in [("semantic.drift", Form::Drift), ("semantic.dispersion", Form::Dispersion)] {
        let measured = model.clone().and_then(|_| {
            let start = setting.start(spec(name), Unit::Distance);
            dispersion::measure(setting, start, form, direction, distance)
        });
        measurement.take(name, measured);
    }
    let without = setting.pairs.trials().filter(|record| record.embedding.is_none()).count();
    if model.is_ok() && without > 0 {
        measurement.notes.push(format!(
            "{without} trials have no embedded answer and are left out of the semantic metrics and of drift"
        ));
    }
}

/// Model that embedded the answers of all trials.
///
/// # Errors
///
/// Gives the reason why the answers cannot be compared: no embeddings, or embeddings of several models.
pub(crate) fn one_model(pairs: &Pairs<'_>) -> Result<String, String> {
    let embedded = pairs.trials().filter_map(|record| record.embedding.as_ref());
    let kinds: BTreeSet<(&str, usize)> =
        embedded.map(|embedding| (embedding.model(), embedding.vector().len())).collect();
    let mut listed = kinds.iter();
    match (listed.next(), listed.next()) {
        (None, _) => Err("no trial has an embedded answer".to_owned()),
        (Some((model, _)), None) => Ok((*model).to_owned()),
        (Some(_), Some(_)) => {
            let names: Vec<String> =
                kinds.iter().map(|(model, length)| format!("{model} ({length} numbers)")).collect();
            Err(format!(
                "the answers were embedded by different models, {}; embed both runs with one",
                names.join(" and ")
            ))
        }
    }
}

fn direction(record: &TrialRecord) -> Option<Arc<[f32]>> {
    record.embedding.as_ref().map(crate::embedding::AnswerEmbedding::shared)
}

fn distance(a: &Arc<[f32]>, b: &Arc<[f32]>) -> f64 {
    cosine_distance(a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::AnswerEmbedding;
    use crate::fixture::{record, run};
    use crate::policy::Policy;
    use crate::run::Run;
    use schemas::trial::Lane;

    /// A run whose trial `number` of case `case` answers in the direction `angle(case, number)`, in degrees.
    fn answers(lane: Lane, model: &str, angle: impl Fn(usize, u32) -> f64) -> Run {
        let model: Arc<str> = Arc::from(model);
        let mut records = Vec::new();
        for case in 0..50 {
            for number in 0..4 {
                let mut record = record(&format!("case-{case:03}"), number, vec![]);
                let (sin, cos) = angle(case, number).to_radians().sin_cos();
                let turn = [narrow(cos), narrow(sin)];
                record.embedding = AnswerEmbedding::of_turns(&model, &[turn]).ok();
                records.push(record);
            }
        }
        run(lane, records)
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest f32")]
    fn narrow(value: f64) -> f32 {
        value as f32
    }

    fn measured(before: &Run, after: &Run) -> Measurement {
        let pairs = Pairs::new(before, after, None).expect("two runs");
        let policy = Policy::default();
        let mut measurement = Measurement::default();
        measure(Setting { policy: &policy, pairs: &pairs, seed: 1 }, &mut measurement);
        measurement
    }

    /// Ten degrees around the case's own direction.
    fn usual(case: usize, number: u32) -> f64 {
        f64::from(u32::try_from(case).expect("few cases")) * 7.0 + 10.0 * f64::from(number)
    }

    #[test]
    fn drift_and_dispersion_are_told_apart() {
        let before = answers(Lane::Baseline, "m", usual);
        let mean = |measurement: &Measurement, place: usize| {
            let metric = &measurement.metrics[place];
            let sum: f64 = metric.observed.iter().map(crate::metrics::CaseTable::observed).sum();
            sum / crate::stats::variance::float(metric.observed.len())
        };
        let moved =
            measured(&before, &answers(Lane::Candidate, "m", |case, number| usual(case, number) + 15.0));
        assert_eq!(
            (moved.metrics[0].name.as_str(), moved.metrics[1].name.as_str()),
            ("semantic.drift", "semantic.dispersion")
        );
        assert!(mean(&moved, 0) < -0.01, "{}", mean(&moved, 0));
        assert!(mean(&moved, 1).abs() < 1e-6);
        // Mean distance within the baseline: (3 x (1 - cos 10) + 2 x (1 - cos 20) + (1 - cos 30)) / 6.
        let dispersion = 0.050_027_7;
        assert!((moved.metrics[0].margin - 0.1 * dispersion).abs() < 1e-6, "{}", moved.metrics[0].margin);
        // The range is that of all trials of a case, which lie further apart than those of the baseline.
        assert!(moved.metrics[0].high > 1.5 * dispersion, "{}", moved.metrics[0].high);
        assert!(!moved.metrics[0].decides && !moved.metrics[0].required);
        let wilder =
            measured(&before, &answers(Lane::Candidate, "m", |case, number| usual(case, 2 * number) - 15.0));
        assert!(mean(&wilder, 1) < -0.02, "{}", mean(&wilder, 1));
        let turned =
            measured(&answers(Lane::Baseline, "m", |case, number| usual(case, 2 * number) - 15.0), &before);
        assert!(
            (turned.metrics[1].high - wilder.metrics[1].high).abs() < 1e-12,
            "the range does not depend on which lane is the candidate"
        );
    }

    #[test]
    fn without_embeddings_or_with_two_models_they_are_absent() {
        let before = answers(Lane::Baseline, "m", usual);
        let other = measured(&before, &answers(Lane::Candidate, "other", usual));
        assert_eq!(other.absent.len(), 2);
        assert!(other.absent[0].reason.contains("m (2 numbers) and other (2 numbers)"), "{:?}", other.absent);
        let strip = |mut run: Run, kept: usize| {
            run.trials.iter_mut().skip(kept).for_each(|record| record.embedding = None);
            run
        };
        let candidate = answers(Lane::Candidate, "m", usual);
        let none = measured(&strip(before.clone(), 0), &strip(candidate.clone(), 0));
        assert_eq!(none.absent[1].reason, "no trial has an embedded answer");
        let some = measured(&before, &strip(candidate, 197));
        assert_eq!((some.metrics[0].observed.len(), some.metrics[0].left_out), (49, 3));
        assert!(some.notes[0].starts_with("3 trials have no embedded answer"), "{:?}", some.notes);
    }
}
