//! The file of a gate: what is replayed against what, and how it is decided.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use schemas::id::AgentId;
use schemas::trial::Lane;
use serde::Deserialize;

use replayer::ModelMode;
use scoring::ScoreConfig;

use crate::replay_request::ReplayRequest;

/// What stands under `[gate]`; paths are relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GateConfig {
    /// Store with the recorded sessions.
    pub(crate) store: String,
    /// Candidate file of the current build.
    pub baseline: PathBuf,
    /// Candidate file of the new build.
    pub(crate) candidate: PathBuf,
    /// Folder that holds both runs.
    runs: PathBuf,
    /// Folder that the verdict is written to.
    pub out: PathBuf,
    /// The policy; the documented defaults where there is none.
    #[serde(default)]
    pub(crate) policy: Option<PathBuf>,
    /// What `foreshadow calibrate` found.
    #[serde(default)]
    pub(crate) calibration: Option<PathBuf>,
    /// Trials of each session in each lane.
    #[serde(default = "default_trials")]
    pub(crate) trials: u32,
    /// Sessions that the plan ends with; all where it does not say.
    #[serde(default)]
    pub(crate) sessions: Option<usize>,
    /// Planned looks; those of the policy where it does not say.
    #[serde(default)]
    pub(crate) looks: Option<u32>,
    /// Seed of everything random.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Trials at a time, of each lane.
    #[serde(default = "default_concurrency")]
    concurrency: usize,
    #[serde(default)]
    faults: Option<PathBuf>,
    #[serde(default)]
    tools: Option<PathBuf>,
    #[serde(default)]
    agent: Option<AgentId>,
    /// What answers model calls.
    #[serde(default)]
    model: ModelName,
    #[serde(default = "default_scale")]
    delay_scale: f64,
    #[serde(default = "default_cap", with = "humantime_serde")]
    delay_cap: std::time::Duration,
    #[serde(default)]
    allow_open_egress: bool,
    /// Capability envelope that every trial is checked against.
    #[serde(default)]
    pub(crate) envelope: Option<PathBuf>,
    /// Who is asked about the trials after each wave; absent without a `[score]` table.
    #[serde(skip)]
    pub(crate) scoring: Option<Scoring>,
}

/// Source of model responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ModelName {
    /// The recording.
    #[default]
    Recorded,
    /// The provider under `[model]` of the candidate file.
    Live,
}

/// The `[score]` table of the file.
#[derive(Debug, Clone)]
pub struct Scoring {
    /// The evaluators.
    pub config: ScoreConfig,
    /// Folder that relative paths of the table start from.
    pub base: PathBuf,
    /// BLAKE3 of the table, hexadecimal.
    pub digest: String,
}

fn default_trials() -> u32 {
    5
}

fn default_concurrency() -> usize {
    4
}

fn default_scale() -> f64 {
    1.0
}

fn default_cap() -> std::time::Duration {
    std::time::Duration::from_secs(10)
}

/// The file; other tables are other commands'.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    gate: Option<GateConfig>,
    #[serde(default)]
    score: Option<toml::Table>,
    #[serde(default, rename = "encryption")]
    _encryption: Option<toml::Table>,
}

fn digest(table: &toml::Table) -> anyhow::Result<String> {
    let text = serde_json::to_string(table).context("the [score] table cannot be read")?;
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}

impl GateConfig {
    /// Reads the file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("configuration {} cannot be used for a gate", path.display());
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "configuration {} cannot be read; name one with a [gate] table by --config FILE",
                path.display()
            )
        })?;
        let file: File = toml::from_str(&text).with_context(what)?;
        let gate = file.gate.with_context(|| {
            format!(
                "{} has no [gate] table; it names store, baseline, candidate, runs and out",
                path.display()
            )
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let scoring = match &file.score {
            Some(table) => Some(Scoring {
                config: ScoreConfig::find(&text).with_context(what)?,
                base: folder.to_owned(),
                digest: digest(table)?,
            }),
            None => None,
        };
        Ok(Self { scoring, ..gate.below(folder) })
    }

    /// The paths taken from a folder.
    fn below(mut self, folder: &Path) -> Self {
        if !self.store.contains("://") {
            self.store = folder.join(&self.store).display().to_string();
        }
        for path in [&mut self.baseline, &mut self.candidate, &mut self.runs, &mut self.out] {
            *path = folder.join(&*path);
        }
        let optional =
            [&mut self.policy, &mut self.calibration, &mut self.envelope, &mut self.faults, &mut self.tools];
        for path in optional.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self
    }

    /// Where a lane's trials go.
    pub(crate) fn run(&self, lane: Lane) -> String {
        self.runs.join(lane.as_str()).display().to_string()
    }

    /// Whether a lane's run was begun.
    pub(crate) fn run_exists(&self, lane: Lane) -> bool {
        self.runs.join(lane.as_str()).join("run.json").exists()
    }

    /// Where it is written what was fixed before the first trial.
    pub(crate) fn plan_lock_path(&self) -> PathBuf {
        self.runs.join("gate.json")
    }

    /// The replay of a lane.
    pub(crate) fn replay(&self, lane: Lane, sessions: Option<usize>, resume: bool) -> ReplayRequest {
        let candidate = if lane == Lane::Baseline { &self.baseline } else { &self.candidate };
        ReplayRequest {
            store: self.store.clone(),
            candidate: candidate.clone(),
            run: self.run(lane),
            lane,
            trials: self.trials,
            sessions,
            seed: self.seed,
            concurrency: self.concurrency,
            faults: self.faults.clone(),
            model: match self.model {
                ModelName::Recorded => ModelMode::Recorded,
                ModelName::Live => ModelMode::Live,
            },
            tools: self.tools.clone(),
            agent: self.agent.clone(),
            resume,
            delay_scale: self.delay_scale,
            delay_cap: self.delay_cap,
            allow_open_egress: self.allow_open_egress,
        }
    }

    /// The command that leads to the same verdict.
    pub(crate) fn command(&self, config: &Path, extension: bool) -> String {
        let extend = if extension { " --extend" } else { "" };
        format!("foreshadow gate --config {}{extend}", config.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_folder_of_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gate.toml");
        let text = "[gate]\nstore = \"s\"\nbaseline = \"b.toml\"\ncandidate = \"/c.toml\"\nruns = \"r\"\nout = \"o\"\n";
        std::fs::write(&path, text).expect("written");
        let config = GateConfig::read(&path).expect("a gate");
        assert_eq!(config.baseline, folder.path().join("b.toml"));
        assert_eq!(config.candidate, Path::new("/c.toml"));
        assert_eq!(config.run(Lane::Candidate), folder.path().join("r/candidate").display().to_string());
        assert_eq!((config.trials, config.sessions, config.looks), (5, None, None));
        std::fs::write(&path, format!("{text}lokks = 3\n")).expect("written");
        let error = format!("{:#}", GateConfig::read(&path).expect_err("a typo"));
        assert!(error.contains("lokks") && error.contains("looks"), "{error}");
        std::fs::write(&path, "[encryption]\n").expect("written");
        assert!(format!("{:#}", GateConfig::read(&path).expect_err("no gate")).contains("[gate]"));
    }
}
