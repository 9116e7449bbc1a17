//! Replays of a small store against a small agent, on loopback.

mod agent;
mod provider;
mod recordings;
#[path = "../../../tests/harness/scripted_http.rs"]
#[expect(dead_code, unreachable_pub, reason = "other test crates use the rest of it")]
mod scripted_http;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent::{Agent, Behaviour, ExtraRequest, Tools};
use replayer::{
    Candidate, Clock, FaultRules, ModelMode, Plan, Progress, ReplayError, Summary, World, replay,
};
use schemas::exchange::{Edge, Effect};
use schemas::id::IncarnationId;
use schemas::tools::ToolCatalog;
use schemas::trial::{Lane, Trial, TrialEnding};
use store::Store;
use store::table::Table;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct Fixture {
    directory: TempDir,
    world: World,
}

impl Fixture {
    async fn new(complete: usize, incomplete: usize) -> Self {
        let directory = TempDir::new().expect("a directory");
        recordings::write(&directory.path().join("store"), complete, incomplete).await;
        let world = World::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        Self { directory, world }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("a plain path").to_owned()
    }

    fn plan(&self, agent: SocketAddr, extra: &str) -> Plan {
        let text = format!(
            "candidate = 1\nkind = \"http\"\nbuild = \"b-2\"\n{extra}\n[http]\nurl = \"http://{agent}/chat\"\n\
             body = {{ message = \"{{{{input}}}}\" }}\nanswer = \"/reply\"\ntimeout = \"20s\"\n"
        );
        self.plan_of(&text)
    }

    fn plan_of(&self, candidate: &str) -> Plan {
        Plan {
            key_ring: store::keyring::KeyRing::default(),
            store: self.path("store"),
            run: self.path("run"),
            candidate: Candidate::parse(candidate, &|_| None).expect("a candidate file"),
            lane: Lane::Candidate,
            trials: 2,
            sessions: None,
            seed: 1,
            concurrency: 4,
            faults: None,
            model: ModelMode::Recorded,
            tools: ToolCatalog::parse_json(recordings::TOOLS).expect("a tool list"),
            arguments: schemas::equality::ArgumentRules::default(),
            agent: None,
            resume: false,
            delay_scale: 1.0,
            delay_cap: Duration::from_millis(5),
            infrastructure: Vec::new(),
            allow_open_egress: false,
            allow_undecoded: false,
            root_key: recordings::root_key(),
            tool_version: "test".to_owned(),
            incarnation: IncarnationId::parse("replay-1").expect("id"),
            clock: Clock::new(|| 1_760_000_000_000_000),
        }
    }

    async fn replay(&self, plan: Plan) -> Result<Summary, ReplayError> {
        Box::pin(replay(plan, &self.world, &mut |_| {}, CancellationToken::new())).await
    }

    async fn rows(&self, lane: Lane) -> Vec<Trial> {
        rows(&self.path("run"), lane).await
    }
}

async fn rows(run: &str, lane: Lane) -> Vec<Trial> {
    let store = Store::open(run).expect("a run");
    let snapshot = store.snapshot().await.expect("commits");
    let mut trials: Vec<Trial> = store.read_table(&snapshot, Table::Trials, None).await.expect("trials");
    trials.retain(|trial| trial.lane == lane);
    trials
}

#[tokio::test]
async fn an_unchanged_agent_gets_exact_answers_and_leaves_complete_sessions() {
    let fixture = Fixture::new(6, 1).await;
    let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
    let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.ran, summary.endings.complete, summary.cases), (12, 12, 6));
    assert_eq!((summary.incomplete.len(), summary.interrupted, summary.uncorrelated_calls), (1, false, 0));
    // Each trial has a model call, a look-up and a refund. The probe is not counted.
    assert_eq!((summary.fidelity.exact, summary.fidelity.total()), (36, 36));
    assert_eq!(agent.turns.load(Ordering::SeqCst), 13);

    let trials = fixture.rows(Lane::Candidate).await;
    assert_eq!(trials.len(), 12);
    let of = |n: usize, trial: u32| {
        let session = format!("{}~candidate~{trial}", recordings::session_id(n));
        trials.iter().find(|t| t.session.as_str() == session).expect("the trial")
    };
    assert_eq!(
        of(2, 1).answer.as_deref(),
        Some("200 plain true | 200 false W002 costs 5 and was delivered | 200 false refund accepted")
    );
    assert_eq!((of(2, 1).input_tokens, of(2, 1).exchanges), (Some(10), 4));
    assert_ne!(of(2, 0).seed, of(2, 1).seed);
    assert_eq!(of(2, 0).slices["shop"], "eu");

    let store = Store::open(&fixture.path("run")).expect("a run");
    let snapshot = store.snapshot().await.expect("commits");
    let sessions = store.load_sessions(&snapshot, None).await.expect("sessions");
    assert_eq!(sessions.len(), 12 + 6);
    for session in &sessions {
        assert_eq!(session.gaps(), vec![], "{}", session.session);
    }
    let trial = sessions.iter().find(|s| s.session.as_str() == "s-002~candidate~1").expect("the trial");
    let edges: Vec<Edge> = trial.exchanges.iter().map(|x| x.edge).collect();
    assert_eq!(edges, [Edge::Turn, Edge::Model, Edge::Tool, Edge::Tool]);
    let look_up = &trial.exchanges[2];
    assert_eq!(look_up.operation.effect, Effect::Read);
    assert_eq!(look_up.links[0].to, trial.exchanges[1].exchange);
    assert_eq!(trial.exchanges[3].operation.effect, Effect::Write);
    let body = trial.body(&trial.exchanges[0].response).expect("a whole body");
    assert!(String::from_utf8_lossy(&body).contains("refund accepted"));
    let recorded = fixture.rows(Lane::Recorded).await;
    assert_eq!(recorded.len(), 6);
    assert!(
        recorded
            .iter()
            .all(|trial| trial.answer.as_ref().is_some_and(|answer| answer.starts_with("refunded")))
    );
}

#[tokio::test]
async fn every_protocol_gets_the_same_answers() {
    for tools in [Tools::McpSession, Tools::McpStateless, Tools::Json] {
        let fixture = Fixture::new(2, 0).await;
        let agent =
            Agent::start(fixture.world.address(), Behaviour { tools, streams: true, ..Behaviour::default() })
                .await;
        let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
        assert_eq!((summary.endings.complete, summary.fidelity.exact), (4, 12), "{tools:?}");
        let trials = fixture.rows(Lane::Candidate).await;
        for trial in &trials {
            let answer = trial.answer.as_ref().expect("an answer");
            assert!(answer.contains("200 stream true"), "{answer}");
            assert!(answer.contains("costs 5") && answer.contains("refund accepted"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_repeated_write_is_answered_again_and_counted() {
    let fixture = Fixture::new(2, 0).await;
    let agent = Agent::start(fixture.world.address(), Behaviour { refunds: 2, ..Behaviour::default() }).await;
    let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.duplicated_writes, summary.divergences), (4, 0));
    let trials = fixture.rows(Lane::Candidate).await;
    assert!(trials.iter().all(|trial| {
        trial
            .answer
            .as_ref()
            .is_some_and(|answer| answer.ends_with("200 false refund accepted + 200 false refund accepted"))
    }));
}

#[tokio::test]
async fn a_miss_is_an_error_to_the_candidate_and_a_divergence() {
    let fixture = Fixture::new(1, 0).await;
    let agent =
        Agent::start(fixture.world.address(), Behaviour { wrong_amount: true, ..Behaviour::default() }).await;
    let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.fidelity.missed, summary.divergences, summary.endings.complete), (2, 2, 2));
    let trials = fixture.rows(Lane::Candidate).await;
    let answer = trials[0].answer.as_ref().expect("an answer");
    assert!(answer.contains("200 true replay: no recorded answer matches this call of refund"), "{answer}");
    assert!(!answer.contains("amount"), "the candidate must not see recorded arguments: {answer}");
    let [miss] = &summary.misses[..] else { panic!("{:?}", summary.misses) };
    let named = (miss.tool.as_deref(), miss.argument.as_deref(), miss.calls, miss.trials);
    assert_eq!(named, (Some("refund"), Some("/amount"), 2, 2));
    assert_eq!(trials[0].model_fidelity.map(|counts| (counts.exact, counts.total())), Some((1, 1)));
    assert_eq!(trials[0].batch.as_deref(), Some("replay-1"));
    let divergence = &trials[0].divergences[0];
    assert_eq!((divergence.kind.as_str(), divergence.tool.as_deref()), ("tool_missed", Some("refund")));
    assert!(
        divergence.detail.contains(r#"nearest recorded arguments: {"amount":5,"order_id":"W000"}"#),
        "{}",
        divergence.detail
    );
}

#[tokio::test]
async fn every_refused_request_is_a_miss_with_its_path() {
    const REQUESTS: &[ExtraRequest] = &[
        ("POST", "/v1/responses", r#"{"input": "hi"}"#),
        ("POST", "/v1/messages", "{}"),
        ("POST", "/v1/embeddings", "{}"),
        ("POST", "/v1/completions", "{}"),
        ("POST", "/v1/chat/completions", "no JSON"),
        ("POST", "/v1/chat/completions", "{}"),
        ("GET", "/v1/chat/completions", ""),
        ("DELETE", "/orders/7", ""),
        ("GET", "/tools/refund", ""),
        ("PUT", "/mcp", ""),
        ("POST", "/mcp", "no JSON"),
        ("POST", "/mcp", r#"[{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}]"#),
        ("POST", "/mcp", r#"{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {}}"#),
        ("POST", "/mcp", r#"{"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {}}"#),
        ("POST", "/mcp", r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}"#),
    ];
    let fixture = Fixture::new(1, 0).await;
    let behaviour = Behaviour { extra: REQUESTS, ..Behaviour::default() };
    let agent = Agent::start(fixture.world.address(), behaviour).await;
    let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.fidelity.missed, summary.fidelity.exact), (30, 6));
    assert_eq!((summary.model_fidelity.missed, summary.model_fidelity.exact), (14, 2));
    assert_eq!(summary.divergences, 30);
    let paths: Vec<(&str, u64, u64)> = summary
        .misses
        .iter()
        .map(|miss| (miss.path.as_deref().expect("a path"), miss.calls, miss.trials))
        .collect();
    assert_eq!(
        paths,
        [
            ("DELETE /orders/7", 2, 2),
            ("GET /tools/refund", 2, 2),
            ("GET /v1/chat/completions", 2, 2),
            ("POST /mcp", 4, 2),
            ("POST /v1/chat/completions", 4, 2),
            ("POST /v1/completions", 2, 2),
            ("POST /v1/embeddings", 2, 2),
            ("POST /v1/messages", 2, 2),
            ("POST /v1/responses", 2, 2),
            ("PUT /mcp", 2, 2),
            ("prompts/get", 2, 2),
            ("resources/read", 2, 2),
            ("tools/call", 2, 2),
        ]
    );
    let trials = fixture.rows(Lane::Candidate).await;
    assert!(trials[0].divergences.iter().all(|divergence| divergence.kind == "request_refused"));
    assert_eq!(trials[0].exchanges, 4 + 15, "each refused request is stored");
}

#[tokio::test]
async fn requests_that_the_world_answers_itself_are_no_misses() {
    const REQUESTS: &[ExtraRequest] = &[
        ("GET", "/healthz", ""),
        ("GET", "/v1/models", ""),
        ("GET", "/mcp", ""),
        ("DELETE", "/mcp", ""),
        ("GET", "/.well-known/oauth-protected-resource", ""),
        ("POST", "/mcp", r#"{"jsonrpc": "2.0", "method": "notifications/initialized"}"#),
        ("POST", "/mcp", r#"{"jsonrpc": "2.0", "id": 1, "method": "ping"}"#),
        ("POST", "/mcp", r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}"#),
    ];
    let fixture = Fixture::new(1, 0).await;
    let behaviour = Behaviour { extra: REQUESTS, ..Behaviour::default() };
    let agent = Agent::start(fixture.world.address(), behaviour).await;
    let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.fidelity.missed, summary.divergences, summary.uncorrelated_calls), (0, 0, 0));
    assert_eq!(summary.misses, []);
}

#[tokio::test]
async fn a_session_without_a_decoded_call_is_refused_before_the_first_trial() {
    let fixture = Fixture::new(0, 0).await;
    recordings::write_undecoded(&fixture.directory.path().join("store"), 2).await;
    let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
    let plan = fixture.plan(agent.address, "");
    let error = fixture.replay(plan.clone()).await.expect_err("nothing can be answered");
    assert!(error.is_usage());
    let text = error.to_string();
    assert!(text.starts_with("2 of the 2 selected sessions of store"), "{text}");
    assert!(text.contains("(not decoded: 6 exchanges POST /v1/responses)"), "{text}");
    assert!(text.contains("--allow-undecoded"), "{text}");
    assert!(!Path::new(&fixture.path("run")).exists());
    assert_eq!(agent.turns.load(Ordering::SeqCst), 0, "not even a probe");

    let allowed = Plan { allow_undecoded: true, ..plan };
    let summary = fixture.replay(allowed).await.expect("a replay");
    assert_eq!((summary.ran, summary.fidelity.exact, summary.model_fidelity.missed), (4, 0, 4));
}

#[tokio::test]
async fn a_changed_prompt_is_compared_with_the_recorded_one() {
    let inputs = async |prompt| {
        let fixture = Fixture::new(1, 0).await;
        let behaviour = Behaviour { prompt, ..Behaviour::default() };
        let agent = Agent::start(fixture.world.address(), behaviour).await;
        fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
        fixture.rows(Lane::Candidate).await[0].model_inputs.clone().expect("a recorded model answered")
    };
    let equal = inputs("you refund").await;
    assert_eq!((equal.compared, equal.changed, equal.first_part), (1, 0, None));
    let changed = inputs("you refund. Never look an order up. ").await;
    assert_eq!((changed.compared, changed.changed), (1, 1));
    assert_eq!(changed.first_part.as_deref(), Some("system prompt"));
    assert_eq!(changed.first_change.as_deref(), Some("system prompt: \"Never look an order up\" added"));
    assert_eq!(changed.changes.len(), 1);
}

#[tokio::test]
async fn a_call_that_violates_the_schema_fails_as_in_production() {
    let fixture = Fixture::new(1, 0).await;
    let agent =
        Agent::start(fixture.world.address(), Behaviour { violates_schema: true, ..Behaviour::default() })
            .await;
    let summary = fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.fidelity.derived, summary.fidelity.missed, summary.divergences), (2, 0, 0));
    let trials = fixture.rows(Lane::Candidate).await;
    let answer = trials[0].answer.as_ref().expect("an answer");
    assert!(answer.contains("200 true Input validation error: 5 is not of type"), "{answer}");
}

#[tokio::test]
async fn a_candidate_that_never_answers_times_out() {
    let fixture = Fixture::new(3, 0).await;
    let agent =
        Agent::start(fixture.world.address(), Behaviour { silent: true, ..Behaviour::default() }).await;
    let probe = format!("[probe]\nurl = \"http://{}/healthz\"\n", agent.address);
    let mut text = format!(
        "candidate = 1\nkind = \"http\"\nbuild = \"b-2\"\n{probe}[http]\nurl = \"http://{}/chat\"\n",
        agent.address
    );
    text.push_str("body = { message = \"{{input}}\" }\nanswer = \"/reply\"\ntimeout = \"60ms\"\n");
    let summary = fixture.replay(fixture.plan_of(&text)).await.expect("a replay");
    assert_eq!((summary.ran, summary.endings.timed_out), (6, 6));
    let trials = fixture.rows(Lane::Candidate).await;
    assert_eq!(trials.len(), 6);
    assert!(trials.iter().all(|trial| trial.ending == TrialEnding::TimedOut && trial.exchanges == 1));
}

#[tokio::test]
async fn a_failed_probe_leaves_no_run_behind() {
    let fixture = Fixture::new(1, 0).await;
    let agent =
        Agent::start(fixture.world.address(), Behaviour { silent: true, ..Behaviour::default() }).await;
    let plan = fixture.plan(agent.address, "[probe]\ntimeout = \"60ms\"\n");
    let error = fixture.replay(plan).await.expect_err("the candidate is silent");
    assert!(!error.is_usage());
    let text = error.to_string();
    assert!(
        text.contains("within 60ms")
            && text.contains(&recordings::input(0))
            && text.contains("received: nothing"),
        "{text}"
    );
    assert!(!Path::new(&fixture.path("run")).exists());

    drop(agent);
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let error = fixture.replay(fixture.plan(closed, "")).await.expect_err("no server listens");
    assert!(matches!(error, ReplayError::Probe { .. }), "{error}");

    let elsewhere = format!("[probe]\nurl = \"{}/nowhere\"\n", fixture.world.model_url());
    let text = fixture.replay(fixture.plan(closed, &elsewhere)).await.expect_err("status 404").to_string();
    assert!(text.starts_with("the candidate answered the probe with HTTP status 404\n"), "{text}");
}

#[tokio::test]
async fn a_killed_run_resumes_without_lost_or_repeated_trials() {
    use Kill::{Finished, Probed};
    let schedules = [
        vec![Finished(1)],
        vec![Probed, Probed, Finished(1), Probed],
        vec![Finished(1), Finished(1), Finished(3)],
        vec![Finished(7)],
        vec![Finished(2), Finished(5), Probed, Finished(4)],
    ];
    for kills in schedules {
        let fixture = Fixture::new(5, 0).await;
        let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
        let mut survived = 0;
        for (start, kill) in kills.iter().enumerate() {
            let mut plan = fixture.plan(agent.address, "");
            plan.trials = 4;
            plan.resume = start > 0;
            plan.incarnation = IncarnationId::parse(&format!("start-{start}")).expect("id");
            survived = kill_at(&fixture, plan, *kill).await.max(survived);
        }
        let mut plan = fixture.plan(agent.address, "");
        plan.trials = 4;
        plan.resume = true;
        let summary = once_unlocked(async || fixture.replay(plan.clone()).await).await;
        assert!(summary.already >= survived, "{} < {survived} after {kills:?}", summary.already);
        assert_eq!(summary.already + summary.ran, 20, "after {kills:?}");
        assert_eq!(summary.endings.complete, 20);
        let trials = fixture.rows(Lane::Candidate).await;
        let distinct: BTreeSet<(String, u32)> =
            trials.iter().map(|t| (t.case.to_string(), t.trial)).collect();
        assert_eq!((trials.len(), distinct.len()), (20, 20), "after {kills:?}");
        assert_eq!(fixture.rows(Lane::Recorded).await.len(), 5);
    }
}

/// The point at which a start is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// After the probe, while manifest or recordings are written.
    Probed,
    /// After this many trials of this start.
    Finished(usize),
}

/// Drops a replay at the kill point, as a kill would, and returns the number of trials that it reported as finished.
///
/// # Panics
/// If the replay ends before the kill point.
async fn kill_at(fixture: &Fixture, plan: Plan, kill: Kill) -> usize {
    once_unlocked(async || {
        let (sender, mut events) = tokio::sync::mpsc::channel(1024);
        let mut on_progress = move |progress: Progress| {
            sender.try_send(progress).expect("room for every event");
        };
        let cancel = CancellationToken::new();
        let mut running = Box::pin(replay(plan.clone(), &fixture.world, &mut on_progress, cancel));
        let (mut done, mut finished) = (0, 0);
        loop {
            // `recv` is cancel-safe; `running` is polled by reference.
            tokio::select! {
                biased;
                Some(progress) = events.recv() => {
                    match progress {
                        Progress::Corpus { .. } | Progress::Planned { .. } => {}
                        Progress::Probed if kill == Kill::Probed => return Ok(done),
                        Progress::Probed => {}
                        Progress::Finished { done: count, .. } => {
                            done = count;
                            finished += 1;
                        }
                    }
                    if kill == Kill::Finished(finished) {
                        return Ok(done);
                    }
                }
                ended = &mut running => {
                    let summary = ended?;
                    panic!("the replay ended before {kill:?}: {summary:?}");
                }
            }
        }
    })
    .await
}

/// Repeats `start` until the trial log is not locked any more: a dropped start releases it a moment later. Its manifest may
/// appear after the next start has looked for one, too.
async fn once_unlocked<T>(start: impl AsyncFn() -> Result<T, ReplayError>) -> T {
    for _ in 0..10_000 {
        match start().await {
            Ok(value) => return value,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("in use") || text.contains("already contains a run"), "{text}");
            }
        }
        tokio::task::yield_now().await;
    }
    panic!("the trial log stays locked");
}

#[tokio::test]
async fn a_cancelled_run_keeps_finished_trials() {
    let fixture = Fixture::new(4, 0).await;
    let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut tell = move |progress: Progress| {
        if let Progress::Finished { done: 3.., .. } = progress {
            stop.cancel();
        }
    };
    let plan = fixture.plan(agent.address, "");
    let summary = Box::pin(replay(plan.clone(), &fixture.world, &mut tell, cancel)).await.expect("a summary");
    assert!(summary.interrupted && (3..8).contains(&summary.ran), "{}", summary.ran);
    assert_eq!(fixture.rows(Lane::Candidate).await.len(), summary.ran);
    let resumed = fixture.replay(Plan { resume: true, ..plan.clone() }).await.expect("a replay");
    assert_eq!((resumed.already, resumed.ran, resumed.interrupted), (summary.ran, 8 - summary.ran, false));
    // Totals over all starts: a model call of ten input tokens in each trial.
    assert_eq!((resumed.model_calls, resumed.input_tokens), (8, 80));
    let turns = agent.turns.load(Ordering::SeqCst);
    // No trial is left, so the candidate is not probed.
    let again = fixture.replay(Plan { resume: true, ..plan }).await.expect("a replay");
    assert_eq!((again.already, again.ran), (8, 0));
    assert_eq!((again.model_calls, again.input_tokens), (8, 80));
    assert_eq!(agent.turns.load(Ordering::SeqCst), turns);
}

#[tokio::test]
async fn a_run_is_neither_overwritten_nor_continued_with_another_plan() {
    let fixture = Fixture::new(2, 0).await;
    let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
    fixture.replay(fixture.plan(agent.address, "")).await.expect("a replay");
    let error = fixture.replay(fixture.plan(agent.address, "")).await.expect_err("the run exists");
    assert!(matches!(error, ReplayError::RunExists { .. }) && error.is_usage());
    let other = Plan { seed: 2, resume: true, ..fixture.plan(agent.address, "") };
    let error = fixture.replay(other).await.expect_err("another seed");
    assert!(error.is_usage() && error.to_string().contains("its seed is 1, this command's is 2"), "{error}");
    let other = Plan { trials: 3, resume: true, ..fixture.plan(agent.address, "") };
    let error = fixture.replay(other).await.expect_err("another number").to_string();
    assert!(error.contains("its number of trials is 2, this command's is 3"), "{error}");
    let other = Plan { lane: Lane::Baseline, resume: true, ..fixture.plan(agent.address, "") };
    assert!(fixture.replay(other).await.expect_err("another lane").to_string().contains("lane"));
    // The run contains the recordings, so the store is not needed any more.
    let store = Store::open(&fixture.path("store")).expect("a store");
    assert!(store.resume_position("journal-1").await.expect("a position") > 0);
    std::fs::remove_dir_all(fixture.path("store")).expect("removed");
    let resumed =
        fixture.replay(Plan { resume: true, ..fixture.plan(agent.address, "") }).await.expect("a replay");
    assert_eq!(resumed.already, 4);
}

#[tokio::test]
async fn a_store_without_complete_sessions_is_rejected() {
    let fixture = Fixture::new(0, 2).await;
    let plan = fixture.plan(SocketAddr::from(([127, 0, 0, 1], 1)), "");
    let error = fixture.replay(plan.clone()).await.expect_err("all are incomplete").to_string();
    assert!(error.contains("2 are incomplete") && error.contains("s-000"), "{error}");
    let absent = Plan { store: fixture.path("absent"), ..plan };
    let error = fixture.replay(absent).await.expect_err("no store");
    assert!(error.is_usage() && error.to_string().contains("absent"), "{error}");
}

#[tokio::test]
async fn a_store_is_rejected_as_run_and_a_run_as_store() {
    let fixture = Fixture::new(2, 0).await;
    let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
    let plan = fixture.plan(agent.address, "");
    let rejected = async |plan: Plan, why: &str| {
        let error = fixture.replay(plan).await.expect_err(why);
        assert!(error.is_usage() && error.to_string().contains(why), "{error}");
    };
    let itself = Plan { run: format!("file://{}/./", fixture.path("store")), ..plan.clone() };
    rejected(itself.clone(), "--run and --store are both").await;
    rejected(Plan { resume: true, ..itself }, "--run and --store are both").await;
    recordings::write(&fixture.directory.path().join("other"), 1, 0).await;
    let other = Plan { run: fixture.path("other"), ..plan.clone() };
    rejected(other.clone(), "is a store of recordings, not a run of trials").await;
    rejected(Plan { resume: true, ..other }, "is a store of recordings, not a run of trials").await;
    assert_eq!(agent.turns.load(Ordering::SeqCst), 0);

    fixture.replay(plan.clone()).await.expect("a replay");
    let again = Plan { store: plan.run.clone(), run: fixture.path("again"), ..plan };
    rejected(again, "is a run of trials, not a store of recordings").await;
    assert!(!Path::new(&fixture.path("again")).exists());
}

#[tokio::test]
async fn both_lanes_get_the_same_faults() {
    let rules = "faults = 1\n[[fault]]\ntool = \"refund\"\nkind = \"timeout\"\nafter = \"0s\"\nprobability = 0.5\ncalls = [0]\n\
                 [[fault]]\ntool = \"get_order\"\nkind = \"status\"\nstatus = 503\nprobability = 0.4\n";
    let fixture = Fixture::new(6, 0).await;
    let agent = Agent::start(fixture.world.address(), Behaviour { refunds: 2, ..Behaviour::default() }).await;
    let mut by_lane = Vec::new();
    for lane in [Lane::Baseline, Lane::Candidate] {
        let run = fixture.path(lane.as_str());
        let faults = Some(FaultRules::parse(rules).expect("a fault file"));
        let plan = Plan { lane, faults, run: run.clone(), ..fixture.plan(agent.address, "") };
        let summary = fixture.replay(plan).await.expect("a replay");
        assert!((4..20).contains(&summary.fidelity.faulted), "{:?}", summary.fidelity);
        let mut trials = rows(&run, lane).await;
        trials.sort_by(|a, b| (&a.case, a.trial).cmp(&(&b.case, b.trial)));
        by_lane.push(
            trials
                .into_iter()
                .map(|t| (t.case, t.trial, t.answer, t.fault_plan, t.fidelity))
                .collect::<Vec<_>>(),
        );
        let timed_out = by_lane[0]
            .iter()
            .filter(|(_, _, answer, ..)| answer.as_ref().is_some_and(|a| a.contains("504")))
            .count();
        assert!(timed_out > 0 && timed_out < 12, "{timed_out}");
        // A lost answer does not undo the write, so the second refund repeats it.
        assert_eq!(summary.duplicated_writes, 12);
    }
    assert_eq!(by_lane[0], by_lane[1]);
}

#[tokio::test]
async fn calls_without_a_trial_identifier_are_rejected_and_counted() {
    let behaviour =
        Behaviour { propagates: false, tools: Tools::Json, calls_model: false, ..Behaviour::default() };
    let fixture = Fixture::new(2, 0).await;
    let agent = Agent::start(fixture.world.address(), behaviour).await;
    let plan = fixture.plan(agent.address, "");
    let summary = fixture.replay(plan.clone()).await.expect("a replay");
    // Two calls in each of the four trials and in the probe.
    assert_eq!(summary.uncorrelated_calls, 10);
    assert_eq!(
        summary.uncorrelated_paths.into_iter().collect::<Vec<_>>(),
        [("POST /tools/get_order".to_owned(), 5), ("POST /tools/refund".to_owned(), 5)]
    );
    // No running trial is known to have had its calls answered.
    let trials = fixture.rows(Lane::Candidate).await;
    assert!(trials.iter().all(|trial| trial.fidelity.is_some_and(|counts| counts.missed >= 2)));
    assert_eq!(summary.fidelity.missed, summary.fidelity.total());
    let answer = trials[0].answer.clone().expect("an answer");
    for remedy in ["`traceparent`", "`baggage`", "[propagate] header = ", "candidate.toml", "--concurrency 1"]
    {
        assert!(answer.contains(remedy), "{remedy} in {answer}");
    }
    let sequential = Plan { concurrency: 1, run: fixture.path("sequential"), ..plan };
    let summary = fixture.replay(sequential).await.expect("a replay");
    assert_eq!((summary.uncorrelated_calls, summary.fidelity.exact), (0, 8));
}

#[tokio::test]
async fn live_model_calls_are_forwarded_and_counted() {
    let fixture = Fixture::new(2, 0).await;
    // Another world serves as provider. It knows no trial, so it answers 400, which the candidate must receive.
    let provider = World::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
    let upstream = format!(
        "[model]\nupstream = \"{}\"\nidentify = true\nretry = {{ attempts = 1 }}\n",
        provider.model_url()
    );
    let plan = Plan { model: ModelMode::Live, ..fixture.plan(agent.address, &upstream) };
    let summary = fixture.replay(plan.clone()).await.expect("a replay");
    assert_eq!((summary.model_calls, summary.fidelity.live, summary.fidelity.exact), (4, 4, 8));
    let trials = fixture.rows(Lane::Candidate).await;
    assert!(
        trials
            .iter()
            .all(|trial| trial.answer.as_ref().is_some_and(|answer| answer.starts_with("400 plain")))
    );

    provider.shutdown().await;
    let gone = Plan { run: fixture.path("gone"), ..plan };
    let error = fixture.replay(gone).await.expect_err("the provider is gone");
    assert!(matches!(error, ReplayError::Provider { .. }), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_candidate_needs_allow_open_egress() {
    let fixture = Fixture::new(2, 0).await;
    let text = "candidate = 1\nkind = \"command\"\nbuild = \"b-3\"\n[command]\ninherit-env = []\n\
                argv = [\"/bin/sh\", \"-c\", \"read line; echo \\\"$line at $URL\\\"\"]\nenv = { URL = \"{{mcp_url}}\" }\n";
    let plan = fixture.plan_of(text);
    let error = fixture.replay(plan.clone()).await.expect_err("egress is not allowed");
    assert!(error.is_usage() && error.to_string().contains("--allow-open-egress"), "{error}");
    let summary = fixture.replay(Plan { allow_open_egress: true, ..plan.clone() }).await.expect("a replay");
    assert_eq!(summary.endings.complete, 4);
    let trials = fixture.rows(Lane::Candidate).await;
    let address = fixture.world.address();
    for trial in &trials {
        let answer = trial.answer.as_ref().expect("an answer");
        assert!(
            answer.contains("please refund order W0") && answer.contains(&format!("at http://{address}/t/")),
            "{answer}"
        );
    }

    let long = text.replace("inherit-env", "process = \"trial\"\ntimeout = \"10s\"\ninherit-env");
    let plan = Plan { allow_open_egress: true, run: fixture.path("long"), ..fixture.plan_of(&long) };
    assert_eq!(fixture.replay(plan).await.expect("a replay").endings.complete, 4);

    let broken = text.replace("read line;", "echo oh no >&2; exit 3;");
    let plan = Plan { allow_open_egress: true, run: fixture.path("broken"), ..fixture.plan_of(&broken) };
    let error = fixture.replay(plan).await.expect_err("the program fails").to_string();
    assert!(error.contains("exit status: 3") && error.contains("oh no"), "{error}");

    let slow =
        text.replace("read line;", "sleep 600;").replace("inherit-env", "timeout = \"80ms\"\ninherit-env");
    let plan = Plan { allow_open_egress: true, run: fixture.path("slow"), ..fixture.plan_of(&slow) };
    assert!(fixture.replay(plan).await.expect_err("the program hangs").to_string().contains("within 80ms"));
}
