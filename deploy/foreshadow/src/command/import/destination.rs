//! The store or run that an import writes to: refuses files, sessions and trials that it already contains.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use recorder::import::{ConvertedSession, ImportFormat, ImportInto};
use schemas::FORMAT;
use schemas::id::{CaseId, SessionId};
use schemas::trial::{Lane, RunManifest, Trial, TrialEnding};
use serde::Deserialize;
use store::table::Table;
use store::{Store, StoreError};

use crate::exit::Failure;

#[derive(Deserialize)]
struct SessionRow {
    session: SessionId,
}

/// The columns of a trial that an outcome table fills.
#[derive(Deserialize)]
struct TrialRow {
    lane: Lane,
    case: CaseId,
    trial: u32,
    session: SessionId,
    ending: TrialEnding,
    success: Option<bool>,
    outcome_missing: Option<String>,
    duration_us: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cost_usd: Option<f64>,
    cluster: Option<String>,
    weight: Option<f64>,
    has_transcript: bool,
}

impl TrialRow {
    /// The first value in which a trial of an outcome table differs; absent if both say the same. The conversation of a
    /// trial with a transcript is not compared, so such a trial always differs.
    fn difference(&self, trial: &Trial) -> Option<&'static str> {
        let checks = [
            ("success", self.success == trial.success && self.outcome_missing == trial.outcome_missing),
            ("ending", self.ending == trial.ending),
            ("duration", self.duration_us == trial.duration_us),
            ("input_tokens", self.input_tokens == trial.input_tokens),
            ("output_tokens", self.output_tokens == trial.output_tokens),
            ("cost", self.cost_usd == trial.cost_usd),
            ("cluster", self.cluster == trial.cluster),
            ("weight", self.weight == trial.weight),
            ("transcript", !self.has_transcript && !trial.has_transcript),
        ];
        checks.into_iter().find(|(_, equal)| !equal).map(|(name, _)| name)
    }
}

/// Columns of [`TrialRow`].
const TRIAL_COLUMNS: [&str; 14] = [
    "lane",
    "case",
    "trial",
    "session",
    "ending",
    "success",
    "outcome_missing",
    "duration_us",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "cluster",
    "weight",
    "has_transcript",
];

/// The contents of the destination that an import must not repeat.
pub(super) struct Destination {
    location: String,
    sources: BTreeSet<String>,
    sessions: BTreeSet<SessionId>,
    trials: BTreeMap<(Lane, CaseId, u32), TrialRow>,
    /// The manifest to create; `None` for a store or an existing run.
    manifest: Option<RunManifest>,
}

impl Destination {
    /// Reads the destination.
    ///
    /// # Errors
    /// The destination is a run instead of a store, a store instead of a run, or a run with another build or lane.
    pub(super) async fn read(
        store: &Store,
        into: &ImportInto,
        selected: bool,
        planned_trials: Option<u32>,
        infrastructure: &[String],
        format: ImportFormat,
    ) -> Result<Self, Failure> {
        let infrastructure = sorted(infrastructure);
        let snapshot = store.snapshot().await.map_err(Failure::work)?;
        let found = store.manifest().await.map_err(Failure::work)?;
        let location = store.location().to_owned();
        let manifest = match (into, found) {
            (ImportInto::Store { .. }, None) => None,
            (ImportInto::Store { .. }, Some(_)) => {
                return Err(Failure::usage(anyhow!(
                    "{location} is a run, not a store; import into it with --run, or name another folder"
                )));
            }
            (ImportInto::Run { .. }, None) if !snapshot.is_empty() => {
                return Err(Failure::usage(anyhow!(
                    "{location} is a store, not a run; import into it with --store, or name another folder"
                )));
            }
            (ImportInto::Run { build, lane }, None) => Some(RunManifest {
                format: FORMAT,
                tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                lane: *lane,
                build: build.clone(),
                source: format!("import:{}", format.as_str()),
                model: None,
                selected,
                planned_trials,
                planned_cases: None,
                seed: None,
                corpus_digest: None,
                plan_digest: None,
                infrastructure,
                model_retry: None,
            }),
            (ImportInto::Run { build, lane }, Some(found)) => {
                check_agreement(&location, &found, build.as_str(), *lane, selected, planned_trials)?;
                check_infrastructure(&location, &found, &infrastructure)?;
                None
            }
        };
        let sessions: Vec<SessionRow> =
            store.read_table(&snapshot, Table::Sessions, Some(&["session"])).await.map_err(Failure::work)?;
        let trials: Vec<TrialRow> =
            store.read_table(&snapshot, Table::Trials, Some(&TRIAL_COLUMNS)).await.map_err(Failure::work)?;
        let ids =
            sessions.into_iter().map(|row| row.session).chain(trials.iter().map(|row| row.session.clone()));
        Ok(Self {
            location,
            sources: snapshot.sources().map(str::to_owned).collect(),
            sessions: ids.collect(),
            trials: trials.into_iter().map(|row| ((row.lane, row.case.clone(), row.trial), row)).collect(),
            manifest,
        })
    }

    /// Refuses a file that an earlier import committed.
    pub(super) fn refuse_repeated_file(&mut self, source: &str, file: &str) -> Result<(), Failure> {
        if self.sources.insert(source.to_owned()) {
            return Ok(());
        }
        let location = &self.location;
        Err(Failure::usage(anyhow!(
            "{file} is already imported into {location} (commit {source}); nothing was written; name another folder to import it again"
        )))
    }

    /// Whether the run already has this trial, with equal values.
    ///
    /// # Errors
    /// The destination has another trial of this case and number, or a session of this name.
    pub(super) fn has_equal(&mut self, converted: &ConvertedSession, file: &str) -> Result<bool, Failure> {
        let location = &self.location;
        if let Some(trial) = &converted.trial
            && let Some(existing) = self.trials.get(&(trial.lane, trial.case.clone(), trial.trial))
        {
            let Some(difference) = existing.difference(trial) else { return Ok(true) };
            return Err(Failure::usage(anyhow!(
                "{file}: {location} already has case {} trial {} with another {difference} (session {}); nothing was written: \
                 remove the row, or import into another folder",
                trial.case,
                trial.trial,
                existing.session
            )));
        }
        let session = converted
            .close
            .as_ref()
            .map(|close| &close.session)
            .or(converted.trial.as_ref().map(|trial| &trial.session));
        match session {
            Some(session) if !self.sessions.insert(session.clone()) => Err(Failure::usage(anyhow!(
                "{file}: session {session} is already in {location} or in another file of this import; nothing was written; \
                 name another folder, or rename one of the files"
            ))),
            Some(_) | None => Ok(false),
        }
    }

    /// Creates the manifest of a new run.
    pub(super) async fn create_manifest(&self, store: &Store) -> Result<(), Failure> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        match store.create_manifest(manifest).await {
            Ok(()) => Ok(()),
            // Another import created it since the read; it must agree like an existing one.
            Err(StoreError::ManifestExists { .. }) => {
                let found = store.manifest().await.map_err(Failure::work)?;
                let found = found.ok_or_else(|| {
                    Failure::work(anyhow!("run.json of {} disappeared during the import", self.location))
                })?;
                check_agreement(
                    &self.location,
                    &found,
                    manifest.build.as_str(),
                    manifest.lane,
                    manifest.selected,
                    manifest.planned_trials,
                )
            }
            Err(error) => Err(Failure::work(error)),
        }
    }
}

/// Texts in an order of their own: that on the command line means nothing.
fn sorted(texts: &[String]) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort();
    texts.dedup();
    texts
}

/// Refuses a file whose errors would be told apart by other texts than those of the run.
fn check_infrastructure(location: &str, found: &RunManifest, texts: &[String]) -> Result<(), Failure> {
    if found.infrastructure == texts {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "{location} is a run with --infrastructure {:?}, not {texts:?}; use the same texts or another folder",
        found.infrastructure
    )))
}

fn check_agreement(
    location: &str,
    found: &RunManifest,
    build: &str,
    lane: Lane,
    selected: bool,
    planned_trials: Option<u32>,
) -> Result<(), Failure> {
    let differs = |what: &str, has: &str, wanted: &str| {
        Err(Failure::usage(anyhow!(
            "{location} is a run with {what} {has}, not {wanted}; use the same value or another folder"
        )))
    };
    if found.build.as_str() != build {
        return differs("build", found.build.as_str(), build);
    }
    if found.lane != lane {
        return differs("lane", found.lane.as_str(), lane.as_str());
    }
    if found.selected != selected {
        let word = |flag: bool| if flag { "true" } else { "false" };
        return differs("outcome-selected =", word(found.selected), word(selected));
    }
    if planned_trials.is_some() && found.planned_trials != planned_trials {
        let word =
            |number: Option<u32>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
        return differs("planned trials", &word(found.planned_trials), &word(planned_trials));
    }
    if !found.source.starts_with("import:") {
        return Err(Failure::usage(anyhow!("{location} is a replayed run; import into another folder")));
    }
    Ok(())
}
