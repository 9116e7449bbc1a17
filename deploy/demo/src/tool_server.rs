//! The demo's tool server: the shop's ledger as MCP tools over streamable HTTP, served by the official SDK.
//!
//! It executes writes, as a production server does. A replay must never reach it.

use std::sync::Arc;

use anyhow::Context as _;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;

use crate::backend::Ledger;
use crate::http::{Listener, Server};

/// The tools with their declared effects: the file that `foreshadow replay --tools` reads.
pub(crate) const CATALOG: &str = include_str!("tools.json");

/// The running tool server.
#[derive(Debug)]
pub(crate) struct ToolServer {
    server: Server,
    ledger: Arc<Ledger>,
}

impl ToolServer {
    /// Serves the tools.
    pub(crate) async fn start(ledger: Ledger) -> anyhow::Result<Self> {
        let ledger = Arc::new(ledger);
        let shop = Shop { ledger: Arc::clone(&ledger), tools: Arc::new(public_tools()?) };
        // Protocol version 2026-07-28 has no sessions: each call is independent and gets a plain JSON response.
        let config =
            StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
        let sessions = Arc::new(NeverSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(shop.clone()), sessions, config);
        let server = Listener::bind().await?.serve(move |request| {
            let service = service.clone();
            async move { service.handle(request).await }
        });
        Ok(Self { server, ledger })
    }

    /// URL of the MCP endpoint.
    pub(crate) fn url(&self) -> String {
        format!("{}/mcp", self.server.url())
    }

    /// Number of executed writes.
    pub(crate) fn writes(&self) -> u64 {
        self.ledger.writes()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

/// The tools as an MCP client sees them, without the declared effects.
fn public_tools() -> anyhow::Result<Vec<Tool>> {
    let catalog: Value = serde_json::from_str(CATALOG).context("tools.json of the demo is not JSON")?;
    let entries =
        catalog.get("tools").and_then(Value::as_array).context("tools.json of the demo has no tools")?;
    let tool = |entry: &Value| {
        let mut entry = entry.clone();
        let fields = entry.as_object_mut().context("a tool of tools.json is not an object")?;
        for declared in ["effect", "reversible", "idempotent"] {
            fields.remove(declared);
        }
        serde_json::from_value(entry).context("a tool of tools.json is not an MCP tool")
    };
    entries.iter().map(tool).collect()
}

#[derive(Debug, Clone)]
struct Shop {
    ledger: Arc<Ledger>,
    tools: Arc<Vec<Tool>>,
}

impl ServerHandler for Shop {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_instructions("The order desk of a small shop.")
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = self.ledger.call(&request.name, &Value::Object(request.arguments.unwrap_or_default()));
        tokio::time::sleep(answer.delay).await;
        let text = vec![ContentBlock::text(answer.body.to_string())];
        let result =
            if answer.is_error { CallToolResult::error(text) } else { CallToolResult::success(text) };
        Ok(result.into())
    }
}

#[cfg(test)]
mod tests {
    use schemas::exchange::Effect;
    use schemas::tools::ToolCatalog;

    use super::*;

    #[test]
    fn the_catalog_declares_an_effect_for_every_tool() {
        let catalog = ToolCatalog::parse_json(CATALOG).expect("the catalog parses");
        assert_eq!(catalog.0.len(), public_tools().expect("the list parses").len());
        assert!(catalog.0.values().all(|tool| tool.effect != Effect::Unknown && tool.args_schema.is_some()));
    }
}
