//! Made-up runs of any size; every field that a session can fill may hold hostile text.

use std::collections::BTreeMap;
use std::sync::Arc;

use analyzer::report::{Transcript, TranscriptTurn, Transcripts};
use analyzer::{AnswerEmbedding, Run, ToolCall, TrialRecord};
use schemas::exchange::{Effect, Ending};
use schemas::id::{AgentId, BuildId, CaseId, SessionId, TenantId};
use schemas::trial::{Divergence, Fidelity, Lane, RunManifest, Trial, TrialEnding};

/// Text of a hostile session. It sets `window.hostile` if a browser runs any part of it.
pub(crate) const HOSTILE: &str = "</script><script>window.hostile=1</script><img src=x onerror=\"window.hostile=1\">\
    <svg onload=window.hostile=1>\"'><a href=javascript:window.hostile=1>x</a>{{7*7}}${window.hostile=1}]]>--><!--\
    \u{202e}\u{0}\u{1b}[31m\u{2028}\u{feff}\u{e0041}";

/// Size of a run, and whether its texts are hostile.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Cases of the run.
    pub(crate) cases: u32,
    /// Trials per case and lane.
    pub(crate) trials: u32,
    /// Read-only tool calls per trial; one or two refunds follow.
    pub(crate) calls: u32,
    /// Whether every text contains [`HOSTILE`].
    pub(crate) hostile: bool,
}

impl Shape {
    fn text(self, plain: String) -> String {
        if self.hostile { format!("{plain} {HOSTILE}") } else { plain }
    }

    /// As [`text`](Self::text) without control characters, which identifiers may not contain.
    fn id(self, plain: String) -> String {
        self.text(plain).chars().filter(|letter| !letter.is_control()).collect()
    }
}

/// A run of a lane with the recordings of its cases. About one candidate trial in five fails and duplicates its refund.
pub(crate) fn run(shape: Shape, lane: Lane) -> Run {
    let mut trials = Vec::new();
    for case in 0..shape.cases {
        trials.push(record(shape, Lane::Recorded, case, 0));
        trials.extend((0..shape.trials).map(|trial| record(shape, lane, case, trial)));
    }
    Run {
        name: shape.text(format!("runs/{}", lane.as_str())),
        manifest: RunManifest {
            format: schemas::FORMAT,
            tool_version: "0.1.0".to_owned(),
            lane,
            build: BuildId::parse(&shape.id(lane.as_str().to_owned()))
                .expect("a build name without control characters"),
            source: "replay".to_owned(),
            model: None,
            selected: false,
            planned_trials: Some(shape.trials),
            planned_cases: Some(shape.cases),
            seed: Some(7),
            corpus_digest: None,
            plan_digest: None,
            infrastructure: Vec::new(),
            model_retry: None,
        },
        trials,
        notes: vec![shape.text("a remark".to_owned())],
        imports: Vec::new(),
    }
}

fn case_name(shape: Shape, case: u32) -> String {
    shape.id(format!("case {case}"))
}

fn session(shape: Shape, lane: Lane, case: u32, trial: u32) -> String {
    shape.id(format!("{}-{case}-{trial}", lane.as_str()))
}

fn fails(lane: Lane, case: u32, trial: u32) -> bool {
    let often = match lane {
        Lane::Recorded => return false,
        Lane::Baseline => 31,
        Lane::Candidate => 5,
    };
    (case * 7 + trial * 3).is_multiple_of(often)
}

fn record(shape: Shape, lane: Lane, case: u32, trial: u32) -> TrialRecord {
    let fails = fails(lane, case, trial);
    let mut calls: Vec<ToolCall> = (0..shape.calls).map(|seq| look_up(shape, case, seq)).collect();
    if lane == Lane::Candidate && case.is_multiple_of(3) && !calls.is_empty() {
        calls.remove(0);
    }
    let refunds = if fails && lane == Lane::Candidate { 2 } else { 1 };
    calls.extend((0..refunds).map(|again| refund(shape, case, shape.calls + again)));
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
            tenant: TenantId::parse("t").expect("plain"),
            agent: AgentId::parse(&shape.id("agent".to_owned()))
                .expect("an agent name without control characters"),
            build: None,
            lane,
            case: CaseId::parse(&case_name(shape, case)).expect("a case name without control characters"),
            trial,
            session: SessionId::parse(&session(shape, lane, case, trial))
                .expect("a session name without control characters"),
            seed: Some(7),
            started_at: Some(1_760_000_000_000_000 + i64::from(case)),
            duration_us: Some(900_000 + u64::from((case * 31 + trial * 7) % 100) * 9_000),
            ending: if fails && trial == 1 { TrialEnding::Failed } else { TrialEnding::Complete },
            ending_detail: Some(shape.text("why".to_owned())),
            success: Some(!fails),
            success_source: Some("label".to_owned()),
            answer: Some(shape.text(format!("Order {case} is refunded; it takes five to seven days."))),
            input_tokens: Some(1200),
            output_tokens: Some(200),
            cost_usd: Some(0.01),
            exchanges: u32::try_from(calls.len()).expect("few"),
            has_transcript: true,
            fidelity: Some(Fidelity { exact: shape.calls, missed: u32::from(fails), ..Fidelity::default() }),
            divergences: divergences(shape, fails),
            fault_plan: shape.hostile.then(|| HOSTILE.to_owned()),
            complete: Some(true),
            slices: BTreeMap::from([(shape.text("region".to_owned()), shape.text(format!("r{}", case % 4)))]),
        },
        calls,
        turns_us: vec![900_000],
        embedding: embedding(lane, case, trial),
        user_turns: Vec::new(),
        scores: Vec::new(),
    }
}

/// An embedding: a direction per case, some noise per trial, and a shift for the candidate in every third case.
fn embedding(lane: Lane, case: u32, trial: u32) -> Option<AnswerEmbedding> {
    let noise = |index: u32, seed: u32| {
        f32::from(u16::try_from((index * 7919 + seed * 104_729) % 1000).expect("small")) / 1000.0 - 0.5
    };
    let shift = if lane == Lane::Candidate && case.is_multiple_of(3) { 0.4 } else { 0.0 };
    let arm = u32::from(lane == Lane::Candidate) * 50 + trial + 1;
    let turn: Vec<f32> = (0..8)
        .map(|index| {
            noise(index, case + 1) + 0.2 * noise(index + 3, case * 100 + arm) + shift * noise(index, 3)
        })
        .collect();
    AnswerEmbedding::of_turns(&Arc::from("made-up"), &[turn]).ok()
}

fn divergences(shape: Shape, fails: bool) -> Vec<Divergence> {
    let divergence = || Divergence {
        path: None,
        argument: None,
        seq: 0,
        kind: shape.text("tool_missed".to_owned()),
        tool: Some(shape.text("refund".to_owned())),
        detail: shape.text("asked for another order".to_owned()),
    };
    fails.then(divergence).into_iter().collect()
}

fn look_up(shape: Shape, case: u32, seq: u32) -> ToolCall {
    let arguments = serde_json::json!({"order_id": format!("#W{}", case * 97 + seq), "fields": shape.text("items".to_owned())});
    ToolCall {
        seq: seq + 1,
        tool: shape.text(
            ["get_order_details", "get_user_details", "get_product_details"][seq as usize % 3].to_owned(),
        ),
        arguments: Some(arguments.to_string()),
        arguments_verbatim: None,
        compared: None,
        effect: Effect::Read,
        ending: Ending::Complete,
        status: Some(200),
        is_error: Some(false),
        reversible: None,
        idempotent: None,
        duration_us: Some(12_000),
        at: 0,
        result: None,
    }
}

fn refund(shape: Shape, case: u32, seq: u32) -> ToolCall {
    ToolCall {
        seq: seq + 1,
        tool: shape.text("refund".to_owned()),
        arguments: None,
        arguments_verbatim: Some(shape.text(format!("order={case}"))),
        effect: Effect::Write,
        ..look_up(shape, case, seq)
    }
}

/// Transcripts of these sessions.
pub(crate) fn transcripts(shape: Shape, wanted: impl IntoIterator<Item = (Lane, String)>) -> Transcripts {
    let turn = || TranscriptTurn {
        seq: 0,
        input: Some(shape.text("I would like my money back.".to_owned())),
        output: Some(shape.text("It is on its way.".to_owned())),
    };
    let result = || shape.text("{\"status\": \"ok\"}".to_owned());
    let transcript = || Transcript {
        turns: vec![turn()],
        results: (1..=shape.calls + 2).map(|seq| (seq, result())).collect(),
    };
    wanted.into_iter().map(|name| (name, transcript())).collect()
}
