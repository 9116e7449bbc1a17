//! The store or run that an import writes to: refuses files, sessions and trials that it already contains.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use recorder::import::{ConvertedSession, ImportFile, ImportFormat, ImportInto, SkippedItem, Transcript};
use schemas::FORMAT;
use schemas::id::{CaseId, SessionId};
use schemas::trial::{Lane, RunManifest};
use serde::Deserialize;
use store::table::Table;
use store::{Store, StoreError};

use crate::exit::Failure;

#[derive(Deserialize)]
struct SessionRow {
    session: SessionId,
}

#[derive(Deserialize)]
struct TrialRow {
    lane: Lane,
    case: CaseId,
    trial: u32,
    session: SessionId,
}

/// File, case and trial.
type Claim = (String, String, u32);

type Slices = BTreeMap<String, String>;

/// The contents of the destination that an import must not repeat.
pub(super) struct Destination {
    location: String,
    sources: BTreeSet<String>,
    sessions: BTreeSet<SessionId>,
    trials: BTreeSet<(Lane, CaseId, u32)>,
    /// Line and slices of each case and trial of the imported files.
    claimed: BTreeMap<Claim, (u64, Slices)>,
    /// The manifest to create; `None` for a store or an existing run.
    manifest: Option<RunManifest>,
    is_run: bool,
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
        format: ImportFormat,
    ) -> Result<Self, Failure> {
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
                planned_trials: None,
                planned_cases: None,
                seed: None,
                corpus_digest: None,
                plan_digest: None,
                infrastructure: Vec::new(),
                model_retry: None,
            }),
            (ImportInto::Run { build, lane }, Some(found)) => {
                check_agreement(&location, &found, build.as_str(), *lane, selected)?;
                None
            }
        };
        let sessions: Vec<SessionRow> =
            store.read_table(&snapshot, Table::Sessions, Some(&["session"])).await.map_err(Failure::work)?;
        let columns = ["lane", "case", "trial", "session"];
        let trials: Vec<TrialRow> =
            store.read_table(&snapshot, Table::Trials, Some(&columns)).await.map_err(Failure::work)?;
        let ids =
            sessions.into_iter().map(|row| row.session).chain(trials.iter().map(|row| row.session.clone()));
        Ok(Self {
            location,
            sources: snapshot.sources().map(str::to_owned).collect(),
            sessions: ids.collect(),
            trials: trials.into_iter().map(|row| (row.lane, row.case, row.trial)).collect(),
            claimed: BTreeMap::new(),
            manifest,
            is_run: matches!(into, ImportInto::Run { .. }),
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

    /// Claims the case and trial of a transcript within its file: skips a repeated one, refuses one with another slice value.
    pub(super) fn claim(
        &mut self,
        source: &ImportFile,
        one: &Transcript,
    ) -> Result<Option<SkippedItem>, Failure> {
        let name = if self.is_run { &one.case } else { &one.name };
        let key = (source.name().to_owned(), name.clone(), one.trial);
        let Some((line, slices)) = self.claimed.get(&key) else {
            self.claimed.insert(key, (one.line, one.slices.clone()));
            return Ok(None);
        };
        let (file, case, trial) = (source.name(), &one.case, one.trial);
        let differs =
            slices.iter().find(|(slice, value)| one.slices.get(*slice).is_none_or(|other| other != *value));
        if let Some((slice, value)) = differs {
            return Err(Failure::usage(anyhow!(
                "{file}:{}: case {case} trial {trial} occurs on line {line} too, with another {slice}; \
                 select one, for example with --where {slice}={value}",
                one.line
            )));
        }
        let detail = format!("case {case} trial {trial} occurs twice, first on line {line}");
        Ok(Some(SkippedItem { file: file.to_owned(), line: one.line, field: String::new(), detail }))
    }

    /// Refuses a session or trial that the destination or another file contains.
    pub(super) fn refuse_duplicate(
        &mut self,
        converted: &ConvertedSession,
        file: &str,
    ) -> Result<(), Failure> {
        let location = &self.location;
        let duplicate = |what: String| {
            Failure::usage(anyhow!(
                "{file}: {what} is already in {location} or in another file of this import; nothing was written; name another folder"
            ))
        };
        if let Some(trial) = &converted.trial
            && !self.trials.insert((trial.lane, trial.case.clone(), trial.trial))
        {
            return Err(duplicate(format!("case {} trial {}", trial.case, trial.trial)));
        }
        let session = converted
            .close
            .as_ref()
            .map(|close| &close.session)
            .or(converted.trial.as_ref().map(|trial| &trial.session));
        match session {
            Some(session) if !self.sessions.insert(session.clone()) => {
                Err(duplicate(format!("session {session}")))
            }
            Some(_) | None => Ok(()),
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
                )
            }
            Err(error) => Err(Failure::work(error)),
        }
    }
}

fn check_agreement(
    location: &str,
    found: &RunManifest,
    build: &str,
    lane: Lane,
    selected: bool,
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
    if !found.source.starts_with("import:") {
        return Err(Failure::usage(anyhow!("{location} is a replayed run; import into another folder")));
    }
    Ok(())
}
