//! The demo's production: customers talk to the current build through the tap, which records them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use hyper::header::HeaderName;
use indicatif::ProgressBar;
use schemas::exchange::Edge;
use schemas::keys::RootKey;
use serde::Serialize;
use serde_json::json;
use store::Store;

use super::agent::{AgentServer, Build, Surroundings};
use super::files;
use super::folder::Folder;
use super::model::ModelServer;
use super::shop::Case;
use super::tools::ToolServer;
use super::wire::{Caller, Port};
use crate::clock;

/// Customers who write at the same time.
const CUSTOMERS_AT_ONCE: usize = 16;
/// How long the recorder may take to finish; it needs a fraction of it.
const DRAIN: Duration = Duration::from_secs(30);

/// What was recorded.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Recorded {
    sessions: u64,
    turns: u64,
    model_calls: u64,
    tool_calls: u64,
    /// Exchanges that passed the tap.
    exchanges: u64,
    /// Exchanges that were not recorded.
    pub(super) shed: u64,
    pub(super) whole: u64,
    pub(super) torn: u64,
    /// Writes that the shop executed.
    writes: u64,
}

impl Recorded {
    /// The numbers in words.
    pub(super) fn words(&self) -> String {
        let Self { sessions, turns, model_calls, tool_calls, exchanges, shed, whole, torn, writes } = self;
        format!(
            "{sessions} sessions: {turns} turns, {model_calls} model calls, {tool_calls} exchanges with tools \
             ({exchanges} in all, {shed} lost); {whole} sessions whole, {torn} torn; the shop executed {writes} writes"
        )
    }
}

/// Records all cases; `step` moves with each finished session.
pub(super) async fn record(
    folder: &Folder,
    key: &RootKey,
    cases: &[Case],
    model: &ModelServer,
    tools: &ToolServer,
    step: &ProgressBar,
) -> anyhow::Result<Recorded> {
    let build = Build::parse(super::builds::CURRENT)?;
    let port = Port::take().await?;
    let origin = |url: &str| url.trim_end_matches("/v1").trim_end_matches("/mcp").to_owned();
    let text =
        files::recorder(folder, &build.build, &port.url(), &origin(&model.url()), &origin(&tools.url()));
    folder.write("foreshadow.toml", &text)?;
    let config = recorder::config::Config::parse(&text).context("the demo's own configuration is refused")?;
    let tap = recorder::start(config, key.clone(), Arc::new(clock::now_micros))
        .await
        .context("the tap cannot start")?;
    let url = |edge: Edge| {
        let mut routes = tap.routes().iter().filter(|route| route.edge == edge);
        routes
            .next()
            .map(recorder::BoundRoute::url)
            .with_context(|| format!("the tap has no route for {edge:?}"))
    };
    let (turn_url, model_url, tool_url) = (url(Edge::Turn)?, url(Edge::Model)?, url(Edge::Tool)?);
    let surroundings =
        Surroundings { model_url: format!("{model_url}/v1"), tool_url: format!("{tool_url}/mcp") };
    let agent = AgentServer::start(port, build, surroundings);
    let talked = talk(cases, &format!("{turn_url}/chat"), step).await;
    agent.stop().await;
    let counts = tap.shutdown(DRAIN).await.context("the recording could not be finished")?;
    talked?;
    count(folder, &counts, tools.writes()).await
}

/// Lets all customers write what they want to write.
async fn talk(cases: &[Case], url: &str, step: &ProgressBar) -> anyhow::Result<()> {
    let caller = Caller::new();
    let sessions = cases.iter().map(|case| {
        let caller = caller.clone();
        async move {
            let headers = [(HeaderName::from_static("x-session-id"), case.id.clone())];
            for message in &case.turns {
                let body = json!({"session": case.id, "message": message});
                let reply = caller.post(url, &headers, &body).await?;
                let said = || String::from_utf8_lossy(&reply.body).into_owned();
                anyhow::ensure!(reply.status.is_success(), "the agent answered {}: {}", reply.status, said());
            }
            step.inc(1);
            anyhow::Ok(())
        }
    });
    let mut running = futures::stream::iter(sessions).buffer_unordered(CUSTOMERS_AT_ONCE);
    while let Some(ended) = running.next().await {
        ended?;
    }
    Ok(())
}

/// Reads back from disk what there is: what a replay will find, not what the tap believes.
async fn count(folder: &Folder, counts: &recorder::ExchangeCounts, writes: u64) -> anyhow::Result<Recorded> {
    let lake = Store::open(&folder.location("store"))?;
    let sessions = lake.load_sessions(&lake.snapshot().await?, None).await?;
    let mut recorded = Recorded {
        sessions: sessions.len() as u64,
        turns: 0,
        model_calls: 0,
        tool_calls: 0,
        exchanges: counts.started,
        shed: counts.shed.values().sum(),
        whole: 0,
        torn: 0,
        writes,
    };
    for session in &sessions {
        for exchange in &session.exchanges {
            match exchange.edge {
                Edge::Turn => recorded.turns += 1,
                Edge::Model => recorded.model_calls += 1,
                Edge::Tool => recorded.tool_calls += 1,
            }
        }
        match session.tears().is_empty() {
            true => recorded.whole += 1,
            false => recorded.torn += 1,
        }
    }
    Ok(recorded)
}
