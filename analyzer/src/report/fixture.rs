//! Made-up runs and an analysis for the tests of the report; its text is as hostile as a session's can be.

use std::collections::BTreeMap;

use schemas::exchange::{Effect, Ending};
use schemas::id::{AgentId, BuildId, CaseId, SessionId, TenantId};
use schemas::trial::{Fidelity, Lane, RunManifest, Trial, TrialEnding};

use crate::analysis::{Analysis, CaseContrast, MetricDetail};
use crate::finding::{Example, Finding};
use crate::outcome::OutcomeResult;
use crate::policy::Policy;
use crate::report::{ReportInput, Transcript, TranscriptTurn, Transcripts};
use crate::run::{Run, ToolCall, TrialRecord};
use crate::verdict::*;

/// What a hostile session would like to have run.
pub(super) const HOSTILE: &str =
    "</script><img src=x onerror=alert(1)> ]]> \u{202e}\u{0}\u{1b}[31m |`**@team** https://evil.example";

/// A trial of the candidate's lane with these calls (tool, arguments); `refund` writes.
pub(super) fn record(case: &str, trial: u32, success: bool, calls: &[(&str, &str)]) -> TrialRecord {
    TrialRecord {
        trial: Trial {
            tenant: TenantId::parse("t").unwrap(),
            agent: AgentId::parse("a").unwrap(),
            build: BuildId::parse("b").ok(),
            lane: Lane::Candidate,
            case: CaseId::parse(case).unwrap(),
            trial,
            session: SessionId::parse(&format!("{case}-{trial}")).unwrap(),
            seed: Some(7),
            started_at: None,
            duration_us: Some(1_500_000),
            ending: TrialEnding::Complete,
            ending_detail: None,
            success: Some(success),
            success_source: Some("label".to_owned()),
            answer: Some(format!("Done. {HOSTILE}")),
            input_tokens: Some(10),
            output_tokens: Some(5),
            cost_usd: None,
            exchanges: 2,
            has_transcript: true,
            fidelity: Some(Fidelity { exact: 2, ..Fidelity::default() }),
            divergences: Vec::new(),
            fault_plan: None,
            complete: Some(true),
            slices: BTreeMap::new(),
        },
        calls: calls.iter().zip(0..).map(|((tool, arguments), seq)| call(tool, arguments, seq)).collect(),
        turns_us: vec![1_500_000],
        has_envelope: false,
        embedding: None,
        user_turns: Vec::new(),
        scores: Vec::new(),
    }
}

fn call(tool: &str, arguments: &str, seq: u32) -> ToolCall {
    ToolCall {
        seq,
        tool: tool.to_owned(),
        arguments: Some(arguments.to_owned()),
        arguments_verbatim: None,
        effect: if tool == "refund" { Effect::Write } else { Effect::Read },
        ending: Ending::Complete,
        status: Some(200),
        is_error: Some(false),
        reversible: None,
        idempotent: None,
        duration_us: Some(1200),
        at: 0,
        result: None,
    }
}

/// A run of this lane; every trial is put into it, and its recordings with it where there are any.
pub(super) fn run(name: &str, lane: Lane, trials: Vec<TrialRecord>, recordings: Vec<TrialRecord>) -> Run {
    let own = trials.into_iter().map(|record| (record, lane));
    let old = recordings.into_iter().map(|record| (record, Lane::Recorded));
    Run {
        name: name.to_owned(),
        manifest: RunManifest {
            format: schemas::FORMAT,
            tool_version: "0.1.0".to_owned(),
            lane,
            build: BuildId::parse(&format!("{name}-build")).unwrap(),
            source: "replay".to_owned(),
            model: None,
            selected: false,
            planned_trials: Some(2),
            planned_cases: Some(3),
            seed: Some(7),
            corpus_digest: None,
            plan_digest: None,
        },
        notes: Vec::new(),
        trials: own
            .chain(old)
            .map(|(mut record, lane)| {
                record.trial.lane = lane;
                record
            })
            .collect(),
    }
}

/// Both runs, and the policy.
pub(super) struct Runs {
    baseline: Run,
    candidate: Run,
    policy: Policy,
    transcripts: Transcripts,
}

impl Runs {
    pub(super) fn input(&self) -> ReportInput<'_> {
        ReportInput {
            baseline: &self.baseline,
            candidate: &self.candidate,
            recorded: None,
            policy: &self.policy,
            transcripts: &self.transcripts,
        }
    }
}

/// Baseline and candidate of three cases; the candidate refunds twice in the hostile one.
pub(super) fn runs() -> Runs {
    let good: &[(&str, &str)] = &[("look", "{\"id\":1}"), ("refund", "{\"id\":1}")];
    let bad: &[(&str, &str)] = &[("refund", "{\"id\":1}"), ("refund", "{\"id\":1}"), ("look", HOSTILE)];
    let recordings = ["one", "two", HOSTILE_CASE].map(|case| record(case, 0, true, good)).to_vec();
    let baseline = ["one", "two", HOSTILE_CASE].map(|case| record(case, 0, true, good)).to_vec();
    let candidate =
        vec![record("one", 0, true, good), record("two", 0, true, good), record(HOSTILE_CASE, 0, false, bad)];
    Runs {
        baseline: run("runs/base", Lane::Baseline, baseline, recordings.clone()),
        candidate: run("runs/cand", Lane::Candidate, candidate, recordings),
        policy: Policy::default(),
        transcripts: transcripts(),
    }
}

/// What was said in the hostile case.
fn transcripts() -> Transcripts {
    let said =
        TranscriptTurn { seq: 0, input: Some(HOSTILE.to_owned()), output: Some(format!("Done. {HOSTILE}")) };
    let transcript = Transcript { turns: vec![said], results: BTreeMap::from([(0, HOSTILE.to_owned())]) };
    let lanes = [Lane::Recorded, Lane::Baseline, Lane::Candidate].into_iter();
    lanes.map(|lane| ((lane, format!("{HOSTILE_CASE}-0")), transcript.clone())).collect()
}

/// The case whose name and text are hostile.
pub(super) const HOSTILE_CASE: &str = "</script><b>x</b>|`y`";

fn metric(name: &str, family: &str, unit: Unit, effect: f64, state: MetricState) -> MetricResult {
    MetricResult {
        name: name.to_owned(),
        family: family.to_owned(),
        required: name == "success",
        cases: 3,
        baseline: 0.9,
        candidate: 0.9 + effect,
        effect,
        interval: [effect - 0.06, effect + 0.06],
        margin: 0.05,
        p_block: 0.0004,
        p_block_adjusted: Some(0.0021),
        p_approve: 0.98,
        decides: name != "latency",
        state,
        unit,
        floor: 59,
        clipped: 0,
        adjusted: None,
    }
}

fn finding(subject: &str, effect: Option<f64>) -> Finding {
    Finding {
        subject: subject.to_owned(),
        case: HOSTILE_CASE.to_owned(),
        effect,
        baseline: effect.map(|_| 1.0),
        candidate: effect.map(|_| 0.0),
        detail: format!("refund made 2 times with {HOSTILE}"),
        examples: vec![Example {
            lane: "candidate".to_owned(),
            trial: 0,
            session: format!("{HOSTILE_CASE}-0"),
            detail: HOSTILE.to_owned(),
        }],
    }
}

fn contrasts(effects: [f64; 3]) -> Vec<CaseContrast> {
    let cases = ["one", "two", HOSTILE_CASE];
    let each = cases.into_iter().zip(effects);
    each.map(|(case, effect)| CaseContrast {
        case: case.to_owned(),
        baseline: 1.0,
        candidate: 1.0 + effect,
        effect,
    })
    .collect()
}

/// A blocking analysis of [`runs`] whose reasons, findings and notes are hostile.
pub(super) fn analysis(answer: Decision) -> Analysis {
    let metrics = vec![
        metric("success", "outcome", Unit::Share, -0.33, MetricState::Deteriorated),
        metric("effects.duplicated", "effects", Unit::Share, -0.02, MetricState::Undecided),
        metric("latency", "cost", Unit::Seconds, 0.0, MetricState::NonInferior),
    ];
    let details = [[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.1, 0.0, 0.0]];
    let code = match answer {
        Decision::Approve => ReasonCode::NonInferior,
        Decision::Block => ReasonCode::Deteriorated,
        Decision::Inconclusive => ReasonCode::Underpowered,
    };
    Analysis {
        details: (metrics.iter().zip(details))
            .map(|(metric, effects)| MetricDetail {
                name: metric.name.clone(),
                contrasts: contrasts(effects),
            })
            .collect(),
        findings: vec![
            finding("idempotency", None),
            finding("idempotency", None),
            finding("success", Some(-1.0)),
        ],
        verdict: verdict(answer, code, metrics),
        drift_map: None,
    }
}

fn verdict(answer: Decision, code: ReasonCode, metrics: Vec<MetricResult>) -> Verdict {
    Verdict {
        format: VERDICT_FORMAT,
        tool_version: "0.1.0".to_owned(),
        verdict: answer,
        looks: 1,
        reasons: vec![Reason {
            code,
            metric: Some("success".to_owned()),
            detail: format!("success fell by 33.0 points {HOSTILE}"),
        }],
        baseline: RunIdentity { run: "runs/base".to_owned(), build: HOSTILE.to_owned() },
        candidate: RunIdentity { run: "runs/cand".to_owned(), build: "cand".to_owned() },
        pairs: PairCounts {
            cases: 3,
            paired: 3,
            trials_baseline: 3,
            trials_candidate: 3,
            ..PairCounts::default()
        },
        invariants: vec![InvariantResult {
            name: "idempotency".to_owned(),
            violations: 1,
            cases: 3,
            upper_bound: 0.8,
            examples: vec![format!("{HOSTILE_CASE}-0")],
            details: vec![HOSTILE.to_owned()],
            violations_baseline: 0,
            state: InvariantState::Violated,
            violation_examples: vec![ViolationExample {
                case: HOSTILE_CASE.to_owned(),
                session: format!("{HOSTILE_CASE}-0"),
                tool: Some(HOSTILE.to_owned()),
                rule: Some(HOSTILE.to_owned()),
                pointer: HOSTILE.to_owned(),
                detail: HOSTILE.to_owned(),
                ..ViolationExample::default()
            }],
            mutation_check: Some(MutationCheck {
                vacuous: false,
                mutants: 2,
                killed: 1,
                vacuous_rules: vec![HOSTILE.to_owned()],
            }),
            ..InvariantResult::default()
        }],
        metrics,
        outcome: OutcomeResult::default(),
        absent: vec![AbsentMetric { name: "pass_k".to_owned(), reason: "fewer than 3 trials".to_owned() }],
        fidelity: Some(FidelityCounts { exact: 10, missed: 1, ..FidelityCounts::default() }),
        need: Need { cases: 300, trials: 2, predicted_approve: 0.8, reachable: true, ..Need::default() },
        notes: vec![HOSTILE.to_owned()],
        monitoring: Monitoring { alpha: 0.05, look_history: None },
        policy_digest: "0".repeat(64),
        envelope: None,
        corpus_digest: "1".repeat(64),
        seed: 7,
        slices: Vec::new(),
        review: Review::default(),
        calibration: None,
    }
}
