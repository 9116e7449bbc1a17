//! What is found out before anything is written: whether the plan can be carried out, by whom, and on what.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Uri};
use schemas::id::SessionId;
use schemas::trial::{Lane, RunManifest, Trial};
use store::Store;
use store::table::Table;

use super::{Cases, ModelMode, Plan, ReplayError};
use crate::candidate::http::chain;
use crate::corpus::{self, Choice, Corpus};
use crate::http_client::HttpClient;
use crate::trial_runner::{self, Stage};
use crate::world::active_trial::Case;

/// How many torn or unusable sessions an error names.
const MAX_NAMED: usize = 3;

/// Says what of the plan cannot be.
pub(super) fn check(plan: &Plan) -> Result<(), ReplayError> {
    let wrong = |text: &str| Err(ReplayError::Plan(text.to_owned()));
    if plan.lane == Lane::Recorded {
        return wrong("lane `recorded` is what production did; replay lane `baseline` or `candidate`");
    }
    if plan.trials == 0 {
        return wrong("--trials is 0; give at least 1");
    }
    if plan.sessions == Some(0) {
        return wrong("--sessions is 0; give at least 1, or leave it out for all sessions");
    }
    if !plan.delay_scale.is_finite() || plan.delay_scale < 0.0 {
        return wrong("--delay-scale must be a number from 0 up");
    }
    if plan.model == ModelMode::Live && plan.candidate.model.is_none() {
        return wrong(
            "--model live needs [model] upstream in the candidate file; add it, or use --model recorded",
        );
    }
    if plan.candidate.is_command() && !plan.allow_open_egress {
        return wrong(
            "a command candidate could reach the network: its model and tool addresses point to the world, but nothing \
             stops it from calling others; run it where that is safe and say --allow-open-egress",
        );
    }
    Ok(())
}

/// Refuses a target that is the recordings' own store: trials in it would be taken for recordings later.
async fn target(plan: &Plan, run: &Store, manifest: Option<&RunManifest>) -> Result<(), ReplayError> {
    if place(&plan.run) == place(&plan.store) {
        let text = format!("--run and --store are both {}; choose another place for the trials", plan.run);
        return Err(ReplayError::Plan(text));
    }
    // The manifest is written before the first commit, so whatever has commits without one is no run.
    if manifest.is_none() && !run.snapshot().await?.is_empty() {
        let text =
            format!("{} holds a store of recordings, not a run of trials; choose another --run", plan.run);
        return Err(ReplayError::Plan(text));
    }
    Ok(())
}

/// One name for a place, however it is written; symbolic links are followed where it exists.
fn place(location: &str) -> PathBuf {
    let path = match location.split_once("://") {
        None => location,
        Some(("file", path)) => path,
        Some(_) => return PathBuf::from(location.trim_end_matches('/')),
    };
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| PathBuf::from(path))
        .components()
        .collect()
}

/// Reads the corpus: from the store, or for a run that already carries its recordings from the run itself, as the store
/// may have grown since.
pub(super) async fn corpus(
    plan: &Plan,
    run: &Store,
    manifest: Option<&RunManifest>,
) -> Result<Corpus, ReplayError> {
    target(plan, run, manifest).await?;
    if let Some(manifest) = manifest
        && let Some(corpus) = carried(plan, run, manifest).await?
    {
        return Ok(corpus);
    }
    let store = Store::open(&plan.store)?.with_keys(plan.ring.clone());
    if store.manifest().await?.is_some() {
        let text =
            format!("{} holds a run of trials, not a store of recordings; correct --store", plan.store);
        return Err(ReplayError::Plan(text));
    }
    let snapshot = store.snapshot().await?;
    if snapshot.is_empty() {
        return Err(ReplayError::EmptyStore { location: plan.store.clone() });
    }
    let choice = Choice { agent: plan.agent.as_ref(), sample: plan.sessions, seed: plan.seed };
    let corpus = corpus::load(&store, &snapshot, choice, &plan.tools).await?;
    if corpus.chosen.is_empty() {
        return Err(no_cases(plan, &corpus));
    }
    let agents = corpus::agents(&corpus);
    if agents.len() > 1 {
        let agents = agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(ReplayError::SeveralAgents { location: plan.store.clone(), agents });
    }
    Ok(corpus)
}

/// The corpus as the run carries it; `None` where an earlier start stopped before all of it was there.
async fn carried(plan: &Plan, run: &Store, manifest: &RunManifest) -> Result<Option<Corpus>, ReplayError> {
    let snapshot = run.snapshot().await?;
    let trials: Vec<Trial> = run.read_table(&snapshot, Table::Trials, None).await?;
    let recorded = trials.into_iter().filter(|trial| trial.lane == Lane::Recorded);
    let wanted: std::collections::BTreeSet<SessionId> = recorded.map(|trial| trial.session).collect();
    if u32::try_from(wanted.len()).ok() != manifest.planned_cases {
        return Ok(None);
    }
    let snapshot = snapshot.of_source(super::RECORDED_SOURCE);
    let choice = Choice { agent: None, sample: None, seed: plan.seed };
    Ok(Some(corpus::load(run, &snapshot, choice, &plan.tools).await?))
}

fn no_cases(plan: &Plan, corpus: &Corpus) -> ReplayError {
    let torn = corpus.torn.iter().map(|torn| format!("{}: {}", torn.session, torn.reasons.join(", ")));
    let unusable = corpus.unusable.iter().map(|session| format!("{}: {}", session.session, session.reason));
    let named: Vec<String> = torn.chain(unusable).take(MAX_NAMED).collect();
    let agent = plan.agent.as_ref().map(|agent| format!(" (of agent {agent})")).unwrap_or_default();
    let named = if named.is_empty() { String::new() } else { format!(", such as {}", named.join("; ")) };
    ReplayError::NoCases {
        location: plan.store.clone(),
        torn: corpus.torn.len(),
        unusable: corpus.unusable.len(),
        hint: format!("{agent}{named}"),
    }
}

/// Says in what a run that is to be resumed was started otherwise.
pub(super) fn same_plan(location: &str, held: &RunManifest, wanted: &RunManifest) -> Result<(), ReplayError> {
    fn number(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "none".to_owned(), |value| value.to_string())
    }
    let differs = |what: &'static str, held: String, asked: String| {
        Err(ReplayError::OtherPlan { location: location.to_owned(), what, held, asked })
    };
    let shown = |text: Option<&str>| text.unwrap_or("none").chars().take(16).collect::<String>();
    if held.source != wanted.source {
        return differs("source", held.source.clone(), wanted.source.clone());
    }
    if held.lane != wanted.lane {
        return differs("lane", held.lane.as_str().to_owned(), wanted.lane.as_str().to_owned());
    }
    if held.build != wanted.build {
        return differs("build", held.build.to_string(), wanted.build.to_string());
    }
    if held.seed != wanted.seed {
        return differs("seed", number(held.seed), number(wanted.seed));
    }
    if held.planned_trials != wanted.planned_trials {
        let (held, asked) = (number(held.planned_trials), number(wanted.planned_trials));
        return differs("number of trials", held, asked);
    }
    if held.corpus_digest != wanted.corpus_digest {
        let (held, asked) = (shown(held.corpus_digest.as_deref()), shown(wanted.corpus_digest.as_deref()));
        return differs("corpus (digest)", held, asked);
    }
    if held.plan_digest != wanted.plan_digest {
        let (held, asked) = (shown(held.plan_digest.as_deref()), shown(wanted.plan_digest.as_deref()));
        return differs("candidate, faults, tools or model settings (digest)", held, asked);
    }
    Ok(())
}

/// Warns of fault rules for tools that no case knows: most likely a typo, but a candidate may have new tools.
pub(super) fn check_faults(plan: &Plan, cases: &Cases) {
    let Some(rules) = &plan.faults else { return };
    for tool in rules.named() {
        if !cases.values().any(|case| case.script.listed.contains_key(tool)) {
            tracing::warn!(tool, "a fault names a tool that no session of the corpus knows");
        }
    }
}

/// Finds out whether the candidate answers at all.
pub(super) async fn probe(stage: &Stage, case: &Arc<Case>) -> Result<(), ReplayError> {
    let probe = &stage.candidate.probe;
    let timeout = probe.timeout.unwrap_or_else(|| stage.candidate.turn_timeout());
    let answered = match &probe.url {
        Some(url) => ask(&stage.settings.client, url, timeout).await,
        None => Box::pin(trial_runner::probe(stage, case.clone(), timeout)).await,
    };
    answered.map_err(|detail| ReplayError::Probe { detail })
}

async fn ask(client: &HttpClient, url: &Uri, timeout: Duration) -> Result<(), String> {
    let request = Request::builder().method(Method::GET).uri(url.clone()).body(Full::new(Bytes::new()));
    let request = request.map_err(|error| error.to_string())?;
    match tokio::time::timeout(timeout, client.request(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) => {
            let status = response.status().as_u16();
            Err(format!("the candidate answered the probe with HTTP status {status}\n  sent: GET {url}"))
        }
        Ok(Err(error)) => Err(format!("the candidate does not answer: {}\n  sent: GET {url}", chain(&error))),
        Err(_) => Err(format!("the candidate does not answer within {timeout:?}\n  sent: GET {url}")),
    }
}
