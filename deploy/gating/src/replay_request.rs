//! A replay as the command line and `gate.toml` describe it: paths and numbers, which become a [`Plan`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use replayer::{Candidate, Clock, FaultRules, ModelMode, Plan};
use schemas::id::{AgentId, IncarnationId};
use schemas::keys::RootKey;
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;
use store::keyring::KeyRing;

/// A replay of one lane, with the paths of its files.
#[derive(Debug, Clone)]
pub struct ReplayRequest {
    /// Location of the store with the recorded sessions.
    pub store: String,
    /// Candidate file (TOML).
    pub candidate: PathBuf,
    /// Location of the run that receives the trials.
    pub run: String,
    /// Lane of the trials.
    pub lane: Lane,
    /// Trials of each session.
    pub trials: u32,
    /// Size of a seeded sample of the sessions; `None`: all sessions.
    pub sessions: Option<usize>,
    /// Seed of the sample, the order of trials, the faults and the seeds of the candidate.
    pub seed: u64,
    /// Trials that run at the same time.
    pub concurrency: usize,
    /// Fault rules (TOML).
    pub faults: Option<PathBuf>,
    /// Source of model responses.
    pub model: ModelMode,
    /// Tool list (JSON) with declared effects.
    pub tools: Option<PathBuf>,
    /// Policy whose `[argument.TOOL]` tables say which arguments make no difference to a recorded answer.
    pub policy: Option<PathBuf>,
    /// Only sessions of this agent.
    pub agent: Option<AgentId>,
    /// Continues an interrupted run; finished trials stay.
    pub resume: bool,
    /// Factor on recorded tool delays.
    pub delay_scale: f64,
    /// Upper bound of a replayed tool delay.
    pub delay_cap: Duration,
    /// A failed trial whose error contains one of these texts is missing instead.
    pub infrastructure: Vec<String>,
    /// Starts a command candidate although it can reach the network.
    pub allow_open_egress: bool,
    /// Replays sessions of which no model or tool call was decoded.
    pub allow_undecoded: bool,
}

/// Values of the process that a replay needs and that no file contains.
pub struct Resources<'a> {
    /// Looks up `${NAME}` of a candidate file.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Keys of encrypted stores and runs.
    pub keys: KeyRing,
    /// The root key of this deployment.
    pub root_key: RootKey,
    /// Version of the program, for `run.json`.
    pub tool_version: String,
    /// A new id for this process.
    pub incarnation: IncarnationId,
    /// Microseconds since 1970, UTC.
    pub clock: fn() -> i64,
}

impl ReplayRequest {
    /// Reads the files of the request.
    ///
    /// # Errors
    /// A file cannot be read or parsed: the error names the file and the key. All are errors of usage.
    pub fn into_plan(self, resources: &Resources<'_>) -> anyhow::Result<Plan> {
        let candidate = Candidate::parse(&read(&self.candidate)?, resources.env)
            .with_context(|| cannot_use("candidate", &self.candidate))?;
        let faults = match &self.faults {
            Some(path) => Some(FaultRules::parse(&read(path)?).with_context(|| cannot_use("fault", path))?),
            None => None,
        };
        let tools = match &self.tools {
            Some(path) => ToolCatalog::parse_json(&read(path)?).with_context(|| cannot_use("tool", path))?,
            None => ToolCatalog::default(),
        };
        let arguments = decision::read_policy(self.policy.as_deref())?.argument;
        Ok(Plan {
            arguments,
            store: self.store,
            run: self.run,
            key_ring: resources.keys.clone(),
            candidate,
            lane: self.lane,
            trials: self.trials,
            sessions: self.sessions,
            seed: self.seed,
            concurrency: self.concurrency,
            faults,
            model: self.model,
            tools,
            agent: self.agent,
            resume: self.resume,
            delay_scale: self.delay_scale,
            delay_cap: self.delay_cap,
            infrastructure: {
                // The order on the command line means nothing, and both lanes must agree.
                let mut texts = self.infrastructure;
                texts.sort();
                texts.dedup();
                texts
            },
            allow_open_egress: self.allow_open_egress,
            allow_undecoded: self.allow_undecoded,
            root_key: resources.root_key.clone(),
            tool_version: resources.tool_version.clone(),
            incarnation: resources.incarnation.clone(),
            clock: Clock::new(resources.clock),
        })
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn cannot_use(kind: &str, path: &Path) -> String {
    format!("{kind} file {} cannot be used", path.display())
}
