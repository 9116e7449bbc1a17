//! Replay fidelity: the share of answers that the recordings lack, and whether the re-run baseline matches the
//! recording.

use std::collections::BTreeMap;

use schemas::trial::Fidelity;

use crate::pairs::Pairs;
use crate::policy::{METRICS, Margin, Policy};
use crate::run::TrialRecord;
use crate::stats::gaffke::Sample;
use crate::stats::labels::Relabeller;
use crate::stats::permutation::Tables;
use crate::stats::stream::StreamKey;
use crate::stats::variance::{float, mean};
use crate::verdict::{FidelityCounts, LaneMisses, MissedCalls, ReplayMisses};

/// Largest number of groups of missed calls that a sentence names.
const NAMED: usize = 3;

/// Largest number of groups of missed calls that the verdict lists.
const LISTED: usize = 100;

/// Result of the fidelity check.
#[derive(Debug, Default)]
pub(crate) struct FidelityCheck {
    /// Counts of both lanes together; absent if nothing was replayed.
    pub(crate) counts: Option<FidelityCounts>,
    /// Calls without an answer; absent if nothing was replayed.
    pub(crate) misses: Option<ReplayMisses>,
    /// The missed calls of the candidate and the remedy, if it misses answers more often than the baseline does.
    pub(crate) left_recording: Option<LeftRecording>,
    /// Reasons why the replay is not faithful; empty if it is faithful or the runs were imported.
    pub(crate) failures: Vec<String>,
    /// Other facts for the reader.
    pub(crate) notes: Vec<String>,
}

/// The candidate asks for what the recordings do not hold.
#[derive(Debug)]
pub(crate) struct LeftRecording {
    /// The calls.
    pub(crate) calls: String,
    /// What would help.
    pub(crate) remedy: String,
    /// Whether the candidate's share of missed calls is above the policy's limit.
    pub(crate) above_limit: bool,
}

/// Checks both lanes.
pub(crate) fn judge(policy: &Policy, pairs: &Pairs<'_>, selected: bool, seed: u64) -> FidelityCheck {
    let mut fidelity = FidelityCheck::default();
    judge_misses(policy, pairs, seed, &mut fidelity);
    // A recording selected by its outcome differs from any re-run through regression to the mean alone.
    if !selected {
        compare_with_recording(policy, pairs, seed, &mut fidelity);
    }
    fidelity
}

fn judge_misses(policy: &Policy, pairs: &Pairs<'_>, seed: u64, fidelity: &mut FidelityCheck) {
    for counts in pairs.trials().filter_map(|record| record.trial.fidelity) {
        add(fidelity.counts.get_or_insert_default(), &counts);
    }
    if fidelity.counts.is_none() {
        return;
    }
    let baseline: Vec<&TrialRecord> =
        pairs.paired().flat_map(|case| &case.baseline.trials).copied().collect();
    let candidate: Vec<&TrialRecord> =
        pairs.paired().flat_map(|case| &case.candidate.trials).copied().collect();
    let lanes = vec![lane_misses("baseline", &baseline), lane_misses("candidate", &candidate)];
    let mut calls = missed_calls("baseline", &baseline);
    calls.extend(missed_calls("candidate", &candidate));
    // The sort is stable: ties stay in the order of lane, tool and argument.
    calls.sort_by_key(|group| std::cmp::Reverse(group.calls));
    let [more, fewer] = p_lanes(pairs, seed);
    let any = lanes.iter().any(|lane| lane.trials_missed > 0);
    let limit = policy.fidelity.max_missed;
    for lane in &lanes {
        fidelity.notes.extend(lane_note(lane, &calls));
        let failures = lane_failures(lane, limit);
        let own: Vec<&MissedCalls> = calls.iter().filter(|group| group.lane == lane.lane).collect();
        if lane.lane == "candidate" && lane.trials_missed > 0 && more <= policy.alpha {
            fidelity.left_recording = Some(LeftRecording {
                calls: format!("{} in {} trials", named(&own), lane.trials_missed),
                remedy: remedy(&own),
                above_limit: !failures.is_empty(),
            });
        } else {
            fidelity.failures.extend(
                failures.into_iter().map(|failure| format!("{failure}: {}; {}", named(&own), remedy(&own))),
            );
        }
    }
    let p_lanes = any.then(|| (2.0 * more.min(fewer)).min(1.0));
    if let Some(p) = p_lanes {
        let share = |lane: &LaneMisses| {
            100.0 * crate::cast::to_f64(lane.trials_missed) / crate::cast::to_f64(lane.trials.max(1))
        };
        fidelity.notes.push(format!(
            "{:.1} % of baseline and {:.1} % of candidate trials have a call that the recording could not answer (p {} for equal \
             shares); these trials count as missing, {}",
            share(&lanes[0]),
            share(&lanes[1]),
            crate::format::p_value(p),
            if pairs.counts_misses_alike() {
                "and as they are rare, alike in both lanes: once all as bad, once all as good"
            } else {
                "once against the candidate and once for it"
            }
        ));
    }
    calls.truncate(LISTED);
    fidelity.misses = Some(ReplayMisses { lanes, calls, p_lanes });
}

/// Counts the calls of a lane. Where model calls are not counted apart, all are tool calls.
fn lane_misses(lane: &str, trials: &[&TrialRecord]) -> LaneMisses {
    let mut misses = LaneMisses { lane: lane.to_owned(), ..LaneMisses::default() };
    for record in trials {
        let Some(all) = record.trial.fidelity else { continue };
        let model = record.trial.model_fidelity.unwrap_or_default();
        misses.tool_calls += u64::from(all.total().saturating_sub(model.total()));
        misses.tool_calls_missed += u64::from(all.missed.saturating_sub(model.missed));
        misses.model_calls += u64::from(model.total());
        misses.model_calls_missed += u64::from(model.missed);
        misses.trials += 1;
        misses.trials_missed += u64::from(all.missed > 0);
    }
    misses
}

fn missed_calls(lane: &str, trials: &[&TrialRecord]) -> Vec<MissedCalls> {
    type Group<'a> = (&'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>);
    let mut groups: BTreeMap<Group<'_>, (u64, u64)> = BTreeMap::new();
    for record in trials.iter().filter(|record| record.first_miss().is_some()) {
        let mut own: BTreeMap<Group<'_>, u64> = BTreeMap::new();
        for miss in &record.trial.divergences {
            if miss.kind.ends_with("_missed") || miss.kind == "request_refused" {
                let parts = (miss.tool.as_deref(), miss.path.as_deref(), miss.argument.as_deref());
                *own.entry((&miss.kind, parts.0, parts.1, parts.2)).or_default() += 1;
            }
        }
        for (group, calls) in own {
            let count = groups.entry(group).or_default();
            (count.0, count.1) = (count.0 + calls, count.1 + 1);
        }
    }
    let text = |part: Option<&str>| part.map(str::to_owned);
    let listed = groups.into_iter().map(|((kind, tool, path, argument), (calls, trials))| MissedCalls {
        lane: lane.to_owned(),
        kind: kind.to_owned(),
        tool: text(tool),
        path: text(path),
        argument: text(argument),
        calls,
        trials,
    });
    listed.collect()
}

/// The groups with most calls in words: `tool refund, argument /request_id, 290 calls`.
fn named(groups: &[&MissedCalls]) -> String {
    let one = |group: &&MissedCalls| {
        let what = match (&group.tool, &group.path) {
            (Some(tool), _) => format!("tool {tool}"),
            (None, Some(path)) => format!("request {path}"),
            (None, None) => group.kind.replace('_', " "),
        };
        let argument = group.argument.as_ref().map_or_else(String::new, |at| format!(", argument {at}"));
        format!("{what}{argument}, {} calls", group.calls)
    };
    let words: Vec<String> = groups.iter().take(NAMED).map(one).collect();
    let rest: u64 = groups.iter().skip(NAMED).map(|group| group.calls).sum();
    let rest = if rest > 0 { format!("; {rest} other calls") } else { String::new() };
    format!("{}{rest}", words.join("; "))
}

/// What helps against these misses. Only an argument that makes no difference can be declared; nothing else answers a call
/// that was never recorded, and more sessions hold it no more than these.
fn remedy(groups: &[&MissedCalls]) -> String {
    let declared = groups.iter().find_map(|group| Some((group.tool.as_ref()?, group.argument.as_ref()?)));
    match declared {
        Some((tool, argument)) => format!(
            "if {argument} makes no difference to {tool}, declare it in the policy under [argument.{tool}] as \"{argument}\" = \
             \"generated\" (or \"ignore\") and replay both lanes with --policy; otherwise this recording cannot judge the \
             change, and more sessions of its kind cannot either"
        ),
        None => "these requests are not in the recordings, so replay cannot judge them, and more sessions of the kind cannot \
                 either"
            .to_owned(),
    }
}

fn lane_failures(lane: &LaneMisses, limit: f64) -> Vec<String> {
    let calls = [
        ("tool", lane.tool_calls_missed, lane.tool_calls),
        ("model", lane.model_calls_missed, lane.model_calls),
    ];
    let share = |missed: u64, total: u64| crate::cast::to_f64(missed) / crate::cast::to_f64(total.max(1));
    let above = calls.into_iter().filter(|(_, missed, total)| share(*missed, *total) > limit);
    let say = |(what, missed, total): (&str, u64, u64)| {
        format!(
            "the recordings lack the answers to {missed} of {total} {what} calls of the {} ({:.1} %, the policy allows {:.1} %)",
            lane.lane,
            100.0 * share(missed, total),
            100.0 * limit
        )
    };
    above.map(say).collect()
}

/// Note on the misses of a lane, if it has any.
fn lane_note(lane: &LaneMisses, calls: &[MissedCalls]) -> Option<String> {
    let own: Vec<&MissedCalls> = calls.iter().filter(|group| group.lane == lane.lane).collect();
    let groups = if own.is_empty() { String::new() } else { format!(": {}", named(&own)) };
    (lane.trials_missed > 0).then(|| {
        format!(
            "the recording could not answer {} of {} tool calls and {} of {} model calls of the {}{groups}",
            lane.tool_calls_missed, lane.tool_calls, lane.model_calls_missed, lane.model_calls, lane.lane
        )
    })
}

/// One-sided p-values of "the candidate has more trials with a miss" and of "fewer", by permutation within sessions.
fn p_lanes(pairs: &Pairs<'_>, seed: u64) -> [f64; 2] {
    let mut relabeller = Relabeller::new(StreamKey::new(seed, "relabel missed"));
    let mut tables: Vec<Vec<f64>> = Vec::new();
    for (place, case) in pairs.paired().enumerate() {
        // Ascending within an arm, so that the numbers of the trials do not matter.
        let arm = |trials: &[&TrialRecord]| {
            let mut missed: Vec<f64> =
                trials.iter().map(|record| f64::from(u8::from(record.first_miss().is_some()))).collect();
            missed.sort_by(f64::total_cmp);
            missed
        };
        let (before, after) = (arm(&case.baseline.trials), arm(&case.candidate.trials));
        let pooled = [before.clone(), after.clone()].concat();
        let total: f64 = pooled.iter().sum();
        let contrast = |chosen: &[usize]| {
            let inside: f64 = chosen.iter().map(|trial| pooled[*trial]).sum();
            (total - inside) / float(before.len()) - inside / float(after.len())
        };
        tables.push(if total == 0.0 || total >= float(pooled.len()) {
            vec![0.0]
        } else {
            relabeller.labels(place, before.len(), after.len()).iter().map(contrast).collect()
        });
    }
    let p = |tables: &[Vec<f64>], side: &str| {
        let key = StreamKey::new(seed, &format!("missed {side}"));
        Tables::new(tables.iter().map(Vec::as_slice)).p_value(key)
    };
    let more = p(&tables, "more");
    tables.iter_mut().flatten().for_each(|value| *value = -*value);
    [more, p(&tables, "fewer")]
}

fn add(counts: &mut FidelityCounts, trial: &Fidelity) {
    counts.exact += u64::from(trial.exact);
    counts.normalised += u64::from(trial.normalised);
    counts.derived += u64::from(trial.derived);
    counts.live += u64::from(trial.live);
    counts.faulted += u64::from(trial.faulted);
    counts.missed += u64::from(trial.missed);
}

/// Compares labels of the re-run baseline with those of the recording (DECISION 1.7, use ii).
///
/// Showing equivalence within half the margin needs far more cases than a release has (about 600 at 95 % success). So
/// by default only a proven difference beyond that fails; `fidelity.equivalence` demands equivalence.
fn compare_with_recording(policy: &Policy, pairs: &Pairs<'_>, seed: u64, fidelity: &mut FidelityCheck) {
    let mut contrasts = Vec::new();
    for case in pairs.paired() {
        let recorded = case.recorded_any.and_then(|record| record.trial.success);
        let rerun: Vec<f64> = case
            .baseline
            .trials
            .iter()
            .filter_map(|record| record.trial.success)
            .map(|success| f64::from(u8::from(success)))
            .collect();
        if let (Some(recorded), false) = (recorded, rerun.is_empty()) {
            contrasts.push(mean(&rerun) - f64::from(u8::from(recorded)));
        }
    }
    if contrasts.is_empty() {
        return;
    }
    let default = METRICS[0].margin;
    let tolerated = match policy.settings("success").margin.unwrap_or(default) {
        Margin::Difference(share) | Margin::Ratio(share) | Margin::OfDispersion(share) => 0.5 * share,
    };
    let mirrored: Vec<f64> = contrasts.iter().map(|contrast| -contrast).collect();
    let one_sided = |values: &[f64]| Sample::new(values, -1.0).p_value(tolerated);
    let equal = one_sided(&contrasts) <= policy.alpha && one_sided(&mirrored) <= policy.alpha;
    let flips: Vec<[f64; 2]> = contrasts.iter().map(|contrast| [*contrast, -contrast]).collect();
    let back: Vec<[f64; 2]> = mirrored.iter().map(|contrast| [*contrast, -contrast]).collect();
    let key = StreamKey::new(seed, "recording");
    let p = |tables: &[[f64; 2]]| Tables::new(tables.iter().map(<[f64; 2]>::as_slice)).p_value(key);
    let differs = 2.0 * p(&flips).min(p(&back)) <= policy.alpha && mean(&contrasts).abs() > tolerated;
    let text = format!(
        "success of the re-run baseline differs from the recording by {:+.1} points over {} cases (tolerated: {:.1})",
        100.0 * mean(&contrasts),
        float(contrasts.len()),
        100.0 * tolerated
    );
    if differs || (policy.fidelity.equivalence && !equal) {
        fidelity.failures.push(text);
    } else {
        let how =
            if equal { "shown to be equal within the tolerance" } else { "not shown to differ by more" };
        fidelity.notes.push(format!("{text}: {how}"));
    }
}
