//! Imports of real benchmark files: what each holds is known, and all of it must arrive.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use proptest::prelude::*;
use recorder::import::{
    self, Columns, Format, ImportInto, ImportPlan, Oddity, SetAside, Source, Tally, Weaver, Woven,
};
use schemas::exchange::{Edge, Effect, Ending, Exchange};
use schemas::id::{BuildId, IncarnationId, TenantId};
use schemas::keys::{Digest, RootKey, TenantKeys};
use schemas::session::tears;
use schemas::tools::ToolCatalog;
use schemas::trial::{Lane, Trial, TrialEnding};

struct Imported {
    woven: Vec<Woven>,
    tally: Tally,
    set_aside: Vec<SetAside>,
}

impl Imported {
    fn trials(&self) -> impl Iterator<Item = &Trial> {
        self.woven.iter().filter_map(|woven| woven.trial.as_ref())
    }

    fn exchanges(&self, edge: Edge) -> impl Iterator<Item = &Exchange> {
        self.woven.iter().flat_map(|woven| &woven.exchanges).filter(move |exchange| exchange.edge == edge)
    }

    fn successes(&self) -> usize {
        self.trials().filter(|trial| trial.success == Some(true)).count()
    }

    fn odd(&self, oddity: Oddity) -> u64 {
        self.tally.oddities.get(&oddity).copied().unwrap_or(0)
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

fn weave(format: Format, source: &Source, into: &ImportInto, tools: &ToolCatalog) -> Imported {
    let parsed = import::read(format, source, &Columns::default()).expect("no outcome table");
    let keys = keys();
    let mut weaver = Weaver::new(ImportPlan {
        format,
        source,
        tenant: TenantId::parse("t").expect("an id"),
        keys: &keys,
        agent: None,
        into,
        tools,
        incarnation: IncarnationId::parse(&format!("import-{}", source.digest())).expect("an id"),
        now: 1_800_000_000_000_000,
        sessions_before: 0,
    });
    let mut imported = Imported { woven: vec![], tally: Tally::default(), set_aside: parsed.set_aside };
    for transcript in parsed.transcripts {
        match weaver.weave(transcript) {
            Ok(woven) => {
                imported.tally.add(&woven.tally);
                imported.woven.push(woven);
            }
            Err(aside) => imported.set_aside.push(aside),
        }
    }
    imported
}

fn unpack(path: &str) -> Source {
    Source::unpack(path, std::fs::read(data(path)).expect("test data lies in the repository")).expect("reads")
}

fn import(format: Format, path: &str) -> Imported {
    let imported = weave(format, &unpack(path), &run(), &ToolCatalog::default());
    assert_eq!(imported.set_aside, [], "{path}");
    imported
}

#[test]
fn tau_bench_has_four_trials_of_each_case() {
    let imported = import(Format::TauBench, "tau-bench/gpt-4o-airline.jsonl.zst");
    assert_eq!(imported.tally.sessions, 100);
    let mut cases: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    let mut successes: BTreeMap<u32, u32> = BTreeMap::new();
    for trial in imported.trials() {
        cases.entry(trial.trial).or_default().insert(trial.case.as_str());
        *successes.entry(trial.trial).or_default() += u32::from(trial.success == Some(true));
    }
    assert!(cases.values().all(|cases| cases.len() == 25), "{cases:?}");
    assert_eq!(successes, BTreeMap::from([(0, 6), (1, 8), (2, 9), (3, 8)]));
    assert_eq!(imported.tally.tool_calls, 621);
    assert!(imported.trials().all(|trial| trial.duration_us.is_none() && trial.input_tokens.is_none()));
    assert!(imported.trials().all(|trial| trial.answer.is_some() && trial.whole == Some(true)));
    assert!(imported.trials().all(|trial| trial.agent.as_str() == "airline"));
    // An exchange of a transcript without times keeps its place in the session.
    let first = &imported.woven[0].exchanges;
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
        let imported = import(Format::TauBench, &format!("tau-bench-retail-variants/{variant}.jsonl.zst"));
        let cases: BTreeSet<_> = imported.trials().map(|trial| trial.case.as_str()).collect();
        assert_eq!((cases.len(), imported.tally.sessions), (50, 50), "{variant}");
        assert!(imported.trials().all(|trial| trial.trial == 0), "{variant}");
        assert_eq!(imported.successes(), successes, "{variant}");
        assert_eq!(imported.odd(Oddity::PythonArguments), python, "{variant}");
        assert_eq!(imported.odd(Oddity::ArgumentsKeptVerbatim), 0, "{variant}");
        assert_eq!(imported.odd(Oddity::CallIdMissing), no_id, "{variant}");
        assert_eq!(imported.odd(Oddity::ResultJoinedByOrder), no_id, "{variant}");
        assert_eq!(imported.odd(Oddity::ResultWithoutCall), 0, "{variant}");
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
    let imported = import(Format::TauBench, "tau-bench-retail-variants/variant-assertions-v1.jsonl.zst");
    let first = imported.exchanges(Edge::Tool).next().expect("a tool call");
    let arguments = first.operation.arguments.as_deref();
    assert_eq!(arguments, Some(r#"{"first_name":"Yusuf","last_name":"Rossi","zip":"19122"}"#));
    assert_eq!(first.operation.result.as_deref(), Some("yusuf_rossi_9620"));
}

#[test]
fn tau2_times_tokens_and_tickets() {
    for (file, successes) in [("telecom-no-user__gpt-4.1", 20), ("telecom-no-user__gpt-4.1-sft", 34)] {
        let imported = import(Format::Tau2, &format!("tau2-bench/{file}.jsonl.zst"));
        assert_eq!((imported.tally.sessions, imported.successes()), (40, successes), "{file}");
        assert_eq!(imported.odd(Oddity::TicketAsTurn), 40, "{file}");
        assert_eq!(imported.tally.turns, 40, "{file}");
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
    let imported = import(Format::Tau2, "tau2-bench/telecom__gpt-4o.jsonl.zst");
    assert_eq!((imported.tally.sessions, imported.successes()), (20, 14));
    assert_eq!((imported.tally.tool_calls, imported.odd(Oddity::CallerToolCall)), (90, 125));
    let mut tools = imported.exchanges(Edge::Tool).filter_map(|call| call.operation.tool.as_deref());
    assert!(tools.all(|tool| tool != "check_status_bar" && tool != "run_speed_test"));
    let woven = &imported.woven[0];
    let pieces = pieces(woven);
    let bodies = woven.exchanges.iter().filter(|exchange| exchange.edge == Edge::Turn);
    let text: String = bodies.map(|turn| text_of(&pieces, turn)).collect();
    assert!(text.contains("caller_tool_calls") && text.contains("check_status_bar"), "{text}");
}

#[test]
fn a_whole_document_in_spanish() {
    let imported = import(Format::Tau2, "tau2-custom-domains-es/retail_02__gemma-3-27b-it.json.zst");
    assert_eq!((imported.tally.sessions, imported.successes(), imported.tally.tool_calls), (20, 20, 51));
    let errors = imported.exchanges(Edge::Tool).filter(|call| call.operation.is_error == Some(true)).count();
    assert_eq!(errors, 19);
    assert_eq!(imported.odd(Oddity::Greeting), 20);
}

fn pieces(woven: &Woven) -> HashMap<Digest, &[u8]> {
    woven.pieces.iter().map(|(_, digest, bytes)| (*digest, &bytes[..])).collect()
}

fn text_of(pieces: &HashMap<Digest, &[u8]>, exchange: &Exchange) -> String {
    let bytes =
        exchange.request.reassemble(|digest| pieces.get(digest).copied()).expect("every piece is there");
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn every_session_is_whole_and_every_body_reads_back() {
    let files = [
        (Format::TauBench, "tau-bench/gpt-4o-airline.jsonl.zst"),
        (Format::TauBench, "tau-bench-retail-variants/variant-assertions-v2.jsonl.zst"),
        (Format::Tau2, "tau2-bench/airline__gpt-4.1.jsonl.zst"),
        (Format::Tau2, "tau2-bench/telecom__gpt-4o.jsonl.zst"),
    ];
    for (format, path) in files {
        let imported = import(format, path);
        let mut ids = BTreeSet::new();
        for woven in &imported.woven {
            let seqs = woven.exchanges.iter().map(|exchange| (&exchange.incarnation, exchange.seq));
            assert_eq!(tears(&woven.close, seqs), [], "{path}");
            let pieces = pieces(woven);
            assert_eq!(pieces.len(), woven.pieces.len(), "{path}: a piece is sent once");
            for exchange in &woven.exchanges {
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
    let imported = import(Format::Tau2, "tau2-bench/airline__gpt-4.1.jsonl.zst");
    let mut joined = 0;
    for woven in &imported.woven {
        let by_id: HashMap<_, _> =
            woven.exchanges.iter().map(|exchange| (&exchange.exchange, exchange)).collect();
        for call in woven.exchanges.iter().filter(|exchange| exchange.edge == Edge::Tool) {
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
    let imported = weave(Format::TauBench, &source, &run(), &tools);
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
    let spoiled = Source::unpack("spoiled.jsonl", bytes).expect("reads");
    let imported = weave(Format::TauBench, &spoiled, &run(), &ToolCatalog::default());
    assert_eq!(imported.tally.sessions, 97);
    let places: Vec<_> = imported.set_aside.iter().map(|aside| (aside.line, aside.field.as_str())).collect();
    assert_eq!(places[0], (3, "traj"));
    assert_eq!((places[1].0, places[2].0), (5, 100));
}

#[test]
fn arguments_that_nobody_can_parse_are_kept_and_the_session_votes() {
    let line = r#"{"task_id":1,"reward":1.0,"traj":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{oops"}}]},{"role":"tool","tool_call_id":"c","content":"Error: no"}]}"#;
    let source = Source::unpack("one.jsonl", line.as_bytes().to_vec()).expect("reads");
    let imported = weave(Format::TauBench, &source, &run(), &ToolCatalog::default());
    assert_eq!((imported.odd(Oddity::ArgumentsKeptVerbatim), imported.successes()), (1, 1));
    let call = imported.exchanges(Edge::Tool).next().expect("the call");
    assert_eq!(call.operation.arguments_verbatim.as_deref(), Some("{oops"));
    assert_eq!((call.operation.arguments.as_deref(), call.operation.is_error), (None, Some(true)));
    let turn = imported.exchanges(Edge::Turn).next().expect("the turn");
    assert_eq!((turn.ending, imported.odd(Oddity::UnansweredTurn)), (Ending::Cancelled, 1));
}

#[test]
fn a_planted_key_is_nowhere_in_what_is_made() {
    let key = "sk-planted0123456789abcdef";
    let line = format!(
        r#"{{"task_id":1,"reward":1.0,"traj":[{{"role":"user","content":"use {key}"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":"{{\"k\":\"{key}\"}}"}}}}]}},{{"role":"tool","tool_call_id":"c","content":"got {key}"}},{{"role":"assistant","content":"done with {key}"}}]}}"#
    );
    let source = Source::unpack("one.jsonl", line.into_bytes()).expect("reads");
    let imported = weave(Format::TauBench, &source, &run(), &ToolCatalog::default());
    assert_eq!((imported.set_aside.len(), imported.tally.exchanges), (0, 4));
    let made = format!("{:?}", imported.woven);
    let woven = &imported.woven[0];
    let pieces = pieces(woven);
    let bodies = woven.exchanges.iter().flat_map(|exchange| [&exchange.request, &exchange.response]);
    let bodies = bodies.map(|body| body.reassemble(|digest| pieces.get(digest).copied()).expect("whole"));
    let bodies = String::from_utf8(bodies.flatten().collect()).expect("UTF-8");
    assert!(bodies.contains("done with"), "{bodies}");
    assert!(!made.contains("planted") && !bodies.contains("planted"), "{made}");
    assert_eq!(imported.odd(Oddity::SecretReplaced), 4);
    let call = imported.exchanges(Edge::Tool).next().expect("the call");
    assert!(call.operation.arguments.as_deref().is_some_and(|text| text.contains("⟦openai_key:")));
    assert_eq!(call.redactions.len(), 2);
}

#[test]
fn a_store_takes_no_session_without_messages() {
    let source = unpack("tau-bench-retail-variants/variant-assertions-v1.jsonl.zst");
    let imported =
        weave(Format::TauBench, &source, &ImportInto::Store { build: None }, &ToolCatalog::default());
    assert_eq!((imported.tally.sessions, imported.set_aside.len()), (34, 16));
    assert!(imported.woven.iter().all(|woven| woven.trial.is_none()));
    assert!(imported.set_aside.iter().all(|aside| aside.field == "messages"));
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
    let source = Source::unpack("table.csv", table.into_bytes()).expect("reads");
    let imported = weave(Format::Outcomes, &source, &run(), &ToolCatalog::default());
    assert_eq!((imported.tally.sessions, imported.successes(), imported.set_aside.len()), (4000, 2000, 0));
    assert!(imported.trials().all(|trial| !trial.has_transcript && trial.whole.is_none()));
}

const FORMATS: [Format; 4] = [Format::TauBench, Format::Tau2, Format::AgentDojo, Format::Outcomes];

fn read_all_ways(bytes: &[u8]) {
    let Ok(source) = Source::unpack("x", bytes.to_vec()) else { return };
    for format in FORMATS {
        // An outcome table without its header is refused as a whole, so there is nothing to weave.
        if import::read(format, &source, &Columns::default()).is_ok() {
            weave(format, &source, &run(), &ToolCatalog::default());
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
