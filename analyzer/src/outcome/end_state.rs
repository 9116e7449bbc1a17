//! The built-in end-state check, and the cases in which it cannot fail.
//!
//! A trial passes if it is complete, keeps the declared invariants, made exactly the recorded writes, and answers where the
//! recording answers. In a session that only reads, the answer is all there is: it fails where it is further from the recorded
//! answer than answers to different cases usually are from each other, and also fits that case no better than others. A
//! build that says the same in another tone moves away from all recordings alike, and passes.
//!
//! Every comparison is with the recording, never with the other trials of a lane, so identical builds stay exchangeable.
//! For the same reason the check is tried on changed recordings: they stand for changed trials of either lane, and the
//! choice of the cases that count depends on no trial.

use std::collections::BTreeMap;

use schemas::id::CaseId;
use schemas::trial::TrialEnding;

use crate::cast::to_u64;
use crate::embedding::AnswerEmbedding;
use crate::invariants::{self, Invariant};
use crate::pairs::{PairedCase, Pairs};
use crate::policy::Policy;
use crate::run::TrialRecord;
use crate::writes;

/// Largest number of recordings whose distances to each other are measured; these are spread evenly over the cases.
const RECORDINGS_COMPARED: usize = 64;

/// Largest number of other cases whose answers are tried on a case.
const ANSWERS_TRIED: usize = 16;

/// Arguments that no session has.
const OTHER_ARGUMENTS: &str = r#"{"foreshadow-changed":true}"#;

/// The check, ready for the cases of two runs.
#[derive(Debug)]
pub(crate) struct EndState<'a> {
    invariants: Vec<Invariant<'a>>,
    /// What recorded answers are compared by, if the answers of all recordings and trials were embedded by one model.
    scale: Option<AnswerScale<'a>>,
    /// Cases in which no changed recording fails.
    vacuous: BTreeMap<&'a CaseId, Vacuity>,
}

/// Distances between the recorded answers of different cases.
#[derive(Debug)]
struct AnswerScale<'a> {
    /// Median distance between two of them.
    median: f64,
    /// Recordings that an answer is compared with, spread evenly over the cases.
    compared: Vec<&'a AnswerEmbedding>,
}

impl AnswerScale<'_> {
    /// Whether an answer is far from the recorded one, and no nearer to it than to the recordings of most other cases.
    fn is_elsewhere(&self, recorded: &AnswerEmbedding, answer: &AnswerEmbedding) -> bool {
        let distance = recorded.distance(answer);
        if distance <= self.median {
            return false;
        }
        let others = self.compared.iter().filter(|other| !std::ptr::eq(**other, recorded));
        let mut distances: Vec<f64> = others.map(|other| other.distance(answer)).collect();
        distances.sort_by(f64::total_cmp);
        distances.get(distances.len() / 2).is_none_or(|usual| distance >= *usual)
    }
}

/// Reason why the check cannot fail in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vacuity {
    /// The recorded session only reads and has no answer.
    NoAnswer,
    /// The recorded session only reads, and the meaning of answers cannot be compared.
    NotEmbedded,
    /// The recorded session only reads, and answers of other cases pass too.
    AnswersAlike,
    /// Changed writes pass too.
    WritesAlike,
}

impl Vacuity {
    /// The reason in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoAnswer => "the recorded session writes nothing and has no answer",
            Self::NotEmbedded => {
                "the recorded session writes nothing, so its answer is all there is, and the answers have no embeddings \
                 of one model (foreshadow score adds them)"
            }
            Self::AnswersAlike => {
                "the recorded session writes nothing, and answers of other cases would pass too"
            }
            Self::WritesAlike => "changed writes would pass too",
        }
    }
}

/// A change of a recording that the check must notice.
#[derive(Debug, Clone, Copy)]
enum Change {
    LastWriteRemoved,
    ArgumentsChanged,
    CallsRemoved,
    AnswerEmptied,
}

const CHANGES: [Change; 4] =
    [Change::LastWriteRemoved, Change::ArgumentsChanged, Change::CallsRemoved, Change::AnswerEmptied];

impl<'a> EndState<'a> {
    /// Prepares the check and tries it on changed recordings.
    pub(crate) fn new(policy: &'a Policy, pairs: &'a Pairs<'a>) -> Self {
        let mut check = Self {
            invariants: Invariant::declared(&policy.invariant),
            scale: scale(pairs),
            vacuous: BTreeMap::new(),
        };
        let cases: Vec<(&'a CaseId, &'a TrialRecord)> =
            pairs.paired().filter_map(|case| Some((case.case, reference(case)?))).collect();
        for (place, (case, recorded)) in cases.iter().enumerate() {
            let others = (1..cases.len().min(ANSWERS_TRIED + 1))
                .map(|step| cases[(place + step) % cases.len()].1)
                .filter(|other| other.embedding.is_some());
            if let Some(why) = check.vacuity(recorded, others) {
                check.vacuous.insert(case, why);
            }
        }
        check
    }

    /// Whether a trial passes; absent if its answer cannot be compared. Cases in which the check cannot fail have no
    /// outcome ([`Self::vacuity_of`]).
    pub(crate) fn passes(&self, recorded: &TrialRecord, record: &TrialRecord) -> Option<bool> {
        let good = record.trial.ending == TrialEnding::Complete
            && invariants::keeps_all(&self.invariants, record)
            && writes::distinct(record) == writes::distinct(recorded)
            && (is_blank(recorded) || !is_blank(record));
        if !good || !only_reads(recorded) {
            return Some(good);
        }
        let scale = self.scale.as_ref()?;
        Some(!scale.is_elsewhere(recorded.embedding.as_ref()?, record.embedding.as_ref()?))
    }

    /// Reason why the check cannot fail in this case, if it cannot.
    pub(crate) fn vacuity_of(&self, case: &PairedCase<'_>) -> Option<Vacuity> {
        self.vacuous.get(case.case).copied()
    }

    /// Number of cases by the reason why the check cannot fail.
    pub(crate) fn vacuous_cases(&self) -> BTreeMap<Vacuity, u64> {
        let mut counts = BTreeMap::new();
        for why in self.vacuous.values() {
            *counts.entry(*why).or_insert(0) += 1;
        }
        counts
    }

    fn vacuity<'r>(
        &self,
        recorded: &TrialRecord,
        mut others: impl Iterator<Item = &'r TrialRecord>,
    ) -> Option<Vacuity> {
        if !only_reads(recorded) {
            let mut mutants = CHANGES.iter().filter_map(|change| changed(recorded, *change));
            let noticed = mutants.any(|mutant| self.passes(recorded, &mutant) == Some(false));
            return (!noticed).then_some(Vacuity::WritesAlike);
        }
        // An emptied answer fails in any such session. That is not enough: any other text must not pass.
        if is_blank(recorded) {
            return Some(Vacuity::NoAnswer);
        }
        let (Some(scale), Some(own)) = (&self.scale, &recorded.embedding) else {
            return Some(Vacuity::NotEmbedded);
        };
        let far = |other: &TrialRecord| {
            other.embedding.as_ref().is_some_and(|answer| scale.is_elsewhere(own, answer))
        };
        (!others.any(far)).then_some(Vacuity::AnswersAlike)
    }
}

/// The recording that trials of a case are compared with.
pub(crate) fn reference<'a>(case: &PairedCase<'a>) -> Option<&'a TrialRecord> {
    case.recorded.filter(|recorded| recorded.trial.has_transcript)
}

fn only_reads(recorded: &TrialRecord) -> bool {
    !recorded.calls.iter().any(crate::run::ToolCall::wrote)
}

fn is_blank(record: &TrialRecord) -> bool {
    record.trial.answer.as_ref().is_none_or(|answer| answer.trim().is_empty())
}

/// The changed recording; absent if there is nothing to change.
fn changed(recorded: &TrialRecord, change: Change) -> Option<TrialRecord> {
    let last = recorded.calls.iter().rposition(crate::run::ToolCall::wrote)?;
    let mut mutant = recorded.clone();
    mutant.trial.ending = TrialEnding::Complete;
    match change {
        Change::LastWriteRemoved => drop(mutant.calls.remove(last)),
        Change::ArgumentsChanged => {
            mutant.calls[last].arguments = Some(OTHER_ARGUMENTS.to_owned());
            mutant.calls[last].arguments_verbatim = None;
        }
        Change::CallsRemoved => mutant.calls.clear(),
        Change::AnswerEmptied => mutant.trial.answer = None,
    }
    Some(mutant)
}

/// Measures the distances between the recorded answers of different cases
/// (deploy/book/src/explanation/statistics.md has figures).
fn scale<'a>(pairs: &Pairs<'a>) -> Option<AnswerScale<'a>> {
    let references: Vec<&'a TrialRecord> = pairs.paired().filter_map(reference).collect();
    if !references.iter().any(|recorded| only_reads(recorded)) {
        return None;
    }
    let recorded: Vec<&'a AnswerEmbedding> =
        references.iter().filter_map(|recorded| recorded.embedding.as_ref()).collect();
    let first = *recorded.first()?;
    let trials = pairs.trials().filter_map(|record| record.embedding.as_ref());
    let alike = |one: &AnswerEmbedding| one.is_comparable(first);
    if !recorded.iter().copied().chain(trials).all(alike) {
        return None;
    }
    let step = recorded.len().div_ceil(RECORDINGS_COMPARED);
    let compared: Vec<&'a AnswerEmbedding> = recorded.into_iter().step_by(step.max(1)).collect();
    let mut distances = Vec::new();
    for (place, one) in compared.iter().enumerate() {
        distances.extend(compared[..place].iter().map(|other| one.distance(other)));
    }
    distances.sort_by(f64::total_cmp);
    Some(AnswerScale { median: *distances.get(distances.len() / 2)?, compared })
}

/// Reads that every baseline trial of a case makes, by tool, and how many candidate trials of these cases do not make
/// them. Only reported: an expectation taken from one lane must not score both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReadCounts {
    pub(crate) cases: u64,
    pub(crate) trials: u64,
    pub(crate) without: u64,
}

/// Counts the expected reads of all paired cases.
pub(crate) fn expected_reads<'a>(pairs: &Pairs<'a>) -> BTreeMap<&'a str, ReadCounts> {
    let mut counts: BTreeMap<&str, ReadCounts> = BTreeMap::new();
    for case in pairs.paired() {
        let known = |records: &[&'a TrialRecord]| -> Vec<&'a TrialRecord> {
            let is_known = |record: &&TrialRecord| {
                record.trial.has_transcript && record.trial.ending == TrialEnding::Complete
            };
            records.iter().copied().filter(is_known).collect()
        };
        let (baseline, candidate) = (known(&case.baseline.trials), known(&case.candidate.trials));
        let Some(first) = baseline.first().filter(|_| !candidate.is_empty()) else { continue };
        for tool in reads(first) {
            if baseline.iter().all(|record| reads(record).any(|other| other == tool)) {
                let count = counts.entry(tool).or_default();
                let without = candidate.iter().filter(|record| !reads(record).any(|other| other == tool));
                count.cases += 1;
                count.trials += to_u64(candidate.len());
                count.without += to_u64(without.count());
            }
        }
    }
    counts
}

/// Tools that the trial reads with, each once.
fn reads<'a>(record: &'a TrialRecord) -> impl Iterator<Item = &'a str> {
    let is_read = |call: &&'a crate::run::ToolCall| call.effect == schemas::exchange::Effect::Read;
    let tools: std::collections::BTreeSet<&str> =
        record.calls.iter().filter(is_read).map(|call| call.tool.as_str()).collect();
    tools.into_iter()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::{read, record, run, write};
    use crate::run::{Run, ToolCall};

    /// A trial that answers in a direction, in degrees.
    fn answering(case: usize, number: u32, degrees: f32, calls: Vec<ToolCall>) -> TrialRecord {
        let mut record = record(&format!("case-{case:03}"), number, calls);
        record.trial.answer = Some(format!("{degrees}"));
        let (sin, cos) = degrees.to_radians().sin_cos();
        record.embedding = AnswerEmbedding::of_turns(&Arc::from("m"), &[[cos, sin]]).ok();
        record
    }

    fn degrees(case: usize) -> f32 {
        f32::from(u8::try_from(case).expect("few cases")) * 9.0
    }

    fn lanes(change: impl Fn(usize, &mut TrialRecord)) -> (Run, Run) {
        let trial = |case: usize, number: u32| {
            let calls =
                if case.is_multiple_of(2) { vec![read("find", "{}")] } else { vec![write("refund", "{}")] };
            answering(case, number, degrees(case), calls)
        };
        let mut records: Vec<TrialRecord> = (0..20).map(|case| trial(case, 0)).collect();
        records.extend((0..20).map(|case| {
            let mut recorded = trial(case, 0);
            recorded.trial.lane = Lane::Recorded;
            recorded
        }));
        let baseline = run(Lane::Baseline, records);
        let candidate = (0..20).map(|case| {
            let mut record = trial(case, 0);
            change(case, &mut record);
            record
        });
        (baseline, run(Lane::Candidate, candidate.collect()))
    }

    fn passed(runs: &(Run, Run)) -> Vec<Option<bool>> {
        let policy = Policy::default();
        let pairs = Pairs::new(&runs.0, &runs.1, None).expect("two runs");
        let check = EndState::new(&policy, &pairs);
        let of = |case: &PairedCase<'_>| match check.vacuity_of(case) {
            Some(_) => None,
            None => check.passes(reference(case)?, case.candidate.trials[0]),
        };
        pairs.cases.iter().map(of).collect()
    }

    #[test]
    fn a_session_that_only_reads_is_judged_by_its_answer() {
        assert_eq!(passed(&lanes(|_, _| {})), [Some(true); 20]);
        let blank = passed(&lanes(|_, record| record.trial.answer = Some(" \n".to_owned())));
        assert_eq!(blank, [Some(false); 20], "an empty answer fails, also where the writes are right");
        let elsewhere = passed(&lanes(|case, record| {
            record.embedding = answering(case, 0, degrees(case) + 170.0, vec![]).embedding;
        }));
        let expected: Vec<_> = (0..20_usize).map(|case| Some(!case.is_multiple_of(2))).collect();
        assert_eq!(elsewhere, expected, "writes decide where the session writes");
    }

    #[test]
    fn without_embeddings_a_session_that_only_reads_cannot_fail_and_does_not_count() {
        let mut runs = lanes(|_, _| {});
        for record in runs.0.trials.iter_mut().chain(&mut runs.1.trials) {
            record.embedding = None;
        }
        let expected: Vec<_> = (0..20_usize).map(|case| (!case.is_multiple_of(2)).then_some(true)).collect();
        assert_eq!(passed(&runs), expected);
        let policy = Policy::default();
        let pairs = Pairs::new(&runs.0, &runs.1, None).expect("two runs");
        let counts = EndState::new(&policy, &pairs).vacuous_cases();
        assert_eq!(counts, BTreeMap::from([(Vacuity::NotEmbedded, 10)]));
    }

    #[test]
    fn answers_that_are_all_alike_tell_nothing() {
        let mut runs = lanes(|_, _| {});
        for record in runs.0.trials.iter_mut().chain(&mut runs.1.trials) {
            record.embedding = answering(0, 0, 10.0, vec![]).embedding;
        }
        let policy = Policy::default();
        let pairs = Pairs::new(&runs.0, &runs.1, None).expect("two runs");
        let counts = EndState::new(&policy, &pairs).vacuous_cases();
        assert_eq!(counts, BTreeMap::from([(Vacuity::AnswersAlike, 10)]));
    }

    #[test]
    fn reads_of_every_baseline_trial_are_expected() {
        let runs = lanes(|case, record| {
            if case < 10 {
                record.calls.clear();
            }
        });
        let pairs = Pairs::new(&runs.0, &runs.1, None).expect("two runs");
        let expected = ReadCounts { cases: 10, trials: 10, without: 5 };
        assert_eq!(expected_reads(&pairs), BTreeMap::from([("find", expected)]));
    }
}
