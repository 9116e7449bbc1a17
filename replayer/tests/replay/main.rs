//! Replays of a small corpus against a small agent, on loopback.

mod agent;
mod recordings;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent::{Agent, Behaviour, Tools};
use replayer::{
    Candidate, Clock, FaultRules, ModelMode, Plan, Progress, ReplayError, Summary, World, replay,
};
use schemas::exchange::{Edge, Effect, Ending, OperationKind};
use schemas::id::IncarnationId;
use schemas::tools::ToolCatalog;
use schemas::trial::{Lane, Trial, TrialEnding};
use store::Store;
use store::table::Table;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

struct House {
    folder: TempDir,
    world: World,
}

impl House {
    async fn new(whole: usize, torn: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        recordings::write(&folder.path().join("store"), whole, torn).await;
        let world = World::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
        Self { folder, world }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a plain path").to_owned()
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
            ring: store::keyring::KeyRing::default(),
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
            agent: None,
            resume: false,
            delay_scale: 1.0,
            delay_cap: Duration::from_millis(5),
            allow_open_egress: false,
            keys: recordings::key(),
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
    let lake = Store::open(run).expect("a run");
    let snapshot = lake.snapshot().await.expect("commits");
    let mut trials: Vec<Trial> = lake.read_table(&snapshot, Table::Trials, None).await.expect("trials");
    trials.retain(|trial| trial.lane == lane);
    trials
}

#[tokio::test]
async fn a_good_agent_gets_exact_answers_and_leaves_whole_trials() {
    let house = House::new(6, 1).await;
    let agent = Agent::start(house.world.address(), Behaviour::default()).await;
    let summary = house.replay(house.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.ran, summary.endings.complete, summary.cases), (12, 12, 6));
    assert_eq!((summary.torn.len(), summary.interrupted, summary.uncorrelated_calls), (1, false, 0));
    // A model call, a look-up and a refund each; the probe is in none of the counts.
    assert_eq!((summary.fidelity.exact, summary.fidelity.total()), (36, 36));
    assert_eq!(agent.turns.load(Ordering::SeqCst), 13);

    let trials = house.rows(Lane::Candidate).await;
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

    let lake = Store::open(&house.path("run")).expect("a run");
    let snapshot = lake.snapshot().await.expect("commits");
    let sessions = lake.load_sessions(&snapshot, None).await.expect("sessions");
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
    let recorded = house.rows(Lane::Recorded).await;
    assert_eq!(recorded.len(), 6);
    assert!(
        recorded
            .iter()
            .all(|trial| trial.answer.as_ref().is_some_and(|answer| answer.starts_with("refunded")))
    );
}

#[tokio::test]
async fn every_protocol_hears_the_same() {
    for tools in [Tools::McpSession, Tools::McpStateless, Tools::Json] {
        let house = House::new(2, 0).await;
        let agent =
            Agent::start(house.world.address(), Behaviour { tools, streams: true, ..Behaviour::default() })
                .await;
        let summary = house.replay(house.plan(agent.address, "")).await.expect("a replay");
        assert_eq!((summary.endings.complete, summary.fidelity.exact), (4, 12), "{tools:?}");
        let trials = house.rows(Lane::Candidate).await;
        for trial in &trials {
            let answer = trial.answer.as_ref().expect("an answer");
            assert!(answer.contains("200 stream true"), "{answer}");
            assert!(answer.contains("costs 5") && answer.contains("refund accepted"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_write_made_twice_is_answered_again_and_counted() {
    let house = House::new(2, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour { refunds: 2, ..Behaviour::default() }).await;
    let summary = house.replay(house.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.duplicated_writes, summary.divergences), (4, 0));
    let trials = house.rows(Lane::Candidate).await;
    assert!(trials.iter().all(|trial| {
        trial
            .answer
            .as_ref()
            .is_some_and(|answer| answer.ends_with("200 false refund accepted + 200 false refund accepted"))
    }));
}

#[tokio::test]
async fn a_miss_is_an_error_to_the_candidate_and_a_divergence() {
    let house = House::new(1, 0).await;
    let agent =
        Agent::start(house.world.address(), Behaviour { wrong_amount: true, ..Behaviour::default() }).await;
    let summary = house.replay(house.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.fidelity.missed, summary.divergences, summary.endings.complete), (2, 2, 2));
    let trials = house.rows(Lane::Candidate).await;
    let answer = trials[0].answer.as_ref().expect("an answer");
    assert!(answer.contains("200 true replay: no answer is at hand for this call of refund"), "{answer}");
    assert!(!answer.contains("amount"), "what is recorded must not be told to the candidate: {answer}");
    let divergence = &trials[0].divergences[0];
    assert_eq!((divergence.kind.as_str(), divergence.tool.as_deref()), ("tool_missed", Some("refund")));
    assert!(
        divergence.detail.contains(r#"nearest recorded arguments: {"amount":5,"order_id":"W000"}"#),
        "{}",
        divergence.detail
    );
}

#[tokio::test]
async fn a_malformed_call_fails_as_it_would() {
    let house = House::new(1, 0).await;
    let agent =
        Agent::start(house.world.address(), Behaviour { malformed: true, ..Behaviour::default() }).await;
    let summary = house.replay(house.plan(agent.address, "")).await.expect("a replay");
    assert_eq!((summary.fidelity.derived, summary.fidelity.missed, summary.divergences), (2, 0, 0));
    let trials = house.rows(Lane::Candidate).await;
    let answer = trials[0].answer.as_ref().expect("an answer");
    assert!(answer.contains("200 true Input validation error: 5 is not of type"), "{answer}");
}

#[tokio::test]
async fn a_candidate_that_never_answers_has_failed_trials() {
    let house = House::new(3, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour { silent: true, ..Behaviour::default() }).await;
    let probe = format!("[probe]\nurl = \"http://{}/healthz\"\n", agent.address);
    let mut text = format!(
        "candidate = 1\nkind = \"http\"\nbuild = \"b-2\"\n{probe}[http]\nurl = \"http://{}/chat\"\n",
        agent.address
    );
    text.push_str("body = { message = \"{{input}}\" }\nanswer = \"/reply\"\ntimeout = \"60ms\"\n");
    let summary = house.replay(house.plan_of(&text)).await.expect("a replay");
    assert_eq!((summary.ran, summary.endings.timed_out), (6, 6));
    let trials = house.rows(Lane::Candidate).await;
    assert_eq!(trials.len(), 6);
    assert!(trials.iter().all(|trial| trial.ending == TrialEnding::TimedOut && trial.exchanges == 1));
}

#[tokio::test]
async fn a_failing_probe_ends_it_before_anything_is_written() {
    let house = House::new(1, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour { silent: true, ..Behaviour::default() }).await;
    let plan = house.plan(agent.address, "[probe]\ntimeout = \"60ms\"\n");
    let error = house.replay(plan).await.expect_err("the candidate is silent");
    assert!(!error.is_usage());
    let text = error.to_string();
    assert!(
        text.contains("within 60ms") && text.contains(&recordings::input(0)) && text.contains("got: nothing"),
        "{text}"
    );
    assert!(!Path::new(&house.path("run")).exists());

    drop(agent);
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let error = house.replay(house.plan(closed, "")).await.expect_err("nobody listens");
    assert!(matches!(error, ReplayError::Probe { .. }), "{error}");

    let elsewhere = format!("[probe]\nurl = \"{}/nowhere\"\n", house.world.model_url());
    let text = house.replay(house.plan(closed, &elsewhere)).await.expect_err("a refusal").to_string();
    assert!(text.starts_with("the candidate answered the probe with HTTP status 404\n"), "{text}");
}

#[tokio::test]
async fn a_killed_run_resumes_without_loss_or_repetition() {
    use Kill::{Finished, Probed};
    let ways = [
        vec![Finished(0)],
        vec![Probed, Probed, Finished(1), Probed],
        vec![Finished(1), Finished(0), Finished(3)],
        vec![Finished(7)],
        vec![Finished(2), Finished(5), Probed, Finished(4)],
    ];
    for kills in ways {
        let house = House::new(5, 0).await;
        let agent = Agent::start(house.world.address(), Behaviour::default()).await;
        let mut survived = 0;
        for (start, after) in kills.iter().enumerate() {
            let mut plan = house.plan(agent.address, "");
            plan.trials = 4;
            plan.resume = start > 0;
            plan.incarnation = IncarnationId::parse(&format!("start-{start}")).expect("id");
            survived = kill_after(&house, plan, *after).await.max(survived);
        }
        let mut plan = house.plan(agent.address, "");
        plan.trials = 4;
        plan.resume = true;
        let summary = finish(&house, plan).await;
        assert!(summary.already >= survived, "{} < {survived} after {kills:?}", summary.already);
        assert_eq!(summary.already + summary.ran, 20, "after {kills:?}");
        assert_eq!(summary.endings.complete, 20);
        let trials = house.rows(Lane::Candidate).await;
        let distinct: BTreeSet<(String, u32)> =
            trials.iter().map(|t| (t.case.to_string(), t.trial)).collect();
        assert_eq!((trials.len(), distinct.len()), (20, 20), "after {kills:?}");
        assert_eq!(house.rows(Lane::Recorded).await.len(), 5);
    }
}

/// When a start is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// When the candidate has answered: the manifest or the recordings are being written.
    Probed,
    /// After so many finished trials.
    Finished(usize),
}

/// Drops a replay in the middle, as a kill would; says how many trials it had told of.
async fn kill_after(house: &House, plan: Plan, kill: Kill) -> usize {
    let (told, mut heard) = tokio::sync::mpsc::channel(1024);
    let mut tell = move |progress: Progress| {
        told.try_send(progress).expect("room for every message");
    };
    let mut done = 0;
    let mut running = Box::pin(replay(plan, &house.world, &mut tell, CancellationToken::new()));
    let mut finished = 0;
    let mut planned = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut running => {
                // The ledger of the start before may be let go of a moment later.
                ended.map(drop).unwrap_or_else(|error| assert!(error.to_string().contains("in use"), "{error}"));
                return done;
            }
            Some(progress) = heard.recv() => {
                match progress {
                    Progress::Corpus { .. } => {}
                    Progress::Probed if kill == Kill::Probed => return done,
                    Progress::Probed => {}
                    Progress::Planned { .. } => planned = true,
                    Progress::Finished { done: count, .. } => {
                        done = count;
                        finished += 1;
                    }
                }
                if planned && matches!(kill, Kill::Finished(after) if finished >= after) {
                    return done;
                }
            }
        }
    }
}

/// Resumes; the ledger of a dropped start is let go of a moment later.
async fn finish(house: &House, plan: Plan) -> Summary {
    for _ in 0..10_000 {
        match house.replay(plan.clone()).await {
            Ok(summary) => return summary,
            Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
        }
        tokio::task::yield_now().await;
    }
    panic!("the ledger is never let go of");
}

#[tokio::test]
async fn a_cancelled_run_keeps_what_is_finished() {
    let house = House::new(4, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour::default()).await;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let mut tell = move |progress: Progress| {
        if let Progress::Finished { done: 3.., .. } = progress {
            stop.cancel();
        }
    };
    let plan = house.plan(agent.address, "");
    let summary = Box::pin(replay(plan.clone(), &house.world, &mut tell, cancel)).await.expect("a summary");
    assert!(summary.interrupted && (3..8).contains(&summary.ran), "{}", summary.ran);
    assert_eq!(house.rows(Lane::Candidate).await.len(), summary.ran);
    let resumed = house.replay(Plan { resume: true, ..plan.clone() }).await.expect("a replay");
    assert_eq!((resumed.already, resumed.ran, resumed.interrupted), (summary.ran, 8 - summary.ran, false));
    // Of all starts alike: a model call of ten tokens in each trial.
    assert_eq!((resumed.model_calls, resumed.input_tokens), (8, 80));
    let turns = agent.turns.load(Ordering::SeqCst);
    // Nothing is left: the candidate is not even probed.
    let again = house.replay(Plan { resume: true, ..plan }).await.expect("a replay");
    assert_eq!((again.already, again.ran), (8, 0));
    assert_eq!((again.model_calls, again.input_tokens), (8, 80));
    assert_eq!(agent.turns.load(Ordering::SeqCst), turns);
}

#[tokio::test]
async fn a_run_is_not_overwritten_and_not_mixed() {
    let house = House::new(2, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour::default()).await;
    house.replay(house.plan(agent.address, "")).await.expect("a replay");
    let error = house.replay(house.plan(agent.address, "")).await.expect_err("it is there");
    assert!(matches!(error, ReplayError::RunExists { .. }) && error.is_usage());
    let other = Plan { seed: 2, resume: true, ..house.plan(agent.address, "") };
    let error = house.replay(other).await.expect_err("another seed");
    assert!(error.is_usage() && error.to_string().contains("its seed is 1, this command's is 2"), "{error}");
    let other = Plan { trials: 3, resume: true, ..house.plan(agent.address, "") };
    let error = house.replay(other).await.expect_err("another number").to_string();
    assert!(error.contains("its number of trials is 2, this command's is 3"), "{error}");
    let other = Plan { lane: Lane::Baseline, resume: true, ..house.plan(agent.address, "") };
    assert!(house.replay(other).await.expect_err("another lane").to_string().contains("lane"));
    // The store may grow: the run carries its own corpus.
    let lake = Store::open(&house.path("store")).expect("a store");
    assert!(lake.resume_position("journal-1").await.expect("a position") > 0);
    std::fs::remove_dir_all(house.path("store")).expect("the store goes away");
    let resumed =
        house.replay(Plan { resume: true, ..house.plan(agent.address, "") }).await.expect("a replay");
    assert_eq!(resumed.already, 4);
}

#[tokio::test]
async fn a_store_without_sessions_is_refused() {
    let house = House::new(0, 2).await;
    let plan = house.plan(SocketAddr::from(([127, 0, 0, 1], 1)), "");
    let error = house.replay(plan.clone()).await.expect_err("all torn").to_string();
    assert!(error.contains("2 are torn") && error.contains("s-000"), "{error}");
    let nowhere = Plan { store: house.path("nowhere"), ..plan };
    let error = house.replay(nowhere).await.expect_err("no store");
    assert!(error.is_usage() && error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn a_store_is_no_run_and_a_run_is_no_store() {
    let house = House::new(2, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour::default()).await;
    let plan = house.plan(agent.address, "");
    let refused = async |plan: Plan, why: &str| {
        let error = house.replay(plan).await.expect_err(why);
        assert!(error.is_usage() && error.to_string().contains(why), "{error}");
    };
    let itself = Plan { run: format!("file://{}/./", house.path("store")), ..plan.clone() };
    refused(itself.clone(), "--run and --store are both").await;
    refused(Plan { resume: true, ..itself }, "--run and --store are both").await;
    recordings::write(&house.folder.path().join("other"), 1, 0).await;
    let other = Plan { run: house.path("other"), ..plan.clone() };
    refused(other.clone(), "holds a store of recordings, not a run of trials").await;
    refused(Plan { resume: true, ..other }, "holds a store of recordings, not a run of trials").await;
    assert_eq!(agent.turns.load(Ordering::SeqCst), 0);

    house.replay(plan.clone()).await.expect("a replay");
    let again = Plan { store: plan.run.clone(), run: house.path("again"), ..plan };
    refused(again, "holds a run of trials, not a store of recordings").await;
    assert!(!Path::new(&house.path("again")).exists());
}

#[tokio::test]
async fn both_lanes_get_the_same_faults() {
    let rules = "faults = 1\n[[fault]]\ntool = \"refund\"\nkind = \"timeout\"\nafter = \"0s\"\nprobability = 0.5\ncalls = [0]\n\
                 [[fault]]\ntool = \"get_order\"\nkind = \"status\"\nstatus = 503\nprobability = 0.4\n";
    let house = House::new(6, 0).await;
    let agent = Agent::start(house.world.address(), Behaviour { refunds: 2, ..Behaviour::default() }).await;
    let mut heard = Vec::new();
    for lane in [Lane::Baseline, Lane::Candidate] {
        let run = house.path(lane.as_str());
        let faults = Some(FaultRules::parse(rules).expect("a fault file"));
        let plan = Plan { lane, faults, run: run.clone(), ..house.plan(agent.address, "") };
        let summary = house.replay(plan).await.expect("a replay");
        assert!((4..20).contains(&summary.fidelity.faulted), "{:?}", summary.fidelity);
        let mut trials = rows(&run, lane).await;
        trials.sort_by(|a, b| (&a.case, a.trial).cmp(&(&b.case, b.trial)));
        heard.push(
            trials
                .into_iter()
                .map(|t| (t.case, t.trial, t.answer, t.fault_plan, t.fidelity))
                .collect::<Vec<_>>(),
        );
        let lost = heard[0]
            .iter()
            .filter(|(_, _, answer, ..)| answer.as_ref().is_some_and(|a| a.contains("504")))
            .count();
        assert!(lost > 0 && lost < 12, "{lost}");
        // The answer was lost, the write was made: the second one repeats it.
        assert_eq!(summary.duplicated_writes, 12);
    }
    assert_eq!(heard[0], heard[1]);
}

#[tokio::test]
async fn calls_that_cannot_be_told_apart_are_refused_and_counted() {
    let behaviour =
        Behaviour { propagates: false, tools: Tools::Json, asks_model: false, ..Behaviour::default() };
    let house = House::new(2, 0).await;
    let agent = Agent::start(house.world.address(), behaviour).await;
    let plan = house.plan(agent.address, "");
    let summary = house.replay(plan.clone()).await.expect("a replay");
    // Two calls in each of four trials and in the probe.
    assert_eq!((summary.uncorrelated_calls, summary.fidelity.total()), (10, 0));
    let answer = house.rows(Lane::Candidate).await[0].answer.clone().expect("an answer");
    for way in ["`traceparent`", "`baggage`", "[propagate] header = ", "candidate.toml", "--concurrency 1"] {
        assert!(answer.contains(way), "{way} in {answer}");
    }
    let alone = Plan { concurrency: 1, run: house.path("alone"), ..plan };
    let summary = house.replay(alone).await.expect("a replay");
    assert_eq!((summary.uncorrelated_calls, summary.fidelity.exact), (0, 8));
}

#[tokio::test]
async fn live_model_calls_go_through_and_are_counted() {
    let house = House::new(2, 0).await;
    // The provider is a world of its own, which knows no trial: whatever it says, the candidate must hear.
    let provider = World::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let agent = Agent::start(house.world.address(), Behaviour::default()).await;
    let upstream = format!("[model]\nupstream = \"{}\"\nidentify = true\n", provider.model_url());
    let plan = Plan { model: ModelMode::Live, ..house.plan(agent.address, &upstream) };
    let summary = house.replay(plan.clone()).await.expect("a replay");
    assert_eq!((summary.model_calls, summary.fidelity.live, summary.fidelity.exact), (4, 4, 8));
    let trials = house.rows(Lane::Candidate).await;
    assert!(
        trials
            .iter()
            .all(|trial| trial.answer.as_ref().is_some_and(|answer| answer.starts_with("400 plain")))
    );

    provider.shutdown().await;
    let gone = Plan { run: house.path("gone"), ..plan };
    let summary = house.replay(gone).await.expect("the agent answers all the same");
    assert_eq!(summary.endings.complete, 4);
    let lake = Store::open(&house.path("gone")).expect("a run");
    let snapshot = lake.snapshot().await.expect("commits");
    let sessions = lake.load_sessions(&snapshot, None).await.expect("sessions");
    let model = sessions
        .iter()
        .flat_map(|s| &s.exchanges)
        .filter(|x| x.operation.kind == OperationKind::Chat && x.status == Some(502));
    assert!(model.clone().all(|x| x.ending == Ending::Failed));
    assert_eq!(model.count(), 4);
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_is_started_only_where_its_egress_is_allowed() {
    let house = House::new(2, 0).await;
    let text = "candidate = 1\nkind = \"command\"\nbuild = \"b-3\"\n[command]\ninherit = []\n\
                argv = [\"/bin/sh\", \"-c\", \"read line; echo \\\"$line at $URL\\\"\"]\nenv = { URL = \"{{mcp_url}}\" }\n";
    let plan = house.plan_of(text);
    let error = house.replay(plan.clone()).await.expect_err("egress is open");
    assert!(error.is_usage() && error.to_string().contains("--allow-open-egress"), "{error}");
    let summary = house.replay(Plan { allow_open_egress: true, ..plan.clone() }).await.expect("a replay");
    assert_eq!(summary.endings.complete, 4);
    let trials = house.rows(Lane::Candidate).await;
    let address = house.world.address();
    for trial in &trials {
        let answer = trial.answer.as_ref().expect("an answer");
        assert!(
            answer.contains("please refund order W0") && answer.contains(&format!("at http://{address}/t/")),
            "{answer}"
        );
    }

    let long = text.replace("inherit", "process = \"trial\"\ntimeout = \"10s\"\ninherit");
    let plan = Plan { allow_open_egress: true, run: house.path("long"), ..house.plan_of(&long) };
    assert_eq!(house.replay(plan).await.expect("a replay").endings.complete, 4);

    let broken = text.replace("read line;", "echo oh no >&2; exit 3;");
    let plan = Plan { allow_open_egress: true, run: house.path("broken"), ..house.plan_of(&broken) };
    let error = house.replay(plan).await.expect_err("the program fails").to_string();
    assert!(error.contains("exit status: 3") && error.contains("oh no"), "{error}");

    let slow = text.replace("read line;", "sleep 600;").replace("inherit", "timeout = \"80ms\"\ninherit");
    let plan = Plan { allow_open_egress: true, run: house.path("slow"), ..house.plan_of(&slow) };
    assert!(house.replay(plan).await.expect_err("the program hangs").to_string().contains("within 80ms"));
}
