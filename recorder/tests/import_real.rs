//! Imports of real benchmark files: what each holds is known, and all of it must arrive.

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

    fn odd(&self, warning: ImportWarning) -> u64 {
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

fn convert(format: ImportFormat, source: &ImportFile, into: &ImportInto, tools: &ToolCatalog) -> Imported {
    let parsed = import::read(format, source, &OutcomeColumns::default()).expect("no outcome table");
    let keys = keys();
    let mut converter = TranscriptConverter::new(ImportPlan {
        format,
        file: source,
        tenant: TenantId::parse("t").expect("an id"),
        keys: &keys,
        agent: None,
        into,
        tools,
        incarnation: IncarnationId::parse(&format!("import-{}", source.digest())).expect("an id"),
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

fn unpack(path: &str) -> ImportFile {
    ImportFile::decompress(path, std::fs::read(data(path)).expect("test data lies in the repository"))
        .expect("reads")
}

fn import(format: ImportFormat, path: &str) -> Imported {
    let imported = convert(format, &unpack(path), &run(), &ToolCatalog::default());
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
    // An exchange of a transcript without times keeps its place in the session.
    let first = &imported.converted[0].exchanges;
    assert!(
        first.windows(2).all(|pair| pair[0].started_at < pair[1].started_at && pair[0].duration_us.is_none())
    );
}

#[test]
fn the_retail_variants_are_one_trial_a_case_and_their_dirt_is_converted() {
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
        assert_eq!(imported.odd(ImportWarning::PythonArguments), python, "{variant}");
        assert_eq!(imported.odd(ImportWarning::ArgumentsKeptVerbatim), 0, "{variant}");
        assert_eq!(imported.odd(ImportWarning::CallIdMissing), no_id, "{variant}");
        assert_eq!(imported.odd(ImportWarning::ResultJoinedByOrder), no_id, "{variant}");
        assert_eq!(imported.odd(ImportWarning::ResultWithoutCall), 0, "{variant}");
        let crashed: Vec<_> = imported.trials().filter(|trial| !trial.has_transcript).collect();
        assert_eq!(crashed.len(), no_transcript, "{variant}");
        // A crash is a failed trial, not a missing one.
        assert!(
            crashed.iter().all(|trial| trial.ending == TrialEnding::Failed && trial.success == Some(false))
        );
        assert!(imported.exchanges(Edge::Tool).all(|call| call.operation.arguments.is_some()), "{variant}");
    }
}

#[test]
fn python_arguments_become_the_json_they_mean() {
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
        assert_eq!(imported.odd(ImportWarning::TicketAsTurn), 40, "{file}");
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
fn what_the_caller_does_on_its_side_is_not_the_agents() {
    let imported = import(ImportFormat::Tau2, "tau2-bench/telecom__gpt-4o.jsonl.zst");
    assert_eq!((imported.stats.sessions, imported.successes()), (20, 14));
    assert_eq!((imported.stats.tool_calls, imported.odd(ImportWarning::UserToolCall)), (90, 125));
    let mut tools = imported.exchanges(Edge::Tool).filter_map(|call| call.operation.tool.as_deref());
    assert!(tools.all(|tool| tool != "check_status_bar" && tool != "run_speed_test"));
    let converted = &imported.converted[0];
    let pieces = pieces(converted);
    let bodies = converted.exchanges.iter().filter(|exchange| exchange.edge == Edge::Turn);
    let text: String = bodies.map(|turn| text_of(&pieces, turn)).collect();
    assert!(text.contains("user_tool_calls") && text.contains("check_status_bar"), "{text}");
}

#[test]
fn a_whole_document_in_spanish() {
    let imported = import(ImportFormat::Tau2, "tau2-custom-domains-es/retail_02__gemma-3-27b-it.json.zst");
    assert_eq!((imported.stats.sessions, imported.successes(), imported.stats.tool_calls), (20, 20, 51));
    let errors = imported.exchanges(Edge::Tool).filter(|call| call.operation.is_error == Some(true)).count();
    assert_eq!(errors, 19);
    assert_eq!(imported.odd(ImportWarning::Greeting), 20);
}

fn pieces(converted: &ConvertedSession) -> HashMap<Digest, &[u8]> {
    converted.pieces.iter().map(|(_, digest, bytes)| (*digest, &bytes[..])).collect()
}

fn text_of(pieces: &HashMap<Digest, &[u8]>, exchange: &Exchange) -> String {
    let bytes =
        exchange.request.reassemble(|digest| pieces.get(digest).copied()).expect("every piece is there");
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn every_session_is_whole_and_every_body_reads_back() {
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
            let pieces = pieces(converted);
            assert_eq!(pieces.len(), converted.pieces.len(), "{path}: a piece is sent once");
            for exchange in &converted.exchanges {
                assert!(ids.insert(exchange.exchange.clone()), "{path}: {} twice", exchange.exchange);
                let text = text_of(&pieces, exchange);
                if exchange.edge == Edge::Model {
                    let request: serde_json::Value = serde_json::from_str(&text).expect("a chat request");
                    assert!(request["messages"].is_array(), "{path}");
                }
            }
        }
    }
}

#[test]
fn every_asked_for_call_leads_to_its_result() {
    let imported = import(ImportFormat::Tau2, "tau2-bench/airline__gpt-4.1.jsonl.zst");
    let mut joined = 0;
    for converted in &imported.converted {
        let by_id: HashMap<_, _> =
            converted.exchanges.iter().map(|exchange| (&exchange.exchange, exchange)).collect();
        for call in converted.exchanges.iter().filter(|exchange| exchange.edge == Edge::Tool) {
            let asked_by = call.links.iter().find(|link| link.kind == "requested_by").expect("a link");
            let requested = &by_id[&asked_by.to].operation.requested;
            assert!(requested.iter().any(|request| Some(&request.tool) == call.operation.tool.as_ref()));
            joined += 1;
        }
    }
    assert_eq!(joined, 148);
}

#[test]
fn declared_effects_reach_the_calls() {
    let tools = std::fs::read_to_string(data("tau-bench/tools.airline.json")).expect("test data");
    let tools = ToolCatalog::parse_json(&tools).expect("a tool list");
    let source = unpack("tau-bench/gpt-4o-airline.jsonl.zst");
    let imported = convert(ImportFormat::TauBench, &source, &run(), &tools);
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
fn a_spoiled_line_and_a_cut_end_cost_only_themselves() {
    let source = unpack("tau-bench/gpt-4o-airline.jsonl.zst");
    let mut lines: Vec<Vec<u8>> = source.bytes().split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines[2] = b"{\"task_id\": 2, \"traj\": \"none\"}".to_vec();
    lines[4][7] = 0xff;
    let mut bytes = lines.join(&b'\n');
    bytes.truncate(bytes.len() - 200);
    let spoiled = ImportFile::decompress("spoiled.jsonl", bytes).expect("reads");
    let imported = convert(ImportFormat::TauBench, &spoiled, &run(), &ToolCatalog::default());
    assert_eq!(imported.stats.sessions, 97);
    let places: Vec<_> = imported.skipped.iter().map(|item| (item.line, item.field.as_str())).collect();
    assert_eq!(places[0], (3, "traj"));
    assert_eq!((places[1].0, places[2].0), (5, 100));
}

#[test]
fn arguments_that_nobody_can_parse_are_kept_and_the_session_votes() {
    let line = r#"{"task_id":1,"reward":1.0,"traj":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{oops"}}]},{"role":"tool","tool_call_id":"c","content":"Error: no"}]}"#;
    let source = ImportFile::decompress("one.jsonl", line.as_bytes().to_vec()).expect("reads");
    let imported = convert(ImportFormat::TauBench, &source, &run(), &ToolCatalog::default());
    assert_eq!((imported.odd(ImportWarning::ArgumentsKeptVerbatim), imported.successes()), (1, 1));
    let call = imported.exchanges(Edge::Tool).next().expect("the call");
    assert_eq!(call.operation.arguments_verbatim.as_deref(), Some("{oops"));
    assert_eq!((call.operation.arguments.as_deref(), call.operation.is_error), (None, Some(true)));
    let turn = imported.exchanges(Edge::Turn).next().expect("the turn");
    assert_eq!((turn.ending, imported.odd(ImportWarning::UnansweredTurn)), (Ending::Cancelled, 1));
}

#[test]
fn a_planted_key_is_nowhere_in_what_is_made() {
    let key = "sk-planted0123456789abcdef";
    let line = format!(
        r#"{{"task_id":1,"reward":1.0,"traj":[{{"role":"user","content":"use {key}"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{\"k\":\"{key}\"}}"}}}}]}},{{"role":"tool","tool_call_id":"c","content":"got {key}"}},{{"role":"assistant","content":"done with {key}"}}]}}"#
    );
    let source = ImportFile::decompress("one.jsonl", line.into_bytes()).expect("reads");
    let imported = convert(ImportFormat::TauBench, &source, &run(), &ToolCatalog::default());
    assert_eq!((imported.skipped.len(), imported.stats.exchanges), (0, 4));
    let made = format!("{:?}", imported.converted);
    let converted = &imported.converted[0];
    let pieces = pieces(converted);
    let bodies = converted.exchanges.iter().flat_map(|exchange| [&exchange.request, &exchange.response]);
    let bodies = bodies.map(|body| body.reassemble(|digest| pieces.get(digest).copied()).expect("whole"));
    let bodies = String::from_utf8(bodies.flatten().collect()).expect("UTF-8");
    assert!(bodies.contains("done with"), "{bodies}");
    assert!(!made.contains("planted") && !bodies.contains("planted"), "{made}");
    assert_eq!(imported.odd(ImportWarning::SecretReplaced), 4);
    let call = imported.exchanges(Edge::Tool).next().expect("the call");
    assert!(call.operation.arguments.as_deref().is_some_and(|text| text.contains("⟦openai_key:")));
    assert_eq!(call.redactions.len(), 2);
}

#[test]
fn a_store_takes_no_session_without_messages() {
    let source = unpack("tau-bench-retail-variants/variant-assertions-v1.jsonl.zst");
    let imported =
        convert(ImportFormat::TauBench, &source, &ImportInto::Store { build: None }, &ToolCatalog::default());
    assert_eq!((imported.stats.sessions, imported.skipped.len()), (34, 16));
    assert!(imported.converted.iter().all(|converted| converted.trial.is_none()));
    assert!(imported.skipped.iter().all(|item| item.field == "messages"));
}

#[test]
fn four_thousand_outcomes_read_at_once() {
    use std::fmt::Write as _;
    let mut table = "case,trial,success,seconds\n".to_owned();
    for case in 0..500 {
        for trial in 0..8 {
            writeln!(table, "case-{case},{trial},{},0.5", (case + trial) % 2).expect("a string takes it");
        }
    }
    let source = ImportFile::decompress("table.csv", table.into_bytes()).expect("reads");
    let imported = convert(ImportFormat::Outcomes, &source, &run(), &ToolCatalog::default());
    assert_eq!((imported.stats.sessions, imported.successes(), imported.skipped.len()), (4000, 2000, 0));
    assert!(imported.trials().all(|trial| !trial.has_transcript && trial.complete.is_none()));
}

const FORMATS: [ImportFormat; 4] =
    [ImportFormat::TauBench, ImportFormat::Tau2, ImportFormat::AgentDojo, ImportFormat::Outcomes];

fn read_all_ways(bytes: &[u8]) {
    let Ok(source) = ImportFile::decompress("x", bytes.to_vec()) else { return };
    for format in FORMATS {
        // An outcome table without its header is refused as a whole, so there is nothing to weave.
        if import::read(format, &source, &OutcomeColumns::default()).is_ok() {
            convert(format, &source, &run(), &ToolCatalog::default());
        }
    }
}

/// A session with every field that the formats know, for breaking byte by byte.
const EVERYTHING: &str = r#"{"task_id":1,"trial":0,"reward":1.0,"start_time":"2025-01-01T00:00:00","metadata":{"suite_name":"s","user_task_id":"u","success":true},"messages":[{"role":"user","content":"x","timestamp":"2025-01-01T00:00:01"},{"role":"assistant","content":null,"usage":{"prompt_tokens":1,"completion_tokens":2},"cost":0.5,"tool_calls":[{"id":"c","name":"f","arguments":{"a":1},"requestor":"assistant"}]},{"role":"tool","id":"c","content":"r","error":false}],"traj":[{"role":"user","content":["x",{"text":"y"}]},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{'a': (1, 2)}"}}]},{"role":"tool","content":"r"}]}"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read_all_ways(&bytes);
    }

    #[test]
    fn no_broken_byte_makes_a_reader_panic(place in 0..EVERYTHING.len(), byte in any::<u8>(), end in 0..EVERYTHING.len()) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        bytes[place] = byte;
        read_all_ways(&bytes);
        read_all_ways(&bytes[..end]);
    }
}
