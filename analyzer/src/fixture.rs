//! Trials for tests.

use std::collections::BTreeMap;

use schemas::exchange::{Effect, Ending};
use schemas::id::{AgentId, BuildId, CaseId, SessionId, TenantId};
use schemas::trial::{Lane, RunManifest, Trial, TrialEnding};

use crate::run::{Run, ToolCall, TrialRecord};

pub(crate) fn write(tool: &str, arguments: &str) -> ToolCall {
    ToolCall {
        seq: 0,
        tool: tool.to_owned(),
        arguments: Some(arguments.to_owned()),
        arguments_verbatim: None,
        compared: None,
        effect: Effect::Write,
        ending: Ending::Complete,
        status: Some(200),
        is_error: Some(false),
        reversible: None,
        idempotent: None,
        duration_us: Some(1000),
        at: 0,
        result: None,
    }
}

pub(crate) fn read(tool: &str, arguments: &str) -> ToolCall {
    ToolCall { effect: Effect::Read, ..write(tool, arguments) }
}

pub(crate) fn record(case: &str, number: u32, calls: Vec<ToolCall>) -> TrialRecord {
    let trial = Trial {
        model_fidelity: None,
        model_inputs: None,
        provider_retries: None,
        provider_failures: None,
        cluster: None,
        weight: None,
        batch: None,
        outcome_missing: None,
        tenant: TenantId::parse("t").expect("id"),
        agent: AgentId::parse("a").expect("id"),
        build: None,
        lane: Lane::Candidate,
        case: CaseId::parse(case).expect("id"),
        trial: number,
        session: SessionId::parse(&format!("{case}~{number}")).expect("id"),
        seed: None,
        started_at: None,
        duration_us: None,
        ending: TrialEnding::Complete,
        ending_detail: None,
        success: None,
        success_source: None,
        answer: None,
        input_tokens: None,
        output_tokens: None,
        cost_usd: None,
        exchanges: u32::try_from(calls.len()).expect("few calls"),
        has_transcript: true,
        fidelity: None,
        divergences: Vec::new(),
        fault_plan: None,
        complete: None,
        slices: BTreeMap::new(),
    };
    TrialRecord {
        trial,
        calls,
        turns_us: Vec::new(),
        embedding: None,
        user_turns: Vec::new(),
        scores: Vec::new(),
    }
}

pub(crate) fn run(lane: Lane, records: Vec<TrialRecord>) -> Run {
    let mut trials = records;
    trials
        .iter_mut()
        .filter(|record| record.trial.lane == Lane::Candidate)
        .for_each(|record| record.trial.lane = lane);
    let manifest = RunManifest {
        format: schemas::FORMAT,
        tool_version: "test".to_owned(),
        lane,
        build: BuildId::parse(lane.as_str()).expect("id"),
        source: "test".to_owned(),
        model: None,
        selected: false,
        planned_trials: None,
        planned_cases: None,
        seed: None,
        corpus_digest: None,
        plan_digest: None,
        infrastructure: Vec::new(),
        model_retry: None,
    };
    Run { name: format!("runs/{}", lane.as_str()), manifest, trials, notes: Vec::new(), imports: Vec::new() }
}

/// A run of labelled trials without transcripts; `outcomes` per case, `true` is a success.
pub(crate) fn labelled(lane: Lane, outcomes: &[Vec<bool>]) -> Run {
    let mut records = Vec::new();
    for (case, trials) in outcomes.iter().enumerate() {
        for (number, success) in trials.iter().enumerate() {
            let mut record =
                record(&format!("case-{case:05}"), u32::try_from(number).expect("few trials"), vec![]);
            record.trial.has_transcript = false;
            record.trial.success = Some(*success);
            record.trial.success_source = Some("label".to_owned());
            records.push(record);
        }
    }
    run(lane, records)
}
