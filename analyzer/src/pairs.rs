//! Pairing: groups the trials of both runs by case and adds the recording of the case.
//!
//! Cases are sorted by id, so that nothing later depends on the order in which trials were read.

use std::collections::{BTreeMap, BTreeSet};

use schemas::id::CaseId;
use schemas::trial::{Lane, TrialEnding};

use crate::run::{Run, TrialRecord};
use crate::stats::stream::StreamKey;
use crate::stats::variance::float;
use crate::verdict::{NoOutcome, PairCounts};

/// Largest share of the trials of both lanes whose misses count as rare: the smallest default margin, so that what both lanes
/// lack cannot hide a change beyond it.
const RARE_MISSES: f64 = 0.02;

/// Trials of one case in one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arm<'a> {
    /// Complete trials that the infrastructure did not fail.
    pub(crate) trials: Vec<&'a TrialRecord>,
    /// Complete trials that the model provider or the infrastructure failed. They are missing, whatever the build made of it.
    pub(crate) lost: Vec<&'a TrialRecord>,
    /// Number of trials that are expected but not usable: lost, incomplete, or expected of every case of the run and not there.
    pub(crate) missing: usize,
    /// Number of the missing trials that exist but are incomplete.
    pub(crate) incomplete: usize,
}

impl Arm<'_> {
    /// Number of trials that exist, complete or not.
    pub(crate) fn present(&self) -> usize {
        self.trials.len() + self.lost.len() + self.incomplete
    }
}

/// Cases of which only the number is known: planned ones that neither run has, and those of imported rows that name no
/// trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnseenCases {
    /// Number of cases.
    pub(crate) cases: usize,
    /// Baseline trials per case.
    pub(crate) baseline: usize,
    /// Candidate trials per case.
    pub(crate) candidate: usize,
    /// Number of the cases that were planned.
    planned: usize,
    /// Imported rows of each lane that name no trial, in excess of the expected trials that the lane lacks. The other
    /// cases stand for them.
    unattributed: [usize; 2],
}

impl UnseenCases {
    /// Trials of both lanes.
    pub(crate) fn trials(&self) -> usize {
        self.cases * (self.baseline + self.candidate)
    }

    /// Number of planned cases.
    pub(crate) fn planned(&self) -> usize {
        self.planned
    }

    /// Adds cases for the rows of each lane that name no trial. An expected trial that the lane lacks may be the one of such
    /// a row, so only rows in excess of those stand for trials that nothing else counts.
    fn with_unattributed(mut self, rows: [u64; 2], counts: &PairCounts) -> Self {
        let lacking = [counts.no_outcome_baseline.not_written, counts.no_outcome_candidate.not_written];
        let excess =
            |lane: usize| usize::try_from(rows[lane].saturating_sub(lacking[lane])).unwrap_or(usize::MAX);
        self.unattributed = [excess(0), excess(1)];
        let cases = |lane: usize, trials: usize| self.unattributed[lane].div_ceil(trials.max(1));
        self.cases += cases(0, self.baseline).max(cases(1, self.candidate));
        self
    }

    /// The part with this many cases, planned and other ones in proportion.
    fn part(&self, cases: usize) -> Self {
        let share = |number: usize| (number * cases).checked_div(self.cases).unwrap_or(cases);
        let unattributed = self.unattributed.map(|rows| (rows * cases).checked_div(self.cases).unwrap_or(0));
        Self { cases, planned: share(self.planned), unattributed, ..*self }
    }
}

/// A case and its trials.
#[derive(Debug, Clone)]
pub(crate) struct PairedCase<'a> {
    /// Id of the case.
    pub(crate) case: &'a CaseId,
    /// Trials of the current build.
    pub(crate) baseline: Arm<'a>,
    /// Trials of the new build.
    pub(crate) candidate: Arm<'a>,
    /// Recorded trial, if it is known and did not fail.
    pub(crate) recorded: Option<&'a TrialRecord>,
    /// Recorded trial, failed or not.
    pub(crate) recorded_any: Option<&'a TrialRecord>,
    /// Slices on which the trials agree.
    pub(crate) slices: BTreeMap<&'a str, &'a str>,
}

impl PairedCase<'_> {
    pub(crate) fn is_paired(&self) -> bool {
        !self.baseline.trials.is_empty() && !self.candidate.trials.is_empty()
    }
}

/// All cases of both runs.
#[derive(Debug, Clone)]
pub(crate) struct Pairs<'a> {
    /// Cases, sorted by id.
    pub(crate) cases: Vec<PairedCase<'a>>,
    /// Planned cases that neither run has.
    pub(crate) unseen: UnseenCases,
    /// Numbers of cases and trials.
    pub(crate) counts: PairCounts,
}

/// Runs that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// A run without trials.
    #[error("run {run} has no trial of lane {lane}; replay or import trials into it first")]
    Empty {
        /// Name of the run.
        run: String,
        /// Lane of the run.
        lane: &'static str,
    },
    /// A trial that a run contains twice.
    #[error(
        "run {run} has trial {trial} of case {case:?} twice (sessions {first} and {second}); import each file into a run once"
    )]
    Twice {
        /// Name of the run.
        run: String,
        /// Id of the case.
        case: String,
        /// Number of the trial.
        trial: u32,
        /// Session that was read first.
        first: String,
        /// Session that was read second.
        second: String,
    },
}

/// A trial number is shared if at least one case in this many has it.
const SHARED_NUMBER: usize = 5;

type Grouped<'a> = BTreeMap<&'a CaseId, BTreeMap<u32, &'a TrialRecord>>;

impl<'a> Pairs<'a> {
    /// Groups the trials of both runs.
    ///
    /// # Errors
    ///
    /// A run is empty or contains a trial twice.
    pub(crate) fn new(
        baseline: &'a Run,
        candidate: &'a Run,
        recorded: Option<&'a Run>,
    ) -> Result<Self, PairError> {
        let left = group(baseline, baseline.own())?;
        let right = group(candidate, candidate.own())?;
        for (run, grouped) in [(baseline, &left), (candidate, &right)] {
            if grouped.is_empty() {
                return Err(PairError::Empty { run: run.name.clone(), lane: run.manifest.lane.as_str() });
            }
        }
        let recordings = recordings(baseline, candidate, recorded)?;
        let names: BTreeSet<&CaseId> = left.keys().chain(right.keys()).copied().collect();
        let expected = [expected_trials(baseline, &left), expected_trials(candidate, &right)];
        let mut cases = Vec::with_capacity(names.len());
        for case in names {
            let recorded_any = recordings.get(case).and_then(|trials| trials.values().next().copied());
            let recorded = recorded_any.filter(|record| did_not_fail(record));
            let baseline = arm(left.get(case), expected[0]);
            let candidate = arm(right.get(case), expected[1]);
            let slices = slices(recorded_any, &baseline, &candidate);
            cases.push(PairedCase { case, baseline, candidate, recorded, recorded_any, slices });
        }
        let unseen = unseen(baseline, candidate, cases.len(), expected);
        let rows = [baseline, candidate].map(|run| run.imports.iter().map(|file| file.lost_rows).sum());
        let unseen = unseen.with_unattributed(rows, &count(&cases, unseen));
        let counts = count(&cases, unseen);
        Ok(Self { cases, unseen, counts })
    }

    /// Splits the complete trials of each case with at least two at random into two arms: identical builds.
    ///
    /// # Errors
    ///
    /// The run is empty or contains a trial twice.
    pub(crate) fn split(run: &'a Run, key: &StreamKey, number: u64) -> Result<Self, PairError> {
        let usable = |record: &&TrialRecord| !record.is_incomplete() && !is_lost(record);
        let own = group(run, run.own().filter(usable))?;
        if own.is_empty() {
            return Err(PairError::Empty { run: run.name.clone(), lane: run.manifest.lane.as_str() });
        }
        let recordings = recordings(run, run, None)?;
        let mut stream = key.stream(number);
        let mut cases = Vec::new();
        for (case, trials) in own {
            let mut trials: Vec<&TrialRecord> = trials.into_values().collect();
            if trials.len() < 2 {
                continue;
            }
            for place in 0..trials.len() - 1 {
                let left = u32::try_from(trials.len() - place).unwrap_or(u32::MAX);
                trials.swap(place, place + stream.below(left) as usize);
            }
            let candidate = trials.split_off(trials.len() / 2);
            let arm = |trials| Arm { trials, ..Arm::default() };
            let (baseline, candidate) = (arm(trials), arm(candidate));
            let recorded_any = recordings.get(case).and_then(|trials| trials.values().next().copied());
            let recorded = recorded_any.filter(|record| did_not_fail(record));
            let slices = slices(recorded_any, &baseline, &candidate);
            cases.push(PairedCase { case, baseline, candidate, recorded, recorded_any, slices });
        }
        let unseen = UnseenCases::default();
        let counts = count(&cases, unseen);
        Ok(Self { cases, unseen, counts })
    }

    /// Whether trials with a missed answer count the same in both lanes: once all as bad, once all as good.
    ///
    /// Both builds ask the same world, so where misses are rare, the ones that both have say nothing about their
    /// difference, and the excess of one lane still counts against it and for it. Otherwise they count as other missing
    /// trials do: those of the one lane as bad while those of the other are good.
    pub(crate) fn counts_misses_alike(&self) -> bool {
        let (mut all, mut missed) = (0_usize, 0_usize);
        for record in self.trials() {
            all += 1;
            missed += usize::from(record.first_miss().is_some());
        }
        float(missed) <= RARE_MISSES * float(all)
    }

    /// Keeps only these cases, plus `unseen` planned cases that neither run has.
    pub(crate) fn only(&self, wanted: &BTreeSet<&CaseId>, unseen: usize) -> Self {
        let cases: Vec<_> = self.cases.iter().filter(|case| wanted.contains(case.case)).cloned().collect();
        let unseen = self.unseen.part(unseen);
        let counts = count(&cases, unseen);
        Self { cases, unseen, counts }
    }

    /// Cases with a complete trial in both runs.
    pub(crate) fn paired(&self) -> impl Iterator<Item = &PairedCase<'a>> {
        self.cases.iter().filter(|case| case.is_paired())
    }

    /// Complete trials of both lanes in the paired cases.
    pub(crate) fn trials(&self) -> impl Iterator<Item = &'a TrialRecord> {
        self.paired().flat_map(|case| case.baseline.trials.iter().chain(&case.candidate.trials)).copied()
    }
}

fn group<'a>(run: &Run, records: impl Iterator<Item = &'a TrialRecord>) -> Result<Grouped<'a>, PairError> {
    let mut grouped = Grouped::new();
    for record in records {
        let trial = &record.trial;
        if let Some(first) = grouped.entry(&trial.case).or_default().insert(trial.trial, record) {
            return Err(PairError::Twice {
                run: run.name.clone(),
                case: trial.case.to_string(),
                trial: trial.trial,
                first: first.trial.session.to_string(),
                second: trial.session.to_string(),
            });
        }
    }
    Ok(grouped)
}

/// Recordings by case: from `given` if present, else from the runs themselves.
fn recordings<'a>(
    baseline: &'a Run,
    candidate: &'a Run,
    given: Option<&'a Run>,
) -> Result<Grouped<'a>, PairError> {
    let mut found = match given {
        Some(run) => group(run, run.own().filter(|record| !record.is_incomplete()))?,
        None => Grouped::new(),
    };
    for run in [baseline, candidate] {
        for (case, trials) in group(run, run.recordings().filter(|record| !record.is_incomplete()))? {
            found.entry(case).or_insert(trials);
        }
    }
    // A baseline that is itself the recording is never its own reference.
    if baseline.manifest.lane == Lane::Recorded { Ok(Grouped::new()) } else { Ok(found) }
}

fn count(cases: &[PairedCase<'_>], unseen: UnseenCases) -> PairCounts {
    let mut counts = PairCounts { cases: crate::cast::to_u64(cases.len()), ..PairCounts::default() };
    let mut without = [NoOutcome::default(); 2];
    for PairedCase { baseline, candidate, .. } in cases {
        counts.paired += u64::from(!baseline.trials.is_empty() && !candidate.trials.is_empty());
        counts.unpaired_baseline += u64::from(candidate.present() == 0);
        counts.unpaired_candidate += u64::from(baseline.present() == 0);
        counts.incomplete += crate::cast::to_u64(baseline.incomplete + candidate.incomplete);
        counts.trials_baseline += crate::cast::to_u64(baseline.present());
        counts.trials_candidate += crate::cast::to_u64(candidate.present());
        without[0].add(&lost(baseline));
        without[1].add(&lost(candidate));
    }
    without[0].not_written += crate::cast::to_u64(unseen.planned * unseen.baseline);
    without[1].not_written += crate::cast::to_u64(unseen.planned * unseen.candidate);
    for (lane, rows) in without.iter_mut().zip(unseen.unattributed) {
        lane.unattributed = crate::cast::to_u64(rows);
    }
    counts.with(without)
}

/// Trials of an arm that have no outcome, whatever scores them.
fn lost(arm: &Arm<'_>) -> NoOutcome {
    let ended = |ending| arm.trials.iter().filter(|record| record.trial.ending == ending).count();
    let missed = arm.trials.iter().filter(|record| record.ended_by_itself() && record.first_miss().is_some());
    let missed = missed.count();
    NoOutcome {
        not_written: crate::cast::to_u64(arm.missing - arm.incomplete - arm.lost.len()),
        incomplete: crate::cast::to_u64(arm.incomplete),
        diverged: crate::cast::to_u64(ended(TrialEnding::Truncated)),
        infrastructure: crate::cast::to_u64(arm.lost.len()),
        missed_answer: crate::cast::to_u64(missed),
        ..NoOutcome::default()
    }
}

/// Slices of a case: those of its recording, else those of its trials. A value on which the trials disagree is
/// dropped, so that slices do not depend on which trial counts as the candidate's.
fn slices<'a>(
    recorded: Option<&'a TrialRecord>,
    baseline: &Arm<'a>,
    candidate: &Arm<'a>,
) -> BTreeMap<&'a str, &'a str> {
    let mut found: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    let trials: Vec<&TrialRecord> = match recorded.filter(|record| !record.trial.slices.is_empty()) {
        Some(record) => vec![record],
        None => baseline.trials.iter().chain(&candidate.trials).copied().collect(),
    };
    for (key, value) in trials.iter().flat_map(|record| &record.trial.slices) {
        let existing = found.entry(key).or_insert(Some(value));
        if *existing != Some(value) {
            *existing = None;
        }
    }
    found.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Trials that a run has of a case, and the number it lacks of those expected.
fn arm<'a>(trials: Option<&BTreeMap<u32, &'a TrialRecord>>, expected: usize) -> Arm<'a> {
    let existing: Vec<&TrialRecord> = trials.into_iter().flat_map(BTreeMap::values).copied().collect();
    let complete = existing.iter().filter(|record| !record.is_incomplete()).copied();
    let (lost, usable): (Vec<&TrialRecord>, Vec<&TrialRecord>) = complete.partition(|record| is_lost(record));
    let incomplete = existing.len() - lost.len() - usable.len();
    let missing = lost.len() + incomplete + expected.saturating_sub(existing.len());
    Arm { missing, trials: usable, lost, incomplete }
}

/// Number of trials that a run should have of every case: the planned number, else the usual one.
///
/// Rows that were not written leave no trace but the unevenness of the run. So without a plan a case with fewer trials
/// than another lacks them. The two runs may have different numbers. Where most cases share their trial numbers, the
/// distinct numbers count too: trials 0 and 1 of one case, 1 and 2 of another, are two of three each.
fn expected_trials(run: &Run, grouped: &Grouped<'_>) -> usize {
    if let Some(planned) = run.manifest.planned_trials {
        return planned as usize;
    }
    let most = grouped.values().map(BTreeMap::len).max().unwrap_or(0);
    let mut cases_by_number: BTreeMap<u32, usize> = BTreeMap::new();
    for number in grouped.values().flat_map(BTreeMap::keys) {
        *cases_by_number.entry(*number).or_default() += 1;
    }
    let is_shared = |cases: &&usize| SHARED_NUMBER * **cases >= grouped.len() && **cases > 1;
    most.max(cases_by_number.values().filter(is_shared).count())
}

/// Cases that neither run has.
fn unseen(baseline: &Run, candidate: &Run, seen: usize, expected: [usize; 2]) -> UnseenCases {
    let planned = [baseline, candidate].into_iter().filter_map(|run| run.manifest.planned_cases).max();
    let cases = planned.map_or(0, |number| (number as usize).saturating_sub(seen));
    UnseenCases { cases, planned: cases, baseline: expected[0], candidate: expected[1], unattributed: [0; 2] }
}

fn is_lost(record: &TrialRecord) -> bool {
    record.trial.ending == TrialEnding::Infrastructure
}

fn did_not_fail(record: &TrialRecord) -> bool {
    record.trial.ending == TrialEnding::Complete && record.trial.success != Some(false)
}
