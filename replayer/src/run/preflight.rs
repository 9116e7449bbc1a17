//! Checks before the first trial: the plan, the target, the corpus and the probe of the candidate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Uri};
use schemas::id::SessionId;
use schemas::tools::ToolCatalog;
use schemas::trial::{Lane, RunManifest, Trial};
use store::Store;
use store::table::Table;

use super::cases::Cases;
use super::error::ReplayError;
use super::recordings::RECORDED_SOURCE;
use crate::blocking::run_blocking;
use crate::case_recording::CaseRecording;
use crate::corpus::{self, Corpus, Selection};
use crate::http_client::{HttpClient, error_chain};
use crate::plan::{ModelMode, Plan};
use crate::trial_runner::{self, ProbeFailure, ReplayContext};
use crate::world::active_trial::ReplayCase;

/// Incomplete or unusable sessions that an error names.
const MAX_NAMED: usize = 3;

/// Rejects invalid and contradictory plans.
pub(super) fn check(plan: &Plan) -> Result<(), ReplayError> {
    let invalid = |text: &str| Err(ReplayError::Plan(text.to_owned()));
    if plan.lane == Lane::Recorded {
        return invalid(
            "lane `recorded` is reserved for the recordings; replay lane `baseline` or `candidate`",
        );
    }
    if plan.trials == 0 {
        return invalid("--trials is 0; give at least 1");
    }
    if plan.sessions == Some(0) {
        return invalid("--sessions is 0; give at least 1, or omit it for all sessions");
    }
    if !plan.delay_scale.is_finite() || plan.delay_scale < 0.0 {
        return invalid("--delay-scale must be a number of at least 0");
    }
    if plan.model == ModelMode::Live && plan.candidate.model.is_none() {
        return invalid(
            "--model live needs [model] upstream in the candidate file; add it, or use --model recorded",
        );
    }
    if plan.infrastructure.iter().any(String::is_empty) {
        return invalid("--infrastructure \"\" matches every error; give a part of the error text");
    }
    if plan.candidate.is_command() && !plan.allow_open_egress {
        return invalid(
            "a command candidate can reach the network: its model and tool URLs point to the world, but its other \
             connections are not restricted; run it where that is safe, and give --allow-open-egress",
        );
    }
    Ok(())
}

/// Rejects a target that is a store of recordings: a later replay would read its trials as recordings.
async fn check_target(plan: &Plan, run: &Store, manifest: Option<&RunManifest>) -> Result<(), ReplayError> {
    let (run_path, store_path) = (plan.run.clone(), plan.store.clone());
    let is_same = run_blocking(move || canonical_path(&run_path) == canonical_path(&store_path)).await;
    if is_same {
        let text = format!("--run and --store are both {}; choose another --run", plan.run);
        return Err(ReplayError::Plan(text));
    }
    // The manifest is written before the first commit, so commits without a manifest are no run.
    if manifest.is_none() && !run.snapshot().await?.is_empty() {
        let text =
            format!("{} is a store of recordings, not a run of trials; choose another --run", plan.run);
        return Err(ReplayError::Plan(text));
    }
    Ok(())
}

/// The canonical path of a location. Symbolic links are followed if the location exists.
fn canonical_path(location: &str) -> PathBuf {
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

/// Reads the corpus from the store, or from a run that already contains all recordings, because the store may have
/// changed since the run started.
pub(super) async fn corpus(
    plan: &Plan,
    run: &Store,
    manifest: Option<&RunManifest>,
) -> Result<Corpus, ReplayError> {
    check_target(plan, run, manifest).await?;
    let catalog = Arc::new(plan.tools.clone());
    if let Some(manifest) = manifest
        && let Some(corpus) = corpus_of_run(plan, run, manifest, &catalog).await?
    {
        return Ok(corpus);
    }
    let store = Store::open(&plan.store)?.with_keys(plan.key_ring.clone());
    if store.manifest().await?.is_some() {
        let text = format!("{} is a run of trials, not a store of recordings; correct --store", plan.store);
        return Err(ReplayError::Plan(text));
    }
    let snapshot = store.snapshot().await?;
    if snapshot.is_empty() {
        return Err(ReplayError::EmptyStore { location: plan.store.clone() });
    }
    let selection = Selection { agent: plan.agent.as_ref(), sample: plan.sessions, seed: plan.seed };
    let corpus = corpus::load(&store, &snapshot, selection, &catalog).await?;
    if corpus.selected.is_empty() {
        return Err(no_cases(plan, &corpus));
    }
    let agents = corpus::agents(&corpus);
    if agents.len() > 1 {
        let agents = agents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(ReplayError::SeveralAgents { location: plan.store.clone(), agents });
    }
    check_decoded(plan, &corpus)?;
    Ok(corpus)
}

/// Rejects sessions of which no model or tool call was decoded, and warns of sessions that are decoded in part.
fn check_decoded(plan: &Plan, corpus: &Corpus) -> Result<(), ReplayError> {
    let recordings = || corpus.selected.iter().map(|session| &session.recording);
    let paths = |recordings: &mut dyn Iterator<Item = &CaseRecording>| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (path, count) in recordings.flat_map(|recording| &recording.undecoded) {
            *counts.entry(path).or_insert(0) += count;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let named = counts.iter().take(MAX_NAMED).map(|(path, count)| format!("{count} exchanges {path}"));
        named.collect::<Vec<_>>().join(", ")
    };
    let undecoded = || corpus.selected.iter().filter(|session| session.recording.answers_nothing());
    if let (Some(first), false) = (undecoded().next(), plan.allow_undecoded) {
        let cause = paths(&mut undecoded().map(|session| &session.recording));
        return Err(ReplayError::Undecoded {
            location: plan.store.clone(),
            selected: corpus.selected.len(),
            undecoded: undecoded().count(),
            cause: if cause.is_empty() {
                "none was recorded; only the turns were".to_owned()
            } else {
                format!("not decoded: {cause}")
            },
            example: first.session.clone(),
        });
    }
    let paths = paths(&mut recordings());
    if !paths.is_empty() {
        tracing::warn!(
            paths,
            "the store has model or tool calls that were not decoded; a candidate's are missed"
        );
    }
    Ok(())
}

/// The corpus that the run contains. Returns `None` if an earlier start stopped before it copied all recordings.
async fn corpus_of_run(
    plan: &Plan,
    run: &Store,
    manifest: &RunManifest,
    catalog: &Arc<ToolCatalog>,
) -> Result<Option<Corpus>, ReplayError> {
    let snapshot = run.snapshot().await?;
    let trials: Vec<Trial> = run.read_table(&snapshot, Table::Trials, None).await?;
    let recorded = trials.into_iter().filter(|trial| trial.lane == Lane::Recorded);
    let wanted: std::collections::BTreeSet<SessionId> = recorded.map(|trial| trial.session).collect();
    if u32::try_from(wanted.len()).ok() != manifest.planned_cases {
        return Ok(None);
    }
    let snapshot = snapshot.of_source(RECORDED_SOURCE);
    let selection = Selection { agent: None, sample: None, seed: plan.seed };
    Ok(Some(corpus::load(run, &snapshot, selection, catalog).await?))
}

fn no_cases(plan: &Plan, corpus: &Corpus) -> ReplayError {
    let incomplete = corpus.incomplete.iter();
    let incomplete = incomplete.map(|session| format!("{}: {}", session.session, session.reasons.join(", ")));
    let unusable = corpus.unusable.iter().map(|session| format!("{}: {}", session.session, session.reason));
    let named: Vec<String> = incomplete.chain(unusable).take(MAX_NAMED).collect();
    let agent = plan.agent.as_ref().map(|agent| format!(" (of agent {agent})")).unwrap_or_default();
    let named = if named.is_empty() { String::new() } else { format!(", such as {}", named.join("; ")) };
    ReplayError::NoCases {
        location: plan.store.clone(),
        incomplete: corpus.incomplete.len(),
        unusable: corpus.unusable.len(),
        hint: format!("{agent}{named}"),
    }
}

/// Rejects the resumption of a run that was started with another plan.
pub(super) fn check_same_plan(
    location: &str,
    existing: &RunManifest,
    wanted: &RunManifest,
) -> Result<(), ReplayError> {
    fn number(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "none".to_owned(), |value| value.to_string())
    }
    let differs = |what: &'static str, found: String, expected: String| {
        Err(ReplayError::OtherPlan { location: location.to_owned(), what, found, expected })
    };
    let shown = |text: Option<&str>| text.unwrap_or("none").chars().take(16).collect::<String>();
    if existing.source != wanted.source {
        return differs("source", existing.source.clone(), wanted.source.clone());
    }
    if existing.lane != wanted.lane {
        return differs("lane", existing.lane.as_str().to_owned(), wanted.lane.as_str().to_owned());
    }
    if existing.build != wanted.build {
        return differs("build", existing.build.to_string(), wanted.build.to_string());
    }
    if existing.seed != wanted.seed {
        return differs("seed", number(existing.seed), number(wanted.seed));
    }
    if existing.planned_trials != wanted.planned_trials {
        let (found, expected) = (number(existing.planned_trials), number(wanted.planned_trials));
        return differs("number of trials", found, expected);
    }
    if existing.corpus_digest != wanted.corpus_digest {
        let (found, expected) =
            (shown(existing.corpus_digest.as_deref()), shown(wanted.corpus_digest.as_deref()));
        return differs("corpus (digest)", found, expected);
    }
    if existing.plan_digest != wanted.plan_digest {
        let (found, expected) =
            (shown(existing.plan_digest.as_deref()), shown(wanted.plan_digest.as_deref()));
        return differs(
            "candidate, faults, tools, infrastructure texts or model settings (digest)",
            found,
            expected,
        );
    }
    Ok(())
}

/// Warns of fault rules for tools that no case lists: probably a typo, but a candidate may have new tools.
pub(super) fn check_faults(plan: &Plan, cases: &Cases) {
    let Some(rules) = &plan.faults else { return };
    for tool in rules.named_tools() {
        if !cases.values().any(|case| case.recording.tool_list.contains_key(tool)) {
            tracing::warn!(tool, "a fault rule names a tool that no selected session lists");
        }
    }
}

/// Checks that the candidate answers.
pub(super) async fn probe(context: &ReplayContext, case: &Arc<ReplayCase>) -> Result<(), ReplayError> {
    let probe = &context.candidate.probe;
    let timeout = probe.timeout.unwrap_or_else(|| context.candidate.turn_timeout());
    let answered = match &probe.url {
        Some(url) => probe_url(&context.settings.client, url, timeout).await.map_err(ProbeFailure::Candidate),
        None => Box::pin(trial_runner::probe(context, case.clone(), timeout)).await,
    };
    answered.map_err(|failure| match failure {
        ProbeFailure::Candidate(detail) => ReplayError::Probe { detail },
        ProbeFailure::Provider(detail) => ReplayError::Provider { detail },
    })
}

async fn probe_url(client: &HttpClient, url: &Uri, timeout: Duration) -> Result<(), String> {
    let request = Request::builder().method(Method::GET).uri(url.clone()).body(Full::new(Bytes::new()));
    let request = request.map_err(|error| error.to_string())?;
    match tokio::time::timeout(timeout, client.request(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) => {
            let status = response.status().as_u16();
            Err(format!("the candidate answered the probe with HTTP status {status}\n  sent: GET {url}"))
        }
        Ok(Err(error)) => {
            Err(format!("the candidate does not answer: {}\n  sent: GET {url}", error_chain(&error)))
        }
        Err(_) => Err(format!("the candidate does not answer within {timeout:?}\n  sent: GET {url}")),
    }
}
