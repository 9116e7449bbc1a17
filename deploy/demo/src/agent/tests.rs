use super::*;
use crate::backend::{Case, Ledger};
use crate::builds;
use crate::model_server::ModelServer;
use crate::tool_server::ToolServer;

const CASES: u32 = 40;

/// Sends the first turn of every case to this build and returns the number of executed writes.
async fn writes_of(agent_toml: &str, seed: u64) -> u64 {
    let cases: Vec<Case> = (0..CASES).map(|number| Case::draw(seed, number)).collect();
    let model = ModelServer::start(seed).await.expect("a model server");
    let tools = ToolServer::start(Ledger::new(&cases)).await.expect("a tool server");
    let endpoints = Endpoints { model_url: model.url(), tool_url: tools.url() };
    let build = Build::parse(agent_toml).expect("a build");
    let agent = AgentServer::start(Listener::bind().await.expect("a port"), build, endpoints);
    let client = HttpClient::new();
    for case in &cases {
        let headers = [(HeaderName::from_static("x-session-id"), case.id.clone())];
        let body = json!({"session": case.id, "message": case.turns[0]});
        let reply = client.post(&agent.url(), &headers, &body).await.expect("an answer");
        assert_eq!(reply.status, StatusCode::OK, "{}", String::from_utf8_lossy(&reply.body));
        let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert!(body["reply"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    }
    let writes = tools.writes();
    agent.stop().await;
    tools.stop().await;
    model.stop().await;
    writes
}

#[tokio::test]
async fn answers_requests_and_only_the_regressed_build_writes_more_than_once() {
    let current = writes_of(builds::CURRENT, 3).await;
    let harmless = writes_of(builds::HARMLESS, 3).await;
    let regressed = writes_of(builds::REGRESSED, 3).await;
    let wished = u64::from(CASES) * 85 / 100;
    assert!(current.abs_diff(wished) < 12, "{current} writes for about {wished} requests");
    assert!(current.abs_diff(harmless) <= 6, "current {current}, harmless {harmless}");
    assert!(regressed > current + 2, "current {current}, regressed {regressed}");
}

#[tokio::test]
async fn a_bad_turn_and_an_unreachable_model_are_errors() {
    let nowhere =
        Endpoints { model_url: "http://127.0.0.1:1/v1".into(), tool_url: "http://127.0.0.1:1".into() };
    let build = Build::parse(builds::CURRENT).expect("a build");
    let agent = AgentServer::start(Listener::bind().await.expect("a port"), build, nowhere);
    let client = HttpClient::new();
    let missing = client.post(&agent.url(), &[], &json!({"session": "s"})).await.expect("an answer");
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&missing.body).contains("message is missing"));
    let turn = json!({"session": "s", "message": "hello"});
    let unreachable = client.post(&agent.url(), &[], &turn).await.expect("an answer");
    assert_eq!(unreachable.status, StatusCode::BAD_GATEWAY);
    agent.stop().await;
}

#[test]
fn a_slow_tool_call_is_recognised_by_its_response() {
    assert!(is_slow(&ToolOutcome::TimedOut));
    assert!(is_slow(&ToolOutcome::Result(r#"{"status":"processing"}"#.into())));
    assert!(!is_slow(&ToolOutcome::Result(r#"{"status":"booked"}"#.into())));
    assert!(!is_slow(&ToolOutcome::Failed("no".into())));
}

#[test]
fn a_new_conversation_evicts_the_least_recently_used() {
    let conversations = Conversations::new();
    for number in 0..=MAX_CONVERSATIONS.get() {
        conversations.put(&number.to_string(), Conversation { messages: Vec::new(), tools: Value::Null });
    }
    assert!(conversations.get("0").is_none() && conversations.get("1").is_some());
}
