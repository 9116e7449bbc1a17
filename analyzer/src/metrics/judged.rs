//! Errors of judges, measured on labelled trials, by which the mean contrast of their scores is corrected.

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics::CaseTable;
use crate::metrics::functional::Functional;
use crate::outcome::label::label_of;
use crate::outcome::{Source, Sources};
use crate::pairs::{Arm, PairedCase, Pairs};
use crate::stats::corrected::{self, CorrectedMean, Session};
use crate::stats::stream::StreamKey;
use crate::units::{CaseUnits, Unit};
use crate::verdict::JudgeCorrection;

/// Errors of a judge's group at one case, baseline and candidate; absent where the lane has too few labels.
type GroupErrors = (usize, [Option<f64>; 2]);

/// Cases that judges decide, and the judges' errors on labelled trials.
#[derive(Debug, Clone, Default)]
pub(crate) struct Correction {
    /// Group (judge and slice) of each case that a judge decides, by index of the case.
    group: BTreeMap<usize, usize>,
    /// Errors by group of each case with labels, by index of the case.
    errors: BTreeMap<usize, Vec<GroupErrors>>,
    /// Number of groups.
    groups: usize,
}

impl Correction {
    /// Errors of the judges for a function of an arm's trial values. `None` if no judge decides a case.
    ///
    /// # Errors
    ///
    /// A lane has fewer than `least` labelled cases with enough trials for the function.
    pub(super) fn new(
        sources: &Sources<'_>,
        pairs: &Pairs<'_>,
        functional: Functional,
        least: u64,
    ) -> Result<Option<Self>, String> {
        let mut names: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut correction = Self::default();
        for (place, case) in pairs.cases.iter().enumerate() {
            let Some(judge) = sources.of(case).filter(|source| source.is_judge()) else { continue };
            let Some(slice) = slice_of(judge, case) else { continue };
            let next = names.len();
            let group = *names.entry((judge.name(), slice)).or_insert(next);
            correction.group.insert(place, group);
        }
        if names.is_empty() {
            return Ok(None);
        }
        correction.groups = names.len();
        for (place, case) in pairs.cases.iter().enumerate() {
            for judge in sources.judges() {
                let Some(slice) = slice_of(judge, case) else { continue };
                let Some(group) = names.get(&(judge.name(), slice)) else { continue };
                let errors = [&case.baseline, &case.candidate].map(|arm| error(judge, arm, functional));
                if errors.iter().any(Option::is_some) {
                    correction.errors.entry(place).or_default().push((*group, errors));
                }
            }
        }
        for ((judge, slice), group) in &names {
            let [baseline, candidate] = correction.labelled(*group);
            if baseline.min(candidate) < least {
                let slice = if slice.is_empty() { String::new() } else { format!(" in {slice}") };
                return Err(format!(
                    "{judge} decides{slice}, and its errors are unknown: {baseline} baseline and {candidate} candidate cases have \
                     {} labelled trial(s), {least} are needed in each lane",
                    functional.least()
                ));
            }
        }
        Ok(Some(correction))
    }

    /// Cases of the group with an error in each lane.
    fn labelled(&self, group: usize) -> [u64; 2] {
        let all = || self.errors.values().flatten().filter(|(of, _)| *of == group);
        [0, 1].map(|lane| crate::cast::to_u64(all().filter(|(_, lanes)| lanes[lane].is_some()).count()))
    }

    fn sessions(&self, tables: &[CaseTable], units: &CaseUnits) -> Vec<Session> {
        let session = |unit: usize, weight: f64, table: &CaseTable| Session {
            contrast: table.observed(),
            group: self.group.get(&table.place).copied(),
            errors: self.errors.get(&table.place).cloned().unwrap_or_default(),
            unit,
            weight,
        };
        let grouped = units.group(tables);
        let of = |(unit, group): (usize, &Unit<'_>)| -> Vec<Session> {
            group.cases.iter().map(|(weight, table)| session(unit, *weight, table)).collect()
        };
        grouped.iter().enumerate().flat_map(of).collect()
    }

    /// Corrected mean contrast of these cases.
    pub(crate) fn mean(
        &self,
        tables: &[CaseTable],
        units: &CaseUnits,
        range: [f64; 2],
        key: StreamKey,
    ) -> CorrectedMean {
        CorrectedMean::new(&self.sessions(tables, units), self.groups, range, key)
    }

    /// The correction in numbers, for the verdict.
    pub(crate) fn result(&self, tables: &[CaseTable], units: &CaseUnits) -> JudgeCorrection {
        let sessions = self.sessions(tables, units);
        let judged = sessions.iter().filter(|one| one.group.is_some()).count();
        let scores =
            crate::stats::variance::mean(&sessions.iter().map(|one| one.contrast).collect::<Vec<_>>());
        let mut correction = 0.0;
        let labelled: [BTreeSet<usize>; 2] = [0, 1].map(|lane| {
            let of = |one: &&Session| one.errors.iter().any(|(_, lanes)| lanes[lane].is_some());
            sessions.iter().filter(of).map(|one| one.unit).collect()
        });
        for group in 0..self.groups {
            let cases = sessions.iter().filter(|one| one.group == Some(group)).count();
            let share =
                crate::stats::variance::float(cases) / crate::stats::variance::float(sessions.len().max(1));
            let [baseline, candidate] = corrected::mean_errors(&sessions, group);
            correction += share * (candidate.0 - baseline.0);
        }
        let [labelled_baseline, labelled_candidate] = labelled.map(|cases| crate::cast::to_u64(cases.len()));
        JudgeCorrection {
            judged: crate::cast::to_u64(judged),
            labelled_baseline,
            labelled_candidate,
            scores,
            correction,
            rogan_gladen: None,
        }
    }
}

/// Slice in which the judge scored the case; absent if it scored none of its trials there.
fn slice_of(judge: &Source, case: &PairedCase<'_>) -> Option<String> {
    case.baseline.trials.iter().chain(&case.candidate.trials).find_map(|record| judge.slice_of(record))
}

/// Value of the labels minus value of the scores, over the trials of an arm that have both.
fn error(judge: &Source, arm: &Arm<'_>, functional: Functional) -> Option<f64> {
    let number = |success: bool| f64::from(u8::from(success));
    let both = arm.trials.iter().filter_map(|record| Some((label_of(record)?, judge.score_of(record)?)));
    let (labels, scores): (Vec<f64>, Vec<f64>) =
        both.map(|(label, score)| (number(label), number(score))).unzip();
    (labels.len() >= functional.least()).then(|| functional.of(&labels) - functional.of(&scores))
}
