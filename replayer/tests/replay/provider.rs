//! Replays with a model provider that fails: what counts as its failure, what is repeated, and what is run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::scripted_http::{Reply, ScriptedRequest, ScriptedServer};
use super::*;

const MODEL: &str = "identify = true\nretry = { attempts = 3, pause = \"1ms\", max-pause = \"1s\" }\n";

/// A live replay against an agent that swallows every error of the model.
async fn live(
    fixture: &Fixture,
    behaviour: Behaviour,
    more: &str,
    script: impl Fn(&ScriptedRequest) -> Reply + Send + Sync + 'static,
) -> (Plan, Agent, ScriptedServer) {
    let provider = ScriptedServer::start(script);
    let agent = Agent::start(fixture.world.address(), behaviour).await;
    let model = format!("[model]\nupstream = \"http://{}/v1\"\n{MODEL}{more}", provider.address);
    // The probe asks the agent's own page, so that the provider's failures come in the trials.
    let probe = format!("[probe]\nurl = \"http://{}/healthz\"\n", agent.address);
    let plan = Plan { model: ModelMode::Live, ..fixture.plan(agent.address, &format!("{model}{probe}")) };
    (plan, agent, provider)
}

fn is_of(request: &ScriptedRequest, case: usize, trial: u32) -> bool {
    request.header("foreshadow-case") == recordings::session_id(case).as_str()
        && request.header("foreshadow-trial") == trial.to_string()
}

#[tokio::test]
async fn a_trial_that_the_provider_failed_is_missing_whatever_the_agent_answers() {
    let failures = [
        (Reply::error(429, "rate_limit_exceeded"), "status 429: 1"),
        (Reply::error(503, "overloaded"), "status 503: 1"),
        (Reply::Reset, "connection: 1"),
        (
            Reply::Complete(200, Vec::new(), r#"{"error":{"code":502,"message":"bad"}}"#.to_owned()),
            "error in the answer: 1",
        ),
    ];
    for (reply, counted) in failures {
        let fixture = Fixture::new(3, 0).await;
        let fails = move |request: &ScriptedRequest| {
            if is_of(request, 1, 1) { reply.clone() } else { Reply::completion("fine") }
        };
        let (plan, _agent, _provider) = live(&fixture, Behaviour::default(), "", fails).await;
        let summary = fixture.replay(plan).await.expect("a replay");
        assert_eq!((summary.endings.complete, summary.endings.infrastructure), (5, 1), "{counted}");
        assert_eq!((summary.provider_failures, summary.provider_retries), (1, 2), "{counted}");
        let trials = fixture.rows(Lane::Candidate).await;
        let lost = trials.iter().find(|t| t.ending == TrialEnding::Infrastructure).expect("a lost trial");
        assert_eq!((lost.trial, lost.provider_failures, lost.provider_retries), (1, Some(1), Some(2)));
        let detail = lost.ending_detail.as_deref().expect("a reason");
        assert!(
            detail.contains(counted) && detail.ends_with("the candidate: answered every turn"),
            "{detail}"
        );
        let other = trials.iter().find(|t| t.ending == TrialEnding::Complete).expect("a complete trial");
        assert_eq!((other.provider_failures, other.provider_retries), (Some(0), Some(0)));
    }
}

#[tokio::test]
async fn an_error_that_the_request_caused_is_the_candidates() {
    for status in [400, 404, 413, 422] {
        let fixture = Fixture::new(1, 0).await;
        let refuse = move |_: &ScriptedRequest| Reply::error(status, "invalid_request_error");
        let (plan, _agent, _provider) = live(&fixture, Behaviour::default(), "", refuse).await;
        let summary = fixture.replay(plan).await.expect("a replay");
        assert_eq!((summary.endings.complete, summary.endings.infrastructure), (2, 0), "{status}");
        assert_eq!((summary.provider_failures, summary.provider_retries), (0, 0), "{status}");
        let answer = fixture.rows(Lane::Candidate).await[0].answer.clone().expect("an answer");
        assert!(answer.starts_with(&status.to_string()), "{answer}");
    }
}

#[tokio::test]
async fn a_repeated_call_that_succeeds_costs_the_candidate_nothing() {
    let fixture = Fixture::new(1, 0).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    // Every first attempt is refused and asks for a pause of 0.3 s.
    let script = move |_: &ScriptedRequest| match counted.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Reply::Complete(503, vec![("retry-after", "0.3".to_owned())], "busy".to_owned()),
        _ => Reply::completion("fine"),
    };
    let (mut plan, _agent, _provider) = live(&fixture, Behaviour::default(), "", script).await;
    plan.concurrency = 1;
    let started = Instant::now();
    let summary = fixture.replay(plan).await.expect("a replay");
    assert_eq!((summary.endings.complete, summary.endings.infrastructure), (2, 0));
    assert_eq!(
        (summary.provider_retries, summary.provider_failures, calls.load(Ordering::SeqCst)),
        (2, 0, 4)
    );
    assert!(started.elapsed() >= Duration::from_millis(600), "retry-after is honoured");
    for trial in fixture.rows(Lane::Candidate).await {
        let time = trial.duration_us.expect("a duration");
        assert!(time < 290_000, "the pause counts as the candidate's: {time} us");
    }
}

#[tokio::test]
async fn a_pause_is_cut_at_its_bound_and_does_not_use_up_the_turn() {
    let fixture = Fixture::new(1, 0).await;
    let calls = AtomicUsize::new(0);
    let script = move |_: &ScriptedRequest| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Complete(429, vec![("retry-after", "3600".to_owned())], "slow down".to_owned()),
        _ => Reply::completion("fine"),
    };
    let (mut plan, agent, provider) = live(&fixture, Behaviour::default(), "", script).await;
    // The pause of a second is longer than the turn may take.
    let text = format!(
        "candidate = 1\nkind = \"http\"\nbuild = \"b-2\"\n[model]\nupstream = \"http://{}/v1\"\n{MODEL}[probe]\n\
         url = \"http://{}/healthz\"\n[http]\nurl = \"http://{}/chat\"\nbody = {{ message = \"{{{{input}}}}\" }}\n\
         answer = \"/reply\"\ntimeout = \"700ms\"\n",
        provider.address, agent.address, agent.address
    );
    plan.candidate = Candidate::parse(&text, &|_| None).expect("a candidate file");
    plan.trials = 1;
    let started = Instant::now();
    let summary = fixture.replay(plan).await.expect("a replay");
    assert_eq!((summary.endings.complete, summary.provider_retries), (1, 1), "{:?}", summary.endings);
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_silent_provider_is_told_from_a_slow_candidate() {
    let fixture = Fixture::new(1, 0).await;
    let script = |_: &ScriptedRequest| Reply::Silence(Duration::from_secs(20));
    let (mut plan, agent, provider) = live(&fixture, Behaviour::default(), "", script).await;
    // The turn would end before the provider's own limit.
    let text = format!(
        "candidate = 1\nkind = \"http\"\nbuild = \"b-2\"\n[model]\nupstream = \"http://{}/v1\"\ntimeout = \"400ms\"\n\
         retry = {{ attempts = 1 }}\n[probe]\nurl = \"http://{}/healthz\"\n[http]\nurl = \"http://{}/chat\"\n\
         body = {{ message = \"{{{{input}}}}\" }}\nanswer = \"/reply\"\ntimeout = \"200ms\"\n",
        provider.address, agent.address, agent.address
    );
    plan.candidate = Candidate::parse(&text, &|_| None).expect("a candidate file");
    let summary = fixture.replay(plan).await.expect("a replay");
    assert_eq!((summary.endings.infrastructure, summary.endings.timed_out), (2, 0), "{:?}", summary.endings);
    let detail = fixture.rows(Lane::Candidate).await[0].ending_detail.clone().expect("a reason");
    assert!(detail.contains("timeout: 1"), "{detail}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_not_repeated() {
    let fixture = Fixture::new(1, 0).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let script = move |_: &ScriptedRequest| {
        counted.fetch_add(1, Ordering::SeqCst);
        Reply::CutOff("data: {\"choices\":[{\"delta\":{\"content\":\"hal\"}}]}\n\n".to_owned())
    };
    let behaviour = Behaviour { streams: true, tolerates_cut_answers: true, ..Behaviour::default() };
    let (mut plan, _agent, _provider) = live(&fixture, behaviour, "", script).await;
    plan.trials = 1;
    let summary = fixture.replay(plan).await.expect("a replay");
    assert_eq!((summary.endings.infrastructure, summary.provider_retries), (1, 0), "{:?}", summary.endings);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let detail = fixture.rows(Lane::Candidate).await[0].ending_detail.clone().expect("a reason");
    assert!(detail.contains("connection: 1") && detail.contains("cut the answer off"), "{detail}");
}

#[tokio::test]
async fn a_provider_that_is_down_stops_the_replay_and_lost_trials_run_again_once() {
    let down = Arc::new(AtomicUsize::new(1));
    let state = down.clone();
    let fixture = Fixture::new(8, 0).await;
    let script = move |request: &ScriptedRequest| match state.load(Ordering::SeqCst) {
        // A trial of its own fails, then every call.
        1 if is_of(request, 0, 0) || is_of(request, 1, 0) => Reply::error(502, "bad_gateway"),
        2 => Reply::error(502, "bad_gateway"),
        _ => Reply::completion("fine"),
    };
    let (plan, _agent, _provider) =
        live(&fixture, Behaviour::default(), "max-lost-trials = 3\n", script).await;
    let first = Plan { concurrency: 1, ..plan.clone() };
    let summary = fixture.replay(first).await.expect("a replay");
    assert_eq!((summary.ran, summary.endings.infrastructure, summary.provider_down), (16, 2, None));

    let other = Plan { run: fixture.path("down"), concurrency: 1, ..plan.clone() };
    down.store(2, Ordering::SeqCst);
    let summary = fixture.replay(other.clone()).await.expect("a summary");
    let reason = summary.provider_down.expect("a reason");
    let lost = summary.ran;
    // The stop may cancel the trial that caused it before it is stored.
    assert!(summary.interrupted && (2..=3).contains(&summary.ran), "{} ran", summary.ran);
    assert_eq!(reason, "3 trials in a row were lost to it, the last by status 502");

    down.store(0, Ordering::SeqCst);
    for (run, rerun) in [("run", 2), ("down", lost)] {
        let incarnation = IncarnationId::parse("later").expect("id");
        let plan = Plan { run: fixture.path(run), resume: true, incarnation, ..other.clone() };
        let plan = Plan { clock: Clock::new(|| 1_760_000_000_000_001), ..plan };
        let summary = fixture.replay(plan.clone()).await.expect("a replay");
        assert_eq!(
            (summary.rerun, summary.endings.complete, summary.interrupted),
            (rerun, 16, false),
            "{run}"
        );
        assert_eq!((summary.endings.infrastructure, summary.model_calls), (0, 16), "{run}");
        let mut trials = rows(&fixture.path(run), Lane::Candidate).await;
        assert_eq!(trials.len(), 16 + rerun, "the failed attempts are kept in {run}");
        assert_eq!(schemas::trial::supersede(&mut trials), rerun);
        let distinct: BTreeSet<_> = trials.iter().map(|t| (t.case.clone(), t.trial)).collect();
        assert_eq!((trials.len(), distinct.len()), (16, 16), "{run}");
        assert!(trials.iter().all(|trial| trial.ending == TrialEnding::Complete), "{run}");
        let again = fixture.replay(plan).await.expect("a replay");
        assert_eq!((again.ran, again.rerun), (0, 0), "{run}");
    }
}

#[tokio::test]
async fn a_refused_key_stops_the_replay_at_once() {
    for (status, code) in [(401, "invalid_api_key"), (403, "forbidden"), (429, "insufficient_quota")] {
        let fixture = Fixture::new(8, 0).await;
        let refuse = move |_: &ScriptedRequest| Reply::error(status, code);
        let (plan, _agent, _provider) = live(&fixture, Behaviour::default(), "", refuse).await;
        let summary = fixture.replay(plan.clone()).await.expect("a summary");
        let reason = summary.provider_down.expect("a reason");
        assert!(summary.interrupted && summary.ran <= 8, "{status}: {} ran", summary.ran);
        assert!(reason.starts_with(&format!("status {status}")) && reason.ends_with("scripted"), "{reason}");
        assert_eq!(summary.provider_retries, 0, "{status}");

        // With the probe of a turn, no trial starts, although the agent answers.
        let fixture = Fixture::new(1, 0).await;
        let provider = ScriptedServer::start(refuse);
        let agent = Agent::start(fixture.world.address(), Behaviour::default()).await;
        let model = format!("[model]\nupstream = \"http://{}/v1\"\n", provider.address);
        let plan = Plan { model: ModelMode::Live, ..fixture.plan(agent.address, &model) };
        let error = fixture.replay(plan).await.expect_err("the provider refuses").to_string();
        assert!(error.contains(&format!("status {status}")) && error.contains("no trial ran"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!Path::new(&fixture.path("run")).exists());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_error_text_marks_infrastructure() {
    let fixture = Fixture::new(2, 0).await;
    // The program fails in the second trial only, with a long trace before the text.
    let text = "candidate = 1\nkind = \"command\"\nbuild = \"b-3\"\n[command]\n\
                argv = [\"/bin/sh\", \"-c\", '''cat >/dev/null; echo >>\"$0\"; [ $(wc -l <\"$0\") -lt 3 ] && echo fine && exit; \
                printf '%0600d' 0 >&2; echo connection refused by db >&2; exit 1''', \"COUNT\"]\n";
    let text = text.replace("COUNT", &fixture.path("count"));
    let plan = Plan { allow_open_egress: true, concurrency: 1, ..fixture.plan_of(&text) };
    let failed = fixture.replay(plan.clone()).await.expect("a replay");
    assert_eq!((failed.endings.failed, failed.endings.infrastructure), (3, 0), "{:?}", failed.endings);

    std::fs::remove_file(fixture.path("count")).expect("removed");
    let infrastructure = vec!["connection refused".to_owned()];
    let marked = Plan { infrastructure, run: fixture.path("marked"), ..plan };
    let summary = fixture.replay(marked.clone()).await.expect("a replay");
    assert_eq!((summary.endings.failed, summary.endings.infrastructure), (0, 3), "{:?}", summary.endings);
    let manifest = Store::open(&fixture.path("marked")).expect("a run").manifest().await.expect("reads");
    assert_eq!(manifest.expect("a manifest").infrastructure, ["connection refused"]);
    // The texts are fixed before the first trial.
    let other = Plan { infrastructure: Vec::new(), resume: true, ..marked };
    assert!(fixture.replay(other).await.expect_err("other texts").is_usage());
}
