//! Live traffic of the demo: customers talk to the current build through the tap, which records it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use hyper::header::HeaderName;
use schemas::exchange::Edge;
use schemas::keys::RootKey;
use serde::Serialize;
use serde_json::json;
use store::Store;

use crate::agent::{AgentServer, Build, Endpoints};
use crate::backend::Case;
use crate::config_files;
use crate::http::{HttpClient, Listener};
use crate::model_server::ModelServer;
use crate::output_folder::OutputFolder;
use crate::tool_server::ToolServer;

/// Customers who are active at the same time.
const CUSTOMERS_AT_ONCE: usize = 16;
/// Time limit of the recorder's shutdown.
const DRAIN: Duration = Duration::from_secs(30);

/// Counts of the recording.
#[derive(Debug, Clone, Serialize)]
pub struct RecordingCounts {
    /// Sessions in the store.
    pub sessions: u64,
    /// Exchanges with the agent.
    pub turns: u64,
    /// Exchanges with the model.
    pub model_calls: u64,
    /// Exchanges with the tool server.
    pub tool_calls: u64,
    /// Exchanges that the tap forwarded.
    pub exchanges: u64,
    /// Exchanges that were not recorded.
    pub shed: u64,
    /// Sessions with every exchange and their close row.
    pub whole: u64,
    /// Sessions with missing exchanges.
    pub torn: u64,
    /// Writes that the backend executed.
    pub writes: u64,
}

/// Records all cases; calls `on_session` after each session.
pub(crate) async fn record(
    folder: &OutputFolder,
    key: &RootKey,
    cases: &[Case],
    model: &ModelServer,
    tools: &ToolServer,
    clock: fn() -> i64,
    on_session: &(dyn Fn() + Sync),
) -> anyhow::Result<RecordingCounts> {
    let build = Build::parse(crate::builds::CURRENT)?;
    let listener = Listener::bind().await?;
    let origin = |url: &str| url.trim_end_matches("/v1").trim_end_matches("/mcp").to_owned();
    let text = config_files::recorder(
        folder,
        &build.build,
        &listener.url(),
        &origin(&model.url()),
        &origin(&tools.url()),
    );
    folder.write("foreshadow.toml", &text)?;
    let config = recorder::config::Config::parse(&text).context("foreshadow.toml of the demo is refused")?;
    let tap = recorder::start(config, key.clone(), Arc::new(clock)).await.context("the tap cannot start")?;
    let url = |edge: Edge| {
        let mut routes = tap.routes().iter().filter(|route| route.edge == edge);
        routes
            .next()
            .map(recorder::BoundRoute::url)
            .with_context(|| format!("the tap has no route for {edge:?}"))
    };
    let (turn_url, model_url, tool_url) = (url(Edge::Turn)?, url(Edge::Model)?, url(Edge::Tool)?);
    let endpoints = Endpoints { model_url: format!("{model_url}/v1"), tool_url: format!("{tool_url}/mcp") };
    let agent = AgentServer::start(listener, build, endpoints);
    let talked = talk(cases, &format!("{turn_url}/chat"), on_session).await;
    agent.stop().await;
    let counts = tap.shutdown(DRAIN).await.context("the recorder cannot shut down")?;
    talked?;
    count(folder, &counts, tools.writes()).await
}

/// Sends all messages of all customers.
async fn talk(cases: &[Case], url: &str, on_session: &(dyn Fn() + Sync)) -> anyhow::Result<()> {
    let client = HttpClient::new();
    let sessions = cases.iter().map(|case| {
        let client = client.clone();
        async move {
            let headers = [(HeaderName::from_static("x-session-id"), case.id.clone())];
            for message in &case.turns {
                let body = json!({"session": case.id, "message": message});
                let reply = client.post(url, &headers, &body).await?;
                let text = || String::from_utf8_lossy(&reply.body).into_owned();
                anyhow::ensure!(
                    reply.status.is_success(),
                    "the agent responded {}: {}",
                    reply.status,
                    text()
                );
            }
            on_session();
            anyhow::Ok(())
        }
    });
    let mut running = futures::stream::iter(sessions).buffer_unordered(CUSTOMERS_AT_ONCE);
    while let Some(ended) = running.next().await {
        ended?;
    }
    Ok(())
}

/// Counts the sessions in the store: a replay reads the store, not the counters of the tap.
async fn count(
    folder: &OutputFolder,
    counts: &recorder::ExchangeCounts,
    writes: u64,
) -> anyhow::Result<RecordingCounts> {
    let store = Store::open(&folder.location("store"))?;
    let sessions = store.load_sessions(&store.snapshot().await?, None).await?;
    let mut recorded = RecordingCounts {
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
        match session.gaps().is_empty() {
            true => recorded.whole += 1,
            false => recorded.torn += 1,
        }
    }
    Ok(recorded)
}
