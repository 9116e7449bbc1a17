//! A store of recorded sessions: a refund agent looks an order up and refunds it, over MCP.

use std::collections::BTreeMap;
use std::path::Path;

use schemas::body::Body;
use schemas::canonical::canonical;
use schemas::exchange::{
    Edge, Effect, Ending, Exchange, Operation, OperationKind, Protocol, RequestedCall, Usage,
};
use schemas::id::{AgentId, ExchangeId, IncarnationId, SessionId, TenantId};
use schemas::keys::RootKey;
use schemas::session::{CloseReason, SessionClose};
use serde_json::{Value, json};
use store::{Batch, ChunkIndex, Store};

/// Root key of all tests.
pub(crate) fn root_key() -> RootKey {
    RootKey::new([3; 32])
}

/// Tool catalogue with effects and schemas.
pub(crate) const TOOLS: &str = r#"[
    {"name": "get_order", "effect": "read", "inputSchema": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}},
    {"name": "refund", "effect": "write", "inputSchema": {"type": "object", "required": ["order_id", "amount"]}}
]"#;

/// Id of session number `n`.
pub(crate) fn session_id(n: usize) -> SessionId {
    SessionId::parse(&format!("s-{n:03}")).expect("id")
}

struct Recording {
    n: usize,
    batch: Batch,
    seq: u32,
}

impl Recording {
    fn add(
        &mut self,
        edge: Edge,
        protocol: Protocol,
        operation: Operation,
        request: &Value,
        response: &Value,
    ) {
        let keys = root_key().tenant(&TenantId::parse("default").expect("id"));
        let session = session_id(self.n);
        let mut chunk = |value: &Value| {
            let bytes = value.to_string().into_bytes();
            Body::split(&bytes, &keys, |(digest, piece)| {
                self.batch.chunks.push((session.clone(), digest, piece.to_vec().into()));
            })
        };
        let (request, response) = (chunk(request), chunk(response));
        let usage = Usage { input_tokens: Some(10), output_tokens: Some(2), ..Usage::default() };
        self.batch.exchanges.push(Box::new(Exchange {
            exchange: ExchangeId::parse(&format!("x-{}-{}", self.n, self.seq)).expect("id"),
            tenant: TenantId::parse("default").expect("id"),
            agent: AgentId::parse("refunds").expect("id"),
            build: None,
            session,
            incarnation: IncarnationId::parse("recorder-1").expect("id"),
            seq: self.seq,
            incarnation_seq: u64::from(self.seq),
            edge,
            protocol,
            started_at: 1_750_000_000_000_000 + i64::from(self.seq),
            session_started_at: 1_750_000_000_000_000,
            first_byte_us: Some(500),
            duration_us: Some(1_000),
            frame_gaps_us: Vec::new(),
            ending: Ending::Complete,
            ending_detail: None,
            http_method: Some("POST".into()),
            path: Some("/".into()),
            status: Some(200),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            request,
            response,
            operation,
            usage: if edge == Edge::Model { usage } else { Usage::default() },
            identifiers: Vec::new(),
            links: Vec::new(),
            redactions: Vec::new(),
        }));
        self.seq += 1;
    }

    fn tool(&mut self, name: &str, arguments: &Value, text: &str) {
        let mut operation = Operation::new(OperationKind::CallTool);
        operation.tool = Some(name.to_owned());
        operation.arguments = Some(canonical(arguments));
        operation.result = Some(text.to_owned());
        operation.is_error = Some(false);
        operation.effect = Effect::Unknown;
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}});
        let response =
            json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}]}});
        self.add(Edge::Tool, Protocol::Mcp, operation, &request, &response);
    }

    fn model(&mut self, messages: &Value, message: &Value) {
        let mut operation = Operation::new(OperationKind::Chat);
        operation.output = message["content"].as_str().map(str::to_owned);
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            operation.requested.push(RequestedCall {
                id: call["id"].as_str().map(str::to_owned),
                tool: call["function"]["name"].as_str().unwrap_or_default().to_owned(),
                arguments: call["function"]["arguments"].as_str().unwrap_or_default().to_owned(),
            });
        }
        let request = json!({"model": "m", "messages": messages});
        let response = json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m-1",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        });
        self.add(Edge::Model, Protocol::OpenaiChat, operation, &request, &response);
    }

    fn close(&mut self, last_seq: u32) {
        self.batch.closes.push(SessionClose {
            tenant: TenantId::parse("default").expect("id"),
            agent: AgentId::parse("refunds").expect("id"),
            build: None,
            session: session_id(self.n),
            incarnation: IncarnationId::parse("recorder-1").expect("id"),
            started_at: 1_750_000_000_000_000,
            closed_at: 1_750_000_001_000_000,
            reason: CloseReason::Idle,
            turns: 1,
            model_calls: 2,
            tool_calls: 2,
            last_seq: Some(last_seq),
            shed: 0,
            shed_reason: None,
            case: None,
            success: None,
            labels: BTreeMap::from([("shop".to_owned(), "eu".to_owned())]),
        });
    }
}

/// User message of session number `n`.
pub(crate) fn input(n: usize) -> String {
    format!("please refund order W{n:03}")
}

fn record(n: usize, is_incomplete: bool) -> Batch {
    let mut recording = Recording { n, batch: Batch::default(), seq: 0 };
    let order = format!("W{n:03}");
    let mut turn = Operation::new(OperationKind::Turn);
    turn.input = Some(input(n));
    turn.output = Some(format!("refunded {order}"));
    recording.add(
        Edge::Turn,
        Protocol::GenericJson,
        turn,
        &json!({"message": input(n)}),
        &json!({"reply": format!("refunded {order}")}),
    );
    let asked = json!([{"role": "system", "content": "you refund"}, {"role": "user", "content": input(n)}]);
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{
        "id": "k1", "type": "function",
        "function": {"name": "get_order", "arguments": json!({"order_id": order}).to_string()},
    }]});
    recording.model(&asked, &call);
    recording.tool("get_order", &json!({"order_id": order}), &format!("{order} costs 5 and was delivered"));
    recording.tool("refund", &json!({"order_id": order, "amount": 5}), "refund accepted");
    let last = json!([{"role": "user", "content": "and now answer"}]);
    recording.model(&last, &json!({"role": "assistant", "content": format!("refunded {order}")}));
    // The close row of an incomplete session counts one more exchange than the session has.
    recording.close(if is_incomplete { recording.seq } else { recording.seq - 1 });
    recording.batch
}

/// Writes a store of sessions of which only the turns were decoded.
pub(crate) async fn write_undecoded(directory: &Path, sessions: usize) {
    let store = Store::open(directory.to_str().expect("a plain path")).expect("a store");
    let mut batch = Batch::default();
    for n in 0..sessions {
        let mut recording = Recording { n, batch: Batch::default(), seq: 0 };
        let mut turn = Operation::new(OperationKind::Turn);
        turn.input = Some(input(n));
        recording.add(Edge::Turn, Protocol::GenericJson, turn, &json!({}), &json!({}));
        for _ in 0..3 {
            let opaque = Operation::new(OperationKind::Opaque);
            recording.add(Edge::Model, Protocol::Opaque, opaque, &json!({"input": "hi"}), &json!({}));
            if let Some(exchange) = recording.batch.exchanges.last_mut() {
                exchange.path = Some("/v1/responses?x=1".into());
            }
        }
        recording.close(recording.seq - 1);
        batch.exchanges.extend(recording.batch.exchanges);
        batch.chunks.extend(recording.batch.chunks);
        batch.closes.extend(recording.batch.closes);
    }
    store.commit("journal-2", 0, sessions as u64, batch, &mut ChunkIndex::default()).await.expect("a commit");
}

/// Writes a store of complete sessions, followed by incomplete ones.
pub(crate) async fn write(directory: &Path, complete: usize, incomplete: usize) {
    let store = Store::open(directory.to_str().expect("a plain path")).expect("a store");
    let mut batch = Batch::default();
    for n in 0..complete + incomplete {
        let one = record(n, n >= complete);
        batch.exchanges.extend(one.exchanges);
        batch.chunks.extend(one.chunks);
        batch.closes.extend(one.closes);
    }
    let next = (complete + incomplete) as u64;
    store.commit("journal-1", 0, next, batch, &mut ChunkIndex::default()).await.expect("a commit");
}
