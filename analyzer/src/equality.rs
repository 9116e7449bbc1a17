//! Comparison text of every tool call: canonical JSON, loosened where the policy declares it or the baseline's own trials
//! differ among themselves.
//!
//! What is learned for a case comes from the other cases only. Inside a case it is then a constant, so the trials of
//! identical builds stay exchangeable; learning from the case's own baseline would excuse the baseline's variations and not
//! the candidate's. Numbers and booleans are never learned: an agent that pays another amount each time is at fault.

use std::collections::{BTreeMap, BTreeSet};

use schemas::equality::{ArgumentRule, ArgumentRules, loosen};
use schemas::id::CaseId;
use schemas::json::Json;

use crate::policy::Policy;
use crate::run::{ComparedArguments, Run, ToolCall, TrialRecord};
use crate::stats::variance::{float, mean};

/// Smallest number of cases that show whether an argument varies.
const LEAST_CASES: usize = 5;

/// Smallest mean share of pairs of baseline trials that differ in an argument that counts as generated. A wrong value now
/// and then stays far below it; a value drawn for each trial is near 1.
const LEAST_SHARE: f64 = 0.5;

/// Tool and pointer.
type Argument = (String, String);

/// Share of the pairs of a case's baseline trials that differ in an argument, by argument and case.
type Variation = BTreeMap<Argument, BTreeMap<CaseId, f64>>;

/// Sets the comparison text of every call of all runs, and notes on the baseline what was declared and learned.
pub fn compare_arguments(policy: &Policy, baseline: &mut Run, others: &mut [&mut Run]) {
    let variation = variation(baseline);
    let learned = |case: Option<&CaseId>| learned(&policy.argument, &variation, case);
    let cases: BTreeSet<CaseId> = std::iter::once(&*baseline)
        .chain(others.iter().map(|run| &**run))
        .flat_map(|run| &run.trials)
        .map(|record| record.trial.case.clone())
        .collect();
    let by_case: BTreeMap<CaseId, BTreeMap<String, BTreeMap<String, ArgumentRule>>> =
        cases.into_iter().map(|case| (case.clone(), learned(Some(&case)))).collect();
    for run in std::iter::once(&mut *baseline).chain(others.iter_mut().map(|run| &mut **run)) {
        for record in &mut run.trials {
            compare_trial(record, &by_case[&record.trial.case]);
        }
    }
    let notes = notes(&policy.argument, &variation, &learned(None));
    baseline.notes.extend(notes);
}

/// Declared rules and, for arguments without one, what the baseline of all cases but this one shows.
fn learned(
    declared: &ArgumentRules,
    variation: &Variation,
    but: Option<&CaseId>,
) -> BTreeMap<String, BTreeMap<String, ArgumentRule>> {
    let mut rules: BTreeMap<String, BTreeMap<String, ArgumentRule>> = BTreeMap::new();
    for ((tool, pointer), shares) in variation {
        let others: Vec<f64> =
            shares.iter().filter(|(case, _)| Some(*case) != but).map(|(_, share)| *share).collect();
        if others.len() >= LEAST_CASES && mean(&others) >= LEAST_SHARE {
            rules.entry(tool.clone()).or_default().insert(pointer.clone(), ArgumentRule::Generated);
        }
    }
    for (tool, pointer, rule) in declared.iter() {
        rules.entry(tool.to_owned()).or_default().insert(pointer.to_owned(), rule);
    }
    rules
}

fn notes(
    declared: &ArgumentRules,
    variation: &Variation,
    rules: &BTreeMap<String, BTreeMap<String, ArgumentRule>>,
) -> Vec<String> {
    let mut notes = Vec::new();
    let named: Vec<String> =
        declared.iter().map(|(tool, pointer, rule)| format!("{tool} {pointer} {}", rule.as_str())).collect();
    if !named.is_empty() {
        notes.push(format!("the policy declares how arguments are compared: {}", named.join(", ")));
    }
    for (tool, pointers) in rules {
        for pointer in pointers.keys() {
            if declared.of(tool).is_some_and(|rules| rules.contains_key(pointer)) {
                continue;
            }
            let Some(shares) = variation.get(&(tool.clone(), pointer.clone())) else { continue };
            let shares: Vec<f64> = shares.values().copied().collect();
            notes.push(format!(
                "{tool} {pointer} differs between the baseline's own trials of a case in {:.0} % of pairs ({} cases), so \
                 it is compared as `generated` in both lanes; declare it under [argument.{tool}] in the policy to compare \
                 it in another way, such as \"{pointer}\" = \"exact\"",
                100.0 * mean(&shares),
                shares.len()
            ));
        }
    }
    notes
}

/// How often the baseline's trials of a case differ in an argument of a write. Writes pair by their order, where both
/// trials call the tool equally often.
fn variation(baseline: &Run) -> Variation {
    let mut by_case: BTreeMap<&CaseId, Vec<&TrialRecord>> = BTreeMap::new();
    for record in baseline.own().filter(|record| record.trial.has_transcript && !record.is_incomplete()) {
        by_case.entry(&record.trial.case).or_default().push(record);
    }
    let mut variation = Variation::new();
    for (case, records) in by_case {
        let described: Vec<_> = records.iter().map(|record| describe(record)).collect();
        let mut pairs: BTreeMap<Argument, (usize, usize)> = BTreeMap::new();
        for (number, one) in described.iter().enumerate() {
            for other in &described[number + 1..] {
                count_pairs(one, other, &mut pairs);
            }
        }
        for (argument, (differ, all)) in pairs {
            variation.entry(argument).or_default().insert(case.clone(), float(differ) / float(all));
        }
    }
    variation
}

/// Texts by pointer of each write of a trial, by tool.
type Described = BTreeMap<String, Vec<BTreeMap<String, String>>>;

fn describe(record: &TrialRecord) -> Described {
    let mut described = Described::new();
    for call in record.calls.iter().filter(|call| call.wrote()) {
        let mut texts = BTreeMap::new();
        if let Some(value) = parsed(call) {
            collect_texts(&value, "", &mut texts);
        }
        described.entry(call.tool.clone()).or_default().push(texts);
    }
    described
}

fn count_pairs(one: &Described, other: &Described, pairs: &mut BTreeMap<Argument, (usize, usize)>) {
    for (tool, writes) in one {
        let Some(others) = other.get(tool).filter(|others| others.len() == writes.len()) else { continue };
        for (a, b) in writes.iter().zip(others) {
            for (pointer, text) in a {
                let Some(other) = b.get(pointer) else { continue };
                let count = pairs.entry((tool.clone(), pointer.clone())).or_default();
                count.0 += usize::from(text != other);
                count.1 += 1;
            }
        }
    }
}

/// The texts of a value by pointer; items of arrays are left out, because their places mean little.
fn collect_texts(value: &Json, at: &str, out: &mut BTreeMap<String, String>) {
    match value {
        Json::Object(entries) => {
            for (key, item) in entries {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect_texts(item, &format!("{at}/{key}"), out);
            }
        }
        Json::Text(text) => {
            out.insert(at.to_owned(), text.clone());
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => {}
    }
}

fn parsed(call: &ToolCall) -> Option<Json> {
    Json::parse(call.arguments.as_deref()?)
}

/// Sets the comparison texts of a trial's calls. A generated value is named by the first call that uses it, so that
/// values that are equal within the trial stay equal, whatever they are.
fn compare_trial(record: &mut TrialRecord, rules: &BTreeMap<String, BTreeMap<String, ArgumentRule>>) {
    let mut names: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for call in &mut record.calls {
        call.compared = None;
        let Some(mut value) = parsed(call) else { continue };
        let Some(rules) = rules.get(&call.tool) else {
            call.compared = Some(ComparedArguments::new(call, value.to_string()));
            continue;
        };
        let mut rest = value.clone();
        loosen(&mut rest, rules, &mut |_, _| "⟨generated⟩".to_owned());
        let rest = blake3::hash(rest.to_string().as_bytes()).to_hex();
        let tool = &call.tool;
        loosen(&mut value, rules, &mut |pointer, generated| {
            let home = format!("{tool}{pointer} {}", &rest[..16]);
            let (first, number) = names.entry(generated.to_string()).or_insert_with(|| {
                let count = used.entry(home.clone()).or_default();
                *count += 1;
                (home.clone(), *count)
            });
            if *first == home {
                format!("⟨generated {number}⟩")
            } else {
                format!("⟨generated {first} {number}⟩")
            }
        });
        call.compared = Some(ComparedArguments::new(call, value.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use schemas::trial::Lane;

    use super::*;
    use crate::fixture::{record, run, write};
    use crate::writes;

    fn refunds(arguments: &[String]) -> Vec<ToolCall> {
        arguments.iter().map(|text| write("refund", text)).collect()
    }

    /// Trials of a lane, three a case; the text of a trial's calls is given by its case and number.
    fn lane(lane: Lane, cases: u32, of: impl Fn(u32, u32) -> Vec<String>) -> Run {
        let mut records = Vec::new();
        for case in 0..cases {
            for number in 0..3 {
                let mut one = record(&format!("case-{case:02}"), number, refunds(&of(case, number)));
                one.trial.lane = lane;
                records.push(one);
            }
        }
        run(lane, records)
    }

    fn compared(policy: &str, baseline: &mut Run, candidate: &mut Run) {
        let policy = Policy::parse(policy).expect("a policy");
        compare_arguments(&policy, baseline, &mut [candidate]);
    }

    fn same(baseline: &Run, candidate: &Run) -> bool {
        baseline.trials.iter().zip(&candidate.trials).all(|(a, b)| writes::distinct(a) == writes::distinct(b))
    }

    #[test]
    fn a_value_drawn_for_each_trial_is_learned_and_shown() {
        let of = |lane: &'static str| {
            move |case: u32, number: u32| {
                vec![format!(
                    "{{\"id\":\"{lane}-{case}-{number}\",\"order\":\"W{case}\",\"amount\":{number}}}"
                )]
            }
        };
        let mut baseline = lane(Lane::Baseline, 8, of("b"));
        let mut candidate = lane(Lane::Candidate, 8, of("c"));
        compared("", &mut baseline, &mut candidate);
        assert!(same(&baseline, &candidate), "{:?}", candidate.trials[0].calls[0].compared);
        assert!(baseline.notes[0].contains("refund /id differs"), "{:?}", baseline.notes);
        assert!(baseline.notes[0].contains("100 % of pairs (8 cases)"), "{:?}", baseline.notes);
        assert_eq!(baseline.notes.len(), 1, "a number is never learned: {:?}", baseline.notes);
        assert!(candidate.trials[1].calls[0].compared_text().contains("\"amount\":1"));
        let mut candidate = lane(Lane::Candidate, 8, of("c"));
        compared("[argument.refund]\n\"/id\" = \"exact\"", &mut baseline, &mut candidate);
        assert!(!same(&baseline, &candidate));
    }

    #[test]
    fn a_rare_variation_or_one_case_is_not_learned() {
        let rare = |case: u32, number: u32| {
            vec![format!("{{\"to\":\"{}\"}}", if case == 3 && number == 1 { "GNY" } else { "GNy" })]
        };
        let mut baseline = lane(Lane::Baseline, 8, rare);
        let mut candidate = lane(Lane::Candidate, 8, |_, _| vec!["{\"to\":\"GNY\"}".to_owned()]);
        compared("", &mut baseline, &mut candidate);
        assert!(!same(&baseline, &candidate) && baseline.notes.is_empty(), "{:?}", baseline.notes);
        let drawn = |case: u32, number: u32| vec![format!("{{\"id\":\"{case}{number}\"}}")];
        let mut few = lane(Lane::Baseline, 4, drawn);
        compared("", &mut few, &mut candidate);
        assert!(few.notes.is_empty(), "{:?}", few.notes);
    }

    #[test]
    fn the_cases_own_baseline_teaches_nothing_about_it() {
        let of = |case: u32, number: u32| {
            vec![if case < 3 { format!("{{\"id\":\"{number}\"}}") } else { "{\"id\":\"x\"}".to_owned() }]
        };
        let mut baseline = lane(Lane::Baseline, 6, of);
        let mut candidate = lane(Lane::Candidate, 6, |_, _| vec!["{\"id\":\"y\"}".to_owned()]);
        compared("", &mut baseline, &mut candidate);
        // Three of six vary. A varying case sees two of five others vary, a constant one three of five.
        let is_learned = |record: &TrialRecord| record.calls[0].compared_text().contains("generated");
        assert!(!is_learned(&candidate.trials[0]) && is_learned(&candidate.trials[17]));
        assert!(!is_learned(&baseline.trials[0]) && is_learned(&baseline.trials[17]));
    }

    #[test]
    fn generated_values_stay_equal_or_distinct_within_a_trial() {
        let policy = "[argument.refund]\n\"/id\" = \"generated\"\n[argument.note]\n\"/of\" = \"generated\"";
        let of = |ids: [&str; 3], noted: &str| {
            let refund =
                |order: u32, id: &str| write("refund", &format!("{{\"id\":\"{id}\",\"order\":{order}}}"));
            let note = write("note", &format!("{{\"of\":\"{noted}\"}}"));
            let mut one = record("c", 0, vec![refund(1, ids[0]), refund(2, ids[1]), refund(2, ids[2]), note]);
            one.trial.lane = Lane::Baseline;
            run(Lane::Baseline, vec![one])
        };
        let (mut first, mut second) = (of(["a", "b", "b"], "b"), of(["x", "y", "y"], "y"));
        let (mut wrong, mut distinct) = (of(["x", "y", "y"], "x"), of(["x", "y", "z"], "y"));
        let policy = Policy::parse(policy).expect("a policy");
        compare_arguments(&policy, &mut first, &mut [&mut second, &mut wrong, &mut distinct]);
        let writes = |run: &Run| writes::distinct(&run.trials[0]);
        assert_eq!(writes(&first), writes(&second));
        assert_ne!(writes(&first), writes(&wrong), "the note names the refund of another order");
        assert_ne!(writes(&first), writes(&distinct));
        assert!(writes::repeated(&first.trials[0], &[]).is_some_and(|found| found.2 == 2));
        assert!(writes::repeated(&distinct.trials[0], &[]).is_none(), "two ids are two refunds");
        assert!(first.notes[0].contains("refund /id generated"), "{:?}", first.notes);
    }
}
