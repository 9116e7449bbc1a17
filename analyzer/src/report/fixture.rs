//! Two small runs and their analysis for the tests of the report, with plain or hostile text.

use std::collections::BTreeMap;

use schemas::exchange::{Effect, Ending};
use schemas::id::{AgentId, BuildId, CaseId, SessionId, TenantId};
use schemas::trial::{Fidelity, Lane, RunManifest, Trial, TrialEnding};

use crate::analysis::{Analysis, CaseContrast, MetricDetail};
use crate::finding::{Example, Finding};
use crate::outcome::{Agreement, EvaluatorResult, OutcomeResult, SourceCount};
use crate::policy::Policy;
use crate::report::{ReportInput, Transcript, TranscriptTurn, Transcripts};
use crate::run::{Run, ToolCall, TrialRecord};
use crate::verdict::*;

/// Text of a hostile session: markup, links, mentions and control characters.
pub(super) const HOSTILE: &str =
    "</script><img src=x onerror=alert(1)> ]]> \u{202e}\u{0}\u{1b}[31m |`**@team** https://evil.example";

/// A trial of the candidate lane with these tool calls (tool, arguments); `refund` writes.
pub(super) fn record(case: &str, trial: u32, success: bool, calls: &[(&str, &str)]) -> TrialRecord {
    TrialRecord {
        trial: Trial {
            model_fidelity: None,
            model_inputs: None,
            provider_retries: None,
            provider_failures: None,
            cluster: None,
            weight: None,
            batch: None,
            outcome_missing: None,
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
        compared: None,
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

/// A run of a lane with recordings.
pub(super) fn run(name: &str, lane: Lane, trials: Vec<TrialRecord>, recordings: Vec<TrialRecord>) -> Run {
    let own = trials.into_iter().map(|record| (record, lane));
    let old = recordings.into_iter().map(|record| (record, Lane::Recorded));
    Run {
        name: name.to_owned(),
        manifest: RunManifest {
            format: 1,
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
            infrastructure: Vec::new(),
            model_retry: None,
        },
        notes: Vec::new(),
        imports: Vec::new(),
        trials: own
            .chain(old)
            .map(|(mut record, lane)| {
                record.trial.lane = lane;
                record
            })
            .collect(),
    }
}

/// Both runs with their policy and transcripts.
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

/// Baseline and candidate of three cases, with hostile text in the third.
pub(super) fn runs() -> Runs {
    runs_with(HOSTILE_CASE, HOSTILE)
}

/// The same with plain text.
pub(super) fn plain_runs() -> Runs {
    runs_with(PLAIN_CASE, PLAIN)
}

/// The candidate refunds twice in the last case and does not look first.
fn runs_with(last: &str, text: &str) -> Runs {
    let good: &[(&str, &str)] = &[("look", "{\"id\":1}"), ("refund", "{\"id\":1}")];
    let bad: &[(&str, &str)] = &[("refund", "{\"id\":1}"), ("refund", "{\"id\":1}"), ("look", text)];
    let all_good = || ["one", "two", last].map(|case| record(case, 0, true, good)).to_vec();
    let candidate =
        vec![record("one", 0, true, good), record("two", 0, true, good), record(last, 0, false, bad)];
    Runs {
        baseline: run("runs/base", Lane::Baseline, all_good(), all_good()),
        candidate: run("runs/cand", Lane::Candidate, candidate, all_good()),
        policy: Policy::default(),
        transcripts: transcripts(last, text),
    }
}

/// Transcripts of the last case.
fn transcripts(last: &str, text: &str) -> Transcripts {
    let turn = TranscriptTurn { seq: 0, input: Some(text.to_owned()), output: Some(format!("Done. {text}")) };
    let transcript = Transcript { turns: vec![turn], results: BTreeMap::from([(0, text.to_owned())]) };
    let lanes = [Lane::Recorded, Lane::Baseline, Lane::Candidate].into_iter();
    lanes.map(|lane| ((lane, format!("{last}-0")), transcript.clone())).collect()
}

/// Text of an ordinary session.
const PLAIN: &str = "order 7, 20 USD";

/// A case with an ordinary name.
const PLAIN_CASE: &str = "three";

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
        units: 3,
        clipped: 0,
        adjusted: None,
        judge: None,
        tool: None,
        tail: None,
    }
}

fn finding(subject: &str, effect: Option<f64>, case: &str, text: &str) -> Finding {
    Finding {
        subject: subject.to_owned(),
        case: case.to_owned(),
        effect,
        baseline: effect.map(|_| 1.0),
        candidate: effect.map(|_| 0.0),
        detail: format!("duplicated write: refund 2 times with {text}"),
        examples: vec![Example {
            lane: "candidate".to_owned(),
            trial: 0,
            session: format!("{case}-0"),
            detail: text.to_owned(),
        }],
    }
}

fn contrasts(effects: [f64; 3], last: &str) -> Vec<CaseContrast> {
    let cases = ["one", "two", last];
    let each = cases.into_iter().zip(effects);
    each.map(|(case, effect)| CaseContrast {
        case: case.to_owned(),
        baseline: 1.0,
        candidate: 1.0 + effect,
        effect,
    })
    .collect()
}

/// An analysis of [`runs`] with hostile reasons, findings and notes.
pub(super) fn analysis(decision: Decision) -> Analysis {
    analysis_with(decision, HOSTILE_CASE, HOSTILE)
}

/// An analysis of [`plain_runs`] with every optional section.
pub(super) fn plain_analysis(decision: Decision) -> Analysis {
    let mut analysis = analysis_with(decision, PLAIN_CASE, PLAIN);
    let verdict = &mut analysis.verdict;
    verdict.baseline.build = "base".to_owned();
    verdict.monitoring.look_history = Some(look_history(decision));
    verdict.slices = vec![slice("refunds", true, 40), slice("rare", false, 2)];
    verdict.review.subgroup_search = Some(subgroup_search());
    verdict.review.drift = Some(drift());
    verdict.outcome = outcome();
    verdict.calibration = Some(calibration());
    verdict.envelope = Some(EnvelopeIdentity {
        digest: "2".repeat(8),
        agent: Some("shop".to_owned()),
        version: Some("3".to_owned()),
        not_checked: vec!["limits.budget (line 12)".to_owned()],
    });
    verdict.invariants.push(InvariantResult {
        name: "no-refund-without-look".to_owned(),
        cases: 3,
        upper_bound: 0.63,
        max_rate: Some(0.01),
        state: InvariantState::Vacuous,
        mutation_check: Some(MutationCheck {
            vacuous: true,
            mutants: 0,
            killed: 0,
            vacuous_rules: vec!["look before refund".to_owned()],
        }),
        ..InvariantResult::default()
    });
    verdict.review.exchangeability =
        vec![ExchangeabilityResult { name: "calls".to_owned(), cases: 3, p: 0.2, p_adjusted: 0.4 }];
    analysis
}

fn analysis_with(decision: Decision, last: &str, text: &str) -> Analysis {
    let metrics = vec![
        metric("success", "outcome", Unit::Share, -0.33, MetricState::Deteriorated),
        metric("effects.duplicated", "effects", Unit::Share, -0.02, MetricState::Undecided),
        metric("latency", "cost", Unit::Seconds, 0.0, MetricState::NonInferior),
    ];
    let details = [[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [0.1, 0.0, 0.0]];
    let code = match decision {
        Decision::Approve => ReasonCode::NonInferior,
        Decision::Block => ReasonCode::Deteriorated,
        Decision::Inconclusive => ReasonCode::Underpowered,
    };
    Analysis {
        details: (metrics.iter().zip(details))
            .map(|(metric, effects)| MetricDetail {
                name: metric.name.clone(),
                contrasts: contrasts(effects, last),
            })
            .collect(),
        findings: vec![
            finding("idempotency", None, last, text),
            finding("idempotency", None, last, text),
            finding("success", Some(-1.0), last, text),
        ],
        verdict: verdict(decision, code, metrics, last, text),
        drift_map: None,
    }
}

fn verdict(
    decision: Decision,
    code: ReasonCode,
    metrics: Vec<MetricResult>,
    last: &str,
    text: &str,
) -> Verdict {
    Verdict {
        format: VERDICT_FORMAT,
        tool_version: "0.1.0".to_owned(),
        verdict: decision,
        looks: 1,
        reasons: vec![Reason {
            code,
            metric: Some("success".to_owned()),
            detail: format!("success fell by 33.0 points {text}"),
        }],
        baseline: RunIdentity { run: "runs/base".to_owned(), build: text.to_owned() },
        candidate: RunIdentity { run: "runs/cand".to_owned(), build: "cand".to_owned() },
        pairs: PairCounts {
            cases: 3,
            paired: 3,
            trials_baseline: 3,
            trials_candidate: 3,
            ..PairCounts::default()
        },
        sampling: crate::verdict::Sampling::default(),
        invariants: vec![InvariantResult {
            name: "idempotency".to_owned(),
            violations: 1,
            cases: 3,
            upper_bound: 0.8,
            examples: vec![format!("{last}-0")],
            details: vec![text.to_owned()],
            violations_baseline: 0,
            state: InvariantState::Violated,
            violation_examples: vec![ViolationExample {
                case: last.to_owned(),
                session: format!("{last}-0"),
                tool: Some(text.to_owned()),
                rule: Some(text.to_owned()),
                pointer: text.to_owned(),
                detail: text.to_owned(),
                ..ViolationExample::default()
            }],
            mutation_check: Some(MutationCheck {
                vacuous: false,
                mutants: 2,
                killed: 1,
                vacuous_rules: vec![text.to_owned()],
            }),
            ..InvariantResult::default()
        }],
        metrics,
        outcome: OutcomeResult::default(),
        absent: vec![AbsentMetric { name: "pass_k".to_owned(), reason: "fewer than 3 trials".to_owned() }],
        misses: None,
        fidelity: Some(FidelityCounts { exact: 10, missed: 1, ..FidelityCounts::default() }),
        need: Need { cases: 300, trials: 2, predicted_approve: 0.8, reachable: true, ..Need::default() },
        notes: vec![text.to_owned()],
        monitoring: Monitoring { alpha: 0.05, look_history: None },
        policy_digest: "0".repeat(64),
        envelope: None,
        corpus_digest: "1".repeat(64),
        seed: 7,
        slices: Vec::new(),
        review: Review::default(),
        calibration: None,
        since: None,
    }
}

fn look_history(decision: Decision) -> LookHistory {
    let look = |look: u32, cases, fraction, decision| LookResult {
        look,
        cases,
        fraction,
        alpha_spent: 0.05 * fraction,
        boundary: Some(2.0),
        decision,
        metrics: vec![LookMetric {
            name: "success".to_owned(),
            cases,
            effect: -0.33,
            p_block: 0.01,
            p_approve: 0.9,
            p_block_sequential: 0.02,
            p_approve_sequential: 1.0,
        }],
    };
    LookHistory {
        kind: MonitoringKind::Looks,
        planned_looks: 3,
        planned_cases: 6,
        cases: 3,
        stopped_early: true,
        plan_share: 1.0,
        extension_looks: 0,
        looks: vec![look(1, 2, 1.0 / 3.0, Decision::Inconclusive), look(2, 3, 0.5, decision)],
    }
}

fn slice(name: &str, critical: bool, cases: u64) -> SliceResult {
    SliceResult {
        name: name.to_owned(),
        criteria: BTreeMap::from([("topic".to_owned(), name.to_owned())]),
        critical,
        required: false,
        metric: "success".to_owned(),
        unit: Unit::Share,
        cases,
        has_enough_cases: cases > 10,
        floor: 59,
        baseline: 0.9,
        candidate: 0.7,
        effect: -0.2,
        interval: [-0.3, -0.1],
        margin: 0.05,
        p_block: 0.001,
        p_block_adjusted: 0.004,
        p_approve: 1.0,
        state: MetricState::Deteriorated,
    }
}

fn subgroup_search() -> SubgroupSearch {
    SubgroupSearch {
        metric: "success".to_owned(),
        searched: 12,
        left_out: 1,
        permutations: 1000,
        critical_score: 2.5,
        slices: vec![Subgroup {
            criteria: BTreeMap::from([("region".to_owned(), "north".to_owned())]),
            cases: 30,
            effect: -0.4,
            effect_elsewhere: -0.02,
            score: 4.0,
            p_adjusted: 0.003,
        }],
    }
}

fn drift() -> Drift {
    Drift {
        model: "all-MiniLM-L6-v2/int8".to_owned(),
        cases: 3,
        trials_baseline: 6,
        trials_candidate: 6,
        permutation_unit: PermutationUnit::Trials,
        permutations: 1000,
        is_exact: false,
        bandwidth: 0.5,
        distance_baseline: Some(0.1),
        distance_candidate: None,
        distance_between: 0.2,
        drift: Some(0.09),
        statistics: vec![DriftStatistic {
            name: "within".to_owned(),
            cases: 3,
            value: 2.0,
            p: 0.0005,
            p_permutation: 0.001,
        }],
        p_min: 0.0005,
        changed: true,
        effect: DriftEffect::Review,
        drifted: vec![DriftedCase { case: PLAIN_CASE.to_owned(), drift: 0.3, p: 0.01 }],
        detail: "answers changed (p = 5e-4)".to_owned(),
    }
}

fn outcome() -> OutcomeResult {
    OutcomeResult {
        vacuous_cases: 0,
        decided_by: vec![SourceCount { source: "label".to_owned(), cases: 3 }],
        evaluators: vec![EvaluatorResult {
            name: "judge".to_owned(),
            kind: "judge".to_owned(),
            digest: String::new(),
            scored: 6,
            errors: 1,
            qualified: false,
            overall: Agreement {
                slice: None,
                labels: 6,
                cases: 3,
                successes: 4,
                successes_passed: 3,
                failures: 2,
                failures_caught: 2,
                agreement: Some(0.833),
                agreement_lower: Some(0.4),
                kappa: None,
                kappa_lower: None,
                ac1: Some(0.7),
                ac1_lower: Some(0.1),
                discrimination: Some(0.75),
                discrimination_p: Some(0.05),
                lanes: Vec::new(),
                equal_error_p: None,
                qualified: false,
                reason: "fewer than 50 labels".to_owned(),
            },
            slices: Vec::new(),
        }],
    }
}

fn calibration() -> Calibration {
    Calibration {
        format: CALIBRATION_FORMAT,
        run: "runs/base".to_owned(),
        build: "base".to_owned(),
        policy_digest: String::new(),
        seed: 7,
        looks: 1,
        cases: 3,
        trials: 2.0,
        splits: 1000,
        decisions: CalibrationDecisions { approve: 900, block: 40, inconclusive: 60 },
        false_block: 0.04,
        false_block_interval: [0.029, 0.054],
        against: Vec::new(),
        cases_to_approve: Some(240),
        metrics: vec![CalibrationMetric {
            name: "success".to_owned(),
            unit: Unit::Share,
            decides: true,
            required: true,
            cases: 3,
            margin: 0.05,
            false_alarm: 0.03,
            deviation: 0.2,
            detectable: 0.12,
            detectable_text: "12.0 points".to_owned(),
            approvable_margin: 0.08,
            cases_to_approve: 240,
            between: None,
        }],
        cost: CostForecast {
            trials: 12,
            tokens: Some(5000.0),
            usd: None,
            agent_hours: Some(0.5),
            share_used: 0.7,
        },
        notes: vec!["one split in ten shares a session".to_owned()],
    }
}
