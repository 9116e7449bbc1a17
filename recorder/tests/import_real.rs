//! Imports of real benchmark files with known content.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use proptest::prelude::*;
use recorder::import::{
    self, ConvertedSession, ImportFile, ImportFormat, ImportInto, ImportPlan, ImportStats, ImportWarning,
    OutcomeColumns, SkippedItem, TranscriptConverter,
};
use schemas::exchange::{Edge, Effect, Ending, Exchange};
use schemas::id::{BuildId, IncarnationId, TenantId};
use schemas::keys::{Digest, RootKey, TenantKeys};
use schemas::session::gaps;
use schemas::tools::ToolCatalog;
use schemas::trial::{Lane, Trial, TrialEnding};

struct Imported {
    converted: Vec<ConvertedSession>,
    stats: ImportStats,
    skipped: Vec<SkippedItem>,
}

impl Imported {
    fn trials(&self) -> impl Iterator<Item = &Trial> {
        self.converted.iter().filter_map(|converted| converted.trial.as_ref())
    }

    fn exchanges(&self, edge: Edge) -> impl Iterator<Item = &Exchange> {
        self.converted
            .iter()
            .flat_map(|converted| &converted.exchanges)
            .filter(move |exchange| exchange.edge == edge)
    }

    fn successes(&self) -> usize {
        self.trials().filter(|trial| trial.success == Some(true)).count()
    }

    fn count(&self, warning: ImportWarning) -> u64 {
        self.stats.warnings.get(&warning).copied().unwrap_or(0)
    }
}

fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(path)
}

fn keys() -> TenantKeys {
    RootKey::new([1; 32]).tenant(&TenantId::parse("t").expect("an id"))
}

fn run() -> ImportInto {
    ImportInto::Run { build: BuildId::parse("b").expect("an id"), lane: Lane::Baseline }
}

fn convert(format: ImportFormat, file: &ImportFile, into: &ImportInto, tools: &ToolCatalog) -> Imported {
    let parsed = import::read(format, file, &OutcomeColumns::default()).expect("no outcome table");
    let keys = keys();
    let mut converter = TranscriptConverter::new(ImportPlan {
        format,
        file,
        tenant: TenantId::parse("t").expect("an id"),
        keys: &keys,
        agent: None,
        into,
        tools,
        incarnation: IncarnationId::parse(&format!("import-{}", file.digest())).expect("an id"),
        now: 1_800_000_000_000_000,
        sessions_before: 0,
    });
    let mut imported = Imported { converted: vec![], stats: ImportStats::default(), skipped: parsed.skipped };
    for transcript in parsed.transcripts {
        match converter.convert(transcript) {
            Ok(converted) => {
                imported.stats.add(&converted.stats);
                imported.converted.push(converted);
            }
            Err(item) => imported.skipped.push(item),
        }
    }
    imported
}

fn open(path: &str) -> ImportFile {
    ImportFile::decompress(path, std::fs::read(data(path)).expect("the repository has the test data"))
        .expect("reads")
}

fn import(format: ImportFormat, path: &str) -> Imported {
    let imported = convert(format, &open(path), &run(), &ToolCatalog::default());
    assert_eq!(imported.skipped, [], "{path}");
    imported
}

#[test]
fn tau_bench_has_four_trials_of_each_case() {
    let imported = import(ImportFormat::TauBench, "tau-bench/gpt-4o-airline.jsonl.zst");
    assert_eq!(imported.stats.sessions, 100);
    let mut cases: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    let mut successes: BTreeMap<u32, u32> = BTreeMap::new();
    for trial in imported.trials() {
        cases.entry(trial.trial).or_default().insert(trial.case.as_str());
        *successes.entry(trial.trial).or_default() += u32::from(trial.success == Some(true));
    }
    assert!(cases.values().all(|cases| cases.len() == 25), "{cases:?}");
    assert_eq!(successes, BTreeMap::from([(0, 6), (1, 8), (2, 9), (3, 8)]));
    assert_eq!(imported.stats.tool_calls, 621);
    assert!(imported.trials().all(|trial| trial.duration_us.is_none() && trial.input_tokens.is_none()));
    assert!(imported.trials().all(|trial| trial.answer.is_some() && trial.complete == Some(true)));
    assert!(imported.trials().all(|trial| trial.agent.as_str() == "airline"));
    // Without times, exchanges keep their order.
    let first = &imported.converted[0].exchanges;
    assert!(
        first.windows(2).all(|pair| pair[0].started_at < pair[1].started_at && pair[0].duration_us.is_none())
    );
}

#[test]
fn the_retail_variants_have_one_trial_per_case_and_are_repaired() {
    // Variant, successes, converted arguments, calls without an id, sessions without a transcript.
    let known = [
        ("baseline-tool-calling", 36, 0, 0, 0),
        ("variant-preconditions", 37, 52, 0, 0),
        ("variant-assertions-v1", 16, 246, 250, 16),
        ("variant-assertions-v2", 20, 332, 336, 3),
    ];
    for (variant, successes, python, no_id, no_transcript) in known {
        let imported =
            import(ImportFormat::TauBench, &format!("tau-bench-retail-variants/{variant}.jsonl.zst"));
        let cases: BTreeSet<_> = imported.trials().map(|trial| trial.case.as_str()).collect();
        assert_eq!((cases.len(), imported.stats.sessions), (50, 50), "{variant}");
        assert!(imported.trials().all(|trial| trial.trial == 0), "{variant}");
        assert_eq!(imported.successes(), successes, "{variant}");
        assert_eq!(imported.count(ImportWarning::PythonArguments), python, "{variant}");
        assert_eq!(imported.count(ImportWarning::ArgumentsKeptVerbatim), 0, "{variant}");
        assert_eq!(imported.count(ImportWarning::CallIdMissing), no_id, "{variant}");
        assert_eq!(imported.count(ImportWarning::ResultJoinedByOrder), no_id, "{variant}");
        assert_eq!(imported.count(ImportWarning::ResultWithoutCall), 0, "{variant}");
        let crashed: Vec<_> = imported.trials().filter(|trial| !trial.has_transcript).collect();
        assert_eq!(crashed.len(), no_transcript, "{variant}");
        // A crashed trial is failed, not missing.
        assert!(
            crashed.iter().all(|trial| trial.ending == TrialEnding::Failed && trial.success == Some(false))
        );
        assert!(imported.exchanges(Edge::Tool).all(|call| call.operation.arguments.is_some()), "{variant}");
    }
}

#[test]
fn python_arguments_become_json() {
    let imported =
        import(ImportFormat::TauBench, "tau-bench-retail-variants/variant-assertions-v1.jsonl.zst");
    let first = imported.exchanges(Edge::Tool).next().expect("a tool call");
    let arguments = first.operation.arguments.as_deref();
    assert_eq!(arguments, Some(r#"{"first_name":"Yusuf","last_name":"Rossi","zip":"19122"}"#));
    assert_eq!(first.operation.result.as_deref(), Some("yusuf_rossi_9620"));
}

#[test]
fn tau2_times_tokens_and_tickets() {
    for (file, successes) in [("telecom-no-user__gpt-4.1", 20), ("telecom-no-user__gpt-4.1-sft", 34)] {
        let imported = import(ImportFormat::Tau2, &format!("tau2-bench/{file}.jsonl.zst"));
        assert_eq!((imported.stats.sessions, imported.successes()), (40, successes), "{file}");
        assert_eq!(imported.count(ImportWarning::TicketAsTurn), 40, "{file}");
        assert_eq!(imported.stats.turns, 40, "{file}");
        let is_complete = |trial: &Trial| {
            trial.duration_us.is_some_and(|micros| micros > 0)
                && trial.input_tokens.is_some_and(|tokens| tokens > 0)
                && trial.cost_usd.is_some()
        };
        assert!(imported.trials().all(is_complete), "{file}");
    }
}

#[test]
fn tool_calls_of_the_user_do_not_count_for_the_agent() {
    let imported = import(ImportFormat::Tau2, "tau2-bench/telecom__gpt-4o.jsonl.zst");
    assert_eq!((imported.stats.sessions, imported.successes()), (20, 14));
    assert_eq!((imported.stats.tool_calls, imported.count(ImportWarning::UserToolCall)), (90, 125));
    let mut tools = imported.exchanges(Edge::Tool).filter_map(|call| call.operation.tool.as_deref());
    assert!(tools.all(|tool| tool != "check_status_bar" && tool != "run_speed_test"));
    let converted = &imported.converted[0];
    let chunks = chunks(converted);
    let bodies = converted.exchanges.iter().filter(|exchange| exchange.edge == Edge::Turn);
    let text: String = bodies.map(|turn| text_of(&chunks, turn)).collect();
    assert!(text.contains("user_tool_calls") && text.contains("check_status_bar"), "{text}");
}

#[test]
fn a_single_document_in_spanish() {
    let imported = import(ImportFormat::Tau2, "tau2-custom-domains-es/retail_02__gemma-3-27b-it.json.zst");
    assert_eq!((imported.stats.sessions, imported.successes(), imported.stats.tool_calls), (20, 20, 51));
    let errors = imported.exchanges(Edge::Tool).filter(|call| call.operation.is_error == Some(true)).count();
    assert_eq!(errors, 19);
    assert_eq!(imported.count(ImportWarning::Greeting), 20);
}

fn chunks(converted: &ConvertedSession) -> HashMap<Digest, &[u8]> {
    converted.chunks.iter().map(|(_, digest, bytes)| (*digest, &bytes[..])).collect()
}

fn text_of(chunks: &HashMap<Digest, &[u8]>, exchange: &Exchange) -> String {
    let bytes =
        exchange.request.reassemble(|digest| chunks.get(digest).copied()).expect("every chunk is present");
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn every_session_is_complete_and_every_body_reassembles() {
    let files = [
        (ImportFormat::TauBench, "tau-bench/gpt-4o-airline.jsonl.zst"),
        (ImportFormat::TauBench, "tau-bench-retail-variants/variant-assertions-v2.jsonl.zst"),
        (ImportFormat::Tau2, "tau2-bench/airline__gpt-4.1.jsonl.zst"),
        (ImportFormat::Tau2, "tau2-bench/telecom__gpt-4o.jsonl.zst"),
    ];
    for (format, path) in files {
        let imported = import(format, path);
        let mut ids = BTreeSet::new();
        for converted in &imported.converted {
            let seqs = converted.exchanges.iter().map(|exchange| (&exchange.incarnation, exchange.seq));
            assert_eq!(gaps(&converted.close, seqs), [], "{path}");
            let chunks = chunks(converted);
            assert_eq!(chunks.len(), converted.chunks.len(), "{path}: every chunk once");
            for exchange in &converted.exchanges {
                assert!(ids.insert(exchange.exchange.clone()), "{path}: {} twice", exchange.exchange);
                let text = text_of(&chunks, exchange);
                if exchange.edge == Edge::Model {
                    let request: serde_json::Value = serde_json::from_str(&text).expect("a chat request");
                    assert!(request["messages"].is_array(), "{path}");
                }
            }
        }
    }
}

#[test]
fn every_result_links_to_its_request() {
    let imported = import(ImportFormat::Tau2, "tau2-bench/airline__gpt-4.1.jsonl.zst");
    let mut joined = 0;
    for converted in &imported.converted {
        let by_id: HashMap<_, _> =
            converted.exchanges.iter().map(|exchange| (&exchange.exchange, exchange)).collect();
        for call in converted.exchanges.iter().filter(|exchange| exchange.edge == Edge::Tool) {
            let requested_by = call.links.iter().find(|link| link.kind == "requested_by").expect("a link");
            let requested = &by_id[&requested_by.to].operation.requested;
            assert!(requested.iter().any(|request| Some(&request.tool) == call.operation.tool.as_ref()));
            joined += 1;
        }
    }
    assert_eq!(joined, 148);
}

#[test]
fn tool_calls_have_the_declared_effects() {
    let tools = std::fs::read_to_string(data("tau-bench/tools.airline.json")).expect("test data");
    let tools = ToolCatalog::parse_json(&tools).expect("a tool list");
    let file = open("tau-bench/gpt-4o-airline.jsonl.zst");
    let imported = convert(ImportFormat::TauBench, &file, &run(), &tools);
    let effect = |tool: &str| {
        let mut calls =
            imported.exchanges(Edge::Tool).filter(|call| call.operation.tool.as_deref() == Some(tool));
        calls.next().map(|call| call.operation.effect)
    };
    assert_eq!(effect("get_user_details"), Some(Effect::Read));
    assert_eq!(effect("cancel_reservation"), Some(Effect::Write));
    assert!(imported.exchanges(Edge::Tool).all(|call| call.operation.effect != Effect::Unknown));
}

#[test]
fn a_broken_line_and_a_truncated_end_skip_only_themselves() {
    let file = open("tau-bench/gpt-4o-airline.jsonl.zst");
    let mut lines: Vec<Vec<u8>> = file.bytes().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines[2] = b"{\"task_id\": 2, \"traj\": \"none\"}".to_vec();
    lines[4][7] = 0xff;
    let mut bytes = lines.join(&b'\n');
    bytes.truncate(bytes.len() - 200);
    let broken = ImportFile::decompress("broken.jsonl", bytes).expect("reads");
    let imported = convert(ImportFormat::TauBench, &broken, &run(), &ToolCatalog::default());
    // The task of line 3 is known and its messages are not: its trial is there, incomplete.
    assert_eq!(imported.stats.sessions, 98);
    let lines: Vec<u64> = imported.skipped.iter().map(|item| item.line).collect();
    assert!(lines.ends_with(&[5, 100]), "{lines:?}");
}

#[test]
fn unparsable_arguments_are_kept_and_the_session_counts() {
    let line = r#"{"task_id":1,"reward":1.0,"traj":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{oops"}}]},{"role":"tool","tool_call_id":"c","content":"Error: no"}]}"#;
    let file = ImportFile::decompress("one.jsonl", line.as_bytes().to_vec()).expect("reads");
    let imported = convert(ImportFormat::TauBench, &file, &run(), &ToolCatalog::default());
    assert_eq!((imported.count(ImportWarning::ArgumentsKeptVerbatim), imported.successes()), (1, 1));
    let call = imported.exchanges(Edge::Tool).next().expect("the call");
    assert_eq!(call.operation.arguments_verbatim.as_deref(), Some("{oops"));
    assert_eq!((call.operation.arguments.as_deref(), call.operation.is_error), (None, Some(true)));
    let turn = imported.exchanges(Edge::Turn).next().expect("the turn");
    assert_eq!((turn.ending, imported.count(ImportWarning::UnansweredTurn)), (Ending::Cancelled, 1));
}

#[test]
fn a_planted_key_appears_nowhere_in_the_converted_session() {
    let key = "sk-planted0123456789abcdef";
    let line = format!(
        r#"{{"task_id":1,"reward":1.0,"traj":[{{"role":"user","content":"use {key}"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{\"k\":\"{key}\"}}"}}}}]}},{{"role":"tool","tool_call_id":"c","content":"got {key}"}},{{"role":"assistant","content":"done with {key}"}}]}}"#
    );
    let file = ImportFile::decompress("one.jsonl", line.into_bytes()).expect("reads");
    let imported = convert(ImportFormat::TauBench, &file, &run(), &ToolCatalog::default());
    assert_eq!((imported.skipped.len(), imported.stats.exchanges), (0, 4));
    let debug = format!("{:?}", imported.converted);
    let converted = &imported.converted[0];
    let chunks = chunks(converted);
    let bodies = converted.exchanges.iter().flat_map(|exchange| [&exchange.request, &exchange.response]);
    let bodies = bodies.map(|body| body.reassemble(|digest| chunks.get(digest).copied()).expect("complete"));
    let bodies = String::from_utf8(bodies.flatten().collect()).expect("UTF-8");
    assert!(bodies.contains("done with"), "{bodies}");
    assert!(!debug.contains("planted") && !bodies.contains("planted"), "{debug}");
    assert_eq!(imported.count(ImportWarning::SecretReplaced), 4);
    let call = imported.exchanges(Edge::Tool).next().expect("the call");
    assert!(call.operation.arguments.as_deref().is_some_and(|text| text.contains("⟦openai_key:")));
    assert_eq!(call.redactions.len(), 2);
}

#[test]
fn a_store_skips_sessions_without_messages() {
    let file = open("tau-bench-retail-variants/variant-assertions-v1.jsonl.zst");
    let imported =
        convert(ImportFormat::TauBench, &file, &ImportInto::Store { build: None }, &ToolCatalog::default());
    assert_eq!((imported.stats.sessions, imported.skipped.len()), (34, 16));
    assert!(imported.converted.iter().all(|converted| converted.trial.is_none()));
    assert!(imported.skipped.iter().all(|item| item.field == "messages"));
}

#[test]
fn four_thousand_outcomes_are_imported() {
    use std::fmt::Write as _;
    let mut table = "case,trial,success,seconds\n".to_owned();
    for case in 0..500 {
        for trial in 0..8 {
            writeln!(table, "case-{case},{trial},{},0.5", (case + trial) % 2).expect("writes to a string");
        }
    }
    let file = ImportFile::decompress("table.csv", table.into_bytes()).expect("reads");
    let imported = convert(ImportFormat::Outcomes, &file, &run(), &ToolCatalog::default());
    assert_eq!((imported.stats.sessions, imported.successes(), imported.skipped.len()), (4000, 2000, 0));
    assert!(imported.trials().all(|trial| !trial.has_transcript && trial.complete.is_none()));
}

const FORMATS: [ImportFormat; 4] =
    [ImportFormat::TauBench, ImportFormat::Tau2, ImportFormat::AgentDojo, ImportFormat::Outcomes];

fn read_as_every_format(bytes: &[u8]) {
    let Ok(file) = ImportFile::decompress("x", bytes.to_vec()) else { return };
    for format in FORMATS {
        // An outcome table without a header is an error as a whole.
        if import::read(format, &file, &OutcomeColumns::default()).is_ok() {
            convert(format, &file, &run(), &ToolCatalog::default());
        }
    }
}

/// A session with every field of the formats, for mutation byte by byte.
const EVERYTHING: &str = r#"{"task_id":1,"trial":0,"reward":1.0,"start_time":"2025-01-01T00:00:00","metadata":{"suite_name":"s","user_task_id":"u","success":true},"messages":[{"role":"user","content":"x","timestamp":"2025-01-01T00:00:01"},{"role":"assistant","content":null,"usage":{"prompt_tokens":1,"completion_tokens":2},"cost":0.5,"tool_calls":[{"id":"c","name":"f","arguments":{"a":1},"requestor":"assistant"}]},{"role":"tool","id":"c","content":"r","error":false}],"traj":[{"role":"user","content":["x",{"text":"y"}]},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{'a': (1, 2)}"}}]},{"role":"tool","content":"r"}]}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_input_makes_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_as_every_format(&bytes);
    }

    #[test]
    fn no_mutated_byte_makes_a_parser_panic(index in 0..EVERYTHING.len(), byte in any::<u8>(), end in 0..EVERYTHING.len()) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        bytes[index] = byte;
        read_as_every_format(&bytes);
        read_as_every_format(&bytes[..end]);
    }
}
