//! Simulated trials as a run of the analyzer, and as a table for `foreshadow import`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use analyzer::{Run, TrialRecord};
use schemas::id::{AgentId, BuildId, CaseId, SessionId, TenantId};
use schemas::trial::{Lane, RunManifest, Trial, TrialEnding};

/// Outcome of a trial without a transcript.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    /// Duration, microseconds.
    pub(crate) duration_us: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cost_usd: Option<f64>,
}

impl Outcome {
    /// A trial of which only the success is known.
    pub(crate) fn of(success: bool) -> Self {
        Self { success, duration_us: None, output_tokens: None, cost_usd: None }
    }
}

/// Trials by case.
pub(crate) type Table = Vec<Vec<Outcome>>;

/// Builds a run of one lane.
pub(crate) fn run(lane: Lane, table: &[Vec<Outcome>]) -> Run {
    let tenant = TenantId::parse("default").expect("an id");
    let agent = AgentId::parse("outcomes").expect("an id");
    let build = BuildId::parse(lane.as_str()).expect("an id");
    let mut trials = Vec::with_capacity(table.iter().map(Vec::len).sum());
    for (number, outcomes) in table.iter().enumerate() {
        let case = CaseId::parse(&case_name(number)).expect("an id");
        for (trial, outcome) in (0..).zip(outcomes) {
            trials.push(TrialRecord::without_transcript(Trial {
                model_fidelity: None,
                model_inputs: None,
                provider_retries: None,
                provider_failures: None,
                cluster: None,
                weight: None,
                batch: None,
                outcome_missing: None,
                tenant: tenant.clone(),
                agent: agent.clone(),
                build: Some(build.clone()),
                lane,
                case: case.clone(),
                trial,
                session: SessionId::parse(&format!("{case}/{trial}")).expect("an id"),
                seed: None,
                started_at: None,
                duration_us: outcome.duration_us,
                ending: TrialEnding::Complete,
                ending_detail: None,
                success: Some(outcome.success),
                success_source: Some("label".to_owned()),
                answer: None,
                input_tokens: None,
                output_tokens: outcome.output_tokens,
                cost_usd: outcome.cost_usd,
                exchanges: 0,
                has_transcript: false,
                fidelity: None,
                divergences: Vec::new(),
                fault_plan: None,
                complete: None,
                slices: BTreeMap::new(),
            }));
        }
    }
    Run {
        name: lane.as_str().to_owned(),
        manifest: manifest(lane, build),
        trials,
        notes: Vec::new(),
        imports: Vec::new(),
    }
}

fn manifest(lane: Lane, build: BuildId) -> RunManifest {
    RunManifest {
        format: schemas::FORMAT,
        tool_version: "simulation".to_owned(),
        lane,
        build,
        source: "import:outcomes".to_owned(),
        model: None,
        selected: false,
        planned_trials: None,
        planned_cases: None,
        seed: None,
        corpus_digest: None,
        plan_digest: None,
        infrastructure: Vec::new(),
        model_retry: None,
    }
}

fn case_name(number: usize) -> String {
    format!("case-{number:06}")
}

/// The same trials as a table for `foreshadow import --format outcomes`, exact to the last digit.
pub(crate) fn csv(table: &[Vec<Outcome>]) -> String {
    let mut text = "case,trial,success,seconds,output_tokens,cost\n".to_owned();
    for (number, outcomes) in table.iter().enumerate() {
        for (trial, outcome) in outcomes.iter().enumerate() {
            let seconds = outcome.duration_us.map(|us| format!("{}.{:06}", us / 1_000_000, us % 1_000_000));
            let tokens = outcome.output_tokens.map(|tokens| tokens.to_string());
            let cost = outcome.cost_usd.map(|cost| cost.to_string());
            let [seconds, tokens, cost] = [seconds, tokens, cost].map(Option::unwrap_or_default);
            let success = u8::from(outcome.success);
            let _ = writeln!(text, "{},{trial},{success},{seconds},{tokens},{cost}", case_name(number));
        }
    }
    text
}
