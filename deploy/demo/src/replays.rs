//! Replays of the demo: every recorded session, several trials, against one build of the agent.

use std::time::Duration;

use anyhow::Context as _;
use replayer::{Candidate, Clock, FaultRules, ModelMode, Plan, Progress, Summary, World};
use schemas::id::IncarnationId;
use schemas::keys::RootKey;
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;
use tokio_util::sync::CancellationToken;

use crate::agent::{AgentServer, Build, Endpoints};
use crate::config_files;
use crate::http::Listener;
use crate::output_folder::OutputFolder;
use crate::tool_server;

/// Trials at the same time; some of them wait for a slow tool.
const CONCURRENCY: usize = 24;
/// Longest replayed tool delay.
const DELAY_CAP: Duration = Duration::from_secs(1);

/// A replay against one build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replay<'a> {
    /// Name of the run and of the candidate file.
    pub(crate) name: &'static str,
    pub(crate) lane: Lane,
    /// Text of the build's `agent.toml`.
    pub(crate) agent: &'a str,
    pub(crate) trials: u32,
    pub(crate) seed: u64,
}

/// Replays all recorded sessions against a build; calls `on_trials` with the number of finished trials.
pub(crate) async fn replay(
    folder: &OutputFolder,
    key: &RootKey,
    world: &World,
    model_url: &str,
    replay: Replay<'_>,
    clock: fn() -> i64,
    on_trials: &mut (dyn FnMut(usize) + Send),
) -> anyhow::Result<Summary> {
    let Replay { name, lane, agent, trials, seed } = replay;
    let build = Build::parse(agent)?;
    let listener = Listener::bind().await?;
    let text = config_files::candidate(&build.build, &listener.url(), model_url);
    folder.write(&format!("candidates/{name}.toml"), &text)?;
    folder.write(&format!("agents/{name}.toml"), agent)?;
    let plan = Plan {
        key_ring: store::keyring::KeyRing::default(),
        store: folder.location("store"),
        run: folder.location(&format!("runs/{name}")),
        candidate: Candidate::parse(&text, &|_| None).context("candidate file of the demo is refused")?,
        lane,
        trials,
        sessions: None,
        seed,
        concurrency: CONCURRENCY,
        faults: Some(FaultRules::parse(config_files::FAULTS).context("faults.toml of the demo is refused")?),
        model: ModelMode::Live,
        arguments: schemas::equality::ArgumentRules::default(),
        tools: ToolCatalog::parse_json(tool_server::CATALOG).context("tools.json of the demo is refused")?,
        agent: None,
        resume: false,
        delay_scale: 1.0,
        delay_cap: DELAY_CAP,
        infrastructure: Vec::new(),
        allow_open_egress: false,
        allow_undecoded: false,
        root_key: key.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: IncarnationId::parse(&uuid::Uuid::now_v7().to_string())?,
        clock: Clock::new(clock),
    };
    let endpoints = Endpoints { model_url: world.model_url(), tool_url: world.mcp_url() };
    let agent = AgentServer::start(listener, build, endpoints);
    let mut watch = |progress: Progress| match progress {
        Progress::Finished { done, .. } => on_trials(done),
        Progress::Planned { .. } | Progress::Corpus { .. } | Progress::Probed => {}
    };
    let summary = replayer::replay(plan, world, &mut watch, CancellationToken::new()).await;
    agent.stop().await;
    summary.with_context(|| format!("the replay against {name} failed"))
}
