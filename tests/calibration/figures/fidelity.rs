//! What a replay cannot answer and what two writes have in common: misses, and arguments that vary by themselves.

use analyzer::{Decision, Policy, Run, ToolCall};
use schemas::exchange::{Effect, Ending};
use schemas::trial::{Divergence, Fidelity, Lane};

use super::{SUCCESS, Scale, policy};
use crate::rate::{Rate, repeat};
use crate::report::{Row, Standing, demand};
use crate::rng::SimulationRng;
use crate::table::{self, Outcome, Table};

const ALPHA: f64 = 0.05;

/// Sessions of a decision.
const SESSIONS: usize = 100;

/// Trials per session and lane.
const TRIALS: usize = 3;

fn row(id: &'static str, figure: String, rate: Rate) -> Row {
    Row {
        id,
        figure,
        required: format!("<= {:.4} at this N", Rate::limit(rate.of, ALPHA)),
        measured: rate.to_string(),
        standing: Standing::of(rate.is_at_most(ALPHA)),
    }
}

fn decide(policy: &Policy, runs: [Run; 3], rng: &mut SimulationRng) -> Decision {
    let [mut recorded, mut baseline, mut candidate] = runs;
    let seed = u64::try_from(rng.below(1 << 31)).expect("31 bits");
    analyzer::compare_arguments(policy, &mut baseline, &mut [&mut candidate, &mut recorded]);
    let recorded = (!recorded.trials.is_empty()).then_some(&recorded);
    let request = analyzer::AnalysisRequest {
        recorded,
        forecast: false,
        ..analyzer::AnalysisRequest::new(policy, &baseline, &candidate, seed)
    };
    analyzer::analyze(&request).expect("both runs hold trials").verdict.verdict
}

fn lane(lane: Lane, trials: usize, success: impl FnMut() -> bool) -> Run {
    let mut success = success;
    let table: Table = (0..SESSIONS).map(|_| (0..trials).map(|_| Outcome::of(success())).collect()).collect();
    table::run(lane, &table)
}

/// The candidate's world misses one answer in this share of trials, which then fail; otherwise the builds are alike.
fn missing(rng: &mut SimulationRng, share: f64) -> [Run; 3] {
    let mut lanes = [Lane::Baseline, Lane::Candidate].map(|of| lane(of, TRIALS, || rng.happens(0.9)));
    for record in &mut lanes[0].trials {
        record.trial.fidelity = Some(Fidelity { exact: 3, ..Fidelity::default() });
    }
    for record in &mut lanes[1].trials {
        let missed = rng.happens(share);
        record.trial.fidelity = Some(Fidelity { exact: 3, missed: u32::from(missed), ..Fidelity::default() });
        if missed {
            record.trial.success = Some(false);
            record.trial.divergences = vec![Divergence {
                seq: 3,
                kind: "tool_missed".to_owned(),
                tool: Some("refund".to_owned()),
                path: None,
                argument: Some("/request_id".to_owned()),
                detail: String::new(),
            }];
        }
    }
    let [baseline, candidate] = lanes;
    [lane(Lane::Recorded, 0, || true), baseline, candidate]
}

/// F1: misses of the candidate alone neither block nor approve.
pub(crate) fn f1(scale: Scale) -> Vec<Row> {
    let policy = policy(SUCCESS);
    let mut rows = Vec::new();
    for share in [0.1, 0.365] {
        let [blocked, approved] = repeat(&format!("F1 {share}"), scale.times(2000, 60), |rng| {
            let decision = decide(&policy, missing(rng, share), rng);
            [decision == Decision::Block, decision == Decision::Approve]
        });
        let what = format!("{:.1} % of the candidate's trials fail by a missed answer", 100.0 * share);
        rows.push(row("F1", format!("block, {what}"), blocked));
        rows.push(row("F1", format!("approve, {what}"), approved));
    }
    rows
}

fn refund(reference: &str) -> ToolCall {
    ToolCall {
        seq: 0,
        tool: "refund".to_owned(),
        arguments: Some(format!("{{\"reference\":\"{reference}\"}}")),
        arguments_verbatim: None,
        compared: None,
        effect: Effect::Write,
        ending: Ending::Complete,
        status: Some(200),
        is_error: Some(false),
        reversible: None,
        idempotent: None,
        duration_us: None,
        at: 0,
        result: None,
    }
}

/// Identical builds whose one write has an argument that is another one in this share of trials.
fn varying(rng: &mut SimulationRng, share: f64) -> [Run; 3] {
    let mut number = 0_u32;
    [(Lane::Recorded, 1), (Lane::Baseline, TRIALS), (Lane::Candidate, TRIALS)].map(|(of, trials)| {
        let mut run = lane(of, trials, || true);
        for record in &mut run.trials {
            number += 1;
            let drawn = rng.happens(share);
            record.calls = vec![refund(&if drawn { number.to_string() } else { "usual".to_owned() })];
            record.trial.success = None;
            record.trial.has_transcript = true;
        }
        run
    })
}

/// F2: what is learned of arguments keeps identical builds exchangeable, near the threshold too.
pub(crate) fn f2(scale: Scale) -> Vec<Row> {
    let policy = policy("policy = 1\n");
    let mut rows = Vec::new();
    for share in [0.02, 0.28, 0.3, 0.32, 1.0] {
        let [blocked] = repeat(&format!("F2 {share}"), scale.times(2000, 40), |rng| {
            [decide(&policy, varying(rng, share), rng) == Decision::Block]
        });
        let what = format!("an argument is another one in {:.0} % of trials", 100.0 * share);
        rows.push(row("F2", format!("block of identical builds, {what}"), blocked));
    }
    rows
}

#[test]
fn misses_of_the_candidate_alone_decide_nothing() {
    demand(&f1(Scale::Short));
}

#[test]
fn learned_arguments_keep_identical_builds_exchangeable() {
    demand(&f2(Scale::Short));
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_f1() {
    f1(Scale::full()).iter().for_each(Row::print);
}

#[test]
#[ignore = "full size: tests/calibration/run"]
fn full_f2() {
    f2(Scale::full()).iter().for_each(Row::print);
}
