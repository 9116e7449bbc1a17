//! The demo's replays: every recorded session, several times, against one build of the agent.

use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use replayer::{Candidate, Clock, FaultRules, ModelMode, Plan, Progress, Summary, World};
use schemas::id::IncarnationId;
use schemas::keys::RootKey;
use schemas::tools::ToolCatalog;
use schemas::trial::Lane;
use tokio_util::sync::CancellationToken;

use super::agent::{AgentServer, Build, Surroundings};
use super::files;
use super::folder::Folder;
use super::tools;
use super::wire::Port;
use crate::clock;

/// Trials at the same time. Some of them wait for a slow tool at any moment.
const CONCURRENCY: usize = 24;
/// The longest that a recorded tool delay is replayed.
const DELAY_CAP: Duration = Duration::from_secs(1);

/// What is replayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replay<'a> {
    /// The run's name, which is the candidate file's too.
    pub(super) name: &'static str,
    pub(super) lane: Lane,
    /// The text of the build's `agent.toml`.
    pub(super) agent: &'a str,
    pub(super) trials: u32,
    pub(super) seed: u64,
}

/// Replays all recorded sessions against this build; `step` moves with each finished trial.
pub(super) async fn replay(
    folder: &Folder,
    key: &RootKey,
    world: &World,
    model_url: &str,
    replay: Replay<'_>,
    step: &ProgressBar,
) -> anyhow::Result<Summary> {
    let Replay { name, lane, agent, trials, seed } = replay;
    let build = Build::parse(agent)?;
    let port = Port::take().await?;
    let text = files::candidate(&build.build, &port.url(), model_url);
    folder.write(&format!("candidates/{name}.toml"), &text)?;
    folder.write(&format!("agents/{name}.toml"), agent)?;
    let plan = Plan {
        ring: store::keyring::KeyRing::default(),
        store: folder.location("store"),
        run: folder.location(&format!("runs/{name}")),
        candidate: Candidate::parse(&text, &|_| None).context("the demo's own candidate file is refused")?,
        lane,
        trials,
        sessions: None,
        seed,
        concurrency: CONCURRENCY,
        faults: Some(FaultRules::parse(files::FAULTS).context("the demo's own faults are refused")?),
        model: ModelMode::Live,
        tools: ToolCatalog::parse_json(tools::CATALOG).context("the demo's own tool list is refused")?,
        agent: None,
        resume: false,
        delay_scale: 1.0,
        delay_cap: DELAY_CAP,
        allow_open_egress: false,
        keys: key.clone(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        incarnation: IncarnationId::parse(&uuid::Uuid::now_v7().to_string())?,
        clock: Clock::new(clock::now_micros),
    };
    let surroundings = Surroundings { model_url: world.model_url(), tool_url: world.mcp_url() };
    let agent = AgentServer::start(port, build, surroundings);
    let mut watch = |progress: Progress| match progress {
        Progress::Planned { trials, .. } => step.set_length(trials as u64),
        Progress::Finished { done, .. } => step.set_position(done as u64),
        Progress::Corpus { .. } | Progress::Probed => {}
    };
    let summary = replayer::replay(plan, world, &mut watch, CancellationToken::new()).await;
    agent.stop().await;
    summary.with_context(|| format!("the replay against {name} failed"))
}
