//! The configuration file of a gate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use schemars::JsonSchema;
use schemas::id::AgentId;
use schemas::trial::Lane;
use serde::{Deserialize, Serialize};

use replayer::ModelMode;
use scoring::ScoreConfig;

use crate::replay_request::ReplayRequest;

/// The `[gate]` table: the store, both builds and the decision. Relative paths start from the folder of the file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GateConfig {
    /// Store with the recorded sessions: a folder or a URL.
    pub(crate) store: String,
    /// Candidate file of the current build.
    pub(crate) baseline: PathBuf,
    /// Candidate file of the new build.
    pub(crate) candidate: PathBuf,
    /// Folder of both runs and of the locked plan, `gate.json`.
    runs: PathBuf,
    /// Folder of the verdict and the report.
    pub out: PathBuf,
    /// Policy file; without it, the documented policy.
    #[serde(default)]
    pub(crate) policy: Option<PathBuf>,
    /// Output file of `foreshadow calibrate`; the report shows its error rates.
    #[serde(default)]
    pub(crate) calibration: Option<PathBuf>,
    /// Trials of each session in each lane.
    #[serde(default = "default_trials")]
    pub(crate) trials: u32,
    /// Sessions at the last planned look; without it, all sessions of the store.
    #[serde(default)]
    pub(crate) sessions: Option<usize>,
    /// Planned looks, 1 to 64; without it, `looks` of the policy.
    #[serde(default)]
    pub(crate) looks: Option<u32>,
    /// Seed of the order of sessions, the faults, the seeds of the candidate and the permutations.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Trials at the same time, per lane.
    #[serde(default = "default_concurrency")]
    concurrency: usize,
    /// Fault rules for tool calls.
    #[serde(default)]
    faults: Option<PathBuf>,
    /// Tool list (JSON) with `effect`, `reversible` and `idempotent` for each tool.
    #[serde(default)]
    tools: Option<PathBuf>,
    /// Only sessions of this agent.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    agent: Option<AgentId>,
    /// Source of model responses.
    #[serde(default)]
    model: ModelName,
    /// Factor on recorded tool delays; 0 answers at once.
    #[serde(default = "default_delay_scale")]
    delay_scale: f64,
    /// Longest tool delay, after scaling.
    #[serde(default = "default_delay_cap", with = "humantime_serde")]
    #[schemars(with = "String")]
    delay_cap: Duration,
    /// Parts of error texts, such as "connection refused": a failed trial whose error contains one of them was failed by the
    /// infrastructure, in both lanes, and is missing instead of failed.
    #[serde(default)]
    infrastructure: Vec<String>,
    /// Start a command candidate although it can reach the network.
    #[serde(default)]
    allow_open_egress: bool,
    /// Replay sessions of which no model or tool call was decoded; every call in them is missed.
    #[serde(default)]
    allow_undecoded: bool,
    /// Capability envelope; every trial is checked against it.
    #[serde(default)]
    pub(crate) envelope: Option<PathBuf>,
    /// The `[score]` table of the same file; `None` without it.
    #[serde(skip)]
    pub(crate) scoring: Option<Scoring>,
}

/// Source of model responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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

fn default_delay_scale() -> f64 {
    1.0
}

fn default_delay_cap() -> Duration {
    Duration::from_secs(10)
}

/// The file of a gate; `encryption` belongs to the key ring.
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
    let text = serde_json::to_string(table).context("the [score] table cannot be serialised as JSON")?;
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}

impl GateConfig {
    /// Reads the file of a gate.
    ///
    /// # Errors
    /// The file cannot be read, has no `[gate]` table, or a key is unknown, missing or out of range; the error names the
    /// file and the key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let unusable = || format!("configuration {shown} cannot be used for a gate");
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "configuration {shown} cannot be read; name a file with a [gate] table with --config FILE"
            )
        })?;
        let file: File = toml::from_str(&text).with_context(unusable)?;
        let gate = file.gate.with_context(|| {
            format!("{shown} has no [gate] table; add one with store, baseline, candidate, runs and out")
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let scoring = match &file.score {
            Some(table) => Some(Scoring {
                config: ScoreConfig::find(&text).with_context(unusable)?,
                base: folder.to_owned(),
                digest: digest(table)?,
            }),
            None => None,
        };
        Ok(Self { scoring, ..gate.below(folder) })
    }

    /// Resolves relative paths against a folder.
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

    /// Location of the run of a lane.
    pub(crate) fn run(&self, lane: Lane) -> String {
        self.runs.join(lane.as_str()).display().to_string()
    }

    /// Whether the run of a lane exists.
    pub(crate) fn run_exists(&self, lane: Lane) -> bool {
        self.runs.join(lane.as_str()).join("run.json").exists()
    }

    /// Path of the locked plan.
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
            policy: self.policy.clone(),
            agent: self.agent.clone(),
            resume,
            delay_scale: self.delay_scale,
            delay_cap: self.delay_cap,
            infrastructure: self.infrastructure.clone(),
            allow_open_egress: self.allow_open_egress,
            allow_undecoded: self.allow_undecoded,
        }
    }

    /// The command that reproduces the verdict.
    pub(crate) fn command(&self, config: &Path, extension: bool) -> String {
        let extend = if extension { " --extend" } else { "" };
        format!("foreshadow gate --config {}{extend}", config.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_from_the_folder_of_the_file() {
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

    #[test]
    fn the_schema_has_descriptions_and_defaults() {
        let schema = serde_json::to_value(schemars::schema_for!(GateConfig)).expect("JSON");
        let properties = &schema["properties"];
        assert_eq!(
            (&properties["trials"]["default"], &properties["delay-cap"]["default"]),
            (&5.into(), &"10s".into())
        );
        let described = |key: &str| properties[key]["description"].is_string();
        assert!(described("store") && described("allow-open-egress") && properties.get("scoring").is_none());
    }
}
